"""A polite crawl of many hosts, checked from the log of the hosts."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from redset import SortedSet
from redset.demo.crawl import Crew
from redset.demo.site import Site
from redset.demo.worker import Job, Shared, begun, fetch, links

__all__ = ("Hosts", "HostsReport", "Visit", "check", "crawl", "summary")

#: Requests to a host at a time, and the time between the starts of two, in seconds.
LIMIT, INTERVAL = 2, 0.1
#: Time of a lease in seconds. A killed worker keeps its slots for that time.
TTL = 2.0
#: Pages of the largest host and of each other one, and their number.
HUGE, SMALL, HOSTS = 60, 8, 20
#: Time that a host needs for a page, in seconds; the last host is slow.
LATENCY, SLOW = 0.03, 0.15
#: Hand-outs that the live view shows.
_STRIP = 60
#: Differences of two rounded times, in seconds.
_ROUNDING = 0.002


class Visit(NamedTuple):
    """A request in the log of a host. Times are in seconds; ``handed_out`` is the server's clock.

    ``end`` is None while the request is answered.
    """

    host: str
    worker: str
    handed_out: float
    begin: float
    end: float | None


class HostsReport(NamedTuple):
    """A crawl of many hosts in figures. Gaps are in seconds."""

    pages: int
    hosts: int
    workers: int
    seconds: float
    killed: int | None
    smallest_gap: float
    most_at_once: int
    twice: list[str]
    problems: list[str]


class Hosts(Site):
    """Hosts of which the first is huge and the last is slow. They keep a log of their requests.

    Examples
    --------
    >>> hosts = Hosts.of_many()
    >>> len(hosts.names), len(hosts.links)
    (20, 212)
    """

    def __init__(self, links: dict[str, list[str]]) -> None:
        super().__init__(links)
        self.names = list(dict.fromkeys(urlsplit(url).netloc for url in links))
        self.log: list[Visit] = []

    @classmethod
    def of_many(cls, hosts: int = HOSTS, huge: int = HUGE, small: int = SMALL) -> Hosts:
        """Return so many hosts: the first page links to all, and each page to two of its host."""
        names = [f"host-{chr(97 + number)}.example" for number in range(hosts)]
        found: dict[str, list[str]] = {}
        for name in names:
            pages = huge if name == names[0] else small
            urls = [f"https://{name}/{number}" for number in range(pages)]
            for number, url in enumerate(urls):
                found[url] = urls[2 * number + 1 : 2 * number + 3]
        first = next(iter(found))
        found[first] += [f"https://{name}/0" for name in names[1:]]
        return cls(found)

    def get(self, url: str, worker: str = "") -> str | None:
        """Log a request, and return the page after the host's latency."""
        number, _, handed_out = worker.partition(" ")
        host = urlsplit(url).netloc
        visit = Visit(host, number, float(handed_out or 0), time.monotonic(), None)
        with self._lock:
            place = len(self.log)
            self.log.append(visit)
        time.sleep(SLOW if host == self.names[-1] else LATENCY)
        page = super().get(url, number)
        with self._lock:
            self.log[place] = visit._replace(end=time.monotonic())
        return page


def open_hosts(client: Any, name: str) -> SortedSet[Any]:
    """Open the set of pages, whose groups are their hosts."""
    return SortedSet(
        client,
        name,
        key="url",
        remember=True,
        scorer="depth",
        group="host",
        group_limit=LIMIT,
        group_interval=INTERVAL,
    )


def work(worker: int, job: Job, shared: Shared) -> None:
    """Crawl until nothing is queued or leased, or until the parent stops the crawl."""
    with begun(job, shared, open_hosts) as (queue, site, stop):
        while not stop.is_set() and not queue.finished():
            for lease in queue.lease(1, ttl=TTL, wait=0.2):
                url, depth = lease.item["url"], lease.item["depth"]
                body = fetch(site, url, f"{worker} {lease.expires - TTL:.3f}") or b""
                found = [item_of(link, depth + 1) for link in links(body, url)]
                queue.ack([lease], found)
                shared.count(worker, pages=1, offered=len(found))


def item_of(url: str, depth: int) -> dict[str, Any]:
    """Return the item of a page.

    Examples
    --------
    >>> item_of("https://a.example/1", 2)
    {'url': 'https://a.example/1', 'host': 'a.example', 'depth': 2}
    """
    return {"url": url, "host": urlsplit(url).netloc, "depth": depth}


def crawl(client: Any, url: str, name: str, hosts: Hosts, workers: int, kill: bool) -> HostsReport:
    """Crawl the hosts with so many worker processes, and return a report.

    Parameters
    ----------
    client : redis.Redis
        The server, for this process.
    url : str
        The same server, for the workers.
    name : str
        An unused name for the set. Its keys are removed at the end.
    hosts : Hosts
        The hosts. They must be new.
    workers : int
        Number of processes.
    kill : bool
        Whether a worker is killed after a third of the pages, and another one takes its place.
    """
    queue = open_hosts(client, name)
    killed = None
    try:
        with hosts.served() as port, _view(hosts) as show:
            crew = Crew(Job(url, name, "", port), workers, work)
            with crew.working():
                queue.add(item_of(hosts.start, 0))
                began = time.perf_counter()
                crew.shared.begin()
                while crew.wait():
                    if kill and killed is None and 3 * len(hosts.log) > len(hosts.links):
                        killed = crew.kill_one()
                    show()
                seconds = time.perf_counter() - began
        twice, problems = check(hosts, killed)
        if not queue.finished() or queue.dead.size():
            problems.append("pages are left in the set")
        log = hosts.log
        return HostsReport(
            len(set(hosts.requests)),
            len(hosts.names),
            workers,
            seconds,
            killed,
            min(gaps(log), default=0.0),
            max(at_once(log).values(), default=0),
            twice,
            problems,
        )
    finally:
        queue.clear()


# --- the check


def gaps(log: Sequence[Visit]) -> Iterator[float]:
    """Yield the time between the hand-outs of each two visits in a row to one host.

    Examples
    --------
    >>> log = [Visit("a", "0", at, at, at) for at in (2.0, 1.0, 5.0)]
    >>> list(gaps(log))
    [1.0, 3.0]
    """
    starts: defaultdict[str, list[float]] = defaultdict(list)
    for visit in log:
        starts[visit.host].append(visit.handed_out)
    for times in starts.values():
        times.sort()
        yield from (after - before for before, after in itertools.pairwise(times))


def at_once(log: Sequence[Visit]) -> Counter[str]:
    """Return the most requests that each host answered at a time.

    Examples
    --------
    >>> at_once([Visit("a", "0", 0, 1.0, 2.0), Visit("a", "1", 0, 1.5, 3.0)])
    Counter({'a': 2})
    """
    most: Counter[str] = Counter()
    now: Counter[str] = Counter()
    events = [(visit.begin, 1, visit.host) for visit in log]
    events += [(visit.end, -1, visit.host) for visit in log if visit.end is not None]
    for _, change, host in sorted(events):
        now[host] += change
        most[host] = max(most[host], now[host])
    return most


def check(hosts: Hosts, killed: int | None) -> tuple[list[str], list[str]]:
    """Return the pages that were fetched twice as they may be, and the problems of a crawl."""
    twice, problems = [], []
    for page in hosts.links:
        times = hosts.requests[page]
        if times == 2 and hosts.workers[page][0] == str(killed):
            twice.append(page)
        elif times != 1:
            problems.append(f"{page} was fetched {times} times")
    smallest = min(gaps(hosts.log), default=INTERVAL)
    if smallest < INTERVAL - _ROUNDING:
        problems.append(f"a host was visited again after {smallest:.3f} s, not {INTERVAL} s")
    for host, most in at_once(hosts.log).items():
        if most > LIMIT:
            problems.append(f"{host} had {most} requests at a time, not {LIMIT}")
    return twice, problems


# --- the view


def letters(hosts: Hosts) -> dict[str, str]:
    """Return a letter for each host."""
    return {name: chr(97 + number) for number, name in enumerate(hosts.names)}


def strip(hosts: Hosts) -> str:
    """Return the last turns, a letter of a host for each."""
    names = letters(hosts)
    return "".join(names[visit.host] for visit in list(hosts.log)[-_STRIP:])


@contextlib.contextmanager
def _view(hosts: Hosts) -> Iterator[Callable[[], None]]:
    """Show the hosts: yield a function to call from time to time.

    It is a table if the standard output is a terminal, else a line a second.
    """
    if sys.stdout.isatty():
        from rich.live import Live

        with Live(transient=True, auto_refresh=False) as live:
            yield lambda: live.update(_table(hosts), refresh=True)
    else:
        yield _lines(hosts)


def _lines(hosts: Hosts) -> Callable[[], None]:
    last = time.monotonic()

    def show() -> None:
        nonlocal last
        if time.monotonic() - last >= 1:
            last = time.monotonic()
            done = len(hosts.requests)
            print(f"{done:>5} of {len(hosts.links)} pages  turns {strip(hosts)}", flush=True)

    return show


def _table(hosts: Hosts) -> Any:
    from rich.table import Table

    log, now = list(hosts.log), time.monotonic()
    done, running = Counter(visit.host for visit in log), Counter[str]()
    last: dict[str, float] = {}
    for visit in log:
        running[visit.host] += visit.end is None
        last[visit.host] = visit.begin
    every = Counter(urlsplit(url).netloc for url in hosts.links)
    table = Table(box=None, caption=f"turns  {strip(hosts)}", caption_justify="left")
    for title in ("", "host", "pages", "in work", ""):
        table.add_column(title)
    for name, letter in letters(hosts).items():
        share = min(done[name], every[name]) * 20 // every[name]
        rests = name in last and now - last[name] < INTERVAL
        state = "resting" if rests else "" if done[name] < every[name] else "done"
        bar = "█" * share + "░" * (20 - share)
        pages = f"{bar} {done[name]} of {every[name]}"
        table.add_row(letter, name, pages, "●" * running[name], state)
    return table


def summary(report: HostsReport) -> str:
    """Write a report as a few lines."""
    killed = "none" if report.killed is None else f"worker {report.killed + 1} killed"
    rows = {
        "pages fetched": f"{report.pages:,} of {report.hosts} hosts",
        "time": f"{report.seconds:.1f} s, {report.workers} workers",
        "smallest gap": f"{1000 * report.smallest_gap:.0f} ms (at least {1000 * INTERVAL:.0f})",
        "most at a time": f"{report.most_at_once} (at most {LIMIT})",
        "faults": killed,
        "fetched twice": f"{len(report.twice):,}",
    }
    return "\n".join(f"{label:<18}  {text}" for label, text in rows.items())
