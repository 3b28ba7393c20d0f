"""The faults: each scenario has processes at work, disturbs them or their server, and checks.

A scenario is a function of a `Run` and a number of faults. What is left when it ends is worked off
without faults, to the last item; then the histories are read.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import cluster
import grouped
import redis
import servers
from proxy import Proxy

from chaos import checker, clusters, history, politeness
from chaos.checker import Final, Findings
from chaos.history import Operation, Undone
from chaos.worker import (
    OPTIONS,
    OPTIONS_OF_GROUPS,
    Work,
    Worker,
    links_of,
    options_of,
    score_of,
    work,
)

#: Seconds for working off the rest of a scenario.
PATIENCE = 60


class Outcome(NamedTuple):
    """The result of a scenario."""

    scenario: str
    server: str
    seed: int
    options: str
    seconds: float
    operations: int
    unknown: int
    undone: int
    #: The longest operation, in seconds.
    stall: float
    faults: Counter[str]
    findings: Findings
    #: The same if the server had undone nothing.
    strict: Findings
    #: Errors that calls raised, and whether none may.
    errors: Counter[str]
    silent: bool

    def __str__(self) -> str:
        counts = self.findings.counts
        faults = ", ".join(f"{num} {what}" for what, num in self.faults.items())
        head = (
            f"{self.scenario}: {self.server}, {self.options}, seed {self.seed}: "
            f"{self.operations} operations in {self.seconds:.0f} s ({self.unknown} of unknown end"
            f"{f', {self.undone} undone' if self.undone else ''}), {faults}; "
            f"{counts['items']} items, {counts['handed out']} handed out, "
            f"{counts['acknowledged']} acknowledged "
            f"(and {counts['perhaps acknowledged']} perhaps), {counts['dead']} dead; "
            f"{len(self.findings.lost)} lost, {len(self.findings.doubled)} doubled, "
            f"{len(self.findings.wrong)} wrong; the longest stall {self.stall:.1f} s"
        )
        lost = len(self.strict.lost) - len(self.findings.lost)
        again = len(self.strict.doubled) - len(self.findings.doubled)
        if lost or again:
            head += f"; undone by the server: {lost} lost, {again} doubled"
        again = f"  (python -m chaos {self.scenario} --seed {self.seed} --servers {self.server})"
        raised = [f"  raised {num} times: {text}" for text, num in self.errors.most_common(5)]
        bad = self.findings.bad
        return "\n".join(
            [head, *raised, *(f"  {each}" for each in bad[:20]), *([again] if bad else [])]
        )

    @property
    def failed(self) -> bool:
        return bool(self.findings.bad or (self.silent and self.errors))


class Run:
    """The processes of a scenario, their server, and the faults."""

    def __init__(
        self, server: servers.Server | cluster.Cluster, seed: int, options: str, **work: Any
    ) -> None:
        self._server = server
        self.seed = seed
        self.options = options
        self.pick = random.Random(seed)
        self.faults: Counter[str] = Counter()
        self.undone: list[Undone] = []
        self.directory = Path(tempfile.mkdtemp(prefix="redset-chaos-"))
        #: There once the processes are to end.
        self._end = self.directory / "end"
        self._work = {"options": options, "end": str(self._end), **work}
        if isinstance(server, servers.Server):
            self._work["address"] = server.unix
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["redset", "redset.asyncio", "redis", "redis.asyncio"])
        self._running: dict[Any, Work] = {}
        self._number = 0
        #: The processes that ended by themselves, which none should.
        self.broken: list[str] = []
        #: Performed on the rest.
        self.last = "consumer"
        #: How many pages a crawl must reach, from page 1.
        self.pages = 0
        # The figures and findings of work in this process.
        self.operations, self.unknown, self.stall = 0, 0, 0.0
        self.errors: Counter[str] = Counter()
        self.extra: Counter[str] = Counter()
        self.lost: list[str] = []
        self.doubled: list[str] = []
        #: Limits, intervals and rests that were broken, and groups that are stranded.
        self.impolite: list[str] = []

    @property
    def server(self) -> servers.Server:
        assert isinstance(self._server, servers.Server)
        return self._server

    @server.setter
    def server(self, server: servers.Server) -> None:
        self._server = server

    @property
    def nodes(self) -> cluster.Cluster:
        assert isinstance(self._server, cluster.Cluster)
        return self._server

    def _where(self) -> dict[str, Any]:
        """Return the settings of a worker that say where its set is."""
        if isinstance(self._server, cluster.Cluster):
            node = next(node for node in self._server.nodes if not node.is_down)
            return {"address": node.port, "cluster": True}
        return {"address": self._server.unix}

    def spawn(self, role: str, **own: Any) -> Any:
        """Start a process."""
        self._number += 1
        name = f"{role}{self._number}"
        seed = self.pick.randrange(1 << 30)
        work_of = {**self._where(), "directory": str(self.directory), **self._work, **own}
        what = Work(role, name, seed=seed, **work_of)
        process = self._context.Process(target=work, args=(what,), daemon=True)
        process.start()
        self._running[process] = what
        return process

    def start(self, *roles: str, **own: Any) -> None:
        """Start processes, and wait until each of them has begun with something."""
        started = [self._running[self.spawn(role, **own)].name for role in roles]
        end = time.monotonic() + PATIENCE
        while not all(self._begun(name) for name in started):
            if time.monotonic() > end:
                raise TimeoutError(f"not begun after {PATIENCE} s: {started}")
            time.sleep(0.01)

    def _begun(self, name: str) -> bool:
        path = self.directory / f"{name}.jsonl"
        return path.exists() and path.stat().st_size > 0

    def work_on(self, lines: int) -> None:
        """Wait until the histories of the processes have so many lines."""
        end = time.monotonic() + PATIENCE
        while True:
            found = sum(path.read_bytes().count(b"\n") for path in self.directory.glob("*.jsonl"))
            if found >= lines:
                return
            if time.monotonic() > end:
                raise TimeoutError(f"{found} lines, not {lines}, after {PATIENCE} s")
            time.sleep(0.05)

    def victims(self, *roles: str) -> list[Any]:
        return [each for each, what in self._running.items() if not roles or what.role in roles]

    def kill(self, process: Any) -> None:
        """End a process at once, and start another in its place."""
        what = self._running.pop(process)
        process.kill()
        self._join(process, what)
        self.faults["kills"] += 1
        self.spawn(what.role, ahead=what.ahead)

    def rest(self, low: float, high: float) -> None:
        """Let it be for a time between these."""
        time.sleep(self.pick.uniform(low, high))

    def admin(self, *command: Any) -> Any:
        return self.server.raw.execute_command(*command)

    def end(self) -> None:
        """End the processes in peace, each after its running operation."""
        self._end.touch()
        for process, what in self._running.items():
            process.join(PATIENCE)
            if process.is_alive():
                self.broken.append(f"{what.name} hangs")
                process.kill()
            self._join(process, what)
        self._running.clear()
        self._end.unlink()

    def _join(self, process: Any, what: Work) -> None:
        process.join()
        if process.exitcode not in (0, -signal.SIGKILL):
            self.broken.append(f"{what.name} ended with {process.exitcode}")

    @contextlib.contextmanager
    def worker(self, name: str) -> Iterator[Worker]:
        """One in this process, without pauses, whose client sends nothing twice."""
        own = {**self._work, **self._where(), "pause": 0.0, "exact": True}
        # Nothing disturbs it but other programs of the machine.
        own["timeout"] = 20.0
        own |= {"awaited": False, "draining": True}
        worker = Worker(Work(self.last, name, str(self.directory), self.seed, **own))
        try:
            yield worker
        finally:
            worker.close()

    def drain(self) -> None:
        """Work off the rest."""
        with self.worker(f"last{time.monotonic()}") as worker:
            end = time.monotonic() + PATIENCE
            while not worker.set.finished():
                if not worker.step():
                    time.sleep(0.02)
                if time.monotonic() > end:
                    raise TimeoutError(f"not finished after {PATIENCE} s: {worker.set.stats()}")

    def final(self) -> Final:
        """Return the content of the set."""
        with self.worker("reader") as worker:
            s = worker.set
            load = worker.codec.loads
            return Final(
                {worker.name(item): s.score(item) for item in s},
                {worker.name(item): score for item, score, *_ in s.leased()},
                {worker.name(load(letter.raw)): letter.score for letter in s.dead},
            )

    def close(self) -> None:
        for process in self._running:
            # Also one that is stopped.
            process.kill()
            process.join()
        shutil.rmtree(self.directory, ignore_errors=True)

    def check(
        self, final: Final, undone: list[Undone] | None = None
    ) -> tuple[list[Operation], Findings]:
        undone = self.undone if undone is None else undone
        operations = history.read(self.directory, undone)
        known = "remember" in options_of(self.options)
        scheduled = bool(self._work.get("scheduled"))
        found = checker.check(operations, final, remember=known, scheduled=scheduled)
        found.counts.update(self.extra)
        found.lost.extend(self.lost)
        found.doubled.extend(self.doubled)
        found.wrong.extend(self.broken + self.impolite)
        if self.pages:
            found.lost.extend(unreached(operations, self.pages, undone))
        return operations, found


def unreached(operations: list[Operation], pages: int, undone: list[Undone]) -> list[str]:
    """The pages of a crawl that were not reached, though they had to be.

    A page's hyperlinks may be missing if they were offered in a step of their own, and the page's
    lease was older than the steps that the server forgot.
    """
    reached: dict[str, bool] = {}
    leased = {(each.process, each.number): each.begin for each in operations if each.do == "lease"}
    for each in operations:
        if each.do != "ack" or each.state == "undone" or each.what.get("ours") == 0:
            continue
        for number, name in each.what["groups"]["ack"]:
            begin = leased[each.process, number]
            whole = "add" in each.what or not links_of(name, pages)
            safe = whole or all(gap.state(begin, each.end) == "done" for gap in undone)
            reached[name] = reached.get(name, True) and safe
    missing, known, waiting = [], {"1"}, ["1"]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            missing.append(f"page {name} was not reached")
        elif reached[name]:
            new = set(links_of(name, pages)) - known
            known |= new
            waiting += new
    return missing


# --- the scenarios


def kills(run: Run, faults: int) -> None:
    """Consumers and producers end at any moment."""
    run.start("producer", "producer", "consumer", "consumer")
    if "remember" in OPTIONS[run.options]:
        run.start("forgetter")
    run.rest(0.2, 0.3)
    for _ in range(faults):
        run.kill(run.pick.choice(run.victims("producer", "consumer")))
        run.rest(0.0, 0.15)


def freezes(run: Run, faults: int) -> None:
    """Consumers stand still for longer than their leases last, and go on."""
    run.start("producer", "consumer", "consumer", "consumer")
    run.rest(0.2, 0.3)
    for _ in range(faults):
        process = run.pick.choice(run.victims("consumer"))
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.7)
        os.kill(process.pid, signal.SIGCONT)
        run.faults["freezes past the ttl"] += 1
        run.rest(0.0, 0.2)


def restarts(run: Run, faults: int) -> None:
    """The server dies, and starts with all that it answered."""
    _restarts(run, faults, (0.3, 0.8), 0)


def restarts_everysec(run: Run, faults: int) -> None:
    """The server dies, and starts perhaps without the last two seconds."""
    _restarts(run, faults, (2.5, 3.5), 2)


def _restarts(run: Run, faults: int, between: tuple[float, float], forgets: float) -> None:
    run.start("producer", "consumer", "consumer")
    for _ in range(faults):
        run.rest(*between)
        died = time.monotonic()
        run.server.revive()
        now = time.monotonic()
        if forgets:
            run.undone.append(Undone(died - forgets, now, now))
        run.faults["restarts"] += 1
    run.rest(0.2, 0.3)


def _crawl(run: Run, faults: int) -> None:
    run.last, run.pages = "crawler", 1000 + 700 * faults
    # A page that is dead would hide its hyperlinks.
    run._work |= {"pages": run.pages, "exact": True, "max_attempts": 1000}
    with run.worker("first") as first:
        first.offer([["1", score_of("1")]])
    run.start("crawler", "crawler", "crawler")


def rollbacks(run: Run, faults: int) -> None:
    """The server dies, and starts with an old dump; a crawl reaches every page all the same."""
    _crawl(run, faults)
    for _ in range(faults):
        run.rest(0.2, 0.5)
        before = time.monotonic()
        run.server.raw.save()
        after = time.monotonic()
        run.rest(0.3, 0.8)
        run.server.revive()
        run.undone.append(Undone(before, after, time.monotonic()))
        run.faults["restarts from an old dump"] += 1
    run.rest(0.2, 0.3)


def failovers(run: Run, faults: int) -> None:
    """The server dies, and a lagging replica takes its place."""
    address = os.path.join(run.directory, "s")
    os.symlink(run.server.unix, address)
    run._work["address"] = address
    _crawl(run, faults)
    for _ in range(faults):
        old = run.server
        with Proxy(old) as link:
            replica = servers.Server(old.kind, replicaof=f"127.0.0.1 {link.port}", **QUICK)
            try:
                run.rest(0.2, 0.5)
                before = _followed(old, replica)
                link.open = False
                link.cut()
                time.sleep(0.05)
                after = time.monotonic()
                run.rest(0.2, 0.6)
                old.stop()
            except BaseException:
                replica.stop()
                raise
        replica.raw.execute_command("REPLICAOF", "NO", "ONE")
        os.symlink(replica.unix, address + "new")
        os.replace(address + "new", address)
        run.server = replica
        run.undone.append(Undone(before, after, time.monotonic()))
        run.faults["failovers to a lagging replica"] += 1
    run.rest(0.2, 0.3)


def _followed(server: servers.Server, replica: servers.Server) -> float:
    """Wait for a replica; give a time up to which it has all."""
    end = time.monotonic() + 30
    while True:
        now = time.monotonic()
        sent = server.raw.info("replication")["master_repl_offset"]
        for _ in range(20):
            told = replica.raw.info("replication")
            if told["master_link_status"] == "up" and told["slave_repl_offset"] >= sent:
                return now
            time.sleep(0.01)
        if now > end:
            raise TimeoutError("the replica does not follow")


def cuts(run: Run, faults: int) -> None:
    """Connections end after any byte of a request or of a reply."""
    with Proxy(run.server) as proxy:
        run._work["address"] = proxy.port
        run.start("producer", "consumer", "consumer")
        run.rest(0.4, 0.5)
        while sum(run.faults.values()) < faults:
            way = run.pick.choice(["up", "down"])
            most = run.pick.choice([30, 300, 3000])
            proxy.cut_after(**{way: run.pick.randrange(most)})
            end = time.monotonic() + 2
            while proxy.armed and time.monotonic() < end:
                time.sleep(0.002)
            run.faults[f"connections cut {way}wards"] += not proxy.armed
            proxy.seen.clear()
            run.rest(0.0, 0.03)
        run.end()


def stalls(run: Run, faults: int) -> None:
    """Requests are late, and the server is silent for longer than clients wait."""
    chance = run.pick
    with Proxy(run.server) as proxy:
        run._work["address"] = proxy.port
        run.start("producer", "consumer", "consumer")
        run.rest(0.4, 0.5)
        for _ in range(faults):
            if chance.random() < 0.5:
                with run.server.frozen():
                    time.sleep(0.6)
                run.faults["servers frozen"] += 1
            else:
                late = random.Random(chance.random())
                proxy.rule = lambda _, late=late: 0.6 if late.random() < 0.05 else None
                time.sleep(0.6)
                proxy.rule = None
                run.faults["times of late requests"] += 1
            run.rest(0.1, 0.3)
        run.end()


def full(run: Run, faults: int) -> None:
    """The server is full, which consumers drain; and it is relieved."""
    run.start("producer", "producer", "consumer", "consumer")
    for _ in range(faults):
        run.rest(0.3, 0.5)
        used = int(run.server.raw.info("memory")["used_memory"])
        run.admin("CONFIG", "SET", "maxmemory", used)
        end = time.monotonic() + 30
        while _writes(run) and time.monotonic() < end:
            time.sleep(0.01)
        run.faults["times full"] += time.monotonic() < end
        run.rest(0.2, 0.4)
        run.admin("CONFIG", "SET", "maxmemory", 0)
    run.end()
    # To the last item on a full server.
    run.admin("CONFIG", "SET", "maxmemory", "1")
    try:
        assert not _writes(run)
        run.drain()
    finally:
        run.admin("CONFIG", "SET", "maxmemory", 0)


def _writes(run: Run) -> bool:
    try:
        run.server.raw.set("other", "x")
    except redis.ResponseError:
        return False
    return True


def admin(run: Run, faults: int) -> None:
    """An administrator ends connections, has scripts forgotten, has idle clients sent away."""
    run.start("producer", "consumer", "consumer")
    run.spawn("consumer", pause=2.5)
    run.rest(0.3, 0.5)
    for number in range(faults):
        what = ("CLIENT KILL", "SCRIPT FLUSH", "CONFIG SET timeout 1", "CLIENT KILL")[number % 4]
        if what == "CLIENT KILL":
            run.admin("CLIENT", "KILL", "TYPE", "normal")
        elif what == "SCRIPT FLUSH":
            run.admin("SCRIPT", "FLUSH")
        else:
            run.admin("CONFIG", "SET", "timeout", 1)
            time.sleep(2.5)
            run.admin("CONFIG", "SET", "timeout", 0)
        run.faults[what] += 1
        run.rest(0.02, 0.2)


def clocks(run: Run, faults: int) -> None:
    """The clocks of consumers are hours off; some of them are killed, too."""
    run.start("producer")
    for ahead in (-7.0, 5.0, 0.01):
        run.spawn("consumer", ahead=ahead)
        run.faults["clocks off"] += 1
    run.rest(0.3, 0.5)
    for _ in range(faults):
        run.kill(run.pick.choice(run.victims("consumer")))
        run.rest(0.1, 0.5)


def groups(run: Run, faults: int) -> None:
    """Workers of a grouped set end or stand still, items move and go, the set is cleared once."""
    with _judged(run, [run.options]):
        run.start("producer", "producer", "consumer", "consumer", "consumer", "meddler")
        run.rest(0.2, 0.3)
        for number in range(faults):
            if run.pick.random() < 0.1:
                process = run.pick.choice(run.victims("consumer"))
                os.kill(process.pid, signal.SIGSTOP)
                time.sleep(0.7)
                os.kill(process.pid, signal.SIGCONT)
                run.faults["freezes past the ttl"] += 1
            else:
                run.kill(run.pick.choice(run.victims("producer", "consumer")))
            if number == faults // 2 and run.pick.random() < 0.5:
                _clear(run)
            # A process needs some time before it does anything.
            run.rest(0.1, 0.6)


def groups_rolling(run: Run, faults: int) -> None:
    """Processes with a limit of 1 are replaced by others with 3, and these by some with 1."""
    names = ["one in work, 4 ms", "three in work, 4 ms"]
    run.options = run._work["options"] = names[0]
    with _judged(run, names):
        run.start("producer", "consumer", "consumer")
        for turn in range(faults):
            run.rest(0.1, 0.3)
            old = run.pick.choice(run.victims("consumer"))
            # All are of one kind after the first and the second half.
            run.start("consumer", options=names[1 if turn < faults / 2 else 0])
            run._running.pop(old)
            old.kill()
            old.join()
            run.faults["kills"] += 1


def _clear(run: Run) -> None:
    with run.worker(f"clearer{time.monotonic()}") as worker:
        worker.does("clear", lambda: {"anything": bool(worker.set.clear())})
        _set_own_values(worker.set)
    run.faults["clears"] += 1


def _set_own_values(jobs: Any) -> None:
    for name, (limit, interval) in politeness.OWN.items():
        own: dict[str, Any] = {} if limit is None else {"limit": limit or None}
        own |= {} if interval is None else {"interval": interval / 1000}
        jobs.set_group(name, **own)


@contextlib.contextmanager
def _judged(run: Run, options: list[str]) -> Iterator[None]:
    """Judge the block by the server's log, and the keys at its end."""
    own = [options_of(name) for name in options]
    limits = [each["group_limit"] for each in own]
    limit = None if None in limits else max(limits)
    interval = 1000 * min(each.get("group_interval", 0) for each in own)
    with run.worker("first") as worker:
        _set_own_values(worker.set)
    log = politeness.Log(run.server, run.directory / "log")
    with log:
        yield
        # The log of a run in which little was handed out shows nothing.
        run.work_on(1000)
        run.end()
    rests = politeness.rests(history.read(run.directory))
    ttl = 1000 * float(run._work.get("ttl", Work._field_defaults["ttl"]))
    judge = politeness.Judge(limit, round(interval), ttl, rests)
    judge.replay(log)
    run.extra["starts"] += judge.starts
    run.impolite += judge.wrong
    # A process with the smallest limit leaves a group that has so many in work where it is.
    smallest = min((each for each in limits if each is not None), default=None)
    run.impolite += grouped.inconsistencies(run.server.raw, smallest)


class Scenario(NamedTuple):
    """A scenario: its function, its faults on a server in full and in short, and its set."""

    perform: Callable[[Run, int], None]
    many: int
    few: int
    config: Mapping[str, Any] = MappingProxyType({})
    work: Mapping[str, Any] = MappingProxyType({})
    #: The options of the set; drawn by the seed if there are none.
    options: str = ""
    #: Whether they are drawn from those of grouped sets.
    grouped: bool = False
    #: On a cluster of three primaries and their replicas, and a fourth primary without slots.
    cluster: bool = False
    #: The kind of server, if only one does.
    only: str = ""
    #: Whether no call may raise: all are sent again until they are performed.
    silent: bool = False


#: Replicas are there at once.
QUICK = {"repl-diskless-sync-delay": 0}
NO_EVICTION = {"maxmemory-policy": "noeviction"}
AOF = {"appendonly": "yes"}
SCENARIOS: dict[str, Scenario] = {
    "kills": Scenario(kills, 100, 12),
    "freezes": Scenario(freezes, 20, 1),
    "restarts": Scenario(restarts, 10, 2, {**AOF, "appendfsync": "always"}),
    "everysec": Scenario(restarts_everysec, 10, 1, {**AOF, "appendfsync": "everysec"}),
    "rollbacks": Scenario(rollbacks, 8, 1, options="remembering"),
    "failovers": Scenario(failovers, 4, 1, QUICK, options="keyed, remembering"),
    "cuts": Scenario(cuts, 60, 12),
    "stalls": Scenario(stalls, 20, 1),
    "full": Scenario(full, 8, 1, NO_EVICTION, {"padding": 2000, "plenty": 10**6}),
    "admin": Scenario(admin, 40, 3),
    "clocks": Scenario(clocks, 10, 2),
    "schedules": Scenario(clocks, 10, 2, work={"scheduled": True}),
    "groups": Scenario(groups, 40, 8, grouped=True),
    "groups-schedules": Scenario(groups, 40, 8, work={"scheduled": True}, grouped=True),
    "groups-rolling": Scenario(groups_rolling, 30, 6, grouped=True),
}
#: Chunks that are in flight together, more items than a step takes, leases that outlast a failover.
BULK = {
    "sizes": (1, 20, 60, 1500),
    "plenty": 3000,
    "ttl": 6.0,
    "timeout": clusters.SAFE,
}
SCENARIOS |= {
    name: Scenario(perform, many, few, work=BULK, cluster=True, only=only, silent=silent)
    for name, perform, many, few, only, silent in (
        ("migrations", clusters.migrations, 12, 3, "", True),
        ("migrations-at-once", clusters.migrations_at_once, 12, 2, "valkey9", True),
        ("takeovers", clusters.takeovers, 6, 1, "", True),
        ("deaths", clusters.deaths, 4, 1, "", True),
        ("lagging", clusters.lagging, 4, 1, "", True),
        ("standstills", clusters.standstills, 3, 1, "", True),
        ("standstills-unnoticed", clusters.standstills_unnoticed, 3, 1, "", True),
        ("takes", clusters.takes, 12, 4, "", False),
    )
}


def perform(name: str, kind: str, seed: int, faults: int) -> Outcome:
    """Perform a scenario on a new server of this kind."""
    scenario = SCENARIOS[name]
    # A set with ties= cannot have times as scores.
    timed = scenario.work.get("scheduled")
    table = OPTIONS_OF_GROUPS if scenario.grouped else OPTIONS
    names = [each for each in sorted(table) if not (timed and "ties" in table[each])]
    options = scenario.options or names[seed % len(names)]
    with _run(kind, seed, options, scenario) as run:
        started = time.monotonic()
        scenario.perform(run, faults)
        run.end()
        run.drain()
        final = run.final()
        operations, findings = run.check(final)
        done = [each for each in operations if each.end < math.inf]
        return Outcome(
            name,
            kind,
            seed,
            options,
            time.monotonic() - started,
            run.operations + len(operations),
            run.unknown + sum(each.state == "unknown" for each in operations),
            sum(each.state == "undone" for each in operations),
            max([run.stall, *(each.end - each.begin for each in done)]),
            run.faults,
            findings,
            run.check(final, [])[1] if run.undone else findings,
            run.errors + Counter(each.what["error"][:60] for each in done if "error" in each.what),
            scenario.silent,
        )


@contextlib.contextmanager
def _run(kind: str, seed: int, options: str, scenario: Scenario) -> Iterator[Run]:
    server: Any = (
        cluster.Cluster(kind, spare=1, **scenario.config)
        if scenario.cluster
        else servers.Server(kind, **scenario.config)
    )
    run = Run(server, seed, options, **scenario.work)
    try:
        yield run
    finally:
        try:
            run.close()
        finally:
            # Another one than at the beginning, after a failover.
            run._server.stop()
