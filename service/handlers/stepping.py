"""How a job goes on: its record, its decisions, and the end of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from service import records
from service.handlers.draft import Cause, Draft, View
from service.ledger.transaction import Outcome, RecordKey, Timer

if TYPE_CHECKING:
    from service.handlers.engine import Engine

Needs = Callable[[View], Iterable[RecordKey]]


class Task:
    """One decision of a job, as the engine takes it."""

    def __init__(self, needs: Needs, decide: Callable[[View], None]) -> None:
        self.needs = needs
        self.decide = decide

    @staticmethod
    def conclude(outcomes: Sequence[Outcome]) -> bool:
        """Done when all is decided; a task that found nothing to do is done too."""
        return all(outcome.decided for outcome in outcomes)


class Running:
    """A job that is being carried out: where its record is, and the version it was read with."""

    def __init__(self, engine: Engine, shard: int, job_id: str, version: int, cause: Cause) -> None:
        self.engine = engine
        self.shard = shard
        self.job_id = job_id
        self.key = records.job_key(job_id)
        self.version = version
        self.cause = cause

    async def each(self, tasks: Sequence[Task]) -> None:
        """Carry decisions out, all of them."""
        if tasks:
            await self.engine.settle(self.shard, tasks)

    async def go_on(self, job: Any) -> None:
        """Keep what is left; it is due at once."""
        await self._write(lambda draft: self._keep(draft, job))

    async def finish(self) -> None:
        """Forget the job."""
        await self._write(self._forget)

    async def leave_chain(self, tenant: str, backlog: str, number: int) -> None:
        """Forget the job, and let the next one of its backlog go on."""
        from service.handlers import backlogs  # backlogs are built on drafts, as this is

        await self._write(lambda draft: backlogs.advance(draft, draft.step(), tenant, backlog, number))

    async def write(self, decide: Callable[[Draft], None]) -> None:
        """Any other end of a step, while the job's record is as it was read."""
        await self._write(decide)

    async def _write(self, decide: Callable[[Draft], None]) -> None:
        await self.engine.settle(self.shard, [Task(lambda view: [self.key], lambda view: self._decide(view, decide))])

    def _decide(self, view: View, decide: Callable[[Draft], None]) -> None:
        draft = Draft(view, self.cause)
        draft.read(self.key)
        if view.read(self.key).version != self.version:
            return  # somebody else went on with it, or it was started again
        decide(draft)
        draft.close()

    def _keep(self, draft: Draft, job: Any) -> None:
        step = draft.step()
        step.put.append((self.key, msgspec.msgpack.encode(job)))
        step.timers.append(Timer(f"job/{self.job_id}", draft.now_ms))

    def _forget(self, draft: Draft) -> None:
        step = draft.step()
        step.delete.append(self.key)
        step.timers.append(Timer(f"job/{self.job_id}", None))
