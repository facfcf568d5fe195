"""The catalogue as the rules see it: immutable, indexed, and the only place where names of items come from.

Meaning of the words: docs/domain.md, section 1; the entries themselves: section 5 and ``catalog.json``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import msgspec

EditionKind = Literal["edition", "billing_mode"]
ItemType = Literal["count", "feature", "infra"]
Unit = Literal["quantity", "bytes", "seconds", "n/a"]
Scope = Literal["workload", "tenant"]
HoldsBase = Literal["when_protected", "when_requested"]


class Role(StrEnum):
    """What an item is for, so that no rule needs to know an item by name."""

    BASE = "base"
    """A billing mode's standard product item: a workload holds one."""
    PACK = "pack"
    """Acquired beside a base when a plan requests what it carries."""
    EDITION = "edition"
    """The one item that a workload of an edition holds."""
    GAUGE = "gauge"
    """Counts bytes that agents report; never held."""
    COVER = "cover"
    """Covers its features for the whole tenant while it is enabled; no workload takes a unit of it."""
    COMPONENT = "component"
    """Licensed and counted, but neither held nor asked for by a plan."""
    TENANT_FEATURE = "tenant_feature"
    """Switches tenant-wide features; no quantity and no quota."""
    ADDON = "addon"
    """Of no edition: acquired beside any base while it is enabled and a plan requests what it carries."""


HELD_ROLES = frozenset({Role.BASE, Role.PACK, Role.EDITION, Role.ADDON})
"""The roles whose items a workload can hold; each takes one unit."""

WHOLE_ROLES = frozenset({Role.BASE, Role.EDITION})
"""The roles of which a workload holds exactly one per application."""


class WorkloadType(msgspec.Struct, frozen=True):
    """A kind of workload; ``groups`` are names that features and items may use for several types at once."""

    name: str
    groups: tuple[str, ...] = ()


class Application(msgspec.Struct, frozen=True):
    """A service that owns editions, items and features.

    ``holds_base`` says when a workload takes an edition or base item of it: ``when_protected`` (whatever its plans
    request) or ``when_requested`` (only for a feature of this application).
    """

    id: str
    name: str
    type: str
    holds_base: HoldsBase


class Infrastructure(msgspec.Struct, frozen=True):
    """A storage component that ``infra`` items are bound to."""

    name: str
    id: str
    backend_type: str
    capabilities: tuple[str, ...]
    platform_owned: bool = True


class Feature(msgspec.Struct, frozen=True):
    """One technical capability; empty ``os_families`` means every family (docs/domain.md 5.3)."""

    id: str
    application_id: str
    scope: Scope
    applies_to: frozenset[str]
    os_families: frozenset[str]


class SubEdition(msgspec.Struct, frozen=True):
    """A rank of an edition; ``carries`` are feature groups, ``without`` the features it lacks nevertheless."""

    name: str
    title: str
    prefix: str
    carries: tuple[str, ...]
    without: tuple[str, ...] = ()


class Condition(msgspec.Struct, frozen=True):
    """When a fallback may be used; what is absent does not matter."""

    os: str | None = None
    virtual: bool | None = None
    requests_any: tuple[str, ...] = ()


class Fallback(msgspec.Struct, frozen=True, rename={"workload_type": "for"}):
    """A workload of ``workload_type`` may take the base item for ``take`` instead (docs/domain.md 6, rule 3)."""

    workload_type: str
    take: str
    when: Condition = Condition()


class Edition(msgspec.Struct, frozen=True):
    """An edition or a billing mode; ``sub_editions`` lowest first, empty for a billing mode."""

    name: str
    title: str
    application_id: str
    kind: EditionKind
    legacy: bool
    prefixes: tuple[str, ...]
    sub_editions: tuple[SubEdition, ...]
    base_fallbacks: tuple[Fallback, ...]


class Item(msgspec.Struct, frozen=True):
    """An offering item, the licensable unit.

    ``rank`` orders the items of one edition by sub-edition, lowest first (0 where there is only one). ``suffix`` is
    the name without the edition's prefix. ``requires`` are packs without which this one is of no use. ``position`` is
    the place in the file, which settles the order where no rule does.
    """

    name: str
    application_id: str
    edition: str | None
    sub_edition: str | None
    rank: int
    role: Role
    usage_name: str
    type: ItemType
    unit: Unit
    prefix: str
    suffix: str
    serves: frozenset[str]
    carries: tuple[str, ...]
    features: frozenset[str]
    requires: tuple[str, ...] = ()
    gauge: str | None = None
    infra_id: str | None = None
    position: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Catalog:
    """All entries in the order of the file, with the indexes that decisions need.

    Compared by identity, so that it can be part of a cache key at no cost. Build it with ``build``.
    """

    version: str
    workload_types: tuple[str, ...]
    applications: Mapping[str, Application]
    infrastructures: Mapping[str, Infrastructure]
    features: Mapping[str, Feature]
    feature_groups: Mapping[str, tuple[str, ...]]
    absent_features: frozenset[str]
    editions: Mapping[str, Edition]
    items: Mapping[str, Item]
    gauge_kinds: tuple[str, ...]
    _items_of_edition: Mapping[str | None, tuple[Item, ...]]
    _holdable: Mapping[tuple[str, str], tuple[Item, ...]]
    _packs: Mapping[str, tuple[Item, ...]]
    _covers: Mapping[tuple[str, str], tuple[Item, ...]]
    _addons: Mapping[str, tuple[Item, ...]]
    _gauges: Mapping[str, tuple[Item, ...]]
    _based: Mapping[str, tuple[Application, ...]]
    _requirements: Mapping[str, tuple[str, ...]]

    def item(self, name: str) -> Item:
        """The item of that name; ``KeyError`` where there is none."""
        return self.items[name]

    def find_item(self, name: str) -> Item | None:
        """The item of that name, or None."""
        return self.items.get(name)

    def edition(self, name: str) -> Edition:
        """The edition or billing mode of that name; ``KeyError`` where there is none."""
        return self.editions[name]

    def find_edition(self, name: str) -> Edition | None:
        """The edition or billing mode of that name, or None."""
        return self.editions.get(name)

    def feature(self, feature_id: str) -> Feature:
        """The feature of that id; ``KeyError`` where there is none."""
        return self.features[feature_id]

    def items_of_edition(self, edition: str | None) -> tuple[Item, ...]:
        """Every item of an edition or mode, in the file's order; for None, the items that belong to no edition."""
        return self._items_of_edition.get(edition, ())

    def items_of_application(self, application_id: str) -> tuple[Item, ...]:
        """Every item of an application, in the file's order."""
        return tuple(item for item in self.items.values() if item.application_id == application_id)

    def holdable(self, edition: str, workload_type: str) -> tuple[Item, ...]:
        """The edition items (lowest sub-edition first) or base items of an edition or mode for a workload type."""
        return self._holdable.get((edition, workload_type), ())

    def packs_for(self, base: str) -> tuple[Item, ...]:
        """The packs of the base item's billing mode that serve a type which the base item serves."""
        return self._packs.get(base, ())

    def covers(self, edition: str, workload_type: str) -> tuple[Item, ...]:
        """The items of a mode that cover their features for a workload type without a unit being taken."""
        return self._covers.get((edition, workload_type), ())

    def addons(self, workload_type: str) -> tuple[Item, ...]:
        """The add-on items that serve a workload type."""
        return self._addons.get(workload_type, ())

    def gauges(self, kind: str) -> tuple[Item, ...]:
        """The items that count a gauge, in the file's order."""
        return self._gauges.get(kind, ())

    def based_applications(self, workload_type: str) -> tuple[Application, ...]:
        """The applications in which some edition or mode has an item for the type."""
        return self._based.get(workload_type, ())

    def is_served(self, workload_type: str) -> bool:
        """Whether any item that can be held exists for the type."""
        return workload_type in self._based or workload_type in self._addons

    def requirements(self, item: str) -> tuple[str, ...]:
        """Every item that an item requires, directly or by way of others, in the file's order."""
        return self._requirements[item]

    def features_of(self, item: str, workload_type: str | None = None) -> frozenset[str]:
        """What an item carries; with a type, what of it applies to workloads of that type that it serves."""
        entry = self.items[item]
        if workload_type is None:
            return entry.features
        if workload_type not in entry.serves:
            return frozenset()
        return frozenset(name for name in entry.features if workload_type in self.features[name].applies_to)

    def applies(self, feature: str, workload_type: str, os_family: str | None = None) -> bool:
        """Whether a feature applies to a workload; an operating system that is not said excludes nothing.

        A feature that the catalogue does not know applies to nothing.
        """
        entry = self.features.get(feature)
        if entry is None or workload_type not in entry.applies_to:
            return False
        return os_family is None or not entry.os_families or os_family in entry.os_families

    def applicable(self, features: Iterable[str], workload_type: str, os_family: str | None = None) -> frozenset[str]:
        """Those of the features that apply to a workload; the others are dropped silently (docs/domain.md 5.3)."""
        return frozenset(name for name in features if self.applies(name, workload_type, os_family))


def build(
    *,
    version: str,
    workload_types: tuple[str, ...],
    applications: Mapping[str, Application],
    infrastructures: Mapping[str, Infrastructure],
    features: Mapping[str, Feature],
    feature_groups: Mapping[str, tuple[str, ...]],
    absent_features: frozenset[str],
    editions: Mapping[str, Edition],
    items: Mapping[str, Item],
) -> Catalog:
    """A catalogue with its indexes. The entries are taken to be consistent: ``load`` is what checks them."""
    of_edition: dict[str | None, list[Item]] = {None: [], **{name: [] for name in editions}}
    for item in items.values():
        of_edition[item.edition].append(item)
    gauges: dict[str, list[Item]] = {}
    for item in items.values():
        if item.gauge is not None:
            gauges.setdefault(item.gauge, []).append(item)
    holdable = _by_edition_and_type(items.values(), WHOLE_ROLES)
    return Catalog(
        version=version,
        workload_types=workload_types,
        applications=applications,
        infrastructures=infrastructures,
        features=features,
        feature_groups=feature_groups,
        absent_features=absent_features,
        editions=editions,
        items=items,
        gauge_kinds=tuple(gauges),
        _items_of_edition={name: tuple(entries) for name, entries in of_edition.items()},
        _holdable=holdable,
        _packs=_packs_by_base(items.values()),
        _covers=_by_edition_and_type(items.values(), {Role.COVER}),
        _addons=_addons_by_type(items.values(), workload_types),
        _gauges={kind: tuple(entries) for kind, entries in gauges.items()},
        _based=_applications_by_type(applications, editions, holdable, workload_types),
        _requirements={name: _required(items, name) for name in items},
    )


def _by_edition_and_type(
    items: Iterable[Item], roles: frozenset[Role] | set[Role]
) -> dict[tuple[str, str], tuple[Item, ...]]:
    found: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        if item.role in roles and item.edition is not None:
            for workload_type in item.serves:
                found.setdefault((item.edition, workload_type), []).append(item)
    # The sort is stable: items of one rank keep the file's order.
    return {key: tuple(sorted(entries, key=lambda item: item.rank)) for key, entries in found.items()}


def _packs_by_base(items: Iterable[Item]) -> dict[str, tuple[Item, ...]]:
    entries = list(items)
    packs = [item for item in entries if item.role is Role.PACK]
    return {
        base.name: tuple(pack for pack in packs if pack.edition == base.edition and pack.serves & base.serves)
        for base in entries
        if base.role is Role.BASE
    }


def _addons_by_type(items: Iterable[Item], workload_types: Iterable[str]) -> dict[str, tuple[Item, ...]]:
    addons = [item for item in items if item.role is Role.ADDON]
    by_type = {name: tuple(item for item in addons if name in item.serves) for name in workload_types}
    return {name: entries for name, entries in by_type.items() if entries}


def _applications_by_type(
    applications: Mapping[str, Application],
    editions: Mapping[str, Edition],
    holdable: Mapping[tuple[str, str], tuple[Item, ...]],
    workload_types: Iterable[str],
) -> dict[str, tuple[Application, ...]]:
    served = {(editions[edition].application_id, workload_type) for edition, workload_type in holdable}
    by_type = {
        name: tuple(entry for entry in applications.values() if (entry.id, name) in served) for name in workload_types
    }
    return {name: entries for name, entries in by_type.items() if entries}


def _required(items: Mapping[str, Item], name: str) -> tuple[str, ...]:
    """Contains the item itself only where its requirements lead back to it, which ``load`` refuses."""
    found: set[str] = set()
    open_names = list(items[name].requires)
    while open_names:
        required = open_names.pop()
        if required not in found:
            found.add(required)
            open_names += items[required].requires
    return tuple(each for each in items if each in found)
