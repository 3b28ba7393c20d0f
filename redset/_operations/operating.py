"""Operators' calls: the workers of a set, its pause, and reports outside of other calls."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from redset import _operations
from redset._operations.context import Context
from redset._operations.replies import bytes_of, count, is_answer, listed, optional, up_to
from redset._operations.reporting import process_name
from redset._transport.effects import Ask, Operation

if TYPE_CHECKING:
    from redset._operations.glancing import Paused


class Worker(NamedTuple):
    """A process that works on a set, as it last reported.

    Attributes
    ----------
    id : str
        Its name in the tokens of leases, and in ``worker`` of `leased`.
    host : str
        The host.
    pid : int
        The process's number there.
    since : float
        The Unix time at which it began.
    seen : float
        The Unix time of its last report.
    held : int
        Leases that it has.
    done : int
        Jobs that it acknowledged.
    failed : int
        Jobs that failed.
    label : str
        Its ``REDSET_LABEL``.

    Examples
    --------
    >>> jobs.add("first")
    0.0
    >>> [worker] = jobs.workers()
    >>> worker.held, worker.done
    (0, 0)
    """

    id: str
    host: str
    pid: int
    since: float
    seen: float
    held: int
    done: int
    failed: int
    label: str


def report(ctx: Context) -> Operation[None]:
    """Report at once, if there is something new. No error of it is the caller's."""
    for rider in ctx.reporter.ride(at_once=True):
        try:
            answer = yield Ask(rider.data, 1, rider.script, False)
        except Exception as error:
            if not is_answer(error):
                return
            rider.done(error)
        else:
            rider.done(answer)


def pause(ctx: Context, why: str) -> Operation[None]:
    """Hold the consumers back."""
    ctx.keys.check_prefix()
    fields = {"by": process_name(), "why": why}
    yield ctx.step("pause", count, text=json.dumps(fields)[1:])
    ctx.reporter.note_pause(True)


def resume(ctx: Context) -> Operation[bool]:
    """Let the consumers go on. Return whether the set was paused."""
    if ctx.keys.prefix is None:
        return False
    there: int = yield ctx.command(b"UNLINK", ctx.keys.paused, reads=up_to(1))
    ctx.reporter.note_pause(False)
    return there > 0


def paused(ctx: Context) -> Operation[Paused | None]:
    """Return the pause of the set, if it is paused."""
    if ctx.keys.prefix is None:
        return None
    text = yield ctx.command(b"GET", ctx.keys.paused, reads=optional(bytes_of))
    return _operations.glancing.paused_of(text)


def workers(ctx: Context) -> Operation[list[Worker]]:
    """Return the processes that reported within the last hour, latest first."""
    if ctx.keys.prefix is None:  # a set without second keys has no reports
        return []
    lines: list[tuple[bytes, bytes]] = yield ctx.command(b"HGETALL", ctx.keys.workers, reads=_pairs)
    found = [_worker_of(name, line) for name, line in lines]
    return sorted((each for each in found if each), key=lambda each: (-each.seen, each.id))


def _pairs(reply: Any) -> list[tuple[bytes, bytes]]:
    if isinstance(reply, dict):
        return [(bytes_of(name), bytes_of(line)) for name, line in reply.items()]
    parts = [bytes_of(each) for each in listed(reply)]
    return list(zip(parts[::2], parts[1::2], strict=False))


def _worker_of(name: bytes, line: bytes) -> Worker | None:
    """Read a worker's line; None if another program wrote it."""
    stored = _operations.glancing.fields_of(line) or {}

    def number(field: str) -> int:
        value = stored.get(field)
        is_number = isinstance(value, (int, float)) and math.isfinite(value)
        return int(value) if is_number else 0  # type: ignore[arg-type]

    if not stored:
        return None
    return Worker(
        name.decode("utf-8", "replace"),
        str(stored.get("host", "")),
        number("pid"),
        float(number("since")),
        float(number("seen")),
        number("held"),
        number("done"),
        number("failed"),
        str(stored.get("label", "")),
    )
