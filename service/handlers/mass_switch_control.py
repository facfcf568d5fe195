"""What people do with jobs of switches: create, pause, resume, cancel, run again, lead back (docs/domain.md 7.2)."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from schemas.switches import SwitchRequested
from service import records
from service.handlers import directory, mass_switches, selections, switch_answers, switch_tasks
from service.handlers.draft import Cause, Draft, View
from service.handlers.mass_switches import CANCELLED, CHUNK_TENANTS, PAUSED, RUNNING, MassSwitch, Selection
from service.handlers.stepping import Task
from service.handlers.tree import NotFoundError
from service.ledger.base import Ledger
from service.records import SwitchTask
from service.rules.tenants import ROOT

if TYPE_CHECKING:
    from service.handlers.engine import Engine


class JobNotFoundError(NotFoundError):
    """There is no such job of switches."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"There is no job of switches {job_id}.")
        self.job_id = job_id


class JobStateError(Exception):
    """The job cannot do that now; the message is a sentence for a person."""


class Order(msgspec.Struct, frozen=True):
    """What a job is to do. ``request`` is what every task asks for; its ``switch_id`` and ``job_id`` do not count.

    ``rate`` is tenants per second, None for as fast as it goes; ``owner`` is the tenant for which it is asked for.
    """

    job_id: str
    request: SwitchRequested
    selection: Selection
    rate: float | None = None
    owner: str = ROOT

    @property
    def task(self) -> str:
        """The data of its tasks without the id of the switch (JSON)."""
        shared = self.request.model_copy(update={"job_id": self.job_id})
        return shared.model_dump_json(exclude={"switch_id", "dry_run"}, exclude_none=True)

    @property
    def digest(self) -> str:
        """What stands for all of it."""
        return switch_answers.digest(f"{self.task}\n{msgspec.json.encode(self.selection).decode()}")


def shard_of(ledger: Ledger, job_id: str) -> int:
    """Where a job lies."""
    return directory.shard_of(job_id, ledger.shards)


async def find(ledger: Ledger, job_id: str) -> MassSwitch:
    """The job. Raises ``JobNotFoundError``."""
    shard, key = shard_of(ledger, job_id), records.job_key(mass_switches.ledger_job_id(job_id))
    record = (await ledger.read({shard: [key]}))[key]
    if record is None:
        raise JobNotFoundError(job_id)
    return mass_switches.decode(record.payload)


async def create(engine: Engine, order: Order, progress: Callable[[int], None] = lambda _: None) -> MassSwitch:
    """Begin a job, or answer the one that has this id and content already.

    ``progress`` hears how many tenants are selected so far. Tenants that do not exist have failed at once. Raises
    ``JobStateError`` where the id has another content, and ``TenantNotFoundError``.
    """
    try:
        known = await find(engine.ledger, order.job_id)
    except JobNotFoundError:
        part = uuid.uuid4().hex
        count = await _write_chunks(engine, order.job_id, part, _chosen(engine, order, progress))
        known = await _begin(engine, order, part, count)
    if known.asked != order.digest:
        raise JobStateError(f"There is a job {order.job_id} already, and it was asked for other things.")
    return known


async def _chosen(
    engine: Engine, order: Order, progress: Callable[[int], None]
) -> AsyncIterator[Sequence[tuple[str, str]]]:
    """The tenants of a new job with their switches; those that do not exist are written down as failed."""
    count = 0
    application = order.request.application
    async for chosen in selections.select(engine.ledger, engine.catalog, application, order.selection):
        lost = [*chosen.unknown, *(each for each in chosen.tenants if each == ROOT)]
        if lost:
            await _fail(engine, order.job_id, lost)
        count += len(chosen.tenants)
        progress(count)
        yield [(each, switch_tasks.switch_id(order.job_id, each)) for each in chosen.tenants if each != ROOT]


async def _fail(engine: Engine, job_id: str, tenants: Iterable[str]) -> None:
    def decide(view: View) -> None:
        draft = Draft(view, Cause(job_id))
        failed = [SwitchTask(switch_tasks.switch_id(job_id, each), switch_tasks.FAILED) for each in tenants]
        keys = [records.switch_task_key(job_id, each) for each in tenants]
        draft.step().put.extend(zip(keys, failed, strict=True))
        draft.close()

    await engine.settle(shard_of(engine.ledger, job_id), [Task(lambda _: (), decide)])


async def _write_chunks(
    engine: Engine, job_id: str, part: str, portions: AsyncIterator[Sequence[tuple[str, str]]]
) -> int:
    """Keep the tenants of a round, before the job that goes through them; answers how many."""
    pending: list[tuple[str, str]] = []
    number = 0
    async for portion in portions:
        pending += portion
        while len(pending) >= CHUNK_TENANTS:
            await _write_chunk(engine, job_id, part, number, pending[:CHUNK_TENANTS])
            del pending[:CHUNK_TENANTS]
            number += 1
    if pending:
        await _write_chunk(engine, job_id, part, number, pending)
    return number * CHUNK_TENANTS + len(pending)


async def _write_chunk(engine: Engine, job_id: str, part: str, number: int, tasks: Sequence[tuple[str, str]]) -> None:
    key, content = records.switch_chunk_key(job_id, part, number), tuple(tasks)

    def decide(view: View) -> None:
        draft = Draft(view, Cause(job_id))
        draft.step().put.append((key, content))
        draft.close()

    await engine.settle(shard_of(engine.ledger, job_id), [Task(lambda _: (), decide)])


async def _begin(engine: Engine, order: Order, part: str, count: int) -> MassSwitch:
    job = MassSwitch(
        job_id=order.job_id,
        asked=order.digest,
        request=order.task,
        target=order.request.target_edition,
        selection=_short(order.selection),
        rate=order.rate,
        selected=count,
        part=part,
        state=RUNNING if count else mass_switches.HANDED_OVER,
        total=count,
        created_ms=engine.clock(),
        cause=order.job_id,
        owner=order.owner,
    )
    return await _change(engine, order.job_id, lambda known: known or job)


def _short(selection: Selection) -> Selection:
    """The selection as the job itself remembers it: who was listed stands in its chunks."""
    return selection if selection.below is not None else Selection()


async def _change(
    engine: Engine, job_id: str, change: Callable[[MassSwitch | None], MassSwitch | Exception]
) -> MassSwitch:
    """Write the job as ``change`` makes it from what it is; raises what it answers instead."""
    key = records.job_key(mass_switches.ledger_job_id(job_id))
    answers: list[MassSwitch | Exception] = []

    def decide(view: View) -> None:
        draft = Draft(view, Cause(job_id))
        stored: Any = draft.read(key)
        known = None if stored is None else mass_switches.decode(stored)
        after = change(known)
        answers.append(after)
        if isinstance(after, MassSwitch) and after != known:
            step = draft.step()
            mass_switches.keep(step, after, draft.now_ms)
            step.include(records.switch_jobs_index(), job_id)
            draft.close()

    await engine.settle(shard_of(engine.ledger, job_id), [Task(lambda _: [key], decide)])
    answer = answers[-1]
    if isinstance(answer, Exception):
        raise answer
    return answer


async def _turn(engine: Engine, job_id: str, states: Sequence[str], verb: str, **changes: Any) -> MassSwitch:
    """Change a job that is in one of some states. Raises ``JobNotFoundError`` and ``JobStateError``."""

    def change(known: MassSwitch | None) -> MassSwitch | Exception:
        if known is None:
            return JobNotFoundError(job_id)
        if all(getattr(known, name) == value for name, value in changes.items()):
            return known
        if known.state not in states:
            state = known.state.replace("_", " ")
            return JobStateError(f"Job {job_id} cannot be {verb}: its tasks are {state}.")
        return msgspec.structs.replace(known, **changes)

    return await _change(engine, job_id, change)


async def pause(engine: Engine, job_id: str) -> MassSwitch:
    """Hand over no further task until it is resumed; those that are handed over go on."""
    return await _turn(engine, job_id, [RUNNING], "paused", state=PAUSED)


async def resume(engine: Engine, job_id: str, rate: float | None = None) -> MassSwitch:
    """Go on where it was paused; with ``rate`` at another one from now on, in tenants per second."""
    changes = {"state": RUNNING} | ({"rate": rate} if rate is not None else {})
    return await _turn(engine, job_id, [PAUSED], "resumed", **changes)


async def cancel(engine: Engine, job_id: str) -> MassSwitch:
    """Hand over no further task at all; those that are handed over go on."""
    return await _turn(engine, job_id, [RUNNING, PAUSED], "cancelled", state=CANCELLED)


async def rerun(engine: Engine, job_id: str) -> MassSwitch:
    """Hand over all tasks again: who has had an answer gets the same one, and nothing changes.

    After a job was cancelled, this is how the rest has its turn.
    """

    def change(known: MassSwitch | None) -> MassSwitch | Exception:
        if known is None:
            return JobNotFoundError(job_id)
        if not known.is_over:
            return JobStateError(f"Job {job_id} is not over yet.")
        return msgspec.structs.replace(
            known,
            state=RUNNING if known.selected else known.state,
            position=0,
            total=known.selected,
            round=known.round + 1,
            undo_part=None,
            undo_total=0,
            due_ms=0,
        )

    return await _change(engine, job_id, change)


async def undo(engine: Engine, job_id: str) -> MassSwitch:
    """Lead back every switch of the job that is completed, also those that others have put under its id.

    Raises ``JobStateError`` while tasks are still to be handed over or decided.
    """
    from service.handlers import mass_switch_reports as reports

    shown = await reports.job(engine.ledger, job_id)
    known = await find(engine.ledger, job_id)
    if not known.is_over or shown.counts.queued or shown.counts.running:
        raise JobStateError(f"Job {job_id} is not over yet; pause or cancel it, or wait for its end.")
    part = uuid.uuid4().hex
    count = await _write_chunks(engine, job_id, part, _completed(engine.ledger, job_id))
    if not count:
        raise JobStateError(f"Job {job_id} has no completed switch that could be led back.")

    def change(now: MassSwitch | None) -> MassSwitch | Exception:
        if now != known:
            return JobStateError(f"Job {job_id} was changed by somebody else at the same time; try again.")
        return msgspec.structs.replace(
            known,
            state=RUNNING,
            position=0,
            total=count,
            round=known.round + 1,
            undo_part=part,
            undo_total=count,
            due_ms=0,
        )

    return await _change(engine, job_id, change)


async def _completed(ledger: Ledger, job_id: str) -> AsyncIterator[list[tuple[str, str]]]:
    from service.handlers import mass_switch_reports as reports

    led_back = (switch_answers.DONE, switch_tasks.UNDO_REJECTED)
    tasks = await reports.tasks(ledger, job_id)
    yield sorted((tenant, task.switch_id) for tenant, task in tasks.items() if task.state in led_back)
