"""What is due: jobs that fail, timers that lead nowhere, and instances that do the same (docs/design.md 4)."""

from __future__ import annotations

import asyncio

import pytest

from service import records
from service.handlers import assignments, jobs
from service.handlers.draft import Draft
from service.ledger.transaction import Attempt, Timer, Transaction
from tests.unit.handlers.world import MANAGEMENT, WORKSTATIONS, World

SHARDS = range(4)


async def two_protected(world: World) -> None:
    await world.tree(items=(WORKSTATIONS, MANAGEMENT))
    await world.protect("w1", "w2", features=("management.patch_management",))


async def test_two_instances_at_the_same_job_do_it_once() -> None:
    world = World()
    await two_protected(world)
    off = {"items": [{"name": MANAGEMENT, "status": 0}], "cascade": True}
    await world.engine.handle([world.event("offering_items.set", "dist", off)])
    first, second = world.engine, world.start()
    while any(await asyncio.gather(first.run_due(SHARDS), second.run_due(SHARDS))):
        pass
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}, "w2": {WORKSTATIONS: 1}}
    changed = await world.announced("assignment.changed")
    assert len({event["id"] for event in changed}) == len(changed) == 4
    assert [await world.ledger.timers(shard, "job/") for shard in SHARDS] == [[], [], [], []]


async def test_one_decision_that_fails_is_left_out_and_the_job_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    await two_protected(world)
    reassign = assignments.reassign

    def broken(draft: Draft, tenant: str, workload_id: str, *rest: object, **more: object) -> None:
        if workload_id == "w1":
            raise ValueError("nobody foresaw this")
        reassign(draft, tenant, workload_id, *rest, **more)  # type: ignore[arg-type]  # passed on as they come

    monkeypatch.setattr(assignments, "reassign", broken)
    await world.set_items("cust", MANAGEMENT, status=0, _cascade=True)
    held = await world.holding("cust")
    assert (held["w1"], held["w2"]) == ({WORKSTATIONS: 1, MANAGEMENT: 1}, {WORKSTATIONS: 1})


async def test_a_job_that_fails_as_a_whole_is_tried_again_and_the_others_of_its_shard_are_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    await two_protected(world)
    (shard,) = (await world.ledger.locate(["cust"])).values()
    put = Attempt(put=[(records.job_key("a-broken-one"), b"what is this")], timers=[Timer("job/a-broken-one", 0)])
    await world.ledger.commit(shard, [Transaction([put])], world.now_ms)
    await world.set_items("cust", MANAGEMENT, status=0, _cascade=True)
    assert (await world.holding("cust"))["w1"] == {WORKSTATIONS: 1}
    assert await world.ledger.timers(shard, "job/") == [
        ("job/a-broken-one", world.now_ms + jobs.FAILED_AGAIN_MS),
    ]


@pytest.mark.parametrize(
    "member", ["job/gone", "expire/cust/gone", "forget/workload/cust/gone", "forget/plan/cust/gone"]
)
async def test_a_timer_that_leads_nowhere_is_dropped(member: str) -> None:
    world = World()
    await world.tree()
    (shard,) = (await world.ledger.locate(["cust"])).values()
    await world.ledger.commit(shard, [Transaction([Attempt(timers=[Timer(member, 0)])])], world.now_ms)
    await world.settle()
    assert await world.ledger.timers(shard, "") == []


async def test_what_is_not_due_yet_is_left_alone() -> None:
    world = World()
    await world.tree()
    await world.send("reservation.reserve", "cust", {"reservation_id": "r", "items": {WORKSTATIONS: 1}})
    assert await world.engine.run_due(SHARDS) == 0


async def test_a_job_of_a_process_that_remembers_old_records_still_sees_what_another_has_written() -> None:
    world = World()
    await two_protected(world)
    await world.upsert("shop", "dist", "customer")
    behind = world.engine
    # This one has read the shop's items and the plan, and will not be told that they change.
    await behind.handle([world.event("workload.registered", "shop", {"workload_id": "x", "type": "vm"})])
    world.start()
    plan = "plan-management.patch_management"
    await world.engine.handle(
        [
            world.event("offering_items.set", "shop", {"items": [{"name": MANAGEMENT, "status": 1}]}),
            world.event("plan.saved", "cust", {"plan_id": plan, "features": ["backup.files"]}),
        ]
    )
    off = {"items": [{"name": MANAGEMENT, "status": 0}], "cascade": True}
    await world.engine.handle([world.event("offering_items.set", "dist", off)])
    while await behind.run_due(SHARDS):
        pass
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}, "w2": {WORKSTATIONS: 1}}
    assert MANAGEMENT not in (await world.read(records.items_key("shop"))).enabled
