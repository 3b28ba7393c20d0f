"""The generic link: any client with ``execute_command`` has the results of the packed link."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import redis
import servers
from redis.backoff import NoBackoff
from redis.retry import Retry

from redset import Key, ScheduledSet, SortedSet, TimeSortedSet
from redset.exceptions import AddError, DecodeError, Full, OptionsDiffer


class Other:
    """A client of some other library: it has one method, and returns the server's replies."""

    def __init__(self, server: servers.Server, **options: Any) -> None:
        client = server.client(retry=Retry(NoBackoff(), 0), **options)
        client.response_callbacks.clear()
        self._client = client
        self.commands: list[tuple[Any, ...]] = []

    def execute_command(self, *args: Any) -> Any:
        self.commands.append(args)
        return self._client.execute_command(*args)

    def names(self) -> set[str]:
        """The commands that were sent, without the first sending of a script."""
        return {str(args[0]).upper() for args in self.commands}


def single(server: servers.Server) -> Any:
    return server.client(single_connection_client=True)


def tracking(server: servers.Server) -> None:
    if not server.tracks:
        raise servers.Missing(f"{server.kind}: no client-side caching that can be relied on")


def caching(server: servers.Server) -> Any:
    tracking(server)
    cache = pytest.importorskip("redis.cache", reason="redis-py without client-side caching")
    return server.tcp_client(protocol=3, cache_config=cache.CacheConfig())


def valkey_caching(server: servers.Server) -> Any:
    tracking(server)
    valkey = pytest.importorskip("valkey")
    return valkey.Valkey(port=server.port, protocol=3, cache_enabled=True)


def valkey_single_caching(server: servers.Server) -> Any:
    tracking(server)
    valkey = pytest.importorskip("valkey")
    return valkey.Valkey(
        port=server.port, protocol=3, cache_enabled=True, single_connection_client=True
    )


def valkey_single(server: servers.Server) -> Any:
    valkey = pytest.importorskip("valkey")
    return valkey.Valkey(unix_socket_path=server.unix, single_connection_client=True)


def subclass(server: servers.Server) -> Any:
    class Mine(redis.Redis):
        pass

    return Mine(unix_socket_path=server.unix)


CLIENTS: dict[str, Callable[[servers.Server], Any]] = {
    "other": Other,
    "other RESP3": lambda server: Other(server, protocol=3),
    "single connection": single,
    "single connection decoding": lambda server: server.client(
        single_connection_client=True, decode_responses=True
    ),
    "caching": caching,
    "valkey caching": valkey_caching,
    "valkey single caching": valkey_single_caching,
    "valkey single connection": valkey_single,
    "subclass": subclass,
}


@pytest.fixture(autouse=True)
def _caching_asks_for_no_certain_server(monkeypatch: pytest.MonkeyPatch) -> None:
    # redis-py offers it for Redis 7.4 and later; older ones and Valkey have what it needs.
    caching = getattr(redis.connection, "CacheProxyConnection", None)
    if caching is not None:
        monkeypatch.setattr(caching, "MIN_ALLOWED_VERSION", "6.2.0")
        monkeypatch.setattr(caching, "DEFAULT_SERVER_NAME", mock.ANY)


@pytest.fixture(params=CLIENTS)
def other(request: pytest.FixtureRequest, any_server: servers.Server) -> Iterator[Any]:
    made = CLIENTS[request.param](any_server)
    yield made
    if hasattr(made, "close"):
        made.close()


class Numbers:
    """A serializer that some members are beyond."""

    def dumps(self, item: int) -> str:
        return str(item)

    def loads(self, text: str) -> int:
        return int(text)


def fill(jobs: SortedSet[Any]) -> list[Any]:
    return [
        jobs.add("b", 2),
        jobs.add("a", 1),
        jobs.add("c"),
        jobs.add_many(["d", "e", "ü"], [4, 5.25, float("inf")]),
    ]


def adding(client: Any) -> Any:
    jobs: SortedSet[Any] = SortedSet(client, "jobs")
    yield fill(jobs)
    yield jobs.add("a", 7, nx=True), jobs.add("z", 7, xx=True), jobs.add("a", 0.5, gt=True)
    yield jobs.add("a", 0.5, lt=True), jobs.add("new", 1, nx=True), jobs.add("b", 3, xx=True)
    yield jobs.add_many([f"{number}" for number in range(3000)], range(3000))
    yield jobs.add_many((f"{number}" for number in range(2000, 4000)), 1, nx=True)
    yield jobs.add_many([f"{number}" for number in range(3000)], 50, gt=True)
    yield jobs.add_many([f"{number}" for number in range(3000)], 40, lt=True)
    yield jobs.add_many(["a", "nobody"], 40, xx=True)
    yield list(jobs.add_new(["a", "x", "y", "x"]))


def taking(client: Any) -> Any:
    jobs: SortedSet[Any] = SortedSet(client, "jobs")
    fill(jobs)
    yield jobs.pop(), jobs.take(2), jobs.take(2, with_scores=True), jobs.take(0)
    yield jobs.take(1, with_scores=True), jobs.take(5)
    with pytest.raises(KeyError):
        jobs.pop()
    jobs.add_many([f"{number:05}" for number in range(5000)], range(5000))
    yield jobs.take(4500)
    yield jobs.take(4500, with_scores=True)


def looking(client: Any) -> Any:
    jobs: SortedSet[Any] = SortedSet(client, "jobs")
    yield jobs.peek_score(), jobs.size(), bool(jobs), list(jobs)
    fill(jobs)
    yield jobs.peek(), jobs.peek(1), jobs.peek(-1), jobs.peek_many(3), jobs.peek_score()
    yield jobs.score("ü"), jobs.score("no"), jobs.scores(["a", "no", "e"])
    yield jobs.get("a"), jobs.get("no"), "a" in jobs, jobs.contains("no"), Key("a") in jobs
    yield jobs.size(), len(jobs), list(jobs)
    yield jobs.stats()._replace(memory_bytes=0), jobs.stats().memory_bytes > 0
    with pytest.raises(KeyError):
        jobs.peek(6)


def removing(client: Any) -> Any:
    jobs: SortedSet[Any] = SortedSet(client, "jobs")
    fill(jobs)
    yield jobs.discard("a"), jobs.discard("a"), jobs.discard_many(["b", "c", "b", "no"])
    jobs.remove("d")
    with pytest.raises(KeyError):
        jobs.remove("d")
    yield jobs.clear(), jobs.clear(), jobs.size()


def keyed(client: Any) -> Any:
    pages: SortedSet[Any] = SortedSet(client, "pages", "n", key="url")
    yield [pages.add({"url": f"/{number}", "n": number}) for number in (3, 1, 2)]
    yield pages.add({"url": "/1", "n": 9, "more": "ü"}), pages.get(Key("/1")), Key("/9") in pages
    yield pages.add_many({"url": f"/{number % 700}", "n": number} for number in range(1500))
    yield pages.pop(), pages.take(3), pages.take(2, with_scores=True), pages.peek(), len(pages)
    yield pages.discard(Key("/50")), pages.discard_many([Key("/51"), Key("/50")])
    yield list(pages)
    yield pages.take(5000, with_scores=True), pages.clear()


def remembering(client: Any) -> Any:
    for name, remember in (("ever", True), ("limited", 3600)):
        urls: SortedSet[Any] = SortedSet(client, name, remember=remember)
        yield urls.add("a"), urls.pop(), urls.add("a"), urls.add("a", again=True)
        yield urls.seen("a"), urls.seen_many(["a", "b"]), urls.forget("b"), urls.forget("a")
        yield urls.add_many(f"/{number % 2500}" for number in range(4000))
        yield urls.discard("/5", forget=True), urls.seen("/5"), urls.forget_many(["/6", "/7", "/5"])
        yield list(urls.add_new(["/1", "/5", "/6", "/x"]))
        yield urls.take(10), urls.clear(keep_memory=True), urls.add("/9"), urls.clear()
        yield urls.add("/9"), urls.stats()._replace(memory_bytes=0)


def scheduling(client: Any) -> Any:
    later: ScheduledSet[Any] = ScheduledSet(client, "later")
    now = time.time()
    later.add_many(["tomorrow", "past", "now"], [now + 86400, now - 100, now - 1])
    yield later.available(), later.size(), later.peek(), later.peek_many(5)
    yield later.pop(), later.take(5), later.take(5), later.size(), later.peek_score()
    later.add("soon")
    yield later.take(5)
    times: TimeSortedSet[Any] = TimeSortedSet(client, "times")
    yield times.add_many(["first", "second"]), times.take(2)


def dying(client: Any) -> Any:
    jobs: SortedSet[Any] = SortedSet(client, "jobs", serializer=Numbers())
    raw: SortedSet[Any] = SortedSet(client, "jobs")
    raw.add_many([b"\xff\xfe", "none", b"\x80"], [1, 2, 6])
    jobs.add_many([3, 4, 5], [3, 4, 5])
    yield jobs.peek_many(5), list(jobs), jobs.dead.size()
    yield jobs.pop(), jobs.take(2, with_scores=True), jobs.take(5)
    letters = [(letter.raw, letter.score, letter.attempts) for letter in jobs.dead]
    yield letters, len(jobs.dead), jobs.stats().dead
    yield jobs.dead.purge(before=0), jobs.dead.purge(), jobs.dead.size()
    raw.add_many([bytes([255, number]) for number in range(12)])
    with pytest.raises(DecodeError):
        SortedSet(client, "jobs", serializer=Numbers()).pop()
    yield jobs.size()
    braces: SortedSet[Any] = SortedSet(client, "a}b", serializer=Numbers())
    SortedSet(client, "a}b").add("none", 1)
    with pytest.raises(DecodeError):
        braces.pop()
    yield braces.size(), braces.peek_score(), braces.stats().size


def failing(client: Any) -> Any:
    jobs: SortedSet[Any] = SortedSet(client, "jobs", max_size=3)
    jobs.add_many(list("abc"))
    with pytest.raises(Full):
        jobs.add("d")
    with pytest.raises(AddError) as caught:
        jobs.add_many(["a", "d", "e"])
    yield caught.value.result, caught.value.resume_at, isinstance(caught.value, Full), jobs.size()
    with pytest.raises(AddError) as caught:
        SortedSet(client, "bad").add_many(["a", "b", "c"], [1, 2, float("nan")])
    yield caught.value.result, caught.value.resume_at, caught.value.index, caught.value.item
    yield SortedSet(client, "skip").add_many(["a", "b", "c"], [1, "x", 2], errors="skip")
    SortedSet(client, "other", key=str).add(1)
    with pytest.raises(OptionsDiffer):
        SortedSet(client, "other", remember=True).add(1)


OPERATIONS = [adding, taking, looking, removing, keyed, remembering, scheduling, dying, failing]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_every_operation_gives_what_the_packed_link_gives(
    any_server: servers.Server, other: Any, operation: Callable[[Any], Any]
) -> None:
    packed = any_server.client()
    expected = list(operation(packed))
    left = contents(any_server.raw)
    any_server.flush()
    assert list(operation(other)) == expected
    assert contents(any_server.raw) == left
    packed.close()


def contents(raw: redis.Redis) -> dict[bytes, Any]:
    """Return the content of plain sets. Other keys hold epochs and times, which differ."""
    found: dict[bytes, Any] = {}
    for key in servers.keys(raw):
        plain = key in (b"jobs", b"skip", b"bad", b"a}b") or key.endswith((b":keyed", b":items"))
        kind = raw.type(key)
        found[key if b":seen:" not in key else b"bucket"] = kind
        if plain:
            found[key] = (
                raw.zrange(key, 0, -1, withscores=True) if kind == b"zset" else raw.hgetall(key)
            )
    return found


def test_which_clients_lend_their_connections(any_server: servers.Server) -> None:
    for client in (any_server.client(), any_server.tcp_client(), subclass(any_server)):
        assert SortedSet(client, "jobs")._open().multi
    for name in ("other", "single connection", "valkey single connection"):
        assert not SortedSet(CLIENTS[name](any_server), "jobs")._open().multi


def test_a_caching_client_keeps_its_connections(any_server: servers.Server) -> None:
    assert not SortedSet(caching(any_server), "jobs")._open().multi


@pytest.mark.parametrize("make", [caching, valkey_caching, valkey_single_caching])
def test_a_caching_client_is_never_answered_from_its_cache(
    any_server: servers.Server, make: Callable[[servers.Server], Any]
) -> None:
    client = make(any_server)
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    for number in range(20):
        any_server.raw.zadd("jobs", {"a": number})
        assert jobs.score("a") == number
        assert jobs.size() == 1
        assert list(jobs) == ["a"]
        client.zscore("jobs", "a")


def test_members_that_are_not_text_come_through_a_client_that_decodes(
    any_server: servers.Server,
) -> None:
    class Bytes:
        binary = True
        dumps = loads = staticmethod(bytes)

    everything = [bytes([number]) * 3 for number in range(256)]
    for options in ({}, {"single_connection_client": True}):
        client = any_server.client(decode_responses=True, **options)
        for extra in ({}, {"key": lambda item: item}):
            any_server.flush()
            jobs: SortedSet[bytes] = SortedSet(client, "jobs", serializer=Bytes(), **extra)
            jobs.add_many(everything, range(256))
            assert jobs.peek() == everything[0]
            assert list(jobs) == everything
            assert jobs.pop() == everything[0]
            assert jobs.take(2) == everything[1:3]
            assert jobs.take(300) == everything[3:]
        client.close()


@pytest.mark.parametrize("options", [{}, {"key": str}])
def test_each_step_is_one_command_or_script(any_server: servers.Server, options: Any) -> None:
    client = Other(any_server)
    jobs: SortedSet[Any] = SortedSet(client, "jobs", **options)
    jobs.add_many([str(number) for number in range(3000)], range(3000))
    client.commands.clear()
    for call in (
        lambda: jobs.pop(),
        lambda: jobs.take(1),
        lambda: jobs.take(100),
        lambda: jobs.take(10, with_scores=True),
        lambda: jobs.discard("2000"),
        lambda: jobs.clear(),
    ):
        call()
    assert not client.names() & {"MULTI", "EXEC", "ZREM RANGE", "ZREMRANGEBYRANK"}
    assert client.names() <= {
        "EVALSHA",
        "SCRIPT LOAD",
        "ZPOPMIN",
        "ZREM",
        "ZRANGE",
        "EXISTS",
        "HDEL",
    }
    # Nothing that removes is in two commands: what is looked at before is only the first one.
    assert [args for args in client.commands if args[0] == "ZRANGE"] == (
        [] if options else [("ZRANGE", b"jobs", b"0", b"0")]
    )
    taken = [args for args in client.commands if args[0] in ("ZPOPMIN", "ZREM")]
    assert len(taken) == (0 if options else 2)


@pytest.mark.usefixtures("silent")
def test_a_script_is_sent_whole_only_if_the_server_does_not_know_it(
    any_server: servers.Server,
) -> None:
    any_server.raw.script_flush()
    client = Other(any_server)
    jobs: SortedSet[Any] = SortedSet(client, "jobs", key=str)
    jobs.add_many(range(2000))
    other: SortedSet[Any] = SortedSet(Other(any_server), "jobs", key=str)
    assert [args[0] for args in client.commands].count("SCRIPT LOAD") == 1
    other.add(1)
    assert "SCRIPT LOAD" not in other.redis.names()
    any_server.raw.script_flush()
    assert jobs.add(5000) == 0
    assert jobs.size() == 2001


def test_a_clients_own_errors_come_out(any_server: servers.Server) -> None:
    class Lost(Exception):
        pass

    class Losing:
        def execute_command(self, *args: Any) -> Any:
            raise Lost("no server")

    jobs: SortedSet[str] = SortedSet(Losing(), "jobs")
    for call in (jobs.pop, jobs.size, jobs.clear, lambda: jobs.add("a"), lambda: list(jobs)):
        with pytest.raises(Lost):
            call()
    with pytest.raises(AddError) as caught:
        jobs.add_many(["a", "b"])
    assert isinstance(caught.value.__cause__, Lost)
    assert caught.value.resume_at == 0


def test_errors_that_a_client_returns_are_raised(any_server: servers.Server) -> None:
    class Returning(Other):
        def execute_command(self, *args: Any) -> Any:
            try:
                return super().execute_command(*args)
            except redis.RedisError as error:
                return error

    any_server.raw.set("text", "a string")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        SortedSet(Returning(any_server), "text").add("a")
    any_server.raw.script_flush()
    assert SortedSet(Returning(any_server), "jobs", key=str).add("a") == 0


def test_a_generator_may_use_a_generic_client(any_server: servers.Server) -> None:
    client = single(any_server)

    def generator() -> Iterator[str]:
        for number in range(1500):
            if number % 100 == 0:
                client.incr("used")
            yield str(number)

    jobs: SortedSet[str] = SortedSet(client, "jobs")
    assert jobs.add_many(generator()).added == 1500
    assert len([client.incr("used") for _ in jobs]) == 1500
    client.close()


def test_an_interrupted_call_leaves_no_answer_to_the_next_one(any_server: servers.Server) -> None:
    def scorer(item: str) -> float:
        if item == "1300":
            raise KeyboardInterrupt
        return 0.0

    client = single(any_server)
    jobs: SortedSet[str] = SortedSet(client, "jobs", scorer)
    with pytest.raises(KeyboardInterrupt):
        jobs.add_many([str(number) for number in range(3000)])
    assert client.echo("mine") == b"mine"
    assert jobs.size() == 1000
    client.close()


def test_a_client_must_have_execute_command() -> None:
    for what in (None, 5, "redis://localhost", object()):
        with pytest.raises(TypeError, match=r"redis_client .*execute_command"):
            SortedSet(what, "jobs")
