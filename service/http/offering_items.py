"""Offering items of tenants: what is on, what could be, and their quotas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from schemas.offering_items import OfferingItemsSet
from service.catalog.model import Item
from service.handlers import listing, queries, tree
from service.handlers.announcements import rfc3339
from service.handlers.tree import ROOT_NODE, Node
from service.http import paging, refusals, views
from service.http.access import Permit, Reached, for_caller, malformed, on_tenant
from service.http.errors import ApiError
from service.http.paging import SIZE_MAX, After, Cursor, Limit
from service.http.repeats import Route
from service.http.scopes import Scope
from service.http.shapes import OfferingItemList, OfferingItemPage, OfferingItemRequest, OfferingItemsRequest
from service.records import ROOT_TENANT, ItemState

SET = "apportion.offering_items.set.v1"
SCANNED_MAX = 2000  # tenants that are looked at for one page
TENANTS_AT_ONCE = 100
OFF, ON = ItemState(0), ItemState(1)
EVERY = "*"

routes = APIRouter(prefix="/api/2", tags=["offering items"], route_class=Route)

Looking = Annotated[Permit, Depends(for_caller(Scope.VIEWER))]
LookingAt = Annotated[Permit, Depends(on_tenant(Scope.VIEWER))]
Licensing = Annotated[Permit, Depends(on_tenant(Scope.LICENSING_ADMIN, above="offering items"))]
EditionName = Annotated[
    str, Query(description=f"The items of an edition or billing mode, and those of none; `{EVERY}` for all.")
]
Names = Annotated[str | None, Query(description="Separated by commas.")]


class Filters(msgspec.Struct, omit_defaults=True):
    """What a list of the items of a subtree is asked for; a cursor brings it along."""

    top: str
    usage_names: list[str] | None = None
    editions: list[str] | None = None
    updated_since_seconds: int = 0
    allow_deleted: bool = False


@routes.get("/tenants/offering_items", response_model=OfferingItemPage, summary="The items of a whole subtree")
async def fetch_subtree(
    permit: Looking,
    subtree_root_tenant_id: str | None = None,
    usage_names: Names = None,
    editions: Names = None,
    updated_since: datetime | None = None,
    allow_deleted: bool = False,
    limit: Limit = SIZE_MAX,
    after: After = None,
) -> Response:
    """Those that are on, and those that were."""
    if after:
        cursor = paging.read(after)
    else:
        top = subtree_root_tenant_id or permit.caller.tenant_id
        since = int(updated_since.timestamp()) if updated_since else 0
        filters = Filters(top, split(usage_names), split(editions), since, allow_deleted)
        cursor = Cursor(msgspec.to_builtins(filters), min(limit, SIZE_MAX), ())
    return JSONResponse(await _page(permit, cursor, first=not after))


async def _page(permit: Permit, cursor: Cursor, *, first: bool) -> dict[str, Any]:
    filters = paging.filters_of(cursor, Filters)
    top = (await permit.reach(filters.top, deleted=filters.allow_deleted)).node
    now = rfc3339(permit.api.engine.clock())
    found: list[dict[str, Any]] = []
    spot: listing.Spot | None = None if first else cursor.spot
    skip, scanned = cursor.skip, 0
    if skip and not first:  # the page before ended in the middle of this tenant
        spot_node = top if not cursor.spot else (await _node_at(permit, cursor.spot, top))
        if spot_node is not None:
            found += (await _matching(permit, [spot_node], filters))[0][skip:]
    while scanned < SCANNED_MAX and len(found) <= cursor.size:
        some = await listing.page(permit.api.ledger, top, spot, TENANTS_AT_ONCE, deleted=filters.allow_deleted)
        matching = await _matching(permit, [each.node for each in some], filters)
        for listed, items in zip(some, matching, strict=True):
            if len(found) + len(items) > cursor.size:
                room = cursor.size - len(found)
                following = msgspec.structs.replace(cursor, spot=listed.spot, skip=room)
                return paging.answer(found + items[:room], now, following if room < len(items) else None)
            found += items
            spot = listed.spot
        if len(some) < TENANTS_AT_ONCE:
            return paging.answer(found, now, None)
        scanned += len(some)
    return paging.answer(found, now, msgspec.structs.replace(cursor, spot=spot or (), skip=0))


async def _node_at(permit: Permit, spot: listing.Spot, top: Node) -> Node | None:
    """The tenant where a page ended; None where it is out of the caller's reach now."""
    reached = await permit.reach_all([spot[-1]], deleted=True)
    return reached[0].node if reached and reached[0].node != top else None


async def _matching(permit: Permit, nodes: Sequence[Node], filters: Filters) -> list[list[dict[str, Any]]]:
    """The items of tenants that pass the filters, each tenant's in the order of the catalogue."""
    api = permit.api
    matching = []
    for node, own in zip(nodes, await queries.items_of(api.ledger, api.catalog, nodes), strict=True):
        since = filters.updated_since_seconds
        dead = node.tenant.deleted
        matching.append(
            [
                views.offering_item(api.catalog, item, node, own.states[item.name])
                for item in api.catalog.items.values()
                if item.name in own.states
                and (filters.usage_names is None or item.usage_name in filters.usage_names)
                and (filters.editions is None or item.edition is None or item.edition in filters.editions)
                and max(own.states[item.name].changed_ms, node.tenant.updated_ms if dead else 0) // 1000 >= since
            ]
        )
    return matching


@routes.get("/tenants/{tenant_id}/offering_items", response_model=OfferingItemList, summary="The items of a tenant")
async def fetch(
    permit: LookingAt,
    edition: EditionName = "standard",
    usage_names: Names = None,
    status: Annotated[Literal["0", "1"] | None, Query()] = None,
) -> Response:
    """What is on, and what the parent has on, the latter with status 0 and without a quota."""
    states = await _states(permit, permit.tenant)
    names = split(usage_names)
    return JSONResponse(
        {
            "items": [
                views.offering_item(permit.api.catalog, item, permit.tenant.node, state)
                for item, state in states
                if is_of(item, edition)
                and (names is None or item.usage_name in names)
                and (status is None or state.status == int(status))
            ]
        }
    )


async def _states(permit: Permit, tenant: Reached) -> list[tuple[Item, ItemState]]:
    """The items that a tenant has on or could turn on, in the order of the catalogue."""
    api = permit.api
    node = tenant.items_node
    above = ROOT_NODE if node is ROOT_NODE else _parent(node)
    own, parents = await queries.items_of(api.ledger, api.catalog, [node, above])
    return [
        (item, own.states.get(name, OFF))
        for name, item in api.catalog.items.items()
        if name in own.enabled or (name in parents.enabled and tenant.node == node)
    ]


def _parent(node: Node) -> Node:
    """Whose items a tenant can have; only its place matters, as it may be out of the caller's reach."""
    parent = node.tenant.parent_id
    return ROOT_NODE if parent == ROOT_NODE.tenant_id else Node(parent, node.shard, ROOT_TENANT)


@routes.get(
    "/tenants/{tenant_id}/offering_items/available_for_child",
    response_model=OfferingItemList,
    summary="The items that a child of the tenant can have",
)
async def fetch_available(
    permit: LookingAt,
    kind: Annotated[Literal["partner", "folder", "customer", "unit"] | None, Query()] = None,
    edition: EditionName = "standard",
    usage_names: Names = None,
) -> Response:
    """Sent back as they are, they are turned on."""
    node = permit.tenant.node
    if kind == "unit" or node.tenant.kind in ("customer", "unit"):
        return JSONResponse({"items": []})  # a unit uses its customer's
    (own,) = await queries.items_of(permit.api.ledger, permit.api.catalog, [node])
    names = split(usage_names)
    return JSONResponse(
        {
            "items": [
                views.offering_item(permit.api.catalog, item, node, ON)
                for item in permit.api.catalog.items.values()
                if item.name in own.enabled and is_of(item, edition) and (names is None or item.usage_name in names)
            ]
        }
    )


@routes.put("/tenants/{tenant_id}/offering_items", response_model=OfferingItemList, summary="Turn items on and off")
async def change(permit: Licensing, body: OfferingItemsRequest) -> Response:
    """Also sets quotas. It is judged by what the tenant has afterwards, and refused whole."""
    wanted = _by_name(permit, body.offering_items)
    try:
        data = OfferingItemsSet.model_validate(
            {"items": [_change(each) for each in wanted.values()], "cascade": not body.check_usage}
        )
    except ValidationError as error:
        raise malformed("The offering items cannot be set so.", reason=error.errors()[0]["msg"]) from None
    tenant = permit.tenant
    await permit.tell(tenant.id, SET, data, way=tenant.way)
    return JSONResponse({"items": await shown(permit, await tree.find(permit.api.ledger, tenant.id), wanted)})


async def shown(permit: Permit, node: Node, names: Iterable[str]) -> list[dict[str, Any]]:
    """Some items of a tenant as they are now."""
    (own,) = await queries.items_of(permit.api.ledger, permit.api.catalog, [node])
    catalog = permit.api.catalog
    return [views.offering_item(catalog, catalog.item(name), node, own.states.get(name, OFF)) for name in names]


def _by_name(permit: Permit, asked: Sequence[OfferingItemRequest]) -> Mapping[str, OfferingItemRequest]:
    """The items by their names, each of which says its application. Raises ``ApiError`` for one that does not exist."""
    wanted: dict[str, OfferingItemRequest] = {}
    missing = []
    for each in asked:
        item = permit.api.catalog.find_item(each.name)
        if item is None or each.application_id not in (None, item.application_id) or not _is_at(permit, item, each):
            missing.append(each.name)
        elif each.name in wanted:
            raise malformed("An offering item is named twice.", offering_item=each.name)
        wanted[each.name] = each
    if missing:
        context = {"offering_items": missing}
        raise ApiError(400, refusals.NOT_AVAILABLE, "There are no such offering items.", context)
    return wanted


def _is_at(permit: Permit, item: Item, asked: OfferingItemRequest) -> bool:
    """Whether the storage component that is named, if any, is the item's."""
    return asked.infra_id in (None, "", views.infra_id(permit.api.catalog, item))


def _change(asked: OfferingItemRequest) -> dict[str, Any]:
    change: dict[str, Any] = {"name": asked.name, "status": asked.status}
    if "quota" in asked.model_fields_set:
        quota = asked.quota
        change["quota"] = None if quota is None else {"value": quota.value, **quota.model_dump(exclude_unset=True)}
    return change


def split(names: str | None) -> list[str] | None:
    """The parts of a list that is separated by commas."""
    return None if names is None else [each.strip() for each in names.split(",") if each.strip()]


def is_of(item: Item, edition: str) -> bool:
    """Whether an item belongs to an edition; those of none belong to every one."""
    return edition == EVERY or item.edition is None or item.edition == edition
