"""The way of a batch from Kafka: polled, read, decided, its dead letters acknowledged, its offsets committed.

While one batch is decided, what is polled meanwhile is read and stands in line, so that batches are as small as the
load allows and as large as it demands. Within a partition none overtakes another, and a partition that is full holds up
no other one (lines.py). What cannot be decided holds up what comes behind it, as it must.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import operator
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import structlog
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from service.handlers.announcements import Message
from service.handlers.work import Arrival, Result
from service.ledger.errors import LedgerError, LedgerUnavailable
from service.transport import commits, lines, reading, topics
from service.transport.commits import Commits
from service.transport.gate import Gate
from service.transport.lines import Chunk, Item, Lines
from service.transport.metrics import Metrics
from service.transport.publisher import Publisher
from service.transport.reading import Batch, Read
from service.transport.relay import INTERNAL, rejection_code

RETRY_SECONDS_MAX = 2.0
READ_SLICE = 200  # records read at a time; then others of this process have their turn
FAULTS_IN_A_ROW_MAX = 5  # events that fail by themselves; more of them, and the fault is not theirs

log = structlog.get_logger(__name__)


class Decider(Protocol):
    """The engine, as far as the pipeline needs it."""

    async def handle(self, arrivals: Sequence[Arrival]) -> list[Result]:
        """Decide the arrivals, in order; doing it again changes nothing. Raises ``LedgerUnavailable``."""


class Member(commits.Group, Protocol):
    """A member of a consumer group, as far as the pipeline needs it."""

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Poll from this offset on."""

    def pause(self, partition: TopicPartition) -> None:
        """Poll it no more."""

    def resume(self, partition: TopicPartition) -> None:
        """Poll it again."""


class Placement(Protocol):
    """Who knows from where partitions are to be read: see incarnation.py."""

    async def place(self, member: Any) -> Mapping[TopicPartition, int]:
        """The next offset of every partition that the member owns. Raises ``LedgerUnavailable`` and ``KafkaError``."""


class SystemicFaultError(Exception):
    """Event after event fails: the fault is not theirs, and none of them is given up."""


class Pipeline:
    """Batches on their way. What was polled in an earlier epoch is dropped: it is polled again, here or elsewhere."""

    def __init__(
        self,
        engine: Decider,
        publisher: Publisher,
        gate: Gate,
        placement: Placement,
        metrics: Metrics,
        *,
        topic_prefix: str,
        batch_size_max: int,
    ) -> None:
        self._engine = engine
        self._publisher = publisher
        self._gate = gate
        self._placement = placement
        self._metrics = metrics
        self._topic_prefix = topic_prefix
        self._batch_size_max = batch_size_max
        self._commits = Commits()
        self._batches: asyncio.Queue[Batch] = asyncio.Queue(1)
        self._lines = Lines()  # what is decided next
        self._waiting_max = 2 * batch_size_max
        self._line_max = min(lines.LENGTH_MAX, batch_size_max)
        self._restrained: set[TopicPartition] = set()  # they are not polled, as their lines are long
        self._look = asyncio.Event()  # something waits, or something else has changed
        self._taken = asyncio.Event()
        self._member: Member | None = None
        self._accepting = False
        self._epoch = 0
        self._disturbed = asyncio.Event()  # the epoch has changed, or nothing is accepted any more
        self._placed = False
        self._next: dict[TopicPartition, int] = {}  # the offset that is to be decided next
        self._jumps: dict[TopicPartition, int] = {}  # where a jump in the offsets has been read again
        self._idle = asyncio.Event()
        self._idle.set()
        self._faults_in_a_row = 0
        self._available = True

    # --- whose partitions they are

    def begin(self, member: Member) -> None:
        """The member owns partitions from now on."""
        self._member = member
        self._commits.join(member)
        self._accepting = True
        self.invalidate()

    def invalidate(self) -> None:
        """Drop what has been polled, and find out from where to read before anything else is decided."""
        self._placed = False
        self._enter_epoch()
        self._look.set()

    async def end(self, seconds: float) -> None:
        """The partitions go elsewhere: finish and commit what is in hand, at most that long, and drop the rest."""
        self._accepting = False
        self._disturbed.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
                await self._commits.flush()
        self.drop()

    def drop(self) -> None:
        """The partitions are gone."""
        self._accepting = False
        self._member = None
        self._commits.join(None)
        self._next.clear()
        self._jumps.clear()
        self._enter_epoch()

    def _enter_epoch(self) -> None:
        self._epoch += 1
        self._lines.clear()
        for partition in list(self._restrained):
            self._restrain(partition)
        self._disturbed.set()
        self._taken.set()

    def _is_current(self, epoch: int) -> bool:
        return self._accepting and epoch == self._epoch

    # --- polled, read

    async def take(self, records: Sequence[ConsumerRecord]) -> None:
        """Take a batch that was just polled; waits while those before it are on their way, so that nothing piles up."""
        batch = Batch(self._epoch, records)
        if self._accepting:
            await self._batches.put(batch)

    def waiting(self, partition: TopicPartition) -> int:
        """How many records of a partition are read and not being decided yet."""
        return self._lines.length(partition)

    async def run(self) -> None:
        """Work for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read_all())
            tasks.create_task(self._decide_all())
            tasks.create_task(self._commits.run())

    async def _read_all(self) -> None:
        while True:
            await self._read(await self._batches.get())

    async def _read(self, batch: Batch) -> None:
        """Read what was polled and put it into its lines; the partitions with the fewest records first, as others wait
        behind the one with the most."""
        groups = [(place, list(some)) for place, some in itertools.groupby(batch.records, _place_of)]
        for place, records in sorted(groups, key=lambda group: len(group[1])):
            partition = TopicPartition(*place)
            items: list[Item] = []
            now_us = time.time_ns() // 1000
            for first in range(0, len(records), READ_SLICE):
                some = records[first : first + READ_SLICE]
                items += [reading.read_one(record, self._topic_prefix, now_us) for record in some]
                await asyncio.sleep(0)
            await self._room(batch.epoch)
            if not self._is_current(batch.epoch):
                return
            offsets = [record.offset for record in records]
            self._lines.add(Chunk(partition, offsets, items, min(record.timestamp for record in records)))
            self._restrain(partition)
            self._look.set()

    async def _room(self, epoch: int) -> None:
        """Return when there is room in the lines, or the epoch is over.

        Those that are long do not count: they are polled no more, and must not keep the others from being read.
        """
        while self._is_current(epoch) and self._lines.size - self._restrained_size() >= self._waiting_max:
            self._taken.clear()
            await self._taken.wait()

    def _restrained_size(self) -> int:
        return sum(map(self._lines.length, self._restrained))

    def _restrain(self, partition: TopicPartition) -> None:
        """Poll a partition no more while its line is long, and again when it is short."""
        length = self._lines.length(partition)
        with contextlib.suppress(IllegalStateError):  # it has just gone elsewhere
            if self._member is None:
                self._restrained.discard(partition)
            elif partition in self._restrained and length <= self._line_max // 2:
                self._restrained.discard(partition)
                self._member.resume(partition)
            elif partition not in self._restrained and length >= self._line_max:
                self._member.pause(partition)
                self._restrained.add(partition)

    # --- decided

    async def _decide_all(self) -> None:
        while True:
            await self._look.wait()
            self._look.clear()
            self._idle.clear()
            try:
                await self._place()
                read = self._take() if self._accepting else None
                if read is not None and not self._jumps_ahead(read):
                    await self._finish(read)
            finally:
                self._idle.set()

    def _take(self) -> Read | None:
        """The next batch, if there is one; where there may be more, they are looked for afterwards."""
        read = self._lines.take(self._batch_size_max, self._epoch)
        if read is not None:
            self._look.set()
            self._taken.set()
            for partition in list(self._restrained):
                self._restrain(partition)
        return read

    async def _place(self) -> None:
        """Make sure that the owned partitions are read from the right offset."""
        failures = 0
        while self._accepting and not self._placed and self._member is not None:
            member, epoch = self._member, self._epoch
            await self._commits.quiesce()  # nothing that was done before may be committed over what is decided now
            try:
                offsets = await self._placement.place(member)
                if self._is_current(epoch):
                    self._poll_from(offsets)
                    self._placed = True
                    self._note_available()
            except (LedgerUnavailable, KafkaError, OSError) as error:
                failures += 1
                await self._rest(failures, "partitions cannot be placed", error)

    def _poll_from(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Poll every partition from its offset on; what has been polled is dropped."""
        assert self._member is not None, "partitions are only placed for a member"
        self._enter_epoch()
        for partition, offset in offsets.items():
            self._member.seek(partition, offset)
        self._next = dict(offsets)

    def _jumps_ahead(self, read: Read) -> bool:
        """Whether a partition does not go on where it ended, and so is polled again from there.

        The client drops what it has in hand when it meets a corrupt record in another partition, and tells nobody.
        Where the offsets jump again at the same place, the jump is real: a transaction's marker, or what is deleted.
        """
        jumped = {
            partition: self._next[partition]
            for partition, begin in read.begins.items()
            if begin > self._next.get(partition, begin) != self._jumps.get(partition)
        }
        if jumped:
            self._jumps.update(jumped)
            self._metrics.rereads.inc(len(jumped))
            self._poll_from(self._next)
        return bool(jumped)

    async def _finish(self, read: Read) -> None:
        """Decide a batch and publish its dead letters; when both is done, its offsets may be committed."""
        if not await self._is_let_in(read.epoch):
            return
        faults = await self._decide(read)
        if faults is None:
            return
        await self._bury([*read.dead_letters, *faults])
        self._metrics.decision_latency.observe(max(0.0, time.time() - read.oldest_ms / 1000))
        if read.epoch == self._epoch:
            self._next.update(read.ends)
            self._commits.add(read.ends)

    async def _decide(self, read: Read) -> list[Message] | None:
        """Decide the arrivals, as often as it takes; the dead letters of those at fault. None where it is dropped."""
        failures = 0
        while read.epoch == self._epoch and (self._accepting or not failures):
            try:
                faults = await self._decide_once(read.arrivals)
            except (LedgerUnavailable, LedgerError, SystemicFaultError) as error:
                failures += 1
                await self._rest(failures, "events cannot be decided", error)
            else:
                self._note_available()
                return faults
        return None

    async def _decide_once(self, arrivals: Sequence[Arrival]) -> list[Message]:
        """Decide the arrivals in order; where the service fails, find out by halving on which of them."""
        faults: list[Message] = []
        parts = [arrivals] if arrivals else []
        while parts:
            part = parts.pop()
            try:
                await self._engine.handle(part)
                self._faults_in_a_row = 0
            except LedgerUnavailable:
                raise
            except Exception as error:
                if isinstance(error, LedgerError) and error.transaction is None:
                    raise  # the ledger refuses this service, not this event
                if len(part) == 1:
                    faults.append(self._give_up(part[0], error))
                else:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
        return faults

    def _give_up(self, arrival: Arrival, error: Exception) -> Message:
        """The dead letter of an event on which the service fails; ``SystemicFaultError`` where it fails on all."""
        self._faults_in_a_row += 1
        self._metrics.failures.inc()
        if self._faults_in_a_row > FAULTS_IN_A_ROW_MAX or arrival.origin is None:
            raise SystemicFaultError(f"{type(error).__name__}: {error}") from error
        log.error("the service fails on an event", type=arrival.event.type, id=arrival.event.id, exc_info=error)
        return reading.internal_error(arrival.origin, arrival.event, INTERNAL)

    async def _bury(self, dead_letters: Sequence[Message]) -> None:
        if dead_letters:
            for message in dead_letters:
                self._metrics.dead_letters.labels(rejection_code(message)).inc()
            for message in await self._publisher.publish(dead_letters):
                log.error("a dead letter is too large for its topic", key=message.key, size_bytes=len(message.value))

    # --- waiting

    async def _is_let_in(self, epoch: int) -> bool:
        """Wait for the gate, unless the batches change hands meanwhile; whether it is open."""
        while self._is_current(epoch) and not self._gate.is_open:
            self._disturbed.clear()
            waits = [asyncio.create_task(self._gate.wait()), asyncio.create_task(self._disturbed.wait())]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        return self._is_current(epoch)

    async def _rest(self, failures: int, what: str, error: Exception) -> None:
        """Pause before the next try; not longer than until something changes."""
        if self._available:
            reason = error.reason if isinstance(error, LedgerUnavailable) else topics.reason(error)
            log.warning(f"{what}; trying until they can", reason=reason, error=str(error))
        self._available = False
        self._disturbed.clear()
        with contextlib.suppress(TimeoutError):
            seconds = min(RETRY_SECONDS_MAX, 0.05 * 2**failures) * random.uniform(0.5, 1.0)
            await asyncio.wait_for(self._disturbed.wait(), seconds)

    def _note_available(self) -> None:
        if not self._available:
            log.info("intake goes on")
        self._available = True


_place_of = operator.attrgetter("topic", "partition")  # asked of every record
