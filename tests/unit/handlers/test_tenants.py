"""The tree of tenants (docs/domain.md 2)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service import records
from service.records import name_key
from service.rules import tenants as rules
from tests.unit.handlers.world import MANAGEMENT, STORAGE, WORKSTATIONS, World

HARD = {"value": 1, "overage": 0}


async def tree_of_kinds(world: World) -> None:
    """One tenant of each kind, called as its kind."""
    for kind, parent in (("partner", "root"), ("folder", "partner"), ("customer", "partner"), ("unit", "customer")):
        await world.upsert(kind, parent, kind)


async def offboard(world: World, tenant: str = "cust", parent: str = "msp", kind: str = "customer") -> None:
    await world.upsert(tenant, parent, kind, enabled=False)
    await world.send("tenant.deleted", tenant, {})


# --- kinds, parents, names


@pytest.mark.parametrize("kind", ["partner", "folder", "customer", "unit"])
@pytest.mark.parametrize("parent", ["root", "partner", "folder", "customer", "unit"])
async def test_a_tenant_stands_only_below_kinds_that_may_have_it(kind: str, parent: str) -> None:
    world = World()
    await tree_of_kinds(world)
    result = await world.upsert("new", parent, kind)
    allowed = {
        "partner": {"root", "partner"},
        "folder": {"partner", "folder"},
        "customer": {"root", "partner", "folder"},
        "unit": {"customer", "unit"},
    }
    if parent in allowed[kind]:
        assert result.kind == "applied"
        assert (await world.said("tenant.changed", "new"))[0]["parent_id"] == parent
    else:
        assert (result.kind, result.code, result.context["code"]) == ("rejected", "not_allowed", "1027")
        assert await world.announced("tenant.changed", "new") == []


async def test_a_tenant_keeps_its_kind() -> None:
    world = World()
    await tree_of_kinds(world)
    result = await world.upsert("customer", "partner", "folder")
    assert (result.code, result.context["code"]) == ("not_allowed", "1027")


async def test_a_customer_starts_in_trial_and_a_partner_in_production() -> None:
    world = World()
    await tree_of_kinds(world)
    modes = {event["tenantid"]: event["data"]["pricing_mode"] for event in await world.announced("tenant.changed")}
    assert modes == {"partner": "production", "folder": "production", "customer": "trial", "unit": "trial"}


async def test_what_is_announced_of_a_tenant_is_all_of_it() -> None:
    world = World()
    await world.upsert("dist", "root", "partner", payment_model="prepaid")
    await world.upsert("cust", "dist", "customer", pricing_mode="production")
    (event,) = await world.announced("tenant.changed", "cust")
    assert event["subject"] == "cust"
    assert event["causeid"] == "event-1"
    assert event["data"] == {
        "parent_id": "dist",
        "kind": "customer",
        "name": "cust",
        "enabled": True,
        "deleted": False,
        "pricing_mode": "production",
        "payment_model": "prepaid",
        "version": 1,
    }


async def test_the_payment_model_is_inherited_unless_set_and_root_pays_as_it_goes() -> None:
    world = World()
    await world.upsert("dist", "root", "partner")
    await world.upsert("msp", "dist", "partner", payment_model="prepaid")
    await world.upsert("cust", "msp", "customer")
    await world.upsert("own", "msp", "customer", payment_model="pay_as_you_go")
    models = {event["tenantid"]: event["data"]["payment_model"] for event in await world.announced("tenant.changed")}
    assert models == {"dist": "pay_as_you_go", "msp": "prepaid", "cust": "prepaid", "own": "pay_as_you_go"}


async def test_names_are_unique_among_siblings_whatever_their_case() -> None:
    world = World()
    await world.upsert("dist", "root", "partner")
    await world.send("tenant.upserted", "a", {"parent_id": "dist", "kind": "customer", "name": "Cedar Dental"})
    data = {"parent_id": "dist", "kind": "customer", "name": "cedar  DENTAL"}
    result = await world.send("tenant.upserted", "b", data)
    assert (result.code, result.context) == ("not_allowed", {"code": "1004", "tenant_id": "a"})
    assert (await world.send("tenant.upserted", "c", {**data, "parent_id": "root"})).kind == "applied"


async def test_a_name_that_was_given_up_is_free() -> None:
    world = World()
    await world.upsert("dist", "root", "partner")
    for parent in ("dist", "root"):
        first, second = f"{parent}-1", f"{parent}-2"
        data = {"parent_id": parent, "kind": "partner"}
        await world.send("tenant.upserted", first, {**data, "name": "Old"})
        await world.send("tenant.upserted", first, {**data, "name": "New"})
        assert (await world.send("tenant.upserted", second, {**data, "name": "Old"})).kind == "applied"
        assert (await world.send("tenant.upserted", first, {**data, "name": "Old"})).context["code"] == "1004"


async def test_a_tenant_may_change_the_case_of_its_name() -> None:
    world = World()
    await world.upsert("dist", "root", "partner")
    data = {"parent_id": "dist", "kind": "customer"}
    for name in ("Cedar", "CEDAR"):
        assert (await world.send("tenant.upserted", "cust", {**data, "name": name})).kind == "applied"
    assert (await world.read(name_key("dist", "cedar"))).tenant == "cust"


async def test_names_of_direct_partners_are_unique_within_one_batch_too() -> None:
    world = World(shards=16)
    data = {"parent_id": "root", "kind": "partner", "name": "Same"}
    results = await world.handle(*(world.event("tenant.upserted", name, data) for name in ("a", "b", "c")))
    assert [result.kind for result in results] == ["applied", "rejected", "rejected"]
    assert [context["code"] for _, context in await world.dead_letters()] == ["1004", "1004"]


async def test_a_direct_partners_name_given_up_in_a_batch_is_free_for_what_follows_in_it() -> None:
    world = World(shards=16)
    data = {"parent_id": "root", "kind": "partner"}
    await world.send("tenant.upserted", "a", {**data, "name": "Name"})
    batch = [("a", "Other"), ("b", "Name"), ("a", "Name"), ("b", "Third"), ("a", "Name")]
    events = [world.event("tenant.upserted", tenant, {**data, "name": name}) for tenant, name in batch]
    results = await world.handle(*events)
    assert [result.kind for result in results] == ["applied", "applied", "rejected", "applied", "applied"]


async def test_of_two_instances_that_give_one_name_one_is_refused() -> None:
    world = World(shards=16)
    first, second = world.engine, world.start()
    data = {"parent_id": "root", "kind": "partner", "name": "Same"}
    results = await asyncio.gather(
        first.handle([world.request("tenant.upserted", "a", data)]),
        second.handle([world.request("tenant.upserted", "b", data)]),
    )
    assert sorted(result.kind for (result,) in results) == ["applied", "rejected"]


async def test_old_news_of_a_direct_partner_does_not_complain_of_its_old_name() -> None:
    world = World()
    data = {"parent_id": "root", "kind": "partner"}
    old = world.event("tenant.upserted", "a", {**data, "name": "Name"})
    await world.handle(old)
    await world.send("tenant.upserted", "a", {**data, "name": "Other"})
    await world.send("tenant.upserted", "b", {**data, "name": "Name"})
    again = world.event("tenant.upserted", "a", {**data, "name": "Name"}, id=old.event.id, time_us=old.event.time_us)
    await world.handle(again, old)
    assert await world.dead_letters() == []
    assert (await world.read(records.tenant_key("a"))).name == "Other"


async def test_root_stays_as_it_is() -> None:
    world = World()
    await tree_of_kinds(world)
    for name, data in (
        ("tenant.upserted", {"parent_id": "partner", "kind": "partner", "name": "x"}),
        ("tenant.upserted", {"parent_id": "root", "kind": "partner", "name": "x"}),
        ("tenant.deleted", {}),
        ("offering_items.set", {"items": [{"name": WORKSTATIONS, "status": 0}]}),
        ("workload.registered", {"workload_id": "w", "type": "workstation"}),
        ("plan.saved", {"plan_id": "p", "features": []}),
        ("reservation.reserve", {"reservation_id": "r", "items": {WORKSTATIONS: 1}}),
    ):
        result = await world.send(name, "root", data)
        assert (result.kind, result.code, result.context["code"]) == ("rejected", "not_allowed", "1002"), name
    assert await world.ledger.locate(["root"]) == {}


async def test_a_tree_has_a_bounded_depth() -> None:
    world = World()
    await world.upsert("t0", "root", "partner")
    for level in range(1, rules.DEPTH_MAX):
        assert (await world.upsert(f"t{level}", f"t{level - 1}", "partner")).kind == "applied"
    result = await world.upsert("deep", f"t{rules.DEPTH_MAX - 1}", "partner")
    assert (result.code, result.context["code"]) == ("not_allowed", "1027")


# --- versions


async def test_an_update_that_names_a_stale_version_is_refused_and_one_that_names_none_is_not_checked() -> None:
    world = World()
    await world.upsert("dist", "root", "partner")
    assert (await world.upsert("dist", "root", "partner", enabled=False)).kind == "applied"
    result = await world.upsert("dist", "root", "partner", version=1)
    assert (result.code, result.context) == ("version_mismatch", {"code": "1001", "tenant_id": "dist", "version": 2})
    assert await world.dead_letters() == [("version_mismatch", result.context)]
    assert (await world.upsert("dist", "root", "partner", version=2)).kind == "applied"
    assert [data["version"] for data in await world.said("tenant.changed", "dist")] == [1, 2, 3]


async def test_an_update_that_changes_nothing_is_not_announced_and_gives_no_version() -> None:
    world = World()
    for _ in range(2):
        await world.upsert("dist", "root", "partner")
    assert [data["version"] for data in await world.said("tenant.changed", "dist")] == [1]


async def test_what_an_update_does_not_say_of_pricing_and_payment_stays() -> None:
    world = World()
    await world.upsert("dist", "root", "partner", payment_model="prepaid", pricing_mode="suspended")
    await world.upsert("dist", "root", "partner", enabled=False)
    last = (await world.said("tenant.changed", "dist"))[-1]
    assert (last["payment_model"], last["pricing_mode"]) == ("prepaid", "suspended")


# --- pricing mode


async def test_trial_becomes_production_once_and_cannot_be_undone() -> None:
    world = World()
    await world.upsert("cust", "root", "customer")
    assert (await world.upsert("cust", "root", "customer", pricing_mode="production")).kind == "applied"
    for mode in ("trial", "suspended", "trial"):
        result = await world.upsert("cust", "root", "customer", pricing_mode=mode)
        assert result.kind == ("applied" if mode == "suspended" else "rejected")
    assert (result.code, result.context["code"]) == ("not_allowed", "1027")


async def test_a_tenant_that_was_never_in_production_may_go_back_from_suspended_to_trial() -> None:
    world = World()
    await world.upsert("cust", "root", "customer", pricing_mode="suspended")
    assert (await world.upsert("cust", "root", "customer", pricing_mode="trial")).kind == "applied"


async def test_usage_is_announced_with_the_pricing_mode_of_each_tenant() -> None:
    world = World()
    await world.tree()
    await world.upsert("unit", "cust", "unit")
    await world.protect("w1", tenant="unit")
    modes = {event["tenantid"]: event["data"]["pricing_mode"] for event in await world.announced("usage.changed")}
    assert modes == {"unit": "trial", "cust": "trial", "msp": "production", "dist": "production"}
    await world.upsert("cust", "msp", "customer", pricing_mode="production")
    await world.protect("w2", tenant="unit")
    modes = {event["tenantid"]: event["data"]["pricing_mode"] for event in await world.announced("usage.changed")}
    assert set(modes.values()) == {"production"}


# --- disabled and suspended tenants


@pytest.mark.parametrize("blocked", ["cust", "msp", "dist"])
@pytest.mark.parametrize("how", ["disabled", "suspended"])
async def test_below_a_disabled_or_suspended_tenant_nothing_new_is_acquired(blocked: str, how: str) -> None:
    world = World()
    await world.tree()
    await world.protect("w1")
    await block(world, blocked, how)
    await world.protect("w2")
    (denied,) = await world.said("assignment.denied", "cust")
    assert denied == {
        "workload_id": "w2",
        "workload_type": "workstation",
        "edition": "pck_per_workload",
        "requested": {WORKSTATIONS: 1},
        "holding": {},
        "denials": [
            {
                "code": "tenant_disabled",
                "tenant_id": blocked,
                "message": f"{blocked} is disabled, suspended or deleted",
            }
        ],
        "uncovered_features": [],
    }
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}
    assert await world.used("dist") == 1  # what was there is kept and counted


@pytest.mark.parametrize("blocked", ["cust", "msp", "dist"])
@pytest.mark.parametrize("how", ["disabled", "suspended"])
async def test_enabling_a_tenant_re_evaluates_who_waits_below_it(blocked: str, how: str) -> None:
    world = World()
    await world.tree()
    await block(world, blocked, how)
    await world.protect("w1")
    parent, kind = {"dist": ("root", "partner"), "msp": ("dist", "partner"), "cust": ("msp", "customer")}[blocked]
    await world.upsert(blocked, parent, kind, pricing_mode="production")
    (changed,) = await world.said("assignment.changed", "cust")
    assert (changed["holding"], changed["reason"]) == ({WORKSTATIONS: 1}, "tenant")
    assert await world.waiting("cust") == {}


async def block(world: World, tenant: str, how: str) -> None:
    parent, kind = {"dist": ("root", "partner"), "msp": ("dist", "partner"), "cust": ("msp", "customer")}[tenant]
    more: dict[str, Any] = {"enabled": False} if how == "disabled" else {"pricing_mode": "suspended"}
    await world.upsert(tenant, parent, kind, **more)


async def test_two_disabled_tenants_above_are_both_named_and_both_have_to_be_enabled() -> None:
    world = World()
    await world.tree()
    for tenant in ("msp", "dist"):
        await block(world, tenant, "disabled")
    await world.protect("w1")
    (denied,) = await world.said("assignment.denied", "cust")
    assert [denial["tenant_id"] for denial in denied["denials"]] == ["msp", "dist"]
    await world.upsert("msp", "dist", "partner")
    assert await world.holding("cust") == {}
    await world.upsert("dist", "root", "partner")
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}


async def test_releases_go_on_below_a_disabled_tenant() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT))
    await world.protect("w1", "w2", features=("management.patch_management",))
    await block(world, "dist", "disabled")
    await world.send("workload.removed", "cust", {"workload_id": "w1"})
    await world.send(
        "plan.saved", "cust", {"plan_id": "plan-management.patch_management", "features": ["backup.files"]}
    )
    assert await world.holding("cust") == {"w1": {}, "w2": {WORKSTATIONS: 1}}
    assert await world.said("assignment.denied", "cust") == []


async def test_who_needs_no_more_than_it_has_is_not_denied_below_a_disabled_tenant() -> None:
    world = World()
    await world.tree()
    await world.protect("w1")
    await block(world, "cust", "disabled")
    await world.protect("w1", features=("backup.files", "backup.image"))
    assert await world.said("assignment.denied", "cust") == []


async def test_a_tenant_below_a_disabled_one_is_refused() -> None:
    world = World()
    await world.upsert("dist", "root", "partner", enabled=False)
    result = await world.upsert("cust", "dist", "customer")
    assert (result.code, result.context) == ("not_allowed", {"code": "1003", "tenant_id": "dist"})


# --- deleting and restoring


async def test_deleting_an_enabled_tenant_is_refused() -> None:
    world = World()
    await world.tree()
    result = await world.send("tenant.deleted", "cust", {})
    assert (result.code, result.context) == ("not_allowed", {"code": "1006", "tenant_id": "cust"})


async def test_deleting_a_tenant_with_tenants_below_it_is_refused() -> None:
    world = World()
    await world.tree()
    await world.upsert("msp", "dist", "partner", enabled=False)
    result = await world.send("tenant.deleted", "msp", {})
    assert (result.code, result.context) == ("not_allowed", {"code": "1023", "tenant_id": "msp"})
    await offboard(world)
    assert (await world.send("tenant.deleted", "msp", {})).kind == "applied"


async def test_deleting_releases_assignments_and_reservations_each_with_its_event() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, STORAGE))
    await world.protect("w1", "w2")
    await world.send("workload.usage_reported", "cust", {"workload_id": "w1", "usage": {"storage_bytes": 7}})
    await world.send("reservation.reserve", "cust", {"reservation_id": "r1", "items": {WORKSTATIONS: 3}})
    await offboard(world)
    changed = [data for data in await world.said("assignment.changed", "cust") if data["reason"] == "tenant"]
    assert [(data["workload_id"], data["released"], data["holding"]) for data in changed] == [
        ("w1", {WORKSTATIONS: 1}, {}),
        ("w2", {WORKSTATIONS: 1}, {}),
    ]
    assert await world.said("reservation.released") == [
        {"reservation_id": "r1", "items": {WORKSTATIONS: 3}, "mode": "all_or_nothing"}
    ]
    for tenant in ("cust", "msp", "dist"):
        assert (await world.used(tenant), await world.used(tenant, STORAGE)) == (0, 0)
    last = (await world.said("tenant.changed", "cust"))[-1]
    assert (last["deleted"], last["enabled"]) == (True, False)


async def test_an_upsert_restores_a_deleted_tenant_without_the_released_assignments() -> None:
    world = World()
    await world.tree(quota=HARD)
    await world.protect("w1")
    await offboard(world)
    await world.upsert("cust", "msp", "customer")
    assert (await world.said("tenant.changed", "cust"))[-1]["deleted"] is False
    assert await world.used("dist") == 0
    await world.send("workload.registered", "cust", {"workload_id": "w1", "type": "workstation"})
    assert await world.holding("cust") == {"w1": {}}  # the plans that were applied to it are gone too
    await world.protect("w1", "w2")
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}
    assert (await world.waiting("cust")).keys() == {"w2"}  # its items and quotas are what they were


async def test_what_was_released_by_a_deletion_stays_so_if_the_tenant_comes_back_in_the_same_batch() -> None:
    world = World()
    await world.tree()
    await world.protect("w1", "w2")
    await world.upsert("cust", "msp", "customer", enabled=False)
    data = {"parent_id": "msp", "kind": "customer", "name": "cust"}
    await world.engine.handle(
        [
            world.event("tenant.deleted", "cust", {}),
            world.event("tenant.upserted", "cust", data),
            world.event("workload.registered", "cust", {"workload_id": "w1", "type": "server"}),
        ]
    )
    await world.settle()
    assert await world.holding("cust") == {"w1": {}, "w2": {}}
    known = await world.read(records.workload_key("cust", "w1"))
    assert (known.type, known.links) == ("server", {})


async def test_late_news_of_workloads_from_before_the_deletion_do_not_revive_them() -> None:
    world = World()
    await world.tree()
    await world.protect("w1")
    before_us = world.now_ms * 1000
    world.now_ms += 1000
    await offboard(world)
    await world.upsert("cust", "msp", "customer")
    data = {"workload_id": "w1", "type": "workstation"}
    await world.send("workload.registered", "cust", data, time_us=before_us)
    assert (await world.read(records.workload_key("cust", "w1"))).type is None


async def test_late_news_do_not_restore_a_deleted_tenant() -> None:
    world = World()
    await world.tree()
    before_us = world.now_ms * 1000
    world.now_ms += 1000
    await offboard(world)
    data = {"parent_id": "msp", "kind": "customer", "name": "cust"}
    await world.send("tenant.upserted", "cust", data, time_us=before_us)
    assert (await world.read(records.tenant_key("cust"))).deleted


async def test_the_name_of_a_deleted_tenant_is_free() -> None:
    world = World()
    await world.tree()
    await offboard(world)
    data = {"parent_id": "msp", "kind": "customer", "name": "cust"}
    assert (await world.send("tenant.upserted", "other", data)).kind == "applied"
    assert (await world.send("tenant.upserted", "cust", data)).context["code"] == "1004"


async def test_a_deleted_direct_partner_leaves_its_name_and_can_come_back_under_another() -> None:
    world = World()
    data = {"parent_id": "root", "kind": "partner", "name": "Name"}
    await world.send("tenant.upserted", "a", data)
    await world.send("tenant.upserted", "a", {**data, "enabled": False})
    await world.send("tenant.deleted", "a", {})
    assert (await world.send("tenant.upserted", "b", data)).kind == "applied"
    assert (await world.send("tenant.upserted", "a", data)).context["code"] == "1004"
    assert (await world.send("tenant.upserted", "a", {**data, "name": "Back"})).kind == "applied"


async def test_a_restored_tenant_loses_the_items_that_its_parent_has_no_more_and_says_so() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT), quota={"value": 5, "overage": 0})
    await offboard(world)
    await world.set_items("msp", MANAGEMENT, status=0)
    await world.upsert("cust", "msp", "customer")
    last = (await world.said("offering_item.changed", "cust"))[-1]
    assert last == {
        "offering_item": MANAGEMENT,
        "status": 0,
        "quota": {"value": None, "overage": None, "version": 0},
        "reason": "cascade",
    }
    assert (await world.account("cust", MANAGEMENT)).limit is None
    result = await world.set_items("msp", WORKSTATIONS, status=0)  # still enabled below
    assert result.context["code"] == "1023"


async def test_a_tenant_can_be_restored_below_another_parent_of_its_direct_partner() -> None:
    world = World()
    await world.tree()
    await world.upsert("other", "dist", "partner")
    await world.set_items("other", WORKSTATIONS)
    await offboard(world)
    assert (await world.upsert("cust", "other", "customer")).kind == "applied"
    await world.protect("w1")
    assert [await world.used(tenant) for tenant in ("cust", "other", "msp", "dist")] == [1, 1, 0, 1]
    assert (await world.set_items("msp", WORKSTATIONS, status=0)).kind == "applied"  # nobody below has it any more


async def test_deleting_a_tenant_twice_says_it_once() -> None:
    world = World()
    await world.tree()
    await offboard(world)
    said = len(await world.announced())
    await world.send("tenant.deleted", "cust", {})
    assert len(await world.announced()) == said


# --- moving


async def two_partners(world: World, **quota: Any) -> None:
    """A customer with one protected workload below ``msp``, and ``other`` beside that."""
    await world.tree()
    await world.upsert("other", "dist", "partner")
    await world.set_items("other", WORKSTATIONS, **quota)
    await world.protect("w1")


async def test_a_move_takes_the_usage_along_in_one_step() -> None:
    world = World()
    await two_partners(world)
    assert (await world.upsert("cust", "other", "customer")).kind == "applied"
    assert [await world.used(tenant) for tenant in ("cust", "other", "msp", "dist")] == [1, 1, 0, 1]
    assert (await world.said("tenant.changed", "cust"))[-1]["parent_id"] == "other"
    usage = {event["tenantid"]: event["data"]["used"] for event in await world.announced("usage.changed")}
    assert usage == {"cust": 1, "other": 1, "msp": 0, "dist": 1}
    await world.protect("w2")
    assert [await world.used(tenant) for tenant in ("cust", "other", "msp", "dist")] == [2, 2, 0, 2]


async def test_a_move_takes_reservations_and_gauges_along() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, STORAGE))
    await world.upsert("other", "dist", "partner")
    await world.set_items("other", WORKSTATIONS, STORAGE)
    await world.protect("w1")
    await world.send("workload.usage_reported", "cust", {"workload_id": "w1", "usage": {"storage_bytes": 7}})
    await world.send("reservation.reserve", "cust", {"reservation_id": "r1", "items": {WORKSTATIONS: 2}})
    await world.upsert("cust", "other", "customer")
    other = await world.account("other")
    assert (other.used, other.reserved, await world.used("other", STORAGE), await world.used("msp", STORAGE)) == (
        3,
        2,
        7,
        0,
    )
    await world.send("reservation.release", "cust", {"reservation_id": "r1"})
    assert (await world.account("other")).used == 1


async def test_a_move_is_refused_with_1022_where_a_hard_quota_above_the_new_place_would_not_hold() -> None:
    world = World()
    await two_partners(world, quota={"value": 0, "overage": 0})
    result = await world.upsert("cust", "other", "customer")
    denial = {
        "code": "quota_exceeded",
        "offering_item": WORKSTATIONS,
        "tenant_id": "other",
        "limit": 0,
        "used": 0,
        "requested": 1,
        "message": f"other may use 0 of {WORKSTATIONS} and uses 0; 1 more were requested",
    }
    assert (result.kind, result.code, result.context) == (
        "rejected",
        "not_allowed",
        {"code": "1022", "denials": [denial]},
    )
    assert await world.dead_letters() == [("not_allowed", {"code": "1022", "denials": [denial]})]
    assert [await world.used(tenant) for tenant in ("cust", "other", "msp", "dist")] == [1, 0, 1, 1]
    assert (await world.read(records.tenant_key("cust"))).parent_id == "msp"


async def test_a_refused_move_does_not_hold_up_what_follows_it() -> None:
    world = World()
    await two_partners(world, quota={"value": 0, "overage": 0})
    data = {"parent_id": "other", "kind": "customer", "name": "cust"}
    results = await world.handle(
        world.event("tenant.upserted", "cust", data),
        world.event("tenant.upserted", "cust", {**data, "parent_id": "msp", "pricing_mode": "production"}),
    )
    assert [result.kind for result in results] == ["rejected", "applied"]


async def test_a_full_quota_that_both_places_share_does_not_refuse_a_move() -> None:
    world = World()
    await two_partners(world)
    await world.set_items("dist", WORKSTATIONS, quota=HARD)
    assert (await world.upsert("cust", "other", "customer")).kind == "applied"


async def test_a_move_to_a_place_with_room_re_evaluates_who_waits() -> None:
    world = World()
    await two_partners(world)
    await world.set_items("msp", WORKSTATIONS, quota=HARD)
    await world.upsert("unit", "cust", "unit")
    await world.protect("w2")
    await world.protect("w3", tenant="unit")
    assert await world.used("cust") == 1
    await world.upsert("cust", "other", "customer")
    assert (await world.holding("cust"), await world.holding("unit")) == (
        {"w1": {WORKSTATIONS: 1}, "w2": {WORKSTATIONS: 1}},
        {"w3": {WORKSTATIONS: 1}},
    )


async def test_a_move_needs_the_items_at_the_new_parent() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT))
    await world.upsert("other", "dist", "partner")
    await world.set_items("other", WORKSTATIONS)
    result = await world.upsert("cust", "other", "customer")
    assert (result.code, result.context) == (
        "not_allowed",
        {"code": "1014", "tenant_id": "other", "offering_items": [MANAGEMENT]},
    )


async def test_a_tenant_cannot_move_below_itself() -> None:
    world = World()
    await world.tree()
    await world.upsert("low", "msp", "partner")
    result = await world.upsert("msp", "low", "partner")
    assert (result.code, result.context) == ("not_allowed", {"code": "1007", "tenant_id": "msp"})
    assert (await world.upsert("msp", "msp", "partner")).context["code"] == "1007"


async def test_a_tenant_cannot_move_below_a_disabled_tenant() -> None:
    world = World()
    await two_partners(world)
    await world.upsert("other", "dist", "partner", enabled=False)
    result = await world.upsert("cust", "other", "customer")
    assert (result.code, result.context) == ("not_allowed", {"code": "1013", "tenant_id": "other"})


@pytest.mark.parametrize(
    ("tenant", "parent"), [("cust", "root"), ("cust", "dist-2"), ("dist-2", "dist"), ("cust", "msp-2")]
)
async def test_a_tenant_moves_only_below_its_own_direct_partner(tenant: str, parent: str) -> None:
    world = World(shards=16)
    await two_partners(world)
    await world.upsert("dist-2", "root", "partner")
    await world.upsert("msp-2", "dist-2", "partner")
    for name in ("dist-2", "msp-2"):
        await world.set_items(name, WORKSTATIONS)
    result = await world.upsert(tenant, parent, "customer" if tenant == "cust" else "partner")
    assert (result.code, result.context) == ("not_allowed", {"code": "1027", "tenant_id": tenant})


async def test_a_unit_stays_with_its_customer() -> None:
    world = World()
    await world.tree()
    await world.upsert("shop", "msp", "customer")
    await world.upsert("unit", "cust", "unit")
    result = await world.upsert("unit", "shop", "unit")
    assert (result.code, result.context) == ("not_allowed", {"code": "1027", "tenant_id": "unit"})


async def test_a_move_decided_on_numbers_that_have_changed_is_decided_again() -> None:
    world = World()
    await two_partners(world)
    data = {"parent_id": "other", "kind": "customer", "name": "cust"}
    await world.send("workload.registered", "cust", {"workload_id": "w2", "type": "workstation"})
    await world.handle(
        world.event("plan.applied", "cust", {"plan_id": "plan-backup.files", "workload_ids": ["w2"]}),
        world.event("tenant.upserted", "cust", data),
        world.event("workload.removed", "cust", {"workload_id": "w1"}),
    )
    assert [await world.used(tenant) for tenant in ("cust", "other", "msp", "dist")] == [1, 1, 0, 1]


# --- units


async def test_a_unit_uses_its_customers_items_and_is_counted_there() -> None:
    world = World()
    await world.tree(quota=HARD)
    await world.upsert("unit", "cust", "unit")
    await world.upsert("below", "unit", "unit")
    await world.protect("w1", tenant="below")
    assert [await world.used(tenant) for tenant in ("below", "unit", "cust", "dist")] == [1, 1, 1, 1]
    await world.protect("w2")
    (denied,) = await world.said("assignment.denied", "cust")
    assert [denial["tenant_id"] for denial in denied["denials"]] == ["cust"]
    await world.send("workload.removed", "below", {"workload_id": "w1"})
    assert await world.holding("cust") == {"w2": {WORKSTATIONS: 1}}


async def test_a_units_refused_workload_waits_for_its_customers_items() -> None:
    world = World()
    await world.tree(items=())
    await world.upsert("unit", "cust", "unit")
    await world.protect("w1", tenant="unit")
    assert await world.waiting("unit")
    for tenant in ("dist", "msp", "cust"):
        await world.set_items(tenant, WORKSTATIONS)
    assert await world.holding("unit") == {"w1": {WORKSTATIONS: 1}}


async def test_a_unit_has_no_items_of_its_own() -> None:
    world = World()
    await world.tree()
    await world.upsert("unit", "cust", "unit")
    result = await world.set_items("unit", WORKSTATIONS)
    assert (result.code, result.context) == ("not_allowed", {"code": "1027", "tenant_id": "unit"})


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("workload.registered", {"workload_id": "w1", "type": "workstation"}),
        ("plan.saved", {"plan_id": "p", "features": []}),
        ("plan.applied", {"plan_id": "p", "workload_ids": ["w1"]}),
    ],
)
async def test_workloads_and_plans_belong_to_customers_and_units(name: str, data: dict[str, Any]) -> None:
    world = World()
    await world.tree()
    result = await world.send(name, "msp", data)
    assert (result.code, result.context) == ("not_allowed", {"code": "1027", "tenant_id": "msp"})
