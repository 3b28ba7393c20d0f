"""Log messages: once per process and set, each on one line."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("redset")

#: The most pairs of a message and a set that are kept. A crawl may have a set per host.
_MOST = 10_000
#: The messages that were logged, each with its set.
_logged: set[tuple[str, Any]] = set()


def log_once(level: int, name: Any, message: str, *arguments: Any) -> None:
    """Log a message about a set at a level, and later ones like it at DEBUG.

    Args:
        level: The level of the first.
        name: The set's name.
        message: The text with places for the arguments. It also identifies the message.
        arguments: The values for these places.
    """
    key = message, name
    if key in _logged:
        level = logging.DEBUG
    else:
        if len(_logged) >= _MOST:
            _logged.clear()
        _logged.add(key)
    log.log(level, message, *arguments)


def warn_once(name: Any, message: str, *arguments: Any) -> None:
    """Log a warning about a set, and later ones like it at DEBUG."""
    log_once(logging.WARNING, name, message, *arguments)


def one_line(text: str) -> str:
    """Return a text without line breaks and control characters, so an item cannot forge lines."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
