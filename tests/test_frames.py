"""How far data travels: the frames of redset's own Python files that a single call goes through.

Each call or resumption of a function counts, on a set without options and a sync client of
redis-py's. Before the transport had short paths they were 18, 34, 36, 64 and 72; the limits are two
thirds of that.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import servers

import redset
from redset import SortedSet

HOME = str(Path(redset.__file__).parent)
#: The compiled core has none, and its twin as many as it likes.
WIRE = str(Path(HOME, "_wire"))


def frames_of(call: Callable[[], Any]) -> list[str]:
    """Make a call, and return the functions of redset's that it went through."""
    found: list[str] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(HOME) and not file.startswith(WIRE):
            found.append(f"{file[len(HOME) + 1 :]}:{frame.f_code.co_name}")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return found


LIMITS = {"size": 12, "add": 22, "pop": 24, "lease": 45, "ack": 50}


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_single_call_goes_through_few_frames(
    any_server: servers.Server, any_implementation: str, protocol: int
) -> None:
    jobs: SortedSet[Any] = SortedSet(any_server.client(protocol=protocol), "jobs")
    leases: list[Any] = []
    calls: dict[str, Callable[[], Any]] = {
        "size": jobs.size,
        "add": lambda: jobs.add("new"),
        "pop": jobs.pop,
        "lease": lambda: leases.append(jobs.lease(1)),
        "ack": lambda: leases[-1].ack(),
    }
    # The first ones look at the set, load scripts and make what the others use again.
    for name in ("add", "pop", "add", "add", "lease", "ack", "add", "add"):
        calls[name]()
    jobs.add_many(["a", "b", "c"])
    jobs._ctx.reporter.tally.due = math.inf  # a report, every two seconds, takes more
    found = {name: frames_of(call) for name, call in calls.items()}
    assert leases[-1] and jobs.size() == 2
    over = {name: frames for name, frames in found.items() if len(frames) > LIMITS[name]}
    assert over == {}
