"""Adding single items, and the requests and replies of all adds."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from redset import _operations
from redset._operations.checking import check_once
from redset._operations.context import Context
from redset._operations.limits import (
    CHUNK,
    CHUNK_BYTES,
    ENCODERS,
    FOLD,
    GROUPED_CHUNK,
    HEAVY_CHUNK,
    HEAVY_WINDOW,
    SCRIPT_CHUNK,
    WINDOW,
)
from redset._operations.options import SetOptions
from redset._operations.replies import Reader, bytes_of, count, listed, refuse, up_to
from redset._operations.reporting import ADDED, REFUSED, UPDATED
from redset._operations.scores import Ahead, Clock, ServerClock
from redset._operations.state import new_epoch
from redset._transport.effects import Ask, Operation, Send
from redset._wire.values import flag, got
from redset.exceptions import Full
from redset.scripts import arguments_of, script

if TYPE_CHECKING:
    from redset._operations.known import Trust

#: A callable as ``errors=``.
OnError = Callable[[int, Any, Exception], object]


class AddResult(NamedTuple):
    """Result of a bulk add.

    Attributes
    ----------
    added : int
        Number of items that were not queued before.
    updated : int
        Number of queued items whose score or payload was set.
    refused : int
        Number of items that the flags, ``duplicates`` or ``remember`` kept out.
    failed : int
        Number of bad items that were skipped because of ``errors``.

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

    def check(self) -> None:
        """Check that each flag is True or False, before it is a part of a dict's key."""
        nx, xx, gt, lt, again, _ = self
        if not nx is xx is gt is lt is again is False:
            for argument, value in zip(self._fields, (nx, xx, gt, lt, again), strict=False):
                flag(argument, value)

    def check_remember(self, ctx: Context) -> None:
        remember: Any = self.remember
        if remember is True:
            ctx.need_memory("remember")
        elif remember is not None and remember is not False:
            raise TypeError(
                f"remember must be False, True or None (the set's option), {got(remember)}"
            )

    def condition(self, ctx: Context) -> str:
        """Check the flags, and return their condition, or that of ``duplicates``."""
        self.check()
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
            return ctx.options.condition
        return ("xx" if self.xx else "") + ("gt" if self.gt else "lt" if self.lt else "")


class SettleArguments(NamedTuple):
    """Arguments of a step of settlements, by name, and the values of its groups."""

    arguments: dict[str, Any]
    groups: list[Any]


class Adder:
    """Makes the requests of one call that adds, and judges their replies."""

    def __init__(
        self,
        ctx: Context,
        flags: Flags,
        score: Any,
        outcomes: bool,
        settling: SettleArguments | None = None,
        others: Sequence[SettleArguments] = (),
    ) -> None:
        self.ctx = ctx
        ctx.reporter.begin()
        self.condition = flags.condition(ctx)
        self.again = flags.again
        #: True if accepted items are not remembered, although the set has a memory.
        self.aside = flags.remember is False and bool(ctx.options.remember)
        self.score = score
        self.outcomes = outcomes
        self.proposed = False
        light = not (ctx.options.keyed or ctx.options.remember or ctx.options.max_size or outcomes)
        #: The settlements of a step that also adds, and the numbers that it has settled.
        self.settling = settling
        self.settled: list[int] = []
        #: Further settlements, for use after all leases of the first were lost.
        self._others = deque(others)
        #: Conditions that a ZADD can perform. Under nx a leased item counts as queued, so it needs
        #: a script.
        alone = ("", "xx") if ctx.keys.prefix is not None else ("", "nx", "xx")
        self.command = (
            light and not ctx.options.ties and self.condition in alone and settling is None
        )
        name = "add" if settling is None else "settle"
        self.script = None if self.command else script(name, ctx.options.grouped)
        self._chunk = _chunk_of(ctx.options, light, self.condition)
        last_wins = self.condition == "" and (not ctx.options.remember or self.again)
        # With remember=False every equal item is sent: each may be refused.
        foldable = self.condition == "nx" or (
            self.condition == "" and (self.again or not self.aside)
        )
        #: Items that are encoded together: with max_size one chunk, so that a refused one has the
        #: exact position to resume from.
        self.run = FOLD if foldable and not ctx.options.max_size else self._chunk
        wire = ctx.wire
        self.fold = (
            wire.FOLD_NONE if not foldable else wire.FOLD_LAST if last_wins else wire.FOLD_FIRST
        )
        self.encoder: Any = None
        self.heavy = False
        #: True if every known item is refused, so the known table can answer. Not with an
        #: acknowledgement: an item that the server forgot within the last second would be lost.
        tabled = ctx.memory.tabled and foldable and not self.aside
        self.tabled = tabled and not self.again and settling is None
        #: True if replies have which entries are known, unless all are.
        self._asks = False
        self._may_ask = self.tabled and (
            ctx.options.remember == "limited" or self.condition == "nx"
        )
        #: Whether entries that are queued as they should be may be left out (`skipping`).
        self.skips = settling is None and _may_skip(ctx.options, self.condition)
        #: Whether a reply of 0 means that an item was refused. A plain ZADD refuses none.
        self._refuses = self.condition != ""

    @property
    def chunk(self) -> int:
        """The largest number of entries in a request."""
        # With max_size the chunk is the run.
        return HEAVY_CHUNK if self.heavy and not self.ctx.options.max_size else self._chunk

    @property
    def window(self) -> int:
        """Return the number of chunks that may be in flight."""
        if self.proposed or self.ctx.options.ties:
            # The reply to the first chunk has the epoch for all. With ties= a later chunk must not
            # be added before one that was refused or is sent again.
            return 1
        return HEAVY_WINDOW if self.heavy else WINDOW

    def prepare(self) -> Operation[None]:
        """Read the server's clock and the memory's epoch, if the requests need them."""
        ctx = self.ctx
        scorer = ctx.codec.scorer if self.score is None else self.score
        if isinstance(scorer, Clock):
            yield from scorer.refresh(ctx)
        epoch = b""
        if ctx.options.remember:
            yield from check_once(ctx)
            known = yield from ctx.know_epoch()
            self.proposed = known is None
            epoch = known or new_epoch()
        self._make_encoder(epoch)

    def _make_encoder(self, epoch: bytes) -> None:
        """Make the encoder, or take that of an earlier call with the same requests."""
        ctx, wire = self.ctx, self.ctx.wire
        self.epoch = epoch
        dumps, scorer = ctx.codec.dumps, ctx.codec.scorer if self.score is None else self.score
        what = (
            self.condition,
            self.again,
            self.aside,
            self.outcomes,
            self.proposed,
            epoch,
            self._asks,
        )
        # The encoder holds both objects, so no other object gets their ids.
        use = *what, self.score, id(scorer) if self.score is None else None, id(dumps)
        # Set at once: threads share the adders of single items.
        once = self.settling is not None or isinstance(self.score, Ahead)
        encoder = None if once else ctx.codec.encoders.get(use)
        if encoder is not None:
            self.encoder = encoder
            return
        memory = wire.MEMORY_NONE
        if self.script is not None and ctx.options.remember == "ever":
            memory = wire.MEMORY_INTEGER
        elif self.script is not None and ctx.options.remember and not ctx.options.keyed:
            memory = wire.MEMORY_DIGEST
        self.encoder = encoder = wire.Encoder(
            self._prefix(epoch),
            dumps,
            ctx.codec.key,
            scorer,
            ctx.codec.max_item_bytes,
            self.fold,
            self.fold != wire.FOLD_NONE and not ctx.options.ties,
            memory,
            epoch,
            self.outcomes,
            bool(ctx.options.ties),
            ctx.options.due,
            ctx.codec.warn,
        )
        if once:
            return
        kept = ctx.codec.encoders if len(ctx.codec.encoders) < ENCODERS else {}
        ctx.codec.encoders = {**kept, use: encoder}

    def _prefix(self, epoch: bytes) -> list[Any]:
        """Return the head of each request, before its entries."""
        ctx = self.ctx
        if self.script is None:
            flags = {"": (), "nx": (b"NX",), "xx": (b"XX", b"CH")}[self.condition]
            return [b"ZADD", ctx.keys.queue, *flags]
        head = head_of(
            ctx,
            self.condition,
            again=self.again,
            outcomes=self.outcomes,
            epoch=epoch,
            proposed=self.proposed,
            asks=self._asks,
            aside=self.aside,
        )
        if self.settling is None:
            return ctx.request(self.script, head)
        arguments, groups = self.settling
        return ctx.request(self.script, arguments, [*groups, *arguments_of("adding").values(head)])

    def try_to_encode(self, item: Any) -> None:
        """Raise the error of a bad item, before any request."""
        self._make_encoder(b"")
        chunk = self.encoder.encode([item], [0.0], False)
        if chunk.bad:
            raise chunk.bad[0].error

    def begin_again(self, why: OtherEpoch) -> None:
        """Adapt to the refusal of a step."""
        if isinstance(why, OtherLeases):
            self.settling = self._others.popleft()
            self._make_encoder(self.epoch)
        else:
            self.other_epoch(why.stored)

    def other_epoch(self, stored: bytes) -> None:
        """Take the set's epoch: the set was cleared, or another process was first."""
        ctx = self.ctx
        ctx.memory.epoch = stored or None
        ctx.memory.believe(None)
        self.proposed = not stored
        self._make_encoder(stored or new_epoch())

    def look(self, items: int) -> Operation[tuple[Trust | None, bool]]:
        """Choose the table to use now. Return whether a check is due before these adds."""
        if not self.tabled or self.proposed:
            return None, False
        return (yield from _operations.known.look(self.ctx, items))

    def encode(
        self,
        items: list[Any],
        scores: list[Any] | None,
        skip: bool,
        trust: Trust | None,
    ) -> tuple[list[Any], Trust | None, int]:
        """Encode items. Return the chunks, the trust in the table, and the table's generation."""
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
        if self.ctx.memory.tables is not None:
            self.ctx.memory.tables.add((table, table.generation))
        generation = table.generation
        chunks = encode_all(items, scores, skip, self.chunk, CHUNK_BYTES, table, monotonic())
        return chunks, trust, generation

    def send(self, chunk: Any) -> Send:
        return Send(chunk.data, 1, self.script, True, self._reader(chunk.entries))

    def ask(self, chunk: Any) -> Ask:
        return Ask(chunk.data, 1, self.script, True, self._reader(chunk.entries))

    def one(self, item: Any, score: float) -> Ask:
        """Return the request that adds one item by command. Its result is that of `add`.

        A short path: without a generator and `judge`, an add takes a third less of the time that it
        adds to the client's own work.
        """
        (chunk,) = self.encoder.encode_all([item], [score], False, 1, CHUNK_BYTES)
        if chunk.bad:
            raise chunk.bad[0].error
        refuses, tally = self._refuses, self.ctx.reporter.tally
        # XX counts the changed ones.
        accepted = UPDATED if self.condition == "xx" else ADDED

        def reads(reply: Any) -> float | None:
            num = count(reply, 1)
            if num == 0 and refuses:
                tally.count(REFUSED, 1)
                return None
            tally.count(accepted if num else UPDATED, 1)
            return score

        return Ask(chunk.data, 1, None, True, reads)

    def _reader(self, entries: int) -> Reader[Any]:
        """Read the reply to so many entries: the count of ZADD, or the script's result."""
        if self.script is None:
            return up_to(entries)
        limited = self.ctx.options.remember == "limited"
        read = _outcome_of(entries, entries if self.outcomes else 0, self.epoch, limited)
        return read if self.settling is None else self._settled(read)

    def _settled(self, read: Reader[Any]) -> Reader[Any]:
        """Read the reply of a step that settles and adds. It adds nothing if no lease was held."""

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

    def count(self, chunk: Any, num: int) -> AddResult:
        """Count the outcome of a plain ZADD that replied a number. Return the result of its call.

        A short path: with `judge` an `add_many` of one item takes a twentieth longer.
        """
        rest, condition, tally = chunk.good - num, self.condition, self.ctx.reporter.tally
        if num:
            tally.count(UPDATED if condition == "xx" else ADDED, num)
        if rest:
            tally.count(REFUSED if condition else UPDATED, rest)
        if condition == "":
            return AddResult(num, rest)
        return AddResult(0, num, rest) if condition == "xx" else AddResult(num, 0, rest)

    def judge(self, chunk: Any, reply: Any) -> tuple[int, int, int, bytes, Any]:
        """Read a reply, and count its outcome."""
        found = self._outcome(chunk, reply)
        self.ctx.reporter.count_adds(*found[:3])
        return found

    def _outcome(self, chunk: Any, reply: Any) -> tuple[int, int, int, bytes, Any]:
        """Return added, updated, refused, each entry's outcome, and how long each is known.

        That time is ``math.inf``, the milliseconds of each entry, or None if the reply lacks it.

        Raises
        ------
        OtherEpoch, OtherLeases, Full, OptionsDiffer
            If the step refused for this reason. It wrote nothing then.
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
            self.ctx.memory.epoch = self.epoch
            self.proposed = False
            self._make_encoder(self.epoch)
        elif self.ctx.options.remember:
            self.ctx.memory.epoch = self.epoch
        added, updated, outcomes, known = reply
        lasting = known
        if self.ctx.options.remember == "ever":
            # After a plain add all entries are known.
            lasting = math.inf if known == 0 or self.condition == "" else None
        if self.skips and type(chunk) is not _operations.skipping.Rest:
            self.ctx.scores.mostly_queued = 2 * added < chunk.entries
        fills = bool(self.ctx.options.remember) and not self.aside
        self.heavy = fills and 2 * (added + updated) > chunk.entries
        refused = chunk.entries - added - updated
        more_updated, more_refused = self.without_entry(chunk)
        return added, updated + more_updated, refused + more_refused, outcomes, lasting

    def without_entry(self, chunk: Any) -> tuple[int, int]:
        """Return how many items without an entry count as updated, and as refused."""
        folded = chunk.good - chunk.entries
        return (folded, 0) if self.fold == self.ctx.wire.FOLD_LAST else (0, folded)


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
) -> dict[str, Any]:
    """Return the arguments of a step that adds, besides its entries, by name."""
    return {
        "condition": condition,
        "again": again,
        "wanted": outcomes,
        "max_size": ctx.options.max_size or "",
        "keyed": ctx.options.keyed,
        "remember": ctx.options.remember,
        "ttl": ctx.options.memory_ttl,
        "epoch": epoch,
        "proposed": proposed,
        "options": ctx.options.text,
        "asks": asks,
        "ties": ctx.options.ties,
        "aside": aside,
    }


class Refusal(NamedTuple):
    """The reason for which a step wrote nothing: a word, and the set's epoch, options or size."""

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
            f"the set holds {self.detail} items, and max_size is {ctx.options.max_size}; "
            "chunks are refused whole"
        )


def _chunk_of(options: SetOptions, light: bool, condition: str) -> int:
    """Return the largest number of entries in a request while no memory is filled."""
    if light and condition in ("", "nx", "xx"):
        return CHUNK
    return GROUPED_CHUNK if options.grouped else SCRIPT_CHUNK


def _may_skip(options: SetOptions, condition: str) -> bool:
    """Return whether adds with a condition may leave out queued items (`skipping`)."""
    more = options.keyed or options.remember
    return bool(options.ties) and condition in ("", "nx") and not more


def is_large(chunk: Any) -> bool:
    """Whether a chunk is one item that not every server may take."""
    return chunk.entries == 1 and len(chunk.data) > CHUNK_BYTES


def refusal_of(parts: list[Any], words: Collection[bytes]) -> Refusal | None:
    """Read the refusal of a step that wrote nothing, which begins with one of these words."""
    word = bytes_of(parts[0]) if parts else b""
    if word in words and len(parts) == (1 if word == b"NAME" else 2):
        detail = parts[1] if len(parts) == 2 else b""
        return Refusal(word, count(detail) if word == b"FULL" else bytes_of(detail))
    return None


def _outcome_of(
    entries: int, marks: int, epoch: bytes, limited: bool
) -> Reader[Refusal | tuple[int, int, bytes, Any]]:
    """Read the script's result for so many entries, with so many marks."""

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
        # A set with the epoch of the request cannot reply that it has another one.
        if refusal is not None and refusal != (b"EPOCH", epoch):
            return refusal
        raise refuse("the outcome of the entries, or a refusal", reply)

    return read


class OtherEpoch(Exception):
    """A step carried an epoch that the set no longer has."""

    def __init__(self, stored: bytes) -> None:
        super().__init__(stored)
        self.stored = stored


class OtherLeases(OtherEpoch):
    """All leases that a step settles are lost. Leases of the call's other tokens may be held."""


def score_for(ctx: Context, item: Any, score: Any) -> float | None:
    """Check a score, or ask the scorer for it; None if that is the server's clock."""
    made: float | None = None
    if score is not None:
        made = ctx.scores.parse(score)
    elif type(ctx.codec.scorer) is not ServerClock:
        made = ctx.scores.parse(ctx.wire.score_of(item, ctx.codec.scorer, ctx.options.due))
    return made


def add(
    ctx: Context, item: Any, score: Any, flags: Flags, later: Ahead | None = None
) -> Operation[float | None] | Ask:
    """Add one item. Return its score, or None if refused. ``later`` is the clock of a delay."""
    if flags.remember is None and later is None:
        try:
            adder = ctx.codec.adders.get(flags)
        except TypeError:  # a flag without a hash
            flags.check()
            raise
        if adder is None:
            adder = _plain_adder(ctx, flags)
        if adder is not None and adder.command:
            made = score_for(ctx, item, score)
            if made is not None:
                request: Ask = adder.one(item, made)
                return request
    return _add_in_steps(ctx, item, score, flags, later)


def _plain_adder(ctx: Context, flags: Flags) -> Adder | None:
    """Make the adder of an object's first add, if that needs nothing of the server.

    A short path: an object that is made for one add takes a tenth less with it. The adder of its
    first add is not kept, which takes another tenth: the garbage collector alone could free it, and
    with it the object's parts.
    """
    if ctx.options.remember or isinstance(ctx.codec.scorer, Clock):
        return None
    flags.check()
    adder = Adder(ctx, flags, None, False)
    adder._make_encoder(b"")
    if ctx.codec.added:
        ctx.codec.adders = {**ctx.codec.adders, flags: adder}
    ctx.codec.added = True
    return adder


def _add_in_steps(
    ctx: Context, item: Any, score: Any, flags: Flags, later: Ahead | None
) -> Operation[float | None]:
    flags.check()
    clock: Any = later
    if clock is None:
        score = score_for(ctx, item, score)
        clock = ctx.codec.scorer if score is None else None
    if flags.remember is not None:
        flags.check_remember(ctx)  # 0 equals False, and may not be
    adder = ctx.codec.adders.get(flags)
    if adder is None:
        adder = Adder(ctx, flags, None, False)
        if ctx.options.remember or isinstance(ctx.codec.scorer, Clock):
            adder.try_to_encode(item)
        yield from adder.prepare()
        ctx.codec.adders = {**ctx.codec.adders, flags: adder}
    if clock is not None:
        yield from clock.refresh(ctx)
        score = clock(item)
    while True:
        trust, due = yield from adder.look(1)
        if due:
            trust = yield from _operations.known.check_memory(ctx)
        (chunk,), trust, generation = adder.encode([item], [score], False, trust)
        if chunk.bad:
            raise chunk.bad[0].error
        if not chunk.entries:
            ctx.reporter.count(REFUSED, 1)
            return None
        sent = monotonic()
        reply = yield adder.ask(chunk)
        try:
            added, updated, _, _, lasting = adder.judge(chunk, reply)
        except OtherEpoch as other:
            adder.other_epoch(other.stored)
        else:
            if trust is not None and lasting is not None:
                yield from _operations.known.learn(trust, generation, chunk.digests, lasting, sent)
            return score if added or updated else None
