"""Chooses the implementation of the wire format, once: the compiled one if it can be loaded."""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import TYPE_CHECKING

from redset import _lazy

if TYPE_CHECKING:
    from redset._wire import fallback as fallback
else:
    __getattr__ = _lazy.modules(__name__, "fallback")

_MODULES = {"cython": "redset._speedups", "python": "redset._wire.fallback"}


def load(implementation: str) -> ModuleType:
    """Import an implementation, ``"cython"`` or ``"python"``; ImportError if it is not built."""
    return importlib.import_module(_MODULES[implementation])


def _default() -> ModuleType:
    if os.environ.get("REDSET_NO_EXTENSIONS", "") not in ("", "0"):
        return load("python")
    try:
        return load("cython")
    except ImportError:
        return load("python")


DEFAULT = _default()
