"""Why an offering item is short: what limits it, who holds it, who waits for it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse

from schemas.base import CATALOG_NAME_LENGTH_MAX, NO_CONTROL_CHARACTERS
from service.handlers import queries
from service.http import refusals
from service.http.access import Permit, on_tenant
from service.http.errors import ApiError
from service.http.own_shapes import Explanation
from service.http.repeats import Route
from service.http.scopes import Scope

routes = APIRouter(prefix="/api/v1", tags=["explanations"], route_class=Route)

LookingAt = Annotated[Permit, Depends(on_tenant(Scope.VIEWER))]
ItemName = Annotated[
    str,
    Query(
        min_length=1,
        max_length=CATALOG_NAME_LENGTH_MAX,
        pattern=NO_CONTROL_CHARACTERS,
        examples=["pw_base_workstations"],
    ),
]


@routes.get("/tenants/{tenant_id}/explain", response_model=Explanation, summary="Why an item is short")
async def explain(permit: LookingAt, offering_item: ItemName) -> Response:
    """Usage, reserved units and limit on every level up to the caller's own tenant, the largest holders, who waits."""
    api, top = permit.api, permit.caller.tenant_id
    try:
        found = await queries.explain(api.ledger, api.catalog, permit.tenant.id, offering_item, top)
    except queries.ItemNotFoundError as error:
        raise ApiError(400, refusals.NOT_AVAILABLE, str(error)) from None
    return JSONResponse(msgspec.to_builtins(found))
