"""From events to announcements, on the reference ledger."""

from __future__ import annotations

import pytest

from tests.unit.handlers.world import MANAGEMENT, WORKSTATIONS, World


async def test_a_protected_workload_holds_its_base_item_and_is_counted_on_every_level() -> None:
    world = World()
    await world.tree()
    await world.protect("w1")
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}
    assert [await world.used(tenant) for tenant in ("cust", "msp", "dist")] == [1, 1, 1]


async def test_a_refusal_names_every_tenant_in_the_way() -> None:
    world = World()
    for tenant, parent, kind in (("dist", "root", "partner"), ("msp", "dist", "partner"), ("cust", "msp", "customer")):
        await world.send("tenant.upserted", tenant, {"parent_id": parent, "kind": kind, "name": tenant})
        item = {"name": WORKSTATIONS, "status": 1, "quota": {"value": 1, "overage": 0}}
        await world.send("offering_items.set", tenant, {"items": [item]})
    await world.protect("w1", "w2")
    (denied,) = await world.announced("assignment.denied", "cust")
    assert {(d["code"], d["tenant_id"], d["limit"], d["used"], d["requested"]) for d in denied["data"]["denials"]} == {
        ("quota_exceeded", tenant, 1, 1, 1) for tenant in ("cust", "msp", "dist")
    }


async def test_a_refused_pack_leaves_the_base_in_place() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT))
    item = {"name": MANAGEMENT, "status": 1, "quota": {"value": 0, "overage": 0}}
    await world.send("offering_items.set", "msp", {"items": [item]})
    await world.protect("w1", features=("backup.files", "management.patch_management"))
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}
    (denied,) = await world.announced("assignment.denied", "cust")
    assert denied["data"]["requested"] == {MANAGEMENT: 1}
    assert denied["data"]["uncovered_features"] == []


async def test_freed_units_go_to_who_waits_oldest_first() -> None:
    world = World()
    await world.tree(quota={"value": 1, "overage": 0})
    await world.protect("w1")
    for workload in ("w3", "w2"):
        world.now_ms += 1000
        await world.protect(workload)
    await world.send("workload.removed", "cust", {"workload_id": "w1"})
    holding = await world.holding("cust")
    assert holding == {"w1": {}, "w3": {WORKSTATIONS: 1}}


@pytest.mark.parametrize("first", ["plan", "workload"])
async def test_the_missing_half_may_arrive_later(first: str) -> None:
    world = World()
    await world.tree()
    await world.send("plan.applied", "cust", {"plan_id": "p", "workload_ids": ["w1"]})
    halves = {
        "plan": ("plan.saved", {"plan_id": "p", "features": ["backup.files"]}),
        "workload": ("workload.registered", {"workload_id": "w1", "type": "workstation"}),
    }
    for name, data in sorted(halves.values(), reverse=first == "workload"):
        await world.send(name, "cust", data)
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}
