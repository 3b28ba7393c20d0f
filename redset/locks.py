"""A lock that processes share through Redis."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import secrets
import threading
import time
from typing import Any

from redset._faces.arguments import Time, finite_seconds, seconds
from redset._transport.coroutines import attentive, complete
from redset._transport.coroutines import undisturbed as to_its_end
from redset.exceptions import LockTimeout
from redset.scripts import script

__all__ = ("AsyncLock", "Lock")

log = logging.getLogger(__name__)

_TIMEOUT = 10.0
_EXPIRES = 20.0
_POLL_INTERVAL = 0.2

# Theory of operation. The key holds the Unix time of its expiry as a decimal number, as 0.5.1
# stored it, so processes of 0.5.1 can read it with float(). 15 random digits after the microseconds
# make the value unique to its holder; they are too small to change the number. Processes of 0.5.1
# take a lock over 0.01 seconds after its expiry.


class BaseLock:
    """A lock's name, times and holders, and its steps.

    It is written once, with ``await``. With a sync client nothing suspends.
    """

    # Slots keep it small. The dict, made on its first use, holds attributes that a program adds.
    __slots__ = (
        "__dict__", "__weakref__", "_entered", "expires", "key", "poll_interval", "redis",
        "timeout",
    )  # fmt: skip

    def __init__(
        self,
        redis: Any,
        key: str | bytes,
        expires: Time | None = None,
        timeout: Time | None = None,
        poll_interval: Time | None = None,
    ) -> None:
        self.redis = redis
        self.key = key
        self.expires = finite_seconds("expires", _EXPIRES if expires is None else expires)
        self.timeout = seconds("timeout", _TIMEOUT if timeout is None else timeout, most=math.inf)
        interval = _POLL_INTERVAL if poll_interval is None else poll_interval
        self.poll_interval = seconds("poll_interval", interval, most=math.inf)
        #: For each thread or task, the digits of the locks that it entered and did not leave.
        self._entered: dict[tuple[int, int, int], list[str]] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key!r}>"

    async def _take(self) -> None:
        digits, until = f"{secrets.randbelow(10**15):015}", time.monotonic() + self.timeout
        while not await self._try(digits):
            await self._sleep(self._pause(until))
        self._entered.setdefault(_here(), []).append(digits)

    async def _try(self, digits: str) -> bool:
        """Try to take it with a new holder's digits."""
        try:
            return bool(
                int(await self._run("lock", seconds=repr(float(self.expires)), digits=digits))
            )
        except asyncio.CancelledError:
            # The server may have granted the lock, and only this task can release it.
            with contextlib.suppress(Exception):
                await self._run("unlock", True, digits=digits)
            raise

    async def _release(self) -> None:
        if not int(await self._run("unlock", True, digits=self._leave())):
            log.warning(
                "lock %r was no longer held when it was released; choose a longer expires", self.key
            )

    async def _run(self, name: str, undisturbed: bool = False, **arguments: str) -> Any:
        raise NotImplementedError

    async def _sleep(self, seconds: float) -> None:
        raise NotImplementedError

    def _pause(self, until: float) -> float:
        """Return the time until the next try, in seconds."""
        left = until - time.monotonic()
        if left <= 0:
            raise LockTimeout(f"Timeout while waiting for lock {self.key!r}")
        return min(self.poll_interval, left)

    def _leave(self) -> str:
        """Remove and return the digits that were entered last."""
        here = _here()
        entered = self._entered.get(here)
        if not entered:
            raise RuntimeError(f"{self!r} was not entered in this thread or task")
        digits = entered.pop()
        if not entered:
            del self._entered[here]
        return digits

    def _ask(self, name: str, arguments: dict[str, str]) -> Any:
        # Locks are rare, so EVAL is enough: each client has it, and no script must be loaded.
        step = script(name)
        values = step.arguments.values(arguments)
        return self.redis.execute_command("EVAL", step.text, 1, self.key, *values)


class Lock(BaseLock):
    """A lock that processes share through Redis, as a context manager.

    A holder may lose the lock after `expires` seconds. It then does not release it at the end of
    the block. Several threads may use one object; one of them at a time holds the lock. The lock is
    not reentrant: a thread that holds it and enters it again waits. Processes of redset 0.5.1 may
    share it.

    Making a lock sends nothing. Each try is one round trip, and leaving is one more.

    Parameters
    ----------
    redis : client
        Any object with ``execute_command``.
    key : str or bytes
        The name of the lock.
    expires : float or timedelta, optional
        Time after which others may take the lock over, in seconds. Choose it longer than the work
        under the lock. 0: at once. Default 20.
    timeout : float or timedelta, optional
        Time to wait for the lock, in seconds. 0: one try. Default 10.
    poll_interval : float or timedelta, optional
        Time between two tries, in seconds. Default 0.2.

    Raises
    ------
    redset.exceptions.LockTimeout
        On entering, if others held the lock for the whole timeout.
    ValueError
        If one of the times is negative or NaN.

    Examples
    --------
    >>> with Lock(r, "report", expires=60):
    ...     with Lock(r, "report", timeout=0):
    ...         pass
    Traceback (most recent call last):
        ...
    redset.exceptions.LockTimeout: Timeout while waiting for lock 'report'
    """

    __slots__ = ()

    async def _run(self, name: str, undisturbed: bool = False, **arguments: str) -> Any:
        return self._ask(name, arguments)

    async def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def __enter__(self) -> Lock:
        complete(self._take())
        return self

    def __exit__(self, *_: object) -> None:
        complete(self._release())


class AsyncLock(BaseLock):
    """The same lock on an asyncio client, entered with ``async with``. One task at a time holds it.

    It takes the arguments of `Lock`. Processes that use `Lock` share it.
    """

    __slots__ = ()

    async def _run(self, name: str, undisturbed: bool = False, **arguments: str) -> Any:
        asked = self._ask(name, arguments)
        return await (to_its_end(asked) if undisturbed else attentive(asked))

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def __aenter__(self) -> AsyncLock:
        await self._take()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._release()


def _here() -> tuple[int, int, int]:
    """Return the identity of this task or thread. A forked child has another one."""
    try:
        task = id(asyncio.current_task())
    except RuntimeError:
        task = 0
    return os.getpid(), threading.get_ident(), task
