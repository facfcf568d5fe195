"""Offering items down the tree: enabling, disabling, quotas (docs/domain.md 3 and 4).

A change is judged by its outcome: what the tenant has afterwards must be allowed, in whatever order the list says it. A
change that is refused in one item is refused whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from schemas.offering_items import OfferingItemChange, OfferingItemsSet, QuotaChange
from service import records
from service.catalog.model import Role
from service.handlers import enablement, tenants
from service.handlers.draft import Draft, View
from service.handlers.moves import LookJob
from service.handlers.stepping import Frame, put_job
from service.handlers.work import RefusedError, Work, path_keys, placement_of, refuse_while_switched
from service.ledger.transaction import SILENT_PREFIX, Place, RecordKey
from service.records import Items, ItemState
from service.rules import assignment, facets, quotas
from service.rules import tenants as tenant_rules

DENIALS_SHOWN_MAX = 100  # names in the context of a refusal


class DisableJob(msgspec.Struct, frozen=True, tag="disable"):
    """Items were disabled on a tenant: they are disabled below it too, and the workloads lose them."""

    tenant: str
    items: tuple[str, ...]
    cause: str
    traceparent: str | None
    stack: tuple[Frame, ...] = ()


class RevokeJob(msgspec.Struct, frozen=True, tag="revoke"):
    """A quota was lowered below usage: the newest acquisitions in the subtree are taken away."""

    tenant: str
    item: str
    cause: str
    traceparent: str | None


def needs(view: View, work: Work) -> Iterable[RecordKey]:
    """The tenant's way up, its items and those of its parent."""
    yield from path_keys(view, work.tenant)
    yield records.items_key(work.tenant)
    entry = view.peek(records.tenant_key(work.tenant))
    if entry is not None and entry.value is not None:
        yield records.items_key(entry.value.parent_id)


def set_items(view: View, work: Work) -> None:
    """Enable and disable items and set quotas; what is not named stays as it is."""
    data = work.event.data
    assert isinstance(data, OfferingItemsSet)
    draft = work.draft(view)
    _check_tenant(draft, work, data)
    before = draft.items(work.tenant)
    changes = _changes(draft, work, data, before)
    if changes:
        after = before.changed(changes)
        _check_outcome(draft, work.tenant, before, after)
        _write(draft, work, data, before, after, changes)
    draft.close()


def _check_tenant(draft: Draft, work: Work, data: OfferingItemsSet) -> None:
    placement = placement_of(draft, work.tenant)
    refuse_while_switched(placement)
    tenant = draft.tenant(work.tenant)
    if placement.kind == "unit" or (tenant is not None and tenant.deleted):
        reason = "a unit uses the items of its customer" if placement.kind == "unit" else "the tenant is deleted"
        raise RefusedError("not_allowed", reason, "1027", tenant_id=work.tenant)
    for change in data.items:
        if draft.catalog.find_item(change.name) is None:
            raise RefusedError(
                "unknown_offering_item",
                f"the catalogue has no offering item {change.name}",
                offering_item=change.name,
            )


def _changes(draft: Draft, work: Work, data: OfferingItemsSet, before: Items) -> dict[str, ItemState]:
    """The new states of the items that the event has news of."""
    model = tenants.payment_model(draft, work.tenant)
    changes: dict[str, ItemState] = {}
    for change in data.items:
        known = before.states.get(change.name, enablement.OFF)
        stamp = work.stamp_over(known.stamp)
        if stamp is None:
            continue
        quota = _quota(draft, change, known, model)
        same = (change.status, *quota) == enablement.visible(known)
        changes[change.name] = ItemState(
            change.status, quota.value, quota.overage, known.version + (0 if same else 1), stamp
        )
    return changes


def _quota(draft: Draft, change: OfferingItemChange, known: ItemState, payment_model: str) -> quotas.Quota:
    item = draft.catalog.item(change.name)
    wanted: QuotaChange | None = change.quota
    if wanted is not None and wanted.version is not None and wanted.version != known.shown_version:
        raise RefusedError(
            "version_mismatch",
            f"the quota of {change.name} has version {known.shown_version}",
            "1001",
            offering_item=change.name,
            version=known.shown_version,
        )
    if not change.status or item.type == "feature":
        return quotas.UNLIMITED
    if not change.sets_quota:
        return quotas.Quota(known.value, known.overage) if known.status else quotas.UNLIMITED
    if wanted is None:
        return quotas.UNLIMITED
    quota = quotas.settle(wanted.value, wanted.overage, payment_model)
    if quotas.too_large(quota):
        raise RefusedError("invalid_data", f"value and overage of {change.name} are too large together")
    return quota


def _check_outcome(draft: Draft, tenant_id: str, before: Items, after: Items) -> None:
    """What the tenant has afterwards must be there above it, and a customer has one edition of an application."""
    tenant = draft.tenant(tenant_id)
    assert tenant is not None  # its placement has been read
    if tenant.parent_id != tenant_rules.ROOT:
        missing = sorted(after.enabled - before.enabled - draft.items(tenant.parent_id).enabled)
        if missing:
            raise RefusedError(
                "not_allowed",
                f"{len(missing)} items are not enabled on {tenant.parent_id}: {', '.join(missing[:5])}",
                "1021",
                tenant_id=tenant.parent_id,
                offering_items=missing[:DENIALS_SHOWN_MAX],
            )
    if tenant.kind != "customer":
        return
    for application, editions in assignment.edition_conflicts(draft.catalog, after.enabled).items():
        raise RefusedError(
            "not_allowed",
            f"a customer has one edition or billing mode, not {' and '.join(editions)}",
            "1027",
            application_id=application,
            editions=list(editions),
        )


def _write(
    draft: Draft,
    work: Work,
    data: OfferingItemsSet,
    before: Items,
    after: Items,
    changes: Mapping[str, ItemState],
) -> None:
    tenant = work.tenant
    step = draft.step()
    enablement.apply(draft, step, tenant, before, changes, "set")
    off = sorted(before.enabled - after.enabled)
    if off and data.cascade:
        job = DisableJob(tenant, tuple(off), work.cause.id, work.cause.traceparent)
        put_job(step, f"disable/{tenant}/{facets.digest(work.event.id)}", job, draft.now_ms)
    elif off:
        step.idle.extend(Place(tenant, name) for name in off)
        step.idle.extend(Place(tenant, SILENT_PREFIX + name) for name in off)
    if _concerns_the_settled(draft, tenant, before, after):
        look = LookJob(tenant, "offering_item", work.cause.id, work.cause.traceparent)
        put_job(step, f"look/{tenant}", look, draft.now_ms)
    if data.on_shortfall == "revoke":
        for name, state in changes.items():
            if state.value is not None:
                job_id = f"revoke/{tenant}/{name}"
                revoke = RevokeJob(tenant, name, work.cause.id, work.cause.traceparent)
                put_job(step, job_id, revoke, draft.now_ms)
    if step.idle:
        refused = RefusedError("not_allowed", "items that are in use cannot be disabled without cascade", "1023")
        work.refuse_otherwise(draft, refused)


def _concerns_the_settled(draft: Draft, tenant_id: str, before: Items, after: Items) -> bool:
    """Whether workloads that do not wait may be due something else now: a nearer base item, fewer packs, a gauge that
    is counted from now on, a feature that an item covered of which no workload takes a unit."""
    tenant = draft.tenant(tenant_id)
    if tenant is None or tenant.kind != "customer":
        return False
    off = (draft.catalog.item(name) for name in before.enabled - after.enabled)
    return bool(after.enabled - before.enabled) or any(item.role is Role.COVER for item in off)
