"""Events of tenants that are not known yet (docs/contracts.md 2)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest

from service import records
from service.handlers import backlogs, directory
from service.handlers.plans import WORKLOADS_INLINE_MAX
from service.handlers.work import Arrival
from service.ledger.errors import LedgerUnavailable
from service.ledger.transaction import Outcome, Transaction
from tests.unit.handlers.world import MANAGEMENT, WORKSTATIONS, World

CUSTOMER = {"parent_id": "msp", "kind": "customer", "name": "cust"}
ITEMS = {"items": [{"name": WORKSTATIONS, "status": 1}]}


async def partners(world: World) -> None:
    for tenant, parent in (("dist", "root"), ("msp", "dist")):
        await world.upsert(tenant, parent, "partner")
        await world.set_items(tenant, WORKSTATIONS, MANAGEMENT)


def early(world: World) -> list[Arrival]:
    """What comes before its tenant: a protected workload, with the items that it needs."""
    return [
        world.event("offering_items.set", "cust", ITEMS),
        world.event("workload.registered", "cust", {"workload_id": "w1", "type": "workstation"}),
        world.event("plan.saved", "cust", {"plan_id": "p", "features": ["backup.files"]}),
        world.event("plan.applied", "cust", {"plan_id": "p", "workload_ids": ["w1"]}),
    ]


async def wait(world: World, milliseconds: int = backlogs.RETRY_MS) -> None:
    world.now_ms += milliseconds
    await world.settle()


async def backlog(world: World, tenant: str = "cust") -> Any:
    """The events that wait for a tenant."""
    key = records.backlog_key(tenant, backlogs.UNKNOWN)
    shard = directory.shard_of(tenant, world.ledger.shards)
    stored = (await world.ledger.read({shard: [key]}))[key]
    return None if stored is None else records.decode(key, stored.payload)


async def test_events_of_a_tenant_that_is_not_known_wait_and_are_carried_out_when_it_is() -> None:
    world = World()
    await partners(world)
    results = await world.handle(*early(world))
    assert [result.kind for result in results] == ["delayed"] * 4
    await wait(world, 5_000)
    assert await world.announced(tenant="cust") == []
    await world.send("tenant.upserted", "cust", CUSTOMER)
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}
    assert await world.dead_letters() == []
    assert await backlog(world) is None


async def test_they_hold_up_nobody_else() -> None:
    world = World()
    await partners(world)
    other = world.event("tenant.upserted", "shop", {"parent_id": "msp", "kind": "customer", "name": "shop"})
    results = await world.handle(*early(world), other)
    assert results[-1].kind == "applied"


async def test_what_waits_is_tried_at_once_when_the_tenant_comes_to_be() -> None:
    world = World()
    await partners(world)
    await world.engine.handle(early(world))
    world.start()
    await world.engine.handle([world.event("tenant.upserted", "cust", CUSTOMER)])
    await world.settle()  # the clock has not moved
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}


async def test_what_waits_is_tried_again_by_itself() -> None:
    world = World()
    await partners(world)
    await world.engine.handle([*early(world), world.event("tenant.upserted", "cust", CUSTOMER)])
    await wait(world)
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}


@pytest.mark.parametrize("other_process", [False, True])
async def test_the_events_of_one_tenant_keep_their_order(other_process: bool) -> None:
    world = World()
    await partners(world)
    reserve = {"reservation_id": "r", "items": {WORKSTATIONS: 1}}
    release = {"reservation_id": "r"}
    await world.engine.handle([world.event("offering_items.set", "cust", ITEMS)])
    if other_process:
        world.start()
    await world.engine.handle(
        [
            world.event("reservation.reserve", "cust", reserve),
            world.event("tenant.upserted", "cust", CUSTOMER),
            world.event("tenant.upserted", "unit", {"parent_id": "cust", "kind": "unit", "name": "unit"}),
            world.event("reservation.release", "cust", release),
        ]
    )
    if other_process:
        world.start()
    await world.engine.handle([world.event("reservation.extend", "cust", {**release, "ttl_seconds": 9})])
    await wait(world)
    kinds = [event["type"] for event in await world.announced(tenant="cust") if "reservation" in event["type"]]
    assert kinds == [f"apportion.reservation.{name}.v1" for name in ("granted", "released", "denied")]


async def test_after_the_time_is_over_each_is_a_dead_letter_with_its_original_message() -> None:
    world = World(wait_seconds=10)
    await partners(world)
    events = early(world)
    await world.engine.handle(events)
    await wait(world, 9_999)
    assert await world.dead_letters() == []
    await wait(world)
    letters = await world.announced("message.rejected")
    assert [letter["tenantid"] for letter in letters] == ["cust"] * 4
    assert [(letter["data"]["code"], letter["data"]["context"]) for letter in letters] == [
        ("unknown_tenant", {"tenant_id": "cust"})
    ] * 4
    origins = [event.origin for event in events if event.origin is not None]
    assert [(each["data"]["topic"], each["data"]["offset"]) for each in letters] == [
        (origin.topic, origin.offset) for origin in origins
    ]
    assert letters[0]["subject"] == f"{origins[0].topic}/0/{origins[0].offset}"
    assert await backlog(world) is None


async def test_each_event_waits_its_own_time() -> None:
    world = World(wait_seconds=10)
    await partners(world)
    first, *others = early(world)
    await world.engine.handle([first])
    await wait(world, 6_000)
    await world.engine.handle(others[:1])
    await wait(world, 5_000)
    assert len(await world.dead_letters()) == 1
    await wait(world, 5_000)
    assert len(await world.dead_letters()) == 2


async def test_a_tenant_whose_parent_is_not_known_waits_for_it_with_all_that_follows() -> None:
    world = World()
    await world.handle(world.event("tenant.upserted", "cust", CUSTOMER), *early(world))
    assert await world.announced() == []
    await partners(world)
    for _ in range(3):
        await wait(world)
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}
    assert await world.dead_letters() == []


async def test_a_tenant_whose_parent_never_comes_is_a_dead_letter_that_names_both() -> None:
    world = World(wait_seconds=1)
    await world.handle(world.event("tenant.upserted", "cust", CUSTOMER))
    await wait(world, 1_000)
    assert await world.dead_letters() == [("unknown_tenant", {"tenant_id": "cust", "parent_id": "msp"})]


async def test_a_known_tenant_whose_new_parent_is_not_known_waits_for_that() -> None:
    world = World()
    await world.tree()
    (result,) = await world.handle(world.event("tenant.upserted", "cust", {**CUSTOMER, "parent_id": "other"}))
    assert result.kind == "delayed"
    await world.upsert("other", "dist", "partner")
    await world.set_items("other", WORKSTATIONS)
    await wait(world)
    assert (await world.read(records.tenant_key("cust"))).parent_id == "other"


async def test_a_person_is_told_at_once_that_there_is_no_such_tenant() -> None:
    world = World()
    for name, data, missing in (
        ("offering_items.set", ITEMS, "cust"),
        ("tenant.upserted", CUSTOMER, "msp"),
        ("tenant.deleted", {}, "cust"),
    ):
        (result,) = await world.handle(world.request(name, "cust", data))
        assert (result.kind, result.code, result.context) == (
            "rejected",
            "unknown_tenant",
            {"code": "1005", "tenant_id": missing},
        )
    assert await backlog(world) is None


async def test_delivered_again_while_they_wait_they_wait_once() -> None:
    world = World()
    await partners(world)
    events = early(world)
    for _ in range(3):
        await world.engine.handle(events)
        world.start()
    assert (await backlog(world)).next == len(events)


async def test_delivered_again_after_they_were_carried_out_they_change_and_say_nothing() -> None:
    world = World()
    await partners(world)
    reserve = world.event("reservation.reserve", "cust", {"reservation_id": "r", "items": {WORKSTATIONS: 1}})
    events = [*early(world), reserve]
    await world.engine.handle(events)
    await world.send("tenant.upserted", "cust", CUSTOMER)
    said = await world.announced()
    world.start()
    await world.handle(*events)
    assert await world.announced() == said


@pytest.mark.parametrize("count", [WORKLOADS_INLINE_MAX, WORKLOADS_INLINE_MAX + 1, 500])
async def test_a_long_list_for_an_unknown_tenant_is_carried_out_once_and_is_no_dead_letter(count: int) -> None:
    world = World(wait_seconds=10)
    await partners(world)
    names = [f"w{number}" for number in range(count)]
    events = [world.event("workload.registered", "cust", {"workload_id": w, "type": "workstation"}) for w in names]
    events += [
        world.event("offering_items.set", "cust", ITEMS),
        world.event("plan.saved", "cust", {"plan_id": "p", "features": ["backup.files"]}),
        world.event("plan.applied", "cust", {"plan_id": "p", "workload_ids": names}),
        world.event("plan.saved", "cust", {"plan_id": "p", "features": ["backup.image"]}),
        world.event("plan.revoked", "cust", {"plan_id": "p", "workload_ids": names[:1]}),
    ]
    await world.handle(*events)
    await world.send("tenant.upserted", "cust", CUSTOMER)
    await wait(world, 20_000)
    assert await world.used("dist") == count - 1
    assert await world.dead_letters() == []


async def test_a_backlog_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlogs, "LENGTH_MAX", 2)
    world = World()
    await world.handle(*early(world))
    assert [code for code, _ in await world.dead_letters()] == ["unknown_tenant"] * 2
    assert (await backlog(world)).next == 2


async def test_an_orphan_of_the_directory_is_harmless() -> None:
    world = World(shards=16)
    await partners(world)
    (home,) = (await world.ledger.locate(["msp"])).values()
    await world.ledger.place({"cust": (home + 1) % 16})  # a crash between the directory and the tenant
    results = await world.handle(*early(world))
    assert [result.kind for result in results] == ["delayed"] * 4
    another = world.engine
    world.start()
    assert (await world.send("tenant.upserted", "cust", CUSTOMER)).kind == "applied"
    await wait(world)
    assert await world.ledger.locate(["cust"]) == {"cust": home}
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}
    late = world.event("workload.registered", "cust", {"workload_id": "w2", "type": "workstation"})
    await another.handle([late])  # a process that believed the orphan
    assert (await world.read(records.workload_key("cust", "w2"))) is not None


class Dying(World):
    """A world whose next commits end as ``fate`` says: each time the process dies, and another takes over."""

    def __init__(self, fate: Sequence[str]) -> None:
        super().__init__(shards=16)
        self.fate = list(fate)
        commit = self.ledger.commit

        async def dying(shard: int, transactions: list[Transaction], now_ms: int) -> list[Outcome]:
            fate = self.fate.pop(0) if self.fate else "lives"
            if fate == "before":
                raise LedgerUnavailable("connection", "the process dies")
            outcomes = await commit(shard, transactions, now_ms)
            if fate == "after":
                raise LedgerUnavailable("connection", "the process dies")
            return outcomes

        self.ledger.commit = dying  # type: ignore[method-assign]  # this instance alone dies


@pytest.mark.parametrize("fate", [("before",), ("after",), ("lives", "before"), ("lives", "after")])
async def test_an_event_that_waits_is_not_lost_when_the_tenant_comes_between_a_crash_and_the_next_delivery(
    fate: Sequence[str],
) -> None:
    world = Dying(())
    await partners(world)
    await world.upsert("shop", "msp", "customer")
    for_nobody = world.event("workload.registered", "cust", {"workload_id": "w1", "type": "workstation"})
    behind_it = world.event("workload.registered", "shop", {"workload_id": "w1", "type": "workstation"})
    world.fate = list(fate)
    with pytest.raises(LedgerUnavailable):
        await world.engine.handle([for_nobody, behind_it])
    world.start()
    await world.handle(world.event("tenant.upserted", "cust", CUSTOMER))
    await world.handle(for_nobody, behind_it)  # from the last committed offset
    await wait(world)
    for tenant in ("cust", "shop"):
        assert (await world.read(records.workload_key(tenant, "w1"))).type == "workstation"


@pytest.mark.parametrize("fate", [("before",), ("after",), ("lives", "before"), ("lives", "after")])
async def test_an_orphans_event_is_not_lost_either(fate: Sequence[str]) -> None:
    world = Dying(())
    await partners(world)
    (home,) = (await world.ledger.locate(["msp"])).values()
    await world.ledger.place({"cust": home})
    await world.upsert("shop", "msp", "customer")
    for_orphan = world.event("workload.registered", "cust", {"workload_id": "w1", "type": "workstation"})
    behind_it = world.event("workload.registered", "shop", {"workload_id": "w1", "type": "workstation"})
    world.fate = list(fate)
    with pytest.raises(LedgerUnavailable):
        await world.engine.handle([for_orphan, behind_it])
    world.start()
    await world.handle(world.event("tenant.upserted", "cust", CUSTOMER))
    await world.handle(for_orphan, behind_it)
    await wait(world)
    assert (await world.read(records.workload_key("cust", "w1"))).type == "workstation"


@pytest.mark.parametrize("fate", ["before", "after"])
@pytest.mark.parametrize("step", range(3))
async def test_what_comes_out_of_a_backlog_is_answered_once_whenever_the_process_dies(fate: str, step: int) -> None:
    world = Dying(())
    await partners(world)
    events = [
        world.event("offering_items.set", "cust", ITEMS),
        world.event("reservation.reserve", "cust", {"reservation_id": "r", "items": {WORKSTATIONS: 1}}),
        world.event("reservation.commit", "cust", {"reservation_id": "r", "workload_id": "nobody"}),
        world.event("reservation.release", "cust", {"reservation_id": "r"}),
        world.event("reservation.reserve", "cust", {"reservation_id": "s", "items": {"nothing": 1}}),
    ]
    await world.engine.handle([*events, world.event("tenant.upserted", "cust", CUSTOMER)])
    world.now_ms += backlogs.RETRY_MS
    world.fate = ["lives"] * step + [fate]
    died = 0
    for _ in range(2):
        try:
            await world.settle()
        except LedgerUnavailable:
            died += 1
            world.start()
    await wait(world)
    assert died == 1
    kinds = [event["type"].split(".")[2] for event in await world.announced() if "reservation" in event["type"]]
    assert kinds == ["granted", "denied", "released"]
    assert [code for code, _ in await world.dead_letters()] == ["unknown_offering_item"]


async def test_a_tenant_that_the_ledger_has_lost_is_found_by_everybody_when_it_is_upserted_again() -> None:
    """Redis came back as it was a second ago; this process lives on, and remembers the shard of the tenant."""
    world = World()
    await partners(world)
    second_ago = copy.deepcopy(world.ledger)
    made, *others = [world.event("tenant.upserted", "cust", CUSTOMER), *early(world)]
    await world.handle(made, *others)
    await world.handle(world.event("workload.removed", "cust", {"workload_id": "none"}))  # the shard is remembered now
    vars(world.ledger).update(vars(second_ago))
    await world.handle(made)
    world.start()
    await world.handle(*others)
    assert await world.holding("cust") == {"w1": {WORKSTATIONS: 1}}
