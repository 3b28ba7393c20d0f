"""The faults of a cluster: its slots move, its primaries fail over, die and stand still.

Replication is asynchronous, so a primary that dies takes its last steps with it. These are undone,
and the histories are read accordingly. A slot that moves and a manual failover undo nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import cluster

from chaos.history import Undone
from chaos.worker import ERRORS
from redset import SortedSet

if TYPE_CHECKING:
    from chaos.scenarios import Run

#: The set that the processes work on; see `Worker`.
NAME = "jobs"
#: Seconds for which a replica that runs may lag.
LAG = 2.0
#: Seconds that a primary stands still: longer than its cluster waits for it.
FROZEN = 4.0
#: The longest time-out of a client that is safe then, and one that is not, in seconds.
SAFE, UNSAFE = 1.0, 20.0


def _begin(run: Run) -> cluster.Cluster:
    run.start("producer", "producer", "consumer", "consumer", "consumer")
    run.rest(0.2, 0.4)
    return run.nodes


def migrations(run: Run, faults: int) -> None:
    """The set's slot moves key by key: on, back again, and to a primary without slots."""
    nodes = _begin(run)
    for number in range(faults):
        others, back = nodes.others(NAME), nodes.owner(NAME)
        # The last one has no slots, if the set's is not there.
        to = others[-1] if number % 3 == 0 else run.pick.choice(others)
        is_open = number % 3 == 2
        run.faults["moves key by key"] += 1
        run.faults["of these to a primary without slots"] += not nodes._has_slots(to)
        run.faults["of a slot that was open for a while"] += is_open
        nodes.move(NAME, to, hold=0.3 if is_open else 0.0)
        if run.pick.random() < 0.5:
            nodes.move(NAME, back)
            run.faults["moves back"] += 1
        run.rest(0.0, 0.3)
    run.rest(0.2, 0.3)


def migrations_at_once(run: Run, faults: int) -> None:
    """The set's slot moves in one step."""
    nodes = _begin(run)
    for _ in range(faults):
        nodes.move_atomically(NAME, run.pick.choice(nodes.others(NAME)))
        run.faults["atomic moves"] += 1
        run.rest(0.1, 0.4)


def takeovers(run: Run, faults: int) -> None:
    """An operator lets replicas take over."""
    nodes = _begin(run)
    for _ in range(faults):
        nodes.fail_over(NAME)
        run.faults["manual failovers"] += 1
        nodes.wait_until_whole()
        run.rest(0.2, 0.4)


def _replace(run: Run, old: Any, since: float, fault: str) -> None:
    """Wait until another node has the set of a dead primary, and start that one as a replica."""
    nodes = run.nodes
    nodes.wait_for_other(NAME, old)
    _undo(run, since - LAG)
    run.faults[fault] += 1
    run.rest(0.3, 0.6)
    old.revive()
    nodes.wait_until_whole()


def deaths(run: Run, faults: int) -> None:
    """The set's primary dies; its replica takes over, and it comes back as a replica."""
    nodes = _begin(run)
    for _ in range(faults):
        old = nodes.owner(NAME)
        died = time.monotonic()
        old.kill()
        _replace(run, old, died, "primaries killed")


def lagging(run: Run, faults: int) -> None:
    """The set's replica stops for a while, and its primary dies before the replica goes on."""
    nodes = _begin(run)
    for _ in range(faults):
        old = nodes.owner(NAME)
        stopped = time.monotonic()
        with nodes.replica_of(old).frozen():
            # Shorter than a node waits for another.
            time.sleep(1.0)
            old.kill()
        _replace(run, old, stopped, "primaries killed whose replica stood still")


def standstills(run: Run, faults: int) -> None:
    """The set's primary stands still until it is replaced; clients wait for less than that."""
    _standstills(run, faults)


def standstills_unnoticed(run: Run, faults: int) -> None:
    """The same, and clients wait for longer: the old primary answers them when it wakes up."""
    run._work["timeout"] = UNSAFE
    _standstills(run, faults, woken=LAG)


def _standstills(run: Run, faults: int, woken: float = 0.0) -> None:
    nodes = _begin(run)
    for _ in range(faults):
        old = nodes.owner(NAME)
        began = time.monotonic()
        with old.frozen():
            nodes.wait_for_other(NAME, old)
            _undo(run, began - LAG)
            time.sleep(max(0.0, began + FROZEN - time.monotonic()))
        # A connection that is not closed yet has its answers for a moment.
        time.sleep(woken)
        if woken:
            _undo(run, began - LAG)
        run.faults["primaries frozen and replaced"] += 1
        nodes.wait_until_whole()
        run.rest(0.3, 0.6)


def _undo(run: Run, perhaps: float) -> None:
    """Steps since that time may be undone, and none surely is."""
    now = time.monotonic()
    run.undone.append(Undone(perhaps, now, now))


# --- items that are handed out for good


class Takers:
    """Threads that take items of a set by ``pop``, ``take`` and ``take(wait=)``."""

    def __init__(self, run: Run, number: int, timeout: float) -> None:
        self.told: list[str] = []
        #: Items that a call without an answer may have taken, at most.
        self.excused = 0
        self.stall = 0.0
        self.calls = 0
        self.errors: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._threads = [
            threading.Thread(
                target=self._take, args=(run.nodes.client(socket_timeout=timeout), place, timeout)
            )
            for place in range(number)
        ]

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._end.set()
            for thread in self._threads:
                thread.join(120)

    def _take(self, client: Any, place: int, timeout: float) -> None:
        jobs: SortedSet[str] = SortedSet(client, NAME)
        ways: list[tuple[Callable[[], Any], int]] = [
            (jobs.pop, 1),
            (lambda: jobs.take(20), 20),
            (lambda: jobs.take(2, wait=0.3), 2),
        ]
        for how, num in itertools.islice(itertools.cycle(ways), place, None):
            if self._end.is_set():
                break
            began = time.monotonic()
            try:
                found = how()
            except KeyError:  # `pop` of an empty set
                found = []
            except ERRORS as error:
                with self._lock:
                    self.excused += num
                    self.errors[f"{type(error).__name__}: {error}"[:60]] += 1
                continue
            finally:
                # A waiting call may last for its time.
                took = time.monotonic() - began - (0.3 if num == 2 else 0.0)
                self.stall = max(self.stall, took)
            with self._lock:
                self.calls += 1
                self.told += [found] if isinstance(found, str) else found
            time.sleep(0.001)
        client.close()


def takes(run: Run, faults: int) -> None:
    """Items are taken while their slot moves, fails over, and its primary is silent for a moment.

    A call that raises may have taken its items. All others hand out each item once.
    """
    nodes = run.nodes
    kinds = ["move", "take over", "silence"]
    if nodes.kind == "valkey9":
        kinds.append("atomic move")
    with contextlib.closing(nodes.client()) as client:
        jobs: SortedSet[str] = SortedSet(client, NAME)
        takers = Takers(run, 3, timeout=0.4)
        added: list[str] = []
        with takers.working():
            for number in range(faults):
                names = [f"{number}-{place}" for place in range(1500)]
                jobs.add_many(names)
                added += names
                run.rest(0.0, 0.05)
                _disturb(run, kinds[number % len(kinds)])
                run.faults[kinds[number % len(kinds)]] += 1
        left = [item for part in iter(lambda: jobs.take(500), []) for item in part]
    counts = Counter(takers.told + left)
    run.operations += takers.calls + sum(takers.errors.values())
    run.unknown += sum(takers.errors.values())
    run.errors += takers.errors
    run.stall = max(run.stall, takers.stall)
    run.extra["items"] += len(added)
    run.extra["handed out"] += len(takers.told)
    run.extra["acknowledged"] += len(takers.told)
    run.doubled += [f"{name} was handed out {num} times" for name, num in counts.items() if num > 1]
    run.broken += [f"{name} was handed out, and was not added" for name in set(counts) - set(added)]
    gone = set(added) - set(counts)
    if len(gone) > takers.excused:
        run.lost.append(
            f"{len(gone)} items are gone, and calls that raised took {takers.excused} at most "
            f"({dict(takers.errors)})"
        )


def _disturb(run: Run, kind: str) -> None:
    nodes = run.nodes
    # One with a replica; the other one comes last, or was not chosen before.
    to = nodes.others(NAME)[0]
    if kind == "move":
        nodes.move(NAME, to, hold=0.1)
    elif kind == "atomic move":
        nodes.move_atomically(NAME, to)
    elif kind == "take over":
        nodes.wait_until_whole()
        nodes.fail_over(NAME)
    else:
        pid = nodes.owner(NAME).pid
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.7)
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.2)
