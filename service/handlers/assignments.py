"""What a workload should hold, turned into a transaction (docs/domain.md 6).

Every handler that changes something a workload's assignment depends on ends here. The rules say what the workload
should hold, in order of preference; the ledger tries these ways in that order, and the quotas decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from service import records
from service.catalog.model import WHOLE_ROLES, Role
from service.handlers import announcements
from service.handlers.draft import Draft, Placement, Step
from service.ledger.transaction import ANY_ITEM, Emission, Place, RecordKey, Take, Timer, Wait
from service.records import Workload
from service.rules import assignment as rules
from service.rules.facets import REMEMBERED_SECONDS, time_us

SAME_REASONS = ("code", "offering_item", "tenant_id")  # a refusal for the same of these is not announced again
GAUGES = ("storage_bytes", "local_storage_bytes")


class Released(NamedTuple):
    """What comes back in the same step as an assignment: a reservation that is committed, for example."""

    take: Sequence[Take] = ()
    put: Sequence[tuple[RecordKey, Any]] = ()
    timers: Sequence[Timer] = ()
    emit: Sequence[Emission] = ()


class _Way(NamedTuple):
    """One way to go on: what is held afterwards, and why it is not all that was wanted."""

    holding: Mapping[str, int]
    uncovered: tuple[str, ...]
    reasons: tuple[Mapping[str, Any], ...]  # denials as others see them, but for those that only the ledger knows
    requested: Mapping[str, int]  # what the refused step asked for
    denials_of: tuple[int, ...]  # the refused attempts whose denials belong to it
    places: tuple[Place, ...] = ()  # where to wait, besides the tenant and the places of those denials


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
    placement = draft.placement(tenant)
    if placement is None:
        raise AssertionError("the workload's tenant is known at this point")
    now = _forget_revoked(now, draft.now_ms)
    counted = _counted(draft, placement, now)
    for way in _ways(draft, placement, tenant, now):
        step = draft.step()
        if released is not None:
            step.take.extend(released.take)
            step.put.extend(released.put)
            step.timers.extend(released.timers)
            step.emit.extend(released.emit)
        _Change(draft, placement, tenant, workload_id, now, way, counted, shown_type).write(step, reason)


def revoke(
    draft: Draft, tenant: str, workload_id: str, item: str, denial: Mapping[str, Any], places: Sequence[Place]
) -> None:
    """Take an item from a workload, with the packs that are of no use without it; the workload waits for it."""
    placement = draft.placement(tenant)
    if placement is None:
        raise AssertionError("the workload's tenant is known at this point")
    now = draft.workload(tenant, workload_id)
    if item in now.holding:
        gone = {item} | {name for name in now.holding if _depends(draft, name, item)}
        kept = {name: 1 for name in now.holding if name not in gone}
        asked = dict.fromkeys(sorted(gone), 1)
        way = _Way(kept, now.uncovered, (denial,), asked, (), tuple(places))
        _Change(draft, placement, tenant, workload_id, now, way, now.counted, None).write(draft.step(), "quota")


def _depends(draft: Draft, name: str, item: str) -> bool:
    """Whether a held item is of no use without another: a pack without its base, or without what it requires."""
    held, lost = draft.catalog.item(name), draft.catalog.item(item)
    if item in draft.catalog.requirements(name):
        return True
    return lost.role in WHOLE_ROLES and held.edition == lost.edition and held.application_id == lost.application_id


def recount(draft: Draft, tenant: str, workload_id: str, now: Workload) -> None:
    """Count the reported bytes of a workload anew, and leave what it holds alone."""
    placement = draft.placement(tenant)
    if placement is None:
        raise AssertionError("the workload's tenant is known at this point")
    counted = _counted(draft, placement, now)
    step = draft.step()
    step.take.extend(_gauge_takes(placement.path, now.counted, counted))
    step.put.append((records.workload_key(tenant, workload_id), msgspec.structs.replace(now, counted=counted)))


def _gauge_takes(path: tuple[str, ...], before: Mapping[str, int], after: Mapping[str, int]) -> Iterable[Take]:
    for item in before.keys() | after.keys():
        difference = after.get(item, 0) - before.get(item, 0)
        if difference:
            yield Take(path, item, difference, fact=True)


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


def requested_features(draft: Draft, tenant: str, workload: Workload) -> tuple[frozenset[str], bool]:
    """The features that the enabled plans on a workload request, and whether there is such a plan at all."""
    features: set[str] = set()
    protected = False
    for plan_id, link in workload.links.items():
        if not link.applied:
            continue
        plan = draft.plan(tenant, plan_id)
        if plan is None or plan.deleted or not plan.enabled or time_us(link.stamp) < plan.deleted_at_us:
            continue
        protected = True
        features.update(plan.features)
    return frozenset(features), protected


def _ways(draft: Draft, placement: Placement, tenant: str, now: Workload) -> list[_Way]:
    """The ways to go on, best first: each candidate with its packs, then without; at last, only what is given up."""
    if now.type is None:
        return [_Way({}, (), (), {}, ())]
    features, protected = requested_features(draft, tenant, now)
    facts = rules.WorkloadFacts(now.type, now.os, now.os_family, now.virtual)
    decision = rules.decide(draft.catalog, placement.editions, placement.items.enabled, facts, features, protected)
    if not decision.candidates:
        return [_Way({}, decision.uncovered_features, _shown(decision.denials), {}, ())]
    if placement.blocked:
        return [_blocked(draft, placement, now, decision.candidates)]
    return _attempts(draft, placement, now, decision.candidates)


def _attempts(draft: Draft, placement: Placement, now: Workload, candidates: Sequence[rules.Candidate]) -> list[_Way]:
    ways: list[_Way] = []
    bases_refused: list[int] = []
    for candidate in candidates:
        base = dict.fromkeys(candidate.items, 1)
        packs = dict.fromkeys(candidate.packs, 1)
        reasons = _shown(candidate.denials)
        ways.append(_Way(base | packs, candidate.uncovered, reasons, {}, ()))
        if not any(item in placement.limited and item not in now.holding for item in (*base, *packs)):
            return ways  # no quota on the path can refuse it, and the decision expects that to stay so
        missing_packs = {item: 1 for item in packs if item not in now.holding}
        if missing_packs:
            held_packs = {item: 1 for item in packs if item in now.holding}
            tried = (len(ways) - 1,)
            ways.append(_Way(base | held_packs, candidate.uncovered, reasons, missing_packs, tried))
        bases_refused.append(len(ways) - 1)
        if all(item in now.holding for item in base):
            return ways  # nothing is asked for in the base step, so it cannot be refused
    first = candidates[0]
    missing = {item: 1 for item in first.items if item not in now.holding}
    kept = _kept(draft, placement, now, candidates)
    ways.append(_Way(kept, first.uncovered, _shown(first.denials), missing, tuple(bases_refused)))
    return ways


def _blocked(draft: Draft, placement: Placement, now: Workload, candidates: Sequence[rules.Candidate]) -> _Way:
    """Nothing new is acquired on or below a disabled or suspended tenant; releases go on.

    Who holds the second best waits too: once the tenant may acquire again, it is due the best.
    """
    first = candidates[0]
    missing = {item: 1 for item in (*first.items, *first.packs) if item not in now.holding}
    kept = _kept(draft, placement, now, candidates)
    if not missing:
        return _Way(kept, first.uncovered, _shown(first.denials), {}, ())
    return _Way(kept, first.uncovered, (*_shown(first.denials), *disabled_denials(placement)), missing, ())


def disabled_denials(placement: Placement) -> list[dict[str, Any]]:
    """What is said where nothing new may be acquired: every tenant of the path that is the reason."""
    return [
        {"code": "tenant_disabled", "tenant_id": name, "message": f"{name} is disabled, suspended or deleted"}
        for name in placement.blocked
    ]


def _kept(draft: Draft, placement: Placement, now: Workload, candidates: Sequence[rules.Candidate]) -> dict[str, int]:
    """What stays where the base is refused: the old base, and the packs held that are still needed beside it."""
    needed = {item for candidate in candidates for item in (*candidate.items, *candidate.packs)}
    held = [draft.catalog.find_item(name) for name in now.holding]
    enabled = [item for item in held if item is not None and item.name in placement.items.enabled]
    based = {item.edition for item in enabled if _is_base(draft, placement, item.name)}
    return {
        item.name: 1
        for item in enabled
        if (item.role in WHOLE_ROLES and item.edition in based)
        or (item.name in needed and (item.role is not Role.PACK or item.edition in based))
    }


def _is_base(draft: Draft, placement: Placement, name: str) -> bool:
    item = draft.catalog.find_item(name)
    if item is None or item.role not in WHOLE_ROLES:
        return False
    return placement.editions.get(item.application_id) == item.edition


def _forget_revoked(workload: Workload, now_ms: int) -> Workload:
    """The record without plans that were revoked more than a day ago."""
    forget_before_ms = now_ms - REMEMBERED_SECONDS * 1000
    links = {plan: link for plan, link in workload.links.items() if link.applied or link.ended_ms >= forget_before_ms}
    return workload if len(links) == len(workload.links) else msgspec.structs.replace(workload, links=links)


def _counted(draft: Draft, placement: Placement, now: Workload) -> dict[str, int]:
    """Where the reported bytes are counted now: gauges are facts, and count while their item is enabled."""
    if now.type is None or not now.gauges:
        return {}
    items = rules.gauge_items(draft.catalog, placement.editions, placement.items.enabled, tuple(now.gauges))
    counted: dict[str, int] = {}
    for gauge, item in items.items():
        if now.gauges[gauge]:
            counted[item] = counted.get(item, 0) + now.gauges[gauge]
    return counted


class _Change:
    """From what a workload holds to what it holds on one way: units, record, waiting, announcements."""

    def __init__(
        self,
        draft: Draft,
        placement: Placement,
        tenant: str,
        workload_id: str,
        now: Workload,
        way: _Way,
        counted: Mapping[str, int],
        shown_type: str | None,
    ) -> None:
        self.draft = draft
        self.shown_type = shown_type or now.type
        self.placement = placement
        self.tenant = tenant
        self.workload_id = workload_id
        self.now = now
        self.way = way
        self.counted = counted
        self.assigned = {item: n for item, n in way.holding.items() if item not in now.holding}
        self.released = {item: 1 for item in now.holding if item not in way.holding}
        self.waits = bool(way.reasons or way.denials_of)

    def write(self, step: Step, reason: str) -> None:
        step.take.extend(self._takes())
        announced = self.now.announced
        if self.assigned or self.released or self.way.uncovered != self.now.uncovered:
            announced += 1
            step.emit.append(self._changed(reason, announced))
        if self.waits:
            # Not counted: whether it is announced at all, only the ledger knows, and looking twice must not show.
            step.wait = self._wait()
            step.emit.append(self._denied(announced))
        elif self.now.waiting:
            step.unwait.append((self.tenant, self.workload_id))
        after = msgspec.structs.replace(
            self.now,
            holding={item: self.now.holding.get(item, self.draft.now_ms) for item in self.way.holding},
            uncovered=self.way.uncovered,
            waiting=self.waits,
            announced=announced,
            counted=dict(self.counted),
        )
        step.put.append((records.workload_key(self.tenant, self.workload_id), after))

    def _takes(self) -> Iterable[Take]:
        path = self.placement.path
        for item, quantity in self.released.items():
            yield Take(path, item, -quantity)
        for item, quantity in self.assigned.items():
            yield Take(path, item, quantity)
        yield from _gauge_takes(path, self.now.counted, self.counted)

    def _wait(self) -> Wait:
        customer = Place(self.placement.customer, ANY_ITEM)
        disabled = (Place(name, ANY_ITEM) for name in self.placement.blocked if name != customer.tenant)
        return Wait(
            tenant=self.tenant,
            who=self.workload_id,
            static=reasons_text(self.way.reasons),
            places=(customer, *disabled, *self.way.places),
            denials_of=self.way.denials_of,
        )

    def _changed(self, reason: str, number: int) -> Emission:
        data = {
            **self._about(),
            "assigned": self.assigned,
            "released": self.released,
            "holding": self.way.holding,
            "uncovered_features": self.way.uncovered,
            "reason": reason,
        }
        return Emission(self._facts(announcements.ASSIGNMENT_CHANGED, number, data))

    def _denied(self, number: int) -> Emission:
        data = {
            **self._about(),
            "requested": self.way.requested,
            "holding": self.way.holding,
            "denials": self.way.reasons,
            "uncovered_features": self.way.uncovered,
        }
        facts = self._facts(announcements.ASSIGNMENT_DENIED, number, data)
        return Emission(facts, denials_of=self.way.denials_of, unless_same=True)

    def _about(self) -> dict[str, Any]:
        return {
            "workload_id": self.workload_id,
            "workload_type": self.shown_type,
            "edition": self.placement.edition,
        }

    def _facts(self, type_: str, number: int, data: Mapping[str, Any]) -> str:
        return announcements.facts(
            type_,
            tenant=self.tenant,
            subject=self.workload_id,
            identity=f"{number}/{self.draft.cause.id}",
            time_ms=self.draft.now_ms,
            cause=self.draft.cause.id,
            traceparent=self.draft.cause.traceparent,
            data=data,
        )


_json = msgspec.json.Encoder().encode


def reasons_text(reasons: Sequence[Mapping[str, Any]]) -> str:
    """Reasons as they are kept with who waits: what makes two refusals the same, and then all there is to say."""
    same = sorted({"/".join(str(reason.get(part, "")) for part in SAME_REASONS) for reason in reasons})
    return f"{' '.join(same)}\n{_json(reasons).decode()}"


def reasons_of(text: str) -> list[dict[str, Any]]:
    """The reasons behind such a text."""
    reasons: list[dict[str, Any]] = msgspec.json.decode(text.partition("\n")[2] or "[]")
    return reasons


def _shown(denials: Sequence[rules.Denial]) -> tuple[dict[str, Any], ...]:
    """Reasons that no quota has to do with, as others see them."""
    shown = []
    for denial in denials:
        data: dict[str, Any] = {"code": denial.code}
        if denial.offering_item is not None:
            data["offering_item"] = denial.offering_item
        if denial.feature is not None:
            data["feature"] = denial.feature
        shown.append(data | {"message": denial.message})
    return tuple(shown)
