"""Polling a set, in turns, for all operations of a process that wait for it.

Theory of operation. If no watcher reports changes (`redset._transport.watcher`), waiters poll the
set. They take turns: the first waiter that comes when a poll is due sends it, and wakes as many
waiters as there are items. At first there are 20 polls a second. While no item comes they grow
rarer: the period is a tenth of the time since the last item, up to a second. So a wait is at most a
tenth longer than it must be. Attempts that found no item count against the same budget.

A waiter that polls may be stuck with a server that hangs. After ``PATIENCE`` seconds another waiter
takes its turn.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from time import monotonic
from typing import Any

from redset._transport.alarms import Alarm, hint

#: Seconds between two polls: at first, and at most.
PERIOD = 0.05
SLOWEST = 1.0
#: The period of polls, as a part of the time since an item came.
SLOWING = 0.1
#: Seconds of the budget that may be spent in advance, by commands at a change.
BURST = 2 * PERIOD
#: Seconds that others leave a poll to the waiter that sent it. After that its server may hang.
PATIENCE = 2.0
#: Seconds that a set without waiters is kept.
LINGER = 5.0


class Budget:
    """A budget of one command in each period, of which some may be spent in advance."""

    __slots__ = ("_burst", "_period", "_spent")

    def __init__(self, period: float, burst: float) -> None:
        self._period, self._burst = period, burst
        self._spent = 0.0

    def charge(self, commands: int, shares: int = 1) -> None:
        self._spent = max(self._spent, monotonic()) + commands * self._period / shares

    def ready(self) -> float:
        """Return the time from which the next command is in the budget."""
        return self._spent - self._burst

    def refill(self) -> None:
        self._spent = 0.0


class PolledSet:
    """A set that its waiters poll in turns."""

    __slots__ = ("_budget", "_busy", "_came", "_due", "_left", "_lock", "_polled_at", "alarms")

    def __init__(self) -> None:
        #: Guards all that follows; held for moments.
        self._lock = threading.Lock()
        #: In order: the next to be woken comes first.
        self.alarms: dict[Alarm, None] = {}
        self._budget = Budget(PERIOD, BURST)
        #: The time until which a poll that is under way keeps others from polling.
        self._busy = 0.0
        #: The times at which the last poll began, the next is due, an item came, and the last
        #: waiter left.
        self._polled_at = self._due = self._came = self._left = float("-inf")

    def join(self, alarm: Alarm) -> None:
        now = monotonic()
        with self._lock:
            if not self.alarms and now - self._left > LINGER:
                self._came = now
                self._due = now + PERIOD
            self.alarms[alarm] = None

    def leave(self, alarm: Alarm, unspent: bool) -> None:
        """Count one waiter less. Its hint goes to another if it is unspent."""
        with self._lock:
            self.alarms.pop(alarm, None)
            self._left = monotonic()
            if unspent:
                self._due = self._left
                for each in self.alarms:
                    each.wake()

    def charge(self, commands: int) -> None:
        """Count commands of attempts that found nothing."""
        with self._lock:
            self._budget.charge(commands, max(len(self.alarms), 1))

    def turn(self, last: bool) -> float | None:
        """Return None if the caller is to poll now, else the time at which to ask again.

        With ``last``, the caller's time is over, and the result is infinity: no poll is due.
        """
        with self._lock:
            now = monotonic()
            if self._busy > now:
                return now + PERIOD
            if last and now - self._polled_at < PERIOD:
                return float("inf")
            due = max(self._due, self._budget.ready())
            if not last and now < due:
                return due
            self._busy = now + PATIENCE
            return None

    def record(self, began: float, available: int, rest: float) -> None:
        """Record the reply to a poll: number of items, and seconds until there may be more."""
        with self._lock:
            now = monotonic()
            self._busy, self._polled_at = 0.0, began
            if available:
                self._came = now
            period = min(max(SLOWING * (now - self._came), PERIOD), SLOWEST)
            self._due = now + min(period, max(rest, 0.0))
            self._budget.charge(1)
            hint(self.alarms, available)

    def note_failure(self) -> None:
        """Note that a poll failed, so that another waiter tries."""
        with self._lock:
            self._busy, self._due = 0.0, monotonic() + PERIOD


_polled_sets: weakref.WeakKeyDictionary[Any, dict[Any, tuple[Any, PolledSet]]] = (
    weakref.WeakKeyDictionary()
)
_lock = threading.Lock()


def polled_set(owner: Any, data: bytes, awaits: bool) -> PolledSet:
    """Return the polled set that the waiters of a pool, or of a client without one, share."""
    # Tasks of two loops cannot wake each other.
    loop = asyncio.get_running_loop() if awaits else None
    with _lock:
        try:
            known = _polled_sets.setdefault(owner, {})
        except TypeError:  # no hash, or no weak references
            return PolledSet()
        now = monotonic()
        for key, (_, polled) in list(known.items()):
            if not polled.alarms and now - polled._left > LINGER:
                del known[key]
        found = known.get((id(loop), data))
        if found is None or found[0] is not loop:
            found = known[id(loop), data] = loop, PolledSet()
            found[1]._left = now
            found[1]._came = now
            found[1]._due = now + PERIOD
        return found[1]


def _forget_polled_sets() -> None:
    # The waiters are the parent's, and another thread of it may have held the locks.
    global _polled_sets, _lock
    _polled_sets, _lock = weakref.WeakKeyDictionary(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_polled_sets)
