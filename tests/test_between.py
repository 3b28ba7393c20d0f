"""A range of scores: iterated, counted, taken from, discarded."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio
import servers
from options import every_option, fit, made, once_more

import redset.asyncio
from redset import ScheduledSet, SortedSet
from redset.exceptions import DecodeError

Maker = Callable[..., Any]
P = "jobs:{jobs}"


def filled(jobs: Any, options: dict[str, Any], num: int = 10) -> list[Any]:
    """Items at the scores 0, 1, …"""
    items = [made(options, f"item {number:02}") for number in range(num)]
    jobs.add_many(items, score=range(num))
    return items


@every_option
def test_a_view_is_of_the_items_of_its_scores(make_set: Maker, options: dict[str, Any]) -> None:
    jobs = make_set(**options)
    items = filled(jobs, options)
    for low, high, found in (
        (3, 5, items[3:6]),
        (2.5, 5.5, items[3:6]),
        (-math.inf, 1, items[:2]),
        ("8", math.inf, items[8:]),
        (4, 4, items[4:5]),
        (4.1, 4.9, []),
        (-math.inf, math.inf, items),
        (math.inf, math.inf, []),
    ):
        view = jobs.between(low, high)
        assert list(view) == found
        assert view.size() == len(view) == len(found)
        assert bool(view) == bool(found)
    view = jobs.between(3, 5)
    assert view.take(0) == view.take(-1) == []
    assert view.take(2) == items[3:5]
    jobs.add(items[0], fit(options, 4.5))
    assert view.take(1000) == ([items[5]] if "remember" in options else [items[0], items[5]])
    assert view.take(5) == [] and view.size() == 0
    assert jobs.between(8, 9).discard() == 2
    assert jobs.between(8, 9).discard() == 0
    left = items[0:3] + items[6:8] if "remember" in options else items[1:3] + items[6:8]
    assert list(jobs) == left


@every_option
def test_infinite_scores_are_in_a_range_that_ends_there(
    make_set: Maker, options: dict[str, Any]
) -> None:
    if "ties" in options:  # there are none
        return
    jobs = make_set(**options)
    items = [made(options, name) for name in "abc"]
    jobs.add_many(items, score=[-math.inf, 0, math.inf])
    assert list(jobs.between(-math.inf, 0)) == items[:2]
    assert list(jobs.between(-1e308, math.inf)) == items[1:]
    assert jobs.between(math.inf, math.inf).take(3) == items[2:]
    assert jobs.between(-math.inf, -math.inf).discard() == 1
    assert list(jobs) == items[1:2]


@every_option
def test_thousands_are_paged_taken_and_discarded(make_set: Maker, options: dict[str, Any]) -> None:
    jobs = make_set(**options)
    items = [made(options, f"item {number:05}") for number in range(6000)]
    scores = [number // 2 if "ties" in options else number for number in range(6000)]
    jobs.add_many(items, score=scores)
    if options.get("ties") == "lifo":
        items = list(jobs)
    view = jobs.between(scores[700], scores[5599])
    assert list(view) == items[700:5600]
    assert view.take(2500) == items[700:3200]
    assert view.size() == 2400
    assert view.discard() == 2400
    assert list(jobs) == items[:700] + items[5600:]


def test_a_staying_item_is_seen_once_whatever_changes_around_it(make_set: Maker) -> None:
    jobs = make_set()
    jobs.add_many([f"{number:05}" for number in range(3000)], score=[0] * 1000 + [1] * 2000)
    seen = []
    for item in jobs.between(1, 1):
        if not seen:
            jobs.between(0, 0).discard()
            jobs.add_many([f"new {number}" for number in range(700)], score=0)
            jobs.add_many([f"00500 {number}" for number in range(700)], score=1)
        seen.append(item)
    assert [item for item in seen if " " not in item] == [f"{n:05}" for n in range(1000, 3000)]
    assert len(seen) == len(set(seen))


def test_a_scheduled_set_shows_what_is_not_yet_due(make_set: Maker) -> None:
    jobs = make_set(ScheduledSet)
    now = time.time()
    jobs.add_many(["late", "due", "next week"], score=[now + 60, now - 60, now + 6e5])
    assert list(jobs.between(now, now + 3600)) == ["late"]
    # The first removal of the object looks whether there is anything that it can decode.
    assert jobs.between(now, math.inf).take(5) == ["late", "next week"]
    assert jobs.take(5) == ["due"]


def test_the_empty_item_is_one_like_others(make_set: Maker) -> None:
    jobs = make_set()
    jobs.add_many(["", "a"], score=1)
    assert list(jobs.between(1, 1)) == ["", "a"]
    assert jobs.between(1, 1).take(1) == [""]


@every_option
def test_a_leased_item_is_not_in_the_set_and_stays_leased(
    make_set: Maker, raw: Any, options: dict[str, Any]
) -> None:
    jobs = make_set(**options)
    items = filled(jobs, options, 4)
    held = jobs.lease(2)
    more = once_more(options)
    jobs.add(items[0], 1, **more)
    # Of a plain set it is queued again at once.
    again = 0 if options else 1
    assert jobs.between(0, 3).size() == 2 + again
    assert jobs.between(0, 3).discard() == 2 + again
    assert jobs.ack(held) == 2
    assert raw.exists(f"{P}:leased", f"{P}:leases") == 0
    # Any other item that was added while it was leased was kept back, and comes now.
    assert jobs.size() == 1 - again


@every_option
def test_a_discarded_item_loses_its_attempts(
    make_set: Maker, raw: Any, options: dict[str, Any]
) -> None:
    jobs = make_set(**options)
    items = filled(jobs, options, 3)
    assert jobs.fail(jobs.lease(3), "no") == 3
    held = jobs.lease(1)
    assert raw.hlen(f"{P}:leases") == 3
    assert jobs.between(0, 1).discard() == 1
    assert raw.hlen(f"{P}:leases") == 2
    more = once_more(options)
    jobs.add(items[1], 0, **more)
    [fresh] = jobs.lease()
    assert fresh.attempts == 0
    assert jobs.ack([*held, fresh]) == 2
    if "key" in options:
        assert raw.hlen(f"{P}:items") == 1


def test_a_discarded_item_stays_known(make_set: Maker) -> None:
    jobs = make_set(remember=True)
    jobs.add_many(["a", "b"], score=[1, 2])
    assert jobs.between(1, 1).discard() == 1
    assert jobs.add("a") is None
    assert jobs.seen("a")


def test_the_undecodable_go_to_the_dead_letters_and_only_those_of_the_range(
    make_set: Maker, raw: Any
) -> None:
    raw.zadd("jobs", {"[1]": 1, "[2": 2, "[3]": 3, "[4": 40})
    jobs = make_set(serializer=json)
    assert list(jobs.between(0, 10)) == [[1], [3]]
    assert jobs.between(0, 10).take(10) == [[1], [3]]
    assert [(letter.raw, letter.score) for letter in jobs.dead] == [(b"[2", None)]
    assert jobs.size() == 1


def test_a_range_of_which_nothing_can_be_decoded_is_not_emptied(make_set: Maker, raw: Any) -> None:
    raw.zadd("jobs", {f"[{number}": number for number in range(20)})
    raw.zadd("jobs", {"[100]": 100})
    jobs = make_set(serializer=json)
    with pytest.raises(DecodeError, match="nothing was removed"):
        jobs.between(5, 50).take(10)
    assert raw.zcard("jobs") == 21


def test_a_full_server_can_be_relieved(
    any_server: servers.Server, server_client: redis.Redis
) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(server_client, "jobs")
    jobs.add_many([f"item {number}" for number in range(100)], score=range(100))
    jobs.lease(1)
    jobs.take(1)
    raw.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            jobs.add("more")
        assert jobs.between(10, 19).take(5) == [f"item {number}" for number in range(10, 15)]
        assert jobs.between(10, 19).discard() == 5
    finally:
        raw.config_set("maxmemory", 0)


@pytest.mark.parametrize(
    ("ends", "error", "text"),
    [
        ((2, 1), ValueError, "min must be at most max, which is 1, got 2 .int"),
        ((math.inf, -math.inf), ValueError, "min must be at most max"),
        ((math.nan, 1), ValueError, "min must not be NaN"),
        ((1, "nan"), ValueError, "max must not be NaN"),
        ((None, 1), TypeError, r"min must be a number, got None \(NoneType\)"),
        ((1, [2]), TypeError, r"max must be a number, got .* \(list\)"),
        ((1, "soon"), ValueError, r"max must be a number, got 'soon' \(str\)"),
        ((1, 10**400), ValueError, "max must be in the range of a float"),
    ],
)
def test_ends_that_are_none_are_named(
    make_set: Maker, raw: Any, ends: tuple[Any, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        make_set().between(*ends)
    with pytest.raises(TypeError, match="num must be a whole number"):
        make_set().between(1, 2).take(None)
    assert servers.keys(raw) == []


def test_a_name_that_has_no_second_key_has_views_too(make_set: Maker, raw: Any) -> None:
    jobs = make_set(name="a}b")
    jobs.add_many(["a", "b", "c"], score=[1, 2, 3])
    assert list(jobs.between(2, 3)) == ["b", "c"]
    assert jobs.between(2, 2).take(5) == ["b"]
    assert jobs.between(1, 3).discard() == 2
    assert servers.keys(raw) == []


def test_the_repr_of_a_view_names_its_set_and_sends_nothing() -> None:
    jobs: SortedSet[str] = SortedSet(redis.Redis(unix_socket_path="/nowhere"), "jobs")
    assert repr(jobs.between(1, math.inf)) == "<SortedSet name='jobs'>.between(1.0, inf)"


@pytest.mark.parametrize(
    ("use", "say"),
    [(len, r"await size\(\)"), (bool, r"await size\(\)"), (list, "async for")],
)
def test_len_of_an_asyncio_view_names_the_method_to_use(use: Callable[..., Any], say: str) -> None:
    jobs: Any = redset.asyncio.SortedSet(redis.asyncio.Redis(), "jobs")
    with pytest.raises(TypeError, match=say):
        use(jobs.between(1, 2))
