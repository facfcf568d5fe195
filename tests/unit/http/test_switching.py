"""Switches over HTTP: preview, switch, look, lead back; one customer, and many by a job."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from service.http import switches
from service.records import POPULATION_MAX
from tests.unit.handlers.test_mass_switches import BASE, EDITION, ITEMS, finish, fleet
from tests.unit.http.site import AT_ROOT, Site, made, refused

TO = "pck_per_workload"
ASK = {"target_edition": TO}


@pytest.fixture
async def site() -> Site:
    found = Site()
    await fleet(found, customers=("c1", "c2", "c3"))
    return found


async def own(site: Site, tenant: str, *scopes: str) -> httpx.AsyncClient:
    """A caller of `/api/v1`."""
    caller = await site.caller(tenant, *scopes)
    caller.base_url = httpx.URL("http://service/api/v1")
    return caller


# --- one customer


async def test_a_preview_says_what_the_switch_does_to_the_unit(site: Site) -> None:
    caller = await site.caller("msp")
    before = await made(await caller.get("/tenants/c1/edition", params=ASK))
    assert "UsageStatisticsWillMigrate" in before["warnings"]
    assert before["plan_hash"] == before["plan"]["plan_hash"] and before["plan"]["startable"]
    answer = await caller.put("/tenants/c1/edition", json={**ASK, "plan_hash": before["plan_hash"]})
    done = await made(answer)
    assert answer.status_code == 200 and done["warnings"] == before["warnings"] and done["state"] == "completed"
    items = {item["name"]: item for item in done["items"]}
    assert items[BASE]["status"] == 1 and items[BASE]["quota"]["value"] == 5 and items[EDITION]["status"] == 0
    assert await site.used("c1", BASE) == 2 and await site.used("c1", EDITION) == 0
    for row in before["plan"]["items"]:
        assert await site.used("c1", row["offering_item"]) == row["used_after"], row


async def test_what_the_parent_has_not_on_is_listed_and_nothing_changes(site: Site) -> None:
    caller = await site.caller("msp")
    asked = {"target_edition": "pck_per_gigabyte"}
    for answer in (
        await caller.get("/tenants/c1/edition", params=asked),
        await caller.put("/tenants/c1/edition", json=asked),
    ):
        error = refused(answer, 400, "1021")
        assert "pg_base_workstations" in error["context"]["items"]
    assert await site.used("c1", EDITION) == 2


async def test_a_switch_that_is_none_and_one_of_a_partner_are_refused(site: Site) -> None:
    caller = await site.caller("root")
    refused(await caller.get("/tenants/c1/edition", params={"target_edition": "nothing"}), 400, "1027")
    refused(await caller.put("/tenants/c1/edition", json={"target_edition": "standard"}), 400, "1027")
    refused(await caller.put("/tenants/msp/edition", json=ASK), 400, "1027")
    refused(await caller.put(f"{AT_ROOT}/edition", json=ASK), 403, "1002")
    refused(await caller.get("/tenants/c1/edition"), 400, "400")


async def test_a_plan_that_has_drifted_is_refused_with_what_drifted(site: Site) -> None:
    caller = await site.caller("msp")
    shown = await made(await caller.get("/tenants/c1/edition", params=ASK))
    await site.set_items("c1", EDITION, quota={"value": 9})
    error = refused(await caller.put("/tenants/c1/edition", json={**ASK, "plan_hash": shown["plan_hash"]}), 409, "1001")
    assert error["context"]["drift"][0]["offering_item"] == EDITION
    assert await site.used("c1", EDITION) == 2


async def test_a_quota_above_is_a_reason_whose_numbers_only_its_tenant_sees(site: Site) -> None:
    await site.set_items("msp", BASE, quota={"value": 1, "overage": 0})
    below, above = await site.caller("msp"), await site.caller("root")
    await site.upsert("folder", "msp", "folder")
    error = refused(await below.put("/tenants/c1/edition", json=ASK), 400, "1022")
    assert error["context"]["denials"][0]["tenant_id"] == "msp"
    shown = await made(await above.get("/tenants/c1/edition", params=ASK))
    assert not shown["plan"]["startable"] and shown["plan"]["denials"][0]["limit"] == 1
    itself = await site.caller("c1")
    hidden = (await made(await itself.get("/tenants/c1/edition", params=ASK)))["plan"]["denials"][0]
    assert hidden["code"] == "quota_exceeded" and not {"tenant_id", "limit", "used"} & hidden.keys()


async def test_nobody_switches_its_own_tenant_or_leads_that_back(site: Site) -> None:
    itself, above = await own(site, "c1"), await own(site, "msp")
    answer = await itself.put("http://service/api/2/tenants/c1/edition", json=ASK)
    refused(answer, 403, "1002")
    done = await made(await above.put("http://service/api/2/tenants/c1/edition", json=ASK))
    seen = await made(await itself.get(f"/switches/{done['switch_id']}"))
    assert seen["type"] == "apportion.switch.completed.v1" and seen["data"]["workloads"]["moved"] == 2
    refused(await itself.post(f"/switches/{done['switch_id']}/undo"), 403, "1002")
    back = await made(await above.post(f"/switches/{done['switch_id']}/undo"))
    assert back["state"] == "undone" and await site.used("c1", EDITION) == 2


async def test_a_switch_is_not_there_for_who_does_not_reach_its_tenant(site: Site) -> None:
    above, beside = await own(site, "msp"), await own(site, "c2")
    done = await made(await above.put("http://service/api/2/tenants/c1/edition", json=ASK))
    missing = await beside.get("/switches/nothing")
    found = await beside.get(f"/switches/{done['switch_id']}")
    assert (found.status_code, found.text) == (missing.status_code, missing.text) and found.status_code == 404
    refused(await beside.post(f"/switches/{done['switch_id']}/undo"), 404, "404")
    assert await site.used("c1", BASE) == 2


async def test_an_undo_that_cannot_be_is_refused_with_its_reason(site: Site) -> None:
    caller = await own(site, "msp")
    done = await made(await caller.put("http://service/api/2/tenants/c1/edition", json=ASK))
    path = f"/switches/{done['switch_id']}/undo"
    await made(await caller.post(path))
    again = await caller.post(path)
    assert again.status_code == 200 and again.json()["state"] == "undone", "asked again, it is answered again"
    second = await made(await caller.put("http://service/api/2/tenants/c1/edition", json=ASK))
    await site.set_items("msp", EDITION, status=0, _cascade=True)
    refused(await caller.post(f"/switches/{second['switch_id']}/undo"), 400, "1021")


async def test_the_same_key_switches_once(site: Site) -> None:
    caller = await site.caller("msp")
    headers = {"Idempotency-Key": "k"}
    first = await made(await caller.put("/tenants/c1/edition", json=ASK, headers=headers))
    for state in site.ledger._states:  # as if the process had died before it kept its answer
        for key in [key for key in state.records if key.kind == "answer"]:
            del state.records[key]
    assert await made(await caller.put("/tenants/c1/edition", json=ASK, headers=headers)) == first


async def test_a_long_switch_is_answered_while_it_goes_on_and_found_when_it_is_over(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switches, "WAIT_SECONDS", 0.0)
    names = [f"w{number}" for number in range(POPULATION_MAX)]
    await site.set_items("c1", EDITION, quota=None)
    await site.protect(*names, tenant="c1")
    caller = await own(site, "msp")
    answer = await caller.put("http://service/api/2/tenants/c1/edition", json=ASK)
    assert answer.status_code == 202
    path = f"/switches/{answer.json()['switch_id']}"
    assert (await made(await caller.get(path)))["under_way"]
    refused(await caller.put("http://service/api/2/tenants/c1/edition", json=ASK), 409, "1012")
    await site.settle()
    over = await made(await caller.get(path))
    assert not over["under_way"] and over["state"] == "completed"
    assert over["data"]["workloads"]["total"] == POPULATION_MAX + 2


# --- many


SELECTION = {"below": "dist", "edition": "cyber_protect_adv", "target_edition": TO}


async def test_a_job_is_previewed_made_paused_resumed_and_led_back(site: Site) -> None:
    caller = await own(site, "dist")
    shown = await made(await caller.post("/switch-jobs/preview", json=SELECTION))
    assert (shown["tenants"], shown["switched"], shown["refused"]) == (3, 3, 0)
    answer = await caller.post("/switch-jobs", json=SELECTION)
    job = await made(answer)
    path = f"/switch-jobs/{job['job_id']}"
    assert answer.status_code == 201 and job["counts"]["queued"] == 3
    assert (await made(await caller.post(f"{path}/pause")))["state"] == "paused"
    refused(await caller.post(f"{path}/undo"), 409, "409")
    assert (await made(await caller.get(f"{path}/preview")))["switched"] == 3
    assert (await made(await caller.post(f"{path}/resume")))["state"] == "running"
    await finish(site)
    over = await made(await caller.get(path))
    assert over["state"] == "finished" and over["counts"]["completed"] == 3
    page = await made(await caller.get(f"{path}/results", params={"limit": 2}))
    rest = await made(await caller.get(f"{path}/results", params=page["paging"]["cursors"]))
    rows = page["results"] + rest["results"]
    assert [row["tenant_id"] for row in rows] == ["c1", "c2", "c3"] and rest["paging"]["cursors"] == {}
    assert {row["event"]["type"] for row in rows} == {"apportion.switch.completed.v1"}
    refused(await caller.post(f"{path}/cancel"), 409, "409")
    await made(await caller.post(f"{path}/undo"))
    await finish(site)
    assert (await made(await caller.get(path)))["counts"]["undone"] == 3
    assert await site.used("msp", EDITION) == 6


async def test_a_job_belongs_to_the_tenant_of_who_made_it_and_is_not_there_for_others(site: Site) -> None:
    above, below = await own(site, "dist"), await own(site, "msp")
    job = await made(await above.post("/switch-jobs", json={"tenants": ["c1"], "target_edition": TO}))
    path = f"/switch-jobs/{job['job_id']}"
    assert (await made(await below.get("/switch-jobs")))["items"] == []
    for method, part in (("GET", ""), ("GET", "/results"), ("GET", "/preview"), ("POST", "/pause"), ("POST", "/undo")):
        refused(await below.request(method, path + part), 404, "404")
    mine = await made(await below.post("/switch-jobs", json={"tenants": ["c2"], "target_edition": TO}))
    listed = await made(await above.get("/switch-jobs", params={"limit": 1}))
    rest = await made(await above.get("/switch-jobs", params=listed["paging"]["cursors"]))
    assert {row["job_id"] for row in listed["items"] + rest["items"]} == {job["job_id"], mine["job_id"]}


@pytest.mark.parametrize(
    "selection",
    [{"tenants": ["c1", "c2"]}, {"tenants": ["nobody"]}, {"below": "dist", "edition": "cyber_protect_adv"}],
)
async def test_a_job_cannot_select_who_is_out_of_reach(site: Site, selection: dict[str, Any]) -> None:
    caller = await own(site, "c1")
    for path in ("/switch-jobs", "/switch-jobs/preview"):
        refused(await caller.post(path, json={**selection, "target_edition": TO}), 404, "1005")


async def test_a_customer_cannot_select_itself_and_a_selection_is_one_of_two(site: Site) -> None:
    caller = await own(site, "c1")
    for selection in ({"tenants": ["c1"]}, {"below": "c1", "edition": "cyber_protect_adv"}):
        refused(await caller.post("/switch-jobs", json={**selection, "target_edition": TO}), 403, "1002")
    for selection in ({}, {"below": "c1"}, {"tenants": ["c1"], "below": "c1", "edition": "x"}):
        refused(await caller.post("/switch-jobs", json={**selection, "target_edition": TO}), 400, "400")
    viewer = await own(site, "dist", "viewer")
    refused(await viewer.post("/switch-jobs", json=SELECTION), 403, "1002")


async def test_a_job_is_not_led_back_where_a_tenant_has_left_the_callers_reach(site: Site) -> None:
    await site.upsert("other", "dist", "partner")
    await site.set_items("other", *ITEMS)
    caller = await own(site, "msp")
    job = await made(await caller.post("/switch-jobs", json={"tenants": ["c1", "c2"], "target_edition": TO}))
    await finish(site)
    moved = await site.upsert("c1", "other", "customer")
    assert moved.kind == "applied"
    refused(await caller.post(f"/switch-jobs/{job['job_id']}/undo"), 403, "1002")
    rows = (await made(await caller.get(f"/switch-jobs/{job['job_id']}/results")))["results"]
    assert [row["tenant_id"] for row in rows] == ["c2"]


async def test_a_job_asked_for_twice_with_one_key_is_one_job(site: Site) -> None:
    caller = await own(site, "dist")
    headers = {"Idempotency-Key": "k"}
    first, second = await asyncio.gather(
        *(caller.post("/switch-jobs", json=SELECTION, headers=headers) for _ in range(2))
    )
    assert first.json()["job_id"] == second.json()["job_id"]
    assert len((await made(await caller.get("/switch-jobs")))["items"]) == 1
