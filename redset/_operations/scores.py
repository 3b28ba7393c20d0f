"""Scores: their stored form with ``ties=``, and the server's clock, whose time is a score."""

from __future__ import annotations

import math
from time import monotonic
from types import ModuleType
from typing import TYPE_CHECKING, Any

from redset._operations.replies import listed, number
from redset._transport.effects import Operation

if TYPE_CHECKING:
    from redset._operations.context import Context

#: With ``ties=`` a stored score is the user's score times this, plus the item's sequence number.
TIE = 2**40


class Scores:
    """The scores of one set: between those of the user and those that the queue stores."""

    __slots__ = ("_due", "_ties", "_wire", "clock", "mostly_queued")

    def __init__(self, wire: ModuleType, ties: str, due: bool) -> None:
        self._wire, self._ties, self._due = wire, ties, due
        #: The server's clock, made on its first use.
        self.clock: ServerClock | None = None
        #: With ``ties=``: whether most entries of the last chunk were queued already.
        self.mostly_queued = False

    def clock_ahead(self, seconds: float) -> Ahead:
        """Return a clock that is so many seconds ahead."""
        if self.clock is None:
            self.clock = ServerClock()
        return Ahead(self.clock, seconds)

    def parse(self, score: Any) -> float:
        """Check a score, and return it as a float. With ``ties=`` few scores are allowed."""
        found: float = self._wire.to_score(score, self._due)
        return self._wire.whole_score(found) if self._ties else found

    def decode(self, stored: float) -> float:
        """Return the user's score of a stored one."""
        # redset does not store infinite scores with ties=.
        return stored // TIE if self._ties and math.isfinite(stored) else stored

    def encode(self, score: float, tie: int) -> bytes:
        """Return the stored score of a score and the sequence number of its item."""
        return b"%d" % (int(score) * TIE + (tie if self._ties == "fifo" else TIE - 1 - tie))

    def tie_of(self, stored: float) -> int:
        """Return the sequence number encoded in a stored score."""
        tie = int(stored % TIE)
        return tie if self._ties == "fifo" else TIE - 1 - tie


class ServerClock:
    """The server's time, without a request for each use, and never ahead of it.

    It is the reply to TIME plus the monotonic time since that arrived. Less 0.05 % of the latter,
    since this process's clock may run fast. After a minute TIME is asked again.
    """

    __slots__ = ("_reply",)

    def __init__(self) -> None:
        #: The server's time, and the time of its reply: one value, since threads share a clock.
        self._reply = (0.0, -math.inf)

    def stale(self) -> bool:
        return monotonic() - self._reply[1] > 60.0

    def refresh(self, ctx: Context) -> Operation[None]:
        """Ask for the time, if it is stale."""
        if self.stale():
            now = yield ctx.command(b"TIME", reads=_clock)
            self._reply = now, monotonic()

    def __call__(self, item: Any = None) -> float:
        now, at = self._reply
        return now + (monotonic() - at) * 0.9995


class Ahead:
    """A server's clock, some seconds ahead: the scorer of items with a delay."""

    __slots__ = ("_clock", "_seconds", "refresh", "stale")

    def __init__(self, clock: ServerClock, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds
        self.refresh, self.stale = clock.refresh, clock.stale

    def __call__(self, item: Any = None) -> float:
        return self._clock() + self._seconds


#: Scorers by the server's time.
Clock = ServerClock | Ahead


def _clock(reply: Any) -> float:
    seconds, micros = listed(reply, 2)
    return number(seconds) + number(micros) / 1e6
