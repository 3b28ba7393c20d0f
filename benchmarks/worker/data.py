"""The data of the contenders: made from numbers, and so the same in every process."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from collections.abc import Iterator
from typing import Any

Item = dict[str, Any]

_WORDS = "sorted sets hand out each item once lowest score first to any number of consumers "


def url(number: int, length: int = 60) -> str:
    """A URL of its own for each number."""
    head = f"https://example.org/{number % 97:02d}/{number:010d}-"
    return head + "a" * (length - len(head))


def items(first: int, last: int, size: int = 115) -> Iterator[Item]:
    """Yield distinct flat items. The compact JSON of each has ``size`` bytes."""
    # The letters around the values: {"depth":0,"title":"","url":""}
    length = 48
    room = size - length - 31
    title = _WORDS * (room // len(_WORDS) + 2)
    for number in range(first, last):
        start = number % len(_WORDS)
        yield {
            "url": url(number, length),
            "title": title[start : start + room],
            "depth": number % 10,
        }


def scores(number: int) -> list[int]:
    """Random whole scores, none of them 0, which redset 0.5.1 takes for no score."""
    return random.Random(number).choices(range(1, 1_000_000), k=number)


def pages(file: str, first: int | None = None) -> list[list[Item]]:
    """The hyperlinks of a real crawl, page by page; if a number is given, of so many pages only."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in itertools.islice(lines, first)]
    return [
        [{"url": link, "from": row["page"], "depth": row["depth"] + 1} for link in row["links"]]
        for row in rows
    ]


def half_known_pages(number: int, size: int) -> list[list[Item]]:
    """Distinct links in pages. The first half of a page stands in the page before, too."""
    half = size // 2
    found = [{"url": url(each), "from": url(0), "depth": each % 10} for each in range(number)]
    return [found[at : at + size] for at in range(0, number - half, half)]


def links(number: int, duplicates: float) -> list[list[Item]]:
    """Hyperlinks with a share of duplicates, spread at random, in pages of 200."""
    distinct = max(1, round(number * (1 - duplicates)))
    chosen = list(range(distinct))
    chosen += random.Random(number).choices(range(distinct), k=number - distinct)
    random.Random(distinct).shuffle(chosen)
    found = [{"url": url(each), "from": url(0), "depth": each % 10} for each in chosen]
    return [found[at : at + 200] for at in range(0, number, 200)]
