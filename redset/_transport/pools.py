"""All uses of the private parts of redis-py's and valkey-py's connection pools.

Theory of operation. The packed link borrows connections from the pool of the user's client, and so
needs attributes that no documentation names. They are read here and nowhere else. Each function
names the versions that differ. A pool of another kind has other attributes. The function then
returns a value with which its caller takes the slow and safe way.

*Checkout.* redis-py's ``get_connection`` and ``release`` take about 7 µs of a call, most of it for
metrics and events without listeners (redis-py 8.1). A `Borrower` does the same bookkeeping in
a tenth of that time: under the pool's lock, a connection moves from the idle ones to those in use,
and back. It does so only if no difference is visible:

- The pool is of exactly the class, and of a version, that this was written for. Its connections are
  the library's own. Nothing wraps its methods.
- It has no cache, no credential provider, and no listener besides the library's own. No metrics are
  recorded.
- The connection belongs to this process, is open, and has nothing to be read. `can_read` finds a
  closed socket before a pop, which is never sent again.

In each other case the pool's own methods are called. No connection is held between calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from redset._transport.coroutines import complete, heard, undisturbed

#: The scripts that were loaded by way of each pool in use.
loaded_scripts: weakref.WeakKeyDictionary[Any, set[bytes]] = weakref.WeakKeyDictionary()

#: Detects that the other side has closed a connection, if the platform can.
_poll: Any = getattr(select, "poll", None)
_HUNG_UP: int = getattr(select, "POLLRDHUP", getattr(select, "POLLHUP", 0))

# --- after a fork


def _renew_locks() -> None:
    """Replace the pools' locks in a forked child: the thread that holds one may not exist there.

    A pool resets itself in a child, but first waits for its lock (redis-py 8.1), maybe forever.
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
    """Return a connection to its asyncio pool, even if the task is cancelled in between."""
    try:
        await pool.release(connection)
    except asyncio.CancelledError:
        with contextlib.suppress(KeyError):  # it was returned before
            await undisturbed(pool.release(connection))
        raise


def take_connection(pool: Any) -> Any:
    """Take a connection from a sync pool; an interrupt leaves none half made in it."""
    try:
        try:
            return get_connection(pool)
        except Exception as error:
            return complete(retake(pool, error))
    except Exception:
        raise
    except BaseException:
        # The pool has the half made connection back, and would hand it out: without its login and,
        # worse, on another database.
        with idle_connections(pool) as idle:
            for connection in idle:
                connection.disconnect()
        raise


async def retake(
    pool: Any, error: Exception, raise_swallowed: Callable[[], None] | None = None
) -> Any:
    """Take a connection again, by the client's retry policy, after the pool raised an error.

    A pool connects by that policy, then looks whether the connection can be read. It raises if the
    server closed it right after connecting, as one does that shuts down. Nothing was sent, but no
    policy retries that. Each other error is raised as it is.

    ``raise_swallowed`` raises the cancellation of an asyncio call that the client swallowed.
    """
    with idle_connections(pool) as idle:
        retry = next((getattr(connection, "retry", None) for connection in idle), None)
    if retry is None or not _is_closed_at_once(error):
        raise error
    failed = [error]

    async def attempt() -> tuple[Any, Exception | None]:
        try:
            if failed:
                raise failed.pop()
            if raise_swallowed is None:
                return get_connection(pool), None
            raise_swallowed()
            return await heard(get_connection(pool)), None
        except Exception as again:
            if _is_closed_at_once(again):
                raise
            return None, again  # the pool has connected as often as the policy allows

    # The policy counts the failure that happened as its first attempt.
    if raise_swallowed is None:
        connection, last = retry.call_with_retry(lambda: complete(attempt()), _ignore)
    else:
        connection, last = await retry.call_with_retry(attempt, _ignore_later)
    if last is not None:
        raise last
    return connection


def _is_closed_at_once(error: Exception) -> bool:
    """Return whether a pool raised because a connection was closed right after connecting."""
    # It is open in the pool now, and so looks like any other. The parser in C raises, the one in
    # Python reads the end as if it were data.
    if str(error) == "Connection not ready":
        return True
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name.startswith("can_read"):
            return True
        trace = trace.tb_next
    return False


def _ignore(_: Exception) -> None:
    """Do nothing before the next attempt: the pool disconnects what it cannot use."""


async def _ignore_later(_: Exception) -> None:
    """Do as `_ignore`, for asyncio."""


class Borrower:
    """Takes connections from the pool of a sync client and gives them back.

    Attributes
    ----------
    pool : object
        The pool.
    scripts : set of bytes
        The scripts that were loaded by way of the pool.
    """

    __slots__ = (
        "_event", "_get", "_is_plain", "_kind", "_listeners", "_mapping", "_providers", "_recorder",
        "_release", "pool", "scripts",
    )  # fmt: skip

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.scripts = loaded_scripts.setdefault(pool, set())
        kind = self._kind = type(pool)
        # Compared before each call: a program may wrap them, listen, or record at any time.
        self._get, self._release = getattr(kind, "get_connection", None), kind.release
        self._mapping, self._event, self._listeners = _listeners_of(pool)
        self._recorder = sys.modules.get("redis.observability.recorder", _NO_METRICS)
        self._providers = sys.modules.get("redis.observability.providers", _NO_METRICS)
        self._is_plain = _is_plain(pool) and (
            # The pool is of another version, which may record in another way.
            hasattr(self._recorder, "_metrics_collector")
            and hasattr(self._providers, "_observability_instance")
        )

    def take(self) -> tuple[Any, bool]:
        """Take a connection, and note for `give_back` whether it is one of a plain pool."""
        pool, kind = self.pool, self._kind
        if (
            self._is_plain
            and pool.pid == os.getpid()
            and kind.get_connection is self._get
            and kind.release is self._release
            and "get_connection" not in pool.__dict__
            and "release" not in pool.__dict__
            and self._mapping.get(self._event) is self._listeners
            and self._recorder._metrics_collector is None
            and (
                (metrics := self._providers._observability_instance) is None
                or metrics._provider_manager is None
            )
        ):
            connection: Any = None
            try:
                with pool._lock:
                    if pool._available_connections:
                        connection = pool._available_connections[-1]
                        # In this order an interrupt leaves no connection outside of both.
                        pool._in_use_connections.add(connection)
                        pool._available_connections.pop()
                is_open = connection is not None and connection._sock is not None
                if is_open and not connection.can_read():
                    return connection, True
            except Exception:
                assert connection is not None
                connection.disconnect()
            except BaseException:
                self._abandon(connection)
                raise
            if connection is not None:
                # The pool takes it as the last one, and connects it, or drops what can be read.
                pool.release(connection)
        return take_connection(pool), False

    def give_back(self, connection: Any, is_plain: bool) -> None:
        """Return a connection that `take` returned."""
        pool = self.pool
        if (
            is_plain
            and connection.pid == pool.pid == os.getpid()
            # Other threads set it: for notifications of maintenance, and for new credentials.
            and not getattr(connection, "_should_reconnect", False)
            and getattr(connection, "_re_auth_token", None) is None
        ):
            with pool._lock:
                if connection in pool._in_use_connections:
                    try:
                        pool._in_use_connections.remove(connection)
                    finally:  # in spite of an interrupt
                        pool._available_connections.append(connection)
        else:
            pool.release(connection)

    def _abandon(self, connection: Any) -> None:
        """Return a connection whose taking was interrupted, unless it is still idle."""
        pool = self.pool
        with pool._lock:
            if connection is None or connection in pool._available_connections:
                pool._in_use_connections.discard(connection)
                return
        connection.disconnect()
        pool.release(connection)


#: Major versions whose pools a `Borrower` knows.
_KNOWN_VERSIONS = {"redis": ("5", "6", "7", "8"), "valkey": ("6",)}
_POOL_ATTRIBUTES = frozenset(("pid", "_lock", "_available_connections", "_in_use_connections"))
#: In place of the modules of redis-py that record metrics, before 7.2 and in valkey-py.
_NO_METRICS = types.SimpleNamespace(_metrics_collector=None, _observability_instance=None)


def _is_plain(pool: Any) -> bool:
    """Return whether a `Borrower` may do the bookkeeping of a pool."""
    kind = type(pool)
    package = kind.__module__.partition(".")[0]
    version = str(getattr(sys.modules.get(package), "__version__", "")).partition(".")[0]
    module = sys.modules.get(f"{package}.connection")
    if (
        version not in _KNOWN_VERSIONS.get(package, ())
        or kind is not getattr(module, "ConnectionPool", None)
        or not pool.__dict__.keys() >= _POOL_ATTRIBUTES
        or pool.connection_class.__module__ != kind.__module__
    ):
        return False
    own = (kind.get_connection, kind.release)
    options = pool.connection_kwargs
    listeners = _listeners_of(pool)[2]
    return (
        # The library's own, and no wrapper of an instrumentation.
        all(type(each) is types.FunctionType for each in own)
        and all(each.__globals__["__name__"].partition(".")[0] == package for each in own)
        and getattr(pool, "cache", None) is None
        and not options.get("cache_enabled")
        and options.get("credential_provider") is None
        and (listeners is None or [type(each).__name__ for each in listeners] == [_RENEWER])
    )


#: The library's own listener, which renews logins of credential providers.
_RENEWER = "ReAuthConnectionListener"


def _listeners_of(pool: Any) -> tuple[Any, Any, Any]:
    """Return the dict of a pool's listeners by event, the event of a release, and its listeners.

    Registering one more replaces the list. Before redis-py 5.3 there are no events.
    """
    mapping = getattr(getattr(pool, "_event_dispatcher", None), "_event_listeners_mapping", {})
    for event, listeners in mapping.items():
        if event.__name__ == "AfterConnectionReleasedEvent":
            return mapping, event, listeners
    return {}, None, None


@contextlib.contextmanager
def idle_connections(pool: Any) -> Iterator[list[Any]]:
    """Yield the idle connections. No other thread can take one in between."""
    queue = getattr(pool, "pool", None)
    with _held(getattr(pool, "_lock", None) if queue is None else getattr(queue, "mutex", None)):
        if queue is None:
            yield list(pool._available_connections)
        else:  # of a blocking pool, with None in place of connections that were never made
            every = queue.queue if hasattr(queue, "queue") else queue._queue
            yield [each for each in every if each is not None]


def _held(lock: Any) -> contextlib.AbstractContextManager[Any]:
    """Return a context that holds a pool's lock, if it has one. Asyncio needs none."""
    return lock if hasattr(lock, "__enter__") else contextlib.nullcontext()


# --- which connections are open


class UsedSockets:
    """The sockets that this process has sent requests over.

    ``change`` is another object after each connection that was lost, and after each new one, of any
    client.
    """

    def __init__(self) -> None:
        self.change = object()
        #: Weak references; a short path looks in here, which a WeakSet makes three times as slow.
        self.known: set[weakref.ref[Any]] = set()

    def use(self, connection: Any) -> Any:
        """Note that a connection was used, and return its socket."""
        socket = socket_of(connection)
        if socket is None:
            return None
        try:
            if weakref.ref(socket) not in self.known:
                self.change = object()
                self.known.add(weakref.ref(socket, self.known.discard))
        except TypeError:  # a socket of another kind, which is a new object each time
            self.change = object()
        return socket


used_sockets = UsedSockets()


def socket_of(connection: Any) -> Any:
    """Return the object that is new after a reconnect: the socket, or asyncio's writer."""
    try:
        return connection._sock
    except AttributeError:
        return getattr(connection, "_writer", None)


def fingerprint_of(pool: Any) -> Any:
    """Return a fingerprint of the open connections; None if they cannot be seen.

    It has three parts: the number of the database, the object that changes with the process's
    connections, and the open sockets of this pool, idle or in use.
    """
    try:
        # A connection that is taken in between would be seen twice, or not at all.
        with _held(getattr(pool, "_lock", None)):
            connections = _connections_of(pool)
        database = database_of(pool)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return None  # another kind of pool
    sockets = [found for each in connections if (found := socket_of(each)) is not None]
    return database, used_sockets.change, frozenset(_still_open(sockets))


def _connections_of(pool: Any) -> list[Any]:
    # redis-py's and valkey-py's blocking pool has all of them in one list.
    every = getattr(pool, "_connections", None)
    if every is not None:
        return list(every)
    return [*pool._available_connections, *pool._in_use_connections]


def _still_open(sockets: list[Any]) -> list[Any]:
    """Return the sockets that the server has not closed unnoticed."""
    if _poll is None or not sockets:
        return sockets
    by_number = {}
    for socket in sockets:
        # With asyncio it is the writer, which has the socket.
        each = socket if hasattr(socket, "fileno") else socket.get_extra_info("socket")
        try:
            number = each.fileno()
        except (AttributeError, OSError, ValueError):
            continue  # closed by this process, just now
        if number >= 0:
            by_number[number] = socket
    numbers = tuple(by_number)
    # Taken out while it is in use: two threads may not ask one object at the same time.
    poll = _polls.pop(numbers, None) or _poll_of(numbers)
    closed = {number for number, _ in poll.poll(0)}
    if len(_polls) >= _POLLS:
        _polls.clear()
    _polls[numbers] = poll
    return [socket for number, socket in by_number.items() if number not in closed]


def _poll_of(numbers: tuple[int, ...]) -> Any:
    poll = _poll()
    for number in numbers:
        poll.register(number, _HUNG_UP)
    return poll


#: Objects that ask for these numbers of sockets. To make one takes three times as long as to ask.
#: Which sockets have the numbers does not matter to them.
_polls: dict[tuple[int, ...], Any] = {}
#: The most of them that are kept.
_POLLS = 64


# --- which server they lead to


def address_of(pool: Any) -> Any:
    """Return the server and database that a pool's connections lead to; None if that may change."""
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
    # redis-py's Sentinel connections raise a ConnectionError for a ReadOnlyError, so that the retry
    # looks for the new primary. They miss a wrapped one (Redis 6.2, in scripts).
    return bool(getattr(pool, "is_master", False))
