"""Switches of customers between editions and billing modes: one step for few workloads, a job for many."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service import records
from service.handlers import announcements
from service.handlers.verification import verify
from tests.unit.handlers.world import World

EDITION = "p_adv_workstations"
MODE_ITEMS = (
    "pw_base_workstations",
    "pw_pack_adv_management",
    "pw_pack_adv_security",
    "pw_pack_adv_backup_workstations",
    "pw_pack_adv_backup_servers",
    "pw_pack_adv_backup_vms",
)
EXAMPLE_PLANS = {
    "plain": ["backup.files"],
    "managed": ["backup.files", "management.software_inventory", "management.patch_management"],
    "filtered": ["backup.files", "security.url_filtering"],
    "continuous": ["backup.files", "backup.continuous_data_protection"],
}


async def example_one(world: World, **quota: Any) -> None:
    """The first example of docs/domain.md 7.1."""
    for tenant, parent, kind in (("dist", "root", "partner"), ("msp", "dist", "partner"), ("cust", "msp", "customer")):
        await world.upsert(tenant, parent, kind)
        if tenant != "cust":
            await world.set_items(tenant, EDITION, *MODE_ITEMS)
    await world.set_items("cust", EDITION, quota=quota or {"value": 10})
    for plan, features in EXAMPLE_PLANS.items():
        await world.send("plan.saved", "cust", {"plan_id": plan, "features": features})
    plans = ["managed"] * 3 + ["filtered"] * 2 + ["continuous"] + ["plain"] * 2
    for number, plan in enumerate(plans):
        await world.send("workload.registered", "cust", {"workload_id": f"w{number}", "type": "workstation"})
        await world.send("plan.applied", "cust", {"plan_id": plan, "workload_ids": [f"w{number}"]})


async def switch(world: World, target: str = "pck_per_workload", **more: Any) -> None:
    """Ask for a switch of the customer, and wait for its end."""
    data = {"switch_id": "s1", "target_edition": target, **more}
    await world.send("switch.requested", "cust", data)


async def answers(world: World) -> list[str]:
    """What was said of switches, in order."""
    said = [event["type"] for event in await world.announced() if event["type"].startswith("apportion.switch.")]
    return [type_.removeprefix("apportion.switch.").removesuffix(".v1") for type_ in said]


async def numbers(world: World, *items: str) -> dict[str, tuple[int, int | None]]:
    """Used and quota of items on the customer."""
    found = {}
    for item in items:
        account = await world.account("cust", item)
        found[item] = (account.used, account.value)
    return found


@pytest.fixture(params=["one step", "a job"])
def world(request: pytest.FixtureRequest) -> World:
    """A world in which the customer's workloads are few, or more than are switched in one step."""
    return World(at_once=3 if request.param == "a job" else 200)


async def test_the_first_example_of_the_domain_gives_its_table(world: World) -> None:
    await example_one(world)
    assert await world.used("cust", EDITION) == 8
    await switch(world)
    assert await numbers(world, *MODE_ITEMS[:4]) == {
        "pw_base_workstations": (8, 10),
        "pw_pack_adv_management": (3, 10),
        "pw_pack_adv_security": (2, 10),
        "pw_pack_adv_backup_workstations": (1, 10),
    }
    assert await world.used("cust", EDITION) == 0
    told = await answers(world)
    assert told[0] == "started" and told[-1] == "completed"
    (completed,) = await world.said("switch.completed")
    used = {(item["offering_item"], item["side"]): item["used"] for item in completed["items"]}
    assert used["pw_base_workstations", "destination"] == 8 and used[EDITION, "source"] == 0
    assert completed["workloads"] == {"total": 8, "moved": 8, "denied": 0}
    found = await verify(world.ledger, world.catalog)
    assert found.ok, found.violations
    assert (await world.read(records.items_key("cust"))).switching is None


async def test_a_switch_that_the_msp_has_no_room_for_changes_nothing(world: World) -> None:
    await example_one(world)
    await world.set_items("msp", "pw_base_workstations", quota={"value": 7, "overage": 0})
    before = {item: await world.account("msp", item) for item in (EDITION, *MODE_ITEMS)}
    await switch(world)
    assert (await answers(world)) == ["rejected"]
    (rejected,) = await world.said("switch.rejected")
    (denial,) = rejected["denials"]
    assert (denial["code"], denial["tenant_id"], denial["limit"], denial["requested"]) == (
        "quota_exceeded",
        "msp",
        7,
        8,
    )
    assert {item: await world.account("msp", item) for item in (EDITION, *MODE_ITEMS)} == before
    items = await world.read(records.items_key("cust"))
    assert items.enabled == {EDITION} and items.switching is None
    found = await verify(world.ledger, world.catalog)
    assert found.ok, found.violations


async def test_a_switch_is_led_back_to_the_same_items_quotas_and_holdings(world: World) -> None:
    await example_one(world)
    before = (await world.read(records.items_key("cust"))).states[EDITION]
    await switch(world)
    await world.send("switch.undo_requested", "cust", {"switch_id": "s1"})
    assert (await answers(world))[-1] == "undone"
    items = await world.read(records.items_key("cust"))
    assert items.enabled == {EDITION}
    assert (items.states[EDITION].value, items.states[EDITION].overage) == (before.value, before.overage)
    assert set(map(tuple, (await world.holding("cust")).values())) == {(EDITION,)}
    assert await world.used("msp", EDITION) == 8 and await world.used("msp", "pw_base_workstations") == 0
    found = await verify(world.ledger, world.catalog)
    assert found.ok, found.violations


async def test_best_effort_moves_whom_it_can(world: World) -> None:
    await example_one(world)
    await world.set_items("msp", "pw_base_workstations", quota={"value": 5, "overage": 0})
    await switch(world, mode="best_effort")
    assert (await answers(world))[-1] == "completed"
    (completed,) = await world.said("switch.completed")
    assert completed["workloads"] == {"total": 8, "moved": 5, "denied": 3}
    assert await world.used("cust", "pw_base_workstations") == 5
    assert len(await world.waiting("cust")) >= 3
    found = await verify(world.ledger, world.catalog)
    assert found.ok, found.violations


async def test_the_same_request_again_is_answered_with_the_same_event(world: World) -> None:
    await example_one(world)
    await switch(world)
    await switch(world)
    first, second = [event for event in await world_events(world) if event["type"].endswith("completed.v1")]
    assert first == second


async def world_events(world: World) -> list[dict[str, Any]]:
    """Everything announced, without the check that revisions rise: an answer that is given again repeats its own."""
    entries = await world.ledger.outbox(range(world.ledger.shards), 1_000_000)
    return [
        json.loads(announcements.render(entry, world.catalog).value)
        for shard in sorted(entries)
        for entry in entries[shard]
    ]


async def test_no_id_is_ever_said_with_two_contents(world: World) -> None:
    await example_one(world)
    await switch(world)
    await world.send("switch.undo_requested", "cust", {"switch_id": "s1"})
    await switch(world)
    seen: dict[str, dict[str, Any]] = {}
    for event in await world_events(world):
        assert seen.setdefault(event["id"], event) == event
