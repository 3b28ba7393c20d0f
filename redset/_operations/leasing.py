"""Handing items out for a time: leases, and what becomes of them."""

from __future__ import annotations

import base64
import contextlib
import logging
import math
import os
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, NamedTuple

from redset._effects import READ, Ask, Emit, Operation, Pull, Send
from redset._logs import one_line, warn_once
from redset._operations.adding import (
    Adder,
    Flags,
    OtherEpoch,
    add_stream,
    bad_item,
    is_large,
    large_item,
)
from redset._operations.checking import check_once
from redset._operations.context import (
    CHUNK_BYTES,
    LEASE_STEP,
    NOT_OF_ITEM,
    SCRIPT_CHUNK,
    STEP_BYTES,
    TIE,
    WINDOW,
    Context,
    error_text,
    raise_unable,
)
from redset._operations.reading import log_expired, looked_at, page_of
from redset._operations.reading import size as size_of
from redset._operations.replies import (
    Reader,
    bytes_of,
    count,
    listed,
    many,
    members,
    number,
    refuse,
)
from redset._operations.taking import (
    ENOUGH,
    end_of,
    look_first,
    none_of,
    out_of_memory,
    warn_of_dead,
)
from redset._operations.waiting import until, wait_for
from redset.exceptions import AddError, Full

log = logging.getLogger("redset")

#: The most items of one call.
MOST = 100_000
#: Leased items a page, each with an error of up to 1,000 characters.
LEASED_STEP = 250
#: Tokens of failed lease calls that are kept.
UNANSWERED = 16
#: What a group of leases of a step costs beside them, in leases.
GROUP = 2


class Held(NamedTuple):
    """A lease as the server knows it: its member and its owner's token, and what it gave."""

    member: bytes
    token: bytes
    item: Any
    score: float
    attempts: int
    expires: float
    #: The largest cohort that it may be in, and all that its worker has with it; 0 if any.
    bound: int = 0
    #: Bytes of its payload.
    size: int = 0


class Settlement(NamedTuple):
    """What is to become of some leases: ack, fail, bury, release, renew, or for now check."""

    how: str
    leases: Sequence[Any]
    delay: int = 0
    score: bytes = b""
    error: str = ""
    payload: bytes = b""


def new_token() -> bytes:
    return base64.b64encode(os.urandom(12))


def _token(ctx: Context, num: int) -> bytes:
    """Return the token of a lease call for at least so many that failed, else a new one.

    The server may have performed the call that failed. Under the same token it gives the same
    leases or, if their time is over, returns them without an attempt: nobody has received them.
    Not that of a call for fewer: if its request arrives late, it would give the others back.
    """
    for entry in list(ctx.unanswered):
        process, token, most = entry
        # A forked child leaves its parent's to the parent.
        if process == os.getpid() and most >= num:
            with contextlib.suppress(ValueError):  # another thread was first
                ctx.unanswered.remove(entry)
                return token
    return new_token()


def _unanswered(ctx: Context, token: bytes, num: int) -> None:
    """Keep the token of a lease call that failed: the last few."""
    ctx.unanswered.append((os.getpid(), token, num))
    del ctx.unanswered[:-UNANSWERED]


def lease(ctx: Context, num: int, ttl: int, wait: float) -> Operation[list[Held]]:
    """Lease up to ``num`` items for ``ttl`` ms, lowest first, as soon as there are any."""
    return (yield from until(ctx, lambda: _lease(ctx, num, ttl), wait))


def _lease(ctx: Context, num: int, ttl: int) -> Operation[list[Held]]:
    found: list[Held] = []
    yield from check_once(ctx)
    if not (yield from look_first(ctx)):
        return found
    undecodable = 0
    while num > 0:
        want = min(num, LEASE_STEP)
        token = _token(ctx, want)
        try:
            try:
                given = yield _call(ctx, token, want, ttl, len(found))
            except BaseException:
                _unanswered(ctx, token, want)
                raise
            held, bad, unable = yield from _decoded(ctx, given)
            found += held
            undecodable += bad
            if unable is not None:
                raise unable
        except Exception as error:
            if not found:
                raise
            # What was leased before is the caller's; the next call meets the error itself.
            text = one_line(error_text(error))
            log.error("some items of %r could not be leased: %s", ctx.name, text)
            return found
        got = len(given.rows)
        num -= got
        if got < want and not given.more:
            break
    if not found and undecodable >= ENOUGH:
        raise none_of(ctx, undecodable)
    return found


def _call(
    ctx: Context, token: bytes, num: int, ttl: int, hand: int = 0, passes: bool = False
) -> Ask:
    """Make the step that leases.

    Args:
        hand: Number of leases that the worker has already.
        passes: Whether suspects that may not be in so large a cohort are passed over.
    """
    arguments = [token, num, ttl, ctx.max_attempts, "1" if ctx.due else "", LEASE_STEP]
    arguments += [hand, "1" if passes else "", ctx.first]
    return ctx.call("lease", ctx.lease_keys, arguments, _leases(token, num, ctx.keyed))


class _Given(NamedTuple):
    """What a step leased: member, score, attempts and payload of each."""

    token: bytes
    expires: float
    more: bool
    #: Whether it ended at a suspect, which may only be handed out in a smaller cohort.
    stopped: bool
    dropped: int
    #: The largest cohort that all of these may be in; 0 if any.
    bound: int
    #: How many became dead letters, since their leases had expired.
    died: int
    rows: list[tuple[bytes, float, int, bytes]]


def _leases(token: bytes, want: int, keyed: bool) -> Reader[_Given]:
    width = 4 if keyed else 3

    def read(reply: Any) -> _Given:
        parts = listed(reply)
        rest = parts[4:-1]
        if len(parts) < 5 or len(rest) % width or len(rest) > want * width:
            raise refuse(f"at most {want} leases", reply)
        names = members(rest[::width], want)
        payloads = members(rest[3::width], want) if keyed else names
        if None in names or None in payloads:
            raise refuse("leases of members", reply)
        scores = [number(score) for score in rest[1::width]]
        attempts = [count(each) for each in rest[2::width]]
        rows = list(zip(names, scores, attempts, payloads, strict=True))
        more = count(parts[1], 2)
        expires, dropped, bound = count(parts[0]) / 1000, count(parts[2]), count(parts[3])
        died = count(parts[-1])
        return _Given(token, expires, more == 1, more == 2, dropped, bound, died, rows)

    return read


def _decoded(
    ctx: Context, given: _Given, delay: int = 0
) -> Operation[tuple[list[Held], int, Exception | None]]:
    """Decode what was leased; how much cannot be, and went to the dead letters.

    An error that says nothing of the item comes last. Its items are released, for ``delay`` ms.
    """
    log_expired(ctx, given.died)
    if given.dropped:
        warn_once(ctx.name, "dropped %d members of %r without payload", given.dropped, ctx.name)
    items, bad = yield from ctx.decode([row[3] for row in given.rows])
    worse = {each.place: each.error for each in bad}
    unable: Exception | None = None
    held, buried, lost = [], [], []
    values = iter(items)
    for place, (member, score, attempts, _) in enumerate(given.rows):
        item = None if place in worse else next(values)
        told, size = ctx.told(score), len(given.rows[place][3])
        one = Held(member, given.token, item, told, attempts, given.expires, given.bound, size)
        if place not in worse:
            held.append(one)
        elif isinstance(worse[place], NOT_OF_ITEM):
            unable = unable or worse[place]
            lost.append(Settlement("release", [one], delay))
        else:
            buried.append(one)
            lost.append(Settlement("bury", [one], error=error_text(worse[place])))
    if held:
        ctx.looked = True
    if lost:
        try:
            yield from settle(ctx, lost)
        except Exception as error:
            if not held:
                raise
            # They are leased, and come back when that ends.
            text = one_line(error_text(error))
            log.error("undecodable items of %r could not be buried: %s", ctx.name, text)
        else:
            own = [each for each in bad if not isinstance(each.error, NOT_OF_ITEM)]
            if own:
                warn_of_dead(ctx, own)
    return held, len(buried), unable


class _Step(NamedTuple):
    """One step of settlements: its groups as arguments, and whose each of them is."""

    groups: list[list[Any]]
    #: Of each group, which settlement it is of, and how many leases it has.
    owners: list[tuple[int, int]]


def _steps(settlements: Sequence[Settlement]) -> list[_Step]:
    """Cut settlements into steps of so many leases and bytes, each by owner's token."""
    steps: list[_Step] = []
    room = space = 0
    for place, each in enumerate(settlements):
        by_token: dict[bytes, list[Any]] = {}
        for held in each.leases:
            by_token.setdefault(held.token, []).append(held)
        # A letter holds the payload.
        dies = each.how in ("fail", "bury")
        for token, leases in by_token.items():
            head = [each.how, token, each.delay, each.score, each.error, each.payload]
            part: list[bytes] = []
            for held in leases:
                size = max(held.size, len(held.member)) if dies else len(held.member)
                if room <= 0 or size > space:
                    _end_group(steps, head, place, part)
                    part = []
                    steps.append(_Step([], []))
                    room, space = LEASE_STEP, STEP_BYTES
                room, space = room - 1, space - size
                part.append(held.member)
            _end_group(steps, head, place, part)
            room -= GROUP
    return steps


def _end_group(steps: list[_Step], head: list[Any], place: int, part: list[bytes]) -> None:
    """Append a group of leases, if it has any, to the last step."""
    if part:
        steps[-1].groups.append([*head, len(part), *part])
        steps[-1].owners.append((place, len(part)))


def _leases_of(step: _Step) -> list[tuple[bytes, bytes]]:
    """Return the member and token of each lease of a step."""
    return [
        (member, group[1])
        for group, (_, num) in zip(step.groups, step.owners, strict=True)
        for member in group[-num:]
    ]


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
    steps = _steps(settlements)
    sends = [_send_step(ctx, step) for step in steps]
    answers = yield from _in_flight(sends)
    counts, lost = [0] * len(settlements), [0] * len(settlements)
    for step, send, answer in zip(steps, sends, answers, strict=True):
        _tally(step, send, _got(answer), counts, lost)
    for each in settlements:
        _mark(each)
    return Settled(counts, sum(lost))


def _tally(step: _Step, send: Send, ours: list[int], counts: list[int], lost: list[int]) -> None:
    """Count what of each settlement was ours, and what is known not to have been."""
    for (place, asked), num in zip(step.owners, ours, strict=True):
        counts[place] += num
        # Performed before, it finds none of them: that is no loss.
        lost[place] += 0 if send.resent else asked - num


def _send_step(ctx: Context, step: _Step) -> Send:
    reads = _counts(len(step.groups))
    return _to_send(ctx.call("settle", ctx.settling_keys, _arguments(ctx, step), reads))


def _to_send(ask: Ask) -> Send:
    return Send(ask.data, ask.replies, ask.script, ask.resend, ask.reads)


def _in_flight(sends: Sequence[Send]) -> Operation[list[Any]]:
    """Perform requests, a window of them in flight: each one's answer, or the error that it met.

    Where one meets an error no more are sent, and have the same. What a full server refuses is no
    reason not to settle the others, and not to lease.
    """
    answers: list[Any] = []
    sent = 0
    failure: Exception | None = None
    while len(answers) < sent or (sent < len(sends) and failure is None):
        if sent < len(sends) and failure is None and sent - len(answers) < WINDOW:
            try:
                yield sends[sent]
            except Exception as error:
                failure = failure or error
                break  # nothing is in flight any more
            sent += 1
            continue
        try:
            answers.append((yield READ))
        except Exception as error:
            if not out_of_memory(error):
                failure = failure or error
            answers.append(error)
    return answers + [failure] * (len(sends) - len(answers))


def _mark(settlement: Settlement) -> None:
    """Let leases that the caller has know that they are settled."""
    if settlement.how in ("ack", "fail", "release"):
        for lease in settlement.leases:
            if type(lease) is not Held:  # which the caller has not received
                lease.settled = True


def _counts(num: int) -> Reader[list[int]]:
    return lambda reply: many(count, num)(listed(reply, 2)[0])


def acknowledge(ctx: Context, leases: Sequence[Any], steady: bool) -> Operation[int]:
    """Acknowledge leases, and add what Pull brings in the same step: both, or neither.

    What is more than a chunk is added before, as long as any of the leases is ours.
    """
    items: list[Any] = []
    num = SCRIPT_CHUNK + 1
    while len(items) < num:
        more, _ = yield Pull(num - len(items))
        if not more:
            break
        items += more
    if not items:
        return (yield from settle(ctx, [Settlement("ack", leases)])).counts[0]
    return (yield from _acknowledge(ctx, leases, items, steady, True))


def _acknowledge(
    ctx: Context, leases: Sequence[Any], items: list[Any], steady: bool, more: bool, ttl: int = 0
) -> Operation[int]:
    """Acknowledge leases and add items, and what Pull brings if there may be more.

    Each chunk before gives the leases more time, where there is a ttl.
    """
    done = [Settlement("ack", leases)]
    steps = _steps(done)
    if len(steps) == 1 and len(items) <= SCRIPT_CHUNK:
        adder = Adder(ctx, Flags(), None, False, _arguments(ctx, steps[0]))
        yield from adder.prepare()
        chunks = _encoded(adder, items, False)
        if chunks[-1].bad:
            raise bad_item(chunks[-1].bad[0]) from chunks[-1].bad[0].error
        if len(chunks) == 1:
            try:
                reply = yield adder.ask(chunks[0])
            except Exception as error:
                named = large_item(ctx, items, chunks[0], error)
                if named is error:
                    raise
                raise named from error
            ours = yield from _judged(adder, items, chunks[0], reply)
            _mark(done[0])
            return ours
    guards = _steps([Settlement("renew" if ttl else "check", leases, ttl)])
    settling = [_arguments(ctx, guard) for guard in guards]
    pulled = items, None
    yield from add_stream(ctx, None, Flags(), "raise", steady, False, settling, pulled, more)
    return (yield from settle(ctx, done)).counts[0]


def _encoded(adder: Adder, items: list[Any], skip: bool, size: int = CHUNK_BYTES) -> list[Any]:
    chunks: list[Any] = adder.encoder.encode_all(items, None, skip, SCRIPT_CHUNK, size)
    return chunks


def _judged(adder: Adder, items: list[Any], chunk: Any, reply: Any) -> Operation[int]:
    """See what came of a step that settles and adds, once more under the set's epoch; its count."""
    while True:
        try:
            adder.judge(chunk, reply)
        except OtherEpoch as other:
            adder.other_epoch(other.stored)
            # Under another epoch the same items may be some bytes more.
            (chunk,) = _encoded(adder, items, False, 2 * CHUNK_BYTES)
            reply = yield adder.ask(chunk)
        else:
            return sum(adder.settled)


class Exchange:
    """What a worker tells the server and asks of it, in one round trip; and what came of it.

    Performing it again changes nothing and gives the same leases.
    """

    def __init__(
        self,
        done: Sequence[Any],
        settlements: Sequence[Settlement],
        num: int,
        ttl: int,
        ends: bool,
        hand: int = 0,
        passes: bool = False,
        unable_delay: int = 0,
    ) -> None:
        #: Leases with the ``items`` that were found.
        self.done = done
        #: What is to become of others.
        self.settlements = settlements
        self.num = num
        self.ttl = ttl
        #: Whether to ask for the set's end.
        self.ends = ends
        #: How many leases the worker keeps, and whether suspects are passed over that may not be
        #: in so large a cohort.
        self.hand, self.passes = hand, passes
        #: For how many ms an item is released that cannot be decoded now, for no fault of its own.
        self.unable_delay = unable_delay
        self.renew()

    def renew(self) -> None:
        """Let what is leased be other leases than before."""
        steps = range(0, self.num, LEASE_STEP)
        #: How many each step leases.
        self.calls = [min(LEASE_STEP, self.num - at) for at in steps]
        #: From when on they count.
        self.at = monotonic()
        self.begin()

    def begin(self) -> None:
        #: How many were acknowledged, were ours of each settlement, are known to be lost.
        self.acknowledged = 0
        self.counts = [0] * len(self.settlements)
        self.lost = 0
        self.held: list[Held] = []
        #: Whether a suspect ended it that may only be handed out in a smaller cohort.
        self.stopped = False
        self.finished = False
        #: Those whose items cannot be added, and why; those whose items a full set refused.
        self.unfit: list[tuple[Any, Exception]] = []
        self.refused: list[Any] = []
        #: Members and tokens of leases that an error left unsettled.
        self.unsettled: set[tuple[bytes, bytes]] = set()
        #: Why items could not be decoded, if that says nothing of them: they were released.
        self.unable: Exception | None = None
        #: What else went wrong; the rest was performed.
        self.error: Exception | None = None

    def note(self, error: Exception) -> None:
        """Keep the first of what went wrong."""
        self.error = self.error or error

    def excuse(self, leases: list[Any], error: Exception) -> None:
        """Note that items could not be added: for want of room, or for another reason."""
        if isinstance(error, Full) or out_of_memory(error):
            self.refused += leases
        else:
            self.note(error)
            self.unsettled.update((lease.member, lease.token) for lease in leases)


def await_exchange(ctx: Context, what: Exchange, ended: Callable[[], bool]) -> Operation[None]:
    """Perform an exchange that settles nothing, again and again until it leases something, or it is
    the set's end, where that is asked for, or ``ended``.
    """
    yield from exchange(ctx, what)
    effect = wait_for(ctx, math.inf, what.ends, ended)
    while not (what.held or what.finished or what.error or what.unable) and (yield effect):
        what.renew()
        yield from exchange(ctx, what)


def exchange(ctx: Context, what: Exchange) -> Operation[None]:
    """Perform an exchange."""
    what.begin()
    calls = what.calls
    if calls:
        yield from check_once(ctx)
        if not (yield from look_first(ctx, goes_on=True)):
            calls = []
    parts, large = yield from _parts(ctx, what)
    done = Settlement("ack", [lease for lease in what.done if not lease.items])
    steps = _steps([done, *what.settlements])
    sends = [part.adder.send(part.chunk) for part in parts]
    sends += [_send_step(ctx, step) for step in steps]
    tokens, hand = [_token(ctx, num) for num in calls], what.hand
    for token, num in zip(tokens, calls, strict=True):
        sends.append(_to_send(_call(ctx, token, num, what.ttl, hand, what.passes)))
        hand += num
    if what.ends:
        sends.append(_to_send(end_of(ctx)))
    try:
        answers = yield from _in_flight(sends)
    except BaseException:
        for token, num in zip(tokens, calls, strict=True):
            _unanswered(ctx, token, num)
        raise
    answered = zip(sends, answers, strict=True)
    for part in parts:
        send, answer = next(answered)
        try:
            ours = yield from _judged(part.adder, part.items, part.chunk, _got(answer))
        except Exception as error:
            what.excuse(part.leases, error)
        else:
            what.acknowledged += ours
            what.lost += 0 if send.resent else len(part.leases) - ours
    counts, lost = [0] * (1 + len(what.settlements)), [0] * (1 + len(what.settlements))
    for step in steps:
        send, answer = next(answered)
        if isinstance(answer, Exception):
            what.note(answer)
            what.unsettled.update(_leases_of(step))
        else:
            _tally(step, send, answer, counts, lost)
    what.acknowledged += counts[0]
    what.counts = counts[1:]
    # What a renewal misses is still to be settled, and counted then.
    kinds = ["ack", *(each.how for each in what.settlements)]
    what.lost += sum(num for num, how in zip(lost, kinds, strict=True) if how != "renew")
    undecodable = 0
    for token, num in zip(tokens, calls, strict=True):
        _, answer = next(answered)
        if isinstance(answer, Exception):
            _unanswered(ctx, token, num)
        else:
            what.stopped = what.stopped or answer.stopped
        try:
            held, bad, unable = yield from _decoded(ctx, _got(answer), what.unable_delay)
        except Exception as error:
            what.note(error)
        else:
            what.held += held
            undecodable += bad
            what.unable = what.unable or unable
    if undecodable >= ENOUGH and not what.held:
        what.note(none_of(ctx, undecodable))
    for _, answer in answered:  # the end's, where it was asked for
        if isinstance(answer, Exception):
            what.note(answer)
        else:
            what.finished = answer.finished
    for lease in large:
        try:
            ours = yield from _acknowledge(ctx, [lease], lease.items, True, False, what.ttl)
        except AddError as error:
            cause = error.__cause__
            if error.index is not None and isinstance(cause, Exception):
                what.unfit.append((lease, cause))
            else:
                what.excuse([lease], cause if isinstance(cause, Exception) else error)
        except Exception as error:
            what.excuse([lease], error)
        else:
            what.acknowledged += ours
            what.lost += 1 - ours


def _got(answer: Any) -> Any:
    """Give an answer, or raise what came instead."""
    if isinstance(answer, Exception):
        raise answer
    return answer


class _Part(NamedTuple):
    """Leases that are acknowledged in one step with what was found."""

    leases: list[Any]
    items: list[Any]
    adder: Adder
    chunk: Any


def _parts(ctx: Context, what: Exchange) -> Operation[tuple[list[_Part], list[Any]]]:
    """Cut what was found into steps; those leases for which one step is not enough."""
    parts: list[_Part] = []
    large: list[Any] = []
    waiting = [lease for lease in what.done if lease.items]
    while waiting:
        leases: list[Any] = []
        items: list[Any] = []
        tokens: set[bytes] = set()
        size = 0
        for lease in waiting:
            tokens.add(lease.token)
            size += len(lease.member)
            if leases and size > STEP_BYTES:
                break
            # One step takes them: each call that leased some of them is a group of its own.
            if len(leases) + 1 + GROUP * (len(tokens) - 1) > LEASE_STEP:
                break
            if leases and len(items) + len(lease.items) > SCRIPT_CHUNK:
                break
            leases.append(lease)
            items += lease.items
        rest = waiting[len(leases) :]
        if len(items) > SCRIPT_CHUNK:
            large += leases
            waiting = rest
            continue
        (step,) = _steps([Settlement("ack", leases)])
        adder = Adder(ctx, Flags(), None, False, _arguments(ctx, step))
        yield from adder.prepare()
        chunks = _encoded(adder, items, True)
        if chunks[-1].bad:
            wrong: dict[int, Exception] = {}
            for bad in chunks[-1].bad:
                wrong.setdefault(_owner_at(leases, bad.place), bad.error)
            what.unfit += [(leases[place], error) for place, error in wrong.items()]
            waiting = [lease for at, lease in enumerate(leases) if at not in wrong] + rest
            continue
        # A large item goes alone: the server may close the connection on it.
        if len(chunks) == 1 and not is_large(chunks[0]):
            parts.append(_Part(leases, items, adder, chunks[0]))
        else:
            large += leases
        waiting = rest
    return parts, large


def _owner_at(leases: list[Any], place: int) -> int:
    """Say among whose items the one at this place is."""
    for at, lease in enumerate(leases):
        place -= len(lease.items)
        if place < 0:
            return at
    raise AssertionError("more items than were found")


class Leased(NamedTuple):
    """An item that is leased, or waits out a delay."""

    item: Any
    score: float
    attempts: int
    expires: float
    error: str | None = None
    worker: str | None = None
    group: str | None = None


def leased(ctx: Context) -> Operation[None]:
    """Emit a `Leased` of each item that is held back, in order of expiry."""
    if ctx.keys.prefix is None:  # where nothing can be leased
        return
    keys = [ctx.keys.leased, ctx.keys.leases]
    if ctx.keyed:
        keys.append(ctx.keys.items)
    last: list[bytes] = []
    while True:
        arguments = [LEASED_STEP, ctx.first, *last]
        page = yield ctx.call("leased", keys, arguments, _page_behind(last, ctx.keyed))
        if not page.payloads:
            return
        items, bad = yield from ctx.decode([raw or b"" for raw in page.payloads])
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
        values = iter(items)
        yield Emit(
            [
                Leased(
                    next(values),
                    ctx.told(page.scores[i]),
                    page.attempts[i],
                    page.expiries[i],
                    page.errors[i].decode("utf-8", "replace") or None,
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
    end: list[bytes]
    more: bool


def _page_behind(last: list[bytes], keyed: bool) -> Reader[_Page]:
    def read(reply: Any) -> _Page:
        parts = listed(reply, 7)
        page = page_of(parts[:4], last, keyed)
        num = len(page.payloads)
        return _Page(
            [number(each) / 1000 for each in page.scores],
            page.payloads,
            many(count, num)(parts[4]),
            many(number, num)(parts[5]),
            many(bytes_of, num)(parts[6]),
            page.end,
            page.more,
        )

    return read


def finished(ctx: Context) -> Operation[bool]:
    """Whether nothing is queued, scheduled or leased."""
    if ctx.keys.prefix is None:  # where nothing can be leased
        return (yield from size_of(ctx)) == 0
    end = yield from looked_at(lambda looks: end_of(ctx, looks))
    return bool(end.finished)


def payload_of(ctx: Context, lease: Any, item: Any) -> bytes:
    """Give what is stored of an item that takes a lease's place: it must be the same one."""
    if ctx.identity(item) != lease.member:
        raise ValueError("item must have the identity of the leased one: add it, else")
    stored: bytes = ctx.wire.payload(item, ctx.dumps, ctx.max_item_bytes)
    return stored if ctx.keyed else b""


def place_of(ctx: Context, score: Any) -> bytes:
    """Give what a step of settlements is told of a new score."""
    found = ctx.to_score(score)
    # Its item's number among equal ones stays (see ``leases.lua``).
    return b"~%d" % (int(found) * TIE) if ctx.ties else ctx.wire.score_text(found)


def one(ctx: Context, settlement: Settlement) -> Operation[int]:
    """Do one thing with leases; how many were still ours."""
    (ours,) = (yield from settle(ctx, [settlement])).counts
    log_deaths(ctx, settlement, ours)
    return ours


def log_deaths(ctx: Context, settlement: Settlement, ours: int) -> None:
    """Log how many items a settlement, of which so many leases were ours, made dead letters."""
    leases = settlement.leases
    died = ours if settlement.how == "bury" else 0
    if settlement.how == "fail" and ctx.max_attempts:
        live = sum(lease.attempts + 1 < ctx.max_attempts for lease in leases)
        died = max(0, ours - live)  # exact if all were ours, else not fewer
    if died:
        text = one_line(settlement.error)
        log.error("%d items of %r moved to dead letters: %s", died, ctx.name, text)
