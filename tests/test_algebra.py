"""Set algebra: against a model, between sets of one server, of two, and with iterables."""

from __future__ import annotations

import collections.abc
import functools
import json
import operator
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import blocking
import proxy
import pytest
import redis
import redis.asyncio
import servers
from blocking import face_of
from held import Held
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from options import every_option, fit, made, once_more
from selection import drawn

import redset.asyncio
from redset import Key, ScheduledSet, SortedSet, TimeSortedSet
from redset._transport import link
from redset._transport.session import Session
from redset._wire.fallback import digest
from redset.exceptions import DecodeError, Full, OptionsDiffer

Maker = Callable[..., Any]
P = "jobs:{jobs}"
IN_PLACE = {"|=": operator.ior, "&=": operator.iand, "-=": operator.isub, "^=": operator.ixor}
COMPARISONS = {
    "==": operator.eq, "!=": operator.ne,
    "<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt,
}  # fmt: skip


def in_place(ours: dict[str, float], theirs: dict[str, float], what: str) -> dict[str, float]:
    """Return the result of an operator on items and scores. A union takes the lower score."""
    if what == "|=":
        lower = {n: min(score, ours.get(n, score)) for n, score in theirs.items()}
        return {**ours, **lower}
    if what == "&=":
        return {n: score for n, score in ours.items() if n in theirs}
    if what == "-=":
        return {n: score for n, score in ours.items() if n not in theirs}
    only = {n: score for n, score in theirs.items() if n not in ours}
    return {n: score for n, score in ours.items() if n not in theirs} | only


def holds(ours: set[str], theirs: set[str], what: str) -> bool:
    return bool(COMPARISONS[what](ours, theirs))


def put(jobs: Any, options: dict[str, Any], scores: dict[str, float]) -> None:
    jobs.clear()
    items = [made(options, name) for name in scores]
    assert jobs.add_many(items, list(scores.values())).added == len(scores)


def got(jobs: Any, options: dict[str, Any]) -> dict[str, float]:
    items = list(jobs)
    names = [item["url"] if "key" in options else item for item in items]
    return dict(zip(names, jobs.scores(items), strict=True))


class Places:
    """A server, and another one beside it."""

    def __init__(self, here: servers.Server, there: servers.Server) -> None:
        self.here, self.there = here, there

    def other(self, how: str, options: dict[str, Any]) -> SortedSet[Any]:
        """A second set: over the same client, another of the same server, or of another."""
        client = {
            "client": self.here.raw,
            "server": self.here.client(),
            "database": self.here.client(db=1),
            "elsewhere": self.there.raw,
        }[how]
        return SortedSet(client, "others", **options)


@pytest.fixture
def places(any_server: servers.Server, all_servers: servers.Servers) -> Iterator[Places]:
    others = [kind for kind in servers.REAL if kind != any_server.kind and servers.is_here(kind)]
    if not others:
        with servers.start(any_server.kind) as second:
            yield Places(any_server, second)
        return
    there = all_servers.get(others[0])
    there.flush()
    assert isinstance(there, servers.Server)
    yield Places(any_server, there)


SCORES = st.dictionaries(
    st.sampled_from([f"n{number}" for number in range(8)]),
    st.sampled_from([-1.5, 0.0, 1.0, 1e300]),
)


def fitted(options: dict[str, Any], scores: dict[str, float]) -> dict[str, float]:
    return {name: fit(options, score) for name, score in scores.items()}


@every_option
@pytest.mark.parametrize("how", ["client", "server", "database", "elsewhere"])
@drawn(10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(ours=SCORES, theirs=SCORES)
def test_operators_do_with_two_sets_what_a_model_does(
    places: Places,
    any_implementation: str,
    how: str,
    options: dict[str, Any],
    ours: dict[str, float],
    theirs: dict[str, float],
) -> None:
    ours, theirs = fitted(options, ours), fitted(options, theirs)
    jobs: SortedSet[Any] = SortedSet(places.here.raw, "jobs", **options)
    others = places.other(how, options)
    put(others, options, theirs)
    for what, perform in IN_PLACE.items():
        put(jobs, options, ours)
        assert perform(jobs, others) is jobs
        assert got(jobs, options) == in_place(ours, theirs, what)
        assert got(others, options) == theirs
    put(jobs, options, ours)
    for what, compare in COMPARISONS.items():
        assert compare(jobs, others) == holds(set(ours), set(theirs), what)
    assert jobs.isdisjoint(others) == set(ours).isdisjoint(theirs)


@every_option
@drawn(10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(ours=SCORES, theirs=SCORES)
def test_operators_do_with_iterables_what_a_model_does(
    any_server: servers.Server,
    any_implementation: str,
    options: dict[str, Any],
    ours: dict[str, float],
    theirs: dict[str, float],
) -> None:
    ours = fitted(options, ours)
    jobs: SortedSet[Any] = SortedSet(any_server.raw, "jobs", lambda item: 7, **options)
    given_items = [made(options, name) for name in theirs]
    for what, perform in IN_PLACE.items():
        for values in (given_items, iter(given_items * 2), tuple(given_items)):
            put(jobs, options, ours)
            perform(jobs, values)
            wanted = in_place(ours, dict.fromkeys(theirs, 7.0), what)
            if what == "|=":  # as add_many: moved, except for known items
                wanted = {**ours, **dict.fromkeys(theirs, 7.0)}
                if "remember" in options:
                    wanted.update(ours)
            assert got(jobs, options) == wanted
    put(jobs, options, ours)
    assert jobs.isdisjoint(iter(given_items)) == set(ours).isdisjoint(theirs)
    if "key" not in options:
        for what, compare in COMPARISONS.items():
            assert compare(jobs, set(theirs)) == holds(set(ours), set(theirs), what)
            assert compare(frozenset(theirs), jobs) == holds(set(theirs), set(ours), what)
            assert compare(jobs, dict.fromkeys(theirs).keys()) == holds(
                set(ours), set(theirs), what
            )


def test_sets_are_mutable_sets_as_python_has_them(client: Any) -> None:
    if isinstance(client, redis.asyncio.Redis):
        return
    for cls in (SortedSet, TimeSortedSet, ScheduledSet):
        assert issubclass(cls, collections.abc.MutableSet)
        jobs: Any = cls(client, "jobs")
        assert isinstance(jobs, collections.abc.Set)
        for name in dir(collections.abc.MutableSet):
            if not name.startswith("_"):
                assert hasattr(jobs, name), name
        for combine in (operator.and_, operator.or_, operator.sub, operator.xor):
            for pair in ((jobs, {"a"}), ({"a"}, jobs), (jobs, jobs)):
                with pytest.raises(TypeError, match="without a name"):
                    combine(*pair)
        assert jobs != "jobs" and jobs != ["a"] and jobs != 5 and jobs is not None
        assert hash(jobs) != hash(cls(client, "jobs"))
        for compare in (operator.le, operator.lt, operator.ge, operator.gt):
            with pytest.raises(TypeError, match="not supported between"):
                compare(jobs, ["a"])
        with pytest.raises(TypeError):
            jobs |= 5
        for perform in (operator.iand, operator.isub, operator.ixor, operator.ior):
            with pytest.raises(
                TypeError, match=r"(other|items) must be an iterable.*got .text. .str"
            ):
                perform(jobs, "text")
            with pytest.raises(TypeError, match=r"(other|items) must be an iterable"):
                perform(jobs, 5)


def test_the_same_set_is_equal_to_itself_without_asking() -> None:
    nowhere = redis.Redis(unix_socket_path="/nowhere", retry=None)
    jobs: SortedSet[str] = SortedSet(nowhere, "jobs")
    for same in (jobs, SortedSet(nowhere, "jobs"), SortedSet(nowhere, b"jobs", scorer=len)):
        assert jobs == same and jobs <= same and jobs >= same
        assert not (jobs != same or jobs < same or jobs > same)
    assert jobs != SortedSet(nowhere, "jobs", key="url")


# --- payloads and places of the copied items


def test_a_union_takes_the_payload_of_the_lower_score(make_set: Maker, raw: Any) -> None:
    jobs, others = make_set(key="url"), make_set(name="others", key="url")
    jobs.add_many([{"url": "a", "of": 1}, {"url": "b", "of": 1}], score=[1, 5])
    others.add_many([{"url": n, "of": 2} for n in "abc"], score=[3, 3, 3])
    jobs.update(face_of(others))
    assert jobs.take(5, with_scores=True) == [
        ({"url": "a", "of": 1}, 1.0),
        *(({"url": n, "of": 2}, 3.0) for n in sorted("bc", key=by_digest())),
    ]
    assert raw.exists(f"{P}:items") == 0
    assert others.size() == 3


def by_digest() -> Callable[[str], bytes]:
    return lambda name: digest(name.encode())


@every_option
def test_updates_of_any_size(
    make_set: Maker, server: servers.AnyServer, options: dict[str, Any]
) -> None:
    jobs, others = make_set(**options), make_set(name="others", **options)
    # fakeredis is slow, and no chunk sees how many others there are.
    large = 751 if server.kind == "fakeredis" else 1251
    for size in (249, 250, 251, 500, 501, large):
        names = [f"item {number:05}" for number in range(size)]
        others.add_many([made(options, name) for name in names], score=range(size))
        jobs.add_many([made(options, name) for name in names[::3]], score=-1)
        assert not jobs.isdisjoint(face_of(others))
        jobs.update(face_of(others))
        assert got(jobs, options) == {n: -1.0 if at % 3 == 0 else at for at, n in enumerate(names)}
        others.clear()
        assert jobs.isdisjoint(face_of(others))
        jobs.clear()


def test_a_known_item_that_is_gone_stays_out(make_set: Maker) -> None:
    jobs, others = make_set(remember=True), make_set(name="others")
    jobs.add_many(["a", "b"], score=[5, 5])
    assert jobs.pop() == "a"
    others.add_many(["a", "b", "c"], score=[1, 2, 3])
    jobs.update(face_of(others))
    assert jobs.take(5, with_scores=True) == [("b", 2.0), ("c", 3.0)]
    assert jobs.seen_many(["a", "b", "c"]) == [True, True, True]
    # Sets with different memories have items in common.
    plain = make_set(name="plain")
    plain.update(face_of(others))
    assert plain.size() == 3


@every_option
@pytest.mark.parametrize("what", ["|=", "^="])
def test_a_leased_item_waits_with_the_score_of_its_new_add(
    any_server: servers.Server, options: dict[str, Any], what: str
) -> None:
    jobs: SortedSet[Any] = SortedSet(any_server.raw, "jobs", **options)
    others: SortedSet[Any] = SortedSet(any_server.raw, "others", **options)
    item, more = made(options, "a"), once_more(options)
    jobs.add(item, 5)
    batch = jobs.lease()
    others.add_many([item, made(options, "b")], 1)
    IN_PLACE[what](jobs, others)
    # Known and gone it stays out; else it comes again when the lease has ended.
    assert list(jobs.take(5)) == [made(options, "b")]
    assert jobs.ack(batch) == 1
    assert list(jobs.take(5)) == ([] if more else [item])


def test_removing_cancels_what_is_leased(any_server: servers.Server) -> None:
    jobs: SortedSet[str] = SortedSet(any_server.raw, "jobs")
    others: SortedSet[str] = SortedSet(any_server.raw, "others")
    others.add_many(["a", "b"])
    for remove in (
        lambda: operator.isub(jobs, others),
        lambda: operator.isub(jobs, ["a"]),
    ):
        jobs.add("a")
        batch = jobs.lease()
        remove()
        assert jobs.ack(batch) == 0 and jobs.finished()
    # A leased item is not in the set: an intersection leaves it alone.
    jobs.add_many(["a", "z"], score=[1, 2])
    batch = jobs.lease()
    jobs &= others
    assert jobs.size() == 0 and jobs.ack(batch) == 1


def test_attempts_go_with_what_is_removed(any_server: servers.Server) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs")
    others: SortedSet[str] = SortedSet(raw, "others")
    jobs.add_many(["a", "b", "c"])
    others.add_many(["a", "x"])
    jobs.fail(jobs.lease(3), "no")
    jobs &= others
    assert raw.hlen(f"{P}:leases") == 1
    jobs ^= others
    assert raw.hlen(f"{P}:leases") == 0 and set(jobs) == {"x"}


# --- on one server


def transferred(raw: redis.Redis) -> int:
    stats = raw.info("stats")
    return int(stats["total_net_input_bytes"]) + int(stats["total_net_output_bytes"])


@pytest.mark.parametrize("options", [{}, {"key": "url"}], ids=str)
@pytest.mark.parametrize("what", [*IN_PLACE, "==", "<=", ">=", "isdisjoint"])
def test_between_sets_of_one_server_no_member_crosses_the_wire(
    any_server: servers.Server, options: dict[str, Any], what: str
) -> None:
    raw = any_server.raw
    jobs: SortedSet[Any] = SortedSet(raw, "jobs", **options)
    others: SortedSet[Any] = SortedSet(any_server.client(), "others", **options)
    size = 20_000
    names = [f"{number:06}".ljust(100, "x") for number in range(size)]
    others.add_many([made(options, name) for name in names], score=range(size))
    different = names[:-1] if what in ("<=", ">=", "==") else names[size // 2 :]
    if what == "isdisjoint":
        different = ["none of them"]
    jobs.add_many([made(options, name) for name in [*different, "more"]], score=size)
    calls: dict[str, Callable[[], Any]] = {
        **{sign: (lambda do=do: do(jobs, others)) for sign, do in IN_PLACE.items()},
        **{sign: (lambda do=do: do(jobs, others)) for sign, do in COMPARISONS.items()},
        "isdisjoint": lambda: jobs.isdisjoint(others),
    }
    calls[what]()  # the script is known
    before = transferred(raw)
    calls[what]()
    assert transferred(raw) - before < 1000 * size / 125 + 5000  # of 2,000,000


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", servers.REAL)
@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, 20_000),
        ({"key": "url"}, 10_000),
        pytest.param({}, 60_000, marks=pytest.mark.slow(4)),
        pytest.param({"key": "url"}, 30_000, marks=pytest.mark.slow(3)),
    ],
    ids=str,
)
def test_no_step_between_two_large_sets_holds_the_server(
    kind: str, options: dict[str, Any], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with servers.start(kind) as server:
        jobs: SortedSet[Any] = SortedSet(server.raw, "jobs", **options)
        others: SortedSet[Any] = SortedSet(server.raw, "others", **options)
        others.add_many(
            (made(options, f"item {number:07}") for number in range(size)),
            score=(number * 7919 % 1_000_003 for number in range(size)),
        )
        jobs.add_many(
            (made(options, f"item {number:07}") for number in range(size // 2, size + size // 2)),
            score=(number * 7907 % 1_000_003 for number in range(size)),
        )
        held = Held(server)
        ask = Session.ask
        monkeypatch.setattr(Session, "ask", lambda self, effect: held(ask, self, effect))
        monkeypatch.setattr(link, "ask_once", functools.partial(held, link.ask_once))
        assert not jobs.isdisjoint(others) and jobs != others and not jobs <= others
        jobs |= others
        assert len(jobs) == size + size // 2
        jobs ^= others
        jobs &= others
        assert len(jobs) == 0
        jobs |= others
        jobs -= others
        assert len(jobs) == 0
        held.check(4 * size // 250, most=len(held.calls) // 25 + 5)


# --- bad input


@pytest.mark.parametrize("what", IN_PLACE)
@pytest.mark.parametrize("options", [{}, {"key": "url"}, {"remember": True}], ids=str)
def test_a_set_with_itself_and_one_of_other_options_are_refused(
    any_server: servers.Server, options: dict[str, Any], what: str
) -> None:
    raw = any_server.raw
    jobs: SortedSet[Any] = SortedSet(raw, "jobs", **options)
    jobs.add(made(options, "a"))
    different: SortedSet[Any] = SortedSet(raw, "different", key=None if options else str)
    different.add("a" if options else {"url": "a"})
    if "key" not in options and options:
        different = SortedSet(raw, "keyed", key="url")
    before = servers.everything(raw)
    for same in (
        jobs,
        SortedSet(raw, "jobs", **options),
        SortedSet(any_server.client(), "jobs", **options),
    ):
        with pytest.raises(ValueError, match="other must be another set, and 'jobs' is the set"):
            IN_PLACE[what](jobs, same)
    with pytest.raises(OptionsDiffer, match=r"key=no.*key=yes|key=yes.*key=no"):
        IN_PLACE[what](jobs, different)
    with pytest.raises(OptionsDiffer):
        jobs.isdisjoint(different)
    with pytest.raises(OptionsDiffer):
        _ = jobs <= different
    assert jobs != different
    with pytest.raises(TypeError, match="sync and asyncio sets cannot be combined"):
        IN_PLACE[what](jobs, redset.asyncio.SortedSet(redis.asyncio.Redis(), "more"))
    assert servers.everything(raw) == before


def test_a_full_set_takes_no_more(make_set: Maker, raw: Any) -> None:
    jobs, others = make_set(max_size=300), make_set(name="others")
    others.add_many([f"{number:04}" for number in range(600)], score=range(600))
    with pytest.raises(Full, match="max_size is 300"):
        jobs.update(face_of(others))
    assert jobs.size() == 250 and others.size() == 600


def test_sets_of_different_slots_of_a_cluster_are_refused(tmp_path: Any) -> None:
    with servers.start(servers.some(least=(7,)), cluster_enabled="yes") as server:
        raw = server.raw
        raw.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        for _ in range(600):
            if "cluster_state:ok" in str(raw.execute_command("CLUSTER", "INFO")):
                break
            time.sleep(0.05)
        a, b, c = (SortedSet(raw, name) for name in ("{x}:a", "{x}:b", "{y}:c"))
        a.add("a")
        c.add("c")
        for perform in IN_PLACE.values():
            with pytest.raises(ValueError, match=r"other must be in the cluster slot.*hash tag"):
                perform(a, c)
        assert set(a) == {"a"}
        b |= a
        assert b == a


@pytest.mark.parametrize("how", ["client", "elsewhere"])
@pytest.mark.parametrize("remember", [None, True, 60])
def test_members_are_copied_as_they_are_stored(places: Places, how: str, remember: Any) -> None:
    """An item that cannot be decoded here goes to the dead letters, whatever the serializers."""
    others: Any = places.other(how, {})
    others._redis.zadd("others", {"[1": 1, "[2]": 2, b"\xff": 3})
    jobs: SortedSet[Any] = SortedSet(
        places.here.raw, "jobs", serializer=json, remember=remember, max_item_bytes=1
    )
    jobs |= others
    assert places.here.raw.zrange("jobs", 0, -1) == [b"[1", b"[2]", b"\xff"]
    assert jobs >= others and jobs.take(5) == [[2]] and jobs.dead.size() == 2


@pytest.mark.parametrize("options", [{"key": "url"}, {"key": "url", "remember": True}], ids=str)
def test_payloads_are_copied_as_they_are_stored(places: Places, options: dict[str, Any]) -> None:
    others: Any = places.other("elsewhere", {"key": "url", "serializer": json})
    others.add_many([{"url": "a", "n": 1}, {"url": "b"}], score=[1, 2])
    stored = others._redis.hgetall("others:{others}:items")
    jobs: SortedSet[Any] = SortedSet(places.here.raw, "jobs", **options)
    jobs |= others
    assert places.here.raw.hgetall(f"{P}:items") == stored
    assert jobs == others
    [digest] = [each for each in stored if b"1" in stored[each]]
    others._redis.hset("others:{others}:items", digest, "{")
    jobs.clear()
    with pytest.raises(DecodeError, match=r"an item of 'others' cannot be decoded"):
        jobs |= others


def test_a_symmetric_difference_whose_reply_is_lost_is_not_repeated(
    any_server: servers.Server,
) -> None:
    raw = any_server.raw
    SortedSet(raw, "jobs").add_many(["a", "b"])
    SortedSet(raw, "others").add_many(["b", "c"])
    with proxy.Proxy(any_server) as between:
        client = redis.Redis(port=between.port)
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        others: SortedSet[str] = SortedSet(client, "others")
        jobs.isdisjoint(others)
        lost = iter([proxy.Proxy.LOSE])
        between.rule = lambda command: next(lost, None) if b"xor" in command else None
        with pytest.raises(redis.ConnectionError):
            jobs ^= others
        client.close()
    assert set(SortedSet(raw, "jobs")) == {"a", "c"}


def pool_of_one(server: servers.Server, db: int) -> redis.Redis:
    pool = redis.BlockingConnectionPool(
        max_connections=1,
        timeout=20,
        connection_class=redis.UnixDomainSocketConnection,
        path=server.unix,
        db=db,
    )
    return redis.Redis(connection_pool=pool)


def test_two_sets_elsewhere_for_each_other_do_not_wait_for_each_other(
    any_server: servers.Server,
) -> None:
    sets: list[SortedSet[str]] = [
        SortedSet(pool_of_one(any_server, db), f"set {db}") for db in (0, 1)
    ]
    for number, jobs in enumerate(sets):
        jobs.add_many([f"{number} {n}" for n in range(5000)])
    errors: list[BaseException] = []

    def join(one: SortedSet[str], other: SortedSet[str]) -> None:
        try:
            one.update(other)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=join, args=pair, daemon=True) for pair in (sets, sets[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sets[0] == sets[1] and sets[0].size() == 10_000


def test_an_iterable_may_use_the_same_client(any_server: servers.Server) -> None:
    client = pool_of_one(any_server, 0)
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    others: SortedSet[str] = SortedSet(client, "others")
    others.add_many([f"{n}" for n in range(3000)], score=range(3000))
    jobs |= others
    jobs -= (item for item in others.between(0, 99))
    assert jobs.size() == 2900
    jobs ^= others.between(0, 149)
    assert jobs.size() == 2950
    jobs &= others.between(0, 2)
    assert set(jobs) == {"0", "1", "2"}
    assert jobs.isdisjoint(others.between(3, 9)) and not jobs.isdisjoint(iter(others))


def test_sets_with_different_keys_have_nothing_in_common(any_server: servers.Server) -> None:
    raw = any_server.raw
    jobs: SortedSet[Any] = SortedSet(raw, "jobs", key="url")
    others: SortedSet[Any] = SortedSet(raw, "others", key="id")
    others.add({"url": "u", "id": "i"})
    for call in (
        lambda: operator.ior(jobs, others),
        lambda: jobs.isdisjoint(others),
        lambda: jobs <= others,
        lambda: others.move_many([], jobs),
    ):
        with pytest.raises(OptionsDiffer, match=r"key='(url|id)'.*key='(url|id)'"):
            call()
    assert jobs != others and jobs.size() == 0


def test_equality_never_raises_for_foreign_items(any_server: servers.Server) -> None:
    raw = any_server.raw
    jobs: Any = SortedSet(raw, "jobs", key="url")
    assert jobs != {"a"} and {"a"} != jobs
    texts: Any = SortedSet(raw, "texts", serializer=json)
    assert texts != frozenset([b"bytes"])
    awaited: Any = redset.asyncio.SortedSet(redis.asyncio.Redis(), "jobs")
    assert jobs != awaited and awaited != jobs and jobs not in [awaited] and awaited not in [jobs]


def test_equality_is_false_although_key_or_serializer_raises(any_server: servers.Server) -> None:
    raw = any_server.raw

    class Picky:
        @staticmethod
        def dumps(item: Any) -> str:
            return {"a": "a"}[item]

    jobs: SortedSet[Any] = SortedSet(raw, "jobs", serializer=Picky())
    keyed: SortedSet[Any] = SortedSet(raw, "keyed", key=lambda item: item.url)
    for some in (jobs, keyed):
        assert some != {1} and some != {"b"}
        with pytest.raises((KeyError, AttributeError)):
            _ = some <= {1}
    jobs.add("a")
    assert jobs == {"a"}


def test_text_that_is_not_utf_8_is_named_by_its_position(make_set: Maker, raw: Any) -> None:
    jobs = make_set()
    jobs.add_many(["a", "b"])
    for call in (
        lambda: jobs.scores(["a", "b", "\ud800"]),
        lambda: jobs.discard_many(["a", "b", "\ud800"]),
    ):
        with pytest.raises(ValueError, match=r"item 2: .*surrogates not allowed"):
            call()
    assert jobs.size() == 2


@pytest.mark.parametrize("remember", [None, True])
def test_an_item_larger_than_the_others_max_item_bytes_is_copied(
    places: Places, remember: Any
) -> None:
    """A union copies stored items, also if an add of the other set would refuse them."""
    jobs: SortedSet[Any] = SortedSet(places.here.raw, "jobs", key="url", remember=remember)
    for how in ("client", "elsewhere"):
        places.other(how, {"key": "url"}).add({"url": "x" * 50})
        other = places.other(how, {"key": "url", "max_item_bytes": 20})
        jobs.update(other)
        assert jobs == other
        jobs.clear()


def test_places_in_errors_are_those_of_the_iterable(any_server: servers.Server) -> None:
    jobs: SortedSet[Any] = SortedSet(any_server.raw, "jobs", key="url")
    items = [{"url": f"{n}"} for n in range(1500)]
    for perform in (IN_PLACE["-="], IN_PLACE["&="], IN_PLACE["^="]):
        with pytest.raises(ValueError, match=r"item 1500: .*'url'"):
            perform(jobs, iter([*items, {}]))
    with pytest.raises(ValueError, match=r"item 1500: .*'url'"):
        jobs.isdisjoint([*items, {}])
    with pytest.raises(TypeError, match="item 1500 must be an item to add, got a Key"):
        jobs ^= [*items, Key("x")]
    assert jobs.size() == 0


def test_a_key_of_another_type_is_noticed_before_anything_is_written(
    any_server: servers.Server,
) -> None:
    raw = any_server.raw
    for key in ("jobs:{jobs}:items", "jobs:{jobs}:leased", "others:{others}:items"):
        raw.flushall()
        jobs: SortedSet[Any] = SortedSet(raw, "jobs", key="url")
        others: SortedSet[Any] = SortedSet(raw, "others", key="url")
        jobs.add_many([{"url": "a"}, {"url": "b"}])
        others.add_many([{"url": "b"}, {"url": "c"}])
        jobs.fail(jobs.lease(1), "no")
        raw.delete(key)
        raw.set(key, "text")
        before = servers.everything(raw)
        for perform in IN_PLACE.values():
            with pytest.raises(redis.ResponseError, match=r"WRONGTYPE|wrong kind"):
                perform(jobs, others)
        assert servers.everything(raw) == before


def test_equal_scores_and_long_common_beginnings_are_paged_right(
    any_server: servers.Server,
) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs")
    others: SortedSet[str] = SortedSet(raw, "others")
    names = ["x" * size + f"{n:04}" for n in range(700) for size in (63, 64, 65, 127, 1000)]
    jobs.add_many(names)
    others.add_many(names[::2])
    jobs &= others
    assert set(jobs) == set(names[::2])


# --- asyncio


def test_asyncio_sets_of_two_servers_are_joined(places: Places) -> None:
    async def main() -> None:
        here = redis.asyncio.Redis(unix_socket_path=places.here.unix)
        there = redis.asyncio.Redis(unix_socket_path=places.there.unix)
        jobs = redset.asyncio.SortedSet(here, "jobs")
        others = redset.asyncio.SortedSet(there, "others")
        await others.add_many([f"{number}" for number in range(2500)], score=range(2500))
        assert await jobs.isdisjoint(others)
        await jobs.update(others)
        assert await jobs.size() == 2500 and await jobs.score("2499") == 2499
        assert not await jobs.isdisjoint(others)
        assert not await jobs.isdisjoint(["x", "5"])

        async def trickle() -> Any:
            for name in ("x", "y"):
                yield name

        await jobs.update(trickle())
        assert await jobs.size() == 2502
        with pytest.raises(ValueError, match="the set itself"):
            await jobs.update(jobs)
        await servers.aclose(here)
        await servers.aclose(there)

    blocking.wait(main())


# --- moving


@every_option
def test_items_move_with_score_and_payload(
    make_set: Maker, raw: Any, options: dict[str, Any]
) -> None:
    jobs, others = make_set(**options), make_set(name="others", **options)
    for size in (1, 125, 126, 250, 251, 1100):
        items = [made(options, f"item {number:05}") for number in range(size + 3)]
        jobs.add_many(items, score=range(size + 3))
        gone = jobs.take(1)
        assert gone == items[:1]
        # An item that is named twice moves once; an item that is not queued is skipped.
        assert jobs.move_many([*items[: size + 1], *items[:2]], face_of(others)) == size
        assert list(jobs) == items[size + 1 :]
        assert others.take(5000, with_scores=True) == [
            (item, float(at + 1)) for at, item in enumerate(items[1 : size + 1])
        ]
        assert (
            jobs.move_many([], face_of(others)) == jobs.move_many(items[:1], face_of(others)) == 0
        )
        if "remember" in options:
            assert all(others.seen_many(items[1 : size + 1])) and not others.seen(items[0])
            assert all(jobs.seen_many(items))
        if "key" in options:
            assert raw.hlen(f"{P}:items") == 2 and raw.exists("others:{others}:items") == 0
        jobs.clear()
        others.clear()


def test_items_that_the_other_set_refuses_stay(make_set: Maker, raw: Any) -> None:
    jobs, others = make_set(), make_set(name="others", duplicates="lowest")
    jobs.add_many(["a", "b", "c"], score=[1, 2, 3])
    others.add_many(["a", "b"], score=[0, 9])
    assert jobs.move_many(["a", "b", "c"], face_of(others)) == 2
    assert jobs.take(5) == ["a"]
    assert others.take(5, with_scores=True) == [("a", 0.0), ("b", 2.0), ("c", 3.0)]
    known = make_set(name="known", remember=True)
    known.add_many(["a"])
    known.take(1)
    jobs.add_many(["a", "b"])
    assert jobs.move_many(["a", "b"], face_of(known)) == 1
    assert (jobs.take(5), known.take(5)) == (["a"], ["b"])
    # It was cleared by another process: its memory is another one now.
    make_set(name="known", remember=True).clear()
    jobs.add_many(["a", "b"])
    assert jobs.move_many(["a", "b"], face_of(known)) == 2
    full = make_set(name="full", max_size=1)
    jobs.add_many(["a", "b"])
    with pytest.raises(Full, match="max_size is 1"):
        jobs.move_many(["a", "b"], face_of(full))
    assert jobs.size() == 2 and full.size() == 0


@every_option
def test_leases_stay_and_attempts_start_again(
    any_server: servers.Server, options: dict[str, Any]
) -> None:
    raw = any_server.raw
    jobs: SortedSet[Any] = SortedSet(raw, "jobs", **options)
    others: SortedSet[Any] = SortedSet(raw, "others", **options)
    leased, failed = made(options, "leased"), made(options, "failed")
    jobs.add_many([leased, failed], score=[1, 2])
    jobs.fail(jobs.lease(2), "no")
    held = jobs.lease(1)
    assert jobs.move_many([leased, failed], others) == 1
    [moved] = others.lease()
    assert (moved.item, moved.score, moved.attempts) == (failed, 2.0, 0)
    assert raw.hlen(f"{P}:leases") == 1
    # It waits for the end of the other's lease, there.
    jobs.add(failed, 5, **(once_more(options)))
    more = 0 if "remember" in options else 1
    assert jobs.move_many([failed], others) == more
    assert others.ack([moved]) == 1 and others.size() == more
    assert jobs.ack(held) == 1


@pytest.mark.parametrize("options", [{}, {"key": "url"}], ids=str)
def test_a_bad_move_is_refused(places: Places, options: dict[str, Any]) -> None:
    raw = places.here.raw
    jobs: SortedSet[Any] = SortedSet(raw, "jobs", **options)
    jobs.add(made(options, "a"))
    before = servers.everything(raw)
    items = [made(options, "a")]
    for other, error, text in (
        (jobs, ValueError, "other must be another set"),
        (places.other("elsewhere", options), ValueError, "other must be on the server of 'jobs'"),
        (places.other("database", options), ValueError, "other must be on the server of 'jobs'"),
        ({"a"}, TypeError, "other must be a set of redset's, got {'a'} .set."),
        ("others", TypeError, "other must be a set of redset's, got 'others' .str."),
        (SortedSet(raw, "o", key=None if options else "url"), OptionsDiffer, "key="),
        (redset.asyncio.SortedSet(redis.asyncio.Redis(), "o"), TypeError, "cannot be combined"),
    ):
        with pytest.raises(error, match=text):
            jobs.move_many(items, other)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"items must be an iterable of items, got .* .str."):
        jobs.move_many("a", SortedSet(raw, "others", **options))
    if options:
        with pytest.raises(ValueError, match=r"item 1: .*has no field 'url'"):
            jobs.move_many([*items, {"no": 1}], SortedSet(raw, "others", **options))
        plain: SortedSet[str] = SortedSet(raw, "others")
        plain.add("a")
        with pytest.raises(OptionsDiffer):
            jobs.move_many(items, SortedSet(raw, "others", **options))
        plain.clear()
    assert servers.everything(raw) == before


def test_a_full_server_moves_nothing_and_loses_nothing(any_server: servers.Server) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs")
    jobs.add_many([f"item {number}" for number in range(100)])
    before = servers.everything(raw)
    raw.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            jobs.move_many(["item 1", "item 2"], SortedSet(raw, "others"))
    finally:
        raw.config_set("maxmemory", 0)
    assert servers.everything(raw) == before
