"""The one place that decides who may do what: every route has a gate from here, and does its work with a ``Permit``.

A gate finds out who asks, whether the caller's scopes are enough, and whether the tenant in the path is the caller's
own or stands below it; anything else is answered as if it did not exist. A permit is the only way for a route to get at
a tenant: it looks for every further one in the same way.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Annotated, Any, NamedTuple

from fastapi import Path, Request

from schemas.base import IDENTIFIER_LENGTH_MAX, Data
from schemas.envelope import Inbound
from service.catalog import Catalog
from service.handlers import clients
from service.handlers.directory import shard_of
from service.handlers.engine import Engine
from service.handlers.tree import Node, customer_of
from service.handlers.work import Arrival, Result, Work
from service.http import refusals, repeats, scopes, tokens
from service.http.batches import Batches, Reads
from service.http.errors import ApiError
from service.http.rates import Rates
from service.http.reach import Reach
from service.http.repeats import Question, RepeatedError
from service.http.scopes import Scope
from service.http.tokens import Caller, OutsideIssuer, Tokens, unauthorized
from service.ledger.base import Ledger
from service.ledger.transaction import Attempt, OutcomeKind, RecordKey, Transaction
from service.rules.tenants import ROOT
from service.settings import Settings

SOURCE = "/apportion/http"  # of the events that requests become
KEYS = "jwt-keys"  # the name of the keys that the ledger keeps where the settings name none
_NAMESPACE = uuid.UUID("7f1d4c0e-5a6b-5c1e-9b0a-3f2e1d4c5b6a")  # of the ids that follow from an Idempotency-Key

TenantId = Annotated[
    str, Path(description="The id of a tenant: the caller's own, or one below it.", max_length=IDENTIFIER_LENGTH_MAX)
]


class Api:
    """What all routes are built on."""

    def __init__(
        self, engine: Engine, tokens: Tokens, rates: Rates, takes_changes: Callable[[], bool] = lambda: True
    ) -> None:
        """``takes_changes`` is false while announcements pile up, because Kafka does not take them."""
        self.engine = engine
        self.ledger: Ledger = engine.ledger
        self.catalog: Catalog = engine.catalog
        self.tokens = tokens
        self.rates = rates
        self.reach = Reach(self.ledger, Reads(self.ledger))
        self.batches = Batches(engine)
        self.takes_changes = takes_changes


def build(engine: Engine, settings: Settings, takes_changes: Callable[[], bool] = lambda: True) -> Api:
    """The API of an engine; ``takes_changes`` as that of ``Api``.

    Raises ``SettingsError`` where the keys of the settings cannot be used.
    """

    async def shared_keys() -> bytes:
        return await clients.shared_secret(engine.ledger, KEYS, tokens.make_key, engine.clock())

    made = Tokens(
        shared_keys,
        keys_file=settings.jwt_keys_file,
        seconds=settings.token_seconds,
        outside=OutsideIssuer.of(settings),
        clock=lambda: engine.clock() / 1000,
    )
    return Api(engine, made, Rates(settings.http_requests_per_second), takes_changes)


class Reached(NamedTuple):
    """A tenant that the caller reaches; ``way`` leads from it up to the caller's own."""

    way: tuple[Node, ...]

    @property
    def node(self) -> Node:
        return self.way[0]

    @property
    def id(self) -> str:
        return self.way[0].tenant_id

    @property
    def items_node(self) -> Node:
        """Whose items and quotas count for it: a unit uses its customer's."""
        return customer_of(self.way)


class Permit:
    """What a caller may do in one request. ``tenant`` is the one of the path; raises where the path has none."""

    def __init__(
        self, api: Api, request: Request, caller: Caller, tenant: Reached | None, question: Question | None
    ) -> None:
        self.api = api
        self.caller = caller
        self.question = question
        self.request_id: str = request.state.request_id
        self._request = request
        self._tenant = tenant

    @property
    def tenant(self) -> Reached:
        """The tenant of the path."""
        assert self._tenant is not None  # the gate was for a route with a tenant
        return self._tenant

    async def reach(self, tenant_id: str, *, deleted: bool = False) -> Reached:
        """A further tenant. Raises ``ApiError`` (404) for one out of reach, as for one that does not exist."""
        found = await self.reach_all([tenant_id], deleted=deleted)
        if not found:
            raise refusals.not_found()
        return found[0]

    async def reach_all(self, tenant_ids: Iterable[str], *, deleted: bool = False) -> list[Reached]:
        """Those of the tenants that are in reach, in their order; without deleted ones unless they are asked for."""
        wanted = list(dict.fromkeys(tenant_ids))
        ways = (await self.api.reach.look(self.caller, wanted)).ways
        found = [Reached(ways[name]) for name in wanted if name in ways]
        return [each for each in found if deleted or not each.node.tenant.deleted]

    def is_own(self, tenant: Reached) -> bool:
        """Whether it is the caller's own tenant, of which only somebody above may change some things."""
        return tenant.id == self.caller.tenant_id

    def refuse_own(self, tenant: Reached, what: str) -> None:
        """Raise ``ApiError`` (403) where a caller would change its own tenant's ``what``."""
        if self.is_own(tenant):
            raise refusals.denied(f"The {what} of your own tenant can be changed only by a tenant above it.")

    def new_id(self, part: str = "") -> str:
        """An id for something new: with an Idempotency-Key, the same one for the same ``part`` of the same question."""
        if self.question is None:
            return str(uuid.uuid4())
        return str(uuid.uuid5(_NAMESPACE, f"{self.question.digest}/{part}"))

    def keep_no_answer(self) -> None:
        """The answer holds a secret: it is made again for a repeat, and kept nowhere."""
        self._request.state.question = None

    async def tell(
        self,
        tenant_id: str,
        type_: str,
        data: Data,
        *,
        way: Sequence[Node] = (),
        version: int | None = None,
        beside: tuple[tuple[RecordKey, Any], ...] = (),
        part: str = "",
    ) -> Result:
        """Hand an event of the tenant to its handler. ``part`` tells the events of one request apart.

        ``tenant_id`` is a tenant in reach, or a new one; ``way`` says which tenants an error may speak of. Raises
        ``ApiError`` for what is refused, and ``LedgerUnavailable``. Asked again with the same key, it answers with what
        was decided the first time.
        """
        if not self.api.takes_changes():
            raise ApiError(503, "503", "Kafka does not take announcements; try again.", headers={"Retry-After": "5"})
        request = self.new_id("event") if self.question else self.request_id
        event = Inbound(
            id=f"{request}/{part}" if part else request,
            source=SOURCE,
            type=type_,
            subject=None,
            time_us=self.api.engine.clock() * 1000,
            tenantid=tenant_id,
            sequence=None,
            traceparent=self._request.headers.get("traceparent"),
            data=data,
        )
        work = Work(Arrival(event, None, version, beside), None, 0)
        work.once = self._once(part)
        result = await self.api.batches.decide(work)
        if result.kind == "rejected":
            if await self.happened(tenant_id, part):
                return Result("duplicate")
            raise refusals.refusal(result, {tenant_id, *(node.tenant_id for node in way)})
        return result

    def _once(self, part: str) -> str | None:
        return f"http/{self.question.digest}/{part}" if self.question else None

    async def happened(self, tenant_id: str, part: str = "") -> bool:
        """Whether an event was applied under this key: what it has changed may be why it is refused now."""
        once = self._once(part)
        shard = (await self.api.ledger.locate([tenant_id])).get(tenant_id) if once is not None else None
        if shard is None:
            return False
        probe = Transaction([Attempt()], idempotency_key=once, check_only=True)
        (outcome,) = await self.api.ledger.commit(shard, [probe], self.api.engine.clock())
        return outcome.kind is OutcomeKind.DUPLICATE and not outcome.denials


# --- the gates

Gate = Callable[..., Awaitable[Permit]]
_gates: set[Gate] = set()


def is_gate(call: object) -> bool:
    """Whether a dependency of a route decides access."""
    return call in _gates


def for_caller(scope: Scope) -> Gate:
    """A gate for routes without a tenant in their path: whatever they look for, they look for it with the permit."""

    async def admit(request: Request) -> Permit:
        return await _admit(request, scope)

    _gates.add(admit)
    return admit


def on_tenant(scope: Scope, *, above: str = "", deleted: bool = False) -> Gate:
    """A gate for routes with ``tenant_id`` in their path.

    ``above`` names what of a tenant the route changes that only a caller above it may change; with ``deleted`` the
    tenant may be a deleted one.
    """

    async def admit(request: Request, tenant_id: TenantId) -> Permit:
        permit = await _admit(request, scope, tenant_id, deleted=deleted)
        if above:
            permit.refuse_own(permit.tenant, above)
        return permit

    _gates.add(admit)
    return admit


async def _admit(request: Request, scope: Scope, tenant_id: str | None = None, *, deleted: bool = False) -> Permit:
    api: Api = request.app.state.api
    caller = await api.tokens.read(_bearer(request))
    api.rates.spend(caller.id)
    if not scopes.permits(caller.scopes, scope):
        raise refusals.denied(f"Your client has not the scope {scope}.")
    digest = repeats.digest_of(request, caller.id)
    extra = Question(caller.id, digest, -1).key if digest else None
    sight = await api.reach.look(caller, () if tenant_id is None else (tenant_id,), extra)
    if not sight.caller:
        raise unauthorized("The client, or its tenant, is not there any more.")
    if sight.extra is not None:
        raise RepeatedError(repeats.read(sight.extra))
    tenant = None
    if tenant_id is not None:
        way = sight.ways.get(tenant_id)
        if not way or (way[0].tenant.deleted and not deleted):
            raise refusals.not_found()
        tenant = Reached(way)
    question = None
    if digest is not None:
        own = sight.ways[caller.tenant_id][0]
        shard = shard_of(ROOT, api.ledger.shards) if own.tenant_id == ROOT else own.shard
        question = Question(caller.id, digest, shard)
    request.state.question = question
    return Permit(api, request, caller, tenant, question)


def _bearer(request: Request) -> str:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise unauthorized("A bearer token is needed.")
    return token.strip()


def malformed(message: str, **context: Any) -> ApiError:
    """What was sent makes no sense."""
    return ApiError(400, "400", message, context)
