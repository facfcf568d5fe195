"""Jobs of switches: many customers, each switched by a task of its own (docs/domain.md 7.2).

A job puts its tasks on the topic through the outbox, in the steps that move its position, so that none is lost or
doubled. There is no second way to switch: what comes from the topic is handled like everybody's. The tenants of the job
lie beside it in chunks. While it is paused, and when its tasks are handed over, it has no timer: nobody waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from service import records
from service.handlers import announcements
from service.handlers.draft import Draft, Step
from service.handlers.stepping import Running
from service.handlers.switch_endings import KEPT_SECONDS
from service.ledger.transaction import Emission, Timer
from service.rules.tenants import ROOT

CHUNK_TENANTS = 500  # in one record; also the most that one step puts on the topic
STEP_SECONDS = 0.1  # between steps where a rate is set, or longer where it is below one tenant in that time
LATE_MS_MAX = 6000  # what a job was kept from doing for longer is not made up for; instances look every 5 s or sooner

RUNNING, PAUSED, CANCELLED, HANDED_OVER = "running", "paused", "cancelled", "handed_over"
REQUESTED = "apportion.switch.requested.v1"
UNDO_REQUESTED = "apportion.switch.undo_requested.v1"


class Selection(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which customers: all ``below`` a tenant that are on an ``edition``, or exactly the listed ``tenants``."""

    below: str | None = None
    edition: str | None = None
    tenants: tuple[str, ...] = ()


class MassSwitch(msgspec.Struct, frozen=True, tag="mass"):
    """A job of switches. ``request`` is what all its tasks ask for (JSON).

    It goes through the tenants in rounds: ``position`` of ``total`` have been handed over in this one. The round is
    about all ``selected`` tenants (``part``), or leads back the switches in ``undo_part``. ``rate`` is tenants per
    second, None for as fast as it goes. ``asked`` is a digest of what was asked for, ``owner`` the tenant for which.
    """

    job_id: str
    asked: str
    request: str
    target: str
    selection: Selection
    rate: float | None
    selected: int
    part: str
    state: str
    total: int
    created_ms: int
    cause: str
    position: int = 0
    round: int = 0
    undo_part: str | None = None
    undo_total: int = 0
    due_ms: int = 0
    owner: str = ROOT

    @property
    def undoing(self) -> bool:
        """Whether the job leads its switches back, or has done so."""
        return self.undo_part is not None

    @property
    def is_over(self) -> bool:
        """Whether it does nothing more unless it is told to."""
        return self.state in (CANCELLED, HANDED_OVER)

    def parts(self) -> Iterator[tuple[str, int]]:
        """Where its tenants lie, and how many records that are."""
        yield self.part, math.ceil(self.selected / CHUNK_TENANTS)
        if self.undo_part is not None:
            yield self.undo_part, math.ceil(self.undo_total / CHUNK_TENANTS)


_encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(MassSwitch).decode


def ledger_job_id(job_id: str) -> str:
    """Under which id the ledger has the job."""
    return f"switches:{job_id}"


def timer(job_id: str) -> str:
    """What is due while the job has tasks to hand over."""
    return f"job/{ledger_job_id(job_id)}"


def keep(step: Step, job: MassSwitch, now_ms: int) -> None:
    """Write the job as it is now; its timer, and what need not be remembered for ever, follow from its state."""
    step.put.append((records.job_key(ledger_job_id(job.job_id)), _encode(job)))
    due_ms = max(now_ms, job.due_ms) if job.state == RUNNING else None
    step.timers.append(Timer(timer(job.job_id), due_ms))
    forget_ms = now_ms + KEPT_SECONDS * 1000 if job.is_over else None
    if job.is_over or job.position == 0:  # it ends, or begins again
        step.timers.extend(Timer(f"forget/{member}", forget_ms) for member in _remembered(job))


def _remembered(job: MassSwitch) -> Iterator[str]:
    yield f"job//{ledger_job_id(job.job_id)}"
    for part, count in job.parts():
        for number in range(count):
            key = records.switch_chunk_key(job.job_id, part, number)
            yield f"{key.kind}/{key.tenant}/{key.id}"


async def run(running: Running, job: MassSwitch) -> None:
    """One step: hand over as many tasks as are due by now."""
    chunk, first = divmod(job.position, CHUNK_TENANTS)
    key = records.switch_chunk_key(job.job_id, job.undo_part or job.part, chunk)
    record = (await running.engine.ledger.read({running.shard: [key]}))[key]
    tasks: Sequence[tuple[str, str]] = records.decode(key, record.payload) if record is not None else ()
    now_ms = running.engine.clock()
    taken = tasks[first : first + _size(job.rate)]
    position = job.position + len(taken)
    state = HANDED_OVER if position >= job.total or not taken else RUNNING
    after = msgspec.structs.replace(job, position=position, state=state, due_ms=_due_ms(job, len(taken), now_ms))
    await running.write(lambda draft: _hand_over(draft, after, taken))


def _size(rate: float | None) -> int:
    return CHUNK_TENANTS if rate is None else min(CHUNK_TENANTS, max(1, int(rate * STEP_SECONDS)))


def _due_ms(job: MassSwitch, count: int, now_ms: int) -> int:
    """When the next step is due: by the rate, counted from when this one was, unless that is long ago."""
    if job.rate is None:
        return now_ms
    return max(job.due_ms or now_ms, now_ms - LATE_MS_MAX) + int(count / job.rate * 1000)


def _hand_over(draft: Draft, job: MassSwitch, tasks: Iterable[tuple[str, str]]) -> None:
    step = draft.step()
    keep(step, job, draft.now_ms)
    step.emit += [_task(draft, job, tenant, switch_id) for tenant, switch_id in tasks]


def _task(draft: Draft, job: MassSwitch, tenant: str, switch_id: str) -> Emission:
    """The event that asks for a switch, or leads it back; asked for again, it is the same event."""
    of_switch = f'{{"switch_id":"{switch_id}"'
    if job.undoing:
        type_, identity, data = UNDO_REQUESTED, f"undo/{job.round}", f"{of_switch}}}"
    else:
        type_, identity, data = REQUESTED, "once", f"{of_switch},{job.request[1:]}"
    facts = announcements.facts(
        type_,
        tenant=tenant,
        subject=switch_id,
        identity=f"{job.job_id}/{identity}",
        time_ms=draft.now_ms,
        cause=job.cause,
        traceparent=None,
        data=data,
        by_content=False,
    )
    return Emission(facts)
