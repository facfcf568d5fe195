"""Reservations: set aside, committed, extended, released, expired (docs/domain.md 6, rule 9)."""

from __future__ import annotations

from typing import Any

import pytest

from service.handlers import announcements
from service.handlers.work import Result
from service.ledger.transaction import QUANTITY_MAX
from tests.unit.handlers.world import MANAGEMENT, STORAGE, WORKSTATIONS, World

PATH = ("cust", "msp", "dist")
HOUR_MS = 3_600_000


async def reserve(world: World, name: str = "r", tenant: str = "cust", **more: Any) -> Result:
    data = {"reservation_id": name, "items": {WORKSTATIONS: 3}, **more}
    return await world.send("reservation.reserve", tenant, data)


async def commit(world: World, workload: str = "w1", name: str = "r", **attributes: Any) -> Result:
    data = {"reservation_id": name, "workload_id": workload}
    return await world.send("reservation.commit", "cust", data, **attributes)


async def extend(world: World, name: str = "r", ttl_seconds: int = 60, **attributes: Any) -> Result:
    data = {"reservation_id": name, "ttl_seconds": ttl_seconds}
    return await world.send("reservation.extend", "cust", data, **attributes)


async def release(world: World, name: str = "r") -> Result:
    return await world.send("reservation.release", "cust", {"reservation_id": name})


async def numbers(world: World, tenant: str = "cust", item: str = WORKSTATIONS) -> tuple[int, int]:
    account = await world.account(tenant, item)
    return account.used, account.reserved


async def answers(world: World) -> list[str]:
    """What was announced of reservations, by name."""
    return [
        event["type"].split(".")[2]
        for event in await world.announced()
        if event["type"].startswith("apportion.reservation.")
    ]


# --- reserve


async def test_a_granted_reservation_is_used_and_reserved_on_every_level() -> None:
    world = World()
    await world.tree()
    await reserve(world)
    assert [await numbers(world, tenant) for tenant in PATH] == [(3, 3)] * 3
    (event,) = await world.announced("reservation.granted")
    assert (event["subject"], event["data"]) == (
        "r",
        {
            "reservation_id": "r",
            "items": {WORKSTATIONS: 3},
            "mode": "all_or_nothing",
            "expires_at": announcements.rfc3339(world.now_ms + HOUR_MS),
        },
    )


async def test_a_reservation_is_granted_whole_or_not_at_all_and_names_everything_in_the_way() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, STORAGE))
    await world.set_items("msp", WORKSTATIONS, quota={"value": 2, "overage": 0})
    await world.set_items("dist", STORAGE, quota={"value": 5, "overage": 0})
    result = await reserve(world, items={WORKSTATIONS: 3, STORAGE: 9})
    assert result.kind == "denied"
    (denied,) = await world.said("reservation.denied")
    assert (denied["items"], denied["mode"], "expires_at" in denied) == (
        {WORKSTATIONS: 3, STORAGE: 9},
        "all_or_nothing",
        False,
    )
    assert [
        (each["code"], each["tenant_id"], each["offering_item"], each["limit"], each["used"], each["requested"])
        for each in denied["denials"]
    ] == [
        ("quota_exceeded", "msp", WORKSTATIONS, 2, 0, 3),
        ("quota_exceeded", "dist", STORAGE, 5, 0, 9),
    ]
    assert (await numbers(world), await numbers(world, "cust", STORAGE)) == ((0, 0), (0, 0))


async def test_a_reservation_of_an_item_that_is_not_enabled_is_denied() -> None:
    world = World()
    await world.tree()
    await reserve(world, items={WORKSTATIONS: 1, MANAGEMENT: 2})
    (denied,) = await world.said("reservation.denied")
    assert denied["denials"] == [
        {
            "code": "offering_item_not_enabled",
            "offering_item": MANAGEMENT,
            "tenant_id": "cust",
            "requested": 2,
            "message": f"{MANAGEMENT} is not enabled on cust",
        }
    ]


async def test_a_reservation_below_a_disabled_tenant_is_denied() -> None:
    world = World()
    await world.tree()
    await world.upsert("msp", "dist", "partner", enabled=False)
    await reserve(world)
    (denied,) = await world.said("reservation.denied")
    assert [(each["code"], each["tenant_id"]) for each in denied["denials"]] == [("tenant_disabled", "msp")]


async def test_a_unit_reserves_from_its_customers_items() -> None:
    world = World()
    await world.tree(quota={"value": 3, "overage": 0})
    await world.upsert("unit", "cust", "unit")
    await reserve(world, tenant="unit")
    await reserve(world, "r2", items={WORKSTATIONS: 1})
    assert [await numbers(world, tenant) for tenant in ("unit", "cust")] == [(3, 3), (3, 3)]
    assert await answers(world) == ["granted", "denied"]


async def test_a_partner_may_reserve_too() -> None:
    world = World()
    await world.tree()
    await reserve(world, tenant="msp")
    assert [await numbers(world, tenant) for tenant in PATH] == [(0, 0), (3, 3), (3, 3)]


async def test_an_unknown_item_is_a_dead_letter() -> None:
    world = World()
    await world.tree()
    result = await reserve(world, items={"pw_base_toasters": 1})
    assert (result.code, result.context) == ("unknown_offering_item", {"offering_item": "pw_base_toasters"})
    assert await answers(world) == []


async def test_check_only_answers_without_expiry_and_changes_nothing() -> None:
    world = World()
    await world.tree(quota={"value": 3, "overage": 0})
    await reserve(world, mode="check_only")
    await reserve(world, "r2", mode="check_only", items={WORKSTATIONS: 4})
    assert await world.said("reservation.granted") == [
        {"reservation_id": "r", "items": {WORKSTATIONS: 3}, "mode": "check_only"}
    ]
    (denied,) = await world.said("reservation.denied")
    assert (denied["mode"], [each["requested"] for each in denied["denials"]]) == ("check_only", [4])
    assert await numbers(world) == (0, 0)
    assert await world.announced("usage.changed") == []
    await reserve(world)  # the id is not used up
    assert await numbers(world) == (3, 3)


async def test_check_only_of_an_item_that_is_not_enabled_is_denied() -> None:
    world = World()
    await world.tree()
    await reserve(world, mode="check_only", items={MANAGEMENT: 1})
    (denied,) = await world.said("reservation.denied")
    assert [each["code"] for each in denied["denials"]] == ["offering_item_not_enabled"]


# --- the same id again


async def test_the_same_id_and_content_answers_with_the_first_outcome_again() -> None:
    world = World()
    await world.tree(quota={"value": 3, "overage": 0})
    await reserve(world)
    await reserve(world, "full")
    world.now_ms += 10_000
    await release(world)
    await reserve(world)
    await reserve(world, "full")
    granted, denied = await world.said("reservation.granted"), await world.said("reservation.denied")
    assert granted[0] == granted[1]
    assert denied[0] == denied[1]
    assert await numbers(world) == (0, 0)
    ids = [event["id"] for event in await world.announced("reservation.granted")]
    assert len(set(ids)) == 2  # two requests, two answers


async def test_the_first_outcome_is_answered_again_within_one_batch_too() -> None:
    world = World()
    await world.tree()
    data = {"reservation_id": "r", "items": {MANAGEMENT: 1}}
    await world.handle(*(world.event("reservation.reserve", "cust", data) for _ in range(2)))
    first, second = await world.said("reservation.denied")
    assert first == second


async def test_a_quota_refusal_is_answered_again_within_one_batch_too() -> None:
    world = World()
    await world.tree(quota={"value": 0, "overage": 0})
    data = {"reservation_id": "r", "items": {WORKSTATIONS: 1}}
    await world.handle(*(world.event("reservation.reserve", "cust", data) for _ in range(2)))
    first, second = await world.said("reservation.denied")
    assert first == second
    assert [each["limit"] for each in first["denials"]] == [0]


@pytest.mark.parametrize("other", [{"items": {WORKSTATIONS: 4}}, {"ttl_seconds": 60}])
async def test_the_same_id_with_other_content_is_rejected(other: dict[str, Any]) -> None:
    world = World()
    await world.tree()
    await reserve(world)
    result = await reserve(world, **other)
    assert (result.kind, result.code, result.context) == (
        "rejected",
        "not_allowed",
        {"code": "1027", "reservation_id": "r"},
    )
    assert await world.dead_letters() == [("not_allowed", result.context)]


async def test_the_same_event_under_another_offset_says_nothing_again() -> None:
    world = World()
    await world.tree()
    await world.protect("w1")
    commands = [
        ("reserve", {"items": {WORKSTATIONS: 3}}),
        ("extend", {"ttl_seconds": 60}),
        ("extend", {"ttl_seconds": 600}),
        ("commit", {"workload_id": "w1"}),
    ]
    for _ in range(2):
        for number, (name, data) in enumerate(commands):
            await world.send(f"reservation.{name}", "cust", {"reservation_id": "r", **data}, id=f"command-{number}")
    assert await answers(world) == ["granted", "granted", "granted", "committed"]
    assert await numbers(world) == (1, 0)


# --- commit


async def test_committed_units_become_the_workloads_assignment() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT), quota={"value": 3, "overage": 0})
    await reserve(world, items={WORKSTATIONS: 3, MANAGEMENT: 1})
    await world.protect("w1", features=("management.patch_management",))
    assert await world.waiting("cust")  # the quota is full
    await commit(world)
    assert (await numbers(world), await numbers(world, "cust", MANAGEMENT)) == ((1, 0), (1, 0))
    (changed,) = await world.said("assignment.changed")
    assert (changed["assigned"], changed["reason"]) == ({WORKSTATIONS: 1, MANAGEMENT: 1}, "reservation")
    assert await world.said("reservation.committed") == [
        {"reservation_id": "r", "items": {WORKSTATIONS: 3, MANAGEMENT: 1}, "mode": "all_or_nothing"}
    ]
    assert await world.waiting("cust") == {}


async def test_what_the_workload_holds_already_or_does_not_need_is_released() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, MANAGEMENT))
    await world.protect("w1")
    await reserve(world, items={WORKSTATIONS: 1, MANAGEMENT: 1})
    await commit(world)
    assert (await numbers(world), await numbers(world, "cust", MANAGEMENT)) == ((1, 0), (0, 0))
    assert len(await world.said("assignment.changed")) == 1  # nothing changed for the workload


async def test_a_commit_is_never_in_the_way_of_itself_under_a_full_quota() -> None:
    world = World()
    await world.tree(quota={"value": 1, "overage": 0})
    await reserve(world, items={WORKSTATIONS: 1})
    await world.protect("w1")
    await commit(world)
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}
    assert await numbers(world) == (1, 0)


async def test_a_commit_to_an_unknown_workload_is_denied_and_changes_nothing() -> None:
    world = World()
    await world.tree()
    await reserve(world)
    await commit(world, "nobody")
    (denied,) = await world.said("reservation.denied")
    assert (denied["items"], [each["code"] for each in denied["denials"]]) == ({WORKSTATIONS: 3}, ["not_allowed"])
    assert await numbers(world) == (3, 3)
    await world.protect("w1")
    await commit(world)
    assert await answers(world) == ["granted", "denied", "committed"]


async def test_committed_bytes_add_to_the_gauge_until_the_next_report() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, STORAGE))
    await world.protect("w1")
    usage = {"workload_id": "w1", "usage": {"storage_bytes": 10}}
    await world.send("workload.usage_reported", "cust", usage)
    await reserve(world, items={STORAGE: 5})
    assert await numbers(world, "cust", STORAGE) == (15, 5)
    await commit(world)
    assert await numbers(world, "cust", STORAGE) == (15, 0)
    await world.send("workload.usage_reported", "cust", {**usage, "usage": {"storage_bytes": 12}})
    assert await numbers(world, "dist", STORAGE) == (12, 0)


async def test_a_commit_that_would_take_a_gauge_beyond_the_largest_quantity_is_a_dead_letter() -> None:
    world = World()
    await world.tree(items=(WORKSTATIONS, STORAGE))
    await world.send("workload.registered", "cust", {"workload_id": "w1", "type": "workstation"})
    await reserve(world, items={STORAGE: 5})
    await world.set_items("cust", STORAGE, status=0, _cascade=True)  # so that what is reported is kept, and not counted
    usage = {"workload_id": "w1", "usage": {"storage_bytes": QUANTITY_MAX}}
    await world.send("workload.usage_reported", "cust", usage)
    assert (await commit(world)).code == "invalid_data"
    assert [code for code, _ in await world.dead_letters()] == ["invalid_data"]
    assert await numbers(world, "dist", STORAGE) == (5, 5)


# --- extend, release, expiry


async def test_an_extended_reservation_lasts_so_long_from_then() -> None:
    world = World()
    await world.tree()
    await reserve(world, ttl_seconds=10)
    world.now_ms += 5_000
    await extend(world, ttl_seconds=10)
    assert (await world.said("reservation.granted"))[-1]["expires_at"] == announcements.rfc3339(world.now_ms + 10_000)
    world.now_ms += 6_000
    await world.settle()
    assert await numbers(world) == (3, 3)
    world.now_ms += 4_000
    await world.settle()
    assert await answers(world) == ["granted", "granted", "expired"]


async def test_a_reservation_expires_once_and_its_units_are_free() -> None:
    world = World()
    await world.tree()
    await reserve(world, ttl_seconds=10)
    world.now_ms += 9_999
    await world.settle()
    assert await numbers(world) == (3, 3)
    world.now_ms += 1
    for _ in range(2):
        await world.settle()
    assert [await numbers(world, tenant) for tenant in PATH] == [(0, 0)] * 3
    (event,) = await world.announced("reservation.expired")
    assert event["data"] == {"reservation_id": "r", "items": {WORKSTATIONS: 3}, "mode": "all_or_nothing"}
    assert event["subject"] == "r"


async def test_a_released_reservation_frees_its_units_and_says_so_once() -> None:
    world = World()
    await world.tree()
    await reserve(world)
    for _ in range(2):
        await release(world)
    assert await numbers(world) == (0, 0)
    assert await world.said("reservation.released") == [
        {"reservation_id": "r", "items": {WORKSTATIONS: 3}, "mode": "all_or_nothing"}
    ]


async def test_releasing_what_is_not_known_changes_nothing_and_says_nothing() -> None:
    world = World()
    await world.tree()
    await release(world, "nothing")
    assert await answers(world) == []
    assert await world.dead_letters() == []


@pytest.mark.parametrize("ended", ["unknown", "denied", "released", "expired", "committed"])
async def test_commit_and_extend_of_what_has_ended_or_is_not_known_are_denied(ended: str) -> None:
    world = World()
    await world.tree(quota={"value": 5, "overage": 0})
    await world.protect("w1")
    if ended != "unknown":
        await reserve(world, items={WORKSTATIONS: 9 if ended == "denied" else 3}, ttl_seconds=10)
    if ended == "released":
        await release(world)
    elif ended == "expired":
        world.now_ms += 10_000
        await world.settle()
    elif ended == "committed":
        await commit(world)
    before = await answers(world)
    await commit(world)
    await extend(world)
    assert await answers(world) == [*before, "denied", "denied"]
    last = (await world.said("reservation.denied"))[-1]
    assert [each["code"] for each in last["denials"]] == ["not_allowed"]
    assert await numbers(world) == (1, 0)


async def test_every_reservation_ends_once() -> None:
    world = World()
    await world.tree()
    await world.protect("w1")
    await reserve(world, ttl_seconds=10)
    world.now_ms += 10_000  # due, and not swept yet
    released = world.event("reservation.release", "cust", {"reservation_id": "r"})
    committed = world.event("reservation.commit", "cust", {"reservation_id": "r", "workload_id": "w1"})
    await world.engine.handle([committed, released])
    await world.settle()
    assert await answers(world) == ["granted", "committed"]


async def test_an_ended_reservation_is_forgotten_after_a_day_and_its_id_is_free() -> None:
    world = World()
    await world.tree()
    await reserve(world)
    await release(world)
    world.now_ms += 24 * HOUR_MS + 1
    await world.settle()
    await reserve(world, items={WORKSTATIONS: 1})
    assert await numbers(world) == (1, 1)


async def test_why_a_reservation_was_refused_is_forgotten_after_a_day_too() -> None:
    world = World()
    await world.tree(quota={"value": 0, "overage": 0})
    await reserve(world)
    assert await world.waiting("cust")
    world.now_ms += 24 * HOUR_MS + 1
    await world.settle()
    assert await world.waiting("cust") == {}
