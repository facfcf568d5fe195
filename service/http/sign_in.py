"""Signing in: OAuth 2 client credentials for a token, and the keys that tokens are verified with."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import parse_qs, unquote

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from service.handlers import clients
from service.http import credentials
from service.http.access import Api, malformed
from service.http.shapes import Token
from service.http.tokens import unauthorized

FORM_LENGTH_MAX = 8192  # bytes
COST = 20.0  # requests that a sign-in counts as: a secret takes long to verify
SECRET_LENGTH_MAX = 512

routes = APIRouter(tags=["sign-in"])

_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "grant_type": {"type": "string", "enum": ["client_credentials"]},
                        "client_id": {"type": "string", "description": "Where HTTP Basic does not say it."},
                        "client_secret": {"type": "string"},
                        "scope": {"type": "string", "description": "Ignored: a client has the scopes it was given."},
                    },
                    "required": ["grant_type"],
                },
                "example": {"grant_type": "client_credentials"},
            }
        },
    },
    "security": [{"basic": []}],
}


@routes.post("/api/2/idp/token", response_model=Token, openapi_extra=_FORM, summary="A token for a client's secret")
async def issue(request: Request) -> Response:
    """Client id and secret come by HTTP Basic, or in the form."""
    api: Api = request.app.state.api
    form = await _form(request)
    if form.get("grant_type") != "client_credentials":
        raise malformed("The grant type is client_credentials.")
    client_id, secret = _basic(request.headers.get("authorization")) or (
        form.get("client_id", ""),
        form.get("client_secret", ""),
    )
    if not client_id or not secret or len(secret) > SECRET_LENGTH_MAX:
        raise unauthorized("A client id and a secret are needed.")
    api.rates.spend(f"sign-in/{client_id}", COST)
    known = await clients.find(api.ledger, client_id)
    if not await credentials.matches(secret, known.secret_hash if known else None) or known is None:
        raise unauthorized("There is no such client, or its secret is another one.")
    answer = await api.tokens.issue(client_id, known.tenant_id, known.scopes)
    return JSONResponse(answer, headers={"Cache-Control": "no-store"})


@routes.get("/.well-known/jwks.json", summary="The keys that tokens are verified with")
async def keys(request: Request) -> JSONResponse:
    """More than one while a key is being changed."""
    api: Api = request.app.state.api
    return JSONResponse({"keys": [key.public for key in await api.tokens.keys()]})


async def _form(request: Request) -> dict[str, str]:
    body = await request.body()
    if len(body) > FORM_LENGTH_MAX:
        raise malformed("The form is too long.")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=20)
    except ValueError:
        raise malformed("The body is not a form.") from None
    return {name: values[-1] for name, values in fields.items()}


def _basic(header: str | None) -> tuple[str, str] | None:
    """Client id and secret of HTTP Basic; None where it is not used."""
    kind, _, text = (header or "").partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        client_id, _, secret = base64.b64decode(text.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise unauthorized("HTTP Basic cannot be read.") from None
    return unquote(client_id), unquote(secret)
