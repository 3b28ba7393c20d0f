"""A frontier without a crawl: requests written straight into the set of a spider."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scrapy import Request, Spider
from scrapy.crawler import Crawler
from scrapy.settings import Settings
from scrapy.utils.misc import build_from_crawler, load_object

from redset import AddResult
from redset.scrapy.codec import RequestCodec
from redset.scrapy.entries import Entry, open_frontier
from redset.scrapy.groups import GroupOptions
from redset.scrapy.settings import (
    attempts_of,
    classes_of,
    client_class_of,
    named,
    names_of,
    order_of,
    remember_of,
)


class Frontier:
    """The frontier of a spider, for programs other than a crawl.

    Parameters
    ----------
    url : str
        The server, as in ``REDSET_URL``.
    name : str
        The set, as in ``REDSET_NAME``: ``"docs:frontier"``. ``%(spider)s`` needs ``spider``.
    settings : Settings or dict, optional
        The project's: ``REDSET_ORDER``, ``REDSET_REMEMBER``, ``REDSET_CLUSTER``,
        ``REQUEST_FINGERPRINTER_CLASS``, ``REDSET_REQUEST_CLASSES``, ``REDSET_GROUP`` and
        ``REDSET_POLITE`` must be those of the crawl.
    spider : Spider, optional
        The spider whose methods may be callbacks.

    Raises
    ------
    ValueError
        If a setting cannot be used.

    Examples
    --------
    >>> with Frontier("redis://localhost", "docs:frontier") as frontier:  # doctest: +SKIP
    ...     frontier.add(["https://docs.python.org/3/"])
    AddResult(added=1, updated=0, refused=0, failed=0)
    """

    def __init__(self, url: str, name: str, *, settings: Any = None, spider: Any = None) -> None:
        settings = settings if isinstance(settings, Settings) else Settings(settings or {})
        kind = Spider if spider is None else type(spider)
        found = named("name", name, names_of(settings, spider))
        if found is None:
            raise ValueError(f"name must be a name, got {name!r} ({type(name).__name__})")
        groups = GroupOptions.read(settings, spider)
        self._group_of = groups.of
        self._client = client_class_of(settings).from_url(url)
        self._set = open_frontier(
            self._client,
            found,
            order=order_of(settings),
            remember=remember_of(settings),
            max_attempts=attempts_of(settings),
            groups=groups,
        )
        self._codec = RequestCodec(spider, classes_of(settings, kind))
        crawler = Crawler(kind, settings)
        fingerprinter = load_object(settings["REQUEST_FINGERPRINTER_CLASS"])
        self._fingerprint: Any = build_from_crawler(fingerprinter, crawler).fingerprint

    def add(self, requests: Iterable[Any]) -> AddResult:
        """Add requests or URLs, as the scheduler does: known ones are refused.

        Parameters
        ----------
        requests : iterable of Request or str
            A request with ``dont_filter`` is always added.

        Returns
        -------
        AddResult
            Number of added and refused requests.

        Raises
        ------
        TypeError
            If it is one URL, or an element is neither a request nor a URL.
        redset.scrapy.Unfit
            If a request cannot be stored.
        redset.exceptions.AddError
            If the server failed.
        """
        if isinstance(requests, (str, bytes, Request)):
            kind = type(requests).__name__
            raise TypeError(
                f"requests must be an iterable of requests or URLs, got {requests!r} ({kind})"
            )
        plain, unique = [], []
        for each in requests:
            request = Request(each) if isinstance(each, str) else each
            if not isinstance(request, Request):
                kind = type(each).__name__
                raise TypeError(f"requests must be requests or URLs, got {each!r} ({kind})")
            raw, key = self._codec.dumps(request), self._fingerprint(request)
            group = None if self._group_of is None else self._group_of(request)
            if request.dont_filter:
                unique.append(Entry.unique(key, raw, request.priority, group))
            else:
                plain.append(Entry(key, raw, request.priority, group=group))
        results = [self._set.add_many(plain)]
        if unique:
            results.append(self._set.add_many(unique, remember=False))
        return AddResult(*map(sum, zip(*results, strict=True)))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> Frontier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
