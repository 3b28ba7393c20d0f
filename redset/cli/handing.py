"""The command take: remove items and print them."""

from __future__ import annotations

import sys
from typing import Any

import click

from redset import SortedSet
from redset.cli.connection import SetOptions, Settings, bytes_of
from redset.cli.output import Output
from redset.cli.parameters import (
    Duration,
    json_option,
    name_argument,
    pass_settings,
    set_options,
)
from redset.cli.program import Command, complain

#: Items that are taken and printed at a time.
CHUNK = 500


@click.command("take", cls=Command, writes=True)
@name_argument
@click.option("-n", "num", type=click.IntRange(1), default=1, help="Number of items. Default 1.")
@click.option("--wait", type=Duration(), default=0.0, help="Time to wait for the first item.")
@click.option("--scores", is_flag=True, help="Print the scores, too.")
@set_options
@json_option
@pass_settings
def take(
    settings: Settings,
    name: Any,
    num: int,
    wait: float,
    scores: bool,
    options: SetOptions,
    output: Output,
) -> int:
    """Remove the items with the lowest scores, and print them. Exit with 1 if there are none.

    An item is removed before it is printed: a program that dies with it loses it. "redset work"
    loses none. If the reader of a pipe ends, items that were not printed are queued again.

    \b
    Example:
      redset take pages -n 100 --wait 60
    """
    settings.warn_of_change(name, "taking from")
    queue = settings.open(name, options)
    left = num
    while left > 0:
        pairs = queue.take(min(left, CHUNK), wait=wait, with_scores=True)
        if not pairs:
            break
        printed(output, queue, pairs, scores, options)
        left, wait = left - len(pairs), 0.0
    return 0 if left < num else 1


def printed(
    output: Output,
    queue: SortedSet[Any],
    pairs: list[tuple[Any, float]],
    scores: bool,
    options: SetOptions,
) -> None:
    """Print items. Queue those again that could not be printed."""
    done = 0
    try:
        for item, score in pairs:
            output.item(bytes_of(item), score, scores)
            # One by one: an item that stays in a buffer is neither printed nor queued.
            output.flush()
            done += 1
    except BaseException:
        put_back(queue, pairs[done:], options)
        raise


def put_back(queue: SortedSet[Any], pairs: list[tuple[Any, float]], options: SetOptions) -> None:
    """Queue items again at their scores, unless they were added again in the meantime."""
    items, scores = [item for item, _ in pairs], [score for _, score in pairs]
    try:
        # They are known, so a set with remember would refuse them.
        queue.add_many(items, scores, nx=True, again=bool(options.remember))
    except Exception:
        complain(f"{len(pairs)} items could not be queued again; they follow")
        if sys.stderr is not None:
            for item in items:
                sys.stderr.buffer.write(bytes_of(item) + b"\n")
        raise


COMMANDS = {"take": take}
