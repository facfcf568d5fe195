"""Room has appeared, or an item or tenant was enabled: who waits there is looked at again, oldest refusal first.

One that is still blocked is skipped, not waited for; a newcomer may take free units before those who wait
(docs/domain.md 4).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from service.handlers import assignments, workloads
from service.handlers.draft import Draft, Placement, View
from service.handlers.stepping import Running, Task
from service.ledger.transaction import ANY_ITEM, Place, RecordKey, Waiter

WAITERS_PER_STEP = 100


class WakeJob(msgspec.Struct, frozen=True, tag="wake"):
    """Whoever waits at a place is looked at again, from the queue's member ``after`` on."""

    tenant: str
    item: str
    reason: str
    cause: str
    after: str = ""


def from_ledger(payload: bytes) -> WakeJob:
    """The job as the ledger itself writes it, in the step that made room."""
    _, tenant, item, reason, cause = payload.decode().split("\x00")
    return WakeJob(tenant, item, reason, cause)


async def run(running: Running, job: WakeJob) -> None:
    """One step: some of the queue. Where no room is left, the rest need not be looked at."""
    ledger = running.engine.ledger
    if not await _has_room(running, job):
        await running.finish()
        return
    queue = await ledger.waiters(running.shard, job.tenant, job.item, job.after, WAITERS_PER_STEP)
    await running.each([_task(running, job, waiter) for waiter in queue])
    if len(queue) < WAITERS_PER_STEP:
        await running.finish()
    else:
        await running.go_on(msgspec.structs.replace(job, after=queue[-1].member))


async def _has_room(running: Running, job: WakeJob) -> bool:
    if job.item == ANY_ITEM:
        return True
    accounts = await running.engine.ledger.accounts({running.shard: [job.tenant]})
    account = accounts.get(job.tenant, {}).get(job.item)
    return account is None or account.limit is None or account.used < account.limit


def _task(running: Running, job: WakeJob, waiter: Waiter) -> Task:
    def needs(view: View) -> Iterable[RecordKey]:
        return workloads.needs_of(view, waiter.tenant, waiter.who)

    def decide(view: View) -> None:
        draft = Draft(view, running.cause)
        now = draft.workload(waiter.tenant, waiter.who)
        placement = draft.placement(waiter.tenant)
        if placement is not None and now.waiting:
            assignments.reassign(draft, waiter.tenant, waiter.who, now, job.reason)
        if not _belongs(placement, job) or not now.waiting:
            for step in draft.steps or [draft.step()]:
                step.forget.append((Place(job.tenant, job.item), waiter.member))
        draft.close()

    return Task(needs, decide)


def _belongs(placement: Placement | None, job: WakeJob) -> bool:
    """Whether the workload still stands below the place; after a move its entry leads nowhere."""
    return placement is not None and job.tenant in placement.path


def workload_task(running: Running, tenant: str, workload_id: str, reason: str) -> Task:
    """Look at one workload again, whether it waits or not."""

    def decide(view: View) -> None:
        draft = Draft(view, running.cause)
        now = draft.workload(tenant, workload_id)
        assignments.reassign(draft, tenant, workload_id, now, reason)
        assignments.close_unwritten(draft, now)

    return Task(lambda view: workloads.needs_of(view, tenant, workload_id), decide)
