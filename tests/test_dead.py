"""Dead letters: queued again, purged, forgotten."""

from __future__ import annotations

import datetime
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
import servers
from options import every_option, made, once_more

from redset import SortedSet
from redset._operations import settling
from redset.exceptions import OptionsDiffer

Maker = Callable[..., Any]


def bury(jobs: Any, items: list[Any], score: float = 0.0) -> list[str]:
    """Let items die: the set gives up after one attempt. Their letters' ids."""
    before = {letter.id for letter in jobs.dead}
    jobs.add_many(items, score)
    batch = jobs.lease(len(items))
    assert jobs.fail(batch, "no such page") == len(items)
    return [letter.id for letter in jobs.dead if letter.id not in before]


@every_option
def test_a_dead_item_is_queued_again_at_its_score_and_starts_again(
    make_set: Maker, raw: Any, options: dict[str, Any]
) -> None:
    jobs = make_set(**options, max_attempts=1)
    items = [made(options, name) for name in ("a", "b", "c")]
    ids = [id for item in items for id in bury(jobs, [item], 7)]
    assert jobs.size() == 0 and len(ids) == 3
    assert jobs.dead.requeue(ids[:2]) == 2
    assert sorted(map(str, jobs.peek_many(5))) == sorted(map(str, items[:2]))
    assert [letter.id for letter in jobs.dead] == ids[2:]
    assert jobs.score(items[0]) == 7
    leases = list(jobs.lease(5))
    assert [lease.attempts for lease in leases] == [0, 0]
    assert jobs.ack(leases) == 2
    assert jobs.dead.requeue(ids) == 1  # the other letters are gone
    assert jobs.dead.size() == 0 and jobs.take(5) == items[2:]
    assert not raw.exists("jobs:{jobs}:dead")


@every_option
def test_a_dead_letter_stays_if_its_item_is_queued_again(
    make_set: Maker, options: dict[str, Any]
) -> None:
    jobs = make_set(**options, max_attempts=1)
    items = [made(options, name) for name in ("queued", "leased", "gone")]
    ids = [id for item in items for id in bury(jobs, [item])]
    more = once_more(options)
    jobs.add(items[1], 1, **more)
    [lease] = jobs.lease()
    jobs.add(items[0], 2, **more)
    assert jobs.dead.requeue(ids) == 1
    assert [letter.id for letter in jobs.dead] == ids[:2]
    assert jobs.scores(items) == [2.0, None, 0.0]
    assert lease.ack() == 1 and jobs.dead.requeue(ids[1:2]) == 1


def test_more_than_a_step_of_letters(make_set: Maker) -> None:
    jobs = make_set(max_attempts=1)
    items = [f"{number:03}" for number in range(350)]
    ids = bury(jobs, items, 3)
    assert jobs.dead.requeue([*ids, *ids]) == 350
    assert jobs.take(1000) == items


def test_an_undecodable_item_is_queued_again_as_it_was(make_set: Maker) -> None:
    jobs = make_set()
    jobs.add_many(["[1]", "[2"], 5)
    jobs.serializer = json
    assert jobs.take(5) == [[1]]
    [letter] = jobs.dead
    assert (letter.raw, letter.score) == (b"[2", None)
    assert jobs.dead.requeue([letter.id]) == 1
    jobs.serializer = None
    assert jobs.take(5, with_scores=True) == [("[2", 0.0)]


@pytest.mark.parametrize("call", ["take", "lease"])
def test_an_undecodable_payload_comes_back_under_its_key(
    make_set: Maker, call: str, caplog: Any
) -> None:
    jobs = make_set(key="url")
    jobs.add_many([{"url": "a"}, {"url": "b"}], [1, 2])

    class Strict:
        def loads(self, data: Any) -> Any:
            item = json.loads(data)
            if item["url"] == "b":
                raise ValueError("no b")
            return item

        dumps = staticmethod(json.dumps)

    good, jobs.serializer = jobs.serializer, Strict()
    assert len(getattr(jobs, call)(5)) == 1
    [letter] = jobs.dead
    with caplog.at_level(logging.WARNING, "redset"):
        # The payload of an item that pop and take removed must have the key.
        assert jobs.dead.requeue([letter.id]) == (call == "lease")
    assert ("still cannot be decoded" in caplog.text) == (call == "take")
    jobs.serializer = good
    assert jobs.dead.requeue([letter.id]) == (call == "take")
    assert jobs.get({"url": "b"}) == {"url": "b"}
    assert jobs.dead.size() == 0


def test_a_process_with_other_options_queues_nothing(make_set: Maker, raw: Any) -> None:
    keyed, plain = make_set(key="url", max_attempts=1), make_set()
    ids = bury(keyed, [{"url": "a"}])
    with pytest.raises(OptionsDiffer, match="key=yes"):
        plain.dead.requeue(ids)
    raw.zadd("jobs", {"plain": 1})
    with pytest.raises(OptionsDiffer, match="without key="):
        keyed.dead.requeue(ids)
    assert keyed.dead.size() == 1 and raw.zcard("jobs") == 1 and keyed.size() == 0


def test_a_full_set_takes_back_what_died(make_set: Maker) -> None:
    jobs = make_set(max_size=1, max_attempts=1)
    ids = bury(jobs, ["a"])
    jobs.add("b")
    assert jobs.dead.requeue(ids) == 1 and jobs.size() == 2


def test_letters_are_purged_by_their_age_or_a_date(make_set: Maker) -> None:
    jobs = make_set(max_attempts=1)
    utc = datetime.timezone.utc
    for before in (
        datetime.timedelta(hours=1),
        datetime.datetime.now(utc) - datetime.timedelta(hours=1),
        datetime.timedelta.max,
    ):
        jobs.dead.purge()
        bury(jobs, ["a"])
        assert jobs.dead.purge(before=before) == 0
    time.sleep(0.01)
    assert jobs.dead.purge(before=datetime.timedelta(milliseconds=1)) == 1
    bury(jobs, ["a"])
    assert jobs.dead.purge(before=datetime.datetime.now(utc) + datetime.timedelta(1)) == 1
    for wrong in (datetime.datetime(2030, 1, 1), datetime.timedelta(-1)):
        with pytest.raises(ValueError, match="before must be"):
            jobs.dead.purge(before=wrong)


@every_option
def test_purged_letters_are_forgotten_with_forget_true(
    make_set: Maker, options: dict[str, Any]
) -> None:
    if "remember" not in options:
        with pytest.raises(ValueError, match="forget needs a set with remember"):
            make_set(**options).dead.purge(forget=True)
        return
    jobs = make_set(**options, max_attempts=1)
    items = [made(options, str(number)) for number in range(610)]
    bury(jobs, items[:600])
    time.sleep(0.005)
    middle = next(iter(jobs.dead)).time + 1000
    assert jobs.dead.purge(before=middle - 2000, forget=True) == 0
    assert jobs.add(items[0]) is None
    assert jobs.dead.purge(before=middle, forget=True) == 600
    assert jobs.seen_many(items[:600]) == [False] * 600
    assert jobs.add(items[0], 3) == 3.0
    assert jobs.take(5) == items[:1]
    bury(jobs, items[600:])
    assert jobs.dead.purge() == 10
    assert jobs.seen_many(items[600:]) == [True] * 10


@every_option
def test_chosen_letters_are_purged_and_forgotten(
    make_set: Maker, raw: Any, options: dict[str, Any]
) -> None:
    jobs = make_set(**options, max_attempts=1)
    items = [made(options, name) for name in ("a", "b", "c", "d")]
    ids = [id for item in items for id in bury(jobs, [item])]
    assert jobs.dead.purge(letters_or_ids=[ids[1], ids[1], "1-1"]) == 1
    letters = list(jobs.dead)
    assert [letter.id for letter in letters] == [ids[0], *ids[2:]]
    forgets = "remember" in options
    assert jobs.dead.purge(letters_or_ids=letters[0], forget=forgets) == 1
    if forgets:
        assert jobs.seen_many(items) == [False, True, True, True]
    assert jobs.dead.purge(letters_or_ids=letters) == 2
    assert jobs.dead.purge(letters_or_ids=[]) == 0
    assert not raw.exists("jobs:{jobs}:dead")


def test_a_purge_of_what_is_no_letter_is_refused(make_set: Maker) -> None:
    jobs = make_set(max_attempts=1)
    ids = bury(jobs, ["a"])
    for wrong in (["1-0", 7], ids[0], 7):
        with pytest.raises(TypeError, match="letters_or_ids"):
            jobs.dead.purge(letters_or_ids=wrong)
    with pytest.raises(ValueError, match="letters_or_ids contradicts before"):
        jobs.dead.purge(before=0, letters_or_ids=ids)
    with pytest.raises(ValueError, match="forget needs a set with remember"):
        jobs.dead.purge(letters_or_ids=ids, forget=True)
    assert jobs.dead.size() == 1


@pytest.mark.parametrize(
    ("ids", "error", "said"),
    [
        (["1-0", 7], TypeError, r"ids\[1\] must be a dead letter or the id of one, got 7 .int."),
        (
            ["1-0", "now"],
            ValueError,
            r"ids\[1\] must be a dead letter or the id of one, got 'now' .str.",
        ),
        (["\ud800"], ValueError, r"ids\[0\] must be"),
        ("1-0", TypeError, "ids must be an iterable of items, got .1-0. .str"),
        (7, TypeError, "ids must be an iterable, got 7 .int"),
    ],
)
def test_bad_ids_are_refused(make_set: Maker, ids: Any, error: Any, said: str) -> None:
    jobs = make_set(max_attempts=1)
    bury(jobs, ["a"])
    with pytest.raises(error, match=said):
        jobs.dead.requeue(ids)
    assert jobs.dead.size() == 1 and jobs.size() == 0


def test_a_name_without_second_keys_has_no_letters(make_set: Maker) -> None:
    with pytest.raises(ValueError, match="no valid hash tag"):
        make_set(name="a{b").dead.requeue(["1-0"])


def test_the_letters_of_a_set_are_requeued_on_a_full_server_too() -> None:
    import servers

    with servers.start(servers.REAL[0]) as server:
        jobs: SortedSet[str] = SortedSet(server.client(), "jobs", max_attempts=1)
        ids = bury(jobs, ["a", "b"])
        server.raw.config_set("maxmemory", 1)
        assert jobs.dead.requeue(ids) == 2
        server.raw.config_set("maxmemory", 0)
        assert sorted(jobs.take(5)) == ["a", "b"]


class Awkward:
    """Cannot read bytes that begin with "bad", and raises an awkward error."""

    binary = True

    def __init__(self, error: Exception) -> None:
        self.error = error

    def dumps(self, item: bytes) -> bytes:
        return item

    def loads(self, data: bytes) -> bytes:
        if data.startswith(b"bad"):
            raise self.error
        return data


class Mute(ValueError):
    def __str__(self) -> str:
        raise RuntimeError("cannot even say what it is")


@pytest.mark.parametrize("error", [ValueError("lone \udcff"), Mute(), ValueError("x" * 5000)])
@pytest.mark.parametrize("key", [None, lambda item: item])
def test_an_error_with_any_text_can_be_buried(make_set: Maker, key: Any, error: Exception) -> None:
    jobs = make_set(serializer=Awkward(error), key=key)
    for take in (jobs.pop, lambda: jobs.take(3)[0], lambda: next(iter(jobs.lease(2))).item):
        before = jobs.dead.size()
        jobs.add_many([b"bad", b"good"], score=[1, 2])
        assert list(jobs) == [b"good"]
        assert take() == b"good"
        assert jobs.dead.size() == before + 1
        letter = list(jobs.dead)[-1]
        assert letter.raw == b"bad" and letter.reason.startswith(type(error).__name__)
        assert len(letter.reason) <= 1000
        jobs.dead.purge()
        jobs.clear()


def test_dead_letters_of_another_type_leave_a_settlement_undone(
    any_server: servers.Server,
) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs", max_attempts=1)
    jobs.add_many(["a", "b"])
    batch = jobs.lease(2)
    raw.set("jobs:{jobs}:dead", "text")
    first, second = batch._leases
    settlements = [settling.Settlement("ack", [first]), settling.Settlement("fail", [second])]
    with pytest.raises(redis.ResponseError, match=r"WRONGTYPE|wrong kind"):
        jobs._run(settling.settle(jobs._ctx, settlements))
    assert raw.zcard("jobs:{jobs}:leased") == 2


# --- again


@pytest.mark.parametrize("options", [{}, {"key": "n"}], ids=["plain", "key"])
def test_all_dead_letters_are_queued_again(make_set: Any, options: Any) -> None:
    def item(n: int) -> Any:
        return {"n": n} if options else str(n)

    jobs = make_set(**options)
    jobs.add_many([item(n) for n in range(250)], range(250))
    jobs.fail(jobs.lease(250), "no")
    assert jobs.dead.requeue() == 0  # none are there
    made = make_set(**options, max_attempts=2)
    made.fail(made.lease(250), "no")
    assert made.dead.size() == 250
    assert [letter.item for letter in made.dead][:2] == [item(0), item(1)]
    made.add(item(7), 5)  # is there again: stays dead
    assert made.dead.requeue() == 249
    assert [letter.item for letter in made.dead] == [item(7)]
    assert made.size() == 250 and made.score(item(249)) == 249


def test_dead_letters_are_queued_again_by_themselves_or_their_ids(make_set: Any) -> None:
    jobs = make_set(max_attempts=1)
    jobs.add_many(["a", "b", "c", "d"], range(4))
    jobs.fail(jobs.lease(4), "no")
    a, b, c, d = jobs.dead
    assert (a.item, d.item) == ("a", "d")
    assert jobs.dead.requeue([a, b.id]) == 2
    assert jobs.dead.requeue(c) == 1
    assert jobs.dead.requeue(letter for letter in [c, d]) == 1
    assert list(jobs) == ["a", "b", "c", "d"] and jobs.dead.size() == 0
    for wrong, error, said in (
        (
            [7],
            TypeError,
            r"letters_or_ids\[0\] must be a dead letter or the id of one, got 7 \(int\)",
        ),
        (
            [a, "a"],
            ValueError,
            r"letters_or_ids\[1\] must be a dead letter or the id of one, got 'a' \(str\)",
        ),
        ("1-1", TypeError, "letters_or_ids must be an iterable"),
    ):
        with pytest.raises(error, match=said):
            jobs.dead.requeue(wrong)


def test_a_letter_that_cannot_be_decoded_has_no_item(make_set: Any) -> None:
    jobs = make_set()
    jobs.add_many(["[1]", "[2"], [1, 2])
    jobs.serializer = json
    assert jobs.take(5) == [[1]]
    [letter] = jobs.dead
    assert (letter.raw, letter.item) == (b"[2", None)
