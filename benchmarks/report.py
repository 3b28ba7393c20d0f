"""Writes the results as JSON, for programs, and as Markdown, for people."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.results import Profile, Result, Series, Verdict

#: Measures that are points of a plot: in the JSON, not in the Markdown.
SWEEPS = frozenset(("chunk_size", "item_size", "duplicates"))
#: The metrics that the table of a measure shows: seconds, as µs an item, and bytes.
TIMES = {"wall": "wall", "cpu": "CPU", "server": "server CPU"}
BYTES = {"queued": "B queued", "leased": "B leased", "left": "B left when done"}


def write(results: list[Result], run: dict[str, Any], stem: Path) -> None:
    """Write ``stem.json`` and ``stem.md``."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    everything = {**run, "measures": [each.as_json() for each in results]}
    stem.with_suffix(".json").write_text(json.dumps(everything, indent=1) + "\n")
    stem.with_suffix(".md").write_text(markdown(results, run))


def markdown(results: list[Result], run: dict[str, Any]) -> str:
    shown = [each for each in results if each.name not in SWEEPS]
    parts = [_head(run), _goals(shown), _missing(results, run), _missed(shown)]
    parts += ["## The measures\n"] + [_measure(each) for each in shown]
    return "\n".join(filter(None, parts))


# --- the run and its machine


def _head(run: dict[str, Any]) -> str:
    machine, noise = run["machine"], run["noise"]
    lines = ["# Benchmarks\n"]
    if run["quick"]:
        lines.append(
            "**Quick: reduced sizes.** The goals are meant for the sizes of a full run "
            "(`make bench`); these numbers say that everything works, and roughly how fast.\n"
        )
    lines += [
        f"- {run['date']}, {run['rounds']} rounds, {run['seconds']:.0f} s",
        f"- {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB; "
        f"{machine['system']}",
        f"- {run['placement']}",
        f"- a TCP round trip through the proxy takes {run['delayed_ms']:.2f} ms, without it "
        f"{run['direct_ms']:.2f} ms",
        "- noise: the same loop took "
        + ", ".join(
            f"{each['fastest_ms']:.1f} to {each['slowest_ms']:.1f} ms (median "
            f"{each['loop_ms']:.1f}; load {_number(each['load'])}) {when}"
            for when, each in noise.items()
        ),
    ]
    lines += [
        f"- environment {name}: " + ", ".join(f"{what} {which}" for what, which in found.items())
        for name, found in run["versions"].items()
    ]
    lines.append(
        "\nAll contenders of a measure run in one process each and take turns, in another order "
        "each round. A ratio is that of each round; its median is compared with the goal.\n"
    )
    return "\n".join(lines)


# --- the goals


def _goals(results: Iterable[Result]) -> str:
    rows = []
    for result in results:
        for each in result.verdicts():
            rows.append(
                (
                    each.goal.text,
                    _where(result),
                    each.goal.limit,
                    f"**{_number(each.median)}**",
                    _spread(each),
                    {True: "yes", False: "**NO**", None: ""}[each.met],
                )
            )
        for goal in result.goals:
            if (lacking := result.lacking(goal)) is not None:
                rows.append((goal.text, _where(result), goal.limit, "-", "", f"no {lacking}"))
    head = ("", "over", "goal", "median", "quartiles (range)", "met")
    return "## Goals\n\n" + _table(head, rows)


def _where(result: Result) -> str:
    return f"{result.link}, {result.server}" if result.server != "none" else ""


def _spread(verdict: Verdict) -> str:
    if len(verdict.values) == 1:
        return "one run"
    low, high = verdict.quartiles
    span = f"{_number(min(verdict.values))} to {_number(max(verdict.values))}"
    return f"{_number(low)} to {_number(high)} ({span})"


def _missing(results: Iterable[Result], run: dict[str, Any]) -> str:
    found = {f"- {name}: {why}": None for each in results for name, why in each.missing.items()}
    found |= {f"- {name} failed: {why}": None for name, why in run["failed"].items()}
    return "## Not measured\n\n" + "\n".join(found) + "\n" if found else ""


# --- the goals that were missed


def _missed(results: Iterable[Result]) -> str:
    parts = []
    for result in results:
        missed = [each.goal.text for each in result.verdicts() if each.met is False]
        if missed:
            parts.append(f"### {result.title} ({_where(result)})\n\nMissed: {'; '.join(missed)}\n")
            parts += [_profile(result, each) for each in result.profiles]
            if not result.profiles:
                parts.append("\n".join(f"- {note}" for note in result.notes) + "\n")
    return "## Where the time goes, of what missed a goal\n\n" + "\n".join(parts) if parts else ""


def _profile(result: Result, profile: Profile) -> str:
    whole = result.series[profile.contender]
    rows = [
        (
            f"{profile.contender}, the whole",
            _micro(whole.median("wall"), result),
            _micro(whole.median("cpu"), result),
        )
    ]
    rows += [
        (each.what, _micro(each.wall, result), _micro(each.cpu, result)) for each in profile.parts
    ]
    functions = [
        (
            f"`{each['function']}`".replace("|", "\\|"),
            f"{each['calls']:,}",
            f"{each['own'] * 1e3:.1f}",
            f"{each['with_callees'] * 1e3:.1f}",
        )
        for each in profile.rows
    ]
    return (
        _table((f"{profile.contender}: step", "wall, µs an item", "CPU, µs an item"), rows)
        + "\nOne round under cProfile, the functions' own time:\n\n"
        + _table(("function", "calls", "own, ms", "with callees, ms"), functions)
    )


# --- each measure


def _measure(result: Result) -> str:
    found = {metric for each in result.series.values() for metric in each.samples}
    metrics = [metric for metric in (*TIMES, *BYTES) if metric in found]
    heads = [f"{TIMES[each]}, µs an item" if each in TIMES else BYTES[each] for each in metrics]
    rows = [
        (name, *(_cell(series, metric, result) for metric in metrics), series.what)
        for name, series in result.series.items()
    ]
    lines = [f"### {result.title}\n", f"`{result.name}`: {result.size}; {_where(result)}\n"]
    lines += [_table(("contender", *heads, "what it does"), rows)] if rows else []
    lines += [f"- {each}" for each in result.notes]
    return "\n".join(lines) + "\n"


def _cell(series: Series, metric: str, result: Result) -> str:
    if metric not in series.samples:
        return ""
    median = series.median(metric)
    return _micro(median, result) if metric in TIMES else _number(median)


def _micro(seconds: float, result: Result) -> str:
    return "-" if math.isnan(seconds) else _number(seconds * 1e6 / result.items)


def _number(value: float | None) -> str:
    """Three digits, which is more than most measures are worth."""
    if value is None:
        return "?"
    digits = 2 - math.floor(math.log10(abs(value))) if value else 2
    return f"{value:,.{min(max(digits, 0), 4)}f}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
