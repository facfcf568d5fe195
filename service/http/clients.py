"""API clients: programs that sign in for a tenant."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.responses import JSONResponse

from service.handlers import clients
from service.http import credentials, refusals, scopes, views
from service.http.access import Permit, Reached, for_caller, malformed
from service.http.errors import ApiError
from service.http.repeats import Route
from service.http.scopes import Scope
from service.http.shapes import Client, ClientList, ClientRequest, Id
from service.records import ApiClient

SEED = "client-secrets"  # the name of what secrets of repeated questions are made from

routes = APIRouter(prefix="/api/2", tags=["clients"], route_class=Route)

Looking = Annotated[Permit, Depends(for_caller(Scope.VIEWER))]
Changing = Annotated[Permit, Depends(for_caller(Scope.TENANT_ADMIN))]
ClientId = Annotated[str, Path(max_length=64)]


@routes.get("/clients", response_model=ClientList, summary="The API clients of a tenant")
async def fetch_many(permit: Looking, tenant_id: Annotated[Id | None, Query()] = None) -> Response:
    """Of the caller's own tenant, where none is named."""
    tenant = await permit.reach(tenant_id or permit.caller.tenant_id)
    found = await clients.of_tenant(permit.api.ledger, tenant.node)
    return JSONResponse({"items": [views.client(name, known) for name, known in sorted(found.items())]})


@routes.get("/clients/{client_id}", response_model=Client, summary="One API client")
async def fetch(permit: Looking, client_id: ClientId) -> Response:
    """Without its secret, which nobody has."""
    _, known = await _find(permit, client_id)
    return JSONResponse(views.client(client_id, known))


@routes.post("/clients", response_model=Client, status_code=201, summary="Make an API client")
async def create(permit: Changing, body: ClientRequest) -> Response:
    """The secret is in this answer only."""
    tenant = await permit.reach(body.tenant_id)
    granted = _granted(permit, body)
    client_id = permit.new_id("client")
    permit.keep_no_answer()
    secret = await _secret(permit, client_id)
    known = ApiClient(
        tenant_id=tenant.id,
        type=body.type,
        scopes=granted,
        secret_hash=await credentials.hash_of(secret),
        created_ms=permit.api.engine.clock(),
        created_by=permit.caller.id,
        data=body.data,
    )
    if not await clients.create(permit.api.ledger, tenant.node, client_id, known, permit.api.engine.clock()):
        known = await clients.find(permit.api.ledger, client_id) or known  # asked before, with the same key
    return JSONResponse({**views.client(client_id, known), "client_secret": secret}, 201)


@routes.delete("/clients/{client_id}", status_code=204, summary="Delete an API client")
async def delete(permit: Changing, client_id: ClientId) -> Response:
    """Its tokens are worth nothing from now on."""
    tenant, _ = await _find(permit, client_id)
    await clients.delete(permit.api.ledger, tenant.node, client_id, permit.api.engine.clock())
    return Response(status_code=204)


async def _find(permit: Permit, client_id: str) -> tuple[Reached, ApiClient]:
    """A client of a tenant in reach. Raises ``ApiError`` (404) for any other, and for one that does not exist."""
    known = await clients.find(permit.api.ledger, client_id)
    try:
        return await permit.reach(known.tenant_id if known else "", deleted=True), _there(known)
    except ApiError:
        raise ApiError(404, refusals.NOT_FOUND, "There is no such client.") from None


def _there(known: ApiClient | None) -> ApiClient:
    if known is None:
        raise refusals.not_found()
    return known


def _granted(permit: Permit, body: ClientRequest) -> tuple[str, ...]:
    """The scopes of a new client: never more than those of whoever makes it."""
    own = permit.caller.scopes
    usual = scopes.AGENT if body.type == "agent" else scopes.ALL
    wanted: Any = [scope for scope in usual if scope in own] if body.scopes is None else body.scopes
    unknown = sorted(set(wanted) - set(scopes.ALL))
    if unknown or not wanted:
        raise malformed("There are other scopes.", unknown=unknown, scopes=list(scopes.ALL))
    if not all(scopes.permits(own, Scope(scope)) for scope in wanted):
        raise refusals.denied("A client cannot be given a scope that its maker does not have.")
    return tuple(dict.fromkeys(wanted))


async def _secret(permit: Permit, client_id: str) -> str:
    """A new secret; the same one for a question that is asked again with its key, as it is kept nowhere."""
    if permit.question is None:
        return credentials.make()
    api = permit.api
    seed = await clients.shared_secret(api.ledger, SEED, lambda: credentials.make().encode(), api.engine.clock())
    return credentials.make(seed, f"{client_id}/{permit.question.digest}")
