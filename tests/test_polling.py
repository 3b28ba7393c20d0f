"""How often a set is looked at that nobody watches, and by whom."""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
from typing import Any

import pytest

from redset._transport import polling
from redset._transport.polling import PERIOD, AsyncSleeper, Rota, Sleeper, rota_of


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which only the test moves."""
    now = [1000.0]
    monkeypatch.setattr(polling, "monotonic", lambda: now[0])
    return now


def look(rota: Rota, clock: list[float], available: int = 0, rest: float = math.inf) -> None:
    """Look as soon as a look is due."""
    at = rota.turn(False)
    if at is not None:
        clock[0] = at
        assert rota.turn(False) is None
    rota.answered(clock[0], available, rest)


def test_looks_are_20_a_second_at_first_and_one_a_second_in_the_end(clock: list[float]) -> None:
    rota = Rota()
    rota.join(Sleeper())
    began, times = clock[0], []
    while clock[0] < began + 30:
        look(rota, clock)
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
    rota = Rota()
    rota.join(Sleeper())
    for _ in range(100):
        look(rota, clock)
    before = clock[0]
    look(rota, clock, available=1)
    assert clock[0] - before == pytest.approx(1.0)
    before = clock[0]
    look(rota, clock)
    assert clock[0] - before == pytest.approx(PERIOD, abs=PERIOD)


def test_a_look_comes_when_something_falls_due(clock: list[float]) -> None:
    rota = Rota()
    rota.join(Sleeper())
    for _ in range(100):
        look(rota, clock)
    look(rota, clock, rest=0.3)
    assert rota.turn(False) == pytest.approx(clock[0] + 0.3)


def test_one_waiter_looks_at_a_time_and_another_if_that_one_hangs(clock: list[float]) -> None:
    rota = Rota()
    for _ in range(3):
        rota.join(Sleeper())
    clock[0] += 1
    assert rota.turn(False) is None
    assert rota.turn(False) == pytest.approx(clock[0] + PERIOD)
    assert rota.turn(True) == pytest.approx(clock[0] + PERIOD)
    clock[0] += polling.PATIENCE + 0.1
    assert rota.turn(False) is None
    rota.failed()
    clock[0] += 2 * PERIOD
    assert rota.turn(False) is None


def test_a_waiter_that_ends_uses_a_recent_look_of_another(clock: list[float]) -> None:
    rota = Rota()
    rota.join(Sleeper())
    clock[0] += 1
    assert rota.turn(True) is None
    rota.answered(clock[0], 0, math.inf)
    assert rota.turn(True) == math.inf
    clock[0] += 2 * PERIOD
    assert rota.turn(True) is None


def test_as_many_wake_as_there_are_items_in_turn(clock: list[float]) -> None:
    rota = Rota()
    sleepers = [Sleeper() for _ in range(4)]
    for sleeper in sleepers:
        rota.join(sleeper)
    look(rota, clock, available=2)
    assert [sleeper.hinted for sleeper in sleepers] == [True, True, False, False]
    for sleeper in sleepers:
        sleeper.hinted = False
    look(rota, clock, available=2)
    assert [sleeper.hinted for sleeper in sleepers] == [False, False, True, True]


def test_a_waiter_passes_an_unused_wake_on(clock: list[float]) -> None:
    rota = Rota()
    first, second = Sleeper(), Sleeper()
    for sleeper in (first, second):
        rota.join(sleeper)
    look(rota, clock, available=1)
    assert first.hinted and not second.hinted
    clock[0] += 2 * PERIOD
    rota.leave(first, True)
    assert rota.turn(False) is None


def test_calls_that_follow_each_other_go_on_as_rarely(clock: list[float]) -> None:
    class Pool:
        pass

    pool = Pool()
    rota = rota_of(pool, b"look", False)
    sleeper = Sleeper()
    rota.join(sleeper)
    for _ in range(100):
        look(rota, clock)
    rota.leave(sleeper, False)
    clock[0] += 1
    assert rota_of(pool, b"look", False) is rota
    rota.join(sleeper)
    assert rota_of(pool, b"other", False) is not rota
    look(rota, clock)
    look(rota, clock)
    assert rota.turn(False) == pytest.approx(clock[0] + 1)
    rota.leave(sleeper, False)
    clock[0] += 60
    assert rota_of(pool, b"look", False) is not rota
    assert len(polling._rotas[pool]) == 1
    del pool
    gc.collect()


def test_each_event_loop_and_each_odd_client_has_its_own() -> None:
    class Odd:
        __slots__ = ()
        __hash__: Any = None

    assert rota_of(Odd(), b"look", False) is not rota_of(Odd(), b"look", False)

    class Pool:
        pass

    pool = Pool()

    async def mine() -> Rota:
        found = rota_of(pool, b"look", True)
        sleeper = AsyncSleeper()
        found.join(sleeper)
        assert rota_of(pool, b"look", True) is found
        return found

    assert asyncio.run(mine()) is not asyncio.run(mine())
