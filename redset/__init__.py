"""A work queue in Redis that never holds the same job twice. The lowest score comes out first."""

import typing

from redset import _lazy, _wire
from redset._faces.leases import Lease
from redset._operations.adding import AddResult
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

if typing.TYPE_CHECKING:
    from redset import locks as locks
    from redset._faces.worker import Consumed
    from redset._operations.dead import DeadLetter
    from redset._operations.glancing import SetInfo
    from redset._operations.groups import Group
    from redset._operations.operating import Worker
    from redset._operations.reading import Stats

    __version__: str

__all__ = (
    "AddResult",
    "Batch",
    "Consumed",
    "DeadLetter",
    "Group",
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

#: Public names that are imported when they are first used, with their modules.
_MODULES = {
    "Consumed": "redset._faces.worker",
    "DeadLetter": "redset._operations.dead",
    "Group": "redset._operations.groups",
    "SetInfo": "redset._operations.glancing",
    "Stats": "redset._operations.reading",
    "Worker": "redset._operations.operating",
}


def _load(name: str) -> typing.Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("redset")
    if name == "locks":
        return _lazy.module("redset.locks")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(_lazy.module(_MODULES[name]), name)
    return found


if not typing.TYPE_CHECKING:  # a type checker would take each name for a module's
    __getattr__ = _load


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__", "locks"})
