"""Whether the quotas leave room for what a switch takes, as far as they are known (docs/domain.md 4 and 7).

The ledger decides on every level when the switch starts; this says beforehand what it will say, and which workloads a
best-effort switch leaves without something.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from service.catalog import model
from service.catalog.model import WHOLE_ROLES
from service.rules.quotas import Quota
from service.rules.switch_reconciling import Outcome


class Account(msgspec.Struct, frozen=True):
    """What a tenant uses of an item (assignments and reservations, with everything below it) and may use."""

    used: int
    quota: Quota


class Level(msgspec.Struct, frozen=True):
    """A tenant of the path and its accounts by item; an item without an account has no limit there."""

    tenant_id: str
    accounts: Mapping[str, Account]


class Shortage(msgspec.Struct, frozen=True):
    """A hard quota that would refuse: ``requested`` is the net increase there, ``limit`` value + overage."""

    tenant_id: str
    offering_item: str
    limit: int
    used: int
    requested: int


class Share(msgspec.Struct, frozen=True):
    """Of the workloads of a kind, how many end up with which holding, and for want of which items (none: as due)."""

    count: int
    after: tuple[str, ...]
    refused: tuple[str, ...] = ()


def net_units(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Units by item that the customer uses more (or, below 0, fewer) when every workload has what it is due."""
    units: Counter[str] = Counter()
    for outcome in outcomes:
        for name in outcome.taken:
            units[name] += outcome.count
        for name in outcome.released:
            units[name] -= outcome.count
    return {name: units[name] for name in sorted(units) if units[name]}


def shortages(levels: Sequence[Level], units: Mapping[str, int]) -> tuple[Shortage, ...]:
    """Every level and item whose hard quota does not hold what is taken; releases are never refused."""
    return tuple(
        Shortage(level.tenant_id, name, limit, account.used, quantity)
        for level in levels
        for name, quantity in sorted(units.items())
        if quantity > 0
        and (account := level.accounts.get(name)) is not None
        and (limit := _limit(account.quota)) is not None
        and account.used + quantity > limit
    )


def share_out(catalog: model.Catalog, levels: Sequence[Level], outcomes: Sequence[Outcome]) -> list[tuple[Share, ...]]:
    """For each outcome who gets what where there is not room for all, in the order of the outcomes.

    Two steps as in every assignment (docs/domain.md 6, rule 5): who is refused the edition or base item is left without
    one and without packs, who is refused a pack gets none of the new ones. Workloads
    take nothing that others give back: the two sides have no item in common.
    """
    room = _Room(levels, {name for outcome in outcomes for name in outcome.taken})
    if room.unlimited:
        return [(Share(outcome.count, outcome.after),) for outcome in outcomes]
    return [_shares(catalog, room, outcome) for outcome in outcomes]


class _Room:
    """What is left of each item: the least over the levels; an item without a hard quota is not in it."""

    def __init__(self, levels: Sequence[Level], names: Iterable[str]) -> None:
        self._left: dict[str, int] = {}
        for name in names:
            accounts = [level.accounts[name] for level in levels if name in level.accounts]
            left = [limit - each.used for each in accounts if (limit := _limit(each.quota)) is not None]
            if left:
                self._left[name] = max(0, min(left))

    @property
    def unlimited(self) -> bool:
        """Whether no quota can refuse anything."""
        return not self._left

    def take(self, names: Iterable[str], count: int) -> tuple[int, tuple[str, ...]]:
        """For how many of ``count`` there is room for one unit of each; they take it. And the items that lacked."""
        taken = list(names)
        granted = min([count, *(self._left[name] for name in taken if name in self._left)])
        lacking = tuple(name for name in taken if granted < count and self._left.get(name, count) == granted)
        for name in taken:
            if name in self._left:
                self._left[name] -= granted
        return granted, lacking


def _shares(catalog: model.Catalog, room: _Room, outcome: Outcome) -> tuple[Share, ...]:
    whole = [name for name in outcome.taken if catalog.item(name).role in WHOLE_ROLES]
    packs = [name for name in outcome.taken if name not in whole]
    based, lacking_base = room.take(whole, outcome.count)
    full, lacking_pack = room.take(packs, based)
    kept = tuple(name for name in outcome.kind.held if name in outcome.after)
    shares = (
        Share(full, outcome.after),
        Share(based - full, tuple(name for name in outcome.after if name not in packs), lacking_pack),
        Share(outcome.count - based, kept, lacking_base),
    )
    return tuple(share for share in shares if share.count)


def _limit(quota: Quota) -> int | None:
    """Up to where use is allowed; None where the quota refuses nothing."""
    if quota.value is None or quota.overage is None:
        return None
    return quota.value + quota.overage
