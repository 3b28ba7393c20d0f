"""scrapy-redis itself: its duplicate filter, and its priority queue for new requests."""

from __future__ import annotations

import redis
import scrapy
from job import Job, Run
from scrapy_redis.dupefilter import RFPDupeFilter
from scrapy_redis.queue import PriorityQueue


def links_each(job: Job) -> Run:
    client = redis.Redis(**job.address)
    seen = RFPDupeFilter(client, f"{job.name}:seen")
    queue = PriorityQueue(client, scrapy.Spider("bench"), job.name)
    requests = [
        scrapy.Request(item["url"], priority=-item["depth"], meta={"from": item["from"]})
        for page in job.linked_pages()
        for item in page
    ]

    def run() -> int:
        new = 0
        for request in requests:
            if not seen.request_seen(request):
                queue.push(request)
                new += 1
        return new

    return run
