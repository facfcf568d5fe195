"""The table of contents of the wire: every event type, its topic and the model of its data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from schemas import base, offering_items, plans, reservations, switches, tenants, workloads

Model = type[base.Data]


@dataclass(frozen=True, slots=True)
class EventType:
    """One event type. ``topic`` has no prefix; ``example`` is a valid ``data``, as JSON would read it."""

    type: str
    topic: str
    model: Model
    description: str
    example: dict[str, Any]
    validate: Callable[[Any], Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # The bound method of the compiled validator spares a lookup and a call for each of very many events.
        object.__setattr__(self, "validate", self.model.__pydantic_validator__.validate_python)


def _by_type(*event_types: EventType) -> dict[str, EventType]:
    return {event_type.type: event_type for event_type in event_types}


INBOUND: dict[str, EventType] = _by_type(
    EventType(
        "apportion.tenant.upserted.v1",
        "tenant-changes",
        tenants.TenantUpserted,
        "A tenant exists, with these properties; another parent moves it.",
        {"parent_id": "msp-1", "kind": "customer", "name": "Cedar Dental", "pricing_mode": "production"},
    ),
    EventType(
        "apportion.tenant.deleted.v1",
        "tenant-changes",
        tenants.TenantDeleted,
        "A disabled tenant is deleted; what it held is released.",
        {},
    ),
    EventType(
        "apportion.offering_items.set.v1",
        "tenant-changes",
        offering_items.OfferingItemsSet,
        "Offering items are enabled, disabled or given a quota; what is not named stays.",
        {
            "items": [
                {"name": "pw_base_workstations", "status": 1, "quota": {"value": 10, "overage": 0}},
                {"name": "pw_pack_adv_management", "status": 1, "quota": None},
                {"name": "local_storage", "status": 0},
            ],
            "cascade": False,
            "on_shortfall": "keep",
        },
    ),
    EventType(
        "apportion.workload.registered.v1",
        "workload-events",
        workloads.WorkloadRegistered,
        "A workload exists and may be protected.",
        {"workload_id": "w-1", "type": "workstation", "name": "front-desk", "os": "desktop", "os_family": "windows"},
    ),
    EventType(
        "apportion.workload.usage_reported.v1",
        "workload-events",
        workloads.WorkloadUsageReported,
        "What a workload occupies now, in bytes.",
        {"workload_id": "w-1", "usage": {"storage_bytes": 107_374_182_400}},
    ),
    EventType(
        "apportion.workload.removed.v1",
        "workload-events",
        workloads.WorkloadRemoved,
        "A workload is gone; what it held is released.",
        {"workload_id": "w-1"},
    ),
    EventType(
        "apportion.plan.saved.v1",
        "plan-changes",
        plans.PlanSaved,
        "The whole content of a protection plan.",
        {"plan_id": "p-1", "name": "Office", "features": ["backup.files", "management.patch_management"]},
    ),
    EventType(
        "apportion.plan.applied.v1",
        "plan-changes",
        plans.PlanApplied,
        "A plan protects these workloads from now on.",
        {"plan_id": "p-1", "workload_ids": ["w-1", "w-2"]},
    ),
    EventType(
        "apportion.plan.revoked.v1",
        "plan-changes",
        plans.PlanRevoked,
        "A plan no longer protects these workloads.",
        {"plan_id": "p-1", "workload_ids": ["w-2"]},
    ),
    EventType(
        "apportion.plan.deleted.v1",
        "plan-changes",
        plans.PlanDeleted,
        "A plan is gone from every workload.",
        {"plan_id": "p-1"},
    ),
    EventType(
        "apportion.reservation.reserve.v1",
        "reservation-commands",
        reservations.ReservationReserve,
        "Set units aside, all or none, until they are committed, released or expire.",
        {"reservation_id": "r-1", "items": {"pw_base_workstations": 5}, "ttl_seconds": 600, "mode": "all_or_nothing"},
    ),
    EventType(
        "apportion.reservation.commit.v1",
        "reservation-commands",
        reservations.ReservationCommit,
        "The reserved units become the assignment of a workload.",
        {"reservation_id": "r-1", "workload_id": "w-1"},
    ),
    EventType(
        "apportion.reservation.extend.v1",
        "reservation-commands",
        reservations.ReservationExtend,
        "The reservation lasts that long from now.",
        {"reservation_id": "r-1", "ttl_seconds": 7200},
    ),
    EventType(
        "apportion.reservation.release.v1",
        "reservation-commands",
        reservations.ReservationRelease,
        "The reserved units are free again.",
        {"reservation_id": "r-1"},
    ),
    EventType(
        "apportion.switch.requested.v1",
        "switch-tasks",
        switches.SwitchRequested,
        "Switch a customer to another edition or billing mode, or show what that would do.",
        {"switch_id": "s-1", "target_edition": "pck_per_workload", "mode": "strict", "dry_run": True},
    ),
    EventType(
        "apportion.switch.undo_requested.v1",
        "switch-tasks",
        switches.SwitchUndoRequested,
        "Restore what a switch has changed.",
        {"switch_id": "s-1"},
    ),
)

TOPIC_OF_TYPE: dict[str, str] = {event_type.type: event_type.topic for event_type in INBOUND.values()}
