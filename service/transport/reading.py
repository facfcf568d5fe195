"""From the bytes of a Kafka record to an arrival, or to its dead letter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from aiokafka import ConsumerRecord, TopicPartition

from schemas import envelope
from service.handlers import announcements
from service.handlers.announcements import Message, Origin
from service.handlers.work import Arrival


class Batch(NamedTuple):
    """Records polled together; in a later ``epoch`` they have to be polled again."""

    epoch: int
    records: Sequence[ConsumerRecord]


@dataclass
class Read:
    """What is decided together, in order within each partition."""

    epoch: int
    arrivals: list[Arrival]
    dead_letters: list[Message]
    begins: dict[TopicPartition, int]  # the offset from which on it has everything
    ends: dict[TopicPartition, int]  # the offset behind the last record
    oldest_ms: int  # when the oldest record came to Kafka, in Unix milliseconds

    @property
    def size(self) -> int:
        """How many records it was made of."""
        return len(self.arrivals) + len(self.dead_letters)

    def put(self, items: Sequence[Arrival | Message], oldest_ms: int) -> None:
        """Take in what comes next."""
        for item in items:
            if isinstance(item, Arrival):
                self.arrivals.append(item)
            else:
                self.dead_letters.append(item)
        self.oldest_ms = min(self.oldest_ms or oldest_ms, oldest_ms)


def read_one(record: ConsumerRecord, topic_prefix: str, now_us: int) -> Arrival | Message:
    """An arrival, or the dead letter of a record that cannot be one.

    The dead letter depends on nothing but the record, so that a repeat is the same to the letter.
    """
    try:
        event = envelope.parse(
            record.value,
            record.headers,
            record.key,
            now_us=now_us,
            topic=record.topic.removeprefix(topic_prefix),
        )
    except envelope.Rejected as rejected:
        return announcements.dead_letter(
            origin(record),
            rejected.code,
            rejected.message,
            rejected.context,
            tenant_id=rejected.tenant_id,
            time_ms=max(0, record.timestamp),
        )
    return Arrival(event, origin(record))


def internal_error(origin: Origin, event: envelope.Inbound, error_code: str) -> Message:
    """The dead letter of an event on which the service itself fails; its time is the event's own."""
    return announcements.dead_letter(
        origin,
        "not_allowed",
        "The service could not handle the event; its logs say why.",
        {"code": error_code},
        tenant_id=event.tenantid,
        time_ms=event.time_us // 1000,
    )


def origin(record: ConsumerRecord) -> Origin:
    """Where the record stood, with its bytes."""
    return Origin(record.topic, record.partition, record.offset, record.key, record.headers, record.value)
