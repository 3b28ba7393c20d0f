"""The starts of the jobs of hosts, as their handlers see them."""

from __future__ import annotations

import time
from collections import defaultdict
from itertools import chain, pairwise

#: Seconds that a handler takes.
WORK = 0.005


class Starts:
    """The times at which the handlers of each host began."""

    def __init__(self) -> None:
        self._of: dict[str, list[float]] = defaultdict(list)

    def note(self, host: str) -> None:
        self._of[host].append(time.perf_counter())

    def samples(self) -> tuple[int, dict[str, float]]:
        """Return their number, the seconds from first to last, and the smallest gap of a host."""
        gaps = [later - start for each in self._of.values() for start, later in pairwise(each)]
        all_of = sorted(chain(*self._of.values()))
        return len(all_of), {"lasted": all_of[-1] - all_of[0], "gap": min(gaps)}
