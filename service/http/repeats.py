"""A question that is asked again is answered alike: the first answer to an ``Idempotency-Key`` is kept for a day.

What must not happen twice, the ledger itself keeps from happening twice (``Permit.tell``); what is kept here is only
what was said then. A process that is killed between the two leaves the change without its answer, and the repeat gets
an answer made anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute

from service import records
from service.http import errors
from service.http.errors import ApiError
from service.ledger.base import Ledger
from service.ledger.errors import LedgerUnavailable
from service.ledger.transaction import Attempt, RecordKey, Timer, Transaction

HEADER = "Idempotency-Key"
KEY_LENGTH_MAX = 255  # characters
KEPT_MS = 24 * 60 * 60 * 1000
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_UNDECIDED = frozenset({401, 408, 429})  # they say nothing of what was asked

log = structlog.get_logger(__name__)


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """An answer: its status and its body."""

    status: int
    body: bytes


class Question(msgspec.Struct, frozen=True):
    """A write that can be told from others: ``digest`` is made of the caller, its key and the route."""

    caller: str
    digest: str
    shard: int

    @property
    def key(self) -> RecordKey:
        """Where its answer is kept."""
        return records.answer_key(self.caller, self.digest)


class RepeatedError(Exception):
    """The question was answered before; this is no error but the way out of a dependency."""

    def __init__(self, kept: Kept) -> None:
        super().__init__()
        self.kept = kept


def digest_of(request: Request, caller: str) -> str | None:
    """What stands for the question, None where the caller wants no repeats. Raises ``ApiError`` for a bad key."""
    key = request.headers.get(HEADER)
    if key is None or request.method not in WRITES:
        return None
    if not 0 < len(key) <= KEY_LENGTH_MAX:
        raise ApiError(400, "400", f"An {HEADER} has 1 to {KEY_LENGTH_MAX} characters.")
    asked = "\0".join((caller, key, request.method, request.url.path))
    return hashlib.blake2b(asked.encode(), digest_size=20).hexdigest()


async def keep(ledger: Ledger, question: Question, kept: Kept, now_ms: int) -> None:
    """Keep the first answer; a later one changes nothing."""
    member = f"forget/{question.key.kind}/{question.key.tenant}/{question.key.id}"
    step = Attempt(
        put=[(question.key, msgspec.msgpack.encode(kept))],
        timers=[Timer(member, now_ms + KEPT_MS)],
    )
    await ledger.commit(question.shard, [Transaction([step], [(question.key, 0)])], now_ms)


def read(payload: bytes) -> Kept:
    """An answer that was kept."""
    return msgspec.msgpack.decode(payload, type=Kept)


class Route(APIRoute):
    """A route that keeps its answers to questions with a key, and gives answers to be read a tag (``ETag``)."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with what is done before and after it."""
        answer = super().get_route_handler()

        async def answer_once(request: Request) -> Response:
            try:
                response = await answer(request)
            except ApiError as error:
                if not 400 <= error.status < 500 or error.status in _UNDECIDED:
                    raise
                response = errors.response(error)
            question: Question | None = getattr(request.state, "question", None)
            if question is not None and response.status_code < 500:
                await _keep(request, question, Kept(response.status_code, bytes(response.body)))
            return _tagged(request, response)

        return answer_once


async def _keep(request: Request, question: Question, kept: Kept) -> None:
    api = request.app.state.api
    try:
        await keep(api.ledger, question, kept, api.engine.clock())
    except LedgerUnavailable as error:  # the change is made; a repeat would be answered anew
        log.warning("an answer could not be kept", reason=error.reason)


def _tagged(request: Request, response: Response) -> Response:
    if request.method != "GET" or response.status_code != 200:
        return response
    tag = f'"{hashlib.blake2b(bytes(response.body), digest_size=12).hexdigest()}"'
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={"ETag": tag})
    response.headers["ETag"] = tag
    return response


def install(application: FastAPI) -> None:
    """Answer what was answered before."""

    async def repeat(_: Request, error: Exception) -> Response:
        assert isinstance(error, RepeatedError)
        media_type = "application/json" if error.kept.body else None
        return Response(error.kept.body, error.kept.status, {"Idempotency-Replayed": "true"}, media_type)

    application.add_exception_handler(RepeatedError, repeat)
