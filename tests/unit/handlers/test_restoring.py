"""A deleted tenant that comes back, below a parent that has changed in the meantime (docs/domain.md 2)."""

from __future__ import annotations

from tests.unit.handlers.world import WORKSTATIONS, World


async def test_an_item_that_a_restored_tenant_lost_leaves_no_quota_behind() -> None:
    world = World()
    await world.tree(quota={"value": 0, "overage": 0})
    await world.send(
        "tenant.upserted", "cust", {"parent_id": "msp", "kind": "customer", "name": "cust", "enabled": False}
    )
    await world.send("tenant.deleted", "cust", {})
    off = [{"name": WORKSTATIONS, "status": 0}]
    await world.send("offering_items.set", "msp", {"items": off})
    await world.send("tenant.upserted", "cust", {"parent_id": "msp", "kind": "customer", "name": "cust"})
    for tenant in ("msp", "cust"):
        await world.send("offering_items.set", tenant, {"items": [{"name": WORKSTATIONS, "status": 1}]})
    await world.protect("w1")
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}
