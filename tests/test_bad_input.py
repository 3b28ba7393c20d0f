"""Bad input is refused before it is sent, and a bulk call that fails reports its position."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import logging
import math
import pickle
import re
from collections import ChainMap, OrderedDict, UserDict
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

import pytest
import redis
import servers
from options import every_option, made
from proxy import Proxy
from redis.backoff import NoBackoff
from redis.retry import Retry

from redset import Key, ScheduledSet, SortedSet, TimeSortedSet
from redset._operations import codec, limits
from redset._operations.keys import PARTS
from redset.exceptions import AddError, Full, OptionsDiffer, RedsetError
from redset.serializers import JSONSerializer

NAN = float("nan")


def numbered(count: int) -> list[str]:
    return [f"item-{number:06}" for number in range(count)]


def queued(raw: redis.Redis, key: str = "jobs") -> list[tuple[bytes, float]]:
    return raw.zrange(key, 0, -1, withscores=True)


# --- scores


class Broken:
    def __float__(self) -> float:
        raise ZeroDivisionError("no number")


BAD_SCORES: dict[str, tuple[Any, type[Exception], str]] = {
    "NaN": (NAN, ValueError, "score must not be NaN"),
    "minus NaN": (-NAN, ValueError, "score must not be NaN"),
    "text of NaN": ("nan", ValueError, "score must not be NaN"),
    "text": ("soon", ValueError, r"score must be a number, got '.*' \(str\)"),
    "empty text": ("", ValueError, r"score must be a number, got '.*' \(str\)"),
    "bytes": (b"\xff", ValueError, r"score must be a number, got b.* \(bytes\)"),
    "object": (object(), TypeError, r"score must be a number, got .* \(object\)"),
    "complex": (1j, TypeError, r"score must be a number, got 1j \(complex\)"),
    "datetime": (
        datetime.datetime.now(),
        TypeError,
        r"score must be a number, got .* \(datetime\)",
    ),
    "huge": (10**400, ValueError, "score must be in the range of a float"),
    "broken": (Broken(), ZeroDivisionError, "no number"),
}


@pytest.mark.parametrize("kind", BAD_SCORES)
def test_a_bad_score_of_a_single_add_is_refused(
    make_set: Callable[..., Any], raw: Any, kind: str
) -> None:
    score, error, text = BAD_SCORES[kind]
    for options in ({}, {"key": str}, {"remember": True}):
        with pytest.raises(error, match=text):
            make_set(**options).add("a", score)
    with pytest.raises(error, match=text):
        make_set(scorer=lambda item: score).add("a")
    with pytest.raises(error, match=text):
        make_set(scorer="n", serializer=JSONSerializer()).add({"n": score})
    with pytest.raises(error, match=text):
        make_set().add_many(["a", "b"], score)
    with pytest.raises(error, match=text):
        list(make_set().add_new(["a", "b"], score))
    assert not raw.exists("jobs", "jobs:{jobs}:keyed", "jobs:{jobs}:meta")


@pytest.mark.parametrize("kind", BAD_SCORES)
def test_a_bad_score_in_a_stream_ends_it_there(
    make_set: Callable[..., Any], raw: Any, kind: str
) -> None:
    bad, error, text = BAD_SCORES[kind]
    scores = [*range(700), bad, *range(701, 1500)]
    items = numbered(1500)
    for given in (scores, iter(scores), (score for score in scores)):
        raw.flushall()
        jobs = make_set()
        with pytest.raises(AddError, match=text) as caught:
            jobs.add_many(items, given)
        assert isinstance(caught.value.__cause__, error)
        assert caught.value.result == (700, 0, 0, 0)
        assert caught.value.resume_at == caught.value.index == 700
        assert caught.value.item == "item-000700"
        assert "item 700" in str(caught.value)
        assert len(queued(raw)) == 700
        assert jobs.add_many(items[701:], scores[701:]).added == 799


def test_every_value_that_float_accepts_is_a_score(make_set: Callable[..., Any], raw: Any) -> None:
    from decimal import Decimal
    from fractions import Fraction

    good = [
        1,
        1.5,
        "2",
        " 3 ",
        b"4",
        Decimal("5.5"),
        Fraction(13, 2),
        True,
        "inf",
        -math.inf,
        2**70,
    ]
    jobs = make_set()
    for number, score in enumerate(good):
        assert jobs.add(str(number), score) == float(score)
    assert jobs.add_many([str(number) for number in range(len(good))], good) == (0, 11, 0, 0)
    assert jobs.scores([str(number) for number in range(len(good))]) == list(map(float, good))


@pytest.mark.parametrize("lazy", [False, True], ids=["list", "generator"])
@pytest.mark.parametrize("given", [0, 3, 499, 500, 1200, 2000, 2005])
def test_scores_that_end_too_soon_pair_what_they_can(
    make_set: Callable[..., Any], raw: Any, given: int, lazy: bool
) -> None:
    jobs = make_set()
    items: Any = numbered(2010)
    scores: Any = range(given)
    with pytest.raises(AddError, match="score ended before items") as caught:
        jobs.add_many(iter(items) if lazy else items, iter(scores) if lazy else scores)
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.resume_at == given
    assert caught.value.result == (given, 0, 0, 0)
    assert queued(raw) == [(item.encode(), float(n)) for n, item in enumerate(items[:given])]
    assert jobs.add_many(items[caught.value.resume_at :], range(given, 2010)).added == 2010 - given


@pytest.mark.parametrize("lazy", [False, True], ids=["list", "generator"])
@pytest.mark.parametrize("count", [0, 3, 500, 1200, 2000])
def test_surplus_scores_are_an_error_after_all_pairs_were_added(
    make_set: Callable[..., Any], raw: Any, count: int, lazy: bool
) -> None:
    jobs = make_set()
    items: Any = numbered(count)
    scores: Any = itertools.count() if lazy else range(count + 1)
    with pytest.raises(AddError, match="score has more values than items") as caught:
        jobs.add_many(iter(items) if lazy else items, scores)
    assert caught.value.resume_at == count
    assert caught.value.result == (count, 0, 0, 0)
    assert len(queued(raw)) == count


def test_an_error_of_the_scores_iterable_has_its_position(
    make_set: Callable[..., Any], raw: Any
) -> None:
    def scores() -> Iterator[int]:
        yield from range(730)
        raise OSError("no more")

    with pytest.raises(AddError, match="no more") as caught:
        make_set().add_many(numbered(2000), scores())
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.resume_at == 730
    assert len(queued(raw)) == 730


# --- items


def test_an_error_of_the_items_iterable_has_its_position(
    make_set: Callable[..., Any], raw: Any
) -> None:
    def items() -> Iterator[str]:
        yield from numbered(2730)
        raise OSError("no more")

    jobs = make_set()
    with pytest.raises(AddError, match="no more") as caught:
        jobs.add_many(items())
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.resume_at == 2730
    assert caught.value.result == (2730, 0, 0, 0)
    assert caught.value.index is None
    assert len(queued(raw)) == 2730
    new = []
    with pytest.raises(AddError):
        new.extend(make_set(name="more").add_new(items()))
    assert jobs.size() == make_set(name="more").size()


@pytest.mark.parametrize(
    ("last", "options"),
    [
        (19_999, {}),
        (9_999, {"remember": True}),
        pytest.param(999_999, {}, marks=pytest.mark.slow(4)),
    ],
    ids=["plain", "remember", "million"],
)
def test_an_item_that_cannot_be_serialised_far_into_a_generator(
    any_server: servers.Server,
    server_client: redis.Redis,
    any_implementation: str,
    last: int,
    options: Any,
) -> None:
    bad = object()

    def generator() -> Iterator[Any]:
        for number in range(last):
            yield {"n": number}
        yield bad
        yield {"n": "behind"}

    jobs: SortedSet[Any] = SortedSet(server_client, "jobs", serializer=JSONSerializer(), **options)
    with pytest.raises(AddError, match=f"item {last}.*object") as caught:
        jobs.add_many(generator())
    error = caught.value
    assert isinstance(error.__cause__, TypeError)
    assert error.item is bad
    assert error.index == error.resume_at == last
    assert error.result == (last, 0, 0, 0)
    assert any_server.raw.zcard("jobs") == last
    assert {"n": last - 1} in jobs
    assert {"n": "behind"} not in jobs


@pytest.mark.parametrize("place", [0, 1, 250, 499, 500, 1999, 2000, 2499])
def test_everything_before_a_bad_item_is_added_and_nothing_after_it(
    make_set: Callable[..., Any], raw: Any, place: int
) -> None:
    items: list[Any] = list(range(2500))
    items[place] = object()
    for given in (items, iter(items)):
        raw.flushall()
        jobs = make_set(serializer=JSONSerializer())
        with pytest.raises(AddError, match=f"item {place}") as caught:
            jobs.add_many(given)
        assert caught.value.index == caught.value.resume_at == place
        assert caught.value.item is items[place]
        assert caught.value.result == (place, 0, 0, 0)
        assert sorted(map(int, raw.zrange("jobs", 0, -1))) == list(range(place))
        # Mended, it can be gone on with from there.
        mended = [-1 if item is items[place] else item for item in items]
        assert jobs.add_many(mended[caught.value.resume_at :]).added == 2500 - place
        assert jobs.size() == 2500


def test_new_items_are_yielded_before_a_later_error(make_set: Callable[..., Any], raw: Any) -> None:
    new = []
    jobs = make_set(serializer=JSONSerializer())
    with pytest.raises(AddError, match="item 1100") as caught:
        new.extend(jobs.add_new([*range(1100), object(), 1]))
    assert new == list(range(1100))
    assert caught.value.result == (1100, 0, 0, 0)


def test_an_item_over_max_item_bytes_is_refused(make_set: Callable[..., Any], raw: Any) -> None:
    jobs = make_set(max_item_bytes=10)
    assert jobs.add("x" * 10) == 0
    assert jobs.add("ü" * 5) == 0
    with pytest.raises(ValueError, match=r"item has 11 bytes .*max_item_bytes=10"):
        jobs.add("x" * 11)
    with pytest.raises(ValueError, match="item has 12 bytes"):
        jobs.add("ü" * 6)
    with pytest.raises(AddError, match="max_item_bytes=10") as caught:
        jobs.add_many(["a", "b", "y" * 11, "c"])
    assert (caught.value.index, caught.value.result.added) == (2, 2)
    assert jobs.size() == 4
    pages = make_set(name="pages", key="url", max_item_bytes=30)
    with pytest.raises(ValueError, match="max_item_bytes=30"):
        pages.add({"url": "/", "text": "x" * 30})
    assert not raw.exists("pages:{pages}:keyed", "pages:{pages}:meta")


NO_ITEMS: list[Any] = [
    "text",
    b"bytes",
    bytearray(b"bytes"),
    {"a": 1},
    OrderedDict(a=1),
    UserDict(a=1),
    ChainMap({"a": 1}),
    MappingProxyType({"a": 1}),
    5,
    None,
    object(),
]


@pytest.mark.parametrize("what", NO_ITEMS, ids=lambda what: type(what).__name__)
def test_arguments_that_are_rarely_meant_as_items_are_refused(
    make_set: Callable[..., Any], raw: Any, what: Any
) -> None:
    jobs = make_set(remember=True)
    match = rf"(?s)items must be an iterable.* got .*\({type(what).__name__}\)"
    for call in (
        jobs.add_many,
        jobs.add_new,
        jobs.scores,
        jobs.discard_many,
        jobs.forget_many,
        jobs.seen_many,
    ):
        with pytest.raises(TypeError, match=match):
            call(what)
    assert servers.everything(raw) == {}


def test_a_mappings_keys_and_values_are_items_and_scores(
    make_set: Callable[..., Any], raw: Any
) -> None:
    given = {"a": 2, "b": 1}
    assert make_set().add_many(given.keys(), given.values()).added == 2
    assert queued(raw) == [(b"b", 1.0), (b"a", 2.0)]


class Row:
    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


BAD_KEYS: dict[str, tuple[Any, Any, type[Exception], str]] = {
    "None": (lambda item: None, {"u": 1}, TypeError, r"key must be .* got None \(NoneType\)"),
    "float": (lambda item: 1.5, {"u": 1}, TypeError, r"key must be .* got .* \(float\)"),
    "list": ("u", {"u": []}, TypeError, r"key must be .* got .* \(list\)"),
    "None in a field": ("u", {"u": None}, TypeError, r"key must be .* got None \(NoneType\)"),
    "no such field": ("u", {"v": 1}, ValueError, "dict has no field 'u' to be its key"),
    "no such attribute": ("u", Row(v=1), ValueError, "Row has no field 'u' to be its key"),
    "no mapping": ("u", 5, ValueError, "int has no field 'u' to be its key"),
    "raising": (lambda item: item["v"], {"u": 1}, KeyError, "v"),
    "surrogate": ("u", {"u": "\udcff"}, ValueError, "surrogates"),
}


@pytest.mark.parametrize("kind", BAD_KEYS)
def test_a_bad_key_is_refused(make_set: Callable[..., Any], raw: Any, kind: str) -> None:
    key, item, error, text = BAD_KEYS[kind]

    class Anything:
        def dumps(self, item: Any) -> str:
            return "payload"

    jobs = make_set(key=key, serializer=Anything())
    for call in (jobs.add, jobs.discard, jobs.score, jobs.get, jobs.remove):
        with pytest.raises(error, match=text):
            call(item)
    with pytest.raises(AddError, match=text) as caught:
        jobs.add_many([item])
    assert isinstance(caught.value.__cause__, error)
    assert (caught.value.index, caught.value.resume_at) == (0, 0)
    assert servers.everything(raw) == {}


@pytest.mark.parametrize("what", [None, 1.5, ["a"], object()], ids=lambda what: type(what).__name__)
def test_a_key_that_cannot_be_one_is_refused(what: Any) -> None:
    with pytest.raises(TypeError, match="key must be str, bytes or int, got"):
        Key(what)


def test_a_missing_score_field_is_named(make_set: Callable[..., Any], raw: Any) -> None:
    jobs = make_set(scorer="depth", serializer=JSONSerializer())
    with pytest.raises(AddError, match=r"item 1.*dict has no field 'depth' to be its score"):
        jobs.add_many([{"depth": 1}, {"n": 1}])
    assert jobs.size() == 1
    with pytest.raises(ValueError, match="dict has no field 'depth' to be its score"):
        jobs.add({"n": 1})


def test_a_scorers_error_is_the_cause(make_set: Callable[..., Any]) -> None:
    def scorer(item: str) -> float:
        if item == "item-000003":
            raise OSError("no score to be had")
        return 1.0

    jobs = make_set(scorer=scorer)
    with pytest.raises(OSError, match="no score"):
        jobs.add("item-000003")
    with pytest.raises(AddError, match="no score") as caught:
        jobs.add_many(numbered(5))
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.index == 3
    assert jobs.size() == 3


def test_a_serializer_must_give_text_or_bytes(make_set: Callable[..., Any], raw: Any) -> None:
    class Wrong:
        def dumps(self, item: Any) -> Any:
            return 5

    for options in ({}, {"key": str}):
        jobs = make_set(serializer=Wrong(), **options)
        with pytest.raises(TypeError, match=r"dumps must return str or bytes, got .* \(int\)"):
            jobs.add("a")
    assert servers.everything(raw) == {}


def test_a_bulk_removal_with_a_bad_item_removes_nothing(
    make_set: Callable[..., Any], raw: Any
) -> None:
    jobs = make_set(serializer=JSONSerializer(), remember=True)
    jobs.add_many(range(100))
    before = servers.everything(raw)
    for call in (jobs.discard_many, jobs.forget_many, jobs.scores, jobs.seen_many):
        with pytest.raises(TypeError, match="object"):
            call([1, 2, object()])
    assert servers.everything(raw) == before


# --- errors=


def test_bad_items_can_be_skipped_and_are_counted(
    make_set: Callable[..., Any], raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    items: list[Any] = list(range(1500))
    for place in (0, 3, 499, 500, 1499):
        items[place] = object()
    for number, given in enumerate((items, iter(items))):
        raw.flushall()
        caplog.clear()
        with caplog.at_level(logging.DEBUG, "redset"):
            result = make_set(serializer=JSONSerializer()).add_many(given, errors="skip")
        assert result == (1495, 0, 0, 5)
        told = [record for record in caplog.records if record.msg.startswith("skipped")]
        assert [record.args[0] for record in told] == [0, 3, 499, 500, 1499]
        warnings = [record for record in told if record.levelno == logging.WARNING]
        assert len(warnings) == (1 if number == 0 else 0)
        assert len(queued(raw)) == 1495


def test_a_callable_receives_every_bad_item(make_set: Callable[..., Any], raw: Any) -> None:
    told: list[Any] = []
    scores = [1, NAN, 3, "x", 5]
    result = make_set(remember=True).add_many(
        list("abcde"), scores, errors=lambda *bad: told.append(bad)
    )
    assert result == (3, 0, 0, 2)
    assert [(place, item, type(error)) for place, item, error in told] == [
        (1, "b", ValueError),
        (3, "d", ValueError),
    ]
    assert [member for member, _ in queued(raw)] == [b"a", b"c", b"e"]
    assert list(make_set(name="new").add_new(list("abcde"), scores, errors="skip")) == list("ace")


def test_a_callable_that_raises_ends_the_call_there(make_set: Callable[..., Any], raw: Any) -> None:
    def errors(place: int, item: Any, error: Exception) -> None:
        if place == 900:
            raise OSError("enough") from error

    items: list[Any] = list(range(2000))
    items[3] = items[900] = object()
    with pytest.raises(AddError, match="enough") as caught:
        make_set(serializer=JSONSerializer()).add_many(items, errors=errors)
    assert isinstance(caught.value.__cause__, OSError)
    assert (caught.value.index, caught.value.resume_at) == (900, 900)
    # Its chunk may have been added whole; the items after resume_at may be added again.
    assert caught.value.result.failed == 2
    assert caught.value.result.added == len(queued(raw)) >= 899


@pytest.mark.parametrize("errors", ["ignore", None, 5, ""])
def test_a_bad_value_of_errors_is_refused(
    make_set: Callable[..., Any], raw: Any, errors: Any
) -> None:
    with pytest.raises(ValueError, match="errors must be 'raise', 'skip' or a callable"):
        make_set().add_many(["a"], errors=errors)
    with pytest.raises(ValueError, match="errors must be"):
        list(make_set().add_new(["a"], errors=errors))
    assert servers.everything(raw) == {}


def test_skipping_bad_items_skips_no_other_error(make_set: Callable[..., Any], raw: Any) -> None:
    with pytest.raises(Full):
        make_set(max_size=2).add_many(["a", "b", "c"], errors="skip")
    raw.set("text", "a string")
    with pytest.raises(AddError, match="WRONGTYPE"):
        make_set(name="text").add_many(["a"], errors="skip")
    with pytest.raises(AddError, match="score ended"):
        make_set().add_many(["a", "b"], [1], errors="skip")
    assert make_set().size() == 1


# --- max_size


def test_a_full_set_refuses_a_chunk_whole(make_set: Callable[..., Any], raw: Any) -> None:
    for options in ({}, {"key": str}, {"remember": True}):
        raw.flushall()
        jobs = make_set(max_size=600, **options)
        items = numbered(1000)
        with pytest.raises(Full, match="max_size is 600") as caught:
            jobs.add_many(items)
        error = caught.value
        assert isinstance(error, AddError)
        assert isinstance(error, RedsetError)
        assert isinstance(error.__cause__, Full)
        assert error.resume_at == error.result.added == jobs.size() == 500
        assert (error.index, error.item) == (None, None)
        assert jobs.add_many(items[500:600]).added == 100
        with pytest.raises(Full) as alone:
            jobs.add("one more")
        assert not isinstance(alone.value, AddError)
        assert jobs.size() == 600
        jobs.take(300)
        assert jobs.add_many(items[600:900]).added == 300


def test_an_item_of_a_full_set_may_still_be_moved(make_set: Callable[..., Any]) -> None:
    jobs = make_set(max_size=3)
    jobs.add_many(list("abc"))
    assert jobs.add("a", 5) == 5
    assert jobs.add_many(list("abc"), [1, 2, 3]) == (0, 3, 0, 0)
    assert jobs.add("d", xx=True) is None


# --- AddError


def test_an_add_error_survives_pickling(make_set: Callable[..., Any]) -> None:
    with pytest.raises(AddError) as caught:
        make_set().add_many(["a", "b"], [1, NAN])
    with pytest.raises(Full) as full:
        make_set(name="small", max_size=1).add_many(["a", "b"])
    for error in (caught.value, full.value):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        for name in ("result", "resume_at", "index", "item"):
            assert getattr(copy, name) == getattr(error, name)
        assert copy.result.added == error.result.added


def test_resuming_gives_the_whole(make_set: Callable[..., Any], raw: Any) -> None:
    # After any number of errors, calls that resume at resume_at add each item once.
    items: list[Any] = list(range(3000))
    bad = {17, 499, 500, 1250, 2999}
    left: list[Any] = [object() if number in bad else number for number in items]
    jobs = make_set(serializer=JSONSerializer(), remember=True)
    added, failures = 0, 0
    at = 0
    while at < 3000:
        try:
            added += jobs.add_many(left[at:]).added
            break
        except AddError as error:
            failures += 1
            added += error.result.added
            at += error.resume_at
            left[at] = items[at]
    assert failures == 5
    assert added == 3000
    assert sorted(map(int, raw.zrange("jobs", 0, -1))) == items


# --- arguments of the set and of its calls


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("", ValueError, "name must not be empty"),
        (b"", ValueError, "name must not be empty"),
        (None, TypeError, r"name must be str or bytes, got None \(NoneType\)"),
        (5, TypeError, r"name must be str or bytes, got 5 \(int\)"),
        (["a"], TypeError, r"name must be str or bytes, got .* \(list\)"),
        ("\udcff", ValueError, "name must be encodable as UTF-8"),
    ],
)
def test_a_bad_name_is_refused(client: Any, name: Any, error: type[Exception], text: str) -> None:
    for cls in (SortedSet, TimeSortedSet, ScheduledSet):
        with pytest.raises(error, match=text):
            cls(client, name)


#: Each part, after prefixes of both kinds; and values that have parts of their own.
TAKEN = [
    *(f"{prefix}:{part.decode()}" for prefix in ("jobs:{jobs}", "{a}:jobs") for part in PARTS),
    "{a}:leased",
    "a{b}c:d:leased",
    b"jobs:{jobs}:seen:0123456789abcdef:0",
    "{a}:jobs:seen:00:17",
    "jobs:{jobs}:seen::3",
    "jobs:{jobs}:g:0123456789abcdef:a.example\n",
    b"\xff:{\xff}:calls",
    "redset:sets",
]


@pytest.mark.parametrize("cls", [SortedSet, TimeSortedSet, ScheduledSet])
def test_a_name_that_is_a_key_of_another_set_is_refused(client: Any, cls: Any) -> None:
    for name in TAKEN:
        with pytest.raises(ValueError, match="name must not be a key of another set, got "):
            cls(client, name)


@pytest.mark.parametrize(
    "options", [{}, {"key": str}, {"ties": "fifo"}, {"key": str, "ties": "lifo", "remember": True}]
)
def test_every_key_that_a_set_writes_is_a_name_that_no_set_can_have(
    make_set: Callable[..., Any], raw: Any, options: dict[str, Any]
) -> None:
    jobs = make_set(**options)
    jobs.add_many(map(str, range(600)))
    jobs.fail(jobs.lease(3), "no")
    first = list(jobs.lease())
    jobs.add(first[0].item, again=bool(jobs._ctx.options.remember))
    raw.zadd(jobs._ctx.keys.queue, {b"\xff" * 16: -1})
    with contextlib.suppress(Exception):
        jobs.take(1)
    make_set(name="{a}:limited", remember=60).add("a")
    written = set(servers.keys(raw)) - {b"jobs", b"{a}:limited"}
    assert len(written) >= 5
    for key in written:
        with pytest.raises(ValueError, match="another set"):
            make_set(name=key)


@pytest.mark.parametrize(
    "name",
    [
        "jobs:leased", "leased", "jobs:seen:00:1", "jobs:{jobs}:leased:", "jobs:{jobs}:mine",
        "jobs:{jobs}:seen:xyz:1", "{a}:jobs", "{a}leased", "g:0:a", "{}:items",
    ],
)  # fmt: skip
def test_a_name_that_only_looks_like_one_is_a_name(
    make_set: Callable[..., Any], raw: Any, name: str
) -> None:
    jobs = make_set(name=name)
    jobs.add("a")
    assert jobs.pop() == "a"


def test_a_name_that_ends_as_a_lock_does_is_warned_of(make_set: Callable[..., Any]) -> None:
    with pytest.warns(UserWarning, match="name should not end in __lock, got 'jobs__lock'"):
        jobs = make_set(name="jobs__lock")
    jobs.add("a")
    assert jobs.pop() == "a"


@pytest.mark.parametrize("name", ["a}b", "{}x", "a{}{b}", "a{b", b"}\xff"])
def test_braces_without_a_hash_tag_are_refused_if_a_second_key_is_needed(
    make_set: Callable[..., Any], raw: Any, name: Any
) -> None:
    for options in ({"key": str}, {"remember": True}, {"remember": 5}):
        with pytest.raises(ValueError, match="braces but no valid hash tag"):
            make_set(name=name, **options)
    jobs = make_set(name=name)
    assert jobs.add_many(["a", "b", "c"]).added == 3
    assert jobs.pop() == "a"
    assert jobs.size() == 2
    assert jobs.discard("b")
    assert not jobs.finished() and list(jobs.leased()) == []
    for call in (jobs.dead.size, jobs.lease, lambda: jobs.consume(print)):
        with pytest.raises(ValueError, match="braces"):
            call()
    assert jobs.clear() == 1
    assert jobs.finished()
    assert servers.everything(raw) == {}


BAD_OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"scorer": 5}, TypeError, r"scorer must be .* got .* \(int\)"),
    ({"scorer": b"field"}, TypeError, r"scorer must be .* got .* \(bytes\)"),
    ({"key": 5}, TypeError, r"key must be .* got .* \(int\)"),
    ({"key": b"field"}, TypeError, r"key must be .* got .* \(bytes\)"),
    ({"remember": "ever"}, TypeError, r"remember must be .* got .* \(str\)"),
    ({"remember": 0}, ValueError, "remember must be a positive number of seconds, got 0"),
    ({"remember": -5}, ValueError, "remember must be a positive number of seconds, got -5"),
    ({"remember": NAN}, ValueError, "remember must be a positive number of seconds, got nan"),
    ({"remember": math.inf}, ValueError, "remember must be a positive number"),
    ({"remember": 10**400}, ValueError, "remember must be a positive number"),
    ({"remember": datetime.timedelta(0)}, ValueError, "remember must be a positive number"),
    ({"duplicates": "drop"}, ValueError, "duplicates must be one of .* got 'drop'"),
    ({"duplicates": None}, ValueError, "duplicates must be one of .* got None"),
    ({"duplicates": []}, ValueError, "duplicates must be one of"),
    ({"known_max": -1}, ValueError, "known_max must be 0 or more, got -1"),
    ({"known_max": None}, TypeError, r"known_max must be an int, got None \(NoneType\)"),
    ({"known_max": 1e6}, TypeError, r"known_max must be an int, got .* \(float\)"),
    ({"known_max": True}, TypeError, r"known_max must be an int, got True \(bool\)"),
    ({"max_size": 0}, ValueError, "max_size must be positive, got 0"),
    ({"max_size": "5"}, TypeError, r"max_size must be an int, got '5' \(str\)"),
    ({"max_size": True}, TypeError, r"max_size must be an int, got True \(bool\)"),
    ({"max_item_bytes": -1}, ValueError, "max_item_bytes must be positive, got -1"),
    ({"max_item_bytes": 1.5}, TypeError, r"max_item_bytes must be an int, got 1.5 \(float\)"),
]


@pytest.mark.parametrize(("options", "error", "text"), BAD_OPTIONS, ids=str)
def test_a_bad_option_is_refused_and_named(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        SortedSet(redis.Redis(), "jobs", **options)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"nx": True, "xx": True}, "nx contradicts"),
        ({"nx": True, "gt": True}, "nx contradicts"),
        ({"nx": True, "lt": True}, "nx contradicts"),
        ({"gt": True, "lt": True}, "gt contradicts lt"),
        ({"xx": True, "gt": True, "lt": True}, "gt contradicts lt"),
        ({"again": True}, "again needs a set with remember="),
    ],
    ids=str,
)
def test_flags_that_contradict_are_refused(
    make_set: Callable[..., Any], raw: Any, flags: Any, text: str
) -> None:
    for options in ({}, {"key": str}):
        jobs = make_set(**options)
        for call in (jobs.add, jobs.add_many, jobs.add_new):
            with pytest.raises(ValueError, match=text):
                call(["a"] if call is not jobs.add else "a", **flags)
    assert servers.everything(raw) == {}


class _NoAnswer:
    """Refuses to be compared, as NumPy's arrays refuse to be a condition; it has no hash."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("this is not compared")

    def __repr__(self) -> str:
        return "<no answer>"


#: Calls by the flags that they take.
FLAGS: dict[str, list[Callable[[Any, Any], Any]]] = {
    **{
        flag: [
            lambda s, value, flag=flag: s.add("a", **{flag: value}),
            lambda s, value, flag=flag: s.add("a", remember=False, **{flag: value}),
            lambda s, value, flag=flag: s.add_many(["a"], **{flag: value}),
            lambda s, value, flag=flag: s.add_many(iter(["a"]), **{flag: value}),
            lambda s, value, flag=flag: s.add_new(["a"], **{flag: value}),
            lambda s, value, flag=flag: _buffered(s, "add", "a", **{flag: value}),
            lambda s, value, flag=flag: _buffered(s, "add_many", ["a"], **{flag: value}),
        ]
        for flag in ("nx", "xx", "gt", "lt", "again")
    },
    "errors": [
        lambda s, value: s.add_many(["a"], errors=value),
        lambda s, value: list(s.add_new(["a"], errors=value)),
    ],
    "with_scores": [lambda s, value: s.take(1, with_scores=value)],
    "forget": [
        lambda s, value: s.discard("a", forget=value),
        lambda s, value: s.discard_many(["a"], forget=value),
        lambda s, value: s.dead.purge(forget=value),
    ],
    "keep_memory": [lambda s, value: s.clear(keep_memory=value)],
    "if_finished": [lambda s, value: s.clear(if_finished=value)],
    "until_finished": [lambda s, value: s.consume(print, until_finished=value)],
}


def _buffered(made: Any, call: str, *args: Any, **options: Any) -> None:
    with made.buffered() as writer:
        getattr(writer, call)(*args, **options)


@pytest.mark.parametrize("value", [[], "no", 2, _NoAnswer()], ids=repr)
@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_that_is_neither_true_nor_false_is_refused_and_named(
    make_set: Callable[..., Any], raw: Any, name: str, value: Any
) -> None:
    made = make_set(remember=True)
    made.add("z")
    before = servers.everything(raw)
    got = rf"{name} must be .*, got {re.escape(repr(value))} \({type(value).__name__}\)"
    for call in FLAGS[name]:
        with pytest.raises((TypeError, ValueError), match=f"^{got}"):
            call(made, value)
    assert servers.everything(raw) == before


def test_a_flag_may_equal_true_or_false(make_set: Callable[..., Any]) -> None:
    made = make_set()
    assert made.add("a", 1, nx=1) == 1
    assert made.add("a", 2, nx=1, xx=0, gt=None) is None
    assert made.take(1, with_scores=1) == [("a", 1.0)]


def test_more_seconds_than_a_float_holds_raise_no_overflow_error(
    make_set: Callable[..., Any],
) -> None:
    jobs = make_set()
    jobs.add("a")
    jobs.fail(jobs.lease(), "no")
    assert jobs.dead.purge(before=10**400) == 0
    for options, text in (
        (
            {"lock_timeout": True},
            "timeout must be a number of seconds or a timedelta, got True",
        ),
        ({"lock_expires": 10**400}, "expires must be finite"),
    ):
        with pytest.raises((TypeError, ValueError), match=text):
            _ = make_set(**options).lock
    with pytest.raises(TypeError, match=r"before must be Unix time .*got True \(bool\)"):
        jobs.dead.purge(before=True)
    _ = make_set(lock_timeout=10**400).lock


def test_a_call_that_needs_a_memory_names_remember(make_set: Callable[..., Any], raw: Any) -> None:
    jobs = make_set()
    jobs.add("a")
    for call, argument in (
        (lambda: jobs.add("b", again=True), "again"),
        (lambda: jobs.add_many(["b"], remember=True), "remember"),
        (lambda: jobs.discard("a", forget=True), "forget"),
        (lambda: jobs.discard_many(["a"], forget=True), "forget"),
        (lambda: jobs.forget("a"), "forget"),
        (lambda: jobs.forget_many(["a"]), "forget"),
        (lambda: jobs.seen("a"), "seen"),
        (lambda: jobs.seen_many(["a"]), "seen"),
        (lambda: jobs.clear(keep_memory=True), "keep_memory"),
    ):
        with pytest.raises(ValueError, match=f"{argument} needs a set with remember="):
            call()
    assert queued(raw) == [(b"a", 0.0)]


def test_an_asyncio_client_is_refused_by_a_sync_set() -> None:
    from redis import asyncio

    for client in (
        asyncio.Redis(),
        asyncio.Redis(decode_responses=True, single_connection_client=True),
        asyncio.RedisCluster(host="localhost") if hasattr(asyncio, "RedisCluster") else None,
        getattr(pytest.importorskip("valkey.asyncio"), "Valkey")(),  # noqa: B009
    ):
        for cls in (SortedSet, TimeSortedSet, ScheduledSet):
            with pytest.raises(TypeError, match=r"redis_client.*asyncio.*sync one"):
                cls(client, "jobs")


def test_a_set_cannot_be_used_after_its_own_close(any_server: servers.Server) -> None:
    jobs: SortedSet[str] = SortedSet.from_url(any_server.url, "jobs", remember=True)
    jobs.add("a")
    dead = jobs.dead
    jobs.close()
    jobs.close()
    for call in (
        lambda: jobs.add("b"),
        lambda: jobs.add_many(["b"]),
        lambda: jobs.add_new(["b"]),
        lambda: jobs.pop(),
        lambda: jobs.take(1),
        lambda: jobs.peek(),
        lambda: jobs.peek_many(1),
        lambda: jobs.peek_score(),
        lambda: jobs.score("a"),
        lambda: jobs.scores(["a"]),
        lambda: jobs.get("a"),
        lambda: "a" in jobs,
        lambda: len(jobs),
        lambda: bool(jobs),
        lambda: iter(jobs),
        lambda: jobs.stats(),
        lambda: jobs.discard("a"),
        lambda: jobs.remove("a"),
        lambda: jobs.forget("a"),
        lambda: jobs.seen("a"),
        lambda: jobs.clear(),
        lambda: dead.size(),
        lambda: iter(dead),
        lambda: dead.purge(),
    ):
        with pytest.raises(RuntimeError, match=r"<SortedSet name='jobs'> is closed"):
            call()
    assert queued(any_server.raw) == [(b"a", 0.0)]
    assert jobs.name == "jobs"


def test_closing_a_set_leaves_a_client_that_was_passed_in(
    any_server: servers.Server, server_client: redis.Redis
) -> None:
    with SortedSet(server_client, "jobs") as jobs:
        jobs.add("a")
    assert server_client.ping()
    with pytest.raises(RuntimeError, match="is closed"):
        jobs.pop()
    assert SortedSet(server_client, "jobs").pop() == "a"


# --- foreign keys on the server


WRONG_KEYS: dict[str, tuple[dict[str, Any], str, Callable[[Any, str], Any]]] = {
    "queue a string": ({}, "jobs", lambda raw, key: raw.set(key, "x")),
    "queue a list": ({}, "jobs", lambda raw, key: raw.lpush(key, "x")),
    "queue a set, remember": ({"remember": True}, "jobs", lambda raw, key: raw.sadd(key, "x")),
    "queue a set, for a time": ({"remember": 60}, "jobs", lambda raw, key: raw.sadd(key, "x")),
    "queue a set, max_size": ({"max_size": 5}, "jobs", lambda raw, key: raw.sadd(key, "x")),
    "keyed a string": (
        {"key": str},
        "jobs:{jobs}:keyed",
        lambda raw, key: raw.set(key, "x"),
    ),
    "meta a string": ({"key": str}, "jobs:{jobs}:meta", lambda raw, key: raw.set(key, "x")),
    "meta a list, remember": (
        {"remember": True},
        "jobs:{jobs}:meta",
        lambda raw, key: raw.lpush(key, "x"),
    ),
    "items a list": ({"key": str}, "jobs:{jobs}:items", lambda raw, key: raw.lpush(key, "x")),
    "items a string": ({"key": str}, "jobs:{jobs}:items", lambda raw, key: raw.set(key, "x")),
    "seen a string": ({"remember": 60}, "jobs:{jobs}:seen", lambda raw, key: raw.set(key, "x")),
}


@pytest.mark.parametrize("kind", WRONG_KEYS)
def test_a_key_of_another_type_is_an_error_that_writes_nothing(
    make_set: Callable[..., Any], raw: Any, kind: str
) -> None:
    options, key, spoil = WRONG_KEYS[kind]
    spoil(raw, key)
    before = servers.everything(raw)
    jobs = make_set(**options)
    for flags in ({}, {"nx": True}, {"lt": True}, {"xx": True}):
        with pytest.raises(Exception, match="WRONGTYPE") as single:
            jobs.add("a", **flags)
        assert type(single.value).__name__ == "ResponseError"
        with pytest.raises(AddError, match="WRONGTYPE") as caught:
            jobs.add_many(numbered(1000), **flags)
        assert type(caught.value.__cause__).__name__ == "ResponseError"
        assert caught.value.resume_at == 0
        assert caught.value.result == (0, 0, 0, 0)
        assert servers.everything(raw) == before


@pytest.mark.parametrize("kind", [kind for kind in WRONG_KEYS if kind.startswith("items")])
def test_a_key_of_another_type_loses_nothing_that_is_taken(
    make_set: Callable[..., Any], raw: Any, kind: str
) -> None:
    options, key, spoil = WRONG_KEYS[kind]
    jobs = make_set(**options)
    jobs.add_many(numbered(20))
    raw.delete(key)
    spoil(raw, key)
    before = servers.everything(raw)
    for call in (
        jobs.pop,
        lambda: jobs.take(5),
        jobs.peek,
        lambda: list(jobs),
        lambda: jobs.discard("item-000001"),
        lambda: jobs.get("item-000001"),
    ):
        with pytest.raises(Exception, match="WRONGTYPE"):
            call()
        assert servers.everything(raw) == before


@pytest.mark.parametrize("kind", ["plain", "scheduled", "keyed"])
def test_dead_letters_of_another_type_lose_nothing(
    make_set: Callable[..., Any], raw: Any, kind: str
) -> None:
    raw.set("jobs:{jobs}:dead", "a string")
    queue, payloads = "jobs", "jobs:{jobs}:items"
    if kind == "keyed":
        queue = "jobs:{jobs}:keyed"
        jobs = make_set(key="url")
        jobs.add_many([{"url": "a"}, {"url": "b"}], score=[1, 2])
        raw.hset(payloads, raw.zrange(queue, 0, 0)[0], "no JSON")
    else:
        raw.zadd(queue, {"no JSON": 1, '"a"': 2})
        cls = ScheduledSet if kind == "scheduled" else SortedSet
        jobs = make_set(cls, serializer=JSONSerializer())
    before = queued(raw, queue), raw.hgetall(payloads)
    for call in (jobs.pop, lambda: jobs.take(1, with_scores=True)):
        with pytest.raises(Exception, match="WRONGTYPE"):
            call()
        assert (queued(raw, queue), raw.hgetall(payloads)) == before


def test_dead_letters_of_another_type_keep_no_others_back(
    make_set: Callable[..., Any], raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    raw.zadd("jobs", {"no JSON": 1, '"a"': 2, '"b"': 3})
    raw.set("jobs:{jobs}:dead", "a string")
    jobs = make_set(serializer=JSONSerializer())
    if jobs._open().multi:
        # An object's first take brings scores, later ones do not.
        assert jobs.take(2) == ["a"]
        assert queued(raw) == [(b"no JSON", 1.0), (b'"b"', 3.0)]
        raw.zadd("jobs", {'"a"': 2})
        # A returned item is among the first again, at the lowest score.
        assert jobs.take(2) == ["a"]
        assert queued(raw) == [(b'"b"', 3.0), (b"no JSON", 3.0)]
        assert "the items taken before are returned: WRONGTYPE" in caplog.text
    else:  # a script, which looks first
        with pytest.raises(Exception, match="WRONGTYPE"):
            jobs.take(2)
        assert queued(raw) == [(b"no JSON", 1.0), (b'"a"', 2.0), (b'"b"', 3.0)]


@pytest.mark.parametrize("cls", [SortedSet, ScheduledSet])
def test_a_queue_of_another_type_is_an_error_of_every_call(
    make_set: Callable[..., Any], raw: Any, cls: Any
) -> None:
    raw.set("jobs", "a string")
    before = servers.everything(raw)
    jobs = make_set(cls)
    for call in (
        jobs.pop,
        lambda: jobs.take(5),
        jobs.peek,
        lambda: jobs.peek_many(5),
        jobs.peek_score,
        jobs.size,
        getattr(jobs, "available", jobs.size),
        jobs.stats,
        lambda: list(jobs),
        lambda: jobs.score("a"),
        lambda: jobs.scores(["a"]),
        lambda: jobs.get("a"),
        lambda: jobs.discard("a"),
        lambda: jobs.discard_many(["a"]),
    ):
        with pytest.raises(Exception, match="WRONGTYPE") as caught:
            call()
        assert type(caught.value).__name__ == "ResponseError"
        assert servers.everything(raw) == before


OTHERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"key": str}, {"key": str, "remember": True}),
    ({"key": str}, {"remember": True}),
    ({"remember": True}, {"remember": 60}),
    ({"remember": 60}, {"remember": True}),
    ({"key": str, "remember": True}, {"key": str}),
    ({"key": str, "remember": True}, {"remember": True}),
]


def named(options: dict[str, Any]) -> str:
    kind = {True: "ever", None: "no"}.get(options.get("remember"), "limited")
    return f"key={'yes' if 'key' in options else 'no'} remember={kind}"


@pytest.mark.parametrize(("theirs", "ours"), OTHERS, ids=str)
def test_other_options_than_the_sets_are_refused_before_anything_is_written(
    make_set: Callable[..., Any], raw: Any, theirs: Any, ours: Any
) -> None:
    make_set(**theirs).add_many(["a", "b"])
    before = servers.everything(raw)
    jobs = make_set(**ours)
    both = f"made with {named(theirs)}.* this object has {named(ours)}"
    with pytest.raises(OptionsDiffer, match=both):
        jobs.add("c")
    with pytest.raises(AddError, match=both) as caught:
        jobs.add_many(numbered(2000))
    assert isinstance(caught.value.__cause__, OptionsDiffer)
    assert caught.value.resume_at == 0
    assert caught.value.result == (0, 0, 0, 0)
    with pytest.raises(AddError, match=both):
        list(jobs.add_new(["c"]))
    assert servers.everything(raw) == before


def test_a_set_with_a_key_refuses_to_stand_beside_a_plain_one(
    make_set: Callable[..., Any], raw: Any
) -> None:
    make_set().add("a")
    before = servers.everything(raw)
    jobs = make_set(key=str)
    with pytest.raises(OptionsDiffer, match=r"the key 'jobs' exists"):
        jobs.add("b")
    with pytest.raises(AddError, match=r"the key 'jobs' exists"):
        jobs.add_many(["b"])
    assert servers.everything(raw) == before


def test_another_length_of_memory_is_the_same_option(make_set: Callable[..., Any]) -> None:
    make_set(remember=60).add("a")
    assert make_set(remember=datetime.timedelta(days=1)).add("b") == 0
    assert make_set(remember=60, duplicates="keep", max_size=9, scorer=len).add("abc") == 3


# --- the other methods' arguments

BAD_ARGUMENTS: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "take(None)": (lambda s: s.take(None), TypeError, "num must be .* got None .NoneType"),
    "take('x')": (lambda s: s.take("x"), ValueError, "num must be .* got 'x' .str"),
    "take(NaN)": (lambda s: s.take(NAN), ValueError, "num must be .* got nan .float"),
    "take(inf)": (lambda s: s.take(math.inf), OverflowError, "num must be .* got inf .float"),
    "peek('1')": (lambda s: s.peek("1"), TypeError, "position must be an int, got .* .str"),
    "peek(1.5)": (lambda s: s.peek(1.5), TypeError, "position must be an int, got 1.5 .float"),
    "peek_many('1')": (lambda s: s.peek_many("1"), TypeError, "num must be an int, got .1. .str"),
    "peek_many(b'1')": (
        lambda s: s.peek_many(b"1"),
        TypeError,
        "num must be an int, got .* .bytes",
    ),
    "scores": (lambda s: s.add_many(["a"], {1: 2}), TypeError, "score must be .* got .* .dict"),
    "a set of scores": (
        lambda s: s.add_many(["a"], {1}),
        TypeError,
        "score must be .* got .* .set",
    ),
    "bytes": (lambda s: s.add_many(memoryview(b"ab")), TypeError, "items must .* .memoryview."),
    "errors": (lambda s: s.add_many(["a"], errors=1), ValueError, "errors must .* got 1 .int"),
    "purge('x')": (lambda s: s.dead.purge("x"), TypeError, r"before must be .* got 'x' \(str\)"),
    "purge(NaN)": (lambda s: s.dead.purge(NAN), ValueError, "before must be .* got nan"),
    "purge(datetime)": (
        lambda s: s.dead.purge(datetime.datetime.now()),
        ValueError,
        "before must be an aware datetime, .* got datetime",
    ),
}


@pytest.mark.parametrize("call", BAD_ARGUMENTS)
def test_a_bad_argument_is_named(make_set: Callable[..., Any], raw: Any, call: str) -> None:
    made = make_set()
    made.add_many(["a", "b"])
    before = servers.everything(raw)
    function, error, text = BAD_ARGUMENTS[call]
    with pytest.raises(error, match=text):
        function(made)
    assert servers.everything(raw) == before


def test_dead_letters_are_purged_up_to_any_time(make_set: Callable[..., Any]) -> None:
    made = make_set(serializer=JSONSerializer())
    for before, left in ((-math.inf, 1), (-1, 1), (0, 1), (1e30, 0), (math.inf, 0)):
        make_set().add("no JSON")
        made.dead.purge()
        with pytest.raises(KeyError):
            made.pop()
        assert made.dead.size() == 1
        made.dead.purge(before)
        assert made.dead.size() == left


@pytest.mark.parametrize("argument", ["timeout", "expires"])
@pytest.mark.parametrize("value", ["1", [], object()])
def test_times_of_a_lock_are_numbers(
    make_set: Callable[..., Any], argument: str, value: Any
) -> None:
    with pytest.raises(TypeError, match=rf"lock_{argument} must be .*\({type(value).__name__}\)"):
        make_set(**{f"lock_{argument}": value})


@pytest.mark.parametrize("url", [None, b"redis://:secret@localhost", 3])
def test_a_url_is_text_and_no_error_shows_its_password(url: Any) -> None:
    refusal = f"^url must be str, got a value of type {type(url).__name__}$"
    with pytest.raises(TypeError, match=refusal):
        SortedSet.from_url(url, "jobs")


# --- an item that is larger than the server takes

MIB = 2**20


@pytest.fixture
def narrow(server: servers.AnyServer) -> Iterator[None]:
    """Lets the server of `make_set` take no more than 1 MiB as one argument, the least there is."""
    if server.kind == "fakeredis":
        pytest.skip("fakeredis: it reads no requests")
    server.raw.config_set("proto-max-bulk-len", MIB)
    yield
    server.raw.config_set("proto-max-bulk-len", 2**29)


def large(options: dict[str, Any], name: str = "large", size: int = 2 * MIB) -> Any:
    """An item that has so many bytes serialised."""
    if "key" not in options:
        return f"{name} {'x' * (size - len(name) - 1)}"
    rest = len(json.dumps({"url": name, "text": ""}, separators=(",", ":")))
    return {"text": "x" * (size - rest), "url": name}


TOO_LARGE = (
    r"an item of 2,097,152 bytes \(b\\?'.{40}\\?'\.\.\.\): its proto-max-bulk-len is 1,048,576"
)


@every_option
def test_an_add_names_the_item_that_is_too_large_for_the_server(
    make_set: Callable[..., Any], narrow: None, options: dict[str, Any]
) -> None:
    jobs = make_set(**options)
    good = [made(options, str(number)) for number in range(600)]
    item = large(options)
    with pytest.raises(AddError, match=f"^item 300: .*{TOO_LARGE}") as caught:
        jobs.add_many([*good[:300], item, *good[300:]])
    assert (caught.value.index, caught.value.item) == (300, item)
    assert caught.value.resume_at <= 300
    assert jobs.size() == caught.value.result.added
    with pytest.raises(Exception, match=TOO_LARGE) as single:
        jobs.add(item)
    assert any(base.__name__ == "ConnectionError" for base in type(single.value).__mro__)
    assert jobs.add_many(good).failed == 0 and jobs.size() == 600


@every_option
@pytest.mark.parametrize("how", ["skip", "callable"])
def test_an_item_that_is_too_large_for_the_server_can_be_skipped(
    make_set: Callable[..., Any], narrow: None, options: dict[str, Any], how: str, caplog: Any
) -> None:
    jobs = make_set(**options)
    good = [made(options, str(number)) for number in range(600)]
    first, second = large(options, "first"), large(options, "second")
    told: list[Any] = []
    errors = how if how == "skip" else lambda *bad: told.append(bad)
    with caplog.at_level(logging.WARNING, "redset"):
        result = jobs.add_many([first, *good[:300], second, *good[300:]], errors=errors)
    assert (result.added, result.failed) == (600, 2)
    assert jobs.size() == 600 and all(jobs.contains(item) for item in good[::50])
    if how == "skip":
        [record] = [each for each in caplog.records if "skipped item" in each.message]
        assert re.search(f"skipped item [0-9]+ of an add to 'jobs': .*{TOO_LARGE}", record.message)
    else:
        assert sorted(each[:2] for each in told) == [(0, first), (301, second)]


def test_a_chunk_of_a_large_item_that_is_encoded_anew_counts_it_once(
    make_set: Callable[..., Any], narrow: None, raw: Any
) -> None:
    jobs, other = make_set(remember=True), make_set(remember=True)
    jobs.add("a")
    other.clear()
    other.add("b")
    result = jobs.add_many([large({}), *numbered(300)], range(301), errors="skip")
    assert (result.added, result.failed) == (300, 1)


def test_calls_with_an_item_that_is_too_large_name_it(
    make_set: Callable[..., Any], narrow: None
) -> None:
    jobs = make_set()
    item = large({})
    for call in (jobs.discard, jobs.contains, jobs.score, jobs.get, lambda i: jobs.scores([i])):
        with pytest.raises(Exception, match=TOO_LARGE):
            call(item)
    jobs.add("a")
    [lease] = jobs.lease()
    with pytest.raises(AddError, match=f"^item 0: .*{TOO_LARGE}") as caught:
        lease.ack(add=[item])
    assert (caught.value.index, caught.value.item) == (0, item)
    with pytest.raises(AddError, match=f"^item 1: .*{TOO_LARGE}"):
        lease.ack(add=["b", item])
    assert lease.ack() == 1


@pytest.mark.parametrize("size", [1, 3])
def test_a_job_fails_whose_new_item_is_too_large_for_the_server(
    make_set: Callable[..., Any], narrow: None, caplog: Any, size: int
) -> None:
    jobs, pages = make_set(max_attempts=1), make_set(name="pages")
    jobs.add_many(["bad", *"abc"], range(4))

    def handler(job: str) -> list[str]:
        return [*("x" * (size - 1)), large({})] if job == "bad" else []

    with caplog.at_level(logging.WARNING, "redset"):
        assert jobs.consume(handler, batch=10, until_finished=True) == (3, 1, 0)
    [letter] = jobs.dead
    assert letter.raw == b"bad" and re.search(TOO_LARGE, letter.reason)
    assert "the new items of the handler cannot be added for an item of 'jobs'" in caplog.text
    assert pages.size() == 0


class Uncalled(NoBackoff):
    """A policy's pause that counts how often it is asked for."""

    def __init__(self) -> None:
        self.calls = 0

    def compute(self, failures: int) -> float:
        self.calls += 1
        return 0


def test_an_item_above_proto_max_bulk_len_is_not_retried(any_server: servers.Server) -> None:
    raw = any_server.raw
    raw.config_set("proto-max-bulk-len", MIB)
    raw.execute_command("ACL", "SETUSER", "bob", "reset", "on", ">secret", "~*", "&*", "+@all")
    for rule, limit in (("+config", "is 1,048,576"), ("-config", "may be less")):
        raw.execute_command("ACL", "SETUSER", "bob", rule)
        backoff = Uncalled()
        with any_server.tcp_client(
            username="bob", password="secret", retry=Retry(backoff, 20)
        ) as client:
            jobs: SortedSet[str] = SortedSet(client, "jobs")
            with pytest.raises(AddError, match=f"proto-max-bulk-len {limit}") as caught:
                jobs.add_many(["a", large({})])
            assert caught.value.index == 1
            with pytest.raises(redis.ConnectionError, match=f"proto-max-bulk-len {limit}"):
                jobs.add(large({}))
            assert backoff.calls <= (0 if limit.startswith("is") else 2)
            # The connection that is left is in order.
            assert jobs.add("b") == 0 and client.ping()
    # Without retries as well.
    with any_server.client(retry=Retry(NoBackoff(), 0)) as client:
        jobs = SortedSet(client, "jobs")
        assert jobs.add_many(["c", large({}), "d"], errors="skip") == (2, 0, 0, 1)
    raw.execute_command("ACL", "DELUSER", "bob")
    raw.config_set("proto-max-bulk-len", 2**29)


def test_a_large_item_on_a_lost_connection_is_sent_again(any_server: servers.Server) -> None:
    cut: list[bool] = []

    def rule(command: list[bytes]) -> Any:
        if command[0] == b"ZADD" and not cut:
            cut.append(True)
            return Proxy.CUT
        return None

    with Proxy(any_server) as proxy:
        proxy.rule = rule
        with redis.Redis(port=proxy.port, retry=Retry(NoBackoff(), 1)) as client:
            assert SortedSet(client, "jobs").add_many(["a", large({})]).added == 2
    assert cut == [True]


@every_option
def test_an_item_is_by_default_no_larger_than_a_server_takes_by_default(
    make_set: Callable[..., Any],
    narrow: None,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    margin = 2**16
    assert 512 * MIB - margin == limits.ITEM_BYTES
    # The same with a server's limit of 1 MiB.
    monkeypatch.setattr(codec, "ITEM_BYTES", MIB - margin)
    jobs = make_set(serializer=JSONSerializer(), **options)
    most = MIB - margin - (0 if "key" in options else 2)  # quotes
    assert jobs.add(large(options, "a", most)) is not None
    assert jobs.add_many([large(options, "b", most)]).added == 1
    assert {len(json.dumps(item, separators=(",", ":"))) for item in jobs.take(2)} == {MIB - margin}
    with pytest.raises(ValueError, match=f"more than max_item_bytes={MIB - margin}"):
        jobs.add(large(options, "c", most + 1))
    with pytest.raises(AddError, match=f"more than max_item_bytes={MIB - margin}") as caught:
        jobs.add_many([made(options, "d"), large(options, "e", most + 1)])
    assert caught.value.index == 1 and caught.value.result.added == 1
