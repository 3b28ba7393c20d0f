"""A set does the same as its model, whichever implementation performs it."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import random
import time
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import blocking
import pytest
import redis
import redis.asyncio
import servers
from blocking import BlockingSet
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model import CHUNK, Json, Model, Text
from options import fit
from selection import share

from redset import Key, ScheduledSet, SortedSet, TimeSortedSet, _wire
from redset._operations import adding, known, memory, reporting, tables, taking
from redset._transport import source
from redset.exceptions import AddError, DecodeError, Full, RedsetError
from redset.serializers import JSONSerializer

INF = float("inf")
NAN = float("nan")
#: A walk takes 10 s on an idle machine.
pytestmark = pytest.mark.timeout(300)
#: Scores on both sides of the server's clock, for years to come; all of them too far for tests.
PAST, FUTURE = 1.5e9, 1e11


class Universe(NamedTuple):
    """Ten items, some of one identity, and their stored bytes; some cannot be decoded."""

    codec: Any
    options: dict[str, Any]
    key: Callable[[Any], Any] | None
    scorer: Callable[[Any], float] | None
    items: list[Any]
    #: Identity, as it stands in a Key, and stored bytes.
    undecodable: list[tuple[bytes, bytes]]


UNIVERSES = {
    "text": Universe(
        Text,
        {},
        None,
        None,
        ["", "0", 0, "a", b"a", "ü", "日本", None, False, b"\xff"],
        [(b"\xfe", b"\xfe"), (b"a\x80", b"a\x80")],
    ),
    "JSON": Universe(
        Json,
        {"serializer": JSONSerializer(), "scorer": lambda item: len(str(item))},
        None,
        lambda item: len(str(item)),
        ["", 0, 0.0, False, None, [], {}, "ü", {"b": 1, "a": [2]}, {"a": [2], "b": 1}],
        [(b"", b""), (b"none", b"none"), (b"\xff", b"\xff")],
    ),
    "fields": Universe(
        Json,
        {"key": "k", "scorer": "v"},
        lambda item: item["k"],
        lambda item: item["v"],
        [
            {"k": "a", "v": 1},
            {"k": "a", "v": 2, "more": "ü"},
            {"k": "", "v": 0},
            {"k": 0, "v": -1.5},
            {"k": "0", "v": 10**6, "more": None},
            {"v": 1, "k": "ü"},
            {"k": "日本", "v": 2},
            {"k": 1, "v": 1},
            {"k": True, "v": 0},
            {"k": -1, "v": 1},
        ],
        [(b"a", b"none"), (b"b", b"\xff")],
    ),
    "callables": Universe(
        Json,
        {"key": lambda item: str(item)[:1], "serializer": JSONSerializer()},
        lambda item: str(item)[:1],
        None,
        ["", 0, "0x", None, "None", False, [], [1], "ü", "üü"],
        [(b"0", b"{"), (b"N", b"")],
    ),
}
SIZE = 10

SCORES = [0, 0, 0.0, -1, 1, 1, 2.5, PAST, FUTURE, FUTURE + 0.25, INF, -INF]
FLAGS: list[dict[str, bool]] = [
    {},
    {},
    {"nx": True},
    {"xx": True},
    {"lt": True},
    {"gt": True},
    {"xx": True, "lt": True},
    {"xx": True, "gt": True},
]

places = st.integers(0, SIZE - 1)
many = st.lists(places, max_size=8)
scores = st.sampled_from(SCORES)
flags = st.sampled_from(FLAGS)
others = st.booleans()
hows = st.sampled_from([{}, {}, {"again": True}, {"remember": False}])


class Machine(RuleBasedStateMachine):
    """Two objects for one set, of both implementations, in turns; and the model."""

    server: servers.Server
    clients: list[redis.Redis]
    wires: list[ModuleType]
    kind: Any

    @initialize(
        universe=st.sampled_from(sorted(UNIVERSES)),
        remember=st.sampled_from([None, True, 86400.0, datetime.timedelta(days=1)]),
        duplicates=st.sampled_from(["move", "move", "keep", "lowest", "highest"]),
        max_size=st.sampled_from([None, None, 3]),
        ties=st.sampled_from([None, None, "fifo", "lifo"]),
    )
    def make(
        self,
        universe: str,
        remember: Any,
        duplicates: str,
        max_size: int | None,
        ties: str | None,
    ) -> None:
        world = UNIVERSES[universe]
        self.items = world.items
        self.undecodable = world.undecodable
        self.timed = self.kind is not SortedSet
        own: dict[str, Any] = {
            "remember": remember,
            "duplicates": duplicates,
            "max_size": max_size,
            "ties": None if self.timed else ties,
        }
        self.model = Model(
            world.codec,
            key=world.key,
            scorer=world.scorer,
            due_until=(PAST + FUTURE) / 2 if self.kind is ScheduledSet else INF,
            **own,
        )
        self.server.flush()
        self.sets = []
        for client, wire in zip(self.clients, self.wires, strict=True):
            with mock.patch.object(_wire, "DEFAULT", wire):
                self.sets.append(self.kind(client, "jobs", **world.options, **own))
        self.queue = {
            (False, False): b"jobs",
            (True, False): b"jobs:{jobs}:keyed",
            (False, True): b"jobs:{jobs}:tied",
            (True, True): b"jobs:{jobs}:keyed-tied",
        }[bool(world.key), bool(own["ties"])]

    def asked(self, place: int, as_key: bool) -> Any:
        """An item, or the Key that stands for it."""
        item = self.items[place]
        if not as_key:
            return item
        return Key(self.model.key(item) if self.model.key else self.model.codec.dumps(item))

    def scored(self, score: Any) -> Any:
        # Without a scorer a time set scores by the clock, which the model has not.
        return 0 if score is None and self.timed and self.model.scorer is None else score

    def flagged(self, flags: dict[str, bool], how: dict[str, bool]) -> dict[str, bool]:
        return {**flags, **how} if self.model.remember else flags

    def same(self, other: bool, call: Callable[[Any], Any]) -> None:
        assert outcome(call, self.sets[other]) == outcome(call, self.model)

    # Adding.

    @rule(other=others, at=places, score=st.none() | scores, flags=flags, again=hows)
    def add(self, other: bool, at: int, score: Any, flags: Any, again: Any) -> None:
        arguments = self.flagged(flags, again)
        self.same(other, lambda s: s.add(self.items[at], self.scored(score), **arguments))

    @rule(
        other=others,
        what=st.lists(st.tuples(places, scores), max_size=8),
        one=st.none() | st.just(...) | scores,
        bad=st.none() | st.integers(0, 8),
        errors=st.sampled_from(["raise", "skip"]),
        flags=flags,
        again=hows,
        new=others,
        stream=others,
    )
    def add_many(
        self,
        other: bool,
        what: list[tuple[int, float]],
        one: Any,
        bad: int | None,
        errors: str,
        flags: Any,
        again: Any,
        new: bool,
        stream: bool,
    ) -> None:
        score: Any = [score for _, score in what] if one is ... else self.scored(one)
        if one is ... and bad is not None and bad < len(what):
            score[bad] = NAN
        self.bulk(other, [at for at, _ in what], score, errors, flags, again, new, stream)

    @precondition(lambda self: not self.model.max_size)
    @rule(
        other=others,
        what=st.lists(st.tuples(places, scores), min_size=1, max_size=7),
        flags=flags,
        again=hows,
        new=others,
        stream=others,
    )
    def add_chunks(
        self, other: bool, what: Any, flags: Any, again: Any, new: bool, stream: bool
    ) -> None:
        # The scores go round faster than the items, and neither with the chunks.
        at = [place for place, _ in what] * 191
        score = list(itertools.islice(itertools.cycle([s for _, s in what[1:]] or [0]), len(at)))
        self.bulk(other, at, score, "raise", flags, again, new, stream)

    def bulk(
        self,
        other: bool,
        at: list[int],
        score: Any,
        errors: str,
        flags: dict[str, bool],
        again: Any,
        new: bool,
        stream: bool,
    ) -> None:
        items = [self.items[place] for place in at]
        assert not self.model.max_size or len(items) <= CHUNK

        def call(s: Any) -> Any:
            given: Any = items
            # A slow stream that comes in two parts may be two chunks.
            if stream and s is not self.model and not self.model.max_size:
                given = (item for item in items)
            arguments = {**self.flagged(flags, again), "errors": errors}
            if new:
                return list(s.add_new(given, score, **arguments))
            return tuple(s.add_many(given, score, **arguments))

        self.same(other, call)

    @rule(which=st.integers(0, 2), score=scores)
    def plant(self, which: int, score: float) -> None:
        identity, raw = self.undecodable[which % len(self.undecodable)]
        member = self.model.member(Key(identity))
        score = fit({"ties": "fifo"} if self.model.ties else {}, score)
        stored = score * 2**40 if self.model.ties else score
        self.server.raw.zadd(self.queue, {member: stored})
        if self.model.key:
            self.server.raw.hset("jobs:{jobs}:items", member, raw)
        self.model.plant(member, raw, score)

    # Handing out.

    @rule(other=others)
    def pop(self, other: bool) -> None:
        self.same(other, lambda s: s.pop())

    @rule(other=others, num=st.integers(-1, 4) | st.just(3000), with_scores=others)
    def take(self, other: bool, num: int, with_scores: bool) -> None:
        self.same(other, lambda s: s.take(num, with_scores=with_scores))

    # Looking.

    @rule(other=others, position=st.integers(-4, 4))
    def peek(self, other: bool, position: int) -> None:
        self.same(other, lambda s: s.peek(position))

    @rule(other=others, num=st.integers(-1, 4) | st.just(3000))
    def look(self, other: bool, num: int) -> None:
        self.same(other, lambda s: s.peek_many(num))
        self.same(other, lambda s: s.peek_score())
        self.same(other, lambda s: list(s))

    @rule(other=others, at=places, as_key=others)
    def ask(self, other: bool, at: int, as_key: bool) -> None:
        what = self.asked(at, as_key)
        self.same(other, lambda s: s.score(what))
        self.same(other, lambda s: s.get(what))
        self.same(other, lambda s: s.contains(what))
        self.same(other, lambda s: what in s)

    @rule(other=others, at=many, as_key=others)
    def ask_many(self, other: bool, at: list[int], as_key: bool) -> None:
        what = [self.asked(place, as_key) for place in at]
        self.same(other, lambda s: s.scores(what))

    @rule(other=others)
    def count(self, other: bool) -> None:
        s = self.sets[other]
        assert s.size() == len(s) == self.model.size()
        assert bool(s) is bool(self.model.queued)
        if self.kind is ScheduledSet:
            assert s.available() == self.model.available()
        found = s.stats()
        oldest = found.oldest_score
        assert (found.size, found.available, found.dead, found.remembered, oldest) == (
            self.model.stats()
        )
        if self.timed and oldest is not None:
            age = time.time() - oldest
            assert found.oldest_age == age or abs(found.oldest_age - age) < 600
        else:
            assert found.oldest_age is None
        assert found.memory_bytes > 0 or not self.model.queued

    # Removing and forgetting.

    @rule(other=others, at=places, as_key=others, forget=others)
    def discard(self, other: bool, at: int, as_key: bool, forget: bool) -> None:
        what = self.asked(at, as_key)
        self.same(other, lambda s: s.discard(what, forget and bool(self.model.remember)))

    @rule(other=others, at=places, as_key=others)
    def remove(self, other: bool, at: int, as_key: bool) -> None:
        what = self.asked(at, as_key)
        self.same(other, lambda s: s.remove(what))

    @rule(other=others, at=many, as_key=others, forget=others)
    def discard_many(self, other: bool, at: list[int], as_key: bool, forget: bool) -> None:
        what = [self.asked(place, as_key) for place in at]
        self.same(other, lambda s: s.discard_many(what, forget and bool(self.model.remember)))

    @precondition(lambda self: self.model.remember)
    @rule(other=others, at=places, as_key=others)
    def forget(self, other: bool, at: int, as_key: bool) -> None:
        what = self.asked(at, as_key)
        self.same(other, lambda s: s.forget(what))

    @precondition(lambda self: self.model.remember)
    @rule(other=others, at=many, as_key=others)
    def forget_many(self, other: bool, at: list[int], as_key: bool) -> None:
        what = [self.asked(place, as_key) for place in at]
        self.same(other, lambda s: s.forget_many(what))

    @precondition(lambda self: self.model.remember)
    @rule(other=others, at=places, as_key=others)
    def seen(self, other: bool, at: int, as_key: bool) -> None:
        what = self.asked(at, as_key)
        self.same(other, lambda s: s.seen(what))
        self.same(other, lambda s: s.seen_many(self.items))

    @rule(other=others, keep_memory=others)
    def clear(self, other: bool, keep_memory: bool) -> None:
        keep = keep_memory and bool(self.model.remember)
        self.same(other, lambda s: bool(s.clear(keep_memory=keep)))

    @rule(other=others)
    def bury(self, other: bool) -> None:
        dead = self.sets[other].dead
        assert dead.size() == len(dead) == len(self.model.dead)
        assert [letter.raw for letter in dead] == self.model.dead
        assert dead.purge(before=0) == 0
        assert dead.purge() == self.model.purge()

    # The content of the server.

    @invariant()
    def stored(self) -> None:
        if not hasattr(self, "model"):
            return
        with self.server.raw.pipeline(transaction=False) as pipeline:
            pipeline.zrange(self.queue, 0, -1, withscores=True)
            pipeline.hgetall("jobs:{jobs}:items")
            pipeline.xlen("jobs:{jobs}:dead")
            queue, items, dead = pipeline.execute()
        if self.model.ties:
            queue = [(member, score // 2**40) for member, score in queue]
        assert queue == [(member, score) for score, member in self.model.order()]
        assert dead == len(self.model.dead)
        payloads = {member: raw for member, (_, raw) in self.model.queued.items()}
        assert items == (payloads if self.model.key else {})

    def teardown(self) -> None:
        if hasattr(self, "sets"):
            self.sets[0].clear()
            assert servers.keys(self.server.raw) == []


def outcome(call: Callable[[Any], Any], what: Any) -> Any:
    """Return the result of a call with its types, or the promised part of its error."""
    try:
        return repr(call(what))
    except Full:
        return Full
    except AddError as error:
        return tuple(error.result), error.resume_at, error.index, repr(error.item)
    except (DecodeError, KeyError) as error:
        return type(error)
    except ValueError as error:  # a score
        return ValueError, "score" in str(error)


def cython() -> ModuleType:
    try:
        return _wire.load("cython")
    except ImportError as error:
        raise servers.Missing(f"cython: no compiled core ({error})") from None


@pytest.fixture
def wires() -> list[ModuleType]:
    """Both implementations; the only one twice if the core is not built."""
    with contextlib.suppress(servers.Missing):
        return [cython(), _wire.load("python")]
    return [_wire.load("python")] * 2


# A failing run prints the calls that led to it, and the blob and the seed that repeat it.
@pytest.mark.drawn
@pytest.mark.parametrize("kind", [SortedSet, TimeSortedSet, ScheduledSet])
def test_every_operation_does_what_the_model_does(
    any_server: servers.Server, kind: Any, wires: list[ModuleType]
) -> None:
    clients = [
        any_server.client(protocol=2),
        any_server.client(protocol=3, decode_responses=True),
    ]

    class Here(Machine):
        pass

    Here.server, Here.clients, Here.wires, Here.kind = any_server, clients, wires, kind
    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=share(30),
            stateful_step_count=40,
            deadline=None,
            phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
    for client in clients:
        client.close()


# --- the same program with both implementations


Maker = Callable[..., Any]


@contextlib.contextmanager
def recording(server: servers.Server) -> Iterator[tuple[Maker, list[bytes]]]:
    """The maker of sync sets, and the requests that their connections send."""
    requests: list[bytes] = []

    @servers.as_the_librarys
    class Recording(redis.UnixDomainSocketConnection):
        def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            requests.append(command if isinstance(command, bytes) else b"".join(command))
            super().send_packed_command(command, check_health)

    pool = redis.ConnectionPool(connection_class=Recording, path=server.unix, protocol=2)
    client = redis.Redis(connection_pool=pool)
    yield lambda cls, *args, **options: cls(client, *args, **options), requests
    client.close()


@contextlib.contextmanager
def recording_asyncio(server: servers.Server) -> Iterator[tuple[Maker, list[bytes]]]:
    """The same for asyncio sets."""
    requests: list[bytes] = []

    @servers.as_the_librarys
    class Recording(redis.asyncio.UnixDomainSocketConnection):
        async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            requests.append(command if isinstance(command, bytes) else b"".join(command))
            await super().send_packed_command(command, check_health)

    pool = redis.asyncio.ConnectionPool(connection_class=Recording, path=server.unix, protocol=2)
    client = redis.asyncio.Redis(connection_pool=pool)
    yield lambda cls, *args, **options: BlockingSet(cls, client, *args, **options), requests
    blocking.wait(pool.disconnect())


class Kinds(list[Any]):
    """Sets of a kind; `in` asks for the very object, where a list would compare their items."""

    def __contains__(self, one: object) -> bool:
        return any(one is each for each in self)


def program(  # noqa: C901 - a table of draws
    make: Maker, raw: redis.Redis, seed: int
) -> Iterator[Any]:
    """Make calls on sets of all kinds; return their results."""
    pick = random.Random(seed)
    fields = {"key": "url", "scorer": "depth"}
    plain = Kinds(
        [
            make(SortedSet, "plain"),
            make(SortedSet, "highest", lambda item: len(str(item)), duplicates="highest"),
            make(SortedSet, "few", max_size=700),
            make(TimeSortedSet, "times", duplicates="keep"),
        ]
    )
    keyed = Kinds(
        [
            make(SortedSet, "keyed", lambda item: -item["depth"], key=lambda item: item["url"]),
            make(ScheduledSet, "later", **fields),
        ]
    )
    knowing = Kinds(
        [
            make(SortedSet, "known", remember=True),
            make(SortedSet, "known for a day", remember=86400, duplicates="keep"),
        ]
    )
    both = Kinds(
        [
            make(SortedSet, "keyed and known", **fields, remember=True, duplicates="lowest"),
            make(SortedSet, "keyed and known for a day", **fields, remember=86400),
        ]
    )
    rich = make(SortedSet, "json", "depth", JSONSerializer())
    sets: list[Any] = [*plain, *keyed, *knowing, *both, rich]

    def item() -> Any:
        # Few are met often, many seldom, as links are.
        number = int(pick.expovariate(1 / 300))
        url = pick.choice(["/{}", "/ü/{}", "/日本/{}?a=b", "{}"]).format(number)
        if s in keyed or s in both or s is rich:
            return {"url": url, "depth": pick.randrange(9), "text": 'é\n"' * pick.randrange(3)}
        return pick.choice([url, url.encode(), number, None])

    def score() -> Any:
        # One that is scored by the server's clock would never be scored the same.
        own = [] if s.name == "later" else [None, None]
        return pick.choice([*own, 0, 1, -7, 0.1, 1e-7, 1 / 3, 2**53, 1e22, INF, -INF, FUTURE])

    def asked() -> Any:
        one = item()
        return Key(one["url"]) if (s in keyed or s in both) and pick.random() < 0.5 else one

    def adding() -> Iterator[Any]:
        yield [tried(s.add, item(), score(), **flags) for _ in range(10)]

    def adding_many() -> Iterator[Any]:
        items = [item() for _ in range(pick.choice([1, 50, 400, 1700]))]
        one = score()
        scores = one if pick.random() < 0.5 else [score() or 0 for _ in items]
        if pick.random() < 0.5:
            yield tried(s.add_many, items, scores, **flags, errors="skip")
        else:
            yield tried(lambda: list(s.add_new(iter(items), scores, **flags)))

    def taking() -> Iterator[Any]:
        yield tried(s.take, pick.choice([1, 30, 600]), with_scores=pick.random() < 0.5)
        yield tried(s.pop)

    def looking() -> Iterator[Any]:
        yield s.peek_many(40), s.peek_score(), list(s), s.size()
        yield s.stats()._replace(oldest_age=None, memory_bytes=0)
        what = [asked() for _ in range(40)]
        yield s.scores(what), s.score(what[0]), tried(s.get, what[1]), what[2] in s
        if s in knowing or s in both:
            yield s.seen_many(what)

    def removing() -> Iterator[Any]:
        forget = (s in knowing or s in both) and pick.random() < 0.5
        yield s.discard_many([asked() for _ in range(20)], forget), s.discard(asked(), forget)
        if forget:
            yield s.forget_many([asked() for _ in range(20)])
        if pick.random() < 0.2:
            yield s.clear(keep_memory=forget)

    def burying() -> Iterator[Any]:
        if s in plain or s in knowing:
            raw.zadd(s.name, {b"\xff" + pick.randbytes(3): -INF})
        else:
            s.serializer, proper = Text, s.serializer
            yield s.add({"url": f"no JSON {pick.random()}", "depth": 0}, -INF)
            s.serializer = proper
        yield s.take(3), [letter[1:4] for letter in s.dead]

    calls = [adding, adding_many, adding_many, adding_many, taking, looking, removing, burying]
    for _ in range(150):
        s = pick.choice(sets)
        flags = dict(pick.choice(FLAGS))
        if (s in knowing or s in both) and pick.random() < 0.2:
            flags |= pick.choice([{"again": True}, {"remember": False}])
        yield s, flags
        yield from pick.choice(calls)()


def tried(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Return the result of a call, or its text about the input or the set."""
    try:
        return call(*args, **options)
    except AddError as error:
        return type(error), str(error), error.result, error.resume_at
    except (RedsetError, KeyError) as error:
        return type(error), str(error)


def left(raw: redis.Redis) -> dict[bytes, Any]:
    """Return every key of a server, its type, and its content, except for times, which go on."""
    found: dict[bytes, Any] = {}
    for key in servers.keys(raw):
        kind = raw.type(key)
        if kind == b"zset":
            value: Any = raw.zrange(key, 0, -1, withscores=True)
            if key.endswith(b":seen"):
                value = {member for member, _ in value}
        elif kind == b"set":
            value = raw.smembers(key)
        elif kind == b"hash":
            value = raw.hgetall(key)
        else:
            value = [fields for _, fields in raw.xrange(key)]
        found[key] = kind, value
    return found


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_program_does_the_same_with_both_implementations_and_faces(
    any_server: servers.Server, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    # However slow its iterator is, a stream is cut into the same chunks.
    monkeypatch.setattr(source, "_PATIENCE", 600)
    # A report would travel at another time in each run.
    monkeypatch.setattr(reporting._process, "is_silent", True)
    # A pop or take asks for records of leases once, not once a second.
    monkeypatch.setattr(taking, "LOOK", 1e9)
    kinds = ((_wire.load("python"), recording), (cython(), recording))
    for wire, maker in (*kinds, (cython(), recording_asyncio)):
        epochs = (f"{number:016x}".encode() for number in itertools.count(seed))
        monkeypatch.setattr(_wire, "DEFAULT", wire)
        monkeypatch.setattr(adding, "new_epoch", epochs.__next__)
        monkeypatch.setattr(memory, "new_epoch", epochs.__next__)
        clock = itertools.count(PAST)
        monkeypatch.setattr("redset._faces.base.time", SimpleNamespace(time=clock.__next__))
        # The known tables use this clock. The epochs are those of the last run, so the items that
        # were known then must be unknown now.
        tables._start_again()
        monkeypatch.setattr(tables, "random", random.Random(seed))
        ticks = itertools.count(1.0, 0.01)
        monkeypatch.setattr(adding, "monotonic", ticks.__next__)
        monkeypatch.setattr(known, "monotonic", ticks.__next__)
        any_server.flush()
        with maker(any_server) as (make, requests):
            results = [repr(result) for result in program(make, any_server.raw, seed)]
        runs.append((results, requests, left(any_server.raw)))
    results, requests, stored = runs[0]
    for others, theirs, kept in runs[1:]:
        # One by one, so that the first that differs is shown.
        for result, other in zip(results, others, strict=True):
            assert result == other
        # Except for the introductions of the clients.
        pair = ([each for each in sent if b"SETINFO" not in each] for sent in (requests, theirs))
        for request, other in zip(*pair, strict=True):
            assert request == other
        assert stored == kept
    assert len(stored) > 20
