"""The same generated calls over and over: they keep no memory and no reference, errors included."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from typing import Any

from fuzz.inputs import GENERATORS, case, function
from fuzz.report import Report

#: Performances of each case between two looks; and more if that looks like a leak.
ROUNDS, MANY = 20, 400
#: Bytes that a case may keep a round: not even the smallest object.
KEPT = 16


def run(count: int, seed: int, first: int = 0) -> Report:
    """Run so many cases, each some dozen times."""
    from redset import _speedups

    report = Report("leaks", count, seed)
    calls = {name: function(_speedups, name) for name in GENERATORS}
    tracemalloc.start()
    try:
        for number in report.cases(first):
            name, arguments = case(seed, number)
            leaked = leak_of(calls[name], arguments)
            # The interpreter keeps some freed memory, but not more of it with each round.
            if leaked and (leaked := leak_of(calls[name], arguments, MANY)):
                report.fail(number, f"{name} {leaked}")
            report.outcomes[name] += 1
    finally:
        tracemalloc.stop()
    return report


def leak_of(call: Any, arguments: Any, rounds: int = ROUNDS) -> str:
    """Return the memory that repeated calls keep: nothing, if all is well."""
    gc.disable()
    try:
        perform(call, arguments, 2)
        shared = list(everything(arguments))
        counts = [sys.getrefcount(each) for each in shared]
        before = traced()
        perform(call, arguments, rounds)
        kept = traced() - before
        now = [sys.getrefcount(each) for each in shared]
    finally:
        gc.enable()
    if kept > KEPT * rounds:
        # Cycles, as an error and its traceback may be, are not leaked.
        gc.collect()
        kept = traced() - before
    changed = [
        (type(each).__name__, after - count)
        for each, count, after in zip(shared, counts, now, strict=True)
        if abs(after - count) > rounds // 2
    ]
    if changed:
        return f"changed the reference counts of {changed[:5]} in {rounds} calls"
    return f"kept {kept} bytes in {rounds} calls" if kept > KEPT * rounds else ""


def traced() -> int:
    """Return the bytes in use, without the names that Python's cache of attributes holds.

    An error's text is made by `reprlib`, which asks for attributes by names that it makes anew.
    """
    if sys.version_info < (3, 13):
        sys._clear_type_cache()
    else:
        sys._clear_internal_caches()
    return tracemalloc.get_traced_memory()[0]


def perform(call: Any, arguments: Any, rounds: int) -> None:
    for _ in range(rounds):
        try:
            call(*arguments())
        except Exception:
            pass


def everything(arguments: Any) -> list[Any]:
    """The objects that are given in each of the calls: what makes the arguments holds them."""
    found: list[Any] = []
    todo = [cell.cell_contents for cell in arguments.__closure__ or ()]
    while todo and len(found) < 200:
        each = todo.pop()
        if type(each) is not int and each is not None:  # Others hold these as well.
            found.append(each)
        if type(each) in (list, tuple):
            todo.extend(each)
        elif type(each) is dict:
            todo.extend([*each, *each.values()])
        elif getattr(type(each), "__name__", "") == "function" and each.__closure__:
            todo.extend(cell.cell_contents for cell in each.__closure__)
    return found
