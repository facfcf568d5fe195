"""How jobs of switches stand: counts, and what became of every tenant (docs/domain.md 7.2).

Outcomes lie with their tenants, in all shards, where the decision wrote them; so tasks that other programs put on the
topic under the job's id are counted like its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from service import records
from service.handlers import mass_switch_control, mass_switches, switch_answers, switch_lookups, switch_tasks, tree
from service.handlers.mass_switches import CHUNK_TENANTS, MassSwitch
from service.ledger.base import Ledger
from service.records import SwitchTask

PAGE = 1000  # outcomes of one round trip, or of one page of results
QUEUED, CANCELLED = "queued", "cancelled"
UNDER_WAY = (switch_answers.PREPARING, switch_answers.RUNNING)


class Counts(msgspec.Struct, frozen=True):
    """Tenants of a job by what has become of them.

    ``queued`` are those whose task is not decided, or not handed over yet; ``cancelled`` those whose task never will
    be. ``undo_rejected`` are completed and could not be led back. They add up to ``total``.
    """

    total: int = 0
    queued: int = 0
    running: int = 0
    completed: int = 0
    rejected: int = 0
    failed: int = 0
    cancelled: int = 0
    undone: int = 0
    undo_rejected: int = 0


class JobRow(msgspec.Struct, frozen=True):
    """A job as others see it. ``state``: running, paused, cancelled, finished; undoing and undone where it is led back.

    ``handed_over`` of ``to_hand_over`` tasks are on the topic, in the round that goes on or went on last.
    """

    job_id: str
    state: str
    target_edition: str
    request: dict[str, Any]
    selection: mass_switches.Selection
    rate: float | None
    created_ms: int
    handed_over: int
    to_hand_over: int
    counts: Counts


class Outcome(msgspec.Struct, frozen=True):
    """What became of a tenant. ``event`` is the last announcement of its switch: ``{type, data}``, None before it."""

    tenant_id: str
    switch_id: str
    outcome: str
    event: dict[str, Any] | None


class Results(msgspec.Struct, frozen=True):
    """A page of outcomes, by tenant id; ``after`` is what to ask the next page with, None at the end."""

    job_id: str
    results: list[Outcome]
    after: str | None


async def all_jobs(ledger: Ledger) -> list[MassSwitch]:
    """Every job that is remembered, the newest first."""
    key = records.switch_jobs_index()
    shards = await tree.each(range(ledger.shards), lambda shard: ledger.members(shard, key))
    names = [name for _, some in shards for name in some]
    found = await tree.each(names, lambda name: mass_switch_control.find(ledger, name))
    return sorted((job for _, job in found), key=lambda job: (-job.created_ms, job.job_id))


async def job(ledger: Ledger, job_id: str) -> JobRow:
    """One job with its counts. Raises ``JobNotFoundError``."""
    found = await mass_switch_control.find(ledger, job_id)
    outcomes = {tenant: task.state for tenant, task in (await tasks(ledger, job_id)).items()}
    counted = Counter(outcomes.values())
    undoing = False
    async for number, portion in _chunks(ledger, found, found.part):
        for place, (tenant, _) in enumerate(portion, number * CHUNK_TENANTS):
            if tenant not in outcomes:
                counted[_untouched(found, place)] += 1
    if found.undo_part is not None:
        async for _, portion in _chunks(ledger, found, found.undo_part):
            undoing = undoing or any(outcomes.get(tenant) in _NOT_LED_BACK for tenant, _ in portion)
    counts = _counts(counted)
    return _row(found, counts, undoing=undoing)


_NOT_LED_BACK = (switch_answers.DONE, *UNDER_WAY)


def _row(found: MassSwitch, counts: Counts, *, undoing: bool) -> JobRow:
    return JobRow(
        job_id=found.job_id,
        state=_state(found, counts, undoing=undoing),
        target_edition=found.target,
        request=msgspec.json.decode(found.request),
        selection=found.selection,
        rate=found.rate,
        created_ms=found.created_ms,
        handed_over=found.position,
        to_hand_over=found.total,
        counts=counts,
    )


def _counts(counted: Mapping[str, int]) -> Counts:
    running = sum(counted.get(state, 0) for state in UNDER_WAY)
    others = {name: counted.get(name, 0) for name in Counts.__struct_fields__ if name not in ("total", "running")}
    return Counts(total=sum(counted.values()), running=running, **others)


def _state(found: MassSwitch, counts: Counts, *, undoing: bool) -> str:
    if found.state in (mass_switches.PAUSED, mass_switches.CANCELLED):
        return found.state
    if found.undoing:
        return "undoing" if undoing or found.state == mass_switches.RUNNING else "undone"
    is_over = found.state == mass_switches.HANDED_OVER and not (counts.queued or counts.running)
    return "finished" if is_over else "running"


def _untouched(found: MassSwitch, place: int) -> str:
    """What is to be said of a tenant of the selection of whose task nothing is known."""
    reached = found.selected if found.undoing else found.position
    return CANCELLED if found.state == mass_switches.CANCELLED and place >= reached else QUEUED


async def tasks(ledger: Ledger, job_id: str) -> dict[str, SwitchTask]:
    """The outcome of every tenant that has one."""
    found: dict[str, SwitchTask] = {}
    for _, some in await tree.each(range(ledger.shards), lambda shard: _tasks_of_shard(ledger, shard, job_id)):
        for tenant, task in some.items():
            if found.get(tenant, task).state == switch_tasks.FAILED or tenant not in found:
                found[tenant] = task  # a failure may lie elsewhere: its tenant was not known then
    return found


async def _tasks_of_shard(ledger: Ledger, shard: int, job_id: str) -> dict[str, SwitchTask]:
    found: dict[str, SwitchTask] = {}
    cursor = 0
    while True:
        cursor, page = await ledger.scan(shard, "switchtask", job_id, cursor, PAGE)
        for tenant, record in page.items():
            found[tenant] = records.decode(records.switch_task_key(job_id, tenant), record.payload)
        if not cursor:
            return found


async def _chunks(ledger: Ledger, found: MassSwitch, part: str) -> AsyncIterator[tuple[int, Sequence[tuple[str, str]]]]:
    """The tenants of a round with their switches, in order, chunk by chunk."""
    shard = mass_switch_control.shard_of(ledger, found.job_id)
    count = dict(found.parts()).get(part, 0)
    for number in range(count):
        key = records.switch_chunk_key(found.job_id, part, number)
        record = (await ledger.read({shard: [key]}))[key]
        yield number, records.decode(key, record.payload) if record is not None else ()


# --- what became of every tenant


async def results(ledger: Ledger, job_id: str, after: str = "", limit: int = PAGE) -> Results:
    """A page of the outcomes, beginning behind the tenant ``after``. Raises ``JobNotFoundError``."""
    found = await mass_switch_control.find(ledger, job_id)
    known = {tenant: (task.switch_id, task.state) for tenant, task in (await tasks(ledger, job_id)).items()}
    async for number, portion in _chunks(ledger, found, found.part):
        for place, (tenant, switch_id) in enumerate(portion, number * CHUNK_TENANTS):
            known.setdefault(tenant, (switch_id, _untouched(found, place)))
    names = sorted(name for name in known if name > after)
    page = names[: max(1, limit)]
    events = await switch_lookups.last_events(ledger, {name: known[name][0] for name in page})
    rows = [Outcome(name, *known[name], events.get(name)) for name in page]
    return Results(job_id, rows, page[-1] if len(names) > len(page) else None)


async def all_results(ledger: Ledger, job_id: str) -> AsyncIterator[Outcome]:
    """Every outcome, by tenant id."""
    after: str | None = ""
    while after is not None:
        page = await results(ledger, job_id, after)
        for outcome in page.results:
            yield outcome
        after = page.after
