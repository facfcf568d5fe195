"""What every command prints with ``--json``, to the letter (docs/contracts.md 4), and what it says to people."""

from __future__ import annotations

import json

import pytest

from tests.e2e.outside import Outside

ITEM, STORAGE = "pw_base_workstations", "pw_base_storage"
GIB = 1024**3
UNLIMITED = {"value": None, "overage": None, "version": 0}


@pytest.fixture(scope="module")
def fleet(outside: Outside) -> Outside:
    """A distributor, a prepaid MSP and a customer: two workloads that hold, one that waits, a reservation, bytes."""
    for tenant, parent, kind, more in (
        ("dist", "root", "partner", {}),
        ("msp", "dist", "partner", {"payment_model": "prepaid"}),
        ("cust", "msp", "customer", {}),
    ):
        content = {"parent_id": parent, "kind": kind, "name": tenant.title(), **more}
        outside.send("tenant-changes", "tenant.upserted", tenant, content)
        quota = {"quota": {"value": 3}} if tenant == "msp" else {}
        items = [{"name": ITEM, "status": 1, **quota}, {"name": STORAGE, "status": 1}]
        outside.send("tenant-changes", "offering_items.set", tenant, {"items": items})
    outside.settle()
    outside.send("plan-changes", "plan.saved", "cust", {"plan_id": "p", "features": ["backup.files"]})
    reserve = {"reservation_id": "r", "items": {ITEM: 1}}
    outside.send("reservation-commands", "reservation.reserve", "cust", reserve)
    for workload in ("w1", "w2", "w3"):
        registered = {"workload_id": workload, "type": "workstation"}
        outside.send("workload-events", "workload.registered", "cust", registered)
    usage = {"workload_id": "w1", "usage": {"storage_bytes": 3 * GIB}}
    outside.send("workload-events", "workload.usage_reported", "cust", usage)
    outside.settle()
    outside.send("plan-changes", "plan.applied", "cust", {"plan_id": "p", "workload_ids": ["w1", "w2"]})
    outside.send("plan-changes", "plan.applied", "cust", {"plan_id": "p", "workload_ids": ["w3"]})
    outside.settle()
    return outside


def test_usage(fleet: Outside) -> None:
    def row(item: str, usage_name: str, unit: str, used: int, reserved: int, quota: object) -> dict[str, object]:
        return {
            "offering_item": item,
            "usage_name": usage_name,
            "edition": "pck_per_workload",
            "unit": unit,
            "status": 1,
            "used": used,
            "reserved": reserved,
            "quota": quota,
        }

    assert fleet.json("usage", "msp") == {
        "tenant_id": "msp",
        "items": [
            row(ITEM, "workstations", "quantity", 3, 1, {"value": 3, "overage": 0, "version": 1}),
            row(STORAGE, "storage", "bytes", 3 * GIB, 0, UNLIMITED),
        ],
    }
    root = {each["offering_item"]: each for each in fleet.json("usage", "root")["items"]}
    assert root[ITEM] == row(ITEM, "workstations", "quantity", 3, 1, UNLIMITED)
    text = fleet.run("usage", "msp").stdout
    assert "3.00 GiB" in text
    assert "█" * 20 in text


def test_workloads(fleet: Outside) -> None:
    def row(name: str, holding: dict[str, int], denials: list[object]) -> dict[str, object]:
        return {
            "workload_id": name,
            "type": "workstation",
            "holding": holding,
            "plan_ids": ["p"],
            "uncovered_features": [],
            "waiting": bool(denials),
            "denials": denials,
        }

    found = fleet.json("workloads", "cust")
    denial = {
        "code": "quota_exceeded",
        "offering_item": ITEM,
        "tenant_id": "msp",
        "limit": 3,
        "used": 3,
        "requested": 1,
        "message": found["workloads"][-1]["denials"][0]["message"],
    }
    assert found == {
        "tenant_id": "cust",
        "workloads": [row("w1", {ITEM: 1}, []), row("w2", {ITEM: 1}, []), row("w3", {}, [denial])],
    }
    assert fleet.json("workloads", "msp") == {"tenant_id": "msp", "workloads": []}


def test_explain(fleet: Outside) -> None:
    found = fleet.json("explain", "cust", ITEM)
    hard = {"value": 3, "overage": 0, "version": 1}
    level = {"used": 3, "reserved": 1, "quota": UNLIMITED, "available": None}
    assert found == {
        "tenant_id": "cust",
        "offering_item": ITEM,
        "levels": [
            {"tenant_id": "cust", "kind": "customer", **level},
            {"tenant_id": "msp", "kind": "partner", **level, "quota": hard, "available": 0},
            {"tenant_id": "dist", "kind": "partner", **level},
            {"tenant_id": "root", "kind": "root", **level},
        ],
        "largest_holders": [
            {"tenant_id": "cust", "workload_id": "w1", "quantity": 1},
            {"tenant_id": "cust", "workload_id": "w2", "quantity": 1},
        ],
        "waiting": [{"tenant_id": "cust", "workload_id": "w3", "since": found["waiting"][0]["since"]}],
    }
    assert fleet.json("explain", "dist", STORAGE)["largest_holders"] == [{"tenant_id": "msp", "used": 3 * GIB}]
    assert "w3" in fleet.run("explain", "root", ITEM).stdout


def test_ledger(fleet: Outside) -> None:
    assert fleet.json("ledger", "verify") == {
        "ok": True,
        "tenants": 3,
        "workloads": 3,
        "reservations": 1,
        "violations": [],
    }
    assert fleet.json("ledger", "repair") == {"applied": False, "changes": [], "left": []}
    assert fleet.run("ledger", "verify").stdout == "All is well: 3 tenants, 3 workloads, 1 reservations.\n"


def test_status(fleet: Outside) -> None:
    found = fleet.json("status")
    inbound = ["tenant-changes", "workload-events", "plan-changes", "reservation-commands", "switch-tasks"]
    assert found.keys() == {"lag", "outbox", "delayed", "dead_letters", "instances"}
    assert found["lag"] == dict.fromkeys(inbound, 0)
    assert (found["outbox"], found["delayed"], found["dead_letters"], len(found["instances"])) == (0, 0, {}, 1)


def test_tenants(fleet: Outside) -> None:
    cust = {
        "tenant_id": "cust",
        "parent_id": "msp",
        "kind": "customer",
        "name": "Cust",
        "enabled": True,
        "deleted": False,
        "pricing_mode": "trial",
        "payment_model": "prepaid",
        "version": 1,
    }
    items = fleet.json("usage", "cust")["items"]
    assert fleet.json("tenants", "show", "cust") == {**cust, "items": items}
    rows = fleet.json("tenants", "tree")["tenants"]
    assert [row["tenant_id"] for row in rows] == ["root", "dist", "msp", "cust"]
    assert rows[-1] == cust
    assert "└── cust" in fleet.run("tenants", "tree").stdout
    drawn = fleet.run("tenants", "tree", "--item", ITEM).stdout
    assert all(" of " in line for line in drawn.splitlines()[1:]), drawn
    assert ITEM in fleet.run("tenants", "show", "cust").stdout
    listed = fleet.json("tenants", "list", "msp")["tenants"]
    assert [row["tenant_id"] for row in listed] == ["msp", "cust"] and listed[-1] == {**cust, "items": items}
    assert any(line.split()[1:4:2] == ["cust", "Cust"] for line in fleet.run("tenants", "list").stdout.splitlines())


def test_a_client_is_made_with_a_secret_and_a_scope_that_does_not_exist_is_wrong_use(fleet: Outside) -> None:
    made = fleet.json("tenants", "client", "create", "cust", "--scope", "viewer")
    assert made.keys() == {"client_id", "client_secret", "tenant_id"} and made["tenant_id"] == "cust"
    wrong = fleet.run("tenants", "client", "create", "cust", "--scope", "everything", "--json")
    assert (wrong.returncode, wrong.stdout) == (2, "") and "viewer" in wrong.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("usage", "nobody"),
        ("workloads", "nobody"),
        ("explain", "nobody", ITEM),
        ("explain", "cust", "nothing"),
        ("tenants", "show", "nobody"),
        ("tenants", "tree", "nobody"),
        ("tenants", "client", "create", "nobody"),
    ],
    ids=" ".join,
)
def test_what_does_not_exist_is_said_in_a_sentence(fleet: Outside, arguments: tuple[str, ...]) -> None:
    done = fleet.run(*arguments, "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr in (
        "There is no tenant nobody.\n",
        "The catalogue has no offering item nothing.\n",
    )


def test_simulate(fleet: Outside) -> None:
    options = ("--tenants", "4", "--workloads-per-tenant", "5", "--rate", "400", "--seconds", "1", "--seed", "3")
    figures = fleet.json("simulate", *options)
    assert figures.keys() == {
        "seed",
        "tenants",
        "workloads",
        "published",
        "announced",
        "published_per_second",
        "decided_per_second",
        "announced_per_second",
        "seconds",
        "lag_max",
        "outbox_max",
        "events",
        "announcements",
    }  # fmt: skip - one line for each kind reads better
    assert (figures["seed"], figures["tenants"], figures["workloads"]) == (3, 4, 20)
    assert figures["published"] == sum(figures["events"].values()) >= 2 * 20
    assert figures["announced"] == sum(figures["announcements"].values()) > 0
    assert figures["seconds"]["published"] <= figures["seconds"]["decided"] <= figures["seconds"]["announced"]
    assert 0 < figures["published_per_second"] < 500
    assert fleet.json("ledger", "verify")["ok"] is True
    assert fleet.json("status")["dead_letters"] == {}


def test_nothing_but_the_document_is_on_standard_output(fleet: Outside) -> None:
    for arguments in (("usage", "cust"), ("status",), ("dead-letters", "list"), ("catalog", "show")):
        done = fleet.run(*arguments, "--json")
        assert done.stdout.endswith("}\n")
        json.loads(done.stdout)
