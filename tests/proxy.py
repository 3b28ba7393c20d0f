"""A proxy between a client and a server that sees every command and can lose it or its reply.

with Proxy(server) as proxy:
    proxy.rule = lambda command: Proxy.LOSE if command[0] == b"ZADD" else None
    redis.Redis(port=proxy.port)
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from redset.scripts import script

Command = list[bytes]


class Proxy:
    """Listens on a loopback port and hands on to a server's unix socket.

    Attributes
    ----------
    port : int
        The address to connect to.
    seen : list of list of bytes
        The commands that clients sent, in order, also those that were lost.
    connections : int
        How many were accepted.
    rule : callable or None
        Called with each command before it is passed on. It returns None, or a number of seconds to
        wait before that. `CUT` ends the connection instead. `LOSE` ends it after the server has
        performed the command, before the client gets the reply.
    open : bool
        False accepts connections only to end them.
    """

    CUT = "cut"
    LOSE = "lose"

    def __init__(self, server: Any) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.seen: list[Command] = []
        self.connections = 0
        self.rule: Callable[[Command], str | float | None] | None = None
        self.open = True
        #: Whether ``seen`` and ``rule`` pass over reports, which travel with any request.
        self.hides = True
        self._lock = threading.Lock()
        self._budget: dict[str, int | None] = {"up": None, "down": None}
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._ended = False

    def __enter__(self) -> Proxy:
        self._spawn(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._ended = True
        # Closing a listener does not wake its accept everywhere; a connection does.
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def cut(self) -> None:
        """End all connections, in both directions, with a reset."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _end(*pair)

    def cut_after(self, *, up: int | None = None, down: int | None = None) -> None:
        """End the connection that carries the next so many bytes to the server, or back."""
        self._budget = {"up": up, "down": down}

    @property
    def armed(self) -> bool:
        """Whether a cut is still to come."""
        return any(left is not None for left in self._budget.values())

    def names(self) -> list[bytes]:
        """The names of the commands seen."""
        return [command[0].upper() for command in self.seen]

    def _spawn(self, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ended:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._ended:
                near.close()
                return
            self.connections += 1
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(self._server.unix)
            except OSError:
                _end(near, far)
                continue
            if not self.open:
                _end(near, far)
                continue
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._pairs.append((near, far))
            lost, performed = threading.Event(), threading.Event()
            self._spawn(self._up, near, far, lost, performed)
            self._spawn(self._down, near, far, lost, performed)

    def _up(
        self,
        near: socket.socket,
        far: socket.socket,
        lost: threading.Event,
        performed: threading.Event,
    ) -> None:
        waiting = b""
        with contextlib.suppress(OSError):
            while data := near.recv(1 << 16):
                ends = self._spend("up", data)
                waiting += data[:ends]
                while (end := _command_end(waiting)) is not None:
                    command = _arguments(waiting[:end])
                    verdict = None
                    if not (self.hides and is_report(command)):
                        self.seen.append(command)
                        verdict = self.rule(command) if self.rule is not None else None
                    if verdict == self.CUT:
                        _end(near, far)
                        return
                    if verdict == self.LOSE:
                        lost.set()
                    elif isinstance(verdict, (int, float)):
                        time.sleep(verdict)
                    far.sendall(waiting[:end])
                    waiting = waiting[end:]
                if ends is not None:
                    far.sendall(waiting)
                    break
                if lost.is_set():
                    # The server also performs the commands that came with it.
                    performed.wait(5)
                    time.sleep(0.05)
                    break
        _end(near, far)

    def _down(
        self,
        near: socket.socket,
        far: socket.socket,
        lost: threading.Event,
        performed: threading.Event,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(1 << 16):
                if lost.is_set():
                    performed.set()
                    continue
                ends = self._spend("down", data)
                near.sendall(data[:ends])
                if ends is not None:
                    break
        _end(near, far)

    def _spend(self, way: str, data: bytes) -> int | None:
        """Return after how many of these bytes the connection should end; None if it goes on."""
        with self._lock:
            left = self._budget[way]
            if left is None:
                return None
            if len(data) < left:
                self._budget[way] = left - len(data)
                return None
            self._budget = {"up": None, "down": None}
            return left


#: The steps of reports, and their texts.
_REPORTS = {
    part for name in ("report", "register") for part in (script(name).sha, script(name).text)
}


def is_report(command: Command) -> bool:
    """Whether a command tells operators what the process did. It may travel with any request."""
    return not _REPORTS.isdisjoint(command[1:3]) or command[:2] == [b"HDEL", b"redset:sets"]


def _end(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            if each.family == socket.AF_INET:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # A recv of it that waits in another thread wakes up.
            each.shutdown(socket.SHUT_RDWR)
        each.close()


def _command_end(data: bytes) -> int | None:
    """Return the end of the first command in data; None if it is not whole."""
    at = data.find(b"\r\n")
    if at < 0:
        return None
    if data[:1] != b"*":
        return at + 2
    count, at = int(data[1:at]), at + 2
    for _ in range(count):
        stop = data.find(b"\r\n", at)
        if stop < 0:
            return None
        at = stop + 2 + int(data[at + 1 : stop]) + 2
    return at if at <= len(data) else None


def _arguments(data: bytes) -> Command:
    if data[:1] != b"*":
        return data.split()
    found = []
    stop = data.index(b"\r\n")
    count, at = int(data[1:stop]), stop + 2
    for _ in range(count):
        stop = data.index(b"\r\n", at)
        size, at = int(data[at + 1 : stop]), stop + 2
        found.append(data[at : at + size])
        at += size + 2
    return found
