"""How a failed item is settled: with an attempt and a delay, or as a dead letter at once."""

from __future__ import annotations

import random
from typing import Any

from redset._operations.context import error_text
from redset._operations.leasing import Settlement
from redset._times import milliseconds
from redset.exceptions import Reject, Retry

#: Seconds before a failed item is tried again: at first, and at most.
FIRST, LONGEST = 1.0, 3600.0


def settlement_of(lease: Any, error: BaseException) -> Settlement:
    """Return how to settle a lease whose work raised this."""
    reason = _reason(error)
    if isinstance(error, Reject):
        return Settlement("bury", [lease], error=reason)
    delay = retry_delay(lease.attempts)
    if isinstance(error, Retry) and error.delay is not None:
        delay = milliseconds("delay", error.delay, False)
    return Settlement("fail", [lease], delay, error=reason)


def _reason(error: BaseException) -> str:
    """Return the text to keep of an error: of a Retry or Reject, what it was raised for."""
    if isinstance(error, Reject) and error.reason:
        return error_text(error.reason)
    if isinstance(error, (Reject, Retry)):
        context = None if error.__suppress_context__ else error.__context__
        return error_text(error.__cause__ or context or error)
    return error_text(error)


def retry_delay(attempts: int) -> int:
    """Return the milliseconds before the next attempt, which double, with jitter.

    Between half of it and the whole, so that what failed together does not come back together
    ("equal jitter": M. Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015).
    """
    return int(1000 * min(LONGEST, FIRST * 2.0 ** min(attempts, 30)) * random.uniform(0.5, 1.0))
