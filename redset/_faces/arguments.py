"""Checks of the arguments of a set's calls, each once.

The text of an error is `<argument> must be <what>, got <value> (<type>)`. Checks run before any
request. `SetOptions` checks the options of the constructor. The core checks items, keys and scores,
because there may be millions.
"""

from __future__ import annotations

import datetime
import inspect
import math
import operator
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from redset._wire.values import got

#: Type of arguments that are times.
Time = float | datetime.timedelta

#: The longest time in seconds: about three centuries, which milliseconds in a float hold exactly.
LONGEST = 10_000_000_000


def must_be(
    argument: str, what: str, value: Any, kind: type[Exception] = TypeError, hint: str = ""
) -> Exception:
    """Return the error of an argument. A long value is cut."""
    return kind(f"{argument} must be {what}, {got(value)}{hint and f': {hint}'}")


# Times.


def seconds(
    argument: str, value: Any, *, positive: bool = False, most: float = LONGEST
) -> int | float:
    """Return a time in seconds, from 0 (or above 0) to ``most``, which may be infinite."""
    found = value.total_seconds() if isinstance(value, datetime.timedelta) else value
    if not isinstance(found, (int, float)) or isinstance(found, bool):
        raise must_be(argument, "a number of seconds or a timedelta", value)
    if not 0 <= found <= most or (positive and found == 0):
        least = "above 0" if positive else "0 or more"
        limit = "" if most == math.inf else f", at most {most:.0e}".replace("e+", "e")
        raise must_be(argument, f"seconds, {least}{limit}", value, ValueError)
    # An int may be more than a float holds.
    return found if found <= sys.float_info.max else math.inf


def finite_seconds(argument: str, value: Any) -> int | float:
    """Return a finite time in seconds."""
    found = seconds(argument, value, most=math.inf)
    if math.isinf(found):
        raise must_be(argument, "finite", value, ValueError)
    return found


def milliseconds(argument: str, value: Any, positive: bool) -> int:
    """Return a time in milliseconds, rounded up."""
    return math.ceil(seconds(argument, value, positive=positive) * 1000)


def waiting_time(wait: Any) -> float:
    """Return the time to wait, in seconds; math.inf is forever."""
    if type(wait) is int and wait == 0:
        return 0
    found = seconds("wait", wait, most=math.inf)
    # A time that no clock can hold is forever, too.
    return found if found < 1e9 else math.inf


def unix_time(argument: str, value: Any) -> float:
    """Return the Unix time of a bound: a number, or an aware datetime."""
    time = value
    if isinstance(value, datetime.datetime):
        if value.utcoffset() is None:
            raise must_be(argument, "an aware datetime, with a time zone", value, ValueError)
        time = value.timestamp()
    what = "Unix time in seconds"
    if not isinstance(time, (int, float)) or isinstance(time, bool):
        raise must_be(argument, f"{what}, a datetime or a timedelta", value)
    if time != time:  # not isnan(): an int may be more than a float holds
        raise must_be(argument, what, value, ValueError)
    return time


# Numbers.


def whole(argument: str, value: Any) -> int:
    """Return a number of items as int() does."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise must_be(argument, "a whole number", value, type(error)) from None


def index(argument: str, value: Any) -> int:
    """Return a position, or a number of items, that is an int."""
    try:
        return operator.index(value)
    except TypeError:
        raise must_be(argument, "an int", value) from None


def positive(argument: str, value: Any) -> int:
    """Return a number of items that is an int, and at least 1."""
    number = index(argument, value)
    if number < 1:
        raise must_be(argument, "positive", value, ValueError)
    return number


def number_up_to(argument: str, value: Any, most: int) -> int:
    """Return a number of items from 1 to ``most``."""
    number = value if type(value) is int else index(argument, value)
    if not 1 <= number <= most:
        raise must_be(argument, f"from 1 to {most:,}", value, ValueError)
    return number


def is_single_score(score: Any) -> bool:
    """Return whether ``score`` is one score for all. An iterable has one score for each."""
    if isinstance(score, (Mapping, set, frozenset)):
        raise must_be("score", "a number, or an iterable of one for each item", score)
    return isinstance(score, (int, float, str, bytes)) or not hasattr(score, "__iter__")


def ends(to_score: Callable[[Any], float], lowest: Any, highest: Any) -> tuple[float, float]:
    """Return the ends of a range of scores."""
    found = []
    for argument, value in (("min", lowest), ("max", highest)):
        try:
            found.append(to_score(value))
        except (TypeError, ValueError) as error:
            text = str(error).replace("score", argument, 1)
            raise type(error)(text) from None
    if found[0] > found[1]:
        raise must_be("min", f"at most max, which is {highest!r}", lowest, ValueError)
    return found[0], found[1]


# Many.


def refuse_single(argument: str, values: Any, iterables: tuple[str, ...] = ("__iter__",)) -> None:
    """Refuse objects that are not iterable, and iterables such as str that are one item."""
    if isinstance(values, (str, bytes, bytearray, memoryview, Mapping)):
        hint = "for one item put it in a list, for a mapping give its keys() and values()"
        raise must_be(argument, "an iterable of items", values, hint=hint)
    if not any(hasattr(values, method) for method in iterables):
        raise must_be(argument, "an iterable", values)


def many(argument: str, values: Iterable[Any]) -> list[Any]:
    """Return an argument of many items as a list."""
    refuse_single(argument, values)
    return list(values)


# Things.


def names_or_pattern(argument: str, value: Any) -> list[str | bytes] | bytes | None:
    """Return names in a list, or a pattern of names as bytes."""
    if value is None:
        return None
    if isinstance(value, (str, bytes)):
        return value.encode() if isinstance(value, str) else value
    wanted = "a pattern or a list of names"
    if isinstance(value, Mapping) or not hasattr(value, "__iter__"):
        raise must_be(argument, wanted, value)
    names = list(value)
    for each in names:
        if not isinstance(each, (str, bytes)):
            raise must_be(argument, wanted + ", str or bytes", each)
    return names


def reason(argument: str, value: Any) -> str:
    """Return a text for people, which has at most 1,000 characters."""
    if not isinstance(value, str):
        raise must_be(argument, "str", value)
    if len(value) > 1000:
        raise must_be(argument, "a text of at most 1,000 characters", value, ValueError)
    return value


def url_text(value: Any) -> str:
    """Return a URL. The error does not show one of another type: it may hold a password."""
    if not isinstance(value, str):
        raise TypeError(f"url must be str, got a value of type {type(value).__name__}")
    return value


def matching(argument: str, value: Any, pattern: re.Pattern[bytes], what: str) -> bytes:
    """Return the bytes of a text that matches a pattern."""
    if not isinstance(value, str):
        raise must_be(argument, what, value)
    name = value.encode("utf-8", "replace")
    if pattern.fullmatch(name) is None:
        raise must_be(argument, what, value, ValueError)
    return name


def handler(value: Any, awaits: bool) -> Callable[[Any], Any]:
    """Return a handler. Only the worker of an asyncio set accepts a coroutine function."""
    if not callable(value):
        raise must_be("handler", "callable", value)
    if inspect.iscoroutinefunction(value) and not awaits:
        hint = "the sets of redset.asyncio take a coroutine function"
        raise must_be("handler", "a plain function", value, hint=hint)
    return value  # type: ignore[no-any-return]


def event(argument: str, value: Any) -> Any:
    """Return an event, or None."""
    if value is not None and not callable(getattr(value, "is_set", None)):
        raise must_be(argument, "an event, with is_set()", value)
    return value
