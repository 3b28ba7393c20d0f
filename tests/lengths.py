"""Finds functions that are too long to read at a glance: ``python tests/lengths.py``.

A function of the package has at most 60 lines, without its docstring: in Python, Cython and Lua.
`make lint` runs this; complexity is ruff's to count.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
MOST = 60
#: Longer ones that are still to be broken up, and the most lines that each may have.
ALLOWED = {
    "redset/_operations/context.py:__init__": 68,
    "redset/scripts/include/adding.lua:add": 346,
    "redset/scripts/include/finishing.lua:finish": 113,
}


def of_python(text: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node) is not None and first.end_lineno is not None:
                lines -= first.end_lineno - first.lineno + 1
            yield node.name, lines


def of_lua(text: str) -> Iterator[tuple[str, int]]:
    lines = text.splitlines()
    for at, line in enumerate(lines):
        found = re.match(r"( *)(?:local )?function (\w+)\(", line)
        if found and not line.endswith(" end"):
            # Its end stands under its beginning.
            end = lines.index(f"{found[1]}end", at)
            yield found[2], end - at + 1


def of_cython(text: str) -> Iterator[tuple[str, int]]:
    lines = text.splitlines()
    for at, line in enumerate(lines):
        found = re.match(r"( *)(?:cpdef|cdef|def) (?:[\w.\[\]*, ]+? )?\**(\w+)\(", line)
        if not found or line.rstrip().endswith(")"):  # a declaration
            continue
        body = at + 1
        inside = found[1] + " "
        while body < len(lines) and (
            not lines[body] or lines[body].startswith((inside, f"{found[1]})"))
        ):
            body += 1
        yield found[2], len("\n".join(lines[at:body]).rstrip().splitlines())


def functions() -> Iterator[tuple[str, int]]:
    readers = {"py": of_python, "lua": of_lua, "pyx": of_cython}
    for ending, read in readers.items():
        for path in sorted(TREE.glob(f"redset/**/*.{ending}")):
            for name, lines in read(path.read_text("utf-8")):
                yield f"{path.relative_to(TREE).as_posix()}:{name}", lines


def too_long() -> list[str]:
    return [
        f"{name} has {lines} lines, and {ALLOWED.get(name, MOST)} are allowed"
        for name, lines in functions()
        if lines > ALLOWED.get(name, MOST)
    ]


if __name__ == "__main__":
    found = too_long()
    print("\n".join(found) or f"no function has more than {MOST} lines, but {len(ALLOWED)} known")
    sys.exit(1 if found else 0)
