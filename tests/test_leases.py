"""Leases: at least once, settled by their holder only, in one step with the new items."""

from __future__ import annotations

import contextlib
import datetime
import functools
import logging
import pickle
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import children
import pytest
import redis
import servers
from held import Held
from options import every_option, made

from redset import Key, Reject, Retry, ScheduledSet, SortedSet, TimeSortedSet
from redset._faces import failures
from redset._operations import reporting, settling
from redset.exceptions import AddError, Full
from redset.serializers import JSONSerializer

Maker = Callable[..., Any]
P = "jobs:{jobs}"


def expire(raw: redis.Redis) -> None:
    """Let the time of all that is leased or waits be over."""
    for member in raw.zrange(f"{P}:leased", 0, -1):
        raw.zadd(f"{P}:leased", {member: 1})
    for token in raw.zrange(f"{P}:calls", 0, -1):
        raw.zadd(f"{P}:calls", {token: 1})


def rows(jobs: Any) -> list[tuple[Any, float, int]]:
    return [(item, score, attempts) for item, score, attempts, *_ in jobs.leased()]


# --- handing out and settling


@every_option
def test_a_lease_hands_out_the_lowest_and_an_ack_ends_it(
    make_set: Maker, raw: Any, options: dict[str, Any]
) -> None:
    jobs = make_set(**options)
    items = [made(options, str(number)) for number in range(5)]
    jobs.add_many(items, range(5))
    before = time.time()
    batch = jobs.lease(3, ttl=30)
    leases = list(batch)
    assert len(batch) == 3 and batch
    assert [(each.item, each.score, each.attempts) for each in leases] == [
        (item, float(score), 0) for score, item in enumerate(items[:3])
    ]
    assert all(before + 29 < each.expires < time.time() + 31 for each in leases)
    assert jobs.size() == 2 and jobs.stats().leased == 3 and not jobs.finished()
    assert sorted(row[1] for row in rows(jobs)) == [0.0, 1.0, 2.0]
    assert jobs.ack(leases[:2]) == 2
    assert leases[2].ack() == 1
    assert rows(jobs) == [] and len(jobs.take(5)) == 2
    assert jobs.finished() and not jobs.lease()
    left = {key for key in servers.keys(raw) if b":seen" not in key and not key.endswith(b":meta")}
    assert left == set()


@every_option
def test_an_expired_lease_returns_at_its_old_score_with_an_attempt(
    make_set: Maker, raw: Any, options: dict[str, Any]
) -> None:
    jobs = make_set(**options)
    item = made(options, "a")
    jobs.add(item, 7)
    for attempts in range(3):
        [lease] = jobs.lease()
        assert (lease.item, lease.score, lease.attempts) == (item, 7.0, attempts)
        expire(raw)
    assert not jobs.finished()
    assert jobs.score(item) == 7
    assert lease.ack() == 0  # it was given back
    [lease] = jobs.lease()
    assert lease.attempts == 3 and lease.ack() == 1


@pytest.mark.parametrize("call", ["pop", "take", "lease", "finished", "stats"])
def test_each_of_these_calls_gives_expired_leases_back(
    make_set: Maker, raw: Any, call: str
) -> None:
    jobs = make_set()
    jobs.add("a", 7)
    jobs.lease()
    expire(raw)
    results: dict[str, Any] = {
        "pop": lambda: jobs.pop() == "a",
        "take": lambda: jobs.take(5, with_scores=True) == [("a", 7.0)],
        "lease": lambda: [each.item for each in jobs.lease(5)] == ["a"],
        "finished": lambda: not jobs.finished() and jobs.size() == 1,
        "stats": lambda: jobs.stats()[:3] == (1, 1, 0),
    }
    assert results[call]()


def test_a_late_settlement_never_touches_what_another_holds(make_set: Maker, raw: Any) -> None:
    jobs, others = make_set(), make_set()
    jobs.add("a", 7)
    [late, *_] = jobs.lease()
    expire(raw)
    [held] = others.lease()
    assert jobs.renew(late, 1) == 0
    assert jobs.fail(late, "late") == 0
    [row] = jobs.leased()
    assert row[0] == "a" and row[3] == held.expires
    assert others.ack(held) == 1 and jobs.finished()


@every_option
def test_a_failed_lease_returns_after_its_delay_and_dies_at_last(
    make_set: Maker, raw: Any, options: dict[str, Any]
) -> None:
    jobs = make_set(**options, max_attempts=3)
    item = made(options, "a")
    jobs.add(item, 7)
    for attempt in (1, 2):
        [lease] = jobs.lease()
        assert jobs.fail(lease, ValueError(f"no {attempt}\nat all"), delay=60) == 1
        assert rows(jobs) == [(item, 7.0, attempt)]
        assert not jobs.lease() and not jobs.finished()
        expire(raw)
    [lease] = jobs.lease()
    assert lease.attempts == 2
    assert lease.fail("the last\nstraw") == 1
    assert jobs.finished()
    [letter] = jobs.dead
    assert (letter.score, letter.attempts, letter.reason) == (7.0, 3, "the last\nstraw")
    assert b"a" in letter.raw
    assert raw.keys(f"{P}:lease*") == [] and raw.keys(f"{P}:items") == []


def test_a_lease_that_expires_too_often_dies_with_the_last_error(make_set: Maker, raw: Any) -> None:
    jobs = make_set(max_attempts=2)
    jobs.add_many(["a", "b"])
    [first] = jobs.lease()
    first.fail("an error")
    for _ in range(3):
        jobs.lease()
        expire(raw)
        jobs.finished()
    assert sorted((letter.raw, letter.reason, letter.attempts) for letter in jobs.dead) == [
        (b"a", "an error", 2),
        (b"b", "the lease expired", 2),
    ]


def test_without_max_attempts_nothing_dies(make_set: Maker, raw: Any) -> None:
    jobs = make_set(max_attempts=None)
    jobs.add("a")
    for attempts in range(12):
        [lease] = jobs.lease()
        assert lease.attempts == attempts
        lease.fail("")
    assert jobs.dead.size() == 0


@every_option
def test_a_release_counts_no_attempt(make_set: Maker, raw: Any, options: dict[str, Any]) -> None:
    jobs = make_set(**options)
    item = made(options, "a")
    jobs.add(item, 7)
    for delay in (0, 60):
        assert jobs.release(jobs.lease(), delay=delay) == 1
        assert jobs.size() == (0 if delay else 1)
        expire(raw)
        assert not jobs.finished()
    [lease] = jobs.lease()
    assert (lease.attempts, lease.score) == (0, 7.0)


def test_a_batch_is_released_to_a_score(make_set: Maker) -> None:
    jobs = make_set()
    jobs.add_many(["a", "b", "c"], score=[1, 2, 3])
    batch = jobs.lease(2)
    assert batch.release(score=9) == 2
    assert jobs.scores(["a", "b", "c"]) == [9.0, 9.0, 3.0]
    batch = jobs.lease()
    [lease] = batch
    with pytest.raises(ValueError, match="item must have the identity"):
        lease.release(item="d")
    assert lease.release(0, 5, "c") == 1 and jobs.score("c") == 5


def test_only_a_single_lease_is_released_with_another_item(make_set: Maker) -> None:
    jobs = make_set()
    jobs.add("a")
    batch = jobs.lease()
    for release in (batch.release, functools.partial(jobs.release, batch)):
        with pytest.raises(TypeError, match="item"):
            release(item="a")
    assert batch.release() == 1 and jobs.size() == 1


def test_a_lease_of_the_other_kind_of_client_is_named_in_the_error(
    any_server: servers.Server,
) -> None:
    with any_server.client() as one, any_server.client() as other:
        jobs: SortedSet[str] = SortedSet(one, "jobs")
        jobs.add("a")
        batch = jobs.lease()
        with pytest.raises(ValueError, match="each with a client of its own"):
            SortedSet(other, "jobs").ack(batch)
        assert batch.ack() == 1


def test_a_release_with_a_score_starts_again(make_set: Maker, raw: Any) -> None:
    jobs = make_set(key="url")
    jobs.add({"url": "/", "visits": 0}, 7)
    jobs.fail(jobs.lease(), "once")
    [lease] = jobs.lease()
    assert lease.attempts == 1
    assert lease.release(score=1000, item={"url": "/", "visits": 1}) == 1
    [lease] = jobs.lease()
    assert (lease.item, lease.score, lease.attempts) == ({"url": "/", "visits": 1}, 1000.0, 0)
    with pytest.raises(ValueError, match="item"):
        lease.release(item={"url": "/other"})
    assert lease.ack() == 1


def test_a_renewed_lease_lasts_from_now(make_set: Maker, raw: Any) -> None:
    jobs = make_set()
    jobs.add("a")
    batch = jobs.lease(ttl=100)
    assert jobs.renew(batch, 1000) == 1
    [(_, _, _, expires, *_)] = jobs.leased()
    assert 990 < expires - time.time() < 1010
    assert batch.ack() == 1


# --- adds during a lease


@every_option
def test_an_item_added_while_leased_waits_for_the_end_of_the_lease(
    make_set: Maker, raw: Any, options: dict[str, Any]
) -> None:
    """The table of outcomes: known or not, and under each flag."""
    jobs = make_set(**options)
    item = made(options, "a")
    jobs.add(item, 7)
    [lease] = jobs.lease()
    known = "remember" in options
    assert jobs.add(item, 3, nx=True) is None
    assert jobs.add(item, 3, xx=True) is None
    assert jobs.add(item, 3) == (None if known else 3.0)
    assert not jobs.lease() or known is None
    assert jobs.add(item, 4, lt=True) is None
    assert jobs.add(item, 2, lt=True) == (None if known else 2.0)
    assert lease.ack() == 1
    assert jobs.finished() is known
    if not known:
        [lease] = jobs.lease()
        assert (lease.item, lease.score, lease.attempts) == (item, 2.0, 0)


@pytest.mark.parametrize("end", ["fail", "release", "expire", "delay", "die"])
@pytest.mark.parametrize("keyed", [False, True])
def test_an_item_added_while_leased_is_queued_once_however_the_lease_ends(
    make_set: Maker, raw: Any, end: str, keyed: bool
) -> None:
    options: dict[str, Any] = {"key": "url"} if keyed else {}
    jobs = make_set(**options, max_attempts=1 if end == "die" else 10)
    old: Any = {"url": "a", "n": 1} if keyed else "a"
    new: Any = {"url": "a", "n": 2} if keyed else "a"
    jobs.add(old, 7)
    [lease] = jobs.lease()
    assert lease.item == old
    jobs.add_many([new], 3)
    assert not jobs.lease(5)
    if end in ("fail", "die"):
        lease.fail("no")
    elif end == "release":
        lease.release()
    elif end == "delay":
        lease.fail("no", delay=60)
        assert not jobs.lease(5)
        expire(raw)
    else:
        expire(raw)
    [again, *more] = jobs.lease(5)
    assert not more
    attempts = 0 if end in ("release", "die") else 1
    assert (again.item, again.score, again.attempts) == (new, 3.0, attempts)
    if end == "die":
        [letter] = jobs.dead
        assert letter.score == 7.0 and letter.raw == (b'{"n":1,"url":"a"}' if keyed else b"a")
    assert again.ack() == 1 and jobs.finished()
    assert {key for key in servers.keys(raw) if not key.endswith((b":dead", b":meta"))} == set()


def test_first_in_first_out_keeps_what_is_leased(make_set: Maker) -> None:
    jobs = make_set(TimeSortedSet, duplicates="keep")
    assert jobs.add_many(["a", "b"]).added == 2
    [lease] = jobs.lease()
    assert jobs.add_many(["a", "b", "c"]) == (1, 0, 2, 0)
    lease.ack()
    assert jobs.take(5) == ["b", "c"]


@every_option
def test_a_discarded_lease_is_cancelled(make_set: Maker, raw: Any, options: dict[str, Any]) -> None:
    jobs = make_set(**options)
    items = [made(options, name) for name in "abc"]
    jobs.add_many(items)
    leases = list(jobs.lease(2))
    if "remember" not in options:
        jobs.add(items[0], 9)
    assert jobs.discard(items[0])
    assert jobs.discard_many(items) == 2
    assert jobs.ack(leases) == 0
    assert jobs.finished() and not jobs.lease()
    assert raw.keys(f"{P}:lease*") == [] and raw.keys(f"{P}:items") == []


@pytest.mark.parametrize("options", [{}, {"key": "url"}], ids=str)
def test_a_discard_is_the_same_while_another_item_is_leased(
    make_set: Maker, raw: Any, options: dict[str, Any]
) -> None:
    found = []
    for leased in (False, True):
        jobs = make_set(**options)
        jobs.add_many([made(options, name) for name in "abcde"], range(5))
        if leased:
            jobs.add(made(options, "other"), -1)
            (other,) = jobs.lease()
        gone = [jobs.discard(made(options, name)) for name in "aax"]
        many = jobs.discard_many([made(options, name) for name in "bccx"])
        left = jobs.peek_many(9)
        if leased:
            assert other.ack() == 1
        found.append((gone, many, left, raw.hlen(f"{P}:items")))
        jobs.clear()
    assert found[0][:2] == ([True, False, False], 2)
    assert found[0] == found[1]


def test_a_cleared_set_forgets_its_leases(make_set: Maker) -> None:
    jobs = make_set()
    jobs.add_many(["a", "b"])
    [lease] = jobs.lease()
    jobs.clear()
    assert lease.ack() == 0 and jobs.finished()


@pytest.mark.parametrize("options", [{}, {"key": "url"}], ids=str)
def test_an_acknowledgement_is_the_same_by_the_short_and_the_long_step(
    make_set: Maker, raw: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(how: str) -> tuple[Any, ...]:
        jobs = make_set(**options)
        jobs.add_many([made(options, name) for name in "abcd"], range(4))
        jobs.fail(jobs.lease(1), "no")
        leases = list(jobs.lease(3))
        if how == "lost":
            jobs.discard(leases[1].item)
        elif how == "added again":
            jobs.add(leases[1].item, 9)
        done = jobs.ack(leases)
        keys = [raw.hlen(f"{P}:items"), raw.exists(f"{P}:leased", f"{P}:leases", f"{P}:none")]
        left = list(jobs), len(jobs), raw.zcard(f"{P}:calls"), keys
        jobs.clear()
        return done, left

    hows = ["plain", "lost", "added again"]
    short = [ended(how) for how in hows]
    monkeypatch.setattr(settling, "_ack_step", lambda ctx, step: None)
    assert short == [ended(how) for how in hows]
    assert [done for done, _ in short] == [3, 2, 3]


# --- new items and acknowledgement in one step


@every_option
def test_a_finished_set_alone_is_cleared_if_that_is_asked(
    make_set: Maker, raw: Any, options: dict[str, Any]
) -> None:
    jobs, others = make_set(**options), make_set(**options)
    item, another = made(options, "a"), made(options, "b")
    jobs.add(item, 5)
    assert others.clear(if_finished=True) == 1  # queued
    batch = jobs.lease()
    assert others.clear(if_finished=True) == 1  # leased
    jobs.fail(batch, "no", delay=600)
    jobs.add(another)
    assert others.clear(if_finished=True) == 2  # delayed, and queued
    jobs.discard(another)
    expire(raw)
    # A released item is queued again.
    assert others.clear(if_finished=True) == 1 and jobs.size() == 1
    [lease] = jobs.lease()
    assert (lease.item, lease.score, lease.attempts) == (item, 5.0, 1)
    lease.ack()
    if options.get("remember"):
        assert jobs.add(item) is None
        assert others.clear(if_finished=True, keep_memory=True) == 0
        assert jobs.seen(item)
    assert others.clear(if_finished=True) == 0
    assert servers.keys(raw) == []
    assert jobs.add(item, 3) == 3 and jobs.clear() == 1


def test_an_item_that_dies_as_its_lease_ends_survives_the_clear(
    make_set: Maker, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = make_set(max_attempts=1)
    jobs.add("a")
    jobs.lease()
    expire(raw)
    assert jobs.clear(if_finished=True) == 1
    assert [letter.raw for letter in jobs.dead] == [b"a"]
    assert "1 items of 'jobs' moved to dead letters" in caplog.text
    assert jobs.finished() and jobs.clear(if_finished=True) == 0
    assert servers.keys(raw) == []


def test_a_finished_set_is_cleared_whatever_its_options_were(make_set: Maker, raw: Any) -> None:
    make_set(key=str).add("a")
    # Items are under another key. This object does not see them.
    assert make_set().finished() and make_set().clear(if_finished=True) == 1
    assert make_set(key=str).pop() == "a"
    assert make_set().clear(if_finished=True) == len(servers.keys(raw)) == 0
    alone = make_set(name="no{tag")
    alone.add("a")
    assert alone.clear(if_finished=True) == 1
    assert alone.pop() == "a" and alone.clear(if_finished=True) == 0


def test_nothing_is_cleared_if_the_leases_cannot_be_read(
    any_server: servers.Server,
) -> None:
    jobs: SortedSet[str] = SortedSet(any_server.raw, "jobs")
    jobs.add("a")
    with servers.user(any_server, "resetkeys", "~jobs") as login:
        client = any_server.client(**login)
        less: SortedSet[str] = SortedSet(client, "jobs")
        with pytest.raises(redis.exceptions.NoPermissionError):
            less.clear(if_finished=True)
        assert jobs.size() == 1
        client.close()


@every_option
def test_new_items_and_acknowledgement_are_one_step(
    make_set: Maker, options: dict[str, Any]
) -> None:
    jobs = make_set(**options, scorer=lambda item: 5)
    for num in (1, 250, 251, 1800):
        jobs.add(made(options, "page"), 1)
        [lease] = jobs.lease()
        links = [made(options, str(number)) for number in range(num)]
        assert jobs.ack(lease, add=iter(links)) == 1
        assert jobs.size() == num and jobs.stats().leased == 0 and jobs.peek_score() == 5
        jobs.clear()


def test_new_items_of_a_lost_lease_are_not_added(make_set: Maker, raw: Any) -> None:
    jobs = make_set()
    jobs.add("page")
    for num in (3, 600):
        [late] = jobs.lease()
        expire(raw)
        [lease] = jobs.lease()
        assert late.ack(add=map(str, range(num))) == 0
        assert jobs.size() == 0
        lease.release()


def test_a_bad_item_among_the_new_ones_changes_nothing(make_set: Maker) -> None:
    jobs = make_set(max_item_bytes=10)
    jobs.add("page")
    [lease] = jobs.lease()
    with pytest.raises(AddError) as caught:
        lease.ack(add=["a", "much too long an item", "b"])
    assert (caught.value.index, caught.value.item) == (1, "much too long an item")
    assert (caught.value.resume_at, caught.value.result.added) == (0, 0)  # nothing was sent
    assert jobs.size() == 0 and not lease.settled and rows(jobs) == [("page", 0.0, 0)]
    assert lease.ack(add=["a"]) == 1


def test_a_full_set_refuses_both(make_set: Maker) -> None:
    jobs = make_set(max_size=2)
    jobs.add("page")
    [lease] = jobs.lease()
    with pytest.raises(Full):
        lease.ack(add=["a", "b", "c"])
    assert jobs.size() == 0 and rows(jobs) == [("page", 0.0, 0)]
    assert lease.release() == 1


def test_a_page_that_names_itself_is_there_again(make_set: Maker) -> None:
    for options in ({}, {"key": "url"}):
        jobs = make_set(**options, name=f"jobs{len(options)}")
        page = made(options, "page")
        jobs.add(page, 1)
        [lease] = jobs.lease()
        assert lease.ack(add=[page]) == 1
        assert jobs.size() == 1 and jobs.stats().leased == 0


def test_the_first_new_item_of_an_acknowledgement_begins_the_memory(make_set: Maker) -> None:
    make_set().add("page")
    jobs = make_set(remember=True)
    [lease] = jobs.lease()
    assert lease.ack(add=["a"]) == 1 and jobs.seen("a")
    jobs.clear()
    jobs.add("page")
    [lease] = make_set(remember=True).lease()
    assert jobs.size() == 0


def test_leased_yields_each_item_with_its_last_error(make_set: Maker) -> None:
    jobs = make_set()
    jobs.add_many(["a", "b"], [1, 2])
    jobs.fail(jobs.lease(), "no\nsuch page")
    batch = jobs.lease(2, ttl=600)
    jobs.fail(list(batch)[1], "never", delay=60)
    second, first = jobs.leased()
    assert first._fields == ("item", "score", "attempts", "expires", "error", "worker", "group")
    worker = reporting.worker_of(reporting.new_token())
    assert first[:3] == ("a", 1.0, 1) and first[4:] == ("no\nsuch page", worker, None)
    assert second.worker is None
    assert (second.item, second.attempts, second.error) == ("b", 1, "never")
    assert second.expires < first.expires
    jobs.add("c", 0)
    jobs.lease(1, ttl=1000)
    assert [(row.item, row.error) for row in jobs.leased()][2:] == [("c", None)]


# --- batches


def test_a_batch_settles_by_iteration(
    make_set: Maker, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert failures.FIRST == 1
    # So long that the item does not come back while this runs.
    monkeypatch.setattr(failures, "FIRST", 20)
    jobs = make_set()
    jobs.add_many(range(5), range(5))
    before = time.time()
    with pytest.raises(ZeroDivisionError), jobs.lease(4) as batch:
        for lease in batch:
            if lease.item == "2":
                raise ZeroDivisionError("by 2")
    assert batch.lost == 0
    assert [(each.item, each.attempts) for each in jobs.lease(2)] == [("3", 0), ("4", 0)]
    [(item, score, attempts, expires, *_), *_] = jobs.leased()
    assert (item, score, attempts) == ("2", 2.0, 1)
    assert before + 9.9 < expires < time.time() + 20.1


@pytest.mark.parametrize("delay", [600, datetime.timedelta(minutes=10), 0])
def test_a_batch_that_raises_retry_waits_for_so_long(make_set: Maker, delay: Any) -> None:
    jobs = make_set()
    jobs.add_many(["a", "b"], [1, 2])
    before = time.time()
    with pytest.raises(Retry), jobs.lease(2) as batch:
        for _ in batch:
            raise Retry(delay)
    if delay == 0:
        assert [(each.item, each.attempts) for each in jobs.lease(2)] == [("a", 1), ("b", 0)]
        return
    [(item, _, attempts, expires, *_)] = jobs.leased()
    assert (item, attempts) == ("a", 1)
    assert before + 599 < expires < time.time() + 601
    assert jobs.take(2) == ["b"]


def test_a_batch_that_raises_reject_makes_a_dead_letter_at_once(
    make_set: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = make_set(key="n")
    jobs.add_many([{"n": n} for n in range(3)], range(3))
    with pytest.raises(Reject), jobs.lease(3) as batch:
        for lease in batch:
            if lease.item["n"]:
                raise Reject("no such page")
    assert [lease.settled for lease in batch._leases] == [True] * 3
    assert [(letter.raw, letter.reason) for letter in jobs.dead] == [(b'{"n":1}', "no such page")]
    assert jobs.take(3) == [{"n": 2}]
    [record] = [each for each in caplog.records if each.levelname == "ERROR"]
    assert record.getMessage() == "1 items of 'jobs' moved to dead letters: no such page"


def test_a_death_is_logged(make_set: Maker, caplog: pytest.LogCaptureFixture) -> None:
    jobs = make_set(max_attempts=2)
    jobs.add_many(["a", "b"])
    jobs.fail(jobs.lease(1), "no")
    assert not caplog.records
    jobs.fail(jobs.lease(2), "no")
    assert [each.getMessage() for each in caplog.records] == [
        "1 items of 'jobs' moved to dead letters: no"
    ]
    assert jobs.dead.size() == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda jobs: jobs.lease(5),
        lambda jobs: jobs.take(3),
        lambda jobs: jobs.pop(),
        lambda jobs: jobs.stats(),
        lambda jobs: jobs.finished(),
        lambda jobs: jobs.consume(print, until_finished=True),
    ],
    ids=["lease", "take", "pop", "stats", "finished", "consume"],
)
def test_a_death_by_an_expired_lease_is_logged_by_the_noticing_process(
    make_set: Maker, raw: Any, caplog: pytest.LogCaptureFixture, call: Callable[[Any], Any]
) -> None:
    jobs = make_set(max_attempts=1)
    jobs.add_many(["a", "b"])
    jobs.lease(2)
    expire(raw)
    with contextlib.suppress(KeyError):
        call(jobs)
    for _ in range(2):
        assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
            (
                "ERROR",
                "2 items of 'jobs' moved to dead letters: their leases expired at the last attempt",
            )
        ]
        jobs.stats()
    assert jobs.dead.size() == 2


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Retry("soon"), "delay must be a number of seconds or a timedelta, got 'soon'"),
        (lambda: Retry(-1), "delay must be seconds, 0 or more, at most 1e10, got -1 .int."),
        (lambda: Retry(float("nan")), "delay must be seconds, 0 or more"),
        (lambda: Reject(7), "reason must be str or an exception, got 7 .int."),
    ],
)
def test_bad_arguments_of_retry_and_reject_are_refused(make: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        make()


def test_retry_and_reject_pass_between_processes() -> None:
    for error in (Retry(3), Reject("no")):
        copied = pickle.loads(pickle.dumps(error))
        assert type(copied) is type(error) and copied.args == error.args
    assert pickle.loads(pickle.dumps(Retry(3))).delay == 3


def test_a_break_releases_the_current_one(make_set: Maker) -> None:
    jobs = make_set()
    jobs.add_many(range(4), range(4))
    with jobs.lease(4) as batch:
        for lease in batch:
            if lease.item == "1":
                break
    assert [(each.item, each.attempts) for each in jobs.lease(5)] == [
        ("1", 0),
        ("2", 0),
        ("3", 0),
    ]


def test_explicit_settlements_stand_and_lost_leases_are_counted(
    make_set: Maker, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = make_set()
    jobs.add_many(range(4), range(4))
    with caplog.at_level(logging.WARNING, "redset"), jobs.lease(4) as batch:
        for lease in batch:
            if lease.item == "1":
                lease.fail("no")
            if lease.item == "2":
                jobs.discard("3")
    assert batch.lost == 1 and "1 leases of 'jobs'" in caplog.text
    assert [(each.item, each.attempts) for each in jobs.lease(5)] == [("1", 1)]


def test_a_lease_released_by_hand_is_not_settled_again(make_set: Maker) -> None:
    jobs = make_set()
    jobs.add_many(["a", "b"], [1, 2])
    with jobs.lease(2) as batch:
        for lease in batch:
            assert lease.release() == 1 and lease.settled
            with pytest.raises(ValueError, match="settled before"):
                lease.ack()
    assert batch.lost == 0
    assert [(each.item, each.attempts) for each in jobs.lease(5)] == [("a", 0), ("b", 0)]


def test_outside_of_with_nothing_is_marked_and_a_batch_ends(make_set: Maker) -> None:
    jobs = make_set()
    jobs.add_many(range(3))
    batch = jobs.lease(3)
    assert len(list(batch)) == 3
    assert jobs.stats().leased == 3
    with batch:
        pass
    assert jobs.size() == 3
    with pytest.raises(RuntimeError, match="batch"):
        list(batch)
    with pytest.raises(RuntimeError, match="batch"):
        batch.__enter__()


def test_a_batch_passes_over_leases_that_were_settled_by_hand(make_set: Maker) -> None:
    jobs = make_set()
    jobs.add_many(["a", "b", "c"], [1, 2, 3])
    batch = jobs.lease(3)
    assert [lease.fail("no", delay=0) for lease in batch if lease.item == "b"] == [True]
    with batch:
        assert [lease.item for lease in batch] == ["a", "c"]
    assert batch.lost == 0
    assert [(each.item, each.attempts) for each in jobs.lease(3)] == [("b", 1)]


def test_a_batch_names_its_set(server_client: redis.Redis) -> None:
    jobs: SortedSet[str] = SortedSet(server_client, "jobs")
    jobs.add_many(["a", "b"])
    assert repr(jobs.lease(5)) == f"<Batch of 2 leases of {jobs!r}>"


def test_the_error_of_a_block_is_not_hidden_by_a_server_that_refuses(
    make_set: Maker, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = make_set()
    jobs.add("a")
    with pytest.raises(ZeroDivisionError), jobs.lease(1) as batch:
        for _ in batch:
            raw.delete(f"{P}:leased")
            raw.set(f"{P}:leased", "text")
            raise ZeroDivisionError("by 2")
    assert "could not settle leases of 'jobs', whose items return when" in caplog.text
    with pytest.raises(Exception, match=r"WRONGTYPE|wrong kind"), batch_of(jobs, raw):
        pass


def batch_of(jobs: Any, raw: Any) -> Any:
    """Lease an item, and have the server refuse what settles it."""
    raw.delete(f"{P}:leased")
    jobs.add("b")
    batch = jobs.lease(1)
    assert len(batch) == 1
    raw.delete(f"{P}:leased")
    raw.set(f"{P}:leased", "text")
    return batch


def test_items_after_many_members_without_payload_are_leased(make_set: Maker, raw: Any) -> None:
    """A step drops a bounded number of members; the call goes on until it finds items."""
    jobs = make_set(key=str)
    members = [number.to_bytes(16, "big") for number in range(1000)]
    raw.zadd(f"{P}:keyed", dict.fromkeys(members, -1))
    jobs.add_many(["a", "b", "c"], [1, 2, 3])
    assert [lease.item for lease in jobs.lease(2)] == ["a", "b"]
    assert jobs.size() == 1


# --- bad input


def test_bad_arguments_are_refused_and_named(make_set: Maker) -> None:
    jobs, other = make_set(), make_set(name="other")
    jobs.add_many(["a", "b"])
    other.add("x")
    [lease] = jobs.lease()
    [foreign] = other.lease()
    for error, match, call in [
        (ValueError, "num", lambda: jobs.lease(0)),
        (ValueError, "num", lambda: jobs.lease(10**9)),
        (TypeError, "num", lambda: jobs.lease(1.5)),
        (ValueError, "ttl", lambda: jobs.lease(1, -1)),
        (ValueError, "ttl", lambda: jobs.lease(1, 0)),
        (ValueError, "ttl", lambda: jobs.lease(1, float("nan"))),
        (ValueError, "ttl", lambda: jobs.lease(1, float("inf"))),
        (TypeError, "ttl.*str", lambda: jobs.lease(1, "60")),
        (ValueError, "delay", lambda: lease.fail("", -1)),
        (TypeError, "delay.*NoneType", lambda: lease.release(None)),
        (TypeError, "error.*int", lambda: lease.fail(5)),
        (TypeError, "score", lambda: lease.release(score=[])),
        (TypeError, "leases.*int", lambda: jobs.ack(5)),
        (TypeError, r"leases\[0\].*str", lambda: jobs.ack(["a"])),
        (ValueError, r"leases\[0\].*other", lambda: jobs.ack(foreign)),
        (TypeError, "add.*str", lambda: lease.ack("links")),
        (ValueError, "leases is empty", lambda: jobs.ack([], ["a"])),
    ]:
        with pytest.raises(error, match=match):
            call()
    assert (jobs.size(), jobs.stats().leased, other.stats().leased) == (1, 1, 1)
    assert jobs.ack([lease, lease]) == 1
    with pytest.raises(ValueError, match=r"leases\[0\] was settled"):
        jobs.ack(lease)
    assert jobs.ack([]) == 0


def test_stats_that_only_read_return_no_expired_lease(make_set: Maker, raw: Any) -> None:
    jobs = make_set(name="jobs", max_attempts=1)
    jobs.add_many(["a", "b"])
    jobs.lease(1, ttl=0.001)
    while jobs.stats(read_only=True).leased:
        pass
    looked = jobs.stats(read_only=True)
    assert (looked.size, looked.leased, looked.dead) == (1, 0, 1)
    assert raw.zcard("jobs:{jobs}:leased") == 1 and jobs.dead.size() == 0
    assert jobs.stats().dead == jobs.dead.size() == 1


@every_option
def test_stats_count_the_failed_items_that_wait_for_a_retry(
    make_set: Maker, raw: Any, options: dict[str, Any]
) -> None:
    jobs = make_set(**options)
    jobs.add_many([made(options, str(number)) for number in range(6)], range(6))
    failed, given_back, _, again = jobs.lease(4)
    jobs.fail(failed, "no", delay=600)
    jobs.release(given_back, delay=600)  # has not failed
    jobs.fail(again, "no")  # does not wait
    stats = jobs.stats()
    assert (stats.size, stats.leased, stats.retrying) == (3, 3, 1)
    [again] = jobs.lease()
    assert jobs.stats().retrying == 1  # at work
    jobs.release(again, delay=600)  # failed before
    assert jobs.stats().retrying == 2
    expire(raw)
    stats = jobs.stats()
    assert (stats.size, stats.leased, stats.retrying) == (6, 0, 0)


def test_stats_estimate_the_retrying_items_of_many(make_set: Maker) -> None:
    jobs = make_set()
    jobs.add_many([f"{number:04}" for number in range(1000)], range(1000))
    jobs.fail(jobs.lease(300), "no", delay=600)
    jobs.lease(700)
    assert jobs.stats().leased == 1000
    assert jobs.stats().retrying == pytest.approx(300, abs=10)
    large = make_set(name="large")
    large.add_many([f"{number:030000}" for number in range(20)], range(20))
    large.fail(large.lease(10), "no", delay=600)
    large.lease(10)
    assert large.stats().retrying == pytest.approx(10, abs=2)


def test_a_name_without_second_keys_can_lease_nothing(make_set: Maker) -> None:
    jobs = make_set(name="a}b")
    jobs.add("x")
    with pytest.raises(ValueError, match="name"):
        jobs.lease()
    assert not jobs.finished() and list(jobs.leased()) == []
    assert jobs.add("x", nx=True) is None and jobs.pop() == "x"
    with pytest.raises(TypeError, match="max_attempts"):
        make_set(max_attempts="3")
    with pytest.raises(ValueError, match="max_attempts"):
        make_set(max_attempts=0)


# --- scheduled sets, undecodable members, tokens


def test_a_scheduled_set_leases_what_is_due(make_set: Maker) -> None:
    jobs = make_set(ScheduledSet)
    jobs.add_many(["now", "later"], [time.time() - 5, time.time() + 1000])
    [lease] = jobs.lease(5)
    assert lease.item == "now"
    assert lease.release(score=time.time() + 500) == 1
    assert not jobs.lease(5) and jobs.size() == 2


@pytest.mark.parametrize("options", [{}, {"ties": "lifo"}], ids=["plain", "ties"])
def test_leases_beside_an_undecodable_item_are_as_without_it(
    make_set: Maker, raw: Any, options: Any
) -> None:
    jobs = make_set(name="jobs", serializer=JSONSerializer(), **options)
    jobs.add_many(["a", {"b": 1}, 3], score=[1, 1, 2])

    def leased() -> list[Any]:
        leases = list(jobs.lease(10))
        found = [(each.item, each.score, each.attempts, each.member, each.size) for each in leases]
        assert jobs.release(leases) == 3
        return found

    found = leased()
    assert len(found) == 3
    raw.zadd("jobs:{jobs}:tied" if options else "jobs", {b"{": -5})
    assert leased() == found
    assert jobs.stats().dead == 1


def test_undecodable_members_are_buried_and_the_others_leased(make_set: Maker, raw: Any) -> None:
    jobs = make_set()
    raw.zadd("jobs", {b"\xff\x00": 1, b"good": 2, b"\xfe": 3})
    assert [lease.item for lease in jobs.lease(5)] == ["good"]
    assert [(letter.raw, letter.score) for letter in jobs.dead] == [
        (b"\xff\x00", 1.0),
        (b"\xfe", 3.0),
    ]
    assert jobs.stats().leased == 1


def test_the_same_request_gives_the_same_leases(any_server: servers.Server) -> None:
    """Within its time and before its first settlement; over its time it begins anew."""
    from redset.scripts import script

    raw = any_server.raw
    jobs = SortedSet(raw, "jobs")
    jobs.add_many(map(str, range(500)), range(500))
    step = script("lease")
    others = {"max_attempts": 10, "due": False, "limit": 100, "hand": 0, "passes": False}

    def call(token: bytes, num: int, ttl: int = 60_000) -> list[Any]:
        arguments = {"token": token, "num": num, "ttl": ttl, "first": 16, **others}
        found: list[Any] = raw.eval(step.text, *jobs._ctx.request(step, arguments)[2:])
        # The short reply has the expiry at its end.
        return found if found[-1] == [] else [found[-1], 0, 0, 0, 0, found[:-1], []]

    token = b"A" * 16
    first = call(token, 100)
    assert len(first[5]) == 200 and call(token, 100)[1:] == first[1:]
    # A call that asks for fewer gives the others back.
    fewer = call(token, 10)
    assert fewer[1:] == [0, 0, 0, 0, first[5][:20], []]
    assert raw.zcard("jobs") == 490
    # No worker has received them, so after expiry they count no attempt, and are not suspects.
    for member in raw.zrange(f"{P}:leased", 0, -1):
        raw.zadd(f"{P}:leased", {member: 1})
    raw.zadd(f"{P}:calls", {token: 1})
    again = call(token, 100)
    assert int(again[0]) > 1 and again[1:] == first[1:]
    assert raw.zcard("jobs") + raw.zcard(f"{P}:leased") == 500


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", servers.REAL)
@pytest.mark.parametrize("num", [20_000, pytest.param(200_000, marks=pytest.mark.slow(2))])
def test_expired_leases_come_back_a_bounded_number_a_call(kind: str, num: int) -> None:
    with servers.start(kind) as server:
        raw = server.raw
        jobs = SortedSet(raw, "jobs", max_attempts=None)
        with raw.pipeline(transaction=False) as pipeline:
            for at in range(0, num, 1000):
                names = [f"item {number}" for number in range(at, at + 1000)]
                pipeline.zadd(f"{P}:leased", dict.fromkeys(names, 1))
                pipeline.hset(f"{P}:leases", mapping=dict.fromkeys(names, "B" * 16 + "00/200 5"))
                pipeline.execute()
        held = Held(server)
        assert not held(jobs.finished)
        assert raw.zcard(f"{P}:leased") == num - 100 and raw.zcard("jobs") == 100
        assert held(jobs.lease, 100) and raw.zcard(f"{P}:leased") == num - 100
        left = num - 100
        for _ in range(20):
            for call in (jobs.finished, jobs.stats, jobs.lease):
                held(call)
                left, before = raw.zcard(f"{P}:leased"), left
                assert 0 < before - left <= 100
        held.check(62, most=12)


def _work(path: str, seconds: float, seed: int, ttl: float = 0.3) -> None:
    pick = random.Random(seed)
    jobs = SortedSet(redis.Redis(unix_socket_path=path), "jobs", remember=True)
    done = SortedSet(redis.Redis(unix_socket_path=path), "done")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with jobs.lease(pick.randrange(1, 8), ttl) as batch:
            for lease in batch:
                if pick.random() < 0.1:
                    break
                number = int(lease.item)
                done.add(lease.item)
                lease.ack(add=[str(2 * number), str(2 * number + 1)] if number < 1500 else [])


@pytest.mark.slow(9)
def test_killed_consumers_lose_nothing(any_server: servers.Server) -> None:
    """A tree of items, each returned for its parent: all of them are reached."""
    jobs = SortedSet(any_server.raw, "jobs", remember=True, max_attempts=None)
    jobs.add("1")
    assert any_server.unix is not None
    pick = random.Random(5)
    done: SortedSet[str] = SortedSet(any_server.raw, "done")
    for _ in range(4):
        before = done.size()
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                args = (any_server.unix, 60, pick.randrange(999))
                stack.enter_context(children.process(_work, *args))
            # The end of the block kills them.
            time.sleep(1.0 + pick.random())
            until = time.monotonic() + 20
            while done.size() == before and not jobs.finished() and time.monotonic() < until:
                time.sleep(0.01)
    _finish(jobs, any_server.unix)
    assert set(done) == {str(number) for number in range(1, 3000)}


def _finish(jobs: Any, path: str) -> None:
    """Work until nothing is left: on a busy machine for long, but not a minute without a result."""
    end, before = 0.0, -1
    while not jobs.finished():
        now, done = time.monotonic(), jobs.redis.zcard("done")
        if done != before:
            end, before = now + 60, done
        assert now < end, (done, jobs.stats(), jobs.redis.hgetall(f"{P}:leases"))
        _work(path, 0.5, 1, ttl=10)


# --- a random walk against a model


class Leasing:
    """The set with leases in the plainest Python; one set without options."""

    def __init__(self, max_attempts: int, known: bool, identity: Callable[[str], bytes]) -> None:
        self.max = max_attempts
        self.identity = identity
        self.remember = known
        self.known: set[str] = set()
        self.queued: dict[str, float] = {}
        self.attempts: dict[str, int] = {}
        #: Item to [holder or None for a delay, score, score of an add while leased, cohort].
        self.held: dict[str, list[Any]] = {}
        #: Suspects, and the largest cohort they may be in.
        self.suspects: dict[str, int] = {}
        self.dead: list[tuple[str, float]] = []

    def add(self, item: str, score: float) -> float | None:
        if self.remember and item in self.known:
            return None
        self.known.add(item)
        if item in self.held:
            self.held[item][2] = score
        else:
            self.queued[item] = score
        return score

    def lease(self, num: int, holder: int) -> list[tuple[str, float, int]]:
        order = sorted(self.queued, key=lambda item: (self.queued[item], self.identity(item)))
        given: list[str] = []
        bound = num
        for item in order[:num]:
            most = min(bound, self.suspects.get(item, num))
            if len(given) + 1 > most:
                break
            bound = most
            given.append(item)
        for item in given:
            self.held[item] = [holder, self.queued.pop(item), None, len(given)]
            if item in self.suspects:
                self.suspects[item] = len(given)
        return [(item, self.held[item][1], self.attempts.get(item, 0)) for item in given]

    def end(self, how: str, item: str, score: float | None = None, delay: bool = False) -> None:
        holder, before, again, cohort = self.held[item]
        if how == "ack":
            del self.held[item]
            self.attempts.pop(item, None)
            self.suspects.pop(item, None)
            if again is not None:
                self.queued[item] = again
            return
        if how == "fail" or (how == "expire" and holder is not None):
            if how == "fail":
                self.suspects.pop(item, None)
            else:
                self.suspects[item] = max(1, cohort // 2)
            if how == "fail" or cohort == 1 or self.max == 1:
                self.attempts[item] = self.attempts.get(item, 0) + 1
            if self.attempts.get(item, 0) >= self.max:
                self.dead.append((item, before))
                self.end("ack", item)
                return
        if how == "release" and score is not None:
            before = score
            self.attempts.pop(item, None)
            self.suspects.pop(item, None)
        if delay:
            self.held[item] = [None, before, again, 1]
        else:
            del self.held[item]
            self.queued[item] = before if again is None else again


@pytest.mark.parametrize("seed", range(4))
def test_a_random_walk_does_what_the_model_does(any_server: servers.Server, seed: int) -> None:
    raw = any_server.raw
    pick = random.Random(seed)
    options: dict[str, Any] = [{}, {"key": str}, {"remember": True}, {"key": str, "lots": 1}][seed]
    if options.pop("lots", None):
        options["remember"] = 3600
    jobs = SortedSet(raw, "jobs", **options, max_attempts=3)
    model = Leasing(3, "remember" in options, jobs._ctx.codec.identity)
    items = [str(number) for number in range(40 if model.remember else 12)]
    by_member = {jobs._ctx.codec.identity(item): item for item in items}
    open_leases: list[Any] = []
    for step in range(600):
        what = pick.choice(["add", "add", "lease", "settle", "settle", "expire", "discard"])
        if what == "add":
            item, score = pick.choice(items), float(pick.randrange(5))
            # By a script, so that it is parked at once, as the model has it.
            got = jobs.add_new([item], score)
            assert (list(got) == [item]) == (
                item not in model.queued
                and not (model.remember and item in model.known)
                and not (item in model.held and model.held[item][2] is not None)
            ), step
            model.add(item, score)
        elif what == "lease":
            num = pick.randrange(1, 4)
            found = list(jobs.lease(num))
            expected = model.lease(num, step)
            assert [(each.item, each.score, each.attempts) for each in found] == expected, step
            for each in found:
                open_leases.append((each, step))
        elif what == "settle" and open_leases:
            lease, holder = open_leases.pop(pick.randrange(len(open_leases)))
            ours = lease.item in model.held and model.held[lease.item][0] == holder
            how = pick.choice(["ack", "fail", "release", "moved"])
            delay = pick.choice([0, 0, 1000])
            if how == "ack":
                assert lease.ack() == ours, step
            elif how == "fail":
                assert lease.fail("no", delay) == ours, step
            else:
                score = 9.0 if how == "moved" else None
                assert lease.release(delay, score) == ours, step
            if ours and how == "moved":
                model.end("release", lease.item, 9.0, bool(delay))
            elif ours:
                model.end(how, lease.item, None, bool(delay))
        elif what == "expire" and model.held:
            member = pick.choice(sorted(raw.zrange(f"{P}:leased", 0, -1)))
            raw.zadd(f"{P}:leased", {member: 1})
            jobs.finished()
            model.end("expire", by_member[member])
        elif what == "discard":
            item = pick.choice(items)
            assert jobs.discard(Key(item)) == (item in model.queued or item in model.held), step
            model.queued.pop(item, None)
            model.held.pop(item, None)
            model.attempts.pop(item, None)
            model.suspects.pop(item, None)
        queued = {
            by_member[member]: score
            for member, score in raw.zrange(jobs._ctx.keys.queue, 0, -1, withscores=True)
        }
        assert queued == model.queued, step
        held = {by_member[member] for member in raw.zrange(f"{P}:leased", 0, -1)}
        assert held == set(model.held), step
        assert [(each.raw.strip(b'"').decode(), each.score) for each in jobs.dead] == model.dead
        assert jobs.finished() == (not queued and not held)


@pytest.mark.parametrize("count", [1, 300, 3000])
@every_option
def test_new_items_are_added_while_any_lease_is_still_held(
    any_server: servers.Server, options: dict[str, Any], count: int
) -> None:
    """Also if the first hundred of them are lost, before or while it is added."""
    raw = any_server.raw
    names = [f"page {number:03}" for number in range(250)]
    found = [made(options, f"found {number:04}") for number in range(count)]
    jobs: SortedSet[Any] = SortedSet(raw, "jobs", **options)
    pages = [made(options, name) for name in names]
    for at in (0, count // 2):
        jobs.clear()
        jobs.add_many(pages, score=range(250))
        batch = jobs.lease(250)

        def coming(at: int = at) -> Iterator[Any]:
            for number, item in enumerate(found):
                if number == at:
                    jobs.discard_many(pages[:240])
                yield item

        assert jobs.ack(batch, add=coming()) == 10
        assert jobs.size() == count and jobs.stats().leased == 0
    # Nothing is added for leases that all are lost.
    jobs.clear()
    jobs.add_many(pages)
    batch = jobs.lease(250)
    jobs.discard_many(pages)
    assert jobs.ack(batch, add=found) == 0
    assert jobs.size() == 0
