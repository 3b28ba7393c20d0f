"""The asyncio face's own part: its names, its client, its event loop, cancellation.

The common part is in the other modules, whose `make_set` makes sets of both faces.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import importlib.util
import inspect
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

import blocking
import pytest
import redis
import redis.asyncio
import servers
from proxy import Proxy
from redis.asyncio.connection import AbstractConnection as AsyncConnection
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff, NoBackoff

import redset
import redset.asyncio
from redset import sets
from redset._operations import adding
from redset._transport import coroutines
from redset._transport.coroutines import complete
from redset._transport.link import Link
from redset.asyncio import ScheduledSet, SortedSet, TimeSortedSet
from redset.exceptions import AddError, LockTimeout
from redset.locks import AsyncLock, Lock
from redset.scripts import script

CLASSES = ("SortedSet", "TimeSortedSet", "ScheduledSet")
LOST = (redis.ConnectionError, redis.TimeoutError)


def never() -> Retry:
    return Retry(NoBackoff(), 0)


def times(count: int) -> Retry:
    return Retry(NoBackoff(), count)


def numbered(count: int) -> list[str]:
    return [f"item-{number:06}" for number in range(count)]


def runs(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a test of a coroutine function: it runs on an event loop of its own."""

    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    run.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    run.__annotations__ = {}
    if hasattr(test, "pytestmark"):
        run.pytestmark = test.pytestmark  # type: ignore[attr-defined]
    return run


@contextlib.asynccontextmanager
async def connected(server: servers.Server, **options: Any) -> AsyncIterator[redis.asyncio.Redis]:
    client = server.asyncio_client(**options)
    try:
        yield client
    finally:
        await client.connection_pool.disconnect()


def held(client: redis.asyncio.Redis) -> int:
    """How many connections of a client's pool are taken."""
    pool: Any = client.connection_pool
    if hasattr(pool, "_in_use_connections"):
        return len(pool._in_use_connections)
    # redis-py 5.0.0's blocking pool: a queue of places, those not used yet empty.
    return len(pool._connections) - sum(1 for each in pool.pool._queue if each is not None)


async def nothing_is_left(client: redis.asyncio.Redis) -> None:
    """The connections are back, and their next users read their own replies."""
    assert held(client) == 0
    for text in ("one", "two", "three"):
        assert await client.echo(text) in (text, text.encode())
    assert await client.zcard("nothing") == 0


# --- the two faces


def shape(function: Any) -> str:
    """A signature without its types."""
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
    ]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


#: Names that are not awaited: iterated with ``async for``, or used as they are.
PLAIN = {
    "add_new", "between", "buffered", "export", "from_url", "groups", "known", "lease", "leased",
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
def test_the_faces_have_the_same_names_and_arguments(name: str) -> None:
    ours, theirs = getattr(redset.asyncio, name), getattr(sets, name)
    assert public(ours) - {"aclose"} == public(theirs) - {"close"}
    assert shape(ours) == shape(theirs)
    for method in public(ours) - {"aclose"}:
        mine, other = (inspect.getattr_static(cls, method) for cls in (ours, theirs))
        assert type(mine) is type(other), method
        if inspect.isfunction(mine):
            assert shape(mine) == shape(other), method
            assert inspect.iscoroutinefunction(mine) == (method not in PLAIN), method
    assert inspect.iscoroutinefunction(ours.aclose) and shape(ours.aclose) == "(self)"
    assert issubclass(ours, getattr(redset.asyncio, theirs.__mro__[1].__name__, object))


def test_dead_letters_and_locks_of_the_faces_have_the_same_names_and_arguments() -> None:
    for ours, theirs in (
        (redset.asyncio.DeadLetters, sets.DeadLetters),
        (redset.asyncio.Between, sets.Between),
        (AsyncLock, Lock),
    ):
        assert public(ours) == public(theirs)
        assert shape(ours) == shape(theirs)
        for method in public(ours):
            if inspect.isfunction(getattr(ours, method)):
                assert shape(getattr(ours, method)) == shape(getattr(theirs, method))
                assert inspect.iscoroutinefunction(getattr(ours, method))


def test_the_docstrings_describe_the_same_arguments_results_and_errors() -> None:
    for name in public(SortedSet) - {"aclose"}:
        mine, other = getattr(SortedSet, name).__doc__, getattr(sets.SortedSet, name).__doc__
        assert mine and other
        section = r"^ +(\w+)(?: :.*)?\n(?= +-{3,}$|.{12}\S)"
        assert re.findall(section, mine, re.M)[:1] == re.findall(section, other, re.M)[:1]
        for line in mine.splitlines():
            # An iterator is not awaited.
            called = re.sub(r"jobs\.(add_new|between|buffered|export|known|leased)\(", "", line)
            if ">>>" in line and "jobs." in called:
                asks = inspect.isfunction(getattr(SortedSet, name))
                assert "await " in line or "async " in line or not asks, line


@pytest.mark.parametrize("name", CLASSES)
def test_each_face_takes_its_own_kind_of_client_and_names_the_other_class(name: str) -> None:
    sync, awaited = redis.Redis(), redis.asyncio.Redis()

    class Generic:
        def execute_command(self, *args: Any) -> Any: ...

    class AsyncGeneric:
        async def execute_command(self, *args: Any) -> Any: ...

    for wrong in (sync, Generic()):
        with pytest.raises(TypeError, match=r"redis_client is a sync client.*redis\.asyncio\.Red"):
            getattr(redset.asyncio, name)(wrong, "jobs")
    for wrong in (awaited, AsyncGeneric()):
        with pytest.raises(TypeError, match=r"redis_client is an asyncio client.*redset\.asyncio"):
            getattr(redset, name)(wrong, "jobs")
    for nothing in (None, object()):
        with pytest.raises(TypeError, match="redis_client must be a client with execute_command"):
            getattr(redset.asyncio, name)(nothing, "jobs")
    for right in (awaited, AsyncGeneric()):
        assert repr(getattr(redset.asyncio, name)(right, "jobs")) == f"<{name} name='jobs'>"


@pytest.mark.parametrize("version", ["5.0.0", "5.0.3", "5.0.4", redis.__version__])
def test_a_client_that_cannot_but_decode_is_refused(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis, "__version__", version)
    SortedSet(redis.asyncio.Redis(), "jobs")
    decoding = redis.asyncio.Redis(decode_responses=True)
    if version < "5.0.4":
        with pytest.raises(TypeError, match=r"redis_client has decode_responses=True.*5\.0\.4"):
            SortedSet(decoding, "jobs")
    else:
        SortedSet(decoding, "jobs")


@pytest.mark.parametrize(
    ("use", "say"),
    [
        (len, r"await size\(\)"),
        (bool, r"await size\(\)"),
        (lambda s: "a" in s, r"await contains\(item\)"),
        (list, "async for"),
        (lambda s: s < s, "sync class"),
        (lambda s: s <= s, "sync class"),
        (lambda s: s > s, "sync class"),
        (lambda s: s >= s, "sync class"),
        (lambda s: s.__ior__([]), r"await update\(items\)"),
        (lambda s: s.__isub__([]), r"await discard_many\(items\)"),
        (lambda s: s.__iand__([]), "sync class"),
        (lambda s: s.__ixor__([]), "sync class"),
        (lambda s: len(s.dead), r"await size\(\)"),
        (lambda s: list(s.dead), "async for"),
        (lambda s: list(s.lease(2)), "async for lease in batch"),
        (lambda s: s & s, r"use update"),
    ],
)
def test_syntax_that_cannot_be_awaited_names_the_method_to_use(
    use: Callable[..., Any], say: str
) -> None:
    jobs: SortedSet[str] = SortedSet(redis.asyncio.Redis(), "jobs")
    with pytest.raises(TypeError, match=say):
        use(jobs)


@runs
async def test_a_batch_is_not_empty_before_it_was_awaited(any_server: servers.Server) -> None:
    async with connected(any_server) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        await jobs.add_many(["a", "b", "c"])
        batch = jobs.lease(2)
        for use in (len, bool, jobs.ack, lambda batch: batch.renew(5)):
            with pytest.raises(RuntimeError, match="a batch is awaited, or entered"):
                await use(batch)
        assert "not awaited" in repr(batch) and await jobs.size() == 3
        assert [lease.item async for lease in batch] == ["a", "b"]
        assert await batch is batch and len(batch) == 2
        assert await batch.ack() == 2


@runs
async def test_a_batch_that_failed_is_none(any_server: servers.Server) -> None:
    async with connected(any_server) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        any_server.raw.set("jobs", "of another type")
        batch = jobs.lease()
        with pytest.raises(redis.ResponseError):
            await batch
        any_server.raw.delete("jobs")
        await jobs.add("a")
        for use in (len, bool):
            with pytest.raises(RuntimeError, match="a batch is awaited"):
                use(batch)
        with pytest.raises(RuntimeError, match="awaited once, and it failed"):
            await batch


def test_asyncio_sets_are_equal_to_themselves_only() -> None:
    client = redis.asyncio.Redis()
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    assert jobs == jobs
    assert jobs != SortedSet(client, "jobs")
    assert len({jobs, SortedSet(client, "jobs")}) == 2


def test_a_sync_client_never_suspends() -> None:
    async def sleeper() -> None:
        await asyncio.sleep(0)

    coroutine = sleeper()
    with pytest.raises(AssertionError):
        complete(coroutine)
    coroutine.close()
    assert Link(redis.Redis(), list).multi  # type: ignore[arg-type]


# --- the object itself


@runs
async def test_a_set_from_a_url_closes_its_own_client_only(any_server: servers.Server) -> None:
    async with SortedSet.from_url(any_server.url, "jobs") as jobs:
        assert await jobs.add("a", 1) == 1.0
        assert await jobs.pop() == "a"
        pool = jobs.redis.connection_pool
    assert all(not connection.is_connected for connection in pool._available_connections)
    with pytest.raises(RuntimeError, match="closed"):
        await jobs.size()
    await jobs.aclose()
    async with connected(any_server) as client:
        async with SortedSet(client, "jobs") as jobs:
            await jobs.add("a")
        assert await client.zcard("jobs") == 1
    with pytest.raises(TypeError, match="url must be str, got a value of type bytes"):
        SortedSet.from_url(b"redis://", "jobs")  # type: ignore[arg-type]


@runs
async def test_a_lock_is_held_by_one_task_at_a_time(any_server: servers.Server) -> None:
    inside = most = 0
    async with connected(any_server) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs", lock_timeout=20)
        jobs.lock.poll_interval = 0.001

        async def work() -> None:
            nonlocal inside, most
            async with jobs.lock as lock:
                assert lock is jobs.lock
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0.002)
                inside -= 1

        await asyncio.gather(*(work() for _ in range(10)))
        assert most == 1
        async with jobs.lock:
            short: SortedSet[str] = SortedSet(client, "jobs", lock_timeout=0)
            with pytest.raises(LockTimeout):
                async with short.lock:
                    pass
        with pytest.raises(RuntimeError, match="not entered"):
            await jobs.lock.__aexit__(None, None, None)
        assert not await client.exists("jobs__lock")


@runs
async def test_a_cancelled_acquire_leaves_the_lock_free(any_server: servers.Server) -> None:
    async with connected(any_server) as client:
        for turns in range(40):
            jobs: SortedSet[str] = SortedSet(client, "jobs")
            jobs.lock.timeout = 0

            async def work(jobs: SortedSet[str] = jobs) -> None:
                async with jobs.lock:
                    await asyncio.sleep(0)

            await cancelled_after(turns, work(), twice=turns % 2 == 1)
            assert not await client.exists("jobs__lock")


@runs
async def test_a_cancellation_that_the_client_swallows_ends_an_acquire(
    any_server: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(any_server) as client:
        call = client.execute_command

        async def swallow(*arguments: Any) -> Any:
            await blocking.be_cancelled_at_the_end_of_a_wait_for()
            return await call(*arguments)

        for owner in ("nobody", "another"):
            async with contextlib.AsyncExitStack() as stack:
                if owner == "another":
                    await stack.enter_async_context(AsyncLock(client, "lock"))
                with monkeypatch.context() as patch, pytest.raises(asyncio.CancelledError):
                    lock = AsyncLock(client, "lock", timeout=5)
                    patch.setattr(client, "execute_command", swallow)
                    task = asyncio.ensure_future(lock.__aenter__())
                    await task
            assert not await client.exists("lock")


@runs
async def test_a_cancellation_that_the_client_swallows_ends_its_retries(
    any_server: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    retry = Retry(ConstantBackoff(0.05), 100)
    async with connected(any_server, retry=retry) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        await jobs.add("a")
        send, tries = AsyncConnection.send_packed_command, 0

        async def fail(self: Any, command: Any, **options: Any) -> None:
            nonlocal tries
            if b"jobs" not in b"".join(command):  # the greeting of a new connection
                return await send(self, command, **options)
            tries += 1
            if tries == 2:
                await blocking.be_cancelled_at_the_end_of_a_wait_for()
            raise redis.ConnectionError("no")

        with monkeypatch.context() as patch, pytest.raises(asyncio.CancelledError):
            patch.setattr(AsyncConnection, "send_packed_command", fail)
            await asyncio.ensure_future(jobs.add("b"))
        assert tries <= 3
        await jobs.add("b")
        assert await jobs.size() == 2


@runs
async def test_a_server_that_closes_a_new_connection_is_tried_as_the_policy_says(
    any_server: servers.Server,
) -> None:
    left = 0

    async def connecting(connection: Any) -> None:
        nonlocal left
        await connection.on_connect()
        left -= 1
        if left >= 0:
            connection._reader.feed_eof()

    async def pop(closed: int, retries: int) -> Any:
        nonlocal left
        left = closed
        options: Any = {"retry": times(retries), "redis_connect_func": connecting}
        async with connected(any_server, **options) as client:
            return await SortedSet(client, "jobs").pop()

    async with connected(any_server) as client:
        await SortedSet(client, "jobs").add_many(["a", "b"])
    assert [await pop(2, 1), await pop(4, 3)] == ["a", "b"]
    for closed, retries in [(2, 0), (4, 2)]:
        with pytest.raises(LOST):
            await pop(closed, retries)


@runs
async def test_a_cancellation_while_a_new_connection_is_closed_ends_the_tries(
    any_server: servers.Server,
) -> None:
    made = 0

    async def connecting(connection: Any) -> None:
        nonlocal made
        await connection.on_connect()
        made += 1
        connection._reader.feed_eof()
        if made == 2:
            await blocking.be_cancelled_at_the_end_of_a_wait_for()

    options: Any = {"retry": times(50), "redis_connect_func": connecting}
    async with connected(any_server, **options) as client:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.ensure_future(SortedSet(client, "jobs").add("a"))
    assert made <= 4


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("call", ["add", "lock"])
@runs
async def test_a_call_whose_cancellation_became_an_error_is_cancelled(
    any_server: servers.Server, call: str, counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client swallows it, and raises an error later, as of a silent server."""
    if counted and not coroutines._COUNTED:
        raise servers.Missing("Task.cancelling: not in this Python")
    monkeypatch.setattr(coroutines, "_COUNTED", counted)
    send = AsyncConnection.send_packed_command

    async def fail(self: Any, command: Any, **options: Any) -> None:
        if b"jobs" not in b"".join(command):  # the greeting of a new connection
            return await send(self, command, **options)
        await blocking.be_cancelled_at_the_end_of_a_wait_for()
        raise redis.ConnectionError("no")

    async with connected(any_server, retry=never()) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        called = jobs.add("b") if call == "add" else jobs.lock.__aenter__()
        with monkeypatch.context() as patch, pytest.raises(asyncio.CancelledError):
            patch.setattr(AsyncConnection, "send_packed_command", fail)
            await asyncio.ensure_future(called)
        await nothing_is_left(client)


@runs
async def test_the_servers_time_is_awaited(any_server: servers.Server) -> None:
    async with connected(any_server) as client:
        later: ScheduledSet[str] = ScheduledSet(client, "later")
        assert abs(await later.scorer("x") - (await client.time())[0]) < 5
        await later.add("now")
        assert await later.pop() == "now"
        times: TimeSortedSet[str] = TimeSortedSet(client, "times")
        assert times.scorer("x") < times.scorer("y")


# --- async iterables


async def trickle(items: list[Any], every: int = 1, pause: float = 0.0) -> AsyncIterator[Any]:
    for number, item in enumerate(items):
        if number % every == 0:
            await asyncio.sleep(pause)
        yield item


@runs
@pytest.mark.parametrize("every", [1, 7, 10**9])
async def test_an_async_iterable_is_streamed(any_server: servers.Server, every: int) -> None:
    items = numbered(5000)
    async with connected(any_server) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        result = await jobs.add_many(trickle(items + items, every), [*range(5000)] * 2)
        assert result == (5000, 5000, 0, 0)
        assert await jobs.take(10_000) == items
        assert [item async for item in jobs.add_new(trickle(items + items, every))] == items
        assert await jobs.add_many(trickle([])) == (0, 0, 0, 0)
        await nothing_is_left(client)


@runs
async def test_items_are_sent_while_the_next_one_is_awaited(
    any_server: servers.Server,
) -> None:
    async with connected(any_server) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        there = asyncio.Event()

        async def slow() -> AsyncIterator[str]:
            yield "first"
            await there.wait()
            yield "second"

        task = asyncio.ensure_future(jobs.add_many(slow()))
        while not await jobs.contains("first"):
            await asyncio.sleep(0.001)
        # Nor is a connection held during the pause, once the reply is read.
        while held(client):
            await asyncio.sleep(0.001)
        there.set()
        assert (await task).added == 2


@runs
async def test_memory_holds_a_bounded_part_of_an_async_iterable(any_server: servers.Server) -> None:
    drawn = 0

    async def fast() -> AsyncIterator[str]:
        nonlocal drawn
        for item in numbered(20_000):
            drawn += 1
            yield item

    async with connected(any_server) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        new = jobs.add_new(fast())
        await anext(new)
        assert drawn <= 2 * adding.WINDOW * adding.SCRIPT_CHUNK + 1
        await new.aclose()  # type: ignore[attr-defined]
        await nothing_is_left(client)


@runs
async def test_an_async_iterable_that_fails_reports_resume_at(
    any_server: servers.Server,
) -> None:
    async def failing(count: int) -> AsyncIterator[str]:
        for item in numbered(count):
            yield item
        raise OSError("the site is gone")

    async with connected(any_server) as client:
        for count in (0, 1, 3000):
            any_server.flush()
            jobs: SortedSet[str] = SortedSet(client, "jobs")
            with pytest.raises(AddError, match="the site is gone") as caught:
                await jobs.add_many(failing(count))
            assert caught.value.resume_at == caught.value.result.added == count
            assert isinstance(caught.value.__cause__, OSError)
            with pytest.raises(AddError, match="score ended before items"):
                await jobs.add_many(trickle(["a", "b"]), [1])
            with pytest.raises(AddError, match="score has more values"):
                await jobs.add_many(trickle(["a", "b"]), [1, 2, 3])
        await nothing_is_left(client)


@runs
async def test_an_async_iterable_is_closed_with_the_call_that_it_was_given_to(
    any_server: servers.Server,
) -> None:
    ended: list[str] = []

    async def watched() -> AsyncIterator[Any]:
        try:
            for item in numbered(3000):
                yield item
            yield object()
            await asyncio.sleep(60)
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    async with connected(any_server) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs", lambda item: len(item))
        with pytest.raises(AddError):
            await jobs.add_many(watched())
        assert ended == ["CancelledError"]
        await jobs.clear()
        task = asyncio.ensure_future(jobs.add_many(watched(), 1))
        while await jobs.size() < 3000:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["CancelledError"] * 2


def test_the_sync_face_refuses_async_iterables_and_async_scores_are_none() -> None:
    plain = sets.SortedSet(redis.Redis(), "jobs")
    with pytest.raises(TypeError, match=r"items must be an iterable, got .* .async_generator"):
        plain.add_many(trickle([]))  # type: ignore[arg-type]
    jobs: SortedSet[str] = SortedSet(redis.asyncio.Redis(), "jobs")
    with pytest.raises(TypeError, match=r"items must be an iterable, got 1 .int"):
        asyncio.run(jobs.add_many(1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"items must be an iterable of items, got 'abc' .str"):
        jobs.add_new("abc")
    with pytest.raises(TypeError, match=r"score must be .* got .*async_generator"):
        asyncio.run(jobs.add_many(["a"], trickle([1])))


# --- the event loop


async def turns_during(work: Awaitable[Any]) -> int:
    """How many turns another task had while something was done."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.ensure_future(other())
    try:
        await work
    finally:
        task.cancel()
    return turns


@runs
async def test_others_have_their_turn_while_much_is_encoded_and_decoded(
    any_server: servers.Server,
) -> None:
    async with connected(any_server) as client:
        items = numbered(40_000)
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        chunks = len(items) // adding.CHUNK
        assert await turns_during(jobs.add_many(items)) > chunks / 4
        assert await turns_during(jobs.scores(items)) > chunks / 4
        assert await turns_during(jobs.take(len(items))) > chunks / 8


@runs
async def test_many_tasks_share_a_set(any_server: servers.Server) -> None:
    async with connected(any_server) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        items = numbered(6000)
        await asyncio.gather(*(jobs.add_many(items[part::10]) for part in range(10)))
        assert await jobs.size() == len(items)

        async def consume() -> list[str]:
            mine = []
            with contextlib.suppress(KeyError):
                while True:
                    mine += await jobs.take(7)
                    mine.append(await jobs.pop())
            return mine

        taken = await asyncio.gather(*(consume() for _ in range(10)))
        assert sorted(item for mine in taken for item in mine) == items
        await nothing_is_left(client)


def test_it_works_under_uvloop(any_server: servers.Server) -> None:
    if importlib.util.find_spec("uvloop") is None:
        raise servers.Missing("uvloop: not installed")
    uvloop = importlib.import_module("uvloop")

    async def program() -> None:
        assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")
        async with connected(any_server) as client:
            jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True)
            items = numbered(3000)
            assert (await jobs.add_many(trickle(items))).added == 3000
            assert [item async for item in jobs] == items
            assert await jobs.take(5000) == items
            assert (await jobs.add_many(items)).refused == 3000
            task = asyncio.ensure_future(jobs.seen_many(items * 10))
            await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await nothing_is_left(client)

    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(program())
    finally:
        loop.close()


# --- cancellation

CALLS: dict[str, Callable[[SortedSet[Any], list[str]], Awaitable[Any]]] = {
    "add": lambda jobs, items: jobs.add(items[0]),
    "add_many": lambda jobs, items: jobs.add_many(items),
    "add_many of a generator": lambda jobs, items: jobs.add_many(iter(items)),
    "add_many of an async generator": lambda jobs, items: jobs.add_many(trickle(items, 100)),
    "take": lambda jobs, items: jobs.take(4000),
    "pop": lambda jobs, items: jobs.pop(),
    "peek_many": lambda jobs, items: jobs.peek_many(3000),
    "discard_many": lambda jobs, items: jobs.discard_many(items),
    "stats": lambda jobs, items: jobs.stats(),
    "clear": lambda jobs, items: jobs.clear(),
}


async def cancelled_after(turns: int, work: Awaitable[Any], twice: bool) -> bool:
    """Cancel something after so many turns of the loop; whether it came to that."""
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    if task.done():
        await task
        return False
    task.cancel()
    if twice:
        await asyncio.sleep(0)
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return True


@runs
@pytest.mark.parametrize("blocking_pool", [False, True])
async def test_a_cancelled_connect_leaves_no_half_made_connection_in_the_pool(
    any_server: servers.Server, blocking_pool: bool
) -> None:
    """It had neither login nor database: its next user would write to another one."""
    connecting = asyncio.Event()

    async def connect(connection: Any) -> None:
        if not connecting.is_set():
            connection._parser.on_connect(connection)
            connecting.set()
            await asyncio.sleep(60)
        await connection.on_connect()

    kind = redis.asyncio.BlockingConnectionPool if blocking_pool else redis.asyncio.ConnectionPool
    pool = kind(
        host="127.0.0.1",  # on unix sockets redis-py's asyncio connections log in twice
        port=any_server.port,
        db=3,
        max_connections=1,
        redis_connect_func=connect,
    )
    jobs: SortedSet[str] = SortedSet(redis.asyncio.Redis(connection_pool=pool), "jobs")
    for add in (lambda: jobs.add("a"), lambda: jobs.add_many(["b", "c"])):
        await pool.disconnect()
        connecting.clear()
        task = asyncio.ensure_future(add())
        await connecting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await add()
    assert any_server.client(db=3).zcard("jobs") == 3
    assert servers.keys(any_server.raw) == []
    await pool.disconnect()


@runs
@pytest.mark.parametrize("blocking_pool", [False, True])
@pytest.mark.parametrize("call", CALLS)
async def test_a_cancelled_call_leaves_no_answer_to_the_next_user(
    any_server: servers.Server, call: str, blocking_pool: bool
) -> None:
    """Cancelled at each turn of the loop that it takes, on a pool of one connection."""
    kind = redis.asyncio.BlockingConnectionPool if blocking_pool else redis.asyncio.ConnectionPool
    extra = {"timeout": 5} if blocking_pool else {}
    pool = kind(
        connection_class=redis.asyncio.UnixDomainSocketConnection,
        path=any_server.unix,
        max_connections=1,
        retry=never(),
        **extra,
    )
    client = redis.asyncio.Redis(connection_pool=pool)
    options: Any = {"remember": True} if call in ("clear", "stats") else {}
    jobs: SortedSet[Any] = SortedSet(client, "jobs", **options)
    items = numbered(2500)
    try:
        turns = 0
        while True:
            await jobs.add_many(items, again=bool(options))
            if not await cancelled_after(turns, CALLS[call](jobs, items), twice=turns % 2 == 1):
                break
            await nothing_is_left(client)
            turns += 1 if turns < 40 else 7
        assert turns > 0
    finally:
        await pool.disconnect()


@runs
async def test_a_cancelled_add_is_whole_chunks_and_adding_again_is_safe(
    any_server: servers.Server,
) -> None:
    async with connected(any_server) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        items = numbered(5000)
        for turns in range(0, 60, 3):
            await jobs.clear()
            await cancelled_after(turns, jobs.add_many(items), False)
            assert await jobs.size() % adding.CHUNK == 0
            await jobs.add_many(items)
            assert await jobs.take(10_000) == items


@runs
async def test_a_cancelled_take_loses_at_most_its_own_items(any_server: servers.Server) -> None:
    async with connected(any_server) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        items = numbered(3000)
        for turns in range(30):
            await jobs.clear()
            await jobs.add_many(items, range(3000))
            await cancelled_after(turns, jobs.take(10), False)
            assert await jobs.take(5000) in (items, items[10:])


@runs
async def test_a_call_with_a_time_limit_ends_in_time(any_server: servers.Server) -> None:
    async with connected(any_server, retry=never()) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        await jobs.add("a", 1)
        with any_server.frozen():
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(jobs.score("a"), 0.05)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(jobs.add_many(numbered(3000)), 0.05)
        await nothing_is_left(client)


@runs
async def test_a_forgotten_generator_holds_nothing(any_server: servers.Server) -> None:
    async with connected(any_server) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        new = jobs.add_new(numbered(5000))
        assert await anext(new) == "item-000000"
        assert held(client) == 0
        async for item in jobs:
            assert item == "item-000000"
            assert held(client) == 0
            break
        del new
        gc.collect()
        await nothing_is_left(client)


# --- connections that are lost


@pytest.fixture
def proxy(any_server: servers.Server) -> Iterator[Proxy]:
    with Proxy(any_server) as made:
        yield made


@contextlib.asynccontextmanager
async def through(proxy: Proxy, **options: Any) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.Redis(host="127.0.0.1", port=proxy.port, **options)
    try:
        yield client
    finally:
        await client.connection_pool.disconnect()


@runs
@pytest.mark.parametrize("flags", [{}, {"lt": True}])
async def test_adds_survive_connections_that_are_cut(proxy: Proxy, flags: Any) -> None:
    pick = random.Random(1)
    items = numbered(8000)
    async with through(proxy, retry=times(12)) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        proxy.rule = lambda command: (
            pick.choice([Proxy.CUT, Proxy.LOSE])
            if command[0].upper() in (b"ZADD", b"EVALSHA") and pick.random() < 0.15
            else None
        )
        result = await jobs.add_many(items, range(8000), **flags)
        proxy.rule = None
        assert sum(result) == 8000
        assert [item async for item in jobs] == items
        await nothing_is_left(client)


@runs
async def test_without_retries_a_lost_connection_reports_resume_at(proxy: Proxy) -> None:
    items = numbered(8000)
    async with through(proxy, retry=never()) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        seen = 0

        def third(command: list[bytes]) -> str | None:
            nonlocal seen
            seen += command[0].upper() == b"ZADD"
            return Proxy.CUT if seen == 3 else None

        proxy.rule = third
        with pytest.raises(AddError) as caught:
            await jobs.add_many(items)
        proxy.rule = None
        assert isinstance(caught.value.__cause__, LOST)
        assert caught.value.resume_at <= await jobs.size()
        await jobs.add_many(items[caught.value.resume_at :])
        assert await jobs.size() == len(items)
        await nothing_is_left(client)


@runs
async def test_a_pop_is_never_sent_twice(proxy: Proxy) -> None:
    async with through(proxy, retry=times(5)) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        await jobs.add_many(numbered(100), range(100))
        assert await jobs.pop() == "item-000000"
        proxy.rule = lambda command: Proxy.LOSE if command[0].upper() == b"ZPOPMIN" else None
        with pytest.raises(LOST):
            await jobs.pop()
        proxy.rule = None
        assert await jobs.size() == 98
        assert await jobs.pop() == "item-000002"
        await nothing_is_left(client)


@runs
async def test_scripts_flushed_in_mid_window_change_nothing(any_server: servers.Server) -> None:
    async with connected(any_server) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        items = numbered(6000)

        def flushing() -> Iterator[str]:
            for number, item in enumerate(items):
                if number % 1500 == 0:
                    any_server.raw.script_flush()
                yield item

        assert (await jobs.add_many(flushing(), lt=True)).added == 6000
        any_server.raw.script_flush()
        assert (await jobs.add_many(items, lt=True)).added == 0
        assert any_server.raw.script_exists(script("add").sha) == [True]
        await nothing_is_left(client)


@runs
async def test_a_restart_between_calls_changes_nothing(any_server: servers.Server) -> None:
    async with connected(any_server, retry=times(3)) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        await jobs.add("a", lt=True)
        any_server.restart()
        await jobs.add("a", lt=True)
        assert await jobs.pop() == "a"


@runs
async def test_without_the_right_to_load_scripts_they_are_sent_whole(
    any_server: servers.Server,
) -> None:
    raw = any_server.raw
    raw.execute_command("ACL", "SETUSER", "eve", "on", ">secret", "~*", "&*", "+@all", "-script")
    try:
        raw.script_flush()
        client = any_server.asyncio_client(username="eve", password="secret")
        jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True)
        assert (await jobs.add_many(numbered(3000))).added == 3000
        assert await jobs.add("item-000001") is None
        raw.execute_command("ACL", "SETUSER", "eve", "-eval")
        raw.script_flush()
        with pytest.raises(redis.exceptions.NoPermissionError, match="script"):
            await jobs.add("another")
        await servers.aclose(client)
    finally:
        raw.execute_command("ACL", "DELUSER", "eve")


@runs
async def test_a_single_connection_client_is_used_by_its_commands(
    any_server: servers.Server,
) -> None:
    async with any_server.asyncio_client(single_connection_client=True) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        assert not jobs._open().multi
        assert (await jobs.add_many(numbered(3000), lt=True)).added == 3000
        assert len(await jobs.take(5000)) == 3000
