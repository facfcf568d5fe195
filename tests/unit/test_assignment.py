"""Which items a workload should hold with the built-in catalogue (docs/domain.md 6), row by row."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service import catalog
from service.rules import assignment

CYBER_PROTECTION = "6e6d758d-8e74-3ae3-ac84-50eb0dff12eb"
BUILT_IN = catalog.load()
MODES = {"pck_per_workload": "pw_", "pck_per_gigabyte": "pg_"}
MACHINES = ("workstation", "server", "vm", "web_hosting_server")
PLURAL = {
    "workstation": "workstations",
    "server": "servers",
    "vm": "vms",
    "web_hosting_server": "web_hosting_servers",
    "mobile": "mobiles",
    "website": "websites",
    "nas": "nas",
    "hosted_exchange_mailbox": "hosted_exchange",
    "m365_seat": "m365_seats",
    "m365_sharepoint_site": "m365_sharepoint_sites",
    "m365_team": "m365_teams",
    "gworkspace_seat": "gworkspace_seats",
}


def everything_of(edition: str, *, without: tuple[str, ...] = ()) -> frozenset[str]:
    return frozenset(item.name for item in BUILT_IN.items_of_edition(edition)) - set(without)


def decide(
    edition: str | None,
    enabled: frozenset[str] | set[str],
    workload: assignment.WorkloadFacts,
    *features: str,
    protected: bool = True,
) -> assignment.Decision:
    editions = {CYBER_PROTECTION: edition} if edition else {}
    return assignment.decide(BUILT_IN, editions, enabled, workload, set(features), protected)


def a(workload_type: str, **facts: object) -> assignment.WorkloadFacts:
    return assignment.WorkloadFacts(workload_type, **facts)  # type: ignore[arg-type]  # facts are told in each test


def first(decision: assignment.Decision) -> assignment.Candidate:
    return decision.candidates[0]


def held(decision: assignment.Decision) -> set[str]:
    return {*first(decision).items, *first(decision).packs}


def reasons(decision: assignment.Decision) -> list[tuple[str, str | None, str | None]]:
    return [(denial.code, denial.offering_item, denial.feature) for denial in decision.denials]


def items(decision: assignment.Decision) -> list[str]:
    return [name for candidate in decision.candidates for name in candidate.items]


# Rule 0 and 1


def test_rule_0_a_customer_without_an_edition_is_denied_without_an_item() -> None:
    decision = decide(None, set(), a("workstation"), "backup.files")
    assert decision.candidates == ()
    assert reasons(decision) == [("offering_item_not_enabled", None, None)]
    assert decision.uncovered_features == ("backup.files",)


def test_rule_0_holds_for_items_that_belong_to_no_edition() -> None:
    decision = decide(None, {"local_storage", "tenant_audit_log"}, a("server"))
    assert decision.candidates == ()
    assert reasons(decision) == [("offering_item_not_enabled", None, None)]


def test_rule_1_a_workload_without_an_enabled_plan_is_due_nothing_and_denied_nothing() -> None:
    enabled = everything_of("pck_per_workload")
    decision = decide("pck_per_workload", enabled, a("workstation"), "backup.files", protected=False)
    assert decision == assignment.NOTHING


def test_rule_1_a_protected_workload_whose_features_all_fall_away_still_holds_its_base() -> None:
    decision = decide("pck_per_workload", everything_of("pck_per_workload"), a("nas"), "backup.image", "security.edr")
    assert held(decision) == {"pw_base_nas"}
    assert decision.denials == ()
    assert decision.uncovered_features == ()


def test_rule_1_a_windows_feature_falls_away_on_linux_without_a_word() -> None:
    enabled = everything_of("pck_per_workload")
    linux = decide("pck_per_workload", enabled, a("server", os_family="linux"), "management.patch_management")
    unsaid = decide("pck_per_workload", enabled, a("server"), "management.patch_management")
    assert held(linux) == {"pw_base_servers"}
    assert linux.denials == ()
    assert held(unsaid) == {"pw_base_servers", "pw_pack_adv_management"}


def test_rule_1_a_feature_that_the_catalogue_does_not_know_falls_away() -> None:
    decision = decide("pck_per_workload", everything_of("pck_per_workload"), a("server"), "toast.brown")
    assert held(decision) == {"pw_base_servers"}
    assert decision.denials == ()


# Section 5.3: what each feature needs beyond the base item, per workload type that it applies to.

ADVANCED_BACKUP = (
    "backup.continuous_data_protection",
    "backup.application_cluster",
    "backup.data_protection_map",
    "backup.sap_hana",
    "backup.oracle",
)
NEEDS: dict[str, tuple[str, ...]] = {
    "backup.files": (),
    "backup.image": (),
    "backup.m365": (),
    "backup.gworkspace": (),
    "backup.website": (),
    "security.active_protection": (),
    "security.antimalware_on_demand": (),
    "security.defender_management": (),
    "security.device_control": (),
    "management.vulnerability_assessment": (),
    "management.hardware_inventory": (),
    "management.remote_desktop": (),
    "management.patch_management": ("pack_adv_management",),
    "management.software_inventory": ("pack_adv_management",),
    "management.cyber_scripting": ("pack_adv_management",),
    "management.disk_health": ("pack_adv_management",),
    "management.monitoring_alerts": ("pack_adv_management",),
    "security.url_filtering": ("pack_adv_security",),
    "security.antimalware_realtime": ("pack_adv_security",),
    "security.exploit_prevention": ("pack_adv_security",),
    "security.remote_wipe": ("pack_adv_security",),
    "security.edr": ("pack_adv_security", "pack_adv_security_edr"),
    "security.m365_mailbox_malware_scan": ("pack_adv_security_m365_seats",),
    "email.realtime_protection": ("pack_adv_email_security",),
    **dict.fromkeys(ADVANCED_BACKUP, ("pack_adv_backup_{type}",)),
    "dlp.data_loss_prevention": ("pack_adv_dlp",),
    "disaster_recovery.failover": (),
}
ROWS = [
    (feature, workload_type)
    for feature in NEEDS
    for workload_type in BUILT_IN.workload_types
    if BUILT_IN.applies(feature, workload_type)
]


def test_every_workload_feature_has_its_row() -> None:
    assert set(NEEDS) == {feature.id for feature in BUILT_IN.features.values() if feature.scope == "workload"}


@pytest.mark.parametrize(("mode", "prefix"), MODES.items())
@pytest.mark.parametrize(("feature", "workload_type"), ROWS)
def test_section_5_3_a_billing_mode_takes_the_base_and_exactly_the_packs_of_the_row(
    mode: str, prefix: str, feature: str, workload_type: str
) -> None:
    decision = decide(mode, everything_of(mode), a(workload_type), feature)
    packs = tuple(prefix + name.format(type=PLURAL[workload_type]) for name in NEEDS[feature])
    assert first(decision).items == (f"{prefix}base_{PLURAL[workload_type]}",)
    assert first(decision).packs == packs
    assert (decision.uncovered_features, decision.denials) == ((), ())


@pytest.mark.parametrize(("feature", "workload_type"), ROWS)
def test_section_5_3_a_pack_that_is_not_enabled_leaves_its_feature_uncovered_and_the_base_in_place(
    feature: str, workload_type: str
) -> None:
    packs = ["pw_" + name.format(type=PLURAL[workload_type]) for name in NEEDS[feature]]
    for missing in packs:
        enabled = everything_of("pck_per_workload", without=(missing,))
        decision = decide("pck_per_workload", enabled, a(workload_type), feature)
        assert held(decision) == {f"pw_base_{PLURAL[workload_type]}"}
        assert decision.uncovered_features == (feature,)
        assert reasons(decision) == [("offering_item_not_enabled", missing, feature)]


def test_rule_3_one_pack_serves_every_feature_it_carries() -> None:
    features = ("management.disk_health", "management.cyber_scripting", "security.url_filtering", "security.edr")
    decision = decide("pck_per_workload", everything_of("pck_per_workload"), a("vm"), *features)
    assert first(decision).packs == ("pw_pack_adv_management", "pw_pack_adv_security", "pw_pack_adv_security_edr")


def test_rule_3_edr_without_both_packs_names_both() -> None:
    decision = decide("pck_per_workload", {"pw_base_servers"}, a("server"), "security.edr")
    assert reasons(decision) == [
        ("offering_item_not_enabled", "pw_pack_adv_security_edr", "security.edr"),
        ("offering_item_not_enabled", "pw_pack_adv_security", "security.edr"),
    ]


def test_rule_3_advanced_security_is_not_taken_for_an_edr_that_is_not_to_be_had() -> None:
    enabled = {"pw_base_servers", "pw_pack_adv_security"}
    assert held(decide("pck_per_workload", enabled, a("server"), "security.edr")) == {"pw_base_servers"}


def test_rule_7_a_feature_without_its_pack_does_not_block_the_others() -> None:
    enabled = {"pw_base_servers", "pw_pack_adv_management"}
    features = ("backup.image", "management.disk_health", "security.url_filtering", "dlp.data_loss_prevention")
    decision = decide("pck_per_workload", enabled, a("server"), *features)
    assert held(decision) == {"pw_base_servers", "pw_pack_adv_management"}
    assert decision.uncovered_features == ("dlp.data_loss_prevention", "security.url_filtering")
    assert reasons(decision) == [
        ("offering_item_not_enabled", "pw_pack_adv_dlp", "dlp.data_loss_prevention"),
        ("offering_item_not_enabled", "pw_pack_adv_security", "security.url_filtering"),
    ]


@pytest.mark.parametrize("item", ["pw_base_dr_compute_points", "pw_base_adv_dr_compute_points"])
def test_section_5_4_failover_is_covered_while_compute_points_are_enabled_and_no_unit_is_taken(item: str) -> None:
    decision = decide("pck_per_workload", {"pw_base_vms", item}, a("vm"), "disaster_recovery.failover")
    assert held(decision) == {"pw_base_vms"}
    assert decision.uncovered_features == ()


def test_section_5_4_failover_without_compute_points_is_uncovered() -> None:
    enabled = {"pw_base_vms", "pw_base_dr_base", "pw_base_dr_storage"}
    decision = decide("pck_per_workload", enabled, a("vm"), "disaster_recovery.failover")
    assert reasons(decision) == [
        ("offering_item_not_enabled", "pw_base_dr_compute_points", "disaster_recovery.failover")
    ]


# Base fallbacks (rule 3)

FALLBACKS = [
    (a("vm", os="desktop"), (), ["pw_base_vms", "pw_base_workstations"]),
    (a("vm", os="server"), (), ["pw_base_vms"]),
    (a("vm"), (), ["pw_base_vms"]),
    (a("web_hosting_server", virtual=True), (), ["pw_base_web_hosting_servers", "pw_base_vms"]),
    (a("web_hosting_server", virtual=False), (), ["pw_base_web_hosting_servers", "pw_base_servers"]),
    (a("workstation"), ("backup.application_cluster",), ["pw_base_workstations", "pw_base_servers"]),
    (a("workstation"), ("backup.oracle",), ["pw_base_workstations"]),
    (a("server", os="desktop", virtual=True), ("backup.application_cluster",), ["pw_base_servers"]),
]


@pytest.mark.parametrize(("workload", "features", "bases"), FALLBACKS)
def test_rule_3_base_fallbacks_are_tried_in_order(
    workload: assignment.WorkloadFacts, features: tuple[str, ...], bases: list[str]
) -> None:
    decision = decide("pck_per_workload", everything_of("pck_per_workload"), workload, "backup.files", *features)
    assert items(decision) == bases


@pytest.mark.parametrize(("workload", "features", "bases"), FALLBACKS)
def test_rule_3_where_the_first_base_is_not_enabled_the_fallback_is_taken_and_nothing_denied(
    workload: assignment.WorkloadFacts, features: tuple[str, ...], bases: list[str]
) -> None:
    enabled = everything_of("pck_per_workload", without=(bases[0],))
    decision = decide("pck_per_workload", enabled, workload, "backup.files", *features)
    assert items(decision) == bases[1:]
    expected = [] if bases[1:] else [("offering_item_not_enabled", bases[0], None)]
    assert reasons(decision) == expected


def test_rule_3_where_no_base_is_enabled_the_first_is_named_once() -> None:
    enabled = everything_of("pck_per_workload", without=("pw_base_vms", "pw_base_workstations"))
    decision = decide("pck_per_workload", enabled, a("vm", os="desktop"), "backup.image", "security.url_filtering")
    assert decision.candidates == ()
    assert reasons(decision) == [("offering_item_not_enabled", "pw_base_vms", None)]


def test_contracts_uncovered_features_are_only_those_that_no_enabled_item_covers() -> None:
    enabled = everything_of("pck_per_workload", without=("pw_base_servers",))
    decision = decide("pck_per_workload", enabled, a("server"), "backup.image", "security.url_filtering")
    assert decision.uncovered_features == ("backup.image",)


def test_rule_3_a_pack_goes_by_the_type_of_the_base_item_that_is_held() -> None:
    enabled = everything_of("pck_per_workload")
    decision = decide("pck_per_workload", enabled, a("vm", os="desktop"), "backup.oracle", "security.url_filtering")
    assert [candidate.packs for candidate in decision.candidates] == [
        ("pw_pack_adv_backup_vms", "pw_pack_adv_security"),
        ("pw_pack_adv_backup_workstations", "pw_pack_adv_security"),
    ]


def test_rule_3_a_pack_of_the_workloads_own_type_does_not_help_beside_another_base() -> None:
    enabled = {"pw_base_servers", "pw_pack_adv_backup_workstations"}
    decision = decide("pck_per_workload", enabled, a("workstation"), "backup.application_cluster")
    assert held(decision) == {"pw_base_servers"}
    assert reasons(decision) == [
        ("offering_item_not_enabled", "pw_pack_adv_backup_servers", "backup.application_cluster")
    ]


def test_rule_3_a_workstation_on_a_server_base_can_still_be_wiped() -> None:
    enabled = {"pw_base_servers", "pw_pack_adv_backup_servers", "pw_pack_adv_security"}
    decision = decide(
        "pck_per_workload", enabled, a("workstation"), "backup.application_cluster", "security.remote_wipe"
    )
    assert held(decision) == enabled
    assert decision.denials == ()


def test_rule_3_fallbacks_belong_to_billing_modes_and_not_to_editions() -> None:
    enabled = everything_of("standard", without=("vms",))
    decision = decide("standard", enabled, a("vm", os="desktop"), "backup.files")
    assert decision.candidates == ()
    assert reasons(decision) == [("offering_item_not_enabled", "vms", None)]


# Editions (rule 2)

SUB_EDITIONS = ["pw_workstations", "pw_p_ess_workstations", "pw_p_workstations", "pw_p_adv_workstations"]
LOWEST = [
    ((), SUB_EDITIONS),
    (("backup.files",), SUB_EDITIONS),
    (("backup.image",), ["pw_workstations", "pw_p_workstations", "pw_p_adv_workstations"]),
    (("security.url_filtering",), SUB_EDITIONS[1:]),
    (("backup.files", "management.disk_health"), SUB_EDITIONS[1:]),
    (("backup.image", "security.url_filtering"), SUB_EDITIONS[2:]),
    (("backup.oracle",), SUB_EDITIONS[3:]),
    (("backup.image", "backup.oracle", "management.disk_health"), SUB_EDITIONS[3:]),
]


@pytest.mark.parametrize(("features", "expected"), LOWEST)
def test_rule_2_the_lowest_sub_edition_that_covers_everything_comes_first_and_the_higher_ones_follow(
    features: tuple[str, ...], expected: list[str]
) -> None:
    decision = decide("per_workload", everything_of("per_workload"), a("workstation"), *features)
    assert items(decision) == expected
    assert all(candidate.packs == () and candidate.uncovered == () for candidate in decision.candidates)


def test_rule_2_essentials_is_passed_over_for_images_although_it_ranks_lower() -> None:
    enabled = {"pw_p_ess_servers", "pw_p_servers"}
    decision = decide("per_workload", enabled, a("server"), "backup.image", "security.url_filtering")
    assert items(decision) == ["pw_p_servers"]


def test_rule_2_where_none_covers_everything_the_one_that_covers_most_is_taken() -> None:
    decision = decide(
        "per_workload", everything_of("per_workload"), a("server"), "backup.image", "backup.oracle", "security.edr"
    )
    assert items(decision) == ["pw_p_adv_servers"]
    assert decision.uncovered_features == ("security.edr",)
    assert reasons(decision) == [("feature_not_available", None, "security.edr")]


def test_rule_2_of_those_that_cover_equally_many_the_lowest_is_taken() -> None:
    features = ("backup.image", "security.url_filtering")
    decision = decide("per_workload", {"pw_servers", "pw_p_ess_servers"}, a("server"), *features)
    assert items(decision) == ["pw_servers", "pw_p_ess_servers"]
    assert [candidate.uncovered for candidate in decision.candidates] == [
        ("security.url_filtering",),
        ("backup.image",),
    ]
    assert decision.uncovered_features == ("security.url_filtering",)


def test_rule_7_an_edition_names_the_item_that_would_cover_everything() -> None:
    decision = decide(
        "per_workload", {"pw_servers"}, a("server"), "backup.image", "security.url_filtering", "security.edr"
    )
    assert held(decision) == {"pw_servers"}
    assert decision.uncovered_features == ("security.edr", "security.url_filtering")
    assert reasons(decision) == [
        ("feature_not_available", None, "security.edr"),
        ("offering_item_not_enabled", "pw_p_servers", "security.url_filtering"),
    ]


def test_rule_7_an_edition_names_the_lowest_item_where_that_is_enough() -> None:
    decision = decide("per_workload", {"pw_servers"}, a("server"), "backup.files", "security.url_filtering")
    assert reasons(decision) == [("offering_item_not_enabled", "pw_p_ess_servers", "security.url_filtering")]


def test_rule_6_where_no_item_for_the_type_is_enabled_the_lowest_that_covers_everything_is_named() -> None:
    decision = decide("per_workload", {"pw_servers"}, a("vm"), "backup.image", "management.disk_health")
    assert decision.candidates == ()
    assert reasons(decision) == [("offering_item_not_enabled", "pw_p_vms", None)]
    assert decision.uncovered_features == ("backup.image", "management.disk_health")


def test_rule_6_where_no_item_for_the_type_is_enabled_what_the_edition_lacks_is_said_too() -> None:
    decision = decide("per_workload", {"pw_servers"}, a("vm"), "backup.files", "dlp.data_loss_prevention")
    assert reasons(decision) == [
        ("offering_item_not_enabled", "pw_vms", None),
        ("feature_not_available", None, "dlp.data_loss_prevention"),
    ]


def test_rule_6_a_type_that_the_edition_does_not_know_has_no_feature_available() -> None:
    decision = decide("per_workload", everything_of("per_workload"), a("nas"), "backup.files")
    assert decision.candidates == ()
    assert reasons(decision) == [("feature_not_available", None, "backup.files")]
    assert decision.uncovered_features == ("backup.files",)


def test_rule_6_a_type_that_the_edition_does_not_know_is_unknown_where_nothing_is_requested() -> None:
    decision = decide("per_workload", everything_of("per_workload"), a("nas"), "backup.image")
    assert decision.candidates == ()
    assert reasons(decision) == [("unknown_workload_type", None, None)]


def test_rule_6_a_type_that_no_item_serves_is_unknown() -> None:
    decision = decide("pck_per_workload", everything_of("pck_per_workload"), a("toaster"), "backup.files")
    assert decision.candidates == ()
    assert reasons(decision) == [("unknown_workload_type", None, None)]
    assert decision.uncovered_features == ()


EDITIONS = [
    ("per_gigabyte", "pg_", "o365_seats", set()),
    ("standard", "", "mailboxes", set()),
    ("advanced", "adv_", "o365_seats", {"backup.oracle"}),
    ("disaster_recovery", "dre_", "o365_seats", {"backup.oracle", "disaster_recovery.failover"}),
    ("cyber_protect_std", "p_", "o365_seats", {"security.url_filtering", "management.disk_health"}),
    (
        "cyber_protect_adv",
        "p_adv_",
        "o365_seats",
        {"backup.oracle", "security.url_filtering", "management.disk_health"},
    ),
    (
        "cyber_protect_dre",
        "p_dre_",
        "o365_seats",
        {"backup.oracle", "security.url_filtering", "management.disk_health", "disaster_recovery.failover"},
    ),
]
PROBES = {"backup.oracle", "security.url_filtering", "management.disk_health", "disaster_recovery.failover"}


@pytest.mark.parametrize(("edition", "prefix", "seats", "contained"), EDITIONS, ids=[row[0] for row in EDITIONS])
def test_section_5_4_an_edition_gives_one_item_and_leaves_out_what_it_does_not_contain(
    edition: str, prefix: str, seats: str, contained: set[str]
) -> None:
    enabled = everything_of(edition)
    machine = decide(edition, enabled, a("server"), "backup.image", *PROBES)
    assert [candidate.items for candidate in machine.candidates] == [(f"{prefix}servers",)]
    assert set(machine.uncovered_features) == PROBES - contained
    assert {code for code, _, _ in reasons(machine)} <= {"feature_not_available"}
    assert items(decide(edition, enabled, a("m365_seat"), "backup.m365")) == [prefix + seats]


_ASK = """
from service import catalog
from service.rules import assignment

built_in = catalog.load()
for mode in ("pck_per_gigabyte", "per_workload"):
    names = [item.name for item in built_in.items_of_edition(mode)]
    for skipped in range(0, len(names), 3):
        enabled = {name for place, name in enumerate(names) if place % 7 != skipped % 7}
        for workload_type in built_in.workload_types:
            facts = assignment.WorkloadFacts(workload_type, os="desktop", virtual=True)
            editions = {built_in.edition(mode).application_id: mode}
            print(assignment.decide(built_in, editions, enabled, facts, set(built_in.features), True))
"""


def test_the_answer_does_not_depend_on_how_a_process_orders_its_sets(repository: Path) -> None:
    answers = {
        subprocess.run(
            [sys.executable, "-c", _ASK],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(repository)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    (answer,) = answers
    assert answer.count(b"Decision(") == answer.count(b"\n") > 100


# What else the enabled items of a tenant say


def test_a_customer_is_on_the_edition_of_its_enabled_items() -> None:
    assert assignment.edition_of(BUILT_IN, {"pw_base_storage"}) == {CYBER_PROTECTION: "pck_per_workload"}
    assert assignment.edition_of(BUILT_IN, {"p_adv_vms", "local_storage"}) == {CYBER_PROTECTION: "cyber_protect_adv"}
    assert assignment.edition_of(BUILT_IN, {"local_storage", "tenant_audit_log"}) == {}


def test_items_of_two_editions_of_one_application_are_a_conflict() -> None:
    mixed = {"pw_base_servers", "pg_base_servers", "vms", "local_storage"}
    assert assignment.edition_conflicts(BUILT_IN, mixed) == {
        CYBER_PROTECTION: ("pck_per_workload", "pck_per_gigabyte", "standard")
    }
    assert assignment.edition_conflicts(BUILT_IN, everything_of("per_workload") | {"local_storage"}) == {}


def test_rule_4_gauges_count_on_the_storage_items_of_the_edition() -> None:
    enabled = {"pw_base_storage", "local_storage", "storage"}
    kinds = ("storage_bytes", "local_storage_bytes", "toast_bytes")
    assert assignment.gauge_items(BUILT_IN, {CYBER_PROTECTION: "pck_per_workload"}, enabled, kinds) == {
        "storage_bytes": "pw_base_storage",
        "local_storage_bytes": "local_storage",
    }
    assert assignment.gauge_items(BUILT_IN, {CYBER_PROTECTION: "pck_per_workload"}, {"storage"}, kinds) == {}
    assert assignment.gauge_items(BUILT_IN, {}, enabled, kinds) == {"local_storage_bytes": "local_storage"}


def test_available_features_are_the_tenant_wide_ones_and_those_of_the_enabled_items_by_type() -> None:
    enabled = {"tenant_audit_log", "pw_base_websites", "pw_pack_adv_email_security", "pw_base_dr_compute_points"}
    tenant_wide, by_type = assignment.available_features(BUILT_IN, enabled)
    assert tenant_wide == ["tenant.audit_log"]
    assert by_type == {
        "website": ["backup.website"],
        "m365_seat": ["email.realtime_protection"],
        "hosted_exchange_mailbox": ["email.realtime_protection"],
        **{machine: ["disaster_recovery.failover"] for machine in MACHINES},
    }


def test_available_features_leave_out_a_pack_whose_requirement_is_not_enabled() -> None:
    alone = assignment.available_features(BUILT_IN, {"pw_pack_adv_security_edr"})
    both = assignment.available_features(BUILT_IN, {"pw_pack_adv_security_edr", "pw_pack_adv_security"})
    assert alone == ([], {})
    assert "security.edr" in both[1]["vm"]
