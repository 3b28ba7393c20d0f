"""The choice of cases that `make test` runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import selection
import servers

pytest_plugins = ["pytester"]

ROWS = servers.cases(servers.CLIENTS, 3) + servers.cases(servers.ASYNCIO_CLIENTS, 4)
SIZES = [1, 300]
OPTIONS = [{"key": "url"}, {}]
CASES: list[dict[str, Any]] = [
    {"case": row, "options": options, "size": size}
    for row, options, size in itertools.product(ROWS, OPTIONS, SIZES)
]


def chosen(name: str) -> list[dict[str, Any]]:
    return [CASES[place] for place in selection.choose(name, CASES)]


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
    assert selection.choose("test_a", [{}]) == [0]


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


def test_all_and_rest_exclude_each_other(collected: Callable[..., Any]) -> None:
    with pytest.raises(AssertionError, match="--all and --rest exclude each other"):
        collected("--all", "--rest")


def test_all_budgets_fit_into_five_minutes_of_three_workers() -> None:
    assert sum(selection.BUDGET.values()) <= 3 * (300 - selection.START)
    assert {"scrapy", "cluster", "cli", "groups", "browser"} <= set(selection.BUDGET)


def test_what_an_expected_run_takes_is_about_what_was_measured() -> None:
    class Item:
        nodeid = "tests/test_waiting.py::test_a"

        def get_closest_marker(self, name: str) -> None:
            return None

    seconds, cases = selection.MEASURED["waiting"]
    items: Any = [Item()] * cases
    assert selection.expected_seconds(items) == pytest.approx(seconds)
