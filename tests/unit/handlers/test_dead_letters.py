"""Messages that cannot be handled never stop the others (docs/contracts.md 2.3)."""

from __future__ import annotations

import base64
import hashlib
from types import SimpleNamespace
from typing import Any

import pytest

from service.handlers import subjects, table
from service.handlers.draft import View
from service.handlers.work import Handler, Work
from service.ledger.errors import LedgerError, LedgerUnavailable
from service.ledger.transaction import Limit, Take, Transaction
from tests.unit.handlers.world import WORKSTATIONS, World

REGISTERED = "apportion.workload.registered.v1"


async def test_a_dead_letter_has_the_original_message_its_place_and_why() -> None:
    world = World()
    await world.tree()
    event = world.event("plan.saved", "cust", {"plan_id": "p", "features": ["backup.teleport"]}, id="the-one")
    await world.handle(event)
    (letter,) = await world.announced("message.rejected")
    origin = event.origin
    assert origin is not None
    assert origin.value is not None
    assert letter["data"] == {
        "code": "unknown_feature",
        "message": "the catalogue has no feature backup.teleport",
        "context": {"features": ["backup.teleport"]},
        "topic": "apportion.plan-changes",
        "partition": 0,
        "offset": origin.offset,
        "key": "cust",
        "headers": {"content-type": "application/cloudevents+json"},
        "value_base64": base64.b64encode(origin.value).decode(),
        "size": len(origin.value),
        "sha256": hashlib.sha256(origin.value).hexdigest(),
    }
    assert (letter["tenantid"], letter["causeid"]) == ("cust", "the-one")


async def test_a_rejection_moves_the_position_in_the_same_step_and_comes_once() -> None:
    world = World()
    await world.tree()
    event = world.event("plan.saved", "cust", {"plan_id": "p", "features": ["backup.teleport"]})
    for _ in range(2):
        world.start()
        (result,) = await world.handle(event)
        assert (result.kind, result.code) == ("rejected", "unknown_feature")
    assert len(await world.dead_letters()) == 1


async def test_what_is_rejected_does_not_stop_what_is_behind_it() -> None:
    world = World()
    await world.tree()
    results = await world.handle(
        world.event("plan.saved", "cust", {"plan_id": "p", "features": ["backup.teleport"]}),
        world.event("plan.saved", "cust", {"plan_id": "p", "features": ["backup.files"]}),
    )
    assert [result.kind for result in results] == ["rejected", "applied"]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that fails on one workload, for a reason that nobody foresaw."""
    handler = table.HANDLERS[REGISTERED]

    def decide(view: View, work: Work) -> None:
        handler.decide(view, work)
        if work.event.data.workload_id == "cursed":  # type: ignore[attr-defined]  # it is a registration
            raise ZeroDivisionError("nobody foresaw this")

    monkeypatch.setitem(table.HANDLERS, REGISTERED, Handler(handler.needs, decide))


async def test_a_handler_that_fails_costs_one_dead_letter_and_not_the_stream(
    broken: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[Exception] = []
    log = SimpleNamespace(error=lambda *_, exc_info, **__: logged.append(exc_info))
    monkeypatch.setattr(subjects, "log", log)
    world = World()
    await world.tree()
    names = ("a", "cursed", "b")
    batch = [world.event("workload.registered", "cust", {"workload_id": name, "type": "vm"}) for name in names]
    results = await world.handle(*batch)
    assert [result.kind for result in results] == ["applied", "rejected", "applied"]
    assert await world.dead_letters() == [("not_allowed", {"code": "1000"})]
    assert (results[1].code, results[1].context) == ("not_allowed", {"code": "1000"})
    assert [type(error) for error in logged] == [ZeroDivisionError]
    await world.handle(*batch)
    assert len(await world.dead_letters()) == 1


async def test_a_person_is_told_that_the_service_failed(broken: None) -> None:
    world = World()
    await world.tree()
    (result,) = await world.handle(
        world.request("workload.registered", "cust", {"workload_id": "cursed", "type": "vm"})
    )
    assert (result.kind, result.context) == ("rejected", {"code": "1000"})


@pytest.mark.parametrize("invalid", ["used below zero", "a limit out of range"])
async def test_a_decision_that_the_ledger_calls_invalid_costs_one_dead_letter(
    monkeypatch: pytest.MonkeyPatch, invalid: str
) -> None:
    handler = table.HANDLERS[REGISTERED]

    def decide(view: View, work: Work) -> None:
        handler.decide(view, work)
        if work.event.data.workload_id == "cursed":  # type: ignore[attr-defined]  # it is a registration
            draft = work.draft(view, 1)
            if invalid == "used below zero":
                draft.step().take.append(Take(("dist",), WORKSTATIONS, -1))
            else:
                draft.step().limits.append(Limit("dist", WORKSTATIONS, 2**60, 0))
            draft.close()

    monkeypatch.setitem(table.HANDLERS, REGISTERED, Handler(handler.needs, decide))
    world = World()
    await world.tree()
    names = ("a", "cursed", "b")
    batch = [world.event("workload.registered", "cust", {"workload_id": name, "type": "vm"}) for name in names]
    results = await world.handle(*batch)
    assert [result.kind for result in results] == ["applied", "rejected", "applied"]
    assert await world.dead_letters() == [("not_allowed", {"code": "1000"})]


async def test_a_ledger_that_refuses_the_service_is_not_blamed_on_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    await world.tree()

    async def refuse(shard: int, transactions: list[Transaction], now_ms: int) -> None:
        raise LedgerError("this ledger has another number of shards")

    monkeypatch.setattr(world.ledger, "commit", refuse)
    with pytest.raises(LedgerError):
        await world.engine.handle([world.event("workload.registered", "cust", {"workload_id": "w", "type": "vm"})])


async def test_an_unavailable_ledger_is_raised_and_the_same_arrivals_are_decided_later() -> None:
    world = World()
    await world.tree()
    commit = world.ledger.commit
    down = True

    async def sometimes(shard: int, transactions: list[Transaction], now_ms: int) -> Any:
        if down:
            raise LedgerUnavailable("connection", "it is away")
        return await commit(shard, transactions, now_ms)

    world.ledger.commit = sometimes  # type: ignore[method-assign]  # this instance alone is away
    event = world.event("workload.registered", "cust", {"workload_id": "w", "type": "vm"})
    with pytest.raises(LedgerUnavailable):
        await world.engine.handle([event])
    down = False
    (result,) = await world.handle(event)
    assert result.kind == "applied"


async def test_a_record_that_asks_for_ever_more_records_ends_as_a_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = table.HANDLERS[REGISTERED]

    def decide(view: View, work: Work) -> None:
        draft = work.draft(view)
        for number in range(1000):
            draft.workload("cust", f"another-{number}")
        draft.close()

    monkeypatch.setitem(table.HANDLERS, REGISTERED, Handler(handler.needs, decide))
    world = World()
    await world.tree()
    result = await world.send("workload.registered", "cust", {"workload_id": "w", "type": "vm"})
    assert (result.kind, result.context) == ("rejected", {"code": "1000"})
