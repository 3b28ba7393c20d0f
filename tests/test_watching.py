"""What a live view shows over time, and the one table of ``redset top --once``."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Any

import children
import cli
import pytest
import servers

if not cli.HAS_CLICK:
    pytest.skip("cli: click is not installed here", allow_module_level=True)

import redset.cli.watching as watching
from redset import SetInfo, SortedSet, list_sets
from redset.cli.top import is_screen
from redset.cli.watching import KEPT, ORDERS, Rates, Watcher, sparkline


@pytest.fixture
def server(all_servers: servers.Servers) -> Any:
    """One server that is here, empty."""
    found = all_servers.get(servers.some())
    found.flush()
    return found


@pytest.fixture
def run(server: Any, monkeypatch: pytest.MonkeyPatch) -> cli.Command:
    return cli.Command(server, monkeypatch)


def registered(client: Any, names: list[str]) -> None:
    """Enter sets into the registry, each with an item."""
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.hset("redset:sets", name, '{"class":"SortedSet"}')
        pipe.zadd(name, {"item": 1})
    pipe.execute()


class Counted:
    """A set whose counts and clock are the test's."""

    def __init__(self, client: Any) -> None:
        [self._info] = list_sets(client, ["jobs"])
        self.past = watching._Past()

    def look(self, now: float, **counts: int) -> Rates | None:
        assert self._info.figures is not None
        figures = self._info.figures._replace(time=now)
        return self.past.note(SetInfo("jobs", {}, figures, counts))


def test_rates_are_those_of_the_last_ten_seconds(server: Any) -> None:
    jobs = Counted(server.raw)
    assert jobs.look(100.0, added=500) is None
    assert jobs.look(102.0, added=520, acked=4, taken=2, refused=10, failed=1) == (10, 3, 5, 0.5)
    for second in range(4, 30, 2):
        rates = jobs.look(100.0 + second, added=520, acked=4, taken=2, refused=10, failed=1)
        # Two items were added in the second before the last ten.
        assert rates is not None and rates.added == (20 / second if second <= 10 else 0), second


def test_counts_that_begin_again_are_never_negative_rates(server: Any) -> None:
    jobs = Counted(server.raw)
    jobs.look(100.0, added=500)
    assert jobs.look(102.0, added=3) is None
    assert jobs.look(104.0, added=5) == (1, 0, 0, 0)
    # The clock of another server.
    assert jobs.look(7.0, added=5) is None


def test_the_history_has_half_an_hour_and_does_not_grow(server: Any) -> None:
    jobs = Counted(server.raw)
    for second in range(0, 4000, 5):
        jobs.look(1000.0 + second, added=second, acked=2 * second)
    assert list(jobs.past.added) == [1.0] * KEPT and list(jobs.past.done) == [2.0] * KEPT
    assert len(jobs.past.samples) <= 4
    # A minute without looks has points without anything.
    jobs.look(5100.0, added=5000, acked=8000)
    assert list(jobs.past.done)[-11:-1] == [2.0] + [0.0] * 9 and jobs.past.done[-1] > 0
    assert len(jobs.past.done) == KEPT


def test_a_line_of_blocks_ends_at_the_right() -> None:
    assert sparkline([], 4) == sparkline([0, 0], 4) == "    "
    assert sparkline([9, 9, 1, 2, 4, 8], 6) == "██▁▂▄█"
    assert sparkline([0, 8], 4) == "   █"


def test_a_look_finds_new_sets_and_drops_removed_ones(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(server.raw, ["a:1", "a:2", "b:1"])
    watcher = Watcher(server.raw, "a:*")
    assert [view.name for view in watcher.look().views] == ["a:1", "a:2"]
    registered(server.raw, ["a:3"])
    server.raw.hdel("redset:sets", "a:1")
    # The registry is asked again after some seconds; until then by name.
    assert [view.name for view in watcher.look().views] == ["a:2"]
    monkeypatch.setattr(watching, "DISCOVER", 0.0)
    assert [view.name for view in watcher.look().views] == ["a:2", "a:3"]
    assert set(watcher._past) == {"a:2", "a:3"}
    assert watcher.history("a:1") == ([], [])


def test_a_look_at_a_thousand_sets_is_a_command_for_each_25_and_one(server: Any) -> None:
    registered(server.raw, [f"site-{number:04}" for number in range(1000)])
    watcher = Watcher(server.raw)
    watcher.look()
    server.raw.config_resetstat()
    look = watcher.look()
    assert len(look.views) == 1000 and look.commands == 41
    calls = {name: each["calls"] for name, each in server.raw.info("commandstats").items()}
    # Redis counts the commands inside scripts, too.
    asked = {name: calls.get(f"cmdstat_{name}", 0) for name in ("evalsha", "hmget", "hscan")}
    assert asked == {"evalsha": 40, "hmget": 1, "hscan": 0}


def test_trouble_comes_first(server: Any) -> None:
    registered(server.raw, ["dead", "late", "idle", "large", "quiet"])
    client = server.raw
    client.zadd("large", {str(number): 1 for number in range(9)})
    for name in ("large", "quiet", "late", "dead"):
        client.hset(f"{name}:{{{name}}}:counts", "consumer_seen", int(time.time()) + 60)
    client.zadd("late:{late}:leased", {"item": 1})
    client.xadd("dead:{dead}:dead", {"raw": "x"})
    views = Watcher(client).look().views
    order = [view.name for view in sorted(views, key=ORDERS["trouble"])]
    assert order == ["dead", "late", "idle", "large", "quiet"]
    assert [view.is_idle for view in sorted(views, key=ORDERS["name"])] == [0, 1, 0, 0, 0]
    assert sorted(views, key=ORDERS["queued"])[0].name == "large"


def test_once_prints_one_table_and_ends(
    run: cli.Command, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redset.cli.top.BETWEEN", 0.05)
    registered(server.raw, ["quiet", "\x1b[2J[red]x"])
    jobs = SortedSet(server.raw, "jobs", max_attempts=1)
    jobs.add_many(["a", "b", "c"])
    for lease in jobs.lease(1):
        lease.fail("no")
    lines = run("top", "--once", terminal=True, columns=100).lines
    assert lines[0] == "3 sets: 4 queued, 0 leased, 0 late, 1 dead"
    assert " ".join(lines[1].split()) == (
        "SET QUEUED LEASED LATE DEAD IN/s OUT/s FAIL/s OLDEST LEFT"
    )
    assert lines[2].split()[:5] == ["jobs", "2", "-", "-", "1"]
    assert any(line.startswith("\\x1b[2J[red]x ") for line in lines)
    piped = run("top", "j*", "--once").lines
    assert [line.split("\t")[:5] for line in piped] == [["jobs", "2", "0", "0", "1"]]
    assert run("top", "nothing:*", "--once", status=1).out == b""


def test_without_a_screen_or_textual_one_line_says_what_to_do(
    run: cli.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *rest: None if name == "textual" else find(name, *rest),
    )
    ran = run("top", terminal=True, status=2)
    assert ran.err == "redset: textual is missing: pip install 'redset[cli]'\n"
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: True)
    ran = run("top", status=2)
    assert ran.err == (
        "redset: top needs a terminal that it can draw on; --once prints one table\n"
    )


@pytest.mark.parametrize("term", ["", "dumb", "xterm"])
def test_a_screen_is_a_terminal_with_a_cursor_that_moves(
    term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    for name in ("stdin", "stdout"):
        monkeypatch.setattr(f"sys.{name}", cli._Stream(terminal=True))
    assert is_screen() is (term == "xterm")
    monkeypatch.setattr("sys.stdin", None)
    assert not is_screen()


def test_a_server_that_refuses_or_is_away_is_3_before_the_screen_changes(
    run: cli.Command, server: Any
) -> None:
    nowhere = f"redis://127.0.0.1:{servers.free_port()}"
    assert "cannot reach" in run("top", "--once", "--url", nowhere, status=3).err
    server.raw.execute_command("ACL", "SETUSER", "nobody", "on", ">pw", "-@all")
    url = server.url.replace("unix://", "unix://nobody:pw@")
    try:
        ran = run("top", "--once", "--url", url, status=3)
    finally:
        server.raw.execute_command("ACL", "DELUSER", "nobody")
    assert ran.err.startswith("redset: the server refuses: ") and ran.err.count("\n") == 1


def test_a_table_of_sets_imports_no_textual(run: cli.Command, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from redset.cli.program import program\n"
        "for words in (['ls'], ['top', '--once'], ['top', '--help']):\n"
        "    try: program.main(words)\n"
        "    except SystemExit: pass\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'textual', 'rich'}))"
    )
    ended = children.run("-c", code, env=run.environment, cwd=tmp_path)
    assert ended.out.splitlines()[-1] == "[]"


def test_a_registered_name_of_another_type_is_counted_and_not_shown(
    server: Any, run: cli.Command
) -> None:
    registered(server.raw, ["jobs", "text"])
    server.raw.set("text", "x")
    look = Watcher(server.raw, None).look()
    assert [view.name for view in look.views] == ["jobs"] and look.replaced == 1
    ended = run("top", "--once")
    assert b"jobs" in ended.out and b"text" not in ended.out
    rights = ["~*", "+@read", "+@scripting", "+@connection", "+time", "-hgetall"]
    with servers.user(server, *rights) as login:
        url = server.url.replace("unix://", f"unix://{login['username']}:{login['password']}@")
        assert "the server refuses: " in run("ls", "--url", url, status=3).err
    assert "1 registered names are not sorted sets any more" in ended.err
