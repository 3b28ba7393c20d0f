"""redset 0.5.1 on redis-py 2.10, unchanged; its serializer is orjson's, to its advantage."""

from __future__ import annotations

from typing import Any

import orjson
import redis
from job import Job, Run

from redset import SortedSet


class Serializer:
    loads = staticmethod(orjson.loads)

    @staticmethod
    def dumps(item: Any) -> bytes:
        return orjson.dumps(item, option=orjson.OPT_SORT_KEYS)


def add_many(job: Job) -> Run:
    """It has single adds only."""
    jobs = SortedSet(redis.Redis(**job.address), job.name, serializer=Serializer())
    pairs = list(zip(job.items(), job.scores(), strict=True))

    def run() -> int:
        for item, score in pairs:
            jobs.add(item, score)
        return len(pairs)

    return run
