"""redis-py with hiredis and orjson, as its documentation has it."""

from __future__ import annotations

import hashlib
from typing import Any

import hiredis  # noqa: F401  (redis-py takes its parser and packer where it is installed)
import orjson
import redis
from job import Job, Run, batches

MAPPING = 1000
PIPELINE = 500
TAKE = 1000


def dumped(item: Any) -> bytes:
    return orjson.dumps(item, option=orjson.OPT_SORT_KEYS)


def add_many(job: Job) -> Run:
    client, items, scores = redis.Redis(**job.address), job.items(), job.scores()
    chunk = job.chunk or MAPPING

    def run() -> int:
        for some, theirs in zip(batches(items, chunk), batches(scores, chunk), strict=True):
            client.zadd(job.name, dict(zip(map(dumped, some), theirs, strict=True)))
        return len(items)

    return run


def buffered(job: Job) -> Run:
    """A buffer made by hand: items come one by one, and are written by 1,000."""
    client = redis.Redis(**job.address)
    pairs = list(zip(job.items(), job.scores(), strict=True))

    def run() -> int:
        buffer: dict[bytes, float] = {}
        for item, score in pairs:
            buffer[dumped(item)] = score
            if len(buffer) >= MAPPING:
                client.zadd(job.name, buffer)
                buffer = {}
        if buffer:
            client.zadd(job.name, buffer)
        return len(pairs)

    return run


def add_few(job: Job) -> Run:
    client = redis.Redis(**job.address)
    parts = list(
        zip(batches(job.items(), job.chunk), batches(job.scores(), job.chunk), strict=True)
    )

    def run() -> int:
        return sum(
            client.zadd(job.name, dict(zip(map(dumped, some), theirs, strict=True)))
            for some, theirs in parts
        )

    return run


def add(job: Job) -> Run:
    client = redis.Redis(**job.address)
    pairs = list(zip(job.items(), job.scores(), strict=True))

    def run() -> int:
        for item, score in pairs:
            client.zadd(job.name, {dumped(item): score})
        return len(pairs)

    return run


def pop(job: Job) -> Run:
    client = redis.Redis(**job.address)

    def run() -> int:
        for _ in range(job.size):
            orjson.loads(client.zpopmin(job.name)[0][0])
        return job.size

    return run


def take(job: Job) -> Run:
    client = redis.Redis(**job.address)

    def run() -> int:
        number = 0
        while some := [orjson.loads(item) for item, _ in client.zpopmin(job.name, TAKE)]:
            number += len(some)
        return number

    return run


def peek(job: Job) -> Run:
    client = redis.Redis(**job.address)

    def run() -> int:
        for _ in range(job.size):
            orjson.loads(client.zrange(job.name, 0, 0)[0])
        return job.size

    return run


def discard(job: Job) -> Run:
    client, items = redis.Redis(**job.address), job.items()

    def run() -> int:
        for item in items:
            client.zrem(job.name, dumped(item))
        return len(items)

    return run


def add_absent(job: Job) -> Run:
    client = redis.Redis(**job.address)
    pairs = list(zip(job.items(), job.scores(), strict=True))

    def run() -> int:
        for item, score in pairs:
            client.zadd(job.name, {dumped(item): score}, nx=True)
        return len(pairs)

    return run


def add_keyed(job: Job) -> Run:
    """SADD, then ZADD if the item is new."""
    client, seen = redis.Redis(**job.address), f"{job.name}:seen"
    pairs = list(zip(job.items(), job.scores(), strict=True))

    def run() -> int:
        for item, score in pairs:
            if client.sadd(seen, fingerprint(item)):
                client.zadd(job.name, {dumped(item): score})
        return len(pairs)

    return run


def score(job: Job) -> Run:
    client, items = redis.Redis(**job.address), job.items()
    return lambda: sum(client.zscore(job.name, dumped(item)) is not None for item in items)


contains = score


def discard_many(job: Job) -> Run:
    client, parts = redis.Redis(**job.address), list(batches(job.items(), job.chunk))
    return lambda: sum(client.zrem(job.name, *map(dumped, part)) for part in parts)


def scores(job: Job) -> Run:
    client, parts = redis.Redis(**job.address), list(batches(job.items(), job.chunk))
    return lambda: sum(len(client.zmscore(job.name, list(map(dumped, part)))) for part in parts)


def iterate(job: Job) -> Run:
    client = redis.Redis(**job.address)

    def run() -> int:
        number = 0
        while some := client.zrange(job.name, number, number + TAKE - 1):
            number += len([orjson.loads(item) for item in some])
        return number

    return run


def union(job: Job) -> Run:
    """A zadd of each, or of a mapping of each page."""
    client, (name, items) = redis.Redis(**job.address), job.others()
    for some, theirs in zip(batches(items, MAPPING), batches(job.scores(), MAPPING), strict=True):
        client.zadd(name, dict(zip(map(dumped, some), theirs, strict=True)))

    def run() -> int:
        new = 0
        for start in range(0, job.size, MAPPING):
            page = client.zrange(name, start, start + MAPPING - 1, withscores=True)
            if job.chunk == 1:
                for member, score in page:
                    new += client.zadd(job.name, {member: score}, lt=True)
            else:
                new += client.zadd(job.name, dict(page), lt=True)
        return new

    return run


def fingerprint(item: Any) -> str:
    return hashlib.sha1(item["url"].encode()).hexdigest()


def links_each(job: Job) -> Run:
    """SADD, then ZADD for new ones: scrapy-redis's way, without Scrapy's own cost."""
    client, pages, seen = redis.Redis(**job.address), job.linked_pages(), f"{job.name}:seen"

    def run() -> int:
        new = 0
        for page in pages:
            for item in page:
                if client.sadd(seen, fingerprint(item)):
                    client.zadd(job.name, {dumped(item): item["depth"]})
                    new += 1
        return new

    return run


def links_pipelined(job: Job) -> Run:
    """The same, 500 SADDs in one round trip, and one more for the ZADDs of those that were new."""
    client, pages, seen = redis.Redis(**job.address), job.linked_pages(), f"{job.name}:seen"

    def run() -> int:
        number = 0
        for page in pages:
            for some in batches(page, PIPELINE):
                pipeline = client.pipeline(transaction=False)
                for item in some:
                    pipeline.sadd(seen, fingerprint(item))
                answers = pipeline.execute()
                new = [item for item, answer in zip(some, answers, strict=True) if answer]
                for item in new:
                    pipeline.zadd(job.name, {dumped(item): item["depth"]})
                if new:
                    pipeline.execute()
                number += len(new)
        return number

    return run
