"""The errors that redset raises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redset._faces.arguments import Time, seconds
from redset._wire.values import flag

__all__ = (
    "AddError",
    "DecodeError",
    "Full",
    "LockTimeout",
    "OptionsDiffer",
    "RedsetError",
    "Reject",
    "Retry",
)


class RedsetError(Exception):
    """Base class of redset's own errors.

    Errors of the server and of the connection are the client's, and are raised unchanged.

    Examples
    --------
    >>> issubclass(LockTimeout, RedsetError)
    True
    """


class AddError(RedsetError):
    """A bulk add ended early. The items before ``resume_at`` are settled.

    Parameters
    ----------
    message : str
        The text of the error.
    result : AddResult
        Counts of the items that the server acknowledged. Some may come after ``resume_at``.
    resume_at : int
        Position in the input to resume from. Everything before it is settled.
    index : int, optional
        Position of the bad item, if one item is at fault.
    item : object, optional
        The bad item.
    unwritten : list of (object, float or None), optional
        Only of a `redset.Writer`: the accepted items that may not be in the set, in order, with
        their scores (None: the server's time). ``resume_at`` then counts the writer's adds.

    Examples
    --------
    >>> error = AddError("item 7 has no score", result=None, resume_at=5, index=7, item="x")
    >>> str(error), error.resume_at, error.index
    ('item 7 has no score', 5, 7)
    """

    def __init__(
        self,
        message: str = "",
        *,
        result: Any = None,
        resume_at: int = 0,
        index: int | None = None,
        item: Any = None,
        unwritten: Sequence[tuple[Any, float | None]] = (),
    ) -> None:
        super().__init__(message)
        self.result = result
        self.resume_at = resume_at
        self.index = index
        self.item = item
        self.unwritten = list(unwritten)


class Full(RedsetError):
    """The set would exceed its ``max_size``. No item of the chunk was added.

    If a bulk call raises it, it is also an `AddError`, with the attributes of that class.

    Examples
    --------
    >>> from redset import SortedSet
    >>> small = SortedSet(r, "small", max_size=1)
    >>> small.add("a")
    0.0
    >>> small.add("b")
    Traceback (most recent call last):
        ...
    redset.exceptions.Full: the set holds 1 items, and max_size is 1; chunks are refused whole
    """


class _FullAddError(AddError, Full):
    """Error of a bulk call if the set is full. It can be caught as either class."""


class DecodeError(RedsetError):
    """A stored member that the serializer cannot read.

    If one member is at fault, the serializer's exception is the cause.

    Examples
    --------
    >>> import json
    >>> from redset import SortedSet
    >>> numbers = SortedSet(r, "numbers")
    >>> numbers.add("[1")
    0.0
    >>> SortedSet(r, "numbers", serializer=json).peek()  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    redset.exceptions.DecodeError: an item of 'numbers' cannot be decoded: ...
    """


class OptionsDiffer(RedsetError):
    """The set was made with other options than this object's.

    If a bulk call raises it, it is also an `AddError`, with the attributes of that class.

    Examples
    --------
    >>> from redset import SortedSet
    >>> SortedSet(r, "urls", remember=True).add("/a")
    0.0
    >>> SortedSet(r, "urls", remember=3600).add("/b")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    redset.exceptions.OptionsDiffer: the set 'urls' was made with ...
    """


class _OptionsAddError(AddError, OptionsDiffer):
    """Error of a bulk call if the options differ. It can be caught as either class."""


class LockTimeout(RedsetError):
    """The lock could not be acquired within its timeout.

    Examples
    --------
    >>> from redset.locks import Lock
    >>> with Lock(r, "report"), Lock(r, "report", timeout=0):
    ...     pass
    Traceback (most recent call last):
        ...
    redset.exceptions.LockTimeout: Timeout while waiting for lock 'report'
    """


class Retry(Exception):
    """Raise it in a handler or in ``with lease()`` to retry the item later.

    It counts as a failed attempt. The set keeps the error that it was raised from, if any. Like any
    error, it also leaves the ``with lease()`` block.

    Parameters
    ----------
    delay : float or timedelta, optional
        Time until the item may be handed out again, in seconds. Default: the backoff of any error
        (1 s, 2 s, 4 s and so on up to an hour).
    group : bool
        Let the item's group rest as long: for a site that answers "too many requests". It has no
        effect in a set without ``group=``. Default False.

    Raises
    ------
    TypeError, ValueError
        If ``delay`` is not a time, or ``group`` is not True or False.

    Examples
    --------
    >>> from redset import Retry, SortedSet
    >>> calls = SortedSet(r, "calls")
    >>> calls.add("ann")
    0.0
    >>> def call(who):
    ...     raise Retry(delay=300)
    >>> try:
    ...     with calls.lease() as batch:
    ...         for lease in batch:
    ...             call(lease.item)
    ... except Retry as error:
    ...     print(error)
    try again after 300 s
    >>> [(row.item, row.attempts) for row in calls.leased()]
    [('ann', 1)]
    """

    def __init__(self, delay: Time | None = None, group: bool = False) -> None:
        super().__init__(*((delay, group) if group else (delay,)))
        #: The delay in seconds, or None.
        self.delay = None if delay is None else seconds("delay", delay)
        #: Whether the item's group rests as long.
        self.group = flag("group", group)

    def __str__(self) -> str:
        return "try again" if self.delay is None else f"try again after {self.delay:g} s"


class Reject(Exception):
    """Raise it in a handler or in ``with lease()`` to make the item a dead letter at once.

    Like any error, it also leaves the ``with lease()`` block.

    Parameters
    ----------
    reason : str or exception, optional
        The dead letter's reason. Default: the error that it was raised from, if any.

    Raises
    ------
    TypeError
        If ``reason`` has another type.

    Examples
    --------
    >>> from redset import Reject, SortedSet
    >>> calls = SortedSet(r, "calls")
    >>> calls.add("bob")
    0.0
    >>> def call(who):
    ...     raise Reject("no such number")
    >>> calls.consume(call, until_finished=True)
    Consumed(done=0, failed=1, lost=0)
    >>> [(letter.raw, letter.reason) for letter in calls.dead]
    [(b'bob', 'no such number')]
    """

    def __init__(self, reason: str | BaseException = "") -> None:
        if not isinstance(reason, (str, BaseException)):
            raise TypeError(
                f"reason must be str or an exception, got {reason!r} ({type(reason).__name__})"
            )
        super().__init__(reason)
        self.reason = reason
