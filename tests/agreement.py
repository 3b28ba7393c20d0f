"""What can be seen of a call, in a form in which two implementations can be compared."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from redset._wire import fallback


def told(error: BaseException | None) -> Any:
    """What there is to see of an error."""
    if error is None:
        return None
    return type(error), str(error), told(error.__cause__), error.__suppress_context__


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call gives or raises, in a form that can be compared."""
    try:
        return seen(call(*arguments))
    except Exception as error:
        return "raised", told(error)


def seen(value: Any) -> Any:
    """A value with its types, NaN equal to NaN, errors by what is told of them."""
    if isinstance(value, Exception):
        return told(value)
    if isinstance(value, fallback.Bad):
        return "Bad", value.place, id(value.item), told(value.error)
    if isinstance(value, (list, tuple)):
        return type(value), [seen(each) for each in value]
    if issubclass(type(value), float):
        return type(value), struct.pack("d", value)
    return type(value), value
