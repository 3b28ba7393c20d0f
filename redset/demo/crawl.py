"""The crawl from the outside: workers, progress, figures, and the check at the end."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple

import redis

from redset import SortedSet
from redset.demo.site import Site
from redset.demo.worker import Job, Shared, Tally, open_set, work

__all__ = ("CrawlFailed", "Report", "check", "crawl")

_REFRESH = 0.1  # seconds between two looks at the workers
_GRACE = 5.0  # seconds for workers to finish the page they are at


class CrawlFailed(Exception):
    """A worker process ended before the crawl did, or what it left could not be removed."""


class Report(NamedTuple):
    """A crawl in figures.

    ``seconds`` begins when all workers are up. ``memory_bytes`` is what the server says of the
    set's keys at the end, when nothing is queued: what remembering costs; None where it does not
    say. ``problems`` is what `check` found.
    """

    tally: Tally
    workers: int
    seconds: float
    remembered: int
    memory_bytes: int | None
    problems: list[str]


def crawl(
    client: Any, url: str, name: str, site: Site, workers: int, show: Callable[[Tally], None]
) -> Report:
    """Crawl a site with so many worker processes, and say how it went.

    Leaves nothing on the server, however it ends.

    Parameters
    ----------
    client : redis.Redis
        The server, for this process.
    url : str
        The same server, for the workers.
    name : str
        A name that is free on the server.
    site : Site
        What to crawl; it must not have been asked for anything.
    workers : int
        How many processes.
    show : callable
        Is called with the `Tally` of all workers, about ten times a second.

    Raises
    ------
    CrawlFailed
        If one of the processes ended early (what it said is on the standard error), or the
        server did not answer at the end.
    """
    queue = open_set(client, name)
    try:
        with site.served() as port:
            job = Job(url, name, site.host, port)
            with _processes(job, workers) as (shared, processes):
                for _ in processes:
                    while not shared.ready.acquire(timeout=_REFRESH):
                        _all_well(processes)
                queue.add({"url": site.start, "depth": 0})
                began = time.perf_counter()
                shared.begin.set()
                while running := [process for process in processes if process.is_alive()]:
                    wait([process.sentinel for process in running], _REFRESH)
                    _all_well(processes)
                    show(shared.total())
                seconds = time.perf_counter() - began
                _all_well(processes)
                tally = shared.total()
        remembered, memory_bytes = _memory(client, queue)
        return Report(tally, workers, seconds, remembered, memory_bytes, check(site, tally))
    finally:
        try:
            queue.clear()
        except redis.RedisError as error:
            raise CrawlFailed(
                f"{error}; keys that begin with {name} may be left on the server"
            ) from error


@contextlib.contextmanager
def _processes(job: Job, workers: int) -> Iterator[tuple[Shared, list[SpawnProcess]]]:
    context = multiprocessing.get_context("spawn")
    shared = Shared(context, workers)
    processes: list[SpawnProcess] = []
    try:
        for worker in range(workers):
            process = context.Process(
                target=work, args=(worker, job, shared), name=f"worker {worker + 1}", daemon=True
            )
            process.start()
            processes.append(process)
        yield shared, processes
    finally:
        # They must be gone before the set is cleared: one that goes on would fill it again.
        shared.stop.set()
        shared.begin.set()
        until = time.monotonic() + _GRACE
        for process in processes:
            process.join(max(0.0, until - time.monotonic()))
        for process in processes:
            process.kill()
            process.join()


def _all_well(processes: list[SpawnProcess]) -> None:
    for process in processes:
        if process.exitcode:
            raise CrawlFailed(f"{process.name} ended with status {process.exitcode}")


def _memory(client: Any, queue: SortedSet[Any]) -> tuple[int, int | None]:
    """Ask the server how many URLs are remembered, and what the set's keys take, in bytes."""
    try:
        keys = list(client.scan_iter(match=f"{queue.name!s}*", count=1000))
        taken = sum(client.memory_usage(key, samples=0) or 0 for key in keys)
        return queue.stats().remembered, taken
    except redis.ResponseError:
        return 0, None  # not every user may ask


def check(site: Site, tally: Tally) -> list[str]:
    """Say what is wrong about a crawl: nothing, if each page was fetched exactly once.

    Nothing else may have been fetched twice either, each link of each page must have been
    offered, and each offer must have been answered.
    """
    problems = []
    for page in site.links:
        times = site.requests[page]
        if times != 1:
            problems.append(f"{page} was fetched {times} times")
    for url, times in site.requests.items():
        if times > 1 and url not in site.links:
            problems.append(f"{url} (no page of the site) was asked for {times} times")
    if tally.offered != site.mentions():
        problems.append(f"{tally.offered:,} links were offered, {site.mentions():,} are there")
    answered = tally.added + tally.updated + tally.refused
    if tally.offered != answered:
        problems.append(f"{tally.offered:,} links were offered, {answered:,} were answered for")
    return problems
