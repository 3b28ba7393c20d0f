"""A real cluster on loopback, whose slots move and whose primaries fail.

    with cluster.start("valkey9") as nodes:
        client = nodes.client()
        nodes.move(cluster.slot_of("jobs"), to=nodes.others("jobs")[0])

By default it has three primaries, each with a third of the slots, and a replica of each. Every node
is a `servers.Server`: in a directory of its own, on ports of its own, ended with this process.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import redis
from redis.crc import key_slot
from servers import SLOTS, Missing, Server

#: How long a node waits for another before it counts as failed, in milliseconds. Redis's default is
#: ten times as long. An election follows.
NODE_TIMEOUT = 1500
#: The longest that anything takes that a cluster does by itself, in seconds.
PATIENCE = 30.0
#: Errors of a node that does not serve, or not yet.
_UNREADY = (redis.RedisError, OSError)


class Node(Server):
    """One server of a cluster."""

    def __init__(self, kind: str, **config: Any) -> None:
        #: Its process does not run, or is stopped.
        self.is_down = False
        super().__init__(kind, **config)
        self.id = text(self.raw.execute_command("CLUSTER", "MYID"))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def ask(self, *arguments: Any) -> Any:
        """Return the reply to a command, in RESP2's shape, without a callback of the client's."""
        connection = connection_from(self.raw.connection_pool)
        try:
            connection.send_command(*arguments)
            return connection.read_response()
        except _UNREADY:
            connection.disconnect()
            raise
        finally:
            self.raw.connection_pool.release(connection)

    def info(self, field: str) -> str:
        """Return a field of INFO or CLUSTER INFO; an empty text if it is not there."""
        found = ""
        for command in (("INFO",), ("CLUSTER", "INFO")):
            match = re.search(rf"^{field}:(.*?)\r?$", text(self.ask(*command)), re.MULTILINE)
            found = match[1] if match else found
        return found

    def kill(self) -> None:
        self.is_down = True
        super().kill()

    def _start(self) -> None:
        super()._start()
        self.is_down = False

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop its process during the block, as a virtual machine that is paused."""
        pid = self.pid
        self.is_down = True
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)
            self.is_down = False


class Cluster:
    """A cluster: its nodes, and what an operator does to it."""

    def __init__(
        self, kind: str, primaries: int = 3, replicas: int = 1, spare: int = 0, **config: Any
    ) -> None:
        self.kind = kind
        self.nodes: list[Node] = []
        self._options = {
            "cluster_enabled": "yes",
            "cluster_node_timeout": NODE_TIMEOUT,
            # A primary that lost its last slot stays one.
            "cluster_allow_replica_migration": "no",
            "repl_diskless_sync_delay": 0,
            **config,
        }
        try:
            for _ in range(primaries * (1 + replicas) + spare):
                self.nodes.append(Node(kind, **self._options))
            self._join(primaries, replicas)
        except BaseException:
            self.stop()
            raise

    def __repr__(self) -> str:
        return f"<cluster of {self.nodes}>"

    def _join(self, primaries: int, replicas: int) -> None:
        """Make one cluster of the nodes. The spare ones, which are the last, have no slots."""
        try:
            for place, node in enumerate(self.nodes):
                node.ask("CLUSTER", "SET-CONFIG-EPOCH", place + 1)
        except redis.ResponseError as error:
            raise Missing(f"{self.kind}: no cluster ({error})") from None
        for place, node in enumerate(self.nodes[:primaries]):
            first, last = place * SLOTS // primaries, (place + 1) * SLOTS // primaries - 1
            if node.version < (7,):
                node.ask("CLUSTER", "ADDSLOTS", *range(first, last + 1))
            else:
                node.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
        for one, other in itertools.combinations(self.nodes, 2):
            one.ask("CLUSTER", "MEET", "127.0.0.1", other.port)
        replica_nodes = self.nodes[primaries : primaries * (1 + replicas)]
        for place, node in enumerate(replica_nodes):
            primary = self.nodes[place % primaries]
            # Refused until it knows its primary.
            until(lambda n=node, p=primary: n.ask("CLUSTER", "REPLICATE", p.id))  # type: ignore[misc]
        self.wait_until_whole()

    def wait_until_whole(self, seconds: float = PATIENCE) -> None:
        """Wait until all nodes that run serve, agree, and replicas follow."""
        until(self.is_whole, seconds, what=self._difference)

    def is_whole(self) -> bool:
        """Return whether all nodes that run know all slots and each other."""
        return not self._difference()

    def _difference(self) -> str:
        """Return what is not yet as it must be; an empty text if the cluster is whole."""
        up = self._up()
        views: dict[Any, Node] = {}
        for node in up:
            nodes = text(node.ask("CLUSTER", "NODES"))
            if node.info("cluster_state") != "ok":
                return f"{node} does not serve:\n{nodes}"
            if node.info("role") == "slave" and node.info("master_link_status") != "up":
                return f"{node} does not follow its primary:\n{nodes}"
            lines = [line.split() for line in nodes.splitlines()]
            if any({"handshake", "noaddr"} & set(line[2].split(",")) for line in lines):
                return f"{node} does not know all:\n{nodes}"
            known = {line[0] for line in lines if not {"fail", "fail?"} & set(line[2].split(","))}
            if not known >= {each.id for each in up}:
                return f"{node} takes one for dead:\n{nodes}"
            roles = frozenset((line[0], "master" in line[2], line[3]) for line in lines)
            slots = tuple(map(repr, sorted(node.ask("CLUSTER", "SLOTS"))))
            views[roles, len(slots)] = node
        if len(views) == 1:
            return ""
        each = (f"{node}:\n" + text(node.ask("CLUSTER", "NODES")) for node in views.values())
        return "views differ:\n" + "\n".join(each)

    def stop(self) -> None:
        """End every node; none is left."""
        for node in self.nodes:
            node.stop()

    # --- who is what

    def _up(self) -> list[Node]:
        return [node for node in self.nodes if not node.is_down]

    def primaries(self) -> list[Node]:
        """The nodes that run and are primaries, with or without slots."""
        return [node for node in self._up() if node.info("role") == "master"]

    def owner(self, key: str | bytes | int) -> Node:
        """The primary of a key's slot, or of a slot, as most primaries see it."""
        slot = slot_of(key)
        votes: dict[int, int] = {}
        for node in self._up():
            for first, last, primary, *_ in node.ask("CLUSTER", "SLOTS"):
                if first <= slot <= last:
                    votes[primary[1]] = votes.get(primary[1], 0) + 1
        port = max(votes, key=lambda each: votes[each])
        return next(node for node in self.nodes if node.port == port)

    def others(self, key: str | bytes | int) -> list[Node]:
        """The primaries that do not have a slot; those without any slot come last."""
        owner = self.owner(key)
        found = [node for node in self.primaries() if node is not owner]
        return sorted(found, key=lambda node: not self._has_slots(node))

    def _has_slots(self, node: Node) -> bool:
        return any(row[2][1] == node.port for row in node.ask("CLUSTER", "SLOTS"))

    def replica_of(self, primary: Node) -> Node:
        """A replica of a primary."""
        for node in self._up():
            if node.info("role") == "slave" and node.info("master_port") == str(primary.port):
                return node
        raise AssertionError(f"{primary} has no replica")

    def name_on(self, node: Node, start: str = "jobs") -> str:
        """A name whose slot a primary has."""
        for number in itertools.count():
            name = f"{start}-{number}" if number else start
            if self.owner(name) is node:
                return name
        raise AssertionError

    # --- what happens to it

    def open_slot(self, key: str | bytes | int, to: Node) -> None:
        """Begin to move a slot key by key."""
        slot, source = slot_of(key), self.owner(key)
        to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id)

    def move_keys(self, key: str | bytes | int, to: Node, most: int = 1 << 30) -> int:
        """Move so many of an open slot's keys, one after another; return how many it moved."""
        slot, source, moved = slot_of(key), self.owner(key), 0
        while moved < most and (found := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 1)):
            source.ask("MIGRATE", "127.0.0.1", to.port, "", 0, 30_000, "KEYS", *found)
            moved += 1
        return moved

    def close_slot(self, key: str | bytes | int, to: Node) -> None:
        """End the move of a slot whose keys have all moved: it is the target's now."""
        slot = slot_of(key)
        primaries = sorted(self.primaries(), key=lambda node: node is not to)
        for node in primaries:
            with contextlib.suppress(*_UNREADY):
                node.ask("CLUSTER", "SETSLOT", slot, "NODE", to.id)
        until(lambda: all(self._sees(node, slot) == to.port for node in self.primaries()))

    def stay(self, key: str | bytes | int) -> None:
        """Cancel the move of a slot before a key of it has moved."""
        for node in self.primaries():
            node.ask("CLUSTER", "SETSLOT", slot_of(key), "STABLE")

    def move(self, key: str | bytes | int, to: Node, hold: float = 0.0) -> None:
        """Move a slot key by key; ``hold`` is how long it stays open before, in seconds."""
        if self.owner(key) is to:
            return
        self.open_slot(key, to)
        time.sleep(hold)
        self.move_keys(key, to)
        self.close_slot(key, to)

    def move_atomically(self, key: str | bytes | int, to: Node) -> None:
        """Move a slot in one step, as Valkey 9 does."""
        slot, source = slot_of(key), self.owner(key)
        if source is to:
            return
        if self.kind != "valkey9":
            raise Missing(f"{self.kind}: no CLUSTER MIGRATESLOTS")
        source.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", to.id)
        until(lambda: all(self._sees(node, slot) == to.port for node in self.primaries()))

    def _sees(self, node: Node, slot: int) -> int | None:
        for first, last, primary, *_ in node.ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return int(primary[1])
        return None

    def fail_over(self, key: str | bytes | int) -> Node:
        """Let a replica of a slot's primary take over, as an operator does; return the replica."""
        old = self.owner(key)
        new = self.replica_of(old)
        for _ in range(3):
            new.ask("CLUSTER", "FAILOVER")
            # A replica gives up after 5 seconds, and after a vote that it lost.
            with contextlib.suppress(AssertionError):
                until(lambda: self.owner(key) is new, 8)
                break
        until(lambda: self.owner(key) is new)
        if old.version < (7,):
            # Redis 6.2 keeps the replaced primary paused for 10 s (redis #10985): it answers no
            # write, and applies nothing of what its new primary sends.
            old.ask("CLIENT", "UNPAUSE")
        return new

    def wait_for_other(self, key: str | bytes | int, old: Node) -> Node:
        """Wait until another node than ``old``, which is down, has a slot; return that."""
        until(lambda: self.owner(key) is not old and not self.owner(key).is_down)
        return self.owner(key)

    # --- clients

    def client(self, library: str = "redis", awaits: bool = False, **options: Any) -> Any:
        """A new cluster client of redis-py's or valkey-py's, sync or asyncio."""
        node = next(node for node in self.nodes if not node.is_down)
        return client_class(library, awaits)(host="127.0.0.1", port=node.port, **options)

    @property
    def url(self) -> str:
        return f"redis://{next(node for node in self.nodes if not node.is_down).address}"


@contextlib.contextmanager
def start(
    kind: str, primaries: int = 3, replicas: int = 1, spare: int = 0, **config: Any
) -> Iterator[Cluster]:
    """A cluster, for as long as the context lasts.

    ``spare`` is how many more primaries there are, without slots.
    """
    made = Cluster(kind, primaries, replicas, spare, **config)
    try:
        yield made
    finally:
        made.stop()


def slot_of(key: str | bytes | int) -> int:
    """Return the slot of a key; a slot is its own."""
    if isinstance(key, int):
        return key
    return int(key_slot(key.encode() if isinstance(key, str) else key))


def client_class(library: str = "redis", awaits: bool = False) -> Any:
    """Return the class of a library's cluster clients."""
    module = f"{library}.asyncio.cluster" if awaits else f"{library}.cluster"
    try:
        found = importlib.import_module(module)
    except ImportError:
        raise Missing(f"{module}: not installed") from None
    return found.RedisCluster if library == "redis" else found.ValkeyCluster


def connection_from(pool: Any) -> Any:
    """Take a connection from a sync pool, of whatever version."""
    try:
        return pool.get_connection()
    except TypeError:  # before redis-py 5.3
        return pool.get_connection("PING")


def text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def until(
    is_so: Callable[[], Any], seconds: float = PATIENCE, what: Callable[[], Any] | None = None
) -> None:
    """Wait until a function of nodes returns something true, and none of them an error.

    ``what`` is asked for what the error says.
    """
    end = time.monotonic() + seconds
    last: Any = None
    while time.monotonic() < end:
        try:
            last = is_so()
            if last:
                return
        except _UNREADY as error:
            last = error
        time.sleep(0.02)
    if what is not None:
        last = what()
    raise AssertionError(f"not so in {seconds:.0f} s: {last}")
