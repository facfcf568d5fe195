"""What the engine decides: something with a place in a shard, which asks for records and answers with transactions.

Nothing may stop a stream. A subject whose decision raises something that nobody foresaw is undone alone: an event
becomes a dead letter with the error code 1000, a job's decision is left out, and the log has the traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import structlog

from schemas.tenants import TenantUpserted
from service.handlers import announcements, backlogs, table
from service.handlers.announcements import Said
from service.handlers.draft import View
from service.handlers.work import MisplacedError, RefusedError, Result, UnknownTenantError, Work
from service.ledger.transaction import Outcome, OutcomeKind, RecordKey
from service.records import MissingError

INTERNAL = "1000"  # the error code of docs/domain.md 9 for what is the service's own fault

log = structlog.get_logger(__name__)


class Subject(Protocol):
    """Something to decide on one shard; ``tenant`` is whose way up it needs, "" for none."""

    @property
    def tenant(self) -> str: ...

    @property
    def strays(self) -> bool:
        """Whether its decision has shown that it belongs into another shard."""
        ...

    def tenants(self) -> tuple[str, ...]:
        """The tenants without which it may have to go elsewhere."""
        ...

    def needs(self, view: View) -> Iterable[RecordKey]:
        """The records that the decision will read, as far as they can be told by now."""
        ...

    def decide(self, view: View) -> None:
        """Add transactions to the view; raises ``MissingError`` for a record that was not loaded."""
        ...

    def give_up(self, error: Exception) -> None:
        """The ledger cannot take the decision, through no fault of its own: the next one is to be another."""
        ...

    def conclude(self, outcomes: Sequence[Outcome]) -> bool:
        """What became of those transactions; whether that is the end of it."""
        ...


class Event:
    """A work as a subject: its handler decides, and what the handler declines is answered."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.tenant = "" if work.waits else work.tenant
        self.handler = backlogs.UNKNOWN_TENANT if work.waits else table.HANDLERS[work.event.type]
        self._waited = work.waits

    @property
    def strays(self) -> bool:
        """Whether the tenant turned out not to be where it was looked for."""
        return self.work.misplaced_in is not None or self.work.waits != self._waited

    def tenants(self) -> tuple[str, ...]:
        """The event's tenant, and the parent it names."""
        data = self.work.event.data
        if self._waited:
            return ()
        return (self.work.tenant, data.parent_id) if isinstance(data, TenantUpserted) else (self.work.tenant,)

    def needs(self, view: View) -> Iterable[RecordKey]:
        """What the handler will read."""
        return self.handler.needs(view, self.work)

    def decide(self, view: View) -> None:
        """Let the handler decide, or write down why it did not."""
        work = self.work
        before = len(view.transactions)
        work.begin()
        try:
            if work.refused is not None:
                raise work.refused
            self.handler.decide(view, work)
        except MissingError:
            raise
        except RefusedError as refused:
            view.undo(before)
            work.reject(view, refused)
        except UnknownTenantError as unknown:
            view.undo(before)
            self._wait(unknown)
        except MisplacedError:
            view.undo(before)
            work.misplaced_in = view.shard
        except Exception as error:
            view.undo(before)
            self.give_up(error)
            work.begin()
            work.reject(view, work.refused or internal_error())

    def give_up(self, error: Exception) -> None:
        """The service itself is at fault: a dead letter, and the stream goes on."""
        event = self.work.event
        log.error("the service fails on an event", type=event.type, id=event.id, tenant=event.tenantid, exc_info=error)
        self.work.refused = internal_error()

    def _wait(self, unknown: UnknownTenantError) -> None:
        """The tenant is not there yet. Who waits already goes on waiting; a person gets an answer."""
        if self.work.queued is not None:
            self.work.result = Result("delayed", "unknown_tenant")
        elif self.work.arrival.origin is None:
            context = {"code": "1005", "tenant_id": unknown.tenant}
            self.work.result = Result("rejected", "unknown_tenant", f"there is no tenant {unknown.tenant}", context)
        else:
            self.work.waits = True

    def conclude(self, outcomes: Sequence[Outcome]) -> bool:
        """Turn outcomes into the work's result; without one it is decided again."""
        work = self.work
        is_asked = work.arrival.origin is None  # somebody waits for an answer
        if len(outcomes) == 1 and outcomes[0].kind is OutcomeKind.APPLIED and work.result is None:
            work.result = Result("applied", said=_said(work, outcomes)) if is_asked else _APPLIED  # nearly always
            return True
        if any(outcome.kind is OutcomeKind.OVERFLOW for outcome in outcomes):
            work.refused = RefusedError("invalid_data", "a sum would exceed the largest quantity")
        if not all(outcome.decided for outcome in outcomes):
            work.result = None
        elif work.result is None and outcomes:
            work.result = _result(work, outcomes)
        return work.result is not None


_APPLIED = Result("applied")


def internal_error() -> RefusedError:
    """What is said of an event on which the service itself fails."""
    return RefusedError("not_allowed", "The service could not handle the event; its logs say why.", INTERNAL)


def _result(work: Work, outcomes: Sequence[Outcome]) -> Result:
    kinds = {outcome.kind for outcome in outcomes}
    if any(outcome.denials for outcome in outcomes):
        kinds.add(OutcomeKind.DENIED)  # a duplicate of an idempotency key carries the first outcome
    if OutcomeKind.DENIED in kinds and work.otherwise is not None:
        refused = work.otherwise
        obstacles = [announcements.obstacle(denial) for outcome in outcomes for denial in sum(outcome.denials, ())]
        return Result("rejected", refused.code, refused.message, {**refused.context, "denials": obstacles})
    said = _said(work, outcomes) if work.arrival.origin is None else ()
    if OutcomeKind.DENIED in kinds:
        return Result("denied", said=said)
    return Result("applied" if OutcomeKind.APPLIED in kinds else "duplicate", said=said)


def _said(work: Work, outcomes: Sequence[Outcome]) -> tuple[Said, ...]:
    """What the work has announced. A duplicate has announced nothing, whatever its handler would say now."""
    found: list[Said] = []
    if len(work.drafts) != len(outcomes):
        return ()
    for draft, outcome in zip(work.drafts, outcomes, strict=True):
        if outcome.kind in (OutcomeKind.APPLIED, OutcomeKind.DENIED) and 0 <= outcome.attempt < len(draft.steps):
            emitted = draft.steps[outcome.attempt].emit
            found += [announcements.said(each, outcome.denials) for each in emitted if not each.unless_same]
    return tuple(found)
