"""The ledger against its records, and its repair, on the reference ledger (docs/design.md 6, invariants 1 to 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from service import records
from service.handlers import repairs, reservations, verification
from service.handlers.verification import Report
from service.ledger.reference import ReferenceLedger
from service.ledger.transaction import Account, Attempt, Limit, Take, Timer, Transaction
from service.records import Workload
from tests.unit.handlers.world import CATALOG, MANAGEMENT, STORAGE, WORKSTATIONS, World

FEATURES = ("backup.files", "management.patch_management")
PLAN = f"plan-{'-'.join(FEATURES)}"


async def busy_world() -> World:
    """Workloads, bytes, a reservation, somebody who waits, a unit, and a tenant that was deleted."""
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT, STORAGE))
    hard = {"name": WORKSTATIONS, "status": 1, "quota": {"value": 6, "overage": 0}}
    await world.send("offering_items.set", "msp", {"items": [hard]})
    await world.send("tenant.upserted", "unit", {"parent_id": "cust", "kind": "unit", "name": "unit"})
    await world.protect("w1", "w2", features=FEATURES)
    await world.protect("w1", tenant="unit")
    await world.send("workload.usage_reported", "cust", {"workload_id": "w1", "usage": {"storage_bytes": 1000}})
    await world.send("reservation.reserve", "cust", {"reservation_id": "r", "items": {WORKSTATIONS: 3}})
    await world.protect("w3")
    gone = {"parent_id": "msp", "kind": "customer", "name": "gone"}
    await world.send("tenant.upserted", "gone", gone)
    items = [{"name": item, "status": 1} for item in (WORKSTATIONS, STORAGE)]
    await world.send("offering_items.set", "gone", {"items": items})
    await world.send("tenant.upserted", "gone", {**gone, "enabled": False})
    await world.send("tenant.deleted", "gone", {})
    return world


async def verify(world: World) -> Report:
    return await verification.verify(world.ledger, CATALOG)


async def meddle(world: World, tenant: str, attempt: Attempt) -> None:
    """Change the ledger as no handler would."""
    shard = (await world.ledger.locate([tenant]))[tenant]
    tags = [(name, "production") for name in ("unit", "cust", "msp", "dist")]
    await world.ledger.commit(shard, [Transaction([attempt], tags=tags)], world.now_ms)


def kinds(report: Report) -> set[tuple[str, str]]:
    return {(found.kind, found.tenant_id) for found in report.violations}


async def test_what_events_have_made_is_in_order() -> None:
    report = await verify(await busy_world())
    assert (report.violations, report.notes) == ([], [])
    assert report.as_json() == {"ok": True, "tenants": 5, "workloads": 4, "reservations": 1, "violations": []}


async def test_what_is_reserved_for_a_partner_is_accounted_for_like_that_of_a_customer() -> None:
    world = await busy_world()
    await world.send("reservation.reserve", "msp", {"reservation_id": "p", "items": {MANAGEMENT: 2}})
    await world.send("reservation.reserve", "dist", {"reservation_id": "p", "items": {MANAGEMENT: 1}})
    found = await verification.verify(world.ledger, CATALOG)
    assert found.violations == [] and found.reservations == 3
    assert await world.used("dist", MANAGEMENT) == 3 + await world.used("cust", MANAGEMENT)


async def test_bytes_that_a_deleted_tenant_still_reports_stand_in_the_sums_above() -> None:
    world = await busy_world()
    await world.send("workload.registered", "gone", {"workload_id": "w", "type": "workstation"})
    await world.send("workload.usage_reported", "gone", {"workload_id": "w", "usage": {"storage_bytes": 7}})
    assert await world.used("msp", STORAGE) - await world.used("cust", STORAGE) == await world.used("gone", STORAGE)
    assert (await verify(world)).violations == []


WRONG: Mapping[str, tuple[str, Attempt, set[tuple[str, str]]]] = {
    "usage": ("dist", Attempt(take=[Take(("dist",), WORKSTATIONS, 5)]), {("usage", "dist")}),
    "usage in the middle": (
        "msp",
        Attempt(take=[Take(("msp",), STORAGE, 5, fact=True)]),
        {("usage", "msp"), ("usage", "dist")},
    ),
    "reserved": ("cust", Attempt(take=[Take(("cust",), WORKSTATIONS, 0, -1)]), {("usage", "cust"), ("usage", "msp")}),
    "more than workloads hold": (
        "unit",
        Attempt(take=[Take(("unit", "cust", "msp", "dist"), MANAGEMENT, 1)]),
        {("usage", "unit")},
    ),
    "quota": ("msp", Attempt(limits=[Limit("msp", WORKSTATIONS, 60, 0)]), {("limit", "msp")}),
    "enabled below": ("dist", Attempt(take=[Take(("dist",), f".{WORKSTATIONS}", 1)]), {("enabled_below", "dist")}),
    "applied": ("cust", Attempt(take=[Take(("cust",), f".plan/{PLAN}", -1)]), {("applied", "cust")}),
    "applied to nobody": ("unit", Attempt(take=[Take(("unit",), ".plan/none", 3)]), {("applied", "unit")}),
    "children": ("dist", Attempt(put=[(records.children_key("dist"), records.encode(3))]), {("children", "dist")}),
    "no timer": ("cust", Attempt(timers=[Timer(reservations.expiry("cust", "r"), None)]), {("reservation", "cust")}),
    "a stray timer": ("cust", Attempt(timers=[Timer(reservations.expiry("cust", "x"), 2**50)]), {("timer", "cust")}),
    "nobody knows that it waits": ("cust", Attempt(unwait=[("cust", "w3")]), {("waiting", "cust")}),
}  # fmt: skip - one row a line reads best


@pytest.mark.parametrize("name", WRONG)
async def test_what_is_wrong_is_found_where_it_is(name: str) -> None:
    world = await busy_world()
    tenant, attempt, expected = WRONG[name]
    await meddle(world, tenant, attempt)
    report = await verify(world)
    assert kinds(report) == expected
    assert not report.ok


@pytest.mark.parametrize("name", WRONG)
async def test_what_is_wrong_is_repaired_and_nothing_else_changes(name: str) -> None:
    untouched = await busy_world()
    world = await busy_world()
    tenant, attempt, _ = WRONG[name]
    await meddle(world, tenant, attempt)
    done = await repairs.repair(world.engine, apply=True)
    assert done.changes
    assert done.left == []
    assert (await verify(world)).violations == []
    assert await numbers(world) == await numbers(untouched)
    assert (await repairs.repair(world.engine, apply=True)).changes == []


async def numbers(world: World) -> list[dict[tuple[str, str], Any]]:
    """The accounts, without the notices that the damage may have raised."""
    snapshots = [world.ledger.snapshot(shard) for shard in range(world.ledger.shards)]
    return [
        {key: (one.used, one.reserved, one.value, one.overage) for key, one in snapshot.accounts.items()}
        for snapshot in snapshots
    ]


async def test_a_repair_that_is_not_applied_says_all_that_would_be_done_and_does_nothing() -> None:
    world = await busy_world()
    await meddle(world, "cust", Attempt(take=[Take(("cust", "msp", "dist"), STORAGE, 5, fact=True)]))
    before = await numbers(world)
    planned = await repairs.repair(world.engine, apply=False)
    assert [(each.tenant_id, each.recorded, each.expected) for each in planned.changes] == [
        (tenant, [1005, 0], [1000, 0]) for tenant in ("cust", "msp", "dist")
    ]
    assert await numbers(world) == before
    done = await repairs.repair(world.engine, apply=True)
    assert msgspec.structs.replace(planned, applied=True) == done


async def test_a_repair_is_announced_to_billing() -> None:
    world = await busy_world()
    await meddle(world, "dist", Attempt(take=[Take(("dist",), WORKSTATIONS, 5)]))
    await repairs.repair(world.engine, apply=True)
    last = (await world.announced("usage.changed", "dist"))[-1]
    assert (last["data"]["used"], last["data"]["pricing_mode"], last["causeid"]) == (6, "production", "repair")


async def test_a_workload_of_two_editions_is_found_and_brought_in_line() -> None:
    world = await busy_world()
    shard = (await world.ledger.locate(["cust"]))["cust"]
    key = records.workload_key("cust", "w1")
    stored = (await world.ledger.read({shard: [key]}))[key]
    assert stored is not None
    known: Workload = records.decode(key, stored.payload)
    both = msgspec.structs.replace(known, holding={**known.holding, "p_adv_workstations": 1})
    take = [Take(("cust", "msp", "dist"), "p_adv_workstations", 1)]
    await meddle(world, "cust", Attempt(take=take, put=[(key, records.encode(both))]))
    assert kinds(await verify(world)) == {("edition", "cust")}
    await repairs.repair(world.engine, apply=True)
    assert (await verify(world)).ok
    assert (await world.holding("cust"))["w1"] == {WORKSTATIONS: 1, MANAGEMENT: 1}


async def test_use_above_a_quota_that_was_lowered_is_a_note_and_no_violation() -> None:
    world = await busy_world()
    lowered = {"name": WORKSTATIONS, "status": 1, "quota": {"value": 2, "overage": 0}}
    await world.send("offering_items.set", "msp", {"items": [lowered]})
    report = await verify(world)
    assert report.ok
    assert f"msp uses 6 of {WORKSTATIONS} and may use 2" in report.notes[0]


class _AtWork(ReferenceLedger):
    """Somebody writes whenever somebody reads accounts; ``work`` is what they do."""

    work: Any = None
    busy = False

    async def accounts(self, tenants: Mapping[int, Sequence[str]]) -> dict[str, dict[str, Account]]:
        found = await super().accounts(tenants)
        if self.work is not None and not self.busy:
            self.busy = True
            await self.work()
            self.busy = False
        return found


async def test_nothing_is_found_wrong_while_others_write() -> None:
    world = World(shards=1, ledger=_AtWork(shards=1))
    ledger = world.ledger
    assert isinstance(ledger, _AtWork)
    await world.tree()
    turn = 0

    async def come_and_go() -> None:
        nonlocal turn
        turn += 1
        await world.protect(f"w{turn}")
        if turn > 3:
            await world.send("workload.removed", "cust", {"workload_id": f"w{turn - 3}"})

    ledger.work = come_and_go
    report = await verify(world)
    assert turn > 10
    assert report.violations == []
    ledger.work = None
    await meddle(world, "msp", Attempt(take=[Take(("msp",), WORKSTATIONS, 5)]))
    ledger.work = come_and_go
    report = await verify(world)
    assert {("usage", "msp")} <= kinds(report) <= {("usage", "msp"), ("usage", "dist")}
