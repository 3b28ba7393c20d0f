"""Removing by identity, and what a set remembers."""

from __future__ import annotations

from typing import Any

from redset._effects import Operation
from redset._operations.context import MEMORY_STEP, STEP, Context, bytes_of, new_epoch

#: Buckets that one step unlinks.
SWEEP = 500


def discard(ctx: Context, items: list[Any], forget: bool) -> Operation[int]:
    """Remove items, and forget them where asked; how many were queued."""
    if forget:
        ctx.need_memory("forget")
    members = yield from ctx.identities(items)
    gone = 0
    step = MEMORY_STEP if forget else STEP
    for at in range(0, len(members), step):
        part = members[at : at + step]
        if not (ctx.keyed or forget):
            gone += int((yield ctx.command(b"ZREM", ctx.keys.queue, *part)))
            continue
        keys = [ctx.keys.queue, ctx.keys.meta, ctx.keys.seen, ctx.keys.items]
        keyed = "1" if ctx.keyed else ""
        epoch = (yield from ctx.know_epoch()) if forget else None
        while True:
            if epoch:
                tokens = ctx.memory_tokens(part, epoch)
                head = [keyed, ctx.remember, epoch, len(part)]
            else:
                tokens, head = [], [keyed, "", "", len(part)]
            reply = yield ctx.call("discard", keys, [*head, *part, *tokens])
            other = _other_epoch(ctx, reply)
            if other is None:
                gone += int(reply)
                break
            epoch = other
    return gone


def forget(ctx: Context, items: list[Any]) -> Operation[int]:
    """Forget items; how many were known."""
    ctx.need_memory("forget")
    members = yield from ctx.identities(items)
    gone = 0
    for at in range(0, len(members), MEMORY_STEP):
        reply = yield from _asked(ctx, "forget", members[at : at + MEMORY_STEP])
        gone += int(reply or 0)
    return gone


def seen(ctx: Context, items: list[Any]) -> Operation[list[bool]]:
    """Say of each item whether it is remembered."""
    ctx.need_memory("seen")
    members = yield from ctx.identities(items)
    known: list[bool] = []
    for at in range(0, len(members), MEMORY_STEP):
        part = members[at : at + MEMORY_STEP]
        reply = yield from _asked(ctx, "seen", part)
        known += [mark == 49 for mark in bytes_of(reply)] if reply else [False] * len(part)
    return known


def _asked(ctx: Context, name: str, members: list[bytes]) -> Operation[Any]:
    """Run a step on the memory under its present epoch; None where there is no memory yet."""
    epoch = yield from ctx.know_epoch()
    while epoch:
        arguments = [ctx.remember, epoch, *ctx.memory_tokens(members, epoch)]
        reply = yield ctx.call(name, [ctx.keys.meta, ctx.keys.seen], arguments)
        other = _other_epoch(ctx, reply)
        if other is None:
            return reply
        epoch = other
    return None


def _other_epoch(ctx: Context, reply: Any) -> bytes | None:
    """Give the epoch that a step says the set has, b"" for none; None where it went by ours."""
    if not isinstance(reply, list):
        return None
    other = bytes_of(reply[1])
    ctx.epoch = other or None
    return other


def clear(ctx: Context, keep_memory: bool) -> Operation[int]:
    """Empty the set in one step, then unlink what its memory leaves; how many were queued."""
    if keep_memory:
        ctx.need_memory("keep_memory")
    if ctx.keys.prefix is None:
        return int((yield ctx.command(b"UNLINK", ctx.keys.queue)))
    keys = [ctx.keys.meta, ctx.keys.seen, *ctx.keys.fixed]
    queued, left = yield ctx.call("clear", keys, [new_epoch(), "1" if keep_memory else ""])
    if not keep_memory:
        ctx.epoch = None
    while left:
        left = yield ctx.call("sweep", [ctx.keys.meta, ctx.keys.seen], [SWEEP])
    return int(queued)
