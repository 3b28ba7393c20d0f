"""``python -m redset.demo.scrapy``: two Scrapy processes crawl one site, and one of them is killed.

The summary compares the pages with those of plain Scrapy, which crawls the same site alone.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from redset import embedded
from redset.demo.site import Site

#: Seconds until the requests of the killed process come back, and for the whole crawl.
TTL, LIMIT = 3, 600
_REFRESH = 0.2

#: A crawl process: it writes the path of each page that it parsed to a file.
_PROCESS = """
import json, sys
from urllib.parse import urlsplit
import scrapy
from scrapy.crawler import CrawlerProcess

given = json.loads(sys.argv[1])

def local(url):
    parts = urlsplit(url)
    return f"http://127.0.0.1:{given['port']}{parts.path}?{parts.query}".rstrip("?")

class AsHost:
    def process_request(self, request, spider=None):
        request.headers["Host"] = given["host"]

class Docs(scrapy.Spider):
    name = "docs"

    async def start(self):
        # Deduplicated: plain Scrapy would fetch the first page twice.
        yield scrapy.Request(local(given["start"]))

    def parse(self, response):
        with open(given["parsed"], "a") as file:
            file.write(urlsplit(response.url).path + "\\n")
        for href in dict.fromkeys(response.css("a::attr(href)").getall()):
            if urlsplit(href).netloc == given["host"]:
                yield scrapy.Request(local(href))

process = CrawlerProcess({
    "DOWNLOADER_MIDDLEWARES": {AsHost: 901}, "TELNETCONSOLE_ENABLED": False,
    "LOG_LEVEL": "ERROR", **given["settings"],
})
process.crawl(Docs)
process.start()
"""


class Crawl(NamedTuple):
    """One crawl: its processes, and the file of the pages that they parsed."""

    processes: list[subprocess.Popen[bytes]]
    parsed: Path

    def pages(self) -> Counter[str]:
        """Count how often each page was parsed."""
        return Counter(self.parsed.read_text().split())

    def is_running(self) -> bool:
        return any(process.poll() is None for process in self.processes)


@contextlib.contextmanager
def crawling(
    site: Site, port: int, directory: Path, settings: dict[str, Any], processes: int
) -> Iterator[Crawl]:
    """Start crawl processes, and kill those that are left at the end."""
    parsed = directory / f"parsed-{processes}"
    parsed.touch()
    given = {
        "port": port,
        "host": site.host,
        "start": site.start,
        "parsed": str(parsed),
        "settings": settings,
    }
    command = [sys.executable, "-W", "ignore", "-c", _PROCESS, json.dumps(given)]
    started = [subprocess.Popen(command) for _ in range(processes)]
    try:
        yield Crawl(started, parsed)
    finally:
        for process in started:
            process.kill()
            process.wait()


def follow(crawl: Crawl, pages: int, name: str, kill_at: int | None = None) -> None:
    """Show the progress of a crawl until it ends; kill its first process at so many pages."""
    until = time.monotonic() + LIMIT
    while crawl.is_running() and time.monotonic() < until:
        seen = len(crawl.pages())
        if kill_at is not None and seen >= kill_at:
            crawl.processes[0].kill()
            print(f"\r{name}: {seen} of {pages} pages; killed process 1 with SIGKILL", flush=True)
            kill_at = None
        print(f"\r{name}: {seen} of {pages} pages", end="", flush=True)
        time.sleep(_REFRESH)
    print(f"\r{name}: {len(crawl.pages())} of {pages} pages")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 if no page is missing, 1 if one is, 2 if it cannot run."""
    parser = argparse.ArgumentParser(prog="python -m redset.demo.scrapy", description=__doc__)
    parser.add_argument("--pages", type=int, default=0, help="only the first so many pages")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("scrapy") is None:
        print("The demo cannot run: pip install 'redset[scrapy,embedded]'", file=sys.stderr)
        return 2
    site = Site.of_python_docs()
    if options.pages:
        site = site.first(options.pages)
    number = len(site.links)
    with contextlib.ExitStack() as stack:
        try:
            client = stack.enter_context(embedded.server())
        except RuntimeError as error:
            print(f"The demo cannot run: {error}", file=sys.stderr)
            return 2
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(site.served())
        with crawling(site, port, directory, {}, 1) as plain:
            follow(plain, number, "plain Scrapy, one process")
            expected = plain.pages()
        settings = {
            "SCHEDULER": "redset.scrapy.Scheduler",
            "REDSET_URL": f"unix://{quote(client.get_connection_kwargs()['path'])}",
            "REDSET_LEASE_TTL": TTL,
        }
        with crawling(site, port, directory, settings, 2) as shared:
            follow(shared, number, "redset, two processes", number // 2)
            found = shared.pages()
    missing = sorted(set(expected) - set(found))
    twice = sum(times > 1 for times in found.values())
    print(f"{len(found)} pages, as plain Scrapy has {len(expected)}: {len(missing)} missing.")
    print(f"{twice} were parsed twice: those that the killed process had.")
    if missing or not expected:
        print("Missing:", *missing[:10], sep="\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
