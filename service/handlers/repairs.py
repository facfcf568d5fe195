"""Setting right what `verification` finds: counters are computed again from the records, never the other way round.

Every correction is an ordinary transaction that expects what it was computed from, so that it is safe while the service
works: what has changed meanwhile is read again. Tenants are gone through from below, as what is used by one is part of
what is used above it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from service import records
from service.handlers import assignments, reservations, tree, verification, workloads
from service.handlers.draft import Cause, Draft, View
from service.handlers.engine import Engine
from service.handlers.stepping import Task
from service.handlers.tree import Node
from service.handlers.verification import Reading, Violation
from service.ledger.transaction import (
    SILENT_PREFIX,
    Account,
    Attempt,
    Balance,
    Expectation,
    Limit,
    OutcomeKind,
    Place,
    RecordKey,
    Take,
    Timer,
    Transaction,
)

CAUSE = "repair"
TRIES_MAX = 10  # of one tenant, while others write
COUNTERS = frozenset({"usage", "limit", "enabled_below", "applied", "children"})


class Repair(msgspec.Struct):
    """What was set right, or, where ``applied`` is false, what would be; ``left`` is what nobody could set right."""

    applied: bool
    changes: list[Violation]
    left: list[Violation]


async def repair(engine: Engine, *, apply: bool) -> Repair:
    """Set right everything that can be; without ``apply`` only say what that is."""
    done = Repair(apply, [], [])
    corrected: dict[str, Mapping[str, Account]] = {}  # accounts as they would be, where nothing is applied
    portions = [portion async for portion in verification.everything(engine.ledger)]
    for portion in reversed(portions):
        for node in reversed(portion):
            await _repair_tenant(engine, node, done, corrected)
    await _repair_timers(engine, done)
    return done


async def _repair_tenant(engine: Engine, node: Node, done: Repair, corrected: dict[str, Mapping[str, Account]]) -> None:
    found: list[Violation] = []
    for _ in range(TRIES_MAX):
        readings = await verification.read_at_one_moment(engine.ledger, [node])
        if readings is None:
            break
        (reading,) = readings
        reading.accounts_below |= {name: corrected[name] for name in reading.accounts_below if name in corrected}
        found = list(verification.compare(engine.catalog, reading))
        if not done.applied and found:
            corrected[node.tenant_id] = _corrected(reading)
        if not found or not done.applied or await _apply(engine, reading, found):
            done.changes += found
            return
    done.left += found


def _corrected(reading: Reading) -> dict[str, Account]:
    """What a tenant's counters would be; above it only what is used matters."""
    expected = verification.expected_usage(reading)
    return {item: Account(used, reserved) for item, (used, reserved) in expected.items()}


async def _apply(engine: Engine, reading: Reading, found: Sequence[Violation]) -> bool:
    """Set a tenant right; False where it has changed since it was read."""
    counters = [violation for violation in found if violation.kind in COUNTERS]
    if counters:
        transaction = _correction(reading, counters)
        (outcome,) = await engine.ledger.commit(reading.node.shard, [transaction], engine.clock())
        if outcome.kind is not OutcomeKind.APPLIED:
            return False
    workloads = sorted({each.workload_id for each in found if each.workload_id is not None})
    for workload_id in workloads:
        await _look_again(engine, reading.node, workload_id)
    return True


def _correction(reading: Reading, violations: Sequence[Violation]) -> Transaction:
    """Counters as facts, on this tenant alone; what they were computed from must still be so."""
    tenant = reading.node.tenant_id
    take: list[Take] = []
    limits: list[Limit] = []
    put: list[tuple[RecordKey, bytes]] = []
    balances: list[Balance] = []
    expect = {key: reading.versions[key] for key in _read_from(reading)}
    for violation in violations:
        item, expected = violation.offering_item or "", violation.expected
        if violation.kind == "usage":
            recorded = violation.recorded
            take.append(Take((tenant,), item, expected[0] - recorded[0], expected[1] - recorded[1], fact=True))
            balances += _balances(reading, item)
        elif violation.kind in ("enabled_below", "applied"):
            plan = violation.plan_id
            silent = SILENT_PREFIX + item if plan is None else records.applied_count_item(plan)
            take.append(Take((tenant,), silent, expected - violation.recorded, fact=True))
            balances.append(Balance(Place(tenant, silent), violation.recorded, 0))
        elif violation.kind == "limit":
            limits.append(Limit(tenant, item, *expected))
        else:
            put.append((records.children_key(tenant), records.encode(expected)))
    return Transaction(
        attempts=[Attempt(take=take, limits=limits, put=put)],
        expect=[Expectation(key, version) for key, version in expect.items()],
        balances=balances,
        cause=CAUSE,
        tags=((tenant, reading.node.tenant.pricing_mode),),
    )


def _read_from(reading: Reading) -> list[RecordKey]:
    tenant = reading.node.tenant_id
    return [
        records.items_key(tenant),
        records.children_key(tenant),
        *(records.items_key(name) for name in reading.children),
    ]


def _balances(reading: Reading, item: str) -> list[Balance]:
    """The numbers of the tenant and of those right below it; its workloads cannot change without changing its own."""
    accounts: dict[str, Mapping[str, Account]] = {reading.node.tenant_id: reading.accounts, **reading.accounts_below}
    found = ((name, some.get(item, Account())) for name, some in accounts.items())
    return [Balance(Place(name, item), account.used, account.reserved) for name, account in found]


async def _look_again(engine: Engine, node: Node, workload_id: str) -> None:
    """Forget why a workload waits, and decide on it anew: it holds and waits for what it should, whatever was."""
    key = records.workload_key(node.tenant_id, workload_id)
    record = (await engine.ledger.read({node.shard: [key]}))[key]
    expect = [Expectation(key, 0 if record is None else record.version)]
    unwait = Attempt(unwait=[(node.tenant_id, workload_id)])
    await engine.ledger.commit(node.shard, [Transaction([unwait], expect, cause=CAUSE)], engine.clock())
    await engine.settle(node.shard, [_decision(node.tenant_id, workload_id)])


def _decision(tenant: str, workload_id: str) -> Task:
    def decide(view: View) -> None:
        draft = Draft(view, Cause(CAUSE))
        now = draft.workload(tenant, workload_id)
        assignments.reassign(draft, tenant, workload_id, now, "workload")
        draft.close()

    return Task(lambda view: workloads.needs_of(view, tenant, workload_id), decide)


async def _repair_timers(engine: Engine, done: Repair) -> None:
    report = await verification.verify(engine.ledger, engine.catalog)
    for violation in report.violations:
        if violation.kind in ("reservation", "timer"):
            fixed = not done.applied or await _set_timer(engine, violation)
            (done.changes if fixed else done.left).append(violation)


async def _set_timer(engine: Engine, violation: Violation) -> bool:
    (node,) = await tree.find_all(engine.ledger, [violation.tenant_id])
    name = violation.reservation_id or ""
    key = records.reservation_key(node.tenant_id, name)
    record = (await engine.ledger.read({node.shard: [key]}))[key]
    known: Any = None if record is None else records.decode(key, record.payload)
    held = known is not None and known.state == reservations.HELD
    timer = Timer(reservations.expiry(node.tenant_id, name), known.expires_at_ms if held else None)
    expect = [Expectation(key, 0 if record is None else record.version)]
    transaction = Transaction([Attempt(timers=[timer])], expect, cause=CAUSE)
    (outcome,) = await engine.ledger.commit(node.shard, [transaction], engine.clock())
    return outcome.kind is OutcomeKind.APPLIED
