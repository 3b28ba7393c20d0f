"""Ten minutes of work on one server: its memory and that of its processes does not grow."""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import servers

from chaos.scenarios import Run

#: Growth that may be the allocators' own: bytes, and parts of the former size.
SLACK, PART = 4 << 20, 0.05
ROLES = (
    ("producer", {"awaited": False, "exact": False}),
    ("producer", {"awaited": True, "exact": True}),
    ("consumer", {"awaited": False, "exact": True}),
    ("consumer", {"awaited": True, "exact": False}),
)


class Soaked(NamedTuple):
    """Bytes of memory by process and of the server, over time; settled and added items."""

    server: str
    seconds: float
    commands: int
    readings: dict[str, list[int]]

    @property
    def grown(self) -> list[str]:
        """Return the processes that take more at the end than after a quarter of the time."""
        return [
            f"{what} grew from {warm >> 10} to {end >> 10} KB"
            for what, values in self.readings.items()
            for warm, end in [_warm_and_end(values)]
            if end - warm > max(SLACK, PART * warm)
        ]

    def __str__(self) -> str:
        lines = [f"soak: {self.server}, {self.seconds:.0f} s, {self.commands} commands"]
        for what, values in self.readings.items():
            warm, end = _warm_and_end(values)
            most = max(values) >> 10
            lines.append(
                f"  {what}: {warm >> 10} KB warm, {end >> 10} KB at the end, {most} KB most"
            )
        return "\n".join(lines + [f"  {each}" for each in self.grown])


def _warm_and_end(values: list[int]) -> tuple[int, int]:
    """The medians of the second and of the last quarter."""
    quarter = max(len(values) // 4, 1)
    return (
        int(statistics.median(values[quarter : 2 * quarter] or values)),
        int(statistics.median(values[-quarter:])),
    )


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def soak(kind: str, seconds: float, seed: int = 1) -> Soaked:
    """Produce and consume for so long."""
    readings: dict[str, list[int]] = defaultdict(list)
    with servers.start(kind) as server:
        run = Run(server, seed, "keyed, for a while", seconds=seconds + 60, pause=0.001)
        try:
            processes = {
                f"{role} ({'asyncio' if own['awaited'] else 'sync'})": run.spawn(
                    role, directory="", **own
                )
                for role, own in ROLES
            }
            pid = server.pid
            started = time.monotonic()
            while time.monotonic() - started < seconds:
                time.sleep(min(1.0, seconds / 20))
                for what, process in processes.items():
                    readings[what].append(resident(process.pid))
                readings["server"].append(resident(pid))
                readings["used_memory"].append(int(server.raw.info("memory")["used_memory"]))
            commands = int(server.raw.info("stats")["total_commands_processed"])
            run.end()
            if run.broken:
                raise RuntimeError(f"ended by themselves: {run.broken}")
        finally:
            run.close()
    return Soaked(kind, seconds, commands, dict(readings))
