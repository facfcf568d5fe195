"""The ledger as its users see it; Redis and the reference twin both are one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from service.ledger.outbox import Entry
from service.ledger.transaction import Account, IndexKey, Outcome, Record, RecordKey, Transaction, Waiter, Waiting


class Ledger(Protocol):
    """Accounts in a tree with limits, records, queues of who waits, timers and an outbox; N shards, each atomic."""

    @property
    def shards(self) -> int:
        """How many shards there are; fixed at installation."""
        ...

    # --- the one way to write

    async def commit(self, shard: int, transactions: Sequence[Transaction], now_ms: int) -> list[Outcome]:
        """Apply the transactions in order, each whole or not at all; one answer each.

        Long batches are cut into several atomic calls. Raises ``LedgerError`` where a batch is invalid (nothing of that
        call has happened then) and ``LedgerUnavailable`` where it is not known whether the call happened.
        """
        ...

    # --- reading, always in bulk and in one round trip

    async def read(self, keys: Mapping[int, Sequence[RecordKey]]) -> dict[RecordKey, Record | None]:
        """Records by shard and key; None for what does not exist."""
        ...

    async def accounts(self, tenants: Mapping[int, Sequence[str]]) -> dict[str, dict[str, Account]]:
        """Every account of the tenants, by tenant and item."""
        ...

    async def waiting(self, shard: int, tenant: str, who: Sequence[str] | None = None) -> dict[str, Waiting]:
        """Who of the tenant waits and why; all of them where ``who`` is None."""
        ...

    async def waiters(self, shard: int, tenant: str, item: str, after: str, count: int) -> list[Waiter]:
        """The queue at a place, oldest first, behind the member ``after`` ("" for the beginning)."""
        ...

    async def scan(self, shard: int, kind: str, tenant: str, cursor: int, count: int) -> tuple[int, dict[str, Record]]:
        """Some records of a kind, and the next cursor (0: the end); as Redis' HSCAN: each at least once."""
        ...

    async def whole(
        self, kind: str, tenants: Mapping[int, Sequence[str]], most: int
    ) -> dict[str, dict[str, Record] | None]:
        """All records of a kind of each tenant; None where there are more than ``most``."""
        ...

    async def count(self, shard: int, kind: str, tenant: str) -> int:
        """How many records of a kind a tenant has."""
        ...

    async def members(self, shard: int, index: IndexKey) -> list[str]:
        """The members of an index, sorted."""
        ...

    async def members_together(self, indexes: Mapping[int, Sequence[IndexKey]]) -> dict[IndexKey, list[str]]:
        """The members of many indexes, sorted."""
        ...

    async def scan_members(self, shard: int, index: IndexKey, cursor: int, count: int) -> tuple[int, list[str]]:
        """Some members of an index, and the next cursor (0: the end)."""
        ...

    async def index_sizes(self, keys: Mapping[int, Sequence[IndexKey]]) -> dict[IndexKey, int]:
        """How many members indexes have."""
        ...

    async def due(self, shards: Sequence[int], now_ms: int, count: int) -> dict[int, list[tuple[str, int]]]:
        """The timers that are due, earliest first: (member, due_ms), at most ``count`` of each shard."""
        ...

    async def timers(self, shard: int, prefix: str) -> list[tuple[str, int]]:
        """All timers of a shard whose member begins with ``prefix`` (for people and ``status``)."""
        ...

    async def sequence(self, shard: int) -> int:
        """The last number given to an announcement or a record version of the shard."""
        ...

    async def positions(self) -> dict[str, int]:
        """The newest position of every source, over all shards."""
        ...

    # --- the directory of tenants

    async def locate(self, tenants: Sequence[str]) -> dict[str, int]:
        """The shards of those tenants that have one."""
        ...

    async def place(self, tenants: Mapping[str, int], instead_of: int | None = None) -> dict[str, int]:
        """Enter tenants into the directory if absent (or where they have ``instead_of``); answers what stands then."""
        ...

    async def claim_name(self, name: str, tenant: str, instead_of: str | None = None) -> str:
        """The same for names of root's children; answers the tenant that has the name."""
        ...

    async def root_children(self) -> list[str]:
        """Direct partners and direct customers, as entered by ``add_root_child``; an orphan may be among them."""
        ...

    async def add_root_child(self, tenant: str) -> None:
        """Enter a direct partner or direct customer."""
        ...

    # --- the outbox and the leases

    async def outbox(self, shards: Sequence[int], count: int) -> dict[int, list[Entry]]:
        """The oldest announcements of each shard, at most ``count`` each; empty shards are left out."""
        ...

    async def trim(self, published: Mapping[int, Sequence[Entry]], lease: str, holder: str) -> set[int]:
        """Drop these announcements, each shard's oldest ones, in their order; answers the shards where that was done.

        In a shard whose ``lease`` another ``holder`` has, or where they are not the oldest ones, nothing is dropped.
        """
        ...

    async def outbox_depths(self) -> dict[int, int]:
        """How many announcements wait, by shard; empty ones left out."""
        ...

    async def lease(self, name: str, shards: Sequence[int], holder: str, ttl_ms: int) -> set[int]:
        """Take or renew the lease ``name`` of each shard; answers those that ``holder`` has now."""
        ...

    async def release(self, name: str, shards: Sequence[int], holder: str) -> None:
        """Give leases back that ``holder`` has."""
        ...
