"""``redset top``: the application under textual's own driver, and in a pseudo-terminal."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import cli
import pytest
import redis
import servers

if not cli.HAS_CLICK:
    pytest.skip("cli: click is not installed here", allow_module_level=True)
if importlib.util.find_spec("textual") is None:
    pytest.skip("top: textual is not installed here", allow_module_level=True)

from redset import SortedSet, TimeSortedSet, list_sets
from redset.cli.connection import Settings
from redset.cli.live import app as live
from redset.cli.live.app import Top
from redset.cli.live.dialogs import Dialog
from redset.cli.live.parts import detail
from redset.cli.live.reading import Reader
from redset.cli.live.widgets import Grid, Lines
from redset.cli.watching import View, Watcher

HOSTILE = "\x1b]0;title\x07[red]gnp\u202eexe[/red]"
SIZES = [(80, 24), (112, 34), (120, 40), (40, 10)]


@pytest.fixture
def server(all_servers: servers.Servers) -> Any:
    """One server that is here, empty."""
    found = all_servers.get(servers.some())
    found.flush()
    return found


def filled(client: Any) -> SortedSet[Any]:
    """Make some sets; one has three dead letters, and hostile text."""
    bad: SortedSet[Any] = SortedSet(client, "bad:" + HOSTILE, max_attempts=1)
    bad.add_many([HOSTILE, "two", "three", "four"], score=range(4))
    for lease in bad.lease(3):
        lease.fail(f"Timeout {HOSTILE}")
    busy: SortedSet[Any] = SortedSet(client, "busy", key="url", remember=True)
    busy.add_many([{"url": f"https://example.org/{number}"} for number in range(1500)])
    busy.lease(40, ttl=300)
    for number in range(30):
        TimeSortedSet(client, f"feed:{number:02}").add_many(["a"], score=time.time() - 90)
    for name in (bad.name, "busy", *(f"feed:{number:02}" for number in range(30))):
        client.hset(f"{name}:{{{name}}}:counts", "consumer_seen", int(time.time()) + 60)
    client.hset("redset:sets", "idle", '{"class":"SortedSet","x":[1]}')
    client.zadd("idle", {"a": 1})
    return bad


class Driven:
    """The application, and what is on its screen."""

    def __init__(self, app: Top, pilot: Any) -> None:
        self.app, self._pilot = app, pilot

    @property
    def lines(self) -> list[str]:
        strips = self.app.screen._compositor.render_strips()
        return [strip.text for strip in strips]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def grid(self) -> Grid:
        grid = self.app.screen.focused
        assert isinstance(grid, Grid)
        return grid

    @property
    def names(self) -> list[str]:
        return [view.name for view in self.grid.rows]

    async def press(self, *keys: str) -> None:
        await self._pilot.press(*keys)

    async def until(self, condition: Callable[[], Any], limit: float = 30.0) -> None:
        end = time.monotonic() + limit
        while True:
            # A screen that was opened has its focus a moment later.
            with contextlib.suppress(AssertionError):
                if condition():
                    return
            assert time.monotonic() < end, self.text
            await self._pilot.pause(0.01)

    async def shows(self, text: str) -> None:
        await self.until(lambda: text in self.text)


def drive(
    server: Any,
    scenario: Callable[[Driven], Awaitable[None]],
    size: tuple[int, int] = (100, 30),
    every: float = 0.2,
    **options: Any,
) -> None:
    """Run the application, and a scenario with it."""

    async def run() -> None:
        settings = Settings(options.pop("url", server.url), **options)
        watcher = Watcher(settings.client(), None, settings.cluster)
        app = Top(settings, watcher, watcher.look(), every)
        async with app.run_test(size=size) as pilot:
            await scenario(Driven(app, pilot))

    asyncio.run(run())


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_screen_of_any_size_has_trouble_first(size: tuple[int, int], server: Any) -> None:
    filled(server.raw)
    width, height = size

    async def scenario(top: Driven) -> None:
        lines = top.lines
        # The last cell of a line may be left to the terminal.
        assert len(lines) == height and {len(line.rstrip()) <= width for line in lines} == {True}
        assert "redset top  33 sets" in lines[0]
        assert top.names[:2] == ["bad:" + HOSTILE, "idle"]
        [heading] = [line for line in lines if line.startswith("SET")]
        headings = heading.split()
        assert headings[:2] == ["SET", "QUEUED"] and "DEAD" in headings and "OUT/s" in headings
        for least, word in (
            (60, "LEASED"),
            (72, "OLDEST"),
            (100, "OUT,"),
            (120, "FAIL/s"),
            (120, "MEMORY"),
        ):
            assert (word in headings) is (width >= least)
        assert lines[-1].startswith(" q Quit") and "? Help" in lines[-1]
        # Below the list is the set of the cursor.
        assert ("SortedSet attempts=1" in top.text) is (height >= 16)
        if height >= 16:
            await top.shows("next  four")
            assert "1.5k queued" in lines[1] and "3 dead" in lines[1]
            assert ("NO CONSUMER" if width >= 112 else " idle") in top.text
        if width >= 120:
            await top.until(lambda: top.app.screen._memory)
            [row] = [line for line in top.lines if line.startswith("busy ")]
            memory = row.split()[-3]
            assert memory.endswith("k") and float(memory[:-1]) > 50
        await top.press("end")
        assert top.grid.cursor == 32
        await top.until(lambda: top.names[32] in top.text)

    drive(server, scenario, size)


def test_text_of_strangers_is_only_text(server: Any) -> None:
    filled(server.raw)

    async def scenario(top: Driven) -> None:
        escaped = "\\x1b]0;title\\x07[red]gnp\\u202eexe[/red]"
        await top.shows(f"bad:{escaped}")
        await top.press("d")
        await top.shows(f"Timeout {escaped}"[:30])
        assert all(each.isprintable() for line in top.lines for each in line)
        await top.press("enter")
        await top.shows(f"reason    Timeout {escaped}")
        await top.press("escape", "escape")
        server.raw.zadd("bad:" + HOSTILE, {HOSTILE: -1})
        await top.shows(f"next  {escaped}")
        assert all(each.isprintable() for line in top.lines for each in line)

    drive(server, scenario, (120, 40))


def test_sets_are_filtered_sorted_and_frozen_by_keys(server: Any) -> None:
    filled(server.raw)

    async def scenario(top: Driven) -> None:
        await top.press("slash", *"D:1q", "backspace", "enter")
        assert top.names == [f"feed:{number}" for number in range(10, 20)]
        assert "/D:1" in top.lines[0]
        await top.press("escape")
        assert len(top.names) == 33
        await top.press("s")
        assert "sort: queued" in top.lines[0] and top.names[0] == "busy"
        await top.press("s", "s", "s", "s")
        assert top.names == sorted(top.names)
        await top.press("space")
        await top.shows("FROZEN")
        await top.until(lambda: not top.app._is_looking)
        server.raw.zadd("busy:{busy}:keyed", {str(number): 1 for number in range(9000)})
        await asyncio.sleep(0.3)
        assert "9.0k" not in top.text
        await top.press("space")
        await top.shows("10.5k")
        await top.press("question_mark")
        await top.shows("Keys of an opened set")
        await top.press("escape", "j", "k", "pagedown")
        assert top.grid.cursor > 5
        await top.press("q")
        await top.until(lambda: top.app.return_value == 0)

    drive(server, scenario)


def test_a_row_keeps_its_place_while_keys_are_pressed(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(server.raw)

    async def scenario(top: Driven) -> None:
        await top.press("down", "down")
        before, row = top.names, top.grid.current.name
        server.raw.xadd("feed:29:{feed:29}:dead", {"raw": "x"})
        await top.until(lambda: top.app.look.views[-2].figures.dead == 1)
        assert top.names == before
        monkeypatch.setattr(live, "HELD", 0.0)
        await top.until(lambda: top.names[1] == "feed:29")
        assert top.grid.current.name == row

    drive(server, scenario)


def test_a_set_opens_in_tabs(server: Any) -> None:
    filled(server.raw)

    async def scenario(top: Driven) -> None:
        await top.press("down", "down")
        assert top.grid.current.name == "busy"
        await top.press("enter")
        await top.shows("https://example.org/1")
        assert len(top.grid.rows) == 100
        await top.press("end")
        await top.until(lambda: len(top.grid.rows) == 200)
        await top.press("2")
        await top.until(lambda: len(top.grid.rows) == 40 and top.grid.id == "leases")
        await top.press("right")
        await top.shows(f"{os.getpid()}")
        assert top.grid.id == "workers"
        await top.press("4")
        await top.shows("none")
        await top.press("5")
        await top.shows("remember         True")
        await top.press("tab", "escape", "w")
        await top.until(lambda: isinstance(top.app.screen.focused, Grid))
        assert top.grid.id == "workers"

    drive(server, scenario, (80, 24))


def test_the_next_page_is_read_after_a_look_that_is_under_way(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(server.raw)
    slow, looks, go_on = threading.Event(), threading.Event(), threading.Event()
    items = Reader.items

    def late(*arguments: Any) -> Any:
        if slow.is_set():
            looks.set()
            go_on.wait(30)
        return items(*arguments)

    monkeypatch.setattr(Reader, "items", late)

    async def scenario(top: Driven) -> None:
        await top.press("down", "down", "enter")
        await top.until(lambda: len(top.grid.rows) == 100)
        slow.set()
        await top.until(looks.is_set)
        await top.press("end")
        go_on.set()
        await top.until(lambda: len(top.grid.rows) == 200)

    drive(server, scenario)


def test_chosen_letters_are_requeued_and_purged_after_a_question(server: Any) -> None:
    bad = filled(server.raw)

    async def scenario(top: Driven) -> None:
        await top.press("d")
        await top.until(lambda: len(top.grid.rows) == 3)
        await top.press("a")
        assert len(top.grid.marked) == 3
        await top.press("a")
        assert not top.grid.marked
        await top.press("space", "space", "r")
        await top.until(lambda: isinstance(top.app.screen, Dialog))
        question = top.app.screen.text
        assert "Queue 2 dead letters again?" in question and "set     bad:\\x1b" in question
        assert f"server  {top.app.settings.target}" in question
        await top.press("enter", "x", "n")
        assert len(bad.dead) == 3 and top.grid.marked
        await top.press("r", "y")
        await top.shows("2 of 2 letters queued again")
        await top.until(lambda: len(top.grid.rows) == 1)
        assert [letter.item for letter in bad.dead] == ["three"]
        await top.press("x")
        await top.shows("Delete 1 dead letter?")
        await top.press("y")
        await top.shows("1 of 1 letters purged")
        await top.until(lambda: not top.grid.rows)
        assert len(bad.dead) == 0 and sorted(bad) == sorted([HOSTILE, "two", "four"])

    drive(server, scenario)


def test_a_set_is_paused_and_resumed_after_a_question(server: Any) -> None:
    bad = filled(server.raw)

    async def scenario(top: Driven) -> None:
        await top.press("p")
        await top.shows("Pause a set with 1 queued, 0 leased?")
        await top.press("escape")
        assert bad.paused is None
        await top.press("p", "y")
        await top.shows("s ago by ")
        assert bad.paused is not None and bad.lease(1) is not None
        await top.press("p")
        await top.shows("Resume a set")
        await top.press("y")
        await top.until(lambda: "paused" not in top.text)
        assert bad.paused is None

    drive(server, scenario)


def test_read_only_has_no_key_that_writes_and_a_look_writes_nothing(server: Any) -> None:
    bad = filled(server.raw)
    server.raw.execute_command(
        "ACL",
        "SETUSER",
        "reader",
        "on",
        ">pw",
        "~*",
        "+@read",
        "+@scripting",
        "+@connection",
        "+time",
    )

    async def scenario(top: Driven) -> None:
        assert "p Pause" not in top.lines[-1]
        await top.press("p", "d")
        await top.until(lambda: len(top.grid.rows) == 3)
        await top.press("space", "r", "x", "a", "p")
        assert not isinstance(top.app.screen, Dialog) and not top.grid.marked
        assert "Requeue" not in top.text
        for tab in "1235":
            await top.press(tab)
            await top.until(lambda: not top.app.screen._reading)
        await top.press("question_mark")
        await top.shows("Keys of the list")
        assert "asks first" not in top.text
        assert top.app.trouble is None

    try:
        url = server.url.replace("unix://", "unix://reader:pw@")
        drive(server, scenario, read_only=True, url=url)
    finally:
        server.raw.execute_command("ACL", "DELUSER", "reader")
    assert len(bad.dead) == 3 and bad.paused is None


@pytest.mark.parametrize("command", ["xrange", "hmget"])
def test_what_a_user_may_not_see_is_named_where_it_would_be(command: str, server: Any) -> None:
    filled(server.raw)
    rights = ["~*", "+@read", "+@scripting", "+@connection", "+time", f"-{command}"]
    server.raw.execute_command("ACL", "SETUSER", "few", "on", ">pw", *rights)

    async def scenario(top: Driven) -> None:
        if command == "xrange":
            await top.press("d")
        await top.shows("the server refuses: ")
        # Only a look that is refused as a whole makes the figures old.
        assert (top.app.trouble is not None) is (command == "hmget")

    try:
        drive(server, scenario, url=server.url.replace("unix://", "unix://few:pw@"))
    finally:
        server.raw.execute_command("ACL", "DELUSER", "few")


def test_memory_that_may_not_be_read_is_not_known(server: Any) -> None:
    filled(server.raw)
    reader, infos = Reader(Settings(server.url)), list_sets(server.raw, ["idle"])
    assert reader.memory(infos)["idle"] > 0
    server.raw.set("idle:{idle}:leased", "text")
    assert Reader(Settings(server.url)).memory(infos) == {"idle": None}
    nobody = Reader(Settings("redis://localhost:1"))
    with pytest.raises(redis.ConnectionError):
        nobody.memory(infos)
    with pytest.raises(redis.ConnectionError):
        nobody.facts(infos[0])


def test_a_frozen_view_says_so_in_tabs_too(server: Any) -> None:
    filled(server.raw)

    async def scenario(top: Driven) -> None:
        await top.press("space", "enter")
        await top.shows("FROZEN")
        await top.press("right", "left", "2", "1")
        await top.shows("FROZEN")

    drive(server, scenario)


def test_a_lost_server_is_named_and_found_again() -> None:
    with servers.start(servers.some()) as server:
        filled(server.raw)

        async def scenario(top: Driven) -> None:
            await top.shows("next  four")
            server.kill()
            await top.shows("since ")
            assert "cannot reach the server" in top.lines[1] and top.grid.is_stale
            assert len(top.names) == 33
            await top.press("enter", "4", "escape", "down")
            await asyncio.to_thread(server.restart)
            await top.until(lambda: top.app.trouble is None)
            assert not top.grid.is_stale

        drive(server, scenario)


def test_a_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PATIENCE", 0.2)
    with servers.start(servers.some()) as server:
        filled(server.raw)
        process = server.raw.info("server")["process_id"]

        async def scenario(top: Driven) -> None:
            await top.shows("next  four")
            os.kill(process, signal.SIGSTOP)
            try:
                await top.shows("the server does not answer")
                assert top.grid.is_stale and len(top.names) == 33
            finally:
                os.kill(process, signal.SIGCONT)
            await top.until(lambda: top.app.trouble is None)

        drive(server, scenario)


def test_the_mouse_scrolls_and_a_look_does_not_scroll_back(server: Any) -> None:
    filled(server.raw)

    async def scenario(top: Driven) -> None:
        top.grid.scroll_to(y=9, animate=False)
        look = top.app.look
        await top.until(lambda: top.app.look is not look)
        assert top.grid.cursor == 0 and top.grid.scroll_offset.y == 9
        await top.press("down")
        assert top.grid.cursor == 1 and top.grid.scroll_offset.y == 1

    drive(server, scenario)


def test_only_the_rows_on_the_screen_are_drawn(server: Any) -> None:
    pipe = server.raw.pipeline(transaction=False)
    for number in range(1000):
        pipe.hset("redset:sets", f"site-{number:04}", '{"class":"SortedSet"}')
    pipe.execute()
    drawn: list[str] = []

    async def scenario(top: Driven) -> None:
        name = top.grid._columns[0]
        cell = name.cell
        top.grid._columns[0] = name._replace(
            cell=lambda view: drawn.append(view.name) or cell(view)
        )
        look = top.app.look
        await top.until(lambda: top.app.look is not look)
        drawn.clear()
        look = top.app.look
        await top.until(lambda: top.app.look is not look and drawn)
        assert len(top.names) == 1000 and 0 < len(set(drawn)) < 30

    drive(server, scenario)


def test_a_click_chooses_a_set_and_a_key_of_the_last_line(server: Any) -> None:
    filled(server.raw)

    async def scenario(top: Driven) -> None:
        await top._pilot.click("#sets", offset=(5, 3))
        assert top.grid.cursor == 2
        await top._pilot.click("#keys", offset=(top.lines[-1].index("Sort"), 0))
        await top.shows("sort: queued")
        row = top.grid.cursor
        await top._pilot.click("#sets", offset=(5, row + 1))
        await top.until(lambda: top.app.screen.query("#about"))
        await top._pilot.click("#tabs", offset=(top.lines[2].index("Workers"), 0))
        await top.until(lambda: isinstance(top.app.screen.query_one("#tabs"), Lines))
        assert top.grid.id == "workers"

    drive(server, scenario)


@pytest.mark.parametrize("end", ["q", pytest.param("signal", marks=pytest.mark.slow(2))])
def test_in_a_terminal_it_draws_without_colour_and_leaves_it_as_it_was(
    end: str, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("pyte") is None:
        pytest.skip("top: pyte is not installed here")
    pty, pyte = importlib.import_module("pty"), importlib.import_module("pyte")
    filled(server.raw)
    environment = {
        **cli.Command(server, monkeypatch).environment,
        "TERM": "xterm-256color",
        "NO_COLOR": "1",
    }
    ours, theirs = pty.openpty()
    with contextlib.suppress(ImportError):
        fcntl, termios = importlib.import_module("fcntl"), importlib.import_module("termios")
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, b"\x18\0\x50\0\0\0\0\0")
    process = subprocess.Popen(
        [sys.executable, "-m", "redset", "top", "--every", "0.2"],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
    )  # fmt: skip
    os.close(theirs)
    screen = pyte.Screen(80, 24)
    stream, data, asked = pyte.ByteStream(screen), b"", False
    limit = time.monotonic() + 40
    try:
        while time.monotonic() < limit and select.select([ours], [], [], 20)[0]:
            try:
                more = os.read(ours, 65536)
            except OSError:  # its end is an error on Linux
                break
            if not more:
                break
            data += more
            stream.feed(more)
            if not asked and "next  four" in "\n".join(screen.display):
                asked, shown = True, list(screen.display)
                if end == "q":
                    os.write(ours, b"q")
                else:
                    process.send_signal(signal.SIGTERM)
        assert asked, screen.display
        assert process.wait(20) == (0 if end == "q" else 128 + signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert shown[0].startswith(" redset top  33 sets") and shown[-1].startswith(" q Quit")
    assert any(line.startswith("bad:\\x1b]0;title") for line in shown)
    # 39 and 49 are the colours of the terminal itself.
    codes = {
        code
        for part in data.split(b"\x1b[")[1:]
        if part.split(b"m")[0].replace(b";", b"").isdigit() and b"m" in part
        for code in part.split(b"m")[0].split(b";")
    }
    colours = {*range(30, 39), *range(40, 49), *range(90, 108)}
    assert codes and not colours & set(map(int, codes))
    assert data.rstrip().count(b"\x1b[?1049l") == 1


def test_a_set_with_groups_shows_how_many_may_start(server: Any) -> None:
    pages: SortedSet[Any] = SortedSet(server.raw, "pages", group=lambda url: url[:1])
    pages.add_many(["a/1", "b/1", "c/1"])
    pages.pause_group("b", 60)
    pages.lease(1)
    stated = {"class": "SortedSet", "key": None, "group": True, "group_limit": 1}
    server.raw.hset("redset:sets", "pages", json.dumps(stated))
    [info] = list_sets(server.raw, ["pages"])
    lines = detail(View(info, "pages", None, None, None, False), None, 10)
    text = "\n".join("".join(part.text for part in line) for line in lines)
    assert "group=a function group_limit=1" in text
    assert "groups 1 ready, 1 resting, 1 working" in text
