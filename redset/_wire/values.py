"""Texts of values in errors."""

from __future__ import annotations

import re
import reprlib
from typing import Any

_short = reprlib.Repr()
_short.maxother = 100
#: A reader has no use for it, and it differs in each run.
_ADDRESS = re.compile(" at 0x[0-9a-fA-F]+")


def got(value: Any) -> str:
    """Return the end of an error of an argument: its value, cut, and its type."""
    return f"got {_ADDRESS.sub('', _short.repr(value))} ({type(value).__name__})"
