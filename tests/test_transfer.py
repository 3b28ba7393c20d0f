"""A whole set as JSON lines, and back."""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import blocking
import pytest
import redis
import redis.asyncio
import servers
from fuzz.restore import Files, dies_at, everything
from options import every_option, fit, made, once_more
from proxy import Proxy
from selection import share

import redset.asyncio
from redset import Key, ScheduledSet, SortedSet
from redset._operations import lines as export_lines
from redset.exceptions import OptionsDiffer
from redset.scripts import script
from redset.serializers import JSONSerializer

Maker = Callable[..., Any]
P = "jobs:{jobs}"


def filled(make: Maker, options: dict[str, Any]) -> Any:
    """A set with everything that an export can have."""
    jobs = make(**options, max_attempts=2)
    items = [made(options, f"item {number:04}") for number in range(900)]
    jobs.add_many(items, score=[fit(options, number / 3) for number in range(900)])
    with jobs.lease(1) as batch:
        for _ in batch:
            pass
    jobs.fail(jobs.lease(300), ValueError("näh\nso"))
    dying = jobs.lease(100)
    jobs.fail(dying, "no such page")
    jobs.between(250, 250).take(1)
    return jobs


@every_option
def test_a_set_comes_back_as_it_was(make_set: Maker, raw: Any, options: dict[str, Any]) -> None:
    jobs = filled(make_set, options)
    before, stats = everything(raw), jobs.stats()
    lines = list(jobs.export())
    assert everything(raw) == before
    assert all(type(line) is str and "\n" not in line for line in lines)
    assert json.loads(lines[-1]) == {"end": 798}
    assert jobs.clear() == 798
    assert len(servers.keys(raw)) <= 1  # the rest of a memory
    again = make_set(**options, max_attempts=2)
    assert again.restore(lines) == 798
    assert everything(raw) == before
    assert again.stats()._replace(memory_bytes=0) == stats._replace(memory_bytes=0)
    [lease] = again.lease()
    assert lease.attempts == 1
    # The sum of one more failure is its death, with the text of that.
    again.fail([lease], "again")
    assert [letter.reason for letter in again.dead][-1] == "again"


@every_option
def test_a_leased_item_is_restored_as_queued(
    make_set: Maker, raw: Any, options: dict[str, Any]
) -> None:
    jobs = make_set(**options)
    items = [made(options, name) for name in "abcd"]
    low, high = fit(options, -math.inf), fit(options, math.inf)
    jobs.add_many(items, score=[1, 2, 3, high])
    jobs.fail(jobs.lease(1), "no", 3600)
    held = jobs.lease(2)
    more = once_more(options)
    newer = {**items[1], "newer": 1} if "key" in options else items[1]
    jobs.add(newer, low, **more)  # while it is leased
    lines = list(jobs.export())
    assert jobs.ack(held) == 2
    jobs.clear()
    assert jobs.restore(iter(lines)) == 4
    assert [(row.item, row.score, row.attempts) for row in jobs.lease(9)] == [
        (newer, low, 0),
        (items[0], 1.0, 1),
        (items[2], 3.0, 0),
        (items[3], high, 0),
    ]


@pytest.mark.parametrize("remember", [True, 3600])
def test_a_memory_of_thousands_comes_back(
    any_server: servers.Server, any_implementation: str, remember: Any
) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs", remember=remember)
    items = [f"https://example.org/{number}" for number in range(20_000)]
    jobs.add_many(items)
    jobs.between(-1, 1).discard()
    lines = list(jobs.export())
    assert max(map(len, lines)) < 40_000
    jobs.clear()
    assert not any(jobs.seen_many(items))
    other: SortedSet[str] = SortedSet(raw, "other", remember=remember)
    for into in (jobs, other):
        assert into.restore(lines) == 0
        assert all(into.seen_many(items)) and not into.seen("https://example.org/")
        assert into.stats().remembered == 20_000
        assert into.add_many([*items, "new"]).added == 1
        # Nothing is left when it is cleared.
        into.clear()
    for _ in range(50):
        jobs.add("a")
        other.add("a")
    jobs.clear()
    other.clear()
    assert servers.keys(raw) == []


def test_a_limited_memory_may_become_one_for_ever(any_server: servers.Server) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs", remember=3600)
    jobs.add_many(["a", "b"])
    jobs.pop()
    lines = list(jobs.export())
    other: SortedSet[str] = SortedSet(raw, "other", remember=True)
    assert other.restore(lines) == 1
    assert other.seen_many(["a", "b", "c"]) == [True, True, False]


def test_a_large_limited_memory_may_become_one_for_ever(any_server: servers.Server) -> None:
    raw = any_server.raw
    head = {"redset": 1, "name": "jobs", "key": False, "remember": "limited", "epoch": "ab" * 8}
    rows = [[f"{number:032x}", 10**13] for number in range(20_000)]
    parts = [{"known": rows[at : at + 1000]} for at in range(0, len(rows), 1000)]
    jobs: SortedSet[str] = SortedSet(raw, "jobs", remember=True)
    assert jobs.restore(map(json.dumps, [head, *parts, {"end": 0}])) == 0
    assert jobs.stats().remembered == 20_000
    sizes = [raw.scard(key) for key in raw.scan_iter(f"{P}:seen:*")]
    assert sum(sizes) == 20_000 and max(sizes) < 512
    assert jobs.add_many(f"item {number}" for number in range(2000)) == (2000, 0, 0, 0)


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ({}, {"key": "url", "serializer": JSONSerializer()}),
        ({"key": "url"}, {"serializer": JSONSerializer()}),
        ({"remember": True}, {"remember": 3600}),
        ({"remember": True}, {}),
        ({}, {"remember": True}),
        ({"remember": True}, {"key": "url", "remember": True}),
    ],
)
def test_a_set_with_other_options_takes_the_items(
    any_server: servers.Server,
    was: dict[str, Any],
    now: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    raw = any_server.raw
    serializer = JSONSerializer()
    jobs: SortedSet[Any] = SortedSet(raw, "jobs", **{"serializer": serializer, **was})
    items = [{"url": name} for name in "abcd"]
    jobs.add_many(items, score=[1, 2, 3, 4])
    jobs.fail(jobs.lease(1), "no")
    jobs.take(1)
    lines = list(jobs.export())
    jobs.clear()
    again: SortedSet[Any] = SortedSet(raw, "jobs", **{"serializer": serializer, **now})
    assert again.restore(lines) == 3
    assert again.take(5, with_scores=True) == [(items[n], float(n + 1)) for n in (1, 2, 3)]
    left_out = "remember" in was
    assert ("the memory of 'jobs' is left out" in caplog.text) == left_out


def test_bytes_that_are_not_text_come_back(make_set: Maker, raw: Any) -> None:
    jobs = make_set()
    raw.zadd("jobs", {b"\xff\x00": 1, b"": 2, b'"\\\n': 3, "ü": 1.7325000001234567e9})
    before = everything(raw)
    lines = list(jobs.export())
    jobs.clear()
    assert jobs.restore([line.encode() for line in lines]) == 4
    assert everything(raw) == before


def test_a_file_is_written_and_read(make_set: Maker, tmp_path: Path) -> None:
    jobs = make_set(ScheduledSet)
    jobs.add_many(["a", "b"], score=[1, 4e9])
    path = tmp_path / "jobs.jsonl"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in jobs.export())
        file.write("\n")
    jobs.clear()
    with path.open("rb") as file:
        assert jobs.restore(file) == 2
    assert jobs.take(5) == ["a"] and jobs.size() == 1


def test_the_lines_are_the_same_without_orjson(
    any_server: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = any_server.raw
    jobs: SortedSet[Any] = SortedSet(raw, "jobs", key="url", remember=60)
    jobs.add_many([{"url": "ü"}, {"url": "\u2028"}], score=[1.5, -2e300])
    jobs.fail(jobs.lease(1), "nö")
    lines = list(jobs.export())
    monkeypatch.setattr(export_lines, "orjson", None)
    assert [json.loads(line) for line in jobs.export()] == [json.loads(line) for line in lines]
    jobs.clear()
    assert jobs.restore(lines) == 2


# --- in use


def test_a_staying_item_is_exported_once_while_others_come_and_go(
    any_server: servers.Server,
) -> None:
    jobs: SortedSet[str] = SortedSet(any_server.raw, "jobs")
    stay = [f"stay {number:05}" for number in range(5000)]
    jobs.add_many(stay, score=range(1000, 6000))
    stop = threading.Event()

    def churn() -> None:
        mine: SortedSet[str] = SortedSet(any_server.client(), "jobs")
        number = 0
        while not stop.is_set():
            number += 1
            mine.add_many([f"go {number} {n}" for n in range(50)], score=range(50))
            with mine.lease(20) as batch:
                for lease in batch:
                    if lease.score > 900:
                        break
            mine.between(0, 900).take(40)

    thread = threading.Thread(target=churn, daemon=True)
    thread.start()
    try:
        for _ in range(3):
            lines = [json.loads(line) for line in jobs.export()]
            items = [line["item"] for line in lines if "item" in line]
            found = [item for item in items if item.startswith("stay")]
            assert sorted(set(found)) == stay
            assert len(found) <= len(stay) + 200
    finally:
        stop.set()
        thread.join()
    lines_now = list(jobs.export())
    other: SortedSet[str] = SortedSet(any_server.raw, "other")
    assert other.restore(lines_now) == other.size() == jobs.size()


def test_many_pages_stream_from_one_set_to_another(any_server: servers.Server) -> None:
    jobs: SortedSet[str] = SortedSet(any_server.raw, "jobs")
    jobs.add_many((f"item {number:07}" for number in range(30_000)), score=range(30_000))
    other: SortedSet[str] = SortedSet(any_server.raw, "other")
    assert other.restore(jobs.export()) == 30_000
    assert jobs == other


# --- lines that are not an exported set

GOOD = [
    '{"redset":1,"name":"jobs","key":false,"remember":"","epoch":""}',
    '{"item":"a","score":1.0}',
    '{"dead":"b","id":"1700000000000-0","score":null,"reason":"no","attempts":0}',
    '{"end":1}',
]


@pytest.mark.parametrize(
    ("place", "line", "text"),
    [
        (0, None, "line 1 does not begin an exported set"),
        (0, '{"redset":2,"name":"jobs","key":false,"remember":"","epoch":""}', "version 1"),
        (0, '{"redset":1,"name":"jobs","key":0,"remember":"","epoch":""}', "lacks the set's opt"),
        (0, '{"redset":1,"name":"j","key":false,"remember":"x","epoch":""}', "options that no set"),
        (0, '{"redset":1,"name":"j","key":false,"remember":"","epoch":"*"}', "options that no set"),
        (1, "no json", "line 2 is not JSON"),
        (1, "[1]", "line 2 is not a JSON object"),
        (1, '{"item":"a"}', "line 2 is not of a known kind"),
        (1, '{"item":"a","score":"nan"}', "line 2 is not of a known kind"),
        (1, '{"item":"a","score":true}', "line 2 is not of a known kind"),
        (1, '{"item":5,"score":1}', "line 2 is not of a known kind"),
        (1, '{"item":{"base64":"*"},"score":1}', "line 2 is not of a known kind"),
        (1, '{"item":"a","score":1,"attempts":-1}', "line 2 is not of a known kind"),
        (1, '{"known":["1"]}', "line 2 is not of a known kind"),
        (1, '{"something":1}', "line 2 is not of a known kind"),
        (1, None, "line 3 is not of a known kind"),  # its count is too large
        (1, "\ud800", "line 2 is not UTF-8"),
        (1, b"\xff\xfe", "line 2 is not JSON"),
        (1, "[" * 100_000, "line 2 is not JSON"),
        (1, '{"item":"a","score":1,"attempts":9007199254740993}', "line 2 is not of a known kind"),
        (1, '{"item":"a","score":1,"attempts":1,"error":"\\ud800"}', "line 2 is no"),
        (
            2,
            '{"dead":"b","id":"x","score":null,"reason":"","attempts":0}',
            "line 3 is not of a known kind",
        ),
        (2, '{"dead":"b","id":"5-1","score":null,"reason":"\\ud800","attempts":0}', "line 3 is no"),
        (
            2,
            '{"dead":"b","id":"0-0","score":null,"reason":"","attempts":0}',
            "line 3 is not of a known kind",
        ),
        (
            2,
            '{"dead":"b","id":"1-99999999999999999999","score":1,"reason":"","attempts":0}',
            "line 3 is not of a known kind",
        ),
        (
            2,
            '{"dead":"b","id":"5-1","score":null,"reason":"","attempts":-1}',
            "line 3 is not of a known kind",
        ),
        # A letter's id beyond those that a clock gives, an error's text that no export has.
        (
            2,
            '{"dead":"b","id":"18446744073709551615-18446744073709551615","score":null,'
            '"reason":"","attempts":0}',
            "line 3 is not of a known kind",
        ),
        (1, '{"item":"a","score":1,"attempts":2147483648}', "line 2 is not of a known kind"),
        (1, '{"item":"a","score":1,"tie":1099511627774}', "line 2 is not of a known kind"),
        (1, '{"item":"a","score":1,"attempts":1,"error":5}', "line 2 is not of a known kind"),
        (
            1,
            f'{{"item":"a","score":1,"attempts":1,"error":"{"x" * 1001}"}}',
            "line 2 is not of a known kind",
        ),
        (1, '{"item":"a","score":1,"dead":"a"}', "line 2 is not of a known kind"),
        (2, '{"dead":"b","id":"5-1","score":1,"reason":"","attempts":0,"digest":"00"}', "line 3"),
        (
            3,
            GOOD[2],
            "line 4 is not of a known kind",
        ),  # twice, or in another order: no stream takes them
        (3, None, "line 4 is missing"),
        (3, '{"end":2}', "line 4 is not of a known kind"),
        (3, '{"end":1}\n{"end":1}', "line 5 comes after the end"),
    ],
)
def test_foreign_and_truncated_lines_are_refused_before_anything_is_written(
    make_set: Maker,
    raw: Any,
    monkeypatch: pytest.MonkeyPatch,
    place: int,
    line: Any,
    text: str,
) -> None:
    some = [line] if isinstance(line, bytes) else line.split("\n") if line else []
    lines = [*GOOD[:place], *some, *GOOD[place + 1 :]]
    for reader in (export_lines.orjson, None):
        monkeypatch.setattr(export_lines, "orjson", reader)
        with pytest.raises(ValueError, match=f"lines must be those of export.*{text}"):
            make_set().restore(lines)
        assert servers.keys(raw) == []
    assert make_set().restore(GOOD) == 1


def test_an_argument_that_is_not_lines_is_named(make_set: Maker, raw: Any) -> None:
    jobs = make_set()
    for wrong in ("text", b"bytes", {"a": 1}, 5, None):
        with pytest.raises(TypeError, match="lines must be an iterable"):
            jobs.restore(wrong)
    with pytest.raises(TypeError, match="lines must be str or bytes, and one is int"):
        jobs.restore([1])
    with pytest.raises(ValueError, match="line 1 is missing"):
        jobs.restore([])
    assert servers.keys(raw) == []


@every_option
def test_a_set_that_is_not_empty_is_left_alone(
    make_set: Maker, raw: Any, options: dict[str, Any]
) -> None:
    jobs = make_set(**options)
    item = made(options, "a")
    jobs.add(item)
    lines = list(jobs.export())
    for change in (lambda: None, jobs.lease, lambda: jobs.fail(jobs.lease(), "no", 60)):
        change()
        before = everything(raw)
        with pytest.raises(ValueError, match=r"'jobs' must be empty.*clear\(\)"):
            jobs.restore(lines)
        assert everything(raw) == before
    jobs.clear()
    assert jobs.restore(lines) == 1


@pytest.mark.parametrize(
    "options", [{}, {"key": "url"}, {"ties": "fifo"}, {"key": "url", "ties": "lifo"}], ids=str
)
def test_one_that_was_drained_is_empty(make_set: Maker, options: dict[str, Any]) -> None:
    jobs = make_set(**options)
    jobs.add_many([made(options, name) for name in "abc"])
    lines = list(jobs.export())
    before = jobs.take(5)
    assert jobs.restore(lines) == 3
    assert jobs.take(5) == before


@pytest.mark.parametrize("remember", [True, 3600])
@pytest.mark.parametrize("how", ["clear", "elsewhere", "flush"])
def test_tables_of_known_duplicates_do_not_outlive_a_restore(
    any_server: servers.Server, remember: Any, how: str
) -> None:
    """The epoch is the exported one; items that were learned since then are forgotten."""
    raw = any_server.raw
    items = [f"item {number}" for number in range(50)]
    with any_server.client() as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs", remember=remember)
        jobs.add("seed")
        jobs.pop()
        lines = list(jobs.export())
        for _ in range(3):  # that it is known is learned from the server's answers
            jobs.add_many(items)
            jobs.take(99)
        if how == "elsewhere":
            code = f"(jobs.clear(), jobs.restore({lines!r}))"
            servers.elsewhere(any_server, code, remember)
        else:
            {"clear": jobs.clear, "flush": raw.flushdb}[how]()
            jobs.restore(lines)
        assert jobs.seen_many([*items, "seed"]) == [False] * 50 + [True]
        if how == "elsewhere":
            # As after `forget`: by the next check, a second later at most.
            end = time.monotonic() + 40
            while jobs.add_many(items).added == 0:
                assert time.monotonic() < end
        else:
            assert jobs.add_many(items) == (50, 0, 0, 0)
        assert jobs.size() == 50


def test_buckets_of_a_cleared_memory_are_gone_before_their_epoch_could_return(
    any_server: servers.Server,
) -> None:
    """A memory comes back under its epoch, and so do the names of its buckets."""
    raw = any_server.raw
    items = [f"item {number}" for number in range(3000)]
    jobs: SortedSet[str] = SortedSet(raw, "jobs", remember=True)
    jobs.add_many(items)
    jobs.take(5000)
    lines = list(jobs.export())
    jobs.add_many(["later"] + [f"later {number}" for number in range(999)])

    class Dies(servers.GenericDecoded):
        """It is killed after the step that clears."""

        def execute_command(self, *arguments: Any, **options: Any) -> Any:
            if script("sweep").sha in arguments:
                raise redis.ConnectionError("killed")
            return super().execute_command(*arguments, **options)

    with pytest.raises(redis.ConnectionError):
        SortedSet(Dies(raw), "jobs", remember=True).clear()
    assert jobs.restore(lines) == 0
    assert jobs.stats().remembered == 3000
    # An add would drop the rest of cleared memories.
    assert [jobs.add_many(["later", *items]).added for _ in range(3)] == [1, 0, 0]
    assert all(jobs.seen_many(items)) and jobs.stats().remembered == 3001


def test_items_without_an_identity_are_refused_before_anything_is_written(
    any_server: servers.Server,
) -> None:
    raw = any_server.raw
    jobs: SortedSet[Any] = SortedSet(raw, "jobs", serializer=JSONSerializer())
    jobs.add_many([{"url": "a"}, {"no": 1}], score=[1, 2])
    lines = list(jobs.export())
    jobs.clear()
    with pytest.raises(OptionsDiffer, match=r"no identity in 'jobs', which has key=yes.*'url'"):
        SortedSet(raw, "jobs", key="url").restore(lines)
    assert servers.keys(raw) == []
    keyed: SortedSet[Any] = SortedSet(raw, "jobs", key=lambda item: str(sorted(item)))
    assert keyed.restore(lines) == 2
    assert Key("['url']") in keyed


def test_asyncio_takes_lines_from_an_async_iterable(any_server: servers.Server) -> None:
    async def main() -> None:
        client = redis.asyncio.Redis(unix_socket_path=any_server.unix)
        jobs = redset.asyncio.SortedSet(client, "jobs", remember=True)
        await jobs.add_many([f"item {number}" for number in range(3000)], score=range(3000))
        other = redset.asyncio.SortedSet(client, "other", remember=True)
        assert await other.restore(jobs.export()) == 3000
        with pytest.raises(ValueError, match="must be empty"):
            await other.restore(jobs.export())
        assert await other.seen("item 7")
        await servers.aclose(client)

    blocking.wait(main())


# --- files that were crafted


@pytest.mark.parametrize("remember", [None, True])
def test_a_digest_that_is_another_items_is_refused(
    make_set: Maker, raw: Any, remember: Any
) -> None:
    jobs = make_set(key="url", remember=remember, max_attempts=1)
    jobs.add_many([{"url": "a"}, {"url": "b"}, {"url": "dead"}], score=[2, 3, 1])
    jobs.fail(jobs.lease(1), "no")
    lines = list(jobs.export())
    jobs.clear()
    before = len(servers.keys(raw))
    for place, line in enumerate(lines):
        value = json.loads(line)
        if "digest" in value:
            value["digest"] = "00" * 16
            with pytest.raises(ValueError, match=r"digest of .* is not that of its key in 'jobs'"):
                jobs.restore([*lines[:place], json.dumps(value), *lines[place + 1 :]])
            assert len(servers.keys(raw)) == before
    assert jobs.restore(lines) == 2


def test_an_item_that_cannot_be_read_comes_back_under_its_digest(make_set: Maker, raw: Any) -> None:
    jobs = make_set(key="url")
    jobs.add_many([{"url": "a"}, {"url": "b"}], score=[1, 2])
    raw.hset(f"{P}:items", raw.zrange(f"{P}:keyed", 0, 0)[0], "no JSON")
    before, lines = everything(raw), list(jobs.export())
    jobs.clear()
    assert jobs.restore(lines) == 2
    assert everything(raw) == before


def test_letters_with_ids_of_the_future_are_not_before_those_to_come(
    make_set: Maker, raw: Any
) -> None:
    last = f"{2**53 - 1}-0"
    letters = [
        {"dead": f"{place}", "id": id, "score": 1, "reason": "", "attempts": 1}
        for place, id in enumerate(["5-1", f"{2**52}-7", last])
    ]
    head = {"redset": 1, "name": "jobs", "key": False, "remember": "", "epoch": ""}
    jobs = make_set(max_attempts=1)
    jobs.restore(map(json.dumps, [head, *letters, {"end": 0}]))
    jobs.add("later")
    jobs.fail(jobs.lease(), "no")
    found = list(jobs.dead)
    assert [letter.raw for letter in found] == [b"0", b"1", b"2", b"later"]
    assert found[0].id == "5-1"
    assert all(abs(letter.time - time.time()) < 60 for letter in found[1:])


def remembering(integers: list[str]) -> Iterator[str]:
    yield json.dumps(
        {"redset": 1, "name": "jobs", "key": False, "remember": "ever", "epoch": "ab" * 8}
    )
    for at in range(0, len(integers), 500):
        yield json.dumps({"known": integers[at : at + 500]})
    yield json.dumps({"end": 0})


@pytest.mark.parametrize("stride", [10**9, 128 * 10**3, 1024])
def test_a_memory_whose_integers_share_buckets_is_refused(
    make_set: Maker, raw: Any, stride: int
) -> None:
    integers = [str(number * stride) for number in range(1, 9001)]
    with pytest.raises(ValueError, match="not spread as a memory's integers are"):
        make_set(remember=True).restore(remembering(integers))
    assert servers.keys(raw) == []


def test_a_memory_in_any_order_takes_adds_afterwards(any_server: servers.Server) -> None:
    """Those first that would share a bucket as long as there are few buckets."""
    draw = random.Random(7)
    integers = sorted(
        {str(draw.randrange(-(2**63), 2**63)) for _ in range(20_000)},
        key=lambda integer: int(f"{abs(int(integer)) % 10**9:09b}"[::-1]),
    )
    jobs: SortedSet[str] = SortedSet(any_server.raw, "jobs", remember=True)
    assert jobs.restore(remembering(integers)) == 0
    assert jobs.stats().remembered == len(integers)
    assert set(known_to(list(jobs.export()))) == set(integers)
    for start in range(0, 6000, 500):
        items = [f"item {number}" for number in range(start, start + 500)]
        assert jobs.add_many(items) == (500, 0, 0, 0)
        assert jobs.add_many(items) == (0, 0, 500, 0)
    assert jobs.stats().remembered == len(integers) + 6000


def known_to(lines: list[str]) -> list[str]:
    return [integer for line in lines for integer in json.loads(line).get("known", ())]


# --- a restore that is cut off


@every_option
def test_a_restore_that_was_cut_off_is_repeated(
    any_server: servers.Server, options: dict[str, Any]
) -> None:
    raw = any_server.raw
    jobs = filled(lambda **options: SortedSet(raw, "jobs", **options), options)
    before, lines = everything(raw), list(jobs.export())
    number = 0
    while True:
        any_server.flush()
        try:
            SortedSet(dies_at(number, raw), "jobs", **options).restore(lines)
        except redis.ConnectionError:
            pass
        else:
            break
        number += 2
        assert SortedSet(raw, "jobs", **options).restore(lines) == 798
        assert everything(raw) == before
    assert number >= 6


def test_an_item_handed_out_in_between_is_not_queued_again(any_server: servers.Server) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs")
    jobs.add_many([f"{number:03}" for number in range(600)], score=range(600))
    lines = list(jobs.export())
    jobs.clear()
    with pytest.raises(redis.ConnectionError):
        SortedSet(dies_at(2, raw), "jobs").restore(lines)  # begun, and one step done
    assert jobs.take(10) == [f"{number:03}" for number in range(10)]
    jobs.add("of another")
    assert jobs.restore(lines) == 600
    assert jobs.size() == 591 and "000" not in jobs


def test_other_lines_do_not_continue_a_restore(
    any_server: servers.Server,
) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs")
    jobs.add_many(["a", "b"])
    lines = list(jobs.export())
    jobs.clear()
    with pytest.raises(redis.ConnectionError):
        SortedSet(dies_at(2, raw), "jobs").restore(lines)
    jobs.add("c")
    before = everything(raw)
    with pytest.raises(ValueError, match=r"'jobs' has part of other lines.*clear\(\)"):
        jobs.restore(list(jobs.export()))
    assert everything(raw) == before
    jobs.clear()
    assert jobs.restore(lines) == 2


def test_a_full_server_lets_a_restore_be_repeated() -> None:
    kind = servers.some()
    with servers.start(kind, maxmemory="4mb", maxmemory_policy="noeviction") as server:
        with servers.start(kind) as other:
            source: SortedSet[str] = SortedSet(other.raw, "jobs", key=str, remember=True)
            source.add_many(f"{number:04}{'x' * 1000}" for number in range(4000))
            lines = list(source.export())
        jobs: SortedSet[str] = SortedSet(server.raw, "jobs", key=str, remember=True)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            jobs.restore(lines)
        assert 0 < jobs.size() < 4000
        server.raw.config_set("maxmemory", "100mb")
        assert jobs.restore(lines) == 4000 == jobs.size()
        assert jobs.add_many(f"{number:04}{'x' * 1000}" for number in range(4000)).refused == 4000


def test_a_restore_whose_answers_are_lost_is_as_if_they_were_not(
    any_server: servers.Server,
) -> None:
    raw = any_server.raw
    options = {"key": "url", "remember": True, "ties": "fifo"}
    jobs = filled(lambda **options: SortedSet(raw, "jobs", **options), options)
    before, lines = everything(raw), list(jobs.export())
    with Proxy(any_server) as proxy:
        retry = redis.retry.Retry(redis.backoff.NoBackoff(), 3)
        for sign in ("restore_begin", "restore_items", "restore_letters", "restore_memory"):
            any_server.flush()
            lost = 0

            def rule(command: list[bytes], sign: str = sign) -> str | None:
                nonlocal lost
                lost += script(sign).sha in command[:2]
                return Proxy.LOSE if script(sign).sha in command[:2] and lost == 1 else None

            proxy.rule = rule
            client = redis.Redis(host="127.0.0.1", port=proxy.port, retry=retry)
            assert SortedSet(client, "jobs", **options).restore(lines) == 798
            assert lost > 1
            assert everything(raw) == before
            client.close()


# --- whatever a file holds


@pytest.mark.drawn
@pytest.mark.timeout(400)
def test_no_file_breaks_a_set_or_loses_what_was_there(any_server: servers.Server) -> None:
    """`make fuzz ARGS="restore"` has more of them."""
    cases = 700 if share(1000) == 1000 else 70
    taken = 0
    fuzzed = Files(any_server.raw, any_server.kind)
    for number in range(cases):
        taken += fuzzed.check(number)
    assert taken > cases / 20
