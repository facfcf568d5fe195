"""Tenants: who there is, and how they come, change and go."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse

from schemas.tenants import TenantDeleted, TenantUpserted
from service import records
from service.handlers import listing, tree
from service.handlers.announcements import rfc3339
from service.handlers.listing import Listed
from service.handlers.tree import ROOT_NODE, Node
from service.http import paging, refusals, views
from service.http.access import Api, Permit, TenantId, for_caller, malformed, on_tenant
from service.http.errors import ApiError
from service.http.paging import SIZE_MAX, After, Cursor, Limit
from service.http.repeats import Route
from service.http.scopes import Scope
from service.http.shapes import IdList, Tenant, TenantAttributes, TenantChange, TenantPage, TenantRequest
from service.ledger.transaction import RecordKey
from service.records import Items, Profile
from service.rules.tenants import ROOT

SCANNED_MAX = 5000  # tenants that are looked at for one page of those that changed
TRIES_MAX = 5  # of a change that does not name the version it is of
UUIDS_MAX = 1000
CLEARED_BY_NULL = ("customer_id", "internal_tag")
ABOVE = ("enabled", "parent_id", "pricing_mode", "payment_model")  # what only a tenant above may change

routes = APIRouter(prefix="/api/2", tags=["tenants"], route_class=Route)

Looking = Annotated[Permit, Depends(for_caller(Scope.VIEWER))]
LookingAt = Annotated[Permit, Depends(on_tenant(Scope.VIEWER))]
Making = Annotated[Permit, Depends(for_caller(Scope.TENANT_ADMIN))]
Changing = Annotated[Permit, Depends(on_tenant(Scope.TENANT_ADMIN))]
Deleting = Annotated[Permit, Depends(on_tenant(Scope.TENANT_ADMIN, above="existence", deleted=True))]


class Filters(msgspec.Struct, omit_defaults=True):
    """What a list of tenants is asked for; a cursor brings it along."""

    parent_id: str | None = None
    subtree_root_id: str | None = None
    uuids: list[str] | None = None
    with_offering_items: bool = False
    with_contacts: bool = False
    allow_deleted: bool = False
    updated_since_seconds: int = 0


@routes.get("/tenants", response_model=TenantPage, summary="The tenants of a subtree, below a parent, or by their ids")
async def fetch_many(
    permit: Looking,
    parent_id: str | None = None,
    subtree_root_id: str | None = None,
    uuids: Annotated[str | None, Query(description="Separated by commas.")] = None,
    limit: Limit = paging.SIZE,
    after: After = None,
    with_offering_items: bool = False,
    with_contacts: bool = False,
    allow_deleted: bool = False,
    updated_since: datetime | None = None,
) -> Response:
    """The root of a subtree is part of it. Without any of the three: the caller's own subtree."""
    if after:
        cursor = paging.read(after)
    else:
        filters = Filters(
            parent_id,
            subtree_root_id,
            [each.strip() for each in uuids.split(",") if each.strip()] if uuids else None,
            with_offering_items,
            with_contacts,
            allow_deleted,
            int(updated_since.timestamp()) if updated_since else 0,
        )
        cursor = Cursor(msgspec.to_builtins(filters), min(limit, SIZE_MAX), ())
    return JSONResponse(await _page(permit, cursor, first=not after))


async def _page(permit: Permit, cursor: Cursor, *, first: bool) -> dict[str, Any]:
    filters = paging.filters_of(cursor, Filters)
    now = rfc3339(permit.api.engine.clock())
    if filters.uuids is not None:
        if len(filters.uuids) > UUIDS_MAX:
            raise malformed(f"At most {UUIDS_MAX} tenants can be asked for by their ids.")
        reached = await permit.reach_all(filters.uuids, deleted=filters.allow_deleted)
        some = [Listed(each.node, (), has_children=False) for each in reached]
        shown = await _shown(permit.api, some, filters)
        return paging.answer([entry for entry in shown if entry is not None], now, None)
    top_id = filters.parent_id or filters.subtree_root_id or permit.caller.tenant_id
    top = await permit.reach(top_id, deleted=filters.allow_deleted)
    entries, spot = await _fill(permit.api, top.node, cursor, filters, first=first)
    following = None if spot is None else msgspec.structs.replace(cursor, spot=spot)
    return paging.answer(entries, now, following)


async def _fill(
    api: Api, top: Node, cursor: Cursor, filters: Filters, *, first: bool
) -> tuple[list[dict[str, Any]], listing.Spot | None]:
    """The entries of a page, and where the next one begins; None where there is nothing behind."""
    children_only = filters.parent_id is not None
    spot: listing.Spot | None = () if children_only else None
    spot = spot if first else cursor.spot
    entries: list[dict[str, Any]] = []
    scanned = 0
    while scanned < SCANNED_MAX:
        size = min(cursor.size - len(entries), SIZE_MAX) if not filters.updated_since_seconds else SIZE_MAX
        some = await listing.page(
            api.ledger, top, spot, size + 1, deleted=filters.allow_deleted, depth_max=1 if children_only else None
        )
        is_last = len(some) <= size
        some = some[:size]
        scanned += len(some)
        for listed, entry in zip(some, await _shown(api, some, filters), strict=True):
            spot = listed.spot
            if entry is not None:
                entries.append(entry)
                if len(entries) == cursor.size:
                    return entries, None if is_last and listed is some[-1] else spot
        if is_last:
            return entries, None
    return entries, spot


async def _shown(api: Api, some: Sequence[Listed], filters: Filters) -> list[dict[str, Any] | None]:
    """Tenants as they are shown, all read together; None for one that has not changed since."""
    profiles, items = await _details(api, [each.node for each in some])
    shown: list[dict[str, Any] | None] = []
    for listed, profile, own in zip(some, profiles, items, strict=True):
        if views.updated_ms(listed.node, own) // 1000 < filters.updated_since_seconds:
            shown.append(None)
            continue
        entry = views.tenant(listed.node, profile, own)
        if filters.with_contacts:
            entry["contacts"] = [entry["contact"]] if entry["contact"] else []
        if filters.with_offering_items:
            entry["offering_items"] = [
                views.offering_item(api.catalog, item, listed.node, state)
                for name, state in own.states.items()
                if (item := api.catalog.find_item(name)) is not None
            ]
        shown.append(entry)
    return shown


async def _details(api: Api, nodes: Sequence[Node]) -> tuple[list[Profile | None], list[Items]]:
    """What is kept of tenants, and their items, in one round trip."""
    wanted: dict[int, list[RecordKey]] = {}
    for node in nodes:
        if node is not ROOT_NODE:
            keys = (records.profile_key(node.tenant_id), records.items_key(node.tenant_id))
            wanted.setdefault(node.shard, []).extend(keys)
    stored = await api.ledger.read(wanted) if wanted else {}
    found = {key: records.decode(key, one.payload) for key, one in stored.items() if one is not None}
    return (
        [found.get(records.profile_key(node.tenant_id)) for node in nodes],
        [found.get(records.items_key(node.tenant_id), records.NO_ITEMS) for node in nodes],
    )


@routes.get("/tenants/{tenant_id}", response_model=Tenant, summary="One tenant")
async def fetch(permit: LookingAt) -> Response:
    """A deleted one is not there."""
    return JSONResponse(await _show(permit.api, permit.tenant.node))


async def _show(api: Api, node: Node) -> dict[str, Any]:
    profiles, items = await _details(api, [node])
    children = bool(await tree.children(api.ledger, [node])) if node is ROOT_NODE else await _has_children(api, node)
    return views.tenant(node, profiles[0], items[0], has_children=children)


async def _has_children(api: Api, node: Node) -> bool:
    index = records.children_index(node.tenant_id)
    return (await api.ledger.index_sizes({node.shard: [index]}))[index] > 0


async def _show_anew(api: Api, tenant_id: str) -> dict[str, Any]:
    """A tenant as it is after a change."""
    try:
        return await _show(api, await tree.find(api.ledger, tenant_id))
    except tree.TenantNotFoundError:
        raise refusals.not_found() from None


@routes.get("/tenants/{tenant_id}/children", response_model=IdList, summary="The ids of the tenants right below")
async def fetch_children(permit: LookingAt) -> Response:
    """Deleted ones are left out."""
    below = await tree.children(permit.api.ledger, [permit.tenant.node])
    return JSONResponse({"items": [node.tenant_id for node in below]})


@routes.post("/tenants", response_model=Tenant, status_code=201, summary="Make a tenant")
async def create(permit: Making, body: TenantRequest) -> Response:
    """Its parent is the caller's own tenant, or one below it."""
    parent = await permit.reach(body.parent_id)
    tenant_id = permit.new_id("tenant")
    data = TenantUpserted(
        parent_id=body.parent_id,
        kind=body.kind,
        name=body.name,
        enabled=body.enabled is not False,
        pricing_mode=body.pricing_mode,
        payment_model=body.payment_model,
    )
    beside = ((records.profile_key(tenant_id), _merged(Profile(), body)),)
    await permit.tell(tenant_id, "apportion.tenant.upserted.v1", data, way=parent.way, beside=beside)
    return JSONResponse(await _show_anew(permit.api, tenant_id), 201)


@routes.put("/tenants/{tenant_id}", response_model=Tenant, summary="Change a tenant")
async def change(permit: Changing, tenant_id: TenantId, body: TenantChange) -> Response:
    """Only what is named changes; ``contact`` is merged. ``version`` is the one that the change is of."""
    tenant = permit.tenant
    said = [name for name in ABOVE if getattr(body, name) is not None]
    way = tenant.way
    if body.parent_id is not None and body.parent_id != tenant.node.tenant.parent_id:
        permit.refuse_own(tenant, "place")
        way = (*way, *(await permit.reach(body.parent_id)).way)
    if any(getattr(body, name) != getattr(tenant.node.tenant, name) for name in said):
        permit.refuse_own(tenant, " and ".join(said))
    if tenant_id == ROOT:
        raise refusals.denied("Root is as it is.")
    for attempt in range(TRIES_MAX):
        try:
            await _change(permit, body, await tree.find(permit.api.ledger, tenant_id), way)
            break
        except ApiError as error:
            # Nobody said of which version the change is: it is made of the newest.
            if error.code != refusals.MISMATCH or body.version is not None or attempt == TRIES_MAX - 1:
                raise
    return JSONResponse(await _show_anew(permit.api, tenant_id))


async def _change(permit: Permit, body: TenantChange, node: Node, way: Sequence[Node]) -> None:
    known = node.tenant
    data = TenantUpserted.model_validate(
        {
            "parent_id": body.parent_id or known.parent_id,
            "kind": body.kind or known.kind,
            "name": body.name or known.name,
            "enabled": known.enabled if body.enabled is None else body.enabled,
            "pricing_mode": body.pricing_mode,
            "payment_model": body.payment_model,
            # What is left out is taken from what was read, so the change holds only while that does.
            "version": known.version if body.version is None else body.version,
        }
    )
    profiles, _ = await _details(permit.api, [node])
    before = profiles[0] or Profile()
    after = _merged(before, body)
    beside = () if after == before else ((records.profile_key(node.tenant_id), after),)
    await permit.tell(node.tenant_id, "apportion.tenant.upserted.v1", data, way=way, beside=beside)


def _merged(before: Profile, said: TenantAttributes) -> Profile:
    """What is kept of a tenant, with what is said now."""
    changes: dict[str, Any] = {
        name: value
        for name in ("ancestral_access", "language", "customer_type", *CLEARED_BY_NULL)
        if (value := getattr(said, name)) is not None or (name in CLEARED_BY_NULL and name in said.model_fields_set)
    }
    if said.contact is not None:
        changes["contact"] = {**before.contact, **said.contact}
    if said.update_lock is not None:
        changes["update_lock"] = {**before.update_lock, **said.update_lock.model_dump(exclude_unset=True)}
    return msgspec.structs.replace(before, **changes)


@routes.delete("/tenants/{tenant_id}", status_code=204, summary="Delete a tenant")
async def delete(
    permit: Deleting,
    version: Annotated[int | None, Query(ge=0, description="The version that is to be deleted.")] = None,
) -> Response:
    """It must be disabled, and nothing may stand below it. What it held is released."""
    tenant = permit.tenant
    if not tenant.node.tenant.deleted:
        event = "apportion.tenant.deleted.v1"
        await permit.tell(tenant.id, event, TenantDeleted(), way=tenant.way, version=version)
    elif not await permit.happened(tenant.id):
        raise refusals.not_found()
    return Response(status_code=204)
