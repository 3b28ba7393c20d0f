"""The packed session on a cluster: it goes where the slot is, and waits while the slot is nowhere.

Theory of operation. A session has a connection to the primary of one slot, that of its requests.
A request for another slot first reads the window to its end, then takes another connection.

A node refuses a request that it does not perform (`redset._transport.cluster.redirection_of`). The
window is then read to its end, and sent again in order, from the first refused request on:

- MOVED patches the client's table. After three in a row the table is made anew.
- ASK leads to the target of a slot that moves key by key, with ASKING before each request. The next
  operation asks the source again. MULTI keeps the effect of an ASKING that is before it.
- The others say that the slot is not served for now: after a pause the table is made anew. TRYAGAIN
  comes of an open slot, so it needs no new table.

Later requests of the window that were performed are sent once more, to come last again, if they
may be. Their first answers count.

If the connection is lost, unread requests may have been performed. They are sent again, to the
node that has the slot by then, if all of them may be performed twice. Otherwise the error is raised
at once, and the table is fresh for the next call. A connection that cannot be made has sent
nothing, so pops wait for another one, too.

All pauses between two answers end after ``PATIENCE`` seconds. Then the last error is raised.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, NoReturn

from redset._transport.cluster import (
    Nodes,
    Redirection,
    is_unreachable,
    redirection_of,
    slot_of_request,
    unready,
)
from redset._transport.coroutines import heard
from redset._transport.effects import Rider, Send
from redset._transport.errors import is_reply
from redset._transport.limits import is_too_large, largest_argument, may_be_too_large
from redset._transport.packed import PackedSession, ask_once
from redset._transport.pools import (
    Borrower,
    fingerprint_of,
    get_connection,
    loaded_scripts,
    release,
    used_sockets,
)
from redset._transport.session import UNREAD, ErrorReply, Flight, is_no_script

log = logging.getLogger("redset")

#: How long a slot may be nowhere, in seconds. By default a node is waited for 15 s before an
#: election begins.
PATIENCE = 60.0
#: The first pause and the longest, in seconds.
FIRST, LONGEST = 0.01, 0.25
#: So many MOVED and ASK in a row are followed without a pause.
HOPS = 3
_ASKING = b"*1\r\n$6\r\nASKING\r\n"
#: Undoes the READONLY of a client that reads from replicas: a replica then refuses to answer.
_READWRITE = b"*1\r\n$9\r\nREADWRITE\r\n"


def ask_node(nodes: Nodes, home: int, effect: Send, refused: dict[bytes, Exception]) -> Any:
    """Send one request over a sync connection to the primary of its slot, and read its reply."""
    heads = nodes.heads.get(home) or nodes.heads_of(home)
    slot = heads.slot_of(effect.data)
    borrower = nodes.borrower(slot)

    def begin() -> ClusterSession:
        return ClusterSession(nodes, home, slot, borrower, refused)

    if borrower is None or nodes.reads_replicas:
        session = begin()
        try:
            return session.ask(effect)
        finally:
            session.end()
    return ask_once(borrower, effect, refused, begin)


class ClusterSession(PackedSession):
    """Whole requests on connections to the primaries of their slots."""

    def __init__(
        self,
        nodes: Nodes,
        home: int,
        slot: int | None = None,
        borrower: Borrower | None = None,
        refused: dict[bytes, Exception] | None = None,
    ) -> None:
        super().__init__(None if borrower is None else borrower.pool, nodes.awaits, refused)
        self._nodes = nodes
        self._client = nodes.client
        #: The slot of the set, for requests without a key.
        self._home = home
        #: The slot of the requests in flight.
        self._slot = slot
        #: The version of the table by which the connection was taken.
        self._version = nodes.version
        #: The address that an ASK named.
        self._asked: tuple[str, int] | None = None
        self._until: float | None = None
        self._pauses = self._hops = 0
        #: Whether a window with a large argument was lost, and the limit is unknown.
        self._suspects = False

    def pool(self) -> Any:
        return self._nodes.known_pool(self._home)

    def owner(self) -> Any:
        return self._client

    def fingerprint(self) -> Any:
        pool = self.pool()
        return None if pool is None else fingerprint_of(pool)

    async def send(self, effect: Send) -> None:
        if not self._flying:
            for rider in super().riders():
                await self._report(rider)
        await self._send(effect)

    def riders(self) -> list[Rider]:
        """Return no reports: the registry is in another slot, so each is a request of its own."""
        return []

    async def _report(self, rider: Rider) -> None:
        """Send a report and read its reply. No error of it is the caller's.

        It waits for no node: that of the registry may be down, and the caller's one up.
        """
        self._until = time.monotonic()
        try:
            await self._send(Send(rider.data, 1, rider.script, False))
            answer = await self.read()
        except Exception as error:
            if is_reply(error):
                rider.done(error)
        else:
            rider.done(answer)
        finally:
            self._until, self._pauses, self._hops = None, 0, 0

    async def _send(self, effect: Send) -> None:
        slot = slot_of_request(effect.data, self._home)
        if slot != self._slot:
            for flight in list(self._flying):
                await self._settle(flight)
            await self._leave(False)
            self._slot = slot
        await super().send(effect)

    async def close(self) -> None:
        await super().close()
        self._asked = self._slot = None

    async def _settle(self, flight: Flight) -> None:
        await super()._settle(flight)
        self._until, self._pauses, self._hops = None, 0, 0

    # --- connections

    async def _take(self) -> None:
        """Take a connection to the slot's primary, or to the node that an ASK named."""
        nodes = self._nodes
        while True:
            try:
                await nodes.ready()
                self._version = nodes.version
                assert self._slot is not None
                if self._asked is None:
                    pool = nodes.pool_of(nodes.node(self._slot))
                else:
                    pool = nodes.find(self._asked, self._pool)
                loaded_scripts.setdefault(pool, set())
                self._pool = pool
                if self._awaits:
                    self._connection = await heard(get_connection(pool))
                else:
                    await super()._take()
                return
            except Exception as error:
                own = unready(error)
                if own is not None:
                    raise own from None
                if not (is_unreachable(error) or isinstance(error, LookupError)):
                    raise
                self._asked = None
                await self._pause(error)
                await self._refresh()

    async def _put(self, flight: Flight) -> None:
        self._before = b"" if self._asked is None else _ASKING
        if self._socket is None and self._nodes.reads_replicas:
            self._before = _READWRITE + self._before
        await super()._put(flight)

    async def _leave(self, lost: bool) -> None:
        """Return the connection to its pool. The window stays."""
        connection = self._connection
        if connection is None:
            return
        if lost or self._broken:
            await self._settled(connection.disconnect(**self._at_once))
        self._broken = False
        self._socket = None
        self._sent.clear()
        self._asked = None
        self._connection = None
        if self._awaits:
            await release(self._pool, connection)
        else:
            self._pool.release(connection)

    async def _pause(self, error: Exception) -> None:
        """Sleep before the next try, or raise the error after too long a time."""
        self.raise_swallowed()
        now = time.monotonic()
        if self._until is None:
            self._until = now + PATIENCE
        if now >= self._until:
            raise error
        seconds = min(FIRST * 2.0 ** min(self._pauses, 10), LONGEST, self._until - now)
        self._pauses += 1
        if self._awaits:
            await asyncio.sleep(seconds)
        else:
            time.sleep(seconds)

    async def _refresh(self) -> None:
        """Make the client's table anew, if that can be done."""
        try:
            await self._nodes.refresh(self._version, self._nodes.name_of(self._pool))
        except Exception as error:
            log.debug("no table of the cluster's slots: %r", error)
        self._version = self._nodes.version

    # --- refusals and losses

    def _redirection(self, answer: Any) -> Redirection | None:
        return redirection_of(answer.error) if type(answer) is ErrorReply else None

    async def _redirect(self) -> None:
        """Read the window after a redirection, then send again what was not performed."""
        for flight in list(self._flying):
            if flight.answer is UNREAD:
                try:
                    flight.answer = await self._fetch(flight)
                except Exception as error:
                    await self._lost(error)
                    return
        await self._recover(None)

    async def _lost(self, error: Exception) -> None:
        used_sockets.change = object()
        unread = [flight for flight in self._flying if flight.answer is UNREAD]
        if redirection_of(error) is not None and unread:
            # LOADING closes the connection in redis-py. It is the answer to the oldest.
            unread.pop(0).answer = ErrorReply(error)
        elif not (is_unreachable(error) or is_too_large(error)):
            await self._give_up(error)
        large = largest_argument(unread) if may_be_too_large(error) else None
        if large is not None and self._connection is not None:
            await self._settled(self._connection.disconnect())
            limit = await self._limit()
            is_over = limit is not None and len(large) > limit
            if is_over or (limit is None and self._suspects):
                await self._give_up(self._too_large(large, limit))
            self._suspects = limit is None
        await self._recover(error)

    async def _recover(self, error: Exception | None) -> None:
        """Send again what was refused, and after an error what is unread, to the slot's node."""
        while True:
            first = next((each for each in self._flying if self._redirection(each.answer)), None)
            redirection = None if first is None else self._redirection(first.answer)
            if error is not None and not all(
                flight.effect.resend for flight in self._flying if flight.answer is UNREAD
            ):
                await self._leave(True)
                await self._refresh()
                await self._give_up(error)
            again = self._unperformed()
            source = self._pool
            await self._leave(error is not None)
            try:
                if error is not None or redirection is None:
                    assert error is not None
                    await self._pause(error)
                    await self._refresh()
                else:
                    await self._follow(redirection, source)
                await self._take()
            except Exception as last:
                await self._give_up(last)
            try:
                for flight in again:
                    await self._put(flight)
                return
            except Exception as worse:
                error = worse

    def _unperformed(self) -> list[Flight]:
        """Take back the answers of requests to be sent again, and return those requests."""
        again: list[Flight] = []
        for flight in self._flying:
            answer = flight.answer
            if answer is UNREAD:
                flight.effect.resent = True
            elif not self._redirection(answer):
                if not again:
                    continue
                if not is_no_script(answer):
                    if not flight.effect.resend:
                        continue
                    flight.effect.resent = True
                    if flight.kept is UNREAD:
                        flight.kept = answer
            flight.answer = UNREAD
            again.append(flight)
        return again

    async def _follow(self, redirection: Redirection, source: Any) -> None:
        """Do what a refusal asks for, before its request is sent again."""
        error = redirection.error
        if redirection.code not in ("MOVED", "ASK"):
            await self._pause(error)
            if redirection.code != "TRYAGAIN":
                await self._refresh()
            return
        self._hops += 1
        if self._hops > HOPS:
            await self._pause(error)
            await self._refresh()
        address = self._nodes.locate(error, source)
        if redirection.code == "ASK":
            self._asked = address
        elif self._hops <= HOPS:
            try:
                await self._nodes.note_move(error)
            except Exception as unknown:
                log.debug("a MOVED that the client's table does not take: %r", unknown)
                await self._refresh()

    async def _give_up(self, error: Exception) -> NoReturn:
        self._flying.clear()
        await self._leave(True)
        raise error
