"""The consumer on a real Kafka, with an engine that a test can stop, break and ask what it was given."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest
import structlog
from aiokafka import AIOKafkaProducer, TopicPartition

from service.handlers.work import Arrival, Result
from service.ledger.client import Client
from service.ledger.errors import LedgerError, LedgerUnavailable
from service.settings import Settings
from service.transport import connection, offsets, topics
from service.transport.board import REWOUND, Board
from service.transport.consumer import Consumer
from service.transport.gate import Gate
from service.transport.incarnation import Guard, Incarnations
from service.transport.metrics import Metrics
from service.transport.pipeline import Pipeline
from service.transport.publisher import Publisher

TOPIC = "workload-events"
SECONDS = 20


class Engine:
    """Remembers what it is asked to decide; ``trouble`` may raise, and while ``open`` is not set it waits."""

    def __init__(self) -> None:
        self.decided: list[tuple[int, int, str]] = []  # partition, offset, id
        self.calls: list[int] = []
        self.trouble: Callable[[Sequence[Arrival]], None] = lambda _: None
        self.open = asyncio.Event()
        self.open.set()

    async def handle(self, arrivals: Sequence[Arrival]) -> list[Result]:
        self.calls.append(len(arrivals))
        await self.open.wait()
        self.trouble(arrivals)
        for arrival in arrivals:
            assert arrival.origin is not None
            self.decided.append((arrival.origin.partition, arrival.origin.offset, arrival.event.id))
        return [Result("applied") for _ in arrivals]

    def ids(self) -> set[str]:
        return {name for _, _, name in self.decided}

    def first_times(self) -> dict[int, list[int]]:
        """By partition, the offsets in the order in which they were decided for the first time."""
        found: dict[int, dict[int, None]] = {}
        for partition, offset, _ in self.decided:
            found.setdefault(partition, {}).setdefault(offset)
        return {partition: list(some) for partition, some in found.items()}


class Servers:
    """The run of a Redis that a test may start again."""

    def __init__(self) -> None:
        self.run = "first"

    async def incarnations(self) -> dict[int, str]:
        return {0: self.run}

    async def adopt_incarnation(self) -> set[int]:
        return set()


class Depths:
    """Outboxes as deep as a test wants them."""

    def __init__(self) -> None:
        self.depth = 0

    async def outbox_depths(self) -> dict[int, int]:
        return {0: self.depth}


class Member:
    """A consumer with everything it needs."""

    def __init__(self, settings: Settings, board: Board, engine: Engine, servers: Servers) -> None:
        self.settings = settings
        self.engine = engine
        self.metrics = Metrics()
        self.publisher = Publisher(connection.client_options(settings), settings.topic_prefix)
        ledger: Any = Depths()
        self.gate = Gate(ledger, 1000, self.metrics)
        self.incarnations = Incarnations(
            servers, Guard(), board, self.metrics, settings.rewind_seconds, settings.topic_prefix
        )
        self.pipeline = Pipeline(
            engine,
            self.publisher,
            self.gate,
            self.incarnations,
            self.metrics,
            topic_prefix=settings.topic_prefix,
            batch_size_max=settings.batch_size_max,
        )
        self.incarnations.on_change(self.pipeline.invalidate)
        self.consumer = Consumer(settings, self.pipeline, self.metrics)
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self.incarnations.look()
        self.tasks = [asyncio.create_task(self.pipeline.run()), asyncio.create_task(self.consumer.run())]

    async def stop(self, seconds: float = 5) -> None:
        await self.consumer.stop(seconds)
        await asyncio.wait_for(self.tasks[1], SECONDS)
        self.tasks[0].cancel()
        await asyncio.wait(self.tasks)
        await self.publisher.close()

    def value(self, metric: str) -> float:
        text = self.metrics.render().decode()
        return float(text.partition(f"\n{metric} ")[2].partition("\n")[0] or 0)


class Town:
    """A Kafka with topics, and the members that a test starts."""

    def __init__(self, settings: Settings, board: Board, producer: AIOKafkaProducer) -> None:
        self.settings = settings
        self.board = board
        self.engine = Engine()
        self.servers = Servers()
        self.members: list[Member] = []
        self._producer = producer
        self._count = 0

    async def join(self, engine: Engine | None = None) -> Member:
        member = Member(self.settings, self.board, engine or self.engine, self.servers)
        self.members.append(member)
        await member.start()
        return member

    async def send(self, count: int) -> list[str]:
        """Publish events of different tenants, a few to each partition; answers their ids."""
        names = []
        for _ in range(count):
            self._count += 1
            names.append(f"e{self._count}")
            await self.send_raw(event(names[-1], f"t{self._count % 7}"), f"t{self._count % 7}", self._count % 3)
        await self._producer.flush()
        return names

    async def send_raw(self, value: bytes, key: str, partition: int) -> None:
        await self._producer.send(
            self.settings.topic_prefix + TOPIC,
            value,
            key.encode(),
            partition,
            headers=[("content-type", b"application/cloudevents+json")],
        )

    async def lag(self) -> int:
        async with topics.administration(self.settings) as client, offsets.reader(self.settings) as reader:
            return sum((await offsets.lag(self.settings, client, reader)).values())

    async def committed(self) -> dict[int, int]:
        async with topics.administration(self.settings) as client:
            every = await offsets.partitions(client, (self.settings.topic_prefix + TOPIC,))
            found = await offsets.committed(self.settings, client, every)
        return {partition.partition: offset for partition, offset in found.items()}


def event(name: str, tenant: str) -> bytes:
    return json.dumps(
        {
            "specversion": "1.0",
            "id": name,
            "source": "/test",
            "type": "apportion.workload.removed.v1",
            "time": "2026-01-31T12:00:00Z",
            "tenantid": tenant,
            "data": {"workload_id": "w"},
        }
    ).encode()


async def wait_until(condition: Callable[[], Any], seconds: float = SECONDS) -> None:
    """Wait for something that another task brings about."""
    async with asyncio.timeout(seconds):
        while True:
            answer = condition()
            if await answer if asyncio.iscoroutine(answer) else answer:
                return
            await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No traces of what tests provoke."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
async def town(kafka: str, redis_fresh: str, topic_prefix: str) -> AsyncIterator[Town]:
    settings = Settings(
        kafka_bootstrap_servers=kafka,
        redis_url=redis_fresh,
        topic_prefix=topic_prefix,
        group_id=topic_prefix,
        topic_partitions=3,
        rewind_seconds=3600,
        batch_size_max=50,
    )
    await topics.create(settings)
    client = Client.connect(redis_fresh)
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        made = Town(settings, Board(client), producer)
        yield made
        for member in made.members:
            made.engine.open.set()
            await member.stop()
    await client.close()


# --- in order, fair, and committed when it is done


async def test_a_partition_that_is_full_holds_up_no_other_one(town: Town) -> None:
    town.engine.open.clear()
    member = await town.join()
    for number in range(2000):
        await town.send_raw(event(f"flood{number}", "flood"), "flood", 0)
    await wait_until(lambda: town.engine.calls)
    await town.send_raw(event("other", "other"), "other", 1)
    place = TopicPartition(town.settings.topic_prefix + TOPIC, 1)
    await wait_until(lambda: member.pipeline.waiting(place))
    town.engine.open.set()
    await wait_until(lambda: len(town.engine.ids()) == 2001)
    before = [name for _, _, name in town.engine.decided].index("other")
    assert before <= town.engine.calls[0] + 2 * town.settings.batch_size_max
    assert town.engine.first_times()[0] == list(range(2000)), "the full one is worked off too, in its order"


async def test_every_event_is_decided_in_the_order_of_its_partition_and_then_committed(town: Town) -> None:
    await town.send(400)
    await town.join()
    names = await town.send(400)
    await wait_until(lambda: set(names) <= town.engine.ids())
    for some in town.engine.first_times().values():
        assert some == list(range(len(some)))
    await wait_until(lambda: _is(town.lag(), 0))
    assert sum((await town.committed()).values()) == 800
    assert max(town.engine.calls) == 50


async def test_nothing_is_committed_before_it_is_decided(town: Town) -> None:
    town.engine.open.clear()
    await town.join()
    await town.send(10)
    await wait_until(lambda: town.engine.calls)
    assert await town.committed() == {}
    town.engine.open.set()
    await wait_until(lambda: _is(town.lag(), 0))


async def test_nothing_is_committed_before_its_dead_letters_are_acknowledged(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = await town.join()
    asked, gone = asyncio.Event(), asyncio.Event()
    publish = member.publisher.publish

    async def slow(messages: Any) -> Any:
        asked.set()
        await gone.wait()
        return await publish(messages)

    monkeypatch.setattr(member.publisher, "publish", slow)
    await town.send_raw(b"{broken", "t", 0)
    await town.send(1)
    await asyncio.wait_for(asked.wait(), SECONDS)
    assert await town.lag() > 0
    gone.set()
    await wait_until(lambda: _is(town.lag(), 0))
    assert member.value('apportion_dead_letters_total{code="invalid_envelope"}') == 1


async def test_while_the_outbox_is_too_deep_nothing_is_taken_in(town: Town) -> None:
    member = await town.join()
    member.gate.judge(1001)
    await town.send(10)
    await wait_until(lambda: not member.pipeline._idle.is_set())
    assert town.engine.decided == [] and member.value("apportion_intake_paused") == 1
    member.gate.judge(900)
    assert not member.gate.is_open, "it opens well below the bound, so that it does not flutter"
    member.gate.judge(800)
    await wait_until(lambda: len(town.engine.ids()) == 10)


# --- trouble


async def test_while_the_ledger_is_away_the_same_events_are_tried_again_and_none_is_lost(town: Town) -> None:
    gone = True

    def trouble(_: Sequence[Arrival]) -> None:
        if gone:
            raise LedgerUnavailable("connection", "gone")

    town.engine.trouble = trouble
    member = await town.join()
    names = await town.send(20)
    await wait_until(lambda: len(town.engine.calls) > 4)
    assert town.engine.decided == [] and await town.committed() == {}
    assert member.value("apportion_partitions") > 0, "it stays in its group"
    gone = False
    await wait_until(lambda: town.engine.ids() == set(names))
    assert len(town.engine.decided) == 20


async def test_an_event_on_which_the_service_fails_becomes_a_dead_letter_and_stops_nobody(town: Town) -> None:
    def trouble(arrivals: Sequence[Arrival]) -> None:
        if any(arrival.event.id in ("e7", "e23") for arrival in arrivals):
            raise RuntimeError("nobody foresaw this")

    town.engine.trouble = trouble
    member = await town.join()
    names = await town.send(40)
    await wait_until(lambda: _is(town.lag(), 0))
    assert town.engine.ids() == set(names) - {"e7", "e23"}
    assert member.value('apportion_dead_letters_total{code="not_allowed"}') == 2
    for some in town.engine.first_times().values():
        assert some == sorted(some), "order is kept while the culprit is looked for"


@pytest.mark.parametrize(
    ("error", "given_up_max"), [(RuntimeError("a fault of the program"), 5), (LedgerError("WRONGTYPE"), 0)]
)
async def test_where_the_service_fails_on_everything_it_stops_giving_events_up(
    town: Town, error: Exception, given_up_max: int
) -> None:
    broken = True

    def trouble(_: Sequence[Arrival]) -> None:
        if broken:
            raise error

    town.engine.trouble = trouble
    member = await town.join()
    names = await town.send(60)
    await wait_until(lambda: not member.pipeline._available)
    assert sum((await town.committed()).values()) <= given_up_max
    broken = False
    await wait_until(lambda: _is(town.lag(), 0))
    given_up = member.value('apportion_dead_letters_total{code="not_allowed"}')
    assert given_up <= given_up_max
    assert len(town.engine.ids()) == len(names) - given_up


async def test_records_that_the_client_skips_are_read_again(town: Town) -> None:
    member = await town.join()
    await town.send(30)
    await wait_until(lambda: _is(town.lag(), 0))
    town.engine.open.clear()
    await town.send(3)
    await wait_until(lambda: len(town.engine.calls) > 0)
    member.consumer._subscriber.consumer.seek(TopicPartition(town.settings.topic_prefix + TOPIC, 1), 15)
    names = await town.send(30)
    town.engine.open.set()
    await wait_until(lambda: set(names) <= town.engine.ids())
    await wait_until(lambda: _is(town.lag(), 0))
    assert {offset for partition, offset, _ in town.engine.decided if partition == 1} == set(range(21))


# --- members that come and go


async def test_members_that_come_and_go_lose_nothing_and_keep_the_order(town: Town) -> None:
    first = await town.join()
    names = await town.send(200)
    second = await town.join()
    names += await town.send(200)
    await wait_until(lambda: second.value("apportion_partitions") > 0)
    names += await town.send(200)
    await first.stop()
    town.members.remove(first)
    names += await town.send(200)
    await wait_until(lambda: town.engine.ids() == set(names))
    await wait_until(lambda: _is(town.lag(), 0))
    for some in town.engine.first_times().values():
        assert some == list(range(len(some)))


async def test_what_is_in_hand_when_partitions_are_taken_away_is_finished_and_committed(town: Town) -> None:
    first = await town.join()
    await wait_until(lambda: first.value("apportion_partitions") > 0)
    town.engine.open.clear()
    await town.send(9)
    await wait_until(lambda: town.engine.calls)
    joining = asyncio.create_task(town.join(Engine()))
    await wait_until(lambda: not first.pipeline._accepting)
    town.engine.open.set()
    second = await joining
    await wait_until(lambda: second.value("apportion_partitions") > 0)
    await wait_until(lambda: _is(town.lag(), 0))
    assert len(town.engine.ids() | second.engine.ids()) == 9
    assert len(town.engine.decided) >= town.engine.calls[0]


async def test_a_member_that_stops_finishes_what_is_in_hand_and_takes_nothing_more(town: Town) -> None:
    member = await town.join()
    await wait_until(lambda: member.value("apportion_partitions") > 0)
    town.engine.open.clear()
    await town.send(500)
    await wait_until(lambda: town.engine.calls)
    stopping = asyncio.create_task(member.stop())
    town.members.remove(member)
    await wait_until(lambda: not member.pipeline._accepting)
    town.engine.open.set()
    await stopping
    assert len(town.engine.calls) == 1
    assert sum((await town.committed()).values()) == len(town.engine.decided) == town.engine.calls[0]


async def test_a_member_that_stops_does_not_wait_for_a_ledger_that_is_away(town: Town) -> None:
    def trouble(_: Sequence[Arrival]) -> None:
        raise LedgerUnavailable("connection", "gone")

    town.engine.trouble = trouble
    member = await town.join()
    await town.send(5)
    await wait_until(lambda: len(town.engine.calls) > 2)
    town.members.remove(member)
    began = time.monotonic()
    await member.stop(8)
    assert time.monotonic() - began < 5 and await town.committed() == {}


# --- another incarnation of Redis


async def test_after_a_restart_of_redis_partitions_are_read_again_once(town: Town) -> None:
    member = await town.join()
    names = await town.send(30)
    await wait_until(lambda: _is(town.lag(), 0))
    town.servers.run = "second"
    await member.incarnations.look()
    await wait_until(lambda: len(town.engine.decided) == 60)
    assert town.engine.ids() == set(names)
    await wait_until(lambda: _is(town.lag(), 0))
    assert member.value("apportion_rewinds_total") == 3
    assert set((await town.board.get(REWOUND)).values()) == {member.incarnations.name}
    await member.stop()
    town.members.remove(member)
    again = await town.join()
    await town.send(1)
    await wait_until(lambda: len(town.engine.decided) == 61)
    assert again.value("apportion_rewinds_total") == 0


async def test_a_restart_of_redis_while_nobody_looked_is_noticed_at_the_next_assignment(town: Town) -> None:
    member = await town.join()
    await town.send(12)
    await wait_until(lambda: _is(town.lag(), 0))
    await member.stop()
    town.members.remove(member)
    town.servers.run = "second"
    again = await town.join()
    await wait_until(lambda: len(town.engine.decided) == 24)
    assert again.value("apportion_rewinds_total") == 3


async def test_what_was_in_hand_at_a_restart_of_redis_is_not_committed_over_the_rewound_offsets(town: Town) -> None:
    member = await town.join()
    await town.send(30)
    await wait_until(lambda: _is(town.lag(), 0))
    town.engine.open.clear()
    await town.send(30)
    calls = len(town.engine.calls)
    await wait_until(lambda: len(town.engine.calls) > calls)
    town.servers.run = "second"
    await member.incarnations.look()
    town.engine.open.set()
    await wait_until(lambda: _is(town.lag(), 0))
    again = [offset for partition, offset, _ in town.engine.decided if partition == 0]
    assert again.count(0) == 2, "everything is read again from the beginning"
    assert set(again) == set(range(20))


async def _is(work: Any, wanted: Any) -> bool:
    return bool(await work == wanted)
