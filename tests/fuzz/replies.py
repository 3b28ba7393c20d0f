"""Hostile replies: a fake server sends impossible ones, and every operation bears it.

A case is one reply to one request of a set's. Some are replies that the step can have. Most are
changed replies, replies of another kind, or bytes that are not a reply. The call then returns a
result of its documented type, or raises a documented error. It ends, and the next command on the
client's pool gets its own reply.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import logging
import math
import operator
import os
import random
import re
import shutil
import socket
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

import blocking
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import redset.asyncio
from fuzz.report import Report
from redset import Key, ScheduledSet, SortedSet, scripts
from redset.exceptions import AddError, RedsetError
from redset.serializers import JSONSerializer

#: Seconds that a client waits for a reply.
TIMEOUT = 1.0


# --- replies


class Raw(bytes):
    """Bytes that are sent as they are; the connection ends after them."""


class Status(bytes):
    """A status, such as OK."""


class Failure(bytes):
    """An error."""


def resp(value: Any, resp3: bool) -> bytes:
    """Write a reply in RESP."""
    if isinstance(value, Raw):
        return bytes(value)
    if value is None:
        return b"_\r\n" if resp3 else b"$-1\r\n"
    if value is True or value is False:
        return b"#t\r\n" if value else b"#f\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, float):
        return b",%s\r\n" % repr(value).encode()
    if isinstance(value, (Status, Failure)):
        return b"%c%b\r\n" % (b"+" if isinstance(value, Status) else b"-", value)
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    if isinstance(value, dict):
        head, value = b"%%%d\r\n" % len(value), [each for pair in value.items() for each in pair]
    else:
        head = b"*%d\r\n" % len(value)
    return head + b"".join(resp(each, resp3) for each in value)


ERRORS = (
    b"ERR no", b"WRONGTYPE Operation", b"OOM command not allowed", b"NOSCRIPT No matching script",
    b"READONLY You can't write", b"BUSY Redis is busy", b"LOADING Redis is loading", b"MOVED 1 a:1",
    b"EXECABORT Transaction discarded", b"NOPERM no", b"ERR Error running script: OOM x", b"",
    b"\xff",
)  # fmt: skip
GARBAGE = (
    b"", b"\r\n", b"?\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$5\r\nab", b"$abc\r\n",
    b"$-7\r\n", b":1x\r\n", b":\r\n", b"*-5\r\n", b"*2\r\n:1\r\n", b"$3\r\nabcdef\r\n",
    b"*1\r\n$-2\r\n", b"\0" * 40, b":99999999999999999999\r\n", b"$9223372036854775807\r\n",
    b"$999999999999\r\nab", b"(12\r\n", b"*1000000\r\n:1\r\n", b"*1\r\n" * 20 + b":1\r\n",
    b"%1\r\n:1\r\n", b"~2\r\n:1\r\n:1\r\n", b",nan\r\n", b",1e\r\n", b"#x\r\n", b"_\r\n",
    b"=5\r\ntxt:a\r\n", b"!3\r\nERR\r\n", b"+OK\r", b"-\r\n", b"+\r\n",
)  # fmt: skip
SCALARS = (
    0, 1, -1, 2, 7, 500, 2**31, 2**63 - 1, -(2**63), None, b"", b"0", b"1", b"a", b"\xff", b"nan",
    b"inf", b"1.5", b"EPOCH", b"OPTIONS", b"FULL", b"NAME", b"0123456789abcdef", Status(b"OK"), 1.5,
    math.inf, True,
)  # fmt: skip


class Answers:
    """Draws a reply to a request: seldom a possible one, else an impossible one."""

    def __init__(self, seed: str, resp3: bool) -> None:
        self.rng = random.Random(seed)
        self.resp3 = resp3

    def one_in(self, number: int) -> bool:
        return self.rng.random() * number < 1

    def reply(self, command: list[bytes]) -> Any:
        draw = self.rng.random()
        if draw < 0.35:
            return self.possible(command)
        if draw < 0.8:
            return self.changed(self.possible(command))
        if draw < 0.9:
            return self.anything(0)
        if draw < 0.95:
            return Failure(self.rng.choice(ERRORS))
        return self.cut(command)

    def possible(self, command: list[bytes]) -> Any:
        """A reply that a server might send."""
        name = command[0].upper()
        make = STEPS.get(NAMES.get(command[1], "")) if name == b"EVALSHA" else COMMANDS.get(name)
        return self.anything(1) if make is None else make(self, command)

    def changed(self, value: Any) -> Any:
        """Change something, somewhere in a reply."""
        if isinstance(value, list) and value and not self.one_in(4):
            at = self.rng.randrange(len(value))
            how = self.rng.randrange(5)
            if how == 0:
                return value[:at] + value[at + 1 :]
            if how == 1:
                return value[:at] + [self.anything(1)] + value[at:]
            if how == 2:
                return value + value[at:]
            return value[:at] + [self.changed(value[at])] + value[at + 1 :]
        if isinstance(value, int) and self.one_in(2):
            return value + self.rng.choice((-1, 1, 10, 1000, -1000))
        return self.anything(1)

    def anything(self, depth: int) -> Any:
        if depth > 3 or self.one_in(2):
            value = self.rng.choice(SCALARS)
            return value if self.resp3 or type(value) not in (bool, float) else None
        few = [self.anything(depth + 1) for _ in range(self.rng.randrange(5))]
        if self.resp3 and self.one_in(6):
            return {b"%d" % at: value for at, value in enumerate(few)}
        return few

    def cut(self, command: list[bytes]) -> Raw:
        """Bytes that end before a reply does, or are none."""
        if self.one_in(2):
            return Raw(self.rng.choice(GARBAGE))
        whole = resp(self.possible(command), self.resp3)
        at = self.rng.randrange(len(whole))
        if self.one_in(2):
            return Raw(whole[:at])
        return Raw(whole[:at] + bytes(self.rng.choices(b"*$:-+\r\n019", k=3)) + whole[at + 1 :])

    def score(self) -> Any:
        return self.rng.choice((b"0", b"1.5", b"-3", b"inf", b"1700000000.25"))

    def member(self) -> bytes:
        return self.rng.choice(
            (b"a", b'{"url":"a"}', b'{"url":"b","n":1}', b"[1", b"\xff", b"", b"7")
        )

    def pairs(self, most: int) -> list[Any]:
        found: list[Any] = []
        for _ in range(min(most, self.rng.randrange(4))):
            found += [None if self.one_in(20) else self.member(), self.score()]
        return found

    def count(self, most: int = 5) -> int:
        return self.rng.randrange(most + 1)


def _page(draw: Answers, command: list[bytes]) -> list[Any]:
    num = draw.rng.choice((0, 1, 3))
    members = [draw.member() for _ in range(num)]
    keyed = command[2] == b"3"
    return [members, [draw.score() for _ in members], [draw.member() for _ in members if keyed]]


def _add(draw: Answers, command: list[bytes]) -> list[Any]:
    draws = draw.rng.random()
    if draws < 0.1:
        return [
            draw.rng.choice((b"EPOCH", b"OPTIONS")),
            draw.rng.choice((b"", b"0123456789abcdef")),
        ]
    if draws < 0.2:
        return draw.rng.choice(([b"NAME"], [b"FULL", 7]))
    added, updated = draw.rng.choice(((0, 0), (1, 0), (0, 1), (2, 0)))
    return [added, updated, draw.rng.choice((b"", b"a", b"u", b"ar", b"aa", b"rrr"))]


def _epoch_or(make: Callable[[Answers, list[bytes]], Any]) -> Callable[[Answers, list[bytes]], Any]:
    return lambda draw, command: (
        [b"EPOCH", draw.rng.choice((b"", b"fedcba9876543210"))]
        if draw.one_in(6)
        else make(draw, command)
    )


def _letters(draw: Answers, command: list[bytes]) -> list[Any]:
    fields = [b"raw", draw.member(), b"score", b"", b"reason", b"\xff", b"attempts", b"0"]
    return [[b"%d-0" % (1700000000000 + at), fields] for at in range(draw.count(2))]


def _stats(draw: Answers, command: list[bytes]) -> list[Any]:
    lowest = draw.rng.choice((b"", b"1.5"))
    row = [3, 2, 0, 1, draw.count(), lowest, b"1700000000.000001", 4096, 0, draw.count(1)]
    return row + [draw.count() for _ in range(3 if command[2] == b"17" else 0)]


def _taken(draw: Answers, command: list[bytes]) -> list[Any]:
    return draw.pairs(int(command[3 + int(command[2])]))


def _lease(draw: Answers, command: list[bytes]) -> list[Any]:
    rows: list[Any] = []
    num = draw.count(3)
    for _ in range(num):
        rows += [draw.member(), draw.score()]
    heads = [b"1700000000000", draw.count(1), draw.count(1), draw.count(1), draw.count(1)]
    attempts = [draw.count(4), draw.count()] if draw.one_in(2) else []
    payloads = [[draw.member() for _ in range(num)]] if command[2] in (b"9", b"17") else []
    if num and draw.one_in(2):
        return [*rows, *itertools.chain.from_iterable(payloads), heads[0]]
    return [*heads, rows, attempts, *payloads]


def _settle(draw: Answers, command: list[bytes]) -> list[Any]:
    # After the keys come two arguments, and in a set with groups three more.
    keys = int(command[2])
    groups = int(command[keys + (8 if keys == 18 else 5)])
    if groups == 1 and draw.one_in(2):
        return draw.count(1)
    return [[draw.count(1) for _ in range(groups)], draw.rng.choice((b"", _add(draw, command)))]


def _export(draw: Answers, command: list[bytes]) -> list[Any]:
    rows: list[Any] = []
    num = draw.count(2)
    for _ in range(num):
        rows += [draw.score(), draw.member(), b"%d" % draw.count(), b"\xff", draw.member()]
    return [draw.score(), draw.member(), num, *rows]


def _recall(draw: Answers, command: list[bytes]) -> list[Any]:
    behind = draw.rng.choice((0, int(command[-2]) + 10 if command[-2].isdigit() else 10))
    return [behind, draw.rng.choice(([], [b"1", b"-9223372036854775808"], [b"\xff"]))]


def _leased(draw: Answers, command: list[bytes]) -> list[Any]:
    rows = range(draw.count(2))
    payloads = [draw.member() for _ in rows] if command[2] == b"4" else []
    expiries = [b"%d" % (1700000000000 + at) for at in rows]
    members = [draw.member() for _ in rows]
    rest = [[b"0" for _ in rows], [draw.score() for _ in rows], [b"" for _ in rows]]
    return [members, expiries, payloads, 0, *rest, [b"abcdef" for _ in rows]]


def _groups(draw: Answers, command: list[bytes]) -> list[Any]:
    rows: list[Any] = []
    for _ in range(draw.count(2)):
        rest = draw.rng.choice((b"", b"1700000000000", b"inf"))
        rows += [draw.member(), draw.count(), draw.count(), draw.count(1), rest, 1, b"5000"]
    return [b"0", *rows]


#: Possible replies to each command and each step.
COMMANDS: dict[bytes, Callable[[Answers, list[bytes]], Any]] = {
    b"ZADD": lambda draw, command: draw.count(2),
    b"ZCARD": lambda draw, command: draw.count(),
    b"ZSCORE": lambda draw, command: draw.rng.choice((None, draw.score())),
    b"ZMSCORE": lambda draw, command: [draw.score() for _ in command[2:]],
    b"ZREM": lambda draw, command: draw.count(len(command) - 2),
    b"ZPOPMIN": lambda draw, command: draw.pairs(1),
    b"ZRANGE": lambda draw, command: draw.pairs(4)[:: 1 if b"WITHSCORES" in command else 2],
    b"ZREMRANGEBYRANK": lambda draw, command: Status(b"QUEUED"),
    b"MULTI": lambda draw, command: Status(b"OK"),
    b"EXEC": lambda draw, command: [draw.pairs(4)[:: draw.rng.choice((1, 2))], draw.count()],
    b"UNLINK": lambda draw, command: draw.count(1),
    b"HGETALL": lambda draw, command: [b"w", b'{"pid": 7, "seen": "x"}'][: 2 * draw.count(1)],
    b"HDEL": lambda draw, command: draw.count(1),
    b"HSCAN": lambda draw, command: [
        b"0",
        draw.rng.choice(([], [b"a", b"3 -"], [b"\xff", b"\xff"])),
    ],
    b"HMGET": lambda draw, command: [draw.rng.choice((None, draw.member())) for _ in command[2:]],
    b"GET": lambda draw, command: draw.rng.choice((None, b"x", b'{"why": "down", "at": []}')),
    b"DEL": lambda draw, command: draw.count(1),
    b"EXISTS": lambda draw, command: draw.count(1),
    b"HGET": lambda draw, command: draw.rng.choice((None, b"0123456789abcdef")),
    b"TIME": lambda draw, command: [b"1700000000", b"123456"],
    b"XLEN": lambda draw, command: draw.count(),
    b"XRANGE": _letters,
}
STEPS: dict[str, Callable[[Answers, list[bytes]], Any]] = {
    "add": _add,
    "algebra": lambda draw, command: draw.rng.choice(
        (
            [0, 0, b"", b"", 0, 0, 0],
            [2, 1, draw.score(), draw.member(), 1, 0, 1],
            [b"NAME"],
            [b"FULL", 10],
        )
    ),
    "restore_begin": lambda draw, command: [draw.count(3), b"0123456789abcdef", draw.count(), 0],
    "export": _export,
    "restore_letters": lambda draw, command: draw.count(),
    "restore_items": lambda draw, command: draw.count(),
    "export_memory": _recall,
    "restore_memory": lambda draw, command: draw.count(),
    "available": lambda draw, command: draw.count(),
    "bury": lambda draw, command: 1,
    "discard_range": lambda draw, command: draw.count(),
    "clear": lambda draw, command: [draw.count(), draw.count(1), 0][: draw.rng.choice([2, 2, 3])],
    "discard": lambda draw, command: draw.count(2),
    "discard_and_forget": _epoch_or(lambda draw, command: draw.count(2)),
    "forget": _epoch_or(lambda draw, command: draw.count(2)),
    "finished": lambda draw, command: [draw.count(1), draw.count(1)],
    "lease": _lease,
    "lease_in_turn": _lease,
    "take_in_turn": _taken,
    "watch_turns": lambda draw, command: [draw.count(1), draw.rng.choice((-1, 0, 7))],
    "groups": _groups,
    "set_group": lambda draw, command: draw.rng.choice((1, [b"OPTIONS", b"key=no"])),
    "pause_group": lambda draw, command: draw.rng.choice((1, [b"OPTIONS", b"key=no"])),
    "restore_limits": lambda draw, command: draw.count(),
    "leased": _leased,
    "ack": lambda draw, command: draw.count(2) - 1,
    "settle": _settle,
    "get": lambda draw, command: draw.rng.choice((None, draw.member())),
    "peek": lambda draw, command: draw.pairs(3),
    "move": _epoch_or(
        lambda draw, command: draw.rng.choice(
            (
                0,
                [1, 1, 1, 0, 0],
                [0, 3, 0, 0, 2],
                [b"NAME"],
                [b"FULL", 10],
                [b"OPTIONS", b""],
                [b"SCORE", b"0.5"],
            )
        )
    ),
    "page": _page,
    "pause": lambda draw, command: draw.count(),
    "report": lambda draw, command: [draw.rng.choice((b"", b"x")), draw.count(1)],
    "register": lambda draw, command: draw.count(1),
    "purge": lambda draw, command: draw.count(),
    "requeue": lambda draw, command: draw.rng.choice(
        ([[1, -1]], [[0, draw.member()]], [b"NAME"], [b"OPTIONS", b"key=no"])
    ),
    "put_back": lambda draw, command: draw.count(1),
    "server": lambda draw, command: [
        b"1700000000",
        draw.rng.choice((b"", b"role:slave\r\n", b"redis_version:6.0.1\r\n\xff:1")),
    ],
    "seen": _epoch_or(lambda draw, command: draw.rng.choice((b"0", b"1", b"01", b"011"))),
    "stats": _stats,
    "sweep": lambda draw, command: 0 if draw.one_in(2) else draw.count(),
    "take": _taken,
    "watch": lambda draw, command: [draw.count(1), draw.rng.choice((-1, 0, 7))],
}
NAMES = {scripts.script(name, grouped).sha: name for name in STEPS for grouped in (False, True)}
#: A connection's setup and the probes get a real server's replies.
HELLO = {b"server": b"redis", b"version": b"7.0.0", b"proto": 3, b"id": 1, b"mode": b"standalone",
         b"role": b"master", b"modules": []}  # fmt: skip


class Stop:
    """An event that is set after so many looks."""

    def __init__(self, looks: int) -> None:
        self._looks = looks

    def is_set(self) -> bool:
        self._looks -= 1
        return self._looks < 0


class Server:
    """Replies on a unix socket, on request."""

    def __init__(self) -> None:
        self._directory = tempfile.mkdtemp(prefix="fuzz-", dir="/tmp")
        self.path = os.path.join(self._directory, "s")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        #: Draws the next replies.
        self.answers = Answers("", False)
        #: The number of hostile replies that were sent, and the last one.
        self.sent = 0
        self.last: Any = None
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        # Closing a listener does not wake its accept; a connection does.
        listener, self._listener = self._listener, None  # type: ignore[assignment]
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(self.path)
        listener.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _accept(self) -> None:
        while (listener := self._listener) is not None:
            try:
                link, _ = listener.accept()
            except OSError:  # It is closed.
                return
            threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        with link:
            file = link.makefile("rb")
            try:
                while command := _command(file):
                    answer = self._answer(command)
                    link.sendall(resp(answer, self.answers.resp3))
                    if isinstance(answer, Raw):
                        return
            except OSError:
                pass

    def _answer(self, command: list[bytes]) -> Any:
        name = command[0].upper()
        if name == b"HELLO":
            return HELLO
        if name in (b"CLIENT", b"AUTH", b"SELECT"):
            return Status(b"OK")
        if name == b"ECHO":
            return command[1]
        if name == b"SCRIPT" and not self.answers.one_in(50):
            return hashlib.sha1(command[2], usedforsecurity=False).hexdigest().encode()
        self.sent += 1
        self.last = self.answers.reply(command)
        return self.last


def _command(file: Any) -> list[bytes]:
    head = file.readline()
    if not head:
        return []
    found = []
    for _ in range(int(head[1:])):
        size = int(file.readline()[1:])
        found.append(file.read(size + 2)[:-2])
    return found


# --- calls


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in kinds


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def _counts(value: Any) -> bool:
    return all(map(_whole, value))


def _listed(check: Callable[[Any], bool], length: int | None = None) -> Callable[[Any], bool]:
    return lambda value: (
        type(value) is list and length in (None, len(value)) and all(map(check, value))
    )


def _item(value: Any) -> bool:
    return True


_number = _is(float)
_maybe_number = _is(float, type(None))
_flag = _is(bool)
THREE = [{"url": "a", "n": n} for n in range(3)]


def _added(result: Any) -> bool:
    return all(map(_whole, result)) and sum(result) == 3


def _buffered(jobs: Any) -> None:
    with jobs.buffered(max_items=2) as writer:
        writer.add({"url": "a"}, 5)
        writer.add({"url": "b"}, nx=True)
        writer.ack(jobs.lease())


def _other(jobs: Any) -> SortedSet[Any]:
    options = {"key": jobs._ctx.codec.key, "ties": jobs._ctx.options.ties or None}
    if jobs._ctx.options.grouped:
        options |= {"key": "url" if jobs._ctx.options.has_key else None, "group": "url"}
        options["serializer"] = jobs.serializer
    return SortedSet(jobs.redis, "others", **options)


def _check(jobs: Any) -> Any:
    if isinstance(jobs, SortedSet):
        return redset.check_server(jobs.redis, jobs.name)
    return blocking.wait(redset.asyncio.check_server(jobs.redis, jobs.name))


def _lines(jobs: Any) -> list[str]:
    """Return the export of a set of the same options."""
    keyed, remember = jobs._ctx.options.keyed, jobs._ctx.options.remember
    epoch = "0123456789abcdef" if remember else ""
    grouped = jobs._ctx.options.grouped
    has_key = jobs._ctx.options.has_key
    head = {"redset": 1, "name": "jobs", "key": has_key, "remember": remember, "epoch": epoch}
    head["group"] = grouped
    item: dict[str, Any] = {"item": '{"url":"a"}', "score": 1, "attempts": 1, "error": "no"}
    if keyed:
        item["digest"] = jobs._ctx.codec.identity({"url": "a"}).hex()
    dead = {"dead": "x", "id": "1700000000000-0", "score": None, "reason": "no", "attempts": 1}
    known = {"known": ["1", "-5"] if remember == "ever" else [["00" * 16, 1800000000000]]}
    limits = {"limits": [["a", "3 -"]]}
    rows = [head, item, dead, *[known] * bool(remember), *[limits] * grouped, {"end": 1}]
    return [json.dumps(row) for row in rows]


#: Each operation, and whether its result is one.
OPERATIONS: list[tuple[str, Callable[[Any], Any], Callable[[Any], bool]]] = [
    ("add", lambda jobs: jobs.add({"url": "a"}, 5), _maybe_number),
    ("add nx", lambda jobs: jobs.add({"url": "a"}, nx=True), _maybe_number),
    ("add lt", lambda jobs: jobs.add({"url": "a"}, lt=True), _maybe_number),
    ("add_many", lambda jobs: jobs.add_many(THREE), _added),
    ("add_many xx", lambda jobs: jobs.add_many(iter(THREE), [1, 2, 3], xx=True), _added),
    ("add_new", lambda jobs: list(jobs.add_new(THREE)), _listed(_item)),
    ("buffered", lambda jobs: _buffered(jobs), lambda result: result is None),
    ("pop", lambda jobs: jobs.pop(), _item),
    ("take", lambda jobs: jobs.take(4), _listed(_item)),
    ("take 1", lambda jobs: jobs.take(1), _listed(_item)),
    (
        "take with scores",
        lambda jobs: jobs.take(4, with_scores=True),
        _listed(lambda pair: type(pair) is tuple and type(pair[1]) is float),
    ),
    ("take wait", lambda jobs: jobs.take(4, wait=0.001), _listed(_item)),
    ("peek", lambda jobs: jobs.peek(), _item),
    ("peek last", lambda jobs: jobs.peek(-1), _item),
    ("peek_many", lambda jobs: jobs.peek_many(3), _listed(_item)),
    ("peek_score", lambda jobs: jobs.peek_score(), _maybe_number),
    ("score", lambda jobs: jobs.score({"url": "a"}), _maybe_number),
    ("scores", lambda jobs: jobs.scores(THREE), _listed(_maybe_number, 3)),
    ("get", lambda jobs: jobs.get(Key("a")), _item),
    ("contains", lambda jobs: jobs.contains({"url": "a"}), _flag),
    ("in", lambda jobs: {"url": "a"} in jobs, _flag),
    ("discard", lambda jobs: jobs.discard({"url": "a"}), _flag),
    ("discard_many", lambda jobs: jobs.discard_many(THREE), _whole),
    ("remove", lambda jobs: jobs.remove({"url": "a"}), _is(type(None))),
    ("size", lambda jobs: jobs.size(), _whole),
    ("len", len, _whole),
    ("bool", bool, _flag),
    ("available", lambda jobs: getattr(jobs, "available", jobs.size)(), _whole),
    ("lease", lambda jobs: [lease.item for lease in jobs.lease(3)], _listed(_item)),
    ("lease wait", lambda jobs: list(jobs.lease(3, wait=0.001)), _listed(_item)),
    ("ack", lambda jobs: jobs.ack(jobs.lease(3)), _whole),
    ("ack add", lambda jobs: [lease.ack(add=THREE) for lease in jobs.lease()], _listed(_whole)),
    ("fail", lambda jobs: jobs.fail(jobs.lease(3), "no"), _whole),
    ("release", lambda jobs: jobs.release(jobs.lease(3), score=5), _whole),
    ("renew", lambda jobs: jobs.renew(jobs.lease(3), 5), _whole),
    ("leased", lambda jobs: list(jobs.leased()), _listed(lambda row: type(row[1]) is float)),
    ("finished", lambda jobs: jobs.finished(), _flag),
    ("consume", lambda jobs: jobs.consume(lambda item: THREE, stop=Stop(3)), _counts),
    # Not list(jobs), which makes room for the number of items that the reply states.
    ("iterate", lambda jobs: [each for each in jobs], _listed(_item)),  # noqa: C416
    ("update", lambda jobs: jobs.update(_other(jobs)), lambda result: result is None),
    ("move_many", lambda jobs: jobs.move_many(THREE, _other(jobs)), _whole),
    ("^=", lambda jobs: operator.ixor(jobs, _other(jobs)), lambda result: True),
    ("-= items", lambda jobs: operator.isub(jobs, THREE), lambda result: True),
    ("&= items", lambda jobs: operator.iand(jobs, THREE), lambda result: True),
    ("isdisjoint", lambda jobs: jobs.isdisjoint(_other(jobs)), _flag),
    ("isdisjoint items", lambda jobs: jobs.isdisjoint(THREE), _flag),
    ("<=", lambda jobs: jobs <= _other(jobs), _flag),
    ("between", lambda jobs: [each for each in jobs.between(0, 5)], _listed(_item)),  # noqa: C416
    ("between take", lambda jobs: jobs.between(0, 5).take(3), _listed(_item)),
    ("between discard", lambda jobs: jobs.between(0, 5).discard(), _whole),
    ("pause", lambda jobs: jobs.pause("why"), lambda result: result is None),
    ("resume", lambda jobs: jobs.resume(), _flag),
    ("paused", lambda jobs: jobs.paused, lambda result: result is None or _item(result.why)),
    ("workers", lambda jobs: jobs.workers(), _listed(lambda worker: type(worker.pid) is int)),
    ("stats", lambda jobs: jobs.stats(), lambda stats: all(map(_whole, stats[:5]))),
    ("export", lambda jobs: list(jobs.export()), _listed(_is(str))),
    ("restore", lambda jobs: jobs.restore(_lines(jobs)), _whole),
    ("check_server", lambda jobs: _check(jobs), _listed(lambda each: type(each) is str)),
    ("clear", lambda jobs: jobs.clear(), _whole),
    ("clear if_finished", lambda jobs: jobs.clear(if_finished=True), _whole),
    (
        "dead",
        lambda jobs: [each for each in jobs.dead],  # noqa: C416
        _listed(lambda letter: type(letter.raw) is bytes),
    ),
    ("dead size", lambda jobs: jobs.dead.size(), _whole),
    ("dead purge", lambda jobs: jobs.dead.purge(), _whole),
    ("dead requeue", lambda jobs: jobs.dead.requeue(["1700000000000-0", "1-1"]), _whole),
]
REMEMBERING: list[tuple[str, Callable[[Any], Any], Callable[[Any], bool]]] = [
    ("add again", lambda jobs: jobs.add({"url": "a"}, again=True), _maybe_number),
    ("add aside", lambda jobs: jobs.add_many(THREE, remember=False), _added),
    ("discard forget", lambda jobs: jobs.discard({"url": "a"}, forget=True), _flag),
    ("forget", lambda jobs: jobs.forget({"url": "a"}), _flag),
    ("forget_many", lambda jobs: jobs.forget_many(THREE), _whole),
    (
        "known",
        lambda jobs: (jobs.add_many(THREE), jobs.known({"url": "a"}))[1],
        _is(bool, type(None)),
    ),
    ("seen", lambda jobs: jobs.seen({"url": "a"}), _flag),
    ("seen_many", lambda jobs: jobs.seen_many(THREE), _listed(_flag, 3)),
    ("clear keep_memory", lambda jobs: jobs.clear(keep_memory=True), _whole),
]
GROUPED: list[tuple[str, Callable[[Any], Any], Callable[[Any], bool]]] = [
    ("set_group", lambda jobs: jobs.set_group("a", limit=3), lambda result: result is None),
    ("pause_group", lambda jobs: jobs.pause_group("a", 5), lambda result: result is None),
    (
        "groups",
        lambda jobs: [each for each in jobs.groups()],  # noqa: C416
        _listed(lambda group: _whole(group.queued)),
    ),
]
#: The methods that the operations above call.
METHODS = {
    "add", "add_many", "add_new", "between", "buffered",
    "pop", "take", "peek", "peek_many", "peek_score", "score",
    "scores", "get", "contains", "discard", "discard_many", "remove", "size", "available",
    "lease", "ack", "fail", "release", "renew", "leased", "finished", "consume",
    "update", "isdisjoint", "move_many", "export", "restore", "stats", "clear", "dead",
    "pause", "resume", "paused", "workers", "set_group", "pause_group", "groups",
    "forget", "forget_many", "known", "seen", "seen_many",
}  # fmt: skip
SHAPES: list[tuple[type[SortedSet[Any]], dict[str, Any]]] = [
    (SortedSet, {}),
    (SortedSet, {"key": "url"}),
    (SortedSet, {"remember": True, "max_size": 10}),
    (SortedSet, {"key": "url", "remember": 60}),
    (SortedSet, {"ties": "fifo"}),
    (SortedSet, {"key": "url", "remember": True, "ties": "lifo"}),
    (ScheduledSet, {}),
    (ScheduledSet, {"key": "url", "remember": True}),
    (SortedSet, {"key": "url", "group": "url"}),
    (SortedSet, {"group": "url", "remember": True, "serializer": JSONSerializer()}),
    (ScheduledSet, {"key": "url", "group": "url", "remember": 60}),
]
#: Beginnings of other errors that a set raises for a server's reply.
SAID = (
    "the set 'jobs' must be empty",
    "the set 'jobs' was cleared",
    "the set 'jobs' has part of other lines",
    "items of 'jobs' must have",
)
#: Replies after which pop and others may raise that the set is empty.
EMPTY = ([], 0, b"0")
#: Bytes that begin like one of these. The last is of a set without a returned lease.
RAW_EMPTY = re.compile(rb"\*0\r\n|:0\r\n|\*2\r\n:\d{1,3}\r\n:0\r\n")


def clients(path: str) -> list[tuple[str, redis.Redis]]:
    """Clients of both protocols and both parsers, that do not repeat a failed request."""
    found = []
    for parser in ("hiredis", "Python"):
        for protocol in (2, 3):
            client = redis.Redis(
                unix_socket_path=path,
                protocol=protocol,
                socket_timeout=TIMEOUT,
                retry=Retry(NoBackoff(), 0),
            )
            if parser == "Python":
                parsers = importlib.import_module("redis._parsers")
                kind = parsers._RESP3Parser if protocol == 3 else parsers._RESP2Parser
                client.connection_pool.connection_kwargs["parser_class"] = kind
            found.append((f"RESP{protocol}, {parser} parser", client))
    return found


def run(count: int, seed: int, first: int = 0) -> Report:
    """Run so many cases, on both protocols in turn."""
    report = Report("replies", count, seed)
    server = Server()
    fakes = clients(server.path)
    kinds: Counter[str] = Counter()
    log = logging.getLogger("redset")
    disabled, log.disabled = log.disabled, True
    try:
        for number in report.cases(first):
            before = server.sent
            way, client = fakes[number % len(fakes)]
            server.answers = Answers(f"{seed}:{number}", way.startswith("RESP3"))
            rng = server.answers.rng
            cls, options = rng.choice(SHAPES)
            remembering = "remember" in options
            more = REMEMBERING * remembering + GROUPED * ("group" in options)
            name, call, check = rng.choice(OPERATIONS + more)
            jobs: SortedSet[Any] = cls(client, "jobs", **options)
            label = f"{cls.__name__}({options}).{name} on {way}"
            try:
                result = call(jobs)
            except Exception as error:
                kinds[_named(error)] += 1
                if wrong := misplaced(error, server.last, "Python" in way):
                    report.fail(number, f"{label} {wrong}, last reply {server.last!r}")
            else:
                kinds["a result"] += 1
                if not check(result):
                    report.fail(number, f"{label} gave {result!r}, last reply {server.last!r}")
            if wrong := left_behind(client, b"%d" % number):
                report.fail(number, f"{label} {wrong}, last reply {server.last!r}")
                client.connection_pool.disconnect()
            report.replies += server.sent - before
    finally:
        log.disabled = disabled
        for _, client in fakes:
            client.close()
        server.close()
    report.outcomes.update(kinds)
    return report


def left_behind(client: redis.Redis, probe: bytes) -> str:
    """Return the fault of the next connection that the pool lends."""
    try:
        try:
            echoed = client.execute_command("ECHO", probe)
        except redis.ConnectionError:
            # The server ended it after a whole reply, which the client could not notice.
            echoed = client.execute_command("ECHO", probe)
    except Exception as error:
        return f"left a connection that fails: {error!r}"
    return "" if echoed == probe else f"left a reply behind: {echoed!r}"


def _named(error: BaseException) -> str:
    cause = f" from {type(error.__cause__).__name__}" if isinstance(error, RedsetError) else ""
    return type(error).__name__ + cause


def _says_empty(last: Any, lenient: bool) -> bool:
    """Return whether the sent bytes, up to where the client reads them, are such a reply."""
    if isinstance(last, Raw):
        return lenient or RAW_EMPTY.match(last) is not None
    gave_none_back = isinstance(last, list) and len(last) == 2 and last[1] in EMPTY
    return last in EMPTY or gave_none_back


def misplaced(error: BaseException, last: Any, lenient: bool) -> str:
    """Return the fault of an error: it is not a documented one, or it is wrong.

    A lenient parser takes :-00 and #x for a 0; hiredis does not.
    """
    if isinstance(error, AddError):
        error = error.__cause__ or error
    elif type(error) is KeyError and (
        _says_empty(last, lenient) or (last == 1 and "is paused" in str(error))
    ):
        return ""
    if isinstance(error, (RedsetError, redis.RedisError)):
        return ""
    if type(error) in (ValueError, RuntimeError) and str(error).startswith(SAID):
        return ""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    if f"{os.sep}redis{os.sep}" in frame.filename:
        return ""  # the client's own parser's
    return f"raised {error!r} at {frame.filename.rpartition('/')[2]}:{frame.lineno}"
