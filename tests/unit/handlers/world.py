"""A small world for tests of handlers: the engine on the reference ledger, a clock, and events in one line."""

from __future__ import annotations

import itertools
import json
from typing import Any

from schemas import envelope, table
from service import catalog, records
from service.handlers import announcements
from service.handlers.announcements import Origin
from service.handlers.engine import Engine, Options
from service.handlers.work import Arrival, Result
from service.ledger.outbox import Entry
from service.ledger.reference import ReferenceLedger
from service.ledger.transaction import Account, RecordKey, Waiting

CATALOG = catalog.load()
WORKSTATIONS = "pw_base_workstations"
MANAGEMENT = "pw_pack_adv_management"
SECURITY = "pw_pack_adv_security"
STORAGE = "pw_base_storage"


class World:
    """One service in one process, without servers; ``now_ms`` moves only when a test moves it."""

    def __init__(
        self,
        *,
        shards: int = 4,
        wait_seconds: float = 60.0,
        ledger: ReferenceLedger | None = None,
        catalog: Any = None,
        at_once: int = 200,
    ) -> None:
        self.ledger = ledger or ReferenceLedger(shards=shards)
        self.catalog = catalog or CATALOG
        self.now_ms = 1_800_000_000_000
        self._options = Options(unknown_tenant_wait_seconds=wait_seconds, switch_workloads_at_once_max=at_once)
        self.engine = self.start()
        self._offsets = itertools.count()
        self._ids = itertools.count()
        self._passed_on: set[tuple[int, int]] = set()  # what of the outbox is on inbound topics already

    def start(self) -> Engine:
        """Another process on the same ledger: it remembers nothing. ``engine`` is the one that events go to."""
        self.engine = Engine(self.ledger, self.catalog, self._options, clock=lambda: self.now_ms)
        return self.engine

    def event(self, name: str, tenant: str, data: dict[str, Any], **attributes: Any) -> Arrival:
        """An event as it would come from Kafka; ``name`` without prefix and version."""
        type_ = f"apportion.{name}.v1"
        number = next(self._ids)
        time_us = attributes.pop("time_us", self.now_ms * 1000 + number)
        offset = attributes.pop("offset", None)
        partition = attributes.pop("partition", 0)
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
        offset = next(self._offsets) if offset is None else offset
        return Arrival(event, Origin(topic, partition, offset, tenant.encode(), headers, value))

    def request(self, name: str, tenant: str, data: dict[str, Any], **attributes: Any) -> Arrival:
        """The same event as it would come from a person or over HTTP: it has no place in a stream."""
        return Arrival(self.event(name, tenant, data, **attributes).event)

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

    async def pass_on(self) -> int:
        """Deliver what the service itself has put on inbound topics, as Kafka would; answers how many events."""
        arrivals = self.tasks(await self.ledger.outbox(range(self.ledger.shards), 1_000_000))
        await self.handle(*arrivals)
        return len(arrivals)

    def tasks(self, entries: dict[int, list[Entry]]) -> list[Arrival]:
        """What of the outbox is for inbound topics and has not been delivered before."""
        arrivals = []
        for shard, some in entries.items():
            for entry in some:
                message = announcements.render(entry, self.catalog)
                if message.type in table.INBOUND and (shard, entry.revision) not in self._passed_on:
                    self._passed_on.add((shard, entry.revision))
                    arrivals.append(self._delivered(message))
        return arrivals

    def _delivered(self, message: announcements.Message) -> Arrival:
        assert message.key is not None
        key, topic = message.key.encode(), message.topic
        headers = (("content-type", b"application/cloudevents+json"),)
        event = envelope.parse(message.value, headers, key, topic=topic, now_us=self.now_ms * 1000 + 10**9)
        return Arrival(event, Origin(f"apportion.{topic}", 0, next(self._offsets), key, headers, message.value))

    async def announced(self, name: str | None = None, tenant: str | None = None) -> list[dict[str, Any]]:
        """What has been announced so far, in order: events with their data."""
        entries = await self.ledger.outbox(range(self.ledger.shards), 1_000_000)
        messages = [announcements.render(entry, self.catalog) for shard in sorted(entries) for entry in entries[shard]]
        events = [_checked(message) for message in messages if message.type in table.OUTBOUND]
        _check_revisions(events)
        return [
            event
            for event in events
            if (name is None or event["type"] == f"apportion.{name}.v1")
            and (tenant is None or event.get("tenantid") == tenant)
        ]

    async def said(self, name: str, tenant: str | None = None) -> list[dict[str, Any]]:
        """The data of what has been announced so far."""
        return [event["data"] for event in await self.announced(name, tenant)]

    async def dead_letters(self) -> list[tuple[str, dict[str, Any]]]:
        """Codes and contexts of the messages that were rejected so far."""
        return [(data["code"], data.get("context", {})) for data in await self.said("message.rejected")]

    async def read(self, key: RecordKey) -> Any:
        """A record, None where there is none."""
        shard = (await self.ledger.locate([key.tenant]))[key.tenant]
        stored = (await self.ledger.read({shard: [key]}))[key]
        return None if stored is None else records.decode(key, stored.payload)

    async def waiting(self, tenant: str) -> dict[str, Waiting]:
        """Who of a tenant waits, and why."""
        return await self.ledger.waiting((await self.ledger.locate([tenant]))[tenant], tenant)

    async def account(self, tenant: str, item: str = WORKSTATIONS) -> Account:
        """The numbers of an item on a tenant."""
        shard = (await self.ledger.locate([tenant]))[tenant]
        return (await self.ledger.accounts({shard: [tenant]})).get(tenant, {}).get(item, Account())

    async def set_items(self, tenant: str, *items: str, status: int = 1, **change: Any) -> Result:
        """Set items of a tenant, all in the same way; what is said of the whole change begins with ``_``."""
        whole = {name[1:]: change.pop(name) for name in list(change) if name.startswith("_")}
        listed = [{"name": item, "status": status, **change} for item in items]
        return await self.send("offering_items.set", tenant, {"items": listed, **whole})

    async def upsert(self, tenant: str, parent: str, kind: str, **more: Any) -> Result:
        """A tenant whose name is its id."""
        return await self.send("tenant.upserted", tenant, {"parent_id": parent, "kind": kind, "name": tenant, **more})

    async def used(self, tenant: str, item: str = WORKSTATIONS) -> int:
        """What is used of an item on a tenant."""
        return (await self.account(tenant, item)).used

    async def holding(self, tenant: str) -> dict[str, dict[str, int]]:
        """What each workload of a tenant holds, from the announcements alone."""
        held = {}
        for event in await self.announced("assignment.changed", tenant):
            held[event["data"]["workload_id"]] = event["data"]["holding"]
        return held

    async def tree(self, *, quota: Any = None, items: tuple[str, ...] = (WORKSTATIONS,), **customer: Any) -> None:
        """A distributor, an MSP and a customer, each with the items; the customer's with the quota."""
        for tenant, parent, kind in (
            ("dist", "root", "partner"),
            ("msp", "dist", "partner"),
            ("cust", "msp", "customer"),
        ):
            more = customer if tenant == "cust" else {}
            await self.send("tenant.upserted", tenant, {"parent_id": parent, "kind": kind, "name": tenant, **more})
            change = {"quota": quota} if tenant == "cust" else {}
            listed = [{"name": item, "status": 1, **change} for item in items]
            await self.send("offering_items.set", tenant, {"items": listed})

    async def protect(
        self, *workloads: str, features: tuple[str, ...] = ("backup.files",), tenant: str = "cust"
    ) -> None:
        """Register workstations and apply a plan with these features to them."""
        plan = f"plan-{'-'.join(features)}"
        await self.send("plan.saved", tenant, {"plan_id": plan, "features": list(features)})
        for workload in workloads:
            await self.send("workload.registered", tenant, {"workload_id": workload, "type": "workstation"})
            await self.send("plan.applied", tenant, {"plan_id": plan, "workload_ids": [workload]})


def _rfc3339(time_us: int) -> str:
    seconds, micros = divmod(time_us, 1_000_000)
    return f"{announcements.rfc3339(seconds * 1000)[:19]}.{micros:06d}Z"


def _checked(message: announcements.Message) -> dict[str, Any]:
    """An announcement, read as others read it: it is what the contract says, and nothing more."""
    event: dict[str, Any] = json.loads(message.value)
    described = table.OUTBOUND[event["type"]]
    described.model.model_validate(event["data"])
    unknown = event["data"].keys() - described.model.model_fields.keys()
    assert not unknown, f"{event['type']} says {unknown}"
    assert event["specversion"] == "1.0"
    assert event["source"] == "/apportion"
    assert event["subject"]
    assert message.topic == described.topic
    assert message.key == event.get("tenantid")
    return event


def _check_revisions(events: list[dict[str, Any]]) -> None:
    """The revision of a tenant's announcements rises; a dead letter has none."""
    last: dict[str, int] = {}
    for event in events:
        if event["type"] == announcements.MESSAGE_REJECTED:
            assert "revision" not in event
            continue
        assert event["revision"] > last.get(event["tenantid"], -1), event
        last[event["tenantid"]] = event["revision"]
