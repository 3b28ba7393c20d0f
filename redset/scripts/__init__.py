"""Loads the server-side steps, one to a file; ``include/`` has what several of them share."""

from __future__ import annotations

import hashlib
import re
from functools import cache

_INCLUDE = "-- include: "


class Script:
    """A server-side step: its text and the name that EVALSHA knows it by."""

    __slots__ = ("load", "name", "sha", "text")

    def __init__(self, name: str, text: bytes) -> None:
        self.name = name
        self.text = text
        #: The request that loads it.
        self.load = b"*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$%d\r\n%b\r\n" % (len(text), text)
        self.sha = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()

    def whole(self, request: bytes) -> bytes:
        """Return an EVALSHA of this script as the EVAL that needs no loading."""
        length, rest = request.split(b"\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n" % self.sha, 1)
        return b"%b\r\n$4\r\nEVAL\r\n$%d\r\n%b\r\n%b" % (length, len(self.text), self.text, rest)

    def commands_at(self, number: int) -> list[str]:
        """Return the names of the commands that a line of the script may call."""
        text = self.text.decode()
        lines = text.splitlines()
        line = lines[number - 1] if 0 < number <= len(lines) else ""
        found = re.findall(r"\bcall\(\s*'(\w+)'", line)
        if not found and "call(" in line:
            # A helper that is given the command: any that it is given.
            helpers = re.findall(r"\bfunction (\w+)\(", "\n".join(lines[:number]))
            found = re.findall(rf"\b{helpers[-1]}\(\s*'(\w+)'", text) if helpers else []
        return sorted(set(found))


@cache
def script(name: str) -> Script:
    """Return the script of a name; a line ``-- include: other`` stands for that file's text."""
    return Script(name, _read(name).encode())


def _read(name: str) -> str:
    # Not by path: the package may be in a zip file, as with zipapp or Spark's --py-files. Imported
    # late, since it takes longer than the rest of redset.
    from importlib import resources

    file = resources.files("redset") / f"scripts/{name}.lua"
    lines = []
    for line in file.read_text("utf-8").splitlines():
        if line.startswith(_INCLUDE):
            lines.append(_read("include/" + line[len(_INCLUDE) :].strip()))
        else:
            lines.append(line)
    return "\n".join(lines)
