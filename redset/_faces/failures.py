"""Settlements of failed items, and errors that are not the item's fault.

A failed item has one of three settlements: an attempt and a delay; a dead letter at once; or, if
the error is not its fault, a release without an attempt. Otherwise an item that failed for lack of
memory would become a dead letter after some attempts, although the item is fine.
"""

from __future__ import annotations

import asyncio
import errno
import random
from typing import Any

from redset._faces.arguments import milliseconds
from redset._operations.errors import error_text
from redset._operations.settling import Settlement
from redset._transport.errors import class_names, codes_of
from redset.exceptions import AddError, Reject, Retry

#: Backoff of a failed item, in seconds: the first delay, and the longest.
FIRST, LONGEST = 1.0, 3600.0
#: Delay after an error that is not the item's fault, and after a full set or server, in seconds.
OTHERS = 5.0
#: Errors of a process or machine that lacks memory, files or disk space for a while.
_LACKS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC}
#: Codes of errors that a server raises for a while.
_CODES = {"OOM", "NOREPLICAS", "BUSY", "MISCONF", "LOADING", "TRYAGAIN", "CLUSTERDOWN"}
#: The clients' classes whose text lacks the code.
_CLASSES = {"OutOfMemoryError", "BusyLoadingError", "TryAgainError", "ClusterDownError"}


def settlement_of(lease: Any, error: BaseException, grouped: bool) -> Settlement:
    """Return the settlement of a lease whose work raised an error.

    In a set without groups none rests.
    """
    reason = _reason(error)
    if not _may_be_its_fault(error):
        return Settlement("release", [lease], others_delay())
    if isinstance(error, Reject):
        return Settlement("bury", [lease], error=reason)
    delay, rests = retry_delay(lease.attempts), False
    if isinstance(error, Retry):
        rests = error.group and grouped
        if error.delay is not None:
            delay = milliseconds("delay", error.delay, False)
    return Settlement("fail", [lease], delay, error=reason, rests=rests)


def _may_be_its_fault(error: BaseException) -> bool:
    """Return whether an error may be the item's fault."""
    if isinstance(error, (MemoryError, KeyboardInterrupt, asyncio.CancelledError)):
        return False
    if isinstance(error, OSError) and error.errno in _LACKS:
        return False
    if isinstance(error, RuntimeError) and "can't start new thread" in error_text(error):
        return False
    return not is_transient(error)


def is_transient(error: BaseException | None) -> bool:
    """Return whether a server refuses only for a while."""
    if isinstance(error, AddError):
        error = error.__cause__
    names = class_names(error)
    if not names & {"RedisError", "ValkeyError"}:
        return False
    return bool(names & _CLASSES or codes_of(error) & _CODES)


def others_delay() -> int:
    """Return the delay of an item that is not at fault, in milliseconds."""
    return int(1000 * OTHERS * random.uniform(0.5, 1.0))


def _reason(error: BaseException) -> str:
    """Return the text of an error; for a Retry or Reject, that of its cause."""
    if isinstance(error, Reject) and error.reason:
        return error_text(error.reason)
    if isinstance(error, (Reject, Retry)):
        context = None if error.__suppress_context__ else error.__context__
        return error_text(error.__cause__ or context or error)
    return error_text(error)


def retry_delay(attempts: int) -> int:
    """Return the backoff before the next attempt, in milliseconds. It doubles, with jitter.

    It is between half of the delay and the whole, so that items that failed together do not return
    together ("equal jitter": M. Brooker, Exponential Backoff And Jitter, AWS Architecture Blog,
    2015).
    """
    return int(1000 * min(LONGEST, FIRST * 2.0 ** min(attempts, 30)) * random.uniform(0.5, 1.0))
