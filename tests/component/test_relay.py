"""The relay between a real ledger and a real Kafka: in order, nothing lost, and only what is published is forgotten."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from service import catalog
from service.handlers import announcements
from service.ledger.client import Client
from service.ledger.outbox import Facts
from service.ledger.redis_ledger import RedisLedger
from service.ledger.transaction import Attempt, Emission, Transaction
from service.settings import Settings
from service.transport import connection, offsets, topics
from service.transport.membership import Leases
from service.transport.metrics import Metrics
from service.transport.publisher import Publisher
from service.transport.relay import Relay, Signal

CATALOG = catalog.load()


class Place:
    """A ledger with a relay beside it."""

    def __init__(self, settings: Settings, ledger: RedisLedger) -> None:
        self.settings = settings
        self.ledger = ledger
        self.signal = Signal()
        self.metrics = Metrics()
        self.publisher = Publisher(connection.client_options(settings), settings.topic_prefix)
        self.leases = Leases(ledger, "relay", "one", 10_000)
        self.relay = Relay(ledger, CATALOG, self.publisher, self.leases, self.signal, self.metrics)

    async def announce(self, shard: int, tenant: str, *texts: str) -> None:
        """Decide something that has these announcements."""
        emissions = [Emission(facts(tenant, text)) for text in texts]
        await self.ledger.commit(shard, [Transaction([Attempt(emit=emissions)])], 1_700_000_000_000)

    async def published(self, topic: str = "tenants") -> list[dict[str, Any]]:
        """Everything on a topic, in the order of each partition."""
        async with offsets.reader(self.settings) as consumer, topics.administration(self.settings) as client:
            return await everything(consumer, await offsets.partitions(client, (self.settings.topic_prefix + topic,)))


async def everything(consumer: AIOKafkaConsumer, partitions: list[Any]) -> list[dict[str, Any]]:
    ends = await consumer.end_offsets(partitions)
    open_ends = {partition: end for partition, end in ends.items() if end}
    found: list[dict[str, Any]] = []
    consumer.assign(list(open_ends) or partitions)
    while open_ends:
        for partition, records in (await consumer.getmany(timeout_ms=100)).items():
            found += [json.loads(record.value) for record in records]
            if records[-1].offset + 1 >= open_ends[partition]:
                del open_ends[partition]
    return found


async def wait_until_empty(ledger: RedisLedger) -> None:
    async with asyncio.timeout(10):
        while await ledger.outbox_depths():  # noqa: ASYNC110 - it happens in Redis, which tells nobody
            await asyncio.sleep(0.005)


def facts(tenant: str, text: str) -> str:
    return announcements.facts(
        announcements.TENANT_CHANGED,
        tenant=tenant,
        subject=tenant,
        identity=text,
        time_ms=1_700_000_000_000,
        cause="cause",
        traceparent=None,
        data={"name": text},
    )


@pytest.fixture
async def place(kafka: str, redis_fresh: str, topic_prefix: str) -> AsyncIterator[Place]:
    settings = Settings(
        kafka_bootstrap_servers=kafka, redis_url=redis_fresh, topic_prefix=topic_prefix, topic_partitions=3, shards=4
    )
    await topics.create(settings)
    client = Client.connect(redis_fresh)
    made = Place(settings, RedisLedger(client, 4))
    await made.leases.renew({0, 1, 2, 3})
    yield made
    await made.publisher.close()
    await client.close()


def names(events: list[dict[str, Any]], tenant: str) -> list[str]:
    return [event["data"]["name"] for event in events if event["tenantid"] == tenant]


async def test_announcements_of_a_tenant_are_published_in_the_order_of_their_decisions(place: Place) -> None:
    for number in range(30):
        await place.announce(number % 2, f"t{number % 4}", f"{number}-a", f"{number}-b")
    while await place.relay.relay():
        pass
    events = await place.published()
    for tenant in range(4):
        wanted = [f"{number}-{part}" for number in range(30) if number % 4 == tenant for part in "ab"]
        assert names(events, f"t{tenant}") == wanted
        revisions = [event["revision"] for event in events if event["tenantid"] == f"t{tenant}"]
        assert revisions == sorted(set(revisions))
    assert await place.ledger.outbox_depths() == {}


async def test_what_was_published_and_not_forgotten_is_published_again_the_same(place: Place) -> None:
    await place.announce(0, "t", "first", "second")
    entries = await place.ledger.outbox([0], 10)
    await place.relay.relay()
    first = await place.published()
    for entry in entries[0]:  # as if the process had ended between the acknowledgement and the trimming
        assert isinstance(entry, Facts)
        message = announcements.render(entry, CATALOG)
        await place.publisher.publish([message])
    assert await place.published() == [*first, *first]


async def test_a_relay_that_has_lost_its_lease_publishes_and_forgets_nothing(place: Place) -> None:
    await place.announce(0, "t", "kept")
    await place.leases.release()
    other = Leases(place.ledger, "relay", "two", 10_000)
    await other.renew({0})
    await place.leases.renew({0, 1})
    assert await place.relay.relay() == 0
    assert await place.ledger.outbox_depths() == {0: 1}
    assert not await place.ledger.trim(await place.ledger.outbox([0], 1), "relay", place.leases.holder)


async def test_what_was_begun_under_a_lease_that_ran_out_forgets_nothing(place: Place) -> None:
    await place.announce(0, "t", "kept")
    old = place.leases.holder
    place.leases.start_over()
    assert place.leases.held() == []
    await place.ledger.release("relay", [0], old)
    await place.leases.renew({0})
    oldest = await place.ledger.outbox([0], 1)
    assert not await place.ledger.trim(oldest, "relay", old), "the shard may have been somebody else's in between"
    assert await place.ledger.trim(oldest, "relay", place.leases.holder)


async def test_an_announcement_that_cannot_be_rendered_becomes_a_dead_letter_and_stops_nobody(place: Place) -> None:
    broken = Transaction([Attempt(emit=[Emission("no facts at all")])])
    await place.announce(1, "t", "before")
    await place.ledger.commit(1, [broken], 0)
    await place.announce(1, "t", "after")
    while await place.relay.relay():
        pass
    assert names(await place.published(), "t") == ["before", "after"]
    (letter,) = await place.published("dead-letters")
    assert letter["data"]["code"] == "not_allowed" and letter["data"]["context"] == {"code": "1000"}
    assert letter["data"]["topic"] == "outbox" and letter["data"]["partition"] == 1
    assert b"apportion_relay_unannounced_total 1.0" in place.metrics.render()


async def test_an_announcement_that_no_broker_takes_becomes_a_dead_letter_and_stops_nobody(place: Place) -> None:
    await place.announce(2, "t", "before", "x" * 1_200_000, "after")
    while await place.relay.relay():
        pass
    assert set(names(await place.published(), "t")) == {"before", "after"}
    (letter,) = await place.published("dead-letters")
    assert letter["data"]["code"] == "message_too_large" and letter["tenantid"] == "t"
    assert await place.ledger.outbox_depths() == {}


async def test_a_busy_shard_does_not_hold_up_the_others(place: Place) -> None:
    for _ in range(12):
        await place.announce(0, "busy", *(str(number) for number in range(400)))
    await place.announce(1, "quiet", "now")
    await place.relay.relay()
    assert names(await place.published(), "quiet") == ["now"]
    assert sum((await place.ledger.outbox_depths()).values()) > 0


async def test_a_commit_of_this_process_is_relayed_without_waiting_for_the_next_look(place: Place) -> None:
    running = asyncio.create_task(place.relay.run())
    try:
        await place.announce(3, "t", "now")
        place.signal.touch(3)
        await wait_until_empty(place.ledger)
    finally:
        place.relay.stop()
        await asyncio.wait_for(running, 10)
    assert names(await place.published(), "t") == ["now"]


async def test_a_stopping_relay_publishes_what_is_left(place: Place) -> None:
    await place.announce(0, "t", *(str(number) for number in range(1500)))
    place.relay.stop()
    await asyncio.wait_for(place.relay.run(), 20)
    assert names(await place.published(), "t") == [str(number) for number in range(1500)]


async def test_a_producer_that_fails_for_good_is_replaced(place: Place) -> None:
    await place.announce(0, "t", "first")
    await place.relay.relay()
    producer = place.publisher._producer
    assert producer is not None
    producer._txn_manager.increment_sequence_number(_partition(place, "t"), 7)  # a hole, as after a lost batch
    await place.announce(0, "t", "second")
    await asyncio.wait_for(place.relay.relay(), 20)
    assert place.publisher._producer is not producer
    assert names(await place.published(), "t") == ["first", "second"]


def _partition(place: Place, key: str) -> Any:
    from aiokafka import TopicPartition

    return TopicPartition(place.settings.topic_prefix + "tenants", place.publisher._hash(key) % 3)
