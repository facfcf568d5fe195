"""Facts from the outbox become the CloudEvents that others see."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas import outbound, table
from service import catalog
from service.handlers import announcements
from service.ledger.outbox import Entry, Facts, UsageChanged
from service.ledger.transaction import Denial

CATALOG = catalog.load()
SAID: dict[str, Any] = {
    "tenant": "customer-1",
    "subject": "w-1",
    "identity": "0/e-1",
    "time_ms": 1_769_860_800_250,
    "cause": "e-1",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "data": {"workload_id": "w-1", "reason": "plan"},
}
DENIAL = Denial("msp-1", "pw_base_vms", 10, 10, 1)


def read(entry: Entry) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(announcements.render(entry, CATALOG).value)
    return found


def facts(*denials: Denial, **changes: Any) -> Facts:
    return Facts(7, announcements.facts(announcements.ASSIGNMENT_CHANGED, **(SAID | changes)), denials)


def test_everything_that_was_said_is_announced() -> None:
    announced = read(facts())
    assert announced.pop("id")
    assert announced == {
        "specversion": "1.0",
        "source": outbound.SOURCE,
        "type": announcements.ASSIGNMENT_CHANGED,
        "subject": "w-1",
        "time": "2026-01-31T12:00:00.250Z",
        "tenantid": "customer-1",
        "causeid": "e-1",
        "revision": 7,
        "traceparent": SAID["traceparent"],
        "datacontenttype": "application/json",
        "data": SAID["data"],
    }


def test_what_is_not_known_is_left_out() -> None:
    assert set(read(facts(cause="", traceparent=None, tenant=None))).isdisjoint({"causeid", "traceparent", "tenantid"})


def test_an_id_says_what_happened_and_neither_when_nor_why() -> None:
    assert read(facts(time_ms=1, cause="e-2", traceparent=None))["id"] == read(facts())["id"]
    changes: tuple[dict[str, Any], ...] = (
        {"tenant": "t"},
        {"subject": "s"},
        {"identity": "i"},
        {"data": {}},
        {"subject": "", "identity": "w-1/0"},
    )
    others = {read(facts(**change))["id"] for change in changes} | {read(facts(DENIAL))["id"]}
    assert len(others - {read(facts())["id"]}) == 6


def test_an_id_may_be_the_same_whatever_the_data() -> None:
    assert read(facts(data={}, by_content=False))["id"] == read(facts(DENIAL, by_content=False))["id"]
    assert read(facts(identity="i", by_content=False))["id"] != read(facts(by_content=False))["id"]


@pytest.mark.parametrize("place", ["tenant", "subject", "identity", "cause", "traceparent"])
def test_no_text_can_move_the_others_to_another_line(place: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        facts(**{place: "a\nb"})


@pytest.mark.parametrize("text", ["ü", '"', "\\", "\x7f", "\u2028", "a\nb"])
def test_any_text_in_the_data_is_announced_as_it_is(text: str) -> None:
    assert read(facts(data={text: text}))["data"] == {text: text}


@pytest.mark.parametrize("item", ["pw_base_vms", 'no "item" of the catalogue'])
@pytest.mark.parametrize(("value", "overage"), [(None, None), (5, None), (5, 0)])
def test_numbers_are_announced_with_what_the_catalogue_says_of_their_item(
    item: str, value: int | None, overage: int | None
) -> None:
    announced = read(UsageChanged(7, 250, "customer-1", item, 3, 1, value, overage, "production", "e-1"))
    table.OUTBOUND[announcements.USAGE_CHANGED].validate(announced["data"])
    known = CATALOG.find_item(item)
    assert announced["data"] == {
        "offering_item": item,
        "usage_name": known.usage_name if known else item,
        "application_id": known.application_id if known else None,
        "edition": known.edition if known else None,
        "unit": known.unit if known else "quantity",
        "used": 3,
        "reserved": 1,
        "quota": {"value": value, "overage": overage},
        "pricing_mode": "production",
    }
