"""Waiting of one operation until there may be an item for it.

Theory of operation. A waiter holds no connection while it sleeps. If the pool has a watcher, the
waiter gives it an alarm and sleeps until the alarm rings (`redset._transport.watcher`). Otherwise
the waiter polls the set, in turns with the other waiters of this process
(`redset._transport.polling`). It creates a watcher only after it has polled: a short wait is over
before that. A watcher may be refused, lost or late, so each round chooses again between the two.
"""

from __future__ import annotations

import math
from time import monotonic

from redset._transport.alarms import Alarm, AsyncAlarm
from redset._transport.effects import Wait
from redset._transport.polling import PERIOD, PolledSet, polled_set
from redset._transport.session import Session
from redset._transport.watcher import DOUBT, WatchAlarm, watcher_of


def _longest(effect: Wait) -> float:
    """Return the longest sleep, in seconds: short if the wait asks a function whether to end."""
    return math.inf if effect.ended is None else PERIOD


class _Progress:
    """The state of one wait."""

    __slots__ = ("checked", "polled")

    def __init__(self, checked: float) -> None:
        #: The time at which it polled for itself last, or began.
        self.checked = checked
        #: Whether it has polled, so that it may create a watcher.
        self.polled = False


class Waiter:
    """Waits for one operation: sleeps if a watcher watches, else polls in turns with others."""

    __slots__ = (
        "_alarm", "_awaits", "_hinted", "_polled", "_pool", "_session", "watch_alarm",
    )  # fmt: skip

    def __init__(self, session: Session, awaits: bool) -> None:
        self._session = session
        #: On a cluster it changes, with the node of the set.
        self._pool = session.pool()
        self._awaits = awaits
        #: Whether it returned because of a hint.
        self._hinted = False
        #: The alarm that a watcher rings, if one watches.
        self.watch_alarm: WatchAlarm | None = None
        #: The set that is polled in turns, without a watcher, and the alarm that it rings.
        self._polled: PolledSet | None = None
        self._alarm: Alarm | None = None

    async def perform(self, effect: Wait, spent: int) -> bool:
        """Wait after an attempt that sent ``spent`` commands and found nothing."""
        self._hinted = False
        self._charge(spent)
        progress = _Progress(monotonic())
        if progress.checked >= effect.until:
            return False
        while True:
            self._session.raise_swallowed()
            if effect.ended is not None and effect.ended():
                return False
            self._choose(effect, progress.polled)
            if self._is_hinted():
                self._hinted = True
                return True
            now = monotonic()
            covered = -1.0 if self.watch_alarm is None else self.watch_alarm.covered_until()
            if covered > now:
                found = await self._watch(effect, progress, now, covered)
            else:
                found = await self._poll(effect, progress, now)
            if found is not None:
                return found

    def _charge(self, spent: int) -> None:
        """Count commands against the budget of the set."""
        if self.watch_alarm is not None:
            watched = self.watch_alarm.watched
            watched.budget.charge(spent, max(len(watched.alarms), 1))
        if self._polled is not None:
            self._polled.charge(spent)

    def _choose(self, effect: Wait, create: bool) -> None:
        """Join a watcher if there is one, or create it; leave one that the server refuses.

        On a cluster it also leaves the watcher of a node that no longer has the set.
        """
        self._pool = self._session.pool()
        alarm = self.watch_alarm
        if alarm is not None and (
            alarm.watcher.is_refused()
            or alarm.watched.rejoin_at < monotonic()
            or not alarm.watcher.is_of(self._pool)
        ):
            self._leave_watcher(False)
        if self.watch_alarm is None and self._pool is not None:
            self._join_watcher(effect, create)
        if self.watch_alarm is not None and self._alarm not in (None, self.watch_alarm):
            self._leave_polled(False)  # and join it again with the alarm that both ring

    async def _watch(
        self, effect: Wait, progress: _Progress, now: float, covered: float
    ) -> bool | None:
        """Sleep while the watcher watches; poll if it may have missed a change.

        Returns whether there may be an item, or None to go on.
        """
        self._leave_polled(False)
        if now >= effect.until:
            return False
        doubt = progress.checked + DOUBT
        if now < doubt:
            await self._sleep(min(min(doubt, covered, effect.until) - now, _longest(effect)))
            return None
        progress.checked = now
        available, _ = await self._poll_once(effect)
        if available <= 0:
            return None
        self._hinted = True
        return True

    async def _poll(self, effect: Wait, progress: _Progress, now: float) -> bool | None:
        """Poll in turns with others if there is no watcher. False after the last poll."""
        polled = self._polled or self._join_polled(effect)
        # The last poll may exceed the budget.
        at = polled.turn(now >= effect.until)
        if at is None:
            progress.polled, progress.checked = True, now
            await self._poll_for_all(polled, effect, now)
            return None
        if at == math.inf:
            return False
        wake = at if now >= effect.until else min(at, effect.until)
        # From now on it may create a watcher, even if others poll.
        progress.polled = progress.polled or self._pool is not None
        await self._sleep(min(wake - now, _longest(effect)))
        return None

    def _is_hinted(self) -> bool:
        found = False
        for alarm in (self.watch_alarm, self._alarm):
            if alarm is not None and alarm.hinted:
                alarm.hinted = False
                found = True
        return found

    def _join_watcher(self, effect: Wait, create: bool) -> None:
        watcher = watcher_of(self._pool, self._awaits, create)
        if watcher is not None:
            watcher.join(effect, self)

    def _join_polled(self, effect: Wait) -> PolledSet:
        polled = polled_set(self._session.owner(), effect.poll.data, self._awaits)
        if self._alarm is None:
            # The watcher's alarm, if there is one: both ring it.
            self._alarm = self.watch_alarm or (AsyncAlarm if self._awaits else Alarm)()
        self._polled = polled
        polled.join(self._alarm)
        return polled

    async def _sleep(self, seconds: float) -> None:
        alarm = self.watch_alarm or self._alarm
        assert alarm is not None
        await alarm.sleep(max(seconds, 0.0))

    async def _poll_for_all(self, polled: PolledSet, effect: Wait, began: float) -> None:
        try:
            available, rest = await self._poll_once(effect)
        except BaseException:
            polled.note_failure()
            raise
        polled.record(began, available, rest)

    async def _poll_once(self, effect: Wait) -> tuple[int, float]:
        session = self._session
        await session.send(effect.poll)
        found: tuple[int, float] = await session.read()
        await session.close()
        return found

    def end(self, failed: bool) -> None:
        """Stop waiting; may be called again.

        With ``failed`` the operation ended early, so its hint goes to another waiter.
        """
        self._leave_polled(failed)
        self._leave_watcher(failed)

    def _leave_polled(self, failed: bool) -> None:
        if self._polled is not None and self._alarm is not None:
            self._polled.leave(self._alarm, self._alarm.hinted or (self._hinted and failed))
        self._polled = self._alarm = None

    def _leave_watcher(self, failed: bool) -> None:
        alarm = self.watch_alarm
        if alarm is None:
            return
        if self._hinted and not failed:
            alarm.watched.note_success()
        alarm.watcher.leave(alarm, alarm.hinted or (self._hinted and failed))
        self.watch_alarm = None
