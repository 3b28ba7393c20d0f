"""The application of ``redset top``: the list of sets, and one set in detail below it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from typing import Any, ClassVar

from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Input

from redset.cli.connection import Settings
from redset.cli.live.background import Background, Finished
from redset.cli.live.dialogs import Help, Question
from redset.cli.live.opened import Opened
from redset.cli.live.parts import WIDE, columns, detail, head, keys_line
from redset.cli.live.reading import Facts, Reader, paused
from redset.cli.live.widgets import Grid, Lines
from redset.cli.program import INTERRUPTED, outcome
from redset.cli.watching import ORDERS, Look, View, Watcher

#: Seconds after a key in which rows keep their places, and in which a message is shown.
HELD, SHOWN = 5.0, 5.0
#: Seconds after which the memory of a set is asked for again.
WEIGHED = 30.0
TOUCHES = (events.Key, events.MouseDown, events.MouseScrollDown, events.MouseScrollUp)
#: Seconds after which a server that does not answer is named.
PATIENCE = 5.0
#: Heights of the screen from which it has the second line of the head, and the detail.
TWO_LINES, DETAIL = 12, 16
KEYS = (
    ("q", "Quit", "app.quit"),
    ("/", "Filter", "screen.filter"),
    ("s", "Sort", "screen.sort"),
    ("enter", "Open", "screen.open"),
    ("d", "Dead", "screen.open('dead')"),
    ("w", "Workers", "screen.open('workers')"),
    ("p", "Pause", "screen.pause"),
    ("space", "Freeze", "app.freeze"),
    ("?", "Help", "app.help"),
)


class Overview(Screen[None]):
    """The list of sets."""

    app: Top
    AUTO_FOCUS = "Grid"
    BINDINGS: ClassVar[list[Any]] = [
        Binding("slash", "filter", show=False),
        Binding("s", "sort", show=False),
        Binding("enter", "open", show=False),
        Binding("d", "open('dead')", show=False),
        Binding("w", "open('workers')", show=False),
        Binding("p", "pause", show=False),
        Binding("space", "app.freeze", show=False),
        Binding("question_mark", "app.help", show=False),
        Binding("escape", "clear", show=False),
        Binding("q", "app.quit", show=False),
    ]
    DEFAULT_CSS = """
    Overview { background: ansi_default; color: ansi_default; }
    Overview > Lines { width: 100%; }
    #head { height: 2; }
    #filter { display: none; height: 1; border: none; padding: 0 1; background: ansi_default; }
    #sets { height: 1fr; }
    #detail { height: 8; border-top: solid ansi_bright_black; }
    #keys { height: 1; }
    """

    def __init__(self, watcher: Watcher) -> None:
        super().__init__()
        self.head, self.detail, self.keys = Lines(id="head"), Lines(id="detail"), Lines(id="keys")
        #: The memory of each set, after the time at which it was asked for.
        self._memory: dict[str | bytes, tuple[float, int | None]] = {}
        self.grid = Grid(columns(watcher, self._memory), lambda view: view.name, id="sets")
        self.pattern, self.order = "", "trouble"
        self._places: list[str] = []
        self._facts: Facts | None = None
        self._is_asking = self._is_weighing = self._is_ready = False

    def compose(self) -> ComposeResult:
        yield self.head
        yield Input(placeholder="part of a name", id="filter")
        yield self.grid
        yield self.detail
        yield self.keys

    def on_mount(self) -> None:
        self._is_ready = True
        self.on_resize()
        self._ask()

    def on_resize(self) -> None:
        height = self.app.size.height
        if not self._is_ready:
            return
        self.head.styles.height = 2 if height >= TWO_LINES else 1
        self.detail.styles.display = "block" if height >= DETAIL else "none"
        self.detail.styles.height = 8 if height < 30 else 11
        self.show_look()

    def show_look(self, again: bool = False) -> None:
        """Draw the last look. ``again``: in order, although a key was pressed lately."""
        grid, app = self.grid, self.app
        wanted = self.pattern.lower()
        views = [view for view in app.look.views if wanted in view.name.lower()]
        views.sort(key=ORDERS[self.order])
        if not again and time.monotonic() - app.touched < HELD:
            places = {name: place for place, name in enumerate(self._places)}
            views.sort(key=lambda view: places.get(view.name, len(places)))
        self._places = [view.name for view in views]
        grid.is_stale = app.trouble is not None
        grid.empty = "no set has such a name" if app.look.views else "no set is registered"
        grid.show(views)
        self.show_rest()

    def show_rest(self) -> None:
        """Draw everything but the list."""
        app, width = self.app, self.size.width
        self.head.show(head(app, self.order, self.pattern, width))
        keys = [key for key in KEYS if not (app.read_only and key[0] == "p")]
        self.keys.show([keys_line(keys, width, app.message)])
        view, height = self.grid.current, self.detail.size.height
        self.detail.show([] if view is None else detail(view, self._facts, height))

    # --- the set of the cursor

    def on_grid_moved(self) -> None:
        self.show_rest()
        self._ask()

    def _ask(self) -> None:
        """Ask for the facts of the cursor's set, if they are shown."""
        view, app = self.grid.current, self.app
        if view is None or self._is_asking or app.size.height < DETAIL:
            return
        self._is_asking = True
        app.background.run(lambda: app.reader.facts(view.info), self._answered)

    def _answered(self, facts: Facts, error: Exception | None) -> None:
        self._is_asking = False
        if error is not None:
            self.app.note(error)
            return
        self._facts = facts
        self.show_rest()
        if self.grid.current is not None and self.grid.current.info.name != facts.name:
            self._ask()

    def looked(self) -> None:
        """Draw a new look, and ask for the facts again."""
        if not self._is_ready:
            return
        self.show_look()
        if self.app.trouble is None:
            self._ask()
            self._weigh()

    def _weigh(self) -> None:
        """Ask for the memory of the sets on the screen, if it is shown and old."""
        app, now = self.app, time.monotonic()
        if app.size.width < WIDE or self._is_weighing:
            return
        names = [view.info.name for view in app.look.views]
        for gone in self._memory.keys() - set(names):
            del self._memory[gone]
        old = now - WEIGHED
        infos = [view.info for view in self.grid.drawn]
        infos = [info for info in infos if self._memory.get(info.name, (old, None))[0] <= old]
        if infos:
            self._is_weighing = True
            app.background.run(lambda: app.reader.memory(infos), self._weighed)

    def _weighed(self, found: dict[str | bytes, int | None], error: Exception | None) -> None:
        self._is_weighing = False
        if error is not None:
            self.app.note(error)
            return
        now = time.monotonic()
        self._memory.update({name: (now, each) for name, each in found.items()})
        self.grid.refresh()

    # --- keys

    def action_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.styles.display = "block"
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self.pattern = event.value
        self.show_look(again=True)

    def on_input_submitted(self) -> None:
        self.query_one("#filter").styles.display = "none"
        self.grid.focus()

    def action_clear(self) -> None:
        field = self.query_one("#filter", Input)
        field.value = ""
        self.on_input_submitted()

    def action_sort(self) -> None:
        names = list(ORDERS)
        self.order = names[(names.index(self.order) + 1) % len(names)]
        self.show_look(again=True)

    def on_grid_chosen(self) -> None:
        self.action_open()

    def action_open(self, tab: str = "items") -> None:
        if self.grid.current is not None:
            self.app.push_screen(Opened(self.grid.current, tab))

    def action_pause(self) -> None:
        if self.grid.current is not None:
            self.app.pause(self.grid.current)


class Top(App[int]):
    """The live view.

    Args:
        settings: The server.
        watcher: Looks at its sets.
        look: The first look.
        every: Seconds from one look to the next.
    """

    ENABLE_COMMAND_PALETTE = False
    TITLE = "redset top"
    BINDINGS: ClassVar[list[Any]] = [Binding("ctrl+c", "interrupt", show=False, priority=True)]

    def __init__(self, settings: Settings, watcher: Watcher, look: Look, every: float) -> None:
        super().__init__(ansi_color=True)
        self.settings, self.watcher, self.look = settings, watcher, look
        self.every, self.read_only = every, settings.read_only
        self.reader = Reader(settings)
        self.frozen = False
        #: The time of the last key or click.
        self.touched = -HELD
        #: Since when looks fail, and why.
        self.trouble: tuple[float, str] | None = None
        self._message = ("", 0.0)
        self._is_looking, self._began = False, 0.0
        self.background: Background

    def on_mount(self) -> None:
        self.background = Background(self)
        if not self.is_headless:
            # Windows has no SIGHUP.
            for number in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
                with contextlib.suppress(NotImplementedError, RuntimeError):
                    loop = asyncio.get_running_loop()
                    loop.add_signal_handler(number, self.exit, 128 + number)
        self.push_screen(Overview(self.watcher))
        self.set_interval(self.every, self.tick)

    def on_unmount(self) -> None:
        self.background.end()

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, TOUCHES):
            self.touched = time.monotonic()
        await super().on_event(event)

    # --- looks

    def tick(self) -> None:
        """Look again, unless a look is under way."""
        now = time.monotonic()
        if self._is_looking:
            # A client without a timeout would wait without a word.
            if now - self._began > PATIENCE and self.trouble is None:
                self.trouble = (time.time() - (now - self._began), "the server does not answer")
                self._draw()
        elif not self.frozen:
            self._is_looking, self._began = True, now
            self.background.run(self.watcher.look, self._looked)

    def on_finished(self, message: Finished) -> None:
        message.pass_on()

    def _looked(self, look: Look, error: Exception | None) -> None:
        self._is_looking = False
        if error is not None:
            self.note(error)
            return
        self.look, self.trouble = look, None
        self._draw()

    def note(self, error: Exception) -> None:
        """Keep an error of the server, and since when there is one."""
        since = time.time() if self.trouble is None else self.trouble[0]
        self.trouble = (since, outcome(error)[1])
        self._draw()

    def _draw(self) -> None:
        for screen in self.screen_stack:
            if isinstance(screen, (Overview, Opened)):
                screen.looked()

    def view_of(self, view: View) -> View:
        """Return the newest view of a set."""
        name = view.info.name
        return next((each for each in self.look.views if each.info.name == name), view)

    # --- actions

    @property
    def message(self) -> str:
        text, until = self._message
        return text if time.monotonic() < until else ""

    def show_message(self, text: str) -> None:
        """Show a line in place of the keys, for some seconds."""
        self._message = (text, time.monotonic() + SHOWN)
        self._draw()

    def ask(self, question: Question, call: Callable[[], str], then: Callable[[], None]) -> None:
        """Ask a question. After a yes, call in the background and show the text that it returns."""

        def ended(text: str, error: Exception | None) -> None:
            self.show_message(text if error is None else outcome(error)[1])
            then()

        def answered(answer: bool | None) -> None:
            if answer:
                self.background.run(call, ended)

        self.push_screen(question, answered)

    def pause(self, view: View) -> None:
        """Pause or resume a set, after a question."""
        if self.read_only:
            return
        view = self.view_of(view)
        figures = view.figures
        verb = "resume" if figures.paused else "pause"
        effect = (
            "Its consumers go on at once."
            if figures.paused
            else "Its consumers get no more leases. Adding and settling go on."
        )
        number = f"{figures.size:,} queued, {figures.leased:,} leased"
        question = Question(
            f"{verb.capitalize()} a set with {number}?", effect, view.name, self.settings.target
        )
        call = lambda: paused(self.reader.queue(view.info), verb)  # noqa: E731
        self.ask(question, call, self.tick)

    def action_freeze(self) -> None:
        self.frozen = not self.frozen
        self._draw()
        self.tick()

    def action_help(self) -> None:
        self.push_screen(Help(self.read_only))

    async def action_quit(self) -> None:
        self.exit(0)

    def action_interrupt(self) -> None:
        self.exit(INTERRUPTED)
