"""Hostile files: mutated exports. None breaks a set or loses queued items.

A case takes the lines of an export and changes some of them. Then `restore` either refuses them
before anything is written, or makes a set that works: all that it says is there comes out, and
what is added later. A restore that is cut off and repeated comes to the same. A set that holds
items refuses all files, and keeps its items.
"""

from __future__ import annotations

import json
import logging
import random
import re
import sys
from typing import Any

import redis
import servers
from options import made

from fuzz.report import Report
from redset import SortedSet
from redset.exceptions import OptionsDiffer


def run(count: int, seed: int, first: int = 0) -> Report:
    """Restore so many files, on a server of this run's own."""
    report = Report("restore", count, seed)
    logging.disable(logging.CRITICAL)
    try:
        _run(report, first)
    finally:
        logging.disable(logging.NOTSET)
    return report


def _run(report: Report, first: int) -> None:
    seed = str(report.seed)
    with servers.start(servers.some()) as server, server.client() as client:
        files = Files(client, seed)
        for number in report.cases(first):
            try:
                taken = files.check(number)
            except Exception as error:
                report.fail(number, f"{type(error).__name__}: {error}"[:4000])
                client.flushall()
                files = Files(client, seed)
            else:
                report.outcomes["restored" if taken else "refused"] += 1
            if (number - first) % 10_000 == 9_999:
                print(f"{number + 1 - first:,} cases", file=sys.stderr, flush=True)


def everything(raw: redis.Redis) -> dict[bytes, Any]:
    """The content of the server, without the calls of leases and the start of forgetting."""
    found: dict[bytes, Any] = {}
    for key in servers.keys(raw):
        kind = raw.type(key)
        if kind == b"zset":
            found[key] = raw.zrange(key, 0, -1, withscores=True)
        elif kind == b"hash":
            # Servers write more digits than a number needs.
            values = raw.hgetall(key)
            values.pop(b"forgets", None)
            found[key] = {field: shortened(value) for field, value in values.items()}
        elif kind == b"set":
            found[key] = raw.smembers(key)
        else:
            letters = raw.xrange(key)
            found[key] = [(id, {k: shortened(v) for k, v in of.items()}) for id, of in letters]
    return found


def shortened(value: bytes) -> bytes:
    return re.sub(rb"(?<![^ ])\d+\.\d+\b", lambda found: repr(float(found[0])).encode(), value)


def dies_at(number: int, raw: redis.Redis) -> Any:
    """A client that is killed after the server has performed so many of its steps."""

    class Dies(servers.GenericDecoded):
        left = number

        def execute_command(self, *arguments: Any, **options: Any) -> Any:
            if self.left <= 0:
                raise redis.ConnectionError("killed")
            reply = super().execute_command(*arguments, **options)
            # A script that the server has to load is not a step, and neither is the refused call.
            self.left -= arguments[0] != "SCRIPT LOAD"
            return reply

    return Dies(raw)


HOSTILE: list[Any] = [
    None, True, -1, 0, 1, 1.5, -0.0, 2**31, 2**40 - 1, 2**53, 2**63, 2**64 - 1, -(2**63), 10**400,
    1e308, "inf", "-inf", "nan", "", "a", "x" * 2000, "\x00\n ", [], ["1"], [["00" * 16, 5]], {},
    "0-1", "5-1", f"{2**53 - 1}-{2**53 - 1}", f"{2**64 - 1}-{2**64 - 1}", "00" * 16, "ff" * 16,
    "zz",
    {"base64": "/w=="}, {"base64": "*"}, {"base64": 5}, ["5", "-5"], "ever", "limited", "ab" * 8,
    ["9" * 30], [str(number * 10**9) for number in range(1, 700)],
]  # fmt: skip
FIELDS = (
    "item", "score", "attempts", "error", "digest", "tie", "dead", "id", "reason", "known", "end",
    "redset", "name", "key", "remember", "epoch",
)  # fmt: skip
FUZZED: list[dict[str, Any]] = [
    {},
    {"key": "url"},
    {"remember": True},
    {"key": "url", "remember": True, "ties": "fifo"},
    {"remember": 3600, "ties": "lifo"},
]


#: The sets that must stay as they are hold these.
QUEUED = ("a", "b")


def mutated(draw: random.Random, exports: list[list[str]]) -> list[Any]:
    """Return the lines of an export with hostile changes."""
    lines: list[Any] = list(draw.choice(exports))
    for _ in range(draw.choice([1, 1, 1, 2, 3, 6])):
        place = draw.randrange(len(lines))
        how = draw.randrange(10)
        if how < 6:
            try:
                value = json.loads(lines[place])
            except ValueError:
                continue
            field = draw.choice([*value, draw.choice(FIELDS)] if value else FIELDS)
            if how == 5:
                value.pop(field, None)
            elif how == 4:
                theirs = json.loads(draw.choice(draw.choice(exports)))
                value[field] = theirs.get(field, draw.choice(list(theirs.values())))
            else:
                value[field] = draw.choice(HOSTILE)
            lines[place] = json.dumps(value, ensure_ascii=draw.random() < 0.5)
        elif how == 6:
            lines.insert(draw.randrange(len(lines)), draw.choice(draw.choice(exports)))
        elif how == 7:
            del lines[place]
            if not lines:
                return lines
        elif how == 8:
            other = draw.randrange(len(lines))
            lines[place], lines[other] = lines[other], lines[place]
        else:
            data = bytearray(str(lines[place]).encode())
            data[draw.randrange(len(data))] = draw.randrange(256)
            lines[place] = bytes(data)
    if draw.random() < 0.8:
        # Most files would be refused for their end alone.
        items = sum(b'"item":' in line.encode() for line in lines if isinstance(line, str))
        lines = [line for line in lines if '"end":' not in str(line)] + [json.dumps({"end": items})]
    return lines


def check_works(jobs: SortedSet[Any], options: dict[str, Any], queued: int) -> None:
    """A set works: all its items come out, and so do those that are added later."""
    # Each item is found by its own identity, and the set's own export is one that comes back.
    there = list(jobs)
    # One that lacks its key's field came back under the identity that it had.
    keyed = [item for item in there if "key" not in options or options["key"] in item]
    assert all(map(jobs.contains, keyed))
    lines = list(jobs.export())
    jobs.clear()
    assert jobs.restore(lines) == queued
    assert list(jobs) == there
    dead = len(list(jobs.dead))
    assert jobs.size() == queued and jobs.dead.size() == jobs.stats().dead == dead
    assert (
        jobs.add_many([made(options, f"fresh {number}") for number in range(400)], 4095)[0] == 400
    )
    list(jobs.export())
    jobs.fail(jobs.lease(30), "no")
    done = 0
    while batch := jobs.lease(100):
        done += jobs.ack(batch)
    # An item that cannot be decoded is dead now, or failed once too often.
    assert done + jobs.dead.size() - dead == queued + 400
    assert jobs.finished()
    # Later dead letters come after all present ones.
    last = SortedSet(jobs.redis, "jobs", **options, max_attempts=1)
    last.add(made(options, "last"), 0)
    last.fail(last.lease(), "the last")
    assert list(jobs.dead)[-1].reason == "the last"


class Files:
    """Exports of sets of each kind, on a server that has full sets as well; `check` is one case.

    `seed` and the number of a case decide the drawn values.
    """

    def __init__(self, client: redis.Redis, seed: str) -> None:
        self._client, self._seed = client, seed
        self._exports = []
        for options in FUZZED:
            client.flushall()
            jobs: SortedSet[Any] = SortedSet(client, "jobs", **options, max_attempts=2)
            items = [made(options, f"item {number}") for number in range(8)]
            jobs.add_many(items, score=[number // 2 for number in range(8)])
            for _ in range(2):
                jobs.fail(jobs.lease(2), "no")
            self._exports.append(list(jobs.export()))
        client.flushall()
        self._full = []
        for place, options in enumerate(FUZZED):
            full: SortedSet[Any] = SortedSet(client, f"full-{place}", **options)
            full.add_many([made(options, name) for name in QUEUED], score=[1, 2])
            self._full.append(full)
        self._there, self._digest = everything(client), self._digest_of_all()

    def check(self, number: int) -> bool:
        """Restore the file of a case; return whether it was accepted. Raise its faults."""
        client = self._client
        draw = random.Random(f"{self._seed} {number}")
        place = draw.randrange(len(FUZZED))
        options, lines = FUZZED[place], mutated(draw, self._exports)
        where = f"case {number}: {options} {lines}"
        if draw.random() < 0.1:
            # As many requests as it takes, or fewer: then it is repeated.
            cut: SortedSet[Any] = SortedSet(dies_at(draw.randrange(8), client), "jobs", **options)
            try:
                cut.restore(lines)
            except (ValueError, OptionsDiffer, redis.ConnectionError):
                pass
            else:
                self._sweep()
        jobs: SortedSet[Any] = SortedSet(client, "jobs", **options)
        taken = True
        try:
            queued = jobs.restore(lines)
        except (ValueError, OptionsDiffer):
            taken = False
        except Exception as error:
            raise AssertionError(where) from error
        else:
            try:
                check_works(jobs, options, queued)
            except Exception as error:
                raise AssertionError(f"{where}: {error}") from error
            self._sweep()
        self._check_untouched(where)
        for full in (self._full[place], draw.choice(self._full)):
            try:
                full.restore(lines)
            except (ValueError, OptionsDiffer):
                continue
            raise AssertionError(f"{full.name} took {where}")
        self._check_untouched(where)
        return taken

    def _digest_of_all(self) -> Any:
        return self._client.execute_command("DEBUG", "DIGEST")

    def _check_untouched(self, where: str) -> None:
        # One command instead of dozens; it notices more than counts here.
        if self._digest_of_all() != self._digest:
            assert everything(self._client) == self._there, where

    def _sweep(self) -> None:
        others = [key for key in self._client.scan_iter() if not key.startswith(b"full")]
        if others:
            self._client.unlink(*others)
