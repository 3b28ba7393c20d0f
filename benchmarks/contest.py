"""Runs contenders against each other: interleaved, each round in another order, on one server."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks import machine, memory
from benchmarks.peers import OURS, Missing, Peer
from benchmarks.processes import Proxy, Worker
from benchmarks.results import Goal, Part, Profile, Result, Series
from benchmarks.worker import data
from redset import SortedSet
from redset.serializers import JSONSerializer
from tests import servers

UNIX, DELAYED = "unix socket", "TCP, 0.5 ms delay"
#: The client of a cluster connects to the addresses of its nodes.
LOOPBACK = "TCP on loopback"
#: Seconds that the proxy adds to each direction.
DELAY = 0.00025
#: The name of the set, and under which what a consumer finds is kept between rounds.
NAME, STOCK = "bench", "{bench}:stock"


@dataclass(frozen=True)
class Scale:
    """How large a run is to be."""

    quick: bool = False
    delayed: bool = False

    def pick(self, full: int, quick: int, delayed: int | None = None, both: int = 0) -> int:
        """A size, and a smaller one over the delay if there is one: a call there takes 0.5 ms."""
        if self.delayed and delayed is not None:
            return both if self.quick else delayed
        return quick if self.quick else full


@dataclass(frozen=True)
class Size:
    """A task's size: the arguments of the workers' `Job`, and the stock that the server holds."""

    job: Mapping[str, Any]
    items: int
    text: str
    #: Items that are queued when a round begins, and after it (None: no server has a part in it).
    stock: int = 0
    left: int | None = None
    #: True if a contender itself adds the items that it hands out.
    through: bool = False
    #: Whether a contender only reads what is queued.
    reads: bool = False


@dataclass(frozen=True)
class Entry:
    """A contender: a peer and its task, with a precise description."""

    peer: Peer
    task: str
    what: str
    name: str = ""
    job: Mapping[str, Any] = field(default_factory=dict)
    #: A first, unmeasured round; a loop of round trips needs none.
    warm: bool = True
    #: True if it must leave as many items as the others: scrapy-redis normalises URLs.
    exact: bool = True

    @property
    def label(self) -> str:
        return self.name or self.peer.name


@dataclass(frozen=True)
class Contest:
    """A measure in which contenders do the same work."""

    name: str
    title: str
    entries: tuple[Entry, ...]
    goals: tuple[Goal, ...]
    size: Callable[[Scale], Size]
    #: The names of those that also run over the delay.
    delayed: tuple[str, ...] = ()
    #: Steps of the work alone, for the profile of a missed goal.
    parts: tuple[Entry, ...] = ()
    producers: int = 1
    at: float | None = None
    link: str = UNIX

    def over_the_delay(self, bench: Bench) -> Result:
        """Run it over the delay alone."""
        return _Run(bench, self, DELAYED).result()

    def run(self, bench: Bench) -> Iterator[Result]:
        yield _Run(bench, self, self.link).result()
        if self.delayed:
            entries = tuple(each for each in self.entries if each.label in self.delayed)
            goals = tuple(
                goal
                for goal in self.goals
                if goal.of in self.delayed and (goal.over is None or goal.over in self.delayed)
            )
            yield _Run(bench, replace(self, entries=entries, goals=goals), DELAYED).result()


class Bench:
    """The common part of the measures: the server, the proxy before it, the rounds."""

    def __init__(self, kind: str, *, quick: bool, rounds: int) -> None:
        self.quick = quick
        self.rounds = rounds
        self.placement = machine.Placement.of_this_machine()
        self._open = contextlib.ExitStack()
        try:
            self.server = self.start(kind)
            self._proxy = self._open.enter_context(
                Proxy(self.server.port, DELAY, self.placement.proxy)
            )
        except BaseException:
            self.close()
            raise

    def start(self, kind: str) -> servers.Server:
        """Start a server on the core that is the servers', to be stopped with the rest."""
        server = self._open.enter_context(servers.start(kind))
        machine.pin(server.pid, self.placement.server)
        return server

    @contextlib.contextmanager
    def on(self, kind: str) -> Iterator[None]:
        """Run the comparisons on another kind of server, over its unix socket."""
        usual, self.server = self.server, self.start(kind)
        try:
            yield
        finally:
            self.server.stop()
            self.server = usual

    @contextlib.contextmanager
    def on_cluster(self, kind: str) -> Iterator[None]:
        """Run the comparisons on a cluster of one node."""
        usual = self.server
        with servers.cluster(kind) as (self.server,):
            machine.pin(self.server.pid, self.placement.server)
            try:
                yield
            finally:
                self.server = usual

    def address(self, link: str) -> dict[str, Any]:
        if link == UNIX:
            return {"unix_socket_path": self.server.unix}
        if link == LOOPBACK:
            return {"host": "127.0.0.1", "port": self.server.port}
        return {"host": "127.0.0.1", "port": self._proxy.port}

    def worker(self, peer: Peer) -> Worker:
        python = peer.environment.python()
        return Worker(python, self.placement.producers, peer.variables)

    def close(self) -> None:
        self._open.close()


class _Run:
    """One contest over one link."""

    def __init__(self, bench: Bench, contest: Contest, link: str) -> None:
        self.bench = bench
        self.contest = contest
        self.link = link
        self.size = contest.size(Scale(bench.quick, link == DELAYED))
        self.raw = bench.server.raw
        self.workers: dict[str, list[Worker]] = {}
        self.found = Result(
            contest.name,
            contest.title,
            link if self.size.left is not None else "none",
            named(bench.server) if self.size.left is not None else "none",
            self.size.items * contest.producers,
            self.size.text,
            list(contest.goals),
            at=contest.at,
        )

    def result(self) -> Result:
        with contextlib.ExitStack() as stack:
            self._fill()
            present = [each for each in self.contest.entries if self._prepared(each, stack)]
            for entry in present:
                self.found.series[entry.label] = Series(entry.what)
                if entry.warm:
                    self._measured(entry)
            for number in range(self.bench.rounds):
                turn = number % len(present) if present else 0
                for entry in present[turn:] + present[:turn]:
                    self.found.series[entry.label].add(self._measured(entry))
            self._profile_what_is_missed(present, stack)
        memory.wipe(self.bench.server)
        return self.found

    def _prepared(self, entry: Entry, stack: contextlib.ExitStack) -> bool:
        """Start a contender's workers. If it cannot be installed, that is part of the result."""
        workers = []
        for number in range(self.contest.producers):
            try:
                worker = stack.enter_context(self.bench.worker(entry.peer))
            except Missing as missing:
                self.found.missing[entry.label] = str(missing)
                return False
            job = {"address": self.bench.address(self.link), "name": NAME, **self.size.job}
            job["first"] = job.get("first", 0) + number * self.size.items
            said = worker.ask(
                "prepare", module=entry.peer.module, task=entry.task, **{**job, **entry.job}
            )
            if "missing" in said:
                self.found.missing[entry.label] = said["missing"]
                return False
            workers.append(worker)
        self.workers[entry.label] = workers
        return True

    def _fill(self) -> None:
        """Put the stock on the server, once: each round begins with a copy of it."""
        memory.wipe(self.bench.server)
        if self.size.stock:
            jobs: SortedSet[Any] = SortedSet(
                self.bench.server.client(), STOCK, serializer=JSONSerializer()
            )
            number = self.size.stock
            jobs.add_many(data.items(0, number), score=data.scores(number))

    def _reset(self) -> None:
        if self.size.stock:
            self.raw.delete(NAME)
            memory.settle(self.bench.server)
            self.raw.copy(STOCK, NAME)
        else:
            memory.wipe(self.bench.server)

    def _measured(self, entry: Entry) -> dict[str, float]:
        self._reset()
        workers = self.workers[entry.label]
        before = self._server_cpu()
        for worker in workers:
            worker.start("measure")
        answers = [worker.answer() for worker in workers]
        spent = self._server_cpu() - before
        self._check(entry, sum(each["count"] for each in answers))
        samples: dict[str, float] = answers[0]["samples"]
        if self.size.left is not None:
            samples["server"] = spent
        if len(answers) > 1:
            began = min(each["began"] for each in answers)
            samples["wall"] = max(each["ended"] for each in answers) - began
            samples["cpu"] = sum(each["samples"]["cpu"] for each in answers)
        return samples

    def _check(self, entry: Entry, count: int) -> None:
        """A contender that did not do the work has no time."""
        if self.size.left is None:
            return
        # With key= and ties= redset queues elsewhere.
        elsewhere = (f"{NAME}:{{{NAME}}}:{each}" for each in ("keyed", "tied", "keyed-tied"))
        left = sum(self.raw.zcard(key) for key in (NAME, *elsewhere))
        done = self.found.items - left if self.size.through else abs(left - self.size.stock)
        if self.size.reads:
            done = count  # the server cannot tell
        if done != count or (entry.exact and left != self.size.left):
            raise RuntimeError(
                f"{self.contest.name}: {entry.label} says that it did {count}, the server "
                f"{done}; {left} items are left, {self.size.left} should be"
            )

    def _profile_what_is_missed(self, present: list[Entry], stack: contextlib.ExitStack) -> None:
        missed = [each.goal for each in self.found.verdicts() if each.met is False]
        ours = [entry for entry in present if entry.peer in OURS]
        for entry in ours:
            if not any(entry.label in (goal.of, goal.over) for goal in missed):
                continue
            profile = Profile(entry.label, parts=[self._server_time(entry)])
            self._reset()
            profile.rows = self.workers[entry.label][0].ask("profile")["rows"]
            for part in self.contest.parts:
                with_part = replace(part, peer=replace(part.peer, variables=entry.peer.variables))
                if self._prepared(with_part, stack):
                    profile.parts.append(self._part(part))
            self.found.profiles.append(profile)

    def _part(self, part: Entry) -> Part:
        """The median of a few rounds of a step, the first of them not counted."""
        alone = Series(part.what)
        for _ in range(4):
            self._reset()
            alone.add(self.workers[part.label][0].ask("measure")["samples"])
        wall, cpu = (statistics.median(alone.samples[key][1:]) for key in ("wall", "cpu"))
        return Part(part.what, wall, cpu)

    def _server_time(self, entry: Entry) -> Part:
        """Return the server's cost of one round. Its core does nothing else."""
        self._reset()
        before = self._server_cpu()
        for worker in self.workers[entry.label]:
            worker.start("measure")
        for worker in self.workers[entry.label]:
            worker.answer()
        return Part("the server's CPU, by its own account", self._server_cpu() - before)

    def _server_cpu(self) -> float:
        # Not the sum over its commands: a script's includes that of the commands in it.
        said = self.raw.info("cpu")
        return float(said["used_cpu_user"] + said["used_cpu_sys"])


def named(server: servers.Server) -> str:
    return f"{server.kind} {'.'.join(map(str, server.version))}"
