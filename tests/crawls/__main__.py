"""One Scrapy process: ``python -m crawls '{"port": …, "settings": {…}}'``.

It crawls the demo's site, and writes the URL of each page that it parsed to a file. At its end it
prints its stats as one line of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import scrapy
from scrapy import crawler as crawlers
from scrapy import signals
from scrapy.exceptions import CloseSpider, DontCloseSpider
from scrapy.http import Response

GIVEN: dict[str, Any] = json.loads(sys.argv[1])
HOST = "docs.python.example"
START = f"https://{HOST}/3.11/index.html"


def local(url: str) -> str:
    """Return where the test serves a page."""
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    return f"http://127.0.0.1:{GIVEN['port']}{parts.path}{query}"


class Docs(scrapy.Spider):
    """Follows all hyperlinks of the host."""

    name = "docs"

    async def start(self) -> AsyncIterator[Any]:
        for url in GIVEN.get("start", [START]):
            # Deduplicated, or plain Scrapy fetches it twice.
            yield scrapy.Request(local(url), dont_filter=GIVEN.get("unfiltered", False))

    def parse(self, response: Any) -> Iterator[Any]:
        with open(GIVEN["parsed"], "a") as file:
            file.write(urlsplit(response.url).path + "\n")
        if urlsplit(response.url).path == GIVEN.get("poison"):
            os.kill(os.getpid(), signal.SIGKILL)
        if GIVEN.get("enough"):
            raise CloseSpider("enough")
        busy = time.thread_time() + GIVEN.get("busy", 0)
        while time.thread_time() < busy:
            pass
        for href in dict.fromkeys(response.css("a::attr(href)").getall()):
            if urlsplit(href).netloc == HOST:
                yield scrapy.Request(local(href))
        if GIVEN.get("items"):
            yield {"url": response.url}


class AsHost:
    """A downloader middleware: the site is told by the header."""

    def process_request(self, request: Any, spider: Any = None) -> None:
        request.headers["Host"] = HOST


class Meddles:
    """A downloader middleware that retries, redirects or replaces start requests, once each."""

    def __init__(self) -> None:
        self._met: set[str] = set()

    def process_request(self, request: Any, spider: Any = None) -> Any:
        how = GIVEN.get("meddle")
        if how is None or request.url in self._met or not request.meta.get("is_start_request"):
            return None
        self._met.add(request.url)
        if how == "retry":
            return Response(request.url, status=503)
        if how == "redirect":
            # To itself, as a site does that sets a cookie.
            return Response(request.url, status=302, headers={"Location": request.url})
        return request.replace(dont_filter=True)


SETTINGS = {
    "SCHEDULER": "redset.scrapy.Scheduler",
    "DOWNLOADER_MIDDLEWARES": {AsHost: 901, Meddles: 100},
    "TELNETCONSOLE_ENABLED": False,
    "LOG_LEVEL": "INFO",
    "CONCURRENT_REQUESTS": 16,
    "CONCURRENT_REQUESTS_PER_DOMAIN": 16,
}


def crawl_more(crawler: Any) -> None:
    """Let the spider go on when it is idle for the first time: with the first page once more."""
    times: list[Any] = []

    def go_on(**_: Any) -> None:
        times.append(1)
        if len(times) == 1:
            crawler.engine.crawl(scrapy.Request(local(START), dont_filter=True))
            raise DontCloseSpider

    crawler.signals.connect(go_on, signals.spider_idle, weak=False)


def let_die(crawler: Any) -> None:
    """Let the scheduler's thread die at the so manieth page."""
    from redset.scrapy import coordinator

    seen: list[Any] = []

    def count(**_: Any) -> None:
        seen.append(1)
        if len(seen) == GIVEN["dies"]:

            def broken(*args: Any) -> None:
                raise RuntimeError("nobody expected this")

            coordinator.perform = broken

    crawler.signals.connect(count, signals.response_received, weak=False)


def main() -> None:
    settings = {**SETTINGS, **GIVEN["settings"]}
    # Without a reactor Scrapy wants the other class, which older releases lack.
    kind = "AsyncCrawlerProcess" if settings.get("TWISTED_REACTOR_ENABLED") is False else ""
    process = getattr(crawlers, kind or "CrawlerProcess")(settings)
    crawler = process.create_crawler(Docs)
    crawling: Any = process.crawl(crawler)
    if hasattr(crawling, "addErrback"):
        crawling.addErrback(lambda failure: failure.printTraceback(sys.stderr))
    if GIVEN.get("dies"):
        let_die(crawler)
    if GIVEN.get("more"):
        crawl_more(crawler)
    process.start()
    stats = {name: str(value) for name, value in crawler.stats.get_stats().items()}
    stats["cpu"] = str(round(time.process_time(), 2))
    print(json.dumps(stats), flush=True)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
