"""Effects: an operation yields them to the transport, which sends it their results."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

from redset.scripts import Script

R = TypeVar("R")

#: Yields effects, is sent their results, and returns the result of the operation.
Operation = Generator[Any, Any, R]


class Send:
    """One atomic server step, whose reply a later READ takes.

    Attributes
    ----------
    data : bytes
        The encoded request.
    replies : int
        Number of replies (MULTI to EXEC: one per command).
    script : Script
        The script that it calls, if any.
    resend : bool
        Whether it may be performed again after its connection was lost.
    reads : callable
        Makes the result of the reply, or raises `Unexpected`. It takes a list if there are several
        replies, with errors as exceptions; the last one is EXEC's.
    resent : bool
        Whether it was sent again, and so may have been performed twice.
    """

    __slots__ = ("data", "reads", "replies", "resend", "resent", "script")

    def __init__(
        self,
        data: bytes,
        replies: int = 1,
        script: Script | None = None,
        resend: bool = False,
        reads: Callable[[Any], Any] | None = None,
    ) -> None:
        self.data = data
        self.replies = replies
        self.script = script
        self.resend = resend
        self.resent = False
        self.reads = reads

    @property
    def name(self) -> str:
        """The name of the request in errors: its script, or its first command."""
        if self.script is not None:
            return f"the step {self.script.name!r}"
        return self.data.split(b"\r\n", 3)[2].decode()


class Rider:
    """A request that travels in the write of another one, which it changes nothing for.

    It is never sent again. ``done`` takes its reply, or the error that it is; it is not called if
    none came. A command has no script.
    """

    __slots__ = ("data", "done", "loading", "script")

    def __init__(self, data: bytes, script: Script | None, done: Callable[[Any], None]) -> None:
        self.data = data
        self.script = script
        self.done = done
        #: Whether the script's loading went out with it.
        self.loading = False


class Outsized:
    """The size of an argument that may be the reason for a lost connection."""

    __slots__ = ("limit", "size")

    def __init__(self, size: int, limit: int | None) -> None:
        #: The size of the argument and the limit of the server, in bytes. None: unknown.
        self.size = size
        self.limit = limit

    def error(self, kind: type[Exception], argument: bytes) -> Exception:
        """Make the error for the user, of a client's class."""
        rest = "..." if len(argument) < self.size else ""
        limit = "may be less" if self.limit is None else f"is {self.limit:,}"
        made = kind(
            f"the server closes the connection on an item of {self.size:,} bytes "
            f"({argument!r}{rest}): its proto-max-bulk-len {limit}; max_item_bytes refuses such "
            "items before they are sent"
        )
        made._redset_outsized = self  # type: ignore[attr-defined]
        return made


def outsized(error: BaseException) -> Outsized | None:
    """Return the size that an error has, if its cause is an argument that is too large."""
    size: Outsized | None = getattr(error, "_redset_outsized", None)
    return size


class Unexpected(Exception):
    """A reply that its command cannot have."""


class Ask(Send):
    """A Send whose reply is read at once."""

    __slots__ = ()


class Read:
    """Read the oldest unread reply; its error is thrown in."""

    __slots__ = ()


READ = Read()


class Pull:
    """Take up to ``num`` more of the caller's items, with their scores. No items mean the end.

    The caller's code may run, so with an unsteady source nothing may be in flight.
    """

    __slots__ = ("num",)

    def __init__(self, num: int) -> None:
        self.num = num


class Emit:
    """Hand values to the caller of a generator. Nothing may be in flight."""

    __slots__ = ("values",)

    def __init__(self, values: list[Any]) -> None:
        self.values = values


class Wait:
    """Wait until there may be an item: True; False if the time is over.

    Nothing may be in flight. No connection is held while it waits.

    Attributes
    ----------
    poll : Ask
        Asks for the number of items, and the seconds until there may be more.
    keys : list of bytes
        The keys that ``poll`` reads.
    until : float
        The end of the wait, a time of `time.monotonic`.
    ended : callable
        Called every 50 ms; ends the wait if it returns True.
    """

    __slots__ = ("ended", "keys", "poll", "until")

    def __init__(
        self,
        poll: Ask,
        keys: list[bytes],
        until: float,
        ended: Callable[[], bool] | None = None,
    ) -> None:
        self.poll = poll
        self.keys = keys
        self.until = until
        self.ended = ended


class Fingerprint:
    """Take a fingerprint of the open connections.

    Two are equal only if in between the client opened and lost no connection, and the process none
    that redset uses. A fingerprint begins with the number of the database. None: not visible.
    """

    __slots__ = ()


FINGERPRINT = Fingerprint()


class AskOther:
    """Ask over another set's link. Nothing may be in flight."""

    __slots__ = ("ask", "link")

    def __init__(self, link: Any, ask: Ask) -> None:
        self.link = link
        self.ask = ask


def only(ask: Ask) -> Operation[Any]:
    """Perform one request, as an operation."""
    return (yield ask)


class Pause:
    """Do nothing: other tasks of an event loop may run here, in a long computation."""

    __slots__ = ()


PAUSE = Pause()
