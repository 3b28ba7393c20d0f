"""``python -m redset.demo``: crawl a site of 526 pages, and lose none of them."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import secrets
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import redis

import redset
from redset import embedded
from redset.demo import hosts, live, nodes
from redset.demo.crawl import CrawlFailed, Faults, Strike, crawl
from redset.demo.display import progress, summary
from redset.demo.site import Site

_FEW = 10  # problems to print
#: The reason for pages that were fetched twice, by whether there is a cluster.
_WHY = {
    False: "the killed worker held them",
    True: "a killed worker held them, or a killed primary had not replicated that they were done",
}
_MOST_WORKERS = 100
#: Pages a second that all workers fetch together while the live view is open.
PACE = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo.

    Return 0 if each page was fetched as it should be, 1 if not, 2 if the demo cannot run.
    """
    options = _options(arguments)
    missing = [name for name in ("rich", "selectolax") if importlib.util.find_spec(name) is None]
    if missing:
        return _cannot(f"{' and '.join(missing)} missing: pip install 'redset[demo]'")
    if options.top and (why := live.hindrance()):
        return _cannot(why)
    if options.hosts:
        return _crawl_hosts(options)
    site = Site.of_python_docs()
    name = f"redset-demo:{secrets.token_hex(6)}"
    try:
        with contextlib.ExitStack() as stack:
            try:
                client, url, server, faults = stack.enter_context(_server(options, name))
            except (RuntimeError, ValueError, redis.RedisError) as error:
                return _cannot(str(error))
            print(f"{site.start} on {server}, redset's {redset.IMPLEMENTATION} core", flush=True)
            print(f"To see it live: {live.line(url, options.cluster, name)}", flush=True)
            pages, rest = len(site.links), 0.0
            if options.top:
                show = stack.enter_context(live.shown(url, options.cluster, name, pages))
                rest = options.workers / PACE
            else:
                show = stack.enter_context(progress(pages))
            report = crawl(client, url, name, site, options.workers, faults, show, rest)
    except (CrawlFailed, redis.RedisError) as error:
        print(f"The crawl failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    print(summary(report))
    if report.problems:
        print(f"\nNOT every page was fetched as it should be ({len(report.problems)} problems):")
        print("\n".join(report.problems[:_FEW]))
        return 1
    if report.twice:
        print(f"\nEvery page was fetched. These were fetched twice, as {_WHY[options.cluster]}:")
        print("\n".join(report.twice))
    else:
        print("\nEvery page was fetched exactly once.")
    return 0


def _crawl_hosts(options: argparse.Namespace) -> int:
    """Crawl many hosts politely, and check their log."""
    name = f"redset-demo:{secrets.token_hex(6)}"
    try:
        with contextlib.ExitStack() as stack:
            try:
                client, url, server, _ = stack.enter_context(_server(options, name))
            except (RuntimeError, ValueError, redis.RedisError) as error:
                return _cannot(str(error))
            print(f"20 hosts on {server}, redset's {redset.IMPLEMENTATION} core", flush=True)
            print(f"To see it live: {live.line(url, False, name)}", flush=True)
            calm = options.calm
            report = hosts.crawl(
                client, url, name, hosts.Hosts.of_many(), options.workers, not calm
            )
    except (CrawlFailed, redis.RedisError) as error:
        print(f"The crawl failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    print(hosts.summary(report))
    if report.problems:
        print(f"\nThe crawl was NOT as it should be ({len(report.problems)} problems):")
        print("\n".join(report.problems[:_FEW]))
        return 1
    print("\nEvery page was fetched. Each host had its gaps, and no more requests than its limit.")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m redset.demo",
        description="Crawl a site of 526 pages with several processes. 97 % of its links are "
        "duplicates. One process is killed, and the private server is restarted half-way. Fails "
        "unless each page was fetched, and only once if the killed process did not hold it.",
    )
    servers = parser.add_mutually_exclusive_group()
    servers.add_argument(
        "--url",
        help="your own server, such as redis://localhost:6379/0. The set has an unused name and is "
        "removed at the end (default: a private server)",
    )
    servers.add_argument(
        "--cluster",
        action="store_true",
        help="a private cluster of three primaries and their replicas. The slot of the set moves "
        "and its primary is killed half-way. Pages whose acknowledgement that undoes are fetched "
        "twice",
    )
    parser.add_argument(
        "--workers",
        type=_workers,
        default=max(2, min(4, os.cpu_count() or 2)),
        help="number of processes (default: %(default)s)",
    )
    parser.add_argument(
        "--top",
        action="store_true",
        help="show it in redset top, which ends with the crawl. It takes a minute then",
    )
    parser.add_argument(
        "--hosts",
        action="store_true",
        help="crawl 20 hosts politely, one of them huge and one slow. Gaps and limits over all "
        "processes are checked from the log of the hosts",
    )
    parser.add_argument("--calm", action="store_true", help="kill and restart nothing")
    options = parser.parse_args(arguments)
    if options.hosts and (options.top or options.cluster):
        parser.error("--hosts goes with neither --top nor --cluster")
    return options


def _workers(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= _MOST_WORKERS:
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 1 to {_MOST_WORKERS}, got {text!r}"
        )
    return number


@contextlib.contextmanager
def _server(options: argparse.Namespace, name: str) -> Iterator[tuple[Any, str, str, Faults]]:
    """Yield a client, the URL for the workers' clients, the server's name, and the faults."""
    kill = not options.calm
    if options.cluster:
        with nodes.running() as (client, found):
            strikes = [
                Strike(0.4, "slot moved", lambda: found.move_slot(name)),
                Strike(0.6, "primary killed", lambda: found.kill_primary(name)),
            ]
            yield client, found.url, found.version, Faults(kill, strikes if kill else [], kill)
    elif options.url is not None:
        with redis.Redis.from_url(options.url) as client:
            yield client, options.url, _name(client), Faults(kill)
    else:
        # Each acknowledged step is on the disk.
        with embedded.server(
            appendonly=True, appendfsync="always", enable_debug_command="local"
        ) as client:
            url = f"unix://{quote(client.get_connection_kwargs()['path'])}"
            strikes = [Strike(0.5, "server restarted", lambda: _crash(client))] if kill else []
            yield client, url, _name(client), Faults(kill, strikes)


def _crash(client: Any) -> None:
    """Let a private server end as by SIGKILL, and start again from its log."""
    with contextlib.suppress(redis.ConnectionError):
        client.execute_command("DEBUG", "CRASH-AND-RECOVER", "100")


def _name(client: Any) -> str:
    try:
        info = client.info("server")
    except redis.ResponseError:  # not every user may ask
        info = {}
    for field, name in (("valkey_version", "Valkey"), ("redis_version", "Redis")):
        if field in info:
            return f"{name} {info[field]}"
    return "a server"


def _cannot(why: str) -> int:
    print(f"The demo cannot run: {why}", file=sys.stderr)
    return 2


def _terminate(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    # SIGTERM cleans up, too.
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(main())
