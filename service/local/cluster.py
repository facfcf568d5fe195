"""A Redis Cluster of three masters on this machine, for tests of what must work in one."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import redis

from service.local.redis import LEDGER_FLAGS, build_server, require_program
from service.local.server import Server, find_free_ports, start_on_free_ports, wait_until

MASTERS = 3
_SLOTS = 16_384
_JOIN_SECONDS_MAX = 30
_CLUSTER_FLAGS = {
    "cluster-enabled": "yes",
    "cluster-config-file": "nodes.conf",
    "cluster-node-timeout": "2000",
    "appendfsync": "everysec",  # what these tests are about is slots, not power cuts
}


class LocalRedisCluster:
    """Three masters that share the slots evenly, without replicas; data in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports: list[int] = []
        self.servers: list[Server] = []
        self._program = require_program()

    @property
    def url(self) -> str:
        """The URL of one master, from which a cluster client finds the others."""
        return f"redis://127.0.0.1:{self.ports[0]}"

    def start(self) -> None:
        """Start the masters, give each its slots, introduce them and wait until all agree that the cluster serves."""
        self.servers = start_on_free_ports(self._build_servers)
        try:
            self._introduce()
            wait_until(self._is_whole, _JOIN_SECONDS_MAX, "the Redis Cluster to agree on its slots")
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End every master at once."""
        for server in self.servers:
            server.kill()

    def _build_servers(self, *, keep_ports: bool) -> list[Server]:  # noqa: ARG002  # its data is new at every start
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ports = find_free_ports(MASTERS, cluster=True)
        flags = {**LEDGER_FLAGS, **_CLUSTER_FLAGS}
        return [build_server(f"redis-cluster-{port}", self._program, self.folder, port, flags) for port in self.ports]

    def _introduce(self) -> None:
        for number, port in enumerate(self.ports):
            # Each its own epoch, so that no two have to settle which of them has the word. Only who knows nobody yet
            # may be given one, so nobody is introduced before all have theirs.
            _ask(port, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            slots = range(number * _SLOTS // MASTERS, (number + 1) * _SLOTS // MASTERS)
            _ask(port, "CLUSTER", "ADDSLOTS", *slots)
        for port in self.ports:
            for other in self.ports:
                if other != port:
                    _ask(port, "CLUSTER", "MEET", "127.0.0.1", other)

    def _is_whole(self) -> bool:
        return all(_sees_everything(port) for port in self.ports)


def _sees_everything(port: int) -> bool:
    info = _ask(port, "CLUSTER", "INFO")
    state = info if isinstance(info, dict) else dict(line.split(":", 1) for line in info.split())
    return bool(state["cluster_state"] == "ok" and len(_ask(port, "CLUSTER", "SLOTS")) == MASTERS)


def _ask(port: int, *words: str | int) -> Any:
    with contextlib.closing(redis.Redis(host="127.0.0.1", port=port, decode_responses=True)) as client:
        return client.execute_command(*words)  # type: ignore[no-untyped-call]  # the client has no types for it
