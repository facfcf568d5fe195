"""Typed records of tenants, items, workloads, plans and reservations, and loading them in bulk.

A record is read with its version; whatever a decision read, its transaction expects unchanged. Tenants and plans, which
change seldom and are read with every event, are cached in the process: a stale one costs a conflict, never a mistake.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from service import workload
from service.ledger.base import Ledger
from service.ledger.transaction import SILENT_PREFIX, Account, IndexKey, Record, RecordKey
from service.rules import switch_drift, switch_undo
from service.rules.facets import Stamp
from service.rules.tenants import ROOT
from service.workload import Link as Link  # they belong to the records, and have a module of their own
from service.workload import Workload as Workload

CACHED_RECORDS_MAX = 200_000  # tenants and plans kept in the process
PATH_KEYS_MAX = 20  # no tree is deeper
POPULATION_MAX = 200  # workloads of a tenant that are read at once, unless the settings say otherwise
KEYS_CACHED = 65_536  # of one kind: those of tenants and plans come again with every event


class Tenant(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """A tenant. Its items are a record of their own."""

    parent_id: str
    kind: str
    name: str
    enabled: bool
    deleted: bool
    pricing_mode: str
    payment_model: str | None  # None: as the parent's
    version: int
    stamp: Stamp | None
    was_in_production: bool = False
    created_ms: int = 0
    updated_ms: int = 0

    @property
    def acquires(self) -> bool:
        """Whether, as far as this tenant is concerned, something new may be acquired."""
        return self.enabled and not self.deleted and self.pricing_mode != "suspended"


ROOT_TENANT = Tenant(
    parent_id=ROOT,
    kind="root",
    name="root",
    enabled=True,
    deleted=False,
    pricing_mode="production",
    payment_model="pay_as_you_go",
    version=1,
    stamp=None,
)


class ItemState(msgspec.Struct, frozen=True, array_like=True):
    """An offering item on a tenant: its status and quota. ``version`` is the last one given, also while unlimited."""

    status: int
    value: int | None = None
    overage: int | None = None
    version: int = 0
    stamp: Stamp | None = None
    changed_ms: int = 0  # when others last saw it change

    @property
    def shown_version(self) -> int:
        """The version that others see: 0 while unlimited."""
        return 0 if self.value is None else self.version


class Switching(msgspec.Struct, frozen=True, array_like=True):
    """A switch that is under way: the customer is on ``target`` already, and its workloads are moved one by one.

    Units are set aside for the workloads whose records are not newer than ``version`` and hold items of ``source``.
    While it is ``preparing``, nothing has changed yet.
    """

    switch_id: str
    application: str
    source: str
    target: str
    before: tuple[str, ...]  # all enabled items before it
    version: int = 0
    preparing: bool = False
    undoing: bool = False  # it leads the switch of that id back
    aside: bool = True  # False: nothing is set aside, each workload takes what it can get


class Items:
    """The offering items of a tenant by name: those that are enabled, and those that have a hard quota.

    ``switching`` is the switch under way, if there is one: it is read wherever the items are.
    """

    __slots__ = ("enabled", "limited", "states", "switching")

    def __init__(self, states: Mapping[str, ItemState], switching: Switching | None = None) -> None:
        self.states = states
        self.switching = switching
        self.enabled = frozenset(name for name, state in states.items() if state.status)
        self.limited = frozenset(name for name, state in states.items() if state.overage is not None)

    def changed(self, changes: Mapping[str, ItemState]) -> Items:
        """The same with some items in another state."""
        return Items({**self.states, **changes}, self.switching)

    def switched(self, switching: Switching | None) -> Items:
        """The same with another switch under way, or with none."""
        return Items(self.states, switching)


NO_ITEMS = Items({})


class Plan(msgspec.Struct, frozen=True, array_like=True):
    """A protection plan. Applications of it that are older than its last deletion count for nothing."""

    enabled: bool
    features: tuple[str, ...]
    deleted: bool
    stamp: Stamp
    deleted_at_us: int = -1
    name: str | None = None


class Reservation(msgspec.Struct, frozen=True, array_like=True):
    """Units set aside. ``state``: held, denied, committed, released, expired. It ends once; that is kept for a day.

    ``reasons`` are those of a refusal that no quota has to do with; ``answered`` are digests of the latest commands for
    it: the same one again changes nothing.
    """

    items: dict[str, int]
    ttl_seconds: int
    state: str
    expires_at_ms: int
    ended_at_ms: int = 0
    cause: str = ""
    made_at_ms: int = 0
    reasons: str = ""
    answered: tuple[str, ...] = ()


class Profile(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a tenant for others and given back as it was: nothing is decided by it."""

    contact: dict[str, Any] = {}
    update_lock: dict[str, Any] = {}
    ancestral_access: bool = True
    language: str = "en"
    customer_type: str = "default"
    customer_id: str | None = None
    internal_tag: str | None = None


class ApiClient(msgspec.Struct, frozen=True, omit_defaults=True):
    """A program that may sign in for a tenant; of its secret only a hash is kept."""

    tenant_id: str
    type: str
    scopes: tuple[str, ...]
    secret_hash: str
    created_ms: int
    created_by: str = ""
    data: dict[str, Any] = {}


class Switch(msgspec.Struct, frozen=True, array_like=True):
    """A switch as it is remembered: what was asked for, where it stands, and what it takes to undo it.

    ``asked`` is a digest of the request: the same id with another one is another switch. ``answer`` is the data of its
    last announcement (JSON), the ``number``-th of the step that has written this record; ``denied`` says that the
    ledger keeps the refusals that belong to it (``switch_waiting``). ``identity`` tells announcements of one type
    apart.
    """

    asked: str
    state: str  # preparing, running, completed, rejected, undone
    type: str
    answer: str
    number: int
    time_ms: int
    cause: str
    traceparent: str | None
    denied: bool = False
    job_id: str | None = None
    kept: switch_undo.Kept | None = None
    started_ms: int = 0
    identity: str = "once"


class SwitchTask(msgspec.Struct, frozen=True, array_like=True):
    """What became of one tenant in a job: the switch, and where it stands."""

    switch_id: str
    state: str


class Population(NamedTuple):
    """All workloads of a tenant, by id."""

    entries: Mapping[str, Versioned]


class Backlog(msgspec.Struct, frozen=True, array_like=True):
    """Events of a tenant that wait for something, in order: numbers ``head`` to ``next`` - 1.

    ``seen`` is the newest offset of each stream in it: a message that is delivered again does not wait twice.
    """

    head: int = 0
    next: int = 0
    seen: dict[str, int] = {}

    @property
    def busy(self) -> bool:
        """Whether somebody waits."""
        return self.head < self.next


class Identifier(msgspec.Struct, frozen=True, array_like=True):
    """The record behind a unique name: whose it is."""

    tenant: str


# --- where records are

_new: Callable[[type[RecordKey], tuple[str, str, str]], RecordKey] = tuple.__new__  # half the cost of the constructor


@lru_cache(KEYS_CACHED)
def tenant_key(tenant: str) -> RecordKey:
    return RecordKey("tenant", tenant, "tenant")


@lru_cache(KEYS_CACHED)
def items_key(tenant: str) -> RecordKey:
    return RecordKey("tenant", tenant, "items")


@lru_cache(KEYS_CACHED)
def backlog_key(tenant: str, name: str) -> RecordKey:
    return RecordKey("tenant", tenant, f"backlog/{name}")


@lru_cache(KEYS_CACHED)
def plan_key(tenant: str, plan: str) -> RecordKey:
    return RecordKey("plan", tenant, plan)


def workload_key(tenant: str, workload: str) -> RecordKey:
    return _new(RecordKey, ("workload", tenant, workload))  # made several times for each event


def reservation_key(tenant: str, reservation: str) -> RecordKey:
    return RecordKey("reservation", tenant, reservation)


def children_key(tenant: str) -> RecordKey:
    """How many tenants stand directly below; a record, so that deleting and adding cannot miss each other."""
    return RecordKey("tenant", tenant, "children")


def name_key(parent: str, comparable_name: str) -> RecordKey:
    return RecordKey("name", parent, comparable_name)


def profile_key(tenant: str) -> RecordKey:
    return RecordKey("tenant", tenant, "profile")


def client_key(client: str) -> RecordKey:
    """An API client lies in the shard of its tenant, under its own id, so that it is found without the tenant."""
    return RecordKey("client", client, "client")


def clients_index(tenant: str) -> IndexKey:
    """The API clients of a tenant."""
    return IndexKey("clients", tenant, "")


def secret_key(name: str) -> RecordKey:
    """Something that all instances know and nobody else."""
    return RecordKey("secret", ROOT, name)


def answer_key(caller: str, question: str) -> RecordKey:
    """What a caller was answered, so that the same question is answered alike."""
    return RecordKey("answer", caller, question)


def switch_key(tenant: str, switch_id: str) -> RecordKey:
    return RecordKey("switch", tenant, switch_id)


def switch_place_key(switch_id: str) -> RecordKey:
    """Whose switch it is; in the tenant's shard."""
    return RecordKey("switchplace", "", switch_id)


def switch_task_key(job_id: str, tenant: str) -> RecordKey:
    """What became of a tenant in a job of switches; in the tenant's shard."""
    return RecordKey("switchtask", job_id, tenant)


def switch_undo_key(tenant: str, switch_id: str) -> RecordKey:
    """Why the switch was not led back, when that was asked for last."""
    return RecordKey("switchundo", tenant, switch_id)


def switch_chunk_key(job_id: str, part: str, number: int) -> RecordKey:
    """Some of the tenants that a job of switches is about, with their switches."""
    return RecordKey("switchchunk", job_id, f"{part}-{number}")


def switch_jobs_index() -> IndexKey:
    """The jobs of switches of a shard."""
    return IndexKey("switchjobs", "", "")


def switch_waiting(switch_id: str) -> str:
    """Under which name the ledger keeps why a switch was refused; no workload has such an id."""
    return f"switch/{switch_id}"


def switch_undo_waiting(switch_id: str) -> str:
    """The same for why it was not led back."""
    return f"switch/{switch_id}/undo"


def preview_key(tenant: str, plan_hash: str) -> RecordKey:
    """What a plan that was shown was made from, so that drift can be told."""
    return RecordKey("preview", tenant, plan_hash)


def job_key(job: str) -> RecordKey:
    return RecordKey("job", "", job)


def children_index(tenant: str) -> IndexKey:
    """The tenants directly below; deleted ones are not among them."""
    return IndexKey("children", tenant, "")


def disturbed_index(tenant: str) -> IndexKey:
    """The workloads of a customer (``tenant/workload``) that have changed since a switch began to count them."""
    return IndexKey("disturbed", tenant, "")


def deleted_children_index(tenant: str) -> IndexKey:
    """The deleted tenants directly below: what they still use, late reports of bytes for example, is counted above."""
    return IndexKey("deleted", tenant, "")


def below(tenant: str) -> tuple[IndexKey, IndexKey]:
    """Where to find every tenant right below, deleted or not."""
    return children_index(tenant), deleted_children_index(tenant)


# Some things that are read like records, though the ledger keeps them itself; nothing can be expected of them.


def waiting_key(tenant: str, who: str) -> RecordKey:
    """Why somebody waits (``transaction.Waiting``)."""
    return RecordKey("?waiting", tenant, who)


def accounts_key(tenant: str) -> RecordKey:
    """A tenant's accounts by item."""
    return RecordKey("?accounts", tenant, "")


def population_key(tenant: str) -> RecordKey:
    """All workloads of a tenant, as a ``Population``; None where they are too many to be read at once."""
    return RecordKey("?population", tenant, "")


def units_key(tenant: str) -> RecordKey:
    """The tenants right below, deleted ones too: what they hold is released a while after."""
    return RecordKey("?units", tenant, "")


def applied_count_key(tenant: str, plan: str) -> RecordKey:
    """To how many workloads a plan is applied."""
    return RecordKey("?applied", tenant, plan)


# A tenant counts in a silent account of its own, for each plan, to how many of its workloads it is applied.

_APPLIED = f"{SILENT_PREFIX}plan/"  # no offering item has a slash in its name


ASIDE_PREFIX = f"{SILENT_PREFIX}aside/"


def aside_item(name: str) -> str:
    """The silent item that counts what a running switch has set aside of an item for a tenant's workloads."""
    return f"{ASIDE_PREFIX}{name}"


def set_aside(item: str) -> str | None:
    """The item of which such a silent item counts units; None for every other item."""
    return item.removeprefix(ASIDE_PREFIX) if item.startswith(ASIDE_PREFIX) else None


DISTURBANCES = f"{SILENT_PREFIX}disturbed/"
"""The silent item that counts changes of a customer's workloads while a switch counts them."""


def applied_count_item(plan: str) -> str:
    """The account's item."""
    return _APPLIED + plan


def counted_plan(item: str) -> str | None:
    """The plan of such an item; None where it is another item."""
    return item.removeprefix(_APPLIED) if item.startswith(_APPLIED) else None


# --- bytes

_encode = msgspec.msgpack.Encoder().encode
_tenant = msgspec.msgpack.Decoder(Tenant).decode
_switch = msgspec.msgpack.Decoder(Switch).decode
_switch_task = msgspec.msgpack.Decoder(SwitchTask).decode
_basis = msgspec.msgpack.Decoder(switch_drift.Basis).decode
_plan = msgspec.msgpack.Decoder(Plan).decode
_reservation = msgspec.msgpack.Decoder(Reservation).decode
_backlog = msgspec.msgpack.Decoder(Backlog).decode
_identifier = msgspec.msgpack.Decoder(Identifier).decode


class _StoredItems(msgspec.Struct, array_like=True, omit_defaults=True):
    states: Mapping[str, ItemState]
    switching: Switching | None = None


def encode(value: Any) -> bytes:
    """A record's bytes."""
    if type(value) is Workload:
        return workload.encode(value)
    if type(value) is Items:
        return _encode(_StoredItems(value.states, value.switching))
    return _encode(value)


def decode(key: RecordKey, payload: bytes) -> Any:
    """A record from its bytes; which kind it is, its key says."""
    if key.kind == "tenant":
        return _TENANT_DECODERS.get(key.id, _backlog)(payload)
    return _DECODERS[key.kind](payload)


def _items(payload: bytes) -> Items:
    stored = _stored_items(payload)
    return Items(stored.states, stored.switching)


_stored_items = msgspec.msgpack.Decoder(_StoredItems).decode

_TENANT_DECODERS: dict[str, Callable[[bytes], Any]] = {
    "tenant": _tenant,
    "items": _items,
    "children": msgspec.msgpack.Decoder(int).decode,
    "profile": msgspec.msgpack.Decoder(Profile).decode,
}
_DECODERS: dict[str, Callable[[bytes], Any]] = {
    "workload": workload.decode,
    "plan": _plan,
    "reservation": _reservation,
    "name": _identifier,
    "switch": _switch,
    "switchplace": _identifier,
    "switchtask": _switch_task,
    "switchundo": _switch,
    "switchchunk": msgspec.msgpack.Decoder(tuple[tuple[str, str], ...]).decode,
    "preview": _basis,
    "job": bytes,
    "client": msgspec.msgpack.Decoder(ApiClient).decode,
    "secret": bytes,
    "answer": bytes,
}


class Versioned(NamedTuple):
    """A record as read: None and version 0 where there is none."""

    version: int
    value: Any


ABSENT = Versioned(0, None)


class MissingError(Exception):
    """A decision needs a record that was not loaded; ``key`` says which."""

    def __init__(self, key: RecordKey) -> None:
        super().__init__(key)
        self.key = key


_CACHED_KINDS = ("tenant", "plan")


class Cache:
    """Tenants and plans as last seen by this process; the oldest are dropped first."""

    def __init__(self, size_max: int = CACHED_RECORDS_MAX) -> None:
        self._entries: OrderedDict[RecordKey, Versioned] = OrderedDict()
        self._size_max = size_max

    @staticmethod
    def takes(key: RecordKey) -> bool:
        """Whether records of this kind are kept."""
        return key[0] in _CACHED_KINDS

    def get(self, key: RecordKey) -> Versioned | None:
        return self._entries.get(key)

    def keep(self, key: RecordKey, entry: Versioned) -> None:
        """Remember a record as read, absent ones too: whatever is decided expects them to be so.

        All but an absent tenant: for that one nothing is decided, so nothing would show that it has come to be.
        """
        if entry.version == 0 and key.id == "tenant":
            return
        known = self._entries.get(key)
        if known is not None and known.version == entry.version:
            return
        self._entries[key] = entry
        if len(self._entries) > self._size_max:
            self._entries.popitem(last=False)

    def drop(self, keys: Iterable[RecordKey]) -> None:
        """Forget records: they turned out to be stale."""
        for key in keys:
            self._entries.pop(key, None)


_OF_ACCOUNTS = ("?accounts", "?applied")


def _tenants_of(wanted: Mapping[int, Sequence[RecordKey]], kind: str) -> dict[int, list[str]]:
    """The tenants of the keys of one kind, by shard."""
    named = {shard: [key.tenant for key in keys if key.kind == kind] for shard, keys in wanted.items()}
    return {shard: tenants for shard, tenants in named.items() if tenants}


def _shown_accounts(key: RecordKey, accounts: Mapping[str, Account]) -> Any:
    """All accounts of a tenant, or the count of a plan."""
    return accounts if key.kind == "?accounts" else accounts.get(applied_count_item(key.id), Account()).used


class Loader:
    """Reads records in bulk, one round trip for all shards, through the cache."""

    def __init__(self, ledger: Ledger, cache: Cache, population_max: int = POPULATION_MAX) -> None:
        self._ledger = ledger
        self._population_max = population_max
        self.cache = cache

    async def load(self, wanted: Mapping[int, Iterable[RecordKey]]) -> dict[RecordKey, Versioned]:
        """The records behind the keys, by key."""
        found: dict[RecordKey, Versioned] = {}
        missing: dict[int, list[RecordKey]] = {}
        for shard, keys in wanted.items():
            for key in keys:
                entry = self.cache.get(key) if Cache.takes(key) else None
                if entry is not None:
                    found[key] = entry
                else:
                    missing.setdefault(shard, []).append(key)
        if missing:
            found |= await self._read(missing)
        return found

    async def _read(self, wanted: Mapping[int, Sequence[RecordKey]]) -> dict[RecordKey, Versioned]:
        stored = {shard: [key for key in keys if key.kind[0] != "?"] for shard, keys in wanted.items()}
        records = await self._ledger.read({shard: keys for shard, keys in stored.items() if keys})
        found = {key: self._decoded(key, record) for key, record in records.items()}
        for shard, keys in wanted.items():
            for key in keys:
                if key.kind == "?waiting":
                    waiting = await self._ledger.waiting(shard, key.tenant, [key.id])
                    found[key] = Versioned(0, waiting.get(key.id))
        found |= await self._read_populations(wanted)
        found |= await self._read_units(wanted)
        return found | await self._read_accounts(wanted)

    async def _read_accounts(self, wanted: Mapping[int, Sequence[RecordKey]]) -> dict[RecordKey, Versioned]:
        keys = {shard: [key for key in some if key.kind in _OF_ACCOUNTS] for shard, some in wanted.items()}
        tenants = {shard: list({key.tenant: None for key in some}) for shard, some in keys.items() if some}
        if not tenants:
            return {}
        accounts = await self._ledger.accounts(tenants)
        every = (key for some in keys.values() for key in some)
        return {key: Versioned(0, _shown_accounts(key, accounts.get(key.tenant, {}))) for key in every}

    async def _read_populations(self, wanted: Mapping[int, Sequence[RecordKey]]) -> dict[RecordKey, Versioned]:
        tenants = _tenants_of(wanted, "?population")
        if not tenants:
            return {}
        whole = await self._ledger.whole("workload", tenants, self._population_max)
        return {population_key(tenant): self._population(tenant, entries) for tenant, entries in whole.items()}

    def _population(self, tenant: str, entries: Mapping[str, Record] | None) -> Versioned:
        if entries is None:
            return ABSENT
        decoded = {name: self._decoded(workload_key(tenant, name), record) for name, record in entries.items()}
        return Versioned(0, Population(decoded))

    async def _read_units(self, wanted: Mapping[int, Sequence[RecordKey]]) -> dict[RecordKey, Versioned]:
        tenants = _tenants_of(wanted, "?units")
        if not tenants:
            return {}
        indexes = {shard: [index for tenant in some for index in below(tenant)] for shard, some in tenants.items()}
        found = await self._ledger.members_together(indexes)
        return {
            units_key(tenant): Versioned(0, tuple(name for index in below(tenant) for name in found[index]))
            for some in tenants.values()
            for tenant in some
        }

    def _decoded(self, key: RecordKey, record: Record | None) -> Versioned:
        entry = ABSENT if record is None else Versioned(record.version, decode(key, record.payload))
        if Cache.takes(key):
            self.cache.keep(key, entry)
        return entry
