"""The table of contents: what each event does."""

from __future__ import annotations

from service.handlers import offering_items, plans, reservations, switches, tenants, workloads
from service.handlers.work import Handler

HANDLERS: dict[str, Handler] = {
    # tenant-changes
    "apportion.tenant.upserted.v1": Handler(tenants.needs, tenants.upsert),
    "apportion.tenant.deleted.v1": Handler(tenants.needs, tenants.delete),
    "apportion.offering_items.set.v1": Handler(offering_items.needs, offering_items.set_items),
    # workload-events
    "apportion.workload.registered.v1": Handler(workloads.needs, workloads.register),
    "apportion.workload.usage_reported.v1": Handler(workloads.needs, workloads.report_usage),
    "apportion.workload.removed.v1": Handler(workloads.needs, workloads.remove),
    # plan-changes
    "apportion.plan.saved.v1": Handler(plans.needs, plans.save),
    "apportion.plan.applied.v1": Handler(plans.needs, plans.apply),
    "apportion.plan.revoked.v1": Handler(plans.needs, plans.revoke),
    "apportion.plan.deleted.v1": Handler(plans.needs, plans.delete),
    # reservation-commands
    "apportion.reservation.reserve.v1": Handler(reservations.needs, reservations.reserve),
    "apportion.reservation.commit.v1": Handler(reservations.needs, reservations.commit),
    "apportion.reservation.extend.v1": Handler(reservations.needs, reservations.extend),
    "apportion.reservation.release.v1": Handler(reservations.needs, reservations.release),
    # switch-tasks
    "apportion.switch.requested.v1": Handler(switches.needs, switches.request),
    "apportion.switch.undo_requested.v1": Handler(switches.needs, switches.request_undo),
}
