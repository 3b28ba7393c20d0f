"""A step that the server refuses in its middle loses nothing.

A user is denied one command after another. After each call an item is queued, leased, a dead letter
or returned to the caller. A refused add can be repeated.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import servers
from options import made

from redset import SortedSet
from redset.exceptions import AddError

#: The commands with which steps write.
WRITES = (
    "zadd", "zrem", "zremrangebyrank", "hset", "hdel", "hincrby", "sadd", "srem", "xadd", "xdel",
    "unlink",
)  # fmt: skip
OPTIONS: list[dict[str, Any]] = [
    {},
    {"key": "url"},
    {"remember": True},
    {"key": "url", "remember": True},
    {"remember": 600, "ties": "fifo"},
    {"key": "url", "remember": 600},
    {"max_size": 1000},
    # Three of its items are in work, and one has expired.
    {"key": "url", "group": "host", "group_limit": 5},
]
P = "jobs:{jobs}"


class Place:
    """A set in which items are queued, leased past their time, leased and added again, and dead."""

    def __init__(self, admin: redis.Redis, user: redis.Redis, options: dict[str, Any]) -> None:
        self.admin = admin
        self.options = {**options, "max_attempts": 1, "known_max": 0}
        self.jobs: SortedSet[Any] = SortedSet(user, "jobs", **self.options)
        self.other: SortedSet[Any] = SortedSet(user, "{jobs}:other", **self.options)
        admin.flushall()
        self.there = {"letter", "expired", "readded", "failing", "held", "queued", "spare"}
        self.jobs.add(self.made("letter"), -1)
        (letter,) = self.jobs.lease()
        letter.fail("it is broken")
        names = ["expired", "readded", "failing", "held", "queued", "spare"]
        self.jobs.add_many([self.made(name) for name in names], range(6))
        self.leases = {self.name(each.item): each for each in self.jobs.lease(4)}
        again = {"again": True} if "remember" in options else {}
        list(self.jobs.add_new([self.made("readded")], 1, **again))
        for name in ("expired", "readded"):
            admin.zadd(f"{P}:leased", {self.leases[name].member: 1})
        self.other.add_many([self.made(name) for name in ("theirs", "queued")], 1)
        #: Items that the call under test adds, has handed out, or removes.
        self.added: set[str] = set()
        self.gone: set[str] = set()

    def made(self, name: str) -> Any:
        return made(self.options, name)

    def name(self, item: Any) -> str:
        return str(item["url"] if "key" in self.options else item)

    def found(self) -> set[str]:
        """Return all items of a set, as a user with all rights sees it."""
        found = {self.name(item) for item in self.jobs}
        found |= {self.name(each[0]) for each in self.jobs.leased()}
        for letter in self.jobs.dead:
            raw = letter.raw.decode()
            found |= {name for name in (*self.there, *self.added) if name in raw}
        # Expired items may be handed out again.
        for _ in range(20):
            for lease in self.jobs.lease(100):
                found.add(self.name(lease.item))
                lease.ack()
        if "group" in self.options:
            found |= self.stranded()
        return found

    def stranded(self) -> set[str]:
        """Lease what is left of a grouped set: it looks for stranded groups ten times a second."""
        found, end = set(), time.monotonic() + 10
        while self.jobs.size():
            for lease in self.jobs.lease(100):
                found.add(self.name(lease.item))
                lease.ack()
            assert time.monotonic() < end, list(self.jobs)
            time.sleep(0.01)
        return found

    # The calls.

    def add(self) -> None:
        self.added = {"new"}
        self.jobs.add(self.made("new"), 3)

    def add_many(self) -> None:
        self.added = {"new", "newer"}
        self.jobs.add_many([self.made(name) for name in ("new", "newer", "queued")], 3)

    def add_nx(self) -> None:
        self.added = {"new", "newer"}
        self.jobs.add_many([self.made("new"), self.made("newer")], 3, nx=True)

    def readd(self) -> None:
        list(self.jobs.add_new([self.made("held")], 3))

    def pop(self) -> None:
        self.gone.add(self.name(self.jobs.pop()))

    def take(self) -> None:
        self.gone |= {self.name(item) for item in self.jobs.take(2)}

    def take_by_score(self) -> None:
        self.gone |= {self.name(item) for item in self.jobs.between(0, 9).take(2)}

    def lease(self) -> None:
        list(self.jobs.lease(5))

    def ack(self) -> None:
        self.added, self.gone = {"new"}, {"held"}
        self.jobs.ack([self.leases["held"]], add=[self.made("new")])

    def fail(self) -> None:
        self.jobs.fail([self.leases["failing"]], "no")

    def release(self) -> None:
        self.jobs.release([self.leases["failing"], self.leases["held"]])

    def delay(self) -> None:
        self.jobs.release([self.leases["failing"]], delay=100)

    def finished(self) -> None:
        self.jobs.finished()

    def stats(self) -> None:
        self.jobs.stats()

    def move(self) -> None:
        self.gone.add("spare")
        if self.jobs.move_many([self.made("spare")], self.other) == 0:
            raise LookupError

    def requeue(self) -> None:
        self.jobs.dead.requeue([each.id for each in self.jobs.dead])

    def union(self) -> None:
        self.jobs |= self.other

    def symmetric_difference(self) -> None:
        self.gone.add("queued")
        self.jobs ^= self.other

    def clear(self) -> None:
        self.gone = set(self.there)
        self.jobs.clear()


CALLS = [
    name
    for name in vars(Place)
    if not name.startswith("_") and name not in ("made", "name", "found", "stranded")
]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.getLogger("redset").disabled = True
    yield
    logging.getLogger("redset").disabled = False


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_step_refused_midway_loses_nothing(
    any_server: servers.Server, options: dict[str, Any]
) -> None:
    """Costs 220 calls a case, 2 to 3 s; with groups 6 s, for lost groups are found in 0.1 s."""
    admin = any_server.client()
    admin.execute_command("ACL", "SETUSER", "some", "on", ">word", "~*", "&*", "+@all")
    user = any_server.client(username="some", password="word")
    refused = 0
    for command in WRITES:
        for call in CALLS:
            place = Place(admin, user, options)
            admin.execute_command("ACL", "SETUSER", "some", f"-{command}")
            try:
                getattr(place, call)()
            except (redis.RedisError, AddError, LookupError):
                refused += 1
                # Nothing was handed out; removed items may be gone, and are not in the result.
                lost = place.gone if call == "clear" else set()
            else:
                lost = place.gone
            admin.execute_command("ACL", "SETUSER", "some", "+@all")
            found = place.found()
            assert all(letter.raw for letter in place.jobs.dead), (command, call)
            assert found >= place.there - lost, (command, call, place.there - lost - found)
            # A refused item can be added, and comes out.
            for name in sorted(place.added - found):
                place.jobs.add(place.made(name), 3)
            assert found | place.found() >= place.added, (command, call, place.added)
    user.close()
    admin.close()
    assert refused > len(CALLS)
