"""Figures of the sets of a server over time: what a live view shows.

It imports no library of a screen, so that a view in a terminal and one in a browser share it.

Theory of operation
-------------------

A `Watcher` looks at the sets with `list_sets`, which has at most four reading steps of 25 sets in
flight. Every `DISCOVER` seconds it asks the registry for the sets that match. In between it names
the sets it has found, which is one command and a step for each 25 of them.

Rates are differences of the counts over `SPAN` seconds: processes report every two seconds, so a
shorter span would show their rhythm. Every `STEP` seconds the rates become a point of the history,
which ends after `KEPT` points. What is kept for a set has an upper bound, and is dropped with it.
"""

from __future__ import annotations

import math
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from redset import SetInfo, list_sets
from redset.cli.connection import text_of

#: Time since the last report of a consumer after which there is none, in seconds.
SILENT = 90.0
#: Seconds between two looks at the registry, those of a rate, and those of a point of the history.
DISCOVER, SPAN, STEP = 10.0, 10.0, 10.0
#: Points of the history: half an hour.
KEPT = 180
#: Sets of one step.
TOGETHER = 25
_BLOCKS = " ▁▂▃▄▅▆▇█"


class Rates(NamedTuple):
    """Items that a set takes in, hands out, refuses and fails in a second."""

    added: float
    done: float
    refused: float
    failed: float


class View(NamedTuple):
    """A set at a look, with what only several looks show."""

    info: SetInfo
    name: str
    #: None until there are two looks.
    rates: Rates | None
    #: Seconds until the set is empty, if it goes on so. None if it does not become empty.
    left: float | None
    #: Seconds since a consumer was heard of.
    silent: float | None
    #: Whether work is available, and no consumer was heard of lately.
    is_idle: bool

    @property
    def figures(self) -> Any:
        return self.info.figures


class Look(NamedTuple):
    """All sets at one time, by name."""

    views: list[View]
    #: Commands that the look took, and its time in seconds.
    commands: int
    seconds: float
    #: Registered names whose key is not a sorted set any more.
    replaced: int = 0


class Totals(NamedTuple):
    """Sums over sets."""

    queued: int
    leased: int
    late: int
    dead: int
    rates: Rates


def silence_of(info: SetInfo) -> float | None:
    """Return the time since a consumer was heard of; None without one."""
    seen = info.counts.get("consumer_seen")
    return None if seen is None or info.figures is None else max(0, info.figures.time - seen)


def is_idle(info: SetInfo, limit: float) -> bool:
    """Return whether work is available, and no consumer was heard of for so long."""
    figures = info.figures
    if figures is None or not figures.available or figures.paused or info.options is None:
        return False
    silent = silence_of(info)
    return silent is None or silent > limit


def totals(views: Iterable[View]) -> Totals:
    """Return the sums over sets."""
    queued = leased = late = dead = 0
    rates = [0.0] * len(Rates._fields)
    for view in views:
        figures = view.figures
        queued += figures.size
        leased += figures.leased
        late += figures.late
        dead += figures.dead
        if view.rates is not None:
            rates = [total + each for total, each in zip(rates, view.rates, strict=True)]
    return Totals(queued, leased, late, dead, Rates(*rates))


def _trouble(view: View) -> tuple[Any, ...]:
    figures, rates = view.figures, view.rates or Rates(0, 0, 0, 0)
    troubles = (-(figures.dead > 0), -(figures.late > 0), -view.is_idle)
    return *troubles, -(rates.added + rates.done), -figures.size, view.name


def _busiest(place: int) -> Callable[[View], tuple[Any, ...]]:
    return lambda view: (-(view.rates or (0,) * 4)[place], -view.figures.size, view.name)


#: The orders of sets. Trouble: dead letters, late leases, no consumer, then the busiest sets.
ORDERS: dict[str, Callable[[View], Any]] = {
    "trouble": _trouble,
    "queued": lambda view: (-view.figures.size, view.name),
    "out": _busiest(1),
    "in": _busiest(0),
    "dead": lambda view: (-view.figures.dead, view.name),
    "name": lambda view: view.name,
}


class _Past:
    """Counts of the last seconds of a set, and points of the last half hour."""

    __slots__ = ("added", "due", "done", "samples")

    def __init__(self) -> None:
        #: The time and the counts of the rates' fields.
        self.samples: deque[tuple[float, tuple[int, ...]]] = deque()
        self.due = 0.0
        self.added, self.done = array("f"), array("f")

    def note(self, info: SetInfo) -> Rates | None:
        """Keep a look, and return the rates up to it."""
        assert info.figures is not None
        now, count = info.figures.time, info.counts.get
        values = (
            count("added", 0),
            count("acked", 0) + count("taken", 0),
            count("refused", 0),
            count("failed", 0),
        )
        samples = self.samples
        # The counts of a set that was cleared begin again. So does the clock of another server.
        if samples and (now <= samples[-1][0] or any(map(int.__lt__, values, samples[-1][1]))):
            samples.clear()
        samples.append((now, values))
        while len(samples) > 2 and now - samples[1][0] >= SPAN:
            samples.popleft()
        then, before = samples[0]
        if now <= then:
            return None
        seconds = now - then
        differences = (after - was for after, was in zip(values, before, strict=True))
        rates = Rates(*(each / seconds for each in differences))
        self._keep(now, rates)
        return rates

    def _keep(self, now: float, rates: Rates) -> None:
        if now < self.due or self.due > now + STEP:
            return
        # A time without looks has points without anything.
        missed = int((now - self.due) // STEP) if self.due else 0
        for points, rate in ((self.added, rates.added), (self.done, rates.done)):
            points.extend([0.0] * min(missed, KEPT))
            points.append(rate)
            del points[:-KEPT]
        self.due = now + STEP


class Watcher:
    """Looks at the sets of a server, again and again.

    It may be used by several threads: one looks at a time.

    Args:
        client: Client of the server.
        match: Pattern of the names, as `list_sets` takes it. None for all sets.
        is_cluster: Whether each set is a command of its own.
    """

    def __init__(self, client: Any, match: Any = None, is_cluster: bool = False) -> None:
        self._client, self._match, self._is_cluster = client, match, is_cluster
        self._lock = threading.Lock()
        self._names: list[str | bytes] = []
        self._discovered = -math.inf
        self._past: dict[str | bytes, _Past] = {}

    def look(self) -> Look:
        """Ask the server, and return all sets."""
        with self._lock:
            began = time.monotonic()
            if began - self._discovered >= DISCOVER or not self._names:
                infos = list_sets(self._client, self._match)
                self._discovered = began
                self._names = [info.name for info in infos]
                self._past = {
                    name: past for name in self._names if (past := self._past.get(name)) is not None
                }
            else:
                # Without those that were removed since.
                found = list_sets(self._client, self._names)
                infos = [info for info in found if info.options is not None]
            views = [self._view(info) for info in infos if info.figures is not None]
            steps = len(infos) if self._is_cluster else math.ceil(len(infos) / TOGETHER)
            replaced = sum(info.figures is None and info.options is not None for info in infos)
            return Look(views, steps + 1, time.monotonic() - began, replaced)

    def history(self, name: str | bytes) -> tuple[list[float], list[float]]:
        """Return the points of a set, a point each ten seconds: items added, and items done."""
        past = self._past.get(name)
        return ([], []) if past is None else (list(past.added), list(past.done))

    def _view(self, info: SetInfo) -> View:
        past = self._past.get(info.name)
        if past is None:
            past = self._past[info.name] = _Past()
        rates, figures = past.note(info), info.figures
        assert figures is not None
        left = None
        if rates is not None and figures.available and rates.done - rates.added > 0.05:
            left = figures.available / (rates.done - rates.added)
        idle = is_idle(info, SILENT)
        return View(info, text_of(info.name), rates, left, silence_of(info), idle)


def sparkline(values: Iterable[float], width: int) -> str:
    """Return a line of blocks, the last one at the right end."""
    last = list(values)[-width:]
    highest = max(last, default=0.0)
    if highest <= 0:
        return " " * width
    return "".join(_BLOCKS[math.ceil(each / highest * 8)] for each in last).rjust(width)
