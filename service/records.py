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
from service.rules.facets import Stamp
from service.rules.tenants import ROOT
from service.workload import Link as Link  # they belong to the records, and have a module of their own
from service.workload import Workload as Workload

CACHED_RECORDS_MAX = 200_000  # tenants and plans kept in the process
PATH_KEYS_MAX = 20  # no tree is deeper
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


class Items:
    """The offering items of a tenant by name: those that are enabled, and those that have a hard quota."""

    __slots__ = ("enabled", "limited", "states")

    def __init__(self, states: Mapping[str, ItemState]) -> None:
        self.states = states
        self.enabled = frozenset(name for name, state in states.items() if state.status)
        self.limited = frozenset(name for name, state in states.items() if state.overage is not None)

    def changed(self, changes: Mapping[str, ItemState]) -> Items:
        """The same with some items in another state."""
        return Items({**self.states, **changes})


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


def job_key(job: str) -> RecordKey:
    return RecordKey("job", "", job)


def children_index(tenant: str) -> IndexKey:
    """The tenants directly below; deleted ones are not among them."""
    return IndexKey("children", tenant, "")


def deleted_children_index(tenant: str) -> IndexKey:
    """The deleted tenants directly below: what they still use, late reports of bytes for example, is counted above."""
    return IndexKey("deleted", tenant, "")


# Three things that are read like records, though the ledger keeps them itself; nothing can be expected of them.


def waiting_key(tenant: str, who: str) -> RecordKey:
    """Why somebody waits (``transaction.Waiting``)."""
    return RecordKey("?waiting", tenant, who)


def accounts_key(tenant: str) -> RecordKey:
    """A tenant's accounts by item."""
    return RecordKey("?accounts", tenant, "")


def applied_count_key(tenant: str, plan: str) -> RecordKey:
    """To how many workloads a plan is applied."""
    return RecordKey("?applied", tenant, plan)


# A tenant counts in a silent account of its own, for each plan, to how many of its workloads it is applied.

_APPLIED = f"{SILENT_PREFIX}plan/"  # no offering item has a slash in its name


def applied_count_item(plan: str) -> str:
    """The account's item."""
    return _APPLIED + plan


def counted_plan(item: str) -> str | None:
    """The plan of such an item; None where it is another item."""
    return item.removeprefix(_APPLIED) if item.startswith(_APPLIED) else None


# --- bytes

_encode = msgspec.msgpack.Encoder().encode
_tenant = msgspec.msgpack.Decoder(Tenant).decode
_item_states = msgspec.msgpack.Decoder(dict[str, ItemState]).decode
_plan = msgspec.msgpack.Decoder(Plan).decode
_reservation = msgspec.msgpack.Decoder(Reservation).decode
_backlog = msgspec.msgpack.Decoder(Backlog).decode
_identifier = msgspec.msgpack.Decoder(Identifier).decode


def encode(value: Any) -> bytes:
    """A record's bytes."""
    if type(value) is Workload:
        return workload.encode(value)
    return _encode(value.states if isinstance(value, Items) else value)


def decode(key: RecordKey, payload: bytes) -> Any:
    """A record from its bytes; which kind it is, its key says."""
    if key.kind == "tenant":
        return _TENANT_DECODERS.get(key.id, _backlog)(payload)
    return _DECODERS[key.kind](payload)


def _items(payload: bytes) -> Items:
    return Items(_item_states(payload))


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


class Loader:
    """Reads records in bulk, one round trip for all shards, through the cache."""

    def __init__(self, ledger: Ledger, cache: Cache) -> None:
        self._ledger = ledger
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
                if key.kind[0] == "?":
                    found[key] = await self._kept_by_the_ledger(shard, key)
        return found

    async def _kept_by_the_ledger(self, shard: int, key: RecordKey) -> Versioned:
        if key.kind == "?waiting":
            waiting = await self._ledger.waiting(shard, key.tenant, [key.id])
            return Versioned(0, waiting.get(key.id))
        accounts = (await self._ledger.accounts({shard: [key.tenant]})).get(key.tenant, {})
        if key.kind == "?accounts":
            return Versioned(0, accounts)
        return Versioned(0, accounts.get(applied_count_item(key.id), Account()).used)

    def _decoded(self, key: RecordKey, record: Record | None) -> Versioned:
        entry = ABSENT if record is None else Versioned(record.version, decode(key, record.payload))
        if Cache.takes(key):
            self.cache.keep(key, entry)
        return entry
