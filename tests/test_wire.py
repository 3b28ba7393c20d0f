"""The wire format: promises of both implementations. They agree to the byte."""

from __future__ import annotations

import gc
import hashlib
import json
import math
import random
import struct
import sys
import threading
import time
from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from agreement import outcome, seen, told
from hostile import HOSTILE, Bytes, HostileBytes, Mask, Text
from hypothesis import example, given
from hypothesis import strategies as st
from selection import drawn

from redset._wire import fallback
from redset.serializers import JSONSerializer, NamedtupleSerializer

try:
    from redset import _speedups
except ImportError:
    _speedups = None  # type: ignore[assignment]

needs_core = pytest.mark.skipif(_speedups is None, reason="redset._speedups is not built")

#: For what concerns each by itself.
each = pytest.mark.parametrize(
    "wire",
    [
        pytest.param(fallback, id="python"),
        pytest.param(_speedups, id="cython", marks=needs_core),
    ],
)

NAMES = sorted(
    name
    for name, value in vars(fallback).items()
    if getattr(value, "__module__", "") in (fallback.__name__,) and not name.startswith("_")
) + [name for name in vars(fallback) if name.isupper() and not name.startswith("_")]


def same(name: str, *arguments: Any) -> Any:
    """Call both implementations; they must agree. Gives the outcome."""
    theirs = outcome(getattr(fallback, name), *arguments)
    assert outcome(getattr(_speedups, name), *arguments) == theirs
    return theirs


def encoder(wire: ModuleType, **options: Any) -> Any:
    defaults: dict[str, Any] = {
        "prefix": [b"ZADD", "jobs"],
        "dumps": None,
        "key": None,
        "scorer": 0.0,
        "limit": 0,
        "fold": wire.FOLD_LAST,
        "sort": True,
        "memory": wire.MEMORY_NONE,
        "epoch": b"",
        "places": True,
    }
    return wire.Encoder(**{**defaults, **options})


def same_chunk(items: Any, scores: Any = None, skip: bool = True, **options: Any) -> Any:
    """Encode by both; they must agree. Return the fallback's chunk, or its error."""
    results = []
    for wire in (fallback, _speedups):
        chunk = outcome(lambda w=wire: encoder(w, **options).encode(items, scores, skip))
        results.append(chunk)
    assert results[1] == results[0]
    if results[0][0] == "raised":
        return results[0]
    return encoder(fallback, **options).encode(items, scores, skip)


def entries_of(wire: ModuleType, chunk: Any, columns: int = 2) -> list[tuple[bytes, ...]]:
    [arguments] = wire.split(chunk.data)
    rest = arguments[2:]
    return [tuple(rest[at : at + columns]) for at in range(0, len(rest), columns)]


# --- generated input

texts = st.text(st.characters(), max_size=20)  # Lone surrogates, too.
members = st.one_of(
    texts,
    st.binary(max_size=140),
    st.text("ab\0", max_size=9),
    st.integers(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.none(),
    st.booleans(),
)
numbers = st.one_of(
    st.integers(-5, 5),
    st.integers(),
    st.integers(2**53 - 2, 2**53 + 2),
    st.integers(-(2**64), 2**64),
    st.integers(10**300, 10**320),
    st.floats(),
    st.floats(-1e6, 1e6),
    st.decimals(-1000, 1000, places=3).map(float),
    st.sampled_from([0.0, -0.0, math.inf, -math.inf, 5e-324, 1e22, 1e-4, 1e-5, True, False]),
)
garbage = st.one_of(
    texts,
    st.binary(max_size=5),
    st.none(),
    st.decimals(),
    st.fractions(),
    st.complex_numbers(),
    st.sampled_from(["1.5", "nan", "-inf", " 7 ", "1_0", b"2.5", [], {}, object, math.nan]),
)
scores = st.one_of(numbers, numbers, numbers, garbage)
keys = st.one_of(
    st.text("ab", max_size=3),
    st.binary(max_size=3),
    texts,
    st.integers(-3, 3),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.booleans(),
    st.none(),
    st.floats(),
    st.binary(min_size=120, max_size=140),
)
Page = namedtuple("Page", "url depth")
records = st.one_of(
    st.fixed_dictionaries({"url": keys, "depth": scores}),
    st.fixed_dictionaries({}, optional={"url": keys, "depth": scores}),
    st.builds(Page, keys, scores),
    st.builds(SimpleNamespace, url=keys, depth=scores),
    st.builds(
        lambda d: UserDict(d), st.fixed_dictionaries({"url": keys}, optional={"depth": scores})
    ),
    st.builds(OrderedDict, st.fixed_dictionaries({"url": keys, "depth": scores})),
    members,
)
prefixes = st.lists(
    st.one_of(st.binary(max_size=10), texts, st.integers(), st.booleans()), max_size=4
)


def dumps_some(item: Any) -> Any:
    """A serializer that makes of items all that serializers make, and some errors."""
    text = repr(item)
    choice = len(text) % 7
    if choice == 0:
        raise LookupError(text)
    if choice == 1:
        return text.encode()
    if choice == 2:
        return Text(text)
    if choice == 3:
        return Bytes(text.encode("utf-8", "replace"))
    if choice == 4:
        return bytearray(3)
    return text


def call_some(item: Any) -> Any:
    """A key and a scorer of the same kind."""
    choice = len(repr(item)) % 4
    if choice == 0:
        raise KeyError("no")
    if choice == 1:
        return repr(item)
    return choice + 0.5 if choice == 2 else len(repr(item))


# --- the two agree


@needs_core
def test_the_core_has_the_names_of_the_fallback() -> None:
    assert {"Encoder", "decode", "FOLD_LAST", "IMPLEMENTATION", "digests"} <= set(NAMES)
    for name in NAMES:
        assert hasattr(_speedups, name), name
        if name.isupper() and name != "IMPLEMENTATION":
            assert getattr(_speedups, name) == getattr(fallback, name)
    assert fallback.IMPLEMENTATION == "python"
    assert _speedups.IMPLEMENTATION == "cython"


@needs_core
@drawn(400)
@given(
    items=st.lists(members, max_size=70),
    options=st.fixed_dictionaries(
        {},
        optional={
            "prefix": prefixes,
            "dumps": st.sampled_from([None, dumps_some]),
            "scorer": st.one_of(st.floats(), st.just(call_some), st.just("depth"), st.just(7)),
            "limit": st.sampled_from([0, 1, 10, 10**30]),
            "fold": st.integers(0, 2),
            "sort": st.booleans(),
            "memory": st.integers(0, 2),
            "epoch": st.binary(max_size=64),
            "places": st.booleans(),
        },
    ),
    data=st.data(),
)
def test_requests_of_members_agree(items: list[Any], options: Any, data: Any) -> None:
    given_scores = data.draw(
        st.one_of(
            st.none(), st.lists(scores, min_size=len(items), max_size=len(items)), st.lists(scores)
        )
    )
    same_chunk(items, given_scores, data.draw(st.booleans()), **options)


@needs_core
@drawn(400)
@given(
    items=st.lists(records, max_size=30),
    options=st.fixed_dictionaries(
        {
            "key": st.sampled_from(["url", Text("url"), "missing", call_some, lambda item: item]),
            "dumps": st.sampled_from([None, dumps_some, repr, JSONSerializer().dumps]),
        },
        optional={
            "scorer": st.one_of(st.just("depth"), st.just(call_some), st.floats()),
            "limit": st.sampled_from([0, 20]),
            "fold": st.integers(0, 2),
            "sort": st.booleans(),
            "memory": st.integers(0, 2),
            "epoch": st.binary(max_size=64),
        },
    ),
    skip=st.booleans(),
)
def test_requests_of_items_with_keys_agree(items: list[Any], options: Any, skip: bool) -> None:
    same_chunk(items, None, skip, **options)
    for item in items:
        same("identity", item, options["dumps"], options["key"])
        same("serialise", [item], options["dumps"], options["key"], options.get("limit", 0))
        same("field_of", item, "url")
        same("score_of", item, options.get("scorer", 0.0))


@needs_core
@drawn(300)
@given(
    items=st.lists(
        st.one_of(
            st.fixed_dictionaries({"url": st.sampled_from("abc"), "depth": st.integers(0, 2)}),
            st.fixed_dictionaries({"url": st.text(max_size=4), "depth": st.none() | st.floats()}),
            st.integers(-3, 3),
            members,
        ),
        max_size=40,
    ),
    kind=st.sampled_from(["whole", "mixed", "none", "short"]),
    options=st.fixed_dictionaries(
        {"places": st.booleans()},
        optional={
            "fold": st.integers(0, 2),
            "scorer": st.sampled_from([0.5, -0.0, math.nan, "depth"]),
            "memory": st.integers(0, 2),
            "limit": st.sampled_from([0, 20]),
        },
    ),
    data=st.data(),
)
def test_requests_of_json_agree(items: list[Any], kind: str, options: Any, data: Any) -> None:
    value = {"whole": st.integers(-9, 9)}.get(kind, st.one_of(st.integers(-2, 2), numbers))
    size = max(0, len(items) - (kind == "short"))
    given_scores = data.draw(st.none() if kind == "none" else st.lists(value, min_size=size))
    options["dumps"] = JSONSerializer().dumps
    same_chunk(items, given_scores, data.draw(st.booleans()), **options)


braced = st.text('{}[],:"\\nul\0é', max_size=9)
plain = st.one_of(braced, st.sampled_from(["null", "},{"]), st.integers(-9, 9), st.booleans())
flat = st.dictionaries(braced, plain, max_size=4)
rare = st.one_of(
    st.none(), st.floats(), st.just(2**64), st.lists(plain, max_size=2), flat, st.just((1,))
)


@each
@drawn(200)
@given(
    items=st.lists(flat, max_size=40),
    others=st.lists(st.tuples(st.integers(0, 40), st.dictionaries(braced, rare, max_size=2))),
    key=st.sampled_from([None, repr]),
    limit=st.sampled_from([0, 0, 30]),
)
@example(items=[{}, {}, {"a": "{"}], others=[], key=None, limit=0)
@example(items=[{"a": math.nan}, {"a": None}, {"a": "null"}], others=[], key=None, limit=0)
@example(items=[{"a": "x" * n} for n in range(25)], others=[], key=None, limit=30)
def test_dicts_that_are_written_together_have_the_texts_of_single_ones(
    wire: ModuleType,
    items: list[Any],
    others: list[tuple[int, Any]],
    key: Any,
    limit: int,
) -> None:
    for place, other in others[:1]:
        items = [*items[:place], other, *items[place:]]
    texts: dict[Any, bytes] = {}
    bad = []
    for place, item in enumerate(items):
        status, text = outcome(JSONSerializer().dumps, item)[:2]
        if status == "raised" or (limit and len(text) > limit):
            bad.append(place)
        else:
            texts[text if key is None else repr(item)] = text
    chunk = encoder(wire, dumps=JSONSerializer().dumps, sort=False, key=key, limit=limit).encode(
        items, None, True
    )
    assert [each.place for each in chunk.bad] == bad
    entries = entries_of(wire, chunk, 2 if key is None else 3) if chunk.entries else []
    assert [entry[-1] for entry in entries] == list(texts.values())


@needs_core
@given(value=st.one_of(scores, members, keys))
def test_single_values_have_the_same_result_in_both_implementations(value: Any) -> None:
    same("to_score", value)
    same("key_bytes", value)
    for limit in (0, 3, -1, 10**30):
        same("payload", value, None, limit)
        same("payload", value, dumps_some, limit)
    same("digest", value)
    same("digests", [b"first", value])
    same("digests", [b"first"] * 40 + [value])
    same("memory_integer", value, b"epoch")
    same("memory_integer", b"identity", value)
    same("encode", [value])
    same("encode", ["SET", value, 1])
    same("encode", value)
    same("split", value)


@each
def test_digests_are_those_of_hashlib_whatever_their_number_and_sizes(wire: ModuleType) -> None:
    rng = random.Random(3)
    sizes = [0, 1, 8, 60, 127, 128, 129, 255, 256, 257, 1000]
    for count in [*range(1, 10), 31, 32, 33, 34, 35, 36, 100]:
        for _ in range(10):
            values = [rng.randbytes(rng.choice(sizes)) for _ in range(count)]
            expected = [hashlib.blake2b(each, digest_size=16).digest() for each in values]
            assert wire.digests(values) == expected
            plain = {"fold": wire.FOLD_NONE, "sort": False}
            chunk = encoder(wire, key=bytes, **plain).encode(values, None, False)
            assert [member for _, member, _ in entries_of(wire, chunk, 3)] == expected
            for key, columns in ((None, 3), (bytes, 4)):
                by_digest = encoder(wire, key=key, memory=wire.MEMORY_DIGEST, **plain)
                chunk = by_digest.encode(values, None, False)
                assert [entry[-1] for entry in entries_of(wire, chunk, columns)] == expected
                by_integer = encoder(
                    wire, key=key, memory=wire.MEMORY_INTEGER, epoch=b"epoch", **plain
                )
                chunk = by_integer.encode(values, None, False)
                assert [entry[-1] for entry in entries_of(wire, chunk, columns)] == [
                    fallback.memory_integer(each, b"epoch") for each in expected
                ]


@needs_core
@drawn(1000)
@given(score=st.one_of(st.floats(), st.floats(-1e5, 1e5), numbers))
def test_the_text_of_scores_agrees(score: Any) -> None:
    same("score_text", score)


@needs_core
@drawn(100)
@given(
    raws=st.lists(
        st.one_of(
            st.binary(max_size=8),
            texts.map(lambda text: text.encode("utf-8", "surrogatepass")),
            st.sampled_from([b"1", b"[1]", b"nul", b"\xff", "text", None, 5, bytearray(b"2")]),
        )
    ),
    loads=st.sampled_from([None, json.loads, JSONSerializer().loads, int, dumps_some]),
    binary=st.sampled_from([None, True, False]),
)
def test_decoded_replies_agree(raws: list[Any], loads: Any, binary: Any) -> None:
    same("decode", raws, loads, binary)


@needs_core
@given(data=st.one_of(st.binary(), st.text("*$\r\n0123456789 ", max_size=20).map(str.encode)))
def test_split_requests_agree(data: bytes) -> None:
    same("split", data)


@needs_core
def test_requests_with_foreign_epochs_agree() -> None:
    for epoch in (
        b"e" * 64,
        Bytes(b"epoch"),
        bytearray(b"epoch"),
        memoryview(b"epoch"),
        b"e" * 65,
        "epoch",
        None,
    ):
        for items in (["a", "b"], []):
            for wire in (fallback, _speedups):
                encoder(wire, memory=wire.MEMORY_INTEGER, epoch=epoch)
            theirs = [
                outcome(
                    lambda w=wire, e=epoch, i=items: encoder(
                        w, memory=w.MEMORY_INTEGER, epoch=e
                    ).encode(i, None, False)
                )
                for wire in (fallback, _speedups)
            ]
            assert theirs[0] == theirs[1]


# --- promises of each


@each
@given(
    commands=st.lists(
        st.lists(st.one_of(st.binary(), st.text(), st.integers()), max_size=5), max_size=4
    )
)
def test_split_undoes_encode(wire: ModuleType, commands: list[list[Any]]) -> None:
    def as_bytes(argument: Any) -> bytes:
        return argument if isinstance(argument, bytes) else str(argument).encode()

    data = b"".join(map(wire.encode, commands))
    assert wire.split(data) == [[as_bytes(argument) for argument in each] for each in commands]


@each
def test_digests_are_blake2b_of_the_standard_library(wire: ModuleType) -> None:
    rng = random.Random(7)
    values = [rng.randbytes(size) for size in range(301) for _ in range(200)]
    values += [rng.randbytes(rng.randrange(300)) for _ in range(45_000)]
    values += [rng.randbytes(128 * blocks + rest) for blocks in range(1, 40) for rest in (-1, 0, 1)]
    expected = [hashlib.blake2b(value, digest_size=16).digest() for value in values]
    assert len(values) >= 100_000
    assert wire.digests(values) == expected
    assert wire.digests(tuple(values[:5])) == wire.digests(iter(values[:5])) == expected[:5]
    assert [wire.digest(value) for value in values[::50]] == expected[::50]


@each
def test_the_memory_has_keyed_blake2b_of_the_standard_library(wire: ModuleType) -> None:
    rng = random.Random(8)
    for size in [*range(300)] * 5:
        epoch = rng.randbytes(rng.choice([0, 1, 8, 16, 63, 64]))
        identity = rng.randbytes(size)
        expected = hashlib.blake2b(identity, digest_size=8, key=epoch).digest()
        number = b"%d" % int.from_bytes(expected, "little", signed=True)
        assert wire.memory_integer(identity, epoch) == number


@each
def test_a_score_is_written_with_the_fewest_digits_that_give_it_back(wire: ModuleType) -> None:
    rng = random.Random(9)
    numbers = [rng.uniform(1.6e9, 1.9e9) for _ in range(20_000)]
    numbers += [struct.unpack("d", rng.randbytes(8))[0] for _ in range(20_000)]
    numbers += [round(rng.uniform(-1000, 1000), rng.randrange(9)) for _ in range(20_000)]
    numbers += [rng.random() * 10.0 ** rng.randrange(-6, 18) for _ in range(20_000)]
    numbers += [rng.randrange(2**53) / 2 ** rng.randrange(70) for _ in range(20_000)]
    for power in range(-80, 80):
        numbers += [2.0**power, math.nextafter(2.0**power, 0), math.nextafter(2.0**power, 1e99)]
        numbers += [float(f"1e{power}"), float(f"9.5e{power}")]
    for number in numbers:
        for score in (number, -number):
            text = repr(score)
            if score == score and abs(score) < 2**53 and score == int(score):
                text = str(int(score))
            assert wire.score_text(score) == text.encode()
    assert wire.score_text(-0.0) == b"0"
    assert wire.score_text(2.0**53) == b"9007199254740992.0"
    assert wire.score_text(math.inf) == b"inf"


@each
def test_a_chunk_is_sorted_by_score_then_member(wire: ModuleType) -> None:
    rng = random.Random(10)
    prefix = b"https://docs.example.org/library/"
    for count in (2, 7, 8, 40, 47, 48, 49, 300, 2000):
        for spread in (1, 3, 10**6):
            for member in (
                lambda: rng.randbytes(rng.randrange(4)),
                lambda: prefix + b"%d" % rng.randrange(300),
                lambda: prefix + b"\0" * rng.randrange(20),
                lambda: rng.choice([prefix, b""]) + b"%010d" % rng.randrange(5) + rng.randbytes(2),
            ):
                items = [member() for _ in range(count)]
                scores = [
                    rng.choice([rng.randrange(-spread, spread + 1), rng.uniform(-spread, spread)])
                    for _ in items
                ]
                last = dict(zip(items, scores, strict=True))
                chunk = encoder(wire).encode(items, scores, False)
                found = [(float(score), item) for score, item in entries_of(wire, chunk)]
                assert found == sorted((float(score), item) for item, score in last.items())
                assert chunk.places == [items.index(item) for _, item in found]
                unfolded = encoder(wire, fold=wire.FOLD_NONE).encode(items, scores, False)
                places = sorted(range(count), key=lambda at: (float(scores[at]), items[at]))
                assert unfolded.places == places


@each
def test_the_first_or_the_last_of_equal_members_stays(wire: ModuleType) -> None:
    items = [{"url": "a", "n": 1}, {"url": "b", "n": 2}, {"url": "a", "n": 3}]
    for fold, score, payload in (
        (wire.FOLD_FIRST, b"5", b'{"n":1,"url":"a"}'),
        (wire.FOLD_LAST, b"7", b'{"n":3,"url":"a"}'),
    ):
        chunk = encoder(
            wire, dumps=JSONSerializer().dumps, key="url", fold=fold, sort=False
        ).encode(items, [5, 6, 7], False)
        assert (chunk.entries, chunk.good, chunk.places, chunk.bad) == (2, 3, [0, 1], [])
        assert entries_of(wire, chunk, 3) == [
            (score, wire.digest(b"a"), payload),
            (b"6", wire.digest(b"b"), b'{"n":2,"url":"b"}'),
        ]


@needs_core
@pytest.mark.parametrize("key", [None, "url"])
def test_requests_of_many_chunks_agree_and_are_those_of_one_cut(key: str | None) -> None:
    rng = random.Random(12)
    for _ in range(300):
        count, most = rng.randrange(0, 400), rng.choice([1, 2, 7, 50, 400])
        most_bytes = rng.choice([1, 300, 5000, 10**9])
        items: list[Any] = [
            {
                "url": rng.randrange(1 + count // 2),
                "text": "x" * rng.randrange(rng.choice([9, 900])),
            }
            for _ in range(count)
        ]
        for _ in range(rng.randrange(3)):
            # No JSON, no key, no text: an item that is bad in each way.
            items.insert(rng.randrange(len(items) + 1), rng.choice([{"url": {1}}, {}, "\ud800"]))
        options: dict[str, Any] = {
            "dumps": JSONSerializer().dumps,
            "key": key,
            "scorer": lambda item: len(item["text"]) % 5,
            "fold": rng.randrange(3),
            "sort": rng.random() < 0.5,
            "limit": rng.choice([0, 700]),
            "memory": rng.randrange(3),
            "epoch": b"e",
        }
        skip = rng.random() < 0.5
        arguments = (items, None, skip, most, most_bytes)
        chunks, others = (
            encoder(wire, **options).encode_all(*arguments) for wire in (fallback, _speedups)
        )
        assert seen(chunks) == seen(others)
        whole = encoder(fallback, **options).encode(items, None, skip)
        columns = 2 + (key is not None) + (options["memory"] != 0)
        cut = [entries_of(fallback, chunk, columns) for chunk in chunks if chunk.entries]
        together = entries_of(fallback, whole, columns) if whole.entries else []
        assert [entry for entries in cut for entry in entries] == together
        assert [place for chunk in chunks for place in chunk.places] == whole.places
        assert sum(chunk.good for chunk in chunks) == whole.good
        assert seen([bad for chunk in chunks for bad in chunk.bad]) == seen(whole.bad)
        for chunk, entries in zip(chunks, cut, strict=False):
            assert len(entries) == chunk.entries <= most
            size = len(fallback._bulk_strings([part for entry in entries for part in entry]))
            assert len(entries) == 1 or size <= most_bytes


@each
def test_an_item_with_an_earlier_key_is_not_serialised(wire: ModuleType) -> None:
    written: list[int] = []

    def dumps(item: dict[str, int]) -> str:
        written.append(item["n"])
        return str(item["n"])

    items = [{"url": n % 3, "n": n} for n in range(9)]
    for fold, expected in ((wire.FOLD_FIRST, [0, 1, 2]), (wire.FOLD_LAST, [6, 7, 8])):
        written.clear()
        chunk = encoder(wire, dumps=dumps, key="url", fold=fold, sort=False).encode(
            items, None, False
        )
        assert (written, chunk.entries, chunk.good) == (expected, 3, 9)


@each
def test_every_entry_of_the_table_is_in_the_memory(wire: ModuleType) -> None:
    digest = wire.digest(b"a")
    for key, memory, entry in (
        (None, wire.MEMORY_DIGEST, (b"0", b"a", digest)),
        (None, wire.MEMORY_INTEGER, (b"0", b"a", wire.memory_integer(digest, b"e"))),
        (str, wire.MEMORY_DIGEST, (b"0", digest, b"a", digest)),
        (str, wire.MEMORY_INTEGER, (b"0", digest, b"a", wire.memory_integer(digest, b"e"))),
    ):
        chunk = encoder(wire, key=key, memory=memory, epoch=b"e").encode(["a"], None, False)
        assert entries_of(wire, chunk, len(entry)) == [entry]


@each
def test_the_first_bad_item_ends_a_chunk_unless_bad_ones_are_skipped(wire: ModuleType) -> None:
    items = ["a", "\ud800", "b", "c" * 9]
    ended = encoder(wire, limit=5).encode(items, None, False)
    assert (ended.entries, ended.good, ended.places) == (1, 1, [0])
    assert [bad.place for bad in ended.bad] == [1]
    skipped = encoder(wire, limit=5).encode(items, None, True)
    assert (skipped.entries, skipped.good, skipped.places) == (2, 2, [0, 2])
    assert [(bad.place, bad.item) for bad in skipped.bad] == [(1, "\ud800"), (3, "c" * 9)]
    assert str(skipped.bad[1].error) == "item has 9 bytes serialised, more than max_item_bytes=5"
    nothing = encoder(wire).encode(["\ud800"], None, False)
    assert (nothing.data, nothing.entries, nothing.places) == (b"", 0, [])


@each
def test_too_few_scores_are_an_error_of_the_first_item_without_one(wire: ModuleType) -> None:
    for scores in ([1.0], (1.0,)):
        chunk = encoder(wire).encode(["a", "b", "c"], scores, False)
        assert chunk.good == 1
        assert isinstance(chunk.bad[0].error, IndexError)


@each
def test_items_come_from_any_iterable(wire: ModuleType) -> None:
    expected = encoder(wire).encode([str(n) for n in range(200)], None, False)
    for items in ((str(n) for n in range(200)), tuple(map(str, range(200))), map(str, range(200))):
        assert encoder(wire).encode(items, None, False) == expected


@each
def test_large_items_go_through(wire: ModuleType) -> None:
    items = [b"x" * 3_000_000, "é" * 100_000, "", b""]
    chunk = encoder(wire, fold=wire.FOLD_FIRST).encode(items, None, False)
    assert chunk.good == 4
    assert [len(item) for _, item in entries_of(wire, chunk)] == [0, 3_000_000, 200_000]
    [[_, long]] = wire.split(wire.encode([1, items[0]]))
    assert long == items[0]


# --- callers' code that misbehaves


@needs_core
@pytest.mark.parametrize("make", HOSTILE)
def test_hostile_values_have_the_same_result_in_both_implementations(
    make: Callable[[], Any],
) -> None:
    value = make()
    same("to_score", value)
    same("key_bytes", value)
    same("field_of", value, "url")
    same("score_of", value, "depth")
    for dumps in (None, lambda item: item, lambda item: value):
        same("payload", value, dumps, 0)
        same("payload", value, dumps, 4)
        for key in (None, "url", lambda item: item):
            for scorer in (1.0, "depth", lambda item: item):
                same_chunk(
                    ["a", value, {"url": value, "depth": value}],
                    None,
                    dumps=dumps,
                    key=key,
                    scorer=scorer,
                )
    same_chunk(["a", "b"], [value, value])
    same_chunk(["a", "b"], [1, value], False)
    same("digest", value)
    same("encode", ["a", value])
    for loads in (None, lambda raw: value, lambda raw: raw.nothing):
        for binary in (None, True, False):
            same("decode", [value, b"1", b"\xff"], loads, binary)


@needs_core
def test_text_that_encodes_to_no_bytes_is_a_bad_item() -> None:
    class Liar(str):
        def encode(self, *arguments: Any) -> Any:
            return None

    chunk = encoder(_speedups).encode(["a", Liar("b"), "c"], None, True)
    assert (chunk.good, [bad.place for bad in chunk.bad]) == (2, [1])
    assert isinstance(chunk.bad[0].error, TypeError)


@needs_core
@pytest.mark.parametrize("where", ["dumps", "key", "scorer", "loads"])
@pytest.mark.parametrize("what", ["clear", "pop", "append", "replace", "reverse"])
def test_callables_may_change_the_lists_that_they_are_called_for(where: str, what: str) -> None:
    def run(wire: ModuleType) -> Any:
        items: list[Any] = [f"item {n}" * 20 for n in range(50)]
        scores = list(range(50))
        calls = 0

        def change(item: Any) -> Any:
            nonlocal calls
            calls += 1
            for values in (items, scores):
                if what == "clear" and calls == 10:
                    values.clear()
                elif what == "pop" and values:
                    values.pop()
                elif what == "append" and calls < 300:
                    values.append(calls)  # type: ignore[arg-type]
                elif what == "replace":
                    values[:] = (
                        [f"other {calls} {n}" for n in range(50)]
                        if values is items
                        else [*range(50)]
                    )
                elif what == "reverse":
                    values.reverse()
            gc.collect(0)
            return calls if where == "scorer" else str(item)

        if where == "loads":
            raws = items
            raws[:] = [str(item).encode() for item in raws]
            return seen(wire.decode(raws, lambda raw: change(raw), True)[0])
        options = {where: change}
        if where != "scorer":
            options["scorer"] = 0.0  # type: ignore[assignment]
        chunk = encoder(wire, **options).encode(items, None if where == "scorer" else scores, True)
        return (
            chunk.data,
            chunk.entries,
            chunk.good,
            chunk.places,
            [(bad.place, bad.item, told(bad.error)) for bad in chunk.bad],
        )

    assert run(_speedups) == run(fallback)


@each
def test_an_interrupt_goes_through(wire: ModuleType) -> None:
    def interrupt(item: Any) -> Any:
        if item == "c":
            raise KeyboardInterrupt
        return item

    for options in ({"dumps": interrupt}, {"key": interrupt}, {"scorer": interrupt}):
        with pytest.raises(KeyboardInterrupt):
            encoder(wire, **{"scorer": lambda item: 1, **options}).encode(
                ["a", "b", "c"], None, True
            )
    with pytest.raises(KeyboardInterrupt):
        wire.decode([b"a", b"c"], interrupt, False)


@each
def test_an_iterable_that_raises_ends_the_call(wire: ModuleType) -> None:
    def items() -> Iterator[str]:
        yield "a"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        encoder(wire).encode(items(), None, True)
    with pytest.raises(ZeroDivisionError):
        wire.digests(item.encode() for item in items())
    with pytest.raises(ZeroDivisionError):
        wire.decode((item.encode() for item in items()), None, None)


@each
def test_an_encoder_may_be_used_from_within_itself(wire: ModuleType) -> None:
    def dumps(item: str) -> str:
        if len(item) > 1:
            own.encode([item[1:], item[:-1]], None, True)
        return item

    own = encoder(wire, dumps=dumps)
    plain = encoder(wire)
    items = ["abcdef", "bc", "a"]
    assert own.encode(items, None, True) == plain.encode(items, None, True)


@each
def test_nothing_is_kept_alive(wire: ModuleType) -> None:
    made = [f"item {n} ä" for n in range(100)]
    keys = [f"key {n}" for n in range(100)]
    items = [
        {"url": key, "text": text, "depth": "x" if n % 10 == 0 else n}
        for n, (key, text) in enumerate(zip(keys, made, strict=True))
    ]
    raws = [b"%d" % n for n in range(100)] + [b"\xff"]

    def dumps(item: Any) -> Any:
        return item["text"]

    def work() -> None:
        for fold in (0, 1, 2):
            for key in (None, "url", lambda item: item["url"]):
                encode = encoder(
                    wire, dumps=dumps, key=key, fold=fold, scorer="depth", memory=1
                ).encode
                encode(items * 2, None, True)
                encode(items, None, False)
                encode(made, None, True)
        wire.decode(raws, None, None)
        wire.digests(raws)
        for item in items:
            wire.identity(item, dumps, "url")
        wire.encode(made)

    def counts() -> list[int]:
        gc.collect()
        return [sys.getrefcount(each) for each in (*made, *keys, *items, *raws)]

    work()
    before = counts()
    for _ in range(5):
        work()
    assert counts() == before


@each
def test_threads_may_share_an_encoder_and_its_items(wire: ModuleType) -> None:
    shared = encoder(
        wire, dumps=JSONSerializer().dumps, key="url", memory=wire.MEMORY_INTEGER, epoch=b"e"
    )
    # More than one turn of the interpreter each, and no more: where coverage is measured every
    # Python call takes a lock, and sixteen threads that queue for it are slow.
    rounds, number = (20, 400) if wire.IMPLEMENTATION == "cython" else (4, 120)
    fixed = [{"url": f"https://example.org/{n % 300}", "n": n} for n in range(number)]
    expected = shared.encode(fixed, None, True)
    moving = list(fixed)
    errors: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            for _ in range(rounds):
                assert shared.encode(fixed, None, True) == expected
                assert shared.encode(moving, None, True).bad == []
        except BaseException as error:
            errors.append(error)

    def change() -> None:
        while not done.is_set():
            del moving[::2]
            moving.extend(fixed[:50])
            moving.clear()
            moving.extend(fixed)
            time.sleep(0)

    changer = threading.Thread(target=change, daemon=True)
    threads = [threading.Thread(target=work, daemon=True) for _ in range(16)]
    for thread in (changer, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    changer.join()
    assert errors == []


@needs_core
@pytest.mark.parametrize(
    "dumps",
    [JSONSerializer().dumps, NamedtupleSerializer(Page).dumps, json.dumps],
    ids=["json", "namedtuple", "standard"],
)
def test_requests_through_serializers_agree(dumps: Any) -> None:
    nested: Any = 0
    for _ in range(260):
        nested = [nested]
    items = [
        {"url": "a", "n": None},
        {"b": 1.5, "a": "null"},
        {"n": math.nan},
        {"n": [math.inf]},
        {"n": None, "m": math.nan},
        nested,
        [None] * 300,
        Page("a", 1),
        Page(None, "é"),
        {1: 2},
        {"x": object()},
        "\ud800",
        2**64,
        *({"url": f"https://example.org/{n}", "depth": n % 7, "from": None} for n in range(50)),
    ]
    same_chunk(items, None, dumps=dumps)
    for item in items:
        same_chunk([item], None, False, dumps=dumps)
        same("payload", item, dumps, 40)
        same("identity", item, dumps, None)


@needs_core
def test_members_through_serializers_agree() -> None:
    raws = [b'{"a":1}', b"[1", b"\xff", b"null", b"1e999", b'"\\ud800"', b"", b"NaN", b"[" * 2000]
    pages = NamedtupleSerializer(Page)
    for loads in (JSONSerializer().loads, json.loads, pages.loads):
        for binary in (None, True, False):
            same("decode", raws, loads, binary)


@needs_core
def test_a_real_looking_stream_agrees() -> None:
    rng = random.Random(11)
    links = [
        f"https://docs.example.org/3.11/library/{rng.randrange(200)}.html" for _ in range(3000)
    ]
    items = [{"url": link, "depth": rng.randrange(6)} for link in links]
    for start in range(0, 3000, 500):
        for memory in (0, 1, 2):
            same_chunk(
                items[start : start + 500],
                None,
                dumps=JSONSerializer().dumps,
                key="url",
                scorer="depth",
                fold=fallback.FOLD_FIRST,
                memory=memory,
                epoch=b"0123456789abcdef",
            )


@needs_core
def test_replaced_methods_of_a_serializer_are_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(JSONSerializer, "dumps", lambda self, item: b"replaced")
    monkeypatch.setattr(JSONSerializer, "loads", lambda self, data: "replaced")
    serializer = JSONSerializer()
    for wire in (fallback, _speedups):
        chunk = encoder(wire, dumps=serializer.dumps).encode([{"a": 1}], None, False)
        assert b"replaced" in chunk.data
        assert wire.decode([b"1"], serializer.loads, True) == (["replaced"], [])


@needs_core
@pytest.mark.parametrize("made", ["text", 5, None, bytearray(b"a"), [1]])
def test_text_that_makes_no_bytes_of_itself_is_a_bad_item(made: Any) -> None:
    class Odd(str):
        def encode(self, *arguments: Any) -> Any:
            return made

    same("payload", Odd("a"), None, 0)
    same("payload", 1, lambda item: Odd("a"), 0)
    same("key_bytes", Odd("a"))
    chunk = same_chunk(["good", Odd("a"), "better"], [1, 2, 3])
    assert (chunk.good, [bad.place for bad in chunk.bad]) == (2, [1])


@each
def test_a_faked_class_name_changes_nothing(wire: ModuleType) -> None:
    for kind in (str, bytes, int, float):
        assert wire.payload(Mask(kind), None, 0) == b"mask"
        with pytest.raises(TypeError, match=r"must return str or bytes, got .* \(Mask\)"):
            wire.payload("item", lambda item, k=kind: Mask(k), 0)
        with pytest.raises(TypeError, match=r"key must be str, bytes or int, got .* \(Mask\)"):
            wire.key_bytes(Mask(kind))


@each
def test_an_argument_has_the_length_that_it_has(wire: ModuleType) -> None:
    assert wire.encode([HostileBytes(b"bytes")]) == b"*1\r\n$5\r\nbytes\r\n"
    strided = memoryview(b"abcd")[::2]
    assert wire.encode([bytearray(b"ab"), strided]) == b"*2\r\n$2\r\nab\r\n$2\r\nac\r\n"
    with pytest.raises(TypeError):
        wire.encode([1.5])


@each
def test_a_request_has_no_negative_sizes(wire: ModuleType) -> None:
    # The fallback, reading on where it had been, would never have come to an end.
    with pytest.raises(ValueError, match="negative"):
        wire.split(b"*999999999999\r\n$-5\r\n")


@each
def test_an_item_over_the_limit_is_not_kept_alive(wire: ModuleType) -> None:
    text = "https://example.org/" * 3
    items = [{"url": "a", "text": text}, {"url": "b", "text": text}]
    limited = encoder(wire, dumps=lambda item: item["text"], key="url", limit=10)
    before = sys.getrefcount(text)
    for _ in range(50):
        assert len(limited.encode(items, None, True).bad) == 2
    gc.collect()
    assert sys.getrefcount(text) == before


@each
def test_good_are_those_that_were_read_whatever_became_of_the_list(wire: ModuleType) -> None:
    items = ["a", "b", "c", "d"]

    def key(item: str) -> str:
        items.pop()
        return item

    chunk = encoder(wire, key=key).encode(items, None, True)
    assert (chunk.entries, chunk.good) == (2, 2)


@each
def test_a_serializer_may_return_empty_bytes(wire: ModuleType) -> None:
    # A copy of zero bytes, which the sanitizers reported.
    for made in ("", b""):
        chunk = encoder(wire, dumps=lambda item, made=made: made).encode(["a"], None, False)
        assert entries_of(wire, chunk) == [(b"0", b"")]


# --- single items of a writer


@each
def test_an_intake_accepts_what_needs_no_checks_of_the_writer(wire: ModuleType) -> None:
    flags, codec = (False, None), SimpleNamespace(dumps=json.dumps, warn=None, scorer=0.5)
    adds: list[Any] = []
    intake = wire.Intake("url", 40)
    item = {"url": "/é"}

    def put(score: Any, given: tuple[Any, ...] = flags, using: Any = codec) -> bool:
        taken: bool = intake.put(item, score, given, using)
        return taken

    assert put(1) is False  # it is closed
    intake.open(adds, flags, codec, 3)
    another = SimpleNamespace(dumps=repr, scorer=0.5)
    refused = [put(each) for each in (True, 2**53, math.nan, "1", 10**30)]
    assert not any([*refused, put(1, (0, None)), put(1, (False,)), put(1, flags, another)])
    with pytest.raises(ValueError, match="more than max_item_bytes=40"):
        intake.put({"url": "a" * 40}, 1, flags, codec)
    assert [put(each) for each in (None, 7, -0.0, 1)] == [True, True, True, False]
    sent = json.dumps(item).encode(), b"/\xc3\xa9"
    assert adds == [sent, 0.5, item, sent, 7.0, item, sent, -0.0, item]
    assert intake.close() == 3 and type(adds[4]) is float


@each
def test_an_intake_that_is_closed_while_it_serialises_accepts_nothing(wire: ModuleType) -> None:
    adds: list[Any] = []
    intake = wire.Intake(None, 0)

    def dumps(item: Any) -> str:
        intake.close()
        return "closed"

    codec = SimpleNamespace(dumps=dumps, warn=None, scorer=0.0)
    intake.open(adds, (), codec, 3)
    assert intake.put("a", 1, (), codec) is False and adds == [] and intake.close() == 0
