"""Programs of 0.5.1 run unchanged on the same keys and bytes, and its errors are mended."""

from __future__ import annotations

import collections
import contextlib
import json
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
import redis
import servers
from servers import Recording

import redset
import redset.exceptions
import redset.interfaces
import redset.locks
import redset.serializers
import redset.sets
from redset import ScheduledSet, SortedSet, TimeSortedSet
from redset.serializers import JSONSerializer, NamedtupleSerializer

SETS = [SortedSet, TimeSortedSet, ScheduledSet]

Task = collections.namedtuple("Task", "name tries")


class Page(NamedTuple):
    url: str
    depth: int = 0


# Serializer, then (item, the bytes that 0.5.1 stored for it, the decoded item).
STORED: dict[str, tuple[Any, list[tuple[Any, bytes, Any]]]] = {
    "none": (
        None,
        [
            ("text", b"text", "text"),
            ("", b"", ""),
            ("0", b"0", "0"),
            (b"bytes", b"bytes", "bytes"),
            ("é 漢字 🎉", "é 漢字 🎉".encode(), "é 漢字 🎉"),
            ("two\r\nlines\0", b"two\r\nlines\0", "two\r\nlines\0"),
            (7, b"7", "7"),
            (-(2**70), b"-1180591620717411303424", "-1180591620717411303424"),
            (0.1, b"0.1", "0.1"),
            (1e22, b"1e+22", "1e+22"),
            (-0.0, b"-0.0", "-0.0"),
            (None, b"None", "None"),
            (True, b"True", "True"),
            (Decimal("1.10"), b"1.10", "1.10"),
            (
                uuid.UUID(int=255),
                b"00000000-0000-0000-0000-0000000000ff",
                "00000000-0000-0000-0000-0000000000ff",
            ),
        ],
    ),
    "json": (
        json,
        [
            (item, stored, item)
            for item, stored in [
                ({"b": 1, "a": [None, 1.5]}, b'{"b": 1, "a": [null, 1.5]}'),
                ("é", b'"\\u00e9"'),
                ("", b'""'),
                (0, b"0"),
                (1e-07, b"1e-07"),
                (None, b"null"),
                (False, b"false"),
                ([], b"[]"),
                (float("inf"), b"Infinity"),
            ]
        ],
    ),
    "namedtuples": (
        NamedtupleSerializer(Task),
        [
            (Task("larry é", 1), b'{"name": "larry \\u00e9", "tries": 1}', Task("larry é", 1)),
            (Task(None, [2]), b'{"name": null, "tries": [2]}', Task(None, [2])),
        ],
    ),
    "typed namedtuples": (
        NamedtupleSerializer(Page),
        [(Page("/a"), b'{"url": "/a", "depth": 0}', Page("/a"))],
    ),
}


# Commands of 0.5.1 for its calls, by a client that any redis-py can be.


def old_add(raw: redis.Redis, name: str, member: bytes, score: float) -> None:
    raw.execute_command("ZADD", name, repr(score), member)


def old_take(raw: redis.Redis, name: str, num: int) -> list[bytes]:
    found, _ = raw.pipeline().zrange(name, 0, num - 1).zremrangebyrank(name, 0, num - 1).execute()
    return list(found)


def server_time(raw: redis.Redis) -> float:
    seconds, micros = raw.time()
    return float(seconds + micros / 1e6)


# --- the same surface


@pytest.mark.parametrize("cls", SETS)
def test_the_constructor_takes_its_arguments_by_position_and_by_name(
    client: Any, cls: type[SortedSet[Any]]
) -> None:
    def scorer(item: Any) -> int:
        return 5

    by_position = cls(client, "jobs", scorer, json, 3, 4)
    by_name = cls(
        redis_client=client,
        name="jobs",
        scorer=scorer,
        serializer=json,
        lock_timeout=3,
        lock_expires=4,
    )
    for jobs in (by_position, by_name):
        assert jobs.name == "jobs"
        assert jobs.redis is client
        assert jobs.scorer is scorer
        assert jobs.serializer is json
        assert (jobs.lock.timeout, jobs.lock.expires) == (3, 4)
    by_position.add({"a": 1})
    assert by_name.score({"a": 1}) == 5


def test_methods_take_their_arguments_by_name(make_set: Callable[..., Any]) -> None:
    jobs = make_set()
    assert jobs.add(item="b", score=2) == 2
    assert jobs.add(item="a") == 0
    assert jobs.score(item="b") == 2
    assert jobs.score("c") is None
    assert jobs.peek() == jobs.peek(position=0) == "a"
    assert jobs.peek(1) == "b"
    assert jobs.peek_score() == 0
    assert len(jobs) == 2
    assert "a" in jobs
    assert "c" not in jobs
    assert jobs.discard(item="a") is True
    assert jobs.discard("a") is False
    assert jobs.take(num=5) == ["b"]
    assert jobs.peek_score() is None
    assert jobs.take(0) == []
    jobs.add("a")
    assert jobs.clear()
    assert not jobs.clear()


def test_a_number_to_take_is_whatever_int_takes(make_set: Callable[..., Any]) -> None:
    jobs = make_set()
    jobs.add_many(["a", "b", "c", "d"], range(4))
    assert jobs.take("2") == ["a", "b"]
    assert jobs.take(1.9) == ["c"]
    assert jobs.take(-1) == jobs.take("0") == []


def test_an_empty_set_has_no_item_to_give(make_set: Callable[..., Any]) -> None:
    for cls in SETS:
        jobs = make_set(cls)
        for call in (jobs.pop, jobs.peek, lambda jobs=jobs: jobs.peek(3)):
            with pytest.raises(KeyError):
                call()
        assert jobs.take(3) == []
        assert jobs.peek_score() is None
        assert len(jobs) == 0


def test_an_item_that_is_added_again_is_moved(make_set: Callable[..., Any]) -> None:
    jobs = make_set()
    jobs.add("a", 1)
    jobs.add("b", 2)
    assert jobs.add("a", 3) == 3
    assert jobs.take(5) == ["b", "a"]


def test_available_counts_what_is_due(make_set: Callable[..., Any], raw: Any) -> None:
    later = make_set(ScheduledSet)
    now = server_time(raw)
    later.add("tomorrow", now + 86400)
    later.add("past", now - 60)
    later.add("now")
    assert (later.available(), len(later)) == (2, 3)
    assert later.peek() == "past"
    assert later.peek_score() == now - 60
    assert later.take(5) == ["past", "now"]
    with pytest.raises(KeyError):
        later.pop()
    assert (later.available(), len(later)) == (0, 1)


@pytest.mark.parametrize("cls", [TimeSortedSet, ScheduledSet])
def test_time_sets_are_first_in_first_out_and_take_a_scorer_by_name(
    make_set: Callable[..., Any], cls: type[SortedSet[Any]]
) -> None:
    jobs = make_set(cls)
    before = time.time()
    for item in ("b", "a", "c"):
        assert before - 60 < jobs.add(item) < time.time() + 60
    assert [jobs.pop(), jobs.pop(), jobs.pop()] == ["b", "a", "c"]
    backwards = make_set(cls, scorer=lambda item: 100 - int(item), serializer=None)
    for item in (1, 2, 3):
        assert backwards.add(item) == 100 - item
    assert backwards.take(3) == ["3", "2", "1"]


@pytest.mark.parametrize("cls", SETS)
def test_scorer_and_serializer_are_there_to_be_used(
    server_client: redis.Redis, cls: type[SortedSet[Any]]
) -> None:
    jobs = cls(server_client, "jobs")
    assert jobs.serializer.loads(jobs.serializer.dumps("é")) == "é"
    expected = 0 if cls is SortedSet else time.time()
    assert jobs.scorer("a") == pytest.approx(expected, abs=60)


def test_scorer_and_serializer_may_be_reassigned(make_set: Callable[..., Any], raw: Any) -> None:
    jobs = make_set()
    jobs.add(["a"])
    jobs.serializer, jobs.scorer = json, len
    jobs.add(["a"])
    assert raw.zrange("jobs", 0, -1, withscores=True) == [(b"['a']", 0.0), (b'["a"]', 1.0)]
    assert jobs.take(1) == []  # its quotes are not JSON's
    assert jobs.take(1) == [["a"]]


def test_the_lock_of_a_set_is_a_key_beside_it(make_set: Callable[..., Any], raw: Any) -> None:
    for name, key in (("jobs", b"jobs__lock"), (b"\xff", b"\xff__lock"), ("{a}", b"{a}__lock")):
        jobs = make_set(name=name, lock_timeout=0)
        with jobs.lock:
            assert servers.keys(raw) == [key]
            with (
                pytest.raises(redset.exceptions.LockTimeout),
                make_set(name=name, lock_timeout=0).lock,
            ):
                pytest.fail("two hold it")
            # It is the caller's: the set's own calls do not wait for it.
            jobs.add("a")
            assert jobs.pop() == "a"
        assert servers.keys(raw) == []
    assert (make_set().lock.timeout, make_set().lock.expires) == (10, 20)


def test_modules_have_the_names_of_old() -> None:
    starred: dict[str, Any] = {}
    exec("from redset.sets import *", starred)
    for cls in SETS:
        assert getattr(redset, cls.__name__) is getattr(redset.sets, cls.__name__) is cls
        assert starred[cls.__name__] is cls
    assert issubclass(ScheduledSet, TimeSortedSet)
    assert issubclass(TimeSortedSet, SortedSet)
    assert redset.locks.LockTimeout is redset.exceptions.LockTimeout
    assert issubclass(redset.exceptions.LockTimeout, Exception)
    assert issubclass(NamedtupleSerializer, redset.interfaces.Serializer)
    assert redset.__version__ > "0.5.1"
    lock = redset.locks.Lock(redis.Redis(), "lock", 1, 2, 3)
    assert (lock.expires, lock.timeout, lock.poll_interval) == (1, 2, 3)


def test_a_serializer_with_one_method_alone_may_be_subclassed(
    make_set: Callable[..., Any], raw: Any
) -> None:
    class Upper(redset.interfaces.Serializer):
        def dumps(self, obj: str) -> str:
            return obj.upper()

    class Reversed(redset.interfaces.Serializer):
        def loads(self, data: str) -> str:
            return data[::-1]

    make_set(serializer=Upper()).add("abc")
    assert raw.zrange("jobs", 0, -1) == [b"ABC"]
    assert make_set(serializer=Upper()).peek() == "ABC"
    assert make_set(serializer=Reversed()).peek() == "CBA"
    make_set(serializer=Reversed()).add("abc")
    assert raw.zrange("jobs", 0, -1) == [b"ABC", b"abc"]


# --- the same bytes


@pytest.mark.parametrize("kind", STORED)
def test_items_that_0_5_1_stored_are_read(
    make_set: Callable[..., Any], raw: Any, kind: str
) -> None:
    serializer, rows = STORED[kind]
    jobs = make_set(serializer=serializer)
    for score, (_, stored, _) in enumerate(rows):
        old_add(raw, "jobs", stored, score + 0.25)
    out = [item for _, _, item in rows]
    assert len(jobs) == len(rows)
    assert list(jobs) == out
    for score, (item, _, loaded) in enumerate(rows):
        assert jobs.score(item) == score + 0.25
        assert item in jobs
        assert jobs.peek(score) == loaded
    assert jobs.pop() == out[0]
    assert jobs.take(100) == out[1:]
    for _, stored, _ in rows:
        old_add(raw, "jobs", stored, 1)
    assert all(jobs.discard(item) for item, _, _ in rows)
    assert servers.keys(raw) == []


@pytest.mark.parametrize("bulk", [False, True], ids=["add", "add_many"])
@pytest.mark.parametrize("kind", STORED)
def test_stored_items_are_read_by_0_5_1(
    make_set: Callable[..., Any], raw: Any, kind: str, bulk: bool
) -> None:
    serializer, rows = STORED[kind]
    jobs = make_set(serializer=serializer)
    if bulk:
        jobs.add_many([item for item, _, _ in rows], range(len(rows)))
    else:
        for score, (item, _, _) in enumerate(rows):
            jobs.add(item, score)
    expected = [(stored, float(score)) for score, (_, stored, _) in enumerate(rows)]
    assert raw.zrange("jobs", 0, -1, withscores=True) == expected
    assert servers.keys(raw) == [b"jobs"]
    assert old_take(raw, "jobs", 100) == [stored for _, stored, _ in rows]
    assert servers.keys(raw) == []


def test_scores_are_the_same_to_the_last_bit(make_set: Callable[..., Any], raw: Any) -> None:
    scores = [0.1, 1 / 3, 1e-300, -2.5e200, 2.0**53, 1732500000.1234567, -0.0, 1e21]
    jobs = make_set()
    for number, score in enumerate(scores):
        old_add(raw, "jobs", b"old%d" % number, score)
        jobs.add(f"new{number}", score)
    for number, score in enumerate(scores):
        assert jobs.score(f"old{number}") == raw.zscore("jobs", f"new{number}") == score


def test_old_and_new_producers_and_consumers_share_a_set(
    make_set: Callable[..., Any], raw: Any
) -> None:
    jobs = make_set()
    for number in range(0, 100, 2):
        old_add(raw, "jobs", b"%02d" % number, number)
        jobs.add(f"{number + 1:02}", number + 1)
    # Either moves the other's item.
    old_add(raw, "jobs", b"01", 200)
    jobs.add("00", 100)
    taken = []
    while jobs.size():
        taken += [member.decode() for member in old_take(raw, "jobs", 3)]
        taken += jobs.take(2)
        if jobs:
            taken.append(jobs.pop())
    assert taken == [f"{number:02}" for number in (*range(2, 100), 0, 1)]


def test_old_producers_feed_a_scheduled_set(make_set: Callable[..., Any], raw: Any) -> None:
    later = make_set(ScheduledSet, "later")
    now = server_time(raw)
    old_add(raw, "later", b"past", now - 1.5)
    old_add(raw, "later", b"future", now + 3600.5)
    later.add("next", now + 7200)
    assert later.take(5) == ["past"]
    assert raw.zrange("later", 0, -1) == [b"future", b"next"]


# --- errors of 0.5.1


def test_score_0_is_a_score(make_set: Callable[..., Any], raw: Any) -> None:
    for cls in SETS:
        for zero in (0, 0.0, -0.0, False):
            jobs = make_set(cls, scorer=lambda item: 7)
            assert jobs.add("a", zero) == 0
            assert jobs.add_many(["b"], zero).added == 1
            assert raw.zrange("jobs", 0, -1, withscores=True) == [(b"a", 0.0), (b"b", 0.0)]
            jobs.clear()
    assert make_set(scorer=lambda item: 0).add("a") == 0


@pytest.mark.parametrize("item", [0, "", False, None, [], {}], ids=repr)
def test_a_falsy_item_is_an_item(make_set: Callable[..., Any], item: Any) -> None:
    for cls in SETS:
        jobs = make_set(cls, serializer=json)
        jobs.add(item, 1)
        assert jobs.peek() == item
        assert jobs.pop() == item
        jobs.add(item, 1)
        assert jobs.take(2) == [item]
        with pytest.raises(KeyError):
            jobs.pop()


def test_an_undecodable_member_loses_neither_itself_nor_its_batch(
    make_set: Callable[..., Any], raw: Any
) -> None:
    for cls in SETS:
        for remove in (lambda jobs: [jobs.pop(), jobs.pop()], lambda jobs: jobs.take(3)):
            raw.flushall()
            for score, member in enumerate([b"[1]", b"{no json", b"[2]"]):
                old_add(raw, "jobs", member, score)
            jobs = make_set(cls, serializer=json)
            assert remove(jobs) == [[1], [2]]
            assert [letter.raw for letter in jobs.dead] == [b"{no json"]


def test_zadd_is_given_score_and_member_as_todays_clients_have_them(
    make_set: Callable[..., Any], raw: Any
) -> None:
    # Both could be taken for the other here.
    assert make_set().add("3", 5) == 5
    assert raw.zrange("jobs", 0, -1, withscores=True) == [(b"3", 5.0)]


@pytest.fixture
def recording(any_server: servers.Server, any_implementation: str) -> Iterator[Recording]:
    with any_server.client(protocol=2) as client:
        yield Recording(client)


@pytest.mark.usefixtures("silent")
def test_peek_of_a_scheduled_set_fetches_one_item(
    any_server: servers.Server, recording: Recording
) -> None:
    later: ScheduledSet[str] = ScheduledSet(recording, "later")
    later.add_many([f"{number:02}" for number in range(50)], range(50))
    later.add("tomorrow", time.time() + 86400)
    for position, expected in ((0, "00"), (1, "01"), (30, "30"), (49, "49"), (-1, "49")):
        recording.answers.clear()
        assert later.peek(position) == expected
        (found,) = (answer for answer in recording.answers if isinstance(answer, list))
        assert found[1][::2] == [expected.encode()]
    for position in (50, -51):
        with pytest.raises(KeyError):
            later.peek(position)


@pytest.mark.usefixtures("silent")
def test_a_scheduled_set_hands_out_in_one_step_and_waits_for_no_lock(
    any_server: servers.Server, recording: Recording
) -> None:
    later: ScheduledSet[str] = ScheduledSet(recording, "later", lock_timeout=0)
    later.add_many(["a", "b", "c", "d"], range(4))
    assert later.pop() == "a"
    any_server.raw.set("later__lock", repr(time.time() + 3600))
    recording.sent.clear()
    assert later.pop() == "b"
    assert later.take(5) == ["c", "d"]
    assert len(recording.sent) == 2
    assert float(any_server.raw.get("later__lock")) > time.time()


def test_consumers_of_a_scheduled_set_get_no_item_twice(
    any_server: servers.Server, any_implementation: str
) -> None:
    # 0.5.1's lock, expired as soon as it is taken, let two consumers in.
    producer = ScheduledSet.from_url(any_server.url, "later")
    items = [f"{number:04}" for number in range(2000)]
    producer.add_many(items, range(2000))
    producer.close()
    taken: list[list[str]] = [[] for _ in range(4)]

    def consume(mine: list[str]) -> None:
        with ScheduledSet.from_url(any_server.url, "later", lock_expires=0) as later:
            while found := later.take(7):
                mine += found
                with contextlib.suppress(KeyError):
                    mine.append(later.pop())

    threads = [threading.Thread(target=consume, args=(mine,), daemon=True) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(item for mine in taken for item in mine) == items
    assert all(mine == sorted(mine) for mine in taken)


@pytest.mark.parametrize("hours", [-5, 5])
def test_the_servers_clock_decides_when_an_item_is_due(
    any_server: servers.Server,
    recording: Recording,
    monkeypatch: pytest.MonkeyPatch,
    hours: int,
) -> None:
    now = server_time(any_server.raw)
    mine = time.time
    monkeypatch.setattr(time, "time", lambda: mine() + hours * 3600)
    later: ScheduledSet[str] = ScheduledSet(recording, "later")
    later.add_many(["past", "future"], [now - 3600, now + 3600])
    assert later.available() == 1
    assert later.peek_many(5) == ["past"]
    assert later.add("now") == pytest.approx(now, abs=60)
    assert later.take(5) == ["past", "now"]
    with pytest.raises(KeyError):
        later.pop()
    assert later.size() == 1


def test_serializers_may_be_binary(make_set: Callable[..., Any], raw: Any) -> None:
    class Compressed:
        def dumps(self, item: str) -> bytes:
            return zlib.compress(item.encode())

        def loads(self, data: bytes) -> str:
            return zlib.decompress(data).decode()

    jobs = make_set(serializer=Compressed())
    jobs.add("aaaa", 1)
    jobs.add("bbbb", 2)
    jobs.add("cccc", 3)
    assert raw.zrange("jobs", 0, 0) == [zlib.compress(b"aaaa")]
    assert "bbbb" in jobs
    assert (jobs.peek(), jobs.peek(1), list(jobs)) == ("aaaa", "bbbb", ["aaaa", "bbbb", "cccc"])
    assert (jobs.pop(), jobs.take(5)) == ("aaaa", ["bbbb", "cccc"])


def test_pop_and_peek_give_a_serializer_the_same(make_set: Callable[..., Any]) -> None:
    class Keeping:
        def __init__(self) -> None:
            self.given: list[Any] = []

        def loads(self, data: Any) -> Any:
            self.given.append(data)
            return data

    keeping = Keeping()
    jobs = make_set(serializer=keeping)
    jobs.add_many(["a", "b", "c"], range(3))
    assert [jobs.peek(), jobs.get("a"), *jobs.peek_many(1), next(iter(jobs)), jobs.pop()] == (
        ["a"] * 5
    )
    assert jobs.take(5) == ["b", "c"]
    assert {type(data) for data in keeping.given} == {str}


def test_lock_times_of_0_are_not_replaced_by_the_defaults(make_set: Callable[..., Any]) -> None:
    for cls in SETS:
        lock = make_set(cls, lock_timeout=0, lock_expires=0).lock
        assert (lock.timeout, lock.expires) == (0, 0)


def test_repr_needs_no_server() -> None:
    nowhere = redis.Redis(unix_socket_path="/nowhere")
    for cls in SETS:
        for jobs in (cls(nowhere, "jobs"), cls(nowhere, b"\xff", key=str)):
            for text in (repr(jobs), str(jobs)):
                assert cls.__name__ in text
                assert repr(jobs.name) in text


def test_the_order_of_a_dicts_keys_makes_no_second_item(make_set: Callable[..., Any]) -> None:
    jobs = make_set(serializer=JSONSerializer())
    jobs.add({"a": 1, "b": {"c": 2, "d": 3}}, 1)
    other = {"b": {"d": 3, "c": 2}, "a": 1}
    assert jobs.add_many([other, other], 2) == (0, 2, 0, 0)
    assert len(jobs) == 1
    assert jobs.score(other) == 2
    assert jobs.discard(other)
