"""The demo in the live view of the command ``redset``."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from redset.demo.display import lines
from redset.demo.worker import Tally

__all__ = ("hindrance", "line", "shown")


def line(url: str, cluster: bool, name: str) -> str:
    """Return a set's live view as a line of a shell. It has no password.

    Examples
    --------
    >>> line("redis://me:secret@host/0", False, "jobs")
    "redset top --url 'redis://me:***@host/0' jobs"
    """
    password = urlsplit(url).password
    safe = url.replace(f":{password}@", ":***@") if password else url
    return shlex.join(["redset", "top", "--url", safe, *(["--cluster"] if cluster else []), name])


def hindrance() -> str | None:
    """Return why the live view cannot be opened; None if it can."""
    missing = [name for name in ("click", "textual") if importlib.util.find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} missing: pip install 'redset[demo]'"
    terminal = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))
    if not terminal or os.environ.get("TERM", "") in ("", "dumb"):
        return "--top needs a terminal that it can draw on"
    return None


@contextlib.contextmanager
def shown(url: str, cluster: bool, name: str, pages: int) -> Iterator[Callable[[Tally], None]]:
    """Open the live view of a set in a process of its own, and close it at the end.

    Yield a function to call with each new tally. It prints a line a second if the view was left.
    """
    # Others can read the arguments of a process.
    variables = {"REDSET_URL": url, "REDSET_CLUSTER": "1" if cluster else ""}
    arguments = [sys.executable, "-m", "redset", "top", name, "--every", "0.5"]
    show = lines(pages)
    with subprocess.Popen(arguments, env={**os.environ, **variables}) as view:
        try:
            yield lambda tally: None if view.poll() is None else show(tally)
        finally:
            view.terminate()
