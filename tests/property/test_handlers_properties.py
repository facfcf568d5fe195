"""What must hold whatever happens: random histories of tenants, items, plans, workloads and reservations.

The same history, delivered twice, shuffled between its facets and cut into any batches, ends in the same state where
no limit binds; with limits, the invariants of docs/design.md 6 hold after every batch; and a call to the ledger that
fails, before or after it was carried out, changes neither the state nor what is announced.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from service import records
from service.handlers import backlogs
from service.handlers.announcements import MESSAGE_REJECTED
from service.handlers.engine import Engine
from service.handlers.work import Arrival
from service.ledger.errors import LedgerUnavailable
from service.ledger.outbox import Facts
from service.ledger.reference import ReferenceLedger
from service.ledger.snapshot import Snapshot
from service.ledger.transaction import SILENT_PREFIX, Account, IndexKey, Outcome, Record, RecordKey, Transaction
from service.records import Reservation, Workload
from tests.unit.handlers.world import CATALOG, World

BASES = ("pw_base_workstations", "pw_base_servers", "pw_base_vms")
PACKS = ("pw_pack_adv_management", "pw_pack_adv_security", "pw_pack_adv_security_edr")
BYTES = ("pw_base_storage", "local_storage")
ITEMS = (*BASES, *PACKS, *BYTES)
FEATURES = ("backup.files", "management.patch_management", "security.url_filtering", "security.edr")
TYPES = ("workstation", "server", "vm", "mobile")
CUSTOMERS = ("cust", "shop")
WITH_WORKLOADS = (*CUSTOMERS, "unit")  # the unit is the first customer's
PARENTS = {"dist": "root", "msp": "dist", "other": "dist", "cust": "msp", "shop": "dist", "unit": "cust"}
PARTNERS = ("dist", "msp", "other")
KINDS = {**dict.fromkeys(PARTNERS, "partner"), "cust": "customer", "shop": "customer", "unit": "unit"}
WORKLOADS = ("w1", "w2", "w3")
PLANS = ("p1", "p2")
START_MS = 1_800_000_000_000


class Said(NamedTuple):
    """An event of a history; ``time`` orders what is said of one facet."""

    name: str
    tenant: str
    data: dict[str, Any]
    facet: str
    time: int


# --- histories


def partners() -> list[Said]:
    """The tenants above the customers, with their items: without those a customer's are refused."""
    items = {"items": [{"name": item, "status": 1} for item in ITEMS]}
    made = [Said("tenant.upserted", name, tenant_data(name), name, 0) for name in PARTNERS]
    return made + [Said("offering_items.set", name, items, f"{name}/items", 0) for name in PARTNERS]


def customers() -> list[Said]:
    """The tenants with workloads."""
    return [Said("tenant.upserted", name, tenant_data(name), name, 0) for name in WITH_WORKLOADS]


def tree() -> list[Said]:
    """All tenants."""
    return partners() + customers()


def tenant_data(name: str, **more: Any) -> dict[str, Any]:
    return {"parent_id": PARENTS[name], "kind": KINDS[name], "name": name, **more}


class Author:
    """Writes histories: random events, each of one facet, with a clock of their own."""

    def __init__(self, chance: random.Random, *, limits: bool) -> None:
        self.random = chance
        self.limits = limits
        self.time = 0

    def history(self, length: int) -> list[Said]:
        said = [event for _ in range(length) for event in self.something()]
        enabled = [Said("tenant.upserted", name, tenant_data(name), name, self.tick()) for name in WITH_WORKLOADS]
        return said if self.limits else said + enabled

    def tick(self) -> int:
        self.time += 1
        return self.time

    def something(self) -> Iterator[Said]:
        one = self.random.choice
        kind = self.random.choices(
            (self.register, self.remove, self.report, self.save, self.delete, self.link, self.item, self.tenant),
            (6, 2, 3, 4, 1, 8, 6, 1),
        )[0]
        if self.limits and self.random.random() < 0.25:
            kind = self.random.choices((self.reserve, self.move, self.offboard), (6, 2, 1))[0]
        yield from kind(one(WITH_WORKLOADS), one(WORKLOADS), one(PLANS))

    def register(self, tenant: str, workload: str, _: str) -> Iterator[Said]:
        about = {"os": "desktop", "virtual": True} if self.random.random() < 0.5 else {}
        data = {"workload_id": workload, "type": self.random.choice(TYPES), **about}
        yield Said("workload.registered", tenant, data, f"{tenant}/{workload}", self.tick())

    def remove(self, tenant: str, workload: str, _: str) -> Iterator[Said]:
        yield Said("workload.removed", tenant, {"workload_id": workload}, f"{tenant}/{workload}", self.tick())

    def report(self, tenant: str, workload: str, _: str) -> Iterator[Said]:
        usage = {name: self.random.randint(0, 9) for name in ("storage_bytes", "local_storage_bytes")}
        data = {"workload_id": workload, "usage": usage}
        yield Said("workload.usage_reported", tenant, data, f"{tenant}/{workload}/usage", self.tick())

    def save(self, tenant: str, _: str, plan: str) -> Iterator[Said]:
        features = self.random.sample(FEATURES, self.random.randint(0, 2))
        data = {"plan_id": plan, "features": features, "enabled": self.random.random() < 0.8}
        yield Said("plan.saved", tenant, data, f"{tenant}/{plan}", self.tick())

    def delete(self, tenant: str, _: str, plan: str) -> Iterator[Said]:
        yield Said("plan.deleted", tenant, {"plan_id": plan}, f"{tenant}/{plan}", self.tick())

    def link(self, tenant: str, workload: str, plan: str) -> Iterator[Said]:
        name = "plan.applied" if self.random.random() < 0.75 else "plan.revoked"
        data = {"plan_id": plan, "workload_ids": [workload]}
        yield Said(name, tenant, data, f"{tenant}/{plan}/{workload}", self.tick())

    def item(self, _: str, __: str, ___: str) -> Iterator[Said]:
        tenant = self.random.choice((*PARTNERS, *CUSTOMERS) if self.limits else CUSTOMERS)
        item = self.random.choice(ITEMS)
        data: dict[str, Any] = {"items": [{"name": item, "status": int(self.random.random() < 0.8)}], "cascade": True}
        if self.limits:
            value, overage = self.random.choice(((None, None), (0, 0), (1, 0), (2, 0), (1, 1), (1, None)))
            data["items"][0] |= {"quota": {"value": value, "overage": overage}}
            data["on_shortfall"] = self.random.choice(("keep", "revoke"))
        yield Said("offering_items.set", tenant, data, f"{tenant}/{item}", self.tick())

    def tenant(self, _: str, __: str, ___: str) -> Iterator[Said]:
        tenant = self.random.choice(("shop", "unit"))  # below a disabled one the unit could not come to be
        yield Said("tenant.upserted", tenant, tenant_data(tenant, enabled=False), tenant, self.tick())

    def move(self, _: str, __: str, ___: str) -> Iterator[Said]:
        tenant, parent = self.random.choice(CUSTOMERS), self.random.choice(PARTNERS)
        yield Said("tenant.upserted", tenant, {**tenant_data(tenant), "parent_id": parent}, tenant, self.tick())

    def offboard(self, _: str, __: str, ___: str) -> Iterator[Said]:
        yield Said("tenant.upserted", "shop", tenant_data("shop", enabled=False), "shop", self.tick())
        yield Said("tenant.deleted", "shop", {}, "shop", self.tick())

    def reserve(self, tenant: str, workload: str, _: str) -> Iterator[Said]:
        name = self.random.choice(("r1", "r2", "r3", "r4"))
        command = self.random.choice(("reserve", "reserve", "commit", "release"))
        data: dict[str, Any] = {"reservation_id": name}
        if command == "reserve":
            data["items"] = {item: self.random.randint(1, 2) for item in self.random.sample(ITEMS, 2)}
        elif command == "commit":
            data["workload_id"] = workload
        yield Said(f"reservation.{command}", tenant, data, f"{tenant}/{name}", self.tick())


def shuffled(history: Sequence[Said], chance: random.Random) -> list[Said]:
    """The history with the order kept within each facet only."""
    facets: dict[str, list[Said]] = {}
    for said in history:
        facets.setdefault(said.facet, []).append(said)
    order = [said.facet for said in history]
    chance.shuffle(order)
    upcoming = {facet: iter(said) for facet, said in facets.items()}
    return [next(upcoming[facet]) for facet in order]


def arrivals(world: World, history: Iterable[Said]) -> list[Arrival]:
    """The events as they arrive, one behind the other; the same event always has the same id and time."""
    return [
        world.event(
            said.name,
            said.tenant,
            said.data,
            id=f"{said.facet}@{said.time}",
            time_us=START_MS * 1000 + said.time,
        )
        for said in history
    ]


async def deliver(world: World, arrived: Sequence[Arrival], batch: int, *, at_once: bool = False) -> None:
    """Handle arrivals in batches; what is due in between is carried out too, or only at the end."""
    for first in range(0, len(arrived), batch):
        await world.engine.handle(arrived[first : first + batch])
        if not at_once:
            await world.engine.run_due(range(world.ledger.shards))
    await world.settle()
    while any([await world.ledger.timers(shard, "job/") for shard in range(world.ledger.shards)]):
        world.now_ms += backlogs.RETRY_MS  # events that wait for their tenant
        await world.settle()


# --- the state, without what counts how it came about


async def state_of(world: World) -> dict[str, Any]:
    """Everything that is held, said and counted."""
    state: dict[str, Any] = {}
    for shard in range(world.ledger.shards):
        snapshot = world.ledger.snapshot(shard)
        for key, record in snapshot.records.items():
            seen = plain(key, records.decode(key, record.payload))
            if seen is not None:
                state["/".join(key)] = seen
        for (tenant, item), account in snapshot.accounts.items():
            state[f"account/{tenant}/{item}"] = (account.used, account.reserved, account.value, account.overage)
        for index, members in snapshot.indexes.items():
            state["index/" + "/".join(index)] = members
        for (tenant, who), waiting in snapshot.waiting.items():
            state[f"waiting/{tenant}/{who}"] = (waiting.static, {(each.tenant, each.item) for each in waiting.denials})
    return state


def plain(key: RecordKey, value: Any) -> Any:
    """A record without versions, counters and moments; None where it only remembers what has ended."""
    if isinstance(value, records.Tenant):
        return msgspec.structs.replace(value, version=0, created_ms=0, updated_ms=0)
    if isinstance(value, records.Items):
        return {name: (state.status, state.value, state.overage) for name, state in value.states.items()}
    if isinstance(value, records.Plan):
        return (value.enabled, value.features, value.deleted)
    if isinstance(value, Workload):
        links = {plan for plan, link in value.links.items() if link.applied}
        seen = (value.type, links, set(value.holding), value.uncovered, value.gauges, value.counted)
        return (*seen, value.waiting, value.virtual) if any(seen) else None
    return value


def usage_by_tenant(world: World) -> dict[tuple[str, str], list[int]]:
    """What records say that is used and reserved, added up the tree."""
    sums: dict[tuple[str, str], list[int]] = {}
    parents = parents_of(world)
    for shard in range(world.ledger.shards):
        for key, record in world.ledger.snapshot(shard).records.items():
            if key.kind not in ("workload", "reservation"):
                continue
            value = records.decode(key, record.payload)
            for item, used, reserved in parts(value):
                name = key.tenant
                while name != "root":
                    total = sums.setdefault((name, item), [0, 0])
                    total[0] += used
                    total[1] += reserved
                    name = parents[name]
    return {place: total for place, total in sums.items() if total != [0, 0]}


def parents_of(world: World) -> dict[str, str]:
    """Below whom every tenant stands now."""
    return {
        key.tenant: records.decode(key, record.payload).parent_id
        for shard in range(world.ledger.shards)
        for key, record in world.ledger.snapshot(shard).records.items()
        if key.kind == "tenant" and key.id == "tenant"
    }


def parts(value: Workload | Reservation) -> Iterator[tuple[str, int, int]]:
    if isinstance(value, Workload):
        yield from ((item, 1, 0) for item in value.holding)
        yield from ((item, quantity, 0) for item, quantity in value.counted.items())
    elif value.state == "held":
        yield from ((item, quantity, quantity) for item, quantity in value.items.items())


# --- the properties


@given(seed=st.integers(0, 2**32), length=st.integers(1, 60), batch=st.sampled_from((1, 7, 1000)))
def test_a_history_ends_in_the_same_state_twice_shuffled_and_in_any_cut(seed: int, length: int, batch: int) -> None:
    asyncio.run(check_replay(seed, length, batch))


async def check_replay(seed: int, length: int, batch: int) -> None:
    chance = random.Random(seed)
    history = Author(chance, limits=False).history(length)
    calm, wild = World(), World()
    await deliver(calm, arrivals(calm, tree()), 1000)
    await deliver(calm, arrivals(calm, history), 1)
    await deliver(wild, arrivals(wild, partners()), 1)
    mixed = arrivals(wild, shuffled(customers() + history, chance))
    await deliver(wild, mixed, batch, at_once=chance.random() < 0.5)
    expected = await state_of(calm)
    assert await state_of(wild) == expected
    announced = len(await wild.announced())
    await deliver(wild, mixed, batch)  # from the first offset again
    wild.start()
    await deliver(wild, arrivals(wild, history), 7)  # sent again by its producers
    assert await state_of(wild) == expected
    assert len(await wild.announced()) == announced


@given(seed=st.integers(0, 2**32), length=st.integers(1, 60), batch=st.sampled_from((1, 7, 1000)))
def test_the_invariants_hold_after_every_batch(seed: int, length: int, batch: int) -> None:
    assert asyncio.run(batches_with_invariants(seed, length, batch)) >= 1


async def batches_with_invariants(seed: int, length: int, batch: int) -> int:
    """After how many batches everything held; the first time it does not, that is an AssertionError."""
    chance = random.Random(seed)
    world = World()
    await deliver(world, arrivals(world, tree()), 1000)
    arrived = arrivals(world, shuffled(Author(chance, limits=True).history(length), chance))
    for first in range(0, len(arrived), batch):
        before = {shard: world.ledger.snapshot(shard).accounts for shard in range(world.ledger.shards)}
        await world.engine.handle(arrived[first : first + batch])
        check_conservation(world)
        if batch == 1:
            check_no_grant_above_a_limit(world, before, arrived[first])
        for _ in range(chance.randint(0, 3)):
            await world.engine.run_due(range(world.ledger.shards))
            check_conservation(world)
        check_one_edition(world)
        check_tree(world)
    await world.settle()
    check_enablement(world)
    check_conservation(world)
    await check_announcements(world)
    return len(range(0, len(arrived), batch))


def check_conservation(world: World) -> None:
    counted = {
        place: [account.used, account.reserved]
        for shard in range(world.ledger.shards)
        for place, account in world.ledger.snapshot(shard).accounts.items()
        if (account.used or account.reserved) and not place[1].startswith(SILENT_PREFIX)
    }
    assert counted == usage_by_tenant(world)


def check_tree(world: World) -> None:
    """What is counted without being announced is what is so: of the tenants right below one, so that disabling and
    deleting can be refused, and of the workloads that have a plan, so that somebody looks for them when it changes."""
    below: dict[str, int] = {}
    enabled: dict[tuple[str, str], int] = {}
    snapshots = [world.ledger.snapshot(shard) for shard in range(world.ledger.shards)]
    found = {
        key: records.decode(key, record.payload)
        for snapshot in snapshots
        for key, record in snapshot.records.items()
        if key.kind == "tenant"
    }
    for key, tenant in found.items():
        if key.id == "tenant" and not tenant.deleted and tenant.parent_id != "root":
            below[tenant.parent_id] = below.get(tenant.parent_id, 0) + 1
            for item in found.get(records.items_key(key.tenant), records.NO_ITEMS).enabled:
                place = (tenant.parent_id, SILENT_PREFIX + item)
                enabled[place] = enabled.get(place, 0) + 1
    assert {key.tenant: count for key, count in found.items() if key.id == "children" and count} == below
    assert enabled | applied_by_plan(snapshots) == {
        place: account.used
        for snapshot in snapshots
        for place, account in snapshot.accounts.items()
        if place[1].startswith(SILENT_PREFIX)
    }


def applied_by_plan(snapshots: Sequence[Snapshot]) -> Counter[tuple[str, str]]:
    """To how many workloads each plan is applied, as the workloads' records say."""
    return Counter(
        (key.tenant, records.applied_count_item(plan))
        for snapshot in snapshots
        for key, record in snapshot.records.items()
        if key.kind == "workload"
        for plan, link in records.decode(key, record.payload).links.items()
        if link.applied
    )


def check_enablement(world: World) -> None:
    """When all is settled, nobody has an item that the tenant above does not have."""
    for tenant, parent in parents_of(world).items():
        if parent != "root" and KINDS[tenant] != "unit":
            assert enabled_on(world, tenant) <= enabled_on(world, parent), (tenant, parent)


def enabled_on(world: World, tenant: str) -> frozenset[str]:
    for shard in range(world.ledger.shards):
        snapshot = world.ledger.snapshot(shard).records
        deleted = snapshot.get(records.tenant_key(tenant))
        if deleted is not None and records.decode(records.tenant_key(tenant), deleted.payload).deleted:
            return frozenset()  # it has what it had, and loses what is gone when it comes back
        record = snapshot.get(records.items_key(tenant))
        if record is not None:
            enabled: frozenset[str] = records.decode(records.items_key(tenant), record.payload).enabled
            return enabled
    return frozenset()


def check_no_grant_above_a_limit(world: World, before: dict[int, Any], arrival: Arrival) -> None:
    """Only a gauge, which is a fact, may go past a limit, and a limit may be put below what is used."""
    if arrival.event.type in ("apportion.offering_items.set.v1", "apportion.workload.usage_reported.v1"):
        return
    for shard, accounts in before.items():
        for place, now in world.ledger.snapshot(shard).accounts.items():
            known = accounts.get(place)
            rises = now.used > (known.used if known else 0)
            if rises and now.limit is not None and place[1] not in BYTES:
                assert now.used <= now.limit, place


def check_one_edition(world: World) -> None:
    for shard in range(world.ledger.shards):
        for key, record in world.ledger.snapshot(shard).records.items():
            if key.kind == "workload":
                holding = records.decode(key, record.payload).holding
                assert sum(CATALOG.item(name).role == "base" for name in holding) <= 1, holding
                assert len({CATALOG.item(name).edition for name in holding}) <= 1, holding


class Shaky(ReferenceLedger):
    """A ledger whose commits fail now and then, before or after they were carried out."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(shards=4)
        self.chance = chance
        self.calm = True

    async def commit(self, shard: int, transactions: Sequence[Transaction], now_ms: int) -> list[Outcome]:
        if not self.calm and self.chance.random() < 0.15:
            raise LedgerUnavailable("connection", "it is gone before the call")
        outcomes = await super().commit(shard, transactions, now_ms)
        if not self.calm and self.chance.random() < 0.15:
            raise LedgerUnavailable("timeout", "it is gone after the call")
        return outcomes


@given(seed=st.integers(0, 2**32), length=st.integers(1, 60), batch=st.sampled_from((1, 7, 1000)))
def test_a_ledger_that_fails_now_and_then_changes_nothing(seed: int, length: int, batch: int) -> None:
    asyncio.run(check_failures(seed, length, batch))


async def check_failures(seed: int, length: int, batch: int) -> None:
    chance = random.Random(seed)
    history = Author(chance, limits=chance.random() < 0.5).history(length)
    limited = any("quota" in said.data.get("items", [{}])[0] for said in history if "offering" in said.name)
    steady, shaky = World(), World(ledger=Shaky(random.Random(seed)))
    for world in (steady, shaky):
        await deliver(world, arrivals(world, tree()), 1000)
        arrived = arrivals(world, history)
        if isinstance(world.ledger, Shaky):
            world.ledger.calm = False
        for first in range(0, len(arrived), batch):
            await insistently(world, arrived[first : first + batch])
            check_conservation(world)
        await check_announcements(world)
    if not limited:  # the order of jobs may change, and with limits it says who comes first
        assert await state_of(shaky) == await state_of(steady)
    if not limited and batch == 1:
        assert await facts_of(shaky) == await facts_of(steady)


async def insistently(world: World, part: Sequence[Arrival]) -> None:
    """Handle arrivals and what is due as often as it takes, as a process does that starts anew each time."""
    handled = False
    while True:
        try:
            if not handled:
                await world.engine.handle(part)
                handled = True
            while await world.engine.run_due(range(world.ledger.shards)):
                pass
        except LedgerUnavailable:
            world.start()
        else:
            return


async def check_announcements(world: World) -> None:
    """Every decision has its announcement and no announcement is without one: whoever adds up what was announced, each
    id once, has what the records say."""
    holding: dict[tuple[str, str], dict[str, int]] = {}
    usage: dict[tuple[str, str], tuple[int, int]] = {}
    events = await world.announced()
    for event in {event["id"]: event for event in events}.values():
        data, place = event["data"], (event["tenantid"], event["subject"])
        if event["type"] == "apportion.assignment.changed.v1":
            after = {**holding.get(place, {}), **data["assigned"]}
            holding[place] = {item: n for item, n in after.items() if item not in data["released"]}
            assert holding[place] == data["holding"], event
            assert not data["assigned"].keys() & data["released"].keys()
        elif event["type"] == "apportion.usage.changed.v1":
            usage[place] = (data["used"], data["reserved"])
    for shard in range(world.ledger.shards):
        snapshot = world.ledger.snapshot(shard)
        for key, record in snapshot.records.items():
            if key.kind == "workload":
                held = set(records.decode(key, record.payload).holding)
                assert set(holding.get((key.tenant, key.id), {})) == held
        for place, account in snapshot.accounts.items():
            if not place[1].startswith(SILENT_PREFIX):
                assert usage.get(place, (0, 0)) == (account.used, account.reserved)


async def facts_of(world: World) -> list[str]:
    """The ids of everything announced, but for snapshots, whose number goes by how batches were cut."""
    entries = await world.ledger.outbox(range(world.ledger.shards), 1_000_000)
    events = await world.announced()
    assert sum(len(some) for some in entries.values()) == len(events)
    facts = [isinstance(entry, Facts) for shard in sorted(entries) for entry in entries[shard]]
    kept = [event["id"] for event, fact in zip(events, facts, strict=True) if fact]
    assert all(event["type"] != MESSAGE_REJECTED or event["data"]["context"].get("code") != "1000" for event in events)
    return sorted(kept)


# --- several instances at once


class Slow(ReferenceLedger):
    """A ledger whose answers take their time, so that whoever else asks comes in between."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(shards=4)
        self.chance = chance

    async def pause(self) -> None:
        for _ in range(self.chance.randint(0, 3)):
            await asyncio.sleep(0)

    async def commit(self, shard: int, transactions: Sequence[Transaction], now_ms: int) -> list[Outcome]:
        await self.pause()
        outcomes = await super().commit(shard, transactions, now_ms)
        await self.pause()
        return outcomes

    async def read(self, keys: Mapping[int, Sequence[RecordKey]]) -> dict[RecordKey, Record | None]:
        found = await super().read(keys)
        await self.pause()
        return found

    async def accounts(self, tenants: Mapping[int, Sequence[str]]) -> dict[str, dict[str, Account]]:
        found = await super().accounts(tenants)
        await self.pause()
        return found

    async def index_sizes(self, keys: Mapping[int, Sequence[IndexKey]]) -> dict[IndexKey, int]:
        found = await super().index_sizes(keys)
        await self.pause()
        return found

    async def locate(self, tenants: Sequence[str]) -> dict[str, int]:
        found = await super().locate(tenants)
        await self.pause()
        return found


@given(seed=st.integers(0, 2**32), length=st.integers(1, 60), batch=st.sampled_from((1, 7, 1000)))
def test_several_instances_at_once_end_as_one_would(seed: int, length: int, batch: int) -> None:
    asyncio.run(check_instances(seed, length, batch))


async def check_instances(seed: int, length: int, batch: int) -> None:
    chance = random.Random(seed)
    limits = chance.random() < 0.5
    history = Author(chance, limits=limits).history(length)
    one, many = World(), World(ledger=Slow(chance))
    await deliver(one, arrivals(one, tree()), 1000)
    await deliver(one, arrivals(one, history), 1)
    await deliver(many, arrivals(many, partners()), 1)
    arrived = arrivals(many, customers() + history)
    topics: dict[str, list[Arrival]] = {}
    for arrival in arrived:
        assert arrival.origin is not None
        topics.setdefault(arrival.origin.topic, []).append(arrival)
    engines = [many.start() for _ in topics]
    streams = [stream(engine, part, batch, chance) for engine, part in zip(engines, topics.values(), strict=True)]
    await asyncio.gather(*streams)
    await deliver(many, [], batch)
    check_conservation(many)
    check_tree(many)
    check_enablement(many)
    await check_announcements(many)
    if not limits:
        assert await state_of(many) == await state_of(one)


async def stream(engine: Engine, part: Sequence[Arrival], batch: int, chance: random.Random) -> None:
    """One instance's share: a topic, and now and then what is due."""
    for first in range(0, len(part), batch):
        await engine.handle(part[first : first + batch])
        if chance.random() < 0.5:
            await engine.run_due(range(4))
