"""Waiting for an item: wakes, costs, and early ends."""

from __future__ import annotations

import asyncio
import contextlib
import decimal
import functools
import logging
import math
import re
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import children
import pytest
import redis
import redis.asyncio.sentinel
import redis.sentinel
import servers
from load import Load
from redis.backoff import ConstantBackoff, NoBackoff
from redis.retry import Retry
from test_transport import watched

import redset.asyncio
from redset import ScheduledSet, SortedSet
from redset._transport import coroutines, tracking
from redset._transport import watcher as module
from redset._transport.tracking import ErrorText, Push, TrackingLost, _parsed
from redset.scripts import script

#: Far more than a wake takes on an idle machine, and less than would pass unnoticed.
SOON = 2.0


@contextlib.contextmanager
def later(seconds: float, *actions: Callable[[], Any]) -> Iterator[None]:
    """Do something while the caller waits."""

    def act() -> None:
        for action in actions:
            time.sleep(seconds)
            action()

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(children.LIMIT)
        assert not thread.is_alive()


def sent(raw: redis.Redis) -> int:
    """How many commands clients have sent since the statistics were reset, without INFO."""
    found = raw.info("commandstats")
    names = ("evalsha", "eval", "zpopmin", "multi", "exec", "script", "script|load")
    return sum(int(found.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in names)


def retries(count: int) -> Retry:
    # By default a refused connection is not one of a retry's errors in all versions of redis-py.
    errors = (redis.ConnectionError, redis.TimeoutError, OSError)
    return Retry(ConstantBackoff(0.1) if count else NoBackoff(), count, errors)


def watching() -> int:
    return sum(thread.name == "redset-watcher" for thread in threading.enumerate())


def eventually(check: Callable[[], Any], seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while not (found := check()) and time.monotonic() < end:
        time.sleep(0.01)
    return found


async def soon(check: Callable[[], Any], seconds: float = 30) -> Any:
    """As `eventually`, while other tasks go on."""
    end = time.monotonic() + seconds
    while not (found := check()) and time.monotonic() < end:
        await asyncio.sleep(0.01)
    return found


def watchers(raw: redis.Redis, name: str) -> list[dict[str, str]]:
    """The connections that track, of clients with a name; those of other tests may linger."""
    return [each for each in raw.client_list() if "t" in each["flags"] and each["name"] == name]


def leased(jobs: Any, wait: float) -> list[Any]:
    """Leases and acknowledges."""
    batch = jobs.lease(5, wait=wait)
    items = [lease.item for lease in batch]
    assert batch.ack() == len(items)
    return items


async def work_on(jobs: Any, wait: float, done: list[str]) -> None:
    async with jobs.lease(5, wait=wait) as batch:
        async for lease in batch:
            done.append(lease.item)


def waiting_now(client: Any) -> int:
    """How many are watched for."""
    watcher = module._watchers.get(client.connection_pool)
    return sum(len(watch.alarms) for watch in watcher._sets.values()) if watcher else 0


def watched_now(client: Any) -> bool:
    """Return whether the watching connection has seen the set, and will get its changes."""
    watcher = module._watchers.get(client.connection_pool)
    watches = list(watcher._sets.values()) if watcher else []
    return bool(watches) and all(watch.seen > 0 and not watch.changed for watch in watches)


# --- wakes


@pytest.mark.parametrize("wait", [30, math.inf])
def test_a_waiting_call_gets_what_another_program_adds(
    make_set: Any, raw: Any, wait: Any, load: Load
) -> None:
    jobs = make_set()
    for get in (
        lambda wait: jobs.pop(wait=wait),
        lambda wait: jobs.take(5, wait=wait),
        lambda wait: leased(jobs, wait),
    ):
        # While it polls, and when it is watched.
        for delay in (0.01, 0.2):
            with later(delay, lambda: raw.zadd("jobs", {"an item": 1})):
                start = time.monotonic()
                assert get(wait=wait) in ("an item", ["an item"])
                assert time.monotonic() - start < load.seconds(delay + SOON)


def test_a_call_gives_up_when_the_time_is_over(make_set: Any, load: Load) -> None:
    jobs = make_set()
    for wait in (0.01, 0.2):
        start = time.monotonic()
        with pytest.raises(KeyError, match="empty"):
            jobs.pop(wait=wait)
        assert jobs.take(3, wait=wait) == []
        assert not jobs.lease(3, wait=wait)
        assert 3 * wait <= time.monotonic() - start < load.seconds(3 * wait + SOON)
    start = time.monotonic()
    assert jobs.take(0, wait=math.inf) == []
    assert time.monotonic() - start < load.seconds(SOON)


def test_queued_items_are_returned_at_once(make_set: Any) -> None:
    jobs = make_set()
    jobs.add_many(["a", "b", "c"], score=[1, 2, 3])
    assert jobs.pop(wait=math.inf) == "a"
    assert jobs.take(1, wait=math.inf, with_scores=True) == [("b", 2.0)]
    assert leased(jobs, math.inf) == ["c"]


def test_a_waiting_call_gets_what_another_process_adds(any_server: servers.Server) -> None:
    program = (
        f"import time, redset; time.sleep(0.3); s = redset.SortedSet.from_url({any_server.url!r}, "
        "'jobs', key=str); print(s.add(['an item']))"
    )
    with (
        SortedSet.from_url(any_server.url, "jobs", key=str) as jobs,
        children.Child("-c", program) as child,
    ):
        assert jobs.pop(wait=30) == ["an item"], str(child)
        child.check()


def test_a_waiting_call_gets_a_scheduled_item_when_it_falls_due(
    make_set: Any, raw: Any, load: Load
) -> None:
    jobs = make_set(ScheduledSet)

    def clock() -> float:
        seconds, micros = raw.time()
        return float(seconds + micros / 1e6)

    due = clock() + 0.4
    jobs.add("later", due + 60)
    jobs.add("soon", due)
    assert jobs.pop(wait=30) == "soon"
    assert due <= clock() < due + load.seconds(SOON)


@pytest.mark.parametrize("cls", [SortedSet, ScheduledSet])
@pytest.mark.parametrize("options", [{}, {"key": str}])
def test_a_waiting_call_gets_an_item_whose_lease_ends(
    make_set: Any, cls: Any, options: dict[str, Any], load: Load
) -> None:
    jobs = make_set(cls, **options)
    for get in (
        lambda: [jobs.pop(wait=30)],
        lambda: jobs.take(5, wait=30),
        lambda: [lease.item for lease in jobs.lease(5, wait=30)],
    ):
        jobs.add("an item", 1)
        start = time.monotonic()
        (lease,) = jobs.lease(ttl=0.25)
        assert get() == ["an item"]
        assert 0.24 < time.monotonic() - start < load.seconds(0.25 + SOON)
        assert lease.ack() == 0


def test_a_waiting_call_gets_what_is_given_back(make_set: Any, load: Load) -> None:
    jobs = make_set()
    jobs.add("an item", 1)
    (lease,) = jobs.lease()
    start = time.monotonic()
    assert lease.release(delay=0.25) == 1
    (lease,) = jobs.lease(wait=30)
    assert 0.24 < time.monotonic() - start < load.seconds(0.25 + SOON)
    assert (lease.item, lease.attempts) == ("an item", 0)
    assert lease.fail("no", delay=0.25) == 1
    (lease,) = jobs.lease(wait=30)
    assert lease.attempts == 1


def test_a_lease_begins_when_the_item_comes(make_set: Any, raw: Any) -> None:
    jobs = make_set()
    came = []

    def add() -> None:
        seconds, micros = raw.time()
        came.append(seconds + micros / 1e6)
        raw.zadd("jobs", {"an item": 1})

    with later(0.4, add):
        (lease,) = jobs.lease(ttl=20, wait=30)
    # From the call on it would be less by as much.
    assert lease.expires >= came[0] + 20 - 0.01
    assert lease.ack() == 1


def test_a_waiting_lease_is_awaited_or_entered(any_server: servers.Server) -> None:
    asyncio.run(_await_and_enter(any_server))


async def _await_and_enter(any_server: servers.Server) -> None:
    client = any_server.asyncio_client()
    jobs: Any = redset.asyncio.SortedSet(client, "jobs")
    with later(0.3, lambda: any_server.raw.zadd("jobs", {"a": 1})):
        assert [lease.item async for lease in await jobs.lease(wait=30)] == ["a"]
    with later(0.3, lambda: any_server.raw.zadd("jobs", {"b": 1})):
        await work_on(jobs, 30, done := [])
    assert done == ["b"]
    assert [each[0] async for each in jobs.leased()] == ["a"]
    await servers.aclose(client)


def test_a_look_returns_the_available_items_and_the_next_time(
    any_server: servers.Server,
) -> None:
    raw = any_server.raw

    def look(due: str, *keys: str) -> tuple[int, int]:
        named = [keys[0], "none", *keys[1:]] if len(keys) > 1 else keys
        available, rest = raw.eval(script("watch").text, len(named), *named, due)
        return available, rest

    def at(seconds: float) -> float:
        now, micros = raw.time()
        return float(now + micros / 1e6 + seconds)

    assert look("", "q", "l") == look("1", "q", "l") == look("", "q") == look("1", "q") == (0, -1)
    raw.zadd("q", {"a": -math.inf, "b": at(-1), "c": at(5), "d": math.inf})
    assert look("", "q", "l") == (4, -1)
    available, rest = look("1", "q", "l")
    assert available == 2 and 4_000 < rest <= 5_001
    raw.zadd("l", {"expired": at(-1) * 1000, "held": at(2) * 1000})
    for due, available in (("", 5), ("1", 3)):
        found, rest = look(due, "q", "l")
        assert found == available and 1_000 < rest <= 2_001
        assert look(due, "q")[0] == available - 1
    raw.delete("q", "l")
    raw.zadd("q", {"d": math.inf})
    assert look("1", "q", "l") == (0, 3_600_000)
    raw.set("l", "no sorted set")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        look("", "q", "l")


def test_a_set_whose_name_allows_no_second_key_can_be_waited_for(make_set: Any, raw: Any) -> None:
    jobs = make_set(name="{}jobs")
    with later(0.2, lambda: raw.zadd("{}jobs", {"a": 1})):
        assert jobs.pop(wait=30) == "a"


def test_all_added_items_go_to_waiting_calls(any_server: servers.Server, load: Load) -> None:
    """20 threads on one client; each item to one of them."""
    client = any_server.client()
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    got: list[str] = []

    def work() -> None:
        got.append(jobs.pop(wait=30))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(20)]
    for thread in threads:
        thread.start()
    assert eventually(lambda: waiting_now(client) == 20 and watched_now(client))
    start = time.monotonic()
    for number in range(10):
        any_server.raw.zadd("jobs", {f"item-{number}": number})
        time.sleep(0.01)
    any_server.raw.zadd("jobs", {f"item-{number}": number for number in range(10, 20)})
    for thread in threads:
        thread.join(30)
    assert time.monotonic() - start < load.seconds(SOON)
    assert sorted(got) == sorted(f"item-{number}" for number in range(20))
    assert watching() >= 1
    client.close()


def test_all_of_what_is_added_goes_to_the_tasks_that_wait(
    any_server: servers.Server, load: Load
) -> None:
    async def program() -> None:
        client = any_server.asyncio_client()
        jobs: Any = redset.asyncio.SortedSet(client, "jobs")
        tasks = [asyncio.create_task(jobs.take(1, wait=30)) for _ in range(20)]
        assert await soon(lambda: waiting_now(client) == 20 and watched_now(client))
        start = time.monotonic()
        names = [f"item-{number}" for number in range(20)]
        for name in names[:10]:
            any_server.raw.zadd("jobs", {name: 1})
            await asyncio.sleep(0.01)
        any_server.raw.zadd("jobs", dict.fromkeys(names[10:], 2))
        found = [item for items in await asyncio.gather(*tasks) for item in items]
        assert sorted(found) == sorted(names)
        assert time.monotonic() - start < load.seconds(SOON)
        await servers.aclose(client)

    asyncio.run(program())


def test_a_waiter_that_was_woken_in_error_waits_on(any_server: servers.Server) -> None:
    """Another consumer may have taken the item that woke the waiter."""
    raw = any_server.raw
    client, watch = watched(any_server)
    watch.name, taken = b"ZPOPMIN", []

    def take_it(number: int, _: Any) -> None:
        if not taken:
            taken.extend(raw.zpopmin("jobs"))

    watch.before = take_it
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    adds = [lambda: raw.zadd("jobs", {"a": 1}), lambda: raw.zadd("jobs", {"b": 1})]
    with later(0.3, *adds):
        assert jobs.pop(wait=30) == "b"
    assert taken == [(b"a", 1.0)]
    client.close()


def test_several_sets_are_watched_by_one_connection(any_server: servers.Server) -> None:
    with any_server.client(client_name="several") as client:
        sets = [SortedSet(client, f"jobs-{number}") for number in range(5)]
        found: dict[str, str] = {}

        def work(jobs: SortedSet[str]) -> None:
            found[str(jobs.name)] = jobs.pop(wait=30)

        threads = [threading.Thread(target=work, args=(jobs,), daemon=True) for jobs in sets]
        for thread in threads:
            thread.start()
        assert eventually(lambda: waiting_now(client) == 5 and watched_now(client))
        assert len(watchers(any_server.raw, "several")) == 1
        for jobs in sets:
            any_server.raw.zadd(str(jobs.name), {f"of {jobs.name}": 1})
        for thread in threads:
            thread.join(30)
        assert found == {str(jobs.name): f"of {jobs.name}" for jobs in sets}


async def watched_pop(client: Any, raw: Any, load: Load) -> None:
    """Wait by a client of either face until it is watched, and return the item that comes then."""
    face: Any = redset.asyncio if "asyncio" in type(client).__module__ else redset
    jobs = face.SortedSet(client, "jobs")
    pop = jobs.pop if face is redset.asyncio else functools.partial(asyncio.to_thread, jobs.pop)
    waits = asyncio.ensure_future(pop(wait=30))
    end = time.monotonic() + 30
    while not (names := [each for each in raw.client_list() if "t" in each["flags"]]):
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
    assert len(names) == 1
    raw.zadd("jobs", {"a": 1})
    start = time.monotonic()
    assert await waits == "a" and time.monotonic() - start < load.seconds(SOON)
    await servers.aclose(client) if face is redset.asyncio else client.close()
    for each in names:
        raw.client_kill_filter(_id=each["id"])


def test_it_is_watched_over_tls(tmp_path: Path, load: Load) -> None:
    with servers.start_with_tls(tmp_path) as (server, port, certificate):
        options: dict[str, Any] = {
            "port": port, "ssl": True, "ssl_ca_certs": certificate, "ssl_check_hostname": False
        }  # fmt: skip
        for make in (redis.Redis, redis.asyncio.Redis):
            asyncio.run(watched_pop(make(**options), server.raw, load))


@pytest.mark.parametrize("made", [redis.sentinel, redis.asyncio.sentinel])
def test_the_watcher_connects_to_the_primary_that_sentinel_names(
    any_server: servers.Server, sentinel: int, made: Any, load: Load
) -> None:
    any_server.raw.client_kill_filter(_type="normal", skipme=True)
    client = made.Sentinel([("127.0.0.1", sentinel)]).master_for("main")
    asyncio.run(watched_pop(client, any_server.raw, load))


# --- costs


def test_without_a_wait_what_is_sent_is_what_always_was(any_server: servers.Server) -> None:
    client = servers.Recording(any_server.client(protocol=2))
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    for number in range(2):
        jobs.add_many(["a", "b", "c", "d"], score=1)
        client.sent.clear()
        found = (jobs.pop(), jobs.take(2), jobs.take(1), jobs.take(1))
        plain = client.sent[:]
        jobs.add_many(["a", "b", "c", "d"], score=1)
        client.sent.clear()
        assert found == (
            jobs.pop(wait=0),
            jobs.take(2, wait=0),
            jobs.take(1, wait=0.0),
            jobs.take(1),
        )
        assert found == ("a", ["b", "c"], ["d"], [])
        if number > 0:  # the first removal looks before
            assert client.sent == plain


@pytest.mark.parametrize(
    ("wait", "error"),
    [
        (-1, ValueError),
        (-math.inf, ValueError),
        (math.nan, ValueError),
        (True, TypeError),
        (None, TypeError),
        ("1", TypeError),
        (decimal.Decimal(1), TypeError),
        (1j, TypeError),
    ],
)
def test_a_bad_wait_is_refused_before_anything_is_sent(wait: Any, error: type[Exception]) -> None:
    class Nothing:
        def execute_command(self, *args: Any) -> Any:
            raise AssertionError(f"sent {args}")

    class AsyncNothing:
        async def execute_command(self, *args: Any) -> Any:
            raise AssertionError(f"sent {args}")

    async def awaited(call: Awaitable[Any]) -> Any:
        return await call

    match = f"wait must be .*{type(wait).__name__}"
    jobs: SortedSet[str] = SortedSet(Nothing(), "jobs")
    twin: Any = redset.asyncio.SortedSet(AsyncNothing(), "jobs")
    for call in (
        lambda: jobs.pop(wait=wait),
        lambda: jobs.take(1, wait=wait),
        lambda: jobs.take(0, wait=wait),
        lambda: jobs.lease(wait=wait),
        lambda: asyncio.run(awaited(twin.pop(wait=wait))),
        lambda: asyncio.run(awaited(twin.take(1, wait=wait))),
        lambda: twin.lease(1, 60, wait=wait),
    ):
        with pytest.raises(error, match=match):
            call()


def test_more_seconds_than_a_float_holds_are_for_ever(make_set: Any, raw: Any) -> None:
    jobs = make_set()
    with later(0.2, lambda: raw.zadd("jobs", {"a": 1})):
        assert jobs.pop(wait=10**400) == "a"


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("seconds", [1, pytest.param(4, marks=pytest.mark.slow(9))])
def test_an_idle_waiter_sends_about_one_command_a_second(
    any_server: servers.Server, seconds: int
) -> None:
    raw = any_server.raw
    with any_server.client() as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        due: ScheduledSet[str] = ScheduledSet(client, "due")
        due.add("tomorrow", time.time() + 86_400)
        for waiting in (jobs, due):
            found: list[list[str]] = []
            thread = threading.Thread(
                target=lambda waits, found: found.append(waits.take(9, wait=50)),
                args=(waiting, found),
                daemon=True,
            )
            raw.config_resetstat()
            start = time.monotonic()
            thread.start()
            # It polls until it is watched, which takes long on a busy machine.
            assert eventually(lambda: waiting_now(client) == 1 and watched_now(client))
            assert sent(raw) <= 5 + (time.monotonic() - start) / module.PERIOD
            raw.config_resetstat()
            time.sleep(seconds)
            assert sent(raw) <= seconds + 2
            raw.zadd(str(waiting.name), {"now": 1})
            thread.join(children.LIMIT)
            assert found == [["now"]]


@pytest.mark.slow(4)
def test_20_waiters_of_a_process_send_as_much_as_one(any_server: servers.Server) -> None:
    raw = any_server.raw

    async def program() -> None:
        client = any_server.asyncio_client()
        jobs: Any = redset.asyncio.SortedSet(client, "jobs")
        tasks = [asyncio.create_task(jobs.take(9, wait=4)) for _ in range(20)]
        assert await soon(lambda: waiting_now(client) == 20 and watched_now(client))
        await asyncio.sleep(0.3)
        raw.config_resetstat()
        assert await asyncio.gather(*tasks) == [[]] * 20
        assert sent(raw) <= 6
        await servers.aclose(client)

    asyncio.run(program())


@pytest.mark.slow(2)
def test_a_waiter_of_a_generic_client_looks_more_and_more_rarely(
    any_server: servers.Server,
) -> None:
    """20 times a second for half a second, then as a tenth of the time that it waited."""
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(servers.Generic(any_server.client(protocol=2)), "jobs")
    raw.config_resetstat()
    assert jobs.take(9, wait=2) == []
    assert 12 <= sent(raw) <= 30
    # Something came: as often as at first. It is there within a tenth of the time, at most 1 s.
    with later(0.1, lambda: raw.zadd("jobs", {"a": 1})):
        assert jobs.pop(wait=5) == "a"
    raw.config_resetstat()
    assert jobs.take(9, wait=0.5) == []
    assert sent(raw) >= 6


@pytest.mark.slow(3)
@pytest.mark.parametrize("kind", ["generic", "refused"])
@pytest.mark.parametrize("awaits", [False, True])
def test_waiters_share_their_looks(any_server: servers.Server, kind: str, awaits: bool) -> None:
    raw = any_server.raw
    with servers.user(any_server, "-client") as login:
        options = {"protocol": 2, **(login if kind == "refused" else {})}

        def sync() -> None:
            client = any_server.client(**options)
            given = client if kind == "refused" else servers.Generic(client)
            jobs: SortedSet[str] = SortedSet(given, "jobs")
            got: list[str] = []
            threads = [
                threading.Thread(target=lambda: got.extend(jobs.take(1, wait=3))) for _ in range(10)
            ]
            for thread in threads:
                thread.start()
            time.sleep(1.5)
            watch()
            for thread in threads:
                thread.join()
            assert sorted(got) == ["0", "1", "2"]
            client.close()

        async def program() -> None:
            client = any_server.asyncio_client(**options)
            given = client if kind == "refused" else servers.AsyncGeneric(client)
            jobs: Any = redset.asyncio.SortedSet(given, "jobs")
            tasks = [asyncio.create_task(jobs.take(1, wait=3)) for _ in range(10)]
            await asyncio.sleep(1.5)
            watch()
            got = await asyncio.gather(*tasks)
            assert sorted(item for items in got for item in items) == ["0", "1", "2"]
            await servers.aclose(client)

        def watch() -> None:
            # Ten attempts, and the looks of one; before they are shared each has one of its own.
            assert sent(raw) <= 10 + 10 + 30
            raw.zadd("jobs", {"0": 1, "1": 1, "2": 1})

        raw.config_resetstat()
        asyncio.run(program()) if awaits else sync()
        assert sent(raw) <= 90


@pytest.mark.slow(4)
def test_a_waiter_keeps_its_budget_while_others_get_the_items(
    any_server: servers.Server, load: Load
) -> None:
    """Items come and go at once: it wakes each time, and mostly too late."""
    raw = any_server.raw
    stop = threading.Event()

    def others() -> None:
        with any_server.client() as client:
            while not stop.is_set():
                client.eval(
                    "redis.call('ZADD', KEYS[1], 1, 'a'); redis.call('DEL', KEYS[1])", 1, "jobs"
                )

    with any_server.client() as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        rival = threading.Thread(target=others, daemon=True)
        rival.start()
        try:
            assert jobs.take(9, wait=0.5) == []
            raw.config_resetstat()
            assert jobs.take(9, wait=3) == []
            stats = raw.info("commandstats")
            assert 20 * 3 / load.seconds(3) <= stats["cmdstat_evalsha"]["calls"] <= 70
        finally:
            stop.set()
            rival.join(children.LIMIT)


@pytest.mark.slow(3)
def test_a_waiter_that_comes_too_late_lets_others_go_first_until_it_gets_an_item(
    any_server: servers.Server,
) -> None:
    raw = any_server.raw
    with any_server.client() as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        with later(0.3, lambda: raw.zadd("jobs", {"a": 1})):
            assert jobs.pop(wait=30) == "a"
        rounds: list[float] = []

        def others() -> None:
            try:
                assert eventually(lambda: waiting_now(client) == 1 and watched_now(client))
                (watch,) = module._watchers[client.connection_pool]._sets.values()
                end = time.monotonic() + 20
                while (not rounds or rounds[-1] < module.SPREAD) and time.monotonic() < end:
                    raw.eval(
                        "redis.call('ZADD', KEYS[1], 1, 'a'); redis.call('DEL', KEYS[1])", 1, "jobs"
                    )
                    time.sleep(0.1)
                    rounds.append(watch.spread)
            finally:
                raw.zadd("jobs", {"a": 1})

        with later(0, others):
            assert jobs.pop(wait=40) == "a"
        assert rounds == sorted(rounds) and rounds[0] < rounds[-1] == module.SPREAD


def test_a_sleeping_call_holds_no_connection_of_the_pool(any_server: servers.Server) -> None:
    pool = redis.BlockingConnectionPool(
        connection_class=redis.UnixDomainSocketConnection,
        path=any_server.unix,
        max_connections=1,
        timeout=15,
    )
    jobs: SortedSet[str] = SortedSet(redis.Redis(connection_pool=pool), "jobs")

    def add() -> None:
        for number in range(50):
            assert jobs.score("b") is None
            if number == 49:
                jobs.add("a")
            time.sleep(0.01)

    with later(0, add):
        assert jobs.pop(wait=30) == "a"
    pool.disconnect()


@pytest.mark.slow(3)
def test_a_wait_may_be_longer_than_the_clients_timeout(any_server: servers.Server) -> None:
    # A busy server may take half a second for a reply.
    with any_server.client(socket_timeout=1, retry=retries(0)) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        assert jobs.take(1, wait=2.5) == []
        with later(2.0, lambda: any_server.raw.zadd("jobs", {"a": 1})):
            assert jobs.pop(wait=30) == "a"


@pytest.mark.slow(3)
def test_the_watcher_leaves_when_nobody_has_waited_for_some_time(
    any_server: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINGER", 1.0)

    def here() -> bool:
        return len(watchers(any_server.raw, "leaves")) == 1

    def gone() -> bool:
        return watchers(any_server.raw, "leaves") == []

    with any_server.client(client_name="leaves") as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        for _ in range(2):
            with later(0, lambda: eventually(here), lambda: any_server.raw.zadd("jobs", {"a": 1})):
                assert jobs.take(1, wait=40) == ["a"]
            assert eventually(gone)

    async def program() -> None:
        client = any_server.asyncio_client(client_name="leaves")
        jobs: Any = redset.asyncio.SortedSet(client, "jobs")
        for _ in range(2):
            waits = asyncio.create_task(jobs.take(1, wait=40))
            assert await soon(here)
            any_server.raw.zadd("jobs", {"a": 1})
            assert await waits == ["a"]
            assert await soon(gone)
            assert await soon(lambda: asyncio.all_tasks() == {asyncio.current_task()})
        assert await jobs.take(1, wait=0.2) == []
        await servers.aclose(client)

    asyncio.run(program())
    assert eventually(gone)


# --- early ends


def test_an_interrupt_ends_a_wait_at_once_and_loses_nothing(
    any_server: servers.Server, load: Load
) -> None:
    program = f"""
import redset, sys
jobs = redset.SortedSet.from_url({any_server.url!r}, "jobs")
try:
    print("waiting", flush=True)
    jobs.pop(wait=float("inf"))
except KeyboardInterrupt:
    print("interrupted", len(jobs.redis.connection_pool._in_use_connections), flush=True)
    print(jobs.pop(wait=10), flush=True)
"""
    for after in (0.01, 0.5):
        with children.Child("-X", "dev", "-c", program) as child:
            assert child.line() == "waiting"
            time.sleep(after)
            start = time.monotonic()
            child.send_signal(signal.SIGINT)
            assert child.line() == "interrupted 0"
            assert time.monotonic() - start < load.seconds(SOON)
            any_server.raw.zadd("jobs", {"a": 1})
            ended = child.check()
            assert ended.out.splitlines()[2:] == ["a"]
            # Under -X dev the client of a set that was never closed warns, as does a socket that
            # was interrupted while redis-py connected it, and a file while it was read. None of
            # these is a line of redset.
            assert "Traceback (most recent call last)" not in ended.err
            package = re.escape(str(Path(redset.__file__).parent))
            assert re.search(rf"{package}/\S+\.py", ended.err) is None


@pytest.mark.parametrize("where", ["sync", "asyncio", "thread"])
def test_a_program_that_has_waited_ends_quickly_and_silently(
    any_server: servers.Server, where: str, load: Load
) -> None:
    programs = {
        "sync": """
import redset
jobs = redset.SortedSet.from_url(URL, "jobs")
print(jobs.take(1, wait=0.3))
""",
        "thread": """
import redset, threading, time
jobs = redset.SortedSet.from_url(URL, "jobs")
threading.Thread(target=jobs.take, args=(1,), kwargs={"wait": 60}, daemon=True).start()
time.sleep(0.5)
print([])
""",
        "asyncio": """
import asyncio, redset.asyncio
async def main():
    async with redset.asyncio.SortedSet.from_url(URL, "jobs") as jobs:
        print(await jobs.take(1, wait=0.3))
        asyncio.create_task(jobs.take(1, wait=60))
        await asyncio.sleep(0.3)
asyncio.run(main())
""",
    }
    start = time.monotonic()
    done = children.run("-c", programs[where].replace("URL", repr(any_server.url)))
    assert time.monotonic() - start < load.seconds(10)
    assert (done.out, done.err) == ("[]\n", "")


def test_a_cancelled_wait_leaves_no_task_and_no_connection(any_server: servers.Server) -> None:
    async def program() -> None:
        client = any_server.asyncio_client()
        jobs: Any = redset.asyncio.SortedSet(client, "jobs")
        for after in (0, 0.001, 0.01, 0.06, 0.3):
            task = asyncio.create_task(jobs.pop(wait=math.inf))
            await asyncio.sleep(after)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not client.connection_pool._in_use_connections
            assert waiting_now(client) == 0
        any_server.raw.zadd("jobs", {"a": 1})
        assert await jobs.pop(wait=10) == "a"
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(jobs.pop(wait=30), 0.3)
        await servers.aclose(client)

    asyncio.run(program())


@pytest.mark.parametrize("counted", [False, True])
def test_a_cancellation_that_the_client_keeps_to_itself_ends_a_wait(
    any_server: servers.Server, counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Python 3.12, `wait_for` returns a result that came together with the cancellation."""
    if counted and not coroutines._COUNTED:
        raise servers.Missing("Task.cancelling: not in this Python")
    monkeypatch.setattr(coroutines, "_COUNTED", counted)

    async def program() -> None:
        client = any_server.asyncio_client()
        jobs: Any = redset.asyncio.SortedSet(client, "jobs")
        for number in range(200):
            task = asyncio.create_task(jobs.pop(wait=math.inf))
            await asyncio.sleep(number % 20 * 0.0001)
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=10)
            assert done and task.cancelled(), number
        assert not client.connection_pool._in_use_connections
        await servers.aclose(client)

    asyncio.run(program())


@pytest.mark.slow(3)
def test_a_cancelled_wait_for_a_lease_loses_nothing(any_server: servers.Server) -> None:
    """Cancelled around the moment that an item comes: it is queued, or leased and comes back."""
    asyncio.run(_cancel_leases(any_server))


async def _cancel_leases(any_server: servers.Server) -> None:
    client = any_server.asyncio_client()
    jobs: Any = redset.asyncio.SortedSet(client, "jobs")
    done: list[str] = []
    for turn in range(60):
        task = asyncio.create_task(work_on(jobs, 30, done))
        await asyncio.sleep(0.001 if turn % 2 else 0.07)
        any_server.raw.zadd("jobs", {f"item-{turn}": turn})
        await asyncio.sleep(turn / 20_000)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert not client.connection_pool._in_use_connections and waiting_now(client) == 0
    held = [each[0] async for each in jobs.leased()]
    left = await jobs.take(100)
    assert sorted({*done, *held, *left}) == sorted(f"item-{turn}" for turn in range(60))
    await servers.aclose(client)


@pytest.mark.slow(3)
@pytest.mark.timeout(200)
def test_an_interrupted_wait_for_a_lease_loses_nothing(any_server: servers.Server) -> None:
    """Interrupted at any place: leased items return, and no waiter is left to be woken.

    Not while redis-py connects, though: hiredis 3.5 crashes after some of those interrupts.
    """
    program = f"""
import random, redis.connection, redset, signal, sys, threading
from redset._transport import watcher as module
def report_others(ignored):
    # Python prints what it ignores, as an interrupt in a destructor.
    if ignored.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(ignored)
sys.unraisablehook = report_others
connecting = 0
connect = redis.connection.AbstractConnection.connect
def connect_undisturbed(self):
    global connecting
    mine = threading.current_thread() is threading.main_thread()
    connecting += mine
    try:
        connect(self)
    finally:
        connecting -= mine
redis.connection.AbstractConnection.connect = connect_undisturbed
jobs = redset.SortedSet.from_url({any_server.url!r}, "jobs")
pool = jobs.redis.connection_pool
adder = redset.SortedSet.from_url({any_server.url!r}, "jobs")
def interrupt(*_):
    if not connecting:
        raise KeyboardInterrupt
    signal.setitimer(signal.ITIMER_REAL, 0.001, 2)
signal.signal(signal.SIGALRM, interrupt)
interrupted, held = 0, []
for turn in range(200):
    adder.add(f"item-{{turn}}")
    try:
        # Again and again: one may strike in a destructor, and is ignored there.
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.004), 2)
        while True:
            held += [lease.item for lease in jobs.lease(ttl=1, wait=0.07)]
    except (KeyboardInterrupt, RuntimeError) as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if type(error) is RuntimeError:
            # CPython's condition, interrupted while it took its lock again.
            assert str(error) == "release unlocked lock", error
            assert type(error.__context__) is KeyboardInterrupt
        interrupted += 1
    watcher = module._watchers.get(pool)
    assert watcher is None or not watcher._sets
assert interrupted == 200
seen = set(held)
while len(seen) < 200:
    batch = jobs.lease(200, wait=10)
    assert batch, sorted(seen)
    seen.update(lease.item for lease in batch)
    batch.ack()
print("all there")
"""
    done = children.run("-W", "ignore", "-c", program, limit=180)
    assert (done.out, done.err) == ("all there\n", "")


def test_a_cancelled_waiter_passes_its_wake_on(any_server: servers.Server) -> None:
    async def program() -> None:
        client = any_server.asyncio_client()
        jobs: Any = redset.asyncio.SortedSet(client, "jobs")
        tasks = [asyncio.create_task(jobs.pop(wait=40))]
        assert await soon(lambda: waiting_now(client) == 1 and watched_now(client))
        # That one is the first to be woken.
        tasks += [asyncio.create_task(jobs.pop(wait=40)) for _ in range(4)]
        assert await soon(lambda: waiting_now(client) == 5)
        first = asyncio.Event()
        hint = module.WatchedSet.hint

        def cancelling(self: Any, available: int) -> None:
            hint(self, available)
            if available and not first.is_set():
                first.set()
                tasks[0].cancel()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module.WatchedSet, "hint", cancelling)
            # No waiter looks by itself in time.
            patch.setattr(module, "REFRESH", 60.0)
            patch.setattr(module, "FRESH", 60.0)
            any_server.raw.zadd("jobs", {"a": 1})
            # Before any of them doubts its watcher, and looks.
            await soon(lambda: sum(task.done() for task in tasks) >= 2, module.DOUBT / 2)
            done, _ = await asyncio.wait(tasks, timeout=0.3)
        assert tasks[0].cancelled() and len(done) == 2
        assert [task.result() for task in done if not task.cancelled()] == ["a"]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await servers.aclose(client)

    asyncio.run(program())


def test_each_event_loop_has_a_watcher_of_its_own(any_server: servers.Server) -> None:
    client = any_server.asyncio_client()
    jobs: Any = redset.asyncio.SortedSet(client, "jobs")

    async def program(item: str) -> None:
        task = asyncio.create_task(jobs.pop(wait=30))
        assert await soon(lambda: waiting_now(client) == 1 and watched_now(client))
        any_server.raw.zadd("jobs", {item: 1})
        assert await task == item
        await client.connection_pool.disconnect()

    for item in ("a", "b"):
        asyncio.run(program(item))


@pytest.mark.slow(2)
def test_a_cancelled_watcher_task_starts_again(any_server: servers.Server) -> None:
    """It is cancelled with a poll in flight, while a call waits."""

    async def program() -> None:
        client = any_server.asyncio_client()
        jobs: Any = redset.asyncio.SortedSet(client, "jobs")
        first = asyncio.create_task(jobs.pop(wait=50))
        assert await soon(lambda: waiting_now(client) == 1 and watched_now(client))
        watcher: Any = module._watchers[client.connection_pool]
        (watch,) = watcher._sets.values()
        with any_server.frozen():
            assert await soon(lambda: watch.asked is not None)
            watcher._task.cancel()
            assert await soon(watcher._task.done)
        anew = time.monotonic()
        second = asyncio.create_task(jobs.pop(wait=50))
        assert await soon(lambda: watch.seen > anew and waiting_now(client) == 2)
        any_server.raw.zadd("jobs", {"a": 1, "b": 2})
        assert sorted(await asyncio.gather(first, second)) == ["a", "b"]
        await servers.aclose(client)

    asyncio.run(program())


def test_a_forked_child_waits_for_itself(any_server: servers.Server) -> None:
    program = """
import os, sys, time, redset
jobs = redset.SortedSet.from_url(URL + "?client_name=forks", "jobs")
assert jobs.take(1, wait=0.3) == []   # there is a watcher now
child = os.fork()
if child == 0:
    jobs.redis.connection_pool.reset()
    print(jobs.pop(wait=40), flush=True)
    os._exit(0)
until = time.monotonic() + 30
while True:
    assert jobs.take(1, wait=0.5) == []
    tracking = [e for e in jobs.redis.client_list() if "t" in e["flags"] and e["name"] == "forks"]
    if len(tracking) >= 2 or time.monotonic() > until:
        break
assert len(tracking) == 2, tracking
jobs.redis.zadd("jobs", {"a": 1})
assert os.waitpid(child, 0)[1] == 0
jobs.redis.zadd("other", {"b": 1})
print(redset.SortedSet(jobs.redis, "other").pop(wait=30), jobs.take(1, wait=0.3))
"""
    done = children.run("-W", "ignore", "-c", program.replace("URL", repr(any_server.url)))
    assert (done.out, done.err) == ("a\nb []\n", "")


# --- failures during a wait


@pytest.mark.parametrize("face", ["sync", "asyncio"])
def test_a_server_that_is_gone_is_an_error_of_the_clients(face: str, load: Load) -> None:
    with servers.start(servers.some()) as server:
        with later(0.5, server.kill), pytest.raises((redis.ConnectionError, redis.TimeoutError)):
            start = time.monotonic()
            if face == "sync":
                SortedSet(server.client(retry=retries(0)), "jobs").pop(wait=30)
            else:
                no = servers.redis.asyncio.retry.Retry(NoBackoff(), 0)
                client = server.asyncio_client(retry=no)
                asyncio.run(redset.asyncio.SortedSet(client, "jobs").pop(wait=30))
        assert time.monotonic() - start < load.seconds(0.5 + SOON)


def test_a_server_that_restarts_is_waited_for_as_the_client_retries(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with servers.start(servers.some()) as server:
        jobs: SortedSet[str] = SortedSet(
            server.client(retry=retries(300), client_name="restarts"), "jobs"
        )

        def watched() -> bool:
            return len(watchers(server.raw, "restarts")) == 1

        with later(0.5, server.restart, lambda: server.raw.zadd("jobs", {"a": 1})):
            assert jobs.pop(wait=40) == "a"
        # It is watched again.
        with later(0, lambda: eventually(watched), lambda: server.raw.zadd("jobs", {"b": 1})):
            assert jobs.pop(wait=40) == "b"
        assert watched()
    assert len([each for each in caplog.records if "watches was lost" in each.message]) <= 1


def test_a_watching_connection_that_is_lost_is_made_again(
    any_server: servers.Server, caplog: pytest.LogCaptureFixture
) -> None:
    raw = any_server.raw

    def kill() -> None:
        assert eventually(lambda: watchers(raw, "lost") and watched_now(client))
        for each in watchers(raw, "lost"):
            raw.client_kill_filter(_id=each["id"])

    with any_server.client(retry=retries(0), client_name="lost") as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        with later(0.3, kill, lambda: None, kill, lambda: raw.zadd("jobs", {"a": 1})):
            assert jobs.pop(wait=50) == "a"
        # It was not refused, but is there again.
        with later(
            0, lambda: eventually(lambda: watchers(raw, "lost")), lambda: raw.zadd("jobs", {"b": 1})
        ):
            assert jobs.take(1, wait=50) == ["b"]
        assert len(watchers(raw, "lost")) == 1
    lost = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert 1 <= len(lost) <= 2 and "lost the connection that watches for changes" in lost[0].message


@pytest.mark.slow(5)
def test_a_server_that_closes_idle_connections_is_waited_on(any_server: servers.Server) -> None:
    any_server.raw.config_set("timeout", 1)
    try:
        with any_server.client(retry=retries(0)) as client:
            jobs: SortedSet[str] = SortedSet(client, "jobs")
            assert jobs.take(1, wait=4) == []
            with later(0.5, lambda: any_server.raw.zadd("jobs", {"a": 1})):
                assert jobs.pop(wait=30) == "a"
    finally:
        any_server.raw.config_set("timeout", 0)


def test_a_user_without_the_right_to_track_polls(
    any_server: servers.Server, caplog: pytest.LogCaptureFixture, load: Load
) -> None:
    caplog.set_level(logging.INFO, "redset")
    raw = any_server.raw
    raw.execute_command(
        "ACL", "SETUSER", "worker", "on", ">secret", "~jobs*", "+@all", "-client", "&*"
    )
    try:
        with any_server.client(
            username="worker", password="secret", protocol=2, retry=retries(0)
        ) as client:
            jobs: SortedSet[str] = SortedSet(client, "jobs")
            raw.config_resetstat()
            assert jobs.take(1, wait=2) == []
            assert 12 <= sent(raw) <= 30
            with later(0.3, lambda: raw.zadd("jobs", {"a": 1})):
                assert jobs.pop(wait=30) == "a"
        said = [each.message for each in caplog.records]
        assert (
            len(said) == 1 and "the server cannot report changes" in said[0] and "client" in said[0]
        )
    finally:
        raw.execute_command("ACL", "DELUSER", "worker")


def test_a_key_of_another_type_is_an_error_of_the_clients(make_set: Any, raw: Any) -> None:
    jobs = make_set()
    with later(0.3, lambda: raw.set("jobs", "text")), pytest.raises(Exception, match="WRONGTYPE"):
        jobs.pop(wait=30)
    raw.delete("jobs")
    with later(0.3, lambda: raw.zadd("jobs", {"a": 1})):
        assert jobs.pop(wait=30) == "a"


def test_a_server_that_is_flushed_and_forgets_its_scripts_is_waited_on(
    any_server: servers.Server,
) -> None:
    raw = any_server.raw
    with any_server.client(retry=retries(0)) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        with later(0.3, raw.flushall, raw.script_flush, lambda: raw.zadd("jobs", {"a": 1})):
            assert jobs.pop(wait=30) == "a"


def test_a_silent_server_ends_a_wait_by_the_clients_timeout(
    any_server: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    monkeypatch.setattr(module, "FRESH", 1.2)
    # redis-py 5.0.0 has no timeouts on unix sockets.
    with any_server.tcp_client(socket_timeout=1.5, retry=retries(0)) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        assert jobs.take(1, wait=0.2) == []
        # The attempt itself would fail: it is frozen while it waits.
        with any_server.frozen(), pytest.raises(redis.TimeoutError):
            jobs.pop(wait=30)
        assert jobs.take(1, wait=0.2) == []


# --- messages of the server


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"+OK\r\n", b"OK"),
        (b":-12\r\n", -12),
        (b"$3\r\na\r\n\r\n", b"a\r\n"),
        (b"$-1\r\n", None),
        (b"_\r\n", None),
        (b"*2\r\n:1\r\n*0\r\n", [1, []]),
        (b"%1\r\n$5\r\nflags\r\n~1\r\n+on\r\n", {b"flags": [b"on"]}),
        (b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n", [b"invalidate", [b"k"]]),
        (b",1.5\r\n", b"1.5"),
        (b"#t\r\n", b"t"),
    ],
)
def test_a_message_is_read_when_it_is_whole(data: bytes, value: Any) -> None:
    assert _parsed(data + b"more", 0) == (value, len(data))
    for end in range(len(data)):
        with pytest.raises(IndexError):
            _parsed(data[:end], 0)


def test_errors_and_pushes_are_distinguished_from_replies() -> None:
    assert type(_parsed(b">1\r\n+invalidate\r\n", 0)[0]) is Push
    for data in (b"-ERR no\r\n", b"!6\r\nERR no\r\n"):
        error = _parsed(data, 0)[0]
        assert type(error) is ErrorText and error.text == "ERR no"
    with pytest.raises(TrackingLost, match="the server sent b'H'"):
        _parsed(b"HTTP/1.1 400 Bad Request\r\n", 0)
    assert tracking.Tracking().is_open is False
