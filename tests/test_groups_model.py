"""A grouped set does what its model allows and requires, whatever is done to it.

Time passes only by steps of the walk: they set the ends of leases and of rests. 30 ms an example.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import grouped
import pytest
import servers
from grouped import P
from grouped_model import GroupedModel
from hypothesis import given
from hypothesis import strategies as st
from selection import drawn

from redset import SortedSet

HOSTS = ["a", "b", "c", "d"]
#: Only these have values of their own, so that others keep the set's.
OWNERS = ["a", "b"]
NAMES = [str(number) for number in range(12)]

name = st.sampled_from(NAMES)
some = st.lists(name, min_size=1, max_size=4)
#: Items without a group among them.
host = st.sampled_from([*HOSTS, *HOSTS, None])
score = st.integers(0, 4)
place = st.integers(0, 20)
STEPS = st.one_of(
    st.tuples(st.just("add"), name, host, score),
    st.tuples(st.just("add_many"), st.lists(st.tuples(name, host, score), min_size=1, max_size=8)),
    st.tuples(st.just("lease"), st.sampled_from([1, 1, 2, 3, 5, 50])),
    st.tuples(st.just("lease"), st.sampled_from([1, 1, 2, 3, 5, 50])),
    st.tuples(st.just("settle"), place, st.sampled_from(["ack", "ack", "fail", "release"])),
    st.tuples(st.just("settle"), place, st.sampled_from(["ack", "ack", "fail", "release"])),
    st.tuples(st.just("delay"), place, st.sampled_from(["fail", "release"]), st.booleans()),
    st.tuples(st.just("renew"), place),
    st.tuples(st.just("expire"), place),
    st.tuples(st.just("take"), st.sampled_from([1, 2, 5])),
    st.tuples(st.just("discard"), some),
    st.tuples(st.just("pause"), st.sampled_from(HOSTS), st.booleans()),
    st.tuples(st.just("wake")),
    st.tuples(st.just("set_own"), st.sampled_from(OWNERS), st.sampled_from([1, 2, None, 0])),
    st.tuples(st.just("clear")),
)


class Walk:
    """Two objects of one set, in turns, and the model."""

    def __init__(self, server: servers.Server, limit: int | None, interval: float) -> None:
        self.raw = server.raw
        self.raw.flushall()
        self.limit = limit
        self.sets = [
            SortedSet(
                self.raw,
                "jobs",
                key="url",
                group="host",
                group_limit=limit,
                group_interval=interval,
                max_attempts=None,
            )
            for _ in "12"
        ]
        self.model = GroupedModel(limit, interval > 0)
        self.turn = 0

    @property
    def jobs(self) -> SortedSet[Any]:
        self.turn += 1
        return self.sets[self.turn % 2]

    def perform(self, what: str, *arguments: Any) -> None:
        getattr(self, f"_{what}")(*arguments)
        self.compare()

    def _add(self, name: str, host: str | None, score: float) -> None:
        assert self.jobs.add({"url": name, "host": host}, score) == score
        self.model.add(name, host, score)

    def _add_many(self, rows: list[tuple[str, str | None, float]]) -> None:
        rows = list({row[0]: row for row in rows}.values())
        items = [{"url": name, "host": host} for name, host, _ in rows]
        self.jobs.add_many(items, [score for *_, score in rows])
        for row in rows:
            self.model.add(*row)
        # They joined in one step.
        self.model.together(len(rows))

    def _lease(self, num: int) -> None:
        batch = list(self.jobs.lease(num, ttl=1000))
        self.model.handed_out([(each.item["url"], each.group, each) for each in batch], num)

    def _take(self, num: int) -> None:
        taken = self.jobs.take(num)
        self.model.handed_out([(each["url"], each["host"], None) for each in taken], num)

    def _picked(self, at: int) -> str | None:
        leased = [name for name, held in self.model.held.items() if held.lease is not None]
        return leased[at % len(leased)] if leased else None

    def _settle(self, at: int, how: str) -> None:
        name = self._picked(at)
        if name is not None:
            lease = self.model.held[name].lease
            call: Callable[[], int] = getattr(lease, how)
            assert (lease.fail("no") if how == "fail" else call()) == 1
            self.model.end(name, how)
            self.model.settled()

    def _delay(self, at: int, how: str, group: bool) -> None:
        name = self._picked(at)
        if name is not None:
            lease, jobs = self.model.held[name].lease, self.jobs
            if how == "fail":
                assert jobs.fail([lease], "no", 1000, group=group) == 1
            else:
                assert jobs.release([lease], 1000, group=group) == 1
            self.model.end(name, how, delay=True, rest=group)
            self.model.settled()

    def _renew(self, at: int) -> None:
        name = self._picked(at)
        if name is not None:
            assert self.model.held[name].lease.renew(2000) == 1

    def _expire(self, at: int) -> None:
        names = sorted(self.model.held)
        if names:
            name = names[at % len(names)]
            assert self.raw.zadd(f"{P}:leased", {self.model.held[name].member: 1}) == 0
            self.jobs.stats()
            self.model.end(name, "expire")
            self.model.settled()

    def _discard(self, names: list[str]) -> None:
        items = [{"url": name, "host": "a"} for name in dict.fromkeys(names)]
        assert self.jobs.discard_many(items) == self.model.discard(names)

    def _pause(self, host: str, on: bool) -> None:
        self.jobs.pause_group(host, 500 if on else 0)
        self.model.pause(host, on)

    def _wake(self) -> None:
        grouped.wake(self.raw)
        self.model.wake()

    def _set_own(self, host: str, limit: int | None) -> None:
        if limit == 0:
            self.jobs.set_group(host)
        else:
            self.jobs.set_group(host, limit=limit)
        self.model.set_own(host, limit, limit == 0)

    def _clear(self) -> None:
        self.jobs.clear()
        self.model.clear()

    def compare(self) -> None:
        jobs, model = self.sets[0], self.model
        assert jobs.size() == len(model.queued)
        assert grouped.inconsistencies(self.raw, self.limit) == []
        found = {each.name: (each.queued, each.leased) for each in jobs.groups()}
        for host in HOSTS:
            queued, leased = found.get(host, (0, 0))
            # An index may have entries of items that moved or are gone.
            assert queued >= len(model.waiting(host)), (host, found)
            assert leased == model.working(host)

    def drain(self) -> None:
        """Everything comes out in the end, and nothing twice."""
        for held_name in list(self.model.held):
            self._discard([held_name])
        for host in HOSTS:
            self.sets[0].pause_group(host, 0)
        seen: set[str] = set()
        expected = set(self.model.queued)
        for _ in range(100):
            grouped.wake(self.raw)
            batch = list(self.jobs.lease(5))
            new = {lease.item["url"] for lease in batch}
            assert not new & seen
            seen |= new
            self.jobs.ack(batch)
            if seen >= expected:
                break
        assert seen == expected
        assert self.jobs.finished()


@pytest.mark.parametrize("rests", [False, True])
@pytest.mark.parametrize("limit", [1, 2, None])
@drawn(60, report_multiple_bugs=False)
@given(steps=st.lists(STEPS, min_size=5, max_size=40))
def test_a_grouped_set_does_what_its_model_does(
    all_servers: servers.Servers, limit: int | None, rests: bool, steps: list[Any]
) -> None:
    kind = next(kind for kind in servers.REAL if servers.is_here(kind))
    server = all_servers.get(kind)
    assert isinstance(server, servers.Server)
    walk = Walk(server, limit, math.pi * 1000 if rests else 0)
    for what, *arguments in steps:
        walk.perform(what, *arguments)
    walk.drain()
