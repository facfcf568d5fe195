"""A member of the consumer group, on FastStream: it polls batches, and hands them to the pipeline as they are.

The member stays in its group however long a batch takes: heartbeats and rebalances run beside the handling, and the
time between two polls is not limited.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import structlog
from aiokafka import ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.message import StreamMessage
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from service import settings as configuration
from service.settings import Settings
from service.transport import connection, tolerance, topics
from service.transport.metrics import Metrics
from service.transport.pipeline import Pipeline

FETCH_BYTES_MAX = 16 * 1024 * 1024  # of one answer of a broker
PARTITION_FETCH_BYTES_MAX = 256 * 1024  # of one partition in it, so that a full one leaves room for the others
FETCH_WAIT_MS_MAX = 30  # a partition that was left out of a fetch waits that long for the next one
HEARTBEATS_PER_SESSION = 10  # how soon a member hears that another one comes or goes
REBALANCE_SECONDS = 30
POLL_INTERVAL_MS_MAX = 2**31 - 1  # no limit: see above
REVOKE_SECONDS_MAX = 8.0  # for what is in hand when partitions are taken away
LEAVE_SECONDS_MAX = 2.0
RETRY_SECONDS_MAX = 5.0

log = structlog.get_logger(__name__)


class Consumer(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is published without type information
    """One member of the group. A connection that is lost for good is made anew."""

    def __init__(self, settings: Settings, pipeline: Pipeline, metrics: Metrics) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._metrics = metrics
        self._stopping = asyncio.Event()
        self._subscriber: Any = None
        self._reachable = True

    async def run(self) -> None:
        """Be a member until ``stop`` is called."""
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            await self._attend()
            failures = 0 if time.monotonic() - began > self._settings.session_seconds else failures + 1
            with contextlib.suppress(TimeoutError):
                seconds = min(RETRY_SECONDS_MAX, 0.1 * 2**failures) * random.uniform(0.5, 1.0)
                await asyncio.wait_for(self._stopping.wait(), seconds)

    async def stop(self, seconds: float) -> None:
        """Take nothing in any more, finish and commit what is in hand, at most that long; then leave the group."""
        await self._pipeline.end(seconds)
        self._stopping.set()

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """All partitions are taken away, perhaps to come back."""
        await self._pipeline.end(REVOKE_SECONDS_MAX)
        self._metrics.partitions.set(0)
        if revoked:
            log.info("partitions revoked", count=len(revoked))

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """These partitions are this instance's now."""
        if not self._stopping.is_set():
            self._pipeline.begin(self._subscriber.consumer)
        self._metrics.partitions.set(len(assigned))
        log.info("partitions assigned", count=len(assigned))

    async def _attend(self) -> None:
        """Be a member until the connection fails or ``stop`` is called."""
        broker = self._broker()
        try:
            await self._unless_stopped(broker.start())
            if not self._stopping.is_set():
                self._note_reachable()
                await self._unless_stopped(self._until_failed())
        except (KafkaError, OSError) as error:
            self._note_unreachable(topics.reason(error))
        finally:
            self._pipeline.drop()
            self._metrics.partitions.set(0)
            with contextlib.suppress(KafkaError, OSError):  # a TimeoutError is an OSError
                await asyncio.wait_for(broker.stop(), LEAVE_SECONDS_MAX)

    async def _until_failed(self) -> None:
        """Return when a task inside the client has ended, which it never does by itself.

        From then on every poll raises the same error.
        """
        consumer = self._subscriber.consumer
        tasks = [consumer._coordinator._coordination_task, consumer._fetcher.error_future]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        self._note_unreachable("the client gave up")

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something to its end, or until ``stop`` is called."""
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def _broker(self) -> KafkaBroker:
        servers, _ = configuration.require_servers(self._settings)
        tolerance.install()
        broker = KafkaBroker(
            servers.split(","),
            client_id=connection.CLIENT_ID,
            request_timeout_ms=connection.REQUEST_TIMEOUT_MS,
            metadata_max_age_ms=connection.METADATA_MAX_AGE_MS,
            security=_security(self._settings),
            consumer_only=True,
            allow_auto_create_topics=False,
            apply_types=False,
            logger=None,
            graceful_timeout=0.1,  # what is in hand has been finished by then
        )
        self._subscriber = broker.subscriber(
            *topics.inbound(self._settings),
            batch=True,
            group_id=self._settings.group_id,
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.MANUAL,
            max_records=self._settings.batch_size_max,
            batch_timeout_ms=self._settings.batch_wait_ms_max,
            fetch_max_bytes=FETCH_BYTES_MAX,
            max_partition_fetch_bytes=PARTITION_FETCH_BYTES_MAX,
            fetch_max_wait_ms=FETCH_WAIT_MS_MAX,
            session_timeout_ms=self._settings.session_seconds * 1000,
            heartbeat_interval_ms=self._settings.session_seconds * 1000 // HEARTBEATS_PER_SESSION,
            rebalance_timeout_ms=REBALANCE_SECONDS * 1000,
            max_poll_interval_ms=POLL_INTERVAL_MS_MAX,
            listener=self,
            parser=_as_it_is,
            decoder=_records,
            no_reply=True,
        )
        self._subscriber(self._take)
        return broker

    async def _take(self, records: Sequence[ConsumerRecord]) -> None:
        """What FastStream calls with each batch."""
        await self._pipeline.take(records)

    def _note_unreachable(self, reason: str) -> None:
        if self._reachable:
            log.warning("the consumer group cannot be joined; trying until it can", reason=reason)
        self._reachable = False

    def _note_reachable(self) -> None:
        if not self._reachable:
            log.info("the consumer group is joined again")
        self._reachable = True


def _security(settings: Settings) -> BaseSecurity | None:
    """Encryption and credentials in FastStream's own types."""
    context = connection.tls_context(settings) if connection.uses_tls(settings) else None
    if not settings.kafka_security_protocol.startswith("SASL"):
        return BaseSecurity(ssl_context=context) if context else None
    kinds = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}
    kind = kinds[settings.kafka_sasl_mechanism or "PLAIN"]
    return kind(
        username=settings.kafka_sasl_username or "",
        password=connection.password(settings),
        ssl_context=context,
        use_ssl=context is not None,
    )


async def _as_it_is(records: tuple[ConsumerRecord, ...]) -> StreamMessage[Any]:
    """In the place of FastStream's parser, which costs more than all the rest and fails on headers that are no text."""
    return StreamMessage(raw_message=records, body=b"", correlation_id="")


async def _records(message: StreamMessage[Any]) -> Any:
    """In the place of FastStream's decoder."""
    return message.raw_message
