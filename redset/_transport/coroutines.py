"""Running coroutines: those of a sync client in one go, those of asyncio through cancellations.

The transport is written once, with ``await``. A sync client's coroutines never suspend, so
`complete` runs one to its end. With asyncio a task may be cancelled at each ``await``. Some clients
swallow a cancellation: `heard` notes it, and `cancellations` counts it. No second one comes, so
each loop that waits or tries again must ask.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


def complete(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of a sync client, which never suspends, to its end."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    raise AssertionError("a sync client has nothing to wait for")


async def undisturbed(work: Coroutine[Any, Any, T]) -> T:
    """Await work to its end. Raise a cancellation that came in between only then."""
    task = asyncio.ensure_future(work)
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # or asyncio logs that it was never retrieved
    raise cancellation


#: Whether tasks count their cancellations.
_COUNTED = hasattr(asyncio.Task, "cancelling")
#: Cancellations that a client swallowed, by task. Python 3.11 and later count all of a task's.
_kept: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


def cancellations() -> int:
    """Return the cancellations of the running task; before Python 3.11, the swallowed ones."""
    task: Any = asyncio.current_task()
    return task.cancelling() if _COUNTED else _kept.get(task, 0)


class _Heard:
    """Awaits a client's coroutine, and notes a cancellation that a wait_for in it swallows.

    If the result is there, `asyncio.wait_for` returns it instead of raising the cancellation
    (CPython issue 86296; redis-py sends in one). A task of Python 3.10 does not count its
    cancellations. Others are not noted: async_timeout cancels the task to end its own block.
    """

    __slots__ = ("_call",)

    def __init__(self, call: Any) -> None:
        self._call = call

    def __await__(self) -> Generator[Any, Any, Any]:
        call, kept = self._call.__await__(), False
        error: BaseException | None = None
        while True:
            try:
                waits = call.send(None) if error is None else call.throw(error)
            except StopIteration as stop:
                if kept:
                    _keep()
                return stop.value
            except Exception as failure:
                # If this is the error of a time limit, async_timeout may have cancelled the task.
                if kept and "Timeout" not in type(failure).__name__:
                    _keep()
                raise
            error = None
            try:
                yield waits
            except GeneratorExit:
                call.close()
                raise
            except BaseException as thrown:
                error = thrown
                if isinstance(thrown, asyncio.CancelledError) and _is_in_wait_for(self._call):
                    kept = True


def _keep() -> None:
    task = asyncio.current_task()
    _kept[task] = _kept.get(task, 0) + 1


def _is_in_wait_for(call: Any) -> bool:
    """Return whether a suspended coroutine waits in asyncio.wait_for."""
    while call is not None:
        if getattr(call, "cr_code", None) is asyncio.wait_for.__code__:
            return True
        call = getattr(call, "cr_await", None) or getattr(call, "gi_yieldfrom", None)
    return False


def heard(call: Any) -> Any:
    """Return an awaitable that counts swallowed cancellations; a sync client's result as it is."""
    return call if _COUNTED or not hasattr(call, "cr_await") else _Heard(call)


async def attentive(call: Any) -> Any:
    """Await a client's coroutine, then raise a cancellation that it swallowed.

    It is raised in place of an error, too: a cancelled task must not try again.
    """
    before = cancellations()
    error: Exception | None = None
    try:
        result = await heard(call)
    except Exception as raised:
        error = raised
    if cancellations() > before:
        raise asyncio.CancelledError
    if error is not None:
        raise error
    return result
