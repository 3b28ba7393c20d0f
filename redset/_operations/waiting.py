"""Waiting for something to hand out."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic
from typing import Any

from redset._effects import Ask, Operation, Wait
from redset._operations.context import Context
from redset._operations.replies import count, listed, number

#: What an attempt gives where there was nothing to be had.
NOTHING: Any = object()


def until(ctx: Context, attempt: Callable[[], Operation[Any]], wait: float) -> Operation[Any]:
    """Attempt at once, and each time that there may be something, for ``wait`` seconds.

    Gives what the first attempt gave that found something, else NOTHING. Between attempts the set
    is looked at, which is one command and changes nothing.
    """
    end = monotonic() + wait
    found = yield from attempt()
    if found is NOTHING and wait > 0:
        keys = _keys(ctx)
        effect = Wait(_look(ctx, keys), keys, end)
        while found is NOTHING and (yield effect):
            found = yield from attempt()
    return found


def _keys(ctx: Context) -> list[bytes]:
    return [ctx.keys.queue] if ctx.keys.prefix is None else [ctx.keys.queue, ctx.keys.leased]


def _look(ctx: Context, keys: list[bytes]) -> Ask:
    return ctx.call("watch", keys, ["1" if ctx.due else ""], _seen)


def _seen(reply: Any) -> tuple[int, float]:
    """Read how many may be had, and in how many seconds there may be more."""
    available, rest = listed(reply, 2)
    milliseconds = number(rest)
    return count(available), math.inf if milliseconds < 0 else milliseconds / 1000
