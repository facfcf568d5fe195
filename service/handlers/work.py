"""One event on its way to its decision, and the two ways in which a handler can decline it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from schemas.envelope import Inbound
from service import records
from service.handlers import announcements, switch_tasks
from service.handlers.announcements import Origin, Said
from service.handlers.draft import Cause, Draft, Placement, View
from service.ledger.transaction import STEPS_PER_OFFSET, Emission, RecordKey
from service.rules import facets
from service.rules.tenants import ROOT


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """An event as it came in; without an origin it came over HTTP or from a person, and is always the newest."""

    event: Inbound
    origin: Origin | None = None
    version: int | None = None  # of the tenant that is to be deleted, as whoever asks has seen it
    beside: tuple[tuple[RecordKey, Any], ...] = ()  # records that are written in the step that changes the tenant


class Result(msgspec.Struct, frozen=True):
    """What became of an arrival: applied, denied, duplicate, rejected (with code and reason), or delayed (with a code
    where it is because its tenant is not known).

    ``said`` is what was announced by that, where somebody waits for the answer: whoever asks without a stream. Empty
    for a duplicate, which announces nothing.
    """

    kind: str
    code: str | None = None
    message: str = ""
    context: Mapping[str, Any] = {}
    said: tuple[Said, ...] = ()


class Handler(NamedTuple):
    """What an event type does: which records it will read, as far as can be told by now, and what it decides."""

    needs: Callable[[View, Work], Iterable[RecordKey]]
    decide: Callable[[View, Work], None]


class RefusedError(Exception):
    """An event that may not be: a dead letter, or an HTTP error. ``error`` is the code of docs/domain.md 9, if any."""

    def __init__(self, code: str, message: str, error: str | None = None, **context: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.context = {"code": error, **context} if error else context


class MisplacedError(Exception):
    """The directory names a shard where the tenant is not: the rest of a crash, to be mended."""


class UnknownTenantError(Exception):
    """The event's tenant, or the parent it names, does not exist yet."""

    def __init__(self, tenant: str) -> None:
        super().__init__(tenant)
        self.tenant = tenant


class Queued(msgspec.Struct):
    """The place of an event that comes out of a backlog; how much of its list is done, and to where this step got."""

    backlog: str
    number: int
    done: int = 0
    reached: int | None = None


class Work:
    """An arrival with its place in a stream: ``source`` and ``number`` make it happen once."""

    __slots__ = (
        "arrival",
        "cause",
        "drafts",
        "event",
        "misplaced_in",
        "name_holder",
        "number",
        "once",
        "otherwise",
        "parent_shard",
        "queued",
        "refused",
        "result",
        "source",
        "stamp",
        "tenant",
        "waits",
    )  # fmt: skip - one name on each line would be a page

    def __init__(self, arrival: Arrival, source: str | None, number: int, *, queued: Queued | None = None) -> None:
        event = arrival.event
        self.arrival = arrival
        self.event = event
        self.tenant = event.tenantid
        self.source = source
        self.number = number
        self.queued = queued  # out of a backlog, so it does not go into one again
        self.cause = Cause(event.id, event.traceparent)
        self.stamp = facets.stamp(event.source, event.id, event.time_us, event.sequence)
        self.result: Result | None = None
        self.drafts: list[Draft] = []
        self.refused: RefusedError | None = None  # found out where no handler could say so
        self.otherwise: RefusedError | None = None  # what it means when the ledger refuses the first attempt
        self.once: str | None = None  # what makes it happen once where it has no place in a stream
        self.name_holder: str | None = None  # who else has the name that it gives to one of root's children
        self.waits = False  # for its tenant: it goes into the backlog of the unknown
        self.parent_shard: int | None = None  # of a tenant's upsert
        self.misplaced_in: int | None = None  # where the directory says the tenant is, and it is not

    def begin(self) -> None:
        """Forget what an earlier try has left."""
        self.drafts.clear()
        self.otherwise = None

    def stamp_over(self, recorded: facets.Stamp | None) -> facets.Stamp | None:
        """The stamp to record for the facet that has ``recorded`` now; None where the event is old news of it.

        What comes over HTTP is always the newest (docs/contracts.md 1).
        """
        if self.arrival.origin is None:
            return facets.newest(self.stamp, recorded)
        return self.stamp if facets.supersedes(self.stamp, recorded) else None

    def draft(self, view: View, step: int = 0) -> Draft:
        """A transaction of this event; ``step`` counts its transactions and must be the same at every try."""
        once = self.once if step == 0 else None  # the other steps are of lists, which say nothing twice
        draft = Draft(view, self.cause, self.source, self.number * STEPS_PER_OFFSET + step, once)
        self.drafts.append(draft)
        return draft

    def reject(self, view: View, refused: RefusedError) -> None:
        """Write the dead letter, in the step that moves the event's position, and only while what was read holds."""
        unfinished = self.drafts[-1] if self.drafts else self.draft(view)
        unfinished.steps.clear()
        # The last step of the event: those before it may have been applied at an earlier try.
        unfinished.position = self.number * STEPS_PER_OFFSET + STEPS_PER_OFFSET - 1
        unfinished.once = f"{self.once}/rejected" if self.once is not None else None
        step = unfinished.step()
        self.emit_rejection(step.emit, refused)
        switch_tasks.note_failure(step, self.event, view)
        unfinished.close()
        self.result = Result("rejected", refused.code, refused.message, refused.context)

    def refuse_otherwise(self, draft: Draft, refused: RefusedError) -> None:
        """A last attempt: where the ledger refuses the first one, the event is rejected with what stood in the way."""
        self.otherwise = refused
        self.emit_rejection(draft.step().emit, refused, 0)

    def emit_rejection(self, emissions: list[Emission], refused: RefusedError, *denials_of: int) -> None:
        """Announce the rejection, where there is an original message to show. Its time is the event's own, so that it
        is the same however often the event comes to be rejected."""
        if self.arrival.origin is None:
            return
        facts = announcements.rejection_facts(
            self.arrival.origin,
            refused.code,
            refused.message,
            refused.context,
            tenant=self.tenant,
            time_ms=self.event.time_us // 1000,
            cause=self.cause.id,
        )
        emissions.append(Emission(facts, denials_of))


def placement_of(draft: Draft, tenant: str) -> Placement:
    """Where the event's tenant stands. Raises what says that it is not known yet, or that it is root."""
    if tenant == ROOT:
        raise RefusedError(
            "not_allowed", "root has every item and no limit, and nothing of its own", "1002", tenant_id=ROOT
        )
    placement = draft.placement(tenant)
    if placement is None:
        raise UnknownTenantError(tenant)
    return placement


def refuse_while_switched(placement: Placement) -> None:
    """Nothing of a customer but its workloads and plans changes while it is switched (docs/domain.md 7)."""
    switching = placement.items.switching
    if switching is not None:
        reason = f"{placement.customer} is being switched ({switching.switch_id}); try again when that is over"
        raise RefusedError("not_allowed", reason, "1012", tenant_id=placement.customer, switch_id=switching.switch_id)


def path_keys(view: View, tenant: str) -> list[RecordKey]:
    """The records of the way from a tenant up to root, with items, as far as it is known by now."""
    if view.is_placed(tenant):
        return []
    keys: list[RecordKey] = []
    name = tenant
    while name not in ("", "root") and len(keys) < 2 * records.PATH_KEYS_MAX:
        key = records.tenant_key(name)
        keys.append(key)
        keys.append(records.items_key(name))
        entry = view.peek(key)
        if entry is None or entry.value is None:
            break
        name = entry.value.parent_id
    return keys
