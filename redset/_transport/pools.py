"""All that redset knows of the private parts of redis-py's and valkey-py's connection pools.

Theory of operation. The packed link borrows connections from the pool of the user's client, and
so meets attributes that no documentation names. They are read here and nowhere else. Each function
says which versions differ. A pool of another kind has other attributes: then the function returns
what makes its caller take the slow and safe way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import threading
import weakref
from collections.abc import Iterator
from typing import Any

from redset._transport.coroutines import undisturbed

#: The scripts that were loaded by way of each pool in use.
loaded_scripts: weakref.WeakKeyDictionary[Any, set[bytes]] = weakref.WeakKeyDictionary()

#: How to see that the other side has closed a connection, if the platform tells.
_poll: Any = getattr(select, "poll", None)
_HUNG_UP: int = getattr(select, "POLLRDHUP", getattr(select, "POLLHUP", 0))

# --- after a fork


def _renew_locks() -> None:
    """Replace the pools' locks in a forked child, whose holder may not exist there.

    A pool resets itself in a child, but waits for its lock first (redis-py 8.1), forever.
    """
    for pool in list(loaded_scripts):
        for holder in (pool, getattr(pool, "_event_dispatcher", None)):
            for name in ("_lock", "_fork_lock"):
                if type(getattr(holder, name, None)) in _LOCKS:
                    setattr(holder, name, threading.RLock())


_LOCKS = (type(threading.Lock()), type(threading.RLock()))
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_renew_locks)

# --- taking connections and giving them back


def get_connection(pool: Any) -> Any:
    """Take a connection from its pool, or a coroutine that takes it."""
    # Before redis-py 5.3, and in valkey-py, the command's name is a required argument.
    get = pool.get_connection
    try:
        return get()
    except TypeError:
        return get("EVALSHA")


async def release(pool: Any, connection: Any) -> None:
    """Return a connection to its asyncio pool, also if this is cancelled in between."""
    try:
        await pool.release(connection)
    except asyncio.CancelledError:
        with contextlib.suppress(KeyError):  # it was given back already
            await undisturbed(pool.release(connection))
        raise


@contextlib.contextmanager
def idle_connections(pool: Any) -> Iterator[list[Any]]:
    """Return the connections that nobody uses, nor can take meanwhile."""
    queue = getattr(pool, "pool", None)
    with _held(getattr(pool, "_lock", None) if queue is None else getattr(queue, "mutex", None)):
        if queue is None:
            yield list(pool._available_connections)
        else:  # a blocking pool's, with None in place of those that were never made
            every = queue.queue if hasattr(queue, "queue") else queue._queue
            yield [each for each in every if each is not None]


def _held(lock: Any) -> contextlib.AbstractContextManager[Any]:
    """Return a context that holds a pool's lock, if it has one. Asyncio needs none."""
    return lock if hasattr(lock, "__enter__") else contextlib.nullcontext()


# --- which connections are open


class UsedSockets:
    """The sockets that this process has sent requests over.

    ``change`` is another object after each connection that was lost, and after each new one,
    whichever client's it is.
    """

    def __init__(self) -> None:
        self.change = object()
        self._used: weakref.WeakSet[Any] = weakref.WeakSet()

    def use(self, connection: Any) -> Any:
        """Return the socket of a connection that something was sent over."""
        socket = socket_of(connection)
        if socket is not None and socket not in self._used:
            self.change = object()
            with contextlib.suppress(TypeError):  # of another kind, which is new each time
                self._used.add(socket)
        return socket


used_sockets = UsedSockets()


def socket_of(connection: Any) -> Any:
    """Return what a connection is made anew with: its socket, or the asyncio writer over it."""
    try:
        return connection._sock
    except AttributeError:
        return getattr(connection, "_writer", None)


def fingerprint_of(pool: Any) -> Any:
    """Return a fingerprint of the open connections; None if they cannot be seen.

    It has the number of the database, the object that changes with the process's connections, and
    the open sockets of this pool, idle or in use.
    """
    try:
        # A connection that is taken meanwhile would be seen twice, or not at all.
        with _held(getattr(pool, "_lock", None)):
            connections = _connections_of(pool)
        database = database_of(pool)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return None  # another kind of pool
    sockets = [socket for socket in map(socket_of, connections) if socket is not None]
    return database, used_sockets.change, frozenset(_still_open(sockets))


def _connections_of(pool: Any) -> list[Any]:
    # redis-py's and valkey-py's blocking pool has all of them in one list.
    every = getattr(pool, "_connections", None)
    if every is not None:
        return list(every)
    return [*pool._available_connections, *pool._in_use_connections]


def _still_open(sockets: list[Any]) -> list[Any]:
    """Leave out those that the server has closed, though nobody has noticed yet."""
    if _poll is None or not sockets:
        return sockets
    poll, by_number = _poll(), {}
    for socket in sockets:
        # With asyncio it is the writer.
        each = socket if hasattr(socket, "fileno") else socket.get_extra_info("socket")
        try:
            number = each.fileno()
            poll.register(number, _HUNG_UP)
        except (AttributeError, OSError, ValueError):
            continue  # closed by this process, just now
        by_number[number] = socket
    closed = {number for number, _ in poll.poll(0)}
    return [socket for number, socket in by_number.items() if number not in closed]


# --- which server they lead to


def address_of(pool: Any) -> Any:
    """Return which server and database a pool's connections lead to, or None if that may change."""
    if hasattr(pool, "service_name"):
        return None
    options = pool.connection_kwargs
    server = options.get("path") or (
        options.get("host", "localhost"),
        int(options.get("port", 6379)),
    )
    return server, database_of(pool)


def database_of(pool: Any) -> int:
    """Return the number of the database that a pool's connections select."""
    return int(pool.connection_kwargs.get("db") or 0)


def follows_primary(pool: Any) -> bool:
    """Return whether a pool asks Sentinel for the primary."""
    # redis-py's Sentinel connections raise a ConnectionError for a ReadOnlyError, so that the new
    # primary is looked for; one that came wrapped (Redis 6.2, in scripts) they do not see.
    return bool(getattr(pool, "is_master", False))
