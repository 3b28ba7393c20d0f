"""The fixtures. A test that takes `client` or `make_set` runs once for each row of
`servers.cases()`: each face on every server, each kind of client on one of them; one that
takes `any_server` or `server_client` runs on each real server. `selection.py` chooses which of
these a plain run has."""

from __future__ import annotations

import ast
import atexit
import contextlib
import importlib
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import blocking
import children
import hypothesis
import pytest
import redis
import servers
from hypothesis.database import InMemoryExampleDatabase
from load import Load

from redset._operations import checking, known, logs, reporting

# For the benchmarks; last, so that a redset that is installed comes before the tree's.
sys.path.append(str(Path(__file__).resolve().parent.parent))

# A shell without job control starts a background job with SIGINT ignored, and so may cron and CI.
# Children inherit what is ignored, but not a handler: they begin with the default. SIGHUP stays as
# it is, since nohup ignores it on purpose.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for _name in ("SIGTERM", "SIGALRM", "SIGCHLD"):
        _number = getattr(signal, _name, None)
        if _number is not None and signal.getsignal(_number) is signal.SIG_IGN:
            signal.signal(_number, signal.SIG_DFL)

# Until 3.13 CPython counts the depth of all threads' trees in one number, and a parse may fail if
# another thread parses meanwhile. A traceback is parsed for its printing. So what a background
# thread logs could end the whole run while pytest prints a failed test.
if sys.version_info < (3, 13):
    _parse = ast.parse

    def _parse_again(*args: Any, **kwargs: Any) -> Any:
        for _ in range(20):
            with contextlib.suppress(SystemError):
                return _parse(*args, **kwargs)
        return _parse(*args, **kwargs)

    ast.parse = _parse_again

# Two runs in one tree have no database in common, and no example fails for its time alone.
# A failure prints the command that repeats it.
hypothesis.settings.register_profile(
    "redset",
    database=InMemoryExampleDatabase(),
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("redset")


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.import_plugin("selection")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    with _skipped_by_name():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    with _skipped_by_name():
        yield


@contextlib.contextmanager
def _skipped_by_name() -> Iterator[None]:
    try:
        yield
    except servers.Missing as missing:
        pytest.skip(str(missing))


#: Tests of one set alone, which also run over cluster clients.
ON_CLUSTER = frozenset(
    ("test_between", "test_dead", "test_few", "test_identity", "test_leases", "test_sets")
)
#: Every kind of asyncio client.
ASYNCIO = servers.ASYNCIO_CLIENTS | servers.ASYNCIO_CLUSTER_CLIENTS


@pytest.fixture(scope="session")
def all_servers() -> Iterator[servers.Servers]:
    started = servers.Servers()
    atexit.register(started.stop)
    yield started
    started.stop()
    atexit.unregister(started.stop)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise ``case``: (implementation, server, kind of client).

    A test that has its sets from `make_set` and does not use their client runs over both faces.
    """
    if "case" not in metafunc.fixturenames:
        return
    turn = zlib.crc32(metafunc.function.__name__.encode())
    rows: list[Any] = servers.cases(servers.CLIENTS, turn)
    on_cluster = servers.cluster_cases(servers.CLUSTER_CLIENTS, turn)
    if (
        "make_set" in metafunc.fixturenames
        and "client" not in metafunc.definition._fixtureinfo.argnames
    ):
        rows += servers.cases(servers.ASYNCIO_CLIENTS, turn + 1)
        on_cluster += servers.cluster_cases(servers.ASYNCIO_CLUSTER_CLIENTS, turn + 1)
    if metafunc.module.__name__ in ON_CLUSTER:
        # A plain run meets them in one function of sixteen.
        marks = [] if turn % 16 == 0 else [pytest.mark.slow(0.2)]
        rows += [pytest.param(row, marks=marks, id=servers.case_id(row)) for row in on_cluster]
    metafunc.parametrize("case", rows, ids=servers.case_id, scope="function")


@pytest.fixture
def load() -> Iterator[Load]:
    """How slow the machine is, for tests that measure time."""
    with Load() as made:
        yield made


@pytest.fixture(autouse=True)
def server_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check that a process makes once would be a request more of whichever test comes first."""
    monkeypatch.setattr(checking, "_checked", True)


@pytest.fixture(autouse=True)
def nothing_was_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test begins as a process does: with nothing counted, reported or refused."""
    monkeypatch.setattr(reporting, "_process", reporting._Process())


@pytest.fixture
def lasting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The known table is trusted as long as the test lasts: a second is short on a busy machine."""
    monkeypatch.setattr(known, "TRUST", 60.0)
    monkeypatch.setattr(known, "RENEW", 50.0)


@pytest.fixture
def silent() -> None:
    """The process reports nothing: for tests that read its commands one by one."""
    reporting._process.is_silent = True


@pytest.fixture(autouse=True)
def nothing_was_logged() -> None:
    """Warnings that are logged once a process and set are logged once a test."""
    logs._logged.clear()


@pytest.fixture
def implementation(case: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the implementation that sets made in this test use."""
    _use(case[0], monkeypatch)
    return case[0]


@pytest.fixture(params=servers.IMPLEMENTATIONS)
def any_implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each implementation, for tests that have no `client`."""
    name: str = request.param
    _use(name, monkeypatch)
    return name


@pytest.fixture
def server(case: tuple[str, str, str], all_servers: servers.Servers) -> servers.AnyServer:
    """The server of `client`, empty. fakeredis has no addresses and cannot be restarted."""
    return _empty(all_servers, case[1])


@pytest.fixture
def raw(server: servers.AnyServer) -> Any:
    """A redis-py client on the same server that decodes nothing."""
    return server.raw


@pytest.fixture
def client(
    case: tuple[str, str, str], implementation: str, server: servers.AnyServer
) -> Iterator[Any]:
    """A client of each kind, on each server."""
    kind = case[2]
    if kind in ASYNCIO:
        made = ASYNCIO[kind](server)
        yield made
        blocking.wait(servers.aclose(made))
        return
    made = (servers.CLIENTS | servers.CLUSTER_CLIENTS)[kind](server)
    yield made
    if hasattr(made, "close"):
        made.close()


@pytest.fixture
def make_set(client: Any, case: tuple[str, str, str]) -> Callable[..., Any]:
    """Makes sets over `client`: ``make_set(cls=SortedSet, name="jobs", **options)``.

    Called twice with the same name it gives two objects for one set. Over an asyncio client it
    makes the twin of the class, with the sync names.
    """
    from redset import SortedSet

    def make(cls: Any = SortedSet, name: str | bytes | None = None, **options: Any) -> Any:
        name = "jobs" if name is None else name
        if case[2] in ASYNCIO:
            return blocking.BlockingSet(cls, client, name, **options)
        return cls(client, name, **options)

    return make


@pytest.fixture(params=servers.REAL)
def any_server(request: pytest.FixtureRequest, all_servers: servers.Servers) -> servers.Server:
    """Each real server, empty, for faults and for behaviour that is the same with every client."""
    server = _empty(all_servers, request.param)
    assert isinstance(server, servers.Server)
    return server


@pytest.fixture
def server_client(any_server: servers.Server) -> Iterator[Any]:
    """A plain redis-py client of `any_server`."""
    made = any_server.client()
    yield made
    made.close()


@pytest.fixture
def sentinel(any_server: servers.Server, tmp_path: Path) -> Iterator[int]:
    """The port of a Sentinel that watches the server as "main"."""
    for number in range(5):
        directory = tmp_path / f"sentinel{number}"
        directory.mkdir()
        config, port = directory / "conf", servers.free_port()
        config.write_text(
            f"bind 127.0.0.1\nport {port}\ndir {directory}\n"
            f"sentinel monitor main 127.0.0.1 {any_server.port} 1\n"
        )
        command = [any_server.binary, str(config), "--sentinel"]
        with children.Child(command=command) as child:
            until = time.monotonic() + 30
            while child.status is None and time.monotonic() < until:
                with contextlib.suppress(redis.RedisError), redis.Redis(port=port) as asked:
                    asked.ping()
                    yield port
                    return
                time.sleep(0.02)
            # Another program may have taken the port.
            assert "in use" in child.out, str(child)
    raise AssertionError("no port for a Sentinel in 5 attempts")


def _empty(all_servers: servers.Servers, kind: str) -> servers.AnyServer:
    server = all_servers.get(kind)
    server.flush()
    return server


def _use(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    servers.check_implementation(name)
    wire = importlib.import_module("redset._wire")
    monkeypatch.setattr(wire, "DEFAULT", wire.load(name))
