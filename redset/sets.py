"""The sync face: SortedSet, TimeSortedSet and ScheduledSet."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, overload

from redset import _faces, _operations
from redset._faces import grouping
from redset._faces import leases as settling
from redset._faces.arguments import Time, index, many, reason, waiting_time, whole
from redset._faces.base import (
    KeyOf,
    Loads,
    Options,
    Rising,
    Scorer,
    ServerTime,
    T,
    purging,
    requeueing,
)
from redset._faces.differences import SyncFace, SyncLeases, SyncView
from redset._faces.leases import Lease
from redset._faces.writer import ThreadWriting
from redset._operations import adding
from redset._operations.adding import AddResult, Flags, OnError
from redset._operations.codec import Key

__all__ = ("Key", "ScheduledSet", "SortedSet", "TimeSortedSet", "check_server", "list_sets")

if TYPE_CHECKING:
    from types import EllipsisType

    from typing_extensions import Self, Unpack

    from redset._faces.worker import Consumed, Event
    from redset._operations.dead import DeadLetter
    from redset._operations.glancing import Paused, SetInfo
    from redset._operations.groups import Group
    from redset._operations.leasing import Leased
    from redset._operations.operating import Worker
    from redset._operations.reading import Stats
    from redset.locks import Lock


class SortedSet(SyncFace[T]):
    """A sorted set in Redis that hands out each item once, lowest score first.

    Constructing a set sends nothing. Sets may be shared by threads, and by any number of processes
    through the name. A call may hold a connection while it calls ``scorer``, ``key``, the
    serializer or a callable of ``errors``. With a pool of one connection these must not use the
    client. The iterable of a bulk add may.

    Parameters
    ----------
    redis_client : redis.Redis, valkey.Valkey, or any client with ``execute_command``
        The server to use. Its pool, authentication, TLS and retries stay as they are.
    name : str or bytes
        The Redis key of the set. Its other keys begin with it.
    scorer : callable or str, optional
        Returns an item's score: a callable, or the name of a field (a mapping's key, else an
        attribute). Default: the score is 0.
    serializer : object, optional
        Has ``dumps(obj) -> str | bytes``, ``loads(bytes | str) -> obj``, or both, as the module
        ``json`` has. Default: bytes and text are stored as they are, and other items as
        ``str(item)``. All come out as text. A dict, list, tuple, set or dataclass then causes one
        warning.
    lock_timeout, lock_expires : float or timedelta, optional
        Times of `lock`, in seconds: to wait for it (default 10), and to hold it (default 20).
    key : callable, str or tuple of str, optional
        Returns an item's identity (str, bytes or int): a callable, or the name of a field. Several
        fields make one key: ``key=("customer", "kind")``. Items with equal keys are one item, also
        if the rest differs. The default serializer is then `redset.serializers.JSONSerializer`.
    remember : True, float or timedelta, optional
        Time for which an accepted item stays known: forever, or in seconds. A known item is
        refused, also after it was handed out.
    duplicates : {"move", "keep", "lowest", "highest"}
        Effect of an add on the score of a queued item. "keep" also refuses a leased item. With
        ``remember``, "move" and "keep" refuse a known item. Default: "move".
    ties : {"fifo", "lifo"}, optional
        Order of items of equal score: that of their first adds, over all producers, or its reverse.
        An item keeps its place while it is queued or leased, also if its score changes. Scores are
        then whole numbers from -4096 to 4095. Default: the order of the stored bytes, or with
        ``key`` that of their digests, which is as good as random.
    max_attempts : int or None
        Number of failed leases after which an item is a dead letter. None: never. Default 10. The
        option is not stored: give all consumers the same number.
    max_item_bytes : int, optional
        Limit of an item that this object serialises, in bytes. Default: 536,805,376, the default of
        the server's ``proto-max-bulk-len`` (512 MB) less 64 KiB. A server closes the connection on
        a larger item, so lower ``max_item_bytes`` with ``proto-max-bulk-len``. `update` from
        another set, `move_many` and `restore` copy stored items, and do not check it.
    max_size : int, optional
        Limit of queued items. A chunk that would exceed it is refused whole, with
        `redset.exceptions.Full`. `restore` does not check it. Default: no limit.
    known_max : int
        With ``remember``: limit of entries of the known table, a cache of items that the server
        knows. Adds of these send no request. The process has one table per set. It starts empty
        and grows to 24 bytes per entry (32 with a limited time, about 150 without the compiled
        core). A full table drops its oldest entries. 0 turns it off. Default: 1,000,000.
    group : callable, str or tuple of str, optional
        Returns an item's group, such as its host: a callable, or the name of a field. Several
        fields make one group. A group is str, bytes or int of 1 to 200 bytes, or None for none. The
        groups take turns, and ``group_limit`` and ``group_interval`` hold for each. Items without a
        group take turns as one, without limit. Identity and payload are stored apart, as with
        ``key``.
    group_limit : int or None
        Limit of a group's items in work, in all processes: 1 to 1,000. None: no limit. Default 1.
        The option is not stored: if processes differ, the largest limit applies.
    group_interval : float or timedelta
        Least time between two hand-outs of a group, in seconds, up to 30 days. Default 0. The
        option is not stored.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong. The error names it.

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
    def from_url(
        cls, url: str, name: str | bytes, *args: Any, cluster: bool = False, **options: Any
    ) -> Self:
        """Make a set on a client of its own, which `close` closes.

        It sends nothing, but a sync cluster client asks for the slots. Such a set can be pickled,
        for a process that ``multiprocessing`` spawns. The pickle has the URL (with its password),
        the name and the options. A set on your own client cannot be pickled: make it in the child
        process.

        Parameters
        ----------
        url : str
            A URL for ``redis.Redis.from_url``: ``redis://``, ``rediss://``, ``unix://``.
        name : str or bytes
            The set's name.
        *args, **options
            The constructor's other arguments. Options of the client go in the URL:
            ``redis://localhost?socket_timeout=3``.
        cluster : bool
            Whether the URL is that of a node of a cluster: ``redis://`` or ``rediss://``. Default
            False.

        Returns
        -------
        SortedSet
            A set of this class.

        Raises
        ------
        TypeError, ValueError
            If the URL or another argument is wrong.

        Examples
        --------
        >>> url = "redis://localhost:6379/0"
        >>> with SortedSet.from_url(url, "jobs") as jobs:  # doctest: +SKIP
        ...     jobs.add("first")
        """
        return cls._of_url(url, name, args, options, cluster)

    @property
    def lock(self) -> Lock:
        """A lock with the set's name, for the caller's own use.

        ``with jobs.lock: ...`` enters it. It is a `redset.locks.Lock` on the key ``name__lock``. No
        method of the set takes it. Making it sends nothing. Each try to enter it is one round trip,
        and leaving it is one more.

        Examples
        --------
        >>> jobs.lock.key
        'jobs__lock'
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
        """Add an item. For a queued item, the flags or ``duplicates`` decide.

        One round trip, O(log N). The first add of an object with ``remember`` takes one more.

        Parameters
        ----------
        item : object
            The item to hand out.
        score : float, optional
            Its place in the order, lowest first: any value that ``float()`` accepts, but not NaN.
            0 is a score. Default: the score of the scorer.
        nx : bool
            Add only if it is neither queued nor leased. Without it, an item that is added while it
            is leased is handed out once more after its lease.
        xx : bool
            Only change the score of a queued item. Add nothing new.
        gt, lt : bool
            Move a queued item only to a higher (gt) or a lower (lt) score.
        again : bool
            Accept the item also if the set remembers it.
        remember : bool, optional
            False accepts the item without remembering it. A known item is still refused. It has no
            effect on a set without ``remember``. Default: the set's option.

        Returns
        -------
        float or None
            The score, or None if the item was refused. 0.0 is a score: compare with None.

        Raises
        ------
        TypeError, ValueError
            If the item or its score is wrong, or the flags contradict each other. Nothing was sent.
            Exceptions of the scorer, the key and the serializer are raised unchanged.
        redset.exceptions.Full
            If the set has ``max_size`` items and the item is new.
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
        """Add any number of items in chunks. Memory does not grow with the input.

        O(log N) per item, one step on the server per chunk. A chunk has 500 items, and four chunks
        are in flight. It has 250 items with ``key``, ``remember``, ``max_size``, ``gt``, ``lt``, or
        another ``duplicates`` than ``"move"`` and ``"keep"``. It has 125 items while a memory
        fills, and two are in flight. With ``ties`` one is in flight.

        Parameters
        ----------
        items : iterable
            The items to add. Text, bytes and mappings are refused: they are rarely meant.
        score : float or iterable of float, optional
            One score for all, or one for each. Default: the scores of the scorer.
        nx, xx, gt, lt, again, remember : bool
            As for `add`.
        errors : {"raise", "skip"} or callable
            Action for an item that cannot be encoded, or is too large for the server. "raise" ends
            the call. "skip" skips and counts it; the first one of a process and set is logged. A
            callable receives its position, the item and the exception, and the item is skipped.
            `MemoryError`, `OSError` and `ImportError` always end the call.

        Returns
        -------
        AddResult
            Counts of added, updated, refused and failed items, as of single adds in order.

        Raises
        ------
        TypeError, ValueError
            If an argument is wrong.
        redset.exceptions.AddError
            If the call ended early. ``result`` has the acknowledged counts, ``resume_at`` the
            position to resume from, ``index`` and ``item`` the bad item.

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
        """Add as `add_many` does, and yield the items that were added.

        Nothing is sent before the first item is requested. No connection is held while the caller
        has an item. O(log N) per item, in chunks of 250, with four in flight.

        Parameters
        ----------
        items, score, nx, xx, gt, lt, again, remember, errors
            As for `add_many`.

        Yields
        ------
        object
            Each new item, after its chunk is acknowledged. It is the caller's own object.

        Raises
        ------
        TypeError, ValueError
            If an argument is wrong.
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
        """Return a writer that adds items in the background, for items that come one by one.

        Its ``add`` takes the arguments of `add` and returns at once; a thread writes the items as
        `add_many` does. It writes when ``max_items`` are accepted, when the first of them is
        ``max_delay`` old, and when the block is left. Making a writer sends nothing.

        Parameters
        ----------
        max_items : int
            Number of accepted items that starts a write. Default 1,000.
        max_delay : float or timedelta
            Time that an accepted item may wait for others, in seconds. Default 0.1.
        max_pending : int
            Limit of items that are accepted and not yet written. ``add`` waits beyond it, so memory
            does not grow if the server is slower. Default 10,000.

        Returns
        -------
        Writer
            To be entered with ``with``. Its next call, or leaving the block, raises its errors.

        Raises
        ------
        TypeError, ValueError
            If an argument is wrong.

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
        """Remove and return the item with the lowest score. It can wait for one.

        At most once: a caller that crashes loses the item. One round trip, O(log N). An object's
        first removal takes one more, to check that it can decode the items.

        In a set with groups it is the lowest of the group whose turn it is. It needs a free slot,
        holds none, and starts an interval.

        Waiting costs about one command a second. It costs at most 20 a second while others get the
        items, or at first if the server cannot report changes. It holds no connection of the pool,
        and a `KeyboardInterrupt` ends it.

        Parameters
        ----------
        wait : float or timedelta
            Time to wait for an item, in seconds: for an add of any program, an item that falls due,
            or the end of a lease. 0 does not wait, ``math.inf`` waits forever. Default 0.

        Returns
        -------
        object
            The item. Falsy items are items.

        Raises
        ------
        KeyError
            If the set is empty or paused, or nothing is due, and no item came in time.
        TypeError, ValueError
            If ``wait`` is not a number of seconds, or negative. Nothing was sent.
        redset.exceptions.DecodeError
            At a first removal, if none of the first 10 items can be decoded: nothing was removed.
            Also after 10 undecodable items in a row: they are in `dead`. Also if the user may not
            write dead letters: the undecodable item was put back.

        Examples
        --------
        >>> jobs.add_many(["low", "high"], score=[1, 2]).added
        2
        >>> jobs.pop()
        'low'
        """
        return self._run(_operations.taking.pop(self._ctx, waiting_time(wait)))  # type: ignore[no-any-return]

    def take(self, num: int, *, wait: Time = 0, with_scores: bool = False) -> list[Any]:
        """Remove and return up to ``num`` items, lowest score first. It can wait for one.

        At most once, as `pop`. O(log N + num), a round trip for each 2,000 items (1,000 with
        ``key`` or ``ties``). If a later step fails, the items of the earlier steps are returned,
        and the error is logged. A set with groups hands out as for `pop`.

        Parameters
        ----------
        num : int
            Limit of items. Below 1 none are taken.
        wait : float or timedelta
            Time to wait for the first item, in seconds, at the cost of `pop`. 0 does not wait,
            ``math.inf`` waits forever. Default 0.
        with_scores : bool
            Return ``(item, score)`` pairs.

        Returns
        -------
        list
            Items, or pairs of an item and its score. Empty if nothing can be handed out.

        Raises
        ------
        TypeError, ValueError, OverflowError
            If ``int()`` does not accept ``num``, or ``wait`` is not a number of seconds. Nothing
            was sent.
        redset.exceptions.DecodeError
            If 10 items or more were taken and none could be decoded. Also if no item was decoded
            and the user may not write dead letters: the items were put back.

        Examples
        --------
        >>> jobs.add_many(["low", "high"], score=[1, 2]).added
        2
        >>> jobs.take(10, with_scores=True)
        [('low', 1.0), ('high', 2.0)]
        """
        count, seconds, multi = whole("num", num), waiting_time(wait), self._open().multi
        return self._run(_operations.taking.take(self._ctx, count, with_scores, multi, seconds))

    # Leasing.

    def lease(self, num: int = 1, ttl: Time = 60.0, *, wait: Time = 0) -> Batch[T]:
        """Lease up to ``num`` items for a time, lowest score first.

        At least once: an item whose holder dies returns at its old score when its lease expires.
        Items whose leases expired together are handed out in smaller groups, so that an item that
        kills its worker dies alone. So a batch shorter than ``num`` does not mean an empty set.

        In a set with groups the items are those of the groups whose turn it is, lowest score first
        in each. A slot of a group and its interval count from this call: begin what you lease.

        O(log N) per item, a round trip and a step for each 100 items. A step also returns up to 100
        expired leases to the queue. A request that is repeated after a lost connection returns the
        same leases. An object's first call takes one more round trip, as with `pop`. Waiting costs
        the same as for `pop`. An interrupt or a cancellation loses nothing: the leases expire.

        Parameters
        ----------
        num : int
            Limit of items, from 1 to 100,000. Default 1.
        ttl : float or timedelta
            Time of the leases, in seconds. Default 60.
        wait : float or timedelta
            Time to wait for the first item, in seconds. 0 does not wait, ``math.inf`` waits
            forever. Default 0.

        Returns
        -------
        Batch
            A batch of `Lease`. It is false if nothing can be handed out.

        Raises
        ------
        TypeError, ValueError
            If ``num``, ``ttl`` or ``wait`` is wrong, or the set's name allows no second key.
            Nothing was sent.
        redset.exceptions.DecodeError
            As for `take`. Undecodable items are in `dead`.
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
        """Acknowledge leases: their items are done. It can add new items in the same step.

        With ``add`` both happen in one step, or neither. If there are more new items than a chunk
        (250 items, or 1 MiB), the first ones are added before, while any of the leases is still
        held. Adding them again is safe. If the caller has lost all of the leases, nothing is added:
        the next holder adds the items. A lost lease does not change its item. One round trip, and
        one for each 400 leases; with ``add`` those of `add_many`.

        Parameters
        ----------
        leases : Lease, Batch or iterable of Lease
            The leases to acknowledge. For a Batch: those not settled yet.
        add : iterable
            Items to add, as `add_many` does without flags.

        Returns
        -------
        int
            Number of leases that the caller still held. A lease whose request was repeated after a
            lost connection may count 0.

        Raises
        ------
        TypeError, ValueError
            If a lease belongs to another set or is settled. Nothing was sent.
        redset.exceptions.AddError
            If a new item is bad (nothing of its chunk was sent), or as for `add_many`. The leases
            stay as they are.
        redset.exceptions.Full, redset.exceptions.OptionsDiffer
            As for `add_many`. The leases stay as they are.

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
        *,
        group: bool = False,
    ) -> int:
        """Fail leases: count an attempt, and keep the error's text.

        After ``max_attempts`` attempts an item is a dead letter. One round trip for each 400
        leases.

        Parameters
        ----------
        leases : Lease, Batch or iterable of Lease
            The leases to fail. For a Batch: those not settled yet.
        error : exception or str
            The error. Its first 1,000 characters are kept.
        delay : float or timedelta
            Time until the items may be handed out again, in seconds, at their old scores. Default
            0.
        group : bool
            In a set with groups: let the items' groups rest as long. Default False.

        Returns
        -------
        int
            Number of leases that the caller still held.

        Raises
        ------
        TypeError, ValueError
            If an argument is wrong, or a lease belongs to another set or is settled.

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
        return self._run(settling.failing(self, leases, error, delay, group))

    def release(
        self,
        leases: Lease[T] | Iterable[Lease[T]],
        delay: Time = 0,
        score: Any = None,
        *,
        group: bool = False,
    ) -> int:
        """Release leases without an attempt, as they were or with a new score.

        A single lease can also change its item: `Lease.release`.

        One round trip for each 400 leases.

        Parameters
        ----------
        leases : Lease, Batch or iterable of Lease
            The leases to release. For a Batch: those not settled yet.
        delay : float or timedelta
            Time until the items may be handed out again, in seconds. Default 0.
        score : float, optional
            New score of the items. Their attempts then start again. An item that was added while it
            was leased has the score of that add.
        group : bool
            In a set with groups: let the items' groups rest for ``delay``, too. Default False.

        Returns
        -------
        int
            Number of leases that the caller still held.

        Raises
        ------
        TypeError, ValueError
            If an argument is wrong, or a lease belongs to another set or is settled.

        Examples
        --------
        >>> jobs.add("a", 3)
        3.0
        >>> jobs.release(jobs.lease(), score=9)
        1
        >>> jobs.score("a")
        9.0
        """
        return self._run(settling.releasing(self, leases, delay, score, group=group))

    def renew(self, leases: Lease[T] | Iterable[Lease[T]], ttl: Time) -> int:
        """Extend leases to ``ttl`` seconds from now. One round trip for each 400 leases.

        Parameters
        ----------
        leases : Lease, Batch or iterable of Lease
            The leases to extend. For a Batch: those not settled yet.
        ttl : float or timedelta
            Time from now, in seconds.

        Returns
        -------
        int
            Number of leases that the caller still holds. ``lease.expires`` does not change.

        Raises
        ------
        TypeError, ValueError
            If an argument is wrong, or a lease belongs to another set or is settled.

        Examples
        --------
        >>> jobs.add("a")
        0.0
        >>> jobs.renew(jobs.lease(ttl=1), 60)
        1
        """
        return self._run(settling.renewing(self, leases, ttl))

    def leased(self) -> Iterator[Leased]:
        """Yield leased and delayed items, in order of expiry.

        A round trip for each 250. Items that cannot be decoded are skipped, with a warning.

        Yields
        ------
        named tuple
            ``(item, score, attempts, expires, error, worker, group)``. ``expires`` is the end of
            the lease or delay, as Unix time of the server in seconds. ``error`` is the last error,
            or None. ``worker`` is the name of its process, or None. ``group`` is the item's group,
            or None.

        Examples
        --------
        >>> jobs.add("a", 3)
        3.0
        >>> batch = jobs.lease(ttl=60)
        >>> rows = list(jobs.leased())
        >>> rows[0].item, rows[0].attempts, rows[0].error
        ('a', 0, None)
        """
        call = _operations.leasing.leased(self._ctx)
        return self._open().iterate(call)  # type: ignore[no-any-return]

    def pause(self, why: str = "") -> None:
        """Hold all consumers of the set back, until `resume`. The server keeps the pause.

        From then on `lease` and `consume` get nothing, in any process, as from an empty set: they
        wait. `pop` and `take` of another process follow with its next report, within two seconds of
        use; not with ``REDSET_REPORT=0``. Adding, settling leases, and looking go on. redset 0.5.1
        does not obey. O(1); one round trip.

        Parameters
        ----------
        why : str
            A reason for people who look, with at most 1,000 characters. Default none.

        Raises
        ------
        TypeError, ValueError
            If ``why`` is not such a text. Nothing was sent.

        Examples
        --------
        >>> jobs.pause("the site is down")
        >>> jobs.paused.why
        'the site is down'
        >>> jobs.add("first")
        0.0
        >>> bool(jobs.lease())
        False
        """
        return self._run(_operations.operating.pause(self._ctx, reason("why", why)))

    def resume(self) -> bool:
        """End a pause. Waiting consumers wake up at once. O(1); one round trip.

        Returns
        -------
        bool
            Whether the set was paused.

        Examples
        --------
        >>> jobs.pause()
        >>> jobs.resume(), jobs.resume()
        (True, False)
        """
        return self._run(_operations.operating.resume(self._ctx))

    @property
    def paused(self) -> Paused | None:
        """The pause of the set, with ``by``, ``at`` and ``why``; None if it is not paused.

        O(1); one round trip.

        Examples
        --------
        >>> jobs.paused is None
        True
        """
        return self._run(_operations.operating.paused(self._ctx))

    def set_group(
        self,
        group: str | bytes | int,
        *,
        limit: int | EllipsisType | None = ...,
        interval: Time | EllipsisType = ...,
    ) -> None:
        """Set a group's own limit and interval, for all processes. The server keeps them.

        They win over ``group_limit`` and ``group_interval`` of any process, until `clear`. A value
        that is not given is the default again. A call without both forgets the group's own values.
        O(log N); one round trip.

        Parameters
        ----------
        group : str, bytes or int
            The group, also as ``lease.group`` has it. A tuple if the set's ``group`` is one.
        limit : int or None
            Limit of its items in work: 1 to 1,000. None: no limit. Default: ``group_limit``.
        interval : float or timedelta
            Least time between two hand-outs, in seconds, up to 30 days. Default:
            ``group_interval``.

        Raises
        ------
        TypeError, ValueError
            If an argument is wrong, or the set has no groups. Nothing was sent.

        Examples
        --------
        >>> pages = SortedSet(r, "pages", key="url", group="host")
        >>> pages.set_group("example.org", interval=5)
        """
        return self._run(grouping.setting(self._ctx, group, limit, interval))

    def pause_group(self, group: str | bytes | int, seconds: Time) -> None:
        """Hand out no item of a group for a time. Its leases go on. O(log N); one round trip.

        Parameters
        ----------
        group : str, bytes or int
            The group, as for `set_group`.
        seconds : float or timedelta
            Time from now. A longer pause goes on. 0 ends a pause; the group may then rest for one
            interval more. ``math.inf`` pauses until it is ended.

        Raises
        ------
        TypeError, ValueError
            If an argument is wrong, or the set has no groups. Nothing was sent.

        Examples
        --------
        >>> pages = SortedSet(r, "pages", key="url", group="host")
        >>> pages.pause_group("example.org", 60)
        """
        return self._run(grouping.pausing(self._ctx, group, seconds))

    def groups(self) -> Iterator[Group]:
        """Yield the groups that have queued items, items in work, a rest, or own values.

        A group that changes during the call may be missing, or be there twice. A round trip for
        each 250.

        Yields
        ------
        Group
            ``(name, queued, leased, ready, rests_until, limit, interval)``.

        Raises
        ------
        ValueError
            If the set has no groups.

        Examples
        --------
        >>> pages = SortedSet(r, "pages", key="url", group="host")
        >>> pages.add({"url": "https://example.org/", "host": "example.org"})
        0.0
        >>> [(group.name, group.queued) for group in pages.groups()]
        [('example.org', 1)]
        """
        return self._open().iterate(grouping.listing(self._ctx))  # type: ignore[no-any-return]

    def workers(self) -> list[Worker]:
        """Return the processes that work on the set, latest report first.

        A process reports with its first add, pop or lease. Later it reports at most every two
        seconds if something is new, and every 30 seconds while it waits. Processes that were not
        heard of for an hour are dropped. O(number of workers); one round trip.

        Returns
        -------
        list of Worker
            Of each ``id``, ``host``, ``pid``, ``since``, ``seen``, ``held``, ``done``, ``failed``,
            ``label``.

        Examples
        --------
        >>> jobs.add("first")
        0.0
        >>> [worker] = jobs.workers()
        >>> worker.held, worker.done
        (0, 0)
        """
        return self._run(_operations.operating.workers(self._ctx))

    def finished(self) -> bool:
        """Return whether nothing is queued, scheduled or leased, in one server step.

        One round trip. If the server refuses writes (a replica, a user without the right), a second
        one only reads, and counts expired leases as returned.

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
        return self._run(_operations.leasing.finished(self._ctx))

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
        """Run a worker: call ``handler(item)`` for each item, until it is stopped.

        Items are leased, and renewed at half of their time. A worker that is killed loses nothing:
        its items return when their leases expire. An item may be handed out twice if its process
        is suspended for longer than the lease.

        - If the handler returns, its item is acknowledged. New items that it returns are added in
          the same step.
        - If it raises, the error is logged and the item is retried. The delay is 1 s, 2 s, 4 s and
          so on up to an hour. Each delay is shortened at random, by up to half. After
          ``max_attempts`` attempts the item is a dead letter. `redset.Retry` and `redset.Reject`
          choose otherwise.
        - If a full set or server refuses its new items, the item is released for some seconds,
          without an attempt. So is an item whose process lacks memory, files or threads.
        - An item that waits for a handler for a second is released for other workers.
        - If the server refuses requests for a while (``OOM``, ``NOREPLICAS``, ``BUSY``,
          ``MISCONF``, ``LOADING``, ``TRYAGAIN``, ``CLUSTERDOWN``), the call waits with growing
          pauses. It waits for 60 s, or for the client's own retry time if that is longer.

        Settlements go with the next lease call in one round trip. A finished item is settled within
        50 ms.

        Handlers run in ``concurrency`` threads of their own. The caller's thread sends requests.

        Parameters
        ----------
        handler : callable
            Takes an item; returns None, or an iterable of new items. Any other result ends the
            call with a TypeError, and the work is not repeated. An awaitable or a future releases
            the item. Text or a mapping (probably a new item without its list) makes it a dead
            letter. Any other result acknowledges it. A handler has no time limit: its lease is
            renewed while it runs.
        batch : int, optional
            Number of items in a lease call. Default: 0 to 100 more than free handlers can begin,
            about 100 ms of work by the time of the last 16 items. 1 leases only if a handler is
            free, so no item is reserved that an idle worker could handle. A set with groups leases
            so, and refuses another value.
        concurrency : int
            Number of handlers that run at a time. Default 1.
        ttl : float or timedelta
            Time of the leases, in seconds. Items of a killed worker are missing for that time.
            Default 60.
        until_finished : bool
            Return when nothing is queued, scheduled or leased by any worker.
        stop : threading.Event, optional
            Any object with ``is_set()``. It is checked every 50 ms. Once it is set, running
            handlers finish, other items are released, and the call returns. redset installs no
            signal handler; set the event in your own.

        Returns
        -------
        Consumed
            Number of finished items, failed attempts and lost leases.

        Raises
        ------
        TypeError, ValueError
            If an argument is wrong, or the set's name allows no second key. Also a TypeError if the
            handler returned neither None nor an iterable of new items.
        KeyboardInterrupt
            And any error of the client that its retry policy did not mend. Running handlers finish
            first and are settled if possible, and other items are released; the first interrupt
            logs that. A second interrupt does not wait.

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
            _faces.worker.WorkerLoop(
                self, handler, batch, concurrency, ttl, until_finished, stop
            ).run()
        )

    # Looking.

    def peek(self, position: int = 0) -> T:
        """Return the item at a position from the lowest, without removing it.

        One round trip, O(log N).

        Parameters
        ----------
        position : int
            0 is the lowest. Negative positions count from the highest, which is -1.

        Returns
        -------
        object
            The item.

        Raises
        ------
        KeyError
            If no item has this position.
        redset.exceptions.DecodeError
            If the item cannot be decoded.

        Examples
        --------
        >>> jobs.add("a", 1)
        1.0
        >>> jobs.peek()
        'a'
        """
        return self._run(_operations.reading.peek(self._ctx, index("position", position)))  # type: ignore[no-any-return]

    def peek_many(self, num: int) -> list[T]:
        """Return up to ``num`` items, lowest score first, without removing them.

        O(log N + num), a round trip for each 1,000. Items that cannot be decoded are skipped, with
        a warning in the log.

        Parameters
        ----------
        num : int
            Limit of items.

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
        return self._run(_operations.reading.peek_many(self._ctx, index("num", num)))

    def peek_score(self) -> float | None:
        """Return the lowest score, or None for an empty set.

        One round trip, O(log N).

        Returns
        -------
        float or None
            The score of the item that `peek` returns.

        Examples
        --------
        >>> jobs.peek_score()
        >>> jobs.add("a", 3)
        3.0
        >>> jobs.peek_score()
        3.0
        """
        return self._run(_operations.reading.peek_score(self._ctx))

    def score(self, item: Any) -> float | None:
        """Return the score of a queued item, otherwise None.

        One round trip, O(1).

        Parameters
        ----------
        item : object or Key
            The item to look for.

        Returns
        -------
        float or None
            The score. 0.0 is a score: compare with None.

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
        return self._run(_operations.reading.score(self._ctx, item))

    def scores(self, items: Iterable[Any]) -> list[float | None]:
        """Return the score of each item, None for those not queued.

        O(1) per item, a round trip for each 1,000.

        Parameters
        ----------
        items : iterable of object or Key
            The items to look for.

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
        return self._run(_operations.reading.scores(self._ctx, many("items", items)))

    def get(self, item: Any) -> T | None:
        """Return the queued item with the identity of an item or a `Key`, otherwise None.

        One round trip, O(1).

        Parameters
        ----------
        item : object or Key
            The item to look for.

        Returns
        -------
        object or None
            The item as it would be handed out: with ``key`` the payload of its last accepted add.

        Raises
        ------
        TypeError, ValueError
            If the item cannot be encoded.
        redset.exceptions.DecodeError
            If the queued item cannot be decoded.

        Examples
        --------
        >>> pages = SortedSet(r, "pages", key="url")
        >>> pages.add({"url": "/a", "depth": 1})
        0.0
        >>> pages.get(Key("/a"))
        {'depth': 1, 'url': '/a'}
        """
        return self._run(_operations.reading.get(self._ctx, item))  # type: ignore[no-any-return]

    def contains(self, item: Any) -> bool:
        """Return whether an item is queued; the same as ``item in s``.

        One round trip, O(1).

        Parameters
        ----------
        item : object or Key
            The item to look for.

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
        """Return the number of queued items, due or not; the same as ``len(s)``.

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
        return self._run(_operations.reading.size(self._ctx))

    def __iter__(self) -> Iterator[T]:
        link = self._open()
        operation = _operations.reading.iterate(self._ctx, multi=link.multi)
        return link.iterate(operation)  # type: ignore[no-any-return]

    def stats(self, *, read_only: bool = False) -> Stats:
        """Return the set's figures, from one server step.

        One round trip, O(log N). It samples the memory of each key, and the leased items. If the
        server refuses writes (a replica, a user without the right), a second round trip only reads,
        and counts expired leases as returned.

        Parameters
        ----------
        read_only : bool
            Only read, and leave expired leases to the workers. They count as returned. Default
            False.

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
        return self._run(
            _operations.reading.stats(self._ctx, self._scores_are_times, bool(read_only))
        )

    def between(self, min: float, max: float) -> Between[T]:
        """Return a view of the queued items with scores from ``min`` to ``max``, both included.

        It has items that are due or not, and no leased items. Making it sends nothing.

        Parameters
        ----------
        min, max : float
            Any value that ``float()`` accepts, but not NaN. ``-math.inf`` and ``math.inf`` are
            allowed.

        Returns
        -------
        Between
            A view to iterate, count, take from and discard.

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

        Making this view sends nothing.

        Returns
        -------
        DeadLetters
            A view to iterate, count, requeue and purge.

        Examples
        --------
        >>> jobs.dead.size()
        0
        """
        return DeadLetters(self)

    # Removing.

    def discard(self, item: Any, forget: bool = False) -> bool:
        """Remove an item. Return whether it was queued or leased.

        The lease of a leased item is cancelled: it is not handed out again. One round trip,
        O(log N).

        Parameters
        ----------
        item : object or Key
            The item to remove.
        forget : bool
            Also forget the item. Without it ``remember`` still knows the item.

        Returns
        -------
        bool
            True if it was queued or leased.

        Raises
        ------
        TypeError, ValueError
            If the item cannot be encoded. Also for ``forget`` on a set without ``remember``.

        Examples
        --------
        >>> jobs.add("a")
        0.0
        >>> jobs.discard("a"), jobs.discard("a")
        (True, False)
        """
        return self._run(_operations.memory.discard(self._ctx, [item], forget)) > 0

    def discard_many(self, items: Iterable[Any], forget: bool = False) -> int:
        """Remove items. Return how many were queued or leased.

        O(log N) per item, a round trip and a step for each 250.

        Parameters
        ----------
        items : iterable of object or Key
            The items to remove. All of them are encoded before anything is sent.
        forget : bool
            Also forget the items. Without it ``remember`` still knows them.

        Returns
        -------
        int
            Number of items that were queued or leased.

        Raises
        ------
        TypeError, ValueError
            If an item cannot be encoded: the error names its position, and nothing was removed.
            Also for ``forget`` on a set without ``remember``.

        Examples
        --------
        >>> jobs.add_many(["a", "b"]).added
        2
        >>> jobs.discard_many(["a", "b", "c"])
        2
        """
        return self._run(_operations.memory.discard(self._ctx, many("items", items), forget))

    def remove(self, item: Any) -> None:
        """Remove an item. Raise KeyError if it is neither queued nor leased.

        One round trip, O(log N).

        Parameters
        ----------
        item : object or Key
            The item to remove.

        Raises
        ------
        KeyError
            If the item is neither queued nor leased.
        TypeError, ValueError
            If the item cannot be encoded.

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
        """Remove everything in one step. Return the number of queued items.

        This removes the dead letters, too, and all other keys of the set, of any type. The server
        unlinks each key in O(1), and frees it in the background. The buckets of ``remember=True``
        are then unlinked in bounded steps, a round trip for each 500 buckets (about 90,000 items).

        Parameters
        ----------
        keep_memory : bool
            Keep the memory of ``remember``.
        if_finished : bool
            Clear only a finished set (see `finished`), in the same step. Use it at the start of
            several workers: no worker clears the items that another one has begun.

        Returns
        -------
        int
            Number of items that were queued. For a name that allows no second key: 1 or 0. With
            ``if_finished``: number of items that are queued, leased or delayed, if nothing was
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
        return self._run(_operations.memory.clear(self._ctx, keep_memory, if_finished))

    # As a set.

    def update(self, items: Iterable[Any]) -> None:
        """Add all items of another set, or of an iterable; the same as ``jobs |= items``.

        Items of another set are added as with ``lt=True``, by this set's rules. So an item in both
        sets has the lower score, with the payload of that score. Known items that are not queued
        here are refused. An iterable is added as by `add_many`.

        O(log N) per item, in steps of 125 or 250. It is not atomic: readers see the items that were
        added so far. Between two sets of one server the items stay on the server, except if this
        set has ``remember``.

        Parameters
        ----------
        items : SortedSet, or iterable of items
            Another redset set, on any server, or items.

        Raises
        ------
        TypeError
            If it is not an iterable, or a set of the other kind (sync, asyncio).
        ValueError
            If it is the set itself, or in another slot of a cluster.
        redset.exceptions.OptionsDiffer
            If the two sets differ in ``key``.
        redset.exceptions.DecodeError
            If the key of an item of another server's set cannot be read.
        redset.exceptions.Full
            If the set would exceed ``max_size``. Items of earlier steps stay.

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
            self._run(_operations.algebra.update(self._ctx, other))

    def isdisjoint(self, other: Iterable[Any]) -> bool:
        """Return whether no queued item is in another set or iterable.

        O(1) per item, in steps of 250 or 1,000. It ends at the first common item. It may see or
        miss changes during the call.

        Parameters
        ----------
        other : SortedSet, or iterable of items
            Another redset set, on any server, or items.

        Returns
        -------
        bool

        Raises
        ------
        TypeError, ValueError
            If it is not an iterable, or an item has no identity. Also for a set of the other kind
            (sync, asyncio).
        redset.exceptions.OptionsDiffer
            If the two sets differ in ``key``.

        Examples
        --------
        >>> jobs.add("a")
        0.0
        >>> jobs.isdisjoint(["b", "c"]), jobs.isdisjoint(["a"])
        (True, False)
        """
        return self._run(*self._disjoint(other))

    def move_many(self, items: Iterable[Any], other: SortedSet[Any]) -> int:
        """Move queued items to another set of the same server. Return the number of moved items.

        Each item is added to the other set by its rules, at its score and with its payload. It
        leaves this set in the same step, so it is never in both sets, and never in none. Items that
        the other set refuses stay here, and so do leased items. A moved item starts without
        attempts. The other set remembers it, if it has ``remember``, and this set still does.
        O(log N) per item, a step and a round trip for each 250 (125 if the other has ``remember``).

        Parameters
        ----------
        items : iterable of items or Key
            The items to move. Items that are not queued are skipped.
        other : SortedSet
            A set on the same server. Both must have a ``key``, or neither.

        Returns
        -------
        int
            Number of moved items. After a lost connection it may be too small.

        Raises
        ------
        TypeError, ValueError
            If an item has no identity, or ``other`` is not a set. Also if ``other`` is this set, on
            another server, or in another slot of a cluster. Nothing was moved.
        redset.exceptions.OptionsDiffer
            If the two sets differ in ``key``, or the other was made with other options.
        redset.exceptions.Full
            If a chunk would exceed the other's ``max_size``. Earlier chunks are moved.

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
        """Yield the whole set as lines of JSON, in constant memory. The set may be in use.

        The lines have the queued items, the leased items (as if they were queued), and the dead
        letters. Items have scores, payloads, attempts and last errors. If this object has
        ``remember``, the lines have the memory, too. The first line has the set's options, the last
        one the number of items.

        The lines are not a snapshot: pages of 250 items are read one after the other. An item that
        stays queued is in them exactly once. Leased items are read before and after the queued
        ones, so they are in them twice; `restore` takes each once. An item whose lease ends during
        the export may be missing, and one that is acknowledged may be in it. For an exact copy stop
        the consumers. O(log N + 250) per page, a round trip each.

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
        call = _operations.transfer.export(self._ctx)
        return self._open().iterate(call)  # type: ignore[no-any-return]

    def restore(self, lines: Iterable[str | bytes]) -> int:
        """Fill an empty set from the lines of `export`. Return the number of items.

        All lines are read and checked first, in a temporary file if they are many. If a call is cut
        off, call it again with the same lines: it continues. Other lines can be restored only after
        a `clear`. The set may have other options; with ``key`` the items are decoded. A memory
        without a time limit needs ``remember=True`` and the same ``key``. Otherwise it is left out,
        with a warning. O(log N) per item, a step and a round trip for each 250.

        Parameters
        ----------
        lines : iterable of str or bytes
            The lines, such as a file that is open for reading. Empty lines are skipped.

        Returns
        -------
        int
            Number of items that all calls with these lines queued.

        Raises
        ------
        TypeError, ValueError
            If the lines are not a whole export, or the set is not empty. Nothing was written. With
            ``key``, also if an item's digest is not that of its key.
        redset.exceptions.OptionsDiffer
            If an item has no identity in this set. Nothing was written.

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
        """Forget an item, so that it may be added again. Return whether it was known.

        One round trip; O(1) with ``remember=True``, O(log M) of M known items with a limited time.
        The first call of an object takes one more. A queued item stays queued.

        Parameters
        ----------
        item : object or Key
            The item to forget.

        Returns
        -------
        bool
            True if it was known.

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
        return self._run(_operations.memory.forget(self._ctx, [item])) > 0

    def forget_many(self, items: Iterable[Any]) -> int:
        """Forget items. Return how many were known.

        As `forget`, a round trip for each 500.

        Parameters
        ----------
        items : iterable of object or Key
            The items to forget. All of them are encoded before anything is sent.

        Returns
        -------
        int
            Number of known items. An item that is named twice counts once.

        Raises
        ------
        TypeError, ValueError
            If an item cannot be encoded (the error names its position), or the set has no
            ``remember``. Nothing was forgotten.

        Examples
        --------
        >>> s = SortedSet(r, "urls", remember=True)
        >>> s.add_many(["/a", "/b"]).added
        2
        >>> s.forget_many(["/a", "/c"])
        1
        """
        return self._run(_operations.memory.forget(self._ctx, many("items", items)))

    def seen(self, item: Any) -> bool:
        """Return whether ``remember`` knows an item.

        One round trip, O(1). The first call of an object takes one more.

        Parameters
        ----------
        item : object or Key
            The item to look for.

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
        return self._run(_operations.memory.seen(self._ctx, [item]))[0]

    def known(self, item: Any) -> bool | None:
        """Return whether this process's known table has an item. It sends nothing.

        The table has items of the last adds, which the server refused or accepted. It is trusted
        for a second after a check, which adds make. Ask it before you make or fetch an item that
        would be refused. If it returns None, add the item as usual.

        Parameters
        ----------
        item : object or Key
            The item to look for.

        Returns
        -------
        bool or None
            True if it is known, None if the table does not have it. Always None on a set without
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
        call = _operations.known.knows(self._ctx, item)
        return self._open().run_offline(call)  # type: ignore[no-any-return]

    def seen_many(self, items: Iterable[Any]) -> list[bool]:
        """Return for each item whether ``remember`` knows it.

        O(1) per item, a round trip for each 500.

        Parameters
        ----------
        items : iterable of object or Key
            The items to look for.

        Returns
        -------
        list of bool
            One bool for each item, in their order.

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
        return self._run(_operations.memory.seen(self._ctx, many("items", items)))

    # The object itself.

    def close(self) -> None:
        """Close the client that `from_url` made. A client that was passed in stays open.

        Later calls of the set raise a RuntimeError. Closing sends nothing. ``with`` calls it at the
        end.

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

    The default score is the time of the add on the producer's clock, as Unix time in seconds. Each
    is larger than the one before. With duplicates, ``duplicates="keep"`` makes it first in, first
    out.

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
    """A time-sorted set that hands out an item when it is due, on the server's clock.

    The default score is the server's present time: due at once. `pop`, `take`, `lease`,
    `available`, `peek`, `peek_many` and `peek_score` see the items that are due. `size`, iteration
    and the other calls see all queued items.

    A score may be a datetime with a time zone. A naive one is a ValueError.

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
        """Add an item, as `SortedSet.add`. With ``delay`` it is due that time from now.

        Parameters
        ----------
        item, score, nx, xx, gt, lt, again, remember
            As for `SortedSet.add`.
        delay : float or timedelta, optional
            Time from now until it is due, in seconds on the server's clock. Not with ``score``.

        Returns
        -------
        float or None
            The time at which it is due, as Unix time. None if it was refused.

        Raises
        ------
        TypeError, ValueError
            If ``delay`` is not a time, or ``score`` is given, too. Otherwise as `SortedSet.add`.

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
        """Add any number of items, as `SortedSet.add_many`. With ``delay`` they are due later.

        The delay of an item counts from the making of its chunk, so the items keep their order.

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
            If ``delay`` is not a time, or ``score`` is given, too. Otherwise as
            `SortedSet.add_many`.
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
        """Return the number of items that are due now: those that a consumer can get.

        One round trip, O(log N). The other classes have only `size`, since all of their queued
        items are available.

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
        return self._run(_operations.reading.available(self._ctx))


class Between(SyncView[T]):
    """The queued items of a set in a range of scores: iterate, count, take, discard them.

    It is a view: it holds no items, and each call sees the set as it is then. Iteration is in order
    of score, in constant memory, with a round trip for each 1,000. An item that stays at its score
    is seen exactly once, whatever changes around it.

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
        self._within = _operations.reading.range_of(owner._ctx, *self._ends)

    def __iter__(self) -> Iterator[T]:
        owner = self._owner
        operation = _operations.reading.iterate(owner._ctx, self._within)
        return owner._open().iterate(operation)  # type: ignore[no-any-return]

    def size(self) -> int:
        """Return the number of items in the range; the same as ``len()``.

        One round trip, O(log N).

        Returns
        -------
        int

        Examples
        --------
        >>> jobs.between(0, 10).size()
        0
        """
        return self._owner._run(_operations.reading.size(self._owner._ctx, self._within))

    def take(self, num: int) -> list[T]:
        """Remove and return up to ``num`` items of the range, lowest score first.

        As `SortedSet.take`: at most once, O(log N + num), a round trip for each 2,000 (1,000 with
        ``key`` or ``ties``). It takes items that are due or not, and returns no expired leases to
        the queue.

        Parameters
        ----------
        num : int
            Limit of items. Below 1 none are taken.

        Returns
        -------
        list
            Items. Empty if the range has none.

        Raises
        ------
        TypeError, ValueError, OverflowError
            If ``int()`` does not accept ``num``. Nothing was sent.
        redset.exceptions.DecodeError
            If 10 items or more were taken and none could be decoded.

        Examples
        --------
        >>> jobs.add_many(["a", "b", "c"], score=[1, 2, 3]).added
        3
        >>> jobs.between(2, 3).take(10)
        ['b', 'c']
        """
        owner = self._owner
        return owner._run(
            _operations.taking.take_between(owner._ctx, whole("num", num), self._within)
        )

    def discard(self) -> int:
        """Remove the items of the range. Return how many were removed.

        ``remember`` still knows them, and leased items stay leased. O(log N) per item, a round trip
        for each 250. It goes on while others add items.

        Returns
        -------
        int
            Number of removed items. After a lost connection it may be too small.

        Examples
        --------
        >>> jobs.add_many(["a", "b", "c"], score=[1, 2, 3]).added
        3
        >>> jobs.between(2, 3).discard(), jobs.size()
        (2, 1)
        """
        return self._owner._run(_operations.memory.discard_between(self._owner._ctx, self._within))

    def __repr__(self) -> str:
        lowest, highest = self._ends
        return f"{self._owner!r}.between({lowest!r}, {highest!r})"


class DeadLetters(SyncView["DeadLetter"]):
    """The dead letters of a set: iterate them, count them, queue them again, purge them.

    Iteration yields each as a `redset.DeadLetter`, oldest first, with a round trip for each 1,000.
    Only `requeue`, `purge` and the set's ``clear`` remove dead letters.

    Raises
    ------
    ValueError
        On use, if the set's name allows no second key.

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
        call = _operations.dead.letters(owner._ctx)
        return owner._open().iterate(call)  # type: ignore[no-any-return]

    def size(self) -> int:
        """Return the number of dead letters; the same as ``len(jobs.dead)``.

        One round trip, O(1).

        Returns
        -------
        int

        Examples
        --------
        >>> jobs.dead.size()
        0
        """
        return self._owner._run(_operations.dead.count_letters(self._owner._ctx))

    def requeue(self, letters_or_ids: Iterable[DeadLetter | str] | None = None) -> int:
        """Queue dead letters again, at their scores (0 without one). Return their number.

        They leave the dead letters, and start without attempts. Neither the memory nor ``max_size``
        refuses them. A letter stays dead if its item is queued or leased again, or if it has a
        ``key`` and still cannot be decoded. O(log N) per letter, a round trip for each 100 (two
        for all).

        Parameters
        ----------
        letters_or_ids : iterable of DeadLetter or str, optional
            The letters from iteration, or their ``id``. Letters that are gone are skipped. Default:
            all letters that exist when the call begins.

        Returns
        -------
        int
            Number of queued items. After a lost connection it may be too small.

        Raises
        ------
        TypeError, ValueError
            If one is neither a dead letter nor an id. Nothing was sent.
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
        letters_or_ids: Iterable[DeadLetter | str] | None = None,
    ) -> int:
        """Delete dead letters: all, those that died before a time, or chosen ones.

        O(1) per letter, a round trip for each 1,000; with ``forget`` two or three for each 500.
        Chosen letters take one more, and with ``forget`` two or three for each.

        Parameters
        ----------
        before : float, datetime or timedelta, optional
            Unix time in seconds, an aware datetime, or a timedelta before now, on the server's
            clock. Letters of that time or later stay. Default: delete all.
        forget : bool
            Also forget their items, so that they may be added again. In a set with ``key``, an item
            that cannot be decoded may have no known key. It is then not forgotten, with a warning.
        letters_or_ids : iterable of DeadLetter or str, optional
            The letters from iteration, or their ``id``. Letters that are gone are skipped. Not with
            ``before``.

        Returns
        -------
        int
            Number of deleted letters.

        Raises
        ------
        TypeError, ValueError
            If ``before`` is not a time, or an id is not one. Also for ``forget`` on a set without
            ``remember``.

        Examples
        --------
        >>> from datetime import timedelta
        >>> jobs.dead.purge(before=timedelta(days=30))
        0
        """
        return self._owner._run(purging(self._owner, before, forget, letters_or_ids))


class Batch(SyncLeases[T]):
    """Leases, lowest score first. An empty batch is false.

    Entered with ``with``, it settles by iteration: asking for the next lease marks the one before
    as done. Leaving the block settles all leases, in one round trip for each 400:

    - Leases that are done are acknowledged.
    - After an exception the current lease fails, with the backoff of `redset.SortedSet.consume`.
      `redset.Retry` and `redset.Reject` choose otherwise.
    - After a ``break`` the current lease is released without an attempt, and so are the leases
      after it.

    Iterating outside of ``with`` marks nothing. A second loop continues after the first. It does
    not mark the lease at which the first one ended as done.

    Attributes
    ----------
    lost : int
        Number of leases that were lost before the batch was left. A warning is logged, too.

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
        """Acknowledge all leases not settled yet. Return the number still held.

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
        """Fail all leases not settled yet. Return the number still held.

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
        """Release all leases not settled yet. Return the number still held.

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
        """Extend all leases not settled yet to ``ttl`` seconds from now. Return the number held.

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
    """Adds to a set in the background, in bulk. `SortedSet.buffered` makes it.

    Entered with ``with``; leaving writes all accepted items, also if the block raises. Any number
    of threads may use it. A signal handler or a destructor may add, too. If it interrupts an add of
    the same writer, it does not wait for room.

    If an item cannot be written, after the client's own retries, the writer ends. It sends no
    later item. Each later call, and leaving the block, raise the same `redset.exceptions.AddError`.
    Its ``unwritten`` has the items that may not be in the set. Adding them again is safe. Leases
    that were not acknowledged expire. If the block raises another error, that one is raised, and
    the writer's error is logged.

    In a forked child its calls raise a RuntimeError. A writer that is still open when the
    interpreter ends is written first; items that cannot be written are logged.

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
        """Accept an item, to be added as the set's ``add`` does. The result is not returned.

        It sends nothing itself. It waits if ``max_pending`` items are not written yet. The item is
        serialised at once. The order of adds is kept. Consecutive adds with the same flags are one
        bulk call, so flags that change often are slow.

        Parameters
        ----------
        item, score, nx, xx, gt, lt, again, remember
            As for `SortedSet.add`.

        Raises
        ------
        TypeError, ValueError
            If an argument is wrong. The item was not accepted, and the writer goes on.
        redset.exceptions.AddError
            If an earlier item cannot be written. This item was not accepted.
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

        It is faster than `add` for a list, such as the URLs of a page. It sends nothing itself, and
        waits as `add` does. Items are serialised at once, in runs of 250. With ``remember`` the
        known table answers for its items: they are refused, and not serialised.

        Parameters
        ----------
        items : iterable
            The items to add. Text, bytes and mappings are refused: they are rarely meant.
        score : float or iterable of float, optional
            One score for all, or one for each.
        nx, xx, gt, lt, again, remember : bool
            As for `SortedSet.add`.

        Raises
        ------
        TypeError, ValueError
            If an argument is wrong. If an item cannot be added, the error names its position, and
            the items before it were accepted. The writer goes on.
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
        """Acknowledge leases after all earlier items are in the set.

        If an earlier item cannot be written, the leases are not acknowledged and expire. It waits
        like `add`. The leases count as settled at once. A warning is logged if some expired before
        they were acknowledged. It is also logged if they were released, because the server forgot
        items that the known table had refused. One round trip for each 400 leases.

        Parameters
        ----------
        leases : Lease, Batch or iterable of Lease
            The leases to acknowledge. For a Batch: those not settled yet.

        Raises
        ------
        TypeError, ValueError
            If a lease belongs to another set or is settled. None was accepted.
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
    """Return warnings about a server. An empty list means that nothing is wrong.

    It checks for: eviction enabled, no persistence, a replica, an unsupported version. The first
    add of a process to a set with ``remember``, or its first lease, logs the same warnings. A
    server that hides its state causes no warnings. One round trip.

    With a cluster client it also checks for: no replica, ``min-replicas-to-write`` 0, an open slot,
    and a ``socket_timeout`` that is not below the ``cluster-node-timeout``. That takes four round
    trips for each node.

    Parameters
    ----------
    client : redis.Redis, valkey.Valkey, or any client with ``execute_command``
        The client of a set. With a cluster client every primary is checked.
    name : str or bytes, optional
        Name of a set. In a cluster only the node of this set is checked.

    Returns
    -------
    list of str
        A sentence for each problem. For all primaries of a cluster, each begins with the address of
        its node.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong. Nothing was sent.

    Examples
    --------
    >>> check_server(r)
    []
    """
    return SyncFace._check_server(client, name)


def list_sets(
    client: Any, match: str | bytes | Iterable[str | bytes] | None = None, scan: bool = False
) -> list[SetInfo]:
    """Return the sets of a server with their options, figures and counts, by name.

    It only reads, also on a replica and as a user who may only read. Sets are found in the
    registry, where each process enters a set with its second report (`REDSET_REPORT`). One round
    trip for the registry, and one per 100 sets, in steps of 25 sets. 1,000 sets take the server 12
    to 30 ms in all, less than 1 ms a step. In a cluster each set is a round trip.

    Parameters
    ----------
    client : redis.Redis, valkey.Valkey, or any client with ``execute_command``
        The client of a set.
    match : str, bytes, or list of these, optional
        A pattern of names, as the server's ``KEYS`` has them: ``crawl:*``. A list has exact names,
        which need not be registered. Default: all sets.
    scan : bool
        Also look for sets that are not registered, among all keys of the server: one command per
        1,000 keys, at most 100 commands a second. Every sorted set counts as one. Default False.

    Returns
    -------
    list of SetInfo
        Of each set ``name``, ``options``, ``figures``, ``counts``.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong. Nothing was sent.

    Examples
    --------
    >>> jobs.add_many(["a", "b"]).added
    2
    >>> [info] = list_sets(r, ["jobs"])
    >>> info.figures.size, info.figures.leased
    (2, 0)
    """
    return SyncFace._list_sets(client, match, scan)
