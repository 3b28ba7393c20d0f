"""The thread that talks to the server, in cycles.

Theory of operation. A cycle

1. takes the pending jobs that are over, and then the pending adds. So the adds of this cycle and of
   earlier ones have all requests and items that a job led to;
2. writes the adds, in order, and reads all replies;
3. in one round trip acknowledges the jobs whose adds are written, renews, releases, and leases.

Adds are never part of an acknowledgement, as in ``ack(add=…)``. That adds nothing if its lease was
lost, and the adds of other requests would be lost with it (5 of 526 pages in a crawl of two
processes). Adds that are refused wait, and so do the jobs after them: a job notes the number of
adds before its end, and is acknowledged when these are written.

The thread is not a task of the loop: a callback that computes blocks the loop, and leases would not
be renewed (58 of 526 pages were fetched twice).
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from itertools import islice
from time import monotonic
from typing import Any, NamedTuple

from redset import SortedSet
from redset.exceptions import AddError
from redset.scrapy.codec import load_json
from redset.scrapy.entries import Bytes, Entry, open_frontier
from redset.scrapy.errors import cause_of, is_away, is_full
from redset.scrapy.exchange import (
    Exchange,
    Settlement,
    perform,
    perform_when_there_is_work,
    watch_known,
)
from redset.scrapy.groups import GroupOptions
from redset.scrapy.inbox import Inbox
from redset.scrapy.jobs import Job
from redset.scrapy.politeness import Politeness
from redset.scrapy.settings import CrawlOptions

log = logging.getLogger("redset.scrapy")

#: Pending adds are written at this age, in seconds, if others may be starving; else at LAZY.
EAGER, LAZY = 0.02, 1.0
#: So many pending adds are written at once, and at most so many in one call.
MANY, RUN = 500, 2000
#: Seconds between two looks at an empty frontier: at first, at most, and while the buffer has some.
LOOK, LONGEST_LOOK, SLOW_LOOK = 0.005, 0.05, 0.1
#: After so many seconds without anything it waits for a change on the server.
WAIT = 0.25
#: Seconds between looks into an inbox that was empty, and the longest that the thread sleeps.
PERIOD = 1.0
#: Pauses while the server is away, and for how long the end of a crawl waits for it, in seconds.
PAUSE, LONGEST_PAUSE, PARTING = 0.05, 5.0, 30.0
#: For how many seconds the beginning of a crawl waits for the server.
OPENING = 5.0
#: The longest pause before adds that a full server refused are tried again, in seconds.
LONGEST_ROOM = 1.0
#: The first of the growing pauses between leases beyond the prefetch, and how many there are.
EXTENSION, EXTENSIONS = 0.25, 5
#: Seconds without extensions after one that emptied the frontier.
NO_EXTENSION = 5.0
#: Seconds between two looks for other processes, and since the last report of one that is alive.
OTHERS, ALIVE = 5.0, 90.0
#: Adds are sent in chunks of so many: for the count of commands.
CHUNK = 250


class Port(NamedTuple):
    """Functions that the coordinator calls."""

    #: Takes jobs. Without jobs the scheduler only looks again.
    deliver: Callable[[list[Job]], None]
    #: Returns so many of the jobs that are not begun.
    shed: Callable[[int], None]
    #: Takes leases of the inbox.
    feed: Callable[[list[Any]], None]
    #: Hears that the thread has connected, or failed to.
    opened: Callable[[BaseException | None], None]
    #: Closes the spider for a reason.
    close: Callable[[str], None]
    #: Hears that the thread has ended.
    ended: Callable[[], None]
    #: Returns the number of jobs that are not begun, and of requests in memory.
    unbegun: Callable[[], int]
    in_memory: Callable[[], int]
    #: Returns the number of requests that the engine can begin now.
    free: Callable[[], int]
    #: The downloader's slots by name.
    slots: Callable[[], Any]


class _AtSuspect(NamedTuple):
    """A lease call that ended at a suspect: the number of leases then, and the time."""

    hand: int
    since: float


class Coordinator:
    """One scheduler's thread, its queues, and the jobs that it holds."""

    def __init__(
        self, options: CrawlOptions, groups: GroupOptions, connect: Callable[[], Any], port: Port
    ) -> None:
        self._options, self._connect, self._port = options, connect, port
        self._groups = groups
        #: Rests and limits for the other processes. None without groups.
        self.politeness: Politeness | None = None
        if groups.of is not None:
            self.politeness = Politeness(groups, self._wake, port.slots)
        self._ttl = max(1, round(1000 * options.ttl))
        # State of both threads.
        self._adds: deque[Any] = deque()
        self._over: deque[Job] = deque()
        self._given_back: deque[Job] = deque()
        self._changed = threading.Condition()
        self._since: float | None = None
        self._hungry = True
        self._stopping: str | None = None
        #: Number of accepted adds. If it equals `finished_at`, the frontier is finished.
        self.added = 0
        self.finished_at = -1
        #: Whether no job is handed out, since too many adds wait.
        self.backed_up = False
        #: Whether the buffer had only jobs of full slots.
        self.full_slots = False
        #: Number of requests refused without the server: by the scheduler, and by this thread.
        self._refused_here = self._refused_there = 0
        #: Counts for the stats, taken by the reactor's thread.
        self.tally: Counter[str] = Counter()
        self.frontier: SortedSet[Any] | None = None
        # State of this thread alone.
        self._writing: deque[Any] = deque()
        self._written = self._cut = 0
        self._settling: list[Job] = []
        self._hand: set[Job] = set()
        self._short = True
        self._pause = LOOK
        self._next_look = 0.0
        self._hungry_since = monotonic()
        self._renew_at = math.inf
        self._halted: _AtSuspect | None = None
        self._may_pass = True
        self._extension = 0
        self._extend_at = 0.0
        self._away_since: float | None = None
        self._retry_pause, self._resume_at = PAUSE, 0.0
        #: The time at which refused adds are tried again, and the next pause; 0: none refused.
        self._write_at = self._write_pause = 0.0
        self._idle_since: float | None = None
        self._lost_logged = -math.inf
        #: When to look whether others crawl. Their reports need some seconds.
        self._others_at = monotonic() + OTHERS if options.delayed_by else math.inf
        self._deadline = math.inf
        self._is_open = False
        self._inbox: Inbox | None = None
        self._items: SortedSet[Any] | None = None
        self._client: Any = None
        self._thread = threading.Thread(target=self._work, name="redset-scrapy", daemon=True)

    # --- the reactor's side: nothing here waits

    def start(self) -> None:
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def pending(self) -> int:
        """Return the number of adds that are not written."""
        return self.added - self._written

    def add(self, what: Any) -> int:
        """Accept an entry of the frontier, or the bytes of an item. Return the number of adds."""
        self._adds.append(what)
        self.added += 1
        if self._since is None or len(self._adds) == MANY:
            self._note()
        return self.added

    def settle(self, job: Job) -> None:
        """Accept a job that is over. Its requests and items were accepted before."""
        job.at = self.added
        self._over.append(job)
        if self._since is None:
            self._note()

    def _note(self) -> None:
        if self._since is None:
            self._since = monotonic()
        self._wake()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def want(self) -> None:
        """Hear that the buffer is at half, or that it has only jobs of full slots."""
        if not self._hungry:
            self._hungry = True
            self._wake()

    def give_back(self, job: Job) -> None:
        """Accept a job that is not begun, and release it for another process."""
        self._given_back.append(job)
        self._wake()

    def refused_here(self) -> None:
        """Hear that the known table refused a request."""
        self._refused_here += 1

    def refusals(self) -> int:
        """Return the number of requests that may have been refused without the server."""
        return self._refused_here + self._refused_there

    def settle_feed(self, lease: Any, error: str) -> None:
        """Accept a lease of the inbox whose request was made, or could not be made."""
        if self._inbox is not None:
            self._inbox.over.append((lease, error, self.added))
            self._note()

    def stop(self, reason: str, unbegun: list[Job]) -> None:
        """End: write all adds, acknowledge, and release jobs that are not begun."""
        self._given_back.extend(unbegun)
        self._stopping = reason
        self._wake()

    # --- the thread

    def _work(self) -> None:
        try:
            self._open()
            while not self._is_through():
                self._rest()
                self._cycle()
            self._part()
        except BaseException as error:
            self._fail(error)
        finally:
            try:
                if self._client is not None:
                    self._client.close()
            except Exception as error:
                log.debug("the client could not be closed: %r", error)
            self._port.ended()

    def _open(self) -> None:
        """Connect, check that the frontier has these options, and lease the first jobs."""
        options = self._options
        try:
            self._client = self._connected()
            self.frontier = open_frontier(
                self._client,
                options.name,
                order=options.order,
                remember=options.remember,
                max_attempts=options.max_attempts,
                groups=self._groups,
            )
            watch_known(self.frontier)
            if options.inbox is not None:
                self._inbox = Inbox(self._client, options.inbox, options.ttl)
            if options.items is not None:
                self._items = SortedSet(self._client, options.items, serializer=Bytes())
            self._try_frontier(self.frontier)
        except BaseException as error:
            self._port.opened(error)
            self._stopping = self._stopping or "failed"
            raise
        self._is_open = True
        self._port.opened(None)

    def _connected(self) -> Any:
        """Return the client. That of a cluster asks for the nodes when it is made."""
        until = monotonic() + OPENING
        while True:
            try:
                return self._connect()
            except Exception as error:
                if not is_away(error) or monotonic() >= until or self._stopping is not None:
                    raise
                time.sleep(OPENING / 20)

    def _try_frontier(self, frontier: SortedSet[Any]) -> None:
        """Check that the frontier has these options, and lease the first jobs."""
        until = monotonic() + OPENING
        while True:
            try:
                # It adds nothing, and raises OptionsDiffer if the set was made with other options.
                frontier.add(Entry(b"redset", b"{}", 0), xx=True)
                self._exchange(monotonic())
                return
            except Exception as error:
                if not is_away(error) or monotonic() >= until or self._stopping is not None:
                    raise
                time.sleep(OPENING / 20)

    def _is_through(self) -> bool:
        if self._stopping is None:
            return False
        rest = bool(self._adds or self._over or self._given_back or self._writing or self._settling)
        if not rest and not (self._inbox is not None and self._inbox.is_busy()):
            # Leased while the crawl was closed: only this thread can release them.
            self._given_back.extend(job for job in self._hand if job.request is None)
            return not self._given_back
        if self._stopping == "redset_unavailable" or monotonic() > self._deadline:
            self._cut_off()
            log.error(
                "%d requests for %r were not written, and %d acknowledgements: the requests that "
                "led to them are fetched again",
                len(self._writing), self._options.name, len(self._settling),
            )  # fmt: skip
            return True
        return False

    def _rest(self) -> None:
        """Sleep until a cycle is due."""
        with self._changed:
            rest = self._left(monotonic())
            if rest > 0:
                self._changed.wait(rest)

    def _left(self, now: float) -> float:
        """Return the number of seconds without work."""
        if now < self._resume_at:
            return self._resume_at - now
        if self._stopping is not None or self._given_back:
            return 0.0
        left = min(PERIOD, self._left_without_leasing(now))
        if self._wanted(now, len(self._hand)):
            left = min(left, self._next_look - now)
        return left

    def _left_without_leasing(self, now: float) -> float:
        left = self._renew_at - now
        if self.politeness is not None:
            left = min(left, self.politeness.due_in(now))
        if self._since is not None:
            # An acknowledgement frees a slot of the group, for any process.
            lazy = EAGER if self._short or self.politeness is not None else LAZY
            due = 0.0 if len(self._adds) >= MANY else self._since + lazy - now
            left = min(left, due)
        if self._writing:
            left = min(left, self._write_at - now)
        return left

    def _cycle(self) -> None:
        self._cut_off()
        if self._stopping is not None and self._deadline == math.inf:
            self._deadline = monotonic() + PARTING
        try:
            if monotonic() >= self._write_at:
                self._wait_for_room(self._write())
            self._exchange(monotonic())
            if self._inbox is not None:
                self._serve_inbox(self._inbox)
            if monotonic() >= self._others_at:
                self._warn_of_others()
        except Exception as error:
            self._wait_out(error)
        else:
            self._recovered()

    def _warn_of_others(self) -> None:
        """Warn once if other processes have leases: a delay of Scrapy counts in each alone."""
        assert self.frontier is not None
        self._others_at = monotonic() + OTHERS
        workers = self.frontier.workers()
        crawling = [each for each in workers if each.held and workers[0].seen - each.seen < ALIVE]
        if len(crawling) > 1:
            self._others_at = math.inf
            log.warning(
                "%d processes crawl %r (%s), and %s counts in each of them alone: for one "
                "process's load on a site multiply DOWNLOAD_DELAY by their number",
                len(crawling),
                self._options.name,
                ", ".join(each.label or f"{each.host} {each.pid}" for each in crawling[:10]),
                self._options.delayed_by,
            )

    def _cut_off(self) -> None:
        """Take pending jobs, then pending adds, so that these have all that the jobs led to."""
        self._since = None
        over, given_back = self._over, self._given_back
        self._settling += [over.popleft() for _ in range(len(over))]
        for _ in range(len(given_back)):
            job = given_back.popleft()
            job.error, job.at = "", 0
            job.over = False
            self._settling.append(job)
        adds = self._adds
        num = len(adds)
        self._writing.extend(adds.popleft() for _ in range(num))
        self._cut += num
        self.tally["redset/pending_max"] = max(self.tally["redset/pending_max"], len(self._writing))

    # --- writing

    def _write(self) -> Exception | None:
        """Write the adds in order. Return the error if some were refused for lack of memory."""
        writing = self._writing
        while writing:
            first = writing[0]
            run = list(islice(_run_of(writing, first), RUN))
            target = self._items if isinstance(first, bytes) else self.frontier
            assert target is not None
            options = {} if isinstance(first, bytes) or first.remember is None else {
                "remember": first.remember
            }  # fmt: skip
            self.tally["redset/commands"] += -(-len(run) // CHUNK)
            self.tally["redset/round_trips"] += -(-len(run) // CHUNK)
            try:
                result = target.add_many(run, **options)
            except AddError as error:
                self._count(error.result)
                self._forward(error.resume_at)
                if error.index is not None:
                    self._drop(error)
                elif is_full(error):
                    return error
                else:
                    raise cause_of(error) from error
            else:
                self._count(result if target is self.frontier else None)
                self._forward(len(run))
        if self.backed_up:
            self.backed_up = False
            self._port.deliver([])
        return None

    def _forward(self, num: int) -> None:
        for _ in range(num):
            self._writing.popleft()
        self._written += num

    def _count(self, result: Any) -> None:
        if result is not None and result.refused:
            self._refused_there += 1
            self.tally["dupefilter/filtered/redset"] += result.refused

    def _drop(self, error: AddError) -> None:
        """Drop an add that is too large for the server."""
        log.error("a request or an item for %r cannot be stored: %s", self._options.name, error)
        self.tally["redset/too_large"] += 1
        self._forward(1)

    # --- settling and leasing

    def _exchange(self, now: float) -> None:
        """Acknowledge jobs whose adds are written, renew, release, and lease: one round trip."""
        settled = [job for job in self._settling if job.at <= self._written]
        acks = [job for job in settled if job.is_done]
        settlements = [Settlement("bury", [job], error=job.error) for job in settled if job.error]
        back = [job for job in settled if not job.is_done and not job.error]
        if back:
            settlements.append(Settlement("release", back))
        renewed = self._renewals(now, settled)
        settlements += [Settlement("renew", [job], self._ttl) for job in renewed]
        hand = len(self._hand) - len(settled)
        num = self._wanted(now, hand)
        of_groups = self.politeness is not None and self.politeness.due_in(now) <= 0
        if not (acks or settlements or num or of_groups):
            return
        idle = num > 0 and hand <= 0 and not self._writing and not self._port.in_memory()
        passes = False
        if num and self._halted is not None:
            passes = self._may_pass and now - self._halted.since >= self._ttl / 1000
            self._may_pass = self._may_pass and not passes
            self._halted = None
        what = Exchange(
            acks, settlements, num, self._ttl, idle, max(hand, 0), passes,
            guarded=any(job.refusals != self.refusals() for job in acks),
        )  # fmt: skip
        if of_groups:
            self._perform_with_groups(what, now)
        else:
            self._perform(what, now, bool(acks or settlements))
        self.tally["redset/commands"] += what.commands
        self.tally["redset/round_trips"] += 1
        self._settle_all(what, settled, acks, renewed)
        self._take(what)
        if what.error is not None:
            raise what.error

    def _perform_with_groups(self, what: Exchange, now: float) -> None:
        """Perform an exchange that first lets hosts rest, and shares limits of groups."""
        politeness = self.politeness
        assert politeness is not None
        rests = politeness.rests()
        what.rests = [(group.encode(), math.ceil(1000 * seconds)) for group, seconds in rests]
        if politeness.due_in(now) <= 0:
            what.shared = politeness.limits(now)
        try:
            self._perform(what, now, True)
        except Exception:
            politeness.put_back(rests, what.shared is not None, now)
            raise
        error = what.groups_error
        if error is not None:
            politeness.put_back(rests, what.shared is not None, now)
            # Leasing goes on if the server is full: fetched requests make room.
            what.error = what.error or (None if is_full(error) else error)
            return
        self.tally["redset/rests"] += len(rests)
        if what.shared is not None and not what.shares and not what.shared:
            politeness.put_back([], True, now)

    def _perform(self, what: Exchange, now: float, settles: bool) -> None:
        """Perform an exchange at once, or, after some time without work, when there is work."""
        frontier = self.frontier
        assert frontier is not None
        patient = (
            not settles
            and self._is_open
            and self._inbox is None
            and self._stopping is None
            and now - self._hungry_since > WAIT
        )
        if not patient:
            perform(frontier, what)
            return
        until = now + (PERIOD if self._idle_since is not None else math.inf)

        def ended() -> bool:
            late = monotonic()
            return (
                late >= until
                or self._stopping is not None
                or bool(self._given_back)
                or self._left_without_leasing(late) <= 0
            )

        # At a finished set it would not wait.
        what.ends = what.ends and self._idle_since is None
        perform_when_there_is_work(frontier, what, ended)
        if self._idle_since is not None and not what.held and not self._hand:
            what.finished = frontier.finished()

    def _renewals(self, now: float, settled: list[Job]) -> list[Job]:
        if now < self._renew_at:
            return []
        self._renew_at = math.inf
        gone, most = set(settled), self._options.max_hold
        # A callback that hangs keeps its request for so long. Jobs not begun have no limit.
        return [
            job
            for job in self._hand
            if job not in gone and (job.request is None or now - job.began < most)
        ]

    def _settle_all(
        self, what: Exchange, settled: list[Job], acks: list[Job], renewed: list[Job]
    ) -> None:
        """Note the settled jobs."""
        left = what.unsettled
        done = {job for job in settled if (job.member, job.token) not in left}
        self._settling = [job for job in self._settling if job not in done]
        self._hand -= done
        deadline = what.at + self._options.ttl
        for settlement, num in zip(what.settlements, what.counts, strict=True):
            if settlement.how == "renew":
                (job,) = settlement.leases
                # Another process may have a lost lease, so its job is not begun.
                job.deadline = deadline if num else -math.inf
                self.tally["redset/renewed"] += num
            elif settlement.how == "bury":
                self.tally["redset/dead"] += num
        if what.forgot:
            for job in self._hand:
                # The same table may have refused the new items of these.
                job.doubtful = job.request is not None
            log.warning(
                "%r was cleared or has forgotten items: requests are released, and come "
                "again", self._options.name,
            )  # fmt: skip
        else:
            self.tally["redset/acked"] += what.acknowledged
        self._note_lost(what.lost)
        if self._hand:
            self._renew_at = min(self._renew_at, what.at + self._options.ttl / 3)

    def _note_lost(self, num: int) -> None:
        if not num:
            return
        self.tally["redset/lost"] += num
        now = monotonic()
        if now - self._lost_logged >= 60:
            self._lost_logged = now
            log.warning(
                "%d leases of %r expired before they were acknowledged: their requests are "
                "fetched again; raise REDSET_LEASE_TTL if this goes on", num, self._options.name,
            )  # fmt: skip

    def _take(self, what: Exchange) -> None:
        """Take the leased items, and the report of the end."""
        if not what.num:
            return
        now = monotonic()
        jobs = [Job.leased(held, what.at + self._options.ttl) for held in what.held]
        if what.stopped:
            self._halted = _AtSuspect(what.hand + len(jobs), now)
        elif not what.passes:
            self._may_pass = True
        self._short = len(jobs) < what.num
        if self._short:
            slow = self._port.unbegun() + len(jobs) > 0
            self._next_look = now + (max(self._pause, SLOW_LOOK) if slow else self._pause)
            self._pause = min(2 * self._pause, LONGEST_LOOK)
            self._end_extension(now, len(jobs))
        if jobs:
            self._pause, self._hungry_since = LOOK, now
            self._idle_since = None
            self.finished_at = -1
            self._hand.update(jobs)
            self._renew_at = min(self._renew_at, what.at + self._options.ttl / 3)
            if self.politeness is not None:
                self._hungry = self._short  # the engine asks again when it can begin more
            self._deliver(jobs)
            if self.politeness is None:
                self._hungry = self._port.unbegun() + len(jobs) <= self._options.prefetch // 2
        elif what.finished:
            self._end_or_idle(now)

    def _deliver(self, jobs: list[Job]) -> None:
        """Parse jobs, and hand over those that can be parsed."""
        for job in jobs:
            try:
                job.data = load_json(job.item)
                assert isinstance(job.data, dict)
            except Exception as error:
                job.data = None
                job.error = f"it cannot be decoded: {error!r}"
        self.tally["redset/returned"] += sum(job.attempts > 0 for job in jobs)
        self._port.deliver(jobs)

    def _end_or_idle(self, now: float) -> None:
        """Note that the frontier is finished: at once, or after `REDSET_MAX_IDLE`."""
        if self._inbox is not None and not self._inbox.finished():
            self._idle_since = None
            return
        if self._idle_since is None:
            self._idle_since = now
        if now - self._idle_since >= self._options.max_idle and self.finished_at != self._cut:
            self.finished_at = self._cut
            self._port.deliver([])

    # --- how many to lease

    def _startable(self) -> int:
        """Return the number of jobs that the engine can begin at once.

        Jobs of groups are not leased ahead: a lease holds a slot of its group, and its interval
        begins. Jobs that wait for slots of this process do not keep the others waiting.
        """
        unbegun, free = self._port.unbegun(), self._port.free()
        if self.full_slots:
            return min(free, self._options.prefetch_max - unbegun)
        return free - unbegun

    def _lacking(self) -> int:
        """Return the number of jobs for which the buffer has room, if it is at half."""
        if self.politeness is not None:
            return max(0, self._startable())
        unbegun, target = self._port.unbegun(), self._target()
        return target - unbegun if unbegun <= target // 2 or self.full_slots else 0

    def _target(self) -> int:
        """Return the number of jobs to lease ahead: more, in steps, while all slots are full."""
        options = self._options
        if not self.full_slots:
            self._extension = 0
            return options.prefetch
        now = monotonic()
        if self._extension < EXTENSIONS and now >= self._extend_at:
            self._extend_at = now + EXTENSION * 2**self._extension
            self._extension += 1
        return int(min(options.prefetch_max, options.prefetch * 2**self._extension))

    def _end_extension(self, now: float, num: int) -> None:
        """Keep no more than the prefetch if the frontier is empty: other processes may starve."""
        if self._extension:
            self._extension, self._extend_at = 0, now + NO_EXTENSION
            surplus = self._port.unbegun() + num - self._options.prefetch
            if surplus > 0:
                self._port.shed(surplus)

    def _wanted(self, now: float, hand: int) -> int:
        if self._stopping is not None or not self._hungry:
            return 0
        return int(max(0, min(self._lacking(), self._room(now, hand))))

    def _room(self, now: float, hand: int) -> float:
        """Return the number of further leases that it may hold.

        A suspect may only be in a small cohort (see `redset._faces.worker`). A call that ended at a
        suspect is repeated with fewer leases, or after a ttl. It then skips all suspects once.
        """
        halted = self._halted
        if halted and hand >= halted.hand > 0 and now - halted.since < self._ttl / 1000:
            return 0
        bounds = [job.bound for job in self._hand if job.bound and not job.over]
        return min(bounds) - hand if bounds else math.inf

    # --- the inbox

    def _serve_inbox(self, inbox: Inbox) -> None:
        """Settle leases whose requests are written, and take more if the frontier has too few."""
        inbox.settle(self._written)
        if self._stopping is not None:
            inbox.release()
        elif self._short and self._hungry:
            leases = inbox.take(max(1, self._lacking()))
            if leases:
                self._idle_since, self.finished_at = None, -1
                self._port.feed(leases)

    # --- when the server is away

    def _wait_out(self, error: Exception) -> None:
        """Wait before the next cycle, if the server is away for a while. Else raise the error."""
        if not is_away(error) and not is_full(error):
            raise error
        now = monotonic()
        if self._away_since is None:
            self._away_since = now
            log.warning("%r cannot be reached, trying again: %r", self._options.name, error)
        elif now - self._away_since >= self._options.max_outage and self._stopping is None:
            log.error(
                "%r could not be reached for %d s: the spider is closed; %d requests are not "
                "written", self._options.name, now - self._away_since, self.pending(),
            )  # fmt: skip
            self._port.close("redset_unavailable")
            self._away_since = now
        self._renew_at = min(self._renew_at, now)

        self._resume_at = now + self._retry_pause * random.uniform(0.5, 1.0)
        self._retry_pause = min(2 * self._retry_pause, LONGEST_PAUSE)

    def _wait_for_room(self, error: Exception | None) -> None:
        """Let refused adds wait. Leasing goes on, since fetched requests make room."""
        if error is None:
            if self._write_pause:
                log.info("there is room for requests of %r again", self._options.name)
            self._write_at = self._write_pause = 0.0
            return
        if not self._write_pause:
            log.warning("no room for requests of %r, they wait: %r", self._options.name, error)
        self._write_pause = min(2 * self._write_pause or PAUSE, LONGEST_ROOM)
        self._write_at = monotonic() + self._write_pause

    def _recovered(self) -> None:
        if self._away_since is not None:
            seconds = monotonic() - self._away_since
            self.tally["redset/outage_seconds"] += max(1, round(seconds))
            self._away_since, self._retry_pause = None, PAUSE
            log.info("%r is back after %.1f s", self._options.name, seconds)

    # --- the end

    def _part(self) -> None:
        """Read the last figures. Clear a finished frontier, if the settings ask for it."""
        frontier = self.frontier
        if frontier is None or self._stopping == "redset_unavailable":
            return
        try:
            stats = frontier.stats()
            self.tally["redset/queued"] = stats.size
            self.tally["redset/remembered"] = stats.remembered
            if self._options.clear == "finished" and self._stopping == "finished":
                frontier.clear(if_finished=True)
        except Exception as error:
            log.warning("%r could not be asked at the end: %r", self._options.name, error)

    def _fail(self, error: BaseException) -> None:
        """End the crawl: without this thread it would hang."""
        if self._stopping != "failed":
            log.error(
                "the thread that speaks to %r failed, the spider is closed", self._options.name,
                exc_info=error,
            )  # fmt: skip
            self._stopping = self._stopping or "redset_failed"
            self._port.close("redset_failed")


def _run_of(adds: deque[Any], first: Any) -> Any:
    """Yield the first adds that go into the same set in the same way."""
    for each in adds:
        if type(each) is not type(first):
            return
        if isinstance(each, Entry) and each.remember != first.remember:
            return
        yield each
