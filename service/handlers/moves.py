"""Moving a tenant below another parent, with everything that it and the tenants below it use (docs/domain.md 2)."""

from __future__ import annotations

import msgspec

from service import records
from service.handlers.draft import Draft, Step
from service.handlers.stepping import Frame, put_job
from service.handlers.work import RefusedError
from service.ledger.transaction import SILENT_PREFIX, Account, Take
from service.records import Tenant
from service.rules import tenants as rules


class LookJob(msgspec.Struct, frozen=True, tag="look"):
    """Workloads of a tenant and below it are looked at again: with ``waiting`` those that wait, else the others.

    A tenant has moved, and who waits may have room now; or items were enabled, and who has something may be due
    something else. ``named`` (tenant and workload) are looked at first, whether they wait or not.
    """

    tenant: str
    reason: str
    cause: str
    traceparent: str | None
    waiting: bool = False
    stack: tuple[Frame, ...] = ()
    named: tuple[tuple[str, str], ...] = ()


def check(draft: Draft, tenant: str, before: Tenant, after: Tenant) -> None:
    """Whether the tenant may stand there at all; what the quotas say, the ledger knows."""
    if reason := rules.move_refused(after.kind):
        raise RefusedError("not_allowed", reason, "1027", tenant_id=tenant)
    if rules.ROOT in (before.parent_id, after.parent_id):
        raise RefusedError("not_allowed", "a tenant moves only below its own direct partner", "1027", tenant_id=tenant)
    placement = draft.placement(after.parent_id)
    assert placement is not None  # the parent has been read
    if tenant in placement.path:
        raise RefusedError("not_allowed", "a tenant cannot stand below itself", "1007", tenant_id=tenant)
    here = draft.placement(before.parent_id)
    if here is None or here.path[-1] != placement.path[-1]:
        raise RefusedError("not_allowed", "a tenant moves only below its own direct partner", "1027", tenant_id=tenant)
    if placement.blocked:
        raise RefusedError("not_allowed", f"{placement.blocked[0]} is disabled", "1013", tenant_id=placement.blocked[0])
    missing = draft.items(tenant).enabled - draft.items(after.parent_id).enabled
    if missing:
        raise RefusedError(
            "not_allowed",
            f"the new parent lacks {len(missing)} of its offering items",
            "1014",
            tenant_id=after.parent_id,
            offering_items=sorted(missing),
        )


def carry_usage(draft: Draft, step: Step, tenant: str, before: Tenant, after: Tenant) -> None:
    """Its usage leaves the old way up and enters the new one, in one step; where both meet nothing changes.

    The numbers are those read a moment ago; the ledger refuses the step where they have changed since.
    """
    old, new = draft.placement(before.parent_id), draft.placement(after.parent_id)
    assert old is not None  # both have been checked
    assert new is not None
    accounts: dict[str, Account] = draft.view.read(records.accounts_key(tenant)).value
    for item, account in accounts.items():
        if item.startswith(SILENT_PREFIX):
            continue
        draft.expect_balance(tenant, item, account)
        if account.used:
            step.take.append(Take(old.path, item, -account.used, -account.reserved))
            step.take.append(Take(new.path, item, account.used, account.reserved))
    for item in draft.items(tenant).enabled - accounts.keys():
        draft.expect_balance(tenant, item, Account())
    job = LookJob(tenant, "tenant", draft.cause.id, draft.cause.traceparent, waiting=True)
    put_job(step, f"look/moved/{tenant}", job, draft.now_ms)
