"""Decisions in the making.

A ``View`` is what one batch sees of one shard: records as loaded, and over them what the batch itself has decided so
far. A ``Draft`` turns one event into one transaction and notes every record it reads: those are what the transaction
expects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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

SCARCE_MS = 60_000  # so long after a refusal, decisions bring all their attempts at once
SCARCE_TENANTS_MAX = 100_000
PLACEMENTS_MAX = 10_000  # kept in the process, with the decisions that are remembered with them


class Placement:
    """Where a tenant stands: its way up, whose items it uses, and what keeps it from acquiring anything.

    It is kept from batch to batch while the records that it was made from are the same; ``remembered`` is for what
    else follows from nothing but the placement.
    """

    __slots__ = (
        "blocked",
        "customer",
        "editions",
        "expect",
        "items",
        "kind",
        "limited",
        "path",
        "remembered",
        "tags",
    )  # fmt: skip - as a list, its names can be compared with what __init__ says of them

    def __init__(self, catalog: Catalog, way: Sequence[tuple[str, Versioned]], above: Mapping[str, Versioned]) -> None:
        """``way`` are the tenants from the tenant itself up to its direct partner, ``above`` those with items."""
        self.path = tuple(name for name, _ in way)  # root is not in it
        # A unit uses its customer's items and quotas.
        self.customer = next((name for name, entry in way if entry.value.kind != "unit"), self.path[0])
        self.items: Items = above[self.customer].value or records.NO_ITEMS
        self.editions = assignment_rules.edition_of(catalog, self.items.enabled)  # by application
        # Items with a hard quota somewhere on the path: nothing else can be refused by a quota.
        self.limited: frozenset[str] = frozenset().union(
            *(entry.value.limited for entry in above.values() if entry.value)
        )
        self.blocked = tuple(name for name, entry in way if not entry.value.acquires)  # disabled, suspended, deleted
        pricing = next(entry.value.pricing_mode for name, entry in way if name == self.customer)
        self.tags = tuple(  # pricing modes of the path, for usage announcements
            (name, pricing if entry.value.kind == "unit" else entry.value.pricing_mode) for name, entry in way
        )
        self.kind: str = way[0][1].value.kind
        self.expect = (
            *(Expectation(records.tenant_key(name), entry.version) for name, entry in way),
            *(Expectation(records.items_key(name), entry.version) for name, entry in above.items()),
        )
        self.remembered: dict[Any, Any] = {}

    @property
    def edition(self) -> str | None:
        """The edition or billing mode to name in announcements."""
        return next(iter(self.editions.values()), None)


class Placements:
    """Placements as last made by this process; the oldest are dropped first."""

    def __init__(self, size_max: int = PLACEMENTS_MAX) -> None:
        self._kept: dict[str, Placement] = {}
        self._size_max = size_max

    def get(self, tenant: str) -> Placement | None:
        """What was made of the tenant last; it may be out of date."""
        return self._kept.get(tenant)

    def keep(self, tenant: str, placement: Placement) -> None:
        """Remember a placement that was made from records as they are stored."""
        self._kept.pop(tenant, None)
        self._kept[tenant] = placement
        if len(self._kept) > self._size_max:
            del self._kept[next(iter(self._kept))]


class Cause(NamedTuple):
    """What led to a decision: the id of the event (or request), and its trace."""

    id: str
    traceparent: str | None = None


class Step:
    """One attempt in the making, with records as objects. Its lists come to be when they are first asked for."""

    take: list[Take]
    limits: list[Limit]
    idle: list[Place]
    probe: bool = False
    put: list[tuple[RecordKey, Any]]
    delete: list[RecordKey]
    index: list[IndexChange]
    timers: list[Timer]
    wait: Wait | None = None
    unwait: list[tuple[str, str]]
    forget: list[tuple[Place, str]]
    wake: list[Wake]
    emit: list[Emission]

    def __getattr__(self, part: str) -> Any:
        if part not in _LISTS:
            raise AttributeError(part)
        made: list[Any] = []
        self.__dict__[part] = made
        return made

    def include(self, key: IndexKey, member: str) -> None:
        """``member`` belongs to the index from now on."""
        self.index.append(IndexChange(key, member, present=True))

    def exclude(self, key: IndexKey, member: str) -> None:
        """``member`` belongs to the index no longer."""
        self.index.append(IndexChange(key, member, present=False))

    def build(self) -> Attempt:
        """The attempt as the ledger takes it."""
        parts = self.__dict__
        if "put" in parts:
            put = [(key, value if type(value) is bytes else records.encode(value)) for key, value in self.put]
            parts = {**parts, "put": put}
        return Attempt(**parts)


_new: Any = tuple.__new__  # half the cost of a NamedTuple's own constructor
_LISTS = frozenset(Step.__annotations__) - {"probe", "wait"}


class Scarcity:
    """Where a quota has refused something lately, as far as this process knows.

    Elsewhere a decision brings its best attempt only. It is a guess about cost and never about what is right: the
    ledger decides, and where it refuses that attempt it is asked again with all of them.
    """

    def __init__(self) -> None:
        self._until_ms: dict[str, int] = {}  # by tenant

    def note(self, tenants: Iterable[str], now_ms: int) -> None:
        """Quotas of these tenants have refused something."""
        if len(self._until_ms) >= SCARCE_TENANTS_MAX:
            self._until_ms.clear()
        for tenant in tenants:
            self._until_ms[tenant] = now_ms + SCARCE_MS

    def is_on(self, path: Iterable[str], now_ms: int) -> bool:
        """Whether it is known of any tenant of a path."""
        known = self._until_ms
        return bool(known) and any(known.get(tenant, 0) > now_ms for tenant in path)


class View:
    """What one batch sees of one shard. ``now_ms`` is the moment of its decisions, the same for all of them. Without
    ``scarcity`` everything counts as scarce."""

    def __init__(
        self,
        shard: int,
        catalog: Catalog,
        now_ms: int,
        cache: Cache,
        placements: Placements,
        scarcity: Scarcity | None,
        population_max: int,
    ) -> None:
        self.shard = shard
        self.catalog = catalog
        self.now_ms = now_ms
        self.population_max = population_max  # workloads of a customer that are switched at once
        self.transactions: list[Transaction] = []
        self._cache = cache
        self._entries: dict[RecordKey, Versioned] = {}  # as the batch itself has left them, else as loaded
        self._undo: list[tuple[int, RecordKey, Versioned | None]] = []
        self.cached_writes: list[tuple[int, RecordKey]] = []  # by transaction: what the process' cache must not keep
        self._noted: dict[RecordKey, int] = {}
        self._placements: dict[str, Placement] = {}
        self._kept = placements
        self._scarcity = scarcity

    def missing(self, keys: Iterable[RecordKey]) -> list[RecordKey]:
        """Those of the records that are not at hand."""
        entries = self._entries
        return [key for key in keys if key not in entries and self.peek(key) is None]

    def take_in(self, records_read: Mapping[RecordKey, Versioned]) -> None:
        """Further records, as read."""
        for key, entry in records_read.items():
            self._entries.setdefault(key, entry)

    def peek(self, key: RecordKey) -> Versioned | None:
        """A record if it is at hand; None where it was not loaded."""
        entry = self._entries.get(key)
        if entry is None and Cache.takes(key):
            entry = self._cache.get(key)
            if entry is not None:
                self._entries[key] = entry
        return entry

    def read(self, key: RecordKey) -> Versioned:
        """A record; raises ``MissingError`` where it was not loaded."""
        entry = self._entries.get(key) or self.peek(key)
        if entry is None:
            raise MissingError(key)
        return entry

    def add(self, transaction: Transaction, first: Step) -> None:
        """Take a decision in; the batch goes on as if its first attempt were applied."""
        number = len(self.transactions) + 1
        self.transactions.append(transaction)
        parts = first.__dict__
        for key, value in parts.get("put", ()):
            self._decide(number, key, value)
        for key in parts.get("delete", ()):
            self._decide(number, key, None)

    def note(self, key: RecordKey) -> None:
        """The decision that was taken in last raises a count that the ledger keeps, and that it does not show yet."""
        self._noted.setdefault(key, len(self.transactions))

    def noted(self, key: RecordKey) -> bool:
        """Whether this batch itself has raised a count."""
        return key in self._noted

    def _decide(self, number: int, key: RecordKey, value: Any) -> None:
        self._undo.append((number, key, self._entries.get(key)))
        self._entries[key] = _new(Versioned, (-number, value))
        if Cache.takes(key):
            self.cached_writes.append((number, key))
            if key[0] == "tenant":
                self._placements.clear()

    def undo(self, count: int) -> None:
        """Take back every decision but the first ``count``."""
        del self.transactions[count:]
        self._noted = {key: number for key, number in self._noted.items() if number <= count}
        self.cached_writes = [each for each in self.cached_writes if each[0] <= count]
        while self._undo and self._undo[-1][0] > count:
            _, key, before = self._undo.pop()
            if before is None:
                del self._entries[key]
            else:
                self._entries[key] = before
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
            found = self._known_placement(tenant) or self._place(tenant)
            if found is not None:
                self._placements[tenant] = found
        return found

    def is_abundant(self, placement: Placement) -> bool:
        """Whether no quota on the way up is known to have refused anything lately."""
        return self._scarcity is not None and not self._scarcity.is_on(placement.path, self.now_ms)

    def _known_placement(self, tenant: str) -> Placement | None:
        """The placement of an earlier batch, where its records are still the same; a version is never given twice."""
        kept = self._kept.get(tenant)
        if kept is None:
            return None
        for key, version in kept.expect:
            entry = self.peek(key)
            if entry is None or entry.version != version:
                return None
        return kept

    def _place(self, tenant: str) -> Placement | None:
        way = list(self._way(tenant))
        if not way or any(entry.value is None for _, entry in way):
            return None
        above = {name: self.read(records.items_key(name)) for name, entry in way if entry.value.kind != "unit"}
        placement = Placement(self.catalog, way, above)
        if all(version >= 0 for _, version in placement.expect):
            self._kept.keep(tenant, placement)
        return placement

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
        self.provisional = False  # further steps are built only where the ledger refuses these
        self._expect: dict[RecordKey, int] = {}
        self._placements: list[Placement] = []
        self._balances: list[Balance] = []
        self._tags: dict[str, str] = {}

    def step(self) -> Step:
        """A further attempt, tried where those before it are refused."""
        step = Step()
        self.steps.append(step)
        return step

    def read(self, key: RecordKey) -> Any:
        """A record, or None; the decision depends on it from now on."""
        version, value = self.view.read(key)
        self._expect[key] = version
        return value

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
        if found is not None and found not in self._placements:
            self._placements.append(found)
        return found

    def expect_balance(self, tenant: str, item: str, account: Account) -> None:
        """The decision depends on what is used of an item on a tenant."""
        self._balances.append(Balance(Place(tenant, item), account.used, account.reserved))

    def tag(self, tenant: str, pricing_mode: str) -> None:
        """Say the pricing mode that a tenant's usage is announced with."""
        self._tags[tenant] = pricing_mode

    def close(self) -> None:
        """Hand the transaction to the view; a draft without steps only moves the position."""
        steps = self.steps or [Step()]
        self.view.add(
            Transaction(
                attempts=[step.build() for step in steps],
                expect=list(self._expect.items()),
                standing=[placement.expect for placement in self._placements],
                balances=self._balances,
                source=self._source,
                position=self.position,
                idempotency_key=self.once,
                cause=self.cause.id,
                tags=self._all_tags(),
                provisional=self.provisional,
            ),
            steps[0],
        )

    def _all_tags(self) -> tuple[tuple[str, str], ...]:
        if len(self._placements) == 1 and not self._tags:
            return self._placements[0].tags  # the same object for all decisions of a tenant
        tags = {name: tag for placement in self._placements for name, tag in placement.tags}
        return tuple({**tags, **self._tags}.items())


NOTHING_KNOWN = Workload()
