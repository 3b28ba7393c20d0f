"""The commands that look: len, has, score, seen, peek."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import click

from redset import SortedSet
from redset.cli.connection import SetOptions, Settings, bytes_of
from redset.cli.output import Output, item_fields, number
from redset.cli.pages import MANY, paged
from redset.cli.parameters import (
    JSONL,
    Score,
    identity,
    json_option,
    name_argument,
    named_items,
    pass_settings,
    set_options,
)
from redset.cli.program import Command

ITEMS = click.argument("items", nargs=-1, required=True, metavar="ITEM...")


@click.command("len", cls=Command)
@name_argument
@set_options
@json_option
@pass_settings
def length(settings: Settings, name: Any, options: SetOptions, output: Output) -> int:
    """Print the number of queued items. Exit with 1 if there are none.

    \b
    Example:
      redset len pages
    """
    size = settings.open(name, options).size()
    if output.as_json:
        output.record({"size": size})
    else:
        output.line(str(size))
    return 0 if size else 1


def asked(
    output: Output,
    names: tuple[str, ...],
    options: SetOptions,
    jsonl: bool,
    ask: Callable[[list[Any]], list[Any]],
    field: str,
    shape: Callable[[Any], str],
) -> int:
    """Print an answer for each item, and return 1 if one of them is no."""
    missing = False
    several = len(names) > 1 or names == ("-",)
    for page in paged(named_items(names)):
        answers = ask([identity(data, options, jsonl) for data in page])
        for data, answer in zip(page, answers, strict=True):
            missing = missing or answer is None or answer is False
            if output.as_json:
                output.record({**item_fields(data), field: answer})
            elif several and not output.is_terminal:
                output.write(shape(answer).encode() + b"\t" + data + b"\n")
            elif several:
                output.line(f"{shape(answer):>12}  {data.decode('utf-8', 'backslashreplace')}")
            else:
                output.line(shape(answer))
    return 1 if missing else 0


def yes_or_no(answer: bool) -> str:
    return "yes" if answer else "no"


def score_text(answer: float | None) -> str:
    return "-" if answer is None else number(answer)


@click.command("has", cls=Command)
@name_argument
@ITEMS
@JSONL
@set_options
@json_option
@pass_settings
def has(
    settings: Settings,
    name: Any,
    items: tuple[str, ...],
    jsonl: bool,
    options: SetOptions,
    output: Output,
) -> int:
    """Print whether items are queued. Exit with 1 if one of them is not.

    ITEM is the text of an item, or the key of one in a set with --key. "-" reads lines.

    \b
    Example:
      redset has pages https://example.org/
    """
    queue = settings.open(name, options)

    def ask(page: list[Any]) -> list[bool]:
        return [score is not None for score in queue.scores(page)]

    return asked(output, items, options, jsonl, ask, "queued", yes_or_no)


@click.command("score", cls=Command)
@name_argument
@ITEMS
@JSONL
@set_options
@json_option
@pass_settings
def score(
    settings: Settings,
    name: Any,
    items: tuple[str, ...],
    jsonl: bool,
    options: SetOptions,
    output: Output,
) -> int:
    """Print the scores of queued items, "-" for others. Exit with 1 if one is not queued.

    \b
    Example:
      redset score pages https://example.org/
    """
    queue = settings.open(name, options)
    return asked(output, items, options, jsonl, queue.scores, "score", score_text)


@click.command("seen", cls=Command)
@name_argument
@ITEMS
@JSONL
@set_options
@json_option
@pass_settings
def seen(
    settings: Settings,
    name: Any,
    items: tuple[str, ...],
    jsonl: bool,
    options: SetOptions,
    output: Output,
) -> int:
    """Print whether a set with --remember knows items. Exit with 1 if it does not know one.

    \b
    Example:
      redset seen pages https://example.org/ --remember
    """
    queue = settings.open(name, options)
    return asked(output, items, options, jsonl, queue.seen_many, "seen", yes_or_no)


@click.command("peek", cls=Command)
@name_argument
@click.option("-n", "num", type=click.IntRange(1), default=10, help="Number of items. Default 10.")
@click.option("--from", "lowest", type=Score(), help="Lowest score.")
@click.option("--to", "highest", type=Score(), help="Highest score.")
@click.option("--scores", is_flag=True, help="Print the scores, too.")
@set_options
@json_option
@pass_settings
def peek(
    settings: Settings,
    name: Any,
    num: int,
    lowest: float | None,
    highest: float | None,
    scores: bool,
    options: SetOptions,
    output: Output,
) -> int:
    """Print the first items, lowest score first, without removing them.

    Of a ScheduledSet these are the items that are due; --from and --to see the others, too.

    \b
    Examples:
      redset peek pages -n 3 --scores
      redset peek later --class ScheduledSet --from 0
    """
    queue = settings.open(name, options)
    found = 0
    for page in pages(queue, num, lowest, highest):
        found += len(page)
        values = queue.scores(page) if scores else [None] * len(page)
        for item, value in zip(page, values, strict=True):
            output.item(bytes_of(item), value, scores)
    return 0 if found else 1


def pages(
    queue: SortedSet[Any], num: int, lowest: float | None, highest: float | None
) -> Iterator[list[Any]]:
    """Yield up to so many items, a page at a time."""
    if lowest is None and highest is None:
        if num <= MANY:
            yield queue.peek_many(num)
            return
        source = iter(queue)
    else:
        first = -math.inf if lowest is None else lowest
        source = iter(queue.between(first, math.inf if highest is None else highest))
    yield from paged(islice(source, num))


COMMANDS = {"len": length, "has": has, "score": score, "seen": seen, "peek": peek}
