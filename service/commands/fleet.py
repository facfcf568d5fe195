"""A fleet for `simulate`: partners, service providers, customers, and what their agents and plans say. Pure.

The same seed gives the same tenants, workloads, plans and events, but for times and event ids. Quotas are of every
kind: unlimited, soft, hard and just enough, hard and too small, prepaid; so that some workloads are refused, wait, and
get their turn when others go.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

MSPS_PER_PARTNER = 5
CUSTOMERS_PER_MSP = 20
GIB = 1024**3

_EDITIONS = ("pck_per_workload", "pck_per_workload", "pck_per_workload", "pck_per_gigabyte", "cyber_protect_adv")
_ITEMS = {
    "pck_per_workload": (
        "pw_base_workstations",
        "pw_base_servers",
        "pw_base_vms",
        "pw_base_m365_seats",
        "pw_base_storage",
        "pw_pack_adv_management",
        "pw_pack_adv_security",
        "pw_pack_adv_backup_workstations",
        "pw_pack_adv_backup_servers",
        "pw_pack_adv_email_security",
    ),
    "pck_per_gigabyte": (
        "pg_base_workstations",
        "pg_base_servers",
        "pg_base_vms",
        "pg_base_m365_seats",
        "pg_base_storage",
        "pg_pack_adv_management",
        "pg_pack_adv_security",
        "pg_pack_adv_email_security",
    ),
    "cyber_protect_adv": (
        "p_adv_workstations",
        "p_adv_servers",
        "p_adv_vms",
        "p_adv_o365_seats",
        "p_adv_storage",
    ),
}  # fmt: skip - one line for each kind reads better
_SHARED = ("local_storage", "tenant_audit_log")
_FIRST = {edition: items[0] for edition, items in _ITEMS.items()}  # the item for workstations, the most wanted one
_TYPES = (*["workstation"] * 6, "server", "server", "vm", "m365_seat")
_PLANS = (
    ("backup", ("backup.files", "backup.image", "backup.m365")),
    ("protection", ("backup.files", "security.url_filtering", "security.active_protection")),
    ("management", ("backup.files", "management.patch_management", "management.software_inventory")),
    ("complete", ("backup.image", "backup.continuous_data_protection", "security.url_filtering")),
)  # fmt: skip - one line for each kind reads better


class Event(NamedTuple):
    """An event before it has an envelope; ``type`` is between ``apportion.`` and ``.v1``."""

    type: str
    tenant: str
    data: dict[str, Any]


class Customer(NamedTuple):
    """A customer, with the edition or billing mode that it has."""

    id: str
    msp: str
    edition: str


class Fleet:
    """``customers`` tenants with ``workloads`` each, and the tenants above them."""

    def __init__(self, *, customers: int, workloads: int, seed: int) -> None:
        self._random = random.Random(seed)
        self._workloads = workloads
        name = f"sim{seed}"
        msps = -(-customers // CUSTOMERS_PER_MSP)
        self.partners = [f"{name}-partner-{number}" for number in range(-(-msps // MSPS_PER_PARTNER))]
        self.msps = [f"{name}-msp-{number}" for number in range(msps)]
        self.customers = [
            Customer(f"{name}-customer-{number}", self.msps[number % msps], self._random.choice(_EDITIONS))
            for number in range(customers)
        ]
        self._machines = {
            customer.id: [(f"{self._random.choice(_TYPES)}-{number}") for number in range(workloads)]
            for customer in self.customers
        }

    # --- what has to be there first

    def tenants(self) -> Iterator[Event]:
        """Every tenant with its items and quotas, parents first."""
        everything = tuple(dict.fromkeys(item for items in _ITEMS.values() for item in items)) + _SHARED
        for partner in self.partners:
            yield _tenant(partner, "root", "partner")
            yield _items(partner, everything, {})
        for number, msp in enumerate(self.msps):
            parent = self.partners[number % len(self.partners)]
            yield _tenant(msp, parent, "partner", **({} if number % 4 else _PREPAID))
            yield _items(msp, everything, self._quotas(tuple(_FIRST.values()), self._workloads * CUSTOMERS_PER_MSP))
        for customer in self.customers:
            yield _tenant(customer.id, customer.msp, "customer", pricing_mode="production")
            items = _ITEMS[customer.edition]
            yield _items(customer.id, items + _SHARED, self._quotas(items[:2], self._workloads))

    def plans(self) -> Iterator[Event]:
        """The plans of every customer."""
        for customer in self.customers:
            for plan, features in _PLANS:
                yield Event("plan.saved", customer.id, {"plan_id": plan, "name": plan, "features": list(features)})

    def _quotas(self, items: tuple[str, ...], workloads: int) -> dict[str, dict[str, int | None]]:
        """None, soft, hard and enough, hard and too small, in equal parts."""
        kinds: tuple[dict[str, int | None] | None, ...] = (
            None,
            {"value": workloads // 2, "overage": None},
            {"value": workloads, "overage": workloads // 10},
            {"value": workloads * 2 // 5, "overage": 0},
        )
        chosen = {item: self._random.choice(kinds) for item in items}
        return {item: quota for item, quota in chosen.items() if quota is not None}

    # --- what happens

    @property
    def size(self) -> int:
        """How many workloads there are."""
        return self._workloads * len(self.customers)

    def arrivals(self) -> Iterator[Event]:
        """Every workload comes and is protected, customer after customer in turns."""
        for number in range(self._workloads):
            for customer in self.customers:
                yield from self._arrive(customer, self._machines[customer.id][number])

    def daily_life(self) -> Iterator[Event]:
        """What goes on once they are there, without end."""
        while True:
            customer = self._random.choice(self.customers)
            yield from self._live(customer, self._random.choice(self._machines[customer.id]))

    def _arrive(self, customer: Customer, workload: str) -> Iterator[Event]:
        type_ = workload.rpartition("-")[0]
        yield Event("workload.registered", customer.id, {"workload_id": workload, "type": type_})
        yield self._apply(customer, workload)

    def _apply(self, customer: Customer, workload: str) -> Event:
        plan, _ = self._random.choice(_PLANS)
        return Event("plan.applied", customer.id, {"plan_id": plan, "workload_ids": [workload]})

    def _live(self, customer: Customer, workload: str) -> Iterator[Event]:
        """Mostly reports of bytes; now and then a plan is put on or off, a machine is replaced, units are reserved."""
        kind = self._random.random()
        if kind < 0.7:
            usage = {"storage_bytes": self._random.randrange(500) * GIB, "local_storage_bytes": GIB}
            yield Event("workload.usage_reported", customer.id, {"workload_id": workload, "usage": usage})
        elif kind < 0.85:
            yield self._apply(customer, workload)
        elif kind < 0.92:
            plan, _ = self._random.choice(_PLANS)
            yield Event("plan.revoked", customer.id, {"plan_id": plan, "workload_ids": [workload]})
        elif kind < 0.96:
            yield Event("workload.removed", customer.id, {"workload_id": workload})
            yield from self._arrive(customer, workload)
        elif kind < 0.99:
            yield from self._reserve(customer)
        else:
            plan, features = self._random.choice(_PLANS)
            kept = [feature for feature in features if self._random.random() < 0.8] or ["backup.files"]
            yield Event("plan.saved", customer.id, {"plan_id": plan, "name": plan, "features": kept})

    def _reserve(self, customer: Customer) -> Iterator[Event]:
        reservation = f"reservation-{self._random.getrandbits(48):012x}"
        items = {_FIRST[customer.edition]: self._random.randint(1, 3)}
        wanted = {"reservation_id": reservation, "items": items, "ttl_seconds": 600}
        yield Event("reservation.reserve", customer.id, wanted)
        yield Event("reservation.release", customer.id, {"reservation_id": reservation})


_PREPAID = {"payment_model": "prepaid"}


def _tenant(tenant: str, parent: str, kind: str, **more: str) -> Event:
    return Event("tenant.upserted", tenant, {"parent_id": parent, "kind": kind, "name": tenant, **more})


def _items(tenant: str, items: tuple[str, ...], quotas: dict[str, dict[str, int | None]]) -> Event:
    named = [{"name": item, "status": 1, **({"quota": quotas[item]} if item in quotas else {})} for item in items]
    return Event("offering_items.set", tenant, {"items": named})
