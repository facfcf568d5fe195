"""The fleet of `simulate`: always the same for a seed, and made of events that the contract allows."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from schemas import table
from service import catalog
from service.commands.fleet import Event, Fleet


def make(seed: int = 1, customers: int = 45, workloads: int = 8) -> list[Event]:
    fleet = Fleet(customers=customers, workloads=workloads, seed=seed)
    life = itertools.islice(fleet.daily_life(), 2000)
    return [*fleet.tenants(), *fleet.plans(), *fleet.arrivals(), *life]


def test_the_same_seed_gives_the_same_events_and_another_one_others() -> None:
    assert make(seed=7) == make(seed=7)
    assert make(seed=7) != make(seed=8)


def test_every_event_is_one_that_the_contract_allows() -> None:
    events = make()
    for event in events:
        table.INBOUND[f"apportion.{event.type}.v1"].model.model_validate(event.data)
    expected = set(table.INBOUND) - {
        "apportion.tenant.deleted.v1",
        "apportion.plan.deleted.v1",
        "apportion.reservation.commit.v1",
        "apportion.reservation.extend.v1",
        "apportion.switch.requested.v1",
        "apportion.switch.undo_requested.v1",
    }  # fmt: skip - one line for each kind reads better
    assert {f"apportion.{event.type}.v1" for event in events} == expected


def test_every_name_is_in_the_catalogue() -> None:
    known = catalog.load()
    for event in make():
        for item in event.data.get("items", ()):
            assert known.find_item(item["name"] if isinstance(item, dict) else item)
        assert all(feature in known.features for feature in event.data.get("features", ()))


@pytest.mark.parametrize("customers", [1, 20, 21, 101])
def test_parents_come_before_their_children(customers: int) -> None:
    seen = {"root"}
    kinds: Counter[str] = Counter()
    for event in Fleet(customers=customers, workloads=1, seed=1).tenants():
        if event.type == "tenant.upserted":
            assert event.data["parent_id"] in seen
            seen.add(event.tenant)
            kinds[event.data["kind"]] += 1
    assert kinds["customer"] == customers


def test_quotas_are_of_every_kind_and_payment_of_both() -> None:
    events = make(customers=100)
    quotas = [
        item.get("quota") for event in events if event.type == "offering_items.set" for item in event.data["items"]
    ]
    shapes = {None if quota is None else (quota["overage"] is None, bool(quota["overage"])) for quota in quotas}
    assert None in shapes
    assert (True, False) in shapes, "soft"
    assert (False, False) in shapes, "hard"
    assert any(event.data.get("payment_model") == "prepaid" for event in events)


def test_every_workload_arrives_once_and_is_protected() -> None:
    fleet = Fleet(customers=3, workloads=4, seed=1)
    arrivals = list(fleet.arrivals())
    registered = [(e.tenant, e.data["workload_id"]) for e in arrivals if e.type == "workload.registered"]
    protected = [(e.tenant, name) for e in arrivals if e.type == "plan.applied" for name in e.data["workload_ids"]]
    assert len(set(registered)) == len(registered) == fleet.size == 12
    assert sorted(registered) == sorted(protected)
