"""The identity of items, their stored bytes, and the results of adds."""

from __future__ import annotations

import binascii
import itertools
import math
import random
import unicodedata
from collections import namedtuple
from collections.abc import Callable, Iterable
from hashlib import blake2b
from types import SimpleNamespace
from typing import Any

import pytest
import servers
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st
from selection import drawn

from redset import AddResult, Key, ScheduledSet, SortedSet, TimeSortedSet
from redset._operations import adding
from redset.exceptions import AddError, Full, OptionsDiffer
from redset.serializers import JSONSerializer, NamedtupleSerializer

P = "jobs:{jobs}"


def digest(key: str | bytes) -> bytes:
    data = key if isinstance(key, bytes) else key.encode()
    return blake2b(data, digest_size=16).digest()


def keys(raw: Any) -> set[bytes]:
    return set(servers.keys(raw))


def page(url: Any, n: int = 0) -> dict[str, Any]:
    return {"url": url, "n": n}


# --- the key


@pytest.mark.parametrize("key", ["url", lambda item: item["url"]], ids=["field", "callable"])
def test_items_with_equal_keys_are_one_item(make_set: Callable[..., Any], key: Any) -> None:
    pages = make_set(key=key)
    assert pages.add(page("/a", 1), 1) == 1
    assert pages.add(page("/a", 2), 2) == 2
    assert pages.add(page("/b", 1), 3) == 3
    assert pages.size() == 2
    assert pages.take(5) == [page("/a", 2), page("/b", 1)]


def test_several_fields_make_the_identity(make_set: Callable[..., Any]) -> None:
    def job(customer: Any, kind: Any, n: int = 0) -> dict[str, Any]:
        return {"customer": customer, "kind": kind, "n": n}

    jobs = make_set(key=("customer", "kind"), remember=True)
    assert jobs.add(job("a", "bc", 1), 1) == 1
    more = [job("ab", "c"), job("a", "bc", 2), job(1, "2"), job("1", 2)]
    assert jobs.add_many(more) == (2, 0, 2, 0)
    assert jobs.size() == 3  # ("a", "bc") and ("ab", "c") are two; 1 and "1" are one
    assert jobs.add(job("a", "bc", 3), 0, lt=True) == 0
    assert jobs.get(Key(("a", "bc"))) == job("a", "bc", 3)
    assert Key(("ab", "c")) in jobs and Key(("abc", "")) not in jobs
    assert jobs.discard(Key((1, "2"))) is True
    assert jobs.seen_many([Key((b"1", 2)), Key(("x", "y"))]) == [True, False]
    with jobs.buffered() as writer:
        writer.add(job("b", "c"))
    assert jobs.get(job("b", "c", 9)) == job("b", "c")
    made = SimpleNamespace(customer="a", kind="bc")
    assert make_set(key=("customer", "kind"), remember=True).score(made) == 0


def test_a_field_of_several_that_lacks_is_named(make_set: Callable[..., Any]) -> None:
    jobs = make_set(key=("customer", "kind"))
    with pytest.raises(ValueError, match="item of type dict has no field 'kind' to be its key"):
        jobs.add({"customer": 1})
    with pytest.raises(AddError, match="has no field 'customer' to be its key") as caught:
        jobs.add_many([{"customer": 1, "kind": 1}, {"kind": 1}])
    assert caught.value.index == 1
    with pytest.raises(TypeError, match=r"key must be str, bytes or int, got .* \(list\)"):
        jobs.add({"customer": [], "kind": 1})
    for key in ((), ("a", 1)):
        with pytest.raises(TypeError, match=r"key must have the names of fields, got \("):
            make_set(key=key)
    for wrong in ((), ("a", None)):
        with pytest.raises(TypeError, match="key must be a tuple of str, bytes or int"):
            Key(wrong)  # type: ignore[arg-type]
    assert Key(("a", "b")) == Key((b"a", "b")) != Key(("ab",))


def test_the_identity_of_several_fields_has_the_length_of_each(make_set: Any, raw: Any) -> None:
    """Processes of all versions and implementations agree on it."""
    make_set(key=("a", "b")).add({"a": "x", "b": 12})
    assert raw.zrange(f"{P}:keyed", 0, -1) == [digest("1 x2 12")]


def test_without_a_key_the_stored_bytes_are_the_identity(make_set: Callable[..., Any]) -> None:
    jobs = make_set(serializer=JSONSerializer())
    assert jobs.add_many([{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1}]) == (2, 1, 0, 0)
    assert {"b": 2, "a": 1} in jobs
    assert {"b": 2} not in jobs
    text = make_set(name="text")
    assert text.add_many([1, "1", b"1", "ü", "ü".encode()]) == (2, 3, 0, 0)


def test_a_field_is_a_mappings_key_or_an_attribute(make_set: Callable[..., Any]) -> None:
    Page = namedtuple("Page", "url n")
    pages = make_set(key="url", serializer=NamedtupleSerializer(Page))
    pages.add_many([Page("/a", 1), Page("/a", 2), Page("/b", 3)], [1, 1, 2])
    assert pages.take(5) == [Page("/a", 2), Page("/b", 3)]

    class ByNumber:
        def dumps(self, item: Any) -> str:
            return str(item.n)

    things = make_set(name="things", key="url", serializer=ByNumber())
    assert things.add_many([SimpleNamespace(url="/a", n=n) for n in (1, 2)]) == (1, 1, 0, 0)
    assert things.pop() == "2"


def test_1_and_its_texts_are_one_key(make_set: Callable[..., Any]) -> None:
    def key(item: Any) -> Any:
        return b"1" if item == "bytes" else 1 if item == "int" else item

    things = make_set(key=key)
    assert things.add_many(["int", "1", "bytes", "2"]) == (2, 2, 0, 0)
    for one in (1, "1", b"1"):
        assert Key(one) in things
        assert things.get(Key(one)) == "bytes"
    for other in (-1, "01", b"1 ", "1\n"):
        assert Key(other) not in things
    assert things.add("int", 5) == 5
    assert [*map(things.score, ("1", "bytes", Key(1)))] == [5, 5, 5]


@pytest.mark.parametrize("key", ["ü", "日本", "🦊", "", "a\0b", "a\r\nb", b"\xff\xfe", -(2**70)])
def test_a_key_may_be_any_text_bytes_or_number(
    make_set: Callable[..., Any], raw: Any, key: Any
) -> None:
    things = make_set(key=lambda item: key)
    assert things.add("thing") == 0
    data = key if isinstance(key, bytes) else str(key).encode()
    assert raw.zrange(f"{P}:keyed", 0, -1) == [digest(data)]
    assert Key(key) in things
    assert things.get(Key(key)) == "thing"
    assert things.discard(Key(key))


def test_nothing_is_normalised(make_set: Callable[..., Any]) -> None:
    pages = make_set(key="url", remember=True)
    composed = "/é"
    different = [composed, unicodedata.normalize("NFD", composed), "/É", "/%C3%A9", "/é/", "/é "]
    assert pages.add_many(map(page, different)).added == len(different)
    assert pages.seen_many(map(Key, different)) == [True] * len(different)


# --- Key


def test_a_key_stands_for_the_item_wherever_one_is_asked_about(
    make_set: Callable[..., Any],
) -> None:
    for remember in (True, 60):
        pages = make_set(name=f"pages-{remember}", key="url", remember=remember)
        pages.add_many([page(f"/{n}", n) for n in range(6)], range(6))
        assert Key("/1") in pages
        assert Key("/9") not in pages
        assert pages.contains(Key("/1"))
        assert not pages.contains(Key("/9"))
        assert pages.score(Key("/1")) == 1
        assert pages.scores([Key("/2"), page("/1"), Key("/9")]) == [2, 1, None]
        assert pages.get(Key("/1")) == page("/1", 1)
        assert pages.get(page("/1", 99)) == page("/1", 1)
        assert pages.get(Key("/9")) is None
        assert pages.seen(Key("/0"))
        assert pages.seen_many([Key("/0"), Key("/9"), page("/1")]) == [True, False, True]
        assert pages.forget(Key("/0"))
        assert not pages.forget(Key("/0"))
        assert pages.forget_many([Key("/1"), page("/2"), Key("/9")]) == 2
        assert pages.discard(Key("/0"))
        assert not pages.discard(Key("/0"))
        assert pages.discard(Key("/3"), forget=True)
        assert not pages.seen(Key("/3"))
        assert pages.discard_many([Key("/1"), page("/2"), Key("/9")]) == 2
        pages.remove(Key("/4"))
        with pytest.raises(KeyError):
            pages.remove(Key("/4"))
        assert pages.peek_many(9) == [page("/5", 5)]


def test_a_set_with_a_key_is_iterated_through_every_kind_of_client(
    make_set: Callable[..., Any],
) -> None:
    # Its members are digests, which are not text: some clients decode their replies.
    pages = make_set(key="url")
    many = [page(f"/{n}", n) for n in range(1200)]
    pages.add_many(many, range(1200))
    assert list(pages) == many


def test_without_a_key_a_key_stands_for_the_stored_bytes(make_set: Callable[..., Any]) -> None:
    jobs = make_set(remember=True)
    jobs.add_many(["a", "1", "ü"], [1, 2, 3])
    assert jobs.scores([Key("a"), Key(1), Key("ü".encode()), Key("b")]) == [1, 2, 3, None]
    assert jobs.get(Key(1)) == "1"
    assert jobs.seen_many([Key("a"), Key("b")]) == [True, False]
    assert jobs.discard(Key("a"), forget=True)
    assert jobs.add("a") == 0


def test_keys_that_stand_for_one_item_are_equal() -> None:
    assert Key(1) == Key("1") == Key(b"1")
    assert len({Key(1), Key("1"), Key(b"1"), Key("2")}) == 2
    assert Key("1") != "1"
    assert repr(Key(b"1")) == "Key(b'1')"
    for what in (None, 1.0, ["a"], Key("a")):
        with pytest.raises(TypeError, match="key must be str, bytes or int, got"):
            Key(what)  # type: ignore[arg-type]


# --- payloads


def test_a_plain_add_of_a_queued_item_replaces_its_payload(
    make_set: Callable[..., Any], raw: Any
) -> None:
    pages = make_set(key="url")
    pages.add(page("/a", 1), 5)
    assert pages.add(page("/a", 2), 5) == 5
    assert pages.get(Key("/a")) == page("/a", 2)
    assert pages.add_many([page("/a", n) for n in range(3, 700)], 5) == (0, 697, 0, 0)
    assert pages.peek() == page("/a", 699)
    assert raw.hlen(f"{P}:items") == 1


def test_the_payload_goes_with_the_score(make_set: Callable[..., Any]) -> None:
    pages = make_set(key="url")
    pages.add(page("/a", 1), 5)
    for flags, score, moves in (
        ({"lt": True}, 6, False),
        ({"lt": True}, 5, False),
        ({"nx": True}, 4, False),
        ({"gt": True}, 4, False),
        ({"xx": True}, 5, False),
        ({"lt": True}, 4, True),
        ({"xx": True, "gt": True}, 4.5, True),
        ({"xx": True}, 2, True),
    ):
        before = pages.peek(), pages.peek_score()
        offered = page("/a", 100 + score)
        assert pages.add(offered, score, **flags) == (score if moves else None)
        assert (pages.peek(), pages.peek_score()) == ((offered, score) if moves else before)
    # Of several in one chunk it is that of the best score.
    offers = [page("/b", n) for n in range(5)]
    pages.add_many(offers, [3, 1, 2, 1, 4], lt=True)
    assert pages.get(Key("/b")) == offers[1]
    pages.add_many(offers, [3, 5, 2, 5, 4], gt=True)
    assert pages.get(Key("/b")) == offers[1]
    assert pages.score(Key("/b")) == 5


def test_with_a_key_the_default_serializer_writes_json(
    make_set: Callable[..., Any], raw: Any
) -> None:
    pages = make_set(key="url")
    assert isinstance(pages.serializer, JSONSerializer)
    pages.add({"url": "/ü", "n": [1, None, 2.5]})
    assert raw.hvals(f"{P}:items") == ['{"n":[1,null,2.5],"url":"/ü"}'.encode()]
    assert pages.pop() == {"url": "/ü", "n": [1, None, 2.5]}
    assert not isinstance(make_set(name="plain").serializer, JSONSerializer)


# --- the stored bytes


NAMES = {
    "jobs": b"jobs:{jobs}",
    b"jobs": b"jobs:{jobs}",
    "crawl:de": b"crawl:de:{crawl:de}",
    "bücher": "bücher:{bücher}".encode(),
    b"\xff \n": b"\xff \n:{\xff \n}",
    "{a}:jobs": b"{a}:jobs",
    "jobs:{a}": b"jobs:{a}",
    "x{a}{b}y": b"x{a}{b}y",
}


def slot(key: bytes) -> int:
    """The hash slot of a key, as the cluster specification has it."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1)
    if start >= 0 and end > start + 1:
        key = key[start + 1 : end]
    return binascii.crc_hqx(key, 0) % 16384


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_all_keys_of_a_set_begin_with_its_name_and_are_in_its_slot(
    make_set: Callable[..., Any], raw: Any, name: Any
) -> None:
    prefix = NAMES[name]
    data = name if isinstance(name, bytes) else name.encode()
    pages = make_set(name=name, key="url", remember=True)
    pages.add(page("/a"))
    epoch = raw.hget(prefix + b":meta", "epoch")
    second = {prefix + end for end in (b":keyed", b":items", b":meta", b":seen:" + epoch + b":0")}
    assert keys(raw) == second
    pages.clear()
    make_set(name=name, remember=60).add("a")
    assert keys(raw) == {data, prefix + b":meta", prefix + b":seen"}
    for key in second | keys(raw):
        assert key.startswith(data)
        assert slot(key) == slot(data)


def test_a_set_with_a_key_is_stored_as_digests_and_payloads(
    make_set: Callable[..., Any], raw: Any
) -> None:
    pages = make_set(key="url")
    pages.add_many([page("/a", 1), page("/ü", 2)], [2.5, math.inf])
    assert keys(raw) == {f"{P}:{end}".encode() for end in ("keyed", "items", "meta")}
    assert raw.zrange(f"{P}:keyed", 0, -1, withscores=True) == [
        (digest("/a"), 2.5),
        (digest("/ü"), math.inf),
    ]
    assert raw.hgetall(f"{P}:items") == {
        digest("/a"): b'{"n":1,"url":"/a"}',
        digest("/ü"): '{"n":2,"url":"/ü"}'.encode(),
    }
    # An item that leaves the queue leaves no payload.
    pages.add_many([page(f"/{n}") for n in range(5)], range(5))
    assert pages.pop() == page("/0")
    assert pages.discard_many([Key("/1"), Key("/2")]) == 2
    assert raw.hlen(f"{P}:items") == raw.zcard(f"{P}:keyed") == 4
    pages.take(10)
    assert keys(raw) == {f"{P}:meta".encode()}
    pages.clear()
    assert keys(raw) == set()


@pytest.mark.parametrize("cls", [SortedSet, TimeSortedSet, ScheduledSet])
def test_a_plain_set_writes_no_other_key(
    make_set: Callable[..., Any], raw: Any, cls: type[SortedSet[Any]]
) -> None:
    for duplicates in ("move", "keep", "lowest", "highest"):
        jobs = make_set(cls, duplicates=duplicates, max_size=2000, max_item_bytes=100)
        jobs.add("a")
        jobs.add_many([f"{n % 200}" for n in range(300)])
        for flags in CONDITIONS.values():
            jobs.add("b", 5, **flags)
            jobs.add_many(["b", "c"], [4, 5], **flags)
            list(jobs.add_new(["b", "d"], 3, **flags))
        jobs.peek_many(3), jobs.peek_score(), list(jobs), jobs.get("b"), Key("b") in jobs
        jobs.pop(), jobs.take(5), jobs.discard("b"), jobs.discard_many(["c", "d"])
        assert keys(raw) == {b"jobs"}
        assert raw.type("jobs") == b"zset"
        assert jobs.clear()
        assert keys(raw) == set()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"key": "url"}, b"key=yes remember=no ties=no"),
        ({"remember": True}, b"key=no remember=ever ties=no"),
        ({"remember": 60}, b"key=no remember=limited ties=no"),
        ({"key": "url", "remember": True}, b"key=yes remember=ever ties=no"),
        ({"key": "url", "remember": 60}, b"key=yes remember=limited ties=no"),
    ],
    ids=str,
)
def test_the_meta_holds_what_the_set_was_made_with(
    make_set: Callable[..., Any], raw: Any, options: Any, text: bytes
) -> None:
    pages = make_set(serializer=JSONSerializer(), **options)
    # A refused add makes nothing, and neither does a look.
    assert pages.add(page("/a"), xx=True) is None
    assert pages.add_many([page("/a"), page("/b")], xx=True) == (0, 0, 2, 0)
    assert pages.get(page("/a")) is None
    pages.discard(page("/a"))
    assert keys(raw) == set()
    pages.add_many([page("/a"), page("/b"), page("/a")])
    meta = raw.hgetall(f"{P}:meta")
    expected = {b"layout": b"1", b"options": text}
    if "remember" in options:
        expected[b"epoch"] = epoch = meta[b"epoch"]
        assert len(epoch) == 16
        assert 0 <= int(epoch, 16) < 2**64
    if options.get("remember") is True:
        expected |= {b"level": b"0", b"split": b"0", b"count": b"2"}
    assert meta == expected
    # It stays as it was written first.
    make_set(serializer=JSONSerializer(), duplicates="keep", max_size=9, **options).add(page("/a"))
    pages.take(5)
    assert raw.hgetall(f"{P}:meta") == expected


# --- other options

KINDS: list[dict[str, Any]] = [
    {"key": str},
    {"remember": True},
    {"remember": 60},
    {"key": str, "remember": True},
    {"key": str, "remember": 60},
]


def said(options: dict[str, Any]) -> str:
    kind = {True: "ever", None: "no"}.get(options.get("remember"), "limited")
    return f"key={'yes' if 'key' in options else 'no'} remember={kind} ties=no"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    list(itertools.permutations(KINDS, 2)),
    ids=lambda options: said(options).removesuffix(" ties=no").replace(" ", ","),
)
def test_every_other_kind_of_set_is_refused_until_the_set_is_cleared(
    server_client: Any, any_server: servers.Server, theirs: Any, ours: Any
) -> None:
    first = SortedSet(server_client, "jobs", **theirs)
    second = SortedSet(server_client, "jobs", **ours)
    first.add_many(["a", "b"])
    first.take(2)  # its options also hold while nothing is queued
    before = {key: any_server.raw.dump(key) for key in keys(any_server.raw)}
    both = f"'jobs' was made with {said(theirs)}, this object has {said(ours)}"
    for flags in ({}, {"nx": True}, {"lt": True}, {"xx": True}):
        with pytest.raises(OptionsDiffer, match=both):
            second.add("c", **flags)
        for bulk in (second.add_many, lambda *args, **flags: list(second.add_new(*args, **flags))):
            with pytest.raises(AddError, match=both) as caught:
                bulk(["c", "d"], **flags)
            assert isinstance(caught.value, OptionsDiffer)
    assert {key: any_server.raw.dump(key) for key in keys(any_server.raw)} == before
    first.clear()
    assert second.add_many(["a", "c"]).added == 2
    with pytest.raises(OptionsDiffer, match=f"made with {said(ours)}.*has {said(theirs)}"):
        first.add("a")


@pytest.mark.parametrize("remember", [True, 60])
def test_a_plain_set_may_be_given_a_memory(
    make_set: Callable[..., Any], raw: Any, remember: Any
) -> None:
    plain = make_set()
    plain.add_many(["a", "b", "c"], [1, 2, 3])
    jobs = make_set(remember=remember)
    assert jobs.seen_many(["a", "b", "c"]) == [False] * 3
    # A queued item becomes known with its next add that is accepted.
    assert jobs.add("a", 0) == 0
    assert jobs.add("b", 0, nx=True) is None
    assert jobs.seen_many(["a", "b", "c"]) == [True, False, False]
    assert jobs.add("a", 5) is None
    assert jobs.take(3) == ["a", "b", "c"]
    assert jobs.add_many(["a", "b", "c"]) == (2, 0, 1, 0)
    # Plain processes go on, and know of no memory.
    assert plain.add("a", 7) == 7
    assert plain.pop() == "b"


# --- the table: results of adds

CONDITIONS: dict[str, dict[str, bool]] = {
    "plain": {},
    "nx": {"nx": True},
    "lt": {"lt": True},
    "gt": {"gt": True},
    "xx": {"xx": True},
    "xxlt": {"xx": True, "lt": True},
    "xxgt": {"xx": True, "gt": True},
}
DUPLICATES = {"plain": "move", "nx": "keep", "lt": "lowest", "gt": "highest"}
LOWER, SAME, HIGHER = -3.5, 5.0, math.inf

# a added, u updated, r refused: for a lower score, the same, a higher one.
TABLE: dict[str, dict[str, str]] = {
    row: dict(zip(CONDITIONS, outcomes.split(), strict=True))
    for outcomes, row in (
        # plain nx  lt  gt  xx xxlt xxgt
        ("aaa aaa aaa aaa rrr rrr rrr", "new"),
        ("uuu rrr urr rru uru urr rru", "queued"),
        ("rrr rrr urr rru uru urr rru", "queued, known"),
        ("rrr rrr rrr rrr rrr rrr rrr", "gone, known"),
    )
}
COUNTS = {
    "a": AddResult(added=1),
    "u": AddResult(updated=1),
    "r": AddResult(refused=1),
}


def arranged(row: str, remember: Any, jobs: SortedSet[Any], item: Any) -> None:
    """Bring an item into the state that a row of the table names, at score 5."""
    jobs.add(item, SAME)
    if row in ("new", "gone, known"):
        jobs.pop()
    if remember and row in ("new", "queued"):
        jobs.forget(item)


def calls(condition: str) -> Iterable[tuple[str, str, Callable[..., Any]]]:
    """Every way of adding one item: its name, the set's duplicates, and the call itself."""
    flags = CONDITIONS[condition]
    # Flags override the option of the set.
    duplicates = "move" if condition == "plain" else "keep" if condition != "nx" else "highest"
    yield "add", duplicates, lambda s, item, score, **more: s.add(item, score, **flags, **more)
    yield (
        "add_many",
        duplicates,
        lambda s, item, score, **more: s.add_many([item], score, **flags, **more),
    )
    yield (
        "add_new",
        duplicates,
        lambda s, item, score, **more: list(s.add_new([item], [score], **flags, **more)),
    )
    if condition in DUPLICATES:
        said = DUPLICATES[condition]
        yield "add by duplicates", said, lambda s, item, score, **more: s.add(item, score, **more)
        yield (
            "add_many by duplicates",
            said,
            lambda s, item, score, **more: s.add_many([item], [score], **more),
        )


@pytest.mark.parametrize("row", TABLE)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_an_add_has_the_documented_result_for_each_state_of_its_item(
    server_client: Any, row: str, condition: str
) -> None:
    names = itertools.count()
    for keyed, remember, again in itertools.product((False, True), (None, True, 60), (False, True)):
        if remember is None and (again or "known" in row):
            continue
        # As if it were not known.
        as_row = {"gone, known": "new", "queued, known": "queued"}.get(row, row) if again else row
        old, offered = (page("/a", 1), page("/a", 2)) if keyed else ("/a", "/a")
        for way, duplicates, call in calls(condition):
            for number, score in enumerate((LOWER, SAME, HIGHER)):
                jobs: SortedSet[Any] = SortedSet(
                    server_client,
                    f"jobs-{next(names)}",
                    key="url" if keyed else None,
                    remember=remember,
                    duplicates=duplicates,  # type: ignore[arg-type]
                )
                arranged(row, remember, jobs, old)
                returned = call(jobs, offered, score, **({"again": True} if again else {}))
                outcome = TABLE[as_row][condition][number]
                accepted = outcome != "r"
                case = keyed, remember, again, way, score
                if way.startswith("add_many"):
                    assert returned == COUNTS[outcome], case
                elif way == "add_new":
                    assert returned == ([offered] if outcome == "a" else []), case
                else:
                    assert returned == (score if accepted else None), case
                queued = row.startswith("queued")
                assert jobs.score(old) == (score if accepted else SAME if queued else None), case
                assert jobs.get(old) == (offered if accepted else old if queued else None), case
                if remember:
                    assert jobs.seen(old) == (accepted or "known" in row), case


def test_a_score_that_lies_to_the_last_digit_beside_the_queued_one_is_another(
    make_set: Callable[..., Any],
) -> None:
    near = 1732500000.1234567
    below, above = math.nextafter(near, 0), math.nextafter(near, math.inf)
    for options in ({}, {"key": str}, {"remember": True}):
        jobs = make_set(name=f"jobs-{options}", **options)
        assert jobs.add("a", near) == near
        for flags in ({"lt": True}, {"gt": True}, {"xx": True}):
            assert jobs.add("a", near, **flags) is None
        assert jobs.add("a", below, gt=True) is None
        assert jobs.add("a", below, lt=True) == below
        assert jobs.add("a", near, gt=True) == near
        assert jobs.add("a", above, lt=True) is None
        assert jobs.add("a", above, xx=True) == above
        assert jobs.add("a", math.inf, gt=True) == math.inf
        assert jobs.add("a", math.inf, gt=True) is None
        assert jobs.add("a", math.inf, xx=True) is None
        assert jobs.add("a", -math.inf, lt=True) == -math.inf
        assert jobs.add("a", -math.inf, xx=True, lt=True) is None


def test_duplicates_decides_an_add_without_flags(make_set: Callable[..., Any]) -> None:
    for options in ({}, {"key": str}):
        for duplicates, scores in (
            ("move", [2, 9, 5]),
            ("keep", [5, 5, 5]),
            ("lowest", [2, 2, 2]),
            ("highest", [5, 9, 9]),
        ):
            jobs = make_set(name=f"{duplicates}-{options}", duplicates=duplicates, **options)
            jobs.add("a", 5)
            found = []
            for score in (2, 9, 5):
                jobs.add("a", score)
                found.append(jobs.score("a"))
            assert found == scores
            assert jobs.add_many(["a", "b", "c", "b"], [7, 1, 1, 3]).added == 2
            assert jobs.score("b") == {"move": 3, "highest": 3}.get(duplicates, 1)


def test_again_treats_a_known_item_as_not_known(make_set: Callable[..., Any]) -> None:
    for remember in (True, 60):
        for key in (None, str):
            jobs = make_set(name=f"{remember}-{key}", key=key, remember=remember)
            jobs.add_many(["a", "b"], [1, 2])
            assert jobs.pop() == "a"
            assert jobs.add("a") is None
            assert jobs.add("a", 5, again=True) == 5
            assert jobs.add("b", 6) is None
            assert jobs.add("b", 6, again=True) == 6
            assert jobs.take(2, with_scores=True) == [("a", 5), ("b", 6)]
            assert jobs.add_many(["a", "b", "c", "a"], [1, 2, 3, 4], again=True) == (3, 1, 0, 0)
            assert jobs.scores(["a", "b", "c"]) == [4, 2, 3]
            # It is known afterwards, as before.
            assert jobs.add_many(["a", "b", "c"]) == (0, 0, 3, 0)


# --- the order of input


class Model:
    """A set in Python: the table once more, this time as rules."""

    def __init__(self, remember: bool) -> None:
        self.remember = remember
        self.queued: dict[str, tuple[float, Any]] = {}
        self.known: set[str] = set()

    def add(self, url: str, score: float, payload: Any, condition: str, how: str) -> str:
        known = self.remember and how != "again" and url in self.known
        outcome = "r"
        if url not in self.queued:
            if not known and not condition.startswith("xx"):
                outcome = "a"
        elif condition == "plain":
            if not known:
                outcome = "u"
        elif condition != "nx":
            current = self.queued[url][0]
            wanted = {"lt": score < current, "gt": score > current, "xx": score != current}
            if wanted[condition[-2:]]:
                outcome = "u"
        if outcome != "r":
            self.queued[url] = score, payload
            if self.remember and how != "aside":
                self.known.add(url)
        return outcome


#: The values of remember in an add.
HOWS: dict[str, dict[str, bool]] = {"": {}, "again": {"again": True}, "aside": {"remember": False}}


def combinations() -> list[tuple[str, str, str, bool, Any]]:
    """(condition, duplicates, how, keyed, remember): every one that there can be."""
    return [
        (condition, duplicates, how, keyed, remember)
        for keyed, remember, how in itertools.product((False, True), (None, True, 60), HOWS)
        if remember or not how
        for condition, duplicates in [
            *((name, "keep" if name != "plain" else "move") for name in CONDITIONS),
            *((name, said) for name, said in DUPLICATES.items() if name != "plain"),
        ]
    ]


@pytest.fixture
def one_server(all_servers: servers.Servers) -> servers.AnyServer:
    """A real server, for behaviour that is the same on all of them."""
    why = ""
    for kind in servers.REAL:
        try:
            found = all_servers.get(kind)
        except servers.Missing as missing:
            why = f"{why} {missing}"
        else:
            found.flush()
            return found
    raise servers.Missing(why)


class Input:
    """Items, scores and the state before them, for a set with or without a key."""

    def __init__(self, keyed: bool, remember: Any, condition: str, duplicates: str, how: str):
        self.keyed = keyed
        self.remember = remember
        by_duplicates = condition in DUPLICATES and DUPLICATES[condition] == duplicates
        self.flags = {} if by_duplicates else dict(CONDITIONS[condition])
        self.flags |= HOWS[how]
        self.options: dict[str, Any] = {
            "key": "url" if keyed else None,
            "remember": remember,
            "duplicates": duplicates,
        }

    def items(self, urls: Iterable[str], first: int = 1000) -> list[Any]:
        return [page(url, first + n) if self.keyed else url for n, url in enumerate(urls)]

    def url(self, item: Any) -> str:
        return str(item["url"] if self.keyed else item)

    def begin(self, jobs: SortedSet[Any], before: dict[str, tuple[str, float]]) -> None:
        """Bring items into rows of the table."""
        items = dict(zip(before, self.items(before, 0), strict=True))
        gone = [items[url] for url, (row, _) in before.items() if row == "gone, known"]
        jobs.add_many(items.values(), [score for _, score in before.values()])
        jobs.discard_many(gone)
        if self.remember:
            jobs.forget_many(items[url] for url, (row, _) in before.items() if row == "queued")


def state(jobs: SortedSet[Any], urls: list[str], given: Input) -> dict[str, Any]:
    items = given.items(urls)
    return {
        "scores": dict(zip(urls, jobs.scores(items), strict=True)),
        "payloads": {given.url(item): item for item in jobs},
        "known": jobs.seen_many(items) if given.remember else None,
        "size": jobs.size(),
    }


URLS = [f"/{n}" for n in range(8)]
ROWS = ["queued", "queued, known", "gone, known"]
SCORES = st.sampled_from([-math.inf, -1.5, 0, 1, 2, 2**60, math.inf, math.nan])


@drawn(
    250,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    combination=st.sampled_from(combinations()),
    before=st.dictionaries(
        st.sampled_from(URLS),
        st.tuples(st.sampled_from(ROWS), SCORES.filter(lambda score: score == score)),
    ),
    added=st.lists(st.tuples(st.sampled_from(URLS), SCORES), max_size=40),
)
@example(
    combination=("plain", "move", "", True, True),
    before={"/0": ("queued", 1)},
    added=[("/0", 2), ("/0", 3)],
)
def test_a_bulk_add_is_adding_one_after_another(
    one_server: servers.AnyServer,
    any_implementation: str,
    monkeypatch: pytest.MonkeyPatch,
    combination: tuple[str, str, str, bool, Any],
    before: dict[str, tuple[str, float]],
    added: list[tuple[str, float]],
) -> None:
    # Small chunks, so that short lists go over several.
    monkeypatch.setattr(adding, "CHUNK", 7)
    monkeypatch.setattr(adding, "SCRIPT_CHUNK", 7)
    one_server.flush()
    client = one_server.client()
    condition, duplicates, how, keyed, remember = combination
    given = Input(keyed, remember, condition, duplicates, how)
    sets: dict[str, SortedSet[Any]] = {
        name: SortedSet(client, name, **given.options) for name in ("single", "bulk", "new")
    }
    for jobs in sets.values():
        given.begin(jobs, before)
    items = given.items(url for url, _ in added)
    scores = [score for _, score in added]

    counts = [0, 0, 0, 0]
    new = []
    for item, score in zip(items, scores, strict=True):
        was = sets["single"].score(item)
        try:
            became = sets["single"].add(item, score, **given.flags)
        except ValueError:  # NaN
            counts[3] += 1
            continue
        outcome = 2 if became is None else 0 if was is None else 1
        counts[outcome] += 1
        if outcome == 0:
            new.append(item)

    result = sets["bulk"].add_many(items, scores, errors="skip", **given.flags)
    assert result == tuple(counts)
    assert sum(result) == len(items)
    # From a generator, it goes by other ways.
    lazy = (item for item in items)
    assert list(sets["new"].add_new(lazy, scores, errors="skip", **given.flags)) == new
    expected = state(sets["single"], URLS, given)
    assert state(sets["bulk"], URLS, given) == expected
    assert state(sets["new"], URLS, given) == expected
    client.close()


@pytest.mark.parametrize(
    ("condition", "duplicates", "how", "keyed", "remember"),
    combinations(),
    ids=lambda value: str(value),
)
def test_many_duplicates_in_whole_chunks_count_as_single_adds(
    one_server: servers.AnyServer,
    any_implementation: str,
    condition: str,
    duplicates: str,
    how: str,
    keyed: bool,
    remember: Any,
) -> None:
    chance = random.Random(f"{condition}{duplicates}{how}{keyed}{remember}")
    urls = [f"/{n}" for n in range(160)]
    before = {
        url: (chance.choice(ROWS if remember else ["queued"]), float(chance.randrange(6)))
        for url in urls[:100]
    }
    added = [(chance.choice(urls), float(chance.randrange(6))) for _ in range(1400)]
    given = Input(keyed, remember, condition, duplicates, how)
    items = given.items(url for url, _ in added)

    model = Model(bool(remember))
    old = dict(zip(before, given.items(before, 0), strict=True))
    for url, (row, score) in before.items():
        if row != "gone, known":
            model.queued[url] = score, old[url]
        if row != "queued":
            model.known.add(url)
    outcomes = [
        model.add(url, score, item, condition, how)
        for (url, score), item in zip(added, items, strict=True)
    ]

    client = one_server.client()
    jobs: SortedSet[Any] = SortedSet(client, "jobs", **given.options)
    given.begin(jobs, before)
    scores = [score for _, score in added]
    assert jobs.add_many(items, scores, **given.flags) == (*map(outcomes.count, "aur"), 0)
    found = state(jobs, urls, given)
    assert found["scores"] == {url: model.queued.get(url, (None, None))[0] for url in urls}
    assert found["payloads"] == {url: payload for url, (_, payload) in model.queued.items()}
    assert found["known"] == ([url in model.known for url in urls] if remember else None)
    assert found["size"] == len(model.queued)

    other: SortedSet[Any] = SortedSet(client, "other", **given.options)
    given.begin(other, before)
    new = [item for item, outcome in zip(items, outcomes, strict=True) if outcome == "a"]
    assert list(other.add_new(items, scores, **given.flags)) == new
    assert state(other, urls, given) == found
    client.close()


# --- max_size


@pytest.mark.parametrize("remember", [True, 60])
def test_an_item_that_a_full_set_refused_is_not_known(
    make_set: Callable[..., Any], raw: Any, remember: Any
) -> None:
    for key in (None, "url"):
        raw.flushall()
        pages = make_set(key=key, remember=remember, max_size=3, serializer=JSONSerializer())
        with pytest.raises(Full):
            pages.add_many([page("/0"), page("/1"), page("/2"), page("/3")])
        assert keys(raw) == set()  # not even its options
        assert pages.add_many([page("/0"), page("/1"), page("/0"), page("/2")]) == (3, 0, 1, 0)
        stored = {name: raw.dump(name) for name in keys(raw)}
        for items, flags in (
            ([page("/3")], {}),
            ([page("/3")], {"lt": True}),
            ([page("/0"), page("/3")], {}),
            ([page("/3"), page("/4")], {"again": True}),
        ):
            with pytest.raises(Full):
                pages.add(items[-1], **flags)
            with pytest.raises(Full):
                pages.add_many(items, **flags)
            with pytest.raises(Full):
                list(pages.add_new(items, **flags))
        assert {name: raw.dump(name) for name in keys(raw)} == stored
        assert not pages.seen(page("/3"))
        # An add that does not grow it is performed.
        assert pages.add_many([page("/0"), page("/1")]) == (0, 0, 2, 0)
        assert pages.add(page("/0"), 7, again=True) == 7
        assert pages.add(page("/1"), 5, xx=True) == 5
        assert pages.add(page("/9"), xx=True) is None
        assert pages.take(2) == [page("/2"), page("/1")]
        assert pages.add_many([page("/2"), page("/1"), page("/3")]) == (1, 0, 2, 0)
        assert pages.size() == 2


# --- forgetting


@pytest.mark.parametrize("remember", [True, 60])
@pytest.mark.parametrize("key", [None, str])
def test_a_forgotten_item_may_be_added_again(server_client: Any, remember: Any, key: Any) -> None:
    jobs: SortedSet[str] = SortedSet(server_client, "jobs", key=key, remember=remember)
    assert not jobs.seen("a")
    assert not jobs.forget("a")
    assert jobs.seen_many(["a", "b"]) == [False, False]
    assert jobs.forget_many(["a", "b"]) == 0
    assert jobs.discard_many(["a", "b"], forget=True) == 0
    many = [str(n) for n in range(2500)]
    jobs.add_many(many, range(2500))
    assert jobs.seen_many([*many, "a"]) == [True] * 2500 + [False]
    assert len(jobs.take(2500)) == 2500
    assert jobs.forget_many([*many[:1200], "a", "b"]) == 1200
    assert jobs.seen_many(many) == [False] * 1200 + [True] * 1300
    assert jobs.forget_many(many[:1201]) == 1
    assert jobs.forget("2000")
    assert not jobs.forget("2000")
    assert jobs.add_many(many, 7) == (1202, 0, 1298, 0)
    assert jobs.seen_many([]) == []
    assert jobs.forget_many([]) == 0
    assert jobs.discard_many([]) == 0


@pytest.mark.parametrize("remember", [True, 60])
@pytest.mark.parametrize("key", [None, str])
def test_an_item_that_is_named_twice_is_forgotten_once(
    server_client: Any, remember: Any, key: Any
) -> None:
    jobs: SortedSet[str] = SortedSet(server_client, "jobs", key=key, remember=remember)
    jobs.add_many(["a", "b"])
    assert jobs.seen_many(["a", "a", Key("a")]) == [True] * 3
    assert jobs.forget_many(["a", "b", "a", Key("a")]) == 2
    assert jobs.discard_many(["a", "a", Key("a"), "b"]) == 2


@pytest.mark.parametrize("remember", [True, 60])
@pytest.mark.parametrize("key", [None, str])
def test_discarding_forgets_only_with_forget_true(
    make_set: Callable[..., Any], remember: Any, key: Any
) -> None:
    jobs = make_set(key=key, remember=remember)
    jobs.add_many(["a", "b", "c", "d", "e", "gone"], range(6))
    assert jobs.discard("gone")
    assert jobs.discard("a")
    assert jobs.discard_many(["b", "gone", "never"]) == 1
    assert jobs.seen_many(["a", "b", "gone", "never"]) == [True, True, True, False]
    assert jobs.add_many(["a", "b", "gone"]) == (0, 0, 3, 0)
    assert jobs.discard("c", forget=True)
    assert jobs.discard_many(["d", "never"], forget=True) == 1
    # An item that left the queue is forgotten as well, and does not count.
    assert not jobs.discard("gone", forget=True)
    assert jobs.discard_many(["a"], forget=True) == 0
    assert jobs.seen_many(["a", "b", "c", "d", "e", "gone"]) == [
        False, True, False, False, True, False,
    ]  # fmt: skip
    assert jobs.add_many(["a", "b", "c", "d", "gone"], 9) == (4, 0, 1, 0)
    assert sorted(jobs.take(9)) == ["a", "c", "d", "e", "gone"]


def test_forgetting_leaves_a_queued_item_queued(make_set: Callable[..., Any]) -> None:
    for remember in (True, 60):
        pages = make_set(name=f"pages-{remember}", key="url", remember=remember)
        pages.add(page("/a", 1), 5)
        assert pages.forget(Key("/a"))
        assert pages.get(Key("/a")) == page("/a", 1)
        # The next add that is accepted makes it known again.
        assert pages.add(page("/a", 2), 9, lt=True) is None
        assert not pages.seen(Key("/a"))
        assert pages.add(page("/a", 3), 6) == 6
        assert pages.seen(Key("/a"))
        assert pages.add(page("/a", 4), 7) is None
        assert pages.get(Key("/a")) == page("/a", 3)
