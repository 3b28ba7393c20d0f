"""Removing by identity, and the memory of ``remember``.

Theory of operation
-------------------

- A limited memory is a sorted set of digests, ordered by expiry. An add removes some expired ones.
- A memory forever keeps eight bytes per item: an integer made of the item's digest and the epoch.
  The integers are in buckets, small sets that the server stores packed. Buckets split one at a time
  (linear hashing, `include/buckets.lua`), so no step moves more than a few hundred integers.
- The epoch is random and stored in the meta. Each step carries the epoch that its integers were
  made with. If the set has another one, the step changes nothing and replies with that epoch.
- Clearing replaces the epoch in one step. The old buckets are out of use from then on. `sweep` and
  later adds unlink them, a bounded number per step.
"""

from __future__ import annotations

import contextlib
from typing import Any

from redset._operations import tables
from redset._operations.context import Context
from redset._operations.keys import REGISTRY
from redset._operations.limits import LEASE_STEP, MEMORY_STEP, cut_by_bytes
from redset._operations.reading import Range, log_expired, size
from redset._operations.replies import Reader, bytes_of, count, list_of, listed, refuse, up_to
from redset._operations.state import new_epoch
from redset._operations.taking import refused
from redset._transport.effects import Ask, Operation, only
from redset._wire.values import flag

#: Members that one step removes. Each is also looked up among the leases.
DISCARD_STEP = 250
#: Names in ``clear.lua`` of the keys that `Keys.fixed` has.
FIXED = (
    "name", "keyed", "tied", "keyed_tied", "grouped", "grouped_tied", "items", "leased", "leases",
    "calls", "dead", "ready", "resting", "waiting", "working", "limits", "shared", "index",
)  # fmt: skip
#: Buckets that one step unlinks.
SWEEP = 500


def tokens_of(ctx: Context, members: list[bytes], epoch: bytes) -> list[bytes]:
    """Return the tokens of members: the form in which the memory stores them under an epoch."""
    wire = ctx.wire
    if not ctx.options.keyed:
        members = wire.digests(members)
    if ctx.options.remember == "limited":
        return members
    return [wire.memory_integer(member, epoch) for member in members]


def discard(ctx: Context, items: list[Any], forget: bool) -> Operation[int]:
    """Remove items, and forget them if asked to. Return the number that was queued or leased."""
    if flag("forget", forget):
        ctx.need_memory("forget")
    members = yield from ctx.codec.identities(items)
    if forget:
        return (yield from forgetting(ctx, discard_members(ctx, members, True)))
    return (yield from discard_members(ctx, members))


def forgetting(ctx: Context, operation: Operation[int]) -> Operation[int]:
    """Perform an operation that forgets, and empty this process's known tables before and after it.

    They are emptied before it, so that an add that begins now asks the server. They are emptied
    after it, because the reply to an earlier add may have filled them since.
    """
    tables.empty(ctx.keys.name)
    try:
        return (yield from operation)
    finally:
        tables.empty(ctx.keys.name)


def discard_members(ctx: Context, members: list[bytes], forget: bool = False) -> Operation[int]:
    """Remove items by their members, and forget them if asked to. Return the number removed."""
    gone = 0
    for part in cut_by_bytes(members, DISCARD_STEP):
        if ctx.keys.prefix is None:
            reads = up_to(len(part))
            gone += yield ctx.command(b"ZREM", ctx.keys.queue, *part, reads=reads)
            continue
        epoch = (yield from ctx.know_epoch()) if forget else None
        while True:
            try:
                reply = yield _discard_step(ctx, part, epoch)
            except Exception as error:
                if forget or not (ctx.keys.is_plain and refused(error)):
                    raise
                reads = up_to(len(part))
                reply = yield ctx.command(b"ZREM", ctx.keys.queue, *part, reads=reads)
            if type(reply) is not _Epoch:
                gone += reply
                break
            epoch = _learn(ctx, reply)
    return gone


def _discard_step(ctx: Context, members: list[bytes], epoch: bytes | None) -> Ask:
    """Make the request that removes members. With an epoch, it also forgets them."""
    reads = up_to(len(members))
    if not epoch:
        return ctx.step("discard", reads, members)
    return ctx.step(
        "discard_and_forget",
        _or_other_epoch(reads, epoch),
        [*members, *tokens_of(ctx, members, epoch)],
        remember=ctx.options.remember,
        epoch=epoch,
        num=len(members),
    )


def discard_between(ctx: Context, within: Range) -> Operation[int]:
    """Remove the queued items of a range. Return their number."""
    lowest, highest = within
    reads = list_of(up_to(DISCARD_STEP), 2)
    gone, more = 0, 1
    while more:
        found, more = yield ctx.step(
            "discard_range",
            reads,
            num=DISCARD_STEP,
            lowest=lowest,
            highest=highest,
            first=ctx.sizes.first,
        )
        gone += found
    return gone


def forget(ctx: Context, items: list[Any]) -> Operation[int]:
    """Forget items. Return the number that was remembered."""
    ctx.need_memory("forget")
    return (yield from forget_members(ctx, (yield from ctx.codec.identities(items))))


def forget_members(ctx: Context, members: list[bytes]) -> Operation[int]:
    """Forget items by their members. Return the number that was remembered."""
    return (yield from forgetting(ctx, _forget(ctx, members)))


def _forget(ctx: Context, members: list[bytes]) -> Operation[int]:
    gone = 0
    for at in range(0, len(members), MEMORY_STEP):
        part = members[at : at + MEMORY_STEP]
        gone += (yield from _asked(ctx, "forget", part, up_to(len(part)))) or 0
    return gone


def seen(ctx: Context, items: list[Any]) -> Operation[list[bool]]:
    """Return for each item whether it is remembered."""
    ctx.need_memory("seen")
    members = yield from ctx.codec.identities(items)
    known: list[bool] = []
    for at in range(0, len(members), MEMORY_STEP):
        part = members[at : at + MEMORY_STEP]
        marks = yield from _asked(ctx, "seen", part, _marks(len(part)))
        known += marks or [False] * len(part)
    return known


def _marks(num: int) -> Reader[list[bool]]:
    def read(reply: Any) -> list[bool]:
        marks = bytes_of(reply)
        if len(marks) != num or marks.strip(b"01"):
            raise refuse(f"{num} digits 0 and 1", reply)
        return [mark == 49 for mark in marks]

    return read


def _asked(ctx: Context, name: str, members: list[bytes], reads: Reader[Any]) -> Operation[Any]:
    """Perform a step on the memory under its present epoch. Return None without a memory."""
    epoch = yield from ctx.know_epoch()
    while epoch:
        tokens = tokens_of(ctx, members, epoch)
        epoch_or = _or_other_epoch(reads, epoch)
        reply = yield ctx.step(name, epoch_or, tokens, remember=ctx.options.remember, epoch=epoch)
        if type(reply) is not _Epoch:
            return reply
        epoch = _learn(ctx, reply)
    return None


class _Epoch(bytes):
    """The set's epoch in a reply; empty if the set has none."""


def _or_other_epoch(reads: Reader[Any], ours: bytes) -> Reader[Any]:
    """Read a reply, or the set's epoch if the set has another one."""

    def read(reply: Any) -> Any:
        if not isinstance(reply, (list, tuple)):
            return reads(reply)
        word, epoch = listed(reply, 2)
        if bytes_of(word) != b"EPOCH" or bytes_of(epoch) == ours:
            raise refuse("another epoch", reply)
        return _Epoch(bytes_of(epoch))

    return read


def _learn(ctx: Context, epoch: _Epoch) -> bytes:
    ctx.memory.epoch = bytes(epoch) or None
    return bytes(epoch)


def clear(ctx: Context, keep_memory: bool, if_finished: bool) -> Operation[int]:
    """Empty the set in one step, then unlink the buckets. Return the number of queued items.

    With ``if_finished``, return the number of queued, leased and delayed items that prevented it.
    """
    if flag("keep_memory", keep_memory):
        ctx.need_memory("keep_memory")
    flag("if_finished", if_finished)
    return (yield from forgetting(ctx, _clear(ctx, keep_memory, if_finished)))


def _clear(ctx: Context, keep_memory: bool, if_finished: bool) -> Operation[int]:
    unlink = ctx.command(b"UNLINK", ctx.keys.queue, reads=up_to(1))
    queued: int
    if ctx.keys.prefix is None:
        # Without a second key nothing is leased or remembered, and an empty queue has no key.
        queued = yield from size(ctx) if if_finished else only(unlink)
        return queued
    own = ctx.keys
    keys = {"meta": own.meta, "none": own.none, "seen": own.seen, "queue": own.queue}
    keys |= {"counts": own.counts, "workers": own.workers}
    keys |= zip(FIXED, own.fixed, strict=True)
    reads: Reader[list[int]] = _cleared_or_not if if_finished else list_of(count, 2)
    try:
        queued, left, *died = yield ctx.step(
            "clear",
            reads,
            keys=keys,
            new_epoch=new_epoch(),
            keep=keep_memory,
            if_finished=if_finished,
            has_key=ctx.options.keyed,
            max_attempts=ctx.options.max_attempts,
            limit=LEASE_STEP,
            first=ctx.sizes.first,
        )
    except Exception as error:
        # Only the other keys show whether the set is finished.
        if ctx.options.marked or if_finished or not refused(error):
            raise
        queued = yield unlink
        return queued
    if died:  # it is not finished
        log_expired(ctx, died[0])
        return queued
    if not keep_memory:
        ctx.memory.epoch = None
    if left:
        yield from sweep(ctx)
    if ctx.reporter.forget():
        with contextlib.suppress(Exception):  # a user may have no right to the registry
            yield ctx.command(b"HDEL", REGISTRY, ctx.keys.name, reads=up_to(1))
    return queued


def _cleared_or_not(reply: Any) -> list[int]:
    """Read the reply of a step that clears only a finished set."""
    found = [count(each) for each in listed(reply)]
    if len(found) not in (2, 3) or bool(found[0]) != (len(found) == 3):
        raise refuse("the number of items that keep a set from being cleared", reply)
    return found


def sweep(ctx: Context) -> Operation[None]:
    """Unlink the buckets of cleared memories, and the indexes of cleared groups."""
    while (yield ctx.step("sweep", count, limit=SWEEP)):
        pass
    keys = {"meta": ctx.keys.meta, "none": ctx.keys.none, "index": ctx.keys.index}
    while (yield ctx.step("sweep_groups", count, keys=keys, limit=SWEEP)):
        pass
