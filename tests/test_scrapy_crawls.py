"""Scrapy crawls of the demo's site in processes of their own, undisturbed and under faults."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import children
import cluster
import proxy
import pytest
import servers

if importlib.util.find_spec("scrapy") is None:
    pytest.skip("scrapy: it is not installed here", allow_module_level=True)

import scrapy

from redset.demo.site import Site
from redset.scrapy.entries import open_frontier

TESTS = Path(__file__).parent
#: A process needs some seconds to begin on a busy machine.
LIMIT = 100.0

REACTORS = {
    "asyncio": {"TWISTED_REACTOR": "twisted.internet.asyncioreactor.AsyncioSelectorReactor"},
    "epoll": {"TWISTED_REACTOR": "twisted.internet.epollreactor.EPollReactor"},
    "none": {"TWISTED_REACTOR_ENABLED": False},
}


every_reactor = pytest.mark.parametrize(
    "reactor",
    ["asyncio", *(pytest.param(each, marks=pytest.mark.slow(4)) for each in ("epoll", "none"))],
)


def settings_of(reactor: str) -> dict[str, Any]:
    if reactor == "none" and scrapy.version_info < (2, 19):
        raise servers.Missing(f"scrapy: {scrapy.__version__} downloads nothing without a reactor")
    if reactor == "epoll" and not sys.platform.startswith("linux"):
        raise servers.Missing("epoll: this is not Linux")
    return REACTORS[reactor]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    return {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}


def reachable(site: Site) -> set[str]:
    """The paths that a crawl from the start finds."""
    found, todo = {site.start}, [site.start]
    while todo:
        for link in site.links[todo.pop()]:
            if link not in found:
                found.add(link)
                todo.append(link)
    return {url.partition(site.host)[2] for url in found}


class Crawls:
    """Crawl processes of one frontier, and what they parsed."""

    def __init__(self, url: str, directory: Path, size: int = 60, pause: float = 0.0) -> None:
        self.site = Site.of_python_docs().first(size)
        self.expected = reachable(self.site)
        self._url, self._parsed = url, directory / "parsed"
        self._parsed.touch()
        self._stack = contextlib.ExitStack()
        if pause:
            get = self.site.get

            def slow(url: str, worker: str = "") -> str | None:
                time.sleep(pause)
                return get(url, worker)

            self.site.get = slow  # type: ignore[method-assign]
        self._port = self._stack.enter_context(self.site.served())

    def __enter__(self) -> Crawls:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def start(self, given: dict[str, Any] | None = None, **settings: Any) -> children.Child:
        """Start a process."""
        made = {
            "port": self._port,
            "parsed": str(self._parsed),
            "settings": {"REDSET_URL": self._url, **settings},
            **(given or {}),
        }
        child = children.Child("-m", "crawls", json.dumps(made), cwd=TESTS, env=environment())
        return self._stack.enter_context(child)

    def end(self, child: children.Child) -> dict[str, str]:
        """Wait for the end of a process; its stats."""
        ended = child.check(0, LIMIT)
        stats: dict[str, str] = json.loads(ended.out.splitlines()[-1])
        return stats

    def run(
        self, processes: int = 1, given: dict[str, Any] | None = None, **settings: Any
    ) -> list[dict[str, str]]:
        """Start processes, and wait for their ends; their stats."""
        started = [self.start(given, **settings) for _ in range(processes)]
        return [self.end(child) for child in started]

    def parsed(self) -> Counter[str]:
        return Counter(self._parsed.read_text().split())

    def wait_for(self, pages: int, child: children.Child) -> None:
        """Wait until so many pages were parsed."""
        until = time.monotonic() + LIMIT
        while len(self.parsed()) < pages:
            assert child.status is None and time.monotonic() < until, str(child)
            time.sleep(0.01)

    def assert_each_once(self) -> None:
        parsed = self.parsed()
        assert set(parsed) == self.expected
        assert set(parsed.values()) == {1}

    def assert_none_missing(self) -> None:
        assert set(self.parsed()) == self.expected


@pytest.fixture
def server(all_servers: servers.Servers) -> servers.Server:
    found = all_servers.get(servers.some())
    found.flush()
    assert isinstance(found, servers.Server)
    return found


@pytest.fixture
def crawls(server: servers.Server, tmp_path: Path) -> Iterator[Crawls]:
    with Crawls(server.url, tmp_path) as made:
        yield made


def frontier_of(client: Any, max_attempts: int = 20) -> Any:
    return open_frontier(
        client, "docs:frontier", order="lifo", remember=True, max_attempts=max_attempts
    )


# --- the hook, and whole crawls


@every_reactor
def test_what_a_request_led_to_comes_before_it_is_over(reactor: str) -> None:
    settings = json.dumps(settings_of(reactor))
    ended = children.run("-m", "crawls.hook", settings, cwd=TESTS, env=environment(), limit=LIMIT)
    found = json.loads(ended.out.splitlines()[-1])
    assert found == {"wrong": [], "version": scrapy.__version__}


@every_reactor
def test_a_crawl_fetches_each_page_once(crawls: Crawls, reactor: str) -> None:
    (stats,) = crawls.run(**settings_of(reactor))
    crawls.assert_each_once()
    assert set(crawls.site.requests.values()) == {1}
    assert stats["finish_reason"] == "finished"
    assert stats["redset/acked"] == stats["scheduler/dequeued"] == str(len(crawls.expected))
    assert stats["redset/queued"] == "0"


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow(15))])
def test_processes_share_a_crawl_and_each_page_is_fetched_once(
    server: servers.Server, tmp_path: Path, processes: int
) -> None:
    # Four crawl the whole site.
    with Crawls(server.url, tmp_path, size=60 if processes == 2 else 600) as crawls:
        stats = crawls.run(processes)
        crawls.assert_each_once()
        assert {each["finish_reason"] for each in stats} == {"finished"}


@pytest.mark.slow(9)
def test_several_processes_with_a_delay_of_their_own_are_warned_of(crawls: Crawls) -> None:
    settings = {"DOWNLOAD_DELAY": 0.25, "CONCURRENT_REQUESTS": 4, "REDSET_PREFETCH": 4}
    processes = [crawls.start(**settings) for _ in range(2)]
    for child in processes:
        crawls.end(child)
    for child in processes:
        [line] = [line for line in child.err.splitlines() if "counts in each" in line]
        assert "2 processes crawl 'docs:frontier'" in line
        assert "DOWNLOAD_DELAY counts" in line
        for each in processes:
            assert f" {each.pid}" in line
    crawls.assert_each_once()


@pytest.mark.slow(8)
def test_a_second_run_of_a_finished_crawl_fetches_nothing(crawls: Crawls) -> None:
    crawls.run()
    child = crawls.start()
    stats = crawls.end(child)
    assert "downloader/request_count" not in stats
    assert "REDSET_NAME" in child.err
    crawls.assert_each_once()


@pytest.mark.slow(4)
@pytest.mark.parametrize("how", ["retry", "redirect", "replace"])
def test_a_start_request_that_is_sent_again_is_not_refused(crawls: Crawls, how: str) -> None:
    crawls.run(given={"meddle": how, "unfiltered": True})
    crawls.assert_none_missing()


@pytest.mark.slow(5)
def test_items_are_written_for_each_page(crawls: Crawls, server: servers.Server) -> None:
    pipelines = {"redset.scrapy.ItemPipeline": 900}
    crawls.run(given={"items": True}, ITEM_PIPELINES=pipelines, REDSET_ITEMS="items")
    assert server.raw.zcard("items") == len(crawls.expected)


@pytest.mark.slow(5)
@pytest.mark.parametrize(
    ("given", "settings", "reason"),
    [
        ({"enough": True}, {}, "enough"),
        ({}, {"CLOSESPIDER_PAGECOUNT": 5}, "closespider_pagecount"),
    ],
    ids=["CloseSpider", "CLOSESPIDER_PAGECOUNT"],
)
def test_a_crawl_that_was_closed_early_goes_on_with_the_next_run(
    server: servers.Server,
    tmp_path: Path,
    given: dict[str, Any],
    settings: dict[str, Any],
    reason: str,
) -> None:
    with Crawls(server.url, tmp_path, size=40, pause=0.1) as crawls:
        (stats,) = crawls.run(given=given, CONCURRENT_REQUESTS=2, **settings)
        assert stats["finish_reason"] == reason
        frontier = frontier_of(server.raw)
        # A callback that raised has not read its hyperlinks: as in Scrapy they are not followed.
        assert given or frontier.size() > 0
        assert frontier.stats().leased == 0
        crawls.run()
        if given:
            assert set(crawls.parsed().values()) == {1}
        else:
            crawls.assert_each_once()


def test_a_handler_of_the_idle_signal_keeps_a_crawl_open(crawls: Crawls) -> None:
    (stats,) = crawls.run(given={"more": True})
    crawls.assert_none_missing()
    assert stats["finish_reason"] == "finished"
    parsed = crawls.parsed()
    start = crawls.site.start.partition(crawls.site.host)[2]
    assert parsed.pop(start) == 2 and set(parsed.values()) == {1}


@pytest.mark.slow(15)
def test_the_example_project_crawls_in_two_processes(server: servers.Server) -> None:
    site = Site.of_python_docs().first(40)
    with site.served() as port, contextlib.ExitStack() as stack:
        # The project knows no middleware that names the host.
        here = f"http://127.0.0.1:{port}"
        site.links = {
            here + page.partition(site.host)[2]: [
                here + link.partition(site.host)[2] for link in links
            ]
            for page, links in site.links.items()
        }
        site.scheme = "http"
        start = next(iter(site.links))
        command = [sys.executable, "-m", "scrapy", "crawl", "docs", "-a", f"start={start}"]
        started = [
            stack.enter_context(
                children.Child(
                    command=command,
                    cwd=TESTS.parent / "examples" / "scrapy",
                    env={**environment(), "REDSET_URL": server.url},
                )
            )
            for _ in range(2)
        ]
        for child in started:
            child.check(0, LIMIT)
    fetched = {page for page, times in site.requests.items() if page in site.links and times}
    assert len(fetched) > 20 and set(site.requests.values()) == {1}
    items = {json.loads(item)["url"] for item in server.raw.zrange("docs:items", 0, -1)}
    assert items == fetched


@pytest.mark.slow(20)
def test_the_demo_kills_a_process_and_misses_no_page() -> None:
    ended = children.run(
        "-m", "redset.demo.scrapy", "--pages", "60", env=environment(), limit=LIMIT
    )
    assert " 0 missing" in ended.out and "killed process 1" in ended.out


# --- processes that end


def test_an_interrupted_crawl_goes_on_where_it_was(server: servers.Server, tmp_path: Path) -> None:
    with Crawls(server.url, tmp_path, size=200, pause=0.05) as crawls:
        child = crawls.start()
        crawls.wait_for(20, child)
        child.send_signal(signal.SIGINT)
        assert crawls.end(child)["finish_reason"] == "shutdown"
        frontier = frontier_of(server.raw)
        assert frontier.size() > 0 and frontier.stats().leased == 0
        crawls.run()
        crawls.assert_each_once()


@pytest.mark.slow(15)
def test_a_crawl_that_is_interrupted_twice_misses_nothing(
    server: servers.Server, tmp_path: Path
) -> None:
    with Crawls(server.url, tmp_path, pause=0.2) as crawls:
        child = crawls.start(REDSET_LEASE_TTL=2)
        crawls.wait_for(20, child)
        child.send_signal(signal.SIGINT)
        time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        child.wait(LIMIT)
        crawls.run(REDSET_LEASE_TTL=2)
        crawls.assert_none_missing()


@pytest.mark.parametrize(
    "pages",
    [
        (3,),
        pytest.param((12, 36, 60, 84, 108), marks=pytest.mark.slow(20)),
        pytest.param((24, 48, 72, 96, 120), marks=pytest.mark.slow(20)),
    ],
    ids=str,
)
def test_a_crawl_misses_nothing_if_processes_are_killed(
    server: servers.Server, tmp_path: Path, pages: tuple[int, ...]
) -> None:
    size, pause = (60, 0.01) if len(pages) == 1 else (160, 0.2)
    with Crawls(server.url, tmp_path, size=size, pause=pause) as crawls:
        *killed, last = (crawls.start(REDSET_LEASE_TTL=2) for _ in range(1 + len(pages)))
        for page, child in zip(pages, killed, strict=True):
            crawls.wait_for(page, child)
            child.kill()
        crawls.end(last)
        crawls.assert_none_missing()
        # Requests that a killed one held, had in its buffer, and acknowledged in its last second.
        twice = sum(times - 1 for times in crawls.parsed().values())
        assert twice <= len(pages) * (16 + 32 + 100)


@pytest.mark.slow(25)
def test_a_page_that_kills_its_process_is_a_dead_letter_and_the_rest_is_crawled(
    server: servers.Server, tmp_path: Path
) -> None:
    settings = {"REDSET_LEASE_TTL": 1, "REDSET_MAX_ATTEMPTS": 2}
    settings |= {"REDSET_PREFETCH": 4, "CONCURRENT_REQUESTS": 4}
    with Crawls(server.url, tmp_path, size=30) as crawls:
        poison = sorted(crawls.expected)[15]
        deaths = 0
        while crawls.start({"poison": poison}, **settings).wait(LIMIT).status:
            deaths += 1
            # At most 8 are in hand: suspects come in groups of 4, 2 and 1, and then twice alone.
            assert deaths <= 6
        (letter,) = frontier_of(server.raw, max_attempts=2).dead
        assert json.loads(letter.item)["url"].endswith(poison)
        assert deaths >= 2
        crawls.assert_none_missing()


@pytest.mark.slow(20)
def test_a_process_that_is_stopped_for_twice_the_ttl_loses_nothing(
    server: servers.Server, tmp_path: Path
) -> None:
    with Crawls(server.url, tmp_path, pause=0.03) as crawls:
        first, second = (crawls.start(REDSET_LEASE_TTL=2) for _ in range(2))
        crawls.wait_for(10, first)
        first.send_signal(signal.SIGSTOP)
        time.sleep(4)
        first.send_signal(signal.SIGCONT)
        for child in (first, second):
            crawls.end(child)
        crawls.assert_none_missing()


@pytest.mark.slow(20)
def test_leases_that_are_lost_all_the_time_lose_no_page(
    server: servers.Server, tmp_path: Path
) -> None:
    with Crawls(server.url, tmp_path, pause=0.1) as crawls:
        crawls.run(2, {"busy": 0.05}, REDSET_LEASE_TTL=0.4)
        crawls.assert_none_missing()


@pytest.mark.slow(15)
def test_a_callback_that_computes_for_twice_the_ttl_keeps_its_lease(
    server: servers.Server, tmp_path: Path
) -> None:
    with Crawls(server.url, tmp_path, size=3) as crawls:
        crawls.run(2, {"busy": 4}, REDSET_LEASE_TTL=2)
        crawls.assert_each_once()


@pytest.mark.slow(20)
def test_processes_that_are_idle_wait_for_one_that_works(
    server: servers.Server, tmp_path: Path
) -> None:
    with Crawls(server.url, tmp_path, size=2, pause=6.0) as crawls:
        started = [crawls.start() for _ in range(3)]
        ends = []
        for child in started:
            crawls.end(child)
            ends.append(time.monotonic())
        crawls.assert_each_once()
        assert ends[-1] - ends[0] < 5


@pytest.mark.slow(8)
def test_the_death_of_the_thread_ends_the_process(crawls: Crawls) -> None:
    (stats,) = crawls.run(given={"dies": 5}, REDSET_LEASE_TTL=2)
    assert stats["finish_reason"] == "redset_failed"
    crawls.run(REDSET_LEASE_TTL=2)
    crawls.assert_none_missing()


# --- servers that fail


@pytest.mark.slow(15)
def test_a_crawl_on_a_cluster_misses_nothing_while_its_slot_moves(tmp_path: Path) -> None:
    with (
        cluster.start(servers.some(), replicas=0) as nodes,
        Crawls(nodes.url, tmp_path, pause=0.05) as crawls,
    ):
        started = [crawls.start(REDSET_CLUSTER=True) for _ in range(2)]
        crawls.wait_for(15, started[0])
        nodes.move("docs:frontier", nodes.others("docs:frontier")[0])
        for child in started:
            assert crawls.end(child)["finish_reason"] == "finished"
        crawls.assert_none_missing()


@pytest.mark.slow(20)
def test_a_server_that_is_killed_and_restarted_loses_no_page(tmp_path: Path) -> None:
    with (
        servers.start(servers.some(), appendonly="yes", appendfsync="always") as server,
        Crawls(server.url, tmp_path, pause=0.03) as crawls,
    ):
        child = crawls.start(REDSET_LEASE_TTL=4)
        crawls.wait_for(15, child)
        server.kill()
        time.sleep(1)
        server.revive()
        stats = crawls.end(child)
        crawls.assert_none_missing()
        assert stats["finish_reason"] == "finished"
        assert int(stats["redset/outage_seconds"]) >= 1


@pytest.mark.slow(8)
def test_a_crawl_without_its_server_ends_in_time(tmp_path: Path) -> None:
    with (
        servers.start(servers.some()) as server,
        Crawls(server.url, tmp_path, pause=0.03) as crawls,
    ):
        child = crawls.start(REDSET_MAX_OUTAGE=1)
        crawls.wait_for(10, child)
        server.kill()
        assert crawls.end(child)["finish_reason"] == "redset_unavailable"
        assert "not written" in child.err


@pytest.mark.slow(20)
def test_connections_that_are_cut_lose_no_page(server: servers.Server, tmp_path: Path) -> None:
    with (
        proxy.Proxy(server) as between,
        Crawls(f"redis://127.0.0.1:{between.port}", tmp_path, pause=0.03) as crawls,
    ):
        started = [crawls.start(REDSET_LEASE_TTL=3) for _ in range(2)]
        while any(child.status is None for child in started):
            time.sleep(0.3)
            between.cut()
        for child in started:
            crawls.end(child)
        crawls.assert_none_missing()


@pytest.mark.slow(20)
def test_a_full_server_loses_no_page(tmp_path: Path) -> None:
    with (
        servers.start(servers.some(), maxmemory="100mb") as server,
        Crawls(server.url, tmp_path, size=200, pause=0.1) as crawls,
    ):
        child = crawls.start(REDSET_LEASE_TTL=3)
        crawls.wait_for(10, child)
        server.raw.config_set("maxmemory", "1mb")
        until = time.monotonic() + LIMIT
        while "no room for requests" not in child.err:
            assert child.status is None and time.monotonic() < until, str(child)
            time.sleep(0.01)
        time.sleep(1)
        assert child.status is None
        server.raw.config_set("maxmemory", "100mb")
        crawls.end(child)
        crawls.assert_none_missing()


@pytest.mark.slow(3)
@pytest.mark.parametrize("settings", [{"REDSET_ORDER": "x"}, {"REDSET_URL": "redis://127.0.0.1:1"}])
def test_a_crawl_that_cannot_begin_says_why_and_ends(
    crawls: Crawls, settings: dict[str, Any]
) -> None:
    child = crawls.start(**settings)
    child.wait(LIMIT)
    assert "REDSET_ORDER" in child.err or "ConnectionError" in child.err
    assert crawls.parsed() == Counter()
