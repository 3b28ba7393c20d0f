"""Objects that lie about themselves, or raise instead of returning."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any


class Text(str):
    pass


class Bytes(bytes):
    pass


class Int(int):
    pass


class Hostile:
    """Raises whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise ZeroDivisionError(name)

    def __str__(self) -> str:
        raise ZeroDivisionError("str")

    def __float__(self) -> float:
        raise ZeroDivisionError("float")

    def __hash__(self) -> int:
        raise ZeroDivisionError("hash")


class Liar:
    """Lies about its type."""

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        return dict

    url = "liar"


class Mask:
    """Bears the class of something that it is not."""

    def __init__(self, kind: type) -> None:
        self._kind = kind

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        return self._kind

    def __str__(self) -> str:
        return "mask"


class Nobody:
    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise AttributeError("nobody")

    url = "nobody"


class HostileDict(dict):  # type: ignore[type-arg]
    def __getitem__(self, name: Any) -> Any:
        raise {"url": KeyError("url"), "depth": RuntimeError("depth")}[name]


class Missing(dict):  # type: ignore[type-arg]
    def __missing__(self, name: Any) -> Any:
        return 3


class HostileStr(str):
    def encode(self, *arguments: Any) -> Any:
        raise ZeroDivisionError("encode")

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError("eq")

    __hash__ = str.__hash__


class OddStr(str):
    def encode(self, *arguments: Any) -> Any:
        return b"odd"

    def __str__(self) -> str:
        return Text("odd")


class HostileBytes(bytes):
    def __bytes__(self) -> bytes:
        raise ZeroDivisionError("bytes")

    def __len__(self) -> int:
        return 10**9

    def decode(self, *arguments: Any) -> str:
        raise ZeroDivisionError("decode")


class OddBytes(bytes):
    def __bytes__(self) -> bytes:
        return b"odd"


class HostileInt(int):
    def __float__(self) -> float:
        raise OverflowError("float")

    def __index__(self) -> int:
        raise ZeroDivisionError("index")

    def __str__(self) -> str:
        raise ZeroDivisionError("str")


class HostileFloat(float):
    def __float__(self) -> float:
        return math.nan

    def __str__(self) -> str:
        raise ZeroDivisionError("str")


class WrongFloat:
    def __float__(self) -> Any:
        return "1.0"


class Index:
    def __index__(self) -> int:
        return 5


class Meddler:
    """A key of a dict that empties it when it is compared, once."""

    def __init__(self, owner: dict[Any, Any], name: str) -> None:
        self._owner: dict[Any, Any] | None = owner
        self._hash = hash(name)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        owner, self._owner = self._owner, None
        if owner is not None:
            rest = list(owner.items())
            owner.clear()
            owner.update({str(n): n for n in range(20)})
            owner.update(rest[1:])
        return False


def meddled(fields: dict[str, Any], name: str) -> dict[Any, Any]:
    """Return a dict that changes when its field of that name is looked up."""
    made: dict[Any, Any] = {}
    made[Meddler(made, name)] = None
    made.update(fields)
    return made


HOSTILE: list[Callable[[], Any]] = [
    Hostile,
    Liar,
    Nobody,
    lambda: Mask(str),
    lambda: Mask(bytes),
    lambda: Mask(int),
    lambda: Mask(float),
    WrongFloat,
    Index,
    lambda: Text("text"),
    lambda: Bytes(b"bytes"),
    lambda: Int(7),
    lambda: HostileDict(url=1),
    lambda: Missing(),
    lambda: defaultdict(int),
    lambda: MappingProxyType({"url": "u", "depth": 1}),
    lambda: HostileStr("text"),
    lambda: OddStr("text"),
    lambda: HostileBytes(b"bytes"),
    lambda: OddBytes(b"bytes"),
    lambda: HostileInt(7),
    lambda: HostileFloat(1.5),
    lambda: float("inf"),
    lambda: Decimal("1.5"),
    lambda: Decimal("nan"),
    lambda: Decimal("snan"),
    lambda: Fraction(1, 3),
    lambda: 10**400,
    dict,
    lambda: {"url": Hostile(), "depth": Hostile()},
    lambda: {HostileStr("url"): 1},
    lambda: memoryview(b"12"),
    lambda: bytearray(b"12"),
    lambda: type,
    lambda: (),
    lambda: "\ud800",
]
