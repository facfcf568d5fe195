"""Offering items, quotas and usages over HTTP, and the little that integrations ask for beside them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

from service.catalog import Catalog
from service.handlers.work import Result
from service.http import refusals
from tests.unit.http.site import Site, made, refused

CYBER = "6e6d758d-8e74-3ae3-ac84-50eb0dff12eb"
MODE = "pck_per_workload"
BASE, LOCAL, STORAGE = "pw_base_workstations", "local_storage", "pw_base_storage"


def names(body: dict[str, Any]) -> list[str]:
    return [each["name"] for each in body["items"]]


async def stage() -> tuple[Site, httpx.AsyncClient]:
    """A partner with every item, and a customer below it without any."""
    site = Site()
    await site.upsert("p", "root", "partner")
    await site.set_items("p", *site.catalog.items)
    await site.upsert("c", "p", "customer")
    return site, await site.caller("p")


async def turn_on(caller: httpx.AsyncClient, tenant: str, *items: str, **more: Any) -> httpx.Response:
    body = {"offering_items": [{"application_id": CYBER, "name": item, "status": 1, **more} for item in items]}
    return await caller.put(f"/tenants/{tenant}/offering_items", json=body)


def is_whole(item: dict[str, Any], catalog: Catalog) -> bool:
    """Whether an item has everything that clients read of one."""
    known = catalog.item(item["name"])
    always = {
        "application_id",
        "name",
        "edition",
        "usage_name",
        "tenant_id",
        "status",
        "type",
        "measurement_unit",
        "locked",
        "updated_at",
    }  # fmt: skip - as one block it can be compared with the page that lists them
    has_quota = bool(item["status"]) and known.type != "feature"
    has_infra = known.type == "infra" or (known.type == "feature" and known.usage_name.startswith("dr_"))
    return (
        always <= item.keys()
        and ("quota" in item) == has_quota
        and (not has_quota or set(item["quota"]) == {"value", "overage", "version"})
        and ("infra_id" in item) == has_infra
        and item["updated_at"].endswith("Z")
    )


async def test_what_a_child_can_have_is_turned_on_when_it_is_sent_back_as_it_is() -> None:
    site, caller = await stage()
    query = {"kind": "customer", "edition": MODE}
    offered = await made(await caller.get("/tenants/p/offering_items/available_for_child", params=query))
    assert {each["status"] for each in offered["items"]} == {1}
    assert all(each["quota"]["value"] is None for each in offered["items"] if "quota" in each)
    answer = await caller.put(
        "/tenants/c/offering_items/", content=json.dumps({"offering_items": offered["items"]}).encode()
    )
    assert names(await made(answer)) == names(offered)
    shown = await made(await caller.get("/tenants/c/offering_items", params={"edition": MODE, "status": 1}))
    assert names(shown) == names(offered)
    assert all(is_whole(each, site.catalog) for each in shown["items"])
    assert {each["tenant_id"] for each in shown["items"]} == {"c"}


async def test_items_that_the_parent_has_are_listed_as_off_and_those_of_other_editions_are_not() -> None:
    site, caller = await stage()
    await made(await turn_on(caller, "c", BASE))
    shown = await made(await caller.get("/tenants/c/offering_items", params={"edition": MODE}))
    states = {each["name"]: each["status"] for each in shown["items"]}
    assert states[BASE] == 1 and states[STORAGE] == 0
    assert {site.catalog.item(name).edition for name in states} <= {MODE, None}
    assert all(is_whole(each, site.catalog) for each in shown["items"])
    everything = await made(await caller.get("/tenants/c/offering_items", params={"edition": "*"}))
    assert names(everything) == list(site.catalog.items)
    standard = await made(await caller.get("/tenants/c/offering_items", params={"usage_names": "workstations"}))
    assert names(standard) == ["workstations"]


async def test_a_change_is_judged_by_its_outcome_and_answers_with_what_was_named() -> None:
    _, caller = await stage()
    await made(await turn_on(caller, "c", BASE))
    off = {"name": BASE, "status": 0}
    on = {"name": "pg_base_workstations", "status": 1, "quota": {"value": 3, "overage": None, "version": 0}}
    refused(await caller.put("/tenants/c/offering_items", json={"offering_items": [on]}), 400, "1027")
    answer = await made(await caller.put("/tenants/c/offering_items", json={"offering_items": [on, off]}))
    assert [(each["name"], each["status"]) for each in answer["items"]] == [("pg_base_workstations", 1), (BASE, 0)]
    assert answer["items"][0]["quota"] == {"value": 3, "overage": None, "version": 1}


async def test_a_quota_without_a_value_is_unlimited_whatever_its_overage_says() -> None:
    _, caller = await stage()
    await made(await turn_on(caller, "c", BASE, quota={"value": 5, "overage": 0, "version": 0}))
    for unlimited in ({"value": None, "overage": 0}, {"value": None, "overage": None, "version": 0}, None):
        shown = await made(await turn_on(caller, "c", BASE, quota=unlimited))
        assert shown["items"][0]["quota"] == {"value": None, "overage": None, "version": 0}
    again = await made(await turn_on(caller, "c", BASE, quota={"value": "6", "overage": None, "version": "0"}))
    assert again["items"][0]["quota"]["value"] == 6 and again["items"][0]["quota"]["version"] > 1


async def test_items_that_do_not_exist_or_that_the_parent_has_not_are_refused_whole() -> None:
    site, caller = await stage()
    await site.upsert("p2", "p", "partner")
    await site.upsert("c2", "p2", "customer")
    error = refused(await turn_on(caller, "c2", BASE), 400, "1021")
    assert error["context"]["offering_items"] == [BASE]
    refused(await turn_on(caller, "c", BASE, "nothing"), 400, "1021")
    refused(await turn_on(caller, "c", BASE, application_id="another"), 400, "1021")
    refused(await turn_on(caller, "c", BASE, BASE), 400, "400")
    refused(await turn_on(caller, "c", BASE, quota={"value": -1}), 400, "400")
    shown = await made(await caller.get("/tenants/c/offering_items", params={"edition": "*", "status": 1}))
    assert shown["items"] == []


async def test_of_two_who_change_a_quota_at_once_one_is_told_that_the_other_was_first() -> None:
    _, caller = await stage()
    await made(await turn_on(caller, "c", BASE, quota={"value": 5, "overage": 0}))
    both = await asyncio.gather(
        *(turn_on(caller, "c", BASE, quota={"value": n, "overage": 0, "version": 1}) for n in (6, 7))
    )
    assert sorted(each.status_code for each in both) == [200, 409]
    refused(next(each for each in both if each.status_code == 409), 409, "1001")
    won = next(each for each in both if each.status_code == 200).json()["items"][0]["quota"]
    (shown,) = (await made(await caller.get("/tenants/c/offering_items", params={"status": 1, "edition": "*"})))[
        "items"
    ]
    assert shown["quota"] == won


async def test_an_item_in_use_is_turned_off_only_where_nobody_asks_to_check() -> None:
    site, caller = await stage()
    await made(await turn_on(caller, "c", BASE))
    await site.protect("w", tenant="c")
    body: dict[str, Any] = {"offering_items": [{"name": BASE, "status": 0}]}
    refused(await caller.put("/tenants/c/offering_items", json=body), 400, "1023")
    refused(await caller.delete(f"/applications/{CYBER}/bindings/tenants/c"), 400, "1023")
    await made(await caller.put("/tenants/c/offering_items", json={**body, "check_usage": "false"}))
    await site.settle()
    assert await site.used("c") == 0


def test_a_refusal_says_nothing_of_tenants_above_the_caller() -> None:
    mine = {
        "code": "quota_exceeded",
        "offering_item": BASE,
        "tenant_id": "c",
        "limit": 3,
        "used": 3,
        "message": "c is full",
    }
    above = {**mine, "tenant_id": "secret", "limit": 77, "used": 70, "message": "secret is full"}
    context = {"code": "1022", "tenant_id": "secret", "denials": [mine, above]}
    error = refusals.refusal(Result("rejected", "not_allowed", "it would not hold", context), {"c", "p"})
    assert (error.status, error.code, error.message) == (400, "1022", "It would not hold.")
    assert error.context["denials"][0] == mine
    assert error.context["denials"][1]["offering_item"] == BASE
    assert "secret" not in str(error.context) and "77" not in str(error.context)


# --- usages


async def test_usages_have_everything_that_clients_read_and_the_number_of_a_tenant_stays() -> None:
    site, caller = await stage()
    await made(await turn_on(caller, "c", BASE, quota={"value": 5, "overage": 0}))
    await site.protect("w1", "w2", tenant="c")
    (usage,) = (await made(await caller.get("/tenants/c/usages")))["items"]
    number = usage.pop("tenant_id")
    assert isinstance(number, int) and 0 < number < 2**53
    assert usage == {
        "application_id": CYBER,
        "name": BASE,
        "edition": MODE,
        "usage_name": "workstations",
        "type": "count",
        "measurement_unit": "quantity",
        "infra_id": None,
        "tenant_uuid": "c",
        "range_start": "2027-01-01T00:00:00Z",
        "value": 2,
        "absolute_value": 2,
        "offering_item": {"status": 1, "quota": {"value": 5, "overage": 0, "version": 1}},
    }
    several = await made(
        await caller.get("/tenants/usages", params={"tenants": "c,nobody,p", "usage_names": "workstations"})
    )
    assert [each["tenant"] for each in several["items"]] == ["c", "p"]
    assert several["items"][0]["usages"][0]["tenant_id"] == number


async def test_a_unit_has_its_customers_items_and_its_own_usage_and_root_the_sum() -> None:
    site, caller = await stage()
    await made(await turn_on(caller, "c", BASE))
    await site.upsert("u", "c", "unit")
    await site.protect("w", tenant="u")
    for who, tenant in ((caller, "u"), (caller, "c"), (await site.caller(), "root")):
        usages = (await made(await who.get(f"/tenants/{tenant}/usages", params={"edition": MODE})))["items"]
        assert {each["name"]: each["value"] for each in usages}[BASE] == 1, tenant
    unit = await made(await caller.get("/tenants/u/offering_items", params={"edition": MODE}))
    assert names(unit) == [BASE]


async def test_reported_gauges_count_and_every_entry_has_its_own_answer() -> None:
    site, caller = await stage()
    await made(await turn_on(caller, "c", BASE, LOCAL))
    entries = [
        {"tenant_id": "c", "usage_name": "local_storage", "value": 1000, "resource_id": "mine"},
        {"tenant_uuid": "c", "name": STORAGE, "value": 5},
        {"tenant_id": "nobody", "usage_name": "local_storage", "value": 1},
        {"tenant_id": "p", "usage_name": "local_storage", "value": 1},
        {"tenant_id": "c", "usage_name": "workstations", "value": 1},
        {"tenant_id": "c", "usage_name": "local_storage", "value": "many"},
        "nonsense",
    ]
    answers = (await made(await caller.put("/tenants/usages", content=json.dumps({"items": entries}))))["items"]
    codes = [each.get("error", {}).get("code") for each in answers]
    assert codes == [None, None, "1005", "1027", "1021", "400", "1005"]
    assert answers[0] == entries[0] and answers[2]["tenant_id"] == "nobody"
    assert await site.used("c", LOCAL) == await site.used("p", LOCAL) == 1000
    await caller.put("/tenants/usages", json={"items": [{**entries[0], "value": 400}]})  # type: ignore[dict-item]  # the first is a dict
    assert await site.used("c", LOCAL) == 400
    assert await site.said("assignment.denied") == []


# --- what else integrations ask for


async def test_the_items_of_a_subtree_come_page_by_page_each_once() -> None:
    site, caller = await stage()
    await made(await turn_on(caller, "c", BASE, LOCAL))
    for size in (1, 7, 1000):
        query: dict[str, Any] = {"subtree_root_tenant_id": "p", "editions": MODE, "limit": size}
        found: list[tuple[str, str]] = []
        while True:
            page = await made(await caller.get("/tenants/offering_items", params=query))
            found += [(each["tenant_id"], each["name"]) for each in page["items"]]
            after = page["paging"]["cursors"].get("after")
            if not after:
                break
            query = {"after": after}
        own = [name for name, item in site.catalog.items.items() if item.edition in (MODE, None)]
        assert found == [*(("p", name) for name in own), ("c", BASE), ("c", LOCAL)], size


async def test_an_application_is_bound_and_taken_away() -> None:
    _, caller = await stage()
    path = f"/applications/{CYBER}/bindings/tenants/c"
    for _ in range(2):
        bound = await caller.post(path)
        assert (bound.status_code, bound.content) == (204, b"")
    await made(await turn_on(caller, "c", BASE, LOCAL))
    assert CYBER in (await made(await caller.get("/tenants/c/applications")))["items"]
    assert (await caller.delete(path)).status_code == 204
    shown = await made(await caller.get("/tenants/c/offering_items", params={"status": 1, "edition": "*"}))
    assert shown["items"] == []
    assert (await caller.delete("/applications/other/bindings/tenants/c")).status_code == 404


async def test_the_little_that_is_asked_of_applications_editions_components_and_users() -> None:
    site, caller = await stage()
    found = (await made(await caller.get("/applications")))["items"]
    assert [each["type"] for each in found].count("platform") == 1
    assert {each["id"] for each in found if each["type"] == "backup"} == {CYBER}
    assert (await made(await caller.get("/editions")))["items"] == list(site.catalog.editions)
    (component,) = site.catalog.infrastructures
    known = site.catalog.infrastructures[component].id
    (shown,) = (await made(await caller.get("/infra", params={"uuids": f"x,{known}"})))["items"]
    assert shown["id"] == known and {"capabilities", "backend_type", "platform_owned"} <= shown.keys()
    assert (await made(await caller.get("/infra", params={"uuids": "x"})))["items"] == []
    assert (await made(await caller.get("/users/me")))["tenant_id"] == "p"
    users = await made(await caller.get("/users", params={"subtree_root_tenant_id": "p"}))
    assert (users["items"], users["paging"]) == ([], {"cursors": {}})
