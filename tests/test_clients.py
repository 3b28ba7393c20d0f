"""The client is the user's: what stands in front of its commands is never bypassed, and what is
no client is refused by name."""

from __future__ import annotations

import asyncio
import functools
import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import redis
import redis.asyncio
import redis.cluster
import redis.sentinel
import servers
from redis.connection import ConnectionPool, UnixDomainSocketConnection

import redset
import redset.asyncio
from redset import SortedSet


@pytest.fixture
def server(all_servers: servers.Servers) -> servers.Server:
    """One real server: behaviour of a client that is the same on every server."""
    for kind in servers.REAL:
        try:
            found = all_servers.get(kind)
        except servers.Missing:
            continue
        found.flush()
        assert isinstance(found, servers.Server)
        return found
    raise servers.Missing("no server")


@pytest.fixture
def made(server: servers.Server) -> Iterator[Callable[..., Any]]:
    """Makes clients of a class on the server, and closes them."""
    clients: list[Any] = []

    def make(kind: Any = redis.Redis, **options: Any) -> Any:
        clients.append(kind(unix_socket_path=server.unix, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.connection_pool.disconnect()


class BoundWrapper:
    def __init__(self, wrapper: Any, wrapped: Any, instance: Any) -> None:
        self._call = functools.partial(wrapper, wrapped, instance)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._call(args, options)


class FunctionWrapper:
    """As wrapt's: its attributes are those of the wrapped function."""

    def __init__(self, wrapped: Any, wrapper: Any) -> None:
        self.__wrapped__ = wrapped
        self._self_wrapper = wrapper
        self.__module__ = wrapped.__module__
        self.__name__ = wrapped.__name__

    @property
    def __globals__(self) -> Any:
        return self.__wrapped__.__globals__

    def __get__(self, instance: Any, owner: Any) -> Any:
        return BoundWrapper(self._self_wrapper, self.__wrapped__.__get__(instance, owner), instance)

    def __eq__(self, other: object) -> bool:
        return bool(self.__wrapped__ == other)

    __hash__ = None  # type: ignore[assignment]


def in_module(name: str, code: str, **names: Any) -> Any:
    """Return ``made`` of some code, as if it was written in a module of that name."""
    space = {"__name__": name, **names}
    exec(code, space)
    return space["made"]


OBSERVER = """
def made(wrapped, instance, args, options):
    return wrapped(*args, **options)
"""
PATCH = """
def patch(old):
    def execute_command(self, *args, **options):
        return old(self, *args, **options)
    return execute_command
made = patch(old)
"""

# --- ways to stand in front of a client's commands; each notes the commands in `seen`


def subclass(make: Callable[..., Any], seen: list[str]) -> Any:
    class Mine(redis.Redis):
        def execute_command(self, *args: Any, **options: Any) -> Any:
            seen.append(args[0])
            return super().execute_command(*args, **options)

    return make(Mine)


def subclass_of_a_subclass(make: Callable[..., Any], seen: list[str]) -> Any:
    class Mine(type(subclass(make, seen))):  # type: ignore[misc]
        pass

    return make(Mine)


def without_options(make: Callable[..., Any], seen: list[str]) -> Any:
    class Mine(redis.Redis):
        def execute_command(self, *args: Any) -> Any:
            seen.append(args[0])
            return super().execute_command(*args)

    return make(Mine)


def inner_method(make: Callable[..., Any], seen: list[str]) -> Any:
    class Mine(redis.Redis):
        def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
            seen.append(command_name)
            return super().parse_response(connection, command_name, **options)

    return make(Mine)


def instance_attribute(make: Callable[..., Any], seen: list[str]) -> Any:
    client = make()
    execute = client.execute_command

    def note(*args: Any, **options: Any) -> Any:
        seen.append(args[0])
        return execute(*args, **options)

    client.execute_command = note
    return client


def copied_names(make: Callable[..., Any], seen: list[str]) -> Any:
    client = make()
    execute = client.execute_command

    @functools.wraps(execute)
    def note(*args: Any) -> Any:
        seen.append(args[0])
        return execute(*args)

    client.execute_command = note
    return client


def patched_class(make: Callable[..., Any], seen: list[str]) -> Any:
    class Mine(redis.Redis):
        pass

    execute = redis.Redis.execute_command

    @functools.wraps(execute)
    def note(self: Any, *args: Any, **options: Any) -> Any:
        seen.append(args[0])
        return execute(self, *args, **options)

    Mine.execute_command = note  # type: ignore[method-assign]
    Mine.__module__ = "redis.client"
    return make(Mine)


def wrapped_class(make: Callable[..., Any], seen: list[str]) -> Any:
    class Mine(redis.Redis):
        pass

    def note(wrapped: Any, instance: Any, args: Any, options: Any) -> Any:
        seen.append(args[0])
        return wrapped(*args, **options)

    wrapper = FunctionWrapper(redis.Redis.execute_command, note)
    Mine.execute_command = wrapper  # type: ignore[method-assign, assignment]
    Mine.__module__ = "redis.client"
    return make(Mine)


def beneath_an_instrumentation(make: Callable[..., Any], seen: list[str]) -> Any:
    kind = type(wrapped_class(make, seen))
    wrapper = in_module("opentelemetry.instrumentation.redis", OBSERVER)
    kind.execute_command = FunctionWrapper(vars(kind)["execute_command"], wrapper)
    return make(kind)


def beneath_a_patch(make: Callable[..., Any], seen: list[str]) -> Any:
    kind = type(patched_class(make, seen))
    kind.execute_command = in_module("sentry_sdk.x", PATCH, old=kind.execute_command)
    return make(kind)


def attributes_of_its_own(make: Callable[..., Any], seen: list[str]) -> Any:
    class Mine(redis.Redis):
        def __getattribute__(self, name: str) -> Any:
            found = super().__getattribute__(name)
            if name != "execute_command":
                return found

            def note(*args: Any, **options: Any) -> Any:
                seen.append(args[0])
                return found(*args, **options)

            return note

    return make(Mine)


def connections_of_its_own(make: Callable[..., Any], seen: list[str]) -> Any:
    class Mine(UnixDomainSocketConnection):
        def pack_command(self, *args: Any) -> Any:
            seen.append(args[0])
            return super().pack_command(*args)

        def send_command(self, *args: Any, **options: Any) -> None:
            self.send_packed_command(self.pack_command(*args))

    client = make()
    client.connection_pool.connection_class = Mine
    return client


def a_packer(make: Callable[..., Any], seen: list[str]) -> Any:
    class Packer:
        def pack(self, *args: Any) -> list[bytes]:
            seen.append(args[0])
            parts = [part if isinstance(part, bytes) else str(part).encode() for part in args]
            return [b"*%d\r\n" % len(parts)] + [b"$%d\r\n%b\r\n" % (len(p), p) for p in parts]

    client = make()
    client.connection_pool.connection_kwargs["command_packer"] = Packer()
    return client


def a_pool_of_its_own(make: Callable[..., Any], seen: list[str]) -> Any:
    class Mine(ConnectionPool):
        def get_connection(self, *args: Any, **options: Any) -> Any:
            seen.extend(args[:1] or ["ZADD"])
            return super().get_connection(*args, **options)

    client = make()
    options = client.connection_pool.connection_kwargs
    client.connection_pool = Mine(UnixDomainSocketConnection, **options)
    return client


WAYS = [
    subclass,
    subclass_of_a_subclass,
    without_options,
    inner_method,
    instance_attribute,
    copied_names,
    patched_class,
    wrapped_class,
    beneath_an_instrumentation,
    beneath_a_patch,
    attributes_of_its_own,
    connections_of_its_own,
    a_packer,
    a_pool_of_its_own,
]


def is_packed(jobs: Any) -> bool:
    return bool(jobs._open().multi)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_no_wrapper_of_a_clients_commands_is_bypassed(
    made: Callable[..., Any], way: Callable[..., Any]
) -> None:
    seen: list[Any] = []
    jobs: SortedSet[str] = SortedSet(way(made, seen), "jobs")
    assert not is_packed(jobs)
    assert jobs.add_many(["a", "b"], [1, 2]).added == 2
    # As the library's own methods name commands: a guard compares them.
    assert "ZADD" in seen
    assert jobs.add("a", nx=True) is None
    assert jobs.take(5) == ["a", "b"]


def test_a_tenants_keys_are_prefixed(made: Callable[..., Any]) -> None:
    class Tenant(redis.Redis):
        def execute_command(self, name: str, key: Any, *args: Any, **options: Any) -> Any:
            key = key if isinstance(key, str) else key.decode()
            return super().execute_command(name, f"tenant-7:{key}", *args, **options)

    client = made(Tenant)
    client.zadd("jobs", {"a": 1})
    SortedSet(client, "jobs").add("b")
    assert made().keys() == [b"tenant-7:jobs"]


def test_a_guard_refuses_what_it_refuses_the_client(made: Callable[..., Any]) -> None:
    class ReadOnly(redis.Redis):
        def execute_command(self, *args: Any, **options: Any) -> Any:
            if args[0] not in ("ZRANGE", "ZCARD"):
                raise PermissionError(args[0])
            return super().execute_command(*args, **options)

    jobs: SortedSet[str] = SortedSet(made(ReadOnly), "jobs")
    assert jobs.size() == 0
    for call in (lambda: jobs.add("a"), lambda: jobs.add("a", nx=True), jobs.pop, jobs.clear):
        with pytest.raises(PermissionError):
            call()
    assert made().keys() == []


@pytest.mark.parametrize("way", [instance_attribute, patched_class, wrapped_class])
def test_a_wrapper_that_is_added_later_is_not_bypassed(
    made: Callable[..., Any], way: Callable[..., Any]
) -> None:
    class Mine(redis.Redis):
        pass

    client = made(Mine)
    jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True)
    jobs.add("a")
    assert is_packed(jobs)
    seen: list[Any] = []
    other = way(made, seen)
    target = client if way is instance_attribute else Mine
    source = other if way is instance_attribute else type(other)
    target.execute_command = vars(source)["execute_command"]
    assert jobs.add("b") == 0
    assert not is_packed(jobs)
    assert [name for name in seen if name.startswith("EVAL")] == ["EVALSHA"]
    # A client that was wrapped once is not bypassed again.
    del target.execute_command
    assert not is_packed(jobs)
    assert jobs.take(5) == ["a", "b"]


def test_methods_of_connections_that_come_later_are_not_bypassed(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: SortedSet[str] = SortedSet(made(), "jobs")
    assert is_packed(jobs)
    send, seen = UnixDomainSocketConnection.send_command, []

    def note(self: Any, *args: Any, **options: Any) -> None:
        seen.append(args[0])
        send(self, *args, **options)

    monkeypatch.setattr(UnixDomainSocketConnection, "send_command", note)
    jobs.add("a")
    assert "ZADD" in seen


@pytest.mark.parametrize(
    "package", ["opentelemetry", "ddtrace", "sentry_sdk", "elasticapm", "newrelic"]
)
def test_wrappers_of_known_instrumentations_leave_the_fast_way(
    made: Callable[..., Any], package: str
) -> None:
    class Mine(redis.Redis):
        pass

    Mine.__module__ = "redis.client"
    execute = redis.Redis.execute_command
    observer = in_module(f"{package}.hooks", OBSERVER)
    for wrapped in (
        FunctionWrapper(execute, observer),
        FunctionWrapper(execute, functools.partial(observer)),
        FunctionWrapper(FunctionWrapper(execute, observer), observer),
        in_module(f"{package}.patch", PATCH, old=execute),
    ):
        Mine.execute_command = wrapped
        client = made(Mine)
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        assert is_packed(jobs)
        assert is_packed(jobs)
        assert jobs.add("a") == 0
        Mine.execute_command = lambda self, *args, **options: execute(self, *args, **options)
        assert not is_packed(jobs)


def test_the_libraries_own_clients_lend_their_connections(server: servers.Server) -> None:
    clients = [
        server.client(),
        server.tcp_client(),
        server.asyncio_client(),
        redis.Redis(connection_pool=redis.BlockingConnectionPool(port=server.port)),
        redis.sentinel.Sentinel([("localhost", server.port)]).master_for("main"),
        redis.StrictRedis(),
    ]
    for name in ("valkey", "valkey.asyncio"):
        if importlib.util.find_spec("valkey"):
            clients.append(importlib.import_module(name).Valkey(unix_socket_path=server.unix))
    for client in clients:
        cls = SortedSet if not isinstance(client, redis.asyncio.Redis) else redset.asyncio.SortedSet
        if type(client).__module__.startswith("valkey.asyncio"):
            cls = redset.asyncio.SortedSet
        assert is_packed(cls(client, "jobs"))


def test_fakeredis_lends_its_connections() -> None:
    fakeredis = pytest.importorskip("fakeredis")
    assert is_packed(SortedSet(fakeredis.FakeRedis(), "jobs"))
    assert is_packed(redset.asyncio.SortedSet(fakeredis.FakeAsyncRedis(), "jobs"))


def test_asyncio_clients_are_not_bypassed(server: servers.Server) -> None:
    seen: list[Any] = []

    class Mine(redis.asyncio.Redis):
        async def execute_command(self, *args: Any, **options: Any) -> Any:
            seen.append(args[0])
            return await super().execute_command(*args, **options)

    class Plain(redis.asyncio.Redis):
        def execute_command(self, *args: Any, **options: Any) -> Any:
            seen.append(args[0])
            return super().execute_command(*args, **options)

    def attribute(**options: Any) -> Any:
        client = redis.asyncio.Redis(**options)
        execute = client.execute_command

        def note(*args: Any, **options: Any) -> Any:
            seen.append(args[0])
            return execute(*args, **options)

        client.execute_command = note  # type: ignore[method-assign]
        return client

    async def use(make: Any) -> None:
        client = make(unix_socket_path=server.unix)
        jobs: Any = redset.asyncio.SortedSet(client, "jobs")
        assert not is_packed(jobs)
        assert await jobs.add("a") == 0
        assert "ZADD" in seen
        assert await jobs.add("a", nx=True) is None
        assert await jobs.pop() == "a"
        await servers.aclose(client)

    async def later() -> None:
        client = server.asyncio_client()
        jobs: Any = redset.asyncio.SortedSet(client, "jobs")
        await jobs.add("a")
        assert is_packed(jobs)
        execute = client.execute_command

        async def note(*args: Any, **options: Any) -> Any:
            seen.append(args[0])
            return await execute(*args, **options)

        client.execute_command = note  # type: ignore[method-assign]
        await jobs.add("b")
        assert seen[-1] == "ZADD"
        assert await jobs.take(3) == ["a", "b"]
        await servers.aclose(client)

    for make in (Mine, Plain, attribute):
        seen.clear()
        asyncio.run(use(make))
    seen.clear()
    asyncio.run(later())


def test_a_client_that_is_no_longer_used_is_released(made: Callable[..., Any]) -> None:
    from redset._transport import clients

    client = redis.Redis()
    SortedSet(client, "jobs")
    assert client in clients._lenders
    before = len(clients._lenders)
    del client
    assert len(clients._lenders) == before - 1


INSTRUMENTATIONS = {
    "opentelemetry.instrumentation.redis": """
from opentelemetry.instrumentation.redis import RedisInstrumentor
RedisInstrumentor().instrument()
""",
    "sentry_sdk": """
import sentry_sdk
from sentry_sdk.integrations.redis import RedisIntegration
sentry_sdk.init(dsn="http://a@localhost/1", integrations=[RedisIntegration()],
                transport=lambda event: None)
""",
    "ddtrace": """
import os
os.environ["DD_TRACE_ENABLED"] = "false"
import ddtrace
ddtrace.patch(redis=True)
""",
    "elasticapm": """
from elasticapm.instrumentation.control import instrument
instrument()
""",
    "newrelic": """
import redis.client, redis.connection, redis.asyncio.client, redis.asyncio.connection
from newrelic.hooks import datastore_redis as hooks
hooks.instrument_redis_client(redis.client)
hooks.instrument_redis_connection(redis.connection)
hooks.instrument_asyncio_redis_client(redis.asyncio.client)
hooks.instrument_asyncio_redis_connection(redis.asyncio.connection)
""",
}
INSTRUMENTED = """
import redis, redis.asyncio, redset, redset.asyncio, sys
for client in redis.Redis(), redis.Redis(unix_socket_path=sys.argv[1]):
    assert redset.SortedSet(client, "jobs")._open().multi
assert redset.asyncio.SortedSet(redis.asyncio.Redis(), "jobs")._open().multi
jobs = redset.SortedSet(client, "jobs")
assert jobs.add_many(["a", "b"], nx=True).added == 2
assert jobs.take(5) == ["a", "b"]
execute = redis.Redis.execute_command
seen = []
def guard(self, *args, **options):
    seen.append(args[0])
    return execute(self, *args, **options)
redis.Redis.execute_command = guard
assert jobs.add("a") == 0
assert seen == ["ZADD"], seen
"""


@pytest.mark.parametrize("package", INSTRUMENTATIONS)
def test_real_instrumentations_leave_the_fast_way_and_guards_work(
    server: servers.Server, package: str
) -> None:
    try:
        found = importlib.util.find_spec(package)
    except ImportError:
        found = None
    if found is None:
        raise servers.Missing(f"{package}: not installed")
    code = INSTRUMENTATIONS[package] + INSTRUMENTED
    env = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(redset.__file__))}
    subprocess.run([sys.executable, "-c", code, server.unix], check=True, timeout=60, env=env)


# --- objects that are not clients


def test_pipelines_and_other_look_alikes_are_refused_by_name(server: servers.Server) -> None:
    client = server.client()
    sentinel = redis.sentinel.Sentinel([("localhost", 1)])
    cluster: Any = object.__new__(redis.cluster.ClusterPipeline)
    for value, said in (
        (client.pipeline(), r"a pipeline \(redis\.client\.Pipeline\)"),
        (client.pipeline(transaction=False), "a pipeline"),
        (cluster, r"a pipeline \(redis\.cluster\.ClusterPipeline\)"),
        (client.pubsub(), r"a PubSub \(redis\.client\.PubSub\)"),
        (object.__new__(redis.client.Monitor), "a Monitor"),
        (sentinel, r"a Sentinel .*master_for"),
    ):
        with pytest.raises(TypeError, match=rf"^redis_client must be a client, got {said}"):
            SortedSet(value, "jobs")
        with pytest.raises(TypeError, match=rf"^redis_client must be a client, got {said}"):
            redset.asyncio.SortedSet(value, "jobs")
    client.close()


def test_asyncio_pipelines_and_other_look_alikes_are_refused_by_name() -> None:
    import redis.asyncio.cluster
    import redis.asyncio.sentinel

    client = redis.asyncio.Redis()
    cluster: Any = object.__new__(redis.asyncio.cluster.ClusterPipeline)
    values = [
        (client.pipeline(), "a pipeline"),
        (cluster, "a pipeline"),
        (client.pubsub(), "a PubSub"),
        (client.monitor(), "a Monitor"),
        (redis.asyncio.sentinel.Sentinel([("localhost", 1)]), "a Sentinel"),
    ]
    valkey: Any = importlib.import_module("valkey.asyncio") if find("valkey") else None
    if valkey is not None:
        values.append((valkey.Valkey().pipeline(), "a pipeline"))
    for value, said in values:
        for cls in (SortedSet, redset.asyncio.SortedSet):
            with pytest.raises(TypeError, match=rf"^redis_client must be a client, got {said}"):
                cls(value, "jobs")


def find(package: str) -> Any:
    return importlib.util.find_spec(package)


def test_a_pipelines_transaction_stays_whole(made: Callable[..., Any]) -> None:
    client = made()
    with client.pipeline() as pipe:
        pipe.set("paid", 1)
        with pytest.raises(TypeError, match="a pipeline"):
            SortedSet(pipe, "outbox")
        pipe.execute()
    assert client.get("paid") == b"1"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (redis.Redis, r"the class redis\.client\.Redis: make an instance"),
        (redis.asyncio.Redis, "the class redis.asyncio.client.Redis"),
        (servers.Generic, "the class servers.Generic"),
    ],
)
def test_a_class_is_not_a_client(kind: Any, said: str) -> None:
    for cls in (SortedSet, redset.asyncio.SortedSet):
        with pytest.raises(TypeError, match=f"^redis_client must be a client, got {said}"):
            cls(kind, "jobs")


@pytest.mark.parametrize(
    "make",
    [
        mock.Mock,
        mock.MagicMock,
        mock.AsyncMock,
        lambda: mock.Mock(spec=redis.Redis),
        lambda: mock.create_autospec(redis.Redis),
        lambda: mock.create_autospec(redis.Redis, instance=True),
        lambda: mock.create_autospec(redis.asyncio.Redis, instance=True),
    ],
)
def test_a_mock_is_not_a_client(make: Callable[[], Any]) -> None:
    for cls in (SortedSet, redset.asyncio.SortedSet):
        with pytest.raises(TypeError, match=r"got a mock \(unittest.mock.\w+\).*fakeredis\[lua\]"):
            cls(make(), "jobs")


def test_a_method_that_is_a_mock_is_called(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis.Redis, "execute_command", mock.Mock(return_value=7))
    assert SortedSet(made(), "jobs").size() == 7


def test_a_url_goes_to_from_url_and_is_not_repeated() -> None:
    for cls in (SortedSet, redset.asyncio.SortedSet):
        with pytest.raises(TypeError, match=r"execute_command, got str: .*from_url") as caught:
            cls("redis://:secret@localhost", "jobs")
        assert "secret" not in str(caught.value)


# --- servers without scripts, and clients of another event loop


WITHOUT_LUA = """
import sys
sys.modules["lupa"] = None
import fakeredis, redis, redset
class Other:
    def __init__(self, client):
        self.execute_command = client.execute_command
for client in fakeredis.FakeRedis(), Other(fakeredis.FakeRedis()):
    jobs = redset.SortedSet(client, "jobs")
    assert jobs.add("a") == 0 and jobs.pop() == "a"
    with redset.SortedSet(client, "reported") as reported:
        reported.add_many(["a", "b"])
        reported.take(1)
        reported._ctx.reporter.tally.due = 0.0
        reported.add("c")
    with redset.SortedSet(client, "reported") as reported:
        counts = client.execute_command("HGETALL", "reported:{reported}:counts")
        counts = dict(zip(counts[::2], counts[1::2])) if type(counts) is list else counts
        assert (counts[b"added"], counts[b"taken"]) == (b"3", b"1"), counts
        assert [worker.id for worker in reported.workers()] and b"consumer_seen" in counts
        assert client.execute_command("HEXISTS", "redset:sets", "reported")
        client.execute_command("SET", "reported:{reported}:paused", "{}")
        reported.add("d")
        reported._ctx.reporter.tally.due = 0.0
        reported.add("e")
        assert reported.take(9) == []
    for call in (lambda: jobs.add("a", nx=True), lambda: jobs.lease(1),
                 lambda: jobs.add_many(["a"], nx=True)):
        try:
            call()
        except (redis.ResponseError, redset.exceptions.AddError) as error:
            assert "fakeredis[lua]" in str(error), error
"""


def test_fakeredis_without_lua_reports_and_names_the_package_in_other_errors() -> None:
    pytest.importorskip("fakeredis")
    env = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(redset.__file__))}
    subprocess.run([sys.executable, "-c", WITHOUT_LUA], check=True, timeout=60, env=env)


LOOPS: list[Callable[[Any], Any]] = [
    lambda jobs: jobs.add("a"),
    lambda jobs: jobs.add("a", nx=True),
    lambda jobs: jobs.take(3),
    lambda jobs: jobs.pop(wait=1),
    lambda jobs: jobs.add_many(["a", "b"]),
]


@pytest.mark.parametrize("call", LOOPS)
@pytest.mark.parametrize("options", [{}, {"single_connection_client": True}])
def test_a_set_in_a_second_event_loop_raises_an_error(
    server: servers.Server, options: dict[str, Any], call: Callable[[Any], Any]
) -> None:
    client = server.asyncio_client(**options)
    jobs: Any = redset.asyncio.SortedSet(client, "jobs")

    async def use() -> Any:
        return await call(jobs)

    async def first() -> None:
        assert await jobs.add("x") == 0

    asyncio.run(first())
    with pytest.raises((RuntimeError, redset.exceptions.AddError), match="another event loop"):
        asyncio.run(use())


def test_a_client_that_was_closed_may_be_used_in_a_second_event_loop(
    server: servers.Server,
) -> None:
    client = server.asyncio_client()
    jobs: Any = redset.asyncio.SortedSet(client, "jobs")

    async def use() -> None:
        assert await jobs.add("x", nx=True) in (0, None)
        await jobs.size()
        await servers.aclose(client)

    asyncio.run(use())
    asyncio.run(use())


def test_an_error_of_the_callers_own_loop_is_left_as_it_is(server: servers.Server) -> None:
    async def items() -> Any:
        yield "a"
        raise RuntimeError("the event loop of somebody else")

    async def use() -> None:
        client = server.asyncio_client()
        jobs: Any = redset.asyncio.SortedSet(client, "jobs")
        with pytest.raises(redset.exceptions.AddError) as caught:
            await jobs.add_many(items())
        assert str(caught.value.__cause__) == "the event loop of somebody else"
        await servers.aclose(client)

    asyncio.run(use())


def test_a_client_is_checked_once_until_something_is_put_in_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked: list[Any] = []

    def check(client: Any) -> Any:
        checked.append(client)
        return client.execute_command

    monkeypatch.setattr("redset._transport.link.check_client", check)
    client = redis.Redis(unix_socket_path="/nowhere")
    for name in "abc":
        SortedSet(client, name)
    assert checked == [client]
    monkeypatch.setattr(client, "execute_command", client.execute_command)
    SortedSet(client, "d")
    assert checked == [client, client]
