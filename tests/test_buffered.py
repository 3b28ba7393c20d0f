"""Buffered producers: accepted at once, written in the background in order, or reported."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import blocking
import children
import pytest
import redis
import redis.asyncio
import servers
from blocking import BlockingSet
from load import Load
from marks import needs_fork
from proxy import Command, Proxy
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

import redset.asyncio
from redset import ScheduledSet, SortedSet, TimeSortedSet
from redset._faces import writer as writers
from redset.exceptions import AddError, Full, OptionsDiffer
from redset.serializers import JSONSerializer

Maker = Callable[..., Any]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"duplicates": "keep"},
    {"key": "url"},
    {"remember": True},
    {"key": "url", "remember": 3600},
]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=str)
#: So long that nothing is written for its age.
LONG = 1000.0


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < end
        blocking.wait(asyncio.sleep(0.005))  # tasks go on only while something is awaited


def scored(jobs: Any) -> list[tuple[Any, float | None]]:
    items = list(jobs)
    return list(zip(items, jobs.scores(items), strict=True))


@pytest.fixture
def proxy(any_server: servers.Server) -> Iterator[Proxy]:
    with Proxy(any_server) as made:
        yield made


@pytest.fixture(params=["sync", "asyncio"])
def make(request: pytest.FixtureRequest, proxy: Proxy) -> Iterator[Maker]:
    """Makes sets of each face through the proxy, by clients that try once."""
    if request.param == "sync":
        client = redis.Redis(port=proxy.port, retry=Retry(NoBackoff(), 0))
        yield lambda **options: SortedSet(client, "jobs", **options)
        client.close()
        return
    awaited = redis.asyncio.Redis(port=proxy.port, retry=AsyncRetry(NoBackoff(), 0))
    yield lambda **options: BlockingSet(SortedSet, awaited, "jobs", **options)
    blocking.wait(servers.aclose(awaited))


def slow(name: bytes, seconds: float) -> Callable[[Command], float | None]:
    return lambda command: seconds if command[0].upper() == name else None


def held_up(name: bytes, go: threading.Event) -> Callable[[Command], None]:
    """Have a command wait until `go` is set."""

    def rule(command: Command) -> None:
        if command[0].upper() == name:
            go.wait(40)

    return rule


# --- when it is written


@every_option
def test_leaving_the_block_writes_all_accepted_items(
    make_set: Maker, options: dict[str, Any]
) -> None:
    jobs = make_set(**options)
    keyed = "key" in options
    items: list[Any] = [{"url": f"/{n}"} if keyed else f"/{n}" for n in range(3000)]
    with jobs.buffered(max_delay=LONG) as writer:
        for number, item in enumerate(items):
            assert writer.add(item, number) is None
    assert scored(jobs) == [(item, float(number)) for number, item in enumerate(items)]
    with jobs.buffered():
        pass
    assert jobs.size() == 3000


def test_it_is_written_when_there_are_max_items(make_set: Maker) -> None:
    jobs = make_set()
    with jobs.buffered(max_items=10, max_delay=LONG) as writer:
        for number in range(9):
            writer.add(str(number))
        time.sleep(0.03)
        assert jobs.size() == 0
        writer.add("9")
        until(lambda: jobs.size() == 10)
        writer.add("10")
        time.sleep(0.03)
        assert jobs.size() == 10
    assert jobs.size() == 11


def test_it_is_written_when_the_first_of_it_is_max_delay_old(make_set: Maker, load: Load) -> None:
    jobs = make_set()
    with jobs.buffered(max_delay=0.2) as writer:
        for number in range(3):
            start = time.monotonic()
            writer.add(str(number))
            writer.add(f"{number} again")
            assert jobs.size() == 2 * number or time.monotonic() - start > 0.2
            until(lambda: jobs.size() == 2 * number + 2)  # noqa: B023
            assert 0.19 < time.monotonic() - start < load.seconds(5)
    with jobs.buffered(max_delay=0) as writer:
        writer.add("now")
        until(lambda: "now" in jobs)


def test_an_accepted_item_is_written_as_it_was_although_the_object_changes(
    make_set: Maker,
) -> None:
    jobs = make_set(key="url", scorer="depth")
    page = {"url": "/a", "depth": 1}
    with jobs.buffered(max_delay=LONG) as writer:
        writer.add(page)
        page.update(url="/b", depth=2)
        writer.add(page)
        page.clear()
    assert jobs.take(5, with_scores=True) == [
        ({"url": "/a", "depth": 1}, 1.0),
        ({"url": "/b", "depth": 2}, 2.0),
    ]


def test_times_are_those_of_adding_and_a_schedules_those_of_the_server(make_set: Maker) -> None:
    times = make_set(TimeSortedSet, "times")
    with times.buffered(max_delay=LONG) as writer:
        writer.add("first")
        between = time.time()
        time.sleep(0.01)
        writer.add("second")
    first, second = times.scores(["first", "second"])
    assert first <= between < second
    later = make_set(ScheduledSet, "later")
    with later.buffered() as writer:
        writer.add("now")
        writer.add("far", between + 1000)
        writer.add("now as well")
    assert later.take(5) == ["now", "now as well"]
    assert later.size() == 1


@every_option
def test_it_ends_as_the_same_adds_one_after_another(
    make_set: Maker, case: tuple[str, str, str], options: dict[str, Any]
) -> None:
    pick = random.Random(f"{case} {options}")
    written, added = make_set(name="written", **options), make_set(name="added", **options)
    choices: list[dict[str, bool]] = [{}, {"nx": True}, {"xx": True}, {"gt": True}, {"lt": True}]
    if "remember" in options:
        choices += [{"again": True}, {"remember": False}]
    flags: dict[str, bool] = {}
    with written.buffered(max_items=40, max_delay=LONG) as writer:
        for turn in range(300):
            name = f"/{pick.randrange(40)}"
            item = {"url": name, "turn": turn} if "key" in options else name
            if pick.random() < 0.3:
                flags = pick.choice(choices)
            score = pick.choice((None, pick.randrange(5)))
            writer.add(item, score, **flags)
            added.add(item, score, **flags)
    assert scored(written) == scored(added)


def test_a_set_that_is_cleared_in_mid_stream_gets_the_later_items(make_set: Maker) -> None:
    jobs, other = make_set(remember=True), make_set(remember=True)
    with jobs.buffered(max_delay=LONG, max_items=2) as writer:
        for name in "ab":
            writer.add(name)
        until(lambda: other.size() == 2)
        other.clear()
        for name in "bc":
            writer.add(name)
    assert sorted(other) == ["b", "c"] and other.seen_many(["a", "b", "c"]) == [False, True, True]


def test_it_may_be_long_before_it_writes(make: Maker) -> None:
    jobs = make()
    with jobs.buffered(max_delay=10**400) as writer:
        writer.add("a")
    assert list(jobs) == ["a"]
    with pytest.raises(TypeError, match=r"max_delay must be .*, got True"):
        jobs.buffered(max_delay=True)


def test_an_error_that_ends_the_background_is_raised_by_the_writer(
    make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = make()

    def left(self: Any) -> float:
        if self._queue:
            raise ZeroDivisionError("of all things")
        return 1000.0

    monkeypatch.setattr(writers.Writing, "_left", left)
    with (
        pytest.raises(AddError, match="1 items of 'jobs' were not written") as caught,
        jobs.buffered() as writer,
    ):
        writer.add("a")
    assert caught.value.unwritten == [("a", 0.0)] and jobs.size() == 0


# --- bounds


def test_a_slower_server_makes_the_producer_wait(
    proxy: Proxy, make: Maker, any_server: servers.Server, load: Load
) -> None:
    jobs = make()
    # Slower than a producer on this machine, however busy that is; there are 10 of them.
    pause = min(load.seconds(0.02), 1.0)
    proxy.rule = slow(b"ZADD", pause)
    waited = 0
    with jobs.buffered(max_items=10, max_delay=LONG, max_pending=30) as writer:
        for number in range(100):
            start = time.monotonic()
            writer.add(f"{number:03}", number)
            waited += time.monotonic() - start > pause / 2
            assert number + 1 - any_server.raw.zcard("jobs") <= 30
    assert waited
    assert list(jobs) == [f"{number:03}" for number in range(100)]


def test_a_max_pending_below_max_items_writes_when_it_is_reached(make_set: Maker) -> None:
    jobs = make_set()
    with jobs.buffered(max_delay=LONG, max_pending=3) as writer:
        for number in range(20):
            writer.add(str(number))
    assert jobs.size() == 20
    leases = list(jobs.lease(20))
    with jobs.buffered(max_delay=LONG, max_pending=3) as writer:
        for lease in leases:
            writer.ack(lease)
    assert jobs.finished()


@pytest.mark.slow(3)
def test_memory_does_not_grow_with_what_is_written(any_server: servers.Server) -> None:
    client = any_server.client()
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    with jobs.buffered(max_items=100, max_pending=500) as writer:
        sizes = []
        for number in range(20_000):
            writer.add(f"{number % 1000:0100}")
            if number % 4000 == 3999:
                gc.collect()
                sizes.append(len(gc.get_objects()))
    assert max(sizes) < min(sizes) + 4000
    client.close()


# --- errors at once


BAD_CALLS: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda w: w.add({"url": "a"}, "high"), ValueError, "score must be a number"),
    (lambda w: w.add({"url": "a"}, []), TypeError, r"score must be a number, got .* \(list\)"),
    (lambda w: w.add({"url": "a"}, float("nan")), ValueError, "NaN"),
    (lambda w: w.add({"url": "a"}, nx=True, gt=True), ValueError, "nx contradicts"),
    (lambda w: w.add({"url": "a"}, again=True), ValueError, "again needs a set with remember"),
    (lambda w: w.add({}), ValueError, "has no field 'url' to be its key"),
    (lambda w: w.add({"url": 1.5}), TypeError, r"key must be str, bytes or int, got 1.5 \(float\)"),
    (lambda w: w.add({"url": "a", "x": object()}), TypeError, "object"),
    (lambda w: w.add({"url": "a" * 200}), ValueError, "more than max_item_bytes=100"),
    (lambda w: w.ack("a"), TypeError, "leases must be a lease"),
    (lambda w: w.ack(["a"]), TypeError, r"leases\[0\] must be a lease"),
]


def test_a_bad_argument_is_its_callers_error_and_the_writer_goes_on(make_set: Maker) -> None:
    jobs = make_set(key="url", max_item_bytes=100)
    with jobs.buffered() as writer:
        writer.add({"url": "before"})
        for call, kind, says in BAD_CALLS:
            with pytest.raises(kind, match=says) as caught:
                call(writer)
            assert not isinstance(caught.value, AddError)
        writer.add({"url": "behind"})
    assert sorted(item["url"] for item in jobs) == ["before", "behind"]


def test_a_bad_item_is_refused_as_add_refuses_it(make_set: Maker) -> None:
    jobs = make_set(key=lambda item: item["url"], scorer=lambda item: item["depth"])
    with jobs.buffered() as writer:
        for bad in ({}, {"url": "a"}, {"depth": 1}, {"depth": 1, "url": None}, 5, None):
            with pytest.raises(Exception) as ours:
                writer.add(bad)
            with pytest.raises(type(ours.value)) as theirs:
                jobs.add(bad)
            assert str(ours.value) == str(theirs.value)


BAD_OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"max_items": 0}, ValueError, "max_items must be positive, got 0 .int"),
    ({"max_items": 1.5}, TypeError, "max_items must be an int, got 1.5 .float"),
    ({"max_pending": -1}, ValueError, "max_pending must be positive, got -1 .int"),
    ({"max_pending": "9"}, TypeError, "max_pending must be an int, got .9. .str"),
    ({"max_delay": -1}, ValueError, "max_delay must be seconds, 0 or more, got -1 .int."),
    ({"max_delay": float("nan")}, ValueError, "max_delay"),
    (
        {"max_delay": None},
        TypeError,
        "max_delay must be a number of .* got None .None",
    ),
]


def test_a_bad_option_is_named(make_set: Maker) -> None:
    for options, kind, says in BAD_OPTIONS:
        with pytest.raises(kind, match=says):
            make_set().buffered(**options)


def test_a_writer_is_used_inside_of_its_block(make_set: Maker) -> None:
    jobs = make_set()
    writer = jobs.buffered()
    assert "Writer of <SortedSet name='jobs'>" in repr(writer)
    with pytest.raises(RuntimeError, match="inside of its with block"):
        writer.add("a")
    with writer:
        with pytest.raises(RuntimeError, match="entered once"):
            writer.__enter__()
        writer.add("b")
    for call in (lambda: writer.add("c"), lambda: writer.ack([])):
        with pytest.raises(RuntimeError, match="was left"):
            call()
    with pytest.raises(RuntimeError, match="entered once"):
        writer.__enter__()
    assert list(jobs) == ["b"]
    jobs.close()
    with pytest.raises(RuntimeError, match="is closed"):
        jobs.buffered()


# --- items that cannot be written


def test_a_full_set_is_an_error_with_the_unwritten_items(make_set: Maker) -> None:
    jobs = make_set(max_size=5)
    with pytest.raises(Full) as caught, jobs.buffered(max_items=3, max_delay=LONG) as writer:
        for number in range(3):
            writer.add(str(number), number)
        until(lambda: jobs.size() == 3)
        for number in range(3, 6):
            writer.add(str(number), number, nx=True)
        for _ in range(1000):  # out of one of the next calls
            time.sleep(0.01)
            if jobs.size() >= 0:
                writer.ack([])
    error = caught.value
    assert isinstance(error, AddError) and isinstance(error.__cause__, Full)
    assert "3 items of 'jobs' were not written: the set holds 3 items" in str(error)
    assert error.resume_at == 3 and error.result == (3, 0, 0, 0)
    assert error.unwritten == [("3", 3.0), ("4", 4.0), ("5", 5.0)]
    for call in (lambda: writer.add("more"), lambda: writer.ack([])):
        with pytest.raises(Full) as again:
            call()
        assert again.value is error
    jobs.take(3)
    items, scores = zip(*error.unwritten, strict=True)
    assert jobs.add_many(items, scores, nx=True).added == 3


def test_an_error_that_no_call_met_is_raised_at_the_exit(make_set: Maker) -> None:
    make_set(remember=True).add("a")
    jobs = make_set(remember=60)
    with pytest.raises(OptionsDiffer) as caught, jobs.buffered(max_delay=LONG) as writer:
        writer.add("b")
    assert isinstance(caught.value, AddError)
    assert caught.value.unwritten == [("b", 0.0)] and caught.value.resume_at == 0


def test_an_item_that_is_too_large_for_the_server_is_named(any_server: servers.Server) -> None:
    any_server.raw.config_set("proto-max-bulk-len", 2**20)
    try:
        with any_server.client() as client:
            jobs: SortedSet[Any] = SortedSet(client, "jobs", key="url")
            items = [{"url": str(number)} for number in range(30)]
            items[20]["text"] = "x" * 2**21
            with (
                pytest.raises(AddError, match="proto-max-bulk-len") as caught,
                jobs.buffered() as writer,
            ):
                for item in items:
                    writer.add(item)
            error = caught.value
            assert (error.index, error.item) == (20, items[20])
            assert error.resume_at <= 20
            assert [item for item, _ in error.unwritten] == items[error.resume_at :]
    finally:
        any_server.raw.config_set("proto-max-bulk-len", 2**29)


def test_a_server_that_is_gone_is_an_error_and_adding_the_rest_makes_it_whole(
    proxy: Proxy, make: Maker, any_server: servers.Server
) -> None:
    jobs = make()
    accepted = 0
    with (
        pytest.raises(AddError) as caught,
        jobs.buffered(max_items=100, max_pending=400) as writer,
    ):
        for number in range(20_000):
            if number == 1500:
                proxy.open = False
                proxy.cut()
            writer.add(f"{number:05}", number)
            accepted += 1
    error = caught.value
    assert isinstance(error.__cause__, redis.ConnectionError)
    assert error.resume_at + len(error.unwritten) == accepted < 2000
    assert error.unwritten[0] == (f"{error.resume_at:05}", float(error.resume_at))
    there = any_server.raw.zrange("jobs", 0, -1)
    assert len(there) >= error.resume_at and error.result.added == error.resume_at
    proxy.open = True
    jobs.add_many(*zip(*error.unwritten, strict=True))
    assert list(jobs) == [f"{number:05}" for number in range(accepted)]


def test_a_connection_that_is_cut_is_made_again_by_the_clients_retries(
    any_server: servers.Server,
) -> None:
    with Proxy(any_server) as proxy:
        client = redis.Redis(port=proxy.port, retry=Retry(NoBackoff(), 3))
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        jobs.size()  # redis-py 5.0.0 tries a first connection once
        with jobs.buffered(max_items=50) as writer:
            for number in range(5000):
                if number % 1000 == 500:
                    proxy.cut_after(down=3)
                writer.add(f"{number:04}", number)
        assert list(jobs) == [f"{number:04}" for number in range(5000)]
        assert proxy.connections > 1
        client.close()


def test_an_error_of_the_block_is_raised_and_the_accepted_items_are_written(
    make_set: Maker,
) -> None:
    jobs = make_set()
    with pytest.raises(ZeroDivisionError), jobs.buffered(max_delay=LONG) as writer:
        writer.add("a")
        raise ZeroDivisionError
    assert list(jobs) == ["a"]


def test_the_error_of_the_block_goes_before_that_of_the_writer(
    make_set: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = make_set(max_size=1)
    with (
        caplog.at_level(logging.ERROR, "redset"),
        pytest.raises(ZeroDivisionError),
        jobs.buffered(max_delay=LONG) as writer,
    ):
        writer.add("a")
        writer.add("b")
        raise ZeroDivisionError
    assert "2 items of 'jobs' were not written: the set holds 0 items" in caplog.text


# --- acknowledging


def test_an_ack_is_sent_after_all_adds_that_were_accepted_before_it(
    proxy: Proxy, make: Maker, any_server: servers.Server
) -> None:
    jobs = make()
    jobs.add_many(["a", "b"], [1, 2])
    first, second = jobs.lease(2)
    proxy.seen.clear()
    go = threading.Event()
    proxy.rule = held_up(b"ZADD", go)
    with jobs.buffered(max_delay=0) as writer:
        for number in range(1200):
            writer.add(f"found {number}", 5)
        writer.ack(first)
        assert first.settled
        writer.add("behind", 6, nx=True)
        writer.ack([second])
        until(lambda: b"ZADD" in proxy.names())
        assert any_server.raw.zcard("jobs:{jobs}:leased") == 2
        go.set()
        until(lambda: any_server.raw.zcard("jobs:{jobs}:leased") < 2)
        assert any_server.raw.zcard("jobs") >= 1200
    assert jobs.size() == 1201
    assert not list(jobs.leased())
    names = [name for name in proxy.names() if name in (b"ZADD", b"EVALSHA")]
    assert names.index(b"EVALSHA") >= 3  # three chunks of 500


@every_option
def test_an_ack_is_withheld_if_an_add_before_it_failed(
    make_set: Maker, raw: Any, options: dict[str, Any]
) -> None:
    jobs = make_set(**options, max_size=3)
    names = [{"url": name} if "key" in options else name for name in "abcdef"]
    jobs.add_many(names[:2], [1, 2])
    with (
        pytest.raises(Full) as caught,
        jobs.buffered(max_delay=LONG) as writer,
        jobs.lease(2) as batch,
    ):
        for lease in batch:
            for name in names[2:]:
                writer.add(name, 9)
            writer.ack(lease)
    assert "8 items and 2 acknowledgements of 'jobs' were not written" in str(caught.value)
    assert sorted(row[1] for row in jobs.leased()) == [1.0, 2.0]
    assert jobs.size() == 0 and not jobs.finished()


def test_a_batch_leaves_to_the_writer_what_was_handed_to_it(
    proxy: Proxy, make: Maker, any_server: servers.Server
) -> None:
    jobs = make()
    jobs.add_many(["a", "b"])
    with jobs.buffered(max_delay=LONG) as writer:
        with jobs.lease(2) as batch:
            for lease in batch:
                writer.add(f"found in {lease.item}")
                if lease.item == "a":
                    writer.ack(lease)
        # b was done with the batch; a is the writer's to acknowledge.
        assert any_server.raw.zrange("jobs:{jobs}:leased", 0, -1) == [b"a"]
    assert jobs.size() == 2
    assert not list(jobs.leased())


@every_option
def test_an_item_that_is_added_after_its_ack_is_queued_again(
    make_set: Maker, options: dict[str, Any]
) -> None:
    jobs = make_set(**options)
    item = {"url": "a"} if "key" in options else "a"
    known = "remember" in options
    for flags in ({}, {"nx": True}):
        jobs.add(item, 1, again=known)
        [lease] = jobs.lease()
        with jobs.buffered(max_delay=LONG) as writer:
            writer.ack(lease)
            writer.add(item, 2, **flags, again=known)
        assert scored(jobs) == [(item, 2.0)]
        assert jobs.take(2) == [item] and jobs.finished()


def test_late_settlements_are_logged(
    make_set: Maker, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = make_set()
    jobs.add("a")
    [lease] = jobs.lease()
    raw.zadd("jobs:{jobs}:leased", {"a": 1})
    assert jobs.lease()
    with caplog.at_level(logging.WARNING, "redset"), jobs.buffered() as writer:
        writer.ack(lease)
    assert "1 leases of 'jobs' expired before they were settled" in caplog.text
    assert len(list(jobs.leased())) == 1


def test_a_foreign_lease_and_one_that_is_settled_are_refused_at_once(make_set: Maker) -> None:
    jobs, other = make_set(), make_set(name="other")
    jobs.add("a")
    other.add("b")
    [lease], [foreign] = jobs.lease(), other.lease()
    with jobs.buffered() as writer:
        with pytest.raises(ValueError, match="not of"):
            writer.ack([lease, foreign])
        writer.ack(lease)
        with pytest.raises(ValueError, match="settled before"):
            writer.ack(lease)
    assert jobs.finished() and not other.finished()


# --- threads, processes, interrupts


def test_many_threads_may_add(any_server: servers.Server, any_implementation: str) -> None:
    client = any_server.client()
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    seen: list[int] = []

    def work(number: int) -> None:
        for turn in range(1000):
            writer.add(f"{number}/{turn}", turn)

    with jobs.buffered(max_items=50, max_pending=200) as writer:
        threads = [
            threading.Thread(target=work, args=(number,), daemon=True) for number in range(8)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            seen.append(jobs.size())
        for thread in threads:
            thread.join()
        assert 8000 - jobs.size() <= 200
    assert jobs.size() == 8000 and len(set(seen)) > 2
    client.close()


def test_an_error_wakes_every_thread_that_waits_for_room(any_server: servers.Server) -> None:
    with Proxy(any_server) as proxy:
        client = redis.Redis(port=proxy.port, retry=Retry(NoBackoff(), 0))
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        proxy.rule = slow(b"ZADD", 0.3)
        errors: list[Exception] = []

        def work(number: int) -> None:
            try:
                for turn in range(100):
                    writer.add(f"{number}/{turn}")
            except Exception as error:
                errors.append(error)

        with pytest.raises(AddError) as caught, jobs.buffered(5, 0, 10) as writer:
            threads = [
                threading.Thread(target=work, args=(number,), daemon=True) for number in range(6)
            ]
            for thread in threads:
                thread.start()
            until(lambda: b"ZADD" in proxy.names())
            proxy.open = False
            proxy.cut()
            for thread in threads:
                thread.join(20)
                assert not thread.is_alive()
        assert errors == [caught.value] * 6
        assert len(caught.value.unwritten) <= 10
        client.close()


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_gets_an_error_and_the_parent_writes_its_items(
    make_set: Maker, case: tuple[str, str, str]
) -> None:
    if "fakeredis" in case[2]:
        pytest.skip("fakeredis: a child has a server of its own")
    jobs = make_set()
    with jobs.buffered(max_delay=LONG) as writer:
        writer.add("a")

        def work() -> list[str]:
            told = []
            for call in (lambda: writer.add("b"), lambda: writer.ack([])):
                try:
                    call()
                except RuntimeError as error:
                    told.append(str(error))
            writer.__exit__(None, None, None)
            return [*told, "left"]

        with children.forked(work) as child:
            text = child.result()
        writer.add("c")
    assert len(text) == 3 and text[2] == "left"
    assert all("call buffered() again in the child" in line for line in text[:2])
    assert sorted(jobs) == ["a", "c"]


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_has_writers_of_its_own(any_server: servers.Server) -> None:
    client = any_server.client()
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    with jobs.buffered(max_delay=LONG) as writer:
        writer.add("parent's")

        def work() -> None:
            with jobs.buffered() as own:
                own.add("child's")

        with children.forked(work) as child:
            child.result()
        assert list(jobs) == ["child's"]
    assert sorted(jobs) == ["child's", "parent's"]
    client.close()


PROGRAM = """
import sys, redis
from redset import SortedSet
client = redis.Redis(unix_socket_path=sys.argv[1], retry=None)
jobs = SortedSet(client, "jobs")
writer = jobs.buffered(max_delay=1000)
writer.__enter__()
for number in range(900):
    writer.add(str(number))
"""
ASYNC_PROGRAM = """
import asyncio, sys, redis.asyncio
from redset.asyncio import SortedSet

async def main():
    client = redis.asyncio.Redis(unix_socket_path=sys.argv[1], retry=None)
    jobs = SortedSet(client, "jobs")
    writer = jobs.buffered(max_delay=1000)
    await writer.__aenter__()
    for number in range(900):
        await writer.add(str(number))
"""
RUN = "asyncio.run(main())"
#: Ends it without its tasks.
STOP = "loop = asyncio.new_event_loop(); loop.run_until_complete(main()); loop.close()"


def run(program: str, path: str) -> str:
    """Return the output of a program at its end."""
    return children.run("-c", program, path).err


@pytest.mark.parametrize("program", [PROGRAM, ASYNC_PROGRAM + RUN], ids=["sync", "asyncio"])
def test_a_writer_that_is_open_at_the_interpreters_exit_is_written(
    any_server: servers.Server, program: str
) -> None:
    assert "not written" not in run(program, any_server.unix)
    assert any_server.raw.zcard("jobs") == 900
    assert any_server.raw.hget("jobs:{jobs}:counts", "added") == b"900"


@pytest.mark.parametrize(
    "program", [PROGRAM, ASYNC_PROGRAM + RUN, ASYNC_PROGRAM + STOP], ids=["sync", "run", "stop"]
)
def test_items_that_are_unwritten_at_the_interpreters_exit_are_logged(
    tmp_path: Any, program: str
) -> None:
    said = run(program, str(tmp_path / "no-server"))
    found = [line for line in said.splitlines() if "of 'jobs' were not written" in line]
    assert len(found) == 1, said
    assert found[0].startswith("900 items"), said


def test_an_interrupt_while_it_waits_loses_no_accepted_item(
    any_server: servers.Server,
) -> None:
    with Proxy(any_server) as proxy:
        client = redis.Redis(port=proxy.port)
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        proxy.rule = slow(b"ZADD", 0.2)
        alarm = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
        accepted = 0
        with pytest.raises(KeyboardInterrupt), jobs.buffered(10, 0, 20) as writer:
            alarm.start()
            while True:
                writer.add(f"{accepted:04}", accepted)
                accepted += 1
        assert list(jobs)[:accepted] == [f"{number:04}" for number in range(accepted)]
        assert jobs.size() in (accepted, accepted + 1)
        client.close()


def test_an_interrupt_while_it_is_left_lets_it_go_on(
    any_server: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy(any_server) as proxy:
        client = redis.Redis(port=proxy.port)
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        go = threading.Event()
        proxy.rule = held_up(b"ZADD", go)
        alarm = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt), jobs.buffered(max_delay=LONG) as writer:
            for number in range(1500):
                writer.add(f"{number:04}", number)
            wait = writer._done.wait

            def left() -> None:
                alarm.start()
                wait()

            monkeypatch.setattr(writer._done, "wait", left)
        assert any_server.raw.zcard("jobs") < 1500
        go.set()
        assert wait(40)
        assert any_server.raw.zcard("jobs") == 1500
        client.close()


INTERRUPTED = """
import contextlib, sys, redis
from redset import SortedSet
jobs = SortedSet(redis.Redis(port=int(sys.argv[1])), "jobs")
with contextlib.suppress(KeyboardInterrupt), jobs.buffered(max_delay=1000) as writer:
    for number in range(900):
        writer.add(str(number))
    print("leaving", flush=True)
print("interrupted", flush=True)
"""


def test_a_program_that_ends_after_an_interrupted_exit_writes_first(
    any_server: servers.Server,
) -> None:
    """An interrupted join of a thread takes it for ended, and ends no program later."""
    go = threading.Event()
    with Proxy(any_server) as proxy:
        proxy.rule = held_up(b"ZADD", go)
        with children.Child("-c", INTERRUPTED, str(proxy.port)) as child:
            assert child.line() == "leaving"
            until(lambda: b"ZADD" in proxy.names())
            child.send_signal(signal.SIGINT)
            assert child.line() == "interrupted"
            go.set()
            assert child.check().err == ""
    assert any_server.raw.zcard("jobs") == 900


# --- asyncio


@contextlib.asynccontextmanager
async def behind(server: servers.Server, rule: Any) -> Any:
    """An asyncio set with a proxy before its server."""
    with Proxy(server) as proxy:
        proxy.rule = rule
        client = redis.asyncio.Redis(port=proxy.port)
        yield redset.asyncio.SortedSet(client, "jobs")
        await servers.aclose(client)


def test_a_cancelled_block_is_written_first(any_server: servers.Server) -> None:
    async def main() -> None:
        async with behind(any_server, slow(b"ZADD", 0.2)) as jobs:
            accepted = 0

            async def produce() -> None:
                nonlocal accepted
                async with jobs.buffered(10, 0, 20) as writer:
                    while True:
                        await writer.add(f"{accepted:04}", accepted)
                        accepted += 1

            task = asyncio.create_task(produce())
            while accepted < 20:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await jobs.size() == accepted >= 20

    asyncio.run(main())


def test_a_writer_that_is_cancelled_while_it_is_left_goes_on(any_server: servers.Server) -> None:
    async def main() -> None:
        go, leaves = threading.Event(), asyncio.Event()
        async with behind(any_server, held_up(b"ZADD", go)) as jobs:

            async def produce() -> None:
                async with jobs.buffered(max_delay=LONG) as writer:
                    for number in range(1500):
                        await writer.add(str(number))
                    leaves.set()

            task = asyncio.create_task(produce())
            await leaves.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await jobs.size() < 1500
            go.set()
            end = time.monotonic() + 40
            while await jobs.size() < 1500:
                assert time.monotonic() < end
                await asyncio.sleep(0.02)

    asyncio.run(main())


def test_a_loop_that_is_closed_in_the_middle_of_a_step_gets_all_of_it_written(
    any_server: servers.Server,
) -> None:
    async def main() -> None:
        # Not left: asyncio.run ends the tasks that run after this.
        client = any_server.asyncio_client()
        writer = redset.asyncio.SortedSet(client, "jobs").buffered(max_items=10)
        await writer.__aenter__()
        for number in range(3000):
            await writer.add(f"{number:04}", number)
        closing.append(writer)

    closing: list[Any] = []
    asyncio.run(main())
    assert any_server.raw.zcard("jobs") == 3000
    with pytest.raises(RuntimeError, match="was left"):
        asyncio.run(closing[0].add("more"))


def test_a_writer_whose_task_was_cancelled_at_once_writes_what_it_accepted(
    any_server: servers.Server,
) -> None:
    async def main() -> None:
        client = any_server.asyncio_client()
        jobs = redset.asyncio.SortedSet(client, "jobs")
        with pytest.raises(asyncio.CancelledError):
            async with jobs.buffered(5, LONG, 5) as writer:
                for number in range(5):
                    await writer.add(str(number))
                for task in asyncio.all_tasks():
                    task.cancel()
                await asyncio.sleep(0)
        assert await jobs.size() == 5
        with pytest.raises(RuntimeError, match="was left"):
            await writer.add("more")
        await servers.aclose(client)

    asyncio.run(main())


def test_items_that_an_interrupted_task_accepted_are_reported_as_unwritten(
    any_server: servers.Server, caplog: pytest.LogCaptureFixture
) -> None:
    """An interrupt that strikes the writer's task itself ends it, and the loop."""

    class Interrupting(redset.asyncio.SortedSet[str]):
        async def _run(self, *_: Any) -> Any:
            raise KeyboardInterrupt

    async def main() -> None:
        jobs: Any = Interrupting(any_server.asyncio_client(), "jobs")
        async with jobs.buffered() as writer:
            for number in range(10):
                await writer.add(str(number))

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert "10 items of 'jobs' were not written" in caplog.text


@pytest.mark.parametrize("face", ["sync", "asyncio"])
def test_a_failure_after_an_interrupted_exit_is_logged_at_once(
    any_server: servers.Server,
    face: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = len(writers._open)

    async def main() -> None:
        began, go = asyncio.Event(), asyncio.Event()

        class Failing(redset.asyncio.SortedSet[str]):
            async def _run(self, *_: Any) -> Any:
                began.set()
                await go.wait()
                raise ValueError("no server today")

        async def produce() -> None:
            async with Failing(any_server.asyncio_client(), "jobs").buffered() as writer:
                await writer.add("a")

        task = asyncio.create_task(produce())
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not written_to(caplog)
        go.set()
        while not written_to(caplog):
            await asyncio.sleep(0.01)

    if face == "asyncio":
        asyncio.run(main())
    else:
        began, go = threading.Event(), threading.Event()

        class Failing(SortedSet[str]):
            def _run(self, *_: Any) -> Any:
                began.set()
                go.wait()
                raise ValueError("no server today")

        writer = Failing(any_server.client(), "jobs").buffered()
        monkeypatch.setattr(writer._done, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt), writer:
            writer.add("a")
        assert not written_to(caplog)
        go.set()
        until(lambda: bool(written_to(caplog)))
    assert written_to(caplog) == ["1 items of 'jobs' were not written: no server today"]
    assert len(writers._open) == others


def written_to(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return redset's log records."""
    return [record.message for record in caplog.records if record.name.startswith("redset")]


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_signal_handler_may_add_while_its_thread_does(
    any_server: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs")
    with jobs.buffered() as writer:
        put = writer._put

        def putting(*one: Any) -> bool:
            monkeypatch.setattr(writer, "_put", put)
            signal.raise_signal(signal.SIGALRM)
            return put(*one)

        before = signal.signal(signal.SIGALRM, lambda *_: writer.add("from the handler"))
        try:
            monkeypatch.setattr(writer, "_put", putting)
            writer.add("from the thread")
        finally:
            signal.signal(signal.SIGALRM, before)
    assert set(jobs) == {"from the handler", "from the thread"}


@pytest.mark.parametrize(("remember", "limit"), [(False, 4), (False, 40), (True, 4)])
def test_no_add_of_a_signal_handler_or_around_it_is_lost(
    any_server: servers.Server, remember: bool, limit: int
) -> None:
    """A handler runs wherever one can, also at the limit. It adds, or acknowledges."""
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs", remember=remember)
    jobs.add_many(map("leased {}".format, range(300)))
    leases = list(jobs.lease(300, ttl=1000))
    numbers = itertools.count()
    acked, added = [], []

    def call(writer: Any) -> None:
        number = next(numbers)
        if number % 9 == 7 and leases:
            lease = leases.pop()
            writer.ack(lease)
            acked.append(lease.item)
        elif number % 9 == 3:
            pair = [f"{number} a", f"{number} b"]
            writer.add_many([*pair, *pair])
            added.extend(pair)
        elif number % 9 == 5 and acked:
            item = acked.pop()
            writer.add(item, number)
            added.extend([] if remember else [item])
        else:
            writer.add(f"{number}", number if number % 9 else None)
            added.append(f"{number}")

    with jobs.buffered(max_items=limit // 2, max_pending=limit) as writer:

        def interrupt(frame: Any, event: str, _: Any) -> None:
            # A handler runs at the start of a function, or after a call of a builtin one.
            here = event in ("call", "c_return") and frame.f_globals is vars(writers)
            if here and next(places) in where:
                sys.setprofile(None)
                call(writer)
                sys.setprofile(interrupt)

        for first in [*range(60)] * 2:
            where, places = range(first, first + 8), itertools.count()
            sys.setprofile(interrupt)
            try:
                call(writer)
            finally:
                sys.setprofile(None)
            for _ in range(7):
                call(writer)
    assert sorted(jobs) == sorted(added)
    assert len(list(jobs.leased())) == len(leases)
    assert writer_of(writer)._pending() == 0


def test_an_add_that_a_signal_handler_interrupts_is_written_in_time(
    any_server: servers.Server,
) -> None:
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs")

    class Queue(deque[Any]):
        def append(self, one: Any) -> None:
            super().append(one)
            if not adding:
                adding.append(True)
                writer.add("from the handler")

    adding: list[bool] = []
    with jobs.buffered(max_delay=0.01) as writer:
        writer._queue = Queue()
        writer.add("from the thread", 1)
        until(lambda: jobs.size() == 2)


def test_a_destructor_of_an_item_may_add_at_the_limit(any_server: servers.Server) -> None:
    """It runs in the thread of the writer, which makes the room."""
    jobs: SortedSet[Any] = SortedSet(any_server.client(), "jobs", serializer=JSONSerializer())

    class Page(dict[str, int]):
        def __del__(self) -> None:
            writer.add_many([{"next": self["page"]}, {"last": self["page"]}])

    with jobs.buffered(max_pending=2) as writer:
        for number in range(20):
            writer.add(Page(page=number))
        until(lambda: writer_of(writer)._accepted == 60)
    assert jobs.size() == 60


def test_a_serializer_that_is_replaced_in_mid_stream_serialises_the_later_items(
    make_set: Maker,
) -> None:
    jobs = make_set()
    with jobs.buffered() as writer:
        for item in ("a", "b", "c"):
            writer.add(item)
        jobs.serializer, jobs.scorer = json, len
        for item in ("d", "e"):
            writer.add(item)
        writer.add("four", 4)
    expected = [("a", 0), ("b", 0), ("c", 0), ('"d"', 1), ('"e"', 1), ('"four"', 4)]
    assert scored(make_set()) == expected


def test_adding_gives_other_tasks_their_turn(any_server: servers.Server) -> None:
    async def main() -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        client = any_server.asyncio_client()
        jobs: Any = redset.asyncio.SortedSet(client, "jobs", serializer=JSONSerializer())
        async with jobs.buffered(10**6, LONG, 10**6) as writer:
            for number in range(5000):
                await writer.add({"number": number})
            assert turns >= 20
        task.cancel()
        await servers.aclose(client)

    asyncio.run(main())


# --- in bulk


@every_option
def test_a_bulk_ends_as_the_same_adds_one_after_another(
    make_set: Maker, case: tuple[str, str, str], options: dict[str, Any]
) -> None:
    pick = random.Random(f"{case} {options} in bulk")
    written, added = make_set(name="written", **options), make_set(name="added", **options)
    choices: list[dict[str, bool]] = [{}, {}, {}, {"nx": True}, {"lt": True}]
    if "remember" in options:
        choices += [{"again": True}, {"remember": False}]
    with written.buffered(max_items=60, max_delay=LONG) as writer:
        for turn in range(30):
            names = [f"/{pick.randrange(60)}" for _ in range(pick.randrange(12))]
            keyed = "key" in options
            items: list[Any] = [{"url": each, "turn": turn} if keyed else each for each in names]
            scores: Any = pick.choice((None, turn % 5, [pick.randrange(5) for _ in items]))
            flags = pick.choice(choices)
            writer.add_many(items, scores, **flags)
            added.add_many(items, scores, **flags)
            if pick.random() < 0.2:
                one = {"url": "/one"} if keyed else "/one"
                writer.add(one, turn)
                added.add(one, turn)
    assert scored(written) == scored(added)


def test_the_items_of_a_bulk_are_serialised_at_once(make_set: Maker) -> None:
    jobs = make_set(key="url", scorer="depth")
    page = {"url": "/a", "depth": 1}
    with jobs.buffered(max_delay=LONG) as writer:
        writer.add_many([page, {"url": "/b", "depth": 2}])
        page.clear()
    assert jobs.take(5, with_scores=True) == [
        ({"url": "/a", "depth": 1}, 1.0),
        ({"url": "/b", "depth": 2}, 2.0),
    ]


def test_a_bulk_takes_any_iterable_and_the_times_of_adding(make_set: Maker) -> None:
    jobs = make_set()
    with jobs.buffered() as writer:
        writer.add_many(f"{number:03}" for number in range(600))
        writer.add_many({"a": 1}.keys(), {"a": 1}.values())
        writer.add_many([])
    assert jobs.size() == 601 and jobs.score("a") == 1
    times = make_set(TimeSortedSet, "times")
    with times.buffered() as writer:
        writer.add_many(["first", "second"])
    assert times.take(5) == ["first", "second"]
    later = make_set(ScheduledSet, "later")
    with later.buffered() as writer:
        writer.add_many(["now", "as well"])
        writer.add_many(["far"], time.time() + 1000)
    assert later.take(5) == ["now", "as well"] and later.size() == 1


def test_a_bad_item_of_a_bulk_is_named_and_those_before_it_are_accepted(make_set: Maker) -> None:
    jobs = make_set(key="url")
    good = [{"url": f"/{number}"} for number in range(300)]
    bad: list[tuple[Any, type[Exception], str]] = [
        ([*good, {"url": 1.5}, {"url": "/z"}], TypeError, "item 300: key must be"),
        ([{"url": "/good"}, {}], ValueError, "item 1: .* has no field 'url'"),
        ([{"url": "/fine"}, {"url": "/x", "x": object()}], TypeError, "item 1: "),
    ]
    with jobs.buffered() as writer:
        for items, kind, says in bad:
            with pytest.raises(kind, match=says) as caught:
                writer.add_many(items)
            assert not isinstance(caught.value, AddError)
        with pytest.raises(ValueError, match="item 0: score must not be NaN"):
            writer.add_many([{"url": "/y"}], [float("nan")])
        with pytest.raises(ValueError, match="score ended before items"):
            writer.add_many([{"url": "/one"}, {"url": "/two"}], [1])
        with pytest.raises(ValueError, match="score must not be NaN"):
            writer.add_many([{"url": "/y"}], float("nan"))
        for wrong in ("text", b"bytes", {"url": "/y"}, 5):
            with pytest.raises(TypeError, match="items must be an iterable"):
                writer.add_many(wrong)
        with pytest.raises(ValueError, match="nx contradicts"):
            writer.add_many([], nx=True, gt=True)
    assert jobs.size() == 303 and {"url": "/good"} in jobs and {"url": "/one"} in jobs


def test_a_bulk_waits_if_the_server_is_slower(
    proxy: Proxy, make: Maker, any_server: servers.Server
) -> None:
    jobs = make()
    proxy.rule = slow(b"ZADD", 0.01)
    with jobs.buffered(max_items=10, max_delay=LONG, max_pending=30) as writer:
        for start in range(0, 200, 50):
            writer.add_many([f"{number:03}" for number in range(start, start + 50)], start)
            assert start + 50 - any_server.raw.zcard("jobs") <= 30
    assert jobs.size() == 200


class Counting(JSONSerializer):
    """Counts what it serialises."""

    number = 0

    def dumps(self, obj: Any) -> bytes:
        self.number += 1
        return super().dumps(obj)


@pytest.mark.usefixtures("lasting")
def test_known_items_of_a_bulk_are_neither_serialised_nor_sent(make: Maker, proxy: Proxy) -> None:
    serializer = Counting()
    jobs = make(key="url", remember=True, serializer=serializer)
    items = [{"url": f"/{number}"} for number in range(100)]
    jobs.add_many(items)
    assert jobs.add_many(items).refused == 100  # the table has them now
    seen: list[int] = []
    proxy.rule = lambda command: seen.append(sum(map(len, command)))
    serializer.number = 0
    with jobs.buffered(max_delay=LONG) as writer:
        writer.add_many([*items, {"url": "/new"}, *items])
    assert serializer.number == 1 and sum(seen) < 2000
    assert jobs.size() == 101
    with jobs.buffered(max_delay=LONG) as writer:
        writer.add_many(items, again=True)
    assert serializer.number == 101


def test_queued_items_of_a_bulk_are_neither_serialised_nor_written_again(make: Maker) -> None:
    dumped: list[Any] = []

    class Counting(JSONSerializer):
        def dumps(self, obj: Any) -> bytes:
            dumped.append(obj)
            return super().dumps(obj)

    page = [{"url": f"/{number}"} for number in (0, 1, 0, 2)]
    jobs = make(key="url", remember=True, serializer=Counting())
    with jobs.buffered(max_delay=LONG) as writer:
        for _ in range(3):
            writer.add_many(page, 1)
        writer.add_many(page, 2, nx=True)
        assert dumped == [page[0], page[1], page[3]]
    assert jobs.size() == 3
    assert set(jobs.scores(page)) == {1}
    # Where an add changes a queued item, or makes a known one new, each is written.
    for options, flags in (({}, {}), ({"remember": True}, {"again": True})):
        jobs.clear()
        jobs = make(key="url", serializer=Counting(), **options)
        dumped.clear()
        with jobs.buffered(max_delay=LONG) as writer:
            writer.add_many(page, 1, **flags)
            writer.add_many(page, 2, **flags)
        assert len(dumped) == 8
        assert set(jobs.scores(page)) == {2}


def test_an_item_is_written_again_if_it_may_have_been_forgotten_since(make: Maker) -> None:
    jobs = make(remember=True)
    with jobs.buffered(max_delay=0) as writer:
        for _ in range(5):
            writer.add_many(["a", "b"])
            until(lambda: jobs.size() == 2)
            assert jobs.discard_many(["a", "b"], forget=True) == 2
        writer.add_many(["a", "b"])
    assert jobs.size() == 2


@pytest.mark.usefixtures("lasting")
def test_an_error_counts_the_known_items_of_a_bulk_where_they_stand(make: Maker) -> None:
    jobs = make(remember=True, max_size=3)
    known = [f"/{number}" for number in range(40)]
    filled = make(remember=True)
    filled.add_many(known)
    assert filled.add_many(known).refused == 40
    filled.take(40)
    assert jobs.add_many(known).refused == 40
    with pytest.raises(Full) as caught, jobs.buffered(max_delay=LONG) as writer:
        writer.add_many([*known, "a", *known[:5], "b", "c", "d"], 1)
    error = caught.value
    assert isinstance(error, AddError)
    assert [item for item, _ in error.unwritten] == ["a", "b", "c", "d"]
    assert error.resume_at == 40 and error.result.refused == 40


def test_what_is_known_is_asked_about_once_something_is_acknowledged(make: Maker) -> None:
    jobs = make(remember=True)
    known = [f"/{number}" for number in range(40)]
    jobs.add_many(known)
    assert jobs.add_many(known).refused == 40
    [lease] = jobs.lease()
    with jobs.buffered(max_delay=LONG) as writer:
        writer.add_many(known)
        writer.ack(lease)
        writer.add_many([*known, "new"])
        assert writer_of(writer)._sent.memory.tabled is False
    assert jobs.size() == 40 and jobs.stats().leased == 0


def writer_of(writer: Any) -> Any:
    return getattr(writer, "face", writer)


def test_an_item_of_a_bulk_that_is_added_behind_its_ack_is_there_again(make_set: Maker) -> None:
    jobs = make_set()
    jobs.add_many(["a", "b"])
    leases = list(jobs.lease(2))
    with jobs.buffered(max_delay=LONG) as writer:
        writer.ack(leases)
        writer.add_many(["c", "a"], 7)
    assert scored(jobs) == [("a", 7.0), ("c", 7.0)]


def test_an_asyncio_writer_takes_async_iterables_and_gives_others_a_turn(
    any_server: servers.Server,
) -> None:
    async def main() -> None:
        client, turns = any_server.asyncio_client(), 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async def some() -> Any:
            for number in range(600):
                yield f"{number:03}"

        jobs: Any = redset.asyncio.SortedSet(client, "jobs")
        async with jobs.buffered(10**6, LONG, 10**6) as writer:
            await writer.add_many(some())
            task = asyncio.create_task(other())
            for start in range(0, 5000, 20):
                await writer.add_many([f"{start} {number}" for number in range(20)])
            assert turns >= 10
            task.cancel()
        assert await jobs.size() == 5600
        await servers.aclose(client)

    asyncio.run(main())
