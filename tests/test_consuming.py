"""The worker loop: every item is handled, settled with its new items, and released in the end."""

from __future__ import annotations

import _thread
import asyncio
import concurrent.futures
import contextlib
import datetime
import errno
import gc
import logging
import math
import re
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.retry as redis_retry
import servers
from load import Load
from options import every_option, made
from redis.backoff import ConstantBackoff, NoBackoff

import redset.asyncio
from redset import Consumed, Reject, Retry, SortedSet
from redset._faces import failures
from redset._faces import worker as working
from redset._faces.failures import is_transient
from redset._faces.worker import _Pace
from redset._operations import exchanging

Maker = Callable[..., Any]
P = "jobs:{jobs}"


def name_of(item: Any) -> str:
    return item["url"] if isinstance(item, dict) else str(item)


def nothing(item: Any) -> None:
    """Handle an item that leads nowhere."""


# --- handled items and new items


@every_option
@pytest.mark.parametrize("concurrency", [1, 4])
def test_every_queued_and_every_new_item_is_handled_once(
    make_set: Maker, options: dict[str, Any], concurrency: int
) -> None:
    jobs = make_set(**options)
    jobs.add(made(options, ""))
    handled: list[str] = []

    def handler(item: Any) -> Any:
        name = name_of(item)
        handled.append(name)
        return [made(options, name + letter) for letter in "ab"] if len(name) < 5 else None

    consumed = jobs.consume(handler, batch=7, concurrency=concurrency, until_finished=True)
    assert consumed == Consumed(done=63, failed=0, lost=0)
    assert len(handled) == len(set(handled)) == 63
    assert jobs.finished() and jobs.dead.size() == 0


@every_option
def test_more_new_items_than_a_step_takes_are_added(
    make_set: Maker, options: dict[str, Any]
) -> None:
    jobs = make_set(**options)
    jobs.add(made(options, "root"))

    def handler(item: Any) -> Any:
        if name_of(item) != "root":
            return None
        return (made(options, f"{number:04}") for number in range(1100))

    assert jobs.consume(handler, batch=200, until_finished=True) == (1101, 0, 0)


def test_large_items_can_be_looked_up(make_set: Maker) -> None:
    jobs = make_set()
    jobs.add("root")

    def handler(item: str) -> Any:
        return [letter * 700_000 for letter in "abc"] if item == "root" else ()

    assert jobs.consume(handler, until_finished=True) == (4, 0, 0)


def test_a_lease_call_of_many_steps(make_set: Maker) -> None:
    jobs = make_set()
    jobs.add_many(f"{number:04}" for number in range(950))
    assert jobs.consume(nothing, batch=400, concurrency=2, until_finished=True) == (950, 0, 0)


class Done:
    """A lease that is done, with the new items that it led to."""

    def __init__(self, member: bytes, token: bytes, items: list[str]) -> None:
        self.member, self.token, self.items = member, token, items
        self.settled = False


def test_items_of_many_small_calls_are_settled_with_what_they_led_to(
    any_server: servers.Server,
) -> None:
    """More calls than one step has room for: each is a group of it."""
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs")
    jobs.add_many(f"{number:03}" for number in range(120))
    held = [lease for _ in range(120) for lease in jobs.lease(1)]
    assert len({lease.token for lease in held}) == 120
    done = [Done(lease.member, lease.token, [f"of {lease.item}"]) for lease in held]
    exchange = exchanging.Exchange(done, [], 0, 1000, False)
    jobs._run(exchanging.exchange(jobs._ctx, exchange))
    assert (exchange.acknowledged, exchange.error, exchange.unfit) == (120, None, [])
    assert jobs.size() == 120 and jobs.stats().leased == 0


# --- failures


class When:
    """An event that is set once a condition holds."""

    def __init__(self, holds: Callable[[], bool]) -> None:
        self.is_set = holds


@every_option
def test_a_job_that_raises_is_retried_later_and_dies_at_last(
    make_set: Maker,
    raw: Any,
    options: dict[str, Any],
    caplog: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert failures.FIRST == 1
    # So long that the item does not come back while this runs.
    monkeypatch.setattr(failures, "FIRST", 20)
    jobs = make_set(**options, max_attempts=2)
    jobs.add_many([made(options, "good"), made(options, "bad")], 7)
    tried: list[str] = []

    def handler(item: Any) -> None:
        tried.append(name_of(item))
        if name_of(item) == "bad":
            raise RuntimeError("no such page")

    before = time.time()
    with caplog.at_level(logging.WARNING, "redset"):
        stop = When(lambda: len(tried) == 2)
        assert jobs.consume(handler, batch=10, stop=stop) == (1, 1, 0)
    assert "the handler failed for an item of 'jobs', attempt 1: RuntimeError" in caplog.text
    [(item, score, attempts, expires, *_)] = jobs.leased()
    assert (name_of(item), score, attempts) == ("bad", 7.0, 1)
    assert before + 9.9 < expires < time.time() + 20.1
    raw.zadd(f"{P}:leased", dict.fromkeys(raw.zrange(f"{P}:leased", 0, -1), 1))
    assert jobs.consume(handler, until_finished=True) == (0, 1, 0)
    assert Counter(tried) == {"good": 1, "bad": 2}
    [letter] = jobs.dead
    assert letter.reason == "RuntimeError: no such page" and letter.attempts == 2
    assert "1 items of 'jobs' moved to dead letters: RuntimeError" in caplog.text


def test_a_handler_chooses_the_retry_delay_or_rejects(
    make_set: Maker, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So long that the item does not come back while this runs.
    monkeypatch.setattr(failures, "FIRST", 20)
    # A name of its own: what a set of another test still says is not asked about.
    jobs = make_set(name="chosen", max_attempts=5)
    jobs.add_many(["busy", "later", "soon", "wrong", "worse"])
    tried: list[str] = []

    def handler(item: str) -> None:
        tried.append(item)
        if item == "later":
            raise Retry(datetime.timedelta(minutes=10))
        if item == "soon":
            raise Retry
        if item == "wrong":
            raise Reject("no such page")
        try:
            raise ZeroDivisionError("by 0")
        except ZeroDivisionError as error:
            if item == "busy":
                raise Retry(600) from error
            raise Reject from error

    before = time.time()
    assert jobs.consume(handler, batch=10, stop=When(lambda: len(tried) == 5)) == (0, 5, 0)
    waiting = {item: expires - before for item, _, _, expires, *_ in jobs.leased()}
    assert waiting.keys() == {"busy", "later", "soon"}
    assert 599 < waiting["busy"] < 620 and 599 < waiting["later"] < 620
    assert 9.9 < waiting["soon"] < 40
    assert {(letter.raw, letter.reason) for letter in jobs.dead} == {
        (b"wrong", "no such page"),
        (b"worse", "ZeroDivisionError: by 0"),
    }
    # The death is an error in the log; a Reject of the handler is not a failure.
    said = [(each.levelname, each.getMessage()) for each in caplog.records]
    assert [each for each in said if "'chosen'" in each[1]] == [
        ("ERROR", "1 items of 'chosen' moved to dead letters: ZeroDivisionError: by 0"),
        ("ERROR", "1 items of 'chosen' moved to dead letters: no such page"),
    ]


def test_a_retry_keeps_the_error_that_it_was_raised_for(make_set: Maker) -> None:
    jobs = make_set(max_attempts=1)
    jobs.add("a")

    def handler(item: str) -> None:
        try:
            raise ZeroDivisionError("by 0")
        except ZeroDivisionError:
            raise Retry(600)  # noqa: B904

    assert jobs.consume(handler, until_finished=True) == (0, 1, 0)
    assert [letter.reason for letter in jobs.dead] == ["ZeroDivisionError: by 0"]


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_exception_that_has_no_text_is_one_as_well(make_set: Maker) -> None:
    jobs = make_set(max_attempts=1)
    jobs.add("a")

    def handler(item: str) -> None:
        raise Speechless

    assert jobs.consume(handler, until_finished=True) == (0, 1, 0)
    assert [letter.reason for letter in jobs.dead] == ["Speechless"]


class Deferred:
    """As Twisted's, which is not awaited by a plain handler."""

    def addCallback(self, callback: Any) -> None: ...


async def coroutine(item: str) -> None: ...


async def pages(item: str) -> Any:
    yield item


@pytest.mark.parametrize(
    "handler",
    [
        lambda item: coroutine(item),
        lambda item: concurrent.futures.Future(),
        lambda item: asyncio.Future(loop=asyncio.new_event_loop()),
        lambda item: Deferred(),
        pages,
    ],
    ids=["coroutine", "future", "asyncio future", "deferred", "async generator"],
)
def test_a_plain_handler_that_returns_a_coroutine_ends_consume_and_releases_its_item(
    any_server: servers.Server, handler: Any
) -> None:
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs", max_attempts=1)
    jobs.add_many(["a", "b"])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(TypeError, match="handler must return None or an iterable of new items"):
            jobs.consume(handler, until_finished=True)
        gc.collect()
    assert not [each for each in said if "never awaited" in str(each.message)]
    assert jobs.stats()[:4] == (2, 2, 0, 0)
    assert [lease.attempts for lease in jobs.lease(2)] == [0, 0]


def test_a_handler_of_asyncio_that_returned_a_thread_s_future_ends_it(
    any_server: servers.Server,
) -> None:
    async def main() -> None:
        client = redis.asyncio.Redis(unix_socket_path=any_server.unix)
        jobs = redset.asyncio.SortedSet(client, "jobs")
        await jobs.add("a")
        with pytest.raises(
            TypeError, match=r"got <Future .*\(Future\): .* await it in the handler"
        ):
            await jobs.consume(lambda item: concurrent.futures.Future())
        assert (await jobs.stats())[:4] == (1, 1, 0, 0)
        await servers.aclose(client)

    asyncio.run(main())


@pytest.mark.parametrize("found", ["text", b"bytes", {"a": 1}])
def test_a_handler_that_returns_a_bare_item_makes_a_dead_letter_and_ends_consume(
    make_set: Maker, found: Any
) -> None:
    jobs = make_set()
    jobs.add_many(["a", "b"], [1, 2])
    with pytest.raises(TypeError, match="put one new item in a list"):
        jobs.consume(lambda item: found, until_finished=True)
    [letter] = jobs.dead
    assert letter.raw == b"a"
    assert letter.reason.startswith("TypeError: handler must return None or an iterable")
    assert (jobs.size(), jobs.stats().leased) == (1, 0)


@pytest.mark.parametrize("found", [True, 7, object()])
def test_a_handler_that_returns_a_result_ends_consume_and_its_item_is_done(
    make_set: Maker, found: Any
) -> None:
    jobs = make_set()
    jobs.add_many(["a", "b"], [1, 2])
    with pytest.raises(TypeError, match="results are not stored"):
        jobs.consume(lambda item: found, until_finished=True)
    assert jobs.take(2) == ["b"]
    assert jobs.dead.size() == jobs.stats().leased == 0


def test_a_new_item_that_cannot_be_added_fails_its_job_alone(make_set: Maker) -> None:
    jobs = make_set(key="url", max_attempts=1)
    jobs.add_many([{"url": name} for name in ("bad", "good", "worse", "fine")])

    def handler(item: Any) -> Any:
        if item["url"] in ("bad", "worse"):
            return [{"url": "of the bad"}, {"no": "url"}]
        return [{"url": "of the " + item["url"]}] if item["url"] in ("good", "fine") else None

    assert jobs.consume(handler, until_finished=True) == (4, 2, 0)
    assert sorted(letter.raw for letter in jobs.dead) == [b'{"url":"bad"}', b'{"url":"worse"}']


def test_a_full_set_lets_the_item_wait_without_an_attempt(make_set: Maker, caplog: Any) -> None:
    jobs = make_set(max_size=2)
    jobs.add("a")
    before = time.time()
    with caplog.at_level(logging.WARNING, "redset"):
        stop = When(lambda: "were refused, since the set or server is full" in caplog.text)
        assert jobs.consume(lambda item: ["b", "c", "d"], batch=10, stop=stop) == (0, 0, 0)
    [(item, _, attempts, expires, *_)] = jobs.leased()
    assert (item, attempts, jobs.size()) == ("a", 0, 0)
    assert before + 2 < expires < time.time() + 6


def test_a_full_server_lets_the_item_wait_without_an_attempt(kind: str) -> None:
    with servers.start(kind) as server:
        jobs: SortedSet[str] = SortedSet(server.client(), "jobs")
        jobs.add_many(["a", "b"])

        tried: list[str] = []

        def handler(item: str) -> Any:
            server.raw.config_set("maxmemory", 1)
            tried.append(item)
            return ["c"] if item == "a" else None

        stop = When(lambda: len(tried) == 2)
        assert jobs.consume(handler, batch=10, stop=stop) == (1, 0, 0)
        server.raw.config_set("maxmemory", 0)
        assert [(item, attempts) for item, _, attempts, *_ in jobs.leased()] == [("a", 0)]


@pytest.mark.parametrize(("batch", "num"), [(12, 130), (700, 3)])
def test_a_full_server_lets_many_items_wait(kind: str, batch: int, num: int) -> None:
    """More requests than are in flight at a time. The first of them is refused."""
    with servers.start(kind) as server:
        jobs: SortedSet[str] = SortedSet(server.client(), "jobs")
        jobs.add_many(f"{number:02}" for number in range(24))
        stop, handled = threading.Event(), []

        def handler(item: str) -> Any:
            server.raw.config_set("maxmemory", 1)
            handled.append(item)
            if len(handled) == 24:
                stop.set()
            return [f"{item} {number}" for number in range(num)]

        assert jobs.consume(handler, batch=batch, stop=stop) == (0, 0, 0)
        server.raw.config_set("maxmemory", 0)
        assert sorted(handled) == sorted({*handled}) and len(handled) == 24
        assert [attempts for _, _, attempts, *_ in jobs.leased()] == [0] * 24
        assert jobs.size() == 0


@pytest.fixture(params=servers.REAL)
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    return request.param


def test_an_error_of_the_server_ends_it(make_set: Maker, raw: Any) -> None:
    jobs = make_set()
    jobs.add_many(["a", "b", "c"])

    def handler(item: str) -> None:
        if item == "a":
            raw.delete(f"{P}:calls")
            raw.set(f"{P}:calls", "no sorted set")

    with pytest.raises(Exception, match="WRONGTYPE"):
        jobs.consume(handler, batch=3, until_finished=True)
    raw.delete(f"{P}:calls")
    assert jobs.size() + jobs.stats().leased == 3


@contextlib.contextmanager
def refusing(server: servers.Server, how: str) -> Iterator[None]:
    """A server that refuses scripts."""
    raw = server.raw
    if how == "NOREPLICAS":
        raw.config_set("min-replicas-to-write", 1)
        try:
            yield
        finally:
            raw.config_set("min-replicas-to-write", 0)
        return
    raw.config_set("lua-time-limit", 1)

    def run() -> None:
        with contextlib.suppress(redis.ResponseError), server.client() as busy:
            busy.eval("while true do end", 0)

    def is_busy() -> bool:
        try:
            raw.ping()
        except redis.ResponseError as error:
            return str(error).startswith("BUSY")
        return False

    thread = threading.Thread(target=run)
    thread.start()
    until(is_busy)
    try:
        yield
    finally:
        raw.script_kill()
        thread.join(10)
        raw.config_set("lua-time-limit", 5000)


@pytest.mark.parametrize("how", ["NOREPLICAS", "BUSY"])
def test_a_server_that_refuses_for_a_while_is_waited_for(
    any_server: servers.Server, how: str, caplog: Any
) -> None:
    if (how, any_server.kind) == ("NOREPLICAS", "redis62"):
        pytest.skip("Redis 6.2 lets scripts write without replicas")
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs")
    jobs.add_many(f"{number:02}" for number in range(30))
    handled: list[str] = []
    with contextlib.ExitStack() as stack:

        def handler(item: str) -> Any:
            handled.append(item)
            if len(handled) == 10:
                stack.enter_context(refusing(any_server, how))
                threading.Timer(0.5, stack.close).start()
            return [f"of {item}"] if len(item) == 2 else None

        assert jobs.consume(handler, until_finished=True) == (60, 0, 0)
    assert len(set(handled)) == len(handled) == 60
    assert (
        "the server refuses requests of 'jobs' for a while; consume waits and tries again: "
        in caplog.text
    )


def test_asyncio_waits_for_a_server_that_refuses_for_a_while(any_server: servers.Server) -> None:
    async def main() -> None:
        client = redis.asyncio.Redis(unix_socket_path=any_server.unix)
        jobs = redset.asyncio.SortedSet(client, "jobs")
        await jobs.add_many(["a", "b", "c"])
        with contextlib.ExitStack() as stack:

            async def handler(item: str) -> None:
                if item == "b":
                    stack.enter_context(refusing(any_server, "BUSY"))
                    threading.Timer(0.4, stack.close).start()

            assert await jobs.consume(handler, until_finished=True) == (3, 0, 0)
        await servers.aclose(client)

    asyncio.run(main())


def test_a_server_that_refuses_for_too_long_ends_it(
    any_server: servers.Server, monkeypatch: Any, load: Load
) -> None:
    monkeypatch.setattr(working, "PATIENCE", 0.4)
    client = redis.Redis(unix_socket_path=any_server.unix, retry=redis_retry.Retry(NoBackoff(), 0))
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    jobs.add_many(["a", "b"])
    began = time.monotonic()
    with refusing(any_server, "BUSY"), pytest.raises(redis.ResponseError, match="BUSY"):
        jobs.consume(nothing)
    assert 0.4 < time.monotonic() - began < load.seconds(5)
    assert jobs.size() == 2


def test_the_client_s_own_retries_are_waited_for_as_well() -> None:
    def client(retries: int) -> redis.Redis:
        return redis.Redis(retry=redis_retry.Retry(ConstantBackoff(30), retries))

    assert working._retry_time(client(3)) == 90
    assert working._retry_time(client(1000)) == 30_000
    assert working._retry_time(client(0)) == 0
    assert working._retry_time(client(-1)) == math.inf
    assert working._retry_time(object()) == 0


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (redis.ResponseError("MISCONF Redis is configured to save RDB snapshots"), True),
        (redis.ResponseError("TRYAGAIN Multiple keys request during rehashing of slot"), True),
        (redis.ResponseError("CLUSTERDOWN The cluster is down"), True),
        (redis.exceptions.OutOfMemoryError("command not allowed when used memory"), True),
        (redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory"), True),
        (redis.ResponseError("Error running script (call to f_1): @user_script:3: "
                             "@user_script: 3: -NOREPLICAS Not enough good replicas"), True),
        (redis.ResponseError("WRONGTYPE Operation against a key holding OOM BUSY "), False),
        (redis.ResponseError("BUSYKEY Target key name already exists."), False),
        (redis.ConnectionError("Connection refused"), False),
        (ValueError("BUSY is no number"), False),
    ],
)  # fmt: skip
def test_these_refusals_pass(error: Exception, transient: bool) -> None:
    assert is_transient(error) == transient


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.EMFILE, "Too many open files"),
        RuntimeError("can't start new thread"),
        redis.exceptions.OutOfMemoryError("command not allowed when used memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_is_not_the_item_s_own_makes_no_dead_letter(
    make_set: Maker, error: Exception
) -> None:
    jobs = make_set(max_attempts=1)
    jobs.add_many(["a", "b"], [1, 2])
    tried: list[str] = []

    def handler(item: str) -> None:
        tried.append(item)
        raise error

    before = time.time()
    assert jobs.consume(handler, batch=10, stop=When(lambda: len(tried) == 2)) == (0, 0, 0)
    with contextlib.suppress(type(error)), jobs.lease() as batch:
        for _ in batch:
            raise error
    # Released, and not at once, or it would be tried all the time.
    rows = list(jobs.leased())
    assert sorted(row[0] for row in rows) == ["a", "b"] and jobs.dead.size() == 0
    assert all(row[2] == 0 and row[3] > before + 2 for row in rows)


# --- time


def test_a_slow_handler_keeps_its_item(make_set: Maker, raw: Any, load: Load) -> None:
    jobs = make_set()
    jobs.add("slow")
    ttl = load.seconds(0.6)
    expiries = []

    def handler(item: str) -> None:
        end = time.monotonic() + 2 * ttl
        while time.monotonic() < end:
            # Without a call that would give it back.
            expiries.append(
                max(score for _, score in raw.zrange(f"{P}:leased", 0, -1, False, True))
            )
            time.sleep(0.2)

    if isinstance(jobs, SortedSet):
        assert jobs.consume(handler, ttl=ttl, until_finished=True) == (1, 0, 0)
        assert len(set(expiries)) >= 3
        return

    async def slowly(item: str) -> None:
        await asyncio.sleep(2 * ttl)

    assert jobs.consume(slowly, ttl=ttl, until_finished=True) == (1, 0, 0)


def test_a_settlement_of_an_item_that_another_worker_holds_is_lost(
    make_set: Maker, raw: Any
) -> None:
    jobs = make_set()
    jobs.add("a")

    def handler(item: str) -> Any:
        raw.delete(f"{P}:leases", f"{P}:leased", f"{P}:calls")
        return ["found"]

    assert jobs.consume(handler, until_finished=True) == (0, 0, 1)
    assert jobs.size() == 0


def test_a_lost_lease_counts_once_however_often_it_is_renewed(
    any_server: servers.Server, load: Load
) -> None:
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs")
    jobs.add("a")

    def handler(item: str) -> None:
        any_server.raw.delete(f"{P}:leases", f"{P}:leased", f"{P}:calls")
        time.sleep(2.5 * ttl)

    ttl = load.seconds(0.4)
    assert jobs.consume(handler, ttl=ttl, until_finished=True) == (0, 0, 1)


def test_a_lost_lease_takes_none_of_the_others_with_it(
    any_server: servers.Server, load: Load
) -> None:
    """One is cancelled while it is handled; those that were leased with it are renewed on."""
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs")
    jobs.add_many(["a", "b", "c"], [1, 2, 3])
    ttl = load.seconds(0.6)

    def handler(item: str) -> None:
        if item == "a":
            any_server.raw.hdel(f"{P}:leases", "a")
            any_server.raw.zrem(f"{P}:leased", "a")
            time.sleep(2.5 * ttl)

    assert jobs.consume(handler, ttl=ttl, until_finished=True) == (2, 0, 1)
    assert jobs.dead.size() == jobs.stats().leased == 0


def test_an_item_is_kept_while_much_that_it_led_to_is_added(
    any_server: servers.Server, load: Load
) -> None:
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs")
    jobs.add("much")
    other: SortedSet[str] = SortedSet(any_server.client(), "jobs")
    stop = threading.Event()
    ttl = load.seconds(0.4)

    def handler(item: str) -> Any:
        stop.set()
        return [f"found {number:06}" for number in range(80_000)]

    def gives_back() -> None:
        while not stop.wait(0.01) or thread.is_alive():
            other.finished()

    consumed = []
    thread = threading.Thread(
        target=lambda: consumed.append(jobs.consume(handler, ttl=ttl, stop=stop)), daemon=True
    )
    thread.start()
    gives_back()
    assert consumed == [(1, 0, 0)]
    assert jobs.size() == 80_000


def test_a_stall_longer_than_the_leases_leaves_no_item_behind(any_server: servers.Server) -> None:
    if not isinstance(any_server, servers.Server):
        raise servers.Missing("fakeredis: no process to stop")
    jobs: SortedSet[str] = SortedSet(any_server.client(socket_timeout=10), "jobs")
    jobs.add_many(["a", "b", "c", "d"], range(4))
    handled: list[str] = []

    def handler(item: str) -> None:
        handled.append(item)
        if item == "a":
            # Renewals wait for the server, and the items that are leased ahead are not begun.
            with any_server.frozen():
                time.sleep(0.5)

    stop = threading.Event()
    late = threading.Timer(30, stop.set)
    late.start()
    jobs.consume(handler, batch=4, ttl=0.3, until_finished=True, stop=stop)
    late.cancel()
    assert not stop.is_set() and jobs.finished()
    assert set(handled) == {"a", "b", "c", "d"}


def test_an_item_whose_lease_may_have_expired_is_not_begun(make_set: Maker, load: Load) -> None:
    jobs = make_set()
    jobs.add_many(["a", "b"], [1, 2])
    handled = []
    ttl = load.seconds(0.4)

    def handler(item: str) -> None:
        handled.append(item)
        if len(handled) == 1:
            stopped.set()
            time.sleep(1.2 * ttl)

    # The coordinator, too, sleeps for longer than the lease lasts, as in a stopped process. It
    # wakes last: else it would renew the lease, which nobody took over.
    stopped = threading.Event()
    lost = Late(stopped, 3 * ttl)
    assert jobs.consume(handler, batch=2, ttl=ttl, stop=lost, until_finished=True).lost >= 1
    assert set(handled) == {"a", "b"} and handled.count("b") == 1


class Late:
    """An event that is never set, and that delays its caller, once."""

    def __init__(self, after: threading.Event, seconds: float) -> None:
        self._after, self._seconds = after, seconds
        self._slept = False

    def is_set(self) -> bool:
        if self._after.is_set() and not self._slept:
            self._slept = True
            time.sleep(self._seconds)
        return False


# --- how much is leased ahead


@pytest.mark.parametrize("batch", [None, 1])
def test_an_idle_worker_gets_what_a_busy_one_cannot_begin(
    any_server: servers.Server, batch: int | None
) -> None:
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs")
    jobs.add_many(["long", "short"], [1, 2])
    short = threading.Event()
    in_time = []

    def handler(item: str) -> None:
        if item == "short":
            short.set()
            return
        other = threading.Thread(target=lambda: jobs.consume(handler, until_finished=True))
        other.start()
        in_time.append(short.wait(5))
        others.append(other)

    others: list[threading.Thread] = []
    jobs.consume(handler, batch=batch, until_finished=True)
    others[0].join(10)
    assert in_time == [True]


def until(happened: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow(7)
def test_suspects_are_had_though_jobs_outlast_the_ttl(any_server: servers.Server) -> None:
    """Four handlers that are never free at once, and suspects. They may have two of them."""
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs", max_attempts=5)
    suspects = [f"suspect {number}" for number in range(4)]
    jobs.add_many(suspects, 1)
    jobs.lease(4)
    for member in raw.zrange(f"{P}:leased", 0, -1):
        raw.zadd(f"{P}:leased", {member: 1})
    jobs.finished()
    raw.zrem("jobs", *suspects)
    jobs.add_many([f"item {number:03}" for number in range(200)], 2)
    stop = threading.Event()
    begun: list[str] = []

    def handler(item: str) -> None:
        begun.append(item)
        time.sleep(0.3 * min(len(begun), 4))

    worker = threading.Thread(
        target=lambda: jobs.consume(handler, concurrency=4, batch=1, ttl=0.2, stop=stop),
        daemon=True,
    )
    worker.start()
    try:
        # They come up when it has its hands full.
        until(lambda: len(begun) >= 4)
        raw.zadd("jobs", dict.fromkeys(suspects, 1))
        until(lambda: set(suspects) <= set(begun) or len(begun) >= 30)
        assert set(suspects) <= set(begun)
    finally:
        stop.set()
        worker.join(20)


@pytest.mark.parametrize("face", ["sync", "asyncio"])
@pytest.mark.slow(2)
def test_an_unbegun_item_is_released_after_a_second(any_server: servers.Server, face: str) -> None:
    other: SortedSet[str] = SortedSet(any_server.client(), "jobs")
    other.add_many(["long", "b", "c", "d"], [1, 2, 3, 4])
    stop = threading.Event()
    taken: list[Any] = []
    began = time.monotonic()

    def handler(item: str) -> None:
        assert item == "long"
        taken.append([(lease.item, lease.attempts) for lease in other.lease(9, wait=5)])
        taken.append(time.monotonic() - began)
        stop.set()

    if face == "sync":
        jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs")
        assert jobs.consume(handler, batch=10, stop=stop) == (1, 0, 0)
    else:

        async def main() -> None:
            client = redis.asyncio.Redis(unix_socket_path=any_server.unix)
            jobs = redset.asyncio.SortedSet(client, "jobs")
            work = jobs.consume(lambda item: asyncio.to_thread(handler, item), batch=10, stop=stop)
            assert await work == (1, 0, 0)
            await servers.aclose(client)

        asyncio.run(main())
    assert taken[0] == [("b", 0), ("c", 0), ("d", 0)] and 1 <= taken[1] < 3


def test_fast_handlers_have_items_at_hand(any_server: servers.Server) -> None:
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs")
    jobs.add_many(f"{number:04}" for number in range(2000))
    any_server.raw.config_resetstat()
    assert jobs.consume(nothing, until_finished=True) == (2000, 0, 0)
    # A request settles some and leases some: two scripts. One by one it would be 4,000.
    assert commands(any_server.raw) < 400


def test_about_100_ms_of_work_is_leased_ahead() -> None:
    def ahead(concurrency: int, *durations: float, running: float | None = None) -> list[int]:
        pace = _Pace(concurrency)
        for duration in durations:
            pace.begin(0.0)
            pace.end(0.0, duration)
        if running is not None:
            pace.begin(100.0 - running)
        found = []
        for _ in range(9):
            pace.ahead = pace.next(100.0)
            found.append(pace.ahead)
        return found

    assert ahead(1) == [0] * 9  # nothing is known yet
    assert ahead(1, 0.001) == [1, 2, 4, 8, 16, 32, 64, 100, 100]  # doubles at most a fetch
    assert ahead(1, 0.01)[-1] == 10 and ahead(4, 0.01)[-1] == 40
    assert ahead(1, 0.2) == [0] * 9 and ahead(4, 0.2)[-1] == 2
    # An old long one counts as a second, and only as long as it is among the last 16.
    assert ahead(1, 600.0, *[0.0005] * 15)[-1] == 1
    assert ahead(1, 600.0, *[0.0005] * 16)[-1] == 100
    # No item is reserved while a long one runs.
    assert ahead(1, *[0.001] * 16, running=600.0) == [0] * 9
    pace = _Pace(1)
    pace.ahead = 100
    pace.begin(0.0)
    pace.end(0.0, 1.0)
    assert pace.next(1.0) == 0  # falls at once


# --- the end


def test_a_stop_finishes_running_items_and_releases_the_others(make_set: Maker) -> None:
    jobs = make_set()
    jobs.add_many((f"{number:03}" for number in range(50)), range(50))
    stop = threading.Event()
    handled = []

    def handler(item: str) -> Any:
        handled.append(item)
        if len(handled) == 3:
            stop.set()
        time.sleep(0.01)
        return [f"found {item}"]

    done, failed, lost = jobs.consume(handler, batch=20, stop=stop)
    assert (failed, lost) == (0, 0) and done == len(handled) < 50
    assert jobs.size() == 50 and jobs.stats().leased == 0
    assert [lease.attempts for lease in jobs.lease(50)] == [0] * 50


def test_a_set_stop_ends_it_at_once_and_sends_nothing(make_set: Maker) -> None:
    jobs = make_set()
    jobs.add("a")
    stop = threading.Event()
    stop.set()
    assert jobs.consume(nothing, stop=stop) == (0, 0, 0)
    assert jobs.size() == 1


def test_an_interrupt_ends_consume_as_stop_does(any_server: servers.Server, caplog: Any) -> None:
    jobs: SortedSet[str] = SortedSet(any_server.client(), "interrupted")
    jobs.add_many((f"{number:03}" for number in range(50)), range(50))
    handled = []

    def handler(item: str) -> None:
        handled.append(item)
        if len(handled) == 3:
            _thread.interrupt_main()
        time.sleep(0.02)

    with pytest.raises(KeyboardInterrupt):
        jobs.consume(handler, batch=20, concurrency=2)
        time.sleep(1)
    [record] = [each for each in caplog.records if "'interrupted'" in each.getMessage()]
    assert record.levelname == "WARNING"
    said = "KeyboardInterrupt: consume of 'interrupted' waits for . running handlers; a second"
    assert re.match(said, record.getMessage())
    assert jobs.stats()[:3] == (50 - len(handled), 50 - len(handled), 0)
    assert [lease.attempts for lease in jobs.lease(50)] == [0] * (50 - len(handled))


def test_a_handler_that_exits_ends_it(make_set: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    # So long that the item does not come back while this runs.
    monkeypatch.setattr(failures, "FIRST", 20)
    jobs = make_set()
    jobs.add_many(["a", "b"], [1, 2])

    def handler(item: str) -> None:
        raise SystemExit(7)

    if not isinstance(jobs, SortedSet):
        return  # asyncio ends its loop with it
    with pytest.raises(SystemExit):
        jobs.consume(handler)
    assert jobs.size() == 1 and jobs.stats().leased == 1


def test_a_cancelled_task_finishes_running_items_and_releases_the_others(
    any_server: servers.Server,
) -> None:
    async def main() -> tuple[list[str], list[str], Any]:
        client = redis.asyncio.Redis(unix_socket_path=any_server.unix)
        jobs = redset.asyncio.SortedSet(client, "jobs")
        await jobs.add_many((f"{number:03}" for number in range(50)), range(50))
        began: list[str] = []
        ended: list[str] = []

        async def handler(item: str) -> None:
            began.append(item)
            if len(began) == 5:
                task.cancel()
            await asyncio.sleep(0.02)
            ended.append(item)

        task = asyncio.ensure_future(jobs.consume(handler, batch=20, concurrency=4))
        with pytest.raises(asyncio.CancelledError):
            await task
        stats = await jobs.stats()
        await servers.aclose(client)
        return began, ended, stats

    began, ended, stats = asyncio.run(main())
    assert sorted(began) == sorted(ended)
    assert (stats.size, stats.leased) == (50 - len(began), 0)


async def handling(jobs: Any) -> asyncio.Task[Consumed]:
    """A worker in the middle of an item that takes it a minute."""
    await jobs.add("a")
    began = asyncio.Event()

    async def handler(item: str) -> None:
        began.set()
        await asyncio.sleep(60)

    task = asyncio.ensure_future(jobs.consume(handler))
    await began.wait()
    return task


def test_a_second_cancellation_ends_the_handlers(any_server: servers.Server, load: Load) -> None:
    async def main() -> float:
        client = redis.asyncio.Redis(unix_socket_path=any_server.unix)
        jobs = redset.asyncio.SortedSet(client, "jobs")
        task = await handling(jobs)
        start = time.monotonic()
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.1)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [row[0] async for row in jobs.leased()] == ["a"]
        await servers.aclose(client)
        return time.monotonic() - start

    assert asyncio.run(main()) < load.seconds(10)


def test_a_loop_that_ends_releases_begun_items_without_an_attempt(
    any_server: servers.Server,
) -> None:
    """As ``asyncio.run`` ends: all tasks are cancelled at once, those of the handlers, too."""

    async def main() -> None:
        client = redis.asyncio.Redis(unix_socket_path=any_server.unix)
        kept.append(await handling(redset.asyncio.SortedSet(client, "jobs")))

    kept: list[Any] = []  # or its task may be collected before it is cancelled
    asyncio.run(main())
    jobs: SortedSet[str] = SortedSet(any_server.raw, "jobs", max_attempts=1)
    assert jobs.stats().leased == jobs.dead.size() == 0
    assert [lease.attempts for lease in jobs.lease()] == [0]


def test_another_handler_takes_the_place_of_one_that_was_cancelled(
    any_server: servers.Server,
) -> None:
    async def main() -> None:
        client = redis.asyncio.Redis(unix_socket_path=any_server.unix)
        jobs = redset.asyncio.SortedSet(client, "jobs")
        handled: list[str] = []

        async def handler(item: str) -> None:
            handled.append(item)

        task = asyncio.ensure_future(jobs.consume(handler))
        for item in "abc":
            await jobs.add(item)
            while item not in handled or not await jobs.finished():
                await asyncio.sleep(0.01)
            handlers = [each for each in asyncio.all_tasks() if each.get_name() == "redset-handler"]
            assert len(handlers) == 1
            handlers[0].cancel()
            await asyncio.wait(handlers)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await jobs.finished()
        await servers.aclose(client)

    asyncio.run(main())


def test_two_workers_share_what_there_is(any_server: servers.Server) -> None:
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs", remember=True)
    jobs.add("")
    handled: list[str] = []
    results: list[Consumed] = []

    def handler(item: str) -> Any:
        handled.append(item)
        return [item + letter for letter in "ab"] if len(item) < 8 else None

    def work() -> None:
        results.append(jobs.consume(handler, concurrency=2, until_finished=True))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
        assert not thread.is_alive()
    assert len(handled) == len(set(handled)) == sum(each.done for each in results) == 511


# --- with nothing to do


class Idle:
    """A `consume` of either face that runs beside the test."""

    def __init__(self, server: servers.Server, face: str, **options: Any) -> None:
        self.handled: list[str] = []
        self.stop = threading.Event()
        self.results: list[Consumed] = []
        self._server = server
        self._options = {**options, "stop": self.stop}
        self._thread = threading.Thread(target=getattr(self, f"_{face}"), daemon=True)

    def _handle(self, item: str) -> None:
        self.handled.append(item)

    def _sync(self) -> None:
        with self._server.client() as client:
            jobs: SortedSet[str] = SortedSet(client, "jobs")
            self.results.append(jobs.consume(self._handle, **self._options))

    def _asyncio(self) -> None:
        async def main() -> None:
            client = redis.asyncio.Redis(unix_socket_path=self._server.unix)
            jobs: redset.asyncio.SortedSet[str] = redset.asyncio.SortedSet(client, "jobs")
            self.results.append(await jobs.consume(self._handle, **self._options))
            await servers.aclose(client)

        asyncio.run(main())

    def __enter__(self) -> Idle:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.ended()

    def ended(self) -> None:
        self._thread.join(40)
        assert not self._thread.is_alive()

    def has(self, num: int) -> bool:
        end = time.monotonic() + 40
        while len(self.handled) < num and time.monotonic() < end:
            time.sleep(0.005)
        return len(self.handled) == num


def commands(raw: redis.Redis) -> int:
    """How many scripts were called since the statistics were reset."""
    found = raw.info("commandstats")
    return sum(
        int(found.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "eval")
    )


@pytest.mark.parametrize("face", ["sync", "asyncio"])
def test_an_idle_worker_hears_of_items_and_of_the_end(
    any_server: servers.Server, face: str, load: Load
) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs")
    jobs.add("another's")
    (theirs,) = jobs.lease()
    with Idle(any_server, face, until_finished=True) as worker:
        for number in range(3):
            time.sleep(0.4)
            began = time.monotonic()
            raw.zadd("jobs", {f"{number}": number})
            assert worker.has(number + 1)
            assert time.monotonic() - began < load.seconds(2)
        time.sleep(0.4)
        assert not worker.results
        began = time.monotonic()
        jobs.ack(theirs)
        worker.ended()
        assert time.monotonic() - began < load.seconds(2)
    assert worker.results == [(3, 0, 0)]
    assert worker.handled == ["0", "1", "2"]


@pytest.mark.slow(4)
@pytest.mark.parametrize("face", ["sync", "asyncio"])
def test_an_idle_worker_asks_little_and_stops_soon(
    any_server: servers.Server, face: str, load: Load
) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs")
    jobs.add("another's")
    jobs.lease()
    with Idle(any_server, face, until_finished=True) as worker:
        # At first it asks more often, until its set is watched.
        until = time.monotonic() + 20
        while True:
            raw.config_resetstat()
            time.sleep(1)
            if not any_server.tracks or commands(raw) <= 4 or time.monotonic() > until:
                break
        raw.config_resetstat()
        time.sleep(3)
        # A generic client asks the server for its options.
        assert commands(raw) <= (10 if any_server.tracks else 75)
        began = time.monotonic()
        worker.stop.set()
        worker.ended()
        assert time.monotonic() - began < load.seconds(2)
    assert worker.results == [(0, 0, 0)]


@pytest.mark.parametrize("face", ["sync", "asyncio"])
def test_an_item_that_comes_late_is_leased_from_that_moment(
    any_server: servers.Server, face: str, load: Load
) -> None:
    raw = any_server.raw
    ttl = load.seconds(0.5)
    with Idle(any_server, face, ttl=ttl) as worker:
        for number in range(2):
            time.sleep(2 * ttl)
            raw.zadd("jobs", {f"{number}": number})
            assert worker.has(number + 1)
    assert worker.results == [(2, 0, 0)]


def test_an_interrupt_ends_an_idle_worker(any_server: servers.Server, load: Load) -> None:
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs")
    timer = threading.Timer(0.5, _thread.interrupt_main)
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        jobs.consume(nothing)
        time.sleep(50)
    assert time.monotonic() - began < load.seconds(4)
    timer.join()
    any_server.raw.zadd("jobs", {"a": 1})
    assert jobs.pop() == "a"


# --- arguments


def test_bad_arguments_are_refused_and_named(make_set: Maker) -> None:
    jobs = make_set()
    jobs.add("a")
    for arguments, error, said in (
        (("no",), TypeError, "handler must be callable, got .no. .str"),
        ((nothing, {"batch": 0}), ValueError, "batch must be from 1 to 100,000, got 0 .int"),
        ((nothing, {"batch": 1.5}), TypeError, "batch must be an int, got 1.5 .float"),
        ((nothing, {"concurrency": 10**9}), ValueError, "concurrency must be from 1"),
        (
            (nothing, {"ttl": -1}),
            ValueError,
            "ttl must be seconds, above 0, .* got -1 .int.",
        ),
        (
            (nothing, {"ttl": "1"}),
            TypeError,
            "ttl must be a number of .*, got .1. .str.",
        ),
        (
            (nothing, {"stop": True}),
            TypeError,
            "stop must be an event, with is_set.*got True .bool",
        ),
    ):
        handler, options = arguments if len(arguments) == 2 else (arguments[0], {})
        with pytest.raises(error, match=said):
            jobs.consume(handler, **options)
    if isinstance(jobs, SortedSet):

        async def handler(item: str) -> None: ...

        with pytest.raises(
            TypeError, match=r"handler must be a plain function, .* coroutine function"
        ):
            jobs.consume(handler)
    with pytest.raises(ValueError, match="no valid hash tag"):
        make_set(name="a{b").consume(nothing)
    assert jobs.size() == 1 and jobs.stats().leased == 0
