"""The command top: the sets of a server, live."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from typing import Any

import click

from redset.cli.connection import Settings
from redset.cli.output import Column, Output, duration, short
from redset.cli.overview import BETWEEN, FIGURES, dash
from redset.cli.parameters import Duration, pass_settings
from redset.cli.program import NO, USAGE, Command, Stop, complain
from redset.cli.watching import ORDERS, View, Watcher, totals

COLUMNS = [
    *FIGURES,
    Column("failed", "FAIL/s", dash),
    Column("oldest", "OLDEST", duration),
    Column("left", "LEFT", duration),
]


@click.command("top", cls=Command)
@click.argument("pattern", required=False)
@click.option(
    "--every", type=Duration(least=0.1), default=2.0, help="Time between two looks. Default 2s."
)
@click.option("--once", is_flag=True, help="Print one table, and end.")
@pass_settings
def top(settings: Settings, pattern: str | None, every: float, once: bool) -> int:
    """Show the sets of a server live, full screen: trouble first, then the busiest ones.

    PATTERN has *, ? and [abc]. ? shows the keys. Whatever changes a set asks first; with
    --read-only there is no such key. Exit with 1 after --once if there are no sets.

    \b
    Examples:
      redset top
      redset top 'crawl:*' --every 1
      redset top --once
    """
    match = None if pattern is None else os.fsencode(pattern)
    watcher = Watcher(settings.client(), match, settings.cluster)
    if once:
        return printed(watcher, Output())
    if importlib.util.find_spec("textual") is None:
        raise Stop("textual is missing: pip install 'redset[cli]'", USAGE)
    if not is_screen():
        raise Stop("top needs a terminal that it can draw on; --once prints one table", USAGE)
    # A server that cannot be reached is an error of one line, before the screen changes.
    look = watcher.look()
    from redset.cli.live.app import Top

    return Top(settings, watcher, look, every).run() or 0


def is_screen() -> bool:
    """Return whether the standard streams are a terminal with a cursor that moves."""
    streams = (sys.stdin, sys.stdout)
    terminal = all(stream is not None and stream.isatty() for stream in streams)
    return terminal and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def printed(watcher: Watcher, output: Output) -> int:
    """Print one table, with the rates of a second."""
    look = watcher.look()
    if any(view.info.counts for view in look.views):
        time.sleep(BETWEEN)
        look = watcher.look()
    views = sorted(look.views, key=ORDERS["trouble"])
    if output.is_terminal and views:
        found = totals(views)
        output.line(
            f"{len(views):,} sets: {short(found.queued)} queued, {short(found.leased)} leased, "
            f"{short(found.late)} late, {short(found.dead)} dead"
        )
    output.rows(COLUMNS, rows_of(views))
    output.flush()
    if look.replaced:
        complain(f"{look.replaced:,} registered names are not sorted sets any more")
    if not views and output.is_terminal:
        complain("no set is registered that matches")
    return 0 if views else NO


def rows_of(views: list[View]) -> list[dict[str, Any]]:
    """Return the rows of the table."""
    rows = []
    for view in views:
        figures, rates = view.figures, view.rates
        rows.append(
            {
                "name": view.name,
                "queued": figures.size,
                "leased": figures.leased,
                "late": figures.late,
                "dead": figures.dead,
                "in": None if rates is None else rates.added,
                "out": None if rates is None else rates.done,
                "failed": None if rates is None else rates.failed,
                "oldest": figures.oldest_age,
                "left": view.left,
            }
        )
    return rows


COMMANDS = {"top": top}
