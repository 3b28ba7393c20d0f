"""A TCP proxy that delays each direction, as a network does: ``python proxy.py HOST PORT SECONDS``.

It prints the port that it listens on and ends with its standard input. A process of its own, so
that it takes no time of the producer's. What arrives is stamped with when it is due, and waits
for that: bytes stay in order, any number of them may be under way, and a connection carries as
much as without it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

READ = 1 << 18
#: Bytes under way in one direction, past which nothing more is read: far more than a connection
#: that is in use fills within the delay.
MOST = 1 << 24


class Direction:
    """One way of one connection: data from ``source`` that is not yet due at ``target``."""

    def __init__(self, source: socket.socket, target: socket.socket, delay: float) -> None:
        self.source = source
        self.target = target
        self.delay = delay
        self.waiting: deque[tuple[float, memoryview]] = deque()
        self.bytes = 0
        self.reading = True

    def read(self) -> None:
        try:
            data = self.source.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        # The end is delayed as well: nothing, which is sent as such.
        self.reading = bool(data)
        self.bytes += len(data)
        self.waiting.append((time.monotonic() + self.delay, memoryview(data)))

    def write(self, now: float) -> bool:
        """Send the data that is due; False if the connection is at its end."""
        while self.waiting and self.waiting[0][0] <= now:
            due, data = self.waiting.popleft()
            if not data:
                return False
            try:
                sent = self.target.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return False
            self.bytes -= sent
            if sent < len(data):
                self.waiting.appendleft((due, data[sent:]))
                break
        return True

    def close(self) -> None:
        self.source.close()
        self.target.close()


def serve(listener: socket.socket, upstream: tuple[str, int], delay: float, until: int) -> None:
    """Carry connections, until the file descriptor ``until`` has something to read."""
    directions: list[Direction] = []
    while True:
        now = time.monotonic()
        writable, due = [], []
        for each in directions:
            if each.waiting:
                if each.waiting[0][0] <= now:
                    writable.append(each.target)
                else:
                    due.append(each.waiting[0][0])
        sources = [each.source for each in directions if each.reading and each.bytes < MOST]
        readable: list[Any] = [until, listener, *sources]
        # Its timeout has microseconds; asyncio's and poll's have milliseconds.
        ready, free, _ = select.select(readable, writable, [], min(due) - now if due else None)
        if until in ready:
            return
        if listener in ready:
            directions += _accepted(listener, upstream, delay)
        for each in directions:
            if each.source in ready:
                each.read()
        now = time.monotonic()
        ended = [each for each in directions if each.target in free and not each.write(now)]
        for each in ended:
            each.close()
        if ended:
            directions = [each for each in directions if each.source.fileno() >= 0]


def _accepted(
    listener: socket.socket, upstream: tuple[str, int], delay: float
) -> tuple[Direction, ...]:
    near, _ = listener.accept()
    try:
        far = socket.create_connection(upstream)
    except OSError:
        near.close()
        return ()
    for each in (near, far):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        each.setblocking(False)
    return Direction(near, far, delay), Direction(far, near, delay)


def main(host: str, port: str, delay: str) -> None:
    # Timers of an ordinary process may be 50 us late, a fifth of the delay here.
    with contextlib.suppress(OSError):
        Path("/proc/self/timerslack_ns").write_text("1000")
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    serve(listener, (host, int(port)), float(delay), sys.stdin.fileno())


if __name__ == "__main__":
    main(*sys.argv[1:])
