"""The known table in use: a process's knowledge is never wrong."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import children
import pytest
import redis
import redis.asyncio
import servers
from blocking import face_of
from load import Load
from marks import needs_fork
from test_memory import P
from test_model import recording, recording_asyncio

from redset import AddResult, Key, SortedSet
from redset._operations import known
from redset._operations import tables as known_tables
from redset._transport import pools
from redset.scripts import script

EVER: list[dict[str, Any]] = [{"remember": True}, {"remember": True, "key": str}]
ALL: list[dict[str, Any]] = [*EVER, {"remember": 3600}, {"remember": 3600, "key": str}]
each = pytest.mark.parametrize("options", ALL, ids=str)
faces = pytest.mark.parametrize("face", [recording, recording_asyncio])

URLS = [f"https://example.org/{number}" for number in range(1200)]
REFUSED = AddResult(0, 0, len(URLS), 0)


def sent(requests: list[bytes]) -> list[str]:
    """Return the steps and commands among requests, without a client's introduction."""
    names = {
        script(name).sha: name
        for name in ("add", "check_memory", "forget", "discard_and_forget", "clear")
    }
    found = []
    for request in requests:
        if b"SETINFO" in request or b"HELLO" in request or b"MAINT_NOTIFICATIONS" in request:
            continue
        found += [name for sha, name in names.items() if sha in request] or [
            request.split(b"\r\n", 3)[2].decode()
        ]
    return found


def renewed(jobs: Any) -> None:
    """Let the last check be too old."""
    ctx = face_of(jobs)._ctx
    ctx.memory.next_check = 0.0
    if ctx.memory.trust is not None:
        ctx.memory.trust = ctx.memory.trust._replace(since=0.0)


# --- its savings


@pytest.mark.parametrize("options", [ALL[0], ALL[3]], ids=str)
@faces
def test_a_stream_of_known_items_makes_at_most_two_round_trips_a_second(
    any_server: servers.Server, any_implementation: str, face: Any, options: Any
) -> None:
    with face(any_server) as (make, requests):
        jobs = make(SortedSet, "jobs", **options)
        assert jobs.add_many(URLS).added == len(URLS)
        jobs.add_many(URLS)
        requests.clear()
        start = time.monotonic()
        total = 0
        while time.monotonic() - start < 1.8:
            assert jobs.add_many(URLS) == REFUSED
            assert jobs.add_many(iter(URLS[:100]), nx=True) == (0, 0, 100, 0)
            assert jobs.add(URLS[7], 5) is None
            assert list(jobs.add_new(URLS[:50])) == []
            total += 1
        assert total >= 2  # on a busy machine
        assert 1 <= len(requests) <= 2 * (time.monotonic() - start)
        assert set(sent(requests)) == {"check_memory"}


@pytest.mark.usefixtures("lasting")
@pytest.mark.parametrize("options", [ALL[1], ALL[2]], ids=str)
@faces
def test_only_what_is_new_is_sent(
    any_server: servers.Server, any_implementation: str, face: Any, options: Any
) -> None:
    with face(any_server) as (make, requests):
        jobs = make(SortedSet, "jobs", **options)
        jobs.add_many(URLS)
        jobs.add_many(URLS)
        requests.clear()
        new = [f"new-{number}" for number in range(300)]
        mixed = [url for pair in zip(URLS, new, strict=False) for url in pair]
        assert jobs.add_many(mixed * 2) == (300, 0, 900, 0)
        text = b"".join(requests)
        assert all(url.encode() in text for url in new)
        assert not any(url.encode() + b"\r" in text for url in URLS[:300])
        assert sorted(jobs.take(5000)) == sorted([*URLS, *new])
        newer = [f"newer-{number}" for number in range(700)]
        assert list(jobs.add_new([*URLS, *newer, *new])) == newer
        assert jobs.add("newest") == 0
        assert jobs.add("newest", 7) is None
        assert jobs.size() == 701


@pytest.mark.usefixtures("lasting")
@each
def test_single_adds_use_it_within_the_second(
    any_server: servers.Server, any_implementation: str, options: Any
) -> None:
    with recording(any_server) as (make, requests):
        jobs = make(SortedSet, "jobs", **options)
        jobs.add("a", 1)
        requests.clear()
        for _ in range(100):
            assert jobs.add("a", 2) is None
        assert sent(requests).count("add") <= 2
        assert sent(requests).count("check_memory") <= 2
        # One now and then is not worth another request.
        jobs._ctx.memory.used = 0.0
        renewed(jobs)
        requests.clear()
        assert jobs.add("a") is None
        assert sent(requests) == ["add"]


def test_all_objects_of_a_set_share_a_table_and_no_others(any_server: servers.Server) -> None:
    clients = [
        any_server.client(),
        any_server.tcp_client(protocol=3, decode_responses=True),
        any_server.client(db=1),
    ]
    sets: list[Any] = [SortedSet(client, "jobs", remember=True) for client in clients]
    sets.append(SortedSet(clients[0], "others", remember=True))
    for jobs in sets:
        jobs.add_many(URLS[:20])
        renewed(jobs)
        jobs.add_many(URLS[:20])
    tables = [jobs._ctx.memory.trust.table for jobs in sets]
    assert tables[0] is tables[1]
    assert len({id(table) for table in tables}) == 3
    assert all(len(table) == 20 for table in tables)
    # It goes with the last of them.
    count = len(known_tables._tables.by_memory)
    del jobs, sets, tables
    gc.collect()
    assert len(known_tables._tables.by_memory) <= count - 3
    for client in clients:
        client.close()


def test_it_holds_no_more_than_known_max(
    any_server: servers.Server, any_implementation: str
) -> None:
    with recording(any_server) as (make, requests):
        jobs = make(SortedSet, "jobs", remember=True, known_max=100)
        for _ in range(3):
            jobs.add_many(URLS)
        assert len(jobs._ctx.memory.trust.table) == 100
        assert jobs.add_many(URLS) == REFUSED
        none = make(SortedSet, "jobs", remember=True, known_max=0)
        # The first one of an object also asks whether the set is finished.
        assert none.add_many(URLS[:50]) == (0, 0, 50, 0)
        requests.clear()
        for _ in range(3):
            assert none.add_many(URLS[:50]) == (0, 0, 50, 0)
        assert sent(requests) == ["add", "add", "add"]


@pytest.mark.parametrize("flags", [{"again": True}, {"lt": True}, {"gt": True}, {"xx": True}])
def test_adds_that_known_items_may_pass_ask_the_server(
    any_server: servers.Server, flags: Any
) -> None:
    with recording(any_server) as (make, _):
        jobs = make(SortedSet, "jobs", remember=True)
        for _ in range(2):
            jobs.add_many(URLS, 5)
        score = 4 if "lt" in flags else 6
        assert jobs.add_many(URLS, score, **flags).updated == len(URLS)
        assert jobs.add(URLS[0], score - 10 if "lt" in flags else 16, **flags) is not None


# --- its answers


@pytest.mark.usefixtures("lasting")
@each
@faces
def test_known_answers_without_a_round_trip(
    any_server: servers.Server, any_implementation: str, face: Any, options: Any
) -> None:
    with face(any_server) as (make, requests):
        jobs = make(SortedSet, "jobs", **options)
        assert jobs.known(URLS[0]) is None
        jobs.add_many(URLS[:100])
        jobs.add_many(URLS[:100])
        requests.clear()
        assert [jobs.known(url) for url in URLS[90:110]] == [True] * 10 + [None] * 10
        assert jobs.known(Key(URLS[5])) is True
        # Another object has made no check.
        assert make(SortedSet, "jobs", **options).known(URLS[0]) is None
        assert requests == []
        renewed(jobs)  # the check is too old
        assert jobs.known(URLS[0]) is None
        jobs.add_many(URLS[:100])
        assert jobs.known(URLS[0]) is True
        jobs.forget(URLS[0])
        assert jobs.known(URLS[0]) is None
        jobs.add_many(URLS[1:100])
        assert jobs.known(URLS[1]) is True
        jobs.clear()
        assert jobs.known(URLS[1]) is None


@pytest.mark.usefixtures("lasting")
def test_a_writer_and_its_set_share_the_known_table(any_server: servers.Server) -> None:
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs", remember=True)
    for _ in range(2):
        with jobs.buffered() as writer:
            for url in URLS[:100]:
                writer.add(url)
    assert jobs.known(URLS[7]) is True and jobs.known("new") is None


@pytest.mark.parametrize("options", [{}, {"key": str}, {"remember": True, "known_max": 0}], ids=str)
def test_a_set_without_a_table_returns_none_from_known(
    make_set: Callable[..., Any], options: Any
) -> None:
    jobs = make_set(**options)
    jobs.add_many(URLS[:100])
    jobs.add_many(URLS[:100])
    assert jobs.known(URLS[0]) is None
    with pytest.raises(ValueError, match="surrogates not allowed"):
        jobs.known("\ud800")


def test_a_generic_client_has_no_known_table(any_server: servers.Server) -> None:
    client = servers.Generic(any_server.client())
    jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True)
    jobs.add_many(URLS[:100])
    jobs.add_many(URLS[:100])
    assert jobs.known(URLS[0]) is None


# --- entries that it must not hold


@pytest.mark.usefixtures("lasting")
@each
@faces
def test_an_item_added_with_remember_false_is_not_learned(
    any_server: servers.Server, any_implementation: str, face: Any, options: Any
) -> None:
    with face(any_server) as (make, _):
        jobs = make(SortedSet, "jobs", **options)
        jobs.add_many(URLS[:50])
        for start, flags in ((100, {}), (200, {"nx": True}), (300, {"again": True})):
            jobs.add_many(URLS[:50])  # the table is in use
            new = URLS[start : start + 51]
            assert jobs.add_many(new[:50], remember=False, **flags).added == 50
            assert jobs.add(new[50], remember=False, **flags) == 0
            assert jobs.known(URLS[0]) is True
            assert [jobs.known(url) for url in new] == [None] * 51
        assert len(jobs.take(500)) == 50 + 3 * 51
        assert jobs.add_many(URLS[:351]) == (301, 0, 50, 0)


@pytest.mark.usefixtures("lasting")
def test_a_queued_item_that_is_not_known_is_not_learned(
    any_server: servers.Server, any_implementation: str
) -> None:
    client = any_server.client()
    for remember in (True, 3600):
        any_server.flush()
        SortedSet(client, "jobs").add_many(URLS[:40])
        jobs: SortedSet[str] = SortedSet(client, "jobs", remember=remember)
        jobs.add("first")
        for _ in range(3):
            assert jobs.add_many([*URLS[:40], "first"], nx=True) == (0, 0, 41, 0)
        table = jobs._ctx.memory.trust.table
        assert len(table) == (0 if remember is True else 1)
        assert jobs.take(40)
        jobs.take(40)
        # They never were accepted by this memory: now they are new.
        assert jobs.add_many([*URLS[:40], "first"], nx=True) == (40, 0, 1, 0)
        assert jobs.add_many([*URLS[:40], "first"], nx=True) == (0, 0, 41, 0)
        assert len(table) >= 40
    client.close()


@pytest.mark.usefixtures("lasting")
def test_a_leased_item_that_is_not_known_is_not_learned(
    any_server: servers.Server, any_implementation: str
) -> None:
    client = any_server.client()
    for remember in (True, 3600):
        any_server.flush()
        plain: SortedSet[str] = SortedSet(client, "jobs")
        plain.add_many(URLS[:40])
        batch = plain.lease(40)
        jobs: SortedSet[str] = SortedSet(client, "jobs", remember=remember)
        jobs.add("first")
        for _ in range(3):
            # Under nx a leased item counts as queued.
            assert jobs.add_many([*URLS[:40], "first"], nx=True) == (0, 0, 41, 0)
        assert len(jobs._ctx.memory.trust.table) == (0 if remember is True else 1)
        assert plain.ack(list(batch)) == 40
        assert jobs.add_many([*URLS[:40], "first"], nx=True) == (40, 0, 1, 0)
        # A known item is refused, leased or not, and learned.
        leases = list(jobs.lease(20))
        for _ in range(3):
            assert jobs.add_many(URLS[:40]) == (0, 0, 40, 0)
            assert jobs.add_many(URLS[:40], nx=True) == (0, 0, 40, 0)
        assert len(jobs._ctx.memory.trust.table) >= 40
        assert jobs.ack(leases) == 20
    client.close()


@pytest.mark.usefixtures("lasting")
def test_an_acknowledgement_with_new_items_asks_the_server(
    any_server: servers.Server, any_implementation: str
) -> None:
    """A table may be a second old, and an item that it hides wrongly would be lost."""
    client = any_server.client()
    jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True)
    jobs.add("page", -1)
    for _ in range(3):
        jobs.add_many(URLS)
    for found in (URLS[:20], URLS):
        jobs.add("page", -1, again=True)
        leases = list(jobs.lease())
        # As on a server that was set back: it has forgotten them, and no check could show it.
        jobs.discard_many(URLS)
        assert jobs.add_many(URLS[:100]).refused == 100
        any_server.raw.delete(*any_server.raw.keys(f"{P}:seen:*"))
        any_server.raw.hset(f"{P}:meta", mapping={"level": 0, "split": 0, "count": 0})
        assert jobs.ack(leases, add=found) == 1
        assert jobs.size() == len(found)
        jobs.take(len(URLS))
    client.close()


@pytest.mark.parametrize(
    ("forgotten", "again"),
    [(how, again) for how in ("", "deleted", "forgotten") for again in (True, False)],
)
def test_a_writer_acknowledges_only_after_the_server_knows_its_items(
    any_server: servers.Server, any_implementation: str, forgotten: str, again: bool
) -> None:
    """The hyperlinks of a page that the table refused: only if the server still knows them."""
    client = any_server.client()
    jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True)
    jobs.add_many(["page", "page before"], [-2, -1])
    leases = list(jobs.lease(2))
    for _ in range(3):
        jobs.add_many(URLS)
    jobs.discard_many(URLS)
    with jobs.buffered(max_delay=0) as writer:
        if again:  # It has acknowledged before: from then on the server is asked.
            writer.ack(leases[1])
        for url in URLS[:20]:
            writer.add(url)
        if not again:  # They are refused by the table.
            while writer._pending() > 0:
                time.sleep(0.001)
            assert jobs.size() == 0 and writer._result.refused == 20
        if forgotten:  # As by another process: no check could show it.
            any_server.raw.delete(*any_server.raw.keys(f"{P}:seen:*"))
            if forgotten == "forgotten":
                any_server.raw.hset(f"{P}:meta", mapping={"level": 0, "split": 0, "count": 0})
                any_server.raw.hincrby(f"{P}:meta", "forgets", 1)
            if again:
                for url in URLS[:20]:
                    writer.add(url)
        writer.ack(leases[0])
    queued = {lease.item for lease in jobs.lease(50)}
    if not forgotten:
        assert queued == set()
    elif again:
        assert queued == set(URLS[:20])
    else:
        assert queued == {"page"}  # It comes once more, and finds them again.
    client.close()


@pytest.mark.parametrize("key", [None, str])
def test_a_limited_item_is_known_no_longer_than_on_the_server(
    any_server: servers.Server, any_implementation: str, key: Any, load: Load
) -> None:
    clients = [any_server.client(), any_server.client()]
    life = load.seconds(0.8)
    options: dict[str, Any] = {"remember": life, "key": key}
    asking: SortedSet[str] = SortedSet(clients[0], "jobs", **options, known_max=0)
    jobs: SortedSet[str] = SortedSet(clients[1], "jobs", **options)
    assert jobs.add("first", 1) == 1
    items = [f"item-{number}" for number in range(40)]
    began = time.monotonic()
    assert asking.add_many(items).added == 40
    asking.take(100)
    while time.monotonic() < began + life / 3:
        time.sleep(0.01)
    # A refusal has the end of the time, and does not renew it.
    refused = 0
    while (result := jobs.add_many(items)).added == 0:
        refused += 1
        assert result == (0, 0, 40, 0)
        assert time.monotonic() < began + life + load.seconds(2)
    assert time.monotonic() >= began + life
    assert refused > 3
    assert jobs.add_many(items).refused == 40
    table = jobs._ctx.memory.trust.table
    assert all(table.knows(_digest(item), began + life) for item in items)
    late = time.monotonic() + life + 1
    assert not any(table.knows(_digest(item), late) for item in items)
    for client in clients:
        client.close()


def _digest(item: str) -> bytes:
    from redset._wire import fallback

    return fallback.digest(item.encode())


@each
@faces
def test_an_item_forgotten_in_this_process_is_new_at_once(
    any_server: servers.Server, any_implementation: str, face: Any, options: Any
) -> None:
    with face(any_server) as (make, _), recording(any_server) as (make_other, _):
        jobs = make(SortedSet, "jobs", **options)
        other = make_other(SortedSet, "jobs", **options)
        calls: list[Callable[[Any], Any]] = [
            lambda s: s.forget_many(URLS),
            lambda s: [s.forget(url) for url in URLS[:3]],
            lambda s: s.discard_many(URLS, forget=True),
            lambda s: s.discard(URLS[0], forget=True),
            lambda s: s.clear(),
        ]
        for call in calls:
            for by in (jobs, other):
                for s in (jobs, other, jobs, other):
                    s.add_many(URLS)
                    s.add(URLS[0])
                call(by)
                # Asked of one whose table might be another one.
                assert other.add(URLS[0], again=False) is not None
                assert jobs.add(URLS[0]) is None


def test_an_item_forgotten_with_its_dead_letter_is_new_at_once(
    any_server: servers.Server, any_implementation: str
) -> None:
    client = any_server.client()
    jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True, max_attempts=1)
    jobs.add("bad")
    for _ in range(3):
        jobs.add_many(URLS[:20])
    assert jobs.fail(list(jobs.lease(1)), "no such page") == 1
    assert jobs.add("bad") is None
    assert jobs.dead.purge(forget=True) == 1
    assert jobs.add("bad") == 0
    client.close()


@pytest.mark.parametrize(
    "code", ["jobs.forget('a')", "jobs.discard('a', forget=True)", "jobs.clear()"]
)
def test_an_item_forgotten_in_another_process_is_new_within_about_a_second(
    any_server: servers.Server, any_implementation: str, code: str, load: Load
) -> None:
    client = any_server.client()
    jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True)
    jobs.add_many(["a", "b"])
    for _ in range(10):
        assert jobs.add("a") is None
    servers.elsewhere(any_server, code)
    start = time.monotonic()
    while jobs.add("a") is None:
        assert time.monotonic() < start + load.seconds(1.5)
    assert jobs.add("b") == (0 if "clear" in code else None)
    client.close()


def test_an_item_forgotten_in_another_process_is_new_to_the_next_check(
    any_server: servers.Server, any_implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check finds another count of forgettings, so the old table answers no more."""
    # It asks about the entries learned last, and not about this one.
    monkeypatch.setattr(known_tables, "RANDOM", 0)
    with any_server.client() as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True)
        jobs.add("before")
        assert jobs.forget("before")
        for _ in range(3):
            jobs.add_many(URLS[:100])
        servers.elsewhere(any_server, f"jobs.forget({URLS[0]!r})")
        renewed(jobs)
        assert jobs.add_many(URLS[:100]) == AddResult(0, 1, 99, 0)


@pytest.mark.usefixtures("lasting")
def test_an_add_that_was_sent_before_a_forget_teaches_nothing(
    any_server: servers.Server, any_implementation: str
) -> None:
    """By hand: between an add's answer and its learning another thread forgets."""
    client = any_server.client()
    jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True)
    jobs.add_many(URLS[:20])
    jobs.add_many(URLS[:20])
    learn = known.learn

    def late(*args: Any) -> Any:
        assert SortedSet(client, "jobs", remember=True).forget("late")
        return learn(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("redset._operations.known.learn", late)
        assert jobs.add("late") == 0
    assert jobs.add("late", 5) == 5
    client.close()


def test_threads_that_add_and_forget_see_the_true_memory(
    any_server: servers.Server, any_implementation: str
) -> None:
    client = any_server.client()
    jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True)
    stop = time.monotonic() + 0.7
    errors: list[BaseException] = []

    def work(own: int) -> None:
        try:
            number = 0
            while time.monotonic() < stop:
                number += 1
                items = [f"{own}-{number}-{each}" for each in range(20)]
                assert jobs.add_many(items) == (20, 0, 0, 0)
                assert jobs.add_many(items * 2) == (0, 0, 40, 0)
                assert jobs.add(items[1]) is None
                if own < 2:
                    assert jobs.forget(items[0])
                    assert jobs.add(items[0], 3) == 3
                    assert jobs.discard_many(items, forget=True) == 20
                    assert list(jobs.add_new(items)) == items
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(own,), daemon=True) for own in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    client.close()


# --- when it is trusted


@pytest.mark.parametrize("noticed", [True, False])
def test_after_a_restart_from_an_old_dump_lost_items_are_new(
    all_servers: servers.Servers, any_implementation: str, noticed: bool
) -> None:
    for kind in servers.REAL:
        with servers.start(kind) as server:
            client = server.client()
            jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True)
            jobs.add_many(URLS[:20])
            server.raw.save()
            assert jobs.add_many([*URLS[:20], "late"]).added == 1
            assert jobs.add("late") is None
            server.kill()
            server._start()
            if noticed:
                jobs.size()  # It is noticed here that the connection is gone.
                assert jobs.add("late") == 0
            else:
                assert jobs.add_many([*URLS[:20], "late", "new"]) == (2, 0, 20, 0)
            assert jobs.add_many(URLS[:20]).refused == 20
            client.close()


@pytest.mark.usefixtures("lasting")
@faces
def test_a_lost_connection_ends_the_trust(
    any_server: servers.Server, any_implementation: str, face: Any
) -> None:
    with face(any_server) as (make, requests):
        jobs = make(SortedSet, "jobs", remember=True)
        for _ in range(3):
            jobs.add_many(URLS[:20])
        requests.clear()
        assert jobs.add_many(URLS[:20]).refused == 20
        assert requests == []
        any_server.raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with contextlib.suppress(redis.ConnectionError):  # without retries
            jobs.size()
        requests.clear()
        face_of(jobs)._ctx.memory.next_check = 0.0
        assert jobs.add_many(URLS[:20]).refused == 20
        assert set(sent(requests)) == {"check_memory"}


@pytest.mark.usefixtures("lasting")
def test_a_connection_that_another_user_of_the_pool_opened_ends_the_trust(
    any_server: servers.Server,
) -> None:
    with recording(any_server) as (make, requests):
        jobs = make(SortedSet, "jobs", remember=True)
        for _ in range(3):
            jobs.add_many(URLS[:20])
        pool = jobs.redis.connection_pool
        first, second = pools.get_connection(pool), pools.get_connection(pool)
        pool.release(first)
        pool.release(second)
        jobs._ctx.memory.next_check = 0.0
        requests.clear()
        jobs.add_many(URLS[:20])
        jobs.add_many(URLS[:20])
        # Twice where the first went over the new one, which redset had not used before.
        assert set(sent(requests)) == {"check_memory"} and len(sent(requests)) <= 2
        requests.clear()
        assert jobs.add_many(URLS[:20]).refused == 20
        assert requests == []


@pytest.mark.usefixtures("lasting")
@faces
def test_a_connection_of_another_client_ends_the_trust(
    any_server: servers.Server, any_implementation: str, face: Any
) -> None:
    with face(any_server) as (make, requests):
        jobs = make(SortedSet, "jobs", remember=True)
        for _ in range(3):
            jobs.add_many(URLS[:20])
        client = any_server.client()
        consuming: SortedSet[str] = SortedSet(client, "jobs", remember=True)
        assert consuming.size() == 20
        renewable = face_of(jobs)
        renewable._ctx.memory.next_check = 0.0
        requests.clear()
        for _ in range(3):
            assert jobs.add_many(URLS[:20]).refused == 20
        assert sent(requests) == ["check_memory"]
        consuming.redis.connection_pool.disconnect()
        assert consuming.size() == 20
        renewable._ctx.memory.next_check = 0.0
        requests.clear()
        assert jobs.add_many(URLS[:20]).refused == 20
        assert sent(requests) == ["check_memory"]
        client.close()


def test_it_is_trusted_for_a_second(any_server: servers.Server, load: Load) -> None:
    client = any_server.client()
    jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True)
    for _ in range(20):
        for _ in range(2):
            jobs.add_many(URLS[:20])
        start = jobs._ctx.memory.trust.since
        # A change that no check sees: the table answers as long as it is trusted, and no longer.
        any_server.raw.flushall()
        told = jobs.add(URLS[0])
        if time.monotonic() < start + 1:  # else the machine stood still, and it proves nothing
            break
    assert told is None
    start = jobs._ctx.memory.trust.since
    while jobs.add(URLS[0]) is None:
        assert time.monotonic() < start + load.seconds(1.5)
    client.close()


@pytest.mark.parametrize("protocol", [2, 3])
def test_without_info_there_is_no_known_table(
    any_server: servers.Server, any_implementation: str, protocol: int
) -> None:
    any_server.raw.execute_command(
        "ACL", "SETUSER", "blind", "on", "nopass", "~*", "+@all", "-info"
    )
    client = any_server.client(username="blind", password="x", protocol=protocol)
    jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True)
    for _ in range(3):
        jobs.add_many(URLS[:20])
    assert jobs._ctx.memory.trust is None
    any_server.raw.delete(f"{P}:meta", *any_server.raw.keys("*seen*"))
    assert jobs.add_many(URLS[:20]).updated == 20
    client.close()
    any_server.raw.execute_command("ACL", "DELUSER", "blind")


def test_a_generic_client_has_no_table(any_server: servers.Server) -> None:
    client = servers.Recording(any_server.client(protocol=2))
    jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True)
    for _ in range(3):
        assert jobs.add_many(URLS[:20]).refused in (0, 20)
    assert [args[0] for args in client.sent].count("EVALSHA") >= 3
    assert all(script("check_memory").sha not in args for args in client.sent)


def put_back(raw: redis.Redis, dump: dict[bytes, bytes]) -> None:
    for key in servers.keys(raw):
        if key not in dump:
            raw.delete(key)
    for key, value in dump.items():
        raw.restore(key, 0, value, replace=True)


def flush_and_put_back(raw: redis.Redis, dump: dict[bytes, bytes]) -> None:
    raw.flushall()
    put_back(raw, dump)


def swap(raw: redis.Redis, dump: dict[bytes, bytes]) -> None:
    raw.execute_command("SELECT", 1)
    put_back(raw, dump)
    raw.execute_command("SELECT", 0)
    raw.execute_command("SWAPDB", 0, 1)


def delete_the_memory(raw: redis.Redis, dump: dict[bytes, bytes]) -> None:
    raw.delete(*raw.keys("*:seen*"))


def delete_half_of_the_buckets(raw: redis.Redis, dump: dict[bytes, bytes]) -> None:
    buckets = sorted(raw.keys("*:seen*"))
    raw.delete(*buckets[::2])


@pytest.mark.parametrize(
    "how", [put_back, flush_and_put_back, swap, delete_the_memory, delete_half_of_the_buckets]
)
@each
def test_a_change_of_the_memory_by_hand_is_seen_at_the_next_check(
    any_server: servers.Server, any_implementation: str, options: dict[str, Any], how: Any
) -> None:
    raw = any_server.client(single_connection_client=True)
    producer = any_server.client()
    jobs: SortedSet[str] = SortedSet(producer, "jobs", **options)
    jobs.add_many(URLS[:600])
    dump = servers.everything(raw)
    jobs.add_many(URLS[600:])
    for _ in range(2):
        assert jobs.add_many(URLS).refused == len(URLS)
    assert len(jobs._ctx.memory.trust.table) == len(URLS)
    raw.delete(jobs._ctx.keys.queue, jobs._ctx.keys.items)
    how(raw, dump)
    renewed(jobs)
    lost = 600 if how in (put_back, flush_and_put_back, swap) else 1
    assert jobs.add_many(URLS).added >= lost
    asking: SortedSet[str] = SortedSet(raw, "jobs", known_max=0, **options)
    assert asking.add_many(URLS).added == 0
    # And a table that another object of this process had is not trusted either.
    assert jobs.add_many(URLS).refused == len(URLS)
    raw.close()
    producer.close()


def test_growth_forgetting_and_expiry_raise_no_false_alarm(any_server: servers.Server) -> None:
    client = any_server.client()
    jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True)
    brief: SortedSet[str] = SortedSet(client, "brief", remember=2.5)
    for each_set in (jobs, brief):
        each_set.add_many(URLS[:100])
    tables = []
    for number in range(1, 12):
        jobs.add_many(f"{number} {each}" for each in range(500))
        renewed(jobs)
        assert jobs.add_many(URLS[:100]).refused == 100
        tables.append((jobs._ctx.memory.trust.table, jobs._ctx.memory.trust.table.generation))
        renewed(brief)
        brief.add_many(URLS[:100])
    assert len(set(tables)) == 1
    assert brief._ctx.memory.trust.table.generation == 0
    client.close()


def test_a_replica_is_not_trusted(any_server: servers.Server) -> None:
    with servers.start(any_server.kind) as replica:
        client = any_server.client()
        jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True)
        jobs.add_many(URLS[:20])
        jobs.add_many(URLS[:20])
        assert jobs._ctx.memory.trust is not None
        replica.raw.execute_command("REPLICAOF", "127.0.0.1", any_server.port)
        while replica.raw.info("replication")["master_link_status"] != "up":
            time.sleep(0.01)
        reading: SortedSet[str] = SortedSet(replica.client(), "jobs", remember=True)
        assert reading._run(known.check_memory(reading._ctx)) is None
        client.close()


@needs_fork
def test_a_forked_child_starts_empty(any_server: servers.Server, any_implementation: str) -> None:
    client = any_server.client()
    jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True)
    for _ in range(2):
        jobs.add_many(URLS[:20])
    table = jobs._ctx.memory.trust.table

    def work() -> None:
        assert jobs.add_many(URLS[:20]).refused == 20
        jobs._ctx.memory.next_check = 0.0
        assert jobs.add_many(URLS[:20]).refused == 20
        assert jobs._ctx.memory.trust.table is not table
        jobs.forget(URLS[0])
        assert len(table) == 20

    with children.forked(work) as child:
        child.result()
    # The child forgot it: seen here with the next check.
    renewed(jobs)
    assert jobs.add_many(URLS[:20]) == (0, 1, 19, 0)
    client.close()
