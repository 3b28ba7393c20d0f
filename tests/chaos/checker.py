"""Find in a history lost items, items that were handed out twice, and items that changed.

An item is identified by a name; scores are the sets' own. An operation without a known end may have
been performed or not. It can explain a finding, and is never a finding itself.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

from chaos.history import Operation

#: Seconds: servers count milliseconds.
TICK = 0.002
#: How often a client sends an add again, at most.
SENDS = 4


class Final(NamedTuple):
    """The content of the set in the end: names and their scores."""

    queued: dict[str, float]
    leased: dict[str, float]
    dead: dict[str, float]


class Findings(NamedTuple):
    """The findings of the checker; all is well if the three lists are empty."""

    counts: Counter[str]
    lost: list[str]
    doubled: list[str]
    wrong: list[str]

    @property
    def bad(self) -> list[str]:
        return [
            f"{kind}: {each}"
            for kind, found in zip(("lost", "doubled", "wrong"), self[1:], strict=True)
            for each in found
        ]


class _Offer(NamedTuple):
    """An add of an item. accepted: True, False, or None if unknown."""

    begin: float
    end: float
    score: float
    answered: bool
    accepted: bool | None
    sends: int


class _Handing:
    """An item handed out, and its settlement."""

    def __init__(self, operation: Operation, row: list[Any]) -> None:
        self.begin, self.end, self.state = operation.begin, operation.end, operation.state
        self.by = f"{operation.process}#{operation.number}"
        self.score, self.attempts, self.expires = row[1], row[2], row[3]
        self.granted = row[3] - operation.what["ttl"]
        self.settled: list[_Settlement] = []


class _Settlement(NamedTuple):
    """The settlement of one lease. ours: True, False, or None if that is unknown."""

    how: str
    begin: float
    end: float
    ours: bool | None
    score: float | None
    ttl: float


class _Item:
    def __init__(self) -> None:
        self.offers: list[_Offer] = []
        self.handings: list[_Handing] = []
        self.forgotten = 0
        #: Begin and end of each discard.
        self.discards: list[tuple[float, float]] = []


def check(
    history: Iterable[Operation], final: Final, *, remember: bool, scheduled: bool = False
) -> Findings:
    """Check a history against the final content.

    Parameters
    ----------
    remember : bool
        Whether the set knows its items, so that a second add of one is refused.
    scheduled : bool
        Whether scores are the times at which items fall due.
    """
    history = list(history)
    items = _items(history)
    for each in history:
        if each.do == "clear":
            for item in items.values():
                item.discards.append((each.begin, each.end))
                item.forgotten += _sends(each)
    findings = Findings(Counter(), [], [], [])
    for name, item in items.items():
        _check_item(name, item, final, findings, remember, scheduled)
    for kind, names in zip(final._fields, final, strict=True):
        findings.counts[kind] = len(names)
        for name in names:
            if not (name in items and items[name].offers):
                findings.wrong.append(f"{name} is {kind}, and nobody added it")
    findings.counts["items"] = len(items)
    return findings


def _items(history: Iterable[Operation]) -> dict[str, _Item]:
    items: dict[str, _Item] = defaultdict(_Item)
    handings: dict[tuple[str, int, str], _Handing] = {}
    for each in history:
        what = each.what
        if each.do == "lease":
            for row in what.get("leases", ()):
                handing = handings[each.process, each.number, row[0]] = _Handing(each, row)
                items[row[0]].handings.append(handing)
        elif each.do == "forget":
            for name in what["items"]:
                items[name].forgotten += _sends(each)
        elif each.do == "discard":
            for name in what["items"]:
                items[name].discards.append((each.begin, each.end))
        elif each.do == "add":
            for name, score in what["items"]:
                _offer(items[name], each, name, score, each.state == "done")
        elif "groups" in what:
            # Settlements: each group of leases with its action.
            ours = _ours(each)
            for how, leases in what["groups"].items():
                for number, name in leases:
                    settled = _Settlement(
                        how, each.begin, each.end, ours, what.get("score"), what.get("ttl", 0)
                    )
                    handings[each.process, number, name].settled.append(settled)
            for name, score in what.get("add", ()):
                if ours is not False:
                    # The reply does not distinguish new items from moved ones.
                    _offer(items[name], each, name, score, bool(ours))
    return items


def _offer(item: _Item, each: Operation, name: str, score: float, answered: bool) -> None:
    accepted = None
    if answered and "accepted" in each.what:
        # Refused the second time it is sent, it was perhaps accepted the first time.
        others = each.what.get("others", False) if each.what["exact"] else None
        accepted = name in each.what["accepted"] or others
    elif each.state == "undone":
        accepted = False
    item.offers.append(_Offer(each.begin, each.end, score, answered, accepted, _sends(each)))


def _sends(each: Operation) -> int:
    """Return how often it may have reached the server; None if it never ended."""
    return 1 if each.what.get("exact", False) else SENDS


def _ours(each: Operation) -> bool | None:
    """Whether the leases of a settlement were its caller's: True all of them, False none."""
    if each.state == "undone":
        return False
    if each.state == "unknown":
        return None
    num = sum(map(len, each.what["groups"].values()))
    if each.what["ours"] == num:
        return True
    return False if each.what["ours"] == 0 and each.what["exact"] else None


def _check_item(
    name: str, item: _Item, final: Final, findings: Findings, remember: bool, scheduled: bool
) -> None:
    counts, lost, doubled, wrong = findings
    there = any(name in names for names in final)
    acks = [
        (handing, settled)
        for handing in item.handings
        for settled in handing.settled
        if settled.how == "ack" and settled.ours is not False
    ]
    sure = sum(settled.ours is True for _, settled in acks)
    counts["handed out"] += len(item.handings)
    counts["acknowledged"] += sure
    counts["perhaps acknowledged"] += len(acks) - sure

    # Lost: an answered item must be queued, or done; an accepted one, done after that.
    if not there:
        gone = max((end for _, end in item.discards), default=-math.inf)
        offers = [offer for offer in item.offers if offer.begin > gone]
        # One that was discarded and is remembered is refused.
        refused = remember and item.discards
        if any(offer.accepted if refused else offer.answered for offer in offers) and not acks:
            lost.append(f"{name} was added, is not there, and was never acknowledged")
        for offer in offers:
            if offer.accepted and not any(each.end > offer.begin for each, _ in acks):
                lost.append(f"{name} was added after its last handing out, and is not there")
                break

    # Doubled: acknowledged more often than it was added, or held by two at once.
    if remember:
        most = 1 + item.forgotten
    else:
        most = sum(offer.sends for offer in item.offers if offer.accepted is not False)
    if sure > most:
        doubled.append(f"{name} was acknowledged {sure} times, and added {most} times at most")
    valid = [handing for handing in item.handings if handing.state == "done"]
    valid.sort(key=lambda each: (each.granted, each.begin))
    for first, second in itertools.pairwise(valid):
        # A discard ends a lease.
        if not any(first.begin < end and begin < second.end for begin, end in item.discards):
            _check_pair(name, first, second, doubled)

    # Wrong: an item that was not added, another score than the last one, or an early hand-out.
    if item.handings and not item.offers:
        wrong.append(f"{name} was handed out, and nobody added it")
        return
    for handing in valid:
        scores = _scores(item, handing.begin, handing.end)
        if handing.score not in scores:
            wrong.append(f"{name} was handed out at {handing.score} by {handing.by}, not {scores}")
        if scheduled and handing.score > handing.granted + TICK:
            wrong.append(f"{name} was handed out {handing.score - handing.granted} s early")
    scores = _scores(item, math.inf, math.inf)
    # A dead letter has the score of its lease, also if it was added since.
    ever = {offer.score for offer in item.offers}
    ever |= {each.score for handing in item.handings for each in handing.settled if each.score}
    for names, possible in zip(final, (scores, scores | ever, ever), strict=True):
        if name in names and names[name] not in possible:
            wrong.append(f"{name} is at {names[name]} in the end")


def _check_pair(name: str, first: _Handing, second: _Handing, doubled: list[str]) -> None:
    """The second must not be before the end of the first, nor be disturbed by it after that."""
    clock = time.time() - time.monotonic()
    expires, over = first.expires, False
    for settled in first.settled:
        if settled.begin > second.end:
            if settled.ours is True:
                doubled.append(
                    f"{name}: {settled.how} of {first.by} counted, though {second.by} had it"
                )
        elif settled.how != "renew":
            over = over or settled.ours is not False
        elif settled.ours is True:
            expires = clock + settled.begin + settled.ttl
        elif settled.ours is None:
            expires = min(expires, clock + settled.begin + settled.ttl)
    if not over and second.granted < expires - TICK:
        early = expires - second.granted
        doubled.append(f"{name} was {first.by}'s for {early:.3f} s more when {second.by} got it")


def _scores(item: _Item, begin: float, end: float) -> set[float]:
    """The scores that an item may have had in that time."""
    # From when on it counts, until when it may have been given, the score, whether it is sure. What
    # was sent and given up, or sent again, may reach the server at any time.
    events: list[tuple[float, float, float, bool]] = []
    for offer in item.offers:
        if offer.accepted is not False:
            events.append((offer.begin, offer.end, offer.score, offer.accepted is True))
            if offer.sends > 1 or not offer.answered:
                events.append((offer.begin, math.inf, offer.score, False))
    for handing in item.handings:
        for each in handing.settled:
            if each.how == "release" and each.score is not None and each.ours is not False:
                # An add since the lease goes before.
                until = each.end if each.ours else math.inf
                events.append((handing.begin, until, each.score, each.ours is True))
    past = [event for event in events if event[0] < end]
    later = [start for start, until, _, sure in past if sure and until < begin]
    return {score for _, until, score, _ in past if not any(until < start for start in later)}
