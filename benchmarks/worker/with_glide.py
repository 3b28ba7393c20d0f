"""valkey-glide-sync with orjson."""

from __future__ import annotations

from typing import Any

import orjson
from glide_sync import GlideClient, GlideClientConfiguration, NodeAddress
from job import Job, Run, batches

MAPPING = 1000
TAKE = 1000


def dumped(item: Any) -> bytes:
    return orjson.dumps(item, option=orjson.OPT_SORT_KEYS)


def _client(address: dict[str, Any]) -> GlideClient:
    # Its own time limit, 250 ms, is for a server that does nothing else.
    configuration = GlideClientConfiguration([NodeAddress(**address)], request_timeout=60_000)
    return GlideClient.create(configuration)


def add_many(job: Job) -> Run:
    client, items, scores = _client(job.address), job.items(), job.scores()

    def run() -> int:
        for some, theirs in zip(batches(items, MAPPING), batches(scores, MAPPING), strict=True):
            client.zadd(job.name, dict(zip(map(dumped, some), theirs, strict=True)))
        return len(items)

    return run


def add(job: Job) -> Run:
    client = _client(job.address)
    pairs = list(zip(job.items(), job.scores(), strict=True))

    def run() -> int:
        for item, score in pairs:
            client.zadd(job.name, {dumped(item): score})
        return len(pairs)

    return run


def pop(job: Job) -> Run:
    client = _client(job.address)

    def run() -> int:
        for _ in range(job.size):
            (item,) = client.zpopmin(job.name)
            orjson.loads(item)
        return job.size

    return run


def take(job: Job) -> Run:
    client = _client(job.address)

    def run() -> int:
        number = 0
        while some := [orjson.loads(item) for item in client.zpopmin(job.name, TAKE)]:
            number += len(some)
        return number

    return run
