"""BullMQ's Python package: addBulk, and so many of its worker's steps at once."""

from __future__ import annotations

import asyncio
from typing import Any

from bullmq import Queue, Worker
from job import Job, Run, at_once, batches
from redis.asyncio import Redis

KEEP_NOTHING = {"removeOnComplete": True}


async def nothing(job: Any, token: str) -> None:
    pass


def whole(job: Job) -> Run:
    loop, items = asyncio.new_event_loop(), job.items()

    async def made() -> tuple[Queue, Worker]:
        link = {"connection": Redis(**job.address, decode_responses=True)}
        options = {**link, "autorun": False, "concurrency": job.chunk}
        return Queue(job.name, link), Worker(job.name, nothing, options)

    queue, worker = loop.run_until_complete(made())
    done = 0
    worker.on("completed", lambda *_: count())

    def count() -> None:
        nonlocal done
        done += 1

    async def work(number: int) -> None:
        token = f"{worker.id}:{number}"
        await worker.processJob(await worker.getNextJob(token), token)

    async def both() -> int:
        nonlocal done
        done = 0
        if job.chunk == 1:
            for item in items:
                await queue.add("nothing", item, KEEP_NOTHING)
        else:
            for some in batches(items, job.chunk):
                await queue.addBulk(
                    [{"name": "nothing", "data": item, "opts": KEEP_NOTHING} for item in some]
                )
        await at_once(job.chunk, work, range(len(items)))
        return done

    return lambda: loop.run_until_complete(both())
