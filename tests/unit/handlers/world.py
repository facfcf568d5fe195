"""A small world for tests of handlers: the engine on the reference ledger, a clock, and events in one line."""

from __future__ import annotations

import itertools
import json
from typing import Any

from schemas import envelope, table
from service import catalog
from service.handlers import announcements
from service.handlers.announcements import Origin
from service.handlers.engine import Engine, Options
from service.handlers.work import Arrival, Result
from service.ledger.reference import ReferenceLedger

CATALOG = catalog.load()
WORKSTATIONS = "pw_base_workstations"
MANAGEMENT = "pw_pack_adv_management"
SECURITY = "pw_pack_adv_security"
STORAGE = "pw_base_storage"


class World:
    """One service in one process, without servers; ``now_ms`` moves only when a test moves it."""

    def __init__(self, *, shards: int = 4, wait_seconds: float = 60.0, batch: int | None = None) -> None:
        self.ledger = ReferenceLedger(shards=shards)
        self.now_ms = 1_800_000_000_000
        self.engine = Engine(
            self.ledger, CATALOG, Options(unknown_tenant_wait_seconds=wait_seconds), clock=lambda: self.now_ms
        )
        self.batch = batch
        self._offsets = itertools.count()
        self._ids = itertools.count()
        self.pending: list[Arrival] = []

    def event(self, name: str, tenant: str, data: dict[str, Any], **attributes: Any) -> Arrival:
        """An event as it would come from Kafka; ``name`` without prefix and version."""
        type_ = f"apportion.{name}.v1"
        number = next(self._ids)
        time_us = attributes.pop("time_us", self.now_ms * 1000 + number)
        envelope_ = {
            "specversion": "1.0",
            "id": attributes.pop("id", f"event-{number}"),
            "source": "/test",
            "type": type_,
            "tenantid": tenant,
            "time": _rfc3339(time_us),
            "data": data,
            **attributes,
        }
        value = json.dumps(envelope_).encode()
        headers = (("content-type", b"application/cloudevents+json"),)
        event = envelope.parse(value, headers, tenant.encode(), now_us=self.now_ms * 1000 + 10**9)
        topic = f"apportion.{table.INBOUND[type_].topic}"
        return Arrival(event, Origin(topic, 0, next(self._offsets), tenant.encode(), headers, value))

    async def send(self, name: str, tenant: str, data: dict[str, Any], **attributes: Any) -> Result:
        """Handle one event, and everything that is due afterwards."""
        (result,) = await self.handle(self.event(name, tenant, data, **attributes))
        return result

    async def handle(self, *arrivals: Arrival) -> list[Result]:
        """Handle a batch, and everything that is due afterwards."""
        results = await self.engine.handle(arrivals)
        await self.settle()
        return results

    async def settle(self) -> None:
        """Carry out what is due until nothing is."""
        for _ in range(1000):
            if not await self.engine.run_due(range(self.ledger.shards)):
                return
        raise AssertionError("jobs go on for ever")

    async def announced(self, name: str | None = None, tenant: str | None = None) -> list[dict[str, Any]]:
        """What has been announced so far, in order: events with their data."""
        entries = await self.ledger.outbox(range(self.ledger.shards), 1_000_000)
        events = [
            json.loads(announcements.render(entry, CATALOG).value)
            for shard in sorted(entries)
            for entry in entries[shard]
        ]
        return [
            event
            for event in events
            if (name is None or event["type"] == f"apportion.{name}.v1")
            and (tenant is None or event.get("tenantid") == tenant)
        ]

    async def used(self, tenant: str, item: str = WORKSTATIONS) -> int:
        """What is used of an item on a tenant."""
        shard = (await self.ledger.locate([tenant]))[tenant]
        account = (await self.ledger.accounts({shard: [tenant]})).get(tenant, {}).get(item)
        return account.used if account else 0

    async def holding(self, tenant: str) -> dict[str, dict[str, int]]:
        """What each workload of a tenant holds, from the announcements alone."""
        held = {}
        for event in await self.announced("assignment.changed", tenant):
            held[event["data"]["workload_id"]] = event["data"]["holding"]
        return held

    async def tree(self, *, quota: Any = None, items: tuple[str, ...] = (WORKSTATIONS,), **customer: Any) -> None:
        """A distributor, an MSP and a customer, each with the items; the customer's with the quota."""
        for tenant, parent, kind in (("dist", "root", "partner"), ("msp", "dist", "partner"), ("cust", "msp", "customer")):
            more = customer if tenant == "cust" else {}
            await self.send("tenant.upserted", tenant, {"parent_id": parent, "kind": kind, "name": tenant, **more})
            change = {"quota": quota} if tenant == "cust" else {}
            listed = [{"name": item, "status": 1, **change} for item in items]
            await self.send("offering_items.set", tenant, {"items": listed})

    async def protect(self, *workloads: str, features: tuple[str, ...] = ("backup.files",), tenant: str = "cust") -> None:
        """Register workstations and apply a plan with these features to them."""
        plan = f"plan-{'-'.join(features)}"
        await self.send("plan.saved", tenant, {"plan_id": plan, "features": list(features)})
        for workload in workloads:
            await self.send("workload.registered", tenant, {"workload_id": workload, "type": "workstation"})
            await self.send("plan.applied", tenant, {"plan_id": plan, "workload_ids": [workload]})


def _rfc3339(time_us: int) -> str:
    seconds, micros = divmod(time_us, 1_000_000)
    return f"{announcements.rfc3339(seconds * 1000)[:19]}.{micros:06d}Z"
