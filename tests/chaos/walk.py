"""A random walk: two clients in turns do one thing after another to a set, and to its model.

A walk is made of episodes, each with its own seed, options and steps. Steps are drawn before any is
performed, and name leases by number. So any part of an episode can be performed again: a failure is
reported with the fewest steps that still fail.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import blocking
import redis
import servers
from model import Json, LeasingModel, ModelLease, Text

from chaos.worker import implementation
from redset import Key, Retry, ScheduledSet, SortedSet, TimeSortedSet, _wire
from redset._operations import taking
from redset.exceptions import Full

P = "jobs:{jobs}"
#: Steps of an episode, and after how many the server's keys are compared.
LENGTH, LOOK = 250, 5
#: Scores on both sides of the server's clock.
PAST, FUTURE = 1.5e9, 1e11
SCORES = [0, 0, 1, 1, 2, 3.5, -1, 0.1, PAST, FUTURE, math.inf, -math.inf]
#: Those of sets with ties=.
WHOLE = [0, 0, 0, 1, 1, 2, -1, -4096, 4095]
#: With ties= a stored score is the score times this, plus the number that orders equal ones.
TIE = 2**40
FLAGS: list[dict[str, bool]] = [
    *[{}] * 5,
    *[{flag: True} for flag in ("nx", "xx", "lt", "gt")],
    {"xx": True, "lt": True},
    {"xx": True, "gt": True},
]
#: How often each operation is drawn, of so many.
OPERATIONS = {
    "add": 20,
    "add_many": 6,
    "add_new": 5,
    "lease": 16,
    "ack": 9,
    "found": 6,
    "fail": 6,
    "release": 6,
    "renew": 3,
    "batch": 3,
    "expire": 8,
    "pop": 2,
    "take": 2,
    "look": 3,
    "ask": 3,
    "count": 3,
    "finished": 3,
    "leased": 3,
    "discard": 4,
    "forget": 3,
    "seen": 2,
    "purge": 0.3,
    "clear": 0.3,
}
#: Seconds for finding a shorter history.
PATIENCE = 60


class Step(NamedTuple):
    """An operation, its client of the two, and all that is drawn for it."""

    what: str
    client: int
    arguments: tuple[Any, ...]

    def __repr__(self) -> str:
        return f"{'AB'[self.client]} {self.what}{self.arguments!r}"


class World(NamedTuple):
    """The set of an episode."""

    kind: Any
    keyed: bool
    options: dict[str, Any]
    wires: tuple[str, str]
    #: Whether the second client is an asyncio one.
    awaited: bool

    def items(self) -> list[Any]:
        names = ["a", "b", "", "ü", *map(str, range(8))]
        if not self.keyed:
            return names
        return [{"url": name, "n": n} for name in names for n in (0, 1)]


class Differs(AssertionError):
    """The set and its model do not agree."""


class Failure(NamedTuple):
    """An episode that failed, and the fewest steps found that fail."""

    server: str
    seed: int
    world: World
    error: str
    steps: list[Step]

    def __str__(self) -> str:
        lines = [
            f"walk: seed {self.seed} on {self.server}: {self.error}",
            f"  {self.world}",
            *(f"  {step}" for step in self.steps),
            f"  (python -m chaos walk --seed {self.seed} --steps 1 --servers {self.server})",
        ]
        return "\n".join(lines)


def world_of(pick: random.Random) -> World:
    options: dict[str, Any] = {
        "remember": pick.choice([None, None, True, True, 86400]),
        "duplicates": pick.choice(["move", "move", "move", "keep", "lowest", "highest"]),
        "max_attempts": pick.choice([1, 2, 3, None]),
        "max_size": pick.choice([None, None, None, None, 5]),
    }
    wires = pick.choice([("cython", "python"), ("python", "cython"), ("cython", "cython")])
    kind = pick.choice([SortedSet, SortedSet, ScheduledSet, TimeSortedSet])
    if kind is SortedSet:
        options["ties"] = pick.choice([None, "fifo", "lifo"])
    return World(kind, pick.random() < 0.5, options, wires, pick.random() < 0.1)


def steps_of(  # noqa: C901 - a table of draws
    world: World, pick: random.Random, length: int
) -> list[Step]:
    """Draw an episode."""
    known = bool(world.options["remember"])
    names = [name for name in OPERATIONS if known or name not in ("forget", "seen")]
    weights = [OPERATIONS[name] for name in names]
    number = len(world.items())
    # Some of the time few items are met over and over.
    few = pick.choice([3, number, number])
    timed = world.kind is not SortedSet
    choice = WHOLE if world.options.get("ties") else SCORES

    def item() -> int:
        return pick.randrange(few)

    def several() -> tuple[int, ...]:
        return tuple(item() for _ in range(pick.choice([0, 1, 2, 3, 5, 8])))

    def score() -> Any:
        return pick.choice(choice if timed or pick.random() < 0.8 else [None])

    def flags() -> dict[str, bool]:
        drawn = pick.random() if known else 1.0
        how = {"again": True} if drawn < 0.15 else {"remember": False} if drawn < 0.3 else {}
        return {**pick.choice(FLAGS), **how}

    def draw(what: str) -> tuple[Any, ...]:
        if what == "add":
            return item(), score(), flags()
        if what in ("add_many", "add_new"):
            items = several()
            scores = [pick.choice(choice) for _ in items] if pick.random() < 0.5 else score()
            return items, scores, flags()
        if what in ("lease", "take"):
            return (pick.choice([1, 1, 2, 3, 5, 200]),)
        leases = (pick.randrange(1000), pick.choice([1, 1, 1, 2, 4]))
        if what in ("ack", "renew"):
            return leases
        if what == "found":
            return *leases, several()
        if what == "fail":
            return *leases, pick.choice(["no", "never"]), pick.choice([0, 0, 1000])
        if what == "release":
            moved = pick.choice([None, None, *choice])
            return *leases, pick.choice([0, 0, 1000]), moved, pick.random() < 0.3
        if what == "batch":
            return pick.choice([1, 2, 4]), pick.randrange(4), pick.choice(["end", "break", "raise"])
        if what == "expire":
            return pick.randrange(1000), pick.choice([1, 1, 2, 100])
        if what == "look":
            return (pick.randrange(-4, 4),)
        if what in ("ask", "seen"):
            return several(), pick.random() < 0.5
        if what in ("discard", "forget"):
            return several(), pick.random() < 0.5, known and pick.random() < 0.3
        if what == "clear":
            return (known and pick.random() < 0.5,)
        return ()

    drawn = pick.choices(names, weights, k=length)
    return [Step(what, pick.randrange(2), draw(what)) for what in drawn]


class Episode:
    """A set, its model, and the leases of both."""

    def __init__(self, world: World, server: servers.Server, clients: list[Any]) -> None:
        self.world = world
        self.raw = server.raw
        self.items = world.items()
        own = {"key": "url"} if world.keyed else {}
        due = (PAST + FUTURE) / 2 if world.kind is ScheduledSet else math.inf
        self.model = LeasingModel(
            Json if world.keyed else Text,
            key=(lambda item: item["url"]) if world.keyed else None,
            due_until=due,
            **world.options,
        )
        # A scorer, so that time sets have no other clock than the model.
        scorer = zero if world.kind is not SortedSet else None
        self.raw.flushall()
        self.sets: list[Any] = []
        for number, wire in enumerate(world.wires):
            with mock.patch.object(_wire, "DEFAULT", implementation(wire)):
                if number and world.awaited:
                    made: Any = blocking.BlockingSet(
                        world.kind, clients[2], "jobs", scorer, **own, **world.options
                    )
                else:
                    made = world.kind(clients[number], "jobs", scorer, **own, **world.options)
            # A first bulk add would ask for the end of the set, which gives back what is overdue.
            made._ctx.memory.fresh = False
            self.sets.append(made)
        own_key = "-".join(["keyed"] * world.keyed + ["tied"] * bool(self.model.ties))
        self.queue = f"{P}:{own_key}" if own_key else "jobs"
        self.open: list[tuple[int, Any, ModelLease]] = []
        self.tally: Counter[str] = Counter()

    def perform(self, step: Step) -> None:
        self.tally[step.what] += 1
        getattr(self, f"_{step.what}")(step.client, *step.arguments)

    def same(self, client: int, call: Callable[[Any], Any]) -> Any:
        """Have the set and the model do it."""
        return agree(outcome(call, self.sets[client]), outcome(call, self.model))

    def _add(self, client: int, item: int, score: Any, flags: dict[str, bool]) -> None:
        self.same(client, lambda s: s.add(self.items[item], score, **flags))

    def _add_many(self, client: int, items: Any, score: Any, flags: dict[str, bool]) -> None:
        given = [self.items[item] for item in items]
        self.same(client, lambda s: tuple(s.add_many(given, score, **flags)))

    def _add_new(self, client: int, items: Any, score: Any, flags: dict[str, bool]) -> None:
        given = [self.items[item] for item in items]
        self.same(client, lambda s: list(s.add_new(given, score, **flags)))

    def _pop(self, client: int) -> None:
        self.same(client, lambda s: s.pop())

    def _take(self, client: int, num: int) -> None:
        self.same(client, lambda s: s.take(num, with_scores=True))

    def _lease(self, client: int, num: int) -> None:
        given = list(self.sets[client].lease(num, ttl=1000))
        expected = self.model.lease(num)
        agree(*(list(map(told, each)) for each in (given, expected)))
        self.open += [(client, *pair) for pair in zip(given, expected, strict=True)]

    def _picked(self, at: int, num: int) -> tuple[int, list[Any], list[ModelLease]]:
        """Some of the open leases of one client: its number, theirs, the model's."""
        first = at % len(self.open)
        client = self.open[first][0]
        some = [each for each in self.open[first:] if each[0] == client][:num]
        return client, [lease for _, lease, _ in some], [lease for _, _, lease in some]

    def _settle(
        self, at: int, num: int, call: Callable[[Any, list[Any]], Any], ends: bool = True
    ) -> None:
        if not self.open:
            return
        client, real, modelled = self._picked(at, num)
        result = agree(
            outcome(lambda s: call(s, real), self.sets[client]),
            outcome(lambda s: call(s, modelled), self.model),
        )
        if ends and result is not Full:
            self.open = [each for each in self.open if each[1] not in real]
            if not all(lease.settled for lease in real):
                raise Differs("a lease does not know that it is settled")

    def _ack(self, client: int, at: int, num: int) -> None:
        self._settle(at, num, lambda s, leases: s.ack(leases))

    def _found(self, client: int, at: int, num: int, items: Any) -> None:
        given = [self.items[item] for item in items]
        self._settle(at, num, lambda s, leases: s.ack(leases, given))

    def _fail(self, client: int, at: int, num: int, error: str, delay: float) -> None:
        self._settle(at, num, lambda s, leases: s.fail(leases, error, delay))

    def _release(
        self, client: int, at: int, num: int, delay: float, score: Any, changed: bool
    ) -> None:
        num = 1 if changed else num

        def call(s: Any, leases: list[Any]) -> Any:
            item = None
            if changed:
                item = leases[0].item
                item = {**item, "n": item["n"] + 1} if self.world.keyed else item
            if s is self.model:
                return s.release(leases, delay, score, item)
            if changed:
                return leases[0].release(delay, score, item)
            return s.release(leases, delay, score)

        self._settle(at, num, call)

    def _renew(self, client: int, at: int, num: int) -> None:
        def call(s: Any, leases: list[Any]) -> Any:
            return s.renew(leases) if s is self.model else s.renew(leases, 2000)

        self._settle(at, num, call, ends=False)

    def _batch(self, client: int, num: int, stop: int, how: str) -> None:
        """Iterate a batch to its end, or up to a break or an exception."""
        given: list[Any] = []
        with contextlib.suppress(Retry), self.sets[client].lease(num, 1000) as batch:
            for place, lease in enumerate(batch):
                given.append(told(lease))
                if place == stop and how == "break":
                    break
                if place == stop and how == "raise":
                    raise Retry(1000)
        leases = self.model.lease(num)
        reached = len(leases) if how == "end" else min(stop, len(leases))
        agree(given, [told(lease) for lease in leases[: reached + 1]])
        self.model.ack(leases[:reached])
        rest = leases[reached:]
        if how == "raise":
            self.model.fail(rest[:1], "Retry: try again after 1000 s", 1000)
            rest = rest[1:]
        self.model.release(rest)

    def _expire(self, client: int, at: int, num: int) -> None:
        members = sorted(self.model.held)
        some = [members[(at + i) % len(members)] for i in range(min(num, len(members)))]
        if some:
            self.raw.zadd(f"{P}:leased", dict.fromkeys(some, 1))
        self.model.overdue.update(some)

    def _look(self, client: int, position: int) -> None:
        self.same(client, lambda s: s.peek(position))
        self.same(client, lambda s: s.peek_many(3))
        self.same(client, lambda s: s.peek_score())
        self.same(client, lambda s: list(s))

    def _asked(self, items: Any, as_key: bool) -> list[Any]:
        given = [self.items[item] for item in items]
        return (
            [Key(item["url"] if self.world.keyed else item) for item in given] if as_key else given
        )

    def _ask(self, client: int, items: Any, as_key: bool) -> None:
        what = self._asked(items, as_key)
        self.same(client, lambda s: s.scores(what))
        if what:
            one = what[0]
            self.same(client, lambda s: (s.score(one), s.get(one), s.contains(one), one in s))

    def _count(self, client: int) -> None:
        s = self.sets[client]
        agree(s.size(), self.model.size())
        if isinstance(s, ScheduledSet):
            agree(s.available(), self.model.available())
        found, model = s.stats(), self.model.stats()
        agree(
            (*found[:5], found.retrying),
            (*model[:5], model[6]),
        )

    def _finished(self, client: int) -> None:
        self.same(client, lambda s: s.finished())

    def _leased(self, client: int) -> None:
        rows = [row[:3] for row in self.sets[client].leased()]
        agree(*(sorted(map(repr, each)) for each in (rows, self.model.leased())))

    def _discard(self, client: int, items: Any, as_key: bool, forget: bool) -> None:
        what = self._asked(items, as_key)
        if len(what) == 1:
            self.same(client, lambda s: s.discard(what[0], forget))
        else:
            self.same(client, lambda s: s.discard_many(what, forget))

    def _forget(self, client: int, items: Any, as_key: bool, one: bool) -> None:
        what = self._asked(items, as_key)
        if one and what:
            self.same(client, lambda s: s.forget(what[0]))
        else:
            self.same(client, lambda s: s.forget_many(what))

    def _seen(self, client: int, items: Any, as_key: bool) -> None:
        what = self._asked(items, as_key)
        self.same(client, lambda s: s.seen_many(what))

    def _purge(self, client: int) -> None:
        agree(self.sets[client].dead.purge(), self.model.purge())

    def _clear(self, client: int, keep: bool) -> None:
        self.same(client, lambda s: bool(s.clear(keep_memory=keep)))

    def compare(self) -> None:
        """Compare the content of the server."""
        model = self.model
        with self.raw.pipeline(transaction=False) as pipeline:
            pipeline.zrange(self.queue, 0, -1, withscores=True)
            pipeline.zrange(f"{P}:leased", 0, -1)
            pipeline.hgetall(f"{P}:leases")
            pipeline.hgetall(f"{P}:items")
            pipeline.xrange(f"{P}:dead")
            queue, leased, leases, items, dead = pipeline.execute()

        def score(stored: float) -> float:
            return stored // TIE if model.ties else stored

        queue = [(member, score(stored)) for member, stored in queue]
        agree(queue, [(member, of) for of, member in model.order()], "the queue")
        agree(set(leased), set(model.held), "what is leased")
        held = {
            member: (
                each.score,
                model.attempts.get(member, (0, "", 0))[0],
                each.again and each.again[0],
            )
            for member, each in model.held.items()
        }
        values = {}
        for member in leased:
            stored, attempts, again = value_of(leases[member])
            values[member] = score(stored), attempts, None if again is None else score(again)
        agree(values, held, "the leases")
        tried = {
            member for member, (attempts, _, bound) in model.attempts.items() if attempts or bound
        }
        agree(set(leases), {*held, *tried}, "what has attempts")
        payloads = {}
        if self.world.keyed:
            payloads = {member: stored for member, (_, stored) in model.queued.items()}
            for member, each in model.held.items():
                payloads[member] = each.stored
                if each.again:
                    payloads[member + b"+"] = each.again[1]
        agree(items, payloads, "the payloads")
        letters = [
            (
                fields[b"raw"],
                score(float(fields[b"score"])),
                fields[b"reason"].decode(),
                int(fields[b"attempts"]),
            )
            for _, fields in dead
        ]
        agree(letters, model.letters, "the dead letters")


def zero(item: Any) -> float:
    return 0


def told(lease: Any) -> tuple[Any, float, int]:
    return lease.item, lease.score, lease.attempts


def value_of(value: bytes) -> tuple[float, int, float | None]:
    """Return score, attempts and the score of an add while leased, of a stored lease."""
    parts = value.split(b"\n", 1)[0][17:].split(b" ")
    again = float(parts[2].lstrip(b"~")) if len(parts) > 2 else None
    return float(parts[1]), int(parts[0].split(b"/")[0]), again


def outcome(call: Callable[[Any], Any], what: Any) -> Any:
    """Return the result of a call, or its promised error."""
    try:
        return call(what)
    except Full:
        return Full
    except KeyError:
        return KeyError


def agree(found: Any, expected: Any, what: str = "it") -> Any:
    if found != expected:
        raise Differs(f"{what} is {found!r}, and should be {expected!r}")
    return found


def attempt(
    world: World, steps: list[Step], server: servers.Server, clients: list[Any], look: int
) -> tuple[Episode, int, str]:
    """Perform an episode; at which step it failed and how, or -1."""
    episode = Episode(world, server, clients)
    place = 0
    try:
        for place, step in enumerate(steps):
            episode.perform(step)
            if place % look == 0 or place == len(steps) - 1:
                episode.compare()
    except redis.RedisError as error:
        return episode, place, f"{type(error).__name__}: {error}"
    except Exception as error:
        return episode, place, str(error) if isinstance(error, Differs) else repr(error)
    return episode, -1, ""


def shortened(
    world: World, steps: list[Step], server: servers.Server, clients: list[Any]
) -> tuple[list[Step], str]:
    """Leave out steps without which it still fails, runs of steps first."""
    _, place, error = attempt(world, steps, server, clients, 1)
    if place < 0:
        return steps, "it does not fail again"
    steps = steps[: place + 1]
    end = time.monotonic() + PATIENCE
    size = len(steps) // 2
    while size and time.monotonic() < end:
        at = 0
        while at < len(steps) and time.monotonic() < end:
            fewer = steps[:at] + steps[at + size :]
            _, place, problem = attempt(world, fewer, server, clients, 1)
            if place >= 0:
                steps, error = fewer[: place + 1], problem
            else:
                at += size
        size //= 2
    return steps, error


def run(
    server: servers.Server, seed: int, count: int, length: int = LENGTH
) -> tuple[int, Counter[str], Failure | None]:
    """Walk at least so many steps, an episode for each seed from this one; to the first failure."""
    clients: list[Any] = [
        server.client(protocol=2),
        server.client(protocol=3, decode_responses=True),
        server.asyncio_client(protocol=3),
    ]
    done, tally = 0, Counter[str]()
    # Each pop asks for records, so that none is left for a second.
    pause, taking.LOOK = taking.LOOK, 0.0
    try:
        while done < count:
            pick = random.Random(seed)
            world = world_of(pick)
            steps = steps_of(world, pick, length)
            episode, place, error = attempt(world, steps, server, clients, LOOK)
            tally += episode.tally
            if place >= 0:
                short, said = shortened(world, steps, server, clients)
                return done + place, tally, Failure(server.kind, seed, world, said or error, short)
            done += length
            seed += 1
    finally:
        taking.LOOK = pause
        for client in clients[:2]:
            client.close()
        blocking.wait(servers.aclose(clients[2]))
    return done, tally, None
