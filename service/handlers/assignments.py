"""What a workload should hold, turned into a transaction (docs/domain.md 6).

Every handler that changes something a workload's assignment depends on ends here. The rules say what the workload
should hold, in order of preference; the ledger tries these ways in that order, and the quotas decide.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from service import records
from service.handlers import announcements, outlines, switch_asides
from service.handlers.draft import Draft, Placement, Step
from service.handlers.features import features_of
from service.handlers.outlines import Case, Way
from service.ledger.transaction import Emission, Place, RecordKey, Take, Timer, Wait
from service.records import Workload
from service.rules import assignment as rules
from service.rules.facets import REMEMBERED_SECONDS

GAUGES = ("storage_bytes", "local_storage_bytes")


class Released(NamedTuple):
    """What comes back in the same step as an assignment: a reservation that is committed, for example."""

    take: Sequence[Take] = ()
    put: Sequence[tuple[RecordKey, Any]] = ()
    timers: Sequence[Timer] = ()
    emit: Sequence[Emission] = ()


def reassign(
    draft: Draft,
    tenant: str,
    workload_id: str,
    now: Workload,
    reason: str,
    *,
    released: Released | None = None,
    shown_type: str | None = None,
) -> None:
    """Bring what a workload holds in line with its state ``now`` (its record with the old holding).

    The draft gets one step for every way to go on, best first. ``shown_type`` is what to call a workload that has none
    any more.
    """
    placement = _placement(draft, tenant)
    now = _forget_revoked(now, draft.now_ms)
    counted = _counted(draft, placement, now)
    case = _case(draft, placement, tenant, now, shown_type)
    if placement.items.switching is not None:
        aside, now = switch_asides.claim(draft, placement, tenant, workload_id, now)
        case = case._replace(aside=aside, member=tenant)
    if now.former:
        now = _without_former(draft, tenant, workload_id, now)
    outline = outlines.outline(draft.catalog, placement, case)
    for way in outline.ways:
        step = draft.step()
        if released is not None:
            step.take.extend(released.take)
            step.put.extend(released.put)
            step.timers.extend(released.timers)
            step.emit.extend(released.emit)
        _write(draft, step, placement, tenant, workload_id, now, way, counted, reason)
    draft.provisional = outline.provisional


def revoke(
    draft: Draft, tenant: str, workload_id: str, item: str, denial: Mapping[str, Any], places: Sequence[Place]
) -> None:
    """Take an item from a workload, with the packs that are of no use without it; the workload waits for it."""
    placement = _placement(draft, tenant)
    now = draft.workload(tenant, workload_id)
    if item in now.holding:
        case = Case(tuple(now.holding), now.uncovered, now.type)
        way = outlines.without(draft.catalog, placement, case, item, denial, places)
        _write(draft, draft.step(), placement, tenant, workload_id, now, way, now.counted, "quota")


def recount(draft: Draft, tenant: str, workload_id: str, now: Workload) -> None:
    """Count the reported bytes of a workload anew, and leave what it holds alone."""
    placement = _placement(draft, tenant)
    counted = _counted(draft, placement, now)
    step = draft.step()
    step.take.extend(_gauge_takes(placement.path, now.counted, counted))
    step.put.append((records.workload_key(tenant, workload_id), msgspec.structs.replace(now, counted=counted)))


def close_unwritten(draft: Draft, before: Workload) -> None:
    """Hand the transaction over, and write nothing where all is as it was: most of what a job looks at again is right.

    That it is right was decided on records out of a cache; so the ledger is asked in any case whether they still hold.
    ``before`` is the workload's record as it was read.
    """
    step = draft.steps[0]
    acts = step.take or step.wait or step.unwait or step.emit or step.index or step.timers
    if len(draft.steps) == 1 and not acts and all(value == before for _, value in step.put):
        step.put.clear()
    draft.close()


def _without_former(draft: Draft, tenant: str, workload_id: str, now: Workload) -> Workload:
    """The record; what was held before a switch is forgotten where it is another workload now, or its plans others."""
    known: Workload | None = draft.view.read(records.workload_key(tenant, workload_id)).value
    same = known is not None and _wishes(known) == _wishes(now)
    return now if same else msgspec.structs.replace(now, former=())


def _wishes(workload: Workload) -> tuple[object, ...]:
    applied = {plan for plan, link in workload.links.items() if link.applied}
    return workload.type, workload.os, workload.os_family, workload.virtual, applied


def _placement(draft: Draft, tenant: str) -> Placement:
    placement = draft.placement(tenant)
    if placement is None:
        raise AssertionError("the workload's tenant is known at this point")
    return placement


def _case(draft: Draft, placement: Placement, tenant: str, now: Workload, shown_type: str | None) -> Case:
    """Where the workload stands."""
    held = tuple(now.holding)
    if now.type is None:
        return Case(held, now.uncovered, shown_type)
    features, protected = features_of(now, functools.partial(draft.plan, tenant))
    facts = rules.WorkloadFacts(now.type, now.os, now.os_family, now.virtual)
    abundant = draft.view.is_abundant(placement)
    return Case(held, now.uncovered, shown_type or now.type, facts, features, protected, abundant)


def _forget_revoked(workload: Workload, now_ms: int) -> Workload:
    """The record without plans that were revoked more than a day ago."""
    forget_before_ms = now_ms - REMEMBERED_SECONDS * 1000
    links = {plan: link for plan, link in workload.links.items() if link.applied or link.ended_ms >= forget_before_ms}
    return workload if len(links) == len(workload.links) else msgspec.structs.replace(workload, links=links)


def _counted(draft: Draft, placement: Placement, now: Workload) -> dict[str, int]:
    """Where the reported bytes are counted now: gauges are facts, and count while their item is enabled."""
    if now.type is None or not now.gauges:
        return {}
    items = placement.remembered.get(GAUGES)
    if items is None:
        items = rules.gauge_items(draft.catalog, placement.editions, placement.items.enabled, GAUGES)
        placement.remembered[GAUGES] = items
    counted: dict[str, int] = {}
    for gauge, item in items.items():
        if now.gauges.get(gauge):
            counted[item] = counted.get(item, 0) + now.gauges[gauge]
    return counted


def _gauge_takes(path: tuple[str, ...], before: Mapping[str, int], after: Mapping[str, int]) -> Iterable[Take]:
    for item in before.keys() | after.keys():
        difference = after.get(item, 0) - before.get(item, 0)
        if difference:
            yield Take(path, item, difference, fact=True)


def _write(
    draft: Draft,
    step: Step,
    placement: Placement,
    tenant: str,
    workload_id: str,
    now: Workload,
    way: Way,
    counted: Mapping[str, int],
    reason: str,
) -> None:
    """What one way means for this workload: units, record, waiting, announcements."""
    if way.takes:
        step.take.extend(way.takes)
    if counted != now.counted:
        step.take.extend(_gauge_takes(placement.path, now.counted, counted))
    announced = now.announced
    if way.changed is not None:
        announced += 1
        content = f'{{"workload_id":"{workload_id}",{way.changed},"reason":"{reason}"}}'
        step.emit.append(changed(draft, tenant, workload_id, announced, content))
    if way.denied is not None and way.static is not None:
        # Not counted: whether it is announced at all, only the ledger knows, and looking twice must not show.
        step.wait = Wait(tenant, workload_id, way.static, way.places, way.denials_of)
        content = f'{{"workload_id":"{workload_id}",{way.denied}}}'
        facts = _facts(draft, announcements.ASSIGNMENT_DENIED, tenant, workload_id, announced, content)
        step.emit.append(Emission(facts, way.denials_of, unless_same=True))
    elif now.waiting:
        step.unwait.append((tenant, workload_id))
    after = msgspec.structs.replace(
        now,
        holding={item: now.holding.get(item, draft.now_ms) for item in way.holding},
        uncovered=way.uncovered,
        waiting=way.denied is not None,
        announced=announced,
        counted=counted,
    )
    step.put.append((records.workload_key(tenant, workload_id), after))
    if placement.items.switching is not None and placement.items.switching.preparing:
        step.include(records.disturbed_index(placement.customer), f"{tenant}/{workload_id}")
        step.take.append(Take((placement.customer,), records.DISTURBANCES, 1, fact=True))


def changed(draft: Draft, tenant: str, workload_id: str, number: int, content: str) -> Emission:
    """The announcement of what a workload holds now; ``number`` counts those of it, ``content`` is its data as JSON."""
    return Emission(_facts(draft, announcements.ASSIGNMENT_CHANGED, tenant, workload_id, number, content))


def _facts(draft: Draft, type_: str, tenant: str, workload_id: str, number: int, content: str) -> str:
    return announcements.facts(
        type_,
        tenant=tenant,
        subject=workload_id,
        identity=f"{number}/{draft.cause.id}",
        time_ms=draft.now_ms,
        cause=draft.cause.id,
        traceparent=draft.cause.traceparent,
        data=content,
    )
