"""What requests and answers of `/api/v1` look like: workloads, features, reservations and explanations.

As in shapes.py, unknown keys of requests are ignored, and answers may have more than is described.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from schemas.base import CATALOG_NAME_LENGTH_MAX, ENTRIES_MAX, NO_CONTROL_CHARACTERS, QUANTITY_MAX, TTL_SECONDS_MAX
from service.http.shapes import Id, Paging, Quota, Shape

Quantities = Annotated[dict[str, int], Field(examples=[{"pw_base_workstations": 1}])]
ItemName = Annotated[str, Field(min_length=1, max_length=CATALOG_NAME_LENGTH_MAX, pattern=NO_CONTROL_CHARACTERS)]
Units = Annotated[int, Field(strict=True, ge=1, le=QUANTITY_MAX)]
Ttl = Annotated[int, Field(strict=True, ge=1, le=TTL_SECONDS_MAX, description="Seconds, from now.")]
State = Literal["granted", "denied", "committed", "released", "expired"]


class Denial(Shape):
    """One thing that stands in the way; what a tenant above the caller's allows is not told in numbers."""

    code: str | None = Field(default=None, examples=["quota_exceeded"])
    message: str
    offering_item: str | None = None
    feature: str | None = None
    tenant_id: str | None = None
    limit: int | None = Field(default=None, description="Value and overage of the quota.")
    used: int | None = Field(default=None, description="Before the request.")
    requested: int | None = Field(default=None, description="The net increase on that tenant.")
    context: dict[str, Any] | None = None


# --- workloads and features


class Workload(Shape):
    """What a workload holds, and what it waits for and why."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "workload_id": "laptop-17",
                "type": "workstation",
                "holding": {"pw_base_workstations": 1},
                "plan_ids": ["plan-backup"],
                "uncovered_features": [],
                "waiting": False,
                "denials": [],
            }
        }
    )
    workload_id: str
    type: str
    holding: Quantities
    plan_ids: list[str]
    uncovered_features: list[str]
    waiting: bool = Field(description="Whether it waits for something that it was refused; `denials` say why.")
    denials: list[Denial]


class WorkloadPage(Shape):
    """Some workloads of a tenant, by id."""

    tenant_id: str
    workloads: list[Workload]
    paging: Paging


class Features(Shape):
    """Features that a tenant has: as a whole, and for its workloads by their type."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "tenant_id": "3f0e8c2a-9f5d-4c55-8a53-0d1b7f6c2e11",
                "tenant_wide": ["tenant.audit_log"],
                "workload_types": {"workstation": ["backup.files", "backup.image"]},
            }
        }
    )
    tenant_id: str
    tenant_wide: list[str]
    workload_types: dict[str, list[str]]


# --- reservations


class ReservationRequest(Shape):
    """Units to set aside, all of them or none."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"items": {"pw_base_workstations": 2}, "ttl_seconds": 600}},
    )
    reservation_id: Id | None = Field(default=None, description="Made where none is given.")
    items: dict[ItemName, Units] = Field(min_length=1, max_length=ENTRIES_MAX)
    ttl_seconds: Ttl = 3600
    mode: Literal["all_or_nothing", "check_only"] = Field(
        default="all_or_nothing", description="`check_only` says whether it would be granted, and changes nothing."
    )


class ReservationExtension(Shape):
    """How long a reservation is to last."""

    model_config = ConfigDict(json_schema_extra={"example": {"ttl_seconds": 3600}})
    ttl_seconds: Ttl


class ReservationCommit(Shape):
    """Who gets the units of a reservation."""

    model_config = ConfigDict(json_schema_extra={"example": {"workload_id": "laptop-17"}})
    workload_id: Id


class Reservation(Shape):
    """A reservation as it was announced last."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "reservation_id": "7d7bc1f0-6f3e-4d4f-9a0e-1c0c2f7f4a55",
                "state": "granted",
                "mode": "all_or_nothing",
                "items": {"pw_base_workstations": 2},
                "expires_at": "2026-01-31T12:10:00.000Z",
                "denials": [],
            }
        }
    )
    reservation_id: str
    state: State = Field(description="Granted: it holds its units. Denied: nothing was changed; `denials` say why.")
    mode: Literal["all_or_nothing", "check_only"]
    items: Quantities
    expires_at: str | None = Field(default=None, description="While it holds its units.")
    denials: list[Denial]


class ReservationPage(Shape):
    """Some reservations of a tenant, in no order."""

    tenant_id: str
    reservations: list[Reservation]
    paging: Paging


class Commitment(Reservation):
    """What became of a reservation, and what the workload holds now where that has changed."""

    holding: Quantities | None = None
    uncovered_features: list[str] | None = None


# --- explanations


class Level(Shape):
    """One tenant on the way up, with its numbers of an item."""

    tenant_id: str
    kind: Literal["root", "partner", "folder", "customer", "unit"]
    used: int
    reserved: int
    quota: Quota
    available: int | None = Field(description="What its own quota still allows; null where it refuses nothing.")


class Holder(Shape):
    """A workload of a customer or unit with its quantity; else a tenant right below with what is used there."""

    tenant_id: str
    workload_id: str | None = None
    quantity: int | None = None
    used: int | None = None


class Waiter(Shape):
    """A workload that was refused an item, and since when it waits."""

    tenant_id: str
    workload_id: str
    since: str


class Explanation(Shape):
    """What limits an item, who holds it and who waits for it."""

    tenant_id: str
    offering_item: str
    levels: list[Level] = Field(description="From the tenant up to the caller's own.")
    largest_holders: list[Holder]
    waiting: list[Waiter]
