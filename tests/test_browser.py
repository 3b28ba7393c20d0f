"""The documentation as its readers see it: built, searched, and loaded in a browser."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import children
import pytest
import servers

browser = pytest.importorskip("browser", reason="no pipes as a browser's files")

DOCS = Path(__file__).resolve().parent.parent / "docs"
#: Search terms of users, and the page that they look for.
QUERIES = {
    "retry": "retries",
    "backoff": "retries",
    "dead letter": "retries",
    "visibility timeout": "retries",
    "priority": "background-jobs",
    "debounce": "background-jobs",
    "idempotent": "background-jobs",
    "Celery": "background-jobs",
    "Django": "background-jobs",
    "rate limit": "politeness",
    "cron": "delayed",
    "graceful shutdown": "workers",
    "SIGTERM": "workers",
    "fakeredis": "testing",
    "ACL": "limits",
    "backpressure": "limits",
    "ElastiCache": "managed",
    "Prometheus": "metrics",
}

pytestmark = pytest.mark.slow(30)


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the built pages."""
    for package in ("sphinx", "furo", "myst_parser", "sphinx_copybutton"):
        if importlib.util.find_spec(package) is None:
            raise servers.Missing(f"documentation: no {package} (make docs installs it)")
    built = tmp_path_factory.mktemp("html")
    children.run("-m", "sphinx", "-q", "-W", "-b", "html", str(DOCS), str(built), limit=300)
    return built


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(html: Path) -> Iterator[str]:
    """The address of the built pages; the search reads pages, which no browser does from files."""
    handler = functools.partial(_Quiet, directory=str(html))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Chromium]:
    with browser.start(tmp_path_factory.mktemp("profile")) as started:
        yield started


def pages(html: Path) -> list[Path]:
    found = sorted(html.rglob("*.html"))
    assert len(found) > 20
    return found


@pytest.mark.timeout(300)
def test_the_search_index_has_what_people_type(html: Path) -> None:
    from sphinx.search.en import SearchEnglish

    text = (html / "searchindex.js").read_text("utf-8")
    index = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    stem = SearchEnglish({}).stem
    for query, page in QUERIES.items():
        for word in query.split():
            found = {
                index["docnames"][place]
                for terms in (index["terms"], index["titleterms"])
                for place in _places(terms.get(stem(word.lower()), []))
            }
            assert page in found, f"{query!r} does not find {page}"


def _places(found: int | list[int]) -> list[int]:
    return [found] if isinstance(found, int) else found


@pytest.mark.timeout(300)
def test_the_search_shows_the_right_page_among_the_first(
    site: str, chromium: browser.Chromium
) -> None:
    for query, page in QUERIES.items():
        asked = urllib.parse.urlencode({"q": query})
        assert chromium.visit(f"{site}search.html?{asked}", 1280).errors == []
        results = chromium.evaluate(
            """new Promise(done => {
                 const look = () => document.querySelector("#search-results .search-summary")
                     && !/Searching/.test(document.querySelector("#search-results").innerText)
                   ? done([...document.querySelectorAll("ul.search li > a")].map(a => a.href))
                   : setTimeout(look, 20);
                 look();
               })"""
        )
        names = [Path(urllib.parse.urlsplit(result).path).stem for result in results]
        assert page in names[:5], f"{query!r}: {names}"


#: Elements wider than their place: the page, code, text, a table. Tables of figures, with more than
#: three columns, may be scrolled on a phone.
TOO_WIDE = """
    [...document.querySelectorAll("html, pre, article p, .table-wrapper, .table-wrapper *")]
      .filter(each => each.scrollWidth > each.clientWidth + 1 && each.clientWidth > 0)
      .filter(each => innerWidth > 600 || !each.matches(".table-wrapper")
                      || each.querySelector("tr").children.length < 4)
      .map(each => `${each.tagName} ${each.scrollWidth} > ${each.clientWidth}: `
                   + each.innerText.slice(0, 80))
"""


#: Tables that begin or end outside of the column of text.
BESIDE = """
    (() => {
      const edges = element => element.getBoundingClientRect();
      const column = edges(document.querySelector("article"));
      return [...document.querySelectorAll("article .table-wrapper")]
        .filter(each => edges(each).left < column.left - 1 || edges(each).right > column.right + 1)
        .map(each => `a table ends at ${edges(each).right}, the column at ${column.right}`);
    })()
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_fits_its_width_without_an_error_or_a_dead_link(
    html: Path, site: str, chromium: browser.Chromium, width: int
) -> None:
    ids: dict[str, set[str]] = {}
    links: dict[str, list[str]] = {}
    faults: list[str] = []
    for path in pages(html):
        url = site + path.relative_to(html).as_posix()
        visit = chromium.visit(url, width)
        faults += [f"{path.name}: {error}" for error in visit.errors]
        for wrong in (TOO_WIDE, BESIDE):
            faults += [f"{path.name} at {width}: {each}" for each in chromium.evaluate(wrong)]
        ids[url] = set(
            chromium.evaluate('[...document.querySelectorAll("[id]")].map(each => each.id)')
        )
        links[path.name] = chromium.evaluate(
            '[...document.querySelectorAll("a[href]")].map(each => each.href)'
        )
    for name, targets in links.items():
        for target in targets:
            page, _, fragment = target.partition("#")
            file = html / urllib.parse.unquote(page.removeprefix(site))
            missing = fragment and urllib.parse.unquote(fragment) not in ids.get(page, ())
            if page.startswith(site) and (missing or not file.is_file()):
                faults.append(f"{name}: dead link {target}")
    assert faults == []


@pytest.mark.timeout(300)
def test_copied_code_has_neither_prompts_nor_output(site: str, chromium: browser.Chromium) -> None:
    # The clipboard is the browser's own affair: this checks the text that it receives.
    script = """
        new Promise(done => {
            const block = [...document.querySelectorAll("div.highlight pre")]
                .find(pre => pre.innerText.includes("jobs.add_many"));
            document.addEventListener("copy", () => done(
                document.activeElement.value || window.getSelection().toString()));
            document.execCommand = () => document.dispatchEvent(new Event("copy"));
            block.parentElement.querySelector("button.copybtn").click();
        })
    """
    assert chromium.visit(f"{site}index.html", 1280).errors == []
    copied = chromium.evaluate(script)
    assert "jobs = SortedSet" in copied and "jobs.pop()" in copied
    assert not re.search(r"^>>>|^\.\.\. |AddResult", copied, re.M)
