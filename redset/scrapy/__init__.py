"""Scrapy on redset: any number of processes crawl one deduplicated frontier.

Two settings are enough::

    SCHEDULER = "redset.scrapy.Scheduler"
    REDSET_URL = "redis://localhost:6379"

Theory of operation. The frontier is one set per spider. The reactor's thread never waits for the
server: it appends to local queues and takes from a local buffer. One daemon thread per scheduler
does all I/O, in cycles (``coordinator.py``). It writes the requests that were found, and only then
acknowledges the requests that led to them. A process may be killed at any moment: its leases
expire, and other processes get its requests. A request is acknowledged when the engine is through
with it. Scrapy has no public signal for that; ``engine.py`` explains how it is observed.
"""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("scrapy") is None:
    raise ImportError("redset.scrapy needs Scrapy: pip install 'redset[scrapy]'")

from redset.scrapy.codec import Unfit
from redset.scrapy.frontier import Frontier
from redset.scrapy.items import ItemPipeline
from redset.scrapy.scheduler import Scheduler

__all__ = ("Frontier", "ItemPipeline", "Scheduler", "Unfit")
