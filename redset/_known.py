"""The process's tables of known duplicates: one for each memory that it adds to."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple


class Memory(NamedTuple):
    """What tells one memory from all others, and from what it was before something was forgotten.

    A server's run is that of its process since it was started or last became the primary.
    """

    name: bytes
    database: int
    run: bytes
    epoch: bytes
    forgets: bytes


class _Tables:
    """Those that somebody uses; a table goes with the last of its sets."""

    def __init__(self) -> None:
        # Of one thread, since a collection of garbage may call whatever uses a set.
        self.lock = threading.RLock()
        self.by_memory: weakref.WeakValueDictionary[tuple[Memory, Any], Any] = (
            weakref.WeakValueDictionary()
        )


_tables = _Tables()


def _start_again() -> None:
    """Leave a forking process's tables alone: another thread may have held their locks."""
    global _tables
    _tables = _Tables()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_again)


def era() -> object:
    """Give what is another object in a forked child: tables are of one process."""
    return _tables


def table_of(memory: Memory, kind: Callable[[int], Any], most: int) -> Any:
    """Give the table of a memory, which the first to ask for it makes."""
    tables = _tables
    with tables.lock:
        table = tables.by_memory.get((memory, kind))
        if table is None:
            table = tables.by_memory[memory, kind] = kind(most)
        return table


def empty(name: bytes) -> None:
    """Empty all tables of sets of this name, by whatever way their servers are reached."""
    tables = _tables
    with tables.lock:
        some = [table for (memory, _), table in tables.by_memory.items() if memory.name == name]
    for table in some:
        table.clear()
