"""Tenants, offering items and usages as they are shown: records in, JSON out."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from service.catalog import Catalog
from service.catalog.model import Item
from service.handlers.announcements import rfc3339
from service.handlers.queries import UsageRow
from service.handlers.tree import Node
from service.records import ApiClient, Items, ItemState, Profile

NO_PROFILE = Profile()


def tenant(node: Node, profile: Profile | None, items: Items, *, has_children: bool | None = None) -> dict[str, Any]:
    """A tenant. It was updated when its items were."""
    known, kept = node.tenant, profile or NO_PROFILE
    changed_ms = max((state.changed_ms for state in items.states.values()), default=0)
    shown: dict[str, Any] = {
        "id": node.tenant_id,
        "parent_id": known.parent_id,
        "version": known.version,
        "name": known.name,
        "kind": known.kind,
        "enabled": known.enabled,
        "contact": kept.contact,
        "update_lock": {"enabled": False, "owner_id": None, **kept.update_lock},
        "ancestral_access": kept.ancestral_access,
        "language": kept.language,
        "customer_type": kept.customer_type,
        "customer_id": kept.customer_id,
        "internal_tag": kept.internal_tag,
        "pricing_mode": known.pricing_mode,
        "payment_model": known.payment_model,
        "created_at": rfc3339(known.created_ms),
        "updated_at": rfc3339(max(known.updated_ms, changed_ms)),
    }
    if has_children is not None:
        shown["has_children"] = has_children
    if known.deleted:
        shown["deleted_at"] = rfc3339(known.updated_ms)
    return shown


def updated_ms(node: Node, items: Items) -> int:
    """When a tenant or one of its items changed last."""
    return max((node.tenant.updated_ms, *(state.changed_ms for state in items.states.values())))


def infra_id(catalog: Catalog, item: Item) -> str | None:
    """The storage component that an item is bound to; features of disaster recovery name it too."""
    if item.type == "infra" or (item.type == "feature" and item.usage_name.startswith("dr_")):
        return item.infra_id or next(iter(catalog.infrastructures.values())).id
    return None


def offering_item(catalog: Catalog, item: Item, node: Node, state: ItemState) -> dict[str, Any]:
    """An offering item of a tenant; what is off has no quota, and of a deleted tenant everything is off."""
    status = 0 if node.tenant.deleted else state.status
    shown: dict[str, Any] = {
        "application_id": item.application_id,
        "name": item.name,
        "edition": item.edition,
        "usage_name": item.usage_name,
        "tenant_id": node.tenant_id,
        "status": status,
        "type": item.type,
        "measurement_unit": item.unit,
        "locked": False,
        "updated_at": rfc3339(max(state.changed_ms, node.tenant.created_ms)),
    }
    bound = infra_id(catalog, item)
    if bound is not None:
        shown["infra_id"] = bound
    if status and item.type != "feature":
        shown["quota"] = quota(state)
    return shown


def quota(state: ItemState) -> dict[str, Any]:
    """All three parts; unlimited is null, null and 0."""
    return {"value": state.value, "overage": state.overage, "version": state.shown_version}


def usage(catalog: Catalog, tenant_id: str, row: UsageRow, now_ms: int) -> dict[str, Any]:
    """What a tenant uses of one item. Usage is known at this moment, so there is one value."""
    item = catalog.find_item(row.offering_item)
    month = datetime.fromtimestamp(now_ms / 1000, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    own: dict[str, Any] = {"status": row.status}
    if row.status and item is not None and item.type != "feature":
        own["quota"] = {"value": row.quota.value, "overage": row.quota.overage, "version": row.quota.version}
    return {
        "application_id": item.application_id if item else None,
        "name": row.offering_item,
        "edition": row.edition,
        "usage_name": row.usage_name,
        "type": item.type if item else "count",
        "measurement_unit": row.unit,
        "infra_id": infra_id(catalog, item) if item else None,
        "tenant_uuid": tenant_id,
        "tenant_id": number_of(tenant_id),
        "range_start": f"{month:%Y-%m-%dT%H:%M:%S}Z",
        "value": row.used,
        "absolute_value": row.used,
        "offering_item": own,
    }


def number_of(tenant_id: str) -> int:
    """A number that stands for a tenant, always the same one; 52 bits, which every reader of JSON holds exactly."""
    return int.from_bytes(hashlib.blake2b(tenant_id.encode(), digest_size=7).digest(), "big") >> 4


def client(client_id: str, known: ApiClient) -> dict[str, Any]:
    """An API client, without its secret."""
    return {
        "client_id": client_id,
        "tenant_id": known.tenant_id,
        "type": known.type,
        "status": "enabled",
        "scopes": list(known.scopes),
        "data": known.data,
        "created_at": rfc3339(known.created_ms),
        "created_by": known.created_by,
    }
