"""Dead letters: what could not be handed out."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

from redset._effects import Emit, Operation
from redset._operations.context import STEP, Context
from redset._operations.replies import bytes_of, count, listed, number, refuse, up_to

_ID = re.compile(rb"(\d{1,20})-\d{1,20}")


class DeadLetter(NamedTuple):
    """One dead letter.

    Attributes
    ----------
    id : str
        Names it, within its set.
    raw : bytes
        What was stored for the item.
    score : float or None
        Its score; None for what ``pop`` and ``take`` could not decode.
    reason : str
        The error's class and text.
    time : float
        When it died: Unix time of the server, in seconds.
    attempts : int
        How often it was leased in vain.

    Examples
    --------
    >>> letter = DeadLetter("1700000000000-0", b"[2", None, "ValueError: bad", 1.7e9, 0)
    >>> letter.raw, letter.reason
    (b'[2', 'ValueError: bad')
    """

    id: str
    raw: bytes
    score: float | None
    reason: str
    time: float
    attempts: int


def size(ctx: Context) -> Operation[int]:
    letters: int = yield ctx.command(b"XLEN", ctx.keys.dead, reads=count)
    return letters


def iterate(ctx: Context) -> Operation[None]:
    """Emit the dead letters, oldest first, a page at a time."""
    start = "-"
    while True:
        letters = yield ctx.command(
            b"XRANGE", ctx.keys.dead, start, b"+", b"COUNT", STEP, reads=_letters
        )
        if letters:
            yield Emit(letters)
        if len(letters) < STEP:
            return
        start = f"({letters[-1].id}"


def _letters(reply: Any) -> list[DeadLetter]:
    entries = listed(reply)
    if len(entries) > STEP:
        raise refuse(f"at most {STEP} dead letters", reply)
    return [_letter(entry) for entry in entries]


def _letter(entry: Any) -> DeadLetter:
    id, values = listed(entry, 2)
    name = bytes_of(id)
    found = _ID.fullmatch(name)
    if found is None:
        raise refuse("the id of a dead letter", id)
    if isinstance(values, dict):
        fields = {bytes_of(field): value for field, value in values.items()}
    else:
        parts = [bytes_of(value) for value in listed(values)]
        if len(parts) % 2:
            raise refuse("the fields of a dead letter", values)
        fields = dict(zip(parts[::2], parts[1::2], strict=True))
    score = bytes_of(fields.get(b"score", b""))
    return DeadLetter(
        name.decode(),
        bytes_of(fields.get(b"raw", b"")),
        number(score) if score else None,
        bytes_of(fields.get(b"reason", b"")).decode("utf-8", "replace"),
        int(found[1]) / 1000,
        count(fields.get(b"attempts", 0)),
    )


def purge(ctx: Context, before: float | None) -> Operation[int]:
    """Delete the dead letters older than a time; how many there were."""
    last = "+"
    if before is not None:
        if not isinstance(before, (int, float)):
            raise TypeError(f"before must be Unix time in seconds, not {type(before).__name__}")
        if math.isnan(before):
            raise ValueError("before must be Unix time in seconds, not NaN")
        if before * 1000 < 1:
            return 0  # no id is below 0-0
        if before < 2**63 / 1000:
            last = f"({int(before * 1000)}-0"
    gone = 0
    while True:
        num: int = yield ctx.call("purge", [ctx.keys.dead], [last, STEP], up_to(STEP))
        gone += num
        if num < STEP:
            return gone
