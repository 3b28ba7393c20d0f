"""The wire format in Python: the specification that the compiled core follows to the byte.

Theory of operation
-------------------

`Encoder` makes a request of items: one command in RESP, an array of bulk strings.

=========  =================================================  ===============================
arguments  content                                            if
=========  =================================================  ===============================
prefix     command, keys, options                             always
score      fewest digits that give the float back             always, per entry
member     digest of the key, else the serialised item        always, per entry
payload    the serialised item                                with a key, per entry
memory     digest of the member, or a keyed integer of it     by ``memory``, per entry
=========  =================================================  ===============================

Each item makes an entry. Of entries with the same member one is kept (folding). Entries that the
known table holds are dropped. The others are sorted and cut into requests.

The compiled core calls these functions for rare cases: subclasses, foreign types, errors.
"""

from __future__ import annotations

import datetime
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from operator import is_, itemgetter
from threading import Lock
from types import MethodType
from typing import Any

from redset import serializers
from redset._wire.chunks import Bad, Chunk
from redset._wire.values import got as _got

IMPLEMENTATION = "python"

#: Values of an encoder's ``fold``: which of equal members in one chunk is kept.
FOLD_NONE, FOLD_FIRST, FOLD_LAST = 0, 1, 2
#: Values of an encoder's ``memory``: the argument that each entry has for the memory.
MEMORY_NONE, MEMORY_INTEGER, MEMORY_DIGEST = 0, 1, 2

#: Limits of scores in a set with ``ties=``: within them the stored integer is exact as a float.
_LEAST, _MOST = -4096, 4095

_EXACT = float(2**53)
_INT = frozenset((int,))


def encode(arguments: Sequence[bytes | str | int]) -> bytes:
    """Encode one command as a RESP array of bulk strings (https://redis.io/docs/reference/protocol-spec/)."""
    return b"*%d\r\n%b" % (len(arguments), _bulk_strings(arguments))


def _bulk_strings(arguments: Iterable[bytes | str | int]) -> bytes:
    """Encode arguments as RESP bulk strings, without the array's head."""
    parts = []
    argument: Any
    for argument in arguments:
        kind = type(argument)
        if issubclass(kind, str):
            argument = _text_bytes(argument)
        elif issubclass(kind, int):
            argument = b"%d" % argument
        elif kind is not bytes:
            # The bytes that it holds: a subclass may have another __len__.
            argument = bytes(memoryview(argument))
        parts.append(b"$%d\r\n%b\r\n" % (len(argument), argument))
    return b"".join(parts)


def split(data: bytes) -> list[list[bytes]]:
    """Split a request of one or more commands into the arguments of each."""
    commands = []
    at, end = 0, len(data)
    while at < end:
        stop = data.index(b"\r\n", at)
        arguments = []
        count, at = int(data[at + 1 : stop]), stop + 2
        for _ in range(count):
            stop = data.index(b"\r\n", at)
            size, at = int(data[at + 1 : stop]), stop + 2
            if size < 0:
                raise ValueError("not a request: an argument of negative size")
            arguments.append(data[at : at + size])
            at += size + 2
        commands.append(arguments)
    return commands


def to_score(value: Any, timed: bool = False) -> float:
    """Return a score as a float. A TypeError or ValueError names the fault of another value.

    A ``timed`` score is a time: it may be a datetime that knows its time zone.
    """
    if type(value) is float and value == value:
        return value
    try:
        score = float(value)
    except TypeError:
        if timed and isinstance(value, datetime.datetime):
            return _unix_time(value)
        wanted = "a number or an aware datetime" if timed else "a number"
        raise TypeError(f"score must be {wanted}, {_got(value)}") from None
    except OverflowError:
        raise ValueError("score must be in the range of a float, got a larger int") from None
    except ValueError:
        raise ValueError(f"score must be a number, {_got(value)}") from None
    if score != score:
        raise ValueError("score must not be NaN")
    return score


def _unix_time(value: datetime.datetime) -> float:
    if value.utcoffset() is None:
        raise ValueError(
            "score must be an aware datetime, with a time zone, "
            f"got {value!r} ({type(value).__name__})"
        )
    return value.timestamp()


def whole_score(score: float) -> float:
    """Return a score that a set with ``ties=`` can have. Raise ValueError for any other."""
    if not _LEAST <= score <= _MOST or score % 1:
        raise ValueError(
            f"score must be a whole number from {_LEAST} to {_MOST} in a set with ties=, "
            f"got {float(score)!r} (float)"
        )
    return score


def score_text(score: float) -> bytes:
    """Write a score with the fewest digits that give it back."""
    if score.is_integer() and -_EXACT < score < _EXACT:
        return str(int(score)).encode()
    return repr(score).encode()


def digest(data: bytes) -> bytes:
    """Return the BLAKE2b of data with 16 bytes of output (RFC 7693)."""
    return blake2b(data, digest_size=16).digest()


def digests(values: Iterable[bytes]) -> list[bytes]:
    """Return the digest of each value."""
    return [blake2b(value, digest_size=16).digest() for value in values]


def key_bytes(key: Any) -> bytes:
    """Return the bytes of a key: 1, "1" and b"1" are one key."""
    # Not isinstance(), here and below: it believes an object's __class__.
    kind = type(key)
    if issubclass(kind, bytes):
        return bytes(key)
    if issubclass(kind, str):
        return _text_bytes(key)
    if issubclass(kind, int):
        return b"%d" % key
    raise TypeError(f"key must be str, bytes or int, {_got(key)}")


def joined_key(parts: Sequence[Any]) -> bytes:
    """Return the bytes of a key of several parts. Keys with other parts have other bytes.

    Each part follows its length, so ("a", "bc") and ("ab", "c") are two keys.
    """
    return b"".join([b"%d %b" % (len(part), part) for part in map(key_bytes, parts)])


def _text_bytes(text: str) -> bytes:
    """Return text as UTF-8. A subclass of str may have its own encode()."""
    data: Any = text.encode()
    if type(text) is str:
        return data  # type: ignore[no-any-return]
    if not issubclass(type(data), bytes):
        raise TypeError(f"bytes expected, not {type(data).__name__}")
    return bytes(data)


def memory_integer(identity: bytes, epoch: bytes) -> bytes:
    """Write the 64 bits by which a digest is remembered: a keyed BLAKE2b, as a signed decimal."""
    value = blake2b(identity, digest_size=8, key=epoch).digest()
    return b"%d" % int.from_bytes(value, "little", signed=True)


def field_of(item: Any, field: str) -> Any:
    """Read a field of an item: the key of a mapping, else an attribute."""
    if isinstance(item, Mapping):
        return item[field]
    return getattr(item, field)


def payload(
    item: Any,
    dumps: Callable[[Any], Any] | None,
    limit: int,
    warn: Callable[[Any], object] | None = None,
) -> bytes:
    """Serialise an item. ``limit`` is the most bytes that it may have; 0 for no limit.

    ``warn`` is called with an item, such as a dict, that is stored as text without a serializer.
    """
    if dumps is None:
        kind = type(item)
        if issubclass(kind, bytes):
            data = bytes(item)
        elif issubclass(kind, str):
            data = _text_bytes(item)
        else:
            if warn is not None and _is_structure(item):
                warn(item)
            data = _text_bytes(str(item))
    else:
        data = _serialised(dumps(item))
    if limit and len(data) > limit:
        raise _too_large(data, limit)
    return data


def _too_large(data: bytes, limit: int) -> ValueError:
    return ValueError(f"item has {len(data)} bytes serialised, more than max_item_bytes={limit}")


def _is_structure(item: Any) -> bool:
    """Whether an item is of a type whose str() a user rarely means to store."""
    return isinstance(item, (dict, list, tuple, set, frozenset)) or hasattr(
        type(item), "__dataclass_fields__"
    )


def _serialised(data: Any) -> bytes:
    """Return a serializer's result as bytes."""
    kind = type(data)
    if kind is bytes:
        # A copy. An object of orjson that is freed at once costs little. 500 that are kept to the
        # end of a chunk cost twenty times as much as writing them.
        return b"%b" % data
    if issubclass(kind, str):
        return _text_bytes(data)
    if issubclass(kind, bytes):
        return bytes(data)
    raise TypeError(f"serializer.dumps must return str or bytes, {_got(data)}")


def identity(
    item: Any,
    dumps: Callable[[Any], Any] | None,
    key: str | tuple[str, ...] | Callable[[Any], Any] | None,
) -> bytes:
    """Return the member that stands for an item: the digest of its key, or its serialised bytes."""
    if key is None:
        return payload(item, dumps, 0)
    return digest(key_bytes(_key_of(item, key)))


def _key_of(item: Any, key: str | tuple[str, ...] | Callable[[Any], Any]) -> Any:
    if isinstance(key, tuple):
        return joined_key([_key_of(item, field) for field in key])
    if not isinstance(key, str):
        return key(item)
    try:
        return field_of(item, key)
    except (KeyError, AttributeError):
        raise ValueError(
            f"item of type {type(item).__name__} has no field {key!r} to be its key"
        ) from None


def score_of(item: Any, scorer: float | str | Callable[[Any], Any], timed: bool = False) -> float:
    """Score an item: by a constant, the field of that name, or a callable."""
    if isinstance(scorer, float):
        return scorer
    if not isinstance(scorer, str):
        return to_score(scorer(item), timed)
    try:
        value = field_of(item, scorer)
    except (KeyError, AttributeError):
        raise ValueError(
            f"item of type {type(item).__name__} has no field {scorer!r} to be its score"
        ) from None
    return to_score(value, timed)


class Known:
    """A table of digests of items that the server knows: the last ``most`` that were learned.

    The table grows when it is full and more than half of its digests are still valid. If it may not
    grow, the digest that was learned first is dropped. Threads may share a table.

    Parameters
    ----------
    most : int
        Largest number of digests; 0 for none.
    """

    def __init__(self, most: int) -> None:
        if most < 0:
            raise ValueError(f"most must be 0 or more, got {most} (int)")
        self._most = most
        self._room = 0
        #: The time until which each digest is valid, in the order in which they were learned.
        self._until: OrderedDict[bytes, float] = OrderedDict()
        self._lock = Lock()
        self._generation = 0

    @property
    def generation(self) -> int:
        """The number of times that the table was emptied."""
        return self._generation

    def __len__(self) -> int:
        """The number of digests in the table, valid or not."""
        return len(self._until)

    def clear(self) -> None:
        """Empty the table. It learns nothing more for an earlier generation."""
        with self._lock:
            self._until = OrderedDict()
            self._room = 0
            self._generation += 1

    def learn(
        self, digests: bytes, until: float | Sequence[float], generation: int, now: float = 0.0
    ) -> None:
        """Learn digests of 16 bytes that are valid before ``until``: one time, or one per digest.

        A digest whose time is not above 0 is not learned. If the table was emptied after
        ``generation``, nothing is learned. Digests that are not valid at ``now`` may be dropped.
        """
        count = len(digests) // 16
        if len(digests) != 16 * count:
            raise ValueError("digests must have 16 bytes each")
        times = [until] * count if isinstance(until, float) else [float(each) for each in until]
        if len(times) != count:
            raise ValueError("until must be a float, or one for each digest")
        with self._lock:
            if generation != self._generation or not self._most:
                return
            held = self._until
            for place, time in enumerate(times):
                if not time > 0.0:
                    continue
                name = digests[16 * place : 16 * place + 16]
                if name not in held and len(held) == self._room:
                    self._make_room(now)
                held[name] = time

    def _make_room(self, now: float) -> None:
        held = self._until
        if self._room == self._most:
            held.popitem(last=False)
            return
        ended = [name for name, time in held.items() if now >= time]
        if ended and 2 * len(ended) >= len(held):
            for name in ended:
                del held[name]
        else:
            self._room = min(max(2 * self._room, 256), self._most)

    def knows(self, digest: bytes, now: float) -> bool:
        """Whether a digest is in the table, and still valid."""
        if len(digest) != 16:
            raise ValueError("a digest must have 16 bytes")
        with self._lock:
            return now < self._until.get(digest, -math.inf)

    def _unknown(self, digests: Sequence[bytes], now: float) -> list[int]:
        """Return the places of the digests that are not known."""
        with self._lock:
            get = self._until.get
            return [at for at, name in enumerate(digests) if not now < get(name, -math.inf)]


def serialise(
    items: Iterable[Any],
    dumps: Callable[[Any], Any] | None,
    key: str | tuple[str, ...] | Callable[[Any], Any] | None,
    limit: int,
    warn: Callable[[Any], object] | None = None,
    known: Known | None = None,
    now: float = 0.0,
    pending: Known | None = None,
) -> tuple[list[Any], list[int]]:
    """Serialise items, except those that a table has; return them and their places.

    With ``key`` each is a pair of its bytes and its key's bytes. An item whose key a table has is
    not serialised. ``pending`` is a table of items that are going to be known; with it, of equal
    items only the first is returned.
    """
    items = list(items)
    if key is None:
        names = [payload(item, dumps, limit, warn) for item in items]
    else:
        names = [key_bytes(_key_of(item, key)) for item in items]
    # A page has most of its hyperlinks twice: to compare them costs less than a digest.
    places = list(range(len(names))) if pending is None else _firsts_of(names)
    names = [names[at] for at in places]
    for table in (known, pending):
        if table is not None:
            kept = table._unknown(digests(names), now)
            places, names = [places[at] for at in kept], [names[at] for at in kept]
    if key is None:
        return names, places
    data = [payload(items[at], dumps, limit, warn) for at in places]
    return list(zip(data, names, strict=True)), places


def _firsts_of(names: list[bytes]) -> list[int]:
    """Return the places of names that are not there before."""
    firsts: dict[bytes, int] = {}
    for at, name in enumerate(names):
        firsts.setdefault(name, at)
    return list(firsts.values())


#: Score, member, place of the first item, payload. In this order equal members (if they are not
#: folded) sort by place.
_Entry = tuple[float, bytes, int, bytes]
_PAYLOAD = itemgetter(3)
#: The most bytes of an entry besides its payload: a score, a digest, an integer, and the four
#: heads of these and of the payload.
_MOST_REST = 24 + 16 + 20 + 4 * 25
#: The bytes between one argument and the next, by the size of the next.
_GAPS = [b"\r\n$%d\r\n" % size for size in range(1024)]


def _gap(size: int) -> bytes:
    return _GAPS[size] if size < 1024 else b"\r\n$%d\r\n" % size


class Intake:
    """Accepts single items for a writer: serialises them, and appends them to a list.

    The core's needs no lock: from its last check to the append no other thread runs. This twin is
    for one thread, so a writer on the fallback does without it.

    Parameters
    ----------
    key : str, tuple of str, callable or None
        As for `Encoder`. With a key the serialised form is a pair: the item's bytes, the key's.
    limit : int
        The most bytes of a serialised item; 0 for no limit.
    """

    def __init__(
        self, key: str | tuple[str, ...] | Callable[[Any], Any] | None, limit: int
    ) -> None:
        self._key, self._limit = key, limit
        self._room = self._total = 0

    def open(self, adds: list[Any], flags: tuple[Any, ...], codec: Any, room: int) -> None:
        """Accept up to ``room`` items with these flags and this serializer, for a list.

        ``codec`` has the serializer and the scorer. The list gets three values per item: its
        serialised form, its score, and the item itself.
        """
        self._adds, self._flags = adds, flags
        self._dumps, self._warn = codec.dumps, codec.warn
        self._room = room

    def close(self) -> int:
        """Accept nothing more. Return the number of items that were accepted since the start."""
        self._room = 0
        return self._total

    def put(self, item: Any, score: Any, flags: tuple[Any, ...], codec: Any) -> bool:
        """Accept an item, or return False if that needs more checks, or if it is not open.

        It refuses a score that is not a float or a small int. It refuses flags that are not the
        same objects, and another serializer.
        """
        dumps = codec.dumps
        if not self._takes(flags, dumps):
            return False
        score = codec.scorer if score is None else score
        if type(score) is int and -_EXACT < score < _EXACT:
            score = float(score)
        if type(score) is not float or score != score:
            return False
        sent: Any = payload(item, dumps, self._limit, self._warn)
        if self._key is not None:
            sent = sent, key_bytes(_key_of(item, self._key))
        if not self._takes(flags, dumps):  # serialising may run any code
            return False
        self._adds += sent, score, item
        self._room -= 1
        self._total += 1
        return True

    def _takes(self, flags: tuple[Any, ...], dumps: Any) -> bool:
        if self._room <= 0 or dumps is not self._dumps or len(flags) != len(self._flags):
            return False
        return all(map(is_, flags, self._flags))


def _is_usual(dumps: Any, key: Any, fold: int, places: bool) -> bool:
    """Whether these are the options of a plain set of JSON, which has a faster path."""
    if type(dumps) is not MethodType or dumps.__func__ is not serializers.JSONSerializer.dumps:
        return False
    return key is None and fold == FOLD_LAST and not places


class Encoder:
    """Makes requests of chunks of items: ``prefix`` arguments, then an entry for each item.

    See the table above for the arguments of an entry.

    Parameters
    ----------
    prefix : sequence of bytes, str or int
        Arguments before the entries.
    dumps : callable or None
        Method of the serializer.
    key : str, tuple of str, callable or None
        Field, fields or function whose value is the item's key. With None the serialised bytes are
        the member.
    scorer : float, str or callable
        The score of items that come without one; a str is a field's name.
    limit : int
        The most bytes of a serialised item; 0 for no limit.
    fold : int
        Which of equal members is kept: ``FOLD_FIRST``, ``FOLD_LAST``, or all (``FOLD_NONE``).
    sort : bool
        Whether entries are sorted by score, then member. The server inserts them faster then.
    memory : int
        ``MEMORY_INTEGER`` (with ``epoch``), ``MEMORY_DIGEST`` or ``MEMORY_NONE``.
    places : bool
        Whether chunks have the place of the item of each entry.
    whole : bool
        Whether scores must be those of sets with ``ties=``. A constant score is not checked.
    timed : bool
        Whether scores are times, which may be datetimes.
    warn : callable, optional
        As for `payload`.
    """

    def __init__(
        self,
        prefix: Sequence[bytes | str | int],
        dumps: Callable[[Any], Any] | None,
        key: str | tuple[str, ...] | Callable[[Any], Any] | None,
        scorer: float | str | Callable[[Any], Any],
        limit: int,
        fold: int,
        sort: bool,
        memory: int,
        epoch: bytes,
        places: bool,
        whole: bool = False,
        timed: bool = False,
        warn: Callable[[Any], object] | None = None,
    ) -> None:
        # From the end of the array's head to the last argument, without the last line end.
        self._prefix = (b"\r\n" + _bulk_strings(prefix))[:-2]
        self._count = len(prefix)
        self._dumps = dumps
        self._key = key
        self._scorer = scorer
        self._limit = limit
        self._fold = fold
        self._sort = sort
        self._memory = memory
        self._epoch = epoch
        self._places = places
        self._whole = whole
        self._timed = timed
        self._warn = warn
        # Set if items are read list by list.
        self._write_json = dumps if _is_usual(dumps, key, fold, places) else None

    def encode(self, items: Sequence[Any], scores: Sequence[Any] | None, skip: bool) -> Chunk:
        """Encode items as one request. Unless bad items are skipped, it ends at the first one."""
        return self.encode_all(items, scores, skip, 0, 0)[0]

    def encode_all(
        self,
        items: Sequence[Any],
        scores: Sequence[Any] | None,
        skip: bool,
        most: int,
        most_bytes: int,
        known: Known | None = None,
        now: float = 0.0,
    ) -> list[Chunk]:
        """Encode items as requests of at most ``most`` entries (0: any number) each.

        A request ends before the entry with which its entries have more than ``most_bytes``.
        Members are folded and sorted over all requests. There is at least one request. The last one
        has the bad items, and counts folded items as good.

        Entries that ``known`` holds ``now`` (by the digest of the key, else of the serialised
        bytes) are dropped after folding. The last request counts them as good, too. With a key they
        are not serialised, unless an item is bad.
        """
        entries, good, bad, dropped = self._read(items, scores, skip, known, now)
        if self._sort and len(entries) > 1:
            entries.sort()
        chunks: list[Chunk] = []
        start = 0
        while True:
            some = entries[start : start + most] if most else entries[start:]
            if most and sum(map(len, map(_PAYLOAD, some))) + _MOST_REST * len(some) > most_bytes:
                some = some[: self._fitting(some, most_bytes)]
            data = b"".join(self._parts(some))
            start += len(some)
            names = b"" if known is None else b"".join(map(self._digest_of, some))
            if start == len(entries):
                chunks.append(self._chunk(data, some, good, bad, dropped, names))
                return chunks
            chunks.append(self._chunk(data, some, len(some), [], 0, names))
            good -= len(some)

    def _digest_of(self, entry: _Entry) -> bytes:
        return digest(entry[1]) if self._key is None else entry[1]

    def _read(
        self,
        items: Sequence[Any],
        scores: Sequence[Any] | None,
        skip: bool,
        known: Known | None,
        now: float,
    ) -> tuple[list[_Entry], int, list[Bad], int]:
        """Return entries, number of good items, the bad ones, and number of dropped entries."""
        key = self._key
        if self._fold and type(items) in (list, tuple) and len(items) > 1:
            try:
                if key is not None:
                    some, good, dropped = self._read_by_key(items, scores, key, known, now)
                    return some, good, [], dropped
                if self._write_json is not None:
                    some, good = self._read_json(self._write_json, items, scores)
                    some, dropped = self._without_known(some, known, now)
                    return some, good, [], dropped
            except Exception:
                pass  # Reading the items one by one names the bad one.
        some, good, bad = self._read_one_by_one(items, scores, skip)
        some, dropped = self._without_known(some, known, now)
        return some, good, bad, dropped

    def _read_one_by_one(
        self, items: Sequence[Any], scores: Sequence[Any] | None, skip: bool
    ) -> tuple[list[_Entry], int, list[Bad]]:
        """Return the entries, the number of good items, and the bad ones."""
        dumps, key, limit, fold = self._dumps, self._key, self._limit, self._fold
        scorer = self._scorer
        entries: list[_Entry] = []
        rows: dict[bytes, int] = {}
        bad: list[Bad] = []
        good = 0
        for place, item in enumerate(items):
            try:
                # The usual case is written out here: calls took half of the time.
                if dumps is None:
                    data = payload(item, dumps, limit, self._warn)
                else:
                    data = dumps(item)
                    data = b"%b" % data if type(data) is bytes else _serialised(data)
                    if limit and len(data) > limit:
                        raise _too_large(data, limit)
                member = data if key is None else digest(key_bytes(_key_of(item, key)))
                if scores is None:
                    score = scorer if type(scorer) is float else score_of(item, scorer, self._timed)
                else:
                    score = scores[place]
                    # An int is sorted and written as its float would be.
                    if type(score) is not int or not -_EXACT < score < _EXACT:
                        score = to_score(score, self._timed)
                if self._whole:
                    whole_score(score)
            except Exception as error:
                bad.append(Bad(place, item, error))
                if skip:
                    continue
                break
            good += 1
            if fold:
                row = rows.setdefault(member, len(entries))
                if row < len(entries):
                    if fold == FOLD_LAST:
                        entries[row] = (score, member, entries[row][2], data)
                    continue
            entries.append((score, member, place, data))
        return entries, good, bad

    def _without_known(
        self, entries: list[_Entry], known: Known | None, now: float
    ) -> tuple[list[_Entry], int]:
        if known is None:
            return entries, 0
        new = known._unknown([self._digest_of(entry) for entry in entries], now)
        return [entries[place] for place in new], len(entries) - len(new)

    def _read_by_key(
        self,
        items: Sequence[Any],
        scores: Sequence[Any] | None,
        key: str | tuple[str, ...] | Callable[[Any], Any],
        known: Known | None,
        now: float,
    ) -> tuple[list[_Entry], int, int]:
        """Fold by the bytes of keys. Digest only kept entries, serialise only unknown ones."""
        found: list[tuple[float, bytes, Any, int]] = []
        rows: dict[bytes, int] = {}
        good = 0  # Not the length of the list, which the calls may change.
        for place, item in enumerate(items):
            good += 1
            name = key_bytes(_key_of(item, key))
            score = self._score(item, scores, place)
            row = rows.setdefault(name, len(found))
            if row == len(found):
                found.append((score, name, item, place))
            elif self._fold == FOLD_LAST:
                found[row] = (score, name, item, found[row][3])
        names = digests([name for _, name, _, _ in found])
        new = range(len(names)) if known is None else known._unknown(names, now)
        entries = []
        for row in new:
            score, _, item, place = found[row]
            data = payload(item, self._dumps, self._limit)
            entries.append((score, names[row], place, data))
        return entries, good, len(found) - len(entries)

    def _read_json(
        self, dumps: Callable[[Any], Any], items: Sequence[Any], scores: Sequence[Any] | None
    ) -> tuple[list[_Entry], int]:
        """Read a plain list of JSON list by list, in half of the time. Raise if it is not plain."""
        members = serializers._dumps_flat(items)
        if members is None:
            # Copies: see _serialised().
            members = [b"%b" % data for data in map(dumps, items)]
        if self._limit and members and max(map(len, members)) > self._limit:
            raise ValueError  # reading the items one by one names it
        last: dict[bytes, float]
        if scores is None:
            if type(self._scorer) is not float:
                raise TypeError
            last = dict.fromkeys(members, self._scorer)
        else:
            if not (_INT.issuperset(map(type, scores)) and len(scores) == len(members)):
                raise TypeError
            least, most = (_LEAST, _MOST) if self._whole else (1 - _EXACT, _EXACT - 1)
            if not least <= min(scores) <= max(scores) <= most:
                raise ValueError
            last = dict(zip(members, scores, strict=True))
        return [(score, member, 0, member) for member, score in last.items()], len(members)

    def _score(self, item: Any, scores: Sequence[Any] | None, index: int) -> float:
        if scores is None:
            score = score_of(item, self._scorer, self._timed)
        else:
            score = to_score(scores[index], self._timed)
        return whole_score(score) if self._whole else score

    def _parts(self, entries: list[_Entry]) -> list[bytes]:
        """Return the arguments of entries in pieces. Joining takes half as long as formatting.

        The first piece ends the argument before it. The last argument has no line end. Pieces are
        made column by column, in loops without Python code.
        """
        if not entries:
            return []
        scores, members, _, payloads = zip(*entries, strict=True)
        columns: list[Sequence[bytes]] = [
            [b"%d" % score if type(score) is int else score_text(score) for score in scores],
            members,
        ]
        if self._key is not None:
            columns.append(payloads)
        if self._memory:
            names = members if self._key is not None else digests(members)
            if self._memory == MEMORY_INTEGER:
                names = [memory_integer(name, self._epoch) for name in names]
            columns.append(names)
        width = 2 * len(columns)
        parts = [b""] * (width * len(entries))
        for at, column in enumerate(columns):
            sizes = list(map(len, column))
            gap = _GAPS.__getitem__ if max(sizes) < len(_GAPS) else _gap
            parts[2 * at :: width] = map(gap, sizes)
            parts[2 * at + 1 :: width] = column
        return parts

    def _fitting(self, entries: list[_Entry], most_bytes: int) -> int:
        """Return the number of first entries with at most so many bytes, at least 1."""
        size = 0
        for at, entry in enumerate(entries):
            size += sum(map(len, self._parts([entry])))
            if at and size > most_bytes:
                return at
        return len(entries)

    def _chunk(
        self,
        data: bytes,
        entries: list[_Entry],
        good: int,
        bad: list[Bad],
        dropped: int,
        names: bytes,
    ) -> Chunk:
        places = [entry[2] for entry in entries] if self._places else None
        if not entries:
            return Chunk(b"", 0, good, places, bad, dropped, names)
        columns = 2 + (self._key is not None) + (self._memory != MEMORY_NONE)
        head = b"*%d" % (self._count + columns * len(entries))
        whole = b"".join((head, self._prefix, data, b"\r\n"))
        return Chunk(whole, len(entries), good, places, bad, dropped, names)


def decode(
    raws: Iterable[bytes],
    loads: Callable[[Any], Any] | None,
    binary: bool | None,
) -> tuple[list[Any], list[Bad]]:
    """Deserialise members. Return the items, and the bad members.

    ``loads`` receives bytes if ``binary`` is True, and text if it is False. If ``binary`` is None
    it receives text first, and then bytes if they are not text or it raised.
    """
    items: list[Any] = []
    bad: list[Bad] = []
    for index, raw in enumerate(raws):
        try:
            if loads is None:
                items.append(raw.decode())
            elif binary:
                items.append(loads(raw))
            elif binary is None:
                items.append(_loads_either(raw, loads))
            else:
                items.append(loads(raw.decode()))
        except Exception as error:
            bad.append(Bad(index, raw, error))
    return items, bad


def _loads_either(raw: bytes, loads: Callable[[Any], Any]) -> Any:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return loads(raw)
    try:
        return loads(text)
    except Exception as error:
        try:
            return loads(raw)
        except Exception:
            raise error from None
