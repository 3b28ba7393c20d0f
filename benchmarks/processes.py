"""The processes of a benchmark: workers that run the contenders, and the proxy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks import machine

HERE = Path(__file__).resolve().parent


class Process:
    """A child that speaks lines, and ends when its input does."""

    def __init__(
        self, command: list[str], cores: Iterable[int], variables: Mapping[str, str] | None = None
    ) -> None:
        # Variables that would make an environment import, or choose, another environment's code.
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "REDSET_"))
        }
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**kept, **(variables or {})},
        )
        machine.pin(self._process.pid, cores)

    def write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a process ended early, with {self._process.wait()}")
        return line

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


class Worker(Process):
    """A Python of some environment that runs one contender (`benchmarks/worker`)."""

    def __init__(
        self, python: str, cores: Iterable[int], variables: Mapping[str, str] | None = None
    ) -> None:
        super().__init__([python, str(HERE / "worker")], cores, variables)

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        self.start(do, **arguments)
        return self.answer()

    def start(self, do: str, **arguments: Any) -> None:
        """Ask without waiting for the answer: several workers run at once."""
        self.write(json.dumps({"do": do, **arguments}))

    def answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.read())
        if "error" in answer:
            raise RuntimeError(f"in a worker:\n{answer['error']}")
        return answer


class Proxy(Process):
    """The proxy of `benchmarks.proxy` before a loopback port; ``delay`` is for each direction."""

    def __init__(self, port: int, delay: float, cores: Iterable[int] = ()) -> None:
        command = [sys.executable, str(HERE / "proxy.py"), "127.0.0.1", str(port), str(delay)]
        super().__init__(command, cores)
        self.port = int(self.read())
