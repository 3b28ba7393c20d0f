"""State of a set's object: facts about its server, learned from replies."""

from __future__ import annotations

import copy
import math
import os
from typing import Any

from redset._operations.limits import FIRST, STEP_BYTES


class MemoryState:
    """Facts about the set's memory, and about the table that caches it."""

    __slots__ = ("_origin", "epoch", "fresh", "next_check", "tabled", "tables", "trust", "used")

    def __init__(self, tabled: bool) -> None:
        #: Whether the known table may answer for the server.
        self.tabled = tabled
        self.epoch: bytes | None = None
        #: Result of the last check of the known table, and the earliest time of the next check.
        self.trust: Any = None
        self.next_check = -math.inf
        #: The time at which an add last looked for a table.
        self.used = -math.inf
        #: The tables that answered for the server, if a writer records them.
        self.tables: set[Any] | None = None
        #: Whether no bulk add has ended yet.
        self.fresh = True
        #: The state of the set, if this state belongs to a writer.
        self._origin: MemoryState | None = None

    def believe(self, trust: Any) -> None:
        """Set the trust. A writer's trust is also its set's."""
        self.trust = trust
        if self._origin is not None:
            self._origin.trust = trust

    def of_writer(self) -> MemoryState:
        """Return a state for a writer to the same set. It notes the tables that answer."""
        made = copy.copy(self)
        made.tables, made._origin = set(), self
        return made


class RemovalState:
    """Facts about the rights to remove, and about leases in the set."""

    __slots__ = ("alone", "multi", "next_look", "next_options", "recorded", "unanswered")

    def __init__(self) -> None:
        #: Whether the server takes a MULTI from this user; None until the first reply.
        self.multi: bool | None = None
        #: Whether the server last refused this user the second keys.
        self.alone = False
        #: Whether the set had records of leases when a `pop` or `take` last asked, and the time at
        #: which the next one may ask again.
        self.recorded = False
        self.next_look = -math.inf
        #: The earliest time of the next look at the set's stored options.
        self.next_options = -math.inf
        #: Process, token and number of items of lease calls that failed: the server may have
        #: performed them.
        self.unanswered: list[tuple[int, bytes, int]] = []


class Sizes:
    """Sizes of the items that were read, which bound the next steps."""

    __slots__ = ("largest", "reached")

    def __init__(self) -> None:
        #: Bytes of the largest item, and the most items that one step handed out.
        self.largest = self.reached = 0

    @property
    def first(self) -> int:
        """Number of items that a step reads at first: one until an item's size is known."""
        return max(1, min(FIRST, STEP_BYTES // self.largest)) if self.largest else 1

    @property
    def most_unseen(self) -> int:
        """The most items that a command may read: it cannot stop after a number of bytes.

        The command reads at most twice as many items as any step before it.
        """
        return max(1, min(max(FIRST, 2 * self.reached), STEP_BYTES // max(self.largest, 1)))

    def note(self, raws: list[bytes]) -> None:
        """Learn the size of the largest item."""
        if raws:
            self.largest = max(self.largest, max(map(len, raws)))


def new_epoch() -> bytes:
    return os.urandom(8).hex().encode()
