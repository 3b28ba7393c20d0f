"""Sets through the cluster clients of redis-py and valkey-py, on a cluster of one node."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio.cluster
import redis.cluster
import servers

import redset.asyncio
from redset import ScheduledSet, SortedSet, check_server
from redset.exceptions import AddError


@contextlib.contextmanager
def cluster(kind: str, size: int) -> Iterator[list[servers.Server]]:
    """Nodes of a cluster, each with its part of the slots in order."""
    try:
        with servers.cluster(kind, size) as nodes:
            yield nodes
    except servers.Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module", params=servers.REAL)
def node(request: pytest.FixtureRequest) -> Iterator[servers.Server]:
    """A server that is a cluster of its own."""
    with cluster(request.param, 1) as (only,):
        yield only


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[servers.Server]]:
    """A cluster of three, of whatever kind there is."""
    with cluster(servers.some(), 3) as found:
        yield found


@pytest.fixture
def empty(node: servers.Server) -> None:
    node.raw.flushall()
    node.raw.script_flush()


def cluster_class(library: str, awaits: bool) -> Any:
    module = f"{library}.asyncio.cluster" if awaits else f"{library}.cluster"
    try:
        found = importlib.import_module(module)
    except ImportError:
        raise servers.Missing(f"{module}: not installed") from None
    return found.RedisCluster if library == "redis" else found.ValkeyCluster


KINDS = pytest.mark.parametrize(
    ("library", "options"),
    [
        ("redis", {}),
        ("redis", {"decode_responses": True}),
        ("valkey", {}),
        ("valkey", {"decode_responses": True}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else value,
)


@KINDS
@pytest.mark.usefixtures("empty")
def test_a_cluster_client_takes_every_step(
    node: servers.Server, library: str, options: dict[str, Any]
) -> None:
    client = cluster_class(library, False)(host="127.0.0.1", port=node.port, **options)
    pages: SortedSet[Any] = SortedSet(client, "pages", key="url", remember=True)
    assert pages.add({"url": "/a"}, 1) == 1
    assert pages.add({"url": "/a"}, 2) is None
    found = pages.add_many([{"url": f"/{number}"} for number in range(600)], range(2, 602))
    assert found.added == 600
    assert pages.lease(2).ack() == 2
    assert pages.pop() == {"url": "/1"}
    assert pages.take(2) == [{"url": "/2"}, {"url": "/3"}]
    jobs: SortedSet[str] = SortedSet(client, "jobs")
    jobs.add_many(["ü", "a"], [2, 1])
    node.raw.script_flush()  # as after a failover
    assert jobs.add("a", nx=True) is None
    assert jobs.take(5) == ["a", "ü"]
    later: ScheduledSet[str] = ScheduledSet(client, "later")
    later.add("now")
    assert later.pop() == "now"
    assert pages.clear()
    client.close()


@KINDS
@pytest.mark.usefixtures("empty")
def test_an_asyncio_cluster_client_takes_every_step(
    node: servers.Server, library: str, options: dict[str, Any]
) -> None:
    if options and redis.__version__ in ("5.0.0", "5.0.1", "5.0.2", "5.0.3"):
        raise servers.Missing(f"asyncio decoding: redis-py {redis.__version__} cannot do it")

    async def use() -> None:
        client = cluster_class(library, True)(host="127.0.0.1", port=node.port, **options)
        pages: Any = redset.asyncio.SortedSet(client, "pages", key="url", remember=True)
        assert await pages.add({"url": "/a"}, 1) == 1
        found = await pages.add_many([{"url": f"/{number}"} for number in range(600)])
        assert found.added == 600
        assert await (await pages.lease(2)).ack() == 2
        assert len(await pages.take(3)) == 3
        jobs: Any = redset.asyncio.SortedSet(client, "jobs")
        await jobs.add_many(["ü", "a"], [2, 1])
        node.raw.script_flush()
        assert await jobs.add("a", nx=True) is None
        assert await jobs.take(5) == ["a", "ü"]
        assert await pages.clear()
        await servers.aclose(client)

    asyncio.run(use())


@KINDS
@pytest.mark.usefixtures("empty")
def test_a_cluster_client_is_not_sent_what_the_node_does_not_take(
    node: servers.Server, library: str, options: dict[str, Any]
) -> None:
    item = "x" * 2**21
    node.raw.config_set("proto-max-bulk-len", 2**20)
    with cluster_class(library, False)(host="127.0.0.1", port=node.port, **options) as client:
        jobs: SortedSet[str] = SortedSet(client, "jobs")
        assert jobs.add_many(["a", item, "b"], errors="skip") == (2, 0, 0, 1)

    async def use() -> None:
        client = cluster_class(library, True)(host="127.0.0.1", port=node.port)
        jobs: Any = redset.asyncio.SortedSet(client, "jobs")
        with pytest.raises(AddError, match=r"item 1: .* proto-max-bulk-len is 1,048,576"):
            await jobs.add_many(["c", item])
        await servers.aclose(client)

    asyncio.run(use())
    node.raw.config_set("proto-max-bulk-len", 2**29)


# --- faults of the servers


def name_on(node: servers.Server, nodes: list[servers.Server]) -> str:
    """The name of a set that this node has."""
    size, place = len(nodes), nodes.index(node)
    slots = range(servers.SLOTS * place // size, servers.SLOTS * (place + 1) // size)
    names = (f"jobs-{number}" for number in range(1000))
    return next(
        each for each in names if node.raw.execute_command("CLUSTER", "KEYSLOT", each) in slots
    )


def checks(library: str, options: dict[str, Any], awaits: bool, port: int) -> Callable[..., Any]:
    """``check_server`` over a cluster client of its own."""
    kind = cluster_class(library, awaits)
    if not awaits:
        client = kind(host="127.0.0.1", port=port, **options)
        return lambda *name: check_server(client, *name)

    async def check(*name: str) -> list[str]:
        client = kind(host="127.0.0.1", port=port, **options)
        found = await redset.asyncio.check_server(client, *name)
        await servers.aclose(client)
        return found

    return lambda *name: asyncio.run(check(*name))


@KINDS
@pytest.mark.parametrize("awaits", [False, True], ids=["sync", "asyncio"])
def test_all_primaries_of_a_cluster_are_checked_or_the_one_that_has_a_set(
    nodes: list[servers.Server], library: str, options: dict[str, Any], awaits: bool
) -> None:
    if awaits and options and redis.__version__ in ("5.0.0", "5.0.1", "5.0.2", "5.0.3"):
        raise servers.Missing(f"asyncio decoding: redis-py {redis.__version__} cannot do it")
    check = checks(library, options, awaits, nodes[0].port)
    for each in nodes:
        each.raw.script_flush()
        each.raw.config_set("maxmemory-policy", "noeviction")
    # These primaries have no replicas.
    ill = nodes[1]
    ill.raw.config_set("maxmemory-policy", "allkeys-lru")
    names = [name_on(each, nodes) for each in nodes]
    found = [check(name) for name in names]
    assert found[0] == found[2] == found[1][1:]
    assert "allkeys-lru" in found[1][0]
    told = sorted(check())
    expected = [
        f"127.0.0.1:{each.port}: {text}"
        for each, texts in zip(nodes, found, strict=True)
        for text in texts
    ]
    assert told == sorted(expected)


@KINDS
@pytest.mark.parametrize("awaits", [False, True], ids=["sync", "asyncio"])
def test_the_sets_of_all_nodes_are_listed(
    nodes: list[servers.Server], library: str, options: dict[str, Any], awaits: bool
) -> None:
    if awaits and options and redis.__version__ in ("5.0.0", "5.0.1", "5.0.2", "5.0.3"):
        pytest.skip("redset refuses it with redis-py before 5.0.4")
    for each in nodes:
        each.raw.flushall()
    names = [f"set{number}" for number in range(6)]
    client = cluster_class(library, False)(host="127.0.0.1", port=nodes[0].port)
    for name in names:
        SortedSet(client, name).add_many(["a", "b"])
    client.execute_command("HSET", "redset:sets", names[0], '{"class": "SortedSet"}')
    client.close()
    kind = cluster_class(library, awaits)

    async def listed(**arguments: Any) -> list[Any]:
        client = kind(host="127.0.0.1", port=nodes[0].port, **options)
        if not awaits:
            return redset.list_sets(client, **arguments)
        found = await redset.asyncio.list_sets(client, **arguments)
        await servers.aclose(client)
        return found

    found = asyncio.run(listed(match="set*", scan=True))
    assert [(each.name, each.figures.size) for each in found] == [(name, 2) for name in names]
    assert [each.name for each in asyncio.run(listed()) if each.name in names[:1]] == names[:1]
