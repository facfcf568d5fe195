"""When Redis was restarted, or another master answers, its last writes may be lost while Kafka's offsets are ahead.

So nothing is decided on a new incarnation before it is adopted and every partition is read again from an offset that is
safely older (docs/design.md 3). What the ledger still knows answers `duplicate`.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import redis.asyncio
import redis.exceptions
import structlog
from aiokafka import TopicPartition

from service.ledger.client import Client
from service.ledger.errors import LedgerError, LedgerUnavailable
from service.transport import board
from service.transport.board import Board
from service.transport.metrics import Metrics

LOOK_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Servers(Protocol):
    """The servers behind the ledger."""

    async def incarnations(self) -> dict[int, str]:
        """The run of the server that answers for each shard."""

    async def adopt_incarnation(self) -> set[int]:
        """Make the present runs known; the shards that had another one."""


class Guard:
    """Lets no connection through to a server whose incarnation is not adopted.

    Without it a connection that breaks while nobody uses it would be made again unnoticed, and a decision could reach
    the new incarnation before anything is read again.
    """

    def __init__(self) -> None:
        self._adopted: frozenset[str] | None = None

    def admit(self, runs: Iterable[str]) -> None:
        """From now on these runs, and no other ones."""
        self._adopted = frozenset(runs)

    async def check(self, connection: Any) -> None:
        """What the Redis client calls with every new connection."""
        await connection.on_connect()
        if self._adopted is None:
            return
        await connection.send_command("INFO", "server")
        if _run_id(await connection.read_response()) not in self._adopted:
            raise redis.exceptions.ConnectionError("another incarnation of Redis answers, which is not adopted yet")


def guard_connections(client: Client, guard: Guard) -> None:
    """Have the guard look at every connection that this client makes from now on.

    Neither kind of client of the library offers this for all of its connections, so their settings are reached into.
    """
    inner: Any = client._connection
    if isinstance(inner, redis.asyncio.RedisCluster):
        settings = [inner.connection_kwargs, *(node.connection_kwargs for node in inner.startup_nodes)]
    else:
        settings = [inner.connection_pool.connection_kwargs]
    for each in settings:
        each["redis_connect_func"] = guard.check


class Incarnations:
    """Watches the incarnation of Redis, and places partitions accordingly."""

    def __init__(
        self,
        servers: Servers,
        guard: Guard,
        notes: Board,
        metrics: Metrics,
        rewind_seconds: int,
        topic_prefix: str,
    ) -> None:
        self._servers = servers
        self._guard = guard
        self._board = notes
        self._metrics = metrics
        self._rewind_seconds = rewind_seconds
        self._topic_prefix = topic_prefix
        self._runs: frozenset[str] = frozenset()
        self._suspected = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call this before a new incarnation is let in."""
        self._listeners.append(listener)

    def suspect(self) -> None:
        """A call to the ledger has failed: look now."""
        self._suspected.set()

    @property
    def name(self) -> str:
        """The present incarnation, of all servers together."""
        return name_of(self._runs)

    async def look(self) -> None:
        """Adopt the servers that answer now, where they are others than before. Raises ``LedgerUnavailable``."""
        runs = frozenset((await self._servers.incarnations()).values())
        if runs <= self._runs:
            return
        if self._runs:
            log.warning("Redis is another incarnation: events are read again", rewind_seconds=self._rewind_seconds)
        for listener in self._listeners:
            listener()
        changed = await self._servers.adopt_incarnation()
        if changed and not self._runs:
            log.info("Redis was started again since the last time", shards=len(changed))
        self._runs = runs
        self._guard.admit(runs)
        for listener in self._listeners:
            listener()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                await self.look()
            except (LedgerUnavailable, LedgerError) as error:
                log.debug("the incarnation of Redis could not be seen", reason=str(error))
                await asyncio.sleep(LOOK_SECONDS / 5)
                continue
            self._suspected.clear()
            try:
                await asyncio.wait_for(self._suspected.wait(), LOOK_SECONDS)
            except TimeoutError:
                continue
            await asyncio.sleep(LOOK_SECONDS / 20)  # calls fail by the dozen

    async def place(self, member: Any) -> Mapping[TopicPartition, int]:
        """The next offset of every owned partition.

        Those that were not read again since the present incarnation are now: the lower offset is committed first and
        the mark written after it, so that a crash in between repeats it and never skips it.
        """
        owned = sorted(member.assignment())
        marks, name = await self._board.get(board.REWOUND), self.name
        committed = dict(zip(owned, await asyncio.gather(*map(member.committed, owned)), strict=True))
        begins = await member.beginning_offsets(owned) if owned else {}
        offsets = {partition: committed[partition] or begins[partition] for partition in owned}
        stale = [partition for partition in owned if marks.get(mark_of(partition, self._topic_prefix)) != name]
        lower = await self._rewound(member, {part: offsets[part] for part in stale if committed[part] is not None})
        await self._board.set(board.REWOUND, {mark_of(partition, self._topic_prefix): name for partition in stale})
        return offsets | lower

    async def _rewound(self, member: Any, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Offsets that are old enough, committed; only those that differ."""
        if not offsets:
            return {}
        safe = await safe_offsets(member, offsets, self._rewind_seconds)
        lower = {partition: safe[partition] for partition in safe if safe[partition] < offsets[partition]}
        if lower:
            await member.commit(lower)
            self._metrics.rewinds.inc(len(lower))
            log.info("partitions are read again", partitions=len(lower), rewind_seconds=self._rewind_seconds)
        return lower


def name_of(runs: Iterable[str]) -> str:
    """One name for the runs of all servers."""
    return hashlib.blake2b("+".join(sorted(set(runs))).encode(), digest_size=8).hexdigest()


def mark_of(partition: TopicPartition, topic_prefix: str) -> str:
    """Under what the board knows since which incarnation a partition has been read again."""
    return f"{partition.topic.removeprefix(topic_prefix)}/{partition.partition}"


async def safe_offsets(
    consumer: Any, partitions: Iterable[TopicPartition], rewind_seconds: int
) -> dict[TopicPartition, int]:
    """From where partitions are read again; one to which nothing came since then is left out. Raises ``KafkaError``."""
    since_ms = int((time.time() - rewind_seconds) * 1000)
    found = await consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
    return {partition: place.offset for partition, place in found.items() if place is not None}


def _run_id(reply: Any) -> str:
    text = reply.decode() if isinstance(reply, bytes) else str(reply)
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "run_id":
            return value.strip()
    return ""
