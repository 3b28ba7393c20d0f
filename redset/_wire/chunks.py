"""The result of an encoder, of either implementation."""

from __future__ import annotations

from typing import Any, NamedTuple


class Bad(NamedTuple):
    """An item that could not be encoded: its place in the caller's list, the item, the error."""

    place: int
    item: Any
    error: Exception


class Chunk(NamedTuple):
    """A request made from a list of items.

    Attributes
    ----------
    data : bytes
        Empty if there is nothing to send.
    entries : int
        Number of entries in the request.
    good : int
        Number of items that could be encoded: more than ``entries`` if some were folded or dropped.
    places : list of int or None
        The place of the first item of each entry.
    bad : list of Bad
    dropped : int
        Number of entries that the known table held.
    digests : bytes
        The digest of each entry's member, 16 bytes each; empty if there was no known table.
    """

    data: bytes
    entries: int
    good: int
    places: list[int] | None
    bad: list[Bad]
    dropped: int = 0
    digests: bytes = b""
