"""Figures of many sets, for operators: the registry, and one step that only reads.

Theory of operation
-------------------

Processes that work on a set write its name and options into the registry, the hash `redset:sets`
(`redset._operations.reporting`). So a stranger finds the sets of a server with one command, and
knows which keys each of them has.

`glance.lua` counts up to `SETS` sets in one step. It changes nothing and returns no expired leases,
so it works on a replica and for a user who may only read. `WINDOW` such steps are in flight: a
server works off all that a client has written before it turns to others. In a cluster each set is a
step of its own, since its keys are in one slot.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from redset._operations.keys import REGISTRY, Keys, owner_of, readable
from redset._operations.reading import may_not_write
from redset._operations.replies import (
    Reader,
    bytes_of,
    count,
    is_answer,
    listed,
    number,
    refuse,
    scan_page,
)
from redset._operations.scores import TIE
from redset._transport.effects import READ, Ask, Operation, Send
from redset.scripts import script

#: Sets a step, and steps in flight.
SETS, WINDOW = 25, 4
#: Entries of the registry, and keys, that one command looks at.
PAGE = 1000
#: The keys that a glance reads of a set that may have second keys.
_READ = ("queue", "paused", "leased", "dead", "meta", "seen", "counts", "workers")
#: Those of a set with groups, besides.
_OF_GROUPS = ("ready", "resting", "waiting", "working", "index")


class Paused(NamedTuple):
    """An operator's pause of a set.

    Attributes
    ----------
    by : str
        Host and process that called `pause`.
    at : float
        The time of the call, as Unix time of the server.
    why : str
        The reason that was given.
    """

    by: str
    at: float
    why: str


class Figures(NamedTuple):
    """A set in figures, read in one step that changes nothing.

    Attributes
    ----------
    size : int
        Items queued, due or not. Items whose lease expired are counted by ``late`` until a call of
        a worker returns them to the queue.
    available : int
        Queued items that a consumer would be given now. In a set with groups: the groups that may
        start, each with at least one item.
    leased : int
        Items that are leased, or wait out a delay.
    late : int
        Those of ``leased`` whose time is over.
    dead : int
        Dead letters.
    remembered : int
        Items that ``remember`` knows.
    oldest_score : float or None
        The lowest score; None if nothing is queued.
    oldest_age : float or None
        Seconds since the lowest score; only for sets scored by time.
    next_expiry : float or None
        The Unix time at which the first lease or delay ends; None without one.
    paused : Paused or None
        The pause of the set, if it is paused.
    workers : int
        Processes that reported within 90 seconds; all of the last hour if these are more than 64.
    time : float
        The server's time at the step.
    groups_ready : int
        Groups that may start, in a set with ``group=``.
    groups_resting : int
        Groups that wait for the end of an interval or a pause.
    groups_working : int
        Groups with a limit that have items in work.
    """

    size: int
    available: int
    leased: int
    late: int
    dead: int
    remembered: int
    oldest_score: float | None
    oldest_age: float | None
    next_expiry: float | None
    paused: Paused | None
    workers: int
    time: float
    groups_ready: int = 0
    groups_resting: int = 0
    groups_working: int = 0


class SetInfo(NamedTuple):
    """One set of a server, as `list_sets` returns it.

    Attributes
    ----------
    name : str or bytes
        The set's name; bytes if it is not UTF-8.
    options : dict or None
        The set's options as its processes registered them: ``class``, ``key`` (a field, or True for
        a callable), ``ties``, ``remember``, ``attempts``, ``serializer``, ``v``, ``seen``. With
        groups also ``group`` as ``key``, ``group_limit``, ``group_interval``. None if it is not
        registered.
    figures : Figures or None
        None if the set's key is not a sorted set any more.
    counts : dict of str to int
        Totals that processes reported within the last seven days: ``added``, ``updated``,
        ``refused``, ``bad``, ``taken``, ``leased``, ``acked``, ``failed``, ``released``, ``lost``,
        ``buried``, ``busy_ms``, ``expired``, ``died``, ``requeued``, ``purged``; and the Unix times
        ``producer_seen`` and ``consumer_seen``. A count that is 0 is missing.

    Examples
    --------
    >>> jobs.add_many(["a", "b"]).added
    2
    >>> [info] = redset.list_sets(r, ["jobs"])
    >>> info.name, info.figures.size
    ('jobs', 2)
    """

    name: str | bytes
    options: dict[str, Any] | None
    figures: Figures | None
    counts: dict[str, int]


class Found(NamedTuple):
    """A set to look at: its name, its registered options, and which of its queues exists."""

    name: bytes
    options: dict[str, Any] | None
    keyed: bool = False
    tied: bool = False
    grouped: bool = False


def registered(wire: ModuleType, match: bytes | None) -> Operation[list[Found]]:
    """Return the sets of the registry whose names match a pattern of the server's."""
    entries: dict[bytes, Found] = {}
    cursor = b"0"
    part = [] if match is None else [b"MATCH", match]
    while True:
        request = wire.encode([b"HSCAN", REGISTRY, cursor, *part, b"COUNT", PAGE])
        cursor, found = yield Ask(request, resend=True, reads=scan_page)
        for name, text in zip(found[::2], found[1::2], strict=True):
            entries[name] = _registered_set(name, text)
        if cursor == b"0":
            return list(entries.values())


def registered_as(wire: ModuleType, names: Sequence[bytes]) -> Operation[list[Found]]:
    """Return the sets of these names, with their options if they are registered."""
    entries: list[Found] = []
    for at in range(0, len(names), PAGE):
        some = names[at : at + PAGE]
        request = wire.encode([b"HMGET", REGISTRY, *some])
        texts = yield Ask(request, resend=True, reads=_texts(len(some)))
        entries += map(_registered_set, some, texts)
    return entries


#: The kinds of sets whose queue is a second key: with ``key=``, ``ties=``, ``group=``.
_KINDS = (
    (True, False, False),
    (False, True, False),
    (True, True, False),
    (True, False, True),
    (True, True, True),
)


def scanned(
    wire: ModuleType, cursor: bytes, pattern: bytes | None
) -> Operation[tuple[bytes, list[Found]]]:
    """Return the next cursor of a scan over all keys, and the sets that this page of keys is of."""
    matches = matcher_of(pattern)
    request = wire.encode([b"SCAN", cursor, b"COUNT", PAGE, b"TYPE", b"zset"])
    after, keys = yield Ask(request, resend=True, reads=scan_page)
    found = []
    for key in keys:
        owner = owner_of(key)
        if owner is None:
            found.append(Found(key, None))
            continue
        for keyed, tied, grouped in _KINDS:
            if key == Keys(owner, keyed, tied, grouped).queue:
                found.append(Found(owner, None, keyed, tied, grouped))
    return after, [each for each in found if matches(each.name)]


def matcher_of(pattern: bytes | None) -> Callable[[bytes], Any]:
    """Return a test of names by a pattern of the server's: ``* ? [a-c] [^a]`` and a backslash."""
    if pattern is None:
        return lambda name: True
    parts = []
    for each in re.findall(rb"\\.|\[\^?(?:\\.|[^\]])*\]|.", pattern, re.DOTALL):
        if each in (b"*", b"?"):
            parts.append(b".*" if each == b"*" else b".")
        elif each.startswith(b"[") and len(each) > 2:
            parts.append(each.replace(b"[", b"[", 1))
        else:
            parts.append(re.escape(each[1:] if len(each) > 1 else each))
    return re.compile(b"".join(parts), re.DOTALL).fullmatch


def glance(wire: ModuleType, found: Sequence[Found], together: int) -> Operation[list[SetInfo]]:
    """Return the figures of sets, of so many in one step."""
    parts = [found[at : at + together] for at in range(0, len(found), together)]
    infos: list[SetInfo] = []
    may_write = True
    for at in range(0, len(parts), WINDOW):
        some = parts[at : at + WINDOW]
        for part in some:
            ask = _glance(wire, part, may_write)
            yield Send(ask.data, 1, ask.script, True, ask.reads)
        refused: list[Sequence[Found]] = []
        failure: Exception | None = None
        for part in some:
            try:
                infos += yield READ
            except Exception as error:
                if not is_answer(error):
                    raise
                failure = failure or error
                refused.append(part)
        if failure is not None and not (may_write and may_not_write(failure)):
            raise failure
        for part in refused:
            # A user who may only read keys may run no script that could write (Redis 7).
            may_write = False
            try:
                infos += yield _glance(wire, part, may_write)
            except Exception as error:
                assert failure is not None
                raise (failure if is_answer(error) else error) from None
    return infos


def _glance(wire: ModuleType, part: Sequence[Found], may_write: bool) -> Ask:
    names, arguments = list[bytes](), list[bytes]()
    for each in part:
        keys = Keys(each.name, each.keyed, each.tied, each.grouped)
        second = keys.prefix is not None
        read: tuple[str, ...] = _READ if second else _READ[:1]
        if second and each.grouped:
            read += _OF_GROUPS
        names += [getattr(keys, name) for name in read]
        arguments += [b"1" if _class_of(each) == "ScheduledSet" else b"", b"%d" % (len(read) - 1)]
    step = script("glance")
    head = [b"EVALSHA", step.sha] if may_write else [b"EVAL_RO", step.text]
    request = wire.encode([*head, len(names), *names, *arguments])
    return Ask(request, 1, step if may_write else None, True, _set_infos(part))


def _class_of(found: Found) -> str:
    return "SortedSet" if found.options is None else str(found.options.get("class"))


def _set_infos(part: Sequence[Found]) -> Reader[list[SetInfo]]:
    def read(reply: Any) -> list[SetInfo]:
        seconds, micro, rows = listed(reply, 3)
        now = count(seconds) + count(micro) / 1e6
        return [
            _info(each, row, now) for each, row in zip(part, listed(rows, len(part)), strict=True)
        ]

    return read


def _info(found: Found, row: Any, now: float) -> SetInfo:
    name = readable(found.name)
    if not isinstance(row, (list, tuple)):
        return SetInfo(name, found.options, None, {})
    parts = listed(row, 14)
    lowest = number(parts[7]) if bytes_of(parts[7]) else None
    age = None
    if lowest is not None and found.tied and math.isfinite(lowest):
        lowest = lowest // TIE
    if lowest is not None and _class_of(found) in ("TimeSortedSet", "ScheduledSet"):
        age = now - lowest
    figures = Figures(
        count(parts[0]),
        count(parts[1]),
        count(parts[2]),
        count(parts[3]),
        count(parts[5]),
        count(parts[6]),
        lowest,
        age,
        number(parts[4]) / 1000 if bytes_of(parts[4]) else None,
        paused_of(bytes_of(parts[8])),
        count(parts[9]),
        now,
        *map(count, parts[11:]),
    )
    return SetInfo(name, found.options, figures, _counts_of(parts[10]))


def _counts_of(reply: Any) -> dict[str, int]:
    """Read the pairs of a hash, without fields that hold no number."""
    found = listed(reply)
    if len(found) % 2:
        raise refuse("fields and counts", reply)
    named = {}
    for field, value in zip(found[::2], found[1::2], strict=True):
        text = bytes_of(value)
        if text.isdigit():
            named[bytes_of(field).decode("utf-8", "replace")] = int(text)
    return named


def paused_of(text: bytes | None) -> Paused | None:
    """Read the stored text of a pause; None without one. Any text is a pause."""
    if not text:
        return None
    stored = fields_of(text) or {}
    at = stored.get("at")
    return Paused(
        str(stored.get("by", "")),
        float(at) if isinstance(at, (int, float)) else 0.0,
        str(stored.get("why", "")),
    )


def fields_of(text: bytes | None) -> dict[str, Any] | None:
    """Read a JSON object that another process stored; None if it is none."""
    try:
        stored = json.loads(text or b"")
    except ValueError:
        return None
    return stored if isinstance(stored, dict) else None


def _registered_set(name: bytes, text: bytes | None) -> Found:
    options = fields_of(text)
    stored: Mapping[str, Any] = options or {}
    grouped = bool(stored.get("group"))
    keyed = bool(stored.get("key")) or grouped
    return Found(name, options, keyed, bool(stored.get("ties")), grouped)


def _texts(num: int) -> Reader[list[bytes | None]]:
    return lambda reply: [None if each is None else bytes_of(each) for each in listed(reply, num)]


def ordered(found: Iterable[Found]) -> list[Found]:
    """Return sets by name, each once."""
    return sorted({each.name: each for each in found}.values(), key=lambda each: each.name)
