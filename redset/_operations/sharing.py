"""Limits and rests of groups that the processes of a crawl share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from redset._operations.context import Context
from redset._operations.replies import count
from redset._transport.effects import Ask

#: Seconds after which shared limits are forgotten.
LASTING = 60
#: Limits of one step.
STEP = 250


def resting_step(ctx: Context, group: bytes, time: int) -> Ask:
    """Make the step that lets a group rest for so many milliseconds, and shortens no rest."""
    return ctx.step("rest", count, group=group, time=time)


def sharing_steps(ctx: Context, limits: Mapping[str, Any]) -> list[Ask]:
    """Make the steps that share limits of groups, and keep those that were shared before.

    Parameters
    ----------
    limits : mapping
        For each group its limit (None for that of each process), and its interval in seconds. The
        group ``""`` stands for all that have no limits of their own.
    """
    rows = [
        (group, b"-" if limit is None else limit, math.ceil(interval * 1000))
        for group, (limit, interval) in limits.items()
    ]
    return [
        ctx.step("share", count, [value for row in part for value in row], seconds=LASTING)
        for part in (rows[at : at + STEP] for at in range(0, max(1, len(rows)), STEP))
    ]
