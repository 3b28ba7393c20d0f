"""Which errors of a server pass: it is away, or refuses for a while."""

from __future__ import annotations

import re

from redset.exceptions import AddError, Full

#: Classes of redis-py and valkey-py.
_AWAY = {"ConnectionError", "TimeoutError"}
_FAMILIES = {"RedisError", "ValkeyError"}
#: First words of what a server refuses for a while; Redis 6.2 wraps what it refuses in a script.
_CODES = {
    "BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "READONLY", "TRYAGAIN",
}  # fmt: skip
_CLASSES = {"BusyLoadingError", "ClusterDownError", "ReadOnlyError", "TryAgainError"}
#: Errors of cluster clients for which no node answered.
_CLUSTER = {"RedisClusterException", "ValkeyClusterException"}
_WRAPPED = re.compile(r"(ERR )?Error running script")


def cause_of(error: BaseException) -> BaseException:
    """Return the client's or server's error that caused one of a bulk add."""
    if isinstance(error, AddError) and error.__cause__ is not None:
        return error.__cause__
    return error


def _names_of(error: BaseException) -> set[str]:
    return {base.__name__ for base in type(error).__mro__}


def _codes_of(error: BaseException) -> set[str]:
    words = str(error).split()
    if _WRAPPED.match(str(error)):
        return {word.lstrip("-") for word in words}
    return set(words[:1])


def is_full(error: BaseException) -> bool:
    """Whether there is no room for what was to be added."""
    if isinstance(error, Full):
        return True
    error = cause_of(error)
    names = _names_of(error)
    return bool("OutOfMemoryError" in names or (names & _FAMILIES and "OOM" in _codes_of(error)))


def is_away(error: BaseException) -> bool:
    """Whether the server cannot be reached, or takes no requests for a while."""
    error = cause_of(error)
    names = _names_of(error)
    if type(error).__name__ in _CLUSTER:
        return True
    if not names & _FAMILIES:
        return isinstance(error, OSError)
    # A wrong password is a ConnectionError in redis-py.
    if names & {"AuthenticationError", "AuthorizationError"}:
        return False
    return bool(names & (_AWAY | _CLASSES) or _codes_of(error) & _CODES)
