"""Groups in the calls of a set: arguments, own values, pauses, figures, letters, exports."""

from __future__ import annotations

import datetime
import json
import math
import pickle
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import servers
from grouped import group_of, urls
from redis.cluster import RedisCluster

import redset
from redset import ScheduledSet, SortedSet, TimeSortedSet
from redset._operations import reporting
from redset._operations.context import Context

P = "pages:{pages}"
MakeSet = Callable[..., Any]


def rows(*names: str) -> list[dict[str, Any]]:
    return [{"id": place, "host": name} for place, name in enumerate(names)]


def of(pages: Any) -> dict[str | None, Any]:
    return {group.name: group for group in pages.groups()}


def slots(raw: Any) -> int:
    return sum(map(len, raw.hgetall(f"{P}:working").values())) // 16


# Arguments.


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"group": 3}, "group must be a callable, the name of a field"),
        ({"group": ()}, "group must have the names of fields"),
        ({"group_limit": 2}, r"group_limit needs group=, got 2 \(int\)"),
        ({"group_limit": None}, r"group_limit needs group=, got None \(NoneType\)"),
        ({"group_interval": 0.1}, r"group_interval needs group=, got 0.1 \(float\)"),
        ({"group": "h", "group_limit": 0}, r"group_limit must be from 1 to 1,000, or None, got 0"),
        ({"group": "h", "group_limit": 1001}, "group_limit must be from 1 to 1,000, or None"),
        ({"group": "h", "group_limit": True}, r"group_limit must be an int or None, got True"),
        ({"group": "h", "group_limit": 1.0}, r"group_limit must be an int or None, got 1.0"),
        ({"group": "h", "group_interval": -1}, r"group_interval must be seconds, from 0 to 30"),
        ({"group": "h", "group_interval": math.nan}, r"group_interval must be seconds, from 0"),
        ({"group": "h", "group_interval": 2592001}, r"group_interval must be seconds, from 0"),
        ({"group": "h", "group_interval": "5"}, r"group_interval must be a number of seconds or"),
        ({"group": "h", "group_interval": True}, r"group_interval must be a number of seconds or"),
    ],
)
@pytest.mark.parametrize("kind", [SortedSet, TimeSortedSet, ScheduledSet])
def test_a_bad_option_of_groups_is_named(
    kind: Any, options: dict[str, Any], text: str, server_client: Any
) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{text}"):
        kind(server_client, "pages", **options)


def test_an_interval_is_rounded_up_to_whole_milliseconds(server_client: Any) -> None:
    for interval, expected in ((0.0011, 2), (datetime.timedelta(milliseconds=1.5), 2), (1, 1000)):
        pages: Any = SortedSet(server_client, "pages", group="host", group_interval=interval)
        assert pages._ctx.options.group_interval == expected


@pytest.mark.parametrize(
    ("group", "error", "text"),
    [
        ("", ValueError, r"group must be of 1 to 200 bytes, got '' \(str\)"),
        ("x" * 201, ValueError, r"group must be of 1 to 200 bytes, got 'xxx.*\(str\)"),
        ("é" * 101, ValueError, "group must be of 1 to 200 bytes"),
        (b"", ValueError, r"group must be of 1 to 200 bytes, got b'' \(bytes\)"),
        ("\ud800", ValueError, r"group must be encodable as UTF-8, got '\\ud800' \(str\)"),
        (True, TypeError, r"group must be str, bytes or int, got True \(bool\)"),
        (1.5, TypeError, r"group must be str, bytes or int, got 1.5 \(float\)"),
    ],
)
def test_a_bad_group_is_named_and_nothing_is_added(
    group: Any, error: type[Exception], text: str, server_client: Any
) -> None:
    pages: Any = SortedSet(server_client, "pages", group=lambda item: group)
    with pytest.raises(error, match=f"^{text}"):
        pages.add("item")
    with pytest.raises(redset.exceptions.AddError):
        pages.add_many(["item"])
    with pytest.raises(error, match=f"^{text}"):
        pages.set_group(group)
    with pytest.raises(error, match=f"^{text}"):
        pages.pause_group(group, 1)
    assert pages.size() == 0


def test_a_missing_field_is_named(server_client: Any) -> None:
    pages: Any = SortedSet(server_client, "pages", key="id", group="host")
    with pytest.raises(ValueError, match="dict has no field 'host' to be its group"):
        pages.add({"id": 1})
    assert pages.add_many([{"id": 1}, {"id": 2, "host": "a"}], errors="skip")[::3] == (1, 1)


def test_groups_are_text_bytes_numbers_or_several_fields(make_set: MakeSet) -> None:
    pages = make_set(SortedSet, "pages", key="id", group=lambda item: item["group"])
    plain = make_set(SortedSet, "plain", group=lambda item: b"\xff" if item == "bytes" else 7)
    pages.add_many([{"id": 1, "group": 7}, {"id": 2, "group": "é"}, {"id": 3, "group": None}])
    plain.add_many(["bytes", "number"])
    assert {lease.item["id"]: lease.group for lease in pages.lease(9)} == {1: "7", 2: "é", 3: None}
    groups = {lease.item: lease.group for lease in plain.lease(9)}
    assert groups == {"bytes": "\udcff", "number": "7"}
    plain.pause_group(groups["bytes"], 60)
    assert of(plain)["\udcff"].rests_until > time.time() + 50
    fields = make_set(SortedSet, "fields", key="id", group=("a", "b"))
    fields.add({"id": 1, "a": "x", "b": 1})
    fields.add({"id": 2, "a": None, "b": None})
    fields.set_group(("x", 1), limit=3)
    assert sorted(group.limit or 0 for group in fields.groups()) == [0, 3]


def test_calls_on_groups_are_refused_without_groups(make_set: MakeSet) -> None:
    jobs = make_set(SortedSet, "jobs")
    jobs.add_many(["a", "b"])
    batch = jobs.lease(2)
    for call in (
        lambda: jobs.set_group("a", limit=1),
        lambda: jobs.pause_group("a", 1),
        lambda: jobs.fail(batch, "no", group=True),
        lambda: jobs.release(batch, group=True),
    ):
        with pytest.raises(ValueError, match="group needs a set with group="):
            call()
    with pytest.raises(ValueError, match="made without group=, and has no groups"):
        list(jobs.groups())
    with pytest.raises(TypeError, match="group must be True or False, got 'yes'"):
        jobs.fail(batch, "no", group="yes")
    assert jobs.ack(batch) == 2


def test_bad_own_values_are_named(server_client: Any) -> None:
    pages: Any = SortedSet(server_client, "pages", group=group_of)
    for options, text in (
        ({"limit": 0}, "limit must be from 1 to 1,000, or None, got 0"),
        ({"limit": "1"}, "limit must be an int or None, got '1'"),
        ({"interval": -1}, "interval must be seconds, from 0 to 30 days, got -1"),
        ({"interval": None}, "interval must be a number of seconds or a timedelta, got None"),
    ):
        with pytest.raises((TypeError, ValueError), match=f"^{text}"):
            pages.set_group("a", **options)
    for seconds in (-1, "1", None, math.nan):
        with pytest.raises((TypeError, ValueError), match=r"^seconds must be"):
            pages.pause_group("a", seconds)


# Own values and pauses.


def test_own_values_of_a_group_win_until_they_are_taken_back(make_set: MakeSet) -> None:
    pages = make_set(SortedSet, "pages", group=group_of)
    pages.add_many(urls("ab", 4))
    assert Counter(lease.group for lease in pages.lease(9)) == {"a": 1, "b": 1}
    pages.set_group("a", limit=3)
    assert Counter(lease.group for lease in pages.lease(9)) == {"a": 2}
    assert (of(pages)["a"].limit, of(pages)["b"].limit) == (3, 1)
    pages.set_group("b", limit=None)
    assert Counter(lease.group for lease in pages.lease(9)) == {"b": 3}
    assert of(pages)["b"].limit is None
    pages.set_group("a", interval=0.5)
    assert of(pages)["a"][-2:] == (1, 0.5)
    pages.set_group("a")
    assert of(pages)["a"][-2:] == (1, 0)


def test_a_paused_group_rests_and_the_others_go_on(make_set: MakeSet) -> None:
    pages = make_set(SortedSet, "pages", group=group_of, group_limit=None)
    pages.add_many(urls("ab", 2))
    pages.pause_group("a", math.inf)
    assert of(pages)["a"].rests_until == math.inf
    assert {lease.group for lease in pages.lease(9)} == {"b"}
    pages.pause_group("a", 0)
    assert of(pages)["a"][3:5] == (True, None)
    pages.pause_group("a", datetime.timedelta(milliseconds=200))
    start = time.monotonic()
    assert not pages.lease(9)
    assert len(pages.lease(9, wait=5)) == 2
    assert time.monotonic() - start > 0.15


def test_the_end_of_a_pause_cuts_no_interval(make_set: MakeSet) -> None:
    pages = make_set(SortedSet, "pages", group=group_of, group_limit=None, group_interval=0.3)
    pages.add_many(urls("a", 2))
    assert pages.lease()
    start = time.monotonic()
    pages.pause_group("a", 60)
    pages.pause_group("a", 0)
    assert not pages.lease()
    assert pages.lease(wait=5)
    assert time.monotonic() - start > 0.25


def test_a_retry_lets_its_group_rest(make_set: MakeSet) -> None:
    pages = make_set(SortedSet, "pages", group=group_of)
    pages.add_many(urls("a", 3))
    with pytest.raises(redset.Retry), pages.lease() as batch:
        for _ in batch:
            raise redset.Retry(60, group=True)
    assert not pages.lease()
    assert of(pages)["a"].rests_until > time.time() + 50
    pages.pause_group("a", 0)
    (lease,) = pages.lease()
    assert lease.release(60, group=True) == 1
    assert not pages.lease()


def test_retry_keeps_its_arguments_and_refuses_others() -> None:
    assert redset.Retry(5).args == (5,)
    assert (redset.Retry(5).group, redset.Retry(5, group=True).group) == (False, True)
    assert redset.Retry(5, True).args == (5, True)
    with pytest.raises(TypeError, match="group must be True or False, got 'a'"):
        redset.Retry(5, group="a")  # type: ignore[arg-type]


def test_each_group_is_listed_once_with_its_figures(make_set: MakeSet) -> None:
    pages = make_set(SortedSet, "pages", key="id", group="host")
    names = [f"h{number}" for number in range(600)]
    pages.add_many(rows(*names, "h0", "h0"))
    pages.set_group("own", limit=5, interval=2)
    pages.pause_group("h1", 60)
    held = pages.lease(1)
    found = list(pages.groups())
    by_name = {group.name: group for group in found}
    assert len(found) == len(by_name) == 601
    assert by_name["own"] == ("own", 0, 0, False, None, 5, 2.0)
    (lease,) = held
    assert by_name[lease.group].leased == 1
    assert by_name["h1"].ready is False
    assert by_name["h5"] == ("h5", 1, 0, True, None, 1, 0.0)
    assert sum(group.queued for group in found) == 601


# Consumers of the other kind.


@pytest.mark.parametrize("grouped", [True, False])
def test_a_consumer_of_the_other_kind_is_told(make_set: MakeSet, grouped: bool) -> None:
    def made(with_groups: bool) -> Any:
        options = {"group": lambda item: "a"} if with_groups else {}
        return make_set(SortedSet, "pages", key=lambda item: item, **options)

    made(grouped).add_many(["a", "b"])
    made(grouped).lease(1)
    for call in (
        lambda pages: pages.lease(),
        lambda pages: pages.lease(wait=5),
        lambda pages: pages.pop(),
        lambda pages: pages.take(3),
        lambda pages: pages.pop(wait=5),
        lambda pages: pages.add("c"),
        lambda pages: pages.consume(print, until_finished=True),
    ):
        with pytest.raises(redset.exceptions.OptionsDiffer, match="was made with key=yes"):
            list(call(made(not grouped)) or ())
    if not grouped:
        for call in (
            lambda pages: pages.set_group("a", limit=1),
            lambda pages: pages.pause_group("a", 1),
        ):
            with pytest.raises(redset.exceptions.OptionsDiffer):
                call(made(True))


# Working.


def test_consume_leases_no_more_than_handlers_are_free(any_server: servers.Server) -> None:
    raw = any_server.raw
    pages: Any = SortedSet(raw, "pages", group=group_of, group_limit=2)
    pages.add_many(urls("abcd", 25))
    lock, running, most, leased = threading.Lock(), Counter[str](), Counter[str](), [0]

    def handle(url: str) -> None:
        with lock:
            running[group_of(url)] += 1
            most[group_of(url)] = max(most[group_of(url)], running[group_of(url)])
            leased.append(raw.zcard(f"{P}:leased"))
        time.sleep(0.001)
        with lock:
            running[group_of(url)] -= 1

    assert pages.consume(handle, concurrency=3, until_finished=True).done == 100
    assert max(most.values()) <= 2
    assert max(leased) <= 3


def test_consume_refuses_a_batch(server_client: Any) -> None:
    pages: Any = SortedSet(server_client, "pages", group=group_of)
    with pytest.raises(ValueError, match=r"^batch must be None in a set with group=, got 5"):
        pages.consume(print, batch=5)


def test_a_handler_adds_items_to_groups_and_rests_them(make_set: MakeSet) -> None:
    pages = make_set(SortedSet, "pages", group=group_of)
    pages.add("a/")
    seen = []

    def handle(url: str) -> list[str] | None:
        seen.append(url)
        if len(seen) == 1:
            raise redset.Retry(0.05, group=True)
        return [url + "x", "b/" + url] if len(url) < 4 else None

    pages.consume(handle, until_finished=True)
    assert len(seen) > 3
    assert seen[:2] == ["a/", "a/"]
    assert {"a/x", "b/a/"} <= set(seen)


def test_a_writer_adds_to_groups(make_set: MakeSet) -> None:
    pages = make_set(SortedSet, "pages", group=group_of)
    keyed = make_set(SortedSet, "keyed", key="id", group="host", remember=True)
    with pages.buffered() as writer:
        for url in urls("ab", 3):
            writer.add(url)
    assert Counter(lease.group for lease in pages.lease(9)) == {"a": 1, "b": 1}
    with keyed.buffered() as writer:
        writer.add_many(rows(*"aabb") * 2)
    assert keyed.size() == 4
    assert Counter(lease.group for lease in keyed.lease(9)) == {"a": 1, "b": 1}


def test_leased_items_have_their_group(make_set: MakeSet) -> None:
    pages = make_set(SortedSet, "pages", group=group_of)
    pages.add_many(urls("ab", 1))
    pages.lease(9)
    assert {row.item: row.group for row in pages.leased()} == {"a/0": "a", "b/0": "b"}


def test_stats_count_groups(make_set: MakeSet) -> None:
    pages = make_set(SortedSet, "pages", group=group_of)
    pages.add_many(urls("abcd", 2))
    pages.pause_group("d", 60)
    pages.lease(1)
    for read_only in (False, True):
        stats = pages.stats(read_only=read_only)
        assert (stats.size, stats.available, stats.leased) == (7, 2, 1)
        assert stats[-3:] == (2, 1, 1)


def test_an_ended_rest_without_items_is_not_ready(any_server: servers.Server) -> None:
    pages: Any = SortedSet(any_server.raw, "pages", group=group_of, group_interval=0.01)
    pages.add_many(urls("a", 1) + urls("b", 2))
    pages.take(9)
    time.sleep(0.05)
    assert pages.stats()[-3:] == (1, 0, 0)
    (info,) = redset.list_sets(any_server.raw, ["pages"])
    assert info.figures[-3:] == (1, 0, 0)
    assert info.figures.available == 1
    assert sorted(group.name for group in pages.groups()) == ["b"]


# Letters, exports, algebra.


def die(pages: Any, num: int) -> None:
    for lease in pages.lease(num):
        lease.fail("no")


def test_dead_letters_keep_their_group(make_set: MakeSet) -> None:
    pages = make_set(SortedSet, "pages", key="id", group="host", max_attempts=1)
    pages.add_many(rows("a", "b"))
    die(pages, 9)
    letters = {letter.group: letter for letter in pages.dead}
    assert {name: letter.item["host"] for name, letter in letters.items()} == {"a": "a", "b": "b"}
    assert all(letter.raw.startswith(b"{") for letter in letters.values())
    assert pages.dead.requeue(letters["a"]) == 1
    assert [group.name for group in pages.groups() if group.ready] == ["a"]
    assert [lease.group for lease in pages.lease(9)] == ["a"]
    assert pages.dead.requeue() == 1
    assert [lease.group for lease in pages.lease(9)] == ["b"]


def test_undecodable_items_keep_their_group(make_set: MakeSet) -> None:
    pages = make_set(SortedSet, "pages", group=group_of)
    pages.add_many(["a/bad", "b/bad"])
    reader = make_set(SortedSet, "pages", group=group_of, serializer=json)
    assert reader.take(5) == []
    assert not reader.lease(5)
    assert {(letter.group, letter.raw) for letter in pages.dead} == {
        ("a", b"a/bad"),
        ("b", b"b/bad"),
    }
    assert pages.dead.requeue() == 2
    assert Counter(lease.group for lease in pages.lease(5)) == {"a": 1, "b": 1}


@pytest.mark.parametrize("key", [None, lambda item: item])
def test_a_restored_set_has_its_groups_and_own_values(make_set: MakeSet, key: Any) -> None:
    options = {"key": key, "group": group_of, "max_attempts": 1}
    pages = make_set(SortedSet, "pages", **options)
    pages.add_many(urls("abc", 2))
    pages.set_group("a", limit=2)
    pages.pause_group("c", 60)
    die(pages, 1)
    held = pages.lease(1)
    lines = list(pages.export())
    assert len(held) == 1
    pages.clear()
    other = make_set(SortedSet, "other", key=key, group=lambda url: "another", max_attempts=1)
    assert other.restore(lines) == 5
    assert other.dead.requeue() == 1
    taken = other.lease(9)
    assert Counter(lease.group for lease in taken) == {"a": 2, "b": 1, "c": 1}
    assert all(lease.group == group_of(lease.item) for lease in taken)


def test_lines_of_a_set_without_groups_get_the_groups_of_the_set(make_set: MakeSet) -> None:
    plain = make_set(SortedSet, "plain", key="id", max_attempts=1, remember=True)
    plain.add_many(rows(*"aabb"))
    die(plain, 1)
    pages = make_set(SortedSet, "pages", key="id", group="host", max_attempts=1, remember=True)
    assert pages.restore(list(plain.export())) == 3
    assert pages.seen({"id": 0, "host": "a"})
    assert pages.dead.requeue() == 1
    assert Counter(lease.group for lease in pages.lease(9)) == {"a": 1, "b": 1}
    back = make_set(SortedSet, "back", key="id", max_attempts=1)
    assert back.restore(list(pages.export())) == 4
    assert sorted(item["id"] for item in back.take(9)) == [0, 1, 2, 3]
    text = make_set(SortedSet, "text")
    text.add_many(urls("ab", 2))
    grouped = make_set(SortedSet, "grouped", group=group_of)
    assert grouped.restore(list(text.export())) == 4
    assert Counter(lease.group for lease in grouped.lease(9)) == {"a": 1, "b": 1}
    again = make_set(SortedSet, "again")
    assert again.restore(list(grouped.export())) == 4
    assert sorted(again) == urls("ab", 2)


def test_a_restore_beside_a_consumer_hands_out_each_item_once(
    any_server: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    source: Any = SortedSet(any_server.raw, "source", group=group_of)
    source.add_many(urls("abcd", 100))
    lines = list(source.export())
    # An item that returned to the queue in the middle of an export comes twice.
    lines[-1:] = [*lines[1:40], lines[-1].replace("400", "439")]
    pages: Any = SortedSet(any_server.raw, "pages", group=group_of, group_limit=100)
    seen: list[str] = []
    step = Context.step

    def beside(ctx: Any, name: str, *args: Any, **more: Any) -> Any:
        if name == "restore_items":
            seen.extend(lease.item for lease in pages.lease(1000))
        return step(ctx, name, *args, **more)

    monkeypatch.setattr(Context, "step", beside)
    assert SortedSet[Any](any_server.raw, "pages", group=group_of).restore(lines) == 400
    monkeypatch.undo()
    assert len(seen) == 250
    seen += [lease.item for lease in pages.lease(1000)]
    assert len(seen) == len(set(seen)) == 400
    assert slots(any_server.raw) == 400


def test_discarded_leases_free_their_slots(any_server: servers.Server) -> None:
    raw = any_server.raw
    pages: Any = SortedSet(raw, "pages", group=group_of)
    pages.add_many(urls("ab", 3))
    leases = {lease.group: lease for lease in pages.lease(9)}
    assert pages.discard(leases["a"].item)
    assert slots(raw) == 1
    assert [lease.group for lease in pages.lease(9)] == ["a"]
    assert pages.discard_many(["a/1", "a/2", "b/0", "b/1"]) == 4
    assert slots(raw) == 0
    assert [lease.item for lease in pages.lease(9)] == ["b/2"]
    remembering: Any = SortedSet(raw, "seen", group=group_of, remember=True)
    remembering.add_many(urls("a", 2))
    remembering.lease()
    assert remembering.discard("a/0", forget=True)
    assert len(remembering.lease(9)) == 1


def test_ranges_are_taken_by_score_and_wait_for_no_turn(make_set: MakeSet) -> None:
    pages = make_set(SortedSet, "pages", group=group_of, group_interval=60)
    pages.add_many(urls("ab", 5), range(10))
    assert pages.between(0, 3).take(9) == urls("a", 4)
    assert pages.between(4, 7).discard() == 4
    assert list(pages) == ["b/3", "b/4"]
    assert pages.stats().available <= 2
    assert [lease.item for lease in pages.lease(9)] == ["b/3"]


def test_items_keep_their_group_from_set_to_set(make_set: MakeSet) -> None:
    one = make_set(SortedSet, "one", key="id", group=lambda item: item["host"])
    two = make_set(SortedSet, "two", key="id", group=lambda item: "another")
    one.add_many(rows(*"aabb"))
    assert one.move_many(list(one)[:2], two) == 2
    assert {group.name for group in two.groups()} == {item["host"] for item in two}
    two.update(one)
    assert two.size() == 4
    leases = list(two.lease(9))
    assert {lease.group for lease in leases} == {"a", "b"}
    assert all(lease.group == lease.item["host"] for lease in leases)


def test_items_of_sets_without_groups_pass_through_the_client(make_set: MakeSet) -> None:
    plain = make_set(SortedSet, "plain")
    pages = make_set(SortedSet, "pages", group=group_of)
    plain.add_many(urls("ab", 3), range(6))
    assert plain.move_many(["a/0", "b/0", "c/0"], pages) == 2
    assert plain.size() == 4
    pages.update(plain)
    assert sorted(pages) == urls("ab", 3)
    assert Counter(lease.group for lease in pages.lease(9)) == {"a": 1, "b": 1}
    back = make_set(SortedSet, "back")
    back.update(pages)
    assert back.size() == 4
    assert pages.move_many(urls("ab", 3), back) == 4
    assert sorted(back) == sorted(set(urls("ab", 3)) - {"a/0", "b/0"})
    keyed = make_set(SortedSet, "keyed", key="id")
    grouped = make_set(SortedSet, "grouped", key="id", group="host", remember=True)
    keyed.add_many(rows(*"aabb"))
    grouped.update(keyed)
    assert keyed.move_many(list(keyed), grouped) == 0
    assert Counter(lease.group for lease in grouped.lease(9)) == {"a": 1, "b": 1}


def test_algebra_removes_items_and_frees_slots(any_server: servers.Server) -> None:
    def make_set(kind: Any, name: str, **options: Any) -> Any:
        return kind(any_server.raw, name, **options)

    one = make_set(SortedSet, "one", group=group_of)
    two = make_set(SortedSet, "two", group=group_of)
    one.add_many(urls("abc", 2))
    two.add_many(urls("ab", 1))
    assert len(one.lease(9)) == 3
    one -= two
    assert Counter(lease.group for lease in one.lease(9)) == {"a": 1, "b": 1}
    assert sorted(one) == ["c/1"]
    two ^= ["a/0", "d/0"]
    assert sorted(two) == ["b/0", "d/0"]
    two &= ["d/0"]
    assert [lease.group for lease in two.lease(9)] == ["d"]
    plain = make_set(SortedSet, "plain")
    for call in (
        lambda: plain.isdisjoint(one),
        lambda: plain.__isub__(one),
        lambda: plain.__iand__(one),
        lambda: plain.__ixor__(one),
    ):
        with pytest.raises(redset.exceptions.OptionsDiffer, match="only update and move_many"):
            call()
    assert plain != one
    keyed = make_set(SortedSet, "keyed", key=lambda url: url)
    grouped = make_set(SortedSet, "grouped", key=lambda url: url, group=group_of)
    keyed.add_many(urls("ab", 2))
    grouped.add_many(urls("bc", 2))
    grouped ^= keyed
    assert sorted(grouped) == urls("ac", 2)
    assert Counter(lease.group for lease in grouped.lease(9)) == {"a": 1, "c": 1}


def test_the_registry_has_the_groups_of_a_set(server_client: Any) -> None:
    for group, named in (("host", "host"), (group_of, True), (("a", "b"), ["a", "b"])):
        pages: Any = SortedSet(server_client, "pages", group=group, group_interval=0.25)
        entry = reporting.entry_of(*pages._ctx.reporter._described)
        server_client.hset("redset:sets", "pages", json.dumps(entry))
        server_client.zadd(f"{P}:grouped", {"x": 1})
        for infos in (redset.list_sets(server_client), redset.list_sets(server_client, scan=True)):
            (info,) = infos
            assert info.options is not None and info.figures is not None
            assert info.options["group"] == named
            assert (info.options["group_limit"], info.options["group_interval"]) == (1, 0.25)
            assert info.figures.size == 1
        server_client.hdel("redset:sets", "pages")
        (info,) = redset.list_sets(server_client, scan=True)
        assert info.figures is not None
        assert (info.name, info.figures.size) == ("pages", 1)


def test_a_new_serializer_is_used_at_once(make_set: MakeSet) -> None:
    pages = make_set(SortedSet, "pages", group=lambda item: "a", group_limit=None)
    with pages.buffered() as writer:
        writer.add("x")
        writer.add("y")
        pages.serializer = json
        writer.add("x")
        writer.add("z")
    assert pages.size() == 4
    assert pages.contains("z") and pages.contains("x")
    pages.serializer = None
    assert pages.contains("y") and pages.contains("x") and pages.contains('"z"')


def test_calls_on_groups_of_a_closed_set_are_refused(server_client: Any) -> None:
    pages: Any = SortedSet(server_client, "pages", group=group_of)
    pages.close()
    for call in (
        lambda: pages.set_group("a", limit=1),
        lambda: pages.pause_group("a", 1),
        lambda: list(pages.groups()),
    ):
        with pytest.raises(RuntimeError, match="is closed"):
            call()


def test_a_set_and_a_retry_with_groups_can_be_pickled(any_server: servers.Server) -> None:
    pages: Any = SortedSet.from_url(any_server.url, "pages", group="host", key="id", group_limit=3)
    with pages, pickle.loads(pickle.dumps(pages)) as other:
        pages.add_many(rows(*"aaaab"))
        assert Counter(lease.group for lease in other.lease(9)) == {"a": 3, "b": 1}
    retry = pickle.loads(pickle.dumps(redset.Retry(5, group=True)))
    assert (retry.delay, retry.group) == (5, True)


def test_a_large_item_is_refused_by_its_own_size(server_client: Any) -> None:
    pages: Any = SortedSet(server_client, "pages", group=lambda item: "g" * 200, max_item_bytes=4)
    pages.add("four")
    with pytest.raises(ValueError, match="item has 5 bytes serialised, more than max_item_bytes=4"):
        pages.add("five5")
    with pages.buffered() as writer, pytest.raises(ValueError, match="item has 5 bytes"):
        writer.add("five5")


def test_a_released_item_may_change_its_group(make_set: MakeSet) -> None:
    pages = make_set(SortedSet, "pages", key="id", group="host")
    pages.add({"id": 1, "host": "a"})
    (lease,) = pages.lease()
    lease.release(item={"id": 1, "host": "b"})
    assert [lease.group for lease in pages.lease(9)] == ["b"]


def test_groups_work_on_a_cluster() -> None:
    with servers.cluster(servers.some(), 2) as nodes:
        client = RedisCluster(host="127.0.0.1", port=nodes[0].port)
        for name in ("jobs", "{tag}:pages"):
            pages: Any = SortedSet(client, name, group=group_of, max_attempts=1, remember=True)
            pages.add_many(urls("ab", 2))
            pages.set_group("a", limit=2)
            pages.pause_group("b", math.inf)
            done, dead = pages.lease(9)
            pages.ack(done)
            pages.fail(dead, "no")
            assert pages.dead.requeue() == 1
            assert {group.name for group in pages.groups()} == {"a", "b"}
            pages.pause_group("b", 0)
            lines = list(pages.export())
            pages.clear()
            assert pages.restore(lines) == 3
            assert pages.discard("b/0")
            assert pages.consume(lambda url: None, until_finished=True).done == 2
        client.close()
