"""The short path of single calls: connections are taken from the client's pool and given back by
its own books, and results are those of the long path."""

from __future__ import annotations

import contextlib
import math
import random
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.connection
import servers
import valkey
from hypothesis import given
from hypothesis import strategies as st

from redset import SortedSet
from redset._transport import link, packed
from redset._transport.pools import Borrower


@pytest.fixture
def server(all_servers: servers.Servers) -> Any:
    """One real server: which one it is changes nothing here."""
    for kind in servers.REAL:
        with contextlib.suppress(servers.Missing):
            found = all_servers.get(kind)
            found.flush()
            return found
    raise servers.Missing("no server")


@pytest.fixture(params=[redis, valkey], ids=["redis", "valkey"])
def client(request: pytest.FixtureRequest, server: servers.Server) -> Iterator[Any]:
    made = (request.param.Redis if request.param is redis else valkey.Valkey)(
        unix_socket_path=server.unix
    )
    yield made
    made.connection_pool.disconnect()


def books(pool: Any) -> tuple[int, int, int]:
    """How many connections a pool has made, and has idle and in use."""
    return (
        pool._created_connections,
        len(pool._available_connections),
        len(pool._in_use_connections),
    )


def is_borrowed_plainly(pool: Any) -> bool:
    """Whether a connection that was used once is taken without the pool's own methods."""
    borrower = Borrower(pool)
    first, was_plain = borrower.take()
    borrower.give_back(first, was_plain)
    second, is_plain = borrower.take()
    assert second is first and first in pool._in_use_connections
    borrower.give_back(second, is_plain)
    return is_plain


def test_the_books_of_the_pool_are_kept(client: Any) -> None:
    pool = client.connection_pool
    jobs = SortedSet(client, "jobs")
    for number in range(5):
        jobs.add(f"item {number}")
    assert books(pool) == (1, 1, 0)
    borrower = Borrower(pool)
    first, is_plain = borrower.take()
    second, is_also_plain = borrower.take()
    assert (is_plain, is_also_plain) == (True, False)
    assert first is not second and books(pool) == (2, 0, 2)
    borrower.give_back(second, is_also_plain)
    borrower.give_back(first, is_plain)
    assert books(pool) == (2, 2, 0)
    # A second return, as after an interrupt, does not hand it out twice.
    borrower.give_back(first, is_plain)
    assert books(pool) == (2, 2, 0)
    assert client.ping() and jobs.size() == 5 and books(pool) == (2, 2, 0)


def test_the_limit_of_the_pool_holds(server: servers.Server) -> None:
    client = server.client(max_connections=1)
    jobs = SortedSet(client, "jobs")
    jobs.add("a")
    held, is_plain = Borrower(client.connection_pool).take()
    with pytest.raises(redis.ConnectionError, match="Too many connections"):
        jobs.add("b")
    Borrower(client.connection_pool).give_back(held, is_plain)
    assert jobs.pop() == "a"


def test_a_connection_that_the_server_closed_is_found_before_a_pop(
    client: Any, server: servers.Server
) -> None:
    jobs = SortedSet(client, "jobs")
    jobs.add("a")
    for _ in range(3):
        jobs.size()
        server.raw.client_kill_filter(_type="normal", skipme=True)
        assert jobs.pop() == "a"
        assert jobs.add("a") == 0
    assert books(client.connection_pool) == (1, 1, 0)


def test_an_answer_that_another_user_left_unread_is_not_ours(client: Any) -> None:
    jobs = SortedSet(client, "jobs")
    jobs.add("a")
    pool = client.connection_pool
    borrower = Borrower(pool)
    connection, is_plain = borrower.take()
    connection.send_command("PING")
    connection._sock.recv(1, 2)  # MSG_PEEK: the answer has come
    borrower.give_back(connection, is_plain)
    assert jobs.size() == 1 and books(pool) == (1, 1, 0)


@pytest.mark.parametrize("reports", [False, True])
def test_a_pool_that_another_thread_disconnects_costs_a_connection(
    client: Any, reports: bool
) -> None:
    """Between the sending and the reading of a single call: what may be sent again is."""
    jobs = SortedSet(client, "jobs")
    jobs.add_many(["a", "b"])
    assert jobs.pop() == "a"  # the first pop looks before it removes
    pool = client.connection_pool
    lost = sys.modules[type(client).__module__.split(".")[0]].ConnectionError

    def cut_after_next_send() -> None:
        jobs.size()  # over an open connection
        (connection,) = pool._available_connections
        send = connection.send_packed_command

        def cut(data: Any, check_health: bool = True) -> None:
            send(data, check_health=check_health)
            del connection.send_packed_command
            connection.disconnect()

        connection.send_packed_command = cut
        # A report travels with the call, which then goes the long way.
        jobs._ctx.reporter.tally.due = 0.0 if reports else math.inf

    # A client of valkey-py, or of redis-py before 6, tries once by default, and each client a pop.
    tries_again = type(client) is redis.Redis and int(redis.__version__.split(".")[0]) >= 6
    for call, result in ((jobs.size, 1), (lambda: jobs.add("b", 5), 5)):
        cut_after_next_send()
        with contextlib.nullcontext() if tries_again else pytest.raises(lost):
            assert call() == result
    cut_after_next_send()
    with pytest.raises(lost):
        jobs.pop()
    assert books(pool) == (1, 1, 0)
    assert jobs.size() == 0


@pytest.mark.parametrize("mark", ["reconnect", "login", "process"])
def test_what_the_pool_does_at_a_release_is_done(
    client: Any, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = client.connection_pool
    borrower = Borrower(pool)
    connection, is_plain = borrower.take()
    borrower.give_back(connection, is_plain)
    connection, is_plain = borrower.take()
    assert is_plain
    released: list[Any] = []
    monkeypatch.setattr(pool, "release", released.append, raising=False)
    name, value = {
        "reconnect": ("_should_reconnect", True),
        "login": ("_re_auth_token", object()),
        "process": ("pid", -1),
    }[mark]
    monkeypatch.setattr(connection, name, value, raising=False)
    borrower.give_back(connection, is_plain)
    assert released == [connection] and connection in pool._in_use_connections
    monkeypatch.undo()
    borrower.give_back(connection, is_plain)
    assert books(pool) == (1, 1, 0)


def test_a_pool_of_an_unknown_version_or_with_a_cache_does_its_own_work(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = client.connection_pool
    assert Borrower(pool)._is_plain
    with monkeypatch.context() as patch:
        patch.setattr(pool, "cache", object(), raising=False)
        assert not Borrower(pool)._is_plain
    library = sys.modules[type(client).__module__.split(".")[0]]
    monkeypatch.setattr(library, "__version__", "99.0.0")
    assert not Borrower(pool)._is_plain


@pytest.mark.parametrize("moment", ["pop", "can_read", "append"])
def test_an_interrupted_checkout_leaves_no_connection_out(client: Any, moment: str) -> None:
    pool = client.connection_pool
    borrower = Borrower(pool)
    borrower.give_back(*borrower.take())

    class Interrupting(list[Any]):
        def pop(self, *args: Any) -> Any:
            found = super().pop(*args)
            if moment == "pop":
                raise KeyboardInterrupt
            return found

        def append(self, value: Any) -> None:
            super().append(value)
            if moment == "append":
                raise KeyboardInterrupt

    (connection,) = pool._available_connections
    pool._available_connections = Interrupting(pool._available_connections)
    if moment == "can_read":
        connection.can_read = lambda *args: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        borrower.give_back(*borrower.take())
    connection.__dict__.pop("can_read", None)
    pool._available_connections = list(pool._available_connections)
    assert books(pool) == (1, 1, 0)
    jobs = SortedSet(client, "jobs")
    assert jobs.add("a") == 0 and jobs.pop() == "a" and books(pool) == (1, 1, 0)


def test_the_short_path_is_used(client: Any) -> None:
    assert is_borrowed_plainly(client.connection_pool)


class SubclassPool(redis.ConnectionPool):
    pass


class SubclassConnection(redis.connection.UnixDomainSocketConnection):
    pass


def wrap_kind(pool: Any, patch: pytest.MonkeyPatch) -> None:
    release = type(pool).release
    patch.setattr(type(pool), "release", lambda self, connection: release(self, connection))


def wrap_pool(pool: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pool, "release", pool.release, raising=False)


def listen(pool: Any, patch: pytest.MonkeyPatch) -> None:
    dispatcher = getattr(pool, "_event_dispatcher", None)
    if dispatcher is None or not hasattr(dispatcher, "register_listeners"):
        raise servers.Missing("register_listeners: not in this redis-py")

    class Listener:
        def listen(self, event: object) -> None: ...

    kind = sys.modules["redis.event"].AfterConnectionReleasedEvent
    dispatcher.register_listeners({kind: [Listener()]})


def record(pool: Any, patch: pytest.MonkeyPatch) -> None:
    recorder = sys.modules.get("redis.observability.recorder")
    if recorder is None:
        raise servers.Missing("redis.observability: not in this redis-py")
    patch.setattr(recorder, "_metrics_collector", object())


def begin_to_record(pool: Any, patch: pytest.MonkeyPatch) -> None:
    providers = sys.modules.get("redis.observability.providers")
    if providers is None:
        raise servers.Missing("redis.observability: not in this redis-py")
    patch.setattr(providers.get_observability_instance(), "_provider_manager", object())


@pytest.mark.parametrize("change", [wrap_kind, wrap_pool, listen, record, begin_to_record])
def test_a_pool_that_somebody_watches_does_its_own_work(
    server: servers.Server,
    change: Callable[[Any, pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also if it begins after the set was made."""
    pool = redis.Redis(unix_socket_path=server.unix).connection_pool
    borrower = Borrower(pool)
    connection, is_plain = borrower.take()
    borrower.give_back(connection, is_plain)
    assert borrower.take() == (connection, True)
    borrower.give_back(connection, True)
    change(pool, monkeypatch)
    assert borrower.take() == (connection, False)
    borrower.give_back(connection, False)
    assert not is_borrowed_plainly(pool)
    assert books(pool) == (1, 1, 0)


@pytest.mark.parametrize(
    "options",
    [
        {"pool": SubclassPool},
        {"pool": redis.BlockingConnectionPool},
        {"connection_class": SubclassConnection},
        {"credential_provider": redis.UsernamePasswordCredentialProvider(password="")},
    ],
    ids=["subclass", "blocking", "connection", "credentials"],
)
def test_a_pool_of_another_kind_does_its_own_work(
    server: servers.Server, options: dict[str, Any]
) -> None:
    options = {"connection_class": redis.UnixDomainSocketConnection, **options}
    pool = options.pop("pool", redis.ConnectionPool)(path=server.unix, **options)
    borrower = Borrower(pool)
    assert not borrower._is_plain
    if "credential_provider" not in options:  # whose password this server has not
        connection, is_plain = borrower.take()
        assert not is_plain
        borrower.give_back(connection, is_plain)
        jobs = SortedSet(redis.Redis(connection_pool=pool), "jobs")
        assert jobs.add("a") == 0 and jobs.pop() == "a"


def test_threads_have_a_connection_each(server: servers.Server) -> None:
    client = redis.Redis(unix_socket_path=server.unix)
    pool: Any = client.connection_pool
    borrower = Borrower(pool)
    users: dict[int, int] = {}
    errors: list[str] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(300):
            connection, is_plain = borrower.take()
            if users.setdefault(id(connection), seed) != seed:
                errors.append("a connection has two users")
            connection.send_command("ECHO", f"{seed}")
            if connection.read_response() != b"%d" % seed:
                errors.append("an answer is another's")
            users.pop(id(connection), None)
            if chance.random() < 0.05:
                connection.disconnect()
            borrower.give_back(connection, is_plain)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    made, idle, in_use = books(pool)
    assert errors == [] and in_use == 0 and made == idle <= 6
    pool.disconnect()


# --- short against long

calls = st.one_of(
    st.tuples(
        st.just("add"),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from([None, 1, 2.5]),
        st.sampled_from(["", "nx", "xx", "gt", "lt"]),
    ),
    st.tuples(st.sampled_from(["pop", "size", "peek", "lease", "flush scripts", "lose"])),
    st.tuples(
        st.sampled_from(["discard", "score", "__contains__"]), st.sampled_from(["a", "b", "c"])
    ),
)
OPTIONS = [{}, {"remember": True}, {"key": "k", "remember": True}, {"ties": "fifo"}]


def outcome(jobs: Any, server: Any, call: tuple[Any, ...]) -> Any:
    keyed = jobs._ctx.options.keyed
    name, *rest = call
    item = rest[0] if rest else ""
    item = {"k": item} if keyed else item
    try:
        if name == "add":
            flags = {rest[2]: True} if rest[2] else {}
            return jobs.add(item, rest[1], **flags)
        if name == "lease":
            batch = jobs.lease(1)
            found = [(each.item, each.score, each.attempts) for each in batch]
            return found, batch.ack() if batch else 0
        if name == "flush scripts":
            return server.raw.script_flush()
        if name == "lose":
            return server.raw.client_kill_filter(_type="normal", skipme=True) >= 0
        return getattr(jobs, name)(*([item] if rest else []))
    except (KeyError, ValueError) as error:
        return type(error), str(error)


def stored(server: Any) -> dict[bytes, Any]:
    """All members and scores of sorted sets, and the names of other keys."""
    raw = server.raw
    found: dict[bytes, Any] = {}
    for key in servers.keys(raw):
        if not key.endswith(b"}:calls"):  # times
            kind = raw.type(key)
            # The epoch of a memory is random.
            name = re.sub(rb"(:seen):[0-9a-f]+", rb"\1", key)
            found[name] = raw.zrange(key, 0, -1, withscores=True) if kind == b"zset" else kind
    return found


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "remember", "keyed", "ties"])
def test_the_short_path_gives_what_the_long_one_gives(
    server: servers.Server, options: dict[str, Any]
) -> None:
    @given(st.lists(calls, max_size=12))
    def compare(sequence: list[tuple[Any, ...]]) -> None:
        results = []
        for ask in (packed.ask_once, packed.ask_in_session):
            server.flush()
            client = redis.Redis(unix_socket_path=server.unix)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(link, "ask_once", ask)
                jobs: Any = SortedSet(client, "jobs", **options)
                found = [outcome(jobs, server, call) for call in sequence]
                found.append(jobs.size())
            results.append((found, stored(server)))
            assert books(client.connection_pool)[2] == 0
            client.close()
        assert results[0] == results[1]

    compare()
