"""What holds of every switch, whatever the customer has enabled, holds and waits for (docs/domain.md 7)."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import msgspec
from hypothesis import assume, given
from hypothesis import strategies as st

from service import catalog
from service.catalog.model import HELD_ROLES, WHOLE_ROLES
from service.rules import assignment, quotas, switch_drift, switch_room, switching
from service.rules.quotas import Quota
from service.rules.switch_mapping import Direction
from service.rules.switch_plan import Options, Plan, Situation, Usage
from service.rules.switch_reconciling import Outcome
from service.rules.switch_room import Account, Level
from service.rules.tally import Kind, Tally, kind

BUILT_IN = catalog.load()
CATALOGS = [BUILT_IN, catalog.load(Path(__file__).parent.parent / "data" / "catalog_with_cyberapps.json")]
SOFT_OR_NOT = st.one_of(
    st.just(quotas.UNLIMITED),
    st.builds(Quota, st.integers(0, 50), st.none()),
    st.builds(Quota, st.integers(0, 50), st.integers(0, 5)),
)


class Case:
    """A customer with its workloads by name, and where it is to be switched."""

    def __init__(self, entries: catalog.Catalog, application: str, items: dict[str, Quota], target: str) -> None:
        self.catalog = entries
        self.application = application
        self.items = items
        self.target = target
        self.workloads: dict[str, Kind] = {}

    def __repr__(self) -> str:
        return f"to {self.target} from {self.items} with {self.workloads}"

    def situation(self) -> Situation:
        tally, used = Tally(), Counter[str]()
        for name, each in self.workloads.items():
            tally.add(name, each)
            used.update(each.held)
        return Situation("acme", self.application, self.items, {name: Usage(n) for name, n in used.items()}, tally)

    def plan(self, **options: object) -> Plan:
        return switching.plan(self.catalog, self.situation(), self.target, Options(**options))  # type: ignore[arg-type]  # told by each test

    def after(self, plan: Plan, target: str, *, undo: bool = False) -> Case:
        """The customer as the plan leaves it."""
        kept = {name: quota for name, quota in self.items.items() if name not in plan.provision.disable}
        case = Case(self.catalog, self.application, {**kept, **plan.provision.enable}, target)
        results = {outcome.kind: outcome.after for outcome in plan.outcomes}
        for name, each in self.workloads.items():
            former = each.held if undo else None
            case.workloads[name] = msgspec.structs.replace(each, held=results[each], former=former)
        return case

    def whole(self, names: tuple[str, ...], edition: str | None) -> list[str]:
        """The edition and base items among the names."""
        entries = [self.catalog.item(name) for name in names]
        return [item.name for item in entries if item.role in WHOLE_ROLES and item.edition == edition]


@st.composite
def cases(
    draw: st.DrawFn,
    entries: catalog.Catalog | None = None,
    source_kind: str | None = None,
    target_kind: str | None = None,
    quota: st.SearchStrategy[Quota] = SOFT_OR_NOT,
) -> Case:
    """A customer whose workloads hold what some decision could have given them, and a target for it."""
    found = entries or draw(st.sampled_from([BUILT_IN, *CATALOGS]))
    pairs = [
        (one, other)
        for one in found.editions.values()
        for other in found.editions.values()
        if one.application_id == other.application_id
        and source_kind in (None, one.kind)
        and target_kind in (None, other.kind)
    ]
    moving = [(one, other) for one, other in pairs if one != other and "billing_mode" in (one.kind, other.kind)]
    before, after = draw(st.one_of(st.sampled_from(moving), st.sampled_from(moving), st.sampled_from(pairs)))
    source, target, application = before.name, after.name, before.application_id
    offered = [item.name for item in found.items_of_edition(source)]
    shuffled = draw(st.permutations(offered))
    enabled = list(shuffled[: draw(st.sampled_from([1, 3, len(offered) // 2, len(offered)]))])
    enabled += draw(st.lists(st.sampled_from([item.name for item in found.items_of_edition(None)]), unique=True))
    features = {name: found.item(name).type == "feature" for name in enabled}
    items = {name: quotas.UNLIMITED if features[name] else draw(quota) for name in enabled}
    case = Case(found, application, items, target)
    for number in range(draw(st.integers(0, 8))):
        case.workloads[f"w{number}"] = draw(kinds(case, {application: source}))
    return case


@st.composite
def kinds(draw: st.DrawFn, case: Case, editions: dict[str, str]) -> Kind:
    """A workload that holds one of the ways to cover it, without packs that were refused, or nothing at all."""
    entries = [case.catalog.item(name) for name in case.items]
    served = sorted({each for item in entries if item.role in HELD_ROLES for each in item.serves})
    carried = sorted({name for item in entries for name in item.features})
    facts = assignment.WorkloadFacts(
        draw(st.sampled_from([*served, *served, *case.catalog.workload_types])),
        os=draw(st.sampled_from([None, "desktop"])),
    )
    features = frozenset(draw(st.lists(st.sampled_from([*carried, *case.catalog.features]), max_size=5)))
    protected = draw(st.sampled_from([True, True, True, False]))
    decision = assignment.decide(case.catalog, editions, case.items.keys(), facts, features, protected)
    held: tuple[str, ...] = ()
    if decision.candidates and draw(st.sampled_from([True, True, True, False])):
        way = draw(st.sampled_from(decision.candidates))
        held = (*way.items, *(way.packs if draw(st.sampled_from([True, True, False])) else ()))
    return kind(facts, features, protected=protected, held=held)


def within_its_quotas(case: Case) -> bool:
    used = Counter(name for each in case.workloads.values() for name in each.held)
    return all(
        quota.value is None or quota.overage is None or used[name] <= quota.value + quota.overage
        for name, quota in case.items.items()
    )


# --- nobody holds both sides, and nobody is lost


@given(cases())
def test_no_workload_holds_items_of_both_sides_and_each_keeps_exactly_one_whole_item(case: Case) -> None:
    plan = case.plan()
    assume(plan.direction not in (None, Direction.NOTHING))

    for outcome in plan.outcomes:
        editions = {case.catalog.item(name).edition for name in outcome.after}
        had = case.whole(outcome.kind.held, plan.from_edition)
        assert plan.from_edition not in editions
        assert len(case.whole(outcome.after, plan.to_edition)) == (1 if had and not outcome.stranded else 0)


@given(cases())
def test_the_units_of_edition_and_base_items_of_both_sides_are_the_protected_workloads(case: Case) -> None:
    plan = case.plan()
    assume(plan.direction not in (None, Direction.NOTHING))

    whole = [name for name in plan.units if case.catalog.item(name).role in WHOLE_ROLES]
    stranded = sum(outcome.count for outcome in plan.outcomes if outcome.stranded)
    assert sum(plan.units[name] for name in whole) == -stranded


@given(cases())
def test_usage_after_is_what_the_workloads_hold_then(case: Case) -> None:
    plan = case.plan()
    assume(plan.direction is not None)

    after = Counter(name for outcome in plan.outcomes for name in outcome.after for _ in range(outcome.count))
    for item in plan.items:
        if case.catalog.item(item.offering_item).role in HELD_ROLES:
            assert item.used_after == after[item.offering_item]


@given(cases(target_kind="billing_mode"))
def test_a_feature_that_the_targets_items_carry_is_never_lost_on_the_way_to_a_mode(case: Case) -> None:
    plan = case.plan()
    assume(plan.direction is Direction.EDITION_TO_MODE)

    kept = {name for name in case.items if name not in plan.provision.disable}
    _, carried = assignment.available_features(case.catalog, kept | plan.provision.enable.keys())
    for outcome in plan.outcomes:
        if outcome.kind.held and not outcome.stranded:
            assert not set(outcome.lost) & set(carried.get(outcome.kind.facts.type, ()))


@given(cases())
def test_only_items_of_the_two_sides_are_turned_on_or_off(case: Case) -> None:
    plan = case.plan()

    assert {case.catalog.item(name).edition for name in plan.provision.disable} <= {plan.from_edition}
    assert {case.catalog.item(name).edition for name in plan.provision.enable} <= {plan.to_edition}


# --- what stands in the way


@given(cases(entries=BUILT_IN, source_kind="edition", target_kind="billing_mode"), st.sampled_from(["all", "covering"]))
def test_who_is_within_its_quotas_is_never_refused_by_them_on_the_way_to_a_mode(case: Case, pack_quota: str) -> None:
    assume(within_its_quotas(case))

    assert case.plan(pack_quota=pack_quota).refusals == ()


@given(cases(entries=BUILT_IN, source_kind="billing_mode", target_kind="billing_mode"))
def test_who_is_within_its_quotas_is_never_refused_by_them_between_modes(case: Case) -> None:
    assume(within_its_quotas(case))

    assert case.plan().refusals == ()


@given(cases(), st.dictionaries(st.sampled_from(sorted(BUILT_IN.items)), st.integers(0, 4), max_size=30))
def test_shares_add_up_and_never_take_more_than_there_is_room_for(case: Case, limits: dict[str, int]) -> None:
    above = (Level("msp", {name: Account(1, Quota(limit, 0)) for name, limit in limits.items()}),)
    situation = msgspec.structs.replace(case.situation(), above=above)
    plan = switching.plan(case.catalog, situation, case.target, Options(mode="best_effort"))

    taken = Counter[str]()
    for outcome, shares in zip(plan.outcomes, plan.shares, strict=True):
        assert sum(share.count for share in shares) == outcome.count
        for share in shares:
            taken.update(dict.fromkeys(set(share.after) - set(outcome.kind.held), share.count))
    for name, limit in limits.items():
        assert taken[name] <= max(0, limit - 1)


@given(cases())
def test_a_strict_switch_starts_exactly_where_nothing_stands_in_the_way(case: Case) -> None:
    plan = case.plan()

    assert plan.startable == (plan.refusals == ())


# --- what comes back


@given(cases(entries=BUILT_IN, source_kind="billing_mode", target_kind="billing_mode"))
def test_between_modes_and_back_is_the_identity_on_items_quotas_and_holdings(case: Case) -> None:
    there = case.plan()
    assume(there.direction is Direction.MODE_TO_MODE)
    assert there.from_edition is not None

    moved = case.after(there, there.from_edition)
    back = moved.after(moved.plan(), there.to_edition)

    assert back.items == case.items
    assert back.workloads == case.workloads


@given(cases(entries=BUILT_IN, source_kind="edition", target_kind="billing_mode"))
def test_an_edition_by_way_of_a_mode_keeps_its_protected_workloads_and_the_sum_of_its_quotas(case: Case) -> None:
    there = case.plan()
    assert there.from_edition is not None

    moved = case.after(there, there.from_edition)
    plan = moved.plan()
    back = moved.after(plan, there.to_edition)

    for name, before in case.workloads.items():
        held = case.whole(before.held, there.from_edition)
        assert len(back.whole(back.workloads[name].held, there.from_edition)) == len(held)
    for workload_type in case.catalog.workload_types:
        sums = [
            [
                each.items[item.name]
                for item in case.catalog.holdable(there.from_edition, workload_type)
                if item.name in each.items
            ]
            for each in (case, back)
        ]
        assert quotas.total(sums[0]) == quotas.total(sums[1])
        assert len(sums[1]) == min(1, len(sums[0]))


@given(cases(entries=BUILT_IN))
def test_an_undone_switch_restores_items_quotas_and_holdings(case: Case) -> None:
    plan = case.plan()
    assume(plan.direction not in (None, Direction.NOTHING))
    assert plan.from_edition is not None
    assume(plan.provision.enable)  # else the customer has no edition any more

    moved = case.after(plan, plan.from_edition, undo=True)
    undone = switching.undo(case.catalog, moved.situation(), switching.keep(plan))
    back = moved.after(undone.plan, case.target)

    assert undone.drift == ()
    assert back.items == case.items
    for name, before in case.workloads.items():
        if before.protected:
            assert back.workloads[name].held == before.held


# --- the hash


@given(cases(), st.randoms(use_true_random=False))
def test_the_plan_does_not_depend_on_the_order_of_anything(case: Case, shuffled: random.Random) -> None:
    other = Case(case.catalog, case.application, {}, case.target)
    for source, copy in ((case.items, other.items), (case.workloads, other.workloads)):
        names = list(source)
        shuffled.shuffle(names)
        copy.update({name: source[name] for name in names})  # type: ignore[attr-defined, index]  # of two types

    first, second = case.plan(), other.plan()

    assert first.plan_hash == second.plan_hash
    assert first.outcomes == second.outcomes
    assert first.provision == second.provision
    assert list(first.provision.enable) == list(second.provision.enable)


@given(cases(), cases())
def test_drift_is_told_exactly_where_the_hashes_differ(first: Case, second: Case) -> None:
    then, now = first.plan(), second.plan()

    assert (switch_drift.drift(then.basis, now.basis) == ()) == (then.plan_hash == now.plan_hash)


@given(cases(), SOFT_OR_NOT, st.data())
def test_a_changed_quota_changes_the_hash_and_is_told(case: Case, quota: Quota, data: st.DataObject) -> None:
    then = case.plan()
    assume(then.direction not in (None, Direction.NOTHING))
    name = data.draw(st.sampled_from(then.provision.disable))
    assume(case.items[name] != quota)
    case.items[name] = quota
    now = case.plan()

    assert then.plan_hash != now.plan_hash
    assert name in [each.offering_item for each in switch_drift.drift(then.basis, now.basis)]


@given(cases(), st.data())
def test_what_a_workload_holds_is_in_the_hash(case: Case, data: st.DataObject) -> None:
    holders = [name for name, each in case.workloads.items() if each.held]
    assume(holders)
    then = case.plan()
    assume(then.direction is not None)
    name = data.draw(st.sampled_from(holders))
    case.workloads[name] = msgspec.structs.replace(case.workloads[name], held=())

    assert then.plan_hash != case.plan().plan_hash


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.booleans())))
def test_a_tally_that_follows_changes_equals_one_that_counts_anew(changes: list[tuple[str, bool]]) -> None:
    facts = assignment.WorkloadFacts("vm")
    of = {held: kind(facts, (), protected=True, held=["x"] if held else []) for held in (True, False)}
    followed, current = Tally(), dict[str, Kind]()
    for name, held in changes:
        if name in current:
            followed.remove(name, current[name])
        current[name] = of[held]
        followed.add(name, of[held])
    counted, other = Tally(), Tally()
    for number, (name, each) in enumerate(current.items()):
        (counted if number % 2 else other).add(name, each)
    counted.merge(other)

    assert followed == counted
    assert Tally(counted.entries(), counted.fingerprint) == counted


# --- sums of quotas


@given(st.lists(SOFT_OR_NOT, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_a_sum_of_quotas_is_unlimited_or_soft_as_soon_as_one_is_and_else_adds_up(
    summands: list[Quota], shuffled: random.Random
) -> None:
    total = quotas.total(summands)
    other = list(summands)
    shuffled.shuffle(other)

    assert quotas.total(other) == total
    assert (total.value is None) == any(each.value is None for each in summands)
    if total.value is not None:
        assert total.value == sum(each.value or 0 for each in summands)
        soft = any(each.overage is None for each in summands)
        assert total.overage == (None if soft else sum(each.overage or 0 for each in summands))


@given(st.lists(st.integers(0, 2**53 - 1), min_size=1, max_size=4))
def test_a_sum_of_quotas_never_leaves_the_range_of_exact_integers(values: list[int]) -> None:
    total = quotas.total([Quota(value, value) for value in values])

    assert not quotas.too_large(total)
    assert total.value == min(sum(values), 2**53 - 1)


@given(cases())
def test_net_units_are_the_difference_of_what_is_held(case: Case) -> None:
    outcomes: tuple[Outcome, ...] = case.plan().outcomes
    before = Counter(name for outcome in outcomes for name in outcome.kind.held for _ in range(outcome.count))
    after = Counter(name for outcome in outcomes for name in outcome.after for _ in range(outcome.count))

    units = switch_room.net_units(outcomes)

    assert units == {name: after[name] - before[name] for name in before | after if after[name] != before[name]}
