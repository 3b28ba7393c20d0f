"""The commands of dead letters: dead ls, show, requeue, purge."""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import click

from redset import DeadLetter
from redset.cli.connection import SetOptions, Settings
from redset.cli.output import Column, Output, duration, item_fields, number, shown, text_column
from redset.cli.pages import counted, total_of
from redset.cli.parameters import (
    Duration,
    json_option,
    name_argument,
    pass_settings,
    server_time,
    set_options,
)
from redset.cli.program import NO, USAGE, Command, Group, Stop

IDS = click.argument("ids", nargs=-1, metavar="[ID]...")
REASON = click.option("--reason", help="Letters whose reason matches: *, ? and [abc].")
BEFORE = click.option(
    "--before", type=Duration(), help="Letters that died this time ago or earlier."
)


class Choice(NamedTuple):
    """The letters that a command is about."""

    ids: tuple[str, ...]
    reason: str | None
    before: float | None

    def test(self, now: float) -> Callable[[DeadLetter], bool]:
        """Return whether a letter is one of them."""
        ids = frozenset(self.ids)
        reason = re.compile(fnmatch.translate(self.reason)) if self.reason is not None else None
        latest = None if self.before is None else now - self.before

        def is_chosen(letter: DeadLetter) -> bool:
            return (
                (not ids or letter.id in ids)
                and (reason is None or reason.match(letter.reason) is not None)
                and (latest is None or letter.time <= latest)
            )

        return is_chosen

    def letters(self, settings: Settings, queue: Any) -> Iterator[DeadLetter]:
        """Yield them, oldest first: those that are there now."""
        now = server_time(settings)
        is_chosen = self.test(now)
        for letter in queue.dead:
            if letter.time > now:
                return
            if is_chosen(letter):
                yield letter


def row_of(letter: DeadLetter, now: float) -> dict[str, Any]:
    return {
        "id": letter.id,
        "ago": round(now - letter.time, 3),
        "attempts": letter.attempts,
        "score": letter.score,
        "reason": letter.reason,
        "item": letter.raw,
        "time": letter.time,
        **({} if letter.group is None else {"group": letter.group}),
    }


@click.group("dead", cls=Group)
def dead() -> None:
    """See dead letters, queue them again, or delete them.

    \b
    Example:
      redset dead ls pages
    """


@dead.command("ls", cls=Command)
@name_argument
@REASON
@BEFORE
@set_options
@json_option
@pass_settings
def ls(
    settings: Settings,
    name: Any,
    reason: str | None,
    before: float | None,
    options: SetOptions,
    output: Output,
) -> int:
    """Print dead letters, oldest first. Exit with 1 if there are none.

    \b
    Example:
      redset dead ls pages --reason 'ConnectTimeout*'
    """
    queue, now = settings.open(name, options), server_time(settings)
    columns = [
        text_column("id", "ID"),
        Column("ago", "AGO", duration),
        Column("attempts", "TRIES"),
        Column("score", "SCORE"),
        text_column("reason", "REASON", max(20, output.width // 2 - 20)),
        text_column("item", "ITEM", max(20, output.width // 2 - 20)),
    ]
    letters = Choice((), reason, before).letters(settings, queue)
    return 0 if output.rows(columns, (row_of(each, now) for each in letters)) else NO


@dead.command("show", cls=Command)
@name_argument
@IDS
@set_options
@json_option
@pass_settings
def show(
    settings: Settings, name: Any, ids: tuple[str, ...], options: SetOptions, output: Output
) -> int:
    """Print dead letters in full. Exit with 1 if an id is gone.

    \b
    Example:
      redset dead show pages 1700000000000-0
    """
    queue, now = settings.open(name, options), server_time(settings)
    found = set()
    for letter in Choice(ids, None, None).letters(settings, queue):
        found.add(letter.id)
        row = row_of(letter, now)
        if output.as_json or not output.is_terminal:
            data = row.pop("item")
            output.record({**row, **item_fields(data)})
            continue
        died = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(letter.time))
        output.paragraph(f"{letter.id}  {died}, {duration(now - letter.time)} ago")
        output.paragraph(f"  attempts {letter.attempts}, score {number(letter.score) or '-'}")
        output.paragraph(f"  reason   {shown(letter.reason)}")
        output.paragraph(f"  item     {shown(letter.raw)}")
    return NO if set(ids) - found or not found else 0


def needs_choice(ids: tuple[str, ...], reason: Any, before: Any, all_: bool, verb: str) -> None:
    """Refuse a command without a choice, and ids beside a filter."""
    if not (ids or all_ or reason is not None or before is not None):
        raise Stop(f"nothing was done: {verb} needs ids, --reason, --before or --all", USAGE)
    if ids and (all_ or reason is not None or before is not None):
        raise Stop(f"nothing was done: {verb} takes ids or a filter, not both", USAGE)


def each_page(
    settings: Settings, queue: Any, choice: Choice, call: Callable[[list[Any]], int]
) -> tuple[int, int]:
    """Call with the chosen letters, a page at a time. Return the sum, and their number."""
    # Ids need no look: those that are gone are skipped.
    return total_of(choice.ids or choice.letters(settings, queue), call)


@dead.command("requeue", cls=Command, writes=True)
@name_argument
@IDS
@REASON
@BEFORE
@click.option("--all", "all_", is_flag=True, help="All letters that are there now.")
@set_options
@json_option
@pass_settings
def requeue(
    settings: Settings,
    name: Any,
    ids: tuple[str, ...],
    reason: str | None,
    before: float | None,
    all_: bool,
    options: SetOptions,
    output: Output,
) -> int:
    """Queue dead letters again, at their scores and without attempts.

    Exit with 4 if some ids are gone, or their items are queued again already.

    \b
    Examples:
      redset dead requeue pages 1700000000000-0
      redset dead requeue pages --reason 'ConnectTimeout*'
    """
    needs_choice(ids, reason, before, all_, "requeue")
    queue = settings.open(name, options)
    choice = Choice(ids, reason, before)
    found = each_page(settings, queue, choice, queue.dead.requeue)
    return counted(output, "requeued", *found, "letters queued again")


@dead.command("purge", cls=Command, writes=True)
@name_argument
@IDS
@REASON
@BEFORE
@click.option("--all", "all_", is_flag=True, help="All letters that are there now.")
@click.option("--forget", is_flag=True, help="Forget their items, so that they may be added again.")
@set_options
@json_option
@pass_settings
def purge(
    settings: Settings,
    name: Any,
    ids: tuple[str, ...],
    reason: str | None,
    before: float | None,
    all_: bool,
    forget: bool,
    options: SetOptions,
    output: Output,
) -> int:
    """Delete dead letters. Exit with 4 if some ids are gone.

    \b
    Examples:
      redset dead purge pages 1700000000000-0
      redset dead purge pages --before 30d
    """
    needs_choice(ids, reason, before, all_, "purge")
    settings.warn_of_change(name, "purging dead letters of")
    queue = settings.open(name, options)

    def call(page: list[Any]) -> int:
        return queue.dead.purge(letters_or_ids=page, forget=forget)

    found = each_page(settings, queue, Choice(ids, reason, before), call)
    return counted(output, "purged", *found, "letters purged")


COMMANDS = {"dead": dead}
