"""The commands ls and show: the sets of a server in figures."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import Any

import click

from redset import SetInfo, check_server, list_sets
from redset.cli.connection import SetOptions, Settings, bytes_of, text_of
from redset.cli.output import Column, Output, duration, item_fields, short, shown, text_column
from redset.cli.parameters import Duration, json_option, name_argument, pass_settings
from redset.cli.program import NO, Command, Stop, complain
from redset.cli.watching import SILENT, is_idle, silence_of

#: Time between the two looks that rates are made of, in seconds, on a terminal.
BETWEEN = 1.0
#: Dead letters of which `show` finds the last ones.
MANY = 5000
#: The hash of the sets that a server has.
REGISTRY = "redset:sets"
#: Age of an entry of the registry that is dropped if its set is gone, in seconds.
OLD = 30 * 86400
FIELDS = ("trouble", "name", "queued", "leased", "late", "dead", "in", "out", "refused", "oldest")


def rates(before: SetInfo | None, after: SetInfo) -> dict[str, float | None]:
    """Return what a set does a second, from two looks."""
    if before is None or before.figures is None or after.figures is None:
        return {"in": None, "out": None, "refused": None, "failed": None}
    seconds = max(after.figures.time - before.figures.time, 1e-3)

    def rate(*fields: str) -> float:
        counts = (after.counts.get(each, 0) - before.counts.get(each, 0) for each in fields)
        return round(max(0, sum(counts)) / seconds, 3)

    return {
        "in": rate("added"),
        "out": rate("acked", "taken"),
        "refused": rate("refused"),
        "failed": rate("failed"),
    }


def consumers(info: SetInfo) -> str:
    """Return who works on a set, for a column."""
    figures, silent = info.figures, silence_of(info)
    if figures is None:
        return "-"
    if figures.paused:
        return "paused"
    if silent is not None and silent <= SILENT:
        return str(figures.workers)
    if is_idle(info, SILENT):
        return "none" if silent is None else f"none for {duration(silent)}"
    return "-"


def row_of(info: SetInfo, before: SetInfo | None) -> dict[str, Any]:
    """Return a set's line."""
    figures = info.figures
    assert figures is not None
    return {
        "name": text_of(info.name),
        "queued": figures.size,
        "available": figures.available,
        "leased": figures.leased,
        "late": figures.late,
        "dead": figures.dead,
        **rates(before, info),
        "oldest": figures.oldest_age,
        "consumers": consumers(info),
        "workers": figures.workers,
        "paused": figures.paused is not None,
        "idle": is_idle(info, SILENT),
    }


def trouble(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return a key that sorts trouble first, then the busiest sets."""
    troubles = (row["late"] > 0) + row["idle"] + (row["dead"] > 0)
    return -troubles, -(row["out"] or 0), -row["queued"], row["name"]


def is_quiet(row: Mapping[str, Any]) -> bool:
    fields = ("queued", "leased", "late", "dead", "in", "out", "refused", "paused")
    return not any(row[field] for field in fields)


def looked(
    client: Any, match: Any, scan: bool, between: float
) -> list[tuple[SetInfo, SetInfo | None]]:
    """Return the sets that are there, each with an earlier look at it."""
    before: dict[Any, SetInfo] = {}
    infos = list_sets(client, match, scan=scan)
    if between and any(info.counts for info in infos):
        before = {info.name: info for info in infos}
        time.sleep(between)
        infos = list_sets(client, [info.name for info in infos])
    return [(info, before.get(info.name)) for info in infos if info.figures is not None]


def is_gone(info: SetInfo) -> bool:
    """Return whether nothing is left of a set but its entry, which is 30 days old."""
    figures, seen = info.figures, (info.options or {}).get("seen")
    if figures is None or not isinstance(seen, (int, float)) or seen > figures.time - OLD:
        return False
    parts = (figures.size, figures.leased, figures.dead, figures.remembered, figures.workers)
    return not (any(parts) or figures.paused or info.counts)


def prune(client: Any, match: Any) -> int:
    """Drop the entries of sets that are gone. Return their number."""
    names = [info.name for info in list_sets(client, match) if is_gone(info)]
    # A program that uses such a set again enters it again.
    parts = [names[at : at + MANY] for at in range(0, len(names), MANY)]
    return sum(client.hdel(REGISTRY, *part) for part in parts)


def dash(value: Any) -> str:
    return short(value) if value else "-"


#: The first columns of a table of sets.
FIGURES = [
    text_column("name", "SET", 48),
    Column("queued", "QUEUED", dash),
    Column("leased", "LEASED", dash),
    Column("late", "LATE", dash),
    Column("dead", "DEAD", dash),
    Column("in", "IN/s", dash),
    Column("out", "OUT/s", dash),
]
COLUMNS = [
    *FIGURES,
    Column("refused", "REFUSED/s", dash),
    Column("oldest", "OLDEST", duration),
    text_column("consumers", "CONSUMERS"),
]


@click.command("ls", cls=Command)
@click.argument("pattern", required=False)
@click.option("--sort", type=click.Choice(FIELDS), default="trouble", help="Default: trouble.")
@click.option("--all", "all_", is_flag=True, help="Quiet sets, too.")
@click.option("--scan", is_flag=True, help="Look through all keys for sets that never reported.")
@click.option("--prune", "drops", is_flag=True, help="Drop entries of 30 days whose sets are gone.")
@click.option("--rates", "between", type=Duration(), help="Time between two looks. 0 for no rates.")
@json_option
@pass_settings
def ls(
    settings: Settings,
    pattern: str | None,
    sort: str,
    all_: bool,
    scan: bool,
    drops: bool,
    between: float | None,
    output: Output,
) -> int:
    """Print the sets of a server: trouble first, then the busiest ones.

    PATTERN has *, ? and [abc]. Rates are those of a second on a terminal; elsewhere --rates 1s
    asks for them. Exit with 1 if there are no sets.

    \b
    Examples:
      redset ls 'crawl:*'
      redset ls --json --rates 2s
    """
    if between is None:
        between = BETWEEN if output.is_terminal and not output.as_json else 0.0
    match = None if pattern is None else os.fsencode(pattern)
    if drops and settings.read_only:
        raise Stop("--read-only: ls --prune writes, and nothing was sent")
    if drops:
        complain(f"dropped {prune(settings.client(), match):,} entries of sets that are gone")
    found = [row_of(*each) for each in looked(settings.client(), match, scan, between)]
    if sort == "trouble":
        found.sort(key=trouble)
    elif sort == "name":
        found.sort(key=lambda row: str(row["name"]))
    else:
        found.sort(key=lambda row: (-(row[sort] or 0), row["name"]))
    kept = found
    if output.is_terminal and not (output.as_json or all_):
        kept = [row for row in found if not is_quiet(row)]
    for row in found:
        if row["in"] is None and output.as_json:
            for field in ("in", "out", "refused", "failed"):
                row.pop(field)
    output.rows(COLUMNS, kept)
    if not found and output.is_terminal:
        complain("no set is registered that matches; --scan looks through all keys")
    if len(kept) < len(found):
        output.line(f"{len(found) - len(kept)} more are quiet: redset ls --all")
    return 0 if found else NO


@click.command("show", cls=Command)
@name_argument
@click.option("--rates", "between", type=Duration(), default=2.0, help="Default 2s; 0 for none.")
@json_option
@pass_settings
def show(settings: Settings, name: Any, between: float, output: Output) -> int:
    """Print one set: options, figures, rates, workers, the next items, the last dead letters.

    Warnings about the server are at the end. Exit with 1 if there is nothing of the set.

    \b
    Example:
      redset show pages
    """
    client = settings.client()
    found = [each for each in looked(client, [name], False, between) if is_there(each[0])]
    if not found:
        output.line(f"nothing is stored of {shown(text_of(name))}")
        return NO
    info, before = found[0]
    queue = settings.open(name, SetOptions())
    fields = details(info, before)
    items = [bytes_of(item) for item in queue.peek_many(3)]
    letters = last_letters(queue, fields["dead"])
    warnings = check_server(client, name)
    if output.as_json:
        output.record_of(
            {
                **fields,
                "options": info.options or {},
                "counts": info.counts,
                "next": [item_fields(item) for item in items],
                "letters": [
                    {"id": each.id, "reason": each.reason, **item_fields(each.raw)}
                    for each in letters
                ],
                "server": warnings,
            }
        )
        return 0
    for field, value in {**(info.options or {}), **fields}.items():
        if value is not None and field not in ("name", "v", "seen"):
            text = duration(value) if field == "oldest" else str(value)
            output.line(f"{field:<12} {text}" if output.is_terminal else f"{field}\t{text}")
    for item in items:
        output.line(f"{'next':<12} {shown(item)}" if output.is_terminal else b"next\t" + item)
    for letter in letters:
        text = f"{letter.id}  {letter.reason}"
        output.line(f"{'letter':<12} {shown(text)}" if output.is_terminal else f"letter\t{text}")
    for warning in warnings:
        output.line(f"{'server':<12} {warning}" if output.is_terminal else f"server\t{warning}")
    return 0


def is_there(info: SetInfo) -> bool:
    """Return whether there is anything of a set."""
    figures = info.figures
    return bool(info.options or info.counts or (figures and any(figures[:7])))


def details(info: SetInfo, before: SetInfo | None) -> dict[str, Any]:
    """Return the figures of a set."""
    figures = info.figures
    assert figures is not None
    row = row_of(info, before)
    paused = figures.paused
    return {
        **row,
        "remembered": figures.remembered,
        **(group_figures(info) if (info.options or {}).get("group") else {}),
        "paused": f"by {paused.by}: {paused.why}" if paused else None,
    }


def group_figures(info: SetInfo) -> dict[str, int]:
    """Return the numbers of groups of a set."""
    figures = info.figures
    assert figures is not None
    fields = ("groups_ready", "groups_resting", "groups_working")
    return {field: getattr(figures, field) for field in fields}


def last_letters(queue: Any, num: int) -> list[Any]:
    """Return the last three dead letters; the first ones if they are very many."""
    if num > MANY:
        return list(islice(iter(queue.dead), 3))
    return list(deque(queue.dead, 3)) if num else []


COMMANDS = {"ls": ls, "show": show}
