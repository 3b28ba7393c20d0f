"""The inbox: a plain set of URLs or JSON objects, from which any program feeds a crawl."""

from __future__ import annotations

import math
from collections import deque
from time import monotonic
from typing import Any

from scrapy import Request

from redset import SortedSet
from redset.scrapy.codec import load_json
from redset.scrapy.entries import Bytes

#: Seconds between two checks of an empty inbox.
PERIOD = 1.0


def request_of(item: bytes) -> Any:
    """Return the request of an item: a URL, or a JSON object with fields of a Request.

    Raises
    ------
    Exception
        If it is neither.
    """
    text = item.decode().strip()
    if not text.startswith("{"):
        return Request(text)
    return Request(**load_json(item))


class Inbox:
    """The inbox's set, for the coordinator's thread."""

    def __init__(self, client: Any, name: str, ttl: float) -> None:
        self._set: SortedSet[Any] = SortedSet(client, name, serializer=Bytes(), max_attempts=None)
        #: The same set, with which a failed item becomes a dead letter at once.
        self._refusing: SortedSet[Any] = SortedSet(client, name, serializer=Bytes(), max_attempts=1)
        self._ttl = ttl
        #: Leases, the error if no request could be made of one, and the number of adds before.
        self.over: deque[tuple[Any, str, int]] = deque()
        self._held: list[Any] = []
        self._next_look = 0.0
        self._renew_at = math.inf

    def is_busy(self) -> bool:
        """Whether there are leases to be settled."""
        return bool(self.over or self._held)

    def finished(self) -> bool:
        return not self.is_busy() and self._set.finished()

    def take(self, num: int) -> list[Any]:
        """Lease up to so many items, if a check is due."""
        now = monotonic()
        if now < self._next_look:
            return []
        leases = list(self._set.lease(num, self._ttl))
        self._next_look = now if leases else now + PERIOD
        self._held += leases
        if leases:
            self._renew_at = min(self._renew_at, now + self._ttl / 3)
        return leases

    def settle(self, written: int) -> None:
        """Settle leases whose requests are among the adds that are written."""
        now = monotonic()
        ready = [each for each in self.over if each[2] <= written]
        done = [lease for lease, error, _ in ready if not (error or lease.settled)]
        if done:
            self._set.ack(done)
        for lease, error, _ in ready:
            if error and not lease.settled:
                self._refusing.fail(lease, error)
        gone = {id(lease) for lease, _, _ in ready}
        for _ in ready:
            self.over.popleft()
        self._held = [lease for lease in self._held if id(lease) not in gone]
        if self._held and now >= self._renew_at:
            self._set.renew(self._held, self._ttl)
        self._renew_at = now + self._ttl / 3 if self._held else math.inf

    def release(self) -> None:
        """Release leases of which no request was made."""
        waiting = {id(lease) for lease, _, _ in self.over}
        back = [lease for lease in self._held if id(lease) not in waiting]
        if back:
            self._set.release(back)
        self._held = [lease for lease in self._held if id(lease) in waiting]
