"""Jobs that go through all that is below a tenant: disabling items, revoking a shortfall, rousing after a move.

The way through the tree is kept in the job: a stack of places, each with how far its children and workloads are done.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Iterable

import msgspec

from service import records
from service.handlers import assignments, offering_items, wakeups, workloads
from service.handlers.draft import Draft, View
from service.handlers.moves import RouseJob
from service.handlers.offering_items import DisableJob, RevokeJob
from service.handlers.stepping import CHILDREN, WORKLOADS, Frame, Running, Task
from service.handlers.work import path_keys
from service.ledger.transaction import Place, RecordKey
from service.records import Items, Workload
from service.rules import quotas

PER_STEP = 200  # tenants or workloads in one step


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
        await running.each([_disable_task(running, child, off) for child in children])
        rest = _descend(stack, cursor, children)
    else:
        cursor, found = await _workloads(running, frame)
        losing = [name for name, one in found.items() if not one.holding.keys().isdisjoint(off) or one.counted]
        tasks = [wakeups.workload_task(running, frame.tenant, name, "offering_item") for name in losing]
        await running.each(tasks)
        rest = _ascend(stack, cursor)
    await _go_on(running, msgspec.structs.replace(job, items=off, stack=rest))


async def run_rouse(running: Running, job: RouseJob) -> None:
    """One step: who waits on one tenant after the other is looked at again."""
    stack = job.stack or (Frame(job.tenant),)
    frame = stack[-1]
    if frame.phase == CHILDREN:
        cursor, children = await _children(running, frame)
        rest = _descend(stack, cursor, children)
    else:
        cursor, found = await _workloads(running, frame)
        waiting = [name for name, one in found.items() if one.waiting]
        await running.each([wakeups.workload_task(running, frame.tenant, name, "tenant") for name in waiting])
        rest = _ascend(stack, cursor)
    await _go_on(running, msgspec.structs.replace(job, stack=rest))


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


def _disable_task(running: Running, child: str, items: Iterable[str]) -> Task:
    def needs(view: View) -> Iterable[RecordKey]:
        yield from path_keys(view, child)
        yield records.items_key(child)

    def decide(view: View) -> None:
        draft = Draft(view, running.cause)
        present = sorted(draft.items(child).enabled.intersection(items))
        if present:
            draft.placement(child)
            offering_items.disable(draft, draft.step(), child, present, "cascade")
            draft.close()

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


async def _go_on(running: Running, job: DisableJob | RouseJob) -> None:
    if job.stack:
        await running.go_on(job)
    else:
        await running.finish()
