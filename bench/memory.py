"""What a workload costs in the memory of Redis, with everything that is kept because of it.

Good for: planning the memory of Redis, and seeing which kind of record or index a change has made larger. The workloads
come in through the handlers, each with two plans and a report of its usage, so that what is kept is what is kept. With
``--restart`` also: how long Redis takes to come back with its file.

Not good for: the memory of a Redis under load: the append-only file being rewritten, copies made on writing, and the
buffers of clients and replicas come on top. docs/benchmarks.md says how much to add.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from bench import report, servers
from bench import restart as restarts
from bench.engine import SHARDS, Bench, batches
from bench.fleet import Fleet

BYTES_PER_WORKLOAD_MAX = 300
SAMPLED_KEYS = 200  # of each kind
SCANNED = 2000


class Kind(NamedTuple):
    """Keys of one kind: how many, what one of them takes, and how Redis stores it."""

    name: str
    keys: int
    bytes_of_a_key: float
    encodings: str
    members: float


async def run(*, workloads: int, per_customer: int, batch: int, restart: bool) -> report.Report:
    """Fill a ledger, and see what has become of its memory; and how it comes back, where that is asked for."""
    customers = max(1, workloads // per_customer)
    workloads = customers * per_customer
    made = report.Report("memory", {"workloads": workloads, "customers": customers, "shards": SHARDS, "batch": batch})
    with servers.redis_server(appendonly="yes" if restart else "no", appendfsync="no") as redis:
        bench = Bench(redis, batch)
        fleet = Fleet(customers=customers, workloads=per_customer, partners=64)
        memory: dict[str, int] = {"empty": redis.used_memory()}
        await bench.prepare(fleet)
        memory["tenants and plans"] = redis.used_memory()
        for name, events in (
            ("registered", fleet.registered()),
            ("first plan", fleet.applied("backup")),
            ("second plan", fleet.applied("advanced")),
            ("usage", fleet.usage()),
        ):
            for number, some in enumerate(batches(events, batch)):
                records = bench.records(some)
                await bench.engine.handle(bench.read(records))
                await bench.forget_announcements()
                if number % 50 == 0:
                    report.progress.log(f"{name}: {number * batch:,} of {workloads:,}")
            memory[name] = redis.used_memory()
        await bench.close()
        _tell(made, redis, memory, workloads, customers)
        if restart:
            made.tables["a restart of Redis"] = restarts.measure(redis, workloads)
    return made


def _tell(
    made: report.Report, redis: servers.BenchRedis, memory: dict[str, int], workloads: int, customers: int
) -> None:
    base, end = memory["tenants and plans"], memory["usage"]
    steps = list(memory.items())
    made.tables["what each step has added, bytes for a workload"] = [
        {"after": name, "bytes_per_workload": round((after - before) / workloads, 1)}
        for (_, before), (name, after) in itertools.pairwise(steps)
    ]
    kinds = breakdown(redis)
    # What keys take, those of tenants and plans too. The memory in use also has buffers in it, which come and go: of a
    # small fleet they are a good part.
    all_keys = sum(kind.keys * kind.bytes_of_a_key for kind in kinds) / workloads
    made.tables["altogether"] = [
        {
            "bytes_per_workload": round((end - base) / workloads, 1),
            "bytes_per_workload_of_all_keys": round(all_keys, 1),
            "bytes_per_customer_without_workloads": round((base - memory["empty"]) / customers),
            "used_memory_mib": round(end / 2**20, 1),
            "resident_mib": round(redis.resident_memory() / 2**20, 1),
            "keys": redis.client.dbsize(),
        }
    ]
    made.tables["by kind of key"] = [
        {
            "kind": kind.name,
            "keys": kind.keys,
            "members_of_a_key": round(kind.members, 1),
            "bytes_of_a_key": round(kind.bytes_of_a_key),
            "bytes_of_a_member": round(kind.bytes_of_a_key / kind.members, 1) if kind.members else None,
            "bytes_per_workload": round(kind.keys * kind.bytes_of_a_key / workloads, 1),
            "stored_as": kind.encodings,
        }
        for kind in kinds
    ]
    made.targets["bytes for a workload"] = report.Target(all_keys, at_most=BYTES_PER_WORKLOAD_MAX)


def breakdown(redis: servers.BenchRedis) -> list[Kind]:
    """Every kind of key, the costliest first; what a key takes is the mean of a sample."""
    counts: dict[str, int] = {}
    samples: dict[str, list[bytes]] = {}
    chance = random.Random(1)
    for key in _keys(redis):
        kind = kind_of(key)
        counts[kind] = counts.get(kind, 0) + 1
        sample = samples.setdefault(kind, [])
        if len(sample) < SAMPLED_KEYS:
            sample.append(key)
        elif (place := chance.randrange(counts[kind])) < SAMPLED_KEYS:
            sample[place] = key
    kinds = [_describe(redis, name, count, samples[name]) for name, count in counts.items()]
    return sorted(kinds, key=lambda kind: kind.keys * kind.bytes_of_a_key, reverse=True)


def _keys(redis: servers.BenchRedis) -> Iterator[bytes]:
    yield from redis.client.scan_iter(count=SCANNED)


def kind_of(key: bytes) -> str:
    """The part of a key that says what it holds."""
    text = key.decode()
    if not text.startswith("{"):
        return text.partition(":")[0]
    rest = text.partition("}:")[2]
    slash, colon = rest.find("/"), rest.find(":")
    if slash >= 0 and (colon < 0 or slash < colon):
        return f"{rest[:slash]} (index)"
    return rest.partition(":")[0]


_SIZES = {b"hash": "HLEN", b"set": "SCARD", b"zset": "ZCARD", b"list": "LLEN", b"string": "STRLEN"}


def _describe(redis: servers.BenchRedis, name: str, count: int, sample: list[bytes]) -> Kind:
    pipeline: Any = redis.client.pipeline(transaction=False)  # the library's own types miss half of its commands
    for key in sample:
        pipeline.memory_usage(key, samples=0)
        pipeline.object("ENCODING", key)
        pipeline.type(key)
    replies = pipeline.execute()
    used, encodings, types = replies[::3], replies[1::3], replies[2::3]
    for key, type_ in zip(sample, types, strict=True):
        pipeline.execute_command(_SIZES[type_], key)
    members = pipeline.execute()
    return Kind(
        name,
        count,
        sum(used) / len(sample),
        ", ".join(sorted({encoding.decode() for encoding in encodings})),
        sum(members) / len(sample),
    )
