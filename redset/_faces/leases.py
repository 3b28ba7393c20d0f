"""Leases, and the base of the batches that hold them and settle themselves."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic

from redset import _faces, _operations
from redset._faces.arguments import (
    Time,
    milliseconds,
    must_be,
    number_up_to,
    refuse_single,
    waiting_time,
)
from redset._faces.base import T
from redset._operations.errors import error_text
from redset._operations.grouped import text_of_group
from redset._operations.logs import one_line, warn_once
from redset._transport.effects import Operation
from redset._transport.source import Source
from redset._wire.values import flag, got

if TYPE_CHECKING:
    from redset._operations.settling import HeldLease

log = logging.getLogger("redset")

LATE = "%d leases of %r expired before they were settled: other workers may have their items"
UNSETTLED = "could not settle leases of %r, whose items return when the leases expire: %s"


class Lease(Generic[T]):
    """An item that its holder has for a time, and settles within that time.

    Its methods are those of its set, for this one lease. Those of an asyncio set are awaited. Each
    returns 1 if the caller still held the lease, otherwise 0.

    Attributes
    ----------
    item : object
        The item that was handed out.
    score : float
        Score of the queued item. It returns at this score.
    attempts : int
        Number of earlier leases that failed or expired.
    expires : float
        End of the lease, as Unix time of the server in seconds.
    settled : bool
        True after it was acknowledged, failed or released, or a `Writer` accepted it.

    Examples
    --------
    >>> jobs.add("a", 5)
    5.0
    >>> with jobs.lease() as batch:
    ...     for lease in batch:
    ...         print(lease.item, lease.score, lease.attempts)
    a 5.0 0
    """

    __slots__ = (
        "_group", "_owner", "attempts", "expires", "item", "member", "score", "settled", "size",
        "token",
    )  # fmt: skip

    def __init__(self, owner: Any, held: HeldLease) -> None:
        self._owner = owner
        self.member, self.token, self.size = held.member, held.token, held.size
        self.item: T = held.item
        self.score, self.attempts, self.expires = held.score, held.attempts, held.expires
        self._group = held.group
        self.settled = False

    @property
    def group(self) -> str | None:
        """The item's group, in a set with ``group=``; None for none.

        Bytes that are not UTF-8 are escaped, as ``os.fsdecode`` does.

        Examples
        --------
        >>> pages = SortedSet(r, "pages", group=lambda url: url.split("/")[2])
        >>> pages.add("https://example.org/a")
        0.0
        >>> [lease] = pages.lease()
        >>> lease.group
        'example.org'
        """
        return text_of_group(self._group) if self._group else None

    def ack(self, add: Iterable[Any] = ()) -> Any:
        """Acknowledge it, and add new items in the same step.

        Examples
        --------
        >>> jobs.add("a")
        0.0
        >>> [lease] = jobs.lease()
        >>> lease.ack(add=["b", "c"]), jobs.peek_many(5)
        (1, ['b', 'c'])
        """
        return self._owner.ack(self, add)

    def fail(self, error: BaseException | str, delay: Time = 0, *, group: bool = False) -> Any:
        """Fail it: count an attempt, and hand it out again after ``delay`` seconds.

        With ``group`` its group rests as long.

        Examples
        --------
        >>> jobs.add("a")
        0.0
        >>> [lease] = jobs.lease()
        >>> lease.fail(ValueError("no such page")), jobs.size()
        (1, 1)
        """
        return self._owner.fail(self, error, delay, group=group)

    def release(
        self, delay: Time = 0, score: Any = None, item: Any = None, *, group: bool = False
    ) -> Any:
        """Release it without an attempt, unchanged or with a new score and payload.

        ``item`` replaces the leased item, and must have the same identity. With ``group`` its group
        rests for ``delay`` seconds, too.

        Examples
        --------
        >>> jobs.add("a")
        0.0
        >>> [lease] = jobs.lease()
        >>> lease.release(score=7), jobs.score("a")
        (1, 7.0)
        """
        owner = self._owner
        return owner._run(releasing(owner, self, delay, score, item, group))

    def renew(self, ttl: Time) -> Any:
        """Extend it to ``ttl`` seconds from now.

        Examples
        --------
        >>> jobs.add("a")
        0.0
        >>> [lease] = jobs.lease(ttl=1)
        >>> lease.renew(60)
        1
        """
        return self._owner.renew(self, ttl)

    def __repr__(self) -> str:
        return f"<Lease of {self.item!r} until {self.expires:.3f}>"


class Leases(Generic[T]):
    """Base of the batches of both faces: leases, and their settlement by iteration."""

    __slots__ = ("_at", "_current", "_done", "_leases", "_owner", "_state", "lost")

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self._leases: list[Lease[T]] = []
        self._done: list[Lease[T]] = []
        self._current: Lease[T] | None = None
        self._at = 0
        self._state = ""
        #: Number of leases that were lost before the batch was left.
        self.lost = 0

    def __len__(self) -> int:
        return len(self._fetched())

    def __bool__(self) -> bool:
        return bool(self._fetched())

    def _fetched(self) -> list[Lease[T]]:
        """Return all leases, after they were fetched."""
        return self._leases

    def _unsettled(self) -> list[Lease[T]]:
        """Return the leases that are not settled."""
        return [lease for lease in self._fetched() if not lease.settled]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} leases of {self._owner!r}>"

    def _enter(self) -> None:
        if self._state:
            raise RuntimeError("a batch is entered once")
        self._state = "entered"

    def _usable(self) -> None:
        if self._state == "left":
            raise RuntimeError("the batch was left: its leases are settled")

    def _reached(self) -> Iterator[Lease[T]]:
        """Yield the leases not reached yet. In an entered batch, each yielded one is then done."""
        self._usable()
        if not self._state:
            yield from list(self._leases)
            return
        while self._at < len(self._leases):
            self._usable()
            lease = self._leases[self._at]
            self._at += 1
            if lease.settled:
                continue
            self._current = lease
            yield lease
            self._done.append(lease)
            self._current = None

    def _leave(self, error: BaseException | None) -> Operation[None]:
        """Settle all leases. An error of the caller's block takes precedence over an error here."""
        self._state = "left"
        settling, settlement_of = _operations.settling, _faces.failures.settlement_of
        done = [lease for lease in self._done if not lease.settled]
        settlements = [settling.Settlement("ack", done)]
        kept = set(done)
        if isinstance(error, Exception) and self._current and not self._current.settled:
            grouped = self._owner._ctx.options.grouped
            settlements.append(settlement_of(self._current, error, grouped))
            kept.add(self._current)
        rest = [lease for lease in self._unsettled() if lease not in kept]
        settlements.append(settling.Settlement("release", rest))
        try:
            settled = yield from settling.settle(self._owner._ctx, settlements)
        except Exception as problem:
            if error is None:
                raise
            text = one_line(error_text(problem))
            log.error(UNSETTLED, self._owner._ctx.name, text)
            return
        for settlement, number in zip(settlements, settled.counts, strict=True):
            settling.log_deaths(self._owner._ctx, settlement, number)
            for lease in settlement.leases:
                lease.settled = True
        self.lost = settled.lost
        if self.lost:
            name = self._owner._ctx.name
            warn_once(name, LATE, self.lost, name)


# The operations of the faces' methods, with checked arguments.


def leases_of(owner: Any, leases: Any) -> list[Lease[Any]]:
    """Return the leases to settle, each once. All must belong to this set, and be unsettled."""
    if isinstance(leases, Lease):
        leases = [leases]
    elif isinstance(leases, Leases):
        leases = leases._unsettled()
    elif isinstance(leases, (str, bytes)) or not hasattr(leases, "__iter__"):
        raise must_be("leases", "a lease or an iterable of them", leases)
    found = list(leases)
    for place, lease in enumerate(found):
        if not isinstance(lease, Lease):
            raise must_be(f"leases[{place}]", "a lease", lease)
        theirs = lease._owner
        if theirs is not owner and (
            theirs.redis is not owner.redis or theirs._ctx.keys.queue != owner._ctx.keys.queue
        ):
            way = "" if theirs.redis is owner.redis else ", each with a client of its own"
            raise ValueError(f"leases[{place}] is a lease of {theirs!r}, not of {owner!r}{way}")
        if lease.settled:
            raise ValueError(f"leases[{place}] was settled before: {lease!r}")
    return list(dict.fromkeys(found))


def leasing_out(owner: Any, num: Any, ttl: Any, wait: Any) -> Operation[list[HeldLease]]:
    """Perform ``lease``."""
    leasing = _operations.leasing
    num = number_up_to("num", num, leasing.MOST)
    ctx = owner._ctx
    _ = ctx.keys.leased  # raises an error for a name that cannot have second keys
    return leasing.lease(ctx, num, milliseconds("ttl", ttl, True), waiting_time(wait))


def acknowledging(owner: Any, leases: Any, add: Any) -> tuple[Operation[int], Source | None]:
    """Perform ``ack``."""
    held = leases_of(owner, leases)
    ctx, settling = owner._ctx, _operations.settling
    if isinstance(add, tuple) and not add:
        return settling.one(ctx, settling.Settlement("ack", held)), None
    refuse_single("add", add, owner._iterables)
    if not held:
        raise ValueError("leases is empty: items are added with a lease's acknowledgement")
    source = Source(add, None)
    return settling.acknowledge(ctx, held, source.steady), source


def failing(owner: Any, leases: Any, error: Any, delay: Any, group: Any = False) -> Operation[int]:
    """Perform ``fail``."""
    held, rests = leases_of(owner, leases), _resting(owner, group)
    wait = milliseconds("delay", delay, False)
    text, settling = error_text(error), _operations.settling
    return settling.one(
        owner._ctx, settling.Settlement("fail", held, wait, error=text, rests=rests)
    )


def _resting(owner: Any, group: Any) -> bool:
    """Return whether the leases' groups are to rest, too."""
    rests = flag("group", group)
    if rests and not owner._ctx.options.grouped:
        raise ValueError(f"group needs a set with group=, {got(group)}")
    return rests


def releasing(
    owner: Any, leases: Any, delay: Any, score: Any, item: Any = None, group: Any = False
) -> Operation[int]:
    """Perform ``release``; with an item for a single lease."""
    held, rests = leases_of(owner, leases), _resting(owner, group)
    ctx, settling = owner._ctx, _operations.settling
    wait = milliseconds("delay", delay, False)
    place = b"" if score is None else settling.place_of(ctx, score)
    payload = b"" if item is None else settling.payload_of(ctx, held[0], item)
    settlement = settling.Settlement("release", held, wait, place, payload=payload, rests=rests)
    return settling.one(ctx, settlement)


def renewing(owner: Any, leases: Any, ttl: Any) -> Operation[int]:
    """Perform ``renew``."""
    held, settling = leases_of(owner, leases), _operations.settling
    settlement = settling.Settlement("renew", held, milliseconds("ttl", ttl, True))
    return settling.one(owner._ctx, settlement)
