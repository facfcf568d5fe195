"""Switches of customers between editions and billing modes: preview, switch, look, lead back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.responses import JSONResponse

from schemas.base import IDENTIFIER_LENGTH_MAX, Data
from schemas.switches import CYBER_PROTECTION, SwitchRequested, SwitchUndoRequested
from service.handlers import queries, switch_answers, switch_lookups, switch_previews
from service.handlers.switch_lookups import Found
from service.handlers.switch_previews import Wish
from service.http import refusals, views
from service.http.access import Permit, Reached, for_caller, on_tenant
from service.http.errors import ApiError
from service.http.repeats import Route
from service.http.scopes import Scope
from service.http.switch_shapes import EditionAnswer, EditionPreview, EditionRequest, Mode, Name, PackQuota, Switch
from service.records import ItemState
from service.rules.switch_plan import Options

REQUESTED = "apportion.switch.requested.v1"
UNDO_REQUESTED = "apportion.switch.undo_requested.v1"
ENDED = (switch_answers.COMPLETED, switch_answers.REJECTED, switch_answers.UNDONE, switch_answers.UNDO_REJECTED)
WAIT_SECONDS = 5.0  # then a switch goes on by itself
LOOK_SECONDS = 0.1  # between two looks at a switch that some other instance may be carrying out
OFF = ItemState(0)

routes = APIRouter(tags=["switches"], route_class=Route)

LookingAt = Annotated[Permit, Depends(on_tenant(Scope.VIEWER))]
Looking = Annotated[Permit, Depends(for_caller(Scope.VIEWER))]
Switching = Annotated[Permit, Depends(on_tenant(Scope.LICENSING_ADMIN, above="edition"))]
Undoing = Annotated[Permit, Depends(for_caller(Scope.LICENSING_ADMIN))]
SwitchId = Annotated[str, Path(max_length=IDENTIFIER_LENGTH_MAX, pattern=r"^[A-Za-z0-9._:-]+$")]
EDITION = "/api/2/tenants/{tenant_id}/edition"


@routes.get(EDITION, response_model=EditionPreview, summary="What a switch would do")
async def preview(
    permit: LookingAt,
    target_edition: Annotated[Name, Query(examples=["pck_per_workload"])],
    application_id: Annotated[Name, Query()] = CYBER_PROTECTION,
    mode: Mode = "strict",
    pack_quota: PackQuota = "all",
) -> Response:
    """The same computation as the switch. An error with the items in its context where the parent has them not on."""
    wish = Wish(application_id, target_edition, Options(mode, pack_quota))
    found = await switch_previews.preview(permit.api.engine, permit.tenant.id, wish)
    denials = refusals.shown_denials(found.shown["denials"], permit.tenant.way)
    if found.plan.direction is None or any(each["code"] == "offering_item_not_enabled" for each in denials):
        raise _refusal(found.shown["denials"], denials)
    plan = {**found.shown, "denials": denials}
    warnings = [each.code for each in found.plan.warnings]
    return JSONResponse({"warnings": warnings, "plan": plan, "plan_hash": found.plan.plan_hash})


@routes.put(
    EDITION,
    response_model=EditionAnswer,
    responses={202: {"model": EditionAnswer, "description": "It goes on: ask `/api/v1/switches/{switch_id}`"}},
    summary="Switch a customer",
)
async def switch(permit: Switching, body: EditionRequest) -> Response:
    """In full, or not at all (`strict`). With a `plan_hash`: exactly that plan, or an error with what has drifted."""
    switch_id = permit.new_id("switch")
    data = SwitchRequested(
        switch_id=switch_id,
        application=body.application_id,
        target_edition=body.target_edition,
        mode=body.mode,
        plan_hash=body.plan_hash,
        pack_quota=body.pack_quota,
    )
    found = await _carry_out(permit, permit.tenant, REQUESTED, data, switch_id)
    event = found.event or {"type": "", "data": {"items": [], "warnings": []}}
    if event["type"] == switch_answers.REJECTED:
        raise _rejected(event["data"], permit.tenant)
    answer = {
        "items": await _items(permit, [each["offering_item"] for each in event["data"]["items"]]),
        "warnings": [each["code"] for each in event["data"]["warnings"]],
        "switch_id": switch_id,
        "state": found.switch.state,
    }
    return JSONResponse(answer, 202 if found.under_way else 200)


@routes.get("/api/v1/switches/{switch_id}", response_model=Switch, summary="A switch")
async def fetch(permit: Looking, switch_id: SwitchId) -> Response:
    """What was said of it last. It is remembered for as long as it can be undone."""
    tenant, found = await _find(permit, switch_id)
    return JSONResponse(_shown(switch_id, tenant, found))


@routes.post(
    "/api/v1/switches/{switch_id}/undo",
    response_model=Switch,
    responses={202: {"model": Switch, "description": "It goes on: ask again"}},
    summary="Lead a switch back",
)
async def undo(permit: Undoing, switch_id: SwitchId) -> Response:
    """Items, quotas and assignments as they were before it; `drift` has what could not be restored."""
    tenant, _ = await _find(permit, switch_id)
    permit.refuse_own(tenant, "edition")
    data = SwitchUndoRequested(switch_id=switch_id)
    found = await _carry_out(permit, tenant, UNDO_REQUESTED, data, switch_id)
    if found.event is not None and found.event["type"] == switch_answers.UNDO_REJECTED:
        raise _rejected(found.event["data"], tenant)
    return JSONResponse(_shown(switch_id, tenant, found), 202 if found.under_way else 200)


async def _find(permit: Permit, switch_id: str) -> tuple[Reached, Found]:
    """A switch of a tenant in reach. Raises ``ApiError`` (404) for any other, as for one that does not exist."""
    missing = ApiError(404, "404", "There is no such switch.")
    try:
        found = await switch_lookups.find(permit.api.ledger, switch_id)
    except switch_lookups.SwitchNotFoundError:
        raise missing from None
    reached = await permit.reach_all([found.tenant_id], deleted=True)
    if not reached:
        raise missing
    return reached[0], found


async def _carry_out(permit: Permit, tenant: Reached, type_: str, data: Data, switch_id: str) -> Found:
    """Ask for it, and wait a while for its end."""
    await permit.tell(tenant.id, type_, data, way=tenant.way)
    loop = asyncio.get_running_loop()
    end = loop.time() + WAIT_SECONDS
    while True:
        found = await switch_lookups.of_tenant(permit.api.ledger, tenant.id, switch_id)
        if not found.under_way or loop.time() >= end:
            return found
        await asyncio.sleep(LOOK_SECONDS)  # who carries it out may be another instance: there is no event to await


async def _items(permit: Permit, names: Sequence[str]) -> list[dict[str, Any]]:
    """Items of the tenant as they are now."""
    catalog, node = permit.api.catalog, permit.tenant.node
    (own,) = await queries.items_of(permit.api.ledger, catalog, [permit.tenant.items_node])
    found = [item for name in dict.fromkeys(names) if (item := catalog.find_item(name)) is not None]
    return [views.offering_item(catalog, item, node, own.states.get(item.name, OFF)) for item in found]


def _shown(switch_id: str, tenant: Reached, found: Found) -> dict[str, Any]:
    return {
        "switch_id": switch_id,
        "tenant_id": tenant.id,
        "state": found.switch.state,
        "under_way": found.under_way,
        "type": found.event and found.event["type"],
        "data": found.event and shown_data(found.event["data"], tenant),
    }


def shown_data(data: Mapping[str, Any], tenant: Reached) -> dict[str, Any]:
    """The data of an announcement of a switch, for somebody who reaches its tenant."""
    if not data.get("denials"):
        return dict(data)
    return {**data, "denials": refusals.shown_denials(data["denials"], tenant.way)}


def _rejected(data: Mapping[str, Any], tenant: Reached) -> ApiError:
    """The error that a rejected switch is."""
    if data.get("drift"):
        message = "The plan is not what it was; preview it again."
        return ApiError(409, refusals.MISMATCH, message, {"drift": data["drift"], "plan_hash": data["plan_hash"]})
    denials = data.get("denials") or []
    return _refusal(denials, refusals.shown_denials(denials, tenant.way))


_CODES = {"offering_item_not_enabled": refusals.NOT_AVAILABLE, "quota_exceeded": refusals.QUOTA}


def _refusal(denials: Sequence[Mapping[str, Any]], shown: Sequence[Mapping[str, Any]]) -> ApiError:
    """What stands in the way, as an error with the code of the first of it; ``items`` are those that are not on."""
    first: Mapping[str, Any] = denials[0] if denials else {}
    code = _CODES.get(str(first.get("code"))) or str((first.get("context") or {}).get("code") or refusals.RULE)
    items = [each["offering_item"] for each in denials if each["code"] == "offering_item_not_enabled"]
    context = {"items": items, "denials": [msgspec.to_builtins(each) for each in shown]}
    message = refusals.sentence(str(shown[0]["message"])) if shown else "The switch is refused."
    return ApiError(refusals.status_of(code), code, message, context)
