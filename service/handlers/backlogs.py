"""Events of one tenant that wait, in order: for their tenant to be known, or for a long job to end.

A backlog is a record with the numbers of its first and next event, and a job for each event. Only the first has a
timer; it is tried when the timer is due, and when it is done the next one gets a timer, in the same step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from service import records
from service.handlers.announcements import Origin
from service.handlers.draft import Draft, Step, View
from service.handlers.work import Handler, RefusedError, Result, Work
from service.ledger.transaction import RecordKey, Timer
from service.records import Backlog

UNKNOWN = "unknown"  # the backlog of events whose tenant is not known yet
PLANS = "plans"  # the backlog behind a plan's change that reaches many workloads
LENGTH_MAX = 10_000  # events of one tenant that wait
RETRY_MS = 500  # an event whose tenant is not known is tried again as often


class EventJob(msgspec.Struct, frozen=True, tag="event"):
    """An event that waits, with its original message. ``done`` is how much of its list is carried out."""

    tenant: str
    backlog: str
    number: int
    since_ms: int
    origin: Origin
    done: int = 0


def job_id(backlog: str, tenant: str, number: int) -> str:
    """The id of the job that is number ``number`` in a tenant's backlog."""
    return f"chain/{backlog}/{tenant}/{number:012d}"


def read(draft: Draft, tenant: str, name: str) -> Backlog:
    """A tenant's backlog; the decision depends on it from now on."""
    found: Backlog | None = draft.read(records.backlog_key(tenant, name))
    return found or Backlog()


def append(draft: Draft, step: Step, work: Work, name: str, backlog: Backlog, due_ms: int) -> None:
    """Let an event wait at the end of a backlog; ``due_ms`` is when the first in it is tried."""
    origin = work.arrival.origin
    if origin is None:
        raise RefusedError("not_allowed", "earlier changes are still being carried out; try again", "1012")
    stream = f"{origin.topic}/{origin.partition}"
    if name == UNKNOWN and backlog.seen.get(stream, -1) >= origin.offset:
        return  # delivered again while it waits; elsewhere the step itself happens only once
    if backlog.next - backlog.head >= LENGTH_MAX:
        if name == UNKNOWN:
            raise RefusedError("unknown_tenant", f"{LENGTH_MAX} events of this tenant wait already")
        raise RefusedError("not_allowed", f"{LENGTH_MAX} events of this tenant wait already", "1012")
    seen = {**backlog.seen, stream: origin.offset} if name == UNKNOWN else {}
    job = EventJob(work.tenant, name, backlog.next, draft.now_ms, origin)
    enqueue(step, work.tenant, name, Backlog(backlog.head, backlog.next, seen), job, due_ms)


def enqueue(step: Step, tenant: str, name: str, backlog: Backlog, job: Any, due_ms: int) -> None:
    """Put any job at the end of a backlog."""
    job_name = job_id(name, tenant, backlog.next)
    step.put.append((records.job_key(job_name), encode(job)))
    grown = msgspec.structs.replace(backlog, next=backlog.next + 1)
    step.put.append((records.backlog_key(tenant, name), grown))
    if not backlog.busy:
        step.timers.append(Timer(f"job/{job_name}", due_ms))


def replace(step: Step, tenant: str, name: str, number: int, job: Any) -> None:
    """Put another job into the place of one in a backlog; it is due as that one was."""
    step.put.append((records.job_key(job_id(name, tenant, number)), encode(job)))


def advance(draft: Draft, step: Step, tenant: str, name: str, number: int, count: int = 1) -> None:
    """The first events of a backlog are done: the next one is due now; an empty backlog is forgotten."""
    backlog = read(draft, tenant, name)
    first = job_id(name, tenant, number)
    draft.read(records.job_key(first))
    step.delete.extend(records.job_key(job_id(name, tenant, done)) for done in range(number, number + count))
    step.timers.append(Timer(f"job/{first}", None))
    head = number + count
    if head < backlog.next:
        step.put.append((records.backlog_key(tenant, name), msgspec.structs.replace(backlog, head=head)))
        step.timers.append(Timer(f"job/{job_id(name, tenant, head)}", draft.now_ms))
    else:
        step.delete.append(records.backlog_key(tenant, name))


encode = msgspec.msgpack.Encoder().encode


def _needs(_: View, work: Work) -> Iterable[RecordKey]:
    yield records.backlog_key(work.tenant, UNKNOWN)


def _decide(view: View, work: Work) -> None:
    # No position moves here: this shard is not the tenant's own. The backlog remembers what it has seen instead.
    draft = Draft(view, work.cause)
    work.drafts.append(draft)
    backlog = read(draft, work.tenant, UNKNOWN)
    append(draft, draft.step(), work, UNKNOWN, backlog, draft.now_ms + RETRY_MS)
    draft.close()
    work.result = Result("delayed")


UNKNOWN_TENANT = Handler(_needs, _decide)
