"""Settling and leasing in one round trip: a worker's exchange with the server."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, NamedTuple

from redset._operations.adding import Adder, Flags, Refusal, is_large
from redset._operations.checking import check_once
from redset._operations.context import Context
from redset._operations.groups import pausing_step, sharing_steps
from redset._operations.known import confirms
from redset._operations.leasing import decode_given, keep_unanswered, lease_call, token_for
from redset._operations.limits import LEASE_STEP, SCRIPT_CHUNK, STEP_BYTES
from redset._operations.reporting import IDLE
from redset._operations.settling import (
    GROUP,
    HeldLease,
    Settlement,
    SettleStep,
    acknowledge_with,
    answer_of,
    encoded,
    in_flight,
    judged,
    send_step,
    settling_of,
    steps_of,
    tally,
    to_send,
    tokens_of_step,
)
from redset._operations.taking import ENOUGH, end_of, look_first, none_of, out_of_memory
from redset._operations.waiting import wait_for
from redset._transport.effects import Operation, Send
from redset.exceptions import AddError, Full

#: Milliseconds for which shared limits of groups last.
LASTING = 60_000


class Exchange:
    """One round trip of a worker: its settlements, its lease calls, and their results.

    Performing it again changes nothing and returns the same leases.
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
        guarded: bool = False,
    ) -> None:
        #: Leases to acknowledge, with their new ``items``.
        self.done = done
        #: Settlements of other leases.
        self.settlements = settlements
        self.num = num
        self.ttl = ttl
        #: Whether to ask for the set's end.
        self.ends = ends
        #: Number of leases that the worker keeps, and whether to skip suspects for which the cohort
        #: would be too large.
        self.hand, self.passes = hand, passes
        #: Milliseconds of delay of an item whose decoding failed without its fault.
        self.unable_delay = unable_delay
        #: True if the known table answered for new items of acknowledged leases. If the server no
        #: longer knows these items, the leases are released: their work finds the items again.
        self.guarded = guarded
        #: Groups that are to rest before anything is settled, each with its milliseconds.
        self.rests: Sequence[tuple[bytes, int]] = ()
        #: Limits of groups to share with the other processes, or None to share nothing.
        self.shared: Mapping[str, Any] | None = None
        self.renew()

    def renew(self) -> None:
        """Let the next try lease other items than before."""
        steps = range(0, self.num, LEASE_STEP)
        #: Number of leases of each step.
        self.calls = [min(LEASE_STEP, self.num - at) for at in steps]
        #: The time from which their ttl counts.
        self.at = monotonic()
        self.begin()

    def begin(self) -> None:
        #: Number of acknowledged leases, number of held leases of each settlement, and number of
        #: leases that are known to be lost.
        self.acknowledged = 0
        self.counts = [0] * len(self.settlements)
        self.lost = 0
        self.held: list[HeldLease] = []
        #: True if the step ended at a suspect that may only be in a smaller cohort.
        self.stopped = False
        self.finished = False
        #: True if the server has forgotten items that the known table answered for.
        self.forgot = False
        #: True if limits had been shared before.
        self.shares = False
        #: The error of a rest or of shared limits.
        self.groups_error: Exception | None = None
        #: Number of requests.
        self.commands = 0
        #: Leases whose new items cannot be added, with the error, and leases whose new items a full
        #: set refused.
        self.unfit: list[tuple[Any, Exception]] = []
        self.refused: list[Any] = []
        #: Members and tokens of leases that an error left unsettled.
        self.unsettled: set[tuple[bytes, bytes]] = set()
        #: The error of items whose decoding failed without their fault. They were released.
        self.unable: Exception | None = None
        #: Another error. All other requests were performed.
        self.error: Exception | None = None

    def note(self, error: Exception) -> None:
        """Keep the first error."""
        self.error = self.error or error

    def excuse(self, leases: list[Any], error: Exception) -> None:
        """Note that new items could not be added: the server is full, or another error."""
        if isinstance(error, Full) or out_of_memory(error):
            self.refused += leases
        else:
            self.note(error)
            self.unsettled.update((lease.member, lease.token) for lease in leases)


def await_exchange(ctx: Context, what: Exchange, ended: Callable[[], bool]) -> Operation[None]:
    """Perform an exchange without settlements until it leases an item, or the worker ends.

    It also returns when the set is finished, if the exchange asks for that.
    """
    yield from exchange(ctx, what)
    effect = wait_for(ctx, math.inf, what.ends, ended)
    while not (what.held or what.finished or what.error or what.unable):
        # Also after some time without a sign: a report travels with the exchange.
        effect.until = monotonic() + IDLE
        if not (yield effect) and ended():
            break
        what.renew()
        yield from exchange(ctx, what)


def exchange(ctx: Context, what: Exchange) -> Operation[None]:
    """Perform an exchange: all its requests in flight together, in one round trip."""
    what.begin()
    calls = what.calls
    ctx.reporter.consume()
    if what.guarded and what.done:
        answered = ctx.memory.tables
        what.forgot = not (yield from confirms(ctx, answered))
        what.commands += bool(answered)
        if what.forgot:
            ctx.memory.tables = set()
    if calls:
        yield from check_once(ctx)
        if not (yield from look_first(ctx, goes_on=True)):
            calls = []
    parts, large = yield from _acking_parts(ctx, what)
    trip = _Trip(ctx, what)
    trip.add_groups(what.rests, what.shared)
    for part in parts:
        trip.add_part(part)
    how = "release" if what.forgot else "ack"
    done = Settlement(how, [lease for lease in what.done if not lease.items])
    trip.add_settlements([done, *what.settlements])
    trip.add_lease_calls(calls)
    if what.ends:
        trip.add(to_send(end_of(ctx)), trip.read_end)
    yield from trip.perform()
    for lease in large:
        yield from _acknowledge_large(ctx, what, lease)


class _Trip:
    """The requests of an exchange, each with the method that takes its reply."""

    def __init__(self, ctx: Context, what: Exchange) -> None:
        self.ctx, self.what = ctx, what
        self._requests: list[tuple[Send, Callable[[Send, Any], Operation[None]]]] = []
        #: Tokens of lease calls, and the number of leases of each call.
        self._calls: list[tuple[bytes, int]] = []
        self._undecodable = 0
        # The held and the lost leases of each settlement.
        self._kinds: list[str] = []
        self._counts: list[int] = []
        self._lost: list[int] = []

    def add(self, send: Send, take: Callable[[Send, Any], Operation[None]]) -> None:
        self._requests.append((send, take))

    def add_groups(
        self, rests: Sequence[tuple[bytes, int]], shared: Mapping[str, Any] | None
    ) -> None:
        """Add rests of groups, and limits to share."""
        for group, time in rests:
            self.add(to_send(pausing_step(self.ctx, group, time)), self._note_error)
        if shared is not None:
            for at, ask in enumerate(sharing_steps(self.ctx, shared, LASTING)):
                self.add(to_send(ask), self._note_error if at else self._read_shares)

    def _note_error(self, send: Send, answer: Any) -> Operation[None]:
        if isinstance(answer, Refusal):
            answer = answer.error(self.ctx)
        if isinstance(answer, Exception):
            self.what.groups_error = self.what.groups_error or answer
        yield from ()

    def _read_shares(self, send: Send, answer: Any) -> Operation[None]:
        self.what.shares = answer == 1
        yield from self._note_error(send, answer)

    def add_part(self, part: _AckingPart) -> None:
        def take(send: Send, answer: Any) -> Operation[None]:
            what = self.what
            try:
                ours = yield from judged(part.adder, part.items, part.chunk, answer_of(answer))
            except Exception as error:
                what.excuse(part.leases, error)
            else:
                lost = 0 if send.resent else len(part.leases) - ours
                what.acknowledged += ours
                what.lost += lost
                self.ctx.reporter.count_settled("ack", ours, lost)

        self.add(part.adder.send(part.chunk), take)

    def add_settlements(self, settlements: Sequence[Settlement]) -> None:
        self._kinds = [each.how for each in settlements]
        self._counts, self._lost = [0] * len(settlements), [0] * len(settlements)
        for step in steps_of(settlements):
            self.add(send_step(self.ctx, step), self._taker_of(step))

    def _taker_of(self, step: SettleStep) -> Callable[[Send, Any], Operation[None]]:
        def take(send: Send, answer: Any) -> Operation[None]:
            if isinstance(answer, Exception):
                self.what.note(answer)
                self.what.unsettled.update(tokens_of_step(step))
            else:
                tally(step, send, answer, self._counts, self._lost)
            yield from ()

        return take

    def add_lease_calls(self, calls: Sequence[int]) -> None:
        hand = self.what.hand
        for num in calls:
            token = token_for(self.ctx, num)
            self._calls.append((token, num))
            ask = lease_call(self.ctx, token, num, self.what.ttl, hand, self.what.passes)
            self.add(to_send(ask), self._leases_taker(token, num))
            hand += num

    def _leases_taker(self, token: bytes, num: int) -> Callable[[Send, Any], Operation[None]]:
        def take(send: Send, answer: Any) -> Operation[None]:
            what = self.what
            if isinstance(answer, Exception):
                keep_unanswered(self.ctx, token, num)
            else:
                what.stopped = what.stopped or answer.stopped
            try:
                given = answer_of(answer)
                held, bad, unable = yield from decode_given(self.ctx, given, what.unable_delay)
            except Exception as error:
                what.note(error)
            else:
                what.held += held
                self._undecodable += bad
                what.unable = what.unable or unable

        return take

    def read_end(self, send: Send, answer: Any) -> Operation[None]:
        if isinstance(answer, Exception):
            self.what.note(answer)
        else:
            self.what.finished = answer.finished
        yield from ()

    def perform(self) -> Operation[None]:
        """Send the requests, and take their replies in order."""
        what = self.what
        what.commands += len(self._requests)
        try:
            answers = yield from in_flight([send for send, _ in self._requests])
        except BaseException:
            for token, num in self._calls:
                keep_unanswered(self.ctx, token, num)
            raise
        for (send, take), answer in zip(self._requests, answers, strict=True):
            yield from take(send, answer)
        for how, num, gone in zip(self._kinds, self._counts, self._lost, strict=True):
            self.ctx.reporter.count_settled(how, num, gone)
        what.acknowledged += self._counts[0]
        what.counts = self._counts[1:]
        # Leases that a renewal finds lost are counted when they are settled.
        lost = zip(self._lost, self._kinds, strict=True)
        what.lost += sum(num for num, how in lost if how != "renew")
        if self._undecodable >= ENOUGH and not what.held:
            what.note(none_of(self.ctx, self._undecodable))


def _acknowledge_large(ctx: Context, what: Exchange, lease: Any) -> Operation[None]:
    """Acknowledge a lease that has too many new items for one step."""
    try:
        ours = yield from acknowledge_with(ctx, [lease], lease.items, True, False, what.ttl)
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


class _AckingPart(NamedTuple):
    """Leases that are acknowledged in one step with their new items."""

    leases: list[Any]
    items: list[Any]
    adder: Adder
    chunk: Any


def _acking_parts(ctx: Context, what: Exchange) -> Operation[tuple[list[_AckingPart], list[Any]]]:
    """Cut new items into steps. Return these, and the leases that need more than one step."""
    parts: list[_AckingPart] = []
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
            # One step takes them. Leases of one call, with one token, are a group of the step.
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
        (step,) = steps_of([Settlement("ack", leases)])
        adder = Adder(ctx, Flags(), None, False, settling_of(ctx, step))
        yield from adder.prepare()
        chunks = encoded(adder, items, True)
        if chunks[-1].bad:
            wrong: dict[int, Exception] = {}
            for bad in chunks[-1].bad:
                wrong.setdefault(_owner_at(leases, bad.place), bad.error)
            what.unfit += [(leases[place], error) for place, error in wrong.items()]
            waiting = [lease for at, lease in enumerate(leases) if at not in wrong] + rest
            continue
        # A large item travels alone: the server may close the connection on it.
        if len(chunks) == 1 and not is_large(chunks[0]):
            parts.append(_AckingPart(leases, items, adder, chunks[0]))
        else:
            large += leases
        waiting = rest
    return parts, large


def _owner_at(leases: list[Any], place: int) -> int:
    """Return the lease whose items include the one at this position."""
    for at, lease in enumerate(leases):
        place -= len(lease.items)
        if place < 0:
            return at
    raise AssertionError("more items than were found")
