"""Adding a few items: a short path for lists that fit one chunk.

Theory of operation. A crawler adds the twenty URLs of a page, a web application one job a request.
For so few items a stream spends more time on its batches and its window than on the request. This
path encodes the list, sends one step and reads its reply.

The result is that of `add_stream`. Items are encoded in the same way. The encoded items are handed
to a stream before any request if

- an item is bad: the stream sends the items before it, and names it;
- the list is more than one chunk, or an item is so large that it travels alone.

`add_stream` itself adds other lists:

- the first list of an object with a memory, which may end with a warning;
- lists that the server's clock scores;
- lists whose bad items are skipped.

A call adds less than half of the time to the client's own work that a stream adds (`benchmarks`,
measure `add_few`).
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from redset import _operations
from redset._operations.adding import Adder, AddResult, Flags, OtherEpoch, is_large
from redset._operations.context import Context
from redset._operations.limits import GROUPED_CHUNK, SCRIPT_CHUNK
from redset._operations.reporting import REFUSED
from redset._operations.scores import Clock
from redset._transport.effects import Operation

#: The most items of a list that takes the short path.
FEW = SCRIPT_CHUNK


def add_few(
    ctx: Context, items: Any, score: Any, flags: Flags, condition: str
) -> Operation[AddResult] | None:
    """Return the operation that adds a list, or None if that is for `add_stream`.

    Args:
        score: As `add_many` takes it: a number, a score for each item, or None for the scorer.
        condition: The condition of the flags.
    """
    kind = type(items)
    most = GROUPED_CHUNK if ctx.options.grouped else FEW
    if not (kind is list or kind is tuple) or not 0 < len(items) <= most:
        return None
    remember: Any = flags.remember
    if remember is not None and type(remember) is not bool:
        return None  # an error: as a key of spare adders 0 would equal False
    if (ctx.options.remember and ctx.memory.fresh) or (
        score is None and isinstance(ctx.codec.scorer, Clock)
    ):
        return None
    kind, scores = type(score), None
    if kind is list or kind is tuple or kind is range:
        if len(score) != len(items):
            return None
        # Copies, here and below: encoding may run code of the caller's.
        scores = list(score)
    elif kind is float or kind is int:
        scores = [ctx.scores.parse(score)] * len(items)
    elif score is not None:
        return None
    return _add(ctx, list(items), scores, flags, condition)


def _add(
    ctx: Context, items: list[Any], scores: list[Any] | None, flags: Flags, condition: str
) -> Operation[AddResult]:
    # A call takes an adder out while it uses it, since threads must not share one. It gives it back
    # to the same dict: a new serializer or scorer has a new one.
    codec, use = ctx.codec, (condition, flags.again, flags.remember)
    spare = codec.spare_adders
    if spare is None:
        spare = codec.spare_adders = {}
    adder = spare.pop(use, None)
    if adder is not None and adder.command:
        # Without `_add_chunk`: a ZADD has nothing to ask for, and no answer to learn from.
        chunks, _, _ = adder.encode(items, scores, False, None)
        chunk = chunks[0]
        if chunk.bad or len(chunks) > 1 or is_large(chunk):
            stream = _operations.streaming.stream_encoded
            result = yield from stream(adder, items, scores, chunks, None, 0)
        else:
            try:
                reply = yield adder.ask(chunk)
            except Exception as error:
                raise _operations.streaming.failure(error) from error
            result = adder.count(chunk, reply)
    else:
        adder = adder or Adder(ctx, flags, None, False)
        result = yield from _add_chunk(ctx, adder, items, scores)
    spare[use] = adder
    if ctx.reporter.tally.reports < 2 and ctx.reporter.is_new:
        yield from _operations.operating.report(ctx)
    return result


def _add_chunk(
    ctx: Context, adder: Adder, items: list[Any], scores: list[Any] | None
) -> Operation[AddResult]:
    adder.heavy = False
    if adder.encoder is None or (ctx.options.remember and ctx.memory.epoch != adder.epoch):
        try:
            yield from adder.prepare()
        except Exception as error:
            raise _operations.streaming.failure(error) from error
    while True:
        trust = None
        if adder.tabled:
            trust, due = yield from adder.look(len(items))
            if due:
                try:
                    trust = yield from _operations.known.check_memory(ctx)
                except Exception as error:
                    raise _operations.streaming.failure(error) from error
        chunks, trust, generation = adder.encode(items, scores, False, trust)
        chunk = chunks[0]
        if chunk.bad or len(chunks) > 1 or is_large(chunk):
            stream = _operations.streaming.stream_encoded
            return (yield from stream(adder, items, scores, chunks, trust, generation))
        if not chunk.entries:
            ctx.reporter.count(REFUSED, chunk.good)
            return AddResult(0, 0, chunk.good, 0)
        sent = monotonic()
        try:
            if adder.skips:
                chunk = yield from _operations.skipping.without_queued(adder, chunk)
                if not chunk.entries:
                    others = adder.without_entry(chunk)
                    ctx.reporter.count_adds(0, *others)
                    return AddResult(0, *others, 0)
            reply = yield adder.ask(chunk)
            added, updated, refused, _, lasting = adder.judge(chunk, reply)
        except OtherEpoch as other:
            # The server refused the whole chunk: encode it again.
            adder.begin_again(other)
            continue
        except Exception as error:
            raise _operations.streaming.failure(error) from error
        if trust is not None and lasting is not None:
            yield from _operations.known.learn(trust, generation, chunk.digests, lasting, sent)
        return AddResult(added, updated, refused, 0)
