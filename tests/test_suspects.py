"""An item that kills its worker dies alone, and unreceived items count no attempt."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest
import redis
import servers
from options import made
from selection import share

from redset import ScheduledSet, SortedSet
from redset._faces.worker import _Job
from redset._operations import exchanging, leasing, settling
from redset._operations.exchanging import Exchange
from redset._operations.settling import Settlement
from redset._transport.effects import only

P = "jobs:{jobs}"
OPTIONS: list[dict[str, Any]] = [{}, {"key": "url"}, {"remember": True, "ties": "fifo"}]


def expire(raw: redis.Redis) -> None:
    """End the time of all leases."""
    for member in raw.zrange(f"{P}:leased", 0, -1):
        raw.zadd(f"{P}:leased", {member: 1})


def names(leases: Any) -> list[str]:
    return [lease.item["url"] if isinstance(lease.item, dict) else lease.item for lease in leases]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("size", [2, 3, 10, 64])
def test_an_item_that_kills_its_worker_dies_alone(
    any_server: servers.Server, options: dict[str, Any], size: int
) -> None:
    raw = any_server.raw
    jobs: SortedSet[Any] = SortedSet(raw, "jobs", max_attempts=2, **options)
    jobs.add_many([made(options, f"item {number:02}") for number in range(50)], range(50))
    killer, kills, done = "item 07", 0, []
    while not jobs.finished():
        batch = jobs.lease(size)
        if killer in names(batch):
            kills += 1
            # As often as a cohort can be halved, and twice alone.
            assert kills <= size.bit_length() + 2
            expire(raw)
        else:
            done += names(batch)
            batch.ack()
    assert sorted(done) == sorted(f"item {number:02}" for number in range(50) if number != 7)
    (letter,) = jobs.dead
    assert killer in letter.raw.decode() and letter.attempts == 2
    assert letter.reason == "the lease expired"


@pytest.mark.drawn
def test_workers_that_die_at_once_leave_no_innocent_dead(any_server: servers.Server) -> None:
    """Eight workers with items in hand. Some of them kill."""
    raw = any_server.raw
    for seed in range(share(25)):
        pick = random.Random(seed)
        any_server.flush()
        jobs: SortedSet[str] = SortedSet(raw, "jobs", max_attempts=3)
        every = [f"item {number:03}" for number in range(120)]
        jobs.add_many(every, [pick.randrange(5) for _ in every])
        killers = set(pick.sample(every, pick.randrange(1, 11)))
        hands: list[list[Any]] = [[] for _ in range(8)]
        bounds: list[list[int]] = [[] for _ in range(8)]
        done: set[str] = set()
        for _ in range(5000):
            worker = pick.randrange(8)
            hand, bound = hands[worker], bounds[worker]
            if not hand:
                bound.clear()
            room = min([16, *bound]) - len(hand)
            if room > 0 and pick.random() < 0.6:
                what = Exchange([], [], pick.randrange(1, room + 1), 60_000, False, len(hand))
                jobs._run(exchanging.exchange(jobs._ctx, what))
                hand += what.held
                bound += [each.bound for each in what.held if each.bound]
            elif hand:
                job = hand.pop(pick.randrange(len(hand)))
                if job.item in killers:
                    for each in [job, *hand]:
                        raw.zadd(f"{P}:leased", {each.member: 1})
                    hand.clear()
                else:
                    jobs._run(settling.one(jobs._ctx, Settlement("ack", [_Job(job, 0.0)])))
                    done.add(job.item)
            elif jobs.finished():
                break
        assert jobs.finished()
        assert {letter.raw.decode() for letter in jobs.dead} == killers
        assert done == set(every) - killers


def test_a_suspect_waits_until_its_worker_has_less_in_hand(any_server: servers.Server) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs")
    jobs.add_many(list("abcdef"), range(6))

    def lease(num: int, hand: int, passes: bool = False) -> Exchange:
        what = Exchange([], [], num, 60_000, False, hand, passes)
        jobs._run(exchanging.exchange(jobs._ctx, what))
        return what

    assert names(lease(4, 0).held) == list("abcd")
    expire(raw)
    jobs.finished()
    found = lease(2, 2)  # a, b, c and d may be in a cohort of 2
    assert found.held == [] and found.stopped
    found = lease(2, 2, passes=True)
    assert names(found.held) == ["e", "f"] and not found.stopped
    found = lease(2, 1)
    assert names(found.held) == ["a"] and found.stopped and found.held[0].bound == 2
    assert names(lease(5, 0).held) == ["b", "c"]


def test_an_outage_is_over_after_a_few_cohorts(any_server: servers.Server) -> None:
    """No item was at fault: 100 items that expired together are done in two calls of 50."""
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs", max_attempts=2)
    jobs.add_many([f"item {number:03}" for number in range(100)])
    jobs.lease(100)
    expire(raw)
    for _ in range(2):
        jobs.lease(100).ack()
    assert jobs.finished() and jobs.dead.size() == 0


def test_a_failure_ends_the_suspicion_and_a_release_does_not(any_server: servers.Server) -> None:
    raw = any_server.raw
    for how, together in (("fail", 3), ("release", 2), ("delayed", 2), ("moved", 3)):
        any_server.flush()
        jobs: SortedSet[str] = SortedSet(raw, "jobs")
        jobs.add_many(list("abcd"), 1)
        jobs.lease(4)
        expire(raw)
        jobs.finished()
        for lease in [*jobs.lease(2), *jobs.lease(2)]:
            if how == "fail":
                lease.fail("no")
            elif how == "moved":
                lease.release(score=1)
            else:
                lease.release(delay=100 if how == "delayed" else 0)
        expire(raw)
        jobs.finished()
        assert len(jobs.lease(3)) == together, how


def test_max_attempts_of_1_hands_an_item_out_once(any_server: servers.Server) -> None:
    jobs: SortedSet[str] = SortedSet(any_server.raw, "jobs", max_attempts=1)
    jobs.add_many(list("abc"))
    jobs.lease(3)
    expire(any_server.raw)
    assert jobs.finished() and jobs.dead.size() == 3


def test_items_whose_lease_call_got_no_reply_count_no_attempt(
    any_server: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long its answers are lost for."""
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs", max_attempts=1)
    jobs.add_many(list("abc"), range(3))
    call = leasing.lease_call

    def unanswered(*args: Any) -> Any:
        ask = call(*args)

        def lost(reply: Any) -> Any:
            raise redis.ConnectionError("the answer is lost")

        ask.reads = lost
        return ask

    for ended in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(leasing, "lease_call", unanswered)
            with pytest.raises(redis.ConnectionError):
                jobs.lease(3)
        assert jobs.stats().leased == 3
        if ended:
            expire(raw)
            raw.zadd(f"{P}:calls", {raw.zrange(f"{P}:calls", 0, -1)[0]: 1})
        batch = jobs.lease(3)
        assert [(lease.item, lease.attempts) for lease in batch] == [("a", 0), ("b", 0), ("c", 0)]
        batch.release()
    assert jobs.dead.size() == 0


def test_a_holder_whose_row_was_evicted_can_settle_and_is_waited_for(
    any_server: servers.Server,
) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs", max_attempts=1)
    jobs.add("a")
    batch = jobs.lease()
    raw.delete(f"{P}:leased")
    assert not jobs.lease() and not jobs.finished()
    assert batch.ack() == 1
    assert jobs.finished() and jobs.dead.size() == 0


@pytest.mark.parametrize("remember", [True, 3600])
@pytest.mark.parametrize("flags", [{}, {"nx": True}, {"xx": True}], ids=str)
def test_a_refused_add_leaves_the_only_trace_of_an_item(
    any_server: servers.Server, remember: Any, flags: dict[str, bool]
) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs", remember=remember, known_max=0)
    jobs.add("a")
    jobs.lease()
    raw.delete(f"{P}:leased")
    assert jobs.add("a", **flags) is None
    assert jobs.add_many(["a"], **flags).refused == 1
    assert not jobs.finished()
    expire(raw)
    assert names(jobs.lease()) == ["a"]


def test_leases_that_are_given_again_last_from_then_on(any_server: servers.Server) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs")
    jobs.add("a")
    token = leasing.new_token()
    first = jobs._run(only(leasing.lease_call(jobs._ctx, token, 1, 1_000)))
    again = jobs._run(only(leasing.lease_call(jobs._ctx, token, 1, 60_000)))
    assert again.rows == first.rows and again.expires > first.expires + 50
    assert raw.zscore(f"{P}:leased", "a") == pytest.approx(1000 * again.expires, abs=1)


def test_a_late_request_takes_nothing_from_the_call_that_repeated_it(
    any_server: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: SortedSet[str] = SortedSet(any_server.raw, "jobs")
    jobs.add_many(list("abc"), range(3))
    call, made = leasing.lease_call, []

    def late(*args: Any) -> Any:
        made.append(call(*args))
        raise redis.TimeoutError("no answer in time")

    with monkeypatch.context() as patch:
        patch.setattr(leasing, "lease_call", late)
        with pytest.raises(redis.TimeoutError):
            jobs.lease(1)
    batch = jobs.lease(3)
    jobs._run(only(made[0]))
    assert batch.ack() == 3


def test_a_letter_that_may_not_be_written_keeps_nothing_else_back(
    any_server: servers.Server,
) -> None:
    admin = any_server.client()
    admin.execute_command("ACL", "SETUSER", "some", "on", ">word", "~*", "&*", "+@all", "-xadd")
    user = any_server.client(username="some", password="word")
    jobs: SortedSet[str] = SortedSet(user, "jobs", max_attempts=1)
    jobs.add_many(["dying", "delayed"], [1, 2])
    _, delayed = jobs.lease(2)
    delayed.release(delay=100)
    expire(admin)
    given = []
    for _ in range(4):
        with contextlib.suppress(redis.exceptions.NoPermissionError):
            given += jobs.take(5)
    assert given == [] or given == ["delayed"]
    admin.execute_command("ACL", "SETUSER", "some", "+@all")
    given += jobs.take(5)
    assert given == ["delayed"]
    assert [letter.raw for letter in jobs.dead] == [b"dying"]
    user.close()
    admin.close()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_items_of_an_evicted_lease_key_are_handed_out(
    any_server: servers.Server, options: dict[str, Any]
) -> None:
    raw = any_server.raw
    jobs: SortedSet[Any] = SortedSet(raw, "jobs", **options)
    jobs.add_many([made(options, name) for name in "abc"], range(3))
    jobs.lease(3)
    raw.delete(f"{P}:leased")
    # An item that is added again is queued at once; the rest returns when nothing else is left.
    again = {"again": True} if "remember" in options else {}
    assert jobs.add(made(options, "b"), 1, **again) == 1
    assert not jobs.finished()
    assert names(jobs.lease(3)) == ["b"]
    raw.zrem(f"{P}:leased", *raw.zrange(f"{P}:leased", 0, -1))
    assert not jobs.finished()
    found: list[str] = []
    while not jobs.finished():
        # Its holder, if it is at work, has a minute.
        expire(raw)
        batch = jobs.lease(3)
        found += names(batch)
        batch.ack()
    assert sorted(found) == ["a", "b", "c"]
    assert raw.hlen(f"{P}:leases") == 0


def test_many_leases_of_an_evicted_key_come_back_while_other_items_wait(
    any_server: servers.Server,
) -> None:
    """Also if another worker has leased since, and a scheduled item is far off. 0.3 s."""
    raw = any_server.raw
    jobs: ScheduledSet[str] = ScheduledSet(raw, "jobs")
    jobs.add_many(map(str, range(1_500)), 1)
    jobs.lease(1_500)
    raw.delete(f"{P}:leased")
    jobs.add_many(["later"], 4e9)
    jobs.add("other", 1)
    assert names(jobs.lease()) == ["other"]
    # Each call looks at some of them at random: 200 calls miss one in 400 times, 1,000 never.
    for _ in range(1_000):
        if raw.zcard(f"{P}:leased") == 1_501:
            break
        assert not jobs.finished()
    expire(raw)
    found: list[str] = []
    while batch := jobs.lease(2_000):  # suspects, in parts
        found += names(batch)
        batch.ack()
    assert sorted(found) == sorted([*map(str, range(1_500)), "other"])


def test_a_plain_add_of_what_an_evicted_key_held_back_is_handed_out(
    any_server: servers.Server,
) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs")
    for add in (
        jobs.add,
        lambda item: jobs.add(item, nx=True),
        lambda item: list(jobs.add_new([item])),
    ):
        jobs.clear()
        jobs.add("a")
        jobs.lease()
        raw.delete(f"{P}:leased")
        add("a")
        assert names(jobs.lease()) == ["a"]


def test_a_requeue_of_what_an_evicted_key_held_back_is_queued(any_server: servers.Server) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs", max_attempts=1)
    jobs.add("a")
    (lease,) = jobs.lease()
    lease.fail("no")
    jobs.add("a")
    jobs.lease()
    letters = [letter.id for letter in jobs.dead]
    assert jobs.dead.requeue(letters) == 0
    raw.delete(f"{P}:leased")
    assert jobs.dead.requeue(letters) == 1
