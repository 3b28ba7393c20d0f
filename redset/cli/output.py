"""The output of commands: a table on a terminal, tab-separated in a pipe, JSON on request.

On a terminal a character that could move the cursor or turn the text round is shown escaped. In a
pipe an item is its stored bytes.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

#: Rows of a table whose columns are aligned together.
PAGE = 200


def shown(text: str | bytes, width: int = 0) -> str:
    """Return a text as it is safe on a terminal, cut to a width if it is given.

    Control characters, escapes and marks of direction are shown as ``\\x1b`` and ``\\u202e``.
    """
    if isinstance(text, bytes):
        # A character has four bytes at most.
        text = (text[: 4 * width + 4] if width else text).decode("utf-8", "backslashreplace")
    if width:
        text = text[: width + 1]
    safe = text
    if not text.isprintable():
        safe = "".join(
            each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
        )
    return safe if not width or len(safe) <= width else safe[: width - 1] + "…"


def silence() -> None:
    """Send what is still buffered for a broken pipe to nowhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def number(value: float | None) -> str:
    """Return a number in full, without a fraction that is zero."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e16:
        return str(int(value))
    return repr(value) if isinstance(value, float) else str(value)


def short(value: float | None) -> str:
    """Return a number in at most five characters."""
    if value is None:
        return "-"
    for unit in ("", "k", "M", "G"):
        if abs(value) < 999.5:
            whole = (unit == "" and float(value).is_integer()) or abs(value) >= 99.5
            return f"{value:.0f}{unit}" if whole else f"{value:.1f}{unit}"
        value /= 1000
    return f"{value:.0f}T"


def duration(seconds: float | None) -> str:
    """Return a time in at most six characters."""
    if seconds is None:
        return "-"
    sign, seconds = ("-" if seconds < 0 else ""), abs(seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            amount = seconds / size
            return f"{sign}{amount:.0f}{unit}" if amount >= 9.95 else f"{sign}{amount:.1f}{unit}"
    return f"{sign}{seconds:.0f}s"


def json_value(value: Any) -> Any:
    """Return a value as JSON has it: no bytes, and no infinite number."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    return value


def item_fields(data: bytes) -> dict[str, str]:
    """Return an item's field of a JSON line: ``item``, or ``raw`` if it is not UTF-8."""
    try:
        return {"item": data.decode()}
    except UnicodeDecodeError:
        return {"raw": base64.b64encode(data).decode()}


class Column(NamedTuple):
    """A column of a table: its field, its heading, and how its values are shown on a terminal."""

    field: str
    heading: str
    shape: Callable[[Any], str] = number
    right: bool = True


def text_column(field: str, heading: str, width: int = 0) -> Column:
    """Return a column of text, aligned to the left."""

    def shape(value: Any) -> str:
        return "-" if value is None else shown(value, width)

    return Column(field, heading, shape, False)


class Output:
    """The standard output of a command."""

    def __init__(self, as_json: bool = False) -> None:
        if sys.stdout is None:
            raise OSError("standard output is closed")
        self.as_json = as_json
        self._stream = sys.stdout.buffer
        self.is_terminal = sys.stdout.isatty()
        self.width = max(20, shutil.get_terminal_size().columns)

    def write(self, data: bytes) -> None:
        """Write bytes as they are."""
        self._stream.write(data)

    def flush(self) -> None:
        self._stream.flush()

    def line(self, text: str | bytes) -> None:
        """Write a line: on a terminal safe and cut to its width, otherwise as it is."""
        if self.is_terminal:
            text = shown(text, self.width)
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        self._stream.write(data + b"\n")

    def paragraph(self, text: str) -> None:
        """Write a text that is safe already, however long it is."""
        self._stream.write(text.encode("utf-8", "backslashreplace") + b"\n")

    def record(self, fields: Mapping[str, Any]) -> None:
        """Write a JSON line."""
        plain = {name: json_value(value) for name, value in fields.items()}
        text = json.dumps(plain, ensure_ascii=self.is_terminal, separators=(",", ":"))
        self._stream.write(text.encode("utf-8", "backslashreplace") + b"\n")

    def record_of(self, fields: Mapping[str, Any]) -> None:
        """Write a JSON line with objects and lists in it."""
        text = json.dumps(fields, ensure_ascii=self.is_terminal, separators=(",", ":"), default=str)
        self._stream.write(text.encode("utf-8", "backslashreplace") + b"\n")

    def item(self, data: bytes, score: float | None = None, with_score: bool = False) -> None:
        """Write an item, with its score before it if it is asked for."""
        if self.as_json:
            scored = {"score": score} if with_score else {}
            self.record({**item_fields(data), **scored})
        elif with_score:
            text = number(score)
            if self.is_terminal:
                self.line(f"{text:>12}  {shown(data, max(1, self.width - 14))}")
            else:
                self._stream.write(text.encode() + b"\t" + data + b"\n")
        else:
            self.line(data)

    def rows(self, columns: list[Column], rows: Iterable[Mapping[str, Any]]) -> int:
        """Write rows, and return their number. Bytes in a row are an item."""
        if self.as_json:
            return self._json_rows(rows)
        if not self.is_terminal:
            return self._tab_rows(columns, rows)
        count, source = 0, iter(rows)
        widths = [len(column.heading) for column in columns]
        while page := list(islice(source, PAGE)):
            cells = [[column.shape(row.get(column.field)) for column in columns] for row in page]
            for place in range(len(columns)):
                widths[place] = max(widths[place], *(len(row[place]) for row in cells))
            if not count:
                self._cells(columns, widths, [column.heading for column in columns])
            for row in cells:
                self._cells(columns, widths, row)
            count += len(page)
        return count

    def _json_rows(self, rows: Iterable[Mapping[str, Any]]) -> int:
        count = 0
        for row in rows:
            fields: dict[str, Any] = {}
            for name, value in row.items():
                fields |= item_fields(value) if isinstance(value, bytes) else {name: value}
            self.record(fields)
            count += 1
        return count

    def _tab_rows(self, columns: list[Column], rows: Iterable[Mapping[str, Any]]) -> int:
        count = 0
        for row in rows:
            values = [row.get(column.field) for column in columns]
            self._stream.write(b"\t".join(map(plain, values)) + b"\n")
            count += 1
        return count

    def _cells(self, columns: list[Column], widths: list[int], cells: list[str]) -> None:
        parts = [
            cell.rjust(width) if column.right else cell.ljust(width)
            for column, width, cell in zip(columns, widths, cells, strict=True)
        ]
        self.line("  ".join(parts).rstrip())


def plain(value: Any) -> bytes:
    """Return a value of a tab-separated line: numbers in full, text without tabs and line ends."""
    if isinstance(value, bytes):
        return value
    if value is None:
        return b""
    if isinstance(value, bool):
        return b"yes" if value else b"no"
    if isinstance(value, (int, float)):
        return number(value).encode()
    text = "".join(" " if each in "\t\n\r" else each for each in str(value))
    return text.encode("utf-8", "surrogateescape")
