"""The serializers that come with redset."""

from __future__ import annotations

import enum
import inspect
import json
import re
import uuid
from collections.abc import Callable, Iterable
from itertools import chain
from json.encoder import encode_basestring
from typing import Any, NoReturn

from redset.interfaces import Serializer

try:
    import orjson
except ImportError:  # PyPy, free-threaded builds
    orjson = None  # type: ignore[assignment]

__all__ = (
    "JSONSerializer",
    "NamedtupleSerializer",
    "StructSerializer",
)

# orjson's limits for lists and dicts. It does not count tuples; these do.
_DUMPS_DEPTH = 254
_LOADS_DEPTH = 1024
_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


class _StandardJSON(Serializer):
    """The format of `JSONSerializer`, written by the standard library."""

    binary = True

    def dumps(self: Serializer, obj: Any) -> bytes:
        """Return the JSON text of an item, in UTF-8."""
        parts: list[str] = []
        _write(obj, parts.append, _DUMPS_DEPTH)
        try:
            return "".join(parts).encode()
        except UnicodeEncodeError as error:
            raise TypeError(f"JSON text has no lone surrogates: {error}") from error

    def loads(self: Serializer, data: bytes | str) -> Any:
        """Return the item of a JSON text."""
        if isinstance(data, str):
            data.encode()  # a lone surrogate is a ValueError
            text = data
        else:
            text = str(data, "utf-8")
        try:
            obj = json.loads(
                text, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_int_or_float
            )
            if _SURROGATE_ESCAPE.search(text):
                json.dumps(obj, ensure_ascii=False).encode()  # as above
        except RecursionError:
            raise ValueError("JSON is nested too deeply") from None
        if _is_deeper(obj, _LOADS_DEPTH, text.count("[") + text.count("{")):
            raise ValueError("JSON is nested too deeply")
        return obj


def _write(obj: Any, emit: Callable[[str], None], depth: int) -> None:
    # The order of the tests is orjson's, and so are the types. Subclasses of str, int, list and
    # dict are written as their base class. Subclasses of other types are refused.
    if isinstance(obj, str):
        emit(encode_basestring(str.__str__(obj)))
    elif obj is None:
        emit("null")
    elif obj is True:
        emit("true")
    elif obj is False:
        emit("false")
    elif isinstance(obj, int):
        number = int.__int__(obj)
        if not _MIN_INT <= number <= _MAX_INT:
            raise TypeError("an int is stored as JSON only within 64 bits")
        emit(repr(number))
    elif type(obj) is float:
        emit(_float_text(obj))
    elif isinstance(obj, dict):
        _write_dict(obj, emit, _one_less(depth))
    elif isinstance(obj, list) or type(obj) is tuple:
        depth = _one_less(depth)
        emit("[")
        comma = ""
        for each in _inside(obj) or ():
            emit(comma)
            _write(each, emit, depth)
            comma = ","
        emit("]")
    elif type(obj) is uuid.UUID:
        emit(f'"{obj}"')
    elif type(type(obj)) is enum.EnumMeta:
        _write(obj.value, emit, depth)
    else:
        raise TypeError(f"Type is not JSON serializable: {type(obj).__name__}")


def _write_dict(obj: dict[Any, Any], emit: Callable[[str], None], depth: int) -> None:
    for key in dict.keys(obj):
        if type(key) is not str:
            raise TypeError(f"Dict key must be str, not {type(key).__name__}")
    emit("{")
    comma = ""
    # By code points, which is the order of the UTF-8 bytes.
    for key in sorted(dict.keys(obj)):
        emit(comma)
        emit(encode_basestring(key))
        emit(":")
        _write(dict.__getitem__(obj, key), emit, depth)
        comma = ","
    emit("}")


def _one_less(depth: int) -> int:
    if depth == 0:
        raise TypeError(f"JSON of an item is nested at most {_DUMPS_DEPTH} deep")
    return depth - 1


def _float_text(number: float) -> str:
    if number - number != 0.0:
        _refuse_number(number)
    text = repr(number)
    mantissa, e, exponent = text.partition("e-0")
    if not e:
        return text
    if exponent != "5":
        return f"{mantissa}e-{exponent}"
    # orjson writes a number from 0.00001 up without an exponent.
    sign = "-" if mantissa[0] == "-" else ""
    return f"{sign}0.0000{mantissa.lstrip('-').replace('.', '')}"


def _refuse_number(number: float) -> NoReturn:
    raise ValueError(f"JSON has no {number!r}")


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"JSON has no {text}")


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0.0:
        raise ValueError(f"JSON number is out of range: {text[:40]}")
    return number


def _int_or_float(text: str) -> int | float:
    if len(text) > 20:  # the longest that fits
        return _finite(text)
    number = int(text)
    return number if _MIN_INT <= number <= _MAX_INT else float(text)


def _inside(obj: Any) -> Iterable[Any] | None:
    """Return the contents of a container as orjson reads them, even if a subclass hides them."""
    if isinstance(obj, dict):
        return dict.values(obj)
    if isinstance(obj, list):
        return list.__iter__(obj)
    if type(obj) is tuple:
        return obj
    if _stands_for_value(obj):
        return _inside(obj.value)
    return None


def _stands_for_value(obj: Any) -> bool:
    return type(type(obj)) is enum.EnumMeta and not isinstance(obj, (str, int, list, dict))


#: Types whose values do not contain other values.
_PLAIN = frozenset((str, int, float, bool, type(None)))


_DICT = frozenset((dict,))
#: The plain types whose values JSON can all represent.
_SURE = frozenset((str, int, bool))


def _is_deeper(obj: Any, limit: int, brackets: int) -> bool:
    """Return whether containers are nested more than `limit` deep. `brackets` bounds the depth."""
    if brackets <= limit:
        return False
    level = [obj]
    for _ in range(limit + 1):
        inside = [each for each in map(_inside, level) if each is not None]
        if not inside:
            return False
        # Each object once: in a cycle they would double level by level.
        level = list(
            {id(one): one for each in inside for one in each if type(one) not in _PLAIN}.values()
        )
    return True


def _refuse_non_finite(obj: Any) -> None:
    if type(obj) is float:
        _float_text(obj)
    elif _stands_for_value(obj):
        _refuse_non_finite(obj.value)
    else:
        for each in _inside(obj) or ():
            _refuse_non_finite(each)


def _orjson_agrees() -> bool:
    # Before 3.11.7 orjson wrote 1e16 for 1e+16. Another text is another item, so processes with
    # such a version would not agree with others.
    numbers = [1e15, 1e16, -1.5e300, 1e-4, -1.25e-5, 1e-6, 1.5e-7, 1e-10, -0.0, 5e-324]
    return orjson.dumps(numbers) == _StandardJSON().dumps(numbers)


_USE_ORJSON = bool(orjson) and _orjson_agrees()

if _USE_ORJSON:
    _orjson_dumps, _orjson_loads = orjson.dumps, orjson.loads
    _OPTIONS = (
        orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
    )


def _refuse_deep(obj: Any) -> None:
    """Refuse an item that is nested too deep, before orjson reads it.

    orjson does not count tuples and enum members, so deep ones and cycles overflow its stack.
    """
    if _is_deeper(obj, _DUMPS_DEPTH, _DUMPS_DEPTH + 1):
        _one_less(0)


class JSONSerializer(Serializer):
    """JSON with sorted keys, so that equal dicts are one item.

    The stored bytes are compact UTF-8, written by orjson. If orjson is missing or older than
    3.11.7, the standard library writes the same bytes.

    It stores these types, nested at most 254 deep, and refuses all others:

    - None, bool, int within 64 bits, finite float, str, list, tuple, and dict with str keys;
    - subclasses of int, str, list and dict, as their base class;
    - `uuid.UUID` as its text, a member of an `enum.Enum` as its value.

    Items come out with the types of JSON: a tuple comes out as a list.

    Raises
    ------
    TypeError
        From ``dumps`` for other types, such as dataclasses and datetimes.
    ValueError
        From ``dumps`` for NaN and infinity. From ``loads`` for text that is not JSON.

    Examples
    --------
    >>> json_serializer = JSONSerializer()
    >>> json_serializer.dumps({"url": "/a", "depth": 1})
    b'{"depth":1,"url":"/a"}'
    >>> json_serializer.loads(b'{"depth":1,"url":"/a"}')
    {'depth': 1, 'url': '/a'}
    """

    binary = True

    if _USE_ORJSON:

        def dumps(self, obj: Any) -> bytes:
            """Return the JSON text of an item, in UTF-8."""
            if type(obj) is dict and _SURE.issuperset(map(type, obj.values())):
                return _orjson_dumps(obj, None, _OPTIONS)
            flat = type(obj) is dict and _PLAIN.issuperset(map(type, obj.values()))
            if not flat:
                _refuse_deep(obj)
            data = _orjson_dumps(obj, None, _OPTIONS)
            # orjson writes null for NaN. The cheapest check is to read the text back and compare,
            # if the item's own comparison cannot hide a NaN. (rfind is twice as fast here as find.)
            if data.rfind(b"null") >= 0 and not (flat and _orjson_loads(data) == obj):
                _refuse_non_finite(obj)
            return data

        def loads(self, data: bytes | str) -> Any:
            """Return the item of a JSON text."""
            return _orjson_loads(data)

    else:
        dumps = _StandardJSON.dumps
        loads = _StandardJSON.loads


def _dumps_flat(items: Any) -> list[bytes] | None:
    """Serialise each item as `JSONSerializer.dumps` does, if all are flat dicts; else return None.

    One call writes all of them, and their text is split: two thirds of the time of one call per
    item. No object of orjson's is kept, since many of them slow its allocator down.
    """
    if not _USE_ORJSON or not items or not _DICT.issuperset(map(type, items)):
        return None
    # Checked before orjson reads them: see _refuse_deep.
    kinds = set(map(type, chain.from_iterable(map(dict.values, items))))
    if not kinds <= _PLAIN:
        return None
    text = _orjson_dumps(items, None, _OPTIONS)
    # A null may stand for NaN. The search takes as long as orjson.
    if float in kinds and b"null" in text:
        return None
    # JSON has no line ends of its own.
    texts: list[bytes] = text[1:-1].replace(b"},{", b"}\n{").split(b"\n")
    # There are more parts if a string of an item has these characters, too.
    return texts if len(texts) == len(items) else None


class NamedtupleSerializer(Serializer):
    """Namedtuples of one class as JSON objects, in the same bytes as redset 0.5.1.

    Parameters
    ----------
    NTClass : type
        The namedtuple class, made by `collections.namedtuple` or a
        `typing.NamedTuple`.

    Examples
    --------
    >>> from collections import namedtuple
    >>> Page = namedtuple("Page", "url depth")
    >>> pages = NamedtupleSerializer(Page)
    >>> pages.dumps(Page("/a", 1))
    '{"url": "/a", "depth": 1}'
    >>> pages.loads('{"url": "/a", "depth": 1}')
    Page(url='/a', depth=1)
    """

    binary = False

    def __init__(self, NTClass: Any) -> None:
        self.NTClass = NTClass

    def dumps(self, obj: Any) -> str:
        """Return the JSON text of a namedtuple."""
        return json.dumps(obj._asdict())

    def loads(self, data: bytes | str) -> Any:
        """Return the namedtuple of a JSON text."""
        return self.NTClass(**json.loads(data))


class StructSerializer(Serializer):
    """Values of one type as JSON, by msgspec. Their type is checked when they are read.

    Fields and keys are sorted, so equal values are one item. It needs msgspec
    (``pip install msgspec``).

    Parameters
    ----------
    type : type
        Type of the items: a `msgspec.Struct`, a dataclass, a TypedDict or any other type that
        msgspec reads.

    Raises
    ------
    ImportError
        Without msgspec.
    TypeError
        From ``dumps``, for an item of another class than the Struct or dataclass, or one that
        msgspec cannot write.
    ValueError
        From ``dumps`` for NaN and infinity. From ``loads`` for text that is not JSON of the type.

    Examples
    --------
    >>> import msgspec
    >>> class Page(msgspec.Struct):
    ...     url: str
    ...     depth: int = 0
    >>> pages = StructSerializer(Page)
    >>> pages.dumps(Page("/a"))
    b'{"depth":0,"url":"/a"}'
    >>> pages.loads(b'{"depth":0,"url":"/a"}')
    Page(url='/a', depth=0)
    """

    binary = True

    def __init__(self, type: Any) -> None:
        try:
            import msgspec
        except ImportError as error:
            raise ImportError("StructSerializer needs msgspec: pip install msgspec") from error
        self.type = type
        self._encode = msgspec.json.Encoder(order="sorted").encode
        self._decode = msgspec.json.Decoder(type).decode
        self._to_builtins = msgspec.to_builtins
        has_fields = hasattr(type, "__struct_fields__") or hasattr(type, "__dataclass_fields__")
        self._instances_of = type if has_fields and inspect.isclass(type) else object

    def __reduce__(self) -> Any:
        return self.__class__, (self.type,)

    def dumps(self, obj: Any) -> bytes:
        """Return the JSON text of a value, in UTF-8."""
        if not isinstance(obj, self._instances_of):
            raise TypeError(
                f"an item must be a {self.type.__name__}, got {obj!r:.100} ({type(obj).__name__})"
            )
        data = self._encode(obj)
        # msgspec, too, writes null for NaN.
        if b"null" in data:
            _refuse_non_finite(self._to_builtins(obj))
        return data

    def loads(self, data: bytes | str) -> Any:
        """Return the value of a JSON text."""
        return self._decode(data)
