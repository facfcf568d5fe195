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


# --- whom a change concerns


async def jobs_of(world: World) -> int:
    """How many jobs wait to be carried out."""
    return sum([len(await world.ledger.timers(shard, "job/")) for shard in range(world.ledger.shards)])


async def counted(world: World, plan: str = "p", tenant: str = "cust") -> int:
    """To how many workloads a plan counts as applied."""
    return await world.used(tenant, records.applied_count_item(plan))


async def test_a_plan_that_nobody_has_makes_no_job() -> None:
    world = World()
    await world.tree()
    await registered(world, ["w1", "w2"])
    await world.handle(saved(world, "backup.files", plan="other"), applied(world, ["w1"], plan="other"))
    await world.handle(
        saved(world, "backup.files"), applied(world, ["w1"]), applied(world, ["w1"], name="plan.revoked")
    )
    await world.engine.handle([saved(world, "backup.image"), saved(world, "backup.files")])
    assert await jobs_of(world) == 0
    await world.engine.handle([saved(world, "backup.image", plan="other")])
    assert await jobs_of(world) == 1


async def test_a_plan_changes_for_those_that_have_it_and_nobody_else_is_written() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT))
    await registered(world, names(10))
    for plan in ("p", "q"):
        await world.handle(saved(world, "backup.files", plan=plan))
    await world.handle(applied(world, names(10)[:4]), applied(world, names(10)[4:8], plan="q"))
    shard = (await world.ledger.locate(["cust"]))["cust"]
    before = world.ledger.snapshot(shard).records
    await world.handle(saved(world, "management.patch_management"))
    after = world.ledger.snapshot(shard).records
    written = {key.id for key, record in after.items() if key.kind == "workload" and before[key] != record}
    assert written == set(names(10)[:4])
    assert await holders(world, MANAGEMENT) == 4


async def test_a_plan_that_is_saved_right_behind_its_application_reaches_the_workload() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT))
    await registered(world, ["w1", "w2"])
    await world.handle(saved(world, "backup.files"))
    batch = [applied(world, ["w1"]), saved(world, "management.patch_management"), applied(world, ["w2"])]
    results = await world.engine.handle(batch)
    assert [result.kind for result in results] == ["applied", "applied", "delayed"]
    await world.settle()
    assert await holders(world, MANAGEMENT) == 2
    assert await counted(world) == 2


async def test_a_workload_that_comes_while_a_plan_is_carried_out_is_decided_on_the_changed_plan() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT))
    workloads = names(2 * plans.WORKLOADS_PER_STEP)
    late = "a-late-one"  # it stands before all others, where the job has been already
    await registered(world, workloads)
    await world.handle(saved(world, "backup.files"), applied(world, [*workloads, late]))
    await world.engine.handle([saved(world, "management.patch_management")])
    assert await world.engine.run_due(range(world.ledger.shards)) == 1
    await world.engine.handle(
        [
            world.event("workload.registered", "cust", {"workload_id": late, "type": "workstation"}),
            world.event("workload.registered", "cust", {"workload_id": "b-late-one", "type": "workstation"}),
            applied(world, ["b-late-one"]),
        ]
    )
    await world.settle()
    assert await holders(world, MANAGEMENT) == len(workloads) + 2
    assert await counted(world) == len(workloads) + 2


async def test_somebody_else_who_applies_a_plan_just_before_it_changes_is_not_missed() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT))
    await registered(world, ["w1"])
    await world.handle(saved(world, "backup.files"))
    first = world.engine
    other = world.start()
    commit = world.ledger.commit

    async def late(shard: int, transactions: list[Transaction], now_ms: int) -> list[Outcome]:
        world.ledger.commit = commit  # type: ignore[method-assign]  # this instance alone is late
        (result,) = await other.handle(
            [world.request("plan.applied", "cust", {"plan_id": "p", "workload_ids": ["w1"]})]
        )
        assert result.kind == "applied"
        return await commit(shard, transactions, now_ms)

    world.ledger.commit = late  # type: ignore[method-assign]  # this instance alone is late
    await first.handle([saved(world, "management.patch_management")])
    await world.settle()
    assert await holders(world, MANAGEMENT) == 1


@pytest.mark.parametrize("end", ["removed", "deleted", "tenant", "revoked"])
async def test_a_plan_counts_only_the_workloads_that_have_it(end: str) -> None:
    world = World()
    await world.tree()
    await registered(world, ["w1", "w2"])
    await world.handle(saved(world, "backup.files"), applied(world, ["w1", "w2"]), applied(world, ["w1"]))
    assert await counted(world) == 2
    if end == "removed":
        await world.send("workload.removed", "cust", {"workload_id": "w1"})
    elif end == "deleted":
        await world.send("plan.deleted", "cust", {"plan_id": "p"})
    elif end == "revoked":
        await world.handle(*[applied(world, ["w1"], name="plan.revoked") for _ in range(2)])
    else:
        await world.upsert("cust", "msp", "customer", enabled=False)
        await world.send("tenant.deleted", "cust", {})
        await world.upsert("cust", "msp", "customer")
        assert await counted(world) == 0
        await world.handle(saved(world, "backup.files"), applied(world, ["w2"]))
    assert await counted(world) == (0 if end == "deleted" else 1)


async def test_a_plan_of_a_unit_is_counted_there_and_stays_there_when_its_customer_moves() -> None:
    world = World()
    await world.tree()
    await world.upsert("unit", "cust", "unit")
    await world.upsert("other", "dist", "partner")
    await world.set_items("other", WORKSTATIONS)
    for tenant in ("cust", "unit"):
        await registered(world, ["w1"], tenant)
        await world.send("plan.saved", tenant, {"plan_id": "p", "features": ["backup.files"]})
        await world.send("plan.applied", tenant, {"plan_id": "p", "workload_ids": ["w1"]})
    await world.upsert("cust", "other", "customer")
    assert await world.used("other") == 2
    assert [await counted(world, tenant=name) for name in ("unit", "cust", "other", "msp", "dist")] == [1, 1, 0, 0, 0]
