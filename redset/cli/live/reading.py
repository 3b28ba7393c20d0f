"""One set of the live view in detail: what is read of it, and what is done with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from redset import DeadLetter, SetInfo, SortedSet, Worker
from redset.cli.connection import SetOptions, Settings, bytes_of
from redset.cli.program import outcome

#: Rows of a page, and items that are read at most.
PAGE, MOST = 100, 1000


class Facts(NamedTuple):
    """Contents of the lower part of the screen: one set."""

    name: str | bytes
    workers: list[Worker]
    items: list[bytes]
    #: The server's refusal; the rest is then missing.
    refused: str | None = None


class Item(NamedTuple):
    """A queued item, and its place in the list."""

    place: int
    data: bytes
    score: float | None


class Reader:
    """Opens sets as their programs registered them, and reads them a page at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened: dict[Any, SortedSet[Any]] = {}

    def queue(self, info: SetInfo) -> SortedSet[Any]:
        """Return the set of a view. Nothing is asked."""
        stated = {name: value for name, value in (info.options or {}).items() if name != "seen"}
        kind = (info.name, repr(sorted(stated.items())))
        if kind not in self._opened:
            options = SetOptions()
            if info.options:
                options.complete(info.options, info.name, strict=False)
            if len(self._opened) >= PAGE:
                self._opened.clear()
            self._opened[kind] = self._settings.opened(info.name, options)
        return self._opened[kind]

    def facts(self, info: SetInfo) -> Facts:
        """Return what the lower part of the screen shows. A refusal is one of the facts."""
        workers: list[Worker] = []
        try:
            queue = self.queue(info)
            workers = queue.workers()
            return Facts(info.name, workers, [bytes_of(item) for item in queue.peek_many(3)])
        except Exception as error:
            if self._settings.is_lost(error):
                raise
            return Facts(info.name, workers, [], outcome(error)[1])

    def memory(self, infos: list[SetInfo]) -> dict[str | bytes, int | None]:
        """Return the server's memory for sets, in bytes; None if it is not known."""
        found: dict[str | bytes, int | None] = {}
        for info in infos:
            try:
                # Expired leases stay where they are.
                found[info.name] = self.queue(info).stats(read_only=True).memory_bytes or None
            except Exception as error:
                if self._settings.is_lost(error):
                    raise
                found[info.name] = None
        return found

    def items(self, info: SetInfo, num: int) -> list[Item]:
        """Return the first items in order of their scores, due or not."""
        queue = self.queue(info)
        found = queue.peek_many(num)
        if len(found) < num and (info.options or {}).get("class") == "ScheduledSet":
            found = list(islice(iter(queue), num))
        scores = queue.scores(found) if found else []
        return [
            Item(place, bytes_of(item), score)
            for place, (item, score) in enumerate(zip(found, scores, strict=True))
        ]


class Pages:
    """Reads rows of a set, a page more at each call."""

    def __init__(self, rows: Callable[[], Iterator[Any]]) -> None:
        self._make = rows
        self._rows: Iterator[Any] | None = None
        self.found: list[Any] = []
        #: Whether there may be more.
        self.is_open = True

    def more(self) -> Pages:
        """Read one more page."""
        if self._rows is None:
            self._rows = self._make()
        page = list(islice(self._rows, PAGE))
        self.found = self.found + page
        self.is_open = len(page) == PAGE
        return self


def settled(queue: SortedSet[Any], letters: list[DeadLetter], verb: str) -> str:
    """Requeue or purge dead letters. Return what came of it."""
    dead = queue.dead
    if verb == "requeue":
        done, text = dead.requeue(letters), "queued again"
    else:
        done, text = dead.purge(letters_or_ids=letters), "purged"
    return f"{done:,} of {len(letters):,} letters {text}"


def paused(queue: SortedSet[Any], verb: str) -> str:
    """Pause or resume a set. Return what came of it."""
    if verb == "pause":
        queue.pause("paused in redset top")
        return "paused: no consumer is given leases"
    return "resumed" if queue.resume() else "it was not paused"
