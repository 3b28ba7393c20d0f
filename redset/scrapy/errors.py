"""Errors of a server that end by themselves: it is away, or refuses for a while."""

from __future__ import annotations

from redset.exceptions import AddError, Full
from redset.scrapy.exchange import class_names, codes_of

#: Classes of redis-py and valkey-py.
_AWAY = {"ConnectionError", "TimeoutError"}
_FAMILIES = {"RedisError", "ValkeyError"}
#: Codes of errors that a server raises for a while.
_CODES = {
    "BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "READONLY", "TRYAGAIN",
}  # fmt: skip
_CLASSES = {"BusyLoadingError", "ClusterDownError", "ReadOnlyError", "TryAgainError"}
#: Errors of cluster clients for which no node answered.
_CLUSTER = {"RedisClusterException", "ValkeyClusterException"}


def cause_of(error: BaseException) -> BaseException:
    """Return the client's or server's error that caused the error of a bulk add."""
    if isinstance(error, AddError) and error.__cause__ is not None:
        return error.__cause__
    return error


def is_full(error: BaseException) -> bool:
    """Whether the set or the server has no room for the added items."""
    if isinstance(error, Full):
        return True
    error = cause_of(error)
    names = class_names(error)
    return bool("OutOfMemoryError" in names or (names & _FAMILIES and "OOM" in codes_of(error)))


def is_away(error: BaseException) -> bool:
    """Whether the server cannot be reached, or takes no requests for a while."""
    error = cause_of(error)
    names = class_names(error)
    if type(error).__name__ in _CLUSTER:
        return True
    if not names & _FAMILIES:
        return isinstance(error, OSError)
    # A wrong password is a ConnectionError in redis-py.
    if names & {"AuthenticationError", "AuthorizationError"}:
        return False
    return bool(names & (_AWAY | _CLASSES) or codes_of(error) & _CODES)
