"""Starts of hosts that are an interval apart: one set with groups beside BullMQ's limiter.

    python -m benchmarks.polite [--server redis7 ...] [--rounds 3] [--hosts 20] [--jobs 15]

Each host has so many jobs, and may start one each 100 ms. Each contender is one process that works
on all jobs, with handlers of 5 ms. redset has one set with ``group_limit=1`` and
``group_interval=``. BullMQ's limiter is that of a queue, so each host has a queue and a worker, and
all of them share a client. Contenders take turns, in another order each round.

The jobs are added before. The time is that from the first start of a job to the last. The server's
CPU time is that of its main thread, less that of an idle server in the same time. Gaps are those
between the begins of handlers: they differ from the gaps of the hand-outs by the delays of both
handlers.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import redset
from benchmarks import machine, peers
from benchmarks.groups import Meter
from benchmarks.memory import wipe
from benchmarks.peers import Peer
from benchmarks.processes import Worker
from tests import servers

#: Seconds for which an idle server is measured.
REST = 2.0
#: The moments at which connections are counted, as parts of the least possible time.
LOOKS = (0.3, 0.3, 0.3)
BULLMQ = next(peer for peer in peers.JOBS if peer.name == "BullMQ")
NOTE = """
BullMQ {version}: its Python worker passes `limiter` to the server, which hands out nothing until
the limit ends and answers how long that is. The worker does not use this answer. It waits for a new
job, for `drainDelay` (5 s by default) in whole seconds, and asks again. So the limit holds, and a
host has a start each 5 s, or each second with a small `drainDelay`. Its worker for Node.js asks
when the limit ends; it is not measured here."""


@dataclass(frozen=True)
class Contender:
    name: str
    peer: Peer
    variant: str = ""


CONTENDERS = (
    Contender("redset", peers.REDSET if redset.IMPLEMENTATION == "cython" else peers.FALLBACK),
    Contender("BullMQ", BULLMQ),
    Contender("BullMQ, drainDelay 0.1", BULLMQ, "0.1"),
)


@dataclass(frozen=True)
class Work:
    """The jobs: so many a host, and the seconds between two starts of a host."""

    hosts: int
    jobs: int
    interval: float

    @property
    def least(self) -> float:
        """The seconds from the first start of a host to its last, if all gaps are the interval."""
        return (self.jobs - 1) * self.interval


@dataclass(frozen=True)
class Figures:
    """The figures of one run."""

    #: The server's, in µs a job.
    cpu: float
    connections: int
    #: The seconds from the first start to the last, and between two of a host at least.
    lasted: float
    gap: float


def connections(server: servers.Server) -> int:
    return int(server.raw.info("clients")["connected_clients"])


def idle(server: servers.Server) -> float:
    """Return the CPU time of an idle server, in milliseconds a second."""
    meter, began = Meter(server), time.perf_counter()
    used = meter.of(lambda: time.sleep(REST))
    return used / (time.perf_counter() - began)


def run(server: servers.Server, contender: Contender, work: Work, rest: float) -> Figures:
    """Let a contender do the work in a process of its own, and measure it."""
    wipe(server)
    others, meter = connections(server), Meter(server)
    python = contender.peer.environment.python()
    with Worker(python, (), contender.peer.variables) as worker:
        prepared = worker.ask(
            "prepare",
            module=contender.peer.module,
            task="polite",
            address={"unix_socket_path": server.unix},
            size=work.jobs,
            hosts=work.hosts,
            interval=work.interval,
            variant=contender.variant,
        )
        if "missing" in prepared:
            raise peers.Missing(f"{contender.name}: {prepared['missing']}")
        before, began, most = meter.now(), time.perf_counter(), 0
        worker.start("measure")
        for part in LOOKS:
            time.sleep(part * work.least)
            most = max(most, connections(server) - others)
        answer = worker.answer()
        used = meter.now() - before - rest * (time.perf_counter() - began)
    jobs = work.hosts * work.jobs
    if answer["count"] != jobs:
        raise RuntimeError(f"{contender.name} did {answer['count']} of {jobs} jobs")
    samples = answer["samples"]
    return Figures(1000 * used / jobs, most, samples["lasted"], samples["gap"])


def described(contender: Contender, found: list[Figures], work: Work) -> str:
    """Return the row of a contender: medians, most connections, and the smallest gap of all."""
    used = [each.cpu for each in found]
    times = [each.lasted / work.least for each in found]
    cells = (
        contender.name,
        f"{statistics.median(used):.0f} ({min(used):.0f} to {max(used):.0f})",
        str(max(each.connections for each in found)),
        f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})",
        f"{min(each.gap for each in found) / work.interval:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def compare(server: servers.Server, contenders: Sequence[Contender], work: Work, of: int) -> None:
    """Let the contenders take turns for so many rounds, and print their figures."""
    found: dict[str, list[Figures]] = defaultdict(list)
    rest = idle(server)
    for number in range(of):
        first = number % len(contenders)
        for contender in (*contenders[first:], *contenders[:first]):
            found[contender.name].append(run(server, contender, work, rest))
    print(
        "| contender | server CPU, µs a job | connections | time / least possible "
        "| smallest gap / interval |\n|---|---|---|---|---|"
    )
    for contender in contenders:
        print(described(contender, found[contender.name], work))
    print(f"\nCPU of the idle server, left out: {rest:.2f} ms a second", flush=True)


def here() -> tuple[list[Contender], str]:
    """Return the contenders that are installed, and the version of BullMQ."""
    found, version = [], ""
    for contender in CONTENDERS:
        environment = contender.peer.environment
        try:
            python = environment.python()
        except peers.Missing as missing:
            print(f"left out: {contender.name}: {missing}")
            continue
        found.append(contender)
        if contender.peer is BULLMQ and not version:
            with Worker(python, ()) as worker:
                version = worker.ask("versions", packages=["bullmq"])["packages"]["bullmq"]
    return found, version


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", action="append", choices=servers.REAL)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hosts", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=15, help="jobs of a host, 2 or more")
    parser.add_argument("--interval", type=float, default=0.1, help="seconds")
    parser.add_argument("--alone", action="store_true", help="without BullMQ")
    options = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    print(", ".join(f"{name}: {value}" for name, value in machine.describe().items()))
    work = Work(options.hosts, options.jobs, options.interval)
    contenders, version = (list(CONTENDERS[:1]), "") if options.alone else here()
    for kind in options.server or ("redis7", "valkey9"):
        try:
            with servers.start(kind) as server:
                numbers = ".".join(map(str, server.version))
                print(f"\n## {kind} {numbers} ({redset.IMPLEMENTATION})\n", flush=True)
                compare(server, contenders, work, options.rounds)
        except servers.Missing as absent:
            print(f"\nskipped: {absent}")
    if version:
        print(NOTE.format(version=version))
    return 0


if __name__ == "__main__":
    sys.exit(main())
