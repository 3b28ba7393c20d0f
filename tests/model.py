"""The model of a set, in the plainest Python: a dict, a set and a list, one item at a time."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from redset import Key
from redset.exceptions import AddError, DecodeError, Full

#: The flag that has the effect of each value of ``duplicates``.
FLAG = {"move": "", "keep": "nx", "lowest": "lt", "highest": "gt"}
#: A set refuses for its ``max_size`` chunk by chunk; a call of the model is one chunk.
CHUNK = 250
#: A take of more is a script: it knows no size that would bound a command.
BY_COMMAND = 16


class Text:
    """Return the stored bytes of an item without a serializer."""

    @staticmethod
    def dumps(item: Any) -> bytes:
        return item if isinstance(item, bytes) else str(item).encode()

    @staticmethod
    def loads(raw: bytes) -> Any:
        return raw.decode()


class Json:
    """Return the stored bytes of an item with a `redset.serializers.JSONSerializer`."""

    @staticmethod
    def dumps(item: Any) -> bytes:
        text = json.dumps(item, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return text.encode()

    @staticmethod
    def loads(raw: bytes) -> Any:
        return json.loads(raw.decode())


class Model:
    """A set. Its time stands still: nothing is forgotten by and by, nothing gets due.

    A consumer that can decode nothing may empty it, so at most 9 items may be undecodable.

    Parameters
    ----------
    codec : Text or Json
        The stored bytes of an item.
    key, scorer : callable, optional
        Give an item's identity and its score.
    remember, duplicates, max_size
        The set's options.
    due_until : float, optional
        The highest score that is handed out.
    """

    def __init__(
        self,
        codec: Any = Text,
        *,
        key: Callable[[Any], Any] | None = None,
        scorer: Callable[[Any], float] | None = None,
        remember: Any = None,
        duplicates: str = "move",
        max_size: int | None = None,
        ties: str | None = None,
        due_until: float = math.inf,
    ) -> None:
        self.codec = codec
        self.key = key
        self.scorer = scorer
        self.remember = remember
        self.duplicates = duplicates
        self.max_size = max_size
        self.ties = ties
        self.due_until = due_until
        #: Member to (score, stored bytes of the item).
        self.queued: dict[bytes, tuple[float, bytes]] = {}
        #: With `ties`: member to its place among equal scores, also after it left the queue.
        self.places: dict[bytes, int] = {}
        self._taken = 0
        self.known: set[bytes] = set()
        self.dead: list[bytes] = []

    # Members and their order.

    def member(self, item: Any) -> bytes:
        """Return the member of an item, or of a Key, in the sorted set."""
        if isinstance(item, Key):
            data = bytes(item)
        elif self.key is None:
            data = self.codec.dumps(item)
        else:
            data = bytes(Key(self.key(item)))
        if self.key is None:
            return data
        return hashlib.blake2b(data, digest_size=16).digest()

    def order(self) -> list[tuple[float, bytes]]:
        """Score and member of all that is queued."""
        places = self.places if self.ties else {}
        rows = [(score, places.get(name, 0), name) for name, (score, _) in self.queued.items()]
        return [(score, member) for score, _, member in sorted(rows)]

    def _next_place(self) -> int:
        self._taken += 1
        return self._taken - 1 if self.ties == "fifo" else 2**40 - self._taken

    def _due(self) -> list[bytes]:
        return [member for score, member in self.order() if score <= self.due_until]

    def _decode(self, member: bytes) -> Any:
        try:
            return self.codec.loads(self.queued[member][1])
        except ValueError as error:
            raise DecodeError from error

    def _decodable(self, members: Iterable[bytes]) -> list[Any]:
        items = []
        for member in members:
            try:
                items.append(self._decode(member))
            except DecodeError:
                pass
        return items

    def plant(self, member: bytes, raw: bytes, score: float) -> None:
        """Change the keys of the set as another program would."""
        self.queued[member] = (float(score), raw)
        self.places[member] = 0

    # Adding.

    def _offer(
        self,
        item: Any,
        score: Any,
        nx: bool = False,
        xx: bool = False,
        gt: bool = False,
        lt: bool = False,
        again: bool = False,
        remember: bool | None = None,
    ) -> str:
        """Add an item; whether it was ``"added"``, ``"updated"`` or ``"refused"``."""
        score = self._score_of(item, score)
        member = self.member(item)
        known = member in self.known and not again
        if not (nx or xx or gt or lt):
            flag = FLAG[self.duplicates]
            nx, lt, gt = flag == "nx", flag == "lt", flag == "gt"
        if member not in self.queued:
            outcome = "refused" if known or xx else "added"
        else:
            present = self.queued[member][0]
            if nx:
                better = False
            elif lt:
                better = score < present
            elif gt:
                better = score > present
            elif xx:
                better = score != present
            else:
                better = not known
            outcome = "updated" if better else "refused"
        if outcome != "refused":
            self.queued[member] = (score, self.codec.dumps(item))
            if self.remember and remember is not False:
                self.known.add(member)
        if outcome == "added":
            self.places[member] = self._next_place()
        return outcome

    def _score_of(self, item: Any, score: Any) -> float:
        if score is None:
            score = self.scorer(item) if self.scorer else 0
        score = float(score)
        if math.isnan(score):
            raise ValueError("score must not be NaN")
        if self.ties and score not in range(-4096, 4096):
            raise ValueError("score must be whole")
        return score

    def add(self, item: Any, score: Any = None, **flags: bool) -> float | None:
        before = self._saved()
        outcome = self._offer(item, score, **flags)
        self._limit(before)
        return self._score_of(item, score) if outcome != "refused" else None

    def _saved(self) -> Any:
        """The parts of a set that a refused chunk leaves unchanged."""
        return (dict(self.queued), set(self.known), self._taken) if self.max_size else None

    def _limit(self, before: Any) -> None:
        if self.max_size and len(self.queued) > max(self.max_size, len(before[0])):
            self._restore(before)
            raise Full

    def _restore(self, before: Any) -> None:
        self.queued, self.known, self._taken = before

    def add_many(
        self, items: list[Any], score: Any = None, *, errors: str = "raise", **flags: bool
    ) -> tuple[int, int, int, int]:
        return self._add_all(items, score, errors, flags)[0]

    def add_new(
        self, items: list[Any], score: Any = None, *, errors: str = "raise", **flags: bool
    ) -> list[Any]:
        return self._add_all(items, score, errors, flags)[1]

    def _add_all(
        self, items: list[Any], score: Any, errors: str, flags: dict[str, bool]
    ) -> tuple[tuple[int, int, int, int], list[Any]]:
        assert not self.max_size or len(items) <= CHUNK
        if score is not None and not isinstance(score, list):
            self._score_of(None, score)
        before = self._saved()
        outcomes: list[str] = []
        new: list[Any] = []
        bad: tuple[int, Any] | None = None
        for place, item in enumerate(items):
            try:
                outcome = self._offer(
                    item, score[place] if isinstance(score, list) else score, **flags
                )
            except ValueError:
                if errors == "raise":
                    bad = (place, item)
                    break
                outcome = "failed"
            outcomes.append(outcome)
            if outcome == "added":
                new.append(item)
        self._limit(before)
        counts = [outcomes.count(kind) for kind in ("added", "updated", "refused", "failed")]
        result = (counts[0], counts[1], counts[2], counts[3])
        if bad is not None:
            place, item = bad
            raise AddError(result=result, resume_at=place, index=place, item=item)
        return result, new

    # Handing out.

    def pop(self) -> Any:
        for member in self._due():
            items = self._hand_out(member)
            if items:
                return items[0][0]
        raise KeyError

    def take(self, num: int, *, with_scores: bool = False) -> list[Any]:
        pairs = []
        for member in self._due()[: max(num, 0)]:
            pairs += self._hand_out(member)
        return pairs if with_scores else [item for item, _ in pairs]

    def _hand_out(self, member: bytes) -> list[tuple[Any, float]]:
        try:
            item = self._decode(member)
        except DecodeError:
            self.dead.append(self.queued.pop(member)[1])
            return []
        return [(item, self.queued.pop(member)[0])]

    # Looking.

    def peek(self, position: int = 0) -> Any:
        due = self._due()
        if not -len(due) <= position < len(due):
            raise KeyError
        return self._decode(due[position])

    def peek_many(self, num: int) -> list[Any]:
        return self._decodable(self._due()[: max(num, 0)])

    def peek_score(self) -> float | None:
        due = self._due()
        return self.queued[due[0]][0] if due else None

    def score(self, item: Any) -> float | None:
        return self.queued.get(self.member(item), (None,))[0]

    def scores(self, items: list[Any]) -> list[float | None]:
        return [self.score(item) for item in items]

    def get(self, item: Any) -> Any:
        return self._decode(self.member(item)) if item in self else None

    def contains(self, item: Any) -> bool:
        return self.member(item) in self.queued

    __contains__ = contains

    def size(self) -> int:
        return len(self.queued)

    def available(self) -> int:
        return len(self._due())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._decodable(member for _, member in self.order()))

    def stats(self) -> tuple[int, int, int, int, float | None]:
        """Size, available, dead, remembered and the lowest score."""
        oldest = self.order()[0][0] if self.queued else None
        return len(self.queued), self.available(), len(self.dead), len(self.known), oldest

    # Removing and forgetting.

    def discard(self, item: Any, forget: bool = False) -> bool:
        if forget:
            self.forget(item)
        return self.queued.pop(self.member(item), None) is not None

    def discard_many(self, items: list[Any], forget: bool = False) -> int:
        return sum(self.discard(item, forget) for item in items)

    def remove(self, item: Any) -> None:
        if not self.discard(item):
            raise KeyError(item)

    def forget(self, item: Any) -> bool:
        known = self.seen(item)
        self.known.discard(self.member(item))
        return known

    def forget_many(self, items: list[Any]) -> int:
        return sum(self.forget(item) for item in items)

    def seen(self, item: Any) -> bool:
        return self.member(item) in self.known

    def seen_many(self, items: list[Any]) -> list[bool]:
        return [self.seen(item) for item in items]

    def clear(self, *, keep_memory: bool = False) -> bool:
        anything = bool(self.queued)
        self.queued.clear()
        self.dead.clear()
        if not keep_memory:
            self.known.clear()
            self._taken = 0
        return anything

    def purge(self) -> int:
        gone = len(self.dead)
        self.dead.clear()
        return gone


class ModelLease(NamedTuple):
    """An item that a call has leased."""

    member: bytes
    holder: int
    item: Any
    score: float
    attempts: int


class Held(NamedTuple):
    """The record of a held item: the call that leased it, or 0 for a delay."""

    holder: int
    score: float
    stored: bytes
    #: Score and stored bytes of the item, if it was added while it was leased.
    again: tuple[float, bytes] | None = None
    #: How many its call handed out.
    cohort: int = 1


class LeasingModel(Model):
    """A set with leases. A lease has expired if its member is in `overdue`.

    A plain add that is a ZADD does not look at the leases: without further options what is held
    back is then queued as well, until a lease call meets it.
    """

    def __init__(self, codec: Any = Text, *, max_attempts: int | None = 10, **options: Any) -> None:
        super().__init__(codec, **options)
        self.max_attempts = max_attempts
        self.held: dict[bytes, Held] = {}
        #: With `ties`: the place of an item that was added while it is held, if that ends well.
        self.again_places: dict[bytes, int] = {}
        self.overdue: set[bytes] = set()
        #: Of queued and held items: attempts, the last error, and of a suspect the cohort it may be
        #: in (queued) or is in (held); 0 for others.
        self.attempts: dict[bytes, tuple[int, str, int]] = {}
        #: Stored bytes, score, reason, attempts.
        self.letters: list[tuple[bytes, float, str, int]] = []
        self._calls = 0
        self._by_script = False

    # Adding.

    def _offer(self, item: Any, score: Any, **flags: bool) -> str:
        member = self.member(item)
        held = self.held.get(member)
        if held is None or member in self.queued or not self._looks(flags):
            return super()._offer(item, score, **flags)
        score = self._score_of(item, score)
        condition = {name for name in ("nx", "xx", "gt", "lt") if flags.get(name)}
        condition = condition or {FLAG[self.duplicates]}
        if "nx" in condition or (member in self.known and not flags.get("again")):
            return "refused"
        if held.again is None:
            outcome = "refused" if "xx" in condition else "added"
        else:
            present = held.again[0]
            if "lt" in condition:
                better = score < present
            elif "gt" in condition:
                better = score > present
            else:
                better = "xx" not in condition or score != present
            outcome = "updated" if better else "refused"
        if outcome == "added":
            self.again_places[member] = self._next_place()
        if outcome != "refused":
            self.held[member] = held._replace(again=(score, self.codec.dumps(item)))
            if self.remember and flags.get("remember") is not False:
                self.known.add(member)
        return outcome

    def _looks(self, flags: dict[str, bool]) -> bool:
        """Whether an add is more than a ZADD."""
        if self._by_script or self.key or self.remember or self.max_size or self.ties:
            return True
        flagged = [name for name in ("nx", "xx", "gt", "lt") if flags.get(name)]
        return flagged != ["xx"] if flagged else FLAG[self.duplicates] != ""

    def add_new(self, *args: Any, **options: Any) -> list[Any]:
        self._by_script = True
        try:
            return super().add_new(*args, **options)
        finally:
            self._by_script = False

    def _saved(self) -> Any:
        return (*super()._saved(), dict(self.held)) if self.max_size else None

    def _restore(self, before: Any) -> None:
        self.queued, self.known, self._taken, self.held = before

    # Handing out.

    def expire(self) -> int:
        """Return expired leases to the queue, and return their number."""
        over = sorted(self.overdue)
        for member in over:
            self._end("expire" if self.held[member].holder else "release", member)
        return len(over)

    def heal(self) -> None:
        """Drop records of items that are gone, once nothing is queued or held."""
        if not self.queued and not self.held:
            self.attempts.clear()

    def pop(self) -> Any:
        items = self.take(1)
        if not items:
            raise KeyError
        return items[0]

    def take(self, num: int, *, with_scores: bool = False) -> list[Any]:
        if num < 1:
            return []
        # A script counts all there is anew; the other adds count on.
        if self.key is not None or self.due_until < math.inf or num > BY_COMMAND:
            return self._take_by_script(num, with_scores)
        found = self._take_all(num, with_scores)
        if len(found) < num:
            found += self._take_by_script(num - len(found), with_scores)
        return found

    def _take_by_script(self, num: int, with_scores: bool) -> list[Any]:
        if len(self._due()) < num and not self.expire():
            self.heal()
        return self._take_all(num, with_scores)

    def _take_all(self, num: int, with_scores: bool) -> list[Any]:
        for member in self._due()[:num]:
            # The record of one that is held as well is its lease's.
            if member not in self.held:
                self.attempts.pop(member, None)
        return super().take(num, with_scores=with_scores)

    def lease(self, num: int) -> list[ModelLease]:
        if not self.expire() and not self._due():
            self.heal()
        self._calls += 1
        leases: list[ModelLease] = []
        most: float = math.inf
        for member in self._due():
            held = self.held.get(member)
            attempts, last, bound = self.attempts.get(member, (0, "", 0))
            if len(leases) == num:
                break
            if held is None:
                if len(leases) + 1 > min(most, bound or math.inf):
                    break
                most = min(most, bound or math.inf)
            score, stored = self.queued.pop(member)
            if held is not None:
                self.held[member] = held._replace(again=(score, stored))
                continue
            self.held[member] = Held(self._calls, score, stored)
            item = self.codec.loads(stored)
            leases.append(ModelLease(member, self._calls, item, score, attempts))
        for lease in leases:
            self.held[lease.member] = self.held[lease.member]._replace(cohort=len(leases))
            attempts, last, bound = self.attempts.get(lease.member, (0, "", 0))
            if bound:
                self.attempts[lease.member] = attempts, last, len(leases)
        return leases

    def ours(self, leases: list[ModelLease]) -> list[bytes]:
        return [
            lease.member
            for lease in leases
            if lease.member in self.held and self.held[lease.member].holder == lease.holder
        ]

    def ack(self, leases: list[ModelLease], add: list[Any] | None = None) -> int:
        if add and self.ours(leases):
            self._by_script = True
            try:
                self._add_all(add, None, "raise", {})
            finally:
                self._by_script = False
        return self._settle("ack", leases)

    def fail(self, leases: list[ModelLease], error: str, delay: float = 0) -> int:
        return self._settle("fail", leases, error, bool(delay))

    def release(
        self, leases: list[ModelLease], delay: float = 0, score: Any = None, item: Any = None
    ) -> int:
        return self._settle("release", leases, "", bool(delay), score, item)

    def renew(self, leases: list[ModelLease]) -> int:
        ours = self.ours(leases)
        self.overdue.difference_update(ours)
        return len(ours)

    def _settle(self, how: str, leases: list[ModelLease], *more: Any) -> int:
        ours = self.ours(leases)
        for member in ours:
            self._end(how, member, *more)
        return len(ours)

    def _end(
        self,
        how: str,
        member: bytes,
        error: str = "",
        delay: bool = False,
        score: Any = None,
        item: Any = None,
    ) -> None:
        held = self.held.pop(member)
        self.overdue.discard(member)
        attempts, last, bound = self.attempts.get(member, (0, "", 0))
        if how == "fail":
            attempts, last, bound = attempts + 1, error, 0
        elif how == "expire":
            if held.cohort == 1 or self.max_attempts == 1:
                attempts += 1
            last, bound = last or "the lease expired", max(1, held.cohort // 2)
        elif score is not None:
            attempts, last, bound = 0, "", 0
            held = held._replace(score=float(score))
        if item is not None and self.key:
            held = held._replace(stored=self.codec.dumps(item))
        failed = how in ("fail", "expire")
        dies = failed and self.max_attempts is not None and attempts >= self.max_attempts
        if dies:
            self.letters.append((held.stored, held.score, last, attempts))
        back = held.again or (held.score, held.stored)
        if dies or how == "ack":
            self.attempts.pop(member, None)
            if held.again:
                self.queued.setdefault(member, back)
                self.places[member] = self.again_places.get(member, 0)
            return
        self.attempts[member] = attempts, last, bound
        if delay:
            self.held[member] = held._replace(holder=0)
        else:
            self.queued.setdefault(member, back)

    def leased(self) -> list[tuple[Any, float, int]]:
        return [
            (self.codec.loads(held.stored), held.score, self.attempts.get(member, (0, "", 0))[0])
            for member, held in self.held.items()
        ]

    def finished(self) -> bool:
        if not self.expire():
            self.heal()
        return not self.queued and not self.held

    # Looking, removing.

    def stats(self) -> tuple[Any, ...]:
        self.expire()
        oldest = self.order()[0][0] if self.queued else None
        counts = len(self.queued), self.available(), len(self.held), len(self.letters)
        retrying = sum(
            not held.holder and member not in self.overdue and self.attempts[member][0] > 0
            for member, held in self.held.items()
        )
        return (*counts, len(self.known), oldest, retrying)

    def discard(self, item: Any, forget: bool = False) -> bool:
        member = self.member(item)
        queued = super().discard(item, forget)
        self.attempts.pop(member, None)
        self.overdue.discard(member)
        return self.held.pop(member, None) is not None or queued

    def clear(self, *, keep_memory: bool = False) -> bool:
        anything = super().clear(keep_memory=keep_memory)
        for each in (self.held, self.overdue, self.attempts, self.letters):
            each.clear()
        return anything

    def purge(self) -> int:
        gone = len(self.letters)
        self.letters.clear()
        return gone
