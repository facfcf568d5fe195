"""Signing in, API clients, keys, outside issuers, and how much one may ask for."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from service import http
from service.handlers import clients
from service.http import form, tokens
from service.http.batches import Batches
from service.ledger.errors import LedgerUnavailable
from service.settings import SettingsError
from tests.unit.http.site import AT_ROOT, Site, made, refused


async def new_client(site: Site, tenant: str = "root", **more: Any) -> dict[str, Any]:
    root = await site.caller()
    answer = await root.post("/clients", json={"tenant_id": tenant, "type": "api_client", **more})
    assert answer.status_code == 201
    found: dict[str, Any] = answer.json()
    return found


async def test_a_client_signs_in_with_its_secret_and_is_whom_its_token_says() -> None:
    site = Site()
    client = await new_client(site)
    answer = await site.sign_in(client["client_id"], client["client_secret"])
    token = await made(answer)
    assert answer.headers["cache-control"] == "no-store"
    assert token["token_type"] == "bearer"
    assert token["expires_on"] == site.now_ms // 1000 + token["expires_in"] and token["expires_in"] > 900
    caller = site.bearer(token["access_token"])
    assert (await made(await caller.get("/users/me")))["id"] == client["client_id"]
    site.now_ms += token["expires_in"] * 1000
    assert (await caller.get("/users/me")).status_code == 401


async def test_a_wrong_secret_an_unknown_client_and_another_grant_are_refused() -> None:
    site = Site()
    client = await new_client(site)
    for who, secret in ((client["client_id"], "wrong"), ("nobody", client["client_secret"]), ("", "")):
        refused(await site.sign_in(who, secret), 401, "401")
    basic = (client["client_id"], client["client_secret"])
    nobody = site.bearer(None)
    refused(await nobody.post("/idp/token", data={"grant_type": "password"}, auth=basic), 400, "400")
    refused(await nobody.post("/idp/token", auth=basic), 400, "400")
    refused(await nobody.post("/idp/token", content=b"\xff", auth=basic), 400, "400")
    in_form = {"grant_type": "client_credentials", "client_id": basic[0], "client_secret": basic[1], "scope": "any"}
    assert (await nobody.post("/idp/token/", data=in_form)).status_code == 200


async def test_a_client_is_shown_without_its_secret_of_which_only_a_hash_is_kept() -> None:
    site = Site()
    client = await new_client(site, data={"name": "mine"})
    root = await site.caller()
    secret = client.pop("client_secret")
    assert await made(await root.get(f"/clients/{client['client_id']}")) == client
    listed = (await made(await root.get("/clients", params={"tenant_id": "root"})))["items"]
    assert client in listed
    known = await clients.find(site.ledger, client["client_id"])
    assert known is not None and known.secret_hash.startswith("$argon2id$") and secret not in str(known)
    refused(await root.get("/clients/nobody"), 404, "1005")


async def test_a_repeat_gets_the_secret_again_though_it_is_kept_nowhere() -> None:
    site = Site()
    root = await site.caller()
    body = {"tenant_id": "root", "type": "api_client"}
    first = await root.post("/clients", json=body, headers={"Idempotency-Key": "k"})
    again = await root.post("/clients", json=body, headers={"Idempotency-Key": "k"})
    assert first.text == again.text
    assert (await site.sign_in(first.json()["client_id"], first.json()["client_secret"])).status_code == 200
    everything = str([site.ledger.snapshot(shard) for shard in range(4)])
    assert first.json()["client_secret"] not in everything
    other = await root.post("/clients", json=body, headers={"Idempotency-Key": "another"})
    assert other.json()["client_secret"] != first.json()["client_secret"]


# --- keys


async def test_all_instances_share_the_keys_that_the_ledger_keeps() -> None:
    site = Site()
    caller = await site.caller()
    token = caller.headers["authorization"].partition(" ")[2]
    site.serve()
    assert (await site.bearer(token).get("/users/me")).status_code == 200
    both = [http.build(site.start(), site.settings) for _ in range(2)]
    assert len({(await each.tokens.keys())[0].id for each in both}) == 1


async def test_a_key_is_changed_in_two_steps_and_no_token_is_lost(tmp_path: Path) -> None:
    old, new = tokens.make_key(), tokens.make_key()
    file = tmp_path / "keys.pem"
    file.write_bytes(old)
    site = Site(jwt_keys_file=file)
    caller = await site.caller()
    token = caller.headers["authorization"].partition(" ")[2]
    file.write_bytes(new + old)
    site.serve()
    assert (await site.bearer(token).get("/users/me")).status_code == 200
    fresh = (await site.caller()).headers["authorization"].partition(" ")[2]
    jwks = (await site.bearer(None).get("http://service/.well-known/jwks.json")).json()["keys"]
    assert len(jwks) == 2 and not any("d" in key for key in jwks)
    key = jwt.PyJWKSet.from_dict({"keys": jwks})[jwt.get_unverified_header(fresh)["kid"]]
    claims = jwt.decode(fresh, key.key, ["ES256"], audience="apportion", options={"verify_iat": False})
    assert claims["tenant_id"] == "root"
    file.write_bytes(new)
    site.serve()
    assert (await site.bearer(token).get("/users/me")).status_code == 401
    assert (await site.bearer(fresh).get("/users/me")).status_code == 200


def test_a_file_of_keys_that_cannot_be_used_is_said_so() -> None:
    with pytest.raises(SettingsError, match="no key"):
        tokens.read_keys(b"nothing")
    with pytest.raises(SettingsError, match="cannot be read"):
        tokens.read_keys(b"-----BEGIN PRIVATE KEY-----\nabcd\n-----END PRIVATE KEY-----")


async def test_tokens_of_the_outside_issuer_are_taken_for_the_tenant_they_name_and_no_others(tmp_path: Path) -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    jwk = {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key())), "kid": "outside"}
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [jwk]}))
    site = Site(
        oidc_issuer="https://issuer.example",
        oidc_audience="apportion-api",
        oidc_jwks=str(file),
        oidc_tenant_claim="org",
    )
    await site.upsert("p", "root", "partner")

    def token(**changes: Any) -> str:
        claims = {
            "iss": "https://issuer.example",
            "aud": "apportion-api",
            "sub": "somebody",
            "org": "p",
            "scope": "viewer openid",
            "exp": site.now_ms // 1000 + 60,
            **changes,
        }
        return jwt.encode(claims, private, "RS256", headers={"kid": "outside"})

    caller = site.bearer(token())
    me = await made(await caller.get("/users/me"))
    assert me["tenant_id"] == "p" and me["scopes"] == ["viewer"]
    refused(await caller.get(AT_ROOT), 404, "1005")
    refused(await caller.put("/tenants/p", json={"name": "x"}), 403, "1002")
    for wrong in ({"iss": "https://other.example"}, {"aud": "apportion"}, {"org": "nobody"}, {"exp": 1}, {"org": None}):
        assert (await site.bearer(token(**wrong)).get("/users/me")).status_code == 401, wrong
    refused(await site.bearer(token(scope="openid")).get("/users/me"), 403, "1002")


# --- bounds


async def test_a_client_that_asks_too_much_is_told_when_to_come_again_and_others_are_not() -> None:
    site = Site(http_requests_per_second=1)
    caller, other = await site.caller(), await site.caller()
    answers = [await caller.get("/users/me") for _ in range(4)]
    assert [each.status_code for each in answers] == [200, 200, 429, 429]
    refused(answers[-1], 429, "429")
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert (await other.get("/users/me")).status_code == 200


async def test_a_ledger_that_does_not_answer_is_a_503_that_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site()
    caller = await site.caller()

    async def away(*_: Any) -> Any:
        raise LedgerUnavailable("connection", "it is away")

    monkeypatch.setattr(site.ledger, "read", away)
    answer = await caller.get("/users/me")
    refused(answer, 503, "503")
    assert answer.headers["retry-after"] == "1"


async def test_nothing_is_changed_while_announcements_pile_up() -> None:
    site = Site()
    caller = await site.caller()
    site.api.takes_changes = lambda: False
    answer = await caller.post("/tenants", json={"name": "P", "kind": "partner", "parent_id": "root"})
    refused(answer, 503, "503")
    assert (await caller.get(AT_ROOT)).status_code == 200


async def test_a_method_that_a_path_has_not_is_answered_with_those_it_has() -> None:
    caller = await Site().caller()
    answer = await caller.patch(AT_ROOT)
    refused(answer, 405, "405")
    assert answer.headers["allow"] == "DELETE, GET, PUT"


async def test_no_request_lasts_longer_than_its_time() -> None:
    async def for_ever(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/x/", "headers": []}
    seen: list[Any] = []
    late = form.Form(for_ever, 0.01, lambda *about: seen.append(about))
    await late(scope, for_ever, send)  # type: ignore[arg-type]  # nothing is ever received
    assert sent[0]["status"] == 503
    assert seen[0][:3] == ("GET", "other", 503)


async def test_requests_are_counted_by_the_path_that_their_route_has() -> None:
    site = Site()
    caller = await site.caller()
    await caller.get(AT_ROOT)
    await caller.get("/nowhere")
    await site.bearer(None).get("/users/me")
    assert [about[:3] for about in site.observed] == [
        ("GET", "/api/2/tenants/{tenant_id}", 200),
        ("GET", "other", 404),
        ("GET", "/api/2/users/me", 401),
    ]


async def test_requests_that_come_together_are_decided_together() -> None:
    site = Site()
    root = await site.caller()
    sizes: list[int] = []
    handle = site.engine.handle_works

    async def counted(works: Any) -> Any:
        sizes.append(len(works))
        return await handle(works)

    site.engine.handle_works = counted  # type: ignore[method-assign]  # to see what it is given
    assert isinstance(site.api.batches, Batches)
    await site.upsert("p", "root", "partner")
    sizes.clear()
    bodies = [{"name": f"c{number}", "kind": "customer", "parent_id": "p"} for number in range(20)]
    answers = await asyncio.gather(*(root.post("/tenants", json=body) for body in bodies))
    assert {each.status_code for each in answers} == {201}
    assert sum(sizes) == 20 and len(sizes) < 20
