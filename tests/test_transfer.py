"""A whole set as JSON lines, and back."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blocking
import pytest
import redis
import redis.asyncio
import servers
from options import every_option, fit, made, once_more

import redset.asyncio
from redset import Key, ScheduledSet, SortedSet, _lines
from redset._scripts import script
from redset.exceptions import OptionsDiffer
from redset.serializers import JSONSerializer

Maker = Callable[..., Any]
P = "jobs:{jobs}"


def everything(raw: redis.Redis) -> dict[bytes, Any]:
    """What is on the server, but for the calls of leases, and from where forgetting is counted."""
    found: dict[bytes, Any] = {}
    for key in raw.scan_iter():
        kind = raw.type(key)
        if kind == b"zset":
            found[key] = raw.zrange(key, 0, -1, withscores=True)
        elif kind == b"hash":
            # Servers write more digits than a number needs.
            values = raw.hgetall(key)
            values.pop(b"forgets", None)
            found[key] = {field: shortened(value) for field, value in values.items()}
        elif kind == b"set":
            found[key] = raw.smembers(key)
        else:
            letters = raw.xrange(key)
            found[key] = [(id, {k: shortened(v) for k, v in of.items()}) for id, of in letters]
    return found


def shortened(value: bytes) -> bytes:
    return re.sub(rb"(?<![^ ])\d+\.\d+\b", lambda found: repr(float(found[0])).encode(), value)


def filled(make: Maker, options: dict[str, Any]) -> Any:
    """A set of which everything there is to be said."""
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
    assert raw.dbsize() <= 1  # what is left of a memory
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
def test_what_is_leased_comes_back_queued(
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
    assert raw.dbsize() == 0


def test_a_limited_memory_may_become_one_for_ever(any_server: servers.Server) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs", remember=3600)
    jobs.add_many(["a", "b"])
    jobs.pop()
    lines = list(jobs.export())
    other: SortedSet[str] = SortedSet(raw, "other", remember=True)
    assert other.restore(lines) == 1
    assert other.seen_many(["a", "b", "c"]) == [True, True, False]


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
    assert ("what 'jobs' remembered is left out" in caplog.text) == left_out


def test_bytes_that_are_no_text_come_back(make_set: Maker, raw: Any) -> None:
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
    monkeypatch.setattr(_lines, "orjson", None)
    assert [json.loads(line) for line in jobs.export()] == [json.loads(line) for line in lines]
    jobs.clear()
    assert jobs.restore(lines) == 2


# --- in use


def test_what_stays_is_exported_once_while_others_come_and_go(any_server: servers.Server) -> None:
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


# --- what is no exported set

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
        (1, "no json", "line 2 is no JSON"),
        (1, "[1]", "line 2 is no JSON object"),
        (1, '{"item":"a"}', "line 2 is none of them"),
        (1, '{"item":"a","score":"nan"}', "line 2 is none of them"),
        (1, '{"item":"a","score":true}', "line 2 is none of them"),
        (1, '{"item":5,"score":1}', "line 2 is none of them"),
        (1, '{"item":{"base64":"*"},"score":1}', "line 2 is none of them"),
        (1, '{"item":"a","score":1,"attempts":-1}', "line 2 is none of them"),
        (1, '{"known":["1"]}', "line 2 is none of them"),
        (1, '{"something":1}', "line 2 is none of them"),
        (1, None, "line 3 is none of them"),  # too many are said to be there
        (1, "\ud800", "line 2 is no text for UTF-8"),
        (1, b"\xff\xfe", "line 2 is no JSON"),
        (1, "[" * 100_000, "line 2 is no JSON"),
        (1, '{"item":"a","score":1,"attempts":9007199254740993}', "line 2 is none of them"),
        (1, '{"item":"a","score":1,"attempts":1,"error":"\\ud800"}', "line 2 is no"),
        (2, '{"dead":"b","id":"x","score":null,"reason":"","attempts":0}', "line 3 is none"),
        (2, '{"dead":"b","id":"5-1","score":null,"reason":"\\ud800","attempts":0}', "line 3 is no"),
        (2, '{"dead":"b","id":"0-0","score":null,"reason":"","attempts":0}', "line 3 is none"),
        (
            2,
            '{"dead":"b","id":"1-99999999999999999999","score":1,"reason":"","attempts":0}',
            "line 3 is none",
        ),
        (2, '{"dead":"b","id":"5-1","score":null,"reason":"","attempts":-1}', "line 3 is none"),
        (3, GOOD[2], "line 4 is none of them"),  # twice, or in another order: no stream takes them
        (3, None, "line 4 is missing"),
        (3, '{"end":2}', "line 4 is none of them"),
        (3, '{"end":1}\n{"end":1}', "line 5 comes behind the end"),
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
    for reader in (_lines.orjson, None):
        monkeypatch.setattr(_lines, "orjson", reader)
        with pytest.raises(ValueError, match=f"lines must be those of export.*{text}"):
            make_set().restore(lines)
        assert raw.dbsize() == 0
    assert make_set().restore(GOOD) == 1


def test_what_is_no_lines_is_named(make_set: Maker, raw: Any) -> None:
    jobs = make_set()
    for wrong in ("text", b"bytes", {"a": 1}, 5, None):
        with pytest.raises(TypeError, match="lines must be an iterable"):
            jobs.restore(wrong)
    with pytest.raises(TypeError, match="lines must be str or bytes, and one is int"):
        jobs.restore([1])
    with pytest.raises(ValueError, match="line 1 is missing"):
        jobs.restore([])
    assert raw.dbsize() == 0


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
    """The epoch is the one that was exported; what was learned since then is forgotten."""
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


def test_what_a_cleared_memory_left_is_gone_before_it_comes_back(
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
        """It is killed behind the step that clears."""

        def execute_command(self, *arguments: Any, **options: Any) -> Any:
            if script("sweep").sha in arguments:
                raise redis.ConnectionError("killed")
            return super().execute_command(*arguments, **options)

    with pytest.raises(redis.ConnectionError):
        SortedSet(Dies(raw), "jobs", remember=True).clear()
    assert jobs.restore(lines) == 0
    assert jobs.stats().remembered == 3000
    # An add would drop what is left of cleared memories.
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
    assert raw.dbsize() == 0
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
