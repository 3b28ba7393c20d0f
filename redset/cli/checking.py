"""The command check: one line a problem, for cron, Kubernetes and Nagios."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from redset import SetInfo, check_server, list_sets
from redset.cli.connection import Settings, text_of
from redset.cli.output import Output, duration, shown
from redset.cli.parameters import SET, Duration, json_option, pass_settings
from redset.cli.program import NO, Command
from redset.cli.watching import is_idle, silence_of


@click.command("check", cls=Command)
@click.argument("names", nargs=-1, type=SET, metavar="[NAME]...")
@click.option("--dead", type=click.IntRange(0), default=0, help="Dead letters allowed. Default 0.")
@click.option("--late", type=click.IntRange(0), default=0, help="Late leases allowed. Default 0.")
@click.option("--oldest", type=Duration(), default=300.0, help="Age allowed. Default 5m.")
@click.option("--idle", type=Duration(), default=60.0, help="Silence allowed. Default 60s.")
@click.option("--server", is_flag=True, help="Check the server's configuration, too.")
@json_option
@pass_settings
def check(
    settings: Settings,
    names: tuple[Any, ...],
    dead: int,
    late: int,
    oldest: float,
    idle: float,
    server: bool,
    output: Output,
) -> int:
    """Print a line for each problem of some sets, or of all. Exit with 1 if there is one.

    Problems are: dead letters, leases past their time, the oldest item of a set of times, and
    available items although no consumer was heard of.

    \b
    Examples:
      redset check
      redset check pages --dead 10 --oldest 1h
    """
    found = 0
    for info in list_sets(settings.client(), list(names) or None):
        for problem, text in problems(info, dead, late, oldest, idle):
            found += 1
            printed(output, text_of(info.name), problem, text)
    if server:
        for warning in check_server(settings.client()):
            found += 1
            printed(output, None, "server", warning)
    return NO if found else 0


def printed(output: Output, name: str | None, problem: str, text: str) -> None:
    """Print a problem."""
    if output.as_json:
        output.record({"name": name, "problem": problem, "text": text})
    elif name is None:
        output.line(text)
    else:
        output.line(f"{shown(name)}: {text}")


def problems(
    info: SetInfo, dead: int, late: int, oldest: float, idle: float
) -> Iterator[tuple[str, str]]:
    """Yield the problems of a set: a word, and a text."""
    figures = info.figures
    if figures is None:
        return
    if figures.dead > dead:
        yield "dead", f"{figures.dead} dead letters"
    if figures.late > late:
        yield "late", f"{figures.late} leases are late"
    age = figures.oldest_age
    if age is not None and age > oldest:
        yield "oldest", f"the oldest item is {duration(age)} old"
    if is_idle(info, idle):
        silent = silence_of(info)
        since = "" if silent is None else f" for {duration(silent)}"
        yield "idle", f"{figures.available} items are available, no consumer was heard of{since}"


COMMANDS = {"check": check}
