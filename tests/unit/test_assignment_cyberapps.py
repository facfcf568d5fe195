"""The same rules on a catalogue that other parties wrote: nothing in them depends on the built-in one."""

from __future__ import annotations

from pathlib import Path

from service import catalog
from service.rules import assignment

OTHER = catalog.load(Path(__file__).parent.parent / "data" / "catalog_with_cyberapps.json")
DAILY = frozenset({"hd_workstations", "hd_servers", "hd_red", "hd_red_green", "hd_green_blue", "hd_spectrum"})
TALLY = frozenset({"tm_base_devices", "tm_pack_audit"})


def decide(workload_type: str, enabled: frozenset[str] | set[str], *features: str) -> assignment.Decision:
    editions = assignment.edition_of(OTHER, enabled)
    facts = assignment.WorkloadFacts(workload_type)
    return assignment.decide(OTHER, editions, enabled, facts, set(features), protected=True)


def shown(decision: assignment.Decision) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [(candidate.items, candidate.packs) for candidate in decision.candidates]


def reasons(decision: assignment.Decision) -> list[tuple[str, str | None, str | None]]:
    return [(denial.code, denial.offering_item, denial.feature) for denial in decision.denials]


def test_an_addon_comes_beside_every_candidate_while_it_is_enabled_and_requested() -> None:
    decision = decide("workstation", DAILY | {"watchtower_sensor"}, "harbour.copy", "watchtower.anomalies")
    assert shown(decision) == [
        (("hd_workstations",), ("watchtower_sensor",)),
        (("hd_servers",), ("watchtower_sensor",)),
    ]


def test_an_addon_that_no_plan_requests_is_not_taken() -> None:
    decision = decide("server", DAILY | {"watchtower_sensor", "watchtower_forensics"}, "harbour.red")
    assert shown(decision) == [(("hd_servers",), ("hd_red",))]


def test_where_only_the_cyberapp_is_requested_the_base_is_still_needed() -> None:
    decision = decide("server", DAILY | {"watchtower_sensor"}, "watchtower.anomalies")
    assert shown(decision) == [(("hd_servers",), ("watchtower_sensor",))]
    without_base = decide("server", {"hd_red", "watchtower_sensor"}, "watchtower.anomalies")
    assert without_base.candidates == ()
    assert reasons(without_base) == [("offering_item_not_enabled", "hd_servers", None)]
    assert without_base.uncovered_features == ()


def test_an_addon_comes_beside_the_item_of_an_edition_too() -> None:
    enabled = {"hc_low_workstations", "hc_high_workstations", "watchtower_forensics"}
    decision = decide("workstation", enabled, "harbour.green", "watchtower.forensics")
    assert shown(decision) == [(("hc_high_workstations",), ("watchtower_forensics",))]


def test_an_addon_that_is_not_enabled_is_named() -> None:
    decision = decide("server", DAILY, "harbour.red", "watchtower.forensics")
    assert shown(decision) == [(("hd_servers",), ("hd_red",))]
    assert decision.uncovered_features == ("watchtower.forensics",)
    assert reasons(decision) == [("offering_item_not_enabled", "watchtower_forensics", "watchtower.forensics")]


def test_a_type_that_only_addons_serve_holds_them_without_a_base() -> None:
    assert shown(decide("camera", {"watchtower_sensor"}, "watchtower.anomalies")) == [((), ("watchtower_sensor",))]
    assert shown(decide("camera", DAILY | {"watchtower_sensor"}, "watchtower.anomalies")) == [
        ((), ("watchtower_sensor",))
    ]


def test_a_type_that_only_addons_serve_waits_for_the_addon_that_is_not_enabled() -> None:
    decision = decide("camera", DAILY, "watchtower.anomalies")
    assert decision.candidates == ()
    assert decision.uncovered_features == ("watchtower.anomalies",)
    assert reasons(decision) == [("offering_item_not_enabled", "watchtower_sensor", "watchtower.anomalies")]


def test_a_type_that_only_addons_serve_holds_nothing_where_nothing_is_requested() -> None:
    assert decide("camera", {"watchtower_sensor"}) == assignment.NOTHING


def test_a_second_application_is_decided_by_itself_and_combined() -> None:
    decision = decide("workstation", DAILY | TALLY, "harbour.red", "tally.audit", "tally.counting")
    assert shown(decision) == [
        (("hd_workstations", "tm_base_devices"), ("hd_red", "tm_pack_audit")),
        (("hd_servers", "tm_base_devices"), ("hd_red", "tm_pack_audit")),
    ]


def test_an_application_that_waits_to_be_asked_gives_no_base_unasked() -> None:
    assert shown(decide("server", DAILY | TALLY, "harbour.red")) == [(("hd_servers",), ("hd_red",))]


def test_a_type_of_an_application_that_waits_to_be_asked_still_holds_a_base_when_its_plan_asks_nothing() -> None:
    assert shown(decide("till", TALLY)) == [(("tm_base_devices",), ())]


def test_an_application_without_an_edition_does_not_stand_in_the_way_of_another() -> None:
    decision = decide("server", DAILY, "harbour.red", "tally.audit")
    assert shown(decision) == [(("hd_servers",), ("hd_red",))]
    assert decision.uncovered_features == ("tally.audit",)
    assert reasons(decision) == [("offering_item_not_enabled", None, None)]


def test_an_application_that_the_customer_lacks_does_not_stand_in_the_way_of_a_cyberapp_of_its_own() -> None:
    decision = decide("server", TALLY, "harbour.red", "tally.counting")
    assert shown(decision) == [(("tm_base_devices",), ())]
    assert decision.uncovered_features == ("harbour.red",)
    assert reasons(decision) == [("offering_item_not_enabled", None, None)]


def test_of_several_packs_that_carry_a_feature_the_fewest_are_taken() -> None:
    cases = {
        ("harbour.red",): ("hd_red",),
        ("harbour.red", "harbour.green"): ("hd_red_green",),
        ("harbour.green", "harbour.blue"): ("hd_green_blue",),
        ("harbour.red", "harbour.blue"): ("hd_red", "hd_green_blue"),
        ("harbour.red", "harbour.green", "harbour.blue"): ("hd_red", "hd_green_blue"),
    }
    for features, packs in cases.items():
        assert shown(decide("server", DAILY, *features)) == [(("hd_servers",), packs)], features


def test_a_required_pack_counts_among_those_taken() -> None:
    enabled = {"hd_servers", "hd_red", "hd_spectrum"}
    assert shown(decide("server", enabled, "harbour.blue")) == [(("hd_servers",), ("hd_red", "hd_spectrum"))]
    assert shown(decide("server", enabled, "harbour.red")) == [(("hd_servers",), ("hd_red",))]


def test_a_carrier_that_lacks_the_fewest_items_is_the_one_named() -> None:
    decision = decide("server", {"hd_servers", "hd_spectrum"}, "harbour.blue")
    assert reasons(decision) == [("offering_item_not_enabled", "hd_green_blue", "harbour.blue")]


def test_a_feature_that_is_declared_absent_is_not_available() -> None:
    decision = decide("server", DAILY, "harbour.promised")
    assert shown(decision) == [(("hd_servers",), ())]
    assert reasons(decision) == [("feature_not_available", None, "harbour.promised")]


def test_two_applications_each_have_their_edition() -> None:
    assert assignment.edition_of(OTHER, DAILY | TALLY | {"watchtower_sensor"}) == {
        "harbour": "harbour_daily",
        "tally": "tally_monthly",
    }
    assert assignment.edition_conflicts(OTHER, DAILY | TALLY) == {}


def test_available_features_count_addons_and_tenant_features_of_other_parties() -> None:
    assert assignment.available_features(OTHER, {"watchtower_sensor", "watchtower_console"}) == (
        ["watchtower.console"],
        {kind: ["watchtower.anomalies"] for kind in ("workstation", "server", "camera")},
    )
