"""Questions and help of the live view, over the rest of the screen."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import ModalScreen

from redset.cli.live.widgets import BOLD, DIM, PLAIN, Lines, Part
from redset.cli.output import shown

HELP = (
    "Keys of the list",
    "  up down j k     another set; also page up and down, home, end, mouse",
    "  enter           open: items, leases, workers, dead letters, options",
    "  d  w            open at the dead letters, at the workers",
    "  /               filter by a part of the name; escape ends it",
    "  s               next order: trouble, queued, out, in, dead, name",
    "  p               pause or resume the set; asks first",
    "  space           freeze the figures, and go on",
    "  q               quit",
    "Keys of an opened set",
    "  1 to 5, left right   another tab",
    "  space a         mark a dead letter, mark all of the list",
    "  r  x            requeue or purge the marked ones; asks first",
    "  escape          back",
    "Columns",
    "  LATE    leases past their time: their worker died, or is too slow",
    "  OUT/s   items done or taken, over ten seconds, as processes report",
    "  OLDEST  age of the oldest item of a set of times",
    "  LEFT    time until the set is empty, if it goes on so",
)
#: Keys that write.
WRITES = ("  p  ", "  space a", "  r  x")


class Dialog(ModalScreen[bool]):
    """Lines in a box."""

    DEFAULT_CSS = """
    Dialog { align: center middle; }
    Dialog > Lines { width: auto; max-width: 100%; height: auto; max-height: 100%;
        border: round ansi_bright_blue; padding: 0 1; background: ansi_default; }
    """

    def __init__(self, lines: list[list[Part]]) -> None:
        super().__init__()
        self._parts = lines

    def compose(self) -> ComposeResult:
        box = Lines()
        box.show(self._parts)
        yield box

    @property
    def text(self) -> str:
        return str(self.query_one(Lines).text)


class Question(Dialog):
    """Asks before something is changed. Only ``y`` is yes."""

    BINDINGS: ClassVar[list[Any]] = [
        Binding("y", "answer(True)"),
        Binding("n,escape,q", "answer(False)"),
    ]

    def __init__(self, what: str, effect: str, name: str, server: str) -> None:
        super().__init__(
            [
                [Part(what, BOLD)],
                [Part("set     ", DIM), Part(shown(name))],
                [Part("server  ", DIM), Part(shown(server))],
                [Part(effect)],
                [],
                [
                    Part("y", BOLD, "screen.answer(True)"),
                    Part(" yes     ", action="screen.answer(True)"),
                    Part("n", BOLD, "screen.answer(False)"),
                    Part(" no", action="screen.answer(False)"),
                ],
            ]
        )

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)


class Help(Dialog):
    """The keys and columns."""

    BINDINGS: ClassVar[list[Any]] = [Binding("escape,q,question_mark,enter,space", "leave")]

    def __init__(self, read_only: bool) -> None:
        lines = [line for line in HELP if not (read_only and line.startswith(WRITES))]
        super().__init__([[Part(line, PLAIN if line[0] == " " else BOLD)] for line in lines])

    def action_leave(self) -> None:
        self.dismiss(False)
