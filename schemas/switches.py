"""Switches of a customer between editions and billing modes (docs/domain.md 7)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from schemas.base import CatalogName, Data, Denial, Flag, Identifier, Quantity, Quota, known_values

CYBER_PROTECTION = "6e6d758d-8e74-3ae3-ac84-50eb0dff12eb"  # the application that is meant where none is named


class SwitchRequested(Data):
    """Switch the tenant of the envelope. With ``plan_hash``: exactly the plan that was shown, or a refusal.

    An edition or application that does not exist is accepted here; the answer is a rejected switch with its reasons.
    """

    switch_id: Identifier
    job_id: Identifier | None = None
    application: CatalogName = CYBER_PROTECTION
    target_edition: CatalogName
    mode: Literal["strict", "best_effort"] = "strict"
    plan_hash: CatalogName | None = None
    enable_on_ancestors: Flag = False
    pack_quota: Literal["all", "covering"] = "all"
    dry_run: Flag = False


class SwitchUndoRequested(Data):
    """Restore what the switch has changed."""

    switch_id: Identifier


WARNING_CODES = (
    "OldFeaturesBecomeUnavailable",
    "NewFeaturesBecomeAvailable",
    "SomePlansWillStopWorking",
    "AllDevicesWithBackupsPreserved",
    "UsageStatisticsWillMigrate",
    "AdvCyberProtectBecomeUnavailable",
)


class WorkloadCounts(Data):
    """How many workloads a switch is about, has moved, and has left without an item."""

    total: Quantity
    moved: Quantity
    denied: Quantity


class SwitchItem(Data):
    """An offering item on one side of a switch, with its numbers at that moment."""

    offering_item: CatalogName
    side: Literal["source", "destination"]
    used: Quantity
    quota: Quota


class Warning(Data):  # noqa: A001 - the contract's own word; always used with its module
    """What a person should know before switching."""

    code: Annotated[str, known_values(*WARNING_CODES)]
    message: str


class Drift(Data):
    """What is other than the plan said, or than an undo can restore."""

    offering_item: CatalogName | None = None
    workload_id: Identifier | None = None
    expected: Any = None
    found: Any = None
    message: str


class SwitchAnswered(Data):
    """Where a switch stands. ``plan_hash`` and the editions are null where there was nothing to plan from."""

    switch_id: Identifier
    job_id: Identifier | None = None
    from_edition: CatalogName | None
    to_edition: CatalogName | None
    plan_hash: CatalogName | None
    workloads: WorkloadCounts
    items: tuple[SwitchItem, ...]
    denials: tuple[Denial, ...] | None = None
    warnings: tuple[Warning, ...]
    drift: tuple[Drift, ...] | None = None
    duration_ms: Quantity | None = None
