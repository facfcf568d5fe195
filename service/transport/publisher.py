"""Publishing in order, as often as it takes: nothing is given up while Kafka is away.

Messages are put into batches for their partition here, because that costs far less than handing them to the producer
one by one. The producer is idempotent: what it sends again after a broken connection is not stored twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError
from aiokafka.partitioner import murmur2

from schemas import outbound
from service.handlers.announcements import Message
from service.transport import topics

BATCH_BYTES_MAX = 256 * 1024  # of one partition's messages in a request; a single larger message goes alone
KEYS_REMEMBERED_MAX = 100_000
PAUSE_SECONDS_MAX = 2.0  # between tries
PATIENCE_SECONDS = 3.0  # without an acknowledgement, and Kafka counts as away
ACKNOWLEDGEMENT_SECONDS_MAX = 30.0  # then a new producer tries, whatever it is that the old one waits for
STOP_SECONDS_MAX = 2.0  # for closing connections to brokers that may be gone

_HEADERS = list(outbound.HEADERS)  # the compiled builder takes nothing but a list
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)

log = structlog.get_logger(__name__)


class Publisher:
    """Publishes announcements under the prefix.

    ``report`` hears the reason when Kafka does not take messages any more, and None when it does again.
    """

    def __init__(
        self, options: dict[str, Any], topic_prefix: str, report: Callable[[str | None], None] = lambda _: None
    ) -> None:
        self._options = options
        self._prefix = topic_prefix
        self._report = report
        self._producer: AIOKafkaProducer | None = None
        self._hashes: dict[str, int] = {}
        self._lock = asyncio.Lock()  # one order for all: batches of two callers never overtake each other
        self._reachable = True

    async def close(self) -> None:
        """Let go of the producer; what is not acknowledged is lost to nobody, as its caller has not moved on."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _abandon(producer)

    async def publish(self, messages: Sequence[Message]) -> list[Message]:
        """Publish the messages, those of one partition in their order, and wait until all of them are acknowledged.

        Tries until it succeeds. Answers the messages that Kafka will never take because of their size.
        """
        async with self._lock:
            refused: list[Message] = []
            remaining: Sequence[Message] = messages
            tries = 0
            while remaining:
                try:
                    remaining = await self._try(remaining, refused)
                except (KafkaError, OSError) as error:  # a TimeoutError is an OSError
                    await self._recover(error, tries)
                    tries += 1
                else:
                    self._note_reachable()
            return refused

    async def _try(self, messages: Sequence[Message], refused: list[Message]) -> Sequence[Message]:
        """Publish once; answers what has to be tried again without what turned out to be too large."""
        producer = await self._connected()
        futures = [
            (await producer.send_batch(batch, topic, partition=partition), members)
            for topic, partition, batch, members in await self._batches(producer, messages)
        ]
        answers = await self._acknowledgements([future for future, _ in futures])
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        if not errors:
            return ()
        oversized = [
            members[0]
            for answer, (_, members) in zip(answers, futures, strict=True)
            if isinstance(answer, _TOO_LARGE) and len(members) == 1
        ]
        if not oversized:
            raise errors[0]
        # The producer's sequence numbers have a hole now, so it cannot go on; the others are sent once more, which is
        # allowed: a repeat has the same id and the same content.
        await self.close()
        refused.extend(oversized)
        return [message for message in messages if not any(message is other for other in oversized)]

    async def _acknowledgements(self, futures: list[asyncio.Future[Any]]) -> list[Any]:
        """What became of each batch. A producer that has lost its brokers keeps trying by itself and says nothing."""
        everything = asyncio.gather(*futures, return_exceptions=True)
        try:
            return await asyncio.wait_for(asyncio.shield(everything), PATIENCE_SECONDS)
        except TimeoutError:
            self._note_unreachable("no acknowledgement")
            return await asyncio.wait_for(everything, ACKNOWLEDGEMENT_SECONDS_MAX)

    async def _batches(
        self, producer: AIOKafkaProducer, messages: Sequence[Message]
    ) -> list[tuple[str, int, Any, list[Message]]]:
        """The messages in batches for their partitions, in their order."""
        counts: dict[str, int] = {}
        open_batches: dict[tuple[str, int], tuple[Any, list[Message]]] = {}
        batches: list[tuple[str, int, Any, list[Message]]] = []
        for message in messages:
            topic = message.topic
            count = counts.get(topic)
            if count is None:
                count = counts[topic] = await self._partition_count(producer, topic)
            place = (topic, self._hash(message.key) % count)
            key = None if message.key is None else message.key.encode()
            entry = open_batches.get(place)
            if entry is None or not _append(entry, key, message):
                batch = producer.create_batch()
                entry = open_batches[place] = (batch, [])
                batches.append((self._prefix + topic, place[1], *entry))
                _append(entry, key, message)
        return batches

    async def _partition_count(self, producer: AIOKafkaProducer, topic: str) -> int:
        partitions = await producer.partitions_for(self._prefix + topic)
        return len(partitions)

    def _hash(self, key: str | None) -> int:
        """Kafka's own hash of a key, so that every producer finds the same partition."""
        if key is None:
            return 0
        known = self._hashes.get(key)
        if known is None:
            if len(self._hashes) >= KEYS_REMEMBERED_MAX:
                self._hashes.clear()
            known = self._hashes[key] = murmur2(key.encode()) & 0x7FFFFFFF
        return known

    async def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(
                **self._options, enable_idempotence=True, acks="all", max_batch_size=BATCH_BYTES_MAX
            )
            try:
                await producer.start()
            except BaseException:
                await _abandon(producer)
                raise
            # Asked for one by one, as the client does by itself, each topic would cost a tenth of a second.
            await producer.client.set_topics([self._prefix + topic for topic in topics.OUTBOUND])
            self._producer = producer
        return self._producer

    async def _recover(self, error: Exception, tries: int) -> None:
        """Drop the producer, whose numbering may have a hole, and wait a little."""
        self._note_unreachable(topics.reason(error))
        await self.close()
        await asyncio.sleep(min(PAUSE_SECONDS_MAX, 0.05 * 2**tries) * random.uniform(0.5, 1.0))

    def _note_unreachable(self, reason: str) -> None:
        if self._reachable:
            log.warning("Kafka does not take messages; trying until it does", reason=reason)
            self._report(reason)
        self._reachable = False

    def _note_reachable(self) -> None:
        if not self._reachable:
            log.info("Kafka takes messages again")
            self._report(None)
        self._reachable = True


def _append(entry: tuple[Any, list[Message]], key: bytes | None, message: Message) -> bool:
    """Whether the batch had room; an empty one has room for a message of any size."""
    batch, members = entry
    if batch.append(timestamp=None, key=key, value=message.value, headers=_HEADERS) is None:
        return False
    members.append(message)
    return True


async def _abandon(producer: AIOKafkaProducer) -> None:
    """End a producer at once.

    Its own ``stop`` waits until everything is acknowledged, which without brokers is forever. What is not acknowledged
    is published again by whoever asked for it.
    """
    producer._closed = True
    sender = producer._sender.sender_task
    if sender is not None:
        sender.cancel()
    with contextlib.suppress(KafkaError, OSError):
        await asyncio.wait_for(producer.client.close(), STOP_SECONDS_MAX)
    if sender is not None:
        await asyncio.wait([sender], timeout=STOP_SECONDS_MAX)
