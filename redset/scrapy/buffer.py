"""The local buffer: requests that are leased and not begun, and which of them comes next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from redset.scrapy.jobs import Job


class Buffer:
    """Jobs by priority, and by the downloader's slot that each will use.

    Only the reactor's thread changes it.

    Parameters
    ----------
    slots : callable
        Returns the downloader's slots by name.
    """

    def __init__(self, slots: Callable[[], Mapping[str, Any]]) -> None:
        self._slots = slots
        #: Priority, then slot: the jobs in order.
        self._levels: dict[int, dict[str, deque[Job]]] = {}
        #: Read by the coordinator's thread.
        self.size = 0

    def add(self, job: Job) -> None:
        slots = self._levels.setdefault(job.priority, {})
        jobs = slots.get(job.slot)
        if jobs is None:
            jobs = slots[job.slot] = deque()
        jobs.append(job)
        self.size += 1

    def pop(self) -> Job | None:
        """Return the next job: of the highest priority, of the slot that has the least to do.

        None if there is none, or only such as belong to full slots.
        """
        levels, known = self._levels, self._slots()
        for priority in sorted(levels, reverse=True) if len(levels) > 1 else levels:
            slots = levels[priority]
            best, least = None, 0
            for name in slots:
                slot = known.get(name)
                active = 0 if slot is None else len(slot.active)
                if slot is not None and active >= slot.concurrency:
                    continue
                if best is None or active < least:
                    best, least = name, active
            if best is not None:
                return self._taken(priority, slots, best)
        return None

    def _taken(self, priority: int, slots: dict[str, deque[Job]], name: str) -> Job:
        jobs = slots[name]
        job = jobs.popleft()
        if not jobs:
            del slots[name]
            if not slots:
                del self._levels[priority]
        self.size -= 1
        return job

    def drain(self) -> list[Job]:
        """Remove all jobs, and return them in order."""
        found = [
            job
            for priority in sorted(self._levels, reverse=True)
            for jobs in self._levels[priority].values()
            for job in jobs
        ]
        self._levels.clear()
        self.size = 0
        return found

    def shed(self, num: int) -> list[Job]:
        """Remove the last jobs: of the lowest priority, of the slots that have most."""
        found: list[Job] = []
        while len(found) < num and self._levels:
            priority = min(self._levels)
            slots = self._levels[priority]
            name = max(slots, key=lambda each: len(slots[each]))
            job = slots[name].pop()
            slots[name].appendleft(job)
            found.append(self._taken(priority, slots, name))
        return found
