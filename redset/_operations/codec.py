"""Codec of a set: it makes bytes of items, and items of bytes."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable, Mapping
from operator import itemgetter
from types import ModuleType
from typing import Any

from redset import _wire
from redset._operations.grouped import FRONT, finder, framed, payload_in
from redset._operations.limits import ITEM_BYTES, RUN
from redset._operations.options import SetOptions
from redset._operations.state import Sizes
from redset._transport.effects import PAUSE, Operation
from redset._wire.values import got
from redset.interfaces import Serializer
from redset.serializers import JSONSerializer


class Key:
    """Stands for an item by its key, in calls of a set with ``key=`` that take an item.

    Parameters
    ----------
    key : str, bytes or int, or a tuple of them
        The result of the set's ``key`` for the item; 1, ``"1"`` and ``b"1"`` are one key. A tuple
        if the set's ``key`` is one.

    Raises
    ------
    TypeError
        If the key has another type.

    Examples
    --------
    >>> Key("https://example.org/") == Key(b"https://example.org/")
    True
    """

    __slots__ = ("_bytes", "key")

    def __init__(self, key: str | bytes | int | tuple[str | bytes | int, ...]) -> None:
        if isinstance(key, tuple):
            if not key or not all(isinstance(part, (str, bytes, int)) for part in key):
                raise TypeError(
                    f"key must be a tuple of str, bytes or int, one for each field, {got(key)}"
                )
        elif not isinstance(key, (str, bytes, int)):
            raise TypeError(f"key must be str, bytes or int, {got(key)}")
        self.key = key
        wire = _wire.DEFAULT
        joined = isinstance(key, tuple)
        self._bytes: bytes = wire.joined_key(key) if joined else wire.key_bytes(key)

    def __bytes__(self) -> bytes:
        return self._bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and other._bytes == self._bytes

    def __hash__(self) -> int:
        return hash((Key, self._bytes))

    def __repr__(self) -> str:
        return f"Key({self.key!r})"


class TextSerializer(Serializer):
    """The format without a serializer: a bytes item as it is, else the item's text in UTF-8."""

    def dumps(self, obj: Any) -> bytes:
        return _wire.DEFAULT.payload(obj, None, 0)  # type: ignore[no-any-return]

    def loads(self, data: bytes | str) -> str:
        return data.decode() if isinstance(data, bytes) else data


class UnserializedWarning:
    """Warns once about an item, such as a dict, that is stored and returned as ``str(item)``."""

    __slots__ = ("_name", "_warned")

    def __init__(self, name: Any) -> None:
        self._name = name
        self._warned = False

    def __call__(self, item: Any) -> None:
        if self._warned:
            return
        self._warned = True
        # The warning shows the caller's line.
        level, frame = 1, sys._getframe()
        while frame.f_back is not None and _is_ours(frame):
            level, frame = level + 1, frame.f_back
        warnings.warn(
            f"the set {self._name!r} has no serializer: its items of type {type(item).__name__} "
            "are stored as str(item) and come out as text; serializer=json keeps their types",
            UserWarning,
            stacklevel=level,
        )


def _is_ours(frame: Any) -> bool:
    name: str = frame.f_globals.get("__name__", "")
    return name == "redset" or name.startswith("redset.")


_JSON, _TEXT = JSONSerializer(), TextSerializer()
_NONE: Mapping[Any, Any] = {}


class Codec:
    """The serializer, scorer and key of one set; the user may replace the first two.

    In a set with groups ``dumps`` returns the stored form, with the group in front, and ``key`` is
    never None. What reads payloads takes the group off.
    """

    __slots__ = (
        "_has_key",
        "_keyed",
        "_most",
        "_name",
        "_plain_dumps",
        "added",
        "adders",
        "binary",
        "dumps",
        "encoders",
        "group_of",
        "key",
        "loads",
        "max_item_bytes",
        "proven",
        "scorer",
        "serializer",
        "sizes",
        "spare_adders",
        "warn",
        "wire",
    )

    def __init__(
        self,
        wire: ModuleType,
        name: Any,
        options: SetOptions,
        key: Any,
        sizes: Sizes,
        group: Any = None,
    ) -> None:
        self.wire = wire
        self._name, self._keyed, self._has_key = name, options.keyed, options.has_key
        self.key = key
        #: Returns the bytes of an item's group; None in a set without groups.
        self.group_of = None if group is None else finder(wire, group)
        self._most = self.max_item_bytes = options.max_item_bytes or ITEM_BYTES
        if group is not None:
            self.max_item_bytes += FRONT
        self.sizes = sizes
        self.serializer: Any
        self.scorer: Any
        self.dumps: Callable[[Any], Any] | None
        #: The serializer's own, in a set with groups.
        self._plain_dumps: Callable[[Any], Any] | None
        self.loads: Callable[[Any], Any] | None
        self.binary: bool | None
        self.warn: UnserializedWarning | None
        #: Adders of single items by flags, for later calls. It and the next are replaced,
        #: not changed: many sets are made for one add, and share what is empty.
        self.adders: Mapping[Any, Any] = _NONE
        #: Whether a single item was added.
        self.added = False
        #: Encoders of bulk adds, by all arguments that they were made with.
        self.encoders: Mapping[Any, Any] = _NONE
        #: Adders of a few items that are not in use, or None.
        self.spare_adders: dict[Any, Any] | None = None
        #: Whether the serializer has decoded an item of the set.
        self.proven = False

    def use_scorer(self, scorer: Any) -> None:
        """Take a scorer: a callable of the item, the name of a field, or None for 0."""
        if not (scorer is None or callable(scorer) or isinstance(scorer, str)):
            raise TypeError(f"scorer must be a callable or the name of a field, {got(scorer)}")
        self.scorer = 0.0 if scorer is None else scorer
        self.adders = _NONE
        self.spare_adders = None

    def use_serializer(self, serializer: Any) -> None:
        """Take a serializer, or None for the default. The next removal first tries it."""
        default = _JSON if self._has_key else _TEXT
        self.serializer = default if serializer is None else serializer
        # A serializer without dumps and loads counts as None.
        used = self.serializer
        dumps, loads = _method(used, "dumps"), _method(used, "loads")
        if dumps is None and loads is None:
            used = default
            dumps, loads = _method(used, "dumps"), _method(used, "loads")
        text = type(used) is TextSerializer
        self.warn = UnserializedWarning(self._name) if text else None
        self.dumps = None if text else dumps
        self.loads = None if text else loads
        binary = getattr(used, "binary", None)
        self.binary = None if binary is None else bool(binary)
        if self.group_of is not None:
            self._use_groups(self.group_of)
        self.proven = False
        self.adders = _NONE
        self.spare_adders = None

    def _use_groups(self, group_of: Callable[[Any], bytes]) -> None:
        """Write the group in front of each payload. Without a key the bytes of an item are one."""
        payload, dumps, most, warn = self.wire.payload, self.dumps, self._most, self.warn

        def dumps_framed(item: Any) -> bytes:
            return framed(group_of(item), payload(item, dumps, most, warn))

        self.dumps, self._plain_dumps = dumps_framed, dumps
        if not self._has_key and self.key is None:
            # One function for all serializers: a writer keeps it.
            self.key = lambda item: payload(item, self._plain_dumps, 0)

    def identity(self, item: Any) -> bytes:
        """Return the member that stands for an item, or for a Key."""
        if type(item) is Key:
            data = bytes(item)
            return self.wire.digest(data) if self._keyed else data
        return self.wire.identity(item, self.dumps, self.key)  # type: ignore[no-any-return]

    def serialise(self, item: Any) -> Any:
        """Return an item's form for a codec `of_serialised`: its bytes, and those of its key."""
        data = self.wire.payload(item, self.dumps, self.max_item_bytes, self.warn)
        return (data, self.key_bytes(item)) if self._keyed else data

    def serialise_many(
        self, items: list[Any], table: Any, now: float, pending: Any
    ) -> tuple[list[Any], list[int]]:
        """Return what `serialise` returns for each item that no table has, and their places.

        Each table may be None. With ``pending``, of equal items only the first is returned.
        """
        return self.wire.serialise(  # type: ignore[no-any-return]
            items, self.dumps, self.key, self.max_item_bytes, self.warn, table, now, pending
        )

    def key_bytes(self, item: Any) -> Any:
        """Return the bytes of an item's key."""
        key, wire = self.key, self.wire
        if not isinstance(key, (str, tuple)):
            return wire.key_bytes(key(item))
        try:
            if isinstance(key, tuple):
                return wire.joined_key([wire.field_of(item, field) for field in key])
            return wire.key_bytes(wire.field_of(item, key))
        except (KeyError, AttributeError):
            self.identity(item)  # raises the error
            raise

    def member_of(self, serialised: Any) -> bytes:
        """Return the member that stands for a serialised item."""
        member: bytes = self.wire.digest(serialised[1]) if self._keyed else serialised
        return member

    def digests_of(self, serialised: list[Any]) -> bytes:
        """Return the digests of serialised items, as the known table has them."""
        names = [name for _, name in serialised] if self._keyed else serialised
        return b"".join(self.wire.digests(names))

    def of_serialised(self) -> Codec:
        """Return a codec of the same set whose items are results of `serialise`."""
        made = copy.copy(self)
        made.adders = made.encoders = _NONE
        made.spare_adders = None
        made.dumps, made.max_item_bytes, made.warn = None, 0, None
        if self._keyed:
            made.dumps, made.key = itemgetter(0), itemgetter(1)
        return made

    def identities(self, items: list[Any], first: int = 0) -> Operation[list[bytes]]:
        """Return the member of each item or Key. ``first`` is the place of the first one."""
        members: list[bytes] = []
        for at in range(0, len(items), RUN):
            if at:
                yield PAUSE
            run = items[at : at + RUN]
            members += self._members_of(run) or self._members_one_by_one(run, first + at)
        return members

    def _members_of(self, items: list[Any]) -> list[bytes] | None:
        """Return the members of items; None if one is a Key or bad, or the set has ``key=``.

        A short path: a loop of the core takes a sixth less CPU than one by one.
        """
        if self._keyed or Key in set(map(type, items)):
            return None
        try:
            found: tuple[list[bytes], Any] = self.wire.serialise(items, self.dumps, None, 0)
        except Exception:  # one by one, the bad item is named
            return None
        return found[0]

    def _members_one_by_one(self, items: list[Any], first: int) -> list[bytes]:
        members = []
        for at, item in enumerate(items, first):
            try:
                members.append(self.identity(item))
            except (TypeError, ValueError) as error:
                kind = ValueError if isinstance(error, UnicodeError) else type(error)
                if kind not in (TypeError, ValueError):
                    raise
                raise kind(f"item {at}: {error}") from error
        return members

    def decode(self, raws: list[bytes]) -> Operation[tuple[list[Any], list[Any]]]:
        """Deserialise members. Return the items, and a Bad for each other member."""
        items, bad = self.decode_run(raws[:RUN])
        for at in range(RUN, len(raws), RUN):
            yield PAUSE
            more, worse = self.decode_run(raws[at : at + RUN])
            items += more
            bad += [each._replace(place=at + each.place) for each in worse]
        return items, bad

    def decode_run(self, raws: list[bytes]) -> tuple[list[Any], list[Any]]:
        """Deserialise members as `decode` does, without a pause: for a run at most."""
        self.sizes.note(raws)
        if self.group_of is None:
            found: tuple[list[Any], list[Any]] = self.wire.decode(raws, self.loads, self.binary)
            return found
        items, bad = self.wire.decode(list(map(payload_in, raws)), self.loads, self.binary)
        # Dead letters have the group, too.
        return items, [each._replace(item=raws[each.place]) for each in bad]

    def decode_one(self, raw: bytes) -> Any:
        """Deserialise one member, or raise its exception."""
        items, bad = self.decode_run([raw])
        if bad:
            raise bad[0].error
        return items[0]


def _method(serializer: Any, name: str) -> Callable[[Any], Any] | None:
    method = getattr(serializer, name, None)
    if getattr(type(serializer), name, None) is getattr(Serializer, name):
        return None  # inherited, not defined
    return method
