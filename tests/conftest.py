"""Servers for the tests that ask for them: started once per run, on free ports, and stopped with it.

Unit and property tests that ask for nothing start nothing. A test never shares names with another one: it takes a
fresh topic prefix, and a Redis that was emptied for it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import redis

from service.local.cluster import LocalRedisCluster
from service.local.server import wait_until
from service.local.stack import Stack

hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, max_examples=50, print_blob=True)
hypothesis.settings.register_profile("long", deadline=None, max_examples=2000, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees the settings of whoever runs it: neither their variables nor the stack file of their folder."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("APPORTION_")]:
            patch.delenv(name)
        patch.chdir(tmp_path_factory.mktemp("work"))
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the project."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The servers of this run; each is started when the first test asks for its address.

    Tests that kill servers take :func:`own_stack`, as others go on using these.
    """
    servers = Stack(real_kafka_only=True)
    yield servers
    servers.close()


@pytest.fixture(scope="session")
def kafka(stack: Stack) -> str:
    """Bootstrap servers of a real Kafka with one broker."""
    return stack.start_kafka()


@pytest.fixture(scope="session")
def redis_url(stack: Stack) -> str:
    """The URL of a real Redis that writes through to disk. Other tests use it too: see :func:`redis_fresh`."""
    return stack.start_redis()


@pytest.fixture(scope="session")
def redis_cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis Cluster with three masters. Other tests use it too: see :func:`redis_cluster_fresh`."""
    cluster = LocalRedisCluster(tmp_path_factory.mktemp("redis-cluster"))
    cluster.start()
    yield cluster.url
    cluster.kill()


@pytest.fixture
def redis_fresh(redis_url: str) -> str:
    """The URL of a Redis that holds nothing, not even scripts."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        client.script_flush()
    return redis_url


@pytest.fixture
def redis_cluster_fresh(redis_cluster_url: str) -> str:
    """The URL of a Redis Cluster that holds nothing."""
    with redis.RedisCluster.from_url(redis_cluster_url) as client:
        client.flushall(target_nodes=redis.RedisCluster.PRIMARIES)
    return redis_cluster_url


@pytest.fixture
def topic_prefix() -> str:
    """A prefix that no other test has: its topics, and the group of its consumers, are its own."""
    return f"t{uuid.uuid4().hex[:12]}."


@pytest.fixture
def own_stack() -> Iterator[Stack]:
    """A Kafka and a Redis for one test alone, to kill and to restart."""
    with Stack(real_kafka_only=True) as servers:
        yield servers


@pytest.fixture(scope="session")
def eventually() -> Callable[..., None]:
    """``eventually(condition, seconds=10, what="…")``: wait for a condition, fail where it does not come true."""

    def wait(condition: Callable[[], bool], seconds: float = 10, what: str = "the condition") -> None:
        wait_until(condition, seconds, what)

    return wait
