"""The tree of tenants: who exists, where, and whether it may acquire anything (docs/domain.md 2)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from schemas.tenants import TenantUpserted
from service import records
from service.handlers import announcements, enablement, moves
from service.handlers.draft import Draft, Step, View
from service.handlers.stepping import put_job
from service.handlers.work import (
    MisplacedError,
    RefusedError,
    UnknownTenantError,
    Work,
    path_keys,
    placement_of,
    refuse_while_switched,
)
from service.ledger.transaction import ANY_ITEM, SILENT_PREFIX, Emission, Place, RecordKey, Wake
from service.records import Identifier, Tenant
from service.rules import facets
from service.rules import tenants as rules


class ClearJob(msgspec.Struct, frozen=True, tag="clear"):
    """A tenant was deleted: its workloads, as they were at ``deleted_at_us``, and its reservations are released."""

    tenant: str
    deleted_at_us: int
    deleted_at_ms: int
    cause: str
    traceparent: str | None
    workloads_done: bool = False
    cursor: int = 0


def needs(view: View, work: Work) -> Iterable[RecordKey]:
    """The tenant, its way up and its new way up, and what guards names and children."""
    data = work.event.data
    yield from path_keys(view, work.tenant)
    yield records.children_key(work.tenant)
    entry = view.peek(records.tenant_key(work.tenant))
    before: Tenant | None = entry.value if entry else None
    if before is not None:
        yield records.name_key(before.parent_id, rules.comparable(before.name))
        yield records.children_key(before.parent_id)
    if isinstance(data, TenantUpserted):
        yield records.name_key(data.parent_id, rules.comparable(data.name))
        yield records.children_key(data.parent_id)
        yield from path_keys(view, data.parent_id)
        if before is not None and before.parent_id != data.parent_id:
            yield records.accounts_key(work.tenant)


def upsert(view: View, work: Work) -> None:
    """A tenant exists, with these properties; another parent moves it, and a deleted one is restored."""
    data = work.event.data
    assert isinstance(data, TenantUpserted)
    if work.tenant == rules.ROOT:
        raise RefusedError("not_allowed", "root is as it is", "1002", tenant_id=rules.ROOT)
    draft = work.draft(view)
    before = draft.tenant(work.tenant)
    if before is None and work.parent_shard not in (None, view.shard):
        raise MisplacedError
    stamp = work.stamp_over(before.stamp if before else None)
    if stamp is None:
        draft.close()
        return
    _check_parent(draft, work, data, before)
    if before is not None and before.parent_id != data.parent_id:
        refuse_while_switched(placement_of(draft, work.tenant))
    after = _after(work, data, before, stamp, draft.now_ms)
    step = draft.step()
    if _visible(before) == _visible(after) and not work.arrival.beside:
        assert before is not None
        step.put.append((records.tenant_key(work.tenant), msgspec.structs.replace(before, stamp=stamp)))
    else:
        _write(draft, step, work, before, after)
    draft.close()


def delete(view: View, work: Work) -> None:
    """A disabled tenant without tenants below it is deleted; what it held is released by a job."""
    draft = work.draft(view)
    before = draft.tenant(work.tenant)
    if work.tenant == rules.ROOT:
        raise RefusedError("not_allowed", "root is as it is", "1002", tenant_id=rules.ROOT)
    if before is None:
        raise UnknownTenantError(work.tenant)
    stamp = work.stamp_over(before.stamp)
    if before.deleted or stamp is None:
        draft.close()
        return
    if work.arrival.version not in (None, before.version):
        raise _stale(work, before)
    refuse_while_switched(placement_of(draft, work.tenant))
    if before.enabled:
        raise RefusedError("not_allowed", "an enabled tenant cannot be deleted", "1006", tenant_id=work.tenant)
    if draft.read(records.children_key(work.tenant)):
        raise RefusedError("not_allowed", "there are tenants below it", "1023", tenant_id=work.tenant)
    after = msgspec.structs.replace(
        before, deleted=True, version=before.version + 1, stamp=stamp, updated_ms=draft.now_ms
    )
    step = draft.step()
    step.put.append((records.tenant_key(work.tenant), after))
    _leave(draft, step, work.tenant, before)
    if before.parent_id != rules.ROOT:
        step.include(records.deleted_children_index(before.parent_id), work.tenant)
    job = ClearJob(work.tenant, facets.time_us(stamp), draft.now_ms, work.cause.id, work.cause.traceparent)
    put_job(step, f"clear/{work.tenant}/{facets.digest(work.event.id)}", job, draft.now_ms)
    step.emit.append(changed(draft, work.tenant, after))
    draft.close()


def payment_model(draft: Draft, tenant: str) -> str:
    """The payment model that counts: the tenant's own, or that of the nearest one above it that has one."""
    found = draft.tenant(tenant)
    for _ in range(rules.DEPTH_MAX + 1):
        if found is None or found.payment_model is not None:
            break
        found = draft.tenant(found.parent_id)
    return found.payment_model if found is not None and found.payment_model else "pay_as_you_go"


def changed(draft: Draft, tenant: str, after: Tenant) -> Emission:
    """The announcement of a tenant's state."""
    own = after.payment_model
    data = {
        "parent_id": after.parent_id,
        "kind": after.kind,
        "name": after.name,
        "enabled": after.enabled,
        "deleted": after.deleted,
        "pricing_mode": after.pricing_mode,
        "payment_model": own if own is not None else payment_model(draft, after.parent_id),
        "version": after.version,
    }
    facts = announcements.facts(
        announcements.TENANT_CHANGED,
        tenant=tenant,
        subject=tenant,
        identity=str(after.version),
        time_ms=draft.now_ms,
        cause=draft.cause.id,
        traceparent=draft.cause.traceparent,
        data=data,
    )
    return Emission(facts)


def _check_parent(draft: Draft, work: Work, data: TenantUpserted, before: Tenant | None) -> None:
    """Whether the tenant may stand below the parent that is named."""
    parent = draft.tenant(data.parent_id)
    if parent is None:
        raise _elsewhere(draft, work, before) or UnknownTenantError(data.parent_id)
    if before is not None and before.kind != data.kind:
        raise RefusedError("not_allowed", f"a {before.kind} stays a {before.kind}", "1027", tenant_id=work.tenant)
    if data.version is not None and before is not None and data.version != before.version:
        raise _stale(work, before)
    if reason := rules.placement_refused(data.kind, parent.kind):
        raise RefusedError("not_allowed", reason, "1027", tenant_id=work.tenant)
    arrives = before is None or before.deleted
    if parent.deleted or (arrives and not parent.enabled):
        raise RefusedError("not_allowed", f"{data.parent_id} is disabled or deleted", "1003", tenant_id=data.parent_id)
    if before is None or before.parent_id != data.parent_id:
        placement = draft.placement(data.parent_id) if data.parent_id != rules.ROOT else None
        if placement is not None and len(placement.path) >= rules.DEPTH_MAX:
            raise RefusedError("not_allowed", f"a tree has at most {rules.DEPTH_MAX} levels", "1027")


def _stale(work: Work, before: Tenant) -> RefusedError:
    return RefusedError(
        "version_mismatch", f"the version is {before.version}", "1001", tenant_id=work.tenant, version=before.version
    )


def _elsewhere(draft: Draft, work: Work, before: Tenant | None) -> RefusedError | None:
    """The refusal where the parent exists, but below another direct partner."""
    if before is None or work.parent_shard in (None, draft.view.shard):
        return None
    return RefusedError(
        "not_allowed", "a tenant moves only below its own direct partner", "1027", tenant_id=work.tenant
    )


def _after(work: Work, data: TenantUpserted, before: Tenant | None, stamp: facets.Stamp, now_ms: int) -> Tenant:
    """The tenant as the event wants it; what the event does not say stays."""
    was_in_production = before.was_in_production if before else False
    pricing_mode = data.pricing_mode or (before.pricing_mode if before else rules.first_pricing_mode(data.kind))
    if reason := rules.pricing_mode_refused(pricing_mode, was_in_production=was_in_production):
        raise RefusedError("not_allowed", reason, "1027", tenant_id=work.tenant)
    return Tenant(
        parent_id=data.parent_id,
        kind=data.kind,
        name=data.name,
        enabled=data.enabled,
        deleted=False,
        pricing_mode=pricing_mode,
        payment_model=data.payment_model or (before.payment_model if before else None),
        version=before.version + 1 if before else 1,
        stamp=stamp,
        was_in_production=was_in_production or pricing_mode == "production",
        created_ms=before.created_ms if before else now_ms,
        updated_ms=now_ms,
    )


def _visible(tenant: Tenant | None) -> tuple[object, ...] | None:
    """What others see of a tenant, but for its version."""
    if tenant is None:
        return None
    return (
        tenant.parent_id,
        tenant.name,
        tenant.enabled,
        tenant.deleted,
        tenant.pricing_mode,
        tenant.payment_model,
    )


def _write(draft: Draft, step: Step, work: Work, before: Tenant | None, after: Tenant) -> None:
    """Everything that a change of a tenant brings with it."""
    tenant = work.tenant
    step.put.append((records.tenant_key(tenant), after))
    step.put.extend(work.arrival.beside)
    stays = before is not None and not before.deleted
    if before is not None and before.parent_id != after.parent_id:
        moves.check(draft, tenant, before, after)
        moves.carry_usage(draft, step, tenant, before, after)
    if before is None or not stays or (before.parent_id, before.name) != (after.parent_id, after.name):
        if before is not None and stays:
            _leave(draft, step, tenant, before)
        elif before is not None and before.parent_id != rules.ROOT:
            step.exclude(records.deleted_children_index(before.parent_id), tenant)
        _arrive(draft, step, tenant, after, work.name_holder)
    if before is not None and after.acquires and not before.acquires:
        step.wake.append(Wake(Place(tenant, ANY_ITEM), "tenant"))
    draft.tag(tenant, after.pricing_mode)
    step.emit.append(changed(draft, tenant, after))
    if any(not take.item.startswith(SILENT_PREFIX) for take in step.take):
        refused = RefusedError("not_allowed", "a hard quota above the new place would not hold", "1022")
        work.refuse_otherwise(draft, refused)


def _arrive(draft: Draft, step: Step, tenant: str, after: Tenant, name_holder: str | None) -> None:
    """Take a place below the parent, with the items that the parent has, and a name that no sibling has.

    Root's children are spread over all shards: the directory keeps them, and knows who has the name already.
    """
    if after.parent_id == rules.ROOT:
        if name_holder is not None:
            raise _name_taken(name_holder)
        return
    key = records.name_key(after.parent_id, rules.comparable(after.name))
    left = key in step.delete
    holder: Identifier | None = draft.read(key)
    if holder is not None and holder.tenant != tenant and not left:
        raise _name_taken(holder.tenant)
    if left:
        step.delete.remove(key)
    step.put.append((key, Identifier(tenant)))
    _count_child(draft, step, after.parent_id, 1)
    step.include(records.children_index(after.parent_id), tenant)
    items = draft.items(tenant)
    lost = items.enabled - draft.items(after.parent_id).enabled
    step.take.extend(enablement.count(after.parent_id, items.enabled, 1))
    if lost:  # of a restored tenant: above it, items were disabled in the meantime
        enablement.disable(draft, step, tenant, sorted(lost), "cascade", parent=after.parent_id)


def _name_taken(holder: str) -> RefusedError:
    return RefusedError("not_allowed", "a tenant of this name exists beside it", "1004", tenant_id=holder)


def _leave(draft: Draft, step: Step, tenant: str, before: Tenant) -> None:
    """Give up the place below the parent, and the name."""
    if before.parent_id == rules.ROOT:
        return
    key = records.name_key(before.parent_id, rules.comparable(before.name))
    draft.read(key)
    step.delete.append(key)
    _count_child(draft, step, before.parent_id, -1)
    step.exclude(records.children_index(before.parent_id), tenant)
    step.take.extend(enablement.count(before.parent_id, draft.items(tenant).enabled, -1))


def _count_child(draft: Draft, step: Step, parent: str, difference: int) -> None:
    key = records.children_key(parent)
    for number, (known, value) in enumerate(step.put):
        if known == key:
            step.put[number] = (key, value + difference)
            return
    step.put.append((key, (draft.read(key) or 0) + difference))
