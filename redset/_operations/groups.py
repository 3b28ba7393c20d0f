"""Calls on the groups of a set: their own values, their pauses, and a list of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from redset._operations.adding import Refusal, refusal_of
from redset._operations.context import Context
from redset._operations.grouped import text_of_group
from redset._operations.replies import bytes_of, count, listed, number, refuse
from redset._transport.effects import Ask, Emit, Operation


class Group(NamedTuple):
    """A group of a set, as `groups` yields it.

    Attributes
    ----------
    name : str or None
        The group; None for the items without a group.
    queued : int
        Number of its queued items. An item that was discarded may count until its group's turn.
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
    >>> group = next(pages.groups())
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


#: Groups that a step looks at.
STEP = 250
#: The kinds of groups that are listed, each without those of an earlier one (see ``groups.lua``).
KINDS = range(1, 6)
#: Values of a group in a page.
WIDTH = 7


def set_group(
    ctx: Context, group: bytes, limit: int | None, interval: int | None
) -> Operation[None]:
    """Store a group's own values. None: the default. A limit of 0: none. Milliseconds."""
    ask = ctx.step(
        "set_group",
        _done,
        options=ctx.options.text,
        group=group,
        limit="" if limit is None else limit,
        interval="" if interval is None else interval,
    )
    yield from _perform(ctx, ask)


def pause_group(ctx: Context, group: bytes, time: int | None) -> Operation[None]:
    """Let a group rest for so many milliseconds; 0 ends a pause, None has no end."""
    yield from _perform(ctx, pausing_step(ctx, group, time))


def pausing_step(ctx: Context, group: bytes, time: int | None) -> Ask:
    """Make the step of `pause_group`. It shortens no pause, but 0 ends it."""
    text = "" if time is None else time
    return ctx.step("pause_group", _done, options=ctx.options.text, group=group, time=text)


def _perform(ctx: Context, ask: Ask) -> Operation[None]:
    refusal = yield ask
    if refusal is not None:
        raise refusal.error(ctx)


def _done(reply: Any) -> Refusal | None:
    """Read the reply of a step that changes a group."""
    if type(reply) is int:
        count(reply, 1)
        return None
    refusal = refusal_of(listed(reply), (b"OPTIONS",))
    if refusal is None:
        raise refuse("1, or a refusal", reply)
    return refusal


def sharing_steps(ctx: Context, limits: Mapping[str, Any], ttl: int) -> list[Ask]:
    """Make the steps that share the limits of a crawl, for ``ttl`` milliseconds from the last step.

    A value of `set_group` comes first: its limit wins, and the longer of two intervals. Each reply
    is whether any limits were shared before.

    Parameters
    ----------
    limits : mapping
        For each group its limit, None for that of the caller, and its interval in seconds. The
        group ``""`` has those of all groups that are not in it. Without any, a step keeps those
        that were shared before.
    """
    values: list[Any] = []
    for group, (limit, interval) in limits.items():
        values += [group, "" if limit is None else limit, math.ceil(1000 * interval)]
    return [
        ctx.step("share_limits", count, values[at : at + 3 * STEP], ttl=ttl)
        for at in range(0, max(1, len(values)), 3 * STEP)
    ]


def groups(ctx: Context) -> Operation[None]:
    """Emit each group once. A group that changes during the call may be left out."""
    seen = set[bytes]()
    for kind in KINDS:
        cursor = b"0"
        while True:
            cursor, rows = yield ctx.step(
                "groups", _page_of_groups, kind=kind, cursor=cursor, num=STEP
            )
            found = {name: group for name, group in rows if name not in seen}
            seen.update(found)
            if found:
                yield Emit(list(found.values()))
            if cursor == b"0":
                break


def _page_of_groups(reply: Any) -> tuple[bytes, list[tuple[bytes, Group]]]:
    parts = listed(reply)
    if len(parts) % WIDTH != 1:
        raise refuse("a page of groups", reply)
    rows = [parts[at : at + WIDTH] for at in range(1, len(parts), WIDTH)]
    return bytes_of(parts[0]), [(bytes_of(row[0]), _group(*row)) for row in rows]


def _group(
    name: Any, queued: Any, leased: Any, ready: Any, rest: Any, limit: Any, interval: Any
) -> Group:
    return Group(
        text_of_group(bytes_of(name)),
        count(queued),
        count(leased),
        bool(count(ready)),
        number(rest) / 1000 if bytes_of(rest) else None,
        count(limit) or None,
        number(interval) / 1000,
    )
