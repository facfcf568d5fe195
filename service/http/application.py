"""The one FastAPI application, put together from its subjects."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts

from service.http import (
    access,
    asyncapi,
    clients,
    errors,
    explanations,
    form,
    health,
    metrics,
    offering_items,
    offers,
    repeats,
    reservations,
    shapes,
    sign_in,
    switch_jobs,
    switches,
    tenants,
    usages,
    workloads,
)
from service.http.access import Api
from service.http.errors import ApiError

PUBLIC = frozenset(
    {
        "/health/live",
        "/health/ready",
        "/metrics",
        "/asyncapi.json",
        "/asyncapi",
        "/openapi.json",
        "/api/2/idp/token",
        "/.well-known/jwks.json",
    }
)
"""Everything that may be asked for without a token; every other route has a gate (access.py)."""

# The narrower path before the wider one: `/tenants/usages` is no tenant.
SUBJECTS = (
    sign_in.routes,
    clients.routes,
    usages.routes,
    offering_items.routes,
    offers.routes,
    tenants.routes,
    workloads.routes,
    explanations.routes,
    reservations.routes,
    switches.routes,
    switch_jobs.routes,
)
TIMEOUT_SECONDS = 30.0

_DESCRIPTION = (
    "A licensing engine: tenants, offering items, quotas, usage and switches. Paths below `/api/2` follow the public "
    "account management API of the platform; those below `/api/v1` are our own."
)
_ERRORS = {
    "400": "What was sent makes no sense, or is not allowed",
    "401": "No token, or one that is wrong or expired",
    "403": "The caller may not do that",
    "404": "There is no such thing within the caller's reach",
    "409": "Somebody else was first, or the state does not allow it",
    "413": "The body is larger than 1 MiB",
    "429": "Too many requests; `Retry-After` says when to come again",
    "503": "The ledger does not answer; try again",
}


def create(
    *,
    reasons: Callable[[], Sequence[str]],
    render_metrics: Callable[[], bytes],
    metrics_content_type: str,
    events: dict[str, Any],
    api: Api | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    observe: form.Observe = lambda *_: None,
) -> FastAPI:
    """``reasons`` says why the service is not ready; ``events`` is the AsyncAPI document. Without ``api`` the routes
    can be looked at, and only the operational ones answer. ``observe``: see form.py."""
    application = FastAPI(
        title="Apportion",
        version=str(events["info"]["version"]),
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,
        generate_unique_id_function=_operation_id,
    )
    errors.install(application)
    repeats.install(application)
    application.add_exception_handler(405, _wrong_method)
    application.add_middleware(form.Form, timeout_seconds=timeout_seconds, observe=observe)
    application.include_router(health.router(reasons))
    application.include_router(metrics.router(render_metrics, metrics_content_type))
    application.include_router(asyncapi.router(events))
    application.state.api = api
    for routes in SUBJECTS:
        application.include_router(routes)
    application.openapi = lambda: _document(application)  # type: ignore[method-assign]  # FastAPI's own way to do it
    return application


async def _wrong_method(request: Request, _: Exception) -> JSONResponse:
    """Say which methods a path has, over all of its routes."""
    path = request.scope["path"]
    same: str | None = None  # the path as the first route writes it that it fits; `/tenants/usages` is no tenant
    allowed: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        pattern = getattr(route, "path_regex", None)
        if pattern is not None and pattern.match(path) and same in (None, route.path_format):
            same = route.path_format
            allowed |= route.methods or set()
    headers = {"Allow": ", ".join(sorted(allowed))}
    return errors.response(ApiError(405, "405", "The path does not have this method.", headers=headers))


def gated(application: FastAPI) -> Iterator[tuple[RouteContext, bool]]:
    """Every route, as it is served, with whether a gate decides who may use it."""
    for route in iter_route_contexts(application.routes):
        dependant = getattr(route, "dependant", None)
        yield route, dependant is not None and _has_gate(dependant)


def _has_gate(dependant: Dependant) -> bool:
    return access.is_gate(dependant.call) or any(_has_gate(each) for each in dependant.dependencies)


def _operation_id(route: APIRoute) -> str:
    module = route.endpoint.__module__.rpartition(".")[2]
    return f"{module}_{route.name}"


def _document(application: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with what all routes have in common."""
    if application.openapi_schema is None:
        found = get_openapi(
            title=application.title,
            version=application.version,
            description=application.description,
            routes=application.routes,
        )
        components = found.setdefault("components", {})
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            "basic": {"type": "http", "scheme": "basic", "description": "Client id and secret."},
        }
        _describe(components.setdefault("schemas", {}))
        for route, is_gated in gated(application):
            for method in route.methods or ():
                operation = found["paths"].get(route.path_format or "", {}).get(method.lower())
                if operation is not None:
                    _complete(operation, method, is_gated=is_gated)
        application.openapi_schema = found
    return application.openapi_schema


def _describe(schemas: dict[str, Any]) -> None:
    """What no route names by itself: the body of every error; and answers as they are given (examples.json)."""
    error = shapes.Error.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= error.pop("$defs")
    schemas["Error"] = error
    for name in ("HTTPValidationError", "ValidationError"):  # nobody is answered so
        schemas.pop(name, None)
    text = Path(__file__).with_name("examples.json").read_text(encoding="utf-8")
    for name, example in json.loads(text).items():
        schemas[name].setdefault("example", example)


def _complete(operation: dict[str, Any], method: str, *, is_gated: bool) -> None:
    operation["responses"].pop("422", None)  # what cannot be read is a 400 here
    if is_gated:
        operation["security"] = [{"bearer": []}]
    reference = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    if is_gated or operation.get("security"):
        for status, description in _ERRORS.items():
            operation["responses"].setdefault(status, {"description": description, "content": reference})
    if is_gated and method in repeats.WRITES:
        operation.setdefault("parameters", []).append(
            {
                "name": repeats.HEADER,
                "in": "header",
                "required": False,
                "description": "The same key answers with the first outcome, for a day.",
                "schema": {"type": "string", "minLength": 1, "maxLength": repeats.KEY_LENGTH_MAX},
            }
        )
