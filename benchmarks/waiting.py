"""The delay of a wake: from a plain ZADD of another client to the return of ``pop(wait=)``.

    python -m benchmarks.waiting [--items 300] [--waiters 1 10 100] [--server redis7 ...]

So many processes wait, each with a client and a watching connection of its own. Items come one by
one, 40 to 80 ms apart. Then they come five at a time (or as many as there are waiters), 10 ms
apart, and a waiter works on its item for that time. Then each waiter's commands per second are
counted, while no item comes, and while items come and are gone at once. All is repeated with a
server that may not report changes (``-client``), so that waiters poll.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import random
import sys
import time
from collections.abc import Iterator
from typing import Any

import redis

import redset
from benchmarks import machine
from redset import SortedSet
from tests import servers

NAME = "bench"
#: Seconds that each of the costs is counted for, and that waiters have to settle down.
LONG, SETTLE = 5.0, 2.0
#: How often items come some at a time, how many, how far apart, how long there is work with one.
ROUNDS, SOME, APART, WORK = 20, 5, 0.01, 0.5
#: The most that a wake may take, in milliseconds, and a waiter may send in a second.
WAKE, BUDGET, IDLE = 50.0, 20.0, 2.0


def wait(path: str, polls: bool, ready: Any, results: Any) -> None:
    """Pop items, and report their times; None is the end."""
    credentials = {"username": "polls", "password": "polls"} if polls else {}
    jobs: SortedSet[str] = SortedSet(redis.Redis(unix_socket_path=path, **credentials), NAME)
    jobs.size()
    ready.release()
    while (item := jobs.pop(wait=600)) != "end":
        results.put((item, time.perf_counter()))
        if item.startswith("work"):
            time.sleep(WORK)


@contextlib.contextmanager
def waiters(server: servers.Server, number: int, polls: bool) -> Iterator[Any]:
    """So many processes that wait, and their reports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["redis", "redset"])
    ready, results = context.Semaphore(0), context.SimpleQueue()
    arguments = (server.unix, polls, ready, results)
    processes = [context.Process(target=wait, args=arguments) for _ in range(number)]
    try:
        for process in processes:
            process.start()
        for _ in processes:
            if not ready.acquire(timeout=60):
                raise RuntimeError("a waiter did not start")
        time.sleep(SETTLE)
        yield results
        for _ in processes:
            server.raw.zadd(NAME, {"end": 1})
            while server.raw.zcard(NAME):
                time.sleep(0.001)
        for process in processes:
            process.join(60)
    finally:
        for process in processes:
            process.kill()


def latencies(server: servers.Server, results: Any, items: int) -> list[float]:
    """Milliseconds from before each ZADD was sent to the return of the pop, in order."""
    rng = random.Random(1)
    took = []
    for number in range(items):
        before = time.perf_counter()
        server.raw.zadd(NAME, {f"item-{number}": number})
        item, got = results.get()
        assert item == f"item-{number}", item
        took.append((got - before) * 1000)
        time.sleep(rng.uniform(0.04, 0.08))
    return sorted(took)


def together(server: servers.Server, results: Any, number: int) -> list[float]:
    """The same for several items at a time and several waiters."""
    took = []
    for _ in range(ROUNDS):
        before = {}
        for at in range(min(number, SOME)):
            before[f"work-{at}"] = time.perf_counter()
            server.raw.zadd(NAME, {f"work-{at}": at})
            time.sleep(APART)
        for _ in before:
            item, got = results.get()
            took.append((got - before[item]) * 1000)
        time.sleep(2 * WORK)
    return sorted(took)


def sent(server: servers.Server) -> int:
    """Requests of clients, without those inside scripts and those of this module."""
    found = server.raw.info("commandstats")
    names = ("evalsha", "zpopmin", "script", "script|load")
    return sum(int(found.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in names)


def idle(server: servers.Server) -> None:
    time.sleep(LONG)


def missing(server: servers.Server) -> None:
    """Let something come that is gone before anybody can have it."""
    text = "redis.call('ZADD', KEYS[1], 1, 'a'); redis.call('ZREM', KEYS[1], 'a')"
    end = time.perf_counter() + LONG
    while time.perf_counter() < end:
        server.raw.eval(text, 1, NAME)
        time.sleep(0.005)


def costs(server: servers.Server, number: int, what: Any) -> float:
    """Requests a second of each waiter."""
    server.raw.config_resetstat()
    before = time.perf_counter()
    what(server)
    seconds = time.perf_counter() - before
    return sent(server) / seconds / number


def at_parts(took: list[float]) -> tuple[float, float]:
    """Return the median, and the 99th percentile."""
    return took[len(took) // 2], took[len(took) * 99 // 100]


def measure(kind: str, numbers: list[int], items: int) -> bool:
    met = True
    with servers.start(kind) as server:
        version = ".".join(map(str, server.version))
        print(f"\n## {kind} {version}, {items} items ({redset.IMPLEMENTATION})\n")
        print(
            "| waiters | told by | p50, ms | p99 | worst | some at a time, p50 | p99 "
            "| idle, requests/s each | missing |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        server.raw.execute_command(
            "ACL", "SETUSER", "polls", "on", ">polls", "~*", "+@all", "-client"
        )
        for polls in (False, True):
            for number in numbers:
                with waiters(server, number, polls) as results:
                    took = latencies(server, results, items)
                    some = together(server, results, number)
                    quiet = costs(server, number, idle)
                    busy = costs(server, number, missing)
                seen = [*at_parts(took), took[-1], *at_parts(some)]
                told = "looks" if polls else "the server"
                cells = [f"{number}", told, *(f"{each:.1f}" for each in seen)]
                print("|", " | ".join([*cells, f"{quiet:.2f}", f"{busy:.1f}"]), "|", flush=True)
                met &= busy <= BUDGET * 1.05
                met &= polls or (seen[1] <= WAKE and quiet <= IDLE)
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--waiters", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--server", action="append", choices=servers.REAL)
    options = parser.parse_args()
    print(", ".join(f"{name}: {value}" for name, value in machine.describe().items()))
    met = True
    for kind in options.server or servers.REAL:
        try:
            met &= measure(kind, options.waiters, options.items)
        except servers.Missing as absent:
            print(f"\nskipped: {absent}")
    text = f"p99 at most {WAKE:g} ms, {BUDGET:g} requests a second missing, {IDLE:g} idle"
    print(f"\n{text}: {'yes' if met else 'NO'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
