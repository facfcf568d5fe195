"""From a catalogue file to a ``Catalog``, or to the list of everything that is wrong with the file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from service.catalog import check, model, source

BUILT_IN = Path(__file__).with_name("catalog.json")


class CatalogError(Exception):
    """A catalogue file cannot be used; ``findings`` has a sentence for each reason."""

    def __init__(self, place: str, findings: Iterable[str]) -> None:
        self.place = place
        self.findings = tuple(findings)
        super().__init__(f"{place}: {len(self.findings)} finding(s): " + "; ".join(self.findings))


def load(path: Path | None = None) -> model.Catalog:
    """The catalogue of a file, by default of the one inside the package (docs/domain.md 5).

    Raises ``CatalogError`` with every finding. Entries of a wrong shape are reported first and alone, since
    whatever refers to them would only be reported as an echo.
    """
    place = path or BUILT_IN
    try:
        content = place.read_bytes()
    except OSError as error:
        raise CatalogError(str(place), [f"cannot be read: {error.strerror}"]) from error
    return parse(content, str(place))


def parse(content: bytes, place: str = "catalogue") -> model.Catalog:
    """The catalogue that ``content`` describes; ``place`` is what errors call it."""
    findings: list[str] = []
    document = source.read(content, findings)
    if document is None:
        raise CatalogError(place, findings)
    findings += check.references(document)
    if findings:
        raise CatalogError(place, findings)
    catalog = _build(document)
    findings += check.meaning(catalog, document)
    if findings:
        raise CatalogError(place, findings)
    return catalog


def _build(document: source.Document) -> model.Catalog:
    """Resolves names; ``check.references`` has made sure that each of them leads somewhere."""
    types = _Types(document)
    features = {
        entry.id: model.Feature(
            id=entry.id,
            application_id=entry.application,
            scope=entry.scope,
            applies_to=types.expand(entry.applies_to),
            os_families=frozenset(entry.os_families),
        )
        for entry in document.features
    }
    editions = {entry.name: _edition(entry) for entry in document.editions}
    infrastructures = {
        entry.name: model.Infrastructure(
            name=entry.name,
            id=entry.id,
            backend_type=entry.backend_type,
            capabilities=entry.capabilities,
            platform_owned=entry.platform_owned,
        )
        for entry in document.infrastructures
    }
    groups = document.feature_groups
    return model.build(
        version=document.version,
        workload_types=tuple(entry.name for entry in document.workload_types),
        applications={
            entry.id: model.Application(id=entry.id, name=entry.name, type=entry.type, holds_base=entry.holds_base)
            for entry in document.applications
        },
        infrastructures=infrastructures,
        features=features,
        feature_groups=groups,
        absent_features=frozenset(document.absent_features),
        editions=editions,
        items={
            entry.name: msgspec.structs.replace(
                _item(entry, editions, types.expand(entry.serves), features, groups, infrastructures),
                position=position,
            )
            for position, entry in enumerate(document.items)
        },
    )


class _Types:
    """Workload types by their own name and by the groups they are in."""

    def __init__(self, document: source.Document) -> None:
        self._members: dict[str, set[str]] = {}
        for entry in document.workload_types:
            for name in (entry.name, *entry.groups):
                self._members.setdefault(name, set()).add(entry.name)

    def expand(self, names: Iterable[str]) -> frozenset[str]:
        return frozenset(member for name in names for member in self._members[name])


def _edition(entry: source.Edition) -> model.Edition:
    return model.Edition(
        name=entry.name,
        title=entry.title,
        application_id=entry.application,
        kind=entry.kind,
        legacy=entry.legacy,
        prefixes=entry.all_prefixes(),
        sub_editions=tuple(
            model.SubEdition(
                name=sub_edition.name,
                title=sub_edition.title or sub_edition.name,
                prefix=sub_edition.prefix,
                carries=sub_edition.carries,
                without=sub_edition.without,
            )
            for sub_edition in entry.sub_editions
        ),
        base_fallbacks=tuple(
            model.Fallback(
                workload_type=fallback.workload_type,
                take=fallback.take,
                when=model.Condition(
                    os=fallback.when.os,
                    virtual=fallback.when.virtual,
                    requests_any=fallback.when.requests_any,
                ),
            )
            for fallback in entry.base_fallbacks
        ),
    )


def _item(
    entry: source.Item,
    editions: dict[str, model.Edition],
    serves: frozenset[str],
    features: dict[str, model.Feature],
    groups: dict[str, tuple[str, ...]],
    infrastructures: dict[str, model.Infrastructure],
) -> model.Item:
    edition = editions[entry.edition] if entry.edition is not None else None
    prefix = source.longest_prefix(entry.name, edition.prefixes) if edition else ""
    sub_edition = _sub_edition(entry, edition, prefix)
    carries = sub_edition.carries if sub_edition else entry.carries
    without = sub_edition.without if sub_edition else ()
    return model.Item(
        name=entry.name,
        application_id=edition.application_id if edition else entry.application or "",
        edition=entry.edition,
        sub_edition=sub_edition.name if sub_edition else None,
        rank=edition.sub_editions.index(sub_edition) if edition and sub_edition else 0,
        role=entry.role,
        usage_name=entry.usage_name,
        type=entry.type,
        unit=entry.unit,
        prefix=prefix,
        suffix=entry.name.removeprefix(prefix),
        serves=serves,
        carries=carries,
        features=_carried(carries, without, serves, features, groups),
        requires=entry.requires,
        gauge=entry.gauge,
        infra_id=infrastructures[entry.infrastructure].id if entry.infrastructure else None,
    )


def _sub_edition(entry: source.Item, edition: model.Edition | None, prefix: str) -> model.SubEdition | None:
    if edition is None or entry.role is not model.Role.EDITION:
        return None
    return next((each for each in edition.sub_editions if each.prefix == prefix), None)


def _carried(
    carries: tuple[str, ...],
    without: tuple[str, ...],
    serves: frozenset[str],
    features: dict[str, model.Feature],
    groups: dict[str, tuple[str, ...]],
) -> frozenset[str]:
    """The features of the groups that apply to some type that the item serves, and all tenant-wide ones."""
    named = (features[name] for group in carries for name in groups[group] if name not in without)
    return frozenset(each.id for each in named if each.scope == "tenant" or each.applies_to & serves)
