"""Options of a set. They are checked once, and do not change."""

from __future__ import annotations

import datetime
import functools
import math
from typing import Any, NamedTuple

from redset._wire.values import got

DUPLICATES = {"move": "", "keep": "nx", "lowest": "lt", "highest": "gt"}
#: The largest limit of a group, and the longest interval in seconds.
MOST_IN_WORK, LONGEST_INTERVAL = 1000, 30 * 86_400


class SetOptions(NamedTuple):
    """The options of one set, as `checked` makes them of the constructor's arguments.

    Attributes
    ----------
    keyed : bool
        Whether the set stores identity and payload apart: it has ``key=`` or ``group=``.
    remember : str
        "ever", "limited", or "" without a memory.
    memory_ttl : int
        Milliseconds that a limited memory keeps an item.
    condition : str
        The effect of ``duplicates`` on a queued item, as a flag of ZADD.
    ties : str
        "fifo", "lifo" or "".
    max_attempts, max_item_bytes, max_size : int
        0 if none is given.
    known_max : int
        Entries of the known table.
    due : bool
        Whether only items that are due are handed out.
    has_key : bool
        Whether the set has ``key=``.
    grouped : bool
        Whether the set has ``group=``.
    group_limit, group_interval : int
        Limit of a group's items in work, 0 for none. Time between two starts, in milliseconds.
    """

    keyed: bool
    remember: str
    memory_ttl: int
    condition: str
    ties: str
    max_attempts: int
    max_item_bytes: int
    max_size: int
    known_max: int
    due: bool
    has_key: bool = False
    grouped: bool = False
    group_limit: int = 0
    group_interval: int = 0

    @classmethod
    def checked(cls, key: Any, group: Any, *others: Any) -> SetOptions:
        """Check the constructor's arguments. The error names the wrong one.

        A process may make many sets with the same options, so these sets share one object.
        """
        _check_fields("key", key)
        _check_fields("group", group)
        has_key, grouped = key is not None, group is not None
        try:
            return _shared(has_key, grouped, *others)
        except TypeError:  # of the wrong type, or without a hash
            return cls.made(has_key, grouped, *others)

    @classmethod
    def made(
        cls,
        has_key: bool,
        grouped: bool,
        remember: Any,
        duplicates: Any,
        ties: Any,
        max_attempts: Any,
        max_item_bytes: Any,
        max_size: Any,
        known_max: Any,
        due: bool,
        group_limit: Any,
        group_interval: Any,
    ) -> SetOptions:
        """Make the options of checked arguments."""
        kind, memory_ttl = _checked_remember(remember)
        return cls(
            has_key or grouped,
            kind,
            memory_ttl,
            _checked_duplicates(duplicates),
            _checked_ties(ties),
            _checked_limit("max_attempts", max_attempts),
            _checked_limit("max_item_bytes", max_item_bytes),
            _checked_limit("max_size", max_size),
            _checked_known_max(known_max),
            due,
            has_key,
            grouped,
            *_checked_group(grouped, group_limit, group_interval),
        )

    @property
    def text(self) -> str:
        """The options that all processes of a set must share, as its meta stores them."""
        return (
            f"key={'yes' if self.has_key else 'no'} remember={self.remember or 'no'} "
            f"ties={self.ties or 'no'}{' group=yes' if self.grouped else ''}"
        )

    @property
    def grouping(self) -> dict[str, Any]:
        """The arguments by which a step on a set with groups knows when a group may start."""
        return {
            "group_limit": self.group_limit,
            "group_interval": self.group_interval,
            "group_due": self.due,
        }

    @property
    def marked(self) -> bool:
        """Return whether the set's options are stored in its meta."""
        return bool(self.keyed or self.remember or self.ties)


_shared = functools.lru_cache(maxsize=64, typed=True)(SetOptions.made)


def _check_fields(argument: str, value: Any) -> None:
    if isinstance(value, tuple):
        if not value or not all(isinstance(field, str) for field in value):
            raise TypeError(f"{argument} must have the names of fields, {got(value)}")
    elif value is not None and not isinstance(value, str) and not callable(value):
        raise TypeError(
            f"{argument} must be a callable, the name of a field, or a tuple of names, {got(value)}"
        )


def _checked_group(grouped: bool, limit: Any, interval: Any) -> tuple[int, int]:
    found = checked_group_limit("group_limit", limit), checked_interval("group_interval", interval)
    if grouped:
        return found
    if found[0] != 1:
        raise ValueError(f"group_limit needs group=, {got(limit)}")
    if found[1]:
        raise ValueError(f"group_interval needs group=, {got(interval)}")
    return 0, 0


def checked_group_limit(argument: str, value: Any) -> int:
    """Return a limit of items in work; 0 for none."""
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{argument} must be an int or None, {got(value)}")
    if not 1 <= value <= MOST_IN_WORK:
        raise ValueError(f"{argument} must be from 1 to {MOST_IN_WORK:,}, or None, {got(value)}")
    return value


def checked_interval(argument: str, value: Any) -> int:
    """Return an interval in whole milliseconds, rounded up."""
    seconds = value.total_seconds() if isinstance(value, datetime.timedelta) else value
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        raise TypeError(f"{argument} must be a number of seconds or a timedelta, {got(value)}")
    if not 0 <= seconds <= LONGEST_INTERVAL:
        raise ValueError(f"{argument} must be seconds, from 0 to 30 days, {got(value)}")
    return math.ceil(seconds * 1000)


def _checked_remember(remember: Any) -> tuple[str, int]:
    if remember is None or remember is False:
        return "", 0
    if remember is True:
        return "ever", 0
    seconds = remember
    if isinstance(remember, datetime.timedelta):
        seconds = remember.total_seconds()
    elif not isinstance(remember, (int, float)):
        raise TypeError(f"remember must be True, seconds or a timedelta, {got(remember)}")
    if not 0 < seconds < 1e11:
        raise ValueError(f"remember must be a positive number of seconds, {got(remember)}")
    return "limited", max(1, math.ceil(seconds * 1000))


def _checked_duplicates(duplicates: Any) -> str:
    if not isinstance(duplicates, str) or duplicates not in DUPLICATES:
        raise ValueError(f"duplicates must be one of {', '.join(DUPLICATES)}, {got(duplicates)}")
    return DUPLICATES[duplicates]


def _checked_ties(ties: Any) -> str:
    if ties is not None and (not isinstance(ties, str) or ties not in ("fifo", "lifo")):
        raise ValueError(f"ties must be 'fifo', 'lifo' or None, {got(ties)}")
    return ties or ""


def _checked_known_max(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"known_max must be an int, {got(value)}")
    if value < 0:
        raise ValueError(f"known_max must be 0 or more, {got(value)}")
    return value


def _checked_limit(argument: str, value: Any) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{argument} must be an int, {got(value)}")
    if value < 1:
        raise ValueError(f"{argument} must be positive, {got(value)}")
    return value
