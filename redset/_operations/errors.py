"""Errors of items: which of them say nothing of the item, and what is kept of one."""

from __future__ import annotations

from typing import Any

#: Errors of the process and what is around it, not of an item that is decoded: a memory that is
#: full, a schema's server that is gone, a module that is missing.
NOT_OF_ITEM = (MemoryError, OSError, ImportError)
#: Characters of an error's text that are kept.
TEXT = 1000


def error_text(error: Any) -> str:
    """Return what is kept of an error."""
    if isinstance(error, BaseException):
        kind = type(error).__name__
        try:
            error = f"{kind}: {error}"
        except Exception:  # it cannot even say what it is
            error = kind
    if not isinstance(error, str):
        raise TypeError(f"error must be an exception or str, not {type(error).__name__}")
    # Also what is not a text for UTF-8.
    return error[:TEXT].encode("utf-8", "replace").decode()


def raise_unable(bad: list[Any]) -> None:
    """Raise an error that says nothing of the item which could not be decoded."""
    for each in bad:
        if isinstance(each.error, NOT_OF_ITEM):
            raise each.error
