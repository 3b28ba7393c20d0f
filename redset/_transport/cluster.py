"""All that redset knows of the private parts of redis-py's and valkey-py's cluster clients.

Theory of operation. A cluster client has a table: the primary of each slot. redset reads it, and
borrows connections of the primary's own pool, as it does of a plain client's. The table is the
client's: redset patches it by the client's own methods, so that both know of a slot that moved.
Each private attribute is named in ``PARTS``. A client that lacks one keeps the generic link.

*Slots.* A request goes to the primary of its own first key, never to a replica. A request without
a key goes to the slot of its set.

*Pools.* A sync node has a client of its own, with a pool. An asyncio node is its own pool: it has
no weak references, and equals another node of its name. A `NodePool` stands for it.

*Refusals.* `redirection_of` names the answers of a node that did not perform a request, since the
slot is elsewhere, or nowhere for a while. `redset._transport.redirecting` acts on them.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import functools
import inspect
import logging
import os
import re
import sys
import threading
import weakref
from typing import Any, NamedTuple

from redset._transport.pools import Borrower

log = logging.getLogger("redset")

SLOTS = 16384

# --- slots

#: The head of a request, up to the size of its first key: a script's call or a command, after a
#: MULTI.
_HEAD = re.compile(
    rb"(?:\*1\r\n\$5\r\nMULTI\r\n)?\*\d+\r\n\$\d+\r\n"
    rb"(?:EVALSHA\r\n\$40\r\n[0-9a-f]{40}\r\n\$\d+\r\n(\d+)|([A-Z]+))(?:\r\n\$(\d+)\r\n)?"
)
#: Commands whose first argument is not a key.
_KEYLESS = frozenset((b"CLUSTER", b"CONFIG", b"INFO", b"SCRIPT", b"TIME"))


@functools.lru_cache(maxsize=1024)
def slot_of(key: bytes) -> int:
    """Return the slot of a key: of its hash tag, if it has one."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return binascii.crc_hqx(key, 0) % SLOTS


def slot_of_request(data: bytes, home: int) -> int:
    """Return the slot of a request's first key; ``home`` if it has none."""
    key = _first_key(data)
    return home if key is None else slot_of(data[key[0] : key[1]])


def _first_key(data: bytes) -> tuple[int, int] | None:
    """Return the start and the end of a request's first key; None if it has none."""
    head = _HEAD.match(data)
    if head is None or head[3] is None or head[1] == b"0" or head[2] in _KEYLESS:
        return None
    start = head.end()
    return start, start + int(head[3])


class Heads:
    """The heads of requests, up to the end of the first key, that went to a slot.

    The same set sends the same few heads again. To compare them takes a tenth of the time of
    `slot_of_request`.
    """

    __slots__ = ("_known", "slot")

    #: The most that are kept.
    MOST = 16

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self._known: tuple[bytes, ...] = ()

    def slot_of(self, data: bytes) -> int:
        """Return the slot of a request's first key; that of the heads if it has none."""
        if data.startswith(self._known):
            return self.slot
        key = _first_key(data)
        if key is None:
            return self.slot
        slot = slot_of(data[key[0] : key[1]])
        if slot == self.slot:
            self._known = (data[: key[1]], *self._known[: self.MOST - 1])
        return slot


# --- what a node did not perform


class Redirection(NamedTuple):
    """An answer to a request that was not performed."""

    #: MOVED, ASK, TRYAGAIN, CLUSTERDOWN, MASTERDOWN, LOADING or READONLY.
    code: str
    error: Any


_CODES = {
    "MovedError": "MOVED",
    "AskError": "ASK",
    "TryAgainError": "TRYAGAIN",
    "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
    "BusyLoadingError": "LOADING",
    "ReadOnlyError": "READONLY",
}
_CLASSES = {code: name for name, code in _CODES.items()}


def redirection_of(error: Exception) -> Redirection | None:
    """Return what an error asks for, if its request was not performed."""
    # MovedError is an AskError.
    code = next(
        (_CODES[each.__name__] for each in type(error).__mro__ if each.__name__ in _CODES), None
    )
    if code is None and type(error).__name__ == "ResponseError":
        code, _, detail = str(error).partition(" ")
        if code not in _CLASSES:
            return None
        # With RESP3 valkey-py 6.2 replaces the parser that has these errors by one without.
        error = getattr(sys.modules[type(error).__module__], _CLASSES[code])(detail)
    return None if code is None else Redirection(code, error)


#: Connection errors that another node would not mend: of the client's own limit, of a login.
_FINAL = frozenset(
    ("MaxConnectionsError", "AuthenticationError", "AuthorizationError", "NoPermissionError")
)
#: The texts of a pool's limit, in versions without a class for it.
_FULL = ("Too many connections", "No connection available")
_UNREACHABLE = frozenset(
    ("ConnectionError", "TimeoutError", "OSError", "SlotNotCoveredError", "RedisClusterException",
     "ValkeyClusterException", *_CODES)
)  # fmt: skip


def is_unreachable(error: Exception) -> bool:
    """Return whether an error of taking a connection means that no node was there to take it."""
    names = {each.__name__ for each in type(error).__mro__}
    if names & _FINAL or str(error).startswith(_FULL):
        return False
    return bool(names & _UNREACHABLE)


# --- the parts of a client

#: The attributes that are read: of the client, of its nodes_manager, and of a node. Of those in a
#: tuple one is enough: the first is that of newer versions.
PARTS: dict[bool, dict[str, list[str | tuple[str, ...]]]] = {
    False: {
        "client": ["nodes_manager", ("get_redis_connection", "get_valkey_connection")],
        "nodes_manager": [
            "slots_cache", "nodes_cache", "startup_nodes", "initialize", "get_node",
            "get_node_from_slot", "remap_host_port", ("move_slot", "_moved_exception"),
        ],
        "node": ["host", "port", "name", ("redis_connection", "valkey_connection")],
    },
    True: {
        "client": ["nodes_manager", "initialize", "_initialize"],
        "nodes_manager": [
            "slots_cache", "nodes_cache", "startup_nodes", "initialize", "get_node",
            "get_node_from_slot", "remap_host_port", ("move_slot", "_moved_exception"),
        ],
        "node": [
            "host", "port", "name", "acquire_connection", "_connections", ("release", "_free"),
            "connection_class", "connection_kwargs",
        ],
    },
}  # fmt: skip


def missing_parts(client: Any, awaits: bool) -> list[str]:
    """Return the private attributes that a client of an unknown version lacks."""
    manager = getattr(client, "nodes_manager", None)
    nodes = (getattr(manager, "nodes_cache", None) or getattr(manager, "startup_nodes", None)) or {}
    values = {
        "client": client,
        "nodes_manager": manager,
        "node": next(iter(nodes.values()), None),
    }
    found = []
    for owner, names in PARTS[awaits].items():
        for name in names:
            some = (name,) if isinstance(name, str) else name
            if not any(hasattr(values[owner], each) for each in some):
                found.append(f"{owner}.{' or '.join(some)}")
    return found


def any_node(client: Any, awaits: bool) -> Any:
    """Return a node's client and pool, or the same of an asyncio node, to be looked at."""
    manager = client.nodes_manager
    node = next(iter((manager.nodes_cache or manager.startup_nodes).values()))
    return node if awaits else _client_of(client, node)


def _client_of(client: Any, node: Any) -> Any:
    """Return a sync node's own client; it is made on its first use."""
    get = getattr(client, "get_redis_connection", None) or client.get_valkey_connection
    return get(node)


def socket_timeout_of(client: Any, awaits: bool) -> float | None:
    """Return the ``socket_timeout`` of a cluster client's connections, in seconds.

    None if they have none, NaN if it cannot be seen.
    """
    if missing_parts(client, awaits):
        return float("nan")
    node = any_node(client, awaits)
    source = node if awaits else node.connection_pool
    # The default depends on the version. Making a connection does not connect it.
    connection = source.connection_class(**source.connection_kwargs)
    timeout: float | None = getattr(connection, "socket_timeout", float("nan"))
    return timeout


class Nodes:
    """The nodes of a sync client, by slot, and the pools of their connections."""

    awaits = False

    def __init__(self, client: Any) -> None:
        self._client = weakref.ref(client)
        #: Counts refreshes of the table.
        self.version = 0
        self._lock = threading.Lock()
        self._borrowers: dict[Any, Borrower] = {}
        #: The last primary of a slot, its own client, and what lends its connections.
        self._last: dict[int, tuple[Any, Any, Borrower]] = {}
        #: The heads of requests that went to a slot; see `heads_of`.
        self.heads: dict[int, Heads] = {}
        self._own = (
            "redis_connection" if hasattr(client, "get_redis_connection") else "valkey_connection"
        )
        #: Whether the client's connections let replicas answer.
        self.reads_replicas = bool(
            getattr(client, "read_from_replicas", False)
            or getattr(client, "load_balancing_strategy", None)
        )
        manager = client.nodes_manager
        self._names_failed = (
            "last_failed_node_name" in inspect.signature(manager.initialize).parameters
        )

    @property
    def client(self) -> Any:
        client = self._client()
        if client is None:  # a set holds its client
            raise RuntimeError("the cluster client is gone")
        return client

    def node(self, slot: int) -> Any:
        """Return the primary of a slot; a LookupError or the client's error if none is known."""
        return self.client.nodes_manager.slots_cache[slot][0]

    def heads_of(self, slot: int) -> Heads:
        """Return the heads of requests that went to a slot; all of its sets share them."""
        found = self.heads.get(slot)
        if found is None:
            if len(self.heads) > 1000:
                self.heads.clear()
            found = self.heads[slot] = Heads(slot)
        return found

    def known_pool(self, slot: int) -> Any:
        """Return the pool of a slot's primary; None if none is known. It does no I/O."""
        try:
            return self.pool_of(self.node(slot))
        except Exception:
            return None

    def pool_of(self, node: Any) -> Any:
        return _client_of(self.client, node).connection_pool

    def name_of(self, pool: Any) -> str | None:
        """Return the name of a pool's node in the table; None if it is not there."""
        options = getattr(pool, "connection_kwargs", {})
        host, port = options.get("host"), options.get("port")
        if not (host and port):
            return None
        node = self.client.nodes_manager.get_node(host=host, port=port)
        return None if node is None else node.name

    def borrower(self, slot: int) -> Borrower | None:
        """Return what lends connections to the primary of a slot; None if none is known."""
        client = self._client()
        if client is None:
            return None
        try:
            node = client.nodes_manager.slots_cache[slot][0]
            last = self._last.get(slot)
            if last is not None:
                before, own, found = last
                if (
                    node is before
                    and getattr(node, self._own) is own
                    and own.connection_pool is found.pool
                ):
                    return found
            own = _client_of(client, node)
            pool = own.connection_pool
        except Exception:
            return None
        found = self._borrower_of(pool)
        self._last[slot] = node, own, found
        return found

    def _borrower_of(self, pool: Any) -> Borrower:
        found = self._borrowers.get(pool)
        if found is None:
            if len(self._borrowers) > 100:  # nodes that are gone
                self._borrowers.clear()
            found = self._borrowers[pool] = Borrower(pool)
        return found

    async def ready(self) -> None:
        """Make the table, if the client has none yet."""

    async def refresh(self, seen: int, failed: str | None) -> None:
        """Make the table anew, unless it was since it had the version ``seen``.

        ``failed`` is the name of the node that did not answer, to be asked last.
        """
        with self._lock:
            if self.version == seen:
                self._last.clear()
                self._initialize(failed)
                self.version += 1

    def _initialize(self, failed: str | None) -> Any:
        named = {"last_failed_node_name": failed} if self._names_failed else {}
        return self.client.nodes_manager.initialize(**named)

    async def note_move(self, error: Any) -> None:
        """Patch the table by a MOVED."""
        manager = self.client.nodes_manager
        if hasattr(manager, "move_slot"):
            moved = manager.move_slot(error)
            if self.awaits:
                await moved
        else:  # before redis-py 8, and valkey-py: noted, and done by the next look
            manager._moved_exception = error
            manager.get_node_from_slot(error.slot_id)

    def locate(self, error: Any, source: Any) -> tuple[str, int]:
        """Return the address that a MOVED or ASK names, as this client reaches it.

        A node that does not know its own address names a port alone: ``source`` has the same host.
        """
        host, port = error.host or source.connection_kwargs.get("host"), int(error.port)
        host, port = self.client.nodes_manager.remap_host_port(host, port)
        error.host, error.port = host, port
        return host, port

    def find(self, address: tuple[str, int], source: Any) -> Any:
        """Return the pool of a node by its address; of one that the table lacks, one for once."""
        host, port = address
        node = self.client.nodes_manager.get_node(host=host, port=port)
        if node is None:
            return (AsyncLonePool if self.awaits else LonePool)(source, host, port)
        return self.pool_of(node)


class AsyncNodes(Nodes):
    """The nodes of an asyncio client, by slot, and the pools of their connections."""

    awaits = True

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._pools: dict[str, NodePool] = {}
        self._refreshing: asyncio.Lock | None = None
        self._loop: Any = None
        self._was_ready = False

    def pool_of(self, node: Any) -> NodePool:
        pool = self._pools.get(node.name)
        if pool is None or pool.node is not node:
            pool = self._pools[node.name] = NodePool(node)
        return pool

    async def ready(self) -> None:
        client = self.client
        if not client._initialize:
            return
        try:
            await client.initialize()
        except Exception as error:
            if not self._was_ready:
                # As of a client's own first command: the address may be wrong.
                raise _Unready from error
            raise
        self._was_ready = True

    async def refresh(self, seen: int, failed: str | None) -> None:
        loop = asyncio.get_running_loop()
        if self._refreshing is None or self._loop is not loop:
            self._loop, self._refreshing = loop, asyncio.Lock()
        async with self._refreshing:
            if self.version == seen:
                await self._initialize(failed)
                self.version += 1


class _Unready(Exception):
    """The client could not be initialized; its cause is the client's own error."""


def unready(error: Exception) -> BaseException | None:
    """Return the client's own error, if an asyncio client could not be initialized at first."""
    return error.__cause__ if type(error) is _Unready else None


class LonePool:
    """One connection to a node that the client's table lacks, with the options of another's pool.

    It ends when it is given back.
    """

    def __init__(self, source: Any, host: str, port: int) -> None:
        self.connection_class = source.connection_class
        # Notices of a server's maintenance are for connections of a pool.
        self.connection_kwargs = {
            **{
                name: each for name, each in source.connection_kwargs.items() if "maint" not in name
            },
            "host": host,
            "port": port,
        }

    def get_connection(self) -> Any:
        connection = self.connection_class(**self.connection_kwargs)
        connection.connect()
        return connection

    def release(self, connection: Any) -> Any:
        connection.disconnect()


class AsyncLonePool(LonePool):
    """The same of an asyncio client."""

    async def get_connection(self) -> Any:
        connection = self.connection_class(**self.connection_kwargs)
        await connection.connect()
        return connection

    async def release(self, connection: Any) -> None:
        await connection.disconnect(nowait=True)


class NodePool:
    """An asyncio node in the place of a pool."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.connection_kwargs = node.connection_kwargs
        self.connection_class = node.connection_class

    @property
    def _connections(self) -> list[Any]:
        return self.node._connections  # type: ignore[no-any-return]

    async def get_connection(self) -> Any:
        """Take a connection that is open and has nothing to be read, as a pool's is."""
        connection = self.node.acquire_connection()
        try:
            marked = getattr(connection, "should_reconnect", None)
            if marked is not None and marked():
                await connection.disconnect()
            await connection.connect()
            try:
                has_data = getattr(connection, "can_read", None) or connection.can_read_destructive
                is_stale = await has_data()
            except Exception:
                is_stale = True
            if is_stale:
                await connection.disconnect()
                await connection.connect()
        except BaseException:
            with contextlib.suppress(Exception):
                await connection.disconnect(nowait=True)
            self._give_back(connection)
            raise
        return connection

    async def release(self, connection: Any) -> None:
        self._give_back(connection)

    def _give_back(self, connection: Any) -> None:
        give = getattr(self.node, "release", None)
        if give is not None:
            give(connection)
        else:  # before redis-py 6.4, and in valkey-py
            self.node._free.append(connection)


# --- the nodes of each client

#: The client's attribute for its nodes. In a table beside it they would keep it alive.
_ATTRIBUTE = "_redset_nodes"
_clients: weakref.WeakSet[Any] = weakref.WeakSet()


def nodes_of(client: Any, awaits: bool) -> Nodes:
    """Return the nodes of a cluster client; all of its sets share them."""
    found: Nodes | None = client.__dict__.get(_ATTRIBUTE)
    if found is None or found._client() is not client:  # of a client that was copied
        made = (AsyncNodes if awaits else Nodes)(client)
        _clients.add(client)
        client.__dict__[_ATTRIBUTE] = found = made
    return found


def _renew_client_locks() -> None:
    """Replace the locks of clients in a forked child, whose holder may not exist there."""
    for client in list(_clients):
        for holder in (client, client.nodes_manager, client.__dict__.get(_ATTRIBUTE)):
            for name in ("_lock", "_initialization_lock"):
                if type(getattr(holder, name, None)) in _LOCKS:
                    setattr(holder, name, threading.RLock())


_LOCKS = (type(threading.Lock()), type(threading.RLock()))
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_renew_client_locks)
