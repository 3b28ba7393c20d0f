"""How long a single step holds the server, by the size of the items.

    python -m benchmarks.steps [--sizes 100 1000 ...] [--server redis7 ...] [--keyed]

Each call is made three times on a set with more items than it asks for, by an object that has met
some of them before. The result is the CPU time of the server per step, in milliseconds. It is the
least of the three, since other load only adds to it. A step is a script, a command or a MULTI: the
server serves no other client during a step.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redset
from benchmarks import machine
from redset import SortedSet
from tests import servers

SIZES = (100, 1_000, 5_000, 10_000, 20_000, 50_000, 100_000, 1_000_000)
#: The most CPU time of a step, in milliseconds, up to a size of item in bytes.
GOALS = ((10_000, 5.0), (100_000, 10.0))
TIMES = 3
#: The commands that steps are.
STEPS = ("evalsha", "eval", "exec", "zadd")
#: The leases of the set that is measured, and when they end.
LEASED = "jobs:{jobs}:leased"
#: Bytes that a set holds at most, and items that it holds at least.
STOCK, LEAST = 60_000_000, 120


class Meter:
    """The server's CPU time and steps."""

    def __init__(self, server: servers.Server) -> None:
        self._raw, self._stat = server.raw, Path(f"/proc/{server.pid}/schedstat")

    def _now(self) -> tuple[float, list[int]]:
        stats = self._raw.info("commandstats")
        calls = [stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in STEPS]
        return int(self._stat.read_text().split()[0]) / 1e6, calls

    def per_step(self, call: Callable[[], Any]) -> float:
        """Return the milliseconds of CPU time per step of a call."""
        cpu, calls = self._now()
        call()
        cpu_after, calls_after = self._now()
        *outer, added = [after - before for before, after in zip(calls, calls_after, strict=True)]
        # A ZADD inside a script or a MULTI is part of its step.
        return (cpu_after - cpu) / max(1, sum(outer) or added)


class Calls:
    """Yield the measured calls on one set; each returns its undoing call, or None."""

    def __init__(self, server: servers.Server, keyed: bool, size: int) -> None:
        self._raw = server.raw
        self._options: dict[str, Any] = {"key": "url"} if keyed else {}
        self._keyed, self._pad = keyed, "y" * size
        self.number = max(LEAST, min(2_000, STOCK // size))
        self.jobs = self.made("jobs")
        self.other = self.made("other")

    def made(self, name: str, **options: Any) -> SortedSet[Any]:
        return SortedSet(self._raw, name, **self._options, **options)

    def items(self, number: int | None = None) -> list[Any]:
        names = [f"{place:07}" for place in range(number or self.number)]
        if self._keyed:
            return [{"url": name, "text": self._pad} for name in names]
        return [name + self._pad for name in names]

    def fill(self) -> None:
        self.jobs.clear()
        self.jobs.add_many(self.items())
        list(self.jobs.peek_many(20))  # has met some

    def measured(self, meter: Meter) -> dict[str, float]:
        jobs, found = self.jobs, {}
        self.fill()
        hundred = self.items(100)

        def best(
            name: str, call: Callable[[], Any], before: Callable[[], Any] | None = None
        ) -> None:
            took = []
            for _ in range(TIMES):
                if before is not None:
                    before()
                took.append(meter.per_step(call))
            found[name] = min(took)

        best("peek_many", lambda: jobs.peek_many(100))
        best("iteration", lambda: list(itertools.islice(jobs, 1000)))
        best("export", lambda: list(itertools.islice(jobs.export(), 100)))
        leases: list[Any] = []

        def lease(ttl: float = 600) -> None:
            leases[:] = jobs.lease(100, ttl)

        def expired() -> None:
            lease()
            members = self._raw.zrange(LEASED, 0, -1)
            self._raw.zadd(LEASED, dict.fromkeys(members, 1))

        best("lease", lease, before=lambda: leases and jobs.release(leases))
        best("leased", lambda: list(jobs.leased()))
        jobs.release(leases)
        best("release", lambda: jobs.release(leases), before=lease)
        best("fail", lambda: jobs.fail(leases, "no"), before=lease)
        best("ack", lambda: jobs.ack(leases), before=lambda: (self.fill(), lease()))
        best("expire", lambda: jobs.stats(), before=expired)
        best("take", lambda: jobs.take(100), before=self.fill)
        best("discard_many", lambda: jobs.discard_many(hundred), before=self.fill)
        best("between.discard", lambda: jobs.between(0, 0).discard(), before=self.fill)
        best(
            "move_many",
            lambda: jobs.move_many(hundred, self.other),
            before=lambda: (self.fill(), self.other.clear()),
        )
        best("update", lambda: self.other.update(jobs), before=self.other.clear)
        best("-=", lambda: self.other.__isub__(jobs), before=lambda: self.other.update(jobs))
        dying = self.made("jobs", max_attempts=1)

        def die() -> None:
            dying.clear()
            dying.add_many(hundred)
            leases[:] = dying.lease(100)

        best("death", lambda: dying.fail(leases, "no"), before=die)
        best("dead", lambda: list(dying.dead))
        best("requeue", dying.dead.requeue, before=lambda: (die(), dying.fail(leases, "no")))
        best("add_many", lambda: jobs.add_many(hundred), before=jobs.clear)
        jobs.clear()
        self.other.clear()
        return found


def measure(kind: str, sizes: list[int], keyed: bool) -> bool:
    met = True
    with servers.start(kind) as server:
        version = ".".join(map(str, server.version))
        what = "with key=" if keyed else "without options"
        print(
            f"\n## {kind} {version}, {what}: ms of server CPU per step ({redset.IMPLEMENTATION})\n"
        )
        meter, head = Meter(server), False
        for size in sizes:
            found = Calls(server, keyed, size).measured(meter)
            if not head:
                print("| bytes |", " | ".join(found), "|")
                print("|---" * (len(found) + 1) + "|")
                head = True
            print(
                f"| {size:,} |",
                " | ".join(f"{each:.2f}" for each in found.values()),
                "|",
                flush=True,
            )
            for most, goal in GOALS:
                if size <= most:
                    met &= max(found.values()) <= goal
                    break
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--server", action="append", choices=servers.REAL)
    parser.add_argument("--keyed", action="store_true", help="only sets with key=")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    print(", ".join(f"{name}: {value}" for name, value in machine.describe().items()))
    met = True
    for kind in options.server or servers.REAL:
        for keyed in (True,) if options.keyed else (False, True):
            try:
                met &= measure(kind, options.sizes, keyed)
            except servers.Missing as absent:
                print(f"\nskipped: {absent}")
    text = ", ".join(f"at most {goal:g} ms up to {most:,} bytes an item" for most, goal in GOALS)
    print(f"\n{text}: {'yes' if met else 'NO'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
