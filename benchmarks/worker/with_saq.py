"""SAQ: a batch enqueued at once, and so many of its worker's steps at once."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from job import Job, Run, at_once
from redis.asyncio import Redis
from saq import Queue, Worker
from saq.queue.redis import RedisQueue

logging.getLogger("saq").setLevel(logging.ERROR)


done = 0


async def nothing(context: Any, *, item: Any) -> None:
    global done
    done += 1


def whole(job: Job) -> Run:
    loop, items = asyncio.new_event_loop(), job.items()

    async def made() -> tuple[Queue, Worker[Any]]:
        queue = RedisQueue(Redis(**job.address), job.name, max_concurrent_ops=job.chunk)
        return queue, Worker(queue, [nothing], concurrency=job.chunk, dequeue_timeout=1)

    queue, worker = loop.run_until_complete(made())

    async def enqueue(item: Any) -> None:
        # Nothing is kept of it when it is done.
        await queue.enqueue("nothing", item=item, ttl=-1)

    async def work(_: Any) -> None:
        await worker.process()

    async def both() -> int:
        global done
        done = 0
        await at_once(job.chunk, enqueue, items)
        await at_once(job.chunk, work, items)
        return done

    return lambda: loop.run_until_complete(both())
