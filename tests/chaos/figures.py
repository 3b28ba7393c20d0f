"""Counts what the faults of a cluster cost: ``python -m chaos figures --servers valkey9,redis7``.

Two producers add as fast as they can, with `add_new`, and three consumers lease and acknowledge.
The fault strikes in the middle of both, or of the adds if it ends a node. Each fault is a line of
the table on the documentation's page about clusters.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cluster
import servers

from chaos.worker import ERRORS
from redset import SortedSet

NAME = "jobs"
#: Seconds from the start of the work to the fault.
BEFORE = 0.3
#: The client's time-out: below and above the time for which a node is waited for.
SAFE, UNSAFE = 1.0, 20.0


class Fault(NamedTuple):
    """A fault, and how it is measured."""

    strike: Callable[[cluster.Cluster], Any]
    #: Whether the consumers meet it, too.
    twice: bool = True
    timeout: float = SAFE
    #: Directives of the servers.
    config: tuple[tuple[str, Any], ...] = ()
    only: str = ""


class Figures(NamedTuple):
    """The figures of one fault."""

    fault: str
    server: str
    told: int
    lost: int
    untold: int
    handed_out: int
    doubled: int
    #: Items that no consumer got.
    missing: int
    #: The longest time without an answer, in seconds: of producers, and of consumers.
    stalls: tuple[float, float]
    errors: Counter[str]

    def __str__(self) -> str:
        waits = " and ".join(f"{each:.1f} s" for each in self.stalls)
        raised = ", ".join(f"{num} times {text}" for text, num in self.errors.items())
        return (
            f"{self.fault}: {self.server}: {self.told} acknowledged, {self.lost} lost, "
            f"{self.untold} there and never acknowledged; {self.handed_out} handed out, "
            f"{self.doubled} more than once, {self.missing} never; stalls of {waits}"
            f"{f'; raised: {raised}' if raised else ''}"
        )


def _to_and_fro(nodes: cluster.Cluster) -> None:
    here, there = nodes.owner(NAME), nodes.others(NAME)[0]
    for to in (there, here, there):
        nodes.move(NAME, to, hold=0.1)


def _killed(nodes: cluster.Cluster) -> None:
    old = nodes.owner(NAME)
    old.kill()
    nodes.wait_for_other(NAME, old)


def _frozen(nodes: cluster.Cluster) -> None:
    with nodes.owner(NAME).frozen():
        time.sleep(4)
    time.sleep(0.5)


def _lagging(seconds: float) -> Callable[[cluster.Cluster], None]:
    def strike(nodes: cluster.Cluster) -> None:
        old = nodes.owner(NAME)
        with nodes.replica_of(old).frozen():
            time.sleep(seconds)
            old.kill()
        nodes.wait_for_other(NAME, old)

    return strike


FAULTS: dict[str, Fault] = {
    "no fault": Fault(lambda nodes: None),
    "moved key by key": Fault(lambda nodes: nodes.move(NAME, nodes.others(NAME)[0], hold=0.3)),
    "moved to and fro": Fault(_to_and_fro),
    "moved to a primary without slots": Fault(
        lambda nodes: nodes.move(NAME, nodes.others(NAME)[-1], hold=0.3), twice=False
    ),
    "moved as a whole": Fault(
        lambda nodes: nodes.move_atomically(NAME, nodes.others(NAME)[0]), only="valkey9"
    ),
    "manual failover": Fault(lambda nodes: nodes.fail_over(NAME)),
    "primary killed": Fault(_killed, twice=False),
    "primary frozen for 4 s, time-out of 1 s": Fault(_frozen),
    "primary frozen for 4 s, time-out of 20 s": Fault(_frozen, timeout=UNSAFE),
    "replica stopped for 1.2 s, primary killed": Fault(_lagging(1.2), twice=False),
    "replica stopped for 4 s, primary killed, min-replicas-to-write 1": Fault(
        _lagging(4.0),
        twice=False,
        config=(("min_replicas_to_write", 1), ("min_replicas_max_lag", 2)),
    ),
}


class _Work:
    """Producers or consumers in threads, and their results."""

    def __init__(self, nodes: cluster.Cluster, timeout: float) -> None:
        self.nodes, self.timeout = nodes, timeout
        self.counts: Counter[int] = Counter()
        self.stall = 0.0
        self.errors: Counter[str] = Counter()
        self._lock = threading.Lock()

    def run(self, parts: list[Any], strike: Callable[[], Any] | None) -> None:
        threads = [threading.Thread(target=self._thread, args=each) for each in parts]
        for thread in threads:
            thread.start()
        if strike is not None:
            time.sleep(BEFORE)
            strike()
        for thread in threads:
            thread.join(300)
            assert not thread.is_alive()

    def _thread(self, work: Callable[..., Iterator[list[int]]], *arguments: Any) -> None:
        with contextlib.closing(self.nodes.client(socket_timeout=self.timeout)) as client:
            last = time.monotonic()
            try:
                for some in work(SortedSet(client, NAME), *arguments):
                    now = time.monotonic()
                    with self._lock:
                        self.counts.update(some)
                        self.stall, last = max(self.stall, now - last), now
            except ERRORS as error:
                self.errors[f"{type(error).__name__}: {error}"[:60]] += 1
            self.stall = max(self.stall, time.monotonic() - last)


def _produce(jobs: SortedSet[str], first: int, last: int) -> Iterator[list[int]]:
    """Add numbers, a fifth of them twice; yield those that were acknowledged as new."""

    def numbers() -> Iterator[str]:
        for number in range(first, last):
            yield str(number)
            if number % 5 == 0:
                yield str(number)

    for item in jobs.add_new(numbers()):
        yield [int(item)]


def _consume(jobs: SortedSet[str]) -> Iterator[list[int]]:
    while batch := jobs.lease(50, ttl=60):
        items = [int(lease.item) for lease in batch]
        time.sleep(0.002)
        batch.ack()
        yield items


def measure(name: str, kind: str, items: int) -> Figures:
    """Measure a fault on a new cluster."""
    fault = FAULTS[name]
    with cluster.start(kind, spare=1, **dict(fault.config)) as nodes:
        produced = _Work(nodes, fault.timeout)
        half = items // 2
        parts = [(_produce, 0, half), (_produce, half, items)]
        produced.run(parts, lambda: fault.strike(nodes))
        nodes.wait_until_whole()
        for each in nodes.primaries():
            # A killed one is not replaced, and the consumers are to have all that is there.
            each.ask("CONFIG", "SET", "min-replicas-to-write", 0)
        with contextlib.closing(nodes.client(socket_timeout=UNSAFE)) as client:
            there = {int(item) for item in SortedSet[str](client, NAME)}
        consumed = _Work(nodes, fault.timeout)
        consumed.run([(_consume,)] * 3, (lambda: fault.strike(nodes)) if fault.twice else None)
        node = nodes.nodes[0]
        told = set(produced.counts)
        return Figures(
            name,
            f"{kind} {'.'.join(map(str, node.version))}",
            len(told),
            len(told - there),
            len(there - told),
            len(consumed.counts),
            sum(num > 1 for num in consumed.counts.values()),
            len(there - set(consumed.counts)),
            (produced.stall, consumed.stall),
            produced.errors + consumed.errors,
        )


def show(kinds: list[str], items: int, only: str = "") -> None:
    """Print the figures of each fault whose name has this text, on each of these servers."""
    for name, fault in FAULTS.items():
        if only not in name:
            continue
        for kind in kinds:
            if fault.only in ("", kind):
                try:
                    print(measure(name, kind, items), flush=True)
                except servers.Missing as missing:
                    print(missing, flush=True)
