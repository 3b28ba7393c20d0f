"""Metrics of the sets of a server, for Prometheus (extra ``redset[metrics]``).

Theory of operation
-------------------

Processes count what they do, and the server keeps the totals. So one collector shows all sets of a
server, and workers need no port and no library.

- A scrape is one `redset.list_sets`, which only reads. Its result serves all scrapes of a second.
- A scrape that cannot read the sets has ``redset_up 0`` and nothing else: no figure is ever stale.
- A counter of a set is the server's total. It falls only if the set is cleared, or if no process
  works on it for seven days.
- Sets above ``max_sets`` are added up in ``set="(other)"``. A set keeps its label while it is
  there.
  The counters of ``(other)`` add up increases, so they do not fall if one of these sets goes.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from redset import SetInfo, SortedSet, check_server, list_sets

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector as _Collector
except ImportError as error:
    raise ImportError(
        "redset.prometheus needs prometheus_client: pip install 'redset[metrics]'"
    ) from error

__all__ = ("Collector",)

log = logging.getLogger("redset")

#: The label of the sets above ``max_sets``.
_OTHER = "(other)"
#: Seconds for which a look serves all scrapes, and for which a check of the server does.
_FRESH, _CHECKED = 1.0, 30.0
#: Seconds for which a set's memory is good, and sets that a look measures.
_WEIGHED, _WEIGHTS = 30.0, 100
#: The characters that make a pattern of a name.
_PATTERN = re.compile(r"[*?\[\\]")

_Look = Callable[[SetInfo], "float | None"]


def _figure(name: str) -> _Look:
    return lambda info: getattr(info.figures, name)


def _of_groups(name: str) -> _Look:
    """Return a look at a figure that only sets with groups have."""
    return lambda info: getattr(info.figures, name) if (info.options or {}).get("group") else None


def _age(info: SetInfo) -> float | None:
    """Return the age of the oldest item of a set of times; 0 if nothing is queued."""
    age = None if info.figures is None else info.figures.oldest_age
    is_timed = (info.options or {}).get("class") in ("TimeSortedSet", "ScheduledSet")
    return 0.0 if age is None and is_timed else age


def _pause_of(info: SetInfo) -> float:
    return float(info.figures is not None and info.figures.paused is not None)


def _time(name: str) -> _Look:
    """Return a look at a time; 0 if a set that reports had none."""
    return lambda info: info.counts.get(name, None if info.options is None else 0)


#: Gauges of a set: the name, its help, where the value is, and what adds up those of several sets.
_GAUGES: tuple[tuple[str, str, _Look, Callable[[list[float]], float]], ...] = (
    ("redset_queued_items", "Queued items, due or not.", _figure("size"), sum),
    (
        "redset_available_items",
        "Queued items that a consumer would be given now; with groups, groups that may start.",
        _figure("available"),
        sum,
    ),
    (
        "redset_leased_items",
        "Items that are leased or wait out a delay.",
        _figure("leased"),
        sum,
    ),
    ("redset_late_leases", "Leases whose time is over.", _figure("late"), sum),
    ("redset_dead_items", "Dead letters.", _figure("dead"), sum),
    ("redset_remembered_items", "Items that the set remembers.", _figure("remembered"), sum),
    (
        "redset_oldest_age_seconds",
        "Age of the oldest item of a set of times; 0 if nothing is queued.",
        _age,
        max,
    ),
    ("redset_ready_groups", "Groups that may start.", _of_groups("groups_ready"), sum),
    (
        "redset_resting_groups",
        "Groups that wait for the end of an interval or a pause.",
        _of_groups("groups_resting"),
        sum,
    ),
    (
        "redset_working_groups",
        "Groups with a limit that have items in work.",
        _of_groups("groups_working"),
        sum,
    ),
    ("redset_paused", "1 if the set is paused.", _pause_of, sum),
    ("redset_workers", "Processes that reported within 90 seconds.", _figure("workers"), sum),
    (
        "redset_consumer_seen_timestamp_seconds",
        "Time of the last report of a consumer; 0 for never.",
        _time("consumer_seen"),
        max,
    ),
    (
        "redset_producer_seen_timestamp_seconds",
        "Time of the last report of a producer; 0 for never.",
        _time("producer_seen"),
        max,
    ),
)
#: Counters of a set: the name without ``_total``, its help, the count, and what it is divided by.
_COUNTERS = (
    ("redset_adds", "Items that were added.", "added", 1),
    ("redset_updates", "Adds that moved a queued item.", "updated", 1),
    ("redset_refusals", "Adds that were refused as duplicates.", "refused", 1),
    ("redset_takes", "Items that pop and take removed.", "taken", 1),
    ("redset_leases", "Leases that were handed out.", "leased", 1),
    ("redset_acks", "Leases that were acknowledged.", "acked", 1),
    ("redset_failures", "Leases that failed.", "failed", 1),
    ("redset_releases", "Leases that were released.", "released", 1),
    ("redset_expirations", "Leases that expired.", "expired", 1),
    ("redset_deaths", "Items that became dead letters.", "died", 1),
    ("redset_requeues", "Dead letters that were queued again.", "requeued", 1),
    ("redset_lost", "Leases that were lost before they were settled.", "lost", 1),
    ("redset_handler_seconds", "Time in handlers of consume.", "busy_ms", 1000),
)
_MEMORY = "redset_memory_bytes", "Server memory of the set, in bytes (--memory)."
#: Metrics without a label.
_UP = "redset_up", "1 if the last look at the sets succeeded."
_SETS = "redset_sets", "Sets that match."
_DROPPED = "redset_sets_dropped", 'Sets that only set="(other)" has.'
_WARNINGS = "redset_server_warnings", "Warnings of check_server about the server."


class Collector(_Collector):
    """Show the sets of a server to Prometheus.

    Register it with a registry of ``prometheus_client``, in any one process. It needs no workers in
    that process, and it writes nothing: a replica and a user who may only read will do.

    A scrape is one `redset.list_sets`: one round trip for the registry, and one per 100 sets. All
    scrapes of a second share it. If it fails, the scrape has ``redset_up 0`` and nothing else.

    Parameters
    ----------
    client : redis.Redis, valkey.Valkey, or any client with ``execute_command``
        The client of a set. Or a function that returns one: it is called at each scrape until it
        succeeds, for a cluster that is away.
    match : str, bytes, or list of these, optional
        Patterns of names, as the server's ``KEYS`` has them: ``crawl:*``. A name without ``*``,
        ``?``, ``[`` and a backslash is one set, which need not be registered. Default: all sets.
    max_sets : int
        Number of sets that have a label of their own. The others are added up in
        ``set="(other)"``. Default 1,000.
    memory : bool
        Also measure the server's memory for each set that has a label, with ``stats``. A value
        serves for 30 seconds, and a scrape measures at most 100 sets. Default False.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong. Nothing was sent.

    Examples
    --------
    >>> from prometheus_client import CollectorRegistry
    >>> from redset.prometheus import Collector
    >>> jobs.add_many(["a", "b"]).added
    2
    >>> metrics = CollectorRegistry()
    >>> metrics.register(Collector(r, "jobs"))
    >>> metrics.get_sample_value("redset_queued_items", {"set": "jobs"})
    2
    """

    def __init__(
        self,
        client: Any,
        match: str | bytes | Iterable[str | bytes] | None = None,
        *,
        max_sets: int = 1000,
        memory: bool = False,
    ) -> None:
        if isinstance(max_sets, bool) or not isinstance(max_sets, int):
            raise TypeError(f"max_sets must be an int, got {max_sets!r} ({_type(max_sets)})")
        if max_sets < 0:
            raise ValueError(f"max_sets must be at least 0, got {max_sets!r} (int)")
        self._patterns, self._names = _wanted(match)
        self._client = client
        self._opens = callable(client)
        if not self._opens:
            for name in self._names or ["redset"]:
                SortedSet[Any](client, name)  # refuses a wrong client and a wrong name
        self._max_sets = max_sets
        self._weighs = bool(memory)
        #: Of each set with a label, its memory, and the time until which that is good.
        self._weights: dict[str | bytes, tuple[float, int]] = {}
        self._lock = threading.Lock()
        self._families: list[Any] = []
        #: Times of `time.monotonic` until which the look and the check of the server are good.
        self._fresh_until = self._checked_until = 0.0
        self._warnings: int | None = None
        #: The sets with labels of their own.
        self._labels: dict[str | bytes, str] = {}
        #: The last counts of the others, and the counters that they add up to.
        self._others: dict[str | bytes, dict[str, int]] = {}
        self._sums = dict.fromkeys((count for _, _, count, _ in _COUNTERS), 0)
        self._is_up = True

    def describe(self) -> list[Any]:
        """Return the metrics without values: to register the collector sends nothing."""
        gauges = [GaugeMetricFamily(*each) for each in (_UP, _SETS, _DROPPED, _WARNINGS)]
        gauges += [GaugeMetricFamily(name, text) for name, text, _, _ in _GAUGES]
        gauges.append(GaugeMetricFamily(*_MEMORY))
        return gauges + [CounterMetricFamily(name, text) for name, text, _, _ in _COUNTERS]

    def collect(self) -> list[Any]:
        """Return the metrics: those of a look at the server, or of one in the last second."""
        with self._lock:
            if monotonic() >= self._fresh_until:
                self._families = self._look()
                self._fresh_until = monotonic() + _FRESH
            return self._families

    def _look(self) -> list[Any]:
        try:
            if self._opens:
                self._client, self._opens = self._client(), False
            found = [info for info in self._found() if info.figures is not None]
            own, others = self._divided(found)
            if self._weighs:
                self._weigh([info for _, info in own])
        except (TypeError, ValueError):
            raise
        except Exception as error:
            self._note(error)
            return [GaugeMetricFamily(*_UP, value=0)]
        self._note(None)
        self._check()
        self._add_up(others)
        return self._shown(own, others)

    def _note(self, error: Exception | None) -> None:
        """Log when the server is lost, and when it is back."""
        if error is not None and self._is_up:
            log.warning("cannot read the sets, redset_up is 0: %s", " ".join(str(error).split()))
        elif error is None and not self._is_up:
            log.warning("the sets can be read again, redset_up is 1")
        self._is_up = error is None

    def _found(self) -> list[SetInfo]:
        found: dict[str | bytes, SetInfo] = {}
        for pattern in self._patterns:
            found.update((info.name, info) for info in list_sets(self._client, pattern))
        missing = [name for name in self._names if _readable(name) not in found]
        if missing:
            found.update((info.name, info) for info in list_sets(self._client, missing))
        return list(found.values())

    def _check(self) -> None:
        """Count the warnings about the server now and then."""
        if monotonic() < self._checked_until:
            return
        try:
            self._warnings = len(check_server(self._client))
        except Exception:
            self._warnings = None  # of a user who may not ask
        self._checked_until = monotonic() + _CHECKED

    def _weigh(self, own: list[SetInfo]) -> None:
        """Measure the memory of the sets whose last measure is too old."""
        now = monotonic()
        self._weights = {
            info.name: self._weights[info.name] for info in own if info.name in self._weights
        }
        due = [info for info in own if self._weights.get(info.name, (0.0, 0))[0] <= now]
        due.sort(key=lambda info: self._weights.get(info.name, (0.0, 0))[0])
        for info in due[:_WEIGHTS]:
            weight = _opened(self._client, info).stats(read_only=True).memory_bytes
            self._weights[info.name] = now + _WEIGHED, weight

    def _shown(self, own: list[tuple[str, SetInfo]], others: list[SetInfo]) -> list[Any]:
        """Return the families of a look."""
        families: list[Any] = [
            GaugeMetricFamily(*_UP, value=1),
            GaugeMetricFamily(*_SETS, value=len(own) + len(others)),
            GaugeMetricFamily(*_DROPPED, value=len(others)),
        ]
        if self._warnings is not None:
            families.append(GaugeMetricFamily(*_WARNINGS, value=self._warnings))
        for name, text, value_of, combine in _GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=("set",))
            for label, info in own:
                value = value_of(info)
                if value is not None:
                    gauge.add_metric((label,), value)
            values = [value for info in others if (value := value_of(info)) is not None]
            if values:
                gauge.add_metric((_OTHER,), combine(values))
            families.append(gauge)
        if self._weighs:
            gauge = GaugeMetricFamily(*_MEMORY, labels=("set",))
            for label, info in own:
                if info.name in self._weights:
                    gauge.add_metric((label,), self._weights[info.name][1])
            families.append(gauge)
        for name, text, count, divisor in _COUNTERS:
            counter = CounterMetricFamily(name, text, labels=("set",))
            for label, info in own:
                counter.add_metric((label,), info.counts.get(count, 0) / divisor)
            if others:
                counter.add_metric((_OTHER,), self._sums[count] / divisor)
            families.append(counter)
        return families

    def _divided(self, found: list[SetInfo]) -> tuple[list[tuple[str, SetInfo]], list[SetInfo]]:
        """Divide the sets into those with a label of their own, and the others."""
        names = {info.name for info in found}
        self._labels = {name: label for name, label in self._labels.items() if name in names}
        used = {_OTHER, *self._labels.values()}
        own, others = [], []
        for info in found:
            label = self._labels.get(info.name)
            if label is None:
                label = _label(info.name)
                if label in used or len(self._labels) >= self._max_sets:
                    others.append(info)
                    continue
                used.add(label)
                self._labels[info.name] = label
            own.append((label, info))
        return own, others

    def _add_up(self, others: list[SetInfo]) -> None:
        """Add to the counters of the others what they did since the last look."""
        for info in others:
            before = self._others.get(info.name, {})
            for count in self._sums:
                num, old = info.counts.get(count, 0), before.get(count, 0)
                self._sums[count] += num - old if num >= old else num
        self._others = {info.name: info.counts for info in others}


def _opened(client: Any, info: SetInfo) -> SortedSet[Any]:
    """Return a set with the options that say which keys it has."""
    options = info.options or {}
    made: dict[str, Any] = {name: options.get(name) for name in ("remember", "ties")}
    if options.get("key"):
        made["key"] = str  # any one: no item is read
    return SortedSet(client, info.name, **made)


def _label(name: str | bytes) -> str:
    return name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name


def _readable(name: str | bytes) -> str | bytes:
    """Return a name as `list_sets` does: bytes only if it is not UTF-8."""
    try:
        return name.decode() if isinstance(name, bytes) else name
    except UnicodeDecodeError:
        return name


def _type(value: object) -> str:
    return type(value).__name__


def _wanted(match: Any) -> tuple[list[str | bytes | None], list[str | bytes]]:
    """Return the patterns of names, and the names."""
    if match is None:
        return [None], []
    each_of = [match] if isinstance(match, (str, bytes)) else match
    if isinstance(each_of, dict) or not hasattr(each_of, "__iter__"):
        raise TypeError(f"match must be a pattern or a list of patterns, got {_type(match)}")
    patterns: list[str | bytes | None] = []
    names: list[str | bytes] = []
    for each in each_of:
        if not isinstance(each, (str, bytes)):
            raise TypeError(f"match must have patterns, str or bytes, got {each!r} ({_type(each)})")
        if not each:
            raise ValueError(f"match must not be empty, got {each!r} ({_type(each)})")
        text = each.decode("latin-1") if isinstance(each, bytes) else each
        (patterns if _PATTERN.search(text) else names).append(each)
    return patterns, names
