"""The memory: forever, in buckets that split, and for a time, to the millisecond."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import Any

import children
import pytest
import redis
import servers
from held import Held
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st
from proxy import Proxy
from selection import drawn

from redset import AddResult, Key, SortedSet
from redset._operations import memory
from redset._operations.limits import MEMORY_STEP
from redset.scripts import script

P = "jobs:{jobs}"
EVER: list[dict[str, Any]] = [{"remember": True}, {"remember": True, "key": str}]
LIMITED: list[dict[str, Any]] = [{"remember": 60}, {"remember": 60, "key": str}]


def url(number: int) -> str:
    return f"https://example.org/articles/{number % 97}/{number:012d}.html"


def urls(first: int, last: int) -> Iterator[str]:
    return map(url, range(first, last))


def digest(item: str) -> bytes:
    return blake2b(item.encode(), digest_size=16).digest()


def integer(item: str, epoch: bytes) -> int:
    """The 64 bits by which an item is remembered forever."""
    data = blake2b(digest(item), digest_size=8, key=epoch).digest()
    return int.from_bytes(data, "little", signed=True)


def buckets(raw: Any) -> dict[bytes, set[bytes]]:
    """The integers of every bucket, of whatever epoch."""
    names = list(raw.scan_iter(f"{P}:seen:*", count=1000))
    return {name: raw.smembers(name) for name in names}


def assert_remembered(raw: Any, items: Iterable[str]) -> None:
    """The memory forever holds these and nothing else, each in its bucket."""
    meta = raw.hgetall(f"{P}:meta")
    epoch = meta.get(b"epoch", b"")
    size, split = 2 ** int(meta.get(b"level", 0)), int(meta.get(b"split", 0))
    assert 0 <= split < size
    found = set()
    for name, integers in buckets(raw).items():
        prefix, _, number = name.rpartition(b":")
        assert prefix == P.encode() + b":seen:" + epoch
        assert 0 <= int(number) < size + split
        for each in integers:
            low = abs(int(each[-9:]))
            home = low % size if low % size >= split else low % (2 * size)
            assert home == int(number)
            found.add(int(each))
    assert found == {integer(item, epoch) for item in items}
    assert int(meta.get(b"count", 0)) == len(found)


def milliseconds(raw: Any) -> int:
    seconds, micros = raw.time()
    return int(seconds) * 1000 + int(micros) // 1000


# --- forever: the buckets


@pytest.mark.parametrize("options", EVER, ids=str)
def test_an_item_is_remembered_as_64_bits_that_only_the_epoch_gives(
    make_set: Callable[..., Any], raw: Any, options: Any
) -> None:
    jobs = make_set(**options)
    items = [*urls(0, 100), "ü", ""]
    assert jobs.add_many(items).added == 102
    epoch = raw.hget(f"{P}:meta", "epoch")
    (bucket,) = buckets(raw).values()
    assert {int(each) for each in bucket} == {integer(item, epoch) for item in items}
    assert all(-(2**63) <= int(each) < 2**63 for each in bucket)
    # The same items under another epoch have nothing in common with these.
    jobs.clear()
    jobs.add_many(items)
    (other,) = buckets(raw).values()
    assert len(other) == 102
    assert not other & bucket


def test_every_memory_has_an_epoch_of_its_own(make_set: Callable[..., Any], raw: Any) -> None:
    epochs = set()
    for number in range(8):
        jobs = make_set(name=f"jobs-{number % 4}", remember=True if number % 2 else 60)
        jobs.add("a")
        epochs.add(raw.hget(f"jobs-{number % 4}:{{jobs-{number % 4}}}:meta", "epoch"))
        jobs.clear()
    assert len(epochs) == 8
    # Random in all of its bits: this fails by chance once in 10^30 runs or less.
    bits = [format(int(epoch, 16), "064b") for epoch in epochs]
    assert all(len(bit) == 64 for bit in bits)
    assert len({bit[:16] for bit in bits}) > 2
    assert len({bit[-16:] for bit in bits}) > 2


class Recording:
    """A client that keeps the commands that it was given."""

    def __init__(self, server: servers.Server) -> None:
        self._client = server.client(protocol=2)
        self._client.response_callbacks.clear()
        self.commands: list[tuple[Any, ...]] = []

    def execute_command(self, *args: Any) -> Any:
        self.commands.append(args)
        return self._client.execute_command(*args)


@pytest.mark.parametrize("options", [*EVER, *LIMITED], ids=str)
def test_the_epoch_is_learnt_once_an_object(any_server: servers.Server, options: Any) -> None:
    SortedSet(any_server.client(), "jobs", **options).add("before")
    client = Recording(any_server)
    jobs: SortedSet[str] = SortedSet(client, "jobs", **options)
    assert client.commands == []
    for number in range(3):
        jobs.add(f"a{number}")
        jobs.add_many([f"b{number}", f"c{number}"], nx=True)
        assert jobs.seen_many([f"a{number}", "d"]) == [True, False]
        jobs.forget("a")
        jobs.discard("b", forget=True)
    asked = [args for args in client.commands if args[0] == "HGET"]
    assert asked == [("HGET", f"{P}:meta".encode(), b"epoch")]
    # The reply to a step with the wrong epoch has the right one.
    SortedSet(any_server.client(), "jobs", **options).clear()
    SortedSet(any_server.client(), "jobs", **options).add("after")
    client.commands.clear()
    assert jobs.add_many(["after", "new"]) == (1, 0, 1, 0)
    assert [args[0] for args in client.commands] == ["EVALSHA", "EVALSHA"]


# The action on the set, its object, the first number, the count.
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(
            "add add add new again forget forget discard take clear keep seen".split()  # noqa: SIM905
        ),
        st.integers(0, 2),
        st.integers(0, 4000),
        st.integers(1, 1500),
    ),
    max_size=12,
)


@drawn(
    15,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(options=st.sampled_from([*EVER, *EVER, *LIMITED]), operations=OPERATIONS)
def test_a_memory_that_splits_is_a_set_of_items(
    any_server: servers.Server,
    any_implementation: str,
    options: dict[str, Any],
    operations: list[tuple[str, int, int, int]],
) -> None:
    any_server.flush()
    clients = [any_server.client() for _ in range(3)]
    writers: list[SortedSet[str]] = [SortedSet(client, "jobs", **options) for client in clients]
    known: set[str] = set()
    queued: set[str] = set()
    for what, writer, first, count in [("add", 0, 0, 2500), *operations]:
        jobs = writers[writer]
        items = list(urls(first, first + count))
        fresh = set(items) - known
        gone = set(items) - queued
        if what == "add":
            updated = len(fresh & queued)
            added = len(fresh) - updated
            assert jobs.add_many(items) == (added, updated, count - added - updated, 0)
            known |= fresh
            queued |= fresh
        elif what == "new":
            assert list(jobs.add_new(items * 2, nx=True)) == [
                item for item in items if item in fresh - queued
            ]
            known |= fresh - queued
            queued |= fresh
        elif what == "again":
            assert jobs.add_many(items, again=True) == (len(gone), count - len(gone), 0, 0)
            known.update(items)
            queued.update(items)
        elif what == "forget":
            assert jobs.forget_many(items) == count - len(fresh)
            known -= set(items)
        elif what == "discard":
            assert jobs.discard_many(items, forget=True) == count - len(gone)
            known -= set(items)
            queued -= set(items)
        elif what == "take":
            taken = jobs.take(count)
            assert len(set(taken)) == len(taken) == min(count, len(queued))
            queued -= set(taken)
        elif what == "seen":
            assert jobs.seen_many(items) == [item in known for item in items]
        else:
            assert jobs.clear(keep_memory=what == "keep") == len(queued)
            queued = set()
            if what == "clear":
                known = set()
    if options["remember"] is True:
        assert_remembered(any_server.raw, known)
    else:
        assert set(any_server.raw.zrange(f"{P}:seen", 0, -1)) == set(map(digest, known))
    assert {*writers[0]} == queued
    assert writers[1].stats().remembered == len(known)
    everything = list(urls(0, 5500))
    assert writers[2].seen_many(everything) == [item in known for item in everything]
    for client in clients:
        client.close()


def test_buckets_split_one_by_one_as_the_memory_grows(
    any_server: servers.Server, server_client: redis.Redis
) -> None:
    jobs: SortedSet[str] = SortedSet(server_client, "jobs", remember=True)
    numbers = [1]
    for first in range(0, 20_000, 250):
        jobs.add_many(urls(first, first + 250))
        level, split = map(int, any_server.raw.hmget(f"{P}:meta", "level", "split"))
        numbers.append(2**level + split)
        # So many a bucket on average that those not yet split stay below 512.
        assert (first + 250) / numbers[-1] <= 256
    growth = [after - before for before, after in itertools.pairwise(numbers)]
    assert all(0 <= step <= 6 for step in growth)
    assert numbers[-1] >= 80
    assert_remembered(any_server.raw, urls(0, 20_000))
    encodings = [any_server.raw.object("encoding", name) for name in buckets(any_server.raw)]
    assert encodings.count(b"intset") >= 0.95 * len(encodings)


# --- forever: several writers


def write(path: str, writer: int, rounds: int, results: Any) -> None:
    """Add the common items, and add, forget and check this one's own."""
    client = redis.Redis(unix_socket_path=path)
    jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True)
    shared = own = 0
    for number in range(rounds):
        shared += jobs.add_many(urls(number * 500, number * 500 + 1500)).added
        first = 100_000 * (writer + 1) + number * 400
        own += jobs.add_many(urls(first, first + 400)).added
        # The later half is forgotten, and a quarter of that learnt again.
        own -= jobs.forget_many(urls(first + 200, first + 400))
        own += jobs.add_many(urls(first + 350, first + 400), again=True).updated
    results.put((shared, own))


@pytest.mark.slow(4)
def test_processes_that_write_at_once_make_one_memory(any_server: servers.Server) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(children.process(write, any_server.unix, writer, 12, results))
            for writer in range(3)
        ]
        for process in processes:
            children.join(process)
    counts = [results.get() for _ in processes]
    shared = set(urls(0, 11 * 500 + 1500))
    own = {
        url(100_000 * (writer + 1) + number * 400 + place)
        for writer in range(3)
        for number in range(12)
        for place in (*range(200), *range(350, 400))
    }
    assert sum(added for added, _ in counts) == len(shared)
    assert sum(left for _, left in counts) == len(own)
    assert_remembered(any_server.raw, shared | own)


def test_a_chunk_is_wholly_before_a_clear_or_wholly_after_it(any_server: servers.Server) -> None:
    failures: list[BaseException] = []
    stop = threading.Event()

    def produce(writer: int) -> None:
        client = any_server.client()
        jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True)
        number = 0
        try:
            while not stop.is_set():
                first = writer * 10**6 + number * 1000
                jobs.add_many(urls(first, first + 1500))
                jobs.add(url(first))
                number += 1
        except BaseException as error:
            failures.append(error)
        finally:
            client.close()

    client = any_server.client()
    jobs: SortedSet[str] = SortedSet(client, "jobs", remember=True)
    threads = [threading.Thread(target=produce, args=(writer,), daemon=True) for writer in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(15):
        until = time.monotonic() + 10
        while jobs.size() < 2000 and time.monotonic() < until:
            pass
        jobs.clear()
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    # Known items and queued items came together and went together.
    assert_remembered(any_server.raw, jobs)
    jobs.clear()
    assert servers.keys(any_server.raw) == []
    client.close()


# --- forever: many


class Watched(Recording):
    """A client that measures each of its commands."""

    def __init__(self, server: servers.Server, held: Held) -> None:
        super().__init__(server)
        self._held = held

    def execute_command(self, *args: Any) -> Any:
        if args[0] != "EVALSHA":
            return super().execute_command(*args)
        return self._held(super().execute_command, *args)


def used_memory(server: servers.Server) -> int:
    until = time.monotonic() + 20
    while server.raw.info("memory")["lazyfree_pending_objects"] and time.monotonic() < until:
        time.sleep(0.01)
    return int(server.raw.info("memory")["used_memory"])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", servers.REAL)
@pytest.mark.parametrize("number", [50_000, pytest.param(300_000, marks=pytest.mark.slow(6))])
def test_urls_are_remembered_in_12_bytes_each_and_nobody_waits_for_it(
    kind: str, number: int
) -> None:
    with servers.start(kind) as server:
        jobs: SortedSet[str] = SortedSet(server.client(), "jobs", remember=True)
        held = Held(server)
        jobs.add("warm up")
        jobs.clear()
        empty = used_memory(server)

        for first in range(0, number, 250):
            assert held(jobs.add_many, list(urls(first, first + 250))).added == 250
            if first % 50_000 == 0:
                server.raw.unlink("jobs")  # as if handed out
        server.raw.unlink("jobs")
        held.check(number // 250)
        # Redis 8 takes 70 kB more whatever their number.
        assert used_memory(server) - empty <= 12 * number + 100_000
        half = number // 2
        assert jobs.add_many(urls(half, half + 10_000)).refused == 10_000
        assert jobs.stats().remembered == number
        epoch = server.raw.hget(f"{P}:meta", "epoch").decode()
        level, split = map(int, server.raw.hmget(f"{P}:meta", "level", "split"))
        with server.raw.pipeline(transaction=False) as pipeline:
            for bucket in range(2**level + split):
                pipeline.object("encoding", f"{P}:seen:{epoch}:{bucket}")
            encodings = pipeline.execute()
        assert encodings.count(b"intset") >= 0.95 * len(encodings)

        fifth, quarter = number // 5, number // 4
        for first in range(fifth, quarter, MEMORY_STEP):
            assert held(jobs.forget_many, urls(first, first + MEMORY_STEP)) == MEMORY_STEP
        held.check(number // 10_000)
        asked = [url(fifth - 1), url(fifth), url(quarter)]
        assert jobs.seen_many(asked) == [True, False, True]

        jobs.add_many(urls(number, number + 50_000))
        assert SortedSet(Watched(server, held), "jobs", remember=True).clear() == 50_000
        held.check(max(1, number // 100_000))
        assert server.raw.dbsize() == 0


# --- clear


class Died(Exception):
    pass


class Dying(Recording):
    """A client whose process dies after so many steps of sweeping."""

    def __init__(self, server: servers.Server, sweeps: int) -> None:
        super().__init__(server)
        self.sweeps = sweeps

    def execute_command(self, *args: Any) -> Any:
        if args[:2] == ("EVALSHA", script("sweep").sha):
            if self.sweeps == 0:
                raise Died
            reply = super().execute_command(*args)
            self.sweeps -= 1  # Not if the server did not know the script.
            return reply
        return super().execute_command(*args)


@pytest.fixture
def small_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few buckets a step, so that a small memory takes several."""
    monkeypatch.setattr(memory, "SWEEP", 10)


def cleared_by_one_who_died(server: servers.Server, sweeps: int, **options: Any) -> int:
    """Fill a set with 30,000 and let its clear die; how many buckets are left over."""
    dying: SortedSet[str] = SortedSet(Dying(server, sweeps), "jobs", remember=True, **options)
    dying.add_many(urls(0, 30_000))
    before = len(buckets(server.raw))
    assert before > 150
    with pytest.raises(Died):
        dying.clear()
    left = len(buckets(server.raw))
    assert left == before - 10 * sweeps
    return left


@pytest.mark.parametrize("sweeps", [0, 3])
@pytest.mark.parametrize("options", [{}, {"key": str}], ids=str)
def test_clear_takes_effect_in_its_first_step(
    any_server: servers.Server,
    server_client: redis.Redis,
    small_sweeps: None,
    options: Any,
    sweeps: int,
) -> None:
    witness: SortedSet[str] = SortedSet(server_client, "jobs", remember=True, **options)
    assert witness.add("witness") == 0
    assert witness.seen("witness")
    left = cleared_by_one_who_died(any_server, sweeps, **options)
    # No item is queued and none is known, for any object.
    assert witness.size() == 0
    for jobs in (witness, SortedSet(server_client, "jobs", remember=True, **options)):
        assert jobs.seen_many(["witness", *urls(0, 10_000)]) == [False] * 10_001
        assert jobs.forget_many(urls(0, 100)) == 0
        assert jobs.stats()[:5] == (0, 0, 0, 0, 0)
        assert len(buckets(any_server.raw)) == left
    old = any_server.raw.hget(f"{P}:meta", "old")
    assert int(old.split(b":")[1]) == left


def test_the_next_clear_finishes_one_that_died(
    any_server: servers.Server, server_client: redis.Redis, small_sweeps: None
) -> None:
    cleared_by_one_who_died(any_server, 2)
    jobs: SortedSet[str] = SortedSet(server_client, "jobs", remember=True)
    assert jobs.clear() == 0
    assert servers.keys(any_server.raw) == []


def test_clears_that_died_one_after_another_are_all_finished(
    any_server: servers.Server, server_client: redis.Redis, small_sweeps: None
) -> None:
    left = cleared_by_one_who_died(any_server, 2)
    first: SortedSet[str] = SortedSet(Dying(any_server, 0), "jobs", remember=True)
    with pytest.raises(Died):
        first.clear()
    assert len(buckets(any_server.raw)) == left
    # One that has a memory of its own again by then.
    first.add_many(urls(0, 200))
    now = len(buckets(any_server.raw))
    assert 2 < now < left
    with pytest.raises(Died):
        first.clear()
    assert len(buckets(any_server.raw)) == now
    jobs: SortedSet[str] = SortedSet(server_client, "jobs", remember=True)
    assert jobs.add("a") == 0
    jobs.clear()
    assert servers.keys(any_server.raw) == []


@pytest.mark.parametrize("options", [{}, {"key": str}], ids=str)
@pytest.mark.parametrize("single", [True, False])
def test_adds_finish_a_clear_that_died(
    any_server: servers.Server,
    server_client: redis.Redis,
    small_sweeps: None,
    options: Any,
    single: bool,
) -> None:
    left = cleared_by_one_who_died(any_server, 0, **options)
    jobs: SortedSet[str] = SortedSet(server_client, "jobs", remember=True, **options)
    epoch = any_server.raw.hget(f"{P}:meta", "epoch")
    known: list[str] = []
    for step in range(100):
        items = [url(step)] if single else list(urls(step * 250, step * 250 + 250))
        assert jobs.add_many(items).added == len(items)
        known += items
        assert jobs.seen_many(items) == [True] * len(items)
        old = [name for name in buckets(any_server.raw) if epoch not in name]
        assert left - len(old) <= 100  # a bounded number a step
        left = len(old)
        if not left:
            break
    assert left == 0
    assert not any_server.raw.hexists(f"{P}:meta", "old")
    assert any_server.raw.hget(f"{P}:meta", "epoch") == epoch
    assert_remembered(any_server.raw, known)
    assert jobs.add_many(known) == (0, 0, len(known), 0)


def test_an_unused_meta_goes_with_the_last_old_bucket(
    any_server: servers.Server, server_client: redis.Redis, small_sweeps: None
) -> None:
    cleared_by_one_who_died(any_server, 0)
    jobs: SortedSet[str] = SortedSet(server_client, "jobs", remember=True)
    # Steps that add nothing sweep all the same.
    for _ in range(100):
        assert jobs.add("a", xx=True) is None
    assert servers.keys(any_server.raw) == []
    assert jobs.add_many(["a", "b"]).added == 2
    assert_remembered(any_server.raw, ["a", "b"])


@pytest.mark.parametrize("others", [{"remember": 60}, {"key": str}, {"key": str, "remember": 60}])
def test_a_cleared_set_may_be_of_another_kind_before_all_is_swept(
    any_server: servers.Server, server_client: redis.Redis, small_sweeps: None, others: Any
) -> None:
    cleared_by_one_who_died(any_server, 0)
    jobs: SortedSet[str] = SortedSet(server_client, "jobs", **others)
    for number in range(10):
        assert jobs.add(f"{number}") == 0
    assert buckets(any_server.raw) == {}
    assert jobs.size() == 10
    assert jobs.clear() == 10
    assert servers.keys(any_server.raw) == []


@pytest.mark.parametrize("options", [{}, {"key": str}, *EVER, *LIMITED], ids=str)
def test_clear_leaves_nothing(make_set: Callable[..., Any], raw: Any, options: Any) -> None:
    jobs = make_set(**options)
    assert jobs.clear() == 0
    assert jobs.add_many(urls(0, 2000)).added == 2000
    jobs.take(500)
    assert jobs.clear() == 1500
    assert servers.keys(raw) == []
    assert jobs.clear() == 0
    assert jobs.clear() == 0
    assert servers.keys(raw) == []
    assert jobs.add("a") == 0
    assert jobs.pop() == "a"
    assert not jobs.clear()  # known, and not queued
    assert servers.keys(raw) == []


@pytest.mark.parametrize("options", [*EVER, *LIMITED], ids=str)
def test_an_item_may_be_accepted_without_being_remembered(
    make_set: Callable[..., Any], options: Any
) -> None:
    jobs = make_set(**options)
    assert jobs.add("a", 1, remember=False) == 1
    assert jobs.add("a", 2, remember=False) == 2  # queued and not known: moved
    assert jobs.add("known", 1, remember=True) == 1
    assert jobs.add("known", 2, remember=False) is None
    many = list(urls(0, 600))
    assert jobs.add_many([*many, *many, "known"], 5, remember=False) == (600, 600, 1, 0)
    assert jobs.seen_many(["a", "known", *many]) == [False, True] + [False] * 600
    assert len(jobs.take(1000)) == 602
    assert list(jobs.add_new(["known", *many[:3]], remember=False)) == many[:3]
    assert jobs.add_many(many, nx=True, remember=False) == (597, 0, 3, 0)
    # Known items stay known, for as long as before.
    assert jobs.add("known", again=True, remember=False) == 0
    assert jobs.seen_many(["known", *many]) == [True] + [False] * 600
    with jobs.buffered() as writer:
        writer.add("written", remember=False)
        writer.add("written and known")
    assert jobs.seen_many(["written", "written and known"]) == [False, True]
    # Accepted as usual, it becomes known.
    assert jobs.add_many(many[:10]) == (0, 10, 0, 0)
    assert jobs.seen_many(many[:11]) == [True] * 10 + [False]


@pytest.mark.parametrize("options", [{}, {"key": str}, {"ties": "fifo"}], ids=str)
def test_a_set_without_a_memory_accepts_remember_false(
    make_set: Callable[..., Any], options: Any
) -> None:
    jobs = make_set(**options)
    assert jobs.add("a", 1, remember=False) == 1
    assert jobs.add_many(["a", "b", "b"], 2, remember=False) == (1, 2, 0, 0)
    assert sorted(jobs.take(5)) == ["a", "b"]


@pytest.mark.parametrize("wrong", [0, 1, 60, "no", []], ids=repr)
def test_the_argument_remember_is_checked(
    make_set: Callable[..., Any], raw: Any, wrong: Any
) -> None:
    jobs = make_set(remember=True)
    jobs.add("a", remember=False)
    jobs.add("b", remember=True)
    jobs.add_many(["a"], remember=False)
    before = servers.everything(raw)
    for call in (
        lambda: jobs.add("c", remember=wrong),
        lambda: jobs.add_many(["c"], remember=wrong),
        lambda: list(jobs.add_new(["c"], remember=wrong)),
    ):
        with pytest.raises(TypeError, match=r"^remember must be False, True or None .*, got "):
            call()
    with jobs.buffered() as writer:
        writer.add("a", remember=True)
        with pytest.raises(TypeError, match=r"^remember must be False, True or None .*, got "):
            writer.add("c", remember=wrong)
    assert servers.everything(raw).keys() == before.keys() and jobs.size() == 2


@pytest.mark.parametrize("options", [*EVER, *LIMITED], ids=str)
def test_a_memory_may_be_kept_over_a_clear(
    make_set: Callable[..., Any], raw: Any, options: Any
) -> None:
    jobs = make_set(**options)
    jobs.add_many(urls(0, 1000))
    jobs.take(300)
    kept = {
        name: raw.dump(name)
        for name in servers.keys(raw)
        if name.startswith((f"{P}:seen".encode(), f"{P}:meta".encode()))
    }
    assert jobs.clear(keep_memory=True) == 700
    assert {name: raw.dump(name) for name in servers.keys(raw)} == kept
    assert jobs.clear(keep_memory=True) == 0
    other = make_set(**options)
    for each in (jobs, other):
        assert each.seen_many(urls(0, 1000)) == [True] * 1000
        assert each.add_many(urls(500, 900)) == (0, 0, 400, 0)
    assert other.add_many(urls(900, 1100)) == (100, 0, 100, 0)
    assert jobs.clear() == 100
    assert servers.keys(raw) == []


CALLS: dict[str, tuple[Callable[[SortedSet[str]], Any], Any, list[str]]] = {
    # name: (the call, its result if the set has been cleared, the known items after it)
    "add": (lambda jobs: jobs.add("a", 5), 5, ["a"]),
    "add nx": (lambda jobs: jobs.add("a", 5, nx=True), 5, ["a"]),
    "add xx": (lambda jobs: jobs.add("a", 5, xx=True), None, []),
    "add again": (lambda jobs: jobs.add("a", 5, again=True), 5, ["a"]),
    "add_many": (lambda jobs: jobs.add_many(["a", "b", "a"]), AddResult(2, 0, 1), ["a", "b"]),
    "add_new": (lambda jobs: list(jobs.add_new(["a", "b", "a"])), ["a", "b"], ["a", "b"]),
    "seen": (lambda jobs: jobs.seen("a"), False, []),
    "seen_many": (lambda jobs: jobs.seen_many(["a", Key("b")]), [False, False], []),
    "forget": (lambda jobs: jobs.forget("a"), False, []),
    "forget_many": (lambda jobs: jobs.forget_many(["a", "b"]), 0, []),
    "discard": (lambda jobs: jobs.discard("a", forget=True), False, []),
    "discard_many": (lambda jobs: jobs.discard_many(["a", "b"], forget=True), 0, []),
    "clear": (lambda jobs: jobs.clear(), 0, []),
    "keep": (lambda jobs: jobs.clear(keep_memory=True), 0, []),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("refilled", [False, True], ids=["left empty", "filled again"])
@pytest.mark.parametrize("options", [*EVER, *LIMITED], ids=str)
def test_an_object_that_knows_the_old_epoch_is_right_after_a_clear(
    any_server: servers.Server,
    server_client: redis.Redis,
    options: Any,
    refilled: bool,
    call: str,
) -> None:
    mine: SortedSet[str] = SortedSet(server_client, "jobs", **options)
    theirs: SortedSet[str] = SortedSet(server_client, "jobs", **options)
    mine.add_many(["a", "b", "c"], [1, 2, 3])
    for flags in ({}, {"nx": True}, {"xx": True}, {"again": True}):
        mine.add("c", 3, **flags)  # single adds keep their entries
    assert theirs.seen_many(["a", "b", "c"]) == [True] * 3
    theirs.clear()
    if refilled:
        theirs.add("other", 9)
    perform, returned, known = CALLS[call]
    if refilled and call in ("clear", "keep"):
        returned = 1
    assert perform(mine) == returned
    if refilled and call != "clear":
        known = [*known, "other"]
    if options["remember"] is True:
        assert_remembered(any_server.raw, known)
    else:
        assert set(any_server.raw.zrange(f"{P}:seen", 0, -1)) == set(map(digest, known))
    everything = ["a", "b", "c", "other"]
    for jobs in (theirs, mine):
        assert jobs.seen_many(everything) == [item in known for item in everything]
        assert jobs.stats().remembered == len(known)


def test_a_discard_that_knows_the_old_epoch_removes_what_was_added_since(
    server_client: redis.Redis,
) -> None:
    for options in (*EVER, *LIMITED):
        mine: SortedSet[str] = SortedSet(server_client, f"jobs-{options}", **options)
        theirs: SortedSet[str] = SortedSet(server_client, f"jobs-{options}", **options)
        mine.add("a")
        theirs.clear()
        theirs.add_many(["a", "b", "c"])
        assert mine.discard("a", forget=True)
        assert mine.forget("b")
        assert theirs.seen_many(["a", "b", "c"]) == [False, False, True]
        assert theirs.scores(["a", "b", "c"]) == [None, 0, 0]


def test_a_clear_in_mid_stream_divides_it_between_two_chunks(server_client: redis.Redis) -> None:
    for options in (*EVER, *LIMITED):
        mine: SortedSet[str] = SortedSet(server_client, f"jobs-{options}", **options)
        theirs: SortedSet[str] = SortedSet(server_client, f"jobs-{options}", **options)
        mine.add("known already")

        def stream(theirs: SortedSet[str] = theirs) -> Iterator[str]:
            yield from urls(0, 1000)
            theirs.clear()
            yield from urls(0, 2000)

        assert mine.add_many(stream()).failed == 0
        # Items after the clear are in; items before it that were not offered again are not.
        assert mine.seen_many([*urls(0, 2000), "known already"]) == [True] * 2000 + [False]
        assert mine.size() == mine.stats().remembered == 2000


def test_chunks_in_flight_at_a_clear_are_sent_again(any_server: servers.Server) -> None:
    """Each chunk that the clear made the server refuse, not only the first of them."""
    with any_server.client() as other, Proxy(any_server) as proxy:
        for options in (*EVER, *LIMITED):
            theirs: SortedSet[str] = SortedSet(other, f"jobs-{options}", **options)
            client = redis.Redis(port=proxy.port)
            mine: SortedSet[str] = SortedSet(client, f"jobs-{options}", **options)
            # Known items are refused, and of those a whole window is in flight.
            items = list(urls(0, 3000))
            theirs.add_many(items)
            mine.add(items[0])
            chunks = 0

            def clear_first(command: list[bytes], theirs: Any = theirs) -> None:
                nonlocal chunks
                if command[0] == b"EVALSHA" and len(command) > 100:
                    chunks += 1
                    if chunks == 2:
                        theirs.clear()

            proxy.rule = clear_first  # type: ignore[assignment]
            assert mine.add_many(items) == AddResult(3000, 0, 0, 0)
            proxy.rule = None
            assert mine.size() == theirs.stats().remembered == 3000
            client.close()


def test_of_two_first_adds_one_makes_the_memory(
    any_server: servers.Server, any_implementation: str
) -> None:
    """Both propose an epoch; the later one goes by the earlier one's."""
    mine: SortedSet[str] = SortedSet(any_server.client(), "jobs", remember=True)
    with Proxy(any_server) as proxy, redis.Redis(port=proxy.port) as client:
        theirs: SortedSet[str] = SortedSet(client, "jobs", remember=True)

        def add_first(command: list[bytes]) -> None:
            if command[0] == b"EVALSHA" and not mine.size():
                assert mine.add_many(urls(0, 10)).added == 10

        proxy.rule = add_first  # type: ignore[assignment]
        assert theirs.add_many(urls(0, 20)) == AddResult(10, 0, 10, 0)
    assert mine.seen_many(urls(0, 20)) == [True] * 20
    assert mine.stats().remembered == 20


# --- for a time


@pytest.mark.parametrize(
    ("remember", "length"), [(60, 60_000), (1.5, 1500), (0.0015, 2), (86400 * 365, 31_536_000_000)]
)
@pytest.mark.parametrize("key", [None, str])
def test_a_time_runs_by_the_servers_clock_in_whole_milliseconds(
    make_set: Callable[..., Any], raw: Any, remember: float, length: int, key: Any
) -> None:
    jobs = make_set(remember=remember, key=key)
    before = milliseconds(raw)
    jobs.add_many(["a", "ü"])
    after = milliseconds(raw)
    stored = raw.zrange(f"{P}:seen", 0, -1, withscores=True)
    assert {member for member, _ in stored} == {digest("a"), digest("ü")}
    for _, expiry in stored:
        assert before + length <= expiry <= after + length
        assert expiry == int(expiry)


def test_an_item_is_known_until_its_time_and_not_a_millisecond_longer(
    any_server: servers.Server, server_client: redis.Redis
) -> None:
    jobs: SortedSet[str] = SortedSet(server_client, "jobs", remember=0.03)
    raw = any_server.raw
    for look in (lambda: jobs.seen("a"), lambda: jobs.stats().remembered > 0):
        jobs.add("a", again=True)
        expiry = raw.zscore(f"{P}:seen", digest("a"))
        before = milliseconds(raw)
        while look():
            assert before < expiry
            before = milliseconds(raw)
        assert milliseconds(raw) >= expiry
    # And an add is refused as long, and no longer.
    jobs.add("a", again=True)
    jobs.take(5)
    expiry = raw.zscore(f"{P}:seen", digest("a"))
    while jobs.add("a") is None:
        assert raw.zscore(f"{P}:seen", digest("a")) == expiry
    assert milliseconds(raw) >= expiry
    assert raw.zscore(f"{P}:seen", digest("a")) >= expiry + 30


@pytest.mark.parametrize("key", [None, str])
def test_a_time_is_renewed_only_by_adds_that_count_as_new(
    make_set: Callable[..., Any], raw: Any, key: Any
) -> None:
    jobs = make_set(remember=3600, key=key)
    jobs.add_many(["queued", "gone"], [5, 1])
    assert jobs.pop() == "gone"
    soon = milliseconds(raw) + 60_000
    raw.zadd(f"{P}:seen", {digest("queued"): soon, digest("gone"): soon})

    def expiries() -> list[float]:
        return [raw.zscore(f"{P}:seen", digest(item)) for item in ("queued", "gone")]

    # Refused adds, and moves of known items.
    for flags in ({}, {"nx": True}, {"lt": True}, {"gt": True}, {"xx": True}):
        assert jobs.add("gone", 7, **flags) is None
    assert jobs.add("queued", 4) is None
    assert jobs.add("queued", 4, lt=True) == 4
    assert jobs.add("queued", 6, gt=True) == 6
    assert jobs.add("queued", 7, xx=True) == 7
    assert jobs.add_many(["queued", "gone"], [3, 3], lt=True) == (0, 1, 1, 0)
    assert jobs.add("queued", 3, again=True, lt=True) is None
    assert make_set(remember=7200, key=key).add("gone") is None
    assert expiries() == [soon, soon]
    # And adds that are accepted as new or by again.
    now = milliseconds(raw)
    assert jobs.add("gone", again=True) == 0
    assert jobs.add("queued", 2, again=True) == 2
    assert all(expiry >= now + 3_600_000 for expiry in expiries())
    jobs.forget("gone")
    assert jobs.add("gone", 9) == 9
    assert make_set(remember=7200, key=key).add("queued", 1, again=True, lt=True) == 1
    assert expiries()[0] >= now + 7_200_000


@pytest.mark.parametrize("key", [None, str])
def test_an_item_that_is_queued_past_its_time_is_not_known(
    make_set: Callable[..., Any], raw: Any, key: Any
) -> None:
    jobs = make_set(remember=3600, key=key, known_max=0)
    now = milliseconds(raw)

    def expired() -> None:
        raw.zadd(f"{P}:seen", {digest("a"): now, digest("b"): now - 10**6})

    jobs.add_many(["a", "b", "c"], [5, 6, 7])
    expired()
    assert jobs.seen_many(["a", "b", "c"]) == [False, False, True]
    assert jobs.forget_many(["a", "b"]) == 0
    expired()
    # A refusal does not make it known; an accepted add does.
    assert jobs.add("a", 5, nx=True) is None
    assert jobs.add("a", 6, lt=True) is None
    assert jobs.add("a", 5, xx=True) is None
    assert not jobs.seen("a")
    assert jobs.add("a", 8) == 8
    assert jobs.add("b", 1, lt=True) == 1
    assert jobs.seen_many(["a", "b"]) == [True, True]
    assert jobs.add_many(["a", "b"], 9) == (0, 0, 2, 0)
    # One that is gone as well is new.
    jobs.take(5)
    expired()
    assert jobs.add_many(["a", "b", "c"], nx=True) == (2, 0, 1, 0)


@pytest.mark.parametrize("key", [None, str])
def test_expired_memory_is_removed_in_bounded_steps(
    any_server: servers.Server, server_client: redis.Redis, key: Any
) -> None:
    jobs: SortedSet[str] = SortedSet(server_client, "jobs", remember=3600, key=key)
    raw = any_server.raw
    jobs.add_many(urls(0, 1000))
    past = milliseconds(raw) - 1
    raw.zadd(f"{P}:seen", {digest(f"old {number}"): past - number for number in range(20_000)})

    def left() -> int:
        return int(raw.zcount(f"{P}:seen", "-inf", past))

    before = left()
    assert before == 20_000
    for number, count in enumerate([1, 1, 250, 250]):
        jobs.add_many(f"new {number} {each}" for each in range(count))
        after = left()
        # More than the items that came, so that all go; and little enough that no client waits.
        assert count < before - after <= 1000
        before = after
    for number in range(1000):
        jobs.add(f"single {number}")
        if not left():
            break
    assert left() == 0
    # Nothing else went.
    assert jobs.seen_many([*urls(0, 1000), "single 0", "new 3 249"]) == [True] * 1002


# --- stats


@pytest.mark.parametrize("options", [*EVER, *LIMITED], ids=str)
def test_stats_count_what_is_remembered(
    any_server: servers.Server, server_client: redis.Redis, options: Any
) -> None:
    jobs: SortedSet[str] = SortedSet(server_client, "jobs", **options)
    assert jobs.stats().remembered == 0
    jobs.add_many(urls(0, 2000))
    assert jobs.stats()[:5] == (2000, 2000, 0, 0, 2000)
    jobs.add_many(urls(1000, 2500))
    jobs.add_many(urls(0, 100), again=True)
    assert jobs.stats().remembered == 2500
    jobs.take(2200)
    jobs.discard_many(urls(0, 2500))
    assert jobs.stats()[:5] == (0, 0, 0, 0, 2500)
    jobs.forget_many(urls(0, 300))
    jobs.forget_many(urls(0, 300))
    assert jobs.stats().remembered == 2200
    jobs.discard(url(300), forget=True)
    assert jobs.stats().remembered == 2199
    if options in LIMITED:
        now = milliseconds(any_server.raw)
        any_server.raw.zadd(f"{P}:seen", {digest(url(n)): now for n in range(400, 500)})
        assert jobs.stats().remembered == 2099
    jobs.clear(keep_memory=True)
    assert jobs.stats().remembered in (2199, 2099)
    jobs.clear()
    assert jobs.stats().remembered == 0
    jobs.add("a")
    assert jobs.stats()[:5] == (1, 1, 0, 0, 1)


def test_a_set_without_memory_remembers_nothing(server_client: redis.Redis) -> None:
    jobs: SortedSet[str] = SortedSet(server_client, "jobs")
    jobs.add_many(["a", "b"])
    assert jobs.stats().remembered == 0


def test_threads_may_forget_while_others_clear(server_client: redis.Redis) -> None:
    items = list(urls(0, 600))
    for remember in (True, 86_400):
        jobs = SortedSet(server_client, "jobs", remember=remember)
        failed: list[BaseException] = []
        done = threading.Event()

        def forget(jobs: Any = jobs, done: Any = done, failed: Any = failed) -> None:
            try:
                for _ in range(60):
                    jobs.discard_many(items, forget=True)
                    jobs.seen_many(items)
                    jobs.forget_many(items)
            except BaseException as error:
                failed.append(error)
            done.set()

        thread = threading.Thread(target=forget, daemon=True)
        thread.start()
        while not done.is_set():
            jobs.add_many(items[:5])
            jobs.clear()
        thread.join()
        assert failed == []


def test_a_step_forgets_under_the_epoch_that_it_was_encoded_with(
    server_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = SortedSet(server_client, "jobs", remember=True)
    items = list(urls(0, 5))
    jobs.add_many(items)
    real = memory.tokens_of
    interrupted = 0

    def tokens(*arguments: Any) -> Any:
        nonlocal interrupted
        made = real(*arguments)
        if not interrupted:
            interrupted = 1
            jobs.clear()
            jobs.add_many(items)
        return made

    monkeypatch.setattr(memory, "tokens_of", tokens)
    assert jobs.discard_many(items, forget=True) == 5
    assert interrupted
    assert jobs.seen_many(items) == [False] * 5


@pytest.mark.parametrize("options", EVER, ids=str)
def test_a_page_is_added_the_same_while_another_item_is_leased(
    make_set: Callable[..., Any], raw: Any, options: dict[str, Any]
) -> None:
    pages = [["a", "b", "a"], ["b", "first", "c"], ["a"], ["aside", "d"]]
    # The memory splits a bucket.
    pages += [[str(number) for number in range(at, at + 20)] for at in range(0, 240, 20)]
    found = []
    for leased in (False, True):
        jobs = make_set(known_max=0, **options)
        jobs.add("first")
        jobs.take(1)
        jobs.add("other")
        (other,) = jobs.lease()
        if not leased:
            other.ack()
        jobs.add("aside", 5, remember=False)
        results = [tuple(jobs.add_many(page, range(len(page)))) for page in pages]
        if leased:
            other.ack()
        stored = raw.hgetall(f"{P}:meta")
        del stored[b"epoch"]
        found.append((results, jobs.peek_many(300), stored, raw.hlen(f"{P}:items")))
        jobs.clear()
    assert found[0] == found[1]
    assert found[0][0][:4] == [(2, 0, 1, 0), (1, 0, 2, 0), (0, 0, 1, 0), (1, 1, 0, 0)]
