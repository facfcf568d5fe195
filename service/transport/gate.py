"""Backpressure: where announcements pile up because Kafka does not take them, no more events are taken in."""

from __future__ import annotations

import asyncio

import structlog

from service.ledger.base import Ledger
from service.ledger.errors import LedgerError, LedgerUnavailable
from service.transport.metrics import Metrics

LOOK_SECONDS = 0.5
OPEN_AGAIN = 0.8  # of the bound: so that intake does not flutter

log = structlog.get_logger(__name__)


class Gate:
    """Open while the outboxes of all shards together hold no more than ``depth_max`` announcements."""

    def __init__(self, ledger: Ledger, depth_max: int, metrics: Metrics) -> None:
        self._ledger = ledger
        self._depth_max = depth_max
        self._metrics = metrics
        self._open = asyncio.Event()
        self._open.set()

    @property
    def is_open(self) -> bool:
        """Whether events may be taken in."""
        return self._open.is_set()

    async def wait(self) -> None:
        """Return when the gate is open."""
        await self._open.wait()

    async def run(self) -> None:
        """Look at the outboxes for ever."""
        while True:
            try:
                self.judge(sum((await self._ledger.outbox_depths()).values()))
            except (LedgerUnavailable, LedgerError) as error:  # without the ledger nothing is taken in anyway
                log.debug("the outboxes could not be measured", reason=str(error))
            await asyncio.sleep(LOOK_SECONDS)

    def judge(self, depth: int) -> None:
        """Open or close for this many waiting announcements."""
        self._metrics.outbox_depth.set(depth)
        if self._open.is_set() and depth > self._depth_max:
            self._open.clear()
            self._metrics.paused.set(1)
            log.warning("intake pauses until announcements are published", outbox=depth, bound=self._depth_max)
        elif not self._open.is_set() and depth <= self._depth_max * OPEN_AGAIN:
            self._open.set()
            self._metrics.paused.set(0)
            log.info("intake goes on", outbox=depth)
