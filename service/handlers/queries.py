"""The read side: what a tenant uses, what its workloads hold, why somebody waits (docs/contracts.md 4).

Everything is read in bulk, without a cache, and never changes anything. The structures are the JSON of the contract:
``msgspec.to_builtins`` makes it.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from service import records
from service.catalog import Catalog
from service.handlers import announcements, outlines, reservations, tree
from service.handlers.tree import Node, NotFoundError
from service.ledger.base import Ledger
from service.ledger.transaction import SILENT_PREFIX, Account, RecordKey, Waiting
from service.records import Items, ItemState, Reservation, Workload
from service.rules import tenants as rules

HOLDERS_MAX = 10  # the largest ones are shown
WAITING_MAX = 1000  # those who wait longest are shown
PAGE = 1000  # records of one round trip
PORTIONS_MAX = 50  # round trips for one page of what is mostly left out
OFF = ItemState(0)
ROOT_HAS = ItemState(1)  # root has every item, without a limit


class ItemNotFoundError(NotFoundError):
    """The catalogue has no such offering item."""

    def __init__(self, offering_item: str) -> None:
        super().__init__(f"The catalogue has no offering item {offering_item}.")
        self.offering_item = offering_item


class WorkloadNotFoundError(NotFoundError):
    """The tenant has no such workload, or it is not registered."""

    def __init__(self, tenant_id: str, workload_id: str) -> None:
        super().__init__(f"Tenant {tenant_id} has no workload {workload_id}.")
        self.tenant_id = tenant_id
        self.workload_id = workload_id


class Quota(msgspec.Struct, frozen=True):
    """``value`` None is unlimited, and ``version`` is 0 then; ``overage`` None is soft (docs/domain.md 4)."""

    value: int | None
    overage: int | None
    version: int

    @classmethod
    def of(cls, state: ItemState) -> Quota:
        """The quota of an item as others see it."""
        return cls(state.value, state.overage, state.shown_version)

    @property
    def limit(self) -> int | None:
        """What may be used; None where nothing is refused."""
        return None if self.value is None or self.overage is None else self.value + self.overage


class UsageRow(msgspec.Struct, frozen=True):
    """An item that is enabled on a tenant or used there."""

    offering_item: str
    usage_name: str
    edition: str | None
    unit: str
    status: int
    used: int
    reserved: int
    quota: Quota


class Usage(msgspec.Struct, frozen=True):
    """What a tenant and all below it use."""

    tenant_id: str
    items: list[UsageRow]


class WorkloadRow(msgspec.Struct, frozen=True):
    """What a workload holds, and what it waits for and why. ``denials`` are those of ``assignment.denied``."""

    workload_id: str
    type: str
    holding: dict[str, int]
    plan_ids: list[str]
    uncovered_features: list[str]
    waiting: bool
    denials: list[dict[str, Any]]


class Workloads(msgspec.Struct, frozen=True):
    """The registered workloads of a tenant, by id."""

    tenant_id: str
    workloads: list[WorkloadRow]


class Level(msgspec.Struct, frozen=True):
    """One tenant on the way up. ``available`` is how much more its own quota allows; None where it refuses nothing."""

    tenant_id: str
    kind: str
    used: int
    reserved: int
    quota: Quota
    available: int | None


class WaitingRow(msgspec.Struct, frozen=True):
    """A workload that was refused an item, and since when it waits."""

    tenant_id: str
    workload_id: str
    since: str


class Explanation(msgspec.Struct, frozen=True):
    """Who uses an item on a tenant, what limits it up to root, and who waits for it below the tenant.

    ``largest_holders`` are workloads (``tenant_id, workload_id, quantity``) for a customer or unit, and the tenants
    right below (``tenant_id, used``) for all others.
    """

    tenant_id: str
    offering_item: str
    levels: list[Level]
    largest_holders: list[dict[str, Any]]
    waiting: list[WaitingRow]


# --- what a tenant uses


async def usage(ledger: Ledger, catalog: Catalog, tenant_id: str) -> Usage:
    """Items that are enabled on the tenant or used there, in the order of the catalogue.

    A unit has its customer's items and quotas, and its own usage; root's usage is the sum over the tenants right below
    it (docs/domain.md 2). Raises ``TenantNotFoundError``.
    """
    node = await tree.find(ledger, tenant_id)
    if node is tree.ROOT_NODE:
        return (await usages(ledger, catalog, [(node, node)]))[0]
    way = await tree.climb(ledger, node)
    return (await usages(ledger, catalog, [(node, tree.customer_of(way))]))[0]


async def usages(ledger: Ledger, catalog: Catalog, wanted: Sequence[tuple[Node, Node]]) -> list[Usage]:
    """The same for many tenants at once, each with the tenant whose items and quotas count for it."""
    accounts = await _accounts(ledger, [node for node, _ in wanted if node is not tree.ROOT_NODE])
    if any(node is tree.ROOT_NODE for node, _ in wanted):
        accounts[rules.ROOT] = await _root_accounts(ledger)
    items = await items_of(ledger, catalog, [node for _, node in wanted])
    return [
        _usage_of(catalog, node.tenant_id, own, accounts.get(node.tenant_id, {}))
        for (node, _), own in zip(wanted, items, strict=True)
    ]


def _usage_of(catalog: Catalog, tenant_id: str, items: Items, accounts: Mapping[str, Account]) -> Usage:
    used = {name for name, account in accounts.items() if account.used and not name.startswith(SILENT_PREFIX)}
    names = _in_order(catalog, used | items.enabled)
    return Usage(tenant_id, [_usage_row(catalog, name, items, accounts.get(name, Account())) for name in names])


async def items_of(ledger: Ledger, catalog: Catalog, nodes: Sequence[Node]) -> list[Items]:
    """The items of tenants, in their order; root has every item."""
    stored = iter(await _items(ledger, [node for node in nodes if node is not tree.ROOT_NODE]))
    everything = Items(dict.fromkeys(catalog.items, ROOT_HAS))
    return [everything if node is tree.ROOT_NODE else next(stored) for node in nodes]


def _usage_row(catalog: Catalog, name: str, items: Items, account: Account) -> UsageRow:
    item = catalog.find_item(name)
    state = items.states.get(name, OFF)
    return UsageRow(
        offering_item=name,
        usage_name=item.usage_name if item else name,
        edition=item.edition if item else None,
        unit=item.unit if item else "quantity",
        status=state.status,
        used=account.used,
        reserved=account.reserved,
        quota=Quota.of(state),
    )


def _in_order(catalog: Catalog, names: Iterable[str]) -> list[str]:
    """As in the catalogue; at the end what an earlier catalogue had."""
    positions = {name: position for position, name in enumerate(catalog.items)}
    return sorted(names, key=lambda name: (positions.get(name, len(positions)), name))


async def _root_accounts(ledger: Ledger) -> dict[str, Account]:
    """What all tenants right below root use together."""
    sums: dict[str, Account] = {}
    for accounts in (await _accounts(ledger, await tree.children(ledger, [tree.ROOT_NODE]))).values():
        for name, account in accounts.items():
            known = sums.get(name, Account())
            sums[name] = Account(known.used + account.used, known.reserved + account.reserved)
    return sums


async def _accounts(ledger: Ledger, nodes: Sequence[Node]) -> dict[str, dict[str, Account]]:
    wanted: dict[int, list[str]] = {}
    for node in nodes:
        wanted.setdefault(node.shard, []).append(node.tenant_id)
    return await ledger.accounts(wanted) if wanted else {}


async def _items(ledger: Ledger, nodes: Sequence[Node]) -> list[Items]:
    """The items of tenants, in their order."""
    keys = [(node.shard, records.items_key(node.tenant_id)) for node in nodes]
    wanted: dict[int, list[RecordKey]] = {}
    for shard, key in keys:
        wanted.setdefault(shard, []).append(key)
    stored = await ledger.read(wanted) if wanted else {}
    return [
        records.NO_ITEMS if (record := stored[key]) is None else records.decode(key, record.payload) for _, key in keys
    ]


# --- what workloads hold


async def workloads(ledger: Ledger, tenant_id: str) -> Workloads:
    """The tenant's own registered workloads, by id. Raises ``TenantNotFoundError``."""
    node = await tree.find(ledger, tenant_id)
    if node is tree.ROOT_NODE:
        return Workloads(tenant_id, [])
    found = {name: one async for name, one in scan_workloads(ledger, node) if one.type is not None}
    reasons = await ledger.waiting(node.shard, tenant_id)
    return Workloads(tenant_id, [_workload_row(name, found[name], reasons.get(name)) for name in sorted(found)])


async def workload_page(ledger: Ledger, node: Node, after: str, size: int) -> tuple[list[WorkloadRow], bool]:
    """At most ``size`` registered workloads of a tenant behind the id ``after``, by id, and whether they are the last.

    What a page costs grows with the tenant's workloads: all of them are looked at, as the ledger has no order of ids.
    """
    if node is tree.ROOT_NODE:
        return [], True
    found = [(name, one) async for name, one in scan_workloads(ledger, node) if one.type is not None and name > after]
    some = heapq.nsmallest(size + 1, dict(found).items(), key=lambda entry: entry[0])
    reasons = await ledger.waiting(node.shard, node.tenant_id, [name for name, _ in some[:size]]) if some else {}
    return [_workload_row(name, one, reasons.get(name)) for name, one in some[:size]], len(some) <= size


async def workload(ledger: Ledger, tenant_id: str, workload_id: str) -> WorkloadRow:
    """One workload. Raises ``TenantNotFoundError`` or ``WorkloadNotFoundError``."""
    node = await tree.find(ledger, tenant_id)
    key = records.workload_key(tenant_id, workload_id)
    record = None if node is tree.ROOT_NODE else (await ledger.read({node.shard: [key]}))[key]
    found: Workload | None = record and records.decode(key, record.payload)
    if found is None or found.type is None:
        raise WorkloadNotFoundError(tenant_id, workload_id)
    reasons = await ledger.waiting(node.shard, tenant_id, [workload_id])
    return _workload_row(workload_id, found, reasons.get(workload_id))


async def scan_workloads(ledger: Ledger, node: Node) -> AsyncIterator[tuple[str, Workload]]:
    """Every workload of a tenant of which something is known, registered or not; one may come twice."""
    cursor = 0
    while True:
        cursor, page = await ledger.scan(node.shard, "workload", node.tenant_id, cursor, PAGE)
        for name, record in page.items():
            yield name, records.decode(records.workload_key(node.tenant_id, name), record.payload)
        if not cursor:
            return


def _workload_row(workload_id: str, found: Workload, reasons: Waiting | None) -> WorkloadRow:
    return WorkloadRow(
        workload_id=workload_id,
        type=found.type or "",
        holding=dict.fromkeys(sorted(found.holding), 1),
        plan_ids=sorted(plan for plan, link in found.links.items() if link.applied),
        uncovered_features=list(found.uncovered),
        waiting=found.waiting,
        denials=denials_of(reasons) if reasons is not None else [],
    )


def denials_of(reasons: Waiting) -> list[dict[str, Any]]:
    """Why somebody waits, as it was announced: the service's own reasons first, then the quotas in the way."""
    own = outlines.reasons_of(reasons.static)
    return own + [announcements.quota_denial(denial) for denial in reasons.denials]


# --- why


async def explain(
    ledger: Ledger, catalog: Catalog, tenant_id: str, offering_item: str, top: str = rules.ROOT
) -> Explanation:
    """What limits an item on the way from a tenant up to ``top``, who holds it and who waits for it.

    Raises ``TenantNotFoundError`` or ``ItemNotFoundError``.
    """
    node = await tree.find(ledger, tenant_id)
    if catalog.find_item(offering_item) is None:
        raise ItemNotFoundError(offering_item)
    survey = await _survey(ledger, node, offering_item)
    levels = await _levels(ledger, node, offering_item)
    if top == rules.ROOT:
        levels.append(await _root_level(ledger, offering_item))
    else:
        levels = levels[: 1 + next((n for n, level in enumerate(levels) if level.tenant_id == top), 0)]
    return Explanation(
        tenant_id=tenant_id,
        offering_item=offering_item,
        levels=levels,
        largest_holders=survey.holders,
        waiting=survey.waiting,
    )


async def _levels(ledger: Ledger, node: Node, offering_item: str) -> list[Level]:
    """The tenant and those above it, without root. A unit has no quota of its own: its customer's is the next level."""
    if node is tree.ROOT_NODE:
        return []
    way = await tree.climb(ledger, node)
    items = await _items(ledger, way)
    accounts = await _accounts(ledger, way)
    customer = items[way.index(tree.customer_of(way))]
    levels: list[Level] = []
    for each, own in zip(way, items, strict=True):
        account = accounts[each.tenant_id].get(offering_item, Account())
        is_unit = each.tenant.kind == "unit"
        state = ROOT_HAS if is_unit else own.states.get(offering_item, OFF)
        enabled = offering_item in (customer if is_unit else own).enabled
        available = _available(Quota.of(state), account.used) if enabled else 0
        levels.append(
            Level(each.tenant_id, each.tenant.kind, account.used, account.reserved, Quota.of(state), available)
        )
    return levels


def _available(quota: Quota, used: int) -> int | None:
    return None if quota.limit is None else max(0, quota.limit - used)


async def _root_level(ledger: Ledger, offering_item: str) -> Level:
    account = (await _root_accounts(ledger)).get(offering_item, Account())
    return Level(rules.ROOT, "root", account.used, account.reserved, Quota.of(ROOT_HAS), None)


class _Survey(NamedTuple):
    holders: list[dict[str, Any]]
    waiting: list[WaitingRow]


async def _survey(ledger: Ledger, node: Node, offering_item: str) -> _Survey:
    """Go through everything below a tenant, once: who holds the item, and who was refused it."""
    below_customer = node.tenant.kind in rules.WITH_WORKLOADS
    held: list[tuple[int, str, str]] = []
    waiting: list[tuple[int, str, str]] = []
    async for portion in tree.walk(ledger, node):
        for each, reasons in await tree.each([n for n in portion if n.shard >= 0], lambda n: _reasons(ledger, n)):
            waiting += [
                (why.since_ms, each.tenant_id, who) for who, why in reasons.items() if _concerns(why, offering_item)
            ]
        waiting = heapq.nsmallest(WAITING_MAX, waiting)
        if below_customer:
            for each, found in await tree.each(portion, lambda n: _held(ledger, n, offering_item)):
                held += [(-quantity, each.tenant_id, name) for name, quantity in found.items()]
            held = heapq.nsmallest(HOLDERS_MAX, held)
    if below_customer:
        holders = [{"tenant_id": tenant, "workload_id": name, "quantity": -less} for less, tenant, name in held]
    else:
        holders = await _tenants_below(ledger, node, offering_item)
    return _Survey(holders, [WaitingRow(tenant, who, announcements.rfc3339(ms)) for ms, tenant, who in waiting])


async def _tenants_below(ledger: Ledger, node: Node, offering_item: str) -> list[dict[str, Any]]:
    accounts = await _accounts(ledger, await tree.children(ledger, [node]))
    used = [(-some[offering_item].used, tenant) for tenant, some in accounts.items() if offering_item in some]
    return [{"tenant_id": tenant, "used": -less} for less, tenant in heapq.nsmallest(HOLDERS_MAX, used) if less]


async def _reasons(ledger: Ledger, node: Node) -> Mapping[str, Waiting]:
    """Which workloads of a tenant wait, and why; reservations that were refused do not wait, they were answered."""
    if node.tenant.kind not in rules.WITH_WORKLOADS:
        return {}
    reasons = await ledger.waiting(node.shard, node.tenant_id)
    return {who: why for who, why in reasons.items() if "/" not in who}


def _concerns(reasons: Waiting, offering_item: str) -> bool:
    """Whether somebody waits because of the item, on whatever level it is short."""
    if any(denial.item == offering_item for denial in reasons.denials):
        return True
    own = outlines.reasons_of(reasons.static)
    return any(denial.get("offering_item") == offering_item for denial in own)


async def _held(ledger: Ledger, node: Node, offering_item: str) -> dict[str, int]:
    """The workloads of a tenant that hold the item or occupy bytes of it, with the quantity."""
    found: dict[str, int] = {}
    async for name, one in scan_workloads(ledger, node):
        quantity = (offering_item in one.holding) + one.counted.get(offering_item, 0)
        if quantity:
            found[name] = quantity
    return found


# --- who there is


class TenantRow(msgspec.Struct, frozen=True):
    """A tenant as ``tenant.changed`` announces it; ``payment_model`` is the one that counts for it."""

    tenant_id: str
    parent_id: str
    kind: str
    name: str
    enabled: bool
    deleted: bool
    pricing_mode: str
    payment_model: str
    version: int


async def tenant(ledger: Ledger, tenant_id: str) -> TenantRow:
    """One tenant, deleted or not. Raises ``TenantNotFoundError``."""
    node = await tree.find(ledger, tenant_id)
    return _tenant_row(node, await _payment_model_above(ledger, node))


async def tenants(ledger: Ledger, tenant_id: str) -> list[TenantRow]:
    """A tenant and everything below it but deleted ones, each followed by what is below it; siblings by name.

    Raises ``TenantNotFoundError``.
    """
    top = await tree.find(ledger, tenant_id)
    found = [node async for portion in tree.walk(ledger, top) for node in portion]
    below: dict[str, list[Node]] = {}
    for node in found[1:]:
        below.setdefault(node.tenant.parent_id, []).append(node)
    rows: list[TenantRow] = []
    pending = [(top, await _payment_model_above(ledger, top))]
    while pending:
        node, model_above = pending.pop()
        rows.append(_tenant_row(node, model_above))
        siblings = sorted(below.get(node.tenant_id, ()), key=lambda each: rules.comparable(each.tenant.name))
        pending += [(each, rows[-1].payment_model) for each in reversed(siblings)]
    return rows


async def _payment_model_above(ledger: Ledger, node: Node) -> str:
    """The payment model that a tenant has unless it says otherwise."""
    above = [] if node is tree.ROOT_NODE else (await tree.climb(ledger, node))[1:]
    return next((each.tenant.payment_model for each in above if each.tenant.payment_model), _ROOT_PAYMENT_MODEL)


def _tenant_row(node: Node, model_above: str) -> TenantRow:
    known = node.tenant
    return TenantRow(
        tenant_id=node.tenant_id,
        parent_id=known.parent_id,
        kind=known.kind,
        name=known.name,
        enabled=known.enabled,
        deleted=known.deleted,
        pricing_mode=known.pricing_mode,
        payment_model=known.payment_model or model_above,
        version=known.version,
    )


_ROOT_PAYMENT_MODEL = records.ROOT_TENANT.payment_model or ""


# --- what is reserved


class ReservationRow(msgspec.Struct, frozen=True):
    """A reservation as it was announced last; ``denials`` say why it was refused. ``expires_at`` None: it holds
    nothing."""

    reservation_id: str
    state: str
    mode: str
    items: dict[str, int]
    expires_at: str | None
    denials: list[dict[str, Any]]


async def reservation(ledger: Ledger, node: Node, reservation_id: str) -> ReservationRow | None:
    """One reservation of a tenant, also one that has ended within the last day; None where there is none."""
    if node is tree.ROOT_NODE:
        return None
    key = records.reservation_key(node.tenant_id, reservation_id)
    record = (await ledger.read({node.shard: [key]}))[key]
    if record is None:
        return None
    who = reservations.waiting_name(reservation_id)
    reasons = await ledger.waiting(node.shard, node.tenant_id, [who])
    return _reservation_row(reservation_id, records.decode(key, record.payload), reasons.get(who))


async def reservation_page(
    ledger: Ledger, node: Node, cursor: int, size: int, *, ended: bool = False
) -> tuple[list[ReservationRow], int]:
    """About ``size`` reservations of a tenant, in no order, and the next cursor (0: there are no more).

    Those that have ended are remembered for a day, and left out unless they are asked for: so a page may be short. As
    with Redis' HSCAN, one may come twice.
    """
    if node is tree.ROOT_NODE:
        return [], 0
    found: dict[str, Reservation] = {}
    for _ in range(PORTIONS_MAX):
        cursor, page = await ledger.scan(node.shard, "reservation", node.tenant_id, cursor, size)
        for name, record in page.items():
            one = records.decode(records.reservation_key(node.tenant_id, name), record.payload)
            if ended or one.state == reservations.HELD:
                found[name] = one
        if not cursor or len(found) >= size:
            break
    who = [reservations.waiting_name(name) for name, one in found.items() if one.state == reservations.DENIED]
    reasons = await ledger.waiting(node.shard, node.tenant_id, who) if who else {}
    return [
        _reservation_row(name, found[name], reasons.get(reservations.waiting_name(name))) for name in sorted(found)
    ], cursor


def _reservation_row(reservation_id: str, found: Reservation, reasons: Waiting | None) -> ReservationRow:
    is_held = found.state == reservations.HELD
    return ReservationRow(
        reservation_id=reservation_id,
        state="granted" if is_held else found.state,
        mode="all_or_nothing",
        items=dict(found.items),
        expires_at=announcements.rfc3339(found.expires_at_ms) if is_held else None,
        denials=denials_of(reasons) if reasons is not None else [],
    )
