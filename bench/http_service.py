"""What `bench http` asks: the HTTP side of the service, and beside it the least that such an endpoint can be.

Both are FastAPI applications in processes of their own, on the same web server with the same settings: ``python -m
bench.http_service service|bare REDIS_URL`` prints one line of JSON once it can be asked, and serves until its standard
input ends.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
import time
from typing import Any

import redis.asyncio
import uvloop
from fastapi import FastAPI
from pydantic import BaseModel

from schemas.asyncapi import asyncapi_document
from schemas.envelope import Inbound
from schemas.offering_items import OfferingItemsSet
from schemas.tenants import TenantUpserted
from service import core, http
from service.handlers import clients, tree
from service.handlers.work import Arrival
from service.http import scopes
from service.http.access import Api
from service.http.server import WebServer
from service.records import ApiClient
from service.settings import Settings

CUSTOMERS = 200
ITEM = "pw_base_workstations"
PLENTY = 10**12  # a hard quota that nobody reaches
COLLECTOR_THRESHOLDS = (100_000, 50, 100)  # those of `apportion serve`


class Body(BaseModel):
    """What the bare endpoint reads: the same body as the service."""

    items: dict[str, int]
    ttl_seconds: int


async def serve_service(redis_url: str) -> None:
    """The whole application on a ledger of its own, with a distributor, an MSP, and its customers with hard quotas."""
    settings = Settings(redis_url=redis_url, kafka_bootstrap_servers="127.0.0.1:9", http_requests_per_second=0)
    async with core.open_core(settings) as opened:
        await opened.ledger.install()
        api = http.build(opened.engine(), settings)
        await _people(api)
        application = http.create(
            reasons=list,
            render_metrics=lambda: b"",
            metrics_content_type="text/plain",
            events=asyncapi_document("x."),
            api=api,
        )
        token = await _token(api)
        paths = [f"/api/v1/tenants/customer-{number}/reservations" for number in range(CUSTOMERS)]
        await _serve(application, {"token": token, "paths": paths, "body": {"items": {ITEM: 1}, "ttl_seconds": 3600}})


async def serve_bare(redis_url: str) -> None:
    """One route that reads a body and makes one call to Redis."""
    application = FastAPI()
    client: Any = redis.asyncio.Redis.from_url(redis_url, max_connections=1000)

    @application.post("/bare", status_code=201)
    async def bare(body: Body) -> dict[str, Any]:
        return {"used": await client.incrby("used", sum(body.items.values()))}

    await _serve(application, {"token": "", "paths": ["/bare"], "body": {"items": {ITEM: 1}, "ttl_seconds": 3600}})


def _arrival(tenant: str, type_: str, data: Any) -> Arrival:
    now_us = time.time_ns() // 1000
    return Arrival(Inbound(f"{type_}/{tenant}", "/bench", type_, None, now_us, tenant, None, None, data))


async def _people(api: Api) -> None:
    places = [("dist", "root", "partner"), ("msp", "dist", "partner")]
    places += [(f"customer-{number}", "msp", "customer") for number in range(CUSTOMERS)]
    for tenant, parent, kind in places:
        quota = {"value": PLENTY, "overage": 0}
        made = TenantUpserted.model_validate({"parent_id": parent, "kind": kind, "name": tenant})
        items = OfferingItemsSet.model_validate({"items": [{"name": ITEM, "status": 1, "quota": quota}]})
        for type_, data in (("tenant.upserted", made), ("offering_items.set", items)):
            (result,) = await api.engine.handle([_arrival(tenant, f"apportion.{type_}.v1", data)])
            assert result.kind == "applied", result


async def _token(api: Api) -> str:
    """The token of a client of the MSP: whose way up is one step from its customers, as it usually is."""
    now_ms = api.engine.clock()
    known = ApiClient("msp", "api_client", scopes.ALL, "", now_ms)
    await clients.create(api.ledger, await tree.find(api.ledger, "msp"), "client", known, now_ms)
    return str((await api.tokens.issue("client", "msp", scopes.ALL))["access_token"])


async def _serve(application: FastAPI, question: dict[str, Any]) -> None:
    server = WebServer(application, "127.0.0.1", 0)
    serving = asyncio.create_task(server.serve())
    gc.collect()
    gc.freeze()
    print(json.dumps({"url": server.url, **question}), flush=True)
    ended = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()
    threading.Thread(
        target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(ended.set_result, None)), daemon=True
    ).start()
    await ended
    server.stop()
    await serving


if __name__ == "__main__":
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    uvloop.run({"service": serve_service, "bare": serve_bare}[sys.argv[1]](sys.argv[2]))
