"""The caller's items and scores, pulled in runs from iterables of any kind.

Theory of operation. A bulk add pulls as many items as fit into a chunk. Lists and the like are
*steady*: a pull runs no code of the caller's, so requests may be in flight and a connection held. A
generator may block, raise or use the same client. So its items are pulled with nothing in flight,
for at most 50 ms. Then the items that came are sent, however slow the others are. Runs of items
grow while they come fast, so the clock costs almost nothing per item. A task of its own draws from
an asynchronous iterable, so sending never cancels a step of it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, Iterable
from itertools import islice
from typing import Any

_UNREAD = object()
#: Iterables that run none of the caller's code.
_STEADY = (list, tuple, set, frozenset, dict, range, deque)
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
#: The longest pull, in seconds.
_PATIENCE = 0.05
#: The most items pulled between two looks at the clock.
_RUN = 32


class Source:
    """The caller's items and scores.

    Attributes
    ----------
    steady : bool
        Whether a pull runs none of the caller's code.
    even : bool
        Whether a pull of fewer items than were asked for is the last one: nothing is left then, no
        item and no score.
    """

    def __init__(
        self, items: Iterable[Any] | AsyncIterable[Any], scores: Iterable[Any] | None
    ) -> None:
        self.steady = _steady(items) and (scores is None or _steady(scores))
        self.even = self.steady and (scores is None or len(items) == len(scores))  # type: ignore[arg-type]
        self._feed = _Feed(items) if hasattr(items, "__aiter__") else None
        self._items = iter(()) if self._feed else iter(items)  # type: ignore[arg-type]
        self._scores = None if scores is None else iter(scores)
        self._error: Exception | None = None

    async def pull(self, num: int) -> tuple[list[Any], list[Any] | None]:
        """Return up to ``num`` items: fewer if they are slow, none at the end."""
        if self._error is not None:
            raise self._error
        if self._feed is not None:
            items = await self._feed.pull(num)
        else:
            items = list(islice(self._items, num)) if self.steady else self._patient(num)
        if self._scores is None:
            return items, None
        scores: list[Any] = []
        try:
            scores.extend(islice(self._scores, len(items)))
            if len(scores) < len(items):
                self._error = ValueError("score ended before items: it must give one for each")
                self.even = False
            elif not items and next(self._scores, _UNREAD) is not _UNREAD:
                raise ValueError("score has more values than items; give one score per item")
        except Exception as error:
            self._error = error
        del items[len(scores) :]
        if not items and self._error is not None:
            raise self._error
        return items, scores

    async def close(self) -> None:
        """Close the caller's iterable, or end the task that draws from it."""
        if self._feed is not None:
            await self._feed.close()

    def _patient(self, num: int) -> list[Any]:
        # Runs of items grow while they come fast, so the clock costs almost nothing per item.
        items: list[Any] = []
        end = time.monotonic() + _PATIENCE
        run = 1
        while len(items) < num:
            before = len(items)
            try:
                items.extend(islice(self._items, min(run, num - before)))
            except Exception as error:
                self._error = error
                if not items:
                    raise
                break
            if len(items) == before or time.monotonic() > end:
                break
            run = min(2 * run, _RUN)
        return items


class _Feed:
    """An async iterable, and a task that draws from it: sending does not interrupt a slow step."""

    def __init__(self, iterable: Any) -> None:
        self._iterable = iterable
        self._came: deque[Any] = deque()
        self._limit = 0
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._room = asyncio.Event()

    async def pull(self, num: int) -> list[Any]:
        """Wait for an item, and for up to ``num`` as long as they come fast."""
        self._limit = num
        self._room.set()
        if self._task is None:
            self._task = asyncio.ensure_future(self._draw())
            self._task.add_done_callback(lambda _: self._changed.set())
        came, end = self._came, time.monotonic() + _PATIENCE
        loop = asyncio.get_running_loop()
        while len(came) < num and not self._task.done():
            left = end - time.monotonic()
            if came and left <= 0:
                break
            self._changed.clear()
            # Not wait_for: before Python 3.12 it may swallow a cancellation.
            alarm = loop.call_later(left, self._changed.set) if came else None
            try:
                await self._changed.wait()
            finally:
                if alarm is not None:
                    alarm.cancel()
        if not came:
            await self._task  # raises the error of the iterable, if any
        return [came.popleft() for _ in range(min(num, len(came)))]

    async def _draw(self) -> None:
        run = 0
        async for item in self._iterable:
            self._came.append(item)
            self._changed.set()
            run += 1
            if len(self._came) >= self._limit:
                self._room.clear()
                await self._room.wait()
            elif run % _RUN == 0:
                await asyncio.sleep(0)  # the iterable may never suspend

    async def close(self) -> None:
        task = self._task
        if task is None:
            return
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
        if not task.cancelled():
            task.exception()  # or asyncio logs that it was never retrieved


def _steady(iterable: Any) -> bool:
    return type(iterable) in _STEADY or isinstance(iterable, _VIEWS)
