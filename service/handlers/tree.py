"""Looking at the tree of tenants: one tenant, its way up, everything below it, always many records in one round trip.

Nothing here goes through a cache: whoever asks sees what the ledger holds now.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from service import records
from service.ledger.base import Ledger
from service.ledger.transaction import RecordKey
from service.records import ROOT_TENANT, Tenant
from service.rules import tenants as rules

CONCURRENCY_MAX = 32  # questions to the ledger that are under way at once, where each needs a round trip of its own
LEVEL_SIZE = 500  # tenants that are looked at together
ROOT_SHARD = -1  # root has no counters, so it lies in no shard

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class NotFoundError(LookupError):
    """Somebody asks for what does not exist; the message is a sentence for a person."""


class TenantNotFoundError(NotFoundError):
    """There is no such tenant."""

    def __init__(self, tenant_id: str) -> None:
        super().__init__(f"There is no tenant {tenant_id}.")
        self.tenant_id = tenant_id


class Node(NamedTuple):
    """A tenant, and the shard where everything of it lies."""

    tenant_id: str
    shard: int
    tenant: Tenant


ROOT_NODE = Node(rules.ROOT, ROOT_SHARD, ROOT_TENANT)


async def find(ledger: Ledger, tenant_id: str) -> Node:
    """The tenant, deleted or not. Raises ``TenantNotFoundError``."""
    if tenant_id == rules.ROOT:
        return ROOT_NODE
    found = await find_all(ledger, [tenant_id])
    if not found:
        raise TenantNotFoundError(tenant_id)
    return found[0]


async def find_all(ledger: Ledger, tenant_ids: Iterable[str]) -> list[Node]:
    """Those of the tenants that exist, in their order."""
    wanted = list(dict.fromkeys(tenant_ids))
    shards = await ledger.locate(wanted)
    return await read(ledger, [(tenant_id, shards[tenant_id]) for tenant_id in wanted if tenant_id in shards])


async def climb(ledger: Ledger, node: Node) -> list[Node]:
    """The way from a tenant up to its direct partner or direct customer; root is not in it."""
    way: list[Node] = []
    while node.tenant_id != rules.ROOT and len(way) <= rules.DEPTH_MAX:
        way.append(node)
        if node.tenant.parent_id == rules.ROOT:
            break
        above = await read(ledger, [(node.tenant.parent_id, node.shard)])
        if not above:
            raise TenantNotFoundError(node.tenant.parent_id)
        node = above[0]
    return way


def customer_of(way: Sequence[Node]) -> Node:
    """Whose items and quotas count for the first tenant of a way up: a unit uses its customer's (docs/domain.md 2)."""
    return next((node for node in way if node.tenant.kind != "unit"), way[0])


async def children(ledger: Ledger, nodes: Sequence[Node], *, deleted: bool = False) -> list[Node]:
    """The tenants right below some others, in the order of those; with ``deleted`` also those that are deleted."""
    below: list[Node] = []
    if ROOT_NODE in nodes:
        found = await find_all(ledger, await ledger.root_children())
        below += [node for node in found if node.tenant.parent_id == rules.ROOT]
    names = await each(
        [node for node in nodes if node != ROOT_NODE], lambda node: child_ids(ledger, node, deleted=deleted)
    )
    below += await read(ledger, [(name, node.shard) for node, some in names for name in some])
    return [node for node in below if deleted or not node.tenant.deleted]


async def child_ids(ledger: Ledger, node: Node, *, deleted: bool = False) -> list[str]:
    """The ids of the tenants right below one (not root), sorted."""
    names = await ledger.members(node.shard, records.children_index(node.tenant_id))
    if deleted:
        names = sorted({*names, *await ledger.members(node.shard, records.deleted_children_index(node.tenant_id))})
    return names


async def walk(ledger: Ledger, node: Node, *, deleted: bool = False) -> AsyncIterator[list[Node]]:
    """A tenant and everything below it, parents before their children, in portions of bounded size."""
    portions = [[node]]
    seen = {node.tenant_id}
    while portions:
        portion = portions.pop()
        yield portion
        below = [child for child in await children(ledger, portion, deleted=deleted) if child.tenant_id not in seen]
        seen.update(child.tenant_id for child in below)
        portions += [below[first : first + LEVEL_SIZE] for first in range(0, len(below), LEVEL_SIZE)]


async def each(
    asked: Iterable[Asked], ask: Callable[[Asked], Awaitable[Answer]], at_once: int = CONCURRENCY_MAX
) -> list[tuple[Asked, Answer]]:
    """Ask for each, a bounded number at a time; the answers in the order of the questions."""
    gate = asyncio.Semaphore(at_once)

    async def one(subject: Asked) -> tuple[Asked, Answer]:
        async with gate:
            return subject, await ask(subject)

    return list(await asyncio.gather(*(one(subject) for subject in asked)))


async def read(ledger: Ledger, places: Sequence[tuple[str, int]]) -> list[Node]:
    """Those of the tenants that exist, each with its shard, in their order."""
    keys: dict[int, list[RecordKey]] = {}
    for tenant_id, shard in places:
        keys.setdefault(shard, []).append(records.tenant_key(tenant_id))
    stored = await ledger.read(keys) if keys else {}
    found: list[Node] = []
    for tenant_id, shard in places:
        key = records.tenant_key(tenant_id)
        record = stored[key]
        if record is not None:  # an entry of the directory without a tenant is the harmless rest of a crash
            found.append(Node(tenant_id, shard, records.decode(key, record.payload)))
    return found
