"""Committing offsets: exactly what is done, in the background, and never for what is not owned any more."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError, RebalanceInProgressError

from service.transport import topics

PAUSE_SECONDS = 0.02  # between commits: one covers all that has been done meanwhile
RETRY_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Group(Protocol):
    """A member of a consumer group, as far as commits need it."""

    def assignment(self) -> set[TopicPartition]:
        """The partitions it owns."""

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        """Commit these offsets."""


class Commits:
    """Offsets that may be committed. A commit that fails costs nothing but reading again."""

    def __init__(self) -> None:
        self._done: dict[TopicPartition, int] = {}
        self._added = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._group: Group | None = None
        self._running: asyncio.Task[bool] | None = None

    def join(self, group: Group | None) -> None:
        """From now on commit as this member of the group; None: as nobody."""
        self.forget()
        self._group = group

    def add(self, ends: Mapping[TopicPartition, int]) -> None:
        """Everything below these offsets is done."""
        self._done.update(ends)
        if self._done:
            self._empty.clear()
            self._added.set()

    def forget(self) -> None:
        """Commit nothing of what was added so far, not even what is on its way: it may be somebody else's now."""
        self._done.clear()
        self._empty.set()
        if self._running is not None:
            self._running.cancel()

    async def quiesce(self) -> None:
        """Forget everything, and wait until no commit is on its way any more."""
        self.forget()
        if self._running is not None:
            await asyncio.wait([self._running])

    async def flush(self) -> None:
        """Wait until everything that was added is committed or forgotten."""
        await self._empty.wait()

    async def run(self) -> None:
        """Commit for ever."""
        while True:
            await self._added.wait()
            self._added.clear()
            self._running = asyncio.create_task(self._commit())
            await asyncio.wait([self._running])
            succeeded = self._running.cancelled() or self._running.result()
            self._running = None
            await asyncio.sleep(PAUSE_SECONDS if succeeded else RETRY_SECONDS)

    async def _commit(self) -> bool:
        """Commit once; whether there is no reason to wait before the next time."""
        offsets = dict(self._done)
        if self._group is None or not offsets:
            return True
        owned = self._group.assignment()
        try:
            await self._group.commit({partition: end for partition, end in offsets.items() if partition in owned})
        except (CommitFailedError, IllegalStateError, RebalanceInProgressError) as error:
            log.info("offsets not committed: the group is being rebalanced", reason=topics.reason(error))
        except KafkaError as error:
            log.warning("offsets not committed; trying again", reason=topics.reason(error))
            self._added.set()
            return False
        self._settle(offsets)
        return True

    def _settle(self, offsets: Mapping[TopicPartition, int]) -> None:
        """What has not moved on since is committed, or somebody else's."""
        for partition, end in offsets.items():
            if self._done.get(partition) == end:
                del self._done[partition]
        if not self._done:
            self._empty.set()
