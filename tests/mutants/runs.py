"""Applies a mutant to a copy of the tree and runs the tests that concern the changed file."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from mutants.catalogue import CONCERNED
from mutants.places import TREE, Mutant, mutated

#: The longest time for one test, and for one run of them, in seconds.
TEST_TIMEOUT, RUN_TIMEOUT = 120, 900
_COMPILED = (".pyx", ".pxd", ".pxi", ".h")
_LEFT_OUT = {"build", "dist", "htmlcov", "_build", "__pycache__"}
_FAILED = re.compile(r"^(?:FAILED|ERROR) (?:tests/)?(\S+?\.py::.+?)(?: - .*)?$", re.MULTILINE)


class Outcome(NamedTuple):
    """The result of trying a mutant.

    Attributes
    ----------
    mutant : Mutant
    file : str
        The file it was applied to.
    verdict : str
        "killed", "survived", "hung", "skipped" or "broken"; of a control "failed" or "passed".
    detail : str
        The test that killed it, or why there is no verdict.
    seconds : float
    """

    mutant: Mutant
    file: str
    verdict: str
    detail: str
    seconds: float


class Options(NamedTuple):
    """How the tests are run."""

    workers: int = 2
    #: Run the whole product of each test's parameters.
    all: bool = False
    #: Run only the tests that a mutant names.
    quick: bool = False


class _Skipped(Exception):
    """A mutant cannot be tried here."""


class _Broken(Exception):
    """A run without a verdict on a mutant."""


def concerned_by(file: str) -> tuple[str, ...]:
    """Return the test files that concern a source file, the likeliest to fail first."""
    for pattern, tests in CONCERNED:
        if fnmatch(file, pattern):
            return tests
    raise LookupError(f"CONCERNED has no tests for {file}")


def run(mutant: Mutant, options: Options, control: bool = False) -> Outcome:
    """Try a mutant; as a control, do all the same with the code as it is."""
    began = time.monotonic()
    place, text = mutated(mutant)

    def outcome(verdict: str, detail: str = "") -> Outcome:
        return Outcome(mutant, place.file, verdict, detail, time.monotonic() - began)

    with _copy_of_tree() as tree:
        try:
            if not control:
                (tree / place.file).write_text(text, "utf-8")
            if place.file.endswith(_COMPILED):
                _build(tree)
            _check_import(tree)
            stages = [mutant.tests] if mutant.tests else []
            if not options.quick:
                stages.append(concerned_by(place.file))
            for tests in stages:
                killer = _run_tests(tree, tests, options)
                if killer:
                    return outcome("failed" if control else "killed", killer)
        except subprocess.TimeoutExpired:
            return outcome("hung", f"no end after {RUN_TIMEOUT} s, and no test named it")
        except _Skipped as reason:
            return outcome("skipped", str(reason))
        except _Broken as reason:
            return outcome("broken", str(reason))
    return outcome("passed" if control else "survived")


@contextlib.contextmanager
def _copy_of_tree() -> Iterator[Path]:
    """Copy the tree, with the built core."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as directory:
        # The real path, since redset.__file__ is compared with it.
        tree = Path(directory).resolve() / "redset"
        shutil.copytree(TREE, tree, ignore=_left_out, symlinks=True)
        yield tree


def _left_out(directory: str, names: list[str]) -> set[str]:
    """Return the names not to copy: environments, caches, results of builds."""
    return {
        name
        for name in names
        if name in _LEFT_OUT
        or name == ".git"
        or name.endswith((".egg-info", ".pyc"))
        or (
            name.startswith(".")
            and name not in (".ci", ".github")
            and os.path.isdir(os.path.join(directory, name))
        )
    }


def _environment(tree: Path) -> dict[str, str]:
    # Also for the processes that tests start.
    return {**os.environ, "PYTHONPATH": str(tree)}


def _build(tree: Path) -> None:
    """Build the core in place, without optimisation."""
    for built in (tree / "redset").glob("_speedups*.so"):
        built.unlink()
    compiler = (os.environ.get("CC") or "cc").split()[0]
    if shutil.which(compiler) is None and shutil.which("gcc") is None:
        raise _Skipped("there is no compiler")
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", "--force"],
        cwd=tree,
        env={**_environment(tree), "CFLAGS": "-O0", "REDSET_REQUIRE_EXTENSIONS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode or not list((tree / "redset").glob("_speedups*.so")):
        raise _Broken(f"the core does not build: {done.stdout.strip()[-500:]}")


def _check_import(tree: Path) -> None:
    """Make sure that the tests import the copy."""
    done = subprocess.run(
        [sys.executable, "-c", "import redset; print(redset.__file__)"],
        cwd=tree.parent,  # In the tree itself it would be importable without PYTHONPATH.
        env=_environment(tree),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise _Broken(f"redset cannot be imported: {done.stderr.strip()[-500:]}")
    if tree not in Path(done.stdout.strip()).parents:
        raise _Broken(f"the tests would import {done.stdout.strip()}")


def _run_tests(tree: Path, tests: Sequence[str], options: Options) -> str:
    """Run tests up to the first failure; return the id of the test that failed, or ""."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    command += ["-n", str(options.workers), "--timeout", str(TEST_TIMEOUT), "--no-header"]
    if options.all:
        command.append("--all")
    process = subprocess.Popen(
        [*command, *(f"tests/{test}" for test in tests)],
        cwd=tree,
        env=_environment(tree),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=RUN_TIMEOUT)
    finally:
        # Ends the workers and the processes that their tests started.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    failed = _FAILED.search(said)
    if failed:
        return failed[1]
    if process.returncode:
        raise _Broken(f"pytest ended with {process.returncode}: {said.strip()[-500:]}")
    return ""
