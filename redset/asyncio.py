"""The asyncio face: SortedSet, TimeSortedSet and ScheduledSet with ``await``.

The same names, arguments, results and errors as the sync face has, over the same operations; what
differs has a docstring of its own, the others are those of the sync methods.
"""

from __future__ import annotations

import contextlib
import datetime
import inspect
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, NoReturn, overload

from redset import _wire, sets
from redset._faces import leases as settling
from redset._faces.arguments import Time
from redset._faces.base import (
    Face,
    KeyOf,
    Loads,
    Options,
    Rising,
    Scorer,
    ServerTime,
    T,
    check_url,
    checking_of,
    index,
    many,
    refuse_single,
    requeueing,
    waiting_time,
    whole,
)
from redset._faces.leases import AsyncBatch, Lease
from redset._faces.worker import Consumed, Event, Tasks, Worker
from redset._faces.writer import AsyncWriter
from redset._operations import (
    adding,
    algebra,
    dead,
    known,
    leasing,
    memory,
    reading,
    taking,
    transfer,
)
from redset._operations.adding import AddResult, Flags, OnError
from redset._operations.codec import Key
from redset._operations.dead import DeadLetter
from redset._operations.leasing import Leased
from redset._operations.lines import Lines
from redset._operations.reading import Stats
from redset._transport.clients import is_cluster
from redset._transport.effects import Operation, R
from redset._transport.link import AsyncLink
from redset._transport.source import Source
from redset.locks import AsyncLock

__all__ = ("Key", "ScheduledSet", "SortedSet", "TimeSortedSet", "check_server")

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class SortedSet(Face[T]):
    """`redset.SortedSet` over an asyncio client.

    Takes the arguments of that class, with ``redis_client`` an asyncio client: ``redis.asyncio``'s,
    ``valkey.asyncio``'s, or any object whose ``execute_command`` is a coroutine function. Its
    methods are awaited and otherwise the same, but for these: `add_new`, `leased`, `export`, the
    set itself, `dead`, a batch and what `between` gives, which is not awaited, are iterated with
    ``async for``; `known` is not awaited; the set, `lock` and `lease` are entered with ``async
    with``; `close` is `aclose`; ``len``, ``in``, ``bool``, ``for``, comparisons by order and
    in-place operators raise a TypeError that names what to use. Sets may be shared by the tasks of
    one event loop.

    Encoding and decoding give other tasks a turn every few milliseconds. A call that is cancelled
    leaves no half-read connection in the client's pool. What the server did of it is done: a
    cancelled `pop` or `take` may have removed the items that it would have returned, and they are
    gone; a cancelled add may be added, and adding again is safe.

    Examples
    --------
    >>> async with SortedSet.from_url("redis://localhost:6379/0", "jobs") as jobs:  # doctest: +SKIP
    ...     await jobs.add_many(["low", "high"], score=[1, 2])
    ...     await jobs.pop()
    """

    __slots__ = ()
    _link_class = AsyncLink
    _lock_class = AsyncLock
    _iterables = ("__iter__", "__aiter__")

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: SortedSet[str],
            redis_client: Any,
            name: str | bytes,
            scorer: Scorer | None = None,
            serializer: None = None,
            lock_timeout: Time | None = None,
            lock_expires: Time | None = None,
            *,
            key: None = None,
            **options: Unpack[Options],
        ) -> None: ...

        @overload
        def __init__(
            self: SortedSet[Any],
            redis_client: Any,
            name: str | bytes,
            scorer: Scorer | None = None,
            serializer: None = None,
            lock_timeout: Time | None = None,
            lock_expires: Time | None = None,
            *,
            key: KeyOf,
            **options: Unpack[Options],
        ) -> None: ...

        @overload
        def __init__(
            self,
            redis_client: Any,
            name: str | bytes,
            scorer: Scorer | None = None,
            serializer: Loads[T] | None = None,
            lock_timeout: Time | None = None,
            lock_expires: Time | None = None,
            *,
            key: KeyOf | None = None,
            **options: Unpack[Options],
        ) -> None: ...

        @overload
        def __init__(
            self: SortedSet[Any],
            redis_client: Any,
            name: str | bytes,
            scorer: Scorer | None = None,
            serializer: object = None,
            lock_timeout: Time | None = None,
            lock_expires: Time | None = None,
            *,
            key: KeyOf | None = None,
            **options: Unpack[Options],
        ) -> None: ...

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)

    @classmethod
    def from_url(cls, url: str, name: str | bytes, *args: Any, **options: Any) -> Self:
        """Make a set on a client of its own, which `aclose` closes; not awaited.

        Parameters
        ----------
        url : str
            What ``redis.asyncio.Redis.from_url`` takes: ``redis://``, ``rediss://``, ``unix://``.
        name : str or bytes
            The set's name.
        *args, **options
            The constructor's other arguments.

        Examples
        --------
        >>> jobs = SortedSet.from_url("redis://localhost:6379/0", "jobs")  # doctest: +SKIP
        """
        import redis.asyncio

        made = cls(redis.asyncio.Redis.from_url(check_url(url)), name, *args, **options)
        made._own(url, args, options)
        return made

    @property
    def lock(self) -> AsyncLock:
        """A lock named after the set, for the caller's own use, with ``async with jobs.lock``."""
        if self._lock is None:
            self._lock = self._make_lock(None, None)
        return self._lock  # type: ignore[no-any-return]

    async def _run(self, operation: Operation[R], source: Source | None = None) -> R:
        return await self._open().run(operation, source)  # type: ignore[no-any-return]

    # Adding.

    async def add(
        self,
        item: Any,
        score: Any = None,
        *,
        nx: bool = False,
        xx: bool = False,
        gt: bool = False,
        lt: bool = False,
        again: bool = False,
        remember: bool | None = None,
    ) -> float | None:
        flags = Flags(nx, xx, gt, lt, again, remember)
        return await self._run(adding.add(self._ctx, item, score, flags))

    async def add_many(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        score: Any = None,
        *,
        nx: bool = False,
        xx: bool = False,
        gt: bool = False,
        lt: bool = False,
        again: bool = False,
        remember: bool | None = None,
        errors: str | OnError = "raise",
    ) -> AddResult:
        return await self._run(
            *self._adding(items, score, Flags(nx, xx, gt, lt, again, remember), errors, False)
        )

    def add_new(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        score: Any = None,
        *,
        nx: bool = False,
        xx: bool = False,
        gt: bool = False,
        lt: bool = False,
        again: bool = False,
        remember: bool | None = None,
        errors: str | OnError = "raise",
    ) -> AsyncIterator[T]:
        operation, source = self._adding(
            items, score, Flags(nx, xx, gt, lt, again, remember), errors, True
        )
        return self._open().iterate(operation, source)  # type: ignore[no-any-return]

    def buffered(
        self, max_items: int = 1000, max_delay: Time = 0.1, max_pending: int = 10_000
    ) -> AsyncWriter:
        """Make a writer that adds in the background, in a task; entered with ``async with``.

        Its ``add`` and ``ack`` are awaited; otherwise as `redset.SortedSet.buffered`.

        Examples
        --------
        >>> async with jobs.buffered() as writer:
        ...     await writer.add("second", 2)
        ...     await writer.add("first", 1)
        >>> await jobs.take(10)
        ['first', 'second']
        """
        return AsyncWriter(self, max_items, max_delay, max_pending)

    # Handing out.

    async def pop(self, *, wait: Time = 0) -> T:
        return await self._run(taking.pop(self._ctx, waiting_time(wait)))

    async def take(self, num: int, *, wait: Time = 0, with_scores: bool = False) -> list[Any]:
        count, seconds = whole("num", num), waiting_time(wait)
        multi = self._open().multi
        return await self._run(taking.take(self._ctx, count, with_scores, multi, seconds))

    # Leasing.

    def lease(self, num: int = 1, ttl: Time = 60.0, *, wait: Time = 0) -> AsyncBatch[T]:
        """Hand out up to ``num`` items for a time, lowest first, to be settled within it.

        Awaited, or entered with ``async with``; otherwise as `redset.SortedSet.lease`.

        Examples
        --------
        >>> await jobs.add_many(["low", "high"], score=[1, 2])
        AddResult(added=2, updated=0, refused=0, failed=0)
        >>> async with jobs.lease(10, ttl=30) as batch:
        ...     async for lease in batch:
        ...         print(lease.item)
        low
        high
        """
        return AsyncBatch(self, settling.leasing_out(self, num, ttl, wait))

    async def ack(
        self,
        leases: Lease[T] | Iterable[Lease[T]],
        add: Iterable[Any] | AsyncIterable[Any] = (),
    ) -> int:
        return await self._run(*settling.acknowledging(self, leases, add))

    async def fail(
        self,
        leases: Lease[T] | Iterable[Lease[T]],
        error: BaseException | str,
        delay: Time = 0,
    ) -> int:
        return await self._run(settling.failing(self, leases, error, delay))

    async def release(
        self,
        leases: Lease[T] | Iterable[Lease[T]],
        delay: Time = 0,
        score: Any = None,
        item: Any = None,
    ) -> int:
        return await self._run(settling.releasing(self, leases, delay, score, item))

    async def renew(self, leases: Lease[T] | Iterable[Lease[T]], ttl: Time) -> int:
        return await self._run(settling.renewing(self, leases, ttl))

    def leased(self) -> AsyncIterator[Leased]:
        return self._open().iterate(leasing.leased(self._ctx))  # type: ignore[no-any-return]

    async def finished(self) -> bool:
        return await self._run(leasing.finished(self._ctx))

    async def consume(
        self,
        handler: Callable[[T], Any],
        *,
        batch: int | None = None,
        concurrency: int = 1,
        ttl: Time = 60.0,
        until_finished: bool = False,
        stop: Event | None = None,
    ) -> Consumed:
        """Work: call ``handler(item)`` for item after item, until there is a reason to stop.

        The handler may be a coroutine function, and what it returns an asynchronous iterable. Up to
        ``concurrency`` of them run at a time, each in a task. ``stop`` is an `asyncio.Event`. A
        cancellation lets what runs finish, and gives the rest back; a second one cancels the
        handlers. Otherwise as `redset.SortedSet.consume`.

        Examples
        --------
        >>> await jobs.add_many(["a", "b"])
        AddResult(added=2, updated=0, refused=0, failed=0)
        >>> async def handle(item):
        ...     print(item)
        >>> await jobs.consume(handle, until_finished=True)
        a
        b
        Consumed(done=2, failed=0, lost=0)
        """
        return await Worker(
            self, Tasks(), handler, batch, concurrency, ttl, until_finished, stop
        ).run()

    # Looking.

    async def peek(self, position: int = 0) -> T:
        return await self._run(reading.peek(self._ctx, index("position", position)))

    async def peek_many(self, num: int) -> list[T]:
        return await self._run(reading.peek_many(self._ctx, index("num", num)))

    async def peek_score(self) -> float | None:
        return await self._run(reading.peek_score(self._ctx))

    async def score(self, item: Any) -> float | None:
        return await self._run(reading.score(self._ctx, item))

    async def scores(self, items: Iterable[Any]) -> list[float | None]:
        return await self._run(reading.scores(self._ctx, many("items", items)))

    async def get(self, item: Any) -> T | None:
        return await self._run(reading.get(self._ctx, item))

    async def contains(self, item: Any) -> bool:
        return await self.score(item) is not None

    async def size(self) -> int:
        return await self._run(reading.size(self._ctx))

    def __aiter__(self) -> AsyncIterator[T]:
        return self._open().iterate(reading.iterate(self._ctx))  # type: ignore[no-any-return]

    async def stats(self) -> Stats:
        return await self._run(reading.stats(self._ctx, self._scores_are_times))

    def between(self, min: float, max: float) -> Between[T]:
        return Between(self, min, max)

    @property
    def dead(self) -> DeadLetters:
        return DeadLetters(self)

    # Removing.

    async def discard(self, item: Any, forget: bool = False) -> bool:
        return (await self._run(memory.discard(self._ctx, [item], forget))) > 0

    async def discard_many(self, items: Iterable[Any], forget: bool = False) -> int:
        return await self._run(memory.discard(self._ctx, many("items", items), forget))

    async def remove(self, item: Any) -> None:
        if not await self.discard(item):
            raise KeyError(item)

    async def clear(self, *, keep_memory: bool = False, if_finished: bool = False) -> int:
        return await self._run(memory.clear(self._ctx, keep_memory, if_finished))

    # As a set.

    async def update(self, items: Iterable[Any] | AsyncIterable[Any]) -> None:
        other = self._operand(items)
        if other is None:
            await self.add_many(items)
        else:
            await self._run(algebra.update(self._ctx, other))

    async def isdisjoint(self, other: Iterable[Any] | AsyncIterable[Any]) -> bool:
        return await self._run(*self._disjoint(other))

    async def move_many(self, items: Iterable[Any], other: SortedSet[Any]) -> int:
        return await self._run(self._moving(items, other))

    # In and out.

    def export(self) -> AsyncIterator[str]:
        return self._open().iterate(transfer.export(self._ctx))  # type: ignore[no-any-return]

    async def restore(self, lines: Iterable[str | bytes] | AsyncIterable[str | bytes]) -> int:
        refuse_single("lines", lines, self._iterables)
        with contextlib.closing(Lines()) as aside:
            return await self._run(transfer.restore(self._ctx, aside), Source(lines, None))

    # Remembering.

    async def forget(self, item: Any) -> bool:
        return (await self._run(memory.forget(self._ctx, [item]))) > 0

    async def forget_many(self, items: Iterable[Any]) -> int:
        return await self._run(memory.forget(self._ctx, many("items", items)))

    async def seen(self, item: Any) -> bool:
        return (await self._run(memory.seen(self._ctx, [item])))[0]

    def known(self, item: Any) -> bool | None:
        return self._open().run_offline(known.knows(self._ctx, item))  # type: ignore[no-any-return]

    async def seen_many(self, items: Iterable[Any]) -> list[bool]:
        return await self._run(memory.seen(self._ctx, many("items", items)))

    # The object itself.

    async def aclose(self) -> None:
        """Close the client that `from_url` made; one that was passed in stays open.

        The set cannot be used afterwards.
        """
        if self._link is not None and self._owned:
            client = self._redis
            # redis-py 5.0.0 has no other name for it, and leaves the pool as it is.
            await getattr(client, "aclose", client.close)()
            await client.connection_pool.disconnect()
        self._link = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # What cannot be awaited.

    def __len__(self) -> int:
        raise _cannot("len()", "await size()")

    def __bool__(self) -> bool:
        raise _cannot("bool()", "await size()")

    def __contains__(self, item: object) -> bool:
        raise _cannot("in", "await contains(item)")

    def __iter__(self) -> NoReturn:
        raise _cannot("for", "async for")

    def __lt__(self, other: object) -> bool:
        raise _cannot("<")

    def __le__(self, other: object) -> bool:
        raise _cannot("<=")

    def __gt__(self, other: object) -> bool:
        raise _cannot(">")

    def __ge__(self, other: object) -> bool:
        raise _cannot(">=")

    def __ior__(self, other: object) -> Self:
        raise _cannot("|=", "await update(items)")

    def __iand__(self, other: object) -> Self:
        raise _cannot("&=")

    def __isub__(self, other: object) -> Self:
        raise _cannot("-=", "await discard_many(items)")

    def __ixor__(self, other: object) -> Self:
        raise _cannot("^=")


def _cannot(what: str, instead: str | None = None) -> TypeError:
    use = f"use {instead}" if instead else "the sync class has it"
    return TypeError(f"an asyncio set has no {what}: {use}")


class TimeSortedSet(SortedSet[T]):
    """`redset.TimeSortedSet` over an asyncio client."""

    __slots__ = ()
    _scores_are_times = True

    def _default_scorer(self) -> Any:
        return Rising()


class ScheduledSet(TimeSortedSet[T]):
    """`redset.ScheduledSet` over an asyncio client."""

    __slots__ = ()
    _only_due = True

    def _default_scorer(self) -> Any:
        return ServerTime(self)

    async def add(
        self,
        item: Any,
        score: Any = None,
        *,
        nx: bool = False,
        xx: bool = False,
        gt: bool = False,
        lt: bool = False,
        again: bool = False,
        remember: bool | None = None,
        delay: Time | None = None,
    ) -> float | None:
        flags = Flags(nx, xx, gt, lt, again, remember)
        return await self._run(adding.add(self._ctx, item, score, flags, self._later(score, delay)))

    async def add_many(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        score: Any = None,
        *,
        nx: bool = False,
        xx: bool = False,
        gt: bool = False,
        lt: bool = False,
        again: bool = False,
        remember: bool | None = None,
        errors: str | OnError = "raise",
        delay: Time | None = None,
    ) -> AddResult:
        flags, later = Flags(nx, xx, gt, lt, again, remember), self._later(score, delay)
        return await self._run(*self._adding(items, score, flags, errors, False, later))

    async def available(self) -> int:
        return await self._run(reading.available(self._ctx))


class Between(Generic[T]):
    """A range of scores of a set: iterate it with ``async for``, count, take, discard."""

    __slots__ = ("_ends", "_owner", "_within")

    def __init__(self, owner: SortedSet[T], lowest: Any, highest: Any) -> None:
        self._owner = owner
        self._ends = owner._ends(lowest, highest)
        self._within = reading.range_of(owner._ctx, *self._ends)

    def __aiter__(self) -> AsyncIterator[T]:
        owner = self._owner
        return owner._open().iterate(reading.iterate(owner._ctx, self._within))  # type: ignore[no-any-return]

    async def size(self) -> int:
        return await self._owner._run(reading.size(self._owner._ctx, self._within))

    async def take(self, num: int) -> list[T]:
        owner = self._owner
        return await owner._run(taking.take_between(owner._ctx, whole("num", num), self._within))

    async def discard(self) -> int:
        return await self._owner._run(memory.discard_between(self._owner._ctx, self._within))

    def __len__(self) -> int:
        raise _cannot("len()", "await size()")

    def __bool__(self) -> bool:
        raise _cannot("bool()", "await size()")

    def __iter__(self) -> NoReturn:
        raise _cannot("for", "async for")

    __repr__ = sets.Between.__repr__


class DeadLetters:
    """The dead letters of a set: iterate them with ``async for``, count, requeue, purge them."""

    def __init__(self, owner: SortedSet[Any]) -> None:
        self._owner = owner

    def __aiter__(self) -> AsyncIterator[DeadLetter]:
        owner = self._owner
        return owner._open().iterate(dead.iterate(owner._ctx))  # type: ignore[no-any-return]

    async def size(self) -> int:
        return await self._owner._run(dead.size(self._owner._ctx))

    async def requeue(self, letters_or_ids: Iterable[DeadLetter | str] | None = None) -> int:
        return await self._owner._run(requeueing(self._owner, letters_or_ids))

    async def purge(
        self,
        before: float | datetime.datetime | datetime.timedelta | None = None,
        forget: bool = False,
    ) -> int:
        return await self._owner._run(dead.purge(self._owner._ctx, before, forget))

    def __len__(self) -> int:
        raise _cannot("len()", "await size()")

    def __iter__(self) -> NoReturn:
        raise _cannot("for", "async for")


async def check_server(client: Any, name: str | bytes | None = None) -> list[str]:
    """Return what is wrong with a server, as `redset.check_server` does over a sync client.

    Parameters
    ----------
    client : redis.asyncio.Redis, valkey.asyncio.Valkey, or any client with such a coroutine
        What a set of this module takes. Of a cluster client every primary is asked.
    name : str or bytes, optional
        A set's name: in a cluster only the node that has this set is asked.

    Returns
    -------
    list of str
        A sentence for each problem.

    Raises
    ------
    TypeError, ValueError
        If an argument cannot be used; nothing was sent.

    Examples
    --------
    >>> await check_server(r)
    []
    """
    link = AsyncLink(client, _wire.DEFAULT.split)
    if name is None and is_cluster(client):
        await client.initialize()  # before that it knows no nodes
    return await link.run(checking_of(link, client, name))


_CALL = re.compile(
    r"\b(?:jobs|pages|s)\.(?!(?:add_new|export|known|leased)\b|between\([^()]*\)(?!\.))"
    r"(?:dead\.|between\([^()]*\)\.)?\w+(?=\()"
)
_LIST = re.compile(r"list\((.*(?:add_new|export|leased|between)\(.*\))\)")
_FOR = re.compile(r"(?<!async )\bfor (?=\w+ in jobs\.export\(\))")


def _awaited(text: str) -> str:
    """Turn a sync method's docstring into that of its twin: its examples are awaited."""
    return re.sub(r"^ *(>>>|\.\.\.) .*$", _awaited_line, text, flags=re.MULTILINE)


def _awaited_line(match: re.Match[str]) -> str:
    code = _FOR.sub("async for ", _LIST.sub(r"[item async for item in \1]", match[0]))
    for call in reversed(list(_CALL.finditer(code))):
        end = _end_of_call(code, call.end())
        made = f"await {code[call.start() : end]}"
        if code[end : end + 1] in (".", "["):
            made = f"({made})"
        code = code[: call.start()] + made + code[end:]
    return code


def _end_of_call(code: str, start: int) -> int:
    """Return where the parenthesis that opens at ``start`` is closed."""
    depth = 0
    for at in range(start, len(code)):
        depth += {"(": 1, ")": -1}.get(code[at], 0)
        if depth == 0:
            return at + 1
    return len(code)


def _describe(twin: type, original: type) -> None:
    for name, own in list(vars(twin).items()):
        described = getattr(original, name, None)
        if own.__doc__ is not None or described is None or described.__doc__ is None:
            continue
        if isinstance(own, property):
            setattr(twin, name, property(own.fget, doc=_awaited(described.__doc__)))
        elif inspect.isfunction(own):
            own.__doc__ = _awaited(described.__doc__)


_describe(SortedSet, sets.SortedSet)
_describe(ScheduledSet, sets.ScheduledSet)
_describe(Between, sets.Between)
_describe(DeadLetters, sets.DeadLetters)
