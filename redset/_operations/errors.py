"""Errors of items: the classes that are not the item's fault, and the stored text."""

from __future__ import annotations

from typing import Any

from redset._wire.values import got

#: Errors of the process and its surroundings, not of the item that is decoded: no memory left, a
#: lost connection to a schema's server, a missing module.
NOT_OF_ITEM = (MemoryError, OSError, ImportError)
#: Characters of an error's text that are kept.
TEXT = 1000


def error_text(error: Any) -> str:
    """Return the stored text of an error."""
    if isinstance(error, BaseException):
        kind = type(error).__name__
        try:
            error = f"{kind}: {error}"
        except Exception:  # str() of the error raised itself
            error = kind
    if not isinstance(error, str):
        raise TypeError(f"error must be an exception or str, {got(error)}")
    # The text may have surrogates, which UTF-8 does not encode.
    return error[:TEXT].encode("utf-8", "replace").decode()


def raise_unable(bad: list[Any]) -> None:
    """Raise an error that is not the fault of the item that could not be decoded."""
    for each in bad:
        if isinstance(each.error, NOT_OF_ITEM):
            raise each.error
