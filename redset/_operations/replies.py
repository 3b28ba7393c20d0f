"""Readers of replies: each accepts a reply of the shape that its command has, and refuses others.

A reply of another shape does not come from a server that redset runs on. It comes from a proxy that
mixes replies up, from a broken connection, or from another service at the port.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable
from typing import Any, TypeVar

from redset._transport.effects import Unexpected

T = TypeVar("T")
Reader = Callable[[Any], T]

_MOST = 2**63 - 1
_TEXTS = (bytes, str, int, float)
_COUNTS = {int, bytes, str}
_BYTES = {bytes, type(None)}
_MEMBERS = {bytes, str, int, float, type(None)}


def refuse(wanted: str, reply: Any) -> Unexpected:
    """Return the error of a reply, with the expected and the received one."""
    return Unexpected(f"expected {wanted}, got {reprlib.repr(reply)}")


def is_answer(error: Exception) -> bool:
    """Whether an exception of any client is a server's reply. Its connection is then in order."""
    return any(base.__name__ == "ResponseError" for base in type(error).__mro__)


def bytes_of(reply: Any) -> bytes:
    """Return a bulk reply as bytes, even if a client decoded it."""
    if isinstance(reply, bytes):
        return reply
    if isinstance(reply, str):
        return reply.encode("utf-8", "surrogateescape")
    if isinstance(reply, _TEXTS):
        return str(reply).encode()
    raise refuse("a string", reply)


def count(reply: Any, most: int = _MOST) -> int:
    """Read a count, of at most so many."""
    try:
        number = int(reply) if isinstance(reply, (int, str, bytes)) else -1
    except ValueError:
        number = -1
    if not 0 <= number <= most:
        raise refuse("a count" if most == _MOST else f"a count of at most {most}", reply)
    return number


def counts(replies: list[Any]) -> list[int]:
    """Read several counts. If all are plain ints, as nearly always, one look is enough."""
    if set(map(type, replies)) <= _COUNTS:
        try:
            found = list(map(int, replies))
            if not found or (min(found) >= 0 and max(found) <= _MOST):
                return found
        except ValueError:
            pass
    return [count(reply) for reply in replies]


def numbers(replies: list[Any]) -> list[float]:
    """Read several scores or times."""
    try:
        found = list(map(float, replies))
    except (TypeError, ValueError, OverflowError):
        found = [math.nan]
    return [number(reply) for reply in replies] if any(map(math.isnan, found)) else found


def numbers_or_none(length: int) -> Reader[list[float | None]]:
    """Read scores of so many members; None stands for a member that is not there."""

    def read(reply: Any) -> list[float | None]:
        found = listed(reply, length)
        there = iter(numbers([value for value in found if value is not None]))
        return [None if value is None else next(there) for value in found]

    return read


def up_to(most: int) -> Reader[int]:
    return lambda reply: count(reply, most)


def number(reply: Any) -> float:
    """Read a score or a time."""
    try:
        value = float(reply) if isinstance(reply, _TEXTS) else math.nan
    except (ValueError, OverflowError):
        value = math.nan
    if math.isnan(value):
        raise refuse("a number", reply)
    return value


def optional(read: Reader[T]) -> Reader[T | None]:
    return lambda reply: None if reply is None else read(reply)


def listed(reply: Any, length: int | None = None) -> list[Any]:
    """Read a list of any values, of a length if that is given."""
    if not isinstance(reply, (list, tuple)) or length not in (None, len(reply)):
        raise refuse("a list" if length is None else f"a list of {length}", reply)
    return list(reply)


def list_of(read: Reader[T], length: int) -> Reader[list[T]]:
    return lambda reply: [read(value) for value in listed(reply, length)]


def scan_page(reply: Any) -> tuple[bytes, list[bytes]]:
    """Read the next cursor of a scan, and what it found."""
    cursor, found = listed(reply, 2)
    if isinstance(cursor, dict):  # of a cluster client: by node
        (cursor,) = cursor.values()
    if isinstance(found, dict):
        found = [part for pair in found.items() for part in pair]
    return bytes_of(cursor), [bytes_of(each) for each in listed(found)]


def members(reply: Any, most: int) -> list[Any]:
    """Read at most so many members, as bytes. None stands for a member without payload."""
    found = listed(reply)
    if len(found) > most:
        raise refuse(f"at most {most} members", reply)
    # One check for all: they are many, and nearly always bytes.
    kinds = set(map(type, found))
    if kinds <= _BYTES:
        return found
    if not kinds <= _MEMBERS:
        raise refuse("a list of strings", reply)
    return [None if member is None else bytes_of(member) for member in found]


def scored_in_bytes(most: int) -> Reader[tuple[bool, list[Any], list[Any]]]:
    """Read whether there may be more, then member, score, ...: of a step bounded by bytes."""
    read_scored = scored(most)

    def read(reply: Any) -> tuple[bool, list[Any], list[Any]]:
        more, found = listed(reply, 2)
        return (count(more, 1) == 1, *read_scored(found))

    return read


def scored(most: int) -> Reader[tuple[list[Any], list[Any]]]:
    """Read member, score, ... of at most so many members, or their pairs (RESP3)."""

    def read(reply: Any) -> tuple[list[Any], list[Any]]:
        found = listed(reply)
        if found and isinstance(found[0], (list, tuple)):
            found = [value for pair in found for value in listed(pair, 2)]
        if len(found) % 2:
            raise refuse("members and scores", reply)
        scores = found[1::2]
        try:
            wrong = any(map(math.isnan, map(float, scores)))
        except (TypeError, ValueError, OverflowError):
            wrong = True
        if wrong:
            raise refuse("numbers as scores", reply)
        return members(found[::2], most), scores

    return read
