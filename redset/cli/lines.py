"""Lines of files and of the standard input, as they come, with their places."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

#: Bytes that are read at once: about ten chunks of an add.
BLOCK = 1 << 20
#: Limit of a line, in bytes: that of an item.
LONGEST = 512 << 20
#: Beginning of a file that is compared before an add goes on in it, in bytes.
HEAD = 4096


class Block(NamedTuple):
    """Some lines, and the offset in their file after the last of them."""

    lines: list[bytes]
    end: int


class Input:
    """A file, or the standard input as ``-``."""

    def __init__(self, name: str, separator: bytes = b"\n") -> None:
        self.name = name
        self._separator = separator
        self._stream: BinaryIO
        if name == "-":
            if sys.stdin is None:
                raise ValueError("standard input is closed")
            self._stream = sys.stdin.buffer
        else:
            self._stream = open(name, "rb")  # noqa: SIM115
        self.size = self._regular_size()

    def _regular_size(self) -> int | None:
        """Return the size of a regular file, otherwise None."""
        try:
            found = os.fstat(self._stream.fileno())
        except (OSError, ValueError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) and self.name != "-" else None

    @property
    def title(self) -> str:
        return "standard input" if self.name == "-" else self.name

    def blocks(self, start: int = 0) -> Iterator[Block]:
        """Yield the lines, as many as are there. A slow pipe is not waited for."""
        if start:
            self._stream.seek(start)
        rest, end = [], start
        read: Any = getattr(self._stream, "read1", self._stream.read)
        held = 0
        while data := read(BLOCK):
            cut = data.rfind(self._separator) + 1
            if not cut:
                rest.append(data)
                held += len(data)
                if held > LONGEST:
                    raise ValueError(f"{self.title}: a line is longer than {LONGEST} bytes")
                continue
            whole = b"".join([*rest, data[:cut]])
            rest, held = ([data[cut:]], len(data) - cut) if cut < len(data) else ([], 0)
            end += len(whole)
            lines = whole.split(self._separator)
            lines.pop()
            yield Block(self._plain(lines), end)
        if rest:
            last = b"".join(rest)
            yield Block(self._plain([last]), end + len(last))

    def _plain(self, lines: list[bytes]) -> list[bytes]:
        if self._separator != b"\n":
            return lines
        return [line[:-1] if line.endswith(b"\r") else line for line in lines]

    def close(self) -> None:
        if self.name != "-":
            self._stream.close()


class Bookmark:
    """The place in a file up to which an add was acknowledged, in a file beside it."""

    def __init__(self, source: Input, set_name: str) -> None:
        if source.size is None:
            raise ValueError(f"--resume needs regular files, got {source.title}")
        self.path = source.name + ".redset-resume"
        self._source, self._set = source.name, set_name

    def _digest(self, offset: int) -> str:
        with open(self._source, "rb") as file:
            return hashlib.sha256(file.read(min(offset, HEAD))).hexdigest()

    def load(self) -> tuple[int, int]:
        """Return the offset to go on from, and the number of lines before it."""
        try:
            with open(self.path, encoding="utf-8") as file:
                kept = json.load(file)
            offset, lines = int(kept["offset"]), int(kept["lines"])
        except FileNotFoundError:
            return 0, 0
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{self.path} is not a bookmark of redset: remove it") from None
        size = os.path.getsize(self._source)
        if kept["set"] != self._set or offset > size or kept["head"] != self._digest(offset):
            raise ValueError(
                f"{self.path} is of another file or set: remove it to begin from the first line"
            )
        return offset, lines

    def save(self, offset: int, lines: int) -> None:
        """Keep a place. A reader sees the old one or the new one."""
        kept = {"set": self._set, "offset": offset, "lines": lines, "head": self._digest(offset)}
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            json.dump(kept, file)
        os.replace(self.path + ".new", self.path)

    def remove(self) -> None:
        for path in (self.path, self.path + ".new"):
            if os.path.exists(path):
                os.remove(path)
