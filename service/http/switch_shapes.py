"""What requests and answers about switches look like, of one customer (`/api/2/…/edition` too) and of many."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from schemas.base import CATALOG_NAME_LENGTH_MAX, NO_CONTROL_CHARACTERS
from schemas.switches import CYBER_PROTECTION
from service.http.own_shapes import Denial
from service.http.shapes import Id, OfferingItem, Paging, Shape

Name = Annotated[str, Field(min_length=1, max_length=CATALOG_NAME_LENGTH_MAX, pattern=NO_CONTROL_CHARACTERS)]
Mode = Literal["strict", "best_effort"]
PackQuota = Literal["all", "covering"]
TENANTS_MAX = 10_000
RATE_MAX = 100_000  # tenants per second


class PlainQuota(Shape):
    """A quota without its version."""

    value: int | None
    overage: int | None


class PlanItem(Shape):
    """An item on one side of a switch, before and after."""

    offering_item: str
    side: Literal["source", "destination"]
    used_before: int
    used_after: int
    quota_before: PlainQuota | None
    quota_after: PlainQuota | None


class PlanCounts(Shape):
    """Workloads that are protected or hold something; what becomes of them."""

    total: int
    changed: int
    losing_features: int
    denied: int


class Warning(Shape):  # noqa: A001 - the contract's own word; always used with its module
    """What a person should know before switching."""

    code: str = Field(examples=["UsageStatisticsWillMigrate"])
    message: str


class Plan(Shape):
    """What a switch would do. It would start where `startable` is true."""

    tenant_id: str
    from_edition: str | None
    to_edition: str
    plan_hash: str
    items: list[PlanItem]
    workloads: PlanCounts
    features_lost: list[str]
    warnings: list[Warning]
    denials: list[Denial]
    startable: bool


class EditionPreview(Shape):
    """What a switch would do; `warnings` are the codes of the plan's warnings."""

    warnings: list[str]
    plan: Plan
    plan_hash: str = Field(description="Names exactly this plan: a switch that names it applies it, or is refused.")


class EditionRequest(Shape):
    """To which edition or billing mode to switch."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"application_id": CYBER_PROTECTION, "target_edition": "pck_per_workload"}}
    )
    application_id: Name = CYBER_PROTECTION
    target_edition: Name
    plan_hash: Name | None = None
    mode: Mode = "strict"
    pack_quota: PackQuota = "all"


class EditionAnswer(Shape):
    """The items that the switch is about as they are now."""

    items: list[OfferingItem]
    warnings: list[str]
    switch_id: str
    state: Literal["preparing", "running", "completed"]


class SwitchItem(Shape):
    """An item on one side of a switch, with its numbers at that moment."""

    offering_item: str
    side: Literal["source", "destination"]
    used: int
    quota: PlainQuota


class SwitchCounts(Shape):
    """How many workloads a switch is about, has moved, and has left without an item."""

    total: int
    moved: int
    denied: int


class SwitchData(Shape):
    """What was announced of a switch."""

    switch_id: str
    job_id: str | None = None
    from_edition: str | None
    to_edition: str | None
    plan_hash: str | None
    workloads: SwitchCounts
    items: list[SwitchItem]
    denials: list[Denial] | None = None
    warnings: list[Warning]
    drift: list[dict[str, Any]] | None = None
    duration_ms: int | None = None


class Switch(Shape):
    """A switch: its last event, and whether it, or the way back from it, goes on. There is no event while it is
    prepared."""

    switch_id: str
    tenant_id: str
    state: Literal["preparing", "running", "completed", "rejected", "undone"]
    under_way: bool
    type: str | None = Field(examples=["apportion.switch.completed.v1"])
    data: SwitchData | None


# --- many customers


class JobRequest(Shape):
    """Which customers to switch, and to what: all below a tenant that are on an edition, or a list."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "below": "3f0e8c2a-9f5d-4c55-8a53-0d1b7f6c2e11",
                "edition": "cyber_protect_adv",
                "target_edition": "pck_per_workload",
                "rate": 50,
            }
        }
    )
    below: Id | None = None
    edition: Name | None = Field(default=None, description="With `below`: those that are on it now.")
    tenants: list[Id] | None = Field(default=None, min_length=1, max_length=TENANTS_MAX)
    application_id: Name = CYBER_PROTECTION
    target_edition: Name
    mode: Mode = "strict"
    pack_quota: PackQuota = "all"
    rate: Annotated[float, Field(gt=0, le=RATE_MAX)] | None = Field(default=None, description="Tenants per second.")


class JobCounts(Shape):
    """Tenants of a job by what has become of them."""

    total: int
    queued: int
    running: int
    completed: int
    rejected: int
    failed: int
    cancelled: int
    undone: int
    undo_rejected: int


class JobInList(Shape):
    """A job without its counts."""

    job_id: str
    target_edition: str
    selection: dict[str, Any]
    rate: float | None
    created_at: str
    handed_over: int
    to_hand_over: int


class Job(JobInList):
    """A job with what has become of its tenants."""

    state: Literal["running", "paused", "cancelled", "finished", "undoing", "undone"]
    counts: JobCounts


class JobPage(Shape):
    """Some jobs, the newest first."""

    items: list[JobInList]
    paging: Paging


class SelectionRefused(Shape):
    """A tenant that would be refused, with everything that stands in the way."""

    tenant_id: str
    denials: list[Denial]


class JobPreview(Shape):
    """Sums over the customers of a selection; those that would be refused apart."""

    tenants: int
    switched: int
    unchanged: int
    refused: int
    unknown: int
    workloads: PlanCounts
    items: list[PlanItem]
    features_lost: dict[str, int]
    warnings: dict[str, int]
    refusals: dict[str, int]
    refused_tenants: list[SelectionRefused]


class JobOutcome(Shape):
    """What became of a tenant in a job; `event` is the last one of its switch."""

    tenant_id: str
    switch_id: str
    outcome: str = Field(examples=["completed"])
    event: dict[str, Any] | None


class JobResults(Shape):
    """Some outcomes, by tenant."""

    job_id: str
    results: list[JobOutcome]
    paging: Paging
