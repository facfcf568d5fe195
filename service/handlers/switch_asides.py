"""Units set aside for the workloads that a running switch has still to move (docs/domain.md 7).

They are reserved on every level when the switch starts, for each workload what its kind is due then. Whoever moves a
workload, the job or an event about it, turns its reserved units into held ones; silent accounts count what is left.
What is due follows from the workload's record as it was then: one that has changed since the count has no claim, and
takes units like everybody else.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from service import records
from service.catalog import Catalog
from service.handlers import switch_situations
from service.handlers.draft import Draft, Placement
from service.ledger.transaction import Take
from service.records import Switching, Workload
from service.rules import switch_mapping, switch_reconciling
from service.rules.switch_mapping import Direction
from service.rules.switch_reconciling import Sides
from service.rules.tally import Kind


def counting(member: str, name: str, units: int) -> Take:
    """So many more units of an item are set aside for the workloads of a tenant."""
    return Take((member,), records.aside_item(name), units, fact=True)


def claim(
    draft: Draft, placement: Placement, tenant: str, workload_id: str, now: Workload
) -> tuple[tuple[str, ...], Workload]:
    """What is set aside for a workload, and its record with what it held before the switch."""
    switching = placement.items.switching
    entry = draft.view.read(records.workload_key(tenant, workload_id))
    before: Workload | None = entry.value
    if switching is None or switching.preparing or before is None or not is_of(draft.catalog, switching, before):
        return (), now
    mark = switch_situations.mark(switching.switch_id)
    now = msgspec.structs.replace(now, former=() if switching.undoing else (mark, *sorted(before.holding)))
    if not has_claim(switching, entry.version):
        return (), now
    kind = switch_situations.kind_of(draft, tenant, before, switching.switch_id if switching.undoing else None)
    return (due(sides_of(draft.catalog, switching, placement.items.enabled), draft.catalog, kind) if kind else ()), now


def has_claim(switching: Switching, version: int) -> bool:
    """Whether something is set aside for a workload whose record has this version and holds something of the source."""
    return switching.aside and 0 < version <= switching.version


def is_of(catalog: Catalog, switching: Switching, workload: Workload) -> bool:
    """Whether a workload still holds something of the source."""
    for name in workload.holding:
        item = catalog.find_item(name)
        if item is not None and item.edition == switching.source:
            return True
    return False


def sides_of(catalog: Catalog, switching: Switching, enabled: frozenset[str]) -> Sides:
    """The two sides of a running switch."""
    way = switch_mapping.direction(catalog, switching.application, switching.source, switching.target)
    pairs: Mapping[str, str] = {}
    if way is Direction.MODE_TO_MODE:
        pairs = switch_mapping.counterparts(catalog, switching.source, switching.target)
    before = frozenset(switching.before)
    return switch_reconciling.sides(
        catalog, switching.application, switching.target, before, enabled, tuple(pairs.items())
    )


def due(sides: Sides, catalog: Catalog, kind: Kind) -> tuple[str, ...]:
    """What a workload of a kind takes in the switch."""
    return switch_reconciling.reconcile(catalog, sides, kind, 1).taken
