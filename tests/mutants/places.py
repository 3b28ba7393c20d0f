"""Finds the text that a mutant changes, also after its function moved to another file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TREE = Path(__file__).resolve().parents[2]
#: Text moves within these kinds of files, too.
_KINDS = {".pyx": (".pyx", ".pxi"), ".pxi": (".pyx", ".pxi")}


class Mutant(NamedTuple):
    """A planted fault.

    Attributes
    ----------
    name : str
        Short, in kebab case.
    file : str
        The file, relative to the tree.
    function : str
        The function that encloses the text (def, cdef, Lua's local function). "" for a module,
        a class or a script as a whole.
    old, new : str
        The text, which occurs once in that function, and the text that replaces it.
    breaks : str
        One sentence: the damage.
    tests : tuple of str
        The tests to try first, such as "test_sets.py::test_the_lowest_comes_first".
    """

    name: str
    file: str
    function: str
    old: str
    new: str
    breaks: str
    tests: tuple[str, ...] = ()


class Place(NamedTuple):
    """The place of a mutant: the file, relative to the tree, and the offset in its text."""

    file: str
    at: int
    moved: bool


class Inapplicable(Exception):
    """The text is gone, or is there more than once."""


def find(mutant: Mutant, tree: Path = TREE) -> Place:
    """Return the place where a mutant applies.

    Raises
    ------
    Inapplicable
        If not exactly one place in the named file matches, nor exactly one in all of redset.
    """
    named = tree / mutant.file
    found = _places(mutant, named) if named.is_file() else []
    where, moved = [mutant.file] * len(found), False
    if not found:
        moved = True
        kinds = _KINDS.get(named.suffix, (named.suffix,))
        for path in sorted((tree / "redset").rglob("*")):
            more = _places(mutant, path) if path.suffix in kinds else []
            found += more
            where += [path.relative_to(tree).as_posix()] * len(more)
    function = mutant.function or "the file"
    if not found:
        raise Inapplicable(
            f"{mutant.name}: no longer applies: {function} of {mutant.file}, or of another file, "
            f"has no text {mutant.old!r}"
        )
    if len(found) > 1:
        files = ", ".join(sorted(set(where)))
        raise Inapplicable(
            f"{mutant.name}: applies {len(found)} times: {function} of {files} has the text "
            f"{mutant.old!r} more than once"
        )
    return Place(where[0], found[0], moved)


def mutated(mutant: Mutant, tree: Path = TREE) -> tuple[Place, str]:
    """Return the place of a mutant, and the whole text of that file with the fault in it."""
    place = find(mutant, tree)
    text = (tree / place.file).read_text("utf-8")
    end = place.at + len(mutant.old)
    return place, text[: place.at] + mutant.new + text[end:]


def _places(mutant: Mutant, path: Path) -> list[int]:
    """Return each offset at which a file has the text within a function of that name."""
    text = path.read_text("utf-8")
    found = set()
    for start, end in _spans(text, mutant.function, path.suffix):
        at = text.find(mutant.old, start, end)
        while at >= 0:
            found.add(at)
            at = text.find(mutant.old, at + 1, end)
    return sorted(found)


def _spans(text: str, function: str, suffix: str) -> Iterator[tuple[int, int]]:
    """Yield the begin and the end of each function of a name; for "" the whole text."""
    if not function:
        yield 0, len(text)
        return
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    name = re.escape(function)
    end_of = _end_in_lua if suffix == ".lua" else _end_in_python
    if suffix == ".lua":
        header = re.compile(rf"( *)(?:local )?function {name}\(")
    else:
        # After cdef come any types: cdef inline char* put_bulk(...
        header = re.compile(rf"( *)(?:async def|def|cp?def\b[^(=:]*?)[ *]+{name}\(")
    for number, line in enumerate(lines):
        found = header.match(line)
        if found:
            yield starts[number], starts[end_of(lines, number, found[1])]


def _end_in_python(lines: list[str], number: int, indent: str) -> int:
    """Return the number of the line after a function that begins at this one."""
    # The signature may close at the function's own indentation.
    while not lines[number].split("#")[0].rstrip().endswith(":"):
        number += 1
    for after in range(number + 1, len(lines)):
        line = lines[after]
        if line.strip() and len(line) - len(line.lstrip(" ")) <= len(indent):
            return after
    return len(lines)


def _end_in_lua(lines: list[str], number: int, indent: str) -> int:
    if lines[number].rstrip().endswith(" end"):
        return number + 1
    for after in range(number + 1, len(lines)):
        if lines[after].rstrip() == f"{indent}end":
            return after + 1
    return len(lines)
