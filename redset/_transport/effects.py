"""Effects: the requests of an operation to the transport."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

from redset.scripts import Script

R = TypeVar("R")

#: Yields effects, is sent what came of them, and returns the operation's result.
Operation = Generator[Any, Any, R]


class Send:
    """One atomic server step, to be answered by a later READ.

    ``replies`` is how many answers the bytes bring (MULTI to EXEC: one for each command);
    ``resend`` says that the step may be performed again after its connection was lost; ``reads``
    makes of the answer what the operation is given, or raises `Unexpected`. If there are several
    answers, it takes a list of all, errors as exceptions; the last one is EXEC's. ``resent`` is set
    where it was sent again, so that it may have been performed twice.
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
        """Name of a request in errors: its script, or its first command."""
        if self.script is not None:
            return f"the step {self.script.name!r}"
        return self.data.split(b"\r\n", 3)[2].decode()


class Outsized:
    """Why a connection was lost: one argument is, or may be, more than the server takes."""

    __slots__ = ("limit", "size")

    def __init__(self, size: int, limit: int | None) -> None:
        #: Its bytes, and the most that the server takes, if it says so.
        self.size = size
        self.limit = limit

    def error(self, kind: type[Exception], argument: bytes) -> Exception:
        """Make the error that says so, of a client's class."""
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
    """Return what an error says of an argument that is too large, if it says so."""
    found: Outsized | None = getattr(error, "_redset_outsized", None)
    return found


class Unexpected(Exception):
    """A reply that the command which it answers cannot have."""


class Ask(Send):
    """A Send whose answer is wanted at once."""

    __slots__ = ()


class Read:
    """The oldest unread answer, or its error thrown in."""

    __slots__ = ()


READ = Read()


class Pull:
    """Up to ``num`` more of the caller's items, with their scores; no items are the end.

    The caller's code may run: with an unsteady source an operation has nothing in flight here.
    """

    __slots__ = ("num",)

    def __init__(self, num: int) -> None:
        self.num = num


class Emit:
    """Results for the caller of a generator; nothing is in flight."""

    __slots__ = ("values",)

    def __init__(self, values: list[Any]) -> None:
        self.values = values


class Wait:
    """Until something may be had: True; False if the time is over and nothing came.

    Nothing is in flight, and no connection is held meanwhile. ``look`` asks the server how much may
    be had now, and in how many seconds there may be more; ``keys`` are those that it reads;
    ``until`` is a time of `time.monotonic`; ``ended`` is called every 50 ms, and ends it, too.
    """

    __slots__ = ("ended", "keys", "look", "until")

    def __init__(
        self,
        look: Ask,
        keys: list[bytes],
        until: float,
        ended: Callable[[], bool] | None = None,
    ) -> None:
        self.look = look
        self.keys = keys
        self.until = until
        self.ended = ended


class Sight:
    """A fingerprint of the open connections: two are equal if in between the client lost and
    opened none, nor the process any that redset uses. It begins with the number of the database.

    None if they cannot be seen.
    """

    __slots__ = ()


SIGHT = Sight()


class There:
    """A request over another set's link; nothing is in flight."""

    __slots__ = ("ask", "link")

    def __init__(self, link: Any, ask: Ask) -> None:
        self.link = link
        self.ask = ask


def only(ask: Ask) -> Operation[Any]:
    """Do nothing but ask."""
    return (yield ask)


class Pause:
    """Nothing: a place in a long computation where others may have their turn."""

    __slots__ = ()


PAUSE = Pause()
