"""Arguments and options that several commands have."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click
import click.shell_completion

from redset import Key, list_sets
from redset.cli.connection import CLASSES, SetOptions, Settings, name_of
from redset.cli.output import Output
from redset.serializers import JSONSerializer

_UNITS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_json = JSONSerializer()
#: Time that the completion of a name may take, in seconds.
SOON = 0.2


class Duration(click.ParamType):
    """A time: ``90``, ``90s``, ``5m``, ``2h``, ``7d``; with ``forever`` also that word."""

    name = "time"

    def __init__(self, forever: Any = None, least: float = 0) -> None:
        self._forever, self._least = forever, least

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if not isinstance(value, str):
            return value
        if self._forever is not None and value == "forever":
            return self._forever
        found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*([a-z]*)", value)
        if found is None or found[2] not in _UNITS:
            more = " or forever" if self._forever is not None else ""
            raise click.BadParameter(
                f"must be a time such as 90, 90s, 5m, 2h or 7d{more}, got {value!r}"
            )
        seconds = float(found[1]) * _UNITS[found[2]]
        if seconds < self._least:
            raise click.BadParameter(f"must be a time of at least {self._least:g} s, got {value!r}")
        return seconds


class Score(click.ParamType):
    """A score: any number except NaN."""

    name = "score"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        try:
            score = float(value)
        except ValueError:
            score = math.nan
        if math.isnan(score):
            raise click.BadParameter(f"must be a number, got {value!r}")
        return score


class SetName(click.ParamType):
    """The name of a set."""

    name = "name"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if not isinstance(value, str):
            return value
        if not value:
            raise click.BadParameter("must be the name of a set, got ''")
        return name_of(value)

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[Any]:
        """Return the names of sets that begin so, if the server answers soon."""
        settings = ctx.find_root().ensure_object(Settings)
        found: list[str] = []

        def ask() -> None:
            with contextlib.suppress(Exception):
                pattern = re.sub(r"([*?\[\]\\])", r"\\\1", incomplete) + "*"
                infos = list_sets(settings.client(), pattern)
                found.extend(info.name for info in infos if isinstance(info.name, str))

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(SOON)
        return [click.shell_completion.CompletionItem(name) for name in list(found)]


class Fields(click.ParamType):
    """The field of a key, or several ones with commas."""

    name = "field"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if not isinstance(value, str):
            return value
        parts = tuple(value.split(","))
        if not all(parts):
            raise click.BadParameter(f"must be a field, or fields with commas, got {value!r}")
        return parts if len(parts) > 1 else parts[0]


SET = SetName()


def name_argument(function: Any) -> Any:
    """Add the argument NAME."""
    return click.argument("name", type=SET)(function)


def json_option(function: Any) -> Any:
    """Add the option ``--json``, as an `Output`."""

    @functools.wraps(function)
    def call(*args: Any, as_json: bool, **options: Any) -> Any:
        output = Output(as_json)
        try:
            return function(*args, output=output, **options)
        finally:
            # Also if the command ends early: what was printed stays true.
            if not isinstance(sys.exc_info()[1], BrokenPipeError):
                output.flush()

    option = click.option("--json", "as_json", is_flag=True, help="Print JSON, an object a line.")
    return option(call)


def set_options(function: Any) -> Any:
    """Add the options of a set, as one argument ``options``."""

    @functools.wraps(function)
    def call(
        *args: Any,
        kind: Any,
        key: Any,
        remember: Any,
        ties: Any,
        serializer: Any,
        group: Any,
        **options: Any,
    ) -> Any:
        given = SetOptions(kind, key, remember, ties, serializer, group)
        return function(*args, options=given, **options)

    for option in reversed(
        (
            click.option("--class", "kind", type=click.Choice(list(CLASSES)), help="Class."),
            click.option(
                "--key",
                type=Fields(),
                help="Field of the JSON items that is their key; several with commas.",
            ),
            click.option(
                "--group",
                type=Fields(),
                help="Field of the JSON items that is their group; several with commas.",
            ),
            click.option(
                "--remember",
                is_flag=False,
                flag_value="forever",
                type=Duration(forever=True, least=0.001),
                help="Remember items, forever or for a time (--remember=7d).",
            ),
            click.option(
                "--ties", type=click.Choice(["fifo", "lifo"]), help="Order of equal scores."
            ),
            click.option(
                "--serializer",
                metavar="MODULE:NAME",
                help="Import and run this serializer; items are then JSON here.",
            ),
        )
    ):
        call = option(call)
    return call


def jsonl_option(text: str) -> Callable[[Any], Any]:
    """Return a decorator that adds ``--jsonl``."""
    return click.option("--jsonl", is_flag=True, help=text)  # type: ignore[no-any-return]


JSONL = jsonl_option("Items are JSON, as JSONSerializer stores it.")


def canonical(data: bytes) -> bytes:
    """Return JSON as redset's JSONSerializer stores it.

    Raises
    ------
    ValueError
        If it is not JSON.
    """
    return _json.dumps(json.loads(data))


def parsed(data: bytes) -> dict[str, Any]:
    """Return the fields of an item of a set with ``key``.

    Raises
    ------
    ValueError
        If it is not a JSON object.
    """
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("an item of a set with --key must be a JSON object")
    return found


def identity(data: bytes, options: SetOptions, jsonl: bool) -> Any:
    """Return the item that an argument names: a `Key` for a set with ``key``, else its bytes."""
    if options.key is None or options.key is False:
        return canonical(data) if jsonl else data
    if isinstance(options.key, tuple):
        parts = json.loads(data)
        if not isinstance(parts, list) or len(parts) != len(options.key):
            raise ValueError(
                f"an item of this set is named by a JSON list of {len(options.key)} values, "
                f"got {data[:80]!r}"
            )
        return Key(tuple(parts))
    return Key(data)


def named_items(arguments: Iterable[str]) -> Iterator[bytes]:
    """Yield the items of arguments; ``-`` stands for the lines of the standard input."""
    for argument in arguments:
        if argument != "-":
            yield os.fsencode(argument)
            continue
        if sys.stdin is None:
            raise ValueError("standard input is closed")
        for line in sys.stdin.buffer:
            line = stripped(line)
            if line:
                yield line


def stripped(line: bytes) -> bytes:
    """Return a line without its end, also that of Windows."""
    if line.endswith(b"\r\n"):
        return line[:-2]
    return line[:-1] if line.endswith(b"\n") else line


def server_time(settings: Settings) -> float:
    """Return the server's time, as Unix time in seconds."""
    # A name that no set has, and the clock that comes with the figures.
    try:
        [info] = list_sets(settings.client(), ["redset-clock"])
    except Exception as error:
        if settings.is_lost(error):
            raise
        return time.time()
    return time.time() if info.figures is None else info.figures.time


def pass_settings(function: Any) -> Any:
    """Pass the global options as the first argument."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        settings = click.get_current_context().ensure_object(Settings)
        return function(settings, *args, **options)

    return call
