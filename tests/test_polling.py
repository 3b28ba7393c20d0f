"""The looks at a set that cannot be watched: how many, and by which waiter."""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
from typing import Any

import pytest

from redset._transport import polling
from redset._transport.alarms import Alarm, AsyncAlarm
from redset._transport.polling import PERIOD, PolledSet, polled_set


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which only the test moves."""
    now = [1000.0]
    monkeypatch.setattr(polling, "monotonic", lambda: now[0])
    return now


def poll(polled: PolledSet, clock: list[float], available: int = 0, rest: float = math.inf) -> None:
    """Look as soon as a look is due."""
    at = polled.turn(False)
    if at is not None:
        clock[0] = at
        assert polled.turn(False) is None
    polled.record(clock[0], available, rest)


def test_looks_are_20_a_second_at_first_and_one_a_second_in_the_end(clock: list[float]) -> None:
    polled = PolledSet()
    polled.join(Alarm())
    began, times = clock[0], []
    while clock[0] < began + 30:
        poll(polled, clock)
        times.append(clock[0] - began)
    assert 9 <= sum(time <= 0.5 for time in times) <= 11
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(gaps) >= PERIOD * 0.99
    assert gaps[-1] == pytest.approx(1.0)
    # So no wait is much more than a tenth longer than it must be.
    assert all(
        gap <= max(PERIOD, 0.1 * time) * 1.01 for gap, time in zip(gaps, times, strict=False)
    )


def test_an_item_that_comes_makes_looks_frequent_again(clock: list[float]) -> None:
    polled = PolledSet()
    polled.join(Alarm())
    for _ in range(100):
        poll(polled, clock)
    before = clock[0]
    poll(polled, clock, available=1)
    assert clock[0] - before == pytest.approx(1.0)
    before = clock[0]
    poll(polled, clock)
    assert clock[0] - before == pytest.approx(PERIOD, abs=PERIOD)


def test_a_look_comes_when_something_falls_due(clock: list[float]) -> None:
    polled = PolledSet()
    polled.join(Alarm())
    for _ in range(100):
        poll(polled, clock)
    poll(polled, clock, rest=0.3)
    assert polled.turn(False) == pytest.approx(clock[0] + 0.3)


def test_one_waiter_looks_at_a_time_and_another_if_that_one_hangs(clock: list[float]) -> None:
    polled = PolledSet()
    for _ in range(3):
        polled.join(Alarm())
    clock[0] += 1
    assert polled.turn(False) is None
    assert polled.turn(False) == pytest.approx(clock[0] + PERIOD)
    assert polled.turn(True) == pytest.approx(clock[0] + PERIOD)
    clock[0] += polling.PATIENCE + 0.1
    assert polled.turn(False) is None
    polled.note_failure()
    clock[0] += 2 * PERIOD
    assert polled.turn(False) is None


def test_a_waiter_that_ends_uses_a_recent_look_of_another(clock: list[float]) -> None:
    polled = PolledSet()
    polled.join(Alarm())
    clock[0] += 1
    assert polled.turn(True) is None
    polled.record(clock[0], 0, math.inf)
    assert polled.turn(True) == math.inf
    clock[0] += 2 * PERIOD
    assert polled.turn(True) is None


def test_as_many_wake_as_there_are_items_in_turn(clock: list[float]) -> None:
    polled = PolledSet()
    alarms = [Alarm() for _ in range(4)]
    for alarm in alarms:
        polled.join(alarm)
    poll(polled, clock, available=2)
    assert [alarm.hinted for alarm in alarms] == [True, True, False, False]
    for alarm in alarms:
        alarm.hinted = False
    poll(polled, clock, available=2)
    assert [alarm.hinted for alarm in alarms] == [False, False, True, True]


def test_a_waiter_passes_an_unused_wake_on(clock: list[float]) -> None:
    polled = PolledSet()
    first, second = Alarm(), Alarm()
    for alarm in (first, second):
        polled.join(alarm)
    poll(polled, clock, available=1)
    assert first.hinted and not second.hinted
    clock[0] += 2 * PERIOD
    polled.leave(first, True)
    assert polled.turn(False) is None


def test_calls_that_follow_each_other_go_on_as_rarely(clock: list[float]) -> None:
    class Pool:
        pass

    pool = Pool()
    polled = polled_set(pool, b"poll", False)
    alarm = Alarm()
    polled.join(alarm)
    for _ in range(100):
        poll(polled, clock)
    polled.leave(alarm, False)
    clock[0] += 1
    assert polled_set(pool, b"poll", False) is polled
    polled.join(alarm)
    assert polled_set(pool, b"other", False) is not polled
    poll(polled, clock)
    poll(polled, clock)
    assert polled.turn(False) == pytest.approx(clock[0] + 1)
    polled.leave(alarm, False)
    clock[0] += 60
    assert polled_set(pool, b"poll", False) is not polled
    assert len(polling._polled_sets[pool]) == 1
    del pool
    gc.collect()


def test_each_event_loop_and_each_odd_client_has_its_own() -> None:
    class Odd:
        __slots__ = ()
        __hash__: Any = None

    assert polled_set(Odd(), b"poll", False) is not polled_set(Odd(), b"poll", False)

    class Pool:
        pass

    pool = Pool()

    async def mine() -> PolledSet:
        found = polled_set(pool, b"poll", True)
        alarm = AsyncAlarm()
        found.join(alarm)
        assert polled_set(pool, b"poll", True) is found
        return found

    assert asyncio.run(mine()) is not asyncio.run(mine())
