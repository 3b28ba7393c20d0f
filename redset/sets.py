"""The sync face: SortedSet, TimeSortedSet and ScheduledSet."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, overload

from redset._faces import leases as settling
from redset._faces.arguments import Time, index, many, waiting_time, whole
from redset._faces.base import (
    KeyOf,
    Loads,
    Options,
    Rising,
    Scorer,
    ServerTime,
    T,
    requeueing,
)
from redset._faces.differences import SyncFace, SyncLeases, SyncView
from redset._faces.leases import Lease
from redset._faces.worker import Consumed, Event, Worker
from redset._faces.writer import ThreadWriting
from redset._operations import (
    adding,
    algebra,
    dead,
    known,
    leasing,
    memory,
    reading,
    taking,
    transfer,
)
from redset._operations.adding import AddResult, Flags, OnError
from redset._operations.codec import Key
from redset._operations.dead import DeadLetter
from redset._operations.leasing import Leased
from redset._operations.reading import Stats
from redset.locks import Lock

__all__ = ("Key", "ScheduledSet", "SortedSet", "TimeSortedSet", "check_server")

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class SortedSet(SyncFace[T]):
    """A sorted set in Redis that hands out each item once, lowest score first.

    Constructing one sends nothing. Sets may be shared by threads, and by any number of processes
    through the name. ``scorer``, ``key``, the serializer and a callable of ``errors`` may be called
    while a call holds a connection: on a pool of one they cannot use the client themselves, as the
    iterable of a bulk add can.

    Parameters
    ----------
    redis_client : redis.Redis, valkey.Valkey, or any client with ``execute_command``
        The server to use. Its pool, authentication, TLS and retries stay as they are.
    name : str or bytes
        The Redis key of the set, and the beginning of every other key of it.
    scorer : callable or str, optional
        Gives an item's score: a callable of the item, or the name of its field (a mapping's key,
        else an attribute). 0 if there is none.
    serializer : object, optional
        Has ``dumps(obj) -> str | bytes``, ``loads(bytes | str) -> obj``, or one of them; a module
        such as ``json`` will do. Without one bytes and text are stored as they are, anything else
        as ``str(item)``, and all come out as text; a dict, list, tuple, set or dataclass warns
        once of that.
    lock_timeout, lock_expires : float or timedelta, optional
        For `lock`, in seconds: how long to wait for it (10), and how long it may be held (20).
    key : callable, str or tuple of str, optional
        Gives an item's identity (str, bytes or int) in the same way; several fields make one:
        ``key=("customer", "kind")``. Items with equal keys are one item, whatever else they hold.
        The default serializer is then `redset.serializers.JSONSerializer`.
    remember : True, float or timedelta, optional
        How long an accepted item stays known, forever or for so many seconds, also after it was
        handed out: a known item that is no longer queued is refused.
    duplicates : {"move", "keep", "lowest", "highest"}
        What an add does to the score of an item that is queued. With ``remember`` one that is known
        as well is refused by "move" and "keep" alike. "keep" also refuses one that is leased.
    ties : {"fifo", "lifo"}, optional
        The order of items of equal score: that in which they were first added, over all producers,
        or its reverse. An item keeps its place while it is queued or leased, whatever becomes of
        its score. Scores are whole numbers from -4096 to 4095 then. Without it the order is that of
        the stored bytes (with ``key`` of their digests: none to speak of).
    max_attempts : int or None
        After how many failed leases an item goes to the dead letters; None is never. The option is
        the process's own: all consumers should have the same.
    max_item_bytes : int, optional
        The most bytes of an item that this object serialises. Default: 536,805,376, which is the
        default of the server's ``proto-max-bulk-len`` (512 MB) less 64 KiB. A server closes the
        connection on a larger item: set ``max_item_bytes`` lower if ``proto-max-bulk-len`` is.
        Items that are stored already are not checked: by `update` from another set, `move_many`
        and `restore`.
    max_size : int, optional
        The most items: a chunk that would add more is refused whole, with
        `redset.exceptions.Full`. `restore` does not ask it.
    known_max : int
        With ``remember``: the most entries of a table of items that the server said it knows, so
        that adding them again asks it nothing. The process has one table for each set. It starts
        empty, grows to 24 bytes an entry (32 with a limited time; briefly more), and when full lets
        the oldest go; without the compiled core to about 150. What is no longer known makes room
        before it grows. 0 switches it off.

    Raises
    ------
    TypeError, ValueError
        If an argument cannot be used; the error names it.

    Examples
    --------
    >>> jobs = SortedSet(r, "jobs")
    >>> jobs.add("second", score=2), jobs.add("first", score=1)
    (2.0, 1.0)
    >>> "first" in jobs, len(jobs)
    (True, 2)
    >>> jobs.pop()
    'first'
    """

    __slots__ = ()

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: SortedSet[str],
            redis_client: Any,
            name: str | bytes,
            scorer: Scorer | None = None,
            serializer: None = None,
            lock_timeout: Time | None = None,
            lock_expires: Time | None = None,
            *,
            key: None = None,
            **options: Unpack[Options],
        ) -> None: ...

        @overload
        def __init__(
            self: SortedSet[Any],
            redis_client: Any,
            name: str | bytes,
            scorer: Scorer | None = None,
            serializer: None = None,
            lock_timeout: Time | None = None,
            lock_expires: Time | None = None,
            *,
            key: KeyOf,
            **options: Unpack[Options],
        ) -> None: ...

        @overload
        def __init__(
            self,
            redis_client: Any,
            name: str | bytes,
            scorer: Scorer | None = None,
            serializer: Loads[T] | None = None,
            lock_timeout: Time | None = None,
            lock_expires: Time | None = None,
            *,
            key: KeyOf | None = None,
            **options: Unpack[Options],
        ) -> None: ...

        @overload
        def __init__(
            self: SortedSet[Any],
            redis_client: Any,
            name: str | bytes,
            scorer: Scorer | None = None,
            serializer: object = None,
            lock_timeout: Time | None = None,
            lock_expires: Time | None = None,
            *,
            key: KeyOf | None = None,
            **options: Unpack[Options],
        ) -> None: ...

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)

    @classmethod
    def from_url(cls, url: str, name: str | bytes, *args: Any, **options: Any) -> Self:
        """Make a set on a client of its own, which `close` closes.

        Sends nothing. Such a set can be pickled, by its URL (with the password, if it has one), its
        name and its options, and so be given to a process that ``multiprocessing`` spawns. A set on
        a client of yours cannot: make it in the child process.

        Parameters
        ----------
        url : str
            What ``redis.Redis.from_url`` takes: ``redis://``, ``rediss://``, ``unix://``.
        name : str or bytes
            The set's name.
        *args, **options
            The constructor's other arguments. The client's own go in the URL:
            ``redis://localhost?socket_timeout=3``.

        Returns
        -------
        SortedSet
            A set of the class that this is called on.

        Raises
        ------
        TypeError, ValueError
            If the URL or another argument cannot be used.

        Examples
        --------
        >>> url = "redis://localhost:6379/0"
        >>> with SortedSet.from_url(url, "jobs") as jobs:  # doctest: +SKIP
        ...     jobs.add("first")
        """
        return cls._of_url(url, name, args, options)

    @property
    def lock(self) -> Lock:
        """A lock named after the set, for the caller's own use.

        ``with jobs.lock: ...`` enters it. It is a `redset.locks.Lock` on the key ``name__lock``. No
        method of the set takes it. Making it sends nothing; each try to enter it is one round trip,
        and so is leaving it.

        Examples
        --------
        >>> jobs.lock
        <Lock 'jobs__lock'>
        """
        if self._lock is None:
            self._lock = self._make_lock(None, None)
        return self._lock  # type: ignore[no-any-return]

    # Adding.

    def add(
        self,
        item: Any,
        score: Any = None,
        *,
        nx: bool = False,
        xx: bool = False,
        gt: bool = False,
        lt: bool = False,
        again: bool = False,
        remember: bool | None = None,
    ) -> float | None:
        """Add an item, or do to a queued one what ``duplicates`` or the flags say.

        Costs one round trip, O(log N). The first add of an object with ``remember`` takes one more.

        Parameters
        ----------
        item : object
            What is to be handed out.
        score : float, optional
            Its place in the order, lowest first; the scorer's if none is given. 0 is a score.
            Anything that ``float()`` takes but NaN.
        nx : bool
            Only if it is neither queued nor leased: what is named again while it is being worked
            on is dropped. A plain add, and ``lt``, keep it for afterwards.
        xx : bool
            Only if it is queued.
        gt, lt : bool
            A queued item only to a higher, to a lower score.
        again : bool
            As if it were not known (with ``remember``).
        remember : bool, optional
            False accepts the item without remembering it: a known item is still refused, and one
            that is not known does not become known. Changes nothing on a set without ``remember``.
            Default: as the set does.

        Returns
        -------
        float or None
            The score, or None if the item was refused. 0.0 is a score: compare with None.

        Raises
        ------
        TypeError, ValueError
            If the item or its score cannot be used, or the flags contradict each other; nothing
            was sent. A scorer's, a key's and a serializer's own exceptions pass through.
        redset.exceptions.Full
            If the set has ``max_size`` items, and this would be one more.
        redset.exceptions.OptionsDiffer
            If the set was made with other options.

        Examples
        --------
        >>> jobs.add("a", 5), jobs.add("a", 7, lt=True), jobs.score("a")
        (5.0, None, 5.0)
        """
        return self._run(adding.add(self._ctx, item, score, Flags(nx, xx, gt, lt, again, remember)))

    def add_many(
        self,
        items: Iterable[Any],
        score: Any = None,
        *,
        nx: bool = False,
        xx: bool = False,
        gt: bool = False,
        lt: bool = False,
        again: bool = False,
        remember: bool | None = None,
        errors: str | OnError = "raise",
    ) -> AddResult:
        """Add any number of items, streamed in chunks; memory does not grow with the input.

        Costs O(log N) an item. Chunks of 500, four of them in flight; of 250 with ``key``,
        ``remember``, ``max_size``, ``gt``, ``lt``, or another ``duplicates`` than ``"move"`` and
        ``"keep"``; of 125, two in flight, while a memory fills; with ``ties`` one in flight. Each
        chunk is one step on the server.

        Parameters
        ----------
        items : iterable
            What to add. Text, bytes and mappings are refused: they are rarely meant.
        score : float or iterable of float, optional
            One score for all, or one for each.
        nx, xx, gt, lt, again, remember : bool
            As for `add`.
        errors : {"raise", "skip"} or callable
            What to do about an item that cannot be encoded, or that is larger than the server
            takes: raise, skip and count it, or call with its position, itself and the exception,
            and skip it. "skip" logs the first one of the process and set as a warning. It does not
            skip an item for `MemoryError`, `OSError` or `ImportError`, which end the call.

        Returns
        -------
        AddResult
            How many were added, updated, refused, failed: as if added one after another.

        Raises
        ------
        TypeError, ValueError
            If an argument cannot be used.
        redset.exceptions.AddError
            If the call ended early: ``result`` says what was acknowledged, ``resume_at`` from
            where to go on, ``index`` and ``item`` which item was bad.

        Examples
        --------
        >>> jobs.add_many(["a", "b", "a"], score=[1, 2, 3])
        AddResult(added=2, updated=1, refused=0, failed=0)
        """
        return self._run(
            *self._adding(items, score, Flags(nx, xx, gt, lt, again, remember), errors, False)
        )

    def add_new(
        self,
        items: Iterable[Any],
        score: Any = None,
        *,
        nx: bool = False,
        xx: bool = False,
        gt: bool = False,
        lt: bool = False,
        again: bool = False,
        remember: bool | None = None,
        errors: str | OnError = "raise",
    ) -> Iterator[T]:
        """Add as `add_many` does, and give those items that were added.

        Nothing is sent before the first item is asked for. No connection is held while the caller
        has an item. Costs O(log N) an item, in chunks of 250, four of them in flight.

        Parameters
        ----------
        items, score, nx, xx, gt, lt, again, remember, errors
            As for `add_many`.

        Yields
        ------
        object
            Each item that was added, as its chunk is acknowledged: the caller's own object.

        Raises
        ------
        TypeError, ValueError
            If an argument cannot be used.
        redset.exceptions.AddError
            As for `add_many`.

        Examples
        --------
        >>> list(jobs.add_new(["a", "b", "a"]))
        ['a', 'b']
        """
        return self._open().iterate(  # type: ignore[no-any-return]
            *self._adding(items, score, Flags(nx, xx, gt, lt, again, remember), errors, True)
        )

    def buffered(
        self, max_items: int = 1000, max_delay: Time = 0.1, max_pending: int = 10_000
    ) -> Writer:
        """Make a writer that adds in the background, for what comes one by one.

        Its ``add`` takes the arguments of `add` and returns at once; a thread writes what came as
        `add_many` does, when there are ``max_items``, when the first of them is ``max_delay`` old,
        and when the block is left. Sends nothing before.

        Parameters
        ----------
        max_items : int
            How many are written together at the latest.
        max_delay : float or timedelta
            How many seconds one may wait for others.
        max_pending : int
            How many may be accepted and not yet written: beyond that ``add`` waits, so that memory
            does not grow if the server is slower. What they serialise to is kept, and the items.

        Returns
        -------
        Writer
            To be entered with ``with``. Errors come out of its next call, or of leaving the block.

        Raises
        ------
        TypeError, ValueError
            If an argument cannot be used.

        Examples
        --------
        >>> with jobs.buffered() as writer:
        ...     writer.add("second", 2)
        ...     writer.add("first", 1)
        >>> jobs.take(10)
        ['first', 'second']
        """
        return Writer(self, max_items, max_delay, max_pending)

    # Handing out.

    def pop(self, *, wait: Time = 0) -> T:
        """Remove and return the item with the lowest score; wait for one if there is none.

        At most once: what was removed when the caller dies is gone. One round trip, O(log N). An
        object's first removal takes one more, to look whether it can decode what is there.

        Waiting costs about one command a second, at most 20 while items come and others get them,
        or at first if the server cannot tell of changes. It holds no connection of the pool, and a
        `KeyboardInterrupt` ends it.

        Parameters
        ----------
        wait : float or timedelta
            Seconds to wait for an item, whoever adds it, for one to fall due or for a lease to end:
            0 for not at all, ``math.inf`` forever.

        Returns
        -------
        object
            The item. Falsy items are items.

        Raises
        ------
        KeyError
            If there is none, and none came in time.
        TypeError, ValueError
            If ``wait`` is not a number of seconds, or negative; nothing was sent.
        redset.exceptions.DecodeError
            If none of the first 10 items can be decoded, at a first removal: nothing was
            removed. If 10 items one after another could not be decoded: they are in `dead`.
            If the user may write no dead letters, the item that cannot be decoded was put back.

        Examples
        --------
        >>> jobs.add_many(["low", "high"], score=[1, 2]).added
        2
        >>> jobs.pop()
        'low'
        """
        return self._run(taking.pop(self._ctx, waiting_time(wait)))  # type: ignore[no-any-return]

    def take(self, num: int, *, wait: Time = 0, with_scores: bool = False) -> list[Any]:
        """Remove and return up to ``num`` items, lowest first; wait for one if there is none.

        At most once, as `pop`. O(log N + num), a round trip for each 2,000 (1,000
        with ``key`` or ``ties``).
        If a later step fails, what was removed before is returned, and the error is logged.

        Parameters
        ----------
        num : int
            How many at most; below 1 none.
        wait : float or timedelta
            Seconds to wait until there is at least one, at the cost that `pop` has: 0 for not at
            all, ``math.inf`` forever.
        with_scores : bool
            Whether to give ``(item, score)`` pairs.

        Returns
        -------
        list
            Items, or pairs of an item and its score; empty if there is nothing to hand out.

        Raises
        ------
        TypeError, ValueError, OverflowError
            If ``int()`` does not take ``num``, or ``wait`` is not a number of seconds; nothing was
            sent.
        redset.exceptions.DecodeError
            If there were 10 or more, and none could be decoded. If the user may write no
            dead letters and no item was decoded, those that cannot be were put back.

        Examples
        --------
        >>> jobs.add_many(["low", "high"], score=[1, 2]).added
        2
        >>> jobs.take(10, with_scores=True)
        [('low', 1.0), ('high', 2.0)]
        """
        count, seconds, multi = whole("num", num), waiting_time(wait), self._open().multi
        return self._run(taking.take(self._ctx, count, with_scores, multi, seconds))

    # Leasing.

    def lease(self, num: int = 1, ttl: Time = 60.0, *, wait: Time = 0) -> Batch[T]:
        """Hand out up to ``num`` items for a time, lowest first, to be settled within it.

        At least once: an item whose holder dies comes back at its old score when its lease is over.
        Items whose leases expired together are handed out in smaller groups, so that one that kills
        its worker dies alone: a batch shorter than ``num`` does not mean that the set is empty.
        Each call gives back some whose leases are over, no more than 100 a step. O(log N) an item,
        a round trip and a step for each 100; sending one again after a lost connection gives the
        same leases. An object's first takes one more, as with `pop`. Waiting costs what it costs
        `pop`; an interrupt or a cancellation loses nothing: what was leased comes back.

        Parameters
        ----------
        num : int
            How many at most, from 1 to 100,000.
        ttl : float or timedelta
            For how many seconds, from when they are handed out.
        wait : float or timedelta
            Seconds to wait until there is at least one, also by the end of another's lease: 0 for
            not at all, ``math.inf`` forever.

        Returns
        -------
        Batch
            Of `Lease`; false if there is nothing to hand out.

        Raises
        ------
        TypeError, ValueError
            If ``num``, ``ttl`` or ``wait`` cannot be used, or the set's name can have no second
            key; nothing was sent.
        redset.exceptions.DecodeError
            As for `take`; items that cannot be decoded are in `dead`.
        MemoryError, OSError, ImportError
            If the serializer raised it for the first item. The item is queued again, without an
            attempt.

        Examples
        --------
        >>> jobs.add_many(["low", "high"], score=[1, 2]).added
        2
        >>> with jobs.lease(10, ttl=30) as batch:
        ...     print([lease.item for lease in batch])
        ['low', 'high']
        >>> jobs.finished()
        True
        """
        return Batch(self, settling.leasing_out(self, num, ttl, wait))

    def ack(self, leases: Lease[T] | Iterable[Lease[T]], add: Iterable[Any] = ()) -> int:
        """Acknowledge leases: their items are done. Items found meanwhile are added as well.

        With ``add`` both happen in one step, or neither. More than a chunk of them (250 items, or
        1 MiB) is added before, as long as any of the leases is still held, and acknowledged last;
        adding them again is safe. If none of the leases is the caller's any more nothing is
        added: their next holder finds the items again. A lease whose item somebody else holds by
        now is left alone. One round trip, and one for each 400 leases; with ``add`` as `add_many`.

        Parameters
        ----------
        leases : Lease, Batch or iterable of Lease
            What is done. Of a batch what is not settled.
        add : iterable
            Items to add, as `add_many` does without flags.

        Returns
        -------
        int
            How many were still the caller's. One that was sent again after its connection was lost
            may count 0.

        Raises
        ------
        TypeError, ValueError
            If a lease is another set's or settled already; nothing was sent.
        redset.exceptions.AddError
            If one of the items is bad (nothing was sent of its chunk), and where there is more
            than a chunk of them as `add_many`; the leases stay as they are.
        redset.exceptions.Full, redset.exceptions.OptionsDiffer
            As for `add_many`; the leases stay as they are.

        Examples
        --------
        >>> jobs.add("/")
        0.0
        >>> batch = jobs.lease()
        >>> jobs.ack(batch, add=["/a", "/b"])
        1
        >>> jobs.size()
        2
        """
        return self._run(*settling.acknowledging(self, leases, add))

    def fail(
        self,
        leases: Lease[T] | Iterable[Lease[T]],
        error: BaseException | str,
        delay: Time = 0,
    ) -> int:
        """Fail leases: count an attempt, and keep the error's text.

        After ``max_attempts`` of them an item goes to the dead letters. One round trip (for each
        400 leases).

        Parameters
        ----------
        leases : Lease, Batch or iterable of Lease
            What failed.
        error : exception or str
            Why: its first 1,000 characters are kept.
        delay : float or timedelta
            After how many seconds they are to be handed out again, at their old scores.

        Returns
        -------
        int
            How many were still the caller's.

        Raises
        ------
        TypeError, ValueError
            If an argument cannot be used, or a lease is another set's or settled already.

        Examples
        --------
        >>> jobs.add("a", 3)
        3.0
        >>> batch = jobs.lease()
        >>> jobs.fail(batch, "no such page")
        1
        >>> jobs.score("a")
        3.0
        """
        return self._run(settling.failing(self, leases, error, delay))

    def release(
        self,
        leases: Lease[T] | Iterable[Lease[T]],
        delay: Time = 0,
        score: Any = None,
    ) -> int:
        """Release leases without an attempt, as they were or with a new score.

        A single lease takes a new payload, too: `Lease.release`.

        One round trip (for each 400 leases).

        Parameters
        ----------
        leases : Lease, Batch or iterable of Lease
            What is given back.
        delay : float or timedelta
            After how many seconds they are to be handed out again.
        score : float, optional
            Their new score; attempts then start again. An item that was added again meanwhile has
            the score of that add.

        Returns
        -------
        int
            How many were still the caller's.

        Raises
        ------
        TypeError, ValueError
            If an argument cannot be used, or a lease is another set's or settled already.

        Examples
        --------
        >>> jobs.add("a", 3)
        3.0
        >>> jobs.release(jobs.lease(), score=9)
        1
        >>> jobs.score("a")
        9.0
        """
        return self._run(settling.releasing(self, leases, delay, score))

    def renew(self, leases: Lease[T] | Iterable[Lease[T]], ttl: Time) -> int:
        """Extend leases to ``ttl`` seconds from now. One round trip (for each 400 leases).

        Parameters
        ----------
        leases : Lease, Batch or iterable of Lease
            What takes longer.
        ttl : float or timedelta
            For how many seconds from now.

        Returns
        -------
        int
            How many are still the caller's. ``lease.expires`` stays what it was.

        Raises
        ------
        TypeError, ValueError
            If an argument cannot be used, or a lease is another set's or settled already.

        Examples
        --------
        >>> jobs.add("a")
        0.0
        >>> jobs.renew(jobs.lease(ttl=1), 60)
        1
        """
        return self._run(settling.renewing(self, leases, ttl))

    def leased(self) -> Iterator[Leased]:
        """Return what is leased, and what waits out a delay, in order of expiry.

        A round trip for each 250. Items that cannot be decoded are skipped, with a warning.

        Yields
        ------
        named tuple
            ``(item, score, attempts, expires, error, worker, group)``: when its lease or delay
            ends, as Unix time of the server in seconds; its last error, or None; and two that are
            None, until workers and groups have names.

        Examples
        --------
        >>> jobs.add("a", 3)
        3.0
        >>> batch = jobs.lease(ttl=60)
        >>> rows = list(jobs.leased())
        >>> rows[0].item, rows[0].attempts, rows[0].error
        ('a', 0, None)
        """
        return self._open().iterate(leasing.leased(self._ctx))  # type: ignore[no-any-return]

    def finished(self) -> bool:
        """Whether nothing is queued, scheduled or leased, in one server step.

        One round trip. If the server takes no writes (a replica, a user without the right), a
        second one looks only, and counts expired leases as given back.

        Returns
        -------
        bool

        Examples
        --------
        >>> jobs.add("a")
        0.0
        >>> jobs.finished(), jobs.pop(), jobs.finished()
        (False, 'a', True)
        """
        return self._run(leasing.finished(self._ctx))

    def consume(
        self,
        handler: Callable[[T], Iterable[Any] | None],
        *,
        batch: int | None = None,
        concurrency: int = 1,
        ttl: Time = 60.0,
        until_finished: bool = False,
        stop: Event | None = None,
    ) -> Consumed:
        """Work: call ``handler(item)`` for item after item, until there is a reason to stop.

        Items are leased, by default as many ahead as handlers do in 100 ms, and renewed at half of
        their time. What waits unbegun for a second, with no free handler, is released for others.
        When the handler returns, its item is acknowledged, and what it returned is added in the
        same step: a worker that is killed loses nothing, and its items come back when their leases
        end. If it raises, the error is logged, and the item is tried again after 1 s, 2 s, 4 s and
        so on up to an hour, each less up to half of it by chance; it goes to the dead letters after
        ``max_attempts``. `redset.Retry` and `redset.Reject` say otherwise. What a full set or
        server refuses to take from a handler lets its item wait for some seconds, without an
        attempt, as does an error that is not the item's own (no memory, files or threads left). If
        the server refuses requests for a while (``OOM``, ``NOREPLICAS``, ``BUSY``, ``MISCONF``,
        ``LOADING``, ``TRYAGAIN``, ``CLUSTERDOWN``), the call waits with growing pauses, up to 60 s
        or the client's own retry time, whichever is longer. Settling goes with the next lease call
        in one round trip; a handler that is done waits for at most 50 ms to be settled.

        Handlers run in ``concurrency`` threads of their own, the caller's speaks to the server. An
        item whose handler takes longer than it can be renewed (a stopped process) may be handed out
        twice.

        Parameters
        ----------
        handler : callable
            Takes an item; returns None, or an iterable of new items. Any other result ends the
            call with a TypeError, and the work is not repeated: an awaitable or a future releases
            the item, text or a mapping (probably a new item without its list) makes it a dead
            letter, anything else acknowledges it. The handler has no time limit: its item is
            renewed for as long as it runs.
        batch : int, optional
            How many items are leased at a time. Default: from 0 to 100 more than free handlers can
            begin, by how long the last 16 items took. 1 leases only if a handler is free: nothing
            is reserved that an idle worker could do.
        concurrency : int
            How many handlers run at a time.
        ttl : float or timedelta
            For how many seconds items are leased: how long those of a killed worker are missing.
        until_finished : bool
            Whether to return when nothing is queued, scheduled or leased any more, by anybody.
        stop : threading.Event, optional
            Or anything with ``is_set()``. Once it is set, what runs is finished, the rest given
            back, and the call returns. It is looked at every 50 ms. redset installs no signal
            handler: one of yours can set it.

        Returns
        -------
        Consumed
            How many items were done, attempts failed, and leases lost.

        Raises
        ------
        TypeError, ValueError
            If an argument cannot be used, or the set's name can have no second key. A TypeError
            also if the handler returned neither None nor an iterable of new items.
        KeyboardInterrupt
            And any error of the client that its retry policy did not mend. Before, what runs is
            finished and settled if it can be, and the rest given back; the first interrupt logs
            that. A second interrupt does not wait.

        Examples
        --------
        >>> jobs.add("/")
        0.0
        >>> def crawl(page):
        ...     if len(page) < 5:
        ...         return [page + "a/", page + "b/"]
        >>> jobs.consume(crawl, concurrency=4, until_finished=True)
        Consumed(done=7, failed=0, lost=0)
        """
        return self._complete(
            Worker(self, handler, batch, concurrency, ttl, until_finished, stop).run()
        )

    # Looking.

    def peek(self, position: int = 0) -> T:
        """Return the item at a position from the lowest, without removing it.

        One round trip, O(log N).

        Parameters
        ----------
        position : int
            0 is the lowest; negative ones count from the highest, -1.

        Returns
        -------
        object
            The item.

        Raises
        ------
        KeyError
            If there is none.
        redset.exceptions.DecodeError
            If it cannot be decoded.

        Examples
        --------
        >>> jobs.add("a", 1)
        1.0
        >>> jobs.peek()
        'a'
        """
        return self._run(reading.peek(self._ctx, index("position", position)))  # type: ignore[no-any-return]

    def peek_many(self, num: int) -> list[T]:
        """Return up to ``num`` items, lowest first, without removing them.

        O(log N + num), a round trip for each 1,000. Items that cannot be decoded are skipped, with
        a warning in the log.

        Parameters
        ----------
        num : int
            How many at most.

        Returns
        -------
        list
            The items.

        Raises
        ------
        TypeError
            If ``num`` is not an int.

        Examples
        --------
        >>> jobs.add_many(["low", "high"], score=[1, 2]).added
        2
        >>> jobs.peek_many(10)
        ['low', 'high']
        """
        return self._run(reading.peek_many(self._ctx, index("num", num)))

    def peek_score(self) -> float | None:
        """Return the lowest score; None if there is no item.

        One round trip, O(log N).

        Returns
        -------
        float or None
            The score of what `peek` gives.

        Examples
        --------
        >>> jobs.peek_score()
        >>> jobs.add("a", 3)
        3.0
        >>> jobs.peek_score()
        3.0
        """
        return self._run(reading.peek_score(self._ctx))

    def score(self, item: Any) -> float | None:
        """Return a queued item's score, else None.

        One round trip, O(1).

        Parameters
        ----------
        item : object or Key
            What to look for.

        Returns
        -------
        float or None
            Its score. 0.0 is a score: compare with None.

        Raises
        ------
        TypeError, ValueError
            If the item cannot be encoded.

        Examples
        --------
        >>> jobs.add("a", 2)
        2.0
        >>> jobs.score("a")
        2.0
        >>> jobs.score("b")
        """
        return self._run(reading.score(self._ctx, item))

    def scores(self, items: Iterable[Any]) -> list[float | None]:
        """Return the score of each item, None for those not queued.

        O(1) an item, a round trip for each 1,000.

        Parameters
        ----------
        items : iterable of object or Key
            What to look for.

        Returns
        -------
        list of float or None
            A score or None for each item, in their order.

        Raises
        ------
        TypeError, ValueError
            If an item cannot be encoded: the error names its position, and nothing was sent.

        Examples
        --------
        >>> jobs.add("a", 2)
        2.0
        >>> jobs.scores(["b", "a"])
        [None, 2.0]
        """
        return self._run(reading.scores(self._ctx, many("items", items)))

    def get(self, item: Any) -> T | None:
        """Return what is queued for an item, or for a `Key`; else None.

        One round trip, O(1).

        Parameters
        ----------
        item : object or Key
            What to look for.

        Returns
        -------
        object or None
            The item as it would be handed out: with ``key`` the payload of its last accepted add.

        Raises
        ------
        TypeError, ValueError
            If the item cannot be encoded.
        redset.exceptions.DecodeError
            If what is queued cannot be decoded.

        Examples
        --------
        >>> pages = SortedSet(r, "pages", key="url")
        >>> pages.add({"url": "/a", "depth": 1})
        0.0
        >>> pages.get(Key("/a"))
        {'depth': 1, 'url': '/a'}
        """
        return self._run(reading.get(self._ctx, item))  # type: ignore[no-any-return]

    def contains(self, item: Any) -> bool:
        """Whether an item is queued; the same as ``item in s``.

        One round trip, O(1).

        Parameters
        ----------
        item : object or Key
            What to look for.

        Returns
        -------
        bool

        Raises
        ------
        TypeError, ValueError
            If the item cannot be encoded.

        Examples
        --------
        >>> jobs.add("a")
        0.0
        >>> jobs.contains("a"), jobs.contains("b")
        (True, False)
        """
        return self.score(item) is not None

    def size(self) -> int:
        """Return how many items are queued, due or not; the same as ``len(s)``.

        One round trip, O(1).

        Returns
        -------
        int

        Examples
        --------
        >>> jobs.add("a")
        0.0
        >>> jobs.size()
        1
        """
        return self._run(reading.size(self._ctx))

    def __iter__(self) -> Iterator[T]:
        return self._open().iterate(reading.iterate(self._ctx))  # type: ignore[no-any-return]

    def stats(self) -> Stats:
        """Return the set in figures, in one server step.

        One round trip, O(log N), and samples of the memory of each key and of what is leased. If
        the server takes no writes (a replica, a user without the right), a second one looks only,
        and counts expired leases as given back.

        Returns
        -------
        Stats
            ``oldest_age`` is in seconds, ``memory_bytes`` in bytes.

        Examples
        --------
        >>> jobs.add("a", 2)
        2.0
        >>> stats = jobs.stats()
        >>> stats.size, stats.dead, stats.oldest_score
        (1, 0, 2.0)
        """
        return self._run(reading.stats(self._ctx, self._scores_are_times))

    def between(self, min: float, max: float) -> Between[T]:
        """View the queued items whose score is from ``min`` to ``max``, both included.

        Due or not, without what is leased. Sends nothing by itself.

        Parameters
        ----------
        min, max : float
            Whatever ``float()`` takes but NaN; ``-math.inf`` and ``math.inf`` are ends, too.

        Returns
        -------
        Between
            To be iterated, counted, taken from and discarded.

        Raises
        ------
        TypeError, ValueError
            If one is not a score, or ``min`` is above ``max``.

        Examples
        --------
        >>> jobs.add_many(["a", "b", "c"], score=[1, 2, 3]).added
        3
        >>> jobs.between(2, 3).size()
        2
        >>> list(jobs.between(2, 3))
        ['b', 'c']
        """
        return Between(self, min, max)

    @property
    def dead(self) -> DeadLetters:
        """The dead letters: items that could not be decoded, or that failed too often.

        Sends nothing by itself.

        Returns
        -------
        DeadLetters
            To be iterated, counted and purged.

        Examples
        --------
        >>> jobs.dead.size()
        0
        """
        return DeadLetters(self)

    # Removing.

    def discard(self, item: Any, forget: bool = False) -> bool:
        """Remove an item; whether it was queued or leased.

        A leased one is cancelled: it is not handed out again. One round trip, O(log N).

        Parameters
        ----------
        item : object or Key
            What to remove.
        forget : bool
            Whether ``remember`` is to forget it as well.

        Returns
        -------
        bool
            Whether it was queued or leased.

        Raises
        ------
        TypeError, ValueError
            If the item cannot be encoded; for ``forget`` on a set without ``remember``.

        Examples
        --------
        >>> jobs.add("a")
        0.0
        >>> jobs.discard("a"), jobs.discard("a")
        (True, False)
        """
        return self._run(memory.discard(self._ctx, [item], forget)) > 0

    def discard_many(self, items: Iterable[Any], forget: bool = False) -> int:
        """Remove items; how many were queued or leased.

        O(log N) an item, a round trip and a step for each 250.

        Parameters
        ----------
        items : iterable of object or Key
            What to remove. All of them are encoded before anything is sent.
        forget : bool
            Whether ``remember`` is to forget them as well.

        Returns
        -------
        int
            How many were queued or leased.

        Raises
        ------
        TypeError, ValueError
            If an item cannot be encoded: the error names its position, and nothing was removed.
            For ``forget`` on a set without ``remember``.

        Examples
        --------
        >>> jobs.add_many(["a", "b"]).added
        2
        >>> jobs.discard_many(["a", "b", "c"])
        2
        """
        return self._run(memory.discard(self._ctx, many("items", items), forget))

    def remove(self, item: Any) -> None:
        """Remove an item; KeyError where it is neither queued nor leased.

        One round trip, O(log N).

        Parameters
        ----------
        item : object or Key
            What to remove.

        Raises
        ------
        KeyError
            If it is neither queued nor leased.
        TypeError, ValueError
            If it cannot be encoded.

        Examples
        --------
        >>> jobs.add("a")
        0.0
        >>> jobs.remove("a")
        >>> jobs.remove("a")
        Traceback (most recent call last):
            ...
        KeyError: 'a'
        """
        if not self.discard(item):
            raise KeyError(item)

    def clear(self, *, keep_memory: bool = False, if_finished: bool = False) -> int:
        """Remove everything, in one step; true where anything was queued.

        The dead letters go, too, and whatever else is kept under the set's keys, of any type. The
        server unlinks each key in O(1), and frees it in the background. What a memory without end
        leaves is then unlinked in bounded steps, a round trip for each 500 buckets (about 90,000
        items).

        Parameters
        ----------
        keep_memory : bool
            Whether what ``remember`` knows stays.
        if_finished : bool
            Clear only a finished set (see `finished`), in the same step. Use it to begin again at a
            start of several workers: none of them clears what another has begun.

        Returns
        -------
        int
            How many items were queued. On a name that can have no second key: 1 or 0. With
            ``if_finished``: how many items are queued, leased or delayed, so that nothing was
            cleared; 0 if the set was finished and is cleared.

        Raises
        ------
        ValueError
            For ``keep_memory`` on a set without ``remember``.

        Examples
        --------
        >>> jobs.add_many(["a", "b"]).added
        2
        >>> jobs.clear()
        2
        >>> jobs.size()
        0
        >>> jobs.add("c")
        0.0
        >>> jobs.clear(if_finished=True), jobs.pop(), jobs.clear(if_finished=True)
        (1, 'c', 0)
        """
        return self._run(memory.clear(self._ctx, keep_memory, if_finished))

    # As a set.

    def update(self, items: Iterable[Any]) -> None:
        """Add all items of another set, or of an iterable; the same as ``jobs |= items``.

        Of another set the score and the payload of what both have become those of the lower score:
        each is added as with ``lt=True``, by this set's rules. What it knows and no longer has
        stays out. An iterable is added as by `add_many`.

        In steps of 125 or 250, none of which holds the server for long; it is not atomic, and
        readers see what has been added so far. If one server has both, the items do not leave
        it, but for those that a set with ``remember`` is given. O(log N) an item.

        Parameters
        ----------
        items : SortedSet, or iterable of items
            Another set of redset's, on whatever server, or items.

        Raises
        ------
        TypeError
            If it is not an iterable, or a set of the other kind (sync, asyncio).
        ValueError
            If it is the set itself, or in another slot of a cluster.
        redset.exceptions.OptionsDiffer
            If the two have not the same ``key``.
        redset.exceptions.DecodeError
            If the key of an item of a set elsewhere cannot be read.
        redset.exceptions.Full
            If there would be more than ``max_size``; what was added before stays.

        Examples
        --------
        >>> jobs.add_many(["a", "b"], score=[1, 5]).added
        2
        >>> pages = SortedSet(r, "pages")
        >>> pages.add_many(["b", "c"], score=[2, 3]).added
        2
        >>> jobs.update(pages)
        >>> jobs.take(5, with_scores=True)
        [('a', 1.0), ('b', 2.0), ('c', 3.0)]
        """
        other = self._operand(items)
        if other is None:
            self.add_many(items)
        else:
            self._run(algebra.update(self._ctx, other))

    def isdisjoint(self, other: Iterable[Any]) -> bool:
        """Return whether nothing queued is in another set, or among the items of an iterable.

        In steps of 250 or 1,000, and ends at the first that both have; what changes meanwhile may
        be seen or not. O(1) an item.

        Parameters
        ----------
        other : SortedSet, or iterable of items
            Another set of redset's, on whatever server, or items.

        Returns
        -------
        bool

        Raises
        ------
        TypeError, ValueError
            If it is not an iterable, an item cannot be identified, or a set is of the other kind
            (sync, asyncio), or in another slot of a cluster.
        redset.exceptions.OptionsDiffer
            If the two have not the same ``key``.

        Examples
        --------
        >>> jobs.add("a")
        0.0
        >>> jobs.isdisjoint(["b", "c"]), jobs.isdisjoint(["a"])
        (True, False)
        """
        return self._run(*self._disjoint(other))

    def move_many(self, items: Iterable[Any], other: SortedSet[Any]) -> int:
        """Move queued items to another set of the same server; how many it took.

        Each is added there by the other's own rules, at its score and with its payload, and leaves
        this set in the same step: it is never in both, nor in none. What the other refuses stays
        here, as does what is leased. An item that is accepted becomes known to the other, where
        that has ``remember``, and stays known here. Its attempts start again. O(log N) an item, a
        step and a round trip for each 250 (125 if the other has ``remember``).

        Parameters
        ----------
        items : iterable of items or Key
            What is not queued is passed over.
        other : SortedSet
            A set on the same server, with or without ``key`` as this one.

        Returns
        -------
        int
            How many were moved. If the connection was lost meanwhile it may be fewer.

        Raises
        ------
        TypeError, ValueError
            If an item cannot be identified, or ``other`` is not a set, this set itself, on another
            server, or in another slot of a cluster; nothing was moved.
        redset.exceptions.OptionsDiffer
            If the two have not the same ``key``, or the other was made with other options.
        redset.exceptions.Full
            If a chunk would make the other larger than its ``max_size``; earlier ones are moved.

        Examples
        --------
        >>> jobs.add_many(["a", "b"], score=[1, 2]).added
        2
        >>> pages = SortedSet(r, "pages")
        >>> jobs.move_many(["b", "c"], pages)
        1
        >>> pages.score("b"), jobs.size()
        (2.0, 1)
        """
        return self._run(self._moving(items, other))

    # In and out.

    def export(self) -> Iterator[str]:
        """Return the whole set as lines of JSON, while it may be in use, in constant memory.

        What is queued and leased (as if it were queued), with scores, payloads, attempts and last
        errors; dead letters; what it remembers, where this object was made with ``remember``. The
        first line has the set's options, the last one how many items there were.

        Not one moment: pages of 250 items are read one after the other. What stays queued is in it
        exactly once. What is leased, which is read before and after what is queued, is in it twice,
        and so may be what changes hands meanwhile; `restore` takes each once. One that is leased
        and comes back meanwhile may be missing, and one that is done may be in it. For an exact
        copy stop the consumers. O(log N + 250) a page, a round trip each.

        Yields
        ------
        str
            A line, without its end.

        Examples
        --------
        >>> jobs.add("a", 1)
        1.0
        >>> for line in jobs.export():
        ...     print(line)
        {"redset":1,"name":"jobs","key":false,"remember":"","epoch":""}
        {"item":"a","score":1.0}
        {"end":1}
        """
        return self._open().iterate(transfer.export(self._ctx))  # type: ignore[no-any-return]

    def restore(self, lines: Iterable[str | bytes]) -> int:
        """Fill the set, which must be empty, from the lines of `export`; how many items it has.

        All lines are read and checked first (what does not fit in memory waits in a temporary
        file). If a call is cut off, the same call with the same lines goes on where it stopped; no
        other lines can be restored before a `clear`. A set with other options takes the items as
        its own: with ``key`` they are decoded for it. What was remembered forever can only go on
        being that, with the same ``key``; else it is left out, and the log says so. O(log N) an
        item, a step and a round trip for each 250.

        Parameters
        ----------
        lines : iterable of str or bytes
            A file opened for reading is one. Empty lines are passed over.

        Returns
        -------
        int
            How many items were queued, by all calls with these lines.

        Raises
        ------
        TypeError, ValueError
            If they are not those of an exported set, or end too soon, or the set is not empty;
            nothing was written. With ``key``, also if an item's digest is not that of its key.
        redset.exceptions.OptionsDiffer
            If an item has no identity in this set; nothing was written.

        Examples
        --------
        >>> jobs.add_many(["a", "b"], score=[1, 2]).added
        2
        >>> lines = list(jobs.export())
        >>> jobs.clear()
        2
        >>> jobs.restore(lines), jobs.take(2, with_scores=True)
        (2, [('a', 1.0), ('b', 2.0)])
        """
        return self._run(*self._restoring(lines))

    # Remembering.

    def forget(self, item: Any) -> bool:
        """Forget an item, so that it may be added again; whether it was known.

        One round trip; O(1) with ``remember=True``, O(log M) of M known items with a limited time.
        The first call of an object takes one more. A queued item stays queued.

        Parameters
        ----------
        item : object or Key
            What to forget.

        Returns
        -------
        bool
            Whether it was known.

        Raises
        ------
        TypeError, ValueError
            If the item cannot be encoded, or the set has no ``remember``.

        Examples
        --------
        >>> s = SortedSet(r, "urls", remember=True)
        >>> s.add("/a"), s.pop(), s.add("/a")
        (0.0, '/a', None)
        >>> s.forget("/a"), s.add("/a")
        (True, 0.0)
        """
        return self._run(memory.forget(self._ctx, [item])) > 0

    def forget_many(self, items: Iterable[Any]) -> int:
        """Forget items; how many were known.

        As `forget`, a round trip for each 500.

        Parameters
        ----------
        items : iterable of object or Key
            What to forget. All of them are encoded before anything is sent.

        Returns
        -------
        int
            How many were known; an item that is named twice counts once.

        Raises
        ------
        TypeError, ValueError
            If an item cannot be encoded (the error names its position), or the set has no
            ``remember``; nothing was forgotten.

        Examples
        --------
        >>> s = SortedSet(r, "urls", remember=True)
        >>> s.add_many(["/a", "/b"]).added
        2
        >>> s.forget_many(["/a", "/c"])
        1
        """
        return self._run(memory.forget(self._ctx, many("items", items)))

    def seen(self, item: Any) -> bool:
        """Whether ``remember`` knows an item.

        One round trip, O(1). The first call of an object takes one more.

        Parameters
        ----------
        item : object or Key
            What to look for.

        Returns
        -------
        bool

        Raises
        ------
        TypeError, ValueError
            If the item cannot be encoded, or the set has no ``remember``.

        Examples
        --------
        >>> s = SortedSet(r, "urls", remember=True)
        >>> s.add("/a"), s.pop()
        (0.0, '/a')
        >>> s.seen("/a"), s.seen("/b")
        (True, False)
        """
        return self._run(memory.seen(self._ctx, [item]))[0]

    def known(self, item: Any) -> bool | None:
        """Whether this process's table says that ``remember`` knows an item.

        Sends nothing. The table holds only items that the server refused or accepted in the last
        adds, and is trusted within a second of a check, which adds make. So ask it before you make
        or fetch something that would be refused, and add as usual if it cannot tell.

        Parameters
        ----------
        item : object or Key
            What to look for.

        Returns
        -------
        bool or None
            True if it is known; None if the table cannot tell. Always None on a set without
            ``remember``, with ``known_max=0``, and on clients without a table (see ``known_max``).

        Raises
        ------
        TypeError, ValueError
            If the item cannot be encoded.

        Examples
        --------
        >>> s = SortedSet(r, "urls", remember=True)
        >>> urls = [f"/{number}" for number in range(100)]
        >>> s.add_many(urls).added, s.add_many(urls).refused
        (100, 100)
        >>> s.known("/7"), s.known("/new")
        (True, None)
        """
        return self._open().run_offline(known.knows(self._ctx, item))  # type: ignore[no-any-return]

    def seen_many(self, items: Iterable[Any]) -> list[bool]:
        """Say of each item whether ``remember`` knows it.

        O(1) an item, a round trip for each 500.

        Parameters
        ----------
        items : iterable of object or Key
            What to look for.

        Returns
        -------
        list of bool
            One for each item, in their order.

        Raises
        ------
        TypeError, ValueError
            If an item cannot be encoded (the error names its position), or the set has no
            ``remember``.

        Examples
        --------
        >>> s = SortedSet(r, "urls", remember=True)
        >>> s.add("/a")
        0.0
        >>> s.seen_many(["/b", "/a"])
        [False, True]
        """
        return self._run(memory.seen(self._ctx, many("items", items)))

    # The object itself.

    def close(self) -> None:
        """Close the client that `from_url` made; one that was passed in stays open.

        The set cannot be used afterwards: a call of it is a RuntimeError. Sends nothing. ``with``
        calls it at the end.

        Examples
        --------
        >>> jobs.close()
        """
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TimeSortedSet(SortedSet[T]):
    """A sorted set whose scores are times: oldest first.

    The default score is the producer's time of adding, in seconds of Unix time, never the same
    twice in a row. Fed with duplicates, ``duplicates="keep"`` makes it first in, first out.

    Examples
    --------
    >>> s = TimeSortedSet(r, "times")
    >>> s.add_many(["first", "second"]).added
    2
    >>> s.pop()
    'first'
    """

    __slots__ = ()
    _scores_are_times = True

    def _default_scorer(self) -> Any:
        return Rising()


class ScheduledSet(TimeSortedSet[T]):
    """A time-sorted set that hands out only what is due, on the server's clock.

    The default score is the server's present time: due at once. `pop`, `take`, `available`, `peek`,
    `peek_many` and `peek_score` see what is due, `size`, iteration and the others all that is
    queued.

    A score may be a datetime that knows its time zone; a naive one is a ValueError.

    Examples
    --------
    >>> import time
    >>> s = ScheduledSet(r, "later")
    >>> s.add_many(["now", "tomorrow"], score=[time.time() - 1, time.time() + 86400]).added
    2
    >>> s.take(10), s.size()
    (['now'], 1)
    """

    __slots__ = ()
    _only_due = True

    def _default_scorer(self) -> Any:
        return ServerTime(self)

    def add(
        self,
        item: Any,
        score: Any = None,
        *,
        nx: bool = False,
        xx: bool = False,
        gt: bool = False,
        lt: bool = False,
        again: bool = False,
        remember: bool | None = None,
        delay: Time | None = None,
    ) -> float | None:
        """Add an item, as `SortedSet.add`; with ``delay`` it is due so long from now.

        Parameters
        ----------
        item, score, nx, xx, gt, lt, again, remember
            As for `SortedSet.add`.
        delay : float or timedelta, optional
            Time from now until it is due, in seconds on the server's clock; instead of ``score``.

        Returns
        -------
        float or None
            When it is due, as Unix time; None if it was refused.

        Raises
        ------
        TypeError, ValueError
            If ``delay`` is not a time, or ``score`` is given as well; else as `SortedSet.add`.

        Examples
        --------
        >>> s = ScheduledSet(r, "later")
        >>> due = s.add("mail", delay=60)
        >>> s.size(), s.available()
        (1, 0)
        """
        flags = Flags(nx, xx, gt, lt, again, remember)
        return self._run(adding.add(self._ctx, item, score, flags, self._later(score, delay)))

    def add_many(
        self,
        items: Iterable[Any],
        score: Any = None,
        *,
        nx: bool = False,
        xx: bool = False,
        gt: bool = False,
        lt: bool = False,
        again: bool = False,
        remember: bool | None = None,
        errors: str | OnError = "raise",
        delay: Time | None = None,
    ) -> AddResult:
        """Add any number of items, as `SortedSet.add_many`; with ``delay`` due so long from now.

        Each item's time is counted from when its chunk is made, so that their order is kept.

        Parameters
        ----------
        items, score, nx, xx, gt, lt, again, remember, errors
            As for `SortedSet.add_many`.
        delay : float or timedelta, optional
            As for `add`.

        Returns
        -------
        AddResult
            As for `SortedSet.add_many`.

        Raises
        ------
        TypeError, ValueError
            If ``delay`` is not a time, or ``score`` is given as well; else as `SortedSet.add_many`.
        redset.exceptions.AddError
            As for `SortedSet.add_many`.

        Examples
        --------
        >>> s = ScheduledSet(r, "later")
        >>> s.add_many(["mail", "backup"], delay=60).added
        2
        >>> s.available()
        0
        """
        flags, later = Flags(nx, xx, gt, lt, again, remember), self._later(score, delay)
        return self._run(*self._adding(items, score, flags, errors, False, later))

    def available(self) -> int:
        """Return how many items are due now: what a consumer can get.

        One round trip, O(log N). Of the other classes every queued item is available, so they have
        only ``size``.

        Returns
        -------
        int

        Examples
        --------
        >>> s = ScheduledSet(r, "later")
        >>> s.add_many(["mail", "backup"], score=[0, 4e9]).added
        2
        >>> s.available(), s.size()
        (1, 2)
        """
        return self._run(reading.available(self._ctx))


class Between(SyncView[T]):
    """The queued items of a set in a range of scores: iterate, count, take, discard them.

    A view: it holds nothing, and each call sees the set as it is then. Iterating is in order of
    score, in constant memory, with a round trip for each 1,000; what stays at its score is seen
    exactly once, whatever changes around it.

    Examples
    --------
    >>> jobs.add_many(["a", "b", "c"], score=[1, 2, 3]).added
    3
    >>> list(jobs.between(2, 3))
    ['b', 'c']
    """

    __slots__ = ("_ends", "_owner", "_within")

    def __init__(self, owner: SortedSet[T], lowest: Any, highest: Any) -> None:
        self._owner = owner
        self._ends = owner._ends(lowest, highest)
        self._within = reading.range_of(owner._ctx, *self._ends)

    def __iter__(self) -> Iterator[T]:
        owner = self._owner
        operation = reading.iterate(owner._ctx, self._within)
        return owner._open().iterate(operation)  # type: ignore[no-any-return]

    def size(self) -> int:
        """Return how many there are; the same as ``len()``.

        One round trip, O(log N).

        Returns
        -------
        int

        Examples
        --------
        >>> jobs.between(0, 10).size()
        0
        """
        return self._owner._run(reading.size(self._owner._ctx, self._within))

    def take(self, num: int) -> list[T]:
        """Remove and return up to ``num`` of them, lowest first.

        As `SortedSet.take` but for the range: at most once, O(log N + num), a round trip for each
        2,000 (1,000 with ``key`` or ``ties``). Due or not, and no expired lease is given back.

        Parameters
        ----------
        num : int
            How many at most; below 1 none.

        Returns
        -------
        list
            Items; empty if there is none.

        Raises
        ------
        TypeError, ValueError, OverflowError
            If ``int()`` does not take ``num``; nothing was sent.
        redset.exceptions.DecodeError
            If there were 10 or more, and none could be decoded.

        Examples
        --------
        >>> jobs.add_many(["a", "b", "c"], score=[1, 2, 3]).added
        3
        >>> jobs.between(2, 3).take(10)
        ['b', 'c']
        """
        owner = self._owner
        return owner._run(taking.take_between(owner._ctx, whole("num", num), self._within))

    def discard(self) -> int:
        """Remove them; how many.

        They stay known, with ``remember``, and what is leased stays leased. O(log N) an item, a
        round trip for each 250; it goes on as long as others add.

        Returns
        -------
        int
            How many were removed. If the connection was lost meanwhile it may be fewer.

        Examples
        --------
        >>> jobs.add_many(["a", "b", "c"], score=[1, 2, 3]).added
        3
        >>> jobs.between(2, 3).discard(), jobs.size()
        (2, 1)
        """
        return self._owner._run(memory.discard_between(self._owner._ctx, self._within))

    def __repr__(self) -> str:
        lowest, highest = self._ends
        return f"{self._owner!r}.between({lowest!r}, {highest!r})"


class DeadLetters(SyncView[DeadLetter]):
    """The dead letters of a set: iterate them, count them, queue them again, purge them.

    Iterating gives each as a `redset.DeadLetter`, oldest first, with a round trip for each 1,000.
    Nothing is removed but by `requeue`, `purge` and the set's ``clear``.

    Raises
    ------
    ValueError
        On use, where the set's name can have no second key.

    Examples
    --------
    >>> import json
    >>> jobs.add_many(["[1]", "[2"]).added
    2
    >>> jobs.serializer = json
    >>> jobs.take(10)
    [[1]]
    >>> jobs.dead.size()
    1
    """

    def __init__(self, owner: SortedSet[Any]) -> None:
        self._owner = owner

    def __iter__(self) -> Iterator[DeadLetter]:
        owner = self._owner
        return owner._open().iterate(dead.letters(owner._ctx))  # type: ignore[no-any-return]

    def size(self) -> int:
        """Return how many there are; the same as ``len(jobs.dead)``.

        One round trip, O(1).

        Returns
        -------
        int

        Examples
        --------
        >>> jobs.dead.size()
        0
        """
        return self._owner._run(dead.count_letters(self._owner._ctx))

    def requeue(self, letters_or_ids: Iterable[DeadLetter | str] | None = None) -> int:
        """Queue dead letters again, at their scores (0 if there is none); how many.

        They leave the dead letters, and their attempts start again. Nothing is asked of what the
        set remembers, nor of ``max_size``. One whose item is queued or leased again stays dead, as
        does one with ``key`` that can still not be decoded. O(log N) a letter, a round trip for
        each 100 (two for all).

        Parameters
        ----------
        letters_or_ids : iterable of DeadLetter or str, optional
            Which ones: as iteration gives them, or their ``id``. One that is there no more is
            passed over. Default: all that are there when the call begins.

        Returns
        -------
        int
            How many were queued. If the connection was lost meanwhile it may be fewer.

        Raises
        ------
        TypeError, ValueError
            If one is neither a dead letter nor an id; nothing was sent.
        redset.exceptions.OptionsDiffer
            If the set was made with other options.

        Examples
        --------
        >>> jobs.add("a")
        0.0
        >>> from redset import Reject
        >>> def handle(job):
        ...     raise Reject("not today")
        >>> jobs.consume(handle, until_finished=True).failed
        1
        >>> jobs.dead.requeue(), jobs.pop()
        (1, 'a')
        """
        return self._owner._run(requeueing(self._owner, letters_or_ids))

    def purge(
        self,
        before: float | datetime.datetime | datetime.timedelta | None = None,
        forget: bool = False,
    ) -> int:
        """Delete dead letters, all or those that died before a time; return how many.

        O(1) a letter, a round trip for each 1,000; with ``forget`` two or three for each 500.

        Parameters
        ----------
        before : float, datetime or timedelta, optional
            Unix time in seconds, an aware datetime, or a timedelta: so long ago. All on the
            server's clock. Letters of that time or later stay.
        forget : bool
            Whether the set is to forget their items, so that they may be added again. The item of
            one with ``key`` that cannot be decoded may not be known; the log says so.

        Returns
        -------
        int
            How many were deleted.

        Raises
        ------
        TypeError, ValueError
            If ``before`` is no time, or ``forget`` is asked of a set without ``remember``.

        Examples
        --------
        >>> from datetime import timedelta
        >>> jobs.dead.purge(before=timedelta(days=30))
        0
        """
        return self._owner._run(dead.purge(self._owner._ctx, before, forget))


class Batch(SyncLeases[T]):
    """Leases, lowest score first; false if there are none.

    Entered with ``with``, it settles by iteration: asking for the next lease marks the one before
    as done. On leaving, those done are acknowledged. On an exception the current one is failed,
    with the growing delays of `redset.SortedSet.consume`; `redset.Retry` and `redset.Reject` say
    otherwise. After a ``break`` it is released, as are those not reached, without an attempt. All
    of that is one round trip (for each 400 leases). Iterating outside of ``with`` marks nothing. A
    second loop goes on behind the first; what that was left at is not marked done by it.

    Attributes
    ----------
    lost : int
        How many were no longer ours when the batch was left; a warning in the log says so, too.

    Raises
    ------
    RuntimeError
        If it is entered twice, or iterated after it was left.

    Examples
    --------
    >>> jobs.add_many(["a", "b"], score=[1, 2]).added
    2
    >>> with jobs.lease(10) as batch:
    ...     for lease in batch:
    ...         print(lease.item)
    a
    b
    >>> jobs.finished()
    True
    """

    __slots__ = ()
    _owner: SortedSet[T]

    def ack(self, add: Iterable[Any] = ()) -> int:
        """Say that all of it that is not settled is done; how many were still ours.

        Examples
        --------
        >>> jobs.add_many(["a", "b"]).added
        2
        >>> batch = jobs.lease(2)
        >>> batch.ack()
        2
        """
        return self._owner.ack(self, add)

    def fail(self, error: BaseException | str, delay: Time = 0) -> int:
        """Count an attempt of all that is not settled; how many were still ours.

        Examples
        --------
        >>> jobs.add_many(["a", "b"]).added
        2
        >>> batch = jobs.lease(2)
        >>> batch.fail("the site is down", delay=60)
        2
        """
        return self._owner.fail(self, error, delay)

    def release(self, delay: Time = 0, score: Any = None) -> int:
        """Release all that is not settled, without an attempt; how many were still ours.

        Examples
        --------
        >>> jobs.add_many(["a", "b"]).added
        2
        >>> batch = jobs.lease(2)
        >>> batch.release(score=9), jobs.scores(["a", "b"])
        (2, [9.0, 9.0])
        """
        return self._owner.release(self, delay, score)

    def renew(self, ttl: Time) -> int:
        """Have all that is not settled for so many seconds from now; how many were still ours.

        Examples
        --------
        >>> jobs.add_many(["a", "b"]).added
        2
        >>> batch = jobs.lease(2, ttl=1)
        >>> batch.renew(60)
        2
        """
        return self._owner.renew(self, ttl)

    def __iter__(self) -> Iterator[Lease[T]]:
        return self._walk()

    def __enter__(self) -> Self:
        self._enter()
        return self._fetch()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._owner._run(self._leave(error))


class Writer(ThreadWriting):
    """Adds to a set in the background, in bulk; `SortedSet.buffered` makes it.

    Entered with ``with``; leaving writes all that was accepted, also if the block raises. Any
    number of threads may use it.

    When something cannot be written, after the client's own retries, the writer is at its end:
    nothing that was accepted behind it is sent, and each later call, and leaving the block, raise
    the same `redset.exceptions.AddError`. Its ``unwritten`` has what is not known to be in the set,
    and adding that again is safe; leases whose acknowledgement was not sent come back when their
    time is over. If the block raises something else, that goes on, and the log has the writer's
    error.

    In a forked child its calls are a RuntimeError. A writer that is still open when the interpreter
    ends is written first; the log says what could not be.

    Examples
    --------
    >>> with jobs.buffered() as writer:
    ...     for number in range(5000):
    ...         writer.add(f"job {number}", number)
    >>> jobs.size()
    5000
    """

    def add(
        self,
        item: Any,
        score: Any = None,
        *,
        nx: bool = False,
        xx: bool = False,
        gt: bool = False,
        lt: bool = False,
        again: bool = False,
        remember: bool | None = None,
    ) -> None:
        """Accept an item, to be added as the set's own ``add`` does; what became of it is not said.

        Sends nothing by itself; it waits where ``max_pending`` are not written yet. The item is
        serialised at once. The order of adds is kept: those in a row with the same flags are one
        bulk call, so flags that change from one to the next are slow.

        Parameters
        ----------
        item, score, nx, xx, gt, lt, again, remember
            As for `SortedSet.add`.

        Raises
        ------
        TypeError, ValueError
            If an argument cannot be used; the item was not accepted, the writer goes on.
        redset.exceptions.AddError
            If something that was accepted before cannot be written; this item was not accepted.
        RuntimeError
            Outside of the block, and in a forked child.

        Examples
        --------
        >>> with jobs.buffered(max_delay=1) as writer:
        ...     writer.add("a", 5)
        ...     writer.add("a", 7, lt=True)
        >>> jobs.score("a")
        5.0
        """
        self._add(item, score, (nx, xx, gt, lt, again, remember))

    def add_many(
        self,
        items: Iterable[Any],
        score: Any = None,
        *,
        nx: bool = False,
        xx: bool = False,
        gt: bool = False,
        lt: bool = False,
        again: bool = False,
        remember: bool | None = None,
    ) -> None:
        """Accept any number of items, to be added as the set's own ``add_many`` does.

        Faster than `add` for a list, such as the URLs of a page. Sends nothing by itself, and waits
        as `add` does. Items are serialised at once, in runs of 250. With ``remember`` the process's
        table of known items answers for those that it has: they are refused, and not serialised.

        Parameters
        ----------
        items : iterable
            What to add. Text, bytes and mappings are refused: they are rarely meant.
        score : float or iterable of float, optional
            One score for all, or one for each.
        nx, xx, gt, lt, again, remember : bool
            As for `SortedSet.add`.

        Raises
        ------
        TypeError, ValueError
            If an argument cannot be used. If an item cannot be added, the error names its position,
            and the items before it were accepted. The writer goes on.
        redset.exceptions.AddError, RuntimeError
            As for `add`.

        Examples
        --------
        >>> with jobs.buffered() as writer:
        ...     writer.add_many(["a", "b"], score=1)
        ...     writer.add_many(["c", "d"], score=[2, 3])
        >>> jobs.size()
        4
        """
        self._add_many(items, score, (nx, xx, gt, lt, again, remember))

    def ack(self, leases: Lease[Any] | Iterable[Lease[Any]]) -> None:
        """Acknowledge leases when all that was accepted before is in the set.

        Not at all where any of it could not be written: the leases then come back when their time
        is over. Waits like `add`. They count as settled at once; the log says if some were over
        before they were acknowledged, or given back because the server has forgotten meanwhile what
        it was known to remember. One round trip for each 400.

        Parameters
        ----------
        leases : Lease, Batch or iterable of Lease
            What is done. Of a batch what is not settled.

        Raises
        ------
        TypeError, ValueError
            If a lease is another set's or settled already; none was accepted.
        redset.exceptions.AddError, RuntimeError
            As for `add`.

        Examples
        --------
        >>> jobs.add("/")
        0.0
        >>> with jobs.buffered() as writer, jobs.lease() as batch:
        ...     for lease in batch:
        ...         writer.add("/found")
        ...         writer.ack(lease)
        >>> jobs.take(2), jobs.finished()
        (['/found'], True)
        """
        self._ack(leases)

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._close(error)


def check_server(client: Any, name: str | bytes | None = None) -> list[str]:
    """Return what is wrong with a server, as far as it tells: nothing is an empty list.

    Checks for: eviction enabled, no persistence, replica, unsupported version. The first add of a
    process to a set with ``remember``, or its first lease, logs the same. A server that hides its
    state has nothing wrong with it. One round trip; of a cluster one for each primary.

    Parameters
    ----------
    client : redis.Redis, valkey.Valkey, or any client with ``execute_command``
        What a set takes. Of a cluster client every primary is asked.
    name : str or bytes, optional
        A set's name: in a cluster only the node that has this set is asked.

    Returns
    -------
    list of str
        A sentence for each problem. If every primary of a cluster is asked, each begins with the
        address of its node.

    Raises
    ------
    TypeError, ValueError
        If an argument cannot be used; nothing was sent.

    Examples
    --------
    >>> check_server(r)
    []
    """
    return SyncFace._check_server(client, name)
