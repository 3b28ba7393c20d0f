"""Base of both faces: the constructor and its checks, properties, scorers, arguments."""

from __future__ import annotations

import datetime
import importlib
import math
import time
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NoReturn,
    Protocol,
    TypedDict,
    TypeVar,
)

from redset import _operations, _transport, _wire
from redset._faces.arguments import (
    Time,
    ends,
    is_single_score,
    many,
    must_be,
    refuse_single,
    seconds,
    url_text,
)
from redset._operations import checking, few
from redset._operations.adding import AddResult, Flags, OnError
from redset._operations.context import Context
from redset._operations.keys import LOCK, checked_name
from redset._operations.options import SetOptions
from redset._operations.reporting import Reporter
from redset._operations.scores import Ahead, ServerClock
from redset._transport.clients import AsyncNode, Node, is_cluster
from redset._transport.effects import Operation
from redset._transport.link import server_of
from redset._transport.source import Source
from redset._wire.values import flag

if TYPE_CHECKING:
    from typing_extensions import Self
    from typing_extensions import TypeVar as TypeVarWithDefault

    from redset._operations.algebra import Other

    T = TypeVarWithDefault("T", default=str)
else:
    T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Scorer = str | Callable[[Any], Any]
KeyOf = str | tuple[str, ...] | Callable[[Any], str | bytes | int]
GroupOf = str | tuple[str, ...] | Callable[[Any], str | bytes | int | None]
Duplicates = Literal["move", "keep", "lowest", "highest"]
Ties = Literal["fifo", "lifo"]


class Loads(Protocol[T_co]):
    """A serializer, for type checkers: ``loads`` returns the items of the set."""

    def loads(self, data: Any, /) -> T_co: ...


class Options(TypedDict, total=False):
    """The constructor's keyword arguments that do not depend on the items' type."""

    remember: float | datetime.timedelta | None
    duplicates: Duplicates
    ties: Ties | None
    max_attempts: int | None
    max_item_bytes: int | None
    max_size: int | None
    known_max: int
    group: GroupOf | None
    group_limit: int | None
    group_interval: float | datetime.timedelta


class Face(Generic[T]):
    """A set's name, its options and its link to the server. A face adds the calls."""

    # Slots keep a set small. The dict, made on its first use, holds attributes that a program adds.
    __slots__ = (
        "__dict__", "__weakref__", "_ctx", "_link", "_lock", "_made", "_name", "_owned", "_redis",
        "_scorer",
    )  # fmt: skip
    _scores_are_times = False
    _only_due = False
    #: The classes of a face: its link, and functions that return that of its lock and that of the
    #: runner of its handlers. Then the methods that an iterable of items may have.
    _link_class: Any
    _lock_class: Any
    _runner_class: Any
    _iterables: tuple[str, ...]

    def __init__(
        self,
        redis_client: Any,
        name: str | bytes,
        scorer: Any = None,
        serializer: Any = None,
        lock_timeout: Time | None = None,
        lock_expires: Time | None = None,
        *,
        key: Any = None,
        remember: Any = None,
        duplicates: Duplicates = "move",
        ties: Ties | None = None,
        max_attempts: int | None = 10,
        max_item_bytes: int | None = None,
        max_size: int | None = None,
        known_max: int = 1_000_000,
        group: Any = None,
        group_limit: int | None = 1,
        group_interval: Time = 0,
    ) -> None:
        wire = _wire.DEFAULT
        options = SetOptions.checked(
            key,
            group,
            remember,
            duplicates,
            ties,
            max_attempts,
            max_item_bytes,
            max_size,
            known_max,
            self._only_due,
            group_limit,
            group_interval,
        )
        self._ctx = Context(wire, name, None, serializer, key, options, group)
        if ties is not None and (self._only_due or self._scores_are_times):
            kind = type(self).__name__
            raise must_be("ties", f"None for a {kind}, whose scores are times", ties, ValueError)
        if self._ctx.keys.name.endswith(LOCK):
            _warn_of_lock(name)
        self._name = name
        self._redis = redis_client
        self._link: Any = self._link_class(redis_client, wire.split, self._ctx.keys.name)
        described = self._kind(), key, options, self._ctx.codec, group
        self._ctx.reporter = self._link.reporter = Reporter(
            wire, self._ctx.keys, redis_client, server_of, described
        )
        self._owned = False
        #: The arguments of `from_url`, and what they made, if it was called.
        self._made: tuple[Any, ...] | None = None
        self.scorer = scorer
        self._lock: Any = None
        for argument, value in (("lock_timeout", lock_timeout), ("lock_expires", lock_expires)):
            if value is not None:
                seconds(argument, value, most=math.inf)
        if lock_timeout is not None or lock_expires is not None:
            self._lock = self._make_lock(lock_timeout, lock_expires)

    # The set's own attributes, as in 0.5.1.

    @property
    def name(self) -> str | bytes:
        """The set's name, as it was passed.

        Examples
        --------
        >>> jobs.name
        'jobs'
        """
        return self._name

    @property
    def redis(self) -> Any:
        """The set's client.

        Examples
        --------
        >>> jobs.redis is r
        True
        """
        return self._redis

    @classmethod
    def _kind(cls) -> str:
        """Return the name of the class for the registry, also of a subclass."""
        if cls._only_due:
            return "ScheduledSet"
        return "TimeSortedSet" if cls._scores_are_times else "SortedSet"

    def _make_lock(self, timeout: Time | None, expires: Time | None) -> Any:
        key = self._ctx.keys.lock
        named = key if isinstance(self._name, bytes) else key.decode()
        return self._lock_class()(self._redis, named, expires=expires, timeout=timeout)

    @property
    def scorer(self) -> Any:
        """The scorer of items that are added without a score. It may be reassigned.

        A callable, or the name of a field. None restores the default of the class.

        Raises
        ------
        TypeError
            On assignment of another object.

        Examples
        --------
        >>> jobs.scorer = len
        >>> jobs.add("four")
        4.0
        """
        return self._scorer

    @scorer.setter
    def scorer(self, scorer: Any) -> None:
        if scorer is None:
            scorer = self._default_scorer()
        known: Any = scorer
        if scorer is _zero:
            known = None
        elif isinstance(scorer, ServerTime):
            known = ServerClock()
        self._ctx.use_scorer(known)
        self._scorer = scorer

    def _default_scorer(self) -> Any:
        return _zero

    @property
    def serializer(self) -> Any:
        """The serializer of items. It may be reassigned.

        The next removal then first checks that it can decode the items, as an object's first one
        does. None restores the default.

        Examples
        --------
        >>> import json
        >>> jobs.serializer = json
        >>> jobs.add({"depth": 1})
        0.0
        >>> jobs.pop()
        {'depth': 1}
        """
        return self._ctx.codec.serializer

    @serializer.setter
    def serializer(self, serializer: Any) -> None:
        self._ctx.codec.use_serializer(serializer)

    #: The module of the clients of a face, in redis-py.
    _client_module: str

    @classmethod
    def _client_of(cls, url: Any, cluster: Any) -> Any:
        """Return a client that is made for a set of this class."""
        text, module = url_text(url), cls._client_module
        if not flag("cluster", cluster):
            return importlib.import_module(module).Redis.from_url(text)
        if not text.startswith(("redis://", "rediss://")):
            # Not the URL: it may hold a password.
            raise ValueError("url must begin with redis:// or rediss:// if cluster is True")
        return importlib.import_module(f"{module}.cluster").RedisCluster.from_url(text)

    @classmethod
    def _of_url(
        cls,
        url: str,
        name: str | bytes,
        args: tuple[Any, ...],
        options: dict[str, Any],
        cluster: bool,
    ) -> Self:
        """Make a set with a client of its own, and note the arguments for pickling."""
        made = cls(cls._client_of(url, cluster), name, *args, **options)
        made._owned = True
        if cluster:
            options = {**options, "cluster": True}
        made._made = url, args, options, made._scorer, made._ctx.codec.serializer
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        if self._made is None:
            kind = type(self).__name__
            raise TypeError(
                f"cannot pickle {self!r}, since its client has connections: make the set in the "
                f"child process, or make it with {kind}.from_url, which can be pickled"
            )
        url, args, options, scorer, serializer = self._made
        changed = {}
        if self._scorer is not scorer:
            changed["scorer"] = self._scorer
        if self._ctx.codec.serializer is not serializer:
            changed["serializer"] = self._ctx.codec.serializer
        given = (
            [_Module.named(each) for each in args],
            *(
                {name: _Module.named(each) for name, each in values.items()}
                for values in (options, changed)
            ),
        )
        return _from_url, (type(self), url, self._name, *given), self.__dict__ or None

    def __copy__(self) -> Self:
        """Return another object for the same set, on the same client, which it does not own."""
        made = object.__new__(type(self))
        for kind in type(self).__mro__:
            for name in vars(kind).get("__slots__", ()):
                if not name.startswith("__") and hasattr(self, name):
                    setattr(made, name, getattr(self, name))
        made.__dict__.update(self.__dict__)
        made._owned, made._made = False, None
        return made

    def _open(self) -> Any:
        if self._link is None:
            raise RuntimeError(f"{self!r} is closed")
        return self._link

    def _adding(
        self,
        items: Any,
        score: Any,
        flags: Flags,
        errors: str | OnError,
        emit: bool,
        later: Ahead | None = None,
    ) -> tuple[Operation[AddResult], Source | None]:
        condition = flags.condition(self._ctx)
        if isinstance(errors, str) and errors == "raise" and later is None and not emit:
            operation = few.add_few(self._ctx, items, score, flags, condition)
            if operation is not None:
                return operation, None
        refuse_single("items", items, self._iterables)
        scores = None
        if score is not None and not is_single_score(score):
            scores, score = score, None
        source = Source(items, scores)
        if emit:
            source.steady = False
        if later is not None:
            score = later
        return (
            _operations.streaming.add_stream(self._ctx, score, flags, errors, source.steady, emit),
            source,
        )

    def _later(self, score: Any, delay: Any) -> Ahead | None:
        """Return the clock of items that are added with a delay."""
        if delay is None:
            return None
        if score is not None:
            raise ValueError("delay contradicts score: give one of them")
        return self._ctx.scores.clock_ahead(seconds("delay", delay))

    def _operand(self, other: Any, *, in_one_step: bool = True) -> Other | None:
        """Return the operand of another set, or None for an iterable.

        Without ``in_one_step``, items of a set in another slot of a cluster are asked for there.
        """
        if not isinstance(other, Face):
            return None
        if other._link_class is not self._link_class:
            hint = "sync and asyncio sets cannot be combined"
            raise must_be("other", "a set of the same kind", other, hint=hint)
        mine, theirs = self._open(), other._open()
        is_here = mine.reaches(theirs) and (in_one_step or mine.may_meet(theirs))
        return _operations.algebra.Other(other._ctx, None if is_here else theirs)

    def _disjoint(self, other: Any) -> tuple[Operation[bool], Source | None]:
        operand = self._operand(other, in_one_step=False)
        if operand is not None:
            return _operations.algebra.is_disjoint(self._ctx, operand), None
        refuse_single("other", other, self._iterables)
        return _operations.algebra.is_disjoint_from_items(self._ctx), Source(other, None)

    def _moving(self, items: Any, other: Any) -> Operation[int]:
        values, operand = many("items", items), self._operand(other)
        if operand is None:
            raise must_be("other", "a set of redset's", other)
        return _operations.algebra.move(self._ctx, values, operand)

    def _restoring(self, lines: Any) -> tuple[Operation[int], Source]:
        refuse_single("lines", lines, self._iterables)
        return _operations.transfer.restore(self._ctx), Source(lines, None)

    def _nameless(self, other: object) -> NoReturn:
        raise TypeError(
            "the result of & | - ^ would be a set without a name: use update (or &= |= -= ^= of a "
            "sync set) on a set for the result, or combine Python sets: set(…)"
        )

    if not TYPE_CHECKING:  # a type checker should not see them
        __and__ = __or__ = __sub__ = __xor__ = _nameless
        __rand__ = __ror__ = __rsub__ = __rxor__ = _nameless

    def _ends(self, lowest: Any, highest: Any) -> tuple[float, float]:
        """Check the ends of a range of scores."""
        wire, timed = self._ctx.wire, self._only_due
        return ends(lambda value: wire.to_score(value, timed), lowest, highest)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self._name!r}>"


def _warn_of_lock(name: Any) -> None:
    warnings.warn(
        f"name should not end in {LOCK.decode()}, got {name!r} ({type(name).__name__}): a set of "
        "the name without it keeps its lock there",
        UserWarning,
        stacklevel=3,
    )


class _Module(NamedTuple):
    """The pickled form of a module. A serializer may be one: ``json``."""

    name: str

    @classmethod
    def named(cls, value: Any) -> Any:
        return cls(value.__name__) if isinstance(value, ModuleType) else value

    @staticmethod
    def found(value: Any) -> Any:
        return importlib.import_module(value.name) if type(value) is _Module else value


def _from_url(
    kind: Any, url: str, name: Any, args: Any, options: Any, changed: dict[str, Any]
) -> Any:
    """Make a set that was pickled."""
    named = {option: _Module.found(value) for option, value in options.items()}
    made = kind.from_url(url, name, *map(_Module.found, args), **named)
    for attribute, value in changed.items():
        setattr(made, attribute, _Module.found(value))
    return made


class Rising:
    """A scorer by this process's time. Each score is a little larger than the one before."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, item: Any) -> float:
        now = time.time()
        if now <= self._last < now + 1.0:
            now = math.nextafter(self._last, math.inf)
        self._last = now
        return now


class ServerTime:
    """A scorer by the time of a set's server. The set's adds need no request of their own."""

    __slots__ = ("_clock", "_owner")

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self._clock = ServerClock()

    def __call__(self, item: Any = None) -> Any:
        owner = self._owner
        return owner._run(_operations.reading.server_time(owner._ctx, self._clock))


def _zero(item: Any) -> int:
    return 0


def requeueing(owner: Any, letters: Any) -> Operation[int]:
    """Perform ``dead.requeue``."""
    if letters is None:
        return _operations.dead.requeue_all(owner._ctx)
    # A dead letter is a tuple, but not a tuple of ids.
    some = (
        [letters]
        if isinstance(letters, _operations.dead.DeadLetter)
        else many("letters_or_ids", letters)
    )
    return _operations.dead.requeue(owner._ctx, some)


def purging(owner: Any, before: Any, forget: bool, letters: Any) -> Operation[int]:
    """Perform ``dead.purge``."""
    if letters is None:
        return _operations.dead.purge(owner._ctx, before, forget)
    if before is not None:
        raise ValueError("letters_or_ids contradicts before: give one of them")
    some = (
        [letters]
        if isinstance(letters, _operations.dead.DeadLetter)
        else many("letters_or_ids", letters)
    )
    return _operations.dead.purge_letters(owner._ctx, some, forget)


def checking_of(link: Any, client: Any, name: Any) -> Operation[list[str]]:
    """Perform ``check_server`` over a link to a client."""
    wire, cluster = _wire.DEFAULT, _transport.cluster
    if name is not None:
        key = checked_name(name)
        if not is_cluster(client):
            return checking.problems_of(wire, key)

        def find() -> Any:
            return _link_to(link, client, client.get_node_from_key(key))

        return checking.check_node_of(
            wire, key, find, cluster.socket_timeout_of(client, link._awaits)
        )
    if not is_cluster(client):
        return checking.problems_of(wire)
    timeout = cluster.socket_timeout_of(client, link._awaits)
    primaries = sorted(client.get_primaries(), key=lambda node: str(node.name))
    nodes = [(node.name, _link_to(link, client, node)) for node in primaries]
    return checking.check_nodes(wire, nodes, timeout)


def _link_to(link: Any, client: Any, node: Any) -> Any:
    """Return a link to one node of a cluster, of the kind of another link."""
    kind = AsyncNode if link._awaits else Node
    return type(link)(kind(client, node), _wire.DEFAULT.split)
