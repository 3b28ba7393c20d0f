"""The cost of a set and its memory on the server: bytes per entry, and waits of other clients.

    python -m benchmarks.memory [--urls 10000000] [--server valkey9 --server redis7 ...]

Bytes are those of a queued URL, of a leased one, and of the memory of a done one. The report has
the number of buckets in compact encoding. It has the round trips of another client's PING while a
set is filled, and while its memory grows, is forgotten from, and is cleared. It lists the calls
that the server itself timed at over 5 ms.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import redis

import redset
from benchmarks import machine
from benchmarks.worker import data
from redset import SortedSet
from redset.serializers import JSONSerializer
from tests import servers

NAME = "bench"
#: Time for which PINGs count after the work beside them, in seconds.
AFTER = 0.05


def urls(first: int, last: int) -> Iterator[str]:
    for number in range(first, last):
        yield f"https://example.org/articles/{number % 97}/{number:012d}.html"


# --- the server as others see it


@dataclass(frozen=True)
class Watched:
    """Round trips of other clients while something ran, in milliseconds."""

    seconds: float
    p99: float
    worst: float
    pings: int
    #: The calls that the server timed at over 5 ms, in milliseconds.
    slow: list[float]
    #: Whether the PINGs' process went before all others.
    urgent: bool
    #: The server's CPU time per step (a script, a command or a MULTI), in milliseconds. The worst
    #: PING is often one that waited for a core.
    step: float


def urgent() -> bool:
    """Let this process run before all others as soon as it wakes up, if that is permitted."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except (AttributeError, OSError):
        return False
    return True


def ping(path: str, cores: Iterable[int], ready: Any, stop: Any, results: Any) -> None:
    """Measure round trips until stopped: the begin and the length of each."""
    # How long this process waits for a core is not asked: it goes before the producer, beside
    # which it runs, so that it takes nothing from the server. Else it runs where there is room.
    first = urgent()
    if first:
        machine.pin(os.getpid(), cores)
    client = redis.Redis(unix_socket_path=path)
    client.ping()
    ready.set()
    took = []
    while not stop.is_set():
        before = time.perf_counter()
        client.ping()
        took.append((before, time.perf_counter() - before))
        time.sleep(0.001)
    results.put((first, took))


def watched(
    server: servers.Server, what: Callable[[], Any], producers: Iterable[int], steps: Iterable[str]
) -> Watched:
    """Run something on the producers' cores while another process sends PINGs.

    ``steps`` are the commands that count as its steps.
    """
    context = multiprocessing.get_context("spawn")
    ready, stop, results = context.Event(), context.Event(), context.SimpleQueue()
    process = context.Process(target=ping, args=(server.unix, producers, ready, stop, results))
    process.start()
    if not ready.wait(60):
        raise RuntimeError("the process that sends PINGs did not start")
    server.raw.config_set("slowlog-log-slower-than", 5000)
    server.raw.config_set("slowlog-max-len", 1000)
    server.raw.slowlog_reset()
    with machine.pinned(producers):
        spent, num = _spent(server, steps)
        began = time.perf_counter()
        what()
        ended = time.perf_counter()
        spent_after, num_after = _spent(server, steps)
    time.sleep(AFTER)
    stop.set()
    # The clock is the machine's. A PING counts that was under way while the other thing was, or
    # was sent just after it: what is unlinked is freed later. Idle time would only flatter.
    first, pings = results.get()
    counted = sorted(
        took * 1000 for before, took in pings if before + took > began and before < ended + AFTER
    )
    process.join()
    slow = [entry["duration"] / 1000 for entry in server.raw.slowlog_get(1000)]
    p99 = counted[len(counted) * 99 // 100]
    step = (spent_after - spent) * 1000 / max(1, num_after - num)
    return Watched(ended - began, p99, counted[-1], len(counted), slow, first, step)


def _spent(server: servers.Server, steps: Iterable[str]) -> tuple[float, int]:
    """Return the server's CPU time in seconds, and the number of steps it has performed."""
    cpu, stats = server.raw.info("cpu"), server.raw.info("commandstats")
    num = sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in steps)
    return cpu["used_cpu_user"] + cpu["used_cpu_sys"], num


# --- the content of the server


def wipe(server: servers.Server) -> None:
    """Empty the server at once: freeing later would take time from the next measure."""
    # Ten million keys take longer than redis-py waits by default.
    with server.client(socket_timeout=None) as client:
        client.execute_command("FLUSHALL", "SYNC")


def settle(server: servers.Server) -> None:
    """Wait until the server has freed its memory in the background."""
    while server.raw.info("memory")["lazyfree_pending_objects"]:
        time.sleep(0.01)


def used(server: servers.Server) -> int:
    settle(server)
    return int(server.raw.info("memory")["used_memory"])


class Bytes(NamedTuple):
    """The bytes of an entry on the server: queued, leased, and done."""

    queued: float
    leased: float
    left: float


#: The memory options of a set.
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"remember": True},
    {"remember": 86_400},
    {"key": "url"},
    {"key": "url", "remember": True},
    {"key": "url", "remember": 86_400},
)


def described(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items()) or "plain"


def bytes_each(server: servers.Server, items: Sequence[Any], **options: Any) -> Bytes:
    """Bytes an entry of a set with these options, all of them queued, leased, acknowledged."""
    jobs: SortedSet[Any] = SortedSet(server.client(), NAME, **options)
    # The server has the scripts by then, and buffers for the connection.
    for batch in (items[:1000], items):
        wipe(server)
        jobs.size()
        found = _bytes_each(server, jobs, batch)
    return found


def _bytes_each(server: servers.Server, jobs: SortedSet[Any], items: Sequence[Any]) -> Bytes:
    def taken() -> int:
        # The server shrinks a connection's buffers some seconds after their last use.
        jobs.redis.connection_pool.disconnect()
        return used(server)

    empty = taken()
    jobs.add_many(items)
    queued = taken() - empty
    held = []
    while batch := jobs.lease(10_000, ttl=86_400):
        held.append(batch)
    leased = taken() - empty
    assert sum(map(jobs.ack, held)) == len(items)
    left = taken() - empty
    return Bytes(*(each / len(items) for each in (queued, leased, left)))


def bytes_of_fingerprints(server: servers.Server, number: int) -> float:
    """Bytes per member of a set of hex SHA-1, as scrapy-redis remembers a URL."""
    wipe(server)
    empty = used(server)
    step = 10_000
    for first in range(0, number, step):
        some = urls(first, min(first + step, number))
        server.raw.sadd(NAME, *(hashlib.sha1(url.encode()).hexdigest() for url in some))
    assert server.raw.scard(NAME) == number
    each = (used(server) - empty) / number
    wipe(server)
    return each


def encodings(server: servers.Server) -> tuple[int, int]:
    """How many of the sampled buckets are in compact encoding, and how many were looked at."""
    epoch = str(server.raw.hget(f"{NAME}:{{{NAME}}}:meta", "epoch"), "ascii")  # type: ignore[arg-type]
    names = server.raw.scan_iter(f"{NAME}:{{{NAME}}}:seen:{epoch}:*", count=1000)
    compact = total = 0
    for name in names:
        total += 1
        compact += server.raw.object("encoding", name) == b"intset"
        if total == 20_000:
            break
    return compact, total


@dataclass
class Life:
    """A memory from its first URL to its last: its bytes, and the round trips of others."""

    bytes_each: float = 0.0
    #: The share of the sampled buckets that are in compact encoding.
    compact: float = 0.0
    buckets: int = 0
    phases: dict[str, Watched] = field(default_factory=dict)


def life(server: servers.Server, number: int, queued: int, producers: Iterable[int] = ()) -> Life:
    """Load a plain set; let a memory grow to so many URLs, forget some, and clear it."""
    wipe(server)
    found = Life()

    def run(name: str, what: Callable[[], Any], *steps: str) -> None:
        found.phases[name] = watched(server, what, producers, steps or ("evalsha", "exec"))

    # A PING beside nothing: the others cannot be better.
    run("idle", lambda: time.sleep(1))
    plain: SortedSet[Any] = SortedSet(server.client(), NAME, serializer=JSONSerializer())
    scores = data.scores(queued)
    run("bulk load", lambda: plain.add_many(data.items(0, queued), score=scores), "zadd")
    assert plain.size() == queued
    wipe(server)

    jobs: SortedSet[str] = SortedSet(server.client(), NAME, remember=True)
    jobs.size()
    empty = used(server)

    def grow() -> None:
        for first in range(0, number, 100_000):
            jobs.add_many(urls(first, min(first + 100_000, number)))
            while jobs.take(2_000):
                pass

    def forget() -> None:
        last = min(number, 200_000)
        for first in range(0, last, 10_000):
            some = min(10_000, last - first)
            assert jobs.forget_many(urls(first, first + some)) == some

    run("growing", grow)
    assert jobs.stats().remembered == number, jobs.stats()
    found.bytes_each = (used(server) - empty) / number
    compact, found.buckets = encodings(server)
    found.compact = compact / found.buckets
    run("forgetting", forget)
    run("clearing", jobs.clear)
    assert server.raw.dbsize() == 0
    return found


# --- to be run alone


def measure(kind: str, number: int) -> bool:
    with servers.start(kind) as server:
        version = ".".join(map(str, server.version))
        print(f"\n## {kind} {version}, {number:,} URLs of 55 bytes ({redset.IMPLEMENTATION})\n")
        found = life(server, number, min(number, 1_000_000))
        print(
            f"{found.bytes_each:.2f} B a remembered URL above the empty server; "
            f"{found.compact:.1%} of {found.buckets:,} buckets sampled are compact\n"
        )
        print("| phase | seconds | PING p99, ms | worst | PINGs | calls over 5 ms |")
        print("|---|---|---|---|---|---|")
        for name, phase in found.phases.items():
            slow = f"{len(phase.slow)} (worst {max(phase.slow):.1f} ms)" if phase.slow else "0"
            seen = f"{phase.p99:.2f} | {phase.worst:.1f} | {phase.pings} | {slow}"
            print(f"| {name} | {phase.seconds:.1f} | {seen} |")

        some = min(number, 200_000)
        print(f"\n| options, {some:,} entries | B queued | B leased | B left when done |")
        print("|---|---|---|---|")
        for options in OPTIONS:
            items: list[Any] = list(urls(0, some))
            if "key" in options:
                items = [{"url": url} for url in items]
            each = bytes_each(server, items, **options)
            print(f"| {described(options)} | {' | '.join(f'{one:.1f}' for one in each)} |")
    return found.bytes_each <= 12 and found.compact >= 0.95


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--urls", type=int, default=10_000_000)
    parser.add_argument("--server", action="append", choices=servers.REAL)
    options = parser.parse_args()
    met = True
    for kind in options.server or servers.REAL:
        try:
            met &= measure(kind, options.urls)
        except servers.Missing as missing:
            print(f"\nskipped: {missing}")
    print("\nat most 12 B a URL and 95 % of buckets compact:", "yes" if met else "NO")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
