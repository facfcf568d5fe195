"""Which offering items a workload should hold, quotas aside (docs/domain.md 6, rules 0 to 3 and 7).

``decide`` lists the ways in which a workload can be covered, the preferred one first; the caller tries them in that
order until the quotas allow one. Everything here is pure: the same arguments always give the same answer.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Literal, NamedTuple

import msgspec

from service.catalog import model

DenialCode = Literal["offering_item_not_enabled", "feature_not_available", "unknown_workload_type"]

CACHE_SIZE_MAX = 8192
"""Decisions kept per process: the workloads of a tenant are of few kinds and share a few plans, so that most decisions
have been made before; the bound keeps the memory for the remembered sets of items to some tens of megabytes."""


class WorkloadFacts(msgspec.Struct, frozen=True, cache_hash=True):
    """What a workload says of itself. ``os`` and ``os_family`` are None where nothing was said."""

    type: str
    os: str | None = None
    os_family: str | None = None
    virtual: bool = False


class Denial(msgspec.Struct, frozen=True):
    """Why something is not to be had, whatever the quotas say (docs/domain.md 6, rules 6 and 7)."""

    code: DenialCode
    offering_item: str | None
    feature: str | None
    message: str


class Candidate(msgspec.Struct, frozen=True):
    """One way to cover a workload.

    ``items`` are the edition or base items (one for each application that takes part), ``packs`` what comes beside
    them; a workload takes one unit of each. ``uncovered`` are the features that it would leave out, sorted, and
    ``denials`` the reasons.
    """

    items: tuple[str, ...]
    packs: tuple[str, ...]
    uncovered: tuple[str, ...]
    denials: tuple[Denial, ...]


class Decision(msgspec.Struct, frozen=True):
    """All candidates in order of preference.

    ``uncovered_features`` (sorted) and ``denials`` are those of the preferred candidate; where there is no candidate,
    they say why.
    """

    candidates: tuple[Candidate, ...]
    uncovered_features: tuple[str, ...]
    denials: tuple[Denial, ...]


NOTHING = Decision((), (), ())
"""What a workload without an enabled plan is due (rule 1)."""


def decide(
    catalog: model.Catalog,
    editions: Mapping[str, str],
    enabled: AbstractSet[str],
    workload: WorkloadFacts,
    requested: AbstractSet[str],
    protected: bool,
) -> Decision:
    """What a workload should hold, in order of preference (docs/domain.md 6, rules 0 to 3 and 7).

    ``editions`` maps application ids to the customer's edition or billing mode, ``enabled`` are the names of the
    customer's enabled items, ``requested`` the features of all enabled plans applied to the workload, and
    ``protected`` says whether there is such a plan. Features that do not apply to the workload are dropped.

    Answers are remembered, which is sound because they depend on nothing but the arguments: pass frozensets that
    live as long as the records they come from, since those keep their hash.
    """
    if not protected:
        return NOTHING
    return _decide(catalog, tuple(sorted(editions.items())), frozenset(enabled), workload, frozenset(requested))


class _Situation(NamedTuple):
    catalog: model.Catalog
    enabled: frozenset[str]
    workload: WorkloadFacts
    features: frozenset[str]


_Gaps = dict[str, tuple[Denial, ...]]
"""Features that are left out, each with the reasons; no reasons where a denial of the whole says enough."""


class _Option(NamedTuple):
    """One way to cover what one application is asked for."""

    item: str
    packs: tuple[str, ...]
    gaps: _Gaps


class _Part(NamedTuple):
    """The answer of one application: options, or what is missing and why."""

    options: tuple[_Option, ...]
    gaps: _Gaps
    denials: tuple[Denial, ...]


@functools.lru_cache(maxsize=CACHE_SIZE_MAX)
def _decide(
    catalog: model.Catalog,
    editions: tuple[tuple[str, str], ...],
    enabled: frozenset[str],
    workload: WorkloadFacts,
    requested: frozenset[str],
) -> Decision:
    features = catalog.applicable(requested, workload.type, workload.os_family)
    situation = _Situation(catalog, enabled, workload, features)
    if not catalog.is_served(workload.type):
        return Decision((), (), (_unknown_type(workload.type) if editions else _no_edition(),))
    applications = _applications(situation)
    parts = [_application_part(situation, application, dict(editions)) for application in applications]
    owners = {application.id for application in applications}
    foreign = frozenset(name for name in features if catalog.features[name].application_id not in owners)
    candidates = _combine(situation, parts, foreign)
    if candidates:
        return Decision(candidates, candidates[0].uncovered, candidates[0].denials)
    refused = _candidate(situation, (), parts, foreign)
    return Decision((), refused.uncovered, refused.denials)


def _applications(situation: _Situation) -> tuple[model.Application, ...]:
    """The applications that a protected workload of this type takes an edition or base item of.

    A workload whose type only knows applications that wait to be asked still holds a base when its plans ask nothing.
    """
    catalog, _, workload, features = situation
    based = catalog.based_applications(workload.type)
    asked = {catalog.features[name].application_id for name in features}
    concerned = tuple(entry for entry in based if entry.holds_base == "when_protected" or entry.id in asked)
    return concerned or based[:1]


def _application_part(situation: _Situation, application: model.Application, editions: Mapping[str, str]) -> _Part:
    catalog = situation.catalog
    own = frozenset(name for name in situation.features if catalog.features[name].application_id == application.id)
    name = editions.get(application.id)
    if name is None:
        return _Part((), dict.fromkeys(own, ()), (_no_edition(),))
    edition = catalog.edition(name)
    narrowed = situation._replace(features=own)
    if edition.kind == "edition":
        return _edition_part(narrowed, edition)
    return _mode_part(narrowed, edition)


def _edition_part(situation: _Situation, edition: model.Edition) -> _Part:
    """Exactly one item, the lowest that covers all or else the most (rule 2)."""
    catalog, enabled, workload, features = situation
    items = catalog.holdable(edition.name, workload.type)
    if not items:
        return _no_item(situation, edition)
    enabled_items = [item for item in items if item.name in enabled]
    if not enabled_items:
        gaps: _Gaps = {name: _unavailable_unless(items, edition, workload, name) for name in features}
        return _Part((), gaps, (_not_enabled(_covering_most(items, features)[0].name),))
    options = (
        _Option(item.name, (), {name: _edition_gap(situation, edition, name) for name in features - item.features})
        for item in _covering_most(enabled_items, features)
    )
    return _Part(tuple(options), {}, ())


def _covering_most(items: Sequence[model.Item], features: frozenset[str]) -> list[model.Item]:
    """The items that cover as many features as any does, lowest first."""
    most = max(len(item.features & features) for item in items)
    return [item for item in items if len(item.features & features) == most]


def _edition_gap(situation: _Situation, edition: model.Edition, feature: str) -> tuple[Denial, ...]:
    catalog, enabled, workload, features = situation
    carriers = [item for item in catalog.holdable(edition.name, workload.type) if feature in item.features]
    absent = [item for item in carriers if item.name not in enabled]
    if absent:
        # The lowest carrier alone could lack what another plan asks for, so that enabling it would not help.
        return (_not_enabled(_covering_most(absent, features)[0].name, feature),)
    return (_not_available(edition, workload, feature),)


def _mode_part(situation: _Situation, edition: model.Edition) -> _Part:
    """One base item, and the smallest set of packs for the rest (rule 3)."""
    catalog, enabled, workload, _ = situation
    bases = _bases(situation, edition)
    if not bases:
        return _no_item(situation, edition)
    options = tuple(
        _Option(base.name, *_packs(situation, edition, base, situation.features - base.features))
        for base in bases
        if base.name in enabled
    )
    if options:
        return _Part(options, {}, ())
    first = bases[0]
    # Nothing is held without a base; what an enabled pack would carry still does not count as uncovered.
    _, gaps = _packs(situation, edition, first, situation.features)
    carriers = [first, *catalog.packs_for(first.name), *catalog.covers(edition.name, workload.type)]
    reasons: _Gaps = {name: _unavailable_unless(carriers, edition, workload, name) for name in gaps}
    return _Part((), reasons, (_not_enabled(first.name),))


def _bases(situation: _Situation, edition: model.Edition) -> list[model.Item]:
    """The base items for the workload's type, then those it may fall back to, in order."""
    workload = situation.workload
    fallbacks = (each for each in edition.base_fallbacks if each.workload_type == workload.type)
    types = [workload.type, *(each.take for each in fallbacks if _holds(each.when, situation))]
    items = (item for each in types for item in situation.catalog.holdable(edition.name, each))
    return list({item.name: item for item in items}.values())


def _holds(condition: model.Condition, situation: _Situation) -> bool:
    workload = situation.workload
    return (
        (condition.os is None or condition.os == workload.os)
        and (condition.virtual is None or condition.virtual == workload.virtual)
        and (not condition.requests_any or not situation.features.isdisjoint(condition.requests_any))
    )


def _packs(
    situation: _Situation, edition: model.Edition, base: model.Item, rest: frozenset[str]
) -> tuple[tuple[str, ...], _Gaps]:
    """The smallest set of enabled packs that covers the rest beside a base, and what none covers."""
    catalog, enabled, workload, _ = situation
    for cover in catalog.covers(edition.name, workload.type):
        if cover.name in enabled:
            rest -= cover.features
    usable = [pack for pack in catalog.packs_for(base.name) if _is_usable(catalog, pack, enabled)]
    gaps = rest.difference(*(pack.features for pack in usable))
    chosen = smallest_cover(catalog, usable, rest - gaps)
    return chosen, {name: _mode_gap(situation, edition, base, name) for name in gaps}


def _is_usable(catalog: model.Catalog, pack: model.Item, enabled: frozenset[str]) -> bool:
    return pack.name in enabled and enabled.issuperset(catalog.requirements(pack.name))


def smallest_cover(catalog: model.Catalog, items: Sequence[model.Item], features: frozenset[str]) -> tuple[str, ...]:
    """The fewest of the items that carry all the features, with what they require, in the catalogue's order.

    Of equally small sets the one that comes first in the catalogue. Exact: nearly every feature has one carrier, which
    is taken at once; only for what is left are combinations tried, and never of more items than there are features
    left. Expects that together the items carry everything.
    """
    if not features:
        return ()
    taken: set[str] = set()
    for feature in features:
        carriers = [item for item in items if feature in item.features]
        if len(carriers) == 1:
            taken |= _with_requirements(catalog, carriers[0])
    left = features - _carried(catalog, taken)
    if not left:
        return _in_order(catalog, taken)
    useful = [item for item in items if not left.isdisjoint(item.features)]
    best: tuple[str, ...] | None = None
    for size in range(1, len(left) + 1):
        if best is not None and len(taken) + size > len(best):
            break
        for combination in itertools.combinations(useful, size):
            names = taken.union(*(_with_requirements(catalog, item) for item in combination))
            if left <= _carried(catalog, names):
                found = _in_order(catalog, names)
                best = found if best is None else min(best, found, key=lambda each: _preference(catalog, each))
    return best or _in_order(catalog, taken)


def _preference(catalog: model.Catalog, names: tuple[str, ...]) -> tuple[int, list[int]]:
    return len(names), [catalog.item(name).position for name in names]


def _in_order(catalog: model.Catalog, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=lambda name: catalog.item(name).position))


def _with_requirements(catalog: model.Catalog, item: model.Item) -> set[str]:
    return {item.name, *catalog.requirements(item.name)}


def _carried(catalog: model.Catalog, names: Iterable[str]) -> frozenset[str]:
    return frozenset().union(*(catalog.item(name).features for name in names))


def _mode_gap(situation: _Situation, edition: model.Edition, base: model.Item, feature: str) -> tuple[Denial, ...]:
    """One denial for each item that would have to be enabled, of the carrier that lacks the fewest."""
    catalog, enabled, workload, _ = situation
    carriers = (
        *catalog.packs_for(base.name),
        *catalog.covers(edition.name, workload.type),
        *catalog.holdable(edition.name, workload.type),
    )
    lacking = [
        [name for name in (item.name, *catalog.requirements(item.name)) if name not in enabled]
        for item in carriers
        if feature in item.features
    ]
    fewest = min((names for names in lacking if names), key=len, default=[])
    if not fewest:
        return (_not_available(edition, workload, feature),)
    return tuple(_not_enabled(name, feature) for name in fewest)


def _combine(situation: _Situation, parts: Sequence[_Part], foreign: frozenset[str]) -> tuple[Candidate, ...]:
    """Every combination of the applications' options: the first application keeps its preference the longest."""
    if not parts:
        alone = _candidate(situation, (), (), foreign)
        return (alone,) if alone.packs else ()
    able = [part.options for part in parts if part.options]
    if not able:
        return ()
    return tuple(_candidate(situation, chosen, parts, foreign) for chosen in itertools.product(*able))


def _candidate(
    situation: _Situation, chosen: tuple[_Option, ...], parts: Sequence[_Part], foreign: frozenset[str]
) -> Candidate:
    """The chosen options together, with the add-ons for what they leave open (features of applications without an
    edition among it)."""
    catalog, enabled, workload, _ = situation
    gaps: _Gaps = {}
    for each in (*(part.gaps for part in parts), *(option.gaps for option in chosen)):
        gaps.update(each)
    addons = [item for item in catalog.addons(workload.type) if item.name in enabled]
    covered = _carried(catalog, (item.name for item in addons)) & (foreign | gaps.keys())
    gaps.update({name: _addon_gap(situation, name) for name in foreign - covered})
    open_gaps = {name: gaps[name] for name in sorted(gaps.keys() - covered)}
    packs = tuple(name for option in chosen for name in option.packs) + smallest_cover(catalog, addons, covered)
    denials = itertools.chain(*(part.denials for part in parts), *open_gaps.values())
    return Candidate(
        items=tuple(option.item for option in chosen),
        packs=packs,
        uncovered=tuple(open_gaps),
        denials=tuple({(each.code, each.offering_item, each.feature): each for each in denials}.values()),
    )


def _addon_gap(situation: _Situation, feature: str) -> tuple[Denial, ...]:
    workload = situation.workload
    for item in situation.catalog.addons(workload.type):
        if feature in item.features:
            return (_not_enabled(item.name, feature),)
    return (_not_available(None, workload, feature),)


def _no_item(situation: _Situation, edition: model.Edition) -> _Part:
    """An edition that does not know the type at all."""
    workload, features = situation.workload, situation.features
    if not features:
        return _Part((), {}, (_unknown_type(workload.type, edition),))
    return _Part((), {name: (_not_available(edition, workload, name),) for name in features}, ())


def _unavailable_unless(
    carriers: Iterable[model.Item], edition: model.Edition, workload: WorkloadFacts, feature: str
) -> tuple[Denial, ...]:
    """A denial for a feature that no carrier has; none where the denial of the whole says enough."""
    if any(feature in item.features for item in carriers):
        return ()
    return (_not_available(edition, workload, feature),)


def _no_edition() -> Denial:
    return Denial("offering_item_not_enabled", None, None, "the customer has no edition or billing mode yet")


def _not_enabled(item: str, feature: str | None = None) -> Denial:
    purpose = f", which {feature} needs," if feature else ""
    return Denial("offering_item_not_enabled", item, feature, f"{item}{purpose} is not enabled")


def _not_available(edition: model.Edition | None, workload: WorkloadFacts, feature: str) -> Denial:
    place = f"{edition.name} has no item" if edition else "there is no item"
    return Denial("feature_not_available", None, feature, f"{place} that covers {feature} for a {workload.type}")


def _unknown_type(workload_type: str, edition: model.Edition | None = None) -> Denial:
    place = f"{edition.name} has no item" if edition else "there is no item"
    return Denial("unknown_workload_type", None, None, f"{place} for workloads of type {workload_type}")


def editions_of(catalog: model.Catalog, enabled: AbstractSet[str]) -> dict[str, tuple[str, ...]]:
    """The editions and modes of each application of which any item is enabled, in the catalogue's order."""
    found: dict[str, tuple[str, ...]] = {}
    for edition in catalog.editions.values():
        if any(item.name in enabled for item in catalog.items_of_edition(edition.name)):
            found[edition.application_id] = (*found.get(edition.application_id, ()), edition.name)
    return found


def edition_of(catalog: model.Catalog, enabled: AbstractSet[str]) -> dict[str, str]:
    """The edition or mode that a customer's enabled items amount to, per application (docs/domain.md 3).

    Expects a customer, whose items never are of two editions of one application; see ``edition_conflicts``.
    """
    return {application_id: names[0] for application_id, names in editions_of(catalog, enabled).items()}


def edition_conflicts(catalog: model.Catalog, enabled: AbstractSet[str]) -> dict[str, tuple[str, ...]]:
    """The applications of which a customer would have items of two editions or more: error 1027."""
    return {name: editions for name, editions in editions_of(catalog, enabled).items() if len(editions) > 1}


def gauge_items(
    catalog: model.Catalog, editions: Mapping[str, str], enabled: AbstractSet[str], kinds: Iterable[str]
) -> dict[str, str]:
    """Which enabled item counts each kind of reported bytes (rule 4); kinds that none counts are left out."""
    current = {None, *editions.values()}
    counting = {
        kind: next(
            (item.name for item in catalog.gauges(kind) if item.edition in current and item.name in enabled), None
        )
        for kind in kinds
    }
    return {kind: name for kind, name in counting.items() if name is not None}


def available_features(catalog: model.Catalog, enabled: AbstractSet[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The tenant-wide features that a tenant has, and per workload type those that its enabled items carry
    (docs/domain.md 3); sorted, types without any left out.

    A pack counts only while everything it requires is enabled too: without that, no workload could be granted it.
    """
    names = frozenset(enabled)
    tenant_wide: set[str] = set()
    by_type: dict[str, set[str]] = {name: set() for name in catalog.workload_types}
    for item in catalog.items.values():
        if not _is_usable(catalog, item, names):
            continue
        if item.role is model.Role.TENANT_FEATURE:
            tenant_wide |= item.features
        for workload_type in item.serves:
            by_type[workload_type] |= catalog.features_of(item.name, workload_type)
    return sorted(tenant_wide), {name: sorted(features) for name, features in by_type.items() if features}
