"""redset, from the tree. ``REDSET_NO_EXTENSIONS=1`` makes it the fallback."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import resource
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import data
import redis
import redis.cluster
from job import Job, Run, batches
from starts import WORK, Starts

import redset
from redset import SortedSet, _wire
from redset._operations import adding
from redset._operations.limits import WINDOW
from redset._transport.pools import get_connection
from redset.serializers import JSONSerializer

TAKE = 1000

if redset.IMPLEMENTATION != "cython" and os.environ.get("REDSET_NO_EXTENSIONS", "") in ("", "0"):
    raise ImportError("redset's compiled core is not built")


class _Own(redis.cluster.RedisCluster):
    """A cluster client that redset must not go past: it has a method of its own."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        return super().execute_command(*args, **options)


_CLIENTS: dict[str, Any] = {"cluster": redis.cluster.RedisCluster, "cluster, generic": _Own}


def _set(job: Job, **options: Any) -> SortedSet[Any]:
    client = _CLIENTS.get(job.variant, redis.Redis)(**job.address)
    return SortedSet(client, job.name, serializer=JSONSerializer(), **options)


# --- the sync face


def add_many(job: Job) -> Run:
    jobs, items, scores = _set(job), job.items(), job.scores()
    if job.chunk:
        adding.CHUNK = job.chunk  # type: ignore[misc]  # for the plot only: it is no option

    def run() -> int:
        return jobs.add_many(items, score=scores).added

    return run


def add_few(job: Job) -> Run:
    """One call for each ``chunk`` of the items."""
    jobs = _set(job)
    parts = list(
        zip(batches(job.items(), job.chunk), batches(job.scores(), job.chunk), strict=True)
    )

    def run() -> int:
        return sum(jobs.add_many(some, score=theirs).added for some, theirs in parts)

    return run


def add(job: Job, **options: Any) -> Run:
    jobs, pairs = _set(job, **options), list(zip(job.items(), job.scores(), strict=True))

    def run() -> int:
        for item, score in pairs:
            jobs.add(item, score)
        return len(pairs)

    return run


def pop(job: Job) -> Run:
    jobs = _set(job)

    def run() -> int:
        for _ in range(job.size):
            jobs.pop()
        return job.size

    return run


def take(job: Job) -> Run:
    jobs, num = _set(job), job.chunk or TAKE

    def run() -> int:
        number = 0
        while some := jobs.take(num):
            number += len(some)
        return number

    return run


def peek(job: Job) -> Run:
    jobs = _set(job)

    def run() -> int:
        for _ in range(job.size):
            jobs.peek()
        return job.size

    return run


def discard(job: Job) -> Run:
    jobs, items = _set(job), job.items()

    def run() -> int:
        for item in items:
            jobs.discard(item)
        return len(items)

    return run


def add_absent(job: Job) -> Run:
    jobs, pairs = _set(job), list(zip(job.items(), job.scores(), strict=True))

    def run() -> int:
        for item, score in pairs:
            jobs.add(item, score, nx=True)
        return len(pairs)

    return run


def add_keyed(job: Job) -> Run:
    return add(job, key="url", remember=True)


def score(job: Job) -> Run:
    jobs, items = _set(job), job.items()
    return lambda: sum(jobs.score(item) is not None for item in items)


def contains(job: Job) -> Run:
    jobs, items = _set(job), job.items()
    return lambda: sum(item in jobs for item in items)


def short_lived(job: Job) -> Run:
    client = redis.Redis(**job.address)
    pairs = list(zip(job.items(), job.scores(), strict=True))

    def run() -> int:
        for item, theirs in pairs:
            SortedSet(client, job.name, serializer=JSONSerializer()).add(item, theirs)
        return len(pairs)

    return run


def discard_many(job: Job) -> Run:
    jobs, parts = _set(job), list(batches(job.items(), job.chunk))
    return lambda: sum(map(jobs.discard_many, parts))


def scores(job: Job) -> Run:
    jobs, parts = _set(job), list(batches(job.items(), job.chunk))
    return lambda: sum(len(jobs.scores(part)) for part in parts)


def iterate(job: Job) -> Run:
    jobs = _set(job)
    return lambda: sum(1 for _ in jobs)


def union(job: Job) -> Run:
    jobs, (name, items) = _set(job), job.others()
    others = _set(job._replace(name=name))
    others.add_many(items, score=job.scores())

    def run() -> int:
        before = jobs.size()
        jobs.update(others)
        return jobs.size() - before

    return run


def lease(job: Job) -> Run:
    jobs = _set(job)
    return lambda: _leased(jobs, job.chunk)


def _leased(jobs: SortedSet[Any], num: int) -> int:
    """Lease a batch, go through it, and so acknowledge it on leaving, until there is none."""
    number = 0
    while batch := jobs.lease(num):
        with batch:
            number += sum(1 for _ in batch)
    return number


def whole(job: Job) -> Run:
    """Whole jobs: all are added in batches, then all handed out and acknowledged."""
    jobs, items, scores = _set(job), job.items(), job.scores()
    put = add(job)

    def run() -> int:
        if job.chunk == 1:
            put()
        else:
            pairs = zip(batches(items, job.chunk), batches(scores, job.chunk), strict=True)
            for some, theirs in pairs:
                jobs.add_many(some, score=theirs)
        return _leased(jobs, job.chunk)

    return run


def popped(job: Job) -> Run:
    """Whole jobs, one by one, at most once."""
    put, hand_out = add(job), pop(job)

    def run() -> int:
        put()
        return hand_out()

    return run


def links(job: Job) -> Run:
    """The bulk path as a crawler uses it, one call for each page."""
    return _links(job, "url")


def links_callable(job: Job) -> Run:
    return _links(job, lambda item: item["url"])


def links_tied(job: Job) -> Run:
    return _links(job, "url", ties="fifo")


def queued_again(job: Job) -> Run:
    """Adds all items so many times, at one of three scores; ``variant`` is the option ties."""
    jobs, items = _set(job, ties=job.variant or None), job.items()
    scores = [at % 3 for at in range(len(items))]

    def run() -> int:
        return sum(jobs.add_many(items, score=scores).added for _ in range(job.chunk))

    return run


def links_written(job: Job) -> Run:
    """The links of a page handed to a writer."""
    pages, client = job.linked_pages(), redis.Redis(**job.address)

    def run() -> int:
        jobs: SortedSet[Any] = SortedSet(
            client,
            job.name,
            scorer="depth",
            key="url",
            remember=True,
            serializer=JSONSerializer(),
        )
        with jobs.buffered() as writer:
            for page in pages:
                writer.add_many(page)
        return jobs.size()

    return run


def written(job: Job) -> Run:
    """Items that come one by one, written in the background."""
    jobs, pairs = _set(job), list(zip(job.items(), job.scores(), strict=True))

    def run() -> int:
        with jobs.buffered() as writer:
            for item, score in pairs:
                writer.add(item, score)
        return len(pairs)

    return run


def written_in_bulk(job: Job) -> Run:
    """Items that come some at a time, written in the background."""
    jobs, items, scores = _set(job), job.items(), job.scores()

    def run() -> int:
        pairs = zip(batches(items, job.chunk), batches(scores, job.chunk), strict=True)
        with jobs.buffered() as writer:
            for some, theirs in pairs:
                writer.add_many(some, theirs)
        return len(items)

    return run


def consume(job: Job) -> Run:
    """The worker loop over all that is queued; ``chunk`` is its batch, if not 0."""
    jobs = _set(job)

    def handle(item: Any) -> None:
        pass

    return lambda: jobs.consume(handle, batch=job.chunk or None, until_finished=True).done


def links_unaided(job: Job) -> Run:
    return _links(job, "url", known_max=0)


def _links(job: Job, key: Any, **options: Any) -> Run:
    pages = job.linked_pages()
    client = redis.Redis(**job.address)

    def run() -> int:
        # A new object for each round: it has to ask the server for the state of the set again.
        jobs: SortedSet[Any] = SortedSet(
            client,
            job.name,
            scorer="depth",
            key=key,
            remember=True,
            serializer=JSONSerializer(),
            **options,
        )
        return sum(jobs.add_many(page).added for page in pages)

    return run


def known_stream(job: Job) -> Run:
    """Add URLs that the server reported as known, for two seconds or longer."""
    urls = [data.url(number) for number in range(job.size)]
    client, watcher = redis.Redis(**job.address), redis.Redis(**job.address)

    def requests() -> int:
        said = watcher.info("commandstats")
        return sum(
            said.get(f"cmdstat_{each}", {}).get("calls", 0)
            for each in ("evalsha", "script|load", "script", "hget", "zadd")
        )

    def run() -> tuple[int, dict[str, float]]:
        jobs: SortedSet[str] = SortedSet(client, job.name, remember=True)
        added = jobs.add_many(urls).added
        jobs.add_many(urls)  # chunks that were sent before the first check are learned here
        before, began, used, refused = requests(), time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - began < 2:
            refused += jobs.add_many(urls).refused
        cpu, wall = time.process_time() - used, time.perf_counter() - began
        return added, {"rate": refused / cpu, "requests": (requests() - before) / wall}

    return run


def generated(job: Job) -> Run:
    """Add the items of a generator; return the growth of the process, in MB."""
    jobs = _set(job)

    def run() -> tuple[int, dict[str, float]]:
        before = _rss()
        made = data.items(job.first, job.first + job.size)
        number = jobs.add_many(made, score=_rising(job.size)).added
        return number, {"growth": (_peak_rss() - before) / 1e6}

    return run


def _rising(number: int) -> Iterator[int]:
    for each in range(number):
        yield each * 7919 % 1_000_003


def _rss() -> int:
    """Return the resident bytes; the peak starts again from there, if the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return _max_rss()
    return pages * resource.getpagesize()


def _peak_rss() -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return _max_rss()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _max_rss() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# --- the asyncio face


def asyncio_add_many(job: Job) -> Run:
    items, scores = job.items(), job.scores()

    async def work(jobs: Any) -> int:
        added: int = (await jobs.add_many(items, score=scores)).added
        return added

    return _on_a_loop(job, work)


def asyncio_consume(job: Job) -> Run:
    async def handle(item: Any) -> None:
        pass

    async def work(jobs: Any) -> int:
        done: int = (await jobs.consume(handle, until_finished=True)).done
        return done

    return _on_a_loop(job, work)


def asyncio_take_all(job: Job) -> Run:
    taken: list[Any] = []

    async def work(jobs: Any) -> int:
        # Kept: to let so many objects go would hold the loop for longer than their decoding did.
        taken.append(await jobs.take(job.size))
        return len(taken[-1])

    return _on_a_loop(job, work)


def polite(job: Job) -> Run:
    """Work on the jobs of hosts: one set with groups, one process."""
    from redis.asyncio import Redis

    import redset.asyncio

    loop, starts = asyncio.new_event_loop(), Starts()

    async def made() -> Any:
        jobs: Any = redset.asyncio.SortedSet(
            Redis(**job.address),
            job.name,
            serializer=JSONSerializer(),
            group="host",
            group_limit=1,
            group_interval=job.interval,
        )
        await jobs.add_many([item for host in range(job.hosts) for item in job.of_host(host)])
        return jobs

    async def handle(item: Any) -> None:
        starts.note(item["host"])
        await asyncio.sleep(WORK)

    jobs = loop.run_until_complete(made())

    async def work() -> tuple[int, dict[str, float]]:
        await jobs.consume(handle, concurrency=job.hosts, until_finished=True)
        return starts.samples()

    return lambda: loop.run_until_complete(work())


def _on_a_loop(job: Job, work: Callable[[Any], Awaitable[int]]) -> Run:
    from redis.asyncio import Redis

    import redset.asyncio

    loop = asyncio.new_event_loop()

    async def made() -> Any:
        return redset.asyncio.SortedSet(Redis(**job.address), job.name, serializer=JSONSerializer())

    jobs = loop.run_until_complete(made())
    if job.variant == "watched":
        return lambda: _watched(loop, work(jobs))
    return lambda: loop.run_until_complete(work(jobs))  # type: ignore[arg-type]


def _watched(loop: Any, work: Any) -> tuple[int, dict[str, float]]:
    """Run on a loop that times each callback: the longest time without another task.

    The CPU of the callback is less than its wall if the system ran another process.
    """
    longest = {"hold": 0.0, "hold_cpu": 0.0}
    plain = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        began, used = time.perf_counter(), time.thread_time()
        plain(handle)
        longest["hold_cpu"] = max(longest["hold_cpu"], (time.thread_time() - used) * 1e3)
        longest["hold"] = max(longest["hold"], (time.perf_counter() - began) * 1e3)

    # The collector walks over all that the caller keeps, 100,000 items here, whenever it likes to:
    # 5 to 10 ms that belong to no call.
    gc.disable()
    asyncio.Handle._run = timed  # type: ignore[method-assign]
    try:
        return loop.run_until_complete(work), longest
    finally:
        asyncio.Handle._run = plain  # type: ignore[method-assign]
        gc.enable()


# --- digests


def digests(job: Job) -> Run:
    urls = _urls(job)
    return lambda: len(_wire.DEFAULT.digests(urls))


def hashlib_digests(job: Job) -> Run:
    urls = _urls(job)
    blake2b = hashlib.blake2b
    return lambda: len([blake2b(each, digest_size=16).digest() for each in urls])


def _urls(job: Job) -> list[bytes]:
    return [data.url(number).encode() for number in range(job.size)]


# --- parts of the above, for the profile of a goal that is missed


def part_dumps(job: Job) -> Run:
    items, dumps = job.items(), JSONSerializer().dumps

    def run() -> int:
        for item in items:
            dumps(item)
        return len(items)

    return run


def part_loads(job: Job) -> Run:
    raws, loads = list(map(JSONSerializer().dumps, job.items())), JSONSerializer().loads

    def run() -> int:
        for raw in raws:
            loads(raw)
        return len(raws)

    return run


def part_encode(job: Job) -> Run:
    """Whole requests, with serialising, that are not sent."""
    items, scores = job.items(), job.scores()
    adder = adding.Adder(_set(job)._ctx, adding.Flags(), None, False)
    adder._make_encoder(b"")
    encode, chunk = adder.encoder.encode, adder.chunk
    # As many are held as are in flight. Freed at once, each would give its memory back to the
    # system and fault it in again for the next, which takes ten times as long as encoding.
    flying: deque[Any] = deque(maxlen=WINDOW)

    def run() -> int:
        for some, theirs in zip(batches(items, chunk), batches(scores, chunk), strict=True):
            flying.append(encode(some, theirs, False))
        return len(items)

    return run


def part_held(job: Job) -> Run:
    """Requests encoded beforehand, through redis-py's connection, which is held."""
    connection = get_connection(redis.Redis(**job.address).connection_pool)
    requests = _requests(job)

    def run() -> int:
        for request in requests:
            connection.send_packed_command([request], check_health=False)
            connection.read_response()
        return len(requests)

    return run


def part_pooled(job: Job) -> Run:
    """The same, the connection taken from redis-py's pool for each, and given back."""
    pool: Any = redis.Redis(**job.address).connection_pool
    requests = _requests(job)

    def run() -> int:
        for request in requests:
            connection = get_connection(pool)
            connection.send_packed_command([request], check_health=False)
            connection.read_response()
            pool.release(connection)
        return len(requests)

    return run


def _requests(job: Job) -> list[bytes]:
    encode = _wire.DEFAULT.encode
    if job.variant == "pop":
        return [encode([b"ZPOPMIN", job.name])] * job.size
    dumps = JSONSerializer().dumps
    return [
        encode([b"ZADD", job.name, score, dumps(item)])
        for item, score in zip(job.items(), job.scores(), strict=True)
    ]


def part_decode(job: Job) -> Run:
    raws, loads = list(map(JSONSerializer().dumps, job.items())), JSONSerializer().loads

    def run() -> int:
        for some in batches(raws, TAKE):
            _wire.DEFAULT.decode(some, loads, True)
        return len(raws)

    return run


def part_identities(job: Job) -> Run:
    """The digests of the links' keys."""
    pages = job.linked_pages()
    dumps = JSONSerializer().dumps

    identity = _wire.DEFAULT.identity

    def run() -> int:
        return sum(len([identity(link, dumps, "url") for link in page]) for page in pages)

    return run
