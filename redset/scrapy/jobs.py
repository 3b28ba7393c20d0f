"""Jobs: requests that this process holds, leased or kept in its memory, and their outcome."""

from __future__ import annotations

import math
from time import monotonic
from typing import Any

#: The mark of an unserialisable request, which is not a lease.
IN_MEMORY = b""


class Job:
    """A request that this process holds.

    Attributes
    ----------
    member, token, size, item, attempts, bound, group
        The parts of its lease. An empty token means that it is kept in memory only.
    data : dict or None
        The parsed request, until it is made.
    deadline : float
        The time until which this process certainly holds the lease, by its own clock.
    began : float
        The time at which the engine got it.
    waits : int
        Number of requests in memory that must be over before it may be acknowledged.
    behind : list of Job
        The jobs that wait for it, if it is a request in memory.
    over : bool
        Whether the engine is through with it.
    doubtful : bool
        Whether the server has forgotten what its requests were refused for: it is done again.
    error : str
        The error for which it becomes a dead letter.
    refusals : int
        Number of requests that the known table had refused when it began. If there are more at its
        end, this job may have led to some of them.
    at : int
        Number of adds before its end. They are written before it is acknowledged.
    """

    __slots__ = (
        "at", "attempts", "began", "behind", "bound", "data", "deadline", "doubtful",
        "error", "group", "item", "items", "member", "over", "priority", "refusals", "request",
        "settled", "size", "slot", "start", "token", "waits",
    )  # fmt: skip

    def __init__(self, member: bytes, token: bytes, item: bytes, priority: int) -> None:
        self.member, self.token, self.item, self.priority = member, token, item, priority
        self.size = len(item)
        self.attempts = self.bound = 0
        self.group: bytes | None = None
        self.slot = ""
        self.data: dict[str, Any] | None = None
        self.request: Any = None
        #: The fingerprint of a start request.
        self.start: bytes | None = None
        self.deadline = math.inf
        self.began = monotonic()
        self.waits = self.at = self.refusals = 0
        self.behind: list[Job] | tuple[()] = ()
        self.over = self.settled = self.doubtful = False
        self.error = ""
        #: An exchange adds nothing with an acknowledgement: see the coordinator.
        self.items: tuple[()] = ()

    @classmethod
    def leased(cls, held: Any, deadline: float) -> Job:
        """Return the job of a lease."""
        job = cls(held.member, held.token, held.item, -int(held.score))
        job.size, job.attempts, job.bound = held.size, held.attempts, held.bound
        job.group = held.group
        job.deadline = deadline
        return job

    @property
    def is_done(self) -> bool:
        """Whether it is to be acknowledged."""
        return self.over and not self.error and not self.doubtful

    @property
    def is_leased(self) -> bool:
        return self.token != IN_MEMORY
