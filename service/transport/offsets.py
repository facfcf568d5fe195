"""How far the consumer group has come, and whether that fits what the ledger knows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from service.ledger.transaction import STEPS_PER_OFFSET
from service.settings import Settings
from service.transport import connection, tolerance, topics


@asynccontextmanager
async def reader(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer that belongs to no group, for looking. Raises ``KafkaError`` where no broker answers."""
    tolerance.install()
    consumer = AIOKafkaConsumer(
        **connection.client_options(settings), enable_auto_commit=False, auto_offset_reset="earliest"
    )
    try:
        await consumer.start()
        # Asked for one by one, as the client does by itself, each topic would cost a tenth of a second.
        await consumer._client.set_topics(list(topics.wanted(settings)))
        yield consumer
    finally:
        await consumer.stop()


async def partitions(client: AIOKafkaAdminClient, names: tuple[str, ...]) -> list[TopicPartition]:
    """The partitions of some topics, given by their full names."""
    counts = await topics.present(client)
    return [TopicPartition(name, number) for name in names for number in range(counts.get(name, 0))]


async def lag(
    settings: Settings,
    client: AIOKafkaAdminClient,
    consumer: AIOKafkaConsumer,
    again_from: Mapping[TopicPartition, int] | None = None,
) -> dict[str, int]:
    """How many messages of each inbound topic (without prefix) the group has not finished.

    Of a partition in which nothing is committed, all that it has; of one that will be read again, all from there on.
    """
    every = await partitions(client, topics.inbound(settings))
    ends = await consumer.end_offsets(every) if every else {}
    begins = await consumer.beginning_offsets(every) if every else {}
    done = await committed(settings, client, every) if every else {}
    behind = dict.fromkeys(topics.INBOUND, 0)
    for partition in every:
        reached = min(done.get(partition, 0), (again_from or {}).get(partition, ends[partition]))
        reached = max(reached, begins[partition])
        behind[topics.bare(settings, partition.topic)] += max(0, ends[partition] - reached)
    return behind


async def committed(
    settings: Settings, client: AIOKafkaAdminClient, every: list[TopicPartition]
) -> dict[TopicPartition, int]:
    """What the group has committed; a partition without is left out."""
    await topics.await_group(settings, client)
    found = await client.list_consumer_group_offsets(settings.group_id, partitions=every)
    return {partition: known.offset for partition, known in found.items() if known.offset >= 0}


async def unknown_position(
    settings: Settings, client: AIOKafkaAdminClient, consumer: AIOKafkaConsumer, positions: Mapping[str, int]
) -> str | None:
    """A sentence where the ledger knows an offset that Kafka does not have: everything new would be a duplicate."""
    known = await partitions(client, topics.inbound(settings))
    ends = await consumer.end_offsets(known) if known else {}
    sources = {f"{partition.topic}/{partition.partition}": end for partition, end in ends.items()}
    for source, position in sorted(positions.items()):
        offset = position // STEPS_PER_OFFSET
        end = sources.get(source, sources.get(settings.topic_prefix + source))
        if end is not None and offset >= end:
            return (
                f"The ledger has decided up to offset {offset} of {source} and Kafka has only {end} messages there: "
                "the topic was made anew, and every new event would silently be taken for a duplicate."
            )
    return None
