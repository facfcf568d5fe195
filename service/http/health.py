"""Whether the process lives, and whether it can do its work."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastapi import APIRouter
from fastapi.responses import JSONResponse


def router(reasons: Callable[[], Sequence[str]]) -> APIRouter:
    """``reasons`` says what stands in the way of being ready."""
    routes = APIRouter(tags=["operation"])

    @routes.get("/health/live", summary="Whether the process lives")
    async def live() -> JSONResponse:
        return JSONResponse({"status": "live"})

    @routes.get("/health/ready", summary="Whether the ledger and Kafka can be reached", responses={503: {}})
    async def ready() -> JSONResponse:
        found = list(reasons())
        if found:
            return JSONResponse({"status": "not ready", "reasons": found}, 503)
        return JSONResponse({"status": "ready", "reasons": []})

    return routes
