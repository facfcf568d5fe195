"""From the ledger's outbox to Kafka: read, render, publish, wait for the acknowledgements, and only then forget.

A crash between the acknowledgement and the trimming publishes some announcements again, with the same id and content.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec
import structlog

from service.catalog import Catalog
from service.handlers import announcements
from service.handlers.announcements import Message, Origin
from service.ledger.base import Ledger
from service.ledger.errors import LedgerError, LedgerUnavailable
from service.ledger.outbox import Entry
from service.transport import topics
from service.transport.membership import Leases
from service.transport.metrics import Metrics
from service.transport.publisher import Publisher

ROUND_ENTRIES_MAX = 4000  # announcements published together
SHARD_ENTRIES_MAX = 1000  # of them from one shard, so that a busy one does not hold up the others
PAUSE_SECONDS_MIN = 0.01  # between looks at outboxes that nobody here has written to
PAUSE_SECONDS_MAX = 0.05
PAUSE_GROWTH = 1.25  # with each look in vain
RETRY_SECONDS_MAX = 2.0
INTERNAL = "1000"  # the error code of docs/domain.md 9 for what is the service's own fault

log = structlog.get_logger(__name__)


class Signal:
    """Which shards this process has just written to, so that their announcements need not wait for the next look."""

    def __init__(self) -> None:
        self._shards: set[int] = set()
        self._event = asyncio.Event()

    def touch(self, shard: int) -> None:
        """Something was committed to the shard."""
        self._shards.add(shard)
        self._event.set()

    @property
    def touched(self) -> frozenset[int]:
        """The shards that the next call of ``wait`` will answer."""
        return frozenset(self._shards)

    async def wait(self, seconds: float) -> set[int]:
        """The shards touched since the last call; returns at the first one, or empty-handed after ``seconds``."""
        if not self._shards and seconds > 0:
            self._event.clear()
            try:
                await asyncio.wait_for(self._event.wait(), seconds)
            except TimeoutError:
                return set()
        shards, self._shards = self._shards, set()
        return shards


class Relay:
    """Publishes the outboxes of the shards that this instance holds."""

    def __init__(
        self,
        ledger: Ledger,
        catalog: Catalog,
        publisher: Publisher,
        leases: Leases,
        signal: Signal,
        metrics: Metrics,
    ) -> None:
        self._ledger = ledger
        self._render: Callable[[Entry], Message] = lambda entry: announcements.render(entry, catalog)
        self._publisher = publisher
        self._leases = leases
        self._signal = signal
        self._metrics = metrics
        self._available = True
        self._stopping = False
        self._clock = time.monotonic
        self._look_at = 0.0  # when all shards are to be looked at
        self._pause = PAUSE_SECONDS_MIN
        self._found: set[int] = set()  # shards in which the last round found something
        self._unfinished: set[int] = set()  # those of them in which there was more than it took

    def stop(self) -> None:
        """Publish what is left, and end."""
        self._stopping = True

    async def run(self) -> None:
        """Relay until ``stop`` is called and nothing is left.

        Shards that this process writes to are looked at when it has done so; all of them only now and then, as a look
        at many outboxes costs more than publishing what is in a few.
        """
        failures = 0
        while True:
            stopping = self._stopping  # before the last round, so that it sees everything
            touched = await self._signal.wait(0 if stopping or self._unfinished else self._look_at - self._clock())
            try:
                if stopping or self._clock() >= self._look_at:
                    count = await self._relay_all(touched)
                else:
                    count = await self.relay(touched | self._unfinished)
                failures = 0
                self._note_available()
            except (LedgerUnavailable, LedgerError) as error:
                count = 0
                failures += 1
                self._look_at = self._clock()  # what was touched is not known any more
                await self._rest(error, failures)
            if stopping and not count:
                return

    async def _relay_all(self, expected: set[int]) -> int:
        """A round over all shards held; the next one comes soon where this one finds what was not expected."""
        count = await self.relay()
        surprised = self._found - expected - self._signal.touched
        self._pause = PAUSE_SECONDS_MIN if surprised else min(PAUSE_SECONDS_MAX, self._pause * PAUSE_GROWTH)
        self._look_at = self._clock() + self._pause
        return count

    async def relay(self, shards: set[int] | None = None) -> int:
        """One round over the shards held here (those of ``shards`` only, where given); how many were published."""
        held = [shard for shard in self._leases.held() if shards is None or shard in shards]
        random.shuffle(held)  # where a round is full before the last shard, none is always the last
        self._unfinished = set()
        entries = await self._read(held) if held else {}
        self._found = set(entries)
        if not entries:
            return 0
        messages = [message for shard, some in entries.items() for message in self._rendered(shard, some)]
        refused = await self._publisher.publish(messages)
        if refused:
            await self._publisher.publish([_oversized(message) for message in refused])
            self._metrics.unannounced.inc(len(refused))
        await self._trim(entries)
        self._count(messages, entries)
        return len(messages)

    async def _read(self, shards: Sequence[int]) -> Mapping[int, list[Entry]]:
        entries = await self._ledger.outbox(shards, SHARD_ENTRIES_MAX)
        chosen: dict[int, list[Entry]] = {}
        room = ROUND_ENTRIES_MAX
        for shard in shards:
            some = entries.get(shard, [])
            if len(some) > room or len(some) == SHARD_ENTRIES_MAX:
                self._unfinished.add(shard)
            if some and room:
                chosen[shard] = some[:room]
                room -= len(chosen[shard])
        return chosen

    def _rendered(self, shard: int, entries: Sequence[Entry]) -> list[Message]:
        """The messages of a shard. What cannot be rendered becomes a dead letter: it is seen, and stops nobody."""
        messages = []
        for entry in entries:
            try:
                messages.append(self._render(entry))
            except Exception:
                log.exception("an announcement cannot be rendered", shard=shard, revision=entry.revision)
                self._metrics.unannounced.inc()
                messages.append(_unrendered(shard, entry))
        return messages

    async def _trim(self, entries: Mapping[int, list[Entry]]) -> None:
        """Forget what is published, where the shard has been held all the time."""
        held = {shard: some for shard, some in entries.items() if self._leases.holds(shard)}
        await self._ledger.trim(held, self._leases.name, self._leases.holder)

    def _count(self, messages: Sequence[Message], entries: Mapping[int, list[Entry]]) -> None:
        self._metrics.relay_messages.observe(len(messages))
        counts: dict[str, int] = {}
        for message in messages:
            counts[message.topic] = counts.get(message.topic, 0) + 1
            if message.topic == topics.DEAD_LETTERS:
                self._metrics.dead_letters.labels(rejection_code(message)).inc()
        for topic, count in counts.items():
            self._metrics.published.labels(topic).inc(count)
        now_ms = time.time_ns() // 1_000_000
        first = 0
        for some in entries.values():
            self._metrics.announcement_latency.observe(max(0, now_ms - time_ms(messages[first])) / 1000)
            first += len(some)

    async def _rest(self, error: Exception, failures: int) -> None:
        if self._available:
            log.warning("the relay waits for the ledger", error=str(error))
        self._available = False
        await asyncio.sleep(min(RETRY_SECONDS_MAX, 0.05 * 2**failures) * random.uniform(0.5, 1.0))

    def _note_available(self) -> None:
        if not self._available:
            log.info("the relay goes on")
        self._available = True


class _Code(msgspec.Struct):
    code: str = ""


class _Rejection(msgspec.Struct):
    data: _Code


def rejection_code(message: Message) -> str:
    """The code of a rendered dead letter."""
    return msgspec.json.decode(message.value, type=_Rejection).data.code


class _Stamp(msgspec.Struct):
    time: datetime
    revision: int = 0


def time_ms(message: Message) -> int:
    """When what a rendered message tells was decided, in Unix milliseconds."""
    return int(msgspec.json.decode(message.value, type=_Stamp).time.timestamp() * 1000)


def _unrendered(shard: int, entry: Entry) -> Message:
    """A dead letter in the place of an announcement that cannot be rendered, with all that the ledger knows of it."""
    content = msgspec.json.encode({"kind": type(entry).__name__, **msgspec.structs.asdict(entry)})
    return announcements.dead_letter(
        Origin("outbox", shard, entry.revision, None, (), content),
        "not_allowed",
        "The announcement of a decision could not be rendered; the decision itself stands.",
        {"code": INTERNAL},
        tenant_id=getattr(entry, "tenant", None),
        time_ms=getattr(entry, "time_ms", 0),
    )


def _oversized(message: Message) -> Message:
    """A dead letter in the place of an announcement that is too large for its topic."""
    stamp = msgspec.json.decode(message.value, type=_Stamp)
    log.error("an announcement is too large for its topic", topic=message.topic, size_bytes=len(message.value))
    return announcements.dead_letter(
        Origin(message.topic, 0, stamp.revision, None, (), message.value),
        "message_too_large",
        f"The announcement has {len(message.value)} bytes, which its topic does not take; the decision itself stands.",
        {"size": len(message.value)},
        tenant_id=message.key,
        time_ms=int(stamp.time.timestamp() * 1000),
    )
