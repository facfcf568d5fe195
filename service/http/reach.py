"""Which tenants a caller reaches: its own and those below it.

The way of every tenant up to the caller's is read from the ledger at each request, together with the caller itself, so
that a move, a deletion or a withdrawn client counts at once. What this process remembers of the tree only saves round
trips: usually there is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from service import records
from service.handlers.directory import shard_of
from service.handlers.tree import ROOT_NODE, Node
from service.http.batches import Reads
from service.http.tokens import Caller
from service.ledger.base import Ledger
from service.ledger.transaction import RecordKey
from service.rules.tenants import DEPTH_MAX, ROOT

REMEMBERED_MAX = 500_000  # tenants


class Sight(NamedTuple):
    """What a look has found. ``ways`` lead from a tenant up to the caller's; a tenant out of reach has none."""

    caller: bool  # whether the caller itself is still there
    ways: Mapping[str, tuple[Node, ...]]
    extra: bytes | None


class Reach:
    """Looks for tenants from where a caller stands."""

    def __init__(self, ledger: Ledger, reads: Reads) -> None:
        self._ledger = ledger
        self._reads = reads
        self._shards: dict[str, int] = {}
        self._parents: dict[str, str] = {}  # as last seen

    async def look(self, caller: Caller, tenant_ids: Iterable[str], extra: RecordKey | None = None) -> Sight:
        """The ways of tenants up to the caller's own; ``extra`` is a record that is read in the same round trip, in the
        caller's shard. Raises ``LedgerUnavailable``."""
        wanted = [name for name in dict.fromkeys((caller.tenant_id, *tenant_ids)) if name != ROOT]
        await self._locate(wanted)
        home = shard_of(ROOT, self._ledger.shards) if caller.tenant_id == ROOT else self._shards.get(caller.tenant_id)
        if home is None:
            return Sight(caller=False, ways={}, extra=None)
        own = records.client_key(caller.id)
        besides = [own] if caller.is_client else []
        besides += [extra] if extra is not None else []
        found = await self._read_ways(wanted, {home: besides})
        client = found.get(own)
        present = not caller.is_client or (client is not None and client.tenant_id == caller.tenant_id)
        ways = {name: way for name in wanted if (way := self._way(name, caller.tenant_id, found))}
        if caller.tenant_id == ROOT:
            ways[ROOT] = (ROOT_NODE,)
        present = present and bool(ways.get(caller.tenant_id))
        return Sight(present and _is_there(ways[caller.tenant_id]), ways, found.get(extra) if extra else None)

    async def _locate(self, tenants: Iterable[str]) -> None:
        """Find shards. One that a tenant stands in never changes; what turns out to be wrong is forgotten."""
        missing = [name for name in tenants if name not in self._shards]
        if missing:
            if len(self._shards) >= REMEMBERED_MAX:
                self._shards.clear()
            self._shards |= await self._ledger.locate(missing)

    async def _read_ways(self, names: Iterable[str], besides: Mapping[int, list[RecordKey]]) -> dict[RecordKey, Any]:
        """The records of the tenants and of everybody above them: first those that are remembered, then what is new."""
        found: dict[RecordKey, Any] = {}
        wanted = {shard: list(keys) for shard, keys in besides.items()}
        for name in names:
            self._want_way(name, wanted, found)
        for _ in range(DEPTH_MAX + 2):
            if not any(wanted.values()):
                break
            stored = await self._reads.read({shard: keys for shard, keys in wanted.items() if keys})
            found |= {key: None if one is None else records.decode(key, one.payload) for key, one in stored.items()}
            wanted = {}
            for name in names:
                self._want_way(name, wanted, found)
        return found

    def _want_way(self, name: str, wanted: dict[int, list[RecordKey]], found: Mapping[RecordKey, Any]) -> None:
        """Add what is missing of the way up from a tenant, as far as it can be told."""
        shard = self._shards.get(name)
        if shard is None:
            return
        keys = wanted.setdefault(shard, [])
        for _ in range(DEPTH_MAX + 1):
            key = records.tenant_key(name)
            if key in found:
                if found[key] is None:
                    self._shards.pop(name, None)
                    return
                self._remember(name, found[key].parent_id)
                name = found[key].parent_id
            else:
                if key not in keys:
                    keys.append(key)
                name = self._parents.get(name, ROOT)
            if name == ROOT:
                return

    def _remember(self, name: str, parent: str) -> None:
        if len(self._parents) >= REMEMBERED_MAX:
            self._parents.clear()
        self._parents[name] = parent

    def _way(self, name: str, top: str, found: Mapping[RecordKey, Any]) -> tuple[Node, ...]:
        """The way from a tenant up to ``top``; empty where it does not lead there."""
        shard = self._shards.get(name, -1)
        way: list[Node] = []
        for _ in range(DEPTH_MAX + 1):
            if name == ROOT:
                return (*way, ROOT_NODE) if top == ROOT else ()
            tenant = found.get(records.tenant_key(name))
            if tenant is None:
                return ()
            way.append(Node(name, shard, tenant))
            if name == top:
                return tuple(way)
            name = tenant.parent_id
        return ()


def _is_there(way: tuple[Node, ...]) -> bool:
    return not way[0].tenant.deleted
