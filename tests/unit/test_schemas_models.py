"""The data of events: defaults, bounds, and what absence means."""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any

import pydantic
import pytest

from schemas import base, dead_letters, offering_items, plans, reservations, switches, table, tenants, workloads

ALL = {**table.INBOUND, **table.OUTBOUND}
LARGEST = 2**53 - 1


def refused_paths(model: type[base.Data], data: dict[str, Any]) -> list[str]:
    with pytest.raises(pydantic.ValidationError) as caught:
        model.model_validate(data)
    return [".".join(map(str, error["loc"])) for error in caught.value.errors()]


def items(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"items": list(entries)}


@pytest.mark.parametrize("type_", ALL)
def test_every_example_is_valid_and_uses_only_fields_of_its_model(type_: str) -> None:
    event_type = ALL[type_]
    read = event_type.validate(event_type.example)
    assert read.model_dump(mode="json", exclude_unset=True) == event_type.example


def test_no_type_is_both_inbound_and_outbound() -> None:
    assert not table.INBOUND.keys() & table.OUTBOUND.keys()
    assert len(table.INBOUND) == 16
    assert len(table.OUTBOUND) == 22


def test_every_type_ends_with_its_version() -> None:
    assert all(type_.startswith("apportion.") and type_.endswith(".v1") for type_ in ALL)


def test_every_inbound_type_has_one_topic() -> None:
    assert {type_: event_type.topic for type_, event_type in table.INBOUND.items()} == table.TOPIC_OF_TYPE


def test_the_defaults_of_inbound_data_are_those_of_the_contract() -> None:
    tenant = tenants.TenantUpserted.model_validate({"parent_id": "root", "kind": "partner", "name": "North"})
    assert (tenant.enabled, tenant.pricing_mode, tenant.payment_model, tenant.version) == (True, None, None, None)
    change = offering_items.OfferingItemsSet.model_validate({"items": []})
    assert (change.cascade, change.on_shortfall) == (False, "keep")
    workload = workloads.WorkloadRegistered.model_validate({"workload_id": "w", "type": "vm"})
    assert (workload.name, workload.os, workload.os_family, workload.virtual) == (None, None, None, False)
    plan = plans.PlanSaved.model_validate({"plan_id": "p", "features": []})
    assert (plan.name, plan.enabled) == (None, True)
    reserve = reservations.ReservationReserve.model_validate({"reservation_id": "r", "items": {"x": 1}})
    assert (reserve.ttl_seconds, reserve.mode) == (3600, "all_or_nothing")
    switch = switches.SwitchRequested.model_validate({"switch_id": "s", "target_edition": "standard"})
    assert switch.application == "6e6d758d-8e74-3ae3-ac84-50eb0dff12eb"
    assert (switch.job_id, switch.mode, switch.plan_hash) == (None, "strict", None)
    assert (switch.enable_on_ancestors, switch.pack_quota, switch.dry_run) == (False, "all", False)


def test_an_absent_quota_and_a_quota_of_null_are_different_things() -> None:
    change = offering_items.OfferingItemsSet.model_validate(
        items(
            {"name": "a", "status": 1},
            {"name": "b", "status": 1, "quota": None},
            {"name": "c", "status": 1, "quota": {"value": None}},
            {"name": "d", "status": 1, "quota": {"value": 5}},
            {"name": "e", "status": 1, "quota": {"value": 5, "overage": 0}},
        )
    )
    assert [item.sets_quota for item in change.items] == [False, True, True, True, True]
    quotas = [item.quota and (item.quota.value, item.quota.overage) for item in change.items]
    assert quotas == [None, None, (None, None), (5, None), (5, 0)]


@pytest.mark.parametrize(
    ("quota", "path"),
    [
        ({}, "items.0.quota.value"),
        ({"overage": 1}, "items.0.quota.value"),
        ({"value": -1}, "items.0.quota.value"),
        ({"value": True}, "items.0.quota.value"),
        ({"value": 1.0}, "items.0.quota.value"),
        ({"value": "1"}, "items.0.quota.value"),
        ({"value": LARGEST + 1}, "items.0.quota.value"),
        ({"value": 1, "overage": -1}, "items.0.quota.overage"),
        ({"value": 1, "version": 1.5}, "items.0.quota.version"),
        ({"value": LARGEST, "overage": 1}, "items.0.quota"),
        (5, "items.0.quota"),
    ],
)
def test_a_wrong_quota_is_refused_at_its_path(quota: Any, path: str) -> None:
    data = items({"name": "a", "status": 1, "quota": quota})
    assert refused_paths(offering_items.OfferingItemsSet, data) == [path]


def test_the_largest_quota_is_accepted() -> None:
    data = items({"name": "a", "status": 1, "quota": {"value": LARGEST - 1, "overage": 1, "version": LARGEST}})
    assert offering_items.OfferingItemsSet.model_validate(data).items[0].quota is not None


@pytest.mark.parametrize("status", [True, False, 1.0, "1", 2, -1, None])
def test_a_status_is_the_integer_zero_or_one(status: Any) -> None:
    assert refused_paths(offering_items.OfferingItemsSet, items({"name": "a", "status": status})) == ["items.0.status"]


def test_an_item_named_twice_in_one_change_is_refused() -> None:
    twice = items({"name": "a", "status": 1}, {"name": "b", "status": 1}, {"name": "a", "status": 0})
    assert refused_paths(offering_items.OfferingItemsSet, twice) == [""]


@pytest.mark.parametrize(
    ("type_", "change", "path"),
    [
        ("apportion.tenant.upserted.v1", {"kind": "root"}, "kind"),
        ("apportion.tenant.upserted.v1", {"name": ""}, "name"),
        ("apportion.tenant.upserted.v1", {"name": "x" * 257}, "name"),
        ("apportion.tenant.upserted.v1", {"name": "a\u0085b"}, "name"),
        ("apportion.tenant.upserted.v1", {"enabled": 1}, "enabled"),
        ("apportion.tenant.upserted.v1", {"enabled": None}, "enabled"),
        ("apportion.tenant.upserted.v1", {"pricing_mode": "free"}, "pricing_mode"),
        ("apportion.tenant.upserted.v1", {"payment_model": "barter"}, "payment_model"),
        ("apportion.tenant.upserted.v1", {"version": "3"}, "version"),
        ("apportion.offering_items.set.v1", {"on_shortfall": "take"}, "on_shortfall"),
        ("apportion.offering_items.set.v1", {"cascade": "yes"}, "cascade"),
        ("apportion.offering_items.set.v1", {"items": [{"status": 1}]}, "items.0.name"),
        ("apportion.workload.registered.v1", {"type": ""}, "type"),
        ("apportion.workload.registered.v1", {"os": "phone"}, "os"),
        ("apportion.workload.registered.v1", {"os_family": "bsd"}, "os_family"),
        ("apportion.workload.registered.v1", {"virtual": "no"}, "virtual"),
        ("apportion.plan.saved.v1", {"features": ["x"] * 1001}, "features"),
        ("apportion.plan.saved.v1", {"features": ["backup.files", ""]}, "features.1"),
        ("apportion.plan.saved.v1", {"features": "backup.files"}, "features"),
        ("apportion.plan.applied.v1", {"workload_ids": []}, "workload_ids"),
        ("apportion.plan.applied.v1", {"workload_ids": ["w"] * 10_001}, "workload_ids"),
        ("apportion.plan.applied.v1", {"workload_ids": ["w", 7]}, "workload_ids.1"),
        ("apportion.reservation.reserve.v1", {"items": {}}, "items"),
        ("apportion.reservation.reserve.v1", {"items": {"x": 0}}, "items.x"),
        ("apportion.reservation.reserve.v1", {"items": {"x": 1.0}}, "items.x"),
        ("apportion.reservation.reserve.v1", {"ttl_seconds": 0}, "ttl_seconds"),
        ("apportion.reservation.reserve.v1", {"ttl_seconds": 30 * 86_400 + 1}, "ttl_seconds"),
        ("apportion.reservation.reserve.v1", {"mode": "some"}, "mode"),
        ("apportion.reservation.extend.v1", {"ttl_seconds": None}, "ttl_seconds"),
        ("apportion.switch.requested.v1", {"mode": "fast"}, "mode"),
        ("apportion.switch.requested.v1", {"pack_quota": "none"}, "pack_quota"),
        ("apportion.switch.requested.v1", {"target_edition": None}, "target_edition"),
    ],
)
def test_a_value_outside_its_bounds_is_refused_at_its_path(type_: str, change: dict[str, Any], path: str) -> None:
    event_type = table.INBOUND[type_]
    assert refused_paths(event_type.model, event_type.example | change) == [path]


def test_the_bounds_of_lists_and_times_are_inclusive() -> None:
    plans.PlanApplied.model_validate({"plan_id": "p", "workload_ids": ["w"] * 10_000})
    plans.PlanSaved.model_validate({"plan_id": "p", "features": ["f"] * 1000})
    for ttl_seconds in (1, 30 * 86_400):
        reservations.ReservationExtend.model_validate({"reservation_id": "r", "ttl_seconds": ttl_seconds})
    tenants.TenantUpserted.model_validate({"parent_id": "p", "kind": "unit", "name": "ü" * 256})


def test_an_absent_gauge_is_unchanged_and_zero_is_zero() -> None:
    usage = workloads.WorkloadUsageReported.model_validate({"workload_id": "w", "usage": {"storage_bytes": 0}}).usage
    assert (usage.storage_bytes, usage.local_storage_bytes) == (0, None)


def test_names_that_only_the_catalogue_can_judge_are_left_to_it() -> None:
    workloads.WorkloadRegistered.model_validate({"workload_id": "w", "type": "Smart Toaster"})
    plans.PlanSaved.model_validate({"plan_id": "p", "features": ["no such feature"]})
    offering_items.OfferingItemsSet.model_validate(items({"name": "no such item", "status": 1}))
    switches.SwitchRequested.model_validate({"switch_id": "s", "target_edition": "no such edition"})


def test_data_cannot_be_changed_after_they_were_read() -> None:
    for event_type in ALL.values():
        read = event_type.validate(event_type.example)
        for name in event_type.model.model_fields:
            with pytest.raises(pydantic.ValidationError, match="frozen"):
                setattr(read, name, None)


def dead_letter(**changes: Any) -> dict[str, Any]:
    record: dict[str, Any] = {"key": b"customer-1", "headers": [("a", b"\xff"), ("a", None)], "value": b"\x00{"}
    place: dict[str, Any] = {"topic": "apportion.plan-changes", "partition": 3, "offset": 7, "context": {"path": ""}}
    return dead_letters.describe(code="invalid_data", message="It is wrong.", **(record | place | changes))


def test_a_dead_letter_holds_the_original_bytes_headers_and_place() -> None:
    data = dead_letter()
    assert data == {
        "code": "invalid_data",
        "message": "It is wrong.",
        "context": {"path": ""},
        "topic": "apportion.plan-changes",
        "partition": 3,
        "offset": 7,
        "key": "customer-1",
        "headers": {"a": ""},
        "headers_base64": [["a", "/w=="], ["a", None]],
        "value_base64": "AHs=",
        "size": 2,
        "sha256": "a3ae56bff4748ead212a8a8917fce300e25dc7a7bf377bc00de81ccf148a6922",
    }
    dead_letters.MessageRejected.model_validate(data)


def test_a_dead_letter_says_what_was_not_there() -> None:
    assert "value_base64" not in dead_letter(value=None)
    assert dead_letter(value=b"")["value_base64"] == ""
    assert not {"key", "key_base64"} & dead_letter(key=None).keys()
    assert dead_letter(key=b"\xff")["key_base64"] == "/w=="
    assert "key_base64" not in dead_letter(key="kündig".encode())
    assert "context" not in dead_letter(context=None)


def test_headers_are_shown_once_where_text_says_them_exactly() -> None:
    plain = dead_letter(headers=[("content-type", b"application/json"), ("ce_source", "/büro".encode())])
    assert plain["headers"] == {"content-type": "application/json", "ce_source": "/büro"}
    assert "headers_base64" not in plain
    for odd in ([("a", b"1"), ("a", b"1")], [("a", None)], [("a", b"\xff")], [("a", b"1"), ("b", b"2"), ("a", b"1")]):
        data = dead_letter(headers=odd)
        exact = [(name, None if text is None else base64.b64decode(text)) for name, text in data["headers_base64"]]
        assert exact == odd
        dead_letters.MessageRejected.model_validate(data)


def test_a_value_above_700_kibibytes_is_left_out_of_its_dead_letter() -> None:
    at_the_limit = 700 * 1024
    assert "value_base64" in dead_letter(value=b"x" * at_the_limit)
    larger = dead_letter(value=b"x" * (at_the_limit + 1))
    assert "value_base64" not in larger
    assert larger["size"] == at_the_limit + 1


def test_a_dead_letter_always_fits_into_one_message() -> None:
    for value, filler in itertools.product((b"x" * 700 * 1024, b"", None), (b"y", b"\xff", b"\x00")):
        flood = [(f"h{n}", filler * 5000) for n in range(400)]
        data = dead_letter(value=value, headers=flood, key=b"\x00" * 1024)
        assert len(json.dumps(data)) < 1024 * 1024 - 16 * 1024
        assert data["context"]["headers_left_out"] == len(flood) - len(data["headers"]) > 0
        assert ("value_base64" in data) == (value is not None)
