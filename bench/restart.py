"""How long Redis takes to come back with its append-only file, and what rewriting the file costs.

Good for: planning how long the service stands still while Redis loads. The file is loaded twice: as it was written,
every change of a record in it, and after it was rewritten, which is when it says everything once and in binary form. In
operation it lies between both: Redis rewrites it when it has doubled.

Not good for: a file that has to come from the disk. It has just been written, so that the system has it in its memory.
"""

from __future__ import annotations

import time

from bench import report, servers

REWRITE_SECONDS_MAX = 600
GIB = 2**30
POLL_SECONDS = 0.1


def measure(redis: servers.BenchRedis, workloads: int) -> list[report.Row]:
    """The file as it was written, and after rewriting it."""
    rows = [_load(redis, workloads, "every change")]
    began = time.monotonic()
    redis.client.bgrewriteaof()
    while redis.client.info("persistence")["aof_rewrite_in_progress"]:
        if time.monotonic() - began > REWRITE_SECONDS_MAX:
            raise AssertionError("the append-only file is still being rewritten")
        time.sleep(POLL_SECONDS)
    seconds = time.monotonic() - began
    copied = redis.client.info("persistence")["aof_last_cow_size"]
    loaded = _load(redis, workloads, "rewritten")
    return [*rows, {**loaded, "rewrite_seconds": seconds, "copied_mib": copied / 2**20}]


def _load(redis: servers.BenchRedis, workloads: int, what: str) -> report.Row:
    """What loading takes: the processor time of a server that has done nothing else yet."""
    size = redis.client.info("persistence")["aof_current_size"]
    redis.restart()
    seconds = redis.cpu_seconds()
    return {
        "file": what,
        "gib": size / GIB,
        "bytes_per_workload": round(size / workloads),
        "load_seconds": seconds,
        "seconds_per_gib": seconds / (size / GIB),
        "seconds_per_million_workloads": seconds / workloads * 1e6,
        "resident_mib": redis.resident_memory() / 2**20,
        "used_memory_mib": redis.used_memory() / 2**20,
    }
