"""Reservations over HTTP: the commands of `reservation-commands`, answered at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.responses import JSONResponse

from schemas import reservations as commands
from schemas.base import IDENTIFIER_LENGTH_MAX, Data
from service.handlers import announcements, queries
from service.handlers.announcements import Said
from service.http import paging, refusals
from service.http.access import Permit, malformed, on_tenant
from service.http.errors import ApiError
from service.http.own_shapes import (
    Commitment,
    Reservation,
    ReservationCommit,
    ReservationExtension,
    ReservationPage,
    ReservationRequest,
)
from service.http.paging import SIZE_MAX, After, Cursor, Limit
from service.http.repeats import Route
from service.http.scopes import Scope

PREFIX = "apportion.reservation."
STATES = {
    announcements.RESERVATION_GRANTED: "granted",
    announcements.RESERVATION_DENIED: "denied",
    announcements.RESERVATION_COMMITTED: "committed",
    announcements.RESERVATION_RELEASED: "released",
}

routes = APIRouter(prefix="/api/v1", tags=["reservations"], route_class=Route)

LookingAt = Annotated[Permit, Depends(on_tenant(Scope.VIEWER))]
Reserving = Annotated[Permit, Depends(on_tenant(Scope.USAGE_REPORTER))]
ReservationId = Annotated[str, Path(max_length=IDENTIFIER_LENGTH_MAX, pattern=r"^[A-Za-z0-9._:-]+$")]
ONE = "/tenants/{tenant_id}/reservations/{reservation_id}"


@routes.post(
    "/tenants/{tenant_id}/reservations",
    response_model=Reservation,
    status_code=201,
    responses={200: {"model": Reservation, "description": "Denied, or only looked at"}},
    summary="Set units aside",
)
async def reserve(permit: Reserving, body: ReservationRequest) -> Response:
    """All of them or none. A refusal is an answer too: `state` is `denied`, and `denials` name all that stood in the
    way. Reserving again with the same id and content answers with the first outcome."""
    reservation_id = body.reservation_id or permit.new_id("reservation")
    command = commands.ReservationReserve.model_validate(
        {"reservation_id": reservation_id, **body.model_dump(exclude={"reservation_id"})}
    )
    # What changes nothing may be decided anew at each repeat: there is nothing to read its first outcome from.
    part = permit.request_id if body.mode == "check_only" else ""
    shown, _ = await _tell(permit, "reserve", reservation_id, command, part)
    made = shown["state"] == "granted" and shown["mode"] != "check_only"
    return JSONResponse(shown, 201 if made else 200)


@routes.get("/tenants/{tenant_id}/reservations", response_model=ReservationPage, summary="The reservations of a tenant")
async def fetch_many(
    permit: LookingAt,
    ended: Annotated[bool, Query(description="Also those that have ended within the last day.")] = False,
    limit: Limit = paging.SIZE,
    after: After = None,
) -> Response:
    """In no particular order, about `limit` on a page; a page may be short, or empty, though another one follows."""
    cursor = paging.read(after) if after else Cursor({"ended": ended}, min(limit, SIZE_MAX), ())
    if set(cursor.filters) != {"ended"}:
        raise malformed("The cursor is not one of ours.")
    tenant = permit.tenant
    found, position = await queries.reservation_page(
        permit.api.ledger, tenant.node, cursor.skip, cursor.size, ended=bool(cursor.filters["ended"])
    )
    following = msgspec.structs.replace(cursor, skip=position) if position else None
    shown = [_shown_row(permit, row) for row in found]
    return JSONResponse({"tenant_id": tenant.id, "reservations": shown, "paging": paging.links(following)})


@routes.get(ONE, response_model=Reservation, summary="One reservation")
async def fetch(permit: LookingAt, reservation_id: ReservationId) -> Response:
    """One that has ended is known for a day."""
    return JSONResponse(_shown_row(permit, await _find(permit, reservation_id)))


@routes.put(ONE, response_model=Reservation, summary="Let a reservation last longer")
async def extend(permit: Reserving, reservation_id: ReservationId, body: ReservationExtension) -> Response:
    """So many seconds from now. One that has ended, or is not known, is denied."""
    command = commands.ReservationExtend(reservation_id=reservation_id, ttl_seconds=body.ttl_seconds)
    return JSONResponse((await _tell(permit, "extend", reservation_id, command))[0])


@routes.post(f"{ONE}/commit", response_model=Commitment, summary="Give the units to a workload")
async def commit(permit: Reserving, reservation_id: ReservationId, body: ReservationCommit) -> Response:
    """They become its assignment; what it does not need is released. Denied where the reservation has ended or is not
    known, or the workload is not registered."""
    command = commands.ReservationCommit(reservation_id=reservation_id, workload_id=body.workload_id)
    shown, said = await _tell(permit, "commit", reservation_id, command)
    for each in said:
        if each.type == announcements.ASSIGNMENT_CHANGED and each.subject == body.workload_id:
            shown |= {name: each.data[name] for name in ("holding", "uncovered_features")}
    return JSONResponse(shown)


@routes.delete(ONE, status_code=204, summary="Release a reservation")
async def release(permit: Reserving, reservation_id: ReservationId) -> Response:
    """Its units are free again. Of one that has ended already, nothing changes."""
    await _find(permit, reservation_id)
    command = commands.ReservationRelease(reservation_id=reservation_id)
    await permit.tell(permit.tenant.id, f"{PREFIX}release.v1", command, way=permit.tenant.way)
    return Response(status_code=204)


Told = tuple[dict[str, Any], tuple[Said, ...]]


async def _tell(permit: Permit, verb: str, reservation_id: str, command: Data, part: str = "") -> Told:
    """Carry a command out; the reservation afterwards, and everything that was announced."""
    result = await permit.tell(permit.tenant.id, f"{PREFIX}{verb}.v1", command, way=permit.tenant.way, part=part)
    answer = next((said for said in result.said if said.type in STATES and said.subject == reservation_id), None)
    if answer is None:  # it was decided before, under the same key
        return _shown_row(permit, await _find(permit, reservation_id)), ()
    return _shown(permit, {"state": STATES[answer.type], **answer.data}), result.said


async def _find(permit: Permit, reservation_id: str) -> queries.ReservationRow:
    found = await queries.reservation(permit.api.ledger, permit.tenant.node, reservation_id)
    if found is None:
        raise ApiError(404, "404", "The tenant has no such reservation.")
    return found


def _shown_row(permit: Permit, row: queries.ReservationRow) -> dict[str, Any]:
    return _shown(permit, msgspec.to_builtins(row))


def _shown(permit: Permit, data: Mapping[str, Any]) -> dict[str, Any]:
    denials = refusals.shown_denials(data.get("denials") or (), permit.tenant.way)
    return {"expires_at": None, **data, "denials": denials}
