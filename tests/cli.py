"""Runs the command ``redset`` for tests: in this process, or as a process of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import children
import pytest

HAS_CLICK = importlib.util.find_spec("click") is not None


class Ran(NamedTuple):
    """The end of a command: its status and what it printed."""

    status: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.decode().splitlines()

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


class _Stream(io.TextIOWrapper):
    """A stream of a command, which may be a terminal."""

    def __init__(self, data: bytes = b"", terminal: bool = False) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8", errors="surrogateescape")
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    @property
    def bytes(self) -> bytes:
        self.flush()
        found: bytes = self.buffer.getvalue()  # type: ignore[attr-defined]
        return found


class Command:
    """Calls the command on a server: ``redset("len", "jobs")``. Each call is a `Ran`."""

    def __init__(self, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self._server, self._patch = server, monkeypatch
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("REDSET_")
        }
        self.environment["REDSET_URL"] = server.url
        # In a directory without a redset of its own.
        self.environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)

    def __call__(
        self,
        *arguments: str,
        input: bytes = b"",
        typed: bytes | None = None,
        terminal: bool = False,
        status: int | None = 0,
        columns: int = 80,
        env: Mapping[str, str] | None = None,
    ) -> Ran:
        from redset.cli.program import program

        stdin = _Stream(input) if typed is None else _Stream(typed, terminal=True)
        out, err = _Stream(terminal=terminal), _Stream(terminal=terminal)
        code: Any = None
        with self._patch.context() as patched:
            for name in list(os.environ):
                if name.startswith("REDSET_"):
                    patched.delenv(name)
            given = {"REDSET_URL": self._server.url, "COLUMNS": str(columns), **(env or {})}
            for name, value in given.items():
                patched.setenv(name, value)
            for name, stream in (("stdin", stdin), ("stdout", out), ("stderr", err)):
                patched.setattr(sys, name, stream)
            with contextlib.suppress(SystemExit):
                try:
                    program.main(list(arguments), prog_name="redset")
                except SystemExit as end:
                    code = end.code
                    raise
        ran = Ran(code, out.bytes, err.bytes.decode())
        assert status is None or ran.status == status, ran
        return ran

    def process(self, *arguments: str, **options: Any) -> children.Child:
        """Start the command as a process, to be entered with ``with``."""
        environment = {**self.environment, **options.pop("env", {})}
        return children.Child("-m", "redset", *arguments, env=environment, **options)


def command_of(server: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    return Command(server, monkeypatch)
