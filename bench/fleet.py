"""A fleet that events can come from: partners, MSPs, customers with plans, workloads; the same for the same seed.

Like a real one in what the service's cost depends on: identifiers of 36 characters, three levels, quotas of every kind
on some of the tenants, several types of workloads, two plans each, and events of many tenants mixed in any batch.
Unlike a real one in that no quota is ever reached: refusals are no measure of speed.
"""

from __future__ import annotations

import itertools
import json
import random
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from schemas import table

TOPIC_PREFIX = "apportion."
HEADERS = (("content-type", b"application/cloudevents+json"),)
_ITEMS = (
    "pw_base_workstations",
    "pw_base_servers",
    "pw_base_vms",
    "pw_base_storage",
    "local_storage",
    "pw_pack_adv_management",
    "pw_pack_adv_security",
)  # fmt: skip - one name a line would hide which belong together
_TYPES = (*["workstation"] * 7, *["server"] * 2, "vm")
_BACKUP = ["backup.files", "backup.image"]
_ADVANCED = ["management.patch_management", "security.url_filtering", "security.device_control"]
_PLENTY = 10**15  # a quota that nobody reaches, in units or bytes
_GIB = 2**30
_BEHIND = 500  # workloads between the first and the second half of a life; the same for every size of a fleet


SOURCE, TARGET = "cyber_protect_adv", "pck_per_workload"
_SWITCHED_FROM = ("p_adv_workstations", "p_adv_servers", "p_adv_vms", "p_adv_storage", "local_storage")
_SWITCHED_TO = (
    "pw_pack_adv_backup_workstations",
    "pw_pack_adv_backup_servers",
    "pw_pack_adv_backup_vms",
    *_ITEMS,
)


class Event(NamedTuple):
    """A message as a producer sends it; ``topic`` with prefix, ``key`` the tenant, ``id`` the one in the value."""

    topic: str
    key: bytes
    value: bytes
    id: str


class Workload(NamedTuple):
    """A workload of the fleet."""

    tenant: str
    id: str
    type: str


class Fleet:
    """``customers`` tenants with ``workloads`` each, below ``msps`` MSPs, below ``partners`` direct partners."""

    bytes_max = 500 * _GIB  # in the cloud, of one workload

    def __init__(
        self,
        *,
        customers: int,
        workloads: int,
        partners: int = 8,
        msps: int | None = None,
        seed: int = 1,
        prefix: str = TOPIC_PREFIX,
    ) -> None:
        self._random = random.Random(seed)
        self.prefix = prefix
        self._now_us = time.time_ns() // 1000 - 10**9
        self._number = 0
        self.partners = [self._identifier() for _ in range(partners)]
        self.msps = [self._identifier() for _ in range(msps or max(partners, customers // 50))]
        self.customers = [self._identifier() for _ in range(customers)]
        self.workloads = [
            Workload(tenant, self._identifier(), self._random.choice(_TYPES))
            for _ in range(workloads)
            for tenant in self.customers  # one after the other, so that any batch has many tenants in it
        ]

    # --- what has to be there before workloads come

    def tenants(self) -> Iterator[Event]:
        """Every tenant with its items and quotas, parents first."""
        for number, tenant in enumerate(self.partners):
            yield from self._tenant(tenant, "root", "partner", number, {"value": None})
        for number, tenant in enumerate(self.msps):
            parent = self.partners[number % len(self.partners)]
            yield from self._tenant(tenant, parent, "partner", number, self._quota(number))
        for number, tenant in enumerate(self.customers):
            parent = self.msps[number % len(self.msps)]
            yield from self._tenant(tenant, parent, "customer", number, self._quota(number // len(self.msps)))

    def plans(self) -> Iterator[Event]:
        """Two plans of every customer."""
        for tenant in self.customers:
            for plan, features in (("backup", _BACKUP), ("advanced", _ADVANCED)):
                yield self._event("plan.saved", tenant, {"plan_id": _plan(tenant, plan), "features": features})

    def _tenant(self, tenant: str, parent: str, kind: str, number: int, quota: dict[str, Any]) -> Iterator[Event]:
        content: dict[str, Any] = {"parent_id": parent, "kind": kind, "name": f"{kind} {number}"}
        if kind == "customer":
            content["pricing_mode"] = "production"
        yield self._event("tenant.upserted", tenant, content)
        items = [{"name": name, "status": 1, "quota": quota} for name in self.items_of(kind)]
        yield self._event("offering_items.set", tenant, {"items": items})

    @staticmethod
    def items_of(kind: str) -> tuple[str, ...]:
        """The items that tenants of a kind have."""
        del kind
        return _ITEMS

    @staticmethod
    def _quota(number: int) -> dict[str, Any]:
        """None, soft, or hard."""
        return ({"value": None}, {"value": _PLENTY}, {"value": _PLENTY, "overage": 0})[number % 3]

    def switched(self, tenants: Sequence[str], target: str) -> Iterator[Event]:
        """Each of the customers is to be switched."""
        for tenant in tenants:
            data = {"switch_id": f"{target}-{tenant}", "target_edition": target}
            yield self._event("switch.requested", tenant, data)

    # --- what workloads do

    def registered(self) -> Iterator[Event]:
        """Every workload, once; again, it says the same in a newer event."""
        for workload in self.workloads:
            yield self._registered(workload)

    def applied(self, plan: str) -> Iterator[Event]:
        """One of the plans, applied to every workload, each in an event of its own."""
        for workload in self.workloads:
            yield self._applied(workload, plan)

    def usage(self) -> Iterator[Event]:
        """New bytes of every workload."""
        for workload in self.workloads:
            yield self._usage(workload)

    def life(self) -> Iterator[Event]:
        """The life of every workload in four events: registered, protected, protected better, usage; mixed."""
        for number, workload in enumerate(self.workloads):
            yield self._registered(workload)
            yield self._applied(workload, "backup")
            if number >= _BEHIND:
                earlier = self.workloads[number - _BEHIND]
                yield self._applied(earlier, "advanced")
                yield self._usage(earlier)

    def day(self) -> Iterator[Event]:
        """For ever: what workloads of a fleet at work say; two reports of usage, a change of plans, a registration."""
        at = 0
        while True:
            some = [self.workloads[(at + step) % len(self.workloads)] for step in range(3)]
            yield self._usage(some[0])
            yield self._applied(some[1], "advanced" if at // len(self.workloads) % 2 else "backup")
            yield self._usage(some[2])
            yield self._registered(some[0])
            at += 3

    def unrest(self, workloads: Sequence[Workload] = ()) -> Iterator[Event]:
        """For ever, after ``life``: a report of usage and a change of plans, by which a workload loses or gains a unit.

        Every second event leads to an announcement of its own.
        """
        protected = workloads or self.workloads[:-_BEHIND] or self.workloads
        for change in itertools.cycle(("plan.revoked", "plan.applied")):
            for number, workload in enumerate(protected):
                yield self._usage(protected[number - len(protected) // 2])
                yield self._planned(change, workload, "advanced")

    def _registered(self, workload: Workload) -> Event:
        data = {
            "workload_id": workload.id,
            "type": workload.type,
            "name": f"host-{workload.id[:8]}",
            "os": "server" if workload.type == "server" else "desktop",
            "os_family": "windows",
            "virtual": workload.type == "vm",
        }
        return self._event("workload.registered", workload.tenant, data, workload.id)

    def _applied(self, workload: Workload, plan: str) -> Event:
        return self._planned("plan.applied", workload, plan)

    def _planned(self, change: str, workload: Workload, plan: str) -> Event:
        data = {"plan_id": _plan(workload.tenant, plan), "workload_ids": [workload.id]}
        return self._event(change, workload.tenant, data, workload.id)

    def _usage(self, workload: Workload) -> Event:
        storage, local = self._random.randrange(self.bytes_max), self._random.randrange(self.bytes_max // 5)
        data = {"workload_id": workload.id, "usage": {"storage_bytes": storage, "local_storage_bytes": local}}
        return self._event("workload.usage_reported", workload.tenant, data, workload.id)

    def _event(self, name: str, tenant: str, data: dict[str, Any], subject: str | None = None) -> Event:
        type_ = f"apportion.{name}.v1"
        self._number += 1
        self._now_us += 1
        seconds, micros = divmod(self._now_us, 1_000_000)
        event_id = f"{self._number:012x}-{name}"
        envelope = {
            "specversion": "1.0",
            "id": event_id,
            "source": "/bench",
            "type": type_,
            "subject": subject or tenant,
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{micros:06d}Z",
            "tenantid": tenant,
            "data": data,
        }
        topic = self.prefix + table.INBOUND[type_].topic
        return Event(topic, tenant.encode(), json.dumps(envelope, separators=(",", ":")).encode(), event_id)

    def _identifier(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))


class EditionFleet(Fleet):
    """The same with its customers on an edition, and what it takes to switch them to a billing mode.

    The bytes of a hundred thousand workloads of one customer have to be a quantity still.
    """

    bytes_max = 20 * _GIB

    @staticmethod
    def items_of(kind: str) -> tuple[str, ...]:
        return _SWITCHED_FROM if kind == "customer" else tuple(dict.fromkeys((*_SWITCHED_FROM, *_SWITCHED_TO)))


def _plan(tenant: str, plan: str) -> str:
    """Plans have identifiers of 36 characters too, and no two customers share one."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{plan}/{tenant}"))
