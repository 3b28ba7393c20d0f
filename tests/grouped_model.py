"""The model of a grouped set: it knows what a call may hand out, and what it must.

Turns are a partial order. A group joins the line at a step, or at an unknown one between two: a
group that discards have emptied may have kept its place. Of groups that joined in the same step
either may be the first.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

#: A step that is still to come.
LATER = 1 << 30


class Broken(AssertionError):
    """The set did what the model does not allow."""


class Held:
    """A leased item, or one that waits out a delay (without a lease)."""

    def __init__(self, group: str | None, score: float, lease: Any, slot: bool) -> None:
        self.group, self.score, self.lease = group, score, lease
        self.member, self.slot = lease.member, slot
        #: Group and score of an add during the lease.
        self.again: tuple[str | None, float] | None = None


class GroupedModel:
    """A set whose items are names. Its time passes only if a test lets it.

    Parameters
    ----------
    limit : int or None
        The set's ``group_limit``.
    rests : bool
        Whether the set has an interval, which is longer than a test.
    """

    def __init__(self, limit: int | None, rests: bool) -> None:
        self.limit, self.rests = limit, rests
        self.queued: dict[str, tuple[str | None, float]] = {}
        self.held: dict[str, Held] = {}
        self.own: dict[str, int | None] = {}
        self.resting: set[str] = set()
        self.suspects: set[str] = set()
        #: The first and the last step at which a group in line may have joined it.
        self.joined: dict[str | None, tuple[int, int]] = {}
        #: Those that are in line, or were, and have nothing that may start.
        self.left: set[str | None] = set()
        self.step = 0

    # Figures.

    def most(self, group: str | None) -> float:
        limit = None if group is None else self.own.get(group, self.limit)
        return math.inf if limit is None else limit

    def working(self, group: str | None) -> int:
        """Return the number of slots: leases from a time without a limit have none."""
        return sum(held.slot and held.group == group for held in self.held.values())

    def waiting(self, group: str | None) -> list[tuple[float, str]]:
        return sorted((score, name) for name, (of, score) in self.queued.items() if of == group)

    def available(self, group: str | None) -> int:
        """Return the number of items that a call may hand out of a group."""
        if group in self.resting:
            return 0
        num = min(len(self.waiting(group)), self.most(group) - self.working(group))
        starts = 1 if self.rests and group is not None else num
        return int(max(0, min(num, starts)))

    def ready(self) -> dict[str | None, int]:
        groups = {group for group, _ in self.queued.values()}
        return {group: num for group in groups if (num := self.available(group))}

    def _place(self) -> None:
        """End a step: groups that became ready join the line."""
        ready = self.ready()
        for group in list(self.joined):
            if group in self.resting:
                del self.joined[group]
                self.left.discard(group)
            elif group not in ready:
                self.left.add(group)
        for group in ready:
            if group in self.left:
                # Its place may be the old one, of entries that are gone.
                self.joined[group] = (self.joined[group][0], self.step)
                self.left.discard(group)
            self.joined.setdefault(group, (self.step, self.step))
        self.step += 1

    # Changes.

    def add(self, name: str, group: str | None, score: float) -> None:
        held = self.held.get(name)
        if held is not None:
            held.again = (group, score)
        else:
            self.queued[name] = (group, score)
        self._place()

    def end(self, name: str, how: str, delay: bool = False, rest: bool = False) -> None:
        """End a lease, or a delay."""
        held = self.held.pop(name)
        if rest and held.group is not None:
            self.resting.add(held.group)
        if how == "expire" and held.lease is not None:
            self.suspects.add(name)
        elif how != "release":
            self.suspects.discard(name)
        back = held.again or (None if how == "ack" else (held.group, held.score))
        if back is None:
            return
        if delay:
            self.held[name] = held
            held.lease, held.slot = None, False
        else:
            self.queued[name] = back

    def settled(self) -> None:
        self._place()

    def discard(self, names: list[str]) -> int:
        gone = 0
        for name in set(names):
            gone += self.queued.pop(name, None) is not None or name in self.held
            self.held.pop(name, None)
            self.suspects.discard(name)
        self._place()
        return gone

    def pause(self, group: str, on: bool) -> None:
        if on:
            self.resting.add(group)
        elif not self.rests:
            # With an interval it rests on: the set does not know when that ends.
            self.resting.discard(group)
        self._place()

    def together(self, steps: int) -> None:
        """Count the last so many steps as one."""
        first = self.step - steps
        for group, (early, late) in self.joined.items():
            if late >= first:
                self.joined[group] = (min(early, first), late)

    def wake(self) -> None:
        """End all rests, as if their time had passed. The next hand-out notices it."""
        woken = set(self.resting)
        self.resting.clear()
        self._place()
        for group in woken & self.joined.keys():
            self.joined[group] = (self.joined[group][0], LATER)

    def set_own(self, group: str, limit: int | None, remove: bool) -> None:
        if remove:
            self.own.pop(group, None)
        else:
            self.own[group] = limit
        self._place()

    def clear(self) -> None:
        # As new: nothing of the model outlives a clear.
        self.__init__(self.limit, self.rests)  # type: ignore[misc]

    # Hand-outs.

    def handed_out(self, found: list[tuple[str, str | None, Any]], num: int) -> None:
        """Check the result of a call for so many items: name, group, and the lease if there is one.

        A take takes turns as if each item were done at once.
        """
        ready = self.ready()
        for group, (first, last) in self.joined.items():
            self.joined[group] = (first, min(last, self.step))
        counts = Counter(group for _, group, _ in found)
        taken = bool(found) and found[0][2] is None
        for name, group, _ in found:
            self._check_item(name, group)
        for group, many in counts.items():
            most = ready.get(group, 0)
            if taken and most and (group is None or not self.rests):
                # It holds no slot, so a group may have several turns.
                most = len(self.waiting(group))
            if many > most:
                raise Broken(f"{many} of {group}, of which {ready.get(group, 0)} may start")
        if not self.queued.keys() & self.suspects:
            self._check_order(found)
            if not taken:
                self._check_number(ready, counts, num)
                self._check_turns(ready, counts)
        for name, group, lease in found:
            score = self.queued.pop(name)[1]
            if lease is None:
                self.suspects.discard(name)
            else:
                self.held[name] = Held(group, score, lease, self.most(group) < math.inf)
            if group is not None and self.rests:
                self.resting.add(group)
        for group in counts:
            self.joined.pop(group, None)
            self.left.discard(group)
        self._place()

    def _check_item(self, name: str, group: str | None) -> None:
        if name not in self.queued:
            raise Broken(f"{name} was handed out, and is not queued")
        if self.queued[name][0] != group:
            raise Broken(f"{name} was handed out of {group}, and is in {self.queued[name][0]}")

    def _check_order(self, found: list[tuple[str, str | None, Any]]) -> None:
        scores: dict[str | None, list[float]] = {}
        for name, group, _ in found:
            scores.setdefault(group, []).append(self.queued[name][1])
        for group, given in scores.items():
            lowest = [score for score, _ in self.waiting(group)][: len(given)]
            if given != lowest:
                raise Broken(f"of {group} {given} were handed out, not {lowest}")

    @staticmethod
    def _check_number(ready: dict[str | None, int], counts: Counter[str | None], num: int) -> None:
        if sum(counts.values()) != min(num, sum(ready.values())):
            raise Broken(f"{dict(counts)} of {num} were handed out, and {ready} are ready")

    def _check_turns(self, ready: dict[str | None, int], counts: Counter[str | None]) -> None:
        unserved = [group for group in ready if not counts[group]]
        for late in unserved:
            for early in counts:
                if self.joined[late][1] < self.joined.get(early, (0, 0))[0]:
                    raise Broken(f"{early} went before {late}: {self.joined}")
        for group, many in counts.items():
            for other in ready:
                if counts[other] + 1 < many and counts[other] < ready[other]:
                    raise Broken(f"{many} of {group}, and {counts[other]} of {other}: {ready}")
