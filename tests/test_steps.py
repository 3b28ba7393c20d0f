"""A step is bounded by bytes as well as by count, whatever the size of the items."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import servers

from redset import ScheduledSet, SortedSet
from redset._operations.exchanging import Exchange, exchange
from redset._operations.leasing import lease_call
from redset._operations.limits import CHUNK_BYTES, STEP_BYTES
from redset._transport.effects import only
from redset.scripts import script

P = "jobs:{jobs}"
LEASED = f"{P}:leased"
#: Bytes of a request or reply beside members and payloads: arguments, scores, errors.
BESIDE = 40_000
OPTIONS: list[dict[str, Any]] = [{}, {"key": "url"}]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=str)


def item_of(options: dict[str, Any], name: str, size: int) -> Any:
    text = f"{name:>05}" + "y" * size
    return {"url": name, "text": text} if "key" in options else text


def name_of(item: Any) -> str:
    return str(item["url"] if isinstance(item, dict) else item)


def bytes_of(value: Any) -> int:
    if isinstance(value, (list, tuple)):
        return sum(map(bytes_of, value))
    return len(value) if isinstance(value, (str, bytes)) else 1


def fail_all(jobs: SortedSet[Any]) -> int:
    return int(jobs.fail(jobs.lease(60), "no"))


def move_all(jobs: SortedSet[Any], other: SortedSet[Any]) -> int:
    return jobs.move_many(list(jobs), other)


Call = Callable[[SortedSet[Any], SortedSet[Any], Any], Any]
#: Calls on 60 items, and how many of these are queued or leased after it.
CALLS: dict[str, tuple[Call, int]] = {
    "peek_many": (lambda jobs, other, raw: len(jobs.peek_many(60)), 60),
    "iterate": (lambda jobs, other, raw: sum(1 for _ in jobs), 60),
    "export": (lambda jobs, other, raw: sum(1 for _ in jobs.export()) - 2, 60),
    "lease": (lambda jobs, other, raw: len(jobs.lease(60)), 60),
    "leased": (lambda jobs, other, raw: len(jobs.lease(60)) and sum(1 for _ in jobs.leased()), 60),
    "release": (lambda jobs, other, raw: jobs.release(jobs.lease(60)), 60),
    "fail": (lambda jobs, other, raw: fail_all(jobs), 60),
    "ack": (lambda jobs, other, raw: jobs.ack(jobs.lease(60)), 0),
    "take": (lambda jobs, other, raw: len(jobs.take(60)), 0),
    "between.take": (lambda jobs, other, raw: len(jobs.between(0, 9).take(60)), 0),
    "between.discard": (lambda jobs, other, raw: jobs.between(0, 9).discard(), 0),
    "discard_many": (lambda jobs, other, raw: jobs.discard_many(list(jobs)), 0),
    "scores": (lambda jobs, other, raw: len(jobs.scores(list(jobs))), 60),
    "move_many": (lambda jobs, other, raw: move_all(jobs, other), 0),
    "update": (lambda jobs, other, raw: (other.update(jobs), other.size())[1], 60),
    "-=": (lambda jobs, other, raw: (other.update(jobs), jobs.__isub__(other), 60)[2], 0),
}


@every_option
@pytest.mark.parametrize("size", [5_000, 100_000])
@pytest.mark.parametrize("name", CALLS)
def test_no_step_carries_much_more_than_its_bound(
    any_server: servers.Server, options: dict[str, Any], size: int, name: str
) -> None:
    """Requests, too; and the call does all that it would do in one step. 0.1 s each."""
    client = servers.Recording(any_server.client())
    jobs: SortedSet[Any] = SortedSet(client, "jobs", **options)
    other: SortedSet[Any] = SortedSet(client, "{jobs}:other", **options)
    jobs.add_many([item_of(options, str(number), size) for number in range(60)])
    client.sent.clear()
    client.answers.clear()
    call, left = CALLS[name]
    assert call(jobs, other, any_server.raw) == 60
    assert jobs.size() + jobs.stats().leased == left
    most = STEP_BYTES + size + BESIDE
    assert max(map(bytes_of, client.answers)) <= most
    assert max(map(bytes_of, client.sent)) <= most
    if size == 100_000 and not options:
        assert len(client.sent) > 10  # a keyed item goes by its digest


@every_option
def test_expired_leases_return_in_steps_bounded_by_bytes(
    any_server: servers.Server, options: Any
) -> None:
    """Each call returns some, of which the largest may be above the bound."""
    raw = any_server.raw
    jobs: SortedSet[Any] = SortedSet(raw, "jobs", max_attempts=1, **options)
    jobs.add_many([item_of(options, str(number), 100_000) for number in range(20)])
    jobs.lease(20)
    raw.zadd(LEASED, dict.fromkeys(raw.zrange(LEASED, 0, -1), 1))
    seen = [jobs.stats().leased for _ in range(8)]
    # All of them die: three of 100 kB reach 256 KiB.
    assert seen == [17, 14, 11, 8, 5, 2, 0, 0]
    assert len(jobs.dead) == 20


@every_option
def test_dead_letters_are_read_requeued_and_purged_by_bytes(
    any_server: servers.Server, options: Any, silent: None
) -> None:
    any_server.raw.script_load(script("settle").text)  # another test may have done so, or not
    client = servers.Recording(any_server.client())
    jobs: SortedSet[Any] = SortedSet(client, "jobs", max_attempts=1, **options)
    every = [item_of(options, str(number), 100_000) for number in range(20)]
    most = STEP_BYTES + 100_000 + BESIDE
    for end in (jobs.dead.requeue, jobs.dead.purge):
        jobs.add_many(every)
        leases = jobs.lease(20)
        client.sent.clear()
        assert jobs.fail(leases, "no") == 20
        # Three payloads of 100 kB a step, each of which goes into its letter.
        assert len(client.sent) == 10 if not options else len(client.sent) >= 7
        client.sent.clear()
        client.answers.clear()
        items = [letter.item for letter in jobs.dead]
        assert sorted(items, key=name_of) == sorted(every, key=name_of)
        assert end() == 20
        assert len(jobs.dead) == 0
        assert max(map(bytes_of, client.answers)) <= most
        jobs.clear()


@every_option
def test_a_reply_beyond_the_clients_limit_loses_nothing(
    any_server: servers.Server, options: Any
) -> None:
    """A server that ends a connection at 1 MB of output once lost a `take` of 5 MB."""
    raw = any_server.raw
    limits = raw.config_get("client-output-buffer-limit")["client-output-buffer-limit"]
    raw.config_set("client-output-buffer-limit", "normal 1000000 1000000 0")
    try:
        for size, number in ((5_000, 600), (40_000, 100)):
            jobs: SortedSet[Any] = SortedSet(any_server.client(), "jobs", max_attempts=2, **options)
            every = [item_of(options, str(place), size) for place in range(number)]
            jobs.add_many(every)
            leases = jobs.lease(number)
            assert len(leases) == number
            assert jobs.release(leases) == number
            assert len(jobs.dead) == 0
            assert len(jobs.take(number)) == number
            # By an object that takes by command, too, since it knows the size.
            jobs.add_many(every)
            assert sum(len(jobs.take(40)) for _ in range(number // 40 + 1)) == number
    finally:
        raw.config_set("client-output-buffer-limit", limits)


@pytest.mark.parametrize("made", [SortedSet, ScheduledSet])
def test_small_items_take_as_few_requests_as_ever(any_server: servers.Server, made: Any) -> None:
    """Bounds of bytes cost no round trips if items are small."""
    client = servers.Recording(any_server.client())
    jobs: Any = made(client, "jobs")
    jobs.add_many(map(str, range(4_000)), 1)
    jobs.peek()
    for call in (lambda: jobs.lease(100), lambda: jobs.peek_many(100), lambda: jobs.take(1_000)):
        client.sent.clear()
        call()
        # A step whose script the server does not know yet is sent again.
        sent = [args[0] for args in client.sent]
        assert sent.count("EVALSHA") - sent.count("SCRIPT LOAD") <= 2, client.sent


def test_undecodable_large_items_are_not_all_removed(any_server: servers.Server) -> None:
    """Of large items, too, ten are looked at before anything is removed."""
    raw = any_server.raw
    raw.zadd("jobs", {b"{" + b"y" * 100_000 + b"%02d" % place: place for place in range(30)})
    jobs: SortedSet[Any] = SortedSet(raw, "jobs", serializer=json)
    for call in (jobs.pop, lambda: jobs.take(5), lambda: jobs.lease(5)):
        with pytest.raises(Exception, match="none of the first 10 items"):
            call()
    assert raw.zcard("jobs") == 30


def test_chunks_of_adds_are_bounded_by_bytes(any_server: servers.Server) -> None:
    client = servers.Recording(any_server.client())
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    assert jobs.add_many("y" * 50_000 + str(place) for place in range(100)).added == 100
    assert max(map(bytes_of, client.sent)) <= CHUNK_BYTES + 50_000 + BESIDE


def leased_in_a_cohort(jobs: SortedSet[Any], num: int, hand: int) -> None:
    """Lease items beside so many others, and be killed."""
    jobs._run(exchange(jobs._ctx, Exchange([], [], num, 50, False, hand)))
    time.sleep(0.1)


def test_a_large_suspect_is_passed_over(any_server: servers.Server) -> None:
    """Skipped bytes do not end a step that has nothing else. 0.2 s."""
    jobs: SortedSet[str] = SortedSet(any_server.raw, "jobs")
    jobs.add("y" * 300_000)
    leased_in_a_cohort(jobs, 1, 6)
    jobs.add_many(map(str, range(10)), 2)
    what = Exchange([], [], 3, 60_000, False, 4, True)
    jobs._run(exchange(jobs._ctx, what))
    assert [held.item for held in what.held] == ["0", "1", "2"]


def test_neighbours_of_a_killer_live_if_one_of_them_is_large(any_server: servers.Server) -> None:
    """Each step of a call counts all that the call asks for. 0.5 s."""
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs", max_attempts=3)
    jobs.add_many(["y" * 300_000, "killer", *map(str, range(8))], [0, 1, *[2] * 8])
    for _ in range(40):
        batch = jobs.lease(10)
        if "killer" in [lease.item for lease in batch]:
            raw.zadd(LEASED, dict.fromkeys(raw.zrange(LEASED, 0, -1), 1))
        else:
            batch.ack()
        if jobs.finished():
            break
    assert [letter.raw for letter in jobs.dead] == [b"killer"]


def test_a_large_killer_dies_whatever_its_calls_ask_for(any_server: servers.Server) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs", max_attempts=2)
    jobs.add_many(["y" * 300_000, *map(str, range(20))], range(21))
    kills = 0
    while True:
        names = [lease.item for lease in jobs.lease(10)]
        if not names or names[0] == "0":
            break
        kills += 1
        raw.zadd(LEASED, dict.fromkeys(raw.zrange(LEASED, 0, -1), 1))
    # Cohorts of 10, 5, 2 and 1, and once more alone.
    assert kills == 5
    assert [len(letter.raw) for letter in jobs.dead] == [300_000]


def test_a_large_item_that_is_alone_is_alone_whatever_its_calls_ask_for(
    any_server: servers.Server,
) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs", max_attempts=3)
    jobs.add("y" * 300_000)
    attempts = []
    while batch := jobs.lease(100):
        attempts += [lease.attempts for lease in batch]
        raw.zadd(LEASED, dict.fromkeys(raw.zrange(LEASED, 0, -1), 1))
    assert attempts == [0, 1, 2]


def test_suspects_bound_a_call_of_several_steps(any_server: servers.Server) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs")
    jobs.add_many([f"{place:02}" + "y" * 200_000 for place in range(8)], range(8))
    assert len(jobs.lease(8)) == 8
    raw.zadd(LEASED, dict.fromkeys(raw.zrange(LEASED, 0, -1), 1))
    assert len(jobs.lease(8)) == 4


@every_option
@pytest.mark.parametrize("call", ["pop", "take", "lease"])
def test_items_after_a_large_dead_one_are_handed_out(
    any_server: servers.Server, options: Any, call: str
) -> None:
    raw = any_server.raw
    jobs: SortedSet[Any] = SortedSet(raw, "jobs", max_attempts=1, **options)
    fine = item_of(options, "fine", 0)
    jobs.add(item_of(options, "killer", 300_000))
    jobs.lease()
    jobs.add(fine)
    jobs.lease().release(delay=60)
    members = raw.zrange(LEASED, 0, -1)
    raw.zadd(LEASED, dict.fromkeys(members, 2) | {members[0]: 1})
    other: SortedSet[Any] = SortedSet(raw, "jobs", max_attempts=1, **options)
    if call == "pop":
        assert other.pop() == fine
    elif call == "take":
        assert other.take(5) == [fine]
    else:
        assert [lease.item for lease in other.lease(5)] == [fine]
    assert len(jobs.dead) == 1


def test_a_take_by_command_goes_on_with_what_was_leased(any_server: servers.Server) -> None:
    raw = any_server.raw
    jobs: SortedSet[str] = SortedSet(raw, "jobs")
    jobs.add("warm")
    assert jobs.take(2) == ["warm"]
    other: SortedSet[str] = SortedSet(raw, "jobs")
    other.add_many(f"{place:03}" + "y" * 100_000 for place in range(15))
    assert len(other.lease(15)) == 15
    other.add("small")
    raw.zadd(LEASED, dict.fromkeys(raw.zrange(LEASED, 0, -1), 1))
    assert len(jobs.take(16)) == 16


def test_a_repeated_lease_step_reports_that_more_is_queued(
    any_server: servers.Server,
) -> None:
    jobs: SortedSet[str] = SortedSet(any_server.raw, "jobs")
    jobs.add_many(f"{place:03}" + "y" * 100_000 for place in range(20))
    first, again = (jobs._run(only(lease_call(jobs._ctx, b"t" * 16, 20, 60_000))) for _ in "12")
    assert first.rows == again.rows and first.more and again.more


def test_a_symmetric_difference_of_large_payloads_is_whole(any_server: servers.Server) -> None:
    options = {"key": "url"}
    ours: SortedSet[Any] = SortedSet(any_server.raw, "jobs", **options)
    theirs: SortedSet[Any] = SortedSet(any_server.raw, "{jobs}:other", **options)
    both = [item_of(options, f"both {place}", 0) for place in range(100)]
    new = [item_of(options, f"new {place}", 100_000) for place in range(5)]
    ours.add_many(both, 5)
    theirs.add_many([*new, *both], [1] * 5 + [5] * 100)
    ours ^= theirs
    assert sorted(map(name_of, ours)) == sorted(map(name_of, new))


def test_the_steps_of_an_export_count_items_added_while_leased(any_server: servers.Server) -> None:
    client = servers.Recording(any_server.client())
    jobs: SortedSet[Any] = SortedSet(client, "jobs", key="url")
    jobs.add_many(item_of({"key": "url"}, str(place), 0) for place in range(30))
    jobs.lease(30)
    jobs.add_many(item_of({"key": "url"}, str(place), 100_000) for place in range(30))
    client.answers.clear()
    assert sum(1 for _ in jobs.export()) >= 32  # some twice
    assert max(map(bytes_of, client.answers)) <= STEP_BYTES + 100_000 + BESIDE
