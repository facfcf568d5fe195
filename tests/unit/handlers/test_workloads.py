"""Workloads and what they are assigned (docs/domain.md 6)."""

from __future__ import annotations

from typing import Any

import pytest

from service import records
from tests.unit.handlers.world import MANAGEMENT, SECURITY, STORAGE, WORKSTATIONS, World

SERVERS = "pw_base_servers"
VMS = "pw_base_vms"
HOSTING = "pw_base_web_hosting_servers"
BACKUP_SERVERS = "pw_pack_adv_backup_servers"
BACKUP_WORKSTATIONS = "pw_pack_adv_backup_workstations"
EDR = "pw_pack_adv_security_edr"
LOCAL = "local_storage"
FULL = {"value": 0, "overage": 0}
ESSENTIALS, STANDARD, ADVANCED = "pw_p_ess_workstations", "pw_p_workstations", "pw_p_adv_workstations"


async def protect(world: World, workload: str = "w1", *features: str, **about: Any) -> None:
    """Register a workload of any type and apply a plan with these features to it."""
    plan = {"plan_id": f"plan-{workload}", "features": list(features)}
    await world.send("plan.saved", "cust", plan)
    await world.send("workload.registered", "cust", {"workload_id": workload, "type": "workstation", **about})
    await world.send("plan.applied", "cust", {"plan_id": f"plan-{workload}", "workload_ids": [workload]})


async def report(world: World, workload: str = "w1", **usage: int) -> None:
    await world.send("workload.usage_reported", "cust", {"workload_id": workload, "usage": usage})


async def last(world: World, name: str) -> dict[str, Any]:
    return (await world.said(name, "cust"))[-1]


# --- rules 0 and 1


async def test_rule_0_a_customer_without_an_edition_holds_nothing_and_its_edition_is_null() -> None:
    world = World()
    await world.tree(items=())
    await protect(world, "w1", "backup.files")
    denied = await last(world, "assignment.denied")
    assert (denied["edition"], denied["requested"], denied["holding"]) == (None, {}, {})
    assert denied["uncovered_features"] == ["backup.files"]
    assert [{**each, "message": ""} for each in denied["denials"]] == [
        {"code": "offering_item_not_enabled", "message": ""}
    ]


async def test_rule_1_a_workload_without_a_plan_holds_nothing() -> None:
    world = World()
    await world.tree()
    await world.send("workload.registered", "cust", {"workload_id": "w1", "type": "workstation"})
    assert await world.announced("assignment.changed") == []
    assert await world.waiting("cust") == {}


async def test_rule_1_a_plan_whose_features_all_fall_away_still_protects() -> None:
    world = World()
    await world.tree()
    await protect(world, "w1", "backup.m365")
    assert (await last(world, "assignment.changed"))["holding"] == {WORKSTATIONS: 1}
    assert (await last(world, "assignment.changed"))["uncovered_features"] == []


async def test_rule_1_the_features_of_all_enabled_plans_are_requested_together() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT, SECURITY))
    await world.protect("w1", features=("management.patch_management",))
    await world.protect("w1", features=("security.url_filtering",))
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1, MANAGEMENT: 1, SECURITY: 1}}
    plan = {"plan_id": "plan-security.url_filtering", "features": ["security.url_filtering"], "enabled": False}
    await world.send("plan.saved", "cust", plan)
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1, MANAGEMENT: 1}}


async def test_features_for_another_operating_system_fall_away() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT))
    await protect(world, "w1", "management.patch_management", os_family="linux")
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}
    assert await world.said("assignment.denied") == []


# --- rule 2: editions


async def edition(world: World, *items: str, **quotas: Any) -> None:
    await world.tree(items=items)
    for item, quota in quotas.items():
        await world.set_items("cust", item, quota=quota)


async def test_rule_2_an_edition_gives_the_lowest_sub_edition_that_covers() -> None:
    world = World()
    await edition(world, ESSENTIALS, STANDARD, ADVANCED)
    await protect(world, "w1", "backup.files")
    await protect(world, "w2", "backup.image")
    await protect(world, "w3", "backup.application_cluster")
    assert await world.holding("cust") == {"w1": {ESSENTIALS: 1}, "w2": {STANDARD: 1}, "w3": {ADVANCED: 1}}
    assert {data["edition"] for data in await world.said("assignment.changed")} == {"per_workload"}


async def test_rule_2_the_next_higher_that_covers_is_tried_where_a_quota_refuses() -> None:
    world = World()
    await edition(world, ESSENTIALS, STANDARD, ADVANCED, **{ESSENTIALS: FULL, STANDARD: FULL})
    await protect(world, "w1", "backup.files")
    assert await world.holding("cust") == {"w1": {ADVANCED: 1}}
    assert await world.said("assignment.denied") == []


async def test_rule_2_where_all_are_refused_the_denials_of_every_candidate_are_listed() -> None:
    world = World()
    await edition(world, STANDARD, ADVANCED, **{STANDARD: FULL, ADVANCED: FULL})
    await protect(world, "w1", "backup.files")
    denied = await last(world, "assignment.denied")
    assert [each["offering_item"] for each in denied["denials"]] == [STANDARD, ADVANCED]
    assert denied["requested"] == {STANDARD: 1}


async def test_rule_2_where_an_upgrade_is_refused_the_old_item_stays() -> None:
    world = World()
    await edition(world, ESSENTIALS, STANDARD, **{STANDARD: FULL})
    await protect(world, "w1", "backup.files")
    await protect(world, "w1", "backup.files", "backup.image")
    assert await world.holding("cust") == {"w1": {ESSENTIALS: 1}}
    denied = await last(world, "assignment.denied")
    assert (denied["requested"], denied["holding"]) == ({STANDARD: 1}, {ESSENTIALS: 1})
    await world.set_items("cust", STANDARD, quota=None)
    changed = await last(world, "assignment.changed")
    assert (changed["assigned"], changed["released"]) == ({STANDARD: 1}, {ESSENTIALS: 1})


async def test_rule_2_where_none_covers_everything_the_one_that_covers_most_is_taken() -> None:
    world = World()
    await edition(world, ESSENTIALS, STANDARD)
    await protect(world, "w1", "backup.application_cluster", "backup.image", "security.edr")
    changed = await last(world, "assignment.changed")
    assert (changed["holding"], changed["uncovered_features"]) == (
        {STANDARD: 1},
        ["backup.application_cluster", "security.edr"],
    )
    denied = await last(world, "assignment.denied")
    assert [(each["code"], each.get("offering_item"), each["feature"]) for each in denied["denials"]] == [
        ("offering_item_not_enabled", ADVANCED, "backup.application_cluster"),
        ("feature_not_available", None, "security.edr"),
    ]
    assert denied["requested"] == {}


# --- rule 3: billing modes


async def test_rule_3_a_mode_gives_one_base_and_the_smallest_set_of_packs() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT, SECURITY, EDR, BACKUP_WORKSTATIONS))
    await protect(world, "w1", "security.edr", "backup.continuous_data_protection")
    changed = await last(world, "assignment.changed")
    assert changed == {
        "workload_id": "w1",
        "workload_type": "workstation",
        "edition": "pck_per_workload",
        "assigned": {WORKSTATIONS: 1, BACKUP_WORKSTATIONS: 1, SECURITY: 1, EDR: 1},
        "released": {},
        "holding": {WORKSTATIONS: 1, BACKUP_WORKSTATIONS: 1, SECURITY: 1, EDR: 1},
        "uncovered_features": [],
        "reason": "plan",
    }


@pytest.mark.parametrize(
    ("about", "first", "second"),
    [
        ({"type": "vm", "os": "desktop", "virtual": True}, VMS, WORKSTATIONS),
        ({"type": "web_hosting_server", "virtual": True}, HOSTING, VMS),
        ({"type": "web_hosting_server"}, HOSTING, SERVERS),
    ],
)
async def test_rule_3_a_base_item_without_quota_has_a_fallback(about: dict[str, Any], first: str, second: str) -> None:
    world = World()
    await world.tree(items=(first, second))
    await world.set_items("msp", first, quota=FULL)
    await protect(world, "w1", "backup.files", **about)
    assert await world.holding("cust") == {"w1": {second: 1}}
    assert await world.said("assignment.denied") == []


async def test_rule_3_a_server_virtual_machine_has_no_fallback_to_workstations() -> None:
    world = World()
    await world.tree(items=(VMS, WORKSTATIONS))
    await world.set_items("msp", VMS, quota=FULL)
    await protect(world, "w1", "backup.files", type="vm", os="server", virtual=True)
    assert await world.holding("cust") == {}


async def test_rule_3_an_application_aware_workstation_falls_back_to_servers_with_the_servers_pack() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, SERVERS, BACKUP_WORKSTATIONS, BACKUP_SERVERS))
    await world.set_items("cust", WORKSTATIONS, quota=FULL)
    await protect(world, "w1", "backup.application_cluster")
    assert await world.holding("cust") == {"w1": {SERVERS: 1, BACKUP_SERVERS: 1}}


# --- rule 4: gauges


async def test_rule_4_gauges_are_absolute_and_stand_in_usage_but_not_in_holding() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, STORAGE, LOCAL))
    await protect(world, "w1", "backup.files")
    await report(world, storage_bytes=10, local_storage_bytes=20)
    await report(world, storage_bytes=4)
    for tenant in ("cust", "msp", "dist"):
        assert (await world.used(tenant, STORAGE), await world.used(tenant, LOCAL)) == (4, 20)
    usage = [(data["offering_item"], data["used"], data["unit"]) for data in await world.said("usage.changed", "cust")]
    assert usage[-1] == (STORAGE, 4, "bytes")
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}


async def test_rule_4_gauges_of_an_unprotected_workload_count_and_those_of_an_unregistered_one_wait() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, STORAGE))
    await report(world, storage_bytes=10)
    assert await world.used("dist", STORAGE) == 0
    await world.send("workload.registered", "cust", {"workload_id": "w1", "type": "workstation"})
    assert await world.used("dist", STORAGE) == 10


async def test_rule_4_a_full_storage_quota_refuses_the_next_reservation_of_bytes() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, STORAGE), quota={"value": 10, "overage": 0})
    await protect(world, "w1", "backup.files")
    await report(world, storage_bytes=10)
    await world.send("reservation.reserve", "cust", {"reservation_id": "r", "items": {STORAGE: 1}})
    (denied,) = await world.said("reservation.denied")
    assert [(each["offering_item"], each["limit"], each["used"]) for each in denied["denials"]] == [(STORAGE, 10, 10)]


# --- rules 5 to 7


async def test_rule_5_what_no_plan_needs_any_more_is_released_together_with_the_base_step() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT, SECURITY))
    await world.set_items("cust", SECURITY, quota=FULL)
    await protect(world, "w1", "management.patch_management")
    await protect(world, "w1", "security.url_filtering")
    changed = await last(world, "assignment.changed")
    assert (changed["released"], changed["holding"]) == ({MANAGEMENT: 1}, {WORKSTATIONS: 1})
    denied = await last(world, "assignment.denied")
    assert (denied["requested"], denied["uncovered_features"]) == ({SECURITY: 1}, [])


async def test_rule_5_a_refused_base_step_leaves_out_the_packs() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT))
    await world.set_items("cust", WORKSTATIONS, quota=FULL)
    await protect(world, "w1", "management.patch_management")
    assert await world.used("cust", MANAGEMENT) == 0
    denied = await last(world, "assignment.denied")
    assert (denied["requested"], [each["offering_item"] for each in denied["denials"]]) == (
        {WORKSTATIONS: 1},
        [WORKSTATIONS],
    )


async def test_rule_5_packs_are_taken_all_or_none() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, SECURITY, EDR))
    await world.set_items("cust", EDR, quota=FULL)
    await protect(world, "w1", "security.edr")
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}
    denied = await last(world, "assignment.denied")
    assert denied["requested"] == {SECURITY: 1, EDR: 1}
    assert [each["offering_item"] for each in denied["denials"]] == [EDR]


async def test_rule_6_an_unknown_type_is_denied() -> None:
    world = World()
    await world.tree()
    await protect(world, "w1", "backup.files", type="toaster")
    denied = await last(world, "assignment.denied")
    assert [each["code"] for each in denied["denials"]] == ["unknown_workload_type"]
    assert denied["workload_type"] == "toaster"


async def test_rule_6_a_base_item_that_is_not_enabled_is_denied_by_name() -> None:
    world = World()
    await world.tree(items=(SERVERS,))
    await protect(world, "w1", "backup.files")
    denied = await last(world, "assignment.denied")
    assert [(each["code"], each["offering_item"]) for each in denied["denials"]] == [
        ("offering_item_not_enabled", WORKSTATIONS)
    ]


async def test_rule_7_a_feature_that_nothing_covers_does_not_block_the_others() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT))
    await protect(world, "w1", "management.patch_management", "security.url_filtering")
    changed = await last(world, "assignment.changed")
    assert (changed["holding"], changed["uncovered_features"]) == (
        {WORKSTATIONS: 1, MANAGEMENT: 1},
        ["security.url_filtering"],
    )
    denied = await last(world, "assignment.denied")
    assert [(each["code"], each["offering_item"], each["feature"]) for each in denied["denials"]] == [
        ("offering_item_not_enabled", SECURITY, "security.url_filtering")
    ]
    assert (denied["requested"], denied["uncovered_features"]) == ({}, ["security.url_filtering"])
    assert (await world.waiting("cust")).keys() == {"w1"}


async def test_a_pack_refused_by_a_quota_beside_a_feature_without_item_says_both_in_one_denial() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT))
    await world.set_items("msp", MANAGEMENT, quota=FULL)
    await protect(world, "w1", "management.patch_management", "security.url_filtering")
    (denied,) = await world.said("assignment.denied")
    assert [each["code"] for each in denied["denials"]] == ["offering_item_not_enabled", "quota_exceeded"]
    assert (denied["requested"], denied["uncovered_features"]) == ({MANAGEMENT: 1}, ["security.url_filtering"])


# --- rule 8


async def test_rule_8_a_removed_workload_loses_holdings_gauges_and_plans_and_keeps_its_reservations() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, STORAGE))
    await protect(world, "w1", "backup.files")
    await report(world, storage_bytes=10)
    await world.send("reservation.reserve", "cust", {"reservation_id": "r", "items": {WORKSTATIONS: 1}})
    await world.send("workload.removed", "cust", {"workload_id": "w1"})
    changed = await last(world, "assignment.changed")
    assert changed == {
        "workload_id": "w1",
        "workload_type": "workstation",
        "edition": "pck_per_workload",
        "assigned": {},
        "released": {WORKSTATIONS: 1},
        "holding": {},
        "uncovered_features": [],
        "reason": "workload",
    }
    assert (await world.used("dist"), await world.used("dist", STORAGE)) == (1, 0)
    await world.send("workload.registered", "cust", {"workload_id": "w1", "type": "workstation"})
    assert await world.used("dist") == 1


async def test_rule_8_nothing_is_announced_where_nothing_changes() -> None:
    world = World()
    await world.tree()
    await protect(world, "w1", "backup.files")
    said = len(await world.announced())
    await world.send("workload.registered", "cust", {"workload_id": "w1", "type": "workstation", "name": "new name"})
    await world.send("plan.saved", "cust", {"plan_id": "plan-w1", "features": ["backup.files", "backup.image"]})
    await world.send("workload.removed", "cust", {"workload_id": "nobody"})
    assert len(await world.announced()) == said


async def test_a_workload_of_another_type_holds_another_item() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, SERVERS))
    await protect(world, "w1", "backup.files")
    await world.send("workload.registered", "cust", {"workload_id": "w1", "type": "server"})
    changed = await last(world, "assignment.changed")
    assert (changed["assigned"], changed["released"], changed["reason"]) == (
        {SERVERS: 1},
        {WORKSTATIONS: 1},
        "workload",
    )


async def test_the_event_that_led_to_it_is_named_with_its_trace() -> None:
    world = World()
    await world.tree()
    await protect(world, "w1", "backup.files")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await world.send("workload.removed", "cust", {"workload_id": "w1"}, id="the-cause", traceparent=trace)
    event = (await world.announced("assignment.changed"))[-1]
    assert (event["causeid"], event["traceparent"], event["subject"]) == ("the-cause", trace, "w1")


async def test_two_customers_may_have_workloads_and_plans_of_the_same_names() -> None:
    world = World()
    await world.tree()
    await world.upsert("shop", "msp", "customer")
    await world.set_items("shop", WORKSTATIONS)
    await protect(world, "w1", "backup.files")
    await world.send("workload.registered", "shop", {"workload_id": "w1", "type": "workstation"})
    assert await world.holding("shop") == {}
    assert (await world.read(records.workload_key("shop", "w1"))).links == {}
