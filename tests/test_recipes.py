"""The recipe "Many hosts, politely", as it stands in the documentation, under faults."""

from __future__ import annotations

import contextlib
import doctest
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import servers

from redset import ScheduledSet, SortedSet

RECIPES = Path(__file__).resolve().parent.parent / "docs" / "crawling.rst"
#: Whose pages have which hyperlinks.
SITE = {
    "https://a.example/1": ["https://a.example/2", "https://b.example/1"],
    "https://a.example/2": ["https://a.example/1"],
    "https://b.example/1": ["https://a.example/1", "https://b.example/2", "https://c.example/1"],
    "https://b.example/2": [],
    "https://c.example/1": ["https://b.example/1"],
}
SEEDS = ["https://a.example/1"]


class Killed(BaseException):
    """The process ends here."""


class Client(servers.GenericDecoded):
    """A client of a process that is killed before its request of a number."""

    def __init__(self, client: redis.Redis, dies: int = -1) -> None:
        super().__init__(client)
        self.left = dies

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        if self.left == 0:
            raise Killed
        self.left -= 1
        return super().execute_command(*arguments, **options)


def recipe(client: Any) -> dict[str, Any]:
    """What the recipe defines, for a process with this client."""
    text = RECIPES.read_text("utf-8")
    section = re.search(r"^Many hosts, politely\n-+\n(.*?)^\S[^\n]*\n-{5,}$", text, re.M | re.S)
    assert section is not None
    names: dict[str, Any] = {"r": client, "SortedSet": SortedSet, "ScheduledSet": ScheduledSet}
    for example in doctest.DocTestParser().get_examples(section[1]):
        if re.match(r"from |hosts =|def ", example.source):
            exec(example.source, names)
    assert {"hosts", "pages_of", "found", "turn"} <= set(names)
    return names


def time_passes(raw: redis.Redis, name: str = "*") -> None:
    """All leases and delays end, of the sets whose names match."""
    for key in raw.scan_iter(f"{name}:leased"):
        raw.zadd(key, dict.fromkeys(raw.zrange(key, 0, -1), 1))


def crawl(raw: redis.Redis, fetch: Callable[[str], list[str]], turns: int = 60) -> None:
    """Work off all that is there."""
    names = recipe(raw)
    for _ in range(turns):
        if names["hosts"].finished():
            break
        names["turn"](fetch)
        time_passes(raw)
    assert names["hosts"].finished()


def stranded(raw: redis.Redis) -> list[str]:
    """The sets of pages that are not finished, though no host is queued or leased."""
    keys = {key.split(b":{")[0].decode() for key in raw.scan_iter("pages of *")}
    return [name for name in keys if not SortedSet(raw, name, remember=True).finished()]


def requests(dies: int, raw: redis.Redis, part: str, fetched: list[str]) -> bool:
    """Run a process that is killed before its request of a number; whether it was."""
    names = recipe(Client(raw, dies))

    def fetch(url: str) -> list[str]:
        fetched.append(url)
        return SITE[url]

    try:
        if part == "seeds":
            for url in SEEDS:
                names["found"](url)
        else:
            names["turn"](fetch)
    except Killed:
        return True
    return False


@pytest.mark.parametrize("part", ["seeds", "first turn", "third turn"])
def test_a_process_that_is_killed_anywhere_strands_no_page(
    any_server: servers.Server, part: str
) -> None:
    raw = any_server.raw
    dies, killed = 0, True
    while killed:
        any_server.flush()
        fetched: list[str] = []

        def fetch(url: str, fetched: list[str] = fetched) -> list[str]:
            fetched.append(url)
            return SITE[url]

        names = recipe(raw)
        if part != "seeds":
            for url in SEEDS:
                names["found"](url)
        if part == "third turn":
            for _ in range(2):
                names["turn"](fetch)
                time_passes(raw)
        killed = requests(dies, raw, part, fetched)
        if part == "seeds":
            for url in SEEDS:  # it is started again
                names["found"](url)
        # The host's lease ends before the page's, which was taken later.
        time_passes(raw, "hosts:*")
        names["turn"](fetch)
        crawl(raw, fetch)
        assert set(fetched) == set(SITE), f"killed before request {dies}"
        assert stranded(raw) == []
        dies += 1
    assert dies > 2


def test_workers_that_are_killed_again_and_again_give_up_no_host(
    any_server: servers.Server,
) -> None:
    raw = any_server.raw
    names = recipe(raw)
    names["found"]("https://a.example/bad")
    names["found"]("https://a.example/good")

    def fetch(url: str) -> list[str]:
        if url.endswith("bad"):
            raise Killed
        fetched.append(url)
        return []

    fetched: list[str] = []
    for _ in range(40):
        with contextlib.suppress(Killed):
            names["turn"](fetch)
        time_passes(raw)
    assert fetched == ["https://a.example/good"]
    assert names["hosts"].finished() and not names["hosts"].dead.size()
    assert [letter.raw for letter in names["pages_of"]("a.example").dead] == [
        b"https://a.example/bad"
    ]


def test_a_fetch_that_raises_fails_its_page_alone(any_server: servers.Server) -> None:
    raw = any_server.raw
    names = recipe(raw)
    names["found"]("https://a.example/1")
    names["found"]("https://a.example/2")

    def fetch(url: str) -> list[str]:
        if url.endswith("1"):
            raise TimeoutError("no answer")
        fetched.append(url)
        return []

    fetched: list[str] = []
    names["turn"](fetch)
    [(host, _, attempts, expires, *_)] = names["hosts"].leased()
    assert (host, attempts) == ("a.example", 0)
    assert expires - any_server.raw.time()[0] < 4  # the delay, not a lease
    time_passes(raw)  # of the host; the page's turn comes after it
    raw.zadd("pages of a.example:{pages of a.example}:leased", {"https://a.example/1": 10**14})
    names["turn"](fetch)
    assert fetched == ["https://a.example/2"]
    time_passes(raw)
    crawl(raw, lambda url: fetched.append(url) or [])
    assert fetched == ["https://a.example/2", "https://a.example/1"]


def test_no_fetch_of_a_host_comes_sooner_than_its_delay(any_server: servers.Server) -> None:
    names = recipe(any_server.raw)
    for url in ("https://a.example/1", "https://a.example/2", "https://b.example/1"):
        names["found"](url)
    fetched: list[str] = []

    def fetch(url: str) -> list[str]:
        fetched.append(url)
        names["found"]("https://a.example/3")
        return ["https://b.example/2"]

    for _ in range(6):
        names["turn"](fetch)
    assert fetched == ["https://a.example/1", "https://b.example/1"]
