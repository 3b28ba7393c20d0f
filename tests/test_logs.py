"""Logs: once per process and set, without forged lines; and errors that are not an item's fault."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import servers

from redset import ScheduledSet, SortedSet
from redset._faces import failures
from redset._faces import worker as working
from redset._operations import logs
from redset.exceptions import AddError, DecodeError

Maker = Callable[..., Any]
#: Texts of items that try to forge log lines.
FORGED = "x\n2026-01-01 ERROR root: all is lost\r\x1b[2K\u2028"


class Moody:
    """A serializer that some items are beyond, for several reasons."""

    binary = False

    def __init__(self) -> None:
        #: The error that it raises for any item.
        self.error: Exception | None = None
        self.left = 0

    def dumps(self, item: str) -> str:
        return item

    def loads(self, text: str) -> str:
        if text.startswith("bad"):
            raise ValueError(f"cannot read {text}: {FORGED}")
        if self.error is not None:
            self.left -= 1
            if self.left < 0:
                raise self.error
        return text


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


def test_many_calls_that_meet_what_cannot_be_decoded_log_once(
    make_set: Maker, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "redset")
    for name in ("jobs", "others"):
        for _ in range(2):  # objects
            jobs = make_set(name=name, serializer=Moody())
            for number in range(5):
                raw.zadd(name, {f"bad {number}": 1, f"good {number}": 2, f"last {number}": 3})
                assert jobs.peek_many(3) == [f"good {number}", f"last {number}"]
                assert list(jobs) == [f"good {number}", f"last {number}"]
                assert jobs.pop() == f"good {number}"
                assert jobs.take(3) == [f"last {number}"]
    assert len(lines(caplog)) == 4  # of each set: skipped, and dead
    assert len(lines(caplog, logging.DEBUG)) > 40


def test_the_log_remembers_its_warnings_in_bounded_memory(caplog: pytest.LogCaptureFixture) -> None:
    for number in range(logs._MOST + 10):
        logs.warn_once(f"pages of {number}", "one of %r", number)
    assert len(logs._logged) <= logs._MOST
    assert len(lines(caplog)) == logs._MOST + 10


def test_an_items_text_forges_no_line(
    make_set: Maker, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = make_set(serializer=Moody())
    raw.zadd("jobs", {"bad\none": 1, "good": 2})
    assert list(jobs) == ["good"]
    assert jobs.take(2) == ["good"]
    keyed = make_set(name="keyed", key=str, serializer=Moody())
    keyed.add("a")
    raw.hset("keyed:{keyed}:items", raw.zrange("keyed:{keyed}:keyed", 0, 0)[0], "bad\nother")
    with pytest.raises(KeyError):
        keyed.pop()
    assert keyed.dead.requeue([letter.id for letter in keyed.dead]) == 0
    told = lines(caplog)
    assert len(told) == 4
    assert all(line.isprintable() for line in told)
    assert all("ERROR root" in line for line in told)


def test_a_text_on_one_line_keeps_all_but_line_breaks() -> None:
    assert logs.one_line("näher 'so'") == "näher 'so'"
    assert logs.one_line(FORGED) == "x\\n2026-01-01 ERROR root: all is lost\\r\\x1b[2K\\u2028"


def test_a_finished_set_that_refuses_all_items_is_logged_once(
    make_set: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(4):  # as a set per host, made anew for each page
        pages = make_set(remember=True)
        pages.add_many(["/", "/about"])
        pages.take(10)
    told = "all 2 items were refused: 'jobs' remembers them and its queue is empty"
    assert [line.startswith(told) for line in lines(caplog)] == [True]


def test_skipped_items_are_logged_once_and_quoted(
    make_set: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    class Picky(Moody):
        def dumps(self, item: str) -> str:
            if item.startswith("bad"):
                raise ValueError(item + FORGED)
            return item

    for _ in range(2):
        jobs = make_set(serializer=Picky())
        result = jobs.add_many(["good", *(f"bad {number}" for number in range(300))], errors="skip")
        assert result.failed == 300
    [line] = lines(caplog)
    assert line.startswith("skipped item 1 of an add to 'jobs': 'ValueError: bad 0x\\n2026")
    assert line.isprintable()


#: Errors of the process, not of the item.
ERRORS = [MemoryError(), ConnectionError("no schema today"), ModuleNotFoundError("msgspec")]


@pytest.mark.parametrize("cls", [SortedSet, ScheduledSet])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_that_is_not_the_items_own_makes_no_dead_letters(
    make_set: Maker, raw: Any, cls: Any, error: Exception
) -> None:
    serializer = Moody()
    jobs = make_set(cls, serializer=serializer)
    items = {name: float(place) for place, name in enumerate("abcdef", 1)}
    raw.zadd("jobs", items)
    serializer.error = error
    # A first removal looks, and removes nothing; a later one puts back.
    for looked in (False, True):
        jobs._ctx.codec.proven = looked
        for call in (jobs.pop, lambda: jobs.take(1), lambda: jobs.take(3, with_scores=True)):
            with pytest.raises(type(error)):
                call()
            assert dict(raw.zrange("jobs", 0, -1, withscores=True)) == {
                name.encode(): score for name, score in items.items()
            }
    for call in (jobs.peek, lambda: jobs.peek_many(3), lambda: list(jobs), lambda: jobs.get("a")):
        with pytest.raises(type(error)):
            call()
    serializer.left = 2
    assert jobs.take(6) == ["a", "b"]
    assert raw.zcard("jobs") == 4 and not raw.exists("jobs:{jobs}:dead")
    serializer.error = None
    assert jobs.take(6) == ["c", "d", "e", "f"]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_with_a_key_a_removed_item_is_kept_whatever_the_error(
    make_set: Maker, raw: Any, error: Exception
) -> None:
    serializer = Moody()
    jobs = make_set(key=str, serializer=serializer)
    jobs.add_many(["a", "b", "c"], [1, 2, 3])
    serializer.error = error
    with pytest.raises(type(error)):
        jobs.take(3)  # it looks
    assert jobs.size() == 3
    jobs._ctx.codec.proven = True
    jobs.take(3)
    serializer.error = None
    assert jobs.dead.requeue([letter.id for letter in jobs.dead]) == 3
    assert sorted(jobs.take(3)) == ["a", "b", "c"]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_add_does_not_skip_for_an_error_that_is_not_the_items_own(
    make_set: Maker, error: Exception
) -> None:
    class Tired(Moody):
        def dumps(self, item: str) -> str:
            if item == "c" and self.error is not None:
                raise self.error
            if item == "bad":
                raise ValueError
            return item

    serializer = Tired()
    jobs = make_set(serializer=serializer)
    serializer.error = error
    with pytest.raises(AddError) as caught:
        jobs.add_many(["a", "bad", "c", "d"], errors="skip")
    assert caught.value.__cause__ is error
    assert type(error).__name__ in str(caught.value) or str(error) in str(caught.value)
    assert (caught.value.index, caught.value.item, caught.value.resume_at) == (2, "c", 2)
    assert caught.value.result.failed == 1 and jobs.contains("a")
    serializer.error = None
    jobs.add_many(["c", "d"], errors="skip")
    assert sorted(jobs) == ["a", "c", "d"]


@pytest.mark.parametrize("options", [{}, {"key": str}], ids=str)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_of_the_process_releases_the_leased_items(
    make_set: Maker, error: Exception, options: dict[str, Any]
) -> None:
    serializer = Moody()
    jobs = make_set(serializer=serializer, max_attempts=1, **options)
    jobs.add_many(["a", "b", "c"], [1, 2, 3])
    jobs._ctx.codec.proven = True
    serializer.error = error
    with pytest.raises(type(error)):
        jobs.lease(3)
    assert jobs.size() == 3 and jobs.stats().leased == jobs.dead.size() == 0
    # Decodable items are handed out.
    serializer.left = 1
    assert [lease.item for lease in jobs.lease(3)] == ["a"]
    assert jobs.size() == 2 and jobs.dead.size() == 0
    with pytest.raises(type(error)):
        list(jobs.leased())
    serializer.error = None
    assert [(lease.item, lease.attempts) for lease in jobs.lease(3)] == [("b", 0), ("c", 0)]


def test_consume_goes_on_without_items_that_cannot_be_decoded_now(
    make_set: Maker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "OTHERS", 0.02)

    class Short(Moody):
        def loads(self, text: str) -> str:
            if text == "large":
                self.left += 1
                if self.left < 5:  # when it is looked at first, and leased
                    raise MemoryError
            return text

    jobs = make_set(serializer=Short(), max_attempts=1)
    jobs.add_many(["large", "a", "b"], [1, 2, 3])
    done: list[str] = []
    assert jobs.consume(done.append, until_finished=True) == (3, 0, 0)
    assert sorted(done) == ["a", "b", "large"] and jobs.dead.size() == 0
    [line] = lines(caplog)
    text = "cannot decode items of 'jobs', because of an error of this process; they are released"
    assert line.startswith(text) and line.endswith(repr("MemoryError: "))


def test_consume_ends_if_nothing_can_be_decoded_for_a_minute(
    make_set: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "OTHERS", 0.02)
    assert working.PATIENCE == 60
    monkeypatch.setattr(working, "PATIENCE", 0.1)
    serializer = Moody()
    jobs = make_set(serializer=serializer)
    jobs.add("a")
    serializer.error = ModuleNotFoundError("msgspec")
    with pytest.raises(ModuleNotFoundError):
        jobs.consume(print, until_finished=True)
    assert jobs.dead.size() == 0


def test_an_error_of_a_handler_forges_no_log_line(
    make_set: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = make_set(max_attempts=1)
    jobs.add("a")

    def handler(item: str) -> None:
        raise ValueError(FORGED)

    jobs.consume(handler, until_finished=True)
    jobs.add("b")
    jobs.fail(jobs.lease(), FORGED)
    told = lines(caplog)
    assert len(told) == 3
    assert all(line.isprintable() and "ERROR root" in line for line in told)


def test_own_errors_and_others_of_one_call_go_their_ways(make_set: Maker, raw: Any) -> None:
    serializer = Moody()
    jobs = make_set(serializer=serializer)
    raw.zadd("jobs", {"a": 1, "bad": 2, "b": 3, "c": 4})
    assert jobs.peek() == "a"
    serializer.error, serializer.left = MemoryError(), 5
    assert jobs.take(1) == ["a"]
    jobs._ctx.codec.proven = True
    serializer.left = 1
    assert jobs.take(3) == ["b"]
    assert [letter.raw for letter in jobs.dead] == [b"bad"]
    assert raw.zrange("jobs", 0, -1) == [b"c"]


def test_a_requeue_and_a_restore_raise_errors_of_the_process(
    any_server: servers.Server,
) -> None:
    serializer = Moody()
    jobs: SortedSet[str] = SortedSet(any_server.raw, "jobs", key=str, serializer=serializer)
    jobs.add("a")
    lines = list(jobs.export())
    any_server.flush()
    serializer.error = MemoryError()
    with pytest.raises(MemoryError):
        jobs.restore(lines)
    assert servers.keys(any_server.raw) == []
    serializer.error = None
    jobs.add("b")
    jobs._ctx.codec.proven = True
    any_server.raw.hset(
        "jobs:{jobs}:items", any_server.raw.zrange("jobs:{jobs}:keyed", 0, 0)[0], "bad"
    )
    with pytest.raises((KeyError, DecodeError)):
        jobs.pop()
    [letter] = jobs.dead
    serializer.error = MemoryError()
    with pytest.raises(MemoryError):
        SortedSet(any_server.raw, "jobs", key=str, serializer=Raising()).dead.requeue([letter.id])
    assert jobs.dead.size() == 1


class Raising(Moody):
    def loads(self, text: str) -> str:
        raise MemoryError
