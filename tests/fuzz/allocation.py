"""Memory runs out at every place in turn: MemoryError, and afterwards all is as it was.

    cd tests && python -m fuzz.allocation

It prints how many allocations were made to fail, by call. To be run in a process of its own: the
interpreter, too, meets the failures. Left out is what others do without memory: orjson ends the
process, and CPython 3.11 itself loses an exception while it makes the text of another.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from agreement import outcome

from redset._wire import fallback

#: So many successes in a row mean that a call makes no more allocations.
ENOUGH = 30


def cases(wire: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Calls of every function, with rare input: long, foreign, not ASCII, many at once."""
    many = [{"url": f"https://example.org/é/{n % 60}", "depth": n / 7} for n in range(80)]
    texts = [f"item {n} é" for n in range(40)]
    raws = [text.encode() for text in texts]
    options = (0, 2, True, 1, b"0123456789abcdef", True)
    prefix = [b"EVALSHA", "é", 10**30, "a" * 600]
    yield "encode", lambda: wire.encode(prefix)
    request = fallback.encode([b"a", b"b" * 600])
    yield "split", lambda: wire.split(request)
    yield "to_score", lambda: [wire.to_score(value) for value in (1, 2.5, "3.5", 10**30)]
    yield "score_text", lambda: [wire.score_text(value) for value in (1.0, 0.1, 1e300, 1e-9)]
    yield "digest", lambda: wire.digest(b"a" * 600)
    yield "digests", lambda: wire.digests(raws)
    yield "key_bytes", lambda: [wire.key_bytes(key) for key in ("é", b"a", 10**30)]
    yield "memory_integer", lambda: wire.memory_integer(b"a", b"e")
    yield "field_of", lambda: wire.field_of(many[0], "url")
    yield "payload", lambda: [wire.payload(item, None, 0) for item in ("é", b"a", 5, 1.5)]
    yield "payload as text", lambda: wire.payload(many[0], repr, 0)
    yield "identity", lambda: wire.identity(many[0], None, "url")
    yield "serialise", lambda: wire.serialise(many, None, "url", 0)
    tables = wire.Known(9), wire.Known(9)
    tables[0].learn(wire.digest(b"/0"), 9.0, 0)
    known = "url", 0, None, tables[0], 1.0, tables[1]
    yield "serialise with tables", lambda: wire.serialise(many, str, *known)
    codec = SimpleNamespace(dumps=str, warn=None, scorer=0.5)

    def accepted() -> Any:
        intake = wire.Intake("url", 0)
        adds: list[Any] = []
        intake.open(adds, (False,), codec, len(many))
        for item in many[:9]:
            try:
                intake.put(item, 7, (False,), codec)
            except MemoryError:
                assert len(adds) == 3 * intake.close()
                raise
        return adds

    yield "Intake.put", accepted
    yield "score_of", lambda: wire.score_of(many[5], "depth")
    yield "decode", lambda: wire.decode([b"1", b"\xff", "é".encode()], str, None)
    names = b"".join(map(fallback.digest, [*raws, *(b"%d" % n for n in range(600))]))

    known_raws = list(map(fallback.digest, raws))

    def learned() -> Any:
        # Without memory a table holds less, and raises nothing.
        known = wire.Known(900)
        known.learn(names, math.inf, 0)
        known.learn(names[:640], [5.0] * 40, 0)
        if len(known) < 640 or not all(known.knows(each, 4.0) for each in known_raws):
            raise MemoryError
        made = wire.Encoder(prefix, None, None, 0.5, *options)
        left = made.encode_all(texts, None, False, 7, 1 << 20, known, 6.0)
        known.clear()
        return left

    yield "Known", learned
    for key, what in ((None, "plain"), ("url", "keyed"), (lambda item: item["url"], "called")):
        for fold in (0, 1):
            rest = (options[0], fold, *options[2:])
            yield (
                f"Encoder.encode {what} {fold}",
                lambda key=key, rest=rest: wire.Encoder(prefix, repr, key, "depth", *rest).encode(
                    many, None, True
                ),
            )
            yield (
                f"Encoder.encode_all {what} {fold}",
                lambda key=key, rest=rest: wire.Encoder(prefix, None, key, 0.5, *rest).encode_all(
                    many, None, False, 7, 1 << 20
                ),
            )


def attack(call: Callable[[], Any]) -> tuple[int, list[str]]:
    """Make each allocation of a call fail, alone and with all after it; return the errors."""
    import _testcapi

    wrong: list[str] = []
    expected = outcome(call)
    failed = 0
    for only in (True, False):
        start = successes = 0
        while successes < ENOUGH:
            error: BaseException | None = None
            result: Any = None
            _testcapi.set_nomemory(start, start + 1 if only else 0)
            try:
                result = call()
            except BaseException as caught:
                error = caught
            finally:
                _testcapi.remove_mem_hooks()
            if isinstance(error, MemoryError):
                failed += 1
                successes = 0
            elif outcome(_again, result, error) == expected:
                successes += 1
            elif _holds_memory_error(result):
                failed += 1
                successes = 0
            else:
                wrong.append(f"at {start}: {error!r}, {result!r}"[:300])
                successes += 1
            if outcome(call) != expected:
                wrong.append(f"behind a failure at {start}: {outcome(call)!r}"[:300])
            start += 1
    return failed, wrong


def _again(result: Any, error: BaseException | None) -> Any:
    if error is not None:
        raise error
    return result


def _holds_memory_error(result: Any) -> bool:
    """An item whose allocation failed is a bad one; so is a member."""
    if isinstance(result, list):
        return any(_holds_memory_error(each) for each in result)
    if isinstance(result, fallback.Chunk):
        return _holds_memory_error(result.bad)
    if isinstance(result, fallback.Bad):
        return isinstance(result.error, MemoryError)
    return isinstance(result, tuple) and any(_holds_memory_error(each) for each in result)


def main() -> int:
    from redset import _speedups

    told = {name: attack(call) for name, call in cases(_speedups)}
    json.dump(told, sys.stdout, indent=1)
    return 1 if any(wrong for _, wrong in told.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
