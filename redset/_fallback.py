"""The wire format in Python: the specification that the compiled core follows to the byte."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from operator import itemgetter
from typing import Any, NamedTuple

IMPLEMENTATION = "python"

#: What an encoder's ``fold`` says about equal members of one chunk.
FOLD_NONE, FOLD_FIRST, FOLD_LAST = 0, 1, 2
#: What an encoder's ``memory`` adds to each entry: nothing, the bucketed integer, the digest.
MEMORY_NONE, MEMORY_INTEGER, MEMORY_DIGEST = 0, 1, 2

_EXACT = float(2**53)


class Bad(NamedTuple):
    """An item that could not be encoded: its place in the list given, itself, and why."""

    place: int
    item: Any
    error: Exception


class Chunk(NamedTuple):
    """A request made from a list of items.

    ``data`` is empty where nothing is to be sent. ``good`` items went in as ``entries`` entries
    (fewer where equals were folded); ``positions`` names the first item of each entry.
    """

    data: bytes
    entries: int
    good: int
    positions: list[int] | None
    bad: list[Bad]


def encode(arguments: Sequence[bytes | str | int]) -> bytes:
    """Encode one command as a RESP array of bulk strings (https://redis.io/docs/reference/protocol-spec/)."""
    return b"*%d\r\n%b" % (len(arguments), bulk(arguments))


def bulk(arguments: Iterable[bytes | str | int]) -> bytes:
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
            # What it holds, whatever it says of its length.
            argument = bytes(memoryview(argument))
        parts.append(b"$%d\r\n%b\r\n" % (len(argument), argument))
    return b"".join(parts)


def split(data: bytes) -> list[list[bytes]]:
    """Take a request of one or more commands apart into the arguments of each."""
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


def to_score(value: Any) -> float:
    """Give a score as a float; TypeError or ValueError name what is wrong with it."""
    if type(value) is float and value == value:
        return value
    try:
        score = float(value)
    except TypeError:
        raise TypeError(f"score must be a number, not {type(value).__name__}") from None
    except OverflowError:
        raise ValueError("score is an int too large for a float") from None
    except ValueError:
        raise ValueError(
            f"score must be a number, not a {type(value).__name__} that is none"
        ) from None
    if score != score:
        raise ValueError("score must not be NaN")
    return score


def score_text(score: float) -> bytes:
    """Write a score with the fewest digits that give it back."""
    if score.is_integer() and -_EXACT < score < _EXACT:
        return str(int(score)).encode()
    return repr(score).encode()


def digest(data: bytes) -> bytes:
    """BLAKE2b with 16 bytes of output (RFC 7693)."""
    return blake2b(data, digest_size=16).digest()


def digests(values: Iterable[bytes]) -> list[bytes]:
    """Digest each value."""
    return [blake2b(value, digest_size=16).digest() for value in values]


def key_bytes(key: Any) -> bytes:
    """Give the bytes of an identity: 1, "1" and b"1" are one key."""
    # Not isinstance(), here and below, which believes what an object calls its class.
    kind = type(key)
    if issubclass(kind, bytes):
        return bytes(key)
    if issubclass(kind, str):
        return _text_bytes(key)
    if issubclass(kind, int):
        return b"%d" % key
    raise TypeError(f"key must be str, bytes or int, not {type(key).__name__}")


def _text_bytes(text: str) -> bytes:
    """Give text as UTF-8; a subclass of str, what it makes of itself."""
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


def memory_integers(identities: Iterable[bytes], epoch: bytes) -> list[bytes]:
    """Write the memory's integer of each digest."""
    return [memory_integer(identity, epoch) for identity in identities]


def field_of(item: Any, field: str) -> Any:
    """Read a field of an item: the key of a mapping, else an attribute."""
    if isinstance(item, Mapping):
        return item[field]
    return getattr(item, field)


def payload(item: Any, dumps: Callable[[Any], Any] | None, limit: int) -> bytes:
    """Serialise an item; ``limit`` is the most bytes that it may have (0: any number)."""
    if dumps is None:
        kind = type(item)
        if issubclass(kind, bytes):
            data = bytes(item)
        else:
            data = _text_bytes(item if issubclass(kind, str) else str(item))
    else:
        data = dumps(item)
        kind = type(data)
        if issubclass(kind, str):
            data = _text_bytes(data)
        elif issubclass(kind, bytes):
            # A copy: an object of orjson's that is let go at once costs little, 500 that are kept
            # to the end of a chunk cost twenty times as much as writing them.
            data = b"%b" % data if kind is bytes else bytes(data)
        else:
            raise TypeError(f"serializer.dumps must return str or bytes, not {type(data).__name__}")
    if limit and len(data) > limit:
        raise ValueError(f"item has {len(data)} bytes serialised, more than max_item_bytes={limit}")
    return data


def identity(
    item: Any,
    dumps: Callable[[Any], Any] | None,
    key: str | Callable[[Any], Any] | None,
) -> bytes:
    """Give the member that stands for an item: the digest of its key, or its serialised bytes."""
    if key is None:
        return payload(item, dumps, 0)
    return digest(key_bytes(_key_of(item, key)))


def identities(
    items: Iterable[Any],
    dumps: Callable[[Any], Any] | None,
    key: str | Callable[[Any], Any] | None,
) -> list[bytes]:
    """Give the member of each item."""
    return [identity(item, dumps, key) for item in items]


def _key_of(item: Any, key: str | Callable[[Any], Any]) -> Any:
    if not isinstance(key, str):
        return key(item)
    try:
        return field_of(item, key)
    except (KeyError, AttributeError):
        raise ValueError(
            f"item of type {type(item).__name__} has no field {key!r} to be its key"
        ) from None


def score_of(item: Any, scorer: float | str | Callable[[Any], Any]) -> float:
    """Score an item: by a constant, the field of that name, or a callable."""
    if isinstance(scorer, float):
        return scorer
    if not isinstance(scorer, str):
        return to_score(scorer(item))
    try:
        value = field_of(item, scorer)
    except (KeyError, AttributeError):
        raise ValueError(
            f"item of type {type(item).__name__} has no field {scorer!r} to be its score"
        ) from None
    return to_score(value)


#: Score, member, payload, and the place of the first item that it stands for.
_Entry = tuple[float, bytes, bytes, int]
_SCORE_AND_MEMBER = itemgetter(0, 1)
_HEADS = [b"$%d\r\n" % size for size in range(1024)]


def _head(size: int) -> bytes:
    return _HEADS[size] if size < 1024 else b"$%d\r\n" % size


class Encoder:
    """Makes requests of chunks of items: ``prefix`` arguments, then an entry for each item.

    An entry is score, member, with ``key`` the payload, and what ``memory`` says.

    Parameters
    ----------
    prefix : sequence of bytes, str or int
        The arguments in front.
    dumps : callable or None
        The serializer's.
    key : str, callable or None
        Gives the identity; None makes the serialised bytes the member.
    scorer : float, str or callable
        The score of items that come without one; a str is a field's name.
    limit : int
        The most bytes of a serialised item; 0 is no limit.
    fold : int
        ``FOLD_FIRST``, ``FOLD_LAST``: of equal members one stays. ``FOLD_NONE`` keeps all.
    sort : bool
        Order the entries by score, then member: the server inserts them faster so.
    memory : int
        ``MEMORY_INTEGER`` (with ``epoch``), ``MEMORY_DIGEST`` or ``MEMORY_NONE``.
    positions : bool
        Whether chunks say which item each entry came from.
    """

    def __init__(
        self,
        prefix: Sequence[bytes | str | int],
        dumps: Callable[[Any], Any] | None,
        key: str | Callable[[Any], Any] | None,
        scorer: float | str | Callable[[Any], Any],
        limit: int,
        fold: int,
        sort: bool,
        memory: int,
        epoch: bytes,
        positions: bool,
    ) -> None:
        self._prefix = bulk(prefix)
        self._count = len(prefix)
        self._dumps = dumps
        self._key = key
        self._scorer = scorer
        self._limit = limit
        self._fold = fold
        self._sort = sort
        self._memory = memory
        self._epoch = epoch
        self._positions = positions

    def encode(self, items: Sequence[Any], scores: Sequence[Any] | None, skip: bool) -> Chunk:
        """Encode items as one request; the first bad one ends it, unless they are to be skipped."""
        return self.encode_all(items, scores, skip, 0, 0)[0]

    def encode_all(
        self,
        items: Sequence[Any],
        scores: Sequence[Any] | None,
        skip: bool,
        most: int,
        most_bytes: int,
    ) -> list[Chunk]:
        """Encode items as requests of at most ``most`` entries (0: any number) each.

        A request ends early with the entry that would make all entries of it larger than
        ``most_bytes``. Members are folded and sorted over all requests. There is at least one
        request; the last one has what is bad, and counts what was folded as good.
        """
        entries, good, bad = self._read(items, scores, skip)
        if self._sort and len(entries) > 1:
            entries.sort(key=_SCORE_AND_MEMBER)
        chunks: list[Chunk] = []
        lines: list[bytes] = []
        size = start = 0
        for at, entry in enumerate(entries):
            line = self._line(entry)
            if most and lines and (len(lines) == most or size + len(line) > most_bytes):
                chunks.append(self._chunk(lines, entries[start:at], len(lines), []))
                good -= len(lines)
                lines, size, start = [], 0, at
            lines.append(line)
            size += len(line)
        chunks.append(self._chunk(lines, entries[start:], good, bad))
        return chunks

    def _read(
        self, items: Sequence[Any], scores: Sequence[Any] | None, skip: bool
    ) -> tuple[list[_Entry], int, list[Bad]]:
        dumps, key, limit, fold = self._dumps, self._key, self._limit, self._fold
        if key is not None and fold and type(items) in (list, tuple) and len(items) > 1:
            try:
                return *self._read_by_key(items, scores, key), []
            except Exception:
                pass  # Item by item it comes out which one it is.
        entries: list[_Entry] = []
        places: dict[bytes, int] = {}
        bad: list[Bad] = []
        good = 0
        for index, item in enumerate(items):
            try:
                data = payload(item, dumps, limit)
                member = data if key is None else digest(key_bytes(_key_of(item, key)))
                score = self._score(item, scores, index)
            except Exception as error:
                bad.append(Bad(index, item, error))
                if skip:
                    continue
                break
            good += 1
            if fold:
                place = places.setdefault(member, len(entries))
                if place < len(entries):
                    if fold == FOLD_LAST:
                        entries[place] = (score, member, data, entries[place][3])
                    continue
            entries.append((score, member, data, index))
        return entries, good, bad

    def _read_by_key(
        self,
        items: Sequence[Any],
        scores: Sequence[Any] | None,
        key: str | Callable[[Any], Any],
    ) -> tuple[list[_Entry], int]:
        """Fold by the bytes of the keys: only what stays is digested and serialised."""
        found: list[tuple[float, bytes, Any, int]] = []
        places: dict[bytes, int] = {}
        good = 0  # Not the length of the list, which what is called may change.
        for index, item in enumerate(items):
            good += 1
            name = key_bytes(_key_of(item, key))
            score = self._score(item, scores, index)
            place = places.setdefault(name, len(found))
            if place == len(found):
                found.append((score, name, item, index))
            elif self._fold == FOLD_LAST:
                found[place] = (score, name, item, found[place][3])
        entries = [
            (score, digest(name), payload(item, self._dumps, self._limit), index)
            for score, name, item, index in found
        ]
        return entries, good

    def _score(self, item: Any, scores: Sequence[Any] | None, index: int) -> float:
        if scores is not None:
            return to_score(scores[index])
        return score_of(item, self._scorer)

    def _line(self, entry: _Entry) -> bytes:
        """Write the arguments of an entry."""
        score, member, data, _ = entry
        text = score_text(score)
        # A join of parts takes half as long as the % of bulk().
        parts = [_head(len(text)), text, b"\r\n", _head(len(member)), member, b"\r\n"]
        if self._key is not None:
            parts += (_head(len(data)), data, b"\r\n")
        if self._memory:
            known = member if self._key is not None else digest(member)
            if self._memory == MEMORY_INTEGER:
                known = memory_integer(known, self._epoch)
            parts += (_head(len(known)), known, b"\r\n")
        return b"".join(parts)

    def _chunk(self, lines: list[bytes], entries: list[_Entry], good: int, bad: list[Bad]) -> Chunk:
        positions = [entry[3] for entry in entries] if self._positions else None
        if not lines:
            return Chunk(b"", 0, 0, positions, bad)
        columns = 2 + (self._key is not None) + (self._memory != MEMORY_NONE)
        head = b"*%d\r\n" % (self._count + columns * len(lines))
        return Chunk(b"".join([head, self._prefix, *lines]), len(lines), good, positions, bad)


def decode(
    raws: Iterable[bytes],
    loads: Callable[[Any], Any] | None,
    binary: bool | None,
) -> tuple[list[Any], list[Bad]]:
    """Deserialise members; those that cannot be are told apart.

    ``binary`` says what ``loads`` is given: bytes, text, or (None) the text, and the bytes where
    there is no text or ``loads`` raised on it.
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
