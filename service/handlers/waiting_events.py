"""The events of a backlog, tried in order: those of unknown tenants again and again, those behind a plan's job once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas import envelope
from service.handlers import backlogs
from service.handlers.backlogs import EventJob
from service.handlers.draft import Draft
from service.handlers.stepping import Running
from service.handlers.work import Arrival, Queued, RefusedError, Result, Work

if TYPE_CHECKING:
    from service.handlers.engine import Engine

FAR_FUTURE_US = 2**62  # an event that was on time when it came is not judged again


async def run(running: Running, job: EventJob) -> None:
    """Try the first event of a backlog."""
    engine = running.engine
    work = _work(engine, job)
    (result,) = await engine.handle_works([work])
    await _end(running, job, work, result)


async def _end(running: Running, job: EventJob, work: Work, result: Result) -> None:
    if result.kind == "delayed" and job.backlog == backlogs.UNKNOWN:
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
    await running.write(lambda draft: backlogs.advance(draft, draft.step(), job.tenant, job.backlog, job.number))


def _work(engine: Engine, job: EventJob) -> Work:
    origin = job.origin
    topic = origin.topic.removeprefix(engine.options.topic_prefix)
    event = envelope.parse(origin.value, origin.headers, origin.key, topic=topic, now_us=FAR_FUTURE_US)
    return Work(Arrival(event, origin), None, 0, queued=Queued(job.backlog, job.number, job.done))


def _length(work: Work) -> int:
    return len(getattr(work.event.data, "workload_ids", ()))


def _give_up(draft: Draft, job: EventJob, work: Work) -> None:
    """The tenant has not come to be in time: a dead letter, and the next event's turn."""
    step = draft.step()
    refused = RefusedError("unknown_tenant", "the tenant, or the parent it names, is not known", tenant_id=job.tenant)
    work.emit_rejection(step.emit, refused, draft.now_ms)
    backlogs.advance(draft, step, job.tenant, job.backlog, job.number)
