"""Tenants over HTTP: coming, changing, going, and being listed page by page."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service import records
from service.ledger.reference import ReferenceLedger
from tests.unit.http.site import AT_ROOT, Site, made, refused


async def new(caller: Any, parent: str, kind: str, name: str, **more: Any) -> dict[str, Any]:
    return await made(await caller.post("/tenants", json={"parent_id": parent, "kind": kind, "name": name, **more}))


async def test_a_new_tenant_has_version_1_and_keeps_what_was_said_of_it() -> None:
    site = Site()
    root = await site.caller()
    kept = {
        "contact": {"firstname": "Ada", "email": "ada@example.org"},
        "update_lock": {"enabled": True, "owner_id": "x"},
        "ancestral_access": False,
        "language": "de",
        "customer_type": "small_office",
        "customer_id": "4711",
        "internal_tag": "tag",
    }
    answer = await root.post("/tenants", json={"parent_id": "root", "kind": "partner", "name": "P", **kept})
    assert answer.status_code == 201 and not answer.text.endswith("\n") and "\n" not in answer.text
    tenant = answer.json()
    assert tenant["version"] == 1 and tenant["enabled"] is True
    shown = await made(await root.get(f"/tenants/{tenant['id']}"))
    assert {name: shown[name] for name in kept} == kept
    assert shown["id"] == tenant["id"] == tenant["id"].lower() and len(tenant["id"]) == 36


async def test_a_change_says_only_what_changes_and_its_contact_is_merged() -> None:
    site = Site()
    root = await site.caller()
    tenant = await new(root, "root", "partner", "P", contact={"firstname": "Ada", "email": "a@example.org"})
    path = f"/tenants/{tenant['id']}"
    changed = await made(await root.put(path, json={"version": "1", "contact": {"email": "b@example.org"}}))
    assert changed["contact"] == {"firstname": "Ada", "email": "b@example.org"}
    assert (changed["version"], changed["name"]) == (2, "P")
    off = await made(await root.put(path, json={"enabled": "false", "update_lock": {"enabled": "true"}}))
    assert (off["enabled"], off["update_lock"]["enabled"], off["version"]) == (False, True, 3)
    tagged = await made(await root.put(path, json={"internal_tag": "t", "customer_id": "7"}))
    cleared = await made(await root.put(path, json={"internal_tag": None, "language": None}))
    assert (tagged["internal_tag"], cleared["internal_tag"], cleared["customer_id"]) == ("t", None, "7")
    assert cleared["language"] == "en"
    refused(await root.put(path, json={"version": 1, "name": "Q"}), 409, "1001")
    assert (await made(await root.get(path)))["name"] == "P"


async def test_setting_items_leaves_the_version_and_counts_as_an_update() -> None:
    site = Site()
    root = await site.caller()
    tenant = await new(root, "root", "partner", "P")
    site.now_ms += 60_000
    body = {"offering_items": [{"name": "pw_base_workstations", "status": 1}]}
    await made(await root.put(f"/tenants/{tenant['id']}/offering_items", json=body))
    after = await made(await root.get(f"/tenants/{tenant['id']}"))
    assert after["version"] == 1 and after["updated_at"] > tenant["updated_at"]
    since = {"subtree_root_id": "root", "updated_since": after["updated_at"]}
    assert [each["id"] for each in (await made(await root.get("/tenants", params=since)))["items"]] == [tenant["id"]]


async def test_names_differ_among_siblings_only_and_a_parent_must_be_there() -> None:
    site = Site()
    root = await site.caller()
    one, other = await new(root, "root", "partner", "A"), await new(root, "root", "partner", "B")
    await new(root, one["id"], "customer", "same")
    await new(root, other["id"], "customer", "same")
    body = {"kind": "customer", "name": "SAME", "parent_id": one["id"]}
    refused(await root.post("/tenants", json=body), 409, "1004")
    refused(await root.post("/tenants", json={**body, "parent_id": "nowhere"}), 404, "1005")
    refused(await root.post("/tenants", json={**body, "name": "x", "kind": "unit"}), 400, "1027")
    refused(await root.post("/tenants", json={"name": "x"}), 400, "400")


async def test_a_tenant_is_deleted_when_it_is_disabled_and_then_it_is_not_there() -> None:
    site = Site()
    root = await site.caller()
    tenant = await new(root, "root", "partner", "P")
    path = f"/tenants/{tenant['id']}"
    refused(await root.delete(path, params={"version": 1}), 409, "1006")
    await made(await root.put(path, json={"version": 1, "enabled": False}))
    refused(await root.delete(path, params={"version": 1}), 409, "1001")
    gone = await root.delete(f"{path}/?version=2")
    assert gone.status_code == 204 and gone.content == b""
    refused(await root.get(path), 404, "1005")
    everything = {"subtree_root_id": "root", "allow_deleted": "true"}
    listed = (await made(await root.get("/tenants", params=everything)))["items"]
    assert listed[1]["id"] == tenant["id"] and listed[1]["deleted_at"]
    assert (await made(await root.get(f"{AT_ROOT}/children")))["items"] == []


async def test_a_body_is_json_whatever_its_content_type_says() -> None:
    site = Site()
    root = await site.caller()
    body = json.dumps({"name": "P", "kind": "partner", "parent_id": "root", "unknown": {"a": 1}})
    plain = await root.post("/tenants/", content=body, headers={"content-type": "text/plain"})
    assert plain.status_code == 201
    empty = await root.request("GET", f"{AT_ROOT}/", content=b"", headers={"content-type": "application/json"})
    assert empty.status_code == 200 and empty.json()["parent_id"] == "root"


@pytest.mark.parametrize("body", ["{", '{"a": NaN', "[]", '"x"', "null", "[" * 100_000, '{"name": "\\ud800"}'])
async def test_a_body_that_makes_no_sense_is_malformed(body: str) -> None:
    site = Site()
    root = await site.caller()
    refused(await root.post("/tenants", content=body), 400, "400")


async def test_a_body_has_at_most_a_mebibyte() -> None:
    site = Site()
    root = await site.caller()
    refused(await root.post("/tenants", content=b'{"x": "' + b"x" * 2**20 + b'"}'), 413, "413")


# --- lists


class CountingLedger(ReferenceLedger):
    """Counts what it is asked."""

    calls = 0

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name in ("read", "locate", "members", "index_sizes", "accounts", "root_children"):
            self.calls += 1
        return found


async def tree(site: Site) -> list[str]:
    for partner in ("p1", "p2"):
        await site.upsert(partner, "root", "partner")
        for number in range(20):
            await site.upsert(f"{partner}-c{number:02}", partner, "customer")
    await site.upsert("p1-c07-u", "p1-c07", "unit")
    ids = ["root", "p1", *(f"p1-c{number:02}" for number in range(20)), "p2"]
    ids[ids.index("p1-c08") : ids.index("p1-c08")] = ["p1-c07-u"]
    return [*ids, *(f"p2-c{number:02}" for number in range(20))]


@pytest.mark.parametrize("size", [1, 2, 7, 21, 43, 44, 45, 1000])
async def test_pages_of_any_size_bring_every_tenant_once_with_the_filters_of_the_first(size: int) -> None:
    site = Site()
    expected = await tree(site)
    root = await site.caller()
    query: dict[str, Any] = {"subtree_root_id": "root", "limit": size, "with_contacts": True}
    found: list[str] = []
    while True:
        page = await made(await root.get("/tenants", params=query))
        assert page["timestamp"] and all("contacts" in each for each in page["items"])
        found += [each["id"] for each in page["items"]]
        after = page["paging"]["cursors"].get("after")
        if not after:
            break
        assert len(page["items"]) == size
        query = {"after": after}
    assert found == expected


async def test_a_page_goes_on_where_it_ended_though_that_tenant_is_gone() -> None:
    site = Site()
    expected = await tree(site)
    root = await site.caller()
    page = await made(await root.get("/tenants", params={"subtree_root_id": "p1", "limit": 5}))
    last = page["items"][-1]["id"]
    await site.upsert(last, "p1", "customer", enabled=False)
    await site.send("tenant.deleted", last, {})
    following = await made(await root.get("/tenants", params={"after": page["paging"]["cursors"]["after"]}))
    assert following["items"][0]["id"] == expected[expected.index(last) + 1]


async def test_a_list_by_parent_has_its_children_and_one_by_ids_those_that_are_there() -> None:
    site = Site()
    await tree(site)
    root = await site.caller("p1")
    below = await made(await root.get("/tenants", params={"parent_id": "p1-c07"}))
    assert [each["id"] for each in below["items"]] == ["p1-c07-u"]
    some = await made(await root.get("/tenants", params={"uuids": "p1-c01,p2,nobody,p1"}))
    assert [each["id"] for each in some["items"]] == ["p1-c01", "p1"]


async def test_a_cursor_leads_nowhere_but_where_the_caller_reaches() -> None:
    site = Site()
    await tree(site)
    root, other = await site.caller(), await site.caller("p2")
    page = await made(await root.get("/tenants", params={"subtree_root_id": "p1", "limit": 1}))
    refused(await other.get("/tenants", params={"after": page["paging"]["cursors"]["after"]}), 404, "1005")
    refused(await other.get("/tenants", params={"after": "nonsense"}), 400, "400")


async def test_a_page_of_a_large_subtree_needs_no_call_for_each_tenant() -> None:
    site = Site(ledger=CountingLedger(shards=4))
    await site.upsert("p", "root", "partner")
    for number in range(400):
        await site.upsert(f"c{number:03}", "p", "customer")
    caller = await site.caller("p")
    counting: Any = site.ledger
    counting.calls = 0
    page = await made(await caller.get("/tenants", params={"subtree_root_id": "p", "limit": 400}))
    assert len(page["items"]) == 400
    assert counting.calls < 20


async def test_what_is_read_again_unchanged_is_not_sent_again() -> None:
    site = Site()
    root = await site.caller()
    first = await root.get(AT_ROOT)
    again = await root.get(AT_ROOT, headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304 and again.content == b""


# --- the same question again


async def test_the_same_key_makes_one_tenant_and_gets_the_same_answer() -> None:
    site = Site()
    root = await site.caller()
    body = {"name": "P", "kind": "partner", "parent_id": "root"}
    key = {"Idempotency-Key": "k"}
    first = await root.post("/tenants", json=body, headers=key)
    await made(await root.put(f"/tenants/{first.json()['id']}", json={"name": "Another"}))
    again = await root.post("/tenants", json=body, headers=key)
    assert (again.status_code, again.text) == (201, first.text)
    assert len((await made(await root.get(f"{AT_ROOT}/children")))["items"]) == 1
    other = await (await site.caller()).post("/tenants", json=body, headers=key)
    assert other.status_code == 201 and other.json()["id"] != first.json()["id"]


async def forget_answers(site: Site) -> None:
    """What a process leaves that was killed between its decision and its answer."""
    for shard in range(site.ledger.shards):
        state = site.ledger.snapshot(shard)
        for key in [key for key in state.records if key.kind == "answer"]:
            site.ledger._states[shard].records.pop(key)
    site.serve()


async def test_a_process_that_is_killed_before_it_answers_leaves_one_tenant_and_the_repeat_gets_it() -> None:
    site = Site()
    root = await site.caller()
    key = {"Idempotency-Key": "k"}
    body = {"name": "P", "kind": "partner", "parent_id": "root", "contact": {"email": "a@example.org"}}
    first = await root.post("/tenants", json=body, headers=key)
    await forget_answers(site)
    token = root.headers["authorization"].partition(" ")[2]
    again = await site.bearer(token).post("/tenants", json=body, headers=key)
    assert (again.status_code, again.text) == (201, first.text)
    changed = await site.bearer(token).put(
        f"/tenants/{first.json()['id']}", json={"version": 1, "enabled": False}, headers=key
    )
    await forget_answers(site)
    repeated = await site.bearer(token).put(
        f"/tenants/{first.json()['id']}", json={"version": 1, "enabled": False}, headers=key
    )
    assert (repeated.status_code, repeated.text) == (200, changed.text)
    assert (await site.bearer(token).delete(f"/tenants/{first.json()['id']}", headers=key)).status_code == 204
    await forget_answers(site)
    assert (await site.bearer(token).delete(f"/tenants/{first.json()['id']}", headers=key)).status_code == 204
    refused(await site.bearer(token).delete(f"/tenants/{first.json()['id']}"), 404, "1005")


async def test_a_refusal_is_answered_again_too_and_kept_for_a_day() -> None:
    site = Site()
    root = await site.caller()
    tenant = await new(root, "root", "partner", "P")
    key = {"Idempotency-Key": "k"}
    path = f"/tenants/{tenant['id']}"
    refused(await root.delete(path, headers=key), 409, "1006")
    await made(await root.put(path, json={"enabled": False}))
    again = await root.delete(path, headers=key)
    refused(again, 409, "1006")
    assert again.headers["idempotency-replayed"] == "true"
    site.now_ms += 25 * 60 * 60 * 1000
    await site.settle()
    kinds = [key.kind for shard in range(4) for key in site.ledger.snapshot(shard).records]
    assert "answer" not in kinds


async def test_nothing_but_its_own_record_comes_of_what_is_only_kept() -> None:
    site = Site()
    root = await site.caller()
    tenant = await new(root, "root", "partner", "P", internal_tag="t")
    profile = await site.read(records.profile_key(tenant["id"]))
    assert profile.internal_tag == "t"
