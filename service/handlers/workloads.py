"""What agents say of workloads: registered, usage reported, removed (docs/domain.md 6)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from schemas.workloads import WorkloadRegistered, WorkloadRemoved, WorkloadUsageReported
from service import records
from service.handlers import assignments
from service.handlers.draft import Draft, Step, View
from service.handlers.work import RefusedError, Work, path_keys, placement_of
from service.ledger.transaction import RecordKey, Take, Timer
from service.records import Workload
from service.rules import facets
from service.rules import tenants as tenant_rules


def needs(view: View, work: Work) -> Iterable[RecordKey]:
    """The tenant's way up, the workload and the plans applied to it."""
    workload_id: str = work.event.data.workload_id  # type: ignore[attr-defined]  # each of the three has one
    return needs_of(view, work.tenant, workload_id)


def needs_of(view: View, tenant: str, workload_id: str) -> list[RecordKey]:
    """What it takes to decide on a workload."""
    key = records.workload_key(tenant, workload_id)
    keys = path_keys(view, tenant)
    keys.append(key)
    entry = view.peek(key)
    if entry is not None and entry.value is not None:
        keys += [records.plan_key(tenant, plan) for plan in entry.value.links]
    return keys


def check_tenant(draft: Draft, tenant: str) -> None:
    """Workloads, plans and reservations need a tenant that is there and that may have workloads."""
    placement = placement_of(draft, tenant)
    if placement.kind not in tenant_rules.WITH_WORKLOADS:
        raise RefusedError("not_allowed", f"a {placement.kind} has no workloads", "1027", tenant_id=tenant)


def register(view: View, work: Work) -> None:
    """A workload is there, or is now something else than before."""
    data = work.event.data
    assert isinstance(data, WorkloadRegistered)
    draft = work.draft(view)
    check_tenant(draft, work.tenant)
    before = draft.workload(work.tenant, data.workload_id)
    stamp = work.stamp_over(before.stamp)
    if stamp is not None:
        now = msgspec.structs.replace(
            before,
            type=data.type,
            name=data.name,
            os=data.os,
            os_family=data.os_family,
            virtual=data.virtual,
            stamp=stamp,
        )
        assignments.reassign(draft, work.tenant, data.workload_id, now, "workload")
    draft.close()


def report_usage(view: View, work: Work) -> None:
    """The bytes that a workload occupies: facts, recorded whatever the quotas say."""
    data = work.event.data
    assert isinstance(data, WorkloadUsageReported)
    draft = work.draft(view)
    check_tenant(draft, work.tenant)
    before = draft.workload(work.tenant, data.workload_id)
    stamp = work.stamp_over(before.usage_stamp)
    if stamp is not None and (facets.time_us(stamp) >= before.removed_at_us or work.arrival.origin is None):
        reported = {gauge: getattr(data.usage, gauge) for gauge in assignments.GAUGES}
        gauges = before.gauges | {gauge: value for gauge, value in reported.items() if value is not None}
        now = msgspec.structs.replace(before, gauges=gauges, usage_stamp=stamp)
        assignments.recount(draft, work.tenant, data.workload_id, now)
    draft.close()


def remove(view: View, work: Work) -> None:
    """A workload is gone, with its holdings, its gauges and the plans applied to it."""
    data = work.event.data
    assert isinstance(data, WorkloadRemoved)
    draft = work.draft(view)
    check_tenant(draft, work.tenant)
    before = draft.workload(work.tenant, data.workload_id)
    stamp = work.stamp_over(before.stamp)
    if stamp is not None:
        clear(draft, work.tenant, data.workload_id, before, stamp, "workload")
    draft.close()


def clear(
    draft: Draft,
    tenant: str,
    workload_id: str,
    before: Workload,
    stamp: facets.Stamp,
    reason: str,
    *,
    registered_anew: bool = False,
) -> None:
    """Take everything from a workload; that it was removed is remembered for a day. News from later stay."""
    removed_at_us = facets.time_us(stamp)
    links = {plan: link for plan, link in before.links.items() if facets.time_us(link.stamp) > removed_at_us}
    usage_stays = before.usage_stamp is not None and facets.time_us(before.usage_stamp) > removed_at_us
    now = Workload(
        stamp=stamp,
        removed_at_us=max(removed_at_us, before.removed_at_us),
        links=links,
        holding=before.holding,
        uncovered=before.uncovered,
        waiting=before.waiting,
        announced=before.announced,
        counted=before.counted,
        gauges=before.gauges if usage_stays else {},
        usage_stamp=before.usage_stamp if usage_stays else None,
    )
    if registered_anew:
        about = {name: getattr(before, name) for name in ("type", "stamp", "os", "os_family", "virtual", "name")}
        now = msgspec.structs.replace(now, **about)
    assignments.reassign(draft, tenant, workload_id, now, reason, shown_type=before.type)
    for step in draft.steps:
        count_applied(step, tenant, before, now)
        step.timers.append(_forget(draft, tenant, workload_id))


def count_applied(step: Step, tenant: str, before: Workload, now: Workload) -> None:
    """Count for each plan to how many workloads of the tenant it is applied, in the step that changes that."""
    for plan in before.links.keys() | now.links.keys():
        known, link = before.links.get(plan), now.links.get(plan)
        difference = (link is not None and link.applied) - (known is not None and known.applied)
        if difference:
            step.take.append(counting(tenant, plan, difference))


def counting(tenant: str, plan: str, difference: int) -> Take:
    """A plan is applied to so many more workloads of the tenant."""
    return Take((tenant,), records.applied_count_item(plan), difference, fact=True)


def forget_if_unknown(draft: Draft, step: Step, tenant: str, workload_id: str, now: Workload) -> None:
    """What is remembered of a workload that was never registered need not be remembered for more than a day."""
    if now.type is None and not any(link.applied for link in now.links.values()):
        step.timers.append(_forget(draft, tenant, workload_id))


def _forget(draft: Draft, tenant: str, workload_id: str) -> Timer:
    return Timer(f"forget/workload/{tenant}/{workload_id}", forget_at_ms(draft))


def forget_at_ms(draft: Draft) -> int:
    """When something that is removed now need not be remembered any longer."""
    return draft.now_ms + facets.REMEMBERED_SECONDS * 1000
