"""A subtree page by page, without a call for each tenant: depth first, siblings by their ids.

A page begins behind a spot, the way from the top of the subtree down to the last tenant of the page before. A spot
stays good whatever happens to the tenants on it, and no tenant that stays where it is comes twice or not at all.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from service import records
from service.handlers import tree
from service.handlers.tree import Node
from service.ledger.base import Ledger
from service.ledger.transaction import IndexKey
from service.rules.tenants import ROOT

AHEAD = 200  # siblings that are read together

Spot = tuple[str, ...]  # ids of tenants; empty for the top itself


class Listed(NamedTuple):
    """A tenant of a page."""

    node: Node
    spot: Spot
    has_children: bool


class _Level:
    """The children of one tenant that are still to come."""

    def __init__(self, spot: Spot, ids: Sequence[str], shard: int) -> None:
        self.spot = spot
        self.ids = deque(ids)
        self.shard = shard
        self.ahead: deque[tuple[Node, bool]] = deque()

    async def next(self, ledger: Ledger, *, deleted: bool) -> tuple[Node, bool] | None:
        """The next child, and whether there is anybody below it; None after the last one."""
        while not self.ahead and self.ids:
            some = [self.ids.popleft() for _ in range(min(AHEAD, len(self.ids)))]
            self.ahead.extend(await _look_at(ledger, some, self.shard, deleted=deleted))
        return self.ahead.popleft() if self.ahead else None


async def page(
    ledger: Ledger, top: Node, after: Spot | None, size: int, *, deleted: bool = False, depth_max: int | None = None
) -> list[Listed]:
    """At most ``size`` tenants behind the spot ``after`` (None: from the top itself on); fewer only at the end.

    ``depth_max`` 1 leaves out everything but the tenants right below the top.
    """
    found: list[Listed] = []
    if after is None:
        sizes = await _child_counts(ledger, [top], deleted=deleted)
        found.append(Listed(top, (), sizes[0] > 0))
    levels = await _levels(ledger, top, after or (), deleted=deleted, depth_max=depth_max)
    while levels and len(found) < size:
        following = await levels[-1].next(ledger, deleted=deleted)
        if following is None:
            levels.pop()
            continue
        node, has_children = following
        spot = (*levels[-1].spot, node.tenant_id)
        found.append(Listed(node, spot, has_children))
        if has_children and (depth_max is None or len(spot) < depth_max):
            levels.append(_Level(spot, await _child_ids(ledger, node, deleted=deleted), node.shard))
    return found


async def _levels(ledger: Ledger, top: Node, after: Spot, *, deleted: bool, depth_max: int | None) -> list[_Level]:
    """What is still to come behind a spot, the nearest last."""
    levels = [_Level((), await _child_ids(ledger, top, deleted=deleted), top.shard)]
    shard = top.shard
    if after and top is tree.ROOT_NODE:
        shard = (await ledger.locate(after[:1])).get(after[0], -1)
    for number, name in enumerate(after, start=1):
        above = levels[-1]
        ids = list(above.ids)
        above.ids = deque(ids[bisect.bisect_right(ids, name) :])
        if shard >= 0 and (depth_max is None or number < depth_max):
            node = Node(name, shard, records.ROOT_TENANT)  # only its place matters here
            levels.append(_Level(after[:number], await _child_ids(ledger, node, deleted=deleted), shard))
        else:
            break
    return levels


async def _child_ids(ledger: Ledger, node: Node, *, deleted: bool) -> list[str]:
    if node.tenant_id == ROOT:
        return await ledger.root_children()
    return await tree.child_ids(ledger, node, deleted=deleted)


async def _look_at(ledger: Ledger, ids: Sequence[str], shard: int, *, deleted: bool) -> list[tuple[Node, bool]]:
    if shard == tree.ROOT_SHARD:
        nodes = [node for node in await tree.find_all(ledger, ids) if node.tenant.parent_id == ROOT]
    else:
        nodes = await tree.read(ledger, [(name, shard) for name in ids])
    nodes = [node for node in nodes if deleted or not node.tenant.deleted]
    counts = await _child_counts(ledger, nodes, deleted=deleted)
    return [(node, count > 0) for node, count in zip(nodes, counts, strict=True)]


async def _child_counts(ledger: Ledger, nodes: Sequence[Node], *, deleted: bool) -> list[int]:
    """How many tenants stand right below, for many at once; for root it is enough that there may be some."""
    wanted: dict[int, list[IndexKey]] = {}
    for node in nodes:
        if node.tenant_id != ROOT:
            wanted.setdefault(node.shard, []).extend(_indexes(node.tenant_id, deleted=deleted))
    sizes = await ledger.index_sizes(wanted) if wanted else {}
    return [
        1 if node.tenant_id == ROOT else sum(sizes[key] for key in _indexes(node.tenant_id, deleted=deleted))
        for node in nodes
    ]


def _indexes(tenant_id: str, *, deleted: bool) -> list[IndexKey]:
    live = records.children_index(tenant_id)
    return [live, records.deleted_children_index(tenant_id)] if deleted else [live]
