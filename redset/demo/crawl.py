"""A crawl from the outside: workers, progress, figures, and the check at the end."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple

import redis
import redis.cluster

from redset import SortedSet
from redset.demo.site import Site
from redset.demo.worker import Job, Shared, Tally, open_set, work

__all__ = ("CrawlFailed", "Crew", "Faults", "Report", "Strike", "check", "crawl")

_REFRESH = 0.1  # seconds between two looks at the workers
_GRACE = 5.0  # seconds for workers to finish the page they are at


class CrawlFailed(Exception):
    """A worker process ended too early, or the keys of the set could not be removed."""


class Report(NamedTuple):
    """A crawl in figures.

    ``seconds`` begins when all workers are up. ``memory_bytes`` is the size of the set's keys at
    the end, when nothing is queued: the price of the memory. It is None if the user may not ask.
    ``killed`` is the number of the killed worker, ``struck`` names the faults of the server.
    ``twice`` are the pages that were fetched twice for that, ``problems`` the result of `check`.
    """

    tally: Tally
    workers: int
    seconds: float
    remembered: int
    memory_bytes: int | None
    killed: int | None
    struck: list[str]
    twice: list[str]
    problems: list[str]


class Strike(NamedTuple):
    """A fault of the server: the share of pages before it, its name, and a function."""

    after: float
    name: str
    strike: Callable[[], None]


class Faults(NamedTuple):
    """Faults of a crawl.

    ``kill`` kills a worker. ``strikes`` are those of the server, in order. If one ``undoes`` steps,
    pages may be fetched twice for that.
    """

    kill: bool
    strikes: Sequence[Strike] = ()
    undoes: bool = False


def crawl(
    client: Any,
    url: str,
    name: str,
    site: Site,
    workers: int,
    faults: Faults,
    show: Callable[[Tally], None],
    rest: float = 0.0,
) -> Report:
    """Crawl a site with so many worker processes, and return a report.

    It removes its keys from the server, also if it fails.

    Parameters
    ----------
    client : redis.Redis or redis.cluster.RedisCluster
        The server, for this process.
    url : str
        The same server, for the workers; a node's URL if the client is a cluster's.
    name : str
        An unused name for the set.
    site : Site
        The site to crawl. It must be new: no page of it was requested.
    workers : int
        Number of processes.
    faults : Faults
        Faults to inject: a worker is killed after a third of the pages, and another one takes its
        place. The faults of the server strike after their share of the pages.
    show : callable
        Called with the `Tally` of all workers, about ten times a second.
    rest : float
        Time that a worker rests after each page, in seconds.

    Raises
    ------
    CrawlFailed
        If one of the processes ended early (its error is on the standard error), or the server
        did not reply at the end.
    """
    queue = open_set(client, name)
    killed: int | None = None
    strikes, struck = list(faults.strikes), []
    try:
        with site.served() as port:
            on_cluster = isinstance(client, redis.cluster.RedisCluster)
            crew = Crew(Job(url, name, site.host, port, on_cluster, rest), workers)
            with crew.working():
                queue.add({"url": site.start, "depth": 0})
                began = time.perf_counter()
                crew.shared.begin()
                while crew.wait():
                    tally = crew.shared.total()
                    if faults.kill and killed is None and 3 * tally.pages > len(site.links):
                        killed = crew.kill_one()
                    if strikes and tally.pages > strikes[0].after * len(site.links):
                        struck.append(strikes[0].name)
                        strikes.pop(0).strike()
                    show(tally)
                seconds = time.perf_counter() - began
                tally = crew.shared.total()
        remembered, memory_bytes = _memory(client, queue)
        twice, problems = check(site, tally, killed, faults.undoes)
        if not queue.finished() or queue.dead.size():
            problems.append("pages are left in the set")
        if remembered not in (0, site.mentioned()):
            problems.append(f"{remembered:,} URLs are known, {site.mentioned():,} are mentioned")
        return Report(
            tally, workers, seconds, remembered, memory_bytes, killed, struck, twice, problems
        )
    finally:
        try:
            queue.clear()
        except redis.RedisError as error:
            raise CrawlFailed(
                f"{error}; keys that begin with {name} may be left on the server"
            ) from error


class Crew:
    """The worker processes of a crawl, which run a function."""

    def __init__(
        self, job: Job, workers: int, target: Callable[[int, Job, Shared], None] = work
    ) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._job = job
        self._target = target
        self._workers = workers
        # One more, for the worker that takes the place of the killed one.
        self.shared = Shared(self._context, workers + 1)
        self._processes: list[SpawnProcess] = []
        self._killed: SpawnProcess | None = None

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Start them, and end them."""
        try:
            for _ in range(self._workers):
                self._start()
            for _ in range(self._workers):
                while not self.shared.ready.acquire(timeout=_REFRESH):
                    self._all_well()
            yield
        finally:
            # They must end before the set is cleared: a running worker would fill it again.
            self.shared.end()
            until = time.monotonic() + _GRACE
            for process in self._processes:
                process.join(max(0.0, until - time.monotonic()))
            for process in self._processes:
                process.kill()
                process.join()

    def _start(self) -> None:
        number = len(self._processes)
        process = self._context.Process(
            target=self._target,
            args=(number, self._job, self.shared),
            name=f"worker {number + 1}",
            daemon=True,
        )
        process.start()
        self._processes.append(process)

    def wait(self) -> bool:
        """Wait for a moment, and return whether a worker is running."""
        running = [process for process in self._processes if process.is_alive()]
        wait([process.sentinel for process in running], _REFRESH if len(running) > 1 else 0.02)
        self._all_well()
        return bool(running)

    def kill_one(self) -> int:
        """Kill the first worker, start another one in its place, and return the first's number."""
        self._killed = self._processes[0]
        self._killed.kill()
        self._start()
        return 0

    def _all_well(self) -> None:
        for process in self._processes:
            if process.exitcode and process is not self._killed:
                raise CrawlFailed(f"{process.name} ended with status {process.exitcode}")


def _memory(client: Any, queue: SortedSet[Any]) -> tuple[int, int | None]:
    """Return the number of remembered URLs, and the size of the set's keys in bytes."""
    try:
        keys = list(client.scan_iter(match=f"{queue.name!s}*", count=1000))
        size = sum(client.memory_usage(key, samples=0) or 0 for key in keys)
        return queue.stats().remembered, size
    except redis.ResponseError:
        return 0, None  # not every user may ask


def check(
    site: Site, tally: Tally, killed: int | None, undone: bool = False
) -> tuple[list[str], list[str]]:
    """Return the pages that were fetched twice as they may be, and the problems of a crawl.

    Each page must have been fetched once, or twice if the killed worker held it, or if steps of the
    server were undone. No other URL may have been fetched twice. Each hyperlink of each page must
    have been offered.
    """
    twice, problems = [], []
    for page in site.links:
        times = site.requests[page]
        if times == 2 and (undone or site.workers[page][0] == str(killed)):
            twice.append(page)
        elif times != 1:
            problems.append(f"{page} was fetched {times} times")
    for url, times in site.requests.items():
        may = 2 if undone or site.workers[url][0] == str(killed) else 1
        if times > may and url not in site.links:
            problems.append(f"{url} (not a page of the site) was requested {times} times")
    mentions = site.mentions()
    again = sum(len(site.links[page]) for page in twice)
    if not mentions <= tally.offered <= mentions + again:
        problems.append(f"{tally.offered:,} links were offered, the site has {mentions:,}")
    return twice, problems
