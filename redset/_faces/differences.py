"""Differences between the sync and the asyncio face, in pairs: the sync class, then its twin.

`redset/sets.py` uses the sync classes. `tools/asyncio_face.py` generates `redset/asyncio.py` from
it: the same source on the asyncio classes, awaited. An asyncio set has no ``len``, ``in``,
``bool``, ``for``, comparisons by order and in-place operators, since none of them can be awaited.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Coroutine, Generator, Iterable, Iterator, MutableSet, Set
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from redset import _faces, _operations, _wire
from redset._faces.arguments import refuse_single
from redset._faces.base import Face, T, checking_of
from redset._faces.leases import Lease, Leases
from redset._transport.clients import is_cluster
from redset._transport.coroutines import complete
from redset._transport.effects import Ask, Operation, R
from redset._transport.link import AsyncLink, Link
from redset._transport.source import Source

if TYPE_CHECKING:
    from typing_extensions import Self

    from redset._faces.worker import Tasks, Threads
    from redset._operations.algebra import Comparison
    from redset._operations.glancing import SetInfo
    from redset.locks import AsyncLock, Lock

V = TypeVar("V")


class SyncFace(Face[T]):
    """Base of the sync sets: it performs operations, and has the operators."""

    __slots__ = ()
    _link_class = Link
    _client_module = "redis"
    _iterables = ("__iter__",)

    @staticmethod
    def _lock_class() -> type[Lock]:
        from redset.locks import Lock

        return Lock

    @staticmethod
    def _runner_class() -> type[Threads]:
        return _faces.worker.Threads

    if TYPE_CHECKING:

        def size(self) -> int: ...
        def update(self, items: Iterable[Any]) -> None: ...

    def _run(self, operation: Operation[R] | Ask, source: Source | None = None) -> R:
        link = self._link
        if link is None:
            link = self._open()
        return link.run(operation, source)  # type: ignore[no-any-return]

    def _complete(self, coroutine: Coroutine[Any, Any, V]) -> V:
        """Run a coroutine to its end. It is written once, with ``await``, for both faces."""
        return complete(coroutine)

    def _close(self) -> None:
        if self._link is not None:
            with contextlib.suppress(Exception):
                self._link.run(_operations.operating.report(self._ctx))
        if self._link is not None and self._owned:
            self._redis.close()
            # redis-py 5.0.0 does not disconnect the pool of such a client.
            pool = getattr(self._redis, "connection_pool", None)
            if pool is not None:
                pool.disconnect()
        self._link = None

    @staticmethod
    def _check_server(client: Any, name: str | bytes | None) -> list[str]:
        link = Link(client, _wire.DEFAULT.split)
        return link.run(checking_of(link, client, name))

    @staticmethod
    def _list_sets(client: Any, match: Any, scan: bool) -> list[SetInfo]:
        return complete(
            _faces.listing.Listing(Link(client, _wire.DEFAULT.split), client).run(match, scan)
        )

    def __len__(self) -> int:
        return self.size()

    def __bool__(self) -> bool:
        return self.size() > 0

    def __contains__(self, item: object) -> bool:
        return self._run(_operations.reading.score(self._ctx, item)) is not None

    def __ior__(self, other: Iterable[Any]) -> Self:
        self.update(other)
        return self

    def __iand__(self, other: Iterable[Any]) -> Self:
        return self._combine(
            other, _operations.algebra.intersect, _operations.algebra.intersect_items
        )

    def __isub__(self, other: Iterable[Any]) -> Self:
        return self._combine(
            other, _operations.algebra.subtract, _operations.algebra.subtract_items
        )

    def __ixor__(self, other: Iterable[Any]) -> Self:
        return self._combine(other, _operations.algebra.exclude, _operations.algebra.exclude_items)

    def _combine(self, other: Iterable[Any], with_set: Any, with_items: Any) -> Self:
        operand = self._operand(other)
        if operand is None:
            refuse_single("other", other)
            self._run(with_items(self._ctx), Source(other, None))
        else:
            self._run(with_set(self._ctx, operand))
        return self

    def _compare(self, other: object, how: Comparison) -> bool:
        awaited = isinstance(other, Face) and other._link_class is not self._link_class
        operand = None if awaited and how == "==" else self._operand(other, in_one_step=False)
        if operand is not None:
            return self._run(_operations.algebra.compare(self._ctx, operand, how))
        if isinstance(other, Set):
            return self._run(_operations.algebra.compare_items(self._ctx, other, how))
        return NotImplemented  # type: ignore[no-any-return]  # Python asks the other object

    def __eq__(self, other: object) -> bool:
        return self._compare(other, "==")

    __hash__ = object.__hash__

    def __le__(self, other: object) -> bool:
        return self._compare(other, "<=")

    def __lt__(self, other: object) -> bool:
        return self._compare(other, "<")

    def __ge__(self, other: object) -> bool:
        return self._compare(other, ">=")

    def __gt__(self, other: object) -> bool:
        return self._compare(other, ">")


MutableSet.register(SyncFace)


def _cannot(what: str, instead: str | None = None) -> TypeError:
    use = f"use {instead}" if instead else "the sync class has it"
    return TypeError(f"an asyncio set has no {what}: {use}")


class AsyncFace(Face[T]):
    """Base of the asyncio sets. Syntax that cannot be awaited names the method to use."""

    __slots__ = ()
    _link_class = AsyncLink
    _client_module = "redis.asyncio"
    _iterables = ("__iter__", "__aiter__")

    @staticmethod
    def _lock_class() -> type[AsyncLock]:
        from redset.locks import AsyncLock

        return AsyncLock

    @staticmethod
    def _runner_class() -> type[Tasks]:
        return _faces.worker.Tasks

    async def _run(self, operation: Operation[R] | Ask, source: Source | None = None) -> R:
        return await self._open().run(operation, source)  # type: ignore[no-any-return]

    async def _complete(self, coroutine: Coroutine[Any, Any, V]) -> V:
        return await coroutine

    async def _close(self) -> None:
        if self._link is not None:
            with contextlib.suppress(Exception):
                await self._link.run(_operations.operating.report(self._ctx))
        if self._link is not None and self._owned:
            client = self._redis
            # redis-py 5.0.0 has only this name for it, and does not disconnect the pool.
            await getattr(client, "aclose", client.close)()
            pool = getattr(client, "connection_pool", None)
            if pool is not None:
                await pool.disconnect()
        self._link = None

    @staticmethod
    async def _check_server(client: Any, name: str | bytes | None) -> list[str]:
        link = AsyncLink(client, _wire.DEFAULT.split)
        if is_cluster(client):
            await client.initialize()  # before that it does not know the nodes
        return await link.run(checking_of(link, client, name))

    @staticmethod
    async def _list_sets(client: Any, match: Any, scan: bool) -> list[SetInfo]:
        link = AsyncLink(client, _wire.DEFAULT.split)
        if is_cluster(client):
            await client.initialize()  # before that it does not know the nodes
        return await _faces.listing.Listing(link, client).run(match, scan)

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


class SyncView(Generic[T]):
    """Base of parts of a sync set that can be counted."""

    __slots__ = ()

    if TYPE_CHECKING:

        def size(self) -> int: ...

    def __len__(self) -> int:
        return self.size()

    def __bool__(self) -> bool:
        return self.size() > 0


class AsyncView(Generic[T]):
    """Base of parts of an asyncio set that can be counted."""

    __slots__ = ()

    def __len__(self) -> int:
        raise _cannot("len()", "await size()")

    def __bool__(self) -> bool:
        raise _cannot("bool()", "await size()")

    def __iter__(self) -> NoReturn:
        raise _cannot("for", "async for")


class SyncLeases(Leases[T]):
    """Base of a sync set's batch, which is leased when it is made."""

    __slots__ = ()

    def __init__(self, owner: Any, call: Operation[list[Any]]) -> None:
        super().__init__(owner)
        self._leases = [Lease(owner, each) for each in owner._run(call)]

    def _fetch(self) -> Self:
        return self

    def _walk(self) -> Iterator[Lease[T]]:
        return self._reached()


#: The call of a batch that is being awaited.
_BEGUN = object()


class AsyncLeases(Leases[T]):
    """Base of an asyncio set's batch, which is leased when it is awaited, entered or iterated."""

    __slots__ = ("_call",)

    def __init__(self, owner: Any, call: Any) -> None:
        super().__init__(owner)
        self._call = call

    def __repr__(self) -> str:
        if self._call is None:
            return super().__repr__()
        return f"<{type(self).__name__} of {self._owner!r}, not awaited>"

    def __iter__(self) -> NoReturn:
        raise TypeError("a batch of an asyncio set is iterated with: async for lease in batch")

    def __await__(self) -> Generator[Any, None, Self]:
        return self._fetch().__await__()

    def _fetched(self) -> list[Lease[T]]:
        if self._call is not None:
            raise RuntimeError("a batch is awaited, or entered with async with, before it is used")
        return super()._fetched()

    async def _fetch(self) -> Self:
        if self._call is None:
            return self
        call, self._call = self._call, _BEGUN
        if call is _BEGUN:
            raise RuntimeError("a batch is awaited once, and it failed: call lease() again")
        self._leases = [Lease(self._owner, each) for each in await self._owner._run(call)]
        self._call = None
        return self

    async def _walk(self) -> AsyncIterator[Lease[T]]:
        for lease in (await self._fetch())._reached():
            yield lease
