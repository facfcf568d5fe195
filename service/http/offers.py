"""What there is to be had: applications, editions, storage components; and the little there is of users."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse

from schemas.offering_items import OfferingItemsSet
from service.catalog.model import Application, Infrastructure
from service.handlers import queries
from service.handlers.announcements import rfc3339
from service.http import paging
from service.http.access import Permit, TenantId, for_caller, on_tenant
from service.http.errors import ApiError
from service.http.offering_items import SET, split
from service.http.repeats import Route
from service.http.scopes import Scope
from service.http.shapes import ApplicationList, Binding, IdList, InfrastructureList, User, UserPage

PLATFORM = "platform"  # the type of the application that every tenant has

routes = APIRouter(prefix="/api/2", tags=["offers"], route_class=Route)

Looking = Annotated[Permit, Depends(for_caller(Scope.VIEWER))]
LookingAt = Annotated[Permit, Depends(on_tenant(Scope.VIEWER))]
Licensing = Annotated[Permit, Depends(on_tenant(Scope.LICENSING_ADMIN, above="applications"))]


@routes.get("/applications", response_model=ApplicationList, summary="The applications")
async def fetch_applications(permit: Looking) -> Response:
    """Those of the catalogue, the platform itself among them."""
    found = [_application(permit, each) for each in permit.api.catalog.applications.values()]
    return JSONResponse({"items": found})


def _application(permit: Permit, application: Application) -> dict[str, Any]:
    items = permit.api.catalog.items_of_application(application.id)
    return {
        "id": application.id,
        "name": application.name,
        "type": application.type,
        "api_base_url": "",
        "usages": list(dict.fromkeys(item.usage_name for item in items)),
    }


@routes.get("/tenants/{tenant_id}/applications", response_model=IdList, summary="The applications of a tenant")
async def fetch_tenant_applications(permit: LookingAt) -> Response:
    """The platform itself, and those of which an item is on."""
    catalog = permit.api.catalog
    (own,) = await queries.items_of(permit.api.ledger, catalog, [permit.tenant.items_node])
    on = {item.application_id for name in own.enabled if (item := catalog.find_item(name))}
    had = [name for name, known in catalog.applications.items() if name in on or known.type == PLATFORM]
    return JSONResponse({"items": had})


@routes.get(
    "/applications/{application_id}/bindings/tenants/{tenant_id}",
    response_model=Binding,
    summary="Whether a tenant has an application",
)
async def fetch_binding(permit: LookingAt, application_id: str, tenant_id: TenantId) -> Response:
    """It has it while one of its items is on."""
    names = await _items_on(permit, application_id)
    if not names and permit.api.catalog.applications[application_id].type != PLATFORM:
        raise _no_application()
    return JSONResponse({"application_id": application_id, "tenant_id": tenant_id})


@routes.post(
    "/applications/{application_id}/bindings/tenants/{tenant_id}",
    status_code=204,
    summary="Give a tenant an application",
)
async def bind(permit: Licensing, application_id: str) -> Response:
    """Nothing is turned on by that: offering items are. Again is fine."""
    await _items_on(permit, application_id)
    return Response(status_code=204)


@routes.delete(
    "/applications/{application_id}/bindings/tenants/{tenant_id}",
    status_code=204,
    summary="Take an application from a tenant",
)
async def unbind(permit: Licensing, application_id: str) -> Response:
    """Every item of it is turned off; refused while one is in use."""
    names = await _items_on(permit, application_id)
    if names:
        data = OfferingItemsSet.model_validate({"items": [{"name": name, "status": 0} for name in names]})
        await permit.tell(permit.tenant.id, SET, data, way=permit.tenant.way)
    return Response(status_code=204)


async def _items_on(permit: Permit, application_id: str) -> list[str]:
    """The items of an application that the tenant has on. Raises ``ApiError`` where there is no such application."""
    catalog = permit.api.catalog
    if application_id not in catalog.applications:
        raise _no_application()
    (own,) = await queries.items_of(permit.api.ledger, catalog, [permit.tenant.items_node])
    return [item.name for item in catalog.items_of_application(application_id) if item.name in own.enabled]


def _no_application() -> ApiError:
    return ApiError(404, "404", "There is no such application.")


@routes.get("/editions", response_model=IdList, summary="The editions and billing modes")
async def fetch_editions(permit: Looking) -> Response:
    """By their names."""
    return JSONResponse({"items": list(permit.api.catalog.editions)})


@routes.get("/infra", response_model=InfrastructureList, summary="The storage components")
async def fetch_infrastructures(
    permit: Looking, uuids: Annotated[str | None, Query(description="Separated by commas.")] = None
) -> Response:
    """Of those ids; none for ids that are not known."""
    wanted = split(uuids) or []
    found = [each for each in permit.api.catalog.infrastructures.values() if each.id in wanted]
    return JSONResponse({"items": [_infrastructure(each) for each in found]})


def _infrastructure(known: Infrastructure) -> dict[str, Any]:
    return {
        "id": known.id,
        "name": known.name,
        "capabilities": list(known.capabilities),
        "backend_type": known.backend_type,
        "platform_owned": known.platform_owned,
    }


@routes.get("/users/me", response_model=User, summary="Who asks")
async def fetch_me(permit: Looking) -> Response:
    """An API client, as a user of its tenant."""
    caller = permit.caller
    return JSONResponse(
        {
            "id": caller.id,
            "tenant_id": caller.tenant_id,
            "login": caller.id,
            "enabled": True,
            "scopes": sorted(caller.scopes),
        }
    )


@routes.get("/users", response_model=UserPage, summary="The users of a subtree")
async def fetch_users(permit: Looking, subtree_root_tenant_id: str | None = None) -> Response:
    """There are none: people sign in elsewhere."""
    if subtree_root_tenant_id is not None:
        await permit.reach(subtree_root_tenant_id)
    return JSONResponse(paging.answer([], rfc3339(permit.api.engine.clock()), None))
