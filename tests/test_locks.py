"""The lock: on every kind of client, among threads, and beside processes of 0.5.1."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import children
import pytest
import redis
import servers
from load import Load
from marks import needs_fork

from redset.exceptions import LockTimeout
from redset.locks import Lock


@pytest.fixture
def implementation() -> None:
    """A lock knows nothing of the two implementations."""


def old_acquire(raw: Any, key: str, expires: float = 20) -> bool:
    """One try of 0.5.1."""
    value = repr(time.time() + expires)
    if raw.setnx(key, value):
        return True
    current = raw.get(key)
    return bool(
        current and float(current) + 0.01 < time.time() and raw.getset(key, value) == current
    )


@pytest.mark.parametrize("key", ["jobs__lock", b"jobs\xff__lock"])
def test_a_lock_is_held_by_one_at_a_time(client: Any, raw: Any, key: Any) -> None:
    with Lock(client, key):
        assert raw.exists(key)
        with pytest.raises(LockTimeout, match="jobs"), Lock(client, key, timeout=0):
            pytest.fail("two hold it")
        assert raw.exists(key)
    assert not raw.exists(key)
    with Lock(client, key, timeout=0):
        pass


def test_the_stored_value_is_an_expiry_time_that_old_processes_read(client: Any, raw: Any) -> None:
    with Lock(client, "lock", expires=30):
        stored = raw.get("lock")
        assert float(stored) == pytest.approx(time.time() + 30, abs=5)
        whole, _, digits = stored.partition(b".")
        assert whole.isdigit()
        assert digits.isdigit()
        assert len(digits) == 21
        assert raw.ttl("lock") == -1
    with Lock(client, "lock", expires=30):
        assert raw.get("lock")[-15:] != stored[-15:]


def test_a_lock_is_never_released_by_a_process_that_lost_it(
    client: Any, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with Lock(client, "lock", expires=0.01):
        time.sleep(0.03)
        other = Lock(client, "lock", timeout=0)
        other.__enter__()
        held = raw.get("lock")
    assert raw.get("lock") == held
    assert [(record.levelno, "'lock'" in record.message) for record in caplog.records] == [
        (logging.WARNING, True)
    ]
    other.__exit__(None, None, None)
    assert not raw.exists("lock")


def test_a_lock_is_released_when_its_work_fails(client: Any, raw: Any) -> None:
    with pytest.raises(ZeroDivisionError), Lock(client, "lock"):
        1 / 0  # noqa: B018
    assert not raw.exists("lock")


def test_an_expired_lock_is_taken_over(client: Any, raw: Any) -> None:
    raw.set("lock", repr(time.time() - 1))
    with Lock(client, "lock", timeout=0):
        assert float(raw.get("lock")) > time.time()


def test_expires_of_0_is_not_replaced_by_the_default(client: Any) -> None:
    with Lock(client, "lock", expires=0):
        time.sleep(0.03)
        with Lock(client, "lock", timeout=0):
            pass


def test_timeout_of_0_tries_once_and_never_waits(client: Any, load: Load) -> None:
    with Lock(client, "lock"):
        began = time.monotonic()
        with pytest.raises(LockTimeout), Lock(client, "lock", timeout=0, poll_interval=60):
            pass
        assert time.monotonic() - began < load.seconds(1)


def test_an_old_process_and_a_new_one_keep_each_other_out(client: Any, raw: Any) -> None:
    assert old_acquire(raw, "lock")
    with pytest.raises(LockTimeout), Lock(client, "lock", timeout=0):
        pass
    raw.delete("lock")
    with Lock(client, "lock"):
        assert not old_acquire(raw, "lock")


def test_old_and_new_processes_take_over_from_each_other(client: Any, raw: Any) -> None:
    assert old_acquire(raw, "lock", expires=-0.02)
    with Lock(client, "lock", expires=0, timeout=0):
        time.sleep(0.03)
        assert old_acquire(raw, "lock")
    assert raw.exists("lock"), "it is the old process's now"


def test_a_lock_with_a_malformed_value_cannot_be_taken(client: Any, raw: Any) -> None:
    raw.set("lock", "mine")
    with pytest.raises(LockTimeout), Lock(client, "lock", timeout=0):
        pass
    assert raw.get("lock") == b"mine"


def test_a_try_that_is_sent_again_gets_the_same_lock(server_client: Any) -> None:
    class Resending:
        def execute_command(self, *args: Any) -> Any:
            server_client.execute_command(*args)
            return server_client.execute_command(*args)

    with Lock(Resending(), "lock", timeout=0):
        assert server_client.exists("lock")
        with pytest.raises(LockTimeout), Lock(server_client, "lock", timeout=0):
            pass
    assert not server_client.exists("lock")


def test_a_waiting_one_gets_the_lock_when_it_is_free(server_client: Any, load: Load) -> None:
    first = Lock(server_client, "lock")
    first.__enter__()
    release = threading.Timer(0.1, server_client.delete, ["lock"])
    began = time.monotonic()
    release.start()
    with Lock(server_client, "lock", timeout=40, poll_interval=0.01):
        assert 0.09 < time.monotonic() - began < load.seconds(2)
    release.join()


def test_waiting_ends_with_the_timeout(server_client: Any, load: Load) -> None:
    with Lock(server_client, "lock"):
        began = time.monotonic()
        with pytest.raises(LockTimeout), Lock(server_client, "lock", timeout=0.1, poll_interval=90):
            pass
        assert 0.09 < time.monotonic() - began < load.seconds(2)


def contend(make: Callable[[], Lock], threads: int, turns: int) -> tuple[int, int]:
    """(turns taken, most threads inside at once)."""
    inside = 0
    most = 0
    taken = 0
    errors: list[BaseException] = []

    def work() -> None:
        nonlocal inside, most, taken
        try:
            lock = make()
            for _ in range(turns):
                with lock:
                    inside += 1
                    most = max(most, inside)
                    time.sleep(0.0005)
                    taken += 1
                    inside -= 1
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not errors, errors
    return taken, most


@pytest.mark.parametrize("shared", [True, False], ids=["one-object", "an-object-each"])
def test_threads_hold_it_one_at_a_time(
    any_server: servers.Server, server_client: Any, shared: bool
) -> None:
    def make() -> Lock:
        return Lock(server_client, "lock", timeout=60, poll_interval=0.001)

    one = make()
    assert contend((lambda: one) if shared else make, threads=6, turns=15) == (90, 1)
    assert not server_client.exists("lock")


def test_threads_take_over_an_expired_lock_one_at_a_time(server_client: Any) -> None:
    for _ in range(20):
        server_client.set("lock", repr(time.time() - 1))
        got = []
        start = threading.Barrier(4)

        def work(start: threading.Barrier = start, got: list[int] = got) -> None:
            lock = Lock(server_client, "lock", timeout=0)
            start.wait()
            try:
                lock.__enter__()
                got.append(1)
            except LockTimeout:
                pass

        workers = [threading.Thread(target=work, daemon=True) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert got == [1]


def test_one_object_in_two_threads_releases_only_what_each_holds(server_client: Any) -> None:
    lock = Lock(server_client, "lock", expires=0.01, timeout=0)
    with lock:
        time.sleep(0.03)
        lock.expires = 30
        other = threading.Thread(target=lock.__enter__, daemon=True)
        other.start()
        other.join()
        held = server_client.get("lock")
    assert server_client.get("lock") == held


def test_a_lock_entered_twice_in_a_thread_waits_like_any_other(server_client: Any) -> None:
    lock = Lock(server_client, "lock", timeout=0)
    with lock:
        with pytest.raises(LockTimeout), lock:
            pass
        assert server_client.exists("lock")
    assert not server_client.exists("lock")


def test_a_lock_that_was_not_entered_is_not_left(server_client: Any) -> None:
    with pytest.raises(RuntimeError, match="not entered"):
        Lock(server_client, "lock").__exit__(None, None, None)


def test_making_a_lock_sends_nothing() -> None:
    lock = Lock(object(), "lock")
    assert (lock.expires, lock.timeout, lock.poll_interval) == (20, 10, 0.2)
    assert repr(lock) == "<Lock 'lock'>"


@pytest.mark.parametrize("name", ["expires", "timeout", "poll_interval"])
@pytest.mark.parametrize("value", [-1, math.nan])
def test_times_that_are_none_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Lock(object(), "lock", **{name: value})


def test_a_lock_cannot_be_held_for_ever() -> None:
    with pytest.raises(ValueError, match="finite"):
        Lock(object(), "lock", expires=math.inf)
    assert Lock(object(), "lock", timeout=math.inf).timeout == math.inf


@pytest.fixture
def wrong_type(server_client: Any) -> Iterator[None]:
    server_client.rpush("lock", 1)
    yield


def test_errors_of_the_server_pass_through(server_client: Any, wrong_type: None) -> None:
    with pytest.raises(redis.ResponseError, match=r"WRONGTYPE|wrong kind"):
        Lock(server_client, "lock", timeout=5).__enter__()


@needs_fork
def test_a_forked_child_does_not_release_its_parents_lock(any_server: servers.Server) -> None:
    lock = Lock(any_server.client(), "lock")
    with lock:

        def work() -> None:
            with pytest.raises(RuntimeError):
                lock.__exit__(None, None, None)

        with children.forked(work) as child:
            child.result()
        assert any_server.raw.exists("lock")
    assert not any_server.raw.exists("lock")
