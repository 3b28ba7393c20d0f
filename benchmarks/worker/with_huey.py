"""huey: tasks without results, executed one after the other as its consumer's threads do."""

from __future__ import annotations

import logging
from typing import Any

import redis
from huey import RedisHuey
from job import Job, Run

logging.getLogger("huey").setLevel(logging.ERROR)


def whole(job: Job) -> Run:
    pool = redis.Redis(**job.address).connection_pool
    huey = RedisHuey(job.name, results=False, blocking=False, connection_pool=pool)

    @huey.task()
    def nothing(item: Any) -> None:
        pass

    items = job.items()

    def run() -> int:
        # It has no bulk enqueueing: `map` sends one by one, too.
        for item in items:
            nothing(item)
        number = 0
        while (task := huey.dequeue()) is not None:
            huey.execute(task)
            number += 1
        return number

    return run
