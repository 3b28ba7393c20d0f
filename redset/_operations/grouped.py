"""Groups of items: how an item's group is found, and how it is stored.

A set with ``group=`` stores identity and payload apart. A payload has its group in front: one byte
with the group's length, and the group. An item without a group has an empty one.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from redset._wire.values import got

#: The most bytes of a group.
MOST_BYTES = 200
#: The most bytes in front of a payload.
FRONT = 1 + MOST_BYTES


def bytes_of_group(wire: ModuleType, group: Any) -> bytes:
    """Return the bytes of a group. An error names its fault."""
    if isinstance(group, bool) or not isinstance(group, (str, bytes, int)):
        raise TypeError(f"group must be str, bytes or int, {got(group)}")
    try:
        data: bytes = wire.key_bytes(group)
    except UnicodeEncodeError:
        raise ValueError(f"group must be encodable as UTF-8, {got(group)}") from None
    return _checked(data, group)


def text_of_group(data: bytes) -> str | None:
    """Return a group as text, or None for no group. Bytes that are not UTF-8 are escaped."""
    return data.decode("utf-8", "surrogateescape") if data else None


def named_group(wire: ModuleType, group: Any) -> bytes:
    """Return the bytes of a group that a caller names, also by the text of a lease."""
    if isinstance(group, tuple):
        return _joined(wire, group, group)
    if isinstance(group, str):
        try:
            return _checked(group.encode("utf-8", "surrogateescape"), group)
        except UnicodeEncodeError:
            pass
    return bytes_of_group(wire, group)


def finder(wire: ModuleType, group: Any) -> Callable[[Any], bytes]:
    """Return the function that returns the bytes of an item's group, empty for none."""
    if isinstance(group, tuple):

        def of_fields(item: Any) -> bytes:
            parts = [_field(wire, item, name) for name in group]
            if all(part is None for part in parts):
                return b""
            return _joined(wire, parts, parts)

        return of_fields

    read = group
    if isinstance(group, str):

        def read(item: Any) -> Any:
            return _field(wire, item, group)

    def of_item(item: Any) -> bytes:
        found = read(item)
        if type(found) is str:
            data = found.encode() if found.isascii() else bytes_of_group(wire, found)
            return _checked(data, found)
        return b"" if found is None else bytes_of_group(wire, found)

    return of_item


def framed(group: bytes, payload: bytes) -> bytes:
    """Return the stored form of a payload."""
    return b"%c%b%b" % (len(group), group, payload)


def group_in(stored: bytes) -> bytes:
    """Return the group of a stored payload."""
    return stored[1 : 1 + stored[0]] if stored else b""


def payload_in(stored: bytes) -> bytes:
    """Return a stored payload without its group."""
    return stored[1 + stored[0] :] if stored else b""


def _field(wire: ModuleType, item: Any, name: str) -> Any:
    try:
        return wire.field_of(item, name)
    except (KeyError, AttributeError):
        raise ValueError(
            f"item of type {type(item).__name__} has no field {name!r} to be its group"
        ) from None


def _joined(wire: ModuleType, parts: Any, given: Any) -> bytes:
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, (str, bytes, int)):
            raise TypeError(f"group must have fields of str, bytes or int, {got(part)}")
    try:
        return _checked(wire.joined_key(parts), given)
    except UnicodeEncodeError:
        raise ValueError(f"group must be encodable as UTF-8, {got(given)}") from None


def _checked(data: bytes, given: Any) -> bytes:
    if not 0 < len(data) <= MOST_BYTES:
        raise ValueError(f"group must be of 1 to {MOST_BYTES} bytes, {got(given)}")
    return data
