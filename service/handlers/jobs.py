"""Work that is due: jobs, wake-ups, reservations that expire, what need not be remembered any longer.

Everything due has a timer in its shard. A step of a job is bounded; what is left stays in the job's record, written
only while that is as it was read, so that two instances at the same job cannot lose each other's progress. The
decisions themselves are level-triggered: carried out twice, they change nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from service import records
from service.handlers import (
    clearing,
    mass_switches,
    plan_jobs,
    subtrees,
    switch_jobs,
    timeouts,
    waiting_events,
    wakeups,
)
from service.handlers.backlogs import EventJob
from service.handlers.draft import Cause, Draft, View
from service.handlers.mass_switches import MassSwitch
from service.handlers.moves import LookJob
from service.handlers.offering_items import DisableJob, RevokeJob
from service.handlers.plans import PlanJob
from service.handlers.stepping import Running, Task
from service.handlers.switch_starts import SwitchJob
from service.handlers.tenants import ClearJob
from service.ledger.errors import LedgerUnavailable
from service.ledger.transaction import Record, Timer

if TYPE_CHECKING:
    from service.handlers.engine import Engine

DUE_MAX = 200  # timers of one shard in one step
FAILED_AGAIN_MS = 5_000  # a job that fails is tried again so much later

RUNNERS: dict[type, Callable[[Running, Any], Awaitable[None]]] = {
    EventJob: waiting_events.run,
    PlanJob: plan_jobs.run,
    wakeups.WakeJob: wakeups.run,
    ClearJob: clearing.run,
    DisableJob: subtrees.run_disable,
    RevokeJob: subtrees.run_revoke,
    LookJob: subtrees.run_look,
    SwitchJob: switch_jobs.run,
    MassSwitch: mass_switches.run,
}

Job = EventJob | PlanJob | wakeups.WakeJob | ClearJob | DisableJob | RevokeJob | LookJob | SwitchJob | MassSwitch

log = structlog.get_logger(__name__)
_decode = msgspec.msgpack.Decoder(Job).decode


async def run_due(engine: Engine, shards: Sequence[int]) -> int:
    """One bounded step of everything that is due; answers how much that was."""
    due = await engine.ledger.due(shards, engine.clock(), DUE_MAX)
    await asyncio.gather(
        *(_run_shard(engine, shard, [member for member, _ in timers]) for shard, timers in due.items())
    )
    return sum(len(timers) for timers in due.values())


async def _run_shard(engine: Engine, shard: int, members: Sequence[str]) -> None:
    """Timers first, all in one batch; then the jobs, oldest first."""
    timed = [_timeout(member) for member in members if not member.startswith("job/")]
    if timed:
        await engine.settle(shard, timed)
    ids = [member.removeprefix("job/") for member in members if member.startswith("job/")]
    if ids:
        stored = await engine.ledger.read({shard: [records.job_key(job_id) for job_id in ids]})
        for job_id in ids:
            await _run_job(engine, shard, job_id, stored[records.job_key(job_id)])


def _timeout(member: str) -> Task:
    return timeouts.expire(member) if member.startswith("expire/") else timeouts.forget(member)


async def _run_job(engine: Engine, shard: int, job_id: str, record: Record | None) -> None:
    if record is None:
        await engine.settle(shard, [_drop(job_id)])
        return
    running = Running(engine, shard, job_id, record.version, Cause(""))
    try:
        job = decode(record.payload)
        running.cause = Cause(getattr(job, "cause", ""), getattr(job, "traceparent", None))
        await RUNNERS[type(job)](running, job)
    except LedgerUnavailable:
        raise
    except Exception:  # a job that cannot be carried out must not keep the others of its shard from it
        log.exception("a job failed and is tried again", job=job_id, shard=shard)
        await running.write(lambda draft: draft.step().timers.append(_later(draft, job_id)))


def decode(payload: bytes) -> Job:
    """A job from its record; wake-ups come from the ledger itself, in a form of its own."""
    if payload.startswith(b"wake\x00"):
        return wakeups.from_ledger(payload)
    job: Job = _decode(payload)
    return job


def _later(draft: Draft, job_id: str) -> Timer:
    return Timer(f"job/{job_id}", draft.now_ms + FAILED_AGAIN_MS)


def _drop(job_id: str) -> Task:
    """A timer without a job leads nowhere."""
    key = records.job_key(job_id)

    def decide(view: View) -> None:
        draft = Draft(view, Cause(""))
        if draft.read(key) is None:
            draft.step().timers.append(Timer(f"job/{job_id}", None))
            draft.close()

    return Task(lambda _: [key], decide)
