"""Dead letters: what could not be handed out."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from redset._effects import Emit, Operation
from redset._operations.context import STEP, Context, bytes_of


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
    return int((yield ctx.command(b"XLEN", ctx.keys.dead)))


def iterate(ctx: Context) -> Operation[None]:
    """Emit the dead letters, oldest first, a page at a time."""
    start = "-"
    while True:
        page = yield ctx.command(b"XRANGE", ctx.keys.dead, start, b"+", b"COUNT", STEP)
        letters = [_letter(entry) for entry in page]
        if letters:
            yield Emit(letters)
        if len(letters) < STEP:
            return
        start = f"({letters[-1].id}"


def _letter(entry: Any) -> DeadLetter:
    name = bytes_of(entry[0]).decode()
    values = entry[1]
    if isinstance(values, dict):
        fields = {bytes_of(field): value for field, value in values.items()}
    else:
        fields = {bytes_of(values[i]): values[i + 1] for i in range(0, len(values), 2)}
    score = bytes_of(fields.get(b"score", b""))
    return DeadLetter(
        name,
        bytes_of(fields.get(b"raw", b"")),
        float(score) if score else None,
        bytes_of(fields.get(b"reason", b"")).decode("utf-8", "replace"),
        int(name.partition("-")[0]) / 1000,
        int(fields.get(b"attempts", 0)),
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
        num = int((yield ctx.call("purge", [ctx.keys.dead], [last, STEP])))
        gone += num
        if num < STEP:
            return gone
