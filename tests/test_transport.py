"""The packed link: whole requests in flight on connections of the client's own pool.

The connection, the server or the caller's code fails in the middle.
"""

from __future__ import annotations

import random
import signal
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.sentinel
import servers
from load import Load
from proxy import Proxy
from redis._parsers import _RESP2Parser
from redis.backoff import ConstantBackoff, NoBackoff
from redis.retry import Retry

from redset import ScheduledSet, SortedSet
from redset._operations import adding, limits
from redset._wire import fallback
from redset.exceptions import AddError, Full
from redset.scripts import script
from redset.serializers import JSONSerializer

LOST = (redis.ConnectionError, redis.TimeoutError)


def never() -> Retry:
    return Retry(NoBackoff(), 0)


def times(count: int) -> Retry:
    return Retry(NoBackoff(), count)


def numbered(count: int) -> list[str]:
    """Items whose order by score is their order here, with their places as scores."""
    return [f"item-{number:06}" for number in range(count)]


class Watch:
    """The connections' requests of a client, and places to step in.

    ``before`` is called before each request of ``name`` is sent, with its number, from 1, and the
    connection. ``reading`` is called before each reply is read, ``ending`` before a connection is
    ended.
    """

    def __init__(self) -> None:
        self.name = b"EVALSHA"
        self.sent: list[bytes] = []
        self.requests = 0
        self.in_flight = 0
        self.most = 0
        self.before: Callable[[int, Any], None] | None = None
        self.reading: Callable[[], None] | None = None
        self.ending: Callable[[], None] | None = None


def watched(server: servers.Server, pool: Any = redis.ConnectionPool, **options: Any) -> Any:
    """A client of a server's unix socket, and the watch over its connections."""
    watch = Watch()

    @servers.as_the_librarys
    class Watched(redis.UnixDomainSocketConnection):
        def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            data = command if isinstance(command, bytes) else b"".join(command)
            names = [arguments[0].upper() for arguments in fallback.split(data)]
            if watch.name in names:
                watch.requests += 1
                if watch.before is not None:
                    watch.before(watch.requests, self)
            super().send_packed_command(command, check_health)
            watch.sent += names
            watch.in_flight += len(names)
            watch.most = max(watch.most, watch.in_flight)

        def read_response(self, *args: Any, **named: Any) -> Any:
            if watch.reading is not None:
                watch.reading()
            try:
                return super().read_response(*args, **named)
            finally:
                watch.in_flight -= 1

        def disconnect(self, *args: Any) -> None:
            if watch.ending is not None:
                watch.ending()
            watch.in_flight = 0
            super().disconnect(*args)

    options.setdefault("retry", never())
    made = pool(connection_class=Watched, path=server.unix, **options)
    return redis.Redis(connection_pool=made), watch


@pytest.fixture
def proxy(any_server: servers.Server) -> Iterator[Proxy]:
    with Proxy(any_server) as made:
        yield made


@pytest.fixture
def through(proxy: Proxy) -> Iterator[Callable[..., redis.Redis]]:
    """Makes clients whose connections pass the proxy: ``through(retry=times(3))``."""
    made: list[redis.Redis] = []

    def make(**options: Any) -> redis.Redis:
        options.setdefault("retry", never())
        made.append(redis.Redis(host="127.0.0.1", port=proxy.port, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


def kill_others(raw: redis.Redis) -> None:
    """End every connection but this one."""
    raw.execute_command("CLIENT", "KILL", "TYPE", "normal")
    alone(raw)


def alone(raw: redis.Redis) -> None:
    """Wait until a server has no other connection."""
    end = time.monotonic() + 40
    while len(raw.client_list()) > 1:
        assert time.monotonic() < end
        time.sleep(0.01)


def calls(raw: redis.Redis, command: str) -> int:
    """How often a server has performed a command since its statistics were reset."""
    return int(raw.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))


def held(client: redis.Redis) -> int:
    """How many connections of a client's pool are taken."""
    return len(client.connection_pool._in_use_connections)


# --- health checks


@pytest.mark.parametrize("flags", [{}, {"lt": True}])
@pytest.mark.parametrize("protocol", [2, 3])
def test_a_health_check_never_swallows_an_answer_of_the_window(
    any_server: servers.Server, flags: Any, protocol: int
) -> None:
    client, watch = watched(any_server, health_check_interval=0.000001, protocol=protocol)
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    assert jobs.add_many(numbered(3000), range(3000), **flags) == (3000, 0, 0, 0)
    assert jobs.add_many(numbered(3000), range(-1, 2999), **flags) == (0, 3000, 0, 0)
    assert b"PING" in watch.sent
    assert jobs.take(3000) == numbered(3000)
    assert client.echo("mine") == b"mine"


@pytest.mark.usefixtures("silent")
def test_a_health_check_is_made_before_a_call_and_never_within_one(
    any_server: servers.Server,
) -> None:
    client, watch = watched(any_server, health_check_interval=0.000001)
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    jobs.add("a")
    watch.sent.clear()
    jobs.add_many(numbered(4000))
    assert watch.sent == [b"PING"] + [b"ZADD"] * 8


def test_a_connection_that_the_client_remade_is_noticed(any_server: servers.Server) -> None:
    # redis-py reconnects without a word when it finds the socket gone: the answers are gone too.
    def remake(number: int, connection: Any) -> None:
        if number == 3:
            connection.disconnect()
            connection.connect()

    for retry, outcome in ((times(1), None), (never(), AddError)):
        any_server.flush()
        client, watch = watched(any_server, retry=retry)
        watch.name, watch.before = b"ZADD", remake
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        if outcome is None:
            assert sum(jobs.add_many(numbered(3000), range(3000))) == 3000
        else:
            with pytest.raises(outcome) as caught:
                jobs.add_many(numbered(3000), range(3000))
            assert isinstance(caught.value.__cause__, redis.ConnectionError)
            jobs.add_many(numbered(3000)[caught.value.resume_at :], range(3000))
        assert jobs.size() == 3000
        assert held(client) == 0


# --- lost connections


@pytest.mark.parametrize("options", [{}, {"key": len, "remember": True}, {"max_size": 10_000}])
@pytest.mark.parametrize("way", ["up", "down"])
def test_adds_survive_connections_that_are_cut_anywhere(
    any_server: servers.Server,
    proxy: Proxy,
    through: Callable[..., redis.Redis],
    way: str,
    options: Any,
) -> None:
    if "key" in options:
        options = {**options, "key": lambda item: item["url"]}
    items: list[Any] = numbered(2500)
    if "key" in options:
        items = [{"url": item} for item in items]
    chance = random.Random(f"{way} {sorted(options)}")
    for _ in range(6):
        any_server.flush()
        client = through(retry=times(3))
        client.ping()
        proxy.cut_after(**{way: chance.randrange(1, 65_000 if way == "up" else 30)})
        jobs: SortedSet[Any] = SortedSet(client, "jobs", **options)
        result = jobs.add_many(items, range(2500))
        assert not proxy.armed
        assert sum(result) == 2500
        assert result.failed == 0
        assert jobs.size() == 2500
        # A repeated chunk must not overwrite the items that came after it.
        assert jobs.take(2500, with_scores=True) == list(zip(items, range(2500), strict=True))


def test_without_retries_a_cut_connection_reports_resume_at(
    any_server: servers.Server, proxy: Proxy, through: Callable[..., redis.Redis]
) -> None:
    chance = random.Random(4)
    items = numbered(4000)
    resumed = 0
    for _ in range(10):
        any_server.flush()
        client = through(retry=never())
        client.ping()
        proxy.cut_after(up=chance.randrange(1, 100_000))
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        with pytest.raises(AddError) as caught:
            jobs.add_many(items, range(4000))
        error = caught.value
        assert isinstance(error.__cause__, LOST)
        # Runs of 1,000 are sorted together and acknowledged by halves.
        assert error.result.added - error.resume_at in (0, 500)
        assert any_server.raw.zcard("jobs") >= error.resume_at
        resumed += error.resume_at
        jobs.add_many(items[error.resume_at :], range(error.resume_at, 4000))
        assert jobs.take(4000) == items
    assert resumed


@pytest.mark.parametrize("flags", [{}, {"gt": True}])
def test_adds_survive_a_client_kill_in_mid_window(any_server: servers.Server, flags: Any) -> None:
    client, watch = watched(any_server, retry=times(1))
    watch.name = b"EVALSHA" if flags else b"ZADD"

    def kill(number: int, _: Any) -> None:
        if number == 3:
            kill_others(any_server.raw)

    watch.before = kill
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    assert sum(jobs.add_many(numbered(3000), range(3000), **flags)) == 3000
    assert watch.requests > 6
    assert jobs.take(3000) == numbered(3000)


def test_a_single_add_is_sent_again(proxy: Proxy, through: Callable[..., redis.Redis]) -> None:
    losing = iter([Proxy.LOSE, Proxy.CUT])
    proxy.rule = lambda command: next(losing, None) if command[0] == b"ZADD" else None
    jobs: SortedSet[str] = SortedSet(through(retry=times(2)), "jobs")
    assert jobs.add("a", 5) == 5
    assert proxy.names().count(b"ZADD") == 3
    assert jobs.size() == 1


REMOVALS: dict[str, tuple[Any, bytes, Callable[[Any], Any]]] = {
    "pop": (dict, b"ZPOPMIN", lambda jobs: jobs.pop()),
    "first take": (dict, b"ZPOPMIN", lambda jobs: jobs.take(5)),
    "take": (
        dict,
        b"EXEC",
        lambda jobs: (setattr(jobs._ctx.removals, "multi", True), jobs.take(5)),
    ),
    "keyed pop": (lambda: {"key": str}, script("take").sha, lambda jobs: jobs.pop()),
    "keyed take": (lambda: {"key": str}, script("take").sha, lambda jobs: jobs.take(5)),
    "scheduled": (lambda: {"cls": ScheduledSet}, script("take").sha, lambda jobs: jobs.take(5)),
}


@pytest.mark.parametrize("verdict", [Proxy.LOSE, Proxy.CUT])
@pytest.mark.parametrize("removal", REMOVALS)
def test_a_pop_is_never_sent_twice(
    any_server: servers.Server,
    proxy: Proxy,
    through: Callable[..., redis.Redis],
    removal: str,
    verdict: str,
) -> None:
    make, sign, remove = REMOVALS[removal]
    options = make()
    cls = options.pop("cls", SortedSet)
    cls(any_server.client(), "jobs", **options).add_many(numbered(20), range(20))
    proxy.rule = lambda command: verdict if sign in command[:2] else None
    client = through(retry=times(3))
    jobs = cls(client, "jobs", **options)
    with pytest.raises(LOST):
        remove(jobs)
    assert sum(sign in command[:2] for command in proxy.seen) == 1
    proxy.rule = None
    left = cls(any_server.client(), "jobs", **options).size()
    if verdict == Proxy.CUT:
        assert left == 20
    else:
        # The server is done with it a moment after its answer was lost, not before.
        assert left in (15, 19)
    assert len(jobs.take(20)) == left
    assert held(client) == 0


def test_a_pop_is_sent_once_under_the_clients_default_retries(
    any_server: servers.Server, proxy: Proxy
) -> None:
    any_server.raw.zadd("jobs", {"a": 1, "b": 2})
    client = redis.Redis(host="127.0.0.1", port=proxy.port)
    proxy.rule = lambda command: Proxy.LOSE if command[0] == b"ZPOPMIN" else None
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    with pytest.raises(LOST):
        jobs.pop()
    assert proxy.names().count(b"ZPOPMIN") == 1
    proxy.rule = None
    assert jobs.pop() == "b"
    client.close()


@pytest.mark.parametrize("options", [{}, {"key": str}])
def test_a_settlement_that_is_sent_again_loses_no_lease(
    any_server: servers.Server,
    proxy: Proxy,
    through: Callable[..., redis.Redis],
    options: dict[str, Any],
) -> None:
    """The second time it finds none of its leases, since the first time ended them."""
    jobs: SortedSet[str] = SortedSet(through(retry=times(1)), "jobs", **options)
    jobs.add_many(["a", "b", "c"])
    steps, settlements = {script("ack").sha, script("settle").sha}, 0

    def lose_the_first(command: list[bytes]) -> str | None:
        nonlocal settlements
        if steps.isdisjoint(command[:2]):
            return None
        settlements += 1
        return Proxy.LOSE if settlements == 1 else None

    proxy.rule = lose_the_first
    with jobs.lease(3) as batch:
        for _ in batch:
            pass
    # The short step twice; it leaves lost leases to the long one.
    assert settlements == 3 and batch.lost == 0
    assert jobs.finished() and jobs.dead.size() == 0


def test_random_cuts_of_takes_give_no_item_twice(
    any_server: servers.Server, proxy: Proxy, through: Callable[..., redis.Redis]
) -> None:
    chance = random.Random(7)
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs")
    jobs.add_many(numbered(5000), range(5000))
    taken: list[str] = []
    failures = 0
    while True:
        if not proxy.armed and failures < 20:
            way = chance.choice(["up", "down"])
            proxy.cut_after(**{way: chance.randrange(1, 3000)})
        consumer: SortedSet[str] = SortedSet(through(retry=times(2)), "jobs")
        try:
            some = consumer.take(100)
        except LOST:
            failures += 1
            continue
        if not some:
            break
        taken += some
    assert failures
    assert taken == sorted(set(taken))
    assert len(taken) >= 5000 - 100 * failures


# --- the retry policy


@pytest.mark.parametrize("options", [{}, {"key": str}])
@pytest.mark.parametrize("retries", [0, 1, 3])
def test_adds_are_tried_as_often_as_the_clients_policy_says(
    proxy: Proxy, through: Callable[..., redis.Redis], retries: int, options: Any
) -> None:
    sign = b"EVALSHA" if options else b"ZADD"
    proxy.rule = lambda command: Proxy.CUT if command[0] == sign else None
    client = through(retry=times(retries))
    jobs: SortedSet[str] = SortedSet(client, "jobs", **options)
    with pytest.raises(LOST):
        jobs.add("a")
    assert proxy.names().count(sign) == 1 + retries
    proxy.seen.clear()
    with pytest.raises(AddError) as caught:
        jobs.add_many(numbered(2000))
    assert isinstance(caught.value.__cause__, LOST)
    assert caught.value.resume_at == 0
    assert caught.value.result == (0, 0, 0, 0)
    # The proxy ends the connection at the first command of the window that it sees.
    assert proxy.names().count(sign) == 1 + retries
    assert held(client) == 0


def closes_at_once(times: int) -> Callable[[Any], None]:
    """Connects, and ends that many new connections as a server does that shuts down."""
    left = times

    def connecting(connection: Any) -> None:
        nonlocal left
        connection.on_connect()
        left -= 1
        if left >= 0:
            connection._sock.shutdown(socket.SHUT_RDWR)

    return connecting


@pytest.mark.parametrize("parser", ["hiredis", "python"])
@pytest.mark.parametrize("blocking_pool", [False, True])
def test_a_server_that_closes_a_new_connection_is_tried_as_the_policy_says(
    any_server: servers.Server, blocking_pool: bool, parser: str
) -> None:
    """A pool connects twice in its first attempt. Nothing was sent, so a pop is safe, too."""
    options: dict[str, Any] = {"connection_class": redis.UnixDomainSocketConnection}
    if parser == "python":
        options["parser_class"] = _RESP2Parser
    kind = redis.BlockingConnectionPool if blocking_pool else redis.ConnectionPool

    def client(closed: int, retries: int) -> redis.Redis:
        func = closes_at_once(closed)
        return redis.Redis(
            connection_pool=kind(
                path=any_server.unix, redis_connect_func=func, retry=times(retries), **options
            )
        )

    jobs: SortedSet[str] = SortedSet(client(2, 1), "jobs")
    assert jobs.add("a") == 0
    assert SortedSet(client(4, 3), "jobs").pop() == "a"
    assert SortedSet(client(4, 3), "jobs").add_many(numbered(10)).added == 10
    for closed, retries in [(2, 0), (4, 2)]:
        with pytest.raises(LOST):
            SortedSet(client(closed, retries), "jobs").pop()
    assert jobs.size() == 10


def test_a_server_that_is_gone_is_connected_to_as_often_as_the_policy_says(tmp_path: Any) -> None:
    tried = 0

    class Counted(redis.UnixDomainSocketConnection):
        def _connect(self) -> Any:
            nonlocal tried
            tried += 1
            return super()._connect()

    pool = redis.ConnectionPool(connection_class=Counted, path=f"{tmp_path}/none", retry=times(3))
    client = redis.Redis(connection_pool=pool)
    with pytest.raises(LOST):
        client.ping()
    usual, tried = tried, 0
    with pytest.raises(LOST):
        SortedSet(client, "jobs").pop()
    assert tried == usual


def test_waits_between_tries_are_the_policys(
    proxy: Proxy, through: Callable[..., redis.Redis], load: Load
) -> None:
    proxy.rule = lambda command: Proxy.CUT if command[0] == b"ZADD" else None
    jobs: SortedSet[str] = SortedSet(through(retry=Retry(ConstantBackoff(0.1), 2)), "jobs")
    start = time.monotonic()
    with pytest.raises(LOST):
        jobs.add("a")
    assert 0.2 <= time.monotonic() - start < load.seconds(2)


def test_errors_that_the_policy_does_not_name_are_not_retried(
    proxy: Proxy, through: Callable[..., redis.Redis]
) -> None:
    proxy.rule = lambda command: 2.5 if command[0] == b"ZADD" else None
    policy = Retry(NoBackoff(), 3, supported_errors=(redis.ConnectionError,))
    # Enough for a busy server to answer the client's own commands.
    client = through(retry=policy, socket_timeout=1)
    with pytest.raises(redis.TimeoutError):
        SortedSet(client, "jobs").add("a")
    assert proxy.names().count(b"ZADD") == 1
    assert held(client) == 0


def test_a_server_that_is_gone_is_the_clients_own_error(
    proxy: Proxy, through: Callable[..., redis.Redis]
) -> None:
    proxy.open = False
    client = through(retry=times(1))
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    with pytest.raises(redis.ConnectionError):
        jobs.add("a")
    with pytest.raises(redis.ConnectionError):
        jobs.pop()
    with pytest.raises(AddError) as caught:
        jobs.add_many(["a"])
    assert isinstance(caught.value.__cause__, redis.ConnectionError)
    assert held(client) == 0
    proxy.open = True
    assert jobs.add("a") == 0


def test_the_clients_defaults_carry_a_bulk_add_over_a_lost_connection(
    proxy: Proxy,
) -> None:
    losing = iter([None, Proxy.LOSE])
    proxy.rule = lambda command: next(losing, None) if command[0] == b"ZADD" else None
    with redis.Redis(host="127.0.0.1", port=proxy.port) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        if client.get_retry() is None or client.get_retry()._retries == 0:  # before redis-py 6
            with pytest.raises(AddError) as caught:
                jobs.add_many(numbered(3000))
            assert caught.value.resume_at in (0, 500)
        else:
            assert sum(jobs.add_many(numbered(3000))) == 3000
            assert jobs.size() == 3000


def test_only_the_servers_silence_counts_against_the_socket_timeout(
    any_server: servers.Server,
) -> None:
    # Time spent in the caller's code between the chunks is none of the server's.
    def scorer(item: str) -> float:
        if item in ("item-000600", "item-001200"):
            time.sleep(1.2)
        return 0.0

    client = any_server.tcp_client(socket_timeout=1, retry=never())
    jobs: SortedSet[str] = SortedSet(client, "jobs", scorer)
    assert jobs.add_many(numbered(2000)).added == 2000


# --- replies that no call waits for any more


class Interrupt(BaseException):
    """As a KeyboardInterrupt: not an Exception."""


def after_an_interrupt(client: redis.Redis) -> None:
    """The connection is back, and its next user reads its own reply."""
    assert held(client) == 0
    for text in ("one", "two", "three"):
        assert client.echo(text) == text.encode()
    assert client.zcard("nothing") == 0


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, Interrupt])
def test_an_interrupted_scorer_leaves_no_answer_to_the_next_user(
    any_server: servers.Server, kind: type[BaseException], protocol: int
) -> None:
    def scorer(item: str) -> float:
        if item == "item-001300":
            raise kind
        return 0.0

    for client in (
        any_server.client(max_connections=1, protocol=protocol),
        any_server.tcp_client(max_connections=1, protocol=protocol),
    ):
        any_server.flush()
        client.set("canary", "alive")
        jobs: SortedSet[str] = SortedSet(client, "jobs", scorer)
        with pytest.raises(kind):
            jobs.add_many(numbered(3000))
        assert client.get("canary") == b"alive"
        after_an_interrupt(client)
        assert jobs.size() in (0, 500, 1000)  # the items that the server had read by then
        client.close()


def test_an_interrupted_generator_leaves_no_answer_to_the_next_user(
    server_client: redis.Redis,
) -> None:
    def generator() -> Iterator[str]:
        yield from numbered(5000)
        raise KeyboardInterrupt

    jobs: SortedSet[str] = SortedSet(server_client, "jobs")
    with pytest.raises(KeyboardInterrupt):
        jobs.add_many(generator())
    after_an_interrupt(server_client)
    with pytest.raises(KeyboardInterrupt):
        list(jobs.add_new(generator()))
    after_an_interrupt(server_client)


@pytest.mark.parametrize("at", range(1, 8))
def test_an_interrupted_read_leaves_no_answer_to_the_next_user(
    any_server: servers.Server, at: int
) -> None:
    client, watch = watched(any_server, max_connections=1)
    client.ping()
    left = at

    def interrupt() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    watch.reading = interrupt
    with pytest.raises(KeyboardInterrupt):
        SortedSet(client, "jobs").add_many(numbered(3000), lt=True)
    watch.reading = None
    after_an_interrupt(client)
    # Taking is MULTI to EXEC: four answers.
    left = min(at, 5)
    watch.reading = interrupt
    with pytest.raises(KeyboardInterrupt):
        SortedSet(client, "jobs").take(10)
    watch.reading = None
    after_an_interrupt(client)


def test_an_interrupt_of_the_cleaning_up_does_not_end_it(any_server: servers.Server) -> None:
    client, watch = watched(any_server, max_connections=1)
    client.ping()

    def interrupt() -> None:
        watch.reading = None
        watch.ending = again
        raise KeyboardInterrupt

    def again() -> None:
        watch.ending = None
        raise KeyboardInterrupt

    watch.reading = interrupt
    with pytest.raises(KeyboardInterrupt):
        SortedSet(client, "jobs").add_many(numbered(3000))
    assert watch.ending is None
    after_an_interrupt(client)


@pytest.mark.parametrize("blocking_pool", [False, True])
def test_an_interrupted_connect_leaves_no_half_made_connection_in_the_pool(
    any_server: servers.Server, blocking_pool: bool
) -> None:
    """It had neither login nor database: its next user would write to another one."""
    interrupts = 1

    def connecting(connection: Any) -> None:
        nonlocal interrupts
        interrupts -= 1
        if interrupts >= 0:
            connection._parser.on_connect(connection)
            raise KeyboardInterrupt
        connection.on_connect()

    pool = (redis.BlockingConnectionPool if blocking_pool else redis.ConnectionPool)(
        connection_class=redis.UnixDomainSocketConnection,
        path=any_server.unix,
        db=3,
        max_connections=1,
        redis_connect_func=connecting,
    )
    with redis.Redis(connection_pool=pool) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        with pytest.raises(KeyboardInterrupt):
            jobs.add("a")
        jobs.add("b")
        assert client.zcard("jobs") == 1
        pool.disconnect()
        interrupts = 1
        with pytest.raises(KeyboardInterrupt):
            jobs.add_many(["c", "d"])
        jobs.add_many(["e", "f"])
        assert any_server.client(db=3).zcard("jobs") == 3
        assert servers.keys(any_server.raw) == []
        pool.disconnect()


def test_a_signal_in_the_middle_of_a_bulk_add_leaves_no_answer_to_the_next_user(
    any_server: servers.Server,
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    client = any_server.client()
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    items = numbered(20_000)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for tick in range(8):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.003 + 0.004 * tick)
                jobs.add_many(items)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                pass
            assert client.echo("mine") == b"mine"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    client.close()


def test_a_timed_out_answer_is_not_the_next_users(any_server: servers.Server) -> None:
    # redis-py 5.0.0 forgets the timeout of a unix socket.
    client = any_server.tcp_client(socket_timeout=1, retry=never(), max_connections=1)
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    jobs.add("a", 1)
    with any_server.frozen():
        with pytest.raises(redis.TimeoutError):
            jobs.score("a")
        with pytest.raises(AddError) as caught:
            jobs.add_many(numbered(3000))
    assert isinstance(caught.value.__cause__, LOST)
    assert caught.value.resume_at == 0
    after_an_interrupt(client)


def test_a_servers_error_leaves_the_connection_as_it_was(any_server: servers.Server) -> None:
    client = any_server.client(max_connections=1)
    client.set("jobs", "a string")
    ours = client.client_id()
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    for call in (
        lambda: jobs.add("a"),
        lambda: jobs.pop(),
        lambda: jobs.take(10),
        lambda: jobs.add("a", lt=True),
        lambda: jobs.size(),
    ):
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            call()
        assert client.client_id() == ours
    with pytest.raises(AddError, match="WRONGTYPE"):
        jobs.add_many(numbered(5000))
    assert client.client_id() == ours
    after_an_interrupt(client)


def test_a_half_used_generator_holds_nothing(server_client: redis.Redis) -> None:
    jobs: SortedSet[str] = SortedSet(server_client, "jobs")
    new = jobs.add_new(numbered(5000))
    assert next(new) == "item-000000"
    assert held(server_client) == 0
    new.close()  # type: ignore[attr-defined]
    after_an_interrupt(server_client)
    jobs.add_many(numbered(5000))
    walk = iter(jobs)
    assert next(walk) == "item-000000"
    assert held(server_client) == 0
    del walk
    after_an_interrupt(server_client)


# --- pools


@pytest.fixture(params=[redis.ConnectionPool, redis.BlockingConnectionPool])
def pool_of_one(request: pytest.FixtureRequest, any_server: servers.Server) -> Iterator[Any]:
    """A client that has one connection, and no more."""
    options = {"timeout": 1} if request.param is redis.BlockingConnectionPool else {}
    made = redis.Redis(
        connection_pool=request.param(
            connection_class=redis.UnixDomainSocketConnection,
            path=any_server.unix,
            max_connections=1,
            **options,
        )
    )
    yield made
    made.close()


@pytest.mark.parametrize("options", [{}, {"key": str}, {"remember": True}])
def test_a_generator_may_use_the_one_connection_that_there_is(
    pool_of_one: redis.Redis, options: Any
) -> None:
    client = pool_of_one
    jobs: SortedSet[str] = SortedSet(client, "jobs", **options)

    def generator() -> Iterator[str]:
        for item in numbered(3000):
            if item.endswith("00"):
                client.incr("used")
                jobs.size()
            yield item

    assert jobs.add_many(generator()).added == 3000
    assert client.get("used") == b"30"
    assert list(jobs.add_new(generator())) == []
    assert client.get("used") == b"60"


def test_the_consumer_of_new_items_may_use_the_only_connection(
    pool_of_one: redis.Redis,
) -> None:
    client = pool_of_one
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    new = []
    for item in jobs.add_new(numbered(1200), range(1200)):
        client.incr("used")
        new.append(item)
    assert new == numbered(1200)
    for item in jobs:
        assert jobs.score(item) is not None
    for _ in jobs.dead:
        jobs.size()
    assert client.get("used") == b"1200"


def test_scores_that_are_generated_may_use_the_one_connection_that_there_is(
    pool_of_one: redis.Redis,
) -> None:
    def scores() -> Iterator[int]:
        while True:
            number = pool_of_one.incr("used")
            if number > 1500:
                return
            yield number

    jobs: SortedSet[str] = SortedSet(pool_of_one, "jobs")
    assert jobs.add_many(numbered(1500), scores()).added == 1500
    assert jobs.score("item-001499") == 1500


def test_the_pool_gets_its_connection_back_after_every_call(any_server: servers.Server) -> None:
    client = any_server.client(max_connections=1)
    jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True)
    jobs.add_many(numbered(100))
    for call in (
        lambda: jobs.pop(),
        lambda: jobs.take(10),
        lambda: jobs.peek(),
        lambda: jobs.peek_many(10),
        lambda: jobs.scores(["a"]),
        lambda: jobs.seen("a"),
        lambda: jobs.forget("a"),
        lambda: jobs.discard("a", forget=True),
        lambda: list(jobs),
        lambda: jobs.stats(),
        lambda: jobs.clear(),
    ):
        call()
        assert held(client) == 0
    with pytest.raises(KeyError):
        jobs.pop()
    assert held(client) == 0
    client.close()


def test_no_connection_is_held_over_a_slow_generator(server_client: redis.Redis) -> None:
    jobs: SortedSet[str] = SortedSet(server_client, "jobs")
    seen = []

    def generator() -> Iterator[str]:
        for item in numbered(40):
            time.sleep(0.01)
            seen.append((held(server_client), server_client.zcard("jobs")))
            yield item

    assert jobs.add_many(generator()).added == 40
    assert {taken for taken, _ in seen} == {0}
    # Items arrive while the generator still goes on.
    assert seen[-1][1] > 20


def test_items_arrive_also_when_a_fast_generator_turns_slow(server_client: redis.Redis) -> None:
    waited = []

    def generator() -> Iterator[str]:
        for place, item in enumerate(numbered(2100)):
            if place > 1500:
                time.sleep(0.001)
                waited.append(server_client.zcard("jobs"))
            yield item

    jobs: SortedSet[str] = SortedSet(server_client, "jobs")
    assert jobs.add_many(generator()).added == 2100
    # Items that came at once are not kept back for the hundreds that come slowly.
    assert waited[200] >= 1500


def test_nothing_is_held_while_the_caller_has_a_new_item(server_client: redis.Redis) -> None:
    jobs: SortedSet[str] = SortedSet(server_client, "jobs", remember=True)
    count = 0
    for _ in jobs.add_new(numbered(2000)):
        assert held(server_client) == 0
        count += 1
    assert count == 2000


def test_new_items_come_as_their_chunks_are_acknowledged(server_client: redis.Redis) -> None:
    made = []

    def generator() -> Iterator[str]:
        for item in numbered(20_000):
            made.append(item)
            yield item

    jobs: SortedSet[str] = SortedSet(server_client, "jobs")
    new = jobs.add_new(generator())
    first = next(new)
    assert server_client.zscore("jobs", first) == 0
    assert len(made) < 5000
    assert list(new)[-1] == "item-019999"


def test_threads_may_share_a_set(any_server: servers.Server) -> None:
    client = any_server.client()
    jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True)
    added = []
    taken: list[str] = []
    done = threading.Event()

    def produce(number: int) -> None:
        items = numbered(4000)
        random.Random(number).shuffle(items)
        added.append(jobs.add_many(items).added)

    def consume() -> None:
        while not done.is_set() or jobs.size():
            taken.extend(jobs.take(50))

    producers = [
        threading.Thread(target=produce, args=(number,), daemon=True) for number in range(4)
    ]
    consumers = [threading.Thread(target=consume, daemon=True) for _ in range(3)]
    for thread in producers + consumers:
        thread.start()
    for thread in producers:
        thread.join(60)
    done.set()
    for thread in consumers:
        thread.join(60)
    assert sum(added) == 4000
    assert sorted(taken) == numbered(4000)
    assert held(client) == 0
    client.close()


# --- scripts


@pytest.mark.usefixtures("silent")
def test_a_script_is_loaded_once_a_server(any_server: servers.Server) -> None:
    raw = any_server.raw
    raw.script_flush()
    raw.config_resetstat()
    client = any_server.client()
    one: SortedSet[str] = SortedSet(client, "one")
    two: SortedSet[str] = SortedSet(client, "two")
    for jobs in (one, two):
        assert jobs.add_many(numbered(3000), gt=True).added == 3000
        assert jobs.add("more", gt=True) == 0
    # Redis counts subcommands from version 7 on.
    load = "script" if any_server.version < (7,) else "script|load"
    assert calls(raw, load) == 1
    assert calls(raw, "evalsha") == 26
    assert calls(raw, "eval") == 0
    client.close()


@pytest.mark.usefixtures("silent")
def test_a_filling_memory_gets_smaller_steps(any_server: servers.Server) -> None:
    client, watch = watched(any_server)
    watch.name = b"EVALSHA"
    jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True, known_max=0)
    assert jobs.add_many(numbered(3000)).added == 3000
    # The first one alone, for the epoch; the first thousand had been cut before it was answered.
    assert (watch.requests, watch.most) == (4 + 2000 // 125, 2)
    watch.requests = watch.most = 0
    assert jobs.add_many(numbered(3000)).refused == 3000
    assert (watch.requests, watch.most) == (3000 // 250, 4)


def test_scripts_that_the_server_forgot_are_loaded_again(any_server: servers.Server) -> None:
    raw = any_server.raw
    jobs: SortedSet[Any] = SortedSet(any_server.client(), "jobs", key=str)
    jobs.add_many(range(10), range(10))
    for call, answer in (
        (lambda: jobs.add(10, 10), 10),
        (lambda: jobs.pop(), 0),
        (lambda: jobs.take(2), [1, 2]),
        (lambda: jobs.peek(), 3),
        (lambda: jobs.discard(3), True),
        (lambda: jobs.get(4), 4),
        (lambda: jobs.add_many(range(4, 12), range(8)), (1, 7, 0, 0)),
        (lambda: jobs.clear(), 8),
    ):
        call_before = raw.script_flush()
        assert call_before
        assert call() == answer


def test_scripts_flushed_in_mid_window_change_nothing(any_server: servers.Server) -> None:
    raw = any_server.raw
    for moment in range(1, 9):
        any_server.flush()
        client, watch = watched(any_server)

        def flush(number: int, _: Any, moment: int = moment) -> None:
            if number == moment:
                raw.script_flush()

        jobs: SortedSet[Any] = SortedSet(client, "jobs", key=str)
        jobs.add("0", 0)
        watch.requests, watch.before = 0, flush
        # Every item twice, in different chunks: the later score holds, so the order is kept.
        items = [str(number) for number in range(1, 1001)] * 2
        assert jobs.add_many(items, range(2000)) == (1000, 1000, 0, 0)
        assert jobs.take(2000)[1:] == items[:1000]
        assert watch.in_flight == 0
        assert held(client) == 0


def test_another_client_that_loads_the_script_in_mid_window_changes_nothing(
    any_server: servers.Server,
) -> None:
    # The chunks after the refused one are performed before it: it must not overwrite them.
    raw = any_server.raw
    for moment in range(1, 8):
        any_server.flush()
        client, watch = watched(any_server)

        def meddle(number: int, _: Any, moment: int = moment) -> None:
            if number == moment:
                raw.script_flush()
            if number == moment + 1:
                raw.script_load(script("add").text)

        jobs: SortedSet[Any] = SortedSet(client, "jobs", key="url")
        jobs.add({"url": "first", "at": 0}, -1)
        watch.requests, watch.before = 0, meddle
        # The same 250 in each chunk: each payload and score is replaced by the next chunk's.
        items = [{"url": str(number % 250), "at": number} for number in range(2000)]
        assert jobs.add_many(items, range(2000)) == (250, 1750, 0, 0)
        assert jobs.take(2000, with_scores=True)[1:] == [
            (items[number], float(number)) for number in range(1750, 2000)
        ]


def test_a_connection_lost_while_scripts_are_loaded_again_changes_nothing(
    any_server: servers.Server,
) -> None:
    raw = any_server.raw
    for moment in range(4, 12):
        any_server.flush()
        client, watch = watched(any_server, retry=times(1))

        def meddle(number: int, _: Any, moment: int = moment) -> None:
            if number == 3:
                raw.script_flush()
            if number == moment:
                kill_others(raw)

        jobs: SortedSet[Any] = SortedSet(client, "jobs", key=str)
        jobs.add("0", 0)
        watch.requests, watch.before = 0, meddle
        items = [str(number) for number in range(1, 1001)] * 2
        assert sum(jobs.add_many(items, range(2000))) == 2000
        assert jobs.take(2000)[1:] == items[:1000]
        assert held(client) == 0


def test_answers_lost_while_the_window_is_read_to_its_end_change_nothing(
    any_server: servers.Server, proxy: Proxy, through: Callable[..., redis.Redis]
) -> None:
    # NOSCRIPT comes back to the first; the connection is cut among the replies after it.
    for down in range(1, 700, 37):
        any_server.flush()
        client = through(retry=times(1))
        jobs: SortedSet[Any] = SortedSet(client, "jobs", key=str)
        jobs.add("0", 0)
        any_server.raw.script_flush()
        proxy.cut_after(down=down)
        items = [str(number) for number in range(1, 1001)] * 2
        assert sum(jobs.add_many(items, range(2000))) == 2000
        proxy.cut_after()
        assert jobs.take(2000)[1:] == items[:1000]
        assert held(client) == 0


@pytest.mark.parametrize("kind", ["packed", "generic"])
def test_without_the_right_to_load_scripts_they_are_sent_whole(
    any_server: servers.Server, kind: str
) -> None:
    with servers.user(any_server, "-script") as options:
        any_server.raw.script_flush()
        client = any_server.client(**options, retry=never())
        given = client if kind == "packed" else servers.GenericDecoded(client)
        jobs: SortedSet[str] = SortedSet(given, "jobs", key=str, remember=True)
        assert jobs.add("a", -1) == -1
        assert jobs.add("a") is None
        any_server.raw.script_flush()
        # Several in flight, none of them known; they stay in order.
        assert jobs.add_many(numbered(4000), range(4000)).added == 4000
        any_server.raw.script_flush()
        assert jobs.take(3) == ["a", *numbered(2)]
        assert jobs.lease(2).ack() == 2
        after_an_interrupt(client)
        client.close()


@pytest.mark.parametrize("kind", ["packed", "generic"])
@pytest.mark.parametrize("rules", [["-script", "-eval"], ["-@scripting"]])
def test_a_refused_load_is_the_error_that_is_raised(
    any_server: servers.Server, kind: str, rules: list[str]
) -> None:
    with servers.user(any_server, *rules) as options:
        any_server.raw.script_flush()
        client = any_server.client(**options, retry=never())
        given = client if kind == "packed" else servers.GenericDecoded(client)
        jobs: SortedSet[str] = SortedSet(given, "jobs", key=str)
        said = "evalsha" if "-@scripting" in rules else "script"
        with pytest.raises(redis.exceptions.NoPermissionError, match=said):
            jobs.add("a")
        with pytest.raises(AddError, match=said) as caught:
            jobs.add_many(numbered(2000))
        assert isinstance(caught.value.__cause__, redis.exceptions.NoPermissionError)
        after_an_interrupt(client)
        client.close()


@pytest.mark.parametrize("kind", ["packed", "generic"])
@pytest.mark.parametrize(
    ("command", "options"),
    [("zadd", {"remember": True}), ("hset", {"key": str}), ("sadd", {"remember": True})],
)
def test_a_right_that_a_script_lacks_is_the_same_error_on_every_server(
    any_server: servers.Server, kind: str, command: str, options: dict[str, Any]
) -> None:
    with servers.user(any_server, f"-{command}") as login:
        client = any_server.client(**login, retry=never())
        given = client if kind == "packed" else servers.GenericDecoded(client)
        jobs: SortedSet[str] = SortedSet(given, "jobs", **options)
        for item in "ab":
            with pytest.raises(redis.exceptions.NoPermissionError, match=f"'{command}'"):
                jobs.add(item)
        with pytest.raises(AddError, match=f"'{command}'") as caught:
            jobs.add_many(["c"])
        assert isinstance(caught.value.__cause__, redis.exceptions.NoPermissionError)
        client.close()


def test_keys_that_a_script_may_not_use_are_the_same_error_on_every_server(
    any_server: servers.Server,
) -> None:
    with servers.user(any_server, "resetkeys", "~other*") as login:
        client = any_server.client(**login, retry=never())
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        for call in (lambda: jobs.add("a"), lambda: jobs.add("a", nx=True), lambda: jobs.lease(1)):
            with pytest.raises(redis.exceptions.NoPermissionError):
                call()
        client.close()


def test_a_wait_works_without_the_right_to_load_scripts(any_server: servers.Server) -> None:
    with servers.user(any_server, "-script") as options:
        any_server.raw.script_flush()
        client = any_server.client(**options)
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        timer = threading.Timer(0.3, any_server.raw.zadd, ("jobs", {"a": 1}))
        timer.start()
        assert jobs.pop(wait=10) == "a"
        timer.join()
        client.close()


# --- the window


@pytest.mark.usefixtures("silent")
def test_at_most_four_chunks_are_in_flight(any_server: servers.Server) -> None:
    client, watch = watched(any_server)
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    jobs.add("known", lt=True)
    for flags in ({}, {"lt": True}):
        for items in (numbered(10_000), iter(numbered(10_000))):
            watch.most = 0
            jobs.add_many(items, **flags)
            assert watch.most == limits.WINDOW == 4
    watch.most = 0
    assert len(list(jobs.add_new(f"new {number}" for number in range(5000)))) == 5000
    assert watch.most == 4


def test_a_bulk_add_uses_one_connection(any_server: servers.Server) -> None:
    client = any_server.client()
    SortedSet(client, "jobs").add_many(numbered(10_000))
    assert len(client.connection_pool._available_connections) == 1
    client.close()


@pytest.mark.slow(4)
def test_memory_does_not_grow_with_the_input(all_servers: servers.Servers) -> None:
    server = all_servers.get(servers.some())
    server.flush()
    client = server.client()
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    jobs.add_many(f"warm {number}" for number in range(5000))

    def generator() -> Iterator[str]:
        for number in range(300_000):
            yield f"https://example.org/a/page/of/some/length/{number % 150_000}"

    tracemalloc.start()
    try:
        result = jobs.add_many(generator())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result == (150_000, 150_000, 0, 0)
    # The items alone would be 30 MB.
    assert peak < 4_000_000
    client.close()


# --- kinds of client


KINDS: dict[str, dict[str, Any]] = {
    "decoding": {"decode_responses": True},
    "RESP3": {"protocol": 3},
    "RESP3 decoding": {"protocol": 3, "decode_responses": True},
    "database 3": {"db": 3},
    "latin": {"encoding": "latin-1", "decode_responses": True},
    "health checks": {"health_check_interval": 1},
    "short timeout": {"socket_timeout": 5, "socket_connect_timeout": 1},
}


def the_same_everywhere(client: Any, admin: Any) -> None:
    """A set does the same on this client as on any."""
    jobs: SortedSet[Any] = SortedSet(client, "jobs", remember=True)
    assert jobs.add_many(["ü", "b", "a"], [3, 2.5, float("-inf")]) == (3, 0, 0, 0)
    assert list(jobs) == ["a", "b", "ü"]
    assert jobs.take(2, with_scores=True) == [("a", float("-inf")), ("b", 2.5)]
    assert jobs.pop() == "ü"
    assert list(jobs.add_new(["ü", "c"])) == ["c"]
    assert admin.zrange("jobs", 0, -1) == [b"c"]
    with pytest.raises(KeyError):
        SortedSet(client, "empty").pop()
    plain: SortedSet[Any] = SortedSet(client, "plain")
    assert plain.add_many(["c", "d"], 7, lt=True) == (2, 0, 0, 0)
    admin.zadd("plain", {b"\xff\xfe": 1})
    assert plain.take(2, with_scores=True) == [("c", 7)]
    assert [letter.raw for letter in plain.dead] == [b"\xff\xfe"]
    assert plain.stats().size == 1
    pages: SortedSet[Any] = SortedSet(client, "pages", key="url")
    assert pages.add({"url": "/ü", "n": 1}, 5) == 5
    assert pages.get({"url": "/ü"}) == {"n": 1, "url": "/ü"}
    assert pages.pop() == {"n": 1, "url": "/ü"}


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_client_gives_the_same(
    any_server: servers.Server, kind: str, tcp: bool
) -> None:
    options = KINDS[kind]
    client = (any_server.tcp_client if tcp else any_server.client)(**options)
    admin = any_server.client(db=options.get("db", 0))
    the_same_everywhere(client, admin)
    if "db" in options:
        assert servers.keys(any_server.raw) == []
    client.close()
    admin.close()


def test_a_password_and_a_user_are_the_clients(any_server: servers.Server) -> None:
    user = "ann on >hers ~* &* +@all"
    with servers.start(any_server.kind, requirepass="secret", user=user) as server:
        admin = server.client(password="secret")
        for options in ({"password": "secret"}, {"username": "ann", "password": "hers"}):
            for protocol in (2, 3):
                admin.flushall()
                client = server.client(protocol=protocol, **options)
                the_same_everywhere(client, admin)
                client.close()
        with pytest.raises(redis.RedisError):
            SortedSet(server.client(retry=never()), "jobs").add("a")
        admin.close()


def test_a_set_made_from_a_url_is_on_the_urls_database(any_server: servers.Server) -> None:
    with SortedSet.from_url(f"unix://{any_server.unix}?db=3", "jobs") as jobs:
        jobs.add("a")
    assert servers.keys(any_server.raw) == []
    with SortedSet.from_url(f"redis://127.0.0.1:{any_server.port}/3", "jobs") as jobs:
        assert jobs.pop() == "a"


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_a_valkey_client_gives_the_same(any_server: servers.Server, tcp: bool) -> None:
    valkey = pytest.importorskip("valkey")
    where = {"port": any_server.port} if tcp else {"unix_socket_path": any_server.unix}
    admin = any_server.client()
    for options in ({}, {"decode_responses": True}, {"protocol": 3}):
        admin.flushall()
        client = valkey.Valkey(**where, **options)
        the_same_everywhere(client, admin)
        client.close()
    admin.close()


def test_a_valkey_clients_errors_are_its_own(any_server: servers.Server, proxy: Proxy) -> None:
    valkey = pytest.importorskip("valkey")
    backoff = pytest.importorskip("valkey.backoff")
    retry = pytest.importorskip("valkey.retry")
    any_server.raw.set("text", "a string")
    client = valkey.Valkey(port=proxy.port, retry=retry.Retry(backoff.NoBackoff(), 2))
    with pytest.raises(valkey.ResponseError, match="WRONGTYPE"):
        SortedSet(client, "text").add("a")
    any_server.raw.zadd("jobs", {"b": 1})
    proxy.rule = lambda command: Proxy.LOSE if command[0] == b"ZPOPMIN" else None
    with pytest.raises(valkey.ConnectionError):
        SortedSet(client, "jobs").pop()
    assert proxy.names().count(b"ZPOPMIN") == 1
    proxy.rule = lambda command: Proxy.CUT if command[0] == b"ZADD" else None
    with pytest.raises(valkey.ConnectionError):
        SortedSet(client, "jobs").add("a")
    assert proxy.names().count(b"ZADD") == 4
    client.close()


def test_sentinel_chooses_the_server(any_server: servers.Server, sentinel: int) -> None:
    watching = redis.sentinel.Sentinel([("127.0.0.1", sentinel)])
    admin = any_server.client()
    for options in ({}, {"decode_responses": True}):
        admin.flushall()
        client = watching.master_for("main", **options)
        the_same_everywhere(client, admin)
        client.close()
    admin.close()


# --- servers that hang up


@pytest.mark.parametrize("options", [{}, {"key": str}])
def test_connections_that_the_server_closed_between_calls_change_nothing(
    any_server: servers.Server, options: Any
) -> None:
    for client in (any_server.client(retry=never()), any_server.tcp_client(retry=never())):
        any_server.flush()
        jobs: SortedSet[str] = SortedSet(client, "jobs", **options)
        for call, answer in (
            (lambda jobs: jobs.add("a", 1), 1),
            (lambda jobs: jobs.add_many(["b", "c"], 2).added, 2),
            (lambda jobs: jobs.pop(), "a"),
            (lambda jobs: jobs.take(2), ["b", "c"]),
        ):
            kill_others(any_server.raw)
            assert call(jobs) == answer
        client.close()


def test_connections_that_the_server_closed_as_idle_change_nothing() -> None:
    with servers.start(servers.some(), timeout=1) as server:
        client = server.client(retry=never())
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        jobs.add("a")

        def generator() -> Iterator[str]:
            yield from ("b", "c")
            alone(server.raw)
            yield "d"

        assert jobs.add_many(generator()).added == 3
        assert server.raw.info("stats")["total_connections_received"] > 3
        client.close()


@pytest.mark.parametrize("options", [{}, {"key": str}, {"remember": True}])
def test_a_restart_between_calls_changes_nothing(any_server: servers.Server, options: Any) -> None:
    client = any_server.client(retry=never())
    jobs: SortedSet[str] = SortedSet(client, "jobs", **options)
    jobs.add_many(numbered(100), range(100))
    jobs.pop()
    any_server.restart(save=True)
    assert jobs.take(2) == ["item-000001", "item-000002"]
    any_server.restart()
    assert jobs.size() == 0
    assert jobs.add_many(numbered(100), range(100)).added == 100
    any_server.restart(save=True)
    assert jobs.pop() == "item-000000"
    client.close()


@pytest.mark.parametrize("options", [{}, {"key": str}, {"remember": True}])
def test_a_restart_in_mid_stream_changes_nothing(any_server: servers.Server, options: Any) -> None:
    # The server comes back with all it had, but not with its scripts.
    client, watch = watched(any_server, retry=Retry(ConstantBackoff(0.05), 20))
    watch.name = b"EVALSHA" if options else b"ZADD"
    jobs: SortedSet[str] = SortedSet(client, "jobs", **options)
    jobs.add("first", -1)
    watch.requests = 0

    def restart(number: int, _: Any) -> None:
        if number == 5:
            any_server.restart(save=True)

    watch.before = restart
    result = jobs.add_many(numbered(4000), range(4000))
    assert sum(result) == 4000
    assert jobs.take(5000)[1:] == numbered(4000)


def test_a_restart_while_a_generator_runs_changes_nothing(any_server: servers.Server) -> None:
    def generator() -> Iterator[str]:
        yield from numbered(3000)
        any_server.restart(save=True)
        yield "last"

    client = any_server.client(retry=never())
    jobs: SortedSet[str] = SortedSet(client, "jobs", key=str)
    assert jobs.add_many(generator()).added == 3001
    assert jobs.size() == 3001
    client.close()


def test_the_chunks_are_those_that_the_documentation_names() -> None:
    assert (adding.CHUNK, adding.SCRIPT_CHUNK, adding.WINDOW) == (500, 250, 4)


# --- handed-out items are the caller's


@pytest.mark.parametrize("options", [{}, {"key": str}], ids=["plain", "keyed"])
def test_a_take_that_fails_in_a_later_step_returns_the_earlier_items(
    proxy: Proxy, through: Callable[..., redis.Redis], options: Any, caplog: Any
) -> None:
    jobs = SortedSet(through(), "jobs", **options)
    jobs.add_many(f"{number:04}" for number in range(6000))
    assert jobs.take(1)
    steps = 0

    def rule(command: list[bytes]) -> str | None:
        nonlocal steps
        steps += command[0] in (b"MULTI", b"EVALSHA")
        return Proxy.CUT if steps == 3 else None

    proxy.rule = rule
    taken = jobs.take(5999)
    proxy.rule = None
    assert taken
    assert len(taken) + jobs.size() == 5999
    assert "could not take more items" in caplog.text
    proxy.rule = lambda command: Proxy.CUT
    with pytest.raises(redis.ConnectionError):
        jobs.take(10)


@pytest.mark.parametrize("retries", [0, 3])
@pytest.mark.parametrize("how", [Proxy.CUT, Proxy.LOSE])
def test_an_undecodable_item_whose_burial_fails_is_in_one_place(
    any_server: servers.Server,
    proxy: Proxy,
    through: Callable[..., redis.Redis],
    retries: int,
    how: str,
) -> None:
    raw = any_server.raw
    raw.zadd("jobs", {"not JSON": 0, "1": 1, "2": 2, "3": 3})
    jobs = SortedSet(through(retry=times(retries)), "jobs", serializer=JSONSerializer())
    lost = 0

    def rule(command: list[bytes]) -> str | None:
        nonlocal lost
        if b"not JSON" not in command or lost:
            return None
        lost += 1
        return how

    proxy.rule = rule
    with pytest.raises(redis.ConnectionError):
        jobs.pop()
    assert lost == 1
    queued = raw.zrange("jobs", 0, -1)
    if how == Proxy.CUT:
        assert queued == [b"not JSON", b"1", b"2", b"3"]
        assert jobs.dead.size() == 0
    else:
        assert queued == [b"1", b"2", b"3"]
        assert [letter.raw for letter in jobs.dead] == [b"not JSON"]
    assert jobs.pop() == 1
    assert jobs.dead.size() == 1


def test_nothing_new_is_sent_after_a_full_set_that_was_then_cleared(
    any_server: servers.Server, proxy: Proxy, through: Callable[..., redis.Redis]
) -> None:
    jobs = SortedSet(through(), "jobs", remember=True, max_size=300)
    jobs.add_many(f"old {number}" for number in range(290))
    other = SortedSet(any_server.client(), "jobs", remember=True)
    adds = 0

    def rule(command: list[bytes]) -> None:
        nonlocal adds
        if command[0] == b"EVALSHA" and len(command) > 100:
            adds += 1
            if adds == 2:
                end = time.monotonic() + 20
                while calls(any_server.raw, "evalsha") < 1 and time.monotonic() < end:
                    time.sleep(0.01)
                other.clear()

    any_server.raw.config_resetstat()
    proxy.rule = rule  # type: ignore[assignment]
    with pytest.raises(Full) as caught:
        jobs.add_many([f"new {number}" for number in range(500)])
    assert isinstance(caught.value, AddError)
    assert (caught.value.resume_at, caught.value.result.added) == (0, 0)
    assert adds == 2
    proxy.rule = None
    assert jobs.size() == 0
