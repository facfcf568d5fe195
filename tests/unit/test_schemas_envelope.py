"""The way in: what a well-formed event becomes, and which attribute is at fault where one is not."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from schemas import envelope, table, workloads

NOW_US = 1_800_000_000_000_000
STRUCTURED = ("content-type", b"application/cloudevents+json")
REGISTERED = "apportion.workload.registered.v1"


def event(**changes: Any) -> dict[str, Any]:
    attributes = {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/agents/7",
        "type": REGISTERED,
        "subject": "w-1",
        "time": "2026-01-31T12:00:00.25Z",
        "tenantid": "customer-1",
        "sequence": 7,
        "data": {"workload_id": "w-1", "type": "workstation"},
    }
    return {name: content for name, content in (attributes | changes).items() if content is not ...}


def parse_structured(message: dict[str, Any], *, key: bytes | None = b"customer-1", **options: Any) -> envelope.Inbound:
    return envelope.parse(json.dumps(message).encode(), [STRUCTURED], key, **({"now_us": NOW_US} | options))


def parse_binary(message: dict[str, Any], *, content_type: bytes | None = b"application/json") -> envelope.Inbound:
    headers = [(f"ce_{name}", str(content).encode()) for name, content in message.items() if name != "data"]
    if content_type is not None:
        headers.append(("content-type", content_type))
    return envelope.parse(json.dumps(message["data"]).encode(), headers, b"customer-1", now_us=NOW_US)


def rejection(message: dict[str, Any], **options: Any) -> envelope.Rejected:
    with pytest.raises(envelope.Rejected) as caught:
        parse_structured(message, **options)
    return caught.value


EXPECTED = envelope.Inbound(
    id="e-1",
    source="/agents/7",
    type=REGISTERED,
    subject="w-1",
    time_us=1_769_860_800_250_000,
    tenantid="customer-1",
    sequence=7,
    traceparent=None,
    data=workloads.WorkloadRegistered(workload_id="w-1", type="workstation"),
)


def test_structured_and_binary_mode_say_the_same() -> None:
    assert parse_structured(event()) == EXPECTED
    assert parse_binary(event()) == EXPECTED
    assert parse_binary(event(), content_type=None) == EXPECTED


@pytest.mark.parametrize("type_", table.INBOUND)
def test_every_inbound_example_is_read_from_its_topic_in_both_modes(type_: str) -> None:
    event_type = table.INBOUND[type_]
    message = event(type=type_, data=event_type.example)
    read = parse_structured(message, topic=event_type.topic)
    assert type(read.data) is event_type.model
    assert read == parse_binary(message)


def test_a_structured_event_without_a_content_type_is_recognised_by_its_body() -> None:
    assert envelope.parse(json.dumps(event()).encode(), [], b"customer-1", now_us=NOW_US) == EXPECTED


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/cloudevents+json; charset=utf-8",
        b"Application/CloudEvents+JSON",
        b" application/cloudevents+json ",
    ],
)
def test_the_content_type_is_read_as_a_media_type(content_type: bytes) -> None:
    headers = [("Content-Type", content_type)]
    assert envelope.parse(json.dumps(event()).encode(), headers, b"customer-1", now_us=NOW_US) == EXPECTED


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/cloudevents-batch+json",
        b"application/cloudevents+avro",
        b"application/json",
        b"text/plain",
        b"\xff",
    ],
)
def test_a_body_of_another_content_type_is_no_envelope(content_type: bytes) -> None:
    with pytest.raises(envelope.Rejected) as caught:
        envelope.parse(json.dumps(event()).encode(), [("content-type", content_type)], b"customer-1", now_us=NOW_US)
    assert caught.value.code == "invalid_envelope"


@pytest.mark.parametrize("content_type", [b"text/plain", b"application/xml", b"\xff\xfe"])
def test_binary_data_of_another_content_type_are_refused_with_their_tenant(content_type: bytes) -> None:
    with pytest.raises(envelope.Rejected) as caught:
        parse_binary(event(), content_type=content_type)
    assert (caught.value.code, caught.value.tenant_id) == ("invalid_envelope", "customer-1")


def test_the_structured_content_type_wins_over_attributes_in_headers() -> None:
    headers = [STRUCTURED, ("ce_id", b"another")]
    assert envelope.parse(json.dumps(event()).encode(), headers, b"customer-1", now_us=NOW_US).id == "e-1"


def test_unknown_attributes_headers_and_fields_are_ignored() -> None:
    data = {"workload_id": "w-1", "type": "workstation", "colour": {"of": "the case"}}
    assert parse_structured(event(data=data, region="eu", partitionkey=["x"])) == EXPECTED
    headers = [(f"ce_{name}", str(content).encode()) for name, content in event().items() if name != "data"]
    headers += [("ce_region", b"\xff"), ("x-request", b"\x00")]
    assert envelope.parse(json.dumps(data).encode(), headers, b"customer-1", now_us=NOW_US) == EXPECTED


def test_an_attribute_that_is_null_is_absent() -> None:
    read = parse_structured(event(sequence=None, subject=None, traceparent=None, datacontenttype=None))
    assert (read.sequence, read.subject, read.traceparent) == (None, None, None)


def test_the_trace_is_passed_on_and_a_broken_one_is_dropped() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert parse_structured(event(traceparent=trace)).traceparent == trace
    for broken in (7, "", "x" * 257, "a\nb", "ü"):
        assert parse_structured(event(traceparent=broken)).traceparent is None


@pytest.mark.parametrize(
    ("attribute", "content"),
    [
        ("specversion", ...),
        ("specversion", "0.3"),
        ("specversion", 1.0),
        ("id", ...),
        ("id", ""),
        ("id", "x" * 257),
        ("id", 7),
        ("id", "a\x00b"),
        ("source", ...),
        ("source", ""),
        ("source", "x" * 513),
        ("source", ["/a"]),
        ("type", ...),
        ("type", {}),
        ("type", "x" * 257),
        ("subject", 7),
        ("subject", "x" * 1025),
        ("time", ...),
        ("time", 1_769_860_800),
        ("time", "yesterday"),
        ("tenantid", ...),
        ("tenantid", ""),
        ("tenantid", "customer 1"),
        ("tenantid", "customer-1\n"),
        ("tenantid", "kundeü"),
        ("tenantid", "x" * 65),
        ("tenantid", 1),
        ("sequence", -1),
        ("sequence", 2**53),
        ("sequence", 1.0),
        ("sequence", "7"),
        ("sequence", True),
        ("datacontenttype", "text/plain"),
        ("datacontenttype", 1),
    ],
)
def test_a_wrong_attribute_is_an_invalid_envelope_that_names_it(attribute: str, content: Any) -> None:
    rejected = rejection(event(**{attribute: content}))
    assert (rejected.code, rejected.context["attribute"]) == ("invalid_envelope", attribute)
    assert rejected.tenant_id == (None if attribute == "tenantid" else "customer-1")


@pytest.mark.parametrize("key", [None, b"", b"customer-2", b"customer-1\n", b"\xff"])
def test_a_key_other_than_the_tenant_is_an_invalid_envelope(key: bytes | None) -> None:
    rejected = rejection(event(), key=key)
    assert (rejected.code, rejected.context["attribute"]) == ("invalid_envelope", "key")


def test_the_bounds_of_attributes_are_inclusive() -> None:
    tenant_id = "A-z0.9_:" * 8
    message = event(id="x" * 256, source="y" * 512, tenantid=tenant_id, sequence=2**53 - 1)
    read = parse_structured(message, key=tenant_id.encode())
    assert (len(read.id), len(read.source), len(read.tenantid), read.sequence) == (256, 512, 64, 2**53 - 1)
    assert parse_structured(event(sequence=0)).sequence == 0


@pytest.mark.parametrize("sequence", ["-1", "1.0", "", " 1", "9" * 17, "9007199254740992", "٧", "true"])
def test_a_sequence_in_a_header_is_digits(sequence: str) -> None:
    with pytest.raises(envelope.Rejected) as caught:
        parse_binary(event(sequence=sequence))
    assert (caught.value.code, caught.value.context["attribute"]) == ("invalid_envelope", "sequence")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00"),
        ("2026-01-31t12:00:00z", "2026-01-31T12:00:00"),
        ("2026-01-31T12:00:00.1Z", "2026-01-31T12:00:00.1"),
        ("2026-01-31T12:00:00.1234567899999Z", "2026-01-31T12:00:00.123456"),
        ("2026-01-31T12:00:00+02:30", "2026-01-31T09:30:00"),
        ("2026-01-31T12:00:00.5-11:00", "2026-01-31T23:00:00.5"),
        ("2026-01-31T12:00:00-00:00", "2026-01-31T12:00:00"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00"),
        ("2017-01-01T05:29:60.5+05:30", "2017-01-01T00:00:00.5"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00"),
    ],
)
def test_times_with_any_zone_and_fraction_are_read_to_the_microsecond(text: str, expected: str) -> None:
    moment = datetime.fromisoformat(expected).replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    assert envelope.parse_time(text) == (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T12:00:00",
        "2026-01-31",
        "2026-01-31 12:00:00Z",
        "20260131T120000.000Z",
        "2026-W05-6T12:00:00Z",
        "2026-01-31T12:00Z",
        "2026-01-31T12:00:00.Z",
        "2026-01-31T12:00:00,5Z",
        "2026-01-31T12:00:00.5ZZ",
        "2026-01-31T12:00:00Z\n",
        "2026-01-31T12:00:00+0200",
        "2026-01-31T12:00:00+24:00",
        "2026-01-31T12:00:00+02:60",
        "2026-01-31T12:00:00.5",
        "2026-02-30T12:00:00Z",
        "2026-13-01T12:00:00Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T12:00:60Z",
        "2026-01-31T12:00:61Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "1970-01-01T00:00:00+00:01",
        "２０２６-01-31T12:00:00Z",
        "2026-01-31T12:00:00.٥Z",
        "2026-01-31T12:00:00+0٢:00",
        "-2026-01-31T12:00:00Z",
    ],
)
def test_what_is_no_time_with_a_zone_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        envelope.parse_time(text)
    assert rejection(event(time=text)).context == {"attribute": "time"}


def test_five_minutes_ahead_is_tolerated_and_not_a_microsecond_more() -> None:
    five_minutes_before_us = EXPECTED.time_us - 5 * 60 * 1_000_000
    assert parse_structured(event(), now_us=five_minutes_before_us) == EXPECTED
    rejected = rejection(event(), now_us=five_minutes_before_us - 1)
    assert (rejected.code, rejected.tenant_id) == ("time_in_future", "customer-1")
    assert rejected.context == {"time": "2026-01-31T12:00:00.25Z", "ahead_seconds": 300}


def test_a_type_on_a_topic_that_is_not_its_own_is_unknown_there() -> None:
    rejected = rejection(event(), topic="plan-changes")
    assert rejected.code == "unknown_type"
    assert rejected.context == {"type": REGISTERED, "topic": "plan-changes", "topic_expected": "workload-events"}


def test_an_outbound_type_is_unknown_on_the_way_in() -> None:
    assert rejection(event(type="apportion.usage.changed.v1")).code == "unknown_type"


def test_the_envelope_is_judged_before_the_data() -> None:
    assert rejection(event(id="", data=None)).code == "invalid_envelope"
    assert rejection(event(type="apportion.workload.exploded.v1", data=None)).code == "unknown_type"
    assert rejection(event(time="2100-01-01T00:00:00Z", data=None)).code == "time_in_future"
    assert rejection(event(data=None)).code == "invalid_data"
