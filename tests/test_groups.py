"""Groups: the server hands out items in turns, within limits and intervals."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import redis
import servers
from grouped import group_of, urls

from redset import Retry, ScheduledSet, SortedSet
from redset._operations import memory
from redset.exceptions import AddError, OptionsDiffer

P = "pages:{pages}"
MakeSet = Callable[..., Any]


def names(leases: Any) -> list[str]:
    return [lease.item for lease in leases]


def expire_all(raw: Any) -> None:
    raw.zadd(f"{P}:leased", dict.fromkeys(raw.zrange(f"{P}:leased", 0, -1), 1))


def slots(raw: Any) -> dict[str, set[bytes]]:
    """The members in work of each group."""
    stored = raw.hgetall(f"{P}:working")
    return {
        group.decode(): {held[at : at + 16] for at in range(0, len(held), 16)}
        for group, held in stored.items()
    }


def test_each_group_has_at_most_its_limit_of_items_in_work(make_set: MakeSet) -> None:
    pages = make_set(SortedSet, "pages", group=group_of, group_limit=2)
    pages.add_many(urls("abc", 5))
    leases = list(pages.lease(100))
    assert Counter(lease.group for lease in leases) == {"a": 2, "b": 2, "c": 2}
    assert not pages.lease(100)
    pages.ack(leases[0])
    assert [lease.group for lease in pages.lease(100)] == [leases[0].group]


def test_groups_take_turns_and_the_lowest_score_of_each_is_first(
    any_server: servers.Server,
) -> None:
    pages: SortedSet[str] = SortedSet(any_server.raw, "pages", group=group_of, group_limit=None)
    pages.add_many(urls("abc", 4), range(12))
    order = [names(pages.lease(1))[0] for _ in range(12)]
    assert [Counter(map(group_of, order[at : at + 3])) for at in range(0, 12, 3)] == 4 * [
        {"a": 1, "b": 1, "c": 1}
    ]
    assert [url for url in order if group_of(url) == "a"] == urls("a", 4)


def test_two_starts_of_a_group_are_its_interval_apart(make_set: MakeSet) -> None:
    pages = make_set(SortedSet, "pages", group=group_of, group_limit=None, group_interval=0.1)
    pages.add_many(urls("ab", 3))
    starts: dict[str, list[float]] = {"a": [], "b": []}
    end = time.time() + 20
    while sum(map(len, starts.values())) < 6 and time.time() < end:
        for lease in pages.lease(10, wait=5):
            # By the server's clock.
            starts[lease.group].append(lease.expires)
            pages.ack(lease)
    for times in starts.values():
        assert all(later - earlier >= 0.1 for earlier, later in itertools.pairwise(times))


def test_an_expired_lease_frees_its_slot_in_the_step_that_returns_the_item(
    any_server: servers.Server,
) -> None:
    pages: SortedSet[str] = SortedSet(any_server.raw, "pages", group=group_of)
    pages.add_many(urls("a", 2), [1, 2])
    (first,) = pages.lease(5)
    assert slots(any_server.raw) == {"a": {first.member}}
    expire_all(any_server.raw)
    (again,) = pages.lease(5)
    assert (again.item, again.attempts, again.group) == ("a/0", 1, "a")
    assert slots(any_server.raw) == {"a": {first.member}}
    assert pages.ack(first) == 0
    assert pages.fail(again, "no", delay=60) == 1
    assert names(pages.lease(5)) == ["a/1"]


def test_an_item_that_is_added_while_leased_goes_to_its_other_group_at_the_end(
    any_server: servers.Server,
) -> None:
    pages: SortedSet[Any] = SortedSet(any_server.raw, "pages", key="id", group="host")
    pages.add({"id": 1, "host": "a"})
    pages.add({"id": 2, "host": "b"})
    leases = {lease.group: lease for lease in pages.lease(5)}
    pages.add({"id": 1, "host": "b"})
    assert not pages.lease(5)
    pages.ack(leases["a"])
    assert not pages.lease(5)
    pages.ack(leases["b"])
    (last,) = pages.lease(5)
    assert (last.item, last.group) == ({"id": 1, "host": "b"}, "b")


def test_a_queued_item_moves_to_the_group_of_its_last_add(any_server: servers.Server) -> None:
    pages: SortedSet[Any] = SortedSet(any_server.raw, "pages", key="id", group="host")
    pages.add_many([{"id": number, "host": "a"} for number in range(200)])
    pages.add_many([{"id": number, "host": "b"} for number in range(199)])
    assert Counter(lease.item["host"] for lease in pages.lease(5)) == {"a": 1, "b": 1}


def test_a_failed_item_can_let_its_group_rest(any_server: servers.Server) -> None:
    pages: SortedSet[str] = SortedSet(any_server.raw, "pages", group=group_of)
    pages.add_many(urls("ab", 2))
    leases = {lease.group: lease for lease in pages.lease(5)}
    pages.fail(leases["a"], "429", 0.2, group=True)
    pages.ack(leases["b"])
    assert [lease.group for lease in pages.lease(5)] == ["b"]
    start = time.monotonic()
    assert [lease.group for lease in pages.lease(5, wait=5)] == ["a"]
    assert time.monotonic() - start > 0.15


def test_take_and_pop_start_an_interval_and_hold_no_slot(make_set: MakeSet) -> None:
    pages = make_set(SortedSet, "pages", group=group_of, group_interval=60)
    pages.add_many(urls("ab", 2))
    assert {group_of(url) for url in [pages.pop(), *pages.take(5)]} == {"a", "b"}
    assert pages.take(5) == []
    assert pages.size() == 2


def test_an_item_of_a_scheduled_set_starts_when_it_is_due(make_set: MakeSet) -> None:
    pages = make_set(ScheduledSet, "pages", group=group_of)
    pages.add("a/late", delay=60)
    pages.add("a/soon", delay=1)
    pages.add("b/now")
    assert names(pages.lease(5)) == ["b/now"]
    assert names(pages.lease(5, wait=5)) == ["a/soon"]
    assert not pages.lease(5)


def test_entries_of_items_that_are_gone_do_not_end_a_turn(any_server: servers.Server) -> None:
    raw = any_server.raw
    pages: SortedSet[str] = SortedSet(raw, "pages", group=group_of)
    pages.add_many(urls("a", 300), range(300))
    raw.zremrangebyrank(f"{P}:grouped", 0, 298)
    assert names(pages.lease(2)) == ["a/299"]
    assert raw.zcard(f"{P}:g:0:a") == 0


def test_items_without_a_group_have_no_limit(any_server: servers.Server) -> None:
    pages: SortedSet[Any] = SortedSet(
        any_server.raw, "pages", key="id", group=lambda item: item["host"], group_interval=60
    )
    pages.add_many([{"id": number, "host": None} for number in range(5)])
    pages.add({"id": 9, "host": "a"})
    assert Counter(lease.group for lease in pages.lease(10)) == {None: 5, "a": 1}


def test_a_lease_call_that_is_sent_again_returns_the_same_leases(
    any_server: servers.Server,
) -> None:
    from redset._operations.leasing import lease_call
    from redset._transport.effects import only

    pages: SortedSet[str] = SortedSet(any_server.raw, "pages", group=group_of)
    pages.add_many(urls("abc", 2))
    token = b"0123456789abcdef"
    calls = [pages._run(only(lease_call(pages._ctx, token, num, 60_000))) for num in (3, 3, 2)]
    assert [sorted(row[0] for row in call.rows) for call in calls[:2]] == 2 * [
        sorted(row[0] for row in calls[0].rows)
    ]
    assert len(calls[2].rows) == 2
    assert sum(map(len, slots(any_server.raw).values())) == 2


def test_own_values_win_and_are_forgotten_by_clear(any_server: servers.Server) -> None:
    pages: SortedSet[str] = SortedSet(any_server.raw, "pages", group=group_of)
    pages.add_many(urls("ab", 5))
    pages.set_group("a", limit=3)
    assert Counter(lease.group for lease in pages.lease(10)) == {"a": 3, "b": 1}
    pages.set_group("a", limit=4, interval=60)
    assert [lease.group for lease in pages.lease(10)] == ["a"]
    found = {group.name: group for group in pages.groups()}
    assert (found["a"].limit, found["a"].interval, found["a"].leased) == (4, 60.0, 4)
    assert found["a"].rests_until is not None and not found["a"].ready
    assert (found["b"].limit, found["b"].queued, found["b"].leased) == (1, 4, 1)
    pages.clear()
    assert list(pages.groups()) == []
    pages.add_many(urls("ab", 5))
    assert Counter(lease.group for lease in pages.lease(10)) == {"a": 1, "b": 1}


def test_a_paused_group_hands_out_nothing_until_the_pause_ends(any_server: servers.Server) -> None:
    pages: SortedSet[str] = SortedSet(any_server.raw, "pages", group=group_of)
    pages.add_many(urls("ab", 2))
    pages.pause_group("a", math.inf)
    pages.pause_group("b", 0.1)
    assert not pages.lease(5)
    assert [lease.group for lease in pages.lease(5, wait=5)] == ["b"]
    assert {group.name: group.rests_until for group in pages.groups()}["a"] == math.inf
    pages.pause_group("a", 0)
    assert [lease.group for lease in pages.lease(5)] == ["a"]


def test_the_end_of_a_pause_does_not_cut_an_interval(any_server: servers.Server) -> None:
    pages: SortedSet[str] = SortedSet(any_server.raw, "pages", group=group_of, group_interval=60)
    pages.add_many(urls("a", 2))
    assert len(pages.lease(5)) == 1
    pages.pause_group("a", 600)
    pages.pause_group("a", 0)
    assert not pages.lease(5)


def test_a_discarded_lease_frees_its_slot(any_server: servers.Server) -> None:
    pages: SortedSet[str] = SortedSet(any_server.raw, "pages", group=group_of)
    pages.add_many(urls("a", 3), range(3))
    (lease,) = pages.lease(5)
    assert pages.discard_many(["a/0", "a/1"]) == 2
    assert slots(any_server.raw) == {}
    assert pages.ack(lease) == 0
    assert names(pages.lease(5)) == ["a/2"]


def test_clear_takes_effect_at_once_and_leaves_no_index(any_server: servers.Server) -> None:
    raw = any_server.raw
    for options in ({}, {"remember": True}):
        pages: SortedSet[str] = SortedSet(raw, "pages", group=group_of, **options)
        pages.add_many(urls("abcdefgh", 3))
        pages.set_group("x", limit=2)
        lease = next(iter(pages.lease(1)))
        pages.discard_many(urls("b", 3))
        assert pages.clear() == 20
        assert pages.ack(lease) == 0
        assert list(raw.scan_iter("*:g:*")) == []
        assert raw.exists(f"{P}:meta") == 0
        assert pages.add_many(urls("ab", 2)).added == 4
        assert len(pages.lease(9)) == 2
        pages.clear()


def test_a_lost_key_strands_nothing(any_server: servers.Server) -> None:
    raw = any_server.raw
    for part in ("ready", "resting", "waiting", "working", "leased", "meta", "g:0:a"):
        pages: ScheduledSet[str] = ScheduledSet(raw, "pages", group=group_of, group_interval=0.001)
        pages.add_many(urls("abc", 4))
        pages.add("a/late", delay=0.3)
        held = list(pages.lease(2))
        raw.delete(f"{P}:{part}")
        pages.ack(held[0])
        if part == "leased":
            time.sleep(0.2)
            pages.lease(20, ttl=0.05)
            raw.zadd(f"{P}:leased", dict.fromkeys(raw.zrange(f"{P}:leased", 0, -1), 1))
        else:
            pages.ack(held[1])
        end, done = time.monotonic() + 20, 1
        while done < 13 and time.monotonic() < end and not (done > 11 and pages.finished()):
            leases = pages.lease(20, wait=0.05)
            done += pages.ack(leases)
        assert pages.finished(), part
        assert slots(raw) == {}
        raw.flushall()


def test_a_retry_with_group_has_no_effect_without_groups(make_set: MakeSet) -> None:
    jobs = make_set(SortedSet, "jobs")
    jobs.add("a")
    tries: list[str] = []

    def handle(item: str) -> None:
        tries.append(item)
        if len(tries) == 1:
            raise Retry(0.01, group=True)

    jobs.consume(handle, until_finished=True)
    assert tries == ["a", "a"]


def test_each_call_on_a_set_of_the_other_kind_is_refused(any_server: servers.Server) -> None:
    raw = any_server.raw
    pages: SortedSet[str] = SortedSet(raw, "pages", group=group_of)
    plain: SortedSet[str] = SortedSet(raw, "pages")
    pages.add_many(urls("a", 2))
    pages.lease(1)
    expire_all(raw)
    for call in (plain.lease, plain.take) * 2:
        with pytest.raises(OptionsDiffer):
            call(1)


def test_a_lease_of_a_process_without_groups_does_not_stop_the_others(
    any_server: servers.Server,
) -> None:
    raw = any_server.raw
    pages: SortedSet[str] = SortedSet(raw, "pages", group=group_of)
    pages.add_many(urls("a", 1))
    plain: SortedSet[str] = SortedSet(raw, "pages")
    plain.add("x")
    plain.lease(1)
    expire_all(raw)
    assert names(pages.lease(2)) == ["a/0"]
    assert not pages.finished()


def test_items_without_payload_and_index_are_dropped(any_server: servers.Server) -> None:
    raw = any_server.raw
    pages: SortedSet[str] = SortedSet(raw, "pages", group=group_of)
    pages.add_many(urls("a", 150))
    raw.delete(f"{P}:items", f"{P}:g:0:a", f"{P}:ready")
    raw.hset(f"{P}:items", raw.zrange(f"{P}:grouped", 0, 0)[0], b"")
    end = time.monotonic() + 20
    while not pages.finished() and time.monotonic() < end:
        assert not pages.lease(5)
        time.sleep(0.05)
    assert pages.finished()


def test_large_items_of_groups_that_stand_nowhere_are_all_found(
    any_server: servers.Server,
) -> None:
    raw = any_server.raw
    pages: SortedSet[Any] = SortedSet(raw, "pages", key="id", group="host")
    text = 300_000 * "x"
    pages.add_many([{"id": number, "host": "first", "text": text} for number in range(3)], range(3))
    found = {lease.group for lease in pages.lease(5)}
    pages.add_many([{"id": f"{name}", "host": name, "text": text} for name in "abc"], range(9, 12))
    raw.delete(f"{P}:ready")
    end = time.monotonic() + 20
    while len(found) < 4 and time.monotonic() < end:
        found |= {lease.group for lease in pages.lease(5)}
        time.sleep(0.05)
    assert len(found) == 4


def test_adds_unlink_the_indexes_that_a_clear_left(
    any_server: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = any_server.raw

    def dies(_: Any) -> Any:
        yield from ()

    for size in (1, 10):
        pages: SortedSet[str] = SortedSet(raw, "pages", group=group_of)
        pages.add_many(urls("abcdefgh", size))
        with monkeypatch.context() as patched:
            patched.setattr(memory, "sweep", dies)
            pages.clear()
        assert list(raw.scan_iter(f"{P}:g:0*"))
        for number in range(4):
            pages.add(f"z/{number}")
        assert list(raw.scan_iter(f"{P}:g:0*")) == []
        assert len(pages.lease(5)) == 1
        pages.clear()


def steps(raw: Any) -> int:
    """The number of steps since the last call."""
    found = raw.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
    raw.config_resetstat()
    return int(found)


def test_an_index_with_an_earlier_time_keeps_no_lease_call_busy(
    any_server: servers.Server,
) -> None:
    raw = any_server.raw
    pages: ScheduledSet[str] = ScheduledSet(raw, "pages", group=group_of)
    pages.add("b/now")
    assert names(pages.lease(1)) == ["b/now"]
    pages.add("a/late", delay=600)
    (member,) = raw.zrange(f"{P}:grouped", 0, 0)
    raw.zadd(f"{P}:g:0:a", {member: 1})
    raw.zadd(f"{P}:waiting", {"a": 1})
    steps(raw)
    assert not pages.lease(1, wait=0.3)
    assert steps(raw) < 10
    assert raw.zscore(f"{P}:g:0:a", member) == raw.zscore(f"{P}:grouped", member)


def test_a_step_reads_few_large_items_that_left_their_group(any_server: servers.Server) -> None:
    raw = any_server.raw
    pages: SortedSet[Any] = SortedSet(raw, "pages", key="id", group="host")
    for name in "ab":
        pages.add_many(
            [{"id": number, "host": name, "text": 300_000 * "x"} for number in range(60)]
        )
    steps(raw)
    assert [lease.group for lease in pages.lease(2)] == ["b"]
    assert steps(raw) > 10


def test_groups_without_items_are_passed_many_at_a_time(any_server: servers.Server) -> None:
    raw = any_server.raw
    pages: SortedSet[str] = SortedSet(raw, "pages", group=group_of)
    pages.add_many([f"{number}/0" for number in range(1000)])
    raw.delete(f"{P}:grouped")
    pages.add("last/0")
    raw.zadd(f"{P}:resting", {f"over{number}": 1 for number in range(1000)})
    steps(raw)
    assert names(pages.lease(1)) == ["last/0"]
    asked = raw.info("commandstats")["cmdstat_zmscore"]["calls"]
    assert steps(raw) < 40
    assert asked < 500


def test_an_object_without_groups_is_told_so_when_leases_of_groups_expire(
    any_server: servers.Server,
) -> None:
    raw = any_server.raw
    pages: SortedSet[str] = SortedSet(raw, "pages", group=group_of)
    pages.add_many(urls("ab", 2))
    assert len(pages.lease(2)) == 2
    expire_all(raw)
    plain: SortedSet[str] = SortedSet(raw, "pages", key=str)
    calls: list[Callable[[], Any]] = [plain.pop, plain.stats, plain.finished]
    for call in (*calls, lambda: list(plain.leased()), lambda: plain.clear(if_finished=True)):
        with pytest.raises(OptionsDiffer):
            call()
    assert len(pages.lease(4)) == 1


@pytest.mark.parametrize("remember", [True, 60])
def test_an_add_that_is_refused_midway_loses_no_item(
    any_server: servers.Server, remember: Any
) -> None:
    added = {"a/0", "c/0"}
    for held in (False, True):
        pages: SortedSet[str] = SortedSet(
            any_server.raw, "pages", group=group_of, remember=remember
        )
        pages.add_many(["a/0", "b/0"] if held else ["b/0"])
        leases = list(pages.lease(5))
        with (
            servers.user(any_server, "-hincrby") as options,
            any_server.client(**options) as client,
            pytest.raises(AddError),
        ):
            SortedSet(client, "pages", group=group_of, remember=remember).add_many(
                added, again=held
            )
        pages.ack(leases)
        pages.add_many(added)
        found, end = set[str](), time.monotonic() + 10
        while len(found) < 2 and time.monotonic() < end:
            leases = list(pages.lease(5, wait=0.2))
            found |= set(names(leases))
            pages.ack(leases)
        assert found == added
        any_server.raw.flushall()


@pytest.mark.parametrize("right", ["-hincrby", "-hrandfield"])
def test_a_take_that_is_refused_midway_loses_no_item(
    any_server: servers.Server, right: str
) -> None:
    raw = any_server.raw
    pages: SortedSet[str] = SortedSet(raw, "pages", group=group_of)
    pages.add_many(urls("c", 2), range(2))
    assert names(pages.lease(5)) == ["c/0"]
    pages.add_many(urls("ab", 3))
    taken: list[str] = []
    with (
        servers.user(any_server, right) as options,
        any_server.client(**options) as client,
    ):
        other: SortedSet[str] = SortedSet(client, "pages", group=group_of)
        for num in (1, 9, 9):
            with contextlib.suppress(redis.exceptions.NoPermissionError):
                taken += other.take(num)
    assert sorted(taken + pages.take(9)) == urls("ab", 3)


def test_a_full_server_ends_a_pause(any_server: servers.Server) -> None:
    raw = any_server.raw
    pages: SortedSet[str] = SortedSet(raw, "pages", group=group_of)
    pages.add_many(urls("a", 1))
    # A pause that ended has left the group to the next lease.
    pages.pause_group("a", 0.01)
    time.sleep(0.05)
    raw.config_set("maxmemory", "1")
    try:
        pages.pause_group("a", 0)
        assert names(pages.lease(1)) == ["a/0"]
    finally:
        raw.config_set("maxmemory", "0")


def test_a_clear_reads_many_small_items_at_a_time(any_server: servers.Server) -> None:
    raw = any_server.raw
    pages: SortedSet[str] = SortedSet(raw, "pages", group=group_of)
    pages.add_many(urls("abc", 400))
    raw.delete(f"{P}:ready")
    raw.config_resetstat()
    assert pages.clear() == 1200
    assert raw.info("commandstats")["cmdstat_zpopmin"]["calls"] < 100
    assert list(raw.scan_iter("*")) == []
