"""What tenants use, and gauges that are reported for a tenant as a whole."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse

from schemas.base import QUANTITY_MAX
from schemas.workloads import Usage, WorkloadRegistered, WorkloadUsageReported
from service.catalog import Catalog
from service.handlers import queries
from service.http import errors, refusals, views
from service.http.access import Permit, Reached, for_caller, malformed, on_tenant
from service.http.errors import ApiError
from service.http.offering_items import EVERY, Names, split
from service.http.repeats import Route
from service.http.scopes import Scope
from service.http.shapes import TenantUsagesList, UsageList, UsageReport, UsageReportAnswer

TENANTS_MAX = 1000
REGISTERED = "apportion.workload.registered.v1"
REPORTED = "apportion.workload.usage_reported.v1"
TYPE = "tenant_gauges"  # of the workload that stands for a tenant as a whole; no item is for it, so it holds nothing

routes = APIRouter(prefix="/api/2", tags=["usages"], route_class=Route)

Looking = Annotated[Permit, Depends(for_caller(Scope.VIEWER))]
LookingAt = Annotated[Permit, Depends(on_tenant(Scope.VIEWER))]
Reporting = Annotated[Permit, Depends(for_caller(Scope.USAGE_REPORTER))]
Edition = Annotated[str, Query(description=f"`{EVERY}`, the default, for all.")]


@routes.get("/tenants/usages", response_model=TenantUsagesList, summary="What several tenants use")
async def fetch_many(
    permit: Looking,
    tenants: Annotated[str | None, Query(description="Ids, separated by commas.")] = None,
    usage_names: Names = None,
    edition: Edition = EVERY,
) -> Response:
    """Tenants that the caller does not reach are left out. Without any: the caller's own."""
    wanted = split(tenants) or [permit.caller.tenant_id]
    if len(wanted) > TENANTS_MAX:
        raise malformed(f"At most {TENANTS_MAX} tenants can be asked for at once.")
    reached = await permit.reach_all(wanted)
    found = await _usages(permit, reached, split(usage_names), edition)
    return JSONResponse({"items": [{"tenant": name, "usages": usages} for name, usages in found]})


@routes.get("/tenants/{tenant_id}/usages", response_model=UsageList, summary="What a tenant and those below it use")
async def fetch(permit: LookingAt, usage_names: Names = None, edition: Edition = EVERY) -> Response:
    """Of every item that is on or in use."""
    ((_, usages),) = await _usages(permit, [permit.tenant], split(usage_names), edition)
    return JSONResponse({"items": usages})


async def _usages(
    permit: Permit, tenants: list[Reached], names: list[str] | None, edition: str
) -> list[tuple[str, list[dict[str, Any]]]]:
    api, now_ms = permit.api, permit.api.engine.clock()
    pairs = [(each.node, each.items_node) for each in tenants]
    return [
        (
            found.tenant_id,
            [
                views.usage(api.catalog, found.tenant_id, row, now_ms)
                for row in found.items
                if (names is None or row.usage_name in names) and edition in (EVERY, row.edition)
            ],
        )
        for found in await queries.usages(api.ledger, api.catalog, pairs)
    ]


@routes.put("/tenants/usages", response_model=UsageReportAnswer, summary="Report gauges of tenants as a whole")
async def report(permit: Reporting, body: UsageReport) -> Response:
    """One answer for each entry, with ``error`` only where it was refused.

    An entry names its tenant (``tenant_uuid`` or ``tenant_id``), what is measured (``name``, ``offering_item``,
    ``usage_name`` or ``usage_type``) and its absolute ``value``. It is kept as a workload of the reporter's own.
    """
    entries = body.items
    ids = [_tenant_of(entry) for entry in entries]
    reached = {each.id: each for each in await permit.reach_all(name for name in ids if name)}
    tellers = [_teller(permit, entry, reached.get(name or "")) for entry, name in zip(entries, ids, strict=True)]
    answers = await asyncio.gather(*(_told(tell, str(number)) for number, tell in enumerate(tellers)))
    return JSONResponse({"items": [_repeated(entry) | answer for entry, answer in zip(entries, answers, strict=True)]})


Told = Callable[[str], Awaitable[object]]


def _teller(permit: Permit, entry: Any, tenant: Reached | None) -> Told | ApiError:
    """What it takes to report one gauge, or why it cannot be reported."""
    if tenant is None:
        return refusals.not_found()
    try:
        gauge = _gauge_of(permit.api.catalog, entry)
        usage = Usage.model_validate({gauge: _value_of(entry)})
    except ApiError as error:
        return error
    who = f"reported:{hashlib.blake2b(permit.caller.id.encode(), digest_size=16).hexdigest()}"

    async def tell(part: str) -> None:
        registered = WorkloadRegistered(workload_id=who, type=TYPE, name="reported for the tenant as a whole")
        await permit.tell(tenant.id, REGISTERED, registered, way=tenant.way, part=f"{part}/registered")
        data = WorkloadUsageReported(workload_id=who, usage=usage)
        await permit.tell(tenant.id, REPORTED, data, way=tenant.way, part=part)

    return tell


async def _told(tell: Told | ApiError, part: str) -> dict[str, Any]:
    """What is to be added to the answer for an entry: its error, if there is one."""
    try:
        if isinstance(tell, ApiError):
            raise tell
        await tell(part)
    except ApiError as error:
        return errors.body(error.code, error.message, error.context)
    return {}


def _repeated(entry: Any) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != "error"} if isinstance(entry, dict) else {}


def _tenant_of(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return None
    name = entry.get("tenant_uuid") or entry.get("tenant_id") or entry.get("tenant")
    return name if isinstance(name, str) else None


def _gauge_of(catalog: Catalog, entry: dict[str, Any]) -> str:
    """Which gauge an entry is about. Raises ``ApiError`` where that is not something that is reported."""
    named = entry.get("name") or entry.get("offering_item") or entry.get("usage_name") or entry.get("usage_type")
    if isinstance(named, dict):
        named = named.get("name") or named.get("usage_name")
    for item in catalog.items.values():
        if item.gauge is not None and named in (item.name, item.usage_name):
            return item.gauge
    raise ApiError(400, refusals.NOT_AVAILABLE, "There is no such item, or it is not measured in bytes.")


def _value_of(entry: dict[str, Any]) -> int:
    value = next((entry[name] for name in ("value", "absolute_value", "usage_value") if name in entry), None)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= QUANTITY_MAX:
        raise malformed("A value is a whole number of bytes.")
    return value
