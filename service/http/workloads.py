"""Workloads: what each holds, what it waits for and why; and the features that a tenant has for them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Response
from fastapi.responses import JSONResponse

from schemas.base import IDENTIFIER_LENGTH_MAX
from service.handlers import queries
from service.http import paging, refusals
from service.http.access import Permit, malformed, on_tenant
from service.http.errors import ApiError
from service.http.own_shapes import Features, Workload, WorkloadPage
from service.http.paging import SIZE_MAX, After, Cursor, Limit
from service.http.repeats import Route
from service.http.scopes import Scope
from service.rules import assignment

KIND = {"list": "workloads"}

routes = APIRouter(prefix="/api/v1", tags=["workloads"], route_class=Route)

LookingAt = Annotated[Permit, Depends(on_tenant(Scope.VIEWER))]
WorkloadId = Annotated[str, Path(max_length=IDENTIFIER_LENGTH_MAX)]


@routes.get("/tenants/{tenant_id}/workloads", response_model=WorkloadPage, summary="The workloads of a tenant")
async def fetch_many(permit: LookingAt, limit: Limit = paging.SIZE, after: After = None) -> Response:
    """By id, with what each holds, what it waits for and why. Those of its units are theirs."""
    cursor = paging.read(after) if after else Cursor(KIND, min(limit, SIZE_MAX), ("",))
    if cursor.filters != KIND or len(cursor.spot) != 1:
        raise malformed("The cursor is not one of ours.")
    node = permit.tenant.node
    found, is_last = await queries.workload_page(permit.api.ledger, node, cursor.spot[0], cursor.size)
    following = None if is_last else msgspec.structs.replace(cursor, spot=(found[-1].workload_id,))
    shown = [_shown(permit, row) for row in found]
    return JSONResponse({"tenant_id": node.tenant_id, "workloads": shown, "paging": paging.links(following)})


@routes.get("/tenants/{tenant_id}/workloads/{workload_id}", response_model=Workload, summary="One workload")
async def fetch(permit: LookingAt, workload_id: WorkloadId) -> Response:
    """What it holds, what it waits for and why."""
    try:
        row = await queries.workload(permit.api.ledger, permit.tenant.id, workload_id)
    except queries.WorkloadNotFoundError:
        raise ApiError(404, "404", "The tenant has no such workload.") from None
    return JSONResponse(_shown(permit, row))


def _shown(permit: Permit, row: queries.WorkloadRow) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(row)
    shown["denials"] = refusals.shown_denials(row.denials, permit.tenant.way)
    return shown


@routes.get("/tenants/{tenant_id}/features", response_model=Features, summary="The features that a tenant has")
async def fetch_features(permit: LookingAt) -> Response:
    """Those of the tenant as a whole, and by workload type those that its enabled items carry. A unit has its
    customer's."""
    api = permit.api
    (own,) = await queries.items_of(api.ledger, api.catalog, [permit.tenant.items_node])
    tenant_wide, by_type = assignment.available_features(api.catalog, own.enabled)
    return JSONResponse({"tenant_id": permit.tenant.id, "tenant_wide": tenant_wide, "workload_types": by_type})
