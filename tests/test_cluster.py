"""Sets on a cluster of three primaries and their replicas, while slots move and primaries fail."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import blocking
import cluster
import pytest
import redis
import servers
from load import Load
from redis.asyncio.connection import AbstractConnection as AsyncConnection
from redis.crc import key_slot

import redset.asyncio
from redset import ScheduledSet, SortedSet
from redset._operations import known, reporting
from redset._operations.keys import REGISTRY
from redset._transport import cluster as parts
from redset._transport import redirecting
from redset._transport.coroutines import complete
from redset.exceptions import AddError

#: The engines. A plain run has one of them, since a cluster takes 3 seconds to start.
KINDS = [
    "valkey9",
    pytest.param("redis7", marks=pytest.mark.slow(3)),
]
#: For the tests whose answers come from the server: Redis 6.2 words some of them in its own way.
on_each_engine = pytest.mark.parametrize(
    "clusters", [*KINDS, pytest.param("redis62", marks=pytest.mark.slow(1))], indirect=True
)
#: Seconds after which a node counts as failed: longer than a busy machine lets it wait.
NODE_TIMEOUT = 3
#: Clients: a library, and whether it is the asyncio one.
CLIENTS = {
    "redis": ("redis", False),
    "redis-asyncio": ("redis", True),
    "valkey": ("valkey", False),
    "valkey-asyncio": ("valkey", True),
}
every_client = pytest.mark.parametrize("kind", CLIENTS)
each_face = pytest.mark.parametrize("kind", ["redis", "redis-asyncio"])
#: Numbers for names of sets: each test has a slot of its own.
_names = itertools.count()


@pytest.fixture(scope="module", params=KINDS)
def clusters(request: pytest.FixtureRequest) -> Iterator[dict[str, cluster.Cluster]]:
    """The clusters of the module's tests. They leave nothing.

    They start at the same time: a primary writes nothing in its first two seconds.
    """
    kinds: dict[str, dict[str, Any]] = {
        "whole": {"spare": 1, "cluster_node_timeout": 1000 * NODE_TIMEOUT},
        "without replicas": {"primaries": 2, "replicas": 0},
    }
    made: dict[str, cluster.Cluster] = {}
    found = []
    with contextlib.ExitStack() as stack:
        try:
            with concurrent.futures.ThreadPoolExecutor() as pool:
                starts = {
                    name: pool.submit(cluster.Cluster, request.param, **options)
                    for name, options in kinds.items()
                }
            for name, start in starts.items():
                made[name] = start.result()
                stack.callback(made[name].stop)
        except servers.Missing as missing:
            pytest.skip(str(missing))
        yield made
        for each in made.values():
            found += [(node.pid, node.directory) for node in each.nodes if not node.is_down]
    for pid, directory in found:
        assert not os.path.exists(directory)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.fixture
def whole(clusters: dict[str, cluster.Cluster]) -> cluster.Cluster:
    """A cluster with a spare primary and all nodes in place, which the tests share."""
    clusters["whole"].wait_until_whole()
    return clusters["whole"]


@pytest.fixture
def without_replicas(clusters: dict[str, cluster.Cluster]) -> cluster.Cluster:
    """A cluster of two primaries, for tests that take a slot from all.

    A replica of Redis 7.0 that has heard of it loses the slot when it takes over, long after.
    """
    return clusters["without replicas"]


@pytest.fixture
def codes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The refusals that sessions meet, by their codes."""
    met = []

    def noted(error: Exception) -> Any:
        found = parts.redirection_of(error)
        if found is not None:
            met.append(found.code)
        return found

    monkeypatch.setattr(redirecting, "redirection_of", noted)
    return met


class Sets:
    """Makes sets over one client of a kind. Those of an asyncio client have the sync names."""

    def __init__(self, nodes: cluster.Cluster, kind: str, **options: Any) -> None:
        library, self.awaits = CLIENTS[kind]
        self.client = nodes.client(library, self.awaits, **options)
        self.nodes = nodes

    def __call__(self, name: str | None = None, cls: Any = SortedSet, **options: Any) -> Any:
        name = f"{{{next(_names)}}}jobs" if name is None else name
        if self.awaits:
            return blocking.BlockingSet(cls, self.client, name, **options)
        return cls(self.client, name, **options)

    def __enter__(self) -> Sets:
        return self

    def __exit__(self, *raised: Any) -> None:
        if self.awaits:
            blocking.wait(servers.aclose(self.client))
        else:
            self.client.close()


class Later:
    """Does something in a thread, after so many seconds, while the block runs; raises its error."""

    def __init__(self, seconds: float, do: Callable[[], Any]) -> None:
        self._thread = threading.Thread(target=self._run, args=(seconds, do), daemon=True)
        self._error: BaseException | None = None
        #: When it was done.
        self.done = float("inf")

    def _run(self, seconds: float, do: Callable[[], Any]) -> None:
        try:
            time.sleep(seconds)
            do()
            self.done = time.monotonic()
        except BaseException as error:
            self._error = error

    @property
    def is_done(self) -> bool:
        """Whether it was done, or failed."""
        return not self._thread.is_alive()

    def __enter__(self) -> Later:
        self._thread.start()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._thread.join(50)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error


def frozen_until(node: cluster.Node, thaw: threading.Event) -> None:
    with node.frozen():
        thaw.wait(20)


def link_of(jobs: Any) -> Any:
    return getattr(jobs, "face", jobs)._link


# --- the harness


def test_a_slot_moves_to_another_primary_with_its_keys(whole: cluster.Cluster) -> None:
    client, name = whole.client(), "moved"
    client.set(name, "1")
    first, *_, spare = whole.others(name)
    for to in (first, spare, whole.nodes[0]):
        whole.move(name, to)
        assert whole.owner(name) is to
        assert to.raw.get(name) == b"1"
    client.close()


# --- the client's parts


@every_client
def test_each_library_has_the_attributes_that_the_link_reads(
    whole: cluster.Cluster, kind: str
) -> None:
    with Sets(whole, kind) as sets:
        jobs = sets()
        jobs.add("a")
        version = type(sets.client).__module__, redis.__version__
        assert parts.missing_parts(sets.client, sets.awaits) == [], version
        assert link_of(jobs).multi
        assert link_of(jobs)._nodes is not None


@each_face
def test_a_client_that_lacks_an_attribute_is_sent_whole_commands(
    whole: cluster.Cluster, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    awaits = CLIENTS[kind][1]
    monkeypatch.setitem(parts.PARTS[awaits], "node", ["name", ("of_tomorrow", "_of_tomorrow")])
    with Sets(whole, kind) as sets:
        assert parts.missing_parts(sets.client, awaits) == ["node.of_tomorrow or _of_tomorrow"]
        jobs = sets()
        assert not link_of(jobs).multi
        assert jobs.add_many(["a", "b", "c"], [2, 3, 1]).added == 3
        assert jobs.take(2) == ["c", "a"]


def test_a_client_with_commands_of_its_own_is_sent_whole_commands(whole: cluster.Cluster) -> None:
    class Own(cluster.client_class()):  # type: ignore[misc]
        sent = 0

        def execute_command(self, *args: Any, **options: Any) -> Any:
            self.sent += 1
            return super().execute_command(*args, **options)

    with Own(host="127.0.0.1", port=whole.nodes[0].port) as client:
        before = client.sent
        jobs: SortedSet[str] = SortedSet(client, f"{{{next(_names)}}}jobs")
        jobs.add("a")
        assert jobs.pop() == "a"
        assert client.sent > before + 1


def test_slots_are_those_of_the_server() -> None:
    for key in (
        b"",
        b"jobs",
        b"{a}b",
        b"a{}b",
        b"{}{a}",
        b"a{b}{c}",
        b"{",
        b"}{a",
        b"a{b{c}d",
        b"\xff",
    ):
        assert parts.slot_of(key) == key_slot(key)


def test_a_request_goes_by_its_first_key() -> None:
    encode = servers_wire()
    home, a = 7, parts.slot_of(b"a\r\nb")
    sha = b"0" * 40
    for request, slot in [
        ([b"ZADD", b"a\r\nb", 1, b"x"], a),
        ([b"EVALSHA", sha, 2, b"a\r\nb", b"other", b"1"], a),
        ([b"EVALSHA", sha, 12, b"a\r\nb", b"other", b"1"], a),
        ([b"EVALSHA", sha, 0], home),
        ([b"EVALSHA", sha, 0, b"1"], home),
        ([b"TIME"], home),
        ([b"CONFIG", b"GET", b"maxmemory"], home),
    ]:
        assert parts.slot_of_request(encode(request), home) == slot
        # The second time by its head, if that is known.
        for heads in (parts.Heads(home), parts.Heads(a)):
            assert [heads.slot_of(encode(request)) for _ in range(2)] == [
                slot if slot == a else heads.slot
            ] * 2
    heads = parts.Heads(a)
    heads.slot_of(encode([b"ZADD", b"a\r\nb", 1, b"x"]))
    for key in (b"a\r\nb\r\n", b"a\r\nbc", b"a\r\n", b"c"):
        assert heads.slot_of(encode([b"ZADD", key, 1, b"x"])) == parts.slot_of(key)
    whole = encode([b"MULTI"]) + encode([b"ZRANGE", b"a\r\nb", 0, 1]) + encode([b"EXEC"])
    assert parts.slot_of_request(whole, home) == a


def servers_wire() -> Any:
    from redset import _wire

    return _wire.DEFAULT.encode


# --- the table of answers


@pytest.mark.parametrize("library", ["redis", "valkey"])
def test_each_refusal_is_known_by_its_code(library: str) -> None:
    module = pytest.importorskip(f"{library}.exceptions")
    for code, name, text in [
        ("MOVED", "MovedError", "7 127.0.0.1:1"),
        ("ASK", "AskError", "7 127.0.0.1:1"),
        ("TRYAGAIN", "TryAgainError", "Multiple keys request during rehashing of slot"),
        ("CLUSTERDOWN", "ClusterDownError", "Hash slot not served"),
        ("MASTERDOWN", "MasterDownError", "Link with MASTER is down"),
        ("LOADING", "BusyLoadingError", "Redis is loading the dataset in memory"),
        ("READONLY", "ReadOnlyError", "You can't write against a read only replica."),
    ]:
        kind = getattr(module, name)
        # A parser without this class has the code in the text.
        for error in (kind(text), module.ResponseError(f"{code} {text}")):
            found = parts.redirection_of(error)
            assert found is not None and found.code == code
            assert type(found.error) is kind
            assert found.error.args == kind(text).args
    for error in (module.ResponseError("ERR no"), module.NoScriptError(""), module.TimeoutError()):
        assert parts.redirection_of(error) is None


@on_each_engine
@every_client
def test_a_set_follows_its_slot(whole: cluster.Cluster, kind: str) -> None:
    with Sets(whole, kind) as sets:
        jobs, plain = sets(key="n", remember=True), sets()
        plain.add_many(map(str, range(3000)), range(3000))
        jobs.add_many([{"n": number} for number in range(1500)], range(1500))
        for place, to in enumerate(whole.others(jobs.name)):
            for each in (jobs, plain):
                whole.move(each.name, to)
            # A known item, one command, a MULTI, a script, several windows.
            assert jobs.add({"n": place}) is None
            assert jobs.pop() == {"n": 10 * place}
            assert [each["n"] for each in jobs.take(9)] == [*range(10 * place + 1, 10 * place + 10)]
            assert plain.pop() == str(1000 * place)
            assert len(plain.take(999)) == 999
            new = [{"n": 10_000 * (place + 1) + number} for number in range(2000)]
            assert jobs.add_many(new, 1e6).added == 2000
            assert jobs.add_many(new, 1e6).refused == 2000
        assert plain.size() == 0
        assert jobs.size() == 1500 + 6000 - 30


@every_client
@pytest.mark.usefixtures("silent")
def test_a_move_is_noted_in_the_clients_table(whole: cluster.Cluster, kind: str) -> None:
    with Sets(whole, kind) as sets:
        jobs = sets()
        jobs.add_many(["a", "b"], [1, 2])
        old = whole.owner(jobs.name)
        whole.move(jobs.name, whole.others(jobs.name)[0])
        old.ask("CONFIG", "RESETSTAT")
        assert [jobs.pop(), jobs.pop()] == ["a", "b"]
        assert "errorstat_MOVED:count=1\r" in cluster.text(old.ask("INFO", "errorstats"))


@pytest.mark.parametrize("kind", ["redis", "valkey", "valkey-asyncio"])
def test_a_set_follows_its_slot_by_a_client_of_resp3(whole: cluster.Cluster, kind: str) -> None:
    with Sets(whole, kind, protocol=3) as sets:
        jobs = sets()
        jobs.add_many(["a", "b", "c", "d"], range(4))
        to = whole.others(jobs.name)[0]
        whole.open_slot(jobs.name, to)
        whole.move_keys(jobs.name, to)
        assert jobs.pop() == "a"
        assert jobs.take(1) == ["b"]
        whole.close_slot(jobs.name, to)
        assert jobs.pop() == "c"
        whole.move(jobs.name, whole.others(jobs.name)[0])
        assert [lease.item for lease in jobs.lease(2)] == ["d"]
        assert jobs.add("e") is not None


@on_each_engine
@each_face
@pytest.mark.usefixtures("silent")
def test_an_open_slot_without_keys_at_its_source_is_asked_for_at_its_target(
    whole: cluster.Cluster, kind: str
) -> None:
    # A report would make keys of its own.
    with Sets(whole, kind) as sets:
        jobs = sets()
        jobs.add_many(["a", "b", "c", "d", "e"], range(5))
        # The spare one has no slots, so that the client's table lacks it.
        for to in (whole.others(jobs.name)[0], whole.others(jobs.name)[-1]):
            source = whole.owner(jobs.name)
            whole.open_slot(jobs.name, to)
            assert whole.move_keys(jobs.name, to) == 1
            before = jobs.size()
            assert jobs.pop() == "abcde"[5 - before]
            assert jobs.size() == before - 1
            # It is the source's slot as long as it is open.
            assert whole.owner(jobs.name) is source
            whole.close_slot(jobs.name, to)
            assert jobs.pop() == "abcde"[6 - before]
            assert jobs.size() == before - 2


@on_each_engine
@each_face
def test_a_step_of_several_keys_waits_until_its_slot_has_moved(
    whole: cluster.Cluster, kind: str
) -> None:
    with Sets(whole, kind) as sets:
        jobs = sets(key="n", remember=True)
        jobs.add_many([{"n": number} for number in range(10)], range(10))
        to = whole.others(jobs.name)[0]
        whole.open_slot(jobs.name, to)
        whole.move_keys(jobs.name, to, 1)

        closed = []

        def close() -> None:
            closed.append(time.monotonic())
            whole.move_keys(jobs.name, to)
            whole.close_slot(jobs.name, to)

        with Later(0.2, close):
            assert jobs.pop() == {"n": 0}
            assert closed and time.monotonic() > closed[0]
        assert jobs.size() == 9


@each_face
def test_a_slot_that_nobody_serves_is_waited_for(
    without_replicas: cluster.Cluster, kind: str
) -> None:
    with Sets(without_replicas, kind) as sets:
        jobs = sets()
        jobs.add_many(["a", "b"], [1, 2])
        slot, owner = cluster.slot_of(jobs.name), without_replicas.owner(jobs.name)
        owner.ask("CLUSTER", "DELSLOTS", slot)

        def serve() -> None:
            owner.ask("CLUSTER", "ADDSLOTS", slot)

        began = time.monotonic()
        with Later(0.3, serve):
            assert jobs.pop() == "a"
            assert time.monotonic() - began > 0.2
        assert jobs.lease().ack() == 1


@each_face
def test_a_registry_that_nobody_serves_is_not_waited_for(
    without_replicas: cluster.Cluster, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "EVERY", 0.0)
    with Sets(without_replicas, kind) as sets:
        slot, owner = cluster.slot_of(REGISTRY), without_replicas.owner(REGISTRY)
        jobs = next(
            made for made in iter(sets, None) if without_replicas.owner(made.name) is not owner
        )
        jobs.add("a")
        owner.ask("CLUSTER", "DELSLOTS", slot)
        try:
            began = time.monotonic()
            assert [jobs.add(item) for item in "bc"] == [0, 0]
            assert time.monotonic() - began < redirecting.PATIENCE / 10
        finally:
            owner.ask("CLUSTER", "ADDSLOTS", slot)


@each_face
def test_a_primary_that_loads_its_data_is_waited_for(
    whole: cluster.Cluster, kind: str, codes: list[str]
) -> None:
    with Sets(whole, kind) as sets:
        jobs = sets()
        jobs.add_many(["a", "b"], [1, 2])
        owner = whole.owner(jobs.name)
        others = [f"{{{jobs.name[1:].partition('}')[0]}}}{number}" for number in range(6)]
        for key in others:
            owner.ask("SET", key, os.urandom(2000))
        # In microseconds, for each key.
        delays = {"key-load-delay": 50_000, "loading-process-events-interval-bytes": 1024}
        before = {name: owner.ask("CONFIG", "GET", name)[1] for name in delays}
        for name, value in delays.items():
            owner.ask("CONFIG", "SET", name, value)
        try:
            with Later(0, lambda: owner.ask("DEBUG", "RELOAD")):
                cluster.until(lambda: is_loading(owner))
                # LOADING ends the connection of a client of redis-py, and is no lost connection.
                assert jobs.pop() == "a"
        finally:
            for name in delays:
                owner.ask("CONFIG", "SET", name, before[name])
            owner.ask("DEL", *others)
        assert set(codes) == {"LOADING"}
        assert jobs.size() == 1


def is_loading(node: cluster.Node) -> bool:
    try:
        return node.info("loading") == "1"
    except redis.BusyLoadingError:
        return True


@pytest.mark.slow(1)
@each_face
def test_a_replica_without_its_primary_is_left(
    whole: cluster.Cluster, kind: str, codes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sets(whole, kind, read_from_replicas=True) as sets:
        jobs = sets()
        # As if the link did not undo what such a client asks of its connections.
        monkeypatch.setattr(link_of(jobs)._nodes, "reads_replicas", False)
        jobs.add_many(["a", "b"])
        old = whole.owner(jobs.name)
        new = whole.fail_over(jobs.name)
        whole.wait_until_whole()
        old.ask("CONFIG", "SET", "replica-serve-stale-data", "no")
        try:
            with contextlib.ExitStack() as frozen:
                frozen.enter_context(new.frozen())
                old.ask("CLIENT", "KILL", "TYPE", "master")
                cluster.until(lambda: old.info("master_link_status") == "down")
                with Later(0.2, frozen.close):
                    assert jobs.size() == 2
        finally:
            old.ask("CONFIG", "SET", "replica-serve-stale-data", "yes")
        assert set(codes) == {"MASTERDOWN"}


@each_face
@pytest.mark.parametrize("protocol", [2, 3])
def test_a_client_without_a_login_gets_the_error_at_once(
    whole: cluster.Cluster, kind: str, protocol: int, load: Load
) -> None:
    asked = next(node for node in whole.nodes if not node.is_down)
    name = next(name for name in new_names() if whole.owner(name) is not asked)
    owner = whole.owner(name)
    with Sets(whole, kind, protocol=protocol) as sets:
        owner.ask("CONFIG", "SET", "requirepass", "secret")
        # The client may have met the node already; that connection would need no login.
        owner.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        try:
            began = time.monotonic()
            for call in (sets(name).pop, lambda: sets(name).add("a")):
                with pytest.raises(redis.exceptions.AuthenticationError):
                    call()
            assert time.monotonic() - began < load.seconds(2)
        finally:
            owner.ask("CONFIG", "SET", "requirepass", "")
        assert sets(name).add("a") == 0


def new_names() -> Iterator[str]:
    return (f"{{{number}}}jobs" for number in _names)


@each_face
def test_after_its_patience_the_last_error_is_raised(
    without_replicas: cluster.Cluster, kind: str, monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    monkeypatch.setattr(redirecting, "PATIENCE", 0.3)
    with Sets(without_replicas, kind) as sets:
        jobs = sets()
        jobs.add("a")
        slot, owner = cluster.slot_of(jobs.name), without_replicas.owner(jobs.name)
        owner.ask("CLUSTER", "DELSLOTS", slot)
        try:
            began = time.monotonic()
            with pytest.raises(redis.exceptions.ClusterDownError):
                jobs.pop()
            assert 0.3 <= time.monotonic() - began < load.seconds(3)
            with pytest.raises(AddError) as raised:
                jobs.add_many(map(str, range(3000)))
            assert raised.value.resume_at == 0
        finally:
            owner.ask("CLUSTER", "ADDSLOTS", slot)
        assert jobs.pop() == "a"


@on_each_engine
@each_face
def test_a_replaced_primary_is_left(whole: cluster.Cluster, kind: str, load: Load) -> None:
    with Sets(whole, kind) as sets:
        jobs = sets(key="n")
        jobs.add_many([{"n": number} for number in range(2000)], range(2000))
        old = whole.owner(jobs.name)
        if old is whole.nodes[-1]:
            whole.move(jobs.name, whole.others(jobs.name)[0])
        whole.fail_over(jobs.name)
        began = time.monotonic()
        # Its replica never saw the scripts.
        assert [each["n"] for each in jobs.take(3)] == [0, 1, 2]
        assert jobs.add_many([{"n": number} for number in range(2000, 4000)]).added == 2000
        assert time.monotonic() - began < load.seconds(5)


@on_each_engine
@each_face
def test_readonly_is_an_answer_of_a_replaced_primary(
    whole: cluster.Cluster, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if whole.kind == "valkey9":
        pytest.skip("its replicas refuse a script that writes in other words")
    with Sets(whole, kind, read_from_replicas=True) as sets:
        jobs = sets(key="n")
        nodes = link_of(jobs)._nodes
        assert nodes.reads_replicas
        # As if the link did not undo what such a client asks of its connections.
        monkeypatch.setattr(nodes, "reads_replicas", False)
        jobs.add({"n": 0})
        whole.fail_over(jobs.name)
        jobs.add({"n": 1})
        assert jobs.size() == 2


@each_face
def test_a_client_that_reads_from_replicas_has_its_sets_asked_at_primaries(
    whole: cluster.Cluster, kind: str
) -> None:
    with Sets(whole, kind, read_from_replicas=True) as sets:
        jobs = sets()
        jobs.add("a")
        old = whole.owner(jobs.name)
        whole.fail_over(jobs.name)
        whole.wait_until_whole()
        with Sets(whole, "redis") as others:
            others(jobs.name).add_many(["b", "c"])
        old.ask("CONFIG", "RESETSTAT")
        assert jobs.size() == 3
        assert not jobs.finished()
        # Its replaced primary did not answer as a replica, which lags.
        assert "errorstat_MOVED" in cluster.text(old.ask("INFO", "errorstats"))


@pytest.mark.usefixtures("silent")  # a report would meet the silence first
@each_face
def test_a_pop_without_an_answer_is_raised_once_and_an_add_is_sent_again(
    whole: cluster.Cluster, kind: str
) -> None:
    with Sets(whole, kind, socket_timeout=0.8) as sets:
        jobs = sets()
        jobs.add_many(["first", "a", "b", "c"], [0, 1, 2, 3])
        assert jobs.pop() == "first"  # before it the object looks at the members
        owner = whole.owner(jobs.name)
        with owner.frozen():
            began = time.monotonic()
            with pytest.raises((redis.TimeoutError, redis.ConnectionError)):
                jobs.pop()
            # The client may ask the same node for its table first, and that is silent, too.
            assert time.monotonic() - began < redirecting.PATIENCE / 10
        assert jobs.pop() in ("a", "b")
        thaw = threading.Event()
        with Later(0, lambda: frozen_until(owner, thaw)):
            time.sleep(0.1)
            with Later(0.7, thaw.set):
                assert sum(jobs.add_many(map(str, range(3000)), 9)[:2]) == 3000
        assert jobs.size() in (3001, 3002)


@on_each_engine
@pytest.mark.slow(10)
@each_face
def test_a_primary_that_died_is_waited_for(whole: cluster.Cluster, kind: str) -> None:
    with Sets(whole, kind) as sets:
        jobs = sets()
        if whole.owner(jobs.name) is whole.nodes[-1]:
            whole.move(jobs.name, whole.others(jobs.name)[0])
        jobs.add_many(map(str, range(100)), range(100))
        old = whole.owner(jobs.name)
        cluster.until(lambda: old.ask("WAIT", 1, 1000) == 1)
        old.kill()
        # Nothing was sent, so this holds for pops, too.
        assert jobs.pop() == "0"
        assert jobs.add_many(map(str, range(100, 3000)), 200).added == 2900
        assert jobs.size() == 2999
        old.revive()
        whole.wait_until_whole()


@each_face
def test_a_full_pool_is_raised_at_once(whole: cluster.Cluster, kind: str, load: Load) -> None:
    with Sets(whole, kind, max_connections=1) as sets:
        jobs = sets()
        jobs.add("a")
        pool = link_of(jobs)._nodes.known_pool(link_of(jobs)._home)
        if sets.awaits:
            taken = blocking.wait(pool.get_connection())
        else:
            taken = cluster.connection_from(pool)
        began = time.monotonic()
        with pytest.raises(redis.ConnectionError):
            jobs.pop()
        assert time.monotonic() - began < load.seconds(1)
        if sets.awaits:
            blocking.wait(pool.release(taken))
        else:
            pool.release(taken)
        assert jobs.pop() == "a"


@each_face
def test_a_user_without_a_right_gets_the_error_at_once(
    whole: cluster.Cluster, kind: str, load: Load
) -> None:
    for node in whole.nodes:
        rules = ("reset", "on", ">secret", "~*", "&*", "+@all", "-zpopmin")
        node.ask("ACL", "SETUSER", "weak", *rules)
    with Sets(whole, kind, username="weak", password="secret") as sets:
        jobs = sets()
        jobs.add("a")
        began = time.monotonic()
        with pytest.raises(redis.exceptions.NoPermissionError):
            jobs.clear(if_finished=True)
            jobs.pop()
        assert time.monotonic() - began < load.seconds(2)
    for node in whole.nodes:
        node.ask("ACL", "DELUSER", "weak")


# --- a window in which a slot moves


@on_each_engine
@each_face
def test_each_item_is_added_once_while_the_slot_moves_to_and_fro(
    whole: cluster.Cluster, kind: str
) -> None:
    with Sets(whole, kind) as sets:
        jobs = sets(key="n", remember=True)
        here, there = whole.owner(jobs.name), whole.others(jobs.name)[0]

        def move() -> None:
            for to in (there, here, there):
                whole.move(jobs.name, to, hold=0.05)

        def items(later: Later) -> Iterator[dict[str, int]]:
            for number in itertools.count():
                yield {"n": number}
                if number % 5 == 0:
                    yield {"n": number}
                if number > 5000:
                    if later.is_done:
                        return
                    time.sleep(0.0001)

        with Later(0.05, move) as later:
            added = [each["n"] for each in jobs.add_new(items(later))]
        n = len(added)
        assert added == list(range(n))
        assert jobs.size() == n
        with Later(0.02, lambda: whole.move(jobs.name, here, hold=0.05)):
            taken = [each["n"] for _ in range(20) for each in jobs.take(n // 19)]
        assert sorted(taken) == list(range(n))


@each_face
def test_requests_that_were_performed_behind_a_refused_one_count_once(
    without_replicas: cluster.Cluster, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sets(without_replicas, kind) as sets:
        jobs = sets()
        assert jobs.add("first", 0) == 0
        slot, owner = cluster.slot_of(jobs.name), without_replicas.owner(jobs.name)
        put, sent = redirecting.ClusterSession._put, 0

        async def put_and_serve(session: Any, flight: Any) -> None:
            """Serve the slot again after the first request of the window was refused."""
            nonlocal sent
            refusals = owner.info("errorstat_CLUSTERDOWN")
            await put(session, flight)
            sent += 1
            if sent == 1:
                cluster.until(lambda: owner.info("errorstat_CLUSTERDOWN") != refusals)
                owner.ask("CLUSTER", "ADDSLOTS", slot)
                cluster.until(lambda: owner.info("cluster_state") == "ok")

        monkeypatch.setattr(redirecting.ClusterSession, "_put", put_and_serve)
        owner.ask("CLUSTER", "DELSLOTS", slot)
        # Each item twice in a row: half of them are refused.
        items = [str(number // 2) for number in range(8000)]
        assert jobs.add_many(items, 1, nx=True)[:3] == (4000, 0, 4000)
        assert sent > 8000 / 1000
        assert jobs.size() == 4001
        # The last of equal items decides, although its request was performed before the first one.
        sent = 0
        owner.ask("CLUSTER", "DELSLOTS", slot)
        items = ["twice", *map(str, range(1998)), "twice", *map(str, range(6000))]
        assert sum(jobs.add_many(items, range(8000))[:3]) == 8000
        assert sent > 8000 / 1000
        assert jobs.score("twice") == 1999


# --- the known table


@pytest.mark.slow(1)
@each_face
def test_the_known_table_is_that_of_one_node(whole: cluster.Cluster, kind: str) -> None:
    with Sets(whole, kind) as sets:
        jobs, items = sets(remember=True), list(map(str, range(500)))
        if whole.owner(jobs.name) is whole.nodes[-1]:
            whole.move(jobs.name, whole.others(jobs.name)[0])
        assert [jobs.add_many(items).added for _ in range(2)] == [500, 0]
        owner = whole.owner(jobs.name)
        before = calls_of(owner)
        assert all(jobs.add_many(items).refused == 500 for _ in range(10))
        assert calls_of(owner) - before <= 2
        trust = trust_of(jobs)
        new = whole.fail_over(jobs.name)
        before = calls_of(new)
        assert all(jobs.add_many(items).refused == 500 for _ in range(10))
        assert calls_of(new) - before <= 5
        # The next check is of the other node. It knows nothing of the first one's table.
        cluster.until(
            lambda: jobs.add_many(items).refused and trust_of(jobs).table is not trust.table
        )


def trust_of(jobs: Any) -> Any:
    return getattr(jobs, "face", jobs)._ctx.memory.trust


@each_face
def test_items_that_the_next_primary_lacks_are_new(
    without_replicas: cluster.Cluster, kind: str, monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    monkeypatch.setattr(known, "TRUST", 0.3)
    nodes = without_replicas
    with Sets(nodes, kind) as sets:
        jobs, items = sets(remember=True), list(map(str, range(500)))
        assert [jobs.add_many(items).added for _ in range(2)] == [500, 0]
        assert trust_of(jobs) is not None
        # As if the steps were lost with a primary: another node has the slot, and no key of it.
        slot, to = cluster.slot_of(jobs.name), nodes.others(jobs.name)[0]
        to.ask("CLUSTER", "SETSLOT", slot, "NODE", to.id)
        to.ask("CLUSTER", "BUMPEPOCH")
        cluster.until(lambda: all(nodes._sees(each, slot) == to.port for each in nodes.nodes))
        began = time.monotonic()
        while not (added := jobs.add_many(items).added):
            assert time.monotonic() - began < load.seconds(2)  # a check counts for 0.3 s
        assert added == 500 == jobs.size()


# --- waiting


@on_each_engine
@each_face
def test_a_waiter_is_woken_at_the_node_that_has_the_slot_now(
    whole: cluster.Cluster, kind: str, load: Load
) -> None:
    with Sets(whole, kind) as sets, Sets(whole, "redis") as producers:
        jobs = sets()
        producer = producers(jobs.name)

        def move_and_add() -> None:
            whole.move(jobs.name, whole.others(jobs.name)[0], hold=0.1)
            time.sleep(1.3)
            producer.add("late")

        assert jobs.take(1, wait=0.2) == []
        with Later(0.3, move_and_add) as later:
            assert jobs.pop(wait=20) == "late"
            took = time.monotonic() - later.done
        assert took < load.seconds(0.5)


@on_each_engine
@each_face
def test_idle_waiters_of_a_cluster_send_about_one_command_a_second(
    whole: cluster.Cluster, kind: str
) -> None:
    with Sets(whole, kind) as sets:
        jobs = sets()
        if not whole.owner(jobs.name).tracks:
            pytest.skip("Redis 6.2 is polled")
        jobs.take(1, wait=0.3)
        owner = whole.owner(jobs.name)
        before = calls_of(owner)
        jobs.take(1, wait=1.0)
        # Polls would be 20.
        assert calls_of(owner) - before < 8


def calls_of(node: cluster.Node) -> int:
    """Return how many scripts and commands of sets a node has performed."""
    text = cluster.text(node.ask("INFO", "commandstats"))
    found = 0
    for line in text.splitlines():
        name, _, rest = line.partition(":calls=")
        if name in ("cmdstat_evalsha", "cmdstat_zpopmin", "cmdstat_zrange"):
            found += int(rest.split(",")[0])
    return found


# --- the rest


@pytest.mark.usefixtures("silent")  # an entry into the registry asks its node, too
@each_face
def test_the_clock_is_that_of_the_sets_node(whole: cluster.Cluster, kind: str) -> None:
    with Sets(whole, kind) as sets:
        later = sets(cls=ScheduledSet)
        for node in whole.nodes:
            node.ask("CONFIG", "RESETSTAT")
        later.add("now")
        assert later.pop() == "now"
        owner = whole.owner(later.name)
        asked = [
            node for node in whole.nodes if "cmdstat_time" in cluster.text(node.ask("INFO", "all"))
        ]
        assert asked == [owner]


@each_face
def test_sets_of_two_slots_are_compared_by_items(whole: cluster.Cluster, kind: str) -> None:
    with Sets(whole, kind) as sets:
        ours = sets()
        theirs = next(
            made
            for made in iter(sets, None)
            if whole.owner(made.name) is not whole.owner(ours.name)
        )
        ours.add_many(["a", "b", "c"])
        theirs.add_many(["a", "b", "c"])
        assert not ours.isdisjoint(theirs)
        theirs.discard("c")
        if not sets.awaits:
            assert ours > theirs and theirs <= ours and ours != theirs
            theirs.add("c")
            assert ours == theirs
        with pytest.raises(ValueError, match="must be in the cluster slot"):
            ours.update(theirs)
        with pytest.raises(ValueError, match="must be in the cluster slot"):
            ours.move_many(["a"], theirs)
        for each in (ours, theirs):
            each.clear()


def test_a_cancelled_call_in_a_redirection_leaves_a_usable_client(whole: cluster.Cluster) -> None:
    with Sets(whole, "redis-asyncio") as sets:
        jobs = sets(key="n", remember=True)
        jobs.add({"n": 0})
        to = whole.others(jobs.name)[0]
        whole.open_slot(jobs.name, to)

        async def cancel() -> None:
            task = asyncio.ensure_future(jobs.face.add({"n": 1}))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        try:
            blocking.wait(cancel())
        finally:
            whole.move_keys(jobs.name, to)
            whole.close_slot(jobs.name, to)
        assert jobs.add({"n": 1}) == 0
        assert jobs.size() == 2


def test_a_cancellation_that_the_client_swallows_ends_a_redirection(
    whole: cluster.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sets(whole, "redis-asyncio") as sets:
        jobs = sets(key="n", remember=True)
        jobs.add({"n": 0})
        to = whole.others(jobs.name)[0]
        monkeypatch.setattr(redirecting, "PATIENCE", 20.0)
        send, left = AsyncConnection.send_packed_command, [1]

        async def swallow(self: Any, *arguments: Any, **options: Any) -> None:
            await send(self, *arguments, **options)
            if left:
                left.clear()
                await blocking.be_cancelled_at_the_end_of_a_wait_for()

        whole.open_slot(jobs.name, to)
        try:
            with monkeypatch.context() as patch:
                patch.setattr(AsyncConnection, "send_packed_command", swallow)
                with pytest.raises(asyncio.CancelledError):
                    jobs.add({"n": 1})
        finally:
            whole.move_keys(jobs.name, to)
            whole.close_slot(jobs.name, to)
        assert not left
        jobs.add({"n": 2})
        assert jobs.size() >= 2


def test_a_forked_child_uses_its_own_connections_and_locks(whole: cluster.Cluster) -> None:
    with Sets(whole, "redis") as sets:
        jobs = sets()
        jobs.add_many(["a", "b"], [1, 2])
        manager = sets.client.nodes_manager
        held = [lock for lock in (manager._lock, link_of(jobs)._nodes._lock) if lock is not None]
        ready, done = threading.Event(), threading.Event()

        def hold() -> None:
            """Hold the locks in another thread, as a refresh of the table does."""
            with contextlib.ExitStack() as stack:
                for lock in held:
                    stack.enter_context(lock)
                ready.set()
                done.wait(20)

        with Later(0, hold):
            ready.wait(20)
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                whole_table = link_of(jobs)._nodes
                code = 1
                with contextlib.suppress(BaseException):
                    complete(whole_table.refresh(whole_table.version, None))
                    code = 0 if jobs.pop() == "a" else 2
                os._exit(code)
            done.set()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert jobs.pop() == "b"


@each_face
def test_a_set_of_a_url_makes_its_own_cluster_client(whole: cluster.Cluster, kind: str) -> None:
    name, cls = f"{{{next(_names)}}}jobs", SortedSet
    if CLIENTS[kind][1]:
        jobs: Any = redset.asyncio.SortedSet.from_url(whole.url, name, cluster=True, key="n")
        made = pickle.loads(pickle.dumps(jobs))

        async def use() -> None:
            async with jobs, made:
                await jobs.add({"n": 1})
                assert await made.pop() == {"n": 1}

        blocking.wait(use())
        cls = redset.asyncio.SortedSet
    else:
        with SortedSet.from_url(whole.url, name, cluster=True, key="n") as jobs:
            jobs.add({"n": 1})
            with pickle.loads(pickle.dumps(jobs)) as made:
                assert type(made.redis) is cluster.client_class()
                assert made.pop() == {"n": 1}
    with pytest.raises(ValueError, match=r"url must begin with redis:// or rediss://"):
        cls.from_url("unix:///tmp/s", name, cluster=True)
    with pytest.raises(TypeError, match=r"cluster must be True or False, got 'yes' \(str\)"):
        cls.from_url(whole.url, name, cluster="yes")


@pytest.mark.slow(4)
def test_a_cluster_is_reached_over_tls(tmp_path: Path) -> None:
    config = {"cluster_enabled": "yes", "tls_cluster": "yes"}
    with servers.start_with_tls(tmp_path, **config) as (server, port, certificate):
        server.raw.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, servers.SLOTS - 1)
        cluster.until(lambda: servers._serves(server, 1))
        url = f"rediss://localhost:{port}?ssl_ca_certs={certificate}"
        with SortedSet.from_url(url, "jobs", cluster=True) as jobs:
            jobs.add_many(["a", "b"], [1, 2])
            assert jobs.pop() == "a"

        async def pop() -> Any:
            async with redset.asyncio.SortedSet.from_url(url, "jobs", cluster=True) as others:
                return await others.pop()

        assert blocking.wait(pop()) == "b"


@on_each_engine
@each_face
def test_the_sets_node_and_the_clients_timeout_are_checked(
    whole: cluster.Cluster, kind: str
) -> None:
    name = f"{{{next(_names)}}}jobs"
    if whole.owner(name) is whole.nodes[-1]:
        whole.move(name, whole.others(name)[0])
    owner, other = whole.owner(name), whole.others(name)[0]

    def check(**options: Any) -> list[str]:
        with Sets(whole, kind, **options) as sets:
            found = (redset.asyncio if sets.awaits else redset).check_server(sets.client, name)
            return blocking.wait(found) if sets.awaits else found

    owner.ask("CONFIG", "SET", "min-replicas-to-write", 1)
    try:
        assert check(socket_timeout=1) == []
        (found,) = check(socket_timeout=4)
        assert "socket_timeout of the client is 4, and must be below 3 seconds" in found
        (found,) = check(socket_timeout=None)
        assert "socket_timeout of the client is None" in found
        whole.open_slot(name, other)
        (found,) = check(socket_timeout=1)
        assert found.startswith(f"slot {cluster.slot_of(name)} is open")
        whole.stay(name)
        whole.move(name, whole.nodes[-1])
        found, more = check(socket_timeout=1)
        assert "no replica" in found and "min-replicas-to-write is 0" in more
    finally:
        owner.ask("CONFIG", "SET", "min-replicas-to-write", 0)
