"""Sets on a cluster of three primaries and their replicas, while slots move and primaries fail."""

from __future__ import annotations

import os
from collections.abc import Iterator

import cluster
import pytest
import servers

#: The engines. Redis 6.2 has no part of its own, so it is left to the thorough run.
KINDS = ["valkey9", "redis7", pytest.param("redis62", marks=pytest.mark.slow(3))]


@pytest.fixture(scope="module", params=KINDS)
def nodes(request: pytest.FixtureRequest) -> Iterator[cluster.Cluster]:
    """A cluster, whole and empty at the start of the module."""
    try:
        with cluster.start(request.param, spare=1) as made:
            yield made
    except servers.Missing as missing:
        pytest.skip(str(missing))


# --- the harness


def test_a_slot_moves_to_another_primary_with_its_keys(nodes: cluster.Cluster) -> None:
    client, name = nodes.client(), "moved"
    client.set(name, "1")
    first, *_, spare = nodes.others(name)
    for to in (first, spare, nodes.nodes[0]):
        nodes.move(name, to)
        assert nodes.owner(name) is to
        assert to.raw.get(name) == b"1"
    client.close()


def test_a_stopped_cluster_leaves_nothing() -> None:
    with cluster.start(servers.some(), primaries=1, replicas=1) as made:
        assert len(made.primaries()) == 1
        assert made.replica_of(made.nodes[0]) is made.nodes[1]
        found = [(node.pid, node.directory) for node in made.nodes]
    for pid, directory in found:
        assert not os.path.exists(directory)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
