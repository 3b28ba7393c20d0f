"""The benchmarks' own arithmetic, report and proxy, at tiny sizes. No time is tested here."""

from __future__ import annotations

import json
import math
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import children
import pytest
import redis

import redset
from benchmarks import contest, headlines, measures, memory, report
from benchmarks.contest import Bench, Contest, Entry, Size
from benchmarks.peers import REDSET, SOCKET, Environment, Missing, Peer
from benchmarks.processes import Proxy
from benchmarks.results import Goal, Part, Profile, Result, Series, Verdict, ratios
from benchmarks.worker import data
from redset.serializers import JSONSerializer
from tests import servers

pytestmark = pytest.mark.timeout(300)

RUN: dict[str, Any] = {
    "quick": True,
    "rounds": 3,
    "seconds": 1.0,
    "date": "2026-01-01T00:00:00+00:00",
    "machine": {"cpu": "a CPU", "cores": 2, "memory_gb": 1.0, "system": "a system"},
    "placement": "not pinned",
    "direct_ms": 0.05,
    "delayed_ms": 0.55,
    "noise": {"before": {"loop_ms": 1.0, "fastest_ms": 1.0, "slowest_ms": 2.0, "load": None}},
    "failed": {"another": "RuntimeError: why"},
    "versions": {"redset": {"python": "3.11.0", "redset": "1.0.0"}},
}


def result(**samples: list[float]) -> Result:
    """A result of two contenders, ``ours`` and ``theirs``, and a goal between them."""
    found = Result("name", "title", contest.UNIX, "redis7 7.0.15", 100, "100 items")
    found.goals = [
        Goal("ratio", "wall", "ours", "theirs", most=0.5),
        Goal("of one that is not there", "wall", "ours", "nobody", most=0.5),
    ]
    for name, values in samples.items():
        found.series[name] = Series(f"what {name} does", {"wall": values, "cpu": values})
    return found


# --- the arithmetic


def test_a_ratio_is_that_of_each_round_and_the_median_decides() -> None:
    # The medians' ratio would be 2 / 3; so would be that of the sums.
    found = result(ours=[1.0, 2.0, 6.0], theirs=[10.0, 3.0, 2.0])
    (verdict,) = found.verdicts()
    assert verdict.values == [0.1, 2 / 3, 3.0]
    assert verdict.median == 2 / 3
    assert verdict.quartiles == pytest.approx(((0.1 + 2 / 3) / 2, (2 / 3 + 3) / 2))
    assert verdict.met is False


def test_a_goal_of_one_item_is_in_microseconds() -> None:
    found = result(ours=[0.001, 0.002, 0.003])
    found.goals = [Goal("an item", "cpu", "ours", most=19, per_item=True)]
    (verdict,) = found.verdicts()
    assert verdict.values == pytest.approx([10, 20, 30])
    assert verdict.met is False


@pytest.mark.parametrize(
    ("limits", "met"),
    [
        ({"most": 2.0}, True),
        ({"most": 1.9}, False),
        ({"least": 2.0}, True),
        ({"least": 2.1}, False),
        ({}, None),
    ],
)
def test_a_goal_has_an_upper_limit_a_lower_one_or_none(limits: Any, met: bool | None) -> None:
    assert Verdict(Goal("goal", "wall", "ours", **limits), [1.0, 2.0, 3.0]).met is met


def test_rounds_that_do_not_pair_are_an_error() -> None:
    with pytest.raises(ValueError):
        ratios([1.0], [1.0, 2.0])


# --- the report


def test_the_report_names_goals_missed_and_contenders_missing_with_a_profile(
    tmp_path: Path,
) -> None:
    found = result(ours=[1.0, 1.0, 1.0], theirs=[1.0, 1.0, 1.0])
    found.missing["nobody"] = "nobody: pip install failed"
    rows = [{"function": "slow", "calls": 3, "own": 0.5, "with_callees": 0.6}]
    found.profiles = [Profile("ours", rows, [Part("a step alone", 1e-4, math.nan)])]
    report.write([found], RUN, tmp_path / "quick")

    written = json.loads((tmp_path / "quick.json").read_text())
    assert written["quick"] is True
    (measure,) = written["measures"]
    assert measure["goals"][0]["met"] is False
    assert measure["goals"][0]["values"] == [1.0, 1.0, 1.0]
    assert measure["not_judged"] == {"of one that is not there": "nobody"}
    assert measure["contenders"]["ours"]["wall"] == [1.0, 1.0, 1.0]
    # NaN is not JSON.
    assert measure["profiles"][0]["parts"] == [{"what": "a step alone", "wall": 1e-4}]

    text = (tmp_path / "quick.md").read_text()
    for part in (
        "Quick: reduced sizes",
        "**NO**",
        "no nobody",
        "nobody: pip install failed",
        "another failed: RuntimeError: why",
        "| `slow` | 3 | 500.0 | 600.0 |",
        "| a step alone | 1.00 | - |",
        "| ours | 10,000 | 10,000 | what ours does |",
    ):
        assert part in text


@pytest.mark.parametrize(
    "module",
    [
        *("benchmarks", "benchmarks.steps", "benchmarks.memory", "benchmarks.groups"),
        "benchmarks.polite",
    ],
)
def test_a_benchmark_starts_from_the_tree(module: str) -> None:
    tree = Path(__file__).resolve().parent.parent
    out = children.run("-m", module, "--help", cwd=tree).out
    assert "--server" in out


def test_plots_are_drawn_of_what_was_measured(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots: matplotlib is not installed")
    from benchmarks import plots

    found = []
    for name in (*report.SWEEPS, "add_many"):
        one = result(redset=[1.0, 2.0, 3.0], other=[2.0, 3.0, 4.0])
        one.name, one.at = name, 10.0
        found.append(one.as_json())
    headline = headlines.HEADLINES[0]
    goal = {"goal": headline.goal, "median": 3.14159}
    found.append(
        {"name": headline.measure, "link": contest.UNIX, "contenders": {}, "goals": [goal]}
    )
    drawn = plots.draw({**RUN, "measures": found}, tmp_path)
    assert {each.name for each in drawn} == {
        "chunk-size.svg",
        "duplicates.svg",
        "item-size.svg",
        "peers.svg",
        "ratios.svg",
    }
    for each in drawn:
        assert "is better" in each.read_text()
        assert each.stat().st_size < 50_000
    assert plots.draw({**RUN, "measures": []}, tmp_path / "none") == []


def test_a_plots_values_lie_beside_its_markers() -> None:
    pytest.importorskip("matplotlib", reason="plots: matplotlib is not installed")
    from benchmarks import plots

    one = result(near=[1.0, 1.0, 1.0], far=[1.0, 1000.0, 2000.0])
    one.name, one.at = "add_many", 10.0
    figure, axes = plots.pyplot.subplots()
    assert plots._peers(axes, [one.as_json()])
    figure.draw_without_rendering()
    assert len(axes.texts) == 2
    for text in axes.texts:
        box = text.get_window_extent()
        for marker in axes.collections:
            radius = marker.get_sizes()[0] ** 0.5 / 2 * figure.dpi / 72
            for place in axes.transData.transform(marker.get_offsets()):
                assert not box.padded(radius).contains(*place)
    plots.pyplot.close(figure)


# --- the data of the contenders


@pytest.mark.parametrize("size", [85, 115, 1000])
def test_items_are_distinct_and_have_the_stated_size(size: int) -> None:
    texts = [
        json.dumps(item, sort_keys=True, separators=(",", ":")) for item in data.items(0, 500, size)
    ]
    assert len(set(texts)) == 500
    assert {len(text) for text in texts} == {size}


def test_no_score_is_0_and_urls_have_60_bytes() -> None:
    assert min(data.scores(10_000)) >= 1
    assert {len(data.url(number)) for number in range(500)} == {60}


def test_the_real_stream_is_the_whole_crawl() -> None:
    pages = data.pages(str(measures.LINKS))
    links = [item["url"] for page in pages for item in page]
    assert (len(pages), len(links)) == (526, 109_879)
    assert 1 - len(set(links)) / len(links) == pytest.approx(0.976, abs=0.001)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_made_links_have_the_duplicates_asked_for(share: float) -> None:
    urls = [item["url"] for page in data.links(1000, share) for item in page]
    assert len(urls) == 1000
    assert len(set(urls)) == round(1000 * (1 - share))


# --- contests


@pytest.fixture
def bench() -> Iterator[Bench]:
    try:
        made = Bench("valkey9", quick=True, rounds=2)
    except servers.Missing as missing:
        pytest.skip(str(missing))
    yield made
    made.close()


def small(scale: contest.Scale) -> Size:
    return Size({"size": 1000}, 1000, "1,000 items", left=1000)


needs_core = pytest.mark.skipif(
    redset.IMPLEMENTATION != "cython", reason="the contender is the compiled core"
)
OURS, RAW = Entry(REDSET, "add_many", "ours"), Entry(SOCKET, "add_many", "raw")


@needs_core
def test_contenders_take_turns_and_one_that_is_missing_is_named(bench: Bench) -> None:
    gone = Peer("gone", Environment("gone"), "with_nothing")
    goals = (Goal("wall", "wall", "raw socket", "redset", least=0.0),)
    entries = (OURS, Entry(gone, "add_many", "no"), RAW)
    over_unix, over_tcp = Contest("some", "title", entries, goals, small, ("redset",)).run(bench)
    assert {name: len(each.samples["wall"]) for name, each in over_unix.series.items()} == {
        "redset": 2,
        "raw socket": 2,
    }
    assert list(over_unix.missing) == ["gone"]
    assert (list(over_tcp.series), over_tcp.goals) == (["redset"], [])


def test_the_time_of_several_producers_is_from_the_first_to_the_last(bench: Bench) -> None:
    two = Contest(
        "two",
        "title",
        (OURS,),
        (),
        lambda scale: Size({"size": 500}, 500, "", left=1000),
        (),
        (),
        2,
    )
    (found,) = two.run(bench)
    assert found.items == 1000


@needs_core
def test_a_contender_that_does_less_work_is_an_error(bench: Bench) -> None:
    wrong = Contest(
        "wrong", "title", (OURS,), (), lambda scale: Size({"size": 1000}, 1000, "", left=1001)
    )
    with pytest.raises(RuntimeError, match="redset says that it did 1000"):
        list(wrong.run(bench))


@needs_core
@pytest.mark.slow(5)
@pytest.mark.parametrize(
    "measure",
    [
        *(measures.ADD, measures.POP, measures.TAKE, measures.CRAWL, measures.DIGESTS),
        *(measures.PEEK, measures.DISCARD, measures.ITERATE, measures.ADD_ABSENT),
        *(measures.ADD_KEYED, measures.SCORE, measures.CONTAINS, measures.SHORT_LIVED),
        *(measures.DISCARD_MANY, measures.SCORES),
        *(measures._leases(batch, 5.0) for batch in (1, 10)),
        *(measures._whole(batch, 1.5, None) for batch in (1, 100)),
    ],
    ids=lambda each: each.name,
)
def test_the_contenders_of_the_tree_do_the_work_of_each_measure(
    bench: Bench, measure: Contest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peers are not installed here: their part is left out, or has the tree's clients."""
    bench.rounds = 1
    monkeypatch.setattr(Environment, "python", _only_the_tree)
    found = list(measure.run(bench))
    assert found[0].series
    for each in found:
        assert all(len(one.samples["wall"]) == 1 for one in each.series.values())


@needs_core
@pytest.mark.slow(8)
def test_a_cluster_client_and_a_plain_one_do_the_same_work(bench: Bench) -> None:
    bench.rounds = 1
    usual = bench.server
    found = list(measures.on_cluster(bench))
    assert [set(each.series) for each in found] == [
        {measures.ONE_NODE, measures.ON_CLUSTER, measures.GENERIC}
    ] * 4
    assert bench.server is usual


def _only_the_tree(environment: Environment) -> str:
    if environment.requirements and environment.name != "redis-py":
        raise Missing(f"{environment.name}: not installed in tests")
    return sys.executable


@needs_core
def test_the_cpu_of_the_server_is_measured_and_shown(bench: Bench) -> None:
    ours = Contest("some", "title", (OURS,), (), small)
    (found,) = ours.run(bench)
    (series,) = found.series.values()
    assert len(series.samples["server"]) == 2
    # The clock of a server's own account ticks in parts of what a thousand items take.
    assert all(0 < each < 10 for each in series.samples["server"])
    text = report.markdown([found], RUN)
    assert "| contender | wall, µs an item | CPU, µs an item | server CPU, µs an item |" in text


@needs_core
def test_leases_are_measured_on_every_server_and_the_usual_one_is_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = bench.server
    monkeypatch.setattr(measures, "_leases", _named_leases)
    monkeypatch.setattr(servers, "REAL", ("valkey9", "nothing"))
    monkeypatch.setitem(servers.BINARIES, "nothing", _not_there)
    *found, gone = measures.leases(bench)
    assert [each.name for each in found] == ["lease_1 5.5", "lease_10 4.5", "lease_100 5.5"]
    assert list(gone.missing) == ["nothing"]
    assert bench.server is usual
    assert usual.raw.ping()


def _named_leases(batch: int, most: float) -> Contest:
    return Contest(f"lease_{batch} {most}", "title", (OURS,), (), small)


def _not_there() -> str:
    raise servers.Missing("nothing: not there")


@needs_core
def test_whole_jobs_that_are_not_all_done_are_an_error(bench: Bench) -> None:
    def size(scale: contest.Scale) -> Size:
        return Size({"size": 100, "chunk": 10}, 101, "", left=0, through=True)

    wrong = Contest("wrong", "title", (Entry(REDSET, "whole", "ours"),), (), size)
    with pytest.raises(RuntimeError, match="redset says that it did 100, the server 101"):
        list(wrong.run(bench))


@needs_core
def test_a_goal_that_was_missed_is_profiled(bench: Bench) -> None:
    goals = (Goal("impossible", "wall", "redset", most=0.0),)
    parts = (Entry(REDSET, "part_encode", "encoding alone", "encode"),)
    missed = Contest("missed", "title", (OURS,), goals, small, parts=parts)
    (found,) = missed.run(bench)
    (profile,) = found.profiles
    assert profile.rows
    assert [part.what for part in profile.parts][1:] == ["encoding alone"]


@pytest.mark.slow(5)
def test_a_memory_is_measured_from_its_first_url_to_its_last(bench: Bench) -> None:
    found = memory.life(bench.server, 2000, 1000)
    assert list(found.phases) == ["idle", "bulk load", "growing", "forgetting", "clearing"]
    assert all(each.worst >= each.p99 > 0 for each in found.phases.values())
    assert all(each.step > 0 for name, each in found.phases.items() if name != "idle")
    assert found.bytes_each > 0
    assert memory.bytes_of_fingerprints(bench.server, 2000) > 40


@pytest.mark.slow(8)
@pytest.mark.parametrize("large", [False, True])
def test_groups_are_compared_and_their_steps_measured(large: bool) -> None:
    tree = Path(__file__).resolve().parent.parent
    sizes = ["--large", "--groups", "20000"] if large else ["--items", "1500"]
    command = ["-m", "benchmarks.groups", "--server", servers.some(), "--rounds", "1", *sizes]
    with children.Child(*command, cwd=tree) as child:
        ended = child.wait(120)
    # Goals are met by large sets on a quiet machine.
    assert ended.status in (0, 1) and ended.err == "", ended
    wanted = "| all groups rest: lease of 100 |" if large else "lease + ack by 100: "
    assert wanted in ended.out and "All goals met: " in ended.out


@pytest.mark.slow(4)
def test_starts_of_hosts_are_counted_and_their_gaps_measured() -> None:
    tree = Path(__file__).resolve().parent.parent
    sizes = ["--rounds", "1", "--hosts", "3", "--jobs", "3", "--alone"]
    command = ["-m", "benchmarks.polite", "--server", servers.some(), *sizes]
    with children.Child(*command, cwd=tree) as child:
        ended = child.wait(60)
    assert (ended.status, ended.err) == (0, "")
    (row,) = (line for line in ended.out.splitlines() if line.startswith("| redset |"))
    connections, lasted, gap = (cell.split()[0] for cell in row.split("|")[3:6])
    assert 1 <= int(connections) <= 2
    # How long a handler waits for a core is the machine's affair.
    assert float(lasted) > 0 and float(gap) > 0


def test_memory_is_measured_of_entries_that_are_queued_leased_and_done(bench: Bench) -> None:
    items = [item for page in data.links(1000, 0.0) for item in page]
    plain, known = (
        memory.bytes_each(bench.server, items, serializer=JSONSerializer(), **options)
        for options in ({}, {"key": "url", "remember": True})
    )
    assert plain.leased > plain.queued > 100
    assert abs(plain.left) < 30 and 5 < known.left < known.queued < known.leased


@pytest.mark.slow(5)
def test_the_memory_of_an_entry_is_measured_for_each_option(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Environment, "python", _only_the_tree)
    (found,) = measures.entry_memory(bench)
    assert list(found.series) == [memory.described(each) for each in memory.OPTIONS]
    assert list(found.missing) == ["scrapy-redis"]
    assert "| B queued | B leased | B left when done |" in report.markdown([found], RUN)


# --- the proxy


def test_the_proxy_keeps_bytes_in_order_and_delays_them() -> None:
    sent = bytes(range(256)) * 8192
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_echo, args=(listener, len(sent)), daemon=True)
        thread.start()
        with Proxy(listener.getsockname()[1], 0.05) as proxy:
            link = socket.create_connection(("127.0.0.1", proxy.port), 30)
            began = time.monotonic()
            sender = threading.Thread(target=link.sendall, args=(sent,), daemon=True)
            sender.start()
            first = link.recv(1 << 16)
            # Both ways; how much longer it takes is the machine's affair.
            assert time.monotonic() - began >= 0.1
            received = bytearray(first)
            while len(received) < len(sent):
                received += link.recv(1 << 20)
            sender.join()
            assert received == sent
            # The end arrives as well.
            link.shutdown(socket.SHUT_WR)
            assert link.recv(1) == b""
            link.close()
        thread.join(10)
        assert not thread.is_alive()


def _echo(listener: socket.socket, size: int) -> None:
    near, _ = listener.accept()
    with near:
        near.settimeout(30)
        received = bytearray()
        while len(received) < size:
            received += near.recv(1 << 20)
        near.sendall(received)
        assert near.recv(1) == b""


def test_the_proxy_carries_a_clients_requests(bench: Bench) -> None:
    with redis.Redis(**bench.address(contest.DELAYED)) as client:
        assert client.set("a", b"x" * 1_000_000)
        assert client.get("a") == b"x" * 1_000_000
    assert bench.server.raw.get("a") == b"x" * 1_000_000
