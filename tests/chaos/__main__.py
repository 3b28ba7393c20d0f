"""``python -m chaos [walk|soak|figures|SCENARIO ...]``: see the package."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter

import servers

from chaos import figures, soak, walk
from chaos.scenarios import SCENARIOS, perform

#: Steps of a full walk, over all servers.
STEPS = 1_000_000


def present(kinds: list[str]) -> list[str]:
    """Return the installed ones of these servers; print the missing ones."""
    found = []
    for kind in kinds:
        try:
            servers.BINARIES[kind]()
        except servers.Missing as missing:
            print(missing, flush=True)
        else:
            found.append(kind)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument(
        "what",
        nargs="*",
        help=f"walk, soak, figures, {', '.join(SCENARIOS)}; all but the soak and the figures if "
        "none is named",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--servers", default=",".join(servers.REAL), help="one or more, by commas")
    parser.add_argument(
        "--rounds", type=int, default=2, help="how often each scenario, each server"
    )
    parser.add_argument("--faults", type=int, help="of each scenario; a full run if not given")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the walk, in all")
    parser.add_argument("--items", type=int, default=60_000, help="of the figures of each fault")
    parser.add_argument("--only", default="", help="figures of faults whose name has this text")
    parser.add_argument("--minutes", type=float, default=10, help="of the soak")
    options = parser.parse_args()
    kinds = present(options.servers.split(","))
    names = options.what or ["walk", *SCENARIOS]
    started, failed = time.monotonic(), 0
    total: Counter[str] = Counter()
    for name in names:
        if name == "walk":
            failed += _walk(kinds, options.seed, options.steps, total)
        elif name == "figures":
            figures.show(kinds, options.items, options.only)
        elif name == "soak":
            soaked = soak.soak(kinds[0], options.minutes * 60, options.seed)
            print(soaked, flush=True)
            failed += bool(soaked.grown)
        else:
            only = SCENARIOS[name].only
            here = [kind for kind in kinds if only in ("", kind)]
            for number in range(options.rounds * len(here)):
                kind, seed = here[number % len(here)], options.seed + number
                failed += _scenario(name, kind, seed, options.faults, total)
    summed = ", ".join(f"{num} {what}" for what, num in total.items())
    print(f"in {time.monotonic() - started:.0f} s: {summed}; {failed} failures")
    return 1 if failed else 0


def _walk(kinds: list[str], seed: int, steps: int, total: Counter[str]) -> int:
    failed = 0
    for place, kind in enumerate(kinds):
        began = time.monotonic()
        with servers.start(kind) as server:
            # Other seeds on each of them.
            own = seed + place * steps
            done, _, failure = walk.run(server, own, -(-steps // len(kinds)))
        total["steps"] += done
        took = time.monotonic() - began
        print(
            failure or f"walk: {kind}, seeds from {own}: {done} steps in {took:.0f} s", flush=True
        )
        failed += failure is not None
    return failed


def _scenario(name: str, kind: str, seed: int, faults: int | None, total: Counter[str]) -> int:
    try:
        outcome = perform(name, kind, seed, faults or SCENARIOS[name].many)
    except Exception:
        traceback.print_exc()
        print(f"{name}: {kind}, seed {seed} failed", flush=True)
        return 1
    print(outcome, flush=True)
    total["operations"] += outcome.operations
    total["faults"] += sum(outcome.faults.values())
    total["kills"] += outcome.faults["kills"]
    total["lost"] += len(outcome.findings.lost)
    total["doubled"] += len(outcome.findings.doubled)
    total["wrong"] += len(outcome.findings.wrong)
    return int(outcome.failed)


if __name__ == "__main__":
    sys.exit(main())
