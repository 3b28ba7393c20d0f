"""The settings, each checked before the crawl begins."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import redis
from scrapy.utils.misc import load_object

#: Seconds until the requests of a dead process return, and the limit below which a warning is due.
TTL, SHORT_TTL = 60.0, 10.0
#: Seconds that the thread waits for a reply at most. Then a server that hangs counts as away.
ANSWER = 30.0
#: The set's name, if none is given.
NAME = "%(spider)s:frontier"
_YES, _NO = {"true", "yes", "on"}, {"false", "no", "off", "none", ""}


class CrawlOptions(NamedTuple):
    """The settings of one scheduler."""

    name: str
    remember: bool | float
    order: str
    start_requests: str
    prefetch: int
    prefetch_max: int
    ttl: float
    max_hold: float
    max_attempts: int | None
    on_error: str
    unserializable: str
    max_pending: int
    max_outage: float
    inbox: str | None
    #: Seconds at the end before closing; infinity is forever.
    max_idle: float
    request_classes: tuple[str, ...]
    items: str | None
    clear: str
    #: The setting that delays this process's requests, if one does.
    delayed_by: str
    debug: bool
    debug_duplicates: bool

    @classmethod
    def of(cls, settings: Any, spider_class: Any) -> CrawlOptions:
        """Read and check the settings of a crawl.

        Raises
        ------
        ValueError
            If a setting cannot be used. The text names it.
        """
        if settings.getbool("SCHEDULER_FLUSH_ON_START"):
            raise ValueError(
                "SCHEDULER_FLUSH_ON_START must not be set: each process that starts would remove "
                "the work of the others. Give each run a frontier of its own instead: "
                "REDSET_NAME = '%(spider)s-%(job)s'"
            )
        names = names_of(settings, spider_class)
        active = max(1, settings.getint("CONCURRENT_REQUESTS"))
        inbox = named("REDSET_INBOX", settings.get("REDSET_INBOX"), names)
        prefetch = _whole(settings, "REDSET_PREFETCH", max(32, 2 * active))
        idle = _seconds(settings, "REDSET_MAX_IDLE", 0.0 if inbox is None else None, 0.0)
        return cls(
            name=named("REDSET_NAME", settings.get("REDSET_NAME", NAME), names) or "",
            remember=remember_of(settings),
            order=order_of(settings),
            start_requests=_choice(settings, "REDSET_START_REQUESTS", ("once", "always")),
            prefetch=prefetch,
            prefetch_max=max(prefetch, _whole(settings, "REDSET_PREFETCH_MAX", 500)),
            ttl=_seconds(settings, "REDSET_LEASE_TTL", TTL, 0.001),
            max_hold=_seconds(settings, "REDSET_MAX_HOLD", 3600.0, 0.0),
            max_attempts=attempts_of(settings),
            on_error=_choice(settings, "REDSET_ON_ERROR", ("ack", "dead")),
            unserializable=_choice(settings, "REDSET_UNSERIALIZABLE", ("memory", "raise", "drop")),
            max_pending=_whole(settings, "REDSET_MAX_PENDING", 100_000),
            max_outage=_seconds(settings, "REDSET_MAX_OUTAGE", 300.0, 0.0),
            inbox=inbox,
            max_idle=idle,
            request_classes=classes_of(settings, spider_class),
            items=named("REDSET_ITEMS", settings.get("REDSET_ITEMS"), names),
            clear=_choice(settings, "REDSET_CLEAR", ("never", "finished")),
            delayed_by=delay_of(settings),
            debug=settings.getbool("SCHEDULER_DEBUG"),
            debug_duplicates=settings.getbool("DUPEFILTER_DEBUG"),
        )


def unusable(name: str, what: str, value: Any) -> ValueError:
    """Return the error of a setting that cannot be used."""
    return ValueError(f"{name} must be {what}, got {value!r} ({type(value).__name__})")


def number_of(settings: Any, name: str, default: Any, what: str) -> Any:
    """Return a setting as a float, or None if it is none."""
    value = settings.get(name, default)
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        return None
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise unusable(name, what, value) from None


def _seconds(settings: Any, name: str, default: float | None, least: float) -> float:
    """Return a time in seconds. None means forever, if that is the setting's default."""
    what = "a number of seconds above 0" if least else "a number of seconds, 0 or more"
    found = number_of(settings, name, default, what)
    if found is None:
        if name == "REDSET_MAX_IDLE":
            return math.inf
        raise unusable(name, what, settings.get(name))
    if math.isnan(found) or found < least:
        raise unusable(name, what, settings.get(name))
    return float(found)


def _whole(settings: Any, name: str, default: int) -> int:
    what = "a whole number, 1 or more"
    found = number_of(settings, name, default, what)
    if found is None or found != found // 1 or found < 1:
        raise unusable(name, what, settings.get(name))
    return int(found)


def _choice(settings: Any, name: str, choices: tuple[str, ...]) -> str:
    value = settings.get(name, choices[0])
    if value not in choices:
        raise unusable(name, " or ".join(map(repr, choices)), value)
    return str(value)


def order_of(settings: Any) -> str:
    """Return the order of requests with equal priorities: "fifo" or "lifo"."""
    return _choice(settings, "REDSET_ORDER", ("lifo", "fifo"))


def remember_of(settings: Any) -> bool | float:
    """Return the seconds for which a request is known. True means without a limit."""
    name, what = "REDSET_REMEMBER", "True or a number of seconds above 0"
    value = settings.get(name, True)
    if value is True or (isinstance(value, str) and value.lower() in _YES):
        return True
    found = None if value is False else number_of(settings, name, True, what)
    if found is None or not 0 < found < math.inf:
        raise unusable(name, what, value)
    return float(found)


def attempts_of(settings: Any) -> int | None:
    """Return the number of killed processes after which a request becomes a dead letter."""
    name = "REDSET_MAX_ATTEMPTS"
    if settings.get(name) is None and settings.getpriority(name) is not None:
        return None  # the project set it to None: Scrapy takes that for the default
    if number_of(settings, name, 20, "a whole number, 1 or more, or None") is None:
        return None
    return _whole(settings, name, 20)


def delay_of(settings: Any) -> str:
    """Return the name of the setting that delays the requests of each process, or ""."""
    if settings.getbool("AUTOTHROTTLE_ENABLED"):
        return "AUTOTHROTTLE_ENABLED"
    return "DOWNLOAD_DELAY" if settings.getfloat("DOWNLOAD_DELAY") > 0 else ""


def classes_of(settings: Any, spider_class: Any) -> tuple[str, ...]:
    """Return the patterns of classes that a stored request may name."""
    name = "REDSET_REQUEST_CLASSES"
    if settings.get(name) is not None:
        given = settings.getlist(name)
        if not all(isinstance(each, str) and each for each in given):
            raise unusable(name, "a list of import paths", given)
        return tuple(given)
    modules = settings.getlist("SPIDER_MODULES")
    if spider_class is not None:
        modules = [*modules, spider_class.__module__]
    return ("scrapy.*", *(path for each in modules for path in (each, each + ".*")))


def names_of(settings: Any, spider: Any) -> dict[str, str]:
    """Return the values of the placeholders ``%(…)s`` in a name."""
    names = {"job": settings.get("SCRAPY_JOB") or os.environ.get("SCRAPY_JOB") or ""}
    if getattr(spider, "name", None):
        names["spider"] = spider.name
    return names


def named(setting: str, template: Any, names: Mapping[str, str]) -> str | None:
    """Return the name of a set from a setting; None if that is not set."""
    if template is None or template == "":
        return None
    if not isinstance(template, str):
        raise unusable(setting, "a str", template)
    try:
        found = template % names
    except (KeyError, ValueError, TypeError):
        known = ", ".join(f"%({each})s" for each in sorted({"spider", "job", *names}))
        raise unusable(setting, f"a name with no placeholders but {known}", template) from None
    if "%(job)s" in template and not names["job"]:
        raise ValueError(
            f"{setting} has %(job)s, and there is no job: set SCRAPY_JOB, as a setting or in the "
            "environment"
        )
    return found


def connector_of(settings: Any) -> Callable[[], Any]:
    """Return a function that makes the client. Check the settings, and do not connect.

    ``REDSET_CLIENT`` and ``REDSET_URL`` come before the settings of scrapy-redis.

    Raises
    ------
    ValueError
        If the settings do not name a server, or name two.
    """
    path, url = settings.get("REDSET_CLIENT"), settings.get("REDSET_URL")
    if path and url:
        raise ValueError("REDSET_CLIENT contradicts REDSET_URL: set one of them")
    if path:
        made = load_object(path) if isinstance(path, str) else path
        if not callable(made):
            raise unusable("REDSET_CLIENT", "the import path of a callable", path)
        return lambda: made()
    kind = client_class_of(settings)
    params = {} if url else dict(settings.getdict("REDIS_PARAMS"))
    params.pop("redis_cls", None)
    url = url or settings.get("REDIS_URL")
    if not url and not settings.get("REDIS_HOST"):
        raise ValueError(
            "REDSET_URL must be set, as in 'redis://localhost:6379' (or REDSET_CLIENT)"
        )
    if not url:
        for name in ("HOST", "PORT", "DB"):
            if settings.get(f"REDIS_{name}") is not None:
                params.setdefault(name.lower(), settings.get(f"REDIS_{name}"))
        _defaults(params, {})
        return lambda: kind(**params)
    if not isinstance(url, str):
        raise unusable("REDSET_URL", "a str", url)
    parts = urlsplit(url)
    if kind is redis.cluster.RedisCluster and parts.scheme not in ("redis", "rediss"):
        raise unusable("REDSET_URL", "a URL of redis:// or rediss:// with REDSET_CLUSTER", url)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise unusable("REDSET_URL", "a URL of redis://, rediss:// or unix://", url)
    _defaults(params, parse_qs(parts.query))
    return lambda: kind.from_url(url, **params)


def client_class_of(settings: Any) -> Any:
    """Return the class of the client: that of a cluster if the settings say so."""
    try:
        cluster = settings.getbool("REDSET_CLUSTER")
    except ValueError:
        raise unusable("REDSET_CLUSTER", "a bool", settings.get("REDSET_CLUSTER")) from None
    return redis.cluster.RedisCluster if cluster else redis.Redis


def _defaults(params: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Limit the time of a reply, so that the thread notices a server that hangs."""
    for name in ("socket_timeout", "socket_connect_timeout"):
        if name not in given:
            params.setdefault(name, ANSWER)
