"""The price of groups on the server: beside a set without groups, and beside a set per host.

    python -m benchmarks.groups [--server redis7 ...] [--rounds 5] [--items 30000]
    python -m benchmarks.groups --large [--groups 1000000]

The first form adds pages of 100 links to 5 hosts, and leases and acknowledges by 1, 10 and 100,
with 1,000 hosts. Contenders take turns on one server. Each figure is CPU time of the server, in µs
an item. A ratio is computed round by round, and its median is compared with the goal. The recipe of
two sets, a `ScheduledSet` of hosts and a set of pages per host, was the way before there were
groups. Memory is what groups add to a set with ``key=``.

The second form has a million hosts. It measures each step alone: the largest of many, each the
least of the runs, since other load only adds to it.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import random
import statistics
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import redset
from benchmarks import machine
from benchmarks.memory import used, wipe
from redset import ScheduledSet, SortedSet
from redset._operations.limits import GROUPED_CHUNK
from tests import servers

HOSTS, LINKS, HOSTS_OF_A_PAGE = 1_000, 100, 5
BATCHES = (1, 10, 100)
#: Items that a round leases, by the size of a batch.
LEASED = {1: 2_000, 10: 6_000, 100: 12_000}
#: The goals of the ratios to a set without groups, and to the recipe.
GOALS = {"add": 1.3, 1: 1.5, 10: 2.0, 100: 2.5}
GOAL_BESIDE_RECIPE = (10, 0.2)
#: Bytes that groups add, for an item and for a group of one item.
GOAL_BYTES = {"an item": 170, "a group": 300}
#: The most CPU time of a step, in milliseconds.
GOAL_STEP = 5.0
P = "jobs:{jobs}"
#: Characters of an item besides.
PADDING = "x" * 70


class Meter:
    """The CPU time of the server's main thread."""

    def __init__(self, server: servers.Server) -> None:
        self._stat = Path(f"/proc/{server.pid}/schedstat")

    def now(self) -> float:
        """Return the milliseconds since its start."""
        return int(self._stat.read_text().split()[0]) / 1e6

    def of(self, call: Callable[[], Any]) -> float:
        before = self.now()
        call()
        return self.now() - before


def item_of(number: int, host: int) -> dict[str, Any]:
    name = f"www.host-{host}.example"
    return {"url": f"{name}/{number:012d}", "host": name, "text": PADDING}


def score_of(item: dict[str, Any]) -> int:
    return zlib.crc32(item["url"].encode()) % 5000


def pages(items: int, hosts: int, pick: random.Random) -> Iterator[list[dict[str, Any]]]:
    """Yield pages: links to a few of the hosts."""
    number = itertools.count()
    for _ in range(items // LINKS):
        some = [pick.randrange(hosts) for _ in range(HOSTS_OF_A_PAGE)]
        yield [item_of(next(number), some[link % HOSTS_OF_A_PAGE]) for link in range(LINKS)]


class Grouped:
    """A set with groups. One in work, or no limit, as the other contenders have it."""

    options: Mapping[str, Any] = MappingProxyType({"group": "host"})

    def __init__(self, raw: Any) -> None:
        self._jobs: SortedSet[Any] = SortedSet(raw, "jobs", key="url", **self.options)

    def add(self, page: list[Any]) -> None:
        self._jobs.add_many(page, [score_of(item) for item in page])

    def turn(self, num: int) -> int:
        batch = list(self._jobs.lease(num))
        self._jobs.ack(batch)
        return len(batch)


class Ungrouped(Grouped):
    """The same set without groups."""

    options: Mapping[str, Any] = MappingProxyType({})


class Recipe:
    """A set of hosts and a set of pages for each of them."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._hosts: ScheduledSet[str] = ScheduledSet(raw, "hosts", duplicates="lowest")
        self._pages: dict[str, SortedSet[Any]] = {}

    def _of(self, host: str) -> SortedSet[Any]:
        if host not in self._pages:
            self._pages[host] = SortedSet(self._raw, f"pages of {host}", key="url")
        return self._pages[host]

    def add(self, page: list[Any]) -> None:
        by_host: dict[str, list[Any]] = defaultdict(list)
        for item in page:
            by_host[item["host"]].append(item)
        for host, items in by_host.items():
            self._of(host).add_many(items, [score_of(item) for item in items])
        self._hosts.add_many(list(by_host), 0)

    def turn(self, num: int) -> int:
        done = 0
        while not done:
            turns = list(self._hosts.lease(num))
            if not turns:
                break
            for lease in turns:
                found = list(self._of(lease.item).lease())
                for page in found:
                    page.ack()
                done += len(found)
                # A host without pages is done.
                lease.release(delay=0) if found else lease.ack()
        return done


CONTENDERS: dict[str, Any] = {"groups": Grouped, "no groups": Ungrouped, "two sets": Recipe}


def contend(server: servers.Server, kind: str, items: int, seed: int) -> dict[Any, float]:
    """Return the server's CPU time of a contender in one round, in µs an item."""
    wipe(server)
    meter = Meter(server)
    with server.client() as raw:
        made = CONTENDERS[kind](raw)
        every = list(pages(items, HOSTS, random.Random(seed)))
        # The scripts are there, and buffers are as large as they get.
        made.add(every[0])
        found: dict[Any, float] = {
            "add": 1000 * meter.of(lambda: [made.add(page) for page in every[1:]]) / items
        }
        for num in BATCHES:
            made.turn(num)
            before, done = meter.now(), 0
            while done < LEASED[num] * items // 30_000:
                more = made.turn(num)
                if not more:
                    raise SystemExit(f"{kind} hands out nothing")
                done += more
            found[num] = 1000 * (meter.now() - before) / done
        return found


def compare(server: servers.Server, rounds: int, items: int) -> bool:
    """Let the contenders take turns, print their figures and ratios, and whether goals are met."""
    found: dict[str, list[dict[Any, float]]] = defaultdict(list)
    names = list(CONTENDERS)
    for number in range(rounds):
        for kind in names[number % 3 :] + names[: number % 3]:
            found[kind].append(contend(server, kind, items, number))
    print("| µs of server CPU an item | add | by 1 | by 10 | by 100 |\n|---|---|---|---|---|")
    for kind in names:
        least = [min(each[what] for each in found[kind]) for what in ("add", *BATCHES)]
        print(f"| {kind} |", " | ".join(f"{each:.1f}" for each in least), "|")
    met = True
    rows = [("no groups", what, goal) for what, goal in GOALS.items()]
    rows.append(("two sets", *GOAL_BESIDE_RECIPE))
    for other, what, goal in rows:
        ratios = [
            ours[what] / theirs[what]
            for ours, theirs in zip(found["groups"], found[other], strict=True)
        ]
        median, low, high = statistics.median(ratios), min(ratios), max(ratios)
        title = "add of a page" if what == "add" else f"lease + ack by {what}"
        met &= median <= goal
        verdict = "met" if median <= goal else "MISSED"
        print(
            f"{title}: {median:.2f} times {other} ({low:.2f} to {high:.2f}), goal {goal}: {verdict}"
        )
    return met


def compare_memory(server: servers.Server, items: int) -> bool:
    """Print the bytes that groups add, with many items a group and with one."""
    met = True
    for title, per_group in (("an item", 10), ("a group", 1)):
        each = []
        for kind in (Grouped, Ungrouped):
            wipe(server)
            with server.client() as raw:
                made = kind(raw)
                made.add([item_of(number, -1) for number in range(LINKS)])
                raw.connection_pool.disconnect()
                empty = used(server)
                for first in range(0, items, LINKS):
                    numbers = range(first, first + LINKS)
                    made.add([item_of(number, number // per_group) for number in numbers])
                raw.connection_pool.disconnect()
                each.append((used(server) - empty) / items)
        more, goal = each[0] - each[1], GOAL_BYTES[title]
        met &= more <= goal
        verdict = "met" if more <= goal else "MISSED"
        print(
            f"memory, {per_group} items a group: {each[0]:.0f} bytes an item, and {each[1]:.0f} "
            f"without groups: {more:.0f} for {title}, goal {goal}: {verdict}"
        )
    return met


# --- a million groups


class Steps:
    """The CPU time of each step of several runs."""

    def __init__(self, server: servers.Server) -> None:
        self._meter, self._raw = Meter(server), server.raw
        self.runs: dict[str, list[list[float]]] = defaultdict(list)

    def measure(self, name: str, calls: int, call: Callable[[int], Any]) -> None:
        """Make one run: so many calls."""
        before = self._count()
        took = [self._meter.of(lambda number=number: call(number)) for number in range(calls)]
        steps = max(1, self._count() - before)
        # Calls of more than one step count by their mean.
        self.runs[name].append([each * calls / max(calls, steps) for each in took])

    def _count(self) -> int:
        return int(self._raw.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))

    def report(self) -> bool:
        print("| step | median | largest | goal |\n|---|---|---|---|")
        met = True
        for name, runs in self.runs.items():
            least = sorted(map(min, zip(*runs, strict=True)))
            met &= least[-1] <= GOAL_STEP
            median = statistics.median(least)
            print(f"| {name} | {median:.2f} ms | {least[-1]:.2f} ms | {GOAL_STEP:g} ms |")
        return met


def fill(jobs: SortedSet[Any], groups: int) -> None:
    for first in range(0, groups, 10_000):
        jobs.add_many([item_of(number, number) for number in range(first, first + 10_000)], 0)


#: Move all groups from one line to the other, at one score.
_MOVE = """
local cursor = '0'
repeat
  local part = redis.call('ZRANGE', KEYS[1], 0, 999)
  local rows = {}
  for i = 1, #part do rows[2 * i - 1], rows[2 * i] = ARGV[1], part[i] end
  if #part > 0 then
    redis.call('ZADD', KEYS[2], unpack(rows))
    redis.call('ZREMRANGEBYRANK', KEYS[1], 0, #part - 1)
  end
until #part == 0
"""


def over(raw: Any, key: str) -> None:
    """Let the time of all members of a list be over."""
    members = raw.zrange(key, 0, -1)
    for some in (members[first : first + 1000] for first in range(0, len(members), 1000)):
        raw.zadd(key, dict.fromkeys(some, 1))


def measure_large(server: servers.Server, groups: int, runs: int) -> bool:
    """Measure steps with so many groups, each in several runs."""
    wipe(server)
    raw = server.client(socket_timeout=None)
    options: dict[str, Any] = {"key": "url", "group": "host", "max_attempts": None}
    jobs: SortedSet[Any] = SortedSet(raw, "jobs", **options)
    began = time.monotonic()
    fill(jobs, groups)
    print(f"{groups:,} groups in {time.monotonic() - began:.0f} s")
    steps, number = Steps(server), itertools.count(groups)

    def add(_: int) -> None:
        jobs.add_many(
            [item_of(place, place) for place in itertools.islice(number, GROUPED_CHUNK)], 0
        )

    held: list[Any] = []

    def lease(_: int) -> int:
        held.append(list(jobs.lease(100)))
        return len(held[-1])

    def settle_all() -> None:
        while held:
            jobs.release(held.pop())

    for _ in range(runs):
        steps.measure(f"add of {GROUPED_CHUNK} new groups", 40, add)
        steps.measure("lease of 100", 60, lease)
        steps.measure("release of 100", len(held), lambda _: jobs.release(held.pop()))
        for _ in range(100):
            lease(0)
        over(raw, f"{P}:leased")
        held.clear()
        steps.measure("10,000 leases over at once: lease of 100", 60, lease)
        while jobs.stats().leased > sum(map(len, held)):
            pass
        settle_all()
        # Every group rests for a day; then all wake at once.
        raw.eval(_MOVE, 2, f"{P}:ready", f"{P}:resting", 9e12)
        steps.measure("all groups rest: lease of 100", 50, lambda _: jobs.lease(100))
        raw.eval(_MOVE, 2, f"{P}:resting", f"{P}:none", 1)
        raw.rename(f"{P}:none", f"{P}:resting")
        steps.measure("all groups wake at once: lease of 100", 60, lease)
        settle_all()
    met = steps.report()
    raw.close()
    return met


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", action="append", choices=servers.REAL)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--items", type=int, default=30_000)
    parser.add_argument("--large", action="store_true", help="steps with a million groups")
    parser.add_argument("--groups", type=int, default=1_000_000)
    options = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    print(", ".join(f"{name}: {value}" for name, value in machine.describe().items()))
    met = True
    for kind in options.server or servers.REAL:
        try:
            with servers.start(kind) as server:
                version = ".".join(map(str, server.version))
                print(f"\n## {kind} {version} ({redset.IMPLEMENTATION})\n", flush=True)
                if options.large:
                    met &= measure_large(server, options.groups, min(options.rounds, 3))
                else:
                    met &= compare(server, options.rounds, options.items)
                    met &= compare_memory(server, options.items)
        except servers.Missing as absent:
            print(f"\nskipped: {absent}")
    print(f"\nAll goals met: {'yes' if met else 'NO'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
