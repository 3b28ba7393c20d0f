"""The server of a command, and the sets that it opens there."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from redset import Key, ScheduledSet, SortedSet, TimeSortedSet, list_sets
from redset.serializers import JSONSerializer

#: The server if none is named.
DEFAULT = "redis://localhost:6379/0"
SCHEMES = ("redis", "rediss", "unix")
CLASSES: dict[str, type[SortedSet[Any]]] = {
    each.__name__: each for each in (SortedSet, TimeSortedSet, ScheduledSet)
}
#: Time that a command tries to connect, in seconds.
CONNECT = 5
_json = JSONSerializer()


class Stored(Mapping[str, Any]):
    """An item of a set with ``key=``: its stored bytes, and the fields of its JSON."""

    __slots__ = ("_fields", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._fields: dict[str, Any] | None = None

    def fields(self) -> dict[str, Any]:
        if self._fields is None:
            found = json.loads(self.raw)
            if not isinstance(found, dict):
                raise ValueError(f"item must be a JSON object, got {self.raw[:80]!r}")
            self._fields = found
        return self._fields

    def __getitem__(self, name: str) -> Any:
        return self.fields()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields())

    def __len__(self) -> int:
        return len(self.fields())


class StoredBytes:
    """A serializer: items are their stored bytes. Nothing is decoded."""

    binary = True

    def dumps(self, item: Any) -> bytes:
        return item if isinstance(item, bytes) else _json.dumps(item)

    def loads(self, data: bytes) -> Any:
        return bytes(data)


class StoredFields(StoredBytes):
    """The same for a set with ``key=``: items also have the fields of their JSON."""

    def dumps(self, item: Any) -> bytes:
        return item.raw if isinstance(item, Stored) else super().dumps(item)

    def loads(self, data: bytes) -> Any:
        return Stored(bytes(data))


class Translated(StoredBytes):
    """The user's serializer: on this side of it, items are JSON."""

    def __init__(self, inner: Any, keyed: bool) -> None:
        self._inner, self._keyed = inner, keyed

    def dumps(self, item: Any) -> Any:
        text = item.raw if isinstance(item, Stored) else item
        return self._inner.dumps(json.loads(text) if isinstance(text, bytes) else text)

    def loads(self, data: bytes) -> Any:
        binary = getattr(self._inner, "binary", None)
        given: bytes | str = data if binary else data.decode()
        text = json.dumps(self._inner.loads(given), default=str, ensure_ascii=False).encode()
        return Stored(text) if self._keyed else text


def bytes_of(item: Any) -> bytes:
    """Return the bytes of an item that a set of a command handed out."""
    return item.raw if isinstance(item, Stored) else item


def text_of(name: str | bytes) -> str:
    """Return the name of a set for a message."""
    return name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name


def name_of(argument: str) -> str | bytes:
    """Return the name of a set, of an argument; bytes if it is not UTF-8."""
    data = os.fsencode(argument)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def unknown_key(item: Any) -> Any:
    """Stand for the callable that is the key of a set."""
    raise TypeError("the key of this set is a function of its programs: items cannot be named here")


def unknown_group(item: Any) -> Any:
    """Stand for the callable that is the group of a set."""
    raise TypeError(
        "the group of this set is a function of its programs: items cannot be added here"
    )


class GroupOfBytes:
    """Finds the group of an item that is JSON in bytes, by a field or several ones."""

    def __init__(self, fields: str | tuple[str, ...]) -> None:
        self._fields = fields

    def __call__(self, item: bytes) -> Any:
        stored = Stored(item)
        if isinstance(self._fields, str):
            return stored[self._fields]
        parts = [stored[name] for name in self._fields]
        # As the set joins several fields.
        return None if set(parts) == {None} else bytes(Key(tuple(parts)))


@dataclass
class SetOptions:
    """Options of a set, as flags have them. None: not given."""

    kind: str | None = None
    key: str | tuple[str, ...] | bool | None = None
    remember: bool | float | None = None
    ties: str | None = None
    serializer: str | None = None
    group: str | tuple[str, ...] | bool | None = None
    #: Those of the registry, if the set's programs have registered it.
    attempts: int | None = None
    group_limit: int | None = 1
    group_interval: float = 0
    registered: bool = False

    def complete(self, registered: Mapping[str, Any], name: str | bytes, strict: bool) -> None:
        """Take the options that the set's programs registered.

        Raises
        ------
        ValueError
            If it is strict, and an option that was given differs.
        """
        key, group = registered.get("key"), registered.get("group")
        found = {
            "kind": registered.get("class"),
            "key": tuple(key) if isinstance(key, list) else key,
            "group": tuple(group) if isinstance(group, list) else group,
            "remember": registered.get("remember"),
            "ties": registered.get("ties"),
        }
        if str(found["kind"]) not in CLASSES:
            del found["kind"]  # a class of a program
        for option, value in found.items():
            given = getattr(self, option)
            # Whether a field is what a callable reads is not known.
            unknown = option in ("key", "group") and value is True
            if strict and given not in (None, value) and not unknown:
                flag = "class" if option == "kind" else option
                shown = "none" if value is None else repr(value)
                raise ValueError(
                    f"--{flag}: the set {text_of(name)!r} is registered with {shown}, got {given!r}"
                )
            if not (unknown and given is not None):
                setattr(self, option, value)
        attempts = registered.get("attempts")
        self.attempts = attempts if isinstance(attempts, int) and attempts > 0 else None
        self.registered = True
        if group:
            limit, interval = registered.get("group_limit", 1), registered.get("group_interval")
            self.group_limit = limit if isinstance(limit, int) and 1 <= limit <= 1000 else None
            self.group_interval = interval if isinstance(interval, (int, float)) else 0


@dataclass
class Settings:
    """The global options. They make the client when it is first used."""

    url: str | None = None
    db: int | None = None
    cluster: bool = False
    read_only: bool = False
    debug: bool = False
    patient: bool = False
    #: Time that the server has for an answer, in seconds; None for any.
    timeout: float | None = None
    _client: Any = field(default=None, repr=False)

    @property
    def target(self) -> str:
        """The server's URL, without its password and its options."""
        try:
            parts = urlsplit(self._full_url())
            host = parts.hostname or ""
            host = f"[{host}]" if ":" in host else host
            if parts.port:
                host += f":{parts.port}"
        except ValueError:
            return "the server"
        if parts.scheme not in SCHEMES:
            return "the server"
        user = f"{quote(parts.username)}@" if parts.username else ""
        base = f"{parts.scheme}://{user}{host}{parts.path}"
        db = dict(parse_qsl(parts.query)).get("db")
        return f"{base}?db={db}" if db else base

    def _full_url(self) -> str:
        url = self.url or DEFAULT
        if self.db is None:
            return url
        parts = urlsplit(url)
        query = [pair for pair in parse_qsl(parts.query) if pair[0] != "db"]
        path = parts.path if parts.scheme == "unix" else ""
        query.append(("db", str(self.db)))
        return f"{parts.scheme}://{parts.netloc}{path}?{urlencode(query)}"

    def client(self) -> Any:
        """Return the client. With a cluster it connects."""
        if self._client is None:
            self._client = self._made()
        return self._client

    def _made(self) -> Any:
        import redis
        from redis.backoff import ExponentialBackoff
        from redis.retry import Retry

        # A worker outlasts a restart of its server; another command reports it soon.
        tries = 60 if self.patient else 2
        options: dict[str, Any] = {
            "socket_connect_timeout": CONNECT,
            "retry": Retry(ExponentialBackoff(cap=1.0, base=0.05), tries),
        }
        if self.timeout is not None:
            options["socket_connect_timeout"] = options["socket_timeout"] = self.timeout
            options["retry"] = Retry(ExponentialBackoff(cap=1.0, base=0.05), 1)
        if self.cluster:
            from redis.cluster import RedisCluster

            return RedisCluster.from_url(self._checked_url(), **options)
        options["retry_on_error"] = [redis.ConnectionError, redis.TimeoutError]
        try:
            return redis.Redis.from_url(self._checked_url(), **options)
        except ValueError:
            raise self._wrong_url() from None

    def _wrong_url(self) -> ValueError:
        # The parser's own text may have a part of the password.
        return ValueError("url must be a redis://, rediss:// or unix:// URL (not shown)")

    def _checked_url(self) -> str:
        try:
            return self._full_url()
        except ValueError:
            raise self._wrong_url() from None

    def open(
        self,
        name: str | bytes,
        options: SetOptions | None = None,
        adding: bool = False,
        strict: bool = True,
    ) -> SortedSet[Any]:
        """Return a set whose items are stored bytes. For ``adding`` with ``key`` they are dicts.

        The options are completed by those of the registry. If they are ``strict``, others are
        refused.
        """
        options = SetOptions() if options is None else options
        given = None if options.serializer is None else loaded(options.serializer)
        registered = self._registered(name)
        if registered:
            options.complete(registered, name, strict)
        return self.opened(name, options, adding, given)

    def opened(
        self, name: str | bytes, options: SetOptions, adding: bool = False, given: Any = None
    ) -> SortedSet[Any]:
        """Return a set with complete options. Nothing is asked.

        Args:
            given: The user's serializer.
        """
        made: dict[str, Any] = {"remember": options.remember, "ties": options.ties}
        if options.registered:
            made["max_attempts"] = options.attempts
        key = options.key
        if key is not None and key is not False:
            made["key"] = unknown_key if key is True else key
        if options.group not in (None, False):
            made |= _group_options(options)
        serializer: Any = StoredFields() if "key" in made else StoredBytes()
        if given is not None:
            serializer = Translated(given, "key" in made)
        elif adding:
            # Those of the compiled core: a method of ours would take twice the time.
            serializer = _json if "key" in made else None
        kind = CLASSES[options.kind or "SortedSet"]
        return kind(self.client(), name, serializer=serializer, **made)

    def _registered(self, name: str | bytes) -> Mapping[str, Any] | None:
        """Return the options that the set's programs registered."""
        try:
            [info] = list_sets(self.client(), [name])
        except Exception as error:
            if isinstance(error, (TypeError, ValueError)) or self.is_lost(error):
                raise
            return None  # the user may not read the registry
        return info.options

    def is_lost(self, error: Exception) -> bool:
        """Return whether an error is of the connection, not of the server."""
        names = {base.__name__ for base in type(error).__mro__}
        return bool(names & {"ConnectionError", "TimeoutError"})

    def warn_of_change(self, name: str | bytes, verb: str) -> None:
        """On a terminal, name the server and the set before they are changed."""
        if sys.stderr is not None and sys.stderr.isatty():
            from redset.cli.output import shown

            print(f"{verb} {shown(text_of(name))} on {shown(self.target)}", file=sys.stderr)


def _group_options(options: SetOptions) -> dict[str, Any]:
    """Return the arguments of a set with groups."""
    group: Any = options.group
    if group is True:
        group = unknown_group
    elif options.key in (None, False):
        group = GroupOfBytes(group)
    limit, interval = options.group_limit, max(0, min(options.group_interval, 30 * 86400))
    return {"group": group, "group_limit": limit, "group_interval": interval}


def loaded(path: str) -> Any:
    """Return the object of ``module:name``."""
    module, _, name = path.partition(":")
    if not module or not name:
        raise ValueError(f"--serializer must be module:name, got {path!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--serializer {path}: {error}") from error
    return found() if isinstance(found, type) else found
