"""``python -m fuzz [FUZZER ...] [--count N] [--seed N] [--first N]``: see the package.

A fuzzer is one of inputs, leaks, replies and restore.
"""

from __future__ import annotations

import argparse
import sys

from fuzz import inputs, leaks, replies, restore

#: The counts of a full run.
FUZZERS = {
    "inputs": (inputs.run, 1_000_000),
    "leaks": (leaks.run, 20_000),
    "replies": (replies.run, 100_000),
    "restore": (restore.run, 5_000),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument(
        "fuzzers", nargs="*", help="inputs, leaks, replies, restore; all of them if none is named"
    )
    parser.add_argument("--count", type=int, help="how many cases each; a full run if not given")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the first case, to see one again")
    options = parser.parse_args()
    failed = 0
    for name in options.fuzzers or FUZZERS:
        run, count = FUZZERS[name]
        report = run(options.count or count, options.seed, options.first)
        print(report, flush=True)
        failed += report.failed
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
