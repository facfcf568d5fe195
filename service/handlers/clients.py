"""API clients of tenants, and the secrets that all instances share: records of their own, which decide nothing.

A client lies in the shard of its tenant. The directory, which is written first, leads from its id to that shard; an
entry without a client is the harmless rest of a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from service import records
from service.handlers import tree
from service.handlers.directory import shard_of
from service.handlers.tree import Node
from service.ledger.base import Ledger
from service.ledger.transaction import Attempt, IndexChange, OutcomeKind, RecordKey, Transaction
from service.records import ApiClient
from service.rules.tenants import ROOT

_PLACE = "client/"  # no tenant has a slash in its id, so the two cannot be taken for each other in the directory


def place_of(client_id: str) -> str:
    """Under which name the directory knows a client."""
    return _PLACE + client_id


def shard_for(ledger: Ledger, node: Node) -> int:
    """The shard of a tenant's clients; root's lie where root would."""
    return shard_of(ROOT, ledger.shards) if node.tenant_id == ROOT else node.shard


async def create(ledger: Ledger, node: Node, client_id: str, client: ApiClient, now_ms: int) -> bool:
    """Enter a client of a tenant; False where there is one of that id already, which stays as it is."""
    shard = shard_for(ledger, node)
    await ledger.place({place_of(client_id): shard})
    key = records.client_key(client_id)
    step = Attempt(
        put=[(key, records.encode(client))],
        index=[IndexChange(records.clients_index(client.tenant_id), client_id, present=True)],
    )
    (outcome,) = await ledger.commit(shard, [Transaction([step], [(key, 0)])], now_ms)
    return outcome.kind is OutcomeKind.APPLIED


async def find(ledger: Ledger, client_id: str) -> ApiClient | None:
    """The client of that id, if there is one."""
    place = place_of(client_id)
    shard = (await ledger.locate([place])).get(place)
    if shard is None:
        return None
    return (await _read(ledger, shard, [client_id])).get(client_id)


async def of_tenant(ledger: Ledger, node: Node) -> dict[str, ApiClient]:
    """The clients of a tenant by id."""
    shard = shard_for(ledger, node)
    return await _read(ledger, shard, await ledger.members(shard, records.clients_index(node.tenant_id)))


async def delete(ledger: Ledger, node: Node, client_id: str, now_ms: int) -> None:
    """Drop a client of a tenant; nothing happens where there is none."""
    index = IndexChange(records.clients_index(node.tenant_id), client_id, present=False)
    step = Attempt(delete=[records.client_key(client_id)], index=[index])
    await ledger.commit(shard_for(ledger, node), [Transaction([step])], now_ms)


async def shared_secret(ledger: Ledger, name: str, make: Callable[[], bytes], now_ms: int) -> bytes:
    """What all instances know under a name; who asks first makes it."""
    key, shard = records.secret_key(name), shard_of(ROOT, ledger.shards)
    record = (await ledger.read({shard: [key]}))[key]
    if record is None:
        # Of two who make it at once, the ledger takes one; both read what it has then.
        await ledger.commit(shard, [Transaction([Attempt(put=[(key, make())])], [(key, 0)])], now_ms)
        record = (await ledger.read({shard: [key]}))[key]
        assert record is not None  # it has just been written, by us or by somebody else
    return record.payload


async def _read(ledger: Ledger, shard: int, client_ids: Sequence[str]) -> dict[str, ApiClient]:
    keys: list[RecordKey] = [records.client_key(client_id) for client_id in client_ids]
    stored = await ledger.read({shard: keys}) if keys else {}
    return {key.tenant: records.decode(key, record.payload) for key in keys if (record := stored[key]) is not None}


async def tenant_of(ledger: Ledger, tenant_id: str) -> Node:
    """The tenant that is to have a client. Raises ``TenantNotFoundError``, also for a deleted one."""
    node = await tree.find(ledger, tenant_id)
    if node.tenant.deleted:
        raise tree.TenantNotFoundError(tenant_id)
    return node
