"""Offering items down the tree: enabling, disabling, editions (docs/domain.md 3)."""

from __future__ import annotations

import itertools

import pytest

from service import records
from tests.unit.handlers.world import MANAGEMENT, SECURITY, STORAGE, WORKSTATIONS, World

SERVERS = "pw_base_servers"
VMS = "pw_base_vms"
UNLIMITED = {"value": None, "overage": None, "version": 0}
AUDIT = "tenant_audit_log"


async def partners(world: World, *items: str) -> None:
    """A distributor, an MSP and a customer; the two partners have the items."""
    for tenant, parent, kind in (("dist", "root", "partner"), ("msp", "dist", "partner"), ("cust", "msp", "customer")):
        await world.upsert(tenant, parent, kind)
        if kind == "partner":
            await world.set_items(tenant, *items)


async def enabled(world: World, tenant: str) -> set[str]:
    items = await world.read(records.items_key(tenant))
    return set(items.enabled) if items else set()


# --- enabling


async def test_an_item_can_be_enabled_only_where_the_parent_has_it() -> None:
    world = World()
    await partners(world, WORKSTATIONS)
    result = await world.set_items("cust", MANAGEMENT, WORKSTATIONS, SECURITY)
    context = {"code": "1021", "tenant_id": "msp", "offering_items": [MANAGEMENT, SECURITY]}
    assert (result.code, result.context) == ("not_allowed", context)
    assert await world.dead_letters() == [("not_allowed", context)]


async def test_a_change_that_is_refused_in_one_item_is_refused_whole() -> None:
    world = World()
    await partners(world, WORKSTATIONS)
    await world.set_items("cust", MANAGEMENT, WORKSTATIONS)
    assert await enabled(world, "cust") == set()
    assert await world.said("offering_item.changed", "cust") == []


async def test_root_has_every_item() -> None:
    world = World()
    await world.upsert("dist", "root", "partner")
    assert (await world.set_items("dist", *world.catalog.items)).kind == "applied"
    assert await enabled(world, "dist") == set(world.catalog.items)


async def test_what_is_announced_of_an_item_is_all_of_it() -> None:
    world = World()
    await partners(world, WORKSTATIONS)
    await world.set_items("cust", WORKSTATIONS, quota={"value": 5, "overage": 1})
    (event,) = await world.announced("offering_item.changed", "cust")
    assert (event["subject"], event["data"]) == (
        WORKSTATIONS,
        {
            "offering_item": WORKSTATIONS,
            "status": 1,
            "quota": {"value": 5, "overage": 1, "version": 1},
            "reason": "set",
        },
    )


async def test_what_a_change_does_not_name_stays() -> None:
    world = World()
    await partners(world, WORKSTATIONS, MANAGEMENT)
    await world.set_items("cust", WORKSTATIONS, quota={"value": 5, "overage": 0})
    await world.set_items("cust", MANAGEMENT)
    await world.set_items("cust", WORKSTATIONS)
    assert await enabled(world, "cust") == {WORKSTATIONS, MANAGEMENT}
    assert (await world.account("cust")).limit == 5


async def test_an_unknown_item_refuses_the_whole_change() -> None:
    world = World()
    await partners(world, WORKSTATIONS)
    result = await world.set_items("cust", WORKSTATIONS, "pw_base_toasters")
    assert (result.code, result.context) == ("unknown_offering_item", {"offering_item": "pw_base_toasters"})
    assert await enabled(world, "cust") == set()


async def test_a_change_that_changes_nothing_is_not_announced() -> None:
    world = World()
    await partners(world, WORKSTATIONS)
    for _ in range(2):
        await world.set_items("cust", WORKSTATIONS, quota={"value": 5, "overage": 0})
    assert len(await world.said("offering_item.changed", "cust")) == 1


async def test_items_of_a_deleted_tenant_are_not_changed() -> None:
    world = World()
    await partners(world, WORKSTATIONS)
    await world.upsert("cust", "msp", "customer", enabled=False)
    await world.send("tenant.deleted", "cust", {})
    result = await world.set_items("cust", WORKSTATIONS)
    assert (result.code, result.context) == ("not_allowed", {"code": "1027", "tenant_id": "cust"})


async def test_a_tenant_wide_feature_has_no_quota_and_no_usage() -> None:
    world = World()
    await partners(world, AUDIT, WORKSTATIONS)
    await world.set_items("cust", AUDIT, quota={"value": 0, "overage": 0})
    assert (await world.said("offering_item.changed", "cust"))[-1]["quota"] == UNLIMITED
    assert await world.announced("usage.changed") == []
    result = await world.send("reservation.reserve", "cust", {"reservation_id": "r", "items": {AUDIT: 1}})
    assert (result.code, result.context) == ("not_allowed", {"code": "1027", "offering_item": AUDIT})


# --- editions


async def test_a_customer_has_one_edition_or_mode_of_an_application() -> None:
    world = World()
    await partners(world, WORKSTATIONS, "pg_base_workstations", "p_adv_workstations")
    await world.set_items("cust", WORKSTATIONS)
    for other, edition in (("pg_base_workstations", "pck_per_gigabyte"), ("p_adv_workstations", "cyber_protect_adv")):
        result = await world.set_items("cust", other)
        assert result.code == "not_allowed"
        assert result.context["code"] == "1027"
        assert set(result.context["editions"]) == {"pck_per_workload", edition}
        assert result.context["application_id"] == "6e6d758d-8e74-3ae3-ac84-50eb0dff12eb"
    assert await enabled(world, "cust") == {WORKSTATIONS}


async def test_a_partner_may_have_items_of_many_editions() -> None:
    world = World()
    await partners(world, WORKSTATIONS, "pg_base_workstations", "p_adv_workstations", "pw_p_workstations")
    assert len(await enabled(world, "msp")) == 4


async def test_items_of_no_edition_stand_beside_any_edition() -> None:
    world = World()
    await partners(world, WORKSTATIONS, "local_storage", AUDIT)
    assert (await world.set_items("cust", WORKSTATIONS, "local_storage", AUDIT)).kind == "applied"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_leaving_one_edition_for_another_in_one_list_is_judged_by_its_outcome(order: tuple[int, ...]) -> None:
    world = World()
    await partners(world, WORKSTATIONS, SERVERS, "p_adv_workstations")
    await world.set_items("cust", WORKSTATIONS, SERVERS)
    change = [
        {"name": WORKSTATIONS, "status": 0},
        {"name": "p_adv_workstations", "status": 1},
        {"name": SERVERS, "status": 0},
    ]
    result = await world.send("offering_items.set", "cust", {"items": [change[number] for number in order]})
    assert result.kind == "applied"
    assert await enabled(world, "cust") == {"p_adv_workstations"}


async def test_an_edition_is_left_only_with_all_its_items() -> None:
    world = World()
    await partners(world, WORKSTATIONS, SERVERS, "p_adv_workstations")
    await world.set_items("cust", WORKSTATIONS, SERVERS)
    change = [{"name": WORKSTATIONS, "status": 0}, {"name": "p_adv_workstations", "status": 1}]
    result = await world.send("offering_items.set", "cust", {"items": change})
    assert result.context["code"] == "1027"


# --- disabling


async def test_an_item_in_use_is_not_disabled_and_what_holds_it_is_listed() -> None:
    world = World()
    await world.tree()
    await world.protect("w1", "w2")
    result = await world.set_items("cust", WORKSTATIONS, status=0)
    holding = {
        "code": "not_allowed",
        "offering_item": WORKSTATIONS,
        "tenant_id": "cust",
        "used": 2,
        "message": f"cust uses 2 of {WORKSTATIONS}",
    }
    assert (result.kind, result.code) == ("rejected", "not_allowed")
    assert result.context == {"code": "1023", "denials": [holding]}
    assert await world.dead_letters() == [("not_allowed", result.context)]
    assert await enabled(world, "cust") == {WORKSTATIONS}
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}, "w2": {WORKSTATIONS: 1}}


async def test_an_item_that_is_enabled_below_is_not_disabled_without_cascade() -> None:
    world = World()
    await world.tree()
    result = await world.set_items("msp", WORKSTATIONS, status=0)
    below = {
        "code": "not_allowed",
        "offering_item": WORKSTATIONS,
        "tenant_id": "msp",
        "enabled_below": 1,
        "message": f"{WORKSTATIONS} is enabled on 1 tenants below msp",
    }
    assert (result.code, result.context) == ("not_allowed", {"code": "1023", "denials": [below]})
    await world.set_items("cust", WORKSTATIONS, status=0)
    assert (await world.set_items("msp", WORKSTATIONS, status=0)).kind == "applied"


async def test_a_reservation_holds_an_item_too() -> None:
    world = World()
    await world.tree()
    await world.send("reservation.reserve", "cust", {"reservation_id": "r", "items": {WORKSTATIONS: 2}})
    assert (await world.set_items("cust", WORKSTATIONS, status=0)).context["code"] == "1023"


async def test_a_refused_change_does_not_hold_up_what_follows_it_in_a_batch() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT))
    await world.protect("w1")
    results = await world.handle(
        world.event("offering_items.set", "cust", {"items": [{"name": WORKSTATIONS, "status": 0}]}),
        world.event("offering_items.set", "cust", {"items": [{"name": MANAGEMENT, "status": 0}]}),
    )
    assert [result.kind for result in results] == ["rejected", "applied"]
    assert await enabled(world, "cust") == {WORKSTATIONS}


async def test_with_cascade_an_item_is_disabled_below_too_and_workloads_lose_it_each_with_an_event() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT), quota={"value": 9, "overage": 0})
    await world.upsert("unit", "cust", "unit")
    features = ("backup.files", "management.patch_management")
    await world.protect("w1", features=features)
    await world.protect("w2", tenant="unit", features=features)
    await world.set_items("dist", MANAGEMENT, status=0, _cascade=True)
    for tenant, workload in (("cust", "w1"), ("unit", "w2")):
        last = (await world.said("assignment.changed", tenant))[-1]
        assert (last["workload_id"], last["released"], last["holding"], last["reason"]) == (
            workload,
            {MANAGEMENT: 1},
            {WORKSTATIONS: 1},
            "offering_item",
        )
        assert last["uncovered_features"] == ["management.patch_management"]
        denied = (await world.said("assignment.denied", tenant))[-1]
        assert [(denial["code"], denial["offering_item"]) for denial in denied["denials"]] == [
            ("offering_item_not_enabled", MANAGEMENT)
        ]
    reasons = {
        event["tenantid"]: (event["data"]["status"], event["data"]["reason"], event["data"]["quota"])
        for event in await world.announced("offering_item.changed")
        if event["subject"] == MANAGEMENT
    }
    assert reasons == {
        "dist": (0, "set", UNLIMITED),
        "msp": (0, "cascade", UNLIMITED),
        "cust": (0, "cascade", UNLIMITED),
    }
    for tenant in ("dist", "msp", "cust"):
        assert MANAGEMENT not in await enabled(world, tenant)
        assert (await world.account(tenant, MANAGEMENT)) == (await world.account(tenant, "nothing"))


async def test_a_base_item_that_is_gone_takes_the_packs_with_it() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT))
    await world.protect("w1", features=("management.patch_management",))
    await world.set_items("cust", WORKSTATIONS, status=0, _cascade=True)
    assert await world.holding("cust") == {"w1": {}}
    assert (await world.used("dist"), await world.used("dist", MANAGEMENT)) == (0, 0)


async def test_a_workload_falls_back_where_its_base_item_is_disabled() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, VMS))
    await world.send("plan.saved", "cust", {"plan_id": "p", "features": ["backup.files"]})
    vm = {"workload_id": "w1", "type": "vm", "os": "desktop", "virtual": True}
    await world.send("workload.registered", "cust", vm)
    await world.send("plan.applied", "cust", {"plan_id": "p", "workload_ids": ["w1"]})
    await world.set_items("cust", VMS, status=0, _cascade=True)
    last = (await world.said("assignment.changed", "cust"))[-1]
    assert (last["assigned"], last["released"]) == ({WORKSTATIONS: 1}, {VMS: 1})
    assert await world.said("assignment.denied") == []


async def test_an_item_enabled_again_while_the_cascade_goes_on_is_left_alone() -> None:
    world = World()
    await world.tree()
    await world.protect("w1")
    off, on = ({"items": [{"name": WORKSTATIONS, "status": status}], "cascade": True} for status in (0, 1))
    await world.engine.handle(
        [world.event("offering_items.set", "cust", off), world.event("offering_items.set", "cust", on)]
    )
    await world.settle()
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}


async def test_a_disabled_gauge_item_is_not_counted_any_more_and_counted_again_when_enabled() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, STORAGE))
    await world.protect("w1")
    await world.send("workload.usage_reported", "cust", {"workload_id": "w1", "usage": {"storage_bytes": 7}})
    assert (await world.set_items("cust", STORAGE, status=0)).context["code"] == "1023"
    await world.set_items("cust", STORAGE, status=0, _cascade=True)
    assert [await world.used(tenant, STORAGE) for tenant in ("cust", "dist")] == [0, 0]
    await world.set_items("cust", STORAGE)
    assert [await world.used(tenant, STORAGE) for tenant in ("cust", "dist")] == [7, 7]


# --- what enabling brings


async def test_enabling_an_item_re_evaluates_who_waits_for_it() -> None:
    world = World()
    await partners(world, WORKSTATIONS, MANAGEMENT)
    await world.protect("w1", features=("management.patch_management",))
    (denied,) = await world.said("assignment.denied", "cust")
    assert denied["edition"] is None
    assert [denial["code"] for denial in denied["denials"]] == ["offering_item_not_enabled"]
    assert "offering_item" not in denied["denials"][0]
    await world.set_items("cust", WORKSTATIONS)
    first = (await world.said("assignment.changed", "cust"))[-1]
    assert (first["holding"], first["uncovered_features"], first["reason"]) == (
        {WORKSTATIONS: 1},
        ["management.patch_management"],
        "offering_item",
    )
    await world.set_items("cust", MANAGEMENT)
    second = (await world.said("assignment.changed", "cust"))[-1]
    assert (second["assigned"], second["uncovered_features"]) == ({MANAGEMENT: 1}, [])
    assert await world.waiting("cust") == {}


async def test_bytes_reported_before_their_item_was_enabled_are_counted_from_then_on() -> None:
    world = World()
    await world.tree()
    for tenant in ("dist", "msp"):
        await world.set_items(tenant, STORAGE)
    await world.upsert("unit", "cust", "unit")
    for tenant in ("cust", "unit"):
        await world.send("workload.registered", tenant, {"workload_id": "w", "type": "workstation"})
        await world.send("workload.usage_reported", tenant, {"workload_id": "w", "usage": {"storage_bytes": 5}})
    await world.set_items("cust", STORAGE)
    assert [await world.used(tenant, STORAGE) for tenant in ("unit", "cust", "dist")] == [5, 10, 10]


async def test_a_nearer_base_item_is_taken_as_soon_as_it_is_enabled() -> None:
    world = World()
    await world.tree()
    for tenant in ("dist", "msp"):
        await world.set_items(tenant, VMS)
    vm = {"workload_id": "w1", "type": "vm", "os": "desktop", "virtual": True}
    await world.send("workload.registered", "cust", vm)
    await world.send("plan.saved", "cust", {"plan_id": "p", "features": ["backup.files"]})
    await world.send("plan.applied", "cust", {"plan_id": "p", "workload_ids": ["w1"]})
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}
    await world.set_items("cust", VMS)
    assert await world.holding("cust") == {"w1": {VMS: 1}}


async def test_a_workload_keeps_its_higher_sub_edition_until_its_own_next_evaluation() -> None:
    world = World()
    high, low = "pw_p_adv_workstations", "pw_workstations"
    await world.tree(items=(high,))
    for tenant in ("dist", "msp"):
        await world.set_items(tenant, low)
    await world.protect("w1")
    await world.set_items("cust", low)
    assert await world.holding("cust") == {"w1": {high: 1}}
    await world.send("workload.registered", "cust", {"workload_id": "w1", "type": "workstation", "name": "new"})
    assert await world.holding("cust") == {"w1": {low: 1}}


async def test_a_feature_that_an_item_covers_for_all_is_uncovered_when_that_item_is_disabled() -> None:
    world = World()
    cover = "pw_base_dr_compute_points"
    await world.tree(items=(WORKSTATIONS, cover))
    await world.protect("w1", features=("disaster_recovery.failover",))
    assert (await world.said("assignment.changed", "cust"))[-1]["uncovered_features"] == []
    await world.set_items("cust", cover, status=0)
    assert (await world.said("assignment.changed", "cust"))[-1]["uncovered_features"] == ["disaster_recovery.failover"]
    await world.set_items("cust", cover)
    assert (await world.said("assignment.changed", "cust"))[-1]["uncovered_features"] == []


# --- order


async def test_older_news_of_an_item_change_nothing_while_newer_news_of_others_count() -> None:
    world = World()
    await partners(world, WORKSTATIONS, MANAGEMENT)
    now_us = world.now_ms * 1000
    await world.send(
        "offering_items.set", "cust", {"items": [{"name": WORKSTATIONS, "status": 1}]}, time_us=now_us + 500
    )
    change = [{"name": WORKSTATIONS, "status": 0}, {"name": MANAGEMENT, "status": 1}]
    await world.send("offering_items.set", "cust", {"items": change}, time_us=now_us + 400)
    assert await enabled(world, "cust") == {WORKSTATIONS, MANAGEMENT}


async def test_the_same_change_under_another_offset_changes_nothing() -> None:
    world = World()
    await partners(world, WORKSTATIONS)
    change = {"items": [{"name": WORKSTATIONS, "status": 1, "quota": {"value": 3, "overage": 0, "version": 0}}]}
    first = world.event("offering_items.set", "cust", change, id="same")
    await world.handle(first)
    said = len(await world.announced())
    await world.handle(world.event("offering_items.set", "cust", change, id="same", time_us=first.event.time_us))
    assert len(await world.announced()) == said  # not even a complaint that the version is stale now


async def test_what_comes_over_http_is_always_the_newest() -> None:
    world = World()
    await partners(world, WORKSTATIONS)
    ahead_us = world.now_ms * 1000 + 200_000_000
    await world.send("offering_items.set", "cust", {"items": [{"name": WORKSTATIONS, "status": 1}]}, time_us=ahead_us)
    off = {"items": [{"name": WORKSTATIONS, "status": 0}]}
    (result,) = await world.handle(world.request("offering_items.set", "cust", off))
    assert result.kind == "applied"
    assert await enabled(world, "cust") == set()


async def test_a_person_whose_change_is_refused_is_told_and_no_dead_letter_is_written() -> None:
    world = World()
    await world.tree()
    await world.protect("w1")
    (result,) = await world.handle(
        world.request("offering_items.set", "cust", {"items": [{"name": WORKSTATIONS, "status": 0}]})
    )
    assert (result.kind, result.code, result.context["code"]) == ("rejected", "not_allowed", "1023")
    assert [denial["used"] for denial in result.context["denials"]] == [1]
    assert await world.dead_letters() == []
