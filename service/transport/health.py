"""Whether this instance can do its work now, and if not, why."""

from __future__ import annotations

import asyncio
import contextlib

import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from service.settings import Settings
from service.transport import connection, topics
from service.transport.metrics import Metrics

LOOK_SECONDS = 1.0
ANSWER_SECONDS_MAX = 3.0

log = structlog.get_logger(__name__)


class Health:
    """What stands in the way of being ready, by what it is about; empty: nothing."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._reasons: dict[str, str] = {"start": "the service is starting"}
        self._changed = asyncio.Event()

    @property
    def reasons(self) -> list[str]:
        """Why the instance is not ready; empty where it is."""
        return list(self._reasons.values())

    def set(self, subject: str, reason: str | None) -> None:
        """Something is wrong with the subject, or nothing is."""
        before = self._reasons.get(subject)
        if reason is None:
            self._reasons.pop(subject, None)
        else:
            self._reasons[subject] = reason
        if (before is None) != (reason is None):
            if reason is None:
                log.info("nothing is wrong any more", subject=subject)
            else:
                log.warning("not ready", subject=subject, reason=reason)
            self._changed.set()
        self._metrics.ready.set(0 if self._reasons else 1)
        self._metrics.not_ready.labels(subject).set(0 if reason is None else 1)

    async def wait_for(self, *subjects: str) -> None:
        """Return when nothing is wrong with the subjects."""
        while any(subject in self._reasons for subject in subjects):
            self._changed.clear()
            await self._changed.wait()


async def watch_kafka(settings: Settings, health: Health) -> None:
    """Ask the brokers for ever whether they answer."""
    client: AIOKafkaAdminClient | None = None
    try:
        while True:
            try:
                if client is None:
                    client = AIOKafkaAdminClient(**connection.client_options(settings))
                    await asyncio.wait_for(client.start(), ANSWER_SECONDS_MAX)
                await asyncio.wait_for(client.describe_cluster(), ANSWER_SECONDS_MAX)
                health.set("kafka", None)
            except (KafkaError, OSError) as error:  # a TimeoutError is an OSError
                health.set("kafka", f"Kafka does not answer: {topics.reason(error)}")
                await _close(client)
                client = None
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        await _close(client)


async def _close(client: AIOKafkaAdminClient | None) -> None:
    if client is not None:
        with contextlib.suppress(KafkaError, OSError):
            await asyncio.wait_for(client.close(), ANSWER_SECONDS_MAX)
