"""Set algebra in bounded steps: by the server between two of its sets, else by pages and chunks.

Only a step is atomic. A call may see or miss the changes that other clients make during it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, TypeVar

from redset._operations.adding import (
    Adder,
    AddResult,
    Flags,
    OtherEpoch,
    Refusal,
    head_of,
    refusal_of,
)
from redset._operations.codec import Key
from redset._operations.context import Context
from redset._operations.grouped import framed, payload_in
from redset._operations.limits import HEAVY_CHUNK, SCRIPT_CHUNK, STEP, cut_by_bytes
from redset._operations.memory import discard_members, tokens_of
from redset._operations.operating import report
from redset._operations.reading import Page, page_behind, unreadable
from redset._operations.reading import size as size_of
from redset._operations.replies import (
    Reader,
    bytes_of,
    count,
    list_of,
    listed,
    number,
    numbers_or_none,
    optional,
    refuse,
    up_to,
)
from redset._operations.state import new_epoch
from redset._operations.streaming import LONG, add_stream
from redset._transport.effects import Ask, AskOther, Operation, Pull
from redset.exceptions import AddError, OptionsDiffer

T = TypeVar("T")

#: The outcome of a refused item, among those of a chunk.
REFUSED = ord("r")


class Other(NamedTuple):
    """The other set. Its ``link`` is None if it is on the same server."""

    ctx: Context
    link: Any


def check_operand(ctx: Context, other: Other) -> None:
    """Refuse the set itself, and a set with other identities or another order."""
    check_keys(ctx, other)
    check_ties(ctx, other)
    check_not_same(ctx, other)


def check_ties(ctx: Context, other: Other) -> None:
    """Refuse a set with another order."""
    if ctx.options.ties != other.ctx.options.ties:
        raise OptionsDiffer(
            f"the set {ctx.name!r} has {ctx.options.text}, and {other.ctx.name!r} has "
            f"{other.ctx.options.text}: they order equal scores in different ways"
        )


def check_not_same(ctx: Context, other: Other) -> None:
    """Refuse the set itself, also if the other object of it has no ``ties``."""
    if other.link is None and other.ctx.keys.name == ctx.keys.name:
        raise ValueError(f"other must be another set, and {other.ctx.name!r} is the set itself")


def check_keys(ctx: Context, other: Other) -> None:
    """Refuse a set whose items have other identities."""
    check_copied_keys(ctx, other)
    if ctx.options.keyed != other.ctx.options.keyed:
        raise OptionsDiffer(
            f"the set {ctx.name!r} has {ctx.options.text}, and {other.ctx.name!r} has "
            f"{other.ctx.options.text}: without key= only update and move_many copy items from one "
            "to the other"
        )


def check_copied_keys(ctx: Context, other: Other) -> None:
    """Refuse a set whose items would have other identities in this one."""
    if ctx.options.has_key != other.ctx.options.has_key:
        raise OptionsDiffer(
            f"the set {ctx.name!r} has {ctx.options.text}, and {other.ctx.name!r} has "
            f"{other.ctx.options.text}: with and without key= they can have no item in common"
        )
    ours, theirs = ctx.codec.key, other.ctx.codec.key
    fields = str, tuple
    if isinstance(ours, fields) and isinstance(theirs, fields) and ours != theirs:
        raise OptionsDiffer(
            f"the set {ctx.name!r} has key={ours!r}, and {other.ctx.name!r} has key={theirs!r}: "
            "they can have no item in common"
        )


def _is_alike(ctx: Context, other: Other) -> bool:
    """Return whether both sets store an item in the same form."""
    return ctx.options.grouped == other.ctx.options.grouped


def is_same(ctx: Context, other: Other) -> bool:
    """Return whether the other is the set itself."""
    return other.link is None and other.ctx.keys.queue == ctx.keys.queue


# --- between two sets


def update(ctx: Context, other: Other) -> Operation[None]:
    """Add the other set's items that are new, or have a lower score there."""
    check_copied_keys(ctx, other)
    check_ties(ctx, other)
    check_not_same(ctx, other)
    if other.link is None and not ctx.options.remember and _is_alike(ctx, other):
        yield from _by_server(ctx, other, "or")
        return
    to = ctx.of_serialised()
    yield from _each_page(other, lambda page: _add_page(to, other, page))


def subtract(ctx: Context, other: Other) -> Operation[None]:
    """Remove the items that the other set has."""
    check_operand(ctx, other)
    if other.link is None:
        yield from _by_server(ctx, other, "sub")
        return
    yield from _each_page(other, lambda page: discard_members(ctx, page.members))


def intersect(ctx: Context, other: Other) -> Operation[None]:
    """Remove items that the other does not have."""
    check_operand(ctx, other)
    if other.link is None:
        yield from _by_server(ctx, other, "and")
        return

    def keep(page: Page) -> Operation[None]:
        there = yield from _are_in(other, page.members)
        yield from discard_members(ctx, _picked(page.members, there, False))

    yield from _each_page(Other(ctx, None), keep)


def exclude(ctx: Context, other: Other) -> Operation[None]:
    """Remove items that both have, and add items that only the other has."""
    check_operand(ctx, other)
    if other.link is None and not ctx.options.remember and _is_alike(ctx, other):
        yield from _by_server(ctx, other, "xor")
        return
    to = ctx.of_serialised()

    def flip(page: Page) -> Operation[None]:
        here = yield from _are_in(Other(ctx, None), page.members)
        yield from _add_page(to, other, page, [not is_in for is_in in here])
        yield from discard_members(ctx, _picked(page.members, here, True))

    yield from _each_page(other, flip)


def is_disjoint(ctx: Context, other: Other) -> Operation[bool]:
    """Return whether the two have no item in common."""
    check_keys(ctx, other)
    if is_same(ctx, other):
        return (yield from size_of(ctx)) == 0
    return (yield from _throughout(ctx, other, lambda found, both: both == 0))


Comparison = Literal["==", "<=", "<", ">=", ">"]


def compare(ctx: Context, other: Other, how: Comparison) -> Operation[bool]:
    """Compare the items of two sets, without their scores."""
    if is_same(ctx, other):
        return "=" in how
    try:
        check_keys(ctx, other)
    except OptionsDiffer:
        if how == "==":
            return False
        raise
    ours = yield from size_of(ctx)
    theirs = yield from _at(other, other.ctx.command(b"ZCARD", other.ctx.keys.queue, reads=count))
    if not _may_be(ours, theirs, min(ours, theirs), how):
        return False
    if how in (">=", ">"):
        return (yield from _are_all_here(ctx, other))
    return (yield from _throughout(ctx, other, lambda found, both: both == found))


def _may_be(ours: int, theirs: int, both: int, how: Comparison) -> bool:
    """Return whether a comparison holds for sets of these sizes with so many common items."""
    subset, superset = both == ours, both == theirs
    if how == "==":
        return subset and superset
    if how[0] == "<":
        return subset and ("=" in how or not superset)
    return superset and ("=" in how or not subset)


def _are_all_here(ctx: Context, other: Other) -> Operation[bool]:
    if other.link is None:
        mine = Other(ctx, None)
        return (yield from _throughout(other.ctx, mine, lambda found, both: both == found))
    last: list[bytes] = []
    while page := (yield from _page(other, last)):
        last = page.end
        if not all((yield from _are_in(Other(ctx, None), page.members))):
            return False
    return True


def _throughout(ctx: Context, other: Other, holds: Callable[[int, int], bool]) -> Operation[bool]:
    """Return whether a condition holds for each page of this set.

    Its arguments are the number of items on the page, and of those that the other set has.
    """
    last: list[bytes] = []
    while True:
        if other.link is None:
            found, both, last, _ = yield from _step(ctx, other, "in", last)
        else:
            page = yield from _page(Other(ctx, None), last)
            found, both = 0, 0
            if page is not None:
                last = page.end
                there = yield from _are_in(other, page.members)
                found, both = len(there), sum(there)
        if not found:
            return True
        if not holds(found, both):
            return False


def _at(other: Other, ask: Ask) -> Operation[Any]:
    if other.link is None:
        return (yield ask)
    return (yield AskOther(other.link, ask))


def _page(other: Other, last: list[bytes]) -> Operation[Page | None]:
    page: Page = yield from _at(other, page_behind(other.ctx, STEP, None, last))
    return page if page.members else None


def _each_page(other: Other, do: Callable[[Page], Operation[Any]]) -> Operation[None]:
    """Perform an operation for each page of the other set."""
    last: list[bytes] = []
    while page := (yield from _page(other, last)):
        last = page.end
        yield from do(page)


def _picked(values: list[T], marks: list[bool], mark: bool) -> list[T]:
    """Return the values that have this mark."""
    return [value for value, own in zip(values, marks, strict=True) if own == mark]


def _are_in(other: Other, names: list[bytes]) -> Operation[list[bool]]:
    ctx = other.ctx
    are_in: list[bool] = []
    for part in cut_by_bytes(names, STEP):
        reads = numbers_or_none(len(part))
        scores = yield from _at(other, ctx.command(b"ZMSCORE", ctx.keys.queue, *part, reads=reads))
        are_in += [score is not None for score in scores]
    return are_in


def _add_page(
    to: Context, other: Other, page: Page, which: list[bool] | None = None
) -> Operation[None]:
    """Add the other set's items, as they are stored, at their scores there."""
    items: list[Any] = []
    scores = []
    for at, (raw, score) in enumerate(zip(page.payloads, page.scores, strict=True)):
        if raw is not None and (which is None or which[at]):
            items.append(raw)
            scores.append(other.ctx.scores.decode(float(score)))
    items = yield from _serialised_for(to, other.ctx, items)
    if items:
        yield from _add_serialised(to, items, scores, Flags(lt=True))


def _serialised_for(to: Context, ctx: Context, stored: list[Any]) -> Operation[list[Any]]:
    """Return stored items of a set in the form that a context `of_serialised` of another takes.

    Items of a set with groups keep their group. Others get that of the other set.
    """
    if not (to.options.keyed or ctx.options.keyed):
        return stored
    # The key of a digest without a payload is unknown.
    found, bad = yield from ctx.codec.decode(stored)
    if bad:
        raise unreadable(ctx, bad[0].error) from bad[0].error
    raws = list(map(payload_in, stored)) if ctx.options.grouped else stored
    if not to.options.keyed:
        return raws
    keys = raws
    if ctx.options.has_key:
        try:
            keys = [ctx.codec.key_bytes(item) for item in found]
        except (TypeError, ValueError) as error:
            raise unreadable(ctx, error) from error
    if ctx.options.grouped:
        raws = stored if to.options.grouped else raws
    elif to.codec.group_of is not None:
        group_of = to.codec.group_of
        raws = [framed(group_of(item), raw) for item, raw in zip(found, raws, strict=True)]
    return list(zip(raws, keys, strict=True))


def _add_serialised(
    ctx: Context, items: list[Any], scores: list[float] | None, flags: Flags
) -> Operation[AddResult]:
    pulled = items, scores
    try:
        return (yield from add_stream(ctx, None, flags, "raise", True, False, (), pulled, False))
    except AddError as error:
        # Its position is that in a page, which the caller does not know.
        if isinstance(error.__cause__, Exception):
            raise error.__cause__ from None
        raise


class _Step(NamedTuple):
    """The number of a page's members, the number of those in both sets, and the page's end.

    Of the members that were added, how many are new, how many moved, and how many were refused.
    """

    found: int
    both: int
    end: list[bytes]
    adds: tuple[int, int, int]


def _by_server(ctx: Context, other: Other, what: str) -> Operation[None]:
    last: list[bytes] = []
    steps = 0
    if what in ("or", "xor"):
        ctx.reporter.begin()
    while True:
        step = yield from _step(ctx, other, what, last)
        if not step.found:
            break
        ctx.reporter.count_adds(*step.adds)
        last = step.end
        steps += 1
    yield from _report_adds(ctx, steps)


def _report_adds(ctx: Context, steps: int) -> Operation[None]:
    """Report at the end of a long call, and of the first one."""
    if ctx.reporter.is_new or steps >= LONG:
        yield from report(ctx)


def _step(ctx: Context, other: Other, what: str, last: list[bytes]) -> Operation[_Step]:
    ours, theirs = ctx.keys, other.ctx.keys
    keys = {"other": theirs.queue, "queue": ours.queue}
    if ours.prefix is not None:
        keys |= {"none": ours.none, "leased": ours.leased, "leases": ours.leases}
    if ctx.options.keyed or ctx.options.ties:
        keys |= {"meta": ours.meta, "seen": ours.seen, "items": ours.items, "name": ours.name}
    if ctx.options.keyed:
        keys["payloads"] = theirs.items
    if ctx.options.grouped:
        keys |= ours.of_groups
    heavy = what in ("or", "xor") and (
        ctx.options.keyed or ctx.options.ties or ctx.options.max_size
    )
    num = HEAVY_CHUNK if heavy else SCRIPT_CHUNK
    first = other.ctx.sizes.first if other.ctx.sizes.largest else ctx.sizes.first
    score, member = last or (b"", b"")
    # If it were sent a second time, it would add the common items again.
    again = what != "xor"
    ask = ctx.step(
        "algebra",
        _step_of(num, last),
        keys=keys,
        resend=again,
        what=what,
        num=num,
        first=first,
        last_score=score,
        last_member=member,
        **head_of(ctx, "lt"),
    )
    reply: _Step | Refusal = yield from _same_slot(ctx, other, ask)
    if isinstance(reply, Refusal):
        raise reply.error(ctx)
    return reply


def _step_of(num: int, last: list[bytes]) -> Reader[_Step | Refusal]:
    def read(reply: Any) -> _Step | Refusal:
        parts = listed(reply)
        refusal = refusal_of(parts, (b"OPTIONS", b"NAME", b"FULL"))
        if refusal is not None:
            return refusal
        parts = listed(reply, 7)
        found = count(parts[0], num)
        end = [bytes_of(parts[2]), bytes_of(parts[3])]
        if found and end == last:
            found = -1
        new, moved, refused = (count(part, num) for part in parts[4:])
        return _Step(count(found, num), count(parts[1], found), end, (new, moved, refused))

    return read


# --- moving


def move(ctx: Context, items: list[Any], other: Other) -> Operation[int]:
    """Move queued items to the other set, as an add does. Return the number that it accepted."""
    check_copied_keys(ctx, other)
    check_not_same(ctx, other)
    if other.link is not None:
        raise ValueError(
            f"other must be on the server of {ctx.name!r}, for each chunk to be moved in one step"
        )
    names = list(dict.fromkeys((yield from ctx.codec.identities(items))))
    if not _is_alike(ctx, other):
        return (yield from _move_converted(ctx, names, other.ctx))
    step = HEAVY_CHUNK if other.ctx.options.remember else SCRIPT_CHUNK
    moved = steps = 0
    other.ctx.reporter.begin()
    for part in cut_by_bytes(names, step):
        while part:
            found = yield from _move(ctx, part, other)
            moved += found.moved
            steps += 1
            other.ctx.reporter.count_adds(*found.adds)
            part = part[found.done :]
    yield from _report_adds(other.ctx, steps)
    return moved


def _move(ctx: Context, names: list[bytes], other: Other) -> Operation[_Moved]:
    """Move as many members as fit a step."""
    to = other.ctx
    ours, theirs = ctx.keys, to.keys
    keys = {"ours": ours.queue, "none": ours.none, "our_leases": ours.leases}
    keys |= {"our_items": ours.items, "queue": theirs.queue, "leased": theirs.leased}
    keys |= {"leases": theirs.leases, "meta": theirs.meta, "seen": theirs.seen}
    keys |= {"items": theirs.items, "name": theirs.name}
    if to.options.grouped:
        keys |= theirs.of_groups
    epoch = (yield from to.know_epoch()) if to.options.remember else None
    while True:
        proposed, tokens = epoch is None, []
        if to.options.remember:
            epoch = epoch or new_epoch()
            if to.options.remember == "ever" or not to.options.keyed:
                tokens = tokens_of(to, names, epoch)
        head = head_of(
            to, to.options.condition, outcomes=True, epoch=epoch or b"", proposed=proposed
        )
        ask = ctx.step(
            "move",
            _moved(len(names)),
            [*names, *tokens],
            keys,
            num=len(names),
            first=ctx.sizes.first,
            tied=bool(ctx.options.ties),
            **head,
        )
        reply: _Moved | Refusal = yield from _same_slot(ctx, other, ask)
        if not isinstance(reply, Refusal):
            if to.options.remember:
                to.memory.epoch = epoch
            return reply
        if reply.word == b"SCORE":
            raise ValueError(
                f"items of {ctx.name!r} must have scores that {to.name!r} can have: whole numbers "
                f"from -4096 to 4095, since it has ties=, got {number(reply.detail)!r} (float)"
            )
        if reply.word != b"EPOCH":
            raise reply.error(to)
        to.memory.epoch = epoch = reply.detail or None


def _move_converted(ctx: Context, names: list[bytes], to: Context) -> Operation[int]:
    """Move items of a set with groups to one without, or the reverse, through this process.

    Not in one step: an item is added there before it is removed here.
    """
    serialised, moved = to.of_serialised(), 0
    for part in cut_by_bytes(names, HEAVY_CHUNK):
        scores = yield from _scores_of(ctx, part)
        stored: list[Any] = part
        if ctx.options.keyed:
            reads = list_of(optional(bytes_of), len(part))
            stored = yield ctx.command(b"HMGET", ctx.keys.items, *part, reads=reads)
        there = [at for at in range(len(part)) if None not in (scores[at], stored[at])]
        given = yield from _serialised_for(serialised, ctx, [stored[at] for at in there])
        taken = yield from _accepted(
            serialised, given, [ctx.scores.decode(scores[at]) for at in there]
        )
        yield from discard_members(ctx, [part[there[at]] for at in taken])
        moved += len(taken)
    return moved


def _scores_of(ctx: Context, names: list[bytes]) -> Operation[list[Any]]:
    reads = numbers_or_none(len(names))
    found: list[Any] = yield ctx.command(b"ZMSCORE", ctx.keys.queue, *names, reads=reads)
    return found


def _accepted(to: Context, items: list[Any], scores: list[Any]) -> Operation[list[int]]:
    """Add items. Return the places of those that were accepted."""
    if not items:
        return []
    adder = Adder(to, Flags(), None, True)
    yield from adder.prepare()
    places, taken = list(range(len(items))), list[int]()
    while places:
        some = [items[at] for at in places]
        chunks, _, _ = adder.encode(some, [scores[at] for at in places], False, None)
        chunk = chunks[0]
        if chunk.bad:
            raise chunk.bad[0].error
        reply = yield adder.ask(chunk)
        try:
            outcomes = adder.judge(chunk, reply)[3]
        except OtherEpoch as other:
            adder.begin_again(other)
            continue
        marked = {places[at]: mark for at, mark in zip(chunk.places, outcomes, strict=True)}
        taken += [at for at, mark in marked.items() if mark != REFUSED]
        places = [at for at in places if at not in marked]
    return taken


class _Moved(NamedTuple):
    """The number of members that were moved, and of those that the step looked at.

    Of those that were there, how many are new, how many moved a queued one, and how many were
    refused.
    """

    moved: int
    done: int
    adds: tuple[int, int, int]


def _moved(num: int) -> Reader[_Moved | Refusal]:
    def read(reply: Any) -> _Moved | Refusal:
        parts = listed(reply)
        refusal = refusal_of(parts, (b"EPOCH", b"OPTIONS", b"NAME", b"FULL", b"SCORE"))
        if refusal is not None:
            if refusal.word == b"SCORE":
                number(refusal.detail)
            return refusal
        moved, done, new, updated, refused = list_of(up_to(num), 5)(parts)
        if done == 0:
            raise refuse("at least one member", reply)
        return _Moved(moved, done, (new, updated, refused))

    return read


def _same_slot(ctx: Context, other: Other, ask: Ask) -> Operation[Any]:
    """Perform a step on the keys of both sets."""
    try:
        return (yield ask)
    except Exception as error:
        if not any(text in str(error) for text in ("same slot", "same key slot")):
            raise
        raise ValueError(
            f"other must be in the cluster slot of {ctx.name!r}, and {other.ctx.name!r} is in "
            "another one: give both names one hash tag, like {tag}:name"
        ) from error


# --- with items


def subtract_items(ctx: Context) -> Operation[None]:
    """Remove the items that Pull brings."""
    at = 0
    while chunk := (yield from _pulled()):
        yield from discard_members(ctx, (yield from ctx.codec.identities(chunk, at)))
        at += len(chunk)


def intersect_items(ctx: Context) -> Operation[None]:
    """Remove all items except those that Pull brings."""
    kept: set[bytes] = set()
    at = 0
    while chunk := (yield from _pulled()):
        kept.update((yield from ctx.codec.identities(chunk, at)))
        at += len(chunk)
    yield from _each_page(
        Other(ctx, None),
        lambda page: discard_members(ctx, [name for name in page.members if name not in kept]),
    )


def exclude_items(ctx: Context) -> Operation[None]:
    """Remove the items that Pull brings and that are in the set. Add the others that it brings."""
    given: dict[bytes, Any] = {}
    at = 0
    while chunk := (yield from _pulled()):
        names = yield from ctx.codec.identities(chunk, at)
        for place, (name, item) in enumerate(zip(names, chunk, strict=True)):
            if type(item) is Key:
                raise TypeError(f"item {at + place} must be an item to add, got a Key")
            given[name] = item
        at += len(chunk)
    every = list(given)
    for at in range(0, len(every), STEP):
        part = every[at : at + STEP]
        here = yield from _are_in(Other(ctx, None), part)
        fresh = [given[name] for name in _picked(part, here, False)]
        if fresh:
            yield from _add_serialised(ctx, fresh, None, Flags())
        yield from discard_members(ctx, _picked(part, here, True))


def is_disjoint_from_items(ctx: Context) -> Operation[bool]:
    """Return whether none of the items that Pull brings is queued."""
    at = 0
    while chunk := (yield from _pulled()):
        names = yield from ctx.codec.identities(chunk, at)
        if any((yield from _are_in(Other(ctx, None), names))):
            return False
        at += len(chunk)
    return True


def _pulled() -> Operation[list[Any]]:
    items: list[Any]
    items, _ = yield Pull(STEP)
    return items


def compare_items(ctx: Context, items: Iterable[Any], how: Comparison) -> Operation[bool]:
    """Compare the set with items. Items with equal identities count once."""
    try:
        names = list(set((yield from ctx.codec.identities(list(items)))))
    except Exception:
        if how == "==":  # a foreign object is not equal, even if key or serializer refuse it
            return False
        raise
    both = 0
    for at in range(0, len(names), STEP):
        both += sum((yield from _are_in(Other(ctx, None), names[at : at + STEP])))
    return _may_be((yield from size_of(ctx)), len(names), both, how)
