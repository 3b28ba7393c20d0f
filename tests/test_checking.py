"""Warnings about a server that does not keep its data, and about a finished crawl."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import blocking
import pytest
import redis
import redis.asyncio
import servers
from redis.backoff import NoBackoff
from redis.retry import Retry

import redset.asyncio
from redset import SortedSet, TimeSortedSet, check_server
from redset._operations import checking

SOUND = """# Server\r
redis_version:7.0.15\r
# Memory\r
maxmemory_policy:noeviction\r
# Persistence\r
rdb_changes_since_last_save:12\r
rdb_last_save_time:1000000\r
rdb_last_bgsave_status:ok\r
aof_enabled:0\r
aof_last_write_status:ok\r
# Replication\r
role:master\r
"""
NOW = 1_000_900


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("", "", None),
        (
            "noeviction",
            "allkeys-lru",
            "maxmemory-policy allkeys-lru it drops single keys of sets, so what",
        ),
        ("noeviction", "volatile-ttl", "maxmemory-policy volatile-ttl it drops keys that expire"),
        ("time:1000000", "time:985000", "nothing was saved for 4 hours"),
        ("time:1000000", "time:", None),
        ("status:ok", "status:err", "snapshot failed"),
        ("write_status:ok", "write_status:err", "append-only file cannot be written"),
        ("role:master", "role:slave", "replica"),
        ("7.0.15", "6.0.16", "Redis 6.0.16, and redset needs 6.2"),
        ("7.0.15", "5.0", "Redis 5.0, and redset needs 6.2"),
        ("7.0.15", "6.2.1", None),
        ("7.0.15", "255.255.255", None),
        ("7.0.15", "unstable", None),
    ],
)
def test_each_problem_of_a_server_is_a_warning(was: str, now: str, said: str | None) -> None:
    found = checking.warnings(SOUND.replace(was, now, 1), NOW)
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_a_hidden_figure_is_not_a_warning_and_neither_is_one_form_of_persistence() -> None:
    assert checking.warnings("", NOW) == []
    old = SOUND.replace("time:1000000", "time:1")
    assert len(checking.warnings(old, NOW)) == 1
    assert checking.warnings(old.replace("aof_enabled:0", "aof_enabled:1"), NOW) == []
    assert checking.warnings(old.replace("last_save:12", "last_save:0"), NOW) == []


def test_a_server_as_it_comes_has_nothing_wrong(make_set: Callable[..., Any]) -> None:
    jobs = make_set()
    check = redset.check_server
    if isinstance(jobs, blocking.BlockingSet):
        check = lambda *of: blocking.wait(redset.asyncio.check_server(*of))  # noqa: E731
    assert check(jobs.redis) == check(jobs.redis, "jobs") == check(jobs.redis, b"jobs") == []


def test_check_server_works_on_each_server(any_server: servers.Server) -> None:
    raw = any_server.raw
    text = raw.execute_command("INFO")
    assert {line.split(":")[0] for line in SOUND.split("\r\n") if ":" in line} <= set(text)
    before = raw.config_get("maxmemory-policy")["maxmemory-policy"]
    try:
        raw.config_set("maxmemory-policy", "allkeys-lru")
        raw.replicaof("127.0.0.1", 1)
        policy, replica = check_server(raw)
        assert "allkeys-lru" in policy and "replica" in replica
    finally:
        raw.replicaof("no", "one")
        raw.config_set("maxmemory-policy", before)
    assert check_server(raw) == []


def test_a_server_that_hides_its_version_is_not_an_error(any_server: servers.Server) -> None:
    raw = any_server.raw
    raw.config_set("maxmemory-policy", "allkeys-lru")
    try:
        raw.acl_setuser("shy", enabled=True, passwords=["+shy"], keys=["*"],
                        commands=["+@all", "-info"])  # fmt: skip
        shy = redis.Redis(unix_socket_path=any_server.unix, username="shy", password="shy")
        jobs: SortedSet[str] = SortedSet(shy, "jobs", remember=True)
        if b"6.2" not in str(raw.info("server")["redis_version"]).encode():
            # 6.2 asks only whether a script may be run.
            assert check_server(shy) == check_server(shy, "jobs") == []
        assert jobs.add("a") == 0.0
        shy.close()
    finally:
        raw.config_set("maxmemory-policy", "noeviction")
        raw.acl_deluser("shy")


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((None,), TypeError, "redis_client must be a client with execute_command, got NoneType"),
        ((redis.asyncio.Redis(),), TypeError, "redis_client is an asyncio client"),
        ((redis.Redis(), ""), ValueError, "name must not be empty"),
        ((redis.Redis(), 5), TypeError, r"name must be str or bytes, got 5 \(int\)"),
        ((redis.Redis(), "jobs:{jobs}:meta"), ValueError, "name must not be a key of another set"),
    ],
)
def test_a_check_refuses_bad_arguments(arguments: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        check_server(*arguments)


# --- once a process


@pytest.fixture
def evicting(any_server: servers.Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(checking, "_checked", False)
    any_server.raw.config_set("maxmemory-policy", "allkeys-lru")
    yield any_server.client()
    any_server.raw.config_set("maxmemory-policy", "noeviction")


def told(caplog: pytest.LogCaptureFixture) -> int:
    return sum("maxmemory-policy" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    "write",
    [
        lambda client: SortedSet(client, "jobs", remember=True).add("a"),
        lambda client: SortedSet(client, "jobs", remember=5).add_many(["a"]),
        lambda client: list(SortedSet(client, "jobs", key="url", remember=5).add_new([{"url": 1}])),
        lambda client: SortedSet(client, "jobs").lease(),
        lambda client: SortedSet(client, "jobs").consume(print, until_finished=True),
    ],
)
def test_the_first_write_of_what_is_to_last_logs_it_once(
    evicting: Any, write: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    plain: SortedSet[str] = SortedSet(evicting, "plain", key="url")  # type: ignore[type-var]
    plain.add_many([{"url": "a"}])
    plain.take(2)
    plain.stats()
    SortedSet(evicting, "jobs", remember=True).seen("a")
    assert told(caplog) == 0
    write(evicting)
    assert told(caplog) == 1
    write(evicting)
    SortedSet(evicting, "others", remember=True).add_many(["a", "b"])
    SortedSet(evicting, "others").lease()
    assert told(caplog) == 1


def test_a_check_that_failed_is_made_again(
    evicting: Any, any_server: servers.Server, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = redis.Redis(unix_socket_path=any_server.unix + ".not", retry=None)
    with pytest.raises(redis.ConnectionError):
        SortedSet(nowhere, "jobs", remember=True).add("a")
    assert told(caplog) == 0
    assert SortedSet(evicting, "jobs", remember=True).add("a") == 0.0
    assert told(caplog) == 1


# --- a crawl that is over


def names_clear(caplog: pytest.LogCaptureFixture) -> int:
    return sum("clear()" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("remember", [True, 60])
def test_a_finished_crawl_that_is_started_again_logs_how_to_start_over(
    make_set: Callable[..., Any], remember: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "redset")
    seeds = ["a", "b", "c"]
    first = make_set(remember=remember)
    assert first.add_many(seeds).added == 3
    # Known, and still to be done: so it is with most links of a page.
    assert make_set(remember=remember).add_many(seeds).refused == 3
    with first.lease(3) as batch:
        assert make_set(remember=remember).add_many(seeds).refused == 3
        for _ in batch:
            pass
    assert names_clear(caplog) == 0
    # Not at an object's later adds, nor if something is new.
    assert first.add_many(seeds).refused == 3
    assert names_clear(caplog) == 0
    again = make_set(remember=remember)
    assert again.add_many(seeds).refused == 3
    assert again.add_many(seeds).refused == 3
    assert names_clear(caplog) == 1
    # Once a process and set.
    assert list(make_set(remember=remember).add_new(seeds)) == []
    assert names_clear(caplog) == 1
    assert make_set(remember=remember).add_many([]).added == 0
    assert make_set(remember=remember).add_many([*seeds, "d"]).added == 1
    assert names_clear(caplog) == 1
    again.clear()
    assert again.add_many(seeds).added == 3


def test_items_refused_for_another_reason_cause_no_warning(
    any_server: servers.Server, caplog: pytest.LogCaptureFixture
) -> None:
    raw = any_server.raw
    assert TimeSortedSet(raw, "jobs").add_many(["a"], xx=True).refused == 1
    known: SortedSet[str] = SortedSet(raw, "known", remember=True)
    assert known.add_many(["a", "b"], xx=True).refused == 2
    # A union goes by pages, the first of which may be known.
    names = [f"{n}" for n in range(3000)]
    known.add_many(names[:1000])
    known.between(0, 0).discard()
    others: SortedSet[str] = SortedSet(raw, "others")
    others.add_many(names, score=range(3000))
    again: SortedSet[str] = SortedSet(raw, "known", remember=True)
    again |= others
    assert again.size() == 2000
    assert names_clear(caplog) == 0
    # An add of nothing is not the first.
    again.clear()
    again.add_many(names[:10])
    again.take(10)
    last: SortedSet[str] = SortedSet(raw, "known", remember=True)
    assert last.add_many([]).added == 0 and last.add_many(names[:10]).refused == 10
    assert names_clear(caplog) == 1


@pytest.mark.parametrize("command", ["time", "type", "info", "client"])
@pytest.mark.parametrize("options", [{}, {"remember": True}, {"duplicates": "keep"}])
def test_an_add_needs_no_right_that_only_a_check_needs(
    any_server: servers.Server,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    options: dict[str, Any],
) -> None:
    monkeypatch.setattr(checking, "_checked", False)
    with servers.user(any_server, f"-{command}") as login:
        client = any_server.client(**login)
        jobs: SortedSet[str] = SortedSet(client, "jobs", **options)
        assert jobs.add("a") == 0
        numbers = [str(number) for number in range(600)]
        assert jobs.add_many(numbers).added == 600
        again = jobs.add_many(numbers)
        assert again.added == 0
        assert again.refused == (600 if options else 0)
        assert jobs.take(1000) == sorted(["a", *numbers])
        client.close()


def test_a_check_that_is_refused_is_not_made_again(
    any_server: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "_checked", False)
    with servers.user(any_server, "-time") as login:
        client = any_server.client(**login)
        jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True)
        with pytest.raises(redis.exceptions.NoPermissionError):
            check_server(client)  # the caller of check_server gets the warning
        jobs.add("a")
        assert checking._checked
        client.close()


def test_a_check_that_failed_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "_checked", False)
    client = redis.Redis(unix_socket_path="/nowhere", retry=Retry(NoBackoff(), 0))
    with pytest.raises(redis.ConnectionError):
        SortedSet(client, "jobs", remember=True).add("a")
    assert not checking._checked


# --- the effect of an eviction

P = "jobs:{jobs}"
#: Of three items of scores 5, 6 and 7, two of which are leased and one acknowledged: what is handed
#: out after a key is gone, and whether they are remembered.
EVICTED: dict[str, tuple[list[tuple[str, float]], bool]] = {
    f"{P}:keyed": ([("b", 6.0)], True),
    f"{P}:items": ([], True),
    f"{P}:leased": ([("c", 7.0), ("b", 6.0)], True),
    f"{P}:leases": ([("a", 0.0), ("b", 0.0), ("c", 7.0)], True),
    f"{P}:calls": ([("b", 6.0), ("c", 7.0)], True),
    f"{P}:meta": ([("b", 6.0), ("c", 7.0)], False),
    f"{P}:seen:*": ([("b", 6.0), ("c", 7.0)], False),
}


@pytest.mark.parametrize("key", EVICTED)
def test_an_evicted_key_loses_only_its_documented_content(
    any_server: servers.Server, key: str
) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs", key=str, remember=True)
    jobs.add_many(["a", "b", "c"], [5, 6, 7])
    first, _ = jobs.lease(2)
    assert raw.delete(*raw.keys(key.replace("{", "[{]"))) == 1
    assert jobs.ack(first) == (key != f"{P}:leases")
    if raw.exists(f"{P}:leased"):
        raw.zadd(f"{P}:leased", dict.fromkeys(raw.zrange(f"{P}:leased", 0, -1), 1))
    found = []
    for _ in range(4):
        batch = jobs.lease(5)
        found += [(lease.item, lease.score) for lease in batch]
        jobs.ack(batch)
        # An item that was leased when the key went has a minute.
        if not batch and raw.exists(f"{P}:leased"):
            raw.zadd(f"{P}:leased", dict.fromkeys(raw.zrange(f"{P}:leased", 0, -1), 1))
    handed_out, known = EVICTED[key]
    assert found == handed_out
    assert jobs.finished()
    fresh: SortedSet[str] = SortedSet(raw, "jobs", key=str, remember=True)
    assert fresh.seen_many(["a", "b", "c"]) == [known] * 3
