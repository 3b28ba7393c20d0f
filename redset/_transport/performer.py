"""Effects are performed here: requests, pulls, waits and all others.

Theory of operation. An operation is a generator: it yields effects, and is sent their results. A
`Performer` runs it on a session. It is written once, with ``await``. With a sync client nothing
suspends, and one ``send`` runs a coroutine to its end. The session gives its connection back before
the caller's code runs, before a wait, and before a request over another link. An exception of an
effect is thrown into the operation, which may go on.

`Link.run` has a short path for the two effects of most single calls. It leaves all others to a
performer.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any, Generic

from redset import _transport
from redset._transport.effects import (
    Ask,
    AskOther,
    Emit,
    Fingerprint,
    Operation,
    Pause,
    Pull,
    R,
    Read,
    Send,
    Wait,
    only,
)
from redset._transport.session import Session
from redset._transport.source import Source

if TYPE_CHECKING:
    from redset._transport.waiter import Waiter

#: Seconds that an operation may keep an event loop to itself, before other tasks run.
_TURN = 0.002


class Performer(Generic[R]):
    """Performs one operation, from its first effect to its result."""

    __slots__ = (
        "_awaits", "_effect", "_operation", "_session", "_source", "_spent", "_turn", "_waiter",
        "result",
    )  # fmt: skip

    result: R

    def __init__(
        self,
        operation: Operation[R],
        source: Source | None,
        session: Session,
        awaits: bool,
        effect: Any,
    ) -> None:
        self._operation = operation
        #: The effect that it yielded already, if any.
        self._effect = effect
        self._waiter: Waiter | None = None
        #: Commands since its last wait.
        self._spent = 0 if effect is None else 1
        self._source = source
        self._session = session
        self._awaits = awaits
        self._turn = time.monotonic() if awaits else 0.0

    async def run(self) -> R:
        """Perform all of it."""
        try:
            while await self.advance() is not None:
                pass
            return self.result
        finally:
            await self.close()

    async def advance(self) -> list[Any] | None:
        """Perform it up to the values that it emits next. None at its end, with the result set."""
        operation, session = self._operation, self._session
        session.note_cancellations()
        effect, self._effect = self._effect, None
        try:
            if effect is None:
                effect = next(operation)
            while True:
                result: Any
                try:
                    kind = type(effect)
                    # Requests are performed here, the rest in _other: a coroutine less per chunk.
                    if kind is Ask:
                        self._spent += effect.replies
                        if self._awaits:
                            await session.send(effect)
                            result = await session.read()
                        else:
                            result = session.ask(effect)
                    elif kind is Read:
                        result = await session.read()
                    elif kind is Send:
                        await session.send(effect)
                        result = None
                    elif kind is Emit:
                        await session.close()
                        return effect.values  # type: ignore[no-any-return]
                    else:
                        result = await self._other(kind, effect)
                    if self._awaits:
                        await self._give_way()
                except Exception as error:
                    if self._awaits and kind is not Pull:
                        # A cancelled call ends as one, whatever its client made of that.
                        session.raise_swallowed()
                    # An error of the caller's iterable is raised as it is.
                    own = error if kind is Pull else _in_its_loop(error)
                    effect = operation.throw(own)
                else:
                    effect = operation.send(result)
        except StopIteration as stop:
            self.result = stop.value
            return None

    async def _other(self, kind: type, effect: Any) -> Any:
        """Perform an effect that is not a request over this link."""
        session = self._session
        if kind is Fingerprint:
            return session.fingerprint()
        if kind is Pull:
            assert self._source is not None
            if not self._source.steady:
                await session.close()
            return await self._source.pull(effect.num)
        if kind is Wait:
            await session.close()
            if self._waiter is None:
                self._waiter = _transport.waiter.Waiter(session, self._awaits)
            spent, self._spent = self._spent, 0
            found = await self._waiter.perform(effect, spent)
            self._turn = time.monotonic()
            return found
        if kind is AskOther:
            await session.close()
            result = effect.link.run(only(effect.ask))
            return (await result) if self._awaits else result
        if kind is not Pause:
            raise AssertionError(f"no such effect: {effect!r}")
        return None

    async def _give_way(self) -> None:
        """Raise a swallowed cancellation. Let other tasks of the loop run after some time."""
        self._session.raise_swallowed()
        if time.monotonic() - self._turn > _TURN:
            await asyncio.sleep(0)
            self._turn = time.monotonic()

    async def close(self) -> None:
        """Release the connection and end the wait. Items not returned yet are lost."""
        try:
            await self._session.close()
        except BaseException:
            await self._session.close()
            raise
        finally:
            if self._waiter is not None:
                self._stop_waiting(self._waiter)
            if self._source is not None:
                await self._source.close()

    def _stop_waiting(self, waiter: Waiter) -> None:
        failed = not hasattr(self, "result")
        try:
            waiter.end(failed)
        except BaseException:
            waiter.end(failed)
            raise


def _in_its_loop(error: Exception) -> Exception:
    """Return an error with the remedy, if a client's connections belong to another event loop."""
    if type(error) is not RuntimeError or not re.search(
        "event loop|different loop", str(error), re.I
    ):
        return error
    made = RuntimeError(
        f"redis_client was used in another event loop, which owns its connections ({error}): make "
        "a client and its sets in each loop, or await client.aclose() before the first loop ends"
    )
    made.__cause__ = error
    return made
