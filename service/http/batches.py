"""Requests that come at the same time share calls to the ledger: what comes while one is under way forms the next."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from service.handlers.engine import Engine
from service.handlers.work import Result, Work
from service.ledger.base import Ledger
from service.ledger.transaction import Record, RecordKey

SIZE_MAX = 500  # works that are decided together
AT_ONCE_MAX = 2  # batches under way, so that one that has to wait for something does not hold up all others

_Asked = tuple[Work, "asyncio.Future[Result]"]


class Batches:
    """Puts works together and hands them to the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: list[_Asked] = []
        self._runs: set[asyncio.Task[None]] = set()

    async def decide(self, work: Work) -> Result:
        """What became of the work. Raises ``LedgerUnavailable``: then it is not known whether it happened."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, answer))
        if len(self._runs) < AT_ONCE_MAX:
            run = asyncio.create_task(self._run())
            self._runs.add(run)
            run.add_done_callback(self._runs.discard)
        return await answer

    async def _run(self) -> None:
        while self._waiting:
            some, self._waiting = self._waiting[:SIZE_MAX], self._waiting[SIZE_MAX:]
            try:
                results = await self._engine.handle_works([work for work, _ in some])
            except Exception as error:  # whatever it is, those who wait are told, and the next batch may do better
                for _, answer in some:
                    if not answer.done():
                        answer.set_exception(error)
            else:
                for (_, answer), result in zip(some, results, strict=True):
                    if not answer.done():  # whoever asked may have gone
                        answer.set_result(result)


_Found = dict[RecordKey, Record | None]


class Reads:
    """Reads records for many at once. Nobody is answered with what was read before the question."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._wanted: dict[int, dict[RecordKey, None]] = {}
        self._waiting: list[asyncio.Future[_Found]] = []
        self._runs: set[asyncio.Task[None]] = set()

    async def read(self, keys: Mapping[int, Sequence[RecordKey]]) -> _Found:
        """Records by shard and key; None for what does not exist. Raises ``LedgerUnavailable``."""
        for shard, some in keys.items():
            self._wanted.setdefault(shard, {}).update(dict.fromkeys(some))
        answer: asyncio.Future[_Found] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        if len(self._runs) < AT_ONCE_MAX:
            run = asyncio.create_task(self._run())
            self._runs.add(run)
            run.add_done_callback(self._runs.discard)
        found = await answer
        return {key: found[key] for some in keys.values() for key in some}

    async def _run(self) -> None:
        while self._waiting:
            wanted, self._wanted = self._wanted, {}
            waiting, self._waiting = self._waiting, []
            try:
                found = await self._ledger.read({shard: list(keys) for shard, keys in wanted.items()})
            except Exception as error:  # whatever it is, those who wait are told
                for answer in waiting:
                    if not answer.done():
                        answer.set_exception(error)
            else:
                for answer in waiting:
                    if not answer.done():  # whoever asked may have gone
                        answer.set_result(found)
