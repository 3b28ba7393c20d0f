"""Grouped sets for the tests: items, time that passes at once, and the keys' consistency.

An item is a str like ``"a/1"``; its group is the text before the slash.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

P = "jobs:{jobs}"
#: Score of a time that has passed.
PAST = 1
#: The owner of a record without a lease: queued, or waiting out a delay.
_OWNERLESS = (b"-" * 16, b"." * 16)


def group_of(item: str) -> str:
    return item.split("/")[0]


def number_of(item: str) -> float:
    """Return the number after the slash, 0 without one."""
    last = item.split("/")[-1]
    return float(last) if last.isdigit() else 0.0


def names(group: str, num: int, first: int = 0) -> list[str]:
    """Return so many items of a group."""
    return [f"{group}/{place}" for place in range(first, first + num)]


def urls(groups: str, num: int) -> list[str]:
    """Return so many items of each group, whose name is a letter."""
    return [item for group in groups for item in names(group, num)]


def leased(jobs: Any, num: int = 1, **options: Any) -> list[str]:
    """Lease items and return them."""
    return [lease.item for lease in jobs.lease(num, **options)]


def drain(jobs: Any, num: int = 10, calls: int = 200) -> list[str]:
    """Lease and acknowledge until nothing is left; return the items in their order."""
    found: list[str] = []
    for _ in range(calls):
        batch = list(jobs.lease(num))
        if not batch and jobs.finished():
            return found
        time.sleep(0 if batch else 0.01)
        found += [lease.item for lease in batch]
        jobs.ack(batch)
    raise AssertionError(f"not drained after {calls} calls: {jobs.stats()}")


def expire(raw: Any) -> None:
    """Let the time of all leases and delays be over."""
    for member in raw.zrange(f"{P}:leased", 0, -1):
        raw.zadd(f"{P}:leased", {member: PAST})
    for token in raw.zrange(f"{P}:calls", 0, -1):
        raw.zadd(f"{P}:calls", {token: PAST})


def wake(raw: Any) -> None:
    """Let all rests be over."""
    for group in raw.zrange(f"{P}:resting", 0, -1):
        raw.zadd(f"{P}:resting", {group: PAST})


def group_in(stored: bytes) -> bytes:
    """Return the group of a stored payload."""
    return stored[1 : 1 + stored[0]]


def holder(value: bytes) -> tuple[bytes, bytes] | None:
    """Return the owner and the group of a stored lease; None without an owner."""
    if value[:16] in _OWNERLESS:
        return None
    return value[:16], value[18 : 18 + value[17]]


def inconsistencies(raw: Any, limit: int | None = 1) -> list[str]:
    """Return the contradictions between the stored keys of a grouped set that nobody uses.

    Each queued item is in its group's index, at its score. Each group with queued items is ready,
    resting, waiting or at its limit. Each slot is of a lease. ``limit`` is the processes' own one.
    """
    queue = f"{P}:grouped-tied" if raw.exists(f"{P}:grouped-tied") else f"{P}:grouped"
    index: dict[bytes, dict[bytes, float]] = {}
    for key in raw.keys(f"{P}:g:*"):
        epoch, _, group = key[len(f"{P}:g:") :].partition(b":")
        # Others are keys that a clear has set aside.
        if epoch == (raw.hget(f"{P}:meta", "groups") or b"0"):
            index[group] = dict(raw.zrange(key, 0, -1, withscores=True))
    lines = {
        name: set(raw.zrange(f"{P}:{name}", 0, -1)) for name in ("ready", "resting", "waiting")
    }
    payloads, working = raw.hgetall(f"{P}:items"), raw.hgetall(f"{P}:working")
    own = raw.hgetall(f"{P}:limits")
    found = []
    for member, score in raw.zrange(queue, 0, -1, withscores=True):
        if member not in payloads:
            found.append(f"{member!r} is queued without a payload")
            continue
        group = group_in(payloads[member])
        if index.get(group, {}).get(member) != score:
            found.append(f"{member!r} is not in the index of {group!r} at {score}")
        most = _limit_of(group, own.get(group), limit)
        full = most is not None and len(working.get(group, b"")) // 16 >= most
        if not full and not any(group in groups for groups in lines.values()):
            found.append(f"{group!r} is stranded")
    return found + _slots(raw, working)


def _limit_of(group: bytes, own: bytes | None, limit: int | None) -> int | None:
    if not group:
        return None
    text = (own or b"-").split(b" ")[0]
    return limit if text == b"-" else int(text) or None


def _slots(raw: Any, working: dict[bytes, bytes]) -> list[str]:
    held: dict[bytes, set[bytes]] = defaultdict(set)
    there = set(raw.zrange(f"{P}:leased", 0, -1))
    for member, value in raw.hgetall(f"{P}:leases").items():
        whose = holder(value)
        if whose is not None and member in there:
            held[whose[1]].add(member)
    found = []
    for group, text in working.items():
        slots = {text[at : at + 16] for at in range(0, len(text), 16)}
        # A lease from a time without a limit has no slot.
        if not slots <= held[group] or len(text) != 16 * len(slots):
            found.append(f"{group!r} has {len(slots)} slots and {len(held[group])} leases")
    return found
