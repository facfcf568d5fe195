"""Workloads, features, reservations and explanations over `/api/v1`."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.unit.handlers.world import MANAGEMENT, SECURITY, WORKSTATIONS
from tests.unit.http.site import Site, made, refused

HARD = {"value": 3, "overage": 0}


@pytest.fixture
async def site() -> Site:
    found = Site()
    await found.tree(quota=HARD, items=(WORKSTATIONS, MANAGEMENT, "tenant_audit_log"))
    return found


def own(caller: httpx.AsyncClient) -> httpx.AsyncClient:
    caller.base_url = httpx.URL("http://service/api/v1")
    return caller


async def caller_of(site: Site, tenant: str = "cust", *scopes: str) -> httpx.AsyncClient:
    return own(await site.caller(tenant, *scopes))


async def reserve(caller: httpx.AsyncClient, count: int, **more: Any) -> httpx.Response:
    return await caller.post("/tenants/cust/reservations", json={"items": {WORKSTATIONS: count}, **more})


# --- workloads and features


async def test_workloads_say_what_they_hold_and_why_they_wait(site: Site) -> None:
    await site.protect("w1", "w2", "w3", "w4")
    caller = await caller_of(site)
    rows = (await made(await caller.get("/tenants/cust/workloads")))["workloads"]
    assert [row["workload_id"] for row in rows] == ["w1", "w2", "w3", "w4"]
    assert rows[0]["holding"] == {WORKSTATIONS: 1} and not rows[0]["waiting"]
    assert rows[3]["waiting"] and rows[3]["denials"][0]["code"] == "quota_exceeded"
    assert rows[3] == await made(await caller.get("/tenants/cust/workloads/w4"))
    refused(await caller.get("/tenants/cust/workloads/w5"), 404, "404")


async def test_pages_of_workloads_have_each_of_them_once(site: Site) -> None:
    names = [f"w{number}" for number in range(7)]
    await site.protect(*names)
    caller = await caller_of(site)
    found, after = [], None
    for _ in range(4):
        query: dict[str, Any] = {"after": after} if after else {"limit": 2}
        page = await made(await caller.get("/tenants/cust/workloads", params=query))
        found += [row["workload_id"] for row in page["workloads"]]
        after = page["paging"]["cursors"].get("after")
    assert found == names and after is None
    refused(await caller.get("/tenants/cust/workloads", params={"after": "bm90aGluZw"}), 400, "400")


async def test_a_denial_tells_no_numbers_of_a_tenant_above_the_caller(site: Site) -> None:
    await site.set_items("cust", WORKSTATIONS, quota=None)
    await site.set_items("msp", WORKSTATIONS, quota={"value": 1, "overage": 0})
    await site.protect("w1", "w2")
    below, above = await caller_of(site, "cust"), await caller_of(site, "msp")
    (told,) = (await made(await below.get("/tenants/cust/workloads/w2")))["denials"]
    assert told["code"] == "quota_exceeded" and not {"tenant_id", "limit", "used"} & told.keys()
    (seen,) = (await made(await above.get("/tenants/cust/workloads/w2")))["denials"]
    assert seen["tenant_id"] == "msp" and seen["limit"] == 1
    answer = await made(await reserve(below, 1))
    assert answer["state"] == "denied" and "msp" not in str(answer)


async def test_features_follow_the_enabled_items(site: Site) -> None:
    caller = await caller_of(site)
    found = await made(await caller.get("/tenants/cust/features"))
    assert found["tenant_wide"] == ["tenant.audit_log"]
    assert "management.patch_management" in found["workload_types"]["workstation"]
    assert "security.url_filtering" not in found["workload_types"]["workstation"]
    assert "server" not in found["workload_types"] or "backup.files" not in found["workload_types"]["server"]
    await site.upsert("unit", "cust", "unit")
    assert (await made(await caller.get("/tenants/unit/features")))["workload_types"] == found["workload_types"]


# --- reservations


async def test_a_reservation_goes_from_granted_to_committed_at_once(site: Site) -> None:
    caller = await caller_of(site)
    await site.send("workload.registered", "cust", {"workload_id": "w", "type": "workstation"})
    await site.send("plan.saved", "cust", {"plan_id": "p", "features": ["backup.files"]})
    answer = await reserve(caller, 2, ttl_seconds=60)
    assert answer.status_code == 201
    granted = answer.json()
    assert granted["state"] == "granted" and granted["items"] == {WORKSTATIONS: 2} and granted["denials"] == []
    assert (await site.account("cust")).reserved == 2
    path = f"/tenants/cust/reservations/{granted['reservation_id']}"
    assert await made(await caller.get(path)) == granted
    longer = await made(await caller.put(path, json={"ttl_seconds": 600}))
    assert longer["state"] == "granted" and longer["expires_at"] > granted["expires_at"]
    committed = await made(await caller.post(f"{path}/commit", json={"workload_id": "w"}))
    assert committed["state"] == "committed"
    assert (await site.account("cust")).reserved == 0
    again = await made(await caller.post(f"{path}/commit", json={"workload_id": "w"}))
    assert again["state"] == "denied" and again["denials"][0]["code"] == "not_allowed"


async def test_a_commit_tells_what_the_workload_holds_now(site: Site) -> None:
    caller = await caller_of(site)
    path = f"/tenants/cust/reservations/{(await made(await reserve(caller, 3)))['reservation_id']}/commit"
    await site.protect("w")
    assert (await site.account("cust")).used == 3, "the workload waits: everything is reserved"
    unknown = await made(await caller.post(path, json={"workload_id": "missing"}))
    assert unknown["state"] == "denied" and (await site.account("cust")).reserved == 3
    answer = await made(await caller.post(path, json={"workload_id": "w"}))
    assert answer["state"] == "committed" and answer["holding"] == {WORKSTATIONS: 1}
    assert (await site.account("cust")).used == 1


async def test_a_refusal_names_what_stood_in_the_way_and_changes_nothing(site: Site) -> None:
    caller = await caller_of(site)
    answer = await reserve(caller, 4, reservation_id="r")
    assert answer.status_code == 200
    denied = answer.json()
    (denial,) = denied["denials"]
    assert denied["state"] == "denied" and "expires_at" in denied and denied["expires_at"] is None
    assert (denial["code"], denial["limit"], denial["requested"]) == ("quota_exceeded", 3, 4)
    assert (await site.account("cust")).used == 0
    assert await made(await caller.get("/tenants/cust/reservations/r")) == denied
    answer = await caller.post("/tenants/cust/reservations", json={"items": {SECURITY: 1}})
    assert answer.json()["denials"][0]["code"] == "offering_item_not_enabled"
    refused(await caller.post("/tenants/cust/reservations", json={"items": {"nothing": 1}}), 400, "1021")


async def test_a_check_answers_and_changes_nothing(site: Site) -> None:
    caller = await caller_of(site)
    for count, state in ((3, "granted"), (4, "denied")):
        answer = await reserve(caller, count, mode="check_only")
        assert (answer.status_code, answer.json()["state"]) == (200, state)
        assert answer.json()["expires_at"] is None
    assert (await site.account("cust")).used == 0


async def test_a_reservation_is_released_once_and_what_is_not_there_is_not_found(site: Site) -> None:
    caller = await caller_of(site)
    granted = await made(await reserve(caller, 3))
    path = f"/tenants/cust/reservations/{granted['reservation_id']}"
    for _ in range(2):
        assert (await caller.delete(path)).status_code == 204
        assert (await site.account("cust")).used == 0
    assert (await made(await caller.get(path)))["state"] == "released"
    refused(await caller.delete("/tenants/cust/reservations/none"), 404, "404")
    refused(await caller.get("/tenants/cust/reservations/none"), 404, "404")


async def test_the_same_key_reserves_once_also_where_the_first_answer_was_lost(site: Site) -> None:
    caller = await caller_of(site)
    headers = {"Idempotency-Key": "k"}
    body = {"items": {WORKSTATIONS: 2}}
    first = await caller.post("/tenants/cust/reservations", json=body, headers=headers)
    for state in site.ledger._states:  # as if the process had died before it kept its answer
        for key in [key for key in state.records if key.kind == "answer"]:
            del state.records[key]
    site.serve()
    again = own(site.bearer(caller.headers["authorization"].removeprefix("Bearer ")))
    second = await again.post("/tenants/cust/reservations", json=body, headers=headers)
    assert first.json() == second.json() and second.status_code == 201
    assert (await site.account("cust")).reserved == 2


async def test_the_list_has_what_is_held_and_on_demand_what_has_ended(site: Site) -> None:
    caller = await caller_of(site)
    await reserve(caller, 1, reservation_id="a")
    await reserve(caller, 9, reservation_id="b")
    found = await made(await caller.get("/tenants/cust/reservations"))
    assert [row["reservation_id"] for row in found["reservations"]] == ["a"]
    seen, after = set(), None
    for _ in range(2):
        page = await caller.get(
            "/tenants/cust/reservations", params={"after": after} if after else {"limit": 1, "ended": True}
        )
        seen |= {(row["reservation_id"], row["state"]) for row in (await made(page))["reservations"]}
        after = page.json()["paging"]["cursors"].get("after")
    assert seen == {("a", "granted"), ("b", "denied")} and after is None


async def test_many_reservations_at_once_never_exceed_a_hard_quota_and_share_calls(site: Site) -> None:
    import asyncio

    caller = await caller_of(site)
    calls = 0
    commit = site.ledger.commit

    async def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        return await commit(*arguments)

    site.ledger.commit = counted  # type: ignore[method-assign]  # to count
    answers = await asyncio.gather(*(reserve(caller, 1) for _ in range(40)))
    assert sorted(answer.json()["state"] for answer in answers) == ["denied"] * 37 + ["granted"] * 3
    assert calls < 40 and (await site.account("cust")).used == 3


async def test_a_viewer_reserves_nothing(site: Site) -> None:
    caller = await caller_of(site, "cust", "viewer")
    refused(await reserve(caller, 1), 403, "1002")
    assert (await caller.get("/tenants/cust/reservations")).status_code == 200


# --- explanations


async def test_an_explanation_reaches_up_to_the_caller_and_no_further(site: Site) -> None:
    await site.protect("w1", "w2", "w3", "w4")
    query = {"offering_item": WORKSTATIONS}
    found = await made(await (await caller_of(site, "msp")).get("/tenants/cust/explain", params=query))
    assert [level["tenant_id"] for level in found["levels"]] == ["cust", "msp"]
    assert found["levels"][0] | {"quota": None} == {
        "tenant_id": "cust",
        "kind": "customer",
        "used": 3,
        "reserved": 0,
        "available": 0,
        "quota": None,
    }
    assert {row["workload_id"] for row in found["largest_holders"]} == {"w1", "w2", "w3"}
    assert [row["workload_id"] for row in found["waiting"]] == ["w4"]
    root = await made(await (await caller_of(site, "root")).get("/tenants/cust/explain", params=query))
    assert [level["tenant_id"] for level in root["levels"]] == ["cust", "msp", "dist", "root"]
    caller = await caller_of(site)
    refused(await caller.get("/tenants/cust/explain", params={"offering_item": "nothing"}), 400, "1021")
    refused(await caller.get("/tenants/cust/explain"), 400, "400")
