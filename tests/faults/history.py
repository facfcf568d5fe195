"""A platform's events, written from a seed: the same seed writes the same history, to the letter.

Four kinds, for four things that have to hold:

* ``free``: no limit binds, and what is said on different topics may be decided in any order. It ends in one state.
* ``settled``: the same in stages of one topic each, with more in it (reservations that are committed, tenants that are
  deleted and come back), as each stage is at rest before the next begins. It has one outcome, announcement by
  announcement.
* ``limited``: limits bind on every level. Who gets a unit depends on who comes first; what has to hold is that nothing
  is granted above a limit, and that everything adds up.
* ``switching``: customers are moved between editions and billing modes (switching.py), with one outcome too.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from tests.faults import switching

Kind = Literal["free", "settled", "limited", "switching"]

TENANT_CHANGES, WORKLOADS, PLANS, RESERVATIONS = (
    "tenant-changes",
    "workload-events",
    "plan-changes",
    "reservation-commands",
)
STARTED = datetime(2026, 1, 1, tzinfo=UTC)  # long ago, and the same in every run
HEADERS = (("content-type", b"application/cloudevents+json"),)

BASES = ("pw_base_workstations", "pw_base_servers", "pw_base_vms", "pw_base_mobiles", "pw_base_m365_seats")
PACKS = (
    "pw_pack_adv_management",
    "pw_pack_adv_security",
    "pw_pack_adv_security_edr",
    "pw_pack_adv_backup_workstations",
    "pw_pack_adv_backup_servers",
    "pw_pack_adv_backup_vms",
)
BYTES = ("pw_base_storage", "local_storage")
MODE_ITEMS = (*BASES, *PACKS, *BYTES)
EDITION_ITEMS = tuple(
    f"pw_{rank}{kind}" for rank in ("", "p_ess_", "p_", "p_adv_") for kind in ("workstations", "servers", "vms")
)
FEATURES = (
    "backup.files",
    "backup.image",
    "backup.m365",
    "backup.continuous_data_protection",
    "management.patch_management",
    "management.hardware_inventory",
    "security.url_filtering",
    "security.active_protection",
    "security.edr",
)
TYPES = ("workstation", "workstation", "server", "vm", "mobile", "m365_seat")
PARENTS = {
    "north": "root",
    "north-msp": "north",
    "north-msp2": "north",
    "south": "root",
    "south-msp": "south",
    "bakery": "north-msp",
    "garage": "north-msp",
    "harbour": "north-msp2",
    "school": "north",
    "clinic": "south-msp",
    "studio": "south-msp",
    "mill": "root",
    "bakery-oven": "bakery",
    "clinic-lab": "clinic",
}
PARTNERS = ("north", "north-msp", "north-msp2", "south", "south-msp")
UNITS = ("bakery-oven", "clinic-lab")
CUSTOMERS = tuple(name for name in PARENTS if name not in (*PARTNERS, *UNITS))
EDITION_CUSTOMERS = ("studio", "school")  # the others are in a billing mode
MOVERS = {"garage": ("north-msp", "north-msp2"), "harbour": ("north-msp2", "north-msp")}
LEAVERS = ("harbour", "mill")  # disabled, deleted, and back again
QUOTED = ("garage", "mill", "school")  # without units, so that one partition holds all that counts there
PLAN_NAMES = ("nightly", "strict", "field")
SETTLED_ROUNDS = 3
FIXED = "pw_base_workstations"  # where limits bind, nobody ever changes the quotas of this one
FIXED_QUOTAS = {"south-msp": 3, "clinic": 5, "mill": 3, "bakery": 4, "north-msp": 6}
WIDE = 150  # workloads in one event: more than are decided at once, so that they become a job


class Message(NamedTuple):
    """One message: where it goes, and its bytes."""

    topic: str
    key: str | None
    value: bytes


class History(NamedTuple):
    """What is published, in stages. Those of a ``settled`` one are of one topic, and follow each other at rest."""

    kind: Kind
    seed: int
    asked: int  # messages
    stages: list[list[Message]]

    @property
    def calm_stages(self) -> int:
        """So many are over before anything is disturbed: customers that are switched have to be there."""
        return switching.CALM_STAGES if self.kind == "switching" else 0

    @property
    def size(self) -> int:
        """How many messages."""
        return sum(map(len, self.stages))


def write(kind: Kind, seed: int, size: int) -> History:
    """A history of about ``size`` messages, beside those that make the tree."""
    author = _Author(kind, seed)
    return History(kind, seed, size, author.stages(size))


def tenants(history: History) -> tuple[str, ...]:
    """Everybody in it."""
    return switching.Tenants(history.asked).all() if history.kind == "switching" else tuple(PARENTS)


class _Author:
    """Writes one history. Every event has a later time than the one before it, and says what is so from then on."""

    def __init__(self, kind: Kind, seed: int) -> None:
        self.kind = kind
        self.chance = random.Random(f"{kind}/{seed}")
        self.names = {tenant: [f"{tenant}-w{number}" for number in range(12)] for tenant in (*CUSTOMERS, *UNITS)}
        self.count = 0

    # --- the whole

    def stages(self, size: int) -> list[list[Message]]:
        if self.kind == "switching":
            return list(switching.stages(self.chance, size, self.event))
        tree = [*self.tree(), *self.limits()]
        plans = [self.save(tenant, plan) for tenant in self.names for plan in PLAN_NAMES]
        if self.kind == "settled":
            return [tree, plans, *self.rounds(size)]
        # The tree comes behind the first events: many of them have to wait for their tenant.
        early = [message for _ in range(size // 20) for way in EARLY for message in way(self)]
        rest = [message for _ in range(size - size // 10) for message in self.anything()]
        return [[*plans, *early, *tree], [*rest, *self.amends()]]

    def rounds(self, size: int) -> Iterator[list[Message]]:
        share = size // (SETTLED_ROUNDS * 8)
        for number in range(SETTLED_ROUNDS):
            yield [*(m for _ in range(share * 3) for m in self.about_workloads()), *self.bad(WORKLOADS)]
            yield [*(m for _ in range(share * 3) for m in self.about_plans()), *self.bad(PLANS), *self.wide()]
            yield [*(m for _ in range(share) for m in self.about_reservations()), *self.bad(RESERVATIONS)]
            yield [*self.changes(number), *self.bad(TENANT_CHANGES)]
        yield self.amends()

    def anything(self) -> Iterator[Message]:
        about = (self.about_workloads, self.about_plans, self.about_reservations, self.about_tenants)
        yield from self.chance.choices(about, (9, 9, 2, 3))[0]()
        if self.chance.random() < 0.02:
            yield from self.bad(self.chance.choice((WORKLOADS, PLANS, RESERVATIONS, TENANT_CHANGES)))
        if self.chance.random() < 0.004:
            yield from self.wide()

    # --- tenants

    def tree(self) -> Iterator[Message]:
        for tenant in PARENTS:
            yield self.upsert(tenant)
            if tenant not in UNITS:
                yield self.set_items(tenant, [{"name": name} for name in self.items_of(tenant)])

    @staticmethod
    def items_of(tenant: str) -> tuple[str, ...]:
        if tenant in PARTNERS:
            return (*MODE_ITEMS, *EDITION_ITEMS)
        return EDITION_ITEMS if tenant in EDITION_CUSTOMERS else MODE_ITEMS

    def limits(self) -> Iterator[Message]:
        """Quotas at the beginning: far away where none may bind, close on every level where they shall."""
        if self.kind != "limited":
            for tenant in QUOTED:
                item = self.items_of(tenant)[0]
                yield self.set_items(tenant, [{"name": item, "quota": {"value": 5, "overage": None}}])
            return
        for tenant in (*PARTNERS, *CUSTOMERS):
            few = 5 if tenant in CUSTOMERS else 9
            chosen = {name: {"value": few, "overage": 1} for name in self.chance.sample(self.items_of(tenant)[1:], 5)}
            if tenant in FIXED_QUOTAS:
                chosen[FIXED] = {"value": FIXED_QUOTAS[tenant], "overage": 0}
            yield self.set_items(tenant, [{"name": name, "quota": quota} for name, quota in chosen.items()])

    def upsert(self, tenant: str, **more: Any) -> Message:
        kind = "partner" if tenant in PARTNERS else "unit" if tenant in UNITS else "customer"
        data = {"parent_id": PARENTS[tenant], "kind": kind, "name": tenant.title(), **more}
        return self.event(TENANT_CHANGES, "tenant.upserted", tenant, data)

    def set_items(self, tenant: str, items: Any, **more: Any) -> Message:
        listed = [{"status": 1, **item} for item in items]
        return self.event(TENANT_CHANGES, "offering_items.set", tenant, {"items": listed, **more})

    def about_tenants(self) -> Iterator[Message]:
        """Changes that may come at any time: everything that counts is on this one topic, in order."""
        tenant = self.chance.choice(CUSTOMERS)
        ways = [self.toggle_item, self.toggle_tenant, self.move, self.set_quota]
        if self.kind == "limited":
            ways += [self.set_quota, self.set_quota, self.cut, self.leave]
        yield from self.chance.choice(ways)(tenant)

    def toggle_item(self, tenant: str) -> Iterator[Message]:
        item = {"name": self.chance.choice(self.items_of(tenant)[1:12]), "status": self.chance.choice((0, 1, 1))}
        yield self.set_items(tenant, [item], cascade=True)

    def toggle_tenant(self, tenant: str) -> Iterator[Message]:
        if self.kind == "free":
            tenant = "clinic-lab"  # it reserves nothing, so it does not matter when it could not
        yield self.upsert(tenant, enabled=self.chance.random() < 0.5)

    def move(self, _: str) -> Iterator[Message]:
        tenant = self.chance.choice(tuple(MOVERS))
        yield self.upsert(tenant, parent_id=self.chance.choice(MOVERS[tenant]))

    def set_quota(self, tenant: str) -> Iterator[Message]:
        if self.kind == "limited":
            tenant = self.chance.choice((*PARTNERS, *CUSTOMERS))
            value, overage = self.chance.choice(((0, 0), (2, 0), (4, 1), (8, 0), (6, None), (None, None)))
            more = {"on_shortfall": self.chance.choice(("keep", "keep", "revoke"))}
        else:
            value, overage = self.chance.choice(((None, None), (10**15, 0), (3, None), (10**15, None)))
            more = {}
            tenant = self.chance.choice(QUOTED)
        item = self.chance.choice(self.items_of(tenant)[1:12])
        yield self.set_items(tenant, [{"name": item, "quota": {"value": value, "overage": overage}}], **more)

    def cut(self, _: str) -> Iterator[Message]:
        """An item goes on a partner and everywhere below, and comes back."""
        tenant, item = self.chance.choice(PARTNERS[1:]), self.chance.choice(MODE_ITEMS[1:])
        yield self.set_items(tenant, [{"name": item, "status": 0}], cascade=True)
        for name in (tenant, *(below for below, parent in PARENTS.items() if parent == tenant)):
            if item in self.items_of(name):
                yield self.set_items(name, [{"name": item}])

    def leave(self, _: str) -> Iterator[Message]:
        tenant = self.chance.choice(LEAVERS)
        yield self.upsert(tenant, enabled=False)
        yield self.event(TENANT_CHANGES, "tenant.deleted", tenant, {})
        yield self.upsert(tenant)

    def changes(self, number: int) -> Iterator[Message]:
        """A stage of tenant changes. One for each tenant: what an earlier one has started may still be under way."""
        for tenant in self.chance.sample(CUSTOMERS, len(CUSTOMERS)):
            if tenant in LEAVERS and number == 1:
                yield self.upsert(tenant, enabled=False)
                yield self.event(TENANT_CHANGES, "tenant.deleted", tenant, {})
            elif tenant in LEAVERS and number == 2:
                yield self.upsert(tenant)
            elif tenant in MOVERS and number == 0:
                yield self.upsert(tenant, parent_id=MOVERS[tenant][1])
            elif tenant in QUOTED:
                yield from self.set_quota_of(tenant)
            else:
                yield from self.toggle_item(tenant)

    def set_quota_of(self, tenant: str) -> Iterator[Message]:
        quota = {"value": self.chance.choice((2, 4, 10**15)), "overage": None}
        yield self.set_items(tenant, [{"name": self.chance.choice(self.items_of(tenant)[:3]), "quota": quota}])

    def amends(self) -> list[Message]:
        """At the end everybody is enabled: what waited for that only is decided."""
        return [self.upsert(tenant) for tenant in (*CUSTOMERS, *UNITS) if tenant not in MOVERS]

    # --- workloads

    def about_workloads(self) -> Iterator[Message]:
        tenant = self.chance.choice(tuple(self.names))
        workload = self.chance.choice(self.names[tenant])
        yield self.chance.choices((self.register, self.report, self.remove), (6, 3, 1.5))[0](tenant, workload)

    def register(self, tenant: str, workload: str) -> Message:
        # Where limits bind, only a workstation takes a workstation's unit, so that one sum must come out the same.
        fallback = self.kind != "limited" and self.chance.random() < 0.3
        about = {"os": "desktop", "virtual": True} if fallback else {}
        data = {"workload_id": workload, "type": self.chance.choice(TYPES), **about}
        return self.event(WORKLOADS, "workload.registered", tenant, data)

    def report(self, tenant: str, workload: str) -> Message:
        usage = {name: self.chance.randint(0, 50) for name in ("storage_bytes", "local_storage_bytes")}
        return self.event(WORKLOADS, "workload.usage_reported", tenant, {"workload_id": workload, "usage": usage})

    def remove(self, tenant: str, workload: str) -> Message:
        return self.event(WORKLOADS, "workload.removed", tenant, {"workload_id": workload})

    # --- plans

    def about_plans(self) -> Iterator[Message]:
        tenant = self.chance.choice(tuple(self.names))
        plan = self.chance.choice(PLAN_NAMES)
        way = self.chance.choices(("apply", "revoke", "save", "delete"), (7, 2, 2, 0.4))[0]
        if way == "save":
            yield self.save(tenant, plan)
        elif way == "delete":
            yield self.event(PLANS, "plan.deleted", tenant, {"plan_id": plan})
        else:
            names = self.chance.sample(self.names[tenant], self.chance.randint(1, 4))
            kind = "plan.applied" if way == "apply" else "plan.revoked"
            yield self.event(PLANS, kind, tenant, {"plan_id": plan, "workload_ids": names})

    def save(self, tenant: str, plan: str) -> Message:
        features = self.chance.sample(FEATURES, self.chance.randint(0, 3))
        data = {"plan_id": plan, "features": features, "enabled": self.chance.random() < 0.85}
        return self.event(PLANS, "plan.saved", tenant, data)

    def wide(self) -> Iterator[Message]:
        """A plan for very many workloads, and then another content of it: both become jobs of many steps."""
        tenant = self.chance.choice(("garage", "studio"))
        names = self.names[tenant] + [f"{tenant}-x{number}" for number in range(WIDE)]
        yield self.event(PLANS, "plan.applied", tenant, {"plan_id": "nightly", "workload_ids": names})
        yield self.save(tenant, "nightly")

    # --- reservations

    def about_reservations(self) -> Iterator[Message]:
        """Where topics are not at rest, only of what is there at any time, by tenants that are never disabled."""
        reserving = {
            "free": ("bakery", "clinic"),
            "settled": ("bakery", "garage", "clinic"),
            "limited": ("bakery", "garage"),
        }
        tenant = self.chance.choice(reserving[self.kind])
        name = f"r{self.chance.randint(1, 20)}"
        ways = ("reserve", "release") if self.kind == "free" else ("reserve", "reserve", "release", "commit", "extend")
        way = self.chance.choice(ways)
        data: dict[str, Any] = {"reservation_id": name}
        if way == "reserve":
            # Always the same content: another one under the same name would be refused.
            items = (
                ("local_storage",)
                if self.kind == "free"
                else ("pw_base_workstations", "pw_base_servers", "local_storage")
            )
            data |= {"items": {item: 1 + len(name) % 2 for item in items}, "ttl_seconds": 30 * 86_400}
        elif way == "commit":
            data["workload_id"] = self.chance.choice(self.names[tenant])
        elif way == "extend":
            data["ttl_seconds"] = 30 * 86_400
        yield self.event(RESERVATIONS, f"reservation.{way}", tenant, data)

    # --- messages

    def bad(self, topic: str) -> Iterator[Message]:
        """Messages that nobody can take, whatever came before them."""
        tenant = self.chance.choice(CUSTOMERS)
        yield Message(topic, tenant, b"{broken")
        yield self.event(topic, "nobody.knows", tenant, {})
        if topic == PLANS:
            yield self.event(topic, "plan.saved", tenant, {"plan_id": "odd", "features": ["no.such"]})
        elif topic == WORKLOADS:
            yield self.event(topic, "workload.registered", tenant, {"workload_id": "no spaces", "type": "server"})
        elif topic == TENANT_CHANGES:
            yield self.set_items(tenant, [{"name": "no_such_item"}])

    def event(self, topic: str, kind: str, tenant: str, data: dict[str, Any]) -> Message:
        self.count += 1
        moment = STARTED + timedelta(milliseconds=self.count)
        content = {
            "specversion": "1.0",
            "id": f"{self.kind}-{self.count}",
            "source": "/faults",
            "type": f"apportion.{kind}.v1",
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "tenantid": tenant,
            "data": data,
        }
        return Message(topic, tenant, json.dumps(content).encode())


EARLY = (_Author.about_workloads, _Author.about_plans)  # what makes sense of a tenant that is not known yet


def flat(stages: Sequence[Sequence[Message]]) -> list[Message]:
    """All messages in their order."""
    return [message for stage in stages for message in stage]
