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

A step on a set with ``group=`` may have other lines. A file marks them by lines of their own: those
after ``-- grouped:`` are for such sets, those after ``-- ungrouped:`` for all others, and those
after ``-- both:`` for all. So one source has two texts, and neither pays for the other.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

_INCLUDE = "-- include: "
#: Lines that mark the sets that the next lines are for, and whether these have ``group=``.
_LABELS = {"-- both:": None, "-- grouped:": True, "-- ungrouped:": False}
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
def script(name: str, grouped: bool = False) -> Script:
    """Return the script of a name, for sets with or without ``group=``."""
    made = _Text(grouped).script(name)
    # Most scripts have one text.
    return script(name) if grouped and made.text == script(name).text else made


@cache
def arguments_of(included: str) -> Arguments:
    """Return the arguments that an included file declares."""
    head = _Text(False).head(f"include/{included}")
    return Arguments(f"the file {included!r}", head.arguments)


def selected(lines: list[str], grouped: bool) -> list[str]:
    """Return the lines of a file that are for sets with or without ``group=``."""
    kept, wanted = [], None
    for line in lines:
        if line in _LABELS:
            wanted = _LABELS[line]
        elif wanted in (None, grouped):
            kept.append(line)
    return kept


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


class _Text:
    """Makes the text of a script, for sets with or without ``group=``."""

    def __init__(self, grouped: bool) -> None:
        self._grouped = grouped

    def script(self, name: str) -> Script:
        return Script(name, "\n".join(self._expanded(name)).encode(), self.head(name))

    def _lines_of(self, name: str) -> list[str]:
        """Return the lines of a file that are for these sets."""
        return selected(_read(name).splitlines(), self._grouped)

    def head(self, name: str) -> Head:
        """Read the declarations of a file."""
        keys: list[tuple[str, str]] = []
        arguments: list[Argument] = []
        rest, fields = "", list[Argument]()
        lines = self._lines_of(name)
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
                fields = [
                    Argument(each, "") for each in (found["fields"] or "").split(", ") if each
                ]
            elif names[0].startswith("@"):
                arguments += self.head(f"include/{names[0][1:]}").arguments
            else:
                arguments += [Argument(each, found["kind"] or "") for each in names]
        return Head(keys, arguments, rest, fields)

    def _expanded(self, name: str) -> Iterator[str]:
        """Yield the lines of a script, with its declared locals and its included files."""
        head, lines = self.head(name), self._lines_of(name)
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
        yield from self._body(lines[top:], head)

    def _body(self, lines: list[str], head: Head) -> Iterator[str]:
        for line in lines:
            taken = re.fullmatch(_FIELDS, line)
            if line.startswith(_INCLUDE):
                included = line.removeprefix(_INCLUDE).strip()
                text, declared = (
                    self._lines_of(f"include/{included}"),
                    self.head(f"include/{included}"),
                )
                top = _length_of_head(text)
                yield from text[:top]
                if declared.arguments:
                    yield f"local {included}_width = {len(declared.arguments)}"
                yield from self._body(text[top:], head)
            elif taken:
                fields = head.fields
                if taken[2].startswith("@"):
                    fields = self.head(f"include/{taken[2][1:]}").arguments
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
