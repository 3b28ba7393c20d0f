"""The command ``redset`` as a process: signals, pipes that end, closed streams, a terminal."""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import children
import cli
import pytest
import servers

if not cli.HAS_CLICK:
    pytest.skip("cli: click is not installed here", allow_module_level=True)

from redset import SortedSet


@pytest.fixture
def server(all_servers: servers.Servers) -> Any:
    """One server that is here, empty."""
    found = all_servers.get(servers.some())
    found.flush()
    return found


@pytest.fixture
def run(server: Any, monkeypatch: pytest.MonkeyPatch) -> cli.Command:
    return cli.Command(server, monkeypatch)


@pytest.fixture
def jobs(server: Any) -> SortedSet[Any]:
    return SortedSet(server.raw, "jobs")


def until(condition: Callable[[], Any], limit: float = 40.0) -> Any:
    """Wait for a condition, and return its value."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("it did not come about")


def shell(run: cli.Command, text: str, status: int = 0) -> children.Ended:
    """Run a line of the shell, in which ``redset`` is the command."""
    redset = f"{sys.executable} -m redset"
    return children.run(
        command=["/bin/sh", "-c", text.replace("redset ", redset + " ")],
        env=run.environment,
        status=status,
    )


def test_lines_go_through_pipes(run: cli.Command, jobs: SortedSet[Any]) -> None:
    ended = shell(
        run, "seq 1000 | redset add jobs - --score 5 && redset take jobs -n 400 | sort -n"
    )
    assert ended.err == "" and '"added":1000' in ended.out
    assert len(ended.out.split()) == 401
    assert jobs.size() == 600 and jobs.peek_score() == 5


def test_a_reader_that_ends_is_141_without_a_word(run: cli.Command, jobs: SortedSet[Any]) -> None:
    jobs.add_many([f"{number:07}" for number in range(60_000)], score=range(60_000))
    ended = shell(run, "(redset peek jobs -n 60000; echo $? >&2) | head -n 2")
    assert (ended.out, ended.err) == ("0000000\n0000001\n", "141\n")
    ended = shell(run, "(redset take jobs -n 60000; echo $? >&2) | head -n 2")
    assert (ended.out, ended.err) == ("0000000\n0000001\n", "141\n")
    # The pipe and the reader had at most some hundred kilobytes.
    assert jobs.size() > 20_000


def test_closed_streams_are_errors_of_one_line(run: cli.Command, jobs: SortedSet[Any]) -> None:
    jobs.add("a")
    ended = shell(run, "redset add jobs - <&-; echo $?")
    assert (ended.out, ended.err) == ("2\n", "redset: standard input is closed\n")
    ended = shell(run, "redset take jobs >&-; echo $?")
    assert (ended.out, ended.err) == ("1\n", "redset: standard output is closed\n")
    assert jobs.size() == 1
    ended = shell(run, "redset len jobs --url redis://127.0.0.1:1 2>&-; echo $?")
    assert (ended.out, ended.err) == ("3\n", "")


@pytest.mark.slow(2)
def test_a_full_disk_is_an_error(run: cli.Command, jobs: SortedSet[Any]) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("cli: no /dev/full here")
    jobs.add("a")
    ended = shell(run, "redset take jobs > /dev/full; echo $? >&2")
    assert ended.err == "redset: No space left on device\n1\n"
    assert jobs.size() == 1


def test_on_a_terminal_items_are_escaped_and_progress_is_shown(
    run: cli.Command, jobs: SortedSet[Any]
) -> None:
    jobs.add("\x1b]0;title\x07\u202egnp.exe")
    pty = importlib.import_module("pty")
    shown = b""
    for arguments in (["peek", "jobs"], ["add", "jobs", "/etc/hostname"]):
        ours, theirs = pty.openpty()
        environment = {**run.environment, "TERM": "xterm", "COLUMNS": "80"}
        command = [sys.executable, "-m", "redset", *arguments]
        process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        with contextlib.suppress(OSError):  # its end is an error on Linux
            while select.select([ours], [], [], 40)[0] and (more := os.read(ours, 65536)):
                shown += more
        os.close(ours)
        assert process.wait(30) == 0
    assert b"\\x1b]0;title\\x07\\u202egnp.exe" in shown and b"\x1b" not in shown
    assert b"1 lines" in shown and b"1 added, 0 updated" in shown


def slow(path: Path) -> str:
    """Make a program that notes its begin, waits for a file, and notes its end."""
    go = path / "go"
    text = f"#!/bin/sh\necho begin >> {path}/log\nwhile [ ! -e {go} ]; do sleep 0.02; done\n"
    (path / "slow").write_text(text + f"echo end >> {path}/log\n")
    (path / "slow").chmod(0o755)
    return str(path / "slow")


def begun(path: Path, word: str = "begin") -> int:
    log = path / "log"
    return log.read_text().count(word) if log.exists() else 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_running_commands_finish_and_returns_the_rest(
    number: int, run: cli.Command, jobs: SortedSet[Any], tmp_path: Path
) -> None:
    jobs.add_many([f"{each}" for each in range(20)])
    with run.process("work", "jobs", "-j2", "--batch=6", "--", slow(tmp_path), "{}") as process:
        until(lambda: begun(tmp_path) == 2)
        if number == signal.SIGINT:  # a terminal's goes to all of its processes
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        until(lambda: "running commands finish first" in process.err)
        until(lambda: jobs.size() == 18)
        (tmp_path / "go").touch()
        _, _, err = process.check(130)
    assert err.endswith("redset: interrupted: 2 items of jobs done, 0 failed, 0 leases lost\n")
    assert begun(tmp_path, "end") == 2
    assert jobs.size() == 18 and not list(jobs.leased())


def test_a_second_signal_ends_the_commands_and_counts_no_attempt(
    run: cli.Command, jobs: SortedSet[Any], tmp_path: Path
) -> None:
    jobs.add("a")
    with run.process("work", "jobs", "--", slow(tmp_path), "{}") as process:
        until(lambda: begun(tmp_path) == 1)
        process.send_signal(signal.SIGTERM)
        until(lambda: "a second signal" in process.err)
        process.send_signal(signal.SIGTERM)
        process.check(130)
    # It is released with a delay, as after an error that is not its own.
    assert [(row.item, row.attempts) for row in jobs.leased()] == [("a", 0)]
    assert begun(tmp_path, "end") == 0


def test_the_items_of_a_killed_worker_return(
    run: cli.Command, jobs: SortedSet[Any], tmp_path: Path
) -> None:
    jobs.add("a")
    with run.process("work", "jobs", "--ttl", "500ms", "--", slow(tmp_path), "{}") as process:
        until(lambda: begun(tmp_path) == 1)
        process.kill()
        until(lambda: process.status is not None)
        try:
            assert jobs.take(1) == []
            assert jobs.pop(wait=20) == "a"
        finally:
            # The command outlives its worker.
            (tmp_path / "go").touch()


@pytest.mark.slow(2)
def test_an_interrupted_add_of_a_file_resumes_with_none_lost(
    run: cli.Command, server: Any, tmp_path: Path
) -> None:
    lines = 150_000
    file = tmp_path / "links"
    file.write_text("".join(f"/page/{number:08}\n" for number in range(lines)))
    jobs = SortedSet(server.raw, "jobs")
    with run.process("add", "jobs", str(file), "--resume") as process:
        until(lambda: jobs.size() > 0)
        process.send_signal(signal.SIGINT)
        status, _, err = process.wait()
    if status == 130:
        assert "lines of" in err and "--resume goes on there" in err
        assert jobs.size() < lines
    run("add", "jobs", str(file), "--resume")
    assert jobs.size() == lines


def test_lines_of_a_slow_pipe_are_added_as_they_come(
    run: cli.Command, jobs: SortedSet[Any], tmp_path: Path
) -> None:
    waits = f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done"
    text = f"(echo a; {waits}; echo b) | {sys.executable} -m redset add jobs -"
    command = ["/bin/sh", "-c", text]
    with children.Child(command=command, env=run.environment) as process:
        until(lambda: jobs.size() == 1)
        (tmp_path / "go").touch()
        process.check()
    assert jobs.size() == 2


def test_a_command_imports_only_what_it_needs(run: cli.Command, jobs: SortedSet[Any]) -> None:
    jobs.add("a")
    code = (
        "import sys\n"
        "from redset.cli.program import program\n"
        "try: program.main(['len', 'jobs'])\n"
        "except SystemExit: pass\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}))\n"
        "print(sorted(name for name in sys.modules if name.startswith('redset.cli.')))"
    )
    ended = children.run("-c", code, env=run.environment)
    for name in ("textual", "rich", "starlette", "prometheus_client", "scrapy"):
        assert f"'{name}'" not in ended.out
    for name in ("working", "adding", "letters", "overview"):
        assert f"redset.cli.{name}'" not in ended.out


@pytest.mark.slow(2)
def test_a_work_command_outlasts_a_restart_of_its_server(
    run: cli.Command, all_servers: servers.Servers, tmp_path: Path
) -> None:
    with servers.start(servers.some()) as server:
        jobs = SortedSet(server.raw, "jobs")
        jobs.add("a")
        url = {"REDSET_URL": server.url}
        command = ["work", "jobs", "--", "touch", str(tmp_path / "{}")]
        with run.process(*command, env=url) as process:
            until(lambda: (tmp_path / "a").exists())
            server.restart()
            jobs.add("b")
            until(lambda: (tmp_path / "b").exists())
            process.send_signal(signal.SIGTERM)
            process.check(130)
