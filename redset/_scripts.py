"""Loads the server-side steps from ``scripts/*.lua``."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).with_name("scripts")
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


@cache
def script(name: str) -> Script:
    """Give the script of a name; a line ``-- include: other`` stands for that file's text."""
    return Script(name, _read(name).encode())


def _read(name: str) -> str:
    lines = []
    for line in (_FOLDER / f"{name}.lua").read_text("utf-8").splitlines():
        if line.startswith(_INCLUDE):
            lines.append(_read(line[len(_INCLUDE) :].strip()))
        else:
            lines.append(line)
    return "\n".join(lines)
