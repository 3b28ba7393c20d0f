"""The planted faults of `mutants` apply, and their functions are found where they are now.

`make mutants` runs the tests against each of them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mutants.__main__ import check, table
from mutants.catalogue import CONCERNED, MUTANTS
from mutants.places import TREE, Inapplicable, Mutant, find, mutated
from mutants.runs import Outcome, concerned_by

PYTHON = """\
import os


class Link:
    async def send(
        self,
    ) -> None:
        await put(1)

    def put(self):
        if ready:
            return 1
        # (a comment)
        return 2


def put(number):
    return 3


def other():
    return 4
"""

CYTHON = """\
cdef inline char* put(
    char* out,
) noexcept nogil:
    return out + 1


cdef class Work:
    cdef int put(self) except -1:
        return 2
"""

LUA = """\
local function put(list)
  local function inner(one)
    return 1
  end
  return 2
end
local function short(list) return 3 end
return 4
"""


def mutant(old: str, function: str = "put", file: str = "redset/one.py") -> Mutant:
    return Mutant("a-fault", file, function, old, "return 0", "It breaks.")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "redset/deep").mkdir(parents=True)
    (tmp_path / "redset/one.py").write_text(PYTHON)
    (tmp_path / "redset/core.pyx").write_text(CYTHON)
    (tmp_path / "redset/step.lua").write_text(LUA)
    return tmp_path


# --- the catalogue


def test_every_mutant_applies_and_the_test_it_names_is_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert check(MUTANTS) == []
    assert capsys.readouterr().err == ""


def test_no_python_file_is_broken_by_a_mutant() -> None:
    for each in MUTANTS:
        place, text = mutated(each)
        assert text != (TREE / place.file).read_text("utf-8")
        if place.file.endswith(".py"):
            compile(text, place.file, "exec")


def test_faults_have_unique_names_and_a_sentence_each() -> None:
    names = [each.name for each in MUTANTS]
    assert len(set(names)) == len(names) >= 48
    for each in MUTANTS:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", each.name)
        assert re.fullmatch(r"[^|\n]+\.", each.breaks)


def test_the_guides_table_of_faults_has_the_files_that_they_are_planted_in() -> None:
    guide = (TREE / "CONTRIBUTING.md").read_text("utf-8")
    files = {each.name: each.file.removeprefix("redset/") for each in MUTANTS}
    rows = re.findall(r"^\| ([\w-]+) \| `([\w./]+)` \| `test_\w+: ", guide, re.MULTILINE)
    assert len(rows) > 100
    assert [row for row in rows if files.get(row[0]) != row[1]] == []


def test_every_kind_of_source_has_mutants() -> None:
    files = [each.file for each in MUTANTS]
    for kind, least in (
        (r"redset/_operations/\w+\.py", 14),
        (r"redset/scripts/(include/)?\w+\.lua", 13),
        (r"redset/_(transport|faces)/\w+\.py", 8),
        (r"redset/(_wire/\w+\.pxi|_speedups\.pyx)", 7),
        (r"redset/_wire/\w+\.h", 2),
        (r"redset/_wire/\w+\.py", 6),
        (r"redset/(serializers|_operations/keys|locks|embedded)\.py", 4),
    ):
        assert sum(bool(re.fullmatch(kind, file)) for file in files) >= least, kind


def test_every_source_file_has_tests_that_concern_it() -> None:
    for path in (TREE / "redset").rglob("*"):
        if path.suffix in (".py", ".pyx", ".pxi", ".h", ".lua") and "demo" not in path.parts:
            assert concerned_by(path.relative_to(TREE).as_posix())
    for _, tests in CONCERNED:
        assert [test for test in tests if not (TREE / "tests" / test).is_file()] == []


# --- the place of a mutant


@pytest.mark.parametrize(
    ("old", "function", "file"),
    [
        ("return 2", "put", "redset/one.py"),
        ("return 3", "put", "redset/one.py"),
        ("await put(1)", "send", "redset/one.py"),
        ("import os", "", "redset/one.py"),
        ("return out + 1", "put", "redset/core.pyx"),
        ("return 2", "put", "redset/core.pyx"),
        ("return 1", "inner", "redset/step.lua"),
        ("return 1", "put", "redset/step.lua"),
        ("return 3", "short", "redset/step.lua"),
        ("return 4", "", "redset/step.lua"),
    ],
)
def test_a_planted_text_is_located_in_its_function(
    tree: Path, old: str, function: str, file: str
) -> None:
    one = mutant(old, function, file)
    place, text = mutated(one, tree)
    source = (tree / file).read_text()
    assert (place.file, place.moved) == (file, False)
    assert source[place.at :].startswith(old)
    assert text == source[: place.at] + "return 0" + source[place.at + len(old) :]


@pytest.mark.parametrize(
    ("old", "function", "file"),
    [
        ("return 4", "put", "redset/one.py"),
        ("return 3", "missing", "redset/one.py"),
        ("return 2", "inner", "redset/step.lua"),
        ("return 4", "short", "redset/step.lua"),
        ("return 5", "", "redset/step.lua"),
    ],
)
def test_a_text_of_another_function_does_not_apply(
    tree: Path, old: str, function: str, file: str
) -> None:
    with pytest.raises(Inapplicable, match="a-fault: no longer applies"):
        find(mutant(old, function, file), tree)


@pytest.mark.parametrize("remains", [True, False])
def test_a_function_that_moved_to_another_file_is_located(
    tree: Path, capsys: pytest.CaptureFixture[str], remains: bool
) -> None:
    old = tree / "redset/one.py"
    old.rename(tree / "redset/deep/two.py")
    if remains:
        old.write_text("def put():\n    pass\n")
    one = mutant("return 3")
    assert find(one, tree) == ("redset/deep/two.py", PYTHON.index("return 3"), True)
    assert check([one], tree) == []
    assert capsys.readouterr().out == "a-fault: moved from redset/one.py to redset/deep/two.py\n"


def test_a_text_that_is_there_twice_is_refused(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = mutant("return")
    (tree / "redset/deep/two.py").write_text(PYTHON)
    (tree / "redset/three.py").write_text(PYTHON)
    moved = mutant("return 3", file="redset/gone.py")
    for one, found in ((twice, "redset/one.py"), (moved, "redset/deep/two.py, redset/one.py, ")):
        with pytest.raises(Inapplicable, match="a-fault: applies 3 times") as caught:
            find(one, tree)
        assert found in str(caught.value)
    assert len(check([twice, moved], tree)) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_the_table_names_what_killed_a_mutant_and_what_did_not() -> None:
    one = mutant("return 3")
    killed = Outcome(one, "redset/one.py", "killed", "test_sets.py::test_a[row]", 1.0)
    survived = Outcome(one, "redset/one.py", "survived", "", 1.0)
    assert table([killed, survived]).splitlines()[2:] == [
        "| a-fault | `one.py` | It breaks. | `test_sets: test_a` |",
        "| a-fault | `one.py` | It breaks. | **survived** |",
    ]
