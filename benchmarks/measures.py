"""The measures: contenders, sizes and goals."""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from benchmarks import machine, memory
from benchmarks.contest import LOOPBACK, UNIX, Bench, Contest, Entry, Scale, Size, named
from benchmarks.peers import (
    ASYNCIO,
    ENVIRONMENTS_USED,
    FALLBACK,
    GLIDE,
    JOBS,
    REDIS_PY,
    REDSET,
    REDSET_051,
    SCRAPY,
    SOCKET,
    STANDARD,
    Missing,
)
from benchmarks.processes import Worker
from benchmarks.results import Goal, Result, Series
from benchmarks.worker import data
from redset.serializers import JSONSerializer
from tests import servers

Measure = Callable[[Bench], Iterator[Result]]

LINKS = Path(__file__).resolve().parent.parent / "redset/demo/data/python-docs-links.jsonl.gz"

PLAIN = "SortedSet(client, name, serializer=JSONSerializer())"
MEMORY = 'SortedSet(client, name, key="url", remember=True, scorer="depth")'
DUMPED = "orjson.dumps(item, option=OPT_SORT_KEYS)"


# --- adding and taking


def _bulk(scale: Scale) -> Size:
    number = scale.pick(200_000, 20_000)
    return Size({"size": number}, number, f"{number:,} items", left=number)


ADD_MANY = Contest(
    "add_many",
    "add_many of 115-byte JSON dicts with random scores",
    (
        Entry(REDSET, "add_many", f"one call of {PLAIN}.add_many(items, score=scores)"),
        Entry(REDIS_PY, "add_many", f"zadd(name, mapping) of 1,000 items each, {DUMPED}, hiredis"),
        Entry(SOCKET, "add_many", "ZADD of 500 items each, encoded beforehand, not sorted"),
        Entry(GLIDE, "add_many", f"zadd(name, mapping) of 1,000 items each, {DUMPED}"),
        Entry(FALLBACK, "add_many", "as redset, with REDSET_NO_EXTENSIONS=1"),
        Entry(ASYNCIO, "asyncio_add_many", "as redset, awaited, by redset.asyncio.SortedSet"),
    ),
    (
        Goal("`add_many` producer CPU / redis-py", "cpu", "redset", "redis-py", most=0.30),
        Goal("raw socket wall / `add_many`", "wall", "raw socket", "redset", least=0.95),
        Goal(
            "fallback `add_many` CPU / redis-py", "cpu", "redset (fallback)", "redis-py", most=1.1
        ),
        Goal("asyncio `add_many` CPU / sync", "cpu", "redset (asyncio)", "redset", most=1.25),
        Goal("`add_many` wall / redis-py", "wall", "redset", "redis-py"),
        Goal("`add_many` wall / valkey-glide-sync", "wall", "redset", "valkey-glide-sync"),
    ),
    _bulk,
    delayed=("redset", "redis-py", "raw socket", "valkey-glide-sync"),
    parts=(
        Entry(REDSET, "part_dumps", "JSONSerializer.dumps alone", "dumps"),
        Entry(REDSET, "part_encode", "whole requests encoded, not sent", "encode"),
        Entry(SOCKET, "add_many", "requests encoded beforehand, sent (raw socket)", "send"),
    ),
)


def _loop(scale: Scale) -> Size:
    number = scale.pick(200_000, 10_000)
    return Size({"size": number}, number, f"{number:,} items", left=number)


ADD_MANY_051 = Contest(
    "add_many_051",
    "add_many against what a program on redset 0.5.1 does",
    (
        Entry(REDSET, "add_many", f"one call of {PLAIN}.add_many(items, score=scores)"),
        Entry(REDSET_051, "add_many", f"a loop of add(item, score); {DUMPED}", warm=False),
    ),
    (
        Goal("0.5.1's `add` loop wall / `add_many`", "wall", "redset 0.5.1", "redset", least=10),
        Goal("0.5.1's `add` loop CPU / `add_many`", "cpu", "redset 0.5.1", "redset", least=60),
    ),
    _loop,
)


def _single(scale: Scale, *, adding: bool) -> Size:
    calls = scale.pick(20_000, 1_000, 2_000, 200)
    stock = scale.pick(200_000, 20_000)
    return Size(
        {"size": calls, "first": stock if adding else 0},
        calls,
        f"{calls:,} calls on a set of {stock:,}",
        stock=stock,
        left=stock + calls if adding else stock - calls,
    )


def _single_parts(task: str) -> tuple[Entry, ...]:
    return (
        Entry(SOCKET, task, "encoded beforehand, over a raw socket", "raw"),
        Entry(
            REDSET,
            "part_held",
            "encoded beforehand, over a connection of redis-py's that is held",
            "held",
            {"variant": task},
        ),
        Entry(
            REDSET,
            "part_pooled",
            "the same, taken from redis-py's pool each time and given back",
            "pooled",
            {"variant": task},
        ),
    )


ADD = Contest(
    "add",
    "a single add",
    (
        Entry(REDSET, "add", f"{PLAIN}.add(item, score)"),
        Entry(REDIS_PY, "add", f"zadd(name, {{member: score}}), {DUMPED}, hiredis"),
        Entry(SOCKET, "add", "ZADD encoded beforehand, its answer awaited"),
        Entry(GLIDE, "add", f"zadd(name, {{member: score}}), {DUMPED}"),
    ),
    (
        Goal("`add` wall / redis-py", "wall", "redset", "redis-py", most=0.75),
        Goal("raw socket wall / redis-py: the least possible", "wall", "raw socket", "redis-py"),
    ),
    functools.partial(_single, adding=True),
    delayed=("redset", "redis-py", "raw socket"),
    parts=_single_parts("add"),
)

POP = Contest(
    "pop",
    "a single pop",
    (
        Entry(REDSET, "pop", f"{PLAIN}.pop()"),
        Entry(REDIS_PY, "pop", "orjson.loads of zpopmin(name), hiredis"),
        Entry(SOCKET, "pop", "ZPOPMIN encoded beforehand, its answer awaited, not decoded"),
        Entry(GLIDE, "pop", "orjson.loads of zpopmin(name)"),
    ),
    (
        Goal("`pop` wall / redis-py", "wall", "redset", "redis-py", most=0.75),
        Goal("raw socket wall / redis-py: the least possible", "wall", "raw socket", "redis-py"),
    ),
    functools.partial(_single, adding=False),
    delayed=("redset", "redis-py", "raw socket"),
    parts=_single_parts("pop"),
)


def _drain(scale: Scale) -> Size:
    number = scale.pick(200_000, 20_000)
    return Size({"size": number}, number, f"{number:,} items", stock=number, left=0)


TAKE = Contest(
    "take",
    "take(1000) until the set is empty",
    (
        Entry(REDSET, "take", f"{PLAIN}.take(1000)"),
        Entry(REDIS_PY, "take", "zpopmin(name, 1000), orjson.loads of each, hiredis"),
        Entry(SOCKET, "take", "MULTI, ZRANGE, ZREMRANGEBYRANK, EXEC; answers not decoded"),
        Entry(GLIDE, "take", "zpopmin(name, 1000), orjson.loads of each"),
    ),
    (
        Goal("`take(1000)` CPU / redis-py", "cpu", "redset", "redis-py", most=0.6),
        Goal("`take(1000)` wall / redis-py", "wall", "redset", "redis-py", most=0.65),
        Goal("raw socket wall / `take(1000)`", "wall", "raw socket", "redset"),
    ),
    _drain,
    delayed=("redset", "redis-py", "raw socket", "valkey-glide-sync"),
    parts=(
        Entry(REDSET, "part_loads", "JSONSerializer.loads alone", "loads"),
        Entry(REDSET, "part_decode", "members decoded, none received", "decode"),
        Entry(SOCKET, "take", "received and not decoded (raw socket)", "receive"),
    ),
)


# --- a few items a call


def _few(number: int) -> Contest:
    def size(scale: Scale) -> Size:
        calls = scale.pick(5_000, 500, 500, 100)
        items = calls * number
        text = f"{calls:,} calls with {number} items each"
        return Size({"size": items, "chunk": number}, items, text, left=items)

    some = "1 item" if number == 1 else f"{number} items"
    return Contest(
        "add_few",
        f"add_many of {some} a call",
        (
            Entry(REDSET, "add_few", f"{PLAIN}.add_many(items, score=scores)"),
            Entry(REDIS_PY, "add_few", f"zadd(name, mapping), {DUMPED}, hiredis"),
        ),
        (
            Goal(f"`add_many` of {some} CPU / redis-py", "cpu", "redset", "redis-py", most=0.75),
            Goal(f"`add_many` of {some} wall / redis-py", "wall", "redset", "redis-py", most=0.75),
            Goal(f"`add_many` of {some} server CPU / redis-py", "server", "redset", "redis-py"),
        ),
        size,
    )


def _half_known(scale: Scale) -> Size:
    page = 20
    number = scale.pick(20_000, 2_000, 2_000, 500)
    job = {"size": number, "chunk": page, "variant": "half known"}
    text = f"{2 * number - page:,} links in pages of {page}, half of which are known"
    return Size(job, 2 * number - page, text, left=number)


_PAGES = "SADD, ZADD pipelined"
FEW_LINKS = Contest(
    "add_few",
    "pages of 20 links with key= and remember=, half of them known",
    (
        Entry(REDSET, "links", 'key="url", remember=True, scorer="depth": one add_many a page'),
        Entry(
            REDIS_PY,
            "links_pipelined",
            "SADD of the hex SHA-1 of each, ZADD where it is new: two pipelines a page, hiredis",
            _PAGES,
        ),
    ),
    (
        Goal("pages of 20 links wall / pipelined", "wall", "redset", _PAGES, most=0.7),
        Goal("pages of 20 links server CPU / pipelined", "server", "redset", _PAGES, most=1.3),
        Goal("pages of 20 links CPU / pipelined", "cpu", "redset", _PAGES),
    ),
    _half_known,
)


def few(bench: Bench) -> Iterator[Result]:
    """A few items a call cost the client most, and the server's scripts of a memory."""
    contests = (_few(1), _few(5), _few(20), FEW_LINKS)
    yield from _on_every_server(bench, "add_few", "a few items a call", lambda kind: contests)
    for contest in contests:
        yield contest.over_the_delay(bench)


# --- looking and removing


def _looking(scale: Scale) -> Size:
    size = _single(scale, adding=False)
    return dataclasses.replace(size, left=size.stock, reads=True)


PEEK = Contest(
    "peek",
    "a single peek",
    (
        Entry(REDSET, "peek", f"{PLAIN}.peek()"),
        Entry(REDIS_PY, "peek", "orjson.loads of zrange(name, 0, 0), hiredis"),
    ),
    (
        Goal("`peek` wall / redis-py", "wall", "redset", "redis-py", most=1.0),
        Goal("server CPU of `peek` / zrange", "server", "redset", "redis-py", most=1.3),
    ),
    _looking,
)

DISCARD = Contest(
    "discard",
    "a single discard",
    (
        Entry(REDSET, "discard", f"{PLAIN}.discard(item)"),
        Entry(REDIS_PY, "discard", f"zrem(name, member), {DUMPED}, hiredis"),
    ),
    (
        Goal("`discard` wall / redis-py", "wall", "redset", "redis-py", most=1.0),
        Goal("server CPU of `discard` / zrem", "server", "redset", "redis-py", most=1.3),
    ),
    functools.partial(_single, adding=False),
)


def _one(
    task: str, does: str, nearest: str, size: Callable[[Scale], Size], options: str = PLAIN
) -> Contest:
    """A single call beside the nearest command of redis-py."""
    command = nearest.partition("(")[0].strip()
    return Contest(
        task,
        f"a single {does}",
        (
            Entry(REDSET, task, f"{options}: {does}"),
            Entry(REDIS_PY, task, f"{nearest}, {DUMPED}, hiredis"),
        ),
        (
            Goal(f"`{does}` wall / {command}", "wall", "redset", "redis-py", most=1.0),
            Goal(f"server CPU of `{does}` / {command}", "server", "redset", "redis-py", most=1.3),
        ),
        size,
    )


def _adding(scale: Scale) -> Size:
    return dataclasses.replace(_single(scale, adding=True), stock=0, left=scale.pick(20_000, 1_000))


ADD_ABSENT = _one(
    "add_absent", "add(item, score, nx=True)", "zadd(name, {member: score}, nx=True)", _adding
)
ADD_KEYED = _one(
    "add_keyed",
    "add(item, score) with key= and remember=",
    "sadd, zadd (of the hex SHA-1; where it is new)",
    _adding,
    'SortedSet(client, name, key="url", remember=True)',
)
SCORE = _one("score", "score(item)", "zscore(name, member)", _looking)
CONTAINS = _one("contains", "item in jobs", "zscore(name, member)", _looking)


def _short_lived(scale: Scale) -> Size:
    number = scale.pick(20_000, 1_000)
    return Size(
        {"size": number}, number, f"{number:,} objects for one set, an add by each", 0, number
    )


SHORT_LIVED = Contest(
    "short_lived",
    "a set that is constructed for one add",
    (
        Entry(REDSET, "short_lived", f"{PLAIN}.add(item, score) of each"),
        Entry(REDIS_PY, "add", f"zadd(name, {{member: score}}), {DUMPED}, hiredis"),
    ),
    (Goal("construct and `add`, CPU / zadd", "cpu", "redset", "redis-py", most=1.2),),
    _short_lived,
)


def _many(scale: Scale, *, reads: bool) -> Size:
    number = scale.pick(50_000, 5_000)
    left = number if reads else 0
    job = {"size": number, "chunk": 5_000}
    return Size(
        job, number, f"{number:,} items in calls with 5,000 each", number, left, reads=reads
    )


DISCARD_MANY = Contest(
    "discard_many",
    "discard_many of 5,000 items a call",
    (
        Entry(REDSET, "discard_many", f"{PLAIN}.discard_many(items)"),
        Entry(REDIS_PY, "discard_many", f"zrem(name, *members), {DUMPED}, hiredis"),
    ),
    (Goal("server CPU of `discard_many` / zrem", "server", "redset", "redis-py", most=1.3),),
    functools.partial(_many, reads=False),
)

SCORES = Contest(
    "scores",
    "scores of 5,000 items a call",
    (
        Entry(REDSET, "scores", f"{PLAIN}.scores(items)"),
        Entry(REDIS_PY, "scores", f"zmscore(name, members), {DUMPED}, hiredis"),
    ),
    (
        Goal("`scores` CPU / zmscore", "cpu", "redset", "redis-py", most=1.0),
        Goal("server CPU of `scores` / zmscore", "server", "redset", "redis-py"),
    ),
    functools.partial(_many, reads=True),
)


def _pages(scale: Scale) -> Size:
    number = scale.pick(200_000, 20_000)
    text = f"{number:,} items"
    return Size({"size": number}, number, text, stock=number, left=number, reads=True)


ITERATE = Contest(
    "iterate",
    "iteration over a set",
    (
        Entry(REDSET, "iterate", f"a loop over {PLAIN}"),
        Entry(REDIS_PY, "iterate", "orjson.loads of zrange by rank, 1,000 a page, hiredis"),
    ),
    (
        Goal("iteration CPU / redis-py", "cpu", "redset", "redis-py", most=1.2),
        Goal("server CPU of iteration / zrange pages", "server", "redset", "redis-py", most=3.0),
    ),
    _pages,
)


# --- algebra


def _joined(scale: Scale) -> Size:
    number = scale.pick(100_000, 10_000)
    text = f"{number:,} items joined to {number:,}, half of which are the same"
    return Size({"size": number}, number, text, stock=number, left=number + number // 2)


UNION = Contest(
    "union",
    "the union of two sets of a server",
    (
        Entry(REDSET, "union", f"{PLAIN}.update(others)"),
        Entry(
            REDIS_PY,
            "union",
            "zrange by 1,000, zadd(name, {member: score}, lt=True) of each",
            "redis-py, each",
            {"chunk": 1},
        ),
        Entry(
            REDIS_PY,
            "union",
            "zrange by 1,000, zadd(name, mapping, lt=True) of each page, hiredis",
            "redis-py, by page",
        ),
    ),
    (
        Goal("`update` wall / redis-py item by item", "wall", "redis-py, each", "redset", least=10),
        Goal("`update` wall / redis-py by page", "wall", "redis-py, by page", "redset"),
        Goal("client CPU of `update` / redis-py by page", "cpu", "redis-py, by page", "redset"),
    ),
    _joined,
)


# --- the order of equals

_TIED = "redset, ties"


def _queued(times: int) -> Contest:
    def size(scale: Scale) -> Size:
        number = scale.pick(200_000 if times == 1 else 40_000, 10_000)
        each = "once" if times == 1 else f"{times} times"
        text = f"{number:,} items, all of them added {each}, at 3 scores"
        return Size({"size": number, "chunk": times}, number * times, text, left=number)

    how = "new" if times == 1 else "mostly queued already"
    return Contest(
        "ties",
        f"ties= against none: items that are {how}",
        (
            Entry(REDSET, "queued_again", f"{PLAIN}.add_many(items, score=scores)"),
            Entry(REDSET, "queued_again", 'the same with ties="fifo"', _TIED, {"variant": "fifo"}),
        ),
        (
            Goal(f"server CPU with ties / without, {how}", "server", _TIED, "redset", most=1.5),
            Goal(f"wall with ties / without, {how}", "wall", _TIED, "redset"),
        ),
        size,
    )


# --- leasing


def _leases(batch: int, most: float) -> Contest:
    def size(scale: Scale) -> Size:
        number = scale.pick(200 * batch + 10_000, 20 * batch + 500)
        text = f"{number:,} items in batches of {batch:,}"
        job = {"size": number, "chunk": batch}
        return Size(job, number, text, stock=number, left=0)

    taking = f"{PLAIN}.take({batch})"
    raw = "MULTI, ZRANGE, ZREMRANGEBYRANK, EXEC encoded beforehand, as `take` sends it"
    return Contest(
        f"lease_{batch}",
        f"lease({batch}) and the acknowledgement, until the set is empty",
        (
            Entry(REDSET, "lease", f"with {PLAIN}.lease({batch}): a loop over it", "lease, ack"),
            Entry(REDSET, "take", taking + " (of one item a ZPOPMIN)" * (batch == 1), "take"),
            Entry(SOCKET, "take", raw, "take of many"),
        ),
        (
            Goal(
                f"server CPU of `lease({batch})` and `ack` / `take({batch})`",
                "server",
                "lease, ack",
                "take",
                most=most,
            ),
            Goal(
                f"server CPU of `lease({batch})` and `ack` / raw MULTI, ZRANGE, ZREMRANGEBYRANK",
                "server",
                "lease, ack",
                "take of many",
            ),
            Goal(f"wall of `lease({batch})` and `ack` / `take`", "wall", "lease, ack", "take"),
        ),
        size,
    )


def leases(bench: Bench) -> Iterator[Result]:
    """Leases cost the server."""

    def contests(_: str) -> Iterable[Contest]:
        return (_leases(batch, most) for batch, most in ((1, 5.5), (10, 4.5), (100, 5.5)))

    return _on_every_server(bench, "lease", "lease and ack", contests)


# --- on a cluster

ONE_NODE, ON_CLUSTER, GENERIC = "plain client", "cluster client", "cluster client, generic link"


def _on_cluster(
    name: str,
    task: str,
    how: str,
    most: float,
    size: Callable[[Scale], Size],
    generic: float | None = None,
) -> Contest:
    """A plain client and a cluster client of the same node, which is a cluster of its own."""
    return Contest(
        f"cluster_{name}",
        f"{how} through a cluster client",
        (
            Entry(REDSET, task, f"redis.Redis, {how}", ONE_NODE),
            Entry(REDSET, task, f"RedisCluster, {how}", ON_CLUSTER, {"variant": "cluster"}),
            Entry(
                REDSET,
                task,
                f"a subclass of RedisCluster with a method of its own, {how}",
                GENERIC,
                {"variant": "cluster, generic"},
            ),
        ),
        (
            Goal(f"cluster client, {how} wall / plain", "wall", ON_CLUSTER, ONE_NODE, most=most),
            Goal(f"cluster client, {how} CPU / plain", "cpu", ON_CLUSTER, ONE_NODE),
            Goal(f"generic link, {how} CPU / packed", "cpu", GENERIC, ON_CLUSTER, least=generic),
        ),
        size,
        link=LOOPBACK,
    )


def _hundreds(scale: Scale) -> Size:
    number = scale.pick(30_000, 2_500)
    job = {"size": number, "chunk": 100}
    return Size(job, number, f"{number:,} items in batches of 100", stock=number, left=0)


CLUSTER = (
    _on_cluster("add_many", "add_many", "`add_many`", 1.05, _bulk, generic=2.5),
    _on_cluster("lease", "lease", "`lease(100)` and `ack`", 1.05, _hundreds),
    _on_cluster("add", "add", "`add`", 1.10, functools.partial(_single, adding=True)),
    _on_cluster("pop", "pop", "`pop`", 1.10, functools.partial(_single, adding=False)),
)


def on_cluster(bench: Bench) -> Iterator[Result]:
    """A cluster client costs no more than a plain client of the same node."""
    with bench.on_cluster(bench.server.kind):
        for contest in CLUSTER:
            yield from contest.run(bench)


def ties(bench: Bench) -> Iterator[Result]:
    """The order of equals costs the server."""
    contests = (_queued(1), _queued(20), TIED_LINKS)
    return _on_every_server(bench, "ties", "ties=", lambda kind: contests)


def _on_every_server(
    bench: Bench, name: str, title: str, contests: Callable[[str], Iterable[Contest]]
) -> Iterator[Result]:
    """On every server: the cost of scripts differs most between them."""
    for kind in servers.REAL:
        try:
            with bench.on(kind):
                for contest in contests(kind):
                    yield from contest.run(bench)
        except servers.Missing as missing:
            yield Result(name, title, UNIX, kind, 1, "", missing={kind: str(missing)})


# --- whole jobs

POPPED = "redset, popped"
_HOW = {
    "rq": ("enqueue_many, result_ttl=0; SimpleWorker(…).work(burst=True)", "enqueue; the same"),
    "SAQ": ("enqueue(ttl=-1), Worker.process(), 100 calls at once", "each call awaited"),
    "arq": (
        "enqueue_job, 100 at once; Worker(burst=True, max_jobs=100, keep_result=0), polls each ms",
        "each call awaited; max_jobs=1",
    ),
    "huey": (
        "RedisHuey(results=False): a call each, dequeue() and execute(); it acknowledges nothing",
        "the same",
    ),
    "BullMQ": (
        "addBulk, removeOnComplete; Worker.getNextJob and processJob, 100 at once",
        "add; each call awaited",
    ),
}


def _whole(batch: int, least: float, most: float | None) -> Contest:
    def size(scale: Scale) -> Size:
        number = scale.pick(2_000, 200)
        job = {"size": number, "chunk": batch}
        text = f"{number:,} jobs of 115 bytes of JSON that do nothing: all enqueued, then all done"
        return Size(job, number, text, left=0, through=True)

    ours = (
        f"add_many, lease, acknowledgement, of {batch} each"
        if batch > 1
        else "add, lease() and acknowledgement of each"
    )
    how = " one by one" if batch == 1 else f" in batches of {batch}"
    # huey can be compared with contenders that do not acknowledge either.
    popped: list[Entry] = []
    beside_huey: list[Goal] = []
    if batch == 1:
        does = f"{PLAIN}: add and pop of each: nothing is acknowledged"
        popped.append(Entry(REDSET, "popped", does, POPPED))
        beside_huey.append(Goal(f"jobs a second{how}, popped / huey", "wall", "huey", POPPED))
    return Contest(
        f"jobs_{batch}",
        f"whole jobs{how}",
        (
            Entry(REDSET, "whole", f"{PLAIN}: {ours}"),
            *popped,
            *(Entry(peer, "whole", _HOW[peer.name][batch == 1]) for peer in JOBS),
        ),
        (
            *(
                Goal(f"jobs a second{how} / {peer.name}", "wall", peer.name, "redset", least=least)
                for peer in JOBS
            ),
            *beside_huey,
            *(
                Goal(
                    f"server CPU a job{how} / {peer.name}",
                    "server",
                    "redset",
                    peer.name,
                    most=most if peer.name == "BullMQ" else None,
                )
                for peer in JOBS
            ),
        ),
        size,
    )


# --- a crawl's links


@functools.cache
def _link_numbers(pages: int | None) -> tuple[int, int]:
    """How many links the first pages have, and how many of them are distinct."""
    found = [item["url"] for page in data.pages(str(LINKS), pages) for item in page]
    return len(found), len(set(found))


def _crawl(scale: Scale) -> Size:
    # The later pages have few new links: fewer pages are a task of fewer duplicates.
    pages = scale.pick(0, 20, 0, 6) or None
    number, distinct = _link_numbers(pages)
    part = "the whole real stream" if pages is None else f"the first {pages} pages only"
    text = f"{part}: {number:,} links, {1 - distinct / number:.1%} duplicates"
    return Size({"links": str(LINKS), "pages": pages}, number, text, left=distinct)


TIED_LINKS = Contest(
    "ties",
    "ties= against none: key= and remember= on the links of a real crawl",
    (
        Entry(REDSET, "links", f"{MEMORY}.add_many(links), one call"),
        Entry(REDSET, "links_tied", 'the same with ties="fifo"', _TIED),
    ),
    (
        Goal("server CPU with ties / without, a crawl", "server", _TIED, "redset", most=1.5),
        Goal("wall with ties / without, a crawl", "wall", _TIED, "redset"),
    ),
    _crawl,
)

_BY_PAGE = {"variant": "pages"}
_EACH = "SADD of the hex SHA-1, ZADD where it is new: a call each, redis-py, hiredis, orjson"
_PIPELINED = "the same in pipelines of 500"

CRAWL = Contest(
    "links",
    "key= and remember= on the links of a real crawl",
    (
        Entry(REDSET, "links", f"{MEMORY}.add_many(links), one call", "redset, one call"),
        Entry(REDSET, "links", "one add_many a page", "redset, by page", _BY_PAGE),
        Entry(
            REDSET,
            "links_callable",
            'one call; key=lambda item: item["url"]',
            "redset, one call, callable key",
        ),
        Entry(
            REDSET,
            "links_callable",
            'one add_many a page; key=lambda item: item["url"]',
            "redset, by page, callable key",
            _BY_PAGE,
        ),
        Entry(REDIS_PY, "links_each", _EACH, "SADD, ZADD", warm=False),
        Entry(REDIS_PY, "links_pipelined", _PIPELINED, "SADD, ZADD pipelined"),
        Entry(
            REDIS_PY,
            "links_pipelined",
            f"{_PIPELINED}, none over the end of a page",
            "SADD, ZADD pipelined by page",
            _BY_PAGE,
        ),
        Entry(
            SCRAPY,
            "links_each",
            "RFPDupeFilter.request_seen, PriorityQueue.push where new; Requests made beforehand",
            warm=False,
            exact=False,
        ),
    ),
    (
        Goal("SADD, ZADD wall / one call", "wall", "SADD, ZADD", "redset, one call", least=150),
        Goal(
            "pipelined wall / one call",
            "wall",
            "SADD, ZADD pipelined",
            "redset, one call",
            least=10,
        ),
        Goal("SADD, ZADD wall / by page", "wall", "SADD, ZADD", "redset, by page", least=60),
        Goal(
            "pipelined by page wall / by page",
            "wall",
            "SADD, ZADD pipelined by page",
            "redset, by page",
            least=4,
        ),
        Goal(
            "pipelined over pages wall / by page",
            "wall",
            "SADD, ZADD pipelined",
            "redset, by page",
        ),
        Goal(
            "SADD, ZADD wall / one call, callable key",
            "wall",
            "SADD, ZADD",
            "redset, one call, callable key",
        ),
        Goal(
            "SADD, ZADD wall / by page, callable key",
            "wall",
            "SADD, ZADD",
            "redset, by page, callable key",
        ),
        Goal("scrapy-redis wall / one call", "wall", "scrapy-redis", "redset, one call"),
        Goal("scrapy-redis wall / by page", "wall", "scrapy-redis", "redset, by page"),
    ),
    _crawl,
    delayed=(
        "redset, one call",
        "redset, by page",
        "SADD, ZADD",
        "SADD, ZADD pipelined",
        "SADD, ZADD pipelined by page",
    ),
    parts=(Entry(REDSET, "part_identities", "the digests of the links' keys alone", "identities"),),
)

_WITH_TABLE = "with the process's table of known duplicates"

KNOWN = Contest(
    "known",
    f"the links of a real crawl, {_WITH_TABLE} and without",
    (
        Entry(REDSET, "links", f"{MEMORY}.add_many(links), one call", "redset, one call"),
        Entry(REDSET, "links", "one add_many a page", "redset, by page", _BY_PAGE),
        Entry(
            REDSET,
            "links_unaided",
            "one add_many a page; known_max=0",
            "redset, by page, no table",
            _BY_PAGE,
        ),
        Entry(
            REDSET,
            "links_written",
            "buffered(): one Writer.add_many a page",
            "redset, by a writer",
            _BY_PAGE,
        ),
        Entry(REDIS_PY, "links_each", _EACH, "SADD, ZADD", warm=False),
    ),
    (
        Goal(
            "SADD, ZADD wall / by a writer", "wall", "SADD, ZADD", "redset, by a writer", least=180
        ),
        Goal("SADD, ZADD wall / one call", "wall", "SADD, ZADD", "redset, one call", least=250),
        Goal("SADD, ZADD wall / by page", "wall", "SADD, ZADD", "redset, by page", least=120),
        Goal(
            "by page without the table, wall / with it",
            "wall",
            "redset, by page, no table",
            "redset, by page",
            least=1.5,
        ),
    ),
    _crawl,
)


def known(bench: Bench) -> Iterator[Result]:
    """A crawl's links, and a stream in which all is known."""
    yield from KNOWN.run(bench)
    number = Scale(bench.quick).pick(100_000, 20_000)
    yield from Contest(
        "known_stream",
        f"a stream of known URLs alone, {_WITH_TABLE}",
        (Entry(REDSET, "known_stream", "add_many(urls), again and again; remember=True"),),
        (
            Goal("known URLs a second of the producer's CPU", "rate", "redset", least=4e6),
            Goal("requests a second meanwhile", "requests", "redset", most=2),
        ),
        lambda scale: Size({"size": number}, number, f"{number:,} URLs of 60 bytes", left=number),
    ).run(bench)


# --- items that come one by one, or a page at a time

WRITER = Contest(
    "writer",
    "115-byte JSON dicts that come one by one, written in the background",
    (
        Entry(REDSET, "written", f"{PLAIN}.buffered(): Writer.add(item, score) of each"),
        Entry(
            REDSET,
            "written_in_bulk",
            f"{PLAIN}.buffered(): Writer.add_many(items, scores) of 20 each",
            "redset, add_many of 20",
            {"chunk": 20},
        ),
        Entry(REDIS_PY, "buffered", f"a dict, written by zadd(name, dict) of 1,000 each, {DUMPED}"),
    ),
    (
        Goal("`Writer.add` CPU / a buffer of 1,000", "cpu", "redset", "redis-py", most=1.0),
        Goal(
            "`Writer.add_many` of 20, CPU / a buffer of 1,000",
            "cpu",
            "redset, add_many of 20",
            "redis-py",
        ),
    ),
    _bulk,
)


# --- the worker loop


def _consumed(scale: Scale) -> Size:
    number = scale.pick(30_000, 3_000)
    return Size({"size": number}, number, f"{number:,} items of 115 bytes", number, 0)


CONSUME = Contest(
    "consume",
    "consume with a handler that does nothing",
    (
        Entry(REDSET, "consume", f"{PLAIN}.consume(handler, until_finished=True)"),
        Entry(REDSET, "consume", "the same with batch=100", "redset, batch=100", {"chunk": 100}),
        Entry(ASYNCIO, "asyncio_consume", "a coroutine function, awaited"),
    ),
    (Goal("`consume` CPU an item", "cpu", "redset", most=8, unit=" µs", per_item=True),),
    _consumed,
)


# --- digests


def _digested(scale: Scale) -> Size:
    number = scale.pick(500_000, 50_000)
    return Size({"size": number}, number, f"{number:,} URLs of 60 bytes, as bytes")


DIGESTS = Contest(
    "digests",
    "BLAKE2b-128 of URLs",
    (
        Entry(REDSET, "digests", "the core's digests(urls)"),
        Entry(
            STANDARD,
            "hashlib_digests",
            "[hashlib.blake2b(x, digest_size=16).digest() for x in urls]",
        ),
    ),
    (Goal("digests in bulk, wall / hashlib", "wall", "redset", "hashlib", most=0.45),),
    _digested,
)


# --- several producers


def _producers(number: int) -> Contest:
    def size(scale: Scale) -> Size:
        each = scale.pick(200_000, 20_000) // number
        return Size({"size": each}, each, f"{each:,} items each", left=each * number)

    return Contest(
        f"producers_{number}",
        f"add_many by {number} producers at once, into one set",
        (
            Entry(REDSET, "add_many", f"{PLAIN}.add_many(items, score=scores) in each"),
            Entry(SOCKET, "add_many", "ZADD of 500 items each, encoded beforehand, in each"),
        ),
        (
            Goal(
                f"{number} producers: throughput / raw sockets'",
                "wall",
                "raw socket",
                "redset",
                least=0.9,
            ),
        ),
        size,
        producers=number,
    )


# --- the producer's own


def _generated(scale: Scale) -> Size:
    number = scale.pick(10_000_000, 200_000)
    return Size({"size": number}, number, f"{number:,} items from a generator", left=number)


def producer_memory(bench: Bench) -> Iterator[Result]:
    """One round: it is minutes, and a peak has no noise to take a median of."""
    size = _generated(Scale(bench.quick))
    found = Result(
        "producer_memory",
        "growth of the producer while it adds what a generator makes",
        UNIX,
        named(bench.server),
        size.items,
        size.text,
        [Goal("growth of the producer's memory", "growth", "redset", most=50, unit=" MB")],
    )
    with bench.worker(REDSET) as worker:
        address = bench.address(UNIX)
        for number in (10_000, size.items):  # the first is the base of any process
            memory.wipe(bench.server)
            worker.ask(
                "prepare",
                module=REDSET.module,
                task="generated",
                address=address,
                size=number,
            )
            answer = worker.ask("measure")
            if answer["count"] != number or bench.server.raw.zcard("bench") != number:
                raise RuntimeError(f"producer_memory: {answer['count']} of {number} were added")
    found.series["redset"] = Series(f"{PLAIN}.add_many(generator, score=generator)")
    found.series["redset"].add(answer["samples"])
    found.notes.append("One round. Peak of the resident size over the size before the call.")
    memory.wipe(bench.server)
    yield found


def import_time(bench: Bench) -> Iterator[Result]:
    """In a new interpreter each time: the time of ``import redset`` after ``import redis``.

    With its bytecode cached, as an installed package has it. PYTHONDONTWRITEBYTECODE would have it
    compiled each time.
    """
    program = (
        "import time, redis; began, used = time.perf_counter(), time.process_time(); "
        "import redset; print(time.perf_counter() - began, time.process_time() - used)"
    )
    found = Result(
        "import_time",
        "import redset, after import redis",
        "none",
        "none",
        1,
        "a new interpreter each round",
        [Goal("import time over `import redis`", "import", "redset", most=15, unit=" ms")],
    )
    found.series["redset"] = Series("import redset, where redis was imported before")
    command = [sys.executable, "-c", program]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    for number in range(2 * bench.rounds + 1):
        with machine.pinned(bench.placement.producers):
            said = subprocess.run(
                command, capture_output=True, text=True, check=True, env=env
            ).stdout.split()
        if number:  # the first one reads the files, and caches their bytecode
            wall, cpu = map(float, said)
            found.series["redset"].add({"wall": wall, "cpu": cpu, "import": wall * 1e3})
    yield found


# --- good neighbours: the event loop's, the server's


def _held(number: int, stock: int, scale: Scale) -> Size:
    return Size(
        {"size": number}, number, f"{number:,} items", stock=stock, left=0 if stock else number
    )


_NO_GC = "(Python's garbage collector is off)"


def event_loop(bench: Bench) -> Iterator[Result]:
    """The longest time for which the asyncio face lets nothing else run on its loop."""
    number = 100_000
    for task, text, stock in (
        ("asyncio_add_many", "add_many", 0),
        ("asyncio_take_all", "take", number),
    ):
        contest = Contest(
            f"event_loop_{text}",
            f"the longest hold of the event loop by {text} of {number:,} items of 115 bytes",
            (
                Entry(
                    ASYNCIO, task, f"{text}, each callback of the loop timed {_NO_GC}", "", _WATCHED
                ),
            ),
            (
                Goal(
                    f"event loop held by `{text}`",
                    "hold",
                    "redset (asyncio)",
                    most=5,
                    unit=" ms",
                ),
                Goal(
                    f"event loop held by `{text}`, CPU of it (ms)", "hold_cpu", "redset (asyncio)"
                ),
            ),
            functools.partial(_held, number, stock),
        )
        yield from contest.run(bench)


_WATCHED = {"variant": "watched"}


def neighbours(bench: Bench) -> Iterator[Result]:
    """PINGs of another client, and bytes a remembered URL, on every server there is."""
    number = 200_000 if bench.quick else 10_000_000
    queued = 200_000 if bench.quick else 1_000_000
    for kind in servers.REAL:
        found = Result(
            "neighbours",
            "another client's PING, and bytes a remembered URL",
            UNIX,
            kind,
            number,
            f"{number:,} URLs of 55 bytes; the bulk load is of {queued:,} items",
            [],
        )
        try:
            server = bench.start(kind)
        except servers.Missing as missing:
            found.missing[kind] = str(missing)
            yield found
            continue
        found.server = named(server)
        print(f"neighbours, {found.server}", file=sys.stderr)
        life = memory.life(server, number, queued, bench.placement.producers)
        ours = found.series["redset"] = Series("bulk load: add_many; the others: remember=True")
        ours.add({"bytes": life.bytes_each})
        for phase, seen in life.phases.items():
            ours.add({f"{phase}, p99": seen.p99, f"{phase}, worst": seen.worst})
            ours.add({f"{phase}, step": seen.step})
            for what, most in (("p99", 5.0), ("worst", 10.0)):
                text, limit = f"{phase}, {what}", None if phase == "idle" else most
                found.goals.append(Goal(f"PING, {text}", text, "redset", most=limit, unit=" ms"))
            if phase != "idle":
                text, about = f"{phase}, step", f"server CPU a step, {phase}"
                found.goals.append(Goal(about, text, "redset", most=5.0, unit=" ms"))
            slow = f"{len(seen.slow)} calls over 5 ms by the server's own clock"
            if seen.slow:
                slow += f", the worst {max(seen.slow):.1f} ms"
            found.notes.append(f"{phase}: {seen.seconds:.1f} s, {seen.pings} PINGs, {slow}")
        if not all(seen.urgent for seen in life.phases.values()):
            found.notes.append("PINGs waited for a core as well: they could be given no priority")
        found.notes.append(
            f"{life.compact:.1%} of {life.buckets:,} buckets sampled are in compact encoding"
        )
        theirs = found.series["scrapy-redis's set"] = Series("a set of hex SHA-1")
        theirs.add({"bytes": memory.bytes_of_fingerprints(server, number)})
        found.goals.append(
            Goal(
                "server bytes a remembered URL / scrapy-redis's set",
                "bytes",
                "redset",
                "scrapy-redis's set",
                most=0.15,
            )
        )
        server.stop()
        yield found


def entry_memory(bench: Bench) -> Iterator[Result]:
    """One round: the server counts its own bytes, and they are the same each time."""
    number = 20_000 if bench.quick else 100_000
    found = Result(
        "entry_memory",
        "server memory an entry, for each option",
        UNIX,
        named(bench.server),
        number,
        f"{number:,} links as JSON or as Requests. Each has a URL of 60 bytes, the page that names "
        "it, and its depth",
    )
    items = [item for page in data.links(number, 0.0) for item in page]
    for options in memory.OPTIONS:
        text = memory.described(options)
        found.series[text] = Series("SortedSet(client, name, serializer=JSONSerializer(), …)")
        each = memory.bytes_each(
            bench.server, items, scorer="depth", serializer=JSONSerializer(), **options
        )
        found.series[text].add(each._asdict())
        for metric in ("queued", "left") if "remember" in options else ("queued",):
            found.goals.append(
                Goal(f"server bytes {metric}, {text} / scrapy-redis", metric, text, SCRAPY.name)
            )
    try:
        with bench.worker(SCRAPY) as worker:
            task = {"module": SCRAPY.module, "task": "links_each", "name": memory.NAME}
            address = bench.address(UNIX)
            worker.ask("prepare", **task, address=address, size=number, duplicates=0.0)
            memory.wipe(bench.server)
            empty = memory.used(bench.server)
            if worker.ask("measure")["count"] != number:
                raise RuntimeError("entry_memory: scrapy-redis did not take every link")
            queued = memory.used(bench.server) - empty
            bench.server.raw.delete(memory.NAME)
            left = memory.used(bench.server) - empty
    except Missing as missing:
        found.missing[SCRAPY.name] = str(missing)
    else:
        theirs = "RFPDupeFilter and PriorityQueue; it leases nothing"
        found.series[SCRAPY.name] = Series(theirs)
        found.series[SCRAPY.name].add({"queued": queued / number, "left": left / number})
    memory.wipe(bench.server)
    yield found


# --- sweeps, for the plots


def _sweep(name: str, contests: list[Contest], bench: Bench) -> Iterator[Result]:
    for contest in contests:
        print(f"{name} at {contest.at:g}", file=sys.stderr)
        yield from contest.run(bench)


def _sweep_size(number: int, **job: int) -> Callable[[Scale], Size]:
    def size(scale: Scale) -> Size:
        some = number // 5 if scale.quick else number
        return Size({"size": some, **job}, some, f"{some:,} items", left=some)

    return size


def chunk_sizes(bench: Bench) -> Iterator[Result]:
    contests = [
        Contest(
            "chunk_size",
            f"add_many in chunks of {chunk:,}",
            (
                Entry(REDSET, "add_many", "add_many; chunks of 500 are what it is made for"),
                Entry(REDIS_PY, "add_many", f"zadd(name, mapping), {DUMPED}, hiredis"),
                Entry(SOCKET, "add_many", "ZADD encoded beforehand"),
            ),
            (),
            _sweep_size(100_000, chunk=chunk),
            at=chunk,
        )
        for chunk in (10, 50, 200, 500, 1000, 5000)
    ]
    yield from _sweep("chunk size", contests, bench)


def item_sizes(bench: Bench) -> Iterator[Result]:
    contests = [
        Contest(
            "item_size",
            f"add_many of items of {size:,} bytes",
            (
                Entry(REDSET, "add_many", f"{PLAIN}.add_many(items, score=scores)"),
                Entry(REDIS_PY, "add_many", f"zadd(name, mapping of 1,000), {DUMPED}, hiredis"),
                Entry(SOCKET, "add_many", "ZADD of 500 items each, encoded beforehand"),
            ),
            (),
            _sweep_size(min(100_000, 200_000_000 // size), item_size=size),
            at=size,
        )
        for size in (85, 115, 250, 1000, 4000, 16000)
    ]
    yield from _sweep("item size", contests, bench)


def duplicates(bench: Bench) -> Iterator[Result]:
    contests = []
    for share in (0.0, 0.5, 0.9, 0.976, 0.99):

        def size(scale: Scale, share: float = share) -> Size:
            number = 1_000 if scale.quick else 40_000
            left = round(number * (1 - share))
            job = {"size": number, "duplicates": share}
            return Size(job, number, f"{number:,} links", left=left)

        contests.append(
            Contest(
                "duplicates",
                f"links of which {share:.1%} are duplicates",
                (
                    Entry(REDSET, "links", f"{MEMORY}.add_many(links), one call"),
                    Entry(REDIS_PY, "links_each", _EACH, "SADD, ZADD", warm=False),
                    Entry(REDIS_PY, "links_pipelined", _PIPELINED, "SADD, ZADD pipelined"),
                ),
                (),
                size,
                at=share * 100,
            )
        )
    yield from _sweep("duplicates", contests, bench)


_CONTESTS = (
    ADD_MANY,
    ADD_MANY_051,
    ADD,
    POP,
    TAKE,
    PEEK,
    DISCARD,
    ADD_ABSENT,
    ADD_KEYED,
    SCORE,
    CONTAINS,
    SHORT_LIVED,
    DISCARD_MANY,
    SCORES,
    ITERATE,
    UNION,
    CRAWL,
    WRITER,
    CONSUME,
    DIGESTS,
    _producers(2),
    _producers(4),
    _whole(100, 10, 0.33),
    _whole(1, 1.5, None),
)
#: In the order in which they are run.
MEASURES: dict[str, Measure] = {
    **{contest.name: contest.run for contest in _CONTESTS},
    "add_few": few,
    "known": known,
    "lease": leases,
    "ties": ties,
    "cluster": on_cluster,
    "event_loop": event_loop,
    "import_time": import_time,
    "producer_memory": producer_memory,
    "entry_memory": entry_memory,
    "neighbours": neighbours,
    "chunk_size": chunk_sizes,
    "item_size": item_sizes,
    "duplicates": duplicates,
}


def versions() -> dict[str, dict[str, str]]:
    """The packages of each environment, as installed."""
    found = {}
    for environment in ENVIRONMENTS_USED:
        try:
            with Worker(environment.python(), ()) as worker:
                said = worker.ask("versions", packages=list(environment.packages))
        except Missing:
            continue
        found[environment.name] = {"python": said["python"], **said["packages"]}
    return found
