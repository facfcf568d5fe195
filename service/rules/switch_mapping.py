"""What a switch makes of a customer's items and quotas (docs/domain.md 7, rows "items" and "quota").

No workload is looked at here, but for one thing: which base items workloads of another type hold by a fallback.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import Literal, NamedTuple

import msgspec

from service.catalog import model
from service.catalog.model import WHOLE_ROLES, Role
from service.rules import assignment, quotas
from service.rules.quotas import Quota

PackQuota = Literal["all", "covering"]

CACHE_SIZE_MAX = 1024  # mappings kept per process: the customers of a mass switch are of few shapes


class Direction(StrEnum):
    """From what to what a customer is switched."""

    NOTHING = "nothing"
    """The customer is on the target already: nothing moves."""
    EDITION_TO_MODE = "edition_to_mode"
    MODE_TO_EDITION = "mode_to_edition"
    """Not recommended: an edition has no packs."""
    MODE_TO_MODE = "mode_to_mode"


class Provision(msgspec.Struct, frozen=True):
    """The items that a switch turns on and off, in the catalogue's order.

    ``enable`` are the destination items with the quotas they get. ``disable`` are all enabled items of the source
    edition or mode; an item that is off has no quota, so theirs are reset. What is in neither stays as it is.
    """

    enable: Mapping[str, Quota]
    disable: tuple[str, ...]


class Source(NamedTuple):
    """What a customer is switched from.

    ``quotas`` are its enabled items of the source edition or mode. ``served`` says for a workload type which base items
    workloads of that type hold.
    """

    edition: str
    quotas: Mapping[str, Quota]
    served: Mapping[str, AbstractSet[str]]


def direction(catalog: model.Catalog, application: str, source: str | None, target: str) -> Direction | str:
    """From what to what; a sentence where such a switch does not exist.

    ``source`` is the customer's edition or billing mode of the application, None where it has none yet.
    """
    wanted = catalog.find_edition(target)
    if application not in catalog.applications:
        return f"there is no application {application}"
    if wanted is None or wanted.application_id != application:
        return f"{catalog.applications[application].name} has no edition or billing mode {target}"
    if source is None:
        return "the customer has no edition or billing mode yet: enable items of the target instead of switching"
    if source == target:
        return Direction.NOTHING
    kinds = catalog.edition(source).kind, wanted.kind
    if kinds == ("edition", "edition"):
        return f"a switch from edition to edition ({source} to {target}) does not exist: go by way of a billing mode"
    return {
        ("edition", "billing_mode"): Direction.EDITION_TO_MODE,
        ("billing_mode", "edition"): Direction.MODE_TO_EDITION,
        ("billing_mode", "billing_mode"): Direction.MODE_TO_MODE,
    }[kinds]


def provision(
    catalog: model.Catalog, way: Direction, source: Source, target: str, pack_quota: PackQuota = "all"
) -> Provision:
    """The items to enable in the target with their quotas, and those of the source to disable."""
    if way is Direction.NOTHING:
        return Provision({}, ())
    served = frozenset((name, frozenset(items)) for name, items in source.served.items())
    shape = _Shape(
        source.edition, frozenset(source.quotas), served if way is Direction.MODE_TO_EDITION else frozenset()
    )
    origins = _origins(catalog, way, shape, target, pack_quota)
    enable = {name: quotas.total(source.quotas[origin] for origin in names) for name, names in origins.items()}
    return Provision(enable, tuple(_in_order(catalog, source.quotas)))


class _Shape(NamedTuple):
    """A source without its quotas: what many customers have in common, so that their mapping is worked out once."""

    edition: str
    items: frozenset[str]
    served: frozenset[tuple[str, frozenset[str]]]


_Origins = dict[str, dict[str, None]]
"""Destination items with the source items whose quotas they get; dictionaries are sets with an order here."""


@functools.lru_cache(maxsize=CACHE_SIZE_MAX)
def _origins(
    catalog: model.Catalog, way: Direction, shape: _Shape, target: str, pack_quota: PackQuota
) -> Mapping[str, tuple[str, ...]]:
    """The destination items in the catalogue's order, each with the source items whose quotas it gets."""
    source = Source(shape.edition, dict.fromkeys(shape.items, quotas.UNLIMITED), dict(shape.served))
    if way is Direction.MODE_TO_MODE:
        found = _mode_to_mode(catalog, source, target)
    elif way is Direction.EDITION_TO_MODE:
        found = _edition_to_mode(catalog, source, target, pack_quota) | _gauges(catalog, source, target)
    else:
        found = _mode_to_edition(catalog, source, target) | _gauges(catalog, source, target)
    return {name: tuple(found[name]) for name in _in_order(catalog, found)}


def _in_order(catalog: model.Catalog, names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: catalog.item(name).position)


# --- mode to mode


@functools.lru_cache(maxsize=CACHE_SIZE_MAX)
def counterparts(catalog: model.Catalog, source: str, target: str) -> Mapping[str, str]:
    """For each item of one billing mode the one of another that has the same role and the same suffix."""
    of_target = {(item.role, item.suffix): item.name for item in catalog.items_of_edition(target)}
    pairs = ((item.name, of_target.get((item.role, item.suffix))) for item in catalog.items_of_edition(source))
    return {name: found for name, found in pairs if found is not None}


def _mode_to_mode(catalog: model.Catalog, source: Source, target: str) -> _Origins:
    pairs = counterparts(catalog, source.edition, target)
    return {pairs[name]: {name: None} for name in source.quotas if name in pairs}


# --- edition to mode


def _edition_to_mode(catalog: model.Catalog, source: Source, target: str, pack_quota: PackQuota) -> _Origins:
    origins: _Origins = {}
    given: _Origins = {}  # packs, with the source items that contained their functionality
    present: dict[str, list[str]] = {}
    for workload_type in catalog.workload_types:
        items = [item for item in catalog.holdable(source.edition, workload_type) if item.name in source.quotas]
        bases = catalog.holdable(target, workload_type)
        if not items or not bases:
            continue
        present[workload_type] = [item.name for item in items]
        for item in items:
            origins.setdefault(bases[0].name, {})[item.name] = None
            for pack in packs_instead(catalog, item, bases[0], workload_type):
                given.setdefault(pack, {})[item.name] = None
    for pack, containing in given.items():
        served = (
            name
            for each in catalog.workload_types
            if each in catalog.item(pack).serves
            for name in present.get(each, ())
        )
        origins[pack] = containing if pack_quota == "covering" else dict.fromkeys(served)
    return origins


def packs_instead(catalog: model.Catalog, item: model.Item, base: model.Item, workload_type: str) -> tuple[str, ...]:
    """The packs that beside a base give what an edition's item gives to workloads of a type (docs/domain.md 5.4).

    A pack stands for the item where the item carries all the groups of features that the pack carries, also where none
    of those features applies to the type: the pack is what will carry them once one does. What is still missing
    then, the fewest other packs give.
    """
    packs = [pack for pack in catalog.packs_for(base.name) if workload_type in pack.serves]
    chosen = {pack.name for pack in packs if pack.carries and set(pack.carries) <= set(item.carries)}
    chosen.update(*(catalog.requirements(name) for name in list(chosen)))
    carried = frozenset().union(base.features, *(catalog.item(name).features for name in chosen))
    missing = catalog.features_of(item.name, workload_type) - carried
    able = missing & frozenset().union(*(pack.features for pack in packs))
    chosen.update(assignment.smallest_cover(catalog, packs, able))
    return tuple(_in_order(catalog, chosen))


# --- mode to edition


def _mode_to_edition(catalog: model.Catalog, source: Source, target: str) -> _Origins:
    origins: _Origins = {}
    for workload_type in catalog.workload_types:
        bases = _bases(catalog, source, workload_type)
        wanted = best_cover(catalog, source, target, workload_type)
        if bases and wanted is not None:
            origins.setdefault(wanted, {}).update(dict.fromkeys(bases))
    return origins


def _bases(catalog: model.Catalog, source: Source, workload_type: str) -> list[str]:
    """The enabled base items of a type; where it has none, those that its workloads hold instead."""
    own = [item.name for item in catalog.holdable(source.edition, workload_type) if item.name in source.quotas]
    borrowed = source.served.get(workload_type, frozenset()) & source.quotas.keys()
    return own or _in_order(catalog, (name for name in borrowed if catalog.item(name).role in WHOLE_ROLES))


def best_cover(catalog: model.Catalog, source: Source, target: str, workload_type: str) -> str | None:
    """The lowest item of an edition that covers the most of what a type has in a mode; None where it has no item."""
    items = catalog.holdable(target, workload_type)
    if not items:
        return None
    available = functionality(catalog, source, workload_type)
    return max(items, key=lambda item: len(item.features & available)).name  # the first of equals is the lowest


def functionality(catalog: model.Catalog, source: Source, workload_type: str) -> frozenset[str]:
    """The features that a mode's enabled items give to workloads of a type: its base and its packs."""
    enabled = source.quotas.keys()
    names = set(_bases(catalog, source, workload_type))
    for base in tuple(names):
        packs = (pack.name for pack in catalog.packs_for(base) if pack.name in enabled)
        names.update(name for name in packs if enabled >= set(catalog.requirements(name)))
    carried = frozenset().union(*(catalog.item(name).features for name in names))
    return catalog.applicable(carried, workload_type)


# --- gauges


@functools.lru_cache(maxsize=CACHE_SIZE_MAX)
def gauge_pairs(catalog: model.Catalog, source: str, target: str) -> Mapping[str, str]:
    """For each gauge of one edition or mode the one of another with the same suffix, else of the same kind of bytes."""
    gauges = [item for item in catalog.items_of_edition(target) if item.role is Role.GAUGE]
    pairs: dict[str, str] = {}
    for item in catalog.items_of_edition(source):
        if item.role is Role.GAUGE:
            alike = [each for each in gauges if each.gauge == item.gauge]
            same = [each for each in alike if each.suffix == item.suffix] or alike
            if same:
                pairs[item.name] = same[0].name
    return pairs


def _gauges(catalog: model.Catalog, source: Source, target: str) -> _Origins:
    origins: _Origins = {}
    for name, wanted in gauge_pairs(catalog, source.edition, target).items():
        if name in source.quotas:
            origins.setdefault(wanted, {})[name] = None
    return origins
