"""Which news count: sequence, time, the same event again, what was removed (docs/contracts.md 1)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from service import records
from service.rules.facets import REMEMBERED_SECONDS
from tests.unit.handlers.world import STORAGE, WORKSTATIONS, World

DAY_MS = REMEMBERED_SECONDS * 1000

Say = Callable[..., Awaitable[Any]]


async def name_of(world: World) -> str | None:
    known = await world.read(records.workload_key("cust", "w1"))
    return known.name if known else None


async def register(world: World, name: str, **attributes: Any) -> None:
    data = {"workload_id": "w1", "type": "workstation", "name": name}
    await world.send("workload.registered", "cust", data, **attributes)


async def test_without_a_sequence_the_later_time_counts_whatever_the_order_of_arrival() -> None:
    world = World()
    await world.tree()
    now_us = world.now_ms * 1000
    await register(world, "new", time_us=now_us + 2)
    await register(world, "old", time_us=now_us + 1)
    assert await name_of(world) == "new"


async def test_of_one_source_the_sequence_counts_and_not_the_time() -> None:
    world = World()
    await world.tree()
    now_us = world.now_ms * 1000
    await register(world, "second", time_us=now_us + 1, sequence=2)
    await register(world, "first", time_us=now_us + 2, sequence=1)
    assert await name_of(world) == "second"


async def test_between_different_sources_time_counts_and_not_the_sequence() -> None:
    world = World()
    await world.tree()
    now_us = world.now_ms * 1000
    await register(world, "old", time_us=now_us + 1, sequence=9, source="/a")
    await register(world, "new", time_us=now_us + 2, sequence=1, source="/b")
    assert await name_of(world) == "new"


async def test_where_only_one_has_a_sequence_time_counts() -> None:
    world = World()
    await world.tree()
    now_us = world.now_ms * 1000
    await register(world, "new", time_us=now_us + 2)
    await register(world, "old", time_us=now_us + 1, sequence=9)
    assert await name_of(world) == "new"


async def test_at_equal_times_the_later_arrival_counts() -> None:
    world = World()
    await world.tree()
    now_us = world.now_ms * 1000
    for name in ("b", "a"):
        await register(world, name, time_us=now_us)
    assert await name_of(world) == "a"


async def test_the_same_id_of_a_source_changes_nothing() -> None:
    world = World()
    await world.tree()
    now_us = world.now_ms * 1000
    await register(world, "first", id="same", time_us=now_us)
    await register(world, "other", id="same", time_us=now_us)
    assert await name_of(world) == "first"
    await register(world, "another", id="same", source="/other", time_us=now_us)
    assert await name_of(world) == "another"


async def apply(world: World, **attributes: Any) -> None:
    await world.send("plan.applied", "cust", {"plan_id": "p", "workload_ids": ["w1"]}, **attributes)


async def revoke(world: World, **attributes: Any) -> None:
    await world.send("plan.revoked", "cust", {"plan_id": "p", "workload_ids": ["w1"]}, **attributes)


async def save(world: World, **attributes: Any) -> None:
    await world.send("plan.saved", "cust", {"plan_id": "p", "features": ["backup.files"]}, **attributes)


async def drop(world: World, **attributes: Any) -> None:
    await world.send("plan.deleted", "cust", {"plan_id": "p"}, **attributes)


async def remove(world: World, **attributes: Any) -> None:
    await world.send("workload.removed", "cust", {"workload_id": "w1"}, **attributes)


async def enter(world: World, **attributes: Any) -> None:
    await register(world, "w", **attributes)


async def report(world: World, **attributes: Any) -> None:
    data = {"workload_id": "w1", "usage": {"storage_bytes": 5}}
    await world.send("workload.usage_reported", "cust", data, **attributes)


async def is_settled(world: World) -> bool:
    """Whether nothing is held and nothing counted."""
    return [await world.used("cust"), await world.used("cust", STORAGE)] == [0, 0]


@pytest.mark.parametrize(
    ("end", "late"),
    [(remove, enter), (remove, apply), (remove, report), (revoke, apply), (drop, save), (drop, apply)],
)
async def test_late_news_do_not_revive_what_was_removed(end: Say, late: Say) -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, STORAGE))
    start_us = world.now_ms * 1000
    for say in (enter, save, apply):
        await say(world)
    world.now_ms += 10_000
    await end(world)
    world.now_ms += DAY_MS - 10_000
    await world.settle()
    await late(world, time_us=start_us + 5_000_000)
    for say in (enter, save, apply):
        if say is not late:
            await say(world, time_us=start_us + 1)
    assert await is_settled(world)


@pytest.mark.parametrize("end", [remove, drop])
async def test_what_was_removed_is_forgotten_after_a_day(end: Say) -> None:
    world = World()
    await world.tree()
    for say in (enter, save, apply):
        await say(world)
    await end(world)
    world.now_ms += DAY_MS + 1
    await world.settle()
    key = records.workload_key("cust", "w1") if end is remove else records.plan_key("cust", "p")
    assert await world.read(key) is None


async def test_what_is_remembered_of_workloads_that_never_were_is_forgotten_too() -> None:
    world = World()
    await world.tree()
    await revoke(world)
    await world.send("plan.applied", "cust", {"plan_id": "q", "workload_ids": ["w2"]})
    world.now_ms += 1
    await world.send("plan.deleted", "cust", {"plan_id": "q"})
    assert await world.read(records.workload_key("cust", "w1")) is not None
    world.now_ms += DAY_MS + 1
    await world.settle()
    for workload in ("w1", "w2"):
        assert await world.read(records.workload_key("cust", workload)) is None


async def test_a_workload_that_came_back_is_not_forgotten() -> None:
    world = World()
    await world.tree()
    await remove(world)
    for say in (enter, save, apply):
        await say(world)
    world.now_ms += DAY_MS + 1
    await world.settle()
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}
    assert await world.read(records.workload_key("cust", "w1")) is not None


@pytest.mark.parametrize("end", [remove, revoke, drop])
async def test_news_from_after_a_removal_count(end: Say) -> None:
    world = World()
    await world.tree()
    for say in (enter, save, apply, end, enter, save, apply):
        world.now_ms += 1
        await say(world)
    assert await world.used("cust") == 1


@pytest.mark.parametrize("end", [remove, revoke, drop])
async def test_at_equal_times_the_order_of_arrival_decides_between_removal_and_return(end: Say) -> None:
    world = World()
    await world.tree()
    now_us = world.now_ms * 1000
    for say in (enter, save, apply, end):
        await say(world, time_us=now_us)
    assert await world.used("cust") == 0
    for say in (enter, save, apply):
        await say(world, time_us=now_us)
    assert await world.used("cust") == 1
    plan = {"plan_id": "p", "features": ["backup.image"]}
    await world.send("plan.saved", "cust", plan, time_us=now_us + 1)
    assert await world.used("cust") == 1  # the return is not taken for what was there before


async def test_usage_reports_follow_their_own_order() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, STORAGE))
    await enter(world)
    now_us = world.now_ms * 1000
    for size, time_us in ((7, now_us + 2), (3, now_us + 1)):
        data = {"workload_id": "w1", "usage": {"storage_bytes": size}}
        await world.send("workload.usage_reported", "cust", data, time_us=time_us)
    assert await world.used("cust", STORAGE) == 7


async def test_a_tenants_news_follow_their_own_order() -> None:
    world = World()
    await world.tree()
    now_us = world.now_ms * 1000
    for enabled, time_us in ((False, now_us + 20), (True, now_us + 10)):
        data = {"parent_id": "msp", "kind": "customer", "name": "cust", "enabled": enabled}
        await world.send("tenant.upserted", "cust", data, time_us=time_us + 1000)
    assert not (await world.read(records.tenant_key("cust"))).enabled


async def test_what_comes_over_http_is_newer_than_whatever_was_said_before_it() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, STORAGE))
    ahead_us = (world.now_ms + 200_000) * 1000
    await register(world, "from an agent", time_us=ahead_us, sequence=7)
    data = {"workload_id": "w1", "type": "workstation", "name": "from a person"}
    await world.handle(world.request("workload.registered", "cust", data))
    assert await name_of(world) == "from a person"
    await register(world, "older", time_us=ahead_us - 1, sequence=6)
    assert await name_of(world) == "from a person"
