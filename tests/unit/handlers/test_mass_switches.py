"""Jobs of switches: every tenant once, whatever happens beside it (docs/domain.md 7.2)."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.switches import SwitchRequested
from service import records
from service.handlers import mass_switch_control as control
from service.handlers import mass_switch_reports as reports
from service.handlers import mass_switches, switch_lookups, switch_previews, switch_tasks
from service.handlers.mass_switch_control import JobStateError, Order
from service.handlers.mass_switches import Selection
from service.handlers.switch_previews import Wish
from service.handlers.verification import verify
from service.rules.switch_plan import Options
from tests.unit.handlers.world import World

EDITION, BASE = "p_adv_workstations", "pw_base_workstations"
ITEMS = (
    EDITION,
    BASE,
    "pw_pack_adv_management",
    "pw_pack_adv_security",
    "pw_pack_adv_backup_workstations",
    "pw_pack_adv_backup_servers",
    "pw_pack_adv_backup_vms",
)
CYBER_PROTECTION = "6e6d758d-8e74-3ae3-ac84-50eb0dff12eb"
CUSTOMERS = ("c1", "c2", "c3", "c4", "c5")
WISH = Wish(CYBER_PROTECTION, "pck_per_workload", Options())


async def fleet(world: World, *, room: int | None = None, customers: tuple[str, ...] = CUSTOMERS) -> None:
    """Customers with two workstations each below an MSP; ``room`` is for how many of them it has a quota."""
    for tenant, parent in (("dist", "root"), ("msp", "dist")):
        await world.upsert(tenant, parent, "partner")
        await world.set_items(tenant, *ITEMS)
    if room is not None:
        await world.set_items("msp", BASE, quota={"value": 2 * room, "overage": 0})
    for tenant in customers:
        await world.upsert(tenant, "msp", "customer")
        await world.set_items(tenant, EDITION, quota={"value": 5})
        await world.protect(f"{tenant}-1", f"{tenant}-2", tenant=tenant)


def order(job_id: str = "j", **more: Any) -> Order:
    """All customers below the distributor that are on the edition."""
    content = {"selection": Selection(below="dist", edition="cyber_protect_adv"), **more}
    return Order(job_id, SwitchRequested(switch_id="any", target_edition="pck_per_workload"), **content)


async def finish(world: World) -> None:
    """Let everything that is under way come to its end."""
    await world.settle()
    while await world.pass_on():
        await world.settle()


async def counts(world: World, job_id: str = "j") -> dict[str, int]:
    """The counts that are not 0."""
    row = await reports.job(world.ledger, job_id)
    found = {name: getattr(row.counts, name) for name in row.counts.__struct_fields__}
    return {name: number for name, number in found.items() if number}


async def state(world: World) -> str:
    return (await reports.job(world.ledger, "j")).state


async def outcomes(world: World) -> dict[str, str]:
    return {row.tenant_id: row.outcome async for row in reports.all_results(world.ledger, "j")}


async def numbers(world: World) -> dict[str, Any]:
    """What is used and enabled everywhere."""
    return {
        tenant: (
            {item: await world.account(tenant, item) for item in ITEMS},
            (await world.read(records.items_key(tenant))).enabled,
        )
        for tenant in ("dist", "msp", *CUSTOMERS)
    }


async def timed(world: World) -> list[str]:
    """What is accepted and not finished, as ``status`` counts it."""
    timers = [await world.ledger.timers(shard, "job/") for shard in range(world.ledger.shards)]
    return [member for some in timers for member, _ in some]


async def test_a_job_switches_every_customer_of_its_selection_and_tells_of_each() -> None:
    world = World()
    await fleet(world)
    job = await control.create(world.engine, order())
    assert job.selected == 5
    assert await counts(world) == {"total": 5, "queued": 5}
    await finish(world)
    assert await counts(world) == {"total": 5, "completed": 5}
    assert await state(world) == "finished"
    assert await world.used("msp", BASE) == 10 and await world.used("msp", EDITION) == 0
    page = await reports.results(world.ledger, "j", limit=2)
    assert [(row.tenant_id, row.outcome) for row in page.results] == [("c1", "completed"), ("c2", "completed")]
    assert page.results[0].event is not None
    assert page.results[0].event["type"] == "apportion.switch.completed.v1"
    assert page.results[0].event["data"]["job_id"] == "j"
    rest = await reports.results(world.ledger, "j", after=page.after or "")
    assert [row.tenant_id for row in rest.results] == ["c3", "c4", "c5"] and rest.after is None
    assert (await verify(world.ledger, world.catalog)).violations == []


async def test_one_tenant_that_is_refused_stops_no_other() -> None:
    world = World()
    await fleet(world, room=3)
    await control.create(world.engine, order())
    await finish(world)
    assert await counts(world) == {"total": 5, "completed": 3, "rejected": 2}
    rejected = [row async for row in reports.all_results(world.ledger, "j") if row.outcome == "rejected"]
    for row in rejected:
        assert row.event is not None
        (denial,) = row.event["data"]["denials"]
        assert (denial["code"], denial["tenant_id"], denial["limit"]) == ("quota_exceeded", "msp", 6)


async def test_a_finished_job_that_runs_again_changes_nothing_and_says_the_same_again() -> None:
    world = World()
    await fleet(world, room=3)
    await control.create(world.engine, order())
    await finish(world)
    before, said = await numbers(world), await ends(world)
    results = [row async for row in reports.all_results(world.ledger, "j")]
    await control.rerun(world.engine, "j")
    await finish(world)
    assert await numbers(world) == before
    assert [row async for row in reports.all_results(world.ledger, "j")] == results
    again = await ends(world)
    assert len(again) == 2 * len(said)
    assert {event["id"]: event for event in again} == {event["id"]: event for event in said}


async def ends(world: World) -> list[dict[str, Any]]:
    """The ends of switches that were announced; an answer that is given again repeats its revision."""
    import json

    from service.handlers import announcements

    entries = await world.ledger.outbox(range(world.ledger.shards), 1_000_000)
    messages = [announcements.render(entry, world.catalog) for some in entries.values() for entry in some]
    wanted = ("apportion.switch.completed.v1", "apportion.switch.rejected.v1")
    return [json.loads(message.value) for message in messages if message.type in wanted]


async def test_created_again_with_the_same_content_it_is_the_same_job_and_with_another_it_is_refused() -> None:
    world = World()
    await fleet(world)
    first = await control.create(world.engine, order())
    assert await control.create(world.engine, order()) == first
    with pytest.raises(JobStateError, match="asked for other things"):
        await control.create(world.engine, order(selection=Selection(tenants=("c1",))))
    await finish(world)
    assert len(await world.announced("switch.completed")) == 5


async def test_a_paused_job_hands_over_nothing_and_nobody_waits_for_it() -> None:
    world = World()
    await fleet(world)
    await control.create(world.engine, order(rate=1.0))
    assert await timed(world) == ["job/switches:j"]
    await world.engine.run_due(range(world.ledger.shards))
    await control.pause(world.engine, "j")
    assert await timed(world) == []
    world.now_ms += 60_000
    await finish(world)
    assert await counts(world) == {"total": 5, "queued": 4, "completed": 1}
    assert await state(world) == "paused"
    await control.resume(world.engine, "j")
    assert await timed(world) == ["job/switches:j"]
    for _ in range(5):
        world.now_ms += 1000
        await finish(world)
    assert await counts(world) == {"total": 5, "completed": 5}
    assert await timed(world) == []


async def test_no_more_tenants_a_second_than_the_rate_says_not_even_after_a_pause_of_the_service() -> None:
    world = World()
    await fleet(world)
    await control.create(world.engine, order(rate=2.0))
    done = []
    for _ in range(5):
        await finish(world)
        done.append((await counts(world)).get("completed", 0))
        world.now_ms += 500
    assert done == [1, 2, 3, 4, 5]
    late = World()
    await fleet(late, customers=tuple(f"c{number}" for number in range(20)))
    await control.create(late.engine, order(rate=1.0))
    await finish(late)
    late.now_ms += 3600 * 1000
    await finish(late)
    assert (await counts(late))["completed"] == 1 + 7, "what was missed for a few seconds, and no more, is made up for"


async def test_what_a_cancelled_job_has_not_handed_over_stays_as_it_is() -> None:
    world = World()
    await fleet(world)
    await control.create(world.engine, order(rate=1.0))
    await world.engine.run_due(range(world.ledger.shards))
    await control.cancel(world.engine, "j")
    world.now_ms += 60_000
    await finish(world)
    assert await counts(world) == {"total": 5, "completed": 1, "cancelled": 4}
    assert await outcomes(world) == {"c1": "completed", **dict.fromkeys(("c2", "c3", "c4", "c5"), "cancelled")}
    assert await state(world) == "cancelled"
    with pytest.raises(JobStateError):
        await control.resume(world.engine, "j")
    await control.rerun(world.engine, "j")
    for _ in range(6):
        world.now_ms += 1000
        await finish(world)
    assert await counts(world) == {"total": 5, "completed": 5}


async def test_a_job_of_customers_with_many_workloads_counts_those_that_are_under_way() -> None:
    world = World(at_once=1)
    await fleet(world)
    await control.create(world.engine, order())
    await world.settle()
    entries = await world.ledger.outbox(range(world.ledger.shards), 1_000_000)
    await world.engine.handle(world.tasks(entries))
    assert await counts(world) == {"total": 5, "running": 5}
    assert await state(world) == "running"
    with pytest.raises(JobStateError, match="not over yet"):
        await control.undo(world.engine, "j")
    await finish(world)
    assert await counts(world) == {"total": 5, "completed": 5}
    await control.undo(world.engine, "j")
    await finish(world)
    assert await counts(world) == {"total": 5, "undone": 5}
    assert (await verify(world.ledger, world.catalog)).violations == []


async def test_an_undone_job_leaves_everything_as_it_was() -> None:
    world = World()
    await fleet(world, room=3)
    before = await numbers(world)
    await control.create(world.engine, order())
    await finish(world)
    await control.undo(world.engine, "j")
    assert await state(world) == "undoing"
    await finish(world)
    assert await counts(world) == {"total": 5, "undone": 3, "rejected": 2}
    assert await state(world) == "undone"
    after = await numbers(world)
    for tenant in before:
        assert after[tenant][1] == before[tenant][1]
        for item, account in before[tenant][0].items():
            now = after[tenant][0][item]
            assert (now.used, now.value, now.overage) == (account.used, account.value, account.overage)
    assert (await verify(world.ledger, world.catalog)).violations == []


async def test_a_switch_that_cannot_be_led_back_is_named_and_stops_no_other() -> None:
    world = World()
    await fleet(world)
    await control.create(world.engine, order())
    await finish(world)
    await world.set_items("msp", EDITION, quota={"value": 6, "overage": 0})
    await control.undo(world.engine, "j")
    await finish(world)
    assert await state(world) == "undone"
    assert await counts(world) == {"total": 5, "undone": 3, "undo_rejected": 2}
    found = [row async for row in reports.all_results(world.ledger, "j") if row.outcome == "undo_rejected"]
    for row in found:
        assert row.event is not None and row.event["type"] == "apportion.switch.undo_rejected.v1"
        assert [denial["tenant_id"] for denial in row.event["data"]["denials"]] == ["msp"]
    await world.set_items("msp", EDITION, quota=None)
    await control.undo(world.engine, "j")
    await finish(world)
    assert await counts(world) == {"total": 5, "undone": 5}


async def test_a_job_that_goes_on_is_not_led_back() -> None:
    world = World()
    await fleet(world)
    await control.create(world.engine, order())
    with pytest.raises(JobStateError, match="not over yet"):
        await control.undo(world.engine, "j")


async def test_tasks_that_others_put_on_the_topic_count_just_the_same() -> None:
    world = World()
    await fleet(world)
    await control.create(world.engine, order(selection=Selection(tenants=("c1", "c2"))))
    foreign = {"switch_id": "theirs", "job_id": "j", "target_edition": "pck_per_workload"}
    await world.send("switch.requested", "c3", foreign)
    await finish(world)
    assert await counts(world) == {"total": 3, "completed": 3}
    await control.undo(world.engine, "j")
    await finish(world)
    assert await counts(world) == {"total": 3, "undone": 3}
    assert await world.used("msp", BASE) == 0


async def test_a_tenant_that_does_not_exist_has_failed_whoever_names_it() -> None:
    world = World(wait_seconds=1)
    await fleet(world, customers=("c1",))
    await control.create(world.engine, order(selection=Selection(tenants=("c1", "nobody", "root"))))
    await finish(world)
    foreign = {"switch_id": "theirs", "job_id": "j", "target_edition": "pck_per_workload"}
    await world.send("switch.requested", "ghost", foreign)
    for _ in range(5):
        world.now_ms += 1000
        await finish(world)
    assert await counts(world) == {"total": 4, "completed": 1, "failed": 3}
    assert await outcomes(world) == {"c1": "completed", "ghost": "failed", "nobody": "failed", "root": "failed"}


async def test_a_task_on_which_the_service_fails_is_counted_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    from service.rules import switching

    world = World()
    await fleet(world)
    right = switching.plan

    def wrong(catalog: Any, situation: Any, *rest: Any) -> Any:
        if situation.tenant_id == "c3":
            raise AssertionError("a fault")
        return right(catalog, situation, *rest)

    monkeypatch.setattr(switching, "plan", wrong)
    await control.create(world.engine, order())
    await finish(world)
    assert await counts(world) == {"total": 5, "completed": 4, "failed": 1}
    assert await state(world) == "finished"


async def test_a_job_taken_up_by_another_process_hands_over_each_task_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mass_switches, "CHUNK_TENANTS", 2)
    monkeypatch.setattr(control, "CHUNK_TENANTS", 2)
    monkeypatch.setattr(reports, "CHUNK_TENANTS", 2)
    world = World()
    await fleet(world)
    await control.create(world.engine, order())
    for _ in range(4):
        await world.engine.run_due(range(world.ledger.shards))
        world.start()
    entries = await world.ledger.outbox(range(world.ledger.shards), 1_000_000)
    tasks = [
        each for some in entries.values() for each in some if mass_switches.REQUESTED in getattr(each, "facts", "")
    ]
    assert len(tasks) == 5
    await finish(world)
    assert await counts(world) == {"total": 5, "completed": 5}


async def test_what_is_over_is_forgotten_when_it_can_be_undone_no_longer() -> None:
    world = World()
    await fleet(world)
    await control.create(world.engine, order())
    await finish(world)
    world.now_ms += 31 * 24 * 3600 * 1000
    await finish(world)
    with pytest.raises(control.JobNotFoundError):
        await control.find(world.ledger, "j")
    assert await reports.all_jobs(world.ledger) == []
    assert await reports.tasks(world.ledger, "j") == {}
    with pytest.raises(switch_lookups.SwitchNotFoundError):
        await switch_lookups.find(world.ledger, switch_tasks.switch_id("j", "c1"))


async def test_the_preview_of_a_selection_adds_up_and_foresees_a_quota_that_all_share() -> None:
    world = World()
    await fleet(world, room=3)
    before = await numbers(world)
    heard: list[int] = []
    selection = Selection(below="root", edition="cyber_protect_adv")
    found = await switch_previews.preview_selection(world.engine, selection, WISH, heard.append)
    assert (found.tenants, found.switched, found.refused) == (5, 3, 2)
    assert found.refusals == {"quota_exceeded": 2}
    assert [row.tenant_id for row in found.refused_tenants] == ["c4", "c5"]
    assert found.workloads == {"total": 6, "changed": 6, "losing_features": 0, "denied": 0}
    items = {(row["offering_item"], row["side"]): row for row in found.items}
    assert (items[EDITION, "source"]["used_before"], items[EDITION, "source"]["used_after"]) == (6, 0)
    assert (items[BASE, "destination"]["used_before"], items[BASE, "destination"]["used_after"]) == (0, 6)
    assert items[BASE, "destination"]["quota_after"] == {"value": 15, "overage": None}
    assert heard[-1] == 5
    assert await numbers(world) == before
    await control.create(world.engine, order())
    await finish(world)
    assert (await counts(world))["completed"] == found.switched


@pytest.mark.parametrize("few", [True, False], ids=["few workloads", "many workloads"])
async def test_the_preview_of_a_customer_is_what_the_switch_then_does(few: bool) -> None:
    world = World(at_once=200 if few else 1)
    await fleet(world, customers=("c1",))
    shown = (await switch_previews.preview(world.engine, "c1", WISH)).shown
    assert shown["startable"] and shown["denials"] == []
    data = {"switch_id": "s", "target_edition": "pck_per_workload", "plan_hash": shown["plan_hash"]}
    await world.send("switch.requested", "c1", data)
    found = await switch_lookups.find(world.ledger, "s")
    assert found.event is not None and found.event["type"] == "apportion.switch.completed.v1"
    assert found.tenant_id == "c1" and not found.under_way
    told = {(row["offering_item"], row["side"]): row["used"] for row in found.event["data"]["items"]}
    assert told == {(row["offering_item"], row["side"]): row["used_after"] for row in shown["items"]}


async def test_a_switch_that_names_a_plan_of_yesterday_is_told_what_has_drifted() -> None:
    world = World()
    await fleet(world, customers=("c1",))
    shown = (await switch_previews.preview(world.engine, "c1", WISH)).shown
    await world.protect("c1-3", tenant="c1")
    data = {"switch_id": "s", "target_edition": "pck_per_workload", "plan_hash": shown["plan_hash"]}
    await world.send("switch.requested", "c1", data)
    found = await switch_lookups.find(world.ledger, "s")
    assert found.event is not None and found.event["type"] == "apportion.switch.rejected.v1"
    assert [drift["message"] for drift in found.event["data"]["drift"]] == [f"2 workloads held {EDITION}, now 3 do"]


@pytest.mark.parametrize("few", [True, False], ids=["few workloads", "many workloads"])
async def test_the_preview_foresees_what_a_quota_above_refuses(few: bool) -> None:
    world = World(at_once=200 if few else 1)
    await fleet(world, room=0, customers=("c1",))
    shown = (await switch_previews.preview(world.engine, "c1", WISH)).shown
    assert not shown["startable"]
    (denial,) = shown["denials"]
    assert (denial["code"], denial["tenant_id"], denial["requested"]) == ("quota_exceeded", "msp", 2)


async def test_the_preview_of_a_partner_says_that_only_customers_are_switched() -> None:
    world = World()
    await fleet(world, customers=())
    for tenant in ("msp", "root"):
        shown = (await switch_previews.preview(world.engine, tenant, WISH)).shown
        assert not shown["startable"]
        assert "only customers are switched" in shown["denials"][0]["message"]


async def test_the_last_event_of_a_switch_that_was_not_led_back_says_why_and_goes_when_it_is() -> None:
    world = World()
    await fleet(world, customers=("c1",))
    await world.send("switch.requested", "c1", {"switch_id": "s", "target_edition": "pck_per_workload"})
    await world.set_items("msp", EDITION, quota={"value": 1, "overage": 0})
    await world.send("switch.undo_requested", "c1", {"switch_id": "s"})
    refused = (await switch_lookups.find(world.ledger, "s")).event
    (said,) = await world.said("switch.undo_rejected")
    assert refused == {"type": "apportion.switch.undo_rejected.v1", "data": said}
    assert [denial["tenant_id"] for denial in said["denials"]] == ["msp"]
    await world.set_items("msp", EDITION, quota=None)
    await world.send("switch.undo_requested", "c1", {"switch_id": "s"})
    undone = (await switch_lookups.find(world.ledger, "s")).event
    assert undone is not None and undone["type"] == "apportion.switch.undone.v1"
