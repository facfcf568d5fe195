"""How the whole service stands: what is not decided, announced, finished or accepted (docs/contracts.md 4)."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from service.ledger.redis_ledger import RedisLedger
from service.settings import Settings
from service.transport import board, dead_letters, incarnation, membership, offsets, topics
from service.transport.board import Board
from service.transport.membership import Member

LOOK_SECONDS = 0.1
SHARDS_AT_ONCE = 8
JOB_PREFIX = "job/"  # timers of what was accepted and is not finished


class Status(msgspec.Struct):
    """``lag`` by inbound topic, without prefix; ``dead_letters`` by code, without those that were sent again."""

    lag: dict[str, int]
    outbox: int
    delayed: int
    dead_letters: dict[str, int]
    instances: list[Member]

    @property
    def idle(self) -> bool:
        """Whether everything that was published is decided, finished and announced."""
        return not (any(self.lag.values()) or self.delayed or self.outbox)


class Observatory:
    """What it takes to look at everything."""

    def __init__(
        self,
        settings: Settings,
        ledger: RedisLedger,
        notes: Board,
        client: AIOKafkaAdminClient,
        consumer: AIOKafkaConsumer,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._board = notes
        self._client = client
        self._consumer = consumer

    async def read(self) -> Status:
        """How everything stands now; the topic of dead letters is not read.

        What is decided leaves one count before it appears in the next, so they are read in this order: where all are 0
        in one pass, nothing is under way. A pass in which Redis was started again tells nothing.
        """
        while True:
            name = await self._incarnation()
            again_from = await self._read_again_from(name)
            lag = await offsets.lag(self._settings, self._client, self._consumer, again_from)
            delayed = await self._count_jobs()
            depths = await self._ledger.outbox_depths()
            if await self._incarnation() == name:
                return Status(lag, sum(depths.values()), delayed, {}, await self.instances())

    async def _incarnation(self) -> str:
        return incarnation.name_of((await self._ledger.incarnations()).values())

    async def _read_again_from(self, name: str) -> dict[TopicPartition, int]:
        """Where the partitions begin that will be read again, as Redis was started again and may have lost decisions.

        The marks have to be read before the committed offsets: the lower offset is committed before its mark is set.
        """
        marks = await self._board.get(board.REWOUND)
        every = await offsets.partitions(self._client, topics.inbound(self._settings))
        prefix = self._settings.topic_prefix
        stale = [partition for partition in every if marks.get(incarnation.mark_of(partition, prefix)) != name]
        if not stale:
            return {}
        return await incarnation.safe_offsets(self._consumer, stale, self._settings.rewind_seconds)

    async def _count_jobs(self) -> int:
        """What was accepted and is not finished. A few at a time, as each one takes a connection."""
        count = 0
        for first in range(0, self._ledger.shards, SHARDS_AT_ONCE):
            shards = range(first, min(first + SHARDS_AT_ONCE, self._ledger.shards))
            timers = await asyncio.gather(*(self._ledger.timers(shard, JOB_PREFIX) for shard in shards))
            count += sum(map(len, timers))
        return count

    async def instances(self) -> list[Member]:
        """The living instances."""
        entries = await self._board.get(board.INSTANCES)
        ttl_ms = self._settings.lease_seconds * 1000
        return membership.living(entries, await self._board.now_ms(), ttl_ms)[0]

    async def wait_idle(self, seconds: float) -> Status:
        """Look until everything is idle or the time is over; what was seen last.

        Idle is what two looks in a row find so. A job of switches puts events on a topic, so work can go round in a
        circle and slip past one look; that job was over before the second one.
        """
        end = time.monotonic() + seconds
        seen = await self.read()
        while True:
            before, seen = seen, await self.read()
            if (seen.idle and before.idle) or (not seen.idle and time.monotonic() >= end):
                return seen
            if not seen.idle:
                await asyncio.sleep(LOOK_SECONDS)  # neither Kafka nor Redis tells when the last one is done

    async def count_dead_letters(self) -> dict[str, int]:
        """Those that were not sent again, by code."""
        letters = await dead_letters.read(self._settings, self._client, self._board)
        return dict(sorted(Counter(letter.code for letter in letters).items()))


@asynccontextmanager
async def observatory(settings: Settings, ledger: RedisLedger, notes: Board) -> AsyncIterator[Observatory]:
    """Connect to Kafka for looking. Raises ``KafkaError`` where no broker answers, ``TopicsError`` without topics."""
    async with topics.administration(settings) as client, offsets.reader(settings) as consumer:
        await topics.require(settings, client)
        yield Observatory(settings, ledger, notes, client, consumer)


def as_json(status: Status) -> dict[str, Any]:
    """What the command line prints."""
    shown: dict[str, Any] = msgspec.to_builtins(status)
    return shown
