"""Looking without changing anything."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from redset._effects import Emit, Operation
from redset._operations.context import STEP, Context, ServerClock, bytes_of
from redset.exceptions import DecodeError

log = logging.getLogger("redset")


class Stats(NamedTuple):
    """A set in figures, taken in one server step.

    Attributes
    ----------
    size : int
        Items queued, due or not.
    available : int
        Items that a consumer would be given now.
    dead : int
        Dead letters.
    remembered : int
        Items that ``remember`` knows.
    oldest_score : float or None
        The lowest score; None where the set is empty.
    oldest_age : float or None
        Seconds since the lowest score, on the server's clock; only for sets scored by time.
    memory_bytes : int
        The server's memory for the set: an estimate from samples.

    Examples
    --------
    >>> stats = jobs.stats()
    >>> stats.size, stats.oldest_score, stats.memory_bytes
    (0, None, 0)
    """

    size: int
    available: int
    dead: int
    remembered: int
    oldest_score: float | None
    oldest_age: float | None
    memory_bytes: int


def server_time(ctx: Context, clock: ServerClock) -> Operation[float]:
    """Give the server's time, asked for or still known."""
    yield from clock.refresh(ctx)
    return clock()


def size(ctx: Context) -> Operation[int]:
    return int((yield ctx.command(b"ZCARD", ctx.keys.queue)))


def available(ctx: Context) -> Operation[int]:
    if not ctx.due:
        return (yield from size(ctx))
    return int((yield ctx.call("available", [ctx.keys.queue], [])))


def score(ctx: Context, item: Any) -> Operation[float | None]:
    reply = yield ctx.command(b"ZSCORE", ctx.keys.queue, ctx.identity(item))
    return None if reply is None else float(reply)


def scores(ctx: Context, items: list[Any]) -> Operation[list[float | None]]:
    members = yield from ctx.identities(items)
    found: list[float | None] = []
    for at in range(0, len(members), STEP):
        reply = yield ctx.command(b"ZMSCORE", ctx.keys.queue, *members[at : at + STEP])
        found += [None if value is None else float(value) for value in reply]
    return found


def get(ctx: Context, item: Any) -> Operation[Any]:
    member = ctx.identity(item)
    if ctx.keyed:
        raw = yield ctx.call("get", ctx.queue_keys, [member])
    else:
        reply = yield ctx.command(b"ZSCORE", ctx.keys.queue, member)
        raw = None if reply is None else member
    return None if raw is None else _decoded(ctx, raw)


def _decoded(ctx: Context, raw: Any) -> Any:
    try:
        return ctx.decode_one(bytes_of(raw))
    except Exception as error:
        raise DecodeError(f"an item of {ctx.name!r} cannot be decoded: {error}") from error


def peek(ctx: Context, position: int) -> Operation[Any]:
    found = yield from _look(ctx, position, 1)
    while found and found[0] is None:  # a member without payload, which a removal would drop
        position += 1 if position >= 0 else -1
        found = yield from _look(ctx, position, 1)
    if not found:
        raise KeyError(f"the set {ctx.name!r} has no item at position {position}")
    return _decoded(ctx, found[0])


def peek_score(ctx: Context) -> Operation[float | None]:
    found = yield from _look(ctx, 0, 1)
    return float(found[1]) if found else None


def peek_many(ctx: Context, num: int) -> Operation[list[Any]]:
    items: list[Any] = []
    position = 0
    while position < num:
        want = min(num - position, STEP)
        found = yield from _look(ctx, position, want)
        items += yield from _decodable(ctx, found[::2])
        if len(found) < 2 * want:
            break
        position += want
    return items


def _look(ctx: Context, position: int, num: int) -> Operation[list[Any]]:
    due = "1" if ctx.due else ""
    return list((yield ctx.call("look", ctx.queue_keys, [position, num, due])))


def _decodable(ctx: Context, raws: list[Any]) -> Operation[list[Any]]:
    present = [bytes_of(raw) for raw in raws if raw is not None]
    items, bad = yield from ctx.decode(present)
    if bad:
        log.warning(
            "skipped %d items of %r that cannot be decoded: %s",
            len(bad),
            ctx.name,
            bad[0].error,
        )
    return items


def iterate(ctx: Context) -> Operation[None]:
    """Emit all items in order of score, a page at a time."""
    last: list[bytes] = []
    while True:
        members, scored, payloads = yield ctx.call("page", ctx.queue_keys, [STEP, *last])
        if not members:
            return
        last = [bytes_of(scored[-1]), bytes_of(members[-1])]
        yield Emit((yield from _decodable(ctx, payloads if ctx.keyed else members)))
        if len(members) < STEP:
            return


def stats(ctx: Context, timed: bool) -> Operation[Stats]:
    keys = [ctx.keys.queue]
    if ctx.keys.prefix is not None:
        keys += [ctx.keys.dead, ctx.keys.meta, ctx.keys.seen, ctx.keys.items]
    reply = yield ctx.call("stats", keys, ["1" if ctx.due else "", ctx.remember])
    oldest = float(bytes_of(reply[4])) if reply[4] else None
    age = float(bytes_of(reply[5])) - oldest if timed and oldest is not None else None
    counts = [int(value) for value in reply[:4]]
    return Stats(counts[0], counts[1], counts[2], counts[3], oldest, age, int(reply[6]))
