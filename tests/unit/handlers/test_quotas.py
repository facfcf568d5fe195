"""Quotas: what is allowed, what is announced, and who gets what is free (docs/domain.md 4)."""

from __future__ import annotations

from typing import Any

import pytest

from service.ledger.transaction import QUANTITY_MAX
from tests.unit.handlers.world import MANAGEMENT, STORAGE, WORKSTATIONS, World

PATH = ("cust", "msp", "dist")


def hard(value: int, overage: int = 0) -> dict[str, int]:
    return {"value": value, "overage": overage}


async def quota_shown(world: World, tenant: str, item: str = WORKSTATIONS) -> dict[str, Any]:
    """The item's quota as it was last announced."""
    shown: dict[str, Any] = [
        data["quota"] for data in await world.said("offering_item.changed", tenant) if data["offering_item"] == item
    ][-1]
    return shown


async def notices(world: World, tenant: str) -> list[tuple[str, int]]:
    """The notices of a tenant in order, each with what was used."""
    return [
        (event["type"].split(".")[2], event["data"]["used"])
        for event in await world.announced(tenant=tenant)
        if event["type"].startswith("apportion.quota.")
    ]


# --- what a quota means


@pytest.mark.parametrize("quota", [None, {"value": None}, {"value": None, "overage": 3}])
async def test_null_means_unlimited_with_no_overage_and_version_0(quota: Any) -> None:
    world = World()
    await world.tree(quota=hard(1))
    await world.set_items("cust", WORKSTATIONS, quota=quota)
    assert await quota_shown(world, "cust") == {"value": None, "overage": None, "version": 0}
    await world.protect("w1", "w2", "w3")
    assert await world.used("cust") == 3


async def test_a_soft_quota_refuses_nothing() -> None:
    world = World()
    await world.tree(quota={"value": 1})
    await world.protect("w1", "w2")
    assert await world.used("cust") == 2
    assert await quota_shown(world, "cust") == {"value": 1, "overage": None, "version": 1}
    assert await world.said("assignment.denied") == []


async def test_a_hard_quota_allows_value_and_overage() -> None:
    world = World()
    await world.tree(quota=hard(1, 1))
    await world.protect("w1", "w2", "w3")
    assert await world.used("cust") == 2
    (denied,) = await world.said("assignment.denied")
    assert [(each["limit"], each["used"], each["requested"]) for each in denied["denials"]] == [(2, 2, 1)]


async def test_value_0_allows_nothing() -> None:
    world = World()
    await world.tree(quota=hard(0))
    await world.protect("w1")
    assert await world.used("cust") == 0
    assert len(await world.said("assignment.denied")) == 1


@pytest.mark.parametrize(("model", "overage"), [("prepaid", 0), ("pay_as_you_go", None)])
@pytest.mark.parametrize("said", [{}, {"overage": None}])
async def test_without_an_overage_a_quota_is_hard_where_payment_is_prepaid_and_soft_elsewhere(
    model: str, overage: int | None, said: dict[str, None]
) -> None:
    world = World()
    await world.tree(quota={"value": 1, **said}, payment_model=model)
    assert await quota_shown(world, "cust") == {"value": 1, "overage": overage, "version": 1}
    await world.protect("w1", "w2")
    assert await world.used("cust") == (1 if model == "prepaid" else 2)


async def test_the_payment_model_of_a_partner_makes_the_quotas_below_it_hard() -> None:
    world = World()
    await world.upsert("dist", "root", "partner", payment_model="prepaid")
    await world.upsert("cust", "dist", "customer")
    await world.set_items("dist", WORKSTATIONS)
    await world.set_items("cust", WORKSTATIONS, quota={"value": 1})
    assert (await quota_shown(world, "cust"))["overage"] == 0


async def test_a_later_change_of_the_payment_model_alters_nothing_until_the_quota_is_set_again() -> None:
    world = World()
    await world.tree(quota={"value": 1})
    await world.upsert("cust", "msp", "customer", payment_model="prepaid")
    await world.protect("w1", "w2")
    assert await world.used("cust") == 2
    await world.set_items("cust", WORKSTATIONS, quota={"value": 1})
    await world.protect("w3")
    assert (await world.used("cust"), (await quota_shown(world, "cust"))["overage"]) == (2, 0)


async def test_an_absent_quota_keeps_what_is_and_is_unlimited_where_the_item_is_newly_enabled() -> None:
    world = World()
    await world.tree(quota=hard(1))
    await world.set_items("cust", WORKSTATIONS)
    assert (await world.account("cust")).limit == 1
    await world.set_items("cust", WORKSTATIONS, status=0)
    await world.set_items("cust", WORKSTATIONS)
    assert (await world.account("cust")).limit is None


async def test_every_change_of_a_quota_gives_a_version_above_all_earlier_ones() -> None:
    world = World()
    await world.tree(quota=hard(1))
    for quota in (hard(2), None, hard(2)):
        await world.set_items("cust", WORKSTATIONS, quota=quota)
    versions = [data["quota"]["version"] for data in await world.said("offering_item.changed", "cust")]
    assert versions == [1, 2, 0, 4]


async def test_an_update_with_a_stale_quota_version_is_refused_whole() -> None:
    world = World()
    await world.tree(quota=hard(1), items=(WORKSTATIONS, MANAGEMENT))
    await world.set_items("cust", WORKSTATIONS, quota=hard(2))
    items = [
        {"name": MANAGEMENT, "status": 0},
        {"name": WORKSTATIONS, "status": 1, "quota": {**hard(3), "version": 1}},
    ]
    result = await world.send("offering_items.set", "cust", {"items": items})
    context = {"code": "1001", "offering_item": WORKSTATIONS, "version": 2}
    assert (result.kind, result.code, result.context) == ("rejected", "version_mismatch", context)
    assert (await world.account("cust")).limit == 2
    assert (await world.set_items("cust", WORKSTATIONS, quota={**hard(3), "version": 2})).kind == "applied"


async def test_the_version_of_an_unlimited_quota_is_0_in_updates_too() -> None:
    world = World()
    await world.tree(quota=hard(1))
    await world.set_items("cust", WORKSTATIONS, quota=None)
    assert (await world.set_items("cust", WORKSTATIONS, quota={**hard(1), "version": 2})).code == "version_mismatch"
    assert (await world.set_items("cust", WORKSTATIONS, quota={**hard(1), "version": 0})).kind == "applied"


# --- enforcement


@pytest.mark.parametrize("full", [("cust",), ("msp",), ("dist",), ("msp", "dist"), PATH])
async def test_a_refusal_names_every_tenant_limit_usage_and_quantity_in_the_way_and_changes_nothing(
    full: tuple[str, ...],
) -> None:
    world = World()
    await world.tree()
    await world.protect("w1")
    for tenant in full:
        await world.set_items(tenant, WORKSTATIONS, quota=hard(1))
    said = len(await world.announced("usage.changed"))
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
                "code": "quota_exceeded",
                "offering_item": WORKSTATIONS,
                "tenant_id": tenant,
                "limit": 1,
                "used": 1,
                "requested": 1,
                "message": f"{tenant} may use 1 of {WORKSTATIONS} and uses 1; 1 more were requested",
            }
            for tenant in PATH
            if tenant in full
        ],
        "uncovered_features": [],
    }
    assert [await world.used(tenant) for tenant in PATH] == [1, 1, 1]
    assert len(await world.announced("usage.changed")) == said


async def test_two_customers_share_the_quota_of_their_partner() -> None:
    world = World()
    await world.tree()
    await world.upsert("shop", "msp", "customer")
    await world.set_items("shop", WORKSTATIONS)
    await world.set_items("msp", WORKSTATIONS, quota=hard(2))
    await world.protect("w1", "w2")
    await world.protect("w1", tenant="shop")
    assert [await world.used(tenant) for tenant in ("cust", "shop", "msp")] == [2, 0, 2]


async def test_usage_is_announced_for_every_level_with_all_that_billing_needs() -> None:
    world = World()
    await world.tree(quota=hard(5))
    await world.send("reservation.reserve", "cust", {"reservation_id": "r", "items": {WORKSTATIONS: 2}})
    events = await world.announced("usage.changed")
    assert [(event["tenantid"], event["subject"]) for event in events] == [(tenant, WORKSTATIONS) for tenant in PATH]
    assert events[0]["data"] == {
        "offering_item": WORKSTATIONS,
        "usage_name": "workstations",
        "application_id": "6e6d758d-8e74-3ae3-ac84-50eb0dff12eb",
        "edition": "pck_per_workload",
        "unit": "quantity",
        "used": 2,
        "reserved": 2,
        "quota": {"value": 5, "overage": 0},
        "pricing_mode": "trial",
    }
    assert events[2]["data"]["quota"] == {"value": None, "overage": None}


async def test_the_changes_of_one_batch_are_one_snapshot_for_each_tenant_and_item() -> None:
    world = World()
    await world.tree()
    await world.send("plan.saved", "cust", {"plan_id": "p", "features": ["backup.files"]})
    await world.send("plan.applied", "cust", {"plan_id": "p", "workload_ids": ["w1", "w2", "w3"]})
    data = [{"workload_id": name, "type": "workstation"} for name in ("w1", "w2", "w3")]
    await world.handle(*(world.event("workload.registered", "cust", each) for each in data))
    usage = await world.announced("usage.changed")
    assert [(event["tenantid"], event["data"]["used"]) for event in usage] == [(tenant, 3) for tenant in PATH]


async def test_gauges_are_facts_past_a_hard_quota_and_raise_exceeded() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, STORAGE), quota=hard(100))
    await world.protect("w1")
    await world.send("workload.usage_reported", "cust", {"workload_id": "w1", "usage": {"storage_bytes": 150}})
    assert [await world.used(tenant, STORAGE) for tenant in PATH] == [150, 150, 150]
    assert await notices(world, "cust") == [("almost_reached", 150), ("reached", 150), ("exceeded", 150)]
    result = await world.send("reservation.reserve", "cust", {"reservation_id": "r", "items": {STORAGE: 1}})
    assert result.kind == "denied"


async def test_a_sum_beyond_the_largest_quantity_is_a_dead_letter_and_changes_nothing() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, STORAGE))
    await world.protect("w1", "w2")
    for workload, size in (("w1", QUANTITY_MAX), ("w2", 1)):
        usage = {"workload_id": workload, "usage": {"storage_bytes": size}}
        result = await world.send("workload.usage_reported", "cust", usage)
    assert (result.kind, result.code) == ("rejected", "invalid_data")
    assert [code for code, _ in await world.dead_letters()] == ["invalid_data"]
    assert await world.used("dist", STORAGE) == QUANTITY_MAX
    usage = {"workload_id": "w1", "usage": {"storage_bytes": 5}}
    assert (await world.send("workload.usage_reported", "cust", usage)).kind == "applied"


async def test_an_event_of_which_a_part_was_applied_is_still_a_dead_letter_when_a_sum_overflows() -> None:
    world = World()
    await world.tree()
    reserve = {"reservation_id": "r", "items": {WORKSTATIONS: QUANTITY_MAX - 1}}
    assert (await world.send("reservation.reserve", "cust", reserve)).kind == "applied"
    await world.send("plan.saved", "cust", {"plan_id": "p", "features": ["backup.files"]})
    for name in ("w1", "w2"):
        await world.send("workload.registered", "cust", {"workload_id": name, "type": "workstation"})
    result = await world.send("plan.applied", "cust", {"plan_id": "p", "workload_ids": ["w1", "w2"]})
    assert result.code == "invalid_data"
    assert [code for code, _ in await world.dead_letters()] == ["invalid_data"]
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}


async def test_a_job_goes_on_where_a_sum_would_overflow() -> None:
    world = World()
    await world.tree()
    await world.send("plan.saved", "cust", {"plan_id": "p", "features": ["backup.files"], "enabled": False})
    for name in ("w1", "w2"):
        await world.send("workload.registered", "cust", {"workload_id": name, "type": "workstation"})
    await world.send("plan.applied", "cust", {"plan_id": "p", "workload_ids": ["w1", "w2"]})
    reserve = {"reservation_id": "r", "items": {WORKSTATIONS: QUANTITY_MAX - 1}}
    await world.send("reservation.reserve", "cust", reserve)
    await world.send("plan.saved", "cust", {"plan_id": "p", "features": ["backup.files"]})
    assert await world.used("dist") == QUANTITY_MAX


async def test_a_value_and_overage_beyond_the_largest_quantity_are_invalid() -> None:
    world = World()
    await world.tree(payment_model="prepaid")
    quota = {"value": QUANTITY_MAX, "overage": 0}
    assert (await world.set_items("cust", WORKSTATIONS, quota=quota)).kind == "applied"


# --- notices


async def test_notices_are_raised_once_per_crossing_on_every_tenant_of_the_path() -> None:
    world = World()
    await world.tree()
    for tenant, value in zip(PATH, (5, 10, 4), strict=True):
        await world.set_items(tenant, WORKSTATIONS, quota={"value": value})
    for number in range(6):
        await world.protect(f"w{number}")
    assert await notices(world, "cust") == [("almost_reached", 4), ("reached", 5), ("exceeded", 6)]
    assert await notices(world, "msp") == []
    assert await notices(world, "dist") == [("almost_reached", 4), ("reached", 4), ("exceeded", 5)]


async def test_what_a_notice_says_is_all_of_it() -> None:
    world = World()
    await world.tree(quota=hard(1, 1))
    await world.protect("w1", "w2")
    alerts = [event for event in await world.announced(tenant="cust") if event["type"].startswith("apportion.quota.")]
    assert [(event["type"].split(".")[2], event["subject"], event["data"]) for event in alerts] == [
        (
            "almost_reached",
            WORKSTATIONS,
            {"offering_item": WORKSTATIONS, "used": 1, "quota": {"value": 1, "overage": 1}, "threshold_percent": 80},
        ),
        ("reached", WORKSTATIONS, {"offering_item": WORKSTATIONS, "used": 1, "quota": {"value": 1, "overage": 1}}),
    ]


async def test_a_jump_over_several_thresholds_raises_each_and_falling_back_clears_once() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, STORAGE), quota={"value": 100})
    await world.protect("w1")
    for size in (200, 90, 79, 10, 100):
        usage = {"workload_id": "w1", "usage": {"storage_bytes": size}}
        await world.send("workload.usage_reported", "cust", usage)
    assert [each for each in await notices(world, "cust") if each[1] != 1] == [
        ("almost_reached", 200),
        ("reached", 200),
        ("exceeded", 200),
        ("cleared", 79),
        ("almost_reached", 100),
        ("reached", 100),
    ]


async def test_with_value_0_only_exceeded_exists() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, STORAGE))
    await world.protect("w1")
    await world.send("workload.usage_reported", "cust", {"workload_id": "w1", "usage": {"storage_bytes": 9}})
    await world.set_items("cust", STORAGE, quota={"value": 0})
    assert await notices(world, "cust") == [("exceeded", 9)]


async def test_lowering_a_quota_below_usage_takes_nothing_grants_nothing_and_raises_exceeded() -> None:
    world = World()
    await world.tree()
    await world.protect("w1", "w2")
    await world.set_items("cust", WORKSTATIONS, quota=hard(1))
    assert ("exceeded", 2) in await notices(world, "cust")
    await world.protect("w3")
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}, "w2": {WORKSTATIONS: 1}}
    assert await world.used("cust") == 2


# --- on_shortfall: revoke


async def staggered(world: World, *workloads: str, features: tuple[str, ...] = ("backup.files",)) -> None:
    """Protect workloads one after the other, a second apart."""
    for workload in workloads:
        world.now_ms += 1000
        await world.protect(workload, features=features)


@pytest.mark.parametrize("tenant", PATH)
async def test_revoke_takes_the_newest_acquisitions_first_down_to_value_and_overage(tenant: str) -> None:
    world = World()
    await world.tree()
    await staggered(world, "w3", "w1", "w4", "w2")
    await world.set_items(tenant, WORKSTATIONS, quota=hard(1, 1), _on_shortfall="revoke")
    assert await world.holding("cust") == {
        "w3": {WORKSTATIONS: 1},
        "w1": {WORKSTATIONS: 1},
        "w4": {},
        "w2": {},
    }
    assert [await world.used(name) for name in PATH] == [2, 2, 2]
    assert (await world.waiting("cust")).keys() == {"w2", "w4"}
    revoked = [data for data in await world.said("assignment.changed", "cust") if data["reason"] == "quota"]
    assert [(data["workload_id"], data["released"]) for data in revoked] == [
        ("w2", {WORKSTATIONS: 1}),
        ("w4", {WORKSTATIONS: 1}),
    ]
    denied = (await world.said("assignment.denied", "cust"))[0]
    assert denied["requested"] == {WORKSTATIONS: 1}
    assert [(each["code"], each["tenant_id"], each["limit"]) for each in denied["denials"]] == [
        ("quota_exceeded", tenant, 2)
    ]


async def test_revoke_under_a_soft_quota_goes_down_to_its_value() -> None:
    world = World()
    await world.tree()
    await staggered(world, "w1", "w2")
    await world.set_items("cust", WORKSTATIONS, quota={"value": 1}, _on_shortfall="revoke")
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}, "w2": {}}
    assert (await world.waiting("cust")).keys() == {"w2"}


async def test_revoke_takes_the_packs_that_depend_on_a_revoked_base() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT))
    await staggered(world, "w1", "w2", features=("management.patch_management",))
    await world.set_items("cust", WORKSTATIONS, quota=hard(1), _on_shortfall="revoke")
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1, MANAGEMENT: 1}, "w2": {}}
    assert await world.used("dist", MANAGEMENT) == 1


async def test_revoke_of_a_pack_leaves_the_base() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT))
    await staggered(world, "w1", "w2", features=("management.patch_management",))
    await world.set_items("cust", MANAGEMENT, quota=hard(1), _on_shortfall="revoke")
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1, MANAGEMENT: 1}, "w2": {WORKSTATIONS: 1}}


async def test_revoke_leaves_reservations_and_gauges_alone() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, STORAGE))
    await staggered(world, "w1")
    await world.send("workload.usage_reported", "cust", {"workload_id": "w1", "usage": {"storage_bytes": 9}})
    await world.send("reservation.reserve", "cust", {"reservation_id": "r", "items": {WORKSTATIONS: 3}})
    await world.set_items("cust", WORKSTATIONS, STORAGE, quota=hard(2), _on_shortfall="revoke")
    assert await world.holding("cust") == {"w1": {}}
    assert (await world.used("cust"), await world.used("cust", STORAGE)) == (3, 9)


async def test_keep_is_the_default() -> None:
    world = World()
    await world.tree()
    await staggered(world, "w1", "w2")
    await world.set_items("cust", WORKSTATIONS, quota=hard(1))
    assert await world.used("cust") == 2


async def test_what_was_revoked_comes_back_when_there_is_room() -> None:
    world = World()
    await world.tree()
    await staggered(world, "w1", "w2")
    await world.set_items("cust", WORKSTATIONS, quota=hard(1), _on_shortfall="revoke")
    await world.send("workload.removed", "cust", {"workload_id": "w1"})
    assert await world.holding("cust") == {"w1": {}, "w2": {WORKSTATIONS: 1}}


async def test_revoke_reaches_the_units_of_a_customer() -> None:
    world = World()
    await world.tree()
    await world.upsert("unit", "cust", "unit")
    await staggered(world, "w1")
    world.now_ms += 1000
    await world.protect("w2", tenant="unit")
    await world.set_items("msp", WORKSTATIONS, quota=hard(1), _on_shortfall="revoke")
    assert (await world.holding("cust"), await world.holding("unit")) == ({"w1": {WORKSTATIONS: 1}}, {"w2": {}})


async def test_a_batch_in_which_many_quotas_run_out_is_decided_in_two_rounds() -> None:
    world = World()
    await world.upsert("dist", "root", "partner")
    await world.set_items("dist", WORKSTATIONS)
    customers = [f"c{number}" for number in range(20)]
    for customer in customers:
        await world.upsert(customer, "dist", "customer")
        await world.set_items(customer, WORKSTATIONS, quota={"value": 1, "overage": 0})
        await world.protect("w1", tenant=customer)
        await world.send("workload.registered", customer, {"workload_id": "w2", "type": "workstation"})
    rounds = 0
    commit = world.ledger.commit

    async def counted(*arguments: Any) -> Any:
        nonlocal rounds
        rounds += 1
        return await commit(*arguments)

    world.ledger.commit = counted  # type: ignore[method-assign]  # it is watched, not changed
    plan = {"plan_id": "plan-backup.files", "workload_ids": ["w2"]}
    results = await world.engine.handle([world.event("plan.applied", customer, plan) for customer in customers])
    assert {result.kind for result in results} == {"denied"}
    assert rounds == 2
