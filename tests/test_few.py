"""A list that fits one chunk goes a short way, which gives what the long way gives."""

from __future__ import annotations

import gc
import json
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import servers
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st
from options import OPTIONS, every_option, fit, made
from selection import drawn

from redset import Key, SortedSet
from redset._operations import streaming
from redset.exceptions import AddError
from redset.serializers import JSONSerializer

URLS = [f"/{n}" for n in range(8)]
SCORES = st.sampled_from([-1, 0, 1, 2.0, 3, 2**60, math.inf, math.nan, "2", "x", None])
#: How a call gives scores: none, the first one for all, or one for each.
HOWS = ["scorer", "one", "each", "range"]
FLAGS: list[dict[str, Any]] = [
    {},
    {"nx": True},
    {"xx": True},
    {"gt": True},
    {"xx": True, "lt": True},
    {"again": True},
    {"remember": False},
    {"nx": True, "remember": False},
]
LIMITED: list[dict[str, Any]] = [{"max_size": 4}, {"key": "url", "max_size": 4}]

Call = tuple[list[tuple[str, Any]], str, dict[str, Any]]


def outcome(jobs: Any, items: Any, score: Any, flags: dict[str, Any]) -> Any:
    try:
        return jobs.add_many(items, score, **flags)
    except AddError as error:
        where = (error.index, error.resume_at, error.item)
        return type(error), str(error), error.result, where, type(error.__cause__)
    except (TypeError, ValueError) as error:
        return type(error), str(error)


def state(jobs: Any, options: dict[str, Any]) -> Any:
    items = [made(options, url) for url in URLS]
    known = jobs.seen_many(items) if "remember" in options else None
    return jobs.scores(items), list(jobs), known, jobs.stats()._replace(memory_bytes=0)


@drawn(120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    options=st.sampled_from([*OPTIONS, *LIMITED, {"duplicates": "keep"}, {"max_item_bytes": 2}]),
    calls=st.lists(
        st.tuples(
            st.lists(st.tuples(st.sampled_from([*URLS, "/long"]), SCORES), max_size=9),
            st.sampled_from(HOWS),
            st.sampled_from(FLAGS),
        ),
        min_size=1,
        max_size=5,
    ),
    cleared=st.integers(0, 5),
)
@example(
    options={"key": "url", "remember": True},
    calls=[([(url, 1)], "each", {}) for url in ("/0", "/1", "/0")],
    cleared=1,
)
def test_the_short_way_gives_what_the_long_way_gives(
    server_client: Any,
    any_implementation: str,
    options: dict[str, Any],
    calls: list[Call],
    cleared: int,
) -> None:
    server_client.flushall()
    short, long = (SortedSet(server_client, name, **options) for name in ("a", "b"))
    for number, (pairs, how, flags) in enumerate(calls):
        if "remember" not in options and flags.keys() & {"again", "remember"}:
            flags = {}
        if number == cleared:
            # By others: these objects learn of it from the server.
            for name in ("a", "b"):
                SortedSet(server_client, name, **options).clear()
        items = [made(options, url) for url, _ in pairs]
        score: Any = [value for _, value in pairs]
        if how != "each":
            score = {"scorer": None, "one": score[0] if score else 1, "range": range(len(pairs))}[
                how
            ]
        # A deque is for the long way.
        expected = outcome(long, deque(items), score, flags)
        assert outcome(short, items, score, flags) == expected
        assert outcome(long, deque(items), score, flags) == outcome(
            short, tuple(items), score, flags
        )
    theirs, ours = state(long, options), state(short, options)
    assert ours == theirs


@drawn(60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    options=st.sampled_from(OPTIONS),
    calls=st.lists(
        st.tuples(
            st.lists(st.tuples(st.sampled_from(URLS), st.integers(0, 3)), min_size=1, max_size=9),
            st.booleans(),
        ),
        min_size=1,
        max_size=5,
    ),
    leased=st.integers(0, 2),
)
def test_steps_that_return_no_outcomes_do_what_the_others_do(
    server_client: Any, options: dict[str, Any], calls: list[Any], leased: int
) -> None:
    """The short paths of scripts are for adds that do not ask for outcomes."""
    server_client.flushall()
    short, long = (SortedSet(server_client, name, **options) for name in ("a", "b"))
    for jobs in (short, long):
        jobs.add_many([made(options, url) for url in URLS[:leased]])
        if "remember" in options:
            jobs.forget_many([made(options, url) for url in URLS[:leased]])
        assert not leased or len(jobs.lease(leased)) == leased
    for pairs, nx in calls:
        nx = nx or not options  # else a plain set has no step
        items, scores = [made(options, url) for url, _ in pairs], [score for _, score in pairs]
        added = list(long.add_new(items, score=scores, nx=nx))
        assert short.add_many(items, score=scores, nx=nx).added == len(added)
        assert state(short, options) == state(long, options)


@every_option
def test_a_list_is_looked_up_as_its_items_are_alone(
    server_client: Any, any_implementation: str, options: dict[str, Any]
) -> None:
    jobs = SortedSet(server_client, "jobs", **options)
    jobs.add_many([made(options, url) for url in URLS[:5]], score=range(5))
    items: list[Any] = [made(options, url) for url in URLS] * 80
    for some in (items, [*items, Key(URLS[0])], items[:1], []):
        assert jobs.scores(some) == [jobs.score(item) for item in some]
    with pytest.raises(ValueError, match="item 641: "):
        jobs.scores([*items, items[0], None if "key" in options else "\udc80"])
    assert jobs.discard_many([*items[:4], items[0]]) == 4
    assert jobs.scores(items[:5]) == [None] * 4 + [4]


def no_stream(*arguments: Any) -> Any:
    raise AssertionError("a stream")


@every_option
@pytest.mark.parametrize("number", [1, 20, 250])
def test_a_few_items_need_no_stream(
    server_client: Any,
    any_implementation: str,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    number: int,
) -> None:
    jobs = SortedSet(server_client, "jobs", **options)
    jobs.add_many(iter([made(options, "first")]))
    monkeypatch.setattr(streaming, "stream_encoded", no_stream)
    monkeypatch.setattr(streaming, "add_stream", no_stream)
    items = [made(options, str(n)) for n in range(number)]
    assert jobs.add_many(items, score=[fit(options, n) for n in range(number)]).added == number
    assert jobs.add_many(tuple(items), score=1, nx=True).refused == number


@pytest.fixture
def jobs(server_client: Any) -> Iterator[Any]:
    made = SortedSet(server_client, "jobs", key="url", remember=True)
    made.add_many([{"url": "first"}])
    yield made


def test_items_before_a_bad_one_are_added_and_the_error_names_it(jobs: Any) -> None:
    items = [{"url": "a"}, {"url": "b"}, {"no": "url"}, {"url": "c"}]
    with pytest.raises(AddError) as caught:
        jobs.add_many(items)
    assert (caught.value.index, caught.value.resume_at) == (2, 2)
    assert caught.value.result.added == 2
    assert jobs.add_many(items[:2]).refused == 2


def test_code_that_an_item_runs_changes_no_call_under_way(server_client: Any) -> None:
    items: list[Any] = [{"url": str(n)} for n in range(4)]

    def key(item: Any) -> str:
        items.clear()
        return str(item["url"])

    jobs = SortedSet(server_client, "jobs", key=key)
    assert jobs.add_many(items).added == 4


def test_scores_are_those_that_the_call_was_given(server_client: Any) -> None:
    scores = [1.0, 2.0]

    def key(item: Any) -> str:
        scores[:] = [9.0, 9.0]
        return str(item)

    jobs = SortedSet(server_client, "jobs", key=key)
    assert jobs.add_many(["a", "b"], score=scores).added == 2
    assert jobs.scores(["a", "b"]) == [1.0, 2.0]


@pytest.mark.parametrize("bad", [[], ["x"]], ids=["good", "with a bad one"])
def test_code_that_an_item_runs_runs_once(
    server_client: Any, any_implementation: str, bad: list[str]
) -> None:
    called: list[str] = []

    def scorer(item: str) -> Any:
        called.append(item)
        return float(len(called)) if item != "x" else "no score"

    jobs = SortedSet(server_client, "jobs", scorer)
    with pytest.raises(AddError, match="item 2") if bad else nullcontext():
        jobs.add_many(["p", "q", *bad])
    assert called == ["p", "q", *bad]
    assert jobs.scores(["p", "q"]) == [1.0, 2.0]


def test_a_new_serializer_and_scorer_are_used_at_once(server_client: Any) -> None:
    jobs = SortedSet(server_client, "jobs", scorer=lambda item: 1)
    jobs.add_many(["a"])
    jobs.scorer = lambda item: 2
    jobs.add_many(["b"])
    assert jobs.scores(["a", "b"]) == [1, 2]
    jobs.serializer = json
    jobs.add_many(["c"])
    assert server_client.zrange("jobs", 0, -1) == [b"a", b'"c"', b"b"]


def test_each_call_goes_by_its_own_flags(server_client: Any) -> None:
    jobs = SortedSet(server_client, "jobs", remember=True)
    jobs.add_many(iter(["first"]))
    for flags in ({}, {"remember": False}, {"again": True}, {"nx": True}, {}):
        name = f"item {flags}"
        jobs.forget(name)
        jobs.discard(name)
        assert jobs.add_many([name], **flags).added == 1  # type: ignore[arg-type]
        assert jobs.seen(name) == (flags != {"remember": False})
        assert jobs.add_many([name], score=5, **flags) == (  # type: ignore[arg-type]
            (0, 1, 0, 0) if flags.keys() & {"again", "remember"} else (0, 0, 1, 0)
        )


@pytest.mark.usefixtures("lasting")
def test_added_items_are_known_to_the_table(server_client: Any, any_implementation: str) -> None:
    jobs = SortedSet(server_client, "jobs", remember=True)
    jobs.add_many(iter(["first"]))
    items = [str(number) for number in range(20)]
    assert jobs.add_many(items).added == 20
    assert all(jobs.known(item) for item in items)
    before = server_client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert jobs.add_many(items).refused == 20
    assert server_client.info("commandstats")["cmdstat_evalsha"]["calls"] == before


def test_an_item_that_is_too_large_for_the_server_is_named(
    any_server: servers.Server, server_client: Any
) -> None:
    server_client.config_set("proto-max-bulk-len", 2**20)
    try:
        jobs = SortedSet(server_client, "jobs")
        with pytest.raises(AddError) as caught:
            jobs.add_many(["x" * 2**21])
        assert caught.value.index == 0
    finally:
        server_client.config_set("proto-max-bulk-len", 2**29)


def test_threads_add_a_few_to_one_object_while_it_is_cleared(
    any_server: servers.Server, jobs: Any
) -> None:
    errors: list[BaseException] = []
    until = time.monotonic() + 0.5

    def work(number: int) -> None:
        turn = 0
        try:
            while time.monotonic() < until:
                turn += 1
                page = [{"url": f"{number % 2}-{n}"} for n in range(turn, turn + 5)]
                # With and without a table, each of which has encoders of its own.
                result = jobs.add_many(page, again=not turn % 3)
                assert sum(result) == 5 and not result.failed
                if number == 0 and not turn % 20:
                    jobs.clear()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_set_that_is_made_for_one_add_is_freed_at_once(any_server: servers.Server) -> None:
    serializer = JSONSerializer()
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs", serializer=serializer)
    freed = weakref.ref(serializer)
    gc.disable()  # it would free cycles
    try:
        jobs.add("only")
        del jobs, serializer
        assert freed() is None
    finally:
        gc.enable()
