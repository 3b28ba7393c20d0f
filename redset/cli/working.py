"""The command work: any program as a worker that loses nothing.

Theory of operation. `consume` leases, renews and settles; its handler here starts the user's
command and waits for it. The command is in a session of its own, so Ctrl-C on the terminal reaches
redset only: running commands finish. Its error output goes through a file, which a command that
leaves a process in the background cannot keep open.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, Any

import click

from redset import Consumed, Reject, Retry, SortedSet
from redset.cli.connection import SetOptions, Settings, bytes_of, text_of
from redset.cli.output import Output
from redset.cli.parameters import (
    SET,
    Duration,
    canonical,
    json_option,
    jsonl_option,
    name_argument,
    parsed,
    pass_settings,
    set_options,
    stripped,
)
from redset.cli.program import USAGE, Command, Stop, complain

#: Exit statuses of commands: try again later, and the item is bad (EX_TEMPFAIL, EX_DATAERR).
TEMPFAIL, DATAERR = 75, 65
#: Bytes of a command's error output that a failed item keeps.
KEPT = 500
#: Bytes that a pipe takes before it is read.
PIPE_BYTES = 60_000
#: Error of an argument that is too long.
TOO_LONG = {errno.E2BIG, errno.ENAMETOOLONG}


class Failed(Exception):
    """The command failed: its status, and the end of its error output."""


class Commands:
    """Runs the command for items. It is the handler of a worker."""

    def __init__(self, command: list[str], found: Found | None) -> None:
        self._command = [os.fsencode(part) for part in command]
        self._in_argument = any(b"{}" in part for part in self._command)
        self._found = found
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        #: Whether the running commands were ended by a signal to redset.
        self.ended = False
        self.done = self.failed = 0

    def __call__(self, item: Any) -> list[Any] | None:
        try:
            new = self._perform(bytes_of(item))
        except BaseException:
            with self._lock:
                self.failed += 1
            raise
        with self._lock:
            self.done += 1
        return new

    def _perform(self, data: bytes) -> list[Any] | None:
        with contextlib.ExitStack() as stack:
            err = stack.enter_context(tempfile.TemporaryFile())
            out = stack.enter_context(tempfile.TemporaryFile()) if self._found else None
            status = self._status_of(data, out, err, stack)
            tail = self._copy(err)
            self._judge(status, tail)
            if self._found is None or out is None:
                return None
            out.seek(0)
            return self._found.settle(out)

    def _status_of(self, data: bytes, out: Any, err: Any, stack: contextlib.ExitStack) -> int:
        command, given = self._command, None
        if self._in_argument:
            if b"\0" in data:
                raise Reject("the item has a NUL byte, so it cannot be an argument: leave out {}")
            command = [part.replace(b"{}", data) for part in command]
        else:
            given = stack.enter_context(self._input(data + b"\n"))
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL if given is None else given,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        except OSError as error:
            if error.errno in TOO_LONG and self._in_argument:
                raise Reject("the item is too long for an argument: leave out {}") from None
            raise
        with self._lock:
            self._running.add(process)
        try:
            return process.wait()
        finally:
            with self._lock:
                self._running.discard(process)

    @contextlib.contextmanager
    def _input(self, data: bytes) -> Iterator[int]:
        """Yield a descriptor from which the command reads the item."""
        if len(data) <= PIPE_BYTES:
            reader, writer = os.pipe()
            try:
                try:
                    os.write(writer, data)
                finally:
                    os.close(writer)
                yield reader
            finally:
                os.close(reader)
            return
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.seek(0)
            yield file.fileno()

    def _copy(self, err: IO[bytes]) -> bytes:
        """Print the command's error output, and return its end."""
        size = err.seek(0, os.SEEK_END)
        if size and sys.stderr is not None:
            err.seek(0)
            with self._lock:
                shutil.copyfileobj(err, sys.stderr.buffer)
                sys.stderr.flush()
        err.seek(max(0, size - KEPT))
        return err.read(KEPT)

    def _judge(self, status: int, tail: bytes) -> None:
        """Raise the error that settles the item as the command's status asks for."""
        if status == 0:
            return
        if self.ended:
            # Its own end is not the item's fault: it is released without an attempt.
            raise KeyboardInterrupt
        ended = f"exit {status}"
        if status < 0:
            with contextlib.suppress(ValueError):
                ended = f"killed by {signal.Signals(-status).name}"
        text = tail.decode("utf-8", "replace").strip()
        error = Failed(f"{ended}: {text}" if text else ended)
        if status == TEMPFAIL:
            raise Retry() from error
        if status == DATAERR:
            raise Reject(error)
        raise error

    def signal(self, number: int) -> int:
        """Send a signal to the running commands, and return their number."""
        with self._lock:
            running = list(self._running)
        for process in running:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
        return len(running)


class Found:
    """The lines of a command's output, which are new items."""

    def __init__(self, target: SortedSet[Any], is_own: bool, jsonl: bool, keyed: bool) -> None:
        self._target, self._is_own = target, is_own
        self._jsonl, self._keyed = jsonl, keyed

    def settle(self, out: IO[bytes]) -> list[Any] | None:
        """Return the items of the same set, for the step that acknowledges; add others now."""
        items = list(self._items(out))
        if self._is_own:
            return items
        if items:
            self._target.add_many(items)
        return None

    def _items(self, out: IO[bytes]) -> Iterator[Any]:
        for place, line in enumerate(out, 1):
            line = stripped(line)
            if not line:
                continue
            try:
                if self._keyed:
                    yield parsed(line)
                else:
                    yield canonical(line) if self._jsonl else line
            except ValueError as error:
                raise Failed(f"line {place} of its output: {error}") from None


class Signals:
    """Stops a worker on signals: the first lets running commands finish, the second ends them."""

    NAMES = ("SIGINT", "SIGTERM", "SIGHUP")

    def __init__(self, commands: Commands, stop: threading.Event) -> None:
        self._commands, self._stop = commands, stop
        self.count = 0

    def _handle(self, number: int, frame: Any) -> None:
        self.count += 1
        if self.count == 1:
            self._stop.set()
            # Not by print: the signal may have come during one.
            with contextlib.suppress(OSError):
                os.write(2, b"redset: running commands finish first; a second signal ends them\n")
            return
        self._commands.ended = True
        self._stop.set()
        ended = self._commands.signal(signal.SIGTERM if self.count == 2 else signal.SIGKILL)
        if not ended:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals during the block. One that is ignored, as by nohup, stays so."""
        before = {}
        for name in self.NAMES:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@click.command("work", cls=Command, writes=True)
@name_argument
@click.argument("command", nargs=-1, required=True, metavar="-- CMD [ARG|{}]...")
@click.option("-j", "--jobs", type=click.IntRange(1, 10_000), default=4, help="Commands at a time.")
@click.option(
    "--ttl", type=Duration(least=0.1), default=60.0, help="Time of the leases. Default 60s."
)
@click.option("--batch", type=click.IntRange(1, 100_000), help="Items of a lease call.")
@click.option("--add", "target", type=SET, help="Add the lines of the output to this set.")
@jsonl_option("Lines of the output are JSON. --key implies it.")
@click.option("--until-finished", is_flag=True, help="End when nothing is queued or leased.")
@set_options
@json_option
@pass_settings
def work(
    settings: Settings,
    name: Any,
    command: tuple[str, ...],
    jobs: int,
    ttl: float,
    batch: int | None,
    target: Any,
    jsonl: bool,
    until_finished: bool,
    options: SetOptions,
    output: Output,
) -> int:
    """Run a command for each item: a worker that loses nothing if it crashes.

    {} stands for the item; without it the item is on the standard input. No shell is used. Write
    "--" before {} if the command takes options, since an item may begin with "-".

    \b
    Exit status of the command:
      0          done: the item is acknowledged
      75         try again later (a failed attempt)
      65         the item is bad: it becomes a dead letter at once
      any other  failed: tried again after 1 s, 2 s, 4 s and so on

    A failed item keeps the last 500 bytes of the error output. With --add, lines of the output
    are new items. They are added in the step that acknowledges, or before it for another set.

    \b
    Examples:
      redset work pages -j 8 --add pages --until-finished -- ./links-of {}
      redset work mails -- sh -c 'read -r mail; ./send "$mail"'
    """
    program = command[0]
    if "{}" not in program and shutil.which(program) is None:
        raise Stop(f"there is no command {program!r}", USAGE)
    settings.warn_of_change(name, "working on")
    settings.patient = True
    queue = settings.open(name, options)
    found = None
    if target is not None:
        own, theirs = target == name, options if target == name else replace(options)
        other = queue if own else settings.open(target, theirs, adding=True, strict=False)
        found = Found(other, own, jsonl, theirs.key is not None)
    commands, stop = Commands(list(command), found), threading.Event()
    signals = Signals(commands, stop)
    consumed = None
    try:
        with signals.handled():
            consumed = queue.consume(
                commands,
                batch=batch,
                concurrency=jobs,
                ttl=ttl,
                until_finished=until_finished,
                stop=stop,
            )
    except KeyboardInterrupt:
        # Its own, after the second signal, or a command that the second signal ended.
        signals.count = max(1, signals.count)
    finally:
        text = report(output, commands, consumed, text_of(name))
        if not signals.count:
            complain(text)
    if signals.count:
        raise KeyboardInterrupt(text)
    return 0


def report(output: Output, commands: Commands, consumed: Consumed | None, name: str) -> str:
    """Print the counts as JSON, if they are asked for. Return them as a text."""
    if consumed is None:  # it ended early
        consumed = Consumed(commands.done, commands.failed, 0)
    if output.as_json:
        output.record({"set": name, **consumed._asdict()})
    done, failed, lost = consumed
    return f"{done} items of {name} done, {failed} failed, {lost} leases lost"


COMMANDS = {"work": work}
