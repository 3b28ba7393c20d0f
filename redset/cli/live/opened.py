"""An opened set: its items, leases, workers, dead letters and options."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen

from redset.cli.connection import bytes_of
from redset.cli.live.dialogs import Dialog, Question
from redset.cli.live.parts import LONG, amount, fault, fitting, keys_line, options_of, per_second
from redset.cli.live.reading import MOST, PAGE, Pages, settled
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
    Grid,
    GridColumn,
    Lines,
    Part,
    cut,
)
from redset.cli.output import duration, number, short, shown
from redset.cli.program import outcome
from redset.cli.watching import View

if TYPE_CHECKING:
    from redset.cli.live.app import Top

TABS = ("items", "leases", "workers", "dead", "options")
#: Characters of an item that is shown in full.
FULL = 4000
#: Fields that are Unix times.
TIMES = ("time", "expires", "since", "seen", "consumer_seen", "producer_seen")


def text_cell(text: str | bytes | None, style: Any = PLAIN) -> Cell:
    return NOTHING if text is None else Cell(shown(text, LONG), style)


def full_text(field: str, value: Any) -> str:
    """Return a value of a row as text that is safe."""
    if value is None:
        return "-"
    if field == "item":
        value = bytes_of(value)
    if isinstance(value, (str, bytes)):
        return shown(value, FULL)
    if field in TIMES and isinstance(value, (int, float)):
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    return number(value) if isinstance(value, float) else shown(str(value), FULL)


class Opened(Screen[None]):
    """One set, in tabs."""

    app: Top
    AUTO_FOCUS = "Grid"
    BINDINGS: ClassVar[list[Any]] = [
        *(Binding(str(place), f"tab('{tab}')", show=False) for place, tab in enumerate(TABS, 1)),
        Binding("left", "turn(-1)", show=False, priority=True),
        Binding("right,tab", "turn(1)", show=False, priority=True),
        Binding("d", "tab('dead')", show=False),
        Binding("w", "tab('workers')", show=False),
        Binding("space", "mark", show=False),
        Binding("a", "mark_all", show=False),
        Binding("r", "settle('requeue')", show=False),
        Binding("x", "settle('purge')", show=False),
        Binding("p", "pause", show=False),
        Binding("enter", "full", show=False),
        Binding("question_mark", "app.help", show=False),
        Binding("escape,q", "app.pop_screen", show=False),
    ]
    DEFAULT_CSS = """
    Opened { background: ansi_default; color: ansi_default; }
    Opened > Lines { width: 100%; }
    Opened > Grid { height: 1fr; display: none; }
    #about { height: 2; }
    #tabs { height: 1; }
    #stated { height: 1fr; display: none; }
    #keys { height: 1; }
    """

    def __init__(self, view: View, tab: str) -> None:
        super().__init__()
        self._about, self._bar, self._stated = (
            Lines(id="about"),
            Lines(id="tabs"),
            Lines(id="stated"),
        )
        self._last = Lines(id="keys")
        self._grids = {
            "items": Grid(self._item_columns(), lambda item: item.place, id="items"),
            "leases": Grid(self._lease_columns(), lambda row: bytes_of(row.item), id="leases"),
            "workers": Grid(self._worker_columns(), lambda worker: worker.id, id="workers"),
            "dead": Grid(self._letter_columns(), lambda letter: letter.id, id="dead"),
        }
        self._view, self._tab = view, tab
        self._items = PAGE
        self._pages: dict[str, Pages] = {}
        #: Tabs that are being read, and those of them of which one page more is read then.
        self._reading: set[str] = set()
        self._more: set[str] = set()
        self._is_ready = False

    def compose(self) -> ComposeResult:
        yield self._about
        yield self._bar
        yield from self._grids.values()
        yield self._stated
        yield self._last

    def on_mount(self) -> None:
        self._is_ready = True
        self.action_tab(self._tab)

    def on_resize(self) -> None:
        if self._is_ready:
            self._show()

    # --- columns

    def _item_columns(self) -> list[GridColumn]:
        return [
            GridColumn("SCORE", lambda item: Cell(number(item.score) or "-"), 14),
            GridColumn("ITEM", lambda item: text_cell(item.data), 0, right=False),
        ]

    def _lease_columns(self) -> list[GridColumn]:
        def left(row: Any) -> Cell:
            seconds = row.expires - self._now
            return Cell(duration(seconds), RED if seconds < 0 else PLAIN)

        return [
            GridColumn("LEFT", left, 6),
            GridColumn("WORKER", lambda row: text_cell(row.worker), 7, right=False),
            GridColumn("TRIES", lambda row: amount(row.attempts, YELLOW), 5),
            GridColumn("ITEM", lambda row: text_cell(bytes_of(row.item)), 0, right=False),
            GridColumn("LAST ERROR", lambda row: text_cell(row.error), 36, right=False, least=100),
        ]

    def _worker_columns(self) -> list[GridColumn]:
        def heard(worker: Any) -> Cell:
            seconds = max(0.0, self._now - worker.seen)
            return Cell(duration(seconds), YELLOW if seconds > 90 else PLAIN)

        return [
            GridColumn("WORKER", lambda worker: text_cell(worker.id), 7, right=False),
            GridColumn("HOST", lambda worker: text_cell(worker.host), 0, right=False),
            GridColumn("PID", lambda worker: Cell(str(worker.pid)), 8),
            GridColumn("UP", lambda worker: Cell(duration(self._now - worker.since)), 6, least=64),
            GridColumn("HEARD", heard, 6),
            GridColumn("HELD", lambda worker: amount(worker.held), 6),
            GridColumn("DONE", lambda worker: amount(worker.done, GREEN), 6, least=56),
            GridColumn("FAILED", lambda worker: amount(worker.failed, YELLOW), 6, least=64),
            GridColumn("LABEL", lambda worker: text_cell(worker.label), 20, False, least=80),
        ]

    def _letter_columns(self) -> list[GridColumn]:
        return [
            GridColumn("AGO", lambda letter: Cell(duration(self._now - letter.time)), 6),
            GridColumn("TRIES", lambda letter: amount(letter.attempts), 5, least=56),
            GridColumn("REASON", lambda letter: text_cell(letter.reason, RED), 28, False, 64, 111),
            GridColumn("REASON", lambda letter: text_cell(letter.reason, RED), 44, False, 112),
            GridColumn("ITEM", lambda letter: text_cell(letter.raw), 0, right=False),
        ]

    # --- drawing

    @property
    def _now(self) -> float:
        """The server's time at the last look."""
        now: float = self._view.figures.time
        return now

    @property
    def grid(self) -> Grid | None:
        """The list of the tab; None for the options."""
        return self._grids.get(self._tab)

    def looked(self) -> None:
        """Draw a new look, and read the list again if only its first page is there."""
        self._view = self.app.view_of(self._view)
        if not self._is_ready:
            return
        self._show()
        grid = self.grid
        if grid is None or self.app.trouble is not None or self.app.frozen:
            return
        if not grid.marked and len(grid.rows) <= PAGE:
            self._read(again=True)

    def _show(self) -> None:
        width, app, view = self.size.width, self.app, self._view
        figures = view.figures
        first = [Part(f" {shown(view.name, LONG)}", BOLD), Part(f"  {options_of(view)}", DIM)]
        if app.frozen:
            first.insert(0, Part(" FROZEN", REVERSED))
        groups = [
            [Part(f" {short(figures.size)} queued"), Part(f"  {short(figures.leased)} leased")],
            [Part(f"  {short(figures.late)} late", YELLOW if figures.late else DIM)],
            [Part(f"  {short(figures.dead)} dead", RED if figures.dead else DIM)],
            [Part("  paused", YELLOW)] if figures.paused else [],
        ]
        if view.rates is not None:
            groups.append([Part(f"   in {per_second(view.rates.added)}", CYAN)])
            groups.append([Part(f"  out {per_second(view.rates.done)}", GREEN)])
        groups.append([Part(f"   {shown(app.settings.target, 60)}", DIM)])
        second = fitting(groups, width) if app.trouble is None else fault(app.trouble)
        self._about.show([first, second])
        self._bar.show([self._tab_bar()])
        self._last.show([keys_line(self._keys(), width, app.message)])
        self._stated.styles.display = "block" if self._tab == "options" else "none"
        if self._tab == "options":
            self._stated.show(self._options())
        for tab, grid in self._grids.items():
            grid.styles.display = "block" if tab == self._tab else "none"
            if grid.is_stale != (app.trouble is not None):
                grid.is_stale = app.trouble is not None
                grid.refresh()

    def _tab_bar(self) -> list[Part]:
        line = []
        for place, tab in enumerate(TABS, 1):
            style = REVERSED if tab == self._tab else PLAIN
            line += [
                Part(" "),
                Part(f" {place} {tab.capitalize()} ", style, f"screen.tab('{tab}')"),
            ]
        return line

    def _keys(self) -> list[tuple[str, str, str]]:
        keys = [("escape", "Back", "app.pop_screen"), ("enter", "Full", "screen.full")]
        if not self.app.read_only:
            if self._tab == "dead":
                keys += [
                    ("space", "Mark", "screen.mark"),
                    ("a", "All", "screen.mark_all"),
                    ("r", "Requeue", "screen.settle('requeue')"),
                    ("x", "Purge", "screen.settle('purge')"),
                ]
            keys.append(("p", "Pause", "screen.pause"))
        return [*keys, ("?", "Help", "app.help")]

    def _options(self) -> list[list[Part]]:
        lines = []
        for fields in (self._view.info.options or {}, self._view.info.counts):
            for field, value in sorted(fields.items()):
                if field not in ("v", "seen"):
                    label = shown(str(field), 30).replace("_", " ")
                    text = full_text(str(field), value)
                    lines.append([Part(f" {label:<16} ", DIM), Part(cut(text, LONG))])
            lines.append([])
        return lines

    # --- reading

    def _read(self, again: bool = False) -> None:
        """Read the rows of the tab in the background: anew, or one page more."""
        tab, app, info = self._tab, self.app, self._view.info
        if tab == "options":
            return
        if tab in self._reading:
            if not again:
                self._more.add(tab)
            return
        self._reading.add(tab)
        call: Callable[[], Any]
        if tab == "items":
            self._items = PAGE if again else min(MOST, self._items + PAGE)
            number = self._items
            call = lambda: app.reader.items(info, number)  # noqa: E731
        elif tab == "workers":
            call = lambda: app.reader.queue(info).workers()  # noqa: E731
        else:
            if again or tab not in self._pages:
                queue = app.reader.queue(info)
                rows: Any = queue.leased if tab == "leases" else queue.dead.__iter__
                self._pages[tab] = Pages(rows)
            pages = self._pages[tab]
            call = lambda: pages.more().found  # noqa: E731

        def ended(rows: list[Any], error: Exception | None) -> None:
            is_at_end = tab == self._tab and tab in self._more
            self._reading.discard(tab)
            self._more.discard(tab)
            grid = self._grids[tab]
            grid.empty = "none"
            if error is None:
                grid.show(rows)
                if is_at_end and grid.cursor == len(grid.rows) - 1:
                    self.on_grid_ended()
            elif app.settings.is_lost(error):
                app.note(error)
            else:
                grid.empty = shown(outcome(error)[1], LONG)
                grid.show([])

        app.background.run(call, ended)

    def on_grid_ended(self) -> None:
        """Read one page more."""
        grid = self.grid
        if grid is None or self._tab == "workers":
            return
        pages = self._pages.get(self._tab)
        if self._tab == "items" and not PAGE <= len(grid.rows) < MOST:
            return
        if pages is None or pages.is_open:
            self._read()

    # --- keys

    def action_tab(self, tab: str) -> None:
        self._tab = tab
        self._show()
        if self.grid is not None:
            self.grid.focus()
            self._read(again=True)

    def action_turn(self, tabs: int) -> None:
        self.action_tab(TABS[(TABS.index(self._tab) + tabs) % len(TABS)])

    def action_mark(self) -> None:
        if self._tab == "dead" and self.grid is not None and not self.app.read_only:
            self.grid.mark()

    def action_mark_all(self) -> None:
        if self._tab == "dead" and self.grid is not None and not self.app.read_only:
            self.grid.mark_all()

    def action_settle(self, verb: str) -> None:
        """Requeue or purge the chosen letters, after a question."""
        grid, app = self.grid, self.app
        if self._tab != "dead" or grid is None or app.read_only or not grid.chosen:
            return
        letters = grid.chosen
        number = f"{len(letters):,} dead letter{'s' * (len(letters) != 1)}"
        what, effect = f"Queue {number} again?", "Scores are kept, and attempts begin again."
        if verb == "purge":
            what, effect = f"Delete {number}?", "Nothing brings them back."
        queue = app.reader.queue(self._view.info)

        def then() -> None:
            grid.marked.clear()
            self._read(again=True)
            app.tick()

        question = Question(what, effect, self._view.name, app.settings.target)
        app.ask(question, lambda: settled(queue, letters, verb), then)

    def action_pause(self) -> None:
        self.app.pause(self._view)

    def on_grid_chosen(self) -> None:
        self.action_full()

    def action_full(self) -> None:
        """Show the row of the cursor in full."""
        row = None if self.grid is None else self.grid.current
        if row is None:
            return
        lines = []
        for field, value in row._asdict().items():
            # A letter's item is there as its bytes.
            if field not in ("place", "item" if self._tab == "dead" else "raw"):
                lines += self._paragraph(field, full_text(field, value))
        self.app.push_screen(Whole(lines))

    def _paragraph(self, label: str, text: str) -> list[list[Part]]:
        wide = max(10, self.size.width - 16)
        pieces = [text[at : at + wide] for at in range(0, max(1, len(text)), wide)]
        labels = [label, *[""] * len(pieces)]
        return [[Part(f"{a:<10}", DIM), Part(b)] for a, b in zip(labels, pieces, strict=False)]


class Whole(Dialog):
    """A row in full."""

    BINDINGS: ClassVar[list[Any]] = [Binding("escape,q,enter,space", "leave")]

    def action_leave(self) -> None:
        self.dismiss(False)
