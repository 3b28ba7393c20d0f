"""The site that the demo crawls: it serves pages and counts requests."""

from __future__ import annotations

import contextlib
import gzip
import html
import json
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from urllib.parse import urlsplit

__all__ = ("Site",)


class Site:
    """Pages, their hyperlinks, and the number of requests for each.

    Parameters
    ----------
    links : mapping of str to sequence of str
        The URL of each page to the URLs that it links to, in the order of the page. The crawl
        starts at the first page; all are of one host.

    Examples
    --------
    >>> site = Site({"https://a.example/": ["https://a.example/b"], "https://a.example/b": []})
    >>> site.get("https://a.example/").count("<a href=")
    1
    >>> site.get("https://a.example/c") is None
    True
    >>> site.requests
    Counter({'https://a.example/': 1, 'https://a.example/c': 1})
    """

    def __init__(self, links: Mapping[str, Sequence[str]]) -> None:
        self.links = links
        self.start = next(iter(links))
        self.scheme, self.host = urlsplit(self.start)[:2]
        self.requests: Counter[str] = Counter()
        #: The workers that requested each URL, in order.
        self.workers: defaultdict[str, list[str]] = defaultdict(list)
        self._lock = threading.Lock()

    @classmethod
    def of_python_docs(cls) -> Site:
        """Read the site that comes with the package: 526 pages, 109,879 links."""
        file = resources.files("redset.demo") / "data" / "python-docs-links.jsonl.gz"
        rows = map(json.loads, gzip.decompress(file.read_bytes()).splitlines())
        return cls({row["page"]: row["links"] for row in rows})

    def first(self, num: int) -> Site:
        """Return a site of the first so many pages, with the links between them."""
        kept = dict.fromkeys(list(self.links)[:num])
        return Site({page: [link for link in self.links[page] if link in kept] for page in kept})

    def mentions(self) -> int:
        """Return the number of hyperlinks on all pages."""
        return sum(map(len, self.links.values()))

    def mentioned(self) -> int:
        """Return the number of different URLs: of the pages, and on them."""
        return len({self.start}.union(*self.links.values()))

    def get(self, url: str, worker: str = "") -> str | None:
        """Count a worker's request, and return the page as HTML, or None for another URL."""
        with self._lock:
            self.requests[url] += 1
            self.workers[url].append(worker)
        links = self.links.get(url)
        return None if links is None else _page(url, links)

    @contextlib.contextmanager
    def served(self) -> Iterator[int]:
        """Serve the site over HTTP on the loopback interface, and yield the port.

        The ``Host`` of a request names the site.
        """
        server = _Server(("127.0.0.1", 0), _Handler)
        server.site = self
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    site: Site


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        site = self.server.site
        url = f"{site.scheme}://{self.headers['Host']}{self.path}"
        page = site.get(url, self.headers.get("X-Worker", ""))
        body = (page or "<!doctype html>\n<title>Not found</title>\n").encode()
        self.send_response(404 if page is None else 200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        # A killed worker does not read its response.
        with contextlib.suppress(ConnectionError):
            super().handle()

    def finish(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().finish()

    def log_message(self, format: str, *args: object) -> None:
        pass


def _page(url: str, links: Sequence[str]) -> str:
    title = html.escape(urlsplit(url).path)
    items = "\n".join(
        f'<li><a href="{html.escape(link)}">{html.escape(_name(link))}</a></li>' for link in links
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>'
        f"</head>\n<body>\n<h1>{title}</h1>\n<ul>\n{items}\n</ul>\n</body>\n</html>\n"
    )


def _name(link: str) -> str:
    return link.rstrip("/").rpartition("/")[2]
