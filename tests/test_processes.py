"""Many processes and threads share one set: no item is lost, none is handed out twice."""

from __future__ import annotations

import contextlib
import functools
import gzip
import json
import os
import random
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any

import children
import pytest
import redis
import servers

from redset import ScheduledSet, SortedSet, _wire

PROCESSES = 8
#: The number of items of each producer, if they are not hyperlinks.
NUMBER = 1200
FUTURE = 1e11


# --- eight processes at once


def _chosen(number: int, work: Callable[..., Any], *args: Any) -> Any:
    # Both implementations are at it together, if the core is built.
    with contextlib.suppress(ImportError):
        _wire.DEFAULT = _wire.load("cython" if number // 2 % 2 else "python")
    return work(number, *args)


@pytest.fixture(scope="module")
def together() -> Iterator[Callable[..., list[Any]]]:
    """Perform ``work(number, ...)`` in 8 processes at once; return the results."""
    team = children.Team(PROCESSES)
    yield lambda work, *args: team.perform(_chosen, work, *args, limit=150)
    team.stop()


@functools.cache
def links() -> list[list[str]]:
    """The links of each page of a real site, in the order of a crawl."""
    file = resources.files("redset.demo") / "data" / "python-docs-links.jsonl.gz"
    return [json.loads(row)["links"] for row in gzip.decompress(file.read_bytes()).splitlines()]


def pages_of(number: int) -> list[list[str]]:
    """The items of one process: runs of pages that overlap those of four others."""
    return links()[40 * number : 40 * number + 120]


def offer(number: int, path: str, options: dict[str, Any]) -> tuple[int, list[str]]:
    """Add the links of some pages, as one stream or page by page; how many were added."""
    client = redis.Redis(unix_socket_path=path)
    urls: SortedSet[Any] = SortedSet(client, "urls", **options)
    keyed = "key" in options

    def items(page: list[str]) -> Iterator[Any]:
        return ({"url": link, "by": number} for link in page) if keyed else iter(page)

    pages = pages_of(number)
    if number % 2:
        pages = [[link for page in pages for link in page]]
    added, new = 0, []
    for page in pages:
        if number < 4:
            added += urls.add_many(list(items(page))).added
        else:
            found = list(urls.add_new(items(page)))
            added += len(found)
            new += [item["url"] if keyed else item for item in found]
    client.close()
    return added, new


@pytest.mark.parametrize(
    "options",
    [
        {"key": "url", "remember": True},
        {"key": "url", "remember": 3600},
        {"remember": True},
        {"remember": 3600, "duplicates": "keep"},
        {"duplicates": "keep"},
        {"key": "url"},
    ],
    ids=lambda options: " ".join(f"{name}={value}" for name, value in options.items()),
)
def test_the_adds_of_8_processes_sum_up_to_the_distinct_urls(
    any_server: servers.Server,
    server_client: redis.Redis,
    together: Callable[..., list[Any]],
    options: dict[str, Any],
) -> None:
    expected = {link for number in range(PROCESSES) for page in pages_of(number) for link in page}
    results = together(offer, any_server.unix, options)
    assert sum(added for added, _ in results) == len(expected)
    new = [link for _, found in results for link in found]
    assert len(set(new)) == len(new)
    urls: SortedSet[Any] = SortedSet(server_client, "urls", **options)
    assert {item["url"] if "key" in options else item for item in urls} == expected
    assert urls.size() == len(expected)
    assert urls.stats().remembered == (len(expected) if "remember" in options else 0)


TURNS = 120


def queue_up(number: int, path: str, options: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Add items of its own and some that all add; when each add began and ended."""
    client = redis.Redis(unix_socket_path=path)
    jobs: SortedSet[str] = SortedSet(client, "urls", **options)
    pick = random.Random(number)
    times = []
    for turn in range(TURNS):
        some = [f"{number} {turn} {at}" for at in range(pick.choice([1, 1, 1, 3, 600]))]
        if pick.random() < 0.3:
            some.append(f"shared {pick.randrange(200)}")
        began = time.monotonic()
        if len(some) == 1:
            jobs.add(some[0], pick.choice([0, 0, 1]))
        elif turn % 2:
            jobs.add_many(some, pick.choice([0, 1]))
        else:
            list(jobs.add_new(some, nx=True))
        ended = time.monotonic()
        times += [(item, began, ended) for item in some]
        if not turn % 10:
            # Leased and given back, and moved to another score and back, an item keeps its place.
            jobs.release(jobs.lease(3))
            jobs.add(some[0], 1 - (jobs.score(some[0]) or 0))
    client.close()
    return times


@pytest.mark.slow(3)
@pytest.mark.parametrize("ties", ["fifo", "lifo"])
@pytest.mark.parametrize("options", [{}, {"max_size": 10**6}], ids=str)
def test_ties_are_in_the_order_of_the_first_add_of_8_processes(
    any_server: servers.Server,
    server_client: redis.Redis,
    together: Callable[..., list[Any]],
    ties: str,
    options: dict[str, Any],
) -> None:
    given: dict[str, Any] = {"ties": ties, **options}
    began: dict[str, float] = {}
    ended: dict[str, float] = {}
    for times in together(queue_up, any_server.unix, given):
        for item, start, end in times:
            began[item] = min(start, began.get(item, start))
            ended[item] = min(end, ended.get(item, end))
    jobs: SortedSet[str] = SortedSet(server_client, "urls", **given)
    assert jobs.size() == len(began) and jobs.finished() is False
    jobs.add_many(list(jobs), score=2)  # of whatever score they were
    order = list(jobs)
    if ties == "lifo":
        order.reverse()
    assert set(order) == set(began)
    # Items that were in before another add began come before its items.
    latest, told = 0.0, 0
    own: dict[tuple[str, str], int] = {}
    for item in order:
        assert ended[item] >= latest
        told += began[item] > latest
        latest = max(latest, began[item])
        producer, turn, *at = item.split(" ")
        if at:  # and within a call its items as they stood in it
            assert int(at[0]) == own.get((producer, turn), -1) + 1
            own[producer, turn] = int(at[0])
    # However they are scheduled: while one add of a process goes on, each other process can begin
    # before it and come after it once.
    assert told >= TURNS


# --- producers and consumers

KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (SortedSet, {}),
    "keyed": (SortedSet, {"key": "url"}),
    "scheduled": (ScheduledSet, {}),
    "scheduled and keyed": (ScheduledSet, {"key": "url"}),
    # All producers add the same.
    "remembered": (SortedSet, {"remember": True}),
    "keyed and remembered": (SortedSet, {"key": "url", "remember": 3600}),
}


def make(kind: str, client: redis.Redis) -> SortedSet[Any]:
    cls, options = KINDS[kind]
    return cls(client, "jobs", **options)  # type: ignore[no-any-return]


def item_of(kind: str, url: str) -> Any:
    return {"url": url, "text": "ü" * 20} if "key" in KINDS[kind][1] else url


def url_of(item: Any) -> str:
    return item["url"] if isinstance(item, dict) else item


def work(number: int, path: str, kind: str) -> list[str]:
    client = redis.Redis(unix_socket_path=path)
    jobs = make(kind, client)
    pick = random.Random(number)
    try:
        return consume(jobs, pick) if number % 2 else produce(jobs, pick, number, kind)
    finally:
        if not number % 2:
            client.incr("ended")
        client.close()


def produce(jobs: SortedSet[Any], pick: random.Random, number: int, kind: str) -> list[str]:
    """Add items, some one by one; return the items to be added."""
    owner = 0 if "remember" in KINDS[kind][1] else number
    urls = [f"/{owner}/{at}" for at in range(NUMBER)]
    pick.shuffle(urls)
    at = 0
    while at < NUMBER:
        part = [item_of(kind, url) for url in urls[at : at + pick.choice([1, 1, 20, 400])]]
        at += len(part)
        # Without a score a ScheduledSet has the server's time, so that they are due at once.
        score = None if pick.random() < 0.5 else pick.randrange(100)
        if len(part) == 1:
            jobs.add(part[0], score)
        elif pick.random() < 0.5:
            jobs.add_many(part, score)
        else:
            for _ in jobs.add_new(iter(part), score):
                pass
    return urls


def consume(jobs: SortedSet[Any], pick: random.Random) -> list[str]:
    """Hand out items until there are none and will be none; return them."""
    taken: list[Any] = []
    until = time.monotonic() + 120
    while time.monotonic() < until:
        ended = int(jobs.redis.get("ended") or 0) == PROCESSES / 2
        found: list[Any] = []
        how = pick.randrange(4)
        if how == 0:
            with contextlib.suppress(KeyError):
                found = [jobs.pop()]
        elif how == 1:
            found = [item for item, _ in jobs.take(pick.randrange(1, 40), with_scores=True)]
        else:
            found = jobs.take(pick.choice([1, 2, 10, 200]))
        taken += found
        if ended and not found:
            break
    return [url_of(item) for item in taken]


@pytest.mark.parametrize("kind", KINDS)
def test_no_item_is_lost_and_none_is_handed_out_twice(
    any_server: servers.Server,
    server_client: redis.Redis,
    together: Callable[..., list[Any]],
    kind: str,
) -> None:
    jobs = make(kind, server_client)
    if kind.startswith("scheduled"):
        assert jobs.add(item_of(kind, "/next year"), FUTURE) == FUTURE
    results = together(work, any_server.unix, kind)
    added = {url for urls in results[::2] for url in urls}
    taken = [url for urls in results[1::2] for url in urls]
    assert len(added) == NUMBER * (1 if "remember" in kind else PROCESSES / 2)
    assert sorted(taken) == sorted(added)
    assert [url_of(item) for item in jobs] == (
        ["/next year"] if kind.startswith("scheduled") else []
    )


# --- a consumer that is killed


def take_on(path: str, kind: str, num: int) -> None:
    """Take without end, and write the taken items to a file after each call."""
    client = redis.Redis(unix_socket_path=path)
    jobs = make(kind, client)
    while found := [jobs.pop()] if num == 1 else jobs.take(num):
        client.rpush("taken", *map(url_of, found))


@pytest.mark.parametrize(
    ("kind", "num"), [("plain", 1), ("plain", 20), ("keyed", 20), ("scheduled", 1)]
)
def test_a_killed_consumer_loses_at_most_the_items_of_its_last_call(
    any_server: servers.Server, server_client: redis.Redis, kind: str, num: int
) -> None:
    jobs = make(kind, server_client)
    urls = [f"/{at:06}" for at in range(5000 if num == 1 else 30_000)]
    jobs.add_many([item_of(kind, url) for url in urls], range(len(urls)))
    with children.process(take_on, any_server.unix, kind, num) as consumer:
        until = time.monotonic() + 40
        while server_client.llen("taken") < 20 * num and time.monotonic() < until:
            assert consumer.is_alive(), children.named(consumer)
            time.sleep(0.001)
    # The end of the block killed it.
    assert consumer.exitcode == -signal.SIGKILL, children.named(consumer)
    taken = [url.decode() for url in server_client.lrange("taken", 0, -1)]
    queued = [url_of(item) for item in jobs]
    assert len(taken) >= 20 * num
    assert taken == urls[: len(taken)]
    lost = urls[len(taken) : len(urls) - len(queued)]
    assert queued == urls[len(taken) + len(lost) :]
    assert lost == [] or len(lost) == num
    # Nothing of it was left halfway.
    if kind == "keyed":
        members = server_client.zrange("jobs:{jobs}:keyed", 0, -1)
        assert set(server_client.hkeys("jobs:{jobs}:items")) == set(members)
    assert [url_of(item) for item in jobs.take(len(urls))] == queued
    assert not server_client.exists("jobs", "jobs:{jobs}:keyed", "jobs:{jobs}:items")


# --- forks


Forks = Callable[[Callable[[], Any]], Callable[[], Any]]


@pytest.fixture
def fork() -> Iterator[Forks]:
    """Has a fork of this process work; its result waits for the child."""
    with contextlib.ExitStack() as stack:
        yield lambda work: stack.enter_context(children.forked(work)).result


def marked(
    server: servers.Server, reading: Callable[[], None] = lambda: None
) -> tuple[redis.Redis, set[int]]:
    """A client, and the sockets on which it has sent something; `reading` comes before answers."""
    used: set[int] = set()

    @servers.as_the_librarys
    class Marked(redis.UnixDomainSocketConnection):
        def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            super().send_packed_command(command, check_health)
            used.add(os.fstat(self._sock.fileno()).st_ino)

        def read_response(self, *args: Any, **named: Any) -> Any:
            reading()
            return super().read_response(*args, **named)

    pool = redis.ConnectionPool(connection_class=Marked, path=server.unix)
    return redis.Redis(connection_pool=pool), used


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_no_connection_of_its_parent(
    any_server: servers.Server, fork: Forks
) -> None:
    client, used = marked(any_server)
    jobs: SortedSet[Any] = SortedSet(client, "jobs", key="url", remember=True)

    def work(number: int) -> tuple[Any, set[int]]:
        used.clear()
        items = [item_of("keyed", f"/{at}") for at in range(600)]
        added = jobs.add_many(items, number).added
        own = item_of("keyed", f"/child/{number}")
        return (added, jobs.add(own), jobs.discard(own), jobs.seen(own), len(jobs.take(5))), used

    mine = work(0)[0]
    assert mine == (600, 0, True, True, 5)
    first = fork(lambda: work(1))
    second = fork(lambda: work(2))
    assert work(3)[0] == (0, 0, True, True, 5)
    third = fork(lambda: work(4))
    results = [first(), second(), third()]
    assert [result for result, _ in results] == [(0, 0, True, True, 5)] * 3
    assert work(5)[0] == (0, 0, True, True, 5)
    sockets = [used, *(theirs for _, theirs in results)]
    assert len(set.union(*sockets)) == sum(map(len, sockets)) >= 4
    assert jobs.size() == 600 - 6 * 5
    client.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("options", [{}, {"key": str, "remember": True}], ids=["plain", "keyed"])
def test_both_sides_of_a_fork_in_the_middle_of_a_bulk_add_go_on(
    any_server: servers.Server, options: dict[str, Any]
) -> None:
    client, used = marked(any_server)
    jobs: SortedSet[Any] = SortedSet(client, "jobs", **options)
    parent = os.getpid()
    before = child = 0
    ours, theirs = os.pipe()

    def items() -> Iterator[str]:
        nonlocal before, child
        for number in range(5000):
            if number == 2500:
                before = any_server.raw.zcard("jobs:{jobs}:keyed" if options else "jobs")
                child = os.fork()
                if not child:
                    used.clear()
            yield f"/{number}"

    try:
        # The child goes on in its copy of this very call.
        result = jobs.add_many(items())
    finally:
        if os.getpid() != parent:
            status = 1
            try:
                with os.fdopen(theirs, "w") as pipe:
                    json.dump([list(result), jobs.size(), list(used)], pipe)
                status = 0
            except BaseException:
                traceback.print_exc(file=sys.__stderr__)
            finally:
                os._exit(status)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        came = select.select([pipe], [], [], 40)[0]
        told = pipe.read() if came else ""
    # The child prints the rest itself, on its stderr.
    assert children.reap(child, 5) == 0
    other, size, sockets = json.loads(told)
    assert 0 < before < 5000
    assert result.added + other[0] == 5000 + before
    assert sum(result) == sum(other) == 5000
    assert size == jobs.size() == 5000
    assert sockets
    assert not used & set(sockets)
    client.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_bulk_add_may_fork_children_that_use_the_set(
    any_server: servers.Server, fork: Forks
) -> None:
    client, used = marked(any_server)
    jobs: SortedSet[Any] = SortedSet(client, "jobs", key=str, remember=True)
    results = []

    def work(number: int) -> tuple[int, set[int]]:
        used.clear()
        return jobs.add_many([f"/{number}/{at}" for at in range(600)]).added, used

    def items() -> Iterator[str]:
        for number in range(3000):
            if number in (0, 1200, 2999):
                results.append(fork(functools.partial(work, number)))
            yield f"/{number}"

    assert jobs.add_many(items()).added == 3000
    for result in results:
        added, sockets = result()
        assert added == 600
        assert sockets
        assert not sockets & used
    assert jobs.size() == 3000 + 3 * 600
    client.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_while_another_thread_has_chunks_in_flight_harms_neither(
    any_server: servers.Server, fork: Forks
) -> None:
    in_flight, forked = threading.Event(), threading.Event()

    def reading() -> None:
        if threading.current_thread().name == "adding":
            in_flight.set()
            assert forked.wait(60)

    client, used = marked(any_server, reading)
    jobs: SortedSet[Any] = SortedSet(client, "jobs", remember=True)
    results: list[int] = []

    def add(number: int) -> int:
        return jobs.add_many([f"/{number}/{at}" for at in range(3000)]).added

    def work(number: int) -> tuple[int, bool, set[int]]:
        used.clear()
        return add(number), f"/{number}/5" in jobs, used

    assert add(0) == 3000
    thread = threading.Thread(target=lambda: results.append(add(1)), name="adding", daemon=True)
    thread.start()
    try:
        assert in_flight.wait(60)
        waiting = [fork(functools.partial(work, number)) for number in (2, 3)]
        assert add(4) == 3000
        theirs = [waiting[0]()]
    finally:
        forked.set()
        thread.join(60)
    theirs.append(waiting[1]())
    assert results == [3000]
    for added, queued, sockets in theirs:
        assert (added, queued) == (3000, True)
        assert sockets
        assert not sockets & used
    assert jobs.size() == 5 * 3000
    client.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_while_another_thread_has_the_pool_s_lock_harms_neither(
    any_server: servers.Server, fork: Forks
) -> None:
    connecting, forked = threading.Event(), threading.Event()

    @servers.as_the_librarys
    class Slow(redis.ConnectionPool):
        def make_connection(self) -> Any:
            if threading.current_thread().name == "connecting":
                connecting.set()
                assert forked.wait(60)
            return super().make_connection()

    pool = Slow(connection_class=redis.UnixDomainSocketConnection, path=any_server.unix)
    client = redis.Redis(connection_pool=pool)
    jobs: SortedSet[Any] = SortedSet(client, "jobs")
    sizes: list[int] = []
    thread = threading.Thread(
        target=lambda: sizes.append(jobs.size()), name="connecting", daemon=True
    )
    thread.start()
    try:
        assert connecting.wait(60)
        result = fork(lambda: (jobs.add("/child"), jobs.size()))
        assert result() == (0, 1)
    finally:
        forked.set()
        thread.join(60)
    assert sizes == [1]
    assert jobs.size() == 1
    client.close()


# --- threads


@pytest.mark.parametrize("options", [{"remember": True}, {"key": "url", "remember": 3600}])
def test_16_threads_share_a_set_and_fewer_connections(
    any_server: servers.Server, options: dict[str, Any]
) -> None:
    pool = redis.BlockingConnectionPool(
        connection_class=redis.UnixDomainSocketConnection,
        path=any_server.unix,
        max_connections=5,
        timeout=60,
    )
    jobs: SortedSet[Any] = SortedSet(redis.Redis(connection_pool=pool), "jobs", **options)
    kind = "keyed" if "key" in options else "plain"
    items = [item_of(kind, f"/{number}") for number in range(150)]
    added: list[int] = []
    taken: list[Any] = []
    errors: list[BaseException] = []
    start = threading.Barrier(16)

    def share(number: int) -> None:
        pick = random.Random(number)
        mine = pick.sample(items, len(items))
        start.wait(60)
        # The first of all sixteen calls makes the memory: each of them proposes one.
        for at in range(0, len(mine), 10):
            few = mine[at : at + 10]
            how = pick.randrange(3)
            if how == 0:
                added.append(sum(jobs.add(item, at) is not None for item in few))
            elif how == 1:
                added.append(jobs.add_many(few, at, nx=True).added)
            else:
                added.append(len(list(jobs.add_new(few, at))))
            assert jobs.seen_many(few) == [True] * len(few)
            if number % 2:
                taken.extend(jobs.take(2))
            else:
                with contextlib.suppress(KeyError):
                    taken.append(jobs.pop())

    def run(number: int) -> None:
        try:
            share(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert sorted(map(url_of, [*taken, *jobs])) == sorted(map(url_of, items))
    # An item that an add moves counts for neither.
    assert sum(added) == len(items)
    pool.disconnect()
