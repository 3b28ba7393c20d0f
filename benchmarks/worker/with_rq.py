"""rq: bulk enqueueing, and its worker that runs jobs in its own process until there are none."""

from __future__ import annotations

from typing import Any

import redis
from job import Job, Run, batches
from rq import Queue, SimpleWorker

done = 0


def nothing(item: Any) -> None:
    global done
    done += 1


def whole(job: Job) -> Run:
    client, items = redis.Redis(**job.address), job.items()
    queue = Queue(job.name, connection=client)

    def run() -> int:
        global done
        done = 0
        if job.chunk == 1:
            for item in items:
                queue.enqueue(nothing, item, result_ttl=0)
        else:
            for some in batches(items, job.chunk):
                queue.enqueue_many(
                    [queue.prepare_data(nothing, (item,), result_ttl=0) for item in some]
                )
        # In this process: finished jobs are counted here.
        SimpleWorker([queue], connection=client).work(burst=True, logging_level="ERROR")
        return done

    return run
