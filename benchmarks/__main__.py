"""Runs the benchmarks: ``python -m benchmarks [--quick] [--measure NAME ...]``.

A full run writes benchmarks/results/full.json, full.md and the plots of the documentation; a quick
one, of reduced sizes, benchmarks/results/quick.json, quick.md and plots under .bench; one of some
measures only writes everything under .bench.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import redis

from benchmarks import machine, peers, report
from benchmarks.contest import DELAYED, Bench
from benchmarks.measures import MEASURES, versions
from benchmarks.results import Result
from tests import servers

TREE = Path(__file__).resolve().parent.parent
RESULTS = TREE / "benchmarks" / "results"


def main() -> int:
    options = _options()
    began = time.monotonic()
    run: dict[str, Any] = {
        "quick": options.quick,
        "rounds": options.rounds,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "versions": versions(),
        "failed": {},
    }
    bench = Bench(options.server, quick=options.quick, rounds=options.rounds)
    results: list[Result] = []
    try:
        run["placement"] = bench.placement.described()
        run["direct_ms"] = _round_trip(bench.server.port)
        run["delayed_ms"] = _round_trip(bench.address(DELAYED)["port"])
        run["noise"] = {"before": _noise(bench)}
        for name in options.measure or MEASURES:
            start = time.monotonic()
            try:
                results.extend(MEASURES[name](bench))  # one by one: the first stay if a later fails
            except Exception as error:  # an hour's other results are not to be lost for it
                traceback.print_exc()
                run["failed"][name] = f"{type(error).__name__}: {error}"
            print(f"{name}: {time.monotonic() - start:.1f} s", file=sys.stderr)
        run["noise"]["after"] = _noise(bench)
    finally:
        bench.close()
    run["seconds"] = time.monotonic() - began
    report.write(results, run, options.output)
    print(options.output.with_suffix(".md").read_text())
    _draw(results, run, options.plots)
    return 1 if run["failed"] else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="reduced sizes, under 3 minutes")
    parser.add_argument("--measure", action="append", choices=MEASURES, help="only this; repeat")
    parser.add_argument("--rounds", type=int, default=5, help="at least 5 for a result (5)")
    parser.add_argument("--server", choices=servers.REAL, help="for the comparisons")
    parser.add_argument("--output", type=Path, help="where to write, without an ending")
    parser.add_argument("--plots", type=Path, help="the directory of the plots")
    options = parser.parse_args()
    options.server = options.server or _default_server()
    # The documentation shows one whole run.
    partial = options.quick or options.measure or options.rounds < 5
    if options.output is None:
        options.output = (
            peers.ENVIRONMENTS / "some"
            if options.measure
            else RESULTS / ("quick" if partial else "full")
        )
    if options.plots is None:
        options.plots = peers.ENVIRONMENTS / "plots" if partial else TREE / "docs" / "plots"
    return options


def _default_server() -> str:
    for kind in ("redis7", "valkey9", "redis62"):
        try:
            servers.BINARIES[kind]()
        except servers.Missing as missing:
            print(missing, file=sys.stderr)
        else:
            return kind
    raise SystemExit("There is no server to measure with.")


def _round_trip(port: int) -> float:
    """The median of a PING's round trips over TCP, in milliseconds."""
    took = []
    with redis.Redis(host="127.0.0.1", port=port) as client:
        for _ in range(200):
            before = time.perf_counter()
            client.ping()
            took.append((time.perf_counter() - before) * 1e3)
    return statistics.median(took)


def _noise(bench: Bench) -> dict[str, Any]:
    with machine.pinned(bench.placement.producers):
        return machine.noise()


def _draw(results: list[Result], run: dict[str, Any], directory: Path) -> None:
    try:
        from benchmarks import plots
    except ImportError as error:
        print(f"no plots: {error}", file=sys.stderr)
        return
    for file in plots.draw({**run, "measures": [each.as_json() for each in results]}, directory):
        print(file, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
