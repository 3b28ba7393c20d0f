"""A private cluster on loopback: three primaries, and a replica of each."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import redis
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot

from redset import embedded

__all__ = ("Nodes", "open_client", "running")

_PRIMARIES = 3
_SLOTS = 16384
#: Time until a silent node counts as failed, in milliseconds.
_NODE_TIMEOUT = 1500
#: Time-out of a client, in seconds: below that of a node.
_TIMEOUT = 1.0
_PATIENCE = 30.0


class Nodes:
    """The nodes of a cluster, and the faults to inject.

    Parameters
    ----------
    clients : dict of int to redis.Redis
        A client of each node, by port. The primaries come first.
    bus : list of int
        The ports that they talk to each other on.
    """

    def __init__(self, clients: dict[int, Any], bus: list[int]) -> None:
        self._ports, self._bus = list(clients), bus
        self._clients = clients
        self._ids = {
            port: client.execute_command("CLUSTER", "MYID")
            for port, client in self._clients.items()
        }

    @property
    def url(self) -> str:
        """The addresses of all nodes: a client that is made later needs one that runs."""
        return "redis://" + ",".join(f"127.0.0.1:{port}" for port in self._ports)

    @property
    def version(self) -> str:
        """The name and version of the servers."""
        info = next(iter(self._clients.values())).info("server")
        return f"a cluster of {len(self._clients)} Valkey {info['valkey_version']}"

    def join(self) -> None:
        """Make one cluster of the nodes, and wait until it serves."""
        primaries = self._ports[:_PRIMARIES]
        for place, client in enumerate(self._clients.values()):
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", place + 1)
            if place < _PRIMARIES:
                first, last = (number * _SLOTS // _PRIMARIES for number in (place, place + 1))
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last - 1)
        for port, client in self._clients.items():
            for other, bus in zip(self._ports, self._bus, strict=True):
                if other != port:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", other, bus)
        for place, port in enumerate(self._ports[_PRIMARIES:]):
            primary = self._ids[primaries[place % _PRIMARIES]]
            replicate = functools.partial(
                self._clients[port].execute_command, "CLUSTER", "REPLICATE", primary
            )
            # Refused until it knows its primary.
            _until(replicate)
        _until(self._is_whole)

    def _is_whole(self) -> bool:
        for client in self._clients.values():
            if b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
                return False
            replication = client.info("replication")
            if replication["role"] == "slave" and replication["master_link_status"] != "up":
                return False
            if len(client.execute_command("CLUSTER", "SLOTS")) < _PRIMARIES:
                return False
        return True

    def move_slot(self, name: str) -> None:
        """Move the slot of a set to another primary, while the set is in use."""
        slot, source = key_slot(name.encode()), self._owner(name)
        target = next(
            port
            for port, client in self._clients.items()
            if port != source and client.info("replication")["role"] == "master"
        )
        self._clients[source].execute_command(
            "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", self._ids[target]
        )
        _until(lambda: self._owner(name) == target)

    def kill_primary(self, name: str) -> None:
        """Kill the primary of a set. Its replica takes over after the time-out of a node."""
        # The link of a slot that has just moved to this primary's replica may be new.
        _until(self._is_whole)
        port = self._owner(name)
        pid = self._clients[port].info("server")["process_id"]
        del self._clients[port]
        os.kill(pid, signal.SIGKILL)

    def _owner(self, name: str) -> int:
        """Return the port of the primary of a set, by the view of most nodes."""
        slot = key_slot(name.encode())
        votes = [
            int(primary[1])
            for client in self._clients.values()
            for first, last, primary, *_ in client.execute_command("CLUSTER", "SLOTS")
            if first <= slot <= last
        ]
        return max(votes, key=votes.count)


@contextlib.contextmanager
def running() -> Iterator[tuple[Any, Nodes]]:
    """Start a cluster. Yield a client of it, and its nodes."""
    with contextlib.ExitStack() as stack:
        ports = _free_ports(4 * _PRIMARIES)
        clients: dict[int, Any] = {}
        bus = ports[2 * _PRIMARIES :]
        for port, bus_port in zip(ports, bus, strict=False):
            client = stack.enter_context(
                embedded.server(
                    bind="127.0.0.1",
                    cluster_enabled=True,
                    cluster_announce_port=port,
                    cluster_port=bus_port,
                    cluster_node_timeout=_NODE_TIMEOUT,
                    cluster_allow_replica_migration=False,
                    repl_diskless_sync_delay=0,
                )
            )
            # The embedded server has no TCP port, and the clients of a cluster need one.
            client.config_set("port", port)
            clients[port] = client
        nodes = Nodes(clients, bus)
        nodes.join()
        with open_client(nodes.url) as client:
            yield client, nodes


def open_client(url: str) -> Any:
    """Open a client of the cluster whose nodes have these addresses."""
    addresses = (each.split(":") for each in url.removeprefix("redis://").split(","))
    make: Any = ClusterNode
    nodes = [make(host, int(port)) for host, port in addresses]
    return RedisCluster(startup_nodes=nodes, socket_timeout=_TIMEOUT)


def _free_ports(number: int) -> list[int]:
    """Return ports of this machine that nothing listens on, outside the range of connections."""
    found: list[int] = []
    while len(found) < number:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


def _until(is_so: Callable[[], Any]) -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        with contextlib.suppress(redis.ResponseError):
            if is_so():
                return
        if time.monotonic() > end:
            raise RuntimeError(f"the cluster was not ready in {_PATIENCE:.0f} seconds")
        time.sleep(0.02)
