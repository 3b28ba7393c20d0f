"""The groups of requests, and the limits of each: read from the settings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from scrapy.utils.misc import load_object

from redset.scrapy.settings import number_of, unusable

#: Bytes of a group's name, and those that are kept of a longer name of a slot.
MOST_NAME, CUT = 200, 150
#: The largest limit of a group, and the longest interval in seconds.
MOST_LIMIT, MOST_INTERVAL = 1000, 30 * 86_400
_YES, _NO = {"true", "yes", "on", "1"}, {"false", "no", "off", "none", "0", ""}


class Limit(NamedTuple):
    """The limit of one group, None for that of all groups, and its interval in seconds."""

    limit: int | None
    interval: float


class GroupOptions(NamedTuple):
    """How requests are grouped, and the limits of the groups.

    Attributes
    ----------
    of : callable or None
        Returns the group of a request. None if there are no groups.
    limit : int or None
        Requests of a group that all processes together have in progress. None for no limit.
    interval : float
        Seconds between two starts of a group, at least.
    slots : mapping
        The limits of some groups, from ``DOWNLOAD_SLOTS``.
    throttles : bool
        Whether AutoThrottle chooses longer intervals.
    start : float
        The interval until AutoThrottle has chosen one, in seconds.
    polite : bool
        Whether the limits are Scrapy's own. The downloader then does not delay requests again.
    """

    of: Callable[[Any], str | None] | None
    limit: int | None = None
    interval: float = 0.0
    slots: Mapping[str, Limit] = {}
    throttles: bool = False
    start: float = 0.0
    polite: bool = False

    @classmethod
    def read(cls, settings: Any, spider: Any = None) -> GroupOptions:
        """Read and check the settings.

        Raises
        ------
        ValueError
            If a setting cannot be used. The text names it.
        """
        polite = _flag(settings, "REDSET_POLITE")
        of = _function_of(settings, polite)
        if of is None:
            for name in ("REDSET_GROUP_LIMIT", "REDSET_GROUP_INTERVAL"):
                if settings.get(name) is not None:
                    raise ValueError(f"{name} needs REDSET_GROUP or REDSET_POLITE")
            return cls(None)
        if of is group_of_slot and settings.getint("CONCURRENT_REQUESTS_PER_IP"):
            raise ValueError(
                "CONCURRENT_REQUESTS_PER_IP must be 0 with REDSET_POLITE or REDSET_GROUP = True: "
                "groups are hosts by name. Set CONCURRENT_REQUESTS_PER_DOMAIN"
            )
        if not polite:
            return cls(of, _limit(settings, 1), _interval(settings, 0.0))
        limit = _limit(settings, _limit_of_scrapy(settings, spider))
        interval = _interval(settings, _delay_of_scrapy(settings, spider))
        throttles = settings.getbool("AUTOTHROTTLE_ENABLED")
        start = settings.getfloat("AUTOTHROTTLE_START_DELAY") if throttles else 0.0
        slots = _slots(settings, interval)
        return cls(of, limit, interval, slots, throttles, min(start, MOST_INTERVAL), True)


def group_of_slot(request: Any) -> str | None:
    """Return the downloader's slot of a request: what meta says, else the host. None without one.

    The downloader notes the slot in meta, and a redirect copies meta. So a noted slot that is the
    host of the URL before counts only for that URL.
    """
    meta = request.meta
    given = meta.get("download_slot")
    if given is not None and meta.get("redirect_urls"):
        given = None if given == host_of(meta["redirect_urls"][-1]) else given
    return fitted(str(given) if given is not None else host_of(request.url)) or None


#: The host of each scheme and place, such as ``http://a.example:80``, that was seen lately.
_hosts: dict[str, str] = {}


def host_of(url: str) -> str:
    """Return the host of a URL: urlsplit takes as long as all the rest of a job."""
    end = url.find("/", url.find("//") + 2)
    host = _hosts.get(url[:end]) if end > 0 else None
    if host is None:
        host = urlsplit(url).hostname or ""
        if 0 < end < 300:
            if len(_hosts) >= 1000:
                _hosts.clear()
            _hosts[url[:end]] = host
    return host


def fitted(name: str) -> str:
    """Return a name that a group may have: one that is too long is cut, with its digest."""
    data = name.encode("utf-8", "replace")
    if len(data) <= MOST_NAME:
        return data.decode()
    return f"{data[:CUT].decode('utf-8', 'ignore')}~{hashlib.sha256(data).hexdigest()[:32]}"


def _with_check(of: Callable[[Any], Any]) -> Callable[[Any], str | None]:
    """Return the project's function with a check of its result."""

    def checked(request: Any) -> str | None:
        group = of(request)
        if group is None:
            return None
        what = "a str, bytes or int of 1 to 200 bytes, or None"
        name = group
        if isinstance(group, int) and not isinstance(group, bool):
            name = str(group)
        try:
            name = group.decode() if isinstance(group, bytes) else name
            if isinstance(name, str) and 0 < len(name.encode()) <= MOST_NAME:
                return name
        except UnicodeError:
            pass
        raise unusable("the group of a request", what, group)

    return checked


def _function_of(settings: Any, polite: bool) -> Callable[[Any], str | None] | None:
    given = settings.get("REDSET_GROUP")
    text = given.lower() if isinstance(given, str) else given
    what = "True or the import path of a callable"
    if text is None or text is False or text in _NO:
        if polite and text is not None and text != "":
            raise ValueError(f"REDSET_POLITE needs groups, and REDSET_GROUP is {given!r}")
        return group_of_slot if polite else None
    if text is True or text in _YES:
        return group_of_slot
    if isinstance(given, str):
        try:
            given = load_object(given)
        except Exception as error:
            raise ValueError(f"REDSET_GROUP must be {what}, got {given!r}: {error}") from error
    if not callable(given):
        raise unusable("REDSET_GROUP", what, given)
    return _with_check(given)


def _flag(settings: Any, name: str) -> bool:
    try:
        return bool(settings.getbool(name))
    except ValueError:
        raise unusable(name, "a bool", settings.get(name)) from None


def _limit(settings: Any, default: int | None) -> int | None:
    name, what = "REDSET_GROUP_LIMIT", "a whole number from 1 to 1,000, or None"
    if settings.get(name) is None:
        # Scrapy takes a None of the project for a setting that is not set.
        return None if settings.getpriority(name) is not None else default
    found = number_of(settings, name, None, what)
    if found is None:
        return None
    if found != found // 1 or not 1 <= found <= MOST_LIMIT:
        raise unusable(name, what, settings.get(name))
    return int(found)


def _interval(settings: Any, default: float) -> float:
    name, what = "REDSET_GROUP_INTERVAL", "a number of seconds from 0 to 30 days"
    if settings.get(name) is None:
        return default
    found = number_of(settings, name, None, what)
    if found is None or not 0 <= found <= MOST_INTERVAL:
        raise unusable(name, what, settings.get(name))
    return float(found)


def _limit_of_scrapy(settings: Any, spider: Any) -> int:
    given = getattr(spider, "max_concurrent_requests", None)
    found = settings.getint("CONCURRENT_REQUESTS_PER_DOMAIN") if given is None else int(given)
    return max(1, min(MOST_LIMIT, found))


def _delay_of_scrapy(settings: Any, spider: Any) -> float:
    given = getattr(spider, "download_delay", None)
    found = settings.getfloat("DOWNLOAD_DELAY") if given is None else float(given)
    return max(0.0, min(MOST_INTERVAL, found))


def _slots(settings: Any, interval: float) -> dict[str, Limit]:
    found = {}
    for name, own in settings.getdict("DOWNLOAD_SLOTS").items():
        most = own.get("concurrency")
        most = None if most is None else max(1, min(MOST_LIMIT, int(most)))
        delay = min(MOST_INTERVAL, float(own.get("delay", interval)))
        found[fitted(str(name))] = Limit(most, max(interval, delay))
    return found
