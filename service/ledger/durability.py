"""Whether what the ledger answers is on disk, and what to do where a server may have lost its last moments."""

from __future__ import annotations

from typing import Any

from service.ledger import keys
from service.ledger.client import Client, Script, ScriptCall
from service.ledger.errors import LedgerError

SEQUENCE_LEAP = 10**9  # where the clock is behind the sequence: more than any server can have given and lost
RECORD_BYTES_COMPACT = 512  # a record of a workload is shorter, and is stored compactly up to here

_ADOPT = Script("adopt")
_WANTED = {
    "appendonly": ("yes", "decisions are lost when Redis restarts"),
    "appendfsync": ("always", "a power cut loses decisions that were announced already"),
    "maxmemory-policy": ("noeviction", "a full Redis throws counters away"),
}
_COMPACT = ("hash-max-listpack-value", "hash-max-ziplist-value")  # the newer name, and the older one


async def warnings(client: Client) -> list[str]:
    """What in the settings of the masters puts the ledger, or its size, at risk."""
    found: list[str] = []
    for name, (wanted, harm) in _WANTED.items():
        found += await _complaints(client, name, wanted, harm)
    return found + await _complaints_of_size(client)


async def incarnations(client: Client, shards: int) -> dict[int, str]:
    """The run id of the master of each shard."""
    runs = {name: str(reply["run_id"]) for name, reply in (await client.of_each_master("INFO", "server")).items()}
    return {shard: runs[await client.master_of(keys.meta(shard))] for shard in range(shards)}


async def adopt(client: Client, shards: int) -> set[int]:
    """Write the present run ids down; the shards that had another one, whose sequence has leapt."""
    present = await incarnations(client, shards)
    calls: list[ScriptCall] = [([keys.meta(shard)], [run_id, SEQUENCE_LEAP]) for shard, run_id in present.items()]
    changed = await client.run_together(_ADOPT, calls)
    return {shard for shard, leapt in zip(present, changed, strict=True) if leapt}


async def _complaints(client: Client, name: str, wanted: str, harm: str) -> list[str]:
    replies = await _setting(client, name)
    if replies is None:
        return [f"Redis does not show its setting {name}: make sure that it is {wanted}, otherwise {harm}."]
    return [
        f"Redis{_named(master)} has {name} {value}: set it to {wanted}, otherwise {harm}."
        for master, value in replies.items()
        if value != wanted
    ]


async def _complaints_of_size(client: Client) -> list[str]:
    replies = await _setting(client, _COMPACT[0]) or await _setting(client, _COMPACT[1])
    return [
        f"Redis{_named(master)} has {_COMPACT[0]} {value}: with {RECORD_BYTES_COMPACT} the ledger needs less memory."
        for master, value in (replies or {}).items()
        if int(value) < RECORD_BYTES_COMPACT
    ]


async def _setting(client: Client, name: str) -> dict[str, str] | None:
    """A setting of every master; None where it is not shown, as managed offerings do."""
    try:
        replies = await client.of_each_master("CONFIG GET", name)
    except LedgerError:
        return None
    values = {master: _value(reply, name) for master, reply in replies.items()}
    return None if None in values.values() else {master: str(value) for master, value in values.items()}


def _value(reply: Any, name: str) -> str | None:
    value = reply.get(name, reply.get(name.encode()))
    return value.decode() if isinstance(value, bytes) else value


def _named(master: str) -> str:
    return f" at {master}" if master else ""
