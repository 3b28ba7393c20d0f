"""Looking at a set again and again, once for all of a process who wait for it.

If nobody can tell that a set changed, those who wait look at it. They take turns: whoever comes
first when a look is due looks, and wakes as many as there are items. Looks are 20 a second at
first. While nothing comes they grow rarer, as a tenth of the time since something came last, down
to one a second: so a wait is at most a tenth longer than it must be.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from time import monotonic
from typing import Any

#: Seconds between two looks at first, and at most.
PERIOD = 0.05
SLOWEST = 1.0
#: By how much looks grow rarer: a part of the time since something came.
SLOWING = 0.1
#: What may be spent in advance: commands that come one after another at a change.
BURST = 2 * PERIOD
#: How long others leave a look to the one who is at it, in seconds; then its server may hang.
PATIENCE = 2.0
#: How long what is known of a set is kept when nobody waits for it.
LINGER = 5.0


class Pace:
    """A budget of one command in each period, of which some may be spent in advance."""

    __slots__ = ("_burst", "_period", "_spent")

    def __init__(self, period: float, burst: float) -> None:
        self._period, self._burst = period, burst
        self._spent = 0.0

    def charge(self, commands: int, shares: int = 1) -> None:
        self._spent = max(self._spent, monotonic()) + commands * self._period / shares

    def ready(self) -> float:
        """When the next command is in the budget."""
        return self._spent - self._burst

    def refill(self) -> None:
        self._spent = 0.0


class Sleeper:
    """One that waits for a set; of a sync client."""

    __slots__ = ("_event", "hinted")

    def __init__(self) -> None:
        #: Whether there may be something for it.
        self.hinted = False
        self._event: Any = self._make_event()

    def _make_event(self) -> Any:
        return threading.Event()

    def wake(self) -> None:
        self._event.set()

    async def sleep(self, seconds: float) -> None:
        """Sleep until woken. An interrupt ends it."""
        self._event.clear()
        if not self.hinted:
            self._event.wait(seconds)


class AsyncSleeper(Sleeper):
    """One that waits for a set; of an asyncio client."""

    __slots__ = ()

    def _make_event(self) -> Any:
        return None

    def wake(self) -> None:
        if self._event is not None and not self._event.done():
            self._event.set_result(None)

    async def sleep(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._event = loop.create_future()
        timer = loop.call_later(seconds, self.wake)
        try:
            if not self.hinted:
                await self._event
        finally:
            timer.cancel()
            self._event = None


def hint(sleepers: dict[Any, None], available: int) -> None:
    """Wake as many as there are items, those first that were not woken for longest."""
    available -= sum(sleeper.hinted for sleeper in sleepers)
    for sleeper in [each for each in sleepers if not each.hinted][: max(available, 0)]:
        del sleepers[sleeper]
        sleepers[sleeper] = None
        sleeper.hinted = True
        sleeper.wake()


class Rota:
    """One set that is looked at in turns."""

    __slots__ = ("_busy", "_came", "_due", "_left", "_lock", "_looked", "_pace", "sleepers")

    def __init__(self) -> None:
        #: Held for moments.
        self._lock = threading.Lock()
        #: In order: the next to be woken comes first.
        self.sleepers: dict[Sleeper, None] = {}
        self._pace = Pace(PERIOD, BURST)
        #: Until when a look is left to the one who is at it.
        self._busy = 0.0
        #: When the last look began, when the next is due, when something came, when all had left.
        self._looked = self._due = self._came = self._left = float("-inf")

    def join(self, sleeper: Sleeper) -> None:
        now = monotonic()
        with self._lock:
            if not self.sleepers and now - self._left > LINGER:
                self._came = now
                self._due = now + PERIOD
            self.sleepers[sleeper] = None

    def leave(self, sleeper: Sleeper, unspent: bool) -> None:
        """Go by one less, whose hint may be another's."""
        with self._lock:
            self.sleepers.pop(sleeper, None)
            self._left = monotonic()
            if unspent:
                self._due = self._left
                for each in self.sleepers:
                    each.wake()

    def charge(self, commands: int) -> None:
        """Count what was spent on attempts that found nothing."""
        with self._lock:
            self._pace.charge(commands, max(len(self.sleepers), 1))

    def turn(self, last: bool) -> float | None:
        """Return None if the caller is to look now, else when to ask again.

        With ``last``, the caller's time is over: infinity says that there is nothing more to see.
        """
        with self._lock:
            now = monotonic()
            if self._busy > now:
                return now + PERIOD
            if last and now - self._looked < PERIOD:
                return float("inf")
            due = max(self._due, self._pace.ready())
            if not last and now < due:
                return due
            self._busy = now + PATIENCE
            return None

    def answered(self, began: float, available: int, rest: float) -> None:
        """Take in what a look found: how many there are, and when there may be more."""
        with self._lock:
            now = monotonic()
            self._busy, self._looked = 0.0, began
            if available:
                self._came = now
            period = min(max(SLOWING * (now - self._came), PERIOD), SLOWEST)
            self._due = now + min(period, max(rest, 0.0))
            self._pace.charge(1)
            hint(self.sleepers, available)

    def failed(self) -> None:
        """A look came to nothing; somebody else may try."""
        with self._lock:
            self._busy, self._due = 0.0, monotonic() + PERIOD


_rotas: weakref.WeakKeyDictionary[Any, dict[Any, tuple[Any, Rota]]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def rota_of(owner: Any, data: bytes, awaits: bool) -> Rota:
    """Return what those share who look at a set by way of a pool or a client."""
    # Tasks of two loops cannot wake each other.
    loop = asyncio.get_running_loop() if awaits else None
    with _lock:
        try:
            known = _rotas.setdefault(owner, {})
        except TypeError:  # no hash, or no weak references
            return Rota()
        now = monotonic()
        for key, (_, rota) in list(known.items()):
            if not rota.sleepers and now - rota._left > LINGER:
                del known[key]
        found = known.get((id(loop), data))
        if found is None or found[0] is not loop:
            found = known[id(loop), data] = loop, Rota()
            found[1]._left = now
            found[1]._came = now
            found[1]._due = now + PERIOD
        return found[1]


def _after_fork() -> None:
    # Who waits in the parent does not in the child; its locks may be held.
    global _rotas, _lock
    _rotas, _lock = weakref.WeakKeyDictionary(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
