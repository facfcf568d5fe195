"""Switches with catalogues of other parties' making, in which packs overlap, need each other and meet add-ons."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service import catalog
from service.rules import switching
from service.rules.assignment import WorkloadFacts
from service.rules.quotas import Quota
from service.rules.switch_plan import Plan, Situation
from service.rules.tally import Kind, Tally, kind

CYBERAPPS = Path(__file__).parent.parent / "data" / "catalog_with_cyberapps.json"
TEN = Quota(10, 0)


def changed(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> catalog.Catalog:
    """The catalogue after a change of its sub-editions and items, each by name."""
    document = json.loads(CYBERAPPS.read_text())
    editions = {edition["name"]: edition for edition in document["editions"]}
    sub_editions = {each["name"]: each for each in editions["harbour_classic"]["sub_editions"]}
    change(sub_editions, {item["name"]: item for item in document["items"]})
    path = folder / "catalog.json"
    path.write_text(json.dumps(document))
    return catalog.load(path)


def switch(entries: catalog.Catalog, target: str, items: list[str], *kinds: Kind) -> Plan:
    tally = Tally()
    for number, each in enumerate(kinds):
        tally.add(f"w{number}", each)
    return switching.plan(entries, Situation("acme", "harbour", dict.fromkeys(items, TEN), {}, tally), target)


def a_workstation(held: list[str], *features: str) -> Kind:
    return kind(WorkloadFacts("workstation"), features, protected=True, held=held)


def test_where_no_pack_carries_just_what_the_edition_had_the_fewest_that_cover_it_are_enabled(tmp_path: Path) -> None:
    def only_green(sub_editions: dict[str, Any], items: dict[str, Any]) -> None:
        sub_editions["low"]["carries"] = ["copy", "green"]

    plan = switch(changed(tmp_path, only_green), "harbour_daily", ["hc_low_workstations"])

    assert plan.provision.enable == {"hd_workstations": TEN, "hd_red_green": TEN}
    assert plan.features_gained == {"workstation": ("harbour.red",)}


def test_a_pack_brings_what_it_requires(tmp_path: Path) -> None:
    def green_needs_red(sub_editions: dict[str, Any], items: dict[str, Any]) -> None:
        items["hd_green_blue"]["requires"] = ["hd_red"]

    plan = switch(changed(tmp_path, green_needs_red), "harbour_daily", ["hc_high_workstations"])

    assert plan.provision.enable == dict.fromkeys(("hd_workstations", "hd_red", "hd_green_blue"), TEN)


def test_an_add_on_goes_where_the_target_carries_its_feature_and_stays_where_not(tmp_path: Path) -> None:
    def harbour_has_an_add_on(sub_editions: dict[str, Any], items: dict[str, Any]) -> None:
        items["watchtower_forensics"] |= {"application": "harbour", "carries": ["green"]}
        items["watchtower_sensor"]["carries"] = ["anomalies", "forensics"]

    entries = changed(tmp_path, harbour_has_an_add_on)
    items = ["hc_low_workstations", "hc_high_workstations", "watchtower_sensor", "watchtower_forensics"]
    watched = a_workstation(["hc_low_workstations", "watchtower_sensor"], "harbour.red", "watchtower.anomalies")
    green = a_workstation(["hc_low_workstations", "watchtower_forensics"], "harbour.red", "harbour.green")

    plan = switch(entries, "harbour_daily", items, watched, green)

    assert {each.kind: set(each.after) for each in plan.outcomes} == {
        watched: {"hd_workstations", "hd_red", "watchtower_sensor"},
        green: {"hd_workstations", "hd_red", "hd_green_blue"},
    }
    assert plan.units["watchtower_forensics"] == -1
    assert not {"watchtower_sensor", "watchtower_forensics"} & {*plan.provision.enable, *plan.provision.disable}


def test_what_is_held_of_another_application_is_held_on() -> None:
    entries = catalog.load(CYBERAPPS)
    items = ["hc_low_workstations", "tm_base_devices"]
    counted = a_workstation(items, "harbour.copy", "tally.counting")

    plan = switch(entries, "harbour_daily", items, counted)

    assert plan.outcomes[0].after == ("hd_workstations", "tm_base_devices")
    assert plan.units == {"hc_low_workstations": -1, "hd_workstations": 1}
