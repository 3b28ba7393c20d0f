"""The command groups: the groups of a set, and which of them may start."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import click

from redset import SortedSet
from redset.cli.connection import SetOptions, Settings
from redset.cli.output import Column, Output, duration, number, text_column
from redset.cli.parameters import (
    json_option,
    name_argument,
    pass_settings,
    server_time,
    set_options,
)
from redset.cli.program import NO, Command


@click.command("groups", cls=Command)
@name_argument
@click.argument("pattern", required=False)
@click.option("--ready", is_flag=True, help="Only groups that may start.")
@click.option("--resting", is_flag=True, help="Only groups that rest.")
@set_options
@json_option
@pass_settings
def groups(
    settings: Settings,
    name: Any,
    pattern: str | None,
    ready: bool,
    resting: bool,
    options: SetOptions,
    output: Output,
) -> int:
    """Print the groups of a set: what is queued and leased, until when they rest, their limits.

    PATTERN has *, ? and [abc]. Limits and intervals are those of the set's programs, or own ones.
    Exit with 1 if there are none.

    \b
    Example:
      redset groups pages '*.example.org' --resting
    """
    queue = settings.open(name, options)
    now = server_time(settings)
    columns = [
        text_column("group", "GROUP", max(20, output.width - 56)),
        Column("queued", "QUEUED"),
        Column("leased", "LEASED"),
        Column("ready", "READY", lambda value: "yes" if value else "-"),
        Column("rests", "RESTS", rest),
        Column("limit", "LIMIT"),
        Column("interval", "INTERVAL", lambda value: f"{number(value)}s" if value else "-"),
    ]
    found = (
        row
        for row in rows_of(queue, now)
        if (row["ready"] or not ready)
        and (row["rests"] is not None or not resting)
        and (pattern is None or fnmatchcase(row["group"] or "", pattern))
    )
    return 0 if output.rows(columns, found) else NO


def rest(seconds: float | None) -> str:
    return "forever" if seconds == math.inf else duration(seconds)


def rows_of(queue: SortedSet[Any], now: float) -> Iterator[dict[str, Any]]:
    """Yield the groups."""
    for group in queue.groups():
        until = group.rests_until
        yield {
            "group": group.name,
            "queued": group.queued,
            "leased": group.leased,
            "ready": group.ready,
            "rests": None if until is None else round(max(0.0, until - now), 3),
            "limit": group.limit,
            "interval": group.interval,
        }


COMMANDS = {"groups": groups}
