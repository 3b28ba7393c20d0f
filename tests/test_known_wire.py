"""The known table: its content, and the items that encoding with it drops."""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest
from agreement import outcome
from hypothesis import given
from hypothesis import strategies as st
from selection import drawn
from test_wire import each, encoder, entries_of, needs_core

from redset._wire import fallback
from redset.serializers import JSONSerializer

try:
    from redset import _speedups
except ImportError:
    _speedups = None  # type: ignore[assignment]

EVER = math.inf


def name(number: int) -> bytes:
    return fallback.digest(b"%d" % number)


def names(*numbers: int) -> bytes:
    return b"".join(map(name, numbers))


def unknown(known: Any, digests: Sequence[bytes], now: float) -> list[int]:
    """The places of the digests that a table does not know."""
    return [place for place, digest in enumerate(digests) if not known.knows(digest, now)]


@contextlib.contextmanager
def tracing() -> Iterator[Callable[[], int]]:
    """Trace allocations: a call returns the bytes that are allocated now."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


# --- what a table holds


@each
def test_it_knows_what_it_learned_and_nothing_else(wire: ModuleType) -> None:
    known = wire.Known(1000)
    assert len(known) == 0
    assert not known.knows(name(1), 0.0)
    known.learn(names(1, 2, 1), EVER, 0)
    assert len(known) == 2
    assert unknown(known, [name(number) for number in range(4)], 0.0) == [0, 3]
    # Whole digests: of others that share all but a bit none is known.
    for bit in range(128):
        other = int.from_bytes(name(1), "little") ^ 1 << bit
        assert not known.knows(other.to_bytes(16, "little"), 0.0)
    known.learn(bytes(16), EVER, 0)
    assert known.knows(bytes(16), 0.0)


@each
@pytest.mark.parametrize("most", [0, 1, 2, 7, 256, 300, 1000])
def test_a_table_keeps_the_newest_entries(wire: ModuleType, most: int) -> None:
    known = wire.Known(most)
    for number in range(0, 3 * most + 10, 3):
        known.learn(names(number, number + 1, number + 2), EVER, 0)
        last = number + 3
        held = range(max(0, last - most), last)
        assert len(known) == len(held)
        if number % 99 == 0 or most < 10:
            asked = [name(each) for each in range(last + 5)]
            assert unknown(known, asked, 0.0) == [
                each for each in range(last + 5) if each not in held
            ]


@each
def test_a_full_table_forgets_nothing_that_it_holds(wire: ModuleType) -> None:
    """However many digests share a slot, those that go take no others with them."""
    known = wire.Known(250)
    digests = [name(number) for number in range(10_000)]
    for last in range(50, len(digests) + 1, 50):
        known.learn(b"".join(digests[last - 50 : last]), EVER, 0)
        assert unknown(known, digests[max(0, last - 250) : last], 0.0) == []


@each
def test_an_entry_that_is_learned_again_keeps_its_age(wire: ModuleType) -> None:
    known = wire.Known(3)
    known.learn(names(1, 2, 3), EVER, 0)
    known.learn(names(1), EVER, 0)
    known.learn(names(4), EVER, 0)
    assert unknown(known, [name(number) for number in range(1, 5)], 0.0) == [0]


@each
def test_a_limited_digest_is_known_until_its_time_and_another_for_ever(wire: ModuleType) -> None:
    known = wire.Known(1000)
    known.learn(names(1), EVER, 0)
    known.learn(names(2, 3, 4, 5, 6), [10.0, 20.0, 0.0, -1.0, math.nan], 0)
    assert len(known) == 3
    asked = [name(number) for number in range(1, 7)]
    assert unknown(known, asked, 9.999) == [3, 4, 5]
    assert unknown(known, asked, 10.0) == [1, 3, 4, 5]
    assert unknown(known, asked, 1e300) == [1, 2, 3, 4, 5]
    known.learn(names(2), 30.0, 0)
    known.learn(names(1), 5.0, 0)
    assert unknown(known, asked, 29.0) == [0, 2, 3, 4, 5]


@each
def test_an_emptied_table_learns_nothing_from_before(wire: ModuleType) -> None:
    known = wire.Known(1000)
    known.learn(names(1), EVER, known.generation)
    before = known.generation
    known.clear()
    assert known.generation == before + 1
    assert len(known) == 0
    known.learn(names(1, 2), EVER, before)
    assert len(known) == 0
    known.learn(names(2), EVER, known.generation)
    assert unknown(known, [name(1), name(2)], 0.0) == [0]


@each
def test_a_table_grows_on_use_to_the_documented_size(wire: ModuleType) -> None:
    most = 2**14
    digests = b"".join(map(name, range(most + 1000)))
    with tracing() as allocated:
        before = allocated()
        known = wire.Known(10**12)
        assert allocated() - before < 1000
        known = wire.Known(most)
        sizes = []
        for at in range(0, len(digests), 16 * 256):
            known.learn(digests[at : at + 16 * 256], EVER, 0)
            sizes.append(allocated() - before)
        assert sizes[0] < 64 * 1024
        assert len(known) == most
        if wire is not fallback:
            # 16 bytes a digest and 4 a slot, of which there are twice as many.
            assert 24 * most <= sizes[-1] <= 24 * most + 4000
            known.learn(digests[:16], 1.0, 0)
            assert 32 * most <= allocated() - before <= 32 * most + 4000
        known.clear()
        assert allocated() - before < 4000


@each
def test_expired_entries_make_room_before_a_table_grows(wire: ModuleType) -> None:
    with tracing() as allocated:
        before = allocated()
        known = wire.Known(2**18)
        for turn in range(200):  # Each lasts for 2: of 150 a turn, 300 are valid.
            now = float(turn)
            mine = range(150 * turn, 150 * turn + 150)
            known.learn(names(*mine), now + 2.0, 0, now)
            asked = [name(number) for number in range(max(0, mine.start - 150), mine.stop)]
            assert unknown(known, asked, now) == []
        del asked
        assert len(known) <= 1024
        assert allocated() - before <= 250_000
        known.learn(names(*range(-600, 0)), EVER, 0, 1e6)
        assert len(known) <= 1024 and allocated() - before <= 250_000
    # Valid entries are not dropped, and the table grows.
    known.learn(names(*range(-3000, 0)), EVER, 0, 1e6)
    assert unknown(known, [name(number) for number in range(-3000, 0)], 1e6) == []
    assert len(known) >= 3000


@needs_core
@drawn(100)
@given(
    st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 400), st.integers(0, 5)), max_size=20)
)
def test_both_drop_the_same_that_is_not_valid_any_more(steps: list[tuple[int, int, int]]) -> None:
    tables = [fallback.Known(800), _speedups.Known(800)]
    for now, (first, count, lasting) in enumerate(steps):
        for known in tables:
            known.learn(names(*range(first, first + count)), float(now + lasting), 0, float(now))
        asked = [name(number) for number in range(2400)]
        found = [(len(known), *unknown(known, asked, 0.0)) for known in tables]
        assert found[0] == found[1]


@each
def test_wrong_arguments_are_refused(wire: ModuleType) -> None:
    known = wire.Known(10)
    for wrong in ((b"1", EVER, 0), (bytes(32), [1.0], 0), (bytes(16), [], 0), (b"", [1.0], 0)):
        with pytest.raises(ValueError):
            known.learn(*wrong)
    with pytest.raises(TypeError):
        known.learn(bytes(16), None, 0)
    with pytest.raises(ValueError):
        known.knows(b"1", 0.0)
    with pytest.raises(ValueError):
        wire.Known(-1)
    known.learn(b"", [], 0)
    assert len(known) == 0


@needs_core
@drawn(100)
@given(
    most=st.integers(0, 40),
    steps=st.lists(
        st.one_of(
            st.tuples(
                st.just("learn"),
                st.lists(st.integers(0, 60), max_size=20),
                st.sampled_from([EVER, 1.0, 2.0, 0.0]),
            ),
            st.tuples(
                st.just("each"),
                st.lists(st.tuples(st.integers(0, 60), st.sampled_from([EVER, 1.0, 2.0, -1.0]))),
            ),
            st.tuples(st.just("late"), st.lists(st.integers(0, 60))),
            st.tuples(st.just("clear")),
        ),
        max_size=20,
    ),
)
def test_both_hold_the_same_after_whatever_was_learned(most: int, steps: list[Any]) -> None:
    tables = [fallback.Known(most), _speedups.Known(most)]
    asked = [name(number) for number in range(61)]
    for step in steps:
        found = []
        for known in tables:
            now = known.generation
            if step[0] == "learn":
                known.learn(names(*step[1]), step[2], now)
            elif step[0] == "each":
                known.learn(names(*(n for n, _ in step[1])), [t for _, t in step[1]], now)
            elif step[0] == "late":
                known.learn(names(*step[1]), EVER, now - 1)
            else:
                known.clear()
            found.append((len(known), *(unknown(known, asked, at) for at in (0.0, 1.0, 1.5, 3.0))))
        assert found[0] == found[1]


@each
def test_threads_may_share_a_table(wire: ModuleType) -> None:
    known = wire.Known(5000)
    encode = encoder(wire, fold=wire.FOLD_FIRST).encode_all
    texts = [str(number) for number in range(8000)]
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        pick = random.Random(seed)
        try:
            for _ in range(60):
                items = pick.sample(texts, 300)
                generation = known.generation
                for chunk in encode(items, None, False, 100, 2**20, known, 1.0):
                    assert len(chunk.digests) == 16 * chunk.entries
                    known.learn(chunk.digests, EVER, generation)
                assert len(known) <= 5000
                if pick.random() < 0.05:
                    known.clear()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


# --- encoding with a table


def encoded(wire: ModuleType, known: Any, items: Any, now: float = 0.0, **options: Any) -> Any:
    options.setdefault("fold", wire.FOLD_FIRST)
    most = options.pop("most", 0)
    return encoder(wire, **options).encode_all(items, None, True, most, 2**20, known, now)


@each
@pytest.mark.parametrize("key", [None, str])
def test_known_items_are_dropped_and_count_as_good(wire: ModuleType, key: Any) -> None:
    known = wire.Known(100)
    items = [str(number) for number in range(50)]
    known.learn(names(*range(0, 50, 2)), EVER, 0)
    [chunk] = encoded(wire, known, items * 2, key=key)
    left = [item for item in items if int(item) % 2]
    assert (chunk.entries, chunk.good, chunk.dropped) == (25, 100, 25)
    columns = 2 if key is None else 3
    assert [entry[-1].decode() for entry in entries_of(wire, chunk, columns)] == (
        sorted(left) if key is None else sorted(left, key=lambda item: name(int(item)))
    )
    in_order = [entry[-1] for entry in entries_of(wire, chunk, columns)]
    assert chunk.digests == b"".join(map(fallback.digest, in_order))
    assert [items[place].encode() for place in chunk.places] == in_order
    [none] = encoded(wire, None, items, key=key)
    assert (none.entries, none.dropped, none.digests) == (50, 0, b"")


@each
@pytest.mark.parametrize("key", [None, str])
def test_a_run_of_known_items_is_one_chunk_without_data(wire: ModuleType, key: Any) -> None:
    known = wire.Known(100)
    known.learn(names(*range(100)), EVER, 0)
    for count in (1, 2, 31, 32, 100):
        items = [str(number) for number in range(count)]
        chunks = encoded(wire, known, [*items, "0"], key=key, most=10)
        assert chunks == [(b"", 0, count + 1, [], [], count, b"")]


@each
def test_known_items_are_not_serialised(wire: ModuleType) -> None:
    known = wire.Known(100)
    known.learn(names(1, 2), EVER, 0)
    asked = []

    def dumps(item: Any) -> bytes:
        asked.append(item)
        return b"x"

    encoded(wire, known, [1, 2, 3, 3], key=str, dumps=dumps)
    assert asked == [3]


@each
def test_chunks_carry_the_digests_of_their_entries(wire: ModuleType) -> None:
    known = wire.Known(10)
    items = [str(number) for number in range(100)]
    chunks = encoder(wire, fold=wire.FOLD_FIRST).encode_all(
        items, list(range(100)), True, 30, 2**20, known, 0.0
    )
    assert [chunk.entries for chunk in chunks] == [30, 30, 30, 10]
    assert b"".join(chunk.digests for chunk in chunks) == names(*range(100))


@needs_core
@drawn(200)
@given(
    runs=st.lists(st.lists(st.integers(0, 120), max_size=90), max_size=6),
    most=st.sampled_from([0, 5, 60, 1000]),
    size=st.sampled_from([0, 1, 7, 50]),
    until=st.sampled_from([EVER, 1.5]),
    options=st.fixed_dictionaries(
        {"key": st.sampled_from([None, "n", lambda item: item["n"]])},
        optional={
            "fold": st.integers(0, 2),
            "memory": st.integers(0, 2),
            "sort": st.booleans(),
            "places": st.booleans(),
            "limit": st.sampled_from([0, 9]),
        },
    ),
    bad=st.sets(st.integers(0, 120), max_size=2),
    skip=st.booleans(),
)
def test_both_drop_the_same_of_whatever_is_encoded(
    runs: list[list[int]],
    most: int,
    size: int,
    until: float,
    options: Any,
    bad: set[int],
    skip: bool,
) -> None:
    def dumps(item: Any) -> bytes:
        if item["n"] in bad:
            raise LookupError(item["n"])
        return JSONSerializer().dumps(item)

    options["dumps"] = dumps if bad else JSONSerializer().dumps
    wires = (fallback, _speedups)
    makers = [encoder(wire, **options).encode_all for wire in wires]
    tables = [wire.Known(most) for wire in wires]
    for now, run in zip(itertools.count(), runs, strict=False):
        items = [{"n": number} for number in run]
        theirs = [
            outcome(encode, items, None, skip, size, 10**6, known, float(now))
            for encode, known in zip(makers, tables, strict=True)
        ]
        assert theirs[0] == theirs[1]
        for encode, known in zip(makers, tables, strict=True):
            for chunk in encode(items, None, skip, size, 10**6, known, float(now)):
                known.learn(chunk.digests, until, 0)
        assert len(tables[0]) == len(tables[1])


# --- items that are serialised ahead


@each
def test_serialising_ahead_leaves_out_known_items(wire: ModuleType) -> None:
    table = wire.Known(100)
    items = [{"url": f"/{number}", "n": number} for number in range(30)]
    known = [7, 0, 29]
    digests = b"".join(fallback.digest(b"/%d" % number) for number in known)
    table.learn(digests, [5.0, EVER, EVER], 0)
    dumps = JSONSerializer().dumps
    for now, left_out in ((1.0, {0, 7, 29}), (5.0, {0, 29})):
        sent, places = wire.serialise(iter(items), dumps, "url", 0, None, table, now)
        assert places == [number for number in range(30) if number not in left_out]
        assert sent == [(dumps(items[at]), b"/%d" % at) for at in places]
    # Without a key the digest is that of the bytes.
    texts = [f"/{number}" for number in range(30)]
    sent, places = wire.serialise(texts, None, None, 0, None, table, 1.0)
    assert places == [number for number in range(30) if number not in (0, 7, 29)]
    assert sent == [texts[at].encode() for at in places]
    assert wire.serialise(texts, None, None, 0)[1] == list(range(30))
    assert wire.serialise([], None, None, 0, None, table, 1.0) == ([], [])


@each
def test_serialising_ahead_does_not_serialise_known_items(wire: ModuleType) -> None:
    table = wire.Known(100)
    table.learn(fallback.digest(b"/a"), EVER, 0)
    asked: list[Any] = []

    def dumps(item: Any) -> str:
        asked.append(item)
        return str(item)

    wire.serialise([("/a", 1), ("/b", 2)], dumps, lambda item: item[0], 0, None, table, 1.0)
    assert asked == [("/b", 2)]
    with pytest.raises(ValueError, match="more than max_item_bytes=3"):
        wire.serialise(["abcd"], None, None, 3)


@each
def test_serialising_ahead_leaves_out_items_that_are_going_to_be_known(wire: ModuleType) -> None:
    known, pending = wire.Known(100), wire.Known(100)
    known.learn(fallback.digest(b"/0"), EVER, 0)
    pending.learn(fallback.digests([b"/1"])[0], EVER, 0)
    items = [{"url": f"/{number % 4}", "n": number} for number in range(12)]
    dumps = JSONSerializer().dumps
    for tables, wanted in (
        ((known, pending), [2, 3]),
        ((None, pending), [0, 2, 3]),
        ((None, wire.Known(0)), [0, 1, 2, 3]),
    ):
        sent, places = wire.serialise(items, dumps, "url", 0, None, tables[0], 1.0, tables[1])
        assert places == wanted
        assert sent == [(dumps(items[at]), b"/%d" % at) for at in wanted]
        texts = [item["url"] for item in items]
        sent, places = wire.serialise(texts, None, None, 0, None, tables[0], 1.0, tables[1])
        assert (sent, places) == ([b"/%d" % at for at in wanted], wanted)
    one = [{"url": url} for url in (1, "1", b"1", "2")]
    assert wire.serialise(one, str, "url", 0, None, None, 1.0, wire.Known(9))[1] == [0, 3]
