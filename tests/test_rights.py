"""Users who may not do everything: what the server refuses loses nothing, and what was enough for
redset 0.5.1 is enough for what 0.5.1 could do."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import blocking
import pytest
import redis
import servers
from fuzz import replies

from redset import ScheduledSet, SortedSet, TimeSortedSet
from redset.exceptions import DecodeError
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
    """A client of a user who has these rules."""
    server.raw.execute_command("ACL", "SETUSER", "bob", "reset", "on", ">secret", "&*", *rules)
    options |= {"username": "bob", "password": "secret"}
    if face == "sync":
        client = server.client(**options)
        yield client
        client.close()
    else:
        other = server.asyncio_client(**options)
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
        change(any_server, *rules, "-zremrangebyrank")
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


# --- what was enough for redset 0.5.1

#: The keys that 0.5.1 used; and the same without scripts, which it did not use.
OLD = {
    "keys": ("~jobs", "~jobs__lock", "+@all"),
    "no scripts": ("~jobs", "~jobs__lock", "+@all", "-@scripting"),
}


@pytest.mark.parametrize("cls", [SortedSet, TimeSortedSet, ScheduledSet])
def test_the_keys_that_0_5_1_used_are_enough_for_what_it_could_do(
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
        assert any_server.raw.keys() == []


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


@pytest.mark.parametrize("moment", ["first", "later"])
@pytest.mark.parametrize("call", ["pop", "take"])
@pytest.mark.parametrize("rules", OLD.values(), ids=OLD)
def test_what_cannot_be_decoded_stays_at_its_score_if_dead_letters_are_refused(
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
                with pytest.raises(DecodeError, match="put back: this user may write no dead"):
                    jobs.pop()
            else:
                raw.zadd("jobs", {"9": 7})
                assert jobs.take(3) == [9]
                with pytest.raises(DecodeError, match="put back: this user may write no dead"):
                    jobs.take(3)
            assert raw.zscore("jobs", "no JSON") == 1.5
    assert raw.keys() == [b"jobs"]


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


def test_a_scheduled_set_leaves_what_cannot_be_decoded_at_its_score(
    any_server: servers.Server, face: str
) -> None:
    any_server.raw.zadd("jobs", {"no JSON": 1.5, "9": 7})
    with user(any_server, face, *OLD["keys"]) as client:
        jobs = make(client, face, ScheduledSet, serializer=JSONSerializer())
        assert jobs.take(2) == [9]
        with pytest.raises(DecodeError, match="put back"):
            jobs.pop()
    assert any_server.raw.zrange("jobs", 0, -1, withscores=True) == [(b"no JSON", 1.5)]


def test_what_needs_other_keys_says_that_they_are_refused(
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

TUNING = Path(__file__).resolve().parent.parent / "docs" / "tuning.rst"


def documented() -> list[tuple[str, ...]]:
    """The rules of a user of the set ``jobs``, as the page on tuning has them."""
    text = " ".join(TUNING.read_text("utf-8").split())
    return [tuple(found.split()) for found in re.findall(r"``(~jobs\* [^`]*@[^`]*)``", text)]


#: What a call needs is made by a user who may do everything.
OPTIONS: dict[str, Any] = {
    "plain": {"serializer": JSONSerializer()},
    "keyed": {"key": "url", "remember": True, "ties": "fifo"},
    "limited": {"key": "url", "remember": 60.0, "max_size": 10_000},
}
#: What says that a call met nothing, or what it cannot read, which is not what is asked here.
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
