"""The lines of an exported set: written, read, checked, and kept until all have arrived."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

try:
    import orjson
except ImportError:  # without orjson the lines are the same, and slower
    orjson = None  # type: ignore[assignment]

#: The version of the lines.
VERSION = 1
#: Bytes of lines that are kept in memory. More are kept in a file.
SPOOLED = 16 << 20
_EPOCH = re.compile("([0-9a-f]{16})?")
#: The ids of dead letters.
ID = re.compile(rb"(\d{1,20})-\d{1,20}")
#: Limit of exact integers as doubles, which many readers of JSON make of numbers.
_EXACT = 2**53
#: Limit of attempts: Lua writes them with 14 digits.
_ATTEMPTS = 2**31
#: Limits of the characters of an error in an export, and of the bytes of an item.
_TEXT, _BYTES = 1000, 2**29
#: Limit of an item's sequence number with ``ties=``: half of all numbers, so that as many are left.
#: Items that returned without a number have the last one.
_TIES, _UNTIED = 2**39, 2**40 - 1
#: Limit of a time in ms: 1e11 s after the present, the longest time that a set remembers.
_EXPIRY = 2**47
#: The kinds of lines after the first one.
_KINDS = ("item", "dead", "known", "limits", "end")
#: The most bytes of a group, and its own limit and interval in ms; '-' is the default.
_GROUP = 200
_OWN = re.compile(r"(-|\d{1,4}) (-|\d{1,10})")


def dumps(value: dict[str, Any]) -> str:
    """Write a line."""
    if orjson:
        return orjson.dumps(value).decode()
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def loads(line: bytes) -> Any:
    """Read a line."""
    if orjson:
        return orjson.loads(line)
    try:
        return json.loads(line.decode())
    except RecursionError:
        raise ValueError("nested too deep") from None


def data(raw: bytes) -> Any:
    """Write bytes as text, or as base64 if they are not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def to_number(score: float) -> Any:
    """Write a score as a number, or as text if JSON cannot hold it."""
    return score if math.isfinite(score) else str(score)


class Row(NamedTuple):
    """An item as the queue stores it. If it is read from a line, the score is the user's."""

    score: bytes
    member: bytes
    attempts: bytes
    error: bytes
    payload: bytes


class Lines:
    """The lines of an exported set. All are checked before any is written to the server."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(SPOOLED)  # noqa: SIM115  (closed by close)
        self.number = 0
        self.items = 0
        #: Number of remembered items.
        self.known = 0
        self._digest = hashlib.blake2b(digest_size=16)
        #: The number after the highest sequence number, and the count of items without a number.
        self.sequence = self.untied = 0
        #: The id of the last dead letter. They come in order: a stream accepts only rising ids.
        self._letter = (0, 0)
        self.head: dict[str, Any] = {}
        self.ended = False

    def close(self) -> None:
        self._file.close()

    def take(self, line: Any) -> None:
        """Check a line, and keep it."""
        self.number += 1
        if isinstance(line, str):
            try:
                line = line.encode()
            except UnicodeEncodeError:
                raise self.wrong("is not UTF-8") from None
        if not isinstance(line, bytes):
            raise TypeError(f"lines must be str or bytes, and one is {type(line).__name__}")
        line = line.strip()
        if not line:
            return
        self._digest.update(line + b"\n")
        try:
            value = loads(line)
        except ValueError:
            raise self.wrong("is not JSON") from None
        if not isinstance(value, dict):
            raise self.wrong("is not a JSON object")
        if self.ended:
            raise self.wrong("comes after the end")
        if not self.head:
            self._begin(value)
            return
        self._check(value)
        self._file.write(line + b"\n")

    def name(self, options: str) -> str:
        """Return the identity of these lines, for a restore to a set with these options."""
        digest = self._digest.copy()
        digest.update(options.encode())
        return digest.hexdigest()

    def check_end(self) -> None:
        """Refuse lines that end too soon."""
        if not self.ended:
            self.number += 1
            raise self.wrong("is missing: they end too soon")

    def wrong(self, why: str) -> ValueError:
        return ValueError(f"lines must be those of export(), and line {self.number} {why}")

    def _begin(self, value: dict[str, Any]) -> None:
        if value.get("redset") != VERSION:
            raise self.wrong(f"does not begin an exported set of version {VERSION}")
        kinds = {"key": bool, "remember": str, "epoch": str, "group": bool}
        value.setdefault("group", False)
        if any(type(value.get(field)) is not kind for field, kind in kinds.items()):
            raise self.wrong("lacks the set's options")
        if value["remember"] not in ("", "ever", "limited") or not _EPOCH.fullmatch(value["epoch"]):
            raise self.wrong("has options that no set has")
        self.head = value

    @property
    def apart(self) -> bool:
        """Whether the items' identities are apart from their payloads."""
        return bool(self.head["key"] or self.head["group"])

    def _check(self, value: dict[str, Any]) -> None:
        try:
            if sum(kind in value for kind in _KINDS) != 1:
                raise ValueError
            if "item" in value:
                row_of(value, self.apart)
                self._check_group(value)
                self.items += 1
                self._count_tie(value)
            elif "dead" in value:
                letter_of(value, self.apart)
                self._check_group(value)
                self._follow(value["id"])
                self._count_tie(value)
            elif "known" in value:
                known_of(value, self.head["remember"])
                self._count_known(value["known"])
            elif "limits" in value:
                limits_of(value)
                self._check_group({"group": ""})
            elif "end" in value:
                if value["end"] != self.items:
                    raise ValueError
                self.ended = True
            else:
                raise ValueError
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            raise self.wrong("is not of a known kind") from None

    def _follow(self, name: str) -> None:
        """Refuse an id that a stream would not accept after the last one."""
        first, second = map(int, name.split("-"))
        if not self._letter < (first, second) or max(first, second) >= _EXACT:
            raise ValueError
        self._letter = first, second

    def _check_group(self, value: dict[str, Any]) -> None:
        if "group" in value and not self.head["group"]:
            raise ValueError
        group_of(value)

    def _count_known(self, rows: list[Any]) -> None:
        if not self.head["epoch"]:
            raise ValueError  # without an epoch the integers mean nothing
        self.known += len(rows)

    def _count_tie(self, value: dict[str, Any]) -> None:
        tie = tie_of(value)
        if tie is None:
            self.untied += 1
        elif tie != _UNTIED:
            self.sequence = max(self.sequence, tie + 1)

    def of(self, kind: str) -> Iterator[dict[str, Any]]:
        """Return the kept lines of a kind."""
        self._file.seek(0)
        for line in self._file:
            value = loads(line)
            if kind in value:
                yield value


def _bytes(data: Any) -> bytes:
    raw = data.encode() if isinstance(data, str) else _of_base64(data["base64"])
    if len(raw) >= _BYTES:
        raise ValueError
    return raw


def _of_base64(text: Any) -> bytes:
    if not isinstance(text, str):
        raise ValueError
    return base64.b64decode(text, validate=True)


def _text(value: Any) -> bytes:
    if not isinstance(value, str) or len(value) > _TEXT:
        raise ValueError
    return value.encode()


def row_of(value: dict[str, Any], keyed: bool) -> Row:
    payload, attempts = _bytes(value["item"]), value.get("attempts", 0)
    member = bytes.fromhex(value["digest"]) if keyed else payload
    if not _is_count(attempts, _ATTEMPTS) or (keyed and len(member) != 16):
        raise ValueError
    error = _text(value.get("error", ""))
    return Row(_score(value["score"]), member, b"%d" % attempts, error, payload)


def _is_count(value: Any, limit: int = _EXACT) -> bool:
    return type(value) is int and 0 <= value < limit


def tie_of(value: dict[str, Any]) -> int | None:
    """Return the sequence number of a line of a set with ``ties=``; None for another set's."""
    tie = value.get("tie")
    if tie is not None and tie != _UNTIED and not _is_count(tie, _TIES):
        raise ValueError
    return tie


def _score(value: Any) -> bytes:
    score = float(value)
    if isinstance(value, bool) or math.isnan(score):
        raise ValueError
    return repr(score).removesuffix(".0").encode()


def letter_of(value: dict[str, Any], keyed: bool) -> list[Any]:
    name, score, attempts = value["id"], value["score"], value["attempts"]
    if not ID.fullmatch(name.encode()) or not _is_count(attempts, _ATTEMPTS):
        raise ValueError
    member = bytes.fromhex(value.get("digest", ""))
    if len(member) not in ((0, 16) if keyed else (0,)):
        raise ValueError
    text = b"" if score is None else _score(score)
    reason = _text(value["reason"])
    return [name, _bytes(value["dead"]), text, reason, attempts, member]


def group_of(value: dict[str, Any]) -> bytes:
    """Return the group of a line; empty for none."""
    found = _bytes(value.get("group", ""))
    if len(found) > _GROUP:
        raise ValueError
    return found


def limits_of(value: dict[str, Any]) -> list[Any]:
    """Return groups and their own values: group, values, ..."""
    rows, found = value["limits"], list[Any]()
    if not isinstance(rows, list) or not rows:
        raise ValueError
    for name, own in rows:
        group = group_of({"group": name})
        if not group or not _OWN.fullmatch(own):
            raise ValueError
        found += [group, own.encode()]
    return found


def known_of(value: dict[str, Any], remember: str) -> list[Any]:
    rows = value["known"]
    if not isinstance(rows, list) or not rows or not remember:
        raise ValueError
    if remember == "ever":
        if not all(type(row) is str and _is_integer(row) for row in rows):
            raise ValueError
        return [row.encode() for row in rows]
    found: list[Any] = []
    for name, expiry in rows:
        member = bytes.fromhex(name)
        if len(member) != 16 or not _is_count(expiry, _EXPIRY) or expiry == 0:
            raise ValueError
        found += [expiry, member]
    return found


def _is_integer(text: str) -> bool:
    return len(text) <= 20 and -(2**63) <= int(text) < 2**63 and str(int(text)) == text
