"""Which customers a job of switches is about: found in the tree, or listed (docs/domain.md 7.2)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from service import records
from service.catalog import Catalog
from service.handlers import tree
from service.handlers.mass_switches import Selection
from service.handlers.tree import Node
from service.ledger.base import Ledger
from service.ledger.transaction import RecordKey
from service.rules import assignment
from service.rules import tenants as rules


class Chosen(NamedTuple):
    """Some of the selection: those that exist, and ids that no tenant has."""

    tenants: list[str]
    unknown: list[str]


async def select(ledger: Ledger, catalog: Catalog, application: str, selection: Selection) -> AsyncIterator[Chosen]:
    """The selection in portions of bounded size, each tenant once. Raises ``TenantNotFoundError`` for ``below``."""
    if selection.below is None:
        listed = list(dict.fromkeys(selection.tenants))
        for first in range(0, len(listed), tree.LEVEL_SIZE):
            names = listed[first : first + tree.LEVEL_SIZE]
            found = {node.tenant_id for node in await tree.find_all(ledger, names)}
            yield Chosen([each for each in names if each in found], [each for each in names if each not in found])
        return
    top = await tree.find(ledger, selection.below)
    async for portion in _customers(ledger, top):
        editions = await _editions(ledger, catalog, application, portion)
        yield Chosen([node.tenant_id for node in portion if editions[node.tenant_id] == selection.edition], [])


async def _customers(ledger: Ledger, top: Node) -> AsyncIterator[list[Node]]:
    """All customers from a tenant down; what is below them is not looked at."""
    portions = [[top]]
    seen = {top.tenant_id}
    while portions:
        portion = portions.pop()
        yield [node for node in portion if node.tenant.kind == "customer" and not node.tenant.deleted]
        above = [node for node in portion if node.tenant.kind not in rules.WITH_WORKLOADS]
        below = [node for node in await tree.children(ledger, above) if node.tenant_id not in seen] if above else []
        seen.update(node.tenant_id for node in below)
        portions += [below[first : first + tree.LEVEL_SIZE] for first in range(0, len(below), tree.LEVEL_SIZE)]


async def _editions(ledger: Ledger, catalog: Catalog, application: str, nodes: Sequence[Node]) -> dict[str, str | None]:
    """The edition or billing mode of the application that each customer is on."""
    wanted: dict[int, list[RecordKey]] = {}
    for node in nodes:
        wanted.setdefault(node.shard, []).append(records.items_key(node.tenant_id))
    found = await ledger.read(wanted) if wanted else {}
    return {
        key.tenant: None
        if record is None
        else assignment.edition_of(catalog, records.decode(key, record.payload).enabled).get(application)
        for key, record in found.items()
    }
