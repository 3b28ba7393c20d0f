"""Draws the values that callers may hand in: plain ones, those at the edges, and hostile ones."""

from __future__ import annotations

import json
import math
import random
import struct
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from hostile import HOSTILE, Bytes, Text

from redset.serializers import JSONSerializer, NamedtupleSerializer

Page = namedtuple("Page", "url depth")

#: Sizes at which blocks, words, buffers and switches of algorithm begin and end.
SIZES = (0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 47, 48, 63, 64, 65, 127, 128, 129, 255, 256, 257,
         448, 449, 511, 512, 513, 1000)  # fmt: skip
EDGES = (0, 1, -1, 9, 10, 99, 100, 9999, 10000, 2**31, 2**32, 2**53 - 1, 2**53, 2**53 + 1,
         2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64 - 1, 2**64, 10**30, 10**400)  # fmt: skip
FLOATS = (0.0, -0.0, math.inf, -math.inf, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308,
          1e22, 1e-4, 1e-5, 0.1, 1.5, 2.0**53, -(2.0**53), 9007199254740993.0)  # fmt: skip
ALPHABETS = ("ab", "a\0", "abcdefghij/:.?=&%0123456789", "aé€😀", "x\ud800\udfff", "*$\r\n-1")
#: One object is given to both implementations, and a defaultdict changes when it is asked.
_STEADY = [make for make in HOSTILE if type(make()) is not defaultdict]
RAWS = (b'{"a":1}', b'["a", {"b": 1.5}]', b"[1", b"null", b"1e999", b'"\\ud800"', b"NaN", b"7",
        b"\xff", b"[" * 300)  # fmt: skip
EPOCH = b"0123456789abcdef"


class Values:
    """Draws values; the same seed draws the same ones, in new objects."""

    def __init__(self, seed: str) -> None:
        self.rng = random.Random(seed)

    def pick(self, *choices: Any) -> Any:
        return choices[int(self.rng.random() * len(choices))]

    def one_in(self, number: int) -> bool:
        return self.rng.random() * number < 1

    def size(self) -> int:
        """How long something is: short, at an edge, or once in a while huge."""
        if self.one_in(5000):
            return self.rng.randrange(1 << 22)
        if self.one_in(4):
            return self.pick(*SIZES)
        return int(self.rng.expovariate(0.1))

    def text(self) -> str:
        size, alphabet = self.size(), self.pick(*ALPHABETS)
        if size > 2000:
            return str(alphabet * (size // len(alphabet)))
        return "".join(self.rng.choices(alphabet, k=size))

    def data(self) -> bytes:
        size = self.size()
        return (
            self.rng.randbytes(size) if self.one_in(2) else self.pick(b"\0", b"a", b"\xff") * size
        )

    def integer(self) -> int:
        if self.one_in(3):
            return int(self.pick(*EDGES)) + self.pick(0, 0, 1, -1)
        return self.rng.randrange(-1000, 1000)

    def floating(self) -> float:
        draw = self.rng.random()
        if draw < 0.2:
            return float(self.pick(*FLOATS))
        if draw < 0.4:
            return float(struct.unpack("d", self.rng.randbytes(8))[0])
        if draw < 0.6:
            return round(self.rng.uniform(-1e4, 1e4), self.rng.randrange(6))
        if draw < 0.8:
            return self.rng.uniform(1.6e9, 1.9e9)
        return self.rng.randrange(2**53) / 2.0 ** self.rng.randrange(70)

    def hostile(self) -> Any:
        return self.pick(*_STEADY)()

    def plain(self) -> Any:
        return self.pick(self.text, self.data, self.integer, self.floating, self._constant)()

    def _constant(self) -> Any:
        return self.pick(None, True, False)

    def score(self) -> Any:
        """A score, seldom something that is none."""
        if self.one_in(30):
            return self.pick(self.text, self.data, self.hostile, self._constant, self.nested)()
        return self.pick(self.floating, self.integer)()

    def key(self) -> Any:
        """An identity, seldom something that is none."""
        if self.one_in(15):
            return self.pick(self.hostile, self.floating, self._constant, self.nested)()
        return self.pick(self.text, self.data, self.integer)()

    def nested(self, depth: int = 0) -> Any:
        """A value of JSON, or one of some that JSON cannot hold."""
        if depth > self.rng.randrange(6):
            return self.hostile() if self.one_in(20) else self.plain()
        few = range(self.rng.randrange(4))
        kind = self.pick(list, tuple, dict, dict)
        if kind is dict:
            keys = (self.pick("a", "url", "depth", "é", 1, None, self.text()) for _ in few)
            return {key: self.nested(depth + 1) for key in keys}
        return kind(self.nested(depth + 1) for _ in few)

    def deep(self) -> Any:
        """Nested about as deep as serializers go."""
        value: Any = self.plain()
        for _ in range(self.pick(3, 60, 125, 250, 254, 255, 256, 260)):
            value = [value] if self.one_in(2) else {"a": value}
        return value

    def record(self) -> Any:
        """Something with the fields `url` and `depth`, seldom without."""
        fields = {"url": self.key(), "depth": self.score()}
        if self.one_in(20):
            del fields[self.pick("url", "depth")]
            return fields
        draw = self.rng.random()
        if draw < 0.6:
            return fields
        if draw < 0.7:
            return Page(**fields)
        if draw < 0.8:
            return SimpleNamespace(**fields)
        return self.pick(UserDict, OrderedDict, Fields)(fields)

    def item(self) -> Any:
        draw = self.rng.random()
        if draw < 0.35:
            return self.record()
        if draw < 0.75:
            return self.plain()
        if draw < 0.9:
            return self.nested()
        return self.deep() if self.one_in(50) else self.hostile()

    def items(self) -> list[Any]:
        """A list of items of which some are equal; seldom one with hundreds."""
        length = self.rng.randrange(12)
        if self.one_in(40):
            length = self.pick(31, 32, 33, 47, 48, 49, 300, 700)
        make = self.pick(self.item, self.record, self.text, self.data, self.plain)
        few = [make() for _ in range(min(length, 12))]
        while len(few) < length:
            few.append(self.pick(*few) if self.one_in(3) else make())
        return few

    def dumps(self) -> Callable[[Any], Any] | None:
        return self.pick(
            None, None, repr, JSON.dumps, JSON.dumps, json.dumps, PAGES.dumps, dumps_some, itself,
            raising,
        )  # fmt: skip

    def loads(self) -> Callable[[Any], Any] | None:
        return self.pick(
            None, JSON.loads, json.loads, PAGES.loads, int, itself, dumps_some, raising
        )

    def key_of(self) -> Any:
        return self.pick(None, None, "url", "url", Text("url"), "missing", itself, call_some, repr)

    def scorer(self) -> Any:
        return self.pick(
            0.0, self.floating(), "depth", Text("depth"), "missing", itself, call_some, 7
        )

    def epoch(self) -> Any:
        if self.one_in(20):
            return self.pick(
                b"e" * 65, bytearray(b"e"), memoryview(b"ep"), Bytes(b"e"), "e", None, 5
            )
        return self.pick(EPOCH, b"", b"e" * 64, self.rng.randbytes(self.rng.randrange(65)))

    def raw(self) -> Any:
        """A stored member, or a value that no server would send."""
        if self.one_in(20):
            return self.pick(self.text, self.integer, self.hostile, lambda: bytearray(b"2"))()
        if self.one_in(3):
            return self.pick(*RAWS)
        return self.data()


class Fields(dict):  # type: ignore[type-arg]
    """A dict of another class."""


JSON, PAGES = JSONSerializer(), NamedtupleSerializer(Page)


def itself(value: Any) -> Any:
    return value


def raising(value: Any) -> Any:
    raise LookupError("no")


def dumps_some(item: Any) -> Any:
    """A serializer that makes of items all that serializers make, and some errors."""
    text = repr(item)
    return (
        text,
        text.encode("utf-8", "replace"),
        Text(text),
        Bytes(b"bytes"),
        bytearray(3),
        memoryview(b"view"),
        None,
    )[len(text) % 7]


def call_some(item: Any) -> Any:
    """A key and a scorer of the same kind."""
    text = repr(item)
    return (text, len(text), len(text) / 2, b"b", Text(text), None, True)[len(text) % 7]
