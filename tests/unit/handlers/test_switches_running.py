"""Switches of many workloads while they are under way: what happens beside each of their steps."""

from __future__ import annotations

from typing import Any

import pytest

from service import records
from service.handlers import switch_jobs
from service.handlers.verification import verify
from service.ledger.snapshot import Snapshot
from service.records import Switching
from tests.unit.handlers.test_switches import EDITION, MODE_ITEMS, answers, example_one, switch, world_events
from tests.unit.handlers.world import World

BASE = MODE_ITEMS[0]
SWITCHED = "1012"


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workloads in each step."""
    monkeypatch.setattr(switch_jobs, "MOVED_PER_STEP", 2)


@pytest.fixture
async def world() -> World:
    """The first example of docs/domain.md 7.1, whose customer has more workloads than are switched at once."""
    made = World(at_once=3)
    await example_one(made)
    return made


async def begin(world: World, *, steps: int, target: str = "pck_per_workload", **more: Any) -> None:
    """Ask for a switch, and carry out so many steps of it."""
    await world.engine.handle(
        [world.event("switch.requested", "cust", {"switch_id": "s1", "target_edition": target, **more})]
    )
    for _ in range(steps):
        await world.engine.run_due(range(world.ledger.shards))


async def say(world: World, name: str, tenant: str, data: dict[str, Any]) -> str:
    """An event beside the switch, of which no step is carried out; what became of it."""
    (result,) = await world.engine.handle([world.event(name, tenant, data)])
    return str(result.context.get("code") or result.kind)


async def mark(world: World) -> Switching | None:
    """The switch that the customer is in."""
    found: Switching | None = (await world.read(records.items_key("cust"))).switching
    return found


async def sure(world: World) -> None:
    """Everything adds up, and nothing is left of the switch."""
    await world.settle()
    found = await verify(world.ledger, world.catalog)
    assert found.ok, found.violations
    assert await mark(world) is None
    accounts = snapshot(world).accounts
    assert not [place for place, account in accounts.items() if records.set_aside(place[1]) and account.used]
    assert not [index for index in snapshot(world).indexes if index.kind == "disturbed"]


def snapshot(world: World) -> Snapshot:
    """The shard of the example."""
    (found,) = [each for number in range(4) if (each := world.ledger.snapshot(number)).records.get(KEY)]
    return found


KEY = records.tenant_key("cust")


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
async def test_items_parent_deletion_and_a_second_switch_are_refused_while_it_runs(world: World, steps: int) -> None:
    await begin(world, steps=steps)
    assert await mark(world) is not None
    assert await say(world, "offering_items.set", "cust", {"items": [{"name": EDITION, "status": 1}]}) == SWITCHED
    elsewhere = {"parent_id": "dist", "kind": "customer", "name": "cust"}
    assert await say(world, "tenant.upserted", "cust", elsewhere) == SWITCHED
    assert await say(world, "tenant.deleted", "cust", {}) == SWITCHED
    await say(world, "switch.requested", "cust", {"switch_id": "s2", "target_edition": "pck_per_gigabyte"})
    await sure(world)
    second = [data for data in await world.said("switch.rejected") if data["switch_id"] == "s2"]
    assert [denial["context"]["code"] for denial in second[0]["denials"]] == [SWITCHED]
    assert (await answers(world))[-1] == "completed"


@pytest.mark.parametrize("steps", [1, 2, 3])
async def test_a_workload_with_an_event_of_its_own_moves_at_once_with_the_unit_that_is_set_aside_for_it(
    world: World, steps: int
) -> None:
    """There is room for exactly the eight who are there, so that a unit that was not set aside would be refused."""
    await world.set_items("msp", BASE, quota={"value": 8, "overage": 0})
    await begin(world, steps=steps)
    await say(world, "plan.applied", "cust", {"plan_id": "managed", "workload_ids": ["w7"]})
    assert set((await world.holding("cust"))["w7"]) == {BASE, "pw_pack_adv_management"}
    await sure(world)
    assert await world.used("cust", BASE) == 8 and await world.used("cust", "pw_pack_adv_management") == 4


async def test_a_workload_that_changes_while_all_are_counted_is_counted_as_it_is_when_the_switch_starts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.set_items("msp", BASE, quota={"value": 8, "overage": 0})
    counting = switch_jobs.Count.count
    changes = iter(("w7", "w6"))

    async def disturbed(self: switch_jobs.Count, tenant: str) -> None:
        await counting(self, tenant)
        if name := next(changes, None):
            await say(world, "plan.applied", "cust", {"plan_id": "managed", "workload_ids": [name]})

    monkeypatch.setattr(switch_jobs.Count, "count", disturbed)
    await begin(world, steps=1)
    assert await world.used("cust", records.aside_item("pw_pack_adv_management")) == 5
    await sure(world)
    assert await world.used("cust", "pw_pack_adv_management") == 5
    assert not await world.waiting("cust")


async def test_a_unit_that_comes_to_be_while_all_are_counted_is_switched_with_its_workloads(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = switch_jobs.Count.count
    once = iter((True,))

    async def disturbed(self: switch_jobs.Count, tenant: str) -> None:
        await counting(self, tenant)
        if next(once, False):
            await say(world, "tenant.upserted", "unit", {"parent_id": "cust", "kind": "unit", "name": "unit"})
            await say(world, "plan.saved", "unit", {"plan_id": "p", "features": ["backup.files"]})
            await say(world, "workload.registered", "unit", {"workload_id": "u", "type": "workstation"})
            await say(world, "plan.applied", "unit", {"plan_id": "p", "workload_ids": ["u"]})

    monkeypatch.setattr(switch_jobs.Count, "count", disturbed)
    await begin(world, steps=1)
    await world.settle()
    world.now_ms += 5000
    await sure(world)
    assert (await world.holding("unit"))["u"] == {BASE: 1} and await world.used("cust", BASE) == 9


@pytest.mark.parametrize("at_once", [3, 200])
async def test_workloads_of_a_unit_below_a_unit_are_switched_too(at_once: int) -> None:
    world = World(at_once=at_once)
    await example_one(world)
    for tenant, parent in (("unit", "cust"), ("cell", "unit")):
        await world.upsert(tenant, parent, "unit")
        await world.protect("w", tenant=tenant)
    await switch(world)
    await sure(world)
    assert (await world.holding("cell"))["w"] == {BASE: 1} and await world.used("cust", EDITION) == 0


async def test_a_plan_that_is_saved_meanwhile_waits_for_the_end_and_counts_then(world: World) -> None:
    await begin(world, steps=2)
    data = {"plan_id": "plain", "features": ["backup.files", "security.url_filtering"]}
    assert await say(world, "plan.saved", "cust", data) == "delayed"
    await world.settle()
    world.now_ms += 5000
    await sure(world)
    assert await world.used("cust", "pw_pack_adv_security") == 4


async def test_an_item_that_is_turned_off_above_meanwhile_goes_when_the_switch_is_over(world: World) -> None:
    await begin(world, steps=2)
    off = {"items": [{"name": "pw_pack_adv_security", "status": 0}], "cascade": True}
    await say(world, "offering_items.set", "msp", off)
    while await mark(world) is not None:
        await world.engine.run_due(range(world.ledger.shards))
    assert (await world.read(records.items_key("cust"))).enabled.issuperset({BASE, "pw_pack_adv_security"})
    world.now_ms += 5000
    await sure(world)
    assert "pw_pack_adv_security" not in (await world.read(records.items_key("cust"))).enabled


async def test_a_process_that_remembers_the_time_before_the_switch_ends_it_all_the_same(world: World) -> None:
    knows_nothing_of_it = world.engine
    await say(world, "workload.usage_reported", "cust", {"workload_id": "w1", "usage": {"storage_bytes": 5}})
    world.start()
    await begin(world, steps=5)
    assert await mark(world) is not None
    world.engine = knows_nothing_of_it
    await sure(world)
    assert (await answers(world))[-1] == "completed" and await world.used("cust", BASE) == 8


@pytest.mark.parametrize("at_once", [3, 200])
async def test_a_refused_switch_changes_nothing_on_any_level_but_its_own_records(at_once: int) -> None:
    world = World(at_once=at_once)
    await example_one(world)
    await world.set_items("msp", BASE, quota={"value": 7, "overage": 0})
    before = snapshot(world)
    await switch(world)
    after = snapshot(world)
    assert await answers(world) == ["rejected"]
    own = ("switch", "switchplace", "switchtask")
    kept = {key: record for key, record in after.records.items() if key.kind not in own}
    payloads = {key: record.payload for key, record in kept.items()}
    assert payloads == {key: record.payload for key, record in before.records.items()}
    used = {place: account for place, account in after.accounts.items() if account != type(account)()}
    assert used == {place: account for place, account in before.accounts.items() if account != type(account)()}
    assert after.indexes == before.indexes


@pytest.mark.parametrize("at_once", [3, 200])
async def test_what_has_drifted_since_the_preview_is_told_and_nothing_changes(at_once: int) -> None:
    world = World(at_once=at_once)
    await example_one(world)
    await switch(world, dry_run=True)
    (shown,) = await world.said("switch.previewed")
    await world.set_items("cust", EDITION, quota={"value": 12})
    await switch(world, plan_hash=shown["plan_hash"])
    (rejected,) = await world.said("switch.rejected")
    assert [drift["offering_item"] for drift in rejected["drift"]] == [EDITION]
    assert (await world.read(records.items_key("cust"))).enabled == {EDITION}
    await sure(world)


@pytest.mark.parametrize("at_once", [3, 200])
async def test_other_content_under_the_same_id_is_rejected_and_the_switch_stays_what_it_is(at_once: int) -> None:
    world = World(at_once=at_once)
    await example_one(world)
    await switch(world)
    await switch(world, "pck_per_gigabyte")
    await switch(world)
    told = [event for event in await world_events(world) if event["type"].startswith("apportion.switch.")]
    ends = [event for event in told if event["type"].endswith(("completed.v1", "rejected.v1"))]
    assert [event["type"].split(".")[2] for event in ends] == ["completed", "rejected", "completed"]
    assert ends[0] == ends[2] and ends[1]["data"]["denials"][0]["context"]["code"] == "1027"
    assert (await world.read(records.items_key("cust"))).enabled >= {BASE}


@pytest.mark.parametrize("at_once", [3, 200])
@pytest.mark.parametrize("change", ["type", "plan applied", "plan saved"])
async def test_an_undo_forgets_what_a_workload_held_whose_type_or_plans_have_changed_since(
    at_once: int, change: str
) -> None:
    world = World(at_once=at_once)
    await example_one(world)
    await switch(world)
    if change == "type":
        await world.send("workload.registered", "cust", {"workload_id": "w7", "type": "workstation", "os": "desktop"})
    elif change == "plan applied":
        await world.send("plan.applied", "cust", {"plan_id": "managed", "workload_ids": ["w7"]})
    else:
        await world.send("plan.saved", "cust", {"plan_id": "plain", "features": ["backup.image"]})
    assert (await world.read(records.workload_key("cust", "w7"))).former == ()
    assert (await world.read(records.workload_key("cust", "w0"))).former[1:] == (EDITION,)
    await world.send("switch.undo_requested", "cust", {"switch_id": "s1"})
    await sure(world)
    assert (await world.holding("cust"))["w7"] == {EDITION: 1}


@pytest.mark.parametrize("at_once", [3, 200])
async def test_an_undo_gives_back_the_higher_sub_edition_that_a_workload_had_kept(at_once: int) -> None:
    world = World(at_once=at_once)
    standard, advanced = "pw_p_workstations", "pw_p_adv_workstations"
    for tenant, parent, kind in (("dist", "root", "partner"), ("msp", "dist", "partner"), ("cust", "msp", "customer")):
        await world.upsert(tenant, parent, kind)
        await world.set_items(tenant, advanced, *(() if kind == "customer" else (standard, *MODE_ITEMS)))
    await world.protect("w1", "w2", "w3", "w4", "w5")
    await world.set_items("cust", standard)
    before = {name: set(held) for name, held in (await world.holding("cust")).items()}
    assert all(held == {advanced} for held in before.values())
    await switch(world)
    await world.send("switch.undo_requested", "cust", {"switch_id": "s1"})
    await sure(world)
    assert {name: set(held) for name, held in (await world.holding("cust")).items()} == before


async def test_the_beginning_of_an_undo_has_another_id_than_the_beginning_of_its_switch(world: World) -> None:
    await switch(world)
    await world.send("switch.undo_requested", "cust", {"switch_id": "s1"})
    started = await world.announced("switch.started")
    assert len(started) == 2 and len({event["id"] for event in started}) == 2
    assert [data["drift"] for data in await world.said("switch.undone")] == [[]]
