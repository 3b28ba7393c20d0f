"""A work queue in Redis that never holds the same job twice. The lowest score comes out first."""

from redset import _wire
from redset._faces.leases import Lease
from redset._faces.worker import Consumed
from redset._operations.adding import AddResult
from redset._operations.dead import DeadLetter
from redset._operations.glancing import SetInfo
from redset._operations.operating import Worker
from redset._operations.reading import Stats
from redset.exceptions import Reject, Retry
from redset.sets import (
    Batch,
    Key,
    ScheduledSet,
    SortedSet,
    TimeSortedSet,
    Writer,
    check_server,
    list_sets,
)

__all__ = (
    "AddResult",
    "Batch",
    "Consumed",
    "DeadLetter",
    "Key",
    "Lease",
    "Reject",
    "Retry",
    "ScheduledSet",
    "SetInfo",
    "SortedSet",
    "Stats",
    "TimeSortedSet",
    "Worker",
    "Writer",
    "check_server",
    "list_sets",
)

#: ``"cython"`` if the compiled core is in use, else ``"python"``.
IMPLEMENTATION: str = _wire.DEFAULT.IMPLEMENTATION


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("redset")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
