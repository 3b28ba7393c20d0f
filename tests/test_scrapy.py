"""Scrapy's scheduler: settings, stored requests, order, duplicates, and what its thread does."""

from __future__ import annotations

import ast
import asyncio
import datetime
import importlib.util
import itertools
import math
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import children
import pytest
import redis
import servers
from blocking import running
from hypothesis import given
from hypothesis import strategies as st
from load import Load
from selection import drawn

if importlib.util.find_spec("scrapy") is None:
    pytest.skip("scrapy: it is not installed here", allow_module_level=True)

from crawls.stand_in import Spider, StandIn
from scrapy import FormRequest, Request
from scrapy.exceptions import NotConfigured
from scrapy.http import JsonRequest, XmlRpcRequest
from scrapy.http.request import NO_CALLBACK
from scrapy.settings import Settings
from scrapy.utils.request import RequestFingerprinter
from twisted.python.failure import Failure

import redset.scrapy
from redset import Key, SortedSet
from redset.exceptions import AddError, DecodeError, Full, OptionsDiffer
from redset.scrapy import Frontier, ItemPipeline, Unfit, coordinator, fingerprints, scheduler
from redset.scrapy.codec import RequestCodec
from redset.scrapy.entries import Entry, open_frontier
from redset.scrapy.errors import is_away, is_full
from redset.scrapy.settings import CrawlOptions, connector_of, delay_of

PACKAGE = Path(redset.scrapy.__file__).parent


@pytest.fixture
def server(all_servers: servers.Servers) -> Any:
    """One server that is here, empty."""
    found = all_servers.get(servers.some())
    found.flush()
    return found


def page(name: str, **options: Any) -> Request:
    return Request(f"http://site.example/{name}", **options)


def frontier_of(client: Any, **options: Any) -> SortedSet[Any]:
    """The set of the crawls of these tests."""
    given = {"order": "lifo", "remember": True, "max_attempts": 20, **options}
    return open_frontier(client, "frontier", **given)


# --- structure


def test_redset_itself_never_imports_scrapy(tmp_path: Path) -> None:
    code = "import sys, redset, redset.asyncio; print([m for m in sys.modules if 'scrapy' in m])"
    assert children.run("-c", code, cwd=tmp_path).out == "[]\n"


def test_without_scrapy_the_import_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import importlib.util as u, sys\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name: None if name == 'scrapy' else find(name)\n"
        "import redset.scrapy"
    )
    ended = children.run("-c", code, cwd=tmp_path, status=1)
    assert "pip install 'redset[scrapy]'" in ended.err


def test_it_stands_on_public_names_and_exchanges_alone() -> None:
    private: dict[str, set[str]] = {}
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("redset."):
                if any(part.startswith("_") for part in str(node.module).split(".")):
                    private.setdefault(path.name, set()).add(str(node.module))
            elif isinstance(node, ast.Attribute) and node.attr in ("_ctx", "_run", "_link"):
                private.setdefault(path.name, set())
    names = {name.rpartition(".")[2] for name in private.get("exchange.py", ())}
    assert set(private) == {"exchange.py"}
    assert names == {"errors", "exchanging", "settling"}


def test_no_module_imports_a_reactor() -> None:
    for path in PACKAGE.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            assert "reactor" not in ast.unparse(node) or not isinstance(node, ast.ImportFrom)


# --- settings


def options_of(**settings: Any) -> CrawlOptions:
    return CrawlOptions.of(Settings(settings), Spider)


def test_the_defaults_are_those_of_the_documentation() -> None:
    options = options_of()
    assert options.name == "stand-in:frontier"
    assert (options.remember, options.order, options.start_requests) == (True, "lifo", "once")
    assert (options.prefetch, options.prefetch_max, options.max_pending) == (32, 500, 100_000)
    assert (options.ttl, options.max_hold, options.max_outage) == (60, 3600, 300)
    assert (options.max_attempts, options.on_error, options.unserializable) == (20, "ack", "memory")
    assert (options.inbox, options.max_idle, options.items, options.clear) == (
        None,
        0,
        None,
        "never",
    )
    assert options.request_classes[0] == "scrapy.*"
    assert options_of(CONCURRENT_REQUESTS=100).prefetch == 200
    assert options_of(REDSET_INBOX="%(spider)s:start").max_idle == math.inf
    assert options_of(REDSET_REMEMBER="3600").remember == 3600
    assert options_of(REDSET_NAME="%(spider)s-%(job)s", SCRAPY_JOB="7").name == "stand-in-7"
    assert options_of(REDSET_MAX_ATTEMPTS="None").max_attempts is None
    assert options_of(REDSET_MAX_ATTEMPTS=None).max_attempts is None
    assert options_of(REDSET_REQUEST_CLASSES=["a.*", "b.C"]).request_classes == ("a.*", "b.C")
    assert connector_of(Settings({"REDSET_CLIENT": os.getpid}))() == os.getpid()


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, ""),
        ({"DOWNLOAD_DELAY": 0.5}, "DOWNLOAD_DELAY"),
        ({"AUTOTHROTTLE_ENABLED": True}, "AUTOTHROTTLE_ENABLED"),
    ],
)
def test_the_setting_that_delays_each_process_is_known(settings: dict[str, Any], name: str) -> None:
    assert delay_of(Settings(settings)) == name


@pytest.mark.parametrize(
    ("error", "full", "away"),
    [
        (Full("full"), True, False),
        (redis.exceptions.OutOfMemoryError("OOM"), True, False),
        (redis.exceptions.RedisClusterException("no node"), False, True),
        (redis.ConnectionError("gone"), False, True),
        (redis.AuthenticationError("wrong password"), False, False),
        (redis.ResponseError("WRONGTYPE"), False, False),
        (ConnectionRefusedError("gone"), False, True),
        (ValueError("bad"), False, False),
    ],
    ids=repr,
)
def test_a_full_server_and_one_that_is_away_are_told_apart(
    error: Exception, full: bool, away: bool
) -> None:
    assert (is_full(error), is_away(error)) == (full, away)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDSET_NAME", "%(nobody)s"),
        ("REDSET_NAME", "%(job)s"),
        ("REDSET_REMEMBER", False),
        ("REDSET_REMEMBER", "soon"),
        ("REDSET_ORDER", "random"),
        ("REDSET_START_REQUESTS", "never"),
        ("REDSET_PREFETCH", 0),
        ("REDSET_PREFETCH_MAX", "many"),
        ("REDSET_LEASE_TTL", 0),
        ("REDSET_LEASE_TTL", -1),
        ("REDSET_MAX_HOLD", "long"),
        ("REDSET_MAX_HOLD", True),
        ("REDSET_REQUEST_CLASSES", ["scrapy.*", 7]),
        ("REDSET_MAX_ATTEMPTS", 0),
        ("REDSET_ON_ERROR", "retry"),
        ("REDSET_UNSERIALIZABLE", "pickle"),
        ("REDSET_MAX_PENDING", 1.5),
        ("REDSET_MAX_OUTAGE", "none"),
        ("REDSET_MAX_IDLE", -1),
        ("REDSET_INBOX", 7),
        ("REDSET_ITEMS", "%(x)s"),
        ("REDSET_CLEAR", True),
        ("SCHEDULER_FLUSH_ON_START", True),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        options_of(**{name: value})


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"REDSET_URL": "http://a"},
        {"REDSET_URL": 7},
        {"REDSET_CLIENT": 7},
        {"REDSET_CLIENT": "os.sep"},
        {"REDSET_URL": "redis://a", "REDSET_CLIENT": "os.getpid"},
        {"REDSET_URL": "redis://a", "REDSET_CLUSTER": "perhaps"},
        {"REDSET_URL": "unix:///a", "REDSET_CLUSTER": True},
    ],
)
def test_the_server_must_be_named_once(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="REDSET_"):
        connector_of(Settings(settings))


def test_the_servers_of_scrapy_redis_are_read_as_they_are() -> None:
    made = connector_of(
        Settings({"REDIS_URL": "redis://h:7/3", "REDIS_PARAMS": {"socket_timeout": 9}})
    )()
    known = made.get_connection_kwargs()
    assert (known["host"], known["port"], known["db"], known["socket_timeout"]) == ("h", 7, 3, 9)
    made = connector_of(Settings({"REDIS_HOST": "h", "REDIS_PORT": 7, "REDIS_DB": 2}))()
    known = made.get_connection_kwargs()
    assert (known["host"], known["port"], known["db"], known["socket_timeout"]) == ("h", 7, 2, 30)
    made = connector_of(Settings({"REDSET_URL": "redis://h?socket_timeout=3"}))()
    assert made.get_connection_kwargs()["socket_timeout"] == 3


@pytest.mark.parametrize("scheme", ["url", "host"])
def test_the_client_may_be_that_of_a_cluster(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "url": {"REDSET_URL": "redis://h:7?socket_timeout=3"},
        "host": {"REDIS_HOST": "h", "REDIS_PORT": 7, "REDIS_PARAMS": {"socket_timeout": 3}},
    }[scheme]
    given: list[Any] = []
    monkeypatch.setattr(
        redis.cluster.RedisCluster, "__init__", lambda self, **options: given.append(options)
    )
    made = connector_of(Settings({**settings, "REDSET_CLUSTER": True}))()
    assert type(made) is redis.cluster.RedisCluster
    (options,) = given
    if scheme == "host":
        assert (options["host"], options["port"]) == ("h", 7)
        assert options["socket_timeout"] == 3


# --- fingerprints


def test_fingerprints_are_those_of_scrapy() -> None:
    requests = [
        page("a?b=1&a=2"),
        page("a?a=2&b=1"),
        page("a?a=2&b=1#f"),
        page("a?a=2&b=1", method="POST"),
        page("a?a=2&b=1", body=b"x"),
        page("a?a=2&b=1", meta={"verbatim_url": True}),
        page("a?b=1&a=2", meta={"verbatim_url": True}),
        page("a?b=1&a=2", headers={"a": "b"}, cookies={"a": "1"}, priority=3),
    ]
    own = RequestFingerprinter()
    fingerprint = fingerprints.fingerprint_maker(RequestFingerprinter())
    for each in [*requests, *reversed(requests)]:
        assert fingerprint(each.copy()) == own.fingerprint(each)


def test_a_fingerprint_is_made_once_for_a_url_and_few_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []

    class Counting:
        def fingerprint(self, request: Request) -> bytes:
            made.append(request.url)
            return request.url.encode()

    monkeypatch.setattr(fingerprints, "RequestFingerprinter", Counting)
    monkeypatch.setattr(fingerprints, "MOST", 10)
    fingerprint = fingerprints.fingerprint_maker(Counting())
    for number in [*range(20), *range(10, 20)]:
        assert fingerprint(page(str(number))) == page(str(number)).url.encode()
    assert len(made) == 20
    for number in range(20, 40):
        fingerprint(page(str(number)))
    fingerprint(page("0"))
    assert len(made) == 41


def test_another_fingerprinter_is_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(RequestFingerprinter):
        pass

    own = Own()
    assert fingerprints.fingerprint_maker(own) == own.fingerprint
    monkeypatch.setattr(fingerprints, "NEWEST", (1, 0))
    plain = RequestFingerprinter()
    assert fingerprints.fingerprint_maker(plain) == plain.fingerprint


# --- stored requests

SPIDER = Spider()
CODEC = RequestCodec(SPIDER, ("scrapy.*", "test_scrapy.*"))
FIELDS = (
    "url", "callback", "method", "headers", "body", "cookies", "meta", "encoding", "flags",
    "cb_kwargs", "dont_filter", "errback", "priority",
)  # fmt: skip


def returned(request: Request) -> Any:
    """Encode a request and decode it again."""
    return CODEC.loads(CODEC.dumps(request))


def assert_returns(request: Request) -> None:
    found = returned(request)
    assert type(found) is type(request)
    for field in {*FIELDS, *type(request).attributes}:
        assert getattr(found, field) == getattr(request, field), field
        assert type(getattr(found, field)) is type(getattr(request, field)), field


SIMPLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(codec=None)),
    st.binary(),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.just(datetime.timezone.utc)),
)
HASHABLE = st.one_of(SIMPLE, st.tuples(SIMPLE, SIMPLE), st.frozensets(SIMPLE, max_size=3))
VALUES = st.recursive(
    st.one_of(SIMPLE, st.sets(HASHABLE, max_size=3), HASHABLE),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner),
        st.dictionaries(st.one_of(st.text(max_size=3), st.just("$"), HASHABLE), inner, max_size=3),
    ),
    max_leaves=8,
)


def told(value: Any) -> str:
    """A value with all types: 1, 1.0 and True are three, and sets have no order."""
    kind = type(value).__name__
    if isinstance(value, dict):
        return f"{kind}{[(told(key), told(each)) for key, each in value.items()]}"
    if isinstance(value, (list, tuple)):
        return f"{kind}{list(map(told, value))}"
    if isinstance(value, (set, frozenset)):
        return f"{kind}{sorted(map(told, value))}"
    return f"{kind} {value!r}"


@pytest.mark.timeout(300)
@drawn(300)
@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=3))
def test_what_a_request_carries_comes_back_as_it_was(meta: dict[str, Any]) -> None:
    found = returned(page("a", meta=meta, cb_kwargs=meta))
    assert told(found.meta) == told(found.cb_kwargs) == told(meta)


def test_not_a_number_and_infinities_come_back() -> None:
    found = returned(page("a", meta={"x": [math.nan, math.inf, -math.inf]})).meta["x"]
    assert math.isnan(found[0]) and found[1:] == [math.inf, -math.inf]


class Custom(Request):
    """A class of the project, with an attribute and defaults of its own."""

    attributes = (*Request.attributes, "depth")

    def __init__(self, *args: Any, depth: Any = None, **options: Any) -> None:
        options.setdefault("dont_filter", True)
        super().__init__(*args, **options)
        self.depth = depth
        self.headers.setdefault("X-Own", "1")


@pytest.mark.parametrize(
    "request_",
    [
        page("a"),
        page("ä?q=ü#f", priority=7, dont_filter=True, flags=["x"], encoding="latin-1"),
        page("a", callback=SPIDER.other, errback=SPIDER.failed),
        page("a", callback=SPIDER.private()),
        page("a", callback=NO_CALLBACK),
        page("a", method="PUT", body=b"\xff\x00", headers={"A": ["1", b"\xff"], "b": "ü"}),
        page("a", cookies={"a": "1"}),
        page("a", cookies=[{"name": "a", "value": "1", "domain": "x"}]),
        JsonRequest("http://a.example", data={"a": [1]}, dumps_kwargs={"indent": 1}),
        JsonRequest("http://a.example", method="GET", body=b"", headers={"Accept": "text/x"}),
        FormRequest("http://a.example", formdata={"a": "ü", "b": "2"}),
        XmlRpcRequest("http://a.example", methodname="f", params=(1,), dont_filter=False),
        Custom("http://a.example", depth=(1, b"x")),
        Custom("http://a.example", dont_filter=False, method="GET"),
    ],
    ids=str,
)
def test_each_kind_of_request_comes_back_as_it_was(request_: Request) -> None:
    assert_returns(request_)


def test_a_class_does_not_put_headers_back_that_were_removed() -> None:
    request = JsonRequest("http://a.example", data=1)
    del request.headers["Accept"]
    assert_returns(request)


def loop() -> Any:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"meta": {"l": [0, {"x": object()}]}}, r"meta\['l'\]\[1\]\['x'\] is a builtins.object"),
        ({"meta": {"a": {1: {2: lambda: 0}}}}, r"meta\['a'\]\[1\]\[2\] is a builtins.function"),
        ({"meta": {(object(),): 1}}, r"meta key\[0\] is a builtins.object"),
        ({"cb_kwargs": {"p": Path()}}, r"cb_kwargs\['p'\] is a pathlib"),
        ({"meta": {"i": page("b")}}, r"meta\['i'\] is a scrapy"),
        ({"meta": {"d": type("S", (str,), {})("x")}}, r"meta\['d'\] is a test_scrapy.S"),
        ({"cookies": {"a": object()}}, r"cookies\['a'\] is"),
        ({"callback": lambda r: 0}, "callback is not a method"),
        ({"errback": Spider().failed}, "errback is not a method"),
        ({"callback": Spider.parse}, "callback is not a method"),
        ({"meta": {"l": loop()}}, "meta is nested too deeply"),
    ],
)
def test_what_cannot_come_back_is_refused_with_its_path(options: Any, path: str) -> None:
    with pytest.raises(Unfit, match=path):
        CODEC.dumps(page("a", **options))


def test_a_time_zone_that_would_be_another_is_refused() -> None:
    zoneinfo = pytest.importorskip("zoneinfo")
    try:
        zone = zoneinfo.ZoneInfo("Europe/Vienna")
    except Exception:
        pytest.skip("no time zones here")
    with pytest.raises(Unfit, match=r"meta\['t'\] has a time zone"):
        CODEC.dumps(page("a", meta={"t": datetime.datetime(2026, 1, 1, tzinfo=zone)}))


def test_only_allowed_classes_are_stored_and_loaded() -> None:
    class Inner(Request):
        pass

    with pytest.raises(Unfit, match="cannot be imported"):
        CODEC.dumps(Inner("http://a.example"))
    strict = RequestCodec(SPIDER, ("scrapy.*",))
    with pytest.raises(Unfit, match="REDSET_REQUEST_CLASSES"):
        strict.dumps(Custom("http://a.example"))
    with pytest.raises(ValueError, match="not allowed"):
        strict.loads(CODEC.dumps(Custom("http://a.example")))
    with pytest.raises(ValueError, match="not a subclass"):
        strict.loads(b'{"url":"http://a.example","class":"scrapy.Spider"}')


@pytest.mark.parametrize("name", ["gone", "name", "crawler", "settings"])
def test_a_stored_callback_can_be_nothing_but_a_method(name: str) -> None:
    with pytest.raises(ValueError, match="not a method"):
        CODEC.loads(b'{"url":"http://a.example","callback":"%b"}' % name.encode())


def test_a_stored_request_is_compact() -> None:
    found = page("path/1", callback=SPIDER.parse, meta={"depth": 3})
    assert CODEC.dumps(found) == (
        b'{"url":"http://site.example/path/1","callback":"parse","meta":{"depth":3}}'
    )


# --- the scheduler


@running
async def test_what_is_enqueued_is_dequeued_once_and_then_all_is_over(server: Any) -> None:
    async with StandIn(server) as crawl:
        for name in "abc":
            assert crawl.scheduler.enqueue_request(page(name, callback=crawl.spider.other))
        assert crawl.scheduler.has_pending_requests()
        found = [await crawl.next() for _ in range(3)]
        assert sorted(each.url[-1] for each in found) == ["a", "b", "c"]
        assert found[0].callback == crawl.spider.other
        assert crawl.scheduler.next_request() is None
        assert crawl.scheduler.has_pending_requests()
        for each in found:
            crawl.done(each)
        await crawl.finished()
    assert crawl.count("scheduler/enqueued") == crawl.count("scheduler/dequeued") == 3
    assert crawl.count("redset/acked") == crawl.count("redset/remembered") == 3
    assert crawl.count("redset/queued") == 0


@pytest.mark.parametrize(("order", "expected"), [("lifo", "dcab"), ("fifo", "cdba")])
@running
async def test_priority_comes_first_and_then_the_order(
    server: Any, order: str, expected: str
) -> None:
    with server.client() as client:
        frontier = frontier_of(client, order=order)
        for name, priority in [("b", 0), ("a", 0), ("c", 1), ("d", 1)]:
            raw = RequestCodec(None).dumps(page(name))
            frontier.add(Entry(name.encode(), raw, priority))
    async with StandIn(server, REDSET_ORDER=order) as crawl:
        assert "".join(name[1:] for name in await crawl.rest()) == expected


@running
async def test_a_duplicate_is_refused_at_once_if_it_is_known_here(server: Any) -> None:
    async with StandIn(server) as crawl:
        assert crawl.scheduler.enqueue_request(page("a"))
        assert not crawl.scheduler.enqueue_request(page("a"))
        assert not crawl.scheduler.enqueue_request(page("a#fragment"))
        assert len(await crawl.rest()) == 1
    assert crawl.count("dupefilter/filtered") == crawl.count("dupefilter/filtered/memory") == 2


@running
async def test_opening_a_crawl_waits_for_nobody_if_connecting_takes_time(server: Any) -> None:
    def connect() -> Any:
        time.sleep(0.4)
        return server.client()

    async with StandIn(server) as other:
        other.scheduler.enqueue_request(page("a"))
        request = await other.next()
        # Nothing is queued, and the frontier is not finished.
        crawl = StandIn(server, REDSET_URL=None, REDSET_CLIENT=connect)
        await asyncio.wait_for(crawl.open(), 5)
        await crawl.close()
        other.done(request)


@running
async def test_a_duplicate_that_another_process_added_is_refused_by_the_server(
    server: Any,
) -> None:
    async with StandIn(server) as first, StandIn(server) as second:
        first.scheduler.enqueue_request(page("a"))
        await first.until(lambda: not first.scheduler._coordinator.pending())
        assert second.scheduler.enqueue_request(page("a"))
        await second.until(lambda: not second.scheduler._coordinator.pending())
        found = await asyncio.gather(first.rest(), second.rest())
        assert sum(map(len, found)) == 1
    assert second.count("dupefilter/filtered") == second.count("dupefilter/filtered/redset") == 1


@running
async def test_dont_filter_is_never_refused_merged_or_remembered(server: Any) -> None:
    async with StandIn(server) as crawl:
        for _ in range(3):
            assert crawl.scheduler.enqueue_request(page("a", dont_filter=True))
        assert len(await crawl.rest()) == 3
    assert crawl.count("redset/remembered") == 0


@pytest.mark.parametrize(("how", "times"), [("once", 1), ("always", 2)])
@running
async def test_start_requests_are_deduplicated_over_processes(
    server: Any, how: str, times: int
) -> None:
    start = {"dont_filter": True, "meta": {"is_start_request": True}}
    settings = {"REDSET_START_REQUESTS": how}
    async with StandIn(server, **settings) as first, StandIn(server, **settings) as second:
        for crawl in (first, second):
            crawl.scheduler.enqueue_request(page("a", **start))
        # A later page that links to it does not fetch it again.
        await first.until(lambda: not first.scheduler._coordinator.pending())
        second.scheduler.enqueue_request(page("a"))
        found = await asyncio.gather(first.rest(), second.rest())
    assert sum(map(len, found)) == (1 if how == "once" else 3)


@running
async def test_a_retry_of_a_start_request_is_none(server: Any) -> None:
    async with StandIn(server) as crawl:
        meta = {"is_start_request": True}
        crawl.scheduler.enqueue_request(page("a", dont_filter=True, meta=meta))
        request = await crawl.next()
        assert crawl.scheduler.enqueue_request(request.replace(dont_filter=True))
        crawl.done(request)
        again = await crawl.next()
        assert again.url == request.url and again.meta["is_start_request"]
        # Of a start request that is over, the flag counts again.
        crawl.done(again)
        crawl.scheduler.enqueue_request(request.copy())
        assert await crawl.rest() == []


@running
async def test_an_acknowledgement_waits_for_the_adds_before_it(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.client() as client:
        async with StandIn(server) as crawl:
            crawl.scheduler.enqueue_request(page("a"))
            request = await crawl.next()
            seen: list[bool] = []
            add_many = SortedSet.add_many

            def slow(self: Any, *args: Any, **options: Any) -> Any:
                time.sleep(0.1)
                seen.append(not frontier_of(client).finished())
                return add_many(self, *args, **options)

            monkeypatch.setattr(SortedSet, "add_many", slow)
            crawl.scheduler.enqueue_request(page("b"))
            crawl.done(request)
            await crawl.until(lambda: seen)
            # The page that led to it was still leased.
            assert seen == [True]
            assert await crawl.rest() == ["/b"]


@running
async def test_what_led_to_refused_adds_is_not_acknowledged(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.client() as client:
        async with StandIn(server) as crawl:
            crawl.scheduler.enqueue_request(page("a"))
            request = await crawl.next()
            add_many = SortedSet.add_many
            refusals: list[Any] = []

            def full(self: Any, items: Any, **options: Any) -> Any:
                refusals.append(items)
                raise AddError("full", result=None) from redis.OutOfMemoryError("OOM")

            monkeypatch.setattr(SortedSet, "add_many", full)
            crawl.scheduler.enqueue_request(page("b"))
            crawl.done(request)
            await crawl.until(lambda: len(refusals) >= 3)
            assert frontier_of(client).stats().leased == 1
            monkeypatch.setattr(SortedSet, "add_many", add_many)
            assert await crawl.rest() == ["/b"]


@running
async def test_a_lost_lease_takes_no_adds_with_it(server: Any) -> None:
    with server.client() as client:
        async with StandIn(server) as crawl:
            crawl.scheduler.enqueue_request(page("a"))
            request = await crawl.next()
            # As if another process had it.
            frontier_of(client).discard(Key(crawl.request_fingerprinter.fingerprint(request)))
            crawl.scheduler.enqueue_request(page("b"))
            crawl.done(request)
            assert await crawl.rest() == ["/b"]
        assert crawl.count("redset/lost") == 1


@running
async def test_a_process_that_has_nothing_stays_while_another_one_works(server: Any) -> None:
    async with StandIn(server) as busy:
        busy.scheduler.enqueue_request(page("a"))
        request = await busy.next()
        async with StandIn(server) as idle:
            await asyncio.sleep(0.5)
            assert idle.scheduler.has_pending_requests()
            busy.scheduler.enqueue_request(page("b"))
            busy.done(request)
            found = await asyncio.gather(busy.rest(), idle.rest())
            assert sum(map(len, found)) == 1


@running
async def test_closing_gives_back_what_is_not_begun_without_an_attempt(server: Any) -> None:
    with server.client() as client:
        async with StandIn(server) as crawl:
            for number in range(10):
                crawl.scheduler.enqueue_request(page(str(number)))
            crawl.done(await crawl.next())
            crawl.done(await crawl.next())
        frontier = frontier_of(client)
        assert (frontier.size(), frontier.stats().leased) == (8, 0)
        assert {lease.attempts for lease in frontier.lease(10)} == {0}


@running
async def test_leases_are_renewed_while_a_callback_computes(server: Any, load: Load) -> None:
    ttl = load.seconds(0.6)
    async with StandIn(server, REDSET_LEASE_TTL=ttl) as crawl:
        crawl.scheduler.enqueue_request(page("a"))
        request = await crawl.next()
        async with StandIn(server) as other:
            busy = time.monotonic() + 2.5 * ttl
            while time.monotonic() < busy:  # nothing else of the loop runs
                pass
            assert other.scheduler.next_request() is None
            crawl.done(request)
            await asyncio.gather(crawl.finished(), other.finished())
    assert crawl.count("redset/lost") == 0
    assert crawl.count("redset/renewed") >= 2


@running
async def test_a_request_that_is_held_too_long_is_renewed_no_more(server: Any) -> None:
    settings = {"REDSET_LEASE_TTL": 0.4, "REDSET_MAX_HOLD": 0.1}
    async with StandIn(server, **settings) as hung:
        hung.scheduler.enqueue_request(page("a"))
        await hung.next()
        async with StandIn(server) as other:
            # One of both leases it again.
            await other.until(lambda: len(hung.scheduler) + len(other.scheduler))


@running
async def test_nothing_but_cpu_happens_in_the_reactors_thread(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = threading.get_ident()

    class Forbidden(socket.socket):
        def send(self, *args: Any) -> Any:
            assert threading.get_ident() != mine
            return super().send(*args)

        def sendall(self, *args: Any) -> Any:
            assert threading.get_ident() != mine
            return super().sendall(*args)

        def recv(self, *args: Any) -> Any:
            assert threading.get_ident() != mine
            return super().recv(*args)

        def connect(self, *args: Any) -> Any:
            assert threading.get_ident() != mine
            return super().connect(*args)

    crawl = StandIn(server)
    monkeypatch.setattr(socket, "socket", Forbidden)
    async with crawl:
        for number in range(100):
            crawl.scheduler.enqueue_request(page(str(number)))
            crawl.scheduler.enqueue_request(page(str(number)))
        assert len(await crawl.rest()) == 100


@running
async def test_the_death_of_the_thread_ends_the_crawl(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with StandIn(server) as crawl:

        def broken(*args: Any, **options: Any) -> None:
            raise RuntimeError("nobody expected this")

        monkeypatch.setattr(coordinator, "perform", broken)
        monkeypatch.setattr(SortedSet, "add_many", broken)
        crawl.scheduler.enqueue_request(page("a"))
        await crawl.until(lambda: crawl.reason == "redset_failed")
        # The thread has reported its end, and still runs for a moment.
        await crawl.until(lambda: crawl.scheduler._is_over)
        monkeypatch.setattr(crawl.scheduler._coordinator, "is_alive", lambda: True)


@running
async def test_a_frontier_made_with_other_options_is_refused_at_opening(server: Any) -> None:
    with server.client() as client:
        frontier_of(client, remember=60).add(Entry(b"a", b"{}", 0))
    with pytest.raises(OptionsDiffer):
        await StandIn(server).open()


@running
async def test_a_frontier_of_something_else_is_refused_at_opening(server: Any) -> None:
    with server.client() as client:
        frontier = frontier_of(client)
        frontier.add_many([Entry(bytes([n]), b"pickled", 0) for n in range(10)])
    with pytest.raises(DecodeError):
        await StandIn(server).open()


@running
async def test_an_engine_of_another_shape_is_refused(server: Any) -> None:
    crawl = StandIn(server)
    crawl._slot.inprogress = []
    with pytest.raises(RuntimeError, match="tested with Scrapy"):
        crawl.scheduler.open(crawl.spider)
    crawl = StandIn(server)
    crawl._slot.scheduler = None
    with pytest.raises(RuntimeError, match="tested with Scrapy"):
        crawl.scheduler.open(crawl.spider)


@running
async def test_a_stored_request_that_cannot_be_made_is_a_dead_letter(server: Any) -> None:
    with server.client() as client:
        frontier = frontier_of(client)
        renamed = b'{"url":"http://site.example/b","callback":"renamed"}'
        frontier.add(Entry(b"a", renamed, 5))
        frontier.add(Entry(b"b", b"{", 5))
        async with StandIn(server) as crawl:
            crawl.scheduler.enqueue_request(page("good"))
            assert await crawl.rest() == ["/good"]
        assert crawl.count("redset/dead") == 2
        reasons = " ".join(letter.reason for letter in frontier.dead)
        assert "not a method" in reasons and "cannot be decoded" in reasons


# --- requests that cannot be stored


@running
async def test_what_cannot_be_stored_is_kept_and_holds_back_what_led_to_it(server: Any) -> None:
    with server.client() as client:
        async with StandIn(server) as crawl:
            crawl.scheduler.enqueue_request(page("a"))
            parent = await crawl.next()
            thing = object()
            assert crawl.scheduler.enqueue_request(page("kept", meta={"x": thing}))
            assert not crawl.scheduler.enqueue_request(page("kept", meta={"x": thing}))
            crawl.done(parent)
            kept = await crawl.next()
            assert kept.meta["x"] is thing
            await asyncio.sleep(0.2)
            assert frontier_of(client).stats().leased == 1
            crawl.done(kept)
            await crawl.finished()
            assert frontier_of(client).finished()
        assert crawl.count("scheduler/unserializable") == 1
        assert crawl.count("scheduler/dequeued/memory") == 1


@running
async def test_at_the_end_what_led_to_a_lost_request_is_given_back(server: Any) -> None:
    with server.client() as client:
        async with StandIn(server) as crawl:
            crawl.scheduler.enqueue_request(page("a"))
            parent = await crawl.next()
            crawl.scheduler.enqueue_request(page("kept", meta={"x": object()}))
            crawl.done(parent)
        assert [lease.attempts for lease in frontier_of(client).lease(5)] == [0]


@running
async def test_what_cannot_be_stored_may_be_raised_or_dropped(server: Any) -> None:
    async with StandIn(server, REDSET_UNSERIALIZABLE="raise") as crawl:
        with pytest.raises(Unfit, match=r"meta\['x'\]"):
            crawl.scheduler.enqueue_request(page("a", meta={"x": object()}))
    async with StandIn(server, REDSET_UNSERIALIZABLE="drop") as crawl:
        assert not crawl.scheduler.enqueue_request(page("a", meta={"x": object()}))
        await crawl.finished()
    assert crawl.count("scheduler/unserializable") == 1


# --- slots, priorities, errors


class Slot:
    def __init__(self, active: int, concurrency: int = 8) -> None:
        self.active, self.concurrency = range(active), concurrency


@running
async def test_the_slot_with_the_least_to_do_comes_first_and_full_ones_wait(server: Any) -> None:
    async with StandIn(server) as crawl:
        for host in ("full", "busy", "idle"):
            crawl.scheduler.enqueue_request(Request(f"http://{host}.example/"))
        crawl.scheduler.enqueue_request(
            Request("http://x.example/", meta={"download_slot": "full.example"})
        )
        await crawl.until(lambda: (crawl.scheduler._take_arrivals(), len(crawl.scheduler) == 4)[1])
        crawl.downloader.slots = {"full.example": Slot(8), "busy.example": Slot(3)}
        first, second = await crawl.next(), await crawl.next()
        assert (first.url, second.url) == ("http://idle.example/", "http://busy.example/")
        assert crawl.scheduler.next_request() is None
        assert crawl.scheduler.has_pending_requests()
        crawl.downloader.slots = {}
        crawl.done(first)
        crawl.done(second)
        assert len(await crawl.rest()) == 2


@running
async def test_more_is_leased_while_all_slots_are_full(server: Any) -> None:
    with server.client() as client:
        codec, frontier = RequestCodec(None), frontier_of(client)
        for number in range(150):
            raw = codec.dumps(Request(f"http://slow.example/{number}"))
            frontier.add(Entry(b"s%d" % number, raw, 1))
        frontier.add(Entry(b"other", codec.dumps(Request("http://other.example/")), 0))
    async with StandIn(server) as crawl:
        crawl.downloader.slots = {"slow.example": Slot(8)}
        assert (await crawl.next()).url == "http://other.example/"


@running
async def test_priorities_are_cut_off_and_counted(server: Any, caplog: Any) -> None:
    async with StandIn(server) as crawl:
        crawl.scheduler.enqueue_request(page("a", priority=10_000))
        crawl.scheduler.enqueue_request(page("b", priority=-10_000))
        assert (await crawl.next()).priority == 10_000
    assert crawl.count("redset/priority_clamped") == 2
    assert "cut off to 4095" in caplog.text


@running
async def test_a_callback_that_raised_makes_a_dead_letter_if_that_is_asked_for(
    server: Any,
) -> None:
    from scrapy import signals
    from scrapy.http import Response

    with server.client() as client:
        async with StandIn(server, REDSET_ON_ERROR="dead") as crawl:
            crawl.scheduler.enqueue_request(page("a"))
            request = await crawl.next()
            try:
                raise KeyError("price")
            except KeyError:
                failure = Failure()
            response = Response(request.url, request=request)
            crawl.signals.send_catch_log(
                signals.spider_error, failure=failure, response=response, spider=crawl.spider
            )
            crawl.done(request)
            await crawl.finished()
        (letter,) = frontier_of(client).dead
        assert "KeyError: 'price'" in letter.reason


@running
async def test_pending_adds_beyond_the_limit_stop_the_handing_out(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with StandIn(server, REDSET_MAX_PENDING=5) as crawl:
        crawl.scheduler.enqueue_request(page("a"))
        await crawl.until(lambda: len(crawl.scheduler) == 1)
        go_on, add_many = threading.Event(), SortedSet.add_many

        def late(*args: Any, **options: Any) -> Any:
            go_on.wait(10)
            return add_many(*args, **options)

        monkeypatch.setattr(SortedSet, "add_many", late)
        for number in range(10):
            crawl.scheduler.enqueue_request(page(str(number)))
        assert crawl.scheduler.next_request() is None
        woken = crawl.woken
        go_on.set()
        await crawl.until(lambda: crawl.woken > woken)
        assert len(await crawl.rest()) == 11


async def refused_by_the_table(crawl: StandIn, name: str) -> Key:
    """Let the known table refuse a page that this process added; the page's key."""
    key = Key(crawl.request_fingerprinter.fingerprint(page(name)))
    frontier = crawl.scheduler._coordinator.frontier
    for batch in itertools.count():  # the table is trusted for a second after such adds
        for number in range(20):
            crawl.scheduler.enqueue_request(page(f"more-{batch}-{number}"))
        crawl.scheduler.enqueue_request(page(name))
        await crawl.until(lambda: not crawl.scheduler._coordinator.pending())
        if frontier.known(key) and not crawl.scheduler.enqueue_request(page(name)):
            return key
    raise AssertionError


@pytest.mark.parametrize("between", ["nothing", "an acknowledgement", "a renewal"])
@running
async def test_what_the_server_forgot_is_found_again(server: Any, between: str) -> None:
    """The server may have forgotten items for which the known table answered."""
    with server.client() as client:
        async with StandIn(server, REDSET_LEASE_TTL=0.9) as crawl:
            crawl.scheduler.enqueue_request(page("parent"))
            parent = await crawl.next()
            key = await refused_by_the_table(crawl, "7")
            if between == "an acknowledgement":
                acked = crawl.scheduler._coordinator.tally["redset/acked"]
                crawl.done(await crawl.next())
                tally = crawl.scheduler._coordinator.tally
                await crawl.until(lambda: tally["redset/acked"] > acked)
            elif between == "a renewal":
                renewed = crawl.scheduler._coordinator.tally["redset/renewed"]
                tally = crawl.scheduler._coordinator.tally
                await crawl.until(lambda: tally["redset/renewed"] > renewed)
            frontier_of(client).forget(key)
            crawl.done(parent)
            again = await crawl.rest()
            assert "/parent" in again
            assert crawl.scheduler.enqueue_request(page("7"))
            assert "/7" in await crawl.rest()


@running
async def test_what_was_written_here_and_forgotten_since_is_new_again(server: Any) -> None:
    with server.client() as client:
        async with StandIn(server) as crawl:
            crawl.scheduler.enqueue_request(page("a"))
            assert await crawl.rest() == ["/a"]
            frontier_of(client).clear()
            assert crawl.scheduler.enqueue_request(page("a"))
            assert await crawl.rest() == ["/a"]


@running
async def test_what_is_leased_while_a_crawl_closes_is_given_back(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.client() as client:
        frontier = frontier_of(client)
        crawl = StandIn(server)
        await crawl.open()
        entered, go_on = threading.Event(), threading.Event()

        def late(perform: Any) -> Any:
            def performed(*args: Any) -> None:
                perform(*args)
                if args[1].held:
                    entered.set()
                    go_on.wait(10)

            return performed

        for name in ("perform", "perform_when_there_is_work"):
            monkeypatch.setattr(coordinator, name, late(getattr(coordinator, name)))
        crawl.scheduler.enqueue_request(page("a"))
        await crawl.until(entered.is_set)
        closed = crawl.scheduler.close("shutdown")
        go_on.set()
        await asyncio.wait_for(closed.asFuture(asyncio.get_running_loop()), 20)
        assert (frontier.size(), frontier.stats().leased) == (1, 0)


# --- the inbox, the frontier, items


@running
async def test_any_program_feeds_the_inbox(server: Any) -> None:
    with server.client() as client:
        client.zadd("start", {b"http://site.example/a": 0})
        client.zadd("start", {b'{"url": "http://site.example/b", "priority": 3}': 1})
        client.zadd("start", {b"no url": 2})
        settings = {"REDSET_INBOX": "start", "REDSET_MAX_IDLE": 0}
        async with StandIn(server, **settings) as crawl:
            found = await crawl.rest()
        assert sorted(found) == ["/a", "/b"]
        inbox = SortedSet(client, "start")
        assert inbox.finished()
        (letter,) = inbox.dead
        assert letter.raw == b"no url" and "no request can be made" in letter.reason


@running
async def test_the_spider_may_make_the_requests_of_the_inbox(server: Any) -> None:
    class Fed(Spider):
        def request_from_inbox(self, item: bytes) -> Request:
            return page(item.decode(), priority=9)

    with server.client() as client:
        client.zadd("start", {b"made": 0})
        settings = {"REDSET_INBOX": "start", "REDSET_MAX_IDLE": 0}
        async with StandIn(server, Fed(), **settings) as crawl:
            assert (await crawl.next()).priority == 9


@pytest.mark.parametrize("how", ["inbox", "start"])
@running
async def test_what_nobody_would_give_again_is_refused_by_the_server_alone(
    server: Any, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the server had forgotten all, and this process did not know it yet.
    monkeypatch.setattr(SortedSet, "known", lambda *_: True)
    with server.client() as client:
        async with StandIn(server, REDSET_INBOX="start") as crawl:
            assert not crawl.scheduler.enqueue_request(page("7"))
            if how == "inbox":
                client.zadd("start", {page("7").url: 0})
            else:
                meta = {"is_start_request": True}
                assert crawl.scheduler.enqueue_request(page("7", dont_filter=True, meta=meta))
            crawl.done(await crawl.next())


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://a.example", "a.example"),
        ("http://a.example/", "a.example"),
        ("http://a.exampl", "a.exampl"),
        ("http://a.example?b=/c", "a.example"),
        ("http://u:p@a.example:80/b", "a.example"),
        ("http://[::1]:80/b", "::1"),
        ("data:,a/b", ""),
        ("", ""),
    ],
)
def test_the_slot_is_the_host_as_the_downloader_has_it(url: str, host: str) -> None:
    for _ in range(2):
        for each in (url, url + "/x", url):
            slot = scheduler._slot_of_data({"url": each})
            assert slot == (urlsplit(each).hostname or "")
        assert scheduler._slot_of_data({"url": url}) == host
    assert scheduler._slot_of_data({"url": url, "meta": {"download_slot": "s"}}) == "s"


@running
async def test_with_an_inbox_a_crawl_waits_at_its_end(server: Any) -> None:
    with server.client() as client:
        async with StandIn(server, REDSET_INBOX="start") as crawl:
            await asyncio.sleep(0.4)
            assert crawl.scheduler.has_pending_requests()
            client.zadd("start", {b"http://site.example/late": 0})
            assert (await crawl.next()).url.endswith("late")


@running
async def test_a_crawl_waits_for_so_long_at_its_end(server: Any) -> None:
    async with StandIn(server, REDSET_MAX_IDLE=0.6) as crawl:
        began = time.monotonic()
        await crawl.finished()
        assert time.monotonic() - began > 0.5


@running
async def test_a_frontier_is_filled_without_a_crawl(server: Any) -> None:
    spider = Spider()
    with Frontier(server.url, "frontier", spider=spider) as frontier:
        requests = [page("a", callback=spider.other), "http://site.example/b"]
        assert frontier.add(requests).added == 2
        assert frontier.add(["http://site.example/b"]).refused == 1
        assert frontier.add([page("b", dont_filter=True)]).added == 1
        with pytest.raises(Unfit):
            frontier.add([page("c", meta={"x": object()})])
        for wrong in ("http://site.example/b", [7]):
            with pytest.raises(TypeError, match="requests must be"):
                frontier.add(wrong)  # type: ignore[arg-type]
    async with StandIn(server) as crawl:
        assert len(await crawl.rest()) == 3


@running
async def test_items_are_written_before_their_request_is_acknowledged(server: Any) -> None:
    with server.client() as client:
        async with StandIn(server, REDSET_ITEMS="items") as crawl:
            pipeline = ItemPipeline.from_crawler(crawl)
            crawl.scheduler.enqueue_request(page("a"))
            request = await crawl.next()
            item = {"url": request.url, "when": datetime.date(2026, 1, 2)}
            assert pipeline.process_item(item) is item
            crawl.done(request)
            await crawl.finished()
            assert SortedSet(client, "items").take(5) == [
                '{"url":"http://site.example/a","when":"2026-01-02"}'
            ]
    with pytest.raises(NotConfigured):
        ItemPipeline.from_crawler(StandIn(server))


@running
async def test_a_finished_frontier_is_cleared_if_that_is_asked_for(server: Any) -> None:
    crawl = StandIn(server, REDSET_CLEAR="finished")
    await crawl.open()
    crawl.scheduler.enqueue_request(page("a"))
    await crawl.rest()
    await crawl.close("finished")
    with server.client() as client:
        assert not frontier_of(client).seen(Key(crawl.request_fingerprinter.fingerprint(page("a"))))


@running
async def test_a_second_run_of_a_finished_crawl_says_why_it_ends(server: Any, caplog: Any) -> None:
    caplog.set_level("INFO")
    for _ in range(2):
        crawl = StandIn(server)
        await crawl.open()
        crawl.scheduler.enqueue_request(page("a"))
        await crawl.rest()
        await crawl.close("finished")
    assert "REDSET_NAME" in caplog.text
