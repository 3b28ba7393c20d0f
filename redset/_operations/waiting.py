"""Waiting for something to hand out."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

from redset._effects import Ask, Operation, Wait
from redset._operations.context import Context
from redset._operations.replies import count, listed, number

T = TypeVar("T")


def until(
    ctx: Context, attempt: Callable[[], Operation[list[T]]], wait: float
) -> Operation[list[T]]:
    """Attempt at once, and each time that there may be something, for ``wait`` seconds.

    Gives what the first attempt gave that found something. Between attempts the set is looked at,
    which is one command and changes nothing.
    """
    end = monotonic() + wait
    found = yield from attempt()
    if wait and not found:
        keys = _keys(ctx)
        effect = Wait(_look(ctx, keys), keys, end)
        while not found and (yield effect):
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
