"""Draws the pictures of the live view: ``python tools/screens.py`` writes ``docs/screens/*.svg``.

The application runs without a terminal, on a private server with sets like those of a crawl. Its
lines are exported by textual. The pictures name no font of the network.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import time
from array import array
from pathlib import Path
from typing import Any
from urllib.parse import quote

from redset import ScheduledSet, SortedSet, TimeSortedSet, embedded
from redset.cli.connection import Settings
from redset.cli.live.app import Top
from redset.cli.watching import Watcher

SCREENS = Path(__file__).resolve().parent.parent / "docs" / "screens"
SIZE = (112, 34)
#: Each picture: the keys that lead to it, and a description.
PICTURES = {
    "top": (("down", "down"), "The list of sets, trouble first, and one set in detail below it"),
    "dead": (
        ("home", "d", "space", "down", "space"),
        "The dead letters of a set, two of which are marked",
    ),
    "question": (("r",), "A question that names the number of letters, the set and the server"),
}


class Named(Settings):
    """The server under a name that readers know."""

    @property
    def target(self) -> str:
        return "redis://crawl-1:6379/0"


def fill(client: Any) -> None:
    """Make sets like those of a crawl, once more if they are there."""
    again = client.exists("mails")
    docs: SortedSet[Any] = SortedSet(client, "crawl:docs.example.org", key="url", remember=True)
    pages = [
        {"url": f"https://docs.example.org/{n % 40}/{n}.html", "depth": 3} for n in range(8640)
    ]
    docs.add_many(pages)
    if not again:
        docs.lease(40, ttl=300)
    news: SortedSet[Any] = SortedSet(client, "crawl:news.example", max_attempts=1)
    news.add_many([f"https://news.example/archive/{n}" for n in range(730)])
    reasons = [
        "ConnectTimeout: 10 s",
        "HTTPError: 503",
        "ConnectTimeout: 10 s",
        "ValueError: no title",
    ]
    for reason in reasons[4 * again :]:
        for lease in news.lease(1):
            lease.fail(reason)
    late: SortedSet[Any] = SortedSet(client, "crawl:site-039.example")
    late.add_many([f"https://site-039.example/{n}" for n in range(1425)])
    late.lease(25, ttl=0.01)
    mails: TimeSortedSet[Any] = TimeSortedSet(client, "mails")
    mails.add_many(
        [f"user-{n}" for n in range(310)], score=[time.time() - 240 + n / 2 for n in range(310)]
    )
    later: ScheduledSet[Any] = ScheduledSet(client, "reminders")
    later.add_many(
        [f"user-{n}" for n in range(5200)], score=[time.time() + 60 * n for n in range(5200)]
    )
    exports: SortedSet[Any] = SortedSet(client, "exports")
    exports.add_many(range(12))
    exports.pause("the disk is full")
    for n in range(1, 37):
        quiet: SortedSet[Any] = SortedSet(
            client, f"crawl:site-{n:03}.example", key="url", remember=True
        )
        quiet.add_many([{"url": f"/{page}"} for page in range(37 * n % 11)])


#: Items added, refused and done in a second, and the processes.
BUSY = {
    "crawl:docs.example.org": (208, 7000, 240, ("crawl-2", "crawl-3")),
    "crawl:news.example": (3, 120, 11, ("crawl-2",)),
    "mails": (25, 0, 24, ("web-1",)),
    "reminders": (1.5, 0, 1.5, ("web-1",)),
}


def work(client: Any, watcher: Watcher, names: list[str], second: int) -> None:
    """Let the sets be worked on for a second."""
    now = int(time.time())
    for name in names:
        prefix = f"{name}:{{{name}}}"
        seen = now - 480 if name == "crawl:site-039.example" else now
        client.hset(f"{prefix}:counts", "consumer_seen", seen)
        added, refused, done, hosts = BUSY.get(name, (0, 0, 0, ()))
        for field, number in (("added", added), ("refused", refused), ("acked", done)):
            client.hincrby(f"{prefix}:counts", field, round(number * (300 if second == 0 else 1)))
        client.delete(f"{prefix}:workers")
        for place, host in enumerate(hosts):
            line = {"host": host, "pid": 9797 + place, "since": now - 228, "seen": now - place}
            line |= {"held": 20, "done": 6400 - 90 * place, "failed": 2}
            client.hset(f"{prefix}:workers", f"Wk{place}xyz", json.dumps(line))
        past = watcher._past.get(name)
        if past is not None and done:
            past.done = array("f", (done * (1 + 0.4 * math.sin(n)) for n in range(12)))


def picture(app: Top, name: str) -> None:
    """Write a picture of the screen."""
    svg = app.export_screenshot(title="redset top")
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code", "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas")
    svg = re.sub(r"terminal-\d+", f"screen-{name}", svg)
    label = PICTURES[name][1]
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    (SCREENS / f"{name}.svg").write_text(svg.strip() + "\n", encoding="utf-8")


async def draw(client: Any, settings: Settings) -> None:
    watcher = Watcher(client)
    names = [view.name for view in watcher.look().views]
    work(client, watcher, names, 0)
    watcher = Watcher(client)
    look = watcher.look()
    app = Top(settings, watcher, look, 0.5)
    async with app.run_test(size=SIZE) as pilot:
        for second in range(1, 6):
            work(client, watcher, names, second)
            await pilot.pause(1.0)
        app.frozen = True
        await pilot.pause(0.6)
        app.frozen = False
        for name, (keys, _) in PICTURES.items():
            await pilot.press(*keys)
            await pilot.pause(0.6)
            picture(app, name)


def main() -> None:
    """Write all pictures."""
    logging.getLogger("redset").setLevel(logging.CRITICAL)
    SCREENS.mkdir(exist_ok=True)
    with embedded.server() as client:
        fill(client)
        time.sleep(2.1)  # until processes register their sets
        fill(client)
        url = f"unix://{quote(client.get_connection_kwargs()['path'])}"
        asyncio.run(draw(client, Named(url)))


if __name__ == "__main__":
    main()
