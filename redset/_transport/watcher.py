"""Sleeping until a set changes: one connection of a process watches for all who wait.

Looking at the set again and again (`redset._transport.polling`) is always right, and what
everything falls back to. On top of it a watcher looks at each watched set once on a tracking
connection, which arms it. When the server says that the set changed, when something is to fall due,
and once a second the watcher looks again, and wakes as many waiters as there are items. A lost hint
costs time and never an item.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator
from time import monotonic
from typing import Any

from redset._transport.effects import Send, Unexpected, Wait
from redset._transport.polling import PERIOD, AsyncSleeper, Pace, Rota, Sleeper, hint, rota_of
from redset._transport.tracking import (
    PATIENCE,
    AsyncTracking,
    Failure,
    Lost,
    Push,
    Refused,
    Tracking,
)
from redset.scripts import Script

log = logging.getLogger("redset")

#: What a watcher may spend, and in advance: more than who looks without one, and paid back. If a
#: few items come at once, who misses the first may have the next. Over five seconds that is a
#: command in each PERIOD, too.
WATCHING, CHANGES = 1.1 * PERIOD, 10 * PERIOD
#: How often a watcher looks at a set without being told, and how long what it saw holds.
REFRESH = 1.0
FRESH = REFRESH + PATIENCE / 2
#: How often a waiter looks itself, on a connection of the pool, though nothing was said to change:
#: the watcher's connection may lead to a server that is the primary no more.
DOUBT = 10.0
#: The most seconds by which a watcher that came too late lets others go first, at random: hundreds
#: hear of a change at once, for an item that one of them gets (benchmarks/waiting.py).
SPREAD = 0.04
#: How long a watcher stays when nobody waits, and is not tried again where it was refused.
LINGER = 5.0
REFUSAL = 60.0


class Waiter(Sleeper):
    """One that waits for a set that is watched; of a sync client."""

    __slots__ = ("watch", "watcher")

    def __init__(self, watcher: Watcher, watch: Watch) -> None:
        super().__init__()
        self.watcher = watcher
        self.watch = watch

    def watched(self) -> float:
        """Until when no change can go unnoticed; a time that is past if nobody watches."""
        return self.watch.seen + FRESH


class AsyncWaiter(Waiter, AsyncSleeper):
    """One that waits for a set that is watched; of an asyncio client."""

    __slots__ = ()


class Watch:
    """One set that is watched: who waits for it, and what is known of it."""

    __slots__ = (
        "asked", "changed", "due", "earliest", "keys", "look", "pace", "seen", "spread", "waiters",
    )  # fmt: skip

    def __init__(self, look: Send, keys: list[bytes]) -> None:
        self.look = look
        self.keys = frozenset(keys)
        #: In order: the next to be woken comes first.
        self.waiters: dict[Waiter, None] = {}
        self.pace = Pace(WATCHING, CHANGES)
        self.spread = 0.0
        self.forget()

    def forget(self) -> None:
        """Nothing is known of it any more."""
        self.changed = True
        #: When what changed is looked at.
        self.earliest = 0.0
        #: When it was asked what has not been answered yet; when it was answered last.
        self.asked: float | None = None
        self.seen = float("-inf")
        #: When something falls due.
        self.due = float("inf")

    def mark(self) -> None:
        """It may have changed; a look that is under way will tell."""
        if self.asked is None:
            self.changed, self.earliest = True, 0.0

    def told(self) -> None:
        """The server says that it changed, to all who watch."""
        if self.asked is None and not self.changed:
            self.changed, self.earliest = True, monotonic() + self._later()

    def answered(self, available: int, rest: float) -> None:
        """Take the result of a look: number of items, and seconds until there may be more."""
        told, self.asked, self.seen = self.earliest > 0, None, monotonic()
        self.due = self.seen + rest + self._later()
        if told and not available:
            self.spread = min(2 * self.spread or SPREAD / 16, SPREAD)
        self.earliest = 0.0
        self.hint(available)

    def _later(self) -> float:
        return random.random() * self.spread

    def succeeded(self) -> None:
        """Note that the waiter that was woken got something."""
        self.spread = 0.0
        self.pace.refill()

    def next(self) -> float:
        """When to look."""
        if self.asked is not None:
            return self.asked + PATIENCE
        at = self.earliest if self.changed else min(self.due, self.seen + REFRESH)
        return max(at, self.pace.ready())

    def hint(self, available: int) -> None:
        """Wake as many waiters as there are items."""
        hint(self.waiters, available)


class Watcher:
    """Watches the sets of one pool for the threads of this process, in a thread of its own."""

    def __init__(self, pool: Any) -> None:
        self._pool = weakref.ref(pool)
        #: Held for moments, by whoever changes what follows.
        self._lock = threading.Lock()
        self._watches: dict[bytes, Watch] = {}
        self._tracking: Tracking | None = None
        self._running = False
        self._idle_since = 0.0
        self._refused_until = 0.0
        #: Questions that were not answered yet: a set, or a script that was to be loaded.
        self._flying: deque[Watch | Script] = deque()
        self._loaded: set[bytes] = set()
        #: Scripts that the server refused to load.
        self._refused: set[bytes] = set()

    # What waiters call.

    @property
    def here(self) -> bool:
        """Whether it can watch for the caller."""
        return True

    def runs(self) -> bool:
        """Whether its connection is there, or on its way."""
        return self._running

    def refused(self) -> bool:
        """Whether the server does not tell, so that it is not asked again for some time."""
        return monotonic() < self._refused_until

    def join(self, effect: Wait, waiting: Waiting) -> None:
        """Watch for one more, who has a waiter then; none where it was refused."""
        with self._lock:
            if monotonic() < self._refused_until:
                return
            data = effect.look.data
            watch = self._watches.get(data) or Watch(effect.look, effect.keys)
            # First, so that an interrupt leaves nobody here who is gone.
            waiter = waiting.waiter = self._make_waiter(watch)
            watch.waiters[waiter] = None
            self._watches[data] = watch
            # What changed between its last attempt and now, nobody would tell it.
            watch.mark()
            if not self.runs():
                try:
                    self._start()
                except RuntimeError:  # no thread can be started, as at the interpreter's end
                    self._remove(waiter)
                    waiting.waiter = None
                    return
                self._running = True
        self._wake()

    def leave(self, waiter: Waiter, unspent: bool) -> None:
        """Watch for one less, whose hint may be another's."""
        with self._lock:
            self._remove(waiter)
            if unspent:
                waiter.watch.mark()
            idle = not self._watches
            if idle:
                self._idle_since = monotonic()
        if unspent or idle:
            self._wake()

    def _remove(self, waiter: Waiter) -> None:
        watch = waiter.watch
        watch.waiters.pop(waiter, None)
        if not watch.waiters and self._watches.get(watch.look.data) is watch:
            del self._watches[watch.look.data]

    def _make_waiter(self, watch: Watch) -> Waiter:
        return Waiter(self, watch)

    def _wake(self) -> None:
        tracking = self._tracking
        if tracking is not None:
            tracking.wake()

    # Its thread, or its task.

    def _start(self) -> None:
        thread = threading.Thread(target=self._main, name="redset-watcher", daemon=True)
        thread.start()

    def _main(self) -> None:
        with contextlib.suppress(StopIteration):
            self._run(Tracking).send(None)  # nothing suspends

    async def _run(self, make: Callable[[], Tracking]) -> None:
        tracking: Tracking | None = None
        try:
            self._tracking = tracking = make()
            await self._watch(tracking)
        except Exception:
            log.exception("waiting calls look at their sets themselves")
            self._end(monotonic() + REFUSAL)
        except BaseException:  # cancelled, with all tasks that there are
            self._end(0.0)
            raise
        finally:
            if tracking is not None:
                await tracking.close()

    async def _watch(self, tracking: Tracking) -> None:
        """Watch for as long as anybody waits, and some time longer."""
        failures = 0
        while (rest := self._rest()) is not None:
            try:
                if not tracking.is_open:
                    pool = self._pool()
                    if pool is None:
                        raise Refused("the pool is gone")
                    asked = cancellations() if type(tracking) is AsyncTracking else 0
                    await heard(tracking.open(pool))
                    pool = None
                    if type(tracking) is AsyncTracking and cancellations() > asked:
                        raise asyncio.CancelledError
                    self._forget()
                    self._loaded.clear()
                    self._refused.clear()
                self._ask(tracking)
                self._hear(await tracking.receive(min(rest, self._timeout())))
                if self._flying:
                    self._check_patience()
                else:
                    failures = 0
            except Refused as error:
                log.info(
                    "waiting calls look themselves: the server cannot tell of changes: %s", error
                )
                self._end(monotonic() + REFUSAL)
                return
            except Exception as error:
                if self._is_idle():
                    return
                if failures == 0:
                    log.warning("the connection that watches was lost, is made again: %r", error)
                    log.debug("how it was lost", exc_info=True)
                self._forget()
                await tracking.disconnect()
                failures += 1
                until = monotonic() + min(0.1 * 2**failures, LINGER)
                while (left := until - monotonic()) > 0:
                    if (rest := self._rest()) is None:
                        return
                    await tracking.receive(min(rest, left))

    def _rest(self) -> float | None:
        """How long it may sleep with nobody waiting; None if it is to end."""
        with self._lock:
            if not self._running:
                return None
            if self._watches:
                return LINGER
            rest = self._idle_since + LINGER - monotonic()
            if rest > 0:
                return rest
            self._running = False
            return None

    def _is_idle(self) -> bool:
        """Whether nobody waits; then it has ended."""
        with self._lock:
            if not self._watches:
                self._running = False
            return not self._running

    def _end(self, refused_until: float) -> None:
        with self._lock:
            self._running = False
            self._refused_until = refused_until
        self._forget()

    def _forget(self) -> None:
        """All that was known is so no more: who waits polls."""
        self._flying.clear()
        with self._lock:
            for watch in self._watches.values():
                watch.forget()
                for waiter in watch.waiters:
                    waiter.wake()

    def _timeout(self) -> float:
        with self._lock:
            times = [watch.next() for watch in self._watches.values()]
        return min(times) - monotonic() if times else LINGER

    def _ask(self, tracking: Tracking) -> None:
        """Look at the sets whose time it is."""
        now = monotonic()
        requests = []
        with self._lock:
            for watch in self._watches.values():
                if watch.asked is not None or watch.next() > now:
                    continue
                watch.asked, watch.changed = now, False
                watch.pace.charge(1, len(watch.waiters))
                data = watch.look.data
                script = watch.look.script
                if script is not None and script.sha in self._refused:
                    data = script.whole(data)
                elif script is not None and script.sha not in self._loaded:
                    self._loaded.add(script.sha)
                    requests.append(script.load)
                    self._flying.append(script)
                requests.append(data)
                self._flying.append(watch)
        if requests:
            tracking.send(b"".join(requests))

    def _hear(self, messages: list[Any]) -> None:
        for message in messages:
            if type(message) is Push:
                if message and message[0] == b"invalidate":
                    self._told(message[1])
            elif not self._flying:
                raise Lost("an answer to nothing")
            elif isinstance(asked := self._flying.popleft(), Watch):
                self._answered(asked, message)
            elif type(message) is Failure:
                self._refused.add(asked.sha)

    def _told(self, keys: list[bytes] | None) -> None:
        """The server says that keys changed; all of them where it was flushed."""
        with self._lock:
            for watch in self._watches.values():
                if keys is None or not watch.keys.isdisjoint(keys):
                    watch.told()

    def _answered(self, watch: Watch, answer: Any) -> None:
        script = watch.look.script
        if type(answer) is Failure:
            if answer.text.startswith("NOSCRIPT") and script is not None:
                self._loaded.discard(script.sha)
                watch.asked, watch.changed = None, True
                return
            # Who waits asks as well, and raises what it is told.
            raise Lost(answer.text)
        assert watch.look.reads is not None
        try:
            available, rest = watch.look.reads(answer)
        except Unexpected as error:
            raise Lost(str(error)) from None
        with self._lock:
            watch.answered(available, rest)

    def _check_patience(self) -> None:
        watch = next((watch for watch in self._flying if isinstance(watch, Watch)), None)
        asked = None if watch is None else watch.asked
        if asked is not None and monotonic() - asked > PATIENCE:
            raise Lost("the server did not answer in time")


class AsyncWatcher(Watcher):
    """Watches the sets of one pool for the tasks of one event loop, in a task of its own."""

    def __init__(self, pool: Any) -> None:
        super().__init__(pool)
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    @property
    def here(self) -> bool:
        return self._loop is asyncio.get_running_loop()

    def runs(self) -> bool:
        # A program may cancel all tasks that there are.
        return self._running and self._task is not None and not self._task.done()

    def _make_waiter(self, watch: Watch) -> Waiter:
        return AsyncWaiter(self, watch)

    def _start(self) -> None:
        self._task = self._loop.create_task(self._run(AsyncTracking), name="redset-watcher")


_watchers: weakref.WeakKeyDictionary[Any, Watcher] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _after_fork() -> None:
    # A child has no thread of its parent's, and must not touch its connections.
    global _watchers, _lock
    _watchers, _lock = weakref.WeakKeyDictionary(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


#: Whether tasks count their cancellations.
_COUNTED = hasattr(asyncio.Task, "cancelling")
#: Cancellations that a client kept to itself, by task. Python 3.11 and later count all of a task's.
_kept: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


def cancellations() -> int:
    """How often the running task was asked to end; before Python 3.11, those that were kept."""
    task: Any = asyncio.current_task()
    return task.cancelling() if _COUNTED else _kept.get(task, 0)


class _Heard:
    """Awaits a client's coroutine, and notes a cancellation that a wait_for in it keeps to itself.

    `asyncio.wait_for` returns the result, if it is there, instead of raising the cancellation
    (CPython issue 86296; redis-py sends in one). A task of Python 3.10 does not count what was
    asked of it. Other cancellations are not noted: async_timeout cancels the task for its own end.
    """

    __slots__ = ("_call",)

    def __init__(self, call: Any) -> None:
        self._call = call

    def __await__(self) -> Generator[Any, Any, Any]:
        call, kept = self._call.__await__(), False
        error: BaseException | None = None
        while True:
            try:
                waits = call.send(None) if error is None else call.throw(error)
            except StopIteration as stop:
                if kept:
                    task = asyncio.current_task()
                    _kept[task] = _kept.get(task, 0) + 1
                return stop.value
            error = None
            try:
                yield waits
            except GeneratorExit:
                call.close()
                raise
            except BaseException as thrown:
                error = thrown
                if isinstance(thrown, asyncio.CancelledError) and _is_in_wait_for(self._call):
                    kept = True


def _is_in_wait_for(call: Any) -> bool:
    """Tell whether a suspended coroutine waits in asyncio.wait_for."""
    while call is not None:
        if getattr(call, "cr_code", None) is asyncio.wait_for.__code__:
            return True
        call = getattr(call, "cr_await", None) or getattr(call, "gi_yieldfrom", None)
    return False


def heard(call: Any) -> Any:
    """Return an awaitable whose kept cancellations are counted; a sync client's result as it is."""
    return call if _COUNTED or not hasattr(call, "cr_await") else _Heard(call)


def _longest(effect: Wait) -> float:
    """Return the longest sleep, in seconds, of a wait that may be told to end."""
    return math.inf if effect.ended is None else PERIOD


class _Progress:
    """How far a wait is: cancellations at its start, its last look, whether it has polled."""

    __slots__ = ("asked", "checked", "polled")

    def __init__(self, asked: int, checked: float) -> None:
        self.asked, self.checked, self.polled = asked, checked, False


class Waiting:
    """One operation's waiting: it sleeps while a watcher watches, else it looks, with others."""

    __slots__ = ("_awaits", "_hinted", "_owner", "_pool", "_rota", "_session", "_sleeper", "waiter")

    def __init__(self, session: Any, pool: Any, awaits: bool, owner: Any) -> None:
        self._session = session
        self._pool = pool
        self._awaits = awaits
        #: Whose sets share looks: the pool, or a client without one.
        self._owner = owner if pool is None else pool
        self._hinted = False
        #: What a watcher wakes, where one watches.
        self.waiter: Waiter | None = None
        #: What looks are shared by, if there is no watcher, and what that wakes.
        self._rota: Rota | None = None
        self._sleeper: Sleeper | None = None

    async def perform(self, effect: Wait, spent: int) -> bool:
        """Wait after an attempt that took so many commands and found nothing."""
        self._hinted = False
        self._charge(spent)
        progress = _Progress(cancellations() if self._awaits else 0, monotonic())
        if progress.checked >= effect.until:
            return False
        while True:
            if self._awaits and cancellations() > progress.asked:
                # Before Python 3.12 a wait_for of the client's may keep a cancellation to itself.
                raise asyncio.CancelledError
            if effect.ended is not None and effect.ended():
                return False
            self._choose(effect, progress.polled)
            if self._is_hinted():
                self._hinted = True
                return True
            now = monotonic()
            watched = -1.0 if self.waiter is None else self.waiter.watched()
            if watched > now:
                found = await self._watch(effect, progress, now, watched)
            else:
                found = await self._poll(effect, progress, now)
            if found is not None:
                return found

    def _charge(self, spent: int) -> None:
        """Count commands against what waiting may send."""
        if self.waiter is not None:
            watch = self.waiter.watch
            watch.pace.charge(spent, max(len(watch.waiters), 1))
        if self._rota is not None:
            self._rota.charge(spent)

    def _choose(self, effect: Wait, create: bool) -> None:
        """Join a watcher if there is one, or create it; leave one that the server refuses."""
        if self.waiter is not None and self.waiter.watcher.refused():
            self._leave_watcher(False)
        if self.waiter is None and self._pool is not None:
            self._join(effect, create)
        if self.waiter is not None and self._sleeper not in (None, self.waiter):
            self._leave_rota(False)  # and join it again as one that either wakes

    async def _watch(
        self, effect: Wait, progress: _Progress, now: float, watched: float
    ) -> bool | None:
        """Sleep while the watcher watches; look for myself when it may have missed something.

        Returns whether there may be something, or None to go on.
        """
        self._leave_rota(False)
        if now >= effect.until:
            return False
        doubt = progress.checked + DOUBT
        if now < doubt:
            await self._sleep(min(min(doubt, watched, effect.until) - now, _longest(effect)))
            return None
        progress.checked = now
        available, _ = await self._seen(effect)
        if available <= 0:
            return None
        self._hinted = True
        return True

    async def _poll(self, effect: Wait, progress: _Progress, now: float) -> bool | None:
        """Look in turn with others, if nobody watches; False after the last look."""
        rota = self._rota or self._join_rota(effect)
        # The last look may exceed the budget.
        at = rota.turn(now >= effect.until)
        if at is None:
            progress.polled, progress.checked = True, now
            await self._look_for_all(rota, effect, now)
            return None
        if at == math.inf:
            return False
        wake = at if now >= effect.until else min(at, effect.until)
        # By itself once more if nobody watches yet: it may be the one to begin.
        progress.polled = progress.polled or self._pool is not None
        await self._sleep(min(wake - now, _longest(effect)))
        return None

    def _is_hinted(self) -> bool:
        found = False
        for sleeper in (self.waiter, self._sleeper):
            if sleeper is not None and sleeper.hinted:
                sleeper.hinted = False
                found = True
        return found

    def _join(self, effect: Wait, create: bool) -> None:
        with _lock:
            watcher = _watchers.get(self._pool)
            if watcher is None or not watcher.here:
                if not create:
                    return
                watcher = (AsyncWatcher if self._awaits else Watcher)(self._pool)
                _watchers[self._pool] = watcher
            elif not create and not watcher.runs():
                return
        watcher.join(effect, self)

    def _join_rota(self, effect: Wait) -> Rota:
        rota = rota_of(self._owner, effect.look.data, self._awaits)
        if self._sleeper is None:
            # The watcher's, if there is one: it is to be woken by either.
            self._sleeper = self.waiter or (AsyncSleeper if self._awaits else Sleeper)()
        self._rota = rota
        rota.join(self._sleeper)
        return rota

    async def _sleep(self, seconds: float) -> None:
        sleeper = self.waiter or self._sleeper
        assert sleeper is not None
        await sleeper.sleep(max(seconds, 0.0))

    async def _look_for_all(self, rota: Rota, effect: Wait, began: float) -> None:
        try:
            available, rest = await self._seen(effect)
        except BaseException:
            rota.failed()
            raise
        rota.answered(began, available, rest)

    async def _seen(self, effect: Wait) -> tuple[int, float]:
        session = self._session
        await session.send(effect.look)
        found: tuple[int, float] = await session.read()
        await session.close()
        return found

    def end(self, failed: bool) -> None:
        """Wait no more; may be called again.

        ``failed`` if the operation ended early: what it was woken for is another's.
        """
        self._leave_rota(failed)
        self._leave_watcher(failed)

    def _leave_rota(self, failed: bool) -> None:
        if self._rota is not None and self._sleeper is not None:
            self._rota.leave(self._sleeper, self._sleeper.hinted or (self._hinted and failed))
        self._rota = self._sleeper = None

    def _leave_watcher(self, failed: bool) -> None:
        waiter = self.waiter
        if waiter is None:
            return
        if self._hinted and not failed:
            waiter.watch.succeeded()
        waiter.watcher.leave(waiter, waiter.hinted or (self._hinted and failed))
        self.waiter = None
