"""A set, call by call: adding, handing out, looking, removing, serializers, typing."""

from __future__ import annotations

import datetime
import importlib.util
import itertools
import json
import logging
import math
import os
import time
import tracemalloc
from collections import ChainMap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import children
import pytest
import redis
import servers
from servers import Recording

import redset
from redset import AddResult, DeadLetter, Key, ScheduledSet, SortedSet, Stats, TimeSortedSet
from redset._operations import scores as scoring
from redset._operations.scores import ServerClock
from redset.exceptions import AddError, DecodeError
from redset.interfaces import Serializer
from redset.serializers import JSONSerializer

INF = math.inf
SETS = [SortedSet, TimeSortedSet, ScheduledSet]


def queued(raw: redis.Redis, key: str = "jobs") -> list[tuple[bytes, float]]:
    return raw.zrange(key, 0, -1, withscores=True)


def server_time(raw: redis.Redis) -> float:
    seconds, micros = raw.time()
    return float(seconds + micros / 1e6)


@pytest.fixture
def recording(any_server: servers.Server) -> Iterator[Recording]:
    with any_server.client(protocol=2) as client:
        yield Recording(client)


# --- adding

# Outcomes of adds of an item that is queued with score 5, and of a new one: flags, then the
# outcomes of the scores 4, 5 and 6, and of a new item. a: added, u: updated, r: refused.
FLAGS: list[tuple[tuple[str, ...], str, str]] = [
    ((), "uuu", "a"),
    (("nx",), "rrr", "a"),
    (("lt",), "urr", "a"),
    (("gt",), "rru", "a"),
    (("xx",), "uru", "r"),
    (("xx", "lt"), "urr", "r"),
    (("xx", "gt"), "rru", "r"),
]
DUPLICATES = {"move": (), "keep": ("nx",), "lowest": ("lt",), "highest": ("gt",)}


def table(outcome: str) -> AddResult:
    return AddResult(outcome.count("a"), outcome.count("u"), outcome.count("r"), 0)


@pytest.mark.parametrize(("names", "to_queued", "to_new"), FLAGS, ids=lambda value: "+".join(value))
def test_flags_decide_an_add(
    make_set: Callable[..., Any], raw: Any, names: tuple[str, ...], to_queued: str, to_new: str
) -> None:
    jobs = make_set()
    flags = dict.fromkeys(names, True)
    for item, score, outcome in [
        *zip(itertools.repeat("queued"), (4, 5, 6), to_queued, strict=False),
        ("new", 0, to_new),
    ]:
        before = 5.0 if item == "queued" else None
        after = before if outcome == "r" else float(score)

        def reset() -> None:
            raw.flushall()
            jobs.add("queued", 5)

        reset()
        assert jobs.add(item, score, **flags) == (None if outcome == "r" else score)
        assert jobs.score(item) == after
        reset()
        assert jobs.add_many([item], score, **flags) == table(outcome)
        assert jobs.score(item) == after
        reset()
        assert list(jobs.add_new([item], score, **flags)) == ([item] if outcome == "a" else [])
        assert jobs.score(item) == after


@pytest.mark.parametrize("duplicates", DUPLICATES)
def test_duplicates_decides_an_add_without_flags(
    make_set: Callable[..., Any], duplicates: str
) -> None:
    by_option = make_set(name="a", duplicates=duplicates)
    by_flag = make_set(name="b")
    flags = dict.fromkeys(DUPLICATES[duplicates], True)
    items, scores = list("aabbabcc"), [5, 5, 3, 2, 4, 6, 1, 0]
    assert by_option.add_many(items, scores) == by_flag.add_many(items, scores, **flags)
    for score in (5, 4, 9, 4):
        assert by_option.add("a", score) == by_flag.add("a", score, **flags)
        assert by_option.score("a") == by_flag.score("a")
    # A call's own flags go before it.
    assert by_option.add("b", -5, lt=True) == by_option.add("b", 50, gt=True) - 55 == -5
    assert by_option.add("b", 7, nx=True) is None
    assert by_option.add("nobody", 7, xx=True) is None


@pytest.mark.parametrize(
    ("names", "outcomes", "score"),
    [
        ((), "auuuu", 4),
        (("nx",), "arrrr", 3),
        (("lt",), "aurur", 1),
        (("gt",), "arurr", 5),
        (("xx",), "rrrrr", None),
    ],
    ids=lambda value: str(value),
)
def test_an_item_that_is_twice_in_a_call_is_added_twice_in_order(
    make_set: Callable[..., Any], names: tuple[str, ...], outcomes: str, score: float | None
) -> None:
    flags = dict.fromkeys(names, True)
    scores = [3, 2, 5, 1, 4]
    for given in (scores, iter(scores)):
        jobs = make_set()
        jobs.clear()
        assert jobs.add_many(["a"] * 5, given, **flags) == table(outcomes)
        assert jobs.score("a") == score
    jobs.clear()
    assert list(jobs.add_new(["a"] * 5, scores, **flags)) == ["a"] * outcomes.count("a")
    # The same if its places are in different chunks.
    jobs.clear()
    filler = [f"filler-{number}" for number in range(700)]
    items = ["a", *filler, "a", *filler, "a", *filler, "a", *filler, "a"]
    spread = [0.0] * len(items)
    for place, each in zip([i for i, item in enumerate(items) if item == "a"], scores, strict=True):
        spread[place] = each
    jobs.add_many(items, spread, **flags)
    assert jobs.score("a") == score


def test_xx_changes_scores_and_adds_nothing(make_set: Callable[..., Any], raw: Any) -> None:
    jobs = make_set()
    jobs.add_many(["a", "b"], [1, 2])
    result = jobs.add_many(["a", "a", "b", "c", "a"], [1, 5, 3, 9, 5], xx=True)
    assert result == (0, 2, 3, 0)
    assert queued(raw) == [(b"b", 3.0), (b"a", 5.0)]


def test_many_items_may_share_a_score_or_have_one_each(
    make_set: Callable[..., Any], raw: Any
) -> None:
    jobs = make_set()
    assert jobs.add_many(("a", "b")) == AddResult(added=2)
    assert jobs.add_many({"a": 1, "c": 2}.keys(), 7) == AddResult(added=1, updated=1)
    assert jobs.add_many((item for item in "cd"), (score for score in (8, 9))) == (1, 1, 0, 0)
    assert jobs.add_many([], [1][1:]) == jobs.add_many(iter(()), 3) == AddResult()
    assert queued(raw) == [(b"b", 0.0), (b"a", 7.0), (b"c", 8.0), (b"d", 9.0)]


def test_counts_are_those_of_a_set_over_many_chunks(make_set: Callable[..., Any], raw: Any) -> None:
    jobs = make_set()
    items = [f"{number * 7919 % 3000:04}" for number in range(5000)]
    assert jobs.add_many(items, range(5000)) == (3000, 2000, 0, 0)
    assert jobs.add_many(iter(items[:2000]), nx=True) == (0, 0, 2000, 0)
    last = {item: float(score) for score, item in enumerate(items)}
    assert dict(queued(raw)) == {item.encode(): score for item, score in last.items()}


def test_new_items_are_yielded_once_and_in_order_of_the_input(make_set: Callable[..., Any]) -> None:
    jobs = make_set()
    jobs.add_many([f"{number}" for number in range(0, 3000, 3)])
    items = [f"{number * 7919 % 3000}" for number in range(4500)]
    expected = [item for item in dict.fromkeys(items) if int(item) % 3]
    assert list(jobs.add_new(items)) == expected
    assert list(jobs.add_new(iter(items))) == []


def test_new_items_are_the_callers_own_objects(make_set: Callable[..., Any]) -> None:
    item = {"n": 1}
    (new,) = make_set(serializer=JSONSerializer()).add_new([item, {"n": 1}])
    assert new is item


def test_nothing_is_added_before_the_first_new_item_is_asked_for(
    make_set: Callable[..., Any],
) -> None:
    jobs = make_set()
    new = jobs.add_new(["a", "b"])
    assert jobs.size() == 0
    assert next(new) == "a"
    assert "a" in jobs


def test_new_items_go_on_past_bad_ones_that_are_skipped(make_set: Callable[..., Any]) -> None:
    jobs = make_set(serializer=JSONSerializer())
    bad: list[tuple[int, Any]] = []
    new = jobs.add_new(
        [1, {2}, 3, 3, {4}], errors=lambda index, item, error: bad.append((index, item))
    )
    assert list(new) == [1, 3]
    assert bad == [(1, {2}), (4, {4})]


def test_infinities_are_scores(make_set: Callable[..., Any], raw: Any) -> None:
    jobs = make_set()
    assert jobs.add("last", INF) == INF
    assert jobs.add_many(["first", "middle"], [-INF, 1e308]).added == 2
    assert jobs.scores(["first", "middle", "last"]) == [-INF, 1e308, INF]
    assert jobs.add("last", INF, gt=True) is None
    assert jobs.add("middle", -INF, lt=True) == -INF
    assert jobs.add("middle", 0, gt=True) == 0
    assert jobs.peek_score() == -INF
    assert list(jobs) == ["first", "middle", "last"]
    assert jobs.take(3, with_scores=True) == [("first", -INF), ("middle", 0.0), ("last", INF)]


# --- scorers


class Link:
    def __init__(self, depth: float) -> None:
        self.depth = depth

    def __str__(self) -> str:
        return f"link {self.depth}"


@pytest.mark.parametrize(
    "make",
    [
        lambda depth: {"depth": depth},
        lambda depth: ChainMap({}, {"depth": depth}),
        Link,
        lambda depth: SimpleNamespace(depth=depth),
    ],
    ids=["dict", "mapping", "object", "namespace"],
)
def test_a_field_of_the_item_may_be_its_score(
    make_set: Callable[..., Any], make: Callable[[float], Any]
) -> None:
    for cls in SETS:
        jobs = make_set(cls, scorer="depth")
        assert jobs.scorer == "depth"
        assert jobs.add(make(2.5)) == 2.5
        assert jobs.add_many([make(1), make("0.5")]).added == 2
        assert [score for _, score in jobs.take(3, with_scores=True)] == [0.5, 1, 2.5]


def test_a_key_of_a_mapping_goes_before_an_attribute(make_set: Callable[..., Any]) -> None:
    class Odd(dict[str, Any]):
        depth = 9

    assert make_set(scorer="depth").add(Odd(depth=1)) == 1


def test_a_scorer_is_called_for_items_without_a_score(make_set: Callable[..., Any]) -> None:
    jobs = make_set(scorer=len)
    assert jobs.add("abc") == 3
    assert jobs.add("abc", 9) == 9
    jobs.add_many(["a", "bb"])
    jobs.add_many(["c"], 7)
    assert jobs.scores(["a", "bb", "c", "abc"]) == [1, 2, 7, 9]


def test_a_scorer_may_be_reassigned(make_set: Callable[..., Any]) -> None:
    jobs = make_set()
    assert jobs.add("abc") == 0
    jobs.scorer = len
    assert jobs.scorer is len
    assert jobs.add("abc") == 3
    jobs.scorer = "real"
    assert jobs.add(5) == 5
    assert jobs.add_many([6]).added == 1
    assert jobs.score(6) == 6
    jobs.scorer = None
    assert jobs.add("abc") == 0
    for nothing in (5, [], object()):
        with pytest.raises(TypeError, match="scorer must be"):
            jobs.scorer = nothing
    assert jobs.add("abc") == 0


def test_reused_state_of_bulk_adds_follows_the_present_options(
    make_set: Callable[..., Any],
) -> None:
    for options in ({}, {"key": "url", "remember": True}):
        jobs = make_set(serializer=JSONSerializer(), scorer=lambda item: 1, **options)
        number = 0

        def added(score: Any = None, nx: bool = False, jobs: Any = jobs) -> float:
            nonlocal number
            number += 1
            item = {"url": f"/{number}", "depth": number}
            assert jobs.add_many([item], score, nx=nx).added == 1
            return float(jobs.score(item))

        assert [added(), added()] == [1, 1]
        # More than are kept, one after the other and again.
        assert [added(score) for score in [*range(20), *range(20)]] == [*range(20), *range(20)]
        assert added(5, nx=True) == 5
        for round in range(3):
            jobs.scorer = lambda item, round=round: 100 + round
            assert added() == 100 + round
        jobs.scorer = "depth"
        assert added() == number
        jobs.serializer = spelled = Spelled()
        assert added() == number
        assert spelled.asked
        jobs.clear()
        assert added() == number
        jobs.clear()


class Spelled(JSONSerializer):
    """JSON, and whether it was asked for."""

    asked = False

    def dumps(self, obj: Any) -> bytes:
        self.asked = True
        return super().dumps(obj)


# --- times


def test_a_time_set_is_first_in_first_out_also_when_the_clock_stands_still(
    make_set: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    jobs = make_set(TimeSortedSet)
    items = [f"{number * 7919 % 1200:04}" for number in range(1200)]
    for item in items[:20]:
        assert now <= jobs.add(item) < now + 0.001
    assert jobs.add_many(items[20:600]).added == 580
    assert jobs.add_many(iter(items[600:])).added == 600
    assert jobs.take(2000) == items
    # A clock that is set back a little does not let a later item overtake.
    jobs.add("b")
    monkeypatch.setattr(time, "time", lambda: now - 0.5)
    jobs.add("a")
    assert jobs.take(2) == ["b", "a"]


def test_a_time_set_has_the_time_of_its_producer(
    make_set: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000.25)
    jobs = make_set(TimeSortedSet)
    assert jobs.add("a") == 1000.25
    assert jobs.add_many(["b"]).added == 1
    assert jobs.score("b") == pytest.approx(1000.25)


def test_a_time_set_that_keeps_is_first_in_first_out_with_duplicates(
    make_set: Callable[..., Any],
) -> None:
    jobs = make_set(TimeSortedSet, duplicates="keep")
    jobs.add_many(["b", "a", "b", "c", "a"])
    jobs.add("b")
    assert jobs.take(5) == ["b", "a", "c"]


def test_an_item_without_a_score_is_due_at_once(make_set: Callable[..., Any]) -> None:
    later = make_set(ScheduledSet)
    for number in range(30):
        later.add(number)
        assert later.pop() == str(number)
        assert later.add_many([number, -number - 1]).added == 2
        assert len(later.take(2)) == 2


def test_the_servers_time_is_asked_for_once_a_minute_and_never_overtaken(
    any_server: servers.Server,
    recording: Recording,
    any_implementation: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passed = [0.0]
    start = scoring.monotonic()
    monkeypatch.setattr(scoring, "monotonic", lambda: start + passed[0])

    def asked() -> int:
        return sum(str(args[0]).upper() == "TIME" for args in recording.sent)

    later: ScheduledSet[str] = ScheduledSet(recording, "later")
    first = later.add("a")
    for number in range(50):
        later.add(f"{number}")
        later.add_many([f"m{number}"])
    assert asked() == 1
    # This machine's clock ran 59 seconds; one that runs fast by 0.05 % is not ahead.
    passed[0] = 59
    second = later.add("b")
    assert asked() == 1
    assert second == pytest.approx(first + 59 * 0.9995, abs=0.001)
    passed[0] = 61
    third = later.add("c")
    assert asked() == 2
    assert third <= server_time(any_server.raw)
    assert third == pytest.approx(first, abs=30)


def test_a_scheduled_set_hands_an_item_out_when_it_is_due_and_not_before(
    make_set: Callable[..., Any], raw: Any
) -> None:
    later = make_set(ScheduledSet)
    due = server_time(raw) + 0.1
    later.add("a", due)
    while True:
        before = server_time(raw)
        try:
            assert later.pop() == "a"
            break
        except KeyError:
            assert before <= due
            time.sleep(0.005)
    assert server_time(raw) >= due


def test_a_scheduled_set_shows_what_is_due_and_counts_all(
    make_set: Callable[..., Any], raw: Any
) -> None:
    later = make_set(ScheduledSet)
    now = server_time(raw)
    later.add_many(["future", "never"], [now + 3600, INF])
    assert (later.size(), len(later), bool(later), later.available()) == (2, 2, True, 0)
    assert later.peek_many(5) == later.take(5) == []
    assert later.peek_score() is None
    for call in (later.pop, later.peek, lambda: later.peek(-1)):
        with pytest.raises(KeyError):
            call()
    later.add_many(["always", "past"], [-INF, now - 1])
    assert (later.size(), later.available()) == (4, 2)
    assert list(later) == ["always", "past", "future", "never"]
    assert later.scores(["always", "never"]) == [-INF, INF]
    assert (later.peek(), later.peek(1), later.peek(-1)) == ("always", "past", "past")
    assert later.peek_score() == -INF
    assert later.peek_many(5) == ["always", "past"]
    with pytest.raises(KeyError):
        later.peek(2)
    assert later.take(1, with_scores=True) == [("always", -INF)]
    assert later.pop() == "past"
    assert later.discard("never")
    assert "future" in later
    assert later.clear() == 1


# --- handing out


def test_the_lowest_comes_first(make_set: Callable[..., Any]) -> None:
    jobs = make_set()
    jobs.add_many(["c", "a", "d", "b"], [-1.5, 2, 10, 2])
    assert (jobs.pop(), jobs.take(2), jobs.take(9)) == ("c", ["a", "b"], ["d"])


def test_take_returns_scores_with_with_scores(make_set: Callable[..., Any]) -> None:
    jobs = make_set()
    jobs.add_many(["a", "b", "c"], [0.1, 1 / 3, 1732500000.1234567])
    assert jobs.take(1, with_scores=True) == [("a", 0.1)]
    assert jobs.take(9, with_scores=True) == [("b", 1 / 3), ("c", 1732500000.1234567)]
    assert jobs.take(9, with_scores=True) == []


def test_less_than_one_is_nothing(make_set: Callable[..., Any]) -> None:
    for cls in SETS:
        jobs = make_set(cls)
        jobs.add("a", 1)
        for num in (0, -1, -(10**6)):
            assert jobs.take(num) == jobs.take(num, with_scores=True) == jobs.peek_many(num) == []
        assert jobs.size() == 1


@pytest.mark.parametrize("cls", SETS)
def test_a_take_of_many_is_in_order_and_leaves_the_rest(
    make_set: Callable[..., Any], cls: type[SortedSet[Any]]
) -> None:
    jobs = make_set(cls)
    items = [f"{number:04}" for number in range(4600)]
    jobs.add_many(items, range(4600))
    assert jobs.take(4100) == items[:4100]
    assert jobs.take(4100, with_scores=True) == [
        (item, float(score)) for score, item in enumerate(items[4100:], 4100)
    ]
    assert jobs.size() == 0


# --- looking


def test_peek_counts_positions_from_either_end(make_set: Callable[..., Any], raw: Any) -> None:
    jobs = make_set()
    jobs.add_many(["a", "b", "c"], [1, 2, 3])
    before = queued(raw)
    assert [jobs.peek(position) for position in (0, 1, 2, -1, -2, -3)] == list("abccba")
    for position in (3, -4, 10**9, -(10**9)):
        with pytest.raises(KeyError):
            jobs.peek(position)
    assert jobs.peek_score() == 1
    assert [jobs.peek_many(num) for num in (1, 3, 5)] == [["a"], list("abc"), list("abc")]
    assert queued(raw) == before


def test_scores_are_given_in_the_order_asked(make_set: Callable[..., Any]) -> None:
    jobs = make_set()
    items = [f"{number}" for number in range(2500)]
    jobs.add_many(items[::2], range(0, 2500, 2))
    expected = [float(number) if number % 2 == 0 else None for number in range(2500)]
    assert jobs.scores(items) == expected
    assert jobs.scores(iter(items[::-1])) == expected[::-1]
    assert jobs.scores([]) == []
    assert type(jobs.score("2")) is float
    assert jobs.score("1") is None


def test_an_item_is_looked_up_by_its_stored_bytes(make_set: Callable[..., Any]) -> None:
    jobs = make_set()
    jobs.add(5, 2)
    for same in (5, "5", b"5", Key("5"), Key(5)):
        assert same in jobs
        assert jobs.contains(same) is True
        assert jobs.score(same) == 2
        assert jobs.get(same) == "5"
    assert "6" not in jobs
    assert jobs.contains(6) is False
    assert jobs.get(6) is None
    assert jobs.discard(Key(b"5"))


def test_size_counts_and_an_empty_set_is_false(make_set: Callable[..., Any]) -> None:
    jobs = make_set()
    assert (jobs.size(), len(jobs), bool(jobs), jobs.stats().available) == (0, 0, False, 0)
    jobs.add("a")
    jobs.add("b", INF)
    assert (jobs.size(), len(jobs), bool(jobs), jobs.stats().available) == (2, 2, True, 2)


@pytest.mark.parametrize("options", [{}, {"key": str}], ids=["plain", "key"])
def test_iteration_is_in_order_of_score_over_many_pages(
    make_set: Callable[..., Any], options: Any
) -> None:
    jobs = make_set(serializer=json, **options)
    assert list(jobs) == []
    numbers = [number * 7919 % 2300 for number in range(2300)]
    jobs.add_many(numbers, [number // 500 if number else -INF for number in numbers])
    found = list(jobs)
    assert sorted(found) == list(range(2300))
    assert [number // 500 for number in found] == sorted(number // 500 for number in numbers)
    assert found[0] == 0
    if not options:
        texts = [(number // 500, str(number)) for number in found[1:]]
        assert texts == sorted(texts)


def test_iteration_fetches_a_page_at_a_time(recording: Recording) -> None:
    jobs: SortedSet[str] = SortedSet(recording, "jobs")
    jobs.add_many(f"{number}" for number in range(5000))
    recording.sent.clear()
    recording.answers.clear()
    found = iter(jobs)
    assert not recording.sent
    next(found)
    assert sum(isinstance(answer, list) for answer in recording.answers) == 1
    assert sum(1 for _ in found) == 4999
    pages = [answer[0] for answer in recording.answers if isinstance(answer, list)]
    assert len(pages) >= 5
    assert max(map(len, pages)) <= 1000


@pytest.mark.parametrize("options", [{}, {"key": str}], ids=["plain", "key"])
@pytest.mark.parametrize("scores", ["equal", "few", "rising", "infinite"])
def test_iteration_sees_a_staying_item_exactly_once_whatever_changes_around_it(
    any_server: servers.Server,
    server_client: redis.Redis,
    options: Any,
    scores: str,
) -> None:
    jobs: SortedSet[str] = SortedSet(server_client, "jobs", **options)
    other: SortedSet[str] = SortedSet.from_url(any_server.url, "jobs", **options)
    count = 3500
    score_of = {
        "equal": lambda number: 1.1,
        "few": lambda number: number // 900 + 0.1,
        "rising": lambda number: 1732500000.1234567 + number,
        "infinite": lambda number: -INF if number < count // 2 else INF,
    }[scores]
    # Bytes that no locale orders as they are, and of different lengths.
    items = [f"{chr(65 + number * 7 % 57)}é{number}" for number in range(count)]
    jobs.add_many(items, map(score_of, range(count)))
    stay = set(items[::3])
    come_and_go = [item for item in items if item not in stay]
    seen: list[str] = []
    for place, item in enumerate(jobs):
        seen.append(item)
        if place % 50 == 0:
            # Some before, some after, and the one that the next page would go on after.
            gone = [item, *come_and_go[-20:], *come_and_go[:20]]
            other.discard_many([each for each in gone if each not in stay])
            del come_and_go[-20:], come_and_go[:20]
            other.add_many([f"new {place} {each}" for each in range(10)], score_of(place))
    other.close()
    assert len([item for item in seen if item in stay]) == len(stay)
    assert stay <= set(seen)


@pytest.mark.parametrize("change", ["nothing", "moved", "swapped", "emptied"])
def test_a_page_by_rank_begins_after_the_last_member_seen(
    server_client: redis.Redis, change: str
) -> None:
    jobs: SortedSet[str] = SortedSet(server_client, "jobs")
    items = [f"{number:04}" for number in range(2500)]
    jobs.add_many(items, range(2500))
    stay = items
    found = iter(jobs)
    seen = [next(found) for _ in range(1000)]  # the first page
    if change == "moved":
        # The last one seen is at its rank again, behind 501 items that were not seen.
        jobs.discard_many(items[:501])
        jobs.add("0999", 1500.5)
        assert jobs.peek(999) == "0999"
        stay = [item for item in items[501:] if item != "0999"]
    elif change == "swapped":
        jobs.discard("0005")
        jobs.add("new", 3.5)
        stay = [item for item in items if item != "0005"]
    elif change == "emptied":
        jobs.clear()
        stay = items[:1000]
    seen += found
    assert [item for item in seen if item in set(stay)] == stay
    if change in ("nothing", "swapped"):
        assert seen == items


@pytest.mark.parametrize("options", [{}, {"key": str}], ids=["plain", "key"])
def test_items_may_be_removed_as_an_iteration_comes_by_them(
    server_client: redis.Redis, options: Any
) -> None:
    jobs: SortedSet[str] = SortedSet(server_client, "jobs", **options)
    # Each is the beginning of the next, and all have one score.
    items = ["a" * length for length in range(1, 1203)]
    jobs.add_many(items)
    seen = []
    for item in jobs:
        seen.append(item)
        assert jobs.discard(item)
    assert sorted(seen) == items
    assert jobs.size() == 0


@pytest.mark.parametrize("cls", SETS)
def test_stats_are_the_set_in_figures(
    make_set: Callable[..., Any], raw: Any, cls: type[SortedSet[Any]]
) -> None:
    jobs = make_set(cls)
    assert jobs.stats() == Stats(0, 0, 0, 0, 0, None, None, 0, 0)
    now = server_time(raw)
    jobs.add_many(["a", "b", "c"], [now - 100, now - 1, now + 3600])
    stats = jobs.stats()
    assert stats._fields[:5] == ("size", "available", "leased", "dead", "remembered")
    assert stats[:5] == (3, 2 if cls is ScheduledSet else 3, 0, 0, 0)
    assert stats.oldest_score == now - 100
    if cls is SortedSet:
        assert stats.oldest_age is None
    else:
        assert 100 <= stats.oldest_age < 160
    jobs.serializer = JSONSerializer()
    jobs.take(1)
    assert jobs.stats()[:5] == (2, 1 if cls is ScheduledSet else 2, 0, 1, 0)


def test_the_age_of_the_oldest_goes_by_the_servers_clock(
    server_client: redis.Redis, any_server: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = server_time(any_server.raw)
    monkeypatch.setattr(time, "time", lambda: now + 5000)
    times: TimeSortedSet[str] = TimeSortedSet(server_client, "times")
    times.add("a", now - 100)
    assert times.stats().oldest_age == pytest.approx(100, abs=60)


def test_stats_of_infinite_scores(make_set: Callable[..., Any]) -> None:
    for cls in (TimeSortedSet, ScheduledSet):
        jobs = make_set(cls)
        jobs.add("never", INF)
        assert jobs.stats()[5:7] == (INF, -INF)
        jobs.add("always", -INF)
        assert jobs.stats()[5:7] == (-INF, INF)
        jobs.clear()


@pytest.mark.parametrize("remember", [True, 3600], ids=["ever", "limited"])
def test_stats_count_what_is_remembered(make_set: Callable[..., Any], remember: Any) -> None:
    jobs = make_set(remember=remember)
    jobs.add_many(f"{number}" for number in range(1000))
    assert len(jobs.take(900)) == 900
    assert jobs.forget("0")
    stats = jobs.stats()
    assert (stats.size, stats.remembered) == (100, 999)


@pytest.mark.parametrize(
    "options",
    [{}, {"key": str}, {"remember": True}, {"remember": 3600}],
    ids=["plain", "key", "ever", "limited"],
)
def test_stats_estimate_the_memory_of_all_keys(
    any_server: servers.Server, server_client: redis.Redis, options: Any
) -> None:
    jobs: SortedSet[str] = SortedSet(server_client, "jobs", **options)
    assert jobs.stats().memory_bytes == 0
    jobs.add_many(f"{number}" for number in range(3000))
    jobs.take(1000)
    measured = sum(any_server.raw.memory_usage(key) for key in any_server.raw.scan_iter())
    assert jobs.stats().memory_bytes == pytest.approx(measured, rel=0.3)


# --- removing


def test_discard_returns_whether_the_item_was_queued(
    make_set: Callable[..., Any], raw: Any
) -> None:
    jobs = make_set()
    jobs.add_many(["a", "b", "c"])
    assert jobs.discard("a") is True
    assert jobs.discard("a") is False
    assert jobs.remove("b") is None
    with pytest.raises(KeyError, match="'b'"):
        jobs.remove("b")
    assert queued(raw) == [(b"c", 0.0)]


def test_discard_many_returns_the_number_of_removed_items(
    make_set: Callable[..., Any], raw: Any
) -> None:
    jobs = make_set()
    items = [f"{number}" for number in range(2500)]
    jobs.add_many(items[:2000])
    assert jobs.discard_many(iter(items[100:] + ["1999", "none"])) == 1900
    assert jobs.discard_many(items[:2] * 2) == 2
    assert jobs.discard_many([]) == 0
    assert raw.zcard("jobs") == 98


def test_clear_leaves_nothing(make_set: Callable[..., Any], raw: Any) -> None:
    for cls in SETS:
        jobs = make_set(cls, serializer=JSONSerializer())
        jobs.add_many([1, 2, 3], range(3))
        raw.zadd("jobs", {"no json": -1})
        raw.set("another", "x")
        assert jobs.take(1) == []
        assert jobs.dead.size() == 1
        assert jobs.clear()
        assert servers.keys(raw) == [b"another"]
        assert not jobs.clear()
        assert (jobs.size(), jobs.dead.size()) == (0, 0)
        assert jobs.add(1, 1) == 1
        jobs.clear()


# --- serializers


class Asking:
    """A serializer that keeps its arguments."""

    def __init__(self) -> None:
        self.given: list[Any] = []

    def dumps(self, item: Any) -> bytes:
        return item if isinstance(item, bytes) else str(item).encode()

    def loads(self, data: Any) -> Any:
        self.given.append(data)
        return data


def ways_out(jobs: Any) -> Iterator[Any]:
    """One item, by every way that it comes out."""
    yield jobs.peek()
    yield jobs.peek_many(1)[0]
    yield next(iter(jobs))
    yield jobs.get(Key("é"))
    yield jobs.pop()
    jobs.add("é")
    yield jobs.take(1)[0]
    jobs.add("é")
    yield jobs.take(1, with_scores=True)[0][0]


@pytest.mark.parametrize("options", [{}, {"key": lambda item: item}], ids=["plain", "key"])
@pytest.mark.parametrize(
    ("binary", "given"),
    [(True, "é".encode()), (False, "é"), (None, "é"), (..., "é")],
    ids=["True", "False", "None", "not said"],
)
def test_a_serializer_is_given_what_it_asks_for(
    make_set: Callable[..., Any], binary: Any, given: Any, options: Any
) -> None:
    asking = Asking()
    if binary is not ...:
        asking.binary = binary  # type: ignore[attr-defined]
    jobs = make_set(serializer=asking, **options)
    jobs.add("é")
    out = list(ways_out(jobs))
    assert out == [given] * 7
    assert set(map(type, asking.given)) == {type(given)}


def test_a_serializer_without_binary_receives_bytes_that_are_not_text(
    any_server: servers.Server, server_client: redis.Redis, any_implementation: str
) -> None:
    asking = Asking()
    jobs: SortedSet[Any] = SortedSet(server_client, "jobs", serializer=asking)
    jobs.add_many([b"\xff", "é"], [1, 2])
    assert jobs.take(2) == asking.given[-2:] == [b"\xff", "é"]


def test_a_serializer_that_raises_on_text_is_given_the_bytes(
    make_set: Callable[..., Any],
) -> None:
    class Bytes(Asking):
        def loads(self, data: Any) -> Any:
            self.given.append(data)
            if data == b"bad":
                raise ValueError("not this")
            return data.decode()

    serializer = Bytes()
    jobs = make_set(serializer=serializer)
    jobs.add_many(["a", "bad"], [1, 2])
    assert jobs.pop() == "a"
    assert serializer.given[-2:] == ["a", b"a"]
    assert jobs.take(1) == []
    # The error is that of the text, which was asked for.
    assert [letter.reason for letter in jobs.dead] == [
        "AttributeError: 'str' object has no attribute 'decode'"
    ]


def test_a_serializer_of_text_never_sees_bytes_that_are_not_text(
    server_client: redis.Redis, any_implementation: str
) -> None:
    asking = Asking()
    asking.binary = False  # type: ignore[attr-defined]
    jobs: SortedSet[Any] = SortedSet(server_client, "jobs", serializer=asking)
    jobs.add_many([b"\xff", "a"], [1, 2])
    assert jobs.take(2) == ["a"]
    assert asking.given[-1] == "a"
    assert b"\xff" not in asking.given
    (letter,) = jobs.dead
    assert letter.raw == b"\xff"
    assert "UnicodeDecodeError" in letter.reason


def test_without_a_serializer_items_are_text(make_set: Callable[..., Any]) -> None:
    jobs = make_set()
    jobs.add_many(["é", b"\xc3\xa4", 5], [1, 2, 3])
    assert jobs.peek_many(3) == list(jobs) == jobs.take(3) == ["é", "ä", "5"]


def test_without_a_serializer_bytes_that_are_not_text_cannot_be_decoded(
    any_server: servers.Server, server_client: redis.Redis, any_implementation: str
) -> None:
    jobs: SortedSet[str] = SortedSet(server_client, "jobs")
    jobs.add_many([b"\xff", "a"], [1, 2])
    with pytest.raises(DecodeError):
        jobs.peek()
    assert jobs.pop() == "a"
    assert [letter.raw for letter in jobs.dead] == [b"\xff"]
    binary = SimpleNamespace(binary=True, loads=lambda data: data)
    jobs = SortedSet(server_client, "jobs", serializer=binary)
    jobs.add(b"\xff")
    assert jobs.pop() == b"\xff"


def test_a_method_that_a_serializer_lacks_has_the_default(
    make_set: Callable[..., Any], raw: Any
) -> None:
    class Undefined(Serializer):
        pass

    class OnlyDumps(Serializer):
        def dumps(self, obj: Any) -> str:
            return json.dumps(obj)

    class OnlyLoads(Serializer):
        def loads(self, data: Any) -> Any:
            return json.loads(data)

    cases: list[tuple[Any, Any, bytes, Any]] = [
        (json, [1], b"[1]", [1]),
        (OnlyDumps(), {"a": 1}, b'{"a": 1}', '{"a": 1}'),
        (SimpleNamespace(dumps=json.dumps), {"a": 1}, b'{"a": 1}', '{"a": 1}'),
        (OnlyLoads(), [1, 2], b"[1, 2]", [1, 2]),
        (SimpleNamespace(loads=json.loads), "[3]", b"[3]", [3]),
        (Undefined(), {"a": 1}, b"{'a': 1}", "{'a': 1}"),
        (object(), {"a": 1}, b"{'a': 1}", "{'a': 1}"),
        (None, {"a": 1}, b"{'a': 1}", "{'a': 1}"),
    ]
    for serializer, item, stored, out in cases:
        jobs = make_set(serializer=serializer)
        if serializer is not None:
            assert jobs.serializer is serializer
        jobs.add(item)
        assert queued(raw) == [(stored, 0.0)]
        assert item in jobs
        assert jobs.pop() == out
        jobs.add_many([item])
        assert queued(raw) == [(stored, 0.0)]
        assert jobs.take(1) == [out]


def test_with_a_key_the_default_is_json(make_set: Callable[..., Any], raw: Any) -> None:
    item = {"url": "/a", "depth": 1}
    for serializer in (None, object(), Serializer()):
        pages = make_set(name="pages", key="url", serializer=serializer)
        pages.add(item)
        assert raw.hvals("pages:{pages}:items") == [b'{"depth":1,"url":"/a"}']
        assert pages.pop() == item


def test_a_serializer_may_be_reassigned(make_set: Callable[..., Any], raw: Any) -> None:
    jobs = make_set()
    jobs.add("1", 1)
    jobs.serializer = JSONSerializer()
    assert jobs.peek() == 1
    jobs.add({"b": 1, "a": 2}, 2)
    jobs.serializer = json
    jobs.add({"b": 1, "a": 2}, 3)
    jobs.serializer = None
    assert queued(raw) == [(b"1", 1.0), (b'{"a":2,"b":1}', 2.0), (b'{"b": 1, "a": 2}', 3.0)]
    assert jobs.take(3) == ["1", '{"a":2,"b":1}', '{"b": 1, "a": 2}']


# --- items that cannot be decoded


class Numbers:
    """A serializer that most texts are beyond."""

    def dumps(self, item: Any) -> str:
        return str(item)

    def loads(self, text: str) -> int:
        return int(text)


def fill(raw: redis.Redis, good: int, bad: int, start: int = 0) -> list[bytes]:
    """Queue so many members that Numbers cannot read, each lower than all that it can."""
    members = [f"bad {number:04}".encode() for number in range(start, start + bad)]
    scores: dict[Any, float] = {member: place - bad for place, member in enumerate(members, start)}
    scores.update({str(number): 10_000 + number for number in range(good)})
    if scores:
        raw.zadd("jobs", scores)
    return members


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.message
        for record in caplog.records
        if record.name.startswith("redset") and record.levelno == logging.WARNING
    ]


@pytest.mark.parametrize("cls", SETS)
def test_undecodable_members_are_kept_as_dead_letters_and_the_others_returned(
    make_set: Callable[..., Any],
    raw: Any,
    caplog: pytest.LogCaptureFixture,
    cls: type[SortedSet[Any]],
) -> None:
    jobs = make_set(cls, serializer=Numbers())
    raw.zadd("jobs", {"1": 1, "x": 2, "3": 3, "yé": 4, "5": 5, "z": 6, "7": 7})
    before = server_time(raw)
    assert jobs.take(5) == [1, 3, 5]
    assert "2 items" in warnings(caplog)[0]
    assert jobs.pop() == 7
    assert len(warnings(caplog)) == 1  # once a process and set
    letters = list(jobs.dead)
    assert all(type(letter) is DeadLetter for letter in letters)
    assert [letter.raw for letter in letters] == [b"x", "yé".encode(), b"z"]
    for letter in letters:
        assert letter.reason.startswith("ValueError: invalid literal for int()")
        assert letter.score is None
        assert letter.attempts == 0
        assert before - 0.001 <= letter.time <= server_time(raw)
    assert len({letter.id for letter in letters}) == 3
    assert jobs.size() == 0
    assert servers.keys(raw) == [b"jobs:{jobs}:dead"]


def test_scores_stay_with_their_items_if_others_cannot_be_decoded(
    make_set: Callable[..., Any], raw: Any
) -> None:
    raw.zadd("jobs", {"x": 1, "2": 2, "y": 3, "4": 4})
    assert make_set(serializer=Numbers()).take(9, with_scores=True) == [(2, 2.0), (4, 4.0)]


def test_pop_goes_on_to_the_first_item_that_can_be_decoded(
    make_set: Callable[..., Any], raw: Any
) -> None:
    jobs = make_set(serializer=Numbers())
    members = fill(raw, good=2, bad=4)
    assert jobs.pop() == 0
    assert [letter.raw for letter in jobs.dead] == members
    assert jobs.pop() == 1
    fill(raw, good=0, bad=3)
    with pytest.raises(KeyError):
        jobs.pop()
    assert (jobs.size(), jobs.dead.size()) == (0, 7)


def test_a_take_that_met_undecodable_members_goes_on_after_them(
    make_set: Callable[..., Any], raw: Any
) -> None:
    jobs = make_set(serializer=Numbers())
    jobs.add(5, 20_000)
    members = fill(raw, good=9, bad=2500)
    jobs.add(-1, -5000)
    assert jobs.take(2504) == [-1, 0, 1, 2]
    assert [letter.raw for letter in jobs.dead] == members
    assert jobs.dead.size() == len(jobs.dead) == 2500


REMOVALS: dict[str, Callable[[Any], Any]] = {
    "pop": lambda jobs: jobs.pop(),
    "take one": lambda jobs: jobs.take(1),
    "take many": lambda jobs: jobs.take(100),
    "take with scores": lambda jobs: jobs.take(100, with_scores=True),
}


@pytest.mark.parametrize("cls", SETS)
@pytest.mark.parametrize("how", REMOVALS)
def test_a_consumer_with_the_wrong_serializer_removes_nothing(
    make_set: Callable[..., Any], raw: Any, cls: type[SortedSet[Any]], how: str
) -> None:
    members = fill(raw, good=3, bad=10)
    jobs = make_set(cls, serializer=Numbers())
    for _ in range(2):
        with pytest.raises(DecodeError, match="nothing was removed"):
            REMOVALS[how](jobs)
        assert len(queued(raw)) == 13
        assert servers.keys(raw) == [b"jobs"]
    # With the right one it can be taken as if nothing had been.
    assert make_set(cls).take(10) == [member.decode() for member in members]


def test_fewer_than_ten_are_removed_also_if_none_can_be_decoded(
    make_set: Callable[..., Any], raw: Any
) -> None:
    members = fill(raw, good=0, bad=9)
    jobs = make_set(serializer=Numbers())
    assert jobs.take(100) == []
    assert [letter.raw for letter in jobs.dead] == members


def test_one_of_the_first_ten_that_can_be_decoded_is_enough(
    make_set: Callable[..., Any], raw: Any
) -> None:
    fill(raw, good=1, bad=9)
    jobs = make_set(serializer=Numbers())
    assert jobs.take(1) == []
    assert jobs.take(100) == [0]
    assert jobs.dead.size() == 9


def test_an_item_that_is_not_due_is_not_read(make_set: Callable[..., Any], raw: Any) -> None:
    raw.zadd("jobs", {f"bad {number}": server_time(raw) + 3600 for number in range(20)})
    raw.zadd("jobs", {"bad": 1, "1": 2})
    later = make_set(ScheduledSet, serializer=Numbers())
    assert later.take(50) == [1]
    assert (later.size(), later.dead.size()) == (20, 1)


@pytest.mark.parametrize("how", REMOVALS)
def test_after_its_serializer_was_reassigned_a_set_looks_again(
    make_set: Callable[..., Any], raw: Any, how: str
) -> None:
    jobs = make_set()
    jobs.add("right", -10)
    assert jobs.pop() == "right"
    fill(raw, good=0, bad=12)
    jobs.serializer = Numbers()
    with pytest.raises(DecodeError, match="nothing was removed"):
        REMOVALS[how](jobs)
    assert len(queued(raw)) == 12
    assert servers.keys(raw) == [b"jobs"]
    jobs.serializer = None
    assert len(jobs.take(100)) == 12


@pytest.mark.parametrize("options", [{}, {"with_scores": True}], ids=["items", "with scores"])
def test_a_take_that_could_decode_none_of_ten_or_more_raises(
    make_set: Callable[..., Any], raw: Any, options: Any
) -> None:
    jobs = make_set(serializer=Numbers())
    jobs.add(1)
    assert jobs.pop() == 1
    members = fill(raw, good=0, bad=9)
    assert jobs.take(100, **options) == []
    members += fill(raw, good=1, bad=10, start=9)
    assert len(jobs.take(100, **options)) == 1
    members += fill(raw, good=0, bad=10, start=19)
    with pytest.raises(DecodeError, match="they are in dead"):
        jobs.take(100, **options)
    assert [letter.raw for letter in jobs.dead] == members
    assert jobs.size() == 0


def test_a_pop_that_could_decode_none_of_ten_or_more_raises(
    make_set: Callable[..., Any], raw: Any
) -> None:
    jobs = make_set(serializer=Numbers())
    jobs.add(1)
    assert jobs.pop() == 1
    members = fill(raw, good=0, bad=15)
    with pytest.raises(DecodeError, match="dead"):
        jobs.pop()
    # Nothing is lost: the removed items are in dead, the rest where it was.
    letters = [letter.raw for letter in jobs.dead]
    assert len(letters) >= 10
    assert letters + [member for member, _ in queued(raw)] == members


@pytest.mark.parametrize("options", [{}, {"key": str}], ids=["plain", "key"])
def test_looking_never_moves_an_undecodable_item(
    make_set: Callable[..., Any], raw: Any, caplog: pytest.LogCaptureFixture, options: Any
) -> None:
    writer = make_set(serializer=SimpleNamespace(dumps=str), **options)
    writer.add_many(["x", "2", "y", "4", *(f"z{number}" for number in range(20))], range(24))
    before = {key: raw.dump(key) for key in servers.keys(raw)}
    jobs = make_set(serializer=Numbers(), **options)
    for call in (jobs.peek, lambda: jobs.peek(2), lambda: jobs.get(Key("x"))):
        with pytest.raises(DecodeError, match="cannot be decoded") as caught:
            call()
        assert isinstance(caught.value.__cause__, ValueError)
    assert not warnings(caplog)
    assert jobs.peek(1) == 2
    assert jobs.get(Key("4")) == 4
    assert jobs.peek_many(4) == [2, 4]
    assert len(warnings(caplog)) == 1
    assert list(jobs) == [2, 4]
    assert len(warnings(caplog)) == 1  # once a process and set
    assert jobs.score(Key("x")) == jobs.peek_score() == 0
    assert Key("x") in jobs
    assert jobs.size() == 24
    assert {key: raw.dump(key) for key in servers.keys(raw)} == before


def test_an_undecodable_item_may_be_discarded(make_set: Callable[..., Any], raw: Any) -> None:
    fill(raw, good=1, bad=1)
    jobs = make_set(serializer=Numbers())
    assert jobs.discard(Key("bad 0000"))
    assert jobs.pop() == 0
    assert not jobs.dead.size()


def test_dead_letters_are_yielded_oldest_first_over_many_pages(
    any_server: servers.Server, server_client: redis.Redis, any_implementation: str
) -> None:
    jobs: SortedSet[int] = SortedSet(server_client, "jobs", serializer=Numbers())
    members: list[bytes] = []
    jobs.add(-1, -10_000)
    assert jobs.pop() == -1
    for part in range(3):
        members += fill(any_server.raw, good=1, bad=900, start=900 * part)
        assert jobs.take(2000) == [0]
    assert [letter.raw for letter in jobs.dead] == members
    letters = list(jobs.dead)
    assert [letter.time for letter in letters] == sorted(letter.time for letter in letters)
    assert len({letter.id for letter in letters}) == 2700
    assert jobs.dead.purge() == 2700
    assert list(jobs.dead) == []
    assert servers.keys(any_server.raw) == []


def test_dead_letters_from_before_a_time_are_purged(make_set: Callable[..., Any], raw: Any) -> None:
    jobs = make_set(serializer=Numbers())
    assert (jobs.dead.size(), list(jobs.dead), jobs.dead.purge()) == (0, [], 0)
    for text in ("first", "second"):
        raw.zadd("jobs", {text: 1})
        assert jobs.take(1) == []
        time.sleep(0.005)  # the server counts them by the millisecond
    first, second = jobs.dead
    assert first.time < second.time
    assert jobs.dead.purge(before=0) == jobs.dead.purge(before=first.time) == 0
    assert jobs.dead.purge(before=second.time) == 1
    assert list(jobs.dead) == [second]
    assert jobs.dead.purge(before=server_time(raw) + 1) == 1
    assert servers.keys(raw) == []


# --- the object itself


def test_a_set_has_its_name_as_given(make_set: Callable[..., Any], raw: Any) -> None:
    for name, key in (("é", "é".encode()), (b"\xff\0", b"\xff\0"), ("{a}:b", b"{a}:b")):
        jobs = make_set(name=name)
        assert jobs.name == name
        jobs.add("a")
        assert raw.zrange(key, 0, -1) == [b"a"]
    make_set(name=b"jobs").add("a")
    assert make_set(name="jobs").pop() == "a"


def test_sets_hash_by_identity(server_client: redis.Redis) -> None:
    one, other = SortedSet(server_client, "jobs"), SortedSet(server_client, "jobs")
    one.add("a")
    assert hash(one) == hash(one)
    assert hash(one) != hash(other)
    assert {one: 1}[one] == 1
    one.add("b")
    assert len({one, one}) == 1


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "all": {
        "scorer": "n",
        "serializer": JSONSerializer(),
        "lock_timeout": 1,
        "lock_expires": 2,
        "key": "url",
        "remember": True,
        "duplicates": "keep",
        "max_item_bytes": 100,
        "max_size": 10,
    },
}


@pytest.mark.parametrize("cls", SETS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_making_a_set_sends_nothing(
    any_implementation: str, cls: type[SortedSet[Any]], options: Any
) -> None:
    class Silent:
        def execute_command(self, *args: Any) -> Any:
            raise AssertionError(f"sent {args}")

    for client in (Silent(), redis.Redis(unix_socket_path="/nowhere")):
        jobs = cls(client, "jobs", **options)
        assert (jobs.name, hash(jobs), repr(jobs.lock), repr(jobs.dead)) is not None
        jobs.serializer, jobs.scorer = json, None
        jobs.add_new(["a"])


@pytest.mark.parametrize("cls", SETS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_set_costs_under_2_kb(
    any_implementation: str, cls: type[SortedSet[Any]], options: Any
) -> None:
    client = redis.Redis(unix_socket_path="/nowhere")
    cls(client, "warm", **options)
    names = [f"jobs {number}" for number in range(200)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        made = [cls(client, name, **options) for name in names]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / len(made) < 2000


def test_a_set_made_from_a_url_closes_its_own_client(any_server: servers.Server) -> None:
    def connected() -> int:
        return sum(client["name"] == "ours" for client in any_server.raw.client_list())

    url = f"{any_server.url}?client_name=ours"
    for cls in SETS:
        with cls.from_url(url, "jobs", "n", JSONSerializer(), lock_timeout=3) as jobs:
            assert type(jobs) is cls
            assert connected() == 0
            assert jobs.add({"n": 1}) == 1
            assert jobs.pop() == {"n": 1}
            assert jobs.lock.timeout == 3
            assert connected() == 1
        until = time.monotonic() + 40
        while connected() and time.monotonic() < until:
            time.sleep(0.01)
        assert connected() == 0


def test_leaving_a_context_closes_the_set_also_on_an_error(any_server: servers.Server) -> None:
    with pytest.raises(ZeroDivisionError), SortedSet.from_url(any_server.url, "jobs") as jobs:
        jobs.add(1 / 0)
    with pytest.raises(RuntimeError, match="closed"):
        jobs.size()


def test_an_error_of_a_bulk_add_leaves_the_set_as_usable_as_before(
    make_set: Callable[..., Any],
) -> None:
    jobs = make_set(serializer=JSONSerializer())
    with pytest.raises(AddError):
        jobs.add_many([1, {2}])
    assert jobs.add_many([2, 3]) == AddResult(added=2)
    assert jobs.take(5) == [1, 2, 3]


# --- typing

TYPED = """
import json
from typing import Any
import redis
from typing_extensions import assert_type
from redset import ScheduledSet, SortedSet, TimeSortedSet
from redset.serializers import JSONSerializer

class Numbers:
    def dumps(self, obj: int) -> str: return str(obj)
    def loads(self, data: str) -> int: return int(data)

class OnlyDumps:
    def dumps(self, obj: int) -> str: return str(obj)

client = redis.Redis()
"""
TYPES: list[tuple[str, str]] = [
    ('SortedSet(client, "jobs")', "SortedSet[str]"),
    ('SortedSet(client, "jobs", len, None, 1, 2, remember=True)', "SortedSet[str]"),
    ('TimeSortedSet(client, "jobs")', "TimeSortedSet[str]"),
    ('ScheduledSet(client, "jobs", scorer="n")', "ScheduledSet[str]"),
    ('SortedSet(client, "jobs", serializer=Numbers())', "SortedSet[int]"),
    ('TimeSortedSet(client, "jobs", serializer=Numbers())', "TimeSortedSet[int]"),
    ('ScheduledSet(client, "jobs", None, Numbers(), key=str)', "ScheduledSet[int]"),
    ('SortedSet(client, "jobs", serializer=JSONSerializer())', "SortedSet[Any]"),
    ('SortedSet(client, "jobs", serializer=json)', "SortedSet[Any]"),
    ('SortedSet(client, "jobs", serializer=OnlyDumps())', "SortedSet[Any]"),
    ('SortedSet(client, "jobs", key="url")', "SortedSet[Any]"),
    ('SortedSet(client, "jobs").pop()', "str"),
    ('SortedSet(client, "jobs", serializer=Numbers()).pop()', "int"),
    ('SortedSet(client, "jobs", serializer=Numbers()).peek_many(2)', "list[int]"),
    ('list(SortedSet(client, "jobs", serializer=Numbers()))', "list[int]"),
    ('SortedSet(client, "jobs", serializer=Numbers()).get(1)', "int | None"),
    ('SortedSet(client, "jobs").add("a")', "float | None"),
    ('ScheduledSet(client, "jobs", None, Numbers()).__enter__()', "ScheduledSet[int]"),
]


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[str]]:
    """Return the notes of mypy --strict for each line of `TYPES`."""
    if importlib.util.find_spec("mypy") is None:
        raise servers.Missing("mypy: not installed")
    directory = tmp_path_factory.mktemp("typed")
    lines = [
        f"v{number} = {made}; assert_type(v{number}, {type_})"
        for number, (made, type_) in enumerate(TYPES)
    ]
    Path(directory, "typed.py").write_text(TYPED + "\n".join(lines) + "\n")
    package = Path(redset.__file__).parents[1]
    environment = dict(os.environ)
    if package.name != "site-packages":  # there mypy finds it by itself
        environment["MYPYPATH"] = str(package)
    command = ["-m", "mypy", "--strict", "--config-file=", "--cache-dir=cache"]
    command += ["--no-error-summary", "--python-version=3.10", "typed.py"]
    with children.Child(*command, cwd=directory, env=environment) as mypy:
        done = mypy.wait(280)
        assert done.status in (0, 1), str(mypy)
    said: dict[int, list[str]] = {}
    first = TYPED.count("\n") + 1
    for line in done.out.splitlines():
        file, number, message = line.split(":", 2)
        assert file == "typed.py", line
        said.setdefault(int(number) - first, []).append(message.strip())
    return said


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", range(len(TYPES)), ids=lambda number: TYPES[number][0])
def test_items_of_a_set_have_a_type(typed: dict[int, list[str]], number: int) -> None:
    assert typed.get(number, []) == []


# --- consumers that poll, streams that last, members that lack their payload


@pytest.mark.parametrize("cls", SETS)
def test_a_wrong_serializer_empties_no_set_also_after_polls_of_an_empty_set(
    make_set: Callable[..., Any], cls: Any
) -> None:
    consumer = make_set(cls, serializer=JSONSerializer())
    assert consumer.take(100) == []
    with pytest.raises(KeyError):
        consumer.pop()
    make_set(cls).add_many([f"no JSON {number}" for number in range(300)], 1)
    for _ in range(3):
        with pytest.raises(DecodeError, match="nothing was removed"):
            consumer.take(5000)
        with pytest.raises(DecodeError, match="nothing was removed"):
            consumer.pop()
    assert (consumer.size(), consumer.dead.size()) == (300, 0)


def test_members_without_payload_are_passed_over(make_set: Callable[..., Any], raw: Any) -> None:
    jobs = make_set(key=str)
    for number in range(12):
        raw.zadd("jobs:{jobs}:keyed", {bytes([number]) * 16: -1, bytes([100 + number]) * 16: 9})
    jobs.add_many(["a", "b", "c"], [1, 2, 3])
    assert jobs.peek() == "a" and jobs.peek(-1) == "c"
    assert jobs.pop() == "a"
    assert jobs.take(50) == ["b", "c"]
    assert jobs.dead.size() == 0
    with pytest.raises(KeyError):
        jobs.peek()


def test_a_long_stream_asks_for_the_time_once_a_minute(
    any_server: servers.Server, any_implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr("redset._operations.scores.monotonic", lambda: now)
    jobs = ScheduledSet(any_server.client(), "later")

    def hour() -> Iterator[str]:
        nonlocal now
        for number in range(3600):
            now += 1
            yield f"item {number}"

    any_server.raw.config_resetstat()
    jobs.add_many(hour())
    assert any_server.raw.info("commandstats")["cmdstat_time"]["calls"] >= 2


def test_a_clock_is_returned_as_one_value() -> None:
    """Threads share it: between two writes another would add the old time to the new."""
    clock = ServerClock()
    asking = clock.refresh(SortedSet(redis.Redis(), "jobs")._ctx)
    asked = next(asking)
    with pytest.raises(StopIteration):
        asking.send(asked.reads([b"1000", b"500000"]))
    assert clock.__slots__ == ("_reply",)
    assert 1000.5 <= clock() < 1060
    assert not clock.stale()


def test_a_number_is_not_a_scorer(make_set: Callable[..., Any]) -> None:
    for scorer in (5, 5.0, float("nan")):
        with pytest.raises(TypeError, match=r"scorer must be .* got .*(int|float)"):
            make_set(scorer=scorer)
    jobs = make_set()
    jobs.scorer = jobs.scorer
    assert jobs.add("a") == 0


def test_a_bad_item_is_refused_before_a_request_is_sent() -> None:
    client = redis.Redis(unix_socket_path="/nowhere")
    for cls in (SortedSet, ScheduledSet):
        for options in ({"remember": True}, {"key": "url", "remember": True}, {}):
            with pytest.raises(ValueError, match="score must be a number"):
                cls(client, "jobs", **options).add({"url": "a"}, "soon")
        with pytest.raises(ValueError, match="no field 'url'"):
            cls(client, "jobs", key="url", remember=True).add({"link": "a"}, 1)


def test_a_bad_item_of_many_is_named_by_its_place(make_set: Callable[..., Any]) -> None:
    pages = make_set(key="url", remember=True)
    items = [{"url": "a"}, {"url": "b"}, {"link": "c"}]
    for call in (pages.scores, pages.discard_many, pages.forget_many, pages.seen_many):
        with pytest.raises(ValueError, match=r"item 2: .* no field 'url'"):
            call(items)


def test_the_prefix_of_another_set_is_refused_as_a_name(
    make_set: Callable[..., Any],
) -> None:
    with pytest.raises(ValueError, match="prefix of another"):
        make_set(name="jobs:{jobs}", key=str)
    for name in ("jobs:{other}", "{jobs}", "x:{jobs}:{x}", "a:jobs:{jobs}"):
        assert make_set(name=name, key=str).add("a") == 0


# --- datetimes and timedeltas

BERLIN = datetime.timezone(datetime.timedelta(hours=2))
NOON = datetime.datetime(2030, 1, 1, 14, 0, 0, 250_000, BERLIN)
NAIVE = datetime.datetime(2030, 1, 1)


def test_a_score_of_a_scheduled_set_may_be_an_aware_datetime(make_set: Callable[..., Any]) -> None:
    unix = NOON.timestamp()
    later = make_set(ScheduledSet)
    assert later.add("one", NOON) == unix
    later.add_many(["two", "three"], [NOON, 5])
    later.add_many(["four"], NOON)
    later.scorer = lambda item: NOON
    later.add("five")
    later.add_many(["six"])
    with later.buffered() as writer:
        writer.add("seven", NOON)
    names = ["one", "two", "three", "four", "five", "six", "seven"]
    assert later.scores(names) == [unix, unix, 5.0, unix, unix, unix, unix]
    assert sorted(later.between(NOON, math.inf)) == sorted({*names} - {"three"})
    (lease,) = later.lease()
    assert lease.release(score=NOON) == 1 and later.score("three") == unix
    timed = make_set(ScheduledSet, "timed", scorer="at", serializer=Literal())
    timed.add_many([{"at": NOON}, {"at": NOON - datetime.timedelta(1)}])
    assert timed.between(unix, unix).size() == 1


class Literal:
    """Writes its argument, and returns it as text."""

    def dumps(self, item: Any) -> str:
        return repr(item)


def test_a_datetime_without_a_time_zone_is_refused(make_set: Callable[..., Any], raw: Any) -> None:
    said = r"(score|min) must be an aware datetime, with a time zone, got datetime.datetime\(2030"
    later = make_set(ScheduledSet)
    for call in (
        lambda: later.add("a", NAIVE),
        lambda: later.add_many(["a"], NAIVE),
        lambda: later.between(NAIVE, 1),
        lambda: make_set(ScheduledSet, scorer=lambda item: NAIVE).add("a"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    with pytest.raises(AddError, match=said) as caught:
        later.add_many(["a", "b"], [1, NAIVE])
    assert caught.value.index == 1 and isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(
        TypeError, match=r"score must be a number or an aware datetime, got .* \(object\)"
    ):
        later.add("a", object())
    # Scores of other sets are numbers.
    for cls in (SortedSet, TimeSortedSet):
        with pytest.raises(TypeError, match=r"score must be a number, got .* \(datetime\)"):
            make_set(cls, "other").add("a", NOON)


def test_times_may_be_timedeltas(make_set: Callable[..., Any]) -> None:
    minute = datetime.timedelta(minutes=1)
    jobs = make_set(lock_timeout=minute, lock_expires=2 * minute)
    assert (jobs.lock.timeout, jobs.lock.expires) == (60, 120)
    jobs.add_many(["a", "b", "c"])
    before = time.time()
    first, second, third = jobs.lease(3, ttl=minute, wait=minute)
    assert before + 59 < first.expires < time.time() + 61
    assert (first.renew(2 * minute), first.release(delay=3 * minute)) == (1, 1)
    assert second.fail("no", delay=4 * minute) == 1
    waits = {item: round((expires - before) / 60) for item, _, _, expires, *_ in jobs.leased()}
    assert waits == {"a": 3, "b": 4, "c": 1}
    assert third.ack() == 1
    jobs.add("d")
    assert jobs.pop(wait=minute) == "d"
    with jobs.buffered(max_delay=minute) as writer:
        writer.add("e")
    assert jobs.take(1, wait=minute) == ["e"]
    with pytest.raises(ValueError, match=r"wait must be seconds, 0 or more, got .*timedelta"):
        jobs.pop(wait=-minute)


# --- items that are due later


def test_an_item_that_is_added_with_a_delay_is_due_so_long_from_now_on_the_server_s_clock(
    make_set: Callable[..., Any], raw: Any, monkeypatch: Any
) -> None:
    def now() -> float:
        seconds, micros = raw.time()
        return seconds + micros / 1e6

    for scorer in (None, len):
        later = make_set(ScheduledSet, scorer=scorer)
        # This process's clock is an hour off.
        monkeypatch.setattr(time, "time", lambda real=time.time: real() + 3600)
        before = now()
        due = later.add("a", delay=60)
        assert before + 59.9 < due <= now() + 60 and later.score("a") == due
        names = [f"{number:03}" for number in range(600)]
        assert later.add_many(names, delay=datetime.timedelta(minutes=2)).added == 600
        scores = later.scores(names)
        assert before + 119.9 < min(scores) <= max(scores) <= now() + 120
        assert scores == sorted(scores)
        assert (later.available(), later.size()) == (0, 601)
        assert later.add("now", delay=0) is not None and later.pop() == "now"
        assert later.add("a", delay=5, nx=True) is None
        later.clear()
        monkeypatch.undo()


def test_delay_and_score_contradict_each_other(make_set: Callable[..., Any], raw: Any) -> None:
    later = make_set(ScheduledSet)
    for add, what in ((later.add, "a"), (later.add_many, ["a"])):
        with pytest.raises(ValueError, match="delay contradicts score"):
            add(what, 5, delay=5)
        with pytest.raises(TypeError, match=r"delay must be a number .* got 'soon' \(str\)"):
            add(what, delay="soon")
        with pytest.raises(ValueError, match="delay must be seconds, 0 or more"):
            add(what, delay=-1)
    assert servers.everything(raw) == {}


def test_a_scheduled_set_raises_key_error_if_nothing_is_due_yet(
    make_set: Callable[..., Any],
) -> None:
    later = make_set(ScheduledSet)
    later.add("a", delay=600)
    for call in (later.pop, lambda: later.pop(wait=0.01), later.peek, lambda: later.peek(-1)):
        with pytest.raises(KeyError, match="nothing is due yet in 'jobs'"):
            call()
    with pytest.raises(KeyError, match="the set 'jobs' has no due item at position 3"):
        later.peek(3)
    empty = make_set(name="other")
    for call in (empty.pop, empty.peek):
        with pytest.raises(KeyError, match="the set 'other' is empty"):
            call()
