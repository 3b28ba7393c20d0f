"""Display of the demo: progress while it runs, and a summary."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from redset.demo.crawl import Report
from redset.demo.worker import Tally

__all__ = ("lines", "progress", "summary")

_LINE_INTERVAL = 1.0  # seconds between two lines without a terminal


@contextlib.contextmanager
def progress(pages: int) -> Iterator[Callable[[Tally], None]]:
    """Show progress towards so many pages: yield a function to call with each new tally.

    It is a bar if the standard output is a terminal, else a line a second.
    """
    if sys.stdout.isatty():
        with _bar(pages) as show:
            yield show
    else:
        yield lines(pages)


@contextlib.contextmanager
def _bar(pages: int) -> Iterator[Callable[[Tally], None]]:
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("crawling"),
        BarColumn(),
        TextColumn("{task.completed} of {task.total} pages  {task.description}"),
    )
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("", total=pages)

        def show(tally: Tally) -> None:
            bar.update(task, completed=tally.pages, description=_links(tally))

        yield show


def lines(pages: int) -> Callable[[Tally], None]:
    """Return a function that prints a tally, at most once a second."""
    last = time.monotonic() - _LINE_INTERVAL

    def show(tally: Tally) -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_INTERVAL:
            last = time.monotonic()
            print(f"{tally.pages:>5} of {pages} pages  {_links(tally)}", flush=True)

    return show


def _links(tally: Tally) -> str:
    return f"{tally.offered:,} links offered"


def summary(report: Report) -> str:
    """Write a report as a few lines.

    Examples
    --------
    >>> struck = ["server restarted"]
    >>> print(summary(Report(Tally(2, 0, 1, 10), 2, 0.5, 3, 600, 0, struck, ["/"], [])))
    pages fetched       2
    not found           0
    on other sites      1 (not fetched)
    links offered       10
    duplicates refused  8 (80.0 %)
    time                0.5 s, 2 workers
    links a second      20 (fetching and parsing included)
    memory              200 bytes a URL (3 remembered)
    faults              worker 1 killed, server restarted
    fetched twice       1
    """
    tally = report.tally
    offered = tally.offered or 1
    # Each known URL was added once, the first page by hand.
    refused = max(tally.offered - max(report.remembered - 1, 0), 0)
    killed = [] if report.killed is None else [f"worker {report.killed + 1} killed"]
    if report.memory_bytes is None:
        memory = "unknown: the server refused MEMORY USAGE"
    else:
        each = report.memory_bytes / (report.remembered or 1)
        memory = f"{each:.0f} bytes a URL ({report.remembered:,} remembered)"
    rows = {
        "pages fetched": f"{tally.pages:,}",
        "not found": f"{tally.missing:,}",
        "on other sites": f"{tally.elsewhere:,} (not fetched)",
        "links offered": f"{tally.offered:,}",
        "duplicates refused": f"{refused:,} ({100 * refused / offered:.1f} %)",
        "time": f"{report.seconds:.1f} s, {report.workers} workers",
        "links a second": (
            f"{tally.offered / report.seconds:,.0f} (fetching and parsing included)"
        ),
        "memory": memory,
        "faults": ", ".join([*killed, *report.struck]) or "none",
        "fetched twice": f"{len(report.twice):,}",
    }
    return "\n".join(f"{label:<18}  {text}" for label, text in rows.items())
