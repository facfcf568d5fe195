"""A catalogue that is wrong is refused with every reason; each fault below is made in an otherwise sound file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service import catalog

SOUND = json.loads((Path(__file__).parent.parent / "data" / "catalog_with_cyberapps.json").read_text())
Change = Callable[[dict[str, Any]], object]


def findings_of(*changes: Change) -> tuple[str, ...]:
    document = json.loads(json.dumps(SOUND))
    for change in changes:
        change(document)
    with pytest.raises(catalog.CatalogError) as refusal:
        catalog.parse(json.dumps(document).encode())
    return refusal.value.findings


def item(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(entry for entry in document["items"] if entry["name"] == name)
    return found


def edition(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(entry for entry in document["editions"] if entry["name"] == name)
    return found


def set_item(name: str, /, **fields: object) -> Change:
    return lambda document: item(document, name).update(fields)


def set_edition(name: str, /, **fields: object) -> Change:
    return lambda document: edition(document, name).update(fields)


def add(section: str, /, **entry: object) -> Change:
    return lambda document: document[section].append(entry)


FAULTS: dict[str, tuple[Change, str]] = {
    "an item twice": (lambda d: d["items"].append(item(d, "hd_red")), "item hd_red: named 2 times"),
    "an edition twice": (
        lambda d: d["editions"].append(edition(d, "harbour_daily")),
        "edition harbour_daily: named 2 times",
    ),
    "a feature twice": (lambda d: d["features"].append(d["features"][0]), "feature harbour.copy: named 2 times"),
    "a type named like a group": (add("workload_types", name="machine"), "workload type machine: named 2 times"),
    "a name out of bounds": (set_item("hd_red", name="hd_" + "x" * 62), "not 1 to 64 of A-Z a-z 0-9 . _ : -"),
    "a usage name out of bounds": (set_item("hd_red", usage_name="réd"), "usage name 'réd' is not 1 to 64"),
    "an unknown edition": (set_item("hd_red", edition="harbour_weekly"), "edition harbour_weekly does not exist"),
    "an unknown application of an item": (
        set_item("watchtower_sensor", application="nobody"),
        "item watchtower_sensor: application nobody does not exist",
    ),
    "an unknown application of an edition": (
        set_edition("tally_monthly", application="nobody"),
        "edition tally_monthly: application nobody does not exist",
    ),
    "an unknown workload type of an item": (
        set_item("hd_red", serves=["toaster"]),
        "item hd_red: workload type toaster does not exist",
    ),
    "an unknown workload type of a feature": (
        lambda d: d["features"][0].update(applies_to=["toaster"]),
        "feature harbour.copy: workload type toaster does not exist",
    ),
    "an unknown feature group": (set_item("hd_red", carries=["reed"]), "feature group reed does not exist"),
    "an unknown feature in a group": (
        lambda d: d["feature_groups"].update(red=["harbour.reed"]),
        "feature group red: feature harbour.reed does not exist",
    ),
    "an unknown requirement": (set_item("hd_spectrum", requires=["hd_reed"]), "item hd_reed does not exist"),
    "an unknown infrastructure": (
        set_item("hd_storage", infrastructure="barn"),
        "infrastructure barn does not exist",
    ),
    "a fallback to an unknown type": (
        set_edition("harbour_daily", base_fallbacks=[{"for": "server", "take": "toaster"}]),
        "edition harbour_daily: workload type toaster does not exist",
    ),
    "a tenant-wide feature that applies to a type": (
        lambda d: d["features"][-1].update(applies_to=["camera"]),
        "a workload feature applies to some type, a tenant-wide one to none",
    ),
    "an item without edition and application": (
        set_item("watchtower_sensor", application=None),
        "names either its edition or, having none, its application",
    ),
    "an edition without sub-editions": (
        set_edition("harbour_classic", sub_editions=[]),
        "an edition has sub-editions",
    ),
    "a billing mode without prefixes": (
        set_edition("tally_monthly", prefixes=[]),
        "a billing mode has prefixes and no sub-editions",
    ),
    "an edition item that says what it carries": (
        set_item("hc_low_workstations", carries=["copy"]),
        "its sub-edition says what it carries",
    ),
    "a prefix of two editions": (set_edition("tally_monthly", prefixes=["hd_"]), "prefix 'hd_': used 2 times"),
    "a name with another edition's prefix": (
        set_item("hd_red_green", name="tm_base_red_green"),
        "item tm_base_red_green: begins with tm_base_, the prefix of another edition",
    ),
    "a name with no prefix of its edition": (
        set_item("hd_red_green", name="red_green"),
        "item red_green: begins with no prefix of harbour_daily",
    ),
    "an item without edition that looks like one of an edition": (
        set_item("watchtower_sensor", name="hd_sensor"),
        "item hd_sensor: begins with hd_, the prefix of another edition",
    ),
    "a base item in an edition": (
        set_item("hc_low_workstations", role="base", carries=["copy"]),
        "item hc_low_workstations: role base belongs to a billing mode",
    ),
    "an edition item in a billing mode": (
        set_item("hd_servers", role="edition", carries=[]),
        "item hd_servers: an edition item belongs to an edition",
    ),
    "an add-on of an edition": (set_item("hd_red_green", role="addon"), "role addon belongs to no edition"),
    "a pack that serves nothing": (set_item("tm_pack_audit", serves=[]), "tm_pack_audit: serves no workload type"),
    "a gauge that serves a type": (
        set_item("hd_storage", serves=["server"]),
        "item hd_storage: role gauge serves no workload type",
    ),
    "a gauge that does not say what it counts": (
        set_item("hd_storage", gauge=None),
        "a gauge, and nothing else, says what it counts",
    ),
    "a gauge counted twice": (
        lambda d: d["items"].append(item(d, "hd_storage") | {"name": "hd_storage_again"}),
        "gauge storage_bytes of harbour_daily: counted by 2 items",
    ),
    "a unit that the type does not have": (
        set_item("watchtower_console", unit="bytes"),
        "item watchtower_console: type feature is not counted in bytes",
    ),
    "a held item that is no count": (
        set_item("hd_red", unit="bytes"),
        "item hd_red: what a workload holds is a count in quantity",
    ),
    "a gauge of something else than bytes": (set_item("hd_storage", unit="seconds"), "a gauge counts bytes"),
    "a tenant feature with a quantity": (
        set_item("watchtower_console", type="count", unit="quantity"),
        "a tenant feature is of type feature",
    ),
    "an infra item without infrastructure": (
        set_item("hd_storage", infrastructure=None),
        "an infra item names its infrastructure",
    ),
    "a requirement of something that is no pack": (
        set_item("hd_spectrum", requires=["hd_servers"]),
        "requires hd_servers, which is no pack of harbour_daily",
    ),
    "a requirement that serves fewer types": (
        set_item("hd_red", requires=["hd_spectrum"]),
        "requires hd_spectrum, which does not serve every type that it serves itself",
    ),
    "requirements in a circle": (
        lambda d: (
            set_item("hd_red", requires=["hd_red_green"])(d),
            set_item("hd_red_green", requires=["hd_red"])(d),
        ),
        "item hd_red: requires itself",
    ),
    "a requirement of a base item": (set_item("hd_servers", requires=["hd_red"]), "only packs require others"),
    "a feature of another application": (
        set_item("watchtower_sensor", carries=["red"]),
        "item watchtower_sensor: carries harbour.red, a feature of another application",
    ),
    "a tenant-wide feature in a pack": (
        set_item("watchtower_sensor", carries=["anomalies", "console"]),
        "item watchtower_sensor: carries watchtower.console, which is not a workload feature",
    ),
    "a pack that carries nothing": (set_item("tm_pack_audit", carries=[]), "item tm_pack_audit: carries no feature"),
    "a declaration of nothing that is wrong": (
        set_item("tm_pack_audit", carries_nothing=True),
        "item tm_pack_audit: is declared to carry nothing, but carries features",
    ),
    "a feature that nobody carries": (
        lambda d: d.update(absent_features=[]),
        "feature harbour.promised: no item carries it, and it is not declared absent",
    ),
    "a feature that is declared absent and is not": (
        lambda d: d.update(absent_features=["harbour.promised", "harbour.red"]),
        "feature harbour.red: is declared absent, but an item carries it",
    ),
    "a mode without a base": (
        lambda d: d.update(items=[entry for entry in d["items"] if entry["name"] != "tm_base_devices"]),
        "edition tally_monthly: has no base item",
    ),
    "a sub-edition without an item": (
        lambda d: d.update(items=[entry for entry in d["items"] if entry["name"] != "hc_high_workstations"]),
        "edition harbour_classic: sub-edition high has no item",
    ),
    "a workload type that nothing serves": (
        add("workload_types", name="toaster"),
        "workload type toaster: no item serves it",
    ),
    "fallbacks in a circle": (
        lambda d: edition(d, "harbour_daily")["base_fallbacks"].append({"for": "server", "take": "workstation"}),
        "edition harbour_daily: the base fallbacks of server lead back to it",
    ),
    "a fallback to a type without a base": (
        set_edition("harbour_daily", base_fallbacks=[{"for": "server", "take": "camera"}]),
        "edition harbour_daily: a base fallback names camera, which no base item serves",
    ),
    "a misspelt field": (set_item("hd_red", requries=["hd_green_blue"]), "unknown field `requries`"),
    "a role that does not exist": (set_item("hd_red", role="bundle"), "Invalid enum value 'bundle'"),
    "a unit that does not exist": (set_item("hd_red", unit="pounds"), "Invalid enum value 'pounds'"),
    "a missing section": (lambda d: d.pop("editions"), "editions: missing"),
    "a section that does not exist": (lambda d: d.update(edtions=[]), "edtions: no such section"),
    "a format of the future": (lambda d: d.update(format=2), "format: expected 1, found 2"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_catalogue_is_refused_for(fault: str) -> None:
    change, expected = FAULTS[fault]
    assert any(expected in finding for finding in findings_of(change)), findings_of(change)


def test_a_refusal_names_every_fault_at_once() -> None:
    findings = findings_of(
        set_item("tm_pack_audit", carries=[]),
        set_item("hd_storage", unit="seconds"),
        set_edition("tally_monthly", prefixes=["tm_base_"]),
    )
    for expected in ("carries no feature", "a gauge counts bytes", "begins with no prefix of tally_monthly"):
        assert any(expected in finding for finding in findings), findings


def test_every_entry_of_a_wrong_shape_is_named_with_its_place() -> None:
    findings = findings_of(set_item("hd_red", unit="pounds"), set_item("hd_servers", serves="server"))
    assert [finding.split(":")[0] for finding in findings] == ["items[1]", "items[2]"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b'{"format": 1}'])
def test_a_file_that_is_no_catalogue_is_refused(content: bytes) -> None:
    with pytest.raises(catalog.CatalogError):
        catalog.parse(content)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(catalog.CatalogError, match=r"nowhere\.json: 1 finding\(s\): cannot be read"):
        catalog.load(tmp_path / "nowhere.json")
