"""The main job from outside: events in through Kafka, answers through Kafka, HTTP and the command line only."""

from __future__ import annotations

import urllib.request

from tests.e2e.outside import Outside

ITEM = "pw_base_workstations"


def test_events_become_assignments_refusals_and_bills(outside: Outside) -> None:
    for tenant, parent, kind in (("dist", "root", "partner"), ("msp", "dist", "partner"), ("cust", "msp", "customer")):
        outside.send("tenant-changes", "tenant.upserted", tenant, {"parent_id": parent, "kind": kind, "name": tenant})
        item = {"name": ITEM, "status": 1, "quota": {"value": 1, "overage": 0}}
        outside.send("tenant-changes", "offering_items.set", tenant, {"items": [item]})
    outside.settle()
    for workload in ("w1", "w2"):
        content = {"workload_id": workload, "type": "workstation"}
        outside.send("workload-events", "workload.registered", "cust", content)
    outside.send("plan-changes", "plan.saved", "cust", {"plan_id": "p", "features": ["backup.files"]})
    outside.send("plan-changes", "plan.applied", "cust", {"plan_id": "p", "workload_ids": ["w1"]})
    outside.send("plan-changes", "plan.applied", "cust", {"plan_id": "p", "workload_ids": ["w2"]})
    outside.produce("plan-changes", b"{no json", "cust")
    outside.send("workload-events", "workload.removed", "nobody", {"workload_id": "w"})
    outside.settle()

    usage = outside.json("usage", "cust")
    assert usage == {
        "tenant_id": "cust",
        "items": [
            {
                "offering_item": ITEM,
                "usage_name": "workstations",
                "edition": "pck_per_workload",
                "unit": "quantity",
                "status": 1,
                "used": 1,
                "reserved": 0,
                "quota": {"value": 1, "overage": 0, "version": 1},
            }
        ],
    }
    held = {row["workload_id"]: row for row in outside.json("workloads", "cust")["workloads"]}
    assert held["w1"]["holding"] == {ITEM: 1}
    assert (held["w2"]["holding"], held["w2"]["waiting"], held["w2"]["plan_ids"]) == ({}, True, ["p"])
    why = outside.json("explain", "cust", ITEM)
    assert [level["tenant_id"] for level in why["levels"]] == ["cust", "msp", "dist", "root"]
    assert [row["workload_id"] for row in why["waiting"]] == ["w2"]
    verified = outside.json("ledger", "verify")
    assert (verified["ok"], verified["tenants"], verified["workloads"], verified["violations"]) == (True, 3, 2, [])

    events = outside.announced()
    (denied,) = [event for event in events if event["type"] == "apportion.assignment.denied.v1"]
    assert {denial["tenant_id"] for denial in denied["data"]["denials"]} == {"cust", "msp", "dist"}
    bills = {e["tenantid"]: e["data"]["used"] for e in events if e["type"] == "apportion.usage.changed.v1"}
    assert bills == {"cust": 1, "msp": 1, "dist": 1}
    letters = {row["code"] for row in outside.json("dead-letters", "list")["dead_letters"]}
    assert letters == {"invalid_envelope", "unknown_tenant"}


def test_wrong_questions_are_answered_in_a_sentence(outside: Outside) -> None:
    unknown = outside.run("usage", "nobody", "--json")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr.count("\n") == 1
    assert outside.run("usage").returncode == 2


def test_http_tells_how_the_service_is_and_what_it_speaks(outside: Outside) -> None:
    url = outside.url
    for path, content in (("/health/live", ""), ("/health/ready", ""), ("/metrics", "apportion_")):
        with urllib.request.urlopen(url + path, timeout=10) as answer:
            assert answer.status == 200
            assert content in answer.read().decode()
    with urllib.request.urlopen(url + "/asyncapi.json", timeout=10) as answer:
        assert f"{outside.prefix}assignments" in answer.read().decode()
