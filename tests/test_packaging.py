"""Builds redset as its users do: with and without a compiler, from the tree and from its sdist."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import children
import pytest
import servers

import redset

TREE = Path(__file__).resolve().parent.parent
COMMAND = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
COMPILER = shutil.which(COMMAND.split()[0]) is not None
HEADERS = Path(sysconfig.get_path("include"), "Python.h").is_file()
VERSION = re.findall(r'^version = "(.*)"$', (TREE / "pyproject.toml").read_text(), re.M)[0]
CORE = (TREE / "redset" / "_speedups.pyx").is_file()

# The backend itself, without pip around it: no network, and its messages are seen.
BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, "build_" + sys.argv[1])(sys.argv[2]))
"""

# An editable install of the tree would lend its compiled core to a wheel without one.
AWAY = """
import sys
sys.meta_path[:] = [
    finder for finder in sys.meta_path
    if not getattr(finder, "__module__", "").startswith("__editable__")
]
import redset
print(redset.__file__, redset.IMPLEMENTATION)
"""


def _lacking() -> str | None:
    for name, least in (("setuptools", 77), ("Cython", 3)):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return f"packaging: {name} is not installed"
        if int(version.split(".")[0]) < least:
            return f"packaging: {name} {version} is too old"
    return None


LACKING = _lacking()
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(LACKING is not None, reason=str(LACKING)),
    pytest.mark.skipif(sys.platform == "win32", reason="packaging: compilers hide elsewhere there"),
]
needs_core = pytest.mark.skipif(not CORE, reason="packaging: no compiled core in this tree")
needs_compiler = pytest.mark.skipif(
    not (CORE and COMPILER and HEADERS),
    reason="packaging: no compiler, no Python.h or no compiled core here",
)

Build = Callable[..., children.Child]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a copy of the sources, without built files."""
    copy = tmp_path / "tree"
    built = shutil.ignore_patterns(
        ".*", "*.so", "*.c", "*.egg-info", "build", "dist", "__pycache__", "_build", "htmlcov"
    )
    shutil.copytree(TREE, copy, ignore=built)
    return copy


@pytest.fixture
def build(tree: Path) -> Iterator[Build]:
    """Run ``build_wheel``, ``build_editable`` or ``build_sdist`` in the copy, into ``dist``."""

    def run(
        what: str, compiler: bool = False, cwd: Path = tree, **variables: str
    ) -> children.Child:
        kept = {name: value for name, value in os.environ.items() if "REDSET_" not in name}
        kept |= {"CFLAGS": "-O0"} if compiler else {"CC": str(tree / "no-compiler")}
        (tree / "dist").mkdir(exist_ok=True)
        arguments = ["-c", BUILD, what, str(tree / "dist")]
        child = children.Child(*arguments, cwd=cwd, env=kept | variables)
        stack.enter_context(child).wait(250)
        return child

    with contextlib.ExitStack() as stack:
        yield run


def built(child: children.Child, tree: Path) -> Path:
    return tree / "dist" / child.check().out.split()[-1]


def refused(child: children.Child, why: str) -> None:
    """The build failed, for this reason."""
    assert child.status != 0 and why in child.err, str(child)


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def assert_holds_the_package(files: set[str], tree: Path) -> None:
    """Every module, type stub, script and data file of the package, and no source of the core."""
    wanted = {
        path.relative_to(tree).as_posix()
        for path in (tree / "redset").rglob("*")
        if path.suffix in {".py", ".pyi", ".lua"} or path.name == "py.typed"
    }
    wanted |= {
        path.relative_to(tree).as_posix() for path in (tree / "redset/demo/data").glob("*.*")
    }
    assert wanted <= files
    assert not [name for name in files if name.endswith((".pyx", ".pxi", ".pxd", ".h", ".c"))]
    assert {name.split("/")[0] for name in files} == {"redset", f"redset-{VERSION}.dist-info"}


def run_away_from_the_tree(wheel: Path, tmp_path: Path) -> str:
    """Return the implementation of this wheel in an interpreter without the tree."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "unpacked")
    away = tmp_path / "away"
    away.mkdir()
    done = children.run(
        "-c",
        AWAY,
        cwd=away,
        env={
            **{name: value for name, value in os.environ.items() if "REDSET_" not in name},
            "PYTHONPATH": str(tmp_path / "unpacked"),
        },
    )
    file, implementation = done.out.split()
    assert Path(file).is_relative_to(tmp_path)
    return implementation


def test_the_version_stands_in_one_place(tree: Path) -> None:
    stated = [
        path.name
        for path in [*tree.glob("*.toml"), *tree.glob("*.py"), *(tree / "redset").rglob("*.py")]
        if f'"{VERSION}"' in path.read_text(encoding="utf-8")
    ]
    assert stated == ["pyproject.toml"]
    assert importlib.metadata.version("redset") == VERSION


@pytest.mark.slow(8)
def test_without_a_compiler_the_wheel_is_pure_with_a_message(
    build: Build, tree: Path, tmp_path: Path
) -> None:
    wheel = built(build("wheel"), tree)
    assert wheel.name == f"redset-{VERSION}-py3-none-any.whl"
    files = names(wheel)
    assert_holds_the_package(files, tree)
    assert not [name for name in files if name.endswith(".so")]
    assert run_away_from_the_tree(wheel, tmp_path) == "python"


@pytest.mark.slow(8)
def test_without_a_compiler_an_editable_install_falls_back(build: Build, tree: Path) -> None:
    built(build("editable"), tree)
    assert not list((tree / "redset").glob("*.so"))
    assert not list((tree / "redset").glob("*.c"))


@pytest.mark.slow(6)
@needs_core
@pytest.mark.parametrize("what", ["wheel", "editable"])
def test_a_required_core_that_does_not_compile_fails_the_build(
    what: str, build: Build, tree: Path
) -> None:
    refused(build(what, REDSET_REQUIRE_EXTENSIONS="1"), "no-compiler")
    assert not list((tree / "dist").glob("*.whl"))


def test_a_required_core_without_its_source_fails_the_build(build: Build, tree: Path) -> None:
    (tree / "redset" / "_speedups.pyx").unlink(missing_ok=True)
    done = build("wheel", compiler=True, REDSET_REQUIRE_EXTENSIONS="1")
    refused(done, "redset/_speedups.pyx is missing")


@needs_core
@pytest.mark.parametrize("required", [False, True])
def test_without_cython_only_a_required_core_fails_the_build(
    required: bool, build: Build, tree: Path, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden" / "Cython"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('hidden')\n")
    variables = {"PYTHONPATH": str(hidden.parent)}
    if not required:
        wheel = built(build("wheel", compiler=True, **variables), tree)
        assert wheel.name.endswith("-py3-none-any.whl")
        return
    done = build("wheel", compiler=True, REDSET_REQUIRE_EXTENSIONS="1", **variables)
    refused(done, "Cython is missing")


def test_no_extensions_gives_a_pure_wheel_despite_a_compiler(build: Build, tree: Path) -> None:
    wheel = built(build("wheel", compiler=True, REDSET_NO_EXTENSIONS="1"), tree)
    assert wheel.name == f"redset-{VERSION}-py3-none-any.whl"
    assert_holds_the_package(names(wheel), tree)


def test_requiring_and_refusing_extensions_is_an_error(build: Build) -> None:
    done = build("wheel", REDSET_NO_EXTENSIONS="1", REDSET_REQUIRE_EXTENSIONS="1")
    refused(done, "contradicts")


@pytest.mark.slow(9)
@needs_compiler
def test_with_a_compiler_the_wheel_holds_the_core_and_not_its_source(
    build: Build, tree: Path, tmp_path: Path
) -> None:
    wheel = built(build("wheel", compiler=True, REDSET_REQUIRE_EXTENSIONS="1"), tree)
    assert "none-any" not in wheel.name
    files = names(wheel)
    assert_holds_the_package(files, tree)
    assert len([name for name in files if name.startswith("redset/_speedups.") and "so" in name])
    assert run_away_from_the_tree(wheel, tmp_path) == "cython"


@pytest.mark.slow(9)
def test_the_sdist_holds_all_sources_and_nothing_built(
    build: Build, tree: Path, tmp_path: Path
) -> None:
    (tree / "redset" / "_speedups.c").write_text("/* left behind by a build */\n")
    (tree / "redset" / "_speedups.abi.so").write_bytes(b"left behind by a build")
    sdist = built(build("sdist"), tree)
    assert sdist.name == f"redset-{VERSION}.tar.gz"
    with tarfile.open(sdist) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
        archive.extractall(tmp_path / "unpacked")
    (tree / "redset" / "_speedups.c").unlink()
    (tree / "redset" / "_speedups.abi.so").unlink()

    sources = {
        path.relative_to(tree).as_posix()
        for folder in ("redset", "tests", "ops")
        for path in (tree / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    sources |= {"pyproject.toml", "setup.py", "Makefile", "README.md", "LICENSE", "CHANGELOG.md"}
    assert sources <= files
    assert not [name for name in files if name.endswith((".c", ".so", ".pyd", ".pyc"))]

    wheel = built(build("wheel", cwd=tmp_path / "unpacked" / f"redset-{VERSION}"), tree)
    assert_holds_the_package(names(wheel), tree)


@pytest.mark.slow(12)
@needs_compiler
def test_the_sdist_builds_the_core_from_itself(build: Build, tree: Path, tmp_path: Path) -> None:
    sdist = built(build("sdist"), tree)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked")
    source = tmp_path / "unpacked" / f"redset-{VERSION}"
    made = build("wheel", compiler=True, cwd=source, REDSET_REQUIRE_EXTENSIONS="1")
    assert run_away_from_the_tree(built(made, tree), tmp_path) == "cython"


# --- a change of a source takes effect

#: A change of each piece of the core, and a call whose result shows it.
CHANGES = {
    "redset/_wire/resp.pxi": ("out[0] = kind", 'out[0] = c"%"', 'core.encode([b"a"])[:1]', "b'%'"),
    "redset/_wire/words.h": (
        "word = word << 8 | p[size];",
        "word = 0;",
        "core.digest(b'a') == fallback.digest(b'a')",
        "False",
    ),
}


def pieces_of_the_core() -> list[str]:
    """The files that the core includes, by what its source says."""
    pattern = re.compile(r'^(?:include|cdef extern from|#include) "(_wire/)?([\w.]+)"', re.M)
    found, texts = set(), [(TREE / "redset/_speedups.pyx").read_text()]
    while texts:
        for _, name in pattern.findall(texts.pop()):
            path = TREE / "redset/_wire" / name
            if name not in found and path.is_file():
                found.add(name)
                texts.append(path.read_text())
    return sorted(f"redset/_wire/{name}" for name in found)


def test_every_piece_is_included() -> None:
    here = [
        path.relative_to(TREE).as_posix()
        for path in (TREE / "redset").rglob("*")
        if path.suffix in (".pxi", ".pxd", ".h")
    ]
    assert sorted(here) == pieces_of_the_core()
    assert {path.rpartition(".")[2] for path in here} == {"pxi", "h"} and set(CHANGES) < set(here)


@pytest.mark.slow(20)
@needs_compiler
def test_setup_builds_the_core_again_after_a_change_of_a_piece(tree: Path) -> None:
    command = "setup.py", "-q", "build_ext", "--inplace"
    env = {name: value for name, value in os.environ.items() if "REDSET_" not in name}
    env |= {"CFLAGS": "-O0", "REDSET_REQUIRE_EXTENSIONS": "1", "PYTHONPATH": str(tree)}

    def core() -> Path:
        children.run(*command, cwd=tree, env=env)
        [found] = (tree / "redset").glob("_speedups*.so")
        return found

    before = core().stat().st_mtime_ns
    assert core().stat().st_mtime_ns == before  # it is not built for nothing
    for name, (old, new, call, told) in CHANGES.items():
        text = (tree / name).read_text()
        assert text.count(old) == 1
        (tree / name).write_text(text.replace(old, new))
        core()
        code = "from redset import _speedups as core; from redset._wire import fallback; "
        code += f"print({call})"
        assert children.run("-c", code, cwd=tree, env=env).out.strip() == told


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make: not on the PATH")


@needs_core
@needs_make
def test_make_builds_the_core_again_after_a_change_of_a_piece(tree: Path) -> None:
    stamp = tree / ".venv" / ".installed-test-no0-required0"
    stamp.parent.mkdir()
    env = {name: value for name, value in os.environ.items() if name[:4] not in ("MAKE", "REDS")}

    def is_done() -> bool:
        command = ["make", "--question", f".venv/{stamp.name}"]
        status = subprocess.run(command, cwd=tree, env=env, capture_output=True).returncode
        assert status in (0, 1)
        return status == 0

    sources = ["setup.py", "pyproject.toml", "redset/_speedups.pyx", *pieces_of_the_core()]
    for name in (".venv/.created", *sources):
        (tree / name).touch()
        os.utime(tree / name, (1e9, 1e9))
    for name in sources:
        stamp.touch()
        assert is_done()
        later = stamp.stat().st_mtime + 1
        os.utime(tree / name, (later, later))
        assert not is_done(), name
        os.utime(tree / name, (1e9, 1e9))


def test_a_change_of_an_included_script_takes_effect_without_a_build(tree: Path) -> None:
    code = "from redset.scripts import script; print(script('add').sha, script('clear').sha)"
    env = {**os.environ, "PYTHONPATH": str(tree), "REDSET_NO_EXTENSIONS": "1"}

    def digests() -> list[str]:
        return children.run("-c", code, cwd=tree, env=env).out.split()

    before = digests()
    included = tree / "redset/scripts/include/adding.lua"
    included.write_text(included.read_text() + "local touched = 1\n")
    after = digests()
    assert after[0] != before[0] and after[1] == before[1]


# --- two runs of make in one tree

LOCKED = str(TREE / "tests" / "locked.py")
needs_flock = pytest.mark.skipif(
    importlib.util.find_spec("fcntl") is None, reason="fcntl: not on this platform"
)

# In the place of a Python: it installs nothing, but writes down when it began and ended.
STUB = """#!/bin/sh
case "$1 $2" in
    tests/locked.py*) exec {python} "$@" ;;
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m "*) ;;
    *) exit 0 ;;
esac
echo "begin $2" >> {log}; sleep 0.2; echo "end $2" >> {log}
"""


@needs_flock
@needs_make
def test_two_makes_at_once_install_once(tmp_path: Path) -> None:
    tree, log, stub = tmp_path / "tree", tmp_path / "log", tmp_path / "python"
    (tree / "tests").mkdir(parents=True)
    for name in ("Makefile", "tests/locked.py", "pyproject.toml", "setup.py"):
        shutil.copy(TREE / name, tree / name)
    stub.write_text(STUB.format(python=sys.executable, log=log))
    stub.chmod(0o755)
    command = ["make", "test", f"PYTHON={stub}"]
    own = "MAKE", "REDSET"  # with REDSET_REQUIRE_EXTENSIONS a missing core is built each time
    env = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    with contextlib.ExitStack() as stack:
        runs = [children.Child(command=command, cwd=tree, env=env) for _ in range(3)]
        for run in runs:
            stack.enter_context(run)
        for run in runs:
            run.check()
    lines = log.read_text().split("\n")[:-1]
    assert lines[:4] == ["begin venv", "end venv", "begin pip", "end pip"]
    assert sorted(lines[4:]) == ["begin pytest"] * 3 + ["end pytest"] * 3


def locked(path: Path, *command: str) -> children.Child:
    return children.Child(LOCKED, str(path), *command)


@needs_flock
def test_a_command_waits_for_the_lock_and_has_the_status_of_its_own(tmp_path: Path) -> None:
    lock, program = tmp_path / "lock", "print('ready'); raise SystemExit(7 * (input() == 'go'))"
    first = children.Child(LOCKED, str(lock), sys.executable, "-uc", program, input="go\n")
    with first, locked(lock, "echo", "second") as second:
        assert first.wait().status == 7
        assert second.check().out == "second\n"


@needs_flock
def test_a_lock_ends_with_its_holder_and_the_children_of_that(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    program = """
import os, signal, sys, time
if os.fork():
    print("ready", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(0.5)
print("child", time.time())
"""
    with locked(lock, sys.executable, "-c", program) as first:
        assert first.line() == "ready"
        with locked(lock, sys.executable, "-c", "import time; print(time.time())") as second:
            began = float(second.check().out)
        assert float(first.line().removeprefix("child ")) <= began
    # A lock that a reboot left is a file like any other.
    with locked(lock, "echo", "third") as third:
        assert third.check() == (0, "third\n", "")


def test_each_target_that_runs_python_has_it_installed_first() -> None:
    text = (TREE / "Makefile").read_text("utf-8")
    targets = re.findall(r"^([a-z-]+):.*\n((?:\t.*\n)+)", text, re.M)
    assert len(targets) > 10
    for name, recipe in targets:
        runs = re.search(r"\$\((python|pytest|measured)\)|abspath \$\(python\)", recipe)
        assert ("$(call ready," in recipe) == bool(runs), name


FROM_ZIP = """
import sys, redis, redset, zipfile
assert ".pyz" in redset.__file__, redset.__file__
from redset import scripts
for name in sys.argv[2:]:
    assert scripts.script(name).text
client = redis.Redis(unix_socket_path=sys.argv[1])
jobs = redset.SortedSet(client, "jobs", key=str, remember=True)
assert jobs.add("a", nx=True) == 0
assert jobs.lease().ack() == 1
import redset.asyncio, redset.embedded, redset.demo.site
assert redset.demo.site
"""


def test_the_package_works_from_a_zip_file(any_server: servers.Server, tmp_path: Path) -> None:
    package = Path(redset.__file__).parent
    app = tmp_path / "app.pyz"
    files = [path for path in package.rglob("*") if path.suffix in (".py", ".lua", ".gz")]
    with zipfile.ZipFile(app, "w") as archive:
        for path in files:
            archive.write(path, path.relative_to(package.parent))
        archive.writestr("__main__.py", FROM_ZIP)
    steps = [path.stem for path in files if path.suffix == ".lua" and path.parent.name == "scripts"]
    command = [sys.executable, str(app), any_server.unix, *steps]
    # The core of an editable install is not the zip's.
    env = {**os.environ, "REDSET_NO_EXTENSIONS": "1"}
    children.run(command=command, cwd=tmp_path, env=env)
