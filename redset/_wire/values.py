"""Values of arguments: flags, and the texts of values in errors."""

from __future__ import annotations

import re
import reprlib
from typing import Any

_short = reprlib.Repr()
_short.maxother = 100
#: Addresses are left out of texts: they differ in each run.
_ADDRESS = " at 0x[0-9a-fA-F]+"
#: Values of a flag. 1, 0 and NumPy's equal one of them.
_FLAGS = frozenset((True, False, None))


def got(value: Any) -> str:
    """Return the end of an error of an argument: its value, cut, and its type."""
    return f"got {re.sub(_ADDRESS, '', _short.repr(value))} ({type(value).__name__})"


def flag(argument: str, value: Any) -> bool:
    """Return a flag that may be used as a condition."""
    try:
        if value is True or value is False or value in _FLAGS:
            return bool(value)
    except TypeError:  # without a hash
        pass
    raise TypeError(f"{argument} must be True or False, {got(value)}")
