"""Back to the state before a switch (docs/domain.md 7); what was changed since is kept.

A change since is kept where it has a place on the other side: a quota goes to the one item that stands for the changed
one, what was turned off stays off, what was turned on gets what an ordinary switch would give it. Where it has none (a
pack, on the way to an edition; a quota that was the sum of several) the state before comes back. All of it is listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import msgspec

from service.catalog import model
from service.catalog.model import WHOLE_ROLES, Role
from service.rules import quotas, switch_mapping
from service.rules.quotas import Quota
from service.rules.switch_drift import Drift, described, shown_quota
from service.rules.switch_mapping import Direction, Provision, Source


class Kept(msgspec.Struct, frozen=True):
    """What is kept of a switch so that it can be undone: the enabled items of the source with their quotas, and those
    that it has set. What each workload held is kept with the workload (``tally.Kind.former``)."""

    application: str
    from_edition: str
    to_edition: str
    before: Mapping[str, Quota]
    done: Mapping[str, Quota]


class Restored(NamedTuple):
    """The items to turn on and off again, and what has changed since the switch."""

    provision: Provision
    drift: tuple[Drift, ...]


def restore(catalog: model.Catalog, kept: Kept, current: Source) -> Restored:
    """The items and quotas before the switch, with what was changed since; ``current`` is the edition it led to."""
    before = dict(kept.before)
    untouched = frozenset(name for name in kept.done if kept.done[name] == current.quotas.get(name))
    changed = (kept.done.keys() | current.quotas.keys()) - untouched
    carried: set[str] = set()
    for group in _groups(catalog, kept, changed):
        if _carry(catalog, kept, current, group, before):
            carried.update(group.now)
    drift = tuple(_drift(kept, current, name, name in carried) for name in sorted(changed))
    enable = {name: before[name] for name in sorted(before, key=lambda name: catalog.item(name).position)}
    disable = tuple(sorted(current.quotas, key=lambda name: catalog.item(name).position))
    return Restored(Provision(enable, disable), drift)


class _Group(NamedTuple):
    """Items of both sides that stand for each other: ``then`` of the state before, ``now`` of the state since."""

    then: frozenset[str]
    now: frozenset[str]


def _groups(catalog: model.Catalog, kept: Kept, changed: AbstractSet[str]) -> Iterable[_Group]:
    """The groups in which something has changed, in the catalogue's order."""
    then = {name: _place(catalog, name) for name in _names(catalog, kept.from_edition)}
    now = {name: _place(catalog, name) for name in _names(catalog, kept.to_edition)}
    between_modes = {catalog.edition(name).kind for name in (kept.from_edition, kept.to_edition)} == {"billing_mode"}
    places = dict.fromkeys(now[name] for name in now if name in changed)
    for place in places:
        group = _Group(
            frozenset(name for name in then if then[name] == place),
            frozenset(name for name in now if now[name] == place),
        )
        if between_modes or catalog.item(next(iter(group.now))).role in {*WHOLE_ROLES, Role.GAUGE}:
            yield group


def _names(catalog: model.Catalog, edition: str) -> list[str]:
    return [item.name for item in catalog.items_of_edition(edition)]


def _place(catalog: model.Catalog, name: str) -> tuple[str, ...]:
    """What is the same for items of two editions that stand for each other."""
    item = catalog.item(name)
    if item.role in WHOLE_ROLES:
        return ("whole", *sorted(item.serves))
    if item.role is Role.GAUGE:
        return ("gauge", item.gauge or "")
    return (item.role, item.suffix)


def _carry(catalog: model.Catalog, kept: Kept, current: Source, group: _Group, before: dict[str, Quota]) -> bool:
    """Change the state before by what was changed since in one group; whether it had a place there."""
    was = [kept.done[name] for name in group.now if name in kept.done]
    found = [current.quotas[name] for name in group.now if name in current.quotas]
    then = [name for name in group.then if name in before]
    if not found:
        for name in then:
            del before[name]
        return bool(then)
    if not was:
        return _turned_on(catalog, kept, current, group, before)
    if len(then) != 1:
        return False
    before[then[0]] = quotas.total(found)
    return True


def _turned_on(catalog: model.Catalog, kept: Kept, current: Source, group: _Group, before: dict[str, Quota]) -> bool:
    """What was turned on since gets what an ordinary switch back gives, packs included."""
    way = switch_mapping.direction(catalog, kept.application, kept.to_edition, kept.from_edition)
    assert isinstance(way, Direction)  # what was switched can be switched back
    alone = Source(
        current.edition, {name: quota for name, quota in current.quotas.items() if name in group.now}, current.served
    )
    back = switch_mapping.provision(catalog, way, alone, kept.from_edition).enable
    new = {name: quota for name, quota in back.items() if name not in before}
    before.update(new)
    return bool(new)


def _drift(kept: Kept, current: Source, name: str, carried: bool) -> Drift:
    was, found = kept.done.get(name), current.quotas.get(name)
    end = "which is kept" if carried else "which cannot be kept"
    message = f"{name} was {described(was)} after the switch, is {described(found)} now, {end}"
    return Drift(message, name, shown_quota(was), shown_quota(found))
