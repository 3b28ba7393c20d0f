"""The types of the compiled core, which are those of `redset._wire.fallback`."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, final

from redset._wire.chunks import Bad as Bad
from redset._wire.chunks import Chunk as Chunk

IMPLEMENTATION: str

FOLD_NONE: int
FOLD_FIRST: int
FOLD_LAST: int
MEMORY_NONE: int
MEMORY_INTEGER: int
MEMORY_DIGEST: int

def encode(arguments: Sequence[bytes | str | int]) -> bytes: ...
def split(data: bytes) -> list[list[bytes]]: ...
def to_score(value: Any, timed: bool = False) -> float: ...
def whole_score(score: float) -> float: ...
def score_text(score: float) -> bytes: ...
def digest(data: bytes) -> bytes: ...
def digests(values: Iterable[bytes]) -> list[bytes]: ...
def key_bytes(key: Any) -> bytes: ...
def joined_key(parts: Sequence[Any]) -> bytes: ...
def memory_integer(identity: bytes, epoch: bytes) -> bytes: ...
def field_of(item: Any, field: str) -> Any: ...
def payload(
    item: Any,
    dumps: Callable[[Any], Any] | None,
    limit: int,
    warn: Callable[[Any], object] | None = None,
) -> bytes: ...
def identity(
    item: Any,
    dumps: Callable[[Any], Any] | None,
    key: str | tuple[str, ...] | Callable[[Any], Any] | None,
) -> bytes: ...
def serialise(
    items: Iterable[Any],
    dumps: Callable[[Any], Any] | None,
    key: str | tuple[str, ...] | Callable[[Any], Any] | None,
    limit: int,
    warn: Callable[[Any], object] | None = None,
    known: Known | None = None,
    now: float = 0.0,
) -> tuple[list[Any], list[int]]: ...
def score_of(
    item: Any, scorer: float | str | Callable[[Any], Any], timed: bool = False
) -> float: ...
def decode(
    raws: Iterable[bytes],
    loads: Callable[[Any], Any] | None,
    binary: bool | None,
) -> tuple[list[Any], list[Bad]]: ...

@final
class Known:
    def __init__(self, most: int) -> None: ...
    @property
    def generation(self) -> int: ...
    def __len__(self) -> int: ...
    def clear(self) -> None: ...
    def learn(
        self, digests: bytes, until: float | Sequence[float], generation: int, now: float = 0.0
    ) -> None: ...
    def knows(self, digest: bytes, now: float) -> bool: ...

@final
class Intake:
    def __init__(
        self, key: str | tuple[str, ...] | Callable[[Any], Any] | None, limit: int
    ) -> None: ...
    def open(self, adds: list[Any], flags: tuple[Any, ...], codec: Any, room: int) -> None: ...
    def close(self) -> int: ...
    def put(self, item: Any, score: Any, flags: tuple[Any, ...], codec: Any) -> bool: ...

@final
class Encoder:
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
    ) -> None: ...
    def encode(self, items: Sequence[Any], scores: Sequence[Any] | None, skip: bool) -> Chunk: ...
    def encode_all(
        self,
        items: Sequence[Any],
        scores: Sequence[Any] | None,
        skip: bool,
        most: int,
        most_bytes: int,
        known: Known | None = None,
        now: float = 0.0,
    ) -> list[Chunk]: ...
