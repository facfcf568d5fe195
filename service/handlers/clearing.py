"""A tenant was deleted: its workloads and reservations are released, each with its event (docs/domain.md 2)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from service import records
from service.handlers import reservations, workloads
from service.handlers.draft import Draft, View
from service.handlers.stepping import Running, Task
from service.handlers.tenants import ClearJob
from service.handlers.work import path_keys
from service.ledger.transaction import Record
from service.records import Workload
from service.rules import facets

PER_STEP = 200  # records in one step


async def run(running: Running, job: ClearJob) -> None:
    """One step: some workloads, and after the last one some reservations."""
    kind = "reservation" if job.workloads_done else "workload"
    cursor, found = await running.engine.ledger.scan(running.shard, kind, job.tenant, job.cursor, PER_STEP)
    await running.each(_tasks(running, job, found))
    if cursor:
        await running.go_on(msgspec.structs.replace(job, cursor=cursor))
    elif not job.workloads_done:
        await running.go_on(msgspec.structs.replace(job, cursor=0, workloads_done=True))
    else:
        await running.finish()


def _tasks(running: Running, job: ClearJob, found: Mapping[str, Record]) -> list[Task]:
    make = _reservation_task if job.workloads_done else _workload_task
    return [make(running, job, name) for name in sorted(found)]


def _workload_task(running: Running, job: ClearJob, workload_id: str) -> Task:
    def decide(view: View) -> None:
        draft = Draft(view, running.cause)
        now = draft.workload(job.tenant, workload_id)
        if _is_older(now, job):
            stamp = facets.stamp("/apportion", job.cause, job.deleted_at_us, None)
            anew = now.stamp is not None and facets.time_us(now.stamp) > job.deleted_at_us
            workloads.clear(draft, job.tenant, workload_id, now, stamp, "tenant", registered_anew=anew)
            draft.close()

    return Task(lambda view: workloads.needs_of(view, job.tenant, workload_id), decide)


def _is_older(workload: Workload, job: ClearJob) -> bool:
    """Whether a workload has something that was there when the tenant was deleted; what came later stays."""
    said: list[facets.Stamp | None] = [link.stamp for link in workload.links.values()]
    if workload.type is not None:
        said.append(workload.stamp)
    if workload.gauges:
        said.append(workload.usage_stamp)
    return any(stamp is None or facets.time_us(stamp) <= job.deleted_at_us for stamp in said)


def _reservation_task(running: Running, job: ClearJob, reservation_id: str) -> Task:
    def decide(view: View) -> None:
        draft = Draft(view, running.cause)
        known = draft.reservation(job.tenant, reservation_id)
        placement = draft.placement(job.tenant)
        made_later = known is not None and known.made_at_ms > job.deleted_at_ms
        if known is not None and placement is not None and known.state == reservations.HELD and not made_later:
            reservations.end(draft, placement, job.tenant, reservation_id, known, reservations.RELEASED)
            draft.close()

    return Task(
        lambda view: [*path_keys(view, job.tenant), records.reservation_key(job.tenant, reservation_id)], decide
    )
