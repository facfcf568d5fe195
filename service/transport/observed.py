"""The ledger, measured: how long calls take, which ones fail, and which shards were just written to."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from service.ledger.base import Ledger
from service.ledger.errors import LedgerUnavailable
from service.ledger.transaction import Outcome, Transaction
from service.transport.metrics import Metrics
from service.transport.relay import Signal


def observe(ledger: Ledger, metrics: Metrics, signal: Signal, on_failure: Callable[[], None]) -> Ledger:
    """The same ledger, with its calls counted and its commits signalled to the relay of this process.

    ``on_failure`` is called where the ledger did not answer: it may be another incarnation when it does again.
    """
    return cast(Ledger, _Observed(ledger, metrics, signal, on_failure))


class _Observed:
    """Passes everything on; what is asked for is looked up once."""

    def __init__(self, ledger: Ledger, metrics: Metrics, signal: Signal, on_failure: Callable[[], None]) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._signal = signal
        self._on_failure = on_failure
        self._commit = self._measured("commit", ledger.commit)

    async def commit(self, shard: int, transactions: Sequence[Transaction], now_ms: int) -> list[Outcome]:
        outcomes: list[Outcome] = await self._commit(shard, transactions, now_ms)
        self._signal.touch(shard)
        return outcomes

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._ledger, name)
        if inspect.iscoroutinefunction(found):
            found = self._measured(name, found)
            setattr(self, name, found)
        return found

    def _measured(self, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        seconds = self._metrics.ledger_seconds.labels(name)

        async def measured(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return await call(*arguments, **options)
            except LedgerUnavailable as error:
                self._metrics.ledger_failures.labels(error.reason).inc()
                self._on_failure()
                raise
            finally:
                seconds.observe(time.perf_counter() - began)

        return measured
