"""Handing items out for a time: leases, and what becomes of them."""

from __future__ import annotations

import base64
import logging
import math
import os
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from redset._effects import READ, Emit, Operation, Pull, Send
from redset._operations.adding import Adder, Flags, OtherEpoch, add_stream, bad_item
from redset._operations.context import (
    CHUNK_BYTES,
    LEASE_STEP,
    SCRIPT_CHUNK,
    STEP,
    WINDOW,
    Context,
)
from redset._operations.reading import page_of
from redset._operations.replies import (
    Reader,
    count,
    listed,
    many,
    members,
    number,
    refuse,
)
from redset._operations.taking import ENOUGH, end_of, look_first, none_of, warn_of_dead
from redset._operations.waiting import until

log = logging.getLogger("redset")

#: The most items of one call, and the longest time in seconds.
MOST = 100_000
LONGEST = 10_000_000_000
#: Characters of an error's text that are kept.
TEXT = 1000


class Held(NamedTuple):
    """A lease as the server knows it: its member and its owner's token, and what it gave."""

    member: bytes
    token: bytes
    item: Any
    score: float
    attempts: int
    expires: float


class Settlement(NamedTuple):
    """What is to become of some leases: ack, fail, bury, release, renew, or for now check."""

    how: str
    leases: Sequence[Any]
    delay: int = 0
    score: bytes = b""
    error: str = ""
    payload: bytes = b""


def milliseconds(argument: str, seconds: Any, positive: bool) -> int:
    """Check a time in seconds, and give it in milliseconds."""
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        raise TypeError(f"{argument} must be seconds, not {type(seconds).__name__}")
    if not 0 <= seconds <= LONGEST or (positive and seconds == 0):
        wanted = "positive" if positive else "not negative"
        raise ValueError(f"{argument} must be {wanted} and at most 1e10 seconds, not {seconds!r}")
    return math.ceil(seconds * 1000)


def error_text(error: Any) -> str:
    """Give what is kept of an error."""
    if isinstance(error, BaseException):
        error = f"{type(error).__name__}: {error}"
    if not isinstance(error, str):
        raise TypeError(f"error must be an exception or str, not {type(error).__name__}")
    # Also what is no text for UTF-8.
    return error[:TEXT].encode("utf-8", "replace").decode()


def new_token() -> bytes:
    return base64.b64encode(os.urandom(12))


def lease(ctx: Context, num: int, ttl: int, wait: float) -> Operation[list[Held]]:
    """Lease up to ``num`` items for ``ttl`` ms, lowest first, as soon as there are any."""
    return (yield from until(ctx, lambda: _lease(ctx, num, ttl), wait))


def _lease(ctx: Context, num: int, ttl: int) -> Operation[list[Held]]:
    found: list[Held] = []
    if not (yield from look_first(ctx)):
        return found
    undecodable = 0
    while num > 0:
        want = min(num, LEASE_STEP)
        token = new_token()
        arguments = [token, want, ttl, ctx.max_attempts, "1" if ctx.due else "", LEASE_STEP]
        try:
            reads = _leases(token, want, ctx.keyed)
            given = yield ctx.call("lease", ctx.lease_keys, arguments, reads)
            held, bad = yield from _decoded(ctx, given)
            found += held
            undecodable += bad
        except Exception as error:
            if not found:
                raise
            # What was leased before is the caller's; the next call meets the error itself.
            log.error("some items of %r could not be leased: %s", ctx.name, error)
            return found
        if given.dropped:
            log.warning("dropped %d members of %r without payload", given.dropped, ctx.name)
        got = len(given.rows)
        num -= got
        if got < want and not given.more:
            break
    if not found and undecodable >= ENOUGH:
        raise none_of(ctx, undecodable)
    return found


class _Given(NamedTuple):
    """What a step leased: member, score, attempts and payload of each."""

    token: bytes
    expires: float
    more: bool
    dropped: int
    rows: list[tuple[bytes, float, int, bytes]]


def _leases(token: bytes, want: int, keyed: bool) -> Reader[_Given]:
    width = 4 if keyed else 3

    def read(reply: Any) -> _Given:
        parts = listed(reply)
        rest = parts[3:]
        if len(parts) < 3 or len(rest) % width or len(rest) > want * width:
            raise refuse(f"at most {want} leases", reply)
        names = members(rest[::width], want)
        payloads = members(rest[3::width], want) if keyed else names
        if None in names or None in payloads:
            raise refuse("leases of members", reply)
        scores = [number(score) for score in rest[1::width]]
        attempts = [count(each) for each in rest[2::width]]
        rows = list(zip(names, scores, attempts, payloads, strict=True))
        return _Given(token, count(parts[0]) / 1000, bool(count(parts[1])), count(parts[2]), rows)

    return read


def _decoded(ctx: Context, given: _Given) -> Operation[tuple[list[Held], int]]:
    """Decode what was leased; how much cannot be, and went to the dead letters."""
    items, bad = yield from ctx.decode([row[3] for row in given.rows])
    worse = {each.place: each.error for each in bad}
    held, lost = [], []
    values = iter(items)
    for place, (member, score, attempts, _) in enumerate(given.rows):
        item = None if place in worse else next(values)
        one = Held(member, given.token, item, score, attempts, given.expires)
        if place in worse:
            lost.append(Settlement("bury", [one], error=error_text(worse[place])))
        else:
            held.append(one)
    if held:
        ctx.looked = True
    if lost:
        try:
            yield from settle(ctx, lost)
        except Exception as error:
            if not held:
                raise
            # They are leased, and come back when that ends.
            log.error("undecodable items of %r could not be buried: %s", ctx.name, error)
        else:
            warn_of_dead(ctx, bad)
    return held, len(lost)


class _Step(NamedTuple):
    """One step of settlements: its groups as arguments, and whose each of them is."""

    groups: list[list[Any]]
    #: Of each group, which settlement it is of, and how many leases it has.
    owners: list[tuple[int, int]]


def _steps(settlements: Sequence[Settlement]) -> list[_Step]:
    """Cut settlements into steps of so many leases, each by owner's token."""
    steps: list[_Step] = []
    room = 0
    for place, each in enumerate(settlements):
        by_token: dict[bytes, list[bytes]] = {}
        for held in each.leases:
            by_token.setdefault(held.token, []).append(held.member)
        for token, names in by_token.items():
            at = 0
            while at < len(names):
                if room == 0:
                    steps.append(_Step([], []))
                    room = LEASE_STEP
                part = names[at : at + room]
                head = [each.how, token, each.delay, each.score, each.error, each.payload]
                steps[-1].groups.append([*head, len(part), *part])
                steps[-1].owners.append((place, len(part)))
                room -= len(part)
                at += len(part)
    return steps


def _arguments(ctx: Context, step: _Step) -> list[Any]:
    head: list[Any] = [ctx.max_attempts, "1" if ctx.keyed else "", len(step.groups)]
    for group in step.groups:
        head += group
    return head


class Settled(NamedTuple):
    """How many of each settlement were ours, and how many in all are known not to have been."""

    counts: list[int]
    lost: int


def settle(ctx: Context, settlements: Sequence[Settlement]) -> Operation[Settled]:
    """Do with leases what is asked, a window of steps in flight."""
    counts, lost = [0] * len(settlements), 0
    keys = ctx.settling_keys
    waiting = deque(_steps(settlements))
    flying: deque[tuple[_Step, Send]] = deque()
    failure: Exception | None = None
    while flying or (waiting and failure is None):
        if waiting and failure is None and len(flying) < WINDOW:
            step = waiting.popleft()
            made = ctx.call("settle", keys, _arguments(ctx, step), _counts(len(step.groups)))
            send = Send(made.data, 1, made.script, True, made.reads)
            flying.append((step, send))
            try:
                yield send
            except Exception as error:
                raise failure or error from None
            continue
        step, send = flying.popleft()
        try:
            ours = yield READ
        except Exception as error:
            failure = failure or error
            continue
        for (place, asked), num in zip(step.owners, ours, strict=True):
            counts[place] += num
            # Performed before, it finds none of them: that is no loss.
            lost += 0 if send.resent else asked - num
    if failure is not None:
        raise failure
    for each in settlements:
        _mark(each)
    return Settled(counts, lost)


def _mark(settlement: Settlement) -> None:
    """Let leases that the caller has know that they are settled."""
    if settlement.how in ("ack", "fail", "release"):
        for lease in settlement.leases:
            lease.settled = True


def _counts(num: int) -> Reader[list[int]]:
    return lambda reply: many(count, num)(listed(reply, 2)[0])


def acknowledge(ctx: Context, leases: Sequence[Any], steady: bool) -> Operation[int]:
    """Acknowledge leases, and add what Pull brings in the same step: both, or neither.

    What is more than a chunk is added before, as long as any of the leases is ours.
    """
    items: list[Any] = []
    scores: list[Any] | None = None
    num = SCRIPT_CHUNK + 1
    while len(items) < num:
        more, _ = yield Pull(num - len(items))
        if not more:
            break
        items += more
    done = [Settlement("ack", leases)]
    if items:
        steps = _steps(done)
        if len(steps) == 1 and len(items) < num:
            adder = Adder(ctx, Flags(), None, False, _arguments(ctx, steps[0]))
            ours = yield from _add_and_settle(ctx, adder, items)
            if ours is not None:
                _mark(done[0])
                return ours
        guard = _steps([Settlement("check", leases[:LEASE_STEP])])[0]
        yield from add_stream(
            ctx,
            None,
            Flags(),
            "raise",
            steady,
            False,
            _arguments(ctx, guard),
            (items, scores),
        )
    return (yield from settle(ctx, done)).counts[0]


def _add_and_settle(ctx: Context, adder: Adder, items: list[Any]) -> Operation[int | None]:
    """Do both in one step; None where the items are too large for one."""
    yield from adder.prepare()
    while True:
        chunks = adder.encoder.encode_all(items, None, False, SCRIPT_CHUNK, CHUNK_BYTES)
        if chunks[-1].bad:
            raise bad_item(chunks[-1].bad[0]) from chunks[-1].bad[0].error
        if len(chunks) > 1:
            return None
        reply = yield adder.ask(chunks[0])
        try:
            adder.judge(chunks[0], reply)
        except OtherEpoch as other:
            adder.other_epoch(other.stored)
        else:
            return sum(adder.settled)


def leased(ctx: Context) -> Operation[None]:
    """Emit (item, score, attempts, expires) of all that is held back, in order of expiry.

    A name that can have no second keys is refused at once.
    """
    keys = [ctx.keys.leased, ctx.keys.leases]
    if ctx.keyed:
        keys.append(ctx.keys.items)
    return _leased(ctx, keys)


def _leased(ctx: Context, keys: list[bytes]) -> Operation[None]:
    last: list[bytes] = []
    while True:
        page = yield ctx.call("leased", keys, [STEP, *last], _page_behind(last, ctx.keyed))
        if not page.payloads:
            return
        items, bad = yield from ctx.decode([raw or b"" for raw in page.payloads])
        lost = {each.place for each in bad}
        if bad:
            log.warning(
                "skipped %d leased items of %r that cannot be decoded: %s",
                len(bad),
                ctx.name,
                bad[0].error,
            )
        values = iter(items)
        yield Emit(
            [
                (next(values), page.scores[i], page.attempts[i], page.expiries[i])
                for i in range(len(page.payloads))
                if i not in lost
            ]
        )
        if len(page.payloads) < STEP:
            return
        last = page.end


class _Page(NamedTuple):
    expiries: list[float]
    payloads: list[Any]
    attempts: list[int]
    scores: list[float]
    end: list[bytes]


def _page_behind(last: list[bytes], keyed: bool) -> Reader[_Page]:
    def read(reply: Any) -> _Page:
        parts = listed(reply, 5)
        page = page_of(parts[:3], last, keyed)
        num = len(page.payloads)
        return _Page(
            [number(each) / 1000 for each in page.scores],
            page.payloads,
            many(count, num)(parts[3]),
            many(number, num)(parts[4]),
            page.end,
        )

    return read


def finished(ctx: Context) -> Operation[bool]:
    """Whether nothing is queued, scheduled or leased."""
    done, _ = yield end_of(ctx)
    return bool(done)


def payload_of(ctx: Context, lease: Any, item: Any) -> bytes:
    """Give what is stored of an item that takes a lease's place: it must be the same one."""
    if ctx.identity(item) != lease.member:
        raise ValueError("item must have the identity of the leased one: add it, else")
    stored: bytes = ctx.wire.payload(item, ctx.dumps, ctx.max_item_bytes)
    return stored if ctx.keyed else b""


def one(ctx: Context, settlement: Settlement) -> Operation[int]:
    """Do one thing with leases; how many were still ours."""
    return (yield from settle(ctx, [settlement])).counts[0]
