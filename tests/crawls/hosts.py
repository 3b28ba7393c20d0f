"""A crawl of many hosts, and the hosts: one server, asked as a proxy, with an access log of each.

``python -m crawls.hosts '{"proxy": "http://127.0.0.1:…", "hosts": 20, "settings": {…}, …}'`` is one
Scrapy process. It begins when a file is there. At its end it prints its stats as one line of JSON.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import scrapy
from scrapy import crawler as crawlers

from redset.scrapy import Scheduler


def host_of(number: int) -> str:
    return f"host{number:02}.example"


class Access(NamedTuple):
    """A line of a host's log: when a request came and was answered, and which process sent it.

    The process had asked the server for the request at ``asked``, by the clock of the machine.
    """

    asked: float
    began: float
    ended: float
    path: str
    agent: str
    status: int


class Hosts:
    """Hosts that log their accesses. Each page names the next one, and the first of another host.

    Args:
        hosts: Number of hosts.
        pages: Number of pages of each.
        pause: Seconds that an answer takes.
    """

    def __init__(self, hosts: int = 20, pages: int = 5, pause: float = 0.05) -> None:
        self.number, self.pages, self.pause = hosts, pages, pause
        self.log: dict[str, list[Access]] = defaultdict(list)
        #: Answers in place of pages, by URL, each once: the status and a Retry-After.
        self.busy: dict[str, tuple[int, str]] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def served(self) -> Iterator[str]:
        """Serve the hosts. Yield the proxy's URL."""
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                began = time.monotonic()
                time.sleep(site.pause)
                status, after, body = site.answer(self.path)
                parts = urlsplit(self.path)
                asked, agent = float(self.headers["X-Asked"]), self.headers["User-Agent"]
                access = Access(asked, began, time.monotonic(), parts.path, agent, status)
                with site._lock:
                    site.log[parts.hostname or ""].append(access)
                with contextlib.suppress(OSError):  # the process was killed
                    self.send_response(status)
                    self.send_header("Content-Type", "text/html")
                    self.send_header("Content-Length", str(len(body)))
                    if after:
                        self.send_header("Retry-After", after)
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # the process was killed

        with Server(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}"
            finally:
                server.shutdown()
                thread.join()

    def answer(self, url: str) -> tuple[int, str, bytes]:
        with self._lock:
            busy = self.busy.pop(url, None)
        if busy is not None:
            return *busy, b""
        parts = urlsplit(url)
        number, page = int((parts.hostname or "")[4:6]), int(parts.path.strip("/"))
        links = [f"http://{host_of((number + 1) % self.number)}/0"]
        if page + 1 < self.pages:
            # The whole host is found at once.
            links += [f"http://{parts.hostname}/{each}" for each in range(self.pages)]
        body = "".join(f'<a href="{link}">x</a>' for link in links)
        return 200, "", f"<html>{body}</html>".encode()

    @property
    def expected(self) -> set[tuple[str, str]]:
        return {
            (host_of(host), f"/{page}") for host in range(self.number) for page in range(self.pages)
        }

    def fetched(self) -> Counter[tuple[str, str]]:
        """Return how often each page was fetched."""
        return Counter(
            (host, each.path) for host, log in self.log.items() for each in log if each.status < 400
        )

    def agents(self) -> Counter[str]:
        """Return the number of accesses of each process."""
        return Counter(each.agent for log in list(self.log.values()) for each in list(log))

    def smallest_gap(self, host: str) -> float:
        """Return the least time between two accesses.

        It is that between two hand-outs at least, less the time that the first one took from its
        process's question to the host.
        """
        log = sorted(self.log[host])
        took = (after.began - before.asked for before, after in itertools.pairwise(log))
        return min(took, default=math.inf)

    def most_at_once(self, host: str) -> int:
        """Return the largest number of accesses at one time."""
        changes = [(each.began, 1) for each in self.log[host]]
        changes += [(each.ended, -1) for each in self.log[host]]
        most = now = 0
        for _, change in sorted(changes):
            now += change
            most = max(most, now)
        return most


class Stamping(Scheduler):
    """The scheduler. Each request has the time at which the server was asked for it."""

    def __init__(self, crawler: Any) -> None:
        super().__init__(crawler)
        self._asked: dict[Any, float] = {}

    def _hand_over(self, jobs: list[Any]) -> None:
        # Before a renewal, which moves the deadline.
        self._asked.update((job, job.deadline - self._options.ttl) for job in jobs)
        super()._hand_over(jobs)

    def next_request(self) -> Any:
        request = super().next_request()
        if request is not None:
            request.headers["X-Asked"] = repr(self._asked.pop(self._held[request]))
        return request


class ManyHosts(scrapy.Spider):
    """Follows all hyperlinks from the first host."""

    name = "hosts"

    async def start(self) -> AsyncIterator[Any]:
        for number in range(GIVEN["hosts"]):
            yield scrapy.Request(f"http://{host_of(number)}/0")

    def parse(self, response: Any) -> Iterator[Any]:
        for link in response.css("a::attr(href)").getall():
            yield scrapy.Request(link)


GIVEN: dict[str, Any] = {}

SETTINGS = {
    "SCHEDULER": Stamping,
    "TELNETCONSOLE_ENABLED": False,
    "LOG_LEVEL": "INFO",
    "CONCURRENT_REQUESTS": 16,
}


def main() -> None:
    GIVEN.update(json.loads(sys.argv[1]))
    os.environ["http_proxy"] = GIVEN["proxy"]
    agent = {"USER_AGENT": f"process {os.getpid()}"}
    process = crawlers.CrawlerProcess({**SETTINGS, **agent, **GIVEN["settings"]})
    crawler = process.create_crawler(ManyHosts)
    process.crawl(crawler)
    # All processes begin together: one may need a second to be here, another five.
    print("ready", flush=True)
    while not os.path.exists(GIVEN["begin"]):
        time.sleep(0.01)
    process.start()
    stats = {name: str(value) for name, value in crawler.stats.get_stats().items()}
    print(json.dumps(stats), flush=True)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
