"""What a switch would do to a customer, or to a whole selection of them (docs/domain.md 7).

The same computation as the switch itself, on what the ledger holds now; quotas of the tenants above are foreseen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from service import records
from service.handlers import selections, switch_endings, switch_jobs, switch_situations, switches, tree
from service.handlers.draft import Cause, Draft, View
from service.handlers.mass_switches import Selection
from service.handlers.stepping import Task
from service.handlers.work import path_keys
from service.ledger.transaction import Account, RecordKey
from service.rules import quotas, switch_room, switching
from service.rules.quotas import Quota
from service.rules.switch_drift import shown_quota
from service.rules.switch_plan import Options, Plan, Refusal, Situation, shown
from service.rules.switch_room import Level
from service.rules.tally import Tally

if TYPE_CHECKING:
    from service.handlers.engine import Engine

AT_ONCE = 200  # customers whose workloads are in memory together
REFUSED_MAX = 1000  # tenants that would be refused and are named with all their reasons

Taken = Counter[tuple[str, str]]  # units by (tenant above, item) that earlier customers of a selection would take


class Wish(NamedTuple):
    """What is to be previewed: for one application, a target, and how."""

    application: str
    target: str
    options: Options


class Preview(NamedTuple):
    """The plan, and the JSON of docs/contracts.md 4."""

    plan: Plan
    shown: dict[str, Any]


async def preview(engine: Engine, tenant_id: str, wish: Wish) -> Preview:
    """What would become of one customer of any size.

    What the plan was made from is kept for a while, so that a switch that names its hash can tell what has drifted.
    Raises ``TenantNotFoundError``.
    """
    node = await tree.find(engine.ledger, tenant_id)
    if node is tree.ROOT_NODE:
        why = f"only customers are switched, and {tenant_id} is root"
        plan = _refused(tenant_id, wish, Refusal("not_allowed", why, tenant_id=tenant_id, context={"code": "1027"}))
        return Preview(plan, {**shown(plan, tenant_id), "losing": []})
    planner = _Planner(engine, node.shard, wish, keep=True)
    await planner.plan_all([tenant_id])
    plan = planner.plans[tenant_id]
    return Preview(plan, {**shown(plan, tenant_id), "losing": _losing(plan)})


def _losing(plan: Plan) -> list[dict[str, Any]]:
    """Which workloads lose something that they have now, or are refused something that they are due, by type."""
    counted: Counter[tuple[str, tuple[str, ...], tuple[str, ...], bool]] = Counter()
    for outcome, shares in zip(plan.outcomes, plan.shares, strict=True):
        for share in shares:
            if outcome.lost or outcome.stranded or share.refused:
                counted[outcome.kind.facts.type, outcome.lost, share.refused, outcome.stranded] += share.count
    return [
        {
            "type": type_,
            "workloads": count,
            "features": list(lost),
            "items_refused": list(refused),
            "left_without_item": stranded,
        }
        for (type_, lost, refused, stranded), count in sorted(counted.items())
    ]


def _refused(tenant_id: str, wish: Wish, refusal: Refusal) -> Plan:
    nothing = Situation(tenant_id, wish.application, {}, {}, Tally())
    plan = switching.refused(nothing, None, wish.target, refusal.message)
    return msgspec.structs.replace(plan, refusals=(refusal,))


class _Planner:
    """Plans for customers of one shard; with ``taken``, as if those before had been switched already."""

    def __init__(
        self, engine: Engine, shard: int, wish: Wish, taken: Taken | None = None, *, keep: bool = False
    ) -> None:
        self._engine = engine
        self._shard = shard
        self._wish = wish
        self._taken = taken
        self._keep = keep
        self.plans: dict[str, Plan] = {}

    async def plan_all(self, tenants: Sequence[str]) -> None:
        """Work all of them out; those with many workloads one by one, after the others."""
        await self._engine.settle(self._shard, [self._task(tenant, None) for tenant in tenants])
        for tenant in tenants:
            if tenant not in self.plans:
                count = switch_jobs.Count(self._engine.ledger, self._shard)
                await count.count(tenant)
                await self._engine.settle(self._shard, [self._task(tenant, count.whole())])

    def _task(self, tenant: str, counted: Tally | None) -> Task:
        def needs(view: View) -> Iterable[RecordKey]:
            if counted is None:
                yield from switch_situations.needs(view, tenant)
            else:
                yield from path_keys(view, tenant)
                yield records.accounts_key(tenant)
            if view.is_placed(tenant) and (placement := view.placement(tenant)) is not None:
                yield from (records.accounts_key(name) for name in placement.path[1:])

        return Task(needs, lambda view: self._decide(view, tenant, counted))

    def _decide(self, view: View, tenant: str, counted: Tally | None) -> None:
        draft = Draft(view, Cause("preview"))
        plan = self._plan(draft, tenant, counted)
        if plan is None:
            return
        if self._keep and plan.direction is not None:
            switch_endings.keep_basis(draft, draft.step(), tenant, plan)
            draft.close()
        self.plans[tenant] = plan
        placement = view.placement(tenant)
        if self._taken is not None and plan.startable and placement is not None:
            for name, units in plan.units.items():
                for above in placement.path[1:]:
                    self._taken[above, name] += units

    def _plan(self, draft: Draft, tenant: str, counted: Tally | None) -> Plan | None:
        """The plan; None where the workloads are too many to have been read."""
        if draft.placement(tenant) is None:
            why = f"there is no tenant {tenant}, or none above it"
            refusal = Refusal("not_allowed", why, tenant_id=tenant, context={"code": "1005"})
            return _refused(tenant, self._wish, refusal)
        hindrance = switches.obstacle(draft, tenant)
        if hindrance is not None:
            return _refused(tenant, self._wish, hindrance)
        if counted is None:
            found = switch_situations.members(draft, tenant)
            if found is None:
                return None
            counted = switch_situations.counted(found)
        above = _levels_above(draft, tenant, self._taken or Counter())
        wish = self._wish
        situation = switch_situations.situation(draft, tenant, wish.application, counted, above)
        return switching.plan(draft.catalog, situation, wish.target, wish.options)


def _levels_above(draft: Draft, tenant: str, taken: Taken) -> tuple[Level, ...]:
    """The tenants above with what they use of the items that have a hard quota there."""
    placement = draft.placement(tenant)
    assert placement is not None  # it was looked for before
    levels = []
    for name in placement.path[1:]:
        items = draft.items(name)
        used: Mapping[str, Account] = draft.view.read(records.accounts_key(name)).value
        accounts = {
            item: switch_room.Account(
                used.get(item, Account()).used + taken[name, item],
                Quota(items.states[item].value, items.states[item].overage),
            )
            for item in items.limited
        }
        levels.append(Level(name, accounts))
    return tuple(levels)


# --- a whole selection


class Refused(msgspec.Struct, frozen=True):
    """A tenant that would be refused, with everything that stands in the way."""

    tenant_id: str
    denials: list[dict[str, Any]]


class SelectionPreview(msgspec.Struct):
    """What would become of a selection: sums over its customers, those that would be refused apart.

    ``items`` are the sums over the customers that would be switched; ``features_lost``, ``warnings`` and ``refusals``
    (by code) count customers. No more than some of ``refused`` are named.
    """

    tenants: int = 0
    switched: int = 0
    unchanged: int = 0
    refused: int = 0
    unknown: int = 0
    workloads: dict[str, int] = msgspec.field(default_factory=dict)
    items: list[dict[str, Any]] = msgspec.field(default_factory=list)
    features_lost: dict[str, int] = msgspec.field(default_factory=dict)
    warnings: dict[str, int] = msgspec.field(default_factory=dict)
    refusals: dict[str, int] = msgspec.field(default_factory=dict)
    refused_tenants: list[Refused] = msgspec.field(default_factory=list)


class _Sum(msgspec.Struct):
    used_before: int = 0
    used_after: int = 0
    quotas_before: Quota | None = None
    quotas_after: Quota | None = None


async def preview_selection(
    engine: Engine, selection: Selection, wish: Wish, progress: Callable[[int], None] = lambda _: None
) -> SelectionPreview:
    """What would become of a selection, in memory that does not grow with it; ``progress`` hears how many are done.

    Customers below the same tenant share its quota: each is looked at as if those before it had been switched. Raises
    ``TenantNotFoundError``.
    """
    adder = _Adder()
    taken: Taken = Counter()
    async for chosen in selections.select(engine.ledger, engine.catalog, wish.application, selection):
        adder.total.unknown += len(chosen.unknown)
        async for plans in _plans(engine, chosen.tenants, wish, taken):
            for tenant, plan in plans.items():
                adder.add(tenant, plan)
            progress(adder.total.tenants)
    return adder.result()


async def _plans(engine: Engine, tenants: Sequence[str], wish: Wish, taken: Taken) -> AsyncIterator[Mapping[str, Plan]]:
    for first in range(0, len(tenants), AT_ONCE):
        some = tenants[first : first + AT_ONCE]
        shards = await engine.ledger.locate(some)
        groups: dict[int, list[str]] = {}
        for tenant in some:
            if tenant in shards:
                groups.setdefault(shards[tenant], []).append(tenant)
        planners = [(_Planner(engine, shard, wish, taken), names) for shard, names in groups.items()]
        await tree.each(planners, lambda each: each[0].plan_all(each[1]))
        yield {tenant: plan for planner, _ in planners for tenant, plan in planner.plans.items()}


class _Adder:
    """Adds plans up."""

    def __init__(self) -> None:
        self.total = SelectionPreview()
        self._workloads: Counter[str] = Counter()
        self._items: dict[tuple[str, str], _Sum] = {}
        self._lost: Counter[str] = Counter()
        self._warnings: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()

    def add(self, tenant: str, plan: Plan) -> None:
        """Count one customer."""
        total = self.total
        total.tenants += 1
        if not plan.startable:
            total.refused += 1
            self._refusals.update({refusal.code for refusal in plan.refusals})
            if len(total.refused_tenants) < REFUSED_MAX:
                denials = [msgspec.to_builtins(refusal) for refusal in plan.refusals]
                total.refused_tenants.append(Refused(tenant, denials))
            return
        if plan.provision.disable:
            total.switched += 1
        else:
            total.unchanged += 1
        self._workloads.update(msgspec.to_builtins(plan.workloads))
        self._lost.update({name for names in plan.features_lost.values() for name in names})
        self._warnings.update({warning.code for warning in plan.warnings})
        for item in plan.items:
            known = self._items.setdefault((item.side, item.offering_item), _Sum())
            known.used_before += item.used_before
            known.used_after += item.used_after
            known.quotas_before = _together(known.quotas_before, item.quota_before)
            known.quotas_after = _together(known.quotas_after, item.quota_after)

    def result(self) -> SelectionPreview:
        """The sums; the source's items first."""
        total = self.total
        total.workloads = {name: self._workloads[name] for name in ("total", "changed", "losing_features", "denied")}
        total.items = [
            {
                "offering_item": name,
                "side": side,
                "used_before": each.used_before,
                "used_after": each.used_after,
                "quota_before": shown_quota(each.quotas_before),
                "quota_after": shown_quota(each.quotas_after),
            }
            for (side, name), each in sorted(self._items.items(), key=lambda entry: entry[0][0] != "source")
        ]
        for into, counted in (
            (total.features_lost, self._lost),
            (total.warnings, self._warnings),
            (total.refusals, self._refusals),
        ):
            into.update(sorted(counted.items()))
        return total


def _together(known: Quota | None, more: Quota | None) -> Quota | None:
    """Quotas added up; None where the item is off everywhere."""
    if known is None or more is None:
        return known or more
    return quotas.total((known, more))
