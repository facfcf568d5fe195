"""Protection plans: saved, applied, revoked, deleted, and the jobs behind them (docs/domain.md 6)."""

from __future__ import annotations

import random
from typing import Any

import pytest

from service import records
from service.handlers import backlogs, plans
from service.ledger.errors import LedgerUnavailable
from service.ledger.transaction import Outcome, Transaction
from tests.unit.handlers.world import MANAGEMENT, SECURITY, WORKSTATIONS, World

MANY = plans.WORKLOADS_INLINE_MAX + 1
SHARD_STEPS_MAX = 3 * plans.WORKLOADS_PER_STEP  # transactions of one call, generously


def names(count: int) -> list[str]:
    return [f"w{number:05}" for number in range(count)]


async def registered(world: World, workloads: list[str], tenant: str = "cust") -> None:
    """Register workstations, a thousand in one batch."""
    for begin in range(0, len(workloads), 1000):
        part = [{"workload_id": name, "type": "workstation"} for name in workloads[begin : begin + 1000]]
        await world.engine.handle([world.event("workload.registered", tenant, data) for data in part])
    await world.settle()


def saved(world: World, *features: str, plan: str = "p", **more: Any) -> Any:
    return world.event("plan.saved", "cust", {"plan_id": plan, "features": list(features), **more})


def applied(world: World, workloads: list[str], plan: str = "p", name: str = "plan.applied") -> Any:
    return world.event(name, "cust", {"plan_id": plan, "workload_ids": workloads})


async def holders(world: World, item: str = WORKSTATIONS) -> int:
    return sum(item in held for held in (await world.holding("cust")).values())


# --- what a plan brings


async def test_a_plan_that_is_saved_anew_changes_what_its_workloads_hold() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT))
    await registered(world, ["w1"])
    await world.handle(saved(world, "backup.files"), applied(world, ["w1"]))
    await world.handle(saved(world, "management.patch_management"))
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1, MANAGEMENT: 1}}
    assert {data["reason"] for data in await world.said("assignment.changed")} == {"plan"}


@pytest.mark.parametrize("end", ["disabled", "deleted", "revoked"])
async def test_a_plan_that_is_disabled_deleted_or_revoked_protects_no_longer(end: str) -> None:
    world = World()
    await world.tree()
    await registered(world, ["w1"])
    await world.handle(saved(world, "backup.files"), applied(world, ["w1"]))
    if end == "disabled":
        await world.handle(saved(world, "backup.files", enabled=False))
    elif end == "deleted":
        await world.send("plan.deleted", "cust", {"plan_id": "p"})
    else:
        await world.handle(applied(world, ["w1"], name="plan.revoked"))
    last = (await world.said("assignment.changed"))[-1]
    assert (last["released"], last["holding"], last["reason"]) == ({WORKSTATIONS: 1}, {}, "plan")


async def test_a_deleted_plan_that_is_saved_again_protects_only_what_it_is_applied_to_again() -> None:
    world = World()
    await world.tree()
    await registered(world, ["w1", "w2"])
    await world.handle(saved(world, "backup.files"), applied(world, ["w1", "w2"]))
    await world.send("plan.deleted", "cust", {"plan_id": "p"})
    await world.handle(saved(world, "backup.files"), applied(world, ["w2"]))
    assert await world.holding("cust") == {"w1": {}, "w2": {WORKSTATIONS: 1}}


async def test_an_unknown_feature_is_a_dead_letter_and_the_plan_stays_as_it_was() -> None:
    world = World()
    await world.tree()
    (result,) = await world.handle(saved(world, "backup.files", "backup.teleport"))
    assert (result.code, result.context) == ("unknown_feature", {"features": ["backup.teleport"]})
    assert await world.read(records.plan_key("cust", "p")) is None


async def test_one_message_may_name_a_workload_twice() -> None:
    world = World()
    await world.tree()
    await registered(world, ["w1"])
    await world.handle(saved(world, "backup.files"), applied(world, ["w1", "w1"]))
    assert await world.used("cust") == 1


@pytest.mark.parametrize("order", [("registered", "applied", "saved"), ("applied", "registered", "saved")])
async def test_the_missing_half_may_arrive_in_the_same_batch(order: tuple[str, ...]) -> None:
    world = World()
    await world.tree()
    data = {"workload_id": "w1", "type": "workstation"}
    events = {
        "registered": world.event("workload.registered", "cust", data),
        "applied": applied(world, ["w1"]),
        "saved": saved(world, "backup.files"),
    }
    await world.handle(*(events[name] for name in order))
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}


# --- many workloads


@pytest.mark.parametrize("count", [plans.WORKLOADS_INLINE_MAX, MANY, 3 * plans.WORKLOADS_PER_STEP + 1])
async def test_a_plan_may_be_applied_to_and_revoked_from_many_workloads(count: int) -> None:
    world = World()
    await world.tree()
    workloads = names(count)
    await registered(world, workloads)
    results = await world.handle(saved(world, "backup.files"), applied(world, workloads))
    assert [result.kind for result in results] == ["applied", "applied" if count < MANY else "delayed"]
    assert await world.used("dist") == count
    await world.handle(applied(world, workloads, name="plan.revoked"))
    assert await world.used("dist") == 0


class Measured(World):
    """A world that notes how many transactions each call to the ledger has."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        commit = self.ledger.commit

        async def measured(shard: int, transactions: Any, now_ms: int) -> list[Outcome]:
            self.sizes.append(len(transactions))
            return await commit(shard, transactions, now_ms)

        self.ledger.commit = measured  # type: ignore[method-assign]  # this instance alone is measured


async def test_a_plan_with_10000_workloads_is_carried_out_in_bounded_steps_and_others_are_not_held_up() -> None:
    world = Measured()
    await world.tree()
    await world.upsert("shop", "msp", "customer")
    await world.set_items("shop", WORKSTATIONS)
    workloads = names(10_000)
    await registered(world, workloads)
    await world.handle(saved(world, "backup.files"))
    world.sizes.clear()
    await world.engine.handle([applied(world, workloads)])
    steps = 0
    while await world.engine.run_due(range(world.ledger.shards)):
        steps += 1
        if steps == 5:
            await world.engine.handle([world.event("workload.registered", "shop", {"workload_id": "x", "type": "vm"})])
            assert await world.read(records.workload_key("shop", "x")) is not None
            assert await world.used("cust") < 10_000
    assert await world.used("dist") == 10_000
    assert max(world.sizes) <= SHARD_STEPS_MAX
    assert steps >= 10_000 // plans.WORKLOADS_PER_STEP


async def test_a_change_of_a_plan_that_many_have_is_carried_out_in_bounded_steps() -> None:
    world = Measured()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT))
    workloads = names(1000)
    await registered(world, workloads)
    await world.handle(saved(world, "backup.files"), applied(world, workloads))
    world.sizes.clear()
    await world.handle(saved(world, "management.patch_management"))
    assert await world.used("dist", MANAGEMENT) == 1000
    assert max(world.sizes) <= SHARD_STEPS_MAX


async def test_plan_changes_behind_a_running_job_keep_their_order() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT, SECURITY))
    workloads = names(MANY)
    await registered(world, workloads)
    results = await world.engine.handle(
        [
            saved(world, "backup.files"),
            applied(world, workloads),
            saved(world, "management.patch_management"),
            applied(world, workloads[:1], name="plan.revoked"),
            saved(world, "security.url_filtering"),
            applied(world, workloads[1:2], name="plan.revoked"),
            applied(world, workloads[:1]),
        ]
    )
    assert [result.kind for result in results] == ["applied", *["delayed"] * 6]
    await world.settle()
    assert [await holders(world, item) for item in (WORKSTATIONS, SECURITY, MANAGEMENT)] == [MANY - 1, MANY - 1, 0]
    assert (await world.holding("cust"))[workloads[1]] == {}
    assert await world.read(records.backlog_key("cust", backlogs.PLANS)) is None


async def test_plan_changes_of_another_tenant_do_not_wait_behind_a_job() -> None:
    world = World()
    await world.tree()
    await world.upsert("unit", "cust", "unit")
    workloads = names(MANY)
    (_, _, result) = await world.engine.handle(
        [
            saved(world, "backup.files"),
            applied(world, workloads),
            world.event("plan.saved", "unit", {"plan_id": "p", "features": []}),
        ]
    )
    assert result.kind == "applied"


async def test_delivered_again_while_they_wait_plan_changes_wait_once() -> None:
    world = World()
    await world.tree()
    workloads = names(MANY)
    await registered(world, workloads)
    batch = [saved(world, "backup.files"), applied(world, workloads), saved(world, "backup.image")]
    await world.engine.handle(batch)
    before = await world.read(records.backlog_key("cust", backlogs.PLANS))
    world.start()
    await world.engine.handle(batch)
    assert await world.read(records.backlog_key("cust", backlogs.PLANS)) == before
    await world.settle()
    said = len(await world.announced())
    await world.handle(*batch)
    assert len(await world.announced()) == said


async def test_who_changes_a_plan_over_http_while_a_job_runs_is_told_to_try_again() -> None:
    world = World()
    await world.tree()
    await world.engine.handle([saved(world, "backup.files"), applied(world, names(MANY))])
    request = world.request("plan.saved", "cust", {"plan_id": "p", "features": []})
    (result,) = await world.engine.handle([request])
    assert (result.code, result.context["code"]) == ("not_allowed", "1012")


async def test_a_job_survives_a_crash_at_any_of_its_steps() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT))
    workloads = names(MANY)
    await registered(world, workloads)
    await world.engine.handle([saved(world, "backup.files"), applied(world, workloads)])
    await world.engine.handle([saved(world, "management.patch_management")])
    commit, chance = world.ledger.commit, random.Random(1)

    async def failing(shard: int, transactions: list[Transaction], now_ms: int) -> list[Outcome]:
        if chance.random() < 0.3:
            raise LedgerUnavailable("connection", "before")
        outcomes = await commit(shard, transactions, now_ms)
        if chance.random() < 0.3:
            raise LedgerUnavailable("timeout", "after")
        return outcomes

    world.ledger.commit = failing  # type: ignore[method-assign]  # this instance alone fails
    left = 1
    while left:
        try:
            left = await world.engine.run_due(range(world.ledger.shards))
        except LedgerUnavailable:
            world.start()
    assert [await holders(world, item) for item in (WORKSTATIONS, MANAGEMENT)] == [MANY, MANY]
    ids = [event["id"] for event in await world.announced("assignment.changed")]
    assert len(ids) == len(set(ids))
