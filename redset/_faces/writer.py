"""Buffered producers: what was accepted is written in the background, in the order of input."""

from __future__ import annotations

import asyncio
import atexit
import logging
import math
import os
import threading
import time
from collections import deque
from typing import Any

from redset._faces.arguments import positive, seconds
from redset._faces.leases import Lease, leases_of
from redset._operations import adding, settling, streaming
from redset._operations.adding import AddResult, Flags
from redset._operations.known import still_known
from redset._operations.logs import one_line, warn_once
from redset._operations.settling import Settlement
from redset._transport.effects import Operation
from redset._transport.source import Source
from redset.exceptions import AddError

log = logging.getLogger("redset")

#: Adds that are written before those that wait for room are told that there is some.
_MOST = 2000
#: The longest wait for the clock, in seconds: a lock's has an end.
_LONGEST = 3600.0
#: After how many adds other tasks have a turn.
_TURN = 250

_open: set[Writing] = set()


#: An accepted item: how to add it, what is sent of it, its score (None: the server's time), itself.
_Add = tuple[Flags, Any, float | None, Any]


class _Run:
    """Adds that one bulk call can take: of the same flags, all with a score or none."""

    __slots__ = ("adds", "flags", "scored")

    def __init__(self, flags: Flags, scored: bool) -> None:
        self.flags = flags
        self.scored = scored
        self.adds: list[_Add] = []


class _NextPart:
    """The next part to write: adds, then acknowledgements."""

    __slots__ = ("leases", "runs")

    def __init__(self) -> None:
        self.runs: deque[_Run] = deque()
        self.leases: list[Lease[Any]] = []

    def take(self, one: _Add | list[Lease[Any]]) -> None:
        if isinstance(one, list):
            self.leases += one
            return
        flags, _, score, _ = one
        runs = self.runs
        if not runs or runs[-1].flags != flags or runs[-1].scored != (score is not None):
            runs.append(_Run(flags, score is not None))
        runs[-1].adds.append(one)


class Writing:
    """Base of the writers of both faces: what was accepted, and what becomes of it.

    It does no I/O and waits for nothing. Items are serialised when they are accepted: a bad one is
    its caller's error, and what becomes of the object later does not matter.
    """

    def __init__(self, owner: Any, max_items: Any, max_delay: Any, max_pending: Any) -> None:
        max_items, max_pending = (
            positive("max_items", max_items),
            positive("max_pending", max_pending),
        )
        owner._open()
        self._owner = owner
        self._ctx = owner._ctx
        self._sent = self._ctx.of_serialised()
        self._flags: dict[tuple[Any, ...], Flags] = {}
        self._max_pending: int = max_pending
        self._max_items = min(max_items, max_pending)
        self._max_delay = seconds("max_delay", max_delay, most=math.inf)
        #: Adds, lists of leases to acknowledge, None if the one before goes first.
        self._queue: deque[_Add | list[Lease[Any]] | None] = deque()
        #: Members whose acknowledgement is queued.
        self._acking: set[bytes] = set()
        self._part = _NextPart()
        #: When the first of what is queued was accepted.
        self._since = math.inf
        #: Adds and leases that were accepted, and how many may be: each counted by one side.
        self._accepted: int = 0
        self._limit: int = max_pending
        self._written = 0
        self._result = AddResult()
        self._state = ""
        self._failure: AddError | None = None
        self._told = False
        #: Whether who left it was interrupted, so that nobody waits to be told.
        self._abandoned = False
        #: Whether the background is at its end; an interrupted join says so of a running thread.
        self._over = False
        #: Why nothing is accepted.
        self._barred: Exception | None = RuntimeError("a writer is used inside of its with block")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._owner!r}>"

    # What is accepted.

    def _check(self) -> None:
        """Raise why nothing is accepted."""
        if self._barred is not None:
            self._told = self._barred is self._failure
            # It may be raised many times.
            raise self._barred.with_traceback(None)

    def _held(self, leases: Any) -> list[Lease[Any]]:
        """Check what is to be acknowledged."""
        self._check()
        return leases_of(self._owner, leases)

    def _add_of(self, item: Any, score: Any, given: tuple[Any, ...]) -> _Add:
        """Check an add's arguments, and take from the item what is sent of it."""
        if self._barred is not None:
            self._check()
        if given[-1] is not None:
            Flags(*given).check_remember(self._ctx)  # 0 equals False, and may not be
        flags = self._flags.get(given)
        if flags is None:
            flags = Flags(*given)
            flags.condition(self._ctx)
            self._flags[given] = flags
        score = adding.score_for(self._ctx, item, score)
        if score is None:
            self._sent.codec.scorer = self._ctx.codec.scorer
        return flags, self._ctx.codec.serialise(item), score, item

    def _put(self, one: _Add | list[Lease[Any]]) -> bool:
        """Accept something; whether the background is to hear of it."""
        queue = self._queue
        told = False
        if isinstance(one, list):
            self._acking.update(lease.member for lease in one)
            for lease in one:
                lease.settled = True
            self._accepted += len(one)
            # As with ack(add=): from here on the server is asked about all that comes before one.
            self._sent.memory.tabled = False
        else:
            # Behind its acknowledgement an item is another one than before it.
            if self._acking and self._ctx.codec.member_of(one[1]) in self._acking:
                self._acking.clear()
                queue.append(None)
                told = True
            self._accepted += 1
        queue.append(one)
        size = len(queue)
        if size == 1:
            self._since = time.monotonic()
            return True
        return told or size == self._max_items or self._accepted >= self._limit

    # What the background does.

    def _left(self) -> float:
        """Say for how many seconds there is nothing to do."""
        if self._part.runs or self._part.leases or self._state != "entered":
            return 0.0
        if not self._queue:
            return _LONGEST
        if len(self._queue) >= self._max_items or self._accepted >= self._limit:
            return 0.0
        return min(self._since + self._max_delay - time.monotonic(), _LONGEST)

    def _next(self) -> _NextPart | None:
        """Cut off what is written next, or go on with the last; None at the end."""
        part, queue = self._part, self._queue
        if self._failure is not None:
            return None
        if not (part.runs or part.leases):
            for _ in range(min(len(queue), _MOST)):
                one = queue.popleft()
                if one is None:
                    break
                part.take(one)
            if not queue:
                self._acking.clear()
                if self._state != "entered" and not (part.runs or part.leases):
                    return None
        return part

    def _write(self, part: _NextPart) -> Operation[None]:
        """Write a part: one run after another, and then what is acknowledged."""
        while part.runs:
            run = part.runs[0]
            items = [entry for _, entry, _, _ in run.adds]
            scores = [score for _, _, score, _ in run.adds] if run.scored else None
            try:
                result = yield from streaming.add_stream(
                    self._sent, None, run.flags, "raise", True, False, (), (items, scores)
                )
            except AddError as error:
                self._count(run, error.resume_at, error.result)
                raise
            self._count(run, len(items), result)
            part.runs.popleft()
        if part.leases:
            how, name = "ack", self._ctx.name
            if not (yield from still_known(self._sent)):
                # What led there is done once more, and finds it again.
                how = "release"
                told = "%r was reset, or something of it forgotten: leases are given back"
                warn_once(name, told, name)
            done = [Settlement(how, part.leases)]
            lost = (yield from settling.settle(self._ctx, done)).lost
            if lost:
                told = "%d leases of %r were over before they were settled"
                warn_once(name, told, lost, name)
            self._limit += len(part.leases)
            part.leases = []

    def _count(self, run: _Run, num: int, result: AddResult) -> None:
        """Take note of adds in front of a run that are written."""
        del run.adds[:num]
        self._written += num
        self._limit += num
        self._result = AddResult(*map(sum, zip(self._result, result, strict=True)))

    def _fail(self, error: BaseException) -> None:
        """Accept nothing more: what came behind cannot be written before what failed."""
        rest = self._part
        for one in self._queue:
            if one is not None:
                rest.take(one)
        unwritten = [(item, score) for run in rest.runs for _, _, score, item in run.adds]
        what = f"{len(unwritten)} items"
        if rest.leases:
            what += f" and {len(rest.leases)} acknowledgements"
        kind, cause = AddError, error
        number: int | None = None
        item: Any = None
        if isinstance(error, AddError):
            kind, cause = type(error), error.__cause__ or error
            if error.index is not None:
                # What comes before ``resume_at`` is written, and left the run.
                place = error.index - error.resume_at
                number, item = self._written + place, rest.runs[0].adds[place][3]
        failure = kind(
            f"{what} of {self._ctx.name!r} were not written: {str(cause) or type(cause).__name__}",
            result=self._result,
            resume_at=self._written,
            index=number,
            item=item,
            unwritten=unwritten,
        )
        failure.__cause__ = cause
        self._queue.clear()
        self._part = _NextPart()
        self._failure = self._barred = failure

    # Its beginning and end.

    def _enter(self) -> None:
        if self._state:
            raise RuntimeError("a writer is entered once")
        self._state = "entered"
        self._barred = None

    def _end(self) -> None:
        """Accept nothing more, and write what was accepted."""
        self._state = "left"
        self._barred = self._failure or RuntimeError("the writer was left")

    def _leave(self, error: BaseException | None) -> None:
        """Say what could not be written; an error of the caller's goes before."""
        _open.discard(self)
        failure = self._failure
        if failure is None or failure is error:
            return
        self._told = True
        if error is None:
            raise failure.with_traceback(None)
        log.error("%s", one_line(str(failure)))

    def _ended(self) -> None:
        """Note that the background is at its end: nobody writes what is left now."""
        self._over = True
        self._give_up("what writes it was ended")
        if self._abandoned:
            _open.discard(self)
            self._tell()

    def _abandon(self) -> None:
        """Note that nobody waits for the end."""
        self._abandoned = True
        if self._over:
            self._ended()

    def _pending(self) -> int:
        """Say how much is accepted and not written."""
        return self._accepted - (self._limit - self._max_pending)

    def _give_up(self, why: str) -> None:
        """Note that nobody writes what is left, if anything is."""
        if self._failure is None and self._pending() > 0:
            self._fail(RuntimeError(why))

    def _tell(self) -> None:
        if self._failure is not None and not self._told:
            self._told = True
            log.error("%s", one_line(str(self._failure)))

    def _fork(self) -> None:
        """Be in a child: what was accepted is the parent's to write."""
        self._state = "forked"
        self._barred = RuntimeError(
            "the writer is that of the parent process: call buffered() again in the child"
        )
        self._queue.clear()
        self._part = _NextPart()

    def _exit(self) -> None:
        """Be at the end of the interpreter."""
        self._give_up("its event loop ended before the writer was left")
        self._tell()


class ThreadWriting(Writing):
    """Base of the writer of a sync set, which writes in a thread."""

    def __init__(self, owner: Any, max_items: Any, max_delay: Any, max_pending: Any) -> None:
        super().__init__(owner, max_items, max_delay, max_pending)
        self._make_locks()
        self._thread = threading.Thread(
            target=self._work, name=f"redset writer of {self._ctx.name!r}", daemon=True
        )

    def _make_locks(self) -> None:
        # A signal handler or a destructor may add while its own thread does.
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)

    def _accept(self, one: _Add | list[Lease[Any]]) -> None:
        with self._lock:
            while self._accepted >= self._limit and self._barred is None:
                self._room.wait()
            if self._barred is not None:
                self._check()
            if self._put(one):
                self._wake.notify()

    def _work(self) -> None:
        try:
            self._go_on()
        except BaseException as error:  # which nobody else would hear of
            with self._lock:
                self._fail(error)
        with self._lock:
            self._ended()
            self._room.notify_all()

    def _go_on(self) -> None:
        while True:
            with self._lock:
                while (left := self._left()) > 0:
                    self._wake.wait(left)
                part = self._next()
            if part is None:
                return
            try:
                self._owner._run(self._write(part), Source((), None))
            except BaseException as error:
                with self._lock:
                    self._fail(error)
            with self._lock:
                self._room.notify_all()

    def _begin(self) -> None:
        self._enter()
        self._thread.start()
        _open.add(self)

    def _close(self, error: BaseException | None) -> None:
        if self._state == "forked":
            return
        self._finish()
        self._leave(error)

    def _finish(self) -> None:
        with self._lock:
            self._end()
            self._wake.notify()
            self._room.notify_all()
        try:
            self._thread.join()
        except BaseException:
            # It goes on by itself.
            with self._lock:
                self._abandon()
            raise

    def _fork(self) -> None:
        super()._fork()
        self._make_locks()  # another thread may have held them

    def _exit(self) -> None:
        self._finish()
        super()._exit()


class TaskWriting(Writing):
    """Base of the writer of an asyncio set, which writes in a task.

    If its event loop is closed before it was left, what was accepted is written first.
    """

    def __init__(self, owner: Any, max_items: Any, max_delay: Any, max_pending: Any) -> None:
        super().__init__(owner, max_items, max_delay, max_pending)
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def _accept(self, one: _Add | list[Lease[Any]]) -> None:
        while self._accepted >= self._limit and self._barred is None:
            self._room.clear()
            await self._room.wait()
        self._check()
        if self._put(one):
            self._wake.set()
        if self._accepted % _TURN == 0:
            await asyncio.sleep(0)  # it may never wait for anything itself

    async def _work(self) -> None:
        try:
            try:
                await self._go_on()
            except asyncio.CancelledError:
                # The loop is about to be closed, and waits for its tasks.
                self._end()
                await self._go_on()
        except asyncio.CancelledError as error:
            self._fail(error)
            raise

    async def _go_on(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while (left := self._left()) > 0:
                self._wake.clear()
                alarm = loop.call_later(left, self._wake.set)
                try:
                    await self._wake.wait()
                finally:
                    alarm.cancel()
            part = self._next()
            if part is None:
                return
            try:
                await self._owner._run(self._write(part), Source((), None))
            except Exception as error:
                self._fail(error)
            self._room.set()

    async def _begin(self) -> None:
        self._enter()
        self._task = asyncio.create_task(self._work())
        self._task.add_done_callback(self._done)
        _open.add(self)
        try:
            await asyncio.sleep(0)  # once it has begun, a cancellation makes it write what is left
        except asyncio.CancelledError:
            self._abandon()
            self._end()
            self._wake.set()
            raise

    def _done(self, task: asyncio.Task[None]) -> None:
        # Before whoever waits for the task goes on: it was the first to be registered.
        self._ended()
        self._room.set()

    async def _close(self, error: BaseException | None) -> None:
        if self._state == "forked":
            return
        assert self._task is not None
        self._end()
        self._wake.set()
        self._room.set()
        try:
            await asyncio.wait((self._task,))
        except asyncio.CancelledError:
            # It goes on by itself.
            self._abandon()
            raise
        self._leave(error)


def _at_exit() -> None:
    for writer in list(_open):
        writer._exit()


def _in_child() -> None:
    for writer in _open:
        writer._fork()
    _open.clear()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
