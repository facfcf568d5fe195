"""Messages that nobody should send: each gets its code, none raises anything else."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from schemas import envelope

NOW_US = 1_800_000_000_000_000
STRUCTURED = [("content-type", b"application/cloudevents+json")]
ATTRIBUTES = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "/agents/7",
    "type": "apportion.workload.usage_reported.v1",
    "time": "2026-01-31T12:00:00Z",
    "tenantid": "customer-1",
}
BINARY = [(f"ce_{name}", content.encode()) for name, content in ATTRIBUTES.items()]
DATA = {"workload_id": "w-1", "usage": {"storage_bytes": 5}}
MIB = 1024 * 1024


def structured(data: Any = DATA, **attributes: Any) -> bytes:
    return json.dumps({**ATTRIBUTES, **attributes, "data": data}).encode()


def rejection(
    value: bytes | None, headers: list[tuple[str, bytes]] = STRUCTURED, key: bytes | None = b"customer-1"
) -> envelope.Rejected:
    with pytest.raises(envelope.Rejected) as caught:
        envelope.parse(value, headers, key, now_us=NOW_US)
    assert caught.value.message.endswith(".")
    assert len(caught.value.message) < 1000
    json.dumps(caught.value.context)
    return caught.value


def invalid_data(data: Any, type_: str = ATTRIBUTES["type"]) -> str:
    """The path at fault, the same in both modes."""
    in_one = rejection(structured(data, type=type_))
    headers = [(name, type_.encode() if name == "ce_type" else content) for name, content in BINARY]
    apart = rejection(json.dumps(data).encode(), headers)
    assert in_one.code == apart.code == "invalid_data"
    assert in_one.tenant_id == apart.tenant_id == "customer-1"
    assert in_one.context == apart.context
    return str(in_one.context["path"])


def test_truncated_json_is_an_invalid_envelope_at_every_length() -> None:
    value = structured()
    for length in range(len(value)):
        assert rejection(value[:length]).code == "invalid_envelope"


def test_truncated_binary_data_are_invalid_data_of_a_known_tenant() -> None:
    value = json.dumps(DATA).encode()
    for length in range(len(value)):
        rejected = rejection(value[:length], BINARY)
        assert (rejected.code, rejected.context, rejected.tenant_id) == ("invalid_data", {"path": ""}, "customer-1")


@pytest.mark.parametrize(
    "value", [b"null", b"[]", b'"text"', b"7", b"true", b"{}", b"not json", b"{} {}", b"\xef\xbb\xbf{}"]
)
def test_json_that_is_no_event_is_an_invalid_envelope(value: bytes) -> None:
    assert rejection(value).code == "invalid_envelope"
    assert rejection(value, []).code == "invalid_envelope"


def test_a_tombstone_and_an_empty_value_are_refused() -> None:
    for value in (None, b""):
        assert rejection(value).code == "invalid_envelope"
        assert rejection(value, []).code == "invalid_envelope"
        assert rejection(value, BINARY).code == "invalid_data"


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (None, ""),
        ([], ""),
        ("text", ""),
        (7, ""),
        ({}, "workload_id"),
        ({"workload_id": 7, "usage": {}}, "workload_id"),
        ({"workload_id": None, "usage": {}}, "workload_id"),
        ({"workload_id": "w 1", "usage": {}}, "workload_id"),
        ({"workload_id": "w-1\n", "usage": {}}, "workload_id"),
        ({"workload_id": "", "usage": {}}, "workload_id"),
        ({"workload_id": "w" * 65, "usage": {}}, "workload_id"),
        ({"workload_id": "w-1"}, "usage"),
        ({"workload_id": "w-1", "usage": []}, "usage"),
        ({"workload_id": "w-1", "usage": {"storage_bytes": "5"}}, "usage.storage_bytes"),
        ({"workload_id": "w-1", "usage": {"storage_bytes": True}}, "usage.storage_bytes"),
        ({"workload_id": "w-1", "usage": {"local_storage_bytes": [5]}}, "usage.local_storage_bytes"),
    ],
)
def test_wrong_types_are_invalid_data_with_the_path(data: Any, path: str) -> None:
    assert invalid_data(data) == path


@pytest.mark.parametrize("number", [-1, 2**53, 10**30, 10**4000, 1.0, 1.5, 5e300, -0.0])
def test_absurd_numbers_are_invalid_data_with_the_path(number: float) -> None:
    assert invalid_data({"workload_id": "w-1", "usage": {"storage_bytes": number}}) == "usage.storage_bytes"


def test_numbers_beyond_every_float_are_invalid_data() -> None:
    value = structured().replace(b'"storage_bytes": 5', b'"storage_bytes": 1e999')
    assert rejection(value).context == {"path": "usage.storage_bytes"}


def test_a_number_of_ten_thousand_digits_is_invalid_data_of_a_known_tenant() -> None:
    digits = b"9" * 10_000
    in_one = rejection(structured().replace(b'"storage_bytes": 5', b'"storage_bytes": ' + digits))
    apart = rejection(json.dumps(DATA).encode().replace(b"5", digits), BINARY)
    for rejected in (in_one, apart):
        assert (rejected.code, rejected.context, rejected.tenant_id) == ("invalid_data", {"path": ""}, "customer-1")
    truncated = b'{"tenantid": "customer-1", "sequence": ' + digits
    assert rejection(truncated).code == "invalid_envelope"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_have_are_not_json(number: float) -> None:
    assert rejection(structured({"workload_id": "w-1", "anything": number})).code == "invalid_envelope"
    assert rejection(json.dumps({"workload_id": "w-1", "anything": number}).encode(), BINARY).code == "invalid_data"


@pytest.mark.parametrize(
    "type_", ["apportion.workload.exploded.v1", "apportion.workload.usage_reported.v2", "ünïcode", "."]
)
def test_unknown_types_are_named(type_: str) -> None:
    rejected = rejection(structured(type=type_))
    assert (rejected.code, rejected.context, rejected.tenant_id) == ("unknown_type", {"type": type_}, "customer-1")


def test_a_message_of_two_mebibytes_is_too_large_whatever_it_says() -> None:
    for value in (structured({**DATA, "filler": "x" * 2 * MIB}), b"\xff" * 2 * MIB, b"[" * 2 * MIB):
        rejected = rejection(value)
        assert (rejected.code, rejected.context) == ("message_too_large", {"size": len(value), "size_max": MIB})
    assert rejection(b"x" * 2 * MIB, BINARY).tenant_id == "customer-1"


def test_a_message_of_one_mebibyte_is_read() -> None:
    filler = MIB - len(structured({**DATA, "filler": ""}))
    value = structured({**DATA, "filler": "x" * filler})
    assert len(value) == MIB
    assert envelope.parse(value, STRUCTURED, b"customer-1", now_us=NOW_US).tenantid == "customer-1"
    assert rejection(value + b" ").code == "message_too_large"


@pytest.mark.parametrize("wrong", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xe2\x82", b"\\ud800", b"\x00"])
def test_invalid_utf8_in_a_structured_event_is_an_invalid_envelope(wrong: bytes) -> None:
    assert rejection(structured().replace(b"w-1", wrong)).code == "invalid_envelope"


def test_invalid_utf8_in_binary_mode_is_blamed_on_its_place() -> None:
    assert rejection(json.dumps(DATA).encode().replace(b"w-1", b"\xff"), BINARY).code == "invalid_data"
    for at, (name, _) in enumerate(BINARY):
        headers = [*BINARY[:at], (name, b"\xff\xfe"), *BINARY[at + 1 :]]
        rejected = rejection(json.dumps(DATA).encode(), headers)
        assert (rejected.code, rejected.context) == ("invalid_envelope", {"attribute": name[3:]})
        assert rejected.tenant_id == (None if name == "ce_tenantid" else "customer-1")


def test_a_missing_key_is_an_invalid_envelope_of_a_known_tenant() -> None:
    for value, headers in ((structured(), STRUCTURED), (json.dumps(DATA).encode(), BINARY)):
        rejected = rejection(value, headers, None)
        assert (rejected.code, rejected.tenant_id) == ("invalid_envelope", "customer-1")


def test_header_floods_are_invalid_envelopes() -> None:
    assert rejection(structured(), STRUCTURED + [("x", b"")] * 100).code == "invalid_envelope"
    assert rejection(structured(), STRUCTURED + [(f"ce_{n}", b"1") for n in range(100_000)]).code == "invalid_envelope"
    assert rejection(structured(), [*STRUCTURED, ("x", b"y" * 65_536)]).code == "invalid_envelope"
    assert rejection(structured(), [*STRUCTURED, ("x" * 65_536, b"")]).code == "invalid_envelope"
    read = envelope.parse(structured(), STRUCTURED + [("x", b"")] * 99, b"customer-1", now_us=NOW_US)
    assert read.tenantid == "customer-1"


def test_headers_that_contradict_each_other_are_invalid_envelopes() -> None:
    data = json.dumps(DATA).encode()
    assert rejection(data, [*BINARY, ("ce_tenantid", b"customer-2")]).context == {"attribute": "tenantid"}
    assert rejection(structured(), STRUCTURED * 2).context == {"attribute": "datacontenttype"}


def test_a_header_without_content_counts_as_absent() -> None:
    headers: list[Any] = [(name, None if name == "ce_time" else content) for name, content in BINARY]
    assert rejection(json.dumps(DATA).encode(), headers).context == {"attribute": "time"}


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize("depth", [40, 150, 100_000])
def test_deep_nesting_is_refused_where_it_stands(opening: bytes, closing: bytes, depth: int) -> None:
    nested = opening * depth + b"1" + closing * depth
    assert rejection(nested).code == "invalid_envelope"
    within = structured().replace(b'"data"', b'"deep": ' + nested + b', "data"')
    assert rejection(within).code == "invalid_envelope"
    assert rejection(b'{"deep": ' + nested + b"}", BINARY).code == "invalid_data"


def test_thirty_two_levels_are_read_and_one_more_is_not() -> None:
    def nested(depth: int) -> bytes:
        return structured({**DATA, "deep": json.loads("[" * depth + "]" * depth), "wide": [[]] * 50})

    read = envelope.parse(nested(30), STRUCTURED, b"customer-1", now_us=NOW_US)
    assert read.tenantid == "customer-1"
    rejected = rejection(nested(31))
    assert (rejected.code, rejected.tenant_id) == ("invalid_envelope", "customer-1")


def test_ten_thousand_wrong_entries_are_answered_by_the_first() -> None:
    many = {"plan_id": "p-1", "workload_ids": ["not an id"] * 10_000}
    assert invalid_data(many, "apportion.plan.applied.v1") == "workload_ids.0"
