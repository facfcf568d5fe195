"""The way out: an envelope that any JSON reader understands, and ids that do not change."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas import envelope, outbound

COMPLETE: dict[str, Any] = {
    "event_id": "e-1",
    "type_": "apportion.usage.changed.v1",
    "tenant_id": "customer-1",
    "subject": "pw_base_workstations",
    "time_ms": 1_769_860_800_250,
    "cause_id": "c-1",
    "revision": 81,
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "data_json": b'{"used":1}',
}


def test_a_rendered_envelope_has_every_attribute_of_the_contract() -> None:
    assert json.loads(outbound.render(**COMPLETE)) == {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/apportion",
        "type": "apportion.usage.changed.v1",
        "subject": "pw_base_workstations",
        "time": "2026-01-31T12:00:00.250Z",
        "tenantid": "customer-1",
        "causeid": "c-1",
        "revision": 81,
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "datacontenttype": "application/json",
        "data": {"used": 1},
    }


def test_what_is_none_is_left_out() -> None:
    nothing = dict.fromkeys(("tenant_id", "subject", "cause_id", "revision", "traceparent"))
    read = json.loads(outbound.render(**(COMPLETE | nothing)))
    assert set(read) == {"specversion", "id", "source", "type", "time", "datacontenttype", "data"}


def test_the_data_are_the_last_member_and_untouched() -> None:
    data = '{ "name": "Zürich \\u00fc" }'.encode()
    rendered = outbound.render(**(COMPLETE | {"data_json": data}))
    assert rendered.endswith(b'"datacontenttype":"application/json","data":' + data + b"}")


@pytest.mark.parametrize("text", ['a"b', "a\\b", "a\nb", "ü", "\u2028", "😀", "\x7f", "</script>", '","id":"forged'])
def test_no_text_can_break_out_of_its_attribute(text: str) -> None:
    texts = dict.fromkeys(("event_id", "tenant_id", "subject", "cause_id", "traceparent"), text)
    read = json.loads(outbound.render(**(COMPLETE | texts)))
    assert [read[name] for name in ("id", "tenantid", "subject", "causeid", "traceparent")] == [text] * 5
    assert len(read) == 12


def test_a_rendered_time_is_read_back_as_the_same_millisecond() -> None:
    for time_ms in (0, 1, 999, 1_000, 1_769_860_800_007, 4_102_444_799_999):
        assert envelope.parse_time(outbound.format_time(time_ms)) == time_ms * 1000


def test_the_same_parts_always_give_the_same_id() -> None:
    # A literal: ids that change with a release would turn every repeat across it into news.
    assert outbound.event_id("workload-events/7", "81234", b"\x00") == "c11bfb2ab400967483b8304a941d81bc"
    assert outbound.event_id("a", "b") == outbound.event_id(b"a", b"b")


def test_no_two_cuts_of_the_same_characters_share_an_id() -> None:
    cuts = [("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("", "abc"), ("a", "b", "c"), ()]
    assert len({outbound.event_id(*cut) for cut in cuts}) == len(cuts)
