"""Replies that no server gives: InvalidResponse, and a connection that is not used on."""

from __future__ import annotations

import asyncio
import importlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
from fuzz.replies import Answers, Server
from redis.backoff import NoBackoff
from redis.exceptions import InvalidResponse
from redis.retry import Retry

import redset.asyncio
from redset import Key, ScheduledSet, SortedSet, check_server
from redset.exceptions import AddError


class Always(Answers):
    """Answers the same to everything."""

    def __init__(self, answer: Any) -> None:
        super().__init__("", False)
        self._answer = answer

    def one_in(self, number: int) -> bool:
        return False

    def reply(self, command: list[bytes]) -> Any:
        return self._answer


@pytest.fixture
def fake() -> Iterator[Server]:
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("no unix sockets, on which the fake server listens")
    server = Server()
    yield server
    server.close()


def sync_client(fake: Server) -> redis.Redis:
    return redis.Redis(unix_socket_path=fake.path, socket_timeout=5, retry=Retry(NoBackoff(), 0))


PLAIN: dict[str, Any] = {}
KEYED: dict[str, Any] = {"key": str, "remember": True}
CALLS: list[tuple[dict[str, Any], str, Callable[[Any], Any], Any, str]] = [
    (PLAIN, "ZCARD", lambda jobs: jobs.size(), b"many", "a count"),
    (PLAIN, "ZCARD", lambda jobs: len(jobs), -1, "a count"),
    (PLAIN, "ZADD", lambda jobs: jobs.add("a"), [1], "a count of at most 1"),
    (PLAIN, "ZADD", lambda jobs: jobs.add("a"), 2, "a count of at most 1"),
    (PLAIN, "ZRANGE", lambda jobs: jobs.pop(), None, "a list"),
    (PLAIN, "ZRANGE", lambda jobs: jobs.take(2), [[b"a"]], "a list of strings"),
    (PLAIN, "ZRANGE", lambda jobs: jobs.take(2), [b"a"] * 11, "at most 1 members"),
    (PLAIN, "ZRANGE", lambda jobs: jobs.peek(), [b"a"], "members and scores"),
    (PLAIN, "ZRANGE", lambda jobs: jobs.peek(), [b"a", b"x"], "numbers as scores"),
    (PLAIN, "ZRANGE", lambda jobs: jobs.peek_score(), {}, "a list"),
    (KEYED, "'peek'", lambda jobs: jobs.peek(), [0, [b"a", b"x"]], "numbers as scores"),
    (PLAIN, "ZSCORE", lambda jobs: jobs.score("a"), b"nan", "a number"),
    (PLAIN, "ZMSCORE", lambda jobs: jobs.scores(["a", "b"]), [b"1"], "a list of 2"),
    (PLAIN, "'discard'", lambda jobs: jobs.discard("a"), 2, "a count of at most 1"),
    (PLAIN, "'page'", lambda jobs: list(iter(jobs)), [[b"a"], []], "a list of 4"),
    (PLAIN, "'page'", lambda jobs: jobs_of(jobs), [[b"a"], [], [], 0], "a list of 1"),
    (PLAIN, "'stats'", lambda jobs: jobs.stats(), [1, 2, 3], "a list of 10"),
    (PLAIN, "'server'", lambda jobs: check_server(jobs.redis), [b"1"], "a list of 2"),
    (PLAIN, "'clear'", lambda jobs: jobs.clear(), [1], "a list of 2"),
    (PLAIN, "'read_letters'", lambda jobs: jobs_of(jobs.dead), [0, [[b"no", []]]], "the id of a"),
    (PLAIN, "'read_letters'", lambda jobs: jobs_of(jobs.dead), [0, [[b"1-0", [b"x"]]]], "the fie"),
    (KEYED, "'get'", lambda jobs: jobs.get(Key("a")), [b"a"], "a string"),
    (KEYED, "HGET", lambda jobs: jobs.seen("a"), [], "a string"),
]


def jobs_of(jobs: Any) -> list[Any]:
    # Not list(jobs), which asks how many there are.
    return [each for each in jobs]  # noqa: C416


@pytest.mark.parametrize(("options", "name", "call", "answer", "wanted"), CALLS)
def test_a_reply_of_another_shape_is_an_invalid_response(
    fake: Server,
    any_implementation: str,
    options: dict[str, Any],
    name: str,
    call: Callable[[Any], Any],
    answer: Any,
    wanted: str,
) -> None:
    fake.answers = Always(answer)
    client = sync_client(fake)
    with pytest.raises(InvalidResponse, match=f"{name}: expected {wanted}"):
        call(SortedSet(client, "jobs", **options))
    # The next reply on that connection may belong to another request, so it is closed.
    [connection] = client.connection_pool._available_connections
    assert connection._sock is None
    client.close()


def test_nothing_is_known_of_a_set_after_a_reply_of_another_shape(fake: Server) -> None:
    fake.answers = Always([b"b"])
    jobs: SortedSet[Any] = SortedSet(sync_client(fake), "jobs", remember=True)
    for call in (lambda: jobs.add("a"), lambda: jobs.seen("a"), lambda: jobs.forget("a")):
        with pytest.raises(InvalidResponse):
            call()
        assert jobs._ctx.memory.epoch is None
    jobs.redis.close()


def test_an_unchanged_epoch_is_not_a_new_one(fake: Server) -> None:
    # A call that accepted this reply would ask forever.
    fake.answers = Always(b"0123456789abcdef")
    jobs: SortedSet[Any] = SortedSet(sync_client(fake), "jobs", remember=True)
    with pytest.raises(InvalidResponse):
        jobs.seen("a")
    fake.answers = Always([b"EPOCH", b"0123456789abcdef"])
    for call in (
        lambda: jobs.seen("a"),
        lambda: jobs.forget("a"),
        lambda: jobs.add("a"),
        lambda: jobs.discard("a", forget=True),
    ):
        with pytest.raises(InvalidResponse):
            call()
    jobs.redis.close()


def test_a_malformed_reply_stops_a_bulk_call_with_its_position(fake: Server) -> None:
    fake.answers = Always(501)
    jobs: SortedSet[str] = SortedSet(sync_client(fake), "jobs")
    with pytest.raises(AddError, match="expected a count of at most 500, got 501") as caught:
        jobs.add_many(map(str, range(2000)))
    assert isinstance(caught.value.__cause__, InvalidResponse)
    assert (caught.value.resume_at, caught.value.result.added) == (0, 0)
    jobs.redis.close()


def test_a_page_that_comes_again_ends_the_iteration(fake: Server) -> None:
    members = [b"%d" % n for n in range(1000)]
    fake.answers = Always([members, [b"1"], [], 0])
    jobs: SortedSet[str] = SortedSet(sync_client(fake), "jobs")
    with pytest.raises(InvalidResponse, match="the page after the last one"):
        jobs_of(jobs.between(0, 9))
    jobs.redis.close()


def test_a_time_of_another_shape_is_not_gone_by(fake: Server) -> None:
    fake.answers = Always([b"soon"])
    jobs: ScheduledSet[str] = ScheduledSet(sync_client(fake), "jobs")
    with pytest.raises(InvalidResponse, match="TIME: expected a list of 2"):
        jobs.add("a")
    jobs.redis.close()


def test_a_client_of_another_kind_has_a_connection_error() -> None:
    class Client:
        def execute_command(self, *args: Any) -> Any:
            return [[]]

    jobs: SortedSet[str] = SortedSet(Client(), "jobs")
    with pytest.raises(ConnectionError, match="ZCARD: expected a count, got"):
        jobs.size()
    with pytest.raises(ConnectionError, match="ZRANGE: expected a list of strings"):
        jobs.pop()


def test_with_valkey_py_it_is_its_own_invalid_response(fake: Server) -> None:
    valkey = pytest.importorskip("valkey")
    invalid = importlib.import_module("valkey.exceptions").InvalidResponse
    fake.answers = Always(b"x")
    client = valkey.Valkey(unix_socket_path=fake.path, socket_timeout=5)
    with pytest.raises(invalid, match="ZCARD: expected a count"):
        SortedSet(client, "jobs").size()
    client.close()


def test_an_asyncio_set_raises_the_same_invalid_response(fake: Server) -> None:
    fake.answers = Always([b"x"])

    async def work() -> None:
        client = redis.asyncio.Redis(unix_socket_path=fake.path, socket_timeout=5)
        jobs: redset.asyncio.SortedSet[str] = redset.asyncio.SortedSet(client, "jobs")
        with pytest.raises(InvalidResponse, match="ZCARD: expected a count"):
            await jobs.size()
        [connection] = client.connection_pool._available_connections
        assert not connection.is_connected
        await client.connection_pool.disconnect()

    asyncio.run(work())
