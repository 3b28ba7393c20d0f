"""Adding: single items and streams of them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Sequence
from time import monotonic
from typing import Any, NamedTuple

from redset._effects import READ, Ask, Emit, Operation, Pull, Read, Send, outsized
from redset._logs import warn_once
from redset._operations.checking import check_once
from redset._operations.context import (
    CHUNK,
    CHUNK_BYTES,
    ENCODERS,
    FOLD,
    HEAVY_CHUNK,
    HEAVY_WINDOW,
    NOT_OF_ITEM,
    SCRIPT_CHUNK,
    WINDOW,
    Ahead,
    Clock,
    Context,
    ServerClock,
    error_text,
    new_epoch,
)
from redset._operations.known import Trust, check, learn, look
from redset._operations.replies import Reader, bytes_of, count, listed, refuse, up_to
from redset._operations.taking import end_of
from redset._scripts import script
from redset.exceptions import AddError, Full, OptionsDiffer, _FullAddError, _OptionsAddError

#: What ``errors=`` takes besides "raise" and "skip".
OnError = Callable[[int, Any, Exception], object]


class AddResult(NamedTuple):
    """What became of the items of a bulk add.

    Attributes
    ----------
    added : int
        Items that were not queued before.
    updated : int
        Queued items whose score or payload was set.
    refused : int
        Items that the flags, ``duplicates`` or ``remember`` kept out.
    failed : int
        Bad items that ``errors`` had skipped.

    Examples
    --------
    >>> result = jobs.add_many(["a", "b", "a"])
    >>> result.added, result.updated
    (2, 1)
    """

    added: int = 0
    updated: int = 0
    refused: int = 0
    failed: int = 0


class Flags(NamedTuple):
    """The arguments that an add takes besides items and scores."""

    nx: bool = False
    xx: bool = False
    gt: bool = False
    lt: bool = False
    again: bool = False
    remember: bool | None = None

    def check_remember(self, ctx: Context) -> None:
        remember: Any = self.remember
        if remember is True:
            ctx.need_memory("remember")
        elif remember is not None and remember is not False:
            raise TypeError(
                f"remember must be False, True or None (as the set does), got {remember!r} "
                f"({type(remember).__name__})"
            )

    def condition(self, ctx: Context) -> str:
        """Check the flags and give the condition that holds: theirs, else ``duplicates``'."""
        if self.nx and (self.xx or self.gt or self.lt):
            raise ValueError("nx contradicts xx, gt and lt")
        if self.gt and self.lt:
            raise ValueError("gt contradicts lt")
        if self.again:
            ctx.need_memory("again")
        self.check_remember(ctx)
        if self.nx:
            return "nx"
        if not (self.xx or self.gt or self.lt):
            return ctx.condition
        return ("xx" if self.xx else "") + ("gt" if self.gt else "lt" if self.lt else "")


class Adder:
    """One call's way of adding: the encoder of its requests and the meaning of their answers."""

    def __init__(
        self,
        ctx: Context,
        flags: Flags,
        score: Any,
        outcomes: bool,
        settling: list[Any] | None = None,
        others: Sequence[list[Any]] = (),
    ) -> None:
        self.ctx = ctx
        self.condition = flags.condition(ctx)
        self.again = flags.again
        #: Whether what is accepted stays unknown to a memory that there is.
        self.aside = flags.remember is False and bool(ctx.remember)
        self.score = score
        self.outcomes = outcomes
        self.proposed = False
        light = not (ctx.keyed or ctx.remember or ctx.max_size or outcomes)
        #: What a step of settlements is given that adds as well, and how many it has settled.
        self.settling = settling
        self.settled: list[int] = []
        #: What is given instead where none of those leases is its holder's any more.
        self._others = deque(others)
        #: ZADD alone tells these apart; under nx what is leased counts as there.
        alone = ("", "xx") if ctx.keys.prefix is not None else ("", "nx", "xx")
        self.command = light and not ctx.ties and self.condition in alone and settling is None
        name = "add" if settling is None else "settle"
        self.script = None if self.command else script(name)
        self._chunk = CHUNK if light and self.condition in ("", "nx", "xx") else SCRIPT_CHUNK
        last_wins = self.condition == "" and (not ctx.remember or self.again)
        # A plain add of an item that stays unknown goes by each one: all of them may be refused.
        foldable = self.condition == "nx" or (
            self.condition == "" and (self.again or not self.aside)
        )
        #: Items that are encoded together: with max_size one chunk, so that a Full one says exactly
        #: from where to go on.
        self.run = FOLD if foldable and not ctx.max_size else self._chunk
        wire = ctx.wire
        self.fold = (
            wire.FOLD_NONE if not foldable else wire.FOLD_LAST if last_wins else wire.FOLD_FIRST
        )
        self.encoder: Any = None
        self._heavy = False
        #: Whether every known item is refused, so that a table of them can answer. Not beside an
        #: acknowledgement: what the server has forgotten within the second would be lost with it.
        tabled = ctx.tabled and foldable and not self.aside
        self.tabled = tabled and not self.again and settling is None
        #: Whether answers say what is known: where that is more than that all entries are.
        self._asks = False
        self._may_ask = self.tabled and (ctx.remember == "limited" or self.condition == "nx")

    @property
    def chunk(self) -> int:
        """How many entries a request may have."""
        # With max_size the chunk is the run.
        return HEAVY_CHUNK if self._heavy and not self.ctx.max_size else self._chunk

    @property
    def window(self) -> int:
        """How many chunks may be in flight."""
        if self.proposed or self.ctx.ties:
            # It decides whose epoch holds; with ties= what comes behind one that was refused, or is
            # to be sent again, would be before it.
            return 1
        return HEAVY_WINDOW if self._heavy else WINDOW

    def prepare(self) -> Operation[None]:
        """Ask the server what the requests depend on: its clock, the memory's epoch."""
        ctx = self.ctx
        scorer = ctx.scorer if self.score is None else self.score
        if isinstance(scorer, Clock):
            yield from scorer.refresh(ctx)
        epoch = b""
        if ctx.remember:
            yield from check_once(ctx)
            known = yield from ctx.know_epoch()
            self.proposed = known is None
            epoch = known or new_epoch()
        self._make_encoder(epoch)

    def _make_encoder(self, epoch: bytes) -> None:
        """Make it, or use again what an earlier call made for the same requests."""
        ctx, wire = self.ctx, self.ctx.wire
        self.epoch = epoch
        dumps, scorer = ctx.dumps, ctx.scorer if self.score is None else self.score
        what = (
            self.condition,
            self.again,
            self.aside,
            self.outcomes,
            self.proposed,
            epoch,
            self._asks,
        )
        # The ids are not another's as long as the encoder holds both.
        use = *what, self.score, id(scorer) if self.score is None else None, id(dumps)
        # Set at once: threads share what adds single items.
        once = self.settling is not None or isinstance(self.score, Ahead)
        encoder = None if once else ctx.encoders.get(use)
        if encoder is not None:
            self.encoder = encoder
            return
        memory = wire.MEMORY_NONE
        prefix: list[Any]
        if self.script is None:
            prefix = [b"ZADD", ctx.keys.queue]
            prefix += {"": (), "nx": (b"NX",), "xx": (b"XX", b"CH")}[self.condition]
        else:
            keys = ctx.step_keys(self._keys())
            prefix = [b"EVALSHA", self.script.sha, len(keys), *keys]
            prefix += self.settling or ()
            prefix += head_of(
                ctx,
                self.condition,
                again=self.again,
                outcomes=self.outcomes,
                epoch=epoch,
                proposed=self.proposed,
                asks=self._asks,
                aside=self.aside,
            )
            if ctx.remember == "ever":
                memory = wire.MEMORY_INTEGER
            elif ctx.remember and not ctx.keyed:
                memory = wire.MEMORY_DIGEST
        self.encoder = encoder = wire.Encoder(
            prefix,
            dumps,
            ctx.key,
            scorer,
            ctx.max_item_bytes,
            self.fold,
            self.fold != wire.FOLD_NONE and not ctx.ties,
            memory,
            epoch,
            self.outcomes,
            bool(ctx.ties),
            ctx.due,
            ctx.warn,
        )
        if once:
            return
        if len(ctx.encoders) >= ENCODERS:
            ctx.encoders.clear()
        ctx.encoders[use] = encoder

    def _keys(self) -> list[bytes]:
        ctx, names = self.ctx, self.ctx.keys
        if self.settling is not None:
            return ctx.settling_keys
        if names.prefix is None:
            return [names.queue]
        keys = [names.queue, names.leased, names.leases]
        if ctx.marked:
            keys += [names.meta, names.seen, names.items, names.name]
        return keys

    def try_to_encode(self, item: Any) -> None:
        """Raise what is wrong with an item, before the server is asked anything."""
        self._make_encoder(b"")
        chunk = self.encoder.encode([item], [0.0], False)
        if chunk.bad:
            raise chunk.bad[0].error

    def begin_again(self, why: OtherEpoch) -> None:
        """Go by what a step was refused for."""
        if isinstance(why, OtherLeases):
            self.settling = self._others.popleft()
            self._make_encoder(self.epoch)
        else:
            self.other_epoch(why.stored)

    def other_epoch(self, stored: bytes) -> None:
        """The set has another epoch (it was cleared, or another process was first): go by that."""
        ctx = self.ctx
        ctx.epoch = stored or None
        ctx.believe(None)
        self.proposed = not stored
        self._make_encoder(stored or new_epoch())

    def look(self, items: int) -> Operation[tuple[Trust | None, bool]]:
        """Say what table may be used now, and whether a check is due before so many are added."""
        if not self.tabled or self.proposed:
            return None, False
        return (yield from look(self.ctx, items))

    def encode(
        self,
        items: list[Any],
        scores: list[Any] | None,
        skip: bool,
        trust: Trust | None,
    ) -> tuple[list[Any], Trust | None, int]:
        """Encode items; and give the table that was looked into, and its generation."""
        if trust is not None and trust.epoch != self.epoch:
            trust = None
        asks = self._may_ask and trust is not None
        if asks != self._asks:
            self._asks = asks
            self._make_encoder(self.epoch)
        encode_all = self.encoder.encode_all
        if trust is None:
            return encode_all(items, scores, skip, self.chunk, CHUNK_BYTES), None, 0
        table = trust.table
        if self.ctx.tables is not None:
            self.ctx.tables.add((table, table.generation))
        generation = table.generation
        chunks = encode_all(items, scores, skip, self.chunk, CHUNK_BYTES, table, monotonic())
        return chunks, trust, generation

    def send(self, chunk: Any) -> Send:
        return Send(chunk.data, 1, self.script, True, self._reader(chunk.entries))

    def ask(self, chunk: Any) -> Ask:
        return Ask(chunk.data, 1, self.script, True, self._reader(chunk.entries))

    def _reader(self, entries: int) -> Reader[Any]:
        """Read the answer to so many entries: a count of ZADD, else what the script returns."""
        if self.script is None:
            return up_to(entries)
        limited = self.ctx.remember == "limited"
        read = _outcome_of(entries, entries if self.outcomes else 0, self.epoch, limited)
        return read if self.settling is None else self._settled(read)

    def _settled(self, read: Reader[Any]) -> Reader[Any]:
        """Read what a step says that settles and adds: nothing is added where no lease was ours."""

        def reads(reply: Any) -> Any:
            parts = listed(reply)
            if not parts or not isinstance(parts[0], (list, tuple)):
                return read(reply)
            counts, outcome = [count(each) for each in listed(parts[0])], listed(reply, 2)[1]
            self.settled = counts
            if not any(counts):
                return 0, 0, b"", None
            return read(outcome)

        return reads

    def judge(self, chunk: Any, reply: Any) -> tuple[int, int, int, bytes, Any]:
        """Give added, updated, refused, the outcome of each entry, and how long each is known:
        ``math.inf``, the milliseconds of each, or None where the answer does not say so.

        Raises
        ------
        OtherEpoch, OtherLeases, Full, OptionsDiffer
            Where the step said so; it wrote nothing then.
        """
        if self.script is None:
            rest = chunk.good - reply
            if self.condition == "xx":
                return 0, reply, rest, b"", None
            if self.condition == "nx":
                return reply, 0, rest, b"", None
            return reply, rest, 0, b"", None
        if type(reply) is Refusal:
            raise reply.error(self.ctx)
        if self.settling is not None and not any(self.settled) and self._others:
            raise OtherLeases(self.epoch)
        if self.proposed:
            self.ctx.epoch = self.epoch
            self.proposed = False
            self._make_encoder(self.epoch)
        elif self.ctx.remember:
            self.ctx.epoch = self.epoch
        added, updated, outcomes, known = reply
        lasting = known
        if self.ctx.remember == "ever":
            # A plain add leaves nothing unknown.
            lasting = math.inf if known == 0 or self.condition == "" else None
        fills = bool(self.ctx.remember) and not self.aside
        self._heavy = fills and 2 * (added + updated) > chunk.entries
        refused = chunk.entries - added - updated
        folded = chunk.good - chunk.entries
        if self.fold == self.ctx.wire.FOLD_LAST:
            updated += folded
        else:
            refused += folded
        return added, updated, refused, outcomes, lasting


def head_of(
    ctx: Context,
    condition: str,
    *,
    again: bool = False,
    outcomes: bool = False,
    epoch: bytes = b"",
    proposed: bool = False,
    asks: bool = False,
    aside: bool = False,
) -> list[Any]:
    """Give what stands in front of the entries of a step that adds (see ``adding.lua``)."""
    head: list[Any] = [condition, "1" if again else "", "1" if outcomes else ""]
    head += [ctx.max_size or "", "1" if ctx.keyed else "", ctx.remember, ctx.ttl, epoch]
    head += ["1" if proposed else "", ctx.options, "1" if asks else "", ctx.ties]
    return [*head, "1" if aside else ""]


class Refusal(NamedTuple):
    """Why a step wrote nothing: its word for it, and the set's epoch, options or size."""

    word: bytes
    detail: Any

    def error(self, ctx: Context) -> Exception:
        if self.word == b"EPOCH":
            return OtherEpoch(self.detail)
        if self.word == b"OPTIONS":
            return ctx.tell_other_options(self.detail)
        if self.word == b"NAME":
            return ctx.tell_plain_items()
        return Full(
            f"the set holds {self.detail} items, and max_size is {ctx.max_size}; "
            "chunks are refused whole"
        )


def refusal_of(parts: list[Any], words: Collection[bytes]) -> Refusal | None:
    """Read what a step says that wrote nothing, in one of these words."""
    word = bytes_of(parts[0]) if parts else b""
    if word in words and len(parts) == (1 if word == b"NAME" else 2):
        detail = parts[1] if len(parts) == 2 else b""
        return Refusal(word, count(detail) if word == b"FULL" else bytes_of(detail))
    return None


def _outcome_of(
    entries: int, marks: int, epoch: bytes, limited: bool
) -> Reader[Refusal | tuple[int, int, bytes, Any]]:
    """Read what the script says of so many entries, with so many marks."""

    def read(reply: Any) -> Refusal | tuple[int, int, bytes, Any]:
        parts = listed(reply)
        if len(parts) in (3, 4):
            added, updated, outcomes = count(parts[0]), count(parts[1]), bytes_of(parts[2])
            if (
                added + updated > entries
                or len(outcomes) != marks
                or (marks and outcomes.count(b"a") != added)
            ):
                raise refuse(f"the outcomes of {entries} entries", reply)
            known: Any = None
            if len(parts) == 4 and limited:
                known = [count(left) for left in bytes_of(parts[3]).split()]
                if len(known) != entries:
                    raise refuse(f"how long {entries} entries are known", reply)
            elif len(parts) == 4:
                known = count(parts[3], entries)
            return added, updated, outcomes, known
        refusal = refusal_of(parts, (b"EPOCH", b"OPTIONS", b"NAME", b"FULL"))
        # That the set has another epoch cannot be where it has ours.
        if refusal is not None and refusal != (b"EPOCH", epoch):
            return refusal
        raise refuse("what became of the entries, or why nothing did", reply)

    return read


class OtherEpoch(Exception):
    """A step carried an epoch that the set no longer has."""

    def __init__(self, stored: bytes) -> None:
        super().__init__(stored)
        self.stored = stored


class OtherLeases(OtherEpoch):
    """None of the leases that a step was to go by is its holder's: others may be."""


def score_of(ctx: Context, item: Any, score: Any) -> float | None:
    """Check a score, or ask the scorer for it; None where that is the server's clock."""
    made: float | None = None
    if score is not None:
        made = ctx.to_score(score)
    elif type(ctx.scorer) is not ServerClock:
        made = ctx.to_score(ctx.wire.score_of(item, ctx.scorer, ctx.due))
    return made


def add(
    ctx: Context, item: Any, score: Any, flags: Flags, later: Ahead | None = None
) -> Operation[float | None]:
    """Add one item; the score, or None where it was refused. ``later`` tells it, if not None."""
    clock: Any = later
    if clock is None:
        score = score_of(ctx, item, score)
        clock = ctx.scorer if score is None else None
    if flags.remember is not None:
        flags.check_remember(ctx)  # 0 equals False, and may not be
    adder = ctx.adders.get(flags)
    if adder is None:
        adder = Adder(ctx, flags, None, False)
        adder.try_to_encode(item)
        yield from adder.prepare()
        ctx.adders[flags] = adder
    if clock is not None:
        yield from clock.refresh(ctx)
        score = clock(item)
    while True:
        trust, due = yield from adder.look(1)
        if due:
            trust = yield from check(ctx)
        (chunk,), trust, generation = adder.encode([item], [score], False, trust)
        if chunk.bad:
            raise chunk.bad[0].error
        if not chunk.entries:
            return None
        sent = monotonic()
        reply = yield adder.ask(chunk)
        try:
            added, updated, _, _, lasting = adder.judge(chunk, reply)
        except OtherEpoch as other:
            adder.other_epoch(other.stored)
        else:
            if trust is not None and lasting is not None:
                yield from learn(trust, generation, chunk.digests, lasting, sent)
            return score if added or updated else None


class _Batch:
    """A run of the caller's items, kept until all of it is acknowledged; and what came of it.

    Cut into chunks it is encoded again as a whole where the set got another epoch in between: it
    was cleared, and what was acknowledged before counts no more.
    """

    __slots__ = ("counts", "found", "items", "judged", "left", "outsized", "scores", "start")

    def __init__(self, start: int, items: list[Any], scores: list[Any] | None) -> None:
        self.start = start
        self.items = items
        self.scores = scores
        #: Whether it was said what is to become of its bad items.
        self.judged = False
        #: Places of items that the server does not take, since they are too large.
        self.outsized: set[int] = set()
        self.begin(0)

    def begin(self, chunks: int) -> None:
        """Go by so many chunks, none of them acknowledged."""
        self.left = chunks
        self.counts = [0, 0, 0]
        #: Places of items that were added.
        self.found: list[int] = []

    def count(self, added: int, updated: int, refused: int) -> None:
        self.left -= 1
        self.counts[0] += added
        self.counts[1] += updated
        self.counts[2] += refused


class _Part:
    """A chunk of a batch, and the table that is to learn what the server says of it."""

    __slots__ = ("batch", "chunk", "generation", "sent", "trust")

    def __init__(self, batch: _Batch, chunk: Any, trust: Trust | None, generation: int) -> None:
        self.batch = batch
        self.chunk = chunk
        self.trust = trust
        self.generation = generation
        self.sent = 0.0


def add_stream(
    ctx: Context,
    score: Any,
    flags: Flags,
    errors: str | OnError,
    steady: bool,
    emit: bool,
    settling: Sequence[list[Any]] = (),
    pulled: tuple[list[Any], list[Any] | None] = ([], None),
    more: bool = True,
) -> Operation[AddResult]:
    """Add the items that Pull brings, in chunks, a window of them in flight.

    A steady source (a list) is pulled while chunks are in flight. Any other may run the caller's
    code, which may be slow or use the same client, so the window is drained before each pull.
    ``score`` may be a clock, for what is due later. ``settling`` makes each chunk a step of
    settlements, of the first of these of which a lease is its holder's; ``pulled`` came before, and
    is all of it where there is no ``more``.
    """
    if not (errors in ("raise", "skip") or callable(errors)):
        kind = type(errors).__name__
        raise ValueError(f"errors must be 'raise', 'skip' or a callable, not {errors!r} ({kind})")
    clock: Any = None
    scorer = ctx.scorer if score is None else score
    if isinstance(scorer, Clock):
        clock = scorer
    elif score is not None:
        score = ctx.to_score(score)
    adder = Adder(ctx, flags, score, emit, settling[0] if settling else None, settling[1:])
    skip = errors != "raise"
    counts = [0, 0, 0, 0]
    #: Pulled; encoded, and not all acknowledged; their chunks to be sent, and those sent.
    waiting: deque[_Batch] = deque()
    begun: deque[_Batch] = deque()
    ready: deque[_Part] = deque()
    flying: deque[_Part] = deque()
    found: list[Any] = []
    failure: _Failure | None = None
    position = 0
    ended = False
    prepared = False
    #: What brings the next answer: of a chunk on its own also what sends it.
    awaited: Ask | Read = READ

    def fail(at: int, cause: Exception, place: int | None = None, item: Any = None) -> _Failure:
        waiting.clear()
        if failure is not None and failure.at <= at:
            return failure
        return _Failure(at, cause, place, item)

    def settle(batch: _Batch) -> None:
        for i in range(3):
            counts[i] += batch.counts[i]
        found.extend(batch.items[place] for place in sorted(batch.found))

    def settle_first() -> None:
        while begun and begun[0].left == 0:
            settle(begun.popleft())

    while True:
        if found and not flying:
            values, found = found, []
            yield Emit(values)
        idle = not (waiting or ready)
        if idle and not ended and failure is None and (steady or not flying):
            num = adder.run if steady else max(adder.run, adder.chunk * WINDOW)
            try:
                if pulled[0]:
                    (items, scores), pulled = pulled, ([], None)
                    ended = not more
                else:
                    items, scores = yield Pull(num)
                    # Nothing more comes of a list that gave less; scores are to end with it.
                    ended = steady and scores is None and len(items) < num
            except Exception as error:
                ended, failure = True, fail(position, error)
                continue
            if not items:
                ended = True
                continue
            if len(items) <= adder.run:
                waiting.append(_Batch(position, items, scores))
            else:
                for at in range(0, len(items), adder.run):
                    end = at + adder.run
                    own = scores[at:end] if scores is not None else None
                    waiting.append(_Batch(position + at, items[at:end], own))
            position += len(items)
        if waiting and not prepared:
            try:
                yield from adder.prepare()
            except Exception as error:
                failure = fail(waiting[0].start, error)
                continue
            prepared = True
        stale = clock is not None and prepared and bool(waiting) and clock.stale()
        if clock is not None and stale and not (flying or ready):
            try:
                yield from clock.refresh(ctx)
            except Exception as error:
                failure = fail(waiting[0].start, error)
            continue
        # A large item is on its way alone: if the server closes the connection on it, nothing else
        # was in flight.
        room = len(flying) < adder.window and not (flying and is_large(flying[0].chunk))
        if waiting and not ready and not stale and room:
            trust, due = yield from adder.look(len(waiting[0].items))
            if due and flying and trust is None:
                room = False  # What is in flight is read before anything is asked.
            elif due and not flying:
                try:
                    trust = yield from check(ctx)
                except Exception as error:
                    failure = fail(waiting[0].start, error)
                    continue
        if waiting and not ready and not stale and room:
            batch = waiting.popleft()
            chunks, trust, generation = adder.encode(batch.items, batch.scores, skip, trust)
            for place, item, cause in chunks[-1].bad:
                at = batch.start + place
                if not skip or (errors == "skip" and isinstance(cause, NOT_OF_ITEM)):
                    failure, ended = fail(at, cause, at, item), True
                    break
                elif not batch.judged:
                    counts[3] += 1
                    try:
                        _skip(ctx, errors, at, item, cause)
                    except Exception as error:
                        failure, ended = fail(at, error, at, item), True
                        break
            batch.judged = True
            ready.extend(
                _Part(batch, chunk, trust, generation) for chunk in chunks if chunk.entries
            )
            batch.begin(len(ready))
            begun.append(batch)
            if not ready:
                # What is good here is known.
                batch.counts[2] = chunks[-1].good
                settle_first()
            continue
        if ready and room and not (flying and is_large(ready[0].chunk)):
            part = ready.popleft()
            part.sent = monotonic()
            if is_large(part.chunk) or (ended and not (waiting or ready or flying)):
                awaited = adder.ask(part.chunk)
                flying.append(part)
                continue
            flying.append(part)
            try:
                yield adder.send(part.chunk)
            except Exception as error:
                failure, ended = fail(flying[0].batch.start, error), True
                flying.clear()
                ready.clear()
            continue
        if flying:
            part = flying.popleft()
            batch, chunk = part.batch, part.chunk
            try:
                asked, awaited = awaited, READ
                reply = yield asked
                added, updated, refused, outcomes, lasting = adder.judge(chunk, reply)
            except OtherEpoch as other:
                # Everything behind it was refused as well (what is lost stays lost): read it off,
                # encode all of it again.
                lost: Exception | None = None
                for _ in flying:
                    try:
                        yield READ
                    except Exception as error:
                        lost = lost or error
                flying.clear()
                ready.clear()
                if lost is not None:
                    failure, ended = fail(batch.start, lost), True
                    continue
                # Nothing from a failure on, and all that is before it.
                end = position if failure is None else failure.at
                again = [each for each in begun if each.start < end]
                waiting.extendleft(reversed(again))
                for each in again:
                    begun.remove(each)
                adder.begin_again(other)
                continue
            except Exception as error:
                large = place_of_large(ctx, batch.items, chunk, error)
                cause = error
                fault = None if large is None else batch.start + large
                item = None if large is None else batch.items[large]
                if skip and large is not None:
                    try:
                        if large not in batch.outsized:
                            batch.outsized.add(large)
                            counts[3] += 1
                            _skip(ctx, errors, batch.start + large, item, cause)
                    except Exception as raised:
                        cause = raised
                    else:
                        batch.count(0, 0, 0)
                        settle_first()
                        continue
                failure, ended = fail(batch.start, cause, fault, item), True
                ready.clear()
                continue
            batch.count(added, updated, refused)
            if emit and added:
                places = chunk.positions
                batch.found += [
                    place for place, mark in zip(places, outcomes, strict=True) if mark == 97
                ]
            if part.trust is not None and lasting is not None:
                yield from learn(part.trust, part.generation, chunk.digests, lasting, part.sent)
            settle_first()
            continue
        if not waiting and (ended or failure is not None):
            break
    for batch in begun:
        settle(batch)
    if found:
        yield Emit(found)
    result = AddResult(*counts)
    if failure is not None:
        raise failure.error(result) from failure.cause
    if ctx.remember and ctx.fresh and position and more and not settling:
        ctx.fresh = False
        if result.refused == position and "xx" not in adder.condition:
            yield from _tell_if_finished(ctx, result)
    return result


def _tell_if_finished(ctx: Context, result: AddResult) -> Operation[None]:
    """Log where an object's first bulk add brought only what a finished set knows."""
    try:
        end = yield end_of(ctx)
    except Exception:  # the items are in, whatever this says
        return
    if end.finished:
        warn_once(
            ctx.name,
            "all of the %d items added to %r are known, and nothing is left to be done: clear() "
            "makes it forget them",
            result.refused,
            ctx.name,
        )


def is_large(chunk: Any) -> bool:
    """Whether a chunk is one item that not every server may take."""
    return chunk.entries == 1 and len(chunk.data) > CHUNK_BYTES


def place_of_large(ctx: Context, items: list[Any], chunk: Any, error: Exception) -> int | None:
    """Return which of the items a chunk has, if the server does not take it for its size."""
    if outsized(error) is None or chunk.entries != 1:
        return None
    for place, item in enumerate(items):
        try:
            data = ctx.wire.payload(item, ctx.dumps, 0)
        except Exception:  # a bad one
            continue
        if len(data) > CHUNK_BYTES and data in chunk.data:
            return place
    return None


def large_item(ctx: Context, items: list[Any], chunk: Any, error: Exception) -> Exception:
    """Return the error of a step that adds: it names an item that is too large, if one is."""
    place = place_of_large(ctx, items, chunk, error)
    if place is None:
        return error
    return _Failure(0, error, place, items[place]).error(AddResult())


def bad_item(bad: Any) -> AddError:
    """Make the error of a bulk add's item that cannot be encoded, nothing at all sent."""
    return _Failure(0, bad.error, bad.place, bad.item).error(AddResult())


class _Failure(NamedTuple):
    """Where a stream ended before its end, and why."""

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


def _skip(ctx: Context, errors: str | OnError, at: int, item: Any, cause: Exception) -> None:
    if callable(errors):
        errors(at, item, cause)
    else:
        warn_once(
            ctx.name,
            "skipped item %d of an add to %r: %r",
            at,
            ctx.name,
            error_text(cause),
        )
