"""The built-in catalogue against the tables of docs/domain.md, section 5, written down here a second time by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from service import catalog

CYBER_PROTECTION = "6e6d758d-8e74-3ae3-ac84-50eb0dff12eb"
FILE_SYNC_AND_SHARE = "dfd85a5f-a464-32ab-81fd-99bcc66a070f"
MODES = {"pck_per_workload": "pw_", "pck_per_gigabyte": "pg_"}
LEGACY = {
    "standard": "",
    "advanced": "adv_",
    "disaster_recovery": "dre_",
    "cyber_protect_std": "p_",
    "cyber_protect_adv": "p_adv_",
    "cyber_protect_dre": "p_dre_",
}
MACHINES = {"workstation", "server", "vm", "web_hosting_server"}

# Name after the edition's prefix, usage name, workload type.
BASES = [
    ("base_workstations", "workstations", "workstation"),
    ("base_servers", "servers", "server"),
    ("base_vms", "vms", "vm"),
    ("base_mobiles", "mobiles", "mobile"),
    ("base_web_hosting_servers", "web_hosting_servers", "web_hosting_server"),
    ("base_websites", "websites", "website"),
    ("base_nas", "nas", "nas"),
    ("base_hosted_exchange", "hosted_exchange", "hosted_exchange_mailbox"),
    ("base_m365_seats", "mailboxes", "m365_seat"),
    ("base_m365_sharepoint_sites", "o365_sharepoint_sites", "m365_sharepoint_site"),
    ("base_m365_teams", "o365_teams", "m365_team"),
    ("base_gworkspace_seats", "gsuite_seats", "gworkspace_seat"),
]
PACKS = [
    ("pack_adv_backup_workstations", "pack_adv_backup_workstations", {"workstation"}),
    ("pack_adv_backup_servers", "pack_adv_backup_servers", {"server"}),
    ("pack_adv_backup_vms", "pack_adv_backup_vms", {"vm"}),
    ("pack_adv_backup_web_hosting_servers", "pack_adv_backup_web_hosting_servers", {"web_hosting_server"}),
    ("pack_adv_backup_m365_seats", "pack_adv_backup_m365_seats", {"m365_seat"}),
    ("pack_adv_management", "pack_adv_management", MACHINES),
    ("pack_adv_security", "pack_adv_security", MACHINES),
    ("pack_adv_security_m365_seats", "pack_adv_security_m365_seats", {"m365_seat"}),
    ("pack_adv_security_edr", "pack_adv_security_edr", MACHINES),
    ("pack_adv_email_security", "pack_adv_email_security_mailboxes", {"m365_seat", "hosted_exchange_mailbox"}),
    ("pack_adv_dlp", "pack_adv_dlp", MACHINES),
]
DISASTER_RECOVERY = [
    ("base_dr_base", "dr_base", "feature", "n/a"),
    ("base_dr_storage", "dr_storage", "infra", "bytes"),
    ("base_dr_compute_points", "dr_compute_points", "infra", "seconds"),
    ("base_dr_cloud_servers", "dr_cloud_servers", "infra", "quantity"),
    ("base_dr_internet_access", "dr_internet_access", "feature", "n/a"),
    ("base_adv_dr_storage", "adv_dr_storage", "infra", "bytes"),
    ("base_adv_dr_compute_points", "adv_dr_compute_points", "infra", "seconds"),
    ("base_adv_dr_cloud_servers", "adv_dr_cloud_servers", "infra", "quantity"),
    ("base_adv_dr_internet_access", "adv_dr_internet_access", "feature", "n/a"),
]
# What the editions call their items, without the prefix.
EDITION_ITEMS = {
    "workstations": ("workstations", "workstation"),
    "servers": ("servers", "server"),
    "vms": ("vms", "vm"),
    "mobiles": ("mobiles", "mobile"),
    "web_hosting_servers": ("web_hosting_servers", "web_hosting_server"),
    "websites": ("websites", "website"),
    "hosted_exchange": ("hosted_exchange", "hosted_exchange_mailbox"),
    "o365_seats": ("mailboxes", "m365_seat"),
    "o365_sharepoint_sites": ("o365_sharepoint_sites", "m365_sharepoint_site"),
    "o365_teams": ("o365_teams", "m365_team"),
    "gsuite_seats": ("gsuite_seats", "gworkspace_seat"),
}
SUB_EDITION_ITEMS = {
    "pw_": list(EDITION_ITEMS),
    "pw_p_ess_": ["workstations", "servers", "vms"],
    "pw_p_": ["workstations", "servers", "vms", "web_hosting_servers", "hosted_exchange"],
    "pw_p_adv_": ["workstations", "servers", "vms", "web_hosting_servers"],
}

M365 = {"m365_seat", "m365_sharepoint_site", "m365_team"}
APPLIES_TO = {
    "backup.files": MACHINES | {"mobile", "nas"},
    "backup.image": MACHINES,
    "backup.m365": M365 | {"hosted_exchange_mailbox"},
    "backup.gworkspace": {"gworkspace_seat"},
    "backup.website": {"website"},
    "security.active_protection": MACHINES,
    "security.antimalware_on_demand": MACHINES,
    "security.defender_management": MACHINES,
    "security.device_control": MACHINES,
    "management.vulnerability_assessment": MACHINES,
    "management.hardware_inventory": MACHINES,
    "management.remote_desktop": MACHINES,
    "management.patch_management": MACHINES,
    "management.software_inventory": MACHINES,
    "management.cyber_scripting": MACHINES,
    "management.disk_health": MACHINES,
    "management.monitoring_alerts": MACHINES,
    "security.url_filtering": MACHINES,
    "security.antimalware_realtime": MACHINES,
    "security.exploit_prevention": MACHINES,
    "security.remote_wipe": {"workstation"},
    "security.edr": MACHINES,
    "security.m365_mailbox_malware_scan": {"m365_seat"},
    "email.realtime_protection": {"m365_seat", "hosted_exchange_mailbox"},
    "backup.continuous_data_protection": MACHINES,
    "backup.application_cluster": {"workstation", "server", "vm"},
    "backup.data_protection_map": MACHINES,
    "backup.sap_hana": {"workstation", "server", "vm"},
    "backup.oracle": {"workstation", "server", "vm"},
    "dlp.data_loss_prevention": MACHINES,
    "disaster_recovery.failover": MACHINES,
    "tenant.user_role_management": set(),
    "tenant.ad_autodiscovery": set(),
    "tenant.audit_log": set(),
}

# A feature of each column of section 5.4, by which the column can be told from the others.
COLUMNS = {
    "base": "backup.files",
    "Adv. Backup": "backup.oracle",
    "Adv. Security": "security.url_filtering",
    "Adv. Management": "management.patch_management",
    "DR": "disaster_recovery.failover",
}
CONTAINED = {
    ("standard", ""): {"base"},
    ("per_gigabyte", "pg_"): {"base"},
    ("per_workload", "pw_"): {"base"},
    ("per_workload", "pw_p_ess_"): {"base", "Adv. Security", "Adv. Management"},
    ("per_workload", "pw_p_"): {"base", "Adv. Security", "Adv. Management"},
    ("cyber_protect_std", "p_"): {"base", "Adv. Security", "Adv. Management"},
    ("per_workload", "pw_p_adv_"): {"base", "Adv. Backup", "Adv. Security", "Adv. Management"},
    ("cyber_protect_adv", "p_adv_"): {"base", "Adv. Backup", "Adv. Security", "Adv. Management"},
    ("advanced", "adv_"): {"base", "Adv. Backup"},
    ("disaster_recovery", "dre_"): {"base", "Adv. Backup", "DR"},
    ("cyber_protect_dre", "p_dre_"): {"base", "Adv. Backup", "Adv. Security", "Adv. Management", "DR"},
}


@pytest.fixture(scope="module")
def built_in() -> catalog.Catalog:
    return catalog.load()


def expected_names() -> dict[str, str | None]:
    """Every item of section 5 with its edition."""
    names: dict[str, str | None] = {"local_storage": None}
    names |= dict.fromkeys(["tenant_user_role_management", "tenant_ad_autodiscovery", "tenant_audit_log"])
    for mode, prefix in MODES.items():
        rows = [name for name, *_ in (*BASES, *PACKS, *DISASTER_RECOVERY)]
        names |= {prefix + name: mode for name in [*rows, "base_storage"]}
    for prefix, suffixes in SUB_EDITION_ITEMS.items():
        names |= {prefix + suffix: "per_workload" for suffix in suffixes}
    names |= {"pw_storage": "per_workload"}
    names |= {"pg_" + suffix: "per_gigabyte" for suffix in [*EDITION_ITEMS, "storage"]}
    for edition, prefix in LEGACY.items():
        suffixes = [*EDITION_ITEMS, "storage"]
        if edition == "standard":
            suffixes[suffixes.index("o365_seats")] = "mailboxes"
        names |= {prefix + suffix: edition for suffix in suffixes}
    return names


def test_the_catalogue_has_exactly_the_items_of_the_domain(built_in: catalog.Catalog) -> None:
    assert {item.name: item.edition for item in built_in.items.values()} == expected_names()
    assert len(built_in.items) == 178


def test_the_applications_are_those_of_the_platform(built_in: catalog.Catalog) -> None:
    assert built_in.applications[CYBER_PROTECTION].type == "backup"
    assert built_in.applications[FILE_SYNC_AND_SHARE].name == "File Sync & Share"
    assert [entry.type for entry in built_in.applications.values()].count("platform") == 1
    assert {item.application_id for item in built_in.items.values()} == {CYBER_PROTECTION}


def test_the_editions_and_modes_are_those_of_the_platform(built_in: catalog.Catalog) -> None:
    modes = {edition.name for edition in built_in.editions.values() if edition.kind == "billing_mode"}
    legacy = {edition.name for edition in built_in.editions.values() if edition.legacy}
    assert set(built_in.editions) == {*MODES, *LEGACY, "per_workload", "per_gigabyte"}
    assert modes == set(MODES)
    assert legacy == set(LEGACY)


def test_the_sub_editions_stand_in_their_order(built_in: catalog.Catalog) -> None:
    assert built_in.edition("per_workload").prefixes == ("pw_", "pw_p_ess_", "pw_p_", "pw_p_adv_")
    ranked = [item.name for item in built_in.holdable("per_workload", "server")]
    assert ranked == ["pw_servers", "pw_p_ess_servers", "pw_p_servers", "pw_p_adv_servers"]


@pytest.mark.parametrize(("mode", "prefix"), MODES.items())
@pytest.mark.parametrize(("name", "usage_name", "workload_type"), BASES)
def test_a_base_item_is_as_in_section_5_2(
    built_in: catalog.Catalog, mode: str, prefix: str, name: str, usage_name: str, workload_type: str
) -> None:
    item = built_in.item(prefix + name)
    assert (item.usage_name, item.type, item.unit) == (usage_name, "count", "quantity")
    assert built_in.holdable(mode, workload_type) == (item,)


@pytest.mark.parametrize("prefix", MODES.values())
@pytest.mark.parametrize(("name", "usage_name", "workload_types"), PACKS)
def test_a_pack_is_as_in_section_5_2(
    built_in: catalog.Catalog, prefix: str, name: str, usage_name: str, workload_types: set[str]
) -> None:
    item = built_in.item(prefix + name)
    assert (item.usage_name, item.type, item.unit) == (usage_name, "count", "quantity")
    assert item.role is catalog.Role.PACK
    assert item.serves == workload_types


@pytest.mark.parametrize("prefix", MODES.values())
@pytest.mark.parametrize(("name", "usage_name", "item_type", "unit"), DISASTER_RECOVERY)
def test_a_disaster_recovery_item_is_as_in_section_5_4(
    built_in: catalog.Catalog, prefix: str, name: str, usage_name: str, item_type: str, unit: str
) -> None:
    item = built_in.item(prefix + name)
    assert (item.usage_name, item.type, item.unit) == (usage_name, item_type, unit)
    assert item.role not in (catalog.Role.BASE, catalog.Role.PACK)
    assert item.infra_id is not None


@pytest.mark.parametrize(
    ("edition", "prefix"), [("per_workload", "pw_"), ("per_gigabyte", "pg_"), *LEGACY.items()], ids=lambda value: value
)
def test_an_edition_item_has_the_usage_name_of_the_table(built_in: catalog.Catalog, edition: str, prefix: str) -> None:
    for suffix, (usage_name, workload_type) in EDITION_ITEMS.items():
        name = "mailboxes" if (edition, suffix) == ("standard", "o365_seats") else prefix + suffix
        item = built_in.item(name)
        assert (item.usage_name, item.type, item.unit) == (usage_name, "count", "quantity")
        assert (item.edition, item.serves) == (edition, {workload_type})


def test_storage_items_count_bytes_and_are_bound_to_infrastructure(built_in: catalog.Catalog) -> None:
    gauges = built_in.gauges("storage_bytes")
    assert {item.edition for item in gauges} == set(built_in.editions)
    assert {(item.usage_name, item.type, item.unit) for item in gauges} == {("storage", "infra", "bytes")}
    (infrastructure,) = built_in.infrastructures.values()
    assert {item.infra_id for item in gauges} == {infrastructure.id}


def test_local_storage_belongs_to_no_edition(built_in: catalog.Catalog) -> None:
    item = built_in.item("local_storage")
    assert (item.edition, item.type, item.unit) == (None, "count", "bytes")
    assert built_in.gauges("local_storage_bytes") == (item,)


def test_every_infra_item_and_every_disaster_recovery_feature_names_its_infrastructure(
    built_in: catalog.Catalog,
) -> None:
    for item in built_in.items.values():
        bound = item.type == "infra" or (item.type == "feature" and "dr_" in item.usage_name)
        assert (item.infra_id is not None) == bound, item.name


def test_tenant_wide_features_are_items_without_quota(built_in: catalog.Catalog) -> None:
    for name in ("user_role_management", "ad_autodiscovery", "audit_log"):
        item = built_in.item(f"tenant_{name}")
        assert (item.edition, item.type, item.unit, item.features) == (None, "feature", "n/a", {f"tenant.{name}"})


def test_every_feature_applies_to_the_workload_types_of_section_5_3(built_in: catalog.Catalog) -> None:
    assert {feature.id: set(feature.applies_to) for feature in built_in.features.values()} == APPLIES_TO


@pytest.mark.parametrize("feature", ["security.defender_management", "management.patch_management"])
def test_windows_features_apply_where_the_family_is_windows_or_not_said(
    built_in: catalog.Catalog, feature: str
) -> None:
    families = (None, "windows", "linux", "macos", "other")
    assert [built_in.applies(feature, "server", family) for family in families] == [True, True, False, False, False]


def test_no_other_feature_asks_for_an_operating_system(built_in: catalog.Catalog) -> None:
    restricted = {feature.id for feature in built_in.features.values() if feature.os_families}
    assert restricted == {"security.defender_management", "management.patch_management"}


@pytest.mark.parametrize(("place", "columns"), CONTAINED.items(), ids=lambda value: "-".join(value))
def test_a_sub_edition_contains_what_section_5_4_says(
    built_in: catalog.Catalog, place: tuple[str, str], columns: set[str]
) -> None:
    edition, prefix = place
    for workload_type, name in (("workstation", "workstations"), ("server", "servers"), ("vm", "vms")):
        item = built_in.item(prefix + name)
        carried = built_in.features_of(item.name, workload_type)
        assert item.edition == edition
        assert {column for column, feature in COLUMNS.items() if feature in carried} == columns


def test_essentials_lacks_backup_of_images_and_no_other_base_does(built_in: catalog.Catalog) -> None:
    lacking = {
        item.name
        for item in built_in.items.values()
        if item.role in (catalog.Role.BASE, catalog.Role.EDITION)
        and item.serves & MACHINES
        and "backup.image" not in item.features
    }
    assert lacking == {"pw_p_ess_workstations", "pw_p_ess_servers", "pw_p_ess_vms"}


def test_no_edition_contains_edr_email_security_or_data_loss_prevention(built_in: catalog.Catalog) -> None:
    packs_only = {"security.edr", "email.realtime_protection", "dlp.data_loss_prevention"}
    for item in built_in.items.values():
        if item.role is catalog.Role.EDITION:
            assert not item.features & packs_only, item.name


def test_advanced_security_of_an_edition_scans_mailboxes(built_in: catalog.Catalog) -> None:
    assert "security.m365_mailbox_malware_scan" in built_in.item("p_o365_seats").features
    assert "security.m365_mailbox_malware_scan" not in built_in.item("adv_o365_seats").features


@pytest.mark.parametrize("prefix", MODES.values())
def test_edr_brings_advanced_security_with_it(built_in: catalog.Catalog, prefix: str) -> None:
    assert built_in.requirements(f"{prefix}pack_adv_security_edr") == (f"{prefix}pack_adv_security",)


def test_the_billing_modes_mirror_each_other(built_in: catalog.Catalog) -> None:
    def shape(mode: str) -> list[tuple[object, ...]]:
        return [
            (item.suffix, item.role, item.usage_name, item.type, item.unit, item.serves, item.features, item.gauge)
            for item in built_in.items_of_edition(mode)
        ]

    assert shape("pck_per_workload") == shape("pck_per_gigabyte")
    assert built_in.edition("pck_per_workload").base_fallbacks == built_in.edition("pck_per_gigabyte").base_fallbacks


def test_lookups_of_what_does_not_exist_say_so(built_in: catalog.Catalog) -> None:
    assert built_in.find_item("pw_base_toasters") is None
    assert built_in.find_edition("pck_per_toaster") is None
    assert not built_in.is_served("toaster")
    assert not built_in.applies("toast.brown", "workstation")
    with pytest.raises(KeyError):
        built_in.item("pw_base_toasters")


def test_another_file_can_take_the_place_of_the_built_in_one(cyberapps_file: Path) -> None:
    other = catalog.load(cyberapps_file)
    assert other.version == "cyberapps-1"
    assert [item.name for item in other.addons("camera")] == ["watchtower_sensor"]
    assert other.edition("tally_monthly").application_id == "tally"
    assert other.find_item("pw_base_workstations") is None


def test_no_code_knows_an_entry_of_the_catalogue_by_name(built_in: catalog.Catalog) -> None:
    package = Path(catalog.__file__).parent
    rules = package.parent / "rules"
    names = {*built_in.items, *built_in.features, *built_in.workload_types, *built_in.editions} - {
        "standard",  # an ordinary word as well as the name of an edition
        "advanced",
        "storage",
    }
    for module in [*package.glob("*.py"), rules / "assignment.py"]:
        text = module.read_text()
        assert not {name for name in names if f'"{name}"' in text or f"'{name}'" in text}, module.name


@pytest.fixture
def cyberapps_file() -> Path:
    return Path(__file__).parent.parent / "data" / "catalog_with_cyberapps.json"
