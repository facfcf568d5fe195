"""A realistic fleet, published as its agents and plans would publish it, and how the service keeps up.

The way of the events is that of any producer: nothing of the service's own is used but the names of the topics. What is
measured is the whole: when every event is decided, and when all that follows from it is announced.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.status import Status as Spinner

from service.commands import console
from service.commands.console import CommandError, Json
from service.commands.fleet import Event, Fleet
from service.settings import Settings

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

    from service.transport.status import Observatory, Status

LOOK_SECONDS = 0.25  # between two looks at what is not decided and not announced yet
SLICE_SECONDS = 0.01  # events of a rate are sent in slices
UNPACED_SLICE = 500  # events in a row where there is no rate; then others have their turn
IDLE_SECONDS_MAX = 900.0

Tenants = Annotated[int, typer.Option(min=1, max=100_000, help="How many customers; partners come on top.")]
PerTenant = Annotated[int, typer.Option(min=1, max=100_000, help="Workloads of each customer.")]
Rate = Annotated[float, typer.Option(min=0, help="Events per second; 0: as fast as they can be sent.")]
Seconds = Annotated[float, typer.Option(min=0, help="How long daily life goes on once all workloads are there.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same fleet.")]


class Figures(msgspec.Struct):
    """What was measured. Rates are per second, from the first event on: until all were sent, decided, announced."""

    seed: int
    tenants: int
    workloads: int
    published: int
    announced: int
    published_per_second: float
    decided_per_second: float
    announced_per_second: float
    seconds: dict[str, float]
    lag_max: int
    outbox_max: int
    events: dict[str, int]
    announcements: dict[str, int]


def register(application: typer.Typer) -> None:
    """Add the command."""
    application.command()(simulate)


def simulate(
    tenants: Tenants = 100,
    workloads_per_tenant: PerTenant = 20,
    rate: Rate = 1000,
    seconds: Seconds = 10,
    seed: Seed = 1,
    json: Json = False,
) -> None:
    """Publish a fleet: tenants, plans, workloads, then their daily life; and measure how the service keeps up."""
    fleet = Fleet(customers=tenants, workloads=workloads_per_tenant, seed=seed)
    figures = console.run(_simulate(console.settings(), fleet, rate, seconds, seed))
    if json:
        console.print_json(msgspec.to_builtins(figures))
    else:
        _print(figures)


def _print(figures: Figures) -> None:
    whole = figures.seconds
    rows = [
        ("published", figures.published, whole["published"], figures.published_per_second),
        ("decided", figures.published, whole["decided"], figures.decided_per_second),
        ("announced", figures.announced, whole["announced"], figures.announced_per_second),
    ]
    shown = [(name, f"{count:,}", f"{seconds:,.1f}", f"{speed:,.0f}") for name, count, seconds, speed in rows]
    title = f"{figures.tenants:,} tenants, {figures.workloads:,} workloads, seed {figures.seed}"
    console.print_table(title, ("", "events#", "after seconds#", "per second#"), shown)
    typer.echo(f"At most {figures.lag_max:,} events were not decided, and {figures.outbox_max:,} not announced.")
    console.print_table("Published", ("event", "count#"), [(name, f"{n:,}") for name, n in figures.events.items()])
    announced = [(name, f"{n:,}") for name, n in figures.announcements.items()]
    console.print_table("Announced", ("topic", "messages#"), announced)


async def _simulate(settings: Settings, fleet: Fleet, rate: float, seconds: float, seed: int) -> Figures:
    from service import core
    from service.transport import offsets, status

    async with (
        core.open_core(settings) as opened,
        status.observatory(settings, opened.ledger, opened.board) as observatory,
        offsets.reader(settings) as reader,
        _producer(settings) as producer,
    ):
        if not any("consume" in member.roles for member in await observatory.instances()):
            raise CommandError("Nobody would decide these events: start an instance with `apportion serve`.")
        sender = _Sender(producer, settings.topic_prefix)
        with _spinner() as show:
            show("Publishing tenants and plans …")
            for prepared in (fleet.tenants(), fleet.plans()):
                await sender.send(prepared, 0)
                _require_idle(await observatory.wait_idle(IDLE_SECONDS_MAX))
            sender.counts.clear()
            before = await _ends(settings, reader)
            measured = await _measure(sender, observatory, fleet, rate, seconds, show)
        after = await _ends(settings, reader)
    announcements = {topic: after[topic] - before[topic] for topic in after}
    return _figures(measured, sender.counts, announcements, seed=seed, fleet=fleet)


def _producer(settings: Settings) -> AIOKafkaProducer:
    from aiokafka import AIOKafkaProducer

    from service.transport import connection

    options = connection.client_options(settings)
    return AIOKafkaProducer(**options, enable_idempotence=True, linger_ms=5, max_batch_size=262_144)


class _Measured(msgspec.Struct):
    """Seconds since the first event, and the largest heaps on the way."""

    published: float = 0.0
    decided: float = 0.0
    announced: float = 0.0
    lag_max: int = 0
    outbox_max: int = 0


async def _measure(
    sender: _Sender,
    observatory: Observatory,
    fleet: Fleet,
    rate: float,
    seconds: float,
    show: Callable[[str], None],
) -> _Measured:
    """Send everything, and look at the service until all of it is announced."""
    measured = _Measured()
    began = time.monotonic()
    sending = asyncio.create_task(_send_all(sender, fleet, rate, seconds))
    try:
        while not measured.announced:
            finished = sending.done()  # before looking: what is seen then is all there is
            if finished and not measured.published:
                measured.published = sending.result() - began
            seen = await observatory.read()
            now = time.monotonic() - began
            lag = sum(seen.lag.values())
            measured.lag_max, measured.outbox_max = max(measured.lag_max, lag), max(measured.outbox_max, seen.outbox)
            show(f"{sender.total:,} events sent, {lag:,} not decided, {seen.outbox:,} not announced")
            if finished and not (measured.decided or lag or seen.delayed):
                measured.decided = now
            if finished and seen.idle:
                measured.announced = now
            elif finished and now > measured.published + IDLE_SECONDS_MAX:
                _require_idle(seen)
            await asyncio.wait([sending], timeout=0 if finished else LOOK_SECONDS)
    finally:
        sending.cancel()
    return measured


def _require_idle(seen: Status) -> None:
    if not seen.idle:
        lag = sum(seen.lag.values())
        raise CommandError(
            f"The service does not keep up: {lag} events are not decided, {seen.delayed} not finished and "
            f"{seen.outbox} announcements not published after {IDLE_SECONDS_MAX:.0f} seconds."
        )


async def _send_all(sender: _Sender, fleet: Fleet, rate: float, seconds: float) -> float:
    """Let the workloads arrive, then let their life go on for so long; answers when the last event was taken."""
    await sender.send(fleet.arrivals(), rate)
    await sender.send(fleet.daily_life(), rate, seconds)
    return time.monotonic()


class _Sender:
    """Publishes events as any producer would, at a rate."""

    def __init__(self, producer: AIOKafkaProducer, topic_prefix: str) -> None:
        from schemas import table

        self._producer = producer
        self._topics = {name: topic_prefix + event.topic for name, event in table.INBOUND.items()}
        self._run = time.time_ns()
        self.total = 0
        self.counts: Counter[str] = Counter()

    async def send(self, events: Iterable[Event], rate: float, seconds: float | None = None) -> None:
        """Send events, at most for so long, and wait until Kafka has them. Raises ``KafkaError``."""
        began = time.monotonic()
        for sent, event in enumerate(events):
            elapsed = time.monotonic() - began
            if seconds is not None and elapsed >= seconds:
                break
            if rate and sent >= elapsed * rate:
                await asyncio.sleep(max(SLICE_SECONDS, (sent + 1) / rate - elapsed))
            elif sent % UNPACED_SLICE == 0:
                await asyncio.sleep(0)
            await self._send_one(event)
        await self._producer.flush()

    async def _send_one(self, event: Event) -> None:
        self.total += 1
        self.counts[event.type] += 1
        type_ = f"apportion.{event.type}.v1"
        content = {
            "specversion": "1.0",
            "id": f"{self._run}-{self.total}",
            "source": "/apportion/simulate",
            "type": type_,
            "time": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "tenantid": event.tenant,
            "data": event.data,
        }
        await self._producer.send(
            self._topics[type_],
            json.dumps(content).encode(),
            key=event.tenant.encode(),
            headers=[("content-type", b"application/cloudevents+json")],
        )


async def _ends(settings: Settings, reader: AIOKafkaConsumer) -> dict[str, int]:
    """How many messages each outbound topic has had."""
    from aiokafka import TopicPartition

    from service.transport import topics

    counts = {settings.topic_prefix + topic: 0 for topic in topics.OUTBOUND}
    partitions = [TopicPartition(name, number) for name in counts for number in reader.partitions_for_topic(name) or ()]
    for partition, end in (await reader.end_offsets(partitions)).items():
        counts[partition.topic] += end
    return {topics.bare(settings, name): count for name, count in counts.items()}


def _figures(
    measured: _Measured,
    counts: Mapping[str, int],
    announcements: Mapping[str, int],
    *,
    seed: int,
    fleet: Fleet,
) -> Figures:
    published, announced = sum(counts.values()), sum(announcements.values())
    return Figures(
        seed=seed,
        tenants=len(fleet.customers),
        workloads=fleet.size,
        published=published,
        announced=announced,
        published_per_second=round(published / measured.published, 1),
        decided_per_second=round(published / measured.decided, 1),
        announced_per_second=round(announced / measured.announced, 1),
        seconds={
            "published": round(measured.published, 3),
            "decided": round(measured.decided, 3),
            "announced": round(measured.announced, 3),
        },
        lag_max=measured.lag_max,
        outbox_max=measured.outbox_max,
        events=dict(sorted(counts.items())),
        announcements={topic: count for topic, count in announcements.items() if count},
    )


@contextmanager
def _spinner() -> Iterator[Callable[[str], None]]:
    """What is going on, on a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with Spinner("", console=Console(stderr=True)) as spinner:
        yield spinner.update
