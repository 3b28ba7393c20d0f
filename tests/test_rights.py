"""Users who may not do everything: what the server refuses loses nothing, and what was enough for
redset 0.5.1 is enough for what 0.5.1 could do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import blocking
import pytest
import redis
import servers

from redset import SortedSet

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
