"""Servers that a benchmark starts for itself, and what they say of their own work."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import redis

from service.local import redis as local_redis
from service.local.server import Server, find_free_port, start_on_free_ports


class Scripts(NamedTuple):
    """What Redis has spent inside scripts so far."""

    calls: int
    seconds: float


class BenchRedis:
    """A Redis of its own, with the settings of the ledger; the flush to disk can be chosen while it runs."""

    def __init__(self, port: int, server: Server) -> None:
        self.url = f"redis://127.0.0.1:{port}/0"
        self.server = server
        self.client: redis.Redis = redis.Redis(port=port)

    def flush_to_disk(self, policy: str) -> None:
        """``always`` or ``no``: whether an answer waits until what it says is on the disk."""
        self.client.config_set("appendfsync", policy)

    def empty(self) -> None:
        """Forget everything, and begin a new append-only file, so that no rewriting falls into the next figure."""
        self.client.flushall()
        self.client.config_resetstat()

    def restart(self) -> None:
        """Kill the server, start it again on its file, and wait until it answers with everything loaded."""
        self.server.kill()
        self.client.connection_pool.disconnect()
        self.server.start()

    def scripts(self) -> Scripts:
        """The calls of scripts, and the time Redis spent in them."""
        seen = self.client.info("commandstats")
        found = [seen[name] for name in ("cmdstat_evalsha", "cmdstat_eval") if name in seen]
        return Scripts(sum(each["calls"] for each in found), sum(each["usec"] for each in found) / 1e6)

    def used_memory(self) -> int:
        """Bytes that Redis has in use, for data and for itself."""
        return int(self.client.info("memory")["used_memory"])

    def resident_memory(self) -> int:
        """Bytes that its process has of the machine's memory."""
        return int(self.client.info("memory")["used_memory_rss"])

    def cpu_seconds(self) -> float:
        """The processor time of the server's main thread."""
        usage = self.client.info("cpu")
        return float(usage["used_cpu_user_main_thread"] + usage["used_cpu_sys_main_thread"])


@contextlib.contextmanager
def redis_server(**flags: str) -> Iterator[BenchRedis]:
    """A Redis with the settings of the ledger, and ``flags`` over them (underscores for hyphens)."""
    folder = Path(tempfile.mkdtemp(prefix="apportion-bench-"))
    settings = {
        **local_redis.LEDGER_FLAGS,
        "auto-aof-rewrite-percentage": "0",
        **{name.replace("_", "-"): value for name, value in flags.items()},
    }
    port = 0

    def build(*, keep_ports: bool) -> list[Server]:
        del keep_ports
        nonlocal port
        port = find_free_port()
        return [local_redis.build_server("redis", local_redis.require_program(), folder, port, settings)]

    (server,) = start_on_free_ports(build)
    bench = BenchRedis(port, server)
    try:
        yield bench
    finally:
        bench.client.close()
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
