"""The generic session: one command after another through a client's ``execute_command``.

Theory of operation. A client that prefixes keys, counts failures or leads to a cluster must see
each command. So nothing is in flight here. A request is split into arguments, and the client
performs it with its own retries. Its reply is kept until the operation reads it. A client may
decode replies, wrap errors and repeat commands. redset asks it not to decode, and translates
errors.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

from redset._transport.clients import caches, library_of
from redset._transport.coroutines import heard
from redset._transport.effects import Outsized, Rider, Send, Unexpected
from redset._transport.errors import (
    connection_error,
    invalid_response,
    is_no_eval,
    is_reply,
    translated,
)
from redset._transport.limits import LARGE, SHOWN, limit_of
from redset._transport.session import ErrorReply, Session, is_no_script
from redset.scripts import Script


class GenericSession(Session):
    """One command after another through a client's ``execute_command``."""

    #: The size limit of an argument: -1 before the server was asked, None if it is unknown.
    _limit: int | None = -1

    def __init__(
        self,
        client: Any,
        split: Callable[[bytes], list[list[bytes]]],
        options: dict[str, Any],
        awaits: bool,
    ) -> None:
        self._client = client
        self._execute = client.execute_command
        self._split = split
        self._options = options
        self._caches = caches(client)
        self._counts = library_of(type(client)) is not None
        self._awaits = awaits
        self._answers: deque[tuple[Send, Any]] = deque()

    async def send(self, effect: Send) -> None:
        for rider in self.riders():
            await self._ride(rider)
        (arguments,) = self._split(effect.data)
        large = max(arguments, key=len) if len(effect.data) > LARGE else b""
        try:
            if len(large) > LARGE:
                # Before the request: the client's own retries would take seconds.
                await self._refuse(large)
            try:
                answer = await self._command(arguments)
            except Exception as error:
                if effect.script is None or not is_no_script(ErrorReply(error)):
                    raise
                answer = await self._reload(effect.script, arguments)
        except Exception as error:
            answer = ErrorReply(translated(error, effect.script))
        self._answers.append((effect, answer))

    async def _ride(self, rider: Rider) -> None:
        """Perform a report as a command of its own. No error of it is the caller's."""
        (arguments,) = self._split(rider.data)
        try:
            try:
                answer = await self._command(arguments)
            except Exception as error:
                if rider.script is None or not is_no_script(ErrorReply(error)):
                    raise
                answer = await self._reload(rider.script, arguments)
        except Exception as error:
            if is_reply(error):
                rider.done(translated(error, rider.script))
        else:
            rider.done(answer)

    async def read(self) -> Any:
        effect, answer = self._answers.popleft()
        if type(answer) is ErrorReply:
            raise answer.error
        try:
            return answer if effect.reads is None else effect.reads(answer)
        except Unexpected as error:
            raise invalid_response(self._client, effect, error) from None

    async def close(self) -> None:
        self._answers.clear()

    async def _refuse(self, argument: bytes) -> None:
        """Raise the client's ConnectionError if an argument is larger than the server takes."""
        if self._limit == -1:
            self._limit = None
            with contextlib.suppress(Exception):  # a user may lack the right to CONFIG
                answer = await self._executed("CONFIG GET", "proto-max-bulk-len", **self._options)
                self._limit = limit_of(answer)
        if self._limit is not None and len(argument) > self._limit:
            kind = connection_error(self._client)
            raise Outsized(len(argument), self._limit).error(kind, argument[:SHOWN])

    async def _command(self, arguments: list[bytes]) -> Any:
        text = arguments[0].decode()
        rest: list[bytes | int] = [*arguments[1:]]
        if self._counts and text in ("EVAL", "EVALSHA"):
            # Cluster clients find the keys by their number. In redis-py 5.0.0 it must be an int.
            rest[1] = int(rest[1])
        if self._caches:
            text = text.lower()  # its caches know commands in upper case only
        return await self._executed(text, *rest, **self._options)

    async def _reload(self, script: Script, arguments: list[bytes]) -> Any:
        """Load a script, then call it; send its text if the server refuses to load it."""
        try:
            # Without options: a cluster client hands them to its callback, which takes none.
            # Only a command of this name goes to all primaries.
            await self._executed("SCRIPT LOAD", script.text)
        except Exception as refusal:
            if not is_reply(refusal):
                raise
            try:
                return await self._command([b"EVAL", script.text, *arguments[2:]])
            except Exception as error:
                if is_no_eval(error):
                    raise refusal from None
                raise
        return await self._command(arguments)

    async def _executed(self, *arguments: Any, **options: Any) -> Any:
        answer = await self._settled(heard(self._execute(*arguments, **options)))
        if isinstance(answer, Exception):
            raise answer
        return answer
