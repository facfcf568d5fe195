"""The parts of the transport that need no server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, KafkaConnectionError
from aiokafka.partitioner import DefaultPartitioner

from schemas import table
from service import catalog
from service.handlers import announcements
from service.handlers.announcements import Message
from service.handlers.work import Arrival
from service.ledger.errors import LedgerUnavailable
from service.ledger.outbox import Entry
from service.ledger.reference import ReferenceLedger
from service.ledger.transaction import Attempt, Emission, Transaction
from service.settings import Settings
from service.transport import dead_letters, observed, publisher, reading, relay, topics
from service.transport.commits import Commits
from service.transport.gate import Gate
from service.transport.lines import LONG_SHARE, SHARE, Chunk, Lines
from service.transport.membership import Leases
from service.transport.metrics import Metrics
from service.transport.publisher import Publisher
from service.transport.reading import Read
from service.transport.relay import Relay, Signal

PLACE = TopicPartition("t.workload-events", 2)


def record(value: bytes | None, offset: int = 5, *, key: bytes | None = b"c", partition: int = 2) -> ConsumerRecord:
    headers = (("content-type", b"application/cloudevents+json"), ("trace", b"\xff"), ("none", None))
    return ConsumerRecord(PLACE.topic, partition, offset, 1_700_000_000_123, 0, key, value, None, 1, 1, headers)


def event(**changes: Any) -> bytes:
    content = {
        "specversion": "1.0",
        "id": "e1",
        "source": "/test",
        "type": "apportion.workload.removed.v1",
        "time": "2026-01-31T12:00:00Z",
        "tenantid": "c",
        "data": {"workload_id": "w"},
    }
    return json.dumps({**content, **changes}).encode()


# --- reading


def test_a_record_becomes_an_arrival_that_knows_where_it_came_from() -> None:
    arrival = reading.read_one(record(event()), "t.", now_us=2**60)
    assert isinstance(arrival, Arrival) and arrival.origin is not None
    assert (arrival.event.id, arrival.origin.topic, arrival.origin.offset) == ("e1", "t.workload-events", 5)
    assert arrival.origin.value == event()


@pytest.mark.parametrize("value", [b"{broken", None, event(type="apportion.plan.deleted.v1"), event(tenantid="other")])
def test_the_dead_letter_of_a_record_depends_on_nothing_but_the_record(value: bytes | None) -> None:
    first = reading.read_one(record(value), "t.", now_us=2**60)
    again = reading.read_one(record(value), "t.", now_us=2**60 + 10**9)
    assert isinstance(first, tuple) and first == again
    letter = dead_letters.parse(first.value)
    assert letter is not None
    assert (letter.topic, letter.partition, letter.offset, letter.value) == (PLACE.topic, 2, 5, value)
    assert letter.time == "2023-11-14T22:13:20.123Z"
    assert letter.headers == list(record(value).headers) and letter.key == b"c"


def test_a_dead_letter_has_its_tenant_as_key_and_else_the_original_key() -> None:
    known = reading.read_one(record(event(data=[])), "t.", now_us=2**60)
    unknown = reading.read_one(record(b"{broken", key=b"somebody"), "t.", now_us=2**60)
    assert isinstance(known, tuple) and known.key == "c"
    assert isinstance(unknown, tuple) and unknown.key == "somebody"


def test_what_somebody_else_put_on_the_topic_is_no_dead_letter() -> None:
    assert dead_letters.parse(b"hello") is None and dead_letters.parse(None) is None
    assert dead_letters.parse(b'{"id": "1"}') is None


# --- lines


OTHER = TopicPartition(PLACE.topic, 3)


def chunk(begin: int, end: int, partition: TopicPartition = PLACE, *, without: tuple[int, ...] = ()) -> Chunk:
    offsets = [offset for offset in range(begin, end) if offset not in without]
    arrivals: list[Any] = [Arrival(offset) for offset in offsets]  # type: ignore[arg-type]  # tells them apart
    return Chunk(partition, offsets, arrivals, begin)


def taken(read: Read | None) -> list[Any]:
    return [] if read is None else [arrival.event for arrival in read.arrivals]


def test_a_batch_has_a_share_of_each_line_however_long_one_of_them_is() -> None:
    waiting = Lines()
    waiting.add(chunk(0, 50 * SHARE))
    waiting.add(chunk(7, 9, OTHER))
    read = waiting.take(20 * SHARE, epoch=1)
    assert read is not None
    assert (read.begins, read.ends) == ({PLACE: 0, OTHER: 7}, {PLACE: SHARE, OTHER: 9})
    assert taken(read) == [*range(SHARE), 7, 8]
    assert waiting.length(PLACE) == 49 * SHARE and waiting.length(OTHER) == 0


def test_a_batch_has_few_switches_in_it_as_each_takes_as_long_as_many_events() -> None:
    waiting, tasks = Lines(), TopicPartition("t.switch-tasks", 0)
    waiting.add(chunk(0, 50 * SHARE, tasks))
    waiting.add(chunk(7, 9, OTHER))
    read = waiting.take(20 * SHARE, epoch=1)
    assert read is not None
    assert read.ends == {tasks: LONG_SHARE, OTHER: 9}


def test_within_a_line_nothing_is_lost_doubled_or_overtaken() -> None:
    waiting = Lines()
    for begin in range(0, 10 * SHARE, 30):
        waiting.add(chunk(begin, min(begin + 30, 10 * SHARE)))
    seen: list[Any] = []
    while (read := waiting.take(70, epoch=1)) is not None:
        assert read.begins[PLACE] == len(seen) and read.size <= 70
        seen += taken(read)
        assert read.ends[PLACE] == len(seen)
    assert seen == list(range(10 * SHARE)) and waiting.size == 0


def test_where_a_batch_is_full_before_every_line_had_its_turn_the_others_come_first_the_next_time() -> None:
    waiting = Lines()
    for number in range(5):
        waiting.add(chunk(0, 3 * SHARE, TopicPartition(PLACE.topic, number)))
    turns = [read.begins.keys() for _ in range(5) if (read := waiting.take(2 * SHARE, epoch=1)) is not None]
    counts = Counter(partition.partition for turn in turns for partition in turn)
    assert counts == dict.fromkeys(range(5), 2)


def test_a_batch_ends_at_a_gap_between_polls_which_has_to_be_looked_at() -> None:
    waiting = Lines()
    waiting.add(chunk(0, 5))
    waiting.add(chunk(6, 9))
    first, second = waiting.take(2000, epoch=1), waiting.take(2000, epoch=1)
    assert first is not None and second is not None
    assert (first.ends[PLACE], second.begins[PLACE]) == (5, 6)


def test_offsets_that_are_missing_within_a_poll_are_no_gap() -> None:
    waiting = Lines()
    waiting.add(chunk(0, 5, without=(2, 3)))
    first, second = waiting.take(2, epoch=1), waiting.take(2000, epoch=1)
    assert first is not None and second is not None
    assert taken(first) == [0, 1] and taken(second) == [4]
    assert first.ends[PLACE] == second.begins[PLACE] == 2 and second.ends[PLACE] == 5


# --- commits


class Group:
    """A member that owns one partition, and remembers or refuses what it commits."""

    def __init__(self) -> None:
        self.commits: list[dict[TopicPartition, int]] = []
        self.error: Exception | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked = asyncio.Event()

    def assignment(self) -> set[TopicPartition]:
        return {PLACE}

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        self.asked.set()
        await self.may_answer.wait()
        if self.error:
            error, self.error = self.error, None
            raise error
        self.commits.append(offsets)


async def committing(group: Group) -> tuple[Commits, asyncio.Task[None]]:
    commits = Commits()
    commits.join(group)
    return commits, asyncio.create_task(commits.run())


async def test_what_is_done_is_committed_and_nothing_of_others() -> None:
    group = Group()
    commits, task = await committing(group)
    commits.add({PLACE: 7, TopicPartition(PLACE.topic, 0): 3})
    await asyncio.wait_for(commits.flush(), 5)
    assert group.commits == [{PLACE: 7}]
    task.cancel()


async def test_what_is_done_while_a_commit_is_on_its_way_is_committed_by_the_next() -> None:
    group = Group()
    group.may_answer.clear()
    commits, task = await committing(group)
    commits.add({PLACE: 7})
    await group.asked.wait()
    commits.add({PLACE: 9})
    group.may_answer.set()
    await asyncio.wait_for(commits.flush(), 5)
    assert group.commits == [{PLACE: 7}, {PLACE: 9}]
    task.cancel()


@pytest.mark.parametrize("wanted", [[], [{PLACE: 7}]])
async def test_a_commit_that_fails_never_ends_the_stream(wanted: list[Any]) -> None:
    group = Group()
    group.error = KafkaConnectionError() if wanted else CommitFailedError()
    commits, task = await committing(group)
    commits.add({PLACE: 7})
    await asyncio.wait_for(commits.flush(), 5)
    assert group.commits == wanted, "tried again where that can help, left alone where the partition may have gone"
    commits.add({PLACE: 8})
    await asyncio.wait_for(commits.flush(), 5)
    assert group.commits[-1] == {PLACE: 8}
    task.cancel()


async def test_what_was_done_for_a_partition_that_has_gone_is_not_committed_even_on_its_way() -> None:
    group = Group()
    group.may_answer.clear()
    commits, task = await committing(group)
    commits.add({PLACE: 7})
    await group.asked.wait()
    await commits.quiesce()
    group.may_answer.set()
    commits.add({PLACE: 3})
    await asyncio.wait_for(commits.flush(), 5)
    assert group.commits == [{PLACE: 3}]
    task.cancel()


# --- the gate


async def test_the_gate_measures_the_outboxes_of_all_shards_together() -> None:
    metrics = Metrics()
    gate = Gate(ReferenceLedger(4), 10, metrics)
    assert gate.is_open
    gate.judge(11)
    assert not gate.is_open
    running = asyncio.create_task(gate.run())
    await asyncio.wait_for(gate.wait(), 5)
    running.cancel()
    assert b"apportion_outbox_depth 0.0" in metrics.render()


# --- publishing


@pytest.mark.parametrize("key", ["c", "customer-1", "ü", "x" * 64, "a.b:c_d-e"])
def test_announcements_go_to_the_partition_where_every_other_producer_puts_their_key(key: str) -> None:
    published = Publisher({}, "t.")
    for count in (1, 3, 12):
        wanted = DefaultPartitioner()(key.encode(), list(range(count)), list(range(count)))
        assert published._hash(key) % count == wanted


def test_the_memory_of_keys_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "KEYS_REMEMBERED_MAX", 10)
    published = Publisher({}, "t.")
    for number in range(50):
        published._hash(str(number))
    assert len(published._hashes) <= 10


async def test_a_signal_names_the_shards_that_were_written_to_since_the_last_time() -> None:
    signal = Signal()
    assert await signal.wait(0.001) == set()
    signal.touch(3)
    signal.touch(5)
    assert await signal.wait(0.001) == {3, 5}
    waiting = asyncio.create_task(signal.wait(5))
    await asyncio.sleep(0)
    signal.touch(7)
    assert await waiting == {7}


class Listener(Publisher):
    """Takes whatever is published, and keeps it."""

    def __init__(self) -> None:
        super().__init__({}, "t.")
        self.taken: list[Message] = []
        self._more = asyncio.Event()

    async def publish(self, messages: Sequence[Message]) -> list[Message]:
        self.taken += messages
        self._more.set()
        return []

    async def await_subjects(self, subjects: Sequence[str]) -> None:
        """Return when exactly these have been announced."""
        async with asyncio.timeout(10):
            while len(self.taken) < len(subjects):
                self._more.clear()
                await self._more.wait()
        assert [json.loads(message.value)["subject"] for message in self.taken] == list(subjects)


class Looking(ReferenceLedger):
    """A ledger that counts how many outboxes it was asked for."""

    looks = 0

    async def outbox(self, shards: Sequence[int], count: int) -> dict[int, list[Entry]]:
        self.looks += len(shards)
        return await super().outbox(shards, count)


class Relaying:
    """A relay at work on a ledger of four shards, all of them its own."""

    def __init__(self) -> None:
        self.ledger = Looking(4)
        self.signal = Signal()
        self.listener = Listener()
        self.leases = Leases(self.ledger, "relay", "me", 60_000)
        self.relay = Relay(self.ledger, catalog.load(), self.listener, self.leases, self.signal, Metrics())

    async def announce(self, shard: int, subjects: Sequence[str]) -> None:
        said: dict[str, Any] = {
            "tenant": "t",
            "identity": "",
            "time_ms": 1,
            "cause": "",
            "traceparent": None,
            "data": {},
        }
        emit = [Emission(announcements.facts(announcements.TENANT_CHANGED, subject=each, **said)) for each in subjects]
        await self.ledger.commit(shard, [Transaction([Attempt(emit=emit)])], 1)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.relay.run())
        await asyncio.sleep(0)
        yield
        self.relay.stop()
        self.signal.touch(0)  # it may be about to rest for long
        await asyncio.wait_for(task, 10)


@pytest.fixture
async def relaying() -> Relaying:
    made = Relaying()
    await made.leases.renew(set(range(4)))
    return made


async def test_what_another_process_has_written_is_found_without_a_signal(relaying: Relaying) -> None:
    async with relaying.running():
        await relaying.announce(2, ["a"])
        await relaying.listener.await_subjects(["a"])


async def test_what_a_round_has_no_room_for_comes_with_the_next_ones_in_order(relaying: Relaying) -> None:
    subjects = [str(number) for number in range(2 * relay.SHARD_ENTRIES_MAX + 1)]
    await relaying.announce(1, subjects)
    async with relaying.running():
        await relaying.listener.await_subjects(subjects)


async def test_after_a_signal_only_the_shard_that_was_written_to_is_looked_at(
    relaying: Relaying, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "PAUSE_SECONDS_MIN", 60.0)
    monkeypatch.setattr(relay, "PAUSE_SECONDS_MAX", 60.0)
    await relaying.announce(3, ["found"])
    async with relaying.running():
        await relaying.listener.await_subjects(["found"])
        looks = relaying.ledger.looks
        await relaying.announce(1, ["signalled"])
        relaying.signal.touch(1)
        await relaying.listener.await_subjects(["found", "signalled"])
        assert relaying.ledger.looks == looks + 1


async def test_a_relay_that_loses_a_shard_before_its_outbox_is_empty_rests(relaying: Relaying) -> None:
    await relaying.announce(1, [str(number) for number in range(relay.SHARD_ENTRIES_MAX + 1)])
    assert await relaying.relay.relay({1}) == relay.SHARD_ENTRIES_MAX
    await relaying.leases.release()
    async with relaying.running():  # one that went round and round without a pause would never come to the next line
        assert len(relaying.listener.taken) == relay.SHARD_ENTRIES_MAX


def test_the_moment_and_the_code_of_a_rendered_message_can_be_read() -> None:
    letter = reading.read_one(record(b"{broken"), "t.", now_us=2**60)
    assert isinstance(letter, tuple)
    assert relay.rejection_code(letter) == "invalid_envelope"
    assert relay.time_ms(letter) == 1_700_000_000_123


# --- the ledger, observed


class Failing(ReferenceLedger):
    """A ledger that is away."""

    async def outbox_depths(self) -> dict[int, int]:
        raise LedgerUnavailable("timeout", "no answer")


async def test_calls_are_measured_failures_counted_and_commits_signalled() -> None:
    metrics, signal, failures = Metrics(), Signal(), []
    ledger = observed.observe(Failing(4), metrics, signal, lambda: failures.append("failed"))
    await ledger.commit(2, [], 0)
    assert await signal.wait(0.001) == {2}
    assert ledger.shards == 4
    with pytest.raises(LedgerUnavailable):
        await ledger.outbox_depths()
    text = metrics.render().decode()
    assert 'apportion_ledger_call_seconds_count{call="commit"} 1.0' in text
    assert 'apportion_ledger_failures_total{reason="timeout"} 1.0' in text
    assert failures == ["failed"]


# --- topics


def test_every_type_has_a_topic_and_tenant_changes_have_one_partition() -> None:
    wanted = topics.wanted(Settings(topic_prefix="x.", topic_partitions=7))
    assert wanted.pop("x.tenant-changes") == 1
    assert set(wanted.values()) == {7}
    every = {event.topic for event in (*table.INBOUND.values(), *table.OUTBOUND.values())}
    assert {f"x.{topic}" for topic in every} == {*wanted, "x.tenant-changes"}


def test_metrics_have_the_prefix_that_is_promised() -> None:
    names = [line.split()[2] for line in Metrics().render().decode().splitlines() if line.startswith("# TYPE")]
    assert names and all(name.startswith("apportion_") for name in names)


def test_a_member_says_what_the_status_shows() -> None:
    from service.transport.membership import Member

    shown = msgspec.to_builtins(Member("i", ("relay",), "h", 1, 2, 3))
    assert shown == {"id": "i", "roles": ("relay",), "host": "h", "process": 1, "started_ms": 2, "seen_ms": 3}
