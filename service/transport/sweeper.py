"""What becomes due without anybody asking: jobs, wake-ups, expiries, events that wait for their tenant."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Protocol

import structlog

from service.ledger.errors import LedgerUnavailable
from service.transport.membership import Leases

RETRY_SECONDS_MAX = 2.0
SHARDS_PER_STEP_MAX = 64  # so that a step stays short however many shards an instance has

log = structlog.get_logger(__name__)


class Steps(Protocol):
    """The engine, as far as the sweeper needs it."""

    async def run_due(self, shards: Sequence[int]) -> int:
        """Do one bounded step of what is due; how many steps were done."""


class Sweeper:
    """Runs what is due in the shards that this instance holds. Any number of instances may run."""

    def __init__(self, engine: Steps, leases: Leases, interval_seconds: float) -> None:
        self._engine = engine
        self._leases = leases
        self._interval_seconds = interval_seconds
        self._available = True
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End after the step that is being done."""
        self._stopping.set()
        self._leases.changed.set()

    async def run(self) -> None:
        """Sweep until ``stop`` is called; without a pause while there is work."""
        failures = 0
        while not self._stopping.is_set():
            try:
                busy = await self.sweep()
                failures = 0
                self._note_available()
            except LedgerUnavailable as error:
                failures += 1
                await self._rest(error.reason, failures)
                continue
            except Exception:
                # A fault in one shard's work must not end the work of all; it is tried again, and again complained of.
                log.exception("what is due could not be done")
                failures += 1
                await asyncio.sleep(min(RETRY_SECONDS_MAX, self._interval_seconds * failures))
                continue
            if not busy:
                await self._pause()

    async def sweep(self) -> int:
        """One step over every shard held here; how many steps of work were done."""
        held = self._leases.held()
        random.shuffle(held)
        done = 0
        for first in range(0, len(held), SHARDS_PER_STEP_MAX):
            done += await self._engine.run_due(held[first : first + SHARDS_PER_STEP_MAX])
        return done

    async def _pause(self) -> None:
        """Until the next look, or until shards come or go."""
        if not self._stopping.is_set():
            self._leases.changed.clear()
        try:
            await asyncio.wait_for(self._leases.changed.wait(), self._interval_seconds)
        except TimeoutError:
            return

    async def _rest(self, reason: str, failures: int) -> None:
        if self._available:
            log.warning("the sweeper waits for the ledger", reason=reason)
        self._available = False
        await asyncio.sleep(min(RETRY_SECONDS_MAX, 0.05 * 2**failures) * random.uniform(0.5, 1.0))

    def _note_available(self) -> None:
        if not self._available:
            log.info("the sweeper goes on")
        self._available = True
