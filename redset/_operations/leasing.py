"""Handing out items for a time, and listing the leased ones.

Theory of operation
-------------------

A lease step moves the lowest items from the queue to the sorted set `leased`, which is ordered by
expiry. The hash `leases` has their records. `include/leases.lua` has the records' format, and the
theory of suspects: how an item that kills its worker becomes a dead letter without other items.

- Token: each step has a random one, which names the holder. A settlement with another token changes
  nothing: the lease expired, and another worker may hold the item.
- Resend: a lease step may be sent again. Under the same token the server returns the same leases.
- Lost reply: the token of a failed call is kept (`keep_unanswered`). The next call for at least as
  many items uses it again, so that items that no worker received count no attempt.
- Expiry: no process watches the clock. A lease step first returns a bounded number of expired
  leases to the queue (`include/expiring.lua`). `pop` and `take` do so if they find too few items.
- Undecodable items are leased, too. The call makes them dead letters at once. If the error is not
  the fault of the item (memory, a missing module), the call releases them.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from itertools import repeat
from operator import itemgetter
from typing import Any, NamedTuple

from redset._operations import checking
from redset._operations.checking import check_once
from redset._operations.context import Context
from redset._operations.errors import NOT_OF_ITEM, error_text, raise_unable
from redset._operations.grouped import group_in, text_of_group
from redset._operations.limits import LEASE_STEP
from redset._operations.logs import one_line, warn_once
from redset._operations.reading import log_expired, looked_at, page_of
from redset._operations.reading import size as size_of
from redset._operations.replies import (
    Reader,
    bytes_of,
    count,
    counts,
    list_of,
    listed,
    members,
    number,
    numbers,
    refuse,
)
from redset._operations.reporting import LEASED, new_token, worker_of
from redset._operations.settling import HeldLease, Settlement, settle
from redset._operations.taking import (
    ENOUGH,
    end_of,
    look_first,
    none_of,
    warn_of_dead,
)
from redset._operations.waiting import until
from redset._transport.effects import Ask, Emit, Operation

log = logging.getLogger("redset")

#: The most items of one call.
MOST = 100_000
#: Leased items per page, each with an error of up to 1,000 characters.
LEASED_STEP = 250
#: Tokens of failed lease calls that are kept.
UNANSWERED = 16


def token_for(ctx: Context, num: int) -> bytes:
    """Return the token of a failed lease call for at least so many items, else a new one.

    The server may have performed the failed call. Under the same token it returns the same leases.
    If they expired, it queues their items without an attempt: no worker has received them. The
    token of a call for fewer items is not used again: that call's request may arrive late, and
    release the other items.
    """
    for entry in list(ctx.removals.unanswered):
        process, token, most = entry
        # A forked child leaves its parent's tokens to the parent.
        if process == os.getpid() and most >= num:
            with contextlib.suppress(ValueError):  # another thread was first
                ctx.removals.unanswered.remove(entry)
                return token
    return new_token()


def keep_unanswered(ctx: Context, token: bytes, num: int) -> None:
    """Keep the token of a lease call that failed. Only the last few are kept."""
    ctx.removals.unanswered.append((os.getpid(), token, num))
    del ctx.removals.unanswered[:-UNANSWERED]


def lease(ctx: Context, num: int, ttl: int, wait: float) -> Operation[list[HeldLease]]:
    """Lease up to ``num`` items for ``ttl`` ms, lowest first, as soon as there are any."""
    if not wait:
        return (yield from _lease(ctx, num, ttl))
    return (yield from until(ctx, lambda: _lease(ctx, num, ttl), wait))


def _lease(ctx: Context, num: int, ttl: int) -> Operation[list[HeldLease]]:
    found: list[HeldLease] = []
    if not ctx.reporter.tally.consumes:
        ctx.reporter.consume()
    if not checking._checked:
        yield from check_once(ctx)
    if not ctx.codec.proven and not (yield from look_first(ctx)):
        return found
    undecodable = 0
    #: The largest number of leases together, since suspects are among them.
    most = num
    while num > 0 and len(found) < most:
        want = min(num, LEASE_STEP, most - len(found))
        token = token_for(ctx, want) if ctx.removals.unanswered else new_token()
        try:
            try:
                given = yield lease_call(ctx, token, want, ttl, len(found))
            except BaseException:
                keep_unanswered(ctx, token, want)
                raise
            held, bad, unable = yield from decode_given(ctx, given)
            found += held
            undecodable += bad
            if unable is not None:
                raise unable
        except Exception as error:
            if not found:
                raise
            # The caller gets the earlier leases. The next call raises the error, if it lasts.
            text = one_line(error_text(error))
            log.error(
                "could not lease more items of %r; the items leased before are returned: %s",
                ctx.name,
                text,
            )
            return found
        got = len(given.rows)
        num -= got
        if given.bound:
            most = min(most, given.bound)
        if got < want and not given.more:
            break
    if not found and undecodable >= ENOUGH:
        raise none_of(ctx, undecodable)
    return found


def lease_call(
    ctx: Context, token: bytes, num: int, ttl: int, hand: int = 0, passes: bool = False
) -> Ask:
    """Make the step that leases.

    Args:
        hand: Number of leases that the worker has already.
        passes: Whether to skip suspects for which the cohort would be too large.
    """
    if ctx.options.grouped:
        return ctx.step(
            "lease_in_turn",
            _leases(token, num, True),
            token=token,
            num=num,
            ttl=ttl,
            max_attempts=ctx.options.max_attempts,
            limit=LEASE_STEP,
            hand=hand,
            passes=passes,
            first=ctx.sizes.first,
        )
    return ctx.step(
        "lease",
        _leases(token, num, ctx.options.keyed),
        token=token,
        num=num,
        ttl=ttl,
        max_attempts=ctx.options.max_attempts,
        due=ctx.options.due,
        limit=LEASE_STEP,
        hand=hand,
        passes=passes,
        first=ctx.sizes.first,
    )


class LeaseReply(NamedTuple):
    """Leases of one step: member, score, attempts and payload of each."""

    token: bytes
    expires: float
    more: bool
    #: Whether the step ended at a suspect that may only be in a smaller cohort.
    stopped: bool
    dropped: int
    #: The largest cohort that all of these may be in; 0 for no limit.
    bound: int
    #: Number of items that became dead letters, since their leases had expired.
    died: int
    rows: list[tuple[bytes, float, int, bytes]]


def _leases(token: bytes, want: int, keyed: bool) -> Reader[LeaseReply]:
    width = 3 if keyed else 2

    def read(reply: Any) -> LeaseReply:
        parts = listed(reply)
        if parts and type(parts[-1]) is bytes:
            # A flat list: items without attempts, and the expiry.
            num = len(parts) // width
            if len(parts) != num * width + 1:
                raise refuse("leases", reply)
            split = 2 * num
            parts = [parts[-1], 0, 0, 0, 0, parts[:split], [], parts[split:-1]]
        if len(parts) != 8 and not (len(parts) == 7 and not (keyed and parts[5])):
            raise refuse("leases", reply)
        found = listed(parts[5])
        names, scores = members(found[::2], want), numbers(found[1::2])
        payloads = names
        if keyed and names:
            payloads = members(listed(parts[-1], len(names)), len(names))
        if None in names or None in payloads or len(scores) != len(names):
            raise refuse("leases of members", reply)
        attempts = [0] * len(names)
        if parts[6]:
            some = counts(listed(parts[6]))
            for place, tried in zip(some[::2], some[1::2], strict=False):
                if not 0 < place <= len(names):
                    raise refuse("the place of a lease", reply)
                attempts[place - 1] = tried
        rows = list(zip(names, scores, attempts, payloads, strict=True))
        expires, more, dropped, bound, died = counts(parts[:5])
        if more > 2:
            raise refuse("whether there may be more", reply)
        return LeaseReply(token, expires / 1000, more == 1, more == 2, dropped, bound, died, rows)

    return read


def _every_held(ctx: Context, given: LeaseReply, items: list[Any]) -> list[HeldLease]:
    """Return the leases of a step with their items. Loops of C take a third of the time."""
    names, scores, attempts, payloads = zip(*given.rows, strict=True)
    fields = (
        names,
        repeat(given.token),
        items,
        map(ctx.scores.decode, scores),
        attempts,
        repeat(given.expires),
        repeat(given.bound),
        map(len, payloads),
        repeat(None) if ctx.codec.group_of is None else map(group_in, payloads),
    )
    return list(map(_new_held, zip(*fields, strict=False)))


#: Makes a `HeldLease` of its fields.
_new_held: Any = functools.partial(tuple.__new__, HeldLease)
#: The payload of a row of `LeaseReply`.
_payload_of = itemgetter(3)


def decode_given(
    ctx: Context, given: LeaseReply, delay: int = 0
) -> Operation[tuple[list[HeldLease], int, Exception | None]]:
    """Decode leased items. Return them, the number that became dead letters, and an error.

    The error is not the items' fault. Its items are released, with a delay of ``delay`` ms.
    """
    if given.rows:
        ctx.reporter.tally.count(LEASED, len(given.rows))
    if given.died:
        log_expired(ctx, given.died)
    if given.dropped:
        warn_once(
            ctx.name,
            "dropped %d members of %r without payload; another program may change its keys",
            given.dropped,
            ctx.name,
        )
    items, bad = yield from ctx.codec.decode(list(map(_payload_of, given.rows)))
    worse = {each.place: each.error for each in bad} if bad else {}
    unable: Exception | None = None
    held, buried, lost = [], [], []
    if worse:
        values = iter(items)
        items = [None if place in worse else next(values) for place in range(len(given.rows))]
    every = _every_held(ctx, given, items) if given.rows else []
    if not bad:
        held = every
    for place, one in enumerate(every if bad else ()):
        if place not in worse:
            held.append(one)
        elif isinstance(worse[place], NOT_OF_ITEM):
            unable = unable or worse[place]
            lost.append(Settlement("release", [one], delay))
        else:
            buried.append(one)
            lost.append(Settlement("bury", [one], error=error_text(worse[place])))
    if held:
        ctx.codec.proven = True
    if lost:
        try:
            yield from settle(ctx, lost)
        except Exception as error:
            if not held:
                raise
            # The items stay leased, and return when their leases expire.
            text = one_line(error_text(error))
            log.error(
                "could not bury undecodable items of %r; they return when their leases expire: %s",
                ctx.name,
                text,
            )
        else:
            own = [each for each in bad if not isinstance(each.error, NOT_OF_ITEM)]
            if own:
                warn_of_dead(ctx, own)
    return held, len(buried), unable


class Leased(NamedTuple):
    """An item that is leased or delayed."""

    item: Any
    score: float
    attempts: int
    expires: float
    error: str | None = None
    worker: str | None = None
    group: str | None = None


def leased(ctx: Context) -> Operation[None]:
    """Emit a `Leased` for each item that is leased or delayed, in order of expiry."""
    if ctx.keys.prefix is None:  # in a set that can have no leases
        return
    last: list[bytes] = []
    while True:
        expiry, member = last or (b"", b"")
        page = yield ctx.step(
            "leased",
            _page_behind(last, ctx.options.keyed),
            num=LEASED_STEP,
            first=ctx.sizes.first,
            last_expiry=expiry,
            last_member=member,
        )
        if not page.payloads:
            return
        items, bad = yield from ctx.codec.decode([raw or b"" for raw in page.payloads])
        raise_unable(bad)
        lost = {each.place for each in bad}
        if bad:
            warn_once(
                ctx.name,
                "skipped %d leased items of %r that cannot be decoded: %r",
                len(bad),
                ctx.name,
                error_text(bad[0].error),
            )
        values, grouped = iter(items), ctx.options.grouped
        yield Emit(
            [
                Leased(
                    next(values),
                    ctx.scores.decode(page.scores[i]),
                    page.attempts[i],
                    page.expiries[i],
                    page.errors[i].decode("utf-8", "replace") or None,
                    worker_of(page.tokens[i]),
                    text_of_group(group_in(page.payloads[i])) if grouped else None,
                )
                for i in range(len(page.payloads))
                if i not in lost
            ]
        )
        if len(page.payloads) < LEASED_STEP and not page.more:
            return
        last = page.end


class _Page(NamedTuple):
    expiries: list[float]
    payloads: list[Any]
    attempts: list[int]
    scores: list[float]
    errors: list[bytes]
    tokens: list[bytes]
    end: list[bytes]
    more: bool


def _page_behind(last: list[bytes], keyed: bool) -> Reader[_Page]:
    def read(reply: Any) -> _Page:
        parts = listed(reply, 8)
        page = page_of(parts[:4], last, keyed)
        num = len(page.payloads)
        return _Page(
            [number(each) / 1000 for each in page.scores],
            page.payloads,
            list_of(count, num)(parts[4]),
            list_of(number, num)(parts[5]),
            list_of(bytes_of, num)(parts[6]),
            list_of(bytes_of, num)(parts[7]),
            page.end,
            page.more,
        )

    return read


def finished(ctx: Context) -> Operation[bool]:
    """Whether nothing is queued, scheduled or leased."""
    if ctx.keys.prefix is None:  # in a set that can have no leases
        return (yield from size_of(ctx)) == 0
    end = yield from looked_at(lambda looks: end_of(ctx, looks))
    return bool(end.finished)
