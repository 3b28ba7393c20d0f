"""Loads the server-side steps. Each has a file, and ``include/`` has the parts of several steps.

A step declares its keys and arguments once, in the comment at its top::

    -- Removes the lowest items of a range of scores.
    -- KEYS: queue; with second keys none, leases; with key= items
    -- ARGV:
    --   num: number          number of items
    --   lowest, highest
    --   letters...(id, raw)  dead letters to keep

The loader makes Lua locals of these names, and Python passes values by the same names. The keys
after ``with`` are passed on a condition: the set's name can have second keys, the server knows
options of the set, or the set has ``key=``. A caller may pass the keys by name instead.

An argument is a text, a ``number``, a ``flag`` (true or false), or ``optional`` (nil if it is
empty). Any number of values may follow the arguments. They have a name with dots, perhaps
with the fields of a row. The step has a local for the place in ARGV of the first one
(``letters_at``), and one for the number of fields (``letters_width``). The line
``-- fields: letters at i`` makes a local of each field of the row at that place.

An included file may declare arguments, too. A step names them as ``@file`` among its own. Or it
takes them by ``-- fields: @file at i`` from a place of its own; their number is ``file_width``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

_INCLUDE = "-- include: "
#: Patterns, here and below, are compiled when the first script is read.
_FIELDS = r"( *)-- fields: (@?\w+) at (.+)"
_KEYS = "-- KEYS: "
_ARGUMENTS = "-- ARGV:"
_ARGUMENT = (
    r"--   (?P<names>@?\w+(?:, \w+)*)"
    r"(?:: (?P<kind>number|flag|optional)|(?P<dots>\.\.\.)(?:\((?P<fields>[\w, ]+)\))?)?"
    r"(?:  .*)?"
)
#: The Lua expression that reads an argument of each kind.
_READ = {
    "": "{0}",
    # As tonumber(), in half of its time.
    "number": "{0} + 0",
    "flag": "{0} == '1'",
    "optional": "({0} ~= '' and {0} or nil)",
}
#: Conditions under which a set has a key.
_ALWAYS, *_CONDITIONS = "", "second keys", "options", "key="


class Argument(NamedTuple):
    name: str
    kind: str


class Head(NamedTuple):
    """The declarations of a file: its keys, its arguments, and the rows after these."""

    #: Each key with its condition.
    keys: list[tuple[str, str]]
    arguments: list[Argument]
    rest: str
    fields: list[Argument]


class Arguments:
    """Names of arguments, in the order of their values."""

    __slots__ = ("_flags", "_of", "_pick", "names")

    def __init__(self, of: str, arguments: list[Argument]) -> None:
        self.names = tuple(argument.name for argument in arguments)
        self._of = of
        self._flags = [at for at, argument in enumerate(arguments) if argument.kind == "flag"]
        self._pick = _picker(self.names)

    def values(self, given: Mapping[str, Any]) -> list[Any]:
        """Return given values in the order of their declaration.

        Raises
        ------
        TypeError
            If a name is missing or unknown.
        """
        if len(given) != len(self.names):
            raise _wrong_name(self._of, "argument", given, self.names)
        try:
            values = list(self._pick(given))
        except KeyError:
            raise _wrong_name(self._of, "argument", given, self.names) from None
        for at in self._flags:
            values[at] = b"1" if values[at] else b""
        return values


class Script:
    """A server-side step: its text, and the hash by which EVALSHA names it."""

    __slots__ = ("_getters", "_keys", "arguments", "load", "name", "sha", "text")

    def __init__(self, name: str, text: bytes, head: Head) -> None:
        self.name = name
        self.text = text
        #: The request that loads it.
        self.load = b"*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$%d\r\n%b\r\n" % (len(text), text)
        self.sha = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
        self.arguments = Arguments(f"the step {name!r}", head.arguments)
        self._keys = head.keys
        self._getters: dict[tuple[bool, ...], Callable[[Any], tuple[bytes, ...]]] = {}

    @property
    def keys(self) -> list[str]:
        return [name for name, _ in self._keys]

    def keys_of(self, keys: Any, second: bool, options: bool, keyed: bool) -> tuple[bytes, ...]:
        """Return the set's keys that the step takes from a set with these properties."""
        like = (second, options, keyed)
        get = self._getters.get(like)
        if get is None:
            there = {_ALWAYS, *(each for each, has in zip(_CONDITIONS, like, strict=True) if has)}
            get = _picker(tuple(name for name, when in self._keys if when in there), attrgetter)
            self._getters[like] = get
        return get(keys)

    def keys_given(self, given: Mapping[str, bytes]) -> list[bytes]:
        """Return keys that are given by name, in order. The last ones may be missing."""
        names = self.keys[: len(given)]
        if given.keys() != set(names):
            raise _wrong_name(f"the step {self.name!r}", "key", given, names)
        return [given[name] for name in names]

    def whole(self, request: bytes) -> bytes:
        """Return an EVALSHA of this script as an EVAL, which needs no loading."""
        length, rest = request.split(b"\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n" % self.sha, 1)
        return b"%b\r\n$4\r\nEVAL\r\n$%d\r\n%b\r\n%b" % (length, len(self.text), self.text, rest)

    def commands_at(self, number: int) -> list[str]:
        """Return the names of the commands that a line of the script may call."""
        text = self.text.decode()
        lines = text.splitlines()
        line = lines[number - 1] if 0 < number <= len(lines) else ""
        found = re.findall(r"\bcall\(\s*'(\w+)'", line)
        if not found and "call(" in line:
            # A helper function takes the command as an argument: any command that is passed to it.
            helpers = re.findall(r"\bfunction (\w+)\(", "\n".join(lines[:number]))
            found = re.findall(rf"\b{helpers[-1]}\(\s*'(\w+)'", text) if helpers else []
        return sorted(set(found))


@cache
def script(name: str) -> Script:
    """Return the script of a name."""
    source = _read(name)
    return Script(name, "\n".join(_expanded(source, name)).encode(), _head_of(source, name))


@cache
def arguments_of(included: str) -> Arguments:
    """Return the arguments that an included file declares."""
    name = f"include/{included}"
    return Arguments(f"the file {included!r}", _head_of(_read(name), name).arguments)


def _picker(names: tuple[str, ...], getter: Any = itemgetter) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        picker: Callable[[Any], tuple[Any, ...]] = getter(*names)
        return picker
    # A getter of a single name returns its value, and not a tuple.
    each = [getter(name) for name in names]
    return lambda given: tuple(get(given) for get in each)


def _wrong_name(of: str, what: str, given: Collection[str], names: Collection[str]) -> TypeError:
    for name in given:
        if name not in names:
            return TypeError(f"{of} has no {what} {name!r}")
    missing = next(name for name in names if name not in given)
    return TypeError(f"{of} needs the {what} {missing!r}")


def _read(name: str) -> str:
    # Not by path: the package may be in a zip file, as with zipapp or Spark's --py-files. Imported
    # late, since it takes longer than the rest of redset.
    from importlib import resources

    return (resources.files("redset") / f"scripts/{name}.lua").read_text("utf-8")


# --- heads


def _head_of(source: str, name: str) -> Head:
    """Read the declarations of a file."""
    keys: list[tuple[str, str]] = []
    arguments: list[Argument] = []
    rest, fields = "", list[Argument]()
    lines = source.splitlines()
    for line in lines[: _length_of_head(lines)]:
        if line.startswith(_KEYS):
            keys = _keys_in(line, name)
    for line in _declarations(lines):
        found = re.fullmatch(_ARGUMENT, line)
        if found is None or rest:
            raise ValueError(f"{name}.lua must declare arguments, got {line!r}")
        names = found["names"].split(", ")
        if found["dots"]:
            (rest,) = names
            fields = [Argument(each, "") for each in (found["fields"] or "").split(", ") if each]
        elif names[0].startswith("@"):
            included = f"include/{names[0][1:]}"
            arguments += _head_of(_read(included), included).arguments
        else:
            arguments += [Argument(each, found["kind"] or "") for each in names]
    return Head(keys, arguments, rest, fields)


def _length_of_head(lines: list[str]) -> int:
    """Return the number of comment lines at a file's top."""
    for at, line in enumerate(lines):
        if not line.startswith("--") or line.startswith(_INCLUDE) or re.fullmatch(_FIELDS, line):
            return at
    return len(lines)


def _declarations(lines: list[str]) -> Iterator[str]:
    """Yield the lines that declare arguments."""
    inside = False
    for line in lines[: _length_of_head(lines)]:
        if inside and not line.startswith("--   "):
            return
        # A line that continues a description is indented further.
        if inside and not line.startswith("--    "):
            yield line
        inside = inside or line == _ARGUMENTS


def _keys_in(line: str, name: str) -> list[tuple[str, str]]:
    keys = []
    for part in line.removeprefix(_KEYS).split("; "):
        condition = next(
            (each for each in _CONDITIONS if part.startswith(f"with {each} ")), _ALWAYS
        )
        names = part.removeprefix(f"with {condition} ") if condition else part
        if not re.fullmatch(r"\w+(, \w+)*", names):
            raise ValueError(f"{name}.lua must declare keys, got {part!r}")
        keys += [(each, condition) for each in names.split(", ")]
    return keys


# --- texts


def _expanded(source: str, name: str) -> Iterator[str]:
    """Yield the lines of a script, with its declared locals and its included files."""
    head, lines = _head_of(source, name), source.splitlines()
    top = _length_of_head(lines)
    yield from lines[:top]
    if head.keys:
        names = ", ".join(key for key, _ in head.keys)
        yield f"local {names} = {', '.join(f'KEYS[{at + 1}]' for at in range(len(head.keys)))}"
    if head.arguments:
        yield _locals(head.arguments, "", 1)
    if head.rest:
        yield f"local {head.rest}_at = {len(head.arguments) + 1}"
        if head.fields:
            yield f"local {head.rest}_width = {len(head.fields)}"
    yield from _body(lines[top:], head)


def _body(lines: list[str], head: Head) -> Iterator[str]:
    for line in lines:
        taken = re.fullmatch(_FIELDS, line)
        if line.startswith(_INCLUDE):
            included = line.removeprefix(_INCLUDE).strip()
            text = _read(f"include/{included}").splitlines()
            declared = _head_of("\n".join(text), f"include/{included}").arguments
            top = _length_of_head(text)
            yield from text[:top]
            if declared:
                yield f"local {included}_width = {len(declared)}"
            yield from _body(text[top:], head)
        elif taken:
            fields = head.fields
            if taken[2].startswith("@"):
                included = f"include/{taken[2][1:]}"
                fields = _head_of(_read(included), included).arguments
            yield taken[1] + _locals(fields, taken[3], 0)
        else:
            yield line


def _locals(arguments: list[Argument], place: str, first: int) -> str:
    """Return the line that makes locals of arguments, from a place in ARGV on."""
    start = f"{place} + " if place else ""
    values = [
        _READ[kind].format(f"ARGV[{start}{at}]") for at, (_, kind) in enumerate(arguments, first)
    ]
    return f"local {', '.join(name for name, _ in arguments)} = {', '.join(values)}"
