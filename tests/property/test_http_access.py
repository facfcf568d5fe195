"""Who reaches what over HTTP, on every route of the OpenAPI document: its own tenant and those below it."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import httpx
import jwt
import pytest

from service.http import application, scopes, tokens
from service.rules.tenants import ROOT
from tests.unit.http.site import Site

PARENTS = {
    "dist-a": ROOT,
    "msp-a": "dist-a",
    "cust-a": "msp-a",
    "unit-a": "cust-a",
    "msp-b": "dist-a",
    "cust-b": "msp-b",
    "dist-z": ROOT,
    "cust-z": "dist-z",
}
KINDS = {"dist": "partner", "msp": "partner", "cust": "customer", "unit": "unit"}
ITEMS = ("pw_base_workstations", "local_storage")
NOBODY = "nobody"
APPLICATION = "6e6d758d-8e74-3ae3-ac84-50eb0dff12eb"


class Operation(NamedTuple):
    """A method on a path, with what its document says."""

    method: str
    path: str
    document: dict[str, Any]

    @property
    def is_public(self) -> bool:
        return self.path in application.PUBLIC

    @property
    def names_a_tenant(self) -> bool:
        return "{tenant_id}" in self.path


async def a_site() -> Site:
    site = Site()
    for tenant, parent in PARENTS.items():
        await site.upsert(tenant, parent, KINDS[tenant.partition("-")[0]])
        if not tenant.startswith("unit"):
            await site.set_items(tenant, *ITEMS)
    return site


def operations(site: Site) -> list[Operation]:
    paths = site.application.openapi()["paths"]
    return [
        Operation(method.upper(), path, document) for path, some in paths.items() for method, document in some.items()
    ]


def below(tenant: str) -> set[str]:
    """A tenant and everybody below it."""
    found = {tenant}
    for child, parent in PARENTS.items():
        if parent in found:
            found.add(child)
    return found


async def ask(caller: httpx.AsyncClient, operation: Operation, tenant: str, client_id: str) -> httpx.Response:
    """Ask for a tenant in every way that an operation has: in its path, its query and its body."""
    path = operation.path.replace("{tenant_id}", tenant).replace("{client_id}", client_id)
    path = path.replace("{application_id}", APPLICATION)
    for name in [each["name"] for each in operation.document.get("parameters", ()) if each["in"] == "path"]:
        path = path.replace(f"{{{name}}}", "some")
    wanted = {each["name"] for each in operation.document.get("parameters", ()) if each["in"] == "query"}
    everywhere = ("parent_id", "subtree_root_id", "subtree_root_tenant_id", "uuids", "tenants", "tenant_id")
    query = {name: tenant for name in everywhere if name in wanted}
    body = {
        "name": f"child of {tenant}",
        "kind": "customer",
        "parent_id": tenant,
        "tenant_id": tenant,
        "type": "api_client",
        "offering_items": [{"name": ITEMS[0], "status": 1, "quota": {"value": 5, "overage": 0}}],
        "items": [{"tenant_id": tenant, "usage_name": "local_storage", "value": 1}],
        "reservation_id": "some",
        "ttl_seconds": 60,
        "workload_id": "some",
        "application_id": APPLICATION,
        "target_edition": "pck_per_gigabyte",
        "offering_item": ITEMS[0],
    }
    if "/reservations" in path:
        body["items"] = {ITEMS[0]: 1}
    content = json.dumps(body) if "requestBody" in operation.document else None
    return await caller.request(operation.method, f"http://service{path}", params=query, content=content)


async def records_of(site: Site, tenants: set[str]) -> dict[Any, Any]:
    """Everything that the ledger holds of tenants."""
    found: dict[Any, Any] = {}
    for shard in range(site.ledger.shards):
        snapshot = site.ledger.snapshot(shard)
        found |= {key: record for key, record in snapshot.records.items() if key.tenant in tenants}
        found |= {key: account for key, account in snapshot.accounts.items() if key[0] in tenants}
        found |= {key: members for key, members in snapshot.indexes.items() if key.tenant in tenants}
    return found


@pytest.mark.parametrize("own", ["dist-a", "msp-a", "cust-a", "unit-a", "msp-b", "cust-z", ROOT])
async def test_no_route_lets_a_caller_see_or_change_anything_but_its_own_tenant_and_those_below(own: str) -> None:
    site = await a_site()
    caller = await site.caller(own)
    for operation in operations(site):
        if operation.is_public:
            continue
        absent = await ask(caller, operation, NOBODY, NOBODY)
        for target in [*PARENTS, ROOT]:
            if target in below(own) or own == ROOT:
                continue
            client_id = await site.client(target)
            before = await records_of(site, {target})
            answer = await ask(caller, operation, target, client_id)
            assert await records_of(site, {target}) == before, (operation, target)
            shown = answer.text.replace(target, "*").replace(client_id, "*")
            assert (answer.status_code, shown) == (absent.status_code, absent.text.replace(NOBODY, "*")), operation


@pytest.mark.parametrize("own", ["dist-a", "msp-a", "cust-a", ROOT])
async def test_every_route_with_a_tenant_serves_those_who_reach_it(own: str) -> None:
    site = await a_site()
    for operation in operations(site):
        if not operation.names_a_tenant:
            continue
        for target in sorted(below(own)) if own != ROOT else [*PARENTS, ROOT]:
            if operation.method != "GET":
                site = await a_site()  # each write meets the tree as it was made
            answer = await ask(await site.caller(own), operation, target, NOBODY)
            assert answer.status_code != 401, (operation, target, answer.text)
            if answer.status_code == 404:
                assert answer.json()["error"]["code"] != "1005", (operation, target, answer.text)
            if operation.method == "GET":
                assert answer.status_code in (200, 400, 404), (operation, target, answer.text)


@pytest.mark.parametrize("own", ["dist-a", "msp-a", "cust-a"])
async def test_what_only_a_tenant_above_may_change_is_refused_to_the_tenant_itself(own: str) -> None:
    site = await a_site()
    caller = await site.caller(own)
    before = await records_of(site, {own})
    asked = [
        await caller.put(f"/tenants/{own}/offering_items", json={"offering_items": [{"name": ITEMS[0], "status": 0}]}),
        await caller.put(f"/tenants/{own}", json={"enabled": False}),
        await caller.put(f"/tenants/{own}", json={"pricing_mode": "suspended"}),
        await caller.put(f"/tenants/{own}", json={"payment_model": "prepaid"}),
        await caller.delete(f"/tenants/{own}"),
        await caller.delete(f"/applications/{APPLICATION}/bindings/tenants/{own}"),
    ]
    assert [(each.status_code, each.json()["error"]["code"]) for each in asked] == [(403, "1002")] * len(asked)
    assert await records_of(site, {own}) == before
    renamed = await caller.put(f"/tenants/{own}", json={"name": "Another name", "contact": {"email": "a@b.example"}})
    assert renamed.status_code == 200, renamed.text


async def test_a_tenant_cannot_be_put_where_the_caller_does_not_reach() -> None:
    site = await a_site()
    caller = await site.caller("msp-a")
    for parent in ("dist-a", "msp-b", "dist-z", ROOT, NOBODY):
        answer = await caller.put("/tenants/cust-a", json={"parent_id": parent})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "1005"), parent


# --- tokens


async def bad_tokens(site: Site) -> dict[str, str | None]:
    client_id = await site.client(ROOT)
    good = (await site.api.tokens.issue(client_id, ROOT, scopes.ALL))["access_token"]
    claims = jwt.decode(good, options={"verify_signature": False})
    header = jwt.get_unverified_header(good)
    (key,) = await site.api.tokens.keys()
    (foreign,) = tokens.read_keys(tokens.make_key())

    def signed(changes: dict[str, Any], private: Any = key.private) -> str:
        return jwt.encode({**claims, **changes}, private, "ES256", headers={"kid": header["kid"]})

    begin, payload, _ = good.split(".")
    return {
        "none": None,
        "empty": "",
        "garbage": "garbage",
        "expired": signed({"exp": site.now_ms // 1000 - 1}),
        "of a foreign key": signed({}, foreign.private),
        "for another audience": signed({"aud": "others"}),
        "of another issuer": signed({"iss": "https://issuer.example"}),
        "of a client that is not there": signed({"sub": "nobody"}),
        "of a client of another tenant": signed({"tenant_id": "dist-a"}),
        "unsigned": jwt.encode(claims, None, algorithm="none", headers={"kid": header["kid"]}),
        "without its signature": f"{begin}.{payload}.",
    }


async def test_every_route_that_is_not_public_refuses_every_token_that_is_not_right() -> None:
    site = await a_site()
    for what, token in (await bad_tokens(site)).items():
        caller = site.bearer(token)
        for operation in operations(site):
            if not operation.is_public:
                answer = await ask(caller, operation, "cust-a", NOBODY)
                assert answer.status_code == 401, (what, operation, answer.text)
                assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_token_is_worth_nothing_once_its_client_or_its_tenant_is_gone() -> None:
    site = await a_site()
    root, caller = await site.caller(), await site.caller("cust-z")
    mine = (await caller.get("/users/me")).json()["id"]
    assert (await root.delete(f"/clients/{mine}")).status_code == 204
    assert (await caller.get("/users/me")).status_code == 401
    other = await site.caller("cust-z")
    assert (await root.put("/tenants/cust-z", json={"enabled": False})).status_code == 200
    assert (await other.get("/users/me")).status_code == 200
    assert (await root.delete("/tenants/cust-z")).status_code == 204
    assert (await other.get("/users/me")).status_code == 401


@pytest.mark.parametrize("scope", scopes.ALL)
async def test_a_scope_is_enough_for_its_own_routes_only(scope: str) -> None:
    site = await a_site()
    caller = await site.caller("dist-a", scope)
    may = {
        "tenant_admin": (await caller.put("/tenants/cust-a", json={"name": "n"})).status_code,
        "licensing_admin": (
            await caller.put("/tenants/cust-a/offering_items", json={"offering_items": []})
        ).status_code,
        "usage_reporter": (await caller.put("/tenants/usages", json={"items": []})).status_code,
        "viewer": (await caller.get("/tenants/cust-a")).status_code,
    }
    expected = {name: 200 if name in (scope, "viewer") else 403 for name in may}
    assert may == expected


# --- that nothing can be forgotten


def ungated(site: Site) -> list[str]:
    """Routes that anybody may use though nobody has said so."""
    return [
        str(route.path)
        for route, is_gated in application.gated(site.application)
        if not is_gated and route.path not in application.PUBLIC
    ]


async def test_every_route_that_is_not_public_has_a_gate_and_taking_it_from_any_one_is_found() -> None:
    site = Site()
    assert ungated(site) == []
    with_gate = [route for route, is_gated in application.gated(site.application) if is_gated]
    assert len(with_gate) > 15
    for route in with_gate:
        dependencies = route.dependant.dependencies
        kept = dependencies[:]
        dependencies.clear()
        assert ungated(site) == [route.path]
        dependencies.extend(kept)
    assert ungated(site) == []


async def test_a_client_cannot_be_given_more_than_its_maker_has() -> None:
    site = await a_site()
    caller = await site.caller("dist-a", "tenant_admin")
    body = {"tenant_id": "msp-a", "type": "api_client"}
    made = (await caller.post("/clients", json=body)).json()
    assert made["scopes"] == ["tenant_admin"]
    refused = await caller.post("/clients", json={**body, "scopes": ["licensing_admin"]})
    assert refused.status_code == 403 and refused.json()["error"]["code"] == "1002"
