"""A worker process of the demo: it fetches pages and adds their hyperlinks."""

from __future__ import annotations

import contextlib
import http.client
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import SpawnContext
from typing import Any, NamedTuple
from urllib.parse import urldefrag, urljoin, urlsplit

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from redset import SortedSet
from redset.demo.nodes import open_client

__all__ = (
    "Job", "Shared", "Stop", "Tally", "begun", "fetch", "links", "open_client_of", "open_set",
    "work",
)  # fmt: skip

#: Pages in a lease call, and the time of a lease in seconds. Pages of a killed worker are missing
#: for that time.
BATCH, TTL = 5, 2.0


class Tally(NamedTuple):
    """Tallies of one worker, or of all together."""

    pages: int = 0
    missing: int = 0
    elsewhere: int = 0
    offered: int = 0


class Job(NamedTuple):
    """Settings of a worker: its server or a node of its cluster, its set and its site.

    It rests ``rest`` seconds after each page.
    """

    url: str
    name: str
    host: str
    port: int
    cluster: bool = False
    rest: float = 0.0


class Shared:
    """State that the workers of a crawl share.

    Parameters
    ----------
    context : multiprocessing context
        The context that starts the processes.
    workers : int
        Number of processes.
    """

    def __init__(self, context: SpawnContext, workers: int) -> None:
        self.ready = context.Semaphore(0)
        # No events: an interrupt while one is set, or a worker that is killed while it asks, would
        # leave the lock of the event held.
        self._gate = context.Semaphore(0)
        self._over = context.RawValue("b", 0)
        # Each row has one writer, so that none needs a lock.
        self._rows = [context.RawArray("q", len(Tally._fields)) for _ in range(workers)]

    def begin(self) -> None:
        """Let the workers begin, and the one that takes the place of a killed one."""
        for _ in self._rows:
            self._gate.release()

    def end(self) -> None:
        """Stop the workers, also those that have not begun."""
        self._over.value = 1
        self.begin()

    def may_begin(self, seconds: float) -> bool:
        """Wait for the beginning for so long at most, and return whether it came."""
        return self._gate.acquire(timeout=seconds)

    def is_over(self) -> bool:
        """Return whether the workers should stop."""
        return bool(self._over.value)

    def count(self, worker: int, **more: int) -> None:
        """Add to a worker's tally."""
        row = self._rows[worker]
        for field, number in more.items():
            row[Tally._fields.index(field)] += number

    def total(self) -> Tally:
        """Return the tally of all workers."""
        return Tally(*map(sum, zip(*self._rows, strict=True)))


def open_set(client: Any, name: str) -> SortedSet[Any]:
    """Open the set of pages: each URL once, forever, the lowest depth first."""
    return SortedSet(client, name, key="url", remember=True, scorer="depth")


@contextlib.contextmanager
def begun(
    job: Job, shared: Shared, open_queue: Callable[[Any, str], SortedSet[Any]]
) -> Iterator[tuple[SortedSet[Any], http.client.HTTPConnection, Stop]]:
    """Open the set and the site, and wait until the workers may begin or are stopped."""
    # Ctrl-C goes to all processes of a terminal; the parent acts on it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    site = http.client.HTTPConnection("127.0.0.1", job.port, timeout=30)
    with open_client_of(job) as client:
        queue = open_queue(client, job.name)
        queue.size()
        shared.ready.release()
        stop = Stop(shared)
        while not (shared.may_begin(1.0) or stop.is_set()):
            pass
        yield queue, site, stop
    site.close()


def work(worker: int, job: Job, shared: Shared) -> None:
    """Crawl until nothing is queued or leased, or until the parent stops the crawl."""
    with begun(job, shared, open_set) as (queue, site, stop):
        if stop.is_set():
            return

        def visit(item: Any) -> list[Any]:
            return _visit(worker, job, shared, site, item)

        queue.consume(visit, batch=BATCH, ttl=TTL, until_finished=True, stop=stop)


def open_client_of(job: Job) -> Any:
    """Open a client of a job's server, which waits while that restarts."""
    if job.cluster:
        return open_client(job.url)
    # Wait for a server that restarts, also while it refuses connections: for 1.5 s, and ten times
    # as long during a request, because each of its retries connects with retries.
    errors = (redis.ConnectionError, redis.TimeoutError, OSError)
    retry = Retry(ExponentialBackoff(cap=0.25, base=0.02), 8, errors)
    return redis.Redis.from_url(job.url, retry=retry)


class Stop:
    """An event that is set when the crawl should stop, or when the parent is gone."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._parent = multiprocessing.parent_process()

    def is_set(self) -> bool:
        """Return whether the crawl is over, or the parent process is gone."""
        gone = self._parent is not None and not self._parent.is_alive()
        return gone or self._shared.is_over()


def _visit(
    worker: int, job: Job, shared: Shared, site: http.client.HTTPConnection, item: Any
) -> list[Any]:
    """Fetch a page, and return items for its hyperlinks. They are added as it is acknowledged."""
    url, depth = item["url"], item["depth"]
    if urlsplit(url).netloc != job.host:
        shared.count(worker, elsewhere=1)
        return []
    body = fetch(site, url, worker)
    time.sleep(job.rest)
    if body is None:
        shared.count(worker, missing=1)
        return []
    offers = [{"url": link, "depth": depth + 1} for link in links(body, url)]
    shared.count(worker, pages=1, offered=len(offers))
    return offers


def fetch(site: http.client.HTTPConnection, url: str, worker: int | str = 0) -> bytes | None:
    """Return a page of any host, or None if it is not an HTML page."""
    parts = urlsplit(url)
    target = parts.path or "/"
    if parts.query:
        target += f"?{parts.query}"
    site.request("GET", target, headers={"Host": parts.netloc, "X-Worker": str(worker)})
    response = site.getresponse()
    body = response.read()
    kind = response.headers.get_content_type()
    return body if response.status == 200 and kind == "text/html" else None


def links(body: bytes, base: str) -> Iterator[str]:
    """Yield the URL of each hyperlink of a page, absolute and without fragment, in order.

    Examples
    --------
    >>> list(links(b'<p><a href="b#c">B</a> <a href="mailto:d">D</a>', "https://a.example/"))
    ['https://a.example/b']
    """
    from selectolax.lexbor import LexborHTMLParser

    for node in LexborHTMLParser(body).css("a[href]"):
        url = urldefrag(urljoin(base, node.attributes["href"] or "")).url
        if url.startswith(("http://", "https://")):
            yield url
