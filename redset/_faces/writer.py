"""Buffered producers: accepted items are written in the background, in the order of input.

Theory of operation. A call accepts an item: it checks and serialises the item, and puts it in a
queue. The background, a thread or a task, takes a `_NextPart` off the queue: adds first, then
acknowledgements. Adds with the same flags are one bulk call (`_Run`). A lease is acknowledged only
after all earlier adds are in the set. An add of an item whose acknowledgement is queued begins a
new part. After an error nothing more is written, since the order would change. The error has all
unwritten items.

Most single adds join the run at the queue's end, and need no decision. The core's `Intake` accepts
these without the writer's lock, in a third of the time. `_reopen` opens it for as many adds as may
come before the next decision. Any other use of the queue begins with `_collect`, which closes the
intake and counts its adds.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat
from typing import Any

from redset import _operations
from redset._faces.arguments import is_single_score, positive, refuse_single, seconds
from redset._faces.leases import LATE, Lease, leases_of
from redset._operations import adding
from redset._operations.adding import AddResult, Flags
from redset._operations.limits import RUN
from redset._operations.logs import one_line, warn_once
from redset._transport.coroutines import complete
from redset._transport.effects import Operation
from redset._transport.source import Source
from redset.exceptions import AddError

log = logging.getLogger("redset")

FORGOTTEN = "%r was cleared or has forgotten items: leases are released, not acknowledged"

#: Number of adds in a part. Callers that wait for room wake after each part.
_MOST = 2000
#: The longest wait, in seconds: that of a lock is limited.
_LONGEST = 3600.0
#: Number of adds after which other tasks run.
_TURN = 250

_open: set[Writing] = set()


#: An accepted item: its serialised form, its score (None: the server's time), and the item.
_Add = tuple[Any, float | None, Any]
#: The values of an add in the list of a run.
_WIDTH = 3
#: All whole numbers up to here are floats.
_WHOLE = 2**53


class _Run:
    """Adds for one bulk call: of the same flags, all with a score or none."""

    __slots__ = ("adds", "digests", "flags", "gaps", "scored", "skips", "table")

    def __init__(self, flags: Flags, scored: bool) -> None:
        self.flags = flags
        self.scored = scored
        #: The values of adds, one add after another. One list, since a signal handler that adds may
        #: run between any two changes. A tuple for each add would cost more: the garbage collector
        #: visits these.
        self.adds: list[Any] = []
        #: Number of gaps between the adds. A gap is the number of items that a table answered, and
        #: twice None.
        self.gaps = 0
        #: Whether tables may answer, and the known one among them with its generation.
        self.skips = False
        self.table: tuple[Any, int] | None = None
        #: The digests of its adds, if these are going to be known.
        self.digests = b""

    def fits(self, other: _Run) -> bool:
        return self.flags == other.flags and self.scored == other.scored

    def join(self, other: _Run) -> None:
        """Take the adds of a later run."""
        self.gaps += other.gaps
        self.adds += other.adds

    def size(self) -> int:
        """Return the number of adds and gaps."""
        return len(self.adds) // _WIDTH

    def pending(self) -> tuple[list[Any], list[Any], list[Any]]:
        """Return the serialised forms, the scores and the items of all adds."""
        adds = self.adds
        if self.gaps:
            places = [at for at in range(0, len(adds), _WIDTH) if type(adds[at]) is not int]
            adds = [value for at in places for value in adds[at : at + _WIDTH]]
        return adds[::_WIDTH], adds[1::_WIDTH], adds[2::_WIDTH]

    def count(self) -> int:
        """Return the number of adds."""
        return self.size() - self.gaps

    def cut(self, num: int) -> int:
        """Remove the first adds, and answered items up to the next add. Return their number."""
        items, entries = self._until(num)
        del self.adds[: _WIDTH * entries]
        self.gaps -= entries - num
        return items

    def place_of(self, num: int) -> int:
        """Return the number of items before an add."""
        return self._until(num)[0]

    def _until(self, num: int) -> tuple[int, int]:
        """Return the number of items before an add, and that of adds and gaps."""
        if not self.gaps:
            return num, num
        items = entries = 0
        for each in self.adds[::_WIDTH]:
            if type(each) is int:
                items += each
            elif num:
                num -= 1
                items += 1
            else:
                break
            entries += 1
        return items, entries


class _NextPart:
    """The next part to write: adds, then acknowledgements."""

    __slots__ = ("leases", "runs")

    def __init__(self) -> None:
        self.runs: deque[_Run] = deque()
        self.leases: list[Lease[Any]] = []

    def take(self, one: _Run | list[Lease[Any]]) -> None:
        if isinstance(one, list):
            self.leases += one
        elif self.runs and self.runs[-1].fits(one):
            self.runs[-1].join(one)
        else:
            self.runs.append(one)


class _Bulk:
    """A running bulk call of a writer."""

    __slots__ = ("ended", "error", "flags", "most", "position", "score", "source")

    def __init__(self, source: Source, score: float | None, flags: Flags, most: int) -> None:
        self.source, self.score, self.flags, self.most = source, score, flags, most
        #: Number of pulled items, whether there are more, and the error that ends the call early.
        self.position = 0
        self.ended = False
        self.error: Exception | None = None


def _with_gaps(adds: Iterable[_Add], places: list[int], num: int) -> Iterator[_Add]:
    """Yield adds, and between them the number of other items, by the places of the adds."""
    end = 0
    for place, add in zip(places, adds, strict=True):
        if place > end:
            yield place - end, None, None
        yield add
        end = place + 1
    if num > end:
        yield num - end, None, None


class Writing:
    """Base of the writers of both faces: the queue of accepted items, and its state.

    It does no I/O and never waits. Items are serialised when they are accepted. So a bad item is
    its caller's error, and later changes of the object have no effect.
    """

    def __init__(self, owner: Any, max_items: Any, max_delay: Any, max_pending: Any) -> None:
        max_items, max_pending = (
            positive("max_items", max_items),
            positive("max_pending", max_pending),
        )
        owner._open()
        # Loaded here: the background may first write while the interpreter ends.
        self._operating, self._settling = _operations.operating, _operations.settling
        self._streaming, self._known = _operations.streaming, _operations.known
        self._owner = owner
        self._ctx = owner._ctx
        self._sent = self._ctx.of_serialised()
        self._codec = self._ctx.codec
        #: Accepts most adds without the lock. None on the fallback, whose intake would need it.
        self._intake: Any = None
        if self._ctx.wire.IMPLEMENTATION == "cython":
            self._intake = self._ctx.wire.Intake(self._codec.key, self._codec.max_item_bytes)
        #: Number of adds that the intake accepted and `_collect` has counted.
        self._collected = 0
        self._flags: dict[tuple[Any, ...], Flags] = {}
        #: Whether the known table may answer adds with these flags: they refuse known items.
        self._answerable: dict[Flags, bool] = {}
        #: Of these, the flags of adds after which the item is known.
        self._plain: set[Flags] = set()
        #: Digests of queued adds that are going to be known.
        self._going = self._ctx.wire.Known(max_pending)
        self._max_pending: int = max_pending
        self._max_items = min(max_items, max_pending)
        self._max_delay = seconds("max_delay", max_delay, most=math.inf)
        #: Runs of adds, and lists of leases to acknowledge. None ends a part.
        self._queue: deque[_Run | list[Lease[Any]] | None] = deque()
        #: The run at the queue's end, if more adds may join it, and the number of adds and lists in
        #: the queue. True if it should be written at once, since a caller waits for room.
        self._last: _Run | None = None
        self._size = 0
        self._pressed = False
        #: Members whose acknowledgement is queued.
        self._acking: set[bytes] = set()
        self._part = _NextPart()
        #: The time at which the first queued item was accepted.
        self._since = math.inf
        #: Number of accepted adds and leases, and its limit. Each side changes one of them.
        self._accepted: int = 0
        self._limit: int = max_pending
        self._written = 0
        self._result = AddResult()
        self._state = ""
        self._failure: AddError | None = None
        #: True after a call raised the failure, or it was logged.
        self._reported = False
        #: True if the caller was interrupted while leaving, so that no caller waits for the end.
        self._abandoned = False
        #: True if the background has ended.
        self._over = False
        #: The error that each call raises, if nothing is accepted.
        self._barred: Exception | None = RuntimeError("a writer is used inside of its with block")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._owner!r}>"

    # Accepting.

    def _check(self) -> None:
        """Raise the error, if nothing is accepted."""
        if self._barred is not None:
            self._reported = self._barred is self._failure
            # Without its traceback: it may be raised many times.
            raise self._barred.with_traceback(None)

    def _held(self, leases: Any) -> list[Lease[Any]]:
        """Return the leases to acknowledge, checked."""
        self._check()
        return leases_of(self._owner, leases)

    def _flags_of(self, given: tuple[Any, ...]) -> Flags:
        """Check the flags of an add."""
        if self._barred is not None:
            self._check()
        flags = Flags(*given)
        flags.check()
        if flags.remember is not None:
            flags.check_remember(self._ctx)  # 0 equals False, and may not be
        if flags not in self._flags:
            condition = flags.condition(self._ctx)
            self._flags[flags] = flags
            plain = condition in ("", "nx") and not flags.again and flags.remember is not False
            self._answerable[flags] = plain
            if plain and condition == "":
                self._plain.add(flags)
        return flags

    def _score_of(self, item: Any, score: Any) -> float | None:
        """Check a score, or ask the scorer for it; None if that is the server's clock."""
        found = adding.score_for(self._ctx, item, score)
        if found is None:
            self._sent.codec.scorer = self._ctx.codec.scorer
        return found

    def _add_of(self, item: Any, score: Any, given: tuple[Any, ...]) -> tuple[Flags, _Add]:
        """Check an add's arguments, and serialise its item."""
        if self._barred is not None:
            self._check()
        try:
            flags = self._flags.get(given) if given[-1] is None else None
        except TypeError:  # a flag without a hash
            flags = None
        if flags is None:
            flags = self._flags_of(given)
        # A short path for the fallback, which saves a tenth: most scores are floats or small ints.
        ties = self._ctx.options.ties
        if type(score) is int and -_WHOLE < score < _WHOLE and not ties:
            score = float(score)
        elif type(score) is not float or score != score or ties:
            score = self._score_of(item, score)
        if self._codec.key is not None:
            return flags, (self._codec.serialise(item), score, item)
        codec = self._codec
        sent = self._ctx.wire.payload(item, codec.dumps, codec.max_item_bytes, codec.warn)
        return flags, (sent, score, item)

    def _bulk_of(self, items: Any, score: Any, given: tuple[Any, ...]) -> _Bulk:
        """Check a bulk call's arguments."""
        flags = self._flags_of(given)
        refuse_single("items", items, self._owner._iterables)
        scores = None
        if score is not None:
            if is_single_score(score):
                score = self._ctx.scores.parse(score)
            else:
                scores, score = score, None
        return _Bulk(Source(items, scores), score, flags, min(RUN, self._max_pending))

    def _run_of(
        self, bulk: _Bulk, items: list[Any], scores: list[Any] | None, tabled: bool = True
    ) -> _Run:
        """Serialise items that were pulled, without those that the known table answers.

        An item that cannot be added ends the call after the items before it.
        """
        bulk.ended = not items or (bulk.source.even and len(items) < bulk.most)
        run = _Run(bulk.flags, True)
        try:
            self._serialise(bulk, run, items, scores, tabled)
        except Exception:  # a check of each item names the bad one
            run = self._checked_run(bulk, items, scores)
        return run

    def _serialise(
        self, bulk: _Bulk, run: _Run, items: list[Any], scores: list[Any] | None, tabled: bool
    ) -> None:
        codec, memory, table = self._ctx.codec, self._sent.memory, None
        run.skips = tabled and memory.tabled and self._answerable[bulk.flags]
        if run.skips and memory.trust is not None:
            table = self._owner._open().run_offline(self._known.trusted_table(self._sent))
            # Read before the look-up: a table that is emptied later has another generation.
            run.table = None if table is None else (table, table.generation)
        # A short path for what a crawl repeats before the server has answered: an add of a queued
        # item is refused right after that item is written. It takes half of the time of a page.
        going = self._going if run.skips else None
        sent, places = codec.serialise_many(items, table, time.monotonic(), going)
        if run.skips and bulk.flags in self._plain:
            run.digests = codec.digests_of(sent)
        num = len(items)
        if len(places) < num:
            items = [items[place] for place in places]
            scores = None if scores is None else [scores[place] for place in places]
        found = self._ctx.score_many(items, bulk.score, scores)
        run.scored = found is not None
        if not run.scored:
            self._sent.codec.scorer = codec.scorer
        adds: Iterable[_Add]
        adds = zip(sent, repeat(None) if found is None else found, items, strict=False)
        if len(places) < num:
            adds = _with_gaps(adds, places, num)
        run.adds += chain.from_iterable(adds)
        run.gaps = run.size() - len(places)

    def _checked_run(self, bulk: _Bulk, items: list[Any], scores: list[Any] | None) -> _Run:
        """Serialise items one by one, up to one that cannot be added."""
        run = _Run(bulk.flags, True)
        for place, item in enumerate(items):
            try:
                score = self._score_of(item, bulk.score if scores is None else scores[place])
                run.adds += self._ctx.codec.serialise(item), score, item
                run.scored = score is not None
            except Exception as error:
                bulk.error, bulk.ended = error, True
                if isinstance(error, (TypeError, ValueError)):
                    kind = TypeError if isinstance(error, TypeError) else ValueError
                    bulk.error = kind(f"item {bulk.position + place}: {error}")
                    bulk.error.__cause__ = error
                break
        return run

    def _wants(self, num: int) -> bool:
        """Return whether to wait for room for so many adds. The queue is then written at once."""
        self._collect()
        wants = self._accepted + num > self._limit and self._barred is None
        self._pressed = self._pressed or wants
        return wants

    def _is_at_limit(self) -> bool:
        """Return whether an add or acknowledgement waits for room."""
        self._collect()
        return self._accepted >= self._limit and self._barred is None

    def _collect(self) -> None:
        """Close the intake, and count the adds that it accepted."""
        if self._intake is None:
            return
        # No call separates the sums: a signal handler runs between calls, and may collect or raise.
        num = self._intake.close() - self._collected
        self._collected += num
        self._accepted += num
        self._size += num

    def _reopen(self) -> None:
        """Open the intake for adds that join the last run, up to the next one that needs more."""
        if self._intake is None:
            return
        self._collect()
        run, size = self._last, self._size
        if run is None or not run.scored or self._acking or self._ctx.options.ties:
            return
        accepted = self._accepted
        room = min(self._limit - accepted, _MOST - run.size())
        room = min(room, _TURN - accepted % _TURN)
        if size < self._max_items:
            room = min(room, self._max_items - size)
        if self._last is not run or self._accepted != accepted:
            return  # a signal handler added in between, and opened it
        if room > 1 and self._barred is None:
            self._intake.open(run.adds, run.flags, self._codec, room - 1)

    def _put(self, flags: Flags, add: _Add) -> bool:
        """Accept an add. Return whether the background should wake."""
        wakes = bool(self._acking) and self._part_from_acks((add[0],))
        run = self._last
        scored = add[1] is not None
        if run is None or run.flags is not flags or run.scored is not scored or self._is_full(run):
            run = _Run(flags, scored)
            wakes = self._append(run) or wakes
            self._last = run
        run.adds += add
        self._accepted += 1
        self._size += 1
        wakes = wakes or self._size == self._max_items or self._accepted >= self._limit
        self._reopen()
        return wakes

    def _put_run(self, bulk: _Bulk, run: _Run, given: tuple[list[Any], Any]) -> bool:
        """Accept a run of adds. Return whether the background should wake."""
        memory = self._sent.memory
        if run.skips and not (memory.tabled and memory.tables is not None):
            # An acknowledgement came between.
            error = bulk.error
            run = self._run_of(bulk, *given, tabled=False)
            bulk.error = bulk.error or error
        elif run.table is not None and memory.tables is not None:
            memory.tables.add(run.table)
        # Measured first: an add of a signal handler may join it as soon as it is in the queue.
        size, adds = run.size(), run.count()
        wakes = bool(self._acking) and self._part_from_acks(run.pending()[0])
        last = self._last
        if last is not None and last.fits(run) and not self._is_full(last):
            last.join(run)
        elif size:
            wakes = self._append(run) or wakes
            self._last = run
        if run.digests:
            # Only now: another thread's add of the same item may count on these.
            self._going.learn(run.digests, math.inf, self._going.generation)
        self._accepted += adds
        self._size += size
        wakes = wakes or self._size - size < self._max_items <= self._size
        bulk.position += len(given[0])
        self._reopen()
        return wakes or self._accepted >= self._limit

    def _put_acks(self, leases: list[Lease[Any]]) -> bool:
        """Accept acknowledgements, if there are any. Return whether the background should wake."""
        if not leases:
            return False
        self._acking.update(lease.member for lease in leases)
        for lease in leases:
            lease.settled = True
        num = len(leases)  # no call within the sum, as in _collect()
        self._accepted += num
        # As with ack(add=): from here on the known table does not answer adds.
        self._sent.memory.tabled = False
        wakes = self._append(leases)
        self._last = None
        self._collect()  # no add joins a run before them
        self._size += 1
        return wakes or self._size == self._max_items or self._accepted >= self._limit

    def _part_from_acks(self, sent: Iterable[Any]) -> bool:
        """Write acknowledgements before adds of their items. Return whether there are any."""
        # An add after its item's acknowledgement adds another item than an add before it.
        member_of, acking = self._ctx.codec.member_of, self._acking
        if not any(member_of(each) in acking for each in sent):
            return False
        # Cleared last: a signal handler may add in between.
        self._queue.append(None)
        self._last = None
        acking.clear()
        return True

    def _is_full(self, run: _Run) -> bool:
        return run.size() >= _MOST

    def _append(self, one: _Run | list[Lease[Any]]) -> bool:
        """Append to the queue. Return whether it was empty."""
        # Asked first: a signal handler may add at the end of a call, and sees that it is not empty.
        was_empty = not self._queue
        self._queue.append(one)
        if was_empty:
            self._since = time.monotonic()
        return was_empty

    # The background.

    def _left(self) -> float:
        """Return the time until the next part is due, in seconds."""
        self._collect()
        if self._part.runs or self._part.leases or self._state != "entered":
            return 0.0
        if not self._queue:
            return _LONGEST
        if self._size >= self._max_items or self._accepted >= self._limit or self._pressed:
            return 0.0
        return min(self._since + self._max_delay - time.monotonic(), _LONGEST)

    def _next(self) -> _NextPart | None:
        """Return the unfinished part, or the next part of the queue; None at the end."""
        self._collect()
        part, queue = self._part, self._queue
        if self._failure is not None:
            return None
        if not (part.runs or part.leases):
            num = 0
            # Items that are sent may be known, and forgotten again, before the next add.
            self._going.clear()
            while queue and num < _MOST:
                one = queue.popleft()
                if one is None:
                    break
                num += 1 if isinstance(one, list) else one.size()
                part.take(one)
            # Again: a destructor may have added in between, to a run that is in the part now.
            self._collect()
            self._size -= num
            if not queue:
                self._last, self._pressed = None, False
                self._acking.clear()
                if self._state != "entered" and not (part.runs or part.leases):
                    return None
        return part

    def _write(self, part: _NextPart) -> Operation[None]:
        """Write a part: one run after another, then the acknowledgements."""
        while part.runs:
            run = part.runs[0]
            sent, scores, _ = run.pending()
            pulled = sent, scores if run.scored else None
            result = AddResult()
            try:
                if sent:
                    result = yield from self._streaming.add_stream(
                        self._sent, None, run.flags, "raise", True, False, (), pulled
                    )
            except AddError as error:
                self._count(run, error.resume_at, error.result)
                raise
            self._count(run, len(sent), result)
            part.runs.popleft()
        if part.leases:
            how, name = "ack", self._ctx.name
            if not (yield from self._known.still_known(self._sent)):
                # The jobs of these leases are repeated, and find their items again.
                how = "release"
                warn_once(name, FORGOTTEN, name)
            settlement = self._settling.Settlement(how, part.leases)
            lost = (yield from self._settling.settle(self._ctx, [settlement])).lost
            if lost:
                warn_once(name, LATE, lost, name)
            self._limit += len(part.leases)
            part.leases = []

    def _count(self, run: _Run, num: int, result: AddResult) -> None:
        """Remove the written adds from the beginning of a run, and count them."""
        items = run.cut(num)
        self._written += items
        result = result._replace(refused=result.refused + items - num)
        self._result = AddResult(*map(sum, zip(self._result, result, strict=True)))
        self._limit += num

    def _fail(self, error: BaseException) -> None:
        """Accept nothing more: later items must not be written before the failed one."""
        self._collect()
        rest = self._part
        for one in self._queue:
            if one is not None:
                rest.take(one)
        unwritten: list[tuple[Any, Any]] = []
        for run in rest.runs:
            _, scores, items = run.pending()
            unwritten += zip(items, scores, strict=True)
        lost = f"{len(unwritten)} items"
        if rest.leases:
            lost += f" and {len(rest.leases)} acknowledgements"
        kind, cause = AddError, error
        number: int | None = None
        item: Any = None
        if isinstance(error, AddError):
            kind, cause = type(error), error.__cause__ or error
            if error.index is not None:
                # Items before ``resume_at`` are written, and are no longer in the run.
                place = error.index - error.resume_at
                run = rest.runs[0]
                number, item = self._written + run.place_of(place), run.pending()[2][place]
        failure = kind(
            f"{lost} of {self._ctx.name!r} were not written: {str(cause) or type(cause).__name__}",
            result=self._result,
            resume_at=self._written,
            index=number,
            item=item,
            unwritten=unwritten,
        )
        failure.__cause__ = cause
        self._queue.clear()
        self._last = None
        self._part = _NextPart()
        self._failure = self._barred = failure
        self._collect()  # a destructor may have added since the first line

    # Its beginning and end.

    def _enter(self) -> None:
        if self._state:
            raise RuntimeError("a writer is entered once")
        self._state = "entered"
        self._barred = None

    def _end(self) -> None:
        """Accept nothing more, and let the background write the accepted items."""
        self._state = "left"
        self._barred = self._failure or RuntimeError("the writer was left")
        self._collect()

    def _leave(self, error: BaseException | None) -> None:
        """Raise the failure, or log it if the caller's block raised an error of its own."""
        _open.discard(self)
        failure = self._failure
        if failure is None or failure is error:
            return
        self._reported = True
        if error is None:
            raise failure.with_traceback(None)
        log.error("%s", one_line(str(failure)))

    def _ended(self) -> None:
        """Note that the background has ended: the remaining queue is not written."""
        self._over = True
        self._give_up("the background of the writer was ended")
        if self._abandoned:
            _open.discard(self)
            self._report()

    def _abandon(self) -> None:
        """Note that no caller waits for the end."""
        self._abandoned = True
        if self._over:
            self._ended()

    def _pending(self) -> int:
        """Return the number of accepted adds and leases that are not written."""
        self._collect()
        return self._accepted - (self._limit - self._max_pending)

    def _give_up(self, why: str) -> None:
        """Fail if accepted items are unwritten, since they will not be written."""
        if self._failure is None and self._pending() > 0:
            self._fail(RuntimeError(why))

    def _report(self) -> None:
        """Log the failure, unless a call raised it."""
        if self._failure is not None and not self._reported:
            self._reported = True
            log.error("%s", one_line(str(self._failure)))

    def _fork(self) -> None:
        """Empty the queue in a forked child: the parent writes the accepted items."""
        self._state = "forked"
        self._barred = RuntimeError(
            "the writer belongs to the parent process: call buffered() again in the child"
        )
        self._collect()
        self._queue.clear()
        self._last = None
        self._part = _NextPart()

    def _exit(self) -> None:
        """Report unwritten items at the end of the interpreter."""
        self._give_up("its event loop ended before the writer was left")
        self._report()


class ThreadWriting(Writing):
    """Base of the writer of a sync set, which writes in a thread."""

    def __init__(self, owner: Any, max_items: Any, max_delay: Any, max_pending: Any) -> None:
        super().__init__(owner, max_items, max_delay, max_pending)
        self._make_locks()
        self._thread = threading.Thread(
            target=self._work, name=f"redset writer of {self._ctx.name!r}", daemon=True
        )
        #: Set at the end of the thread. An interrupted `Thread.join` takes a running thread for an
        #: ended one (CPython 3.10 to 3.12).
        self._done = threading.Event()
        #: True while a call changes the queue.
        self._changing = False

    def _make_locks(self) -> None:
        # A signal handler or a destructor may add while its thread is adding.
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)

    def _add(self, item: Any, score: Any, given: tuple[Any, ...]) -> None:
        if self._intake and self._intake.put(item, score, given, self._codec):
            return
        flags, add = self._add_of(item, score, given)
        with self._lock:
            while self._is_at_limit() and self._may_wait():
                self._room.wait()
            self._accept(self._put, flags, add)

    def _add_many(self, items: Any, score: Any, given: tuple[Any, ...]) -> None:
        bulk = self._bulk_of(items, score, given)
        while not bulk.ended:
            pulled = complete(bulk.source.pull(bulk.most))
            run = self._run_of(bulk, *pulled)
            with self._lock:
                while self._wants(run.count()) and self._may_wait():
                    self._wake.notify()
                    self._room.wait()
                self._accept(self._put_run, bulk, run, pulled)
        if bulk.error is not None:
            raise bulk.error

    def _ack(self, leases: Any) -> None:
        held = self._held(leases)
        with self._lock:
            while self._is_at_limit() and self._may_wait():
                self._room.wait()
            self._accept(self._put_acks, held)

    def _may_wait(self) -> bool:
        """Return whether a call may wait for room. Called with the lock.

        A signal handler or a destructor may not if it interrupts a call that is changing the queue:
        the wait would give up the lock of that call, too. In the own thread of the writer, it
        would wait for itself.
        """
        return not self._changing and threading.current_thread() is not self._thread

    def _accept(self, put: Callable[..., bool], *what: Any) -> None:
        """Put something into the queue. Called with the lock."""
        outer, self._changing = self._changing, True
        try:
            self._check()
            wakes = put(*what)
        finally:
            self._changing = outer
        if wakes:
            self._wake.notify()

    def _work(self) -> None:
        try:
            try:
                self._go_on()
            except BaseException as error:  # otherwise the thread would end without a report
                with self._lock:
                    self._fail(error)
            with self._lock:
                self._ended()
                self._room.notify_all()
        finally:
            self._done.set()

    def _go_on(self) -> None:
        while True:
            with self._lock:
                while (left := self._left()) > 0:
                    self._wake.wait(left)
                part = self._next()
            if part is None:
                if self._failure is None:
                    with contextlib.suppress(Exception):
                        self._owner._run(self._operating.report(self._ctx))
                return
            try:
                self._owner._run(self._write(part), Source((), None))
            except BaseException as error:
                with self._lock:
                    self._fail(error)
            with self._lock:
                self._room.notify_all()

    def _begin(self) -> None:
        self._enter()
        self._thread.start()
        _open.add(self)

    def _close(self, error: BaseException | None) -> None:
        if self._state == "forked":
            return
        self._finish()
        self._leave(error)

    def _finish(self) -> None:
        with self._lock:
            self._end()
            self._wake.notify()
            self._room.notify_all()
        try:
            self._done.wait()
        except BaseException:
            # The thread goes on by itself.
            with self._lock:
                self._abandon()
            raise

    def _fork(self) -> None:
        super()._fork()
        self._make_locks()  # another thread may have held them

    def _exit(self) -> None:
        self._finish()
        super()._exit()


class TaskWriting(Writing):
    """Base of the writer of an asyncio set, which writes in a task.

    If its event loop is closed before it was left, the accepted items are written first.
    """

    def __init__(self, owner: Any, max_items: Any, max_delay: Any, max_pending: Any) -> None:
        super().__init__(owner, max_items, max_delay, max_pending)
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        #: Number of items since other tasks ran.
        self._turn = 0

    async def _add(self, item: Any, score: Any, given: tuple[Any, ...]) -> None:
        if self._intake and self._intake.put(item, score, given, self._codec):
            return
        flags, add = self._add_of(item, score, given)
        while self._is_at_limit():
            self._room.clear()
            await self._room.wait()
        self._check()
        if self._put(flags, add):
            self._wake.set()
        if self._accepted % _TURN == 0:
            await asyncio.sleep(0)  # the caller may never await anything else

    async def _add_many(self, items: Any, score: Any, given: tuple[Any, ...]) -> None:
        bulk = self._bulk_of(items, score, given)
        try:
            while not bulk.ended:
                pulled = await bulk.source.pull(bulk.most)
                run = self._run_of(bulk, *pulled)
                while self._wants(run.count()):
                    self._wake.set()
                    self._room.clear()
                    await self._room.wait()
                self._check()
                if self._put_run(bulk, run, pulled):
                    self._wake.set()
                self._turn += len(pulled[0])
                if self._turn >= _TURN:
                    self._turn = 0
                    await asyncio.sleep(0)
        finally:
            await bulk.source.close()
        if bulk.error is not None:
            raise bulk.error

    async def _ack(self, leases: Any) -> None:
        held = self._held(leases)
        while self._is_at_limit():
            self._room.clear()
            await self._room.wait()
        self._check()
        if self._put_acks(held):
            self._wake.set()

    async def _work(self) -> None:
        try:
            try:
                await self._go_on()
            except asyncio.CancelledError:
                # The loop is closing, and waits for its tasks.
                self._end()
                await self._go_on()
        except asyncio.CancelledError as error:
            self._fail(error)
            raise

    async def _go_on(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while (left := self._left()) > 0:
                self._wake.clear()
                alarm = loop.call_later(left, self._wake.set)
                try:
                    await self._wake.wait()
                finally:
                    alarm.cancel()
            part = self._next()
            if part is None:
                if self._failure is None:
                    with contextlib.suppress(Exception):
                        await self._owner._run(self._operating.report(self._ctx))
                return
            try:
                await self._owner._run(self._write(part), Source((), None))
            except Exception as error:
                self._fail(error)
            self._room.set()

    async def _begin(self) -> None:
        self._enter()
        self._task = asyncio.create_task(self._work())
        self._task.add_done_callback(self._done)
        _open.add(self)
        try:
            await asyncio.sleep(0)  # a task that has begun writes the queue when it is cancelled
        except asyncio.CancelledError:
            self._abandon()
            self._end()
            self._wake.set()
            raise

    def _done(self, task: asyncio.Task[None]) -> None:
        # This callback was registered first, so it runs before the tasks that wait for this one.
        self._ended()
        self._room.set()

    async def _close(self, error: BaseException | None) -> None:
        if self._state == "forked":
            return
        assert self._task is not None
        self._end()
        self._wake.set()
        self._room.set()
        try:
            await asyncio.wait((self._task,))
        except asyncio.CancelledError:
            # The task goes on by itself.
            self._abandon()
            raise
        self._leave(error)


def _at_exit() -> None:
    for writer in list(_open):
        writer._exit()


def _in_child() -> None:
    for writer in _open:
        writer._fork()
    _open.clear()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
