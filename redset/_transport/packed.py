"""The packed session: whole requests on a connection of the client's own pool.

Theory of operation. An operation sends requests, each one atomic step on the server, before it
reads the replies to the first. Requests without a reply form the window; each one is a `Flight`. A
session takes a connection with its first request. With nothing in flight it gives the connection
back if the operation ends, waits, or runs the caller's code.

*Order.* Replies come in the order of requests, so the oldest flight is read first. The position is
the only mark of the request that it belongs to. The session therefore remembers the socket of its
requests. It never reads from another one, since redis-py reconnects silently. ``_broken`` is set
while bytes are half written or half read. A connection that is returned with flights unread, or
half way through one, is disconnected first. Otherwise its next user would read a reply to another
request.

*Scripts.* A request names its script by its hash. Unless the script was loaded by way of this pool,
SCRIPT LOAD travels in front of the request: no round trip of its own. If the server refuses to load
scripts (ACL), the text travels in the request, by EVAL. If the server forgot a script (SCRIPT
FLUSH, a failover), all requests of the window that named it fail with NOSCRIPT. The window is read
to its end, and the failed requests are sent again in order. Another client may have loaded the
script in between, so that later requests were performed before this one. Those are sent once more,
to come last again. Their first replies are kept, since the second ones would report duplicates.

*Riders.* A report travels in front of a request, in the same write. Its reply is read first and
changes nothing for the request. It is never sent again.

*Resends.* If the connection is lost, any of the unread requests may have been performed. If each of
them may be performed twice (``resend``), all are sent again on a new connection, as often as the
client's retry policy allows. A pop may not be performed twice: its items would be lost. Then the
error is raised to the operation, which knows what to do.

*Large arguments.* A server closes the connection on an argument above its proto-max-bulk-len. That
looks like a lost connection. So if a lost window had an argument above 1 MiB, the session asks the
server for its limit. The error then names the item that is too large (`redset._transport.limits`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn
from weakref import ref

from redset._transport.coroutines import complete, heard
from redset._transport.effects import Outsized, Rider, Send, Unexpected
from redset._transport.errors import (
    connection_error,
    invalid_response,
    is_abort,
    is_no_eval,
    is_reply,
    translated,
)
from redset._transport.limits import (
    ASK_LIMIT,
    SHOWN,
    is_too_large,
    largest_argument,
    limit_of,
    may_be_too_large,
)
from redset._transport.pools import (
    Borrower,
    fingerprint_of,
    follows_primary,
    get_connection,
    idle_connections,
    loaded_scripts,
    release,
    retake,
    socket_of,
    take_connection,
    used_sockets,
)
from redset._transport.session import UNREAD, ErrorReply, Flight, Session, is_no_script
from redset.scripts import Script

#: How often one request is repeated because the server forgot its script.
_RELOADS = 5


def ask_once(
    borrower: Borrower,
    effect: Send,
    refused: dict[bytes, Exception],
    begin: Callable[[], PackedSession] | None = None,
) -> Any:
    """Send one request over a sync connection, with nothing in flight, and read its reply.

    A short path: without a session, its coroutines and a Flight a call takes a third of the time
    that it adds to the client's own work. A session takes requests of several replies, and scripts
    that are not loaded. It also goes on after an error, on the same connection.

    ``refused`` has the scripts that the server refused to load, for all requests of an operation.
    ``begin`` makes the session, if it is not that of a pool.
    """
    script = effect.script
    if effect.replies != 1 or (script is not None and script.sha not in borrower.scripts):
        return ask_in_session(borrower, effect, refused, begin)
    connection: Any = None  # while this function must give it back
    is_plain = is_whole = False  # until the whole of the reply is read
    try:
        try:
            connection, is_plain = borrower.take()
        except Exception:
            if begin is None:
                raise
            return ask_in_session(borrower, effect, refused, begin)
        try:
            connection.send_packed_command([effect.data])
            if not is_plain:
                used_sockets.use(connection)
            elif (socket := connection._sock) is None:
                # Another thread disconnected the pool.
                raise connection_error(connection)("the connection was lost with its reply unread")
            elif ref(socket) not in used_sockets.known:
                used_sockets.use(connection)
            answer = connection.read_response(disable_decoding=True)
        except Exception as error:
            session = PackedSession(borrower.pool, False, refused) if begin is None else begin()
            with_error, connection = connection, None
            return session.resume(with_error, effect, error)
        is_whole = True
        return answer if effect.reads is None else effect.reads(answer)
    except Unexpected as error:
        # Replies may be out of step from here on, so drop the connection.
        is_whole = False
        raise invalid_response(connection, effect, error) from error
    finally:
        if connection is not None:
            try:
                if not is_whole:
                    connection.disconnect()
            except BaseException:  # interrupted
                connection.disconnect()
                raise
            finally:
                borrower.give_back(connection, is_plain)


def ask_in_session(
    borrower: Borrower,
    effect: Send,
    refused: dict[bytes, Exception],
    begin: Callable[[], PackedSession] | None = None,
) -> Any:
    """Send one request over a sync connection and read its reply: the long way of `ask_once`."""
    session = PackedSession(borrower.pool, False, refused) if begin is None else begin()
    try:
        return session.ask(effect)
    finally:
        session.end()


class PackedSession(Session):
    """Whole requests on a connection of the client's own pool."""

    def __init__(
        self, pool: Any, awaits: bool, refused: dict[bytes, Exception] | None = None
    ) -> None:
        self._pool = pool
        self._awaits = awaits
        #: How to end a connection without waiting for it.
        self._at_once = {"nowait": True} if awaits else {}
        self._connection: Any = None
        self._socket: Any = None
        self._flying: deque[Flight] = deque()
        #: Scripts whose loading went out on this socket.
        self._sent: set[bytes] = set()
        #: The error of each script that the server refused to load, by the script's hash.
        self._refused = {} if refused is None else refused
        self._broken = False
        #: Commands in front of each request, after the loading of its script, each of one word.
        self._before = b""

    async def send(self, effect: Send) -> None:
        flight = Flight(effect, self.riders())
        if self._connection is None:
            await self._take()
        self._flying.append(flight)
        try:
            await self._put(flight)
        except Exception as error:
            await self._lost(error)

    async def read(self) -> Any:
        flight = self._flying[0]
        await self._settle(flight)
        self._flying.popleft()
        answer = flight.answer if flight.kept is UNREAD else flight.kept
        if type(answer) is ErrorReply:
            raise answer.error
        effect = flight.effect
        try:
            return answer if effect.reads is None else effect.reads(answer)
        except Unexpected as error:
            # Replies may be out of step from here on, so drop the connection.
            await self._give_up(invalid_response(self._connection, effect, error))

    async def _settle(self, flight: Flight) -> None:
        """Read the answer to a request whose predecessors are answered, if it is not yet read."""
        while True:
            while flight.answer is UNREAD:
                try:
                    flight.answer = await self._fetch(flight)
                except Exception as error:
                    await self._lost(error)
            if is_no_script(flight.answer) and flight.reloads != _RELOADS:
                await self._reload()
            elif self._redirection(flight.answer) is not None:
                await self._redirect()
            else:
                return

    def _redirection(self, answer: Any) -> Any:
        """Return what an answer says if another node is to be asked; None for a final answer."""
        return None

    async def _redirect(self) -> None:
        """Send again, to another node, what was refused."""
        raise NotImplementedError

    def resume(self, connection: Any, effect: Send, error: Exception) -> Any:
        """Go on after the short path met an error on a connection. Return it to the pool."""
        self._connection, self._socket = connection, socket_of(connection)
        flight = Flight(effect)
        self._flying.append(flight)
        try:
            try:
                if not is_reply(error) or is_too_large(error):
                    raise error
                flight.answer = self._failed(error, effect.script)
            except Exception as lost:
                complete(self._lost(lost))
            return complete(self.read())
        finally:
            self.end()

    def fingerprint(self) -> Any:
        return fingerprint_of(self._pool)

    def end(self) -> None:
        """Close on a sync connection, in spite of an interrupt."""
        try:
            complete(self.close())
        except BaseException:
            complete(self.close())
            raise

    async def close(self) -> None:
        # May be called again if an interrupt ended it, until the connection is returned.
        connection = self._connection
        if connection is None:
            return
        if self._flying or self._broken:
            # The next user of the connection must not read these replies.
            await self._settled(connection.disconnect(**self._at_once))
            self._flying.clear()
            self._broken = False
        self._socket = None
        self._sent.clear()
        self._refused = {}
        self._connection = None
        if self._awaits:
            await release(self._pool, connection)
        else:
            self._pool.release(connection)

    async def _take(self) -> None:
        if not self._awaits:
            self._connection = take_connection(self._pool)
            return
        try:
            try:
                self._connection = await heard(get_connection(self._pool))
            except Exception as error:
                self._connection = await retake(self._pool, error, self.raise_swallowed)
        except Exception:
            raise
        except BaseException:
            # As `take_connection` does. No await here lets another task run.
            with idle_connections(self._pool) as idle:
                for connection in idle:
                    await connection.disconnect(**self._at_once)
            raise

    async def _put(self, flight: Flight) -> None:
        connection = self._connection
        effect = flight.effect
        data = effect.data
        script = effect.script
        flight.loading = flight.whole = False
        if script is not None and script.sha in self._refused:
            flight.whole = True
            data = self._before + script.whole(data)
        elif (
            script is not None
            and script.sha not in loaded_scripts.setdefault(self._pool, set())
            and script.sha not in self._sent
        ):
            # The loading travels in front of the call: no round trip of its own.
            flight.loading = True
            self._sent.add(script.sha)
            data = script.load + self._before + data
        elif self._before:
            data = self._before + data
        flight.before = self._before.count(b"*1")
        if flight.riders:
            data = b"".join([*map(self._bytes_of, flight.riders), data])
        self._broken = True  # until the whole of it is out
        if self._socket is None:
            # Only now, with nothing in flight: later the reply to its PING would be taken for
            # that to a request.
            await self._settled(heard(connection.send_packed_command([data], check_health=True)))
            self._socket = used_sockets.use(connection)
        else:
            if socket_of(connection) is not self._socket:
                raise connection_error(connection)(
                    "the connection was replaced with replies unread"
                )
            await self._settled(heard(connection.send_packed_command([data], check_health=False)))
        self._broken = False

    def _bytes_of(self, rider: Rider) -> bytes:
        script = rider.script
        if script is None:
            return rider.data
        scripts = loaded_scripts.setdefault(self._pool, set())
        rider.loading = script.sha not in scripts and script.sha not in self._sent
        if not rider.loading:
            return rider.data
        self._sent.add(script.sha)
        return script.load + rider.data

    async def _read_riders(self, flight: Flight) -> None:
        riders, flight.riders = flight.riders, ()
        scripts = loaded_scripts.setdefault(self._pool, set())
        for rider in riders:
            loaded = await self._one(None) if rider.loading else None
            answer = await self._one(rider.script)
            if type(loaded) is ErrorReply:
                answer = loaded
            elif rider.script is None:
                pass
            elif rider.loading:
                scripts.add(rider.script.sha)
            elif is_no_script(answer):
                scripts.discard(rider.script.sha)
            rider.done(answer.error if type(answer) is ErrorReply else answer)

    async def _fetch(self, flight: Flight) -> Any:
        """Read one request's replies; raise a lost connection, return a server's error."""
        connection = self._connection
        # None: another thread disconnected the pool while this one sent.
        if self._socket is None or socket_of(connection) is not self._socket:
            raise connection_error(connection)("the connection was lost with replies unread")
        if flight.riders:
            await self._read_riders(flight)
        effect = flight.effect
        script = effect.script
        if flight.loading and script is not None:
            loaded = await self._one(None)
            if type(loaded) is ErrorReply:
                self._refused[script.sha] = loaded.error
            else:
                loaded_scripts.setdefault(self._pool, set()).add(script.sha)
        for _ in range(flight.before):
            await self._one(None)
        if effect.replies == 1:
            answer = await self._one(script)
            if flight.whole and script is not None:
                if type(answer) is not ErrorReply:
                    loaded_scripts.setdefault(self._pool, set()).add(
                        script.sha
                    )  # EVAL loads it, too
                elif is_no_eval(answer.error):
                    return ErrorReply(self._refused[script.sha])
            return answer
        answers = [await self._one(script) for _ in range(effect.replies)]
        refused = next(
            (answer for answer in answers if self._redirection(answer) is not None), None
        )
        if refused is not None and type(answers[-1]) is ErrorReply:
            return refused  # of EXEC, or of a command before it: nothing was performed
        if type(answers[-1]) is ErrorReply and not is_abort(answers[-1].error):
            # EXEC was refused. The connection may still be in the MULTI, so the server would queue
            # the next user's commands and never perform them.
            await self._settled(connection.disconnect())
            self._socket = None
            self._sent.clear()
        if is_no_script(answers[0]):
            return answers[0]
        return [_bare(answer) for answer in answers]

    async def _one(self, script: Script | None) -> Any:
        connection = self._connection
        self._broken = True
        try:
            answer = await self._settled(connection.read_response(disable_decoding=True))
        except Exception as error:
            if not is_reply(error) or is_too_large(error):
                raise
            answer = self._failed(error, script)
        self._broken = False
        return answer

    def _failed(self, error: Exception, script: Script | None) -> ErrorReply:
        failed = ErrorReply(translated(error, script))
        if type(failed.error).__name__ == "ReadOnlyError" and follows_primary(self._pool):
            connection = self._connection
            raise connection_error(connection)("the primary is a replica now") from error
        return failed

    async def _reload(self) -> None:
        """Read the window after the server forgot a script, then send it again, in order."""
        for flight in list(self._flying)[1:]:
            if flight.answer is UNREAD:
                try:
                    flight.answer = await self._fetch(flight)
                except Exception as error:
                    await self._lost(error)
        scripts = loaded_scripts.setdefault(self._pool, set())
        self._sent.clear()
        for flight in self._flying:
            if flight.effect.script is not None:
                scripts.discard(flight.effect.script.sha)
        again = []
        for flight in self._flying:
            was_performed = not is_no_script(flight.answer) and not self._redirection(flight.answer)
            if was_performed and flight.kept is UNREAD:
                if not flight.effect.resend:
                    continue
                flight.kept = flight.answer
            flight.reloads += 1
            flight.answer = UNREAD
            again.append(flight)
        try:
            for flight in again:
                await self._put(flight)
        except Exception as error:
            await self._lost(error)

    async def _lost(self, error: Exception) -> None:
        """Send all unread requests again, by the client's retry policy, or raise.

        The oldest is then read as well: only a reply ends the policy's count of failures.
        """
        connection = self._connection
        used_sockets.change = object()
        retry = getattr(connection, "retry", None)
        unread = [flight for flight in self._flying if flight.answer is UNREAD]
        for flight in unread:
            flight.riders = ()
        await self._settled(connection.disconnect())
        large = largest_argument(unread) if may_be_too_large(error) else None
        limit = None if large is None else await self._limit()
        if large is not None and limit is not None and len(large) > limit:
            await self._give_up(self._too_large(large, limit))
        if retry is None or not all(flight.effect.resend for flight in unread):
            await self._give_up(error)
        if is_reply(error):
            error = connection_error(connection)(str(error))
        failed: list[Exception] = [error]

        async def perform() -> None:
            if failed:
                raise failed.pop()
            self.raise_swallowed()
            self._socket = None
            self._sent.clear()
            # Sending connects as well, but does not ask Sentinel.
            await self._settled(heard(connection.connect()))
            try:
                for flight in unread:
                    flight.effect.resent = True
                    await self._put(flight)
                unread[0].answer = await self._fetch(unread[0])
            except Exception as again:
                # Lost twice, and the limit of the server is unknown: a third try would fail, too.
                if large is not None and limit is None and may_be_too_large(again):
                    raise _Suspected from again
                raise

        try:
            # The policy counts the failure that happened as its first attempt.
            await self._settled(
                retry.call_with_retry(
                    perform if self._awaits else lambda: complete(perform()),
                    lambda _: connection.disconnect(),
                )
            )
        except _Suspected:
            assert large is not None
            await self._give_up(self._too_large(large, None))
        except Exception as last:
            await self._give_up(last)

    async def _limit(self) -> int | None:
        """Ask on a new connection for the limit of an argument; None if it is unknown."""
        connection = self._connection
        self._socket = None
        self._sent.clear()
        try:
            await self._settled(heard(connection.connect()))
            await self._settled(
                heard(connection.send_packed_command([ASK_LIMIT], check_health=False))
            )
            answer = await self._settled(connection.read_response(disable_decoding=True))
        except Exception as error:
            if not is_reply(error):
                await self._settled(connection.disconnect())
            return None
        return limit_of(answer)

    def _too_large(self, argument: memoryview, limit: int | None) -> Exception:
        kind = connection_error(self._connection)
        return Outsized(len(argument), limit).error(kind, bytes(argument[:SHOWN]))

    async def _give_up(self, error: Exception) -> NoReturn:
        self._flying.clear()
        await self._settled(self._connection.disconnect())
        # The next request of the operation goes out on a new socket.
        self._socket = None
        self._sent.clear()
        self._broken = True
        raise error


def _bare(answer: Any) -> Any:
    """Return one of several replies. Errors are exceptions, also inside of EXEC's list."""
    if type(answer) is ErrorReply:
        return answer.error
    if isinstance(answer, list):
        return [translated(part) if isinstance(part, Exception) else part for part in answer]
    return answer


class _Suspected(Exception):
    """A connection was lost twice on a large argument. A retry policy does not retry this."""
