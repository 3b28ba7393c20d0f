"""The worker loop: it leases items ahead, calls handlers, and settles with the next lease request.

Theory of operation. It is written once, with ``await``, for both faces. With a sync set nothing
suspends. One coordinator, the caller's thread or task, sends all requests. Handlers run in other
threads or tasks. Handlers and coordinator share the state below, under the runner's lock:

- `_ready`: leased items that no handler has begun. `_running`: items in handlers. `_handled`: items
  to settle.
- In each step the coordinator plans a `_Turn`: one exchange that settles finished items, releases
  and renews others, and leases new ones. If the turn fails before it changed the set, its items
  return to these lists, and a later turn takes them.
- `_Pace` decides how many items are leased ahead.
- A handler may only begin an item before its deadline, which counts from before the request. So
  the lease cannot have expired on the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import inspect
import logging
import math
import random
import reprlib
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from time import monotonic
from typing import Any, NamedTuple, Protocol

from redset._faces.arguments import event, milliseconds, must_be, number_up_to
from redset._faces.arguments import handler as handler_of
from redset._faces.failures import is_transient, others_delay, settlement_of
from redset._faces.leases import UNSETTLED
from redset._operations import exchanging, leasing, settling
from redset._operations.errors import error_text
from redset._operations.exchanging import Exchange
from redset._operations.limits import LEASE_STEP
from redset._operations.logs import one_line, warn_once
from redset._operations.operating import report
from redset._operations.reporting import BUSY
from redset._operations.settling import HeldLease, Settlement
from redset._transport.coroutines import complete
from redset._wire.values import flag
from redset.exceptions import Reject, Retry

log = logging.getLogger("redset")

#: Time after which finished items are settled, although more may finish soon, in seconds.
LINGER = 0.05
#: Time between two requests of an idle worker, and between two checks of `stop`, in seconds.
PERIOD = 0.05
#: Time after which an unbegun item is released if no handler is free, in seconds.
UNBEGUN = 1.0
#: Time between requests while the server refuses them, in seconds: the first, and the longest.
PAUSE, LONGEST_PAUSE = 0.1, 5.0
#: Seconds for which a worker retries while the server refuses. Its client may retry longer.
PATIENCE = 60.0


class Event(Protocol):
    """An event of threading, asyncio or multiprocessing that stops a worker."""

    def is_set(self) -> bool: ...


class Consumed(NamedTuple):
    """Result of a `consume` call.

    Attributes
    ----------
    done : int
        Number of items that were handled and acknowledged.
    failed : int
        Number of failed attempts: the handler raised, or its new items could not be added.
    lost : int
        Number of leases that expired before they were settled. Other workers have their items.

    Examples
    --------
    >>> Consumed(done=3, failed=1, lost=0).done
    3
    """

    done: int
    failed: int
    lost: int


class _Job:
    """A lease of this worker, and the result of its handler."""

    __slots__ = (
        "attempts", "began", "bound", "came", "cancelled", "deadline", "item", "items", "member",
        "settled", "settlement", "size", "token",
    )  # fmt: skip

    def __init__(self, held: HeldLease, deadline: float, now: float = 0.0) -> None:
        # As a tuple: a look-up of each field takes several times as long.
        self.member, self.token, self.item, _, self.attempts, _, self.bound, self.size, _ = held
        #: The time until which the lease is certainly held, by this process's clock.
        self.deadline = deadline
        self.came = self.began = now or monotonic()
        self.items: list[Any] = []
        #: Its settlement, if it is not to be acknowledged.
        self.settlement: Settlement | None = None
        self.cancelled = self.settled = False


class Threads:
    """Threads that run the handlers of a sync set's worker, and its sleep."""

    def __init__(self) -> None:
        self.lock: Any = threading.Lock()
        self._woken = threading.Event()
        self._jobs = threading.Semaphore(0)

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        run = threading.Thread(target=lambda: complete(work()), name="redset-handler", daemon=True)
        run.start()

    def wake(self) -> None:
        if not self._woken.is_set():
            self._woken.set()

    async def sleep(self, seconds: float) -> None:
        self._woken.wait(seconds)
        self._woken.clear()

    def offer(self, num: int) -> None:
        """Wake this number of waiting handlers."""
        for _ in range(num):
            self._jobs.release()

    async def wait(self) -> None:
        self._jobs.acquire()

    async def settled(self, result: Any) -> Any:
        return result

    async def call(self, handler: Callable[[Any], Any], item: Any) -> Any:
        return handler(item)

    async def listed(self, items: Any) -> list[Any]:
        return list(items)

    async def end(self) -> None:
        """Leave the handlers running: a thread cannot be ended."""


class Tasks(Threads):
    """Tasks that run the handlers of an asyncio set's worker, and its sleep."""

    def __init__(self) -> None:
        self.lock = contextlib.nullcontext()
        self._woken: Any = asyncio.Event()
        self._jobs: Any = asyncio.Semaphore(0)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._tasks.append(asyncio.create_task(work(), name="redset-handler"))

    async def sleep(self, seconds: float) -> None:
        # Not wait_for: before Python 3.12 it may swallow a cancellation.
        alarm = asyncio.get_running_loop().call_later(seconds, self._woken.set)
        try:
            await self._woken.wait()
        finally:
            alarm.cancel()
        self._woken.clear()

    async def wait(self) -> None:
        await self._jobs.acquire()

    async def settled(self, result: Any) -> Any:
        return await result

    async def call(self, handler: Callable[[Any], Any], item: Any) -> Any:
        result = handler(item)
        return (await result) if inspect.isawaitable(result) else result

    async def listed(self, items: Any) -> list[Any]:
        if hasattr(items, "__aiter__"):
            return [item async for item in items]
        return list(items)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Pace:
    """The number of items to lease ahead: 100 ms of work, from 0 to 100 items.

    Fast handlers need leased items during the next request. Items that wait for slow handlers are
    kept from idle workers. The time of an item is the mean of the last 16 times and of the ages of
    the running items. A finished item counts as one second at most. Otherwise, after an item of 10
    minutes, the next 15 would be leased one by one. A running item counts with its whole age, so no
    more items are leased while it runs.
    """

    WORK, MOST, LAST, CUT = 0.1, 100, 16, 1.0

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._last: deque[float] = deque(maxlen=self.LAST)
        self._sum = 0.0
        self._running = 0
        self._starts = 0.0
        #: Number of items that the last fetch requested beyond those that free handlers can begin.
        self.ahead = 0

    def begin(self, now: float) -> None:
        self._running += 1
        self._starts += now

    def end(self, began: float, now: float) -> None:
        self._running -= 1
        self._starts = self._starts - began if self._running else 0.0
        last, took = self._last, min(now - began, self.CUT)
        self._sum += took - (last[0] if len(last) == self.LAST else 0.0)
        last.append(took)

    def most(self) -> int:
        """Return the most items that the next fetch may ask for ahead."""
        return min(self.MOST, max(1, 2 * self.ahead))

    def next(self, now: float) -> int:
        """Return the number to lease ahead in the next fetch: at most twice that of the last."""
        if not self._last:  # unknown
            return 0
        ages = self._running * now - self._starts
        mean = (self._sum + ages) / (len(self._last) + self._running)
        return min(int(self.WORK * self._concurrency / max(mean, 1e-6)), self.most())


class _Halt(NamedTuple):
    """A lease request that ended at a suspect: the number of leases in hand, and the time."""

    hand: int
    since: float


class _Turn:
    """An exchange with the server, and its jobs."""

    __slots__ = ("back", "exchange", "handled", "refused", "renewed", "tries", "waits")

    def __init__(self, exchange: Exchange, waits: bool, **jobs: list[_Job]) -> None:
        self.exchange = exchange
        #: True if the worker has nothing else to do until it leases an item.
        self.waits = waits
        self.tries = 0
        #: Its jobs: handled, with refused new items, unbegun and to release, and to renew.
        self.handled, self.refused = jobs["handled"], jobs["refused"]
        self.back, self.renewed = jobs["back"], jobs["renewed"]


def _batch_of(batch: Any, grouped: bool) -> int | None:
    """Check the number of items in a lease call."""
    if not grouped:
        return None if batch is None else number_up_to("batch", batch, leasing.MOST)
    if batch is not None:
        hint = "a group's limit and interval count from the hand-out"
        raise must_be("batch", "None in a set with group=", batch, ValueError, hint)
    return 1


class WorkerLoop:
    """One running `consume` call."""

    def __init__(
        self,
        owner: Any,
        handler: Callable[[Any], Any],
        batch: Any,
        concurrency: Any,
        ttl: Any,
        until_finished: Any,
        stop: Any,
    ) -> None:
        runner: Threads = owner._runner_class()()
        handler = handler_of(handler, awaits=isinstance(runner, Tasks))
        self._concurrency = number_up_to("concurrency", concurrency, leasing.MOST)
        #: Number of items in a lease call, or None for that of the pace. With 1 only items that a
        #: free handler begins.
        self._batch = _batch_of(batch, owner._ctx.options.grouped)
        self._pace = _Pace(self._concurrency)
        self._ttl = milliseconds("ttl", ttl, True)
        stop = event("stop", stop)
        self._ctx = owner._ctx
        self._ctx.keys.check_prefix()
        self._owner, self._runner, self._handler = owner, runner, handler
        self._until_finished = flag("until_finished", until_finished)
        self._stop = stop
        # State of the handlers and the coordinator, under the runner's lock: unbegun, running and
        # handled jobs, and the time of the first handled one.
        self._ready: deque[_Job] = deque()
        self._running: set[_Job] = set()
        self._handled: list[_Job] = []
        self._since = 0.0
        #: Number of handlers that wait for an item and were not woken.
        self._parked = 0
        #: Whether the coordinator was woken, and has not planned since.
        self._alerted = False
        self._closed = False
        self._reason: BaseException | None = None
        self._stopping = self._finished = False
        self._done = self._failed = self._lost = 0
        # State of the coordinator alone.
        self._started = 0
        self._refused: list[_Job] = []
        self._turn: _Turn | None = None
        self._next_fetch = 0.0
        self._renew_at = math.inf
        self._halted: _Halt | None = None
        #: True if the next request may skip suspects.
        self._may_pass = True
        #: True if the worker may hold suspects.
        self._suspects = False
        #: True after unbegun items were released. More are then leased only for a free handler.
        self._crowded = False
        #: The time of the server's first refusal, the time of the next request, and the next pause.
        self._refusing: float | None = None
        self._resume_at = -math.inf
        self._pause = PAUSE
        #: The time since which no item could be decoded, for an error of the process.
        self._unable: float | None = None
        #: Milliseconds in handlers that are not counted yet.
        self._busy = 0.0

    async def run(self) -> Consumed:
        """Work until the call ends, and return its tallies."""
        try:
            while True:
                try:
                    if await self._step():
                        break
                except Exception as error:
                    self._give_up(error)
                except BaseException as error:
                    # The first interrupt stops the worker. The next one stops it at once.
                    if self._reason is not None:
                        raise
                    self._reason, self._stopping = error, True
                    self._log_interrupt(error)
        finally:
            self._closed = True
            self._runner.offer(self._started)
            await self._runner.end()
        if not isinstance(self._reason, Exception):
            with contextlib.suppress(Exception):
                await self._runner.settled(self._owner._run(report(self._ctx)))
        if self._reason is not None:
            raise self._reason
        return Consumed(self._done, self._failed, self._lost)

    def _log_interrupt(self, error: BaseException) -> None:
        running, kind = len(self._running), type(error).__name__
        if running:
            log.warning(
                "%s: consume of %r waits for %d running handlers; a second %s ends it at once",
                kind,
                self._ctx.name,
                running,
                kind,
            )

    def _give_up(self, error: Exception) -> None:
        """Stop for an error. Running handlers finish, and are settled if possible."""
        if self._reason is None:
            self._reason = error
        else:
            text = one_line(error_text(error))
            log.error(UNSETTLED, self._ctx.name, text)
        self._stopping = True
        # The items of this turn return when their leases expire.
        self._turn = None
        self._renew_at = monotonic() + self._ttl / 2000

    # The coordinator.

    async def _step(self) -> bool:
        """Perform a turn, or sleep until one may be due. Return whether the work has ended."""
        if self._is_stopped():
            self._stopping = True
        if self._turn is None:
            now = monotonic()
            with self._runner.lock:
                self._alerted = False
                self._staff()
                pause = self._resume_at - now
                if pause <= 0:
                    self._plan(now)
                if self._turn is None:
                    busy = bool(self._ready or self._running or self._handled or self._refused)
                    if not busy and (self._stopping or self._finished):
                        return True
                    rest = min(pause, LINGER) if pause > 0 else self._rest(now, busy)
        if self._turn is None:
            await self._runner.sleep(rest)
        else:
            await self._perform(self._turn)
        return False

    def _is_stopped(self) -> bool:
        return self._stopping or (self._stop is not None and self._stop.is_set())

    def _plan(self, now: float) -> None:
        """Plan the next turn, if there is anything to settle or to lease now."""
        starving = self._free() > 0
        handled = self._handled
        settles = bool(handled) and (
            starving or self._stopping or self._fills() or now >= self._since + LINGER
        )
        back = list(self._ready) if self._stopping or self._is_crowded(now) else []
        if back and not self._stopping:
            self._crowded = True
        num = 0 if back else self._wanted(now)
        fetches = num > 0 and (now >= self._next_fetch or settles)
        settles = settles or (fetches and bool(handled))
        renewed: list[_Job] = []
        if now >= self._renew_at:
            renewed = [*self._running, *(() if back else self._ready)]
            self._renew_at = math.inf
        if not (settles or fetches or back or renewed or self._refused):
            return
        done, settlements = self._settlements(back, renewed)
        if fetches:
            self._crowded = False
            self._pace.ahead = self._pace.next(now)
        else:
            num = 0
        idle = fetches and not (self._ready or self._running)
        hand, passes = self._hand() - len(back), False
        if fetches and self._halted is not None:
            # Skip suspects once only: while free handlers are filled, a suspect never has room.
            passes = self._may_pass and now - self._halted.since >= self._ttl / 1000
            self._may_pass = self._may_pass and not passes
            self._halted = None
        exchange = Exchange(
            done,
            settlements,
            num,
            self._ttl,
            self._until_finished and idle,
            hand,
            passes,
            others_delay(),
        )
        waits = idle and not (done or settlements)
        self._turn = _Turn(
            exchange, waits, handled=handled, refused=self._refused, back=back, renewed=renewed
        )
        self._handled, self._refused = [], []
        if back:
            self._ready.clear()

    def _settlements(
        self, back: list[_Job], renewed: list[_Job]
    ) -> tuple[list[_Job], list[Settlement]]:
        """Return the jobs to acknowledge, and the settlements of the others."""
        done, settlements = [], []
        for job in self._handled:
            if job.cancelled and self._stopping:
                # All tasks were cancelled, for example at the loop's end. The item is not at fault.
                job.settlement = Settlement("release", [job])
            if job.settlement is None:
                done.append(job)
            else:
                settlements.append(job.settlement)
        if self._refused:
            settlements.append(Settlement("release", self._refused, others_delay()))
        if back:
            settlements.append(Settlement("release", back))
        # A settlement for each, so the reply has whether each lease is still held.
        settlements += [Settlement("renew", [job], self._ttl) for job in renewed]
        return done, settlements

    def _hand(self) -> int:
        """Return the number of leases that this worker holds after the next request."""
        return len(self._ready) + len(self._running)

    def _room(self, now: float) -> float:
        """Return the number of further leases that this worker may hold.

        A suspect may only be in a small cohort, and all leases of the worker count. A request that
        ended at a suspect is repeated when the worker holds fewer leases, or after a ttl. It then
        skips all suspects once, and not again before this worker leased a suspect.
        """
        halted = self._halted
        if (
            halted is not None
            and self._hand() >= halted.hand > 0
            and now - halted.since < self._ttl / 1000
        ):
            return 0
        if not self._suspects:
            return math.inf
        bounds = [job.bound for job in (*self._ready, *self._running) if job.bound]
        self._suspects = bool(bounds)
        return min(bounds) - self._hand() if bounds else math.inf

    def _free(self) -> int:
        """Return the number of handlers that are idle and have no item to begin."""
        return self._concurrency - len(self._running) - len(self._ready)

    def _fills(self) -> bool:
        """Return whether as many items are handled as a lease call has."""
        return len(self._handled) >= (self._batch or max(1, self._pace.ahead))

    def _is_crowded(self, now: float) -> bool:
        """Return whether an item has waited for a second and no handler is free."""
        ready = self._ready
        return (
            bool(ready)
            and now - ready[0].came >= UNBEGUN
            and len(self._running) >= self._concurrency
        )

    def _wanted(self, now: float) -> int:
        """Return the number of items to lease now; 0 if the worker has enough."""
        num = self._lacking(now)
        return int(max(0, min(num, self._room(now)))) if num > 0 else 0

    def _lacking(self, now: float) -> int:
        """Return the number of items that the handlers lack; 0 if they have enough."""
        free = self._free()
        if self._stopping or self._finished or (self._crowded and free <= 0):
            return 0
        if self._batch is not None and self._batch > 1:
            room = self._concurrency - len(self._running)
            return max(self._batch, room) if len(self._ready) < self._concurrency else 0
        ahead = 0 if self._batch else self._pace.next(now)
        # More are leased ahead when half of them are begun.
        num = free + ahead if free > 0 or -free <= ahead // 2 else 0
        # A step for a few items costs as much as a step of a hundred.
        return num - num % LEASE_STEP if num > LEASE_STEP else num

    def _is_low(self) -> bool:
        """Return whether more items may be wanted. It costs less than their number."""
        if self._batch is not None:
            return len(self._ready) < self._concurrency
        return -self._free() <= self._pace.most() // 2

    def _rest(self, now: float, busy: bool) -> float:
        """Return the seconds until there may be work of which no event wakes the coordinator."""
        rest = self._renew_at - now
        if busy:
            rest = min(rest, LINGER)
        if self._stop is not None:
            rest = min(rest, PERIOD)
        if self._wanted(now):
            rest = min(rest, self._next_fetch - now)
        return max(rest, 0.0)

    async def _perform(self, turn: _Turn) -> None:
        exchange = turn.exchange
        turn.tries += 1
        operation = exchanging.exchange(self._ctx, exchange)
        if turn.waits:
            operation = exchanging.await_exchange(self._ctx, exchange, self._is_stopped)
        try:
            await self._runner.settled(self._owner._run(operation))
        except Exception as error:
            # The server refused it before it changed anything.
            self._turn = None
            self._wait_out(error)
            self._plan_again(turn, None)
            return
        self._turn = None
        self._apply(turn)
        if exchange.error is not None:
            self._wait_out(exchange.error)
            self._plan_again(turn, exchange.unsettled)
        elif self._refusing is not None:
            self._refusing, self._pause = None, PAUSE
            log.info("the server accepts requests of %r again", self._ctx.name)
        self._note_unable(exchange)

    def _wait_out(self, error: Exception) -> None:
        """Wait before the next request, if the server refuses for a while; else raise the error."""
        now = monotonic()
        if not is_transient(error):
            raise error
        if self._refusing is None:
            self._refusing = now
            log.warning(
                "the server refuses requests of %r for a while; consume waits and tries again: %s",
                self._ctx.name,
                one_line(error_text(error)),
            )
        elif now - self._refusing >= max(PATIENCE, _retry_time(self._owner.redis)):
            raise error
        self._resume_at = now + self._pause * random.uniform(0.5, 1.0)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _note_unable(self, exchange: Exchange) -> None:
        """Go on without items that cannot be decoded now. Raise the error if that lasts for all."""
        error, now = exchange.unable, monotonic()
        if exchange.held:
            self._unable = None
        if error is None:
            return
        warn_once(
            self._ctx.name,
            "cannot decode items of %r, because of an error of this process; they are released for "
            "some seconds: %r",
            self._ctx.name,
            error_text(error),
        )
        if exchange.held:
            return
        if self._unable is None:
            self._unable = now
        elif now - self._unable >= PATIENCE:
            raise error

    def _plan_again(self, turn: _Turn, unsettled: set[tuple[bytes, bytes]] | None) -> None:
        """Take back the jobs that a turn did not perform: all of them, or those of these leases."""

        def left(jobs: list[_Job]) -> list[_Job]:
            if unsettled is None:
                return jobs
            return [job for job in jobs if (job.member, job.token) in unsettled]

        back = left(turn.back)
        with self._runner.lock:
            self._handled[:0] = left(turn.handled)
            self._refused += left(turn.refused)
            self._ready.extendleft(reversed(back))
            if left(turn.renewed):
                self._renew_at = -math.inf
        self._offer(len(back))

    def _offer(self, num: int) -> None:
        """Wake up to so many handlers that wait for an item."""
        with self._runner.lock:
            num = min(num, self._parked)
            self._parked -= num
        self._runner.offer(num)

    def _apply(self, turn: _Turn) -> None:
        exchange = turn.exchange
        self._finished = exchange.finished
        deadline = exchange.at + self._ttl / 1000
        now = monotonic()
        jobs = [_Job(held, deadline, now) for held in exchange.held]
        with self._runner.lock:
            self._done += exchange.acknowledged
            for settlement, num in zip(exchange.settlements, exchange.counts, strict=True):
                settling.log_deaths(self._ctx, settlement, num)
                if settlement.how in ("fail", "bury"):
                    self._failed += num
                elif settlement.how == "renew" and num:
                    settlement.leases[0].deadline = deadline
            if turn.tries == 1:
                self._lost += exchange.lost
            for job, error in exchange.unfit:
                self._log_failure(job, error, "the new items of the handler cannot be added")
                job.settlement = settlement_of(job, error, self._ctx.options.grouped)
                self._through(job, now)
            self._ready.extend(jobs)
            self._suspects = self._suspects or any(job.bound for job in jobs)
            busy = len(self._ready) + len(self._running)
        if exchange.refused:
            self._refused = exchange.refused
            warn_once(
                self._ctx.name,
                "the new items of %d jobs of %r were refused, since the set or server is full; the "
                "jobs are retried",
                len(self._refused),
                self._ctx.name,
            )
        if busy:
            self._renew_at = min(self._renew_at, exchange.at + self._ttl / 2000)
        self._offer(len(jobs))
        if exchange.stopped:
            self._halted = _Halt(exchange.hand + len(jobs), monotonic())
        elif exchange.calls and not exchange.passes:
            self._may_pass = True
        if exchange.calls:
            self._next_fetch = 0.0 if jobs else monotonic() + PERIOD

    def _staff(self) -> None:
        """Start handlers while there are more jobs than handlers."""
        busy = 0 if self._stopping else len(self._ready) + len(self._running)
        while self._started < min(busy, self._concurrency):
            self._started += 1
            self._runner.start(self._work)

    # The handlers.

    async def _work(self) -> None:
        """Handle one item after another, until the worker ends."""
        runner, job = self._runner, None
        end: BaseException | None = None
        # Without a coroutine an item of a thread takes a tenth less.
        handler = self._handler if type(runner) is Threads else None
        while True:
            with runner.lock:
                now = monotonic()
                if job is not None:
                    self._end_job(job, end, now)
                if self._closed:
                    return
                job = self._next_job(now)
                if job is None:
                    self._parked += 1
                if self._may_alert() and self._is_low() and self._wanted(now):
                    self._alert()
            if job is None:
                # Wait only without an item: waiting costs several times as much as an item.
                try:
                    await runner.wait()
                except BaseException:
                    # A program may cancel all tasks of a loop: another handler replaces this one.
                    self._started -= 1
                    runner.wake()
                    raise
                continue
            end = None
            try:
                if handler is not None:
                    found = handler(job.item)
                else:
                    found = await runner.call(self._handler, job.item)
                if found is not None:
                    end = self._refuse(job, found)
                    if end is None:
                        job.items = await runner.listed(found)
            except Exception as error:
                self._log_failure(job, error, "the handler failed")
                job.settlement = settlement_of(job, error, self._ctx.options.grouped)
            except BaseException as error:
                job.settlement = settlement_of(job, error, self._ctx.options.grouped)
                if isinstance(error, asyncio.CancelledError):
                    job.cancelled = True
                else:
                    end = error

    def _end_job(self, job: _Job, end: BaseException | None, now: float) -> None:
        """Take a job whose handler has ended, perhaps with an exception that ends the worker."""
        if end is not None:
            self._reason, self._stopping = self._reason or end, True
        self._running.discard(job)
        self._pace.end(job.began, now)
        # Whole milliseconds, of all handlers.
        self._busy += 1000 * (now - job.began)
        if self._busy >= 1:
            whole = int(self._busy)
            self._busy -= whole
            self._ctx.reporter.count(BUSY, whole)
        self._through(job, now)
        if self._may_alert() and (not self._ready or self._stopping or self._fills()):
            self._alert()

    def _may_alert(self) -> bool:
        """Whether the coordinator sleeps. During a turn, or once woken, it plans anyway."""
        return self._turn is None and not self._alerted

    def _alert(self) -> None:
        self._alerted = True
        self._runner.wake()

    def _refuse(self, job: _Job, found: Any) -> TypeError | None:
        """Return the error of a result that is not an iterable of new items. It ends the worker.

        The item is settled according to its work: a job whose work was done is not repeated.
        """
        if found is None:
            return None
        iterables = self._owner._iterables
        if (
            # This check comes first: a Future can be iterated.
            inspect.isawaitable(found)
            or hasattr(found, "add_done_callback")
            or hasattr(found, "addCallback")
            or (hasattr(found, "__aiter__") and not any(hasattr(found, each) for each in iterables))
        ):
            if inspect.iscoroutine(found):
                found.close()  # or Python warns that it was never awaited
            how = "release"
            hint = "its work is not done, and the item was released; "
            if type(self._runner) is Threads:
                hint += "use the sets of redset.asyncio for coroutines"
            else:
                hint += "await it in the handler"
        elif isinstance(found, (str, bytes, bytearray, memoryview, Mapping)):
            how = "bury"
            hint = "the item was moved to dead letters; put one new item in a list"
        elif not any(hasattr(found, method) for method in iterables):
            how, hint = "ack", "the item was acknowledged; results are not stored"
        else:
            return None
        error = TypeError(
            "handler must return None or an iterable of new items, got "
            f"{reprlib.repr(found)} ({type(found).__name__}): {hint}"
        )
        if how != "ack":
            job.settlement = Settlement(how, [job], error=error_text(error))
        return error

    def _next_job(self, now: float) -> _Job | None:
        """Begin the next job whose lease is certainly held. Return it, or None without one."""
        while self._ready and not self._stopping:  # else they are released
            job = self._ready.popleft()
            if now < job.deadline:
                job.began = now
                self._pace.begin(now)
                self._running.add(job)
                return job
            # Go on: after a stall the others may be renewed, and no handler would begin them.
            self._lost += 1
        return None

    def _through(self, job: _Job, now: float) -> None:
        if not self._handled:
            self._since = now
        self._handled.append(job)

    def _log_failure(self, job: _Job, error: Exception, event: str) -> None:
        if isinstance(error, (Reject, Retry)):
            # The handler chose this, so the log has no warning and no traceback.
            text = "the handler raised %s for an item of %r, attempt %d: %s"
            kind = type(error).__name__
            log.info(text, kind, self._ctx.name, job.attempts + 1, one_line(str(error)))
            return
        log.warning(
            "%s for an item of %r, attempt %d: %s",
            event,
            self._ctx.name,
            job.attempts + 1,
            one_line(error_text(error)),
            exc_info=error,
        )


def _retry_time(client: Any) -> float:
    """Return the time for which a client repeats a request, in seconds, or 0 if unknown."""
    pool = getattr(client, "connection_pool", None)
    retry: Any = getattr(pool, "connection_kwargs", {}).get("retry")
    try:
        num, backoff = int(retry._retries), copy.deepcopy(retry._backoff)
        if num < 0:
            return math.inf
        backoff.reset()
        # Later retries have the longest pause.
        some = [float(backoff.compute(failures)) for failures in range(1, min(num, 100) + 1)]
        return sum(some) + max(0, num - 100) * some[-1] if some else 0.0
    except Exception:  # private parts of a client, which may differ
        return 0.0
