"""Reports as plain commands, for a server without scripts: fakeredis without Lua.

They write what `report.lua` and `register.lua` write. Nothing makes them one step, and no old line
or entry is dropped: such a server is a test's own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from redset._operations.keys import REGISTRY

#: Seconds that the counts and lines of workers are kept, and seconds between two entries.
_KEPT, _HOUR = 604800, 3600


def lacks_scripts(error: Exception) -> bool:
    """Return whether an error means that the server has no scripts."""
    text = str(error).lower()
    return "unknown command" in text and ("evalsha" in text or "script" in text)


def commands_of(
    keys: Any, arguments: Mapping[str, Any], changes: list[tuple[str, int]]
) -> list[list[Any]]:
    """Return the commands of a report, with the arguments of its script.

    The last one asks for the pause.
    """
    now = int(time.time())
    commands: list[list[Any]] = [
        [b"HINCRBY", keys.counts, field, num] for field, num in changes if num
    ]
    for flag, field in (("produces", b"producer_seen"), ("consumes", b"consumer_seen")):
        if arguments[flag]:
            commands.append([b"HSET", keys.counts, field, now])
    line = _object_of({"seen": now, "since": now - arguments["age"]}, arguments["line"])
    commands.append([b"HSET", keys.workers, arguments["worker"], line])
    commands += [[b"EXPIRE", key, _KEPT] for key in (keys.counts, keys.workers)]
    return [*commands, [b"GET", keys.paused]]


def entry_command(name: bytes, entry: str) -> list[Any]:
    """Return the command that enters a set into the registry."""
    hour = int(time.time()) // _HOUR * _HOUR
    return [b"HSET", REGISTRY, name, _object_of({"seen": hour}, entry)]


def _object_of(fields: dict[str, int], rest: str) -> str:
    """Return a JSON object: its first fields, as the scripts write and read them, and the rest."""
    return json.dumps(fields, separators=(", ", ":"))[:-1] + ", " + rest
