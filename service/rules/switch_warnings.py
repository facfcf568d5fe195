"""What a person should know before switching: the six codes of docs/domain.md 7, and when each is raised.

* ``OldFeaturesBecomeUnavailable``: some type of workload of the customer loses features that its items carry now.
* ``NewFeaturesBecomeAvailable``: some type gets features that its items do not carry now.
* ``SomePlansWillStopWorking``: workloads use what is lost, or are left without an item: what their plans request is not
  done for them any more.
* ``AllDevicesWithBackupsPreserved``: good news, raised where every workload that holds an item goes on holding one.
* ``UsageStatisticsWillMigrate``: something is used of the source items, and is counted under others from then on.
* ``AdvCyberProtectBecomeUnavailable``: an edition has no packs, so that a switch from a billing mode to an edition
  turns off all Advanced ones and resets their quotas. Raised in that direction always, as it is not recommended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from service.catalog import model
from service.rules.switch_mapping import Direction, Provision
from service.rules.switch_plan import Counts, PlanItem, PlanWarning

_NAMED_MAX = 10  # names in one sentence


def warnings(
    catalog: model.Catalog,
    way: Direction,
    provision: Provision,
    items: Iterable[PlanItem],
    workloads: Counts,
    lost: Mapping[str, tuple[str, ...]],
    gained: Mapping[str, tuple[str, ...]],
) -> tuple[PlanWarning, ...]:
    """The warnings of a plan, in the order of the codes; none where nothing moves."""
    if way is Direction.NOTHING:
        return ()
    losers = workloads.losing_features + workloads.denied
    kept = workloads.total > 0 and not workloads.denied
    migrates = any(item.side == "source" and item.used_before > item.used_after for item in items)
    found = {
        "OldFeaturesBecomeUnavailable": lost and f"No longer available: {_by_type(lost)}.",
        "NewFeaturesBecomeAvailable": gained and f"Newly available: {_by_type(gained)}.",
        "SomePlansWillStopWorking": losers
        and f"{workloads.losing_features} workloads lose features that their plans use, "
        f"and {workloads.denied} are left without an offering item.",
        "AllDevicesWithBackupsPreserved": kept and "Every workload that holds an offering item goes on holding one.",
        "UsageStatisticsWillMigrate": migrates and "What is used is counted under the destination items from then on.",
        "AdvCyberProtectBecomeUnavailable": way is Direction.MODE_TO_EDITION and _not_recommended(catalog, provision),
    }
    return tuple(PlanWarning(code, message) for code, message in found.items() if isinstance(message, str))


def _not_recommended(catalog: model.Catalog, provision: Provision) -> str:
    packs = [name for name in provision.disable if catalog.item(name).role is model.Role.PACK]
    off = f"{_listed(packs)} will be turned off and their quotas reset" if packs else "none is enabled here"
    return f"Switching from a billing mode to an edition is not recommended: an edition has no Advanced packs; {off}."


def _by_type(features: Mapping[str, tuple[str, ...]]) -> str:
    """Features with the types they concern, types with the same features named together."""
    types: dict[tuple[str, ...], list[str]] = {}
    for workload_type, names in features.items():
        types.setdefault(names, []).append(workload_type)
    return "; ".join(f"{_listed(names)} ({', '.join(each)})" for names, each in types.items())


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - _NAMED_MAX
    return ", ".join(listed[:_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
