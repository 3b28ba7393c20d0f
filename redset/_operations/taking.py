"""Removing items with `pop` and `take`."""

from __future__ import annotations

import contextlib
import logging
from time import monotonic
from typing import Any, NamedTuple

from redset._operations.context import Context
from redset._operations.errors import NOT_OF_ITEM, error_text, raise_unable
from redset._operations.limits import LEASE_STEP, STEP_BYTES, cut_by_bytes
from redset._operations.logs import log_once, one_line, warn_once
from redset._operations.reading import Range, log_expired, page_behind
from redset._operations.replies import (
    Reader,
    bytes_of,
    count,
    is_answer,
    list_of,
    listed,
    members,
    numbers,
    optional,
    scored,
    scored_in_bytes,
    up_to,
)
from redset._operations.reporting import TAKEN
from redset._operations.waiting import until
from redset._transport.effects import READ, Ask, Operation, Send
from redset._wire.values import flag
from redset.exceptions import DecodeError

log = logging.getLogger("redset")

#: The most items that one step removes. More are taken in several steps.
STEP, KEYED_STEP = 2000, 1000
#: Number of members that one step keeps as dead letters.
PART = 500
#: Seconds between two checks for records of leases, by `pop` and `take`.
LOOK = 1.0
#: A consumer that can decode none of so many has the wrong serializer.
ENOUGH = 10


def pop(ctx: Context, wait: float) -> Operation[Any]:
    """Remove the lowest item that can be decoded. Raise KeyError if none comes in time."""
    taken: _Taken | None = None
    removals = ctx.removals
    if (
        ctx.codec.proven
        and not (ctx.options.due or ctx.options.keyed)
        and (monotonic() < removals.next_look or removals.alone or ctx.keys.prefix is None)
        and not (removals.recorded and monotonic() < removals.next_look)
        and not ctx.reporter.tally.paused
    ):
        # A short path after the first removal, with half of the frames of the long one.
        if not ctx.reporter.tally.consumes:
            ctx.reporter.consume()
        taken = yield ctx.command(b"ZPOPMIN", ctx.keys.queue, reads=_first_taken, resend=False)
        if taken.members:
            items, bad = ctx.codec.decode_run(taken.members)
            if not bad:
                ctx.reporter.tally.count(TAKEN, 1)
                return items[0]
        elif ctx.keys.prefix is not None:
            taken = yield from _take(ctx, 1)  # expired leases that returned
    first = [taken] if taken is not None else []
    found = yield from until(ctx, lambda: _pop(ctx, first.pop() if first else None), wait)
    if not found:
        paused = ctx.reporter.tally.paused
        raise KeyError(f"the set {ctx.name!r} is paused" if paused else ctx.nothing())
    return found[0]


def _pop(ctx: Context, taken: _Taken | None) -> Operation[list[Any]]:
    """Pop the lowest item that can be decoded, if the first one was not taken already."""
    undecodable = 0
    ctx.reporter.consume()
    if taken is None and (yield from _is_paused(ctx)):
        return []
    while undecodable < ENOUGH:
        if taken is None:
            if not (yield from look_first(ctx)):
                break
            taken = yield from _remove(ctx, 1, False, False)
        if not (taken.members or taken.more):
            break
        items, bad, failure = yield from _decode_taken(ctx, taken, False)
        taken = None
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
    flag("with_scores", with_scores)
    if num < 1:
        return []
    # A MULTI is four commands: too many for a waiter that may try often.
    multi = multi and not wait
    return (yield from until(ctx, lambda: _take_now(ctx, num, with_scores, multi), wait))


def take_between(ctx: Context, num: int, within: Range) -> Operation[list[Any]]:
    """Remove up to ``num`` items of a range, lowest first."""
    return (yield from _take_now(ctx, num, False, False, within))


def _take_now(
    ctx: Context, num: int, with_scores: bool, multi: bool, within: Range | None = None
) -> Operation[list[Any]]:
    items: list[Any] = []
    ctx.reporter.consume()
    if (yield from _is_paused(ctx)):
        return items
    if num < 1 or not (yield from look_first(ctx, within)):
        return items
    step = KEYED_STEP if ctx.options.keyed or ctx.options.ties else STEP
    undecodable = 0
    while num > 0:
        want = min(num, step)
        failure: Exception | None
        try:
            taken = yield from _remove(ctx, want, multi, with_scores, within)
        except Exception as error:
            taken, failure = _NOTHING, error
        else:
            more, bad, failure = yield from _decode_taken(ctx, taken, with_scores)
            items += more
            undecodable += bad
        if failure is not None:
            if not items:
                raise failure
            # The caller gets the removed items. The next call raises the error, if it lasts.
            message = (
                "could not take more items of %r; the items taken before are returned: %s",
                ctx.name,
                one_line(str(failure)),
            )
            if isinstance(failure, DecodeError):
                # If dead letters are not allowed, each call finds the same items in the queue.
                log_once(logging.ERROR, ctx.name, *message)
            else:
                log.error(*message)
            return items
        found = len(taken.members)
        ctx.sizes.reached = max(ctx.sizes.reached, found)
        if found < want and not taken.more:
            break
        num -= found
    if not items and undecodable >= ENOUGH:
        raise none_of(ctx, undecodable)
    return items


def _is_paused(ctx: Context) -> Operation[bool]:
    """Whether the set is paused. The server is asked if it was paused at the last report."""
    tally = ctx.reporter.tally
    if tally.paused:
        tally.paused = bool((yield ctx.command(b"EXISTS", ctx.keys.paused, reads=up_to(1))))
    return tally.paused


def none_of(ctx: Context, total: int) -> DecodeError:
    return DecodeError(f"none of {total} items of {ctx.name!r} could be decoded; they are in dead")


class _Taken(NamedTuple):
    """Removed members, or with ``key=`` payloads, and their scores if they came."""

    members: list[Any]
    scores: list[Any] | None
    #: Whether the step may have ended before it had all requested items.
    more: bool = False


_NOTHING = _Taken([], None)


def _remove(
    ctx: Context, num: int, multi: bool, with_scores: bool, within: Range | None = None
) -> Operation[_Taken]:
    """Remove up to ``num`` members in one step."""
    taken: _Taken
    queue = ctx.keys.queue
    if within is not None or ctx.options.due or ctx.options.keyed or (num > 1 and not multi):
        taken = yield from _take(ctx, num, within)
        return taken
    if ctx.removals.recorded and monotonic() < ctx.removals.next_look:
        taken = yield from _take(ctx, num)
        return taken
    if num == 1:
        pop = ctx.command(b"ZPOPMIN", queue, reads=_taken(1), resend=False)
        taken = yield from _and_look(ctx, pop)
        if not taken.members and ctx.keys.prefix is not None:
            taken = yield from _take(ctx, 1)  # expired items that are queued again
        return taken
    if ctx.removals.multi is False or num > ctx.sizes.most_unseen:
        taken = yield from _take(ctx, num)
        return taken
    try:
        if ctx.removals.multi is None:
            taken = yield from _and_look(ctx, _take_and_ask(ctx, num))
        else:
            taken = yield from _and_look(ctx, _take_by_rank(ctx, num, with_scores))
    except Exception as error:
        # A full server refuses commands queued in a MULTI. It performs a script that first frees
        # memory.
        if not (out_of_memory(error) or refused(error)):
            raise
        ctx.removals.multi = not refused(error)
        taken = yield from _take(ctx, num)
        return taken
    if len(taken.members) < num and ctx.keys.prefix is not None:
        try:
            more = yield from _take(ctx, num - len(taken.members))
        except Exception as error:
            if not taken.members:
                raise
            log.error(
                "could not return expired leases of %r to the queue; the next call tries again: %s",
                ctx.name,
                error,
            )
        else:
            scores = None if taken.scores is None else [*taken.scores, *(more.scores or ())]
            taken = _Taken(taken.members + more.members, scores, more.more)
    return taken


def _and_look(ctx: Context, ask: Ask) -> Operation[_Taken]:
    """Remove by commands. Once a second, look for records of leases in the same request.

    Commands do not delete the attempts of the items that they remove. While a set has such records,
    `pop` and `take` use the script, which deletes them.
    """
    taken: _Taken
    now = monotonic()
    if ctx.keys.prefix is None or ctx.removals.alone or now < ctx.removals.next_look:
        taken = yield ask
        return taken
    ctx.removals.next_look = now + LOOK
    exists = ctx.command(b"EXISTS", ctx.keys.leases, reads=up_to(1))
    for each in (ask, exists):
        yield Send(each.data, each.replies, each.script, each.resend, each.reads)
    try:
        taken = yield READ
    except Exception as error:
        if is_answer(error):
            with contextlib.suppress(Exception):
                yield READ
        raise
    try:
        ctx.removals.recorded = bool((yield READ))
        if ctx.removals.recorded and taken.members:
            gone = [bytes_of(member) for member in taken.members]
            yield ctx.step("prune", up_to(len(gone)), gone)
    except Exception:
        # The caller gets the removed items. A user with the rights of 0.5.1 may not look.
        ctx.removals.recorded = False
    return taken


def _take_by_rank(ctx: Context, num: int, with_scores: bool) -> Ask:
    """Remove up to ``num`` members in a MULTI, and note whether the server accepted it.

    Taking by range and removing by rank costs the server two thirds of ZPOPMIN with a count.
    """
    queue, encode = ctx.keys.queue, ctx.wire.encode
    # If dead letters are not possible, an undecodable item returns at its score.
    with_scores = with_scores or ctx.keys.prefix is None or ctx.removals.alone
    fetch = [b"ZRANGE", queue, 0, num - 1] + ([b"WITHSCORES"] if with_scores else [])
    request = [
        encode([b"MULTI"]),
        encode(fetch),
        encode([b"ZREMRANGEBYRANK", queue, 0, num - 1]),
        encode([b"EXEC"]),
    ]
    reads = _by_rank(ctx, _taken(num) if with_scores else _unscored(num))
    return Ask(b"".join(request), 4, reads=reads)


def _by_rank(ctx: Context, read: Reader[_Taken]) -> Reader[_Taken]:
    """Read the replies to MULTI, the range, its removal and EXEC."""

    def reader(reply: Any) -> _Taken:
        began, found, removed, performed = listed(reply, 4)
        together = not isinstance(began, Exception)
        if not together:
            # The user lost the right to MULTI since the last take. The two commands were performed
            # one after the other.
            if isinstance(removed, Exception):
                raise began
            if isinstance(found, Exception) and count(removed):
                log.error(
                    "%d items of %r are lost: the right to MULTI was withdrawn during a take",
                    removed,
                    ctx.name,
                )
        elif isinstance(performed, Exception):
            raise next(part for part in (found, removed, performed) if isinstance(part, Exception))
        else:
            found, removed = listed(performed, 2)
        for part in (found, removed):
            if isinstance(part, Exception):
                raise part
        ctx.removals.multi = together
        return read(found)

    return reader


def _take_and_ask(ctx: Context, num: int) -> Ask:
    """Return a request that removes up to ``num`` members, and checks the user's rights.

    An object's first take checks that the server accepts MULTI. Without the check, the commands in
    it would be performed one by one after a refusal.
    """
    encode, queue = ctx.wire.encode, ctx.keys.queue
    dead = queue if ctx.keys.prefix is None else ctx.keys.dead
    request = [
        encode([b"ZPOPMIN", queue, num]),
        encode([b"EXISTS", dead]),
        encode([b"MULTI"]),
        encode([b"EXEC"]),
    ]
    read = _taken(num)

    def reader(reply: Any) -> _Taken:
        found, *asked = listed(reply, 4)
        there, began, performed = (not isinstance(part, Exception) for part in asked)
        ctx.removals.alone, ctx.removals.multi = not there, began and performed
        if isinstance(found, Exception):
            raise found
        return read(found)

    return Ask(b"".join(request), 4, reads=reader)


def _take(ctx: Context, num: int, within: Range | None = None) -> Operation[_Taken]:
    """Remove up to ``num`` items in a script, which also returns expired leases.

    A user with the rights of 0.5.1 may only use the queue's key. Then the step leaves the leases
    out. If the user may not run scripts either, it is a command.
    """
    taken: _Taken
    try:
        taken = yield _take_step(ctx, num, within)
        ctx.removals.alone = False
        return taken
    except Exception as error:
        if not (ctx.keys.is_plain and refused(error)):
            raise
        ctx.removals.alone = True
    try:
        taken = yield _take_step(ctx, num, within, {"queue": ctx.keys.queue})
    except Exception as error:
        if within is not None or ctx.options.due or not refused(error):
            raise
        most = min(num, ctx.sizes.most_unseen)
        reads = _by_command(most, num)
        taken = yield ctx.command(b"ZPOPMIN", ctx.keys.queue, most, reads=reads, resend=False)
    return taken


def _take_step(
    ctx: Context, num: int, within: Range | None, keys: dict[str, bytes] | None = None
) -> Ask:
    if ctx.options.grouped and within is None:
        return _turn_step(ctx, num)
    lowest, highest = within or (b"", b"")
    return ctx.step(
        "take",
        _in_bytes(ctx, num),
        keys=keys,
        resend=False,
        num=num,
        due=ctx.options.due,
        max_attempts=ctx.options.max_attempts,
        limit=LEASE_STEP,
        first=ctx.sizes.first,
        lowest=lowest,
        highest=highest,
    )


def _turn_step(ctx: Context, num: int) -> Ask:
    """Make the step that removes items of the groups whose turn it is."""
    return ctx.step(
        "take_in_turn",
        _in_bytes(ctx, num),
        resend=False,
        num=num,
        max_attempts=ctx.options.max_attempts,
        limit=LEASE_STEP,
        first=ctx.sizes.first,
    )


def _taken(num: int) -> Reader[_Taken]:
    read = scored(num)
    return lambda reply: _Taken(*read(reply))


#: Reads the replies to ZPOPMIN in another form.
_FIRST = _taken(1)


def _first_taken(reply: Any) -> _Taken:
    """Read the reply to ZPOPMIN of one item. It is a pair if the protocol is RESP3."""
    pair = reply[0] if type(reply) is list and len(reply) == 1 else reply
    if type(pair) is list and len(pair) == 2 and type(pair[0]) is bytes:
        scores = numbers(pair[1:])
        return _Taken(pair[:1], scores)
    return _FIRST(reply)


def _in_bytes(ctx: Context, num: int) -> Reader[_Taken]:
    """Read the reply of a step that takes, bounded by bytes."""
    read = scored_in_bytes(num)

    def reader(reply: Any) -> _Taken:
        *rest, died = listed(reply, 3)
        more, found, scores = read(rest)
        log_expired(ctx, count(died))
        return _Taken(found, scores, more)

    return reader


def _by_command(asked: int, num: int) -> Reader[_Taken]:
    """Read the reply of a command that requested a part of so many."""
    read = scored(asked)

    def reader(reply: Any) -> _Taken:
        found, scores = read(reply)
        return _Taken(found, scores, len(found) == asked < num)

    return reader


def _unscored(num: int) -> Reader[_Taken]:
    return lambda reply: _Taken(members(reply, num), None)


def out_of_memory(error: Exception) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or str(error).startswith("OOM ")


def refused(error: Exception) -> bool:
    """Return whether the server refused a whole request: the right or the command is missing.

    An error from inside a script has a cause, since it was translated. Such a step may be half
    performed.
    """
    text = str(error)
    return error.__cause__ is None and (
        type(error).__name__ in ("NoPermissionError", "NoScriptError")
        or text.startswith(("NOPERM ", "unknown command", "ERR unknown command"))
        or (type(error).__name__ == "ExecAbortError" and "NOPERM" in text)
    )


def look_first(ctx: Context, within: Range | None = None, goes_on: bool = False) -> Operation[bool]:
    """Check that some item of the set or range can be decoded, unless one was decoded before.

    Return False if there is nothing to hand out. An error that is not the item's fault is raised,
    unless the caller ``goes_on`` in spite of it.
    """
    if ctx.codec.proven:
        return True
    end: list[bytes] = []
    seen = 0
    wrong: list[Exception] = []
    while seen < ENOUGH:
        raws, more, end = yield from _after(ctx, within, seen, end)
        given = 0
        if not (raws or seen):
            yield from check_groups(ctx)
        # One step returns so many leases, or fewer if they are large.
        while not (raws or seen) and given < LEASE_STEP:
            some = yield from _give_back(ctx, within)
            if not some:
                break
            given += some
            raws, more, end = yield from _after(ctx, within, 0, [])
        items, bad = yield from ctx.codec.decode([raw for raw in raws if raw is not None])
        if goes_on and any(isinstance(each.error, NOT_OF_ITEM) for each in bad):
            return True
        raise_unable(bad)
        if items:
            ctx.codec.proven = True
            return True
        seen += len(raws)
        wrong += [each.error for each in bad]
        if not more:
            break
    if len(wrong) >= ENOUGH:
        raise DecodeError(
            f"none of the first {len(wrong)} items of {ctx.name!r} can be decoded; "
            "nothing was removed: is this the serializer they were written with?"
        ) from wrong[0]
    return seen > 0


def check_groups(ctx: Context) -> Operation[None]:
    """Refuse a set that was made with ``group=`` if this object has none, and the reverse.

    Each has a queue of its own, so a consumer of the other kind would wait forever. The server is
    asked once a second at most, until it is one of the other kind.
    """
    now, grouped = monotonic(), ctx.options.grouped
    if ctx.keys.prefix is None or now < ctx.removals.next_options:
        return
    try:
        stored = yield ctx.command(b"HGET", ctx.keys.meta, b"options", reads=optional(bytes_of))
    except Exception as error:
        if not is_answer(error):
            raise
        stored = None  # a user with the rights of 0.5.1 may not look
    if stored and stored.endswith(b" group=yes") != grouped:
        raise ctx.tell_other_options(stored)
    if grouped and (yield ctx.command(b"EXISTS", ctx.keys.name, reads=up_to(1))):
        raise ctx.tell_plain_items()
    # Only now: the next call of a refused object is refused, too.
    ctx.removals.next_options = now + LOOK


def _give_back(ctx: Context, within: Range | None) -> Operation[int]:
    """Return expired leases to the queue. Return their number."""
    if within is not None or ctx.keys.prefix is None:
        return 0
    try:
        back = (yield end_of(ctx)).back
    except Exception as error:
        if not (ctx.keys.is_plain and refused(error)):
            raise
        back = 0  # a user who may only use the queue has no leases
    return int(back)


class End(NamedTuple):
    """Whether the set is finished, and the number of expired leases that returned to the queue."""

    finished: bool
    back: int


def end_of(ctx: Context, looks: bool = False) -> Ask:
    """Ask whether the set is finished. With ``looks``, expired leases do not return."""
    read = list_of(up_to(LEASE_STEP), 3)

    def reads(reply: Any) -> End:
        finished, back, died = read(reply)
        log_expired(ctx, died)
        return End(bool(finished), back)

    return ctx.step(
        "finished",
        reads,
        max_attempts=ctx.options.max_attempts,
        limit=LEASE_STEP,
        first=ctx.sizes.first,
        looks=looks,
    )


def _after(
    ctx: Context, within: Range | None, seen: int, end: list[bytes]
) -> Operation[tuple[list[Any], bool, list[bytes]]]:
    """Read the items after a number of first ones, up to ENOUGH in all.

    Return their stored bytes, whether there may be more, and the page's end.
    """
    raws: list[Any]
    num = ENOUGH - seen
    if within is not None:
        page = yield page_behind(ctx, num, within, end, scored=False)
        return page.payloads, page.more or len(page.payloads) == num, page.end
    if ctx.options.due or ctx.options.keyed:
        reads = scored_in_bytes(num)
        more, raws, _ = yield ctx.step(
            "peek", reads, position=seen, num=num, due=ctx.options.due, first=ctx.sizes.first
        )
        return raws, more or len(raws) == num, end
    # A command: a user with the rights of 0.5.1 may not run scripts. One item is nearly always
    # enough.
    num = 1 if seen == 0 else min(num, max(1, STEP_BYTES // max(ctx.sizes.largest, 1)))
    fetch = (b"ZRANGE", ctx.keys.queue, seen, seen + num - 1)
    raws = yield ctx.command(*fetch, reads=lambda reply: members(reply, num))
    return raws, len(raws) == num, end


def _decode_taken(
    ctx: Context, taken: _Taken, with_scores: bool
) -> Operation[tuple[list[Any], int, Exception | None]]:
    """Decode removed items. Return them, the number that became dead letters, and an error.

    If dead letters cannot be written, the undecodable items are queued again. The error is returned
    beside the decoded items, which the caller gets.
    """
    raws, scores, _ = taken
    if None in raws:
        number = raws.count(None)
        warn_once(
            ctx.name,
            "dropped %d members of %r without payload; another program may change its keys",
            number,
            ctx.name,
        )
        kept = [i for i, raw in enumerate(raws) if raw is not None]
        raws = [raws[i] for i in kept]
        scores = [scores[i] for i in kept] if scores is not None else None
    items, bad = yield from ctx.codec.decode(raws)
    ctx.reporter.count(TAKEN, len(items))
    failure: Exception | None = None
    # With key= all become dead letters: the place of an item is not known here.
    own = [each for each in bad if ctx.options.keyed or not isinstance(each.error, NOT_OF_ITEM)]
    if own:
        failure = yield from _bury(ctx, own, scores)
    if len(own) < len(bad):
        unable = [each for each in bad if isinstance(each.error, NOT_OF_ITEM)]
        yield from _put_back(ctx, unable, scores)
        failure = failure or unable[0].error
    if with_scores:
        assert scores is not None
        lost = {place for place, _, _ in bad}
        numbers = [
            ctx.scores.decode(float(score)) for at, score in enumerate(scores) if at not in lost
        ]
        items = list(zip(items, numbers, strict=True))
    return items, len(bad), failure


def _bury(ctx: Context, bad: list[Any], scores: list[Any] | None) -> Operation[Exception | None]:
    """Keep undecodable items as dead letters. Return the error if they cannot be written."""
    if ctx.keys.prefix is None:
        yield from _put_back(ctx, bad, scores)
        return _without_dead(
            ctx, bad, "a set whose name has braces but no valid hash tag cannot have dead letters"
        )
    at = 0
    for part in cut_by_bytes(bad, PART, _raw_size):
        arguments: list[Any] = []
        for _, raw, error in part:
            arguments += [raw, "", error_text(error)]
        try:
            yield ctx.step("bury", count, arguments, resend=False)
        except Exception as error:
            yield from _put_back(ctx, bad[at:], scores)
            if ctx.keys.is_plain and refused(error):
                ctx.removals.alone = True
                why = f"this user may not write dead letters ({error})"
                return _without_dead(ctx, bad[at:], why)
            return error
        at += len(part)
    warn_of_dead(ctx, bad)
    return None


def _without_dead(ctx: Context, bad: list[Any], why: str) -> DecodeError:
    failure = DecodeError(
        f"{len(bad)} items of {ctx.name!r} cannot be decoded and were put back: {why}"
    )
    failure.__cause__ = bad[0].error
    return failure


def warn_of_dead(ctx: Context, bad: list[Any]) -> None:
    warn_once(
        ctx.name,
        "%d items of %r could not be decoded and are in dead: %r",
        len(bad),
        ctx.name,
        error_text(bad[0].error),
    )


def _put_back(ctx: Context, bad: list[Any], scores: list[Any] | None) -> Operation[None]:
    """Queue removed items again, at the lowest queued score if their own is unknown."""
    for part in cut_by_bytes(bad, PART, _raw_size):
        arguments: list[Any] = []
        for place, raw, _ in part:
            arguments += [b"" if scores is None else bytes_of(scores[place]), raw]
        try:
            if ctx.options.keyed:
                raise RuntimeError("their keys are not known")
            yield from _queue_again(ctx, arguments)
        except Exception as error:
            raws = [raw for _, raw, _ in part]
            log.error(
                "could not queue items of %r again (%s); add these bytes by hand: %r",
                ctx.name,
                error,
                raws,
            )


def _raw_size(bad: Any) -> int:
    return len(bad.item)


def _queue_again(ctx: Context, arguments: list[Any]) -> Operation[None]:
    """Queue score, member, ... If the user may only use the queue, the other keys are left out."""
    reads = up_to(len(arguments) // 2)
    queue = ctx.keys.queue
    for keys in (None, {"queue": queue}) if ctx.keys.is_plain else (None,):
        try:
            yield ctx.step("put_back", reads, arguments, keys, first=ctx.sizes.first)
            return
        except Exception as error:
            if not (ctx.keys.is_plain and refused(error)):
                raise
    if b"" in arguments[::2]:
        _, lowest = yield ctx.command(b"ZRANGE", queue, 0, 0, b"WITHSCORES", reads=scored(1))
        lowest = bytes_of(lowest[0]) if lowest else b"0"
        arguments = [lowest if not (at % 2 or part) else part for at, part in enumerate(arguments)]
    yield ctx.command(b"ZADD", queue, b"NX", *arguments, reads=reads)
