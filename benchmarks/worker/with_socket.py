"""The limit: a socket that is sent requests encoded beforehand; answers are counted, not read."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Iterable
from typing import Any

from job import Job, Run, batches

#: The requests of redset; the raw socket sends the same.
CHUNK = 500
TAKE = 1000


class Link:
    def __init__(self, address: dict[str, Any]) -> None:
        if "unix_socket_path" in address:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(address["unix_socket_path"])
        else:
            self.socket = socket.create_connection((address["host"], address["port"]))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def wait(self, lines: int) -> None:
        """Read so many lines: every answer here has a known number, none holds a line's end."""
        begins = True  # The data may begin within a line, and its next byte is not a type.
        while lines > 0:
            answer = self.socket.recv(1 << 20)
            if not answer:
                raise ConnectionError("the server closed the connection")
            if (begins and answer.startswith(b"-")) or b"\n-" in answer:
                raise RuntimeError(f"the server refused: {answer[:200]!r}")
            lines -= answer.count(b"\n")
            begins = answer.endswith(b"\n")


def encoded(arguments: Iterable[bytes]) -> bytes:
    parts = [b"$%d\r\n%b\r\n" % (len(each), each) for each in arguments]
    return b"*%d\r\n" % len(parts) + b"".join(parts)


def dumped(item: Any) -> bytes:
    return json.dumps(item, sort_keys=True, separators=(",", ":")).encode()


def _adds(job: Job, chunk: int) -> list[bytes]:
    """ZADD requests in the order of the input, unsorted."""
    pairs = zip(job.scores(), job.items(), strict=True)
    members = [(b"%d" % score, dumped(item)) for score, item in pairs]
    head = (b"ZADD", job.name.encode())
    return [encoded((*head, *itertools.chain(*some))) for some in batches(members, chunk)]


def add_many(job: Job) -> Run:
    requests = _adds(job, job.chunk or CHUNK)
    link = Link(job.address)

    def run() -> int:
        # The answers are a few bytes each: the server never waits for them to be read.
        for request in requests:
            link.socket.sendall(request)
        link.wait(len(requests))
        return job.size

    return run


def _ask_each(job: Job, requests: list[bytes], lines: int) -> Run:
    link = Link(job.address)

    def run() -> int:
        for request in requests:
            link.socket.sendall(request)
            link.wait(lines)
        return job.size

    return run


def add(job: Job) -> Run:
    return _ask_each(job, _adds(job, 1), 1)


def pop(job: Job) -> Run:
    # An array of member and score, two lines each.
    return _ask_each(job, [encoded((b"ZPOPMIN", job.name.encode()))] * job.size, 5)


def take(job: Job) -> Run:
    num = job.chunk or TAKE
    name, last = job.name.encode(), b"%d" % (num - 1)
    request = (
        encoded((b"MULTI",))
        + encoded((b"ZRANGE", name, b"0", last))
        + encoded((b"ZREMRANGEBYRANK", name, b"0", last))
        + encoded((b"EXEC",))
    )
    # OK, QUEUED twice, the array of two, the array of members, how many were removed.
    return _ask_each(job, [request] * (job.size // num), 3 + 1 + 1 + 2 * num + 1)
