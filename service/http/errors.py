"""Every error has the same body (docs/domain.md 9), whoever raised it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from service.ledger.errors import LedgerUnavailable

INTERNAL = "1000"
DOMAIN = "apportion"

log = structlog.get_logger(__name__)


class ApiError(Exception):
    """An answer other than success. ``code`` is one of docs/domain.md 9, or the HTTP status where none of them fits."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        context: Mapping[str, Any] | None = None,
        info: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.context = dict(context or {})
        self.info = info
        self.headers = dict(headers or {})
        if status == 401:
            self.headers.setdefault("WWW-Authenticate", "Bearer")


def body(code: str, message: str, context: Mapping[str, Any] | None = None, info: str = "") -> dict[str, Any]:
    """The body of an error."""
    return {
        "error": {
            "code": code,
            "domain": DOMAIN,
            "message": message,
            "context": dict(context or {}),
            "details": {"info": info},
        }
    }


def install(application: FastAPI) -> None:
    """Answer every error with the body."""
    application.add_exception_handler(ApiError, _api_error)
    application.add_exception_handler(HTTPException, _http_error)
    application.add_exception_handler(RequestValidationError, _malformed)
    application.add_exception_handler(LedgerUnavailable, _unavailable)
    application.add_exception_handler(Exception, _internal)


async def _api_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return response(error)


def response(error: ApiError) -> JSONResponse:
    """The answer that an error is."""
    return JSONResponse(body(error.code, error.message, error.context, error.info), error.status, error.headers)


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse(body(str(error.status_code), str(error.detail)), error.status_code, headers=error.headers)


async def _malformed(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    fields = {_printable(".".join(map(str, each["loc"]))): _printable(each["msg"]) for each in error.errors()}
    return JSONResponse(body("400", "The request is malformed.", {"fields": fields}), 400)


def _printable(text: str) -> str:
    """A text of the client's that can stand in an answer: half a character cannot."""
    return text.encode("utf-8", "replace").decode()


async def _unavailable(_: Request, error: Exception) -> JSONResponse:
    log.warning("the ledger did not answer a request", reason=str(error))
    # Whether a change was made is not known: with an Idempotency-Key it may be asked for again.
    text = "The ledger does not answer; try again, with the same Idempotency-Key where something is changed."
    return JSONResponse(body("503", text), 503, {"Retry-After": "1"})


async def _internal(request: Request, error: Exception) -> JSONResponse:
    log.error("a request failed", method=request.method, path=request.url.path, exc_info=error)
    return JSONResponse(body(INTERNAL, "The service failed; its logs say why."), 500)
