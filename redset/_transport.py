"""Performs what operations ask for, on a client's pooled connections or through its commands."""

from __future__ import annotations

import importlib
import inspect
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from types import ModuleType
from typing import Any, NoReturn

from redset._effects import Ask, Emit, Operation, Pull, R, Read, Send

_UNREAD = object()
#: Iterables that run none of the caller's code: pulled from while requests are in flight.
_STEADY = (list, tuple, set, frozenset, dict, range, deque)
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
#: How long one pull may go on, in seconds, before what came is sent.
_PATIENCE = 0.05
#: The most items pulled between two looks at the clock.
_RUN = 32
#: How often one request is repeated because the server forgot its script.
_RELOADS = 5

_loaded: weakref.WeakKeyDictionary[Any, set[bytes]] = weakref.WeakKeyDictionary()


class Source:
    """The caller's items and scores, pulled a run at a time.

    Attributes
    ----------
    steady : bool
        Whether a pull runs none of the caller's code.
    """

    def __init__(self, items: Iterable[Any], scores: Iterable[Any] | None) -> None:
        self.steady = _steady(items) and (scores is None or _steady(scores))
        self._items = iter(items)
        self._scores = None if scores is None else iter(scores)
        self._error: Exception | None = None

    def pull(self, num: int) -> tuple[list[Any], list[Any] | None]:
        """Give up to ``num`` items, fewer where they are slow to come, none at the end."""
        if self._error is not None:
            raise self._error
        items = list(islice(self._items, num)) if self.steady else self._patient(num)
        if self._scores is None:
            return items, None
        scores: list[Any] = []
        try:
            scores.extend(islice(self._scores, len(items)))
            if len(scores) < len(items):
                self._error = ValueError("score ended before items: it must give one for each")
            elif not items and next(self._scores, _UNREAD) is not _UNREAD:
                raise ValueError(
                    "score goes on behind the last of items: it must give one for each"
                )
        except Exception as error:
            self._error = error
        del items[len(scores) :]
        if not items and self._error is not None:
            raise self._error
        return items, scores

    def _patient(self, num: int) -> list[Any]:
        # Runs of items grow while they come fast, so that the clock costs nothing an item.
        items: list[Any] = []
        end = time.monotonic() + _PATIENCE
        run = 1
        while len(items) < num:
            before = len(items)
            try:
                items.extend(islice(self._items, min(run, num - before)))
            except Exception as error:
                self._error = error
                if not items:
                    raise
                break
            if len(items) == before or time.monotonic() > end:
                break
            run = min(2 * run, _RUN)
        return items


def _steady(iterable: Any) -> bool:
    return type(iterable) in _STEADY or isinstance(iterable, _VIEWS)


class Link:
    """One client's way to the server: packed where its connections can be borrowed, else generic.

    Parameters
    ----------
    client : redis.Redis, valkey.Valkey or any object with ``execute_command``
        The sync client.

    Raises
    ------
    TypeError
        Where the client is an asyncio one, or none at all.
    """

    __slots__ = ("_client", "_options", "_split", "multi")

    def __init__(self, client: Any, split: Callable[[bytes], list[list[bytes]]]) -> None:
        execute = getattr(client, "execute_command", None)
        if not callable(execute):
            raise TypeError(
                f"redis_client must be a client with execute_command, not {type(client).__name__}"
            )
        if inspect.iscoroutinefunction(execute):
            raise TypeError(
                f"redis_client is an asyncio client ({type(client).__module__}."
                f"{type(client).__name__}): this set takes a sync one, such as redis.Redis"
            )
        self._client = client
        #: Whether several commands can be sent as one MULTI.
        self.multi = _lends_connections(client)
        self._split = split
        self._options = {} if self.multi else _decoding_options(execute)

    def run(self, operation: Operation[R], source: Source | None = None) -> R:
        """Perform an operation to its end."""
        performing = self._perform(operation, source)
        try:
            while True:
                next(performing)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    def iterate(self, operation: Operation[R], source: Source | None = None) -> Iterator[Any]:
        """Perform an operation, and give what it emits as it comes."""
        for values in self._perform(operation, source):
            yield from values

    def _perform(
        self, operation: Operation[R], source: Source | None
    ) -> Generator[list[Any], None, R]:
        session: _Session
        if self.multi:
            session = _PackedSession(self._client.connection_pool)
        else:
            session = _GenericSession(self._client, self._split, self._options)
        try:
            effect = next(operation)
            while True:
                try:
                    kind = type(effect)
                    result: Any = None
                    if kind is Ask:
                        session.send(effect)
                        result = session.read()
                    elif kind is Read:
                        result = session.read()
                    elif kind is Send:
                        session.send(effect)
                    elif kind is Pull:
                        assert source is not None
                        if not source.steady:
                            session.close()
                        result = source.pull(effect.num)
                    elif kind is Emit:
                        session.close()
                        yield effect.values
                    else:
                        raise AssertionError(f"no such effect: {effect!r}")
                except Exception as error:
                    effect = operation.throw(error)
                else:
                    effect = operation.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        finally:
            try:
                session.close()
            except BaseException:
                session.close()
                raise


def _lends_connections(client: Any) -> bool:
    # Client-side caching and single_connection_client make their own use of a connection.
    pool = getattr(client, "connection_pool", None)
    return (
        _library_of(type(client)) is not None
        and callable(getattr(pool, "get_connection", None))
        and getattr(client, "connection", None) is None
        and getattr(pool, "cache", None) is None
    )


def _decoding_options(execute: Callable[..., Any]) -> dict[str, Any]:
    # Clients of redis-py's kind, and what hands on to them, decode replies on request; members
    # need not be text.
    try:
        parameters = inspect.signature(execute).parameters.values()
    except (TypeError, ValueError):
        return {}
    takes_options = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
    return {"NEVER_DECODE": True} if takes_options else {}


def _library_of(kind: type) -> ModuleType | None:
    """Give the module of the client library that a class comes from: redis or valkey."""
    for base in kind.__mro__:
        library = base.__module__.partition(".")[0]
        if library in ("redis", "valkey"):
            return importlib.import_module(library)
    return None


class _Session:
    """What one operation has under way."""

    def send(self, effect: Send) -> None:
        raise NotImplementedError

    def read(self) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class _Flight:
    """A sent request: how many answers are still to be read, and what is known already."""

    __slots__ = ("answer", "effect", "kept", "loading", "reloads")

    def __init__(self, effect: Send) -> None:
        self.effect = effect
        self.loading = False
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

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._connection: Any = None
        self._socket: Any = None
        self._flying: deque[_Flight] = deque()
        #: Scripts whose loading went out on this socket.
        self._sent: set[bytes] = set()
        self._broken = False

    def send(self, effect: Send) -> None:
        flight = _Flight(effect)
        if self._connection is None:
            self._connection = _get_connection(self._pool)
        self._flying.append(flight)
        try:
            self._put(flight)
        except Exception as error:
            self._lost(error)

    def read(self) -> Any:
        flight = self._flying[0]
        while True:
            if flight.answer is _UNREAD:
                try:
                    flight.answer = self._fetch(flight)
                except Exception as error:
                    self._lost(error)
            if not _is_no_script(flight.answer) or flight.reloads == _RELOADS:
                break
            self._reload()
        self._flying.popleft()
        answer = flight.answer if flight.kept is _UNREAD else flight.kept
        if type(answer) is _Failed:
            raise answer.error
        return answer

    def close(self) -> None:
        # May be called again where an interrupt ended it, until the connection is given back.
        connection = self._connection
        if connection is None:
            return
        if self._flying or self._broken:
            # Whoever gets the connection next must not read our answers.
            connection.disconnect()
            self._flying.clear()
            self._broken = False
        self._socket = None
        self._sent.clear()
        self._connection = None
        self._pool.release(connection)

    def _put(self, flight: _Flight) -> None:
        connection = self._connection
        effect = flight.effect
        data = effect.data
        script = effect.script
        flight.loading = False
        if (
            script is not None
            and script.sha not in _loaded.setdefault(self._pool, set())
            and script.sha not in self._sent
        ):
            # The loading travels in front of the call: no round trip of its own.
            flight.loading = True
            self._sent.add(script.sha)
            data = _load_request(script.text) + data
        self._broken = True  # until the whole of it is out
        if self._socket is None:
            # Only now, with nothing in flight: later the PING's answer would be taken for ours.
            connection.send_packed_command([data], check_health=True)
            self._socket = _socket_of(connection)
        else:
            if _socket_of(connection) is not self._socket:
                raise _connection_error(connection)("the connection was remade with answers unread")
            connection.send_packed_command([data], check_health=False)
        self._broken = False

    def _fetch(self, flight: _Flight) -> Any:
        """Read one request's answers; a lost connection is raised, a server's error returned."""
        connection = self._connection
        if _socket_of(connection) is not self._socket:
            raise _connection_error(connection)("the connection was lost with answers unread")
        effect = flight.effect
        if flight.loading:
            loaded = self._one()
            if type(loaded) is not _Failed and effect.script is not None:
                _loaded.setdefault(self._pool, set()).add(effect.script.sha)
        first: _Failed | None = None
        answer: Any = None
        for _ in range(effect.replies):
            answer = self._one()
            if type(answer) is _Failed and first is None:
                first = answer
        if first is not None:
            return first
        if effect.replies > 1 and isinstance(answer, list):
            for part in answer:
                if isinstance(part, Exception):
                    return _Failed(_translated(part))
        return answer

    def _one(self) -> Any:
        connection = self._connection
        self._broken = True
        try:
            answer = connection.read_response(disable_decoding=True)
        except Exception as error:
            if not _is_reply(error):
                raise
            answer = _Failed(_translated(error))
            if type(answer.error).__name__ == "ReadOnlyError" and _follows_primary(self._pool):
                raise _connection_error(connection)("the primary is a replica now") from error
        self._broken = False
        return answer

    def _reload(self) -> None:
        """The server forgot a script: read the window to its end, then send again, in order.

        Another client may have loaded it in between, so that later requests were performed before
        this one. They are sent once more, to come last again; their first answers stay.
        """
        for flight in list(self._flying)[1:]:
            if flight.answer is _UNREAD:
                try:
                    flight.answer = self._fetch(flight)
                except Exception as error:
                    self._lost(error)
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
                self._put(flight)
        except Exception as error:
            self._lost(error)

    def _lost(self, error: Exception) -> None:
        """Send all unread requests again, as the client's retry policy says, or raise.

        The oldest is then read as well: only an answer ends the policy's count of failures.
        """
        connection = self._connection
        retry = getattr(connection, "retry", None)
        unread = [flight for flight in self._flying if flight.answer is _UNREAD]
        connection.disconnect()
        if retry is None or not all(flight.effect.resend for flight in unread):
            self._give_up(error)
        failed: list[Exception] = [error]

        def perform() -> None:
            if failed:
                raise failed.pop()
            self._socket = None
            self._sent.clear()
            # Sending connects as well, but not by way of Sentinel.
            connection.connect()
            for flight in unread:
                self._put(flight)
            unread[0].answer = self._fetch(unread[0])

        try:
            # Its retries, its waiting; the failure that happened is its first attempt.
            retry.call_with_retry(perform, lambda _: connection.disconnect())
        except Exception as last:
            self._give_up(last)

    def _give_up(self, error: Exception) -> NoReturn:
        self._flying.clear()
        self._connection.disconnect()
        # What the operation sends next goes out on a new socket.
        self._socket = None
        self._sent.clear()
        self._broken = True
        raise error


class _GenericSession(_Session):
    """One command after another through a client's ``execute_command``."""

    def __init__(
        self,
        client: Any,
        split: Callable[[bytes], list[list[bytes]]],
        options: dict[str, Any],
    ) -> None:
        self._execute = client.execute_command
        self._split = split
        self._options = options
        self._answers: deque[Any] = deque()

    def send(self, effect: Send) -> None:
        (arguments,) = self._split(effect.data)
        try:
            try:
                answer = self._command(arguments)
            except Exception as error:
                if effect.script is None or not _is_no_script(_Failed(error)):
                    raise
                self._command([b"SCRIPT", b"LOAD", effect.script.text])
                answer = self._command(arguments)
        except Exception as error:
            answer = _Failed(_translated(error))
        self._answers.append(answer)

    def read(self) -> Any:
        answer = self._answers.popleft()
        if type(answer) is _Failed:
            raise answer.error
        return answer

    def close(self) -> None:
        self._answers.clear()

    def _command(self, arguments: list[bytes]) -> Any:
        name, *rest = arguments
        if name == b"SCRIPT":
            name, rest = b"SCRIPT LOAD", rest[1:]
        text = name.decode()
        if self._options:
            text = text.lower()  # their caches know commands in upper case only
        answer = self._execute(text, *rest, **self._options)
        if isinstance(answer, Exception):
            raise answer
        return answer


def _load_request(text: bytes) -> bytes:
    return b"*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$%d\r\n%b\r\n" % (len(text), text)


def _get_connection(pool: Any) -> Any:
    # Before redis-py 5.3, and in valkey-py, the command's name is a required argument.
    get = pool.get_connection
    try:
        return get()
    except TypeError:
        return get("EVALSHA")


def _follows_primary(pool: Any) -> bool:
    # redis-py's Sentinel connections raise a ConnectionError for a ReadOnlyError, so that the new
    # primary is looked for; one that came wrapped (Redis 6.2, in scripts) they do not see.
    return bool(getattr(pool, "is_master", False))


def _socket_of(connection: Any) -> Any:
    return getattr(connection, "_sock", None)


def _exceptions_of(value: Any) -> Any:
    library = _library_of(type(value))
    if library is None:
        return None
    return importlib.import_module(f"{library.__name__}.exceptions")


def _connection_error(connection: Any) -> type[Exception]:
    exceptions = _exceptions_of(connection)
    return exceptions.ConnectionError if exceptions else ConnectionError


def _is_reply(error: Exception) -> bool:
    """Whether an exception is a server's answer, after which the connection is in order."""
    return any(base.__name__ == "ResponseError" for base in type(error).__mro__)


def _is_no_script(answer: Any) -> bool:
    return type(answer) is _Failed and (
        type(answer.error).__name__ == "NoScriptError" or str(answer.error).startswith("NOSCRIPT")
    )


_CLASSES = {
    "OOM": "OutOfMemoryError",
    "READONLY": "ReadOnlyError",
    "NOSCRIPT": "NoScriptError",
    "NOPERM": "NoPermissionError",
}


def _translated(error: Exception) -> Exception:
    """Give an error the class and text that it has outside of scripts (Redis 6.2 wraps both)."""
    text = str(error)
    if type(error).__name__ != "ResponseError":
        return error
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
