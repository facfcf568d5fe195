"""A switch of a customer between editions and billing modes, worked out before anything is done (docs/domain.md 7).

``plan`` turns what was found into a value that says everything: the preview shows it, the switch carries it out. Pure:
the same situation gives the same plan with the same hash, whatever the order of what it is made of.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from service.catalog import model
from service.catalog.model import WHOLE_ROLES
from service.rules import (
    assignment,
    switch_drift,
    switch_mapping,
    switch_reconciling,
    switch_room,
    switch_undo,
    switch_warnings,
)
from service.rules.quotas import Quota
from service.rules.switch_drift import Basis, Drift
from service.rules.switch_mapping import Direction, Provision, Source
from service.rules.switch_plan import Counts, Options, Plan, PlanItem, Refusal, Side, Situation, Usage
from service.rules.switch_reconciling import Outcome, Sides
from service.rules.switch_room import Account, Level, Share
from service.rules.switch_undo import Kept

_UNUSED = Usage()
_STRICT = Options()


def plan(catalog: model.Catalog, situation: Situation, target: str, options: Options = _STRICT) -> Plan:
    """The plan to switch a customer to an edition or billing mode.

    Always a plan: where there is no such switch, one that moves nothing, is not ``startable`` and says why in
    ``refusals``. Whether the tenant is a customer and not deleted, and whether another switch is running, is for the
    caller to look at.
    """
    source = source_edition(catalog, situation)
    way = switch_mapping.direction(catalog, situation.application, source, target)
    if not isinstance(way, Direction):  # a direction is a string too
        return refused(situation, source, target, way)
    assert source is not None  # or there would be no way
    of_source = _of_edition(catalog, situation.items, source)
    served = _served(catalog, situation, source)
    provision = switch_mapping.provision(catalog, way, Source(source, of_source, served), target, options.pack_quota)
    pairs = switch_mapping.counterparts(catalog, source, target) if way is Direction.MODE_TO_MODE else {}
    return _provisioned(catalog, situation, way, target, provision, options, pairs)


class UndoPlan(NamedTuple):
    """The plan back, and what is other than the switch left it: kept where it can be, listed in any case."""

    plan: Plan
    drift: tuple[Drift, ...]


def undo(catalog: model.Catalog, situation: Situation, kept: Kept, options: Options = _STRICT) -> UndoPlan:
    """The plan to restore what a switch has changed.

    Items and quotas are those before the switch. A workload with a ``former`` holding takes it up again where that
    still is a way to cover it, exactly or in part; the others are reconciled from the features they have now. Not
    startable where the customer has been switched again since.
    """
    source = source_edition(catalog, situation)
    if source != kept.to_edition:
        why = f"the switch led to {kept.to_edition}, and the customer is on {source or 'no edition'} now"
        return UndoPlan(refused(situation, source, kept.from_edition, why), ())
    way = switch_mapping.direction(catalog, kept.application, source, kept.from_edition)
    assert isinstance(way, Direction)  # what was switched can be switched back
    current = Source(source, _of_edition(catalog, situation.items, source), _served(catalog, situation, source))
    if way is Direction.NOTHING:
        return UndoPlan(plan(catalog, situation, source, options), ())
    provision, drift = switch_undo.restore(catalog, kept, current)
    pairs = switch_mapping.counterparts(catalog, source, kept.from_edition) if way is Direction.MODE_TO_MODE else {}
    return UndoPlan(_provisioned(catalog, situation, way, kept.from_edition, provision, options, pairs), drift)


def keep(made: Plan) -> Kept:
    """What has to be kept of a switch that was carried out, so that it can be undone."""
    basis = made.basis
    assert basis.from_edition is not None  # a refused plan is not carried out
    return Kept(basis.application, basis.from_edition, basis.to_edition, basis.before, basis.after)


def source_edition(catalog: model.Catalog, situation: Situation) -> str | None:
    """The customer's edition or billing mode of the application; None where it has none yet."""
    return _editions(catalog, frozenset(situation.items)).get(situation.application)


@functools.lru_cache(maxsize=switch_mapping.CACHE_SIZE_MAX)
def _editions(catalog: model.Catalog, enabled: frozenset[str]) -> Mapping[str, str]:
    return assignment.edition_of(catalog, enabled)


def _provisioned(
    catalog: model.Catalog,
    situation: Situation,
    way: Direction,
    target: str,
    provision: Provision,
    options: Options,
    pairs: Mapping[str, str],
) -> Plan:
    """The plan that comes of turning exactly these items on and off; ``pairs`` as in ``switch_reconciling.Sides``."""
    sides = _sides(catalog, situation, target, provision, pairs)
    if way is Direction.NOTHING:
        outcomes = tuple(Outcome(kind, count, kind.held) for kind, count in situation.tally.entries())
    else:
        outcomes = tuple(
            switch_reconciling.reconcile(catalog, sides, kind, count) for kind, count in situation.tally.entries()
        )
    units = switch_room.net_units(outcomes)
    own = _own_level(situation, provision, units)
    shares = tuple(switch_room.share_out(catalog, (own, *situation.above), outcomes))
    reached = shares if options.mode == "best_effort" else tuple((Share(each.count, each.after),) for each in outcomes)
    items = _items(catalog, situation, sides, provision, _reached_units(outcomes, reached))
    lost, gained = _features(catalog, situation, sides)
    workloads = _counts(catalog, outcomes, shares)
    missing = _missing(situation, provision)
    hindrances = () if options.enable_on_ancestors else _not_enabled(situation, missing)
    shortages = (*_stranded(sides, outcomes), *_quota_refusals((own, *situation.above), units))
    basis = _basis(situation, sides, provision, outcomes)
    return Plan(
        from_edition=sides.source,
        to_edition=target,
        direction=way,
        provision=provision,
        enable_above=missing if options.enable_on_ancestors else (),
        outcomes=outcomes,
        shares=shares,
        units=units,
        items=items,
        workloads=workloads,
        features_lost=lost,
        features_gained=gained,
        warnings=switch_warnings.warnings(catalog, way, provision, items, workloads, lost, gained),
        refusals=(*hindrances, *shortages),
        startable=not hindrances and (options.mode == "best_effort" or not shortages),
        plan_hash=switch_drift.plan_hash(basis),
        basis=basis,
    )


def refused(situation: Situation, source: str | None, target: str, why: str) -> Plan:
    """A plan that moves nothing and says why."""
    basis = Basis(situation.application, source, target, {}, {}, (), "")
    return Plan(
        from_edition=source,
        to_edition=target,
        direction=None,
        provision=Provision({}, ()),
        enable_above=(),
        outcomes=(),
        shares=(),
        units={},
        items=(),
        workloads=Counts(),
        features_lost={},
        features_gained={},
        warnings=(),
        refusals=(Refusal("not_allowed", why, tenant_id=situation.tenant_id, context={"code": "1027"}),),
        startable=False,
        plan_hash=switch_drift.plan_hash(basis),
        basis=basis,
    )


def _of_edition(catalog: model.Catalog, items: Mapping[str, Quota], edition: str) -> dict[str, Quota]:
    return {item.name: items[item.name] for item in catalog.items_of_edition(edition) if item.name in items}


def _served(catalog: model.Catalog, situation: Situation, source: str) -> dict[str, AbstractSet[str]]:
    """Which edition or base items of the source are held by workloads of which type."""
    served: dict[str, set[str]] = {}
    for kind in situation.tally:
        whole = (item for name in kind.held if (item := catalog.item(name)).role in WHOLE_ROLES)
        for item in whole:
            if item.edition == source:
                served.setdefault(kind.facts.type, set()).add(item.name)
    return dict(served)


def _sides(
    catalog: model.Catalog, situation: Situation, target: str, provision: Provision, pairs: Mapping[str, str]
) -> Sides:
    before = frozenset(situation.items)
    after = before.difference(provision.disable).union(provision.enable)
    return switch_reconciling.sides(catalog, situation.application, target, before, after, tuple(pairs.items()))


# --- room


def _own_level(situation: Situation, provision: Provision, units: Mapping[str, int]) -> Level:
    """The customer's own accounts of what is taken, with the quotas that it will have."""
    quotas = {**situation.items, **provision.enable}
    accounts = {
        name: Account(situation.usage.get(name, _UNUSED).used, quotas[name]) for name in units if name in quotas
    }
    return Level(situation.tenant_id, accounts)


def _missing(situation: Situation, provision: Provision) -> tuple[str, ...]:
    if situation.parent_enabled is None:
        return ()
    return tuple(name for name in provision.enable if name not in situation.parent_enabled)


def _not_enabled(situation: Situation, missing: Iterable[str]) -> tuple[Refusal, ...]:
    parent = situation.parent_id
    return tuple(
        Refusal(
            "offering_item_not_enabled",
            f"{name} is not enabled on {parent}",
            offering_item=name,
            tenant_id=parent,
            context={"code": "1021"},
        )
        for name in missing
    )


def _quota_refusals(levels: Sequence[Level], units: Mapping[str, int]) -> tuple[Refusal, ...]:
    return tuple(
        Refusal(
            "quota_exceeded",
            f"{each.tenant_id} may use {each.limit} of {each.offering_item}, uses {each.used}, and {each.requested} "
            "more are needed",
            offering_item=each.offering_item,
            tenant_id=each.tenant_id,
            limit=each.limit,
            used=each.used,
            requested=each.requested,
        )
        for each in switch_room.shortages(levels, units)
    )


def _stranded(sides: Sides, outcomes: Iterable[Outcome]) -> tuple[Refusal, ...]:
    """One refusal for each type of workload that has no item in the target."""
    types: Counter[str] = Counter()
    for outcome in outcomes:
        if outcome.stranded:
            types[outcome.kind.facts.type] += outcome.count
    return tuple(
        Refusal("unknown_workload_type", f"{sides.target} has no item for {count} workloads of type {name}")
        for name, count in sorted(types.items())
    )


# --- numbers


def _reached_units(outcomes: Iterable[Outcome], reached: Iterable[Iterable[Share]]) -> dict[str, int]:
    """Units more or fewer by item when everybody has their share."""
    units: Counter[str] = Counter()
    for outcome, shares in zip(outcomes, reached, strict=True):
        for share in shares:
            for name in set(share.after) ^ set(outcome.kind.held):
                units[name] += share.count if name in share.after else -share.count
    return dict(units)


def _items(
    catalog: model.Catalog,
    situation: Situation,
    sides: Sides,
    provision: Provision,
    units: Mapping[str, int],
) -> tuple[PlanItem, ...]:
    """Every item of both sides, source first. Bytes go with their item, but for those that are only reserved."""
    if not provision.disable:
        current = _of_edition(catalog, situation.items, sides.target)
        return tuple(_item(situation, name, "destination", current, current, 0) for name in current)
    change = Counter(units)
    for name, wanted in switch_mapping.gauge_pairs(catalog, sides.source, sides.target).items():
        usage = situation.usage.get(name, _UNUSED)
        if name in situation.items and wanted in provision.enable:
            change[name] -= usage.used - usage.reserved
            change[wanted] += usage.used - usage.reserved
    before: dict[Side, Mapping[str, Quota]] = {"source": situation.items, "destination": {}}
    after: dict[Side, Mapping[str, Quota]] = {"source": {}, "destination": provision.enable}
    names: dict[Side, Iterable[str]] = {"source": provision.disable, "destination": provision.enable}
    return tuple(
        _item(situation, name, side, before[side], after[side], change[name]) for side in names for name in names[side]
    )


def _item(
    situation: Situation,
    name: str,
    side: Side,
    before: Mapping[str, Quota],
    after: Mapping[str, Quota],
    change: int,
) -> PlanItem:
    used = situation.usage.get(name, _UNUSED).used
    return PlanItem(name, side, used, used + change, before.get(name), after.get(name))


def _counts(catalog: model.Catalog, outcomes: Iterable[Outcome], shares: Iterable[Iterable[Share]]) -> Counts:
    total = changed = losing = denied = 0
    for outcome, parts in zip(outcomes, shares, strict=True):
        kind = outcome.kind
        total += outcome.count if kind.protected or kind.held else 0
        changed += outcome.count if outcome.after != kind.held else 0
        for part in parts:
            lacks_base = any(catalog.item(name).role in WHOLE_ROLES for name in part.refused)
            if outcome.stranded or lacks_base:
                denied += part.count
            elif outcome.lost or part.refused:
                losing += part.count
    return Counts(total, changed, losing, denied)


class _Change(NamedTuple):
    """Features by workload type that go away, and that come."""

    lost: Mapping[str, tuple[str, ...]]
    gained: Mapping[str, tuple[str, ...]]


def _features(catalog: model.Catalog, situation: Situation, sides: Sides) -> _Change:
    return _change(catalog, sides, frozenset(_served(catalog, situation, sides.source)))


@functools.lru_cache(maxsize=switch_mapping.CACHE_SIZE_MAX)
def _change(catalog: model.Catalog, sides: Sides, served: frozenset[str]) -> _Change:
    """What the enabled items carry for the types that the customer is licensed for, before and after."""
    _, before = assignment.available_features(catalog, sides.enabled_before)
    _, after = assignment.available_features(catalog, sides.enabled_after)
    lost, gained = {}, {}
    for name in catalog.workload_types:
        own = (item.name in sides.enabled_before for item in catalog.holdable(sides.source, name))
        if name in served or any(own):
            was, will = set(before.get(name, ())), set(after.get(name, ()))
            lost[name] = tuple(sorted(was - will))
            gained[name] = tuple(sorted(will - was))
    return _Change(*({name: each for name, each in change.items() if each} for change in (lost, gained)))


def _basis(situation: Situation, sides: Sides, provision: Provision, outcomes: Iterable[Outcome]) -> Basis:
    before = {name: situation.items[name] for name in provision.disable}
    holders = f"{situation.tally.fingerprint:032x}"
    moves = switch_drift.moves(outcomes)
    return Basis(situation.application, sides.source, sides.target, before, provision.enable, moves, holders)
