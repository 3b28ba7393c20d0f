"""Short runs of the fuzzers in `fuzz`; `make fuzz` has the long ones."""

from __future__ import annotations

import ast
import importlib.util
import json
import math
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import children
import pytest
from fuzz import inputs, replies
from selection import share

import redset
from redset import SortedSet
from redset._operations import reporting

try:
    from redset import _speedups
except ImportError:
    _speedups = None  # type: ignore[assignment]

#: A fuzzer takes 10 s on an idle machine.
pytestmark = pytest.mark.timeout(240)
LIMIT = 200.0
needs_core = pytest.mark.skipif(_speedups is None, reason="redset._speedups is not built")
needs_unix = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="no unix sockets, on which the fake server listens"
)
STUB = Path(redset.__file__).with_name("_speedups.pyi")


def names_of_the_core() -> Iterator[str]:
    """The functions that the core has, and the methods of its classes."""
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("__"):
                    yield f"{node.name}.{inner.name}"


def test_there_is_a_generator_for_every_function_of_the_core() -> None:
    assert sorted(inputs.GENERATORS) == sorted(names_of_the_core())


@needs_core
@pytest.mark.drawn
def test_the_core_does_what_the_fallback_does_for_any_input() -> None:
    report = inputs.run(share(20_000), seed=11)
    assert not report.failed, str(report)


@pytest.mark.slow(6)
@needs_core
def test_calls_over_and_over_keep_nothing() -> None:
    # Python may crash where tracemalloc ends while another thread allocates (gh-128679).
    done = alone("fuzz", "leaks", "--count", "1000", "--seed", "12")
    assert "1000 cases" in done.out


def alone(*arguments: str) -> children.Ended:
    """Run a module in a process of its own: no other thread allocates, and no line is traced."""
    untraced = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    # Under PYTHONSAFEPATH the directory itself is not searched.
    paths = [str(Path(__file__).parent), *filter(None, [untraced.get("PYTHONPATH")])]
    untraced["PYTHONPATH"] = os.pathsep.join(paths)
    return children.run("-X", "faulthandler", "-m", *arguments, env=untraced, limit=LIMIT)


@pytest.mark.slow(13)
@needs_core
def test_a_failed_allocation_is_a_memory_error_and_nothing_else() -> None:
    if importlib.util.find_spec("_testcapi") is None:
        pytest.skip("this Python has no _testcapi, which makes allocations fail")
    # In a process of its own: a tracer of lines would also fail to allocate, and raise elsewhere.
    done = alone("fuzz.allocation")
    told = json.loads(done.out)
    assert all(wrong == [] for _, wrong in told.values())
    assert sum(failed for failed, _ in told.values()) > 10_000


@needs_unix
@pytest.mark.drawn
@pytest.mark.parametrize("every", [0.0, math.inf], ids=["reports", "no reports"])
def test_any_reply_has_a_documented_result_or_error(
    monkeypatch: pytest.MonkeyPatch, every: float
) -> None:
    monkeypatch.setattr(reporting, "EVERY", every)
    report = replies.run(share(1500), seed=13)
    assert not report.failed, str(report)


def test_every_operation_gets_its_hostile_replies() -> None:
    without = {"close", "from_url"}
    public = {name for name in vars(SortedSet) if not name.startswith("_")} - without
    assert public - replies.METHODS <= {"lock", "name", "redis", "scorer", "serializer"}
