"""The size of arguments: a server closes the connection on one that is too large for it."""

from __future__ import annotations

from typing import Any

from redset._transport.session import Flight

#: The smallest limit of one argument that a server accepts, in bytes (proto-max-bulk-len). Only a
#: larger argument can be the reason for a closed connection.
LARGE = 2**20
#: Bytes of such an argument that an error shows.
SHOWN = 40
#: The request that asks for the limit.
ASK_LIMIT = b"*3\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n$18\r\nproto-max-bulk-len\r\n"


def limit_of(answer: Any) -> int | None:
    """Read the reply to CONFIG GET of one number: a list, a dict, or something else."""
    values = list(answer.values()) if isinstance(answer, dict) else answer
    try:
        return int(values[-1])
    except (TypeError, ValueError, LookupError):
        return None


def largest_argument(flights: list[Flight]) -> memoryview | None:
    """Return the largest argument of some requests, if it may be too large."""
    found: memoryview | None = None
    for flight in flights:
        data = flight.effect.data
        if len(data) <= LARGE:
            continue
        at = 0
        while at < len(data):
            stop = data.index(b"\r\n", at)
            size, start = int(data[at + 1 : stop]), stop + 2
            is_array = data[at : at + 1] == b"*"
            at = start if is_array else start + size + 2
            if not is_array and size > max(LARGE, 0 if found is None else len(found)):
                found = memoryview(data)[start : start + size]
    return found


def is_too_large(error: Exception) -> bool:
    """Return whether an error means that an argument is too large. It closes the connection."""
    return "invalid bulk length" in str(error)


def may_be_too_large(error: Exception) -> bool:
    """Return whether a connection was closed, as after a large argument, and did not time out."""
    return not any("Timeout" in base.__name__ for base in type(error).__mro__)
