"""What groups promise: a limit, an interval, turns, order, and that nothing is stranded.

Costs 10 to 50 ms a case. A test that needs a rest to end sets its end, or rests for milliseconds.
"""

from __future__ import annotations

import datetime
import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import grouped
import pytest
import servers
from grouped import P, drain, group_of, leased, names, number_of
from load import Load

from redset import Key, Retry, ScheduledSet, SortedSet
from redset.exceptions import OptionsDiffer

Maker = Callable[..., Any]


@pytest.fixture
def make(make_set: Maker) -> Maker:
    """Makes grouped sets of items like "a/1", whose scores are the numbers in them."""
    own = {"group": group_of, "scorer": number_of}
    return lambda *args, **options: make_set(*args, **{**own, **options})


def groups(jobs: Any) -> dict[str, Any]:
    return {each.name: each for each in jobs.groups()}


def clock(raw: Any) -> int:
    """Return the server's time in microseconds."""
    seconds, micros = raw.time()
    return int(seconds) * 1_000_000 + int(micros)


# --- 1. the limit


@pytest.mark.parametrize(("limit", "each"), [(1, 1), (2, 2), (None, 5)])
def test_a_group_has_at_most_its_limit_in_work(
    make: Maker, raw: Any, limit: int | None, each: int
) -> None:
    jobs, other = make(group_limit=limit), make(group_limit=limit)
    jobs.add_many(names("a", 5) + names("b", 5))
    batch = list(jobs.lease(10))
    assert Counter(lease.group for lease in batch) == {"a": each, "b": each}
    assert leased(other, 10) == []
    if limit:
        batch[0].ack()
        assert [group_of(item) for item in leased(other, 10)] == [batch[0].group]
    assert grouped.inconsistencies(raw, limit) == []


@pytest.mark.parametrize("how", ["ack", "fail", "release"])
def test_a_settlement_frees_the_slot(make: Maker, raw: Any, how: str) -> None:
    jobs = make(group_limit=2)
    jobs.add_many(names("a", 6))
    for _ in range(3):
        batch = list(jobs.lease(10))
        assert len(batch) == 2 and leased(jobs) == []
        jobs.fail(batch, "no") if how == "fail" else getattr(jobs, how)(batch)
        assert grouped.inconsistencies(raw, 2) == []
    assert jobs.stats().leased == 0


@pytest.mark.parametrize("how", ["fail", "release"])
def test_a_delayed_item_holds_no_slot_and_needs_one_again(make: Maker, raw: Any, how: str) -> None:
    jobs = make()
    jobs.add_many(names("a", 2), [1, 2])
    [lease] = jobs.lease()
    jobs.fail([lease], "no", 1000) if how == "fail" else jobs.release([lease], 1000)
    [second] = jobs.lease()
    assert second.item == "a/1"
    for member in raw.zrange(f"{P}:leased", 0, -1):
        if grouped.holder(raw.hget(f"{P}:leases", member)) is None:
            raw.zadd(f"{P}:leased", {member: 1})
    assert leased(jobs, 5) == []  # it is back, and its group at the limit
    second.ack()
    assert leased(jobs, 5) == ["a/0"]


def test_an_expired_lease_frees_its_slot_in_the_step_that_returns_it(make: Maker, raw: Any) -> None:
    jobs = make(group_limit=2, max_attempts=None)
    jobs.add_many(names("a", 3))
    for _ in range(4):
        leased(jobs), leased(jobs)
        assert leased(jobs) == []
        grouped.expire(raw)
        assert jobs.stats().leased == 0
        assert grouped.inconsistencies(raw, 2) == []
    assert sorted(drain(jobs)) == names("a", 3)


def test_a_discarded_lease_frees_its_slot_in_the_same_step(make: Maker, raw: Any) -> None:
    jobs = make()
    jobs.add_many(names("a", 3), range(3))
    assert leased(jobs, 5) == ["a/0"]
    assert jobs.discard("a/0")
    assert grouped.inconsistencies(raw) == []
    assert leased(jobs, 5) == ["a/1"]
    assert jobs.discard_many(["a/1", "a/2"]) == 2
    assert jobs.finished() and grouped.inconsistencies(raw) == []


def test_pop_and_take_need_a_free_slot_and_hold_none(make: Maker) -> None:
    jobs = make()
    jobs.add_many(names("a", 3))
    [lease] = jobs.lease()
    jobs.add("a/3")
    with pytest.raises(KeyError):
        jobs.pop()
    assert jobs.take(5) == []
    lease.ack()
    assert [jobs.pop(), *jobs.take(1), jobs.pop()] == ["a/1", "a/2", "a/3"]
    assert jobs.finished()


def test_a_lease_that_is_sent_again_takes_no_second_slot(make: Maker, raw: Any) -> None:
    jobs = make(group_limit=2)
    jobs.add_many(names("a", 3))
    [lease] = jobs.lease()
    assert lease.renew(60) == 1
    assert len(leased(jobs, 5)) == 1
    assert grouped.inconsistencies(raw, 2) == []


def test_own_values_win_and_are_removed_without_arguments(make: Maker) -> None:
    jobs = make(group_interval=100)
    jobs.add_many(names("a", 5) + names("b", 5))
    jobs.set_group("a", limit=3, interval=0)
    batch = list(jobs.lease(10))
    assert Counter(lease.group for lease in batch) == {"a": 3, "b": 1}
    jobs.ack(batch)
    assert (groups(jobs)["a"].limit, groups(jobs)["a"].interval) == (3, 0)
    jobs.set_group("a")
    assert (groups(jobs)["a"].limit, groups(jobs)["a"].interval) == (1, 100)
    assert leased(jobs, 10) == ["a/3"] and leased(jobs, 10) == []


def test_a_changed_limit_rolls_out_process_by_process(make: Maker, raw: Any) -> None:
    """1 to 3 to 1: never above the larger one, and nothing is stranded."""
    narrow, wide = make(group_limit=1), make(group_limit=3)
    narrow.add_many([item for group in "abc" for item in names(group, 12)])
    order = [(narrow, 1), (wide, 3), (narrow, 3), (wide, 3), (narrow, 3)]
    found: list[str] = []
    held: list[Any] = []
    for jobs, most in order * 3:
        held += jobs.lease(20)
        counts = Counter(lease.group for lease in held)
        assert max(counts.values(), default=0) <= most, (counts, most)
        done, held = held[: len(held) // 2 + 1], held[len(held) // 2 + 1 :]
        found += [lease.item for lease in done]
        assert jobs.ack(done) == len(done)
    narrow.ack(held)
    found += [lease.item for lease in held] + drain(narrow)
    assert sorted(found) == sorted(item for group in "abc" for item in names(group, 12))
    # Only processes with the smaller limit are left.
    narrow.add_many(names("a", 4))
    assert grouped.inconsistencies(raw, 3) == []


# --- 2. the interval


def test_two_hand_outs_of_a_group_are_an_interval_apart(make: Maker, raw: Any) -> None:
    """Also by several objects, and of each kind. 0.2 s."""
    sets = [make(group_interval=0.004, group_limit=None) for _ in "12"]
    sets[0].add_many(names("a", 30))
    calls: list[Callable[[Any], Any]] = [
        lambda jobs: leased(jobs, 3),
        lambda jobs: jobs.take(3),
        lambda jobs: leased(jobs),
    ]
    before = None
    for jobs, call, _ in zip(
        itertools.cycle(sets), itertools.cycle(calls), range(24), strict=False
    ):
        found: list[str] = []
        while not found:
            first = clock(raw)
            found = call(jobs)
        assert len(found) == 1
        now = clock(raw)
        if before is not None:
            assert now - before >= 4000
        before = first
        # The end of its rest is a whole millisecond: rounded up, from a start after `first`.
        assert raw.zscore(f"{P}:resting", "a") * 1000 >= first + 4000


def test_an_interval_goes_on_after_a_crash_and_after_a_settlement(make: Maker, raw: Any) -> None:
    jobs = make(group_interval=datetime.timedelta(seconds=100))
    jobs.add_many(names("a", 3))
    leased(jobs)
    grouped.expire(raw)
    assert leased(jobs, 5) == [] and jobs.stats().leased == 0
    grouped.wake(raw)
    [lease] = jobs.lease()
    lease.ack()
    assert leased(jobs, 5) == [] and jobs.take(5) == []
    with pytest.raises(KeyError):
        jobs.pop()
    grouped.wake(raw)
    assert jobs.pop() in names("a", 3)
    assert jobs.take(5) == []
    assert grouped.inconsistencies(raw) == []


def test_clear_forgets_rests_pauses_and_own_values(make: Maker) -> None:
    jobs = make(group_interval=100)
    jobs.add_many(names("a", 3) + names("b", 1))
    leased(jobs)
    jobs.set_group("a", limit=7)
    jobs.pause_group("b", 100)
    jobs.clear()
    assert groups(jobs) == {}
    jobs.add_many(names("a", 3) + names("b", 1), range(4))
    assert leased(jobs, 10) == ["a/0", "b/0"]
    assert groups(jobs)["a"].limit == 1


def test_a_pause_holds_a_group_back_until_it_ends(make: Maker, raw: Any) -> None:
    jobs = make()
    jobs.add_many(names("a", 2) + names("b", 2))
    jobs.pause_group("a", math.inf)
    assert leased(jobs, 5) == ["b/0"]
    assert groups(jobs)["a"].rests_until == math.inf
    jobs.pause_group("a", 0)
    assert leased(jobs, 5) == ["a/0"]
    jobs.pause_group("c", datetime.timedelta(seconds=50))  # before it has items
    jobs.add("c/0")
    assert leased(jobs, 5) == []
    grouped.wake(raw)
    assert leased(jobs, 5) == ["c/0"]


def test_the_end_of_a_pause_does_not_cut_an_interval(make: Maker) -> None:
    jobs = make(group_interval=100)
    jobs.add_many(names("a", 3))
    [lease] = jobs.lease()
    lease.ack()
    jobs.pause_group("a", 1000)
    jobs.pause_group("a", 0)
    assert leased(jobs) == []


@pytest.mark.parametrize("how", ["raise", "fail", "release"])
def test_a_retry_of_the_group_rests_the_group_as_long(make: Maker, raw: Any, how: str) -> None:
    jobs = make(group_limit=None)
    jobs.add_many(names("a", 3))
    before = time.time()
    if how == "raise":
        with pytest.raises(Retry), jobs.lease() as batch:
            for _ in batch:
                raise Retry(500, group=True)
    else:
        [lease] = jobs.lease()
        if how == "fail":
            jobs.fail([lease], "429", 500, group=True)
        else:
            jobs.release([lease], 500, group=True)
    assert before + 499 < groups(jobs)["a"].rests_until < time.time() + 501
    assert leased(jobs) == []
    grouped.wake(raw)
    assert leased(jobs) == ["a/1"]


def test_a_retry_never_shortens_a_rest(make: Maker) -> None:
    jobs = make(group_limit=None)
    jobs.add_many(names("a", 3))
    batch = list(jobs.lease(2))
    jobs.pause_group("a", 1000)
    jobs.release(batch[:1], 10, group=True)
    jobs.fail(batch[1:], "429", 10, group=True)
    assert groups(jobs)["a"].rests_until > time.time() + 900
    assert leased(jobs) == []


# --- 3. turns


@pytest.mark.parametrize("limit", [1, 3, None])
def test_groups_take_turns_whatever_they_hold(make: Maker, limit: int | None) -> None:
    jobs = make(group_limit=limit)
    jobs.add_many(names("huge", 200))
    for group in "abc":
        jobs.add_many(names(group, 3))
    order = []
    for _ in range(12):
        [lease] = jobs.lease()
        order.append(lease.group)
        lease.ack()
    assert order == ["huge", "a", "b", "c"] * 3


def test_a_call_for_more_than_the_ready_groups_gives_equal_shares(make: Maker) -> None:
    jobs = make(group_limit=None)
    for group, num in (("a", 50), ("b", 3), ("c", 50)):
        jobs.add_many(names(group, num))
    counts = Counter(map(group_of, leased(jobs, 23)))
    assert counts == {"a": 10, "b": 3, "c": 10}


def test_a_group_that_becomes_free_joins_at_the_end(make: Maker) -> None:
    jobs = make()
    for group in "abc":
        jobs.add_many(names(group, 3))
    [first] = jobs.lease()
    assert first.group == "a"
    first.ack()  # after b and c
    jobs.add("d/0")
    assert [group_of(item) for item in leased(jobs, 4)] == ["b", "c", "a", "d"]


@pytest.mark.parametrize("num", [1, 2])
def test_a_group_whose_first_items_are_gone_keeps_its_turn(make: Maker, num: int) -> None:
    """Also after one that was emptied."""
    jobs = make(group_interval=100)
    for group in ("empty", "a", "b", "c"):
        jobs.add_many(names(group, 2))
    jobs.discard_many([*names("empty", 2), "a/0"])
    assert leased(jobs, num) == ["a/1", "b/0"][:num]


def test_a_blocked_group_keeps_no_other_waiting(make: Maker) -> None:
    jobs = make(group_limit=2)
    jobs.add_many(names("slow", 100), 0)
    jobs.add_many(names("a", 4), 9)
    jobs.pause_group("paused", 100)
    jobs.add_many(names("paused", 100), -9)
    assert len(leased(jobs, 2)) == 2
    found = leased(jobs, 10)
    assert sorted(set(map(group_of, found))) == ["a", "slow"]


# --- 4. order within a group


@pytest.mark.parametrize("ties", [None, "fifo", "lifo"])
def test_within_a_group_the_lowest_score_comes_first(make: Maker, ties: str | None) -> None:
    jobs = make(ties=ties)
    jobs.add_many(["a/5", "a/3", "b/9", "b/1", "a/4"], [5, 3, 90, 10, 4])
    jobs.add_many(["c/x", "c/y", "c/z"], [7, 7, 7])
    found = drain(jobs, 1)
    assert [item for item in found if item[0] == "a"] == ["a/3", "a/4", "a/5"]
    assert [item for item in found if item[0] == "b"] == ["b/1", "b/9"]
    tied = [item for item in found if item[0] == "c"]
    if ties:
        assert tied == ["c/x", "c/y", "c/z"][:: 1 if ties == "fifo" else -1]
    assert len(tied) == 3 and len(found) == 8


def test_a_moved_score_moves_an_item_within_its_group(make: Maker) -> None:
    jobs = make()
    jobs.add_many(names("a", 3), [1, 2, 3])
    jobs.add("a/2", 0)
    jobs.add("a/0", 9)
    assert drain(jobs, 1) == ["a/2", "a/1", "a/0"]


# --- 5. nothing is lost or stranded


def test_items_removed_elsewhere_keep_no_others_back(make: Maker, raw: Any) -> None:
    """The index keeps their entries until their turn comes."""
    jobs = make()
    every = names("a", 150) + names("b", 30)
    jobs.add_many(every, range(180))
    gone = names("a", 140) + names("b", 5)
    assert jobs.discard_many(gone) == 145
    assert jobs.between(140, 141).discard() == 2
    assert grouped.inconsistencies(raw) == []
    left = sorted(set(every) - set(gone) - {"a/140", "a/141"})
    assert sorted(drain(jobs)) == left
    assert jobs.finished() and not raw.exists(f"{P}:ready", f"{P}:working")


def test_an_accepted_add_moves_an_item_to_another_group(make_set: Maker, raw: Any) -> None:
    """A refused one does not."""
    options = {"key": "url", "group": "host", "duplicates": "lowest"}
    jobs = make_set(**options)
    jobs.add_many([{"url": "x", "host": "a"}, {"url": "y", "host": "a"}], [5, 6])
    assert jobs.add({"url": "x", "host": "b"}, 9) is None
    assert groups(jobs)["a"].queued == 2 and "b" not in groups(jobs)
    assert jobs.add({"url": "x", "host": "b"}, 3) == 3
    assert grouped.inconsistencies(raw) == []
    assert jobs.size() == 2
    batch = list(jobs.lease(5))
    assert sorted((lease.group, lease.item["url"]) for lease in batch) == [("a", "y"), ("b", "x")]


def test_functions_that_differ_cannot_double_an_item(make: Maker) -> None:
    jobs, other = make(), make(group=lambda item: "all")
    jobs.add_many(names("a", 3) + names("b", 3), range(6))
    other.add_many(names("a", 3), range(3))
    assert jobs.size() == 6
    found = drain(other, 3)
    assert sorted(found) == names("a", 3) + names("b", 3)


def test_an_item_added_again_while_leased_goes_to_its_new_group(make_set: Maker) -> None:
    jobs = make_set(key="url", group="host")
    jobs.add_many([{"url": "x", "host": "a"}, {"url": "y", "host": "a"}], [1, 2])
    [lease] = jobs.lease()
    assert jobs.add({"url": "x", "host": "b"}, 3) == 3
    assert [each.item["url"] for each in jobs.lease(5)] == []
    lease.ack()
    batch = list(jobs.lease(5))
    assert sorted((each.group, each.item["url"]) for each in batch) == [("a", "y"), ("b", "x")]
    jobs.ack(batch)
    assert jobs.finished()


LOST = ["ready", "working", "resting", "leased", "g", "ready resting working"]


@pytest.mark.parametrize("lost", LOST)
def test_lost_keys_strand_nothing(make: Maker, raw: Any, lost: str, load: Load) -> None:
    """0.3 s."""
    jobs = make(group_limit=2, max_attempts=None, group_interval=0.001)
    every = [item for group in "abcdef" for item in names(group, 5)]
    jobs.add_many(every)
    jobs.set_group("a", limit=1, interval=0)
    held = list(jobs.lease(4))
    time.sleep(0.002)
    held += jobs.lease(6)
    jobs.pause_group("f", 0.01)
    for name in lost.split():
        doomed = raw.keys(f"{P}:g:*") if name == "g" else [f"{P}:{name}"]
        if name == "g":
            doomed = doomed[:3]
        raw.delete(*doomed)
    done = [lease.item for lease in held if lease.item[-1] in "01"]
    jobs.ack([lease for lease in held if lease.item in done])
    grouped.expire(raw)
    found = set(done)
    end = time.monotonic() + load.seconds(5)
    while not (set(every) <= found and jobs.finished()):
        batch = list(jobs.lease(3))
        found |= {lease.item for lease in batch}
        jobs.ack(batch)
        grouped.expire(raw)
        assert time.monotonic() < end, sorted(set(every) - found)
        time.sleep(0.005)
    assert jobs.finished()


def test_a_clear_beside_others_leaves_nothing_behind(make: Maker, raw: Any) -> None:
    jobs, other = make(group_limit=2), make(group_limit=2)
    jobs.add_many(names("a", 5) + names("b", 5))
    held = list(other.lease(4))
    jobs.clear()
    assert other.ack(held) == 0
    other.add_many(names("a", 3), range(3))
    assert grouped.inconsistencies(raw, 2) == []
    assert [lease.item for lease in jobs.lease(5)] == ["a/0", "a/1"]
    assert other.size() == 1


# --- 6. no scan


def commands(raw: Any) -> int:
    """Return the number of commands that the server has performed, also within scripts."""
    return sum(each["calls"] for each in raw.info("commandstats").values())


@pytest.mark.parametrize("state", ["at their limit", "resting", "paused"])
def test_the_cost_of_a_lease_depends_on_no_blocked_group(
    any_server: servers.Server, state: str
) -> None:
    """Counted in commands, with 3 and with 300 groups. 0.2 s."""
    counted = []
    for num in (3, 300):
        raw = any_server.raw
        raw.flushall()
        interval = 1000 if state == "resting" else 0
        jobs: SortedSet[str] = SortedSet(raw, "jobs", group=group_of, group_interval=interval)
        jobs.add_many(f"{group}/{place}" for group in range(num) for place in "01")
        for group in range(num if state == "paused" else 0):
            jobs.pause_group(str(group), 1000)
        batch: Any = True
        while batch:
            batch = list(jobs.lease(100))
            if state == "resting":
                jobs.ack(batch)
        least = math.inf
        for _ in range(3):
            before = commands(raw)
            assert leased(jobs, 100) == []
            least = min(least, commands(raw) - before)
        jobs.add("free/0")
        before = commands(raw)
        assert leased(jobs, 100) == ["free/0"]
        counted.append((least, commands(raw) - before))
    (idle, one), (idle_of_many, one_of_many) = counted
    # The search for stranded groups looks at a bounded number of items.
    assert idle_of_many <= idle + 30 and one_of_many <= one + 30, counted


# --- with the other features


def test_reading_takes_no_notice_of_groups(make: Maker) -> None:
    jobs = make(group_interval=100)
    every = ["b/1", "a/1", "b/2", "a/2"]
    jobs.add_many(every, range(4))
    leased(jobs)  # b/1; b rests
    assert (jobs.size(), len(jobs)) == (3, 3)
    assert list(jobs) == every[1:] and list(jobs.between(1, 2)) == every[1:3]
    assert jobs.peek() == "a/1" and jobs.score("b/2") == 2 and "a/2" in jobs
    assert jobs.score(Key("b/2")) == 2
    # By score: it waits for no turn, and begins no interval.
    assert jobs.between(2, 3).take(5) == ["b/2", "a/2"]
    assert leased(jobs) == ["a/1"]


def test_an_item_of_a_scheduled_set_needs_its_time_a_slot_and_its_turn(
    make: Maker, raw: Any
) -> None:
    jobs = make(ScheduledSet, group_interval=100)
    now = time.time()
    jobs.add_many(["a/now", "a/late", "b/late"], [now - 5, now + 1000, now + 1000])
    [lease] = jobs.lease(5)
    assert lease.item == "a/now"
    lease.ack()
    jobs.add("a/late", now - 4)  # due, and its group rests
    assert leased(jobs, 5) == []
    grouped.wake(raw)
    assert leased(jobs, 5) == ["a/late"]
    jobs.add("b/late", now - 3)
    assert leased(jobs, 5) == ["b/late"]
    assert grouped.inconsistencies(raw) == []


def test_a_scheduled_group_starts_when_its_first_item_falls_due(make: Maker) -> None:
    """0.2 s."""
    jobs = make(ScheduledSet)
    now = time.time()
    jobs.add_many(["a/1", "b/1", "a/2"], [now + 0.1, now + 0.15, now + 1000])
    assert leased(jobs, 5) == []
    found = leased(jobs, wait=10) + leased(jobs, wait=10)
    assert found == ["a/1", "b/1"] and time.time() >= now + 0.15


def test_items_without_a_group_share_one_turn_and_are_never_limited(make: Maker) -> None:
    jobs = make(group=lambda item: None if item.startswith("-") else group_of(item))
    jobs.add_many([f"-{place}" for place in range(5)] + names("a", 3))
    batch = list(jobs.lease(10))
    assert Counter(lease.group for lease in batch) == {None: 5, "a": 1}
    jobs.ack(batch)
    jobs.add_many(["-8", "-9", "b/1"])
    assert sorted(map(str, leased(jobs, 3)))[:2] != ["-8", "-9"]


@pytest.mark.parametrize("bad", ["", "x" * 201, 1.5, b"", [1]])
def test_a_group_out_of_bounds_is_refused(make: Maker, bad: Any) -> None:
    jobs = make(group=lambda item: bad)
    with pytest.raises((ValueError, TypeError), match="group"):
        jobs.add("a")
    assert jobs.size() == 0


def test_groups_that_are_bytes_or_numbers_are_stored_as_text(make: Maker) -> None:
    kinds = {"t": "ü", "b": "ü".encode(), "i": 7, "l": "x" * 200}
    jobs = make(group=lambda item: kinds[item[0]], group_limit=2)
    jobs.add_many(["t1", "b1", "i1", "i2", "l1"])
    counts = Counter(lease.group for lease in jobs.lease(9))
    assert counts == {"ü": 2, "7": 2, "x" * 200: 1}


def test_options_that_cannot_be_are_refused(make_set: Maker) -> None:
    bad: list[dict[str, Any]] = [
        {"group_limit": 2},
        {"group_interval": 1},
        *({"group": "host", "group_limit": each} for each in (0, 1001, True, 1.5, "2")),
        *({"group": "host", "group_interval": each} for each in (-1, 31 * 86400, "1", math.nan)),
        {"group": 7},
    ]
    for options in bad:
        with pytest.raises((ValueError, TypeError)):
            make_set(**{"key": "url", **options})


def test_objects_with_and_without_groups_do_not_mix(make_set: Maker, make: Maker) -> None:
    jobs, plain, keyed = make(), make_set(), make_set(key="url")
    jobs.add_many(names("a", 2))
    with pytest.raises(OptionsDiffer):
        plain.lease()
    with pytest.raises(OptionsDiffer):
        keyed.add({"url": "b"})
    jobs.clear()
    plain.add("b")
    with pytest.raises(OptionsDiffer):
        jobs.lease()


def test_dead_letters_keep_their_group(make: Maker, raw: Any) -> None:
    jobs = make(max_attempts=1)
    jobs.add_many(names("a", 2) + names("b", 1))
    for _ in "12":
        jobs.fail(list(jobs.lease(5)), "no")
    assert jobs.dead.size() == 3 and jobs.finished()
    assert grouped.inconsistencies(raw) == []
    assert jobs.dead.requeue() == 3
    assert grouped.inconsistencies(raw) == []
    assert Counter(map(group_of, leased(jobs, 5))) == {"a": 1, "b": 1}


def test_export_and_restore_keep_groups_and_own_values(make: Maker, raw: Any) -> None:
    jobs = make()
    jobs.add_many(names("a", 3) + names("b", 1))
    jobs.set_group("a", limit=2)
    lines = list(jobs.export())
    jobs.clear()
    jobs.restore(lines)
    assert grouped.inconsistencies(raw) == []
    assert Counter(map(group_of, leased(jobs, 9))) == {"a": 2, "b": 1}


def test_items_that_move_keep_their_group(make: Maker, raw: Any) -> None:
    jobs, other = make(), make(name="{jobs}:other")
    other.add_many(names("a", 3) + names("b", 1))
    assert other.move_many(["a/0", "b/0"], jobs) == 2
    assert grouped.inconsistencies(raw) == []
    assert Counter(map(group_of, leased(jobs, 9))) == {"a": 1, "b": 1}
    assert Counter(map(group_of, leased(other, 9))) == {"a": 1}


def test_figures_count_groups(make: Maker) -> None:
    jobs = make(group_interval=100)
    for group, num in (("a", 3), ("b", 2), ("c", 1)):
        jobs.add_many(names(group, num))
    [lease] = jobs.lease()
    jobs.pause_group("c", 100)
    stats = jobs.stats()
    assert (stats.groups_ready, stats.groups_resting, stats.groups_working) == (1, 2, 1)
    found = groups(jobs)
    assert {name: (each.queued, each.leased, each.ready) for name, each in found.items()} == {
        "a": (2, 1, False),
        "b": (2, 0, True),
        "c": (1, 0, False),
    }
    assert lease.group == "a" and found["a"].rests_until > time.time() + 50


# --- waiting


class Waiter:
    """A call in a thread, with an object of its own, and the time at which it returned."""

    def __init__(self, server: servers.Server, call: Callable[[Any], Any], **options: Any) -> None:
        self._client = server.client()
        jobs = SortedSet(self._client, "jobs", group=group_of, **options)
        self.found: Any = None
        self.ended = 0.0

        def run() -> None:
            self.found = call(jobs)
            self.ended = time.monotonic()

        self._thread = threading.Thread(target=run)
        self._thread.start()
        time.sleep(0.15)

    def __enter__(self) -> Waiter:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(30)
        self._client.close()
        assert not self._thread.is_alive()


@pytest.mark.parametrize("event", ["ack", "discard", "pause ends", "rest ends", "add"])
def test_a_waiter_wakes_when_a_group_becomes_free(
    any_server: servers.Server, event: str, load: Load
) -> None:
    """Within 50 ms on an idle machine. 0.3 s."""
    jobs: SortedSet[str] = SortedSet(any_server.raw, "jobs", group=group_of)
    jobs.add_many(names("a", 2))
    [lease] = jobs.lease()
    if event == "pause ends":
        jobs.pause_group("a", math.inf)
        lease.ack()
    elif event == "rest ends":
        jobs.pause_group("a", 0.4)
        lease.ack()
    at = time.monotonic() + 0.4
    with Waiter(any_server, lambda s: leased(s, wait=20)) as waiter:
        assert not waiter.ended
        if event != "rest ends":
            at = time.monotonic()
        if event == "ack":
            lease.ack()
        elif event == "discard":
            jobs.discard(lease.item)
        elif event == "pause ends":
            jobs.pause_group("a", 0)
        elif event == "add":
            jobs.add("b/0")
    assert waiter.found == ["b/0" if event == "add" else "a/1"]
    assert waiter.ended - at < load.seconds(0.05) + 0.05


def test_a_blocked_groups_adds_wake_nobody(any_server: servers.Server) -> None:
    """0.5 s."""
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs", group=group_of)
    jobs.add_many(names("a", 2))
    [lease] = jobs.lease()
    with Waiter(any_server, lambda s: leased(s, wait=20)) as waiter:
        before = raw.info("commandstats")["cmdstat_evalsha"]["calls"]
        for place in range(20):
            jobs.add(f"a/more {place}")
        time.sleep(0.1)
        # Its own adds, and of the waiter at most a look or two.
        after = raw.info("commandstats")["cmdstat_evalsha"]["calls"]
        assert after - before <= 20 + 5, after - before
        lease.ack()
    assert len(waiter.found) == 1


# --- consuming


def test_consume_leases_nothing_ahead(any_server: servers.Server) -> None:
    """As many as handlers are free, since a slot and a start count from the hand-out. 0.3 s."""
    jobs: SortedSet[str] = SortedSet(any_server.raw, "jobs", group=group_of, group_limit=None)
    jobs.add_many(names("a", 10) + names("b", 10))
    most: list[int] = []
    watching = any_server.client()

    def handle(item: str) -> None:
        most.append(int(watching.zcard(f"{P}:leased")))

    jobs.consume(handle, concurrency=3, until_finished=True)
    assert len(most) == 20 and max(most) <= 3
    watching.close()


def test_consume_refuses_a_batch(make: Maker) -> None:
    with pytest.raises(ValueError, match="batch"):
        make().consume(print, batch=5)


# --- today's recipe of two sets, and what went wrong with it


def test_a_producer_that_dies_between_its_calls_strands_no_page(make_set: Maker) -> None:
    """The old recipe added the page and then its host: the page alone was never fetched."""
    options = {"key": "url", "group": "host", "remember": True}
    jobs, again = make_set(**options), make_set(**options)
    page = {"url": "http://h/1", "host": "h"}
    jobs.add(page)  # and dies
    again.add(page)
    again.add(page)
    assert [lease.item for lease in again.lease(5)] == [page]


def test_a_worker_that_dies_with_a_hosts_only_page_strands_nothing(
    make_set: Maker, raw: Any
) -> None:
    """The old recipe had acknowledged the host by the time its page came back."""
    jobs = make_set(key="url", group="host", remember=True)
    jobs.add({"url": "http://h/only", "host": "h"})
    leased(jobs)  # and dies
    assert not jobs.finished() and leased(jobs) == []
    grouped.expire(raw)
    assert not jobs.finished()
    [lease] = jobs.lease()
    lease.ack()
    assert jobs.finished()


def test_a_fetch_that_raises_blocks_its_host_for_no_longer(make_set: Maker) -> None:
    """The old recipe left page and host leased until their time was over."""
    jobs = make_set(key="url", group="host")
    jobs.add_many([{"url": "bad", "host": "h"}, {"url": "good", "host": "h"}], [1, 2])
    with pytest.raises(TimeoutError), jobs.lease(ttl=60) as batch:
        for _ in batch:
            raise TimeoutError("fetch failed")
    # The failed one waits to be tried again; its host does not.
    assert [lease.item["url"] for lease in jobs.lease(2)] == ["good"]


def test_hosts_keep_their_gaps_beside_each_other(make: Maker, raw: Any) -> None:
    """The old recipe slept in the worker: one host's gap was all hosts' gap. 0.2 s."""
    jobs = make(group_interval=0.02)
    jobs.add_many(f"{group}/{place}" for place in range(4) for group in "abcdefghij")
    starts: dict[str, list[int]] = {}
    began = time.monotonic()
    for _ in range(2000):
        before = clock(raw)
        batch = list(jobs.lease(10))
        after = clock(raw)
        for lease in batch:
            known = starts.setdefault(lease.group, [])
            assert not known or after - known[-1] >= 20_000
            known.append(before)
        jobs.ack(batch)
        if jobs.finished():
            break
    # Ten hosts of four pages take the time of one.
    assert sum(map(len, starts.values())) == 40
    assert time.monotonic() - began >= 0.06
