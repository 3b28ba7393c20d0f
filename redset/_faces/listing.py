"""Listing the sets of a server."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from redset import _wire
from redset._faces.arguments import names_or_pattern
from redset._operations import glancing
from redset._operations.glancing import Found, SetInfo
from redset._operations.keys import checked_name
from redset._transport.clients import AsyncNode, Node, is_cluster

#: The least time between two pages of a scan, in seconds: it must leave the server to others.
_REST = 0.01


class Listing:
    """Lists sets over the link to a client. It is written once, with ``await``, for both faces."""

    def __init__(self, link: Any, client: Any) -> None:
        self._link = link
        self._client = client
        self._is_cluster = is_cluster(client)

    async def run(self, match: Any, scan: bool) -> list[SetInfo]:
        """Return the sets that match, by name."""
        wanted, wire = names_or_pattern("match", match), _wire.DEFAULT
        found: list[Found]
        if isinstance(wanted, list):
            if scan:
                raise ValueError("scan contradicts a list of names: give a pattern as match")
            names = [checked_name(each) for each in wanted]
            found = await self._performed(glancing.registered_as(wire, names))
        else:
            found = await self._performed(glancing.registered(wire, wanted))
            if scan:
                found += await self._scanned(wanted, {each.name for each in found})
        together = 1 if self._is_cluster else glancing.SETS
        ordered = glancing.ordered(found)
        infos: list[SetInfo] = await self._performed(glancing.glance(wire, ordered, together))
        return infos

    async def _performed(self, operation: Any, link: Any = None) -> Any:
        result = (link or self._link).run(operation)
        return (await result) if self._link._awaits else result

    async def _scanned(self, pattern: bytes | None, known: set[bytes]) -> list[Found]:
        """Return the sets that are not registered."""
        links, wire = [self._link], _wire.DEFAULT
        if self._is_cluster:
            kind, node_class = type(self._link), AsyncNode if self._link._awaits else Node
            nodes = self._client.get_primaries()
            links = [kind(node_class(self._client, node), wire.split) for node in nodes]
        found: dict[bytes, Found] = {}
        for link in links:
            cursor = b"0"
            while True:
                scan = glancing.scanned(wire, cursor, pattern)
                cursor, some = await self._performed(scan, link)
                found |= {each.name: each for each in some if each.name not in known}
                if cursor == b"0":
                    break
                if self._link._awaits:
                    await asyncio.sleep(_REST)
                else:
                    time.sleep(_REST)
        return list(found.values())
