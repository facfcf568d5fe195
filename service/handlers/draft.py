"""Decisions in the making.

A ``View`` is what one batch sees of one shard: records as loaded, and over them what the batch itself has decided so
far. A ``Draft`` turns one event into one transaction and notes every record it reads: those are what the transaction
expects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from service import records
from service.catalog import Catalog
from service.ledger.transaction import (
    Account,
    Attempt,
    Balance,
    Emission,
    Expectation,
    IndexChange,
    IndexKey,
    Limit,
    Place,
    RecordKey,
    Take,
    Timer,
    Transaction,
    Wait,
    Wake,
)
from service.records import Cache, Items, MissingError, Plan, Reservation, Tenant, Versioned, Workload
from service.rules import assignment as assignment_rules
from service.rules import tenants as tenant_rules


class Placement(NamedTuple):
    """Where a tenant stands: its way up, whose items it uses, and what keeps it from acquiring anything."""

    path: tuple[str, ...]  # from the tenant up to its direct partner; root is not in it
    customer: str  # the tenant whose items and quotas count: a unit uses its customer's
    items: Items
    editions: Mapping[str, str]  # by application
    limited: frozenset[str]  # items with a hard quota somewhere on the path: nothing else can be refused by a quota
    blocked: tuple[str, ...]  # tenants of the path that are disabled, suspended or deleted
    tags: tuple[tuple[str, str], ...]  # pricing modes of the path, for usage announcements
    kind: str
    expect: tuple[Expectation, ...]

    @property
    def edition(self) -> str | None:
        """The edition or billing mode to name in announcements."""
        return next(iter(self.editions.values()), None)


class Cause(NamedTuple):
    """What led to a decision: the id of the event (or request), and its trace."""

    id: str
    traceparent: str | None = None


class Step:
    """One attempt in the making, with records as objects."""

    __slots__ = (
        "delete",
        "emit",
        "forget",
        "idle",
        "index",
        "limits",
        "probe",
        "put",
        "take",
        "timers",
        "unwait",
        "wait",
        "wake",
    )

    def __init__(self) -> None:
        self.take: list[Take] = []
        self.limits: list[Limit] = []
        self.idle: list[Place] = []
        self.probe = False
        self.put: list[tuple[RecordKey, Any]] = []
        self.delete: list[RecordKey] = []
        self.index: list[IndexChange] = []
        self.timers: list[Timer] = []
        self.wait: Wait | None = None
        self.unwait: list[tuple[str, str]] = []
        self.forget: list[tuple[Place, str]] = []
        self.wake: list[Wake] = []
        self.emit: list[Emission] = []

    def include(self, key: IndexKey, member: str) -> None:
        """``member`` belongs to the index from now on."""
        self.index.append(IndexChange(key, member, present=True))

    def exclude(self, key: IndexKey, member: str) -> None:
        """``member`` belongs to the index no longer."""
        self.index.append(IndexChange(key, member, present=False))

    def build(self) -> Attempt:
        """The attempt as the ledger takes it."""
        return Attempt(
            take=self.take,
            limits=self.limits,
            idle=self.idle,
            probe=self.probe,
            put=[(key, value if type(value) is bytes else records.encode(value)) for key, value in self.put],
            delete=self.delete,
            index=self.index,
            timers=self.timers,
            wait=self.wait,
            unwait=self.unwait,
            forget=self.forget,
            wake=self.wake,
            emit=self.emit,
        )


class View:
    """What one batch sees of one shard. ``now_ms`` is the moment of its decisions, the same for all of them."""

    def __init__(self, shard: int, catalog: Catalog, now_ms: int, cache: Cache) -> None:
        self.shard = shard
        self.catalog = catalog
        self.now_ms = now_ms
        self.transactions: list[Transaction] = []
        self._cache = cache
        self._loaded: dict[RecordKey, Versioned] = {}
        self._decided: dict[RecordKey, Versioned] = {}
        self._undo: list[tuple[int, RecordKey, Versioned | None]] = []
        self._noted: dict[RecordKey, int] = {}
        self._placements: dict[str, Placement] = {}

    def has(self, key: RecordKey) -> bool:
        """Whether a record is at hand, loaded or in the process' cache."""
        if key in self._loaded:
            return True
        cached = self._cache.get(key) if Cache.takes(key) else None
        if cached is not None:
            self._loaded[key] = cached
        return cached is not None

    def take_in(self, records_read: Mapping[RecordKey, Versioned]) -> None:
        """Further records, as read."""
        self._loaded.update(records_read)

    def peek(self, key: RecordKey) -> Versioned | None:
        """A record if it is at hand; None where it was not loaded."""
        entry = self._decided.get(key) or self._loaded.get(key)
        return entry if entry is not None or not self.has(key) else self._loaded[key]

    def read(self, key: RecordKey) -> Versioned:
        """A record; raises ``MissingError`` where it was not loaded."""
        entry = self._decided.get(key) or self._loaded.get(key)
        if entry is None:
            if not self.has(key):
                raise MissingError(key)
            entry = self._loaded[key]
        return entry

    def add(self, transaction: Transaction, first: Step) -> None:
        """Take a decision in; the batch goes on as if its first attempt were applied."""
        number = len(self.transactions) + 1
        self.transactions.append(transaction)
        for key, value in first.put:
            self._decide(number, key, value)
        for key in first.delete:
            self._decide(number, key, None)

    def note(self, key: RecordKey) -> None:
        """The decision that was taken in last raises a count that the ledger keeps, and that it does not show yet."""
        self._noted.setdefault(key, len(self.transactions))

    def noted(self, key: RecordKey) -> bool:
        """Whether this batch itself has raised a count."""
        return key in self._noted

    def _decide(self, number: int, key: RecordKey, value: Any) -> None:
        self._undo.append((number, key, self._decided.get(key)))
        self._decided[key] = Versioned(-number, value)
        if key.kind == "tenant":
            self._placements.clear()

    def undo(self, count: int) -> None:
        """Take back every decision but the first ``count``."""
        del self.transactions[count:]
        self._noted = {key: number for key, number in self._noted.items() if number <= count}
        while self._undo and self._undo[-1][0] > count:
            _, key, before = self._undo.pop()
            if before is None:
                del self._decided[key]
            else:
                self._decided[key] = before
            if key.kind == "tenant":
                self._placements.clear()

    def is_placed(self, tenant: str) -> bool:
        """Whether it is known where a tenant stands, so that nothing of its way up is to be read."""
        if tenant in self._placements:
            return True
        try:
            return self.placement(tenant) is not None
        except MissingError:
            return False

    def placement(self, tenant: str) -> Placement | None:
        """Where a tenant stands, None where it or a parent does not exist."""
        found = self._placements.get(tenant)
        if found is None:
            found = self._place(tenant)
            if found is not None:
                self._placements[tenant] = found
        return found

    def _place(self, tenant: str) -> Placement | None:
        way = list(self._way(tenant))
        if not way or any(entry.value is None for _, entry in way):
            return None
        customer = next((name for name, entry in way if entry.value.kind != "unit"), tenant)
        above = {name: self.read(records.items_key(name)) for name, entry in way if entry.value.kind != "unit"}
        items = above[customer].value or records.NO_ITEMS
        customer_pricing = next(entry.value.pricing_mode for name, entry in way if name == customer)
        return Placement(
            path=tuple(name for name, _ in way),
            customer=customer,
            items=items,
            editions=assignment_rules.edition_of(self.catalog, items.enabled),
            limited=frozenset().union(*(entry.value.limited for entry in above.values() if entry.value)),
            blocked=tuple(name for name, entry in way if not entry.value.acquires),
            tags=tuple(
                (name, customer_pricing if entry.value.kind == "unit" else entry.value.pricing_mode)
                for name, entry in way
            ),
            kind=way[0][1].value.kind,
            expect=(
                *(Expectation(records.tenant_key(name), entry.version) for name, entry in way),
                *(Expectation(records.items_key(name), entry.version) for name, entry in above.items()),
            ),
        )

    def _way(self, tenant: str) -> Iterator[tuple[str, Versioned]]:
        name = tenant
        for _ in range(tenant_rules.DEPTH_MAX + 1):
            if name == tenant_rules.ROOT:
                return
            entry = self.read(records.tenant_key(name))
            yield name, entry
            if entry.value is None:
                return
            name = entry.value.parent_id


class Draft:
    """One transaction in the making. What it reads is what it expects."""

    def __init__(
        self, view: View, cause: Cause, source: str | None = None, position: int = 0, once: str | None = None
    ) -> None:
        self.view = view
        self.catalog = view.catalog
        self.now_ms = view.now_ms
        self.cause = cause
        self.steps: list[Step] = []
        self._source = source
        self.position = position
        self.once = once  # makes it happen once where it has no position
        self._expect: dict[RecordKey, int] = {}
        self._balances: list[Balance] = []
        self._tags: dict[str, str] = {}

    def step(self) -> Step:
        """A further attempt, tried where those before it are refused."""
        step = Step()
        self.steps.append(step)
        return step

    def read(self, key: RecordKey) -> Any:
        """A record, or None; the decision depends on it from now on."""
        entry = self.view.read(key)
        self._expect[key] = entry.version
        return entry.value

    def tenant(self, tenant: str) -> Tenant | None:
        """A tenant's record; root has one that never changes."""
        if tenant == tenant_rules.ROOT:
            return records.ROOT_TENANT
        found: Tenant | None = self.read(records.tenant_key(tenant))
        return found

    def items(self, tenant: str) -> Items:
        """A tenant's items; none where nothing was ever set."""
        found: Items | None = self.read(records.items_key(tenant))
        return found or records.NO_ITEMS

    def plan(self, tenant: str, plan: str) -> Plan | None:
        """A plan's record, or None."""
        found: Plan | None = self.read(records.plan_key(tenant, plan))
        return found

    def workload(self, tenant: str, workload: str) -> Workload:
        """A workload's record; an empty one where nothing is known of it."""
        found: Workload | None = self.read(records.workload_key(tenant, workload))
        return found or NOTHING_KNOWN

    def reservation(self, tenant: str, reservation: str) -> Reservation | None:
        """A reservation's record, or None."""
        found: Reservation | None = self.read(records.reservation_key(tenant, reservation))
        return found

    def placement(self, tenant: str) -> Placement | None:
        """Where a tenant stands; the decision depends on the whole way up."""
        found = self.view.placement(tenant)
        if found is not None:
            for key, version in found.expect:
                self._expect[key] = version
            self._tags.update(found.tags)
        return found

    def expect_balance(self, tenant: str, item: str, account: Account) -> None:
        """The decision depends on what is used of an item on a tenant."""
        self._balances.append(Balance(Place(tenant, item), account.used, account.reserved))

    def tag(self, tenant: str, pricing_mode: str) -> None:
        """Say the pricing mode that a tenant's usage is announced with."""
        self._tags[tenant] = pricing_mode

    def close(self) -> None:
        """Hand the transaction to the view; a draft without steps only moves the position."""
        first = self.steps[0] if self.steps else Step()
        attempts: Sequence[Attempt] = [step.build() for step in self.steps] or [Attempt()]
        self.view.add(
            Transaction(
                attempts=attempts,
                expect=[Expectation(key, version) for key, version in self._expect.items()],
                balances=self._balances,
                source=self._source,
                position=self.position,
                idempotency_key=self.once,
                cause=self.cause.id,
                tags=tuple(self._tags.items()),
            ),
            first,
        )


NOTHING_KNOWN = Workload()
