"""The commands export and import: a whole set as JSON lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from redset.cli.connection import SetOptions, Settings
from redset.cli.lines import Input
from redset.cli.output import Output
from redset.cli.parameters import json_option, name_argument, pass_settings, set_options
from redset.cli.program import Command


@click.command("export", cls=Command)
@name_argument
@set_options
@pass_settings
def export(settings: Settings, name: Any, options: SetOptions) -> int:
    """Print a whole set as JSON lines: items, scores, attempts, memory and dead letters.

    Give --remember for the memory. The set may be in use; stop its consumers for an exact copy.

    \b
    Example:
      redset export pages --remember | gzip > pages.jsonl.gz
    """
    output = Output()
    for line in settings.open(name, options).export():
        output.write(line.encode() + b"\n")
    output.flush()
    return 0


@click.command("import", cls=Command, writes=True)
@name_argument
@click.argument("file", default="-", metavar="[FILE|-]")
@set_options
@json_option
@pass_settings
def restore(settings: Settings, name: Any, file: str, options: SetOptions, output: Output) -> int:
    """Fill an empty set from the lines of an export. All lines are checked first.

    \b
    Example:
      zcat pages.jsonl.gz | redset import pages --remember
    """
    source = Input(file)

    def lines() -> Iterator[bytes]:
        for block in source.blocks():
            yield from block.lines

    items = settings.open(name, options).restore(lines())
    if output.as_json or not output.is_terminal:
        output.record({"items": items})
    else:
        output.line(f"{items:,} items queued")
    return 0


COMMANDS = {"export": export, "import": restore}
