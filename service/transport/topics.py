"""The topics of the contract (docs/contracts.md 2): their names, how they are created, and whether they are there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    KafkaError,
    TopicAlreadyExistsError,
    for_code,
)

from schemas import table
from service.settings import Settings
from service.transport import connection

INBOUND: tuple[str, ...] = tuple(dict.fromkeys(event.topic for event in table.INBOUND.values()))
OUTBOUND: tuple[str, ...] = tuple(dict.fromkeys(event.topic for event in table.OUTBOUND.values()))
TENANT_CHANGES = "tenant-changes"
DEAD_LETTERS = "dead-letters"
# What is too large for the contract must still get through to become a dead letter.
INBOUND_BYTES_MAX = 8 * 1024 * 1024
CREATION_SECONDS_MAX = 30.0
_NO_ERROR = 0
_UNKNOWN_TOPIC = 3


class TopicsError(Exception):
    """Topics are missing or could not be created; one sentence for the person at the keyboard."""


class Creation(NamedTuple):
    """What became of one topic: ``created`` or not, and how many partitions it has and should have."""

    topic: str
    created: bool
    partitions: int
    partitions_wanted: int


def wanted(settings: Settings) -> dict[str, int]:
    """The full name of every topic, with the number of its partitions.

    Tenant changes have one partition, so that a parent's change, published first, is handled first.
    """
    return {
        settings.topic_prefix + topic: 1 if topic == TENANT_CHANGES else settings.topic_partitions
        for topic in (*INBOUND, *OUTBOUND)
    }


def inbound(settings: Settings) -> tuple[str, ...]:
    """The full names of the topics that are read."""
    return tuple(settings.topic_prefix + topic for topic in INBOUND)


def bare(settings: Settings, topic: str) -> str:
    """A topic's name without the prefix."""
    return topic.removeprefix(settings.topic_prefix)


@asynccontextmanager
async def administration(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """A connected administration client. Raises ``KafkaError`` where no broker answers."""
    client = AIOKafkaAdminClient(**connection.client_options(settings))
    try:
        await client.start()
        yield client
    finally:
        await client.close()


async def present(client: AIOKafkaAdminClient) -> dict[str, int]:
    """The topics that exist and are usable, with the number of their partitions.

    All topics are asked for, because asking for one by name would create it on brokers that do so.
    """
    described = await client.describe_topics()
    return {topic["topic"]: len(topic["partitions"]) for topic in described if _is_usable(topic)}


async def cluster_id(client: AIOKafkaAdminClient) -> str:
    """The id that this Kafka was formatted with."""
    return str((await client.describe_cluster())["cluster_id"])


async def missing(settings: Settings, client: AIOKafkaAdminClient) -> list[str]:
    """The full names of the topics that do not exist."""
    there = await present(client)
    return [topic for topic in wanted(settings) if topic not in there]


async def require(settings: Settings, client: AIOKafkaAdminClient) -> None:
    """Raise ``TopicsError`` where a topic does not exist."""
    absent = await missing(settings, client)
    if absent:
        raise TopicsError(f"Kafka has no topic {', '.join(absent)}; create them with `apportion topics create`.")


async def create(settings: Settings) -> list[Creation]:
    """Create what is missing, and say how everything stands; doing it again changes nothing.

    Raises ``TopicsError`` where the brokers refuse.
    """
    async with administration(settings) as client:
        before = await present(client)
        plan = wanted(settings)
        absent = {topic: count for topic, count in plan.items() if topic not in before}
        if absent:
            await _create(settings, client, absent)
        after = await _await_topics(client, plan)
        await await_group(settings, client)
    return [Creation(topic, topic in absent, after[topic], count) for topic, count in plan.items()]


async def _create(settings: Settings, client: AIOKafkaAdminClient, absent: Mapping[str, int]) -> None:
    answer = await client.create_topics(
        [
            NewTopic(topic, count, settings.topic_replication_factor, topic_configs=_options(settings, topic))
            for topic, count in absent.items()
        ]
    )
    for topic, code, *reason in answer.topic_errors:
        error = for_code(code)
        if code != _NO_ERROR and error is not TopicAlreadyExistsError:  # another instance may have been faster
            raise TopicsError(f"Kafka did not create the topic {topic}: {(reason or [''])[0] or error.description}")


def _options(settings: Settings, topic: str) -> dict[str, str]:
    options = {}
    if bare(settings, topic) in INBOUND:
        options["max.message.bytes"] = str(INBOUND_BYTES_MAX)
    if settings.topic_replication_factor > 2:  # one broker may be missing, and what is acknowledged is still on two
        options["min.insync.replicas"] = "2"
    return options


async def _await_topics(client: AIOKafkaAdminClient, plan: Mapping[str, int]) -> dict[str, int]:
    """Wait until every topic is known to the brokers and has leaders."""
    end = time.monotonic() + CREATION_SECONDS_MAX
    while True:
        there = await present(client)
        absent = [topic for topic in plan if topic not in there]
        if not absent:
            return there
        if time.monotonic() > end:
            names = ", ".join(absent)
            raise TopicsError(f"Kafka has not made {names} available in {CREATION_SECONDS_MAX:.0f} seconds.")
        await asyncio.sleep(0.1)  # the brokers offer nothing to wait for


async def await_group(settings: Settings, client: AIOKafkaAdminClient) -> None:
    """Wait until Kafka knows who looks after the consumer group.

    The first question ever makes it set up its bookkeeping of groups, which takes a moment; whoever joins a group
    meanwhile waits much longer than that.
    """
    end = time.monotonic() + CREATION_SECONDS_MAX
    while True:
        try:
            await client.find_coordinator(settings.group_id)
            return
        except (GroupCoordinatorNotAvailableError, GroupLoadInProgressError):
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.1)  # there is nothing to wait for but asking again


def _is_usable(topic: Mapping[str, Any]) -> bool:
    return bool(topic["partitions"]) and all(partition["leader"] >= 0 for partition in topic["partitions"])


def reason(error: Exception) -> str:
    """An error of Kafka's client in words for a sentence."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if isinstance(error, KafkaError) and text else text or type(error).__name__
