"""Entries of the frontier: encoded requests with their identity and score, and the set of them."""

from __future__ import annotations

import os
from typing import Any

from redset import SortedSet
from redset.scrapy.groups import GroupOptions

#: Limit of priorities, to which higher ones are cut: `ties` does not allow other scores.
MOST_PRIORITY = 4095
#: Random bytes of a request that is never refused.
SALT = 8


class Entry:
    """One request on its way to the server.

    Attributes
    ----------
    key : bytes
        Its fingerprint, with random bytes if the request must never be refused.
    raw : bytes
        The encoded request.
    score : int
        Its negative priority.
    remember : bool or None
        False if the set is not to remember it.
    group : str or None
        Its group, if the frontier has groups.
    """

    __slots__ = ("group", "key", "raw", "remember", "score")

    def __init__(
        self,
        key: bytes,
        raw: bytes,
        priority: int,
        remember: bool | None = None,
        group: str | None = None,
    ) -> None:
        self.key, self.raw, self.remember, self.group = key, raw, remember, group
        self.score = -max(-MOST_PRIORITY, min(MOST_PRIORITY, priority))

    @classmethod
    def unique(
        cls, fingerprint: bytes, raw: bytes, priority: int, group: str | None = None
    ) -> Entry:
        """Return the entry of a request that is never refused, and never merged with another."""
        return cls(fingerprint + os.urandom(SALT), raw, priority, False, group)


class _Raw:
    """A serializer of an entry's bytes as they are. They must begin as a JSON object."""

    binary = True

    def dumps(self, entry: Entry) -> bytes:
        return entry.raw

    def loads(self, raw: bytes) -> bytes:
        if raw[:1] != b"{":
            raise ValueError("this is not a stored request")
        return raw


class Bytes:
    """A serializer of bytes as they are."""

    binary = True

    def dumps(self, value: bytes) -> bytes:
        return value

    def loads(self, raw: bytes) -> bytes:
        return raw


def open_frontier(
    client: Any,
    name: str,
    *,
    order: Any,
    remember: bool | float,
    max_attempts: int | None,
    groups: GroupOptions | None = None,
) -> SortedSet[Any]:
    """Return the set that holds the requests of a frontier."""
    grouping: dict[str, Any] = {}
    if groups is not None and groups.of is not None:
        grouping["group"] = "group"
        grouping["group_limit"] = groups.limit
        grouping["group_interval"] = groups.interval
    return SortedSet(
        client,
        name,
        scorer="score",
        serializer=_Raw(),
        key="key",
        remember=remember,
        ties=order,
        max_attempts=max_attempts,
        **grouping,
    )
