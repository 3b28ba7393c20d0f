"""The process's tables of known duplicates: one for each memory that it adds to."""

from __future__ import annotations

import math
import os
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

#: Number of digests in a check that were learned last, and of random ones from a pool. The pool's
#: size.
LAST, RANDOM, POOL = 32, 8, 256


class Memory(NamedTuple):
    """Identity of a memory. It changes if an item is forgotten.

    A server's run begins when its process starts, or becomes the primary.
    """

    name: bytes
    database: int
    run: bytes
    epoch: bytes
    forgets: bytes


class Sample:
    """Some of a table's digests. A check asks for them, to see whether the server has the memory.

    A restored dump lacks the newest entries. A deleted bucket lacks some of any age. So a sample
    keeps the last `LAST` entries, and `POOL` others. Threads share it without a lock: they may
    overwrite each other's digests, which are then not checked.

    Attributes
    ----------
    count : int
        The largest number of items that the memory had at a check.
    evicted : bytes
        Number of keys that the server had evicted.
    checked : float
        The time of the last check.
    """

    __slots__ = ("_last", "_pool", "checked", "count", "evicted", "generation")

    def __init__(self) -> None:
        self._last: deque[tuple[bytes, float]] = deque(maxlen=LAST)
        self._pool: list[tuple[bytes, float]] = []
        self.count = 0
        self.evicted: bytes | None = None
        self.checked = -math.inf
        #: The table's generation when the sample was made.
        self.generation = 0

    def add(self, digests: bytes, until: Sequence[float] | float) -> None:
        """Keep some of the digests that the table learned, 16 bytes each."""
        num = len(digests) // 16
        if not num:
            return

        def entry(at: int) -> tuple[bytes, float]:
            time = until if isinstance(until, float) else until[at]
            return digests[16 * at : 16 * at + 16], time

        self._last.extend([entry(at) for at in range(max(0, num - LAST), num)])
        # randrange takes five times as long.
        chosen = entry(int(random.random() * num))
        if len(self._pool) < POOL:
            self._pool.append(chosen)
        else:
            self._pool[int(random.random() * POOL)] = chosen

    def draw(self, least: float) -> list[bytes]:
        """Return the digests to ask for, which are valid until later than ``least``."""
        pool = list(self._pool)
        some = [*self._last.copy(), *random.sample(pool, min(RANDOM, len(pool)))]
        return [digest for digest, until in some if until > least]


class _Tables:
    """The tables in use. A table is freed with the last of its sets."""

    def __init__(self) -> None:
        # A thread may enter again: a garbage collection may run code that uses a set.
        self.lock = threading.RLock()
        self.by_memory: weakref.WeakValueDictionary[tuple[Memory, Any], Any] = (
            weakref.WeakValueDictionary()
        )
        self.samples: weakref.WeakKeyDictionary[Any, Sample] = weakref.WeakKeyDictionary()


_tables = _Tables()


def _start_again() -> None:
    """Make new tables in a forked child: another thread may have held the lock of the old ones."""
    global _tables
    _tables = _Tables()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_again)


def era() -> object:
    """Return an object that differs in a forked child: tables belong to one process."""
    return _tables


def table_of(memory: Memory, kind: Callable[[int], Any], most: int) -> Any:
    """Return the table of a memory. The first call for it makes it."""
    tables = _tables
    with tables.lock:
        table = tables.by_memory.get((memory, kind))
        if table is None:
            table = tables.by_memory[memory, kind] = kind(most)
        return table


def sample_of(table: Any) -> Sample:
    """Return the sample of a table: a new one if the table was emptied since."""
    tables = _tables
    with tables.lock:
        sample = tables.samples.get(table)
        if sample is None or sample.generation != table.generation:
            sample = tables.samples[table] = Sample()
            sample.generation = table.generation
        return sample


def tables_of(name: bytes, epoch: bytes) -> list[Any]:
    """Return the tables of a set's memory, also those from before items were forgotten."""
    tables = _tables
    with tables.lock:
        return [
            table
            for (memory, _), table in tables.by_memory.items()
            if memory.name == name and memory.epoch == epoch
        ]


def empty(name: bytes) -> None:
    """Empty all tables of sets with this name, on any server."""
    tables = _tables
    with tables.lock:
        some = [table for (memory, _), table in tables.by_memory.items() if memory.name == name]
    for table in some:
        table.clear()
