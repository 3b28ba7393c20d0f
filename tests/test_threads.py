"""Threads: sixteen share a set, of which children are forked in the middle; one data, many readers.

What threads do to a bounded pool is in test_processes.py, to a window in flight in
test_transport.py, to an encoder in test_wire.py.
"""

from __future__ import annotations

import collections
import contextlib
import faulthandler
import json
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import children
import pytest
import servers
from marks import needs_fork

from redset import SortedSet, _wire
from redset._wire import fallback
from redset.serializers import JSONSerializer

THREADS = 16


def wires() -> Iterator[Any]:
    yield pytest.param(fallback, id="python")
    with contextlib.suppress(ImportError):
        yield pytest.param(_wire.load("cython"), id="cython")


def in_threads(work: Any) -> None:
    """Run ``work(number)`` in all threads at once; raise their errors."""
    errors: list[BaseException] = []
    start = threading.Barrier(THREADS)

    def run(number: int) -> None:
        try:
            start.wait(40)
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=run, args=(number,), daemon=True) for number in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def share(jobs: SortedSet[str], name: str, rounds: int, took: list[str], added: list[str]) -> None:
    """Add under a name of its own and take any items, in bulk and one by one."""
    pick = random.Random(name)
    for turn in range(rounds):
        mine = [f"{name}/{turn}/{at}" for at in range(pick.choice((1, 5, 600)))]
        if len(mine) == 1:
            assert jobs.add(mine[0], pick.random()) is not None
        elif pick.random() < 0.5:
            assert jobs.add_many(iter(mine), pick.random()).added == len(mine)
        else:
            assert sorted(jobs.add_new(mine)) == sorted(mine)
        added.extend(mine)
        how = pick.randrange(4)
        if how == 0:
            with contextlib.suppress(KeyError):
                took.append(jobs.pop())
        elif how == 1:
            took.extend(jobs.take(700))
        elif how == 2:
            took.extend(item for item, _ in jobs.take(30, with_scores=True))
        else:
            jobs.scores(mine[:10])
            jobs.peek_many(3)
            jobs.stats()


@needs_fork
@pytest.mark.timeout(240)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_an_item_is_handed_out_once_among_16_threads_and_forked_children(
    any_server: servers.Server, tmp_path: Path
) -> None:
    client = any_server.client()
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    took: list[list[str]] = [[] for _ in range(THREADS)]
    added: list[list[str]] = [[] for _ in range(THREADS)]
    forks: list[tuple[int, Path]] = []

    def fork(number: int) -> None:
        told = tmp_path / str(number)
        # In the child the other threads are gone, and their locks may be held. A tracer of lines
        # could wait for its lock forever, even in the code that runs at the fork.
        tracer = sys.gettrace()
        sys.settrace(None)
        child = os.fork()
        if child:
            sys.settrace(tracer)
            forks.append((child, told))
            return
        faulthandler.dump_traceback_later(120, exit=True)
        status = 1
        try:
            mine: tuple[list[str], list[str]] = ([], [])
            share(jobs, f"child {number}", 6, *mine)
            told.write_text(json.dumps(mine))
            status = 0
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)

    def work(number: int) -> None:
        share(jobs, str(number), 4, took[number], added[number])
        if number % 5 == 0:
            fork(number)
        share(jobs, f"{number} again", 4, took[number], added[number])

    try:
        in_threads(work)
        count = len(forks)
        while forks:
            child, told = forks.pop()
            assert children.reap(child, 100, told.name) == 0
            theirs = json.loads(told.read_text())
            took.append(theirs[0])
            added.append(theirs[1])
    finally:
        for child, _ in forks:
            os.kill(child, signal.SIGKILL)
            children.reap(child)
    assert count == 4
    handed_out = [item for each in took for item in each] + jobs.take(1 << 20)
    assert [item for item, n in collections.Counter(handed_out).items() if n > 1] == []
    assert sorted(handed_out) == sorted(item for each in added for item in each)
    client.close()


@pytest.mark.parametrize("wire", list(wires()))
def test_items_may_change_while_threads_encode_them(wire: ModuleType) -> None:
    # Each chunk is of items as they were at some time; without the GIL, too, nothing crashes.
    dumps = JSONSerializer().dumps
    encoder = wire.Encoder([b"ZADD", b"jobs"], dumps, None, 0.0, 0, 0, False, 0, b"", False)
    items: list[Any] = [{"url": f"/{n}", "more": {"n": n}, "list": [n]} for n in range(60)]
    rounds = 60 if wire.IMPLEMENTATION == "cython" else 6

    def work(number: int) -> None:
        pick = random.Random(number)
        for turn in range(rounds):
            if number % 4:
                for chunk in encoder.encode_all(items, None, True, 7, 1 << 20):
                    for bad in chunk.bad:
                        assert isinstance(bad.error, (RuntimeError, TypeError, ValueError)), bad
            else:
                for _ in range(50):
                    item = pick.choice(items)
                    item["more"] = {"n": turn, f"{pick.random()}": [number]}
                    item[f"field {pick.randrange(30)}"] = {}
                    item.pop(f"field {pick.randrange(30)}", None)
                    item["list"].append(number)
                    del item["list"][:-3]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        in_threads(work)
    finally:
        sys.setswitchinterval(interval)
