"""Sets that `from_url` made go to other processes; the error of other sets names the remedy."""

from __future__ import annotations

import copy
import json
import multiprocessing
import pickle
from typing import Any, NamedTuple

import blocking
import pytest
import servers

import redset.asyncio
from redset import Key, ScheduledSet, SortedSet, TimeSortedSet
from redset.serializers import JSONSerializer, NamedtupleSerializer


class Pair(NamedTuple):
    number: int
    letter: str


CLASSES = [SortedSet, TimeSortedSet, ScheduledSet]


def depth(item: Any) -> float:
    return float(item["depth"])


def length(item: Any) -> float:
    return float(len(item))


def work(jobs: SortedSet[Any], done: SortedSet[Any]) -> None:
    """The program of a child process."""
    with jobs, done:
        done.add_many(jobs.take(10))


def work_asyncio(jobs: Any, done: Any) -> None:
    async def perform() -> None:
        async with jobs, done:
            await done.add_many(await jobs.take(10))

    blocking.wait(perform())


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("awaits", [False, True])
def test_a_set_from_a_url_goes_to_a_child_process(
    any_server: servers.Server, method: str, awaits: bool
) -> None:
    if method not in multiprocessing.get_all_start_methods():
        raise servers.Missing(f"{method}: not on this platform")
    cls: Any = redset.asyncio.SortedSet if awaits else SortedSet
    jobs = cls.from_url(any_server.url, "jobs", "depth", json)
    done = cls.from_url(any_server.url, "done", depth, json, remember=True)
    near: SortedSet[Any] = SortedSet.from_url(any_server.url, "jobs", "depth", json)
    near.add_many([{"depth": 2}, {"depth": 1}])
    target = work_asyncio if awaits else work
    child = multiprocessing.get_context(method).Process(target=target, args=(jobs, done))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    far: SortedSet[Any] = SortedSet.from_url(any_server.url, "done", serializer=json, remember=True)
    assert far.take(5, with_scores=True) == [({"depth": 1}, 1.0), ({"depth": 2}, 2.0)]
    assert near.size() == 0
    for each in (near, far):
        each.close()


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("awaits", [False, True])
def test_a_pickled_set_has_the_url_the_name_and_the_options(cls: Any, awaits: bool) -> None:
    if awaits:
        cls = getattr(redset.asyncio, cls.__name__)
    made = cls.from_url("redis://localhost:7/3", b"jobs", key="url", remember=60, max_attempts=3)
    made.note = "mine"
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        copied = pickle.loads(pickle.dumps(made, protocol))
        assert type(copied) is cls
        assert copied.name == b"jobs"
        assert copied.note == "mine"
        options = copied.redis.connection_pool.connection_kwargs
        assert (options["host"], options["port"], options["db"]) == ("localhost", 7, 3)
        assert copied._ctx.options.text == made._ctx.options.text
        assert copied._ctx.options.max_attempts == 3
        assert copied._ctx.codec.identity(Key("/")) == made._ctx.codec.identity(Key("/"))
        assert type(copied.scorer) is type(made.scorer)
        assert copied._owned
        assert copied.redis is not made.redis


def test_reassigned_attributes_are_pickled() -> None:
    made: SortedSet[Any] = SortedSet.from_url("redis://localhost", "jobs")
    made.scorer, made.serializer = length, json
    copied = pickle.loads(pickle.dumps(made))
    assert copied.scorer is length
    assert copied.serializer is json


@pytest.mark.parametrize("serializer", [JSONSerializer(), NamedtupleSerializer(Pair), json, None])
def test_serializers_go_along(serializer: Any) -> None:
    made: SortedSet[Any] = SortedSet.from_url("redis://localhost", "jobs", serializer=serializer)
    copied = pickle.loads(pickle.dumps(made))
    assert type(copied.serializer) is type(made.serializer)
    item = Pair(1, "b") if isinstance(serializer, NamedtupleSerializer) else "a"
    assert copied._ctx.codec.serialise(item) == made._ctx.codec.serialise(item)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("awaits", [False, True])
def test_pickling_a_set_without_a_url_is_an_error(
    any_server: servers.Server, cls: Any, awaits: bool
) -> None:
    if awaits:
        cls = getattr(redset.asyncio, cls.__name__)
    client = any_server.asyncio_client() if awaits else any_server.client()
    jobs = cls(client, "jobs")
    said = rf"<{cls.__name__} name='jobs'>.*in the child process.*{cls.__name__}\.from_url"
    for call in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match=said):
            call(jobs)


def test_a_copy_uses_the_same_client(any_server: servers.Server) -> None:
    jobs: SortedSet[str] = SortedSet.from_url(any_server.url, "jobs", remember=True)
    copied = copy.copy(jobs)
    copied.close()
    assert jobs.add("a") == 0
    assert copied.redis is jobs.redis
    jobs.close()
