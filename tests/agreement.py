"""The observable result of a call, in a form in which two implementations can be compared."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from redset._wire import fallback


def told(error: BaseException | None) -> Any:
    """Return the observable parts of an error."""
    if error is None:
        return None
    return type(error), str(error), told(error.__cause__), error.__suppress_context__


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result or the error of a call, in a form that can be compared."""
    try:
        return seen(call(*arguments))
    except Exception as error:
        return "raised", told(error)


def seen(value: Any) -> Any:
    """Return a value with its types. NaN equals NaN; errors are compared by their texts."""
    if isinstance(value, Exception):
        return told(value)
    if isinstance(value, fallback.Bad):
        return "Bad", value.place, id(value.item), told(value.error)
    if isinstance(value, (list, tuple)):
        return type(value), [seen(each) for each in value]
    if issubclass(type(value), float):
        return type(value), struct.pack("d", value)
    return type(value), value
