"""The commands leases and wait: what is held by workers, and how long it lasts."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import click

from redset import SortedSet
from redset.cli.connection import SetOptions, Settings, bytes_of
from redset.cli.output import Column, Output, duration, number, text_column
from redset.cli.parameters import (
    Duration,
    json_option,
    name_argument,
    pass_settings,
    server_time,
    set_options,
)
from redset.cli.program import NO, Command

#: Time between two looks of wait, in seconds: the first, and the longest.
FIRST, LONGEST = 0.1, 1.0


@click.command("leases", cls=Command)
@name_argument
@click.option("--late", is_flag=True, help="Only leases past their time.")
@click.option("--worker", help="Only leases of this worker.")
@set_options
@json_option
@pass_settings
def leases(
    settings: Settings,
    name: Any,
    late: bool,
    worker: str | None,
    options: SetOptions,
    output: Output,
) -> int:
    """Print leased and delayed items: until when, how often they failed, and why.

    Late ones are first. Exit with 1 if there are none.

    \b
    Example:
      redset leases pages --late
    """
    queue = settings.open(name, options)
    now = server_time(settings)
    grouped = [text_column("group", "GROUP", 24)] if options.group else []
    columns = [
        Column("left", "LEFT", duration),
        Column("attempts", "TRIES"),
        Column("score", "SCORE"),
        text_column("worker", "WORKER", 12),
        *grouped,
        text_column("item", "ITEM", max(20, output.width - 40 - 25 * len(grouped))),
    ]
    found = output.rows(columns, rows_of(queue, now, late, worker))
    return 0 if found else 1


def rows_of(
    queue: SortedSet[Any], now: float, late: bool, worker: str | None
) -> Iterator[dict[str, Any]]:
    """Yield the leases in order of their ends."""
    for row in queue.leased():
        if late and row.expires >= now:
            return
        if worker is not None and row.worker != worker:
            continue
        yield {
            "left": round(row.expires - now, 3),
            "attempts": row.attempts,
            "score": row.score,
            "worker": row.worker,
            "item": bytes_of(row.item),
            "expires": row.expires,
            "error": row.error,
            "group": row.group,
        }


class Until(click.ParamType):
    """A state to wait for: ``finished``, ``empty`` or ``below:N``."""

    name = "state"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if value in ("finished", "empty") or re.fullmatch(r"below:\d{1,15}", value):
            return value
        raise click.BadParameter(f"must be finished, empty or below:N, got {value!r}")


@click.command("wait", cls=Command)
@name_argument
@click.option("--until", type=Until(), default="finished", help="finished, empty or below:N.")
@click.option("--timeout", type=Duration(), help="Time to wait. Default: no limit.")
@set_options
@json_option
@pass_settings
def wait(
    settings: Settings,
    name: Any,
    until: str,
    timeout: float | None,
    options: SetOptions,
    output: Output,
) -> int:
    """Wait until a set is finished: nothing queued, leased or delayed. Exit with 1 at the timeout.

    "empty" waits until nothing is queued, "below:N" until fewer than N items are.

    \b
    Example:
      redset wait pages --until below:1000 --timeout 10m
    """
    queue = settings.open(name, options)
    began, pause = time.monotonic(), FIRST
    while True:
        size, reached = state(queue, until, settings.read_only)
        waited = time.monotonic() - began
        if reached or (timeout is not None and waited >= timeout):
            break
        left = pause if timeout is None else min(pause, timeout - waited)
        time.sleep(max(left, 0.001))
        pause = min(LONGEST, 1.5 * pause)
    if output.as_json:
        output.record({"reached": reached, "size": size, "seconds": round(waited, 2)})
    elif output.is_terminal and not reached:
        output.line(f"after {number(round(waited, 1))} s: {size:,} items are queued")
    return 0 if reached else NO


def state(queue: SortedSet[Any], until: str, read_only: bool) -> tuple[int, bool]:
    """Return the number of queued items, and whether the state is reached."""
    size = queue.size()
    if until == "finished":
        if not read_only:
            return size, not size and queue.finished()
        # `finished` may return expired leases. Leases are looked at before and after the queue.
        held = any(True for _ in queue.leased())
        return size, not (size or held or queue.size())
    return size, size < (1 if until == "empty" else int(until.partition(":")[2]))


COMMANDS = {"leases": leases, "wait": wait}
