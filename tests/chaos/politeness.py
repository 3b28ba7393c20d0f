"""Judge limits, intervals, rests and groups by the server's own order of its steps.

MONITOR shows each command of each step, also those within scripts. Replayed are the payloads and
the leases of the set. A lease begins when its record gets an owner. It ends when the record is
removed, loses its owner or gets another one. The time of a start is its expiry less the ttl that
all calls of a run have. So it is the server's time in that step, whatever the machine does.
"""

from __future__ import annotations

import re
import socket
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import servers
from grouped import P, group_in, holder

from chaos.history import Operation

#: Own limits and intervals (in ms) that a run gives to these groups; None is the processes' one.
OWN: dict[str, tuple[int | None, int | None]] = {
    "slow": (1, 120),
    "wide": (5, None),
    "free": (0, 0),
}
#: Milliseconds between a call's begin in this process and its step, on either side.
TOLERANCE = 2.0
_WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|.)", re.DOTALL)
_NAMED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}


class Rest(NamedTuple):
    """A rest that a call began: its group, and in ms the call's begin, its end, the rest's."""

    group: str
    begin: float
    answered: float
    until: float


class Log:
    """The server's log of its commands, from the begin of the block to its end."""

    def __init__(self, server: servers.Server, path: Path) -> None:
        self._server, self._path = server, path
        self._mark = f"end {uuid.uuid4()}"
        self._socket = socket.socket(socket.AF_UNIX)
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Log:
        self._socket.connect(str(self._server.unix))
        self._socket.sendall(b"MONITOR\r\n")
        assert self._socket.recv(5) == b"+OK\r\n"
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.raw.echo(self._mark)
        self._thread.join(30)
        self._socket.close()
        assert not self._thread.is_alive()

    def _read(self) -> None:
        mark, last = self._mark.encode(), b""
        with open(self._path, "wb") as file:
            while mark not in last:
                part = self._socket.recv(1 << 20)
                file.write(part)
                last = last[-len(mark) :] + part
                if not part:
                    return

    def lines(self) -> Iterator[tuple[float, bool, list[bytes]]]:
        """Yield the ms of each command, whether it was a script's, and its words."""
        with open(self._path, "rb") as file:
            for line in file:
                head, _, rest = line.partition(b"] ")
                if rest:
                    when, _, who = head.partition(b" ")
                    words = [_plain(word) for word in _WORD.findall(rest)]
                    yield float(when.lstrip(b"+")) * 1000, who.endswith(b" lua"), words


def _plain(word: bytes) -> bytes:
    if b"\\" not in word:
        return word
    return _ESCAPE.sub(lambda found: _unescaped(found[1]), word)


def _unescaped(code: bytes) -> bytes:
    return bytes([int(code[1:], 16)]) if len(code) == 3 else _NAMED.get(code, code)


class Judge:
    """The replay of a log.

    Parameters
    ----------
    limit : int or None
        The largest limit of a process; None is no limit.
    interval : float
        The shortest interval of a process, in ms.
    ttl : float
        The time of all leases, in ms.
    """

    def __init__(
        self, limit: int | None, interval: float, ttl: float, rests: Iterable[Rest] = ()
    ) -> None:
        self._limit, self._interval, self._ttl = limit, interval, ttl
        self._rests: dict[str, list[Rest]] = defaultdict(list)
        for rest in rests:
            self._rests[rest.group].append(rest)
        #: Member to group of the stored payload, and to owner and group of the lease.
        self._payloads: dict[bytes, bytes] = {}
        self._owners: dict[bytes, tuple[bytes, bytes]] = {}
        self._held: dict[bytes, set[bytes]] = defaultdict(set)
        self._started: dict[bytes, float] = {}
        self._cleared = 0.0
        # Of the current step.
        self._starts: list[tuple[bytes, bytes]] = []
        self._expiries: dict[bytes, float] = {}
        self._touched: set[bytes] = set()
        self.starts, self.steps = 0, 0
        #: The most leases of each group, and the smallest gap in ms.
        self.most: Counter[str] = Counter()
        self.gaps: dict[str, float] = {}
        self.wrong: list[str] = []

    def _own(self, group: bytes) -> tuple[int | None, float]:
        limit, interval = OWN.get(group.decode(), (None, None))
        most = self._limit if limit is None else limit or None
        return most, self._interval if interval is None else interval

    def replay(self, log: Log) -> None:
        for when, inner, words in log.lines():
            if not inner:
                self._end_step()
                self.steps += 1
            self._command(when, words)
        self._end_step()

    def _command(self, when: float, words: list[bytes]) -> None:
        name, keys = words[0].upper(), words[1:]
        if name in (b"DEL", b"UNLINK", b"FLUSHALL", b"RENAME"):
            self._removed(when, name, keys)
        elif len(words) < 3:
            return
        elif words[1] == b"%b:items" % P.encode():
            self._item(name, words[2:])
        elif words[1] == b"%b:leases" % P.encode():
            self._lease(name, words[2:])
        elif words[1] == b"%b:leased" % P.encode() and name == b"ZADD":
            pairs = [word for word in words[2:] if word.upper() not in (b"XX", b"NX", b"GT", b"LT")]
            self._expiries |= {
                member: float(score) for score, member in zip(pairs[::2], pairs[1::2], strict=True)
            }

    def _removed(self, when: float, name: bytes, keys: list[bytes]) -> None:
        if name == b"FLUSHALL" or b"%b:leases" % P.encode() in keys:
            self._owners.clear()
            self._held.clear()
            self._started.clear()
            self._cleared = when
        if name == b"FLUSHALL" or b"%b:items" % P.encode() in keys:
            self._payloads.clear()

    def _item(self, name: bytes, words: list[bytes]) -> None:
        if name in (b"HSET", b"HMSET", b"HSETNX"):
            for member, stored in zip(words[::2], words[1::2], strict=True):
                self._payloads[member] = group_in(stored)
        elif name == b"HDEL":
            for member in words:
                self._payloads.pop(member, None)

    def _lease(self, name: bytes, words: list[bytes]) -> None:
        if name in (b"HSET", b"HMSET"):
            for member, value in zip(words[::2], words[1::2], strict=True):
                self._own_record(member, holder(value))
        elif name == b"HDEL":
            for member in words:
                self._own_record(member, None)

    def _own_record(self, member: bytes, now: tuple[bytes, bytes] | None) -> None:
        before = self._owners.pop(member, None)
        if before is not None:
            self._held[before[1]].discard(member)
        if now is None:
            return
        self._owners[member] = now
        self._held[now[1]].add(member)
        self._touched.add(now[1])
        if before is None or before[0] != now[0]:
            self._starts.append((member, now[1]))

    def _end_step(self) -> None:
        for group in self._touched:
            num, (most, _) = len(self._held[group]), self._own(group)
            self.most[group.decode()] = max(self.most[group.decode()], num)
            if group and most is not None and num > most:
                self.wrong.append(f"{group!r} has {num} leases, and its limit is {most}")
        for member, group in self._starts:
            self._start(member, group)
        self._starts, self._touched, self._expiries = [], set(), {}

    def _start(self, member: bytes, group: bytes) -> None:
        self.starts += 1
        stored = self._payloads.get(member)
        if stored is not None and stored != group:
            self.wrong.append(f"{member!r} was handed out of {group!r}, and is in {stored!r}")
        if not group or member not in self._expiries:
            return
        now, name = self._expiries[member] - self._ttl, group.decode()
        before, (_, interval) = self._started.get(group), self._own(group)
        if interval and before is not None:
            self.gaps[name] = min(self.gaps.get(name, 1e9), now - before)
            if now - before < interval:
                self.wrong.append(f"{group!r} started after {now - before} ms of {interval}")
        for rest in self._rests[name]:
            early = rest.answered + TOLERANCE < now < rest.until - TOLERANCE
            if early and self._cleared < rest.begin:
                self.wrong.append(f"{group!r} started {rest.until - now:.1f} ms before its rest")
        self._started[group] = now


def rests(history: Iterable[Operation]) -> Iterator[Rest]:
    """Yield the rests that the calls of a history began for sure."""
    clock = (time.time() - time.monotonic()) * 1000
    for each in history:
        if each.state != "done" or "rest" not in each.what:
            continue
        names, seconds = each.what["rest"]
        if each.do == "pause" or each.what.get("ours") == len(names):
            begin, end = (clock + 1000 * at for at in (each.begin, each.end))
            for name in set(names):
                yield Rest(name, begin, end, begin + 1000 * seconds)
