"""BullMQ's Python package: addBulk, and so many of its worker's steps at once.

`polite` runs whole workers: the limiter is that of a queue, so each host has a queue and a worker.
"""

from __future__ import annotations

import asyncio
from typing import Any

from bullmq import Queue, Worker
from job import Job, Run, at_once, batches
from redis.asyncio import Redis
from starts import WORK, Starts

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


def polite(job: Job) -> Run:
    """Work on the jobs of hosts, with one client for all. The variant is a ``drainDelay``."""
    loop, starts, ended = asyncio.new_event_loop(), Starts(), asyncio.Event()
    left = job.hosts * job.size

    async def handle(each: Any, token: str) -> None:
        starts.note(each.data["host"])
        await asyncio.sleep(WORK)

    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            ended.set()

    async def made() -> list[Worker]:
        # A worker waits on the server for longer than the client waits for a reply by default.
        client = Redis(**job.address, decode_responses=True, socket_timeout=None)
        link: dict[str, Any] = {"connection": client}
        limiter = {"max": 1, "duration": round(job.interval * 1000)}
        options = {**link, "autorun": False, "concurrency": 1, "limiter": limiter}
        if job.variant:
            options["drainDelay"] = float(job.variant)
        workers = []
        for host in range(job.hosts):
            name = f"{job.name}-{host}"
            await Queue(name, link).addBulk(
                [
                    {"name": "visit", "data": item, "opts": KEEP_NOTHING}
                    for item in job.of_host(host)
                ]
            )
            workers.append(Worker(name, handle, options))
            workers[-1].on("completed", count)
        return workers

    workers = loop.run_until_complete(made())

    async def work() -> tuple[int, dict[str, float]]:
        runs = [asyncio.create_task(worker.run()) for worker in workers]
        # Some ten seconds a job are twice as long as the default drainDelay.
        await asyncio.wait_for(ended.wait(), 60 + 10 * job.size)
        # Idle workers wait on the server: cancelled, they end at once.
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        return starts.samples()

    return lambda: loop.run_until_complete(work())
