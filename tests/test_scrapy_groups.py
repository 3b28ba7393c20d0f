"""Scrapy's groups: their settings, what hosts ask for, and what the downloader delays."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import importlib.util
import json
import math
import os
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import children
import pytest
import servers
from blocking import running

if importlib.util.find_spec("scrapy") is None:
    pytest.skip("scrapy: it is not installed here", allow_module_level=True)

from crawls.hosts import Hosts, host_of
from crawls.stand_in import StandIn
from scrapy import Request, signals
from scrapy.core.downloader import Slot
from scrapy.http import Headers
from scrapy.settings import Settings

from redset import SortedSet
from redset.exceptions import OptionsDiffer
from redset.scrapy import Frontier
from redset.scrapy.entries import open_frontier
from redset.scrapy.groups import CUT, GroupOptions, Limit, fitted, group_of_slot
from redset.scrapy.politeness import (
    AGAIN,
    ALIVE,
    LONGEST_REST,
    Politeness,
    PoliteSlots,
    retry_after,
)

TESTS = Path(__file__).parent
#: A process needs some seconds to begin on a busy machine.
LIMIT = 100.0
POLITE = {"REDSET_POLITE": True, "CONCURRENT_REQUESTS_PER_DOMAIN": 2}


@pytest.fixture
def server(all_servers: servers.Servers) -> Any:
    """One server that is here, empty."""
    found = all_servers.get(servers.some())
    found.flush()
    return found


def first_letter(request: Any) -> str:
    return str(request.url[7])


def page(host: str, **options: Any) -> Request:
    return Request(f"http://{host}/", **options)


# --- settings


def read(spider: Any = None, **settings: Any) -> GroupOptions:
    return GroupOptions.read(Settings(settings), spider)


def test_without_the_settings_there_are_no_groups() -> None:
    assert read() == read(REDSET_GROUP=None) == read(REDSET_POLITE=False) == GroupOptions(None)


@pytest.mark.parametrize("given", [True, "true", "1", "on"])
def test_a_group_is_the_slot_of_the_downloader(given: Any) -> None:
    options = read(REDSET_GROUP=given)
    assert options == GroupOptions(group_of_slot, 1, 0.0)
    assert options.of is not None and options.of(page("a.example")) == "a.example"


@pytest.mark.parametrize("given", [first_letter, f"{__name__}.first_letter"])
def test_a_group_is_what_a_callable_of_the_project_returns(given: Any) -> None:
    options = read(REDSET_GROUP=given, REDSET_GROUP_LIMIT="3", REDSET_GROUP_INTERVAL=1.5)
    assert options.of is not None and options.of(page("b.example")) == "b"
    assert (options.limit, options.interval, options.polite) == (3, 1.5, False)


@pytest.mark.parametrize(
    ("given", "group"),
    [("a", "a"), (b"a", "a"), (7, "7"), (None, None), ("x" * 200, "x" * 200), ("é", "é")],
    ids=["str", "bytes", "int", "None", "long", "text"],
)
def test_a_callable_may_return(given: Any, group: str | None) -> None:
    options = read(REDSET_GROUP=lambda request: given)
    assert options.of is not None and options.of(page("a.example")) == group


@pytest.mark.parametrize(
    "given", ["", b"", "x" * 201, "é" * 101, True, 1.5, ["a"], "\ud800", b"\xff"], ids=repr
)
def test_a_callable_may_not_return(given: Any) -> None:
    options = read(REDSET_GROUP=lambda request: given)
    assert options.of is not None
    with pytest.raises(ValueError, match="the group of a request must be"):
        options.of(page("a.example"))


def test_politeness_takes_the_limits_of_scrapy() -> None:
    options = read(REDSET_POLITE=True, DOWNLOAD_DELAY=2.5, CONCURRENT_REQUESTS_PER_DOMAIN=4)
    assert options == GroupOptions(group_of_slot, 4, 2.5, polite=True)


def test_politeness_takes_the_limits_of_the_spider() -> None:
    spider = SimpleNamespace(download_delay=3, max_concurrent_requests=2)
    options = read(spider, REDSET_POLITE=True, DOWNLOAD_DELAY=1)
    assert (options.limit, options.interval) == (2, 3.0)


def test_own_limits_win_over_those_of_scrapy() -> None:
    given = {"REDSET_GROUP_LIMIT": 2, "REDSET_GROUP_INTERVAL": 0.5, "DOWNLOAD_DELAY": 9}
    options = read(REDSET_POLITE=True, REDSET_GROUP=first_letter, **given)
    assert (options.limit, options.interval) == (2, 0.5)
    assert options.of is not None and options.of(page("b.example")) == "b"
    unlimited = Settings({"REDSET_POLITE": True})
    unlimited.set("REDSET_GROUP_LIMIT", None, "project")
    assert GroupOptions.read(unlimited).limit is None


def test_politeness_takes_the_slots_of_scrapy() -> None:
    slots = {
        "a.example": {"concurrency": 2, "delay": 5, "randomize_delay": False},
        "b.example": {"concurrency": 3},
        "c.example": {"delay": 0.5},
    }
    options = read(REDSET_POLITE=True, DOWNLOAD_DELAY=1, DOWNLOAD_SLOTS=slots)
    # The longer delay counts.
    assert options.slots == {
        "a.example": Limit(2, 5.0),
        "b.example": Limit(3, 1.0),
        "c.example": Limit(None, 1.0),
    }


def test_politeness_begins_with_the_start_delay_of_autothrottle() -> None:
    throttle = {"AUTOTHROTTLE_ENABLED": True, "AUTOTHROTTLE_START_DELAY": 7}
    options = read(REDSET_POLITE=True, DOWNLOAD_DELAY=1, **throttle)
    assert (options.interval, options.start, options.throttles) == (1.0, 7.0, True)
    assert not read(REDSET_GROUP=True, **throttle).throttles


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"REDSET_GROUP": "no.such.name"}, "REDSET_GROUP must be True or the import path"),
        ({"REDSET_GROUP": 7}, "REDSET_GROUP must be True or the import path of a callable, got 7"),
        ({"REDSET_GROUP": "math.pi"}, "REDSET_GROUP must be"),
        ({"REDSET_POLITE": "perhaps"}, "REDSET_POLITE must be a bool, got 'perhaps'"),
        ({"REDSET_POLITE": True, "REDSET_GROUP": False}, "REDSET_POLITE needs groups"),
        ({"REDSET_GROUP_LIMIT": 1}, "REDSET_GROUP_LIMIT needs REDSET_GROUP or REDSET_POLITE"),
        ({"REDSET_GROUP_INTERVAL": 1}, "REDSET_GROUP_INTERVAL needs REDSET_GROUP"),
        ({"REDSET_GROUP": True, "REDSET_GROUP_LIMIT": 0}, "REDSET_GROUP_LIMIT must be a whole"),
        ({"REDSET_GROUP": True, "REDSET_GROUP_LIMIT": 1.5}, "REDSET_GROUP_LIMIT must be a whole"),
        ({"REDSET_GROUP": True, "REDSET_GROUP_LIMIT": True}, "REDSET_GROUP_LIMIT must be a whole"),
        ({"REDSET_GROUP": True, "REDSET_GROUP_LIMIT": 1001}, "REDSET_GROUP_LIMIT must be a whole"),
        ({"REDSET_GROUP": True, "REDSET_GROUP_INTERVAL": -1}, "REDSET_GROUP_INTERVAL must be"),
        ({"REDSET_GROUP": True, "REDSET_GROUP_INTERVAL": 3e6}, "REDSET_GROUP_INTERVAL must be"),
        ({"REDSET_POLITE": True, "CONCURRENT_REQUESTS_PER_IP": 2}, "CONCURRENT_REQUESTS_PER_IP"),
        ({"REDSET_GROUP": True, "CONCURRENT_REQUESTS_PER_IP": 2}, "CONCURRENT_REQUESTS_PER_IP"),
    ],
    ids=str,
)
def test_a_wrong_setting_of_groups_is_named(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        read(**settings)


# --- the groups of requests


def test_a_request_without_a_host_has_no_group() -> None:
    assert group_of_slot(Request("data:,x")) is None


def test_a_slot_that_meta_names_is_the_group() -> None:
    assert group_of_slot(page("a.example", meta={"download_slot": "api"})) == "api"
    assert group_of_slot(page("a.example:8080")) == "a.example"


def test_a_redirect_to_another_host_has_the_group_of_that_host() -> None:
    meta = {"download_slot": "a.example", "redirect_urls": ["http://a.example/x"]}
    assert group_of_slot(page("b.example", meta=meta)) == "b.example"
    assert group_of_slot(page("b.example", meta={**meta, "download_slot": "api"})) == "api"


def test_the_name_of_a_slot_that_is_too_long_is_cut_and_stays_distinct() -> None:
    long = ["x" * 300 + end for end in "ab"]
    names = [fitted(each) for each in long]
    assert names[0] != names[1]
    assert all(len(name.encode()) <= 200 and name.startswith("x" * CUT) for name in names)
    assert len(fitted("é" * 150).encode()) <= 200
    assert fitted("x" * 200) == "x" * 200


# --- hosts that ask for a rest


def date(seconds: float) -> str:
    return email.utils.formatdate(seconds, usegmt=True)


NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 7 "}, 7.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": date(NOW + 9)}, 9.0),
        ({"Retry-After": date(NOW + 9), "Date": date(NOW + 4)}, 5.0),
        ({"Retry-After": date(NOW - 9)}, None),
        ({"Retry-After": "9" * 40}, LONGEST_REST),
        ({"Retry-After": date(NOW + 1e6)}, LONGEST_REST),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-7"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "\xb2"}, None),
        ({"Retry-After": "Sun, 99 Nov 2026 00:00:00 GMT"}, None),
        ({"Retry-After": ""}, None),
        ({}, None),
    ],
    ids=str,
)
def test_a_rest_is_read_from_seconds_or_a_date(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(Headers(headers, encoding="latin-1"), NOW) == seconds


def response(status: int, after: str = "") -> Any:
    return SimpleNamespace(status=status, headers=Headers({"Retry-After": after} if after else {}))


def politeness(slots: dict[str, Any] | None = None, **settings: Any) -> Politeness:
    options = read(**{"REDSET_POLITE": True, **settings})
    return Politeness(options, lambda: None, lambda: slots or {})


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_host_rests_for_the_longest_time_that_it_asked_for(status: int) -> None:
    polite = politeness()
    assert polite.due_in(0.0) == math.inf
    for after in ("7", "30", "5"):
        polite._downloaded(response(status, after), page("a.example"))
    assert polite.due_in(0.0) == 0
    assert polite.rests() == [("a.example", 30.0)]
    assert polite.rests() == [] and polite.due_in(0.0) == math.inf


def test_other_responses_let_no_host_rest() -> None:
    polite = politeness()
    for answer in (response(200, "9"), response(429), response(503, "soon"), response(404, "9")):
        polite._downloaded(answer, page("a.example"))
    assert polite.rests() == []


def test_a_rest_that_could_not_be_sent_is_kept() -> None:
    polite = politeness()
    polite._downloaded(response(429, "7"), page("a.example"))
    polite.put_back(polite.rests(), False, 5.0)
    assert polite.due_in(5.0) == AGAIN and polite.due_in(5.0 + AGAIN) == 0
    assert polite.rests() == [("a.example", 7.0)]


# --- limits for the other processes


def test_limits_of_the_settings_are_sent_first_and_then_kept_alive() -> None:
    slots = {"a.example": {"concurrency": 2, "delay": 5}}
    polite = politeness(DOWNLOAD_SLOTS=slots)
    assert polite.due_in(100.0) == 0
    assert polite.limits(100.0) == {"a.example": Limit(2, 5.0)}
    assert polite.due_in(100.0) == ALIVE
    assert polite.limits(100.0 + ALIVE) == {}
    polite.put_back([], True, 0.0)
    assert polite.limits(130.0) == {"a.example": Limit(2, 5.0)}


def test_a_delay_of_autothrottle_is_sent_when_it_has_changed() -> None:
    slots = {"a.example": Slot(8, 5.0, 0)}
    throttle = {"AUTOTHROTTLE_ENABLED": True, "AUTOTHROTTLE_START_DELAY": 6}
    polite = politeness(slots, DOWNLOAD_SLOTS={"a.example": {"concurrency": 2}}, **throttle)
    assert polite.limits(0.0) == {"": Limit(None, 6.0), "a.example": Limit(2, 0.0)}
    request = page("a.example", meta={"download_slot": "a.example"})
    for now, delay, sent in ((1, 5.0, 5.0), (2, 5.1, None), (3, 0.4, 0.4), (4, 0.41, None)):
        slots["a.example"].delay = delay
        polite._downloaded(response(200), request)
        assert polite.due_in(float(now)) <= AGAIN
        found = polite.limits(float(now))
        assert found == ({} if sent is None else {"a.example": Limit(2, sent)})
    # A response of another host does not send it again, and a slot may be gone.
    polite._downloaded(response(200), page("b.example", meta={"download_slot": "b.example"}))
    assert polite.limits(5.0) == {}


# --- the downloader's own delays


def test_the_downloader_delays_only_requests_outside_of_the_frontier() -> None:
    leased, other = page("a.example"), page("a.example")
    before = Slot(1, 3.0, 0)
    slots = PoliteSlots({"a.example": before}, lambda request: request is leased)
    slots["b.example"] = Slot(1, 2.0, 0)
    assert slots["a.example"] is before
    for name, delay in (("a.example", 3.0), ("b.example", 2.0)):
        slot: Any = slots[name]
        assert isinstance(slot, Slot)
        slot.queue.append((leased, None))
        assert slot.download_delay() == 0
        slot.queue.appendleft((other, None))
        assert slot.download_delay() == delay
        assert slot.delay == delay


# --- over all processes


def grouped(client: Any, **settings: Any) -> SortedSet[Any]:
    """The set of the crawls of these tests."""
    groups = read(**(settings or POLITE))
    options: dict[str, Any] = {"order": "lifo", "remember": True, "max_attempts": 20}
    return open_frontier(client, "frontier", groups=groups, **options)


def enqueue(crawl: StandIn, host: str, num: int, first: int = 0) -> None:
    for number in range(first, first + num):
        crawl.scheduler.enqueue_request(Request(f"http://{host}/{number}"))


async def some(crawl: StandIn, num: int) -> list[Any]:
    """Return so many requests of a process, which must get no more for a while."""
    found = [await crawl.next() for _ in range(num)]
    await none(crawl)
    return found


async def none(crawl: StandIn, seconds: float = 0.15) -> None:
    with contextlib.suppress(AssertionError):
        request = await crawl.next(seconds)
        pytest.fail(f"{request} was handed out")


def answer(crawl: StandIn, request: Any, status: int = 200, after: str = "") -> None:
    """The downloader has a response."""
    request.meta.setdefault("download_slot", urlsplit(request.url).hostname)
    crawl.signals.send_catch_log(
        signals.response_downloaded,
        response=response(status, after),
        request=request,
        spider=crawl.spider,
    )


def hosts_of(requests: list[Any]) -> Counter[str | None]:
    return Counter(urlsplit(request.url).hostname for request in requests)


@running
async def test_only_requests_that_can_start_are_leased(server: Any) -> None:
    with server.client() as client:
        async with StandIn(server, **POLITE, CONCURRENT_REQUESTS=3) as crawl:
            enqueue(crawl, "a.example", 5)
            enqueue(crawl, "b.example", 5)
            found = await some(crawl, 3)
            assert set(hosts_of(found).values()) == {1, 2}
            frontier = grouped(client)
            assert frontier.stats().leased == 3
            crawl.done(found[0])
            await some(crawl, 1)
            assert frontier.stats().leased == 3


@running
async def test_a_host_has_its_limit_over_all_processes(server: Any) -> None:
    async with StandIn(server, **POLITE) as first, StandIn(server, **POLITE) as second:
        enqueue(first, "a.example", 5)
        found = [await first_of(first, second) for _ in range(2)]
        await asyncio.gather(none(first), none(second))
        enqueue(first, "b.example", 1)
        assert hosts_of([await first_of(first, second)]) == {"b.example": 1}
        end(found[0], first, second)
        assert hosts_of([await first_of(first, second)]) == {"a.example": 1}
        await asyncio.gather(none(first), none(second))


async def first_of(*crawls: StandIn) -> Any:
    """Return the next request of any process."""
    until = time.monotonic() + LIMIT / 4
    while time.monotonic() < until:
        for crawl in crawls:
            with contextlib.suppress(AssertionError):
                return await crawl.next(0.01)
    pytest.fail("no process gets a request")


def end(request: Any, *crawls: StandIn) -> None:
    """The process that has a request is through with it."""
    [crawl] = [each for each in crawls if request in each._slot.inprogress]
    crawl.done(request)


@running
async def test_a_host_has_its_interval_over_all_processes(server: Any) -> None:
    settings = {**POLITE, "DOWNLOAD_DELAY": 0.3}
    async with StandIn(server, **settings) as first, StandIn(server, **settings) as second:
        enqueue(first, "a.example", 4)
        times = []
        for _ in range(4):
            request = await first_of(first, second)
            times.append(time.monotonic())
            end(request, first, second)
        assert times[-1] - times[0] > 3 * 0.3 - 0.1


@running
async def test_a_process_that_is_closed_frees_its_slots(server: Any) -> None:
    async with StandIn(server, **POLITE) as first:
        enqueue(first, "a.example", 3)
        await some(first, 2)
        async with StandIn(server, **POLITE) as second:
            await none(second)
            await first.close()
            assert len(await some(second, 2)) == 2


@running
async def test_a_host_that_asks_for_a_rest_is_left_alone_by_all_processes(server: Any) -> None:
    async with StandIn(server, **POLITE) as first:
        enqueue(first, "a.example", 4)
        found = await some(first, 2)
        answer(first, found[0], 429, "2")
        began = time.monotonic()
        for request in found:
            first.done(request)
        async with StandIn(server, **POLITE) as second:
            enqueue(second, "b.example", 1)
            other = await first_of(first, second)
            assert hosts_of([other]) == {"b.example": 1}
            later = await first_of(first, second)
            assert hosts_of([later]) == {"a.example": 1}
            assert 1.9 < time.monotonic() - began < 2 + LIMIT / 10
    assert first.count("redset/rests") == 1


@running
async def test_a_shorter_rest_shortens_no_pause_of_a_person(server: Any) -> None:
    with server.client() as client:
        frontier = grouped(client)
        async with StandIn(server, **POLITE) as crawl:
            frontier.pause_group("a.example", 60)
            answer(crawl, page("a.example"), 503, "2")
            answer(crawl, page("b.example"), 503, "200")
            await crawl.until(lambda: crawl.scheduler._coordinator.tally["redset/rests"] == 2)
            rests = {group.name: group.rests_until for group in frontier.groups()}
            now = time.time()
            assert now + 50 < rests["a.example"] < now + 61
            assert now + 190 < rests["b.example"] < now + 201


@running
async def test_a_crawl_never_overwrites_the_limits_of_a_person(server: Any) -> None:
    slots = {
        "a.example": {"concurrency": 5, "delay": 0.01},
        "b.example": {"concurrency": 2},
        "c.example": {"concurrency": 3, "delay": 9},
    }
    with server.client() as client:
        frontier = grouped(client)
        frontier.set_group("a.example", limit=1, interval=30)
        frontier.set_group("b.example", limit=1)
        frontier.set_group("c.example", interval=0)
        own = client.hgetall("frontier:{frontier}:limits")
        async with StandIn(server, **POLITE, DOWNLOAD_SLOTS=slots) as crawl:
            for host in ("a", "b", "c", "d"):
                enqueue(crawl, f"{host}.example", 6)
            found = hosts_of(await some(crawl, 5))
            # The longer interval counts, and the limit of the person before that of the settings.
            assert found == {"a.example": 1, "b.example": 1, "c.example": 1, "d.example": 2}
            rests = {group.name: group.rests_until for group in frontier.groups()}
            now = time.time()
            assert now + 25 < rests["a.example"] < now + 31
            assert now + 5 < rests["c.example"] < now + 10
        assert client.hgetall("frontier:{frontier}:limits") == own


@running
async def test_the_delay_of_autothrottle_becomes_the_interval_of_all_processes(
    server: Any,
) -> None:
    throttle = {"AUTOTHROTTLE_ENABLED": True, "AUTOTHROTTLE_START_DELAY": 20}
    key = "frontier:{frontier}:limits-shared"
    with server.client() as client:
        async with StandIn(server, **POLITE, **throttle) as crawl:
            enqueue(crawl, "a.example", 3)
            [request] = await some(crawl, 1)
            assert client.hgetall(key) == {b"": b"- 20000"}
            assert 50 < client.ttl(key) <= 60
            crawl.downloader.slots["a.example"] = Slot(2, 0.25, 0)
            answer(crawl, request)
            await crawl.until(lambda: client.hget(key, "a.example") == b"- 250")
            # The rest that began with the first delay goes on.
            await none(crawl)
            frontier = grouped(client)
            [group] = [each for each in frontier.groups() if each.name == "a.example"]
            assert group.rests_until is not None and group.rests_until > time.time() + 10
            client.delete(key)
            crawl.scheduler._coordinator.politeness.put_back([], True, 0.0)
            await crawl.until(lambda: client.hget(key, "") == b"- 20000")


@running
async def test_a_full_server_is_told_of_a_rest_when_it_has_room() -> None:
    with servers.start(servers.some(), maxmemory="100mb") as server:
        throttle = {"AUTOTHROTTLE_ENABLED": True, "AUTOTHROTTLE_START_DELAY": 0}
        async with StandIn(server, **POLITE, **throttle) as crawl:
            enqueue(crawl, "a.example", 4)
            found = await some(crawl, 2)
            server.raw.config_set("maxmemory", "1mb")
            answer(crawl, found[0], 429, "60")
            await asyncio.sleep(0.3)
            assert crawl.scheduler._coordinator.is_alive() and crawl.reason is None
            server.raw.config_set("maxmemory", "100mb")
            rests = "frontier:{frontier}:resting"
            await crawl.until(lambda: server.raw.zscore(rests, "a.example"))
            crawl.done(found[0])
            await none(crawl)
            assert crawl.scheduler._coordinator._away_since is None


@running
async def test_requests_that_are_added_without_a_crawl_have_groups(server: Any) -> None:
    with Frontier(server.url, "frontier", settings=POLITE) as frontier:
        urls = [f"http://a.example/{number}" for number in range(4)]
        assert frontier.add([*urls, page("a.example", dont_filter=True)]).added == 5
    async with StandIn(server, **POLITE) as crawl:
        assert hosts_of(await some(crawl, 2)) == {"a.example": 2}


@running
async def test_a_frontier_without_groups_is_refused(server: Any) -> None:
    async with StandIn(server) as crawl:
        enqueue(crawl, "a.example", 1)
        await crawl.until(lambda: not crawl.scheduler._coordinator.pending())
    other = StandIn(server, **POLITE)
    with pytest.raises(OptionsDiffer):
        await other.open()


@running
async def test_a_group_that_cannot_be_one_is_the_error_of_the_callback(server: Any) -> None:
    async with StandIn(server, REDSET_GROUP=lambda request: "") as crawl:
        with pytest.raises(ValueError, match="the group of a request"):
            enqueue(crawl, "a.example", 1)


@running
async def test_a_polite_process_neither_warns_of_others_nor_delays_again(server: Any) -> None:
    async with StandIn(server, **POLITE, DOWNLOAD_DELAY=1) as crawl:
        assert crawl.scheduler._options.delayed_by == ""
        assert isinstance(crawl.downloader.slots, PoliteSlots)
        enqueue(crawl, "a.example", 1)
        request = await crawl.next()
        crawl.downloader.slots["a.example"] = Slot(1, 1.0, 0)
        slot = crawl.downloader.slots["a.example"]
        slot.queue.append((request, None))
        assert slot.download_delay() == 0
        slot.queue.appendleft((page("a.example"), None))
        assert slot.download_delay() == 1
    async with StandIn(server, REDSET_GROUP=True, DOWNLOAD_DELAY=1) as plain:
        assert plain.scheduler._options.delayed_by == "DOWNLOAD_DELAY"
        assert not isinstance(plain.downloader.slots, PoliteSlots)


# --- crawls


class Crawls:
    """Processes that crawl many hosts."""

    def __init__(self, server: Any, hosts: Hosts, directory: Path, **settings: Any) -> None:
        self._hosts, self._begin = hosts, directory / "begin"
        self._stack = contextlib.ExitStack()
        self._proxy = self._stack.enter_context(hosts.served())
        self._settings = {"REDSET_URL": server.url, "REDSET_LEASE_TTL": 2, **settings}

    def __enter__(self) -> Crawls:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def start(self, num: int) -> list[children.Child]:
        """Start processes, and let them begin together."""
        started = [self._started() for _ in range(num)]
        for child in started:
            assert child.line(LIMIT) == "ready"
        self._begin.touch()
        return started

    def _started(self) -> children.Child:
        path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
        env = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
        given = {
            "proxy": self._proxy,
            "hosts": self._hosts.number,
            "begin": str(self._begin),
            "settings": self._settings,
        }
        child = children.Child("-m", "crawls.hosts", json.dumps(given), cwd=TESTS, env=env)
        return self._stack.enter_context(child)

    def wait_for(self, num: int, child: children.Child) -> None:
        """Wait until so many pages were fetched."""
        until = time.monotonic() + LIMIT
        while sum(map(len, list(self._hosts.log.values()))) < num:
            assert child.status is None and time.monotonic() < until, str(child)
            time.sleep(0.01)


#: Seconds by which the clocks of the server and of the hosts may differ within a test.
CLOCKS = 0.01


@pytest.mark.slow(15)
@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    ("limit", "delay", "pause"), [(1, 0.6, 0.02), (2, 0.0, 0.2), (3, 0.4, 0.8)], ids=str
)
def test_a_crawl_of_many_hosts_keeps_their_limits_although_a_process_is_killed(
    server: Any, tmp_path: Path, limit: int, delay: float, pause: float
) -> None:
    hosts = Hosts(20, 6, pause)
    settings = {"CONCURRENT_REQUESTS_PER_DOMAIN": limit, "DOWNLOAD_DELAY": delay}
    with Crawls(server, hosts, tmp_path, REDSET_POLITE=True, **settings) as crawls:
        processes = crawls.start(3)
        crawls.wait_for(40, processes[0])
        [(busiest, _)] = hosts.agents().most_common(1)
        [killed] = [child for child in processes if f"process {child.pid}" == busiest]
        killed.kill()
        for child in processes:
            if child is not killed:
                child.check(0, LIMIT)
    assert set(hosts.fetched()) == hosts.expected
    assert len(hosts.agents()) > 1
    gaps = {host: hosts.smallest_gap(host) for host in hosts.log}
    assert min(gaps.values()) >= delay - CLOCKS, gaps
    assert max(hosts.most_at_once(host) for host in hosts.log) <= limit
    # The slots of the killed process come back, and hosts did not wait for each other.
    assert set(hosts.log) == {host_of(number) for number in range(20)}


@pytest.mark.slow(10)
@pytest.mark.timeout(150)
def test_a_busy_host_rests_in_all_processes_of_a_crawl(server: Any, tmp_path: Path) -> None:
    hosts = Hosts(5, 8, 0.02)
    hosts.busy[f"http://{host_of(2)}/3"] = (429, "3")
    settings = {"CONCURRENT_REQUESTS_PER_DOMAIN": 1, "DOWNLOAD_DELAY": 0.1}
    with Crawls(server, hosts, tmp_path, REDSET_POLITE=True, **settings) as crawls:
        for child in crawls.start(2):
            child.check(0, LIMIT)
    assert set(hosts.fetched()) == hosts.expected
    log = sorted(hosts.log[host_of(2)])
    [at] = [place for place, each in enumerate(log) if each.status == 429]
    assert log[at + 1].began - log[at].ended > 3 - CLOCKS
    assert all(hosts.smallest_gap(host) < 2 for host in hosts.log)


@pytest.mark.slow(10)
@pytest.mark.timeout(150)
def test_autothrottle_slows_all_processes_of_a_crawl(server: Any, tmp_path: Path) -> None:
    # A host that takes 0.4 s is asked each 0.4 s, by all processes together.
    hosts = Hosts(2, 8, 0.4)
    throttle = {"AUTOTHROTTLE_ENABLED": True, "AUTOTHROTTLE_START_DELAY": 1}
    with Crawls(server, hosts, tmp_path, REDSET_POLITE=True, **throttle) as crawls:
        for child in crawls.start(2):
            child.check(0, LIMIT)
    assert set(hosts.fetched()) == hosts.expected
    for host in hosts.log:
        log = sorted(hosts.log[host])
        # The first delay is a second, and no later one is shorter than the host's own time.
        assert log[-1].began - log[0].asked > 1 + 6 * 0.4 - CLOCKS
        assert hosts.smallest_gap(host) > 0.4 - CLOCKS
