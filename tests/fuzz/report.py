"""The report of a fuzzer's run, and its watch over the run."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import mmap
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

#: Failures that are printed in full; the others are counted.
TOLD = 10
#: Seconds that a case may take before the run ends with everybody's stack.
PATIENCE = 60
#: How much memory may grow between two readings, in bytes: the allocator's own slack.
SLACK = 24 << 20


class Report:
    """The figures of one run.

    Attributes
    ----------
    failures : list of str
        The failures, by case; the first ones in full.
    outcomes : Counter
        The count of each result.
    grown : int
        Bytes that the process grew by between the first tenth of the run and its end.
    """

    def __init__(self, fuzzer: str, count: int, seed: int) -> None:
        self.fuzzer = fuzzer
        self.count = count
        self.seed = seed
        self.failures: list[str] = []
        self.failed = 0
        self.outcomes: Counter[str] = Counter()
        #: How many replies were given in the cases.
        self.replies = 0
        self.grown = 0
        self.seconds = 0.0
        #: Receives the number of the running case, for when the process dies in it.
        self.trace: str | None = os.environ.get("FUZZ_TRACE")

    def cases(self, first: int = 0) -> Iterator[int]:
        """Number the cases; a case that hangs ends the process, memory that grows is a failure."""
        started = time.monotonic()
        warm = first + self.count // 10
        before = 0
        trace = _opened(self.trace)
        try:
            for number in range(first, first + self.count):
                trace[:8] = number.to_bytes(8, "little")
                if number % 256 == 0:
                    faulthandler.dump_traceback_later(PATIENCE, exit=True)
                if number == warm:
                    before = resident()
                yield number
        finally:
            faulthandler.cancel_dump_traceback_later()
            trace.close()
        self.seconds = time.monotonic() - started
        self.grown = resident() - before
        if self.grown > SLACK:
            self.fail(-1, f"the process grew by {self.grown} bytes")

    def fail(self, number: int, what: str) -> None:
        self.failed += 1
        if len(self.failures) < TOLD:
            self.failures.append(f"case {number} of seed {self.seed}: {what}")

    def __str__(self) -> str:
        lines = [
            f"{self.fuzzer}: {self.count} cases of seed {self.seed} in {self.seconds:.0f} s, "
            f"{f'{self.replies} replies, ' if self.replies else ''}"
            f"{self.failed} failures, grown by {self.grown >> 10} KB",
            *(f"  {count:9d}  {what}" for what, count in self.outcomes.most_common(30)),
            *self.failures,
        ]
        return "\n".join(lines)


def _opened(path: str | None) -> mmap.mmap:
    if path is None:
        return mmap.mmap(-1, 8)
    with open(path, "wb+") as file:
        file.write(bytes(8))
        file.flush()
        return mmap.mmap(file.fileno(), 8)


def traced(path: str) -> int:
    """Return the number of the case in which the process that wrote this trace was."""
    return int.from_bytes(Path(path).read_bytes()[:8], "little")


def resident() -> int:
    """Return the memory of this process in bytes; 0 if Linux does not report it."""
    if "asan" in os.environ.get("LD_PRELOAD", ""):
        return 0  # It keeps freed memory, to know it again.
    gc.collect()
    # Memory that the C library keeps for later does not count.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
