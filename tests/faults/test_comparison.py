"""The comparison itself: a suite that cannot see a difference would pass for ever."""

from __future__ import annotations

import copy
import random
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.faults import history, outcome, switching
from tests.faults.history import Kind
from tests.faults.outcome import USAGE_CHANGED, Outcome
from tests.faults.trouble import AppendOnlyFile


def seen(**changes: Any) -> Outcome:
    """A small outcome, with something in it changed."""
    event = {"id": "a", "type": "apportion.assignment.changed.v1", "tenantid": "t", "time": "1", "revision": 1}
    usage = {"id": "u", "type": USAGE_CHANGED, "tenantid": "t", "time": "1", "revision": 2}
    quota = {"value": 1, "overage": 0}
    return Outcome(
        usage={"t": {"items": [{"offering_item": "i", "used": changes.get("used", 1)}]}},
        workloads={"t": {"workloads": [{"workload_id": "w", "holding": changes.get("holding", {"i": 1})}]}},
        verified={"ok": changes.get("ok", True), "violations": ["v"]},
        published=[
            {**event, "data": {"x": changes.get("data", 1)}},
            {**usage, "data": {"offering_item": history.FIXED, "used": changes.get("told", 1), "quota": quota}},
            *changes.get("more", []),
        ],
        prefix="p.",
    )


@pytest.mark.parametrize("change", [{"used": 2}, {"holding": {}}, {"data": 2}])
def test_another_state_or_announcement_is_a_difference(change: dict[str, Any]) -> None:
    assert outcome.differences("settled", seen(), seen()) == []
    assert len(outcome.differences("settled", seen(), seen(**change))) == 1


def test_an_announcement_that_is_missing_or_there_is_one_more_of_is_a_difference() -> None:
    more = {**seen().published[0], "id": "b"}
    assert len(outcome.differences("settled", seen(), seen(more=[more]))) == 1
    assert len(outcome.differences("settled", seen(more=[more]), seen())) == 1


@pytest.mark.parametrize("change", [{"ok": False}, {"told": 2}])
def test_what_does_not_add_up_or_is_above_a_limit_is_a_fault(change: dict[str, Any]) -> None:
    assert outcome.faults_within(seen(), rewound=False) == []
    assert len(outcome.faults_within(seen(**change), rewound=False)) == 1


@pytest.mark.parametrize("part", ["time", "revision", "data", "tenantid"])
def test_an_id_with_two_contents_is_a_fault_and_a_repeat_is_none(part: str) -> None:
    repeat = copy.deepcopy(seen().published[0])
    assert outcome.faults_within(seen(more=[repeat]), rewound=False) == []
    repeat[part] = {"x": 9} if part == "data" else "9"
    assert outcome.ids_with_two_contents(seen(more=[repeat]).published, rewound=False)
    excused = part in ("time", "revision")  # where decisions were lost, they are made again, later
    assert bool(outcome.ids_with_two_contents(seen(more=[repeat]).published, rewound=True)) is not excused


def test_a_revision_that_is_given_twice_is_a_fault() -> None:
    other = {**seen().published[0], "id": "b"}
    assert len(outcome.faults_within(seen(more=[other]), rewound=False)) == 1


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_seed_writes_the_same_history_each_time_and_another_seed_another_one(kind: Kind) -> None:
    assert history.write(kind, 1, 300) == history.write(kind, 1, 300) != history.write(kind, 2, 300)


def test_a_switch_that_does_not_end_is_a_fault() -> None:
    started = {**seen().published[0], "id": "s", "type": "apportion.switch.started.v1", "subject": "s1", "revision": 3}
    ended = {**started, "id": "e", "type": "apportion.switch.completed.v1", "revision": 4}
    assert outcome.faults_within(seen(more=[started, ended]), rewound=False) == []
    assert len(outcome.faults_within(seen(more=[started]), rewound=False)) == 1


def test_a_history_of_switches_has_every_wish_for_customers_with_few_and_with_many_workloads() -> None:
    messages = history.flat(history.write("switching", 1, 600).stages)
    wishes = [message.value.decode() for message in messages if message.topic == "switch-tasks"]
    assert all(any(word in wish for wish in wishes) for word in ("switch.requested", "undo_requested", "dry_run"))
    many = switching.Tenants(600)
    assert {many.workloads(name) for name in many.customers} == {switching.WORKLOADS_FEW, switching.WORKLOADS_MANY}


@pytest.mark.parametrize("kind", [kind for kind in get_args(Kind) if kind != "switching"])
def test_a_history_has_events_of_every_topic_and_every_kind_that_it_may_have(kind: Kind) -> None:
    messages = history.flat(history.write(kind, 1, 1500).stages)
    said = Counter(word for message in messages for word in message.value.decode().split('"') if ".v1" in word)
    expected = {f"apportion.{name}.v1" for name in EVERYWHERE}
    expected |= set() if kind == "free" else {"apportion.reservation.commit.v1", "apportion.tenant.deleted.v1"}
    assert expected <= set(said)
    assert {message.topic for message in messages if message.value == b"{broken"} == TOPICS


EVERYWHERE = (
    "tenant.upserted",
    "offering_items.set",
    "workload.registered",
    "workload.usage_reported",
    "workload.removed",
    "plan.saved",
    "plan.applied",
    "plan.revoked",
    "plan.deleted",
    "reservation.reserve",
    "reservation.release",
)
TOPICS = {"tenant-changes", "workload-events", "plan-changes", "reservation-commands"}


def written(*commands: str) -> bytes:
    """Commands as they stand in the append-only file."""
    lines = [
        (f"*{len(words)}", *(line for word in words for line in (f"${len(word)}", word)))
        for words in map(str.split, commands)
    ]
    return "".join(f"{line}\r\n" for command in lines for line in command).encode()


def test_what_is_cut_off_the_file_of_redis_is_whole_transactions_of_its_last_second(tmp_path: Path) -> None:
    file = tmp_path / "appendonly.aof.1.incr.aof"
    old, new = written("SELECT 0", "SET a 1"), written("MULTI", "SET b 2", "SET c 3", "EXEC")
    appended = AppendOnlyFile(tmp_path, random.Random(1))
    file.write_bytes(old)
    appended.note()
    left = set()
    for _ in range(20):
        file.write_bytes(old + new + new)
        appended.note()
        file.write_bytes(old + new + new)
        appended.cut()
        left.add(file.read_bytes())
        file.write_bytes(old)
        appended.note()
    assert left <= {old, old + new, old + new + new} and len(left) == 3
    file.write_bytes(old + new)
    AppendOnlyFile(tmp_path, random.Random(1)).cut()
    assert file.read_bytes() == old + new, "nothing is known of this second"
