"""A customer that is switched while it lives: random events for it and around it, and what must hold at each step."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from service import records
from service.catalog.model import WHOLE_ROLES
from service.handlers import announcements
from service.handlers.engine import Engine
from service.handlers.verification import verify
from service.handlers.work import Arrival
from service.ledger.errors import LedgerUnavailable
from service.ledger.transaction import SILENT_PREFIX, Account
from service.records import Workload
from tests.unit.handlers.world import CATALOG, World

PARENTS = {"dist": "root", "msp": "dist", "other": "dist", "cust": "msp", "unit": "cust", "cell": "unit", "shop": "msp"}
PARTNERS = ("dist", "msp", "other")
KINDS = {**dict.fromkeys(PARTNERS, "partner"), "cust": "customer", "shop": "customer", "unit": "unit", "cell": "unit"}
MEMBERS = ("cust", "unit", "cell")
NEW = tuple(f"new{number}" for number in range(3))  # units that come to be now and then
WORKLOADS = tuple(f"w{number}" for number in range(5))
PLANS = ("p1", "p2", "p3")
TYPES = ("workstation", "workstation", "server", "vm", "web_hosting_server")
FEATURES = (
    "backup.files",
    "backup.image",
    "management.patch_management",
    "security.url_filtering",
    "security.edr",
    "backup.continuous_data_protection",
    "backup.application_cluster",
)
EDITIONS = ("pck_per_workload", "pck_per_gigabyte", "per_workload", "cyber_protect_adv", "standard")
MODES = ("pck_per_workload", "pck_per_gigabyte")
QUOTAS = ((None, None), (2, 0), (3, 0), (4, 1), (6, 0), (9, 0), (5, None))


def items_of(edition: str) -> list[str]:
    """The items of an edition that have quotas, but for disaster recovery."""
    return [
        item.name for item in CATALOG.items_of_edition(edition) if item.type != "feature" and "_dr_" not in item.name
    ]


class Said(NamedTuple):
    """An event to come."""

    name: str
    tenant: str
    data: dict[str, Any]


class Life:
    """A customer's life. ``limits``: quotas bind on some levels; without them every protected workload is covered."""

    def __init__(self, chance: random.Random, world: World, *, limits: bool) -> None:
        self.chance = chance
        self.world = world
        self.limits = limits
        self.source = chance.choice(EDITIONS)
        self.engines: list[Engine] = [world.engine, world.start()]  # two processes, each with a cache of its own
        self._switches = 0
        self._before: _Seen | None = None

    # --- the beginning

    async def begin(self) -> None:
        """Tenants, items, quotas, plans and some workloads, all at rest."""
        for tenant, parent in PARENTS.items():
            await self.world.upsert(tenant, parent, KINDS[tenant])
        everything = [name for edition in EDITIONS for name in items_of(edition)]
        for partner in PARTNERS:
            await self.world.set_items(partner, *everything, "local_storage")
        own = items_of(self.source)
        if self.limits and self.chance.random() < 0.3:
            own = self.chance.sample(own, max(3, len(own) * 2 // 3))
        await self.world.set_items("cust", *own, "local_storage")
        await self.world.set_items("shop", *items_of(self.chance.choice(EDITIONS)))
        for plan in PLANS:
            for tenant in (*MEMBERS, "shop"):
                await self._send(self.save(tenant, "", plan))
        for _ in range(30):
            tenant, workload = self.chance.choice((*MEMBERS, "shop")), self.chance.choice(WORKLOADS)
            await self._send(self.chance.choice((self.register, self.link, self.report))(tenant, workload, "p1"))
        if self.limits:
            for _ in range(6):
                await self._send(self.quota("", "", ""))
        await self.world.settle()

    async def _send(self, said: Iterator[Said]) -> None:
        for each in said:
            await self.world.engine.handle([self.world.event(*each)])
        await self.world.settle()

    # --- what happens

    async def step(self) -> str:
        """One event, handled by one process, or one step of what is due, carried out by one."""
        number = self.chance.randrange(len(self.engines))
        if self.chance.random() < 0.5:
            self.world.now_ms += self.chance.choice((0, 0, 1, 1200))
            await self._insist(number, None)
            return "due"
        ways = (self.register, self.remove, self.report, self.link, self.save, self.delete, self.reserve)
        way = self.chance.choices(ways, (5, 2, 2, 7, 1, 0.4, 2))[0]
        if self.chance.random() < 0.25:
            rare = (self.switch, self.undo, self.quota, self.shop, self.items, self.toggle, self.unit, self.cut)
            way = self.chance.choices(rare, (4, 3, 2, 1, 1, 1, 1, 1))[0]
        one = self.chance.choice
        said = list(way(one((*MEMBERS, "shop")), one(WORKLOADS), one(PLANS)))
        for each in said:
            await self._insist(number, self.world.event(*each))
        return str(said)

    async def _insist(self, number: int, arrival: Arrival | None) -> None:
        """As often as it takes; where the ledger fails, the process ends and another one does the same again."""
        while True:
            try:
                if arrival is None:
                    await self.engines[number].run_due(range(self.world.ledger.shards))
                else:
                    await self.engines[number].handle([arrival])
            except LedgerUnavailable:
                self.engines[number] = self.world.start()
            else:
                return

    def register(self, tenant: str, workload: str, _: str) -> Iterator[Said]:
        about = {"os": "desktop", "virtual": True} if self.chance.random() < 0.4 else {}
        data = {"workload_id": workload, "type": self.chance.choice(TYPES), **about}
        yield Said("workload.registered", tenant, data)

    def remove(self, tenant: str, workload: str, _: str) -> Iterator[Said]:
        yield Said("workload.removed", tenant, {"workload_id": workload})

    def report(self, tenant: str, workload: str, _: str) -> Iterator[Said]:
        usage = {name: self.chance.randint(0, 9) for name in ("storage_bytes", "local_storage_bytes")}
        yield Said("workload.usage_reported", tenant, {"workload_id": workload, "usage": usage})

    def save(self, tenant: str, _: str, plan: str) -> Iterator[Said]:
        features = self.chance.sample(FEATURES, self.chance.randint(0, 3))
        enabled = self.chance.random() < 0.85
        yield Said("plan.saved", tenant, {"plan_id": plan, "features": features, "enabled": enabled})

    def delete(self, tenant: str, _: str, plan: str) -> Iterator[Said]:
        yield Said("plan.deleted", tenant, {"plan_id": plan})

    def link(self, tenant: str, workload: str, plan: str) -> Iterator[Said]:
        name = "plan.applied" if self.chance.random() < 0.7 else "plan.revoked"
        more = self.chance.sample(WORKLOADS, self.chance.randint(0, 2))
        yield Said(name, tenant, {"plan_id": plan, "workload_ids": list(dict.fromkeys((workload, *more)))})

    def reserve(self, tenant: str, workload: str, _: str) -> Iterator[Said]:
        command = self.chance.choice(("reserve", "reserve", "commit", "release"))
        data: dict[str, Any] = {"reservation_id": self.chance.choice(("r1", "r2", "r3"))}
        if command == "reserve":
            names = [name for edition in EDITIONS for name in items_of(edition)]
            data["items"] = {self.chance.choice(names): self.chance.randint(1, 2)}
        elif command == "commit":
            data["workload_id"] = workload
        yield Said(f"reservation.{command}", tenant, data)

    def quota(self, _: str, __: str, ___: str) -> Iterator[Said]:
        if not self.limits:
            return
        tenant = self.chance.choice(("dist", "msp", "shop"))
        name = self.chance.choice(
            [name for edition in EDITIONS for name in items_of(edition) if "base" in name or "pw_p" in name]
        )
        value, overage = self.chance.choice(QUOTAS)
        item = {"name": name, "status": 1, "quota": {"value": value, "overage": overage}}
        yield Said("offering_items.set", tenant, {"items": [item]})

    def items(self, _: str, __: str, ___: str) -> Iterator[Said]:
        """Refused while the customer is switched; at other times its quotas change."""
        value, overage = self.chance.choice(QUOTAS if self.limits else ((None, None), (100, 5), (100, None)))
        name = self.chance.choice(items_of(self.source))
        item = {"name": name, "status": 1, "quota": {"value": value, "overage": overage}}
        yield Said("offering_items.set", "cust", {"items": [item]})

    def toggle(self, _: str, __: str, ___: str) -> Iterator[Said]:
        """A unit, or somebody above, is disabled for a while."""
        if not self.limits:
            return
        tenant = self.chance.choice(("unit", "msp", "dist"))
        data = {
            "parent_id": PARENTS[tenant],
            "kind": KINDS[tenant],
            "name": tenant,
            "enabled": self.chance.random() < 0.5,
        }
        yield Said("tenant.upserted", tenant, data)

    def unit(self, _: str, workload: str, plan: str) -> Iterator[Said]:
        """A further unit, which comes and goes, with a workload."""
        tenant = self.chance.choice(NEW)
        data = {"parent_id": "cust" if tenant == "new0" else "unit", "kind": "unit", "name": tenant}
        if self.chance.random() < 0.3:
            yield Said("tenant.upserted", tenant, {**data, "enabled": False})
            yield Said("tenant.deleted", tenant, {})
            return
        yield Said("tenant.upserted", tenant, data)
        yield from self.save(tenant, workload, plan)
        yield from self.register(tenant, workload, plan)
        yield Said("plan.applied", tenant, {"plan_id": plan, "workload_ids": [workload]})

    def cut(self, _: str, __: str, ___: str) -> Iterator[Said]:
        """An item is turned off above and everywhere below, and on again above."""
        if not self.limits:
            return
        tenant = self.chance.choice(("dist", "msp"))
        name = self.chance.choice([name for edition in EDITIONS for name in items_of(edition)])
        status = self.chance.choice((0, 1))
        data = {"items": [{"name": name, "status": status}], "cascade": True}
        yield Said("offering_items.set", tenant, data)

    def shop(self, _: str, __: str, ___: str) -> Iterator[Said]:
        """Another tenant below the same is switched too, or everybody above both moves."""
        if self.chance.random() < 0.5:
            yield self._switch("shop")
        else:
            parent = self.chance.choice(("msp", "other"))
            data = {"parent_id": parent, "kind": "customer", "name": "shop"}
            yield Said("tenant.upserted", "shop", data)

    def switch(self, _: str, __: str, ___: str) -> Iterator[Said]:
        yield self._switch("cust")

    def _switch(self, tenant: str) -> Said:
        self._switches += 1
        data: dict[str, Any] = {"switch_id": f"s{self._switches}", "target_edition": self.chance.choice(EDITIONS)}
        if self.limits and self.chance.random() < 0.3:
            data["mode"] = "best_effort"
        data["dry_run"] = self.chance.random() < 0.1
        return Said("switch.requested", tenant, data)

    def undo(self, _: str, __: str, ___: str) -> Iterator[Said]:
        data = {"switch_id": f"s{max(1, self._switches - self.chance.randint(0, 2))}"}
        yield Said("switch.undo_requested", "cust", data)

    # --- what must hold

    async def check(self, what: str) -> None:
        """After each step."""
        found = await verify(self.world.ledger, CATALOG)
        assert found.ok, (what, found.violations)
        seen = _Seen(self.world)
        check_sides(seen, what)
        check_asides(seen, what)
        if self._before is not None:
            check_limits(self._before, seen, what)
            if not self.limits:
                check_covered(self._before, seen, what)
        self._before = seen

    async def check_end(self) -> None:
        """When all is settled."""
        await self.world.settle()
        while any([await self.world.ledger.timers(shard, "job/") for shard in range(self.world.ledger.shards)]):
            self.world.now_ms += 2000
            await self.world.settle()
        await self.check("the end")
        seen = self._before
        assert seen is not None
        assert not any(seen.switching.values())
        left = {
            place: account for place, account in seen.accounts.items() if records.set_aside(place[1]) and account.used
        }
        assert not left
        for code, context in await rejections(self.world):
            assert context.get("code") != "1000", (code, context)
        if not self.limits:
            check_settled(seen)


class _Seen:
    """The ledger as it is now."""

    def __init__(self, world: World) -> None:
        self.workloads: dict[tuple[str, str], Workload] = {}
        self.plans: dict[tuple[str, str], records.Plan] = {}
        self.switching: dict[str, records.Switching | None] = {}
        self.accounts: dict[tuple[str, str], Account] = {}
        for shard in range(world.ledger.shards):
            snapshot = world.ledger.snapshot(shard)
            for key, record in snapshot.records.items():
                if key.kind == "workload":
                    self.workloads[key.tenant, key.id] = records.decode(key, record.payload)
                elif key.kind == "plan":
                    self.plans[key.tenant, key.id] = records.decode(key, record.payload)
                elif key.kind == "tenant" and key.id == "items":
                    self.switching[key.tenant] = records.decode(key, record.payload).switching
            self.accounts |= {(place[0], place[1]): account for place, account in snapshot.accounts.items()}

    def protected(self, place: tuple[str, str]) -> bool:
        """Whether an enabled plan is applied to a workload that is registered."""
        workload = self.workloads.get(place)
        if workload is None or workload.type is None:
            return False
        plans = (self.plans.get((place[0], name)) for name, link in workload.links.items() if link.applied)
        return any(plan is not None and plan.enabled and not plan.deleted for plan in plans)

    def whole(self, place: tuple[str, str]) -> list[str]:
        """The edition and base items that a workload holds."""
        workload = self.workloads.get(place)
        return [name for name in (workload.holding if workload else ()) if CATALOG.item(name).role in WHOLE_ROLES]


def check_sides(seen: _Seen, what: str) -> None:
    """Nobody holds items of two editions, and no more than one edition or base item."""
    for place, workload in seen.workloads.items():
        editions = {CATALOG.item(name).edition for name in workload.holding} - {None}
        assert len(editions) <= 1, (what, place, workload)
        assert len(seen.whole(place)) <= 1, (what, place, workload)


def check_asides(seen: _Seen, what: str) -> None:
    """``used - reserved`` over the edition and base items is the number of those who hold one; what is set aside is
    reserved."""
    names = [
        item.name for edition in EDITIONS for item in CATALOG.items_of_edition(edition) if item.role in WHOLE_ROLES
    ]
    for customer, members in (("cust", (*MEMBERS, *NEW)), ("shop", ("shop",))):
        counted = sum(
            account.used - account.reserved
            for name in names
            if (account := seen.accounts.get((customer, name))) is not None
        )
        holders = sum(bool(seen.whole(place)) for place in seen.workloads if place[0] in members)
        assert counted == holders, (what, customer, counted, holders)
    for (tenant, item), account in seen.accounts.items():
        name = records.set_aside(item)
        if name is not None:
            customer = "shop" if tenant == "shop" else "cust"
            assert 0 <= account.used <= seen.accounts.get((customer, name), Account()).reserved, (what, tenant, item)
            assert not account.used or seen.switching.get(customer), (what, tenant, item, account)


def check_limits(before: _Seen, seen: _Seen, what: str) -> None:
    """Nothing is granted above a hard quota; bytes are facts."""
    for place, account in seen.accounts.items():
        if place[1].startswith(SILENT_PREFIX) or account.limit is None or account.used <= account.limit:
            continue
        if CATALOG.item(place[1]).gauge is not None:
            continue
        assert account.used <= before.accounts.get(place, Account()).used, (what, place, account)


def check_covered(before: _Seen, seen: _Seen, what: str) -> None:
    """Who is protected and covered stays covered, whatever goes on."""
    for place in before.workloads:
        if before.whole(place) and before.protected(place) and seen.protected(place):
            assert seen.whole(place), (what, place, before.workloads[place], seen.workloads[place])


def check_settled(seen: _Seen) -> None:
    """Every protected workload is covered, as there is room for everybody; who is not protected holds nothing."""
    for place in seen.workloads:
        assert bool(seen.whole(place)) is seen.protected(place), (place, seen.workloads[place])


async def rejections(world: World) -> list[tuple[str, Mapping[str, Any]]]:
    """Codes and contexts of the messages that were rejected."""
    entries = await world.ledger.outbox(range(world.ledger.shards), 1_000_000)
    found = []
    for shard in entries:
        for entry in entries[shard]:
            event = json.loads(announcements.render(entry, CATALOG).value)
            if event["type"] == announcements.MESSAGE_REJECTED:
                found.append((event["data"]["code"], event["data"].get("context", {})))
    return found
