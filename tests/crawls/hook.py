"""Eleven ways through Scrapy's engine: what a request led to comes before it is over.

``python -m crawls.hook '{settings}'`` crawls pages that a downloader middleware answers, with a
scheduler that writes down what it hears, and prints what came too late as JSON.
"""

from __future__ import annotations

import collections
import json
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import scrapy
from scrapy import crawler as crawlers
from scrapy.exceptions import IgnoreRequest
from scrapy.http import HtmlResponse, Response
from scrapy.utils.defer import maybe_deferred_to_future

from redset.scrapy.engine import Engine

EVENTS: list[tuple[str, str]] = []
CASES = (
    "sync", "generator", "redirect", "retry", "raise", "errback", "late", "ignore", "gone", "swap",
    "media",
)  # fmt: skip


def url_of(name: str) -> str:
    return f"http://x.example/{name}"


async def pause(seconds: float) -> None:
    try:
        import asyncio

        asyncio.get_running_loop()
    except RuntimeError:
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        await maybe_deferred_to_future(deferLater(reactor, seconds, lambda: None))
    else:
        from twisted.internet.defer import Deferred

        done: Any = Deferred()
        asyncio.get_running_loop().call_later(seconds, done.callback, None)
        await maybe_deferred_to_future(done)


class Listener:
    """A scheduler in memory, with redset's hook."""

    def __init__(self, crawler: Any) -> None:
        self._crawler = crawler
        self._queue: collections.deque[Any] = collections.deque()
        self._engine: Any = None

    @classmethod
    def from_crawler(cls, crawler: Any) -> Listener:
        return cls(crawler)

    def open(self, spider: Any) -> None:
        self._engine = Engine(
            self._crawler, self, lambda request: EVENTS.append(("over", request.url))
        )

    def close(self, reason: str) -> None:
        EVENTS.append(("close", reason))

    def has_pending_requests(self) -> bool:
        return bool(self._queue)

    def enqueue_request(self, request: Any) -> bool:
        EVENTS.append(("add", request.url))
        self._queue.append(request)
        return True

    def next_request(self) -> Any:
        return self._queue.popleft() if self._queue else None


class Answers:
    """A downloader middleware that is the site."""

    def process_request(self, request: Any, spider: Any = None) -> Any:
        url, name = request.url, request.url.rpartition("/")[2]
        if name == "redirect":
            return Response(url, status=302, headers={"Location": url_of("target")})
        if name == "retry":
            return Response(url, status=503)
        if name in ("raise", "errback"):
            raise ValueError("no answer")
        if name == "ignore":
            raise IgnoreRequest("no")
        if name == "gone":
            return Response(url, status=404)
        if name == "swap":
            return request.replace(url=url_of("swapped"))
        return HtmlResponse(url, body=b"<html></html>")


class Pipeline:
    """A pipeline that takes its time, and may download."""

    def __init__(self, crawler: Any) -> None:
        self._crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Any) -> Pipeline:
        return cls(crawler)

    async def process_item(self, item: Any, spider: Any = None) -> Any:
        if item["of"] == "media":
            engine, request = self._crawler.engine, scrapy.Request(url_of("image"))
            if hasattr(engine, "download_async"):
                await engine.download_async(request)
            else:
                await maybe_deferred_to_future(engine.download(request))
        await pause(0.03)
        EVENTS.append(("item", item["of"]))
        return item


class Eleven(scrapy.Spider):
    """Each case gives items and one request."""

    name = "eleven"

    async def start(self) -> AsyncIterator[Any]:
        callbacks = {"generator": self.generate, "late": self.raise_late}
        for name in CASES:
            errback = self.recover if name == "errback" else None
            callback = callbacks.get(name, self.parse)
            yield scrapy.Request(
                url_of(name), callback, errback=errback, cb_kwargs={"case": name}, dont_filter=True
            )

    def _given(self, case: str) -> Iterator[Any]:
        for _ in range(3):
            yield {"of": case}
        yield scrapy.Request(url_of(f"child-{case}"), self.leaf)

    def parse(self, response: Any, case: str) -> Iterator[Any]:
        yield from self._given(case)

    async def generate(self, response: Any, case: str) -> AsyncIterator[Any]:
        for each in self._given(case):
            await pause(0.01)
            yield each

    def raise_late(self, response: Any, case: str) -> Iterator[Any]:
        yield from self._given(case)
        raise RuntimeError("in the callback")

    def recover(self, failure: Any) -> Iterator[Any]:
        yield from self._given("errback")

    def leaf(self, response: Any) -> None:
        pass


def too_late() -> list[Any]:
    """Return the faults: for each case the events that came after its request's end, or never."""
    wrong: list[Any] = []
    follow = {"redirect": "target", "swap": "swapped"}
    for case in CASES:
        last = ("over", url_of(follow.get(case, case)))
        overs = [at for at, event in enumerate(EVENTS) if event == last]
        if not overs:
            wrong.append((case, "is never over"))
            continue
        wrong += [
            (case, event)
            for event in EVENTS[overs[-1] :]
            if event in (("item", case), ("add", url_of(f"child-{case}")))
        ]
    for case, new in follow.items():
        if ("add", url_of(new)) not in EVENTS[: EVENTS.index(("over", url_of(case)))]:
            wrong.append((case, "is over before the new request is added"))
    retried = [kind for kind, what in EVENTS if what == url_of("retry")]
    if retried != ["add", "add", "over", "add", "over", "over"]:
        wrong.append(("retry", retried))
    giving = {"sync", "generator", "errback", "late", "media", "redirect", "swap"}
    if scrapy.version_info < (2, 13, 4):  # 2.13.0 drops what an errback gives
        giving.discard("errback")
    for case in giving:
        if EVENTS.count(("item", case)) != 3:
            wrong.append((case, "gave no items"))
    if EVENTS[-1] != ("close", "finished"):
        wrong.append(EVENTS[-1])
    return wrong


def main() -> None:
    settings = {
        "SCHEDULER": Listener,
        "ITEM_PIPELINES": {Pipeline: 1},
        "DOWNLOADER_MIDDLEWARES": {Answers: 1000},
        "RETRY_TIMES": 2,
        "TELNETCONSOLE_ENABLED": False,
        "LOG_ENABLED": False,
        **json.loads(sys.argv[1]),
    }
    kind = "AsyncCrawlerProcess" if settings.get("TWISTED_REACTOR_ENABLED") is False else ""
    process = getattr(crawlers, kind or "CrawlerProcess")(settings)
    process.crawl(Eleven)
    process.start()
    print(json.dumps({"wrong": too_late(), "version": scrapy.__version__}), flush=True)


if __name__ == "__main__":
    main()
