"""Calls for many items or letters, a page of them at a time, and what they print."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from redset.cli.output import Output
from redset.cli.program import NO, PARTLY

#: Items, or letters, of a call.
MANY = 1000


def paged(source: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield the values of a source in lists."""
    left = iter(source)
    while page := list(islice(left, MANY)):
        yield page


def total_of(source: Iterable[Any], call: Callable[[list[Any]], int]) -> tuple[int, int]:
    """Call with a page at a time. Return the sum of the results, and the number of values."""
    done = asked = 0
    for page in paged(source):
        done += call(page)
        asked += len(page)
    return done, asked


def counted(output: Output, field: str, done: int, asked: int, what: str = "") -> int:
    """Print how many of the values were found, and return the status."""
    if output.as_json:
        output.record({"asked": asked, field: done})
    elif output.is_terminal:
        output.line(f"{done:,} of {asked:,} {what or f'items {field}'}")
    else:
        output.line(str(done))
    return 0 if done == asked else PARTLY if done else NO
