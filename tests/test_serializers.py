"""The stored bytes of the serializers. JSON's two ways to them agree to the byte."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import json
import math
import pickle
import struct
import sys
import uuid
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import children
import pytest
import servers
from hypothesis import given
from hypothesis import strategies as st
from selection import drawn

from redset import SortedSet, serializers
from redset.exceptions import (
    AddError,
    DecodeError,
    Full,
    LockTimeout,
    OptionsDiffer,
    RedsetError,
    _FullAddError,
    _OptionsAddError,
)
from redset.interfaces import Serializer
from redset.serializers import JSONSerializer, NamedtupleSerializer, StructSerializer

try:
    import msgspec
except ImportError:
    msgspec = None  # type: ignore[assignment]

STANDARD = serializers._StandardJSON()
JSON = JSONSerializer()

#: Thousands of examples take 10 s on an idle machine.
pytestmark = pytest.mark.timeout(240)
needs_orjson = pytest.mark.skipif(
    not serializers._USE_ORJSON, reason="orjson: none here that writes numbers as 3.11.7 does"
)
both = pytest.mark.parametrize(
    "json_serializer",
    [pytest.param(JSON, marks=needs_orjson, id="orjson"), pytest.param(STANDARD, id="standard")],
)


class Colour(enum.Enum):
    RED = "red"
    NESTED = ({"a": None}, [1.5])
    FLAT = (1,)
    ODD = math.nan


class Level(enum.IntEnum):
    LOW = 1


class Word(str, enum.Enum):
    ONE = "one"


class Odd(enum.Enum, metaclass=type("Meta", (enum.EnumMeta,), {})):
    A = 1


class Loud(str):
    def __str__(self) -> str:
        return self.upper()


class Big(int):
    def __int__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "big"


class Items(dict):  # type: ignore[type-arg]
    def items(self) -> Any:
        return [("other", 1)]


class Backwards(list):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        return reversed(self)


class Point(NamedTuple):
    x: int


@dataclasses.dataclass
class Data:
    x: int = 1


def outcome(function: Any, value: Any) -> Any:
    """Return its result, or that it refuses."""
    try:
        return function(value)
    except (TypeError, ValueError) as error:
        assert not isinstance(error, RecursionError)
        return "refused"


texts = st.text(st.characters(exclude_categories=()))  # lone surrogates too
floats = st.floats() | st.sampled_from([1e16, 1e15, 1e-4, 1e-5, 9.9999e-6, 1e-7, 5e-324, -1e22])
floats |= st.builds(lambda m, e: float(f"{m}e{e}"), st.integers(-9999, 9999), st.integers(-25, 25))
integers = st.integers() | st.integers(-(2**65), 2**65)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    integers,
    floats,
    texts,
    st.uuids(),
    st.sampled_from([*Colour, *Level, *Word]),
    texts.map(Loud),
    integers.map(Big),
    st.sampled_from([b"bytes", Point(1), Odd.A, Data(), decimal.Decimal(1), {1}, ..., "null"]),
)
plain_leaves = st.none() | st.booleans() | integers | floats.filter(math.isfinite) | st.text()


def nested(inner: Any, leaf: Any = leaves) -> Any:
    return st.recursive(
        leaf,
        lambda inside: st.one_of(
            st.lists(inside, max_size=4),
            st.lists(inside, max_size=4).map(tuple),
            st.lists(inside, max_size=4).map(Backwards),
            st.dictionaries(inner, inside, max_size=4),
            st.dictionaries(inner, inside, max_size=4).map(Items),
        ),
        max_leaves=12,
    )


@needs_orjson
@drawn(2000)
@given(nested(texts) | nested(texts | st.integers() | texts.map(Loud)) | nested(texts, floats))
def test_with_and_without_orjson_the_stored_bytes_are_the_same(item: Any) -> None:
    assert outcome(JSON.dumps, item) == outcome(STANDARD.dumps, item)


@needs_orjson
@drawn(2000)
@given(nested(st.text(), plain_leaves))
def test_with_and_without_orjson_the_same_items_come_out(item: Any) -> None:
    # Texts of other JSON libraries: spaces, escapes, integers of any size.
    text = json.dumps(item)
    ours, theirs = outcome(JSON.loads, text), outcome(STANDARD.loads, text)
    assert repr(ours) == repr(theirs)
    assert outcome(JSON.loads, text.encode()) == theirs


@needs_orjson
@drawn(2000)
@given(st.text('[]{}",:\\u0d8e1-+.EtruefalsnNI \t\n\ufeffé\ud800', max_size=12) | st.binary())
def test_with_and_without_orjson_the_same_texts_are_refused(text: Any) -> None:
    assert repr(outcome(JSON.loads, text)) == repr(outcome(STANDARD.loads, text))


@needs_orjson
@drawn(3000)
@given(st.binary(min_size=8, max_size=8).map(lambda bits: struct.unpack("d", bits)[0]) | floats)
def test_a_float_has_one_text(number: float) -> None:
    data = outcome(JSON.dumps, number)
    assert data == outcome(STANDARD.dumps, number)
    if math.isfinite(number):
        assert JSON.loads(data) == STANDARD.loads(data) == number


@both
@pytest.mark.parametrize(
    ("number", "text"),
    [(1e15, b"1000000000000000.0"), (1e16, b"1e+16"), (1e-5, b"0.00001"), (1.5e-7, b"1.5e-7")],
)
def test_numbers_are_written_this_way_for_ever(
    json_serializer: Serializer, number: float, text: bytes
) -> None:
    assert json_serializer.dumps(number) == text


@both
def test_equal_dicts_are_one_item(json_serializer: Serializer) -> None:
    one = {"url": "/é", "\U0001f600": 1, "\uffff": 2, "a": {"z": 1, "b": 2}}
    other = dict(reversed(one.items()))
    assert json_serializer.dumps(one) == json_serializer.dumps(other)
    assert json_serializer.dumps({"b": 1, "a": "é"}) == '{"a":"é","b":1}'.encode()


@both
@pytest.mark.parametrize(
    "item",
    [
        math.nan,
        math.inf,
        -math.inf,
        [None, math.nan],
        {"a": {"b": (1, math.inf)}},
        Items(a=math.nan),
        Backwards([None, math.nan]),
        Colour.ODD,
        2**64,
        -(2**63) - 1,
        Big(2**64),
        {1: 1},
        {None: 1},
        {Loud("a"): 1},
        {Word.ONE: 1},
        "\ud800",
        {"\ud800": 1},
        b"bytes",
        bytearray(),
        {1},
        decimal.Decimal(1),
        datetime.datetime(2020, 1, 1),
        datetime.date(2020, 1, 1),
        Data(),
        Point(1),
        Odd.A,
        object(),
        iter(()),
    ],
    ids=lambda item: type(item).__name__,
)
def test_a_value_that_json_cannot_represent_is_refused(
    json_serializer: Serializer, item: Any
) -> None:
    with pytest.raises((TypeError, ValueError)):
        json_serializer.dumps(item)


@both
@pytest.mark.parametrize(
    ("item", "data"),
    [
        (None, b"null"),
        ("null", b'"null"'),
        ((None, 1), b"[null,1]"),
        (2**64 - 1, b"18446744073709551615"),
        (-(2**63), b"-9223372036854775808"),
        ('\x00\x1f\x7f\u2028/"\\\n', b'"\\u0000\\u001f\x7f\xe2\x80\xa8/\\"\\\\\\n"'),
        (Loud("a"), b'"a"'),
        (Big(7), b"7"),
        (Items(a=1), b'{"a":1}'),
        (Backwards([1, 2]), b"[1,2]"),
        (collections.OrderedDict(b=1, a=2), b'{"a":2,"b":1}'),
        (uuid.UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        (Colour.NESTED, b'[{"a":null},[1.5]]'),
        (Level.LOW, b"1"),
        (Word.ONE, b'"one"'),
    ],
    ids=repr,
)
def test_values_that_json_represents_come_back(
    json_serializer: Serializer, item: Any, data: bytes
) -> None:
    assert json_serializer.dumps(item) == data


def deep(depth: int, wrap: Any, inner: Any) -> Any:
    for _ in range(depth):
        inner = wrap(inner)
    return inner


@both
@pytest.mark.parametrize("inner", [[1], (), {}, Colour.FLAT], ids=repr)
@pytest.mark.parametrize(
    "wrap",
    [lambda x: [x], lambda x: (x,), lambda x: {"a": x}, lambda x: [None, (x, "[[[")]],
    ids=["list", "tuple", "dict", "mixed"],
)
def test_items_are_nested_at_most_254_deep(
    json_serializer: Serializer, wrap: Any, inner: Any
) -> None:
    levels = 2 if wrap(0) == [None, (0, "[[[")] else 1
    fits = deep(253 // levels, wrap, inner)
    if levels == 2:
        fits = [fits] if 253 % 2 else fits
    data = json_serializer.dumps(fits)
    assert json_serializer.dumps(json_serializer.loads(data)) == data
    with pytest.raises(TypeError, match=r"254 deep|Recursion"):
        json_serializer.dumps([fits])
    with pytest.raises(TypeError, match=r"254 deep|Recursion"):
        json_serializer.dumps((fits,))


@both
def test_a_cycle_is_refused(json_serializer: Serializer) -> None:
    cycle: list[Any] = []
    cycle.append((cycle,))
    with pytest.raises(TypeError):
        json_serializer.dumps(cycle)


@both
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_texts_nested_too_deep_are_refused(json_serializer: Serializer, brackets: str) -> None:
    opening, closing = brackets
    opening = '{"\\ud83d\\ude00":' if opening == "{" else opening
    json_serializer.loads(opening * 500 + "1" + closing * 500)
    for depth in (1025, 1500, 100_000):
        with pytest.raises(ValueError):
            json_serializer.loads(opening * depth + "1" + closing * depth)


@both
@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "-Infinity",
        "1e999",
        "9" * 400,
        "9" * 5000,
        '"\\ud800"',
        '"\\uDFff"',
        '"\ud800"',
        "",
        "\ufeff1",
        "[1,]",
        "01",
        "1_0",
        "1 2",
        '"\t"',
        b'"\xff"',
        b"\xef\xbb\xbf1",
        b'"\xed\xa0\x80"',
    ],
    ids=lambda text: repr(text)[:20],
)
def test_a_line_that_is_not_json_is_refused(json_serializer: Serializer, text: Any) -> None:
    with pytest.raises(ValueError):
        json_serializer.loads(text)


@both
@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("18446744073709551616", 1.8446744073709552e19),
        ("-9223372036854775809", -9.223372036854775809e18),
        ("-0", 0),
        ('{"a":1,"a":2}', {"a": 2}),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        (b' {"a" :\n[1.50, 1E2] } ', {"a": [1.5, 100.0]}),
        (bytearray(b"[]"), []),
    ],
)
def test_json_of_other_programs_is_read(json_serializer: Serializer, text: Any, item: Any) -> None:
    assert repr(json_serializer.loads(text)) == repr(item)


def test_the_limit_of_nesting_does_not_depend_on_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serializers, "_LOADS_DEPTH", 3)
    assert STANDARD.loads('[[["[[[["]]]') == [[["[[[["]]]
    with pytest.raises(ValueError, match="too deep"):
        STANDARD.loads('[[{"a":[]}]]')


def test_without_orjson_the_standard_library_takes_its_place() -> None:
    code = (
        "import sys; sys.modules['orjson'] = None\n"
        "from redset.serializers import JSONSerializer\n"
        "import redset.serializers as s\n"
        "assert not s._USE_ORJSON\n"
        "j = JSONSerializer()\n"
        "assert j.dumps({'b': 1e16, 'a': None}) == b'{\"a\":null,\"b\":1e+16}'\n"
        "assert j.loads(b'[1]') == [1]\n"
    )
    children.run("-c", code)


def test_an_orjson_that_writes_numbers_otherwise_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Old:
        @staticmethod
        def dumps(obj: Any) -> bytes:
            return STANDARD.dumps(obj).replace(b"e+", b"e")

    monkeypatch.setattr(serializers, "orjson", Old)
    assert not serializers._orjson_agrees()


@both
def test_json_serializers_ask_for_bytes_and_can_be_pickled(json_serializer: Serializer) -> None:
    assert json_serializer.binary is True  # type: ignore[attr-defined]
    assert pickle.loads(pickle.dumps(json_serializer)).dumps([1]) == b"[1]"


# --- namedtuples

Task = collections.namedtuple("Task", "tiger woods")


def test_namedtuples_are_stored_as_0_5_1_stored_them() -> None:
    tasks = NamedtupleSerializer(Task)
    task = Task("larry é", {"b": [1, None], "a": 1.0})
    stored = '{"tiger": "larry \\u00e9", "woods": {"b": [1, null], "a": 1.0}}'
    assert tasks.dumps(task) == stored
    assert tasks.loads(stored) == tasks.loads(stored.encode()) == task
    assert tasks.NTClass is Task
    assert tasks.binary is False


def test_a_stored_namedtuple_with_other_fields_is_refused() -> None:
    with pytest.raises(TypeError):
        NamedtupleSerializer(Task).loads('{"tiger": 1}')


# --- structs

needs_msgspec = pytest.mark.skipif(msgspec is None, reason="msgspec: not installed")

if msgspec is not None:

    class Page(msgspec.Struct, frozen=True):
        url: str
        depth: int = 0
        rank: float | None = None
        more: dict[str, Any] | None = None

    class Deeper(Page, frozen=True):
        extra: int = 0

    pages = StructSerializer(Page)


@needs_msgspec
def test_equal_structs_are_one_item() -> None:
    assert pages.dumps(Page("/a", more={"b": 1, "a": 2})) == pages.dumps(
        Page("/a", more={"a": 2, "b": 1})
    )
    assert pages.dumps(Page("/a")) == b'{"depth":0,"more":null,"rank":null,"url":"/a"}'
    assert pages.binary is True


@needs_msgspec
def test_structs_come_out_as_they_went_in() -> None:
    page = Page("/é", 3, 0.5, {"a": None})
    assert pages.loads(pages.dumps(page)) == page
    assert pickle.loads(pickle.dumps(pages)).loads(pages.dumps(page).decode()) == page


@needs_msgspec
@pytest.mark.parametrize("rank", [math.nan, math.inf])
def test_a_struct_does_not_lose_a_number_that_json_lacks(rank: float) -> None:
    with pytest.raises(ValueError, match="JSON has no"):
        pages.dumps(Page("/a", rank=rank))
    with pytest.raises(ValueError, match="JSON has no"):
        pages.dumps(Page("/a", more={"a": [rank]}))


@needs_msgspec
def test_an_item_of_another_type_is_refused_before_it_is_stored() -> None:
    with pytest.raises(TypeError, match=r"an item must be a Page, got .* \(dict\)"):
        pages.dumps({"url": "/a"})
    with pytest.raises(TypeError, match=r"an item must be a Data, got .* \(Page\)"):
        StructSerializer(Data).dumps(Page("/a"))
    assert pages.dumps(Deeper("/a")) == (
        b'{"depth":0,"extra":0,"more":null,"rank":null,"url":"/a"}'
    )
    assert StructSerializer(Data).dumps(Data(2)) == b'{"x":2}'
    assert StructSerializer(dict[str, int]).loads(b'{"a":1}') == {"a": 1}


@needs_msgspec
@pytest.mark.parametrize("data", [b"", b"{", b'{"depth":1}', b'{"url":1}', b'{"url":"\xff"}'])
def test_bytes_of_another_struct_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        pages.loads(data)


def test_without_msgspec_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgspec", None)
    with pytest.raises(ImportError, match="pip install msgspec"):
        StructSerializer(Data)


# --- the interface, and the errors


def test_a_serializer_may_define_one_method_alone() -> None:
    class Upper(Serializer):
        def dumps(self, obj: Any) -> str:
            return str(obj).upper()

    assert Upper().dumps("a") == "A"
    assert Upper.loads is Serializer.loads
    with pytest.raises(NotImplementedError, match="Upper defines no loads"):
        Upper().loads("A")
    with pytest.raises(NotImplementedError, match="Serializer defines no dumps"):
        Serializer().dumps("a")


@pytest.mark.parametrize("kind", [AddError, _FullAddError, _OptionsAddError])
def test_an_error_of_a_bulk_add_survives_pickling(kind: type[AddError]) -> None:
    error = kind("no score", result=(1, 2), resume_at=5, index=7, item={"url": "/a"})
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert str(again) == "no score"
        assert (again.result, again.resume_at, again.index) == ((1, 2), 5, 7)
        assert again.item == {"url": "/a"}


@pytest.mark.parametrize("kind", [DecodeError, Full, LockTimeout, OptionsDiffer])
def test_every_error_of_redset_is_a_redset_error(kind: type[RedsetError]) -> None:
    error = pickle.loads(pickle.dumps(kind("why")))
    assert isinstance(error, RedsetError)
    assert str(error) == "why"


@pytest.mark.parametrize(
    ("kind", "other"), [(_FullAddError, Full), (_OptionsAddError, OptionsDiffer)]
)
def test_the_error_of_a_bulk_add_is_caught_as_either_class(kind: Any, other: Any) -> None:
    for base in (AddError, other):
        with pytest.raises(base, match="why"):
            raise kind("why", result=None, resume_at=0)


DEEP = {
    "list in tuple": "x = []; x.append((x,))",
    "dict in tuple": "x = {}; x['p'] = (x,)",
    "tuple in list": "l = []; x = ((l,),); l.append(x)",
    "tuples in a cycle": "l = []; x = (((l,),),); l.append(x)",
    "twice in itself": "x = []; x += [x, x, (x, x)]",
    "2,000 tuples": "x = ()\nfor _ in range(2_000): x = (x,)",
    "60,000 tuples": "x = ()\nfor _ in range(60_000): x = (x,)",
    "enum members": "import enum\nx = ()\nfor _ in range(3_000): x = (enum.Enum('E', {'a': x}).a,)"
    "\n",
    "255 tuples": "x = 0\nfor _ in range(255): x = (x,)",
}


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("wire", ["python", "cython"])
def test_deep_nesting_is_refused_before_it_overflows_the_stack(name: str, wire: str) -> None:
    """In a process of its own, which would be gone."""
    program = f"""
import os
from redset import _wire
from redset.serializers import JSONSerializer
try:
    wire = _wire.load({wire!r})
except ImportError:
    os._exit(77)
{DEEP[name]}
def refused(call):
    try:
        call()
    except TypeError as error:
        return "254 deep" in str(error)
json = JSONSerializer()
assert refused(lambda: json.dumps(x))
encoder = wire.Encoder([b"ZADD"], json.dumps, None, 0.0, 0, 0, False, 0, b"", False)
chunk = encoder.encode([x, 1], None, True)
assert chunk.good == 1 and refused(lambda: (_ for _ in ()).throw(chunk.bad[0].error))
os._exit(0)  # some of these cannot be freed without an overflow
"""
    with children.Child("-c", program) as child:
        if child.wait().status == 77:
            raise servers.Missing("cython: no compiled core")
        child.check()


def test_254_tuples_are_not_too_deep() -> None:
    item: Any = 0
    for _ in range(254):
        item = (item,)
    assert len(JSONSerializer().dumps(item)) == 509


def test_an_items_own_comparison_does_not_hide_nan() -> None:
    class Document(dict):  # type: ignore[type-arg]
        def __eq__(self, other: object) -> bool:
            return True

        def __ne__(self, other: object) -> bool:
            return False

    class Broken(dict):  # type: ignore[type-arg]
        def __eq__(self, other: object) -> bool:
            raise RuntimeError

    serializer = JSONSerializer()
    with pytest.raises(ValueError, match="nan"):
        serializer.dumps(Document(v=float("nan")))
    assert serializer.dumps(Broken(v=None)) == b'{"v":null}'
    assert serializer.dumps([None, {"a": None}]) == b'[null,{"a":null}]'


# --- without a serializer


@dataclasses.dataclass
class Point:
    x: int


class Pair(NamedTuple):
    a: int
    b: int


class Plain:
    def __str__(self) -> str:
        return "plain"


STRUCTURES = [{"a": 1}, [1, 2], (1, 2), {1}, frozenset({1}), Point(1), Pair(1, 2)]


@pytest.mark.parametrize("item", STRUCTURES, ids=lambda item: type(item).__name__)
@pytest.mark.parametrize("how", ["add", "add_many", "buffered"])
def test_items_stored_as_text_without_a_serializer_warn_once(
    make_set: Callable[..., Any], raw: Any, item: Any, how: str
) -> None:
    jobs = make_set()
    with pytest.warns(UserWarning, match="'jobs' has no serializer: .*; serializer=json") as found:
        for each in ("text", 7, item, [item]):
            if how == "add":
                jobs.add(each)
            elif how == "add_many":
                jobs.add_many([b"bytes", each])
            else:
                with jobs.buffered() as writer:
                    writer.add(each)
    assert [f"of type {type(item).__name__} " in str(each.message) for each in found] == [True]
    assert raw.zscore("jobs", str(item)) == 0  # as 0.5.1 stored it
    if isinstance(jobs, SortedSet):
        assert found[0].filename == __file__
    with pytest.warns(UserWarning, match="serializer=json"):
        make_set().add(item)  # another object


@pytest.mark.filterwarnings("error::UserWarning")
def test_items_with_a_serializer_or_one_text_form_cause_no_warning(
    make_set: Callable[..., Any],
) -> None:
    make_set(name="plain").add_many(["text", b"bytes", 1, 1.5, True, None, Plain()])
    make_set(name="json", serializer=json).add({"a": 1})
    make_set(name="keyed", key="a").add({"a": 1})
    make_set(name="read", serializer=SimpleNamespace(loads=str)).add([1])
    assert {"a": 1} not in make_set(name="asked")
