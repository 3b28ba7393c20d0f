"""Limits of a step, in items and bytes, and of the steps in flight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

#: Items per chunk of a bulk add by command and by script, and chunks in flight. Larger chunks keep
#: the server from its other clients for milliseconds. Smaller ones gain nothing.
CHUNK = 500
SCRIPT_CHUNK = 250
WINDOW = 4
#: The same in a set with groups. With a million groups, a chunk of 250 new ones took 5.2 ms of the
#: server (``benchmarks/groups.py``).
GROUPED_CHUNK = 200
#: The same while a memory accepts most items of a chunk. That takes the server several times as
#: long as refusing them, and it may perform the whole window before another client's request.
HEAVY_CHUNK = 125
HEAVY_WINDOW = 2
#: Bytes of a chunk's entries. A single larger entry is a chunk of its own.
CHUNK_BYTES = 2**20
#: Bytes of members and payloads that any other step reads or carries, unless a single item is
#: larger. BYTES in portions.lua has the same value.
STEP_BYTES = 2**18
#: The most items that a step reads while their size is unknown.
FIRST = 16
#: The most bytes of a serialised item by default: a server's default limit of one argument
#: (proto-max-bulk-len, 512 MB), less a margin.
ITEM_BYTES = 2**29 - 2**16
#: Items that a bulk add folds and sorts together. Then it cuts the kept ones into chunks.
FOLD = 1000
#: Encoders that a set keeps for its next bulk add.
ENCODERS = 8
#: Identities per step of the other bulk calls. Calls that read or change a memory have half as
#: many, since each entry is a command of its own.
STEP = 1000
MEMORY_STEP = 500
#: Items encoded or decoded between two pauses.
RUN = 250
#: Items per step of leases and settlements, and the most expired leases that a step returns.
LEASE_STEP = 100


def cut_by_bytes(
    values: list[T],
    most: int,
    size: Callable[[T], int] = len,  # type: ignore[assignment]
) -> Iterator[list[T]]:
    """Yield parts of at most so many values and STEP_BYTES, or of a single larger value."""
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
