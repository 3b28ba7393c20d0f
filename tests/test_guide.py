"""The guide "Add an operation": each step that is forgotten fails a test that names it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from redset import ScheduledSet

ROOT = Path(__file__).parent.parent
#: Attributes that are not operations.
ATTRIBUTES = {"close", "from_url", "lock", "name", "redis", "scorer", "serializer"}
OPERATIONS = {name for name in dir(ScheduledSet) if not name.startswith("_")} - ATTRIBUTES
#: The steps that say where each operation has a line. Each has a file, and the operations that are
#: older than the guide and have tests of their own instead. The sets may get smaller, not larger.
STEPS: dict[str, tuple[str, set[str]]] = {
    "Reference": ("docs/reference/index.rst", set()),
    "Commands": (
        "docs/how-it-works.rst",
        {"consume", "forget_many", "isdisjoint", "known", "seen_many"},
    ),
    "Changelog": ("CHANGELOG.md", {"available", "peek_score"}),
    "Model": (
        "tests/model.py",
        {
            "between", "buffered", "consume", "export", "isdisjoint", "move_many", "restore",
            "update",
        },
    ),
    "Model rule": (
        "tests/test_model.py",
        {
            "ack", "between", "buffered", "consume", "export", "fail", "finished", "isdisjoint",
            "lease", "leased", "move_many", "release", "renew", "restore", "update",
        },
    ),
    "Walk": (
        "tests/chaos/walk.py",
        {
            "between", "buffered", "consume", "export", "isdisjoint", "known", "move_many",
            "remove", "restore",
        },
    ),
    "Generic link": (
        "tests/test_generic.py",
        {
            "ack", "between", "buffered", "consume", "export", "fail", "finished", "isdisjoint",
            "known", "lease", "leased", "move_many", "release", "renew", "restore", "update",
        },
    ),
    "Bad input": (
        "tests/test_bad_input.py",
        {
            "between", "export", "isdisjoint", "known", "move_many", "release", "renew", "restore",
        },
    ),
    "Full server": (
        "tests/test_full_server.py",
        {
            "between", "consume", "contains", "export", "forget_many", "isdisjoint", "known",
            "move_many", "peek_score", "release", "remove", "renew", "restore", "update",
        },
    ),
    "Replies": ("tests/fuzz/replies.py", set()),
}  # fmt: skip

#: Calls of operators and on groups change no item and read none. They have tests of their own.
OPERATORS = {"groups", "pause", "pause_group", "paused", "resume", "set_group", "workers"}
OF_ITEMS = {"Model", "Model rule", "Walk", "Generic link", "Bad input", "Full server"}


def section() -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    return text.split("\n## Add an operation\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("step", STEPS)
def test_no_step_of_adding_an_operation_is_forgotten(step: str) -> None:
    path, older = STEPS[step]
    text = (ROOT / path).read_text("utf-8")
    named = {name for name in OPERATIONS if re.search(rf"[.`\"]{name}\b|\bdef {name}\b", text)}
    forgotten = OPERATIONS - named - older - (OPERATORS if step in OF_ITEMS else set())
    assert not forgotten, f"{path} lacks {sorted(forgotten)}: see the step {step!r} of CONTRIBUTING"
    assert not older & named, f"{path} has {sorted(older & named)} now: take them off the list"


def test_the_guide_has_each_step_and_its_file() -> None:
    text = section()
    for step, (path, _) in STEPS.items():
        assert re.search(rf"^\d+\. \*\*{step}\.\*\*.*`{re.escape(path)}`", text, re.M), step
    for path in re.findall(r"`((?:redset|tests|docs|tools)/[\w/.]+\.\w+)`", text):
        assert (ROOT / path).is_file(), path
