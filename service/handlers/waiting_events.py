"""The events of a backlog, tried in order: those of unknown tenants again and again, those behind a plan's job once.

Of a tenant that has come to be, many events may wait; they are decided together. Behind a plan's job they go one by
one, since each of them may become a job itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from schemas import envelope
from service import records
from service.handlers import backlogs, plans, switch_tasks
from service.handlers.backlogs import EventJob
from service.handlers.draft import Draft
from service.handlers.stepping import Running
from service.handlers.work import Arrival, Queued, RefusedError, Result, Work
from service.records import Backlog

if TYPE_CHECKING:
    from service.handlers.engine import Engine

FAR_FUTURE_US = 2**62  # an event that was on time when it came is not judged again
EVENTS_PER_STEP = 200

_decode = msgspec.msgpack.Decoder(EventJob).decode


async def run(running: Running, job: EventJob) -> None:
    """Try the first events of a backlog."""
    turns = await _turns(running, job) if job.backlog == backlogs.UNKNOWN else [job]
    works = [_work(running.engine, turn) for turn in turns]
    results = await running.engine.handle_works(works)
    if results[0].code == plans.SWITCHED:
        await running.go_on(job, after_ms=backlogs.RETRY_MS)
        return
    done = next((number for number, result in enumerate(results) if _is_unknown(result)), len(results))
    await _end(running, job, works[0], done)


async def _turns(running: Running, job: EventJob) -> list[EventJob]:
    """The first event and those right behind it."""
    ledger, shard = running.engine.ledger, running.shard
    key = records.backlog_key(job.tenant, job.backlog)
    record = (await ledger.read({shard: [key]}))[key]
    backlog: Backlog = records.decode(key, record.payload) if record is not None else Backlog()
    numbers = range(job.number + 1, min(backlog.next, job.number + EVENTS_PER_STEP))
    keys = [records.job_key(backlogs.job_id(job.backlog, job.tenant, number)) for number in numbers]
    behind = await ledger.read({shard: keys}) if keys else {}
    found = [behind[key] for key in keys]
    if backlog.head != job.number or any(each is None for each in found):
        return [job]  # somebody else is at it; the end of the step will notice
    return [job, *(_decode(each.payload) for each in found if each is not None)]


def _is_unknown(result: Result) -> bool:
    return result.kind == "delayed" and result.code == "unknown_tenant"


async def _end(running: Running, job: EventJob, work: Work, done: int) -> None:
    if not done:
        waited_ms = running.engine.clock() - job.since_ms
        if waited_ms < running.engine.options.unknown_tenant_wait_seconds * 1000:
            await running.go_on(job, after_ms=backlogs.RETRY_MS)
        else:
            await running.write(lambda draft: _give_up(draft, job, work))
        return
    queued = work.queued
    if queued is not None and queued.reached is not None and queued.reached < _length(work):
        await running.go_on(EventJob(job.tenant, job.backlog, job.number, job.since_ms, job.origin, queued.reached))
        return
    await running.write(lambda draft: backlogs.advance(draft, draft.step(), job.tenant, job.backlog, job.number, done))


def _work(engine: Engine, job: EventJob) -> Work:
    origin = job.origin
    topic = origin.topic.removeprefix(engine.options.topic_prefix)
    event = envelope.parse(origin.value, origin.headers, origin.key, topic=topic, now_us=FAR_FUTURE_US)
    work = Work(Arrival(event, origin), None, 0, queued=Queued(job.backlog, job.number, job.done))
    if job.backlog == backlogs.UNKNOWN:
        # The event and the end of its job lie in two shards: after a crash between the two it is tried once more.
        work.once = f"{origin.topic}/{origin.partition}/{origin.offset}"
    return work


def _length(work: Work) -> int:
    return len(getattr(work.event.data, "workload_ids", ()))


def _give_up(draft: Draft, job: EventJob, work: Work) -> None:
    """The tenant has not come to be in time: a dead letter, and the next event's turn."""
    step = draft.step()
    parent = getattr(work.event.data, "parent_id", None)
    names = {"tenant_id": job.tenant} | ({"parent_id": parent} if parent is not None else {})
    refused = RefusedError("unknown_tenant", "the tenant, or the parent it names, is not known", None, **names)
    work.emit_rejection(step.emit, refused)
    switch_tasks.note_failure(step, work.event, draft.view)
    backlogs.advance(draft, step, job.tenant, job.backlog, job.number)
