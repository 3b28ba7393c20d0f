"""The commands that remove or move items: discard, forget, move, clear, rm."""

from __future__ import annotations

import fnmatch
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import click

from redset import SortedSet
from redset.cli.connection import SetOptions, Settings, bytes_of, text_of
from redset.cli.output import Output, shown
from redset.cli.pages import counted, total_of
from redset.cli.parameters import (
    JSONL,
    SET,
    identity,
    json_option,
    name_argument,
    named_items,
    pass_settings,
    set_options,
)
from redset.cli.program import NO, USAGE, Command, Stop

ITEMS = click.argument("items", nargs=-1, required=True, metavar="ITEM...|-")


def in_pages(
    names: tuple[str, ...], options: SetOptions, jsonl: bool, call: Callable[[list[Any]], int]
) -> tuple[int, int]:
    """Call with the named items, a page at a time. Return the sum, and the number of items."""
    return total_of(
        named_items(names), lambda page: call([identity(data, options, jsonl) for data in page])
    )


@click.command("discard", cls=Command, writes=True)
@name_argument
@ITEMS
@click.option("--forget", is_flag=True, help="Forget them, too.")
@JSONL
@set_options
@json_option
@pass_settings
def discard(
    settings: Settings,
    name: Any,
    items: tuple[str, ...],
    forget: bool,
    jsonl: bool,
    options: SetOptions,
    output: Output,
) -> int:
    """Remove items, queued or leased. The lease of a leased item is cancelled.

    Exit with 1 if none was there, with 4 if some were not.

    \b
    Examples:
      redset discard pages https://example.org/
      redset discard pages - < unwanted.txt
    """
    queue = settings.open(name, options)

    def call(page: list[Any]) -> int:
        return queue.discard_many(page, forget=forget)

    return counted(output, "discarded", *in_pages(items, options, jsonl, call))


@click.command("forget", cls=Command, writes=True)
@name_argument
@ITEMS
@JSONL
@set_options
@json_option
@pass_settings
def forget(
    settings: Settings,
    name: Any,
    items: tuple[str, ...],
    jsonl: bool,
    options: SetOptions,
    output: Output,
) -> int:
    """Forget items of a set with --remember, so that they may be added again.

    Exit with 1 if none was known, with 4 if some were not.

    \b
    Example:
      redset forget pages https://example.org/ --remember
    """
    queue = settings.open(name, options)
    return counted(output, "forgotten", *in_pages(items, options, jsonl, queue.forget_many))


def chosen(queue: SortedSet[Any], pattern: str | None, num: int | None) -> Iterator[Any]:
    """Yield the queued items whose text matches a pattern, lowest score first, up to a number."""
    found: Iterable[Any] = queue
    if pattern is not None:
        matches = re.compile(fnmatch.translate(os.fsdecode(pattern))).match
        found = (
            item for item in queue if matches(bytes_of(item).decode("utf-8", "surrogateescape"))
        )
    return islice(found, num)


@click.command("move", cls=Command, writes=True)
@click.argument("source", type=SET, metavar="FROM")
@click.argument("target", type=SET, metavar="TO")
@click.argument("pattern", required=False)
@click.option("-n", "num", type=click.IntRange(1), help="Number of items, lowest score first.")
@set_options
@json_option
@pass_settings
def move(
    settings: Settings,
    source: Any,
    target: Any,
    pattern: str | None,
    num: int | None,
    options: SetOptions,
    output: Output,
) -> int:
    """Move queued items to another set of the server, with their scores.

    PATTERN has *, ? and [abc], and is compared with the whole text of an item. Items that the
    other set refuses stay. An item is never in both sets, and never in none.

    \b
    Examples:
      redset move pages held 'https://slow.example/*'
      redset move pages held -n 100
    """
    if pattern is None and num is None:
        raise Stop("move needs a pattern or -n: '*' moves all items", USAGE)
    if source == target:
        raise Stop("move needs two sets, and got one twice", USAGE)
    settings.warn_of_change(source, f"moving to {shown(text_of(target))} from")
    queue = settings.open(source, options)
    other = settings.open(target, replace(options), strict=False)
    items = chosen(queue, pattern, num)
    return counted(output, "moved", *total_of(items, lambda page: queue.move_many(page, other)))


def confirm(settings: Settings, name: Any, given: str | None, verb: str) -> None:
    """Ask for the name of the set, unless it was given."""
    text = text_of(name)
    if given is None:
        if sys.stdin is None or not sys.stdin.isatty():
            raise Stop(f"nothing was done: {verb} needs --yes-i-mean {shown(text)}", USAGE)
        print(
            f"This removes all of {shown(text)} on {shown(settings.target)}.\n"
            "Type its name to go on: ",
            end="",
            file=sys.stderr,
            flush=True,
        )
        given = sys.stdin.readline().rstrip("\n")
    elif sys.stderr is not None and sys.stderr.isatty():
        settings.warn_of_change(name, "removing all of")
    if os.fsencode(given) != os.fsencode(name):
        raise Stop(f"nothing was done: the set is {shown(text)}, not {shown(given)}", NO)


CONFIRMED = click.option("--yes-i-mean", "given", metavar="NAME", help="The name, once more.")


@click.command("clear", cls=Command, writes=True)
@name_argument
@CONFIRMED
@click.option("--keep-memory", is_flag=True, help="Keep what --remember knows.")
@set_options
@json_option
@pass_settings
def clear(
    settings: Settings,
    name: Any,
    given: str | None,
    keep_memory: bool,
    options: SetOptions,
    output: Output,
) -> int:
    """Remove all items, leases and dead letters of a set, after its name is typed once more.

    \b
    Example:
      redset clear pages --keep-memory --remember --yes-i-mean pages
    """
    confirm(settings, name, given, "clear")
    return removed(output, settings.open(name, options).clear(keep_memory=keep_memory))


def removed(output: Output, queued: int) -> int:
    """Print the number of items that were queued."""
    if output.as_json:
        output.record({"queued": queued})
    else:
        output.line(f"{queued:,} queued items removed" if output.is_terminal else str(queued))
    return 0


@click.command("rm", cls=Command, writes=True)
@name_argument
@CONFIRMED
@json_option
@pass_settings
def remove(settings: Settings, name: Any, given: str | None, output: Output) -> int:
    """Remove a set and all that belongs to it, after its name is typed once more.

    \b
    Example:
      redset rm pages --yes-i-mean pages
    """
    confirm(settings, name, given, "rm")
    queue = settings.open(name)
    queued = queue.clear()
    queue.resume()
    return removed(output, queued)


COMMANDS = {"discard": discard, "forget": forget, "move": move, "clear": clear, "rm": remove}
