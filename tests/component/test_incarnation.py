"""Redis that is started again, seen through connections that the guard watches."""

from __future__ import annotations

from typing import Any

import pytest

from service.ledger.client import Client
from service.ledger.errors import LedgerUnavailable
from service.ledger.redis_ledger import RedisLedger
from service.ledger.transaction import Attempt, Emission, Transaction
from service.local.stack import Stack
from service.transport.board import Board
from service.transport.incarnation import Guard, Incarnations, guard_connections
from service.transport.metrics import Metrics


class Guarded:
    """A ledger behind the guard, and one beside it."""

    def __init__(self, url: str, *, cluster: bool = False) -> None:
        self.guard = Guard()
        self.client = Client.connect(url, cluster=cluster)
        guard_connections(self.client, self.guard)
        self.ledger = RedisLedger(self.client, 4)
        self.scout_client = Client.connect(url, cluster=cluster)
        scout = RedisLedger(self.scout_client, 4)
        self.incarnations = Incarnations(scout, self.guard, Board(self.client), Metrics(), 60, "t.")

    async def decide(self) -> Any:
        return await self.ledger.commit(1, [Transaction([Attempt(emit=[Emission("facts")])])], 0)

    async def close(self) -> None:
        await self.client.close()
        await self.scout_client.close()


async def test_no_decision_reaches_a_redis_that_was_started_again_before_it_is_adopted(own_stack: Stack) -> None:
    guarded = Guarded(own_stack.start_redis())
    try:
        await guarded.incarnations.look()
        first = guarded.incarnations.name
        await guarded.decide()
        own_stack.kill_redis()
        own_stack.restart_redis()
        for _ in range(3):
            with pytest.raises(LedgerUnavailable):
                await guarded.decide()
        told: list[str] = []
        guarded.incarnations.on_change(lambda: told.append("dropped"))
        before = await RedisLedger(guarded.scout_client, 4).sequence(1)
        await guarded.incarnations.look()
        assert told and guarded.incarnations.name != first
        await guarded.decide()
        assert await guarded.ledger.sequence(1) > before + 1000, "no number is given twice"
    finally:
        await guarded.close()


async def test_who_looks_again_at_the_same_redis_changes_nothing(redis_fresh: str) -> None:
    guarded = Guarded(redis_fresh)
    try:
        await guarded.incarnations.look()
        told: list[str] = []
        guarded.incarnations.on_change(lambda: told.append("dropped"))
        await guarded.incarnations.look()
        assert told == []
    finally:
        await guarded.close()


async def test_the_guard_watches_every_node_of_a_cluster(redis_cluster_fresh: str) -> None:
    guarded = Guarded(redis_cluster_fresh, cluster=True)
    try:
        await guarded.incarnations.look()
        await guarded.decide()
        guarded.guard.admit({"another"})
        await guarded.client.close()  # its connections are made anew
        with pytest.raises(LedgerUnavailable):
            await guarded.decide()
    finally:
        await guarded.close()
