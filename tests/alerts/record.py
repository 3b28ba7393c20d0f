"""Records what Prometheus would scrape of a crawl: ``python -m alerts.record`` in ``tests``.

The crawl is real and takes half an hour. Some pages never load. Its only worker is killed after
three minutes, another one begins after 21 minutes, and the server ends after 25. The recording is
in the notation of ``promtool test rules``; its times begin at 0.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import redis

from redset import TimeSortedSet, embedded
from redset.prometheus import Collector

RECORDING = Path(__file__).with_name("crawl.json")
#: Seconds between two scrapes, and the times of events, in seconds.
EVERY = 15
KILLED, REPLACED, DOWN, END = 180, 1260, 1500, 1740
PAGES = 5000


def crawl(client: Any) -> TimeSortedSet[str]:
    return TimeSortedSet(client, "crawl", remember=True, max_attempts=2)


def work(path: str) -> None:
    """Fetch pages: each has the links to two others, and one of 40 never loads."""

    def fetch(url: str) -> list[str]:
        number = int(url.rpartition("/")[2])
        time.sleep(0.25)
        if number % 40 == 39:
            raise ConnectionError("no answer")
        return [f"/{each}" for each in (2 * number + 1, 2 * number + 2) if each < PAGES]

    crawl(redis.Redis(unix_socket_path=path)).consume(fetch, ttl=30)


def notation(values: list[float | None]) -> str:
    """Return values as promtool has them: equal ones as ``5x9``, ``_`` for none.

    The first one that is missing is ``stale``, since Prometheus notices that a scrape lacks it.
    """
    parts: list[list[Any]] = []
    for before, value in zip([None, *values], values, strict=False):
        if value is None and before is not None:
            parts.append(["stale", 1])
        elif parts and parts[-1][0] == value:
            parts[-1][1] += 1
        else:
            parts.append([value, 1])
    texts = []
    for value, times in parts:
        text = {None: "_", "stale": "stale"}.get(value) or f"{value:.10g}"
        if times > 1:  # of a value: so many more; of none: so many
            text += f"x{times if value is None else times - 1}"
        texts.append(text)
    return " ".join(texts)


def started(path: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "alerts.record", path])


def record() -> None:
    """Run the crawl and write the recording."""
    rows: list[dict[str, float]] = []
    with embedded.server(maxmemory_policy="allkeys-lru") as client:
        path = client.connection_pool.connection_kwargs["path"]
        collector = Collector(client, "crawl", memory=True)
        with crawl(client) as queue:
            queue.add_many(["/0"])
        began = time.time()
        worker = started(path)
        try:
            for at in range(0, END, EVERY):
                time.sleep(max(0.0, began + at - time.time()))
                if at == KILLED:
                    worker.kill()
                if at == REPLACED:
                    worker = started(path)
                if at == DOWN:
                    worker.send_signal(signal.SIGKILL)
                    client.shutdown(nosave=True)
                row = {}
                for family in collector.collect():
                    for sample in family.samples:
                        value = float(sample.value)
                        if "timestamp" in sample.name and value:
                            value -= began
                        row[sample.name] = round(value, 3)
                rows.append(row)
                print(at, row.get("redset_queued_items"), flush=True)
        finally:
            worker.kill()
    names = sorted({name for row in rows for name in row})
    series = {name: notation([row.get(name) for row in rows]) for name in names}
    text = json.dumps({"interval": EVERY, "series": series}, indent=1)
    RECORDING.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        work(sys.argv[1])
    else:
        record()
