"""What is written into the ledger once, and must be the same at every later start."""

from __future__ import annotations

from service.ledger import keys
from service.ledger.client import Client
from service.ledger.errors import LedgerError


async def settle_shards(client: Client, shards: int) -> None:
    """Write down the number of shards; ``LedgerError`` where the ledger was made with another one."""
    standing = await _settle(client, "shards", str(shards))
    if standing != str(shards):
        raise LedgerError(
            f"This ledger was installed with {standing} shards and the settings say {shards}: set APPORTION_SHARDS to "
            f"{standing}, as a tenant would be looked for in the wrong shard otherwise."
        )


async def settle_kafka_cluster(client: Client, cluster_id: str) -> None:
    """Write down the Kafka whose offsets the ledger knows; ``LedgerError`` where that was another one."""
    standing = await _settle(client, "kafka_cluster_id", cluster_id)
    if standing != cluster_id:
        raise LedgerError(
            f"This ledger knows the offsets of the Kafka cluster {standing}, and this is {cluster_id}: every new event "
            "would silently be taken for a duplicate. Use the Kafka that belongs to it, or an empty ledger."
        )


async def _settle(client: Client, field: str, value: str) -> str:
    """Write a field where nothing stands; what stands then."""
    _, standing = await client.together(
        [("HSETNX", keys.INSTALLATION, field, value), ("HGET", keys.INSTALLATION, field)]
    )
    return str(standing.decode())
