"""The catalogue file as it is written: its shape, and nothing of what its entries mean."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from service.catalog import model

FORMAT = 1
"""The format of catalogue files that this version reads."""


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An entry in which a misspelt field is an error instead of a silent nothing."""


class WorkloadType(Strict, frozen=True):
    """A kind of workload, and the groups that stand for it."""

    name: str
    groups: tuple[str, ...] = ()


class Application(Strict, frozen=True):
    """A service that owns editions, items and features."""

    id: str
    name: str
    type: str
    holds_base: model.HoldsBase


class Infrastructure(Strict, frozen=True):
    """A storage component that items are bound to."""

    name: str
    id: str
    backend_type: str
    capabilities: tuple[str, ...]
    platform_owned: bool = True


class Feature(Strict, frozen=True):
    """``applies_to`` names workload types or groups of them."""

    id: str
    application: str
    scope: model.Scope
    applies_to: tuple[str, ...] = ()
    os_families: tuple[str, ...] = ()


class SubEdition(Strict, frozen=True):
    """A rank of an edition; the lowest stands first in the file."""

    name: str
    prefix: str
    carries: tuple[str, ...]
    title: str = ""
    without: tuple[str, ...] = ()


class Condition(Strict, frozen=True):
    """When a fallback may be used."""

    os: str | None = None
    virtual: bool | None = None
    requests_any: tuple[str, ...] = ()


class Fallback(Strict, frozen=True, rename={"workload_type": "for"}):
    """Whose base item a workload may take instead of its own type's."""

    workload_type: str
    take: str
    when: Condition = Condition()


class Edition(Strict, frozen=True):
    """``sub_editions`` belong to editions; ``prefixes`` and ``base_fallbacks`` to billing modes."""

    name: str
    title: str
    application: str
    kind: model.EditionKind
    legacy: bool = False
    prefixes: tuple[str, ...] = ()
    sub_editions: tuple[SubEdition, ...] = ()
    base_fallbacks: tuple[Fallback, ...] = ()

    def all_prefixes(self) -> tuple[str, ...]:
        """What the names of the edition's items may begin with."""
        return self.prefixes + tuple(sub_edition.prefix for sub_edition in self.sub_editions)


class Item(Strict, frozen=True):
    """``application`` is said where there is no edition to say it; ``carries`` where no sub-edition does.

    ``carries_nothing`` declares that an item has, for the types it serves, no feature to carry.
    """

    name: str
    role: model.Role
    usage_name: str
    type: model.ItemType
    unit: model.Unit
    edition: str | None = None
    application: str | None = None
    serves: tuple[str, ...] = ()
    carries: tuple[str, ...] = ()
    carries_nothing: bool = False
    requires: tuple[str, ...] = ()
    gauge: str | None = None
    infrastructure: str | None = None


class Document(Strict, frozen=True):
    """A whole file, entry by entry in its order."""

    version: str
    workload_types: tuple[WorkloadType, ...]
    applications: tuple[Application, ...]
    infrastructures: tuple[Infrastructure, ...]
    features: tuple[Feature, ...]
    feature_groups: dict[str, tuple[str, ...]]
    absent_features: tuple[str, ...]
    editions: tuple[Edition, ...]
    items: tuple[Item, ...]


def longest_prefix(name: str, prefixes: Iterable[str]) -> str:
    """The longest of the prefixes that a name begins with; empty where none does."""
    return max((prefix for prefix in prefixes if name.startswith(prefix)), key=len, default="")


_Entry = TypeVar("_Entry")

_LISTS: dict[str, type[Strict]] = {
    "workload_types": WorkloadType,
    "applications": Application,
    "infrastructures": Infrastructure,
    "features": Feature,
    "editions": Edition,
    "items": Item,
}


def read(content: bytes, findings: list[str]) -> Document | None:
    """The document, or None with a finding for every entry whose shape is wrong.

    Entries are converted one by one, because a reader of many faults is better served than by the first alone.
    """
    raw = _decode(content, findings)
    if raw is None:
        return None
    if raw.get("format") != FORMAT:
        findings.append(f"format: expected {FORMAT}, found {raw.get('format')!r}")
    unknown = raw.keys() - {"format", "about"} - set(Document.__struct_fields__)
    findings += [f"{name}: no such section" for name in sorted(unknown)]
    sections: dict[str, Any] = {name: _entries(raw, name, kind, findings) for name, kind in _LISTS.items()}
    sections["version"] = _section(raw, "version", str, findings)
    sections["feature_groups"] = _section(raw, "feature_groups", dict[str, tuple[str, ...]], findings)
    sections["absent_features"] = _section(raw, "absent_features", tuple[str, ...], findings)
    return None if findings else Document(**sections)


def _decode(content: bytes, findings: list[str]) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        findings.append(f"not a JSON object: {error}")
        return None


def _entries(raw: dict[str, Any], section: str, kind: type[_Entry], findings: list[str]) -> tuple[_Entry, ...]:
    listed: list[Any] = _section(raw, section, list[Any], findings) or []
    converted = (_converted(f"{section}[{place}]", entry, kind, findings) for place, entry in enumerate(listed))
    return tuple(entry for entry in converted if entry is not None)


def _section(raw: dict[str, Any], section: str, kind: Any, findings: list[str]) -> Any:
    if section not in raw:
        findings.append(f"{section}: missing")
        return None
    return _converted(section, raw[section], kind, findings)


def _converted(place: str, entry: Any, kind: type[_Entry], findings: list[str]) -> _Entry | None:
    try:
        return msgspec.convert(entry, kind)
    except msgspec.ValidationError as error:
        findings.append(f"{place}: {error}")
        return None
