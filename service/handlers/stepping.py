"""How a job goes on: its record, its decisions, and the end of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from service import records
from service.handlers.draft import Cause, Draft, Step, View
from service.ledger.transaction import Outcome, OutcomeKind, RecordKey, Timer
from service.records import MissingError

if TYPE_CHECKING:
    from service.handlers.engine import Engine

Needs = Callable[[View], Iterable[RecordKey]]

log = structlog.get_logger(__name__)

CHILDREN, WORKLOADS = 0, 1  # what of a tenant a job goes through, in this order


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """A tenant on a job's way through the tree: which half of it, and how far."""

    tenant: str
    phase: int = CHILDREN
    cursor: int = 0


def put_job(step: Step, job_id: str, job: Any, now_ms: int) -> None:
    """Keep work for later in the same step; it is due at once."""
    step.put.append((records.job_key(job_id), msgspec.msgpack.encode(job)))
    step.timers.append(Timer(f"job/{job_id}", now_ms))


class Task:
    """One decision of a job, as the engine takes it. One that fails is left out, so that the others go on."""

    tenant = ""  # what it needs of a tenant's way up, it asks for itself
    strays = False

    def __init__(self, needs: Needs, decide: Callable[[View], None]) -> None:
        self.needs = needs
        self._decide = decide
        self._given_up = False

    @staticmethod
    def tenants() -> tuple[str, ...]:
        """A job's tenants are where the job is."""
        return ()

    def decide(self, view: View) -> None:
        """Carry the decision out, unless that has failed already."""
        if self._given_up:
            return
        before = len(view.transactions)
        try:
            self._decide(view)
        except MissingError:
            raise
        except Exception as error:
            view.undo(before)
            self.give_up(error)

    def give_up(self, error: Exception) -> None:
        """The service itself is at fault."""
        log.error("one decision of a job fails and is left out", exc_info=error)
        self._given_up = True

    def conclude(self, outcomes: Sequence[Outcome]) -> bool:
        """Done when all is decided; a task that found nothing to do is done too.

        Where a sum would become too large, nothing changes: whoever asked for so much stays as it is.
        """
        if any(outcome.kind is OutcomeKind.OVERFLOW for outcome in outcomes):
            log.warning("one decision of a job is left out: a sum would exceed the largest quantity")
            return True
        return self._given_up or all(outcome.decided for outcome in outcomes)


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

    async def go_on(self, job: Any, after_ms: int = 0) -> None:
        """Keep what is left; it is due at once, or after some milliseconds."""
        await self.write(lambda draft: self._keep(draft, job, after_ms))

    async def finish(self) -> None:
        """Forget the job."""
        await self.write(self._forget)

    async def write(self, decide: Callable[[Draft], None]) -> None:
        """End a step in any way, unless somebody else went on with the job or started it again."""
        await self.engine.settle(self.shard, [Task(lambda _: [self.key], lambda view: self._decide(view, decide))])

    def _decide(self, view: View, decide: Callable[[Draft], None]) -> None:
        draft = Draft(view, self.cause)
        draft.read(self.key)
        if view.read(self.key).version == self.version:
            decide(draft)
            draft.close()

    def _keep(self, draft: Draft, job: Any, after_ms: int) -> None:
        step = draft.step()
        step.put.append((self.key, msgspec.msgpack.encode(job)))
        step.timers.append(Timer(f"job/{self.job_id}", draft.now_ms + after_ms))

    def _forget(self, draft: Draft) -> None:
        step = draft.step()
        step.delete.append(self.key)
        step.timers.append(Timer(f"job/{self.job_id}", None))
