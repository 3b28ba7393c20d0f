"""Whole crawls of the demo's site by Scrapy: ``python -m benchmarks.scrapy_crawls --rounds 5``.

One process crawls 526 pages with 18,000 hyperlinks, with redset.scrapy, with scrapy-redis and with
plain Scrapy in turns. It needs an environment that has Scrapy and scrapy-redis, and a server.
Ratios are of the same round; the table has their medians and ranges.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONTENDERS: dict[str, dict[str, Any]] = {
    "redset": {},
    "scrapy-redis": {
        "SCHEDULER": "scrapy_redis.scheduler.Scheduler",
        "DUPEFILTER_CLASS": "scrapy_redis.dupefilter.RFPDupeFilter",
        "SCHEDULER_PERSIST": True,
    },
    "plain Scrapy": {"SCHEDULER": "scrapy.core.scheduler.Scheduler"},
}
#: More pages than the site has.
ALL = 1000


def crawled(server: Any, settings: dict[str, Any]) -> dict[str, float]:
    """The figures of one crawl."""
    from test_scrapy_crawls import Crawls

    server.flush()
    with (
        tempfile.TemporaryDirectory() as directory,
        Crawls(server.url, Path(directory), size=ALL) as crawls,
    ):
        (stats,) = crawls.run(REDIS_URL=server.url, **settings)
        crawls.assert_each_once()
    pages = len(crawls.expected)
    return {
        "cpu": 1e3 * float(stats["cpu"]) / pages,
        "commands": int(stats.get("redset/commands", 0)) / pages,
        "trips": int(stats.get("redset/round_trips", 0)) / pages,
    }


def rounds(num: int) -> list[dict[str, dict[str, float]]]:
    """Let the contenders run in turns."""
    import servers

    found = []
    kinds = list(CONTENDERS)
    with servers.start(servers.some()) as server:
        for number in range(num):
            at = number % len(kinds)
            order = kinds[at:] + kinds[:at]
            found.append({kind: crawled(server, CONTENDERS[kind]) for kind in order})
    return found


def told(found: list[dict[str, dict[str, float]]]) -> Iterator[str]:
    """Lines of a table of ratios and of figures."""
    yield "| | median | range |"
    yield "|---|---|---|"
    for kind in ("redset", "scrapy-redis"):
        ratios = [each[kind]["cpu"] / each["plain Scrapy"]["cpu"] for each in found]
        yield _row(f"CPU of the crawl, {kind} / plain Scrapy", ratios)
    for kind in CONTENDERS:
        yield _row(f"{kind}: CPU, ms a page", [each[kind]["cpu"] for each in found])
    for name, text in (("commands", "commands a page"), ("trips", "round trips a page")):
        yield _row(f"redset: {text}", [each["redset"][name] for each in found])


def _row(title: str, values: list[float]) -> str:
    middle = statistics.median(values)
    return f"| {title} | {middle:.2f} | {min(values):.2f} to {max(values):.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    # The crawls are those of the tests, whose modules find one another by their names.
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    print("\n".join(told(rounds(options.rounds))))


if __name__ == "__main__":
    main()
