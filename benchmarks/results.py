"""The results, and the arithmetic that makes verdicts of them."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Goal:
    """A ratio of one contender's metric to another's, or a metric itself, and its limit.

    With ``per_item`` a time is that of one item, in microseconds. Without ``most`` and ``least``
    it is reported only.
    """

    text: str
    metric: str
    of: str
    over: str | None = None
    most: float | None = None
    least: float | None = None
    unit: str = ""
    per_item: bool = False

    @property
    def limit(self) -> str:
        if self.most is not None:
            return f"≤ {self.most:g}{self.unit}"
        if self.least is not None:
            return f"≥ {self.least:g}{self.unit}"
        return "reported"


@dataclass
class Series:
    """The times of one contender, by round."""

    what: str
    samples: dict[str, list[float]] = field(default_factory=dict)

    def add(self, samples: dict[str, float]) -> None:
        for metric, value in samples.items():
            self.samples.setdefault(metric, []).append(value)

    def median(self, metric: str) -> float:
        return statistics.median(self.samples[metric])


@dataclass(frozen=True)
class Verdict:
    """A goal and its values: one for each round."""

    goal: Goal
    values: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.values) < 2:
            return self.values[0], self.values[0]
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    @property
    def met(self) -> bool | None:
        """Return whether the median is within the limit; None without a limit."""
        if self.goal.most is not None:
            return self.median <= self.goal.most
        if self.goal.least is not None:
            return self.median >= self.goal.least
        return None

    def as_json(self) -> dict[str, Any]:
        low, high = self.quartiles
        return {
            "goal": self.goal.text,
            "limit": self.goal.limit,
            "met": self.met,
            "median": self.median,
            "quartiles": [low, high],
            "range": [min(self.values), max(self.values)],
            "values": self.values,
        }


@dataclass
class Part:
    """A step of the measured work alone, or the server's own time: for a missed goal."""

    what: str
    wall: float
    cpu: float = math.nan


@dataclass
class Profile:
    """The profile of a contender's time."""

    contender: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)


@dataclass
class Result:
    """One measure over one link: the contenders' rounds, and the goals."""

    name: str
    title: str
    link: str
    server: str
    #: Number of items of a contender in a round: the divisor of "an item".
    items: int
    size: str
    goals: list[Goal] = field(default_factory=list)
    series: dict[str, Series] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)
    #: A value of the sweep that a plot has on its axis.
    at: float | None = None

    def verdicts(self) -> list[Verdict]:
        """Return the goals of which every contender ran."""
        found = []
        for goal in self.goals:
            if self.lacking(goal) is None:
                values = self.series[goal.of].samples[goal.metric]
                if goal.per_item:
                    values = [1e6 * value / self.items for value in values]
                if goal.over is not None:
                    values = ratios(values, self.series[goal.over].samples[goal.metric])
                found.append(Verdict(goal, values))
        return found

    def lacking(self, goal: Goal) -> str | None:
        """The contender without which a goal cannot be judged."""
        for name in (goal.of, goal.over):
            if name is not None and name not in self.series:
                return name
        return None

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "link": self.link,
            "server": self.server,
            "size": self.size,
            "items": self.items,
            "at": self.at,
            "contenders": {
                name: {"what": each.what, **each.samples} for name, each in self.series.items()
            },
            "goals": [each.as_json() for each in self.verdicts()],
            "not_judged": {
                goal.text: name for goal in self.goals if (name := self.lacking(goal)) is not None
            },
            "missing": self.missing,
            "notes": self.notes,
            "profiles": [
                {
                    "contender": each.contender,
                    "functions": each.rows,
                    "parts": [
                        {"what": part.what, "wall": part.wall}
                        | ({} if math.isnan(part.cpu) else {"cpu": part.cpu})
                        for part in each.parts
                    ],
                }
                for each in self.profiles
            ],
        }


def ratios(tops: list[float], bottoms: list[float]) -> list[float]:
    """The ratio of each round: its two sides ran one after the other, on the same machine."""
    return [top / bottom for top, bottom in zip(tops, bottoms, strict=True)]
