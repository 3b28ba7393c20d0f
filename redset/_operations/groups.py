"""Calls on the groups of a set: their own values, their pauses, and a list of them."""

from __future__ import annotations

from typing import NamedTuple

from redset._operations.context import Context
from redset._transport.effects import Operation


class Group(NamedTuple):
    """A group of a set, as `groups` yields it.

    Attributes
    ----------
    name : str or None
        The group; None for the items without a group.
    queued : int
        Number of its queued items.
    leased : int
        Number of its items in work. 0 for a group without a limit.
    ready : bool
        Whether one of its items may be handed out now.
    rests_until : float or None
        End of its interval or pause, as Unix time of the server in seconds; ``math.inf`` for a
        pause without an end. None if it does not rest.
    limit : int or None
        Its limit of items in work: its own, or this object's ``group_limit``.
    interval : float
        Its time between two hand-outs, in seconds: its own, or this object's ``group_interval``.

    Examples
    --------
    >>> pages = SortedSet(r, "pages", group=lambda url: url.split("/")[2])
    >>> pages.add("https://example.org/a")
    0.0
    >>> [group] = pages.groups()
    >>> group.name, group.queued, group.ready
    ('example.org', 1, True)
    """

    name: str | None
    queued: int
    leased: int
    ready: bool
    rests_until: float | None
    limit: int | None
    interval: float


def set_group(
    ctx: Context, group: bytes, limit: int | None, interval: int | None
) -> Operation[None]:
    """Store a group's own limit and interval in ms. None: the default. A limit of 0: none."""
    raise NotImplementedError


def pause_group(ctx: Context, group: bytes, time: int | None) -> Operation[None]:
    """Let a group rest for so many milliseconds; 0 ends a pause, None has no end."""
    raise NotImplementedError


def groups(ctx: Context) -> Operation[None]:
    """Emit each group."""
    raise NotImplementedError
