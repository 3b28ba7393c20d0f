"""The structure: which module may know which, one chooser, named scripts, the public names."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import inspect
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import children
import lengths
import pytest
import servers

import redset.asyncio
from redset import ScheduledSet, SortedSet, TimeSortedSet, _wire, scripts
from redset.asyncio import AsyncWriter
from redset.locks import Lock
from redset.scripts import arguments_of, script
from redset.serializers import JSONSerializer
from redset.sets import Between, DeadLetters

PACKAGE = Path(redset.__file__).parent


def _module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {
    _module_name(path): ast.parse(path.read_text(encoding="utf-8"), str(path))
    for path in sorted(PACKAGE.rglob("*.py"))
}
MODULES = {*TREES, "redset._speedups"}
LUA = sorted((PACKAGE / "scripts").rglob("*.lua"))
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in LUA}
INCLUDE = re.compile(r"^-- include: (\w+)$", re.MULTILINE)
INCLUDED = {path.stem for path in LUA if path.parent.name == "include"}
STEPS = sorted(set(TEXTS) - INCLUDED)


# --- functions that are read at a glance


def test_no_function_has_more_lines_than_are_allowed() -> None:
    assert lengths.too_long() == []


def test_the_lines_of_functions_are_counted_in_each_language() -> None:
    python = [
        "def short(a):",
        '    """Say.',
        "",
        '    More."""',
        "    return a",
        "",
        "def f(): pass",
    ]
    assert list(lengths.of_python("\n".join(python))) == [("short", 2), ("f", 1)]
    lua = ["local function outer(a)", "  local function inner()", "    x()", "  end", "end", ""]
    assert list(lengths.of_lua("\n".join(lua))) == [("outer", 5), ("inner", 3)]
    cython = ["cdef int f(", "    int a,", ") noexcept:", "    return a", "", "cdef class C:", ""]
    cython += ["    def g(self):", "        pass", ""]
    assert list(lengths.of_cython("\n".join(cython))) == [("f", 4), ("g", 2)]
    c = ["static int f(", "    int a)", "{", "    return a;", "}", "", "static const int b[] = {"]
    c += ["    1,", "};", '__attribute__((target("avx2"))) static void g(int *a)', "{", "}"]
    assert list(lengths.of_c("\n".join(c))) == [("f", 5), ("g", 3)]


def test_no_function_of_the_core_or_a_script_is_too_complex() -> None:
    assert lengths.too_complex() == []
    cython = [
        "cdef int f(a):",
        '    """Whether if or for."""',
        "    if a:  # or if b",
        "        pass",
    ]
    cython += [
        "    elif a and b:",
        "        return 1 if c else 2",
        "    for each in a:",
        "        pass",
    ]
    assert lengths.complexity(cython) == 5
    c = ["/* if a", " or if b */", "#if A", "    if (a && b)", "        c = d ? e : f;", "#endif"]
    assert lengths.complexity(c) == 4
    lua = ["local function f(a) -- if", "  while #a > 0 and b do", "    if c then d('if') end"]
    assert lengths.complexity([*lua, "    for i = 1, #a do x() end", "  end", "end"]) == 4


# --- imports


def imports(module: str) -> Iterator[str]:
    """The modules that a module imports, anywhere in it, also by `importlib.import_module`."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports by a relative name"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module
        elif isinstance(node, ast.Constant) and node.value in MODULES - {"redset"}:
            yield str(node.value)


#: The layers, by the longest beginning of a module's name.
LAYERS = {
    "redset": "faces",
    "redset._faces.arguments": "words",
    "redset._lazy": "words",
    "redset._operations": "operations",
    "redset._operations.errors": "parts",
    "redset._operations.keys": "parts",
    "redset._operations.limits": "parts",
    "redset._operations.lines": "parts",
    "redset._operations.logs": "parts",
    "redset._operations.options": "parts",
    "redset._operations.plain_reports": "parts",
    "redset._operations.reporting": "parts",
    "redset._operations.state": "parts",
    "redset._operations.tables": "parts",
    "redset._transport": "transport",
    "redset._transport.effects": "words",
    "redset._wire": "wire",
    "redset._wire.values": "words",
    "redset._speedups": "wire",
    "redset.exceptions": "words",
    "redset.interfaces": "parts",
    "redset.scripts": "words",
    "redset.serializers": "parts",
}


def layer(module: str) -> str:
    while module not in LAYERS:
        module = module.rpartition(".")[0]
    return LAYERS[module]


#: Layers that each layer may import. Operations and transport both use the words. The parts are
#: those of a set, which the transport does not know.
MAY_IMPORT = {
    "words": {"words"},
    "parts": {"words", "parts"},
    "wire": {"words", "parts", "wire"},
    "operations": {"words", "parts", "wire", "operations"},
    "transport": {"words", "transport"},
    "faces": {"words", "parts", "wire", "operations", "transport", "faces"},
}
#: Modules that do I/O, or wait for it.
IO = {"asyncio", "http", "select", "selectors", "socket", "ssl", "subprocess", "threading"}


def test_imports_run_one_way() -> None:
    """Faces, operations, wire; and faces, transport."""
    wrong = [
        f"{module} ({layer(module)}) imports {other} ({layer(other)})"
        for module in TREES
        for other in imports(module)
        if other.split(".")[0] == "redset" and layer(other) not in MAY_IMPORT[layer(module)]
    ]
    assert wrong == []
    assert {layer(module) for module in TREES} == set(MAY_IMPORT)


def test_operations_know_no_client_and_do_no_io() -> None:
    for module in TREES:
        if layer(module) == "operations":
            tops = {other.split(".")[0] for other in imports(module)} - {"redset"}
            assert tops <= sys.stdlib_module_names - IO - {"importlib"}, module
            for node in ast.walk(TREES[module]):
                assert not isinstance(node, (ast.AsyncFunctionDef, ast.Await)), module
                assert not (isinstance(node, ast.Name) and node.id in ("open", "print")), module
                assert not (
                    isinstance(node, ast.Attribute)
                    and node.attr in ("execute_command", "connection_pool", "sleep")
                ), module


# --- one name for one thing, and nothing without a caller


#: The two faces are twins. The demo and the command are programs of their own, on the public names.
TWINS = {"redset.sets", "redset.asyncio"}
OWN = {module for module in TREES if module.split(".")[1:2] in (["demo"], ["cli"])}


def test_no_two_things_have_one_name() -> None:
    modules: dict[str, set[str]] = {}
    for module in set(TREES) - OWN:
        for node in TREES[module].body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                modules.setdefault(node.name, set()).add(module)
    shared = {name: where for name, where in modules.items() if len(where) > 1 and where != TWINS}
    assert shared == {}


def defined(module: str) -> Iterator[tuple[str, str]]:
    """Names that a module or one of its classes defines, each with what it is defined in."""
    for node in TREES[module].body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name, module
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((each.id, module) for each in targets if isinstance(each, ast.Name))
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    yield inner.name, f"{module}.{node.name}"


def test_nothing_private_is_without_a_caller() -> None:
    """Private modules have no functions, classes, methods or constants for the tests alone."""
    used: dict[str, int] = {}
    for module in TREES:
        for node in ast.walk(TREES[module]):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                used[node.id] = used.get(node.id, 0) + 1
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                used[node.attr] = used.get(node.attr, 0) + 1
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                # Names in annotations, and names that are looked up.
                used[node.value] = used.get(node.value, 0) + 1
    idle = [
        f"{where}.{name}"
        for module in set(TREES) - TWINS - OWN
        if any(part.startswith("_") for part in module.split("."))
        for name, where in defined(module)
        if not (name in used or (name.startswith("__") and name.endswith("__")))
    ]
    assert idle == []


def strings(tree: ast.AST) -> Iterator[str]:
    """Return the texts in a module that are not docstrings."""
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Constant) and not isinstance(node, ast.Expr):
                if isinstance(child.value, str):
                    yield child.value
                elif isinstance(child.value, bytes):
                    yield child.value.decode("latin-1")


def test_only_the_chooser_knows_that_there_are_two_implementations() -> None:
    names = ("redset._wire.fallback", "redset._speedups")
    knowing = {
        module
        for module, tree in TREES.items()
        if {*imports(module)} & set(names)
        or any(text.endswith((".fallback", "_speedups")) for text in strings(tree))
    }
    assert knowing == {"redset._wire"}


def pieces(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Return the constant parts, with their lines, of the texts that a module assembles."""
    for node in ast.walk(tree):
        parts: list[ast.expr] = []
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mod)):
            parts = [node.left, node.right]
        elif isinstance(node, ast.JoinedStr):
            parts = node.values
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("join", "format"):
            assert isinstance(node.func, ast.Attribute)
            parts = [node.func.value, *node.args]
        for part in parts:
            if isinstance(part, ast.Constant):
                if isinstance(part.value, bytes):
                    yield part.lineno, part.value.decode("latin-1")
                elif isinstance(part.value, str):
                    yield part.lineno, part.value


def test_only_the_keys_module_makes_key_names() -> None:
    """By what their parts look like: a colon or the lock's suffix, and no white space."""
    users = ("redset._operations.keys", "redset.embedded", "redset.demo", "redset.cli")
    makers = [
        f"{module}:{line} {piece!r}"
        for module, tree in TREES.items()
        if not module.startswith(users)
        for line, piece in pieces(tree)
        if re.fullmatch(r"\S*(:|__lock)\S*", piece)
    ]
    assert makers == []
    assert [piece for _, piece in pieces(TREES["redset._operations.keys"]) if ":" in piece]


# --- the implementation


def python(code: str, cwd: Path, **variables: str) -> str:
    """Return the output of a program that has only the installed redset."""
    kept = {name: value for name, value in os.environ.items() if "REDSET_" not in name}
    return children.run("-c", code, cwd=cwd, env={**kept, **variables}).out.strip()


CORE = importlib.util.find_spec("redset._speedups") is not None


def test_the_implementation_is_named() -> None:
    assert redset.IMPLEMENTATION in ("cython", "python")
    assert _wire.load(redset.IMPLEMENTATION).IMPLEMENTATION == redset.IMPLEMENTATION


@pytest.mark.parametrize("value", ["1", "yes"])
def test_the_fallback_can_be_chosen_and_then_no_core_is_loaded(value: str, tmp_path: Path) -> None:
    code = "import sys, redset; print(redset.IMPLEMENTATION, 'redset._speedups' in sys.modules)"
    assert python(code, tmp_path, REDSET_NO_EXTENSIONS=value) == "python False"


@pytest.mark.parametrize("value", ["", "0", None])
def test_the_compiled_core_is_the_default(value: str | None, tmp_path: Path) -> None:
    if not CORE:
        raise servers.Missing("cython: no compiled core")
    variables = {} if value is None else {"REDSET_NO_EXTENSIONS": value}
    code = "import redset; print(redset.IMPLEMENTATION)"
    assert python(code, tmp_path, **variables) == "cython"


def test_a_core_that_cannot_be_loaded_is_replaced_by_the_fallback(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['redset._speedups'] = None\n"
        "import redset; print(redset.IMPLEMENTATION)"
    )
    assert python(code, tmp_path) == "python"


def test_without_its_faster_helpers_redset_works_and_stores_the_same_bytes(tmp_path: Path) -> None:
    code = """
import sys
for name in ("orjson", "hiredis", "msgspec"):
    sys.modules[name] = None
import redis, redset
from redset.serializers import JSONSerializer, NamedtupleSerializer, StructSerializer
redset.SortedSet(redis.Redis(), "jobs", key="url")
print(JSONSerializer().dumps(eval(sys.stdin.readline())).hex())
"""
    item = {"url": "/ä\u2028\U0001f600", "b": [1.0, -0.0, 1e16, 1e-7, None, True], "a": {"": 2**63}}
    done = children.run("-c", code, cwd=tmp_path, input=ascii(item) + "\n")
    assert bytes.fromhex(done.out) == JSONSerializer().dumps(item)


# --- the scripts


def code_of(text: str) -> str:
    """A script without its comments."""
    return re.sub(r"--.*", "", text)


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_every_script_documents_its_step_and_names_its_arguments(name: str) -> None:
    text = TEXTS[name]
    assert text.startswith("-- ") and not text.startswith(("-- KEYS", "-- ARGV"))
    code = code_of(text)
    # A glance has the keys of many sets.
    keys = r"\bKEYS\b(?!\[at)" if name == "glance" else r"\bKEYS\b"
    assert not re.search(rf"{keys}|\bARGV\[\d|\bARGV, \d", code)
    if name in INCLUDED:
        assert text.startswith("-- Included by ")
        pieces = "".join(TEXTS[each] for each in INCLUDE.findall(text))
        assert set(arguments_of(name).names) <= set(re.findall(r"\w+", code + code_of(pieces)))
        return
    step = script(name)
    # A step on no key in particular has one to find the server by.
    assert step.keys or name in ("server", "glance")
    # Beside another key there is the one that never exists, by which a moving slot refuses it.
    assert "none" in step.keys or len(step.keys) < 2
    # Each name occurs where it is declared and where it is used.
    words = re.findall(r"\w+", code_of(step.text.decode()))
    assert [each for each in step.arguments.names if words.count(each) < 2] == []
    if "ARGV" in code:
        assert re.search(r"^--   \w+\.\.\.", text, re.MULTILINE)


HEAD = """-- Does.
-- KEYS: queue; with second keys none, leases; with options meta; with key= items
--   Of a set.
-- ARGV:
--   num: number        how many
--   lowest, highest
--   due: flag          whether
--     so or so
--   last: optional
--   rows...(id, text)  of each
-- Returns it.
for i = rows_at, #ARGV, rows_width do
  -- fields: rows at i
end"""


@pytest.fixture
def script_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], scripts.Script]]:
    """Makes a script of a text."""

    def made(text: str) -> scripts.Script:
        monkeypatch.setattr(scripts, "_read", lambda name: text)
        return script.__wrapped__("made")

    return made


def test_what_a_script_declares_becomes_locals(
    script_of: Callable[[str], scripts.Script],
) -> None:
    step = script_of(HEAD)
    assert step.text.decode().splitlines()[11:] == [
        "local queue, none, leases, meta, items = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]",
        "local num, lowest, highest, due, last = "
        "ARGV[1] + 0, ARGV[2], ARGV[3], ARGV[4] == '1', (ARGV[5] ~= '' and ARGV[5] or nil)",
        "local rows_at = 6",
        "local rows_width = 2",
        "for i = rows_at, #ARGV, rows_width do",
        "  local id, text = ARGV[i + 0], ARGV[i + 1]",
        "end",
    ]
    keys = SimpleNamespace(queue=b"q", none=b"n", leases=b"l", meta=b"m", items=b"i")
    assert step.keys_of(keys, False, False, False) == (b"q",)
    assert step.keys_of(keys, True, False, False) == (b"q", b"n", b"l")
    assert step.keys_of(keys, True, True, True) == (b"q", b"n", b"l", b"m", b"i")
    assert step.keys_given({"none": b"n", "queue": b"q"}) == [b"q", b"n"]
    values = {"due": True, "last": b"", "lowest": 1, "highest": 2, "num": 3}
    assert step.arguments.values(values) == [3, 1, 2, b"1", b""]
    assert step.arguments.values(values | {"due": 0})[3] == b""


def test_a_wrong_or_missing_name_fails_at_once_with_an_error_that_names_it() -> None:
    sweep, discard = script("sweep"), script("discard")
    with pytest.raises(TypeError, match="the step 'sweep' has no argument 'much'"):
        sweep.arguments.values({"much": 1})
    with pytest.raises(TypeError, match="the step 'sweep' has no argument 'much'"):
        sweep.arguments.values({"limit": 1, "much": 1})
    with pytest.raises(TypeError, match="the step 'sweep' needs the argument 'limit'"):
        sweep.arguments.values({})
    given = {"remember": "", "epoch": b"", "nun": 1}
    with pytest.raises(TypeError, match="the step 'discard_and_forget' has no argument 'nun'"):
        script("discard_and_forget").arguments.values(given)
    with pytest.raises(TypeError, match="the step 'discard' has no key 'leased'"):
        discard.keys_given({"queue": b"", "leased": b""})
    with pytest.raises(TypeError, match="the file 'adding' needs the argument 'condition'"):
        arguments_of("adding").values({})


@pytest.mark.parametrize(
    "line", ["--   a b", "--   a: int", "--   a...: number", "--   rest...\n--   more"]
)
def test_a_head_that_cannot_be_read_fails_at_once(
    line: str, script_of: Callable[[str], scripts.Script]
) -> None:
    with pytest.raises(ValueError, match=r"made\.lua must declare arguments, got '--   "):
        script_of(f"-- Does.\n-- ARGV:\n{line}\n")
    with pytest.raises(ValueError, match=r"made\.lua must declare keys, got 'with luck it'"):
        script_of("-- Does.\n-- KEYS: queue; with luck it\n")


def test_every_step_is_called_with_the_names_that_its_script_declares() -> None:
    called: dict[str, list[set[str]]] = {}
    for tree in TREES.values():
        for node in ast.walk(tree):
            function = getattr(getattr(node, "func", None), "attr", "")
            if not isinstance(node, ast.Call) or function not in ("step", "_run") or not node.args:
                continue
            first = node.args[0]
            if isinstance(first, ast.Constant) and first.value in STEPS:
                # Names that come in a mapping are checked when it is called.
                names = {each.arg or "**" for each in node.keywords}
                called.setdefault(first.value, []).append(names - {"rest", "keys", "resend"})
    # The others are called by a variable's name.
    assert set(STEPS) - set(called) == {
        "add", "server", "glance", "report", "register", "forget", "seen",
    }  # fmt: skip
    for name, calls in called.items():
        # The context adds those by which a step knows when a group may start.
        declared = set(script(name).arguments.names) - set(arguments_of("grouping").names)
        for names in calls:
            assert names - {"**"} <= declared, name
            assert "**" in names or names == declared, name


def calls(name: str | None = None) -> Iterator[tuple[str, str]]:
    """The texts that are arguments of calls (of one function), with their modules."""
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                function = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if name in (None, function):
                    for argument in node.args:
                        for part in ast.walk(argument):
                            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                                yield module, part.value


def test_every_script_is_used_and_every_used_one_is_there() -> None:
    by_name = {text for _, text in calls()}
    assert [name for name in TEXTS if name not in by_name | INCLUDED] == []
    assert {name for text in TEXTS.values() for name in INCLUDE.findall(text)} == INCLUDED
    named = {text for function in ("script", "_asked", "step") for _, text in calls(function)}
    assert named and named <= set(STEPS)


def test_a_script_is_its_files_and_the_locals_that_they_declare() -> None:
    def expanded(name: str, grouped: bool) -> Iterator[str]:
        for line in scripts.selected(TEXTS[name].splitlines(), grouped):
            included = INCLUDE.fullmatch(line)
            if included:
                yield from expanded(included[1], grouped)
            elif not re.match(" *-- fields: ", line):
                yield line

    made = re.compile(r" *local [\w, ]+ = .*\b(KEYS|ARGV)\[.*|local \w+_(at|width) = \d+")
    for name, grouped in itertools.product(STEPS, (False, True)):
        step = script(name, grouped)
        files, lines = list(expanded(name, grouped)), step.text.decode().splitlines()
        at = 0
        for line in lines:
            if at < len(files) and line == files[at]:
                at += 1
            else:
                assert made.fullmatch(line), line
        assert at == len(files)
        assert step.sha == hashlib.sha1(step.text).hexdigest().encode()
        assert not re.search(r"\b(loadstring|load|dofile)\b", code_of(step.text.decode()))
    # Nor is there Lua anywhere else, or another way to make a script.
    lua = [
        module for module, tree in TREES.items() if any("redis.call" in s for s in strings(tree))
    ]
    assert lua == []
    makers = {
        module
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Script"
    }
    assert makers == {"redset.scripts"}


def test_marked_lines_are_for_sets_with_groups_or_for_others() -> None:
    lines = ["a", "-- grouped:", "b", "-- ungrouped:", "c", "-- both:", "d"]
    assert scripts.selected(lines, True) == ["a", "b", "d"]
    assert scripts.selected(lines, False) == ["a", "c", "d"]
    # A script without such lines is one script.
    assert script("page", True) is script("page")
    assert script("settle", True) is not script("settle")


def test_every_server_knows_a_script_by_the_name_that_redset_has_for_it(
    any_server: servers.Server,
) -> None:
    for name in STEPS:
        loaded = any_server.raw.script_load(script(name).text)
        assert loaded in (script(name).sha, script(name).sha.decode())


# --- the public names


def bare(function: Any) -> str:
    """A signature without its types."""
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.name not in ("self", "cls")
    ]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


FLAGS = "nx=False, xx=False, gt=False, lt=False, again=False, remember=None"
PROPERTIES = {"dead", "lock", "name", "paused", "redis", "scorer", "serializer"}
METHODS = {
    "ack": "(leases, add=())",
    "buffered": "(max_items=1000, max_delay=0.1, max_pending=10000)",
    "fail": "(leases, error, delay=0, *, group=False)",
    "consume": "(handler, *, batch=None, concurrency=1, ttl=60.0, until_finished=False, stop=None)",
    "finished": "()",
    "lease": "(num=1, ttl=60.0, *, wait=0)",
    "leased": "()",
    "release": "(leases, delay=0, score=None, *, group=False)",
    "renew": "(leases, ttl)",
    "add": f"(item, score=None, *, {FLAGS})",
    "add_many": f"(items, score=None, *, {FLAGS}, errors='raise')",
    "add_new": f"(items, score=None, *, {FLAGS}, errors='raise')",
    "between": "(min, max)",
    "clear": "(*, keep_memory=False, if_finished=False)",
    "close": "()",
    "contains": "(item)",
    "export": "()",
    "restore": "(lines)",
    "discard": "(item, forget=False)",
    "discard_many": "(items, forget=False)",
    "forget": "(item)",
    "isdisjoint": "(other)",
    "known": "(item)",
    "move_many": "(items, other)",
    "update": "(items)",
    "forget_many": "(items)",
    "from_url": "(url, name, *args, cluster=False, **options)",
    "get": "(item)",
    "groups": "()",
    "peek": "(position=0)",
    "peek_many": "(num)",
    "peek_score": "()",
    "pause": "(why='')",
    "pause_group": "(group, seconds)",
    "pop": "(*, wait=0)",
    "remove": "(item)",
    "resume": "()",
    "score": "(item)",
    "scores": "(items)",
    "seen": "(item)",
    "seen_many": "(items)",
    "set_group": "(group, *, limit=Ellipsis, interval=Ellipsis)",
    "size": "()",
    "stats": "(*, read_only=False)",
    "take": "(num, *, wait=0, with_scores=False)",
    "workers": "()",
}
#: Names that only a ScheduledSet has, and its further arguments.
SCHEDULED = {"available": "()"}
DELAYED = {name: METHODS[name].replace(")", ", delay=None)") for name in ("add", "add_many")}
SPECIAL = {
    "__bool__", "__contains__", "__enter__", "__exit__", "__iter__", "__len__", "__repr__",
    "__eq__", "__hash__", "__le__", "__lt__", "__ge__", "__gt__",
    "__ior__", "__iand__", "__isub__", "__ixor__", "__or__", "__and__", "__sub__", "__xor__",
}  # fmt: skip


def test_the_package_has_these_names_and_no_others() -> None:
    assert set(redset.__all__) == {
        "AddResult",
        "Batch",
        "Consumed",
        "DeadLetter",
        "Group",
        "Key",
        "Lease",
        "Reject",
        "Retry",
        "ScheduledSet",
        "SetInfo",
        "SortedSet",
        "Stats",
        "TimeSortedSet",
        "Worker",
        "Writer",
        "check_server",
        "list_sets",
    }
    others = {
        name
        for name in dir(redset)
        if not name.startswith("_") and not isinstance(getattr(redset, name), ModuleType)
    }
    assert others == {*redset.__all__, "IMPLEMENTATION"}


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (
            "sets",
            {"Key", "ScheduledSet", "SortedSet", "TimeSortedSet", "check_server", "list_sets"},
        ),
        (
            "asyncio",
            {"Key", "ScheduledSet", "SortedSet", "TimeSortedSet", "check_server", "list_sets"},
        ),
        ("locks", {"AsyncLock", "Lock"}),
        ("interfaces", {"Serializer"}),
        ("serializers", {"JSONSerializer", "NamedtupleSerializer", "StructSerializer"}),
        (
            "exceptions",
            {
                "AddError",
                "DecodeError",
                "Full",
                "LockTimeout",
                "OptionsDiffer",
                "RedsetError",
                "Reject",
                "Retry",
            },
        ),
        ("embedded", {"server"}),
    ],
)
def test_the_public_modules_have_these_names(module: str, names: set[str]) -> None:
    assert set(importlib.import_module(f"redset.{module}").__all__) == names


@pytest.mark.parametrize("cls", [SortedSet, TimeSortedSet, ScheduledSet])
def test_a_set_has_these_methods_and_no_others(cls: type[SortedSet[Any]]) -> None:
    methods = METHODS | (DELAYED | SCHEDULED if cls is ScheduledSet else {})
    assert public(cls) == PROPERTIES | set(methods)
    assert all(any(name in vars(base) for base in SortedSet.__mro__[:-1]) for name in SPECIAL)
    for name in PROPERTIES:
        assert isinstance(inspect.getattr_static(cls, name), property)
    assert {name: bare(getattr(cls, name)) for name in methods} == methods
    assert bare(cls) == (
        "(redis_client, name, scorer=None, serializer=None, lock_timeout=None, lock_expires=None,"
        " *, key=None, remember=None, duplicates='move', ties=None,"
        " max_attempts=10, max_item_bytes=None, max_size=None, known_max=1000000,"
        " group=None, group_limit=1, group_interval=0)"
    )


def test_a_set_has_at_most_52_names_beside_the_one_that_makes_it() -> None:
    for cls in (SortedSet, TimeSortedSet, redset.asyncio.SortedSet, redset.asyncio.TimeSortedSet):
        assert len(public(cls) - {"from_url"}) <= 52
    for cls in (ScheduledSet, redset.asyncio.ScheduledSet):
        assert len(public(cls) - {"from_url", "available"}) <= 52


def functions_of(module: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(TREES[module]):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def test_a_method_of_a_face_is_a_signature_a_docstring_and_little_more() -> None:
    for module in ("redset.sets", "redset.asyncio"):
        long = {
            node.name
            for node in functions_of(module)
            if len(node.body) - (ast.get_docstring(node) is not None) > 3
        }
        assert long == set(), "what a method does belongs to an operation, or a base"


def face_tool() -> ModuleType:
    path = Path(__file__).parent.parent / "tools" / "asyncio_face.py"
    spec = importlib.util.spec_from_file_location("asyncio_face", path)
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def test_the_asyncio_face_is_what_its_tool_makes_of_the_sync_one() -> None:
    """Except for the layout, which is ruff's: `make lint` checks that, too."""
    made = ast.parse(face_tool().made())
    assert ast.dump(made) == ast.dump(TREES["redset.asyncio"]), "run python tools/asyncio_face.py"


def test_a_table_of_the_tool_that_is_of_no_use_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    tool = face_tool()
    for table, key, value in (
        (tool.NAMES, "Nobody", "AsyncNobody"),
        (tool.ARGUMENTS, ("add", "nothing"), "Any"),
        (tool.PASSAGES["Writer"], "no such passage", ""),
    ):
        with monkeypatch.context() as patched:
            patched.setitem(table, key, value)
            with pytest.raises(SystemExit, match=r"of no use in sets.py"):
                tool.made()


def test_examples_of_the_asyncio_face_are_awaited_and_those_of_the_sync_one_are_not() -> None:
    for module, awaits in (("redset.sets", False), ("redset.asyncio", True)):
        for node in functions_of(module):
            text = ast.get_docstring(node) or ""
            examples = re.findall(r"^(?:>>>|\.\.\.) (.*)", text, re.MULTILINE)
            asks = [line for line in examples if re.search(r"\b(jobs|s)\.(add|pop|take)\(", line)]
            assert all(("await " in line) == awaits for line in asks), node.name


def test_checks_of_arguments_stand_in_one_module() -> None:
    checking = {
        module
        for module, tree in TREES.items()
        if module.startswith(("redset._faces", "redset._operations.dead", "redset.locks"))
        for text in strings(tree)
        if " must be " in text
    }
    assert checking == {"redset._faces.arguments"}


def test_check_server_takes_a_client_and_a_name() -> None:
    for check in (redset.check_server, redset.asyncio.check_server):
        assert bare(check) == "(client, name=None)"
    assert inspect.iscoroutinefunction(redset.asyncio.check_server)
    assert not hasattr(SortedSet, "check")


def test_dead_letters_views_and_locks_have_these_methods_and_no_others() -> None:
    assert public(DeadLetters) == {"size", "purge", "requeue"}
    assert bare(DeadLetters.purge).startswith("(before=None, forget=False")
    assert public(Between) == {"size", "take", "discard"}
    assert public(Lock) == {"expires", "key", "poll_interval", "redis", "timeout"}
    assert bare(Lock) == "(redis, key, expires=None, timeout=None, poll_interval=None)"


def test_writers_have_these_methods_and_no_others() -> None:
    for writer in (redset.Writer, AsyncWriter):
        assert public(writer) == {"ack", "add", "add_many"}
        assert bare(writer.add) == f"(item, score=None, *, {FLAGS})"
        assert bare(writer.add_many) == f"(items, score=None, *, {FLAGS})"
        assert bare(writer.ack) == "(leases)"
        assert inspect.iscoroutinefunction(writer.add) == (writer is AsyncWriter)
        assert inspect.iscoroutinefunction(writer.ack) == (writer is AsyncWriter)


def test_the_results_have_these_fields() -> None:
    assert redset.AddResult._fields == ("added", "updated", "refused", "failed")
    assert redset.DeadLetter._fields == (
        "id", "raw", "score", "reason", "time", "attempts", "item", "group",
    )  # fmt: skip
    assert set(redset.Stats._fields) == {
        "size",
        "available",
        "leased",
        "dead",
        "remembered",
        "oldest_score",
        "oldest_age",
        "memory_bytes",
        "retrying",
        "groups_ready",
        "groups_resting",
        "groups_working",
    }


def test_the_version_is_that_of_the_installed_distribution() -> None:
    assert redset.__version__ == importlib.metadata.version("redset")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = redset.nothing


def test_the_package_is_marked_as_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert (PACKAGE / "_speedups.pyi").is_file()
