"""Switches from outside, one customer and thirty: the commands, and what billing hears (docs/contracts.md 4)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.outside import Outside

EDITION, BASE, MANAGEMENT = "p_adv_workstations", "pw_base_workstations", "pw_pack_adv_management"
PACKS = (
    MANAGEMENT,
    "pw_pack_adv_security",
    *(f"pw_pack_adv_backup_{name}" for name in ("workstations", "servers", "vms")),
)
CUSTOMERS = [f"small-{number:02d}" for number in range(30)]
ROOM = 28  # of the thirty customers below the MSP
TARGET = "pck_per_workload"


@pytest.fixture(scope="module")
def fleet(outside: Outside) -> Outside:
    """A distributor, two MSPs; one customer with three workstations, and thirty with one each."""
    items = [{"name": name, "status": 1} for name in (EDITION, BASE, *PACKS)]
    for tenant, parent in (("dist", "root"), ("msp", "dist"), ("mass-msp", "dist")):
        upsert(outside, tenant, parent, "partner")
        outside.send("tenant-changes", "offering_items.set", tenant, {"items": items})
    room = {"name": BASE, "status": 1, "quota": {"value": ROOM, "overage": 0}}
    outside.send("tenant-changes", "offering_items.set", "mass-msp", {"items": [room]})
    for tenant, parent in (("cust", "msp"), *((name, "mass-msp") for name in CUSTOMERS)):
        upsert(outside, tenant, parent, "customer")
        item = {"name": EDITION, "status": 1, "quota": {"value": 5}}
        outside.send("tenant-changes", "offering_items.set", tenant, {"items": [item]})
    outside.settle()
    for tenant, count in (("cust", 3), *((name, 1) for name in CUSTOMERS)):
        protect(outside, tenant, count)
    outside.settle()
    return outside


def upsert(outside: Outside, tenant: str, parent: str, kind: str) -> None:
    outside.send("tenant-changes", "tenant.upserted", tenant, {"parent_id": parent, "kind": kind, "name": tenant})


def protect(outside: Outside, tenant: str, count: int) -> None:
    """Workstations of which the first wants patch management."""
    for number in range(count):
        name, features = (
            f"{tenant}-{number}",
            ["backup.files", *(["management.patch_management"] if not number else [])],
        )
        outside.send("workload-events", "workload.registered", tenant, {"workload_id": name, "type": "workstation"})
        plan = {"plan_id": f"plan-{number}", "features": features}
        outside.send("plan-changes", "plan.saved", tenant, plan)
        applied = {"plan_id": f"plan-{number}", "workload_ids": [name]}
        outside.send("plan-changes", "plan.applied", tenant, applied)


def used(outside: Outside, tenant: str) -> dict[str, int]:
    return {row["offering_item"]: row["used"] for row in outside.json("usage", tenant)["items"] if row["used"]}


def test_one_customer_is_looked_at_switched_found_and_led_back(fleet: Outside) -> None:
    preview = fleet.json("switch", "preview", "cust", "--to", TARGET)
    keys = {"tenant_id", "from_edition", "to_edition", "plan_hash", "items", "workloads", "features_lost", "warnings"}
    assert keys | {"denials"} <= preview.keys()
    assert preview["workloads"] == {"total": 3, "changed": 3, "losing_features": 0, "denied": 0}
    rows = {row["offering_item"]: row for row in preview["items"]}
    assert (rows[BASE]["used_before"], rows[BASE]["used_after"], rows[MANAGEMENT]["used_after"]) == (0, 3, 1)
    assert rows[BASE]["quota_after"] == {"value": 5, "overage": None}
    text = fleet.run("switch", "preview", "cust", "--to", TARGET).stdout
    assert "3 → 0" in text and "5 (soft) → off" in text and preview["plan_hash"] in text
    assert used(fleet, "cust") == {EDITION: 3}

    arguments = ("switch", "run", "cust", "--to", TARGET, "--switch-id", "s-1")
    drifted = fleet.run("switch", "run", "cust", "--to", TARGET, "--plan-hash", "0" * 32, "--json")
    assert drifted.returncode == 1
    assert json.loads(drifted.stdout)["type"] == "apportion.switch.rejected.v1"
    assert drifted.stderr.count("\n") == 1 and "another one now" in drifted.stderr
    done = fleet.json(*arguments, "--plan-hash", preview["plan_hash"])
    assert (done["type"], done["data"]["workloads"]) == (
        "apportion.switch.completed.v1",
        {"total": 3, "moved": 3, "denied": 0},
    )
    assert used(fleet, "cust") == {BASE: 3, MANAGEMENT: 1}
    assert fleet.json("switch", "show", "s-1") == done
    assert fleet.json(*arguments, "--plan-hash", preview["plan_hash"]) == done
    other = fleet.run(*arguments)
    assert (other.returncode, other.stderr) == (1, "There is a switch s-1 of cust already, with other content.\n")

    undone = fleet.json("switch", "undo", "s-1")
    assert undone["type"] == "apportion.switch.undone.v1"
    assert used(fleet, "cust") == {EDITION: 3}
    again = fleet.json("switch", "undo", "s-1")
    assert again == undone == fleet.json("switch", "show", "s-1")
    fleet.settle()
    said = [event["type"] for event in fleet.announced() if event["subject"] == "s-1"]
    assert set(said) == {f"apportion.switch.{name}.v1" for name in ("started", "completed", "rejected", "undone")}


def test_the_end_of_a_switch_of_many_workloads_is_waited_for(fleet: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fleet.environment, "APPORTION_SWITCH_WORKLOADS_AT_ONCE_MAX", "1")  # three are many, then
    done = fleet.json("switch", "run", "cust", "--to", TARGET, "--switch-id", "s-2")
    assert (done["type"], done["data"]["workloads"]["moved"]) == ("apportion.switch.completed.v1", 3)
    assert fleet.json("switch", "undo", "s-2")["type"] == "apportion.switch.undone.v1"
    assert used(fleet, "cust") == {EDITION: 3}
    fleet.settle()
    types = [event["type"] for event in fleet.announced() if event["subject"] == "s-2"]
    assert types.count("apportion.switch.started.v1") == 2, "a way back in one step would have no start"


def test_thirty_customers_are_looked_at_switched_and_led_back(fleet: Outside) -> None:
    selection = ("--below", "mass-msp", "--from", "cyber_protect_adv", "--to", TARGET)
    preview = fleet.json("switch-jobs", "preview", *selection)
    assert (preview["tenants"], preview["switched"], preview["refused"]) == (30, ROOM, 30 - ROOM)
    assert preview["refusals"] == {"quota_exceeded": 30 - ROOM}

    job = fleet.json("switch-jobs", "create", *selection, "--job-id", "spring", "--rate", "1")
    assert (job["job_id"], job["counts"]["total"]) == ("spring", 30)
    paused = fleet.json("switch-jobs", "pause", "spring")
    assert paused["state"] == "paused" and paused["handed_over"] < 30
    fleet.settle()  # nobody waits for a job that is paused
    assert fleet.json("switch-jobs", "resume", "spring", "--rate", "100")["rate"] == 100
    ended = fleet.json("switch-jobs", "watch", "spring")
    assert (ended["state"], ended["counts"]["completed"], ended["counts"]["rejected"]) == ("finished", ROOM, 30 - ROOM)
    fleet.settle()
    assert used(fleet, "mass-msp") == {EDITION: 30 - ROOM, BASE: ROOM, MANAGEMENT: ROOM}
    results = fleet.json("switch-jobs", "results", "spring")["results"]
    assert [row["tenant_id"] for row in results] == CUSTOMERS
    assert sorted(row["outcome"] for row in results) == ["completed"] * ROOM + ["rejected"] * (30 - ROOM)
    switch = fleet.json("switch", "show", results[0]["switch_id"])
    assert switch == results[0]["event"]
    assert switch["data"]["job_id"] == "spring"

    before = [event["id"] for event in switches(fleet)]
    assert fleet.json("switch-jobs", "rerun", "spring")["job_id"] == "spring"
    fleet.settle()
    assert {event["id"] for event in switches(fleet)} == set(before)
    assert fleet.json("switch-jobs", "results", "spring")["results"] == results

    fleet.json("switch-jobs", "undo", "spring")
    ended = fleet.json("switch-jobs", "watch", "spring")
    assert (ended["state"], ended["counts"]["undone"]) == ("undone", ROOM)
    fleet.settle()
    assert used(fleet, "mass-msp") == {EDITION: 30}
    assert fleet.json("ledger", "verify")["ok"] is True
    assert fleet.json("status")["dead_letters"] == {}
    assert "undone" in fleet.run("switch-jobs", "watch", "spring").stdout
    assert [each["job_id"] for each in fleet.json("switch-jobs", "list")["jobs"]] == ["spring"]


def switches(fleet: Outside) -> list[dict[str, Any]]:
    """What was announced of the customers of the job; a decision that is announced again has the same id."""
    return [event for event in fleet.announced() if event["type"].startswith("apportion.switch.")]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("switch", "show", "nothing"), 1, "There is no switch nothing.\n"),
        (("switch", "undo", "nothing"), 1, "There is no switch nothing.\n"),
        (("switch", "preview", "nobody", "--to", TARGET), 1, "There is no tenant nobody.\n"),
        (("switch", "run", "nobody", "--to", TARGET), 1, "There is no tenant nobody.\n"),
        (("switch-jobs", "watch", "nothing"), 1, "There is no job of switches nothing.\n"),
        (
            ("switch-jobs", "create", "--to", "golden", "--tenant", "cust"),
            1,
            "The catalogue has no edition or billing mode golden of application "
            "6e6d758d-8e74-3ae3-ac84-50eb0dff12eb.\n",
        ),
        (
            ("switch-jobs", "create", "--to", TARGET),
            2,
            "Invalid value: Say which customers: either --below and --from, or --tenant or --tenants.\n",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_said_in_a_sentence(fleet: Outside, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = fleet.run(*arguments, "--json")
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)
