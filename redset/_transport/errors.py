"""Server errors, translated to the classes and texts that they have outside of scripts.

Theory of operation. If a command that a script calls fails, Redis 6.2 wraps the error. The client
then does not see its code, and raises a plain ResponseError. Servers also differ in how they name a
missing right, and do not know redset's steps. `translated` restores the client library's own class
and the plain text. So a program catches the same exception on each server. Nothing here imports a
client library: its exceptions are found by the module of an object.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

from redset._transport.clients import library_of
from redset._transport.effects import Send, Unexpected
from redset.exceptions import OptionsDiffer
from redset.scripts import Script

#: Error codes that the client libraries have a class for.
_CLASSES = {
    "OOM": "OutOfMemoryError",
    "READONLY": "ReadOnlyError",
    "NOSCRIPT": "NoScriptError",
    "NOPERM": "NoPermissionError",
}
#: Errors about a missing right of a script's user: of Redis 6.2 and 7.0, then of 7.2 and Valkey.
_NO_RIGHT = (
    r"(The user executing the script can't [^@]*?|ACL failure in script: .*?)"
    r"(?: script: .*)?$"
)
#: The beginning of an error of a command that a script called, as Redis 6.2 wraps it.
_WRAPPED = r"(ERR )?Error running script"
_LINE = r"@user_script: ?(\d+)"


def exceptions_of(value: Any) -> Any:
    """Return the exceptions of an object's client library; None for other objects."""
    library = library_of(type(value))
    if library is None:
        return None
    return importlib.import_module(f"{library.__name__}.exceptions")


def connection_error(connection: Any) -> type[Exception]:
    """Return the class of a lost connection in an object's client library."""
    exceptions = exceptions_of(connection)
    return exceptions.ConnectionError if exceptions else ConnectionError


def invalid_response(value: Any, effect: Send, error: Unexpected) -> Exception:
    """Make the error of a malformed reply, of the client's own class if it has one."""
    exceptions = exceptions_of(value)
    kind = exceptions.InvalidResponse if exceptions else ConnectionError
    made: Exception = kind(f"{effect.name}: {error}")
    made.__cause__ = error
    return made


def is_reply(error: Exception) -> bool:
    """Return whether an exception is a server's reply, after which the connection is in order."""
    return any(base.__name__ == "ResponseError" for base in type(error).__mro__)


def class_names(error: BaseException | None) -> set[str]:
    """Return the names of an error's class and of its bases, which all client libraries share."""
    return {base.__name__ for base in type(error).__mro__}


def codes_of(error: BaseException | None) -> set[str]:
    """Return the first word of a server's error: its code. Return all words of a wrapped one."""
    words = str(error).split()
    if re.match(_WRAPPED, str(error)):
        return {word.lstrip("-") for word in words}
    return set(words[:1])


def is_abort(error: Exception) -> bool:
    """Return whether EXEC ended a MULTI without performing it."""
    return type(error).__name__ == "ExecAbortError" or str(error).startswith("EXECABORT")


def is_no_eval(error: Exception) -> bool:
    """Return whether an error means that the user, or the server, has no EVAL."""
    text = str(error).lower()
    return "eval" in text and ("permission" in text or "unknown command" in text)


def translated(error: Exception, script: Script | None = None) -> Exception:
    """Restore the class and text that an error has outside of scripts (Redis 6.2 wraps both)."""
    text = str(error)
    if type(error).__name__ != "ResponseError":
        return error
    if script is not None and re.search("unknown command.*evalsha", text, re.I | re.S):
        made = type(error)(
            f"{text.rstrip()} (redset needs a server with Lua scripts; for tests, "
            "fakeredis runs them if it is installed as fakeredis[lua])"
        )
        made.__cause__ = error
        return made
    differs = re.search(r"OTHER_OPTIONS (\S+)", text)
    if differs is not None:
        made = OptionsDiffer(
            f"the leases in the key {differs[1]!r} were made by an object with group=, and this "
            "object has none: all processes of a set must agree"
        )
        made.__cause__ = error
        return made
    refused = _no_right(text, script)
    if refused is not None:
        kind = getattr(exceptions_of(error), "NoPermissionError", None)
        made = type(error)(f"NOPERM {refused}") if kind is None else kind(refused)
        made.__cause__ = error
        return made
    for code in ("OOM", "READONLY", "WRONGTYPE", "NOPERM", "MISCONF"):
        at = text.find(code + " ")
        if at < 0 or (
            at > 0 and not text.startswith(("Error running script", "ERR Error", "EXECABORT"))
        ):
            continue
        exceptions = exceptions_of(error)
        kind = getattr(exceptions, _CLASSES.get(code, ""), None)
        # An error with its own class has the text without the code.
        made = type(error)(text[at:]) if kind is None else kind(text[at + len(code) + 1 :])
        made.__cause__ = error if at else None
        return made
    return error


def _no_right(text: str, script: Script | None) -> str | None:
    """Return the text of an error about a missing right in a script, with the command."""
    found = re.search(_NO_RIGHT, text, re.DOTALL)
    if found is None:
        return None
    refusal = found[1].removeprefix("ACL failure in script: ").removesuffix(".")
    if script is None:
        return refusal
    line = re.search(_LINE, text)
    names = script.commands_at(int(line[1])) if line else []
    place = f"in the step {script.name!r}"
    if not names or any(f"'{name.lower()}'" in refusal for name in names):
        return f"{refusal}, {place}"
    return f"{refusal}: {' or '.join(repr(name.lower()) for name in names)}, {place}"
