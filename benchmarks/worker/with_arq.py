"""arq: a batch enqueued at once, and its worker in burst mode, with so many jobs at once."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from arq.connections import ArqRedis
from arq.worker import Worker
from job import Job, Run, at_once

logging.getLogger("arq").setLevel(logging.ERROR)


async def nothing(context: Any, item: Any) -> None:
    pass


def whole(job: Job) -> Run:
    loop, items = asyncio.new_event_loop(), job.items()
    asyncio.set_event_loop(loop)

    async def both() -> int:
        async def enqueue(item: Any) -> None:
            await client.enqueue_job("nothing", item)

        await at_once(job.chunk, enqueue, items)
        worker = Worker(
            [nothing],
            queue_name=job.name,
            redis_pool=client,
            burst=True,
            max_jobs=job.chunk,
            keep_result=0,
            poll_delay=0.001,
            handle_signals=False,
        )
        await worker.async_run()
        return worker.jobs_complete

    client = ArqRedis(default_queue_name=job.name, **job.address)
    return lambda: loop.run_until_complete(both())
