"""Handing items out for good: pop and take."""

from __future__ import annotations

import logging
from typing import Any

from redset._effects import Ask, Operation
from redset._operations.context import Context, bytes_of, flat
from redset.exceptions import DecodeError

log = logging.getLogger("redset")

#: The most items that one step removes; more are taken in several.
STEP, KEYED_STEP = 2000, 1000
#: A consumer that can decode none of so many has the wrong serializer.
ENOUGH = 10


def pop(ctx: Context, multi: bool) -> Operation[Any]:
    """Remove the lowest item that can be decoded; KeyError where there is none."""
    yield from _look_first(ctx)
    while True:
        raws = yield from _remove(ctx, 1, multi)
        if not raws:
            raise KeyError(f"the set {ctx.keys.name!r} is empty")
        items = yield from _decoded(ctx, raws, False)
        if items:
            return items[0]


def take(ctx: Context, num: int, with_scores: bool, multi: bool) -> Operation[list[Any]]:
    """Remove up to ``num`` items, lowest first."""
    taken: list[Any] = []
    if num < 1:
        return taken
    yield from _look_first(ctx)
    step = KEYED_STEP if ctx.keyed else STEP
    total = bad = 0
    while num > 0:
        want = min(num, step)
        raws = yield from _remove(ctx, want, multi, with_scores)
        items = yield from _decoded(ctx, raws, with_scores)
        taken += items
        found = len(raws) // 2 if _scored(ctx, with_scores) else len(raws)
        total += found
        bad += found - len(items)
        if found < want:
            break
        num -= found
    if bad == total and total >= ENOUGH:
        raise DecodeError(
            f"none of {total} items of {ctx.keys.name!r} could be decoded; they are in dead"
        )
    return taken


def _scored(ctx: Context, with_scores: bool) -> bool:
    # Where there can be no dead letters an undecodable member goes back, at its score.
    return with_scores or ctx.keys.prefix is None


def _remove(ctx: Context, num: int, multi: bool, with_scores: bool = False) -> Operation[list[Any]]:
    """Remove up to ``num`` members in one step; with their scores between them where asked."""
    scored = _scored(ctx, with_scores)
    queue = ctx.keys.queue
    if ctx.due or ctx.keyed or (num > 1 and not multi):
        reply = yield ctx.call("take", ctx.queue_keys, [num, "1" if ctx.due else ""], resend=False)
        return _with(reply, scored)
    if num == 1:
        reply = yield ctx.command(b"ZPOPMIN", queue, resend=False)
        return _with(flat(reply), scored)
    # Taking by range and removing by rank costs the server two thirds of ZPOPMIN with a count.
    encode = ctx.wire.encode
    fetch = [b"ZRANGE", queue, 0, num - 1] + ([b"WITHSCORES"] if scored else [])
    request = [
        encode([b"MULTI"]),
        encode(fetch),
        encode([b"ZREMRANGEBYRANK", queue, 0, num - 1]),
        encode([b"EXEC"]),
    ]
    try:
        reply = yield Ask(b"".join(request), 4)
    except Exception as error:
        if not _out_of_memory(error):
            raise
        # A full server refuses what is queued in a MULTI, and lets a script pass that frees first.
        reply = yield ctx.call("take", ctx.queue_keys, [num, ""], resend=False)
        return _with(reply, scored)
    return flat(reply[0])


def _out_of_memory(error: Exception) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or str(error).startswith("OOM ")


def _with(reply: list[Any], scored: bool) -> list[Any]:
    return reply if scored else reply[::2]


def _look_first(ctx: Context) -> Operation[None]:
    """Before the first removal: refuse to empty a set of which nothing can be decoded."""
    if ctx.looked:
        return
    if ctx.due or ctx.keyed:
        reply = yield ctx.call("look", ctx.queue_keys, [0, ENOUGH, "1" if ctx.due else ""])
        raws = reply[::2]
    else:
        raws = yield ctx.command(b"ZRANGE", ctx.keys.queue, 0, ENOUGH - 1)
    present = [bytes_of(raw) for raw in raws if raw is not None]
    items, bad = ctx.wire.decode(present, ctx.loads, ctx.binary)
    if len(present) >= ENOUGH and not items:
        raise DecodeError(
            f"none of the first {len(present)} items of {ctx.keys.name!r} can be decoded; "
            "nothing was removed: is this the serializer they were written with?"
        ) from bad[0].error
    ctx.looked = True


def _decoded(ctx: Context, raws: list[Any], with_scores: bool) -> Operation[list[Any]]:
    """Decode what was removed; what cannot be goes to the dead letters."""
    scored = _scored(ctx, with_scores)
    members = raws[::2] if scored else raws
    scores = raws[1::2] if scored else None
    if None in members:
        log.warning("dropped %d members of %r without payload", members.count(None), ctx.keys.name)
        kept = [i for i, member in enumerate(members) if member is not None]
        members = [members[i] for i in kept]
        scores = [scores[i] for i in kept] if scores is not None else None
    if members and not isinstance(members[0], bytes):
        members = [bytes_of(member) for member in members]
    items, bad = ctx.wire.decode(members, ctx.loads, ctx.binary)
    if bad:
        yield from _bury(ctx, bad, scores)
    if not with_scores:
        return items  # type: ignore[no-any-return]
    assert scores is not None
    lost = {place for place, _, _ in bad}
    numbers = [float(score) for place, score in enumerate(scores) if place not in lost]
    return list(zip(items, numbers, strict=True))


def _bury(ctx: Context, bad: list[Any], scores: list[Any] | None) -> Operation[None]:
    for at in range(0, len(bad), 500):
        part = bad[at : at + 500]
        arguments: list[Any] = []
        if ctx.keys.prefix is None:
            assert scores is not None
            for index, raw, _ in part:
                arguments += [bytes_of(scores[index]), raw]
            yield ctx.call("restore", [ctx.keys.queue], arguments)
            continue
        for _, raw, error in part:
            arguments += [raw, "", f"{type(error).__name__}: {error}"]
        yield ctx.call("bury", [ctx.keys.queue, ctx.keys.dead], arguments, resend=False)
    if ctx.keys.prefix is None:
        raise DecodeError(
            f"{len(bad)} items of {ctx.keys.name!r} cannot be decoded and were put back: a name "
            "with braces but no valid hash tag can have no dead letters"
        ) from bad[0].error
    log.warning(
        "%d items of %r could not be decoded and are in dead: %s",
        len(bad),
        ctx.keys.name,
        bad[0].error,
    )
