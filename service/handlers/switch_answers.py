"""What is said of a switch: the data of its announcements, and the same answer again where it is asked for again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from service import records
from service.handlers import announcements
from service.handlers.draft import Draft, Step
from service.ledger.transaction import Emission, Wait
from service.records import Switch
from service.rules import facets
from service.rules.switch_drift import Drift, shown_quota
from service.rules.switch_plan import Plan, Refusal

PREVIEWED = "apportion.switch.previewed.v1"
STARTED = "apportion.switch.started.v1"
PROGRESSED = "apportion.switch.progressed.v1"
COMPLETED = "apportion.switch.completed.v1"
REJECTED = "apportion.switch.rejected.v1"
UNDONE = "apportion.switch.undone.v1"
UNDO_REJECTED = "apportion.switch.undo_rejected.v1"

PREPARING, RUNNING, DONE, REFUSED, REVERTED = "preparing", "running", "completed", "rejected", "undone"


class Ask(NamedTuple):
    """What of a request its answers repeat."""

    switch_id: str
    job_id: str | None
    target: str | None
    undoing: bool = False  # the switch is led back


class Progress(NamedTuple):
    """How many of the workloads have moved, and how many are left without an item."""

    total: int = 0
    moved: int = 0
    denied: int = 0


def data(
    ask: Ask,
    plan: Plan | None,
    progress: Progress,
    items: Sequence[Mapping[str, Any]] = (),
    **more: Any,
) -> dict[str, Any]:
    """The data of an announcement; ``more`` are denials, drift and the duration, where they belong to it."""
    return {
        "switch_id": ask.switch_id,
        **({"job_id": ask.job_id} if ask.job_id is not None else {}),
        "from_edition": plan.from_edition if plan else None,
        "to_edition": plan.to_edition if plan else ask.target,
        "plan_hash": plan.plan_hash if plan and plan.direction is not None else None,
        "workloads": progress._asdict(),
        "items": list(items),
        "warnings": [msgspec.to_builtins(warning) for warning in plan.warnings] if plan else [],
        **more,
    }


def items_before(plan: Plan) -> list[dict[str, Any]]:
    """The items of both sides as they were."""
    return [
        _item(each.offering_item, each.side, each.used_before, shown_quota(each.quota_before)) for each in plan.items
    ]


def items_after(plan: Plan) -> list[dict[str, Any]]:
    """The items of both sides as the plan leaves them."""
    return [_item(each.offering_item, each.side, each.used_after, shown_quota(each.quota_after)) for each in plan.items]


def _item(name: str, side: str, used: int, quota: Any) -> dict[str, Any]:
    nothing = {"value": None, "overage": None}
    return {"offering_item": name, "side": side, "used": used, "quota": quota or nothing}


def refusals(found: Iterable[Refusal]) -> list[dict[str, Any]]:
    """What stands in the way, as denials."""
    return [msgspec.to_builtins(each) for each in found]


def drifts(found: Iterable[Drift]) -> list[dict[str, Any]]:
    """What is other than it was."""
    return [msgspec.to_builtins(each) for each in found]


def emission(
    draft: Draft, tenant: str, switch_id: str, type_: str, content: Mapping[str, Any] | str, identity: str = "once"
) -> Emission:
    """An announcement. Its id depends on the switch and on what kind it is, so that there is one of each."""
    facts = announcements.facts(
        type_,
        tenant=tenant,
        subject=switch_id,
        identity=identity,
        time_ms=draft.now_ms,
        cause=draft.cause.id,
        traceparent=draft.cause.traceparent,
        data=content,
        by_content=False,
    )
    return Emission(facts)


def conclude(
    draft: Draft,
    step: Step,
    tenant: str,
    switch: Switch,
    content: Mapping[str, Any],
    *,
    denials_of: tuple[int, ...] = (),
    identity: str = "once",
) -> None:
    """Announce the last word on a switch, as the next announcement of the step, and remember it in the record.

    Where the ledger refused something, it keeps why: the answer can be given again with all of it.
    """
    ask_id = str(content["switch_id"])
    answer = announcements.encode(content)
    said = emission(draft, tenant, ask_id, switch.type, answer, identity)
    step.emit.append(Emission(said.facts, denials_of) if denials_of else said)
    if denials_of:
        step.wait = Wait(tenant, records.switch_waiting(ask_id), "\n[]", (), denials_of, indexed=False)
    remembered = msgspec.structs.replace(
        switch,
        answer=answer,
        number=len(step.emit),
        time_ms=draft.now_ms,
        cause=draft.cause.id,
        traceparent=draft.cause.traceparent,
        denied=bool(denials_of),
        identity=identity,
    )
    step.put.append((records.switch_key(tenant, ask_id), remembered))


def again(draft: Draft, step: Step, tenant: str, switch_id: str, known: Switch, version: int) -> None:
    """Give the same answer again, to the letter: id, content, time, cause and revision."""
    content = known.answer
    if known.denied:
        waiting = draft.view.read(records.waiting_key(tenant, records.switch_waiting(switch_id))).value
        content = announcements.add_denials(content, waiting.denials if waiting else ())
    facts = announcements.facts(
        known.type,
        tenant=tenant,
        subject=switch_id,
        identity=known.identity,
        time_ms=known.time_ms,
        cause=known.cause,
        traceparent=known.traceparent,
        data=content,
        by_content=False,
        revision=version + known.number,
    )
    step.emit.append(Emission(facts))


def digest(text: str) -> str:
    """What stands for a request, or for a switch, where it has to be short."""
    return facets.digest(text)
