"""The HTTP side on the reference ledger, and clients that speak to it as programs do."""

from __future__ import annotations

import uuid
from typing import Any

import httpx

from schemas.asyncapi import asyncapi_document
from service import http
from service.handlers import clients, tree
from service.http import scopes
from service.ledger.reference import ReferenceLedger
from service.records import ApiClient
from service.rules.tenants import ROOT
from service.settings import Settings
from tests.unit.handlers.world import World

ANYBODY = ROOT
AT_ROOT = f"/tenants/{ROOT}"


class Site(World):
    """A world with HTTP in front of it; its clock stands still unless a test moves it."""

    def __init__(self, ledger: ReferenceLedger | None = None, **settings: Any) -> None:
        super().__init__(ledger=ledger)
        self.observed: list[tuple[str, str, int, float]] = []
        self.settings = Settings(**{"http_requests_per_second": 0, **settings})
        self.serve()

    def serve(self) -> None:
        """Another process on the same ledger."""
        self.start()
        self.api = http.build(self.engine, self.settings)
        self.application = http.create(
            reasons=list,
            render_metrics=lambda: b"",
            metrics_content_type="text/plain",
            events=asyncapi_document("x."),
            api=self.api,
            observe=lambda *about: self.observed.append(about),
        )

    async def client(self, tenant: str = ANYBODY, *wanted: str) -> str:
        """A new API client of a tenant; its id. Nobody knows its secret."""
        client_id = str(uuid.uuid4())
        node = await tree.find(self.ledger, tenant)
        known = ApiClient(tenant, "api_client", wanted or scopes.ALL, "", self.now_ms)
        assert await clients.create(self.ledger, node, client_id, known, self.now_ms)
        return client_id

    async def caller(self, tenant: str = ANYBODY, *wanted: str) -> httpx.AsyncClient:
        """Somebody who speaks for a tenant, with these scopes or all."""
        client_id = await self.client(tenant, *wanted)
        token = await self.api.tokens.issue(client_id, tenant, wanted or scopes.ALL)
        return self.bearer(token["access_token"])

    def bearer(self, token: str | None) -> httpx.AsyncClient:
        """Somebody with that token, or with none."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        transport = httpx.ASGITransport(self.application, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://service/api/2", headers=headers)

    async def sign_in(self, client_id: str, secret: str) -> httpx.Response:
        """Ask for a token as programs do."""
        return await self.bearer(None).post(
            "/idp/token", data={"grant_type": "client_credentials"}, auth=(client_id, secret)
        )


async def made(answer: httpx.Response) -> dict[str, Any]:
    """The body of an answer that is a success."""
    assert answer.status_code in (200, 201), answer.text
    found: dict[str, Any] = answer.json()
    return found


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The error of an answer that has to be this one."""
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["code"] == code, error
    return error
