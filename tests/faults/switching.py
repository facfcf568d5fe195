"""A history of switches: customers with few workloads and with many, there and back, round after round.

As in a ``settled`` one, each stage is of one topic and begins when the one before it is at rest, and within a stage
there is one wish for each customer: so it has one outcome, announcement by announcement. Some wishes are refused: by a
hard quota above, from edition to edition, under an id that stands for something else. Some are asked for twice.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from service import catalog

Event = Callable[[str, str, str, dict[str, Any]], Any]  # topic, type, tenant, data -> message

ROUNDS = 8
CALM_STAGES = 4  # tenants, plans, workloads, and which of them has which plan
WORKLOADS_FEW, WORKLOADS_MANY = 4, 60
AT_ONCE = 10  # so many workloads are switched in one step, in these runs
FIRST, SECOND = "pck_per_workload", "pck_per_gigabyte"
EDITIONS = (FIRST, SECOND, "per_workload", "cyber_protect_adv")
TIGHT = 3  # units of a base item that some customers may use, who have more workloads
PLANS = {
    "plain": ["backup.files"],
    "strict": ["backup.files", "management.patch_management", "security.url_filtering"],
    "wide": ["backup.image", "backup.continuous_data_protection", "security.edr"],
}
TYPES = ("workstation", "workstation", "server", "vm")
SWITCHES = "switch-tasks"


class Tenants:
    """Who there is: a size of 1000 makes about 30 customers, every fifth of whom has many workloads."""

    def __init__(self, size: int) -> None:
        count = max(5, size // 33)
        self.customers = tuple(f"shop{number}" for number in range(count))
        self.partners = ("east", "east-msp", *(f"east-{name}" for name in self.tight()))

    def tight(self) -> tuple[str, ...]:
        """Those below a partner of their own, which has a quota."""
        return self.customers[2::7]

    def parent(self, tenant: str) -> str:
        """Below whom a tenant stands."""
        if tenant == "east":
            return "root"
        if tenant in self.partners:
            return "east"
        return f"east-{tenant}" if tenant in self.tight() else "east-msp"

    def workloads(self, tenant: str) -> int:
        """How many it has."""
        return WORKLOADS_MANY if self.customers.index(tenant) % 5 == 0 else WORKLOADS_FEW

    def all(self) -> tuple[str, ...]:
        """Parents before their children."""
        return (*self.partners, *self.customers)


def stages(chance: random.Random, size: int, event: Event) -> Iterator[list[Any]]:
    """The whole history."""
    who = Tenants(size)
    yield list(_tree(chance, who, event))
    yield [event("plan-changes", "plan.saved", each, _plan(name)) for each in who.customers for name in PLANS]
    yield [
        event("workload-events", "workload.registered", each, {"workload_id": f"w{n}", "type": chance.choice(TYPES)})
        for each in who.customers
        for n in range(who.workloads(each))
    ]
    yield list(_applied(chance, who, event, who.customers))
    for number in range(ROUNDS):
        yield [message for each in who.customers for message in _wish(chance, each, number, event)]
        yield list(_applied(chance, who, event, chance.sample(who.customers, len(who.customers) // 3)))


def _tree(chance: random.Random, who: Tenants, event: Event) -> Iterator[Any]:
    for tenant in who.all():
        kind = "customer" if tenant in who.customers else "partner"
        about = {"parent_id": who.parent(tenant), "kind": kind, "name": tenant}
        yield event("tenant-changes", "tenant.upserted", tenant, about)
        editions = EDITIONS if kind == "partner" else (chance.choice(EDITIONS),)
        items = [{"name": name, "status": 1} for edition in editions for name in _items(edition)]
        yield event("tenant-changes", "offering_items.set", tenant, {"items": items})
    for tenant in who.tight():
        quota = {"value": TIGHT, "overage": 0}
        items = [{"name": "pg_base_workstations", "status": 1, "quota": quota}]
        yield event("tenant-changes", "offering_items.set", f"east-{tenant}", {"items": items})


def _items(edition: str) -> list[str]:
    entries = catalog.load().items_of_edition(edition)
    return [item.name for item in entries if item.type != "feature" and "_dr_" not in item.name]


def _plan(name: str) -> dict[str, Any]:
    return {"plan_id": name, "features": PLANS[name]}


def _applied(chance: random.Random, who: Tenants, event: Event, tenants: Sequence[str]) -> Iterator[Any]:
    for tenant in tenants:
        names = [f"w{number}" for number in range(who.workloads(tenant))]
        for plan in PLANS:
            some = sorted(chance.sample(names, len(names) // 2))
            yield event("plan-changes", "plan.applied", tenant, {"plan_id": plan, "workload_ids": some})


def _wish(chance: random.Random, tenant: str, number: int, event: Event) -> Iterator[Any]:
    """What is asked for a customer in one round."""
    switch_id = f"{tenant}-{number}"
    way = chance.choices(("switch", "undo", "preview", "other"), (7, 3, 1, 1))[0]
    if way == "undo" and number:
        yield event(SWITCHES, "switch.undo_requested", tenant, {"switch_id": f"{tenant}-{number - 1}"})
        return
    data = {"switch_id": switch_id, "target_edition": chance.choice(EDITIONS)}
    if way == "preview":
        data = {**data, "dry_run": True}
    if way == "other" and number:
        data = {**data, "switch_id": f"{tenant}-{number - 1}"}
    yield event(SWITCHES, "switch.requested", tenant, data)
