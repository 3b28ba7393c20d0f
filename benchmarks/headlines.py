"""The five ratios that the README names and docs/plots/ratios.svg shows."""

from __future__ import annotations

from typing import Any, NamedTuple

#: The link over which they were measured.
LINK = "unix socket"
TIMES = "\N{MULTIPLICATION SIGN}"


class Headline(NamedTuple):
    """A comparison in words, and the goal of a measure that has its ratio."""

    work: str
    peer: str
    measure: str
    goal: str
    #: Whether the ratio is that of redset to the peer.
    is_inverse: bool = False


HEADLINES = (
    Headline("Adding a page's URLs", "scrapy-redis's way", "links", "SADD, ZADD wall / by page"),
    Headline(
        "Adding 200,000 items",
        "redset 0.5.1's loop of `add`",
        "add_many_051",
        "0.5.1's `add` loop wall / `add_many`",
    ),
    Headline(
        "Adding a crawl's URLs in one call",
        "pipelines of `SADD` and `ZADD`",
        "links",
        "pipelined wall / one call",
    ),
    Headline(
        "Taking 1,000 items a call",
        "redis-py's `ZPOPMIN`",
        "take",
        "`take(1000)` wall / redis-py",
        is_inverse=True,
    ),
    Headline(
        "Adding 200,000 items",
        "redis-py's `ZADD` of 1,000 at a time",
        "add_many",
        "`add_many` wall / redis-py",
        is_inverse=True,
    ),
)


def median_of(measures: list[dict[str, Any]], measure: str, goal: str) -> float | None:
    """Return the median ratio of a goal, or None if it was not measured."""
    for each in measures:
        if each["name"] == measure and each["link"] == LINK:
            for judged in each["goals"]:
                if judged["goal"] == goal:
                    return float(judged["median"])
    return None


def times_faster(measures: list[dict[str, Any]]) -> dict[Headline, float]:
    """Return how many times faster redset was, for each headline that was measured."""
    found = {}
    for each in HEADLINES:
        ratio = median_of(measures, each.measure, each.goal)
        if ratio is not None:
            found[each] = 1 / ratio if each.is_inverse else ratio
    return found


def shown(times: float) -> str:
    """Return how many times faster something is, as the README and the plot show it."""
    return f"{times:.2g} {TIMES}"
