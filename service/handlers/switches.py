"""Requests to move a customer between editions and billing modes, and to lead such a switch back (docs/domain.md 7).

A customer with few workloads is switched in one atomic step: items, quotas, every workload, every announcement. One
with many is handed to a job (switch_jobs.py), which sets the units aside first. Either way the request is answered with
an announcement, whatever becomes of it, and remembered under the id of the switch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from schemas.switches import SwitchRequested, SwitchUndoRequested
from service import records
from service.handlers import switch_answers, switch_endings, switch_moves, switch_situations, switch_starts
from service.handlers.draft import Draft, View
from service.handlers.switch_answers import Ask, Progress
from service.handlers.switch_situations import Member
from service.handlers.work import Work, path_keys, placement_of
from service.ledger.transaction import RecordKey
from service.records import Switch
from service.rules import switching
from service.rules.switch_drift import Drift
from service.rules.switch_mapping import Direction
from service.rules.switch_plan import Plan, Refusal
from service.rules.tally import Tally


def needs(view: View, work: Work) -> Iterable[RecordKey]:
    """The switch, should it be known, and the whole customer, where that is not too much."""
    data = work.event.data
    assert isinstance(data, SwitchRequested | SwitchUndoRequested)
    yield records.switch_key(work.tenant, data.switch_id)
    yield from path_keys(view, work.tenant)
    known = view.peek(records.switch_key(work.tenant, data.switch_id))
    if known is None:
        return  # it has to be read first: where there is an answer already, nothing else is needed
    if known.value is not None and known.value.denied:
        yield records.waiting_key(work.tenant, records.switch_waiting(data.switch_id))
    if known.value is not None and _has_answer(data, known.value):
        return
    if isinstance(data, SwitchRequested) and data.plan_hash is not None:
        yield records.preview_key(work.tenant, data.plan_hash)
    if view.is_placed(work.tenant) and (placement := view.placement(work.tenant)) and placement.kind == "customer":
        yield from switch_situations.needs(view, work.tenant)


def _has_answer(data: SwitchRequested | SwitchUndoRequested, known: Switch) -> bool:
    """Whether all there is to say is said already."""
    if isinstance(data, SwitchRequested):
        return not data.dry_run
    return known.state == switch_answers.REVERTED


def request(view: View, work: Work) -> None:
    """Switch a customer, or say why not; with ``dry_run`` only say what would become of it."""
    data = work.event.data
    assert isinstance(data, SwitchRequested)
    draft = work.draft(view)
    placement_of(draft, work.tenant)
    known: Switch | None = None if data.dry_run else draft.read(records.switch_key(work.tenant, data.switch_id))
    if known is not None:
        _answer_again(view, draft, work, data, known)
    else:
        _Request(draft, work.tenant, data).answer()
    draft.close()


def request_undo(view: View, work: Work) -> None:
    """Lead a switch back, or say why not."""
    data = work.event.data
    assert isinstance(data, SwitchUndoRequested)
    draft = work.draft(view)
    placement_of(draft, work.tenant)
    key = records.switch_key(work.tenant, data.switch_id)
    known: Switch | None = draft.read(key)
    if known is not None and known.state == switch_answers.REVERTED:
        switch_answers.again(draft, draft.step(), work.tenant, data.switch_id, known, view.read(key).version)
    else:
        _Undo(draft, work.tenant, data.switch_id, known).answer()
    draft.close()


def _answer_again(view: View, draft: Draft, work: Work, data: SwitchRequested, known: Switch) -> None:
    if known.asked == switch_endings.asked(data) and not known.number:
        return  # it is being prepared: its answer is still to come
    step = draft.step()
    if known.asked == switch_endings.asked(data):
        version = view.read(records.switch_key(work.tenant, data.switch_id)).version
        switch_answers.again(draft, step, work.tenant, data.switch_id, known, version)
        return
    why = Refusal("not_allowed", f"switch {data.switch_id} exists with other content", context={"code": "1027"})
    content = switch_answers.data(
        Ask(data.switch_id, data.job_id, data.target_edition),
        None,
        Progress(),
        denials=switch_answers.refusals([why]),
    )
    identity = f"other/{switch_endings.asked(data)}"
    step.emit.append(
        switch_answers.emission(draft, work.tenant, data.switch_id, switch_answers.REJECTED, content, identity)
    )


def obstacle(draft: Draft, tenant: str) -> Refusal | None:
    """Why the tenant cannot be switched at all, whatever the target."""
    placement = draft.placement(tenant)
    known = draft.tenant(tenant)
    assert placement is not None  # the tenant has been read
    assert known is not None
    if placement.kind != "customer":
        reason, code = f"only customers are switched, and {tenant} is a {placement.kind}", "1027"
    elif known.deleted:
        reason, code = f"{tenant} is deleted", "1005"
    elif placement.items.switching is not None:
        reason, code = f"switch {placement.items.switching.switch_id} of {tenant} is under way", "1012"
    else:
        return None
    return Refusal("not_allowed", reason, tenant_id=tenant, context={"code": code})


class _Request:
    """One request on its way to its answer."""

    def __init__(self, draft: Draft, tenant: str, data: SwitchRequested) -> None:
        self.draft = draft
        self.tenant = tenant
        self.data = data
        self.ask = Ask(data.switch_id, data.job_id, data.target_edition)

    def answer(self) -> None:
        """Carry it out in one step, begin a job, or refuse it."""
        hindrance = obstacle(self.draft, self.tenant)
        if hindrance is not None:
            self._reject(None, [hindrance])
            return
        found = switch_situations.members(self.draft, self.tenant)
        if found is None:
            switch_starts.prepare(self.draft, self.tenant, self.data)
            return
        tally = switch_situations.counted(found)
        situation = switch_situations.situation(self.draft, self.tenant, self.data.application, tally)
        plan = switching.plan(
            self.draft.catalog, situation, self.data.target_edition, switch_endings.options_of(self.data)
        )
        if self.data.dry_run:
            switch_endings.show(self.draft, self.tenant, self.ask, plan)
        elif drift := switch_endings.drift_of(self.draft, self.tenant, self.data, plan):
            self._reject(plan, [], drift)
        elif plan.direction is None or switch_endings.hindrances(plan, self.data.mode):
            self._reject(plan, plan.refusals)
        else:
            self._carry_out(found, plan)

    def _reject(self, plan: Plan | None, refusals: Sequence[Refusal], drift: Sequence[Drift] = ()) -> None:
        if self.data.dry_run:
            shown = switch_answers.data(self.ask, plan, Progress(), denials=switch_answers.refusals(refusals))
            self.draft.step().emit.append(switch_endings.preview_of(self.draft, self.tenant, self.ask, shown))
            return
        switch_endings.reject(self.draft, self.draft.step(), self.tenant, self.data, plan, refusals, drift)

    def _carry_out(self, found: Sequence[Member], plan: Plan) -> None:
        draft, tenant = self.draft, self.tenant
        step = draft.step()
        started = switch_answers.data(self.ask, plan, Progress(plan.workloads.total), switch_answers.items_before(plan))
        step.emit.append(switch_answers.emission(draft, tenant, self.ask.switch_id, switch_answers.STARTED, started))
        progress = Progress(plan.workloads.total, 0, 0)
        if plan.direction is not Direction.NOTHING:
            stamp = switch_endings.stamp_of(draft)
            after = switch_moves.provide(draft, step, tenant, plan, stamp, None)
            mark = switch_situations.mark(self.ask.switch_id)
            progress = switch_moves.move_all(draft, step, tenant, found, plan, after, mark)
            switch_situations.expect_nobody_new(draft, tenant, plan.provision.disable, found)
        content = switch_answers.data(self.ask, plan, progress, switch_answers.items_after(plan), duration_ms=0)
        record = switch_endings.remembered(draft, self.data, switch_answers.DONE, switch_answers.COMPLETED, plan)
        switch_endings.conclude(draft, step, tenant, record, content)
        if self.data.mode == "best_effort":
            self._start(plan)
        elif switch_starts.may_be_refused(draft, tenant, plan):
            switch_endings.reject(draft, draft.step(), tenant, self.data, plan, (), (), denials_of=(0,))

    def _start(self, plan: Plan) -> None:
        """There is not room for everybody: a job moves one after the other, and each takes what it can get."""
        members = switch_situations.known_members(self.draft.view, self.tenant, self.draft.view.population_max)
        record = switch_endings.remembered(self.draft, self.data, switch_answers.RUNNING, switch_answers.STARTED, plan)
        record = switch_starts.running(plan, record)
        tallies = {member: Tally() for member in members}
        step = self.draft.step()
        switch_starts.start(self.draft, step, self.tenant, self.ask, plan, tallies, record, aside=False)


class _Undo:
    """One request to lead a switch back, on its way to its answer."""

    def __init__(self, draft: Draft, tenant: str, switch_id: str, known: Switch | None) -> None:
        self.draft = draft
        self.tenant = tenant
        self.known = known
        self.ask = Ask(switch_id, known.job_id if known else None, None, undoing=True)

    def answer(self) -> None:
        """Carry it out in one step, begin a job, or refuse it."""
        draft, tenant, known = self.draft, self.tenant, self.known
        hindrance = obstacle(draft, tenant)
        if known is None or known.kept is None or known.state != switch_answers.DONE:
            state = "is not known" if known is None else f"is {known.state}"
            hindrance = Refusal("not_allowed", f"switch {self.ask.switch_id} {state}", context={"code": "1027"})
        if hindrance is not None or known is None or known.kept is None:
            self._reject(None, [hindrance] if hindrance else [], ())
            return
        found = switch_situations.members(draft, tenant, self.ask.switch_id)
        if found is None:
            switch_starts.prepare_undo(draft, tenant, self.ask.switch_id, known)
            return
        tally = switch_situations.counted(found)
        situation = switch_situations.situation(draft, tenant, known.kept.application, tally)
        back = switching.undo(draft.catalog, situation, known.kept)
        if back.plan.direction is None or switch_endings.hindrances(back.plan):
            self._reject(back.plan, back.plan.refusals, back.drift)
            return
        self._carry_out(found, back.plan, back.drift, known)

    def _carry_out(self, found: Sequence[Member], plan: Plan, drift: Sequence[Drift], known: Switch) -> None:
        draft, tenant = self.draft, self.tenant
        step = draft.step()
        after = switch_moves.provide(draft, step, tenant, plan, switch_endings.stamp_of(draft), None)
        progress = switch_moves.move_all(draft, step, tenant, found, plan, after, None)
        switch_situations.expect_nobody_new(draft, tenant, plan.provision.disable, found)
        more = {"drift": switch_answers.drifts(drift), "duration_ms": 0}
        content = switch_answers.data(self.ask, plan, progress, switch_answers.items_after(plan), **more)
        undone = msgspec.structs.replace(known, state=switch_answers.REVERTED, type=switch_answers.UNDONE, kept=None)
        switch_endings.conclude(draft, step, tenant, undone, content)
        if switch_starts.may_be_refused(draft, tenant, plan):
            self._reject(plan, (), drift, denials_of=(0,))

    def _reject(
        self,
        plan: Plan | None,
        refusals: Sequence[Refusal],
        drift: Sequence[Drift],
        denials_of: tuple[int, ...] = (),
    ) -> None:
        """The switch stays as it is: this is the answer to one request, and another one may fare better."""
        denials = switch_answers.refusals(refusals)
        content = switch_answers.data(self.ask, plan, Progress(), denials=denials, drift=switch_answers.drifts(drift))
        step = self.draft.step()
        switch_endings.refused_undo(self.draft, step, self.tenant, self.ask.switch_id, content, denials_of)
