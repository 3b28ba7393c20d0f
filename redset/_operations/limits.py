"""Limits of a step: items, bytes, and how much is in flight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

#: Items a chunk of a bulk add by command and by script, and chunks in flight. Larger ones keep
#: the server from its other clients for milliseconds, smaller ones gain nothing.
CHUNK = 500
SCRIPT_CHUNK = 250
WINDOW = 4
#: The same while a memory takes most of what a chunk brings, which keeps the server several times
#: as long as refusing it; all that is in flight may be performed before another client's request.
HEAVY_CHUNK = 125
HEAVY_WINDOW = 2
#: Bytes of a chunk's entries, of which a single larger one is a chunk of its own.
CHUNK_BYTES = 2**20
#: Bytes of members and payloads that any other step reads or carries, unless a single item is
#: larger; as BYTES in portions.lua.
STEP_BYTES = 2**18
#: The most items that a step reads before it knows their size.
FIRST = 16
#: The most bytes of a serialised item by default: what a server takes as one argument by default
#: (proto-max-bulk-len, 512 MB), less a margin.
ITEM_BYTES = 2**29 - 2**16
#: Items that a bulk add folds and sorts together, before it cuts what stays into chunks.
FOLD = 1000
#: Encoders that a set keeps for its next bulk add.
ENCODERS = 8
#: Identities a step of the other bulk calls; of those that ask or change a memory, whose every
#: entry is a command of its own, half as many.
STEP = 1000
MEMORY_STEP = 500
#: Items encoded or decoded between two pauses.
RUN = 250
#: Items a step of leases and settlements, and the most expired leases that a step gives back.
LEASE_STEP = 100


def cut_by_bytes(
    values: list[T],
    most: int,
    size: Callable[[T], int] = len,  # type: ignore[assignment]
) -> Iterator[list[T]]:
    """Yield parts of at most so many values and STEP_BYTES, or of a single larger one."""
    part: list[T] = []
    room = 0
    for value in values:
        room -= size(value)
        if part and (room < 0 or len(part) == most):
            yield part
            part = []
        if not part:
            room = STEP_BYTES - size(value)
        part.append(value)
    if part:
        yield part
