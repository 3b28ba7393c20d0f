"""The machine: its cores, its description, and its noise."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Placement:
    """The cores of the server, of its clients, and of the proxy between them.

    Empty sets leave it to the system: with one core, or without a way to choose.
    """

    server: frozenset[int] = frozenset()
    producers: frozenset[int] = frozenset()
    proxy: frozenset[int] = frozenset()

    @classmethod
    def of_this_machine(cls) -> Placement:
        if not hasattr(os, "sched_getaffinity"):
            return cls()
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            return cls()
        if len(cores) < 4:
            # The proxy must not take the producer's time, which is compared over it.
            return cls(frozenset(cores[:1]), frozenset(cores[1:]), frozenset(cores[:1]))
        return cls(frozenset(cores[:1]), frozenset(cores[2:]), frozenset(cores[1:2]))

    @property
    def pinned(self) -> bool:
        return bool(self.server)

    def described(self) -> str:
        if not self.pinned:
            return "not pinned"
        names = ("server", "producers", "proxy")
        return "; ".join(
            f"{name} on {', '.join(map(str, sorted(getattr(self, name))))}" for name in names
        )


def pin(process: int, cores: Iterable[int]) -> None:
    """Keep a process on some cores, with the threads that it has."""
    if not (chosen := set(cores)):
        return
    try:
        threads = [int(each) for each in os.listdir(f"/proc/{process}/task")]
    except OSError:
        threads = [process]
    for thread in threads:
        try:
            os.sched_setaffinity(thread, chosen)
        except ProcessLookupError:  # it ended since
            continue


@contextlib.contextmanager
def pinned(cores: Iterable[int]) -> Iterator[None]:
    """Keep this process on some cores for as long as the context lasts."""
    if not (chosen := set(cores)):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, chosen)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def describe() -> dict[str, Any]:
    """Return the description of the machine, as far as it is readable."""
    return {
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "cpu": _cpu(),
        "memory_gb": _memory_gb(),
        "system": platform.platform(terse=True),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (OSError, ValueError, AttributeError):
        return None


def noise(times: int = 30) -> dict[str, Any]:
    """Return the spread of repetitions of the same arithmetic: the limit of all measures here."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        sum(range(500_000))
        took.append((time.perf_counter() - began) * 1e3)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "loop_ms": statistics.median(took),
        "fastest_ms": min(took),
        "slowest_ms": max(took),
        "load": load,
    }
