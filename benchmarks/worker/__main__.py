"""Runs one contender's tasks in the Python of its environment, by orders on the standard input.

One JSON object a line comes in, one goes out. It is run as a directory (``python worker``), so
that nothing of the tree around it can be imported by accident: one of the contenders is another
version of redset.
"""

from __future__ import annotations

import cProfile
import gc
import importlib
import importlib.metadata
import json
import os
import platform
import pstats
import sys
import time
import traceback
from typing import Any

from job import Job, Run


class Worker:
    run: Run

    def prepare(self, module: str, task: str, **job: Any) -> dict[str, Any]:
        """Make the data of the task. A missing package is not an error; it is reported."""
        try:
            self.run = getattr(importlib.import_module(module), task)(Job(**job))
        except ImportError as error:
            return {"missing": str(error)}
        # Finished data is not to be searched for garbage while a clock runs.
        gc.collect()
        gc.freeze()
        return {}

    def measure(self) -> dict[str, Any]:
        gc.collect()
        began, used = time.perf_counter(), time.process_time()
        done = self.run()
        cpu, ended = time.process_time() - used, time.perf_counter()
        count, more = done if isinstance(done, tuple) else (done, {})
        samples = {"wall": ended - began, "cpu": cpu, **more}
        return {"count": count, "samples": samples, "began": began, "ended": ended}

    def profile(self, rows: int = 12) -> dict[str, Any]:
        """Return the profile of one run: the functions' own times, largest first."""
        profiler = cProfile.Profile()
        profiler.runcall(self.run)
        stats: Any = pstats.Stats(profiler)
        found = sorted(stats.stats.items(), key=lambda each: -each[1][2])[:rows]
        return {
            "rows": [
                {"function": _named(where), "calls": calls, "own": own, "with_callees": total}
                for where, (_, calls, own, total, _) in found
            ]
        }

    def versions(self, packages: list[str]) -> dict[str, Any]:
        found = {}
        for name in packages:
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        return {"python": platform.python_version(), "packages": found}


def _named(where: tuple[str, int, str]) -> str:
    file, line, function = where
    return function if file == "~" else f"{os.path.basename(file)}:{line} {function}"


def main() -> None:
    worker = Worker()
    # Other output goes to stderr.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = getattr(worker, asked.pop("do"))(**asked)
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


main()
