"""A plan has changed: the workloads that it is applied to are looked at again, a bounded number in each step.

There is no list of them: all workloads of the tenant are gone through, and those that have the plan are decided. Plans
change seldom, and every other event would pay for such a list, in time and in memory. A workload that joins while the
job walks is decided on the changed plan anyway.
"""

from __future__ import annotations

import msgspec

from service import workload
from service.handlers import assignments, backlogs, plans, workloads
from service.handlers.draft import Draft, View
from service.handlers.plans import WORKLOADS_PER_STEP, PlanJob
from service.handlers.stepping import Running, Task
from service.ledger.transaction import Record


async def run(running: Running, job: PlanJob) -> None:
    """One step."""
    ledger = running.engine.ledger
    cursor, found = await ledger.scan(running.shard, "workload", job.tenant, job.cursor, WORKLOADS_PER_STEP)
    having = sorted(name for name, record in found.items() if _has(record, job.plan))
    await running.each([_task(running, job, workload_id) for workload_id in having])
    if cursor:
        await running.go_on(msgspec.structs.replace(job, cursor=cursor))
    else:
        await running.write(lambda draft: backlogs.advance(draft, draft.step(), job.tenant, job.backlog, job.number))


def _has(record: Record, plan: str) -> bool:
    link = workload.decode(record.payload).links.get(plan)
    return link is not None and link.applied


def _task(running: Running, job: PlanJob, workload_id: str) -> Task:
    def decide(view: View) -> None:
        draft = Draft(view, running.cause)
        before = draft.workload(job.tenant, workload_id)
        plans.look_again(draft, job, workload_id)
        assignments.close_unwritten(draft, before)

    return Task(lambda view: workloads.needs_of(view, job.tenant, workload_id), decide)
