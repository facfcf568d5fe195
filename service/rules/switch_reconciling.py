"""What a switch makes of the workloads of one kind (docs/domain.md 7, row "usage").

Required are the features that a workload has now, so that one that waits for something more never stands in the way.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import msgspec

from service.catalog import model
from service.catalog.model import WHOLE_ROLES, Role
from service.rules import assignment
from service.rules.tally import Kind


class Outcome(msgspec.Struct, frozen=True):
    """What becomes of the workloads of one kind.

    ``after`` is all that each of them holds then, sorted, of all applications; what is not of the switched editions is
    held on. ``uncovered`` are the features that its plans request and no enabled item covers then, ``reasons`` say why;
    both as a decision about it would say them. ``lost`` are the features that it has now and will not have.
    ``stranded``: it holds an edition or base item now and there is none for it in the target. ``waits``: it is due
    something more then, or is left without something; it has to be entered among who waits.
    """

    kind: Kind
    count: int
    after: tuple[str, ...]
    uncovered: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    reasons: tuple[assignment.Denial, ...] = ()
    stranded: bool = False
    waits: bool = False

    @property
    def taken(self) -> tuple[str, ...]:
        """The items of which it takes a unit."""
        return tuple(name for name in self.after if name not in self.kind.held)

    @property
    def released(self) -> tuple[str, ...]:
        """The items of which it gives a unit back."""
        return tuple(name for name in self.kind.held if name not in self.after)


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """The customer before and after: editions by application, all enabled items, and which edition gives way to which.

    Compared by identity, so that what becomes of a kind can be remembered with it at no cost; ``sides`` makes them.
    ``pairs`` maps held items to what is held instead, where that needs no decision (mode to mode); else it is empty.
    """

    source: str
    target: str
    editions_before: Mapping[str, str]
    editions_after: Mapping[str, str]
    enabled_before: frozenset[str]
    enabled_after: frozenset[str]
    pairs: Mapping[str, str]


@functools.lru_cache(maxsize=assignment.CACHE_SIZE_MAX)
def sides(
    catalog: model.Catalog,
    application: str,
    target: str,
    before: frozenset[str],
    after: frozenset[str],
    pairs: tuple[tuple[str, str], ...] = (),
) -> Sides:
    """The two sides of a switch, from all items that are enabled before and after it; the same ones for the same.

    Answers are remembered, as the customers of a mass switch have much the same items.
    """
    editions = assignment.edition_of(catalog, before)
    return Sides(
        source=editions[application],
        target=target,
        editions_before=editions,
        editions_after={**editions, application: target},
        enabled_before=before,
        enabled_after=after,
        pairs=dict(pairs),
    )


def reconcile(catalog: model.Catalog, sides: Sides, kind: Kind, count: int) -> Outcome:
    """What becomes of a kind: what it gives up, what it gets, and what it misses."""
    return msgspec.structs.replace(_reconcile(catalog, sides, kind), count=count)


@functools.lru_cache(maxsize=assignment.CACHE_SIZE_MAX)
def _reconcile(catalog: model.Catalog, sides: Sides, kind: Kind) -> Outcome:
    wished = _decide(catalog, sides, kind, kind.features)
    had = features_had(catalog, sides, kind)
    after = _former(catalog, sides, kind, wished) or _paired(catalog, sides, kind)
    stranded = False
    if after is None:
        required = _decide(catalog, sides, kind, had)
        holds = _holds_whole(catalog, kind.held, sides.source)
        due = required.candidates[0] if holds and required.candidates else None
        after = _merged(catalog, sides, kind, due)
        stranded = holds and bool(required.denials) and not _holds_whole(catalog, after, sides.target)
    covered = _covered(catalog, after, sides.editions_after, sides.enabled_after, kind)
    return Outcome(
        kind=kind,
        count=1,
        after=after,
        uncovered=wished.uncovered_features,
        lost=tuple(sorted(had - covered)),
        reasons=wished.denials,
        stranded=stranded,
        waits=bool(wished.denials) or not _is_content(catalog, sides, after, wished),
    )


def features_had(catalog: model.Catalog, sides: Sides, kind: Kind) -> frozenset[str]:
    """The features that the plans request and the workload has now, whichever application they are of."""
    covered = _covered(catalog, kind.held, sides.editions_before, sides.enabled_before, kind)
    return catalog.applicable(kind.features & covered, kind.facts.type, kind.facts.os_family)


def _covered(
    catalog: model.Catalog, held: tuple[str, ...], editions: Mapping[str, str], enabled: AbstractSet[str], kind: Kind
) -> frozenset[str]:
    """What the held items carry, and what is covered beside a base without a unit being taken."""
    entries = [item for name in held if (item := catalog.find_item(name)) is not None]
    of_held = frozenset().union(*(item.features for item in entries))
    based = {item.edition for item in entries if item.role in WHOLE_ROLES}
    covers = (item for each in editions.values() if each in based for item in catalog.covers(each, kind.facts.type))
    return of_held.union(*(item.features for item in covers if item.name in enabled))


def _decide(catalog: model.Catalog, sides: Sides, kind: Kind, features: frozenset[str]) -> assignment.Decision:
    return assignment.decide(catalog, sides.editions_after, sides.enabled_after, kind.facts, features, kind.protected)


def _holds_whole(catalog: model.Catalog, held: tuple[str, ...], edition: str) -> bool:
    """Whether an edition or base item of that edition or mode is held."""
    entries = (catalog.find_item(name) for name in held)
    return any(item is not None and item.edition == edition and item.role in WHOLE_ROLES for item in entries)


def _merged(catalog: model.Catalog, sides: Sides, kind: Kind, due: assignment.Candidate | None) -> tuple[str, ...]:
    """What is held of other editions stays; of the target, and of add-ons, what is due."""
    kept = {name for name in kind.held if catalog.item(name).edition != sides.source}
    if due is None:
        return tuple(sorted(kept))
    chosen = {*due.items, *due.packs}
    kept -= {name for name in kept if catalog.item(name).role is Role.ADDON}
    got = {n for n in chosen if catalog.item(n).edition == sides.target or catalog.item(n).role is Role.ADDON}
    return tuple(sorted(kept | got))


def _paired(catalog: model.Catalog, sides: Sides, kind: Kind) -> tuple[str, ...] | None:
    """Between modes everybody holds the same as before, by suffix; None where something has no counterpart."""
    if not sides.pairs:
        return None
    source = [name for name in kind.held if catalog.item(name).edition == sides.source]
    if any(sides.pairs.get(name) not in sides.enabled_after for name in source):
        return None
    return tuple(sorted(sides.pairs[name] if name in source else name for name in kind.held))


def _former(catalog: model.Catalog, sides: Sides, kind: Kind, wished: assignment.Decision) -> tuple[str, ...] | None:
    """What was held before the switch that is undone, where that still is a way to cover the workload, or a part of it.

    A part is what was held by one that waited for the rest; it waits again. None: it has to be decided anew.
    """
    if kind.former is None or not kind.protected or not _holds_whole(catalog, kind.former, sides.target):
        return None
    former = _of(catalog, sides.target, kind.former)
    ways = [_of(catalog, sides.target, (*each.items, *each.packs)) for each in wished.candidates]
    lower = [{item.name} for item in catalog.holdable(sides.target, kind.facts.type) if item.role is Role.EDITION]
    if former <= sides.enabled_after and any(former <= way for way in (*ways, *lower)):
        kept = (name for name in kind.held if catalog.item(name).edition != sides.source)
        return tuple(sorted({*kept, *former}))
    return None


def _of(catalog: model.Catalog, edition: str, names: Iterable[str]) -> set[str]:
    return {name for name in names if catalog.item(name).edition == edition}


def _is_content(catalog: model.Catalog, sides: Sides, after: tuple[str, ...], wished: assignment.Decision) -> bool:
    """Whether nothing more is due: what is held of the target is one of the ways to cover all that is requested."""
    held = _of(catalog, sides.target, after)
    ways = (_of(catalog, sides.target, (*each.items, *each.packs)) for each in wished.candidates)
    return any(way <= held for way in ways) if wished.candidates else not held
