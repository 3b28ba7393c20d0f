"""Sets with options, and items for them, for the tests of more than one file."""

from __future__ import annotations

import math
from typing import Any

import pytest

OPTIONS: list[dict[str, Any]] = [
    {},
    {"key": "url"},
    {"remember": True},
    {"key": "url", "remember": True},
    {"key": "url", "remember": 3600},
    {"ties": "fifo"},
    {"key": "url", "remember": True, "ties": "lifo"},
]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=str)


def made(options: dict[str, Any], name: str) -> Any:
    """An item for a set with these options."""
    if "group" in options:
        return {"url": name, options["group"]: "all"}
    return {"url": name} if "key" in options else name


def fit(options: dict[str, Any], score: float) -> float:
    """Return the score, or the nearest one that a set with these options can have."""
    return math.floor(max(-4096, min(score, 4095))) if "ties" in options else score


def once_more(options: dict[str, Any]) -> dict[str, Any]:
    """Return the flags that add an item again, also if it is known."""
    return {"again": True} if "remember" in options else {}
