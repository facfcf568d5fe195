"""A customer as a switch finds it: its items, what it uses, and its workloads by kind (docs/domain.md 7)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from service import records
from service.handlers import switch_answers
from service.handlers.draft import Draft, View
from service.handlers.features import features_of
from service.handlers.work import path_keys
from service.ledger.transaction import Account, RecordKey
from service.records import Items, Plan, Population, Workload
from service.rules import assignment as rules
from service.rules import switch_plan, tally
from service.rules import tenants as tenant_rules
from service.rules.quotas import Quota
from service.rules.switch_plan import Situation, Usage
from service.rules.switch_reconciling import Outcome
from service.rules.switch_room import Level
from service.rules.tally import Kind, Tally

KINDS_MAX = 8192  # remembered in this process
MARKS_MAX = 1024


class Member(NamedTuple):
    """A workload of the customer or of one of its units; ``kind`` is None where it is not registered."""

    tenant: str
    id: str
    workload: Workload
    kind: Kind | None

    @property
    def name(self) -> str:
        """What tells it from every other workload of the customer."""
        return f"{self.tenant}/{self.id}"


def needs(view: View, tenant: str) -> Iterable[RecordKey]:
    """What it takes to know a customer that has few workloads; of one that has many, only that it has."""
    yield from path_keys(view, tenant)
    yield records.accounts_key(tenant)
    for each in known_members(view, tenant, view.population_max):
        if each != tenant:
            yield from path_keys(view, each)
        yield records.units_key(each)
        yield records.population_key(each)
        found = view.peek(records.population_key(each))
        if found is not None and found.value is not None:
            yield from _needs_of_population(view, each, found.value)


def known_members(view: View, tenant: str, most: int) -> list[str]:
    """The customer and all units below it, as far as they are known by now; not all where they exceed ``most``."""
    names = [tenant]
    for each in names:  # it grows meanwhile
        known = view.peek(records.units_key(each))
        if known is not None and len(names) <= most:
            names.extend(known.value)
    return names


def _needs_of_population(view: View, tenant: str, population: Population) -> Iterable[RecordKey]:
    view.take_in({records.workload_key(tenant, name): entry for name, entry in population.entries.items()})
    plans = {plan for entry in population.entries.values() for plan in entry.value.links}
    return (records.plan_key(tenant, plan) for plan in plans)


def members(draft: Draft, tenant: str, undone: str | None = None) -> list[Member] | None:
    """All workloads, None where they are too many to be switched in one step; ``undone`` is a switch to lead back.

    That none has come to be since is for the caller to expect of the ledger.
    """
    found: list[Member] = []
    most = draft.view.population_max
    everybody = known_members(draft.view, tenant, most)
    if len(everybody) > most:
        return None
    for each in everybody:
        draft.view.read(records.units_key(each))
        population: Population | None = draft.view.read(records.population_key(each)).value
        if population is None or len(found) + len(population.entries) > most:
            return None
        found += [member(draft, each, name, undone) for name in sorted(population.entries)]
    return found


def member(draft: Draft, tenant: str, workload_id: str, undone: str | None = None) -> Member:
    """One workload and its kind; the decision depends on both from now on."""
    workload = draft.workload(tenant, workload_id)
    return Member(tenant, workload_id, workload, kind_of(draft, tenant, workload, undone))


def kind_of(draft: Draft, tenant: str, workload: Workload, undone: str | None = None) -> Kind | None:
    """The kind of a workload, None where it is not registered."""
    return kind_with(workload, functools.partial(draft.plan, tenant), undone)


def kind_with(workload: Workload, plan_of: Callable[[str], Plan | None], undone: str | None = None) -> Kind | None:
    """The same, with the tenant's plans from anywhere."""
    if workload.type is None:
        return None
    features, protected = features_of(workload, plan_of)
    facts = rules.WorkloadFacts(workload.type, workload.os, workload.os_family, workload.virtual)
    known = undone is not None and workload.former[:1] == (mark(undone),)
    former = workload.former[1:] if known else None
    return _kind(facts, features, protected, tuple(workload.holding), former)


@functools.lru_cache(maxsize=KINDS_MAX)
def _kind(
    facts: rules.WorkloadFacts,
    features: frozenset[str],
    protected: bool,
    held: tuple[str, ...],
    former: tuple[str, ...] | None,
) -> Kind:
    """The same object for the same workloads, so that its hash is worked out once."""
    return tally.kind(facts, features, protected=protected, held=held, former=former)


@functools.lru_cache(maxsize=MARKS_MAX)
def mark(switch_id: str) -> str:
    """What stands for a switch in the records of its workloads."""
    return switch_answers.digest(switch_id)


def counted(found: Iterable[Member]) -> Tally:
    """The workloads by kind."""
    made = Tally()
    for each in found:
        if each.kind is not None:
            made.add(each.name, each.kind)
    return made


def situation(draft: Draft, tenant: str, application: str, found: Tally, above: tuple[Level, ...] = ()) -> Situation:
    """The customer as it is now; ``above`` are the tenants whose quotas are to be foreseen."""
    placement = draft.placement(tenant)
    known = draft.tenant(tenant)
    assert placement is not None  # the tenant has been read
    assert known is not None
    is_direct = known.parent_id == tenant_rules.ROOT
    accounts: Mapping[str, Account] = draft.view.read(records.accounts_key(tenant)).value
    return Situation(
        tenant_id=tenant,
        application=application,
        items=quotas_of(placement.items),
        usage={name: Usage(account.used, account.reserved) for name, account in accounts.items()},
        tally=found,
        parent_id=known.parent_id,
        parent_enabled=None if is_direct else draft.items(known.parent_id).enabled,
        above=above,
    )


def quotas_of(items: Items) -> dict[str, Quota]:
    """The enabled items with their quotas."""
    return {name: Quota(items.states[name].value, items.states[name].overage) for name in sorted(items.enabled)}


def outcomes_of(plan: switch_plan.Plan) -> dict[Kind, Outcome]:
    """What becomes of each kind."""
    return {outcome.kind: outcome for outcome in plan.outcomes}


def expect_nobody_new(draft: Draft, tenant: str, names: Iterable[str], found: Sequence[Member]) -> None:
    """The step depends on what is used of these items: nobody else may have acquired one, or counted bytes of one."""
    used: dict[str, int] = dict.fromkeys(names, 0)
    for each in found:
        for name in each.workload.holding:
            if name in used:
                used[name] += 1
        for name, quantity in each.workload.counted.items():
            if name in used:
                used[name] += quantity
    accounts: Mapping[str, Account] = draft.view.read(records.accounts_key(tenant)).value
    for name, quantity in used.items():
        reserved = accounts.get(name, Account()).reserved
        draft.expect_balance(tenant, name, Account(used=quantity + reserved, reserved=reserved))
