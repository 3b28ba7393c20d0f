"""Draws the plots of the documentation from the results' JSON.

    python -m benchmarks.plots benchmarks/results/full.json docs/plots

They are SVG without a background, in colours that can be read on light and on dark pages.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

from benchmarks.headlines import shown, times_faster

#: As dark on white as it is light on black.
_INK = "#808080"
_COLOURS = {
    "redset": "#d9480f",
    "redset (fallback)": "#e8890c",
    "redset (asyncio)": "#c2255c",
    "redis-py": "#3b82c4",
    "SADD, ZADD": "#3b82c4",
    "SADD, ZADD pipelined": "#2b9a8b",
    "raw socket": _INK,
}
_OTHER = "#8465c4"

_STYLE: Any = {
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.titlesize": "medium",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.figsize": (6.4, 3.6),
    "font.size": 9,
    "grid.color": _INK,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "savefig.transparent": True,
    # Text stays text, which is small, and the same results give the same file.
    "svg.fonttype": "none",
    "svg.hashsalt": "redset",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def draw(run: dict[str, Any], directory: Path) -> list[Path]:
    """Draw the plots of which the results have the numbers; return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    drawn = []
    with matplotlib.rc_context(_STYLE):
        for name, plot in _PLOTS.items():
            figure, axes = pyplot.subplots(layout="constrained")
            if plot(axes, run["measures"]):
                if run["quick"]:
                    figure.suptitle("quick run: reduced sizes", fontsize="small", color=_INK)
                drawn.append(directory / f"{name}.svg")
                figure.savefig(drawn[-1], metadata={"Date": None})
            pyplot.close(figure)
    return drawn


def _curves(axes: Any, measures: list[dict[str, Any]], name: str, metric: str, label: str) -> bool:
    """A line for each contender of a sweep: the median, and the quartiles around it as a band."""
    points = sorted((each for each in measures if each["name"] == name), key=lambda one: one["at"])
    contenders = dict.fromkeys(who for each in points for who in each["contenders"])
    for who in contenders:
        there = [each for each in points if who in each["contenders"]]
        xs = [each["at"] for each in there]
        rounds = [
            sorted(value * 1e6 / each["items"] for value in each["contenders"][who][metric])
            for each in there
        ]
        colour = _COLOURS.get(who, _OTHER)
        axes.plot(xs, list(map(median, rounds)), color=colour, marker="o", ms=3, label=who)
        low, high = ([each[len(each) * quarter // 4] for each in rounds] for quarter in (1, 3))
        axes.fill_between(xs, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_ylabel(label)
    axes.grid(axis="y")
    if points:
        axes.legend()
    return bool(points)


def _chunk_size(axes: Any, measures: list[dict[str, Any]]) -> bool:
    axes.set_title("add_many by chunk size (lower is better)")
    axes.set_xlabel("items a request")
    axes.set_xscale("log")
    axes.set_yscale("log")
    return _curves(axes, measures, "chunk_size", "wall", "wall, µs an item")


def _item_size(axes: Any, measures: list[dict[str, Any]]) -> bool:
    axes.set_title("add_many by item size (lower is better)")
    axes.set_xlabel("JSON of an item, bytes")
    axes.set_xscale("log")
    axes.set_yscale("log")
    return _curves(axes, measures, "item_size", "cpu", "producer CPU, µs an item")


def _duplicates(axes: Any, measures: list[dict[str, Any]]) -> bool:
    axes.set_title("key= and remember=, by duplicates (lower is better)")
    axes.set_xlabel("duplicates, % of the links")
    axes.set_yscale("log")
    return _curves(axes, measures, "duplicates", "wall", "wall, µs a link")


def _peers(axes: Any, measures: list[dict[str, Any]]) -> bool:
    """Bulk adds over the unix socket: a row for each contender, its CPU and its wall."""
    found: dict[str, tuple[float, float]] = {}
    for each in measures:
        if each["name"] in ("add_many", "add_many_051") and each["link"] == "unix socket":
            for who, samples in each["contenders"].items():
                wall, cpu = (median(samples[key]) * 1e6 / each["items"] for key in ("wall", "cpu"))
                found.setdefault(who, (wall, cpu))
    # Lengths of bars mean nothing on a logarithmic axis; places do.
    names = sorted(found, key=lambda who: -found[who][0])
    for place, who in enumerate(names):
        wall, cpu = found[who]
        colour = _COLOURS.get(who, _OTHER)
        axes.plot([cpu, wall], [place, place], color=colour, alpha=0.4, lw=3, zorder=1)
        axes.scatter(cpu, place, color=colour, zorder=2)
        axes.scatter(wall, place, facecolor="none", edgecolor=colour, linewidth=1.5, zorder=2)
        # Beside the marker that is further right, in points: its size does not depend on the scale.
        axes.annotate(
            f"{cpu:.2f} / {wall:.1f}",
            (max(cpu, wall), place),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(range(len(names)), names)
    axes.set_xscale("log")
    axes.set_xlabel("µs an item: producer CPU (full) / wall (hollow)")
    axes.set_title("adding 115-byte items in bulk (lower is better)")
    axes.margins(x=0.25)
    axes.grid(axis="x")
    return bool(found)


def _ratios(axes: Any, measures: list[dict[str, Any]]) -> bool:
    """A row for each headline: how many times the peer's time redset's is."""
    found = sorted(times_faster(measures).items(), key=lambda one: one[1])
    names = [f"{each.work}\nvs {each.peer}".replace("`", "") for each, _ in found]
    for place, (_, times) in enumerate(found):
        axes.plot([1, times], [place, place], color=_COLOURS["redset"], alpha=0.4, lw=3, zorder=1)
        axes.scatter(times, place, color=_COLOURS["redset"], zorder=2)
        axes.annotate(shown(times), (times, place), (6, 0), textcoords="offset points", va="center")
    axes.axvline(1, color=_INK, lw=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_xscale("log")
    axes.set_xticks([1, 10, 100], ["equal", "10 times", "100 times"])
    axes.set_xlim(1, 250)
    axes.set_title("how many times faster redset is (more is better)")
    axes.margins(y=0.15)
    axes.grid(axis="x")
    return bool(found)


_PLOTS: dict[str, Callable[[Any, list[dict[str, Any]]], bool]] = {
    "chunk-size": _chunk_size,
    "item-size": _item_size,
    "duplicates": _duplicates,
    "peers": _peers,
    "ratios": _ratios,
}


if __name__ == "__main__":
    for file in draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])):
        print(file)
