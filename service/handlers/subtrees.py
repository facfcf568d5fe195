"""Jobs that go through all that is below a tenant: disabling items, revoking a shortfall, looking again.

The way through the tree is kept in the job: a stack of places, each with how far its children and workloads are done.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Iterable

import msgspec

from service import records
from service.catalog.model import Role
from service.handlers import assignments, enablement, wakeups, workloads
from service.handlers.draft import Draft, View
from service.handlers.moves import LookJob
from service.handlers.offering_items import DisableJob, RevokeJob
from service.handlers.stepping import CHILDREN, WORKLOADS, Frame, Running, Task
from service.handlers.work import path_keys
from service.ledger.transaction import Place, RecordKey
from service.records import Items, Workload
from service.rules import quotas

PER_STEP = 200  # tenants or workloads in one step
SWITCHED_AGAIN_MS = 1000  # so much later is a tenant looked at again that is being switched


async def run_disable(running: Running, job: DisableJob) -> None:
    """One step: some children lose the items, or some workloads. Items that are on again are left alone."""
    items = await _read_items(running, job.tenant)
    off = tuple(item for item in job.items if item not in items.enabled)
    stack = job.stack or (Frame(job.tenant),)
    if not off:
        await running.finish()
        return
    frame = stack[-1]
    if frame.phase == CHILDREN:
        cursor, children = await _children(running, frame)
        switched: set[str] = set()
        await running.each([_disable_task(running, child, off, switched) for child in children])
        if switched:  # nothing of theirs changes until that is over
            again = msgspec.structs.replace(job, items=off, stack=stack)
            await running.go_on(again, SWITCHED_AGAIN_MS)
            return
        rest = _descend(stack, cursor, children)
    else:
        cursor, found = await _workloads(running, frame)
        covers = any(running.engine.catalog.item(name).role is Role.COVER for name in off)
        losing = [name for name, one in found.items() if _loses(one, off, covers)]
        tasks = [wakeups.workload_task(running, frame.tenant, name, "offering_item") for name in losing]
        await running.each(tasks)
        rest = _ascend(stack, cursor)
    await _go_on(running, msgspec.structs.replace(job, items=off, stack=rest))


async def run_look(running: Running, job: LookJob) -> None:
    """One step: who waits on one tenant after the other is looked at again, or who has what was asked for."""
    stack = job.stack or (Frame(job.tenant),)
    if job.named:
        await running.each([_reassign_task(running, job, *name) for name in job.named[:PER_STEP]])
        await _go_on(running, msgspec.structs.replace(job, stack=stack, named=job.named[PER_STEP:]))
        return
    frame = stack[-1]
    if frame.phase == CHILDREN:
        cursor, children = await _children(running, frame)
        rest = _descend(stack, cursor, children)
    else:
        cursor, found = await _workloads(running, frame)
        seen = [name for name, one in found.items() if one.waiting is job.waiting and _has_something(one)]
        await running.each([_look_task(running, job, frame.tenant, name) for name in seen])
        rest = _ascend(stack, cursor)
    await _go_on(running, msgspec.structs.replace(job, stack=rest))


def _has_something(workload: Workload) -> bool:
    return bool(workload.waiting or workload.holding or workload.gauges)


def _look_task(running: Running, job: LookJob, tenant: str, workload_id: str) -> Task:
    """Look at a workload again. Who does not wait for anything keeps a higher sub-edition until its own next change
    (docs/domain.md 6, rule 2), and only its gauges are counted anew."""

    def decide(view: View) -> None:
        draft = Draft(view, running.cause)
        now = draft.workload(tenant, workload_id)
        placement = draft.placement(tenant)
        editions = placement.editions.values() if placement is not None else ()
        if not now.waiting and any(draft.catalog.edition(name).kind == "edition" for name in editions):
            assignments.recount(draft, tenant, workload_id, now)
        else:
            assignments.reassign(draft, tenant, workload_id, now, job.reason)
        assignments.close_unwritten(draft, now)

    return Task(lambda view: workloads.needs_of(view, tenant, workload_id), decide)


def _reassign_task(running: Running, job: LookJob, tenant: str, workload_id: str) -> Task:
    """Decide on a workload anew, whether it waits or not."""

    def decide(view: View) -> None:
        draft = Draft(view, running.cause)
        now = draft.workload(tenant, workload_id)
        assignments.reassign(draft, tenant, workload_id, now, job.reason)
        assignments.close_unwritten(draft, now)

    return Task(lambda view: workloads.needs_of(view, tenant, workload_id), decide)


async def run_revoke(running: Running, job: RevokeJob) -> None:
    """Take the newest acquisitions of an item below a tenant, until what is used is what is allowed."""
    engine = running.engine
    state = (await _read_items(running, job.tenant)).states.get(job.item)
    allowed = quotas.allowed(quotas.Quota(state.value, state.overage)) if state else None
    accounts = (await engine.ledger.accounts({running.shard: [job.tenant]})).get(job.tenant, {})
    used = accounts[job.item].used if job.item in accounts else 0
    if state is None or allowed is None or used <= allowed:
        await running.finish()
        return
    holders = [holder async for holder in _holders(running, job)]
    newest = heapq.nlargest(used - allowed, holders)
    denial = {
        "code": "quota_exceeded",
        "offering_item": job.item,
        "tenant_id": job.tenant,
        "limit": allowed,
        "used": used,
        "requested": 0,
        "message": f"the quota of {job.item} on {job.tenant} was lowered to {allowed}",
    }
    # A soft quota refuses nothing: whoever loses a unit to it must not wait for room there, it would be back at once.
    places = [Place(job.tenant, job.item)] if state.overage is not None else []
    for begin in range(0, len(newest), PER_STEP):
        part = newest[begin : begin + PER_STEP]
        await running.each([_revoke_task(running, job, tenant, name, denial, places) for _, _, tenant, name in part])
    await running.finish()


def _loses(workload: Workload, off: Iterable[str], covers: bool) -> bool:
    """Whether a workload may lose something: an item, the count of a gauge, or a feature that an item covered."""
    return not workload.holding.keys().isdisjoint(off) or bool(workload.counted) or (covers and bool(workload.holding))


def _disable_task(running: Running, child: str, items: Iterable[str], switched: set[str]) -> Task:
    """Turn items off on a tenant, unless it is being switched: then it is added to ``switched``."""

    def needs(view: View) -> Iterable[RecordKey]:
        yield from path_keys(view, child)
        yield records.items_key(child)

    def decide(view: View) -> None:
        draft = Draft(view, running.cause)
        switched.discard(child)
        found = draft.items(child)
        present = sorted(found.enabled.intersection(items))
        if present and found.switching is not None:
            switched.add(child)
        elif present:
            draft.placement(child)
            enablement.disable(draft, draft.step(), child, present, "cascade")
        draft.close()  # also where nothing is to be done: that may have been read out of a cache

    return Task(needs, decide)


def _revoke_task(
    running: Running, job: RevokeJob, tenant: str, workload_id: str, denial: dict[str, object], places: list[Place]
) -> Task:
    def decide(view: View) -> None:
        draft = Draft(view, running.cause)
        assignments.revoke(draft, tenant, workload_id, job.item, denial, places)
        draft.close()

    return Task(lambda view: workloads.needs_of(view, tenant, workload_id), decide)


async def _holders(running: Running, job: RevokeJob) -> AsyncIterator[tuple[int, int, str, str]]:
    """Who holds the item below the tenant: when acquired, the record's version, tenant and workload."""
    pending = [job.tenant]
    while pending:
        tenant = pending.pop()
        pending.extend(await running.engine.ledger.members(running.shard, records.children_index(tenant)))
        cursor = 0
        while True:
            cursor, found = await running.engine.ledger.scan(running.shard, "workload", tenant, cursor, PER_STEP)
            for name, record in found.items():
                workload: Workload = records.decode(records.workload_key(tenant, name), record.payload)
                if job.item in workload.holding:
                    yield workload.holding[job.item], record.version, tenant, name
            if not cursor:
                break


async def _read_items(running: Running, tenant: str) -> Items:
    key = records.items_key(tenant)
    record = (await running.engine.ledger.read({running.shard: [key]}))[key]
    return records.decode(key, record.payload) if record is not None else records.NO_ITEMS


async def _children(running: Running, frame: Frame) -> tuple[int, list[str]]:
    index = records.children_index(frame.tenant)
    cursor, children = await running.engine.ledger.scan_members(running.shard, index, frame.cursor, PER_STEP)
    return cursor, sorted(children)


async def _workloads(running: Running, frame: Frame) -> tuple[int, dict[str, Workload]]:
    cursor, found = await running.engine.ledger.scan(running.shard, "workload", frame.tenant, frame.cursor, PER_STEP)
    decoded = {
        name: records.decode(records.workload_key(frame.tenant, name), record.payload)
        for name, record in sorted(found.items())
    }
    return cursor, decoded


def _descend(stack: tuple[Frame, ...], cursor: int, children: Iterable[str]) -> tuple[Frame, ...]:
    """The stack after some children of its top were seen: they are gone through next."""
    top = stack[-1]
    top = Frame(top.tenant, CHILDREN, cursor) if cursor else Frame(top.tenant, WORKLOADS)
    return (*stack[:-1], top, *(Frame(child) for child in children))


def _ascend(stack: tuple[Frame, ...], cursor: int) -> tuple[Frame, ...]:
    """The stack after some workloads of its top were seen."""
    top = stack[-1]
    return (*stack[:-1], Frame(top.tenant, WORKLOADS, cursor)) if cursor else stack[:-1]


async def _go_on(running: Running, job: DisableJob | LookJob) -> None:
    if job.stack:
        await running.go_on(job)
    else:
        await running.finish()
