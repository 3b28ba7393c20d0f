"""What each worker process does: pop a page, fetch it, offer all of its links."""

from __future__ import annotations

import http.client
import multiprocessing
import signal
import time
from collections.abc import Iterator
from multiprocessing.context import SpawnContext
from typing import Any, NamedTuple
from urllib.parse import urldefrag, urljoin, urlsplit

import redis

from redset import SortedSet

__all__ = ("Job", "Shared", "Tally", "fetch", "links", "open_set", "work")

_IDLE = 0.005  # seconds until an empty queue is asked again


class Tally(NamedTuple):
    """What workers have done: one of them, or all together."""

    pages: int = 0
    missing: int = 0
    elsewhere: int = 0
    offered: int = 0
    added: int = 0
    updated: int = 0
    refused: int = 0
    adding_ns: int = 0


class Job(NamedTuple):
    """What a worker is told: its server, its set, and its site."""

    url: str
    name: str
    host: str
    port: int


class Shared:
    """What the workers of a crawl have in common.

    Parameters
    ----------
    context : multiprocessing context
        What makes the processes.
    workers : int
        How many of them there will be.
    """

    def __init__(self, context: SpawnContext, workers: int) -> None:
        self.ready = context.Semaphore(0)
        self.begin = context.Event()
        self.stop = context.Event()
        #: How many workers are between asking for a page and having offered its links.
        self.in_work = context.Value("i", 0)
        # Each row has one writer, so that none needs a lock.
        self._rows = [context.RawArray("q", len(Tally._fields)) for _ in range(workers)]

    def count(self, worker: int, **more: int) -> None:
        """Add to what a worker has done."""
        row = self._rows[worker]
        for field, number in more.items():
            row[Tally._fields.index(field)] += number

    def total(self) -> Tally:
        """Return what all workers have done up to now."""
        return Tally(*map(sum, zip(*self._rows, strict=True)))


def open_set(client: Any, name: str) -> SortedSet[Any]:
    """Open the set of pages: one item a URL, for ever, those nearest to the start first."""
    return SortedSet(client, name, key="url", remember=True, scorer="depth")


def work(worker: int, job: Job, shared: Shared) -> None:
    """Crawl until no page is queued and none is in work, or until told to stop."""
    # Ctrl-C goes to all processes of a terminal; the parent says what to do about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    site = http.client.HTTPConnection("127.0.0.1", job.port, timeout=30)
    with redis.Redis.from_url(job.url) as client:
        queue = open_set(client, job.name)
        queue.size()
        shared.ready.release()
        shared.begin.wait()
        while not shared.stop.is_set() and not _step(worker, job, shared, queue, site):
            pass
    site.close()


def _step(
    worker: int,
    job: Job,
    shared: Shared,
    queue: SortedSet[Any],
    site: http.client.HTTPConnection,
) -> bool:
    """Do one page; whether the crawl is finished."""
    with shared.in_work.get_lock():
        shared.in_work.value += 1
    try:
        item = queue.pop()
    except KeyError:
        item = None
    else:
        _visit(worker, job, shared, queue, site, item)
    with shared.in_work.get_lock():
        shared.in_work.value -= 1
        # While the lock is held nobody can begin; if nobody is in work either, nothing
        # changes the set, and its size is the last word.
        if item is None and not shared.in_work.value and not queue.size():
            return True
    if item is None:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            return True
        time.sleep(_IDLE)
    return False


def _visit(
    worker: int,
    job: Job,
    shared: Shared,
    queue: SortedSet[Any],
    site: http.client.HTTPConnection,
    item: Any,
) -> None:
    url, depth = item["url"], item["depth"]
    if urlsplit(url).netloc != job.host:
        shared.count(worker, elsewhere=1)
        return
    body = fetch(site, url)
    if body is None:
        shared.count(worker, missing=1)
        return
    offers = [{"url": link, "depth": depth + 1} for link in links(body, url)]
    began = time.perf_counter_ns()
    result = queue.add_many(offers)
    took = time.perf_counter_ns() - began
    shared.count(
        worker,
        pages=1,
        offered=len(offers),
        added=result.added,
        updated=result.updated,
        refused=result.refused,
        adding_ns=took,
    )


def fetch(site: http.client.HTTPConnection, url: str) -> bytes | None:
    """Get a page over the connection, whatever its host; None where it is no HTML page."""
    parts = urlsplit(url)
    target = parts.path or "/"
    if parts.query:
        target += f"?{parts.query}"
    site.request("GET", target, headers={"Host": parts.netloc})
    response = site.getresponse()
    body = response.read()
    kind = response.headers.get_content_type()
    return body if response.status == 200 and kind == "text/html" else None


def links(body: bytes, base: str) -> Iterator[str]:
    """Give the URL of each link of a page, absolute and without fragment, in order.

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
