"""Short runs of the chaos in `chaos`, and whether its checker notices each kind of error.

`make chaos` has the long runs, `make soak` the one that watches the memory.
"""

from __future__ import annotations

import itertools
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grouped
import pytest
import servers
from chaos import checker, figures, history, politeness, scenarios, soak, walk
from chaos.checker import Final, Findings
from chaos.history import Undone
from chaos.worker import Work, Worker
from load import Load

from redset import SortedSet
from redset._faces import leases as batches
from redset._operations import taking

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="signals, and clocks that processes share"
)

#: Each scenario on one kind of server that is here; each kind has some of all.
HERE = [kind for kind in servers.REAL if servers.is_here(kind)] or servers.REAL
CASES = [
    pytest.param(
        name,
        scenario.only or kind,
        marks=[]
        if name in ("kills", "cuts", "takes", "groups")
        else pytest.mark.slow(12 if scenario.cluster else 3),
    )
    for (name, scenario), kind in zip(
        scenarios.SCENARIOS.items(), itertools.cycle(HERE), strict=False
    )
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_nothing_is_lost_or_doubled(name: str, kind: str) -> None:
    place = list(scenarios.SCENARIOS).index(name)
    outcome = scenarios.perform(name, kind, 10 + place, scenarios.SCENARIOS[name].few)
    print(outcome)
    assert not outcome.failed, outcome
    assert outcome.findings.counts["acknowledged"] > 0, outcome
    assert sum(outcome.faults.values()) >= scenarios.SCENARIOS[name].few
    if name.startswith("groups"):
        assert outcome.findings.counts["starts"] > 50


@pytest.mark.slow(9)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", ["moved to and fro", "manual failover"])
def test_a_cluster_that_is_administered_costs_nothing(fault: str) -> None:
    found = figures.measure(fault, servers.some(), 20_000)
    assert (found.told, found.handed_out) == (20_000, 20_000), found
    assert not (found.lost or found.untold or found.doubled or found.missing), found
    assert not found.errors, found


def test_a_random_walk_of_two_clients_does_what_the_model_does(
    any_server: servers.Server,
) -> None:
    done, tally, failure = walk.run(any_server, seed=5000, count=3000)
    assert failure is None, failure
    assert done >= 3000 and set(tally) >= set(walk.OPERATIONS) - {"purge", "clear"}


@pytest.mark.parametrize("num", [2, 200])
def test_a_take_of_many_orders_what_it_gives_back_and_one_of_few_appends_it(
    any_server: servers.Server, monkeypatch: pytest.MonkeyPatch, num: int
) -> None:
    monkeypatch.setattr(taking, "LOOK", 0.0)
    world = walk.World(SortedSet, False, {"ties": "fifo"}, ("cython", "python"), False)
    steps = [
        walk.Step("add", 0, (1, 1, {"lt": True})),
        walk.Step("lease", 1, (2,)),
        walk.Step("fail", 0, (0, 1, "never", 1000)),
        walk.Step("expire", 1, (0, 100)),
        walk.Step("add", 1, (0, 0, {})),
        walk.Step("add", 1, (1, 0, {})),
        walk.Step("take", 0, (num,)),
    ]
    clients = [any_server.client(), any_server.client()]
    episode, *failed = walk.attempt(world, steps, any_server, clients, 1)
    assert failed == [-1, ""]
    assert not episode.model.queued and not episode.model.held


def test_a_failing_walk_is_shortened(
    any_server: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    proper = batches.releasing

    def forgetful(owner: Any, leases: Any, delay: Any, score: Any, item: Any = None) -> Any:
        return proper(owner, leases, delay, None if delay else score, item)

    monkeypatch.setattr(batches, "releasing", forgetful)
    _, _, failure = walk.run(any_server, seed=1, count=5000)
    assert failure is not None and len(failure.steps) <= 5
    assert [step.what for step in failure.steps].count("release") == 1
    monkeypatch.undo()
    world, steps = failure.world, failure.steps
    clients = [any_server.client(protocol=2), any_server.client(), any_server.asyncio_client()]
    assert walk.attempt(world, steps, any_server, clients, 1)[1:] == (-1, "")


def test_a_line_that_a_kill_cut_short_is_ignored(tmp_path: Path) -> None:
    recorder = history.Recorder(tmp_path / "a.jsonl", True)
    first, second = recorder.begin("add", item="a"), recorder.begin("add", item="b")
    recorder.end(first, score=1.0)
    recorder.end(second, score=2.0)
    recorder.close()
    whole = (tmp_path / "a.jsonl").read_bytes()
    (tmp_path / "a.jsonl").write_bytes(whole[:-9])
    assert [each.state for each in history.read(tmp_path)] == ["done", "unknown"]
    (tmp_path / "a.jsonl").write_bytes(whole[: whole.index(b"\n") + 9])
    assert [each.number for each in history.read(tmp_path)] == [first]


# --- the findings of the judge of grouped sets


class Steps:
    """Leases as steps of a server, and the findings of the judge."""

    def __init__(self, server: servers.Server, directory: Path) -> None:
        self.raw, self._log = server.raw, politeness.Log(server, directory / "log")
        self._number = 0

    def start(self, name: str, host: str, at: float, owner: str = "") -> None:
        """Lease an item of a group for 500 ms, at a time in ms."""
        self._number += 1
        token, front = owner or f"{self._number:016}", f"{chr(len(host))}{host}"
        self.raw.eval(
            "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ARGV[1])"
            "redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])"
            "redis.call('HSET', KEYS[3], ARGV[1], ARGV[4] .. '0' .. ARGV[2] .. '0 1')",
            3,
            *(f"{grouped.P}:{key}" for key in ("items", "leased", "leases")),
            *(name, front, at + 500, token),
        )

    def end(self, name: str) -> None:
        self.raw.hdel(f"{grouped.P}:leases", name)

    def wrong(
        self, steps: Callable[[], Any], limit: int | None = 1, interval: float = 0, **rest: Any
    ) -> list[str]:
        with self._log as log:
            steps()
        judge = politeness.Judge(limit, interval, 500, **rest)
        judge.replay(log)
        assert judge.starts > 0
        return judge.wrong


@pytest.fixture
def steps(any_server: servers.Server, tmp_path: Path) -> Steps:
    return Steps(any_server, tmp_path)


def test_a_polite_log_passes_the_judge(steps: Steps) -> None:
    def run() -> None:
        for number in range(3):
            for host in ("a", "b", "free", "free"):
                steps.start(f"{host}{number}", host, 1000 * number)
            steps.start("a0" if not number else f"a{number}", "a", 1000 * number, "x" * 16)
            steps.end(f"a{number}")
            steps.end(f"b{number}")

    assert steps.wrong(run, interval=0) == []


def test_a_group_above_its_limit_is_found(steps: Steps) -> None:
    def run() -> None:
        steps.start("one", "a", 1)
        steps.start("two", "b", 1)
        steps.start("three", "a", 9)

    assert steps.wrong(run) == ["b'a' has 2 leases, and its limit is 1"]


def test_a_start_within_the_interval_is_found(steps: Steps) -> None:
    def run() -> None:
        for at in (100, 104, 107):
            steps.start(f"item{at}", "a", at)

    assert steps.wrong(run, None, 4) == ["b'a' started after 3.0 ms of 4"]


def test_a_start_before_the_end_of_a_rest_is_found(steps: Steps) -> None:
    rests = [politeness.Rest("a", 100, 110, 200)]

    def run() -> None:
        for at in (105, 150, 250):
            steps.start(f"item{at}", "a", at)

    assert steps.wrong(run, None, rests=rests) == ["b'a' started 50.0 ms before its rest"]


def test_an_item_from_a_group_that_it_left_is_found(steps: Steps) -> None:
    def run() -> None:
        steps.start("item", "a", 1)
        steps.raw.hset(f"{grouped.P}:items", "other", '\x01b\n"\\x')
        steps.raw.hset(f"{grouped.P}:leases", "other", f"{'t' * 16}0\x01a0 1")

    assert steps.wrong(run, None) == ["b'other' was handed out of b'a', and is in b'b'"]


# --- the findings of the checker


class Story:
    """A producer and a consumer in this process, and their history."""

    def __init__(self, server: servers.Server, directory: Path) -> None:
        self.raw = server.raw
        self.directory = directory
        own = {"exact": True, "awaited": False, "ttl": 60.0, "pause": 0.0, "timeout": 20.0}
        self.producer, self.consumer = (
            Worker(Work(role, role, str(directory), seed, str(server.unix), **own, draining=True))
            for seed, role in enumerate(("producer", "consumer"), 3)
        )

    def consume(self) -> None:
        while self.consumer.step():
            pass

    def findings(self, undone: tuple[Undone, ...] = ()) -> Findings:
        final = Final({item: self.consumer.set.score(item) for item in self.consumer.set}, {}, {})
        return checker.check(history.read(self.directory, undone), final, remember=False)


@pytest.fixture
def story(any_server: servers.Server, tmp_path: Path) -> Iterator[Story]:
    made = Story(any_server, tmp_path)
    made.producer.offer([[f"item{number}", float(number)] for number in range(50)])
    yield made
    made.producer.close()
    made.consumer.close()


def test_a_correct_history_passes_the_checker(story: Story) -> None:
    story.consume()
    found = story.findings()
    assert not found.bad
    assert (found.counts["items"], found.counts["acknowledged"]) == (50, 50)


def test_an_item_that_the_server_dropped_is_lost(story: Story) -> None:
    story.raw.zrem("jobs", "item7")
    story.consume()
    assert [each.split()[0] for each in story.findings().lost] == ["item7"]


def test_an_item_that_another_gets_inside_its_lease_is_doubled(story: Story) -> None:
    story.consumer._lease(1)
    story.raw.delete("jobs:{jobs}:leased", "jobs:{jobs}:leases")
    story.raw.zadd("jobs", {"item0": 0})
    story.consume()
    [said] = story.findings().doubled
    told = re.match(r"item0 was consumer#1's for (\d+\.\d{3}) s more when consumer#2 got it", said)
    # Of 60 s, of which hardly any had passed.
    assert told is not None and 50 <= float(told[1]) <= 60, said


def test_a_settlement_that_counts_though_another_has_it_is_doubled(story: Story) -> None:
    number, [lease] = story.consumer._lease(1)
    story.consumer._settle("release", number, [lease])
    again, [other] = story.consumer._lease(1)
    record = story.consumer.record
    late = record.begin("ack", groups={"ack": [[number, lease.item]]})
    record.end(late, ours=1)
    story.consumer._settle("ack", again, [other])
    story.consume()
    said = story.findings().doubled
    assert any("ack of consumer#1 counted, though consumer#3 had it" in each for each in said)
    assert any("acknowledged 2 times" in each for each in said)


def test_an_item_at_another_score_is_wrong(story: Story) -> None:
    story.raw.zincrby("jobs", 100, "item7")
    story.consume()
    [said] = story.findings().wrong
    assert said.startswith("item7 was handed out at 107.0")


def test_an_item_that_returns_at_an_old_score_is_wrong(story: Story) -> None:
    number, [lease] = story.consumer._lease(1)
    story.consumer._settle("release", number, [lease], score=99.0)
    story.raw.zadd("jobs", {"item0": 0})
    story.consume()
    [said] = story.findings().wrong
    assert said.startswith("item0 was handed out at 0.0") and "{99.0}" in said


def test_a_repeated_request_may_arrive_late(story: Story) -> None:
    number, [lease] = story.consumer._lease(1)
    story.consumer._settle("release", number, [lease], score=99.0)
    story.raw.zadd("jobs", {"item0": 0})
    story.consume()
    assert story.findings().wrong
    path = story.directory / "producer.jsonl"
    path.write_text(path.read_text().replace('"exact": true', '"exact": false'))
    assert not story.findings().bad


def test_an_item_that_nobody_added_is_wrong(story: Story) -> None:
    story.raw.zadd("jobs", {"stranger": 1})
    story.consume()
    assert [each.split()[0] for each in story.findings().wrong] == ["stranger"]


def test_steps_that_the_server_undid_do_not_count(story: Story) -> None:
    began = time.monotonic()
    number, batch = story.consumer._lease(5)
    story.consumer._settle("ack", number, list(batch))
    undone = (Undone(began, began, time.monotonic()),)
    story.consume()
    assert not story.findings().bad
    assert len(story.findings(undone).lost) == 5


def test_an_item_that_a_producer_hides_from_a_server_that_forgot_it_is_lost(
    any_server: servers.Server, tmp_path: Path
) -> None:
    with servers.start(any_server.kind) as server:
        story = Story(server, tmp_path)
        before = time.monotonic()
        server.raw.save()
        after = time.monotonic()
        story.producer.offer([["item", 1.0]])
        story.consume()
        server.revive()
        undone = (Undone(before, after, time.monotonic()),)
        assert not story.findings(undone).bad
        # Its table has the item as known, and nothing is sent.
        story.producer.does("add", lambda: {"refused": 1}, items=[["item", 1.0]])
        assert [each.split()[0] for each in story.findings(undone).lost] == ["item"]
        story.producer.offer([["item", 1.0]])
        story.consume()
        assert not story.findings(undone).bad


def test_pages_that_a_crawl_missed_are_lost(any_server: servers.Server, tmp_path: Path) -> None:
    what = {"exact": True, "awaited": False, "pages": 100, "options": "remembering"}
    what |= {"ttl": 60.0, "timeout": 20.0}
    work = Work("crawler", "crawler", str(tmp_path), 1, str(any_server.unix), **what)
    crawler = Worker(work._replace(draining=True))
    crawler.offer([["1", 0.0]])
    for _ in range(5):
        crawler.step()
    any_server.raw.zpopmax("jobs")
    while crawler.step():
        pass
    crawler.close()
    operations = history.read(tmp_path)
    assert scenarios.unreached(operations, 100, [])


@pytest.mark.slow(20)
@pytest.mark.timeout(240)
def test_a_soak_reads_the_memory_of_all(load: Load) -> None:
    found = soak.soak(servers.some(), load.seconds(4))
    assert found.commands > 1000
    assert set(found.readings) > {"server", "used_memory"} and len(found.readings) == 6
    assert all(len(values) > 10 and min(values) > 1 << 19 for values in found.readings.values())
    leaking = found._replace(readings={"it": [(50 + n) << 20 for n in range(100)]})
    assert leaking.grown == ["it grew from 89088 to 140288 KB"]
