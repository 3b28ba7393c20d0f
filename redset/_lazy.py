"""Modules that are imported when they are first used.

`import redset` imports the modules that construct a set and add to it. A set's first call of
another kind imports the modules of that kind. So a short program does not wait for the parts that
it has no use for.

The packages `_faces`, `_operations` and `_transport` each name such modules::

    __getattr__ = _lazy.modules(__name__, "algebra", "dead")

A caller imports the package, and names the module at each use::

    from redset import _operations

    _operations.algebra.update(...)

Python calls ``__getattr__`` if a package lacks an attribute (PEP 562). The import makes the module
an attribute of its package. So only the first use of a module takes this way, and later ones cost
one more look-up of an attribute. The import system has a lock for each module, so threads may race
for the first use. It removes a module whose import was interrupted, so the next use imports it.

A fork waits for the end of such an import: a child would wait forever for the lock of a module that
a thread of its parent was importing.

A module that runs in a background thread or at the exit of the interpreter must not import others
there: the interpreter may end in between. It loads them before (see `Writing`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from importlib import import_module
from types import ModuleType

_lock = threading.RLock()
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )


def module(name: str) -> ModuleType:
    """Import a module by its full name."""
    with _lock:
        return import_module(name)


def modules(package: str, *names: str) -> Callable[[str], ModuleType]:
    """Return the ``__getattr__`` of a package, which imports these of its modules."""

    def load(name: str) -> ModuleType:
        if name in names:
            return module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return load
