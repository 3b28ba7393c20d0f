"""Runs the core's tests and the fuzzers on a core built with AddressSanitizer and UBSan.

    python tests/sanitize.py

The build is made of a copy, in a directory of its own. First, a function that reads freed memory
and one that shifts too far must be reported. Otherwise the silence of the core would prove nothing.
It ends with 0 if nothing was reported, 77 if there is no compiler with the sanitizers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
#: Has the build, and the copy that it is made of: other runs and builds do not meet it.
APART = tempfile.TemporaryDirectory(prefix="redset-sanitize-", ignore_cleanup_errors=True)
BUILD = Path(APART.name, "build")
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -O1 -g"
#: The beginning of a report of either sanitizer.
MARKS = ("ERROR: AddressSanitizer", "runtime error:")
UNABLE = 77

BAD = r"""
#include <Python.h>
#include <stdlib.h>
static char *volatile block;
static PyObject *read_freed(PyObject *self, PyObject *arg)
{
    block = malloc(8);
    free(block);
    return PyLong_FromLong(block[PyLong_AsLong(arg)]);
}
static PyObject *shift(PyObject *self, PyObject *arg)
{
    return PyLong_FromLong(1 << PyLong_AsLong(arg));
}
static PyMethodDef methods[] = {
    {"read_freed", read_freed, METH_O, NULL}, {"shift", shift, METH_O, NULL}, {NULL},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "bad", NULL, 0, methods};
PyMODINIT_FUNC PyInit_bad(void) { return PyModule_Create(&module); }
"""


class Failed(Exception):
    """Something was reported, or could not be run."""


def compiler() -> list[str]:
    return (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()


def runtimes() -> list[str]:
    """The libraries that must be loaded before all others, or an empty string."""
    found = []
    for name in ("libasan.so", "libubsan.so", "libstdc++.so.6"):
        asked = [*compiler(), f"-print-file-name={name}"]
        try:
            path = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return []
        if os.path.isabs(path):
            found.append(os.path.realpath(path))
        elif "san" in name:
            return []
    return found


def environment() -> dict[str, str]:
    """The environment of the core: checked memory for each object, leaks looked for elsewhere."""
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(runtimes()),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:symbolize=1",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
        "PYTHONFAULTHANDLER": "1",
        "PYTHONPATH": str(BUILD),
        "PYTHONDONTWRITEBYTECODE": "1",
        "REDSET_REQUIRE_EXTENSIONS": "1",
    }


def build() -> None:
    """Build the whole of redset, its core instrumented."""
    copy = Path(APART.name, "tree")
    built = shutil.ignore_patterns("*.so", "*.c", "__pycache__")
    shutil.copytree(TREE / "redset", copy / "redset", ignore=built)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(TREE / name, copy)
    setup = [sys.executable, "setup.py", "-q"]
    where = ["--build-lib", str(BUILD)]
    steps = [
        [*setup, "build_py", *where],
        [*setup, "build_ext", *where, "--build-temp", str(Path(APART.name, "temp"))],
    ]
    flags = {"CFLAGS": FLAGS, "LDFLAGS": FLAGS, "REDSET_REQUIRE_EXTENSIONS": "1"}
    for step in steps:
        subprocess.run(step, cwd=copy, env={**os.environ, **flags}, check=True)


def check_that_it_reports() -> None:
    """Do the faults that must be reported; Failed if one is not."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "bad.c")
        source.write_text(BAD)
        include = sysconfig.get_path("include")
        made = str(source.with_suffix(sysconfig.get_config_var("EXT_SUFFIX")))
        flags = ["-shared", "-fPIC", *FLAGS.split(), f"-I{include}"]
        subprocess.run([*compiler(), *flags, str(source), "-o", made], check=True)
        for call, mark in zip(("read_freed(3)", "shift(40)"), MARKS, strict=True):
            done = subprocess.run(
                [sys.executable, "-c", f"import bad; bad.{call}"],
                cwd=folder,
                env={**environment(), "PYTHONPATH": folder},
                capture_output=True,
                text=True,
            )
            if done.returncode == 0 or mark not in done.stderr:
                raise Failed(f"bad.{call} was not reported:\n{done.stderr[-2000:]}")


def run(*arguments: str, trace: Path | None = None) -> None:
    """Run Python on the instrumented core, in the tests' directory; Failed if it fails."""
    print("+ python", *arguments, flush=True)
    started = time.monotonic()
    env = environment()
    if trace is not None:
        env["FUZZ_TRACE"] = str(trace)
    done = subprocess.run([sys.executable, *arguments], cwd=TREE / "tests", env=env)
    if done.returncode:
        at = ""
        if trace is not None and trace.exists():
            at = f", in case {int.from_bytes(trace.read_bytes()[:8], 'little')}"
        raise Failed(f"python {' '.join(arguments)} ended with {done.returncode}{at}")
    print(f"  {time.monotonic() - started:.0f} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/sanitize.py")
    parser.add_argument("--inputs", type=int, default=100_000, help="cases of the inputs' fuzzer")
    parser.add_argument("--replies", type=int, default=5000, help="cases of the replies' fuzzer")
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument(
        "--can", action="store_true", help="only say whether there is what it takes"
    )
    options = parser.parse_args()
    if not runtimes():
        print(f"sanitize: {' '.join(compiler())} has no libasan and libubsan here", file=sys.stderr)
        return UNABLE
    if options.can:
        return 0
    try:
        check_that_it_reports()
        build()
        run(
            "-c",
            f"import redset._speedups as core; assert core.__file__.startswith({str(BUILD)!r})",
        )
        # Captured by file, a report would end with the process that it ends.
        tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--capture=sys"]
        run(*tests, "test_wire.py", "test_known_wire.py", "test_serializers.py", "-k", "not python")
        run(*tests, "test_sets.py", "test_memory.py", "-k", "cython and (valkey9 or fakeredis)")
        seed = str(options.seed)
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder, "case")
            for name, count in (("inputs", options.inputs), ("replies", options.replies)):
                run("-m", "fuzz", name, "--count", str(count), "--seed", seed, trace=trace)
        run("-m", "fuzz.allocation")
    except (Failed, subprocess.CalledProcessError) as error:
        print(f"sanitize: {error}", file=sys.stderr)
        return 1
    print("sanitize: nothing was reported")
    return 0


if __name__ == "__main__":
    sys.exit(main())
