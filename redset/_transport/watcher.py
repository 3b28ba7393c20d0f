"""The watcher: one connection of a process learns of changes for all of its waiting operations.

Theory of operation. Polling a set (`redset._transport.polling`) always works, and each wait falls
back to it. A watcher makes it cheap. It has a connection outside the pool that tracks keys
(`redset._transport.tracking`), and polls each watched set there once. That poll arms the server,
which then reports the next change of those keys. The watcher polls again at a report, when an item
falls due, and once a second. It wakes as many waiters as there are items. They take items as any
call does.

A report is a hint. A lost report costs time, never an item: a waiter polls for itself, through its
own client, if the watcher's last reply is old (``FRESH``), and every ten seconds in any case
(``DOUBT``). A waiter that was woken and leaves without an item hands its hint on.

A set has a budget of polls (`Budget`) that grows with its waiters. If hundreds of processes hear of
one item, all but one come too late. Each of those then delays its next polls at random, up to 40 ms
(``SPREAD``), until it gets an item.

Locks are held for moments, and never over I/O. A forked child starts with no watcher.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from redset._transport.alarms import Alarm, AsyncAlarm, hint
from redset._transport.coroutines import attentive
from redset._transport.effects import Send, Unexpected, Wait
from redset._transport.polling import PERIOD, Budget
from redset._transport.tracking import (
    PATIENCE,
    AsyncTracking,
    CannotTrack,
    ErrorText,
    Push,
    Tracking,
    TrackingLost,
)
from redset.scripts import Script

if TYPE_CHECKING:
    from redset._transport.waiter import Waiter

log = logging.getLogger("redset")

#: Seconds per poll of a watcher, and the polls that it may spend in advance. Polling without a
#: watcher has fewer in advance. They are paid back: over five seconds it is one command per PERIOD,
#: too. So if a few items come at once, a waiter that misses the first may get the next.
WATCHING, CHANGES = 1.1 * PERIOD, 10 * PERIOD
#: Seconds between two polls of a set without a report, and for which a reply counts as fresh.
REFRESH = 1.0
FRESH = REFRESH + PATIENCE / 2
#: Seconds after which a waiter polls for itself, on a connection of the pool: the watcher's
#: connection may lead to a server that is no longer the primary.
DOUBT = 10.0
#: The longest random delay, in seconds, of a watcher whose waiter came too late (measured by
#: benchmarks/waiting.py).
SPREAD = 0.04
#: Seconds that a watcher stays without waiters, and until one that was refused is tried again.
LINGER = 5.0
REFUSAL = 60.0
#: Answers of a cluster's node that does not have the set, or not the whole of it.
MISPLACED = ("MOVED ", "ASK ", "TRYAGAIN", "CLUSTERDOWN")


class WatchAlarm(Alarm):
    """Wakes one waiter of a watched set; of a sync client."""

    __slots__ = ("watched", "watcher")

    def __init__(self, watcher: Watcher, watched: WatchedSet) -> None:
        super().__init__()
        self.watcher = watcher
        self.watched = watched

    def covered_until(self) -> float:
        """Return the time until which no change is missed; a past one if nothing is watched."""
        return self.watched.seen + FRESH


class AsyncWatchAlarm(WatchAlarm, AsyncAlarm):
    """Wakes one waiter of a watched set; of an asyncio client."""

    __slots__ = ()


class WatchedSet:
    """A set that a watcher polls: its waiters, and the last reply."""

    __slots__ = (
        "alarms", "asked", "budget", "changed", "due", "earliest", "keys", "poll", "rejoin_at",
        "seen", "spread",
    )  # fmt: skip

    def __init__(self, poll: Send, keys: list[bytes]) -> None:
        self.poll = poll
        self.keys = frozenset(keys)
        #: In order: the next to be woken comes first.
        self.alarms: dict[WatchAlarm, None] = {}
        self.budget = Budget(WATCHING, CHANGES)
        self.spread = 0.0
        #: When its waiters may watch it at the same node again, after the node refused.
        self.rejoin_at = float("inf")
        self.forget()

    def forget(self) -> None:
        """Drop the last reply, as after a lost connection."""
        self.changed = True
        #: The time at which a change is polled.
        self.earliest = 0.0
        #: The times at which the unanswered poll was sent, and the last reply came.
        self.asked: float | None = None
        self.seen = float("-inf")
        #: The time at which an item falls due.
        self.due = float("inf")

    def mark(self) -> None:
        """Note that the set may have changed, unless a poll is in flight."""
        if self.asked is None:
            self.changed, self.earliest = True, 0.0

    def invalidate(self) -> None:
        """Note a change that the server reported to all watchers."""
        if self.asked is None and not self.changed:
            self.changed, self.earliest = True, monotonic() + self._later()

    def record(self, available: int, rest: float) -> None:
        """Record the reply to a poll: number of items, and seconds until there may be more."""
        was_reported, self.asked, self.seen = self.earliest > 0, None, monotonic()
        self.due = self.seen + rest + self._later()
        if was_reported and not available:
            self.spread = min(2 * self.spread or SPREAD / 16, SPREAD)
        self.earliest = 0.0
        self.hint(available)

    def _later(self) -> float:
        return random.random() * self.spread

    def note_success(self) -> None:
        """Note that a waiter that was woken got an item."""
        self.spread = 0.0
        self.budget.refill()

    def next_poll(self) -> float:
        """Return the time of the next poll."""
        if self.asked is not None:
            return self.asked + PATIENCE
        at = self.earliest if self.changed else min(self.due, self.seen + REFRESH)
        return max(at, self.budget.ready())

    def hint(self, available: int) -> None:
        """Wake as many waiters as there are items."""
        hint(self.alarms, available)


class Watcher:
    """Watches the sets of one pool for the threads of this process, in a thread of its own."""

    def __init__(self, pool: Any) -> None:
        self._pool = weakref.ref(pool)
        #: Guards all that follows.
        self._lock = threading.Lock()
        self._sets: dict[bytes, WatchedSet] = {}
        self._tracking: Tracking | None = None
        self._running = False
        self._idle_since = 0.0
        self._refused_until = 0.0
        #: Requests without a reply: a poll of a set, or the loading of a script.
        self._flying: deque[WatchedSet | Script] = deque()
        self._loaded: set[bytes] = set()
        #: Scripts that the server refused to load.
        self._refused: set[bytes] = set()

    # Called by waiters.

    @property
    def is_usable(self) -> bool:
        """Whether it can watch for the caller, whose event loop may be another."""
        return True

    def is_running(self) -> bool:
        """Return whether its thread or task runs."""
        return self._running

    def is_refused(self) -> bool:
        """Return whether the server reports no changes, and was asked a short time ago."""
        return monotonic() < self._refused_until

    def is_of(self, pool: Any) -> bool:
        """Return whether it watches the server of a pool."""
        return self._pool() is pool

    def join(self, effect: Wait, waiter: Waiter) -> None:
        """Watch for one more waiter and give it an alarm; none if the server refused."""
        with self._lock:
            if monotonic() < self._refused_until:
                return
            data = effect.poll.data
            watched = self._sets.get(data) or WatchedSet(effect.poll, effect.keys)
            # The waiter gets the alarm first, so an interrupt leaves no alarm without a waiter.
            alarm = waiter.watch_alarm = self._make_alarm(watched)
            watched.alarms[alarm] = None
            self._sets[data] = watched
            # The set may have changed since the waiter's last attempt.
            watched.mark()
            if not self.is_running():
                try:
                    self._start()
                except RuntimeError:  # no thread can be started, as at the interpreter's end
                    self._remove(alarm)
                    waiter.watch_alarm = None
                    return
                self._running = True
        self._wake()

    def leave(self, alarm: WatchAlarm, unspent: bool) -> None:
        """Watch for one waiter less. Its hint goes to another if it is unspent."""
        with self._lock:
            self._remove(alarm)
            if unspent:
                alarm.watched.mark()
            idle = not self._sets
            if idle:
                self._idle_since = monotonic()
        if unspent or idle:
            self._wake()

    def _remove(self, alarm: WatchAlarm) -> None:
        watched = alarm.watched
        watched.alarms.pop(alarm, None)
        if not watched.alarms and self._sets.get(watched.poll.data) is watched:
            del self._sets[watched.poll.data]

    def _make_alarm(self, watched: WatchedSet) -> WatchAlarm:
        return WatchAlarm(self, watched)

    def _wake(self) -> None:
        tracking = self._tracking
        if tracking is not None:
            tracking.wake()

    # Run by its thread or task.

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
            log.exception("watching for changes failed; waiting calls poll")
            self._end(monotonic() + REFUSAL)
        except BaseException:  # cancelled, as a program that ends cancels all tasks
            self._end(0.0)
            raise
        finally:
            if tracking is not None:
                await tracking.close()

    async def _watch(self, tracking: Tracking) -> None:
        """Watch as long as there are waiters, and LINGER seconds longer."""
        failures = 0
        while (rest := self._rest()) is not None:
            try:
                if not tracking.is_open:
                    pool = self._pool()
                    if pool is None:
                        raise CannotTrack("the pool is gone")
                    opened = tracking.open(pool)
                    await (attentive(opened) if type(tracking) is AsyncTracking else opened)
                    pool = None
                    self._forget()
                    self._loaded.clear()
                    self._refused.clear()
                self._ask(tracking)
                self._receive(await tracking.receive(min(rest, self._timeout())))
                if self._flying:
                    self._check_patience()
                else:
                    failures = 0
            except CannotTrack as error:
                log.info("the server cannot report changes, so waiting calls poll: %s", error)
                self._end(monotonic() + REFUSAL)
                return
            except Exception as error:
                if self._is_idle():
                    return
                if failures == 0:
                    log.warning(
                        "lost the connection that watches for changes, reconnecting: %r", error
                    )
                    log.debug("traceback of the lost connection", exc_info=True)
                self._forget()
                await tracking.disconnect()
                failures += 1
                until = monotonic() + min(0.1 * 2**failures, LINGER)
                while (left := until - monotonic()) > 0:
                    if (rest := self._rest()) is None:
                        return
                    await tracking.receive(min(rest, left))

    def _rest(self) -> float | None:
        """Return the seconds that it may sleep; None if it is to end."""
        with self._lock:
            if not self._running:
                return None
            if self._sets:
                return LINGER
            rest = self._idle_since + LINGER - monotonic()
            if rest > 0:
                return rest
            self._running = False
            return None

    def _is_idle(self) -> bool:
        """Return whether it has no waiters, and end if so."""
        with self._lock:
            if not self._sets:
                self._running = False
            return not self._running

    def _end(self, refused_until: float) -> None:
        with self._lock:
            self._running = False
            self._refused_until = refused_until
        self._forget()

    def _forget(self) -> None:
        """Drop all replies and wake all waiters: from now on they poll."""
        self._flying.clear()
        with self._lock:
            for watched in self._sets.values():
                watched.forget()
                for alarm in watched.alarms:
                    alarm.wake()

    def _timeout(self) -> float:
        with self._lock:
            times = [watched.next_poll() for watched in self._sets.values()]
        return min(times) - monotonic() if times else LINGER

    def _ask(self, tracking: Tracking) -> None:
        """Poll the sets that are due for it."""
        now = monotonic()
        requests = []
        with self._lock:
            for watched in self._sets.values():
                if watched.asked is not None or watched.next_poll() > now:
                    continue
                watched.asked, watched.changed = now, False
                watched.budget.charge(1, len(watched.alarms))
                data = watched.poll.data
                script = watched.poll.script
                if script is not None and script.sha in self._refused:
                    data = script.whole(data)
                elif script is not None and script.sha not in self._loaded:
                    self._loaded.add(script.sha)
                    requests.append(script.load)
                    self._flying.append(script)
                requests.append(data)
                self._flying.append(watched)
        if requests:
            tracking.send(b"".join(requests))

    def _receive(self, messages: list[Any]) -> None:
        for message in messages:
            if type(message) is Push:
                if message and message[0] == b"invalidate":
                    self._invalidate(message[1])
            elif not self._flying:
                raise TrackingLost("a reply without a request")
            elif isinstance(asked := self._flying.popleft(), WatchedSet):
                self._record(asked, message)
            elif type(message) is ErrorText:
                self._refused.add(asked.sha)

    def _invalidate(self, keys: list[bytes] | None) -> None:
        """Note that keys changed; None stands for all keys (FLUSHALL)."""
        with self._lock:
            for watched in self._sets.values():
                if keys is None or not watched.keys.isdisjoint(keys):
                    watched.invalidate()

    def _record(self, watched: WatchedSet, answer: Any) -> None:
        script = watched.poll.script
        if type(answer) is ErrorText:
            if answer.text.startswith("NOSCRIPT") and script is not None:
                self._loaded.discard(script.sha)
                watched.asked, watched.changed = None, True
                return
            if answer.text.startswith(MISPLACED):
                self._drop(watched)
                return
            # A waiter then polls, and raises the error of its own poll.
            raise TrackingLost(answer.text)
        assert watched.poll.reads is not None
        try:
            available, rest = watched.poll.reads(answer)
        except Unexpected as error:
            raise TrackingLost(str(error)) from None
        with self._lock:
            watched.record(available, rest)

    def _drop(self, watched: WatchedSet) -> None:
        """Watch a set no longer. Its waiters poll, and so find the node that has it."""
        with self._lock:
            watched.forget()
            watched.rejoin_at = monotonic() + REFRESH
            if self._sets.get(watched.poll.data) is watched:
                del self._sets[watched.poll.data]
            if not self._sets:
                self._idle_since = monotonic()
            for alarm in watched.alarms:
                alarm.wake()

    def _check_patience(self) -> None:
        watched = next((each for each in self._flying if isinstance(each, WatchedSet)), None)
        asked = None if watched is None else watched.asked
        if asked is not None and monotonic() - asked > PATIENCE:
            raise TrackingLost("the server did not answer in time")


class AsyncWatcher(Watcher):
    """Watches the sets of one pool for the tasks of one event loop, in a task of its own."""

    def __init__(self, pool: Any) -> None:
        super().__init__(pool)
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_usable(self) -> bool:
        return self._loop is asyncio.get_running_loop()

    def is_running(self) -> bool:
        # A program may cancel all tasks.
        return self._running and self._task is not None and not self._task.done()

    def _make_alarm(self, watched: WatchedSet) -> WatchAlarm:
        return AsyncWatchAlarm(self, watched)

    def _start(self) -> None:
        self._task = self._loop.create_task(self._run(AsyncTracking), name="redset-watcher")


_watchers: weakref.WeakKeyDictionary[Any, Watcher] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def watcher_of(pool: Any, awaits: bool, create: bool) -> Watcher | None:
    """Return a pool's watcher, if it is there or is to be created."""
    with _lock:
        watcher = _watchers.get(pool)
        if watcher is None or not watcher.is_usable:
            if not create:
                return None
            watcher = _watchers[pool] = (AsyncWatcher if awaits else Watcher)(pool)
        elif not create and not watcher.is_running():
            return None
        return watcher


def _forget_watchers() -> None:
    # A child does not have its parent's threads, and must not touch its connections.
    global _watchers, _lock
    _watchers, _lock = weakref.WeakKeyDictionary(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_watchers)
