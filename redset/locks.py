"""A lock in Redis."""

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

from redset._faces.arguments import Time, seconds
from redset._transport.coroutines import undisturbed
from redset.exceptions import LockTimeout
from redset.scripts import script

__all__ = ("AsyncLock", "Lock")

log = logging.getLogger(__name__)

_TIMEOUT = 10.0
_EXPIRES = 20.0
_POLL_INTERVAL = 0.2

# The key holds the Unix time of its expiry as a decimal number, as 0.5.1 stored it, so
# that its processes can read it with float(). What makes it one holder's own are 15
# random digits past the microseconds, too small to change the number. Processes of 0.5.1
# give a lock 0.01 seconds past its expiry.


class BaseLock:
    """A lock's name, times and holders."""

    # Slots keep it small; the dict, made if it is needed, takes what a program adds.
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
        self.expires = seconds("expires", _EXPIRES if expires is None else expires, most=math.inf)
        self.timeout = seconds("timeout", _TIMEOUT if timeout is None else timeout, most=math.inf)
        interval = _POLL_INTERVAL if poll_interval is None else poll_interval
        self.poll_interval = seconds("poll_interval", interval, most=math.inf)
        if math.isinf(self.expires):
            raise ValueError("expires must be finite")
        #: The digits of what each thread has entered and not left.
        self._entered: dict[tuple[int, int, int], list[str]] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key!r}>"

    def _begin(self) -> tuple[str, float]:
        """Return a new holder's digits, and until when to try."""
        return f"{secrets.randbelow(10**15):015}", time.monotonic() + self.timeout

    def _pause(self, until: float) -> float:
        """Return how long to wait before the next try."""
        left = until - time.monotonic()
        if left <= 0:
            raise LockTimeout(f"Timeout while waiting for lock {self.key!r}")
        return min(self.poll_interval, left)

    def _enter(self, digits: str) -> None:
        self._entered.setdefault(_here(), []).append(digits)

    def _leave(self) -> str:
        """Return the digits of what was entered last, which is entered no more."""
        here = _here()
        entered = self._entered.get(here)
        if not entered:
            raise RuntimeError(f"{self!r} was not entered in this thread or task")
        digits = entered.pop()
        if not entered:
            del self._entered[here]
        return digits

    def _acquire(self, digits: str) -> Any:
        return self._run("lock", seconds=repr(float(self.expires)), digits=digits)

    def _run(self, name: str, **arguments: str) -> Any:
        # Rare enough for EVAL: any client has it, and no server can have forgotten the script.
        step = script(name)
        values = step.arguments.values(arguments)
        return self.redis.execute_command("EVAL", step.text, 1, self.key, *values)

    def _warn_unless(self, released: Any) -> None:
        if not int(released):
            log.warning("Lock %r was no longer held when it was released", self.key)


class Lock(BaseLock):
    """A lock that processes share through Redis, as a context manager.

    Whoever holds it longer than `expires` may lose it to another, and then leaves it
    alone when the context ends. It knows nothing of threads: one object may be used by
    several, of which one at a time holds the lock; entered again in the same thread it
    waits like anyone else. Processes of redset 0.5.1 may share it.

    Making one sends nothing. Each try is one round trip, leaving is one more.

    Parameters
    ----------
    redis : client
        Anything with ``execute_command``.
    key : str or bytes
        The name of the lock.
    expires : float or timedelta, optional
        After so many seconds a lock counts as left by a process that died, and may be
        taken over; longer than the work done under it. 0: at once. Default 20.
    timeout : float or timedelta, optional
        How long to wait for the lock, in seconds. 0: one try. Default 10.
    poll_interval : float or timedelta, optional
        Seconds between two tries. Default 0.2.

    Raises
    ------
    redset.exceptions.LockTimeout
        On entering, if another held the lock all the time.
    ValueError
        If one of the times is negative or no number.

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

    def __enter__(self) -> Lock:
        digits, until = self._begin()
        while not int(self._acquire(digits)):
            time.sleep(self._pause(until))
        self._enter(digits)
        return self

    def __exit__(self, *_: object) -> None:
        self._warn_unless(self._run("unlock", digits=self._leave()))


class AsyncLock(BaseLock):
    """The same lock on an asyncio client, entered with ``async with``; one task at a time holds it.

    It takes the arguments of `Lock`, and is the same lock to processes that use that one.
    """

    __slots__ = ()

    async def __aenter__(self) -> AsyncLock:
        digits, until = self._begin()
        while not await self._acquired(digits):
            await asyncio.sleep(self._pause(until))
        self._enter(digits)
        return self

    async def _acquired(self, digits: str) -> bool:
        try:
            return bool(int(await self._acquire(digits)))
        except asyncio.CancelledError:
            # It may be ours by now, and nobody else would release it.
            with contextlib.suppress(Exception):
                await undisturbed(self._run("unlock", digits=digits))
            raise

    async def __aexit__(self, *_: object) -> None:
        self._warn_unless(await undisturbed(self._run("unlock", digits=self._leave())))


def _here() -> tuple[int, int, int]:
    """Name this task or thread of this process: a forked child holds none of its parent's locks."""
    try:
        task = id(asyncio.current_task())
    except RuntimeError:
        task = 0
    return os.getpid(), threading.get_ident(), task
