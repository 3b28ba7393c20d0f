"""Widgets of the live view: lines of text, and lists with a cursor.

Both draw their lines themselves. So text is never markup, a list of any length draws only the rows
on the screen, and a line never wraps.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

#: Styles of the ANSI palette, so that the colours are those of the terminal.
PLAIN, BOLD, DIM = Style(), Style(bold=True), Style(dim=True)
RED, YELLOW = Style(color="red", bold=True), Style(color="yellow", bold=True)
GREEN, CYAN = Style(color="green"), Style(color="cyan")
REVERSED, HEADING = Style(reverse=True), Style(bold=True, underline=True)


class Part(NamedTuple):
    """A part of a line. A click on it runs its action."""

    text: str
    style: Style = PLAIN
    action: str | None = None


def cut(text: str, width: int) -> str:
    """Return a text of at most so many cells."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - 1)) + "…" if width > 0 else ""


def fitted(text: str, width: int, right: bool = False) -> str:
    """Return a text in so many cells."""
    text = cut(text, width)
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


class Lines(Widget):
    """Some lines of text."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._lines: list[list[Part]] = []

    def show(self, lines: Sequence[Sequence[Part]]) -> None:
        """Draw these lines."""
        self._lines = [list(line) for line in lines]
        self.refresh()

    @property
    def text(self) -> str:
        return "\n".join("".join(part.text for part in line) for line in self._lines)

    def get_content_width(self, container: Size, viewport: Size) -> int:
        widths = (sum(cell_len(part.text) for part in line) for line in self._lines)
        most: int = container.width
        return min(max(widths, default=0), most)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._lines)

    def render_line(self, y: int) -> Strip:
        width, segments = self.size.width, []
        for part in self._lines[y] if y < len(self._lines) else ():
            text = cut(part.text, width)
            width -= cell_len(text)
            segments.append(Segment(text, part.style))
        segments.append(Segment(" " * width, PLAIN))
        return Strip(segments, self.size.width)

    async def on_click(self, event: Any) -> None:
        place = event.get_content_offset(self)
        if place is None or place.y >= len(self._lines):
            return
        end = 0
        for part in self._lines[place.y]:
            end += cell_len(part.text)
            if place.x < end:
                if part.action is not None:
                    await self.run_action(part.action)
                return


class Cell(NamedTuple):
    """The text of a cell, which is safe already, and its style."""

    text: str
    style: Style = PLAIN


NOTHING = Cell("-", DIM)


class GridColumn(NamedTuple):
    """A column of a list."""

    heading: str
    cell: Callable[[Any], Cell]
    #: Its cells. 0: all that the others leave.
    width: int
    right: bool = True
    #: The width of the list from which it is shown, and up to which.
    least: int = 0
    most: int = 10_000


class Grid(ScrollView):
    """A list of rows with a cursor: only those on the screen are drawn."""

    BINDINGS: ClassVar[list[Any]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup,ctrl+b", "page(-1)", show=False),
        Binding("pagedown,ctrl+f", "page(1)", show=False),
        Binding("home,g", "move(-1000000000)", show=False),
        Binding("end,G", "move(1000000000)", show=False),
    ]
    DEFAULT_CSS = """
    Grid { overflow-x: hidden; scrollbar-size-vertical: 1; scrollbar-background: ansi_default;
        scrollbar-color: ansi_bright_black; }
    """

    class Moved(Message):
        """The cursor is on another row."""

    class Chosen(Message):
        """A row was clicked that the cursor was on."""

    class Ended(Message):
        """The cursor is on the last row, and there may be more."""

    def __init__(
        self, columns: list[GridColumn], key: Callable[[Any], Hashable], **options: Any
    ) -> None:
        super().__init__(**options)
        self.can_focus = True
        self._columns, self._key = columns, key
        self.rows: list[Any] = []
        self.cursor = 0
        self.marked: set[Hashable] = set()
        self.is_stale = False
        #: The text in place of rows, if there are none.
        self.empty = ""

    @property
    def current(self) -> Any:
        """The row of the cursor; None without rows."""
        return self.rows[self.cursor] if self.rows else None

    @property
    def drawn(self) -> list[Any]:
        """The rows on the screen."""
        top = int(self.scroll_offset.y)
        return self.rows[top : top + max(0, self.size.height - 1)]

    @property
    def chosen(self) -> list[Any]:
        """The marked rows; the cursor's if none is marked."""
        marked = [row for row in self.rows if self._key(row) in self.marked]
        return marked or self.rows[self.cursor : self.cursor + 1]

    def show(self, rows: list[Any]) -> None:
        """Draw these rows. The cursor stays on its row, if that is still there."""
        was = None if self.current is None else self._key(self.current)
        self.rows = rows
        keys, before = [self._key(row) for row in rows], self.cursor
        self.marked &= set(keys)
        if was is not None and not (self.cursor < len(keys) and keys[self.cursor] == was):
            self.cursor = keys.index(was) if was in keys else self.cursor
        self.cursor = max(0, min(self.cursor, len(rows) - 1))
        self.virtual_size = Size(self.size.width, len(rows) + 1)
        if self.cursor != before:  # else the mouse may have scrolled elsewhere
            self._follow()
        self.refresh()

    def mark(self) -> None:
        """Mark the row of the cursor, or no more, and go to the next one."""
        if self.rows:
            self.marked ^= {self._key(self.current)}
            self.action_move(1)

    def mark_all(self) -> None:
        """Mark all rows; none if all are marked."""
        keys = {self._key(row) for row in self.rows}
        self.marked = set() if self.marked == keys else keys
        self.refresh()

    def action_move(self, rows: int) -> None:
        before = self.cursor
        self.cursor = max(0, min(self.cursor + rows, len(self.rows) - 1))
        self._follow()
        self.refresh()
        if self.cursor != before:
            self.post_message(self.Moved())
        if rows > 0 and self.cursor == len(self.rows) - 1:
            self.post_message(self.Ended())

    def action_page(self, pages: int) -> None:
        self.action_move(pages * max(1, self.size.height - 2))

    def on_click(self, event: Any) -> None:
        row = int(self.scroll_offset.y) + event.y - 1
        if event.y < 1 or row >= len(self.rows):
            return
        if row == self.cursor:
            self.post_message(self.Chosen())
        else:
            self.action_move(row - self.cursor)

    def on_resize(self) -> None:
        self.virtual_size = Size(self.size.width, len(self.rows) + 1)
        self._follow()

    def _follow(self) -> None:
        """Scroll to the cursor."""
        visible, top = max(1, self.size.height - 1), int(self.scroll_offset.y)
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False)
        elif self.cursor >= top + visible:
            self.scroll_to(y=self.cursor - visible + 1, animate=False)

    def render_line(self, y: int) -> Strip:
        # Without the scrollbar.
        width = self.scrollable_content_region.width
        row = int(self.scroll_offset.y) + y - 1
        if y == 0:
            cells = [Cell(column.heading, HEADING) for column in self._shown()]
            return self._strip(cells, width, HEADING)
        if row >= len(self.rows):
            text = self.empty if not self.rows and y == 1 else ""
            return Strip([Segment(fitted(f" {text}" if text else "", width), DIM)], width)
        value = self.rows[row]
        cells = [column.cell(value) for column in self._shown()]
        if self._key(value) in self.marked:
            cells[0] = Cell(f"* {cells[0].text}", YELLOW)
        if row == self.cursor and self.has_focus:
            cells = [Cell(cell.text, REVERSED) for cell in cells]
            return self._strip(cells, width, REVERSED)
        if self.is_stale:
            cells = [Cell(cell.text, DIM) for cell in cells]
        return self._strip(cells, width, PLAIN)

    def _shown(self) -> list[GridColumn]:
        width = self.size.width
        return [column for column in self._columns if column.least <= width <= column.most]

    def _strip(self, cells: list[Cell], width: int, base: Style) -> Strip:
        columns = self._shown()
        rest = max(4, width - sum(column.width + 1 for column in columns if column.width))
        segments, used = [], 0
        for column, cell in zip(columns, cells, strict=True):
            wide = column.width or rest
            text = fitted(cell.text, wide, column.right)
            if used:
                segments.append(Segment(" ", base))
            segments.append(Segment(text, cell.style))
            used += wide + (used > 0)
        segments.append(Segment(" " * max(0, width - used), base))
        return Strip(segments).adjust_cell_length(width, base)
