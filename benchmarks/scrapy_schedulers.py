"""Schedulers for Scrapy, alone: ``python -m benchmarks.scrapy_schedulers --rounds 5``.

It compares redset.scrapy with scrapy-redis and with Scrapy's own disk queues. Each contender runs
in a process of its own, in turns: so many new requests, the same again, all dequeued and
acknowledged. It needs an environment that has Scrapy and scrapy-redis, and a server. Ratios are of
the same round; the table has their medians and ranges. With ``--delay 0.001`` the server is reached
over TCP through a proxy that adds so many seconds to each direction.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

CONTENDERS = ("redset", "scrapy-redis", "disk")
#: Requests in progress at a time.
WINDOW = 16
SCHEDULERS = {
    "redset": "redset.scrapy.Scheduler",
    "scrapy-redis": "scrapy_redis.scheduler.Scheduler",
    "disk": "scrapy.core.scheduler.Scheduler",
}


# --- a contender, in a process of its own


def crawler_of(kind: str, url: str, prefetch: int) -> Any:
    """A crawler that is not crawling."""
    import scrapy
    from scrapy.utils.test import get_crawler

    class Bench(scrapy.Spider):
        name = "bench"

        def parse(self, response: Any) -> None:
            pass

        def failed(self, failure: Any) -> None:
            pass

    settings: dict[str, Any] = {
        "REDSET_URL": url,
        "REDIS_URL": url,
        "REDSET_PREFETCH": prefetch,
        "REDSET_REQUEST_CLASSES": ["scrapy.*"],
    }
    if kind == "disk":
        settings["JOBDIR"] = tempfile.mkdtemp()
        settings["SCHEDULER_PRIORITY_QUEUE"] = "scrapy.pqueues.ScrapyPriorityQueue"
    if kind == "scrapy-redis":
        settings["DUPEFILTER_CLASS"] = "scrapy_redis.dupefilter.RFPDupeFilter"
        settings["SCHEDULER_PERSIST"] = True
    crawler = get_crawler(Bench, settings)
    crawler.spider = crawler._create_spider()
    return crawler


def requests(spider: Any, num: int) -> list[Any]:
    import scrapy

    return [
        scrapy.Request(
            f"http://site{number % 7}.example/path/{number}/page.html?x={number}",
            callback=spider.parse,
            errback=spider.failed,
            meta={"depth": 3, "link_text": "abc"},
            headers={"Referer": "http://site.example/"},
        )
        for number in range(num)
    ]


class Counters:
    """Wall, CPU of the process and of its main thread, and what the server counts."""

    def __init__(self, client: Any) -> None:
        self._client = client
        info = client.info("all") if client else {}
        self.values = {
            "wall": time.perf_counter(),
            "cpu": time.process_time(),
            "thread": time.thread_time(),
            "server": info.get("used_cpu_user", 0) + info.get("used_cpu_sys", 0),
        }

    def since(self) -> dict[str, float]:
        now = Counters(self._client).values
        return {name: now[name] - value for name, value in self.values.items()}


async def measured(scheduler: Any, crawler: Any, num: int, client: Any) -> dict[str, Any]:
    """New requests, the same again, all dequeued and acknowledged: seconds of each kind."""
    opened = scheduler.open(crawler.spider)
    if opened is not None:
        await opened.asFuture(asyncio.get_running_loop())
    new, again = requests(crawler.spider, num), requests(crawler.spider, num)
    coordinator = getattr(scheduler, "_coordinator", None)
    in_progress = crawler.engine._slot.inprogress
    # A contender's garbage collections leave out the objects of this program.
    gc.collect()
    gc.freeze()
    whole = Counters(client)
    for batch in (new, again):
        for place, request in enumerate(batch):
            scheduler.enqueue_request(request)
            if place % 200 == 199:
                await asyncio.sleep(0)
        while batch is new and coordinator is not None and coordinator.pending():
            await asyncio.sleep(0.001)
    window: deque[Any] = deque()
    got, longest = 0, 0.0
    while got < num:
        began = time.thread_time()
        request = scheduler.next_request()
        longest = max(longest, time.thread_time() - began)
        if request is not None:
            got += 1
            in_progress.add(request)
            window.append(request)
        if window and (request is None or len(window) > WINDOW):
            in_progress.remove(window.popleft())
        if request is None:
            await asyncio.sleep(0.0005)
    while window:
        in_progress.remove(window.popleft())
    closed = scheduler.close("finished")
    if closed is not None:
        await closed.asFuture(asyncio.get_running_loop())
    found = whole.since()
    found["longest"] = longest
    if coordinator is not None:
        found["commands"] = coordinator.tally["redset/commands"] / num
        assert coordinator.tally["redset/acked"] == num
    return found


def contend(kind: str, url: str, num: int, prefetch: int, admin: str) -> dict[str, Any]:
    """Run one contender."""
    import redis
    from scrapy.utils.misc import load_object
    from scrapy.utils.reactor import install_reactor

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    install_reactor("twisted.internet.asyncioreactor.AsyncioSelectorReactor")
    crawler = crawler_of(kind, url, prefetch)
    scheduler = load_object(SCHEDULERS[kind]).from_crawler(crawler)
    slot = SimpleNamespace(
        inprogress=set(),
        scheduler=scheduler,
        closing=None,
        nextcall=SimpleNamespace(schedule=lambda: None),
    )
    downloader = SimpleNamespace(slots={})
    stand_in = SimpleNamespace(_slot=slot, running=True, downloader=downloader)
    type(crawler).engine = stand_in  # a property in newer releases
    loop = asyncio.new_event_loop() if kind == "disk" else asyncio.get_event_loop()
    client = redis.Redis.from_url(admin)
    found = loop.run_until_complete(measured(scheduler, crawler, num, client))
    return {name: 1e6 * value / num if name in UNITS else value for name, value in found.items()}


#: Figures in microseconds per request.
UNITS = ("wall", "cpu", "thread", "server")


# --- the contest


@contextlib.contextmanager
def place(delay: float) -> Iterator[tuple[str, str]]:
    """A server: its URL for contenders, perhaps far away, and for the counts."""
    from benchmarks import proxy
    from tests import servers

    with servers.start(servers.some()) as server:
        if not delay:
            yield server.url, server.url
            return
        command = [sys.executable, proxy.__file__, "127.0.0.1", str(server.port), str(delay)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as far:
            assert far.stdin is not None and far.stdout is not None
            port = int(far.stdout.readline())
            try:
                yield f"redis://127.0.0.1:{port}", server.url
            finally:
                far.stdin.close()


def rounds(options: argparse.Namespace) -> list[dict[str, dict[str, float]]]:
    """Let the contenders run in turns."""
    import redis

    found = []
    contenders = [kind for kind in CONTENDERS if not (options.delay and kind == "disk")]
    with place(options.delay) as (url, admin):
        for number in range(options.rounds):
            results = {}
            for kind in (
                contenders[number % len(contenders) :] + contenders[: number % len(contenders)]
            ):
                redis.Redis.from_url(admin).flushall()
                given = [kind, url, str(options.requests), str(options.prefetch), admin]
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.scrapy_schedulers",
                    "--contend",
                    *given,
                ]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                results[kind] = json.loads(done.stdout.splitlines()[-1])
            found.append(results)
    return found


def told(found: list[dict[str, dict[str, float]]]) -> Iterator[str]:
    """Lines of a table of ratios and of figures."""
    yield "| | median | range |"
    yield "|---|---|---|"
    ratios = [
        ("CPU of the process", "cpu", "scrapy-redis"),
        ("CPU of the reactor's thread", "thread", "scrapy-redis"),
        ("wall", "wall", "scrapy-redis"),
        ("server's CPU", "server", "scrapy-redis"),
        ("CPU of the process", "cpu", "disk"),
    ]
    for title, name, other in ratios:
        if other not in found[0]:
            continue
        values = [each[other][name] / each["redset"][name] for each in found]
        yield f"| {title}, {other} / redset | {statistics.median(values):.2f} | {_range(values)} |"
    for name, unit in (("cpu", "µs"), ("thread", "µs"), ("wall", "µs"), ("server", "µs")):
        for kind in found[0]:
            values = [each[kind][name] for each in found]
            yield f"| {kind}: {name}, {unit} a request {_told(values)}"
    values = [each["redset"]["commands"] for each in found]
    yield f"| redset: commands a request | {statistics.median(values):.3f} | {_range(values)} |"
    for kind in found[0]:
        values = [1000 * each[kind]["longest"] for each in found]
        yield f"| {kind}: longest next_request, ms of CPU {_told(values)}"


def _told(values: list[float]) -> str:
    return f"| {statistics.median(values):.3g} | {_range(values)} |"


def _range(values: list[float]) -> str:
    return f"{min(values):.3g} to {max(values):.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--prefetch", type=int, default=64)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds, each way")
    parser.add_argument("--contend", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contend:
        kind, url, num, prefetch, admin = options.contend
        print(json.dumps(contend(kind, url, int(num), int(prefetch), admin)), flush=True)
        os._exit(0)
    print("\n".join(told(rounds(options))))


if __name__ == "__main__":
    main()
