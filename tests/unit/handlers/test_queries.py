"""The read side, as docs/contracts.md 4 prints it, on the reference ledger."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from service.handlers import queries, tree
from service.handlers.announcements import rfc3339
from tests.unit.handlers.world import CATALOG, MANAGEMENT, STORAGE, WORKSTATIONS, World

UNLIMITED = {"value": None, "overage": None, "version": 0}


async def usage(world: World, tenant: str) -> dict[str, Any]:
    return msgspec.to_builtins(await queries.usage(world.ledger, CATALOG, tenant))


async def explain(world: World, tenant: str, item: str = WORKSTATIONS) -> dict[str, Any]:
    return msgspec.to_builtins(await queries.explain(world.ledger, CATALOG, tenant, item))


async def workloads(world: World, tenant: str) -> dict[str, Any]:
    return msgspec.to_builtins(await queries.workloads(world.ledger, tenant))


async def test_usage_lists_what_is_enabled_or_used_with_its_quota() -> None:
    world = World()
    await world.tree(quota={"value": 5, "overage": 1})
    await world.protect("w1", "w2")
    assert await usage(world, "cust") == {
        "tenant_id": "cust",
        "items": [
            {
                "offering_item": WORKSTATIONS,
                "usage_name": "workstations",
                "edition": "pck_per_workload",
                "unit": "quantity",
                "status": 1,
                "used": 2,
                "reserved": 0,
                "quota": {"value": 5, "overage": 1, "version": 1},
            }
        ],
    }


async def test_usage_leaves_out_what_is_only_counted_silently() -> None:
    world = World()
    await world.tree()
    assert [row["offering_item"] for row in (await usage(world, "msp"))["items"]] == [WORKSTATIONS]


async def test_usage_shows_an_item_that_is_off_while_somebody_below_still_uses_it() -> None:
    world = World()
    await world.tree()
    await world.protect("w1")
    event = world.event("offering_items.set", "msp", {"items": [{"name": WORKSTATIONS, "status": 0}], "cascade": True})
    await world.engine.handle([event])  # what follows from it is still to be done
    (row,) = (await usage(world, "msp"))["items"]
    assert (row["status"], row["used"], row["quota"]) == (0, 1, UNLIMITED)


async def test_usage_of_a_unit_has_its_customers_quota_and_its_own_numbers() -> None:
    world = World()
    await world.tree(quota={"value": 5, "overage": 0})
    await world.send("tenant.upserted", "unit", {"parent_id": "cust", "kind": "unit", "name": "unit"})
    await world.protect("w1")
    await world.protect("w2", tenant="unit")
    for tenant, used in (("unit", 1), ("cust", 2)):
        (row,) = (await usage(world, tenant))["items"]
        assert (row["used"], row["status"], row["quota"]["value"]) == (used, 1, 5)


async def test_usage_of_root_is_the_sum_over_direct_partners_and_direct_customers() -> None:
    world = World()
    await world.tree()
    await world.send("tenant.upserted", "direct", {"parent_id": "root", "kind": "customer", "name": "direct"})
    await world.send("offering_items.set", "direct", {"items": [{"name": WORKSTATIONS, "status": 1}]})
    await world.ledger.place({"orphan": 0})
    await world.ledger.add_root_child("orphan")  # entered by somebody who then crashed
    await world.protect("w1", "w2")
    await world.protect("w1", tenant="direct")
    rows = {row["offering_item"]: row for row in (await usage(world, "root"))["items"]}
    assert list(rows) == list(CATALOG.items)
    assert (rows[WORKSTATIONS]["used"], rows[WORKSTATIONS]["status"]) == (3, 1)
    assert all(row["quota"] == UNLIMITED for row in rows.values())


async def test_usage_counts_what_is_reserved_and_says_how_much_it_is() -> None:
    world = World()
    await world.tree(quota={"value": 5, "overage": 0})
    await world.send("reservation.reserve", "cust", {"reservation_id": "r", "items": {WORKSTATIONS: 3}})
    for tenant in ("cust", "msp", "dist", "root"):
        row = next(row for row in (await usage(world, tenant))["items"] if row["offering_item"] == WORKSTATIONS)
        assert (row["used"], row["reserved"]) == (3, 3)


async def test_workloads_show_what_each_holds_and_why_it_waits() -> None:
    world = World()
    await world.tree(quota={"value": 1, "overage": 0}, items=(WORKSTATIONS,))
    await world.protect("w1", "w2", features=("backup.files", "management.patch_management"))
    found = await workloads(world, "cust")
    assert found["tenant_id"] == "cust"
    first, second = found["workloads"]
    assert first == {
        "workload_id": "w1",
        "type": "workstation",
        "holding": {WORKSTATIONS: 1},
        "plan_ids": ["plan-backup.files-management.patch_management"],
        "uncovered_features": ["management.patch_management"],
        "waiting": True,
        "denials": [
            {
                "code": "offering_item_not_enabled",
                "offering_item": MANAGEMENT,
                "feature": "management.patch_management",
                "message": first["denials"][0]["message"],
            }
        ],
    }
    assert (second["workload_id"], second["holding"], second["waiting"]) == ("w2", {}, True)
    quota = second["denials"][-1]
    assert {name: quota[name] for name in quota if name != "message"} == {
        "code": "quota_exceeded",
        "offering_item": WORKSTATIONS,
        "tenant_id": "cust",
        "limit": 1,
        "used": 1,
        "requested": 1,
    }


async def test_workloads_say_the_same_reasons_as_the_announcement_did() -> None:
    world = World()
    await world.tree(quota={"value": 0, "overage": 0})
    await world.protect("w1", features=("backup.files", "security.edr"))
    (denied,) = await world.announced("assignment.denied", "cust")
    (row,) = (await workloads(world, "cust"))["workloads"]
    assert row["denials"] == denied["data"]["denials"]


async def test_workloads_that_are_not_registered_are_not_listed() -> None:
    world = World()
    await world.tree()
    await world.send("plan.saved", "cust", {"plan_id": "p", "features": ["backup.files"]})
    await world.send("plan.applied", "cust", {"plan_id": "p", "workload_ids": ["early", "gone"]})
    await world.send("workload.registered", "cust", {"workload_id": "gone", "type": "workstation"})
    await world.send("workload.removed", "cust", {"workload_id": "gone"})
    assert await workloads(world, "cust") == {"tenant_id": "cust", "workloads": []}


async def test_one_workload_can_be_asked_for() -> None:
    world = World()
    await world.tree()
    await world.protect("w1", "w2")
    row = await queries.workload(world.ledger, "cust", "w2")
    assert (row.workload_id, row.holding, row.waiting) == ("w2", {WORKSTATIONS: 1}, False)
    with pytest.raises(queries.WorkloadNotFoundError, match=r"Tenant cust has no workload w3\."):
        await queries.workload(world.ledger, "cust", "w3")


async def test_explain_shows_every_level_up_to_root() -> None:
    world = World()
    await world.tree(quota={"value": 3, "overage": 0})
    soft = {"name": WORKSTATIONS, "status": 1, "quota": {"value": 1, "overage": None}}
    await world.send("offering_items.set", "msp", {"items": [soft]})
    await world.protect("w1", "w2")
    await world.send("reservation.reserve", "cust", {"reservation_id": "r", "items": {WORKSTATIONS: 1}})
    levels = (await explain(world, "cust"))["levels"]
    quotas = [{"value": 3, "overage": 0, "version": 1}, {"value": 1, "overage": None, "version": 2}]
    assert levels == [
        {"tenant_id": tenant, "kind": kind, "used": 3, "reserved": 1, "quota": quota, "available": available}
        for tenant, kind, quota, available in (
            ("cust", "customer", quotas[0], 0),
            ("msp", "partner", quotas[1], None),
            ("dist", "partner", UNLIMITED, None),
            ("root", "root", UNLIMITED, None),
        )
    ]


async def test_explain_says_that_nothing_is_available_where_the_item_is_off() -> None:
    world = World()
    await world.tree()
    assert [level["available"] for level in (await explain(world, "cust", MANAGEMENT))["levels"]] == [0, 0, 0, None]


async def test_explain_names_the_largest_holders() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, STORAGE))
    await world.protect("w1", "w2")
    for workload, size in (("w1", 10), ("w2", 30)):
        await world.send("workload.usage_reported", "cust", {"workload_id": workload, "usage": {"storage_bytes": size}})
    assert (await explain(world, "cust", STORAGE))["largest_holders"] == [
        {"tenant_id": "cust", "workload_id": "w2", "quantity": 30},
        {"tenant_id": "cust", "workload_id": "w1", "quantity": 10},
    ]
    assert (await explain(world, "dist", STORAGE))["largest_holders"] == [{"tenant_id": "msp", "used": 40}]
    assert (await explain(world, "root", STORAGE))["largest_holders"] == [{"tenant_id": "dist", "used": 40}]


async def test_explain_of_a_customer_counts_the_workloads_of_its_units() -> None:
    world = World()
    await world.tree()
    await world.send("tenant.upserted", "unit", {"parent_id": "cust", "kind": "unit", "name": "unit"})
    await world.protect("w1", tenant="unit")
    holders = (await explain(world, "cust"))["largest_holders"]
    assert holders == [{"tenant_id": "unit", "workload_id": "w1", "quantity": 1}]


@pytest.mark.parametrize("level", ["cust", "msp", "dist"])
async def test_explain_shows_who_waits_on_whatever_level_it_is_short(level: str) -> None:
    world = World()
    await world.tree()
    hard = {"name": WORKSTATIONS, "status": 1, "quota": {"value": 1, "overage": 0}}
    await world.send("offering_items.set", level, {"items": [hard]})
    await world.protect("w1")
    since = []
    for workload in ("w9", "w2"):
        world.now_ms += 1000
        since.append(world.now_ms)
        await world.protect(workload)
    expected = [
        {"tenant_id": "cust", "workload_id": workload, "since": rfc3339(ms)}
        for workload, ms in zip(("w9", "w2"), since, strict=True)
    ]
    for asked in ("cust", "msp", "dist", "root"):
        assert (await explain(world, asked))["waiting"] == expected


async def test_explain_shows_who_waits_for_an_item_that_is_not_enabled_and_nobody_else() -> None:
    world = World()
    await world.tree(quota={"value": 1, "overage": 0})
    await world.protect("w1", features=("backup.files", "management.patch_management"))
    await world.protect("w2")
    await world.send("reservation.reserve", "cust", {"reservation_id": "r", "items": {WORKSTATIONS: 1}})
    assert [row["workload_id"] for row in (await explain(world, "cust", MANAGEMENT))["waiting"]] == ["w1"]
    assert [row["workload_id"] for row in (await explain(world, "cust"))["waiting"]] == ["w2"]


async def test_asking_for_what_does_not_exist_is_answered_with_a_sentence() -> None:
    world = World()
    await world.tree()
    await world.ledger.place({"orphan": 1})
    for unknown in ("nobody", "orphan"):
        for ask in (usage, workloads, explain):
            with pytest.raises(tree.TenantNotFoundError, match=rf"There is no tenant {unknown}\."):
                await ask(world, unknown)
    with pytest.raises(queries.ItemNotFoundError, match=r"The catalogue has no offering item nothing\."):
        await explain(world, "cust", "nothing")


async def test_a_tenant_is_shown_with_the_payment_model_that_counts_for_it() -> None:
    world = World()
    await world.tree()
    prepaid = {"parent_id": "dist", "kind": "partner", "name": "The MSP", "payment_model": "prepaid"}
    await world.send("tenant.upserted", "msp", prepaid)
    assert msgspec.to_builtins(await queries.tenant(world.ledger, "cust")) == {
        "tenant_id": "cust",
        "parent_id": "msp",
        "kind": "customer",
        "name": "cust",
        "enabled": True,
        "deleted": False,
        "pricing_mode": "trial",
        "payment_model": "prepaid",
        "version": 1,
    }
    models = {row.tenant_id: row.payment_model for row in await queries.tenants(world.ledger, "root")}
    assert models == {"root": "pay_as_you_go", "dist": "pay_as_you_go", "msp": "prepaid", "cust": "prepaid"}
    assert [row.payment_model for row in await queries.tenants(world.ledger, "cust")] == ["prepaid"]


async def test_the_tree_lists_everybody_below_a_tenant_siblings_by_name_and_nobody_who_was_deleted() -> None:
    world = World()
    await world.tree()
    for tenant, parent, kind, name in (
        ("c2", "msp", "customer", "alpha"),
        ("c3", "msp", "customer", "Zeta"),
        ("u1", "cust", "unit", "unit"),
        ("d2", "root", "partner", "another"),
    ):
        await world.send("tenant.upserted", tenant, {"parent_id": parent, "kind": kind, "name": name})
    gone = {"parent_id": "msp", "kind": "customer", "name": "Zeta", "enabled": False}
    await world.send("tenant.upserted", "c3", gone)
    await world.send("tenant.deleted", "c3", {})
    everybody = [row.tenant_id for row in await queries.tenants(world.ledger, "root")]
    assert everybody == ["root", "d2", "dist", "msp", "c2", "cust", "u1"]
    assert [row.tenant_id for row in await queries.tenants(world.ledger, "msp")] == ["msp", "c2", "cust", "u1"]
    assert (await queries.tenant(world.ledger, "c3")).deleted
