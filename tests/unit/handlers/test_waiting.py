"""Refused workloads wait, and room is offered to them (docs/domain.md 4 and 6)."""

from __future__ import annotations

from service.handlers import wakeups
from tests.unit.handlers.world import MANAGEMENT, SECURITY, WORKSTATIONS, World

FULL = {"value": 0, "overage": 0}
ONE = {"value": 1, "overage": 0}
TWO = {"value": 2, "overage": 0}


async def refused(world: World, *workloads: str, tenant: str = "cust") -> None:
    """Workloads that are refused one after the other, a second apart."""
    for workload in workloads:
        world.now_ms += 1000
        await world.protect(workload, tenant=tenant)


async def test_raising_a_quota_grants_those_who_wait_oldest_refusal_first() -> None:
    world = World()
    await world.tree(quota=FULL)
    await refused(world, "w3", "w1", "w2")
    await world.set_items("cust", WORKSTATIONS, quota=TWO)
    assert await world.holding("cust") == {"w3": {WORKSTATIONS: 1}, "w1": {WORKSTATIONS: 1}}
    assert {data["reason"] for data in await world.said("assignment.changed")} == {"quota"}
    assert (await world.waiting("cust")).keys() == {"w2"}


async def test_room_on_a_higher_level_is_offered_everywhere_below_it() -> None:
    world = World()
    await world.tree()
    await world.upsert("shop", "dist", "customer")
    await world.set_items("shop", WORKSTATIONS)
    await world.set_items("dist", WORKSTATIONS, quota=FULL)
    await refused(world, "w1", tenant="shop")
    await refused(world, "w2")
    await world.set_items("dist", WORKSTATIONS, quota=ONE)
    assert (await world.holding("shop"), await world.holding("cust")) == ({"w1": {WORKSTATIONS: 1}}, {})
    await world.set_items("dist", WORKSTATIONS, quota=None)
    assert await world.holding("cust") == {"w2": {WORKSTATIONS: 1}}


async def test_one_that_is_still_blocked_elsewhere_is_skipped_and_not_waited_for() -> None:
    world = World()
    await world.tree(quota=FULL)
    await world.upsert("shop", "msp", "customer")
    await world.set_items("shop", WORKSTATIONS)
    await world.set_items("msp", WORKSTATIONS, quota=FULL)
    await refused(world, "w1")
    await refused(world, "w2", tenant="shop")
    await world.set_items("msp", WORKSTATIONS, quota=ONE)
    assert (await world.holding("cust"), await world.holding("shop")) == ({}, {"w2": {WORKSTATIONS: 1}})
    assert (await world.waiting("cust")).keys() == {"w1"}


async def test_a_refusal_for_the_same_reasons_stays_silent() -> None:
    world = World()
    await world.tree(quota=ONE)
    await world.protect("w1")
    await refused(world, "w2")
    for _ in range(3):
        world.now_ms += 1000
        await world.send("workload.registered", "cust", {"workload_id": "w2", "type": "workstation", "name": "x"})
    await world.set_items("cust", WORKSTATIONS, quota={"value": 0, "overage": 1})
    assert len(await world.said("assignment.denied")) == 1
    assert (await world.waiting("cust"))["w2"].since_ms == 1_800_000_000_000 + 1000


async def test_a_refusal_for_other_reasons_is_announced_again() -> None:
    world = World()
    await world.tree(quota=FULL)
    await refused(world, "w1")
    await world.set_items("msp", WORKSTATIONS, quota=FULL)
    await world.send("workload.registered", "cust", {"workload_id": "w1", "type": "workstation", "name": "x"})
    assert [{denial["tenant_id"] for denial in data["denials"]} for data in await world.said("assignment.denied")] == [
        {"cust"},
        {"cust", "msp"},
    ]


async def test_the_wait_for_the_same_thing_goes_on_from_its_beginning_after_other_reasons() -> None:
    world = World()
    await world.tree(quota=FULL)
    await refused(world, "w1", "w2")
    await world.set_items("msp", WORKSTATIONS, quota=FULL)
    await refused(world, "w1")  # looked at again later than the other, and refused for more
    await world.set_items("msp", WORKSTATIONS, quota=None)
    await world.set_items("cust", WORKSTATIONS, quota=ONE)
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}


async def test_released_reservations_make_room_too() -> None:
    world = World()
    await world.tree(quota=ONE)
    await world.send("reservation.reserve", "cust", {"reservation_id": "r", "items": {WORKSTATIONS: 1}})
    await refused(world, "w1")
    await world.send("reservation.release", "cust", {"reservation_id": "r"})
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}


async def test_a_pack_that_was_refused_is_granted_when_there_is_room() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT, SECURITY))
    await world.set_items("cust", MANAGEMENT, quota=FULL)
    await world.protect("w1", features=("management.patch_management", "security.url_filtering"))
    (denied,) = await world.said("assignment.denied")
    assert denied["requested"] == {MANAGEMENT: 1, SECURITY: 1}  # the packs are one step
    assert denied["holding"] == {WORKSTATIONS: 1}
    await world.set_items("cust", MANAGEMENT, quota=ONE)
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1, MANAGEMENT: 1, SECURITY: 1}}
    assert await world.waiting("cust") == {}


async def test_who_does_not_need_it_any_more_does_not_wait_any_more() -> None:
    world = World()
    await world.tree(quota=FULL)
    await refused(world, "w1", "w2")
    await world.send("plan.revoked", "cust", {"plan_id": "plan-backup.files", "workload_ids": ["w1"]})
    await world.send("workload.removed", "cust", {"workload_id": "w2"})
    assert await world.waiting("cust") == {}
    await world.set_items("cust", WORKSTATIONS, quota=TWO)
    assert await world.used("cust") == 0


async def test_a_newcomer_may_take_free_units_before_those_who_wait() -> None:
    world = World()
    await world.tree(quota=ONE)
    await world.protect("w1")
    await refused(world, "w2")
    await world.send("workload.registered", "cust", {"workload_id": "w3", "type": "workstation"})
    removed = world.event("workload.removed", "cust", {"workload_id": "w1"})
    applied = world.event("plan.applied", "cust", {"plan_id": "plan-backup.files", "workload_ids": ["w3"]})
    await world.handle(removed, applied)
    assert await world.holding("cust") == {"w1": {}, "w3": {WORKSTATIONS: 1}}


async def test_a_long_queue_is_granted_in_bounded_steps() -> None:
    world = World()
    await world.tree(quota=FULL)
    await world.send("plan.saved", "cust", {"plan_id": "p", "features": ["backup.files"]})
    names = [f"w{number:03}" for number in range(2 * wakeups.WAITERS_PER_STEP + 10)]
    data = [{"workload_id": name, "type": "workstation"} for name in names]
    await world.handle(*(world.event("workload.registered", "cust", each) for each in data))
    applied = [{"plan_id": "p", "workload_ids": [name]} for name in names]
    await world.handle(*(world.event("plan.applied", "cust", each) for each in applied))
    await world.engine.handle([world.event("offering_items.set", "cust", everything())])
    await world.engine.run_due(range(world.ledger.shards))
    assert await world.used("cust") == wakeups.WAITERS_PER_STEP
    await world.settle()
    assert await world.used("cust") == len(names)


def everything() -> dict[str, object]:
    return {"items": [{"name": WORKSTATIONS, "status": 1, "quota": None}]}


async def test_the_queue_is_left_where_no_room_is_left() -> None:
    world = World()
    await world.tree(quota=FULL)
    names = [f"w{number}" for number in range(5)]
    await refused(world, *names)
    said = len(await world.said("assignment.denied"))
    await world.set_items("cust", WORKSTATIONS, quota=TWO)
    assert len(await world.holding("cust")) == 2
    assert len(await world.said("assignment.denied")) == said


async def test_no_entry_of_a_queue_leads_nowhere_when_all_is_settled() -> None:
    world = World()
    await world.tree(quota=FULL)
    await refused(world, "w1", "w2", "w3")
    await world.send("workload.removed", "cust", {"workload_id": "w1"})
    await world.set_items("cust", WORKSTATIONS, quota=ONE)
    await world.set_items("cust", WORKSTATIONS, quota=TWO)
    assert all(not world.ledger.snapshot(shard).dead_entries() for shard in range(world.ledger.shards))


async def test_after_a_move_the_old_place_wakes_nobody() -> None:
    world = World()
    await world.tree()
    await world.upsert("other", "dist", "partner")
    await world.set_items("other", WORKSTATIONS, quota=FULL)
    await world.set_items("msp", WORKSTATIONS, quota=FULL)
    await refused(world, "w1")
    await world.upsert("cust", "other", "customer")
    last = (await world.said("assignment.denied"))[-1]
    assert [denial["tenant_id"] for denial in last["denials"]] == ["other"]
    await world.set_items("msp", WORKSTATIONS, quota=None)
    assert await world.holding("cust") == {}
    await world.set_items("other", WORKSTATIONS, quota=None)
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}
