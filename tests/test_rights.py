"""Users who may not do everything: what the server refuses loses nothing, and what was enough for
redset 0.5.1 is enough for what 0.5.1 could do."""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import blocking
import pytest
import redis
import redis.asyncio
import redis.asyncio.retry
import servers
from fuzz import replies
from options import every_option, made, once_more
from proxy import Proxy
from redis.backoff import NoBackoff

from redset import ScheduledSet, SortedSet, TimeSortedSet
from redset.exceptions import DecodeError
from redset.scripts import script
from redset.serializers import JSONSerializer

FACES = ("sync", "asyncio")
#: A user's set of `face`: ``open(*rules, cls=SortedSet, name="jobs", **options)``.
Opens = Callable[..., Any]


def numbered(count: int) -> list[str]:
    return [f"item-{number:06}" for number in range(count)]


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@contextlib.contextmanager
def user(server: servers.Server, face: str, *rules: str, **options: Any) -> Iterator[Any]:
    """A client of a user with these rules; with `port`, one that connects there."""
    server.raw.execute_command("ACL", "SETUSER", "bob", "reset", "on", ">secret", "&*", *rules)
    options |= {"username": "bob", "password": "secret"}
    if "port" not in options:
        options["unix_socket_path"] = server.unix
    if face == "sync":
        client = redis.Redis(**options)
        yield client
        client.close()
    else:
        other = redis.asyncio.Redis(**options)
        yield other
        blocking.wait(servers.aclose(other))
    server.raw.execute_command("ACL", "DELUSER", "bob")


def make(client: Any, face: str, cls: Any = SortedSet, name: Any = "jobs", **options: Any) -> Any:
    if face == "asyncio":
        return blocking.BlockingSet(cls, client, name, **options)
    return cls(client, name, **options)


def change(server: servers.Server, *rules: str) -> None:
    server.raw.execute_command("ACL", "SETUSER", "bob", *rules)


def performs(client: Any, face: str) -> bool:
    """Whether the next user of the client's only connection has commands performed."""
    if face == "asyncio":
        blocking.wait(client.set("jobs:mark", "1"))
        found = blocking.wait(client.get("jobs:mark"))
    else:
        client.set("jobs:mark", "1")
        found = client.get("jobs:mark")
    return bool(found == b"1")


# --- a MULTI is performed as one, or not at all

REFUSED = {"MULTI": "-multi", "EXEC": "-exec", "both": "-@transaction"}


@pytest.mark.parametrize("rule", REFUSED.values(), ids=REFUSED)
def test_a_user_without_multi_takes_everything(
    any_server: servers.Server, face: str, rule: str
) -> None:
    items = numbered(5000)
    with user(any_server, face, "~*", "+@all", rule, max_connections=1) as client:
        jobs = make(client, face)
        jobs.add_many(items, range(5000))
        assert jobs.take(3) + jobs.take(4500) + jobs.take(500) + jobs.take(9) == items
        assert performs(client, face)


@pytest.mark.parametrize("rule", [*REFUSED.values(), "-zscore"], ids=[*REFUSED, "ZSCORE"])
def test_a_user_without_the_commands_of_a_page_iterates_over_everything(
    any_server: servers.Server, face: str, rule: str
) -> None:
    items = numbered(2500)
    with user(any_server, face, "~*", "+@all", max_connections=1) as client:
        jobs = make(client, face)
        jobs.add_many(items, range(2500))
        change(any_server, rule)
        if rule == "-zscore":  # its script asks for it, too
            with pytest.raises(redis.ResponseError):
                list(jobs)
        else:
            assert list(jobs) == items
        assert performs(client, face)


@pytest.mark.parametrize("num", [3, 3000])
@pytest.mark.parametrize("rule", REFUSED.values(), ids=REFUSED)
def test_a_right_that_is_lost_between_two_takes_loses_no_item(
    any_server: servers.Server, face: str, rule: str, num: int
) -> None:
    items = numbered(3010)
    with user(any_server, face, "~*", "+@all", max_connections=1) as client:
        jobs = make(client, face)
        jobs.add_many(items, range(3010))
        taken = jobs.take(2) + jobs.take(2)
        change(any_server, rule)
        taken += jobs.take(num)
        assert taken == items[: num + 4]
        assert performs(client, face)
        assert taken + jobs.take(4000) == items


@pytest.mark.parametrize("rules", [("-zrange",), ("-zremrangebyrank",), ("-multi", "-zrange")])
def test_a_take_whose_commands_are_refused_raises_and_leaves_the_items(
    any_server: servers.Server, face: str, rules: tuple[str, ...]
) -> None:
    items = numbered(10)
    with user(any_server, face, "~*", "+@all") as client:
        jobs = make(client, face)
        jobs.add_many(items, range(10))
        assert jobs.take(2) == items[:2]
        change(any_server, *rules, "-zremrangebyrank", "-zpopmin")
        with pytest.raises(redis.ResponseError):
            jobs.take(5)
        change(any_server, "+@all")
        assert jobs.take(10) == items[2:]


@pytest.mark.parametrize("kind", servers.REAL)
@pytest.mark.parametrize("names", [("MULTI",), ("EXEC",), ("MULTI", "EXEC")], ids="-".join)
def test_a_server_that_calls_multi_another_name_hands_out_everything(
    kind: str, face: str, names: tuple[str, ...]
) -> None:
    renamed = [f"{name} renamed-{name}" for name in names]
    items = numbered(300)
    with (
        servers.start(kind, rename_command=renamed) as server,
        user(server, face, "~*", "+@all", max_connections=1) as client,
    ):
        jobs = make(client, face)
        jobs.add_many(items, range(300))
        assert jobs.take(100) + jobs.take(100) + jobs.take(500) == items
        assert performs(client, face)


# --- the rights that redset 0.5.1 needed

#: The keys that 0.5.1 used; and the same without scripts, which it did not use.
OLD = {
    "keys": ("~jobs", "~jobs__lock", "+@all"),
    "no scripts": ("~jobs", "~jobs__lock", "+@all", "-@scripting"),
}


@pytest.mark.parametrize("cls", [SortedSet, TimeSortedSet, ScheduledSet])
def test_the_keys_of_0_5_1_are_enough_for_its_calls(
    any_server: servers.Server, face: str, cls: Any
) -> None:
    with user(any_server, face, *OLD["keys"]) as client:
        jobs = make(client, face, cls)
        with pytest.raises(KeyError):
            jobs.pop()
        with pytest.raises(KeyError):
            jobs.peek()
        assert jobs.take(5) == []
        for place, item in enumerate("abcdefgh"):
            jobs.add(item, place)
        assert jobs.size() == 8
        assert jobs.contains("a") and jobs.score("b") == 1
        assert jobs.peek() == "a"
        assert list(jobs) == list("abcdefgh")
        assert jobs.pop() == "a"
        assert jobs.take(2) == ["b", "c"]
        assert jobs.take(2) == ["d", "e"]
        assert jobs.discard("f") is True and jobs.discard("f") is False
        jobs.remove("g")
        with jobs.lock:
            assert any_server.raw.exists("jobs__lock")
        assert not any_server.raw.exists("jobs__lock")
        assert jobs.clear()
        assert not jobs.clear()
        with pytest.raises(KeyError):
            jobs.pop()
        assert servers.keys(any_server.raw) == []


@pytest.mark.parametrize("rules", OLD.values(), ids=OLD)
def test_pop_and_take_need_the_queue_alone(
    any_server: servers.Server, face: str, rules: tuple[str, ...]
) -> None:
    items = numbered(2500)
    with user(any_server, face, *rules, max_connections=1) as client:
        jobs = make(client, face)
        for _ in range(2):
            jobs.add_many(items, range(2500))
            taken = [jobs.pop(), *jobs.take(2), *jobs.take(2), *jobs.take(2100), *jobs.take(2100)]
            assert taken == items
            assert jobs.take(3) == []
            with pytest.raises(KeyError):
                jobs.pop()


#: The user's rules; how long the call waits that takes two items first, in seconds, or None for no
#: such call; how many items a call removes; and the call.
REMOVALS: dict[str, tuple[str, float | None, int, Callable[[Any], Any]]] = {
    "pop": ("no scripts", 0, 1, lambda jobs: jobs.pop()),
    "first take": ("keys", None, 5, lambda jobs: jobs.take(5)),
    "take": ("no scripts", 0, 5, lambda jobs: jobs.take(5)),
    # The step with all keys is refused. The step with the queue's key alone follows, or a command.
    "script": ("keys", 0.01, 5, lambda jobs: jobs.take(5, wait=0.01)),
    "command": ("no scripts", 0.01, 5, lambda jobs: jobs.take(5, wait=0.01)),
}


@pytest.mark.parametrize("removal", REMOVALS)
def test_a_removal_by_a_user_of_the_queue_alone_is_never_sent_twice(
    any_server: servers.Server, face: str, removal: str
) -> None:
    """A retry after a lost reply would take the next items, and the first ones would be lost."""
    rules, wait, num, remove = REMOVALS[removal]
    items, sha = numbered(20), script("take").sha
    library = redis if face == "sync" else redis.asyncio

    def removes(command: list[bytes], last: bytes = b"ZREMRANGEBYRANK") -> bool:
        # A script of more keys is refused.
        return command[0] in (b"ZPOPMIN", last) or command[1:3] == [sha, b"1"]

    with Proxy(any_server) as proxy:
        retry = library.retry.Retry(NoBackoff(), 3)
        options = {"port": proxy.port, "retry": retry, "retry_on_error": [redis.ConnectionError]}
        with user(any_server, face, *OLD[rules], **options) as client:
            jobs = make(client, face)
            jobs.add_many(items, range(20))
            taken = [] if wait is None else jobs.take(2, wait=wait)
            proxy.seen.clear()
            proxy.rule = lambda command: Proxy.LOSE if removes(command, b"EXEC") else None
            with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
                remove(jobs)
            proxy.rule = None
            assert sum(map(removes, proxy.seen)) == 1
            assert taken + jobs.take(20) == [*items[: len(taken)], *items[len(taken) + num :]]


@pytest.mark.parametrize("moment", ["first", "later"])
@pytest.mark.parametrize("call", ["pop", "take"])
@pytest.mark.parametrize("rules", OLD.values(), ids=OLD)
def test_an_undecodable_item_stays_at_its_score_if_dead_letters_are_refused(
    any_server: servers.Server, face: str, rules: tuple[str, ...], call: str, moment: str
) -> None:
    raw = any_server.raw
    with user(any_server, face, *rules) as client:
        jobs = make(client, face, serializer=JSONSerializer())
        raw.zadd("jobs", {"no JSON": 1.5, "9": 7})
        if moment == "later":
            jobs.add_many([1, 2], [0, 0.5])
            assert jobs.take(2) == [1, 2]
        for _ in range(3):
            if call == "pop":
                with pytest.raises(DecodeError, match="put back: this user may not write dead"):
                    jobs.pop()
            else:
                raw.zadd("jobs", {"9": 7})
                assert jobs.take(3) == [9]
                with pytest.raises(DecodeError, match="put back: this user may not write dead"):
                    jobs.take(3)
            assert raw.zscore("jobs", "no JSON") == 1.5
    assert servers.keys(raw) == [b"jobs"]


@pytest.mark.parametrize("scored", [True, False])
def test_rights_withdrawn_before_a_burial_lose_nothing(
    any_server: servers.Server, face: str, scored: bool
) -> None:
    raw = any_server.raw
    with user(any_server, face, "~*", "+@all") as client:
        jobs = make(client, face, serializer=JSONSerializer())
        jobs.add_many([1, 2], [0, 0.5])
        assert jobs.take(2) == [1, 2]
        raw.zadd("jobs", {"no JSON": 1.5, "3": 2, "4": 3})
        change(any_server, "resetkeys", "~jobs", "-@scripting")
        assert jobs.take(2, with_scores=scored) == ([(3, 2.0)] if scored else [3])
        # Without scores it is queued at the lowest one there is.
        assert raw.zscore("jobs", "no JSON") == (1.5 if scored else 3)
        assert raw.zscore("jobs", "4") == 3


def test_a_scheduled_set_leaves_an_undecodable_item_at_its_score(
    any_server: servers.Server, face: str
) -> None:
    any_server.raw.zadd("jobs", {"no JSON": 1.5, "9": 7})
    with user(any_server, face, *OLD["keys"]) as client:
        jobs = make(client, face, ScheduledSet, serializer=JSONSerializer())
        assert jobs.take(2) == [9]
        with pytest.raises(DecodeError, match="put back"):
            jobs.pop()
    assert any_server.raw.zrange("jobs", 0, -1, withscores=True) == [(b"no JSON", 1.5)]


def test_a_call_that_needs_other_keys_raises_no_permission(
    any_server: servers.Server, face: str
) -> None:
    with user(any_server, face, *OLD["keys"]) as client:
        jobs = make(client, face)
        jobs.add("a")
        with pytest.raises(redis.exceptions.NoPermissionError):
            jobs.lease()
        keyed = make(client, face, key=str)
        for call in (keyed.pop, lambda: keyed.take(3), keyed.clear, lambda: keyed.discard("a")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                call()
        assert jobs.take(3) == ["a"]


# --- the rules that the documentation names

LIMITS = Path(__file__).resolve().parent.parent / "docs" / "limits.rst"


def documented() -> list[tuple[str, ...]]:
    """The rules of a user of the set ``jobs``, as the page on limits has them."""
    text = LIMITS.read_text("utf-8")
    rules = re.findall(r"^ +(~jobs\* .*(?:\n +\+.*)*)$", text, re.M)
    return [tuple(found.split()) for found in rules]


#: A user with all rights makes the sets that a call needs.
OPTIONS: dict[str, Any] = {
    "plain": {"serializer": JSONSerializer()},
    "keyed": {"key": "url", "remember": True, "ties": "fifo"},
    "limited": {"key": "url", "remember": 60.0, "max_size": 10_000},
    "grouped": {"key": "url", "group": "url", "remember": True},
}
#: Errors of a call that finds no item, or an undecodable one. They are not about rights.
OTHERWISE = (KeyError, ValueError, DecodeError)


def test_the_documentation_names_rules() -> None:
    assert len(documented()) == 2
    assert "+unlink" in documented()[1]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("rules", documented(), ids=["short", "letter"])
def test_the_documented_rules_are_enough_for_every_call(
    any_server: servers.Server,
    face: str,
    rules: tuple[str, ...],
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = replies.OPERATIONS + (replies.REMEMBERING if "remember" in options else [])
    calls += replies.GROUPED if "group" in options else []
    admin = any_server.client()
    with user(any_server, face, *rules) as client:
        any_server.raw.execute_command("ACL", "LOG", "RESET")
        other = make(client, face, name="jobs:other", **options)
        monkeypatch.setattr(replies, "_other", lambda jobs: other)
        for name, call, _ in calls:
            if face == "asyncio" and name in ("-= items", "&= items", "^=", "<=", "in"):
                continue  # these it has not
            any_server.flush()
            jobs = make(client, face, **options)
            if name != "restore":
                full = SortedSet(admin, "jobs", **options)
                full.add_many([{"url": letter} for letter in "abcdef"])
                full.add_many([{"url": "of another set"}])
                SortedSet(admin, "jobs:other", **options).add({"url": "b"})
                any_server.raw.zadd(full._ctx.keys.queue, {b"undecodable".ljust(16): -5})
                if "key" in options:
                    any_server.raw.hset(full._ctx.keys.items, b"undecodable".ljust(16), "no JSON")
            with contextlib.suppress(*OTHERWISE):
                call(jobs)
    admin.close()
    log = any_server.raw.execute_command("ACL", "LOG")
    assert log == []


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_stats_need_no_more_than_keys_to_read(
    any_server: servers.Server, face: str, options: dict[str, Any]
) -> None:
    if any_server.version < (7,):
        raise servers.Missing(f"{any_server.kind}: no keys that may only be read")
    jobs = make(any_server.raw, "sync", max_attempts=1, **options)
    jobs.add_many([{"url": letter} for letter in "abcd"])
    jobs.fail(jobs.lease(), "no", delay=60)
    jobs.lease(2)
    for member in any_server.raw.zrange("jobs:{jobs}:leased", 0, 0):
        any_server.raw.zadd("jobs:{jobs}:leased", {member: 1})  # is over
    before = servers.everything(any_server.raw)
    with user(any_server, face, "%R~*", "+@all") as client:
        looked = make(client, face, max_attempts=1, **options).stats()
    assert servers.everything(any_server.raw) == before
    assert looked._replace(memory_bytes=0) == jobs.stats()._replace(memory_bytes=0)


@pytest.mark.parametrize("rules", documented(), ids=["short", "letter"])
def test_the_documented_rules_release_a_lock(
    any_server: servers.Server, face: str, rules: tuple[str, ...]
) -> None:
    with user(any_server, face, *rules) as client:
        jobs = make(client, face, lock_timeout=0)
        for _ in range(2):
            with jobs.lock:
                assert any_server.raw.exists("jobs__lock")
            assert not any_server.raw.exists("jobs__lock")


# --- looking without the right to write


def in_disorder(jobs: Any, raw: Any, options: dict[str, Any], seed: int) -> None:
    """Leave items queued, leased, delayed, suspect, added again, dead; many are over their time."""
    chance = random.Random(seed)
    p = "jobs:{jobs}"
    # Of a scheduled set the last ten are not due.
    scores = [number if number < 20 or "ties" in options else 4e9 + number for number in range(30)]
    jobs.add_many([made(options, str(number)) for number in range(30)], scores)
    held: list[Any] = []
    for _ in range(chance.randint(5, 15)):
        held += jobs.lease(chance.randint(1, 5))
        chance.shuffle(held)
        for _ in range(chance.randint(0, 3)):
            if held:
                end = chance.choice(["ack", "fail", "fail", "release", "again", "lose"])
                if end == "again":
                    score = (
                        chance.choice([0, 5, 200]) if "ties" in options else chance.choice([5, 5e9])
                    )
                    jobs.add(held[-1].item, score, **once_more(options))
                elif end == "ack":
                    jobs.ack([held.pop()])
                elif end == "fail":
                    jobs.fail([held.pop()], "no", delay=chance.choice([0, 60]))
                elif end == "release":
                    jobs.release([held.pop()], delay=chance.choice([0, 60]))
                else:
                    held.pop()
        if chance.random() < 0.3:
            for member in raw.zrange(f"{p}:leased", 0, -1):
                if chance.random() < 0.3:
                    raw.zadd(f"{p}:leased", {member: 1})
    if chance.random() < 0.3:
        jobs.take(100)
    few = 2 if chance.random() < 0.7 else 0
    members = raw.zrange(f"{p}:leased", 0, -1)
    raw.zadd(f"{p}:leased", dict.fromkeys(members[few:], 1) or {"stray": 1})


@every_option
@pytest.mark.parametrize("max_attempts", [1, 2, None])
def test_stats_and_finished_return_the_same_without_the_right_to_write(
    any_server: servers.Server,
    face: str,
    options: dict[str, Any],
    max_attempts: int | None,
) -> None:
    ends = set()
    with user(any_server, face, "~*", "+@all", "-@write") as client:
        for seed in range(8):
            any_server.flush()
            cls: Any = ScheduledSet if seed % 2 and "ties" not in options else SortedSet
            jobs = cls(any_server.raw, "jobs", max_attempts=max_attempts, **options)
            in_disorder(jobs, any_server.raw, options, seed)
            looker = make(client, face, cls, max_attempts=max_attempts, **options)
            looked, finished = looker.stats(), looker.finished()
            told = jobs.stats()
            nothing = {"memory_bytes": 0, "oldest_age": None}
            assert looked._replace(**nothing) == told._replace(**nothing)
            assert finished == jobs.finished()
            ends.add(finished)
    assert False in ends


@every_option
@pytest.mark.parametrize("again", [False, True])
def test_a_set_of_which_all_died_is_finished_without_the_right_to_write(
    any_server: servers.Server, face: str, options: dict[str, Any], again: bool
) -> None:
    jobs = SortedSet(any_server.raw, "jobs", max_attempts=1, **options)
    jobs.add_many([made(options, str(number)) for number in range(5)])
    held = list(jobs.lease(5))
    if again:
        jobs.add(held[0].item, **once_more(options))
    for lease in held:
        any_server.raw.zadd("jobs:{jobs}:leased", {lease.member: 1})
    with user(any_server, face, "~*", "+@all", "-@write") as client:
        looker = make(client, face, max_attempts=1, **options)
        assert looker.finished() is not again
        stats = looker.stats()
        assert (stats.size, stats.leased, stats.dead) == (int(again), 0, 5)
        # A record of an item that a command removed is not a lease.
        any_server.raw.delete("jobs:{jobs}:leased")
        any_server.raw.hset("jobs:{jobs}:leases", mapping={"gone": "." * 16 + "01 5"})
        assert not looker.finished()
    assert jobs.stats().dead == 0


def test_of_many_expired_leases_those_past_a_thousand_count_as_queued(
    any_server: servers.Server,
) -> None:
    raw = any_server.raw
    names = [f"item {number:04}" for number in range(1500)]
    raw.zadd("jobs:{jobs}:leased", {name: place for place, name in enumerate(names, 1)})
    raw.hset("jobs:{jobs}:leases", mapping=dict.fromkeys(names, "B" * 16 + "00 5"))
    with user(any_server, "sync", "~*", "+@all", "-@write") as client:
        stats = SortedSet(client, "jobs", max_attempts=1).stats()
        assert (stats.size, stats.leased, stats.dead) == (500, 0, 1000)
        assert not SortedSet(client, "jobs", max_attempts=1).finished()
