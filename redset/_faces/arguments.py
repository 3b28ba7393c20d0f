"""Checks of arguments that are times: a number of seconds, or a timedelta."""

from __future__ import annotations

import datetime
import math
import sys
from typing import Any

#: What arguments that are times are typed as.
Time = float | datetime.timedelta

#: The longest time in seconds: about three centuries, which milliseconds in a float hold exactly.
LONGEST = 10_000_000_000


def seconds(
    argument: str, value: Any, *, positive: bool = False, most: float = LONGEST
) -> int | float:
    """Return a time in seconds, if it is one from 0 (or above it) to ``most``, which may be inf."""
    found = value.total_seconds() if isinstance(value, datetime.timedelta) else value
    if not isinstance(found, (int, float)) or isinstance(found, bool):
        raise TypeError(
            f"{argument} must be a number of seconds or a timedelta, got {value!r} "
            f"({type(value).__name__})"
        )
    if not 0 <= found <= most or (positive and found == 0):
        least = "above 0" if positive else "0 or more"
        limit = "" if most == math.inf else f", at most {most:.0e}".replace("e+", "e")
        raise ValueError(
            f"{argument} must be seconds, {least}{limit}, got {value!r} ({type(value).__name__})"
        )
    # An int may be more than a float holds.
    return found if found <= sys.float_info.max else math.inf


def milliseconds(argument: str, value: Any, positive: bool) -> int:
    """Return a time in milliseconds, rounded up."""
    return math.ceil(seconds(argument, value, positive=positive) * 1000)
