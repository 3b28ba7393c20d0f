"""The known table of a process, and the trust in it.

Theory of operation
-------------------

A crawler adds the same URLs again and again, and the server refuses them again and again. The known
table answers such an add without a request. It must never answer for an item that the server would
accept.

- Content: the table holds digests of items that a reply called known, each with the time until
  which it is. It learns from nothing else (`learn`).
- Check: a step asks for the identity of the memory (`check_memory`): the run of the server, the
  epoch, the number of calls that forgot, the number of remembered items. Each memory has a table of
  its own.
- Sample: the check also asks about some entries of the table. If the server lacks one, the table is
  emptied: keys were put back from a dump, swapped, deleted or evicted.
- Trust: a check counts for a second, and only while the process has the same connections. After a
  restart or a failover it has other ones.
- Forgetting: this process empties its tables before and after a call that forgets. Another process
  notices at its next check, after a second at the latest.
- Generation: emptying a table changes its generation. The table learns nothing from a reply to a
  request of an earlier generation.
"""

from __future__ import annotations

import math
from time import monotonic
from typing import Any, NamedTuple

from redset._operations import tables
from redset._operations.context import Context
from redset._operations.replies import bytes_of, is_answer, list_of
from redset._operations.tables import Memory
from redset._transport.effects import FINGERPRINT, Operation

#: Seconds for which a check is trusted, and after which the next check is due.
TRUST, RENEW = 1.0, 0.8
#: Shortest time between two checks, and after a check without the server's run, in seconds.
PAUSE, BLIND = 0.25, 60.0
#: Time for which an entry of the sample must still be valid, in seconds.
SOON = 2.0
#: The fraction by which the server's clock may run faster than this process's.
DRIFT = 0.0005
#: A call with so many items is worth a check even if it is the first for a while.
WORTH = 16


class Trust(NamedTuple):
    """Result of a check, with its time and its connections."""

    fingerprint: Any
    since: float
    epoch: bytes
    table: Any
    era: object

    def age(self, now: float) -> float:
        """Return for how many seconds it has been trusted."""
        return now - self.since


def look(ctx: Context, items: int) -> Operation[tuple[Trust | None, bool]]:
    """Return the present trust, and whether a check is due before so many items are added."""
    fingerprint = yield FINGERPRINT
    if fingerprint is None:
        return None, False
    now = monotonic()
    used, ctx.memory.used = ctx.memory.used, now
    trust = _still_trusted(ctx, fingerprint, now)
    if trust is not None and trust.age(now) < RENEW:
        return trust, False
    # A single add now and then is not worth another request.
    return trust, now >= ctx.memory.next_check and (items >= WORTH or now - used < TRUST)


def _still_trusted(ctx: Context, fingerprint: Any, now: float) -> Trust | None:
    """Return the result of the last check, if it may be trusted with these connections now."""
    trust: Trust | None = ctx.memory.trust
    if trust is None or trust.age(now) >= TRUST:
        return None
    return trust if trust.fingerprint == fingerprint and trust.era is tables.era() else None


def knows(ctx: Context, item: Any) -> Operation[bool | None]:
    """Return True if the table has the item, else None. It sends nothing."""
    member = ctx.codec.identity(item)
    if not ctx.memory.tabled:
        return None
    now, answered = monotonic(), ctx.memory.tables
    if answered is None:
        fingerprint = yield FINGERPRINT
        trust = None if fingerprint is None else _still_trusted(ctx, fingerprint, now)
    else:  # what is confirmed before anything rests on it needs no look at the connections
        trust = ctx.memory.trust
        if trust is not None and (trust.age(now) >= TRUST or trust.era is not tables.era()):
            trust = None
    if trust is None:
        return None
    digest = member if ctx.options.keyed else ctx.wire.digest(member)
    generation = trust.table.generation
    if not trust.table.knows(digest, now):
        return None
    if answered is not None:
        answered.add((trust.table, generation))
    return True


def trusted_table(ctx: Context) -> Operation[Any]:
    """Return the table, if it may answer adds of the set's epoch now. It sends nothing."""
    memory = ctx.memory
    if not memory.tabled:
        return None
    fingerprint = yield FINGERPRINT
    memory.used = now = monotonic()
    trust = None if fingerprint is None else _still_trusted(ctx, fingerprint, now)
    return None if trust is None or trust.epoch != memory.epoch else trust.table


def check_memory(ctx: Context) -> Operation[Trust | None]:
    """Check the identity of the memory. Return None if no table can be trusted."""
    since = monotonic()
    # Set at once, so that only one of many threads asks.
    ctx.memory.next_check = since + PAUSE
    for _ in range(3):
        before = yield FINGERPRINT
        since = monotonic()
        asked, epoch, tokens = _questions(ctx, since)
        try:
            found = yield ctx.step(
                "check_memory",
                list_of(bytes_of, 6),
                tokens,
                remember=ctx.options.remember,
                epoch=epoch,
            )
        except Exception as error:
            if not is_answer(error):
                raise
            # The user lacks TYPE, for example. This counts as a server whose run is hidden.
            found = [b""] * 6
        fingerprint = yield FINGERPRINT
        # The check does not cover a connection that was opened since, perhaps by its own request.
        if before is None or fingerprint == before:
            break
    else:
        return None
    epoch, forgets, run, count, evicted, missing = found
    if not run:
        ctx.memory.next_check = since + BLIND
    if before is None or not (run and epoch):
        ctx.memory.believe(None)
        return None
    memory = Memory(ctx.keys.name, fingerprint[0], run, epoch, forgets)
    table = tables.table_of(memory, ctx.wire.Known, ctx.options.known_max)
    sample = tables.sample_of(table)
    if since >= sample.checked:  # otherwise another thread has a later reply
        if (
            (table in asked and missing != b"0")
            or (len(table) and table not in asked)
            or int(count or 0) < sample.count
            or sample.evicted not in (None, evicted)
        ):
            # Keys were restored, swapped, deleted or evicted: known items may be new now.
            table.clear()
            sample = tables.sample_of(table)
        sample.count, sample.evicted = max(sample.count, int(count or 0)), evicted
        sample.checked = since
    trust = Trust(fingerprint, since, epoch, table, tables.era())
    ctx.memory.believe(trust)
    return trust


def _questions(ctx: Context, now: float) -> tuple[list[Any], bytes, list[bytes]]:
    """Return the table that a check expects, its epoch, and a sample of its entries."""
    if ctx.memory.epoch is None:
        return [], b"", []
    # The other tables are of the past: of fewer calls that forgot, or of another run of the server.
    found = tables.tables_of(ctx.keys.name, ctx.memory.epoch)
    found = sorted(found, key=lambda table: tables.sample_of(table).checked)[-1:]
    digests = [digest for table in found for digest in tables.sample_of(table).draw(now + SOON)]
    tokens = digests
    if ctx.options.remember == "ever":
        tokens = [ctx.wire.memory_integer(digest, ctx.memory.epoch) for digest in digests]
    return found, ctx.memory.epoch, tokens


def still_known(ctx: Context) -> Operation[bool]:
    """Return whether the server still knows the items for which the tables answered."""
    answered, ctx.memory.tables = ctx.memory.tables, None
    return (yield from confirms(ctx, answered))


def confirms(ctx: Context, answered: set[Any] | None) -> Operation[bool]:
    """Return whether the server still knows the items for which these tables answered."""
    if not answered:
        return True
    trust = yield from check_memory(ctx)
    # A table that was emptied since may have answered for items that the server forgot.
    return trust is not None and answered == {(trust.table, trust.table.generation)}


def learn(
    trust: Trust, generation: int, digests: bytes, lasting: Any, sent: float
) -> Operation[None]:
    """Learn entries that were sent at a time, with the time for which the server knows each.

    Parameters
    ----------
    lasting : float or list of int
        ``math.inf``, or for each entry the milliseconds, 0 if they are unknown.
    """
    fingerprint = yield FINGERPRINT
    # Learn only if the reply came by a connection that the check covers.
    if fingerprint != trust.fingerprint or trust.era is not tables.era():
        return
    until = lasting
    if lasting is not math.inf:
        rate = (1.0 - DRIFT) / 1000.0
        # The server's clock was read in whole milliseconds.
        until = [sent + (left - 1) * rate if left > 1 else 0.0 for left in lasting]
    trust.table.learn(digests, until, generation, sent)
    if trust.table.generation == generation:
        tables.sample_of(trust.table).add(digests, until)
