"""Pausing: an operator holds the consumers of a set back, and lets them go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
import servers
from load import Load

from redset import ScheduledSet, SortedSet
from redset._operations import reporting

Maker = Callable[..., Any]


def test_a_paused_set_leases_nothing_and_takes_everything_else(make_set: Maker) -> None:
    jobs = make_set(max_attempts=1)
    jobs.add_many(["a", "b", "c"])
    first, second = jobs.lease(2)
    assert jobs.paused is None
    jobs.pause("the site is down")
    assert not jobs.lease(5)
    with pytest.raises(KeyError):
        jobs.pop()
    assert jobs.take(5) == []
    jobs.add("d")
    assert first.ack() == 1 and second.release() == 1
    assert jobs.size() == 3 and jobs.peek() == "b"
    assert jobs.paused.why == "the site is down" and str(jobs.paused.at).isprintable()
    assert jobs.resume() is True and jobs.resume() is False
    assert jobs.paused is None
    assert [lease.item for lease in jobs.lease(1)] == ["b"] and jobs.take(5) == ["c", "d"]


def test_a_repeated_lease_call_of_a_paused_set_gets_its_leases(make_set: Maker) -> None:
    jobs = make_set()
    jobs.add_many(["a", "b"])
    (lease,) = jobs.lease(1)
    jobs.pause()
    assert lease.renew(60) == 1
    assert lease.ack() == 1
    assert not jobs.finished()


@pytest.mark.parametrize("cls", [SortedSet, ScheduledSet])
def test_waiters_sleep_through_a_pause_and_wake_up_at_its_end(
    any_server: servers.Server, load: Load, cls: type[SortedSet[str]]
) -> None:
    jobs = cls(any_server.client(), "jobs")
    woken: list[float] = []
    jobs.pause()

    def work() -> None:
        with cls(any_server.client(), "jobs").lease(1, wait=30) as batch:
            for _ in batch:
                woken.append(time.monotonic())

    worker = threading.Thread(target=work)
    worker.start()
    jobs.add("a", 1)
    time.sleep(0.3)
    before = any_server.raw.info("stats")["total_commands_processed"]
    time.sleep(0.5)
    after = any_server.raw.info("stats")["total_commands_processed"]
    assert woken == [] and after - before < 60
    resumed = time.monotonic()
    jobs.resume()
    worker.join(30)
    # Without word from the server, waiters look once a second.
    late = 0.3 if any_server.tracks else 1.0
    assert len(woken) == 1 and woken[0] - resumed < load.seconds(late)


def test_a_worker_stops_at_a_pause_and_goes_on_after_it(any_server: servers.Server) -> None:
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs")
    jobs.add_many(map(str, range(20)))
    done: list[str] = []

    def handle(item: str) -> None:
        done.append(item)
        if len(done) == 5:
            pausing.set()
            paused.wait(10)

    pausing, paused = threading.Event(), threading.Event()
    worker = threading.Thread(
        target=lambda: jobs.consume(handle, batch=1, until_finished=True), daemon=True
    )
    worker.start()
    assert pausing.wait(20)
    jobs.pause()
    paused.set()
    # It finishes what it has leased.
    until = time.monotonic() + 20
    while jobs.stats().leased and time.monotonic() < until:
        time.sleep(0.01)
    handled = len(done)
    time.sleep(0.3)
    assert len(done) == handled < 20
    jobs.resume()
    worker.join(30)
    assert len(done) == 20


def test_a_pause_is_that_of_its_own_set(server_client: redis.Redis) -> None:
    # The object has done nothing, as the command line's.
    SortedSet(server_client, "jobs").pause()
    braces: SortedSet[str] = SortedSet(server_client, "a}b")
    with pytest.raises(KeyError, match="is empty"):
        braces.pop()
    assert SortedSet(server_client, "others").take(1) == []


def test_pops_of_another_process_stop_with_its_next_report(
    any_server: servers.Server, server_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "EVERY", 0.05)
    jobs: SortedSet[str] = SortedSet(server_client, "jobs")
    jobs.add_many(map(str, range(10_000)))
    any_server.raw.set("jobs:{jobs}:paused", "by hand")
    with pytest.raises(KeyError, match="'jobs' is paused"):
        while True:
            jobs.pop()
    assert jobs.size() > 0 and jobs.take(10) == []
    assert jobs.paused is not None and jobs.paused.why == ""
    any_server.raw.delete("jobs:{jobs}:paused")
    assert jobs.pop()


def test_after_a_pause_no_lease_is_handed_out(any_server: servers.Server) -> None:
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs")
    jobs.add_many(map(str, range(20_000)))
    stop, leased = threading.Event(), [0, 0]

    def work(at: int) -> None:
        mine: SortedSet[str] = SortedSet(any_server.client(), "jobs")
        while not stop.is_set():
            leased[at] += mine.lease(5).ack()

    workers = [threading.Thread(target=work, args=(at,)) for at in range(2)]
    for worker in workers:
        worker.start()
    while min(leased) < 50:
        time.sleep(0.001)
    jobs.pause()
    left = jobs.size()
    time.sleep(0.2)
    assert jobs.size() == left > 0
    stop.set()
    for worker in workers:
        worker.join(10)


@pytest.mark.parametrize(("why", "error"), [(5, TypeError), ("x" * 1001, ValueError)])
def test_a_reason_is_a_short_text(why: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^why must be"):
        SortedSet(redis.Redis(port=1), "jobs").pause(why)


def test_clear_keeps_a_pause(make_set: Maker, raw: Any) -> None:
    jobs = make_set()
    jobs.add("a")
    jobs.pause()
    jobs.clear()
    jobs.add("a")
    assert not jobs.lease(1) and jobs.paused


def test_a_set_without_second_keys_is_never_paused_and_lists_no_workers(make_set: Maker) -> None:
    jobs = make_set(name="{}jobs")
    jobs.add("a")
    assert jobs.paused is None and jobs.resume() is False and jobs.workers() == []


def test_a_line_of_another_program_is_no_worker(make_set: Maker, raw: Any) -> None:
    jobs = make_set()
    raw.hset("jobs:{jobs}:workers", mapping={"abcdef": "text", "ghijkl": '{"seen": "x"}'})
    assert [each.id for each in jobs.workers()] == ["ghijkl"]
