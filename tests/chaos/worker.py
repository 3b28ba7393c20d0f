"""The work of the processes: add, lease and settle at random, and write it down."""

from __future__ import annotations

import contextlib
import os
import random
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import blocking
import cluster
import redis
import redis.asyncio
import redis.asyncio.retry
import servers
from model import Json, Text
from redis.backoff import ConstantBackoff
from redis.retry import Retry

import redset
from chaos.history import Recorder
from redset import ScheduledSet, SortedSet, _wire
from redset.exceptions import RedsetError

#: The errors that a call may raise.
ERRORS: tuple[type[Exception], ...] = (redis.RedisError, RedsetError, OSError)
with contextlib.suppress(ImportError):
    import valkey

    ERRORS += (valkey.ValkeyError,)
#: The options that a set may have.
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "keyed": {"key": "url"},
    "remembering": {"remember": True},
    "keyed, remembering": {"key": "url", "remember": True},
    "tied": {"ties": "fifo"},
}
#: Those of a grouped set.
OPTIONS_OF_GROUPS: dict[str, dict[str, Any]] = {
    name: {"key": "url", "group": "host", **own}
    for name, own in {
        "one in work": {"group_limit": 1},
        "three in work": {"group_limit": 3, "remember": True},
        "one in work, 4 ms": {"group_limit": 1, "group_interval": 0.004},
        "three in work, 4 ms": {"group_limit": 3, "group_interval": 0.004},
        "two in work, 3 ms": {"group_limit": 2, "group_interval": 0.003},
        "2 ms": {"group_limit": None, "group_interval": 0.002},
        "two in work, tied": {"group_limit": 2, "ties": "fifo"},
    }.items()
}
#: Small groups, besides those that have limits of their own and a huge one.
GROUPS = 40
#: Options that keep a memory of one size; not for the checker.
OPTIONS_OF_A_SOAK: dict[str, dict[str, Any]] = {
    "keyed, for a while": {"key": "url", "remember": 5},
}
#: The names that every producer of a set that remembers offers.
COMMON = 300


class Work(NamedTuple):
    """The task of a process, and its time limit."""

    role: str
    name: str
    directory: str
    seed: int
    #: A unix socket's path, or a loopback port.
    address: str | int
    #: Whether that is the port of a node of a cluster.
    cluster: bool = False
    options: str = "plain"
    scheduled: bool = False
    ttl: float = 0.5
    #: The client's limit for a reply, in seconds.
    timeout: float = 0.5
    max_attempts: int = 4
    #: How many pages a crawl has.
    pages: int = 0
    #: Hours that this process's clock is ahead.
    ahead: float = 0.0
    #: How many items a producer finds enough for now.
    plenty: int = 1500
    #: How many items it offers in a call.
    sizes: tuple[int, ...] = (1, 3, 20, 60)
    #: Characters that each item has besides.
    padding: int = 0
    #: The longest pause between two calls, in seconds.
    pause: float = 0.004
    seconds: float = 600.0
    #: Only operations that end the present work.
    draining: bool = False
    #: Whether the client sends again, and whose sets are used; drawn from the seed.
    exact: bool | None = None
    awaited: bool | None = None
    #: The file whose existence ends a process. (A signal may come before the process is ready.)
    end: str = ""


def options_of(name: str) -> dict[str, Any]:
    return {**OPTIONS, **OPTIONS_OF_GROUPS, **OPTIONS_OF_A_SOAK}[name]


def implementation(name: str) -> ModuleType:
    """One of redset's implementations; the fallback if the core is not built."""
    try:
        return _wire.load(name)
    except ImportError:
        return _wire.load("python")


def score_of(name: str) -> float:
    return zlib.crc32(name.encode()) % 1000


def links_of(page: str, pages: int) -> list[str]:
    """The links of a page: every page but 1 is linked from the one of half its number."""
    number = int(page)
    pick = random.Random(number)
    linked = [2 * number, 2 * number + 1, *(pick.randrange(1, pages + 1) for _ in range(4))]
    return [str(each) for each in linked if each <= pages]


class Worker:
    """One process's work, and its observed results."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.pick = random.Random(work.seed)
        self.options = options_of(work.options)
        self.grouped = "group" in self.options
        self.known, self.keyed = "remember" in self.options, "key" in self.options
        exact = self.pick.random() < 0.6 if work.exact is None else work.exact
        # Calls to a cluster are sent again, whatever the client's retries are.
        exact = exact and not work.cluster
        awaited = self.pick.random() < 0.25 if work.awaited is None else work.awaited
        wire = implementation(self.pick.choice(["cython", "cython", "python"]))
        self.exact, self.awaited = exact, awaited
        #: The scores of items that an acknowledgement adds, if they are times.
        self.due: dict[str, float] = {}
        self.set = self._made(exact, awaited, wire)
        self.codec = Json if self.keyed else Text
        path = Path(work.directory, f"{work.name}.jsonl") if work.directory else os.devnull
        self.record = Recorder(path, exact)
        self.count = 0
        self.plenty = False

    def _made(self, exact: bool, awaited: bool, wire: Any) -> Any:
        work = self.work
        retries, backoff = 0 if exact else 3, ConstantBackoff(0.05)
        where: dict[str, Any] = (
            {"unix_socket_path": work.address}
            if isinstance(work.address, str)
            else {"host": "127.0.0.1", "port": work.address}
        )
        where |= {"socket_timeout": work.timeout, "protocol": self.pick.choice([2, 3])}
        before, _wire.DEFAULT = _wire.DEFAULT, wire
        try:
            cls = ScheduledSet if work.scheduled else SortedSet
            options = {**self.options, "max_attempts": work.max_attempts}
            if work.cluster:
                return self._on_a_cluster(cls, awaited, where, options)
            if awaited:
                retry: Any = redis.asyncio.retry.Retry(backoff, retries)
                client: Any = redis.asyncio.Redis(retry=retry, **where)
                return blocking.BlockingSet(cls, client, "jobs", self._scored, **options)
            client = redis.Redis(retry=Retry(backoff, retries), **where)
            return cls(client, "jobs", self._scored, **options)
        finally:
            _wire.DEFAULT = before

    def _on_a_cluster(
        self, cls: Any, awaited: bool, where: dict[str, Any], options: dict[str, Any]
    ) -> Any:
        library = self.pick.choice(["redis", "redis", "valkey"])
        try:
            kind = cluster.client_class(library, awaited)
        except servers.Missing:
            kind = cluster.client_class("redis", awaited)
        client = kind(**where)
        if awaited:
            return blocking.BlockingSet(cls, client, "jobs", self._scored, **options)
        return cls(client, "jobs", self._scored, **options)

    def close(self) -> None:
        client = self.set.redis
        if not self.awaited:
            client.close()
        else:
            blocking.wait(servers.aclose(client))
        self.record.close()

    # Names and items.

    def item(self, name: str) -> Any:
        text = "x" * self.work.padding
        if self.grouped:
            return {"url": name, "host": self._host(name), "text": text}
        if self.keyed:
            return {"url": name, "text": text}
        return f"{name}|{text}" if text else name

    def _host(self, name: str) -> str:
        """Return an item's group. Those that move have another one at each add."""
        host, _, rest = name.rpartition("~")
        if host and host != "moved":
            return host
        number = self.pick.randrange(GROUPS) if host else zlib.crc32(rest.encode()) % GROUPS
        return f"h{number}"

    def _name_of_a_group(self) -> str:
        """Draw the begin of a name: many are of one group, few of a slow one."""
        if self.pick.random() < 0.05:
            return "moved~"
        host = self.pick.choices(["huge", "wide", "free", "slow"], [30, 20, 10, 0.4])[0]
        return (host if self.pick.random() < 0.6 else f"h{self.pick.randrange(GROUPS)}") + "~"

    def name(self, item: Any) -> str:
        return str(item["url"]) if self.keyed else str(item).split("|")[0]

    def _scored(self, item: Any) -> float:
        name = self.name(item)
        return self.due[name] if self.work.scheduled else score_of(name)

    def score(self, name: str) -> float:
        """Draw the score to add it at."""
        if not self.work.scheduled:
            return score_of(name)
        # Of a clock that is right.
        real = time.clock_gettime(time.CLOCK_REALTIME)
        return round(real + self.pick.random() * 0.3, 3)

    def fresh(self, num: int) -> list[list[Any]]:
        """Return new names, or with a memory also others, and their scores."""
        names = []
        for _ in range(num):
            self.count += 1
            if self.known and self.pick.random() < 0.5:
                names.append(f"common-{self.pick.randrange(COMMON)}")
            else:
                of = self._name_of_a_group() if self.grouped else ""
                of, own = (of, self.pick.randrange(60)) if of == "moved~" else (of, self.count)
                names.append(f"{of}{'' if of == 'moved~' else self.work.name}-{own}")
        return [[name, self.score(name)] for name in dict.fromkeys(names)]

    # One operation, written down.

    def does(self, do: str, call: Callable[[], dict[str, Any]], **what: Any) -> int:
        """Perform a call; return its number in the history, 0 if it failed."""
        number = self.record.begin(do, **what)
        try:
            result = call()
        except ERRORS as error:
            self.record.end(number, error=f"{type(error).__name__}: {error}"[:200])
            time.sleep(0.02)
            return 0
        self.record.end(number, **result)
        return number

    def offer(self, rows: list[list[Any]]) -> int:
        """Add names at their scores."""
        items, scores = [self.item(name) for name, _ in rows], [score for _, score in rows]
        return self.does("add", lambda: self.set.add_many(items, scores)._asdict(), items=rows)

    def step(self) -> bool:
        """Do something; whether there was anything to do."""
        return bool(getattr(self, f"_{self.work.role}")())

    def loop(self, parent: int = 0) -> None:
        end = time.monotonic() + self.work.seconds
        while time.monotonic() < end and parent in (0, os.getppid()):
            if self.work.end and os.path.exists(self.work.end):
                return
            if self.step():
                time.sleep(self.pick.random() * self.work.pause)
            else:
                time.sleep(0.01)

    # The roles.

    def _producer(self) -> bool:
        # Until it is less, where it was plenty; else it looks from time to time.
        if self.plenty or self.pick.random() < 0.1:
            try:
                self.plenty = self.set.size() > self.work.plenty
            except ERRORS:
                self.plenty = False
            if self.plenty:
                return False
        rows = self.fresh(self.pick.choice(self.work.sizes))
        items, scores = [self.item(name) for name, _ in rows], [score for _, score in rows]
        names = [name for name, _ in rows]
        how = self.pick.choice(["one", "many", "many", "new"])
        nx = self.pick.random() < 0.2

        def call() -> dict[str, Any]:
            if how == "one":
                accepted = self.set.add(items[0], scores[0], nx=nx)
                return {"accepted": names[:1] if accepted is not None else []}
            if how == "new":
                found = list(self.set.add_new(items, scores, nx=nx))
                # Items that are not among them were perhaps updated.
                return {"accepted": [self.name(item) for item in found], "others": None}
            result = self.set.add_many(items, scores, nx=nx)
            told: dict[str, Any] = result._asdict()
            return {**told, "accepted": names} if result.added == len(names) else told

        self.does("add", call, items=rows[:1] if how == "one" else rows)
        return True

    def _forgetter(self) -> bool:
        names = [f"common-{self.pick.randrange(COMMON)}" for _ in range(3)]
        items = [self.item(name) for name in names]
        self.does("forget", lambda: {"known": self.set.forget_many(items)}, items=names)
        time.sleep(0.02)
        return True

    def _lease(self, num: int) -> tuple[int, Any]:
        batch: list[Any] = []
        ttl = self.work.ttl

        def call() -> dict[str, Any]:
            batch.append(self.set.lease(num, ttl))
            rows = [
                [self.name(each.item), each.score, each.attempts, each.expires] for each in batch[0]
            ]
            return {"leases": rows}

        number = self.does("lease", call, num=num, ttl=ttl)
        return (number, batch[0]) if number else (0, None)

    def _settle(self, how: str, number: int, leases: list[Any], **what: Any) -> None:
        """Settle leases of the call of that number in one way."""
        s = self.set
        names = [self.name(each.item) for each in leases]
        offered = what.pop("found", [])
        if offered:
            what["add"], self.due = offered, dict(offered)

        def call() -> dict[str, Any]:
            if how == "ack" and offered:
                ours = s.ack(leases, [self.item(name) for name, _ in offered])
            elif how == "fail":
                ours = s.fail(leases, "no", self.pick.choice([0, 0, 0.05]))
            elif how == "release":
                ours = s.release(leases, self.pick.choice([0, 0, 0.05]), what.get("score"))
            elif how == "renew":
                ours = s.renew(leases, what["ttl"])
            else:
                ours = s.ack(leases)
            return {"ours": ours}

        groups = {how: [[number, name] for name in names]}
        self.does(how, call, groups=groups, **what)

    def _consumer(self) -> bool:
        most = 100 if self.work.draining and self.work.cluster else 20
        number, batch = self._lease(self.pick.choice([1, 1, 4, most]))
        if not number or not len(batch):
            return False
        pick, leases = self.pick, list(batch)
        if self.work.draining:
            self._settle("ack", number, leases)
            return True
        how = pick.choices(
            ["ack", "one by one", "found", "batch", "fail", "release", "move", "renew", "drop"]
            + ["rest"] * self.grouped,
            [6, 4, 4, 4, 2, 2, 1, 2, 1] + [1] * self.grouped,
        )[0]
        time.sleep(pick.random() * self.work.pause)
        if how == "one by one":
            for lease in leases:
                each = pick.choice(["ack", "ack", "ack", "fail", "release"])
                self._settle(each, number, [lease])
        elif how == "found":
            found = []
            for lease in leases:
                name = self.name(lease.item)
                # Found items find no others, and those of a set that forgets are found once.
                if "." not in name and (self.known or lease.attempts == 0):
                    found += [f"{name}.{n}" for n in range(pick.choice([1, 2, 5]))]
            rows = [[name, self.score(name)] for name in found]
            self._settle("ack", number, leases, found=rows)
        elif how == "batch":
            self._leave(number, batch)
        elif how == "move":
            score = 500.0 + pick.randrange(100)
            score = self.score("") if self.work.scheduled else score
            self._settle("release", number, leases, score=score)
        elif how == "rest":
            self._rest(number, leases)
        elif how == "renew":
            self._settle("renew", number, leases, ttl=self.work.ttl * pick.choice([0.5, 1, 2]))
            self._settle("ack", number, leases)
        elif how != "drop":
            self._settle(how, number, leases)
        return True

    def _rest(self, number: int, leases: list[Any]) -> None:
        """Give leases back, and let their groups rest as long."""
        how, delay = self.pick.choice(["fail", "release"]), self.pick.choice([0.02, 0.1])

        def call() -> dict[str, Any]:
            if how == "fail":
                return {"ours": self.set.fail(leases, "no", delay, group=True)}
            return {"ours": self.set.release(leases, delay, group=True)}

        groups = {how: [[number, self.name(each.item)] for each in leases]}
        self.does(how, call, groups=groups, rest=[[each.group for each in leases], delay])

    def _meddler(self) -> bool:
        """Pause groups, and discard what is queued or leased."""
        s, what = self.set, self.pick.choice(["pause", "pause", "queued", "leased"])
        time.sleep(0.02)
        if what == "pause":
            host = self.pick.choice(["huge", "wide", f"h{self.pick.randrange(GROUPS)}"])

            def pause() -> dict[str, Any]:
                s.pause_group(host, 0.08)
                return {}

            self.does("pause", pause, rest=[[host], 0.08])
            return True
        try:
            found = s.peek_many(3) if what == "queued" else [row[0] for row in s.leased()][:2]
        except ERRORS:
            return False
        if found:
            names = [self.name(item) for item in found]
            self.does("discard", lambda: {"gone": s.discard_many(found)}, items=names)
        return True

    def _leave(self, number: int, batch: Any) -> None:
        """Settle a batch by iteration: so many are done, the next one fails or is given back."""
        names = [[number, self.name(each.item)] for each in batch]
        stop = self.pick.randrange(len(names) + 1)
        failing = self.pick.random() < 0.3 and stop < len(names)
        groups = {"ack": names[:stop], "release": names[stop + failing :]}
        groups |= {"fail": names[stop : stop + 1]} if failing else {}

        def call() -> dict[str, Any]:
            try:
                with batch:
                    for place, _ in enumerate(batch):
                        if place == stop:
                            if failing:
                                raise redset.Retry(0)
                            break
            except redset.Retry:
                # Its own goes before one of the settlement, which is then only in the log.
                if not all(lease.settled for lease in batch._leases):
                    raise redis.RedisError("not settled") from None
            # The losses of an operation that was sent twice are unknown.
            return {"ours": len(names) - batch.lost if self.exact else -1}

        self.does("leave", call, groups=groups)

    def _crawler(self) -> bool:
        number, batch = self._lease(self.pick.choice([1, 3, 10]))
        if not number or not len(batch):
            return False
        for lease in batch:
            name = self.name(lease.item)
            links = [[link, score_of(link)] for link in links_of(name, self.work.pages)]
            if self.work.draining or self.work.seed % 2:
                self._settle("ack", number, [lease], found=links)
                continue
            # Offered before it is acknowledged: two steps.
            if not links or self.offer(links):
                self._settle("ack", number, [lease])
            time.sleep(self.pick.random() * self.work.pause)
        return True


def work(what: Work) -> None:
    """Work until the file appears, or until the parent is gone."""
    parent = os.getppid()
    if what.ahead:
        real = time.time
        time.time = lambda: real() + what.ahead * 3600
    Worker(what).loop(parent)
