"""Politeness over all processes: what the downloader learns of hosts, and its own delays.

Theory of operation. The server hands out a request only if its group has a free slot and its
interval is over. So the downloader must not delay the request once more: the start would come later
than the hand-out, and then too soon before that of another process. Each slot of the downloader is
replaced by one that delays only requests outside of the frontier: those of robots.txt and of media
pipelines. Scrapy's slots are private, and so is the dict of them.

AutoThrottle goes on as ever: it sets the delay of a slot. The delay is not used in this process
alone, but sent to the server as the group's interval.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

from scrapy import signals
from scrapy.core.downloader import Slot

from redset.scrapy.groups import MOST_INTERVAL, GroupOptions, Limit

#: Statuses whose Retry-After rests the host.
_BUSY = (429, 503)
#: The longest rest that a host may ask for, in seconds.
LONGEST_REST = 3600.0
#: Seconds between two messages about delays, and between two signs of life without any.
AGAIN, ALIVE = 1.0, 20.0
#: For how many seconds a sent delay is kept, to be compared with the next one.
KEPT = 600.0
#: A delay is sent if it differs from the last one by more than this part.
CHANGE = 0.05


def retry_after(headers: Any, now: float) -> float | None:
    """Return the seconds that a host asks for, at most an hour. None if it asks for none.

    A date is compared with the host's own ``Date``, if there is one: its clock may be wrong.
    """
    text = _text_of(headers, "Retry-After")
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), LONGEST_REST)
    until = _date_of(text)
    if until is None:
        return None
    here = _date_of(_text_of(headers, "Date"))
    seconds = until - (now if here is None else here)
    return min(seconds, LONGEST_REST) if seconds > 0 else None


def _text_of(headers: Any, name: str) -> str:
    found = headers.get(name) or b""
    return (found if isinstance(found, str) else bytes(found).decode("latin-1")).strip()


def _date_of(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


class Politeness:
    """Rests and limits of groups, on their way to the other processes.

    The reactor's thread notes them, and the coordinator's thread takes and sends them.

    Parameters
    ----------
    options : GroupOptions
        The groups and their limits.
    wake : callable
        Hears that a rest waits to be sent.
    slots : callable
        Returns the downloader's slots by name.
    """

    def __init__(
        self, options: GroupOptions, wake: Callable[[], None], slots: Callable[[], Any]
    ) -> None:
        self._options, self._wake, self._slots = options, wake, slots
        self._rests: deque[tuple[str, float]] = deque()
        #: The slot of each group whose delay AutoThrottle may have changed since it was sent.
        self._touched: dict[str, str] = {}
        #: The delay of each group that was sent lately, and when: the latest last.
        self._sent: dict[str, tuple[float, float]] = {}
        #: When limits were sent last, and the time before which nothing is sent again.
        self._at = self._not_before = -math.inf

    def connect(self, manager: Any) -> None:
        """Hear of each response, before the middlewares do."""
        manager.connect(self._downloaded, signals.response_downloaded)

    def _downloaded(self, response: Any, request: Any) -> None:
        options = self._options
        assert options.of is not None
        status = response.status
        if status not in _BUSY and not options.throttles:
            return
        group = options.of(request)
        if group is None:
            return
        if status in _BUSY:
            seconds = retry_after(response.headers, time.time())
            if seconds:
                self._rests.append((group, seconds))
                self._wake()
        if options.throttles:
            self._touched[group] = str(request.meta.get("download_slot", ""))

    # --- the coordinator's thread

    def rests(self) -> list[tuple[str, float]]:
        """Take the rests that were not sent yet: of each group the longest."""
        longest: dict[str, float] = {}
        while self._rests:
            group, seconds = self._rests.popleft()
            longest[group] = max(seconds, longest.get(group, 0.0))
        return list(longest.items())

    def put_back(self, rests: list[tuple[str, float]], all_limits: bool, now: float) -> None:
        """Keep rests that could not be sent, and send all limits again if they may be lost."""
        self._not_before = now + AGAIN
        self._rests.extendleft(rests)
        if all_limits:
            self._sent.clear()
            self._at = -math.inf

    def due_in(self, now: float) -> float:
        """Return the number of seconds until there is something to send."""
        held_back = max(0.0, self._not_before - now)
        if self._rests:
            return held_back
        if not (self._options.throttles or self._options.slots):
            return math.inf
        return max(held_back, self._at + (AGAIN if self._touched else ALIVE) - now)

    def limits(self, now: float) -> dict[str, Limit]:
        """Return the limits to send: those of the settings at first, then changed delays.

        The group without a name has the limits of all groups that have none of their own.
        """
        options, found = self._options, dict[str, Limit]()
        if self._at == -math.inf:
            found.update(options.slots)
            if options.throttles:
                found[""] = Limit(None, options.start)
        self._at = now
        slots, touched, self._touched = self._slots(), self._touched, {}
        for group, name in touched.items():
            slot = slots.get(name)
            if slot is None:
                continue
            delay = min(MOST_INTERVAL, float(slot.delay))
            before, _ = self._sent.get(group, (0.0, now))
            if abs(delay - before) > CHANGE * before:
                self._sent.pop(group, None)
                self._sent[group] = (delay, now)
                own = options.slots.get(group)
                found[group] = Limit(own and own.limit, delay)
        while self._sent and now - self._sent[oldest := next(iter(self._sent))][1] > KEPT:
            del self._sent[oldest]
        return found


class PoliteSlots(dict[str, Any]):
    """The downloader's slots by name. None of them delays a leased request.

    Parameters
    ----------
    slots : dict
        The slots that there are.
    is_leased : callable
        Whether a request was leased from the frontier.
    """

    def __init__(self, slots: Any, is_leased: Callable[[Any], bool]) -> None:
        class PoliteSlot(Slot):  # type: ignore[misc]
            """A slot that delays only requests outside of the frontier."""

            __slots__ = ()

            def download_delay(self) -> float:
                queue: Any = self.queue
                if queue and is_leased(queue[0][0]):
                    return 0.0
                return float(super().download_delay())

        self._kind = PoliteSlot
        super().__init__()
        for name, slot in slots.items():
            self[name] = slot

    def __setitem__(self, name: str, slot: Any) -> None:
        if type(slot) is Slot:
            slot.__class__ = self._kind
        super().__setitem__(name, slot)
