"""The only import of redset's private parts: exchanges, and the reading of errors.

An exchange acknowledges, renews, releases and leases in one round trip, as `consume` does. A test
checks that no other module imports private parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from redset import SortedSet
from redset._operations.exchanging import Exchange as Exchange
from redset._operations.exchanging import await_exchange, exchange
from redset._operations.settling import Settlement as Settlement
from redset._transport.errors import class_names as class_names
from redset._transport.errors import codes_of as codes_of


def perform(frontier: SortedSet[Any], what: Exchange) -> None:
    """Perform an exchange."""
    frontier._run(exchange(frontier._ctx, what))


def perform_when_there_is_work(
    frontier: SortedSet[Any], what: Exchange, ended: Callable[[], bool]
) -> None:
    """Perform an exchange that only leases: again when there may be an item, until ``ended``."""
    frontier._run(await_exchange(frontier._ctx, what, ended))


def watch_known(frontier: SortedSet[Any]) -> None:
    """Let guarded exchanges confirm the answers of `known` from here on."""
    frontier._ctx.memory.tables = set()
