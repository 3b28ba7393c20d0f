"""The command metrics: the sets of a server for Prometheus."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import socket
from collections.abc import Iterator
from typing import Any
from wsgiref.simple_server import WSGIServer, make_server

import click

from redset.cli.connection import Settings
from redset.cli.output import shown
from redset.cli.parameters import pass_settings
from redset.cli.program import USAGE, Command, Stop, complain

#: Time that the server has for an answer, in seconds. It is asked three times, and Prometheus waits
#: for ten seconds.
PATIENCE = 2.0


class Address(click.ParamType):
    """An address to listen at: ``HOST:PORT``, ``[IPV6]:PORT`` or ``:PORT``."""

    name = "host:port"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if not isinstance(value, str):
            return value
        found = re.fullmatch(r"(?:\[([^\]]*)\]|([^:\[\]]*)):(\d{1,5})", value)
        if found is None or int(found[3]) > 65535:
            raise click.BadParameter(f"must be HOST:PORT, got {value!r}")
        return found[1] or found[2] or "", int(found[3])


def bound(host: str, port: int, app: Any) -> WSGIServer:
    """Return an HTTP server for the address. Each request has a thread."""
    from wsgiref.simple_server import WSGIRequestHandler

    from prometheus_client.exposition import ThreadingWSGIServer

    flags = socket.AI_PASSIVE
    [first, *_] = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)
    family, address = first[0], first[4][0]

    class Server(ThreadingWSGIServer):
        address_family = family

    class Handler(WSGIRequestHandler):
        timeout = 60  # seconds; a client that sends nothing holds a thread

        def log_message(self, *_: Any) -> None:
            pass

    return make_server(str(address), port, app, Server, handler_class=Handler)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """End the block on SIGTERM, as on SIGINT, without an error."""

    def end(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


@click.command("metrics", cls=Command)
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@click.option(
    "--listen",
    type=Address(),
    default="127.0.0.1:9187",
    help="HOST:PORT. Default 127.0.0.1:9187.",
)
@click.option("--max-sets", type=click.IntRange(0), default=1000, help="Labels. Default 1000.")
@click.option("--memory", is_flag=True, help="Measure the memory of sets, too.")
@pass_settings
def metrics(
    settings: Settings,
    patterns: tuple[str, ...],
    listen: tuple[str, int],
    max_sets: int,
    memory: bool,
) -> int:
    """Serve the figures of all sets, or of those that match, to Prometheus. It only reads.

    One such process is enough for a server. It goes on while the server is away: redset_up is 0
    then. SIGINT and SIGTERM end it. Sets above --max-sets are added up in set="(other)".

    \b
    Examples:
      redset metrics
      redset metrics --listen 0.0.0.0:9187 'crawl:*' mails
    """
    if importlib.util.find_spec("prometheus_client") is None:
        raise Stop("prometheus_client is missing: pip install 'redset[metrics]'", USAGE)
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import make_wsgi_app

    from redset.prometheus import Collector

    settings.timeout = PATIENCE
    try:
        client: Any = settings.client()
    except (TypeError, ValueError):
        raise
    except Exception:
        client = settings.client  # a cluster that is away: it is asked again at each scrape
    match = [os.fsencode(each) for each in patterns] or None
    registry = CollectorRegistry()
    registry.register(Collector(client, match, max_sets=max_sets, memory=memory))
    host, port = listen
    try:
        server = bound(host, port, make_wsgi_app(registry))
    except OSError as error:
        raise Stop(f"--listen {host}:{port}: {error.strerror or error}", USAGE) from error
    with server, ended_by_signals():
        place = f"[{host}]" if ":" in host else host or "0.0.0.0"
        complain(f"serving http://{place}:{server.server_port}/metrics of {shown(settings.target)}")
        server.serve_forever()
    return 0


COMMANDS = {"metrics": metrics}
