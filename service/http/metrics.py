"""The metrics, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response


def router(render: Callable[[], bytes], content_type: str) -> APIRouter:
    """``render`` gives the text at this moment."""
    routes = APIRouter(tags=["operation"])

    @routes.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(render(), headers={"content-type": content_type})

    return routes
