"""The one FastAPI application, put together from its subjects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI

from service.http import asyncapi, errors, health, metrics


def create(
    *,
    reasons: Callable[[], Sequence[str]],
    render_metrics: Callable[[], bytes],
    metrics_content_type: str,
    events: dict[str, Any],
) -> FastAPI:
    """``reasons`` says why the service is not ready; ``events`` is the AsyncAPI document."""
    application = FastAPI(title="Apportion", version=str(events["info"]["version"]), docs_url=None, redoc_url=None)
    errors.install(application)
    application.include_router(health.router(reasons))
    application.include_router(metrics.router(render_metrics, metrics_content_type))
    application.include_router(asyncapi.router(events))
    return application
