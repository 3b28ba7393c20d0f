"""A connection outside the pool on which the server reports changes of keys.

Theory of operation. This is Redis's client-side caching (``CLIENT TRACKING``): reading a key arms
it, and its next change, by any client, comes as a push message. The client's pool makes the
connection, with its TLS, authentication and Sentinel. From then on redset itself reads and writes
it, in RESP3, whichever protocol the pool uses: clients consume push messages while they read
other replies.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
import time
from typing import Any

_HELLO = b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n"
_TRACK = b"*3\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$2\r\nON\r\n"
_INFO = b"*2\r\n$6\r\nCLIENT\r\n$12\r\nTRACKINGINFO\r\n"
_SIZE = 1 << 16
#: How long the server may take to answer, in seconds, before the connection counts as lost.
PATIENCE = 2.0


class CannotTrack(Exception):
    """The server, or the client's connections, cannot track keys."""


class TrackingLost(Exception):
    """The connection has ended, or a reply on it is malformed."""


class Push(list[Any]):
    """A push message: it is not a reply."""


class ErrorText:
    """A reply that is an error, as the text that was received."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class Tracking:
    """A tracking connection of a sync client: blocks its thread, which others may wake."""

    def __init__(self) -> None:
        self._connection: Any = None
        self._socket: Any = None
        self._data = b""
        # Not epoll: a forked child would share it.
        self._selector = getattr(selectors, "PollSelector", selectors.SelectSelector)()
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    async def open(self, pool: Any) -> None:
        """Connect and switch tracking on. Raise CannotTrack if the server does not track."""
        # Only the pool's own connections handle notices of a server's maintenance.
        options = {
            name: value for name, value in pool.connection_kwargs.items() if "maint" not in name
        }
        connection = pool.connection_class(**options)
        try:
            await self._connect(connection)
            self._connection = connection
            self.send(_HELLO + _TRACK + _INFO)
            answers: list[Any] = []
            end = time.monotonic() + PATIENCE
            while len(answers) < 3:
                rest = end - time.monotonic()
                if rest < 0:
                    raise TrackingLost("the server did not answer in time")
                answers += await self.receive(rest)
            for answer in answers:
                if type(answer) is ErrorText:
                    raise CannotTrack(answer.text)
            if not isinstance(answers[2], dict) or b"on" not in answers[2].get(b"flags", ()):
                raise CannotTrack("the server does not confirm that it tracks keys")
        except BaseException:
            self._connection = connection
            await self.disconnect()
            raise

    async def _connect(self, connection: Any) -> None:
        connection.connect()
        found = getattr(connection, "_sock", None)
        if not isinstance(found, socket.socket):
            raise CannotTrack(f"{type(connection).__name__} has no socket")
        found.settimeout(PATIENCE)
        self._socket = found
        self._selector.register(found, selectors.EVENT_READ)

    def send(self, data: bytes) -> None:
        """Send whole requests."""
        self._socket.sendall(data)

    async def receive(self, seconds: float) -> list[Any]:
        """Wait for messages until woken or the time is over. Raise TrackingLost at their end."""
        pending = getattr(self._socket, "pending", None)  # bytes that TLS has decrypted already
        if pending is None or not pending():
            ready = {key.fileobj for key, _ in self._selector.select(max(seconds, 0))}
            if self._woken in ready:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(_SIZE)
            if self._socket not in ready:
                return []
        try:
            data = self._socket.recv(_SIZE)
        except TimeoutError:  # a part of a TLS record
            return []
        return self._messages(data)

    def _messages(self, data: bytes) -> list[Any]:
        if not data:
            raise TrackingLost("the server closed the connection")
        self._data += data
        found, end = [], 0
        with contextlib.suppress(IndexError):
            while end < len(self._data):
                message, end = _parsed(self._data, end)
                found.append(message)
        self._data = self._data[end:]
        return found

    def wake(self) -> None:
        """End a receive at once, from any thread."""
        with contextlib.suppress(OSError):  # a full pipe wakes, too, and a closed one need not
            self._waker.send(b"\0")

    async def disconnect(self) -> None:
        """End the connection; it can be opened again."""
        connection, self._connection = self._connection, None
        found, self._socket = self._socket, None
        self._data = b""
        if found is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(found)
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.disconnect()

    async def close(self) -> None:
        """Disconnect, and close the pipe that wakes it."""
        await self.disconnect()
        self._selector.close()
        self._woken.close()
        self._waker.close()


class AsyncTracking(Tracking):
    """A tracking connection of an asyncio client: suspends its task."""

    def __init__(self) -> None:
        self._connection = None
        self._data = b""
        self._reader: Any = None
        self._writer: Any = None
        self._reading: asyncio.Task[bytes] | None = None
        self._sleeping: asyncio.Future[None] | None = None
        self._awake = False

    async def _connect(self, connection: Any) -> None:
        await connection.connect()
        reader = getattr(connection, "_reader", None)
        if not isinstance(reader, asyncio.StreamReader):
            raise CannotTrack(f"{type(connection).__name__} has no stream")
        self._reader, self._writer = reader, connection._writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def receive(self, seconds: float) -> list[Any]:
        sleeping = self._sleeping = asyncio.get_running_loop().create_future()
        waits: list[asyncio.Future[Any]] = [sleeping]
        if self._reader is not None:
            if self._reading is None:
                self._reading = asyncio.ensure_future(self._reader.read(_SIZE))
            waits.append(self._reading)
        if not self._awake:
            first = asyncio.FIRST_COMPLETED
            await asyncio.wait(waits, timeout=max(seconds, 0), return_when=first)
        self._awake = False
        if self._reading is None or not self._reading.done():
            return []
        reading, self._reading = self._reading, None
        return self._messages(reading.result())

    def wake(self) -> None:
        self._awake = True
        if self._sleeping is not None and not self._sleeping.done():
            self._sleeping.set_result(None)

    async def disconnect(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        connection, self._connection = self._connection, None
        self._reader = self._writer = None
        self._data = b""
        if connection is not None:
            with contextlib.suppress(Exception):
                await connection.disconnect(nowait=True)

    async def close(self) -> None:
        await self.disconnect()


def _parsed(data: bytes, at: int) -> tuple[Any, int]:
    """Parse one RESP3 value, and return it with its end; raise IndexError if it is not whole."""
    stop = data.find(b"\r\n", at)
    if stop < 0:
        raise IndexError
    kind, line, end = data[at : at + 1], data[at + 1 : stop], stop + 2
    if kind in b"+,(#":
        return line, end
    if kind == b":":
        return int(line), end
    if kind == b"-":
        return ErrorText(line.decode(errors="replace")), end
    if kind == b"_" or line == b"-1":
        return None, end
    if kind in b"$=!":
        size = int(line)
        if len(data) < end + size + 2:
            raise IndexError
        text = data[end : end + size]
        value = ErrorText(text.decode(errors="replace")) if kind == b"!" else text
        return value, end + size + 2
    if kind not in b"*~>%":
        raise TrackingLost(f"the server sent {kind!r}")
    values: list[Any] = []
    for _ in range(int(line) * (2 if kind == b"%" else 1)):
        value, end = _parsed(data, end)
        values.append(value)
    if kind == b">":
        return Push(values), end
    if kind == b"%":
        return dict(zip(values[::2], values[1::2], strict=True)), end
    return values, end
