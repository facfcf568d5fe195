"""One customer in a job of switches: which switch it is, and what became of it (docs/domain.md 7.2).

Whoever puts a task with a job's id on the topic, the outcome is recorded under that job, in the step that decides it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas import outbound
from schemas.switches import SwitchRequested, SwitchUndoRequested
from service import records
from service.records import SwitchTask

if TYPE_CHECKING:
    from schemas.envelope import Inbound
    from service.handlers.draft import Step, View

FAILED = "failed"  # the task became a dead letter
UNDO_REJECTED = "undo_rejected"  # completed, and it could not be led back


def switch_id(job_id: str, tenant: str) -> str:
    """The id of the switch of a tenant in a job: always the same, so that a task that comes twice changes nothing."""
    return outbound.event_id("switch-job", job_id, tenant)


def note_failure(step: Step, event: Inbound, view: View) -> None:
    """Where the event is a task, its job counts it as failed, in the step of the dead letter."""
    data = event.data
    if isinstance(data, SwitchRequested) and data.job_id is not None:
        key, state = records.switch_task_key(data.job_id, event.tenantid), FAILED
    elif isinstance(data, SwitchUndoRequested):
        known = view.peek(records.switch_key(event.tenantid, data.switch_id))
        if known is None or known.value is None or known.value.job_id is None:
            return
        key, state = records.switch_task_key(known.value.job_id, event.tenantid), UNDO_REJECTED
    else:
        return
    step.put.append((key, SwitchTask(data.switch_id, state)))
