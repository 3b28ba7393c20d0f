"""The records that processes write of their operations, and their reader.

A line goes to the file before an operation and another one after it, each by one write: a process
that is killed leaves at most the operation in progress without its end, or a line that is cut.
Times are monotonic ones, which all processes of a machine share and no clock that is set changes.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple


class Recorder:
    """Writes the history of one process.

    Parameters
    ----------
    path : Path
        A file of its own; its name stands for the process.
    exact : bool
        Whether the client sends nothing twice, so that a count of 0 is exact.
    """

    def __init__(self, path: Path | str, exact: bool) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._number = 0
        self._exact = exact

    def begin(self, do: str, **what: Any) -> int:
        """Write an operation down before it begins; return its number."""
        self._number += 1
        self._write({"op": self._number, "begin": time.monotonic(), "do": do, **what})
        return self._number

    def end(self, number: int, **result: Any) -> None:
        """Write the result down."""
        self._write({"op": number, "end": time.monotonic(), "exact": self._exact, **result})

    def close(self) -> None:
        os.close(self._file)

    def _write(self, line: dict[str, Any]) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")


class Operation(NamedTuple):
    """One operation of one process.

    `state` is ``"done"``, ``"unknown"`` if it may have been performed or not, or ``"undone"``
    if the server forgot it.
    """

    process: str
    number: int
    do: str
    begin: float
    end: float
    state: str
    what: dict[str, Any]


class Undone(NamedTuple):
    """A time whose steps the server forgot: surely from `surely`, perhaps before."""

    perhaps: float
    surely: float
    until: float

    def state(self, begin: float, end: float) -> str:
        if end < self.perhaps or begin > self.until:
            return "done"
        return "undone" if begin > self.surely and end < self.until else "unknown"


def read(directory: Path, undone: Iterable[Undone] = ()) -> list[Operation]:
    """Read the histories of all processes, in order of their beginnings."""
    found = []
    for path in sorted(directory.glob("*.jsonl")):
        lines: dict[int, dict[str, Any]] = {}
        # Text after the last line end was cut off: its operation has not begun, or its end is
        # unknown.
        for line in path.read_bytes().split(b"\n")[:-1]:
            row = json.loads(line)
            lines.setdefault(row["op"], {}).update(row)
        found += [_operation(path.stem, number, row, undone) for number, row in lines.items()]
    return sorted(found, key=lambda each: each.begin)


def _operation(
    process: str, number: int, row: dict[str, Any], undone: Iterable[Undone]
) -> Operation:
    begin, end = row["begin"], row.get("end", math.inf)
    state = "unknown" if end == math.inf or "error" in row else "done"
    # One without an end was under way for as long as anybody knows, but not before it began.
    told = {each.state(begin, end if end < math.inf else begin) for each in undone}
    if "undone" in told and end < math.inf:
        state = "undone"
    elif told - {"done"}:
        state = "unknown"
    return Operation(process, number, row["do"], begin, end, state, row)
