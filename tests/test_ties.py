"""ties=: items of equal score come out in the order of their first add, or its reverse."""

from __future__ import annotations

import itertools
import json
import math
import random
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
import redis
import servers
from blocking import face_of
from options import made, once_more

import redset.asyncio
from redset import Key, ScheduledSet, SortedSet, TimeSortedSet
from redset.exceptions import AddError, Full, OptionsDiffer

Maker = Callable[..., Any]
P = "jobs:{jobs}"
TIE = 2**40
OPTIONS: list[dict[str, Any]] = [
    {},
    {"key": "url"},
    {"remember": True},
    {"key": "url", "remember": 3600},
    {"max_size": 10_000},
]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=str)
both_ways = pytest.mark.parametrize("ties", ["fifo", "lifo"])


def names(items: Any) -> list[str]:
    return [item["url"] if isinstance(item, dict) else item for item in items]


def ordered(ties: str, wanted: Any) -> list[str]:
    """Names in the order of their first add, as they come out."""
    return list(wanted if ties == "fifo" else reversed(wanted))


# --- the order


@every_option
@both_ways
def test_equal_scores_come_out_in_the_order_of_their_first_add(
    make_set: Maker, ties: str, options: dict[str, Any]
) -> None:
    jobs, other = make_set(ties=ties, **options), make_set(ties=ties, **options)
    again = once_more(options)

    def items(text: str) -> list[Any]:
        return [made(options, name) for name in text]

    assert jobs.add_many(items("zyzx")).added == 3
    assert other.add(made(options, "a")) == 0
    assert jobs.add_many(items("yw"), nx=True).added == 1
    assert other.add_many(items("zv"), lt=True).added == 1
    assert names(other.add_new(items("xzu"))) == ["u"]
    # A queued item keeps its place, also if it moves away and comes back.
    assert jobs.add(made(options, "a"), 7, **again) == 7
    assert jobs.add(made(options, "x"), **again) == 0
    assert other.add(made(options, "a"), 0, **again) == 0
    assert names(jobs) == ordered(ties, "zyxawvu")
    # An item that is gone is new when it comes again.
    first = jobs.pop()
    assert other.add(first, **again) == 0
    wanted = "yxawvuz" if ties == "fifo" else "zyxawvu"
    assert names(jobs.peek_many(9)) == names(other) == ordered(ties, wanted)
    jobs.discard(made(options, "a"))
    jobs.add(made(options, "a"), **again)
    wanted = wanted.replace("a", "") + "a"
    assert names(jobs.take(3) + other.take(9)) == ordered(ties, wanted)


@both_ways
def test_streams_of_any_size_keep_their_order(make_set: Maker, ties: str) -> None:
    jobs = make_set(ties=ties)
    for size in (1, 249, 250, 251, 499, 500, 501, 1001, 2500):
        items = [f"{number * 7919 % 100_003}" for number in range(size)]
        assert jobs.add_many(iter(items)).added == size
        assert jobs.add_many(reversed(items), nx=True).refused == size
        assert jobs.add_many(items[::-1]).updated == size
        assert list(jobs) == ordered(ties, items)
        assert jobs.take(size + 1) == ordered(ties, items)


@every_option
@both_ways
def test_lower_scores_come_first_whatever_their_place(
    make_set: Maker, ties: str, options: dict[str, Any]
) -> None:
    jobs = make_set(ties=ties, **options)
    scores = [4095, -4096, 0, -1, 1, -4096, 4095, 0]
    jobs.add_many([made(options, name) for name in "abcdefgh"], score=scores)
    found = [
        (item if isinstance(item, str) else item["url"], score)
        for item, score in jobs.take(9, with_scores=True)
    ]
    fifo = [
        ("b", -4096),
        ("f", -4096),
        ("d", -1),
        ("c", 0),
        ("h", 0),
        ("e", 1),
        ("a", 4095),
        ("g", 4095),
    ]
    lifo = [fifo[at] for at in (1, 0, 2, 4, 3, 5, 7, 6)]
    assert found == (fifo if ties == "fifo" else lifo)


@both_ways
def test_chunks_of_new_and_of_queued_items_are_distinguished(make_set: Maker, ties: str) -> None:
    for queued, duplicates in itertools.product(
        [0, 1, 60, 150, 250, 299, 300], ["move", "keep", "lowest"]
    ):
        jobs = make_set(ties=ties, duplicates=duplicates)
        chance = random.Random(f"{queued}{duplicates}")
        items = [f"{number:03}" for number in range(300)]
        scores = {item: chance.choice([0, 1]) for item in items[:queued]}
        order = list(scores)
        jobs.add_many(order, score=list(scores.values()))
        chance.shuffle(items)
        given = [chance.choice([0, 1]) for _ in items]
        updated = 0
        for item, score in zip(items, given, strict=True):
            if item not in scores:
                scores[item] = score
                order.append(item)
            elif duplicates == "move" or (duplicates == "lowest" and score < scores[item]):
                scores[item] = score
                updated += 1
        refused = queued - updated
        assert jobs.add_many(items, score=given) == (300 - queued, updated, refused, 0)
        wanted = ordered(ties, order)
        assert list(jobs) == sorted(wanted, key=scores.__getitem__)
        assert jobs.scores(items) == [scores[item] for item in items]
        jobs.clear()


def test_a_chunk_with_an_item_twice_counts_its_first_place_and_last_score(make_set: Maker) -> None:
    jobs = make_set(ties="fifo")
    jobs.add_many(["a", "b", "a", "c"], score=[1, 0, 0, 0])
    assert list(jobs) == ["a", "b", "c"]
    jobs.add_many(["x", "y", "x"], score=[3, 2, 2], lt=True)
    assert list(jobs) == ["a", "b", "c", "x", "y"]


@both_ways
def test_a_buffered_producer_keeps_its_order(make_set: Maker, ties: str) -> None:
    jobs = make_set(ties=ties)
    with jobs.buffered(max_items=7) as writer:
        for number in range(100):
            writer.add(f"{number}")
        with pytest.raises(ValueError, match=r"score must be a whole number .* got 0\.5"):
            writer.add("half", 0.5)
    assert list(jobs) == ordered(ties, [f"{number}" for number in range(100)])


# --- leases


@every_option
@both_ways
def test_a_returned_item_keeps_its_place(
    make_set: Maker, raw: Any, ties: str, options: dict[str, Any]
) -> None:
    jobs = make_set(ties=ties, **options)

    def fill() -> None:
        jobs.clear()
        jobs.add_many([made(options, name) for name in ordered(ties, "abcd")])

    def expire(leases: Any) -> None:
        now = raw.time()
        raw.zadd(f"{P}:leased", dict.fromkeys(raw.zrange(f"{P}:leased", 0, -1), now[0] * 1000 - 1))
        jobs.finished()

    ways: list[Callable[[Any], Any]] = [
        lambda leases: jobs.release(leases),
        lambda leases: jobs.fail(leases, "no"),
        expire,
    ]
    again = once_more(options)
    for end in ways:
        for added in (False, True):
            fill()
            leases = list(jobs.lease(2))
            assert names(lease.item for lease in leases) == ["a", "b"]
            assert [lease.score for lease in leases] == [0, 0]
            if added:  # leased again: it waits, and goes on from its place
                jobs.add(leases[1].item, **again)
                jobs.add(leases[1].item, -1, **again)
                jobs.add(leases[1].item, 0, **again)
            end(leases)
            assert names(jobs) == ["a", "b", "c", "d"]


@every_option
@both_ways
def test_an_acknowledged_item_is_new_if_it_was_added_while_leased(
    make_set: Maker, ties: str, options: dict[str, Any]
) -> None:
    jobs = make_set(ties=ties, **options)
    again = once_more(options)
    jobs.add_many([made(options, name) for name in "ab"], score=[-1, 0])
    [lease] = jobs.lease()
    jobs.add(lease.item, **again)
    jobs.add(made(options, "c"))
    assert jobs.ack(lease) == 1
    assert names(jobs) == ordered(ties, "bac")
    # Also if the step that acknowledges adds it.
    if not again:
        [lease] = jobs.lease()
        jobs.ack(lease, add=[lease.item, made(options, "d")])
        assert names(jobs) == (["a", "c", "b", "d"] if ties == "fifo" else ["d", "c", "a", "b"])


@every_option
@both_ways
def test_a_release_with_a_score_keeps_the_place(
    make_set: Maker, ties: str, options: dict[str, Any]
) -> None:
    jobs = make_set(ties=ties, **options)
    jobs.add_many([made(options, name) for name in "abc"], score=[0, 5, 5])
    leases = list(jobs.lease())
    jobs.add(made(options, "d"), 5)
    assert jobs.release(leases, score=5) == 1
    assert jobs.score(leases[0].item) == 5
    assert names(jobs) == ordered(ties, "abcd")
    for bad in (0.5, 4096, -4097, math.inf, math.nan, "x"):
        [lease] = jobs.lease()
        with pytest.raises(ValueError, match="score must"):
            lease.release(score=bad)
        assert lease.release(delay=0) == 1
    assert jobs.size() == 4


@every_option
@both_ways
def test_dead_letters_are_queued_again_at_their_place(
    make_set: Maker, raw: Any, ties: str, options: dict[str, Any]
) -> None:
    jobs = make_set(ties=ties, max_attempts=1, **options)
    jobs.add_many([made(options, name) for name in "abc"], score=[-3, 2, 2])
    jobs.fail(jobs.lease(3), "no")
    letters = list(jobs.dead)
    assert sorted(letter.score for letter in letters) == [-3, 2, 2]
    assert jobs.dead.requeue([letter.id for letter in reversed(letters)]) == 3
    assert names(jobs) == ["a", *ordered(ties, "bc")]
    # An item without a score has no known place either: it is as if it were added, at 0.
    raw.xadd(f"{P}:dead", {"raw": json.dumps({"url": "x"}) if "key" in options else "x"})
    jobs.add(made(options, "y"), 0)
    assert jobs.dead.requeue([letter.id for letter in jobs.dead]) == 1
    jobs.add(made(options, "z"), 0)
    assert names(jobs) == ["a", *ordered(ties, "yxz"), *ordered(ties, "bc")]


def test_leases_have_the_score_that_was_given(make_set: Maker) -> None:
    jobs = make_set(ties="lifo")
    jobs.add_many(["a", "b"], score=[-7, 3])
    batch = jobs.lease(2)
    assert [lease.score for lease in batch] == [-7, 3]
    assert [(item, score) for item, score, *_ in jobs.leased()] == [("a", -7), ("b", 3)]
    jobs.release(batch)


# --- scores


@both_ways
def test_every_call_returns_the_score_that_was_given(make_set: Maker, ties: str) -> None:
    jobs = make_set(scorer=len, ties=ties)
    for score in (-4096, -1, 0, 1, 4095):
        assert jobs.add(f"{score}", score) == score
        assert jobs.score(f"{score}") == score
        assert type(jobs.score(f"{score}")) is float
    assert jobs.add("four") == 4
    assert jobs.scores(["-1", "no", "four"]) == [-1, None, 4]
    assert jobs.peek_score() == jobs.stats().oldest_score == -4096
    assert jobs.stats().oldest_age is None
    assert jobs.take(2, with_scores=True) == [("-4096", -4096.0), ("-1", -1.0)]
    for low, high, found in (
        (0, 1, ["0", "1"]),
        (-math.inf, 0, ["0"]),
        (0.5, 4.5, ["1", "four"]),
        (0.1, 0.9, []),
        (4, math.inf, ["four", "4095"]),
        (4, 1e300, ["four", "4095"]),
        (-1e300, -0.5, []),
        (4095, 4095, ["4095"]),
        (4096, 1e5, []),
    ):
        view = jobs.between(low, high)
        assert list(view) == found and view.size() == len(found)
    assert repr(face_of(jobs).between(0.5, 1e300)).endswith(".between(0.5, 1e+300)")
    assert jobs.between(0.5, 4.5).take(1) == ["1"]
    assert jobs.between(0.5, 4.5).discard() == 1
    assert jobs.add("0", 1, gt=True) == 1 and jobs.add("0", 1, gt=True) is None
    assert jobs.add("0", 1, xx=True) is None and jobs.add("0", -2, lt=True) == -2


BAD: list[Any] = [0.5, -0.25, 4096, -4097, 1e300, math.inf, -math.inf, "7.5", 2**70]


@every_option
def test_a_score_that_is_not_whole_or_too_large_is_refused_before_anything_is_sent(
    make_set: Maker, raw: Any, options: dict[str, Any]
) -> None:
    a, b = made(options, "a"), made(options, "b")
    said = r"score must be a whole number from -4096 to 4095 in a set with ties=, got "
    calls: list[Callable[[Any, Any], Any]] = [
        lambda jobs, bad: jobs.add(a, bad),
        lambda jobs, bad: jobs.add(a),
        lambda jobs, bad: jobs.add_many([a], bad),
        lambda jobs, bad: list(jobs.add_new([a], bad)),
        lambda jobs, bad: jobs.update([a]),
    ]
    for bad in BAD:
        jobs = make_set(scorer=lambda item, bad=bad: bad, ties="fifo", **options)
        for call in calls:
            with pytest.raises((ValueError, AddError), match=said):
                call(jobs, bad)
        assert servers.keys(raw) == []
        for scores in ([1, bad], iter([1, bad]), (1, bad)):
            with pytest.raises(AddError, match="item 1: " + said) as caught:
                jobs.add_many([a, b], score=scores)
            assert caught.value.index == 1 and caught.value.item == b
            assert caught.value.result.added == 1 and jobs.discard(a)
            if "remember" in options:
                jobs.forget(a)
        assert jobs.add_many([a, b], score=[1, bad], errors="skip") == (1, 0, 0, 1)
        batch = jobs.lease()
        with pytest.raises(AddError, match=said):
            batch.ack(add=[b])
        assert jobs.ack(batch) == 1 and jobs.finished()
        jobs.clear()


@pytest.mark.parametrize("score", [7.0, "7", True, 7, b"7"])
def test_a_whole_value_that_float_accepts_is_a_score_with_ties(make_set: Maker, score: Any) -> None:
    jobs = make_set(ties="fifo")
    assert jobs.add("a", score) == float(score)
    assert jobs.add_many(["b", "c"], score=[score, score]).added == 2
    assert jobs.take(3, with_scores=True) == [(name, float(score)) for name in "abc"]


# --- the stored scores


def test_the_stored_score_has_the_score_and_a_sequence_number(make_set: Maker, raw: Any) -> None:
    jobs = make_set(ties="fifo")
    jobs.add_many(["a", "b"], score=-2)
    jobs.add("c", 3)
    assert raw.zrange(f"{P}:tied", 0, -1, withscores=True) == [
        (b"a", -2 * TIE), (b"b", -2 * TIE + 1), (b"c", 3 * TIE + 2),
    ]  # fmt: skip
    meta = raw.hgetall(f"{P}:meta")
    assert meta == {b"layout": b"1", b"options": b"key=no remember=no ties=fifo", b"sequence": b"3"}
    assert sorted(servers.keys(raw)) == sorted([f"{P}:tied".encode(), f"{P}:meta".encode()])
    jobs.clear()
    assert servers.keys(raw) == []
    jobs = make_set(ties="lifo", key="url", remember=True)
    jobs.add_many([{"url": "a"}, {"url": "b"}], score=4095)
    stored = raw.zrange(f"{P}:keyed-tied", 0, -1, withscores=True)
    assert [score for _, score in stored] == [4096 * TIE - 2, 4096 * TIE - 1]
    assert raw.exists("jobs", f"{P}:keyed", f"{P}:tied") == 0
    jobs.clear()


def test_a_plain_set_has_no_part_in_it(make_set: Maker, raw: Any) -> None:
    jobs = make_set()
    jobs.add_many([f"{number}" for number in range(1000)])
    jobs.add("a")
    assert servers.keys(raw) == [b"jobs"]


def test_sets_with_other_ties_are_refused(make_set: Maker, raw: Any) -> None:
    options: list[dict[str, Any]] = [{"ties": "fifo"}, {"ties": "lifo"}, {"remember": True}]
    for mine in options:
        make_set(**mine).add("a")
        for theirs in options:
            other = make_set(**theirs)
            if theirs == mine:
                other.add("b")
                continue
            for call in (
                lambda s: s.add("b"),
                lambda s: s.add("b", nx=True),
                lambda s: s.add_many(["b"]),
                lambda s: list(s.add_new(["b"])),
            ):
                with pytest.raises(OptionsDiffer, match=r"ties=.*this object has .*ties="):
                    call(other)
        assert make_set(**mine).size() == 2
        make_set(**mine).clear()
    # A plain process is writing, or items from before are there.
    make_set().add("a")
    with pytest.raises(OptionsDiffer, match="a process without ties= writes to it"):
        make_set(ties="fifo").add("b")
    assert raw.zrange("jobs", 0, -1) == [b"a"] and len(servers.keys(raw)) == 1


@pytest.mark.parametrize("bad", ["FIFO", "", b"fifo", True, 0, []])
def test_ties_are_fifo_or_lifo(bad: Any) -> None:
    for face in (redset, redset.asyncio):
        client = redis.Redis() if face is redset else redis.asyncio.Redis()
        with pytest.raises(ValueError, match=r"ties must be 'fifo', 'lifo' or None, got .*\(\w+\)"):
            face.SortedSet(client, "jobs", ties=bad)
        for cls in (face.TimeSortedSet, face.ScheduledSet):
            with pytest.raises(ValueError, match=f"ties must be None for a {cls.__name__}"):
                cls(client, "jobs", ties="fifo")
            assert cls(client, "jobs", ties=None).name == "jobs"
        with pytest.raises(ValueError, match=r"name .* no valid hash tag"):
            face.SortedSet(client, "jobs{", ties="lifo")


@every_option
@both_ways
def test_a_refused_item_takes_no_number(
    make_set: Maker, raw: Any, ties: str, options: dict[str, Any]
) -> None:
    jobs = make_set(ties=ties, **options)
    items = [made(options, f"{number}") for number in range(600)]
    jobs.add_many(items)
    for _ in range(3):
        assert jobs.add_many(items, nx=True).refused == 600
        assert jobs.add(items[5], nx=True) is None
        assert jobs.add_many(items[:7], xx=True).refused == 7
    assert int(raw.hget(f"{P}:meta", "sequence")) == 600


@every_option
@both_ways
def test_used_up_numbers_begin_again_in_an_empty_set_and_are_an_error_in_another(
    make_set: Maker, raw: Any, ties: str, options: dict[str, Any]
) -> None:
    jobs = make_set(ties=ties, **options)
    a, b, c, d = (made(options, name) for name in "abcd")
    jobs.add(a)
    raw.hset(f"{P}:meta", "sequence", TIE - 1)
    jobs.add(b, 4095)
    with pytest.raises(Exception, match=r"numbers of ties= are used up"):
        jobs.add(c, 4095)
    assert not jobs.contains(c) and jobs.size() == 2
    assert jobs.scores([a, b]) == [0, 4095]
    [lease] = jobs.lease()
    jobs.discard(b)
    with pytest.raises(Exception, match=r"numbers of ties= are used up"):
        jobs.add(c)
    jobs.ack(lease)
    jobs.add_many([c, d])
    assert names(jobs) == ordered(ties, "cd")
    assert int(raw.hget(f"{P}:meta", "sequence")) == 2


# --- between sets


@every_option
@both_ways
def test_items_move_between_sets_with_and_without_ties(
    make_set: Maker, ties: str, options: dict[str, Any]
) -> None:
    tied = make_set(ties=ties, **options)
    other, plain = make_set(name="other", ties=ties, **options), make_set(name="plain", **options)
    items = [made(options, name) for name in "dcba"]
    tied.add_many(items, score=[1, 1, 1, -5])
    other.add(made(options, "o"), 1)
    assert tied.move_many([items[2], items[0]], face_of(other)) == 2
    # In the order given: an add by the other's rules.
    assert names(other) == ordered(ties, "obd")
    assert tied.move_many(items, face_of(plain)) == 2
    assert plain.scores(items) == [None, 1, None, -5]
    plain.add(made(options, "half"), 0.5)
    moving = [items[1], made(options, "half")]
    with pytest.raises(ValueError, match=r"scores that .* can have: .* got 0\.5"):
        plain.move_many(moving, face_of(other))
    assert plain.size() == 3 and other.size() == 3
    assert plain.move_many(items, face_of(other)) == 2
    assert names(other) == ["a", *ordered(ties, "obdc")]
    with pytest.raises(ValueError, match="is the set itself"):
        tied.move_many(items, face_of(make_set(**options)))


@both_ways
def test_sets_that_can_have_no_second_key_are_compared(make_set: Maker, ties: str) -> None:
    tied, odd = face_of(make_set(ties=ties)), face_of(make_set(name="odd{"))
    if isinstance(tied, redset.asyncio.SortedSet):
        return
    assert tied == odd and tied <= odd and odd == tied
    tied.add("a")
    odd.add("a")
    assert tied == odd and not tied.isdisjoint(odd)


@both_ways
def test_a_union_adds_what_the_other_hands_out_in_its_order(make_set: Maker, ties: str) -> None:
    jobs, others = make_set(ties=ties), make_set(name="others", ties=ties)
    jobs.add_many(["m", "x"], score=[0, 2])
    others.add_many(["z", "m", "a", "x"], score=[0, 0, 0, 1])
    jobs.update(face_of(others))
    # Of what both have the place stays.
    assert list(jobs) == (["m", "z", "a", "x"] if ties == "fifo" else ["z", "a", "m", "x"])
    assert jobs.scores(["m", "z", "a", "x"]) == [0, 0, 0, 1]


def test_operators_of_sets_with_other_ties_are_refused(any_server: servers.Server) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs", ties="fifo")
    jobs.add_many(["a", "b"])
    others: list[SortedSet[str]] = [
        SortedSet(raw, "plain"), SortedSet(raw, "lifo", ties="lifo"),
    ]  # fmt: skip
    for other in others:
        other.add_many(["b", "c"])
        for call in (
            lambda s: jobs.update(s),
            lambda s: jobs.__iand__(s),
            lambda s: jobs.__isub__(s),
            lambda s: jobs.__ixor__(s),
            lambda s: s.update(jobs),
        ):
            with pytest.raises(OptionsDiffer, match="they order equal scores in different ways"):
                call(other)
        assert list(jobs) == ["a", "b"] and other.size() == 2
        assert jobs != other and not jobs.isdisjoint(other)
        assert not jobs <= other


# --- export and restore


@every_option
@both_ways
def test_an_exported_set_keeps_its_order(
    make_set: Maker, ties: str, options: dict[str, Any]
) -> None:
    jobs = make_set(ties=ties, max_attempts=1, **options)
    again = once_more(options)
    jobs.add_many([made(options, name) for name in "zyxwv"])
    jobs.add(made(options, "v"), 3, **again)
    jobs.add(made(options, "v"), 0, **again)
    held = jobs.lease(1)
    jobs.fail(jobs.lease(1), "no")
    lines = list(jobs.export())
    jobs.release(held)
    wanted = names(jobs)
    jobs.clear()
    other = make_set(name="other", ties=ties, max_attempts=1, **options)
    assert other.restore(lines) == 4
    assert names(other) == wanted
    assert other.dead.requeue([letter.id for letter in other.dead]) == 1
    assert names(other) == ordered(ties, "zyxwv")
    other.add(made(options, "new"))
    assert names(other) == ordered(ties, [*"zyxwv", "new"])
    # The numbers are those of the first adds: they serve the other order as well.
    reverse = "lifo" if ties == "fifo" else "fifo"
    lines = list(other.export())
    turned = make_set(name="turned", ties=reverse, **options)
    assert turned.restore(lines) == 6
    assert names(turned) == names(other)[::-1]
    # And are nothing to a set without ties, whose lines have none.
    plain = make_set(name="plain", **options)
    assert plain.restore(lines) == 6
    assert set(plain.scores([made(options, name) for name in "zyx"])) == {0}
    back = make_set(name="back", ties="fifo", **options)
    assert back.restore(list(plain.export())) == 6
    back.add(made(options, "newer"))
    assert names(back) == [*names(plain), "newer"]


def test_a_score_that_ties_cannot_hold_is_not_restored(make_set: Maker, raw: Any) -> None:
    plain = make_set()
    plain.add_many(["a", "b"], score=[1, 0.5])
    lines = list(plain.export())
    plain.clear()
    with pytest.raises(OptionsDiffer, match=r"cannot be in 'jobs', .*ties=fifo: score must be"):
        make_set(ties="fifo").restore(lines)
    tied = make_set(ties="fifo")
    tied.add("a")
    lines = list(tied.export())
    tied.clear()
    for bad in (-1, TIE, "0", 0.5, True):
        item = json.dumps({**json.loads(lines[1]), "tie": bad})
        with pytest.raises(ValueError, match="line 2 is not of a known kind"):
            make_set(ties="fifo").restore([lines[0], item, lines[2]])
    item = json.loads(lines[1])
    del item["tie"]
    # Half of the numbers are left to items that are added later.
    for number in (TIE - 2, TIE // 2):
        late = json.dumps({**item, "tie": number})
        with pytest.raises(ValueError, match="line 2 is not of a known kind"):
            make_set(ties="lifo").restore([lines[0], late, '{"end":1}'])
    assert servers.keys(raw) == []


@both_ways
def test_an_item_returned_without_a_number_leaves_room_for_others(
    make_set: Maker, raw: Any, ties: str
) -> None:
    jobs = make_set(ties=ties)
    jobs.add("a")
    raw.zadd(f"{P}:tied", {"stray": 0})
    lines = list(jobs.export())
    jobs.clear()
    assert jobs.restore(lines) == 2
    jobs.add("b")
    assert jobs.scores(["a", "b", "stray"]) == [0, 0, 0]
    assert [item for item in jobs if item != "stray"] == ordered(ties, "ab")


def test_with_the_other_ties_nothing_is_exported(make_set: Maker) -> None:
    make_set(ties="fifo").add("a")
    with pytest.raises(OptionsDiffer, match=r"ties=fifo, this object has .*ties=lifo"):
        list(make_set(ties="lifo").export())


# --- when something fails


def test_no_chunk_is_added_after_a_refused_one(any_server: servers.Server) -> None:
    """Adding again from `resume_at` on keeps the order."""
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs", ties="fifo", max_size=700)
    # The last chunk, of one item, is small enough to fit.
    items = [f"{number:05}" for number in range(1001)]
    with pytest.raises(Full) as caught:
        jobs.add_many(items)
    assert isinstance(caught.value, AddError)
    assert list(jobs) == items[: caught.value.resume_at]
    again: SortedSet[str] = SortedSet(raw, "jobs", ties="fifo")
    again.add_many(items[caught.value.resume_at :])
    assert list(again) == items


def test_an_order_survives_a_server_that_forgets_its_scripts(any_server: servers.Server) -> None:
    """If a server without the script refuses a chunk, no later chunk is added before it."""
    stop = threading.Event()

    def forget() -> None:
        other: SortedSet[str] = SortedSet(any_server.client(), "jobs", ties="fifo")
        while not stop.is_set():
            any_server.raw.script_flush()
            other.add("other")

    thread = threading.Thread(target=forget, daemon=True)
    thread.start()
    try:
        jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs", ties="fifo")
        items = [f"{number:06}" for number in range(50_000)]
        jobs.add_many(items)
    finally:
        stop.set()
        thread.join()
    jobs.discard("other")
    assert list(jobs) == items


def test_beside_what_a_plain_process_has_leased_nothing_is_added(make_set: Maker) -> None:
    plain = make_set()
    plain.add("p", 1700000000.5)
    batch = plain.lease()
    for options in ({"ties": "fifo"}, {"key": "url"}, {"key": "url", "ties": "lifo"}):
        with pytest.raises(OptionsDiffer, match="its items are leased: a process without"):
            make_set(**options).add({"url": "x"} if "key" in options else "x")
    plain.ack(batch)
    assert make_set(ties="fifo").add("x") == 0


def test_a_letter_without_a_score_is_queued_at_0_also_if_numbers_are_used_up(
    make_set: Maker, raw: Any
) -> None:
    for ties in ("fifo", "lifo"):
        jobs = make_set(ties=ties)
        jobs.add("a")
        raw.hset(f"{P}:meta", "sequence", TIE)
        raw.xadd(f"{P}:dead", {"raw": "x"})
        assert jobs.dead.requeue([letter.id for letter in jobs.dead]) == 1
        assert jobs.score("x") == 0
        jobs.clear()


# --- the rest


def test_max_size_counts_as_without(make_set: Maker) -> None:
    jobs = make_set(ties="fifo", max_size=3)
    jobs.add_many(list("abc"))
    with pytest.raises(Full):
        jobs.add("d")
    assert jobs.add("b") == 0
    assert list(jobs) == ["a", "b", "c"]


def test_keys_and_members_are_asked_about_as_without(make_set: Maker) -> None:
    jobs = make_set(key="url", ties="lifo")
    jobs.add({"url": "a", "n": 1})
    jobs.add({"url": "a", "n": 2})
    assert Key("a") in jobs and jobs.get(Key("a")) == {"url": "a", "n": 2}
    assert jobs.discard(Key("a")) and jobs.finished()


def test_duplicates_keep_makes_time_sets_first_in_first_out(make_set: Maker) -> None:
    for cls in (TimeSortedSet, ScheduledSet):
        jobs = make_set(cls, duplicates="keep")
        jobs.add_many(["b", "a"], score=[1, 2])
        jobs.add("b", 3)
        assert list(jobs) == ["b", "a"]
        jobs.clear()


def calls(raw: Any, *names: str) -> list[int]:
    try:
        stats = raw.info("commandstats")
    except redis.ResponseError:  # fakeredis has none
        return []
    return [stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in names]


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("flags", [{}, {"nx": True}], ids=["plain", "nx"])
@both_ways
def test_what_is_queued_already_is_left_out_of_the_step(
    make_set: Maker, raw: Any, ties: str, flags: dict[str, Any]
) -> None:
    jobs, model = make_set(ties=ties), make_set(name="model", ties=ties)
    items = [f"{number:03}" for number in range(40)]
    scores = [number % 3 for number in range(40)]
    assert jobs.add_many(items, scores).added == model.add_many(items, scores).added == 40
    jobs.add_many(items, scores, **flags)
    moved = [*scores[:38], 7, 2]
    more, theirs = ["new", *items, "031", "031"], [1, *moved, 5, 6]
    before = calls(raw, "evalsha", "zmscore")
    for call in (items, tuple(items), iter(items), deque(items)):
        result = jobs.add_many(call, scores, **flags)
        assert result == ((0, 0, 40, 0) if flags else (0, 40, 0, 0))
    assert list(jobs.add_new(items, scores, **flags)) == []
    assert calls(raw, "evalsha", "zmscore") == [*before[:1], *(each + 5 for each in before[1:])]
    # The rest goes by the order of input, as one by one.
    result = jobs.add_many(more, theirs, **flags)
    assert result == ((1, 0, 42, 0) if flags else (1, 42, 0, 0))
    for item, score in zip(more, theirs, strict=True):
        model.add(item, score, **flags)
    assert list(jobs) == list(model)
    assert jobs.scores(more) == model.scores(more)


def test_what_is_queued_is_written_if_more_hangs_on_it(make_set: Maker) -> None:
    keyed = make_set(name="keyed", key="url", ties="fifo")
    for number in range(4):
        page = [{"url": f"/{at}", "n": number} for at in range(20)]
        keyed.add_many(page, 1)
        assert [item["n"] for item in keyed] == [number] * 20
    remembering = make_set(ties="fifo", remember=True)
    items = [str(at) for at in range(20)]
    for _ in range(3):
        assert remembering.add_many(items, 1, nx=True).failed == 0
        remembering.forget_many(items)
    remembering.add_many(items, 1)
    assert remembering.seen_many(items) == [True] * 20


def test_a_question_that_is_refused_costs_no_item(any_server: servers.Server) -> None:
    jobs: SortedSet[str] = SortedSet(any_server.client(), "jobs", ties="fifo")
    items = [str(at) for at in range(20)]
    for _ in range(3):
        jobs.add_many(items)
    any_server.raw.delete(f"{P}:tied")
    any_server.raw.set(f"{P}:tied", "of another type")
    with pytest.raises(AddError, match="WRONGTYPE") as caught:
        jobs.add_many(items)
    assert caught.value.resume_at == 0
    any_server.raw.delete(f"{P}:tied")
    assert jobs.add_many(items).added == 20
