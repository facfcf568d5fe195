"""An item's state on a tenant is written, with all that goes with it (docs/domain.md 3 and 4).

The record says what is enabled and which quota was set, the ledger's accounts enforce the quota, and a silent account
of the parent counts on how many tenants right below it the item is enabled. The three change in one step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from service import records
from service.handlers import announcements
from service.handlers.draft import Draft, Step
from service.ledger.transaction import ANY_ITEM, SILENT_PREFIX, Emission, Limit, Place, Take, Wake
from service.records import Items, ItemState
from service.rules import tenants as tenant_rules

OFF = ItemState(0)


def disable(
    draft: Draft, step: Step, tenant: str, items: Iterable[str], reason: str, *, parent: str | None = None
) -> None:
    """Turn items off on a tenant; an item that is off has no quota. ``parent`` is said where it is about to change."""
    before = draft.items(tenant)
    changes = {
        name: ItemState(0, version=before.states[name].version + 1, stamp=before.states[name].stamp)
        for name in items
        if name in before.enabled
    }
    apply(draft, step, tenant, before, changes, reason, parent=parent)


def apply(
    draft: Draft,
    step: Step,
    tenant: str,
    before: Items,
    changes: Mapping[str, ItemState],
    reason: str,
    *,
    parent: str | None = None,
) -> None:
    """Write a tenant's items: the record, the limits, what is counted above, the announcements.

    Who waits there is looked at again, also where items were disabled: what is missing may be something else now.
    """
    if any(after.status != before.states.get(name, OFF).status for name, after in changes.items()):
        step.wake.append(Wake(Place(tenant, ANY_ITEM), "offering_item"))
    changes = {name: _dated(draft, before.states.get(name, OFF), after) for name, after in changes.items()}
    step.put.append((records.items_key(tenant), before.changed(changes)))
    if parent is None:
        found = draft.tenant(tenant)
        parent = found.parent_id if found is not None else tenant_rules.ROOT
    for name, after in changes.items():
        known = before.states.get(name, OFF)
        if after.status != known.status and parent != tenant_rules.ROOT:
            step.take.append(Take((parent,), SILENT_PREFIX + name, 1 if after.status else -1))
        if (after.value, after.overage) != (known.value, known.overage):
            step.limits.append(Limit(tenant, name, after.value, after.overage))
        if visible(after) != visible(known):
            step.emit.append(changed(draft, tenant, name, after, reason))


def _dated(draft: Draft, known: ItemState, after: ItemState) -> ItemState:
    """The new state with the moment since when others see it."""
    changed_ms = known.changed_ms if visible(after) == visible(known) else draft.now_ms
    return msgspec.structs.replace(after, changed_ms=changed_ms)


def changed(draft: Draft, tenant: str, name: str, state: ItemState, reason: str) -> Emission:
    """The announcement of an item's state on a tenant."""
    data = {
        "offering_item": name,
        "status": state.status,
        "quota": {"value": state.value, "overage": state.overage, "version": state.shown_version},
        "reason": reason,
    }
    facts = announcements.facts(
        announcements.OFFERING_ITEM_CHANGED,
        tenant=tenant,
        subject=name,
        identity=f"{state.version}/{draft.cause.id}",
        time_ms=draft.now_ms,
        cause=draft.cause.id,
        traceparent=draft.cause.traceparent,
        data=data,
    )
    return Emission(facts)


def visible(state: ItemState) -> tuple[int, int | None, int | None]:
    """What others see of an item, but for the version of its quota."""
    return state.status, state.value, state.overage


def count(parent: str, items: Iterable[str], difference: int) -> Iterable[Take]:
    """How many tenants right below have an item is counted, so that disabling it above can be refused."""
    return (Take((parent,), SILENT_PREFIX + item, difference) for item in sorted(items))
