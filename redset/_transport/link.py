"""Links: how a set reaches its server over the client that it was given."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from time import monotonic
from typing import Any

from redset import _transport
from redset._transport.clients import (
    ClusterLender,
    Lender,
    check_client,
    decodes_all,
    decoding_options,
    full_name,
    is_asyncio,
    known_lender,
    lender_of,
)
from redset._transport.coroutines import complete
from redset._transport.effects import Ask, Fingerprint, Operation, R, only
from redset._transport.packed import PackedSession, ask_once
from redset._transport.performer import Performer
from redset._transport.pools import address_of, fingerprint_of
from redset._transport.session import Session
from redset._transport.source import Source


class _Link:
    """A set's way to the server, over one client.

    Packed if the connections of the client can be borrowed, else generic.

    Parameters
    ----------
    client : object
        A client of redis-py's or valkey-py's, or any object with ``execute_command``.
    split : callable
        Takes encoded requests apart into arguments, for the generic session.
    key : bytes, optional
        A key of the set. On a cluster, requests without a key go to the node that has it.

    Raises
    ------
    TypeError
        If it is not a client, or one of the wrong kind (sync, asyncio).
    """

    __slots__ = ("_client", "_home", "_lender", "_nodes", "_options", "_split", "reporter")
    _awaits: bool

    def __init__(
        self, client: Any, split: Callable[[bytes], list[list[bytes]]], key: bytes = b""
    ) -> None:
        lender = known_lender(client)
        # The checks take 7 µs. A client that lends is the same as when it passed them.
        if lender is None or lender.awaits is not self._awaits or not lender.lends(client):
            execute = check_client(client)
            if is_asyncio(client, execute) != self._awaits:
                raise self._wrong_kind(client)
            lender = lender_of(client)
            lender.awaits = self._awaits
        self._client = client
        self._split = split
        self._lender = lender
        #: Makes the reports that travel with requests, if there are any.
        self.reporter: Any = None
        #: The options of the generic session, made on its first use.
        self._options: dict[str, Any] | None = None
        #: The nodes of a cluster, and the slot of the set. On one server there is one slot.
        self._nodes: Any = None
        self._home = 0
        if type(lender) is ClusterLender:
            self._home = _transport.cluster.slot_of(key)
            if self.multi:
                self._nodes = _transport.cluster.nodes_of(client, self._awaits)

    @property
    def multi(self) -> bool:
        """Whether several commands can be sent as one MULTI, on a borrowed connection."""
        return self._lender.lends(self._client)

    def _wrong_kind(self, client: Any) -> TypeError:
        raise NotImplementedError

    def reaches(self, other: _Link) -> bool:
        """Return whether another link leads to the same database, as far as can be seen."""
        mine, theirs = self._client, other._client
        lends = self.multi and other.multi and not (self._nodes or other._nodes)
        if mine is theirs or not lends:
            return mine is theirs
        pools = mine.connection_pool, theirs.connection_pool
        if pools[0] is pools[1]:
            return True
        places = [address_of(pool) for pool in pools]
        return None not in places and places[0] == places[1]

    def may_meet(self, other: _Link) -> bool:
        """Return whether one step may have keys of both sets: on a cluster, of one slot alone."""
        return self._home == other._home

    def run_offline(self, operation: Operation[R]) -> R:
        """Perform an operation that sends nothing, and so is not awaited."""
        try:
            effect = next(operation)
            while True:
                assert type(effect) is Fingerprint, f"needs the server: {effect!r}"
                effect = operation.send(self._fingerprint())
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    def _fingerprint(self) -> Any:
        if not self.multi:
            return None
        if self._nodes is None:
            return fingerprint_of(self._client.connection_pool)
        pool = self._nodes.known_pool(self._home)
        return None if pool is None else fingerprint_of(pool)

    def _begin(
        self, operation: Operation[R] | Ask, source: Source | None, effect: Any = None
    ) -> Performer[R]:
        if isinstance(operation, Ask):
            operation = only(operation)
        session: Session
        if self._nodes is not None and self.multi:
            session = _transport.redirecting.ClusterSession(self._nodes, self._home)
        elif self.multi:
            session = PackedSession(self._client.connection_pool, self._awaits)
        else:
            if self._options is None:
                self._options = decoding_options(self._client.execute_command)
            session = _transport.generic.GenericSession(
                self._client, self._split, self._options, self._awaits
            )
        session.reporter = self.reporter
        return Performer(operation, source, session, self._awaits, effect)


def server_of(client: Any) -> Any:
    """Return a value that is equal for clients of the same server and database, if that is sure."""
    lender = lender_of(client)
    if type(lender) is Lender and lender.lends(client):
        return lender.server
    try:
        return weakref.ref(client)
    except TypeError:  # it cannot be referred to
        return object()


class Link(_Link):
    """The link of a sync client."""

    __slots__ = ()
    _awaits = False

    def _wrong_kind(self, client: Any) -> TypeError:
        return TypeError(
            f"redis_client is an asyncio client ({full_name(type(client))}): this set takes a "
            "sync one, such as redis.Redis; the sets of redset.asyncio take it"
        )

    def run(self, operation: Operation[R] | Ask, source: Source | None = None) -> R:
        """Perform an operation to its end, or a single request."""
        if source is not None or not self._lender.lends(self._client):
            return complete(self._begin(operation, source).run())
        reporter = self.reporter
        borrower: Any = self._lender.borrower
        nodes, home = self._nodes, self._home
        if isinstance(operation, Ask):
            if nodes is None and (reporter is None or reporter.tally.due > monotonic()):
                return ask_once(borrower, operation, {})  # type: ignore[no-any-return]
            operation = only(operation)
        # A short path for what single calls ask: without a Performer, a session and their
        # coroutines a call takes a third of the time that it adds to the client's own work.
        refused: dict[bytes, Exception] = {}
        try:
            effect = next(operation)
            while True:
                try:
                    kind = type(effect)
                    if kind is Ask:
                        if reporter is not None and reporter.tally.due <= monotonic():
                            break  # a report travels with it
                        if nodes is None:
                            result = ask_once(borrower, effect, refused)
                        else:
                            result = _transport.redirecting.ask_node(nodes, home, effect, refused)
                    elif kind is Fingerprint:
                        result = self._fingerprint()
                    else:
                        break
                except Exception as error:
                    effect = operation.throw(error)
                else:
                    effect = operation.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        return complete(self._begin(operation, None, effect).run())

    def iterate(self, operation: Operation[R], source: Source | None = None) -> Iterator[Any]:
        """Perform an operation, and yield the values that it emits."""
        performer = self._begin(operation, source)
        try:
            while (values := complete(performer.advance())) is not None:
                yield from values
        finally:
            complete(performer.close())


class AsyncLink(_Link):
    """The link of an asyncio client."""

    __slots__ = ()
    _awaits = True

    def __init__(
        self, client: Any, split: Callable[[bytes], list[list[bytes]]], key: bytes = b""
    ) -> None:
        super().__init__(client, split, key)
        if self.multi and decodes_all(client):
            raise TypeError(
                "redis_client has decode_responses=True, and this version of redis-py then fails "
                "to read bytes that are not text: use redis-py 5.0.4 or later, or "
                "decode_responses=False"
            )

    def _wrong_kind(self, client: Any) -> TypeError:
        return TypeError(
            f"redis_client is a sync client ({full_name(type(client))}), or its execute_command "
            "is not a coroutine function: this set takes an asyncio client, such as "
            "redis.asyncio.Redis; the sets of redset take a sync one"
        )

    async def run(self, operation: Operation[R] | Ask, source: Source | None = None) -> R:
        """Perform an operation to its end."""
        return await self._begin(operation, source).run()

    async def iterate(
        self, operation: Operation[R], source: Source | None = None
    ) -> AsyncIterator[Any]:
        """Perform an operation, and yield the values that it emits."""
        performer = self._begin(operation, source)
        try:
            while (values := await performer.advance()) is not None:
                for value in values:
                    yield value
        finally:
            await performer.close()
