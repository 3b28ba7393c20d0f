"""Reports: what processes did with a set, counted in the process and sent with other requests."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import blocking
import children
import pytest
import redis
import servers
from marks import needs_fork
from proxy import Proxy

from redset import SortedSet, TimeSortedSet, list_sets
from redset._operations import operating, reporting
from redset._transport.pools import get_connection
from redset.scripts import script

Maker = Callable[..., Any]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call may report."""
    monkeypatch.setattr(reporting, "EVERY", 0.0)


def report(jobs: Any) -> None:
    """Let the process report at once."""
    face = blocking.face_of(jobs)
    done = face._run(operating.report(face._ctx))
    if isinstance(jobs, blocking.BlockingSet):
        blocking.wait(done)


def counts_of(raw: Any, name: str) -> dict[str, int]:
    """The counts of a set, without the times."""
    stored = raw.hgetall(f"{name}:{{{name}}}:counts")
    return {
        field.decode(): int(num) for field, num in stored.items() if not field.endswith(b"_seen")
    }


def lines_of(raw: Any, name: str) -> dict[str, dict[str, Any]]:
    stored = raw.hgetall(f"{name}:{{{name}}}:workers")
    return {worker.decode(): json.loads(line) for worker, line in stored.items()}


def test_counts_are_those_of_the_calls(make_set: Maker, raw: Any) -> None:
    jobs = make_set(name="jobs")
    for item in ("a", "b", "a"):
        jobs.add(item)
    jobs.add("a", nx=True)
    jobs.add_many(["c", "c", "d", "e", "f"], 5)
    jobs.add_many(iter(["c", "g"]), nx=True)
    assert jobs.pop() == "a" and jobs.take(2) == ["b", "g"]
    first, second, third, fourth = jobs.lease(4)
    first.ack(add=["x", "y"])
    second.fail("broken")
    third.release()
    assert jobs.discard("f") and fourth.ack() == 0
    report(jobs)
    assert counts_of(raw, "jobs") == {
        "added": 9, "updated": 2, "refused": 2, "taken": 3, "leased": 4, "acked": 1, "failed": 1,
        "released": 1, "lost": 1,
    }  # fmt: skip


def test_adds_from_another_set_are_counted_as_adds(make_set: Maker, raw: Any) -> None:
    jobs, others = make_set(name="jobs"), make_set(name="others")
    kept = make_set(name="kept", remember=True)
    jobs.add_many(["a", "b", "c"], [1, 5, 3])
    others.add_many(["a", "b", "d"], [2, 4, 4])
    jobs.update(others)
    assert list(jobs) == ["a", "c", "b", "d"]
    report(jobs)
    assert counts_of(raw, "jobs") == {"added": 4, "updated": 1, "refused": 1}
    kept.add("a")
    assert jobs.move_many(["a", "b", "e"], kept) == 1
    kept.update(others)
    for each in (jobs, others, kept):
        report(each)
    assert counts_of(raw, "kept") == {"added": 3, "refused": 3}
    # What leaves a set by a move is not taken.
    assert counts_of(raw, "jobs") == {"added": 4, "updated": 1, "refused": 1}
    assert counts_of(raw, "others") == {"added": 3}


def test_a_writer_reports_when_it_ends(make_set: Maker, raw: Any) -> None:
    jobs = make_set(name="jobs")
    with jobs.buffered() as writer:
        for number in range(20):
            writer.add(str(number))
    assert counts_of(raw, "jobs") == {"added": 20}


def test_a_set_with_a_memory_counts_what_its_process_refuses_itself(
    make_set: Maker, raw: Any
) -> None:
    jobs = make_set(name="jobs", remember=True)
    for _ in range(5):
        jobs.add_many([str(number) for number in range(300)])
        jobs.add_many(["1", "2"])
        jobs.add("3")
    report(jobs)
    assert counts_of(raw, "jobs") == {"added": 300, "refused": 5 * 303 - 300}


def test_a_worker_counts_its_jobs_and_the_time_in_handlers(make_set: Maker, raw: Any) -> None:
    jobs = make_set(name="jobs", max_attempts=1)
    jobs.add_many(["good", "bad"])
    pause = threading.Event()

    def handle(item: str) -> list[str]:
        pause.wait(0.02)
        if item == "bad":
            raise ValueError(item)
        return ["next"] if item == "good" else []

    assert jobs.consume(handle, until_finished=True).done == 2
    counts = counts_of(raw, "jobs")
    assert counts.pop("busy_ms") >= 40
    assert counts == {"added": 3, "leased": 3, "acked": 2, "failed": 1, "died": 1}
    (line,) = lines_of(raw, "jobs").values()
    assert (line["held"], line["done"], line["failed"]) == (0, 2, 1)


def test_the_server_counts_what_only_it_knows(make_set: Maker, raw: Any) -> None:
    jobs = make_set(name="jobs", max_attempts=1)
    jobs.add_many(["a", "b"])
    jobs.lease(1, 0.001)
    while jobs.stats().dead == 0:
        pass
    assert jobs.dead.requeue() == 1
    for lease in jobs.lease(2):
        lease.fail("broken")
    assert jobs.dead.purge() == 2
    counts = counts_of(raw, "jobs")
    named = ("expired", "died", "requeued", "purged")
    assert {name: counts[name] for name in named} == dict(zip(named, (1, 3, 1, 2), strict=True))
    assert 0 < raw.ttl("jobs:{jobs}:counts") <= 604800


def test_each_report_leaves_keys_that_expire(make_set: Maker, raw: Any) -> None:
    jobs, keys = make_set(name="jobs"), ("jobs:{jobs}:counts", "jobs:{jobs}:workers")

    def report() -> list[int]:
        jobs._ctx.reporter.tally.due = 0.0
        jobs.discard("none")  # a report travels with it
        return [raw.ttl(key) for key in keys]

    jobs.add("a")
    tally = jobs._ctx.reporter.tally
    assert min(report()) > 0
    for key in keys:  # each alone is made again
        raw.delete(key)
        jobs.add("b")
        assert min(report()) > 0
    for key in keys:
        raw.expire(key, 1000)
    tally.looked -= 3600  # an hour goes by
    jobs.add("c")
    assert min(report()) > 600_000


def test_threads_lose_no_counts(make_set: Maker) -> None:
    jobs = make_set(name="jobs")
    jobs.add("a")
    tally = jobs._ctx.reporter.tally
    before, interval = tally.counts[reporting.ADDED], sys.getswitchinterval()

    def count() -> None:
        for _ in range(30_000):
            tally.count(reporting.ADDED, 1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert tally.counts[reporting.ADDED] == before + 120_000


@pytest.fixture
def wire(any_server: servers.Server) -> Iterator[tuple[Proxy, SortedSet[str]]]:
    """A proxy, and a set whose client goes through it and tries once."""
    with Proxy(any_server) as proxy:
        proxy.hides = False
        client = redis.Redis(port=proxy.port, retry=None)
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        yield proxy, jobs
        client.close()


REPORT = script("report").sha


def reports_in(proxy: Proxy) -> int:
    return sum(command[:2] == [b"EVALSHA", REPORT] for command in proxy.seen)


def test_a_report_travels_in_the_write_of_another_request(
    wire: tuple[Proxy, SortedSet[str]],
) -> None:
    _, jobs = wire
    writes: list[bytes] = []
    jobs.add("a")
    connection = get_connection(jobs.redis.connection_pool)
    jobs.redis.connection_pool.release(connection)
    sock, sendall = connection._sock, connection._sock.sendall

    class Recorded:
        def __getattr__(self, name: str) -> Any:
            return getattr(sock, name)

        def sendall(self, data: Any, *rest: Any) -> None:
            writes.append(bytes(data))
            sendall(data, *rest)

    connection._sock = Recorded()
    jobs._ctx.reporter.tally.due = 0.0
    before = len(writes)
    jobs.add("b")
    (written,) = writes[before:]
    assert written.count(b"EVALSHA") == 2 and written.count(b"ZADD") == 1
    assert written.index(REPORT) < written.index(b"ZADD")


def test_a_busy_process_reports_at_most_once_in_two_seconds(
    wire: tuple[Proxy, SortedSet[str]],
) -> None:
    proxy, jobs = wire
    began = time.monotonic()
    for number in range(50):
        jobs.add(str(number))
        jobs.lease(1).ack()
    assert 1 <= reports_in(proxy) <= 1 + (time.monotonic() - began) // 2


def test_calls_that_only_look_report_nothing(make_set: Maker, raw: Any) -> None:
    jobs = make_set(name="jobs")
    jobs.size()
    jobs.peek_many(1)
    jobs.stats()
    jobs.finished()
    report(jobs)
    assert raw.keys() == []


@pytest.mark.usefixtures("hasty")
def test_a_report_whose_answer_is_lost_is_not_sent_again(
    wire: tuple[Proxy, SortedSet[str]], any_server: servers.Server
) -> None:
    proxy, jobs = wire
    jobs.add("a")
    jobs.add("b")
    proxy.rule = lambda command: proxy.LOSE if command[:2] == [b"EVALSHA", REPORT] else None
    with pytest.raises(redis.ConnectionError):
        jobs.add("c")
    proxy.rule = None
    jobs.add("c")
    jobs.close()
    # The add whose answer was lost was performed: the next one found its item.
    assert counts_of(any_server.raw, "jobs") == {"added": 2, "updated": 1}


@pytest.mark.usefixtures("hasty")
def test_a_report_that_is_refused_whole_is_told_by_the_next(
    any_server: servers.Server, server_client: redis.Redis
) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(server_client, "jobs")
    jobs.add("a")
    raw.script_flush()
    jobs.add("b")
    jobs.add("c")
    jobs.close()
    assert counts_of(raw, "jobs") == {"added": 3}


@pytest.mark.usefixtures("hasty")
def test_a_restarted_server_has_the_next_report(
    any_server: servers.Server, server_client: redis.Redis
) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(server_client, "jobs")
    jobs.add("a")
    raw.script_flush()  # as a restart does
    for item in "bcd":
        jobs.add(item)
    # Each report has the counts of the calls before it.
    assert counts_of(raw, "jobs") == {"added": 3}


def test_a_user_who_may_not_report_ends_the_reports_of_the_process(
    any_server: servers.Server,
) -> None:
    with servers.user(any_server, "resetkeys", "~jobs") as login, Proxy(any_server) as proxy:
        proxy.hides = False
        client = redis.Redis(port=proxy.port, **login)
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        jobs.add("a")
        jobs.add("b")
        other: SortedSet[str] = SortedSet(client, "jobs")
        other.add("c")
        assert jobs.pop() == "a"
        assert reports_in(proxy) == 1
        client.close()


def test_a_process_may_be_told_not_to_report(
    any_server: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDSET_REPORT", "0")
    monkeypatch.setattr(reporting, "_process", reporting._Process())
    with SortedSet(any_server.client(), "jobs") as jobs:
        jobs.add_many(str(number) for number in range(30_000))
        jobs.take(20_000)
        jobs.clear()
        jobs.add("a")
        jobs.pop()
    assert any_server.raw.keys() == []


def test_a_worker_is_named_in_its_leases_and_its_line(
    make_set: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDSET_LABEL", "crawler 7")
    monkeypatch.setattr(reporting, "_process", reporting._Process())
    jobs = make_set()
    jobs.add_many(["a", "b"])
    jobs.lease(1).fail("broken", delay=60)
    jobs.lease(1)
    delayed, leased = sorted(jobs.leased(), key=lambda each: each.worker or "")
    report(jobs)
    (worker,) = jobs.workers()
    assert delayed.worker is None and leased.worker == worker.id
    assert (worker.pid, worker.label, worker.held) == (os.getpid(), "crawler 7", 1)
    assert worker.host and 0 <= worker.seen - worker.since < 60


def test_a_signals_handler_may_use_a_set_in_the_middle_of_a_count(
    server_client: redis.Redis,
) -> None:
    jobs: SortedSet[str] = SortedSet(server_client, "jobs")
    jobs.add("a")
    with jobs._ctx.reporter.tally.lock:
        assert jobs.add_many(["b", "c"]).added == 2
        assert jobs.pop() == "a"


def test_objects_that_report_nothing_share_no_lock(
    server_client: redis.Redis, silent: None
) -> None:
    # A forked child would wait for it forever, if a thread of its parent held it.
    jobs: SortedSet[str] = SortedSet(server_client, "jobs")

    def use() -> None:
        jobs.add_many(["a", "b"])
        jobs.lease().ack()
        jobs.clear()

    with reporting._NONE.lock:
        other = threading.Thread(target=use, daemon=True)
        other.start()
        other.join(10)
        assert not other.is_alive()


@pytest.mark.slow(5)
def test_a_killed_process_loses_two_seconds_of_counts_at_most(
    all_servers: servers.Servers, load: Any
) -> None:
    server: Any = all_servers.get(servers.some())
    server.flush()
    code = f"""
import redis, time
from redset import SortedSet
jobs = SortedSet(redis.Redis(unix_socket_path={str(server.unix)!r}), "jobs")
began = time.monotonic()
for number in range(100_000):
    jobs.add(str(number), number, nx=True)
    jobs.add(f"{{time.monotonic() - began}} {{number}}", 100_000 + number)
    time.sleep(0.005)
"""
    raw = server.raw
    with children.Child("-c", code) as child:
        while counts_of(raw, "jobs").get("added", 0) < 100:
            assert child.status is None, child
            time.sleep(0.01)
        time.sleep(1)
        child.kill()
    counted, added = counts_of(raw, "jobs")["added"], raw.zcard("jobs")
    times = [float(each.split()[0]) for each in raw.zrangebyscore("jobs", 100_000, "inf")]
    assert counted < added
    assert times[-1] - times[counted // 2 - 1] < load.seconds(2.2)


@needs_fork
def test_a_forked_child_counts_for_itself(any_server: servers.Server) -> None:
    code = f"""
import os, redis
from redset import SortedSet
client = redis.Redis(unix_socket_path={str(any_server.unix)!r})
jobs = SortedSet(client, "jobs")
jobs.add("first")
child = os.fork()
for number in range(3):
    jobs.add(f"{{os.getpid()}} {{number}}")
jobs.close()
if child:
    assert os.waitpid(child, 0)[1] == 0
else:
    os._exit(0)
"""
    children.run("-c", code)
    raw = any_server.raw
    assert counts_of(raw, "jobs") == {"added": 7}
    assert len({line["pid"] for line in lines_of(raw, "jobs").values()}) == 2


def test_a_set_is_registered_with_its_options_by_the_second_report(
    any_server: servers.Server, server_client: redis.Redis
) -> None:
    raw = any_server.raw
    options = {"key": ("a", "b"), "remember": 60, "ties": "fifo", "max_attempts": 3}
    jobs: SortedSet[Any] = SortedSet(server_client, "jobs", serializer=json, **options)  # type: ignore[call-overload]
    jobs.add({"a": 1, "b": 2})
    assert not raw.exists("redset:sets")
    jobs.close()
    timed: TimeSortedSet[str] = TimeSortedSet(server_client, "timed")
    timed.add_many(["a"])
    jobs_info, timed_info = list_sets(server_client)
    assert jobs_info.options is not None and timed_info.options is not None
    seen = jobs_info.options.pop("seen")
    assert seen % 3600 == 0 and 0 <= raw.time()[0] - seen < 3700
    assert jobs_info.options.pop("v") == timed_info.options["v"]
    assert jobs_info.options == {
        "class": "SortedSet", "key": ["a", "b"], "ties": "fifo", "remember": 60.0, "attempts": 3,
        "serializer": "json",
    }  # fmt: skip
    assert timed_info.options["class"] == "TimeSortedSet"
    assert timed_info.options["serializer"] is None and timed_info.options["key"] is None
    assert timed_info.counts["added"] == 1


def test_old_entries_and_lines_are_dropped(
    any_server: servers.Server, server_client: redis.Redis
) -> None:
    raw = any_server.raw
    now = int(raw.time()[0])
    for number in range(3):
        raw.hset("redset:sets", f"old{number}", f'{{"seen":{now - 31 * 86400}}}')
        raw.hset("jobs:{jobs}:workers", f"old{number}", f'{{"seen":{now - 3700}}}')
    raw.hset("redset:sets", "fresh", f'{{"seen":{now}}}')
    raw.hset("jobs:{jobs}:workers", "fresh", f'{{"seen":{now}}}')
    jobs: SortedSet[str] = SortedSet(server_client, "jobs")
    jobs.add_many(["a"])
    assert len(lines_of(raw, "jobs")) == 2
    assert set(raw.hkeys("redset:sets")) == {b"fresh", b"jobs"}


def test_clear_leaves_no_counts_and_no_entry(make_set: Maker, raw: Any) -> None:
    jobs = make_set(name="jobs")
    jobs.add_many(["a", "b"])
    raw.set("jobs:{jobs}:paused", "x")
    assert jobs.clear() == 2
    assert raw.keys() == [b"jobs:{jobs}:paused"]
    jobs.add("c")
    report(jobs)
    jobs.add("d")
    report(jobs)
    assert counts_of(raw, "jobs") == {"added": 2}
    assert raw.hkeys("redset:sets") == [b"jobs"]


def test_an_idle_waiter_is_heard_of(
    make_set: Maker, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from redset._operations import exchanging, waiting

    for module in (reporting, waiting, exchanging):
        monkeypatch.setattr(module, "IDLE", 0.05)
    monkeypatch.setattr(reporting, "EVERY", 0.0)
    jobs = make_set(name="jobs")
    for _ in range(10):  # on a busy machine it wakes late
        assert not jobs.lease(1, wait=0.4)
        if jobs._ctx.reporter.tally.reports > 1:
            break
    assert jobs._ctx.reporter.tally.reports > 1
    assert raw.hexists("jobs:{jobs}:counts", "consumer_seen")
