"""Checks of a server: whether its configuration keeps the items of sets."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from redset._operations.context import Context
from redset._operations.replies import bytes_of, count, is_answer, listed
from redset._transport.effects import Ask, AskOther, Operation
from redset.scripts import script

log = logging.getLogger("redset")

#: Seconds without a snapshot after a change, after which the server seems to make none. By default
#: it makes one in an hour.
UNSAVED = 3700

#: The node timeout of a cluster that hides it, in seconds: below that of any managed service.
HIDDEN_NODE_TIMEOUT = 5.0

#: True after this process checked a server, at its first write of lasting data.
_checked = False


def problems_of(wire: ModuleType, key: bytes | None = None) -> Operation[list[str]]:
    """Return warnings about a server, in a cluster about the node that has the key."""
    return _warnings_of((yield _ask(wire, key)))


def check_nodes(
    wire: ModuleType, nodes: Iterable[tuple[str, Any]], timeout: float | None
) -> Operation[list[str]]:
    """Return warnings about each of some nodes of a cluster, which have names and links."""
    found = []
    for name, link in nodes:
        reply = yield AskOther(link, _ask(wire, None))
        warned = _warnings_of(reply) + (yield from _check_node(wire, link, reply[1], timeout))
        found += [f"{name}: {each}" for each in warned]
    return found


def check_node_of(
    wire: ModuleType, key: bytes, find: Callable[[], Any], timeout: float | None
) -> Operation[list[str]]:
    """Return warnings about the node of a cluster that has a key; ``find`` returns its link."""
    reply = yield _ask(wire, key)
    return _warnings_of(reply) + (yield from _check_node(wire, find(), reply[1], timeout))


def _check_node(
    wire: ModuleType, link: Any, info: bytes, timeout: float | None
) -> Operation[list[str]]:
    """Return what is wrong with a node as one of a cluster, and with the client's timeout."""
    found = []
    fields = _fields_of(info.decode("utf-8", "replace"))
    if fields.get("role") == "master" and fields.get("connected_slaves") == "0":
        found.append("it has no replica: if it fails, its slots are not served")
    if (yield from _setting(wire, link, b"min-replicas-to-write")) == 0:
        found.append(
            "min-replicas-to-write is 0: cut off from its replicas it accepts writes that are lost"
        )
    limit = yield from _setting(wire, link, b"cluster-node-timeout")
    most = HIDDEN_NODE_TIMEOUT if limit is None else limit / 1000
    if timeout is None or timeout >= most:
        found.append(
            f"socket_timeout of the client is {timeout}, and must be below {most:g} seconds "
            "(cluster-node-timeout): a primary that was frozen and replaced performs late "
            "requests, and their effects are lost"
        )
    text = yield from _hidden(link, Ask(wire.encode([b"CLUSTER", b"NODES"]), reads=bytes_of))
    for slots in re.findall(rb"^[^\n]*\bmyself\b[^\n]*$", text or b"", re.MULTILINE):
        for slot in re.findall(rb"\[(\d+)-[<>]-", slots):
            found.append(
                f"slot {int(slot)} is open: steps of its sets are refused until it has moved"
            )
    return found


def _setting(wire: ModuleType, link: Any, name: bytes) -> Operation[int | None]:
    """Return a number of a node's configuration; None if it is hidden."""
    ask = Ask(wire.encode([b"CONFIG", b"GET", name]), reads=_setting_in)
    number: int | None = yield from _hidden(link, ask)
    return number


def _setting_in(reply: Any) -> int | None:
    """Read the reply to CONFIG GET of one number: a list, or a dict."""
    values = list(reply.values()) if isinstance(reply, dict) else listed(reply)
    return int(values[-1]) if values else None


def _hidden(link: Any, ask: Ask) -> Operation[Any]:
    """Return the reply to a request that a server, or a user's rights, may refuse."""
    try:
        return (yield AskOther(link, ask))
    except Exception as error:
        if not is_answer(error):
            raise
        return None


def _ask(wire: ModuleType, key: bytes | None) -> Ask:
    step, keys = script("server"), [] if key is None else [key]
    return Ask(
        wire.encode([b"EVALSHA", step.sha, len(keys), *keys]), 1, step, True, _clock_and_info
    )


def _warnings_of(reply: tuple[int, bytes]) -> list[str]:
    now, text = reply
    return warnings(text.decode("utf-8", "replace"), now)


def check_once(ctx: Context) -> Operation[None]:
    """Log warnings about the first server that this process writes to.

    A server that refuses the check is not checked again: the user may lack TIME, or scripts.
    """
    global _checked
    if _checked:
        return
    _checked = True
    try:
        found = yield from problems_of(ctx.wire, ctx.keys.queue)
    except BaseException as error:
        if isinstance(error, Exception) and is_answer(error):
            log.debug("the server of %r refused the check: %s", ctx.name, error)
            return
        _checked = False
        raise
    for each in found:
        log.warning("the server of %r: %s", ctx.name, each)


def _clock_and_info(reply: Any) -> tuple[int, bytes]:
    now, text = listed(reply, 2)
    return count(now), bytes_of(text)


def warnings(text: str, now: int) -> list[str]:
    """Return warnings by the text of INFO. A hidden figure causes no warning."""
    info = _fields_of(text)
    found = []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        what = (
            "keys that expire, as locks do,"
            if "volatile" in policy
            else "single keys of sets, so what is queued, leased or remembered,"
        )
        found.append(f"with maxmemory-policy {policy} it drops {what} when it is full: noeviction")
    if info.get("aof_enabled") == "0":
        since = now - _number(info, "rdb_last_save_time", now)
        if since > UNSAVED and _number(info, "rdb_changes_since_last_save", 0):
            found.append(
                f"nothing was saved for {since / 3600:.0f} hours, and there is no append-only "
                "file: its data is lost with its process"
            )
    if info.get("rdb_last_bgsave_status") == "err":
        found.append("its last snapshot failed")
    if info.get("aof_last_write_status") == "err":
        found.append("its append-only file cannot be written")
    if info.get("role") == "slave":
        found.append("it is a replica: writes to it are refused or lost")
    version = info.get("redis_version", "")
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < (6, 2):
        found.append(f"it is Redis {version}, and redset needs 6.2 or later")
    return found


def _fields_of(text: str) -> dict[str, str]:
    """Return the fields of the text of INFO."""
    return dict(re.findall(r"^(\w+):(.*?)\r?$", text, re.MULTILINE))


def _number(info: dict[str, str], field: str, default: int) -> int:
    value = info.get(field, "")
    return int(value) if value.isdecimal() else default
