"""How a switch ends or is shown: announced, and remembered by its id, by its job, and while it can be undone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from schemas.switches import SwitchRequested
from service import records
from service.handlers import switch_answers, switch_tasks
from service.handlers.draft import Draft, Step
from service.handlers.switch_answers import Ask, Progress
from service.ledger.transaction import Emission, Timer, Wait
from service.records import Identifier, Switch, SwitchTask
from service.rules import facets, switch_drift, switching
from service.rules.facets import Stamp
from service.rules.switch_drift import Drift
from service.rules.switch_mapping import Direction
from service.rules.switch_plan import Options, Plan, Refusal

KEPT_SECONDS = 30 * 24 * 3600  # so long a switch can be undone


def asked(data: SwitchRequested) -> str:
    """What stands for the content of a request."""
    return switch_answers.digest(data.model_dump_json(exclude={"dry_run"}))


def options_of(data: SwitchRequested) -> Options:
    """How a switch was asked for."""
    return Options(data.mode, data.pack_quota, data.enable_on_ancestors)


def hindrances(plan: Plan, mode: str = "strict") -> list[Refusal]:
    """What stands in the way besides quotas: those the ledger weighs, on every level at once."""
    if mode == "best_effort" and plan.startable:
        return []
    return [refusal for refusal in plan.refusals if refusal.code != "quota_exceeded"]


def drift_of(draft: Draft, tenant: str, data: SwitchRequested, plan: Plan) -> Sequence[Drift]:
    """What is other than in the plan that the request names; nothing where it names none."""
    if data.plan_hash is None or data.plan_hash == plan.plan_hash:
        return ()
    shown: switch_drift.Basis | None = draft.read(records.preview_key(tenant, data.plan_hash))
    found = switch_drift.drift(shown, plan.basis) if shown is not None else ()
    return found or (Drift("the plan is another one now", None, data.plan_hash, plan.plan_hash),)


def show(draft: Draft, tenant: str, ask: Ask, plan: Plan) -> None:
    """Announce what would become of a switch, and keep what that was made from for a while."""
    step = draft.step()
    denials = switch_answers.refusals(plan.refusals)
    counts = Progress(plan.workloads.total, 0, plan.workloads.denied)
    content = switch_answers.data(ask, plan, counts, switch_answers.items_after(plan), denials=denials)
    step.emit.append(preview_of(draft, tenant, ask, content))
    keep_basis(draft, step, tenant, plan)


def keep_basis(draft: Draft, step: Step, tenant: str, plan: Plan) -> None:
    """Remember what a plan that was shown was made from, so that drift can be told."""
    step.put.append((records.preview_key(tenant, plan.plan_hash), plan.basis))
    step.timers.append(Timer(f"forget/preview/{tenant}/{plan.plan_hash}", draft.now_ms + KEPT_SECONDS * 1000))


def preview_of(draft: Draft, tenant: str, ask: Ask, content: Mapping[str, Any]) -> Emission:
    """The announcement of a preview: one for each request."""
    identity = f"preview/{switch_answers.digest(draft.cause.id)}"
    return switch_answers.emission(draft, tenant, ask.switch_id, switch_answers.PREVIEWED, content, identity)


def remembered(draft: Draft, data: SwitchRequested, state: str, type_: str, plan: Plan | None) -> Switch:
    """The record of a switch, without its answer yet."""
    is_kept = state == switch_answers.DONE and plan is not None and plan.direction is not Direction.NOTHING
    return Switch(
        asked=asked(data),
        state=state,
        type=type_,
        answer="{}",
        number=0,
        time_ms=draft.now_ms,
        cause=draft.cause.id,
        traceparent=draft.cause.traceparent,
        job_id=data.job_id,
        kept=switching.keep(plan) if is_kept and plan is not None else None,
        started_ms=draft.now_ms,
    )


def conclude(
    draft: Draft, step: Step, tenant: str, record: Switch, content: Mapping[str, Any], denials_of: tuple[int, ...] = ()
) -> None:
    """Announce the end of a switch and remember it: by its id, in its job, and for as long as it can be undone."""
    switch_id = content["switch_id"]
    switch_answers.conclude(draft, step, tenant, record, content, denials_of=denials_of)
    note(step, tenant, switch_id, record)
    step.timers.append(Timer(f"forget/switch/{tenant}/{switch_id}", draft.now_ms + KEPT_SECONDS * 1000))


def note(step: Step, tenant: str, switch_id: str, record: Switch) -> None:
    """Where the switch is found by its id alone, and by the job that it belongs to."""
    step.put.append((records.switch_place_key(switch_id), Identifier(tenant)))
    if record.job_id is not None:
        step.put.append((records.switch_task_key(record.job_id, tenant), SwitchTask(switch_id, record.state)))


def reject(
    draft: Draft,
    step: Step,
    tenant: str,
    data: SwitchRequested,
    plan: Plan | None,
    refusals: Sequence[Refusal],
    drift: Sequence[Drift],
    denials_of: tuple[int, ...] = (),
) -> None:
    """The switch does not start, and nothing has changed."""
    content = switch_answers.data(
        Ask(data.switch_id, data.job_id, data.target_edition),
        plan,
        Progress(plan.workloads.total if plan else 0),
        switch_answers.items_before(plan) if plan else (),
        denials=switch_answers.refusals(refusals),
        **({"drift": switch_answers.drifts(drift)} if drift else {}),
    )
    record = remembered(draft, data, switch_answers.REFUSED, switch_answers.REJECTED, None)
    conclude(draft, step, tenant, record, content, denials_of)


def refused_undo(
    draft: Draft,
    step: Step,
    tenant: str,
    known: Switch | None,
    content: Mapping[str, Any],
    denials_of: tuple[int, ...],
) -> None:
    """Announce that a switch is not led back, to this request; it is remembered until the next one.

    The switch itself stays what it was, so its own record says nothing of it.
    """
    switch_id = content["switch_id"]
    answer = switch_answers.encoded(content)
    identity = f"undo/{switch_answers.digest(draft.cause.id)}"
    said = switch_answers.emission(draft, tenant, switch_id, switch_answers.UNDO_REJECTED, answer, identity)
    step.emit.append(msgspec.structs.replace(said, denials_of=denials_of))
    if known is None:
        return
    if denials_of:
        who = records.switch_undo_waiting(switch_id)
        step.wait = Wait(tenant, who, "\n[]", (), denials_of, indexed=False)
    refused = msgspec.structs.replace(
        known, type=switch_answers.UNDO_REJECTED, answer=answer, denied=bool(denials_of), kept=None
    )
    step.put.append((records.switch_undo_key(tenant, switch_id), refused))
    if known.job_id is not None and known.state == switch_answers.DONE:
        task = SwitchTask(switch_id, switch_tasks.UNDO_REJECTED)
        step.put.append((records.switch_task_key(known.job_id, tenant), task))


def stamp_of(draft: Draft) -> Stamp:
    """The stamp of the items that a switch sets: nothing that was said before it counts over it."""
    return facets.stamp("/apportion/switch", draft.cause.id, draft.now_ms * 1000, None)
