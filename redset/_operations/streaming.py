"""Bulk adds: a stream of items in chunks, with a window of chunks in flight.

Theory of operation
-------------------

Items pass four stations, in their order::

    waiting   batches of items that were pulled, not encoded yet
    ready     encoded chunks of the batch at the front, not sent yet
    flying    chunks that were sent and have no reply yet: the window
    begun     batches that are encoded, until each of their chunks has a reply

`_Stream._next_step` chooses the next step. Each step does one thing to one batch or chunk.

- Pull: a steady source (a list) is pulled while chunks are in flight. Any other source may run the
  caller's code, which may be slow or use the same client. It is pulled with nothing in flight.
- Another epoch: if the set was cleared, or another process chose its epoch, the server refuses a
  chunk and all chunks after it. Their replies are read, and their batches are encoded again.
- Failure: nothing is encoded after it. Replies of chunks in flight are read, so that `AddError` has
  the position that the server has reached. Of several failures the one at the lowest position
  counts.
- A large item travels alone. If the server closes the connection, nothing else was in flight, and
  the error can name the item.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, NamedTuple

from redset._operations.adding import (
    Adder,
    AddResult,
    Flags,
    OnError,
    OtherEpoch,
    SettleArguments,
    is_large,
)
from redset._operations.context import Context
from redset._operations.errors import NOT_OF_ITEM, error_text
from redset._operations.known import Trust, check_memory, learn
from redset._operations.limits import CHUNK_BYTES, WINDOW
from redset._operations.logs import warn_once
from redset._operations.operating import report
from redset._operations.reporting import BAD, REFUSED
from redset._operations.scores import Clock
from redset._operations.skipping import without_queued
from redset._operations.taking import end_of
from redset._transport.effects import READ, Ask, Emit, Operation, Pull, Read, outsized
from redset._wire.values import got
from redset.exceptions import AddError, Full, OptionsDiffer, _FullAddError, _OptionsAddError

#: Chunks after which a call ends with a report.
LONG = 8
#: The outcome of an added item, among those of a chunk.
ADDED = ord("a")


def add_stream(
    ctx: Context,
    score: Any,
    flags: Flags,
    errors: str | OnError,
    steady: bool,
    emit: bool,
    settling: Sequence[SettleArguments] = (),
    pulled: tuple[list[Any], list[Any] | None] = ([], None),
    more: bool = True,
) -> Operation[AddResult]:
    """Add the items that Pull brings, in chunks, a window of them in flight.

    Args:
        score: A number for all items, the clock of a delay, or None for the scorer.
        steady: Whether the source may be pulled while chunks are in flight.
        emit: Whether to emit the items that were added, as the replies to their chunks come.
        settling: Settlements. Each chunk is a step with the first of these that has a held lease.
        pulled: Items and scores that were pulled before.
        more: Whether Pull brings more than ``pulled``.
    """
    if not ((isinstance(errors, str) and errors in ("raise", "skip")) or callable(errors)):
        raise ValueError(f"errors must be 'raise', 'skip' or a callable, {got(errors)}")
    clock: Any = None
    scorer = ctx.codec.scorer if score is None else score
    if isinstance(scorer, Clock):
        clock = scorer
    elif score is not None:
        score = ctx.scores.parse(score)
    adder = Adder(ctx, flags, score, emit, settling[0] if settling else None, settling[1:])
    stream = _Stream(adder, clock, errors, steady, emit, pulled, more)
    result = yield from stream.run()
    if ctx.reporter.is_new or stream.requests >= LONG:
        yield from report(ctx)
    if ctx.options.remember and ctx.memory.fresh and stream.position and more and not settling:
        ctx.memory.fresh = False
        if result.refused == stream.position and "xx" not in adder.condition:
            yield from _tell_if_finished(ctx, result)
    return result


def stream_encoded(
    adder: Adder,
    items: list[Any],
    scores: list[Any] | None,
    chunks: list[Any],
    trust: Trust | None,
    generation: int,
) -> Operation[AddResult]:
    """Add a list that was encoded already, as `add_stream` does. It is not encoded again."""
    stream = _Stream(adder, None, "raise", True, False, ([], None), False)
    return stream.run_encoded(items, scores, chunks, trust, generation)


class _Batch:
    """A run of the caller's items, kept until all of them are acknowledged, and its results.

    If the set gets another epoch in between, the batch is encoded again as a whole. The set was
    then cleared, so earlier acknowledgements do not count.
    """

    __slots__ = ("counts", "found", "items", "judged", "left", "outsized", "scores", "start")

    def __init__(self, start: int, items: list[Any], scores: list[Any] | None) -> None:
        self.start = start
        self.items = items
        self.scores = scores
        #: True after its bad items were raised or skipped.
        self.judged = False
        #: Places of items that are too large for the server.
        self.outsized: set[int] = set()
        self.begin(0)

    def begin(self, chunks: int) -> None:
        """Begin with so many chunks, none of them acknowledged."""
        self.left = chunks
        self.counts = [0, 0, 0]
        #: Places of items that were added.
        self.found: list[int] = []

    def count(self, added: int, updated: int, refused: int) -> None:
        self.left -= 1
        self.counts[0] += added
        self.counts[1] += updated
        self.counts[2] += refused


class _FlyingChunk:
    """A chunk of a batch, and the table that learns from its reply."""

    __slots__ = ("batch", "chunk", "generation", "sent", "trust")

    def __init__(self, batch: _Batch, chunk: Any, trust: Trust | None, generation: int) -> None:
        self.batch = batch
        self.chunk = chunk
        self.trust = trust
        self.generation = generation
        self.sent = 0.0


class _Stream:
    """One bulk add under way (see the theory of operation above)."""

    def __init__(
        self,
        adder: Adder,
        clock: Any,
        errors: str | OnError,
        steady: bool,
        emit: bool,
        pulled: tuple[list[Any], list[Any] | None],
        more: bool,
    ) -> None:
        self._adder, self._ctx, self._clock = adder, adder.ctx, clock
        self._errors, self._skips = errors, errors != "raise"
        self._steady, self._emits = steady, emit
        self._pulled, self._more = pulled, more
        self._waiting: deque[_Batch] = deque()
        self._begun: deque[_Batch] = deque()
        self._ready: deque[_FlyingChunk] = deque()
        self._flying: deque[_FlyingChunk] = deque()
        #: Numbers of added, updated, refused and failed items, and the added ones not emitted yet.
        self._counts = [0, 0, 0, 0]
        self._added: list[Any] = []
        self._failure: _EarlyEnd | None = None
        #: Number of items that were pulled, and of chunks that were sent.
        self.position = self.requests = 0
        self._ended = self._prepared = False
        #: The effect that brings the next reply. For a chunk that travels alone it also sends it.
        self._awaited: Ask | Read = READ

    def run_encoded(
        self,
        items: list[Any],
        scores: list[Any] | None,
        chunks: list[Any],
        trust: Trust | None,
        generation: int,
    ) -> Operation[AddResult]:
        """Add items that the adder has encoded already, and no others."""
        self.position, self._ended, self._prepared = len(items), True, True
        self._take(_Batch(0, items, scores), chunks, trust, generation)
        return self.run()

    def run(self) -> Operation[AddResult]:
        """Add all items."""
        while True:
            if self._added and not self._flying:
                yield from self._emit()
            step = self._next_step()
            if step is None:
                break
            yield from step()
        for batch in self._begun:
            self._settle(batch)
        if self._added:
            yield from self._emit()
        result = AddResult(*self._counts)
        if self._failure is not None:
            raise self._failure.error(result) from self._failure.cause
        return result

    def _next_step(self) -> Callable[[], Operation[None]] | None:
        """Return the next step, or None at the end."""
        waiting, ready, flying = self._waiting, self._ready, self._flying
        if not (waiting or ready) and self._is_open():
            return self._pull
        if waiting and not self._prepared:
            return self._prepare
        stale = bool(waiting) and self._clock is not None and self._clock.stale()
        if stale and not (flying or ready):
            return self._refresh_clock
        if not self._has_room():
            return self._read
        if ready:
            return self._read if flying and is_large(ready[0].chunk) else self._send
        if waiting and not stale:
            return self._encode
        return self._read if flying else None

    def _is_open(self) -> bool:
        """Whether more items may be pulled now."""
        is_over = self._ended or self._failure is not None
        return not is_over and (self._steady or not self._flying)

    def _has_room(self) -> bool:
        flying = self._flying
        return len(flying) < self._adder.window and not (flying and is_large(flying[0].chunk))

    # The steps.

    def _pull(self) -> Operation[None]:
        run = self._adder.run
        num = run if self._steady else max(run, self._adder.chunk * WINDOW)
        try:
            if self._pulled[0]:
                (items, scores), self._pulled = self._pulled, ([], None)
                self._ended = not self._more
            else:
                items, scores = yield Pull(num)
                # A list that brought fewer items has no more. One more pull checks its scores.
                self._ended = self._steady and scores is None and len(items) < num
        except Exception as error:
            self._ended = True
            self._fail(self.position, error)
            return
        if not items:
            self._ended = True
        elif len(items) <= run:
            self._waiting.append(_Batch(self.position, items, scores))
        else:
            for at in range(0, len(items), run):
                own = scores[at : at + run] if scores is not None else None
                self._waiting.append(_Batch(self.position + at, items[at : at + run], own))
        self.position += len(items)

    def _prepare(self) -> Operation[None]:
        try:
            yield from self._adder.prepare()
        except Exception as error:
            self._fail(self._waiting[0].start, error)
        else:
            self._prepared = True

    def _refresh_clock(self) -> Operation[None]:
        try:
            yield from self._clock.refresh(self._ctx)
        except Exception as error:
            self._fail(self._waiting[0].start, error)

    def _encode(self) -> Operation[None]:
        """Encode the next batch, except for items that the known table answers."""
        trust, due = yield from self._adder.look(len(self._waiting[0].items))
        if due and self._flying:
            if trust is None:
                # The check is sent after the replies to all chunks in flight were read.
                yield from self._read()
                return
        elif due:
            try:
                trust = yield from check_memory(self._ctx)
            except Exception as error:
                self._fail(self._waiting[0].start, error)
                return
        batch = self._waiting.popleft()
        chunks, trust, generation = self._adder.encode(
            batch.items, batch.scores, self._skips, trust
        )
        self._take(batch, chunks, trust, generation)

    def _take(self, batch: _Batch, chunks: list[Any], trust: Trust | None, generation: int) -> None:
        """Make the chunks of a batch ready to be sent."""
        self._judge_bad(batch, chunks[-1].bad)
        self._ready.extend(
            _FlyingChunk(batch, chunk, trust, generation) for chunk in chunks if chunk.entries
        )
        batch.begin(len(self._ready))
        self._begun.append(batch)
        if not self._ready:
            # All good items are known already.
            batch.counts[2] = chunks[-1].good
            self._ctx.reporter.count(REFUSED, chunks[-1].good)
            self._settle_first()

    def _send(self) -> Operation[None]:
        part = self._ready.popleft()
        if self._adder.skips:
            try:
                part.chunk = yield from without_queued(self._adder, part.chunk)
            except Exception as error:
                self._end(part.batch.start, error)
                return
            if not part.chunk.entries:
                rest = self._adder.without_entry(part.chunk)
                self._ctx.reporter.count_adds(0, *rest)
                part.batch.count(0, *rest)
                self._settle_first()
                return
        part.sent = monotonic()
        is_last = self._ended and not (self._waiting or self._ready or self._flying)
        self._flying.append(part)
        self.requests += 1
        if is_last or is_large(part.chunk):
            self._awaited = self._adder.ask(part.chunk)
            return
        try:
            yield self._adder.send(part.chunk)
        except Exception as error:
            self._end(self._flying[0].batch.start, error)
            self._flying.clear()

    def _read(self) -> Operation[None]:
        part = self._flying.popleft()
        batch, chunk = part.batch, part.chunk
        asked, self._awaited = self._awaited, READ
        try:
            reply = yield asked
            added, updated, refused, outcomes, lasting = self._adder.judge(chunk, reply)
        except OtherEpoch as other:
            yield from self._begin_again(batch, other)
            return
        except Exception as error:
            self._judge_lost(part, error)
            return
        batch.count(added, updated, refused)
        if self._emits and added:
            marked = zip(chunk.places, outcomes, strict=True)
            batch.found += [place for place, mark in marked if mark == ADDED]
        if part.trust is not None and lasting is not None:
            yield from learn(part.trust, part.generation, chunk.digests, lasting, part.sent)
        self._settle_first()

    # The common part of the steps.

    def _emit(self) -> Operation[None]:
        values, self._added = self._added, []
        yield Emit(values)

    def _begin_again(self, batch: _Batch, other: OtherEpoch) -> Operation[None]:
        """Encode batches without a reply again: the server refused each chunk after this one."""
        lost: Exception | None = None
        for _ in self._flying:
            try:
                yield READ
            except Exception as error:
                lost = lost or error
        self._flying.clear()
        self._ready.clear()
        if lost is not None:
            self._end(batch.start, lost)
            return
        # Batches after a failure are not sent.
        end = self.position if self._failure is None else self._failure.at
        again = [each for each in self._begun if each.start < end]
        self._waiting.extendleft(reversed(again))
        for each in again:
            self._begun.remove(each)
        self._adder.begin_again(other)

    def _judge_bad(self, batch: _Batch, bad: list[Any]) -> None:
        """Fail at an item that cannot be encoded, or skip it. A batch encoded again counts once."""
        for place, item, cause in bad:
            at = batch.start + place
            of_process = self._errors == "skip" and isinstance(cause, NOT_OF_ITEM)
            if not self._skips or of_process:
                self._ended = True
                self._fail(at, cause, at, item)
                break
            if not batch.judged:
                self._counts[3] += 1
                raised = self._skip(at, item, cause)
                if raised is not None:
                    self._ended = True
                    self._fail(at, raised, at, item)
                    break
        batch.judged = True

    def _judge_lost(self, part: _FlyingChunk, error: Exception) -> None:
        """End at a chunk without a reply, or skip the item that is too large for the server."""
        batch = part.batch
        large = place_of_large(self._ctx, batch.items, part.chunk, error)
        if large is None:
            self._end(batch.start, error)
            return
        at, item = batch.start + large, batch.items[large]
        raised: Exception | None = error
        if self._skips:
            raised = None
            if large not in batch.outsized:
                batch.outsized.add(large)
                self._counts[3] += 1
                raised = self._skip(at, item, error)
        if raised is None:
            batch.count(0, 0, 0)
            self._settle_first()
        else:
            self._end(batch.start, raised, at, item)  # later items of the batch may be missing

    def _skip(self, at: int, item: Any, cause: Exception) -> Exception | None:
        """Call the callable of errors, or log, for a skipped item. Return the error of the call."""
        self._ctx.reporter.count(BAD, 1)
        try:
            if callable(self._errors):
                self._errors(at, item, cause)
            else:
                name = self._ctx.name
                text = "skipped item %d of an add to %r: %r"
                warn_once(name, text, at, name, error_text(cause))
        except Exception as error:
            return error
        return None

    def _fail(self, at: int, cause: Exception, place: int | None = None, item: Any = None) -> None:
        """Note a failure. Items that are not encoded yet are not sent."""
        self._waiting.clear()
        if self._failure is None or at < self._failure.at:
            self._failure = _EarlyEnd(at, cause, place, item)

    def _end(self, at: int, cause: Exception, place: int | None = None, item: Any = None) -> None:
        """Note a failure after which nothing more is sent."""
        self._ended = True
        self._fail(at, cause, place, item)
        self._ready.clear()

    def _settle(self, batch: _Batch) -> None:
        for kind, number in enumerate(batch.counts):
            self._counts[kind] += number
        self._added.extend(batch.items[place] for place in sorted(batch.found))

    def _settle_first(self) -> None:
        while self._begun and self._begun[0].left == 0:
            self._settle(self._begun.popleft())


def _tell_if_finished(ctx: Context, result: AddResult) -> Operation[None]:
    """Log if a finished set refused all items of an object's first bulk add."""
    try:
        end = yield end_of(ctx)
    except Exception:  # the items were added, so an error of this question is not raised
        return
    if end.finished:
        warn_once(
            ctx.name,
            "all %d items were refused: %r remembers them and its queue is empty. Call clear() to "
            "start over",
            result.refused,
            ctx.name,
        )


def place_of_large(ctx: Context, items: list[Any], chunk: Any, error: Exception) -> int | None:
    """Return the place of a chunk's item, if it is too large for the server."""
    if outsized(error) is None or chunk.entries != 1:
        return None
    for place, item in enumerate(items):
        try:
            data = ctx.wire.payload(item, ctx.codec.dumps, 0)
        except Exception:  # a bad item
            continue
        if len(data) > CHUNK_BYTES and data in chunk.data:
            return place
    return None


def large_item(ctx: Context, items: list[Any], chunk: Any, error: Exception) -> Exception:
    """Return the error of a step that adds. It names an item that is too large, if any."""
    place = place_of_large(ctx, items, chunk, error)
    if place is None:
        return error
    return _EarlyEnd(0, error, place, items[place]).error(AddResult())


def failure(cause: Exception) -> AddError:
    """Make the error of a bulk add that failed at its beginning."""
    return _EarlyEnd(0, cause, None, None).error(AddResult())


def bad_item(bad: Any) -> AddError:
    """Make the error of an item that cannot be encoded, in a bulk add that has sent nothing."""
    return _EarlyEnd(0, bad.error, bad.place, bad.item).error(AddResult())


class _EarlyEnd(NamedTuple):
    """The position at which a stream ended early, and the cause."""

    at: int
    cause: Exception
    place: int | None
    item: Any

    def error(self, result: AddResult) -> AddError:
        kind = AddError
        if isinstance(self.cause, Full):
            kind = _FullAddError
        elif isinstance(self.cause, OptionsDiffer):
            kind = _OptionsAddError
        where = f"item {self.place}" if self.place is not None else f"from item {self.at} on"
        return kind(
            f"{where}: {str(self.cause) or type(self.cause).__name__}",
            result=result,
            resume_at=self.at,
            index=self.place,
            item=self.item,
        )
