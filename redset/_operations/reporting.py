"""Reports: what a process did with a set, counted in the process and sent now and then.

Theory of operation
-------------------

Scripts that count would see little: the known table and the folding of chunks answer most adds of a
crawl. So each process counts what its calls did. A `Tally` has the counts of one set on one server;
all objects of the process share it. Its new counts travel as one step, `report.lua`, in the write
of another request: no round trip of their own. The step also keeps a line about the process in
`P:workers`, and returns whether the set is paused.

- A process that adds or consumes reports with its first call, then at most every `EVERY` seconds if
  something is new. Calls that only look report nothing.
- The process's second report enters the set into the registry, and one an hour renews the entry.
- Each count is sent once. It counts as sent when the report is written: if the answer is lost, the
  report is not sent again, since the server may have performed it. A report that the server refused
  as a whole is sent again with the next one.
- A user who may not report ends all reports of the process. So does ``REDSET_REPORT=0``.

Only the server knows of expired leases and of dead, requeued and purged letters. The steps in which
they happen count them themselves (``expired``, ``died``, ``requeued``, ``purged``).
"""

from __future__ import annotations

import base64
import functools
import json
import logging
import os
import socket
import sys
import threading
import weakref
from collections.abc import Callable
from time import monotonic
from types import ModuleType
from typing import Any

from redset._operations.keys import REGISTRY
from redset._operations.options import SetOptions
from redset._operations.plain_reports import commands_of, entry_command, lacks_scripts
from redset._transport.effects import Rider
from redset.scripts import script

log = logging.getLogger("redset")

#: The counts of a report.
FIELDS = (
    "added", "updated", "refused", "bad", "taken", "leased", "acked", "failed", "released", "lost",
    "buried", "busy_ms",
)  # fmt: skip
(
    ADDED, UPDATED, REFUSED, BAD, TAKEN, LEASED, ACKED, FAILED, RELEASED, LOST, BURIED, BUSY,
) = SLOTS = range(12)  # fmt: skip
#: The count of each settlement.
SETTLED = {"ack": ACKED, "fail": FAILED, "release": RELEASED, "bury": BURIED}
_ENDED = ACKED, FAILED, RELEASED, LOST, BURIED
#: Seconds between two reports; between two of a consumer that finds nothing; after a refused one;
#: between two entries into the registry.
EVERY, IDLE, REFUSED_FOR, ENTERED_FOR = 2.0, 30.0, 60.0, 3600.0
#: Lines of workers, or entries, that one step looks at for old ones.
OLD = 20
#: Tallies that are kept without an object that uses them.
_KEPT = 10_000
#: Refusals by a server that performed nothing.
_UNPERFORMED = (
    "NOSCRIPT", "OOM", "READONLY", "LOADING", "BUSY", "NOREPLICAS", "MISCONF", "MASTERDOWN",
    "CLUSTERDOWN", "TRYAGAIN",
)  # fmt: skip


class Tally:
    """The counts of a process for one set on one server."""

    __slots__ = (
        "__weakref__", "consumes", "counts", "due", "entered", "forgotten", "heard", "lock",
        "looked", "paused", "plain", "reports", "sent",
    )  # fmt: skip

    due: float

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin with nothing counted, as a forked child does: its parent sends the rest."""
        # Of one thread, since a signal's handler may use a set in the middle of a report.
        self.lock = threading.RLock()
        self.counts = [0] * len(SLOTS)
        self.sent = [0] * len(SLOTS)
        #: Leases that the process had when the set was cleared.
        self.forgotten = 0
        #: The time of `time.monotonic` from which a report may be written.
        self.due = 0.0
        #: When the last report was written, when one last looked at old lines, and when the set was
        #: last entered into the registry.
        self.heard = self.looked = self.entered = -ENTERED_FOR
        self.reports = 0
        #: Whether a consumer asked since the last report.
        self.consumes = False
        #: Whether the set was paused at the last answer.
        self.paused = False
        #: Whether the server has no scripts.
        self.plain = False

    def count(self, kind: int, num: int) -> None:
        """Count what a call did.

        Without the lock, which takes three times as long as the rest. A thread of CPython ends this
        statement before another one runs: with the GIL they change at calls and at backward jumps.
        """
        self.counts[kind] += num

    def held(self, counts: list[int]) -> int:
        """Return the number of leases that the process has, by a copy of its counts."""
        ended = 0
        for kind in _ENDED:
            ended += counts[kind]
        return counts[LEASED] - ended - self.forgotten


if (
    sys.implementation.name != "cpython" or not getattr(sys, "_is_gil_enabled", lambda: True)()
):  # pragma: no cover

    def _count_locked(self: Tally, kind: int, num: int) -> None:
        with self.lock:
            self.counts[kind] += num

    Tally.count = _count_locked  # type: ignore[method-assign]


class _Nothing(Tally):
    """In place of a tally: counts nothing, and has no use for its lock."""

    __slots__ = ()

    def count(self, kind: int, num: int) -> None:
        pass


#: In place of a tally: of an object that has done nothing yet, and of one that reports nothing.
_NONE: Tally = _Nothing()
_NONE.due = float("inf")


class _Process:
    """The tallies of this process, and its name."""

    def __init__(self) -> None:
        self.id = base64.b64encode(os.urandom(6))[:6]
        self.began = monotonic()
        self.is_silent = os.environ.get("REDSET_REPORT") == "0"
        # Of one thread, since a collection of garbage may call whatever uses a set.
        self.lock = threading.RLock()
        self.kept: dict[Any, Tally] = {}
        self.used: weakref.WeakValueDictionary[Any, Tally] = weakref.WeakValueDictionary()

    def tally_of(self, place: Any, name: bytes) -> Tally:
        """Return the tally of a set, which the first to ask for it makes."""
        kept = self.kept.get((place, name))
        if kept is not None:
            return kept
        with self.lock:
            tally = self.used.get((place, name))
            if tally is None:
                tally = self.used[place, name] = Tally()
            if (place, name) not in self.kept:
                if len(self.kept) >= _KEPT:
                    del self.kept[next(iter(self.kept))]
                self.kept[place, name] = tally
            return tally

    @functools.cached_property
    def description(self) -> str:
        """The fields of the process's lines that do not change, as JSON without braces."""
        fields = {
            "host": socket.gethostname()[:64],
            "pid": os.getpid(),
            "version": _version(),
            "label": os.environ.get("REDSET_LABEL", "")[:64],
        }
        return json.dumps(fields)[1:-1]


_process = _Process()


def _begin_child() -> None:
    """Make for a forked child a name and counts."""
    global _process
    parent, _process = _process, _Process()
    _process.is_silent = parent.is_silent
    _process.used = parent.used
    for tally in list(parent.used.values()):
        due = tally.due
        tally.begin()
        if due == _NONE.due:
            tally.due = due


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_begin_child)


@functools.cache
def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("redset")
    except PackageNotFoundError:
        return ""


def process_name() -> str:
    """Return the host and the number of this process."""
    return f"{socket.gethostname()[:64]} {os.getpid()}"


def new_token() -> bytes:
    """Return a token of 16 characters: the worker's id, and 60 random bits."""
    return _process.id + base64.b64encode(os.urandom(8))[:10]


def worker_of(token: bytes) -> str | None:
    """Return the id of the worker that made a token; None without one."""
    return token[:6].decode("ascii", "replace") or None


class Reporter:
    """One object's way to the tally of its set, and what its reports say of the set."""

    __slots__ = ("_client", "_described", "_keys", "_server_of", "_wire", "tally")

    def __init__(
        self,
        wire: ModuleType,
        keys: Any,
        client: Any,
        server_of: Callable[[Any], Any],
        described: tuple[str, Any, SetOptions, Any, Any],
    ) -> None:
        self._wire, self._keys, self._client = wire, keys, client
        self._server_of = server_of
        #: The arguments of `entry_of`.
        self._described = described
        self.tally = _NONE

    def begin(self) -> None:
        """Take part in the reports from now on: the object adds, or consumes."""
        if self.tally is _NONE and not _process.is_silent and self._keys.prefix is not None:
            self.tally = _process.tally_of(self._server_of(self._client), self._keys.name)

    def consume(self) -> None:
        """Note that a consumer asks for items."""
        if self.tally is _NONE:
            self.begin()
        if self.tally is not _NONE:  # others share it
            self.tally.consumes = True

    def count(self, kind: int, num: int) -> None:
        """Count what a call did."""
        if num:
            self.tally.count(kind, num)

    def count_adds(self, added: int, updated: int, refused: int) -> None:
        count = self.tally.count
        if added:
            count(ADDED, added)
        if updated:
            count(UPDATED, updated)
        if refused:
            count(REFUSED, refused)

    def count_settled(self, how: str, num: int, lost: int) -> None:
        """Count the leases that a settlement ended, and those that were lost before."""
        kind = SETTLED.get(how)
        if kind is None:  # renewed
            return
        if num:
            self.tally.count(kind, num)
        if lost:
            self.tally.count(LOST, lost)

    def note_pause(self, is_paused: bool) -> None:
        """Note that this object paused or resumed its set."""
        if self.tally is not _NONE:  # others share it
            self.tally.paused = is_paused

    def forget(self) -> bool:
        """Forget all counts, of a set that is cleared. Return whether the process reports."""
        tally = self.tally
        if tally is _NONE:
            return not _process.is_silent
        with tally.lock:
            counts = tally.counts[:]
            tally.sent = counts
            tally.forgotten += tally.held(counts)
            tally.entered = -ENTERED_FOR
        return not _process.is_silent

    @property
    def is_new(self) -> bool:
        """Whether the set is not registered yet, and something is new."""
        tally = self.tally
        return tally.reports < 2 and tally is not _NONE and tally.counts != tally.sent

    def ride(self, at_once: bool = False) -> list[Rider]:
        """Return the requests that report, if a report is due, or ``at_once`` if it has news."""
        tally, now = self.tally, monotonic()
        if tally is _NONE or _process.is_silent:
            tally.due = _NONE.due
            return []
        with tally.lock:
            if tally.due > now and not at_once:
                return []  # another thread was first
            tally.due = now + EVERY
            counts = tally.counts[:]  # other threads go on counting
            changes = [
                (at, num - sent)
                for at, (num, sent) in enumerate(zip(counts, tally.sent, strict=True))
                if num != sent
            ]
            idles = tally.consumes and now - tally.heard >= IDLE
            if not (changes or ((idles or not tally.reports) and not at_once)):
                return []
            tally.sent = counts[:]  # a refusal of the report changes it
            consumes, tally.consumes = tally.consumes, False
            enters = bool(tally.reports and changes) and now - tally.entered >= ENTERED_FOR
            if enters:
                tally.entered = now
            # The step looks at old lines, and begins the keys' time again.
            looks = now - tally.heard >= REFUSED_FOR or now - tally.looked >= ENTERED_FOR
            if looks:
                tally.looked = now
            tally.heard = now
            tally.reports += 1
        riders = self._report(tally, changes, consumes, looks, counts)
        if enters:
            riders.append(self._entry(tally))
        return riders

    def _report(
        self,
        tally: Tally,
        changes: list[tuple[int, int]],
        consumes: bool,
        looks: bool,
        counts: list[int],
    ) -> list[Rider]:
        process, step = _process, script("report")
        held = max(tally.held(counts), 0)
        state = {"held": held, "done": counts[ACKED], "failed": counts[FAILED]}
        produces = any(at <= BAD for at, _ in changes)
        arguments = {
            "worker": process.id,
            "line": json.dumps(state)[1:-1] + ", " + process.description + "}",
            "age": int(monotonic() - process.began),
            "produces": produces,
            "consumes": consumes or any(at > BAD for at, _ in changes),
            "limit": OLD if looks else 0,
        }
        fields = [(FIELDS[at], num) for at, num in changes]
        if tally.plain:
            return self._plain(tally, commands_of(self._keys, arguments, fields))
        names = [self._keys.counts, self._keys.none, self._keys.workers, self._keys.paused]
        pairs = [value for field in fields for value in field]
        values = step.arguments.values(arguments)
        request = [b"EVALSHA", step.sha, len(names), *names, *values, *pairs]

        def done(answer: Any) -> None:
            if not isinstance(answer, Exception):
                if isinstance(answer, (list, tuple)) and len(answer) == 2:
                    tally.paused = bool(answer[0])
                    if answer[1] == 1 and tally.reports > 1:
                        tally.entered = -ENTERED_FOR  # the set was cleared, and is not registered
            elif _is_refused(answer, tally):
                with tally.lock:
                    for at, num in changes:
                        tally.sent[at] -= num

        return [Rider(self._wire.encode(request), step, done)]

    def _plain(self, tally: Tally, commands: list[list[Any]]) -> list[Rider]:
        """Return a report as plain commands."""

        def ignore(answer: Any) -> None:
            pass

        def note(answer: Any) -> None:
            tally.paused = bool(answer) and not isinstance(answer, Exception)

        *rest, last = map(self._wire.encode, commands)
        return [*(Rider(each, None, ignore) for each in rest), Rider(last, None, note)]

    def _entry(self, tally: Tally) -> Rider:
        step = None if tally.plain else script("register")
        text, name = json.dumps(entry_of(*self._described))[1:], self._keys.name
        if step is None:
            request = entry_command(name, text)
        else:
            values = step.arguments.values({"name": name, "entry": text, "limit": OLD})
            request = [b"EVALSHA", step.sha, 1, *step.keys_given({"registry": REGISTRY}), *values]

        def done(answer: Any) -> None:
            if isinstance(answer, Exception):
                _log_unregistered(name, answer)

        return Rider(self._wire.encode(request), step, done)


def entry_of(
    kind: str, key: Any, options: SetOptions, codec: Any, group: Any = None
) -> dict[str, Any]:
    """Return the registry's entry of a set: what a stranger needs to open it."""
    # It has a warning if items are stored as text.
    serializer = codec.serializer if codec.warn is None else None
    if serializer is not None and not isinstance(serializer, ModuleType):
        serializer = type(serializer)
        serializer = f"{serializer.__module__}.{serializer.__qualname__}"
    elif serializer is not None:
        serializer = serializer.__name__
    return {
        "class": kind,
        "key": _named(key),
        **({} if group is None else _group_fields(group, options)),
        "ties": options.ties or None,
        "remember": options.memory_ttl / 1000 or (True if options.remember else None),
        "attempts": options.max_attempts or None,
        "serializer": serializer,
        "v": _version(),
    }


def _group_fields(group: Any, options: SetOptions) -> dict[str, Any]:
    return {
        "group": _named(group),
        "group_limit": options.group_limit or None,
        "group_interval": options.group_interval / 1000,
    }


def _named(fields: Any) -> Any:
    """Return the fields of ``key`` or ``group``; True for a callable, None for none."""
    return fields if fields is None or isinstance(fields, (str, tuple)) else True


def _is_refused(error: Exception, tally: Tally) -> bool:
    """Take a refusal of a report. Return whether the server performed none of it."""
    text = str(error)
    if lacks_scripts(error):
        tally.plain, tally.due = True, 0.0
        return True
    words = {word.lstrip("-") for word in text.split()}
    if "NOPERM" in words or type(error).__name__ == "NoPermissionError" or "unknown" in words:
        if not _process.is_silent:
            _process.is_silent = True
            log.info("this process reports no figures of its sets: %s", text[:200])
        return True
    is_whole = not words.isdisjoint(_UNPERFORMED) or type(error).__name__ in _CLASSES
    # The text of redis-py's class has no code.
    if "NOSCRIPT" not in words and type(error).__name__ != "NoScriptError":
        tally.due = monotonic() + REFUSED_FOR
    return is_whole


#: Classes of clients whose text has no code.
_CLASSES = ("NoScriptError", "OutOfMemoryError", "ReadOnlyError", "BusyLoadingError")
_unregistered = False


def _log_unregistered(name: bytes, error: Exception) -> None:
    """Log once that the registry is refused."""
    global _unregistered
    if not _unregistered:
        _unregistered = True
        log.info("the registry of sets is refused, so list_sets does not show %r: %s", name, error)
