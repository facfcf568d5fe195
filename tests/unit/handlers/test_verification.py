"""The ledger against its records, on the reference ledger."""

from __future__ import annotations

from service.handlers import verification
from service.ledger.transaction import Attempt, Take, Transaction
from tests.unit.handlers.world import CATALOG, MANAGEMENT, STORAGE, WORKSTATIONS, World


async def busy_world() -> World:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT, STORAGE))
    await world.protect("w1", "w2", features=("backup.files", "management.patch_management"))
    await world.send("workload.usage_reported", "cust", {"workload_id": "w1", "usage": {"storage_bytes": 1000}})
    await world.send("reservation.reserve", "cust", {"reservation_id": "r", "items": {WORKSTATIONS: 3}})
    return world


async def test_a_ledger_that_events_made_is_in_order() -> None:
    world = await busy_world()
    report = await verification.verify(world.ledger, CATALOG)
    assert (report.ok, report.tenants, report.workloads, report.reservations) == (True, 3, 2, 1)


async def test_a_counter_that_is_wrong_on_one_level_is_found_and_repaired() -> None:
    world = await busy_world()
    shard = (await world.ledger.locate(["msp"]))["msp"]
    wrong = Transaction([Attempt(take=[Take(("msp",), WORKSTATIONS, 5)])])
    await world.ledger.commit(shard, [wrong], world.now_ms)
    report = await verification.verify(world.ledger, CATALOG)
    assert {
        (found["tenant_id"], tuple(found["recorded"]), tuple(found["expected"])) for found in report.violations
    } == {
        ("msp", (10, 3), (5, 3)),
        ("dist", (5, 3), (10, 3)),
    }
    for _ in range(2):  # from below: what is above is compared with what is right below it
        await verification.repair(world.engine, await verification.verify(world.ledger, CATALOG))
    assert (await verification.verify(world.ledger, CATALOG)).ok


async def test_a_deleted_tenant_leaves_the_sums_in_order() -> None:
    world = await busy_world()
    await world.send("tenant.upserted", "cust", {"parent_id": "msp", "kind": "customer", "name": "c", "enabled": False})
    await world.send("tenant.deleted", "cust", {})
    report = await verification.verify(world.ledger, CATALOG)
    assert (report.ok, report.violations) == (True, [])
    assert await world.used("dist") == 0
