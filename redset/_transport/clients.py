"""Decides what a set may do with the client that it was given.

Theory of operation. redset can write whole requests to connections of the client's own pool (the
packed link). That goes past the client's ``execute_command``. So a client whose ``execute_command``
is not the library's own gets the generic link: a subclass or a wrapper may prefix keys, refuse
writes or count failures, and redset must not bypass it. Wrappers of known instrumentations only
observe. Clients with those keep the packed link, and the client's spans are then missing.

A wrapper can be put in place after the set was made. `Lender.lends` therefore compares, before
each call, what `Lender` saw when it decided. That costs about 0.2 µs.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from redset import _transport
from redset._transport.pools import Borrower, address_of

LIBRARIES = ("redis", "valkey")
#: Packages whose classes count as the libraries' own. fakeredis is also the server.
_OWN = frozenset((*LIBRARIES, "fakeredis"))
#: Packages whose wrappers observe calls, and change nothing.
_INSTRUMENTATIONS = frozenset(("opentelemetry", "ddtrace", "sentry_sdk", "elasticapm", "newrelic"))

#: Methods that the client calls for a request, and the packed link does not.
_OF_CLIENT = (
    "execute_command",
    "_execute_command",
    "_send_command_parse_response",
    "parse_response",
)
_OF_CONNECTION = (
    "send_command",
    "pack_command",
    "pack_commands",
    "send_packed_command",
    "read_response",
)
_OF_POOL = ("get_connection", "release")

_LOOKALIKES = {
    "Pipeline": "a pipeline",
    "ClusterPipeline": "a pipeline",
    "PubSub": "a PubSub",
    "ClusterPubSub": "a PubSub",
    "Monitor": "a Monitor",
    "Sentinel": "a Sentinel",
}
_REMEDIES = {
    "a pipeline": "pass the client that made it; a set's calls cannot be part of a pipeline",
    "a PubSub": "pass the client that made it",
    "a Monitor": "pass the client that made it",
    "a Sentinel": "pass what its master_for() returns",
}
_MOCKS = ("unittest.mock", "mock.mock", "mock")
_NOTHING = object()


def library_of(kind: type) -> types.ModuleType | None:
    """Return the client library that a class comes from, redis or valkey; None for others."""
    for base in kind.__mro__:
        library = _package_of(base.__module__)
        if library in LIBRARIES:
            return importlib.import_module(library)
    return None


def full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def check_client(client: Any) -> Callable[..., Any]:
    """Return the client's ``execute_command``.

    Raises
    ------
    TypeError
        If it is not a client: a class, a mock, a pipeline or the like, or anything else.
    """
    if isinstance(client, type):
        raise TypeError(
            f"redis_client must be a client, got the class {full_name(client)}: "
            "make an instance of it"
        )
    kind = type(client)
    for base in kind.__mro__:
        if base.__module__ in _MOCKS and base.__name__ == "NonCallableMock":
            raise TypeError(
                f"redis_client must be a client, got a mock ({full_name(kind)}), which answers "
                "nothing that a server would: test with redset.embedded.server() or fakeredis[lua]"
            )
        if base.__name__ in _LOOKALIKES and _package_of(base.__module__) in LIBRARIES:
            what = _LOOKALIKES[base.__name__]
            raise TypeError(
                f"redis_client must be a client, got {what} ({full_name(kind)}): {_REMEDIES[what]}"
            )
    execute = getattr(client, "execute_command", None)
    if not callable(execute):
        remedy = ": SortedSet.from_url takes a URL" if isinstance(client, (str, bytes)) else ""
        raise TypeError(
            f"redis_client must be a client with execute_command, got {kind.__name__}{remedy}"
        )
    return execute  # type: ignore[no-any-return]


def is_asyncio(client: Any, execute: Callable[..., Any]) -> bool:
    """Whether the client's ``execute_command`` is to be awaited."""
    if inspect.iscoroutinefunction(execute):
        return True
    # A subclass or an instance may have a plain function that returns the library's coroutine.
    return any(
        base.__module__.startswith(("redis.asyncio.", "valkey.asyncio."))
        for base in type(client).__mro__
    )


def is_cluster(client: Any) -> bool:
    """Whether a client is one of redis-py's or valkey-py's for clusters."""
    return library_of(type(client)) is not None and hasattr(client, "get_primaries")


class Node:
    """One node of a cluster, as a client: it takes every command to that node."""

    def __init__(self, client: Any, node: Any) -> None:
        self._client = client
        self._node = node

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        return self._client.execute_command(*arguments, target_nodes=[self._node], **options)


class AsyncNode(Node):
    """The same over an asyncio client."""

    async def execute_command(self, *arguments: Any, **options: Any) -> Any:
        return await super().execute_command(*arguments, **options)


class Lender:
    """Decides whether a client's connections are lent: only if nothing wraps it or its pool.

    After a wrapper was found they are not lent again, even if it was removed.
    """

    __slots__ = (
        "_execute", "_kind", "_others", "_pack", "_pool", "_send", "_within", "awaits", "borrower",
        "server",
    )  # fmt: skip

    def __init__(self, client: Any) -> None:
        self._pool: Any = None
        #: Whether the client is an asyncio one; None before a link has checked it.
        self.awaits: bool | None = None
        #: Takes connections from a sync client's pool, if they are lent.
        self.borrower: Any = None
        self._look(client)

    def lends(self, client: Any) -> bool:
        """Whether a request may be written to the client's connections now."""
        pool = self._pool
        if pool is None:
            return False
        kind = self._kind
        if (
            client.connection_pool is pool
            and (self._execute is None or self._within.execute_command is self._execute)
            and (self._send is None or kind.send_command is self._send)
            and (self._pack is None or kind.pack_command is self._pack)
            and "execute_command" not in client.__dict__
        ):
            for names, name, found in self._others:
                if names.get(name, _NOTHING) is not found:
                    break
            else:
                return True
        return self._look(client)

    def _look(self, client: Any) -> bool:
        if not _lends(client):
            self._pool = None
            return False
        pool = client.connection_pool
        self.borrower = Borrower(pool)
        #: Equal for clients of the same server and database, if that is sure.
        self.server = address_of(pool) or weakref.ref(pool)
        self._pool = pool
        self._within, self._kind = type(client), pool.connection_class
        #: Dict of a class, name, and attribute or its absence, up to the class that defines it.
        self._others: list[tuple[Any, str, Any]] = []
        self._execute = self._plain(self._within, "execute_command")
        self._send = self._plain(self._kind, "send_command")
        self._pack = self._plain(self._kind, "pack_command")
        return True

    def _plain(self, kind: type, name: str) -> Any:
        """Return a class's function, to compare later, if it is plain.

        Otherwise note the classes' attributes: a wrapper is a new object at each look-up.
        """
        found = getattr(kind, name, None)
        if type(found) is types.FunctionType:
            return found
        self._others += [(names, name, each) for names, each in _owners_of(kind, name)]
        return None


#: Methods that a request through a cluster client passes, and a packed one does not.
_OF_CLUSTER = ("execute_command", "_internal_execute_command", "_execute_command")
_OF_CLUSTER_NODE = ("execute_command", "parse_response", "acquire_connection", "release")


class ClusterLender:
    """Whether the connections of a cluster client's nodes are lent."""

    __slots__ = ("_execute", "_kind", "_lends", "_others", "awaits")

    borrower = None

    def __init__(self, client: Any) -> None:
        self.awaits: bool | None = None
        self._kind: Any = type(client)
        self._execute = getattr(self._kind, "execute_command", None)
        awaits = is_asyncio(client, client.execute_command)
        self._lends = _lends_nodes(client, awaits)

    def lends(self, client: Any) -> bool:
        """Whether a request may be written to the connections of the client's nodes now."""
        if self._lends and (
            self._kind.execute_command is not self._execute or "execute_command" in client.__dict__
        ):
            self._lends = _is_genuine(client, _OF_CLUSTER)
            self._execute = self._kind.execute_command
        return self._lends


def _lends_nodes(client: Any, awaits: bool) -> bool:
    if not _is_genuine(client, _OF_CLUSTER) or _transport.cluster.missing_parts(client, awaits):
        return False
    sample = _transport.cluster.any_node(client, awaits)
    if not awaits:
        return _lends(sample)
    options = sample.connection_kwargs
    return (
        _is_genuine(sample, _OF_CLUSTER_NODE)
        and isinstance(sample.connection_class, type)
        and _makes_own_bytes(sample.connection_class, options)
    )


_lenders: weakref.WeakKeyDictionary[Any, Lender | ClusterLender] = weakref.WeakKeyDictionary()


def known_lender(client: Any) -> Lender | ClusterLender | None:
    """Return the lender of a client, if another set of the client made it."""
    try:
        return _lenders.get(client)
    except TypeError:
        return None


def lender_of(client: Any) -> Lender | ClusterLender:
    """Return the lender of a client. All sets of the client share it."""
    try:
        found = _lenders.get(client)
        if found is None:
            kind = ClusterLender if is_cluster(client) else Lender
            found = _lenders[client] = kind(client)
    except TypeError:  # no hash or no weak references: it is not a library's client
        return Lender(client)
    return found


def _lends(client: Any) -> bool:
    kind, pool = type(client), getattr(client, "connection_pool", None)
    if (
        library_of(kind) is None
        or not callable(getattr(pool, "get_connection", None))
        # Client-side caching and single_connection_client make their own use of a connection.
        or getattr(client, "connection", None) is not None
        or getattr(client, "single_connection_client", False)
        or getattr(pool, "cache", None) is not None
    ):
        return False
    if not _is_genuine(client, _OF_CLIENT) or not _is_genuine(pool, _OF_POOL):
        return False
    connection_kind = getattr(pool, "connection_class", None)
    if not isinstance(connection_kind, type):
        return False
    return _makes_own_bytes(connection_kind, getattr(pool, "connection_kwargs", {}))


def _makes_own_bytes(connection_kind: type, options: dict[str, Any]) -> bool:
    """Whether a connection sends and reads bytes as its library does."""
    encoder = options.get("encoder_class")
    return (
        _has_own(connection_kind, _OF_CONNECTION)
        # Both would make the bytes of a request, which the packed link makes itself.
        and options.get("command_packer") is None
        and (encoder is None or _package_of(encoder.__module__) in _OWN)
    )


def _is_genuine(value: Any, names: tuple[str, ...]) -> bool:
    """Whether these methods of an object are its library's own."""
    kind: Any = type(value)
    attributes = getattr(value, "__dict__", {})
    return (
        not any(name in attributes for name in names)
        and kind.__getattribute__ is object.__getattribute__
        and _has_own(kind, names)
    )


def _has_own(kind: type, names: tuple[str, ...]) -> bool:
    """Whether these methods of a class are its library's own. A missing one counts as own."""
    for name in names:
        for names_of, found in _owners_of(kind, name):
            if found is _NOTHING:
                continue
            if _package_of(names_of["__module__"]) not in _OWN or not _is_own(found):
                return False
    return True


def _owners_of(kind: type, name: str) -> Iterator[tuple[Any, Any]]:
    """Yield each class's dict and its attribute of this name, up to the class that has it."""
    for base in kind.__mro__:
        found = base.__dict__.get(name, _NOTHING)
        yield base.__dict__, found
        if found is not _NOTHING:
            return


def _is_own(function: Any) -> bool:
    """Whether a function is the library's own, or an instrumentation's wrapper of such a function.

    ``__module__`` proves nothing: `functools.wraps` and wrapt copy it.
    """
    for _ in range(20):  # wrappers around wrappers
        wrapper = getattr(function, "_self_wrapper", None)
        if wrapper is None:
            break
        # A wrapper of wrapt's: its attributes are those of the wrapped function.
        if _package_of_function(wrapper) not in _INSTRUMENTATIONS:
            return False
        function = function.__wrapped__
    if type(function) is not types.FunctionType:
        return False
    if _package_of_function(function) not in _OWN | _INSTRUMENTATIONS:
        return False
    # A wrapped function must be the library's own, too.
    for cell in function.__closure__ or ():
        try:
            inner = cell.cell_contents
        except ValueError:  # still empty
            continue
        is_wrapper = getattr(inner, "_self_wrapper", None) is not None
        if (is_wrapper or type(inner) is types.FunctionType) and not _is_own(inner):
            return False
    return True


def _package_of_function(function: Any) -> str:
    """Return the package that a callable's code was written in."""
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    names = getattr(function, "__globals__", None)
    if names is None:  # an object that is called
        return _package_of(type(function).__module__)
    return _package_of(names.get("__name__", ""))


def _package_of(module: str) -> str:
    return module.partition(".")[0]


def decoding_options(execute: Callable[..., Any]) -> dict[str, Any]:
    """Return the options with which a client's ``execute_command`` leaves replies undecoded.

    redis-py's clients decode unless an option says not to, and wrappers pass options on to them.
    Members need not be text, so they must not be decoded.
    """
    try:
        # Not the signature of a wrapped function: the wrapper may take fewer arguments.
        parameters = inspect.signature(execute, follow_wrapped=False).parameters.values()
    except (TypeError, ValueError):
        return {}
    takes_options = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
    return {"NEVER_DECODE": True} if takes_options else {}


def caches(client: Any) -> bool:
    """Whether a client may answer reads from memory. Its caches know commands in upper case."""
    pool = getattr(client, "connection_pool", None)
    options = getattr(pool, "connection_kwargs", None) or {}
    return getattr(pool, "cache", None) is not None or bool(options.get("cache_enabled"))


def decodes_all(client: Any) -> bool:
    """Return whether an asyncio client decodes all replies, even with decode_responses=False."""
    # Up to redis-py 5.0.3 asyncio connections with hiredis do.
    library = library_of(type(client))
    source = client if is_cluster(client) else client.connection_pool
    decodes = source.connection_kwargs.get("decode_responses")
    return bool(decodes) and getattr(library, "__version__", "") in (
        "5.0.0",
        "5.0.1",
        "5.0.2",
        "5.0.3",
    )
