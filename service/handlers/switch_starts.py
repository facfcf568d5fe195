"""How the switch of a customer with many workloads begins (docs/domain.md 7).

First it is only marked: its workloads are counted while decisions about them go on, and each of those notes whom it has
changed. Then, in one atomic step, the units of all of them are set aside on every level, the items are provided, and
the customer is on the target. A job (switch_jobs.py) moves the workloads after that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from schemas.switches import SwitchRequested
from service import records
from service.handlers import stepping, switch_answers, switch_asides, switch_endings, switch_moves
from service.handlers.draft import Draft, Step
from service.handlers.switch_answers import Ask, Progress
from service.ledger.transaction import Take, Timer
from service.records import Switch, Switching
from service.rules import switching
from service.rules.switch_drift import Drift
from service.rules.switch_plan import Plan
from service.rules.tally import Kind, Tally


class SwitchJob(msgspec.Struct, frozen=True, tag="switch"):
    """A switch that is prepared, or under way: which of the customer and its units is gone through, and how far.

    ``request`` is its data (JSON), None where a switch is led back. ``walk`` counts how often all were looked at
    before.
    """

    tenant: str
    switch_id: str
    request: str | None
    cause: str
    traceparent: str | None
    started: bool = False
    members: tuple[str, ...] = ()
    cursor: int = 0
    moved: int = 0
    denied: int = 0
    total: int = 0
    began_ms: int = 0
    walk: int = 0


def job_id(tenant: str) -> str:
    """The one switch that a customer can be in."""
    return f"switch/{tenant}"


def preview_id(tenant: str, switch_id: str) -> str:
    """A preview of a customer with many workloads."""
    return f"preview/{tenant}/{switch_id}"


def prepare(draft: Draft, tenant: str, data: SwitchRequested) -> None:
    """Mark the customer, so that its workloads can be counted; a dry run marks nobody."""
    step = draft.step()
    job = _job(draft, tenant, data.switch_id, data.model_dump_json())
    if data.dry_run:
        stepping.put_job(step, preview_id(tenant, data.switch_id), job, draft.now_ms)
        return
    record = switch_endings.remembered(draft, data, switch_answers.PREPARING, switch_answers.STARTED, None)
    mark = Switching(data.switch_id, data.application, "", data.target_edition, (), preparing=True)
    _mark(draft, step, tenant, mark)
    step.put.append((records.switch_key(tenant, data.switch_id), record))
    switch_endings.note(step, tenant, data.switch_id, record)
    stepping.put_job(step, job_id(tenant), job, draft.now_ms)


def prepare_undo(draft: Draft, tenant: str, switch_id: str, known: Switch) -> None:
    """The same for a switch that is led back."""
    assert known.kept is not None  # what was completed can be led back
    step = draft.step()
    kept = known.kept
    mark = Switching(switch_id, kept.application, "", kept.from_edition, (), preparing=True, undoing=True)
    _mark(draft, step, tenant, mark)
    stepping.put_job(step, job_id(tenant), _job(draft, tenant, switch_id, None), draft.now_ms)


def _job(draft: Draft, tenant: str, switch_id: str, request: str | None) -> SwitchJob:
    return SwitchJob(tenant, switch_id, request, draft.cause.id, draft.cause.traceparent, began_ms=draft.now_ms)


def _mark(draft: Draft, step: Step, tenant: str, mark: Switching) -> None:
    step.put.append((records.items_key(tenant), draft.items(tenant).switched(mark)))


def start(
    draft: Draft,
    step: Step,
    tenant: str,
    ask: Ask,
    plan: Plan,
    tallies: Mapping[str, Tally],
    record: Switch,
    *,
    version: int = 0,
    aside: bool = True,
    drift: Sequence[Drift] = (),
) -> None:
    """Set the units aside, provide the items, and be on the target from now on; the job does the rest.

    ``tallies`` are the workloads of the customer and of each of its units, as of the record ``version``; ``drift`` is
    what the end of an undo has to tell.
    """
    mark = Switching(
        switch_id=ask.switch_id,
        application=plan.basis.application,
        source=plan.from_edition or "",
        target=plan.to_edition,
        before=tuple(sorted(draft.items(tenant).enabled)),
        version=version,
        undoing=ask.undoing,
        aside=aside,
    )
    switch_moves.provide(draft, step, tenant, plan, switch_endings.stamp_of(draft), mark)
    if aside:
        due = {outcome.kind: outcome.taken for outcome in plan.outcomes}
        for member, tally in tallies.items():
            _set_aside(draft, step, member, tally, due)
    job = SwitchJob(
        tenant,
        ask.switch_id,
        None,
        draft.cause.id,
        draft.cause.traceparent,
        started=True,
        members=tuple(tallies),
        total=plan.workloads.total,
        began_ms=draft.now_ms,
    )
    stepping.put_job(step, job_id(tenant), job, draft.now_ms)
    more = {"drift": switch_answers.drifts(drift)} if ask.undoing else {}
    progress = Progress(plan.workloads.total)
    content = switch_answers.data(ask, plan, progress, switch_answers.items_before(plan), **more)
    identity = f"undo/{switch_answers.digest(draft.cause.id)}" if ask.undoing else "once"
    switch_answers.conclude(draft, step, tenant, record, content, identity=identity)
    switch_endings.note(step, tenant, ask.switch_id, record)


def _set_aside(draft: Draft, step: Step, member: str, tally: Tally, due: Mapping[Kind, tuple[str, ...]]) -> None:
    placement = draft.placement(member)
    assert placement is not None  # every member has been read with its way up
    units: Counter[str] = Counter()
    for kind, count in tally.counts.items():
        for name in due[kind]:
            units[name] += count
    for name, count in sorted(units.items()):
        step.take.append(Take(placement.path, name, count, count))
        step.take.append(switch_asides.counting(member, name, count))


def may_be_refused(draft: Draft, tenant: str, plan: Plan) -> bool:
    """Whether there is a quota that can refuse what is taken: the customer's own ones then, or one above."""
    placement = draft.placement(tenant)
    assert placement is not None  # the tenant has been read
    enable = plan.provision.enable
    return any(
        name in placement.limited or (name in enable and enable[name].overage is not None) for name in plan.required
    )


def unmark(draft: Draft, step: Step, tenant: str) -> None:
    """The customer is in no switch any more, and the job is over."""
    if not any(key == records.items_key(tenant) for key, _ in step.put):
        step.put.append((records.items_key(tenant), draft.items(tenant).switched(None)))
    step.delete.append(records.job_key(job_id(tenant)))
    step.timers.append(Timer(f"job/{job_id(tenant)}", None))


def running(plan: Plan, record: Switch) -> Switch:
    """The record of a switch that has started."""
    return msgspec.structs.replace(
        record, state=switch_answers.RUNNING, type=switch_answers.STARTED, kept=switching.keep(plan)
    )
