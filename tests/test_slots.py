"""A set whose slot moves, key by key, from one node of a cluster to another.

A server refuses a step in such a slot if it lacks one of the step's keys. It checks again at each
command of a script. A key that the script itself emptied counts as moved, so a step could stop in
the middle. Steps of several keys therefore name one that never exists: they are refused whole.
"""

from __future__ import annotations

import itertools
import re
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any, NamedTuple

import blocking
import pytest
import redis
import redis.asyncio.cluster
import redis.cluster
import servers
from fuzz import replies
from redis.crc import key_slot

from redset import SortedSet
from redset._faces import worker
from redset._transport import redirecting
from redset.exceptions import RedsetError
from redset.scripts import script
from redset.serializers import JSONSerializer

#: Seconds after which the leases are over that expire.
TTL = 0.02


class Cluster:
    """A cluster of two nodes. It opens a set's slot, moves keys, and closes the slot.

    Slots move from the first node to the second, and never back: the nodes' messages about the last
    move could cross the next one.
    """

    def __init__(self, nodes: list[servers.Server]) -> None:
        self.nodes = nodes
        self._ids = [text(node.raw.execute_command("CLUSTER", "MYID")) for node in nodes]
        self._used: set[int] = set()
        self._moved: set[int] = set()

    def name(self) -> str:
        """A name for a set, in a slot of the first node that no other name has."""
        for number in itertools.count():
            slot = key_slot(b"%d" % number)
            if slot not in self._used and slot < servers.SLOTS // 2:
                self._used.add(slot)
                return f"{{{number}}}"
        raise AssertionError

    def owner(self, name: str) -> servers.Server:
        return self.nodes[slot_of(name) in self._moved]

    def _set_slot(self, place: int, name: str, state: str, peer: int) -> None:
        command = "CLUSTER", "SETSLOT", slot_of(name), state, self._ids[peer]
        self.nodes[place].raw.execute_command(*command)

    def keys(self, name: str) -> list[bytes]:
        """The keys of a set's slot that its owner has."""
        return keys_of(self.owner(name), name)

    def stored(self, name: str) -> list[dict[bytes, bytes]]:
        """Return the content of each node in a set's slot."""
        found = []
        for node in self.nodes:
            keys = keys_of(node, name)
            pipeline = node.raw.pipeline(transaction=False)
            for key in keys:
                pipeline.execute_command("ASKING")
                pipeline.dump(key)
            found.append(dict(zip(keys, pipeline.execute()[1::2], strict=True)))
        return found

    def open(self, name: str) -> None:
        """Begin to move a set's slot to the second node."""
        self._set_slot(1, name, "IMPORTING", 0)
        self._set_slot(0, name, "MIGRATING", 1)

    def move(self, name: str, keys: list[bytes]) -> None:
        """Move keys to the second node."""
        if keys:
            where = "127.0.0.1", self.nodes[1].port, "", 0, 5000
            self.nodes[0].raw.execute_command("MIGRATE", *where, "KEYS", *keys)

    def close(self, name: str) -> None:
        """Move the keys that are left, and give the slot to the second node."""
        while keys := self.keys(name):
            self.move(name, keys)
        for place in (1, 0):
            self._set_slot(place, name, "NODE", 1)
        self._moved.add(slot_of(name))


def slot_of(name: str) -> int:
    return int(key_slot(name.encode()))


def keys_of(node: servers.Server, name: str) -> list[bytes]:
    """The keys that a node has in a set's slot."""
    found = node.raw.execute_command("CLUSTER", "GETKEYSINSLOT", slot_of(name), 1000)
    return sorted(key if isinstance(key, bytes) else key.encode() for key in found)


def text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    try:
        with servers.cluster(request.param, 2) as nodes:
            yield Cluster(nodes)
    except servers.Missing as missing:
        pytest.skip(str(missing))


Client = redis.cluster.RedisCluster
AsyncClient = redis.asyncio.cluster.RedisCluster


class Before(NamedTuple):
    """The content of a set when its slot is opened."""

    #: Items whose leases have expired, and those that are leased.
    expired: int
    held: int
    queued: int
    options: dict[str, Any]
    #: Which keys are moved before the call.
    moved: Callable[[list[bytes]], list[bytes]]


def make(client: Any, name: str, before: Before) -> Any:
    options = {"serializer": JSONSerializer(), "max_attempts": 5, **before.options}
    if isinstance(client, AsyncClient):
        return blocking.BlockingSet(SortedSet, client, name, **options)
    return SortedSet(client, name, **options)


def fill(client: Any, name: str, before: Before) -> tuple[Any, Any]:
    """Make a set with each of its keys; return it, and the batch of leases."""
    dying = make(client, name, before._replace(options={**before.options, "max_attempts": 1}))
    dying.add({"url": "dead"})
    assert dying.fail(dying.lease(), "no") == 1
    jobs = make(client, name, before)
    held: Any = []
    if before.held:
        jobs.add_many([{"url": f"held {place}"} for place in range(before.held)])
        held = jobs.lease(before.held, ttl=600)
    if before.expired:
        # Last, since each later lease call may hand them out again.
        jobs.add_many([{"url": f"expired {place}"} for place in range(before.expired)])
        assert len(jobs.lease(before.expired, ttl=TTL)) == before.expired
    urls = ["a", *(f"item {place}" for place in range(1, before.queued))]
    jobs.add_many([{"url": url} for url in urls], range(2, 2 + before.queued))
    other = make(client, f"{name}:other", before)
    other.add({"url": "b"}, 3)
    return jobs, held


def state(cluster: Cluster, name: str, before: Before) -> dict[str, Any]:
    """Return the content of both sets of a slot, after expired leases returned."""
    with cluster.owner(name).client() as client:
        jobs, other = make(client, name, before), make(client, f"{name}:other", before)
        jobs.finished()
        found: dict[str, Any] = {
            "queued": Counter(map(str, jobs)),
            "scores": jobs.scores(list(jobs)),
            "leased": Counter(str(row.item) for row in jobs.leased()),
            "dead": Counter(str(letter.item) for letter in jobs.dead),
            "other": Counter(map(str, other)),
        }
        if "remember" in before.options:
            urls = ["a", "b", "dead", "expired 0", "expired 1", "found", "item 1"]
            found["seen"] = jobs.seen_many([{"url": url} for url in urls])
        return found


def items(found: dict[str, Any]) -> Counter[str]:
    total: Counter[str] = found["queued"] + found["leased"] + found["dead"] + found["other"]
    return total


def outcome(call: Callable[[Any, Any], Any], jobs: Any, held: Any) -> tuple[Any, Any]:
    """Return the result of a call, and its error."""
    try:
        return call(jobs, held), None
    except (redis.RedisError, RedsetError, KeyError, ValueError) as error:
        return None, error


def on(call: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda jobs, held: call(jobs)


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    **{name: on(call) for name, call, _ in replies.OPERATIONS + replies.REMEMBERING},
    "dead requeue all": lambda jobs, held: jobs.dead.requeue(),
    # Items that were leased before the slot was opened.
    "held ack": lambda jobs, held: jobs.ack(held),
    "held ack add": lambda jobs, held: jobs.ack(held, add=[{"url": "found"}]),
    "held fail": lambda jobs, held: jobs.fail(held, "no"),
    "held fail later": lambda jobs, held: jobs.fail(held, "no", 60),
    "held release": lambda jobs, held: jobs.release(held, score=3),
    "held renew": lambda jobs, held: jobs.renew(held, 60),
}
#: Sets over asyncio clients have not these.
NOT_ASYNCIO = {"-= items", "&= items", "^=", "<=", "in", "len", "bool"}
#: They end items. If they raise, their items may be gone, and nothing else.
ENDING = {
    "ack", "ack add", "consume", "discard", "discard_many", "remove", "between discard", "clear",
    "clear keep_memory", "dead purge", "held ack", "held ack add", "-= items", "&= items", "^=",
    "discard forget", "buffered",
}  # fmt: skip
#: Of several steps, the first may be performed: it is one of a single key.
STEPS = {"buffered"}
#: The first step removes what is queued, by one key. The second returns expired leases: if it is
#: refused, the call returns the items of the first.
SHORT = {"take", "take 1", "take wait", "take with scores"}
#: They hand items out, or read them: the same of the same sets.
TOLD = {
    "pop", "take", "take 1", "take wait", "take with scores", "lease", "between take",
    "move_many", "discard", "discard_many", "ack", "size", "iterate", "scores", "held ack",
}  # fmt: skip

BEFORE = {
    # Each key of a step is there, until the step has emptied one.
    "nothing moved": Before(2, 0, 3, {}, lambda keys: []),
    "nothing moved, held": Before(0, 2, 30, {"key": "url", "ties": "fifo"}, lambda keys: []),
    "nothing moved, keyed": Before(2, 0, 3, {"key": "url", "remember": True}, lambda keys: []),
    "one moved": Before(2, 0, 3, {}, lambda keys: keys[:1]),
    "half moved": Before(2, 2, 30, {"key": "url", "remember": 60}, lambda keys: keys[::2]),
    "all but one moved": Before(2, 1, 3, {"remember": True}, lambda keys: keys[1:]),
    "all moved": Before(2, 0, 3, {"key": "url", "remember": True}, lambda keys: keys),
    "all moved, held": Before(0, 2, 3, {}, lambda keys: keys),
}
#: Calls of one step that may empty a key.
FEW = {"add_many", "take", "lease", "finished", "dead requeue all", "held ack", "clear"}
CASES = [
    *itertools.product(servers.REAL, ["sync"], ["nothing moved", "nothing moved, held"], [FEW]),
    *itertools.product(servers.REAL, ["asyncio"], ["nothing moved"], [FEW]),
    # All calls: each situation on one server, and the one with the most states on all.
    *zip(itertools.cycle(servers.REAL), itertools.repeat("sync"), BEFORE, itertools.repeat(CALLS)),
    *itertools.product(servers.REAL, ["sync", "asyncio"], ["half moved"], [CALLS]),
]


def with_names(cases: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Return each case once, with its name; those of all calls are slow."""
    made = {}
    for kind, face, situation, names in cases:
        name = f"{kind}-{face}-{situation}, {'some' if names is FEW else 'all'} calls"
        marks = [] if names is FEW else [pytest.mark.slow(3)]
        made[name] = pytest.param(kind, face, situation, names, marks=marks, id=name)
    return list(made.values())


@pytest.mark.parametrize(
    ("cluster", "face", "situation", "names"), with_names(CASES), indirect=["cluster"]
)
def test_a_call_in_a_slot_that_moves_is_performed_or_raises_and_loses_nothing(
    cluster: Cluster,
    face: str,
    situation: str,
    names: Container[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = BEFORE[situation]
    # Neither the link nor the worker needs to give this slot the time to be closed.
    monkeypatch.setattr(redirecting, "PATIENCE", 0.02)
    monkeypatch.setattr(worker, "PAUSE", 0.001)
    monkeypatch.setattr(worker, "LONGEST_PAUSE", 0.01)
    for node in cluster.nodes:
        node.raw.flushall()
    kind: Any = Client if face == "sync" else AsyncClient
    client = kind(host="127.0.0.1", port=cluster.nodes[0].port)
    monkeypatch.setattr(replies, "_other", lambda jobs: make(client, f"{jobs.name}:other", before))
    left_out = set(NOT_ASYNCIO if face == "asyncio" else ())
    if "remember" not in before.options:
        left_out |= {name for name, _, _ in replies.REMEMBERING}
    if not before.held:
        left_out |= {name for name in CALLS if name.startswith("held")}
    calls = {name: CALLS[name] for name in CALLS if name in names and name not in left_out}
    filled = {
        (role, name): fill(client, cluster.name(), before)
        for role in ("stays", "moves")
        for name in calls
    }
    time.sleep(2 * TTL)
    there = items(state(cluster, fill(client, cluster.name(), before)[0].name, before))
    assert there.total() == before.expired + before.held + before.queued + 2
    raised = 0
    for name, call in calls.items():
        # The effect of the call on the same set in a slot that does not move.
        stays, held = filled["stays", name]
        expected, refusal = outcome(call, stays, held)
        then = state(cluster, stays.name, before)
        jobs, held = filled["moves", name]
        cluster.open(jobs.name)
        cluster.move(jobs.name, before.moved(cluster.keys(jobs.name)))
        stored = cluster.stored(jobs.name)
        result, error = outcome(call, jobs, held)
        untouched = cluster.stored(jobs.name) == stored
        cluster.close(jobs.name)
        after = state(cluster, jobs.name, before)
        told = f"{name} raised {error!r}: {after}, not {then}"
        if name in SHORT and error is None and len(result) < len(expected):
            assert items(after).total() + len(result) == there.total(), told
            raised += 1
        elif name == "consume" and error is None and untouched:
            # It waits while it is refused, and is stopped in between.
            assert items(after) == there and sum(result) == 0, told
            raised += 1
        elif error is None or type(error) is type(refusal):
            assert after == then, told
            assert name not in TOLD or result == expected, told
        else:
            raised += 1
            assert isinstance(error, (redis.RedisError, RedsetError)), told
            assert untouched or name in STEPS, told
            gone, come = there - items(after), items(after) - there
            assert gone <= (there - items(then) if name in ENDING else Counter()), told
            assert come <= items(then) - there, told
    # Every step of several keys is refused.
    assert raised > len(calls) / 3
    if face == "sync":
        client.close()
    else:
        blocking.wait(servers.aclose(client))


@pytest.mark.parametrize("cluster", servers.REAL, indirect=True)
@pytest.mark.parametrize("named", [True, False], ids=["named", "left out"])
def test_the_key_that_never_exists_has_a_step_refused_whole(cluster: Cluster, named: bool) -> None:
    before = Before(2, 0, 3, {}, lambda keys: [])
    for node in cluster.nodes:
        node.raw.flushall()
    client = Client(host="127.0.0.1", port=cluster.nodes[0].port)
    jobs, _ = fill(client, cluster.name(), before)
    time.sleep(2 * TTL)
    keys = jobs._ctx.keys
    text, absent = script("lease").text.decode(), [keys.none, keys.counts, keys.paused]
    names = [keys.queue, keys.none, keys.leased, keys.leases, keys.calls, keys.dead, *absent[1:]]
    if not named:
        # The script as it would be without keys that do not exist: no use, others in their places.
        text, tries = re.subn(r"^ *call\('\w+', none\b.*$", "", text, flags=re.MULTILINE)
        assert tries >= 3
        text = text.replace("call('EXISTS', paused)", "0")
        names = [keys.leased if name in absent else name for name in names]
    arguments = ["t" * 16, 10, 60_000, 5, 0, 100, 0, 0, 10]
    # All of its keys are there. It empties one, which counts as moved from then on.
    cluster.open(jobs.name)
    assert set(names) - set(absent) <= set(cluster.keys(jobs.name))
    stored = cluster.stored(jobs.name)
    with pytest.raises(redis.ResponseError) as refusal:
        cluster.nodes[0].raw.execute_command("EVAL", text, len(names), *names, *arguments)
    assert (cluster.stored(jobs.name) == stored) == named, refusal.value
    cluster.close(jobs.name)
    # The order of the commands saves the items, also of a step that stops in the middle.
    found = state(cluster, jobs.name, before)
    assert (found["queued"] + found["leased"]).total() == 5
    client.close()
