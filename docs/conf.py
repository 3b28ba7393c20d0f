"""How Sphinx builds the documentation. Nothing here needs the network."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import Any

from docutils import nodes

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "benchmarks" / "results"

project = "redset"
copyright = "redset contributors"
release = version = importlib.metadata.version("redset")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
# Markdown is what other files of the tree are written in that pages include.
source_suffix = {".rst": "restructuredtext"}
exclude_patterns = ["_build"]
suppress_warnings = ["myst.header"]

# A name in single backticks is a link where it is one of redset's.
default_role = "py:obj"
autodoc_member_order = "bysource"
# The docstrings say the types; signatures with them fill half a page.
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
python_use_unqualified_type_names = True

# Prompts and output are not copied.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"redset {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_favicon = "_static/icon.svg"
html_show_sourcelink = False
html_copy_source = False

# Every page has a server of its own, and `fresh()` empties it.
doctest_global_setup = """
import logging
import redset
from redset import *
from redset import embedded
from redset._operations import reporting
from redset.embedded import server
from redset.exceptions import *
from redset.interfaces import *
from redset.locks import *
from redset.serializers import *

logging.getLogger("redset").addHandler(logging.NullHandler())
_private = server()
r = _private.__enter__()

def fresh():
    global jobs
    r.flushall()
    # As at the beginning of a process: nothing was reported yet.
    reporting._process = reporting._Process()
    jobs = SortedSet(r, "jobs")

fresh()
"""
doctest_global_cleanup = "_private.__exit__(None, None, None)"
doctest_default_flags = 0


def start_examples_afresh(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Start the examples of each docstring with an empty server and a set ``jobs``."""
    first = next((at for at, line in enumerate(lines) if line.startswith(">>> ")), None)
    if first is None:
        return
    if any(re.search(r"\b(await|async)\b", line) for line in lines[first:]):
        # Doctest does not await: the tests run these.
        lines[first:] = [".. code-block:: pycon", ""] + [f"   {line}" for line in lines[first:]]
    else:
        lines[first:first] = [".. testcode::", "   :hide:", "", "   fresh()", ""]


def fit_to_the_tree(app: Any, docname: str, source: list[str]) -> None:
    """Show on the page on performance what ``make bench`` has written in this tree."""
    if docname == "performance":
        source[0] = source[0].replace(".. results\n", "\n".join(results()))


def results() -> list[str]:
    """Return the directives that show the plots and tables of the benchmarks' full runs."""
    blocks = []
    for path in sorted((HERE / "plots").glob("*.svg")):
        title = path.stem.replace("-", " ").replace("_", " ")
        blocks.append(f".. image:: plots/{path.name}\n   :alt: {title}\n   :class: plot\n")
    for path in sorted(RESULTS.glob("*.md")):
        if path.stem != "quick":
            name = f"../benchmarks/results/{path.name}"
            blocks.append(f".. include:: {name}\n   :parser: myst_parser.sphinx_\n")
    if not blocks:
        blocks = [".. note::\n\n   This tree holds no results yet: ``make bench`` writes them.\n"]
    return blocks


def collapse_lists_of_tests(app: Any, doctree: nodes.document) -> None:
    """Fold each list of test names, as the guarantees have them, into one line."""
    for tests in list(doctree.findall(nodes.bullet_list)):
        if all(re.fullmatch(r"test_\w+\.py::test_\w+", item.astext()) for item in tests):
            number = len(tests)
            summary = f"{number} test{'s' * (number > 1)} for this"
            opening = f'<details class="tests"><summary>{summary}</summary>'
            parent = tests.parent
            at = parent.index(tests)
            parent.insert(at + 1, nodes.raw("", "</details>", format="html"))
            parent.insert(at, nodes.raw("", opening, format="html"))


def setup(app: Any) -> None:
    app.connect("doctree-read", collapse_lists_of_tests)
    # After napoleon, which has priority 500.
    app.connect("autodoc-process-docstring", start_examples_afresh, priority=900)
    app.connect("source-read", fit_to_the_tree)
