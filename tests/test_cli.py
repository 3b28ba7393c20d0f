"""The command ``redset``, run in this process on a real server."""

from __future__ import annotations

import ast
import base64
import functools
import importlib
import json
import math
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import children
import cli
import pytest
import redis
import servers
from load import Load

if not cli.HAS_CLICK:
    pytest.skip("cli: click is not installed here", allow_module_level=True)

import redset.cli
import redset.exceptions
from redset import Key, Reject, ScheduledSet, SortedSet, TimeSortedSet
from redset.cli import adding, output, overview, parameters, program
from redset.cli.connection import Settings
from redset.cli.program import COMMANDS

PACKAGE = Path(redset.cli.__file__).parent
HOSTILE = "\x1b[2Jbad\u202ecod.exe\x00\n\t\x7f"


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


# --- structure


def test_it_stands_on_public_names_alone() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                parts = name.split(".")
                assert parts[0] != "redset" or not any(part.startswith("_") for part in parts), path
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("_ctx", "_run", "_link", "_open"), path


def test_redset_itself_never_imports_click(tmp_path: Path) -> None:
    code = (
        "import sys, redset, redset.asyncio, redset.cli\n"
        "lazy = ('click', 'prometheus_client', 'textual', 'rich')\n"
        "print([m for m in sys.modules if m.split('.')[0] in lazy])"
    )
    assert children.run("-c", code, cwd=tmp_path).out == "[]\n"


def test_without_click_one_line_has_the_command_to_install_it(tmp_path: Path) -> None:
    code = (
        "import importlib.util as u, sys\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'click' else find(name, *rest)\n"
        "from redset.cli import main\n"
        "sys.exit(main())"
    )
    ended = children.run("-c", code, cwd=tmp_path, status=2)
    assert ended.err == "redset: click is missing: pip install 'redset[cli]'\n"
    assert ended.out == ""


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_help_of_each_command_has_an_example(name: str, run: cli.Command) -> None:
    assert f"\n  {name} " in run("--help").out.decode()
    command = importlib.import_module(f"redset.cli.{COMMANDS[name]}").COMMANDS[name]
    for words in [[name, each] for each in getattr(command, "commands", ())] or [[name]]:
        text = run(*words, "--help").out.decode()
        assert "Example" in text and f"redset {' '.join(words)} " in text, words
        assert max(map(len, text.splitlines())) <= 100


def test_the_help_has_an_example_and_the_exit_statuses(run: cli.Command) -> None:
    text = run("--help").out.decode()
    assert "zcat links.gz | redset add pages - --remember" in text
    for status in (0, 1, 2, 3, 4, 130, 141):
        assert f"{status} " in text


# --- the server


def test_the_server_is_named_by_option_or_variable(run: cli.Command, server: Any) -> None:
    jobs = SortedSet(server.raw, "jobs")
    jobs.add("a")
    other = servers.free_port()
    nowhere = f"redis://127.0.0.1:{other}"
    assert run("len", "jobs").lines == ["1"]
    run("len", "jobs", env={"REDSET_URL": nowhere}, status=3)
    assert run("--url", server.url, "len", "jobs", env={"REDSET_URL": nowhere}).lines == ["1"]
    assert run("len", "jobs", "--url", server.url, env={"REDSET_URL": nowhere}).lines == ["1"]
    run("--db", "3", "add", "jobs", input=b"x\ny\n")
    assert run("len", "jobs", "--db", "3").lines == ["2"]
    assert run("len", "jobs").lines == ["1"]
    run("--db", "-1", "len", "jobs", status=2)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hunter2@127.0.0.1:1/0",
        "redis://:hunter2@127.0.0.1:1?password=hunter2",
        "redis://:hunter2@[::1",
        "redis://a:hunter2:hunter2/0",
        "unix://user:hunter2@/nothing/there?db=1",
        "http://user:hunter2@example.org",
        "hunter2",
    ],
)
def test_a_password_is_never_printed(url: str, run: cli.Command) -> None:
    for arguments in (["--db", "2"], []):
        ran = run("--url", url, *arguments, "take", "jobs", terminal=True, status=None)
        assert ran.status in (2, 3)
        assert "hunter2" not in ran.err + ran.out.decode()
        assert ran.err.count("redset: ") == 1
    assert "hunter2" not in Settings(url).target or url == "hunter2"


def test_a_server_that_refuses_is_3(run: cli.Command, server: Any) -> None:
    server.raw.execute_command("ACL", "SETUSER", "looker", "on", ">pw", "~*", "+@read", "+ping")
    url = server.url.replace("unix://", "unix://looker:pw@")
    try:
        ran = run("--url", url, "add", "jobs", input=b"a\n", status=3)
        assert ran.err.startswith("redset: the server refuses: ") and ran.err.count("\n") == 1
        assert run("--url", url.replace(":pw", ":no"), "len", "jobs", status=3).err.count("\n") == 1
    finally:
        server.raw.execute_command("ACL", "DELUSER", "looker")
    server.raw.set("text", "x")
    assert "WRONGTYPE" in run("len", "text", status=3).err


def test_usage_errors_are_one_line_and_2(run: cli.Command) -> None:
    for arguments in (
        ["len"],
        ["bogus"],
        ["len", ""],
        ["peek", "jobs", "-n", "0"],
        ["peek", "jobs", "--from", "nan"],
        ["take", "jobs", "--wait", "long"],
        ["len", "jobs", "--no-such-option"],
        ["add", "jobs", "--remember", "jobs"],
        ["add", "jobs", "/no/such/file.txt"],
    ):
        ran = run(*arguments, status=None)
        assert ran.status == (1 if "/no/such/file.txt" in arguments else 2), ran
        assert ran.err.startswith("redset: ") and ran.err.count("\n") == 1, ran


def test_debug_shows_the_traceback(run: cli.Command) -> None:
    nowhere = f"redis://127.0.0.1:{servers.free_port()}"
    assert "Traceback" in run("--debug", "len", "jobs", "--url", nowhere, status=3).err
    assert "Traceback" not in run("len", "jobs", "--url", nowhere, status=3).err


WRITING = {
    "add": ["add", "jobs"],
    "take": ["take", "jobs"],
    "work": ["work", "jobs", "--", "true"],
    "discard": ["discard", "jobs", "a"],
    "forget": ["forget", "jobs", "a"],
    "move": ["move", "jobs", "other", "*"],
    "requeue": ["dead", "requeue", "jobs", "--all"],
    "purge": ["dead", "purge", "jobs", "--all"],
    "import": ["import", "jobs"],
    "clear": ["clear", "jobs", "--yes-i-mean=jobs"],
    "bench": ["bench"],
    "pause": ["pause", "jobs"],
    "resume": ["resume", "jobs"],
    "rm": ["rm", "jobs", "--yes-i-mean=jobs"],
}


def test_read_only_refuses_what_writes_before_it_connects(run: cli.Command, server: Any) -> None:
    nowhere = f"redis://127.0.0.1:{servers.free_port()}"
    for arguments in WRITING.values():
        ran = run("--url", nowhere, "--read-only", *arguments, status=2)
        assert "--read-only" in ran.err
        words = 2 if arguments[0] == "dead" else 1
        run(*arguments[:words], "--read-only", *arguments[words:], status=2)
        run(*arguments, env={"REDSET_READ_ONLY": "1"}, status=2)
    SortedSet(server.raw, "jobs").add("a")
    before = server.raw.info("commandstats")
    for arguments in (["len", "jobs"], ["peek", "jobs"], ["has", "jobs", "a"]):
        run("--read-only", *arguments)
    called = set(server.raw.info("commandstats")) - set(before)
    assert not called & {"cmdstat_zadd", "cmdstat_hset", "cmdstat_del", "cmdstat_unlink"}


def test_what_removes_names_the_server_and_the_set_on_a_terminal(
    run: cli.Command, jobs: SortedSet[Any], server: Any
) -> None:
    jobs.add_many(["a", "b"])
    assert run("take", "jobs", terminal=True).err == f"taking from jobs on {server.url}\n"
    assert run("take", "jobs").err == ""


# --- output


def test_text_is_safe_on_a_terminal() -> None:
    assert output.shown(HOSTILE) == "\\x1b[2Jbad\\u202ecod.exe\\x00\\n\\t\\x7f"
    assert output.shown(b"\xff\x1b") == "\\xff\\x1b"
    assert output.shown("ä€😀 [bold]x[/]") == "ä€😀 [bold]x[/]"
    assert output.shown("x" * 100, 10) == "x" * 9 + "…"
    assert len(output.shown("\x1b" * 100, 10)) == 10
    assert len(output.shown("ä".encode() * 5000, 300)) == 300


def test_numbers_are_short_on_a_terminal_and_full_elsewhere() -> None:
    values = (0, 7, 999, 1000, 1449, 99_960, 1.5e6, 2.5, 2e15, None)
    shown = ["0", "7", "999", "1.0k", "1.4k", "100k", "1.5M", "2.5", "2000T", "-"]
    assert [output.short(value) for value in values] == shown
    assert [output.duration(each) for each in (0, 59, 60, 3600, 90000, -61, None)] == [
        "0s", "59s", "1.0m", "1.0h", "1.0d", "-1.0m", "-",
    ]  # fmt: skip
    assert [output.number(each) for each in (3.0, 0.1, 1e300, -math.inf, 12, None)] == [
        "3", "0.1", "1e+300", "-inf", "12", "",
    ]  # fmt: skip
    values = (3.0, 0.5, math.inf, b"a\xff", None)
    assert [output.json_value(each) for each in values] == [3, 0.5, "inf", "a\\xff", None]


def test_items_are_bytes_in_a_pipe_escaped_on_a_terminal_and_base64_in_json(
    run: cli.Command, server: Any
) -> None:
    SortedSet(server.raw, "jobs").add(HOSTILE, 1)
    server.raw.zadd("jobs", {b"\xff\xfe": 2})
    assert run("peek", "jobs").out == HOSTILE.encode() + b"\n\xff\xfe\n"
    on_terminal = run("peek", "jobs", terminal=True).out.decode()
    assert on_terminal == "\\x1b[2Jbad\\u202ecod.exe\\x00\\n\\t\\x7f\n\\xff\\xfe\n"
    assert run("peek", "jobs", "--json").records == [
        {"item": HOSTILE},
        {"raw": base64.b64encode(b"\xff\xfe").decode()},
    ]
    SortedSet(server.raw, "jobs").add("x" * 3000, 3)
    lines = run("peek", "jobs", "--scores", terminal=True, columns=60).lines
    assert max(map(len, lines)) <= 60 and lines[-1].endswith("…")


# --- looking


def test_len_has_and_score_answer_and_exit_with_1_for_no(
    run: cli.Command, jobs: SortedSet[Any]
) -> None:
    assert run("len", "jobs", status=1).lines == ["0"]
    jobs.add_many(["a", "b"], score=[1, 2.5])
    assert run("len", "jobs").lines == ["2"]
    assert run("len", "jobs", "--json").records == [{"size": 2}]
    assert run("has", "jobs", "a").lines == ["yes"]
    assert run("has", "jobs", "c", status=1).lines == ["no"]
    assert run("score", "jobs", "b").lines == ["2.5"]
    assert run("score", "jobs", "a", "c", status=1).lines == ["1\ta", "-\tc"]
    assert run("score", "jobs", "-", input=b"b\r\n\na\n").lines == ["2.5\tb", "1\ta"]
    assert run("has", "jobs", "b", "c", "--json", status=1).records == [
        {"item": "b", "queued": True},
        {"item": "c", "queued": False},
    ]


def test_seen_answers_what_a_set_remembers(run: cli.Command, server: Any) -> None:
    urls = SortedSet(server.raw, "urls", remember=True)
    urls.add("/a")
    urls.pop()
    assert run("seen", "urls", "/a", "--remember").lines == ["yes"]
    assert run("seen", "urls", "/a", "/b", "--remember=forever", status=1).lines == [
        "yes\t/a",
        "no\t/b",
    ]
    assert "remember" in run("seen", "urls", "/a", status=2).err


def test_items_of_a_set_with_a_key_are_named_by_it(run: cli.Command, server: Any) -> None:
    pages = SortedSet(server.raw, "pages", key="url")
    pages.add({"url": "/a", "depth": 1}, 4)
    assert run("score", "pages", "/a", "--key", "url").lines == ["4"]
    assert run("peek", "pages", "--key", "url", "--scores").out == b'4\t{"depth":1,"url":"/a"}\n'
    calls = SortedSet(server.raw, "calls", key=("who", "kind"))
    calls.add({"who": "ann", "kind": "mail"}, 2)
    assert run("score", "calls", '["ann","mail"]', "--key", "who,kind").lines == ["2"]
    assert "a JSON list of 2 values" in run("has", "calls", "[1]", "--key=who,kind", status=2).err


def test_peek_looks_at_a_range_of_scores(run: cli.Command, jobs: SortedSet[Any]) -> None:
    jobs.add_many([f"{number:02}" for number in range(20)], score=range(20))
    assert run("peek", "jobs").lines == [f"{number:02}" for number in range(10)]
    assert run("peek", "jobs", "-n", "2", "--from", "5").lines == ["05", "06"]
    assert run("peek", "jobs", "--to", "1", "--scores").lines == ["0\t00", "1\t01"]
    assert run("peek", "jobs", "--from", "5", "--to", "5.5").lines == ["05"]
    assert run("peek", "jobs", "--from", "50", status=1).lines == []
    assert len(run("peek", "jobs", "-n", "5000").lines) == jobs.size() == 20


def test_peek_at_a_scheduled_set_shows_what_is_due(run: cli.Command, server: Any) -> None:
    later = ScheduledSet(server.raw, "later")
    later.add("now", 1)
    later.add("then", 4e9)
    assert run("peek", "later", "--class", "ScheduledSet").lines == ["now"]
    assert run("peek", "later", "--class", "ScheduledSet", "--from=-inf").lines == ["now", "then"]


def test_names_may_be_anything(run: cli.Command, server: Any) -> None:
    for name in ("a/b\n{c", "{tag}:x", "-dash", "ä b", "\udcff\udcfe"):
        assert run("add", "--", name, input=b"1\n2\n").records[0]["added"] == 2
        assert run("len", "--", name).lines == ["2"]
    assert server.raw.zcard(b"\xff\xfe") == 2


# --- add


def test_add_counts_lines_of_pipes_and_files(run: cli.Command, tmp_path: Path, server: Any) -> None:
    ran = run("add", "jobs", "-", input=b"a\nb\r\n\na\nlast")
    counts = ran.records[0]
    assert counts.pop("seconds") >= 0
    assert counts == {"read": 5, "added": 3, "updated": 1, "refused": 0, "bad": 0}
    (tmp_path / "one").write_bytes(b"c\n")
    (tmp_path / "two").write_bytes(b"d")
    ran = run("add", "jobs", str(tmp_path / "one"), str(tmp_path / "two"), "--score", "-3")
    assert ran.records[0]["added"] == 2
    assert server.raw.zrange("jobs", 0, -1, withscores=True) == [
        (b"c", -3.0), (b"d", -3.0), (b"a", 0.0), (b"b", 0.0), (b"last", 0.0),
    ]  # fmt: skip
    assert "added, 0 updated" in run("add", "jobs", terminal=True, input=b"e\n").out.decode()


def test_add_with_remember_refuses_duplicates(run: cli.Command, server: Any) -> None:
    lines = b"".join(b"/%d\n" % (number % 100) for number in range(3000))
    ran = run("add", "pages", "-", "--remember", input=lines)
    assert (ran.records[0]["added"], ran.records[0]["refused"]) == (100, 2900)
    assert SortedSet(server.raw, "pages", remember=True).seen("/7")
    ran = run("add", "pages", "--remember", "7d", input=b"x\n", status=2)
    assert "was made with" in ran.err or "is registered with" in ran.err
    again = run("add", "pages", "--remember", "--again", input=b"/7\n/8\n")
    assert again.records[0]["refused"] == 0


@pytest.mark.parametrize(
    ("flag", "score", "kept"), [("--nx", 1, 5), ("--xx", 1, 1), ("--lt", 9, 5), ("--gt", 9, 9)]
)
def test_add_has_the_flags_of_the_method(
    flag: str, score: int, kept: int, run: cli.Command, jobs: SortedSet[Any]
) -> None:
    jobs.add("a", 5)
    run("add", "jobs", flag, "--score", str(score), input=b"a\n")
    assert jobs.score("a") == kept
    run("add", "jobs", "--nx", "--xx", input=b"a\n", status=2)


def test_add_reads_json_lines_with_keys_and_scores(run: cli.Command, server: Any) -> None:
    lines = b'{"url": "/b", "depth": 2}\n{"depth":1,"url":"/a","x":[1]}\n'
    run("add", "pages", "--key", "url", "--score", "depth", input=lines)
    pages = SortedSet(server.raw, "pages", key="url")
    assert pages.take(5, with_scores=True) == [
        ({"url": "/a", "depth": 1, "x": [1]}, 1.0),
        ({"url": "/b", "depth": 2}, 2.0),
    ]
    run("add", "plain", "--jsonl", input=b'{"b": 1, "a": 2}\n{"a":2,"b":1}\n')
    assert server.raw.zrange("plain", 0, -1) == [b'{"a":2,"b":1}']
    assert run("has", "plain", '{"b":1,"a":2}', "--jsonl").lines == ["yes"]


def test_add_splits_at_nul_bytes(run: cli.Command, server: Any) -> None:
    run("add", "paths", "-", "-0", input=b"a\nb\r\0\xff\0\0c")
    assert set(server.raw.zrange("paths", 0, -1)) == {b"a\nb\r", b"\xff", b"c"}


@pytest.mark.parametrize(
    "bad", [b"{", b"[]", b'{"url": null}', b'{"url": "/c"}', b'{"url":1,"n":"x"}']
)
def test_a_bad_line_stops_the_add_and_is_named_or_is_skipped(
    bad: bytes, run: cli.Command, server: Any
) -> None:
    lines = b'{"url":"/a","n":1}\n\n' + bad + b'\n{"url":"/b","n":2}\n'
    ran = run("add", "pages", "-", "--key", "url", "--score", "n", input=lines, status=1)
    assert "line 3 of standard input: " in ran.err and ran.err.count("\n") == 1
    pages = SortedSet(server.raw, "pages", key="url")
    assert pages.size() == 1 and ran.records[0]["added"] == 1
    ran = run("add", "pages", "--key=url", "--score=n", "--skip-bad", input=lines, status=4)
    assert ran.records[0] | {"seconds": 0} == {
        "read": 4, "added": 1, "updated": 1, "refused": 0, "bad": 1, "seconds": 0,
    }  # fmt: skip
    assert pages.size() == 2


def test_of_very_many_bad_lines_the_first_are_named(run: cli.Command, server: Any) -> None:
    ran = run("add", "jobs", "--jsonl", "--skip-bad", input=b"{\n" * 40 + b"1\n", status=4)
    assert ran.err.count("skipped line") == adding.SHOWN
    assert "further bad lines are counted only" in ran.err
    assert server.raw.zcard("jobs") == 1


def test_without_a_file_nothing_is_added_from_a_terminal(run: cli.Command) -> None:
    ran = run("add", "jobs", typed=b"a\n", status=2)
    assert ran.err == "redset: name a file, or - for the standard input\n"


def test_an_add_resumes_after_the_last_acknowledged_line(
    run: cli.Command, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from redset.cli import lines

    monkeypatch.setattr(lines, "BLOCK", 4000)
    file = tmp_path / "links"
    file.write_bytes(b"".join(b"/%06d\n" % number for number in range(3000)))
    add_many, calls = SortedSet.add_many, []

    def interrupted(self: Any, items: Any, *args: Any, **options: Any) -> Any:
        calls.append(len(items))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return add_many(self, items, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(SortedSet, "add_many", interrupted)
        ran = run("add", "jobs", str(file), "--resume", status=130)
    assert f"interrupted: 1000 lines of {file} are added" in ran.err and "--resume" in ran.err
    assert ran.records[0]["read"] == server.raw.zcard("jobs") == 1000
    assert run("add", "other", str(file), "--resume", status=2).err.count("remove it") == 1
    ran = run("add", "jobs", str(file), "--resume")
    assert (ran.records[0]["read"], ran.records[0]["added"]) == (2000, 2000)
    assert server.raw.zcard("jobs") == 3000
    assert [path.name for path in tmp_path.iterdir()] == ["links"]
    assert "regular files" in run("add", "jobs", "-", "--resume", status=2).err


def test_a_damaged_bookmark_is_named(run: cli.Command, tmp_path: Path) -> None:
    file = tmp_path / "links"
    file.write_bytes(b"a\n")
    for text in ("{", "[]", '{"offset": 1}', '{"offset":99,"lines":1,"set":"jobs","head":""}'):
        (tmp_path / "links.redset-resume").write_text(text)
        assert "links.redset-resume" in run("add", "jobs", str(file), "--resume", status=2).err


def test_a_serializer_is_run_only_if_it_is_named(run: cli.Command, server: Any) -> None:
    server.raw.zadd("jobs", {b"[1, 2]": 1})
    assert run("peek", "jobs").out == b"[1, 2]\n"
    assert run("peek", "jobs", "--serializer", "json:JSONDecoder", status=None).status in (1, 2)
    assert run("peek", "jobs", "--serializer", "ast:literal_eval", status=None).status is not None
    named = "redset.serializers:JSONSerializer"
    assert run("peek", "jobs", "--serializer", named).out == b"[1, 2]\n"
    run("add", "jobs", "--serializer", named, input=b'{"b":1, "a":2}\n')
    assert server.raw.zscore("jobs", b'{"a":2,"b":1}') == 0
    for wrong in ("json", "nothing.there:x", "json:nothing"):
        assert "--serializer" in run("peek", "jobs", "--serializer", wrong, status=2).err


# --- take


def test_take_removes_and_prints(run: cli.Command, jobs: SortedSet[Any]) -> None:
    jobs.add_many([f"{number:04}" for number in range(1200)], score=range(1200))
    assert run("take", "jobs").lines == ["0000"]
    assert run("take", "jobs", "-n", "2", "--scores").lines == ["1\t0001", "2\t0002"]
    assert len(run("take", "jobs", "-n", "5000").lines) == 1197
    assert run("take", "jobs", "--wait", "10ms", status=1).lines == []
    jobs.add("x")
    assert run("take", "jobs", "--json", "--scores").records == [{"item": "x", "score": 0}]


def test_after_a_broken_pipe_take_queues_the_rest_again(
    run: cli.Command, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for options, flags in (
        ({}, []),
        ({"remember": True, "key": "url"}, ["--remember", "--key=url"]),
    ):
        server.flush()
        jobs = SortedSet(server.raw, "jobs", serializer=json, **options)  # type: ignore[arg-type]
        jobs.add_many([{"url": f"/{number}", "x": "x"} for number in range(30)], score=range(30))
        printed = 0

        def flush(self: Any) -> None:
            nonlocal printed
            printed += 1
            if printed == 8:
                raise BrokenPipeError

        with monkeypatch.context() as patched:
            patched.setattr(output.Output, "flush", flush)
            assert run("take", "jobs", "-n", "20", *flags, status=141).err == ""
        left = jobs.take(100, with_scores=True)
        assert left == [({"url": f"/{number}", "x": "x"}, number) for number in range(7, 30)]


def test_what_take_cannot_queue_again_is_printed(
    run: cli.Command, server: Any, jobs: SortedSet[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def flush(self: Any) -> None:
        patched.undo()
        server.raw.config_set("maxmemory", 1)
        raise BrokenPipeError

    jobs.add_many(["a", "b"], score=[1, 2])
    with monkeypatch.context() as patched:
        patched.setattr(output.Output, "flush", flush)
        try:
            ran = run("take", "jobs", "-n", "2", status=3)
        finally:
            server.raw.config_set("maxmemory", 0)
    assert "redset: 2 items could not be queued again; they follow\n" in ran.err
    assert "redset: the server refuses: " in ran.err
    assert {"a", "b"} < set(ran.err.splitlines())


# --- work


def script(path: Path, text: str) -> str:
    """Make a program of the shell."""
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)
    return str(path)


def test_work_runs_a_command_for_each_item_and_adds_its_lines(
    run: cli.Command, server: Any, tmp_path: Path
) -> None:
    links = script(tmp_path / "links", 'case $1 in ?????*) ;; *) echo "$1/a"; echo "$1/b"; esac\n')
    pages = SortedSet(server.raw, "pages", remember=True)
    pages.add("/")
    ran = run(
        "work", "pages", "-j", "3", "--add", "pages", "--until-finished", "--remember", "--json",
        "--", links, "{}",
    )  # fmt: skip
    assert ran.records == [{"set": "pages", "done": 7, "failed": 0, "lost": 0}]
    assert ran.err == "redset: 7 items of pages done, 0 failed, 0 leases lost\n"
    assert pages.finished() and pages.seen_many(["//a", "//b/b"]) == [True, True]


def test_work_gives_the_item_on_the_standard_input(
    run: cli.Command, jobs: SortedSet[Any], server: Any
) -> None:
    items = ["a b", "-rf *; $(touch x)", "ä\x1b", "x" * 200_000]
    jobs.add_many(items)
    run("work", "jobs", "-j2", "--add", "done", "--until-finished", "--", "cat")
    assert set(SortedSet(server.raw, "done")) == set(items)
    jobs.add_many(["-n", "$HOME"])
    run("work", "jobs", "--add", "said", "--until-finished", "--", "printf", "%s.\n", "{}")
    assert set(SortedSet(server.raw, "said")) == {"-n.", "$HOME."}


@pytest.mark.parametrize("status", [1, 75, 65])
def test_the_status_of_a_command_settles_its_item(
    status: int, run: cli.Command, jobs: SortedSet[Any], tmp_path: Path
) -> None:
    jobs.add("a")
    text = f'printf "%0600d\\n" 0 >&2; echo "no such page: $1" >&2; exit {status}\n'
    stop = ["--until-finished"] if status == 65 else []
    command = [script(tmp_path / "fails", text), "{}"]
    if stop:
        ran = run("work", "jobs", *stop, "--", *command)
        assert ran.err.count("no such page: a\n") >= 1
        letter = next(iter(jobs.dead))
        assert (letter.raw, letter.attempts) == (b"a", 0)
        reason = letter.reason
    else:
        with run.process("work", "jobs", "--", *command) as process:
            until = time.monotonic() + 30
            while not (rows := [row for row in jobs.leased() if row.error]):
                assert time.monotonic() < until, process
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            _, _, err = process.check(130)
        # A retry that the command asks for is not reported as an error of the item.
        assert ("the handler failed" in err) is (status == 1)
        assert [(row.item, row.attempts) for row in rows] == [("a", 1)]
        reason = rows[0].error or ""
    assert reason.startswith("Failed: exit ") and reason.endswith("no such page: a")
    assert 480 < len(reason) < 540


def test_a_killed_command_and_a_line_that_is_not_json_fail_the_item(
    run: cli.Command, server: Any, tmp_path: Path
) -> None:
    pages = SortedSet(server.raw, "pages", key="url", max_attempts=10)
    pages.add({"url": "/a"})
    reasons = []
    for text in ("kill -9 $$", "echo '{'", "echo '[1]'"):
        kill = script(tmp_path / "kill", text + "\n")
        arguments = ["pages", "--key=url", "--add=pages", "--", kill]
        with run.process("work", *arguments) as process:
            until = time.monotonic() + 30
            while time.monotonic() < until:
                rows = [row for row in pages.leased() if row.error not in (None, *reasons)]
                if rows:
                    reasons.append(rows[0].error)
                    break
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            process.check(130)
        pages.discard(Key("/a"))
        pages.add({"url": "/a"})
    assert "killed by SIGKILL" in str(reasons[0])
    assert "line 1 of its output" in str(reasons[1])
    assert "a JSON object" in str(reasons[2])


def test_items_that_cannot_be_arguments_are_dead_letters(
    run: cli.Command, jobs: SortedSet[Any]
) -> None:
    jobs.add_many(["a\0b", "x" * 200_000])
    run("work", "jobs", "--until-finished", "--", "true", "{}")
    reasons = sorted(letter.reason for letter in jobs.dead)
    assert "a NUL byte" in reasons[0] and "too long for an argument" in reasons[1]


def test_work_reads_keyed_items_and_adds_json_lines(
    run: cli.Command, server: Any, tmp_path: Path
) -> None:
    pages = SortedSet(server.raw, "pages", key="url", remember=True)
    pages.add({"url": "/a", "n": 1})
    adds = """echo '{"url":"/b"}'; echo; echo '{"url":"/a"}'"""
    line = f"""read -r item; case $item in *'"/a"'*) {adds}; esac"""
    flags = ["--key", "url", "--remember", "--until-finished"]
    program = script(tmp_path / "links", line + "\n")
    ran = run("work", "pages", *flags, "--add", "pages", "--json", "--", program)
    assert ran.records[0]["done"] == 2
    assert pages.finished() and pages.seen(Key("/b"))


def test_work_refuses_a_command_that_is_not_there(run: cli.Command, jobs: SortedSet[Any]) -> None:
    jobs.add("a")
    ran = run("work", "jobs", "--", "no-such-program", "{}", status=2)
    assert "no command 'no-such-program'" in ran.err
    assert run("work", "jobs", status=2).err.startswith("redset: Missing argument")
    assert jobs.score("a") == 0 and not list(jobs.leased())


# --- removing and moving


def test_discard_counts_what_was_there(run: cli.Command, jobs: SortedSet[Any]) -> None:
    jobs.add_many(["a", "b", "c", "d"])
    batch = jobs.lease(1)
    assert run("discard", "jobs", "a", "b").lines == ["2"]
    assert batch.ack() == 0
    assert run("discard", "jobs", "-", "--json", input=b"c\nx\n", status=4).records == [
        {"asked": 2, "discarded": 1}
    ]
    assert (
        "0 of 1 items discarded"
        in run("discard", "jobs", "x", terminal=True, status=1).out.decode()
    )
    assert jobs.take(9) == ["d"]


def test_forget_lets_items_be_added_again(run: cli.Command, server: Any) -> None:
    urls = SortedSet(server.raw, "urls", remember=True, key="url")
    urls.add_many([{"url": "/a"}, {"url": "/b"}])
    flags = ["--remember", "--key", "url"]
    assert run("forget", "urls", "/a", "/x", *flags, status=4).lines == ["1"]
    assert urls.seen_many([Key("/a"), Key("/b")]) == [False, True]
    assert run("discard", "urls", "/b", "--forget", *flags).lines == ["1"]
    assert not urls.seen(Key("/b"))
    assert "remember" in run("forget", "plain", "/a", status=2).err


def test_move_takes_a_pattern_or_a_number(run: cli.Command, server: Any) -> None:
    for options, flags in (({}, []), ({"key": "url"}, ["--key", "url"])):
        server.flush()
        pages = SortedSet(server.raw, "pages", serializer=json, **options)  # type: ignore[arg-type]
        held = SortedSet(server.raw, "held", serializer=json, **options)  # type: ignore[arg-type]
        pages.add_many([{"url": f"/{each:02}"} for each in range(20)], score=range(20))
        assert run("move", "pages", "held", '*"/1?"*', *flags).lines == ["10"]
        assert held.score({"url": "/13"}) == 13 and pages.size() == 10
        assert run("move", "pages", "held", "-n", "3", *flags, terminal=True).out == (
            b"3 of 3 items moved\n"
        )
        assert held.peek() == {"url": "/00"} and pages.size() == 7
        assert run("move", "pages", "held", "nothing", *flags).lines == ["0"]
    assert "needs a pattern" in run("move", "pages", "held", status=2).err
    assert run("move", "pages", "pages", "*", status=2).err.count("\n") == 1


def test_clear_and_rm_want_the_name_once_more(run: cli.Command, server: Any) -> None:
    jobs = SortedSet(server.raw, "jobs", remember=True)
    for command in ("clear", "rm"):
        jobs.add_many(["a", "b"], again=True)
        ran = run(command, "jobs", status=2)
        assert "nothing was done" in ran.err and "--yes-i-mean jobs" in ran.err
        run(command, "jobs", "--yes-i-mean", "job", status=1)
        ran = run(command, "jobs", terminal=True, input=b"no\n", status=None)
        assert ran.status in (1, 2) and jobs.size() == 2
        assert run(command, "jobs", "--yes", status=2).err.startswith("redset: No such option")
    jobs.lease()
    assert run("clear", "jobs", "--yes-i-mean=jobs", "--keep-memory", "--remember").lines == ["1"]
    assert jobs.seen("a") and jobs.finished()
    assert run("rm", "jobs", "--yes-i-mean", "jobs", "--json").records == [{"queued": 0}]
    assert server.raw.keys("*jobs*") == []


def test_the_name_of_a_set_that_goes_is_typed_at_a_terminal(
    run: cli.Command, jobs: SortedSet[Any]
) -> None:
    jobs.add_many(["a", "b"])
    ran = run("clear", "jobs", typed=b"job\n", status=1)
    assert "the set is jobs, not job" in ran.err and jobs.size() == 2
    ran = run("clear", "jobs", typed=b"jobs\n")
    assert ran.err.startswith("This removes all of jobs on ") and ran.lines == ["2"]
    assert jobs.size() == 0


# --- leases, export, wait


def test_leases_are_printed_late_ones_first(run: cli.Command, jobs: SortedSet[Any]) -> None:
    run("leases", "jobs", status=1)
    jobs.add_many(["a", "b", "\x1bc"], score=[1, 2, 3])
    jobs.fail(jobs.lease(1), "no such page", delay=60)
    jobs.lease(1, ttl=3000)
    jobs.lease(1, ttl=0.02)
    time.sleep(0.05)
    rows = run("leases", "jobs", "--json").records
    assert [row["item"] for row in rows] == ["\x1bc", "a", "b"]
    assert rows[0]["left"] < 0 < rows[1]["left"] <= 60
    assert (rows[1]["attempts"], rows[1]["score"], rows[1]["error"]) == (1, 1, "no such page")
    late = run("leases", "jobs", "--late").lines
    assert len(late) == 1 and late[0].split("\t")[-1] == "\x1bc"
    run("leases", "jobs", "--worker", "nobody", status=1)
    shown = run("leases", "jobs", terminal=True).lines
    assert shown[0].split() == ["LEFT", "TRIES", "SCORE", "WORKER", "ITEM"]
    assert shown[1].endswith("\\x1bc") and len(shown) == 4


def test_an_export_is_imported_into_another_set(
    run: cli.Command, server: Any, tmp_path: Path
) -> None:
    pages = SortedSet(server.raw, "pages", key="url", remember=True)
    pages.add_many([{"url": f"/{each}"} for each in range(600)], score=range(600))
    pages.add({"url": "dead"}, -1)
    pages.consume(_rejecting(pages), batch=1, until_finished=False, stop=_Once())
    flags = ["--key", "url", "--remember"]
    lines = run("export", "pages", *flags).out
    assert lines == "".join(line + "\n" for line in pages.export()).encode()
    assert run("import", "copy", *flags, input=lines).records == [{"items": 600}]
    (tmp_path / "lines").write_bytes(lines)
    ran = run("import", "file", str(tmp_path / "lines"), *flags, terminal=True)
    assert ran.out == b"600 items queued\n"
    copy = SortedSet(server.raw, "copy", key="url", remember=True)
    assert copy.take(600) == pages.take(600) and copy.dead.size() == 1
    assert run("import", "copy", *flags, input=b"no export\n", status=2).err.count("\n") == 1


class _Once:
    """An event that is set after a handler ran."""

    ran = False

    def is_set(self) -> bool:
        return _Once.ran


def _rejecting(pages: SortedSet[Any]) -> Any:
    _Once.ran = False

    def handle(item: Any) -> None:
        _Once.ran = True
        raise Reject("no such page")

    return handle


def test_wait_ends_when_it_is_so_or_at_the_timeout(run: cli.Command, jobs: SortedSet[Any]) -> None:
    run("wait", "jobs")
    jobs.add_many(["a", "b"])
    assert run("wait", "jobs", "--timeout", "20ms", "--json", status=1).records[0]["size"] == 2
    run("wait", "jobs", "--until", "below:3")
    run("wait", "jobs", "--until", "empty", "--timeout", "1ms", status=1)
    batch = jobs.lease(2)
    run("wait", "jobs", "--until", "empty")
    for flags in ([], ["--read-only"]):
        run(*flags, "wait", "jobs", "--timeout", "1ms", status=1)
    ending = threading.Timer(0.1, batch.ack)
    ending.start()
    run("wait", "jobs", "--timeout", "20s")
    run("--read-only", "wait", "jobs")
    ending.join()
    for wrong in ("below", "below:x", "done"):
        run("wait", "jobs", "--until", wrong, status=2)


# --- dead letters


@pytest.fixture
def letters(jobs: SortedSet[Any]) -> list[str]:
    """The ids of four dead letters."""
    jobs.add_many(["a", "b", "c", "\x1bd"], score=[1, 2, 3, 4])
    reasons = iter(["ConnectTimeout: a", "HTTPError: 503", "ConnectTimeout: c", "x\u202e"])

    def handle(item: Any) -> None:
        raise Reject(next(reasons))

    jobs.consume(handle, until_finished=True)
    return [letter.id for letter in jobs.dead]


def test_dead_letters_are_listed_and_shown_in_full(
    run: cli.Command, jobs: SortedSet[Any], letters: list[str]
) -> None:
    rows = run("dead", "ls", "jobs", "--json").records
    assert [row["id"] for row in rows] == letters
    assert set(rows[0]) == {"id", "ago", "attempts", "score", "reason", "item", "time"}
    rows = run("dead", "ls", "jobs", "--reason", "ConnectTimeout*").lines
    assert [row.split("\t")[-1] for row in rows] == ["a", "c"]
    run("dead", "ls", "jobs", "--before", "1h", status=1)
    shown = run("dead", "ls", "jobs", terminal=True).lines
    assert shown[0].split()[0] == "ID" and shown[4].endswith("\\x1bd") and len(shown) == 5
    text = run("dead", "show", "jobs", letters[3], terminal=True).out.decode()
    assert "\\u202e" in text and "\\x1bd" in text and letters[3] in text
    assert run("dead", "show", "jobs", letters[0]).records[0]["reason"] == "ConnectTimeout: a"
    run("dead", "show", "jobs", letters[0], "1-1", status=1)
    run("dead", "ls", "other", status=1)


def test_nothing_is_requeued_or_purged_without_a_choice(
    run: cli.Command, jobs: SortedSet[Any], letters: list[str]
) -> None:
    for command in ("requeue", "purge"):
        assert "nothing was done" in run("dead", command, "jobs", status=2).err
        assert "not both" in run("dead", command, "jobs", letters[0], "--all", status=2).err
        run("dead", command, "jobs", "no-id", status=2)
    assert jobs.dead.size() == 4


def test_dead_letters_are_queued_again_by_id_reason_or_all(
    run: cli.Command, jobs: SortedSet[Any], letters: list[str]
) -> None:
    ran = run("dead", "requeue", "jobs", "--reason", "ConnectTimeout*", terminal=True)
    assert ran.out == b"2 of 2 letters queued again\n"
    assert jobs.scores(["a", "c"]) == [1, 3]
    ran = run("dead", "requeue", "jobs", letters[1], letters[0], "--json", status=4)
    assert ran.records == [{"asked": 2, "requeued": 1}]
    run("dead", "requeue", "jobs", "--before", "1h")
    assert run("dead", "requeue", "jobs", "--all").lines == ["1"]
    assert jobs.dead.size() == 0 and jobs.size() == 4


def test_dead_letters_are_purged_by_id_reason_age_or_all(
    run: cli.Command, jobs: SortedSet[Any], letters: list[str], server: Any
) -> None:
    assert run("dead", "purge", "jobs", letters[1]).lines == ["1"]
    assert run("dead", "purge", "jobs", letters[1], status=1).lines == ["0"]
    assert run("dead", "purge", "jobs", "--reason", "*: c").lines == ["1"]
    assert run("dead", "purge", "jobs", "--before", "1h").lines == ["0"]
    assert [letter.item for letter in jobs.dead] == ["a", "\x1bd"]
    assert run("dead", "purge", "jobs", "--all").lines == ["2"]
    assert jobs.dead.size() == 0 and jobs.size() == 0
    jobs.add("x")
    jobs.consume(_rejecting(jobs), until_finished=True)
    run("dead", "purge", "jobs", "--all", "--forget", status=2)


# --- the registry, ls, show, check


def register(server: Any, name: str, **options: Any) -> None:
    """Write an entry of the registry, as the programs of a set do."""
    entry = {"class": "SortedSet", "key": None, "ties": None, "remember": None, "attempts": 10}
    server.raw.hset("redset:sets", name, json.dumps({**entry, **options}))


def test_options_of_a_registered_set_need_not_be_given(run: cli.Command, server: Any) -> None:
    pages = SortedSet(server.raw, "pages", key="url", remember=True, ties="fifo")
    register(server, "pages", key="url", remember=True, ties="fifo", attempts=1)
    run("add", "pages", input=b'{"url":"/a"}\n{"url":"/b"}\n')
    assert pages.seen(Key("/a")) and run("seen", "pages", "/b").lines == ["yes"]
    assert run("score", "pages", "/a", "--key", "url").lines == ["0"]
    for flag, shown in (
        ("--key=other", "--key: the set 'pages' is registered with 'url'"),
        ("--remember=1h", "--remember: "),
        ("--ties=lifo", "--ties: "),
        ("--class=ScheduledSet", "--class: "),
    ):
        assert shown in run("len", "pages", flag, status=2).err
    # One attempt, as the programs have it.
    run("work", "pages", "-j1", "--until-finished", "--", "false")
    assert pages.dead.size() == 2
    register(server, "made", key=True)
    assert run("score", "made", "/a", status=1).lines == ["-"]
    made = SortedSet(server.raw, "made", key=lambda item: item["url"])
    made.add({"url": "/a"}, 7)
    assert run("score", "made", "/a").lines == ["7"]
    assert "a function" in run("add", "made", input=b'{"url":"/b"}\n', status=1).err
    register(server, "calls", key=["who", "kind"])
    run("add", "calls", input=b'{"who":"ann","kind":"mail"}\n')
    assert run("has", "calls", '["ann","mail"]').lines == ["yes"]


def test_items_added_to_another_set_have_its_options(run: cli.Command, server: Any) -> None:
    register(server, "pages", key="url")
    register(server, "done")
    SortedSet(server.raw, "pages", key="url").add({"url": "/a"})
    run("work", "pages", "--add", "done", "--until-finished", "--", "cat")
    assert list(SortedSet(server.raw, "done")) == ['{"url":"/a"}']


def test_ls_prints_sets_trouble_first(run: cli.Command, server: Any) -> None:
    run("ls", status=1)
    for name in ("busy", "dead", "late", "quiet"):
        register(server, name)
    SortedSet(server.raw, "busy").add_many(map(str, range(1234)))
    dead = SortedSet(server.raw, "dead")
    dead.add("x")
    dead.consume(_rejecting(dead), until_finished=True)
    late = SortedSet(server.raw, "late")
    late.add_many(["a", "b"])
    late.lease(1, ttl=0.001)
    time.sleep(0.01)
    now = server.raw.time()[0]
    for name in ("busy", "dead", "quiet"):
        server.raw.hset(f"{name}:{{{name}}}:counts", "consumer_seen", now)
    SortedSet(server.raw, "stray").add("x")
    rows = run("ls", "--json").records
    assert [row["name"] for row in rows] == ["late", "dead", "busy", "quiet"]
    assert (rows[0]["late"], rows[0]["idle"], rows[1]["dead"]) == (1, True, 1)
    assert rows[2]["queued"] == 1234 and "in" not in rows[2]
    lines = run("ls", terminal=True, columns=110).lines
    assert lines[0].split()[:5] == ["SET", "QUEUED", "LEASED", "LATE", "DEAD"]
    assert lines[1].split()[0] == "late" and lines[1].rstrip().endswith("none")
    assert "1.2k" in lines[3] and lines[4] == "1 more are quiet: redset ls --all"
    assert [row["name"] for row in run("ls", "*u*", "--sort", "name", "--json").records] == [
        "busy", "quiet",
    ]  # fmt: skip
    assert "stray" in {row["name"] for row in run("ls", "--scan", "--json").records}
    assert run("ls", "--read-only").lines[0].split("\t")[0] == "late"


def test_entries_of_sets_that_are_gone_are_dropped_on_request(
    run: cli.Command, server: Any
) -> None:
    client, old = server.raw, int(time.time()) - 31 * 86400
    for name, seen in (("gone", old), ("there", old), ("paused", old), ("young", old + 2 * 86400)):
        client.hset("redset:sets", name, json.dumps({"seen": seen, "class": "SortedSet"}))
    client.hset("redset:sets", "odd", '{"class":"SortedSet"}')
    client.zadd("there", {"a": 1})
    client.set("paused:{paused}:paused", '{"by":"me"}')
    run("--read-only", "ls", "--prune", status=2)
    assert client.hlen("redset:sets") == 5
    ran = run("ls", "--prune")
    assert ran.err == "redset: dropped 1 entries of sets that are gone\n"
    assert set(client.hkeys("redset:sets")) == {b"odd", b"there", b"paused", b"young"}
    assert {line.split("\t")[0] for line in ran.lines} == {"there", "paused", "odd", "young"}


def test_rates_are_what_two_looks_differ_by(run: cli.Command, server: Any) -> None:
    register(server, "jobs")
    SortedSet(server.raw, "jobs").add("a")
    server.raw.hset("jobs:{jobs}:counts", mapping={"added": 5, "refused": 7})
    adding = threading.Timer(0.1, lambda: server.raw.hincrby("jobs:{jobs}:counts", "added", 100))
    adding.start()
    row = run("ls", "--json", "--rates", "500ms").records[0]
    adding.join()
    assert 50 < row["in"] <= 200 and row["out"] == row["refused"] == 0


def test_show_prints_one_set(run: cli.Command, server: Any) -> None:
    assert run("show", "jobs", "--rates", "0", status=1).lines == ["nothing is stored of jobs"]
    register(server, "jobs", ties="fifo")
    jobs = SortedSet(server.raw, "jobs", ties="fifo")
    jobs.add_many(["a", "b\x1b", "c", "d"], score=[1, 2, 3, 4])
    jobs.consume(_rejecting(jobs), batch=1, stop=_Once())
    row = run("show", "jobs", "--rates", "0", "--json").records[0]
    assert row["options"]["ties"] == "fifo" and row["queued"] == 3 and row["dead"] == 1
    assert [each["item"] for each in row["next"]] == ["b\x1b", "c", "d"]
    assert row["letters"][0]["reason"] == "no such page" and row["server"] == []
    text = run("show", "jobs", "--rates", "0", terminal=True).out.decode()
    assert "b\\x1b" in text and "no such page" in text and "fifo" in text
    assert "queued\t3" in run("show", "jobs", "--rates=0").lines


def test_check_prints_a_line_a_problem(run: cli.Command, server: Any) -> None:
    assert run("check").lines == []
    for name in ("dead", "late", "idle"):
        register(server, name)
    register(server, "old", **{"class": "TimeSortedSet"})
    server.raw.hset("old:{old}:counts", "consumer_seen", server.raw.time()[0])
    dead = SortedSet(server.raw, "dead")
    dead.add("x")
    dead.consume(_rejecting(dead), until_finished=True)
    late = SortedSet(server.raw, "late")
    late.add("a")
    late.lease(1, ttl=0.001)
    SortedSet(server.raw, "idle").add("a")
    TimeSortedSet(server.raw, "old").add("a", time.time() - 1000)
    time.sleep(0.01)
    assert run("check", status=1).lines == [
        "dead: 1 dead letters",
        "idle: 1 items are available, no consumer was heard of",
        "late: 1 leases are late",
        "old: the oldest item is 17m old",
    ]
    assert [row["problem"] for row in run("check", "late", "dead", "--json", status=1).records] == [
        "dead", "late",
    ]  # fmt: skip
    run("check", "dead", "late", "--dead", "1", "--late", "1")
    run("check", "old", "--oldest", "1h")
    assert run("--read-only", "check", "--server", "old", "--oldest=1h", "--json").records == []


def test_a_risk_of_the_servers_configuration_is_a_problem(run: cli.Command, server: Any) -> None:
    register(server, "jobs")
    SortedSet(server.raw, "jobs").add("a")
    policy = server.raw.config_get("maxmemory-policy")["maxmemory-policy"]
    server.raw.config_set("maxmemory-policy", "allkeys-lru")
    try:
        [line] = run("check", "--server", "--idle", "7d", status=1).lines[1:]
        assert "maxmemory-policy" in line
        for terminal in (True, False):
            shown = run("show", "jobs", "--rates=0", terminal=terminal).lines
            assert any(each.startswith("server") and "maxmemory" in each for each in shown)
    finally:
        server.raw.config_set("maxmemory-policy", policy)


def test_sets_are_sorted_by_any_column_and_a_key_of_another_type_is_none(
    run: cli.Command, server: Any
) -> None:
    assert "no set is registered that matches" in run("ls", terminal=True, status=1).err
    for name, num in (("a", 1), ("b", 3), ("c", 2)):
        register(server, name)
        SortedSet(server.raw, name).add_many(map(str, range(num)))
    server.raw.set("d", "text")
    register(server, "d")
    for sort, names in (("queued", "bca"), ("name", "abc")):
        rows = run("ls", "--rates", "0", "--sort", sort, "--json").records
        assert "".join(row["name"] for row in rows if row["name"] != "d") == names
    assert run("check", "d").lines == []


def test_of_very_many_letters_the_first_are_shown(
    run: cli.Command, server: Any, jobs: SortedSet[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "MANY", 3)
    jobs.add_many(["a", "b", "c", "d"], score=[1, 2, 3, 4])
    jobs.consume(_rejecting(jobs), until_finished=True, batch=1)
    [row] = run("show", "jobs", "--rates=0", "--json").records
    assert row["dead"] == 4 and len(row["letters"]) == 3


# --- bench, completion


def test_bench_measures_in_a_set_of_its_own_and_removes_it(run: cli.Command, server: Any) -> None:
    rows = run("bench", "--seconds", "200ms", "--json").records
    names = ["raw ZADD", "add_many", "lease and ack", "take", "round trip"]
    assert [row["measure"] for row in rows] == names
    assert all(row["rate"] > 0 and row["micros"] > 0 for row in rows[:4])
    assert rows[0]["of_raw"] == 1 and rows[4]["micros"] > 0
    assert server.raw.keys("*bench*") == []
    text = run("bench", "--seconds", "40ms", terminal=True).out.decode()
    assert "OF RAW" in text and "100%" in text and "a round trip takes" in text


def test_the_completion_of_a_shell_knows_commands_and_names(
    run: cli.Command, server: Any, load: Load
) -> None:
    for shell in ("bash", "zsh", "fish"):
        if shell == "bash" and shutil.which("bash") is None:
            continue
        assert "_REDSET_COMPLETE" in run("completion", shell).out.decode()
    run("completion", "tcsh", status=2)
    for name in ("pages", "paths", "jobs"):
        register(server, name)
    for words, count, names in (
        ("redset pe", 1, {"peek"}),
        ("redset len pa", 2, {"pages", "paths"}),
    ):
        variables = {"_REDSET_COMPLETE": "bash_complete", "COMP_WORDS": words}
        ran = run(env={**variables, "COMP_CWORD": str(count)}, status=None)
        assert {line.partition(",")[2] for line in ran.lines} == names
    nowhere = {"REDSET_URL": "redis://127.0.0.1:1"}
    variables = {"_REDSET_COMPLETE": "bash_complete", "COMP_WORDS": "redset len pa"}
    began = time.monotonic()
    assert run(env={**variables, **nowhere, "COMP_CWORD": "2"}, status=None).out.strip() == b""
    assert time.monotonic() - began < load.seconds(5)


# --- a cluster


def test_on_a_cluster_it_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Any
) -> None:
    with servers.cluster(servers.some(), 2) as nodes:
        address = {"REDSET_URL": f"redis://127.0.0.1:{nodes[0].port}", "REDSET_CLUSTER": "1"}
        run = functools.partial(cli.Command(server, monkeypatch), env=address)
        node = nodes[int(nodes[0].raw.cluster("keyslot", "redset:sets")) >= servers.SLOTS // 2]
        for name in ("jobs", "pages"):
            register(node, name)
            run("add", name, input=b"a\nb\nc\nd\ne\n")
        assert run("len", "jobs").lines == ["5"]
        assert {row["name"] for row in run("ls", "--json").records} == {"jobs", "pages"}
        assert {row["name"] for row in run("ls", "--scan", "--json").records} >= {"jobs", "pages"}
        assert {line.split("\t")[0] for line in run("top", "--once").lines} == {"jobs", "pages"}
        assert run("take", "jobs").lines == ["a"]
        run("work", "jobs", "--add", "pages", "--until-finished", "--", "echo", "found {}")
        assert run("has", "pages", "found c").lines == ["yes"]
        run("work", "pages", "--until-finished", "--", "sh", "-c", "exit 65")
        assert run("dead", "requeue", "pages", "--reason", "*65*").lines == ["9"]
        lines = run("export", "pages").out
        assert run("import", "copy", input=lines).records == [{"items": 9}]
        run("wait", "copy", "--timeout", "1ms", status=1)
        register(node, "idle")
        run("add", "idle", input=b"a\n")
        assert run("check", "idle", status=1).lines[0].startswith("idle: 1 items are available")
        assert "measure" in run("bench", "--seconds", "40ms", "--json").records[0]
        assert run("rm", "pages", "--yes-i-mean", "pages").lines == ["9"]
        ran = run("move", "copy", "jobs", "*", status=None)
        assert ran.status in (0, 2) and ran.err.count("\n") <= 1


def test_a_full_server_and_a_replica_are_3(run: cli.Command, server: Any) -> None:
    SortedSet(server.raw, "jobs").add("a")
    server.raw.config_set("maxmemory", 1)
    try:
        ran = run("add", "jobs", input=b"b\n", status=3)
        assert "the server refuses: " in ran.err and ran.err.count("\n") == 1
        assert run("take", "jobs").lines == ["a"]
    finally:
        server.raw.config_set("maxmemory", 0)
    SortedSet(server.raw, "jobs").add("a")
    server.raw.execute_command("REPLICAOF", "127.0.0.1", servers.free_port())
    try:
        assert "the server refuses: " in run("add", "jobs", input=b"b\n", status=3).err
        assert run("len", "jobs").lines == ["1"] and run("ls", "--scan").lines
        run("wait", "jobs", "--timeout", "1ms", status=1)
    finally:
        server.raw.execute_command("REPLICAOF", "NO", "ONE")


# --- workers, pause


def test_a_paused_set_hands_nothing_out_until_it_is_resumed(
    run: cli.Command, jobs: SortedSet[Any]
) -> None:
    jobs.add("a")
    ran = run("pause", "jobs", "--why", "the site is down\x1b", terminal=True)
    assert ran.out == b"jobs paused\n"
    assert not jobs.lease()
    assert jobs.paused is not None and jobs.paused.why == "the site is down\x1b"
    text = run("show", "jobs", "--rates=0", terminal=True).out.decode()
    assert "the site is down\\x1b" in text
    assert run("resume", "jobs", "--json").records == [{"name": "jobs", "resumed": True}]
    assert run("resume", "jobs", terminal=True, status=1).out == b"jobs was not paused\n"
    assert jobs.lease().ack() == 1
    run("pause", "jobs", "more")
    assert run("rm", "jobs", "--yes-i-mean", "jobs").lines == ["0"]
    assert jobs.paused is None


def test_workers_are_the_processes_that_reported(run: cli.Command, jobs: SortedSet[Any]) -> None:
    run("workers", "jobs", status=1)
    jobs.add_many(["a", "b"])
    run("work", "jobs", "--until-finished", "--", "true")
    [row] = run("workers", "jobs", "--json").records
    assert row["set"] == "jobs" and row["pid"] == os.getpid()
    assert set(row) == {
        "set", "id", "host", "pid", "up", "ago", "held", "done", "failed", "label", "since", "seen",
    }  # fmt: skip
    shown = run("workers", "jobs", terminal=True, columns=120).lines
    assert shown[0].split()[:2] == ["SET", "WORKER"] and len(shown) == 2


# --- arguments and errors: one line each


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("peek", "jobs", "--from", "nan"), "must be a number, got 'nan'"),
        (("peek", "jobs", "--from", "low"), "must be a number, got 'low'"),
        (("len", ""), "must be the name of a set, got ''"),
        (("has", "jobs", "a", "--key", "url,"), "must be a field, or fields with commas"),
        (("wait", "jobs", "--timeout", "3 fortnights"), "must be a time such as 90"),
        (("check", "--idle", "soon"), "must be a time such as 90"),
        (("peek", "jobs", "--serializer", "nowhere:at_all"), "nowhere"),
        (("peek", "jobs", "--serializer", "json"), "must be module:name, got 'json'"),
        (("dead",), "Usage"),
        (("no-such",), "No such command 'no-such'"),
        (("len", "jobs", "--no-such"), "No such option"),
    ],
    ids=repr,
)
def test_a_wrong_argument_is_named_before_anything_is_sent(
    arguments: tuple[str, ...], message: str, run: cli.Command, server: Any
) -> None:
    before = server.raw.info("stats")["total_connections_received"]
    ran = run(*arguments, status=2)
    assert message.lower() in ran.err.lower()
    assert server.raw.info("stats")["total_connections_received"] == before


def test_the_version_names_the_implementation(run: cli.Command) -> None:
    text = run("--version").out.decode()
    assert text == f"redset {redset.__version__} ({redset.IMPLEMENTATION})\n"


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (redset.exceptions.OptionsDiffer("made with key=url"), 2, "made with key=url"),
        (redset.exceptions.DecodeError("none of 3 items"), 1, "none of 3 items"),
        (redset.exceptions.Full("full"), 1, "full"),
        (redis.ConnectionError("gone"), 3, "cannot reach the server: gone"),
        (redis.AuthenticationError("no"), 3, "the server refuses: no"),
        (redis.ResponseError("NOPERM"), 3, "the server refuses: NOPERM"),
        (ValueError("num must be 1 or more"), 2, "num must be 1 or more"),
        (FileNotFoundError(2, "No such file", "links"), 1, "No such file: links"),
        (KeyError("odd"), 1, "KeyError: 'odd'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_each_error_has_a_status_and_a_line(error: Exception, status: int, message: str) -> None:
    assert program.outcome(error) == (status, message)


def test_names_of_sets_are_completed_or_none_is(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import click

    jobs: SortedSet[str] = SortedSet(server.raw, "crawl:a")
    jobs.add_many(["x"])
    jobs.add_many(["y"])
    jobs.close()
    found = {}
    for url in (server.url, "redis://localhost:1"):
        settings = Settings()
        settings.url = url
        with click.Context(click.Command("len"), obj=settings) as context:
            made = parameters.SetName().shell_complete(context, None, "crawl")
        found[url] = [each.value for each in made]
    assert found == {server.url: ["crawl:a"], "redis://localhost:1": []}


# --- groups


def test_groups_are_listed_paused_and_used(run: cli.Command, server: Any) -> None:
    pages: SortedSet[Any] = SortedSet(
        server.raw, "pages", key="url", group="host", group_limit=2, group_interval=0.5
    )
    register(server, "pages", key="url", group="host", group_limit=2, group_interval=0.5)
    lines = "".join(
        json.dumps({"url": f"{host}/{number}", "host": host}) + "\n"
        for host in "ab"
        for number in range(3)
    )
    assert run("add", "pages", input=lines.encode(), terminal=True).status == 0
    assert run("groups", "pages", "--json", "a*").records == [
        {
            "group": "a",
            "queued": 3,
            "leased": 0,
            "ready": True,
            "rests": None,
            "limit": 2,
            "interval": 0.5,
        }
    ]
    (host,) = [lease.group for lease in pages.lease(1)]
    (row,) = run("leases", "pages", "--json").records
    assert row["group"] == host
    assert f" {host} " in run("leases", "pages", terminal=True).out.decode()
    assert run("pause", "pages", "--group", "b", "--for", "10m", "--json").records == [
        {"name": "pages", "group": "b", "paused": True}
    ]
    rows = {row["group"]: row for row in run("groups", "pages", "--resting", "--json").records}
    assert 590 < rows["b"]["rests"] <= 600
    assert run("pause", "pages", "--group", "a").status == 0
    assert "forever" in run("groups", "pages", "a", terminal=True).out.decode()
    assert run("groups", "pages", "--ready", status=1).lines == []
    assert run("resume", "pages", "--group", "a").status == 0
    run("pause", "pages", "--for", "1m", status=2)
    run("pause", "pages", "--group", "a", "--why", "x", status=2)
    shown = run("show", "pages", "--rates", "0", "--json").records[0]
    assert shown["groups_working"] == 1
    assert shown["options"]["group"] == "host"
    assert run("groups", "jobs", status=2).err.startswith("redset: the set 'jobs' was made without")


def test_a_set_whose_groups_are_a_callable_is_looked_at(run: cli.Command, server: Any) -> None:
    pages: SortedSet[Any] = SortedSet(server.raw, "pages", group=lambda url: url[:1])
    register(server, "pages", group=True)
    pages.add_many(["a/1", "b/1"])
    for lease in pages.lease(1):
        lease.fail("no", 60)
    assert len(run("peek", "pages").lines) == 1
    assert run("take", "pages").status == 0
    refused = run("add", "pages", input=b"c/1\n", status=None)
    assert refused.status != 0 and "is a function of its programs" in refused.err
    texts: SortedSet[Any] = SortedSet(server.raw, "texts", group=lambda item: "x", serializer=json)
    texts.add({"host": "a"})
    added = run("add", "texts", "--group", "host", input=b'{"host": "b"}\n', status=None)
    assert added.status == 0
    assert sorted(str(group.name) for group in texts.groups()) == ["b", "x"]
