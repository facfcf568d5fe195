"""The outer form of requests (docs/http.md): what clients of the platform send is taken as they send it.

A trailing slash is answered itself, a body is JSON whatever its content type says and has a bound, every request has an
id, and none lasts longer than its time.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http import errors
from service.http.errors import ApiError
from service.settings import MESSAGE_BYTES_MAX

FORM_PATHS = frozenset({"/api/2/idp/token"})  # their bodies are forms
BODY_BYTES_MAX = MESSAGE_BYTES_MAX
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_TOO_LARGE = "A body has at most 1 MiB."
_LATE = ApiError(503, "503", "The answer would take too long; try again.", headers={"Retry-After": "1"})


Observe = Callable[[str, str, int, float], None]


class Form:
    """ASGI middleware around everything. ``observe`` is told method, path, status and seconds of each request."""

    def __init__(self, application: ASGIApp, timeout_seconds: float, observe: Observe) -> None:
        self._application = application
        self._timeout_seconds = timeout_seconds
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        request_id = str(uuid.uuid4())
        scope = {**scope, **_settled(scope), "state": {**scope.get("state", {}), "request_id": request_id}}
        status, size, began = 0, 0, time.perf_counter()

        async def bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > BODY_BYTES_MAX:
                raise HTTPException(413, _TOO_LARGE)
            return message

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id.encode())]}
            await send(message)

        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._application(scope, bounded, named)
        except TimeoutError:
            if status:
                raise
            await errors.response(_LATE)(scope, receive, named)
        finally:
            # What raised something that nobody foresaw is answered further out, with a 500.
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._observe(method, _path_of(scope), status or 500, time.perf_counter() - began)


def _path_of(scope: Scope) -> str:
    """The path as its route writes it: there are few of those."""
    path: str | None = getattr(scope.get("route"), "path", None)
    return path or "other"


def _settled(scope: Scope) -> dict[str, Any]:
    path: str = scope["path"]
    path = path.rstrip("/") or "/"
    if path in FORM_PATHS:
        return {"path": path}
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    return {"path": path, "headers": [*headers, (b"content-type", b"application/json")]}
