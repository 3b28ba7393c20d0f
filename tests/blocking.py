"""Asyncio sets with the sync names, so that the one suite runs over both faces."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

import redset.asyncio
from redset.asyncio import AsyncBatch, AsyncWriter
from redset.sets import SortedSet

#: Everything of this process is awaited on it, one thing at a time.
LOOP = asyncio.new_event_loop()


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def wait(awaitable: Awaitable[Any]) -> Any:
    return LOOP.run_until_complete(_awaited(awaitable))


def running(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in an event loop of its own, as a reactor would."""

    @functools.wraps(test)
    def run(*args: Any, **options: Any) -> None:
        asyncio.run(test(*args, **options))

    return run


async def be_cancelled_at_the_end_of_a_wait_for() -> None:
    """Cancel the running task where `asyncio.wait_for` of Python before 3.12 swallows it."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    result = loop.create_future()
    loop.call_soon(result.set_result, None)
    loop.call_soon(task.cancel)
    await asyncio.wait_for(result, 10)


def iterate(values: AsyncIterator[Any]) -> Iterator[Any]:
    """Iterates as ``async for`` does. If it is closed early, it closes its source."""
    try:
        while True:
            try:
                value = wait(anext(values))
            except StopAsyncIteration:
                return
            yield value
    finally:
        if hasattr(values, "aclose"):
            wait(values.aclose())


def twin(cls: type[SortedSet[Any]]) -> type[Any]:
    """The asyncio class for a sync one, also for a subclass that a test made."""
    made = getattr(redset.asyncio, cls.__name__, None)
    if made is not None and cls.__module__ == "redset.sets":
        return made
    bases = tuple(twin(base) if issubclass(base, SortedSet) else base for base in cls.__bases__)
    own = {name: value for name, value in vars(cls).items() if name not in ("__dict__",)}
    return type(cls.__name__, bases, own)


class BlockingSet:
    """One asyncio set: awaitables are awaited, asynchronous iterators are iterated."""

    def __init__(self, cls: type[SortedSet[Any]], *args: Any, **options: Any) -> None:
        self.__dict__["face"] = twin(cls)(*args, **options)

    def __getattr__(self, name: str) -> Any:
        face = self.face
        value = getattr(face, "aclose" if name == "close" else name)
        if name == "dead":
            return BlockingView(value)
        if name == "between":
            return lambda *ends: BlockingView(value(*ends))
        if name == "lock":
            return BlockingLock(value)
        if name == "paused":
            return wait(value)
        if name == "scorer" or not inspect.ismethod(value):
            return value

        def call(*args: Any, **options: Any) -> Any:
            args = tuple(face_of(each) for each in args)
            result = value(*args, **options)
            if isinstance(result, AsyncBatch):
                return BlockingBatch(wait(result))
            if isinstance(result, AsyncWriter):
                return BlockingWriter(result)
            if inspect.isawaitable(result):
                return wait(result)
            return iterate(result) if hasattr(result, "__anext__") else result

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.face, name, value)

    def __len__(self) -> int:
        return int(wait(self.face.size()))

    def __bool__(self) -> bool:
        return len(self) > 0

    def __contains__(self, item: Any) -> bool:
        return bool(wait(self.face.contains(item)))

    def __iter__(self) -> Iterator[Any]:
        return iterate(self.face.__aiter__())

    def __enter__(self) -> BlockingSet:
        wait(self.face.__aenter__())
        return self

    def __exit__(self, *raised: Any) -> None:
        wait(self.face.__aexit__(*raised))

    def __repr__(self) -> str:
        return repr(self.face)


def face_of(value: Any) -> Any:
    """Return the object that a wrapper holds, also in a list."""
    if isinstance(value, (BlockingBatch, BlockingLease, BlockingSet)):
        return value.face
    if isinstance(value, list):
        return [face_of(each) for each in value]
    return value


class BlockingLease:
    """A lease of an asyncio set."""

    def __init__(self, face: Any) -> None:
        self.face = face

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.face, name)
        if not inspect.ismethod(value):
            return value
        return lambda *args, **options: wait(value(*args, **options))

    def __repr__(self) -> str:
        return repr(self.face)


class BlockingBatch:
    """A batch of an asyncio set."""

    def __init__(self, face: AsyncBatch[Any]) -> None:
        self.face = face

    __getattr__ = BlockingLease.__getattr__

    def __len__(self) -> int:
        return len(self.face)

    def __iter__(self) -> Iterator[Any]:
        return (BlockingLease(lease) for lease in iterate(self.face.__aiter__()))

    def __enter__(self) -> BlockingBatch:
        wait(self.face.__aenter__())
        return self

    def __exit__(self, *raised: Any) -> None:
        wait(self.face.__aexit__(*raised))


class BlockingWriter:
    """A writer of an asyncio set. It writes while something is waited for."""

    def __init__(self, face: AsyncWriter) -> None:
        self.face = face

    def add(self, *args: Any, **options: Any) -> None:
        wait(self.face.add(*args, **options))

    def add_many(self, *args: Any, **options: Any) -> None:
        wait(self.face.add_many(*args, **options))

    def ack(self, leases: Any) -> None:
        wait(self.face.ack(face_of(leases)))

    def __enter__(self) -> BlockingWriter:
        wait(self.face.__aenter__())
        return self

    def __exit__(self, *raised: Any) -> None:
        wait(self.face.__aexit__(*raised))

    def __repr__(self) -> str:
        return repr(self.face)


class BlockingView:
    """A part of an asyncio set."""

    def __init__(self, face: Any) -> None:
        self.face = face

    __getattr__ = BlockingLease.__getattr__
    __repr__ = BlockingLease.__repr__

    def __iter__(self) -> Iterator[Any]:
        return iterate(self.face.__aiter__())

    def __len__(self) -> int:
        return int(wait(self.face.size()))

    def __bool__(self) -> bool:
        return len(self) > 0


class BlockingLock:
    """One asyncio lock. The task that enters it must also leave it."""

    def __init__(self, lock: Any) -> None:
        self.__dict__["_of"] = lock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._of, name, value)

    def __enter__(self) -> BlockingLock:
        self.__dict__["_leave"], entered = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            async with self._of:
                entered.set()
                await self._leave.wait()

        self.__dict__["_holder"] = holder = LOOP.create_task(hold())
        first = asyncio.FIRST_COMPLETED
        wait(asyncio.wait([holder, LOOP.create_task(entered.wait())], return_when=first))
        if holder.done():
            holder.result()
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        wait(self._holder)
