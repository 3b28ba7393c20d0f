"""The order for a contender: the server, and the amount of work."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, NamedTuple

import data

#: The timed part of a task: the number of its items, and its further measurements.
Run = Callable[[], "int | tuple[int, dict[str, float]]"]


class Job(NamedTuple):
    """One task. ``address`` has the keyword arguments of redis-py's client."""

    address: dict[str, Any]
    name: str = "bench"
    size: int = 1000
    first: int = 0
    item_size: int = 115
    chunk: int = 0
    links: str = ""
    pages: int | None = None
    duplicates: float | None = None
    variant: str = ""
    #: Hosts that get `size` jobs each, and the seconds between two starts of one.
    hosts: int = 0
    interval: float = 0.0

    def items(self) -> list[data.Item]:
        return list(data.items(self.first, self.first + self.size, self.item_size))

    def others(self) -> tuple[str, list[data.Item]]:
        """Another set: its name, and as many items. Half of them are those of the first."""
        half = self.size // 2
        found = data.items(self.first + half, self.first + half + self.size, self.item_size)
        return f"{self.name}-others", list(found)

    def of_host(self, host: int) -> list[data.Item]:
        return [{"host": f"host-{host}", "number": number} for number in range(self.size)]

    def scores(self) -> list[int]:
        return data.scores(self.size)

    def linked_pages(self) -> list[list[data.Item]]:
        """New hyperlinks, page by page; one page of them all if the variant asks for it."""
        if self.variant == "half known":
            return data.half_known_pages(self.size, self.chunk)
        if self.duplicates is None:
            found = data.pages(self.links, self.pages)
        else:
            found = data.links(self.size, self.duplicates)
        return found if self.variant == "pages" else [list(itertools.chain(*found))]


def batches(values: list[Any], size: int) -> Iterator[list[Any]]:
    for at in range(0, len(values), size):
        yield values[at : at + size]


async def at_once(
    number: int, work: Callable[[Any], Awaitable[None]], values: Iterable[Any]
) -> None:
    """Call for each of the values, so many calls under way at any time."""
    left = iter(values)

    async def some() -> None:
        for value in left:
            await work(value)

    await asyncio.gather(*(some() for _ in range(number)))
