"""Whatever a producer writes, reading it gives an event or a rejection, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import dead_letters, envelope, outbound, table

NOW_US = 1_800_000_000_000_000
IDENTIFIER = re.compile(r"[A-Za-z0-9._:-]{1,64}")
RFC3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9:]{8}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})")

identifiers = st.from_regex(IDENTIFIER, fullmatch=True)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=5) | st.dictionaries(st.text(max_size=8), children, max_size=5),
    max_leaves=12,
)
attribute_names = st.sampled_from([*envelope.ATTRIBUTES, "data", "datacontenttype", "data_base64"])
header_names = st.sampled_from([f"ce_{name}" for name in envelope.ATTRIBUTES] + ["content-type", "Content-Type"])
types = [type_.encode() for type_ in table.INBOUND]
header_contents = st.sampled_from([b"application/cloudevents+json", b"application/json", b"1.0", b"t", b"5", *types])
headers = st.lists(
    st.tuples(header_names | st.text(max_size=10), header_contents | st.binary(max_size=40)), max_size=12
)
examples = st.sampled_from(list(table.INBOUND.values()))


def parse_or_reject(value: bytes | None, headers: Sequence[tuple[str, bytes]], key: bytes | None) -> None:
    """Reads the message and holds the outcome to what the rest of the program relies on."""
    try:
        read = envelope.parse(value, headers, key, now_us=NOW_US)
    except envelope.Rejected as rejected:
        assert rejected.code in dead_letters.CODES
        assert rejected.message
        assert rejected.tenant_id is None or IDENTIFIER.fullmatch(rejected.tenant_id)
        json.dumps(rejected.context, allow_nan=False).encode()
        return
    assert IDENTIFIER.fullmatch(read.tenantid)
    assert key == read.tenantid.encode()
    assert isinstance(read.data, table.INBOUND[read.type].model)
    assert 0 <= read.time_us <= NOW_US + envelope.FUTURE_US_MAX
    assert read.sequence is None or 0 <= read.sequence <= 2**53 - 1
    assert not re.search(r"[\x00-\x1f]", read.id + read.source + (read.subject or "") + (read.traceparent or ""))


def structured_event(event_type: table.EventType, tenant_id: str) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/agents/7",
        "type": event_type.type,
        "time": "2026-01-31T12:00:00Z",
        "tenantid": tenant_id,
        "sequence": 3,
        "data": event_type.example,
    }


def replaced(document: Any, draw: st.DrawFn) -> Any:
    """The document with one value, somewhere in it, replaced by any other or left out."""
    if isinstance(document, (dict, list)) and document and draw(st.integers(0, 4)):
        keys: Any = list(document) if isinstance(document, dict) else range(len(document))
        key = draw(st.sampled_from(keys))
        changed: Any = document.copy()
        if draw(st.booleans()):
            changed[key] = replaced(document[key], draw)
        else:
            del changed[key]
        return changed
    return draw(json_values)


@st.composite
def damaged_events(draw: st.DrawFn) -> tuple[dict[str, Any], str]:
    tenant_id = draw(identifiers)
    event = structured_event(draw(examples), tenant_id)
    changed = replaced(event, draw)
    return (changed if isinstance(changed, dict) else event), tenant_id


@given(value=st.none() | st.binary(max_size=200), headers=headers, key=st.none() | st.binary(max_size=10))
def test_any_bytes_and_headers_are_an_event_or_a_rejection(
    value: bytes | None, headers: list[tuple[str, bytes]], key: bytes | None
) -> None:
    parse_or_reject(value, headers, key)


@given(document=st.dictionaries(attribute_names, json_values) | json_values, headers=headers)
def test_any_json_is_an_event_or_a_rejection(document: Any, headers: list[tuple[str, bytes]]) -> None:
    parse_or_reject(json.dumps(document).encode(), headers, b"t")
    parse_or_reject(json.dumps(document).encode(), [], b"t")


@given(damaged=damaged_events())
def test_an_event_with_one_thing_wrong_is_an_event_or_a_rejection(damaged: tuple[dict[str, Any], str]) -> None:
    event, tenant_id = damaged
    key = tenant_id.encode()
    parse_or_reject(json.dumps(event).encode(), envelope.USUAL_HEADERS, key)
    apart = [
        (f"ce_{name}", str(content).encode("utf-8", "replace")) for name, content in event.items() if name != "data"
    ]
    parse_or_reject(json.dumps(event.get("data")).encode(), apart, key)


@given(event_type=examples, tenant_id=identifiers, cut=st.data())
def test_a_good_event_with_flipped_bytes_is_an_event_or_a_rejection(
    event_type: table.EventType, tenant_id: str, cut: st.DataObject
) -> None:
    value = bytearray(json.dumps(structured_event(event_type, tenant_id)).encode())
    for _ in range(cut.draw(st.integers(1, 4))):
        value[cut.draw(st.integers(0, len(value) - 1))] = cut.draw(st.integers(0, 255))
    parse_or_reject(bytes(value), envelope.USUAL_HEADERS, tenant_id.encode())


texts = ["", "x" * 300, "x" * 1100, "\x85", "\u200b", "ü", "1.0", "application/json", "text/json"]
times = [
    "2026-01-31T12:00:00.123456Z",
    "2026-01-31T12:00:00.12Z",
    "2026-01-31T12:00:00.123\u0664Z",
    "2026-01-31T12:00:00.123456+00:00",
    "2026-06-30t23:59:60.123456Z",
    "1969-12-31T23:59:59.123Z",
    "9999-01-01T00:00:00.000Z",
    f"2026-01-31T12:00:00.{'1' * 300}Z",
]
numbers = [0, 1, 1.0, True, None, -1, 2**53 - 1, 2**53]


@pytest.mark.parametrize("name", [*envelope.ATTRIBUTES, "data", "datacontenttype"])
def test_each_unusual_attribute_is_read_as_every_check_by_itself_would_read_it(name: str) -> None:
    event = structured_event(table.INBOUND["apportion.workload.removed.v1"], "t")
    for value in (*texts, *times, *numbers, [], {}):
        read_both_ways(event | {name: value}, b"t", None)


@given(damaged=damaged_events(), depth=st.integers(1, 34), topic=st.sampled_from([None, *table.INBOUND_TOPICS]))
def test_a_usual_event_is_read_as_every_check_by_itself_would_read_it(
    damaged: tuple[dict[str, Any], str], depth: int, topic: str | None
) -> None:
    event, tenant_id = damaged
    for document in (event, event | {"more": json.loads("[" * depth + "]" * depth)}):
        for key in (tenant_id.encode(), b"t", None):
            read_both_ways(document, key, topic)


def read_both_ways(document: Any, key: bytes | None, topic: str | None) -> None:
    """As it is read with the usual content type, and with one that takes the way of every check."""
    message = json.dumps(document).encode()
    quickly = outcome(message, b"application/cloudevents+json", key, topic)
    carefully = outcome(message, b"application/cloudevents+json;charset=utf-8", key, topic)
    assert quickly == carefully


def outcome(value: bytes, content_type: bytes, key: bytes | None, topic: str | None) -> Any:
    """What a message is read as, or all that its dead letter says; headers as Kafka's client has them."""
    try:
        return envelope.parse(value, (("content-type", content_type),), key, now_us=NOW_US, topic=topic)
    except envelope.Rejected as rejected:
        return rejected.code, rejected.message, rejected.context, rejected.tenant_id


@given(
    moment=st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9999, 12, 30)),
    offset_minutes=st.integers(-23 * 60 - 59, 23 * 60 + 59),
    fraction=st.from_regex(r"(\.[0-9]{1,20})?", fullmatch=True),
)
def test_a_time_means_the_same_in_every_zone(moment: datetime, offset_minutes: int, fraction: str) -> None:
    whole = moment.replace(microsecond=0, tzinfo=UTC)
    local = whole.astimezone(timezone(timedelta(minutes=offset_minutes)))
    sign, minutes = ("-" if offset_minutes < 0 else "+"), abs(offset_minutes)
    text = f"{local:%Y-%m-%dT%H:%M:%S}".rjust(19, "0") + f"{fraction}{sign}{minutes // 60:02d}:{minutes % 60:02d}"
    since = whole - datetime(1970, 1, 1, tzinfo=UTC)
    microseconds = int((fraction[1:7] or "0").ljust(6, "0"))
    assert envelope.parse_time(text) == (since.days * 86_400 + since.seconds) * 1_000_000 + microseconds


@given(text=st.from_regex(r"[0-9]{4}.[0-9WT]{1,3}.[0-9]{2}.{0,14}", fullmatch=True) | st.text())
def test_what_is_read_as_a_time_has_the_form_of_one(text: str) -> None:
    try:
        envelope.parse_time(text)
    except ValueError:
        return
    assert RFC3339.fullmatch(text)


@given(
    texts=st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]), max_size=30)] * 4),
    tenant_id=identifiers,
    revision=st.integers(0, 2**53 - 1),
)
def test_whatever_is_rendered_is_read_back_unchanged(texts: tuple[str, ...], tenant_id: str, revision: int) -> None:
    event_id, subject, cause_id, traceparent = texts
    value = outbound.render(
        event_id=event_id,
        type_="apportion.usage.changed.v1",
        tenant_id=tenant_id,
        subject=subject,
        time_ms=5,
        cause_id=cause_id,
        revision=revision,
        traceparent=traceparent,
        data_json=b"{}",
    )
    read = json.loads(value)
    assert (read["id"], read["subject"], read["causeid"], read["traceparent"]) == texts
    assert (read["tenantid"], read["revision"], read["data"]) == (tenant_id, revision, {})


@pytest.mark.parametrize("type_", table.INBOUND)
@given(tenant_id=identifiers)
def test_every_tenant_id_of_the_contract_is_accepted(type_: str, tenant_id: str) -> None:
    value = json.dumps(structured_event(table.INBOUND[type_], tenant_id)).encode()
    assert envelope.parse(value, [], tenant_id.encode(), now_us=NOW_US).tenantid == tenant_id
