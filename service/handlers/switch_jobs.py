"""A switch of many workloads, carried out step by step: counted, started, moved, ended (docs/domain.md 7).

Every step may be repeated: what a crash interrupts is done again from what the ledger knows. Counting is done in this
process' memory and begins anew; moving goes on where it was, as who has moved is found to have moved.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from schemas.switches import SwitchRequested
from service import records
from service.catalog.model import HELD_ROLES, WHOLE_ROLES
from service.handlers import (
    assignments,
    enablement,
    stepping,
    switch_answers,
    switch_asides,
    switch_endings,
    switch_moves,
    switch_situations,
    switch_starts,
    workloads,
)
from service.handlers.draft import Draft, Step, View
from service.handlers.stepping import Running, Task
from service.handlers.switch_answers import Ask, Progress
from service.handlers.switch_starts import SwitchJob
from service.handlers.work import path_keys
from service.ledger.base import Ledger
from service.ledger.transaction import Account, RecordKey, Take, Timer
from service.records import Plan, Switch, Switching, Versioned, Workload
from service.rules import switch_reconciling, switching
from service.rules.switch_mapping import Direction
from service.rules.switch_reconciling import Outcome, Sides
from service.rules.tally import Kind, Tally

COUNTED_PER_READ = 500
MOVED_PER_STEP = 500  # at most: a slice of the time of a process that has others to serve too
MOVED_TOGETHER = 50  # in one transaction
WALK_AGAIN_MS = 5_000  # where somebody could not be moved, because a sum would become too large for example
SAID_EVERY = 10_000  # moved workloads
UNITS_MAX = 1_000_000  # of a customer, all of which have to be read
TRIES_MAX = 20  # to start before somebody changes again


async def run(running: Running, job: SwitchJob) -> None:
    """One step."""
    if not job.started:
        await _begin(running, job)
    elif job.members:
        await _move(running, job)
    else:
        await _end(running, job)


# --- counted


class Count:
    """The workloads of a customer and its units by kind, as of a version; later ones are counted again."""

    def __init__(self, ledger: Ledger, shard: int, undone: str | None = None) -> None:
        self._ledger = ledger
        self._shard = shard
        self._undone = undone
        self._plans: dict[str, dict[str, Plan]] = {}
        self._kinds: dict[tuple[str, str], Kind] = {}
        self.tallies: dict[str, Tally] = {}
        self.version = 0
        self.disturbed: Sequence[str] = ()  # whom decisions have noted as changed
        self.disturbances = 0  # how many such decisions there were

    async def count(self, tenant: str) -> None:
        """Count everybody, and those again that were changed meanwhile; anew, where there are other units now."""
        members = await all_members(self._ledger, self._shard, tenant)
        if set(members) != self.tallies.keys():
            self.tallies.clear()
            self._kinds.clear()
            self.version = await self._ledger.sequence(self._shard)
            for member in members:
                self.tallies[member] = Tally()
                self._plans[member] = await self._read_plans(member)
                async for name, workload in _all_workloads(self._ledger, self._shard, member):
                    self._enter(member, name, workload)
        await self._count_again(tenant)

    async def _count_again(self, tenant: str) -> None:
        accounts = (await self._ledger.accounts({self._shard: [tenant]})).get(tenant, {})
        self.disturbances = accounts.get(records.DISTURBANCES, Account()).used
        version = await self._ledger.sequence(self._shard)
        self.disturbed = await self._ledger.members(self._shard, records.disturbed_index(tenant))
        places = [name.partition("/") for name in self.disturbed]
        keys = [records.workload_key(member, name) for member, _, name in places]
        found = await self._ledger.read({self._shard: keys}) if keys else {}
        for key, record in found.items():
            if key.tenant in self.tallies and (record is None or record.version > self.version):
                self._enter(key.tenant, key.id, records.decode(key, record.payload) if record is not None else None)
        self.version = version

    def holds(self, draft: Draft, tenant: str) -> bool:
        """Whether it is still what was counted; the decision depends on that from now on."""
        for member in self.tallies:
            draft.read(records.children_key(member))
        if set(switch_situations.known_members(draft.view, tenant, UNITS_MAX)) != self.tallies.keys():
            return False
        account: Account = draft.view.read(records.accounts_key(tenant)).value.get(records.DISTURBANCES, Account())
        draft.expect_balance(tenant, records.DISTURBANCES, account)
        return account.used == self.disturbances

    def _enter(self, member: str, name: str, workload: Workload | None) -> None:
        plans = self._plans[member]
        kind = switch_situations.kind_with(workload, plans.get, self._undone) if workload is not None else None
        before = self._kinds.pop((member, name), None)
        full_name = f"{member}/{name}"
        if before is not None:
            self.tallies[member].remove(full_name, before)
        if kind is not None:
            self._kinds[member, name] = kind
            self.tallies[member].add(full_name, kind)

    async def _read_plans(self, member: str) -> dict[str, Plan]:
        plans: dict[str, Plan] = {}
        cursor = 0
        while True:
            cursor, some = await self._ledger.scan(self._shard, "plan", member, cursor, COUNTED_PER_READ)
            plans |= {n: records.decode(records.plan_key(member, n), record.payload) for n, record in some.items()}
            if not cursor:
                return plans

    def whole(self) -> Tally:
        """All of them together."""
        merged = Tally()
        for tally in self.tallies.values():
            merged.merge(tally)
        return merged


async def _all_workloads(ledger: Ledger, shard: int, tenant: str) -> AsyncIterator[tuple[str, Workload]]:
    cursor = 0
    while True:
        cursor, some = await ledger.scan(shard, "workload", tenant, cursor, COUNTED_PER_READ)
        for name, record in some.items():
            yield name, records.decode(records.workload_key(tenant, name), record.payload)
        if not cursor:
            return


async def all_members(ledger: Ledger, shard: int, tenant: str) -> tuple[str, ...]:
    """The customer and all units below it, deleted ones too."""
    names, level = [tenant], [tenant]
    while level:
        found = await ledger.members_together({shard: [index for name in level for index in records.below(name)]})
        level = [name for members in found.values() for name in members]
        names += level
    return tuple(names)


# --- started


async def _begin(running: Running, job: SwitchJob) -> None:
    """Count, and start as soon as what was counted still holds.

    Where a customer never holds still, the switch starts all the same in the end: what was set aside for the few that
    have changed since is free when it is over, and until then they take units like everybody else.
    """
    count = Count(running.engine.ledger, running.shard, job.switch_id if job.request is None else None)
    for tries in range(TRIES_MAX + 1):
        await count.count(job.tenant)
        if await _try_to_start(running, job, count, exactly=tries < TRIES_MAX):
            return


async def _try_to_start(running: Running, job: SwitchJob, count: Count, *, exactly: bool) -> bool:
    """Decide; whether that is done, and not put off because somebody has changed since the count."""
    done = True

    def needs(view: View) -> Iterable[RecordKey]:
        yield running.key
        for member in switch_situations.known_members(view, job.tenant, UNITS_MAX):
            yield from path_keys(view, member)
            yield records.units_key(member)
            yield records.children_key(member)
        yield records.accounts_key(job.tenant)
        yield records.switch_key(job.tenant, job.switch_id)
        data = _request(job)
        if data is not None and data.plan_hash is not None:
            yield records.preview_key(job.tenant, data.plan_hash)

    def decide(view: View) -> None:
        nonlocal done
        draft = Draft(view, running.cause)
        draft.read(running.key)
        if view.read(running.key).version != running.version:
            return  # somebody else has done it
        done = not exactly or count.holds(draft, job.tenant)
        if done:
            _start(draft, job, count, running.job_id)
            if running.job_id == switch_starts.job_id(job.tenant):  # a preview leaves others' notes alone
                for step in draft.steps:
                    _forget_disturbed(step, job.tenant, count)
            draft.close()

    await running.engine.settle(running.shard, [Task(needs, decide)])
    return done


def _forget_disturbed(step: Step, tenant: str, count: Count) -> None:
    """What decisions have noted for the count is of no use any more."""
    for name in count.disturbed:
        step.exclude(records.disturbed_index(tenant), name)
    if count.disturbances:
        step.take.append(Take((tenant,), records.DISTURBANCES, -count.disturbances, fact=True))


def _request(job: SwitchJob) -> SwitchRequested | None:
    return None if job.request is None else SwitchRequested.model_validate_json(job.request)


def _start(draft: Draft, job: SwitchJob, count: Count, running_id: str) -> None:
    data = _request(job)
    if data is None:
        _start_undo(draft, job, count)
        return
    tenant, ask = job.tenant, Ask(data.switch_id, data.job_id, data.target_edition)
    situation = switch_situations.situation(draft, tenant, data.application, count.whole())
    plan = switching.plan(draft.catalog, situation, data.target_edition, switch_endings.options_of(data))
    if data.dry_run:
        switch_endings.show(draft, tenant, ask, plan)
        _forget(draft, running_id)
        return
    drift = switch_endings.drift_of(draft, tenant, data, plan)
    if drift or plan.direction is None or switch_endings.hindrances(plan, data.mode):
        step = draft.step()
        switch_starts.unmark(draft, step, tenant)
        switch_endings.reject(draft, step, tenant, data, plan, () if drift else plan.refusals, drift)
        return
    step = draft.step()
    if plan.direction is Direction.NOTHING:
        switch_starts.unmark(draft, step, tenant)
        record = switch_endings.remembered(draft, data, switch_answers.DONE, switch_answers.COMPLETED, plan)
        content = switch_answers.data(ask, plan, Progress(plan.workloads.total), switch_answers.items_after(plan))
        switch_endings.conclude(draft, step, tenant, record, content)
        return
    record = switch_starts.running(
        plan, switch_endings.remembered(draft, data, switch_answers.RUNNING, switch_answers.STARTED, plan)
    )
    aside = data.mode == "strict"
    switch_starts.start(draft, step, tenant, ask, plan, count.tallies, record, version=count.version, aside=aside)
    if aside:
        refused = draft.step()
        switch_starts.unmark(draft, refused, tenant)
        switch_endings.reject(draft, refused, tenant, data, plan, (), (), denials_of=(0,))


def _forget(draft: Draft, job_id: str) -> None:
    step = draft.steps[-1]
    step.delete.append(records.job_key(job_id))
    step.timers.append(Timer(f"job/{job_id}", None))


def _start_undo(draft: Draft, job: SwitchJob, count: Count) -> None:
    tenant = job.tenant
    known: Switch | None = draft.read(records.switch_key(tenant, job.switch_id))
    assert known is not None  # it is led back, so it is remembered
    assert known.kept is not None
    ask = Ask(job.switch_id, known.job_id, None, undoing=True)
    situation = switch_situations.situation(draft, tenant, known.kept.application, count.whole())
    back = switching.undo(draft.catalog, situation, known.kept)
    if back.plan.direction is None or switch_endings.hindrances(back.plan):
        _refuse_undo(draft, tenant, ask, known, back, ())
        return
    record = msgspec.structs.replace(known, state=switch_answers.RUNNING, type=switch_answers.STARTED)
    switch_starts.start(
        draft, draft.step(), tenant, ask, back.plan, count.tallies, record, version=count.version, drift=back.drift
    )
    _refuse_undo(draft, tenant, ask, known, back, (0,))


def _refuse_undo(
    draft: Draft, tenant: str, ask: Ask, known: Switch, back: switching.UndoPlan, denials_of: tuple[int, ...]
) -> None:
    step = draft.step()
    switch_starts.unmark(draft, step, tenant)
    refusals = () if denials_of else back.plan.refusals
    content = switch_answers.data(
        ask,
        back.plan,
        Progress(),
        denials=switch_answers.refusals(refusals),
        drift=switch_answers.drifts(back.drift),
    )
    switch_endings.refused_undo(draft, step, tenant, known, content, denials_of)


# --- moved


async def _move(running: Running, job: SwitchJob) -> None:
    """Some workloads of one member: those that hold something of the source, and once everybody whom it may concern."""
    member = job.members[0]
    mark = await _mark(running, job.tenant)
    size = min(MOVED_PER_STEP, 2 * running.engine.options.switch_workloads_at_once_max)
    cursor, some = await running.engine.ledger.scan(running.shard, "workload", member, job.cursor, size)
    found = {name: records.decode(records.workload_key(member, name), record.payload) for name, record in some.items()}
    catalog = running.engine.catalog
    moving = {name for name, one in found.items() if switch_asides.is_of(catalog, mark, one)}
    claiming = {name: Versioned(some[name].version, found[name]) for name in found if name in moving}
    claiming = {name: entry for name, entry in claiming.items() if switch_asides.has_claim(mark, entry.version)}
    others = [name for name, one in found.items() if name not in moving and not job.walk and _may_change(mark, one)]
    chunks = [_Together(running, member, dict(part)) for part in _parts(claiming.items(), MOVED_TOGETHER)]
    await running.each([Task(chunk.needs, chunk.decide) for chunk in chunks])
    alone = [*moving.difference(claiming), *others, *(name for chunk in chunks for name in chunk.waiting)]
    await running.each([_move_task(running, member, name) for name in alone])
    denied = await _count_denied(running, mark, member, sorted(moving))
    after = msgspec.structs.replace(
        job,
        members=job.members if cursor else job.members[1:],
        cursor=cursor,
        moved=min(job.total, job.moved + len(moving) - denied),
        denied=job.denied + denied,
    )
    said = after.moved // SAID_EVERY != job.moved // SAID_EVERY
    await running.write(lambda draft: _progress(draft, running, after, said=said))


def _parts(entries: Iterable[tuple[str, Versioned]], size: int) -> Iterator[list[tuple[str, Versioned]]]:
    left = iter(entries)
    while part := list(itertools.islice(left, size)):
        yield part


def _may_change(mark: Switching, workload: Workload) -> bool:
    """Whether anything of one that holds nothing of the source may be due to change."""
    counted_before = not set(mark.before).isdisjoint(workload.counted)
    return workload.waiting or counted_before or (workload.type is not None and not workload.holding)


class _Together:
    """Some workloads of one tenant, moved in one transaction: each gets what is set aside for it, as it was planned.

    What was read when they were looked for will do at first; where one has changed since, all are read again.
    """

    def __init__(self, running: Running, tenant: str, entries: Mapping[str, Versioned]) -> None:
        self._running = running
        self._tenant = tenant
        self._entries = entries
        self._is_fresh = True
        self.waiting: list[str] = []  # they wait for more, and are decided alone

    def needs(self, view: View) -> Iterable[RecordKey]:
        """The workloads with their plans, and the way up."""
        keys = [records.workload_key(self._tenant, name) for name in self._entries]
        if self._is_fresh:
            view.take_in(dict(zip(keys, self._entries.values(), strict=True)))
        plans = {plan for key in keys if (entry := view.peek(key)) and entry.value for plan in entry.value.links}
        return (*path_keys(view, self._tenant), *keys, *(records.plan_key(self._tenant, plan) for plan in plans))

    def decide(self, view: View) -> None:
        """Move those that have not been moved by anybody else meanwhile."""
        self._is_fresh = False
        draft = Draft(view, self._running.cause)
        placement = draft.placement(self._tenant)
        switching = placement.items.switching if placement is not None else None
        if (
            placement is not None and switching is not None and not switching.preparing
        ):  # or what the cache has is from before the start
            sides = switch_asides.sides_of(draft.catalog, switching, placement.items.enabled)
            found = self._outcomes(draft, switching, sides)
            mark = None if switching.undoing else switch_situations.mark(switching.switch_id)
            self.waiting = [name for name, outcome in found.items() if outcome.waits]
            moving = {name: outcome for name, outcome in found.items() if not outcome.waits}
            switch_moves.move_some(draft, draft.step(), self._tenant, moving, mark)
        draft.close()

    def _outcomes(self, draft: Draft, switching: Switching, sides: Sides) -> dict[str, Outcome]:
        undone = switching.switch_id if switching.undoing else None
        found = {}
        for name in self._entries:
            version, one = draft.view.read(records.workload_key(self._tenant, name))
            still = one is not None and switch_asides.is_of(draft.catalog, switching, one)
            if still and switch_asides.has_claim(switching, version):
                kind = switch_situations.kind_of(draft, self._tenant, one, undone)
                if kind is not None:
                    found[name] = switch_reconciling.reconcile(draft.catalog, sides, kind, 1)
        return found


async def _mark(running: Running, tenant: str) -> Switching:
    key = records.items_key(tenant)
    record = (await running.engine.ledger.read({running.shard: [key]}))[key]
    mark: Switching | None = records.decode(key, record.payload).switching if record is not None else None
    assert mark is not None  # nothing but the end of this job takes it away
    return mark


def _move_task(running: Running, tenant: str, workload_id: str) -> Task:
    def decide(view: View) -> None:
        draft = Draft(view, running.cause)
        now = draft.workload(tenant, workload_id)
        assignments.reassign(draft, tenant, workload_id, now, "switch")
        assignments.close_unwritten(draft, now)

    return Task(lambda view: workloads.needs_of(view, tenant, workload_id), decide)


async def _count_denied(running: Running, mark: Switching, member: str, moved: Sequence[str]) -> int:
    """How many of those that were moved are left without an edition or base item: they all wait."""
    waiting = await running.engine.ledger.waiting(running.shard, member, moved) if moved else {}
    keys = [records.workload_key(member, name) for name in waiting]
    found = await running.engine.ledger.read({running.shard: keys}) if keys else {}
    catalog = running.engine.catalog
    denied = 0
    for key, record in found.items():
        holding = records.decode(key, record.payload).holding if record is not None else {}
        items = (catalog.find_item(name) for name in holding)
        denied += not any(item and item.edition == mark.target and item.role in WHOLE_ROLES for item in items)
    return denied


def _progress(draft: Draft, running: Running, job: SwitchJob, *, said: bool) -> None:
    step = draft.step()
    stepping.put_job(step, running.job_id, job, draft.now_ms)
    if said:
        known: Switch | None = draft.view.read(records.switch_key(job.tenant, job.switch_id)).value
        ask = Ask(job.switch_id, known.job_id if known else None, None)
        content = _data_of(known, Progress(job.total, job.moved, job.denied), ())
        identity = f"progress/{switch_answers.digest(draft.cause.id)}/{job.walk}/{job.moved + job.denied}"
        step.emit.append(
            switch_answers.emission(draft, job.tenant, ask.switch_id, switch_answers.PROGRESSED, content, identity)
        )


# --- ended


async def _end(running: Running, job: SwitchJob) -> None:
    """Where nobody is left on the source, what is still set aside is free, and the switch is over."""
    members = await all_members(running.engine.ledger, running.shard, job.tenant)
    if await _is_anybody_left(running, job.tenant):
        again = msgspec.structs.replace(job, members=members, cursor=0, walk=job.walk + 1)
        await running.go_on(again, WALK_AGAIN_MS * job.walk)
        return

    def needs(view: View) -> Iterable[RecordKey]:
        yield running.key
        yield records.switch_key(job.tenant, job.switch_id)
        for member in members:
            yield from path_keys(view, member)
            yield records.accounts_key(member)

    def decide(view: View) -> None:
        draft = Draft(view, running.cause)
        draft.read(running.key)
        if view.read(running.key).version == running.version:
            if draft.items(job.tenant).switching is not None:
                _finish(draft, job, members)
            draft.close()  # also where what came out of a cache was from before the switch: the ledger says so then

    await running.engine.settle(running.shard, [Task(needs, decide)])


async def _is_anybody_left(running: Running, tenant: str) -> bool:
    """Whether a workload holds something of the source. Nobody can acquire it any more, so the answer stays."""
    mark = await _mark(running, tenant)
    accounts = (await running.engine.ledger.accounts({running.shard: [tenant]})).get(tenant, {})
    held = (item for item in running.engine.catalog.items_of_edition(mark.source) if item.role in HELD_ROLES)
    found = (accounts.get(item.name, Account()) for item in held)
    return any(account.used > account.reserved for account in found)


def _finish(draft: Draft, job: SwitchJob, members: Sequence[str]) -> None:
    tenant = job.tenant
    known: Switch | None = draft.read(records.switch_key(tenant, job.switch_id))
    mark = draft.items(tenant).switching
    assert known is not None  # it was remembered when it started
    assert mark is not None
    step = draft.step()
    for member in members:
        _release(draft, step, member)
    switch_starts.unmark(draft, step, tenant)
    progress = Progress(job.total, job.total - job.denied, job.denied)
    drift = msgspec.json.decode(known.answer).get("drift")
    more = {"duration_ms": max(0, draft.now_ms - job.began_ms)} | ({"drift": drift} if drift is not None else {})
    content = _data_of(known, progress, _items(draft, tenant, known), **more)
    done = switch_answers.COMPLETED, switch_answers.DONE
    undone = switch_answers.UNDONE, switch_answers.REVERTED
    type_, state = undone if mark.undoing else done
    ended = msgspec.structs.replace(known, type=type_, state=state, kept=None if mark.undoing else known.kept)
    switch_endings.conclude(draft, step, tenant, ended, content)


def _release(draft: Draft, step: Step, member: str) -> None:
    """What is set aside and nobody has claimed: of those who changed while they were counted, or have gone."""
    placement = draft.placement(member)
    assert placement is not None  # every member has been read with its way up
    accounts: Mapping[str, Account] = draft.view.read(records.accounts_key(member)).value
    for silent, account in accounts.items():
        name = records.set_aside(silent)
        if name is not None and account.used:
            draft.expect_balance(member, silent, account)
            step.take.append(Take(placement.path, name, -account.used, -account.used))
            step.take.append(switch_asides.counting(member, name, -account.used))


def _items(draft: Draft, tenant: str, known: Switch) -> list[dict[str, Any]]:
    """The items of both sides as they are when the switch ends."""
    accounts: Mapping[str, Account] = draft.view.read(records.accounts_key(tenant)).value
    states = draft.items(tenant).states
    answer = msgspec.json.decode(known.answer)
    ended = []
    for each in answer["items"]:
        account = accounts.get(each["offering_item"], Account())
        state = states.get(each["offering_item"], enablement.OFF)
        aside = accounts.get(records.aside_item(each["offering_item"]), Account()).used
        quota = {"value": state.value, "overage": state.overage}
        ended.append({**each, "used": account.used - aside, "quota": quota})
    return ended


def _data_of(known: Switch | None, progress: Progress, items: Sequence[Any], **more: Any) -> dict[str, Any]:
    """What was said when the switch started, with other numbers."""
    said = msgspec.json.decode(known.answer) if known is not None else {}
    return {**said, "workloads": progress._asdict(), "items": list(items) or said.get("items", []), **more}
