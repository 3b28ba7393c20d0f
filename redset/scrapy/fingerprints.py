"""Fingerprints of requests. Those of Scrapy's own fingerprinter are kept a while.

A page of a site has mostly the hyperlinks of the page before. To make a fingerprint takes half of
the time of enqueuing. Scrapy keeps it with the request, which is a new one for each hyperlink.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import scrapy
from scrapy.utils.request import RequestFingerprinter

#: The newest release of which is known what a fingerprint depends on.
NEWEST = (2, 19)
#: How many URLs are kept at least; at most twice as many.
MOST = 10_000


def fingerprint_maker(fingerprinter: Any) -> Callable[[Any], bytes]:
    """Return a function of a request that returns its fingerprint."""
    make: Callable[[Any], bytes] = fingerprinter.fingerprint
    # Another fingerprinter may look at anything, and so may that of a newer release.
    if type(fingerprinter) is not RequestFingerprinter or scrapy.version_info[:2] > NEWEST:
        return make
    young: dict[str, bytes] = {}
    old: dict[str, bytes] = {}

    def fingerprint(request: Any) -> bytes:
        nonlocal young, old
        if request.method != "GET" or request.body or "verbatim_url" in request.meta:
            return make(request)
        url = request.url
        found = young.get(url)
        if found is None:
            found = old.get(url) or make(request)
            if len(young) >= MOST:
                young, old = {}, young
            young[url] = found
        return found

    return fingerprint
