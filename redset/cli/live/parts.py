"""Lines and columns of the live view, made of figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.style import Style

from redset.cli.live.reading import Facts
from redset.cli.live.widgets import (
    BOLD,
    CYAN,
    DIM,
    GREEN,
    NOTHING,
    PLAIN,
    RED,
    REVERSED,
    YELLOW,
    Cell,
    GridColumn,
    Part,
)
from redset.cli.output import duration, short, shown
from redset.cli.watching import View, Watcher, sparkline, totals

#: Characters of a text of a program in a line.
LONG = 400
#: The width from which failures and memory are shown.
WIDE = 120
#: Keys of the last line that stay the longest.
FIRST = ("q", "?", "escape", "enter", "/")
DOT = Cell("·", DIM)


def amount(value: float | None, style: Style = PLAIN) -> Cell:
    """Return the cell of a number; a dot for zero."""
    if value is None:
        return NOTHING
    text = short(value if value >= 99.5 else round(value, 1))
    return Cell(text, style) if value >= 0.05 else DOT


def figure(field: str, style: Style = PLAIN) -> Callable[[View], Cell]:
    return lambda view: amount(getattr(view.figures, field), style)


def rate(field: str, style: Style) -> Callable[[View], Cell]:
    return lambda view: amount(None if view.rates is None else getattr(view.rates, field), style)


def _name(view: View) -> Cell:
    busy = view.rates is not None and view.rates.added + view.rates.done >= 0.05
    return Cell(shown(view.name, LONG), BOLD if busy else PLAIN)


def _age(view: View) -> Cell:
    age = view.figures.oldest_age
    return NOTHING if age is None else Cell(duration(age))


def _left(wide: bool) -> Callable[[View], Cell]:
    def cell(view: View) -> Cell:
        figures, silent = view.figures, view.silent
        if figures.paused:
            since = duration(max(0.0, figures.time - figures.paused.at))
            return Cell(f"PAUSED {since}" if wide else "paused", YELLOW)
        if view.is_idle:
            since = "" if silent is None else f" {duration(silent)}"
            return Cell(f"NO CONSUMER{since}" if wide else "idle", RED)
        return NOTHING if view.left is None else Cell(duration(view.left))

    return cell


def columns(
    watcher: Watcher, memory: Mapping[str | bytes, tuple[float, int | None]]
) -> list[GridColumn]:
    """Return the columns of the list of sets: more of them on a wider screen.

    Args:
        watcher: Has the history of each set.
        memory: The bytes of each set that was weighed, after the time of that.
    """

    def weight(view: View) -> Cell:
        known = memory.get(view.info.name, (0.0, None))[1]
        return NOTHING if known is None else Cell(short(known))

    def spark(view: View) -> Cell:
        # The last point is the one that grows.
        rates = [] if view.rates is None else [view.rates.done]
        return Cell(sparkline([*watcher.history(view.info.name)[1][-11:], *rates], 12), GREEN)

    return [
        GridColumn("SET", _name, 0, right=False),
        GridColumn("QUEUED", figure("size"), 6),
        GridColumn("LEASED", figure("leased"), 6, least=56),
        GridColumn("LATE", figure("late", YELLOW), 5),
        GridColumn("DEAD", figure("dead", RED), 5),
        GridColumn("IN/s", rate("added", CYAN), 5, least=56),
        GridColumn("OUT/s", rate("done", GREEN), 5),
        GridColumn("FAIL/s", rate("failed", YELLOW), 6, least=WIDE),
        GridColumn("OUT, 2 MIN", spark, 12, least=100),
        GridColumn("MEMORY", weight, 6, least=WIDE),
        GridColumn("OLDEST", _age, 6, least=72),
        GridColumn("LEFT", _left(False), 6, least=64, most=111),
        GridColumn("LEFT", _left(True), 16, least=112),
    ]


def fitting(parts: Sequence[Sequence[Part]], width: int) -> list[Part]:
    """Return a line of the first groups that fit."""
    line: list[Part] = []
    for group in parts:
        size = sum(cell_len(part.text) for part in (*line, *group))
        if size > width:
            break
        line += group
    return line


def head(app: Any, order: str, pattern: str, width: int) -> list[list[Part]]:
    """Return the lines over the list: the server, and sums over all sets."""
    look = app.look
    number = len(look.views)
    first = [
        [Part(" redset top", BOLD), Part(f"  {number:,} set{'s' * (number != 1)}")],
        [Part(f"  {look.replaced:,} not sorted sets", RED)] if look.replaced else [],
        [Part("  "), Part("FROZEN", REVERSED)] if app.frozen else [],
        [Part(f"  {shown(app.settings.target, 60)}")],
        [Part(f"  /{shown(pattern, 30)}", CYAN)] if pattern else [],
        [Part(f"  sort: {order}")],
    ]
    line = fitting(first, width)
    if app.trouble is not None:
        return [line, fault(app.trouble)]
    took = f"{look.commands} commands, {1000 * look.seconds:.0f} ms "
    space = width - sum(cell_len(part.text) for part in line) - len(took)
    if space >= 2:
        line += [Part(" " * space + took, DIM)]
    found = totals(look.views)
    second = [
        [Part(f" {short(found.queued)} queued"), Part(f"  {short(found.leased)} leased")],
        [Part(f"  {short(found.late)} late", YELLOW if found.late else DIM)],
        [Part(f"  {short(found.dead)} dead", RED if found.dead else DIM)],
        [Part(f"   in {per_second(found.rates.added)}", CYAN)],
        [Part(f"  refused {per_second(found.rates.refused)}")],
        [Part(f"  out {per_second(found.rates.done)}", GREEN)],
        [Part(f"  failed {per_second(found.rates.failed)}")],
    ]
    return [line, fitting(second, width)]


def fault(trouble: tuple[float, str]) -> list[Part]:
    """Return the line about a server that does not answer as it should."""
    since, text = trouble
    at = time.strftime("%H:%M:%S", time.localtime(since))
    return [Part(f" since {at}: {shown(text, LONG)}", RED)]


def per_second(value: float) -> str:
    return f"{short(round(value, 1))}/s"


def keys_line(keys: Sequence[tuple[str, str, str]], width: int, message: str) -> list[Part]:
    """Return the last line: the keys that fit, or a message."""
    if message:
        return [Part(f" {shown(message, LONG)}", BOLD)]
    left = list(keys)
    # The keys in `FIRST` go last, the last of the others first.
    by_rank = sorted(left, key=lambda key: FIRST.index(key[0]) if key[0] in FIRST else len(FIRST))
    while sum(len(key) + len(label) + 3 for key, label, _ in left) > width and len(left) > 1:
        left.remove(by_rank.pop())
    line = []
    for key, label, action in left:
        line += [Part(f" {key}", BOLD, action), Part(f" {label} ", action=action)]
    return line


def detail(view: View, facts: Facts | None, height: int) -> list[list[Part]]:
    """Return the lines below the list: one set."""
    figures, counts = view.figures, view.info.counts
    lines = [[Part(f" {shown(view.name, LONG)}", BOLD), Part(f"  {options_of(view)}", DIM)]]
    done = counts.get("acked", 0) + counts.get("taken", 0)
    since = [
        f"added {short(counts.get('added', 0))}",
        f"refused {short(counts.get('refused', 0))}",
        f"done {short(done)}",
        f"failed {short(counts.get('failed', 0))}",
    ]
    if figures.remembered:
        since.append(f"remembered {short(figures.remembered)}")
    if (view.info.options or {}).get("group"):
        ready, resting = short(figures.groups_ready), short(figures.groups_resting)
        working = short(figures.groups_working)
        since.append(f"groups {ready} ready, {resting} resting, {working} working")
    if figures.next_expiry is not None and figures.next_expiry > figures.time:
        since.append(f"next lease ends in {duration(figures.next_expiry - figures.time)}")
    lines.append([Part(f"   {'  '.join(since)}")])
    if figures.paused:
        pause = figures.paused
        why = f": {shown(pause.why, 100)}" if pause.why else ""
        ago = duration(max(0.0, figures.time - pause.at))
        lines.append([Part(f"   paused {ago} ago by {shown(pause.by, 40)}{why}", YELLOW)])
    elif view.is_idle:
        ago = "" if view.silent is None else f" for {duration(view.silent)}"
        text = f"   no consumer was heard of{ago}, and work is available"
        lines.append([Part(text, RED)])
    if facts is None or facts.name != view.info.name:
        return lines
    if facts.refused is not None:
        lines.append([Part(f"   {shown(facts.refused, LONG)}", RED)])
    space = max(0, height - len(lines))
    few = min(len(facts.workers), max(1, space - min(3, len(facts.items))))
    for worker in facts.workers[:few]:
        lines.append(worker_line(worker, figures.time))
    for item in facts.items:
        lines.append([Part("   next  ", DIM), Part(shown(item, LONG))])
    return lines


def worker_line(worker: Any, now: float) -> list[Part]:
    heard = max(0.0, now - worker.seen)
    label = f" {shown(worker.label, 24)}" if worker.label else ""
    return [
        Part(f"   {shown(worker.host, 24)}:{worker.pid}{label}", CYAN),
        Part(f" holds {worker.held:,}, done {short(worker.done)}, failed {short(worker.failed)},"),
        Part(f" up {duration(max(0.0, now - worker.since))}, "),
        Part(f"heard of {duration(heard)} ago", YELLOW if heard > 90 else PLAIN),
    ]


#: The options of a set that are shown.
STATED = ("key", "group", "group_limit", "group_interval", "ties", "remember", "attempts")


def options_of(view: View) -> str:
    """Return the options of a set as words."""
    words: list[str] = []
    for name, value in (view.info.options or {}).items():
        if name == "class":
            words.insert(0, str(value))
        elif value is True and name not in ("key", "group"):
            words.append(name)
        elif value not in (None, False, "") and name in STATED:
            text = "a function" if value is True else value
            words.append(f"{name}={','.join(text) if isinstance(text, list) else text}")
    return shown(" ".join(words), LONG)
