"""What a switch changes: the items of the customer, and what each of its workloads holds (docs/domain.md 7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from service import records
from service.handlers import announcements, assignments, enablement, switch_asides, switch_situations
from service.handlers.draft import Draft, Step
from service.handlers.moves import LookJob
from service.handlers.stepping import put_job
from service.handlers.switch_answers import Progress
from service.handlers.switch_situations import Member
from service.ledger.transaction import Emission, Take
from service.records import Items, ItemState, Switching, Workload
from service.rules import assignment as rules
from service.rules import facets
from service.rules.facets import Stamp
from service.rules.quotas import Quota
from service.rules.switch_plan import Plan
from service.rules.switch_reconciling import Outcome


def provide(draft: Draft, step: Step, tenant: str, plan: Plan, stamp: Stamp, switching: Switching | None) -> Items:
    """Turn the items on and off that the plan says, on the tenants above first where they lack them.

    Answers the customer's items afterwards; ``switching`` is the switch that is under way from now on.
    """
    placement = draft.placement(tenant)
    assert placement is not None  # the tenant has been read
    for above in reversed(placement.path[1:]):
        _enable_above(draft, step, above, plan.enable_above, stamp)
    before = draft.items(tenant)
    changes = {name: _on(before, name, quota, stamp) for name, quota in plan.provision.enable.items()}
    changes |= {name: _off(before, name, stamp) for name in plan.provision.disable if name not in changes}
    marked = before.switched(switching)
    enablement.apply(draft, step, tenant, marked, changes, "switch")
    return marked.changed(changes)


def _enable_above(draft: Draft, step: Step, tenant: str, names: Iterable[str], stamp: Stamp) -> None:
    before = draft.items(tenant)
    missing = [name for name in names if name not in before.enabled]
    if missing:
        changes = {name: _on(before, name, Quota(None, None), stamp) for name in missing}
        enablement.apply(draft, step, tenant, before, changes, "switch")


def _on(before: Items, name: str, quota: Quota, stamp: Stamp) -> ItemState:
    known = before.states.get(name, enablement.OFF)
    same = (1, quota.value, quota.overage) == enablement.visible(known)
    return ItemState(1, quota.value, quota.overage, known.version + (not same), facets.newest(stamp, known.stamp))


def _off(before: Items, name: str, stamp: Stamp) -> ItemState:
    known = before.states.get(name, enablement.OFF)
    return ItemState(0, version=known.version + 1, stamp=facets.newest(stamp, known.stamp))


def move_all(
    draft: Draft, step: Step, tenant: str, found: Sequence[Member], plan: Plan, after: Items, mark: str | None
) -> Progress:
    """Move every workload in this one step: units by the net, a record and an announcement for each.

    ``mark`` stands for the switch, where what was held before it is to be remembered.
    """
    mover = _Mover(draft, step, after, mark)
    outcomes = switch_situations.outcomes_of(plan)
    for member in found:
        mover.move(member, outcomes[member.kind] if member.kind is not None else None)
    step.take.extend(mover.net())
    known = list(outcomes.values())
    if any(outcome.waits for outcome in known):
        job = LookJob(
            tenant, "switch", draft.cause.id, draft.cause.traceparent, waiting=True, named=tuple(mover.to_wait)
        )
        put_job(step, f"look/switch/{tenant}", job, draft.now_ms)
    total = sum(outcome.count for outcome in known if outcome.kind.held or outcome.after)
    denied = sum(outcome.count for outcome in known if outcome.stranded)
    return Progress(total, total - denied, denied)


def move_some(draft: Draft, step: Step, tenant: str, found: Mapping[str, Outcome], mark: str | None) -> None:
    """Move workloads of one tenant whose units are set aside, and who wait for nothing more."""
    placement = draft.placement(tenant)
    assert placement is not None  # the tenant has been read
    mover = _Mover(draft, step, placement.items, mark, aside=True)
    for name, outcome in found.items():
        mover.move(Member(tenant, name, draft.workload(tenant, name), outcome.kind), outcome)
    step.take.extend(mover.net())


class _Mover:
    """Workloads on their way; what they take and give back together goes to the ledger by the net.

    ``aside``: what they take is set aside for them already.
    """

    def __init__(self, draft: Draft, step: Step, after: Items, mark: str | None, *, aside: bool = False) -> None:
        editions = rules.edition_of(draft.catalog, after.enabled)
        self._draft = draft
        self._step = step
        self._mark = mark
        self._edition = next(iter(editions.values()), None)
        self._gauges = rules.gauge_items(draft.catalog, editions, after.enabled, assignments.GAUGES)
        self._takes: Counter[tuple[tuple[str, ...], str, bool]] = Counter()
        self._aside = aside
        self._claims: Counter[tuple[tuple[str, ...], str]] = Counter()
        self.to_wait: list[tuple[str, str]] = []  # for what, a look at each of them has to say

    def net(self) -> Iterator[Take]:
        """What all of them take and give back, by path and item."""
        for (path, item, fact), units in self._takes.items():
            if units:
                yield Take(path, item, units, fact=fact)
        for (path, item), units in self._claims.items():
            yield Take(path, item, 0, -units)
            yield switch_asides.counting(path[0], item, -units)

    def move(self, member: Member, outcome: Outcome | None) -> None:
        """One workload; one that is not registered has no outcome, and keeps what it may hold."""
        before, step = member.workload, self._step
        now = self._now(before, outcome)
        if outcome is not None and outcome.waits and not before.waiting:
            self.to_wait.append((member.tenant, member.id))
        if now == before:
            return
        self._count(member, now)
        step.put.append((records.workload_key(member.tenant, member.id), now))
        if before.waiting and not now.waiting:
            step.unwait.append((member.tenant, member.id))
        if now.announced != before.announced:
            step.emit.append(self._changed(member, now))

    def _now(self, before: Workload, outcome: Outcome | None) -> Workload:
        holding = tuple(before.holding) if outcome is None else outcome.after
        uncovered = before.uncovered if outcome is None else outcome.uncovered
        counted: dict[str, int] = {}
        for gauge, item in self._gauges.items():
            if before.type is not None and before.gauges.get(gauge):
                counted[item] = counted.get(item, 0) + before.gauges[gauge]
        changed = set(holding) != set(before.holding) or uncovered != before.uncovered
        remembered = (self._mark, *sorted(before.holding)) if self._mark and before.holding else ()
        return msgspec.structs.replace(
            before,
            holding={item: before.holding.get(item, self._draft.now_ms) for item in holding},
            uncovered=uncovered,
            waiting=before.waiting and outcome is not None and outcome.waits,
            announced=before.announced + changed,
            counted=counted,
            former=remembered,
        )

    def _count(self, member: Member, now: Workload) -> None:
        placement = self._draft.placement(member.tenant)
        assert placement is not None  # every member has been read with its way up
        before = member.workload
        for item in now.holding.keys() ^ before.holding.keys():
            if item not in now.holding:
                self._takes[placement.path, item, False] -= 1
            elif self._aside:
                self._claims[placement.path, item] += 1
            else:
                self._takes[placement.path, item, False] += 1
        for item in now.counted.keys() | before.counted.keys():
            self._takes[placement.path, item, True] += now.counted.get(item, 0) - before.counted.get(item, 0)

    def _changed(self, member: Member, now: Workload) -> Emission:
        before = member.workload.holding
        content = {
            "workload_id": member.id,
            "workload_type": now.type,
            "edition": self._edition,
            "assigned": {item: 1 for item in now.holding if item not in before},
            "released": {item: 1 for item in before if item not in now.holding},
            "holding": dict.fromkeys(now.holding, 1),
            "uncovered_features": now.uncovered,
            "reason": "switch",
        }
        text = announcements.encode(content)
        return assignments.changed(self._draft, member.tenant, member.id, now.announced, text)
