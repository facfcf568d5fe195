"""A hard limit under pressure: many writers at once, on several instances, and never a unit above it.

An MSP with a hard limit has fifty customers. Writers ask for workloads and for reservations of one unit each, several
times as many as there are units. Afterwards exactly the limit is granted, by the answers, by the counters of every
level, by what workloads and reservations hold, and by what was announced.

    python -m tests.faults.limits --requests 100000 --seed 7            # engines in processes of their own, no Kafka
    python -m tests.faults.limits --requests 100000 --through-kafka     # producers, Kafka, instances
    python -m tests.faults.limits --requests 100000 --cluster           # three masters, an MSP on each

What is asked for, by whom and in which order follows from the seed; how the writers meet does not.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import confluent_kafka

from schemas import envelope, table
from service import catalog, records
from service.handlers import announcements, queries, tree, verification
from service.handlers.engine import Engine
from service.handlers.work import Arrival
from service.ledger.client import Client
from service.ledger.redis_ledger import RedisLedger
from service.local.cluster import LocalRedisCluster
from service.local.stack import Stack
from tests.component.fleet import Fleet

ITEM = "pw_base_workstations"
PLAN = "plan"
SHARDS = 64
ASSIGNED_SHARE = 0.6  # of the requests; the others reserve
GRANTED_SHARE = 0.3  # of the requests is what the limits have room for
LOOK_SECONDS = 0.02
HEADERS = (("content-type", b"application/cloudevents+json"),)


class Town(NamedTuple):
    """Where the ledger is, who lives there and what is asked for. ``limit`` is that of each MSP."""

    redis_url: str
    cluster: bool = False
    msps: int = 1
    customers: int = 50
    requests: int = 100_000
    writers: int = 64
    processes: int = 4
    together_max: int = 8  # requests that a writer hands over at once
    seed: int = 1

    @property
    def limit(self) -> int:
        """What each MSP may use."""
        return int(self.requests * GRANTED_SHARE / self.msps)

    def customers_of(self, msp: int) -> list[str]:
        """The customers of an MSP, given by its number."""
        return [f"customer-{msp}-{number}" for number in range(self.customers)]

    def every_customer(self) -> list[str]:
        """The customers of all MSPs."""
        return [customer for msp in range(self.msps) for customer in self.customers_of(msp)]


class Request(NamedTuple):
    """One unit for a customer: a workload with its plan, or a reservation; the events that ask for it."""

    customer: str
    name: str
    is_reservation: bool

    def events(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Type, tenant and data, in order."""
        if self.is_reservation:
            data = {"reservation_id": self.name, "items": {ITEM: 1}, "ttl_seconds": 3600}
            return [("reservation.reserve", self.customer, data)]
        return [
            ("workload.registered", self.customer, {"workload_id": self.name, "type": "workstation"}),
            ("plan.applied", self.customer, {"plan_id": PLAN, "workload_ids": [self.name]}),
        ]


class Found(NamedTuple):
    """What the ledger says afterwards. ``used`` by tenant; ``held`` and ``reserved`` are counted one by one."""

    used: dict[str, int]
    held: Counter[str]
    reserved: Counter[str]
    violations: list[str]


def requests_of(town: Town, writer: int) -> Iterator[Request]:
    """What a writer asks for."""
    chance = random.Random(f"{town.seed}/{writer}")
    customers = town.every_customer()
    share, more = divmod(town.requests, town.writers)
    for number in range(share + (writer < more)):
        yield Request(chance.choice(customers), f"w{writer}-{number}", chance.random() > ASSIGNED_SHARE)


def tenants(town: Town) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Distributors, MSPs with their limit, customers with their plan; each distributor has its own shard."""
    unlimited = {"items": [{"name": ITEM, "status": 1}]}
    limited = {"items": [{"name": ITEM, "status": 1, "quota": {"value": town.limit, "overage": 0}}]}
    for msp in range(town.msps):
        for name, parent, kind, items in (
            (f"dist-{msp}", "root", "partner", unlimited),
            (f"msp-{msp}", f"dist-{msp}", "partner", limited),
            *((name, f"msp-{msp}", "customer", unlimited) for name in town.customers_of(msp)),
        ):
            yield "tenant.upserted", name, {"parent_id": parent, "kind": kind, "name": name}
            yield "offering_items.set", name, items
    for name in town.every_customer():
        yield "plan.saved", name, {"plan_id": PLAN, "features": ["backup.files"]}


def message(name: str, tenant: str, data: dict[str, Any], id_: str) -> tuple[str, bytes]:
    """The topic, without prefix, and the bytes of an event."""
    now_us = time.time_ns() // 1000
    content = {
        "specversion": "1.0",
        "id": id_,
        "source": "/limits",
        "type": f"apportion.{name}.v1",
        "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_us // 10**6)) + f".{now_us % 10**6:06d}Z",
        "tenantid": tenant,
        "data": data,
    }
    return table.INBOUND[f"apportion.{name}.v1"].topic, json.dumps(content).encode()


def arrival(name: str, tenant: str, data: dict[str, Any], id_: str) -> Arrival:
    """The same event as it comes from a person or over HTTP."""
    _, value = message(name, tenant, data, id_)
    return Arrival(envelope.parse(value, HEADERS, tenant.encode(), now_us=time.time_ns() // 1000 + 10**6))


# --- engines, without Kafka


class Opened:
    """A ledger, with an engine of its own."""

    def __init__(self, town: Town) -> None:
        self._client = Client.connect(town.redis_url, cluster=town.cluster)
        self.ledger = RedisLedger(self._client, SHARDS)
        self.engine = Engine(self.ledger, catalog.load())

    async def __aenter__(self) -> Opened:
        await self.ledger.install()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()


async def prepare(town: Town) -> None:
    """Make the tenants; the ledger has to be empty."""
    async with Opened(town) as opened:
        for number, event in enumerate(tenants(town)):
            (result,) = await opened.engine.handle([arrival(*event, f"tenants-{number}")])
            assert result.kind == "applied", (event, result)


def write(town: Town, writers: Sequence[int]) -> int:
    """Be one process with some of the writers, all at once; how many units they were granted, by their answers."""

    async def one(engine: Engine, writer: int) -> int:
        chance = random.Random(f"{town.seed}/{writer}/together")
        asking = requests_of(town, writer)
        granted = 0
        while some := list(itertools.islice(asking, chance.randint(1, town.together_max))):
            asked = [
                arrival(*event, f"{request.name}-{step}")
                for request in some
                for step, event in enumerate(request.events())
            ]
            results = await engine.handle(asked)
            answers = zip(asked, results, strict=True)
            wanted = [result for asks, result in answers if "registered" not in asks.event.type]
            assert all(result.kind in ("applied", "denied") for result in wanted), wanted
            granted += sum(result.kind == "applied" for result in wanted)
        return granted

    async def all_of_them() -> int:
        async with Opened(town) as opened:
            return sum(await asyncio.gather(*(one(opened.engine, writer) for writer in writers)))

    return asyncio.run(all_of_them())


async def push(town: Town) -> tuple[int, int]:
    """Have all writers ask for everything; what was granted by the answers, and the most that was ever seen in use."""
    loop = asyncio.get_running_loop()
    shares = [range(number, town.writers, town.processes) for number in range(town.processes)]
    with ProcessPoolExecutor(town.processes, multiprocessing.get_context("spawn")) as pool:
        working = [loop.run_in_executor(pool, write, town, share) for share in shares]
        watching = asyncio.create_task(poll_usage(town, working))
        granted = sum(await asyncio.gather(*working))
        return granted, await watching


async def poll_usage(town: Town, working: Sequence[asyncio.Future[int]]) -> int:
    """Look at the MSPs as long as anybody works; the most that one of them ever used."""
    highest = 0
    async with Opened(town) as opened:
        nodes = await tree.find_all(opened.ledger, [f"msp-{msp}" for msp in range(town.msps)])
        while not all(task.done() for task in working):
            for node in nodes:
                accounts = await opened.ledger.accounts({node.shard: [node.tenant_id]})
                highest = max(highest, accounts[node.tenant_id][ITEM].used)
            await asyncio.sleep(LOOK_SECONDS)
    return highest


async def announced(town: Town) -> list[dict[str, Any]]:
    """What waits in the outboxes, where nobody has published it."""
    async with Opened(town) as opened:
        entries = await opened.ledger.outbox(range(SHARDS), 10 * town.requests)
        known = opened.engine.catalog
        return [json.loads(announcements.render(entry, known).value) for some in entries.values() for entry in some]


# --- producers, Kafka, instances


def produce(town: Town, kafka: str, prefix: str, writers: Iterable[int]) -> None:
    """Have one producer for each writer send what it asks for, all at once."""

    def one(writer: int) -> None:
        producer = confluent_kafka.Producer({"bootstrap.servers": kafka, "linger.ms": 5, "log_level": 0})
        for request in requests_of(town, writer):
            for step, event in enumerate(request.events()):
                topic, value = message(*event, f"{request.name}-{step}")
                producer.produce(prefix + topic, value, event[1], headers=list(HEADERS))
            producer.poll(0)
        assert producer.flush(60) == 0

    threads = [threading.Thread(target=one, args=[writer]) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def push_through_kafka(town: Town, fleet: Fleet, kafka: str, instances: int, seconds: float) -> list[dict[str, Any]]:
    """The same with instances of the service; everything that they announced about units."""
    fleet.answer("topics", "create")
    for _ in range(instances):
        fleet.serve()
    for number, event in enumerate(tenants(town)):
        topic, value = message(*event, f"tenants-{number}")
        fleet.produce(topic, value, event[1], list(HEADERS))
    fleet.settle(seconds)
    produce(town, kafka, fleet.prefix, range(town.writers))
    fleet.settle(seconds)
    assert fleet.answer("status")["dead_letters"] == {}
    return [*fleet.read("assignments"), *fleet.read("reservations")]


# --- what has to hold


async def look(town: Town) -> Found:
    """Read every counter, and count one by one what workloads and reservations have."""
    found = Found({}, Counter(), Counter(), [])
    async with Opened(town) as opened:
        ledger = opened.ledger
        report = await verification.verify(ledger, opened.engine.catalog)
        found.violations.extend(violation.message for violation in report.violations)
        names = [f"{kind}-{msp}" for msp in range(town.msps) for kind in ("dist", "msp")]
        for node in await tree.find_all(ledger, [*names, *town.every_customer()]):
            accounts = (await ledger.accounts({node.shard: [node.tenant_id]})).get(node.tenant_id, {})
            found.used[node.tenant_id] = accounts[ITEM].used if ITEM in accounts else 0
            async for _, workload in queries.scan_workloads(ledger, node):
                found.held[node.tenant_id] += ITEM in workload.holding
            found.reserved[node.tenant_id] = await count_reserved(ledger, node)
    return found


async def count_reserved(ledger: RedisLedger, node: tree.Node) -> int:
    """The units that reservations of a tenant hold."""
    count, cursor, names = 0, 0, set()
    while True:
        cursor, page = await ledger.scan(node.shard, "reservation", node.tenant_id, cursor, queries.PAGE)
        for name, record in page.items():
            reservation = records.decode(records.reservation_key(node.tenant_id, name), record.payload)
            if reservation.state == "held" and name not in names:
                count += reservation.items[ITEM]
            names.add(name)
        if not cursor:
            return count


def check(town: Town, found: Found, events: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Exactly the limit is granted, and everything that says so says the same; how many were granted and refused."""
    assert found.violations == []
    for msp in range(town.msps):
        customers = town.customers_of(msp)
        assert found.used[f"msp-{msp}"] == found.used[f"dist-{msp}"] == town.limit
        assert sum(found.used[name] for name in customers) == town.limit
        assert sum(found.held[name] + found.reserved[name] for name in customers) == town.limit
        assert sum(found.held[name] for name in customers) and sum(found.reserved[name] for name in customers)
        for name in customers:
            assert found.used[name] == found.held[name] + found.reserved[name], name
    granted, refused = granted_and_refused(events)
    assert granted == found.held + found.reserved, "what is announced is what is held"
    assert granted.total() + refused == town.requests, "each request has one answer"
    return granted.total(), refused


def granted_and_refused(events: Sequence[dict[str, Any]]) -> tuple[Counter[str], int]:
    """Units granted by tenant, and how many requests were refused, by the announcements alone; a repeat counts once."""
    granted: Counter[str] = Counter()
    refused = 0
    for event in {event["id"]: event for event in events}.values():
        kind, data = event["type"], event["data"]
        if kind == "apportion.reservation.granted.v1":
            granted[event["tenantid"]] += data["items"][ITEM]
        elif kind == "apportion.assignment.changed.v1":
            granted[event["tenantid"]] += data["assigned"].get(ITEM, 0) - data["released"].get(ITEM, 0)
        else:
            assert kind in ("apportion.reservation.denied.v1", "apportion.assignment.denied.v1"), kind
            refused += 1
    return granted, refused


async def run(town: Town) -> tuple[int, int]:
    """Everything without Kafka, see :func:`check`; an AssertionError where something does not hold."""
    await prepare(town)
    granted, highest = await push(town)
    assert granted == town.limit * town.msps, f"{granted} by the answers"
    assert highest <= town.limit, f"{highest} were in use at some moment"
    return check(town, await look(town), [event for event in await announced(town) if is_about_units(event)])


def is_about_units(event: dict[str, Any]) -> bool:
    """Whether an announcement is the answer to a request."""
    return event["type"].startswith(("apportion.assignment.", "apportion.reservation."))


def run_through_kafka(
    town: Town, kafka: str, prefix: str, folder: Path, instances: int, seconds: float
) -> tuple[int, int]:
    """The same through Kafka; an AssertionError where something does not hold."""
    fleet = Fleet(kafka, town.redis_url, prefix, folder)
    fleet.environment |= {"APPORTION_REDIS_CLUSTER": str(town.cluster), "APPORTION_TOPIC_PARTITIONS": "12"}
    try:
        events = push_through_kafka(town, fleet, kafka, instances, seconds)
    finally:
        fleet.close()
    return check(town, asyncio.run(look(town)), events)


def main() -> None:
    """The long form, with servers of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.limits", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=4, help="engines, or instances with --through-kafka")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--cluster", action="store_true", help="a Redis Cluster of three masters, and three MSPs")
    parser.add_argument("--through-kafka", action="store_true")
    asked = parser.parse_args()
    print(f"seed {asked.seed}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="apportion-limits-") as folder, Stack(Path(folder)) as stack:
        url, cluster = stack.addresses.redis_url, LocalRedisCluster(Path(folder, "cluster"))
        if asked.cluster:
            cluster.start()
            url = cluster.url
        msps = 3 if asked.cluster else 1
        town = Town(url, asked.cluster, msps, requests=asked.requests, processes=asked.processes, seed=asked.seed)
        began = time.monotonic()
        if asked.through_kafka:
            kafka = stack.addresses.kafka_bootstrap_servers
            run_through_kafka(town, kafka, "limits.", Path(folder), asked.processes, 3600)
        else:
            asyncio.run(run(town))
        cluster.kill()
    seconds = time.monotonic() - began
    print(f"{town.requests} requests, {town.limit * msps} granted, as many as {msps} x the limit: {seconds:.0f} s")


if __name__ == "__main__":
    main()
