"""Child processes of the tests: each wait has a limit, and no child outlives its test.

    done = children.run("-c", "print(1)")          # Python, to its end
    with children.Child("-c", program) as child:   # beside the test
        assert child.line() == "ready"
    with children.forked(lambda: jobs.size()) as fork:
        assert fork.result() == 1

A child that does not end in time, or ends with another status, fails the test. The AssertionError
has its command, its status and the end of its output.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import multiprocessing.process
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

#: Default limit of a wait, in seconds. A test has 60: the wait ends first and names the child.
LIMIT = 50.0
#: Time that a killed child has to be gone, in seconds.
KILLED = 10.0
#: How much of each stream a failure shows, in characters.
TAIL = 4000


class Ended(NamedTuple):
    """The end of a child: its exit status (negative: a signal) and its whole output."""

    status: int
    out: str
    err: str


class Child:
    """A program that runs beside a test. The end of the block kills it and its process group.

    Two threads read its output, so it never blocks on a full pipe. `command` replaces
    ``[sys.executable, *arguments]``. A child that is still running if the block raises is printed.
    """

    def __init__(
        self,
        *arguments: str,
        command: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        input: str | None = None,
        stdio: int | None = None,
    ) -> None:
        self.command = [sys.executable, *arguments] if command is None else list(command)
        self._changed = threading.Condition()
        self._chunks: dict[str, list[str]] = {"out": [], "err": []}
        self._open = {"out", "err"} if stdio is None else set()
        self._read = 0
        self._process = subprocess.Popen(
            self.command,
            stdin=(subprocess.DEVNULL if input is None else subprocess.PIPE)
            if stdio is None
            else stdio,
            stdout=subprocess.PIPE if stdio is None else stdio,
            stderr=subprocess.PIPE if stdio is None else stdio,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
        )
        for name, stream in (("out", self._process.stdout), ("err", self._process.stderr)):
            if stream is not None:
                threading.Thread(target=self._drain, args=(name, stream), daemon=True).start()
        if input is not None:
            threading.Thread(target=self._feed, args=(input,), daemon=True).start()

    def _feed(self, text: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError), self._process.stdin as stdin:
            stdin.write(text.encode())

    def _drain(self, name: str, stream: Any) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    self._chunks[name].append(line.decode(errors="replace"))
                    self._changed.notify_all()
        with self._changed:
            self._open.discard(name)
            self._changed.notify_all()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs."""
        return self._process.poll()

    @property
    def out(self) -> str:
        return "".join(self._chunks["out"])

    @property
    def err(self) -> str:
        return "".join(self._chunks["err"])

    def __str__(self) -> str:
        return described(shlex.join(self.command), self.status, self.out, self.err)

    def line(self, limit: float = LIMIT) -> str:
        """Return the next line that it printed, without its line break."""
        with self._changed:
            came = self._changed.wait_for(
                lambda: len(self._chunks["out"]) > self._read or "out" not in self._open, limit
            )
            if len(self._chunks["out"]) > self._read:
                self._read += 1
                return self._chunks["out"][self._read - 1].rstrip("\n")
        if came:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(KILLED)
        raise AssertionError(f"no {'further line' if came else f'line in {limit:g} s'}: {self}")

    def wait(self, limit: float = LIMIT) -> Ended:
        """Wait until it has ended, and each process that has its output."""
        end = time.monotonic() + limit
        try:
            status = self._process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not ended in {limit:g} s: {self}") from None
        with self._changed:
            closed = self._changed.wait_for(
                lambda: not self._open, max(end - time.monotonic(), 1.0)
            )
        if not closed:
            raise AssertionError(f"ended, but another process still has its output: {self}")
        return Ended(status, self.out, self.err)

    def check(self, status: int = 0, limit: float = LIMIT) -> Ended:
        """Wait for its end, which must be with this status."""
        ended = self.wait(limit)
        assert ended.status == status, f"not ended with {status}: {self}"
        return ended

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """End the process at once, but not the processes that it started."""
        self._process.kill()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self.status is None:
            # Also if what struck is the limit of the whole test, which knows no child.
            print(f"still running: {self}")
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(KILLED)


def run(
    *arguments: str,
    status: int | None = 0,
    limit: float = LIMIT,
    command: Sequence[str] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    input: str | None = None,
) -> Ended:
    """Run Python, or `command`, to its end, which must be with `status`; None allows any."""
    with Child(*arguments, command=command, env=env, cwd=cwd, input=input) as child:
        return child.wait(limit) if status is None else child.check(status, limit)


def described(command: str, status: int | None, out: str, err: str = "") -> str:
    """Return the text of a failure about a child."""
    now = "still running" if status is None else f"status {status}"
    parts = [f"{command} ({now})"]
    for name, text in (("stdout", out), ("stderr", err)):
        if text:
            parts.append(f"--- its {name}\n{'…' if len(text) > TAIL else ''}{text[-TAIL:]}")
    return "\n".join(parts)


# --- without exec


def reap(pid: int, limit: float = LIMIT, what: str = "a forked child") -> int:
    """Wait for a child that `os.fork` made and return its exit status; kill one that is late."""
    end = time.monotonic() + limit
    pause = 0.001
    try:
        while True:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                pid = 0
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                raise AssertionError(f"{what} (pid {pid}) did not end in {limit:g} s")
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
    finally:
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


@contextlib.contextmanager
def process(
    target: Callable[..., object], *args: Any, method: str = "spawn"
) -> Iterator[multiprocessing.process.BaseProcess]:
    """Start a process of `multiprocessing`, and kill it at the end of the block."""
    context: Any = multiprocessing.get_context(method)
    # At its exit the interpreter waits for a child that is not a daemon, without a limit.
    made = context.Process(target=target, args=args, daemon=True)
    with warnings.catch_warnings():
        # From Python 3.12 on, since the process has threads. What they do to a fork is tested.
        warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
        made.start()
    try:
        yield made
    except BaseException:
        if made.is_alive():
            print(f"still running: {named(made)}")
        raise
    finally:
        made.kill()
        made.join(KILLED)


def named(child: multiprocessing.process.BaseProcess) -> str:
    """Return the name, pid and status of a process of `multiprocessing`."""
    now = "still running" if child.exitcode is None else f"status {child.exitcode}"
    return f"{child.name} (pid {child.pid}, {now})"


def join(child: multiprocessing.process.BaseProcess, status: int = 0, limit: float = LIMIT) -> None:
    """Wait for a process of `multiprocessing`, which must end with `status`."""
    child.join(limit)
    assert child.exitcode is not None, f"not ended in {limit:g} s: {named(child)}"
    assert child.exitcode == status, f"not ended with {status}: {named(child)}"


class _Task:
    """A function's result, or its traceback, by a pipe from another process."""

    def __init__(self, child: multiprocessing.process.BaseProcess, pipe: Any) -> None:
        self.child, self._pipe = child, pipe

    def result(self, limit: float = LIMIT) -> Any:
        """Wait for the result. An error in the child is an AssertionError with its traceback."""
        try:
            came = self._pipe.poll(limit)
            assert came, f"no result in {limit:g} s: {named(self.child)}"
            value, error = self._pipe.recv()
        except (EOFError, OSError):
            self.child.join(KILLED)
            raise AssertionError(f"ended without a result: {named(self.child)}") from None
        assert error is None, f"{named(self.child)} raised:\n{error}"
        return value


def _answer(pipe: Any, work: Callable[..., Any], *args: Any) -> None:
    # Its own stack, if it hangs: the limit of the test knows the parent's.
    with contextlib.suppress(Exception):
        faulthandler.dump_traceback_later(LIMIT - 5, file=sys.__stderr__)
    try:
        answer: Any = (work(*args), None)
    except BaseException:
        answer = (None, traceback.format_exc())
    with contextlib.suppress(Exception):
        faulthandler.cancel_dump_traceback_later()
    pipe.send(answer)


@contextlib.contextmanager
def forked(work: Callable[..., Any], *args: Any) -> Iterator[_Task]:
    """Perform `work` in a fork of this process, which must have ended at the end of the block."""
    ours, theirs = multiprocessing.get_context("fork").Pipe(False)

    def perform() -> None:
        ours.close()
        _answer(theirs, work, *args)

    with ours, process(perform, method="fork") as child:
        theirs.close()
        yield _Task(child, ours)
        join(child)


class Team:
    """Spawned processes that perform functions at the same time, over and over.

    Unlike a ProcessPoolExecutor, whose exit waits for its processes without a limit.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._context = multiprocessing.get_context("spawn")
        self._members: list[_Task] = []
        self._barrier: Any = None

    def _start(self) -> None:
        # Kept: its semaphores go with it.
        self._barrier = self._context.Barrier(self.size)
        for number in range(self.size):
            ours, theirs = self._context.Pipe()
            child = self._context.Process(
                target=_serve, args=(theirs, self._barrier), name=f"member {number}", daemon=True
            )
            child.start()
            theirs.close()
            self._members.append(_Task(child, ours))

    def perform(self, work: Callable[..., Any], *args: Any, limit: float = LIMIT) -> list[Any]:
        """Call ``work(number, *args)`` in all at once; return the results."""
        if not self._members:
            self._start()
        end = time.monotonic() + limit
        try:
            for number, each in enumerate(self._members):
                each._pipe.send((work, (number, *args)))
            return [each.result(max(end - time.monotonic(), 0)) for each in self._members]
        except BaseException:
            for each in self._members:
                print(f"of the team: {named(each.child)}")
            # The other members may still work for this call. The next call gets new ones.
            self.stop()
            raise

    def stop(self) -> None:
        for each in self._members:
            each.child.kill()
        for each in self._members:
            each.child.join(KILLED)
            each._pipe.close()
        self._members.clear()


def _serve(pipe: Any, barrier: Any) -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            work, args = pipe.recv()
            _answer(pipe, _together, barrier, work, args)


def _together(barrier: Any, work: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    barrier.wait(LIMIT)
    return work(*args)


# --- without other programs


def parent_of(pid: int) -> int:
    """Return the pid of a process's parent. Reads /proc, since `ps` is not everywhere."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("\nPPid:")[1].split()[0])


def state_of(pid: int) -> str | None:
    """Return a process's state, such as "S", or "Z" if it ended unburied; None if there is none."""
    with contextlib.suppress(OSError):
        # After the name of the program, which may contain any text.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    if Path("/proc/self").exists():
        return None
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return "S"
    return None


def group_of(group: int) -> list[int]:
    """Return the processes of a group that live. Reads /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group, *_ = path.read_text().rpartition(")")[2].split()
            if int(its_group) == group and state != "Z":
                found.append(int(path.parent.name))
    return found
