"""Modules that are imported on their first use: which ones, by threads, after an interrupt."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import children
import pytest
import servers
from marks import needs_fork

import redset

PACKAGE = Path(redset.__file__).parent
#: The packages that import modules when they are first used, with these modules.
LAZY = {
    name: {
        node.value
        for call in ast.walk(ast.parse((PACKAGE / name / "__init__.py").read_text("utf-8")))
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "modules"
        for node in call.args[1:]
        if isinstance(node, ast.Constant)
    }
    for name in ("_faces", "_operations", "_transport", "_wire")
}


def loaded_by(code: str, *arguments: str) -> set[str]:
    """Return the modules of redset that a program has imported at its end."""
    code += "\nimport sys; print(*(name for name in sys.modules if name.startswith('redset')))"
    return set(children.run("-c", code, *arguments).out.split())


@pytest.fixture
def url(all_servers: servers.Servers) -> str:
    """The address of a server without keys."""
    server = all_servers.get(servers.some())
    server.flush()
    return server.url


def test_an_import_loads_only_what_constructing_and_adding_need(url: str) -> None:
    late = {f"redset.{name}.{each}" for name, some in LAZY.items() for each in some}
    if redset.IMPLEMENTATION == "python":
        late.remove("redset._wire.fallback")
    loaded = loaded_by("import redset")
    assert len(loaded) <= 50
    assert not loaded & {*late, "redset.asyncio", "redset.cli", "redset.embedded", "redset.locks"}
    # An add needs one module more: it reports the set.
    add = "import sys, redset; redset.SortedSet.from_url(sys.argv[1], 'jobs').add('a')"
    assert loaded_by(add, url) - loaded <= {"redset._operations.operating"}


@pytest.mark.parametrize("package", sorted(LAZY))
def test_a_package_has_its_late_modules_as_attributes_and_no_others(package: str) -> None:
    found = importlib.import_module(f"redset.{package}")
    assert LAZY[package]
    for name in LAZY[package]:
        assert getattr(found, name) is importlib.import_module(f"redset.{package}.{name}")
    with pytest.raises(AttributeError, match=f"module 'redset.{package}' has no attribute 'nono'"):
        _ = found.nono


def test_late_public_names_can_be_listed_imported_and_used() -> None:
    loaded_by(
        "import redset\n"
        "assert {*redset.__all__, '__version__', 'locks'} <= {*dir(redset)}\n"
        "from redset import DeadLetter, Stats\n"
        "assert redset.locks.Lock.__name__ == 'Lock'\n"
        "from redset import *\n"
        "assert Stats is redset.Stats and Consumed(1, 0, 0).done == 1\n"
        "assert vars(redset)['Worker'] is Worker"
    )


RACE = """
import sys, threading, redis, redset
jobs = redset.SortedSet(redis.Redis.from_url(sys.argv[1]), "jobs")
jobs.add_many(range(8))
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "redset._operations.settling":
            sys.meta_path.remove(self)
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
try:
    jobs.lease()
except KeyboardInterrupt:
    assert "redset._operations.leasing" not in sys.modules
begin, done = threading.Barrier(8), []
def work():
    begin.wait()
    done.append(jobs.lease().ack())
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert done == [1] * 8, done
"""


def test_a_first_use_may_be_interrupted_and_threads_may_race_for_it(url: str) -> None:
    loaded_by(RACE, url)


FORK = """
import importlib.machinery, os, signal, sys, threading, time, redis, redset
url = sys.argv[1]
redset.SortedSet.from_url(url, "jobs").add("a")
begun = threading.Event()
class Slow(importlib.machinery.SourceFileLoader):
    def exec_module(self, module):
        begun.set()
        time.sleep(0.3)
        super().exec_module(module)
class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = super().find_spec(name, path, target)
        if name == "redset._operations.leasing":
            spec.loader = Slow(name, spec.origin)
        return spec
sys.meta_path.insert(0, Finder)
thread = threading.Thread(target=redset.SortedSet.from_url(url, "other").lease)
thread.start()
begun.wait()
child = os.fork()
if not child:
    signal.alarm(20)
    redset.SortedSet.from_url(url, "jobs").lease().ack()
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
thread.join()
"""


@needs_fork
def test_a_child_may_use_what_a_thread_of_its_parent_was_importing(url: str) -> None:
    loaded_by(FORK, url)
