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
from redset.demo.crawl import CrawlFailed, Faults, crawl
from redset.demo.display import progress, summary
from redset.demo.site import Site

_FEW = 10  # problems to print
_MOST_WORKERS = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo.

    Return 0 if each page was fetched as it should be, 1 if not, 2 if the demo cannot run.
    """
    options = _options(arguments)
    missing = [name for name in ("rich", "selectolax") if importlib.util.find_spec(name) is None]
    if missing:
        return _cannot(f"{' and '.join(missing)} missing: pip install 'redset[demo]'")
    site = Site.of_python_docs()
    name = f"redset-demo:{secrets.token_hex(6)}"
    try:
        with contextlib.ExitStack() as stack:
            try:
                client, url = stack.enter_context(_server(options.url))
                server = _name(client)
            except (RuntimeError, ValueError, redis.RedisError) as error:
                return _cannot(str(error))
            print(f"{site.start} on {server}, redset's {redset.IMPLEMENTATION} core", flush=True)
            show = stack.enter_context(progress(len(site.links)))
            faults = Faults(not options.calm, not options.calm and options.url is None)
            report = crawl(client, url, name, site, options.workers, faults, show)
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
        print("\nEvery page was fetched. Pages that the killed worker held were fetched twice:")
        print("\n".join(report.twice))
    else:
        print("\nEvery page was fetched exactly once.")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m redset.demo",
        description="Crawl a site of 526 pages with several processes. 97 % of its links are "
        "duplicates. One process is killed, and the private server is restarted half-way. Fails "
        "unless each page was fetched, and only once if the killed process did not hold it.",
    )
    parser.add_argument(
        "--url",
        help="your own server, such as redis://localhost:6379/0. The set has an unused name and is "
        "removed at the end (default: a private server)",
    )
    parser.add_argument(
        "--workers",
        type=_workers,
        default=max(2, min(4, os.cpu_count() or 2)),
        help="number of processes (default: %(default)s)",
    )
    parser.add_argument("--calm", action="store_true", help="kill and restart nothing")
    return parser.parse_args(arguments)


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
def _server(url: str | None) -> Iterator[tuple[redis.Redis, str]]:
    """Return a client, and the URL for the workers' clients."""
    if url is not None:
        with redis.Redis.from_url(url) as client:
            yield client, url
    else:
        # Each acknowledged step is on the disk.
        with embedded.server(
            appendonly=True, appendfsync="always", enable_debug_command="local"
        ) as client:
            yield client, f"unix://{quote(client.get_connection_kwargs()['path'])}"


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
