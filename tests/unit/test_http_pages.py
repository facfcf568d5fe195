"""What the operational part of HTTP answers, without a server around it."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from schemas.asyncapi import asyncapi_document
from service import http
from service.http import asyncapi_page
from service.http.errors import ApiError

DOCUMENT = asyncapi_document("x.")


@pytest.fixture
def reasons() -> list[str]:
    """What stands in the way of being ready."""
    return []


@pytest.fixture
def application(reasons: list[str]) -> FastAPI:
    return http.create(
        reasons=lambda: reasons,
        render_metrics=lambda: b"metric 1\n",
        metrics_content_type="text/plain",
        events=DOCUMENT,
    )


async def ask(application: FastAPI, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        return await client.get(path)


async def test_readiness_names_every_reason_against_it(application: FastAPI, reasons: list[str]) -> None:
    assert (await ask(application, "/health/ready")).json() == {"status": "ready", "reasons": []}
    reasons += ["no Kafka", "no ledger"]
    answer = await ask(application, "/health/ready")
    assert answer.status_code == 503 and answer.json()["reasons"] == ["no Kafka", "no ledger"]
    assert (await ask(application, "/health/live")).status_code == 200


async def test_every_error_has_the_one_body_and_tells_nothing_of_the_inside(application: FastAPI) -> None:
    @application.get("/refused")
    async def refused() -> None:
        raise ApiError(403, "1002", "It may not.", {"tenant": "c"}, "more")

    @application.get("/failing")
    async def failing(number: int) -> None:
        raise RuntimeError("secret")

    answer = await ask(application, "/refused")
    assert answer.status_code == 403
    assert answer.json() == {
        "error": {
            "code": "1002",
            "domain": "apportion",
            "message": "It may not.",
            "context": {"tenant": "c"},
            "details": {"info": "more"},
        }
    }
    malformed = await ask(application, "/failing?number=x")
    assert malformed.status_code == 400 and "query.number" in malformed.json()["error"]["context"]["fields"]
    failed = await ask(application, "/failing?number=1")
    assert failed.status_code == 500 and failed.json()["error"]["code"] == "1000" and "secret" not in failed.text


async def test_metrics_are_handed_on_as_they_are(application: FastAPI) -> None:
    answer = await ask(application, "/metrics")
    assert answer.text == "metric 1\n" and answer.headers["content-type"] == "text/plain"


def test_the_page_shows_every_channel_message_and_schema_and_loads_nothing() -> None:
    page = asyncapi_page.render(DOCUMENT)
    for channel in DOCUMENT["channels"].values():
        assert channel["address"] in page
    for message in DOCUMENT["components"]["messages"].values():
        assert message["name"] in page and asyncapi_page.escape(message["summary"]) in page
    for name in DOCUMENT["components"]["schemas"]:
        assert f"id='schema-{name}'" in page
    assert "src=" not in page and "http-equiv" not in page and "@import" not in page


def test_texts_of_the_document_cannot_become_markup() -> None:
    hostile = {**DOCUMENT, "info": {"title": "<script>", "version": "1", "description": "<b>&"}}
    page = asyncapi_page.render(hostile)
    assert "<script>" not in page and "&lt;b&gt;&amp;" in page
