"""What every command and every instance is built on: the catalogue, the ledger and the board."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from service import catalog
from service import settings as configuration
from service.catalog import Catalog
from service.handlers.engine import Engine, Observer, Options
from service.ledger.client import Client
from service.ledger.redis_ledger import RedisLedger
from service.settings import Settings
from service.transport.board import Board
from service.transport.incarnation import Guard, guard_connections


class Core(NamedTuple):
    """What every part and every command is built on."""

    settings: Settings
    catalog: Catalog
    ledger: RedisLedger
    board: Board

    def engine(self, observer: Observer | None = None) -> Engine:
        """An engine on this ledger."""
        return Engine(self.ledger, self.catalog, options(self.settings), observer)


def options(settings: Settings) -> Options:
    """What the engine is told by the settings."""
    return Options(
        unknown_tenant_wait_seconds=settings.unknown_tenant_wait_seconds,
        topic_prefix=settings.topic_prefix,
        switch_workloads_at_once_max=settings.switch_workloads_at_once_max,
    )


@asynccontextmanager
async def open_core(settings: Settings, guard: Guard | None = None) -> AsyncIterator[Core]:
    """The catalogue, and connections to the ledger, which are made at the first call.

    Raises ``SettingsError`` and ``CatalogError``.
    """
    _, redis_url = configuration.require_servers(settings)
    loaded = catalog.load(settings.catalog_file)
    client = Client.connect(redis_url, cluster=settings.redis_cluster)
    if guard is not None:
        guard_connections(client, guard)
    ledger = RedisLedger(client, settings.shards, almost_reached_percent=settings.almost_reached_percent)
    try:
        yield Core(settings, loaded, ledger, Board(client))
    finally:
        await client.close()
