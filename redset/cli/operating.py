"""The commands workers, pause and resume."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

import click

from redset import list_sets
from redset.cli.connection import Settings, text_of
from redset.cli.output import Column, Output, duration, shown, text_column
from redset.cli.parameters import SET, Duration, json_option, pass_settings, server_time
from redset.cli.program import NO, Command, Stop

NAMES = click.argument("names", nargs=-1, required=True, type=SET, metavar="NAME...")


@click.command("workers", cls=Command)
@click.argument("names", nargs=-1, type=SET, metavar="[NAME]...")
@json_option
@pass_settings
def workers(settings: Settings, names: tuple[Any, ...], output: Output) -> int:
    """Print the processes that work on sets, or on all sets: latest report first.

    Processes that were not heard of for an hour are dropped. Exit with 1 if there are none.

    \b
    Example:
      redset workers pages
    """
    columns = [
        text_column("set", "SET", 40),
        text_column("id", "WORKER"),
        text_column("host", "HOST", 24),
        Column("pid", "PID", str),
        Column("up", "UP", duration),
        Column("ago", "HEARD OF", duration),
        Column("held", "HELD"),
        Column("done", "DONE"),
        Column("failed", "FAILED"),
        text_column("label", "LABEL", 24),
    ]
    return 0 if output.rows(columns, rows_of(settings, names)) else NO


def rows_of(settings: Settings, names: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    """Yield the workers, set by set."""
    now = server_time(settings)
    chosen = names or [info.name for info in list_sets(settings.client())]
    for name in chosen:
        for worker in settings.open(name).workers():
            yield {
                "set": text_of(name),
                "id": worker.id,
                "host": worker.host,
                "pid": worker.pid,
                "up": round(now - worker.since, 3),
                "ago": round(max(0.0, now - worker.seen), 3),
                "held": worker.held,
                "done": worker.done,
                "failed": worker.failed,
                "label": worker.label,
                "since": worker.since,
                "seen": worker.seen,
            }


@click.command("pause", cls=Command, writes=True)
@NAMES
@click.option("--why", default="", help="The reason, for people who look.")
@click.option("--group", help="Pause only this group, in a set with groups.")
@click.option("--for", "time", type=Duration(math.inf), help="Time of the pause of a group.")
@json_option
@pass_settings
def pause(
    settings: Settings,
    names: tuple[Any, ...],
    why: str,
    group: str | None,
    time: float | None,
    output: Output,
) -> int:
    """Hold the consumers of sets back, until "redset resume".

    From then on no lease is handed out. pop and take follow within two seconds. Adding, settling
    and looking go on. Programs of redset 0.5.1 do not obey.

    With --group one group rests, for the time of --for or until "resume", and the others go on.

    \b
    Examples:
      redset pause pages --why 'the site is down'
      redset pause pages --group example.org --for 10m
    """
    if group is None and time is not None:
        raise Stop("--for needs --group")
    if group is not None:
        if why:
            raise Stop("--why is stored with the pause of a set, not with that of a --group")
        for name in names:
            settings.open(name).pause_group(group, math.inf if time is None else time)
            report(output, name, "paused", True, group)
        return 0
    reason = os.fsencode(why).decode("utf-8", "replace")
    for name in names:
        settings.open(name).pause(reason)
        report(output, name, "paused", True)
    return 0


@click.command("resume", cls=Command, writes=True)
@NAMES
@click.option("--group", help="End the pause of this group.")
@json_option
@pass_settings
def resume(settings: Settings, names: tuple[Any, ...], group: str | None, output: Output) -> int:
    """End the pause of sets: their consumers go on at once. Exit with 1 if one was not paused.

    With --group the pause of a group ends. It may then wait for its interval.

    \b
    Example:
      redset resume pages
    """
    missing = False
    for name in names:
        if group is not None:
            settings.open(name).pause_group(group, 0)
            report(output, name, "resumed", True, group)
            continue
        was = settings.open(name).resume()
        missing = missing or not was
        report(output, name, "resumed", was)
    return NO if missing else 0


def report(
    output: Output, name: str | bytes, verb: str, done: bool, group: str | None = None
) -> None:
    """Print what was done with a set, or with one of its groups."""
    if output.as_json:
        more = {} if group is None else {"group": group}
        output.record({"name": text_of(name), **more, verb: done})
    elif output.is_terminal:
        which = "" if group is None else f"{shown(group)} of "
        output.line(f"{which}{shown(text_of(name))} {verb if done else 'was not paused'}")


COMMANDS = {"workers": workers, "pause": pause, "resume": resume}
