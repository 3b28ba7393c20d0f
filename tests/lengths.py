"""Finds functions that are too long to read at a glance: ``python tests/lengths.py``.

A function of the package has at most 60 lines without its docstring, in Python, Cython, C and Lua.
In Cython, C and Lua its cyclomatic complexity is at most 15; in Python ruff counts that (C901).
`make lint` runs this.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
MOST = 60
MOST_WAYS = 15


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
    for name, body in lua_bodies(text):
        yield name, len(body)


def lua_bodies(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the lines of each function."""
    lines = text.splitlines()
    for at, line in enumerate(lines):
        found = re.match(r"( *)(?:local )?function (\w+)\(", line)
        if found and not line.endswith(" end"):
            # Its end stands under its beginning.
            end = lines.index(f"{found[1]}end", at)
            yield found[2], lines[at : end + 1]


def of_cython(text: str) -> Iterator[tuple[str, int]]:
    for name, body in cython_bodies(text):
        yield name, len(body)


def cython_bodies(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the lines of each function, its signature among them."""
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
        yield found[2], "\n".join(lines[at:body]).rstrip().splitlines()


def of_c(text: str) -> Iterator[tuple[str, int]]:
    for name, body in c_bodies(text):
        yield name, len(body)


def c_bodies(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the lines of each function. It ends at a line that is a brace."""
    lines = text.splitlines()
    start = 0
    for at, line in enumerate(lines):
        if re.match(r"(?:__attribute__.*)?static ", line) and not line.endswith((";", "{")):
            start = at
        elif line == "}":
            found = re.search(r"(\w+)\(", re.sub(r"__attribute__\(\(.*?\)\)\)?", "", lines[start]))
            assert found, lines[start]
            yield found[1], lines[start : at + 1]


def complexity(body: list[str]) -> int:
    """Count the ways to branch in a function, as ruff does in Python, and one."""
    code = "\n".join(body)
    code = re.sub(r'"""(?:.|\n)*?"""|/\*(?:.|\n)*?\*/', "", code)
    code = re.sub(r"#(?!if)(?!\w).*|-- .*|\"[^\"\n]*\"|'[^'\n]*'", "", code)
    return 1 + len(re.findall(r"\b(?:if|elif|elseif|for|while|repeat|except|case)\b| \? ", code))


#: For each ending, the functions of a text.
READERS = (
    ("pyx", cython_bodies),
    ("pxi", cython_bodies),
    ("h", c_bodies),
    ("lua", lua_bodies),
)


def too_complex() -> list[str]:
    found = []
    for ending, read in READERS:
        for path in sorted(TREE.glob(f"redset/**/*.{ending}")):
            for name, body in read(path.read_text("utf-8")):
                ways = complexity(body)
                if ways > MOST_WAYS:
                    where = f"{path.relative_to(TREE).as_posix()}:{name}"
                    found.append(f"{where} has complexity {ways}, and {MOST_WAYS} is allowed")
    return found


def functions() -> Iterator[tuple[str, int]]:
    readers = {"py": of_python, "lua": of_lua, "pyx": of_cython, "pxi": of_cython, "h": of_c}
    for ending, read in readers.items():
        for path in sorted(TREE.glob(f"redset/**/*.{ending}")):
            for name, lines in read(path.read_text("utf-8")):
                yield f"{path.relative_to(TREE).as_posix()}:{name}", lines


def too_long() -> list[str]:
    return [
        f"{name} has {lines} lines, and {MOST} are allowed"
        for name, lines in functions()
        if lines > MOST
    ]


if __name__ == "__main__":
    found = too_long() + too_complex()
    print("\n".join(found) or f"no function has more than {MOST} lines")
    sys.exit(1 if found else 0)
