"""How a failed item is settled, and which errors are nobody's fault.

With an attempt and a delay; as a dead letter at once; or, if the error is not the item's own,
released without an attempt. An item that fails for want of memory would otherwise be a dead letter
after some attempts, and its work lost, though nothing is wrong with it.
"""

from __future__ import annotations

import asyncio
import errno
import random
import re
from typing import Any

from redset._faces.arguments import milliseconds
from redset._operations.errors import error_text
from redset._operations.settling import Settlement
from redset.exceptions import AddError, Reject, Retry

#: Seconds before a failed item is tried again: at first, and at most.
FIRST, LONGEST = 1.0, 3600.0
#: The same after an error that is not the item's own, and of what a full set or server refused.
OTHERS = 5.0
#: What this process or machine may lack for a while.
_LACKS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC}
#: What a server refuses for a while. Redis 6.2 wraps what it refuses inside of a script.
_CODES = {"OOM", "NOREPLICAS", "BUSY", "MISCONF", "LOADING", "TRYAGAIN", "CLUSTERDOWN"}
_WRAPPED = re.compile(r"(ERR )?Error running script")
#: Classes of the clients, whose text has no code.
_CLASSES = {"OutOfMemoryError", "BusyLoadingError", "TryAgainError", "ClusterDownError"}


def settlement_of(lease: Any, error: BaseException) -> Settlement:
    """Return how to settle a lease whose work raised this."""
    reason = _reason(error)
    if not _may_be_its_fault(error):
        return Settlement("release", [lease], others_delay())
    if isinstance(error, Reject):
        return Settlement("bury", [lease], error=reason)
    delay = retry_delay(lease.attempts)
    if isinstance(error, Retry) and error.delay is not None:
        delay = milliseconds("delay", error.delay, False)
    return Settlement("fail", [lease], delay, error=reason)


def _may_be_its_fault(error: BaseException) -> bool:
    """Whether an error may be the item's fault."""
    if isinstance(error, (MemoryError, KeyboardInterrupt, asyncio.CancelledError)):
        return False
    if isinstance(error, OSError) and error.errno in _LACKS:
        return False
    if isinstance(error, RuntimeError) and "can't start new thread" in error_text(error):
        return False
    return not is_transient(error)


def is_transient(error: BaseException | None) -> bool:
    """Whether a server refuses only for a while."""
    if isinstance(error, AddError):
        error = error.__cause__
    names = {base.__name__ for base in type(error).__mro__}
    if not names & {"RedisError", "ValkeyError"}:
        return False
    words = str(error).split()
    if _WRAPPED.match(str(error)):
        return any(word.lstrip("-") in _CODES for word in words)
    return bool(names & _CLASSES or _CODES & set(words[:1]))


def others_delay() -> int:
    """Return the milliseconds before an item is tried again that was not at fault."""
    return int(1000 * OTHERS * random.uniform(0.5, 1.0))


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
