"""Reading a set without changing it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from redset._operations.context import Context
from redset._operations.errors import NOT_OF_ITEM, error_text, raise_unable
from redset._operations.limits import LEASE_STEP, STEP, STEP_BYTES, cut_by_bytes
from redset._operations.logs import log, warn_once
from redset._operations.replies import (
    bytes_of,
    count,
    is_answer,
    list_of,
    listed,
    members,
    number,
    numbers_or_none,
    optional,
    refuse,
    scored,
    scored_in_bytes,
)
from redset._operations.scores import TIE, ServerClock
from redset._transport.effects import Ask, Emit, Operation
from redset.exceptions import DecodeError
from redset.scripts import script


class Stats(NamedTuple):
    """A set in figures, taken in one server step.

    Attributes
    ----------
    size : int
        Items queued, due or not.
    available : int
        Items that a consumer could get now. In a set with groups: the groups that may start, each
        with at least one item.
    leased : int
        Items that are leased or delayed.
    dead : int
        Dead letters.
    remembered : int
        Items that ``remember`` knows.
    oldest_score : float or None
        The lowest score; None if the set is empty.
    oldest_age : float or None
        Seconds since the lowest score, on the server's clock; only for sets scored by time.
    memory_bytes : int
        The server's memory for the set: an estimate from samples.
    retrying : int
        Items that failed and are delayed until the next try; ``leased`` counts them, too.
        An estimate from a sample if more than 250 items are leased or delayed, or if these are
        large.
    groups_ready : int
        Groups that may start, in a set with ``group=``.
    groups_resting : int
        Groups that wait for the end of an interval or a pause.
    groups_working : int
        Groups with a limit that have items in work.

    Examples
    --------
    >>> stats = jobs.stats()
    >>> stats.size, stats.oldest_score, stats.memory_bytes
    (0, None, 0)
    """

    size: int
    available: int
    leased: int
    dead: int
    remembered: int
    oldest_score: float | None
    oldest_age: float | None
    memory_bytes: int
    retrying: int = 0
    groups_ready: int = 0
    groups_resting: int = 0
    groups_working: int = 0


def server_time(ctx: Context, clock: ServerClock) -> Operation[float]:
    """Return the server's time. It is asked for only if it is not known."""
    yield from clock.refresh(ctx)
    return clock()


class Range(NamedTuple):
    """A range of stored scores with both ends, as arguments of commands."""

    lowest: bytes
    highest: bytes


def range_of(ctx: Context, lowest: float, highest: float) -> Range:
    """Return the range of stored scores for a range of scores."""
    if ctx.options.ties:
        lowest = lowest * TIE if abs(lowest) > 1e4 else math.ceil(lowest) * TIE
        highest = highest * TIE if abs(highest) > 1e4 else math.floor(highest) * TIE + TIE - 1
    return Range(*map(ctx.wire.score_text, (float(lowest), float(highest))))


def size(ctx: Context, within: Range | None = None) -> Operation[int]:
    request: tuple[bytes, ...] = (b"ZCARD", ctx.keys.queue)
    if within is not None:
        request = (b"ZCOUNT", ctx.keys.queue, *within)
    queued: int = yield ctx.command(*request, reads=count)
    return queued


def available(ctx: Context) -> Operation[int]:
    due: int = yield ctx.step("available", count)
    return due


def score(ctx: Context, item: Any) -> Operation[float | None]:
    member = ctx.codec.identity(item)
    found: float | None = yield ctx.command(
        b"ZSCORE", ctx.keys.queue, member, reads=optional(number)
    )
    return None if found is None else ctx.scores.decode(found)


def scores(ctx: Context, items: list[Any]) -> Operation[list[float | None]]:
    identities = yield from ctx.codec.identities(items)
    found: list[float | None] = []
    for part in cut_by_bytes(identities, STEP):
        reads = numbers_or_none(len(part))
        found += yield ctx.command(b"ZMSCORE", ctx.keys.queue, *part, reads=reads)
    if ctx.options.ties:
        return [None if stored is None else ctx.scores.decode(stored) for stored in found]
    return found


def get(ctx: Context, item: Any) -> Operation[Any]:
    member = ctx.codec.identity(item)
    if ctx.options.keyed:
        raw = yield ctx.step("get", optional(bytes_of), member=member)
    else:
        found = yield ctx.command(b"ZSCORE", ctx.keys.queue, member, reads=optional(number))
        raw = None if found is None else member
    return None if raw is None else _decode_seen(ctx, raw)


def _decode_seen(ctx: Context, raw: bytes) -> Any:
    try:
        return ctx.codec.decode_one(raw)
    except NOT_OF_ITEM:
        raise
    except Exception as error:
        raise unreadable(ctx, error) from error


def unreadable(ctx: Context, error: Exception) -> DecodeError:
    """Return the error of an item that cannot be decoded."""
    return DecodeError(f"an item of {ctx.name!r} cannot be decoded: {error_text(error)}")


def peek(ctx: Context, position: int) -> Operation[Any]:
    _, found, _ = yield from _look(ctx, position, 1)
    while found and found[0] is None:  # a member without payload, which a removal would drop
        position += 1 if position >= 0 else -1
        _, found, _ = yield from _look(ctx, position, 1)
    if not found:
        if position in (0, -1):
            raise KeyError(ctx.nothing())
        kind = "due item" if ctx.options.due else "item"
        raise KeyError(f"the set {ctx.name!r} has no {kind} at position {position}")
    return _decode_seen(ctx, found[0])


def peek_score(ctx: Context) -> Operation[float | None]:
    _, _, scores = yield from _look(ctx, 0, 1)
    return ctx.scores.decode(float(scores[0])) if scores else None


def peek_many(ctx: Context, num: int) -> Operation[list[Any]]:
    items: list[Any] = []
    position = 0
    while position < num:
        want = min(num - position, STEP)
        more, found, _ = yield from _look(ctx, position, want)
        items += yield from _decodable(ctx, found)
        if len(found) < want and not more:
            break
        position += len(found)
    return items


def _look(ctx: Context, position: int, num: int) -> Operation[tuple[bool, list[Any], list[Any]]]:
    """Read up to ``num`` members, or with ``key=`` payloads, and their scores.

    The first part of the result is True if the step may have ended before ``num`` items.
    """
    if num == 1 and abs(position) < 2**63 and not (ctx.options.due or ctx.options.keyed):
        # A single item of any size is read: by a command, which costs the server half of the step.
        fetch = (b"ZRANGE", ctx.keys.queue, position, position, b"WITHSCORES")
        members, scores = yield ctx.command(*fetch, reads=scored(1))
        return False, members, scores
    reads = scored_in_bytes(num)
    found: tuple[bool, list[Any], list[Any]] = yield ctx.step(
        "peek", reads, position=position, num=num, due=ctx.options.due, first=ctx.sizes.first
    )
    return found


def _decodable(ctx: Context, raws: list[Any]) -> Operation[list[Any]]:
    present = [raw for raw in raws if raw is not None]
    items, bad = yield from ctx.codec.decode(present)
    raise_unable(bad)
    if bad:
        warn_once(
            ctx.name,
            "skipped %d items of %r that cannot be decoded: %r",
            len(bad),
            ctx.name,
            error_text(bad[0].error),
        )
    return items


def iterate(ctx: Context, within: Range | None = None, multi: bool = False) -> Operation[None]:
    """Emit all items, or those of a range, in order of score, a page at a time.

    Args:
        multi: Whether pages may be read by a MULTI.
    """
    last: list[bytes] = []
    multi = multi and within is None and not ctx.options.keyed
    reached, num = 0, 0
    while True:
        page: Page | None = None
        if multi and last:
            num = min(2 * num, STEP, STEP_BYTES // max(1, ctx.sizes.largest))
            multi = num >= FEWEST
            page = (yield _page_at(ctx, num, reached, last)) if multi else None
            multi = page is not None
        if page is None:
            page = yield page_behind(ctx, STEP, within, last, scored=False)
            assert page is not None
        if not page.payloads:
            return
        yield Emit((yield from _decodable(ctx, page.payloads)))
        if len(page.payloads) < STEP and not page.more:
            return
        last, num = page.end, len(page.payloads)
        reached += num


#: The fewest items of a page that is read by commands. The script reads large items by bytes.
FEWEST = 250


def _page_at(ctx: Context, num: int, reached: int, last: list[bytes]) -> Ask:
    """Return the request for a page by rank, after the last member seen.

    A short path, which costs the server an eighth of the script: no member passes through Lua. The
    result is None if that member is no longer at its rank and score, or if the server refuses the
    request. The script then finds the place.
    """
    queue, encode = ctx.keys.queue, ctx.wire.encode
    score, member = last
    end = reached - 1 + num
    request = [
        encode([b"MULTI"]),
        encode([b"ZSCORE", queue, member]),
        encode([b"ZRANGE", queue, reached - 1, end]),
        # The score of the last one alone: scores cost the server four times as much as members.
        encode([b"ZRANGE", queue, end, end, b"WITHSCORES"]),
        encode([b"EXEC"]),
    ]

    def reads(reply: Any) -> Page | None:
        parts = listed(reply, 5)
        if any(isinstance(part, Exception) for part in parts):
            return None  # without the right to MULTI the commands were not performed together
        parts = listed(parts[-1], 3)
        if any(isinstance(part, Exception) for part in parts):
            return None
        stored = optional(number)(parts[0])
        found = members(parts[1], num + 1)
        ends, scores = scored(1)(parts[2])
        if None in found or len(ends) != (len(found) == num + 1) or ends != found[num:]:
            raise refuse("a page of members", reply)
        if stored != number(score) or found[:1] != [member]:
            return None
        del found[0]
        more = len(found) == num
        at = [ctx.wire.score_text(number(scores[0])), found[-1]] if more else []
        return Page(at, found, [], found, more)

    return Ask(b"".join(request), 5, None, True, reads)


class Page(NamedTuple):
    """A page of a sorted set: its members, and the score and member to continue after."""

    end: list[bytes]
    members: list[bytes]
    scores: list[bytes]
    payloads: list[Any]
    #: Whether there may be more of those asked for.
    more: bool


def page_behind(
    ctx: Context, num: int, within: Range | None, last: list[bytes], scored: bool = True
) -> Ask:
    """Return the request for the page after the last member seen."""
    lowest, highest = within or (b"", b"")
    score, member = last or (b"", b"")
    return ctx.step(
        "page",
        lambda reply: page_of(reply, last, ctx.options.keyed, scored),
        num=num,
        first=ctx.sizes.first,
        lowest=lowest,
        highest=highest,
        last_score=score,
        last_member=member,
        scored=scored,
    )


def page_of(reply: Any, last: list[bytes], keyed: bool, scored: bool = True) -> Page:
    """Read the page after the last member seen: members, scores, and with ``key=`` payloads.

    If not ``scored``, only the score of the last member is there.
    """
    parts = listed(reply, 4)
    found = members(parts[0], STEP)
    scores = list_of(bytes_of, len(found) if scored else min(1, len(found)))(parts[1])
    payloads = members(parts[2], STEP)
    if None in found or len(payloads) != (len(found) if keyed else 0):
        raise refuse("a page of members", reply)
    if not found:
        return Page([], [], [], [], False)
    end = [scores[-1], found[-1]]
    if end == last:
        raise refuse("the page after the last one", reply)
    return Page(end, found, scores, payloads if keyed else found, count(parts[3], 1) == 1)


def stats(ctx: Context, timed: bool, read_only: bool) -> Operation[Stats]:
    arguments: dict[str, Any] = {
        "due": ctx.options.due,
        "remember": ctx.options.remember,
        "keyed": ctx.options.keyed,
        "max_attempts": ctx.options.max_attempts,
        "limit": LEASE_STEP,
        "first": ctx.sizes.first,
    }

    def ask(looks: bool) -> Ask:
        return ctx.step("stats", _stats, looks=looks, **arguments)

    try:
        found = (yield ask(True)) if read_only else (yield from looked_at(ask))
    except Exception as error:
        found = yield from _stats_read_only(ctx, arguments | {"looks": True}, error)
    counts, oldest, now, used, died, retrying, groups = found
    log_expired(ctx, died)
    age = now - oldest if timed and oldest is not None else None
    size, available, leased, letters, known = counts
    lowest = None if oldest is None else ctx.scores.decode(oldest)
    return Stats(size, available, leased, letters, known, lowest, age, used, retrying, *groups)


def _stats_read_only(ctx: Context, arguments: dict[str, Any], refusal: Exception) -> Operation[Any]:
    """Read for a user who may only read keys: Redis 7 then refuses EVALSHA."""
    if not may_not_write(refusal):
        raise refusal
    step = script("stats", ctx.options.grouped)
    request = [b"EVAL_RO", step.text, *ctx.request(step, arguments)[2:]]
    try:
        return (yield ctx.command(*request, reads=_stats))
    except Exception as error:
        if not is_answer(error):
            raise
        raise refusal from None


def _stats(
    reply: Any,
) -> tuple[list[int], float | None, float, int, int, int, list[int]]:
    parts = listed(reply)
    if len(parts) not in (10, 13):
        raise refuse("a list of 10 or 13", reply)
    lowest = number(parts[5]) if bytes_of(parts[5]) else None
    counts, used, died = [count(part) for part in parts[:5]], count(parts[7]), count(parts[8])
    groups = [count(part) for part in parts[10:]]
    return counts, lowest, number(parts[6]), used, died, count(parts[9]), groups


def looked_at(ask: Callable[[bool], Ask]) -> Operation[Any]:
    """Perform a step that returns expired leases. If it may not write, perform one that reads.

    Args:
        ask: Makes the step; its argument is True if the step may only read.
    """
    try:
        return (yield ask(False))
    except Exception as error:
        if not may_not_write(error):
            raise
    return (yield ask(True))


#: Errors of a server that refuses writes, of this user or of all. First their codes, then the
#: clients' classes whose text lacks the code.
_NO_WRITES = {"READONLY", "NOPERM", "OOM", "NOREPLICAS", "MISCONF"}
_NO_WRITES_CLASSES = {"ReadOnlyError", "NoPermissionError", "OutOfMemoryError"}


def may_not_write(error: Exception) -> bool:
    """Whether a server refused a write, of this user or of any."""
    if not is_answer(error):
        return False
    # Redis 6.2 wraps an error that a script raises: "... -NOREPLICAS ...".
    words = {word.lstrip("-") for word in str(error).split()}
    return type(error).__name__ in _NO_WRITES_CLASSES or bool(words & _NO_WRITES)


def log_expired(ctx: Context, died: int) -> None:
    """Log the number of items that a step made dead letters, since their last lease had expired."""
    if died:
        text = "%d items of %r moved to dead letters: their leases expired at the last attempt"
        log.error(text, died, ctx.name)
