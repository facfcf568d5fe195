"""What is said of protection plans: saved, applied, revoked, deleted (docs/domain.md 6).

A plan that changes while it is applied to workloads is carried out by a job, in bounded steps, so that other tenants do
not wait for it. Later plan events of the same tenant queue up behind that job, so that their order is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from schemas.plans import PlanApplied, PlanDeleted, PlanRevoked, PlanSaved
from service import records
from service.handlers import assignments, backlogs, workloads
from service.handlers.draft import Draft, Step, View
from service.handlers.work import Queued, RefusedError, Result, Work, path_keys
from service.ledger.transaction import Account, RecordKey, Timer
from service.records import Link, Plan
from service.rules import facets

WORKLOADS_INLINE_MAX = 64  # applied or revoked at once; more become a job
WORKLOADS_PER_STEP = 200  # decided in one step of a job
SWITCHED = "switched"  # why an event is delayed once more: its tenant is still being switched


class PlanJob(msgspec.Struct, frozen=True, tag="plan"):
    """A plan has changed: every workload that it is applied to is looked at again, from ``cursor`` on."""

    tenant: str
    backlog: str
    number: int
    plan: str
    cause: str
    traceparent: str | None
    cursor: int = 0
    deleted: bool = False


def needs(view: View, work: Work) -> Iterable[RecordKey]:
    """The tenant's way up and the plan; for applying and revoking, the workloads with their plans too."""
    data, tenant = work.event.data, work.tenant
    plan_id: str = data.plan_id  # type: ignore[attr-defined]  # each of the four has one
    keys = [records.backlog_key(tenant, backlogs.PLANS), records.plan_key(tenant, plan_id)]
    if isinstance(data, PlanApplied | PlanRevoked):
        for workload_id in _part(work, data.workload_ids):
            keys += workloads.needs_of(view, tenant, workload_id)
    else:
        keys += path_keys(view, tenant)
        keys.append(records.applied_count_key(tenant, plan_id))
    return keys


def save(view: View, work: Work) -> None:
    """A plan's whole content."""
    data = work.event.data
    assert isinstance(data, PlanSaved)
    unknown = [feature for feature in data.features if feature not in view.catalog.features]
    if unknown:
        raise RefusedError("unknown_feature", f"the catalogue has no feature {unknown[0]}", features=unknown[:10])
    draft = _open(view, work)
    if draft is None:
        return
    before = draft.plan(work.tenant, data.plan_id)
    stamp = work.stamp_over(before.stamp if before else None)
    if stamp is not None:
        now = Plan(
            enabled=data.enabled,
            features=tuple(sorted(set(data.features))),
            deleted=False,
            stamp=stamp,
            deleted_at_us=before.deleted_at_us if before else -1,
            name=data.name,
        )
        step = draft.step()
        step.put.append((records.plan_key(work.tenant, data.plan_id), now))
        if _effect(before) != _effect(now):
            _reach(view, draft, step, work, data.plan_id)
    draft.close()


def delete(view: View, work: Work) -> None:
    """A plan is gone from every workload; remembered for a day, so that late news does not revive it."""
    data = work.event.data
    assert isinstance(data, PlanDeleted)
    draft = _open(view, work)
    if draft is None:
        return
    before = draft.plan(work.tenant, data.plan_id)
    stamp = work.stamp_over(before.stamp if before else None)
    if stamp is not None:
        deleted_at_us = max(facets.time_us(stamp), before.deleted_at_us if before else -1)
        now = Plan(enabled=False, features=(), deleted=True, stamp=stamp, deleted_at_us=deleted_at_us)
        step = draft.step()
        step.put.append((records.plan_key(work.tenant, data.plan_id), now))
        forget = f"forget/plan/{work.tenant}/{data.plan_id}"
        step.timers.append(Timer(forget, workloads.forget_at_ms(draft)))
        _reach(view, draft, step, work, data.plan_id, deleted=True)
    draft.close()


def apply(view: View, work: Work) -> None:
    """A plan now protects some workloads too. Either half may be missing yet: the link is kept."""
    data = work.event.data
    assert isinstance(data, PlanApplied)
    _link(view, work, data.plan_id, data.workload_ids, applied=True)


def revoke(view: View, work: Work) -> None:
    """A plan protects some workloads no longer."""
    data = work.event.data
    assert isinstance(data, PlanRevoked)
    _link(view, work, data.plan_id, data.workload_ids, applied=False)


def link_one(view: View, work: Work, step: int, plan_id: str, workload_id: str, *, applied: bool) -> None:
    """One workload of a plan.applied or plan.revoked; ``step`` is its place in the event's list."""
    tenant = work.tenant
    draft = work.draft(view, step)
    workloads.check_tenant(draft, tenant)
    if _turn(work) is None:
        backlogs.read(draft, tenant, backlogs.PLANS)  # it must still be empty when this is applied
    before = draft.workload(tenant, workload_id)
    plan = draft.plan(tenant, plan_id)
    known = before.links.get(plan_id)
    removed_at_us = max(before.removed_at_us, plan.deleted_at_us if plan else -1)
    stamp = work.stamp_over(known.stamp if known else None)
    if stamp is not None and (facets.time_us(stamp) >= removed_at_us or work.arrival.origin is None):
        link = Link(applied, stamp, 0 if applied else draft.now_ms)
        now = msgspec.structs.replace(before, links={**before.links, plan_id: link})
        assignments.reassign(draft, tenant, workload_id, now, "plan")
        difference = applied - (known is not None and known.applied)
        for way in draft.steps:
            if difference:
                way.take.append(workloads.counting(tenant, plan_id, difference))
            workloads.forget_if_unknown(draft, way, tenant, workload_id, now)
    draft.close()
    if applied and draft.steps:
        view.note(records.applied_count_key(tenant, plan_id))


def look_again(draft: Draft, job: PlanJob, workload_id: str) -> None:
    """One workload of a plan that has changed; a deletion takes the plan off it for good.

    Of an application as old as the deletion, only the order of arrival says which counts: whoever was there when the
    deletion is carried out came before it.
    """
    now = before = draft.workload(job.tenant, workload_id)
    plan = draft.plan(job.tenant, job.plan)
    link = now.links.get(job.plan)
    gone = link is not None and plan is not None and facets.time_us(link.stamp) < plan.deleted_at_us + job.deleted
    if gone:
        now = msgspec.structs.replace(now, links={name: one for name, one in now.links.items() if name != job.plan})
    if now.former:
        now = msgspec.structs.replace(now, former=())  # held for plans that are others now
    assignments.reassign(draft, job.tenant, workload_id, now, "plan")
    for step in draft.steps:
        if gone:
            workloads.count_applied(step, job.tenant, before, now)
            workloads.forget_if_unknown(draft, step, job.tenant, workload_id, now)


def _open(view: View, work: Work) -> Draft | None:
    """The event's transaction, or None where it has to wait behind a job of its tenant, or for a switch to end: what is
    set aside for workloads that have still to move follows from the plans as they were."""
    draft = work.draft(view)
    workloads.check_tenant(draft, work.tenant)
    placement = draft.placement(work.tenant)
    is_switched = placement is not None and placement.items.switching is not None
    if _turn(work) is not None and is_switched:
        draft.close()  # the ledger says whether that still holds, and is not only so in this process' cache
        work.result = Result("delayed", SWITCHED)
        return None
    if _turn(work) is None and (is_switched or backlogs.read(draft, work.tenant, backlogs.PLANS).busy):
        _wait(draft, work)
        return None
    return draft


def _turn(work: Work) -> Queued | None:
    """The event's place in the backlog of plans, where it comes from there."""
    return work.queued if work.queued is not None and work.queued.backlog == backlogs.PLANS else None


def _wait(draft: Draft, work: Work) -> None:
    backlog = backlogs.read(draft, work.tenant, backlogs.PLANS)
    backlogs.append(draft, draft.step(), work, backlogs.PLANS, backlog, draft.now_ms)
    draft.close()
    work.result = Result("delayed")


def _link(view: View, work: Work, plan_id: str, workload_ids: Sequence[str], *, applied: bool) -> None:
    part = _part(work, workload_ids)
    turn = _turn(work)
    if turn is not None:
        turn.reached = turn.done + len(part)
    elif not part or view.read(records.backlog_key(work.tenant, backlogs.PLANS)).value is not None:
        draft = work.draft(view)
        workloads.check_tenant(draft, work.tenant)
        _wait(draft, work)
        return
    for number, workload_id in enumerate(part, start=turn.done if turn is not None else 0):
        link_one(view, work, number, plan_id, workload_id, applied=applied)


def _part(work: Work, workload_ids: Sequence[str]) -> Sequence[str]:
    """The workloads that are decided now: all of a short list, none of a long one, and some of it when its turn has
    come."""
    turn = _turn(work)
    if turn is not None:
        return workload_ids[turn.done : turn.done + WORKLOADS_PER_STEP]
    return workload_ids if len(workload_ids) <= WORKLOADS_INLINE_MAX else ()


def _reach(view: View, draft: Draft, step: Step, work: Work, plan_id: str, *, deleted: bool = False) -> None:
    """Where the plan is applied to workloads, a job looks at them again.

    An event that comes out of the backlog is the first in it; the job takes its place there.
    """
    key = records.applied_count_key(work.tenant, plan_id)
    if not view.read(key).value and not view.noted(key):
        draft.expect_balance(work.tenant, records.applied_count_item(plan_id), Account())
        return
    backlog = backlogs.read(draft, work.tenant, backlogs.PLANS)
    turn = _turn(work)
    number = backlog.next if turn is None else turn.number
    job = PlanJob(work.tenant, backlogs.PLANS, number, plan_id, work.cause.id, work.cause.traceparent, deleted=deleted)
    if turn is None:
        backlogs.enqueue(step, work.tenant, backlogs.PLANS, backlog, job, draft.now_ms)
    else:
        backlogs.replace(step, work.tenant, backlogs.PLANS, number, job)


def _effect(plan: Plan | None) -> tuple[bool, tuple[str, ...]]:
    """What of a plan counts for the workloads that it is applied to."""
    if plan is None or plan.deleted or not plan.enabled:
        return False, ()
    return True, plan.features
