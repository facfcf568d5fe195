"""Requests that come at the same time share calls to the ledger: what comes while one is under way forms the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

from service.handlers.engine import Engine
from service.handlers.work import Result, Work
from service.ledger.base import Ledger
from service.ledger.transaction import Record, RecordKey

SIZE_MAX = 500  # questions that are answered together
AT_ONCE_MAX = 2  # calls under way, so that one that has to wait for something does not hold up all others

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class _Shared(Generic[Question, Answer]):
    """Puts questions together; nobody gets an answer that was found before the question was asked."""

    def __init__(self, answer_all: Callable[[list[Question]], Awaitable[Sequence[Answer]]]) -> None:
        self._answer_all = answer_all
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._runs: set[asyncio.Task[None]] = set()
        self._running = 0

    async def ask(self, question: Question) -> Answer:
        """The answer; raises what answering it together with others has raised."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._running < AT_ONCE_MAX:
            self._running += 1
            run = asyncio.create_task(self._run())
            self._runs.add(run)
            run.add_done_callback(self._runs.discard)
        return await answer

    async def _run(self) -> None:
        try:
            while self._waiting:
                some, self._waiting = self._waiting[:SIZE_MAX], self._waiting[SIZE_MAX:]
                await self._answer(some)
        finally:
            # At once, and not when the task is seen to be done: what is asked in between would wait for nobody.
            self._running -= 1

    async def _answer(self, some: Sequence[tuple[Question, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._answer_all([question for question, _ in some])
        except Exception as error:  # whatever it is, those who wait are told, and the next ones may fare better
            for _, waiting in some:
                if not waiting.done():
                    waiting.set_exception(error)
        else:
            for (_, waiting), answer in zip(some, answers, strict=True):
                if not waiting.done():  # whoever asked may have gone
                    waiting.set_result(answer)


class Batches:
    """Hands works to the engine, many together."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._shared: _Shared[Work, Result] = _Shared(self._decide_all)

    async def decide(self, work: Work) -> Result:
        """What became of the work. Raises ``LedgerUnavailable``: then it is not known whether it happened."""
        return await self._shared.ask(work)

    async def _decide_all(self, works: Sequence[Work]) -> Sequence[Result]:
        return await self._engine.handle_works(works)


_Keys = Mapping[int, Sequence[RecordKey]]
_Found = dict[RecordKey, Record | None]


class Reads:
    """Reads records for many in one round trip."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._shared: _Shared[_Keys, _Found] = _Shared(self._read)

    async def read(self, keys: Mapping[int, Sequence[RecordKey]]) -> _Found:
        """Records by shard and key; None for what does not exist. Raises ``LedgerUnavailable``."""
        return await self._shared.ask(keys)

    async def _read(self, asked: list[_Keys]) -> list[_Found]:
        wanted: dict[int, dict[RecordKey, None]] = {}
        for keys in asked:
            for shard, some in keys.items():
                wanted.setdefault(shard, {}).update(dict.fromkeys(some))
        found = await self._ledger.read({shard: list(some) for shard, some in wanted.items()})
        return [{key: found[key] for some in keys.values() for key in some} for keys in asked]
