"""Adds to a set with ``ties=``: leave out entries that are queued as they should be.

Theory of operation. Without ``ties=`` a ZADD refuses or repeats a queued item at almost no cost.
With it each entry of a step is judged in Lua, which costs the server four times as much. A
scheduled job that adds the same items again and again pays that for nothing. So after a chunk of
which most entries were queued, the next one is two steps: a ZMSCORE of its members, and a step
that adds only the new and the moved ones. If these are more than half, the next chunk is one step
again.

An entry that is left out counts as updated, under ``nx`` as refused, as of the time of the
question. If all entries of a chunk are left out, the options of the set are not compared.

This is for sets without ``key=`` and ``remember=``. With ``key=`` the payload has to be written,
and with ``remember`` a queued item may have to become known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from redset._operations.replies import is_answer, numbers_or_none
from redset._operations.scores import TIE
from redset._transport.effects import Operation

if TYPE_CHECKING:
    from redset._operations.adding import Adder

#: A chunk of fewer entries is not worth a second round trip.
WORTH = 16


class Rest(NamedTuple):
    """A chunk without the entries that are queued as they should be (see `Chunk` of the wire)."""

    data: bytes
    entries: int
    #: With those that are left out, which then count as items folded into others do.
    good: int
    places: list[int] | None
    digests: bytes = b""


def without_queued(adder: Adder, chunk: Any) -> Operation[Any]:
    """Return a chunk of an adder that skips, or what is left of it."""
    ctx = adder.ctx
    if not ctx.scores.mostly_queued or chunk.entries < WORTH:
        return chunk
    (request,) = ctx.wire.split(chunk.data)
    first = len(request) - 2 * chunk.entries
    scores, members = request[first::2], request[first + 1 :: 2]
    reads = numbers_or_none(len(members))
    try:
        stored = yield ctx.command(b"ZMSCORE", ctx.keys.queue, *members, reads=reads)
    except Exception as error:
        if not is_answer(error):
            raise
        return chunk  # the step has an error of its own
    if adder.condition == "nx":
        kept = [at for at, there in enumerate(stored) if there is None]
    else:
        kept = [
            at
            for at, (there, score) in enumerate(zip(stored, scores, strict=True))
            if there is None or there // TIE != float(score)
        ]
    ctx.scores.mostly_queued = 2 * len(kept) < chunk.entries
    if len(kept) == chunk.entries:
        return chunk
    entries = [value for at in kept for value in (scores[at], members[at])]
    data = ctx.wire.encode([*request[:first], *entries]) if kept else b""
    places = None if chunk.places is None else [chunk.places[at] for at in kept]
    return Rest(data, len(kept), chunk.good, places)
