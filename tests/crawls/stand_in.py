"""A crawl without Scrapy's engine: what the scheduler sees of it, driven by a test.

async with StandIn(server, REDSET_ORDER="fifo") as crawl:
    crawl.scheduler.enqueue_request(Request("http://a.example/"))
    request = await crawl.next()
    crawl.done(request)
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import SimpleNamespace
from typing import Any

import scrapy
from scrapy.crawler import Crawler
from scrapy.settings import Settings
from scrapy.signalmanager import SignalManager
from scrapy.statscollectors import MemoryStatsCollector
from scrapy.utils.request import RequestFingerprinter

from redset.scrapy import Scheduler

#: Seconds after which what a test waits for has failed to come.
LIMIT = 20.0


class Spider(scrapy.Spider):
    """A spider with callbacks, one of them private."""

    name = "stand-in"

    def parse(self, response: Any) -> None:
        pass

    def other(self, response: Any) -> None:
        pass

    def failed(self, failure: Any) -> None:
        pass

    def __private(self, response: Any) -> None:
        pass

    def private(self) -> Any:
        return self.__private


class StandIn:
    """A crawler, its engine and downloader, and the scheduler under test."""

    def __init__(self, server: Any, spider: Any = None, **settings: Any) -> None:
        given = {"REDSET_URL": server.url, "REDSET_NAME": "frontier", **settings}
        self.settings = Settings(given)
        self.spider = spider or Spider()
        self.spidercls = type(self.spider)
        self.signals = SignalManager(self)
        self.request_fingerprinter = RequestFingerprinter(Crawler(self.spidercls, self.settings))
        self.stats: Any = MemoryStatsCollector(
            SimpleNamespace(settings=Settings({"STATS_DUMP": False}))
        )
        self.reason: str | None = None
        self.woken = 0
        self.scheduler = Scheduler.from_crawler(self)
        self._slot = SimpleNamespace(
            inprogress=set(),
            scheduler=self.scheduler,
            closing=None,
            nextcall=SimpleNamespace(schedule=self._schedule),
        )
        self.downloader = SimpleNamespace(
            slots={}, active=set(), total_concurrency=self.settings.getint("CONCURRENT_REQUESTS")
        )
        self.scraper = SimpleNamespace(slot=SimpleNamespace(needs_backout=lambda: False))
        self.running = True

    @property
    def engine(self) -> StandIn:
        return self

    def _schedule(self) -> None:
        self.woken += 1

    def crawl(self, request: Any) -> None:
        self.scheduler.enqueue_request(request)

    if scrapy.version_info >= (2, 14):

        async def close_spider_async(self, *, reason: str) -> None:
            self.reason = reason

    else:

        def close_spider(self, spider: Any, reason: str) -> None:
            self.reason = reason

    async def open(self) -> None:
        opened = self.scheduler.open(self.spider)
        await asyncio.wait_for(opened.asFuture(asyncio.get_running_loop()), LIMIT)

    async def close(self, reason: str = "shutdown") -> None:
        closed = self.scheduler.close(reason)
        if closed is not None:
            await asyncio.wait_for(closed.asFuture(asyncio.get_running_loop()), LIMIT)

    async def __aenter__(self) -> StandIn:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def next(self, limit: float = LIMIT) -> Any:
        """Return the next request, as soon as there is one."""
        until = time.monotonic() + limit
        while True:
            request = self.scheduler.next_request()
            if request is not None:
                self._slot.inprogress.add(request)
                self.downloader.active.add(request)
                return request
            assert time.monotonic() < until, f"no request in {limit:g} s"
            await asyncio.sleep(0.002)

    def done(self, request: Any) -> None:
        """The engine is through with it."""
        self.downloader.active.discard(request)
        self._slot.inprogress.remove(request)

    async def until(self, condition: Any, limit: float = LIMIT) -> None:
        until = time.monotonic() + limit
        while not condition():
            assert time.monotonic() < until, f"not so in {limit:g} s"
            await asyncio.sleep(0.002)

    async def finished(self, limit: float = LIMIT) -> None:
        """Wait until there is nothing to do for anybody."""
        await self.until(lambda: not self.scheduler.has_pending_requests(), limit)

    async def rest(self) -> list[str]:
        """Work off all that there is; the paths in order."""
        found = []
        while self.scheduler.has_pending_requests():
            with contextlib.suppress(AssertionError):
                request = await self.next(0.02)
                found.append(request.url.partition("example")[2])
                self.done(request)
        return found

    def count(self, name: str) -> Any:
        return self.stats.get_value(name, 0)
