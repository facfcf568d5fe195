"""What time alone brings about: reservations expire, and what was removed is forgotten after a day."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from service import records
from service.handlers import mass_switches, reservations
from service.handlers.draft import Cause, Draft, Step, View
from service.handlers.stepping import Task
from service.handlers.work import path_keys
from service.ledger.transaction import RecordKey, Timer


def expire(member: str) -> Task:
    """A reservation has come to its end, unless it was extended or has ended otherwise in the meantime."""
    _, tenant, reservation_id = member.split("/")

    def needs(view: View) -> Iterable[RecordKey]:
        yield from path_keys(view, tenant)
        yield records.reservation_key(tenant, reservation_id)

    def decide(view: View) -> None:
        known = view.read(records.reservation_key(tenant, reservation_id)).value
        draft = Draft(view, Cause(known.cause if known else ""))
        draft.reservation(tenant, reservation_id)
        placement = draft.placement(tenant)
        if known is None or placement is None or known.state != reservations.HELD:
            draft.step().timers.append(Timer(member, None))
        elif known.expires_at_ms <= view.now_ms:
            reservations.end(draft, placement, tenant, reservation_id, known, reservations.EXPIRED)
        else:
            draft.step().timers.append(Timer(member, known.expires_at_ms))
        draft.close()

    return Task(needs, decide)


def forget(member: str) -> Task:
    """A record need not be remembered any longer, unless it has come to life again."""
    _, kind, tenant, name = member.split("/")
    key = RecordKey(kind, tenant, name)

    def decide(view: View) -> None:
        draft = Draft(view, Cause(""))
        known = draft.read(key)
        step = draft.step()
        step.timers.append(Timer(member, None))
        if known is not None and _is_over(kind, known):
            step.delete.append(key)
            _forget_with_it(step, kind, tenant, name, known)
        draft.close()

    return Task(lambda _: [key], decide)


def _forget_with_it(step: Step, kind: str, tenant: str, name: str, known: Any) -> None:
    """What is of no use without the record."""
    if kind == "reservation":
        step.unwait.append((tenant, reservations.waiting_name(name)))
    elif kind == "switch":
        step.unwait += [(tenant, records.switch_waiting(name)), (tenant, records.switch_undo_waiting(name))]
        step.delete += [records.switch_place_key(name), records.switch_undo_key(tenant, name)]
        if known.job_id is not None:
            step.delete.append(records.switch_task_key(known.job_id, tenant))
    elif kind == "job":
        step.exclude(records.switch_jobs_index(), mass_switches.decode(known).job_id)


def _is_over(kind: str, record: Any) -> bool:
    if kind == "answer":
        return True
    if kind == "workload":
        return record.type is None and not record.gauges and not any(link.applied for link in record.links.values())
    if kind == "plan":
        return bool(record.deleted)
    if kind in ("preview", "switchchunk"):
        return True
    if kind == "job":
        return mass_switches.decode(record).is_over
    if kind == "switch":
        return record.state not in ("preparing", "running")
    return bool(record.state != reservations.HELD)
