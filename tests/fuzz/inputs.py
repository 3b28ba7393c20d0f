"""Generated arguments for every function of the core: it does the same as the fallback.

A case is one call of a function (of the encoder: making one and encoding a list), on both
implementations. They must give the same bytes, or raise the same class with the same text; what a
hostile object raises itself passes through both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from agreement import outcome
from hostile import meddled

from fuzz.report import Report
from fuzz.values import Values
from redset._wire import fallback

#: Makes the arguments of one call anew: iterators and meddling objects can be used once only.
Arguments = Callable[[], tuple[Any, ...]]


class Trouble(Exception):
    """The error that an iterator raises in its middle."""


def iterable(draw: Values, values: list[Any]) -> Callable[[], Any]:
    """Make a source of these values: a list, a tuple, iterators, one that raises, one that lies."""
    draws = draw.rng.random()
    if draws < 0.5:
        return lambda: list(values)
    if draws < 0.6:
        return lambda: tuple(values)
    if draws < 0.7:
        return lambda: iter(list(values))
    if draws < 0.8:
        return lambda: Lying(values)
    if draws < 0.9:
        return lambda: shrinking(list(values))
    stop = draw.rng.randrange(len(values) + 1)
    return lambda: troubled(values, stop)


def troubled(values: list[Any], stop: int) -> Iterator[Any]:
    yield from values[:stop]
    raise Trouble


def shrinking(values: list[Any]) -> Iterator[Any]:
    """Change the list in the middle of it."""
    for value in values:
        yield value
        del values[-1:]
        values.reverse()


class Lying(list):  # type: ignore[type-arg]
    """A list whose length is too large."""

    def __len__(self) -> int:
        return super().__len__() + 7

    def __length_hint__(self) -> int:
        return 1 << 62


def meddling(call: Callable[[Any], Any] | None, values: list[Any], how: int) -> Any:
    """Make a callable that changes a list whenever it is called."""
    calls = 0

    def meddle(value: Any) -> Any:
        nonlocal calls
        calls += 1
        if how == 0:
            values.clear()
        elif how == 1:
            del values[::2]
        elif how == 2 and calls < 50:
            values.extend(values[:3])
        else:
            values.reverse()
        return call(value) if call is not None else "called"

    return meddle


def some(draw: Values, make: Callable[[], Any], most: int = 6) -> list[Any]:
    """Some values; seldom so many that the core lets the interpreter go."""
    number = draw.pick(31, 32, 33, 80) if draw.one_in(30) else draw.rng.randrange(most)
    return [make() for _ in range(number)]


def argument(draw: Values) -> Any:
    """An argument of a command."""
    if draw.one_in(10):
        return draw.hostile() if draw.one_in(2) else draw.plain()
    return draw.pick(draw.text, draw.data, draw.integer)()


# --- a generator for each function


def encode(draw: Values) -> Arguments:
    arguments = some(draw, lambda: argument(draw))
    return lambda: (arguments,)


def split(draw: Values) -> Arguments:
    """A request, whole, cut, changed in a place, or no request at all."""
    commands = [
        fallback.encode([draw.data() for _ in range(draw.rng.randrange(4))])
        for _ in range(draw.rng.randrange(3))
    ]
    data = b"".join(commands)
    how = draw.rng.randrange(5)
    at = draw.rng.randrange(len(data) + 1)
    if how == 1:
        data = data[:at]
    elif how == 2:
        head = draw.pick(
            b"*", b"$", b"-", b"9", b"\r", b"\n", b"", b"*-1\r\n", b"$-5\r\n", b"$9999\r\n"
        )
        data = data[:at] + head + data[at + 1 :]
    elif how == 3:
        data = bytes(draw.rng.choices(b"*$-\r\n0123456789", k=draw.rng.randrange(30)))
    elif how == 4 and draw.one_in(4):
        hostile = draw.hostile()
        return lambda: (hostile,)
    return lambda: (data,)


def to_score(draw: Values) -> Arguments:
    value = draw.pick(draw.score, draw.item)()
    return lambda: (value,)


def whole_score(draw: Values) -> Arguments:
    value = draw.pick(draw.floating, draw.floating, draw.integer, draw.hostile)()
    return lambda: (value,)


def score_text(draw: Values) -> Arguments:
    value = draw.floating()
    if draw.one_in(10):
        value = draw.pick(draw.integer, draw.hostile, lambda: float("nan"))()
    return lambda: (value,)


def digest(draw: Values) -> Arguments:
    data = draw.raw()
    return lambda: (data,)


def digests(draw: Values) -> Arguments:
    make = iterable(draw, some(draw, draw.raw if draw.one_in(3) else draw.data, 40))
    return lambda: (make(),)


def key_bytes(draw: Values) -> Arguments:
    key = draw.key()
    return lambda: (key,)


def joined_key(draw: Values) -> Arguments:
    parts = [draw.key() for _ in range(draw.pick(0, 1, 2, 3))]
    return lambda: (parts,)


def memory_integer(draw: Values) -> Arguments:
    data, epoch = draw.raw(), draw.epoch()
    return lambda: (data, epoch)


def field_of(draw: Values) -> Arguments:
    item, field = draw.item(), draw.pick("url", "depth", "missing", draw.text())
    if draw.one_in(20):
        return lambda: (meddled({"url": 1, "depth": 2}, field), field)
    return lambda: (item, field)


def payload(draw: Values) -> Arguments:
    item, dumps, limit = draw.item(), draw.dumps(), draw.pick(0, 0, 1, 20, -1, 10**30, 2**63)
    return lambda: (item, dumps, limit)


def identity(draw: Values) -> Arguments:
    item, dumps, key = draw.item(), draw.dumps(), draw.key_of()
    return lambda: (item, dumps, key)


def serialise(draw: Values) -> Arguments:
    items, dumps, key = some(draw, draw.item), draw.dumps(), draw.key_of()
    limit = draw.pick(0, 0, 1, 20, -1, 10**30, 2**63)
    make = iterable(draw, items)
    return lambda: (make(), dumps, key, limit)


def score_of(draw: Values) -> Arguments:
    item, scorer = draw.item(), draw.scorer()
    if draw.one_in(20):
        return lambda: (meddled({"url": 1, "depth": 2.5}, "depth"), "depth")
    return lambda: (item, scorer)


def decode(draw: Values) -> Arguments:
    raws = some(draw, draw.raw)
    loads, binary = draw.loads(), draw.pick(None, True, False)
    if draw.one_in(10):
        how = draw.rng.randrange(4)
        return lambda: _meddled_decode(list(raws), loads, binary, how)
    make = iterable(draw, raws)
    return lambda: (make(), loads, binary)


def _meddled_decode(raws: list[Any], loads: Any, binary: Any, how: int) -> tuple[Any, ...]:
    return raws, meddling(loads, raws, how), binary


def encoder_all(draw: Values) -> Arguments:
    """The same in chunks of at most so many entries and bytes."""
    make = encoder(draw)
    most, most_bytes = draw.pick(0, 1, 2, 7, 250), draw.pick(0, 1, 100, 1 << 20)
    return lambda: (*make(), most, most_bytes)


def encoder(draw: Values) -> Arguments:
    """The arguments of an encoder, then those of its method."""
    values = draw.items()
    dumps, key, scorer = draw.dumps(), draw.key_of(), draw.scorer()
    rest = (
        draw.pick(0, 0, 0, 1, 30, 10**30),
        draw.rng.randrange(3),
        draw.one_in(2),
        draw.rng.randrange(3),
        draw.epoch(),
        draw.one_in(2),
        draw.one_in(3),
    )
    prefix = draw.pick([b"ZADD", "jobs"], [argument(draw) for _ in range(draw.rng.randrange(4))])
    skip = draw.one_in(2)
    number = draw.pick(len(values), len(values), draw.rng.randrange(len(values) + 2))
    scores = [draw.score() for _ in range(number)] if draw.one_in(2) else None
    if draw.one_in(15):
        how, place = draw.rng.randrange(4), draw.rng.randrange(3)
        return lambda: _meddled_encoder(
            prefix, (dumps, key, scorer), rest, values, scores, how, place
        )
    make = iterable(draw, values)
    return lambda: (prefix, dumps, key, scorer, *rest, make(), scores, skip)


def _meddled_encoder(
    prefix: Any, calls: Any, rest: Any, values: Any, scores: Any, how: int, place: int
) -> tuple[Any, ...]:
    mine = list(values)
    theirs = None if scores is None else list(scores)
    changed = theirs if theirs is not None and how % 2 else mine
    call = calls[place] if callable(calls[place]) else None
    own = list(calls)
    own[place] = meddling(call, changed, how)
    return (prefix, *own, *rest, mine, theirs, True)


def known(draw: Values) -> Arguments:
    """The size of a table, its first entries, and nothing else."""
    most = draw.pick(0, 1, 2, 3, 8, 40, 10**30, -1)
    steps = [learning(draw)[:2] for _ in range(draw.rng.randrange(6))]
    return lambda: (most, steps)


def known_learn(draw: Values) -> Arguments:
    make, last = known(draw), learning(draw)
    return lambda: (*make(), *last)


def known_knows(draw: Values) -> Arguments:
    make, name, now = known(draw), draw.pick(name_of(draw), b"short"), draw.pick(0.0, 1.0, 2.5)
    return lambda: (*make(), name, now)


def name_of(draw: Values) -> bytes:
    """One of few digests. Some begin alike."""
    return draw.pick(b"\0", b"\1", b"\xff") * 8 + draw.rng.randrange(8).to_bytes(8, "big")


def time_of(draw: Values) -> float:
    return float(draw.pick(0.0, -1.0, 1.0, 2.0, 3.0, float("inf"), float("nan")))


def learning(draw: Values) -> tuple[bytes, Any, int]:
    """Digests, the ends of their validity, and their generations."""
    names = some(draw, lambda: name_of(draw))
    times: Any = [time_of(draw) for _ in names] if draw.one_in(2) else time_of(draw)
    if draw.one_in(15):
        times = draw.pick(None, 1, [1.0] * (len(names) + 1), ["soon"] * len(names))
    cut = b"" if not draw.one_in(20) else b"rest"
    return b"".join(names) + cut, times, draw.pick(0, 0, 1)


def intake(draw: Values) -> Arguments:
    """The options of an intake, its room, and what is put."""
    codec = SimpleNamespace(dumps=draw.dumps(), warn=None, scorer=draw.scorer())
    key, limit = draw.key_of(), draw.pick(0, 0, 1, 20, -1, 10**30, 2**63)
    given = [(draw.item(), draw.pick(None, draw.score())) for _ in range(draw.rng.randrange(6))]
    room = draw.rng.randrange(5)
    return lambda: (key, limit, room, codec, given)


#: By the names of the core.
GENERATORS: dict[str, Callable[[Values], Arguments]] = {
    "encode": encode,
    "split": split,
    "to_score": to_score,
    "whole_score": whole_score,
    "score_text": score_text,
    "digest": digest,
    "digests": digests,
    "key_bytes": key_bytes,
    "joined_key": joined_key,
    "memory_integer": memory_integer,
    "field_of": field_of,
    "payload": payload,
    "identity": identity,
    "serialise": serialise,
    "score_of": score_of,
    "decode": decode,
    "Encoder.encode": encoder,
    "Encoder.encode_all": encoder_all,
    "Intake.close": intake,
    "Intake.open": intake,
    "Intake.put": intake,
    "Known.clear": known,
    "Known.generation": known,
    "Known.knows": known_knows,
    "Known.learn": known_learn,
}
#: Most errors are of these classes.
_NAMES = [*GENERATORS, *["Encoder.encode", "Encoder.encode_all"] * 2, "decode", "payload"]
#: Further errors that may come out, besides those of hostile objects.
_EXPECTED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    Trouble,
)


def case(seed: int, number: int) -> tuple[str, Arguments]:
    """Draw one case: the function's name, and the maker of its arguments."""
    draw = Values(f"{seed}:{number}")
    name = draw.pick(*_NAMES)
    return name, GENERATORS[name](draw)


def function(wire: Any, name: str) -> Callable[..., Any]:
    """Return the function of a case."""
    owner, _, method = name.rpartition(".")
    if not owner:
        return getattr(wire, name)  # type: ignore[no-any-return]
    if owner == "Known":
        return lambda most, steps, *last: _of_known(wire.Known(most), steps, method, last)
    if owner == "Intake":
        return lambda *all: _of_intake(wire, *all)
    return lambda *all: getattr(wire.Encoder(*all[:11]), method)(*all[11:])


def _of_intake(wire: Any, key: Any, limit: Any, room: int, codec: Any, given: Any) -> Any:
    """Open an intake, and return what it accepts."""
    intake = wire.Intake(key, limit)
    adds: list[Any] = []
    intake.open(adds, (False, None), codec, room)
    found = [outcome(intake.put, item, score, (False, None), codec) for item, score in given]
    return found, intake.close(), adds


def _of_known(table: Any, steps: Any, method: str, last: Any) -> Any:
    """Fill a table, call it, and return the result and the table's content after it."""
    for digests, until in steps:
        table.learn(digests, until, 0)
    result = getattr(table, method)
    if callable(result):
        result = result(*last)
    held = [name.to_bytes(8, "big") for name in range(8)]
    return result, len(table), table.generation, [table.knows(b"\0" * 8 + x, 1.5) for x in held]


def run(count: int, seed: int, first: int = 0) -> Report:
    """Run so many cases."""
    from redset import _speedups

    report = Report("inputs", count, seed)
    calls = {name: (function(fallback, name), function(_speedups, name)) for name in GENERATORS}
    for number in report.cases(first):
        name, arguments = case(seed, number)
        specified, compiled = calls[name]
        try:
            expected = outcome(specified, *arguments())
            found = outcome(compiled, *arguments())
            differ = bool(expected != found)
        except Exception as error:
            report.fail(number, f"{name}: {error!r} while the outcomes were compared")
            continue
        if differ:
            report.fail(number, f"{name}: {shortened(found)}, not {shortened(expected)}")
        raised = expected[1][0] if expected[0] == "raised" else None
        if raised is not None and not issubclass(raised, _EXPECTED):
            report.fail(number, f"{name} raises {shortened(expected)}")
        report.outcomes[f"{name}: {'an error' if raised is not None else 'a result'}"] += 1
    return report


def shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 400 else f"{text[:300]} … {text[-90:]}"
