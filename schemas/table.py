"""The table of contents of the wire: every event type, its topic and the model of its data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from schemas import (
    assignments,
    base,
    dead_letters,
    offering_items,
    plans,
    quota_alerts,
    reservations,
    switches,
    tenants,
    usage,
    workloads,
)

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


INBOUND_TOPICS: dict[str, str] = {
    "tenant-changes": "Tenants and their offering items. One partition, so that a parent comes before its children.",
    "workload-events": "What agents say of their workloads.",
    "plan-changes": "Protection plans and the workloads that they protect.",
    "reservation-commands": "Units to set aside, to assign and to free.",
    "switch-tasks": "Customers to switch between editions and billing modes.",
}
OUTBOUND_TOPICS: dict[str, str] = {
    "assignments": "What every workload holds, and what was refused to it.",
    "usage": "The numbers of every offering item on every tenant; what billing reads.",
    "quota-alerts": "Quotas that fill up, are full or have room again.",
    "reservations": "What became of reservations.",
    "switches": "Where switches stand.",
    "tenants": "Tenants and their offering items as they are now.",
    "dead-letters": "Messages that could not be handled, with their original bytes.",
}


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

_ALERT = {"offering_item": "pw_base_workstations", "used": 10, "quota": {"value": 10, "overage": 2}}
_RESERVATION = {"reservation_id": "r-1", "items": {"pw_base_workstations": 5}, "mode": "all_or_nothing"}
_SWITCH = {
    "switch_id": "s-1",
    "from_edition": "cyber_protect_adv",
    "to_edition": "pck_per_workload",
    "plan_hash": "9d2c6d2f0d4b4b0e",
    "workloads": {"total": 8, "moved": 8, "denied": 0},
    "items": [
        {
            "offering_item": "p_adv_workstations",
            "side": "source",
            "used": 0,
            "quota": {"value": 10, "overage": None},
        },
        {
            "offering_item": "pw_base_workstations",
            "side": "destination",
            "used": 8,
            "quota": {"value": 10, "overage": None},
        },
    ],
    "warnings": [{"code": "UsageStatisticsWillMigrate", "message": "Usage is counted under other items from now on."}],
}
_DENIAL = {
    "code": "quota_exceeded",
    "offering_item": "pw_base_workstations",
    "tenant_id": "msp-1",
    "limit": 100,
    "used": 100,
    "requested": 5,
    "message": "msp-1 uses 100 of 100 pw_base_workstations; 5 more were requested.",
}
_REFUSAL = {"code": "not_allowed", "message": "Another switch of this tenant is running.", "context": {"code": "1012"}}


def _alert(name: str, description: str, example: dict[str, Any]) -> EventType:
    return EventType(f"apportion.quota.{name}.v1", "quota-alerts", quota_alerts.QuotaAlert, description, example)


def _reservation(name: str, description: str, example: dict[str, Any]) -> EventType:
    type_ = f"apportion.reservation.{name}.v1"
    return EventType(type_, "reservations", reservations.ReservationAnswered, description, example)


def _switch(name: str, description: str, example: dict[str, Any]) -> EventType:
    return EventType(f"apportion.switch.{name}.v1", "switches", switches.SwitchAnswered, description, example)


OUTBOUND: dict[str, EventType] = _by_type(
    EventType(
        "apportion.assignment.changed.v1",
        "assignments",
        assignments.AssignmentChanged,
        "What a workload holds has changed, or which requested features nothing covers.",
        {
            "workload_id": "w-1",
            "workload_type": "workstation",
            "edition": "pck_per_workload",
            "assigned": {"pw_pack_adv_management": 1},
            "released": {},
            "holding": {"pw_base_workstations": 1, "pw_pack_adv_management": 1},
            "uncovered_features": [],
            "reason": "plan",
        },
    ),
    EventType(
        "apportion.assignment.denied.v1",
        "assignments",
        assignments.AssignmentDenied,
        "A workload waits for something that was refused; every reason is named.",
        {
            "workload_id": "w-2",
            "workload_type": "workstation",
            "edition": "pck_per_workload",
            "requested": {"pw_base_workstations": 1},
            "holding": {},
            "denials": [{**_DENIAL, "requested": 1}],
            "uncovered_features": [],
        },
    ),
    EventType(
        "apportion.usage.changed.v1",
        "usage",
        usage.UsageChanged,
        "The numbers of an offering item on a tenant, as they are now; the last one counts.",
        {
            "offering_item": "pw_base_workstations",
            "usage_name": "workstations",
            "application_id": switches.CYBER_PROTECTION,
            "edition": "pck_per_workload",
            "unit": "quantity",
            "used": 8,
            "reserved": 1,
            "quota": {"value": 10, "overage": 0},
            "pricing_mode": "production",
        },
    ),
    _alert("almost_reached", "Usage is near the quota.", {**_ALERT, "used": 8, "threshold_percent": 80}),
    _alert("reached", "Usage has reached the quota.", _ALERT),
    _alert("exceeded", "Usage is above what the quota allows.", {**_ALERT, "used": 13}),
    _alert("cleared", "Usage is no longer near the quota.", {**_ALERT, "used": 7}),
    _reservation("granted", "The units are set aside.", {**_RESERVATION, "expires_at": "2026-01-31T13:00:00.000Z"}),
    _reservation(
        "denied", "Nothing was set aside or committed; every reason is named.", {**_RESERVATION, "denials": [_DENIAL]}
    ),
    _reservation("committed", "The units have become a workload's assignment.", _RESERVATION),
    _reservation("released", "The units are free again, as was asked.", _RESERVATION),
    _reservation("expired", "The units are free again, because their time was over.", _RESERVATION),
    _switch("previewed", "What the switch would do; nothing has changed.", _SWITCH),
    _switch(
        "started",
        "The units of the target are reserved; workloads begin to move.",
        {**_SWITCH, "workloads": {"total": 8, "moved": 0, "denied": 0}},
    ),
    _switch(
        "progressed", "Some workloads have moved.", {**_SWITCH, "workloads": {"total": 8, "moved": 4, "denied": 0}}
    ),
    _switch("completed", "Every workload has moved.", {**_SWITCH, "job_id": "j-1", "duration_ms": 420}),
    _switch(
        "rejected",
        "The switch did not start and nothing has changed; every reason is named.",
        {**_SWITCH, "workloads": {"total": 8, "moved": 0, "denied": 0}, "denials": [_REFUSAL]},
    ),
    _switch("undone", "Items and quotas are as they were before the switch.", {**_SWITCH, "drift": []}),
    _switch(
        "undo_rejected",
        "The switch could not be undone and nothing has changed.",
        {**_SWITCH, "drift": [{"message": "The tenant has been switched again since."}]},
    ),
    EventType(
        "apportion.tenant.changed.v1",
        "tenants",
        tenants.TenantChanged,
        "A tenant as it is now.",
        {
            "parent_id": "msp-1",
            "kind": "customer",
            "name": "Cedar Dental",
            "enabled": True,
            "deleted": False,
            "pricing_mode": "production",
            "payment_model": "pay_as_you_go",
            "version": 3,
        },
    ),
    EventType(
        "apportion.offering_item.changed.v1",
        "tenants",
        offering_items.OfferingItemChanged,
        "An offering item of a tenant as it is now.",
        {
            "offering_item": "pw_base_workstations",
            "status": 1,
            "quota": {"value": 10, "overage": 0, "version": 4},
            "reason": "set",
        },
    ),
    EventType(
        "apportion.message.rejected.v1",
        "dead-letters",
        dead_letters.MessageRejected,
        "A message that could not be handled, with its original bytes.",
        {
            "code": "invalid_data",
            "message": "data.workload_id: Field required.",
            "context": {"path": "workload_id"},
            "topic": "apportion.workload-events",
            "partition": 3,
            "offset": 81234,
            "key": "customer-1",
            "headers": {"content-type": "application/cloudevents+json"},
            "value_base64": "e30=",
            "size": 2,
            "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        },
    ),
)

TOPIC_OF_TYPE: dict[str, str] = {event_type.type: event_type.topic for event_type in INBOUND.values()}
