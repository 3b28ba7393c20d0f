"""The scheduler: what Scrapy's engine calls, in the reactor's thread, which never waits."""

from __future__ import annotations

import logging
import traceback
from collections import Counter, deque
from time import monotonic
from typing import Any

from scrapy import signals

from redset import Key
from redset.scrapy.buffer import Buffer
from redset.scrapy.codec import RequestCodec, Unfit
from redset.scrapy.coordinator import Coordinator, Port
from redset.scrapy.engine import Engine
from redset.scrapy.entries import MOST_PRIORITY, Entry
from redset.scrapy.fingerprints import fingerprint_maker
from redset.scrapy.groups import GroupOptions, host_of
from redset.scrapy.inbox import request_of
from redset.scrapy.jobs import IN_MEMORY, Job
from redset.scrapy.politeness import PoliteSlots
from redset.scrapy.settings import SHORT_TTL, CrawlOptions, connector_of

log = logging.getLogger("redset.scrapy")

#: Characters of a traceback that a dead letter keeps.
REASON = 900
#: Settings of Scrapy's scheduler that have no effect, and the dupefilter that is its own.
_UNUSED = ("SCHEDULER_DISK_QUEUE", "SCHEDULER_MEMORY_QUEUE", "SCHEDULER_PRIORITY_QUEUE")
_OWN = "scrapy.dupefilters."
_DEQUEUED, _DEQUEUED_FROM_MEMORY = "scheduler/dequeued/redset", "scheduler/dequeued/memory"
#: Seconds between two updates of the stats.
PUBLISH = 1.0


class Scheduler:
    """Scrapy's scheduler on a redset: ``SCHEDULER = "redset.scrapy.Scheduler"``.

    Any number of processes that crawl the same spider share its frontier. A request is handed out
    again until one engine is through with it and this is acknowledged. So each is processed at
    least once; without crashes, lost leases and lost connections exactly once.

    Examples
    --------
    >>> SCHEDULER = "redset.scrapy.Scheduler"
    >>> REDSET_URL = "redis://localhost:6379"
    """

    @classmethod
    def from_crawler(cls, crawler: Any) -> Scheduler:
        """Make the scheduler of a crawl; checks all settings, and connects to nothing.

        Raises
        ------
        ValueError
            If a setting cannot be used; it names the setting.
        """
        try:
            return cls(crawler)
        except ValueError as error:
            # Scrapy 2.19 reports another error, of its own, in its place.
            log.error("the crawl cannot begin: %s", error)
            raise

    def __init__(self, crawler: Any) -> None:
        settings = crawler.settings
        spider_class = getattr(crawler, "spidercls", None)
        self._crawler, self._stats = crawler, crawler.stats
        self._options = CrawlOptions.of(settings, crawler.spider or spider_class)
        self._groups = GroupOptions.read(settings, crawler.spider or spider_class)
        if self._groups.polite:
            # No delay counts in this process alone.
            self._options = self._options._replace(delayed_by="")
        self._connect = connector_of(settings)
        _tell_unused(settings)
        if self._options.ttl < SHORT_TTL:
            log.warning(
                "REDSET_LEASE_TTL should be %d s or more, got %g: lost leases make more of them",
                SHORT_TTL,
                self._options.ttl,
            )
        self._fingerprint: Any = None
        self._codec: RequestCodec = RequestCodec(None)
        self._engine: Any = None
        self._coordinator: Coordinator | None = None
        self._buffer = Buffer(lambda: self._engine.slots())
        self._arrivals: deque[Job] = deque()
        self._held: dict[Any, Job] = {}
        #: Fingerprints of start requests in progress, and how many of each.
        self._starts: Counter[bytes] = Counter()
        #: Fingerprints that were added here and may not be in the known table yet.
        self._recent: dict[bytes, int] = {}
        #: Requests that are kept in this process, not begun or begun, and their fingerprints.
        self._in_memory: set[Job] = set()
        self._seen_in_memory: set[bytes] = set()
        #: Counts for the stats: each call of the collector costs more than a request's codec.
        self._counts: Counter[str] = Counter()
        self._publish_at = 0.0
        #: Whether a request of the inbox comes. No page leads to it again.
        self._feeding = False
        self._told: set[str] = set()
        self._opened: Any = None
        self._ended: Any = None
        self._closing = False
        #: Whether the coordinator's thread has reported its end. It may be alive a moment longer.
        self._is_over = False

    # --- what the engine calls

    def open(self, spider: Any) -> Any:
        """Begin; returns a Deferred that fires when the frontier answers.

        Raises
        ------
        RuntimeError
            If the engine is not as the tested releases of Scrapy have it.
        """
        from twisted.internet.defer import Deferred

        self._codec = RequestCodec(spider, self._options.request_classes)
        self._fingerprint = fingerprint_maker(self._crawler.request_fingerprinter)
        self._engine = Engine(self._crawler, self, self._left)
        if self._options.on_error == "dead":
            self._crawler.signals.connect(self._failed, signals.spider_error)
        call = self._engine.call
        port = Port(
            deliver=lambda jobs: self._hand_over(jobs),
            shed=lambda num: call(lambda: self._shed(num)),
            feed=lambda leases: call(lambda: self._feed(leases)),
            opened=lambda error: call(lambda: self._tell_opened(error)),
            close=lambda reason: call(lambda: self._engine.close_spider(reason)),
            ended=lambda: call(self._tell_ended),
            unbegun=lambda: self._buffer.size + len(self._arrivals),
            in_memory=lambda: len(self._in_memory),
            free=lambda: self._engine.free(self._options.prefetch),
            slots=lambda: self._engine.slots(),
        )
        self._opened = Deferred()
        self._coordinator = Coordinator(self._options, self._groups, self._connect, port)
        self._be_polite(self._coordinator)
        self._coordinator.start()
        return self._opened

    def _be_polite(self, coordinator: Coordinator) -> None:
        """Hear of hosts that ask for a rest. Delay no request that the server has delayed."""
        if coordinator.politeness is not None:
            coordinator.politeness.connect(self._crawler.signals)
        if self._groups.polite:
            self._engine.use_slots(lambda slots: PoliteSlots(slots, self._is_leased))

    def _is_leased(self, request: Any) -> bool:
        job = self._held.get(request)
        return job is not None and job.is_leased

    def close(self, reason: str) -> Any:
        """End: returns a Deferred that fires when all is written, acknowledged and given back."""
        from twisted.internet.defer import Deferred

        coordinator = self._coordinator
        if coordinator is None or self._closing:
            return None
        self._closing = True
        self._take_arrivals()
        back = [job for job in self._buffer.drain() if job.is_leased]
        # These wait for requests in memory, which are lost with this process.
        back += [job for job in self._held.values() if job.is_leased]
        for job in back:
            job.over = False
        self._tell_resumed(reason)
        if self._is_over or not coordinator.is_alive():
            self._publish()
            return None
        self._ended = Deferred()
        coordinator.stop(reason, back)
        return self._ended

    def has_pending_requests(self) -> bool:
        """Whether there may be more to do; False once the whole frontier is finished."""
        coordinator = self._coordinator
        return coordinator is None or not (
            coordinator.finished_at == coordinator.added
            and not self._in_memory
            and not self._held
            and not self._buffer.size
            and not self._arrivals
        )

    def __len__(self) -> int:
        """Return how many requests this process has leased or holds in memory, not begun."""
        return self._buffer.size + len(self._arrivals)

    def enqueue_request(self, request: Any) -> bool:
        """Accept a request; False if it is known, and known to be so here."""
        fingerprint = self._fingerprint(request)
        once = (
            request.meta.get("is_start_request")
            and self._options.start_requests == "once"
            # Else it is a retry, a redirect or a replacement of one, with the same flag.
            and fingerprint not in self._starts
        )
        unique = request.dont_filter and not once
        if not unique and self._is_known(fingerprint, once):
            self._tell_filtered(request)
            return False
        try:
            raw = self._codec.dumps(request)
        except Unfit as error:
            return self._keep(request, None if unique else fingerprint, error)
        self._check_priority(request)
        assert self._coordinator is not None
        group = None if self._groups.of is None else self._groups.of(request)
        if unique:
            self._coordinator.add(Entry.unique(fingerprint, raw, request.priority, group))
        else:
            entry = Entry(fingerprint, raw, request.priority, group=group)
            self._recent[fingerprint] = self._coordinator.add(entry)
        self._counts["scheduler/enqueued/redset"] += 1
        return True

    def next_request(self) -> Any:
        """Return the next request that this process has leased, if its slot is not full."""
        coordinator = self._coordinator
        assert coordinator is not None
        if coordinator.pending() > self._options.max_pending:
            coordinator.backed_up = True
            return None
        self._take_arrivals()
        while True:
            job = self._buffer.pop()
            if job is None:
                coordinator.full_slots = self._buffer.size > 0
                coordinator.want()
                return None
            coordinator.full_slots = False
            # With groups it leases what the engine asked for and did not get.
            if coordinator.politeness is None and self._buffer.size <= self._options.prefetch // 2:
                coordinator.want()
            now = monotonic()
            if now >= job.deadline:
                # Another process has it, or will.
                coordinator.give_back(job)
                continue
            request = job.request or self._made(job)
            if request is not None:
                return self._begin(job, request, now)

    # --- requests that come

    def _is_known(self, fingerprint: bytes, first: bool) -> bool:
        """Whether a request is known here. For the first ones only the server knows.

        Acknowledgements confirm the answers of the known table. The first requests have none.
        """
        coordinator = self._coordinator
        assert coordinator is not None
        self._drop_written()
        if fingerprint in self._recent or fingerprint in self._seen_in_memory:
            return True  # it is written before any request is acknowledged that led to it
        frontier = coordinator.frontier
        if first or self._feeding or frontier is None or not frontier.known(Key(fingerprint)):
            return False
        coordinator.refused_here()
        return True

    def _drop_written(self) -> None:
        """Keep what is not written yet: the known table has the rest, and its guards."""
        recent, coordinator = self._recent, self._coordinator
        if recent and coordinator is not None:
            written = coordinator.added - coordinator.pending()
            while recent and recent[oldest := next(iter(recent))] <= written:
                del recent[oldest]

    def _tell_filtered(self, request: Any) -> None:
        self._counts["dupefilter/filtered/memory"] += 1
        if self._options.debug_duplicates or "filtered" not in self._told:
            more = (
                ""
                if self._options.debug_duplicates
                else " (no more are shown; see DUPEFILTER_DEBUG)"
            )
            log.debug("filtered duplicate request: %s%s", request, more)
            self._told.add("filtered")

    def _check_priority(self, request: Any) -> None:
        if not -MOST_PRIORITY <= request.priority <= MOST_PRIORITY:
            self._stats.inc_value("redset/priority_clamped")
            self._warn_once(
                "priority",
                "priorities are cut off to %d, got %d: %s",
                MOST_PRIORITY,
                request.priority,
                request,
            )

    def _warn_once(self, what: str, text: str, *args: Any) -> None:
        if self._options.debug or what not in self._told:
            self._told.add(what)
            log.warning(text, *args)

    def _keep(self, request: Any, fingerprint: bytes | None, error: Unfit) -> bool:
        """Do with a request that cannot be stored what `REDSET_UNSERIALIZABLE` says."""
        how = self._options.unserializable
        self._stats.inc_value("scheduler/unserializable")
        if how == "raise":
            raise error
        done = "dropped" if how == "drop" else "kept in this process"
        self._warn_once("unfit", "%s cannot be stored and is %s: %s", request, done, error)
        if how == "drop":
            return False
        if fingerprint is not None:
            self._seen_in_memory.add(fingerprint)
        job = Job(b"", IN_MEMORY, b"", request.priority)
        job.request, job.slot = request, self._slot_name_of(request)
        # A crash must bring it again: nothing that may have led to it is acknowledged before.
        job.behind = list(self._held.values())
        for each in job.behind:
            each.waits += 1
        self._in_memory.add(job)
        self._buffer.add(job)
        self._counts["scheduler/enqueued/memory"] += 1
        return True

    # --- requests that go

    def _made(self, job: Job) -> Any:
        """Make the request of a job; None if it cannot be made, and is a dead letter."""
        try:
            assert job.data is not None
            return self._codec.build(job.data)
        except Exception as error:
            job.error = f"the request cannot be made: {error!r}"
            self._bury(job)
            return None

    def _bury(self, job: Job) -> None:
        assert self._coordinator is not None
        self._warn_once(
            "undecodable",
            "a stored request of %r is a dead letter: %s",
            self._options.name,
            job.error,
        )
        job.over = True
        self._coordinator.settle(job)

    def _begin(self, job: Job, request: Any, now: float) -> Any:
        job.request, job.data = request, None
        job.began = now
        assert self._coordinator is not None
        job.refusals = self._coordinator.refusals()
        self._held[request] = job
        # Only these pay for another fingerprint.
        if request.meta.get("is_start_request"):
            job.start = self._fingerprint(request)
            self._starts[job.start] += 1
        self._counts[_DEQUEUED if job.is_leased else _DEQUEUED_FROM_MEMORY] += 1
        return request

    def _left(self, request: Any) -> None:
        """Hear that the engine is through with a request."""
        job = self._held.get(request)
        if job is None:  # a media pipeline's, or of robots.txt
            return
        if job.start is not None:
            self._starts[job.start] -= 1
            if not self._starts[job.start]:
                del self._starts[job.start]
            job.start = None
        job.over = True
        if not job.waits:
            self._end(job)

    def _end(self, job: Job) -> None:
        """End a job, and those that waited for nothing else."""
        coordinator = self._coordinator
        assert coordinator is not None
        ending = [job]
        while ending:
            job = ending.pop()
            self._held.pop(job.request, None)
            if job.is_leased:
                coordinator.settle(job)
                continue
            self._in_memory.discard(job)
            for each in job.behind:
                each.waits -= 1
                if each.over and not each.waits:
                    ending.append(each)
            coordinator.want()

    def _failed(self, failure: Any, response: Any) -> None:
        """Hear that a callback or errback raised: its request is to be a dead letter."""
        request = getattr(response, "request", None)
        job = self._held.get(request)
        if job is not None and job.is_leased:
            lines = "".join(
                traceback.format_exception(
                    failure.type, failure.value, failure.getTracebackObject()
                )
            )
            job.error = lines[-REASON:]

    # --- what the coordinator says

    def _hand_over(self, jobs: list[Job]) -> None:
        """Take jobs; in the coordinator's thread."""
        for job in jobs:
            if job.data is not None:
                job.slot = _slot_of_data(job.data)
        self._arrivals.extend(jobs)
        self._engine.call(self._wake)

    def _wake(self) -> None:
        if monotonic() >= self._publish_at:
            self._publish()
        self._take_arrivals()
        if not self._closing:
            self._engine.wake()

    def _take_arrivals(self) -> None:
        arrivals = self._arrivals
        while arrivals:
            job = arrivals.popleft()
            if job.error:
                self._bury(job)
            else:
                job.slot = self._engine.slot_name(job.slot)
                self._buffer.add(job)

    def _shed(self, num: int) -> None:
        assert self._coordinator is not None
        for job in self._buffer.shed(num):
            if job.is_leased:
                self._coordinator.give_back(job)
            else:
                self._buffer.add(job)

    def _feed(self, leases: list[Any]) -> None:
        """Make requests of items of the inbox."""
        if self._closing:
            return
        assert self._coordinator is not None
        make = getattr(self._crawler.spider, "request_from_inbox", request_of)
        self._feeding = True
        for lease in leases:
            error = ""
            try:
                self._engine.crawl(make(lease.item))
            except Exception as problem:
                error = f"no request can be made of it: {problem!r}"
                log.warning("an item of %r is a dead letter: %s", self._options.inbox, error)
                self._stats.inc_value("redset/inbox_dead")
            self._coordinator.settle_feed(lease, error)
        self._feeding = False

    def _tell_opened(self, error: BaseException | None) -> None:
        opened, self._opened = self._opened, None
        if opened is None:
            return
        if error is None:
            opened.callback(None)
        else:
            log.error("the frontier %r cannot be opened: %r", self._options.name, error)
            opened.errback(error)

    def _tell_ended(self) -> None:
        self._publish()
        self._is_over = True
        ended, self._ended = self._ended, None
        if ended is not None:
            ended.callback(None)

    def _publish(self) -> None:
        """Let the stats have what the coordinator counted."""
        assert self._coordinator is not None
        self._publish_at = monotonic() + PUBLISH
        tally = {**self._coordinator.tally, **self._counts}
        for total in ("scheduler/enqueued", "scheduler/dequeued", "dupefilter/filtered"):
            tally[total] = sum(tally.get(f"{total}/{where}", 0) for where in ("redset", "memory"))
        for name, value in tally.items():
            if value or name in ("redset/queued", "redset/remembered"):
                self._stats.set_value(name, value)

    def _tell_resumed(self, reason: str) -> None:
        assert self._coordinator is not None
        counts, tally = self._counts, self._coordinator.tally
        filtered = counts["dupefilter/filtered/memory"] + tally["dupefilter/filtered/redset"]
        begun = counts[_DEQUEUED] + counts[_DEQUEUED_FROM_MEMORY]
        if reason == "finished" and not begun and filtered:
            log.info(
                "all requests were known and there was nothing to do: %r remembers a crawl that is "
                "finished; to crawl again give the run a name of its own (REDSET_NAME with "
                "%%(job)s), set REDSET_REMEMBER to seconds, or clear the set",
                self._options.name,
            )

    def store_item(self, data: bytes) -> None:
        """Write an item to the set of `REDSET_ITEMS`, before its request is acknowledged."""
        assert self._coordinator is not None
        self._coordinator.add(data)

    # --- slots

    def _slot_name_of(self, request: Any) -> str:
        given = request.meta.get("download_slot")
        return str(given) if given is not None else host_of(request.url)


def _slot_of_data(data: dict[str, Any]) -> str:
    """Return the downloader's slot of a parsed request: what meta says, or the host."""
    try:
        given = data.get("meta", {}).get("download_slot")
        return given if isinstance(given, str) else host_of(data["url"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return ""


def _tell_unused(settings: Any) -> None:
    """Log which settings of Scrapy's own scheduler have no effect, if the project set some."""
    unused = [name for name in _UNUSED if (settings.getpriority(name) or 0) > 0]
    given = settings.get("DUPEFILTER_CLASS")
    if not (isinstance(given, str) and given.startswith(_OWN)):
        unused.append("DUPEFILTER_CLASS")
    if unused:
        log.info("redset.scrapy.Scheduler does not use %s", ", ".join(unused))
