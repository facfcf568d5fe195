"""The contract of the events: the AsyncAPI document, and a page to read it on."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, JSONResponse

from service.http import asyncapi_page


def router(events: dict[str, Any]) -> APIRouter:
    """Both forms of the document; it never changes while the process lives."""
    routes = APIRouter(tags=["contract"])
    page = asyncapi_page.render(events)

    @routes.get("/asyncapi.json", summary="The AsyncAPI 3 document of all events")
    async def document() -> JSONResponse:
        return JSONResponse(events)

    @routes.get("/asyncapi", summary="The same as a page to read", response_class=HTMLResponse)
    async def readable() -> HTMLResponse:
        return HTMLResponse(page)

    return routes
