"""The command bench: how fast your server takes adds, takes and leases."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable
from typing import Any

import click

from redset import SortedSet
from redset.cli.connection import Settings
from redset.cli.output import Column, Output, short, text_column
from redset.cli.parameters import Duration, json_option, pass_settings
from redset.cli.program import Command

#: Items of a measured request or call, and of a lease.
CHUNK, LEASED = 500, 100
#: Requests in flight of the raw measure.
FLIGHT = 4
#: Calls of the measured round trip.
PINGS = 50


class Bench:
    """Measures on a set of its own."""

    def __init__(self, client: Any, seconds: float) -> None:
        self._client = client
        #: A name that no other set has.
        self.name = f"redset-bench-{secrets.token_hex(6)}"
        self._queue = SortedSet[Any](client, self.name)
        self._seconds = seconds
        self._number = 0

    def _items(self, num: int = CHUNK) -> list[str]:
        first, self._number = self._number, self._number + num
        return [f"https://example.org/{number:09}" for number in range(first, first + num)]

    def _timed(self, call: Callable[[], int]) -> tuple[float, float]:
        """Call for the time of a measure. Return items a second, and microseconds an item."""
        done, spent, end = 0, 0.0, time.monotonic() + self._seconds
        while time.monotonic() < end:
            began = time.perf_counter()
            num = call()
            spent += time.perf_counter() - began
            if not num:
                break
            done += num
        return (done / spent, 1e6 * spent / done) if done else (0.0, 0.0)

    def round_trip(self) -> float:
        """Return the median time of a request that does nothing, in seconds."""
        times = []
        for _ in range(PINGS):
            began = time.perf_counter()
            self._client.ping()
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    def raw(self) -> tuple[float, float]:
        """Send requests that are encoded before, over one connection: the server's limit."""
        pool = self._client.connection_pool
        try:
            connection = pool.get_connection()
        except TypeError:  # redis-py 5.0 to 5.2
            connection = pool.get_connection("ZADD")
        ready: list[Any] = []

        def call() -> int:
            for packed in ready:
                connection.send_packed_command(packed)
            for _ in ready:
                connection.read_response()
            return FLIGHT * CHUNK

        def encode() -> None:
            ready.clear()
            for _ in range(FLIGHT):
                pairs = [part for item in self._items() for part in (0, item)]
                ready.append(connection.pack_command("ZADD", self.name, *pairs))

        try:
            done, spent, end = 0, 0.0, time.monotonic() + self._seconds
            while time.monotonic() < end:
                encode()
                began = time.perf_counter()
                done += call()
                spent += time.perf_counter() - began
            return done / spent, 1e6 * spent / done
        finally:
            pool.release(connection)

    def add(self) -> tuple[float, float]:
        many = 4 * CHUNK

        def call() -> int:
            return int(self._queue.add_many(self._items(many)).added)

        return self._timed(call)

    def take(self) -> tuple[float, float]:
        return self._timed(lambda: len(self._queue.take(CHUNK)))

    def lease(self) -> tuple[float, float]:
        def call() -> int:
            return self._queue.ack(self._queue.lease(LEASED))

        if not self._queue.size():
            self._queue.add_many(self._items(20 * CHUNK))
        return self._timed(call)

    def end(self) -> None:
        """Remove the set."""
        self._queue.clear()


@click.command("bench", cls=Command, writes=True)
@click.option("--seconds", type=Duration(least=0.01), default=10.0, help="Default 10s.")
@json_option
@pass_settings
def bench(settings: Settings, seconds: float, output: Output) -> int:
    """Measure the server: adds, leases and takes, beside the raw speed of a connection.

    It uses a set of its own, and removes it at the end. "of raw" compares with requests that are
    encoded before, which is the most that one connection can have.

    \b
    Example:
      redset bench --seconds 20s
    """
    client = settings.client()
    measured = Bench(client, seconds / 4)
    rows: list[dict[str, Any]] = []
    try:
        trip = measured.round_trip()
        limit = 0.0
        for name, call in (
            ("raw ZADD", None if settings.cluster else measured.raw),
            ("add_many", measured.add),
            ("lease and ack", measured.lease),
            ("take", measured.take),
        ):
            if call is None:
                continue
            rate, micro = call()
            limit = limit or rate
            share = round(rate / limit, 3) if limit and not settings.cluster else None
            row = {"measure": name, "rate": round(rate), "micros": round(micro, 2), "of_raw": share}
            rows.append(row)
    finally:
        measured.end()
    columns = [
        text_column("measure", "MEASURE"),
        Column("rate", "ITEMS/s", short),
        Column("micros", "µs/ITEM"),
        Column("of_raw", "OF RAW", lambda share: "-" if share is None else f"{share:.0%}"),
    ]
    output.rows(columns, rows)
    if output.as_json:
        output.record({"measure": "round trip", "micros": round(1e6 * trip, 1)})
    elif output.is_terminal:
        output.line(f"a round trip takes {1e6 * trip:.0f} µs")
    return 0


COMMANDS = {"bench": bench}
