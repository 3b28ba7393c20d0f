"""Settling leases: ack, fail, bury, release or renew, with new items or without."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

from redset._operations.adding import Adder, Flags, OtherEpoch, SettleArguments
from redset._operations.context import Context
from redset._operations.limits import CHUNK_BYTES, LEASE_STEP, SCRIPT_CHUNK, STEP_BYTES, WINDOW
from redset._operations.logs import one_line
from redset._operations.replies import Reader, count, list_of, listed
from redset._operations.scores import TIE
from redset._operations.streaming import add_stream, bad_item, large_item
from redset._operations.taking import out_of_memory
from redset._transport.effects import READ, Ask, Operation, Pull, Send

log = logging.getLogger("redset")

#: Cost of a step's group, counted in leases.
GROUP = 2
#: Values of a group before its members.
HEAD = 7
#: The most leases that `ack.lua` looks up one by one.
FEW = 49


class HeldLease(NamedTuple):
    """A lease as the server knows it: its member, its token, and its item."""

    member: bytes
    token: bytes
    item: Any
    score: float
    attempts: int
    expires: float
    #: The largest cohort that it may be in, together with its worker's other leases; 0: no limit.
    bound: int = 0
    #: Bytes of its payload.
    size: int = 0
    #: Its group, empty for none; None in a set without groups.
    group: bytes | None = None


class Settlement(NamedTuple):
    """How to settle some leases: ack, fail, bury, release, renew, or only check."""

    how: str
    leases: Sequence[Any]
    delay: int = 0
    score: bytes = b""
    error: str = ""
    payload: bytes = b""
    #: Whether the items' groups rest for the delay, too. Only in a set with groups.
    rests: bool = False


class SettleStep(NamedTuple):
    """One step of settlements: its groups as arguments, and the settlement of each group."""

    groups: list[list[Any]]
    #: For each group, the place of its settlement, and the number of its leases.
    owners: list[tuple[int, int]]


def steps_of(settlements: Sequence[Settlement]) -> list[SettleStep]:
    """Cut settlements into steps of so many leases and bytes. Leases of one token are a group."""
    steps: list[SettleStep] = []
    room = space = 0
    for place, each in enumerate(settlements):
        by_token: dict[bytes, list[Any]] = {}
        for held in each.leases:
            by_token.setdefault(held.token, []).append(held)
        # A dead letter has the payload.
        dies = each.how in ("fail", "bury")
        for token, leases in by_token.items():
            # With a mark, the delay is also the time for which the items' groups rest.
            delay: Any = b"%d!" % each.delay if each.rests else each.delay
            head = [each.how, token, delay, each.score, each.error, each.payload]
            part: list[bytes] = []
            for held in leases:
                size = max(held.size, len(held.member)) if dies else len(held.member)
                if room <= 0 or size > space:
                    _end_group(steps, head, place, part)
                    part = []
                    steps.append(SettleStep([], []))
                    room, space = LEASE_STEP, STEP_BYTES
                room, space = room - 1, space - size
                part.append(held.member)
            _end_group(steps, head, place, part)
            room -= GROUP
    return steps


def _end_group(steps: list[SettleStep], head: list[Any], place: int, part: list[bytes]) -> None:
    """Append a group of leases, if it has any, to the last step."""
    if part:
        steps[-1].groups.append([*head, len(part), *part])
        steps[-1].owners.append((place, len(part)))


def tokens_of_step(step: SettleStep) -> list[tuple[bytes, bytes]]:
    """Return the member and token of each lease of a step."""
    return [
        (member, group[1])
        for group, (_, num) in zip(step.groups, step.owners, strict=True)
        for member in group[-num:]
    ]


def settling_of(ctx: Context, step: SettleStep) -> SettleArguments:
    num = len(step.groups)
    arguments = {
        "max_attempts": ctx.options.max_attempts,
        "keyed": ctx.options.keyed,
        "num_groups": num,
    }
    return SettleArguments(arguments, list(chain.from_iterable(step.groups)))


class SettleResult(NamedTuple):
    """Number of held leases of each settlement, and total of leases that are known to be lost."""

    counts: list[int]
    lost: int


def settle(ctx: Context, settlements: Sequence[Settlement]) -> Operation[SettleResult]:
    """Perform settlements, with a window of steps in flight."""
    steps = steps_of(settlements)
    sends: list[Send]
    if len(steps) == 1:
        # A single step is sent and read at once, by the link's short path.
        first = _ack_step(ctx, steps[0]) or ask_step(ctx, steps[0])
        sends, answers = [first], [(yield first)]
        if answers[0] is None:
            sends = [ask_step(ctx, steps[0])]
            answers = [(yield sends[0])]
            # The first step may have been performed before it was sent again.
            sends[0].resent |= first.resent
    else:
        sends = [send_step(ctx, step) for step in steps]
        answers = yield from in_flight(sends)
    counts, lost = [0] * len(settlements), [0] * len(settlements)
    for step, send, answer in zip(steps, sends, answers, strict=True):
        tally(step, send, answer_of(answer), counts, lost)
    for each, ours, gone in zip(settlements, counts, lost, strict=True):
        mark_settled(each)
        ctx.reporter.count_settled(each.how, ours, gone)
    return SettleResult(counts, sum(lost))


def tally(
    step: SettleStep, send: Send, ours: list[int], counts: list[int], lost: list[int]
) -> None:
    """Count the leases of each settlement that were held, and those that are known to be lost."""
    for (place, asked), num in zip(step.owners, ours, strict=True):
        counts[place] += num
        # The step may have been performed before. It then finds no lease, which is not a loss.
        lost[place] += 0 if send.resent else asked - num


def ask_step(ctx: Context, step: SettleStep) -> Ask:
    """Make the step that settles some leases."""
    reads = _counts(len(step.groups))
    arguments, groups = settling_of(ctx, step)
    return ctx.step("settle", reads, groups, **arguments)


def _ack_step(ctx: Context, step: SettleStep) -> Ask | None:
    """Make the step that only acknowledges a few leases of one token, or None for any other.

    A short path: it takes the server a tenth less for a lease and its acknowledgement. Its result
    is None if the other step has to settle the leases.
    """
    (how, token, *_, num) = step.groups[0][:HEAD]
    grouped = ctx.options.grouped
    if len(step.groups) != 1 or how != "ack" or (num > FEW and not grouped):
        return None

    def reads(reply: Any) -> list[int] | None:
        return None if reply == -1 else [count(reply, num)]

    if grouped:
        return ctx.step("ack_in_turn", reads, step.groups[0][HEAD:], token=token)
    return ctx.step("ack", reads, step.groups[0][HEAD:], token=token)


def send_step(ctx: Context, step: SettleStep) -> Send:
    """Make the same step, to be sent in a window of several."""
    return to_send(ask_step(ctx, step))


def to_send(ask: Ask) -> Send:
    return Send(ask.data, ask.replies, ask.script, ask.resend, ask.reads)


def in_flight(sends: Sequence[Send]) -> Operation[list[Any]]:
    """Perform requests with a window in flight. Return each one's reply, or its error.

    After an error no more requests are sent, and their results are that error. A refusal by a full
    server does not stop the other settlements.
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
                break  # no request is in flight
            sent += 1
            continue
        try:
            answers.append((yield READ))
        except Exception as error:
            if not out_of_memory(error):
                failure = failure or error
            answers.append(error)
    return answers + [failure] * (len(sends) - len(answers))


def mark_settled(settlement: Settlement) -> None:
    """Mark the caller's leases as settled."""
    if settlement.how in ("ack", "fail", "release"):
        for lease in settlement.leases:
            if type(lease) is not HeldLease:  # the caller has not received a HeldLease
                lease.settled = True


def _counts(num: int) -> Reader[list[int]]:
    read = list_of(count, num)

    def reads(reply: Any) -> list[int]:
        # Of a single group, the number may be all of the reply.
        return [count(reply)] if type(reply) is int and num == 1 else read(listed(reply, 2)[0])

    return reads


def acknowledge(ctx: Context, leases: Sequence[Any], steady: bool) -> Operation[int]:
    """Acknowledge leases, and add the items that Pull brings in the same step: both, or neither.

    Items beyond a chunk are added before, as long as any of the leases is held.
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
    return (yield from acknowledge_with(ctx, leases, items, steady, True))


def acknowledge_with(
    ctx: Context, leases: Sequence[Any], items: list[Any], steady: bool, more: bool, ttl: int = 0
) -> Operation[int]:
    """Acknowledge leases and add items, and those that Pull brings if there may be more.

    With a ttl, each earlier chunk extends the leases.
    """
    done = [Settlement("ack", leases)]
    steps = steps_of(done)
    if len(steps) == 1 and len(items) <= SCRIPT_CHUNK:
        adder = Adder(ctx, Flags(), None, False, settling_of(ctx, steps[0]))
        yield from adder.prepare()
        chunks = encoded(adder, items, False)
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
            ours = yield from judged(adder, items, chunks[0], reply)
            mark_settled(done[0])
            ctx.reporter.count_settled("ack", ours, len(leases) - ours)
            return ours
    guards = steps_of([Settlement("renew" if ttl else "check", leases, ttl)])
    settling = [settling_of(ctx, guard) for guard in guards]
    pulled = items, None
    yield from add_stream(ctx, None, Flags(), "raise", steady, False, settling, pulled, more)
    return (yield from settle(ctx, done)).counts[0]


def encoded(adder: Adder, items: list[Any], skip: bool, size: int = CHUNK_BYTES) -> list[Any]:
    chunks: list[Any] = adder.encoder.encode_all(items, None, skip, SCRIPT_CHUNK, size)
    return chunks


def judged(adder: Adder, items: list[Any], chunk: Any, reply: Any) -> Operation[int]:
    """Judge a step that settles and adds. If the set has another epoch, perform it once more.

    Return the number of settled leases.
    """
    while True:
        try:
            adder.judge(chunk, reply)
        except OtherEpoch as other:
            adder.other_epoch(other.stored)
            # Under another epoch the same items may take some bytes more.
            (chunk,) = encoded(adder, items, False, 2 * CHUNK_BYTES)
            reply = yield adder.ask(chunk)
        else:
            return sum(adder.settled)


def answer_of(answer: Any) -> Any:
    """Return a reply, or raise it if it is an error."""
    if isinstance(answer, Exception):
        raise answer
    return answer


def payload_of(ctx: Context, lease: Any, item: Any) -> bytes:
    """Return the stored bytes of an item that replaces a leased one with the same identity."""
    if ctx.codec.identity(item) != lease.member:
        raise ValueError("item must have the identity of the leased one; add another item instead")
    stored: bytes = ctx.wire.payload(item, ctx.codec.dumps, ctx.codec.max_item_bytes)
    return stored if ctx.options.keyed else b""


def place_of(ctx: Context, score: Any) -> bytes:
    """Return a new score as an argument of a step of settlements."""
    found = ctx.scores.parse(score)
    # The item keeps its sequence number among equal scores (see ``leases.lua``).
    return b"~%d" % (int(found) * TIE) if ctx.options.ties else ctx.wire.score_text(found)


def one(ctx: Context, settlement: Settlement) -> Operation[int]:
    """Perform one settlement. Return the number of leases still held."""
    (ours,) = (yield from settle(ctx, [settlement])).counts
    log_deaths(ctx, settlement, ours)
    return ours


def log_deaths(ctx: Context, settlement: Settlement, ours: int) -> None:
    """Log the number of items that a settlement made dead letters. So many leases were held."""
    leases = settlement.leases
    died = ours if settlement.how == "bury" else 0
    if settlement.how == "fail" and ctx.options.max_attempts:
        live = sum(lease.attempts + 1 < ctx.options.max_attempts for lease in leases)
        died = max(0, ours - live)  # exact if all leases were held, else a lower bound
    if died:
        text = one_line(settlement.error)
        log.error("%d items of %r moved to dead letters: %s", died, ctx.name, text)
