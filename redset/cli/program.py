"""The group of commands: global options, and what becomes of errors."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
import traceback
from typing import Any

import click

from redset.cli.connection import Settings
from redset.cli.output import shown, silence
from redset.exceptions import AddError, DecodeError, OptionsDiffer, RedsetError

#: Module of each command. A command's module is imported when the command runs.
COMMANDS = {
    "ls": "overview",
    "show": "overview",
    "top": "top",
    "len": "looking",
    "has": "looking",
    "score": "looking",
    "seen": "looking",
    "peek": "looking",
    "add": "adding",
    "take": "handing",
    "work": "working",
    "discard": "removing",
    "forget": "removing",
    "move": "removing",
    "dead": "letters",
    "leases": "holding",
    "groups": "grouping",
    "workers": "operating",
    "pause": "operating",
    "resume": "operating",
    "export": "copying",
    "import": "copying",
    "clear": "removing",
    "rm": "removing",
    "wait": "holding",
    "check": "checking",
    "bench": "benching",
    "metrics": "scraping",
    "completion": "completing",
}
EXAMPLES = """
\b
Examples:
  redset ls 'crawl:*'
  zcat links.gz | redset add pages - --remember
  redset work pages -j 8 --add pages --until-finished -- ./links-of {}

\b
Exit status: 0 done; 1 no, nothing, or problems found; 2 usage, or options differ;
3 the server cannot be reached or refuses; 4 done in part; 130 interrupted; 141 broken pipe.
"""
#: Exit statuses.
NO, USAGE, SERVER, PARTLY, INTERRUPTED, PIPE = 1, 2, 3, 4, 130, 141


class Stop(Exception):
    """Ends a command with a line on stderr and a status."""

    def __init__(self, text: str, status: int = USAGE) -> None:
        super().__init__(text)
        self.status = status


class Messages(logging.Handler):
    """Writes redset's warnings to stderr, a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        complain(record.getMessage())


def complain(text: str) -> None:
    """Write a line to stderr. It has no line break and no control character of anybody's data."""
    with contextlib.suppress(OSError):  # its reader may have ended
        if sys.stderr is not None:
            print(f"redset: {shown(text)}", file=sys.stderr)


def outcome(error: BaseException) -> tuple[int, str]:
    """Return the status and the line of an error."""
    cause: BaseException = error
    if isinstance(error, AddError) and error.__cause__ is not None:
        cause = error.__cause__
    kinds = {base.__name__ for base in type(cause).__mro__}
    if isinstance(error, OptionsDiffer) or isinstance(cause, OptionsDiffer):
        return USAGE, str(error)
    if isinstance(error, DecodeError):
        return NO, str(error)
    if kinds & {"RedisError", "ValkeyError"}:
        lost = kinds & {"ConnectionError", "TimeoutError"} and not kinds & {"AuthenticationError"}
        return (
            SERVER,
            f"cannot reach the server: {cause}" if lost else f"the server refuses: {cause}",
        )
    if isinstance(error, RedsetError):
        return NO, str(error)
    if isinstance(error, (TypeError, ValueError)):
        return USAGE, str(error)
    if isinstance(error, OSError):
        return NO, f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    return NO, f"{type(error).__name__}: {error}"


class Program(click.Group):
    """The group. An error is one line on stderr, and an exit status."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"redset.cli.{COMMANDS[cmd_name]}")
        return module.COMMANDS[cmd_name]

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **extra)
        log = logging.getLogger("redset")
        if not any(isinstance(handler, Messages) for handler in log.handlers):
            log.addHandler(Messages())
            log.propagate = False
        try:
            result = super().main(*args, standalone_mode=False, **extra)
        except click.ClickException as error:
            result = self._refuse(error)
        except click.Abort:
            result = INTERRUPTED
        sys.exit(result if isinstance(result, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
        except click.ClickException as error:
            return self._refuse(error)
        except BrokenPipeError:
            silence()
            return PIPE
        except KeyboardInterrupt as interrupt:
            complain(f"interrupted{f': {interrupt}' if str(interrupt) else ''}")
            return INTERRUPTED
        except (click.exceptions.Exit, click.Abort):
            raise
        except Stop as error:
            complain(str(error))
            return error.status
        except Exception as error:
            if ctx.obj is not None and ctx.obj.debug:
                traceback.print_exc()
            status, text = outcome(error)
            complain(text)
            return status
        return result

    def _refuse(self, error: Any) -> int:
        where = error.ctx.command_path if getattr(error, "ctx", None) is not None else "redset"
        text = error.format_message().replace("\n", " ")
        if hasattr(click.exceptions, "NoArgsIsHelpError") and isinstance(
            error, click.exceptions.NoArgsIsHelpError
        ):  # its message is the whole help
            print(error.format_message(), file=sys.stderr)
            return USAGE
        complain(f"{text.rstrip('.')} (see {where} --help)")
        return USAGE


def note(ctx: Any, parameter: Any, value: Any) -> None:
    """Keep the value of a global option."""
    if value is not None:
        setattr(ctx.ensure_object(Settings), parameter.name, value)


def global_options(hidden: bool) -> list[Any]:
    """Return the options that may be given before the command and after it."""
    more: dict[str, Any] = {"expose_value": False, "callback": note, "hidden": hidden}
    if not hidden:
        more["show_envvar"] = True
    return [
        click.Option(
            ["--url"],
            envvar=None if hidden else "REDSET_URL",
            help="The server: redis://, rediss:// or unix://. Default: redis://localhost:6379/0.",
            **more,
        ),
        click.Option(["--db"], type=click.IntRange(0), help="Number of the database.", **more),
        click.Option(
            ["--cluster"],
            is_flag=True,
            default=None,
            envvar=None if hidden else "REDSET_CLUSTER",
            help="The server is a node of a cluster.",
            **more,
        ),
        click.Option(
            ["--read-only"],
            is_flag=True,
            default=None,
            envvar=None if hidden else "REDSET_READ_ONLY",
            help="Refuse commands that write.",
            **more,
        ),
        click.Option(
            ["--debug"], is_flag=True, default=None, help="Show tracebacks of errors.", **more
        ),
    ]


class Command(click.Command):
    """A command, which takes the global options, too."""

    def __init__(self, *args: Any, writes: bool = False, **options: Any) -> None:
        options["params"] = [*(options.get("params") or ()), *global_options(hidden=True)]
        super().__init__(*args, **options)
        self.writes = writes

    def invoke(self, ctx: Any) -> Any:
        if self.writes and ctx.ensure_object(Settings).read_only:
            raise Stop(f"--read-only: {ctx.command.name} writes, and nothing was sent")
        return super().invoke(ctx)


class Group(click.Group):
    """A command with commands of its own."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)


def version(ctx: Any, parameter: Any, value: bool) -> None:
    """Print the version."""
    if value and not ctx.resilient_parsing:
        import redset

        print(f"redset {redset.__version__} ({redset.IMPLEMENTATION})")
        ctx.exit()


program = Program(
    name="redset",
    help="See and handle the redset queues of a Redis or Valkey server.",
    epilog=EXAMPLES,
    params=[
        *global_options(hidden=False),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=version,
            help="Print the version.",
        ),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
