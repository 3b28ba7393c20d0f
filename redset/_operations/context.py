"""Context of an operation: the options of its set, and its knowledge of the server."""

from __future__ import annotations

import copy
import datetime
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from time import monotonic
from types import ModuleType
from typing import Any, TypeVar

from redset import _wire
from redset._operations.keys import Keys, owner_of
from redset._operations.replies import Reader, bytes_of, listed, number, optional
from redset._transport.effects import PAUSE, Ask, Operation
from redset.exceptions import OptionsDiffer
from redset.interfaces import Serializer
from redset.scripts import Script, script
from redset.serializers import JSONSerializer

T = TypeVar("T")

DUPLICATES = {"move": "", "keep": "nx", "lowest": "lt", "highest": "gt"}

#: Items a chunk of a bulk add by command and by script, and chunks in flight. Larger ones keep
#: the server from its other clients for milliseconds, smaller ones gain nothing.
CHUNK = 500
SCRIPT_CHUNK = 250
WINDOW = 4
#: The same while a memory takes most of what a chunk brings, which keeps the server several times
#: as long as refusing it; all that is in flight may be performed before another client's request.
HEAVY_CHUNK = 125
HEAVY_WINDOW = 2
#: Bytes of a chunk's entries, of which a single larger one is a chunk of its own.
CHUNK_BYTES = 2**20
#: Bytes of members and payloads that any other step reads or carries, unless a single item is
#: larger; as BYTES in portions.lua.
STEP_BYTES = 2**18
#: The most items that a step reads before it knows their size.
FIRST = 16
#: The most bytes of a serialised item by default: what a server takes as one argument by default
#: (proto-max-bulk-len, 512 MB), less a margin.
ITEM_BYTES = 2**29 - 2**16
#: Items that a bulk add folds and sorts together, before it cuts what stays into chunks.
FOLD = 1000
#: Encoders that a set keeps for its next bulk add.
ENCODERS = 8
#: Identities a step of the other bulk calls; of those that ask or change a memory, whose every
#: entry is a command of its own, half as many.
STEP = 1000
MEMORY_STEP = 500
#: Items encoded or decoded between two pauses.
RUN = 250
#: Items a step of leases and settlements, and the most expired leases that a step gives back.
LEASE_STEP = 100
#: With ``ties=`` a stored score is the user's times this, plus what orders equal ones.
TIE = 2**40
#: Errors of the process and what is around it, not of an item that is decoded: a memory that is
#: full, a schema's server that is gone, a module that is missing.
NOT_OF_ITEM = (MemoryError, OSError, ImportError)
#: Characters of an error's text that are kept.
TEXT = 1000


class Key:
    """Stands for an item by its key, wherever a set with ``key=`` is asked about an item.

    Parameters
    ----------
    key : str, bytes or int, or a tuple of them
        What the set's ``key`` gives for the item; 1, ``"1"`` and ``b"1"`` are one key. A tuple if
        the set's ``key`` is one.

    Raises
    ------
    TypeError
        If the key is none of those.

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
                    f"key must be a tuple of str, bytes or int, one for each field, got {key!r}"
                )
        elif not isinstance(key, (str, bytes, int)):
            raise TypeError(f"key must be str, bytes or int, not {type(key).__name__}")
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
    """The format without a serializer: an item's bytes, else its text in UTF-8."""

    def dumps(self, obj: Any) -> bytes:
        return _wire.DEFAULT.payload(obj, None, 0)  # type: ignore[no-any-return]

    def loads(self, data: bytes | str) -> str:
        return data.decode() if isinstance(data, bytes) else data


class UnserializedWarning:
    """Warns once that what is not a text is stored as ``str(item)``, and comes out as that."""

    __slots__ = ("_name", "_warned")

    def __init__(self, name: Any) -> None:
        self._name = name
        self._warned = False

    def __call__(self, item: Any) -> None:
        if self._warned:
            return
        self._warned = True
        # At the caller's line.
        level, frame = 1, sys._getframe()
        while frame.f_back is not None and _is_ours(frame):
            level, frame = level + 1, frame.f_back
        warnings.warn(
            f"the set {self._name!r} has no serializer: its items of type {type(item).__name__} "
            "are stored as str(item) and come out as text; serializer=json keeps what they are",
            UserWarning,
            stacklevel=level,
        )


def _is_ours(frame: Any) -> bool:
    name: str = frame.f_globals.get("__name__", "")
    return name == "redset" or name.startswith("redset.")


_JSON, _TEXT = JSONSerializer(), TextSerializer()


class Context:
    """The name, codec and options of one set, checked; and what it has learned of its server."""

    __slots__ = (
        "adders",
        "alone",
        "binary",
        "clock",
        "condition",
        "due",
        "dumps",
        "encoders",
        "epoch",
        "fresh",
        "key",
        "keys",
        "known_max",
        "loads",
        "largest",
        "looked",
        "max_attempts",
        "max_item_bytes",
        "max_size",
        "multi",
        "name",
        "next_check",
        "next_look",
        "options",
        "origin",
        "reached",
        "recorded",
        "remember",
        "scorer",
        "serializer",
        "tabled",
        "tables",
        "ties",
        "trust",
        "ttl",
        "unanswered",
        "used",
        "warn",
        "wire",
    )

    def __init__(
        self,
        wire: ModuleType,
        name: str | bytes,
        scorer: Any,
        serializer: Any,
        *,
        key: Any,
        remember: Any,
        duplicates: Any,
        ties: Any,
        max_attempts: Any,
        max_item_bytes: Any,
        max_size: Any,
        known_max: Any,
        due: bool,
    ) -> None:
        self.wire = wire
        self.name = name
        self.key = _checked_key(key)
        self.ties = _checked_ties(ties)
        self.keys = Keys(checked_name(name), key is not None, bool(self.ties))
        self.remember, self.ttl = _checked_remember(remember)
        self.condition = _checked_duplicates(duplicates)
        self.max_attempts = _checked_limit("max_attempts", max_attempts)
        self.max_item_bytes = _checked_limit("max_item_bytes", max_item_bytes) or ITEM_BYTES
        self.max_size = _checked_limit("max_size", max_size)
        self.known_max = _checked_known_max(known_max)
        self.due = due
        #: What the last check of the table of known duplicates found, when the next may be, and
        #: when an add last looked.
        self.trust: Any = None
        #: The set's own context, of one `of_serialised`.
        self.origin: Context | None = None
        #: Whether a table of what is known may answer for the server.
        self.tabled = bool(self.remember and self.known_max)
        #: The tables that did, where somebody wants to know.
        self.tables: set[Any] | None = None
        self.next_check = self.used = -math.inf
        self.epoch: bytes | None = None
        #: Whether the server takes a MULTI from this user; None until the first answer.
        self.multi: bool | None = None
        #: Bytes of the largest item that was read, and the most items that one step handed out.
        self.largest = self.reached = 0
        #: Whether the user was last refused the keys beside the queue.
        self.alone = False
        #: Whether the set had records of leases when a `pop` or `take` last asked, and when the
        #: next may ask again.
        self.recorded = False
        self.next_look = -math.inf
        #: Whether no bulk add has ended yet.
        self.fresh = True
        #: What single adds use again: how to encode for these flags.
        self.adders: dict[Any, Any] = {}
        #: Process, token and number of lease calls that failed: the server may have performed them.
        self.unanswered: list[tuple[int, bytes, int]] = []
        #: Encoders of bulk adds, by all that they were made with.
        self.encoders: dict[Any, Any] = {}
        self.options = (
            f"key={'yes' if key is not None else 'no'} remember={self.remember or 'no'} "
            f"ties={self.ties or 'no'}"
        )
        #: What tells the server's time, if anything asked for it.
        self.clock: ServerClock | None = None
        self.use_scorer(scorer)
        self.use_serializer(serializer)
        if key is not None or remember is not None or self.ties:
            _ = self.keys.meta  # a name that cannot have second keys is refused here

    @property
    def keyed(self) -> bool:
        return self.key is not None

    @property
    def plain(self) -> bool:
        """Whether redset 0.5.1 can read the queue: a user of its rights may use that key alone."""
        return self.keys.queue == self.keys.name

    @property
    def marked(self) -> bool:
        """Whether the set has a meta, which says so."""
        return bool(self.keyed or self.remember or self.ties)

    def clock_ahead(self, seconds: float) -> Ahead:
        """Return what scores items that are due so long from now."""
        if self.clock is None:
            self.clock = ServerClock()
        return Ahead(self.clock, seconds)

    def to_score(self, score: Any) -> float:
        """Check a score that is given; ``ties=`` takes few."""
        found: float = self.wire.to_score(score, self.due)
        return self.wire.whole_score(found) if self.ties else found

    def told(self, stored: float) -> float:
        """Return the score that was given, of the one that is stored."""
        # Infinite ones are none of redset's.
        return stored // TIE if self.ties and math.isfinite(stored) else stored

    def tie_of(self, stored: float) -> int:
        """Return the how-manieth item it was that the set took, of its stored score."""
        tie = int(stored % TIE)
        return tie if self.ties == "fifo" else TIE - 1 - tie

    def stored(self, score: float, tie: int) -> bytes:
        """Return what is stored for a score, and the how-manieth item it is."""
        return b"%d" % (int(score) * TIE + (tie if self.ties == "fifo" else TIE - 1 - tie))

    def use_scorer(self, scorer: Any) -> None:
        """Take a scorer: a callable of the item, the name of a field, or None for 0."""
        if not (scorer is None or callable(scorer) or isinstance(scorer, str)):
            raise TypeError(
                f"scorer must be a callable or the name of a field, not {type(scorer).__name__}"
            )
        self.scorer: Any = 0.0 if scorer is None else scorer
        if type(scorer) is ServerClock:
            self.clock = scorer
        self.adders.clear()

    def use_serializer(self, serializer: Any) -> None:
        """Take a serializer, or None for the default. The next removal looks before it removes."""
        default = _JSON if self.keyed else _TEXT
        self.serializer = default if serializer is None else serializer
        # One that can do neither counts as none.
        used = self.serializer
        if _method(used, "dumps") is None and _method(used, "loads") is None:
            used = default
        text = type(used) is TextSerializer
        self.warn = UnserializedWarning(self.name) if text else None
        self.dumps: Callable[[Any], Any] | None = None if text else _method(used, "dumps")
        self.loads: Callable[[Any], Any] | None = None if text else _method(used, "loads")
        binary = getattr(used, "binary", None)
        self.binary: bool | None = None if binary is None else bool(binary)
        self.looked = False
        self.adders.clear()

    def identity(self, item: Any) -> bytes:
        """Return the member that stands for an item, or for a Key."""
        if type(item) is Key:
            data = bytes(item)
            return self.wire.digest(data) if self.keyed else data
        return self.wire.identity(item, self.dumps, self.key)  # type: ignore[no-any-return]

    def serialise(self, item: Any) -> Any:
        """Return what stands for an item in a context `of_serialised`: its bytes, and its key's."""
        data = self.wire.payload(item, self.dumps, self.max_item_bytes, self.warn)
        return (data, self.key_bytes(item)) if self.keyed else data

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
            self.identity(item)  # says what is wrong
            raise

    def member_of(self, serialised: Any) -> bytes:
        """Return the member that stands for a serialised item."""
        member: bytes = self.wire.digest(serialised[1]) if self.keyed else serialised
        return member

    def of_serialised(self) -> Context:
        """Return a context for the same set whose items are what `serialise` gave."""
        made = copy.copy(self)
        made.adders, made.encoders, made.tables, made.origin = {}, {}, set(), self
        made.dumps, made.max_item_bytes, made.warn = None, 0, None
        if self.keyed:
            made.dumps, made.key = itemgetter(0), itemgetter(1)
        return made

    def identities(self, items: list[Any], first: int = 0) -> Operation[list[bytes]]:
        """Return the member of each item or Key; ``first`` is the place of the first of them."""
        members = []
        for at, item in enumerate(items):
            if at and at % RUN == 0:
                yield PAUSE
            try:
                members.append(self.identity(item))
            except (TypeError, ValueError) as error:
                kind = ValueError if isinstance(error, UnicodeError) else type(error)
                if kind not in (TypeError, ValueError):
                    raise
                raise kind(f"item {first + at}: {error}") from error
        return members

    def memory_tokens(self, members: list[bytes], epoch: bytes) -> list[bytes]:
        """Return what the memory keeps of each member under an epoch."""
        wire = self.wire
        if not self.keyed:
            members = wire.digests(members)
        if self.remember == "limited":
            return members
        return [wire.memory_integer(member, epoch) for member in members]

    @property
    def first(self) -> int:
        """Return how many items a step reads at first: one until an item's size is known."""
        return max(1, min(FIRST, STEP_BYTES // self.largest)) if self.largest else 1

    @property
    def most_unseen(self) -> int:
        """Return the most items that a command may read, which cannot end after so many bytes.

        The command reads at most twice as many as any step before it.
        """
        return max(1, min(max(FIRST, 2 * self.reached), STEP_BYTES // max(self.largest, 1)))

    def note_sizes(self, raws: list[bytes]) -> None:
        """Learn the size of the largest item."""
        if raws:
            self.largest = max(self.largest, max(map(len, raws)))

    def decode(self, raws: list[bytes]) -> Operation[tuple[list[Any], list[Any]]]:
        """Deserialise members: those that can be, and a Bad for each of the others."""
        self.note_sizes(raws)
        items, bad = self.wire.decode(raws[:RUN], self.loads, self.binary)
        for at in range(RUN, len(raws), RUN):
            yield PAUSE
            more, worse = self.wire.decode(raws[at : at + RUN], self.loads, self.binary)
            items += more
            bad += [each._replace(place=at + each.place) for each in worse]
        return items, bad

    def decode_one(self, raw: bytes) -> Any:
        """Deserialise one member; its exception is raised."""
        self.note_sizes([raw])
        items, bad = self.wire.decode((raw,), self.loads, self.binary)
        if bad:
            raise bad[0].error
        return items[0]

    def step(
        self,
        name: str,
        reads: Reader[Any],
        rest: Sequence[Any] = (),
        keys: Mapping[str, bytes] | None = None,
        resend: bool = True,
        **arguments: Any,
    ) -> Ask:
        """Make the effect that runs a script.

        Parameters
        ----------
        name : str
            The script's.
        reads : Reader
            It takes the reply.
        rest : Sequence
            What stands behind the arguments that have names.
        keys : Mapping
            Its keys by name, where they are not this set's as the script declares them.
        resend : bool
            Whether it may be sent again after its connection was lost.
        **arguments
            What the script declares.
        """
        step = script(name)
        request = self.request(step, arguments, rest, keys)
        return Ask(self.wire.encode(request), 1, step, resend, reads)

    def request(
        self,
        step: Script,
        arguments: Mapping[str, Any],
        rest: Sequence[Any] = (),
        keys: Mapping[str, bytes] | None = None,
    ) -> list[Any]:
        """Return the arguments of an EVALSHA, as `step` takes them."""
        names: Sequence[bytes]
        if keys is None:
            second = self.keys.prefix is not None
            names = step.keys_of(self.keys, second, self.marked, self.keyed)
        else:
            names = step.keys_given(keys)
        values = step.arguments.values(arguments)
        return [b"EVALSHA", step.sha, len(names), *names, *values, *rest]

    def command(
        self, *arguments: bytes | str | int, reads: Reader[Any], resend: bool = True
    ) -> Ask:
        """Make the effect that performs a command; ``reads`` takes its reply."""
        return Ask(self.wire.encode(arguments), 1, None, resend, reads)

    def believe(self, trust: Any) -> None:
        """Set what may be trusted; what a writer's context learns holds for its set as well."""
        self.trust = trust
        if self.origin is not None:
            self.origin.trust = trust

    def need_memory(self, argument: str) -> None:
        if not self.remember:
            raise ValueError(f"{argument} needs a set with remember=, and this one has none")

    def know_epoch(self) -> Operation[bytes | None]:
        """Return the memory's epoch, asked for once; None if the set has none.

        Another thread may learn another: a step goes by what it was given.
        """
        epoch = self.epoch
        if epoch is None:
            stored = yield self.command(b"HGET", self.keys.meta, b"epoch", reads=optional(bytes_of))
            self.epoch = epoch = stored or None
        return epoch

    def nothing(self) -> str:
        """Say that there is nothing to hand out."""
        name = self.name
        return f"nothing is due yet in {name!r}" if self.due else f"the set {name!r} is empty"

    def tell_other_options(self, theirs: bytes) -> OptionsDiffer:
        return OptionsDiffer(
            f"the set {self.name!r} was made with {theirs.decode('utf-8', 'replace')}, "
            f"this object has {self.options}"
        )

    def tell_plain_items(self) -> OptionsDiffer:
        return OptionsDiffer(
            f"this object has {self.options}, but the key {self.name!r} exists, or what it held "
            f"is leased: a process without {'key=' if self.keyed else 'ties='} writes to it, or "
            "items from before are there"
        )


class ServerClock:
    """The server's time without asking each time, and never ahead of it.

    The answer to TIME plus the monotonic time since it arrived, less 0.05 % of that for a clock
    that runs fast; asked again after a minute.
    """

    __slots__ = ("_told",)

    def __init__(self) -> None:
        #: The server's time, and when it was told: one value, since threads share a clock.
        self._told = (0.0, -math.inf)

    def stale(self) -> bool:
        return monotonic() - self._told[1] > 60.0

    def refresh(self, ctx: Context) -> Operation[None]:
        """Ask for the time, if it is stale."""
        if self.stale():
            told = yield ctx.command(b"TIME", reads=_clock)
            self._told = told, monotonic()

    def __call__(self, item: Any = None) -> float:
        now, at = self._told
        return now + (monotonic() - at) * 0.9995


class Ahead:
    """A server's clock, so many seconds ahead: it scores what is added with a delay."""

    __slots__ = ("_clock", "_seconds", "refresh", "stale")

    def __init__(self, clock: ServerClock, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds
        self.refresh, self.stale = clock.refresh, clock.stale

    def __call__(self, item: Any = None) -> float:
        return self._clock() + self._seconds


#: What scores by the server's time.
Clock = ServerClock | Ahead


def _clock(reply: Any) -> float:
    seconds, micros = listed(reply, 2)
    return number(seconds) + number(micros) / 1e6


def cut_by_bytes(
    values: list[T],
    most: int,
    size: Callable[[T], int] = len,  # type: ignore[assignment]
) -> Iterator[list[T]]:
    """Yield parts of at most so many values and STEP_BYTES, or of a single larger one."""
    part: list[T] = []
    room = 0
    for value in values:
        room -= size(value)
        if part and (room < 0 or len(part) == most):
            yield part
            part = []
        if not part:
            room = STEP_BYTES - size(value)
        part.append(value)
    if part:
        yield part


def error_text(error: Any) -> str:
    """Return what is kept of an error."""
    if isinstance(error, BaseException):
        kind = type(error).__name__
        try:
            error = f"{kind}: {error}"
        except Exception:  # it cannot even say what it is
            error = kind
    if not isinstance(error, str):
        raise TypeError(f"error must be an exception or str, not {type(error).__name__}")
    # Also what is not a text for UTF-8.
    return error[:TEXT].encode("utf-8", "replace").decode()


def raise_unable(bad: list[Any]) -> None:
    """Raise an error that says nothing of the item which could not be decoded."""
    for each in bad:
        if isinstance(each.error, NOT_OF_ITEM):
            raise each.error


def new_epoch() -> bytes:
    return os.urandom(8).hex().encode()


def _method(serializer: Any, name: str) -> Callable[[Any], Any] | None:
    method = getattr(serializer, name, None)
    if getattr(type(serializer), name, None) is getattr(Serializer, name):
        return None  # inherited, not defined
    return method


def checked_name(name: Any) -> bytes:
    if isinstance(name, str):
        try:
            data = name.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"name must be encodable as UTF-8: {error}") from None
    elif isinstance(name, bytes):
        data = name
    else:
        raise TypeError(f"name must be str or bytes, not {type(name).__name__}")
    if not data:
        raise ValueError("name must not be empty")
    owner = owner_of(data)
    if owner is not None:
        raise ValueError(
            f"name must not be a key of another set, got {name!r} ({type(name).__name__}): "
            f"{_text(owner)!r} uses it"
        )
    return data


def _text(name: bytes) -> str | bytes:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name


def _checked_key(key: Any) -> Any:
    if isinstance(key, tuple):
        if not key or not all(isinstance(field, str) for field in key):
            raise TypeError(f"key must have the names of fields, got {key!r} (tuple)")
    elif key is not None and not isinstance(key, str) and not callable(key):
        raise TypeError(
            f"key must be a callable, or the name of a field or a tuple of them, not "
            f"{type(key).__name__}"
        )
    return key


def _checked_remember(remember: Any) -> tuple[str, int]:
    if remember is None or remember is False:
        return "", 0
    if remember is True:
        return "ever", 0
    seconds = remember
    if isinstance(remember, datetime.timedelta):
        seconds = remember.total_seconds()
    elif not isinstance(remember, (int, float)):
        raise TypeError(
            f"remember must be True, seconds or a timedelta, not {type(remember).__name__}"
        )
    if not 0 < seconds < 1e11:
        raise ValueError(f"remember must be a positive number of seconds, not {remember!r}")
    return "limited", max(1, math.ceil(seconds * 1000))


def _checked_duplicates(duplicates: Any) -> str:
    if not isinstance(duplicates, str) or duplicates not in DUPLICATES:
        kind = type(duplicates).__name__
        raise ValueError(
            f"duplicates must be one of {', '.join(DUPLICATES)}, not {duplicates!r} ({kind})"
        )
    return DUPLICATES[duplicates]


def _checked_ties(ties: Any) -> str:
    if ties is not None and (not isinstance(ties, str) or ties not in ("fifo", "lifo")):
        kind = type(ties).__name__
        raise ValueError(f"ties must be 'fifo', 'lifo' or None, not {ties!r} ({kind})")
    return ties or ""


def _checked_known_max(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"known_max must be an int, not {type(value).__name__}")
    if value < 0:
        raise ValueError(f"known_max must not be negative, not {value}")
    return value


def _checked_limit(argument: str, value: Any) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{argument} must be an int, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{argument} must be positive, not {value}")
    return value
