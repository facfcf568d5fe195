"""What must hold of a catalogue beyond its shape. Every check gives all its findings, one sentence each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from service.catalog import model, source

_IDENTIFIER = re.compile(r"[A-Za-z0-9._:-]{1,64}")
"""The bounds of identifiers on the wire (docs/contracts.md 1)."""

_MODE_ROLES = frozenset({model.Role.BASE, model.Role.PACK, model.Role.COVER, model.Role.COMPONENT})
_FREE_ROLES = frozenset({model.Role.ADDON, model.Role.TENANT_FEATURE})
_SERVING_ROLES = model.HELD_ROLES | {model.Role.COVER}
_UNITS_OF_TYPE: Mapping[str, frozenset[str]] = {
    "count": frozenset({"quantity", "bytes", "seconds"}),
    "infra": frozenset({"quantity", "bytes", "seconds", "n/a"}),
    "feature": frozenset({"n/a"}),
}


def references(document: source.Document) -> list[str]:
    """Names: none twice, none out of bounds, and none that leads nowhere."""
    findings = list(_names(document))
    findings += _feature_references(document)
    findings += _edition_references(document)
    findings += _item_references(document)
    return findings


def meaning(catalog: model.Catalog, document: source.Document) -> list[str]:
    """What the entries say together. Expects a document in which every reference leads somewhere."""
    findings: list[str] = []
    for item in catalog.items.values():
        findings += _role(catalog, item)
        findings += _quantity(item)
        findings += _prefix(catalog, item)
        findings += _requirements(catalog, item)
        findings += _carriage(catalog, item)
    findings += _emptiness(catalog, document)
    findings += _prefixes(catalog)
    findings += _reachability(catalog)
    findings += _gauges(catalog)
    findings += _fallbacks(catalog)
    findings += _carriers(catalog)
    return findings


def _names(document: source.Document) -> Iterator[str]:
    type_names = [entry.name for entry in document.workload_types]
    groups = {group for entry in document.workload_types for group in entry.groups}
    namespaces: dict[str, list[str]] = {
        "workload type": type_names + sorted(groups),
        "application": [entry.id for entry in document.applications],
        "infrastructure": [entry.name for entry in document.infrastructures],
        "infrastructure id": [entry.id for entry in document.infrastructures],
        "feature": [entry.id for entry in document.features],
        "feature group": list(document.feature_groups),
        "edition": [entry.name for entry in document.editions],
        "item": [entry.name for entry in document.items],
    }
    for entry in document.editions:
        namespaces[f"sub-edition of {entry.name}"] = [each.name for each in entry.sub_editions]
    for kind, names in namespaces.items():
        for name, count in Counter(names).items():
            if count > 1:
                yield f"{kind} {name}: named {count} times"
            if not _IDENTIFIER.fullmatch(name):
                yield f"{kind} {name!r}: not 1 to 64 of A-Z a-z 0-9 . _ : -"
    for item in document.items:
        if not _IDENTIFIER.fullmatch(item.usage_name):
            yield f"item {item.name}: usage name {item.usage_name!r} is not 1 to 64 of A-Z a-z 0-9 . _ : -"


def _unknown(place: str, kind: str, names: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    there = set(known)
    return (f"{place}: {kind} {name} does not exist" for name in names if name not in there)


def _type_names(document: source.Document) -> set[str]:
    return {name for entry in document.workload_types for name in (entry.name, *entry.groups)}


def _feature_references(document: source.Document) -> Iterator[str]:
    types = _type_names(document)
    applications = [entry.id for entry in document.applications]
    ids = [entry.id for entry in document.features]
    for feature in document.features:
        place = f"feature {feature.id}"
        yield from _unknown(place, "application", [feature.application], applications)
        yield from _unknown(place, "workload type", feature.applies_to, types)
        if (feature.scope == "workload") != bool(feature.applies_to):
            yield f"{place}: a workload feature applies to some type, a tenant-wide one to none"
    for group, members in document.feature_groups.items():
        yield from _unknown(f"feature group {group}", "feature", members, ids)
    yield from _unknown("absent_features", "feature", document.absent_features, ids)


def _edition_references(document: source.Document) -> Iterator[str]:
    applications = [entry.id for entry in document.applications]
    features = [entry.id for entry in document.features]
    types = [entry.name for entry in document.workload_types]
    for edition in document.editions:
        place = f"edition {edition.name}"
        yield from _unknown(place, "application", [edition.application], applications)
        for sub_edition in edition.sub_editions:
            at = f"{place}, sub-edition {sub_edition.name}"
            yield from _unknown(at, "feature group", sub_edition.carries, document.feature_groups)
            yield from _unknown(at, "feature", sub_edition.without, features)
        for fallback in edition.base_fallbacks:
            yield from _unknown(place, "workload type", [fallback.workload_type, fallback.take], types)
            yield from _unknown(place, "feature", fallback.when.requests_any, features)
        if edition.kind == "edition" and (edition.prefixes or edition.base_fallbacks or not edition.sub_editions):
            yield f"{place}: an edition has sub-editions, and no prefixes or base fallbacks of its own"
        if edition.kind == "billing_mode" and (edition.sub_editions or not edition.prefixes):
            yield f"{place}: a billing mode has prefixes and no sub-editions"


def _item_references(document: source.Document) -> Iterator[str]:
    types = _type_names(document)
    names = [entry.name for entry in document.items]
    for item in document.items:
        place = f"item {item.name}"
        if (item.edition is None) == (item.application is None):
            yield f"{place}: names either its edition or, having none, its application"
        if item.edition is not None:
            yield from _unknown(place, "edition", [item.edition], [entry.name for entry in document.editions])
        if item.application is not None:
            applications = [entry.id for entry in document.applications]
            yield from _unknown(place, "application", [item.application], applications)
        if item.infrastructure is not None:
            infrastructures = [entry.name for entry in document.infrastructures]
            yield from _unknown(place, "infrastructure", [item.infrastructure], infrastructures)
        if item.role is model.Role.EDITION and item.carries:
            yield f"{place}: its sub-edition says what it carries, not the item"
        yield from _unknown(place, "workload type", item.serves, types)
        yield from _unknown(place, "feature group", item.carries, document.feature_groups)
        yield from _unknown(place, "item", item.requires, names)


def _role(catalog: model.Catalog, item: model.Item) -> Iterator[str]:
    place, role = f"item {item.name}", item.role
    kind = catalog.editions[item.edition].kind if item.edition is not None else None
    if role in _MODE_ROLES and kind != "billing_mode":
        yield f"{place}: role {role} belongs to a billing mode"
    if role is model.Role.EDITION and kind != "edition":
        yield f"{place}: an edition item belongs to an edition"
    if role in _FREE_ROLES and item.edition is not None:
        yield f"{place}: role {role} belongs to no edition"
    if role in _SERVING_ROLES and not item.serves:
        yield f"{place}: serves no workload type"
    if role not in _SERVING_ROLES and item.serves:
        yield f"{place}: role {role} serves no workload type"
    if (role is model.Role.GAUGE) != (item.gauge is not None):
        yield f"{place}: a gauge, and nothing else, says what it counts"


def _quantity(item: model.Item) -> Iterator[str]:
    place, role = f"item {item.name}", item.role
    if item.unit not in _UNITS_OF_TYPE[item.type]:
        yield f"{place}: type {item.type} is not counted in {item.unit}"
    if role in model.HELD_ROLES and (item.type, item.unit) != ("count", "quantity"):
        yield f"{place}: what a workload holds is a count in quantity"
    if role is model.Role.GAUGE and item.unit != "bytes":
        yield f"{place}: a gauge counts bytes"
    if role is model.Role.TENANT_FEATURE and item.type != "feature":
        yield f"{place}: a tenant feature is of type feature"
    if item.type == "infra" and item.infra_id is None:
        yield f"{place}: an infra item names its infrastructure"


def _prefix(catalog: model.Catalog, item: model.Item) -> Iterator[str]:
    """The longest prefix of any edition that fits the name is one of the item's own edition (docs/domain.md 5.1)."""
    place = f"item {item.name}"
    others = [
        prefix for edition in catalog.editions.values() if edition.name != item.edition for prefix in edition.prefixes
    ]
    foreign = source.longest_prefix(item.name, others)
    if len(foreign) > len(item.prefix):
        yield f"{place}: begins with {foreign}, the prefix of another edition"
    if item.edition is None:
        return
    own = catalog.editions[item.edition].prefixes
    if not any(item.name.startswith(prefix) for prefix in own):
        yield f"{place}: begins with no prefix of {item.edition}"


def _requirements(catalog: model.Catalog, item: model.Item) -> Iterator[str]:
    place = f"item {item.name}"
    if item.requires and item.role is not model.Role.PACK:
        yield f"{place}: only packs require others"
    for name in item.requires:
        required = catalog.items[name]
        if required.role is not model.Role.PACK or required.edition != item.edition:
            yield f"{place}: requires {name}, which is no pack of {item.edition}"
        elif not item.serves <= required.serves:
            yield f"{place}: requires {name}, which does not serve every type that it serves itself"
    if item.name in catalog.requirements(item.name):
        yield f"{place}: requires itself"


def _carriage(catalog: model.Catalog, item: model.Item) -> Iterator[str]:
    place = f"item {item.name}"
    scope = "tenant" if item.role is model.Role.TENANT_FEATURE else "workload"
    for name in sorted(item.features):
        feature = catalog.features[name]
        if feature.application_id != item.application_id:
            yield f"{place}: carries {name}, a feature of another application"
        if feature.scope != scope:
            yield f"{place}: carries {name}, which is not a {scope} feature"


def _emptiness(catalog: model.Catalog, document: source.Document) -> Iterator[str]:
    """An item that is meant to carry features has some, unless it is declared to have none."""
    for entry in document.items:
        carrying = entry.role in _SERVING_ROLES or entry.role is model.Role.TENANT_FEATURE
        empty = not catalog.items[entry.name].features
        if carrying and empty and not entry.carries_nothing:
            yield f"item {entry.name}: carries no feature"
        if entry.carries_nothing and not empty:
            yield f"item {entry.name}: is declared to carry nothing, but carries features"


def _prefixes(catalog: model.Catalog) -> Iterator[str]:
    counted = Counter(prefix for edition in catalog.editions.values() for prefix in edition.prefixes)
    for prefix, count in counted.items():
        if count > 1:
            yield f"prefix {prefix!r}: used {count} times"


def _reachability(catalog: model.Catalog) -> Iterator[str]:
    for edition in catalog.editions.values():
        items = catalog.items_of_edition(edition.name)
        if edition.kind == "billing_mode" and not any(item.role is model.Role.BASE for item in items):
            yield f"edition {edition.name}: has no base item"
        for sub_edition in edition.sub_editions:
            if not any(item.sub_edition == sub_edition.name for item in items):
                yield f"edition {edition.name}: sub-edition {sub_edition.name} has no item"
    for workload_type in catalog.workload_types:
        if not catalog.is_served(workload_type):
            yield f"workload type {workload_type}: no item serves it"


def _gauges(catalog: model.Catalog) -> Iterator[str]:
    counted = Counter((item.edition, item.gauge) for item in catalog.items.values() if item.gauge is not None)
    for (edition, gauge), count in counted.items():
        if count > 1:
            yield f"gauge {gauge} of {edition}: counted by {count} items"


def _fallbacks(catalog: model.Catalog) -> Iterator[str]:
    for edition in catalog.editions.values():
        steps: dict[str, set[str]] = {}
        for fallback in edition.base_fallbacks:
            steps.setdefault(fallback.workload_type, set()).add(fallback.take)
            for workload_type in (fallback.workload_type, fallback.take):
                if not catalog.holdable(edition.name, workload_type):
                    yield f"edition {edition.name}: a base fallback names {workload_type}, which no base item serves"
        for start in steps:
            if start in _reached(steps, start):
                yield f"edition {edition.name}: the base fallbacks of {start} lead back to it"


def _reached(steps: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    open_names = list(steps.get(start, ()))
    while open_names:
        name = open_names.pop()
        if name not in found:
            found.add(name)
            open_names += steps.get(name, ())
    return found


def _carriers(catalog: model.Catalog) -> Iterator[str]:
    carried = {name for item in catalog.items.values() for name in item.features}
    for name in catalog.features:
        if name not in carried and name not in catalog.absent_features:
            yield f"feature {name}: no item carries it, and it is not declared absent"
        if name in carried and name in catalog.absent_features:
            yield f"feature {name}: is declared absent, but an item carries it"
