"""What a set and its memory cost the server: bytes an entry, and how long others wait meanwhile.

    python -m benchmarks.memory [--urls 10000000] [--server valkey9 --server redis7 ...]

A URL that is remembered and no longer queued, one that is queued, and one that is both; how many
buckets are in compact encoding; and the round trips of another client's PING while the memory
grows, is forgotten from, and is cleared, with the calls that the server itself timed at over 5 ms.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import redis

import redset
from redset import SortedSet
from tests import servers


def urls(first: int, last: int) -> Iterator[str]:
    for number in range(first, last):
        yield f"https://example.org/articles/{number % 97}/{number:012d}.html"


def ping(path: str, stop: Any, results: Any) -> None:
    """Measure round trips, in milliseconds, until told to stop."""
    client = redis.Redis(unix_socket_path=path)
    took = []
    while not stop.is_set():
        before = time.perf_counter()
        client.ping()
        took.append((time.perf_counter() - before) * 1000)
        time.sleep(0.001)
    took.sort()
    results.put((took[len(took) * 99 // 100], took[-1], len(took)))


def watched(server: servers.Server, what: Callable[[], Any]) -> tuple[float, str]:
    """Run something; its seconds, and what others saw of the server meanwhile."""
    context = multiprocessing.get_context("spawn")
    stop, results = context.Event(), context.SimpleQueue()
    process = context.Process(target=ping, args=(server.unix, stop, results))
    process.start()
    time.sleep(0.5)
    server.raw.config_set("slowlog-log-slower-than", 5000)
    server.raw.config_set("slowlog-max-len", 1000)
    server.raw.slowlog_reset()
    began = time.perf_counter()
    what()
    seconds = time.perf_counter() - began
    stop.set()
    p99, worst, count = results.get()
    process.join()
    slow = [entry["duration"] / 1000 for entry in server.raw.slowlog_get(1000)]
    calls = f"{len(slow)} (worst {max(slow):.1f} ms)" if slow else "0"
    return seconds, f"{p99:.2f} | {worst:.1f} | {count} | {calls}"


def used(server: servers.Server) -> int:
    while server.raw.info("memory")["lazyfree_pending_objects"]:
        time.sleep(0.01)
    return int(server.raw.info("memory")["used_memory"])


def bytes_each(server: servers.Server, number: int, **options: Any) -> tuple[float, float]:
    """Bytes a queued entry of a set with these options, and what each leaves when handed out."""
    server.raw.execute_command("FLUSHALL", "SYNC")
    jobs: SortedSet[Any] = SortedSet(server.client(), "bench", **options)
    jobs.size()
    empty = used(server)
    if "key" in options:
        jobs.add_many({"url": url} for url in urls(0, number))
    else:
        jobs.add_many(urls(0, number))
    queued = used(server) - empty
    while jobs.take(10_000):
        pass
    return queued / number, (used(server) - empty) / number


def measure(kind: str, number: int) -> bool:
    with servers.start(kind) as server:
        version = ".".join(map(str, server.version))
        print(f"\n## {kind} {version}, {number:,} URLs of 55 bytes ({redset.IMPLEMENTATION})\n")
        client = server.client()
        jobs: SortedSet[str] = SortedSet(client, "bench", remember=True)
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
                assert jobs.forget_many(urls(first, first + 10_000)) == 10_000

        seconds, growing = watched(server, grow)
        assert jobs.stats().remembered == number, jobs.stats()
        each = (used(server) - empty) / number
        compact, buckets = encodings(server)
        forgetting_seconds, forgetting = watched(server, forget)
        clearing_seconds, clearing = watched(server, jobs.clear)
        assert server.raw.dbsize() == 0
        print(
            f"{each:.2f} B a remembered URL above the empty server; "
            f"{compact / buckets:.1%} of {buckets:,} buckets sampled are compact\n"
        )
        print("| phase | seconds | PING p99, ms | worst | PINGs | calls over 5 ms |")
        print("|---|---|---|---|---|---|")
        print(f"| growing (adds and takes) | {seconds:.1f} | {growing} |")
        print(f"| forgetting 200,000 | {forgetting_seconds:.1f} | {forgetting} |")
        print(f"| clearing | {clearing_seconds:.1f} | {clearing} |")

        some = min(number, 200_000)
        print(f"\n| options, {some:,} entries | B a queued entry | B left of one handed out |")
        print("|---|---|---|")
        for options in (
            {},
            {"remember": True},
            {"remember": 86_400},
            {"key": "url"},
            {"key": "url", "remember": True},
            {"key": "url", "remember": 86_400},
        ):
            queued, left = bytes_each(server, some, **options)
            text = ", ".join(f"{name}={value!r}" for name, value in options.items()) or "none"
            print(f"| {text} | {queued:.1f} | {left:.1f} |")
    return each <= 12 and compact / buckets >= 0.95


def encodings(server: servers.Server) -> tuple[int, int]:
    """How many of the sampled buckets are in compact encoding, and how many were looked at."""
    epoch = server.raw.hget("bench:{bench}:meta", "epoch").decode()
    names = server.raw.scan_iter(f"bench:{{bench}}:seen:{epoch}:*", count=1000)
    compact = total = 0
    for name in names:
        total += 1
        compact += server.raw.object("encoding", name) == b"intset"
        if total == 20_000:
            break
    return compact, total


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
