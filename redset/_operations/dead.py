"""Dead letters: items that failed too often or cannot be decoded."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable
from itertools import chain
from typing import Any, NamedTuple

from redset._faces.arguments import matching, seconds, unix_time
from redset._operations import memory
from redset._operations.adding import Refusal, refusal_of
from redset._operations.context import Context
from redset._operations.errors import NOT_OF_ITEM, error_text
from redset._operations.grouped import group_in, payload_in, text_of_group
from redset._operations.limits import LEASE_STEP, MEMORY_STEP, STEP
from redset._operations.lines import ID
from redset._operations.logs import warn_once
from redset._operations.reading import server_time
from redset._operations.replies import (
    Reader,
    bytes_of,
    count,
    list_of,
    listed,
    number,
    refuse,
    up_to,
)
from redset._operations.scores import ServerClock
from redset._transport.effects import Ask, Emit, Operation
from redset._wire.values import flag


class DeadLetter(NamedTuple):
    """One dead letter.

    Attributes
    ----------
    id : str
        Its identifier within the set.
    raw : bytes
        The stored bytes of the item.
    score : float or None
        Its score; None for items that ``pop`` and ``take`` could not decode.
    reason : str
        The error's class and text.
    time : float
        Unix time at which it became a dead letter, by the server's clock, in seconds.
    attempts : int
        Number of its leases that failed or expired.
    item : object or None
        The item, or None if it cannot be decoded.
    group : str or None
        The item's group, in a set with ``group=``; None for none.

    Examples
    --------
    >>> letter = DeadLetter("1700000000000-0", b"[2", None, "ValueError: bad", 1.7e9, 0)
    >>> letter.raw, letter.reason
    (b'[2', 'ValueError: bad')
    """

    id: str
    raw: bytes
    score: float | None
    reason: str
    time: float
    attempts: int
    item: Any = None
    group: str | None = None


def count_letters(ctx: Context) -> Operation[int]:
    letters: int = yield ctx.command(b"XLEN", ctx.keys.dead, reads=count)
    return letters


def letters(ctx: Context) -> Operation[None]:
    """Emit the dead letters, oldest first, a page at a time."""
    start = "-"
    while True:
        entries, more = yield read_range(ctx, start, "+", STEP)
        if entries:
            letters = [entry.letter for entry in entries]
            items, bad = yield from ctx.codec.decode([entry.stored for entry in entries])
            lost, values = {each.place for each in bad}, iter(items)
            yield Emit(
                [
                    letter if place in lost else letter._replace(item=next(values))
                    for place, letter in enumerate(letters)
                ]
            )
        if len(entries) < STEP and not more:
            return
        start = f"({entries[-1].letter.id}"


class _Entry(NamedTuple):
    """A dead letter, its stored score, and its member if that is known and differs from ``raw``.

    Its stored bytes have the group in front of ``raw``, in a set with groups.
    """

    letter: DeadLetter
    member: bytes
    score: float | None
    stored: bytes


def read_range(ctx: Context, first: str, last: str, num: int) -> Ask:
    """Return the request for up to ``num`` dead letters and their members.

    Its reply also has whether there may be more.
    """
    reads = _page_of_entries(ctx, num)
    return ctx.step(
        "read_letters", reads, lowest=first, highest=last, num=num, first=ctx.sizes.first
    )


def _page_of_entries(ctx: Context, num: int) -> Reader[tuple[list[_Entry], bool]]:
    read_entries = _entries(ctx, num)

    def read(reply: Any) -> tuple[list[_Entry], bool]:
        more, entries = listed(reply, 2)
        found = read_entries(entries)
        ctx.sizes.note([entry.stored for entry in found])
        return found, count(more, 1) == 1

    return read


def _entries(ctx: Context, num: int) -> Reader[list[_Entry]]:
    def read(reply: Any) -> list[_Entry]:
        entries = listed(reply)
        if len(entries) > num:
            raise refuse(f"at most {num} dead letters", reply)
        return [_entry(ctx, entry) for entry in entries]

    return read


def _entry(ctx: Context, entry: Any) -> _Entry:
    id, values = listed(entry, 2)
    name = bytes_of(id)
    found = ID.fullmatch(name)
    if found is None:
        raise refuse("the id of a dead letter", id)
    if isinstance(values, dict):
        fields = {bytes_of(field): value for field, value in values.items()}
    else:
        parts = [bytes_of(value) for value in listed(values)]
        if len(parts) % 2:
            raise refuse("the fields of a dead letter", values)
        fields = dict(zip(parts[::2], parts[1::2], strict=True))
    text = bytes_of(fields.get(b"score", b""))
    score = number(text) if text else None
    raw = stored = bytes_of(fields.get(b"raw", b""))
    group = None
    if ctx.options.grouped:
        raw, group = payload_in(stored), text_of_group(group_in(stored))
    letter = DeadLetter(
        name.decode(),
        raw,
        None if score is None else ctx.scores.decode(score),
        bytes_of(fields.get(b"reason", b"")).decode("utf-8", "replace"),
        int(found[1]) / 1000,
        count(fields.get(b"attempts", 0)),
        group=group,
    )
    return _Entry(letter, bytes_of(fields.get(b"member", b"")), score, stored)


def requeue(ctx: Context, letters: list[Any]) -> Operation[int]:
    """Queue dead letters again. Return their number."""
    names = [_checked_id(place, letter) for place, letter in enumerate(letters)]
    queued = 0
    for at in range(0, len(names), LEASE_STEP):
        pending = [(name, b"") for name in names[at : at + LEASE_STEP]]
        while pending:
            reply = yield ctx.step(
                "requeue",
                _outcomes(len(pending)),
                list(chain.from_iterable(pending)),
                keyed=ctx.options.keyed,
                options=ctx.options.text,
                ties=ctx.options.ties,
            )
            if type(reply) is Refusal:
                raise reply.error(ctx)
            again = []
            # The step ended at its bound.
            for (name, given), outcome in zip(pending, reply, strict=False):
                if not isinstance(outcome, bytes):
                    queued += outcome == 1
                elif not given:
                    member = _member(ctx, outcome)
                    if member:
                        again.append((name, member))
            pending = again + pending[len(reply) :]
    return queued


def requeue_all(ctx: Context) -> Operation[int]:
    """Queue all present dead letters again. Return their number."""
    reads = _entries(ctx, 1)
    newest = yield ctx.command(b"XREVRANGE", ctx.keys.dead, "+", "-", b"COUNT", 1, reads=reads)
    queued, start = 0, "-"
    while newest:
        entries, more = yield read_range(ctx, start, newest[0].letter.id, LEASE_STEP)
        queued += yield from requeue(ctx, [entry.letter for entry in entries])
        if len(entries) < LEASE_STEP and not more:
            break
        start = f"({entries[-1].letter.id}"
    return queued


def _checked_id(place: int, letter: Any) -> bytes:
    id = letter.id if isinstance(letter, DeadLetter) else letter
    argument = f"letters_or_ids[{place}]"
    return matching(argument, id, ID, "a dead letter or the id of one")


def _outcomes(num: int) -> Reader[Any]:
    """Read the outcomes of so many letters: a number, or bytes whose item's member is needed."""

    def read(reply: Any) -> Any:
        parts = listed(reply)
        if len(parts) == 1 and isinstance(parts[0], (list, tuple)):
            outcomes = listed(parts[0])
            if 1 <= len(outcomes) <= num:
                return [
                    each if type(each) is int and -1 <= each <= 1 else bytes_of(each)
                    for each in outcomes
                ]
        refusal = refusal_of(parts, (b"OPTIONS", b"NAME"))
        if refusal is None:
            raise refuse(f"the outcomes of {num} dead letters", reply)
        return refusal

    return read


def _member(ctx: Context, raw: bytes) -> bytes:
    """Return the member of an item of a set with ``key=``; empty if it cannot be decoded."""
    try:
        return ctx.codec.identity(ctx.codec.decode_one(raw))
    except NOT_OF_ITEM:
        raise
    except Exception as error:
        text = "a dead letter of %r still cannot be decoded, and stays: %r"
        warn_once(ctx.name, text, ctx.name, error_text(error))
        return b""


def _bound(ctx: Context, before: Any) -> Operation[float]:
    """Return the Unix time of a bound: a number, an aware datetime, or an age as a timedelta."""
    if isinstance(before, datetime.timedelta):
        age = seconds("before", before, most=math.inf)
        return (yield from server_time(ctx, ServerClock())) - age
    return unix_time("before", before)


def purge_letters(
    ctx: Context, letters: Iterable[DeadLetter | str], forget: bool
) -> Operation[int]:
    """Delete these dead letters, and forget their items; how many there were."""
    if flag("forget", forget):
        ctx.need_memory("forget")
    ids = list(dict.fromkeys(_checked_id(*pair) for pair in enumerate(letters)))
    gone: int = 0
    for at in range(0, len(ids), STEP):
        some = ids[at : at + STEP]
        if forget:
            yield from _forget_letters(ctx, some)
        gone += yield ctx.command(b"XDEL", ctx.keys.dead, *some, reads=up_to(len(some)))
    # With the last letter the key goes: no letter is below this id.
    yield ctx.step("purge", list_of(count, 2), highest=b"0-0", num=1, first=1)
    return gone


def _forget_letters(ctx: Context, ids: list[bytes]) -> Operation[None]:
    for id in ids:
        text = id.decode()
        entries, _ = yield read_range(ctx, text, text, 1)
        for entry in entries:
            keyed = ctx.options.keyed
            member = (entry.member or _member(ctx, entry.stored)) if keyed else entry.stored
            if member or not keyed:
                yield from memory.forget_members(ctx, [member])


def purge(ctx: Context, before: Any, forget: bool) -> Operation[int]:
    """Delete the dead letters older than a time, and forget their items. Return their number."""
    if flag("forget", forget):
        ctx.need_memory("forget")
    last = "+"
    if before is not None:
        time = yield from _bound(ctx, before)
        if time * 1000 < 1:
            return 0  # the lowest id is 0-0
        if time < 2**63 / 1000:
            last = f"({int(time * 1000)}-0"
    gone: int = 0
    while True:
        num, until = STEP, last
        if forget:
            entries, _ = yield read_range(ctx, "-", last, MEMORY_STEP)
            if not entries:
                return gone
            raws = [entry.stored for entry in entries]
            if ctx.options.keyed:
                raws = [entry.member or _member(ctx, entry.stored) for entry in entries]
            yield from memory.forget_members(
                ctx, [raw for raw in raws if raw or not ctx.options.keyed]
            )
            num, until = len(entries), entries[-1].letter.id
        reads = list_of(up_to(num), 2)
        some, more = yield ctx.step("purge", reads, highest=until, num=num, first=ctx.sizes.first)
        gone += some
        if not (more or forget):
            return gone
