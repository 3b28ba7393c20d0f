"""Waiting for an item that can be handed out.

Theory of operation
-------------------

A waiting call tries, waits for a sign that there may be an item, and tries again, until its time is
over. No call blocks on the server: a blocked connection is lost to the pool, and a reply that comes
after its caller died loses an item. `watch.lua` reads the number of items, and the milliseconds
until one falls due or a lease ends. It changes nothing. The effect `Wait` has this request. The
transport sends it for all waiting calls of a process together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

from redset._operations.context import Context
from redset._operations.replies import count, listed, number
from redset._operations.reporting import IDLE
from redset._transport.effects import Operation, Wait

T = TypeVar("T")


def until(
    ctx: Context, attempt: Callable[[], Operation[list[T]]], wait: float
) -> Operation[list[T]]:
    """Attempt at once, and each time that there may be an item, for ``wait`` seconds.

    Return the result of the first attempt that is not empty. Between attempts the set is polled:
    one command, which changes nothing.
    """
    end = monotonic() + wait
    found = yield from attempt()
    if wait and not found:
        effect = wait_for(ctx, end)
        while not found and (yield from _sign(effect, end)):
            found = yield from attempt()
    return found


def _sign(effect: Wait, end: float) -> Operation[bool]:
    """Wait for a sign. Some time without one also ends it: a report travels with the attempt."""
    effect.until = min(end, monotonic() + IDLE)
    return (yield effect) or monotonic() < end


def wait_for(
    ctx: Context, end: float, finish: bool = False, ended: Callable[[], bool] | None = None
) -> Wait:
    """Return the effect that waits for an item, and with ``finish`` also for the set's end.

    The end counts as an item that all waiters may have.
    """
    if ctx.options.grouped:
        own = ctx.keys
        # An item that is added to a group that may not start wakes no waiter.
        keys = [own.ready, own.resting, own.waiting, own.leased, own.paused]
        keys += [own.queue] if finish else []
        return Wait(ctx.step("watch_turns", _seen, finish=finish), keys, end, ended)
    keys = [ctx.keys.queue]
    if ctx.keys.prefix is not None:
        keys += [ctx.keys.leased, ctx.keys.paused]
    return Wait(ctx.step("watch", _seen, due=ctx.options.due, finish=finish), keys, end, ended)


def _seen(reply: Any) -> tuple[int, float]:
    """Read the number of available items, and the time until there may be more, in seconds."""
    available, rest = listed(reply, 2)
    milliseconds = number(rest)
    return count(available), math.inf if milliseconds < 0 else milliseconds / 1000
