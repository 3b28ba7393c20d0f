"""Export of a whole set as JSON lines, and its restore."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
from array import array
from collections.abc import Callable, Iterator
from itertools import chain
from itertools import count as count_from
from typing import Any, NamedTuple

from redset._operations import dead
from redset._operations.context import Context
from redset._operations.errors import NOT_OF_ITEM
from redset._operations.grouped import framed, group_in, payload_in
from redset._operations.limits import CHUNK_BYTES, SCRIPT_CHUNK, STEP
from redset._operations.lines import (
    VERSION,
    Lines,
    Row,
    data,
    dumps,
    group_of,
    known_of,
    letter_of,
    limits_of,
    row_of,
    tie_of,
    to_number,
)
from redset._operations.memory import forgetting, sweep
from redset._operations.reading import page_of
from redset._operations.replies import (
    Reader,
    bytes_of,
    count,
    listed,
    number,
    optional,
    refuse,
    scan_page,
    up_to,
)
from redset._operations.state import new_epoch
from redset._transport.effects import Ask, Emit, Operation, Pull
from redset.exceptions import OptionsDiffer

log = logging.getLogger("redset")

#: Number of buckets of a memory that one step reads, and of remembered items per line.
BUCKETS, REMEMBERED = 10, 500
#: Integers of a memory for each of its buckets, as in buckets.lua.
FILL = 180
#: Limit of a bucket's integers. The average is 360 at most, and twice that if an export read it
#: during a split. So a step moves fewer than Lua can unpack (7,999).
CROWDED = 2000
_INTEGER = re.compile(rb"-?\d{1,19}")


# --- export


def export(ctx: Context) -> Operation[None]:
    """Emit the lines of a set.

    Leases are read before and after the queue. So an item that is leased during the export is among
    the later leases, and an item that returns is among the earlier ones. An item that does both may
    be in neither. Many items are in two.
    """
    epoch = (yield from ctx.know_epoch()) if ctx.options.remember else None
    if ctx.options.ties:
        # Scores and numbers are those of this object's ties. Those of another ties= would be wrong.
        stored = yield ctx.command(b"HGET", ctx.keys.meta, b"options", reads=optional(bytes_of))
        if stored and f"ties={ctx.options.ties}" not in stored.decode("utf-8", "replace").split():
            raise ctx.tell_other_options(stored)
    head = {"redset": VERSION, "name": data(ctx.keys.name), "key": ctx.options.has_key}
    if ctx.options.grouped:
        head["group"] = True
    text = (epoch or b"").decode("ascii", "replace")
    yield Emit([dumps({**head, "remember": ctx.options.remember, "epoch": text})])
    items = 0
    second = ctx.keys.prefix is not None
    for key in [ctx.keys.leased, ctx.keys.queue, ctx.keys.leased] if second else [ctx.keys.queue]:
        last: list[bytes] = []
        while True:
            page = yield _rows(ctx, key, last)
            if page.rows:
                ctx.sizes.note(
                    [row.payload if ctx.options.keyed else row.member for row in page.rows]
                )
                yield Emit([_item(ctx, row) for row in page.rows])
                items += len(page.rows)
            if page.found < SCRIPT_CHUNK and not page.more:
                break
            last = page.end
    if second:
        yield from _export_dead(ctx)
    if ctx.options.grouped:
        yield from _export_limits(ctx)
    if epoch:
        yield from _export_memory(ctx, epoch)
    yield Emit([dumps({"end": items})])


class _Rows(NamedTuple):
    end: list[bytes]
    found: int
    #: Whether the step may have ended before it had all requested items.
    more: bool
    rows: list[Row]


def _rows(ctx: Context, key: bytes, last: list[bytes]) -> Any:
    own = ctx.keys
    keys = {"key": key}
    if own.prefix is not None:
        keys |= {"none": own.none, "queue": own.queue, "leases": own.leases}
    if ctx.options.keyed:
        keys["items"] = own.items
    score, member = last or (b"", b"")
    return ctx.step(
        "export",
        _rows_behind(last),
        keys=keys,
        num=SCRIPT_CHUNK,
        first=ctx.sizes.first,
        last_score=score,
        last_member=member,
    )


def _rows_behind(last: list[bytes]) -> Reader[_Rows]:
    def read(reply: Any) -> _Rows:
        parts = listed(reply)
        if len(parts) % 5 != 4 or len(parts) > 4 + 5 * SCRIPT_CHUNK:
            raise refuse("a page of items", reply)
        end, found = [bytes_of(parts[0]), bytes_of(parts[1])], count(parts[2], SCRIPT_CHUNK)
        if found and end == last:
            raise refuse("the page after the last one", reply)
        more = count(parts[3], 1) == 1
        values = [bytes_of(part) for part in parts[4:]]
        rows = [Row(*values[at : at + 5]) for at in range(0, len(values), 5)]
        for row in rows:
            number(row.score), count(row.attempts)
        return _Rows(end, found, more, rows)

    return read


def _item(ctx: Context, row: Row) -> str:
    line = {"item": data(row.payload if ctx.options.keyed else row.member)}
    if ctx.options.grouped:
        line = {"item": data(payload_in(row.payload)), **_group_field(row.payload)}
    line |= _score_fields(ctx, float(row.score))
    if ctx.options.keyed:
        line["digest"] = row.member.hex()
    if row.attempts != b"0":
        line["attempts"] = int(row.attempts)
        line["error"] = row.error.decode("utf-8", "replace")
    return dumps(line)


def _group_field(stored: bytes) -> dict[str, Any]:
    group = group_in(stored)
    return {"group": data(group)} if group else {}


def _score_fields(ctx: Context, stored: float | None) -> dict[str, Any]:
    if stored is None:
        return {"score": None}
    score = {"score": to_number(ctx.scores.decode(stored))}
    if ctx.options.ties and math.isfinite(stored):
        score["tie"] = ctx.scores.tie_of(stored)
    return score


def _export_dead(ctx: Context) -> Operation[None]:
    start = "-"
    while True:
        entries, more = yield dead.read_range(ctx, start, "+", STEP)
        lines = []
        for letter, member, score, stored in entries:
            line = {"dead": data(letter.raw), "id": letter.id, **_score_fields(ctx, score)}
            if ctx.options.grouped:
                line |= _group_field(stored)
            line |= {"reason": letter.reason, "attempts": letter.attempts}
            if member:
                line["digest"] = member.hex()
            lines.append(dumps(line))
        if lines:
            yield Emit(lines)
        if len(entries) < STEP and not more:
            return
        start = f"({entries[-1].letter.id}"


def _export_limits(ctx: Context) -> Operation[None]:
    """Emit groups' own values. Their rests are left out."""
    cursor = b"0"
    while True:
        cursor, found = yield ctx.command(
            b"HSCAN", ctx.keys.limits, cursor, b"COUNT", REMEMBERED, reads=scan_page
        )
        pairs = zip(found[::2], found[1::2], strict=True)
        rows = [[data(group), own.decode("ascii", "replace")] for group, own in pairs]
        for at in range(0, len(rows), REMEMBERED):
            yield Emit([dumps({"limits": rows[at : at + REMEMBERED]})])
        if cursor == b"0":
            return


def _export_memory(ctx: Context, epoch: bytes) -> Operation[None]:
    if ctx.options.remember == "ever":
        bucket = 0
        while True:
            bucket, found = yield ctx.step(
                "export_memory", _recalled(bucket), epoch=epoch, bucket=bucket, num=BUCKETS
            )
            for at in range(0, len(found), REMEMBERED):
                yield Emit([dumps({"known": found[at : at + REMEMBERED]})])
            if not bucket:
                return
    last: list[bytes] = []
    while True:
        score, member = last or (b"", b"")
        page = yield ctx.step(
            "page",
            _known_behind(last),
            keys={"queue": ctx.keys.seen},
            num=REMEMBERED,
            first=REMEMBERED,  # digests: all of one size
            lowest=b"",
            highest=b"",
            last_score=score,
            last_member=member,
            scored=True,
        )
        pairs = zip(page.members, page.scores, strict=True)
        if page.members:
            rows = [[member.hex(), int(float(expiry))] for member, expiry in pairs]
            yield Emit([dumps({"known": rows})])
        if len(page.members) < REMEMBERED:
            return
        last = page.end


def _known_behind(last: list[bytes]) -> Reader[Any]:
    return lambda reply: page_of(reply, last, False)


def _recalled(bucket: int) -> Reader[tuple[int, list[str]]]:
    def read(reply: Any) -> tuple[int, list[str]]:
        following, found = listed(reply, 2)
        number_behind = count(following)
        if number_behind and number_behind <= bucket:
            raise refuse("the next bucket", reply)
        integers = [bytes_of(each) for each in listed(found)]
        if not all(map(_INTEGER.fullmatch, integers)):
            raise refuse("integers", reply)
        return number_behind, [integer.decode() for integer in integers]

    return read


# --- restore


def restore(ctx: Context) -> Operation[int]:
    """Fill an empty set from the lines that Pull brings. Return its number of items then."""
    with contextlib.closing(Lines()) as lines:
        while True:
            given, _ = yield Pull(STEP)
            if not given:
                break
            for line in given:
                lines.take(line)
        lines.check_end()
        return (yield from _restore_checked(ctx, lines))


def _restore_checked(ctx: Context, lines: Lines) -> Operation[int]:
    head, keys = lines.head, ctx.keys
    remembered, same = head["remember"], _has_same_identities(ctx, head)
    if keys.prefix is None and next(lines.of("dead"), None) is not None:
        _ = keys.dead  # raises its reason if the set can have none
    # The lines are checked. Check also, before any write, that each item fits this set.
    for value in lines.of("item"):
        if not same:
            _again(ctx, value)
        elif ctx.options.keyed:
            row = row_of(value, True)
            _check_digest(ctx, row.payload, row.member)
            _group_for(ctx, head, value, row.payload)
    for value in lines.of("dead") if same and ctx.options.keyed else ():
        _check_digest(ctx, letter_of(value, True)[1], bytes.fromhex(value.get("digest", "")))
    if ctx.options.ties:
        for value in chain(lines.of("item"), lines.of("dead")):
            _placed(ctx, value, count_from(0))
    keeps = bool(remembered and ctx.options.remember and same)
    keeps = keeps and (remembered == ctx.options.remember or remembered == "limited")
    if remembered and not keeps:
        log.warning(
            "the memory of %r is left out: this set has %s, and the exported set had %s",
            head.get("name"),
            ctx.options.text,
            f"key={'yes' if head['key'] else 'no'} remember={remembered}"
            f"{' group=yes' if head['group'] else ''}",
        )
    epoch = b""
    if ctx.options.remember:
        # The integers of a memory forever are those of its epoch.
        epoch = head["epoch"].encode() if keeps and remembered == ctx.options.remember else b""
        epoch = epoch or new_epoch()
    options = ctx.options.text if ctx.options.marked else ""
    sequence = lines.sequence + lines.untied
    integers = lines.known if keeps and ctx.options.remember == "ever" else 0
    if integers and remembered == "ever":
        _check_buckets(lines)
    # The count of forgets begins at another number: processes may have tables for the memory that
    # had the same epoch.
    forgets = int.from_bytes(os.urandom(6), "big")
    arguments = {
        "options": options,
        "epoch": epoch,
        "sequence": sequence if ctx.options.ties else "",
        "forgets": forgets,
        "id": lines.name(ctx.options.text),
        "integers": integers,
    }
    # The new count empties other processes' tables. This process empties its own before and after.
    return (yield from forgetting(ctx, _fill(ctx, lines, arguments, same, keeps)))


def _has_same_identities(ctx: Context, head: dict[str, Any]) -> bool:
    """Return whether an item of the lines has the same identity in the set."""
    if head["key"] != ctx.options.has_key:
        return False
    return ctx.options.has_key or head["group"] == ctx.options.grouped


def _group_for(ctx: Context, head: dict[str, Any], value: dict[str, Any], payload: bytes) -> bytes:
    """Return the group of an item of the lines, or of another set's that the set gives it."""
    if head["group"] or ctx.codec.group_of is None:
        return group_of(value)
    try:
        item = _item_of(ctx, payload)
    except NOT_OF_ITEM:
        raise
    except Exception:
        return b""  # it becomes a dead letter when it is handed out
    try:
        return ctx.codec.group_of(item)
    except NOT_OF_ITEM:
        raise
    except Exception as error:
        raise OptionsDiffer(
            f"an item of the lines has no group in {ctx.name!r}, which has "
            f"{ctx.options.text}: {error}"
        ) from error


def _item_of(ctx: Context, payload: bytes) -> Any:
    return ctx.codec.decode_one(framed(b"", payload) if ctx.options.grouped else payload)


def _fill(
    ctx: Context,
    lines: Lines,
    arguments: dict[str, Any],
    same: bool,
    keeps: bool,
) -> Operation[int]:
    begun = yield from _begin(ctx, arguments)
    ctx.memory.epoch = begun.epoch or None
    id, number, queued = arguments["id"], 0, begun.queued
    second = ctx.keys.prefix is not None
    for ask, parts in _parts(ctx, lines, id, begun.epoch, same, keeps):
        for part in parts:
            number += 1
            if number <= begun.done:
                continue
            reply = yield ask(part, number)
            if reply < 0:
                raise RuntimeError(f"the set {ctx.name!r} was cleared while it was restored")
            queued = reply if second else queued + reply
    if second:
        yield ctx.command(b"HDEL", ctx.keys.meta, b"restoring", reads=up_to(1))
    return queued


def _parts(
    ctx: Context, lines: Lines, id: str, epoch: bytes, same: bool, keeps: bool
) -> Iterator[tuple[Callable[[list[Any], int], Ask], Iterator[list[Any]]]]:
    """Yield the steps of a restore in order, each with the rows of its parts."""
    ties = count_from(lines.sequence)

    def stored(value: dict[str, Any]) -> Row:
        row = row_of(value, ctx.options.keyed) if same else _again(ctx, value)
        if ctx.options.grouped:
            group = _group_for(ctx, lines.head, value, row.payload)
            row = row._replace(payload=framed(group, row.payload))
        return row._replace(score=_placed(ctx, value, ties)) if ctx.options.ties else row

    def letter(value: dict[str, Any]) -> list[Any]:
        made = letter_of(value, lines.apart)
        if ctx.options.grouped:
            made[1] = framed(_group_for(ctx, lines.head, value, made[1]), made[1])
        if ctx.options.ties:
            made[2] = _placed(ctx, value, ties)
        if not same:
            made[5] = b""  # the identity is that of another set
        return made

    def limit(part: list[Any], number: int) -> Ask:
        return ctx.step("restore_limits", _total, part, id=id, number=number)

    def load(part: list[Any], number: int) -> Ask:
        return ctx.step("restore_items", _total, part, id=id, number=number)

    def bury(part: list[Any], number: int) -> Ask:
        return ctx.step("restore_letters", _total, part, id=id, number=number)

    def remind(part: list[Any], number: int) -> Ask:
        remember = ctx.options.remember
        return ctx.step(
            "restore_memory", _total, part, id=id, number=number, epoch=epoch, remember=remember
        )

    if ctx.options.grouped:
        # First: the items' turns go by their groups' own values.
        yield limit, map(limits_of, lines.of("limits"))
    yield load, _fields_by_step(map(stored, lines.of("item")))
    if ctx.keys.prefix is not None:
        yield bury, _fields_by_step(map(letter, lines.of("dead")))
    if keeps:
        yield remind, _reminders(ctx, lines, epoch)


def _total(reply: Any) -> int:
    return -1 if reply == -1 else count(reply)


class _Begun(NamedTuple):
    """The progress of a restore: its epoch, its performed steps, and the items that they queued."""

    status: int
    epoch: bytes
    done: int
    queued: int


def _begun(reply: Any) -> _Begun:
    status, epoch, done, queued = listed(reply, 4)
    return _Begun(count(status, 3), bytes_of(epoch), count(done), count(queued))


def _begin(ctx: Context, arguments: dict[str, Any]) -> Operation[_Begun]:
    """Mark the set as being restored."""
    while True:
        begun: _Begun = yield ctx.step("restore_begin", _begun, **arguments)
        if begun.status == 1:
            return begun
        if begun.status != 2:
            break
        # Buckets of a cleared memory may have the names of those that are restored.
        yield from sweep(ctx)
    if begun.status == 3:
        raise ValueError(
            f"the set {ctx.name!r} has part of other lines, whose restore was cut off: restore "
            "those lines again, to the end, or clear() the set"
        )
    raise ValueError(
        f"the set {ctx.name!r} must be empty, and remember nothing, to be restored: clear() it"
    )


def _check_digest(ctx: Context, payload: bytes, digest: bytes) -> None:
    """Refuse an item with a wrong digest. Items that cannot be decoded keep their digest."""
    if not digest:
        return
    try:
        own = ctx.codec.identity(_item_of(ctx, payload))
    except NOT_OF_ITEM:
        raise
    except Exception:
        return
    if own != digest:
        raise ValueError(
            f"lines must be those of export(), and the digest of {payload[:100]!r} is not that of "
            f"its key in {ctx.name!r}: another key=, or a file that was changed"
        )


def _check_buckets(lines: Lines) -> None:
    """Refuse a memory whose integers would crowd some buckets: the integers of a set do not."""
    buckets = -(-lines.known // FILL)
    size = 1 << (buckets.bit_length() - 1)
    split = buckets - size
    filled = array("L", bytes(array("L").itemsize * buckets))
    for value in lines.of("known"):
        for integer in value["known"]:
            low = int(integer[-9:].lstrip("-"))
            bucket = low % size
            if bucket < split:
                bucket = low % (size * 2)
            filled[bucket] += 1
            if filled[bucket] > CROWDED:
                raise ValueError(
                    "lines must be those of export(), and these are not spread as a memory's "
                    f"integers are: more than {CROWDED} of {lines.known} in one bucket"
                )


def _again(ctx: Context, value: dict[str, Any]) -> Row:
    """Return the stored form of an item of a set with another kind of identity."""
    row = row_of(value, False)
    try:
        item = _item_of(ctx, row.payload)
        member = ctx.codec.identity(item)
    except NOT_OF_ITEM:
        raise
    except Exception as error:
        raise OptionsDiffer(
            f"an item of the lines has no identity in {ctx.name!r}, which has "
            f"{ctx.options.text}: {error}"
        ) from error
    return row._replace(member=member)


def _placed(ctx: Context, value: dict[str, Any], ties: Iterator[int]) -> bytes:
    """Return the score that a set with ``ties=`` stores for a line."""
    if value["score"] is None:
        return b""
    try:
        score = ctx.scores.parse(value["score"])
    except ValueError as error:
        raise OptionsDiffer(
            f"an item of the lines cannot be in {ctx.name!r}, which has {ctx.options.text}: {error}"
        ) from error
    tie = tie_of(value)
    return ctx.scores.encode(score, next(ties) if tie is None else tie)


def _reminders(ctx: Context, lines: Lines, epoch: bytes) -> Iterator[list[Any]]:
    remembered = lines.head["remember"]
    for value in lines.of("known"):
        known = known_of(value, remembered)
        if remembered == "limited" and ctx.options.remember == "ever":
            known = [ctx.wire.memory_integer(name, epoch) for name in known[1::2]]
        for at in range(0, len(known), SCRIPT_CHUNK):
            yield known[at : at + SCRIPT_CHUNK]


def _fields_by_step(rows: Iterator[Any]) -> Iterator[list[Any]]:
    """Yield the fields of rows, as many as a step takes by number and bytes."""
    fields: list[Any] = []
    num = size = 0
    for row in rows:
        fields += row
        num += 1
        size += sum(len(field) for field in row if type(field) is bytes)
        if num == SCRIPT_CHUNK or size >= CHUNK_BYTES:
            yield fields
            fields, num, size = [], 0, 0
    if fields:
        yield fields
