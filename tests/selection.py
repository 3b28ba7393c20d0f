"""Chooses the cases of a run, and reports its expected and its measured time.

Theory of operation. A test function is parametrized over up to 19 rows (implementation,
server, kind of client) and over its own parameters. The product of both takes an hour of CPU.
A plain run keeps, of each function, cases in which

- each value of each parameter occurs,
- each implementation, each server, each face and fakeredis occur,
- at least five rows occur.

The choice is made among the cases that can run on this machine. Their server, implementation
and client are here, and no ``skipif`` skips them. So the rest is tested as densely without
a server or a compiler as with them. A function that has no such case keeps its choice of the
others, which are skipped by name. The end of a run names what is missing.

A checksum of the function's name decides which of the many such choices is taken. So the choice
is the same in every process and every run, and over all functions every row meets every value.
A plain run leaves out the tests marked ``slow``, and property tests draw a fifth of their
examples, the same ones in each run.

``--all`` runs the whole product with all examples. ``--rest`` runs the other cases. With pytest's
``--last-failed`` nothing is chosen: the cases that failed run.

Coverage costs more than the tests it looks at, so it looks once. It measures the cases of a plain
run, with all examples, two more choices of the same functions, and one of the slow cases. It does
not measure the rest of the product: its figure is a lower bound.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import os
import sys
import tempfile
import threading
import zlib
from collections.abc import (
    Callable,
    Container,
    Generator,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
import pytest
import servers

Test = TypeVar("Test")

#: Rows that each function meets at least.
ROWS = 5

#: Examples that a property test draws at least, if it has so many. One with many cases has no more.
LEAST = 10

#: Seconds that each area took in a plain run, added up over four workers on two idle cores, and its
#: cases. An area is a test module without its ``test_``.
MEASURED: dict[str, tuple[float, int]] = {
    "algebra": (19.4, 140),
    "asyncio": (20.4, 119),
    "bad_input": (10.1, 379),
    "benchmarks": (13.9, 32),
    "between": (5.2, 85),
    "buffered": (21.9, 220),
    "chaos": (32.3, 46),
    "checking": (1.5, 61),
    "cli": (19.2, 134),
    "cli_processes": (11.7, 10),
    "clients": (5.9, 58),
    "cluster": (31.1, 69),
    "cluster_clients": (15.7, 20),
    "consuming": (70.4, 194),
    "dead": (6.7, 97),
    "demo": (22.3, 27),
    "documentation": (12.2, 218),
    "dropin": (4.7, 133),
    "embedded": (15.0, 51),
    "few": (7.7, 47),
    "frames": (0.1, 3),
    "full_server": (19.2, 70),
    "fuzz": (5.8, 5),
    "generic": (0.9, 40),
    "glance": (0.4, 35),
    "guide": (0.3, 11),
    "identity": (7.5, 164),
    "known": (37.3, 107),
    "known_wire": (3.7, 42),
    "leases": (13.1, 285),
    "locks": (3.8, 85),
    "logs": (5.2, 65),
    "memory": (39.1, 130),
    "metrics": (2.4, 44),
    "model": (11.1, 6),
    "mutants": (0.8, 22),
    "packaging": (12.1, 16),
    "pausing": (6.3, 42),
    "pickling": (5.0, 17),
    "polling": (1.0, 9),
    "pools": (10.5, 33),
    "processes": (18.7, 33),
    "recipes": (8.1, 20),
    "refused": (31.0, 8),
    "replies": (0.2, 31),
    "reports": (5.9, 96),
    "rights": (2.8, 66),
    "scrapy": (11.4, 140),
    "scrapy_crawls": (17.1, 6),
    "scrapy_groups": (8.4, 80),
    "selection": (7.1, 21),
    "serializers": (8.3, 137),
    "sets": (34.1, 426),
    "slots": (15.9, 6),
    "steps": (5.0, 64),
    "structure": (14.5, 120),
    "suspects": (6.4, 49),
    "threads": (1.6, 5),
    "ties": (9.7, 183),
    "top": (30.5, 22),
    "transfer": (38.6, 156),
    "transport": (57.0, 199),
    "waiting": (83.2, 139),
    "watching": (1.2, 14),
    "wire": (16.9, 114),
}

#: Seconds for areas that do not exist yet.
TO_COME: dict[str, float] = {
    "browser": 0,
    "groups": 15,
    "groups_faces": 6,
    "groups_model": 6,
    "groups_promises": 16,
}

#: Seconds that an area may take in a plain run. Four workers have 1,200 seconds in five minutes.
BUDGET: dict[str, float] = {
    **{area: 1.1 * seconds + 0.5 for area, (seconds, _) in MEASURED.items()},
    **TO_COME,
}

_thorough = False

#: Seconds that collecting the tests and starting the servers takes.
START = 15.0


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("redset")
    group.addoption("--all", action="store_true", help="run every case, and the tests marked slow")
    group.addoption("--rest", action="store_true", help="run the cases that a plain run leaves out")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--all") and config.getoption("--rest"):
        raise pytest.UsageError("--all and --rest exclude each other")
    global _thorough
    _thorough = config.getoption("--all") or config.getoption("--rest")
    config.pluginmanager.register(Selection(config), "redset-selection")


def share(examples: int) -> int:
    """Return how many of these examples the current run draws. Mark the test ``drawn``."""
    return examples if _thorough else max(examples // 5, min(examples, LEAST))


def drawn(examples: int, **options: Any) -> Callable[[Test], Test]:
    """Decorate a property test: so many examples in a thorough run, a fifth in a plain one.

    Args:
        examples: Number of examples, hypothesis' ``max_examples``.
        options: More settings of hypothesis.
    """
    options = {"deadline": None, "derandomize": not _thorough, **options}

    def decorate(test: Test) -> Test:
        test = hypothesis.settings(max_examples=share(examples), **options)(test)
        return pytest.mark.drawn(test) if examples > LEAST else test

    return decorate


def choose(
    name: str, cases: Sequence[dict[str, Any]], unable: Container[int] = frozenset()
) -> list[int]:
    """Return the positions of the cases of one function that a plain run keeps, in order.

    Args:
        name: The function's node id, without its parameters.
        cases: The parameters of each case.
        unable: Positions of the cases that this machine cannot run. They are kept only if it can
            run none.
    """
    able = [place for place in range(len(cases)) if place not in unable]
    places = able or list(range(len(cases)))
    if len(places) < 2:
        return places
    turn = zlib.crc32(name.encode())
    order = sorted(places, key=lambda place: zlib.crc32(b"%d %d" % (place, turn)))
    values = [_values(parameters) for parameters in cases]
    rows = [parameters.get("case") for parameters in cases]
    missing = set().union(*(values[place] for place in places))
    least = min(ROWS, len({rows[place] for place in places} - {None}))
    met: set[Any] = set()
    chosen = []
    while missing or len(met) < least:
        best = max(order, key=lambda place: (len(values[place] & missing), rows[place] not in met))
        order.remove(best)
        chosen.append(best)
        missing -= values[best]
        met |= {rows[best]} - {None}
    return sorted(chosen)


def reasons(parameters: dict[str, Any], absent: Mapping[str, str]) -> list[str]:
    """Return why a case with these parameters cannot run: each of its names that is absent.

    Args:
        parameters: The parameters of the case.
        absent: The result of `servers.absent`.
    """
    names = [value for value in parameters.values() if type(value) is str]
    names += parameters.get("case", ())
    return list(dict.fromkeys(absent[name] for name in names if name in absent))


def _values(parameters: dict[str, Any]) -> set[Hashable]:
    """Return the parts of a case: each of its parameters, and of its row each part."""
    met: set[Hashable] = set()
    for name, value in parameters.items():
        if name == "case":
            implementation, server, client = value
            met |= {
                ("implementation", implementation),
                ("server", server),
                ("face", client.startswith("asyncio")),
            }
        else:
            # The cases of one product share their values; some have no useful equality.
            met.add((name, id(value)))
    return met


class Selection:
    """The choice of one run: deselects the other cases, and reports at the start and the end."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._counts: dict[str, Any] | None = None
        self._spent: dict[str, float] = collections.defaultdict(float)
        self._cases: dict[str, set[str]] = collections.defaultdict(set)
        # Workers of xdist collect; their controller prints. One of them leaves the counts here.
        self._file: Path | None = None
        self._absent = servers.absent()
        #: Why this machine cannot run a case, by the item's id().
        self._unable: dict[int, list[str]] = {}
        #: The id() of each item that coverage does not look at.
        self._repeats: set[int] = set()

    # After -k and -m, so that the choice is made among their cases.
    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        everything = list(items)
        self._unable = {id(item): found for item in everything if (found := self._why_unable(item))}
        kept = self._kept(everything)
        if len(kept) < len(everything):
            marked = set(map(id, kept))
            dropped = [item for item in everything if id(item) not in marked]
            self._config.hook.pytest_deselected(items=dropped)
            items[:] = kept
        left_out = collections.Counter(itertools.chain(*self._unable.values()))
        self._counts = {
            "chosen": len(kept),
            "all": len(everything),
            "unable": len(self._unable),
            "left_out": dict(left_out),
            "seconds": expected_seconds(item for item in kept if id(item) not in self._unable),
        }
        path = getattr(self._config, "workerinput", {}).get("selection")
        if path:
            part = Path(f"{path}.{os.getpid()}")
            part.write_text(json.dumps(self._counts))
            part.replace(path)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        with unmeasured() if id(item) in self._repeats else contextlib.nullcontext():
            return (yield)

    def _kept(self, items: list[pytest.Item]) -> list[pytest.Item]:
        if self._config.getoption("lf", False) and self._config.cache.get("cache/lastfailed", {}):
            return items  # what failed before, which pytest has chosen
        everything, rest = map(self._config.getoption, ("--all", "--rest"))
        plain, more = self._chosen(items)
        if not everything and not rest:
            return [item for item in items if id(item) in plain]
        self._repeats = {id(item) for item in items} - plain - more
        if everything:
            return items
        return [item for item in items if id(item) not in plain or is_drawn(item)]

    def _chosen(self, items: list[pytest.Item]) -> tuple[set[int], set[int]]:
        """Return the id() of each case of a plain run, and of those that are measured besides."""
        functions: dict[str, list[pytest.Item]] = {}
        for item in items:
            functions.setdefault(item.nodeid.split("[")[0], []).append(item)
        # A test that the command line names is run, whatever it takes.
        named = {arg.split("/")[-1] for arg in self._config.args if "::" in arg}
        plain: set[int] = set()
        more: set[int] = set()
        thorough = self._config.getoption("--all") or self._config.getoption("--rest")
        for name, cases in functions.items():
            if any(arg.startswith(name.split("/")[-1] + "[") for arg in named):
                plain |= set(map(id, cases))
                continue
            if name.split("/")[-1] in named:
                plain |= self._choice(name, cases)
                continue
            quick = [item for item in cases if not is_slow(item)]
            plain |= self._choice(name, quick)
            if thorough:
                for time in ("once more", "a third time"):
                    more |= self._choice(f"{name} {time}", quick)
                more |= self._choice(name, [item for item in cases if is_slow(item)])
        if not plain:  # only slow tests fit: -k names them
            plain = set(map(id, items))
        return plain, more

    def _choice(self, name: str, cases: list[pytest.Item]) -> set[int]:
        unable = {place for place, item in enumerate(cases) if id(item) in self._unable}
        places = choose(name, [_parameters(item) for item in cases], unable)
        return {id(cases[place]) for place in places}

    def _why_unable(self, item: pytest.Item) -> list[str]:
        """Return why this machine cannot run a case; an empty list if it can."""
        found = reasons(_parameters(item), self._absent)
        for mark in item.iter_markers("skipif"):
            if any(condition and not isinstance(condition, str) for condition in mark.args):
                found.append(mark.kwargs.get("reason", "skipif"))
        return found

    # --- printed text

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        if self._file is None:
            handle, path = tempfile.mkstemp(prefix="redset-selection-")
            os.close(handle)
            self._file = Path(path)
        node.workerinput["selection"] = str(self._file)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        if self._file is not None and self._counts is None:
            self._counts = json.loads(self._file.read_text())
            self._announce()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if not hasattr(self._config, "workerinput") and not self._config.option.collectonly:
            self._announce()

    def _announce(self) -> None:
        counts, reporter = self._counts, self._reporter()
        if reporter is None or not counts:
            return
        workers = getattr(self._config.option, "numprocesses", None) or 1
        seconds = counts["seconds"] / workers + START
        text = f"{counts['chosen']:,} of {counts['all']:,} cases"
        if counts["unable"]:
            text += f" ({counts['unable']:,} cannot run on this machine)"
        if not self._config.getoption("--all"):
            text += "; `make test-all` runs every one"
        took = f"{seconds / 60:.0f} minutes" if seconds > 90 else f"{seconds:.0f} seconds"
        reporter.ensure_newline()
        reporter.write_line(f"{text}. About {took} on two idle cores.")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        area = _area(report.nodeid)
        self._spent[area] += report.duration
        self._cases[area].add(report.nodeid)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        self._name_the_missing(terminalreporter)
        if len(self._cases) < 2:
            return
        whole = not self._config.getoption("--all") and not self._config.getoption("--rest")
        terminalreporter.section("seconds of each area", sep="-")
        for area, spent in sorted(self._spent.items(), key=lambda pair: -pair[1]):
            line = f"{spent:8.1f}  {area} ({len(self._cases[area]):,} cases)"
            if whole and spent > BUDGET.get(area, spent):
                line += f": more than its budget of {BUDGET[area]:.0f}"
            terminalreporter.write_line(line)
        terminalreporter.write_line(f"{sum(self._spent.values()):8.1f}  in all")

    def _name_the_missing(self, reporter: Any) -> None:
        left_out = (self._counts or {}).get("left_out")
        if left_out:
            reporter.section("not on this machine", sep="-")
            for reason, cases in sorted(left_out.items(), key=lambda pair: -pair[1]):
                reporter.write_line(f"{cases:8,} cases  {reason}")

    def pytest_unconfigure(self) -> None:
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def _reporter(self) -> Any:
        return self._config.pluginmanager.get_plugin("terminalreporter")


@contextlib.contextmanager
def unmeasured() -> Iterator[None]:
    """Keep coverage from this code and from the children that it starts.

    A core of coverage that has no trace function costs little, and goes on.
    """
    tracer, of_threads = sys.gettrace(), threading.gettrace()
    # One of its tracers is an object, the other a method of one.
    if not type(getattr(tracer, "__self__", tracer)).__module__.startswith("coverage"):
        yield
        return
    config = os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]
    try:
        yield
    finally:
        sys.settrace(tracer)
        threading.settrace(of_threads)  # type: ignore[arg-type]
        if config is not None:
            os.environ["COVERAGE_PROCESS_CONFIG"] = config


def is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


def is_drawn(item: pytest.Item) -> bool:
    """Return whether a thorough run draws more examples than a plain one."""
    return item.get_closest_marker("drawn") is not None


def expected_seconds(items: Iterable[pytest.Item]) -> float:
    """Return about how many seconds these cases take, one after another."""
    total = 0.0
    for item in items:
        mark = item.get_closest_marker("slow")
        seconds, cases = MEASURED.get(_area(item.nodeid), (0.1, 1))
        total += mark.args[0] if mark is not None else seconds / cases
    return total


def _parameters(item: pytest.Item) -> dict[str, Any]:
    callspec = getattr(item, "callspec", None)
    return dict(callspec.params) if callspec is not None else {}


def _area(nodeid: str) -> str:
    return Path(nodeid.split("::")[0]).stem.removeprefix("test_")
