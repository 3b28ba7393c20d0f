"""Handing items out for good: pop and take."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from redset._effects import Ask, Operation
from redset._operations.context import LEASE_STEP, Context, error_text
from redset._operations.reading import Range, page_behind
from redset._operations.replies import (
    Reader,
    bytes_of,
    count,
    listed,
    many,
    members,
    scored,
    up_to,
)
from redset._operations.waiting import until
from redset.exceptions import DecodeError

log = logging.getLogger("redset")

#: The most items that one step removes; more are taken in several.
STEP, KEYED_STEP = 2000, 1000
#: Members that one step keeps as dead letters.
PART = 500
#: A consumer that can decode none of so many has the wrong serializer.
ENOUGH = 10


def pop(ctx: Context, wait: float) -> Operation[Any]:
    """Remove the lowest item that can be decoded; KeyError where there is none in time."""
    found = yield from until(ctx, lambda: _pop(ctx), wait)
    if not found:
        raise KeyError(ctx.nothing())
    return found[0]


def _pop(ctx: Context) -> Operation[list[Any]]:
    undecodable = 0
    while (yield from look_first(ctx)) and undecodable < ENOUGH:
        taken = yield from _remove(ctx, 1, False, False)
        if not taken.members:
            break
        items, bad, failure = yield from _decoded(ctx, taken, False)
        if items:
            return items
        if failure is not None:
            raise failure
        undecodable += bad
    if undecodable >= ENOUGH:
        raise none_of(ctx, undecodable)
    return []


def take(
    ctx: Context, num: int, with_scores: bool, multi: bool, wait: float
) -> Operation[list[Any]]:
    """Remove up to ``num`` items, lowest first, as soon as there are any."""
    if num < 1:
        return []
    # A MULTI is four commands: too many for who may try often.
    multi = multi and not wait
    return (yield from until(ctx, lambda: _take_now(ctx, num, with_scores, multi), wait))


def take_between(ctx: Context, num: int, within: Range) -> Operation[list[Any]]:
    """Remove up to ``num`` items of a range, lowest first."""
    return (yield from _take_now(ctx, num, False, False, within))


def _take_now(
    ctx: Context, num: int, with_scores: bool, multi: bool, within: Range | None = None
) -> Operation[list[Any]]:
    items: list[Any] = []
    if num < 1 or not (yield from look_first(ctx, within)):
        return items
    step = KEYED_STEP if ctx.keyed or ctx.ties else STEP
    undecodable = 0
    while num > 0:
        want = min(num, step)
        failure: Exception | None
        try:
            taken = yield from _remove(ctx, want, multi, with_scores, within)
        except Exception as error:
            taken, failure = _NOTHING, error
        else:
            more, bad, failure = yield from _decoded(ctx, taken, with_scores)
            items += more
            undecodable += bad
        if failure is not None:
            if not items:
                raise failure
            # What was removed before is the caller's; the next call meets the error itself.
            log.error("some items of %r could not be handed out: %s", ctx.name, failure)
            return items
        found = len(taken.members)
        if found < want:
            break
        num -= found
    if not items and undecodable >= ENOUGH:
        raise none_of(ctx, undecodable)
    return items


def none_of(ctx: Context, total: int) -> DecodeError:
    return DecodeError(f"none of {total} items of {ctx.name!r} could be decoded; they are in dead")


class _Taken(NamedTuple):
    """What was removed: members, or with ``key=`` payloads, and their scores where they came."""

    members: list[Any]
    scores: list[Any] | None


_NOTHING = _Taken([], None)


def _remove(
    ctx: Context, num: int, multi: bool, with_scores: bool, within: Range | None = None
) -> Operation[_Taken]:
    """Remove up to ``num`` members in one step."""
    taken: _Taken
    queue = ctx.keys.queue
    if within is not None or ctx.due or ctx.keyed or (num > 1 and not multi):
        taken = yield _take(ctx, num, within)
        return taken
    if num == 1:
        taken = yield ctx.command(b"ZPOPMIN", queue, reads=_taken(1), resend=False)
        if not taken.members and ctx.keys.prefix is not None:
            taken = yield _take(ctx, 1)  # what of the leased is there again
        return taken
    # Where there can be no dead letters what cannot be decoded goes back, at its score.
    with_scores = with_scores or ctx.keys.prefix is None
    # Taking by range and removing by rank costs the server two thirds of ZPOPMIN with a count.
    encode = ctx.wire.encode
    fetch = [b"ZRANGE", queue, 0, num - 1] + ([b"WITHSCORES"] if with_scores else [])
    request = [
        encode([b"MULTI"]),
        encode(fetch),
        encode([b"ZREMRANGEBYRANK", queue, 0, num - 1]),
        encode([b"EXEC"]),
    ]
    reads = _removed(_taken(num) if with_scores else _unscored(num))
    try:
        taken = yield Ask(b"".join(request), 4, reads=reads)
    except Exception as error:
        if not out_of_memory(error):
            raise
        # A full server refuses what is queued in a MULTI, and lets a script pass that frees first.
        taken = yield _take(ctx, num)
        return taken
    if len(taken.members) < num and ctx.keys.prefix is not None:
        try:
            more = yield _take(ctx, num - len(taken.members))
        except Exception as error:
            if not taken.members:
                raise
            log.error("the expired leases of %r could not be given back: %s", ctx.name, error)
        else:
            scores = None if taken.scores is None else taken.scores + more.scores
            taken = _Taken(taken.members + more.members, scores)
    return taken


def _take(ctx: Context, num: int, within: Range | None = None) -> Ask:
    keys = [ctx.keys.queue] if ctx.keys.prefix is None else ctx.lease_keys
    arguments = [num, "1" if ctx.due else "", ctx.max_attempts, LEASE_STEP, *(within or ())]
    return ctx.call("take", keys, arguments, _taken(num), resend=False)


def _queue_and_dead(ctx: Context) -> list[bytes]:
    """The queue's key, and that of the dead letters where there can be some."""
    return [ctx.keys.queue] if ctx.keys.prefix is None else [ctx.keys.queue, ctx.keys.dead]


def _taken(num: int) -> Reader[_Taken]:
    read = scored(num)
    return lambda reply: _Taken(*read(reply))


def _unscored(num: int) -> Reader[_Taken]:
    return lambda reply: _Taken(members(reply, num), None)


def _removed(read: Reader[_Taken]) -> Reader[_Taken]:
    """Read what EXEC says of a range and its removal."""
    return lambda reply: read(listed(reply, 2)[0])


def out_of_memory(error: Exception) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or str(error).startswith("OOM ")


def look_first(ctx: Context, within: Range | None = None) -> Operation[bool]:
    """Until something was decoded: refuse to empty a set, or a range, of which nothing can be.

    False where there is nothing to hand out.
    """
    if ctx.looked:
        return True
    raws = yield from _first(ctx, within)
    if not raws and within is None and ctx.keys.prefix is not None:
        _, back = yield end_of(ctx)
        if back:
            raws = yield from _first(ctx)
    present = [raw for raw in raws if raw is not None]
    items, bad = yield from ctx.decode(present)
    if len(present) >= ENOUGH and not items:
        raise DecodeError(
            f"none of the first {len(present)} items of {ctx.name!r} can be decoded; "
            "nothing was removed: is this the serializer they were written with?"
        ) from bad[0].error
    ctx.looked = bool(items)
    return bool(raws)


def end_of(ctx: Context) -> Ask:
    """Ask whether the set is finished, and how many expired leases that gave back."""
    arguments = [ctx.max_attempts, LEASE_STEP]
    return ctx.call("finished", ctx.lease_keys, arguments, many(up_to(LEASE_STEP), 2))


def _first(ctx: Context, within: Range | None = None) -> Operation[list[Any]]:
    raws: list[Any]
    if within is not None:
        page = yield page_behind(ctx, ENOUGH, within, [])
        raws = page.payloads
    elif ctx.due or ctx.keyed:
        arguments = [0, ENOUGH, "1" if ctx.due else ""]
        raws, _ = yield ctx.call("look", ctx.queue_keys, arguments, scored(ENOUGH))
    else:
        fetch = (b"ZRANGE", ctx.keys.queue, 0, ENOUGH - 1)
        raws = yield ctx.command(*fetch, reads=lambda reply: members(reply, ENOUGH))
    return raws


def _decoded(
    ctx: Context, taken: _Taken, with_scores: bool
) -> Operation[tuple[list[Any], int, Exception | None]]:
    """Decode what was removed; how much cannot be, and went to the dead letters.

    Where that fails it is put back, and why comes with the items: they are the caller's.
    """
    raws, scores = taken
    if None in raws:
        log.warning("dropped %d members of %r without payload", raws.count(None), ctx.name)
        kept = [i for i, raw in enumerate(raws) if raw is not None]
        raws = [raws[i] for i in kept]
        scores = [scores[i] for i in kept] if scores is not None else None
    items, bad = yield from ctx.decode(raws)
    failure = None
    if bad:
        failure = yield from _bury(ctx, bad, scores)
    if with_scores:
        assert scores is not None
        lost = {place for place, _, _ in bad}
        numbers = [ctx.told(float(score)) for at, score in enumerate(scores) if at not in lost]
        items = list(zip(items, numbers, strict=True))
    return items, len(bad), failure


def _bury(ctx: Context, bad: list[Any], scores: list[Any] | None) -> Operation[Exception | None]:
    """Keep what could not be decoded as dead letters; why not, where they cannot be written."""
    if ctx.keys.prefix is None:
        yield from _put_back(ctx, bad, scores)
        failure = DecodeError(
            f"{len(bad)} items of {ctx.name!r} cannot be decoded and were put back: a name "
            "with braces but no valid hash tag can have no dead letters"
        )
        failure.__cause__ = bad[0].error
        return failure
    for at in range(0, len(bad), PART):
        arguments: list[Any] = []
        for _, raw, error in bad[at : at + PART]:
            arguments += [raw, "", error_text(error)]
        try:
            keys = [ctx.keys.queue, ctx.keys.dead]
            yield ctx.call("bury", keys, arguments, count, resend=False)
        except Exception as error:
            yield from _put_back(ctx, bad[at:], scores)
            return error
    warn_of_dead(ctx, bad)
    return None


def warn_of_dead(ctx: Context, bad: list[Any]) -> None:
    log.warning(
        "%d items of %r could not be decoded and are in dead: %s",
        len(bad),
        ctx.name,
        error_text(bad[0].error),
    )


def _put_back(ctx: Context, bad: list[Any], scores: list[Any] | None) -> Operation[None]:
    """Queue again what was removed; at the lowest score there is where its own was not sent."""
    for at in range(0, len(bad), PART):
        part = bad[at : at + PART]
        arguments: list[Any] = []
        for place, raw, _ in part:
            arguments += [b"" if scores is None else bytes_of(scores[place]), raw]
        try:
            if ctx.keyed:
                raise RuntimeError("their keys are not known")
            yield ctx.call("restore", _queue_and_dead(ctx), arguments, up_to(len(part)))
        except Exception as error:
            raws = [raw for _, raw, _ in part]
            log.error("could not put back to %r (%s): %r", ctx.name, error, raws)
