"""A realistic fleet, published as its agents and plans would publish it, and how fast the service follows."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

import typer

from service.commands import console
from service.commands.console import Json
from service.settings import Settings

ITEMS = (
    "pw_base_workstations",
    "pw_base_servers",
    "pw_base_vms",
    "pw_base_storage",
    "pw_pack_adv_management",
    "pw_pack_adv_security",
)
PLANS = (
    ("backup", ("backup.files", "backup.image")),
    ("patching", ("backup.files", "management.patch_management")),
    ("protection", ("backup.files", "security.url_filtering", "security.antimalware_realtime")),
)
TYPES = ("workstation", "workstation", "workstation", "server", "vm")
CUSTOMERS_PER_PARTNER = 50
TRICKLE_SHARE = {"usage": 0.8, "plan": 0.15, "remove": 0.05}  # of what goes on after the fleet is there

Tenants = Annotated[int, typer.Option(min=1, max=1_000_000, help="How many customers.")]
PerTenant = Annotated[int, typer.Option(min=1, max=100_000, help="Workloads of each customer.")]
Rate = Annotated[float, typer.Option(min=0, help="Events per second; 0: as fast as Kafka takes them.")]
Seconds = Annotated[float, typer.Option(min=0, help="How long the fleet goes on reporting, once it is there.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same events.")]


class Event(NamedTuple):
    """One event on its way to a topic."""

    topic: str
    type: str
    tenant: str
    data: dict[str, Any]


def register(application: typer.Typer) -> None:
    """Add the command."""
    application.command()(simulate)


def simulate(
    tenants: Tenants = 100,
    workloads_per_tenant: PerTenant = 20,
    rate: Rate = 0,
    seconds: Seconds = 0,
    seed: Seed = 1,
    json: Json = False,
) -> None:
    """Publish a fleet (partners, customers, workloads, plans, usage) and measure how fast it is decided."""
    figures = console.run(_simulate(console.settings(), _Fleet(tenants, workloads_per_tenant, seed), rate, seconds))
    if json:
        console.print_json(figures)
        return
    for name, value in figures.items():
        typer.echo(f"{name.replace('_', ' ')}: {value}")


class _Fleet:
    """The events of a fleet, always the same for a seed."""

    def __init__(self, tenants: int, workloads_per_tenant: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.customers = [f"sim{seed}-customer-{number}" for number in range(tenants)]
        self.workloads_per_tenant = workloads_per_tenant

    def tenants(self) -> Iterator[Event]:
        """Partners with unlimited items, customers with soft, hard and no quotas, some of them prepaid."""
        for first in range(0, len(self.customers), CUSTOMERS_PER_PARTNER):
            partner = f"sim{self.seed}-partner-{first // CUSTOMERS_PER_PARTNER}"
            yield from self._tenant(partner, "root", "partner", None, "pay_as_you_go")
            for customer in self.customers[first : first + CUSTOMERS_PER_PARTNER]:
                kind = self.random.choice(("none", "soft", "hard", "prepaid"))
                value = self.random.randint(1, 2 * self.workloads_per_tenant)
                quota = {"value": value, "overage": 0 if kind == "hard" else None} if kind != "none" else None
                model = "prepaid" if kind == "prepaid" else "pay_as_you_go"
                yield from self._tenant(customer, partner, "customer", quota, model)

    @staticmethod
    def _tenant(tenant: str, parent: str, kind: str, quota: dict[str, Any] | None, model: str) -> Iterator[Event]:
        content = {"parent_id": parent, "kind": kind, "name": tenant, "payment_model": model}
        yield Event("tenant-changes", "tenant.upserted", tenant, content)
        items = [{"name": item, "status": 1, "quota": quota} for item in ITEMS if item != "pw_base_storage"]
        items.append({"name": "pw_base_storage", "status": 1, "quota": None})
        yield Event("tenant-changes", "offering_items.set", tenant, {"items": items})

    def workloads(self) -> Iterator[Event]:
        """Plans, registrations, and which plan goes to which workload, customer by customer in turn."""
        for customer in self.customers:
            for plan, features in PLANS:
                content = {"plan_id": plan, "features": list(features)}
                yield Event("plan-changes", "plan.saved", customer, content)
        for number in range(self.workloads_per_tenant):
            for customer in self.customers:
                content = {"workload_id": f"w-{number}", "type": self.random.choice(TYPES)}
                yield Event("workload-events", "workload.registered", customer, content)
                plan = self.random.choice(PLANS)[0]
                applied = {"plan_id": plan, "workload_ids": [f"w-{number}"]}
                yield Event("plan-changes", "plan.applied", customer, applied)

    def trickle(self) -> Iterator[Event]:
        """What goes on afterwards, for ever: usage reports, plans on other workloads, workloads that go."""
        while True:
            customer = self.random.choice(self.customers)
            workload = f"w-{self.random.randrange(self.workloads_per_tenant)}"
            kind = self.random.choices(tuple(TRICKLE_SHARE), tuple(TRICKLE_SHARE.values()))[0]
            if kind == "usage":
                usage = {"workload_id": workload, "usage": {"storage_bytes": self.random.randrange(10**12)}}
                yield Event("workload-events", "workload.usage_reported", customer, usage)
            elif kind == "plan":
                plan = self.random.choice(PLANS)[0]
                yield Event("plan-changes", "plan.applied", customer, {"plan_id": plan, "workload_ids": [workload]})
            else:
                yield Event("workload-events", "workload.removed", customer, {"workload_id": workload})


async def _simulate(settings: Settings, fleet: _Fleet, rate: float, seconds: float) -> dict[str, Any]:
    from service import core
    from service.transport import status

    async with (
        core.open_core(settings) as opened,
        status.observatory(settings, opened.ledger, opened.board) as observatory,
    ):
        prepared = await _publish(settings, fleet.tenants(), 0, None)
        await observatory.wait_idle(3600)
        began = time.monotonic()
        published = await _publish(settings, fleet.workloads(), rate, None)
        if seconds:
            published += await _publish(settings, fleet.trickle(), rate, seconds)
        sent = time.monotonic() - began
        await observatory.wait_idle(3600)
        took = time.monotonic() - began
    return {
        "tenant_events": prepared,
        "events": published,
        "published_per_second": round(published / sent),
        "decided_and_announced_per_second": round(published / took),
        "seconds": round(took, 2),
    }


async def _publish(settings: Settings, events: Iterator[Event], rate: float, seconds: float | None) -> int:
    """Publish events at a rate; answers how many."""
    from aiokafka import AIOKafkaProducer

    from service.transport import connection

    began = time.monotonic()
    run = time.time_ns()
    count = 0
    options = connection.client_options(settings)
    async with AIOKafkaProducer(**options, enable_idempotence=True, linger_ms=10, max_batch_size=262_144) as producer:
        for event in events:
            elapsed = time.monotonic() - began
            if seconds is not None and elapsed >= seconds:
                break
            if rate and count / rate > elapsed:
                await asyncio.sleep(count / rate - elapsed)
            count += 1
            value = json.dumps(_envelope(event, f"{run}-{count}")).encode()
            topic = settings.topic_prefix + event.topic
            headers = [("content-type", b"application/cloudevents+json")]
            await producer.send(topic, value, key=event.tenant.encode(), headers=headers)
    return count


def _envelope(event: Event, event_id: str) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": "/simulate",
        "type": f"apportion.{event.type}.v1",
        "time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "tenantid": event.tenant,
        "data": event.data,
    }
