"""The plan of a switch as a value: what was found, what becomes of it, what will be refused (docs/domain.md 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from service.rules.quotas import UNLIMITED, Quota
from service.rules.switch_drift import Basis, shown_quota
from service.rules.switch_mapping import Direction, PackQuota, Provision
from service.rules.switch_reconciling import Outcome
from service.rules.switch_room import Level, Share
from service.rules.tally import Tally

Side = Literal["source", "destination"]


class Usage(msgspec.Struct, frozen=True):
    """What a customer uses of an item: ``used`` counts the ``reserved`` units too."""

    used: int = 0
    reserved: int = 0


class Options(msgspec.Struct, frozen=True):
    """How a switch was asked for. The mode is no part of the plan's hash: the plan is the same, its end is not."""

    mode: Literal["strict", "best_effort"] = "strict"
    pack_quota: PackQuota = "all"
    enable_on_ancestors: bool = False


class Situation(msgspec.Struct, frozen=True):
    """A customer as a switch finds it.

    ``items`` are its enabled items of all applications with their quotas, ``usage`` what it uses by item (absent: 0),
    ``tally`` its workloads and those of its units. ``parent_enabled`` are the items enabled on its parent, None where
    the parent is root, which has all. ``above`` are the tenants from the parent up whose accounts are known; the more
    is known, the more refusals are foreseen, and nothing else depends on it.
    """

    tenant_id: str
    application: str
    items: Mapping[str, Quota]
    usage: Mapping[str, Usage]
    tally: Tally
    parent_id: str = "root"
    parent_enabled: frozenset[str] | None = None
    above: tuple[Level, ...] = ()


class PlanItem(msgspec.Struct, frozen=True):
    """An item before and after, on one side of the switch. A quota is None while the item is off."""

    offering_item: str
    side: Side
    used_before: int
    used_after: int
    quota_before: Quota | None
    quota_after: Quota | None


class Counts(msgspec.Struct, frozen=True):
    """Workloads: ``total`` are protected or hold something, ``changed`` hold something else afterwards,
    ``losing_features`` will not have a feature that they have now, or are refused a pack; ``denied`` are left without
    an edition or base item though they hold one now."""

    total: int = 0
    changed: int = 0
    losing_features: int = 0
    denied: int = 0


class PlanWarning(msgspec.Struct, frozen=True):
    """What a person should know before switching; the codes are those of docs/domain.md 7."""

    code: str
    message: str


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that stands in the way, with the fields of a denial (docs/contracts.md 2.2).

    ``context`` has the error code of docs/domain.md 9, where there is one, under ``code``.
    """

    code: str
    message: str
    offering_item: str | None = None
    feature: str | None = None
    tenant_id: str | None = None
    limit: int | None = None
    used: int | None = None
    requested: int | None = None
    context: dict[str, Any] | None = None


class Plan(msgspec.Struct, frozen=True):
    """What a switch does, to the unit.

    * ``provision``: the items to turn on with their quotas, and to turn off. ``enable_above``: those that the parent
      has to be given first (only with ``enable_on_ancestors``).
    * ``outcomes``: what becomes of the workloads of each kind, in an order that depends on nothing but them; ``shares``
      beside each, where quotas do not leave room for all, who of them gets what (best effort).
    * ``units``: by item, how many units more (below 0: fewer) the customer uses when everybody has what is due: what a
      strict switch reserves first, on every level of the path. No gauges: their bytes are facts and follow their item.
    * ``startable``: whether nothing foreseen stands in the way in the mode that was asked for; the ledger has the last
      word on quotas. ``refusals`` are all that stands in the way of a strict switch.
    * ``plan_hash`` names exactly this plan; ``basis`` is what it was made from, to be kept so that drift can be told.
    """

    from_edition: str | None
    to_edition: str
    direction: Direction | None
    provision: Provision
    enable_above: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    shares: tuple[tuple[Share, ...], ...]
    units: Mapping[str, int]
    items: tuple[PlanItem, ...]
    workloads: Counts
    features_lost: Mapping[str, tuple[str, ...]]
    features_gained: Mapping[str, tuple[str, ...]]
    warnings: tuple[PlanWarning, ...]
    refusals: tuple[Refusal, ...]
    startable: bool
    plan_hash: str
    basis: Basis

    @property
    def required(self) -> dict[str, int]:
        """The units that have to be reserved first."""
        return {name: units for name, units in self.units.items() if units > 0}


def shown(plan: Plan, tenant_id: str) -> dict[str, Any]:
    """The plan as a preview shows it (docs/contracts.md 4, ``switch preview``).

    Beyond the contract: whether an item is on before and after, the types of workload that lose a feature, and whether
    the switch would start.
    """
    lost = sorted({name for names in plan.features_lost.values() for name in names})
    return {
        "tenant_id": tenant_id,
        "from_edition": plan.from_edition,
        "to_edition": plan.to_edition,
        "plan_hash": plan.plan_hash,
        "items": [_shown_item(item) for item in plan.items],
        "workloads": msgspec.to_builtins(plan.workloads),
        "features_lost": lost,
        "features_lost_by_type": {name: list(features) for name, features in plan.features_lost.items()},
        "warnings": [msgspec.to_builtins(warning) for warning in plan.warnings],
        "denials": [msgspec.to_builtins(refusal) for refusal in plan.refusals],
        "startable": plan.startable,
    }


def _shown_item(item: PlanItem) -> dict[str, Any]:
    return {
        "offering_item": item.offering_item,
        "side": item.side,
        "used_before": item.used_before,
        "used_after": item.used_after,
        "status_before": int(item.quota_before is not None),
        "status_after": int(item.quota_after is not None),
        "quota_before": shown_quota(item.quota_before or UNLIMITED),
        "quota_after": shown_quota(item.quota_after or UNLIMITED),
    }
