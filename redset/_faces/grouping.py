"""The operations of calls on groups, with checked arguments."""

from __future__ import annotations

import math
from typing import Any

from redset import _operations
from redset._faces.arguments import milliseconds, seconds
from redset._operations.context import Context
from redset._operations.grouped import named_group
from redset._operations.options import checked_group_limit, checked_interval
from redset._transport.effects import Operation
from redset._wire.values import got


def _group_of(ctx: Context, group: Any) -> bytes:
    """Check the group that a call names."""
    if not ctx.options.grouped:
        raise ValueError(f"group needs a set with group=, {got(group)}")
    return named_group(ctx.wire, group)


def setting(ctx: Context, group: Any, limit: Any, interval: Any) -> Operation[None]:
    """Perform ``set_group``."""
    name = _group_of(ctx, group)
    most = None if limit is ... else checked_group_limit("limit", limit)
    time = None if interval is ... else checked_interval("interval", interval)
    return _operations.groups.set_group(ctx, name, most, time)


def pausing(ctx: Context, group: Any, time: Any) -> Operation[None]:
    """Perform ``pause_group``."""
    name = _group_of(ctx, group)
    if math.isinf(seconds("seconds", time, most=math.inf)):
        return _operations.groups.pause_group(ctx, name, None)
    return _operations.groups.pause_group(ctx, name, milliseconds("seconds", time, False))


def listing(ctx: Context) -> Operation[None]:
    """Perform ``groups``."""
    if not ctx.options.grouped:
        raise ValueError(f"the set {ctx.name!r} was made without group=, and has no groups")
    return _operations.groups.groups(ctx)
