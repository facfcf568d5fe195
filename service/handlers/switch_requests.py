"""Switches for callers who are not Kafka: the same events to the same handlers, and the answer (docs/design.md 1)."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, NamedTuple

from schemas.envelope import Inbound
from schemas.switches import SwitchRequested, SwitchUndoRequested
from service import records
from service.handlers import jobs, switch_endings, switch_lookups, switch_starts
from service.handlers.mass_switches import REQUESTED, UNDO_REQUESTED
from service.handlers.switch_lookups import Found
from service.handlers.work import Arrival
from service.ledger.base import Ledger

if TYPE_CHECKING:
    from service.handlers.engine import Engine

SOURCE = "/apportion"


class SwitchRefusedError(Exception):
    """The request was not taken as one for a switch at all; the message is a sentence for a person."""


class Progress(NamedTuple):
    """How far a switch of many workloads has come; ``total`` is None while they are counted."""

    moved: int
    total: int | None


async def request(engine: Engine, tenant_id: str, data: SwitchRequested, request_id: str | None = None) -> Found:
    """Ask for a switch; answers how it stands then: a customer with many workloads is under way.

    Raises ``SwitchRefusedError`` where there is no such tenant, or the id belongs to a switch with other content.
    """
    await _handle(engine, REQUESTED, tenant_id, data, request_id)
    found = await switch_lookups.of_tenant(engine.ledger, tenant_id, data.switch_id)
    if found.switch.asked != switch_endings.asked(data):
        raise SwitchRefusedError(f"There is a switch {data.switch_id} of {tenant_id} already, with other content.")
    return found


async def request_undo(engine: Engine, switch_id: str, request_id: str | None = None) -> Found:
    """Ask for a switch to be led back; answers how it stands then. Raises ``SwitchNotFoundError``."""
    known = await switch_lookups.find(engine.ledger, switch_id)
    await _handle(engine, UNDO_REQUESTED, known.tenant_id, SwitchUndoRequested(switch_id=switch_id), request_id)
    return await switch_lookups.of_tenant(engine.ledger, known.tenant_id, switch_id)


async def _handle(
    engine: Engine, type_: str, tenant_id: str, data: SwitchRequested | SwitchUndoRequested, request_id: str | None
) -> None:
    event = Inbound(
        id=request_id or uuid.uuid4().hex,
        source=SOURCE,
        type=type_,
        subject=data.switch_id,
        time_us=engine.clock() * 1000,
        tenantid=tenant_id,
        sequence=None,
        traceparent=None,
        data=data,
    )
    (result,) = await engine.handle([Arrival(event)])
    if result.kind == "rejected":
        raise SwitchRefusedError(f"{result.message[:1].upper()}{result.message[1:]}.")


async def progress(ledger: Ledger, tenant_id: str) -> Progress | None:
    """How far the switch that the tenant is in has come; None where it is in none."""
    shard = (await ledger.locate([tenant_id])).get(tenant_id)
    key = records.job_key(switch_starts.job_id(tenant_id))
    record = None if shard is None else (await ledger.read({shard: [key]}))[key]
    if record is None:
        return None
    job = jobs.decode(record.payload)
    if not isinstance(job, switch_starts.SwitchJob):
        return None
    return Progress(job.moved + job.denied, job.total if job.started else None)
