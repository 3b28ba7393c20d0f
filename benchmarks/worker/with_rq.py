"""rq: bulk enqueueing, and its worker that runs jobs in its own process until there are none."""

from __future__ import annotations

from typing import Any

import redis
from job import Job, Run, batches
from rq import Queue, SimpleWorker


def nothing(item: Any) -> None:
    pass


def whole(job: Job) -> Run:
    client, items = redis.Redis(**job.address), job.items()
    queue = Queue(job.name, connection=client)

    def run() -> int:
        if job.chunk == 1:
            for item in items:
                queue.enqueue(nothing, item, result_ttl=0)
        else:
            for some in batches(items, job.chunk):
                queue.enqueue_many(
                    [queue.prepare_data(nothing, (item,), result_ttl=0) for item in some]
                )
        worker = SimpleWorker([queue], connection=client)
        worker.work(burst=True, logging_level="ERROR")
        done: int = worker.successful_job_count
        return done

    return run
