"""A plan has changed: the workloads that it is applied to are looked at again, a bounded number in each step."""

from __future__ import annotations

import msgspec

from service import records
from service.handlers import assignments, backlogs, plans, workloads
from service.handlers.draft import Draft, View
from service.handlers.plans import WORKLOADS_PER_STEP, PlanJob
from service.handlers.stepping import Running, Task


async def run(running: Running, job: PlanJob) -> None:
    """One step."""
    index = records.applied_index(job.tenant, job.plan)
    cursor, members = await running.engine.ledger.scan_members(running.shard, index, job.cursor, WORKLOADS_PER_STEP)
    await running.each([_task(running, job, workload_id) for workload_id in sorted(members)])
    if cursor:
        await running.go_on(msgspec.structs.replace(job, cursor=cursor))
    else:
        await running.write(lambda draft: backlogs.advance(draft, draft.step(), job.tenant, job.backlog, job.number))


def _task(running: Running, job: PlanJob, workload_id: str) -> Task:
    def decide(view: View) -> None:
        draft = Draft(view, running.cause)
        before = draft.workload(job.tenant, workload_id)
        plans.look_again(draft, job, workload_id)
        assignments.close_unwritten(draft, before)

    return Task(lambda view: workloads.needs_of(view, job.tenant, workload_id), decide)
