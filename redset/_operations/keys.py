"""The names of a set's keys, and the names that a set may not have."""

from __future__ import annotations

import functools
import re
from typing import Any

from redset._wire.values import got

#: The parts after the prefix in a set's second keys.
PARTS = frozenset(
    (
        b"keyed", b"tied", b"keyed-tied", b"items", b"meta", b"seen", b"leased", b"leases",
        b"calls", b"dead",
        # Never exists: steps name it before they remove.
        b"none",
        # Operators' keys.
        b"counts", b"workers", b"paused",
        # Of sets in shards, and of sets with groups.
        b"shards", b"grouped", b"grouped-tied", b"ready", b"resting", b"waiting", b"working",
        b"limits", b"limits-shared", b"g",
    )
)  # fmt: skip
#: Parts that are followed by others: buckets of a memory, and groups.
_FAMILIES = re.compile(rb"seen:[0-9a-f]*:[0-9]+|g:.*", re.DOTALL)
#: The end of the key of a set's lock, as in 0.5.1.
LOCK = b"__lock"
#: The hash of the sets that a server has, by name. It is a key of no set.
REGISTRY = b"redset:sets"


#: The second keys of a set. The last three are operators': they hold no work.
_SECOND = (
    "items", "meta", "seen", "leased", "leases", "calls", "dead", "none", "counts", "workers",
    "paused",
)  # fmt: skip
#: Those of a set with groups, and their parts: groups that may start, that rest, whose first item
#: is not due, that have items in work; own values, those of a crawl; and the prefix of indexes.
_OF_GROUPS = {
    "ready": b"ready", "resting": b"resting", "waiting": b"waiting", "working": b"working",
    "limits": b"limits", "shared": b"limits-shared", "index": b"g",
}  # fmt: skip


class Keys:
    """The keys of the set called ``name``. ``prefix`` is None if it can have no second key.

    ``queue`` is the sorted set of the members. With ``key=``, ``ties=`` or ``group=`` it has
    another name, so a process without the option does not read it. The second keys are made on the
    first use of one.
    """

    __slots__ = ("is_plain", "name", "prefix", "queue", *_SECOND, *_OF_GROUPS)

    items: bytes
    meta: bytes
    seen: bytes
    leased: bytes
    leases: bytes
    calls: bytes
    dead: bytes
    #: A key that never exists. Steps of several keys name it, so a slot that moves key by key
    #: refuses the whole step. Commands that remove are tried on it, to learn the user's rights.
    none: bytes
    #: Keys of operators: counters, lines of workers, and the pause.
    counts: bytes
    workers: bytes
    paused: bytes
    ready: bytes
    resting: bytes
    waiting: bytes
    working: bytes
    limits: bytes
    shared: bytes
    index: bytes

    def __init__(self, name: bytes, keyed: bool, tied: bool, grouped: bool = False) -> None:
        self.name = name
        self.prefix = _prefix(name)
        self.queue = name
        if keyed or tied or grouped:
            first = b"grouped" if grouped else b"keyed" if keyed else b""
            self.queue = self._under(b"-".join(filter(None, (first, b"tied" * tied))))
        #: Whether redset 0.5.1 can read the queue. A user with its rights may use only that key.
        self.is_plain = not (keyed or tied or grouped)

    def __getattr__(self, name: str) -> Any:
        """Make the second keys."""
        if name not in Keys.__slots__:
            raise AttributeError(f"Keys has no attribute {name!r}")
        if name in _OF_GROUPS:
            for second, part in _OF_GROUPS.items():
                setattr(self, second, self._under(part))
            return getattr(self, name)
        for second in _SECOND:
            setattr(self, second, self._under(second.encode()))
        return getattr(self, name)

    def check_prefix(self) -> bytes:
        """Return the prefix; refuse a name that can have no second key."""
        if self.prefix is None:
            raise ValueError(
                f"name {self.name!r} has braces but no valid hash tag, or is the prefix of another "
                "set's keys, so that no second key can be kept beside it: use a name without "
                "braces, or one like {tag}:name"
            )
        return self.prefix

    def _under(self, part: bytes) -> bytes:
        assert part in PARTS, part
        return self.check_prefix() + b":" + part

    @property
    def of_groups(self) -> dict[str, bytes]:
        """The keys of a set with groups, by name."""
        return {name: getattr(self, name) for name in _OF_GROUPS}

    @property
    def lock(self) -> bytes:
        return self.name + LOCK

    @property
    def fixed(self) -> list[bytes]:
        """The keys that ``clear`` empties in one step, whatever the set's options."""
        names = (
            b"keyed", b"tied", b"keyed-tied", b"grouped", b"grouped-tied", b"items", b"leased",
            b"leases", b"calls", b"dead", *_OF_GROUPS.values(),
        )  # fmt: skip
        return [self.name, *(self._under(name) for name in names)]


def keys_of(name: Any, keyed: bool, tied: bool, grouped: bool = False) -> Keys:
    """Check the name of a set, and return its keys.

    Sets of one name share them: a process may make a set for each of its calls.
    """
    kind = type(name)
    make = _shared if kind is str or kind is bytes else _made
    return make(name, keyed, tied, grouped)


def _made(name: Any, keyed: bool, tied: bool, grouped: bool) -> Keys:
    return Keys(checked_name(name), keyed, tied, grouped)


_shared = functools.lru_cache(maxsize=256, typed=True)(_made)


def _prefix(name: bytes) -> bytes | None:
    # Redis hashes the text between the first { and the first } after it, if that is not
    # empty; a name without such a tag is hashed whole (cluster specification, "Hash tags").
    start = name.find(b"{")
    if start >= 0:
        end = name.find(b"}", start)
        # jobs:{jobs} is the prefix of the set called jobs.
        tag = name[start + 1 : max(end, start)]
        return name if tag and name != _prefix_of(tag) else None
    if b"}" in name:
        return None
    return _prefix_of(name)


def _prefix_of(name: bytes) -> bytes:
    return name + b":{" + name + b"}"


def owner_of(name: bytes) -> bytes | None:
    """Return the set that uses ``name`` as a second key, or None."""
    if name == REGISTRY:
        return b"redset"
    at = name.find(b":")
    while at >= 0:
        prefix, part = name[:at], name[at + 1 :]
        if part in PARTS or _FAMILIES.fullmatch(part):
            start = prefix.find(b"{")
            tag = prefix[start + 1 : max(prefix.find(b"}", start), 0)] if start >= 0 else b""
            if tag:
                return tag if prefix == _prefix_of(tag) else prefix
        at = name.find(b":", at + 1)
    return None


def checked_name(name: Any) -> bytes:
    if isinstance(name, str):
        try:
            data = name.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"name must be encodable as UTF-8: {error}") from None
    elif isinstance(name, bytes):
        data = name
    else:
        raise TypeError(f"name must be str or bytes, {got(name)}")
    if not data:
        raise ValueError("name must not be empty")
    owner = owner_of(data)
    if owner is not None:
        raise ValueError(
            f"name must not be a key of another set, {got(name)}: {readable(owner)!r} uses it"
        )
    return data


def readable(name: bytes) -> str | bytes:
    """Return a name as text, if it is UTF-8."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name
