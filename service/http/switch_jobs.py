"""Jobs of switches: many customers, each switched by a task of its own.

A job belongs to the tenant of the caller who made it: whoever reaches that tenant reaches the job.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Response
from fastapi.responses import JSONResponse

from schemas.base import IDENTIFIER_LENGTH_MAX
from schemas.switches import SwitchRequested
from service.handlers import mass_switch_control as control
from service.handlers import mass_switch_reports as reports
from service.handlers import switch_previews
from service.handlers.announcements import rfc3339
from service.handlers.mass_switches import MassSwitch, Selection
from service.handlers.switch_previews import SelectionPreview, Wish
from service.http import paging, refusals, switches
from service.http.access import Permit, Reached, for_caller, malformed
from service.http.errors import ApiError
from service.http.paging import SIZE_MAX, After, Cursor, Limit
from service.http.repeats import Route
from service.http.scopes import Scope
from service.http.switch_shapes import Job, JobPage, JobPreview, JobRequest, JobResults
from service.rules.switch_plan import Options

if TYPE_CHECKING:
    from service.handlers.engine import Engine

JOBS, RESULTS = {"list": "switch-jobs"}, {"list": "results"}
ANY_ID = "job"  # of a request that is never sent as it is

routes = APIRouter(prefix="/api/v1/switch-jobs", tags=["switch jobs"], route_class=Route)

Looking = Annotated[Permit, Depends(for_caller(Scope.VIEWER))]
Switching = Annotated[Permit, Depends(for_caller(Scope.LICENSING_ADMIN))]
JobId = Annotated[str, Path(max_length=IDENTIFIER_LENGTH_MAX, pattern=r"^[A-Za-z0-9._:-]+$")]


@routes.post("", response_model=Job, status_code=201, summary="Switch many customers")
async def create(permit: Switching, body: JobRequest) -> Response:
    """Every customer of the selection has to be below the caller's own tenant. One that cannot be switched never stops
    the others."""
    selection = await _selection(permit, body)
    job_id = permit.new_id("job")
    order = control.Order(job_id, _request(body), selection, body.rate, permit.caller.tenant_id)
    try:
        await control.create(permit.api.engine, order)
    except control.JobStateError as error:
        raise ApiError(409, "409", str(error)) from None
    return JSONResponse(await _shown(permit, job_id), 201)


@routes.get("", response_model=JobPage, summary="The jobs of switches")
async def fetch_many(permit: Looking, limit: Limit = paging.SIZE, after: After = None) -> Response:
    """Those of the caller's own tenant and those below it, the newest first."""
    cursor = paging.read(after) if after else Cursor(JOBS, min(limit, SIZE_MAX), ())
    if cursor.filters != JOBS:
        raise malformed("The cursor is not one of ours.")
    jobs = await reports.all_jobs(permit.api.ledger)
    owners = {each.id for each in await permit.reach_all((job.owner for job in jobs), deleted=True)}
    mine = [job for job in jobs if job.owner in owners]
    behind = next((n + 1 for n, job in enumerate(mine) if (job.job_id,) == cursor.spot), 0)
    some = mine[behind : behind + cursor.size]
    is_last = behind + cursor.size >= len(mine)
    following = None if is_last else msgspec.structs.replace(cursor, spot=(some[-1].job_id,))
    return JSONResponse({"items": [_in_list(job) for job in some], "paging": paging.links(following)})


@routes.post("/preview", response_model=JobPreview, summary="What a job would do")
async def preview_new(permit: Switching, body: JobRequest) -> Response:
    """For the whole selection, without making a job. Customers below one tenant share its quota: each is looked at as
    if those before it had been switched."""
    return await _preview(permit, await _selection(permit, body), _request(body))


@routes.get("/{job_id}", response_model=Job, summary="A job of switches")
async def fetch(permit: Looking, job_id: JobId) -> Response:
    """With counts of what has become of its tenants."""
    await _find(permit, job_id)
    return JSONResponse(await _shown(permit, job_id))


@routes.get("/{job_id}/preview", response_model=JobPreview, summary="What a job would do now")
async def preview(permit: Looking, job_id: JobId) -> Response:
    """For all of its tenants that are in the caller's reach, as they are now."""
    job = await _find(permit, job_id)
    names = [outcome.tenant_id async for outcome in reports.all_results(permit.api.ledger, job_id)]
    reached = await permit.reach_all(names)
    request = SwitchRequested.model_validate_json(f'{{"switch_id":"{ANY_ID}",{job.request[1:]}')
    return await _preview(permit, Selection(tenants=tuple(each.id for each in reached)), request)


@routes.get("/{job_id}/results", response_model=JobResults, summary="What has become of the tenants of a job")
async def fetch_results(permit: Looking, job_id: JobId, limit: Limit = paging.SIZE, after: After = None) -> Response:
    """By tenant, with the last event of each one's switch; those out of the caller's reach are left out."""
    await _find(permit, job_id)
    cursor = paging.read(after) if after else Cursor(RESULTS, min(limit, SIZE_MAX), ("",))
    if cursor.filters != RESULTS or len(cursor.spot) != 1:
        raise malformed("The cursor is not one of ours.")
    found = await reports.results(permit.api.ledger, job_id, cursor.spot[0], cursor.size)
    reached = {each.id: each for each in await permit.reach_all((row.tenant_id for row in found.results), deleted=True)}
    rows = [_outcome(row, reached[row.tenant_id]) for row in found.results if row.tenant_id in reached]
    following = None if found.after is None else msgspec.structs.replace(cursor, spot=(found.after,))
    return JSONResponse({"job_id": job_id, "results": rows, "paging": paging.links(following)})


@routes.post("/{job_id}/pause", response_model=Job, summary="Pause a job")
async def pause(permit: Switching, job_id: JobId) -> Response:
    """No further task is handed over; those that are go on."""
    return await _turn(permit, job_id, control.pause)


@routes.post("/{job_id}/resume", response_model=Job, summary="Resume a job")
async def resume(permit: Switching, job_id: JobId) -> Response:
    """It goes on where it was paused."""
    return await _turn(permit, job_id, control.resume)


@routes.post("/{job_id}/cancel", response_model=Job, summary="Cancel a job")
async def cancel(permit: Switching, job_id: JobId) -> Response:
    """No further task is handed over at all; those that are go on."""
    return await _turn(permit, job_id, control.cancel)


@routes.post("/{job_id}/undo", response_model=Job, summary="Lead the switches of a job back")
async def undo(permit: Switching, job_id: JobId) -> Response:
    """Every one that is completed. Refused where one of its tenants has left the caller's reach since."""
    await _find(permit, job_id)
    names = list(await reports.tasks(permit.api.ledger, job_id))
    if len(await permit.reach_all(names, deleted=True)) < len(names):
        raise refusals.denied("Some tenants of the job are not below your own tenant any more.")
    return await _turn(permit, job_id, control.undo)


async def _selection(permit: Permit, body: JobRequest) -> Selection:
    """The customers that are meant. Raises ``ApiError`` where one is out of reach, or the caller's own tenant."""
    if (body.below is None) != (body.edition is None) or (body.below is None) == (body.tenants is None):
        raise malformed("A selection is `below` and `edition`, or `tenants`.")
    if body.below is not None:
        top = await permit.reach(body.below)
        if top.node.tenant.kind not in ("root", "partner", "folder"):
            permit.refuse_own(top, "edition")
        return Selection(below=top.id, edition=body.edition)
    wanted = list(dict.fromkeys(body.tenants or ()))
    reached = await permit.reach_all(wanted)
    if len(reached) < len(wanted):
        raise refusals.not_found()
    for each in reached:
        permit.refuse_own(each, "edition")
    return Selection(tenants=tuple(wanted))


def _request(body: JobRequest) -> SwitchRequested:
    return SwitchRequested(
        switch_id=ANY_ID,
        application=body.application_id,
        target_edition=body.target_edition,
        mode=body.mode,
        pack_quota=body.pack_quota,
    )


async def _preview(permit: Permit, selection: Selection, request: SwitchRequested) -> Response:
    options = Options(request.mode, request.pack_quota, request.enable_on_ancestors)
    wish = Wish(request.application, request.target_edition, options)
    found: SelectionPreview = await switch_previews.preview_selection(permit.api.engine, selection, wish)
    shown = msgspec.to_builtins(found)
    ways = {each.id: each.way for each in await permit.reach_all(each.tenant_id for each in found.refused_tenants)}
    for each in shown["refused_tenants"]:
        each["denials"] = refusals.shown_denials(each["denials"], ways.get(each["tenant_id"], ()))
    return JSONResponse(shown)


async def _find(permit: Permit, job_id: str) -> MassSwitch:
    """A job in reach. Raises ``ApiError`` (404) for any other, as for one that does not exist."""
    missing = ApiError(404, "404", "There is no such job.")
    try:
        found = await control.find(permit.api.ledger, job_id)
    except control.JobNotFoundError:
        raise missing from None
    if not await permit.reach_all([found.owner], deleted=True):
        raise missing
    return found


async def _turn(permit: Permit, job_id: str, turn: Callable[[Engine, str], Awaitable[MassSwitch]]) -> Response:
    await _find(permit, job_id)
    try:
        await turn(permit.api.engine, job_id)
    except control.JobStateError as error:
        raise ApiError(409, "409", str(error)) from None
    return JSONResponse(await _shown(permit, job_id))


async def _shown(permit: Permit, job_id: str) -> dict[str, Any]:
    row = await reports.job(permit.api.ledger, job_id)
    return {
        "job_id": row.job_id,
        "state": row.state,
        "target_edition": row.target_edition,
        "selection": msgspec.to_builtins(row.selection),
        "rate": row.rate,
        "created_at": rfc3339(row.created_ms),
        "handed_over": row.handed_over,
        "to_hand_over": row.to_hand_over,
        "counts": msgspec.to_builtins(row.counts),
    }


def _in_list(job: MassSwitch) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "target_edition": job.target,
        "selection": msgspec.to_builtins(job.selection),
        "rate": job.rate,
        "created_at": rfc3339(job.created_ms),
        "handed_over": job.position,
        "to_hand_over": job.total,
    }


def _outcome(row: reports.Outcome, tenant: Reached) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(row)
    event: Mapping[str, Any] | None = row.event
    if event is not None:
        shown["event"] = {**event, "data": switches.shown_data(event["data"], tenant)}
    return shown
