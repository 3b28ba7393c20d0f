"""The command add: lines of files and pipes, in bulk."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, NamedTuple

import click

from redset import SortedSet
from redset.cli.connection import SetOptions, Settings, text_of
from redset.cli.lines import Bookmark, Input
from redset.cli.output import Output, duration, short
from redset.cli.parameters import (
    canonical,
    json_option,
    jsonl_option,
    name_argument,
    pass_settings,
    set_options,
)
from redset.cli.program import NO, PARTLY, USAGE, Command, Stop, complain
from redset.exceptions import AddError

#: Time between two lines of progress, in seconds.
PROGRESS = 0.3
#: Lines of skipped items that are shown.
SHOWN = 10


class Tally:
    """The counts of an add, and its progress."""

    def __init__(self, total: int | None) -> None:
        self.read = self.added = self.updated = self.refused = self.bad = 0
        self._began = time.monotonic()
        self._shown = 0.0
        #: Bytes of all files, if all are regular, and those that are done.
        self._total, self.bytes = total, 0
        self._shows = sys.stderr is not None and sys.stderr.isatty()

    def count(self, result: Any) -> None:
        if result is not None:
            self.added += result.added
            self.updated += result.updated
            self.refused += result.refused

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def progress(self, end: bool = False) -> None:
        """Show on a terminal where the add stands."""
        now = time.monotonic()
        if not self._shows or (now < self._shown + PROGRESS and not end):
            return
        self._shown = now
        seconds = max(self.seconds, 1e-3)
        text = f"{self.read:,} lines  {short(self.read / seconds)}/s"
        if self.read:
            text += f"  refused {100 * self.refused / self.read:.1f} %"
        if self._total and self.bytes and not end:
            left = (self._total - self.bytes) * seconds / self.bytes
            text += f"  {100 * self.bytes // self._total} %  {duration(left)} left"
        print(f"\r{text:<70}", end="\n" if end else "", file=sys.stderr, flush=True)

    def fields(self) -> dict[str, Any]:
        return {
            "read": self.read,
            "added": self.added,
            "updated": self.updated,
            "refused": self.refused,
            "bad": self.bad,
            "seconds": round(self.seconds, 2),
        }


class Plan(NamedTuple):
    """How lines become items and scores."""

    options: SetOptions
    jsonl: bool
    #: A number for all, the name of a field, or None.
    score: float | str | None

    @property
    def parses(self) -> bool:
        named = self.options.key is not None or isinstance(self.options.group, (str, tuple))
        return self.jsonl or named or isinstance(self.score, str)

    def item(self, line: bytes) -> tuple[Any, Any]:
        """Return the item of a line, and its score."""
        if not self.parses:
            return line, self.score
        value = json.loads(line)
        score: Any = self.score
        if isinstance(score, str):
            if not isinstance(value, dict) or score not in value:
                raise ValueError(f"it has no field {score!r} for its score")
            score = value[score]
            if isinstance(score, bool) or not isinstance(score, (int, float)):
                raise ValueError(f"its score must be a number, got {score!r}")
        if self.options.key is not None:
            if not isinstance(value, dict):
                raise ValueError("an item of a set with --key must be a JSON object")
            return value, score
        return canonical(line) if self.options.serializer is None else line, score


class Adder:
    """Adds the lines of files to a set, a block at a time."""

    def __init__(
        self, queue: SortedSet[Any], plan: Plan, flags: dict[str, bool], skips: bool, tally: Tally
    ) -> None:
        self._queue, self._plan, self._flags = queue, plan, flags
        self._skips, self._tally = skips, tally

    def add(self, source: Input, bookmark: Bookmark | None) -> None:
        """Add the lines of a file. Each block is acknowledged before the next one is read."""
        start, number = bookmark.load() if bookmark else (0, 0)
        self._tally.bytes += start
        for block in source.blocks(start):
            try:
                self._add_block(source, number, block.lines)
            except KeyboardInterrupt:
                self._tally.progress(end=True)
                again = "; --resume goes on there" if source.size is not None else ""
                raise KeyboardInterrupt(
                    f"{number} lines of {source.title} are added, and some after them may be{again}"
                ) from None
            number += len(block.lines)
            self._tally.bytes += block.end - start
            start = block.end
            if bookmark:
                bookmark.save(block.end, number)
            self._tally.progress()
        if bookmark:
            bookmark.remove()

    def _add_block(self, source: Input, number: int, lines: list[bytes]) -> None:
        items: list[Any] = []
        scores: list[Any] = []
        places: list[int] = []
        for place, line in enumerate(lines, number + 1):
            if not line:
                continue
            try:
                item, score = self._plan.item(line)
            except (ValueError, RecursionError) as error:
                if not self._skips:
                    # Everything before the bad line is added, as with a bad item.
                    self._send(source, items, scores, places)
                    raise self._stopped(source, place, error) from None
                self._skip(source, place, error)
                continue
            items.append(item)
            scores.append(score)
            places.append(place)
        self._send(source, items, scores, places)
        self._tally.read += len(lines)

    def _send(self, source: Input, items: list[Any], scores: Any, places: list[int]) -> None:
        if not items:
            return
        single = not isinstance(self._plan.score, str)
        errors: Any = "raise"
        if self._skips:

            def errors(at: int, item: Any, error: Exception) -> None:
                self._skip(source, places[at], error)

        given = self._plan.score if single else scores
        try:
            result = self._queue.add_many(items, given, errors=errors, **self._flags)
        except AddError as error:
            self._tally.count(error.result)
            if error.index is None:
                raise
            raise self._stopped(source, places[error.index], error) from None
        self._tally.count(result)

    def _stopped(self, source: Input, place: int, error: Exception) -> Stop:
        self._tally.progress(end=True)
        return Stop(
            f"line {place} of {source.title}: {error}; the lines before it are added, "
            "--skip-bad skips such lines",
            NO,
        )

    def _skip(self, source: Input, place: int, error: Exception) -> None:
        self._tally.bad += 1
        if self._tally.bad <= SHOWN:
            complain(f"skipped line {place} of {source.title}: {error}")
        elif self._tally.bad == SHOWN + 1:
            complain("further bad lines are counted only")


def parsed_score(ctx: Any, parameter: Any, value: str | None) -> float | str | None:
    """Return a number, or the name of a field."""
    if value is None:
        return None
    try:
        return float(value)
    except ValueError:
        return value


@click.command("add", cls=Command, writes=True)
@name_argument
@click.argument("files", nargs=-1, metavar="[FILE|-]...")
@click.option(
    "--score", callback=parsed_score, help="Score of all items, or the field that has it."
)
@jsonl_option("Lines are JSON. --key implies it.")
@click.option("-0", "--null", is_flag=True, help="Items end with a NUL byte, not with a line.")
@click.option("--nx", is_flag=True, help="Add new items only.")
@click.option("--xx", is_flag=True, help="Only change scores of queued items.")
@click.option("--lt", is_flag=True, help="Move a queued item only to a lower score.")
@click.option("--gt", is_flag=True, help="Move a queued item only to a higher score.")
@click.option("--again", is_flag=True, help="Add items that the set remembers, too.")
@click.option("--skip-bad", is_flag=True, help="Skip bad lines, and exit with 4.")
@click.option("--resume", is_flag=True, help="Go on where an interrupted add of the file stopped.")
@set_options
@json_option
@pass_settings
def add(
    settings: Settings,
    name: Any,
    files: tuple[str, ...],
    score: float | str | None,
    jsonl: bool,
    null: bool,
    skip_bad: bool,
    resume: bool,
    options: SetOptions,
    output: Output,
    **flags: bool,
) -> int:
    """Add the lines of files, or of the standard input. Empty lines are skipped.

    A line is acknowledged by the server before it counts. With --resume the offset is kept in
    FILE.redset-resume until the file is done.

    \b
    Examples:
      zcat links.gz | redset add pages - --remember
      redset add pages found.jsonl --key url --score depth --skip-bad
      find . -print0 | redset add paths - -0
    """
    if not files:
        if sys.stdin is not None and sys.stdin.isatty():
            raise Stop("name a file, or - for the standard input", USAGE)
        files = ("-",)
    sources = [Input(file, b"\0" if null else b"\n") for file in files]
    bookmarks = [Bookmark(each, text_of(name)) if resume else None for each in sources]
    sizes = [each.size for each in sources]
    tally = Tally(None if None in sizes else sum(size or 0 for size in sizes))
    queue = settings.open(name, options, adding=True)
    adder = Adder(queue, Plan(options, jsonl, score), flags, skip_bad, tally)
    try:
        for source, bookmark in zip(sources, bookmarks, strict=True):
            adder.add(source, bookmark)
            source.close()
        tally.progress(end=True)
    finally:
        report(output, tally)
    return PARTLY if tally.bad else 0


def report(output: Output, tally: Tally) -> None:
    """Print the counts, also of an add that ended early."""
    if output.is_terminal and not output.as_json:
        text = f"{tally.added:,} added, {tally.updated:,} updated, {tally.refused:,} refused"
        output.line(f"{text}, {tally.bad:,} bad in {tally.seconds:.2f} s")
    else:
        output.record(tally.fields())


COMMANDS = {"add": add}
