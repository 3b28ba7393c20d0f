"""Figures of many sets, for operators: `list_sets` and the step that it looks with."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import blocking
import pytest
import redis
import servers

import redset.asyncio
from redset import ScheduledSet, SetInfo, SortedSet, TimeSortedSet, list_sets

Maker = Callable[..., Any]


def listed(jobs: Any, *arguments: Any, **options: Any) -> list[SetInfo]:
    """`list_sets` of the face and over the client of a set."""
    if isinstance(jobs, blocking.BlockingSet):
        return blocking.wait(redset.asyncio.list_sets(jobs.redis, *arguments, **options))
    return list_sets(jobs.redis, *arguments, **options)


def register(raw: redis.Redis, name: str | bytes, **options: Any) -> None:
    raw.hset("redset:sets", name, json.dumps(options))  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"key": "u", "ties": "lifo"}, {"remember": True}])
def test_a_glance_equals_stats(make_set: Maker, raw: Any, options: dict[str, Any]) -> None:
    jobs = make_set(serializer=json, **options)
    jobs.add_many([{"u": each} for each in "abcd"], [3, 1, 2, 4])
    jobs.lease(1, 60).fail("broken", delay=60)
    jobs.lease(1)
    register(raw, jobs.name, **{"class": "SortedSet"} | options)
    (info,) = listed(jobs, [jobs.name])
    stats, figures = jobs.stats(), info.figures
    assert info.options == {"class": "SortedSet"} | options
    for field in ("size", "available", "leased", "dead", "remembered", "oldest_score"):
        assert getattr(figures, field) == getattr(stats, field), field
    assert figures is not None and figures.late == 0 and figures.paused is None
    assert figures.oldest_age is None
    assert figures.next_expiry is not None and 50 < figures.next_expiry - figures.time <= 60


def test_a_glance_returns_no_expired_lease_and_counts_it_as_late(make_set: Maker) -> None:
    jobs = make_set(remember=60)
    jobs.add_many(["a", "b"])
    jobs.lease(1, 0.001)
    while True:
        (info,) = listed(jobs, [jobs.name])
        if info.figures is not None and info.figures.late:
            break
    assert (info.figures.size, info.figures.leased, info.figures.remembered) == (1, 1, 2)
    assert jobs.stats().size == 2


def test_the_age_and_what_is_due_are_those_of_the_class(make_set: Maker, raw: Any) -> None:
    timed, later = make_set(TimeSortedSet, "timed"), make_set(ScheduledSet, "later")
    register(raw, "timed", **{"class": "TimeSortedSet"})
    register(raw, "later", **{"class": "ScheduledSet"})
    now = float(raw.time()[0])
    timed.add("a", now - 100)
    later.add_many(["a", "b"], [now - 100, now + 1000])
    found = {info.name: info.figures for info in listed(timed)}
    assert found["later"].available == 1 and found["later"].size == 2
    assert all(100 <= figures.oldest_age < 130 for figures in found.values())


def test_sets_are_found_by_pattern_by_name_and_by_a_scan(make_set: Maker, raw: Any) -> None:
    jobs = make_set(name="crawl:a")
    make_set(name="crawl:b", key="u", serializer=json).add({"u": 1})
    make_set(name=b"crawl:\xff", remember=True).add("x")
    make_set(name="other").add("x")
    jobs.add("x")
    register(raw, "crawl:a", **{"class": "SortedSet"})
    register(raw, "gone", **{"class": "SortedSet"})
    raw.set("text", "x")

    def names(*arguments: Any, **options: Any) -> list[Any]:
        return [info.name for info in listed(jobs, *arguments, **options)]

    assert names() == ["crawl:a", "gone"]
    assert names("crawl:*") == ["crawl:a"]
    assert names([b"other", "crawl:a"]) == ["crawl:a", "other"]
    assert names(scan=True) == ["crawl:a", "crawl:b", b"crawl:\xff", "gone", "other"]
    assert names("[bc]r?wl:[^b]*", scan=True) == ["crawl:a", b"crawl:\xff"]
    (found,) = listed(jobs, "crawl:b", scan=True)
    assert found.options is None and found.figures is not None and found.figures.size == 1


def test_a_hundred_sets_are_four_steps_that_read(
    any_server: servers.Server, server_client: redis.Redis
) -> None:
    raw = any_server.raw
    for number in range(101):
        register(raw, f"set:{number:03}", **{"class": "SortedSet"})
        raw.zadd(f"set:{number:03}", {"item": number})
    before = raw.info("commandstats")
    infos = list_sets(server_client)
    after = raw.info("commandstats")
    assert [info.figures and info.figures.oldest_score for info in infos] == [*range(101)]

    def calls(name: str) -> int:
        stats = (after.get(name, {"calls": 0}), before.get(name, {"calls": 0}))
        return int(stats[0]["calls"] - stats[1]["calls"])

    assert calls("cmdstat_evalsha") == 5
    assert calls("cmdstat_hscan") == 1


def test_a_key_of_another_type_spoils_no_other_set(make_set: Maker, raw: Any) -> None:
    jobs = make_set(name="jobs")
    jobs.add("a")
    raw.set("text", "x")
    raw.hset("redset:sets", "odd", "[1")
    raw.hset("redset:sets", "text", "{}")
    raw.set("text:{text}:counts", "x")
    raw.hset("jobs:{jobs}:counts", mapping={"added": 7, "strange": "x"})
    found = {info.name: info for info in listed(jobs, ["jobs", "text", "odd"])}
    assert found["text"].figures is None and found["text"].options == {}
    assert found["odd"].options is None
    assert found["jobs"].counts["added"] == 7 and "strange" not in found["jobs"].counts


def test_a_replica_and_a_user_who_may_only_read_see_the_same(any_server: servers.Server) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs")
    jobs.add_many(["a", "b"])
    jobs.lease(1, 0.001)
    register(raw, "jobs", **{"class": "SortedSet"})
    rules = [["+@all", "-@write"]]
    if not any_server.kind.startswith("redis62"):
        rules.append(["resetkeys", "%R~*", "+@all", "-@write"])
    for rule in rules:
        with servers.user(any_server, *rule) as login:
            (info,) = list_sets(any_server.client(**login))
            assert info.figures is not None and info.figures.size == 1
    with (
        servers.user(any_server, "+@all", "-zcard") as login,
        pytest.raises(redis.ResponseError, match=r"(?i)zcard|permission|can't run"),
    ):
        list_sets(any_server.client(**login))
    raw.replicaof("127.0.0.1", 1)
    try:
        (info,) = list_sets(any_server.client())
        assert info.figures is not None and info.figures.leased == 1
    finally:
        raw.replicaof("no", "one")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [((5,), TypeError), (([5],), TypeError), (([""],), ValueError), ((["a"], True), ValueError)],
    ids=repr,
)
def test_wrong_arguments_are_refused_before_anything_is_sent(
    arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"^(match must|name must|scan contradicts)"):
        list_sets(redis.Redis(port=1), *arguments)
