"""``python -m mutants [--check | --control] [NAME ...]``: see the package."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from mutants.catalogue import MUTANTS
from mutants.places import TREE, Inapplicable, Mutant, find
from mutants.runs import Options, Outcome, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="the mutants to try; all if none is named")
    parser.add_argument(
        "--check", action="store_true", help="run nothing; say which mutants no longer apply"
    )
    parser.add_argument(
        "--control",
        action="store_true",
        help="run the tests on the code as it is, for the first mutant of each file",
    )
    parser.add_argument("--all", action="store_true", help="give --all to pytest")
    parser.add_argument("--quick", action="store_true", help="run only the tests a mutant names")
    parser.add_argument("--workers", type=int, default=2, help="processes that run tests")
    parser.add_argument("--output", type=Path, help="write the table to this file as well")
    options = parser.parse_args()
    by_name = {mutant.name: mutant for mutant in MUTANTS}
    if unknown := [name for name in options.names if name not in by_name]:
        parser.error(f"no mutant is called {', '.join(unknown)}")
    chosen = [by_name[name] for name in options.names] or list(MUTANTS)
    problems = check(chosen)
    if problems or options.check:
        return 1 if problems else 0
    if options.control:
        chosen = list({mutant.file: mutant for mutant in reversed(chosen)}.values())[::-1]
    how = Options(options.workers, options.all, options.quick)
    outcomes = []
    for mutant in chosen:
        outcome = run(mutant, how, options.control)
        outcomes.append(outcome)
        verdict = f"{outcome.verdict} {outcome.detail}".strip()
        print(
            f"{outcome.mutant.name:<44} {outcome.file:<36} {verdict} ({outcome.seconds:.0f} s)",
            flush=True,
        )
    verdicts = Counter(outcome.verdict for outcome in outcomes)
    counted = ", ".join(f"{num} {verdict}" for verdict, num in verdicts.items())
    if options.control:
        # The code as it is must pass.
        print(counted)
        return 1 if set(verdicts) - {"passed", "skipped"} else 0
    text = table(outcomes)
    print(f"\n{text}\n{counted}")
    if options.output:
        options.output.write_text(text, "utf-8")
    return 1 if set(verdicts) - {"killed", "skipped"} else 0


def check(mutants: Iterable[Mutant], tree: Path = TREE) -> list[str]:
    """Print the mutants that moved, and return why others no longer apply."""
    problems = []
    for mutant in mutants:
        try:
            place = find(mutant, tree)
        except Inapplicable as reason:
            problems.append(str(reason))
            continue
        if place.moved:
            print(f"{mutant.name}: moved from {mutant.file} to {place.file}")
        for test in mutant.tests:
            file, _, function = test.partition("::")
            path = tree / "tests" / file
            if not path.is_file() or f"def {function}" not in path.read_text("utf-8"):
                problems.append(f"{mutant.name}: there is no test {test}")
    for problem in problems:
        print(problem, file=sys.stderr)
    return problems


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as a Markdown table."""
    lines = ["| mutant | file | what it breaks | killed by |", "|---|---|---|---|"]
    for outcome in outcomes:
        test = outcome.detail.partition("[")[0].replace(".py::", ": ")
        verdict = f"`{test}`" if outcome.verdict == "killed" else f"**{outcome.verdict}**"
        file = outcome.file.removeprefix("redset/")
        lines.append(f"| {outcome.mutant.name} | `{file}` | {outcome.mutant.breaks} | {verdict} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
