"""Metrics: the sets of a server for Prometheus, their dashboard and their alerts."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import json
import re
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cli
import pytest
import redis
import redis.asyncio
import servers

from redset import ScheduledSet, SortedSet, TimeSortedSet
from redset._operations import reporting

if importlib.util.find_spec("prometheus_client") is None:
    pytest.skip("metrics: prometheus_client is not installed here", allow_module_level=True)

from alerts import record
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition, parser
from prometheus_client.parser import text_string_to_metric_families

import redset.prometheus
from redset.prometheus import Collector

TREE = Path(__file__).resolve().parent.parent
GAUGES = {
    "queued_items", "available_items", "leased_items", "late_leases", "dead_items",
    "remembered_items", "oldest_age_seconds", "memory_bytes", "paused", "workers",
    "consumer_seen_timestamp_seconds", "producer_seen_timestamp_seconds",
}  # fmt: skip
#: Gauges of sets with groups alone.
OF_GROUPS = {"ready_groups", "resting_groups", "working_groups"}
COUNTERS = {
    "adds_total", "updates_total", "refusals_total", "takes_total", "leases_total", "acks_total",
    "failures_total", "releases_total", "expirations_total", "deaths_total", "requeues_total",
    "lost_total", "handler_seconds_total",
}  # fmt: skip
SERVER = {"up", "sets", "sets_dropped", "server_warnings"}
#: A set's name that no format may be broken by.
HOSTILE = 'a"b\\c\nd{e}\u202e\x00'


class Scrape(dict[tuple[str, str], float]):
    """The samples of a scrape, by their name without the prefix, and the set."""

    def __init__(self, collector: Collector) -> None:
        registry = CollectorRegistry()
        registry.register(collector)
        self.text = generate_latest(registry).decode()
        self.open = exposition.generate_latest(registry).decode()
        for family in text_string_to_metric_families(self.text):
            for sample in family.samples:
                assert sample.name.startswith("redset_") and set(sample.labels) <= {"set"}
                key = sample.name.removeprefix("redset_"), sample.labels.get("set", "")
                assert key not in self
                self[key] = sample.value

    def of(self, name: str) -> dict[str, float]:
        return {label: value for (each, label), value in self.items() if each == name}


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call may report, and each scrape looks."""
    monkeypatch.setattr(reporting, "EVERY", 0.0)
    monkeypatch.setattr(redset.prometheus, "_FRESH", 0.0)


def test_it_stands_on_public_names_alone() -> None:
    path = Path(redset.prometheus.__file__)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert [each.name for each in node.names if each.name.startswith("redset.")] == []
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("redset"):
            assert node.module == "redset"
            assert {each.name for each in node.names} <= set(redset.__all__)
        elif isinstance(node, ast.Attribute):
            assert node.attr not in ("_ctx", "_run", "_link", "_open")
    assert redset.prometheus.__all__ == ("Collector",)


def test_every_set_has_every_metric_and_every_counter_begins_at_0(
    server_client: redis.Redis, hasty: None
) -> None:
    jobs: SortedSet[str] = SortedSet(server_client, "jobs", max_attempts=1, remember=True)
    later: ScheduledSet[str] = ScheduledSet(server_client, "later")
    collector = Collector(server_client, ["jobs", "later"], memory=True)
    empty = Scrape(collector)
    assert {name for name, label in empty if label} == (GAUGES | COUNTERS) - {
        "oldest_age_seconds", "consumer_seen_timestamp_seconds", "producer_seen_timestamp_seconds",
    }  # fmt: skip
    assert {name for name, label in empty if not label} == SERVER
    assert set(empty.of("adds_total")) == {"jobs", "later"}
    assert not any(value for (_, label), value in empty.items() if label)

    jobs.add_many(["a", "b", "c", "d", "a"], nx=True)
    jobs.add_many(["a", "e"])
    later.add("then", delay=60)
    jobs.pop()
    first, second, third = jobs.lease(3)
    first.ack()
    second.fail("broken")
    third.release()
    jobs.lease(1, ttl=0.001)
    time.sleep(0.01)
    later.pause()
    for each in (jobs, later):
        each.close()
    collector._weights.clear()
    full = Scrape(collector)
    found = {name: value for (name, label), value in full.items() if label == "jobs" and value}
    assert found.pop("memory_bytes") > 100
    assert abs(found.pop("consumer_seen_timestamp_seconds") - time.time()) < 60
    assert abs(found.pop("producer_seen_timestamp_seconds") - time.time()) < 60
    assert found == {
        "queued_items": 1, "available_items": 1, "leased_items": 1, "late_leases": 1,
        "dead_items": 1, "remembered_items": 5, "workers": 1, "adds_total": 5, "refusals_total": 2,
        "takes_total": 1, "leases_total": 4, "acks_total": 1, "failures_total": 1,
        "releases_total": 1, "deaths_total": 1,
    }  # fmt: skip
    assert full["paused", "later"] == 1 and full["available_items", "later"] == 0
    assert -60 <= full["oldest_age_seconds", "later"] < 0
    assert full["consumer_seen_timestamp_seconds", "later"] == 0
    assert {name for name, _ in full} == GAUGES | COUNTERS | SERVER
    # Nothing was given back.
    assert server_client.zcard("jobs:{jobs}:leased") == 1


def test_both_formats_can_be_parsed(server_client: redis.Redis, hasty: None) -> None:
    for name in ("jobs", HOSTILE, "x" * 3000):
        with SortedSet[str](server_client, name) as jobs:
            jobs.add_many(["a"])
    server_client.zadd(b"\xff\xfe", {"a": 1})
    scraped = Scrape(Collector(server_client, ["*", b"\xff\xfe"]))
    labels = {"jobs", HOSTILE, "x" * 3000, "\\xff\\xfe"}
    assert set(scraped.of("adds_total")) == set(scraped.of("queued_items")) == labels
    families = {each.name: each for each in parser.text_string_to_metric_families(scraped.open)}
    assert families["redset_adds"].type == "counter"
    assert {each.labels["set"] for each in families["redset_adds"].samples} == labels
    described = Collector(server_client).describe()
    assert {each.name for each in described} >= set(families)
    assert len(described) == len({each.name for each in described})
    assert all(each.documentation for each in described)


def test_counters_never_fall_while_processes_come_and_go(
    any_server: servers.Server, monkeypatch: pytest.MonkeyPatch, hasty: None
) -> None:
    client = any_server.client()
    collector = Collector(any_server.raw, "jobs")
    last: dict[tuple[str, str], float] = {}
    for number in range(4):
        monkeypatch.setattr(reporting, "_process", reporting._Process())
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        jobs.add_many([f"{number} {each}" for each in range(10)])
        jobs.take(2)
        jobs.lease(2).ack()
        if number % 2:
            jobs.close()  # the others are killed
        found = Scrape(collector)
        counters = {key: value for key, value in found.items() if key[0].endswith("_total")}
        assert all(value >= last.get(key, 0) for key, value in counters.items())
        last = counters
    assert last["adds_total", "jobs"] == 40 and found["workers", "jobs"] == 4


class Cut(servers.Generic):
    """A client whose connection can be cut."""

    is_cut = False

    def execute_command(self, *args: Any) -> Any:
        if self.is_cut:
            raise redis.ConnectionError("cut\nfor good")
        return super().execute_command(*args)


def test_a_look_that_fails_has_no_figures(
    server_client: redis.Redis, hasty: None, caplog: pytest.LogCaptureFixture
) -> None:
    SortedSet[str](server_client, "jobs").add("a")
    client = Cut(server_client)
    collector = Collector(client, ["jobs"])
    assert Scrape(collector)["queued_items", "jobs"] == 1
    client.is_cut = True
    for _ in range(3):
        assert Scrape(collector) == {("up", ""): 0}
    client.is_cut = False
    assert Scrape(collector)["up", ""] == 1
    assert [each.getMessage() for each in caplog.records] == [
        "cannot read the sets, redset_up is 0: cut for good",
        "the sets can be read again, redset_up is 1",
    ]


def test_a_client_that_cannot_be_made_yet_is_asked_for_again(
    server_client: redis.Redis, hasty: None
) -> None:
    made: list[Any] = [redis.ConnectionError("away"), server_client]

    def make() -> Any:
        if isinstance(made[0], Exception):
            raise made.pop(0)
        return made[0]

    collector = Collector(make)
    assert Scrape(collector) == {("up", ""): 0} or Scrape(collector)["up", ""] == 1
    assert Scrape(collector)["up", ""] == 1
    assert len(made) == 1


def test_all_scrapes_of_a_second_share_a_look(server_client: redis.Redis) -> None:
    client = servers.Recording(server_client)
    collector = Collector(client)
    assert client.sent == []
    Scrape(collector)
    sent = len(client.sent)
    assert 0 < sent <= 4
    collector.collect()
    assert len(client.sent) == sent


def test_a_set_with_groups_has_its_groups_too(server_client: redis.Redis, hasty: None) -> None:
    collector = Collector(server_client, ["jobs", "pages"])
    SortedSet[str](server_client, "jobs").add("x")
    pages = SortedSet[str](server_client, "pages", group=lambda url: url[:1])
    pages.add_many(["a/1", "a/2", "b/1", "c/1"])
    pages.pause_group("c", 60)
    pages.lease(1)
    pages.close()
    scraped = Scrape(collector)
    assert {name: scraped.of(name) for name in OF_GROUPS} == {
        name: {"pages": 1.0} for name in OF_GROUPS
    }
    assert scraped["available_items", "pages"] == 1


def test_sets_above_the_limit_are_added_up(server_client: redis.Redis, hasty: None) -> None:
    client, collector = server_client, Collector(server_client, max_sets=2)
    for name in ("b", "c", "(other)", "d"):
        with SortedSet[str](client, name) as each:
            each.add_many(["x", "y"])
    scraped = Scrape(collector)
    assert scraped.of("queued_items") == {"b": 2, "c": 2, "(other)": 4}
    assert scraped.of("adds_total") == {"b": 2, "c": 2, "(other)": 4}
    assert (scraped["sets", ""], scraped["sets_dropped", ""]) == (4, 2)
    # One comes that is first by name: the labels stay. Others go: no counter falls.
    TimeSortedSet[str](client, "a").add_many(["x"])
    SortedSet[str](client, "b").clear()
    SortedSet[str](client, "d").clear()
    with SortedSet[str](client, "(other)") as other:
        other.add_many(["z"])
    scraped = Scrape(collector)
    assert set(scraped.of("adds_total")) == {"a", "c", "(other)"}
    assert scraped["adds_total", "(other)"] == 5 and scraped["queued_items", "(other)"] == 3
    assert Scrape(Collector(client, max_sets=0)).of("queued_items") == {"(other)": 6}


def test_a_replica_and_a_user_who_may_only_read_are_enough(any_server: servers.Server) -> None:
    raw = any_server.raw
    with SortedSet[str](raw, "jobs", key=str, remember=True) as jobs:
        jobs.add_many(["a", "b"])
        jobs.lease(1, ttl=0.001)
    time.sleep(0.01)
    expected = Scrape(Collector(raw, memory=True)).of("memory_bytes")
    assert expected["jobs"] > 100
    documented = (TREE / "docs" / "limits.rst").read_text()
    [looker] = re.findall(r"^   (~\* -@all \+@read .*)$", documented, re.M)
    rules = [["+@all", "-@write"], ["resetkeys", *looker.split()]]
    if not any_server.kind.startswith("redis62"):
        rules.append(["resetkeys", "%R~*", "+@all", "-@write"])
    for rule in rules:
        with servers.user(any_server, *rule) as login:
            scraped = Scrape(Collector(any_server.client(**login), memory=True))
            assert scraped["late_leases", "jobs"] == 1 and scraped["adds_total", "jobs"] == 2
            assert scraped["memory_bytes", "jobs"] > 0
    with servers.user(any_server, "resetkeys", "~jobs*") as login:
        assert Scrape(Collector(any_server.client(**login))) == {("up", ""): 0}
    raw.replicaof("127.0.0.1", 1)
    try:
        scraped = Scrape(Collector(any_server.client(), memory=True))
    finally:
        raw.replicaof("no", "one")
    assert scraped["late_leases", "jobs"] == 1 and scraped["server_warnings", ""] == 1


@pytest.mark.slow(3)
def test_on_a_cluster_it_is_the_same() -> None:
    with servers.cluster(servers.some(), 2) as nodes:
        client = redis.RedisCluster(host="127.0.0.1", port=nodes[0].port)
        for name in ("a", "b", "c"):
            with SortedSet[str](client, name) as jobs:
                jobs.add_many(["x", "y"])
        scraped = Scrape(Collector(client, memory=True))
        assert scraped.of("queued_items") == scraped.of("adds_total") == {"a": 2, "b": 2, "c": 2}
        assert set(scraped.of("memory_bytes")) == {"a", "b", "c"}
        assert scraped["server_warnings", ""] > 0
        client.close()


FILL = """
for i = 0, tonumber(ARGV[2]) - 1, 500 do
  local pairs_of = {}
  for k = i, i + 499 do
    pairs_of[#pairs_of + 1] = k
    pairs_of[#pairs_of + 1] = 'item ' .. ARGV[1] .. ' ' .. k
  end
  redis.call('ZADD', KEYS[1], unpack(pairs_of))
end
for i = 1, tonumber(ARGV[3]) do
  redis.call('XADD', KEYS[2], '*', 'item', 'item ' .. i, 'reason', 'no')
end"""


@pytest.mark.slow(12)
@pytest.mark.timeout(240)
def test_a_scrape_of_1_000_sets_leaves_the_server_to_others(
    all_servers: servers.Servers, hasty: None
) -> None:
    """41 commands, 27 to 48 µs of a busy machine a set, however many items a set has."""
    server: Any = all_servers.get(servers.some())
    server.flush()
    raw, every = server.raw, 1000
    pipeline = raw.pipeline()
    counts = {f"{number} counted": 12345 for number in range(14)}
    for number in range(every):
        name = f"set:{number:04}"
        pipeline.hset("redset:sets", name, json.dumps({"seen": 1, "class": "SortedSet"}))
        pipeline.zadd(name, {str(item): item for item in range(20)})
        pipeline.hset(f"{name}:{{{name}}}:counts", mapping=counts)
        pipeline.hset(f"{name}:{{{name}}}:workers", mapping={"a": '{"seen":1}', "b": '{"seen":1}'})
    pipeline.execute()
    leased, dead = "set:0001:{set:0001}:leased", "set:0002:{set:0002}:dead"
    for part in range(10):
        raw.eval(FILL, 2, "set:0000", dead, part, 100_000, 10_000)
    raw.copy("set:0000", leased)
    collector = Collector(server.client())
    assert Scrape(collector)["late_leases", "set:0001"] == 10**6 + 20
    before, cpu = raw.info("commandstats"), raw.info("cpu")
    raw.config_set("slowlog-log-slower-than", 100_000)
    raw.slowlog_reset()
    scrapes = 5
    for _ in range(scrapes):
        collector.collect()
    after, cpu_after = raw.info("commandstats"), raw.info("cpu")

    def calls(name: str) -> float:
        found = [each.get(name, {"calls": 0})["calls"] for each in (after, before)]
        return (found[0] - found[1]) / scrapes

    spent = sum(cpu_after[each] - cpu[each] for each in ("used_cpu_user", "used_cpu_sys"))
    assert calls("cmdstat_evalsha") == every / 25
    assert calls("cmdstat_hscan") <= 2
    assert calls("cmdstat_keys") == calls("cmdstat_smembers") == calls("cmdstat_scan") == 0
    assert raw.slowlog_get() == []
    assert spent / scrapes / every < 150e-6


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ([redis.asyncio.Redis()], {}, TypeError, "asyncio client"),
        ([3], {}, TypeError, "redis_client must be"),
        ([redis.Redis(), 3], {}, TypeError, "match must be"),
        ([redis.Redis(), {"a": 1}], {}, TypeError, "match must be"),
        ([redis.Redis(), ["a", 3]], {}, TypeError, "match must have patterns"),
        ([redis.Redis(), ""], {}, ValueError, "match must not be empty"),
        ([redis.Redis(), "jobs:{jobs}:counts"], {}, ValueError, "must not be a key of another"),
        ([redis.Redis()], {"max_sets": "9"}, TypeError, "max_sets must be an int"),
        ([redis.Redis()], {"max_sets": -1}, ValueError, "max_sets must be at least 0"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_sent(
    arguments: Any, options: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Collector(*arguments, **options)


# --- the command


@pytest.fixture
def server(all_servers: servers.Servers) -> Any:
    """One server that is here, empty."""
    if not cli.HAS_CLICK:
        raise servers.Missing("cli: click is not installed here")
    found = all_servers.get(servers.some())
    found.flush()
    return found


@pytest.fixture
def run(server: Any, monkeypatch: pytest.MonkeyPatch) -> cli.Command:
    return cli.Command(server, monkeypatch)


@contextlib.contextmanager
def serving(run: cli.Command, *arguments: str, **options: Any) -> Iterator[tuple[Any, str]]:
    """The command as a process that serves, and its URL."""
    with run.process("metrics", "--listen", "127.0.0.1:0", *arguments, **options) as child:
        end = time.monotonic() + 30
        while (found := re.search(r"serving (\S+)", child.err)) is None:
            assert child.status is None and time.monotonic() < end, child
            time.sleep(0.01)
        yield child, found[1]


def got(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:
        text: str = answer.read().decode()
    return text


def test_the_command_serves_until_it_is_terminated(run: cli.Command, server: Any) -> None:
    for name in ("crawl:a", "crawl:b", "mails"):
        with SortedSet[str](server.raw, name) as jobs:
            jobs.add_many(["a"])
    before = server.raw.dbsize()
    with serving(run, "crawl:*", "mails", "--max-sets", "2") as (child, url):
        text = got(url)
        assert 'redset_queued_items{set="crawl:a"} 1.0' in text
        assert 'redset_queued_items{set="(other)"} 1.0' in text
        assert child.err == f"redset: serving {url} of {server.url}\n"
        child.send_signal(signal.SIGTERM)
        assert child.wait().status == 0
    assert child.err.count("\n") == 1 and server.raw.dbsize() == before


def test_the_command_goes_on_without_a_server_until_it_is_interrupted(run: cli.Command) -> None:
    nowhere = f"redis://127.0.0.1:{servers.free_port()}"
    with serving(run, "--url", nowhere, "--cluster") as (child, url):
        text = got(url)
        child.send_signal(signal.SIGINT)
        assert child.wait().status == 0
    assert "redset_up 0.0" in text and "redset_sets" not in text
    assert child.err.count("\n") == 2 and "redset_up is 0" in child.err


@pytest.mark.slow(8)
def test_a_server_that_answers_nothing_is_down_before_a_scrape_ends(
    run: cli.Command, server: Any, load: Any
) -> None:
    with serving(run) as (_, url):
        assert "redset_up 1.0" in got(url)
        time.sleep(redset.prometheus._FRESH)
        with server.frozen():
            began = time.monotonic()
            assert "redset_up 0.0" in got(url)
            # Prometheus waits for ten seconds.
            assert time.monotonic() - began < load.seconds(8)
        time.sleep(redset.prometheus._FRESH)
        assert "redset_up 1.0" in got(url)


def test_a_wrong_address_is_named(run: cli.Command) -> None:
    for wrong in ("9187", "host", "127.0.0.1:99999", "::1:9187", "127.0.0.1:x"):
        ran = run("metrics", "--listen", wrong, status=2)
        assert "--listen" in ran.err and ran.err.count("\n") == 1
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ran = run("metrics", "--listen", address, status=2)
        assert ran.err.startswith(f"redset: --listen {address}: ") and ran.err.count("\n") == 1
    for more in ([], ["--cluster"]):
        assert "redset: " in run("metrics", "--url", "http://x", *more, status=2).err
    assert "match must not be empty" in run("metrics", "", status=2).err


def test_a_missing_extra_is_one_line_with_the_command(
    run: cli.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "prometheus_client" else find(name, *rest),
    )
    ran = run("metrics", status=2)
    assert ran.err == "redset: prometheus_client is missing: pip install 'redset[metrics]'\n"


def test_without_the_library_the_module_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)
    monkeypatch.delitem(sys.modules, "redset.prometheus")
    with pytest.raises(ImportError, match=r"pip install 'redset\[metrics\]'"):
        importlib.import_module("redset.prometheus")


def test_only_the_command_metrics_imports_the_library() -> None:
    # And only when it runs: its help does without.
    imports = re.compile(r"^( *)(?:import|from) prometheus_client", re.M)
    named = {
        path.name: imports.findall(path.read_text()) for path in (TREE / "redset").rglob("*.py")
    }
    assert {name for name, places in named.items() if places} == {"prometheus.py", "scraping.py"}
    assert all(named["scraping.py"])


# --- the dashboard and the alerts


DASHBOARD = json.loads((TREE / "ops" / "grafana.json").read_text())
ALERTS = (TREE / "ops" / "alerts.yml").read_text()
METRICS = {f"redset_{name}" for name in GAUGES | OF_GROUPS | COUNTERS | SERVER}


def used_in(text: str) -> set[str]:
    return set(re.findall(r"\bredset_\w+", text))


def expressions() -> list[str]:
    return [each["expr"] for panel in DASHBOARD["panels"] for each in panel["targets"]]


def test_the_dashboard_has_each_metric_and_no_other() -> None:
    assert used_in(" ".join(expressions())) == METRICS
    assert used_in(json.dumps(DASHBOARD["templating"])) <= METRICS
    for expression in expressions():
        for name, selector in re.findall(r"\b(redset_\w+)(\{.*?\})?", expression):
            of_server = name.removeprefix("redset_") in SERVER
            assert selector == ('{job=~"$job"}' if of_server else '{job=~"$job", set=~"$set"}')
        assert expression.count("(") == expression.count(")")
        counters = re.findall(r"\b(rate\()?(redset_\w+_total)\b", expression)
        assert all(rated for rated, _ in counters)


def test_the_dashboard_is_for_any_data_source_job_and_set() -> None:
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "set"]
    assert variables["datasource"]["type"] == "datasource"
    panels = DASHBOARD["panels"]
    assert len({each["id"] for each in panels}) == len(panels)
    places = set()
    for panel in panels:
        assert panel["title"] and panel["description"]
        for each in [panel, *panel["targets"]]:
            assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        grid = panel["gridPos"]
        for x in range(grid["x"], grid["x"] + grid["w"]):
            for y in range(grid["y"], grid["y"] + grid["h"]):
                assert x < 24 and (x, y) not in places
                places.add((x, y))


def test_the_recorded_crawl_has_each_metric() -> None:
    assert record.notation([0.0, 0.0, 2.5, None, None, None]) == "0x1 2.5 stale _x2"
    recorded = json.loads((TREE / "tests" / "alerts" / "crawl.json").read_text())
    # Its sets have no groups.
    assert set(recorded["series"]) == METRICS - {f"redset_{name}" for name in OF_GROUPS}


def test_the_alerts_are_those_of_the_documentation_and_use_metrics_that_exist() -> None:
    assert used_in(ALERTS) <= METRICS
    names = set(re.findall(r"- alert: (\w+)", ALERTS))
    assert names == {
        "RedsetDown", "RedsetNoConsumer", "RedsetDeadLetters", "RedsetLateLeases",
        "RedsetTooSlow", "RedsetFailing", "RedsetServer",
    }  # fmt: skip
    page = (TREE / "docs" / "metrics.rst").read_text()
    assert set(re.findall(r"\* - ``(Redset\w+)``", page)) == names
    assert {name for name in used_in(page) if name != "redset_oldest_age_seconds"} <= METRICS
    assert {name for name in METRICS if f"``{name}``" not in page} == set()
