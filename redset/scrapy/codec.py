"""Requests as compact JSON, without fields that equal their default. Nothing is changed silently.

JSON has fewer types than Python. A value of another type is an object with a tag, such as
``{"$": "tuple", "v": […]}``. A value that would not come back the same raises `Unfit`, with its
path. There is no pickle: a stored request can only name a method of the spider, and a class of the
allowed modules.
"""

from __future__ import annotations

import base64
import datetime
import inspect
import json
import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from scrapy import Request
from scrapy.http import Headers
from scrapy.http.request import NO_CALLBACK
from scrapy.utils.misc import load_object

try:
    import orjson
except ImportError:  # not on PyPy
    orjson = None  # type: ignore[assignment]

#: The integers that orjson accepts.
_LEAST, _MOST = -(2**63), 2**64 - 1


class Unfit(ValueError):
    """A request that cannot be stored as it is. The text has the path of the value at fault.

    Examples
    --------
    >>> from redset.scrapy import Unfit
    >>> raise Unfit("meta['page'] is a builtins.object")
    Traceback (most recent call last):
        ...
    redset.scrapy.codec.Unfit: meta['page'] is a builtins.object
    """


def _tag(kind: str, value: Any) -> dict[str, Any]:
    return {"$": kind, "v": value}


def _packed(value: Any, path: str) -> Any:
    """Return a value with JSON's types."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    pack = _PACKERS.get(kind)
    if pack is None:
        raise Unfit(f"{path} is a {kind.__module__}.{kind.__qualname__}")
    return pack(value, path)


def _packed_int(value: int, path: str) -> Any:
    return value if _LEAST <= value <= _MOST else _tag("int", str(value))


def _packed_float(value: float, path: str) -> Any:
    return value if math.isfinite(value) else _tag("float", repr(value))


def _packed_list(value: list[Any], path: str) -> Any:
    return [_packed(each, f"{path}[{place}]") for place, each in enumerate(value)]


def _packed_dict(value: dict[Any, Any], path: str) -> Any:
    packed = {}
    for key, each in value.items():
        if type(key) is not str or key == "$":
            pairs = [
                [_packed(key, f"{path} key"), _packed(each, f"{path}[{key!r}]")]
                for key, each in value.items()
            ]
            return _tag("dict", pairs)
        packed[key] = each if type(each) is str else _packed(each, f"{path}[{key!r}]")
    return packed


def _packed_time(value: datetime.datetime, path: str) -> Any:
    # Only a fixed offset comes back from ISO 8601 unchanged.
    if value.tzinfo is not None and type(value.tzinfo) is not datetime.timezone:
        kind = type(value.tzinfo)
        raise Unfit(f"{path} has a time zone that is a {kind.__module__}.{kind.__qualname__}")
    return _tag("datetime", [value.isoformat(), value.fold])


def _packed_many(kind: str) -> Callable[[Any, str], Any]:
    return lambda value, path: _tag(kind, _packed_list(list(value), path))


_PACKERS: dict[type, Callable[[Any, str], Any]] = {
    int: _packed_int,
    float: _packed_float,
    list: _packed_list,
    dict: _packed_dict,
    bytes: lambda value, path: _tag("bytes", base64.b64encode(value).decode()),
    tuple: _packed_many("tuple"),
    set: _packed_many("set"),
    frozenset: _packed_many("frozenset"),
    datetime.datetime: _packed_time,
    datetime.date: lambda value, path: _tag("date", value.isoformat()),
}


def _unpacked(value: Any) -> Any:
    """Return the argument of `_packed`."""
    kind = type(value)
    if kind is dict:
        if "$" in value:
            return _UNPACKERS[value["$"]](value["v"])
        return {
            key: _unpacked(each) if type(each) in (dict, list) else each
            for key, each in value.items()
        }
    if kind is list:
        return [_unpacked(each) if type(each) in (dict, list) else each for each in value]
    return value


_UNPACKERS: dict[str, Callable[[Any], Any]] = {
    "int": int,
    "float": float,
    "bytes": base64.b64decode,
    "tuple": lambda value: tuple(map(_unpacked, value)),
    "set": lambda value: set(map(_unpacked, value)),
    "frozenset": lambda value: frozenset(map(_unpacked, value)),
    "dict": lambda value: {_unpacked(key): _unpacked(each) for key, each in value},
    "date": datetime.date.fromisoformat,
    "datetime": lambda value: datetime.datetime.fromisoformat(value[0]).replace(fold=value[1]),
}


def dump_json(value: Any) -> bytes:
    """Return compact JSON. orjson refuses lone surrogates and deep nesting; json does not."""
    if orjson is not None:
        try:
            return orjson.dumps(value)
        except TypeError:
            pass
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def load_json(raw: bytes) -> Any:
    """Return the argument of `dump_json`."""
    if orjson is not None:
        try:
            return orjson.loads(raw)
        except ValueError:
            pass
    return json.loads(raw)


def _plain_headers(headers: Headers) -> list[Any]:
    return [
        [name.decode("latin-1"), [value.decode("latin-1") for value in values]]
        for name, values in headers.items()
    ]


#: Attributes that a stored request may have packed, and may lack if they are empty.
_PACKED = ("cookies", "meta", "cb_kwargs", "flags")


class RequestCodec:
    """Encodes the requests of one spider, and decodes them.

    Parameters
    ----------
    spider : Spider or None
        The spider whose methods are callbacks.
    classes : sequence of str
        Patterns of the classes that a stored request may name: ``scrapy.*``.
    """

    def __init__(self, spider: Any, classes: Sequence[str] = ("scrapy.*",)) -> None:
        self._spider = spider
        self._patterns = tuple(classes)
        self._names: dict[Any, str] = {}
        self._methods: dict[str, Any] = {}
        #: The name of each allowed class, with its attributes beyond those of a Request.
        self._classes: dict[type, tuple[str, tuple[str, ...]]] = {}
        self._loaded: dict[str, type] = {}

    def dumps(self, request: Any) -> bytes:
        """Return a request as bytes.

        Raises
        ------
        Unfit
            If it would not come back as it is.
        """
        data: dict[str, Any] = {"url": request.url}
        if request.callback is not None:
            data["callback"] = self._name_of(request.callback, "callback")
        if request.errback is not None:
            data["errback"] = self._name_of(request.errback, "errback")
        cls = type(request)
        if cls is not Request:
            self._add_class(data, request, cls)
        if request.method != "GET":
            data["method"] = request.method
        if request.body:
            data["body"] = base64.b64encode(request.body).decode()
        if request.headers:
            data["headers"] = _plain_headers(request.headers)
        try:
            for field in _PACKED:
                value = getattr(request, field)
                if value:
                    data[field] = _packed(value, field)
        except RecursionError:
            raise Unfit(f"{field} is nested too deeply") from None
        if request.priority:
            data["priority"] = _packed(request.priority, "priority")
        if request.dont_filter:
            data["dont_filter"] = True
        if request.encoding != "utf-8":
            data["encoding"] = request.encoding
        return dump_json(data)

    def _add_class(self, data: dict[str, Any], request: Any, cls: type) -> None:
        """Add the class, and attributes for which a class may have other defaults."""
        known = self._classes.get(cls)
        if known is None:
            name = f"{cls.__module__}.{cls.__qualname__}"
            if not self._allows(name):
                raise Unfit(f"the class is {name}, which REDSET_REQUEST_CLASSES does not allow")
            try:
                found = load_object(name)
            except (NameError, ImportError, ValueError):
                found = None
            if found is not cls:
                raise Unfit(f"the class is {name}, which cannot be imported by that name")
            attributes: Any = getattr(cls, "attributes", ())
            known = name, tuple(each for each in attributes if each not in Request.attributes)
            self._classes[cls] = known
        data["class"] = known[0]
        data["method"], data["dont_filter"] = request.method, bool(request.dont_filter)
        data["body"] = base64.b64encode(request.body).decode()
        data["headers"] = _plain_headers(request.headers)
        data["priority"] = _packed(request.priority, "priority")
        data["encoding"] = request.encoding
        if known[1]:
            data["more"] = {each: _packed(getattr(request, each), each) for each in known[1]}

    def _allows(self, name: str) -> bool:
        return any(
            fnmatchcase(name, pattern) or name.rpartition(".")[0] == pattern
            for pattern in self._patterns
        )

    def _name_of(self, function: Any, field: str) -> Any:
        """Return the name of a method of the spider; 0 for the sentinel without a callback."""
        plain = getattr(function, "__func__", None)
        if plain is not None and function.__self__ is self._spider:
            name = self._names.get(plain)
            if name is not None:
                return name
            # A private method has another name than its function.
            for name, method in inspect.getmembers(self._spider, inspect.ismethod):
                if method.__func__ is plain and method.__self__ is self._spider:
                    self._names[plain] = name
                    return name
        if function is NO_CALLBACK:
            return 0
        raise Unfit(f"{field} is not a method of {self._spider!r}: {function!r}")

    def loads(self, raw: bytes) -> Any:
        """Return the argument of `dumps`.

        Raises
        ------
        Exception
            If it cannot be made: the callback was renamed, or the class was removed.
        """
        return self.build(load_json(raw))

    def build(self, data: dict[str, Any]) -> Any:
        """Return the request of parsed JSON, which this consumes."""
        for field in _PACKED:
            if field in data:
                data[field] = _unpacked(data[field])
        for field in ("callback", "errback"):
            if field in data:
                data[field] = self._method(field, data[field])
        if "body" in data:
            data["body"] = base64.b64decode(data["body"])
        headers = data.get("headers")
        if headers is not None:
            data["headers"] = headers = {
                name.encode("latin-1"): [value.encode("latin-1") for value in values]
                for name, values in headers
            }
        if "priority" in data:
            data["priority"] = _unpacked(data["priority"])
        name = data.pop("class", None)
        if name is None:
            return Request(**data)
        for field, value in data.pop("more", {}).items():
            data[field] = _unpacked(value)
        request = self._class_of(name)(**data)
        # A class may have set some headers itself.
        request.headers = Headers(headers or {}, encoding=request.encoding)
        return request

    def _method(self, field: str, name: Any) -> Any:
        if name == 0:
            return NO_CALLBACK
        method = self._methods.get(name)
        if method is None:
            method = getattr(self._spider, name, None)
            if not inspect.ismethod(method):
                raise ValueError(f"{field} {name!r} is not a method of {self._spider!r}")
            self._methods[name] = method
        return method

    def _class_of(self, name: str) -> Any:
        found = self._loaded.get(name)
        if found is None:
            if not self._allows(name):
                raise ValueError(f"class {name!r} is not allowed by REDSET_REQUEST_CLASSES")
            found = load_object(name)
            if not (isinstance(found, type) and issubclass(found, Request)):
                raise ValueError(f"class {name!r} is not a subclass of scrapy.Request")
            self._loaded[name] = found
        return found
