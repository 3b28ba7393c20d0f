"""Performs what operations ask for, on a client's pooled connections or through its commands.

Written once, with ``await``, for both kinds of client. Nothing suspends with a sync one, whose
coroutines are run to their end by one ``send``.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import re
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Generic, NoReturn, TypeVar

from redset._transport.clients import (
    caches,
    check_client,
    decoding_options,
    full_name,
    is_asyncio,
    lender_of,
    library_of,
)
from redset._transport.effects import (
    Ask,
    Emit,
    Operation,
    Outsized,
    Pause,
    Pull,
    R,
    Read,
    Send,
    Sight,
    There,
    Unexpected,
    Wait,
    only,
)
from redset._transport.source import Source
from redset._transport.watcher import Waiting, cancellations, heard
from redset.scripts import Script

T = TypeVar("T")

_UNREAD = object()
#: How long an operation may keep an event loop to itself, in seconds, before others have a turn.
_TURN = 0.002
#: How often one request is repeated because the server forgot its script.
_RELOADS = 5

#: The least that a server may be told to take as one argument, in bytes (proto-max-bulk-len). Only
#: what is larger can be the reason for which it closed a connection.
_LARGE = 2**20
#: Bytes of such an argument that an error shows.
_SHOWN = 40
_ASK_LIMIT = b"*3\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n$18\r\nproto-max-bulk-len\r\n"

#: How to see that the other side has closed a connection, where that can be seen.
_poll: Any = getattr(select, "poll", None)
_HUNG_UP: int = getattr(select, "POLLRDHUP", getattr(select, "POLLHUP", 0))

#: The scripts that were loaded by way of each pool in use.
_loaded: weakref.WeakKeyDictionary[Any, set[bytes]] = weakref.WeakKeyDictionary()


def _renew_locks() -> None:
    """Make the pools' locks anew in a forked child: who held one of them may not be in it.

    A pool makes itself anew there, but first waits for its lock (redis-py 8.1), forever.
    """
    for pool in list(_loaded):
        for holder in (pool, getattr(pool, "_event_dispatcher", None)):
            for name in ("_lock", "_fork_lock"):
                if type(getattr(holder, name, None)) in _LOCKS:
                    setattr(holder, name, threading.RLock())


_LOCKS = (type(threading.Lock()), type(threading.RLock()))
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_renew_locks)


class _Lines:
    """The connections of the process: `change` is another object whenever it lost one, or
    used one that is new, whichever client's."""

    def __init__(self) -> None:
        self.change = object()
        self._used: weakref.WeakSet[Any] = weakref.WeakSet()

    def use(self, connection: Any) -> Any:
        """Return the socket of a connection that something was sent over."""
        socket = _socket_of(connection)
        if socket is not None and socket not in self._used:
            self.change = object()
            with contextlib.suppress(TypeError):  # of another kind, which is new each time
                self._used.add(socket)
        return socket


_lines = _Lines()


class _Link:
    """One client's way to the server: packed where its connections can be borrowed, else generic.

    Parameters
    ----------
    client : object
        A client of redis-py's or valkey-py's, or any object with ``execute_command``.
    split : callable
        Takes encoded requests apart again, for clients that want arguments.

    Raises
    ------
    TypeError
        If the client is of the wrong kind, or none at all.
    """

    __slots__ = ("_client", "_lender", "_options", "_split")
    _awaits: bool

    def __init__(self, client: Any, split: Callable[[bytes], list[list[bytes]]]) -> None:
        execute = check_client(client)
        if is_asyncio(client, execute) != self._awaits:
            raise self._wrong_kind(client)
        self._client = client
        self._split = split
        self._lender = lender_of(client)
        #: The generic link's, made on its first use.
        self._options: dict[str, Any] | None = None
        if self.multi:
            _loaded.setdefault(client.connection_pool, set())

    @property
    def multi(self) -> bool:
        """Whether several commands can be sent as one MULTI, on a connection of the client's."""
        return self._lender.lends(self._client)

    def _wrong_kind(self, client: Any) -> TypeError:
        raise NotImplementedError

    def reaches(self, other: _Link) -> bool:
        """Say whether this is a way to the same database as another, as far as that can be seen."""
        mine, theirs = self._client, other._client
        if mine is theirs or not (self.multi and other.multi):
            return mine is theirs
        pools = mine.connection_pool, theirs.connection_pool
        if pools[0] is pools[1]:
            return True
        places = [_place_of(pool) for pool in pools]
        return None not in places and places[0] == places[1]

    def tell(self, operation: Operation[R]) -> R:
        """Perform an operation that sends nothing, and so is not awaited either."""
        try:
            effect = next(operation)
            while True:
                assert type(effect) is Sight, f"this asks the server: {effect!r}"
                sight = _sight_of(self._client.connection_pool) if self.multi else None
                effect = operation.send(sight)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    def _begin(
        self, operation: Operation[R], source: Source | None, effect: Any = None
    ) -> _Performance[R]:
        session: _Session
        if self.multi:
            session = _PackedSession(self._client.connection_pool, self._awaits)
        else:
            if self._options is None:
                self._options = decoding_options(self._client.execute_command)
            session = _GenericSession(self._client, self._split, self._options, self._awaits)
        return _Performance(operation, source, session, self._awaits, effect)


def _place_of(pool: Any) -> Any:
    """Return which server a pool's connections lead to, or None if that may change."""
    if hasattr(pool, "service_name"):
        return None
    where = pool.connection_kwargs
    place = where.get("path") or (where.get("host", "localhost"), int(where.get("port", 6379)))
    return place, _database_of(pool)


def _database_of(pool: Any) -> int:
    return int(pool.connection_kwargs.get("db") or 0)


class Link(_Link):
    """The way of a sync client."""

    __slots__ = ()
    _awaits = False

    def _wrong_kind(self, client: Any) -> TypeError:
        return TypeError(
            f"redis_client is an asyncio client ({full_name(type(client))}): this set takes a "
            "sync one, such as redis.Redis; the sets of redset.asyncio take it"
        )

    def run(self, operation: Operation[R], source: Source | None = None) -> R:
        """Perform an operation to its end."""
        if source is not None or not self.multi:
            return complete(self._begin(operation, source).run())
        # The short way of what has no source: half of what it costs beside the client's own work.
        session = _PackedSession(self._client.connection_pool, False)
        try:
            effect = next(operation)
            while True:
                try:
                    kind = type(effect)
                    if kind is Ask:
                        result = session.ask(effect)
                    elif kind is Sight:
                        result = session.sight()
                    elif kind is Pause:
                        result = None
                    elif kind is There:
                        session.end()  # or two of these may wait for each other's connection
                        result = effect.link.run(only(effect.ask))
                    elif kind is Send:
                        result = complete(session.send(effect))
                    elif kind is Read:
                        result = complete(session.read())
                    elif kind is Wait:
                        break
                    else:
                        raise AssertionError(f"no such effect without a source: {effect!r}")
                except Exception as error:
                    effect = operation.throw(error)
                else:
                    effect = operation.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        finally:
            try:
                session.end()
            except BaseException:
                session.end()
                raise
        return complete(self._begin(operation, None, effect).run())

    def iterate(self, operation: Operation[R], source: Source | None = None) -> Iterator[Any]:
        """Perform an operation, and give what it emits as it comes."""
        performance = self._begin(operation, source)
        try:
            while (values := complete(performance.advance())) is not None:
                yield from values
        finally:
            complete(performance.close())


class AsyncLink(_Link):
    """The way of an asyncio client."""

    __slots__ = ()
    _awaits = True

    def __init__(self, client: Any, split: Callable[[bytes], list[list[bytes]]]) -> None:
        super().__init__(client, split)
        if self.multi and _decodes_all(client):
            raise TypeError(
                "redis_client has decode_responses=True, and this version of redis-py then fails "
                "to read what is no text: redset needs 5.0.4 or later, or decode_responses=False"
            )

    def _wrong_kind(self, client: Any) -> TypeError:
        return TypeError(
            f"redis_client is a sync client ({full_name(type(client))}), or its execute_command "
            "is no coroutine function: this set takes an asyncio one, such as redis.asyncio.Redis; "
            "the sets of redset take a sync one"
        )

    async def run(self, operation: Operation[R], source: Source | None = None) -> R:
        """Perform an operation to its end."""
        return await self._begin(operation, source).run()

    async def iterate(
        self, operation: Operation[R], source: Source | None = None
    ) -> AsyncIterator[Any]:
        """Perform an operation, and give what it emits as it comes."""
        performance = self._begin(operation, source)
        try:
            while (values := await performance.advance()) is not None:
                for value in values:
                    yield value
        finally:
            await performance.close()


def complete(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of a sync client, which never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    raise AssertionError("a sync client has nothing to wait for")


class _Performance(Generic[R]):
    """One operation under way."""

    __slots__ = (
        "_awaits", "_effect", "_operation", "_session", "_source", "_spent", "_turn", "_waiting",
        "result",
    )  # fmt: skip

    result: R

    def __init__(
        self,
        operation: Operation[R],
        source: Source | None,
        session: _Session,
        awaits: bool,
        effect: Any,
    ) -> None:
        self._operation = operation
        #: What it asked for already, if anything.
        self._effect = effect
        self._waiting: Waiting | None = None
        #: Commands since it waited last.
        self._spent = 0 if effect is None else 1
        self._source = source
        self._session = session
        self._awaits = awaits
        self._turn = time.monotonic() if awaits else 0.0

    async def run(self) -> R:
        """Perform all of it."""
        try:
            while await self.advance() is not None:
                pass
            return self.result
        finally:
            await self.close()

    async def advance(self) -> list[Any] | None:
        """Perform it up to what it emits next; None at its end, when it has its result."""
        operation, session = self._operation, self._session
        asked = cancellations() if self._awaits else 0
        effect, self._effect = self._effect, None
        try:
            if effect is None:
                effect = next(operation)
            while True:
                result: Any
                try:
                    kind = type(effect)
                    # Inline: what a bulk call performs once a chunk, and a single call once.
                    if kind is Ask:
                        self._spent += effect.replies
                        if self._awaits:
                            await session.send(effect)
                            result = await session.read()
                        else:
                            result = session.ask(effect)
                    elif kind is Read:
                        result = await session.read()
                    elif kind is Send:
                        await session.send(effect)
                        result = None
                    elif kind is Emit:
                        await session.close()
                        return effect.values  # type: ignore[no-any-return]
                    else:
                        result = await self._other(kind, effect)
                    if self._awaits:
                        await self._give_way(asked)
                except Exception as error:
                    # What the caller's iterable raises is the caller's.
                    own = error if kind is Pull else _in_its_loop(error)
                    effect = operation.throw(own)
                else:
                    effect = operation.send(result)
        except StopIteration as stop:
            self.result = stop.value
            return None

    async def _other(self, kind: type, effect: Any) -> Any:
        """Perform an effect that is no request, or is one to another server."""
        session = self._session
        if kind is Sight:
            return session.sight()
        if kind is Pull:
            assert self._source is not None
            if not self._source.steady:
                await session.close()
            return await self._source.pull(effect.num)
        if kind is Wait:
            await session.close()
            if self._waiting is None:
                self._waiting = Waiting(session, session._pool, self._awaits, session._client)
            spent, self._spent = self._spent, 0
            found = await self._waiting.perform(effect, spent)
            self._turn = time.monotonic()
            return found
        if kind is There:
            await session.close()
            result = effect.link.run(only(effect.ask))
            return (await result) if self._awaits else result
        if kind is not Pause:
            raise AssertionError(f"no such effect: {effect!r}")
        return None

    async def _give_way(self, asked: int) -> None:
        """End if that is asked for; let the event loop's other tasks run after some time."""
        if cancellations() > asked:
            # Before Python 3.12 a wait_for of the client's may keep it to itself.
            raise asyncio.CancelledError
        if time.monotonic() - self._turn > _TURN:
            await asyncio.sleep(0)
            self._turn = time.monotonic()

    async def close(self) -> None:
        """Leave nothing behind. What it had removed but not given back yet is gone."""
        try:
            await self._session.close()
        except BaseException:
            await self._session.close()
            raise
        finally:
            if self._waiting is not None:
                self._wait_no_more(self._waiting)
            if self._source is not None:
                await self._source.close()

    def _wait_no_more(self, waiting: Waiting) -> None:
        failed = not hasattr(self, "result")
        try:
            waiting.end(failed)
        except BaseException:
            waiting.end(failed)
            raise


def _in_its_loop(error: Exception) -> Exception:
    """Return an error that says so if a client's connections belong to another event loop."""
    if type(error) is not RuntimeError or not re.search(
        "event loop|different loop", str(error), re.I
    ):
        return error
    made = RuntimeError(
        f"redis_client was used in another event loop, which owns its connections ({error}): make "
        "a client and its sets in each loop, or await client.aclose() before the first loop ends"
    )
    made.__cause__ = error
    return made


def _decodes_all(client: Any) -> bool:
    # Up to redis-py 5.0.3 asyncio connections decode with hiredis also if they are told not to.
    library = library_of(type(client))
    decodes = client.connection_pool.connection_kwargs.get("decode_responses")
    return bool(decodes) and getattr(library, "__version__", "") in (
        "5.0.0",
        "5.0.1",
        "5.0.2",
        "5.0.3",
    )


class _Session:
    """Requests that one operation has under way."""

    _awaits: bool
    #: Where its connections come from, if it has some; else its client.
    _pool: Any = None
    _client: Any = None

    async def _settled(self, result: Any) -> Any:
        """Return what a method of the client returned, awaited where it must be."""
        return (await result) if self._awaits else result

    async def send(self, effect: Send) -> None:
        raise NotImplementedError

    async def read(self) -> Any:
        raise NotImplementedError

    def ask(self, effect: Send) -> Any:
        """Send and read with a sync client."""
        complete(self.send(effect))
        return complete(self.read())

    async def close(self) -> None:
        raise NotImplementedError

    def sight(self) -> Any:
        return None


class _Flight:
    """A sent request: how many answers are still to be read, and what is known already."""

    __slots__ = ("answer", "effect", "kept", "loading", "reloads", "whole")

    def __init__(self, effect: Send) -> None:
        self.effect = effect
        self.loading = False
        #: Whether the script's text went out with it, since the server refused to load it.
        self.whole = False
        self.reloads = 0
        self.answer: Any = _UNREAD
        self.kept: Any = _UNREAD


class _Failed:
    """An answer that is an error."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


class _PackedSession(_Session):
    """Whole requests on a connection of the client's own pool."""

    def __init__(self, pool: Any, awaits: bool) -> None:
        self._pool = pool
        self._awaits = awaits
        #: How to end a connection without waiting for it.
        self._at_once = {"nowait": True} if awaits else {}
        self._connection: Any = None
        self._socket: Any = None
        self._flying: deque[_Flight] = deque()
        #: Scripts whose loading went out on this socket.
        self._sent: set[bytes] = set()
        #: Scripts whose loading the server refused, and how.
        self._refused: dict[bytes, Exception] = {}
        self._broken = False

    async def send(self, effect: Send) -> None:
        flight = _Flight(effect)
        if self._connection is None:
            await self._take()
        self._flying.append(flight)
        try:
            await self._put(flight)
        except Exception as error:
            await self._lost(error)

    async def read(self) -> Any:
        flight = self._flying[0]
        while True:
            if flight.answer is _UNREAD:
                try:
                    flight.answer = await self._fetch(flight)
                except Exception as error:
                    await self._lost(error)
            if not _is_no_script(flight.answer) or flight.reloads == _RELOADS:
                break
            await self._reload()
        self._flying.popleft()
        answer = flight.answer if flight.kept is _UNREAD else flight.kept
        if type(answer) is _Failed:
            raise answer.error
        effect = flight.effect
        try:
            return answer if effect.reads is None else effect.reads(answer)
        except Unexpected as error:
            # Who knows whose answer this was, and whose the next ones are.
            await self._give_up(_invalid(self._connection, effect, error))

    def ask(self, effect: Send) -> Any:
        """Send and read on a sync connection: the other two at once, with nothing in flight."""
        script = effect.script
        if (
            self._socket is not None
            or effect.replies != 1
            or (script is not None and script.sha not in _loaded.get(self._pool, ()))
        ):
            complete(self.send(effect))
            return complete(self.read())
        if self._connection is None:
            complete(self._take())
        connection = self._connection
        self._broken = True
        try:
            connection.send_packed_command([effect.data])
            self._socket = _lines.use(connection)
            answer = connection.read_response(disable_decoding=True)
        except Exception as error:
            flight = _Flight(effect)
            self._flying.append(flight)
            if _is_reply(error) and not _is_too_large(error):
                self._broken = False
                flight.answer = self._failed(error, script)
            else:
                complete(self._lost(error))
            return complete(self.read())
        self._broken = False
        try:
            return answer if effect.reads is None else effect.reads(answer)
        except Unexpected as error:
            return complete(self._give_up(_invalid(connection, effect, error)))

    def sight(self) -> Any:
        return _sight_of(self._pool)

    def end(self) -> None:
        """Close on a sync connection."""
        if self._flying or self._broken:
            complete(self.close())
        elif self._connection is not None:
            connection, self._connection = self._connection, None
            self._pool.release(connection)

    async def close(self) -> None:
        # May be called again if an interrupt ended it, until the connection is given back.
        connection = self._connection
        if connection is None:
            return
        if self._flying or self._broken:
            # Whoever gets the connection next must not read our answers.
            await self._settled(connection.disconnect(**self._at_once))
            self._flying.clear()
            self._broken = False
        self._socket = None
        self._sent.clear()
        self._refused.clear()
        self._connection = None
        if self._awaits:
            await _release(self._pool, connection)
        else:
            self._pool.release(connection)

    async def _take(self) -> None:
        try:
            self._connection = await self._settled(heard(_get_connection(self._pool)))
        except Exception:
            raise
        except BaseException:
            # Interrupted. The pool has the connection back as it was, and would hand it out so:
            # without its login and, worse, on another database.
            with _idle_of(self._pool) as idle:
                for connection in idle:
                    # None of this lets the event loop go on.
                    await self._settled(connection.disconnect(**self._at_once))
            raise

    async def _put(self, flight: _Flight) -> None:
        connection = self._connection
        effect = flight.effect
        data = effect.data
        script = effect.script
        flight.loading = flight.whole = False
        if script is not None and script.sha in self._refused:
            flight.whole = True
            data = script.whole(data)
        elif (
            script is not None
            and script.sha not in _loaded.setdefault(self._pool, set())
            and script.sha not in self._sent
        ):
            # The loading travels in front of the call: no round trip of its own.
            flight.loading = True
            self._sent.add(script.sha)
            data = script.load + data
        self._broken = True  # until the whole of it is out
        if self._socket is None:
            # Only now, with nothing in flight: later the PING's answer would be taken for ours.
            await self._settled(heard(connection.send_packed_command([data], check_health=True)))
            self._socket = _lines.use(connection)
        else:
            if _socket_of(connection) is not self._socket:
                raise _connection_error(connection)("the connection was remade with answers unread")
            await self._settled(heard(connection.send_packed_command([data], check_health=False)))
        self._broken = False

    async def _fetch(self, flight: _Flight) -> Any:
        """Read one request's answers; a lost connection is raised, a server's error returned."""
        connection = self._connection
        if _socket_of(connection) is not self._socket:
            raise _connection_error(connection)("the connection was lost with answers unread")
        effect = flight.effect
        script = effect.script
        if flight.loading and script is not None:
            loaded = await self._one(None)
            if type(loaded) is _Failed:
                self._refused[script.sha] = loaded.error
            else:
                _loaded.setdefault(self._pool, set()).add(script.sha)
        if effect.replies == 1:
            answer = await self._one(script)
            if flight.whole and script is not None:
                if type(answer) is not _Failed:
                    _loaded.setdefault(self._pool, set()).add(script.sha)  # EVAL loads it, too
                elif _is_no_eval(answer.error):
                    return _Failed(self._refused[script.sha])
            return answer
        answers = [await self._one(script) for _ in range(effect.replies)]
        if type(answers[-1]) is _Failed and not _is_abort(answers[-1].error):
            # EXEC was refused: the connection may still be in the MULTI, in which its next user's
            # commands would be queued and never performed.
            await self._settled(connection.disconnect())
            self._socket = None
            self._sent.clear()
        if _is_no_script(answers[0]):
            return answers[0]
        return [_bare(answer) for answer in answers]

    async def _one(self, script: Script | None) -> Any:
        connection = self._connection
        self._broken = True
        try:
            answer = await self._settled(connection.read_response(disable_decoding=True))
        except Exception as error:
            if not _is_reply(error) or _is_too_large(error):
                raise
            answer = self._failed(error, script)
        self._broken = False
        return answer

    def _failed(self, error: Exception, script: Script | None) -> _Failed:
        failed = _Failed(_translated(error, script))
        if type(failed.error).__name__ == "ReadOnlyError" and _follows_primary(self._pool):
            connection = self._connection
            raise _connection_error(connection)("the primary is a replica now") from error
        return failed

    async def _reload(self) -> None:
        """The server forgot a script: read the window to its end, then send again, in order.

        Another client may have loaded it in between, so that later requests were performed before
        this one. They are sent once more, to come last again; their first answers stay.
        """
        for flight in list(self._flying)[1:]:
            if flight.answer is _UNREAD:
                try:
                    flight.answer = await self._fetch(flight)
                except Exception as error:
                    await self._lost(error)
        scripts = _loaded.setdefault(self._pool, set())
        self._sent.clear()
        for flight in self._flying:
            if flight.effect.script is not None:
                scripts.discard(flight.effect.script.sha)
        again = []
        for flight in self._flying:
            if not _is_no_script(flight.answer) and flight.kept is _UNREAD:
                if not flight.effect.resend:
                    continue
                flight.kept = flight.answer
            flight.reloads += 1
            flight.answer = _UNREAD
            again.append(flight)
        try:
            for flight in again:
                await self._put(flight)
        except Exception as error:
            await self._lost(error)

    async def _lost(self, error: Exception) -> None:
        """Send all unread requests again, as the client's retry policy says, or raise.

        The oldest is then read as well: only an answer ends the policy's count of failures.
        """
        connection = self._connection
        _lines.change = object()
        retry = getattr(connection, "retry", None)
        unread = [flight for flight in self._flying if flight.answer is _UNREAD]
        await self._settled(connection.disconnect())
        large = _largest(unread) if _may_be_too_large(error) else None
        limit = None if large is None else await self._limit()
        if large is not None and limit is not None and len(large) > limit:
            await self._give_up(self._too_large(large, limit))
        if retry is None or not all(flight.effect.resend for flight in unread):
            await self._give_up(error)
        if _is_reply(error):
            error = _connection_error(connection)(str(error))
        failed: list[Exception] = [error]

        async def perform() -> None:
            if failed:
                raise failed.pop()
            self._socket = None
            self._sent.clear()
            # Sending connects as well, but not by way of Sentinel.
            await self._settled(heard(connection.connect()))
            try:
                for flight in unread:
                    flight.effect.resent = True
                    await self._put(flight)
                unread[0].answer = await self._fetch(unread[0])
            except Exception as again:
                # Twice, and the server does not tell its limit: a third try would fail, too.
                if large is not None and limit is None and _may_be_too_large(again):
                    raise _Suspected from again
                raise

        try:
            # Its retries, its waiting; the failure that happened is its first attempt.
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
        """Ask on a new connection how large an argument may be; None if that is not told."""
        connection = self._connection
        self._socket = None
        self._sent.clear()
        try:
            await self._settled(heard(connection.connect()))
            await self._settled(
                heard(connection.send_packed_command([_ASK_LIMIT], check_health=False))
            )
            answer = await self._settled(connection.read_response(disable_decoding=True))
        except Exception as error:
            if not _is_reply(error):
                await self._settled(connection.disconnect())
            return None
        return _limit_of(answer)

    def _too_large(self, argument: memoryview, limit: int | None) -> Exception:
        kind = _connection_error(self._connection)
        return Outsized(len(argument), limit).error(kind, bytes(argument[:_SHOWN]))

    async def _give_up(self, error: Exception) -> NoReturn:
        self._flying.clear()
        await self._settled(self._connection.disconnect())
        # What the operation sends next goes out on a new socket.
        self._socket = None
        self._sent.clear()
        self._broken = True
        raise error


class _Suspected(Exception):
    """A connection was lost twice on a large argument. No policy's retries are for this."""


class _GenericSession(_Session):
    """One command after another through a client's ``execute_command``."""

    #: How large an argument may be: -1 before it was asked, None if that is not told.
    _limit: int | None = -1

    def __init__(
        self,
        client: Any,
        split: Callable[[bytes], list[list[bytes]]],
        options: dict[str, Any],
        awaits: bool,
    ) -> None:
        self._client = client
        self._execute = client.execute_command
        self._split = split
        self._options = options
        self._caches = caches(client)
        self._counts = library_of(type(client)) is not None
        self._awaits = awaits
        self._answers: deque[tuple[Send, Any]] = deque()

    async def send(self, effect: Send) -> None:
        (arguments,) = self._split(effect.data)
        large = max(arguments, key=len) if len(effect.data) > _LARGE else b""
        try:
            if len(large) > _LARGE:
                # Asked before: the client's own retries would take seconds.
                await self._refuse(large)
            try:
                answer = await self._command(arguments)
            except Exception as error:
                if effect.script is None or not _is_no_script(_Failed(error)):
                    raise
                answer = await self._told(effect.script, arguments)
        except Exception as error:
            answer = _Failed(_translated(error, effect.script))
        self._answers.append((effect, answer))

    async def read(self) -> Any:
        effect, answer = self._answers.popleft()
        if type(answer) is _Failed:
            raise answer.error
        try:
            return answer if effect.reads is None else effect.reads(answer)
        except Unexpected as error:
            raise _invalid(self._client, effect, error) from None

    async def close(self) -> None:
        self._answers.clear()

    async def _refuse(self, argument: bytes) -> None:
        """Raise the client's ConnectionError if an argument is larger than the server takes."""
        if self._limit == -1:
            self._limit = None
            with contextlib.suppress(Exception):  # it may not be told
                answer = await self._executed("CONFIG GET", "proto-max-bulk-len", **self._options)
                self._limit = _limit_of(answer)
        if self._limit is not None and len(argument) > self._limit:
            kind = _connection_error(self._client)
            raise Outsized(len(argument), self._limit).error(kind, argument[:_SHOWN])

    async def _command(self, arguments: list[bytes]) -> Any:
        text = arguments[0].decode()
        rest: list[bytes | int] = [*arguments[1:]]
        if self._counts and text in ("EVAL", "EVALSHA"):
            # Cluster clients find the keys by their number, redis-py 5.0.0's only if it is an int.
            rest[1] = int(rest[1])
        if self._caches:
            text = text.lower()  # its caches know commands in upper case only
        return await self._executed(text, *rest, **self._options)

    async def _told(self, script: Script, arguments: list[bytes]) -> Any:
        """Load a script, then call it; send it whole if the server refuses to load it."""
        try:
            # Without options: a cluster client hands them to its callback, which takes none. It
            # sends this to all primaries, by this name only.
            await self._executed("SCRIPT LOAD", script.text)
        except Exception as refusal:
            if not _is_reply(refusal):
                raise
            try:
                return await self._command([b"EVAL", script.text, *arguments[2:]])
            except Exception as error:
                if _is_no_eval(error):
                    raise refusal from None
                raise
        return await self._command(arguments)

    async def _executed(self, *arguments: Any, **options: Any) -> Any:
        answer = await self._settled(heard(self._execute(*arguments, **options)))
        if isinstance(answer, Exception):
            raise answer
        return answer


async def _release(pool: Any, connection: Any) -> None:
    """Return a connection to its pool, also if this is cancelled in between."""
    try:
        await pool.release(connection)
    except asyncio.CancelledError:
        with contextlib.suppress(KeyError):  # it was given back already
            await undisturbed(pool.release(connection))
        raise


async def undisturbed(work: Coroutine[Any, Any, T]) -> T:
    """Do something to its end; a cancellation that comes meanwhile is raised then."""
    task = asyncio.ensure_future(work)
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # or it is said to have been forgotten
    raise cancellation


def _get_connection(pool: Any) -> Any:
    # Before redis-py 5.3, and in valkey-py, the command's name is a required argument.
    get = pool.get_connection
    try:
        return get()
    except TypeError:
        return get("EVALSHA")


def _held(lock: Any) -> contextlib.AbstractContextManager[Any]:
    """Return what holds a pool's lock. In asyncio nobody else runs; old pools have none."""
    return lock if hasattr(lock, "__enter__") else contextlib.nullcontext()


@contextlib.contextmanager
def _idle_of(pool: Any) -> Iterator[list[Any]]:
    """Return the connections that nobody uses, nor can take meanwhile."""
    queue = getattr(pool, "pool", None)
    with _held(getattr(pool, "_lock", None) if queue is None else getattr(queue, "mutex", None)):
        if queue is None:
            yield list(pool._available_connections)
        else:  # a blocking pool's, with None in place of those that were never made
            every = queue.queue if hasattr(queue, "queue") else queue._queue
            yield [each for each in every if each is not None]


def _follows_primary(pool: Any) -> bool:
    # redis-py's Sentinel connections raise a ConnectionError for a ReadOnlyError, so that the new
    # primary is looked for; one that came wrapped (Redis 6.2, in scripts) they do not see.
    return bool(getattr(pool, "is_master", False))


def _socket_of(connection: Any) -> Any:
    """Return what a connection is made anew with: its socket, or the asyncio writer over it."""
    try:
        return connection._sock
    except AttributeError:
        return getattr(connection, "_writer", None)


def _sight_of(pool: Any) -> Any:
    """Return the database and the open sockets of a pool, used or not, by whomever, and what tells
    whether the process has other connections since.
    """
    try:
        # What is taken or given back meanwhile would be seen twice, or not at all.
        with _held(getattr(pool, "_lock", None)):
            connections = _connections_of(pool)
        database = _database_of(pool)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return None  # another kind of pool
    sockets = [socket for socket in map(_socket_of, connections) if socket is not None]
    return database, _lines.change, frozenset(_still_open(sockets))


def _still_open(sockets: list[Any]) -> list[Any]:
    """Leave out what the server has closed, though nobody has noticed yet."""
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


def _connections_of(pool: Any) -> list[Any]:
    # redis-py's and valkey-py's blocking pool has all of them in one list.
    every = getattr(pool, "_connections", None)
    if every is not None:
        return list(every)
    return [*pool._available_connections, *pool._in_use_connections]


def _exceptions_of(value: Any) -> Any:
    library = library_of(type(value))
    if library is None:
        return None
    return importlib.import_module(f"{library.__name__}.exceptions")


def _connection_error(connection: Any) -> type[Exception]:
    exceptions = _exceptions_of(connection)
    return exceptions.ConnectionError if exceptions else ConnectionError


def _invalid(value: Any, effect: Send, error: Unexpected) -> Exception:
    """Make the error of an answer that cannot be one, of the client's own class if it has one."""
    exceptions = _exceptions_of(value)
    kind = exceptions.InvalidResponse if exceptions else ConnectionError
    made: Exception = kind(f"{effect.name}: {error}")
    made.__cause__ = error
    return made


def _is_reply(error: Exception) -> bool:
    """Whether an exception is a server's answer, after which the connection is in order."""
    return any(base.__name__ == "ResponseError" for base in type(error).__mro__)


def _is_too_large(error: Exception) -> bool:
    """Whether a server says that an argument is too large; it closes the connection then."""
    return "invalid bulk length" in str(error)


def _may_be_too_large(error: Exception) -> bool:
    """Whether a connection was closed, as for an argument that is too large, and not too slow."""
    return not any("Timeout" in base.__name__ for base in type(error).__mro__)


def _largest(flights: list[_Flight]) -> memoryview | None:
    """Return the largest argument of some requests, if it may be too large."""
    found: memoryview | None = None
    for flight in flights:
        data = flight.effect.data
        if len(data) <= _LARGE:
            continue
        at = 0
        while at < len(data):
            stop = data.index(b"\r\n", at)
            size, start = int(data[at + 1 : stop]), stop + 2
            is_array = data[at : at + 1] == b"*"
            at = start if is_array else start + size + 2
            if not is_array and size > max(_LARGE, 0 if found is None else len(found)):
                found = memoryview(data)[start : start + size]
    return found


def _limit_of(answer: Any) -> int | None:
    """Read the answer to CONFIG GET of one number: a list, a dict, or something else."""
    values = list(answer.values()) if isinstance(answer, dict) else answer
    try:
        return int(values[-1])
    except (TypeError, ValueError, LookupError):
        return None


def _is_no_script(answer: Any) -> bool:
    return type(answer) is _Failed and (
        type(answer.error).__name__ == "NoScriptError" or str(answer.error).startswith("NOSCRIPT")
    )


def _is_abort(error: Exception) -> bool:
    """Return whether EXEC ended a MULTI without performing it."""
    return type(error).__name__ == "ExecAbortError" or str(error).startswith("EXECABORT")


def _bare(answer: Any) -> Any:
    """Return one of several answers; errors, and those inside of EXEC's list, as exceptions."""
    if type(answer) is _Failed:
        return answer.error
    if isinstance(answer, list):
        return [_translated(part) if isinstance(part, Exception) else part for part in answer]
    return answer


_CLASSES = {
    "OOM": "OutOfMemoryError",
    "READONLY": "ReadOnlyError",
    "NOSCRIPT": "NoScriptError",
    "NOPERM": "NoPermissionError",
}


def _is_no_eval(error: Exception) -> bool:
    """Whether an error says that the user, or the server, has no EVAL."""
    text = str(error).lower()
    return "eval" in text and ("permission" in text or "unknown command" in text)


#: How servers say that a script's user lacks a right: Redis 6.2 and 7.0, then 7.2 and Valkey.
_NO_RIGHT = re.compile(
    r"(The user executing the script can't [^@]*?|ACL failure in script: .*?)"
    r"(?: script: .*)?$",
    re.DOTALL,
)
_LINE = re.compile(r"@user_script: ?(\d+)")


def _no_right(text: str, script: Script | None) -> str | None:
    """Return what an error of a script says of a missing right, and of which command."""
    found = _NO_RIGHT.search(text)
    if found is None:
        return None
    said = found[1].removeprefix("ACL failure in script: ").removesuffix(".")
    if script is None:
        return said
    line = _LINE.search(text)
    names = script.commands_at(int(line[1])) if line else []
    where = f"in the step {script.name!r}"
    if not names or any(f"'{name.lower()}'" in said for name in names):
        return f"{said}, {where}"
    return f"{said}: {' or '.join(repr(name.lower()) for name in names)}, {where}"


def _translated(error: Exception, script: Script | None = None) -> Exception:
    """Restore the class and text that an error has outside of scripts (Redis 6.2 wraps both)."""
    text = str(error)
    if type(error).__name__ != "ResponseError":
        return error
    if script is not None and re.search("unknown command.*evalsha", text, re.I | re.S):
        made = type(error)(
            f"{text.rstrip()} (redset needs a server with Lua scripts; for tests, "
            "fakeredis runs them if it is installed as fakeredis[lua])"
        )
        made.__cause__ = error
        return made
    refused = _no_right(text, script)
    if refused is not None:
        kind = getattr(_exceptions_of(error), "NoPermissionError", None)
        made = type(error)(f"NOPERM {refused}") if kind is None else kind(refused)
        made.__cause__ = error
        return made
    for code in ("OOM", "READONLY", "WRONGTYPE", "NOPERM", "MISCONF"):
        at = text.find(code + " ")
        if at < 0 or (
            at > 0 and not text.startswith(("Error running script", "ERR Error", "EXECABORT"))
        ):
            continue
        exceptions = _exceptions_of(error)
        kind = getattr(exceptions, _CLASSES.get(code, ""), None)
        # A class of its own has the text without the code.
        made = type(error)(text[at:]) if kind is None else kind(text[at + len(code) + 1 :])
        made.__cause__ = error if at else None
        return made
    return error
