"""The hook: when Scrapy's engine is through with a request, and how to wake it.

The engine removes a request from its set of requests in progress after four steps:

- its response or failure was handled,
- its callback or errback has ended,
- its items have left the pipelines,
- its requests were handed to the scheduler.

Errors in them do not matter. There is no public hook for this moment: ``process_spider_output``
misses errbacks and failures without one, and ``item_scraped`` comes for each item.
``response_received`` and ``request_left_downloader`` come too early. So the set is replaced by one
that reports removals. The engine's set is private to Scrapy. So `tests/test_scrapy_crawls.py` has
eleven cases that each supported release must pass, and `open` refuses an engine of another shape.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import scrapy

#: Releases that the tests run.
TESTED = "2.13.0, 2.16.0 and 2.19.0"


class _InProgress(set[Any]):
    """The engine's requests in progress. It reports each that leaves."""

    def __init__(self, items: Iterable[Any], left: Callable[[Any], None]) -> None:
        super().__init__(items)
        self._left = left

    def remove(self, request: Any) -> None:
        super().remove(request)
        self._left(request)


class Engine:
    """The engine of a crawl, as far as a scheduler needs it.

    Parameters
    ----------
    crawler : Crawler
        The crawl.
    scheduler : Scheduler
        Must be the engine's.
    left : callable
        Called with each request that the engine is through with.

    Raises
    ------
    RuntimeError
        If the engine is not as the tested releases have it.
    """

    def __init__(self, crawler: Any, scheduler: Any, left: Callable[[Any], None]) -> None:
        try:
            engine = crawler.engine
        except RuntimeError:  # outside of a crawl, from Scrapy 2.19 on
            engine = None
        slot: Any = getattr(engine, "_slot", None)
        if (
            not isinstance(getattr(slot, "inprogress", None), set)
            or getattr(slot, "scheduler", None) is not scheduler
            or not hasattr(slot, "nextcall")
        ):
            raise RuntimeError(
                f"redset.scrapy.Scheduler does not know the engine of Scrapy {scrapy.__version__}, "
                f"or is opened outside of a crawl; it was tested with Scrapy {TESTED}"
            )
        self._engine, self._slot, self._crawler = engine, slot, crawler
        slot.inprogress = _InProgress(slot.inprogress, left)
        self._by_address = bool(getattr(engine.downloader, "ip_concurrency", 0))
        self._call = _way_back()

    def call(self, function: Callable[[], None]) -> None:
        """Call a function in the reactor's thread; from another thread."""
        try:
            self._call(function)
        except RuntimeError:  # the loop is closed, and its tasks with it
            pass

    def wake(self) -> None:
        """Let the engine ask for requests again. Before it runs, it asks by itself."""
        if self._engine.running and self._slot.closing is None:
            self._slot.nextcall.schedule()

    def crawl(self, request: Any) -> None:
        """Hand the engine a request, as a signal handler may."""
        self._engine.crawl(request)

    def close_spider(self, reason: str) -> None:
        """End the crawl."""
        from scrapy.utils.defer import deferred_from_coro

        if self._slot.closing is not None or self._engine.spider is None:
            return
        close = getattr(self._engine, "close_spider_async", None)
        if close is not None:
            deferred_from_coro(close(reason=reason))
        else:  # before Scrapy 2.14
            self._engine.close_spider(self._engine.spider, reason)

    def slots(self) -> Any:
        """Return the downloader's slots by name."""
        return getattr(self._engine.downloader, "slots", {})

    def use_slots(self, make: Callable[[Any], Any]) -> None:
        """Replace the dict of the downloader's slots, if it has one."""
        slots = self.slots()
        if isinstance(slots, dict):
            self._engine.downloader.slots = make(slots)

    def free(self, unlimited: int) -> int:
        """Return the number of requests that the engine can begin now; from another thread.

        ``unlimited`` is the result if Scrapy has no limit.
        """
        downloader = self._engine.downloader
        scraping = getattr(getattr(self._engine, "scraper", None), "slot", None)
        if scraping is not None and scraping.needs_backout():
            return 0
        total = getattr(downloader, "total_concurrency", 0)
        return max(0, total - len(downloader.active)) if total > 0 else unlimited

    def slot_name(self, host: str) -> str:
        """Return the name of the slot of a host."""
        if self._by_address:
            from scrapy.resolver import dnscache

            return str(dnscache.get(host, host))
        return host


def _way_back() -> Callable[[Callable[[], None]], object]:
    """Return what calls a function in the reactor's thread.

    There may be no reactor, and a reactor must not be imported before the crawl has chosen one.
    """
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        from twisted.internet import reactor

        call: Any = reactor.callFromThread
        return lambda function: call(function)
