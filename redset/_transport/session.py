"""Sessions: one operation's use of a connection, and its requests in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Any

from redset._transport.coroutines import cancellations, complete
from redset._transport.effects import Rider, Send

#: Stands for a reply that was not read yet.
UNREAD = object()


class Session:
    """One operation's use of a connection: its requests in flight, in order."""

    _awaits: bool
    #: The pool of its connections, or else its client.
    _pool: Any = None
    _client: Any = None
    #: Makes the reports that travel with requests, if there are any.
    reporter: Any = None
    #: The cancellations of the asyncio task before its call, as `cancellations` counts them.
    cancelled_before = 0

    def pool(self) -> Any:
        """Return the source of the connections to the set's server, if there is one."""
        return self._pool

    def owner(self) -> Any:
        """Return what waiters have in common that may share polls: the pool, or the client."""
        return self._client if self._pool is None else self._pool

    def note_cancellations(self) -> None:
        """Remember, at the start of an asyncio call, how often its task was cancelled before."""
        if self._awaits:
            self.cancelled_before = cancellations()

    def raise_swallowed(self) -> None:
        """Raise the cancellation of an asyncio call that the client swallowed.

        Before Python 3.12 an `asyncio.wait_for` of the client's may swallow one.
        """
        if self._awaits and cancellations() > self.cancelled_before:
            raise asyncio.CancelledError

    async def _settled(self, result: Any) -> Any:
        """Return the result of a client's method, awaited if it must be."""
        return (await result) if self._awaits else result

    async def send(self, effect: Send) -> None:
        """Send a request, without waiting for its reply."""
        raise NotImplementedError

    async def read(self) -> Any:
        """Read the reply to the oldest unread request, or raise its error."""
        raise NotImplementedError

    def ask(self, effect: Send) -> Any:
        """Send and read with a sync client."""
        complete(self.send(effect))
        return complete(self.read())

    async def close(self) -> None:
        """Return the connection to its pool, with nothing unread on it."""
        raise NotImplementedError

    def riders(self) -> list[Rider]:
        """Return the reports that travel with the next request: at most one in two seconds."""
        reporter = self.reporter
        if reporter is None or reporter.tally.due > monotonic():
            return []
        return reporter.ride()  # type: ignore[no-any-return]

    def fingerprint(self) -> Any:
        """Return a fingerprint of the open connections; None if they cannot be seen."""
        return None


class Flight:
    """A request in flight, and the replies that were read already."""

    __slots__ = ("answer", "before", "effect", "kept", "loading", "reloads", "riders", "whole")

    def __init__(self, effect: Send, riders: Sequence[Rider] = ()) -> None:
        self.effect = effect
        #: Requests in front of it whose replies are not read yet. They are never sent again.
        self.riders = riders
        self.loading = False
        #: Whether the script's text went out with it, since the server refused to load it.
        self.whole = False
        #: Number of commands that went out before it.
        self.before = 0
        self.reloads = 0
        self.answer: Any = UNREAD
        #: The first reply of a request that is sent again only to come last.
        self.kept: Any = UNREAD


class ErrorReply:
    """A reply that is an error, as an exception of the client's library."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


def is_no_script(answer: Any) -> bool:
    """Return whether a reply means that the server does not have the script."""
    return type(answer) is ErrorReply and (
        type(answer.error).__name__ == "NoScriptError" or str(answer.error).startswith("NOSCRIPT")
    )
