"""What an event costs inside the service: read, decided, encoded, committed, rendered, without Kafka.

Good for: seeing what a change of the code does to the cost of an event, type by type, and where the rest of it is spent
(``--profile``). One process does everything in turn, so the parts add up.

Not good for: how many events per second the service handles. There the parts run beside each other and beside Kafka on
the same cores: ask ``bench pipeline``.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from aiokafka import ConsumerRecord

from bench import profiler, report, servers
from bench.fleet import HEADERS, TOPIC_PREFIX, Event, Fleet
from service import catalog
from service.handlers import announcements
from service.handlers.engine import Engine
from service.handlers.work import Arrival
from service.ledger import keys
from service.ledger.client import Client, Script, Word
from service.ledger.redis_ledger import RedisLedger
from service.ledger.transaction import Outcome, Transaction
from service.transport import reading

SHARDS = 64
_US = 1e6
_TRIM_ENTRIES = 1 << 30


class RememberingClient(Client):
    """A client that keeps the answers of scripts, so that what the ledger does around them can be done once more."""

    answers: dict[str, deque[Any]] | None = None

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Word]) -> Any:
        answer = await super().run(script, keys, arguments)
        if self.answers is not None:
            self.answers.setdefault(keys[0], deque()).append(answer)
        return answer


class RepeatingClient(Client):
    """Gives the same answers again, for each first key in their order, without asking anybody."""

    def __init__(self, answers: dict[str, deque[Any]]) -> None:
        self._answers = answers

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Word]) -> Any:
        del script, arguments
        return self._answers[keys[0]].popleft()


class RememberingLedger(RedisLedger):
    """A ledger that keeps what it is asked to commit."""

    def __init__(self, client: RememberingClient, shards: int) -> None:
        super().__init__(client, shards)
        self.client = client
        self._commits: list[tuple[int, Sequence[Transaction], int]] = []

    def remember(self) -> None:
        """Keep what is committed from now on."""
        self.client.answers = {}
        self._commits = []

    async def commit(self, shard: int, transactions: Sequence[Transaction], now_ms: int) -> list[Outcome]:
        if self.client.answers is not None:
            self._commits.append((shard, transactions, now_ms))
        return await super().commit(shard, transactions, now_ms)

    async def repeat(self) -> float:
        """What was kept, committed once more without Redis: the seconds that encoding and reading answers takes."""
        again = RedisLedger(RepeatingClient(self.client.answers or {}), self.shards)
        self.client.answers = None
        began = time.perf_counter()
        for commit in self._commits:
            await again.commit(*commit)
        return time.perf_counter() - began


class Bench:
    """An engine on a Redis, and batches of events for it."""

    def __init__(self, redis: servers.BenchRedis, batch: int) -> None:
        self.redis = redis
        self.batch = batch
        self.catalog = catalog.load()
        client = RememberingClient.connect(redis.url)
        assert isinstance(client, RememberingClient), "connect makes one of its own class"
        self.ledger = RememberingLedger(client, SHARDS)
        self.engine = Engine(self.ledger, self.catalog)
        self._offsets = itertools.count()
        self.announced = 0
        self.reads_again = False  # what is read has an offset that is known already

    async def close(self) -> None:
        """Let go of Redis."""
        await self.ledger.close()

    async def prepare(self, fleet: Fleet) -> None:
        """Make the tenants and plans of a fleet, in a ledger whose numbers are as long as in operation."""
        await self.ledger.adopt_incarnation()
        for events in (fleet.tenants(), fleet.plans()):
            for batch in batches(events, self.batch):
                results = await self.engine.handle(self.read(self.records(batch)))
                refused = next((result for result in results if result.kind != "applied"), None)
                if refused is not None:
                    raise AssertionError(f"the fleet is refused: {refused}")
        await self.forget_announcements()

    def records(self, events: Iterable[Event]) -> list[ConsumerRecord[bytes, bytes]]:
        """Events as Kafka's client gives them to the service."""
        offsets = itertools.repeat(0) if self.reads_again else self._offsets
        return [
            ConsumerRecord(event.topic, 0, offset, 0, 0, event.key, event.value, None, 0, len(event.value), HEADERS)
            for event, offset in zip(events, offsets, strict=False)
        ]

    @staticmethod
    def read(records: Iterable[ConsumerRecord[bytes, bytes]]) -> list[Arrival]:
        """Records as the service reads them; all of them are in order."""
        now_us = time.time_ns() // 1000
        return [
            item for record in records if isinstance(item := reading.read_one(record, TOPIC_PREFIX, now_us), Arrival)
        ]

    async def announce(self) -> tuple[float, float]:
        """Read and render what is in the outboxes, and forget it; the seconds of each on a processor."""
        began = time.process_time()
        outboxes = await self.ledger.outbox(range(SHARDS), 1_000_000)
        read = time.process_time()
        for entries in outboxes.values():
            for entry in entries:
                announcements.render(entry, self.catalog)
            self.announced += len(entries)
        rendered = time.process_time()
        await self.forget_announcements()
        return read - began, rendered - read

    async def forget_announcements(self) -> None:
        """Empty the outboxes."""
        names = [keys.outbox(shard) for shard in range(SHARDS)]
        await self.ledger.client.together([("LTRIM", name, _TRIM_ENTRIES, -1) for name in names])


def batches(events: Iterable[Event], size: int) -> Iterator[list[Event]]:
    """Events in lists of that size; the last one may be shorter."""
    iterator = iter(events)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


async def measure(bench: Bench, events: Iterable[Event]) -> dict[str, float]:
    """What the events cost, in microseconds for each, part by part."""
    seconds = dict.fromkeys(("read", "handle", "handle_cpu", "outbox", "render", "encode"), 0.0)
    count = 0
    announced, scripts = bench.announced, bench.redis.scripts()
    for batch in batches(events, bench.batch):
        records = bench.records(batch)
        began_cpu = time.process_time()
        arrivals = bench.read(records)
        seconds["read"] += time.process_time() - began_cpu
        bench.ledger.remember()
        began, began_cpu = time.perf_counter(), time.process_time()
        await bench.engine.handle(arrivals)
        seconds["handle_cpu"] += time.process_time() - began_cpu
        seconds["handle"] += time.perf_counter() - began
        seconds["encode"] += await bench.ledger.repeat()
        outbox, render = await bench.announce()
        seconds["outbox"] += outbox
        seconds["render"] += render
        count += len(batch)
    figures = {f"{name}_us": value / count * _US for name, value in seconds.items()}
    figures["script_us"] = (bench.redis.scripts().seconds - scripts.seconds) / count * _US
    announcements_made = bench.announced - announced
    figures["announcements_per_event"] = announcements_made / count
    if announcements_made:
        figures["announcement_us"] = (seconds["outbox"] + seconds["render"]) / announcements_made * _US
    return figures


def kinds(fleet: Fleet) -> dict[str, Iterator[Event]]:
    """Events by what they are, in an order in which each finds what it needs."""
    return {
        "workload.registered": fleet.registered(),
        "plan.applied": fleet.applied("backup"),
        "plan.applied (a second plan)": fleet.applied("advanced"),
        "workload.usage_reported": fleet.usage(),
        "workload.registered (again, nothing new)": fleet.registered(),
    }


async def run(*, customers: int, workloads: int, partners: int, batch: int, rounds: int) -> report.Report:
    """Cost by type of event."""
    made = report.Report("engine", _options(customers, workloads, partners, batch, rounds))
    measured: dict[str, list[dict[str, float]]] = {}
    with servers.redis_server() as redis:
        for number in range(rounds):
            redis.empty()
            bench = Bench(redis, batch)
            fleet = Fleet(customers=customers, workloads=workloads, partners=partners, seed=number)
            await bench.prepare(fleet)
            for kind, events in kinds(fleet).items():
                report.progress.log(f"round {number + 1} of {rounds}: {kind}")
                measured.setdefault(kind, []).append(await measure(bench, events))
            bench.reads_again = True
            measured.setdefault("any of these, read again after a rewind", []).append(
                await measure(bench, fleet.life())
            )
            await bench.close()
    made.tables["microseconds for an event"] = [_row(kind, figures) for kind, figures in measured.items()]
    made.notes.append(
        "handle and encode are wall time, the former with the script; all else is processor time of Python."
    )
    made.notes.append("announcement_us is what reading and rendering one announcement takes.")
    return made


def _row(kind: str, rounds: Sequence[Mapping[str, float]]) -> report.Row:
    figures = report.medians(rounds)
    python_us = figures["read_us"] + figures["handle_cpu_us"] + figures["outbox_us"] + figures["render_us"]
    return {
        "event": kind,
        **{name: round(value, 2) for name, value in figures.items()},
        "python_us": round(python_us, 2),
        "events_per_second_of_python": round(_US / python_us),
    }


def _options(customers: int, workloads: int, partners: int, batch: int, rounds: int) -> dict[str, Any]:
    return {
        "customers": customers,
        "workloads_per_customer": workloads,
        "partners": partners,
        "shards": SHARDS,
        "batch": batch,
        "rounds": rounds,
    }


async def profile(*, customers: int, workloads: int, partners: int, batch: int, top: int) -> report.Report:
    """The functions in which each type of event spends its time."""
    made = report.Report("engine", _options(customers, workloads, partners, batch, 1))
    shares: list[report.Row] = []
    with servers.redis_server() as redis:
        bench = Bench(redis, batch)
        fleet = Fleet(customers=customers, workloads=workloads, partners=partners)
        await bench.prepare(fleet)
        for kind, events in kinds(fleet).items():
            prepared = [bench.records(some) for some in batches(events, batch)]
            with profiler.recording(os.getpid()) as recorded:
                for records in prepared:
                    await bench.engine.handle(bench.read(records))
                    await bench.announce()
            made.tables[f"{kind}: top functions by own time"] = recorded.functions(top)
            shares.append({"event": kind, **recorded.areas()})
        await bench.close()
    made.tables = {"share of the time by part, percent": shares, **made.tables}
    return made
