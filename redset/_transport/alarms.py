"""Alarms: each wakes one waiter, in its thread or its task.

The watcher of a pool rings an alarm if there may be an item, and so does a waiter that polled the
same set. The alarm then has a hint, until its waiter takes the hint. So n items wake n waiters, and
no waiter twice.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any


class Alarm:
    """Wakes one waiter, which sleeps in its thread; of a sync client."""

    __slots__ = ("_event", "hinted")

    def __init__(self) -> None:
        #: Whether there may be an item for its waiter.
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


class AsyncAlarm(Alarm):
    """Wakes one waiter, which sleeps in its task; of an asyncio client."""

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


def hint(alarms: dict[Any, None], available: int) -> None:
    """Wake as many waiters as there are items. Begin with those that were woken longest ago."""
    available -= sum(alarm.hinted for alarm in alarms)
    for alarm in [each for each in alarms if not each.hinted][: max(available, 0)]:
        del alarms[alarm]
        alarms[alarm] = None
        alarm.hinted = True
        alarm.wake()
