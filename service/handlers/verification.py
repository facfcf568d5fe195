"""Whether the ledger is what its records say: the invariants of docs/design.md 6, on a system that goes on working.

The numbers of a tenant are compared with its workloads, its reservations and the tenants below it. While somebody
writes they are read again: what was read counts only where the shard's sequence was the same before and after. What
cannot be read in peace is said to be ``unsettled`` and is no violation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from service import records
from service.catalog import Catalog
from service.catalog.model import WHOLE_ROLES
from service.handlers import reservations, tree
from service.handlers.draft import Cause, Draft, View
from service.handlers.engine import Engine
from service.handlers.stepping import Task
from service.handlers.tree import Node
from service.ledger.base import Ledger
from service.ledger.transaction import SILENT_PREFIX, Account, RecordKey, Take
from service.records import NO_ITEMS, Items, Reservation, Workload

TRIES_MAX = 20  # readings of one tenant while somebody writes
PAGE = 500  # records in one reading

Numbers = dict[str, tuple[int, int]]  # by item: used, and the part of it that is reserved


class Report(msgspec.Struct):
    """What was looked at, and what is wrong. ``unsettled`` are tenants that never held still."""

    ok: bool = True
    tenants: int = 0
    workloads: int = 0
    reservations: int = 0
    violations: list[dict[str, Any]] = msgspec.field(default_factory=list)
    unsettled: list[str] = msgspec.field(default_factory=list)


class _Reading(msgspec.Struct):
    """One tenant as it was read at one moment."""

    accounts: Mapping[str, Account]
    items: Items
    workloads: dict[str, Workload]
    reservations: dict[str, Reservation]
    timers: frozenset[str]
    below: dict[str, Mapping[str, Account]]  # the accounts of the tenants right below
    enabled_below: Mapping[str, int]  # how many of those have an item on


async def verify(ledger: Ledger, catalog: Catalog) -> Report:
    """Look at every tenant. Deleted ones count too: what they still use stands in the sums above them."""
    report = Report()
    pending = await tree.children(ledger, [tree.ROOT_NODE], deleted=True)
    while pending:
        node = pending.pop()
        report.tenants += 1
        reading = await _settled(ledger, node)
        if reading is None:
            report.unsettled.append(node.tenant_id)
        else:
            report.workloads += sum(1 for found in reading.workloads.values() if found.type is not None)
            report.reservations += sum(1 for found in reading.reservations.values() if _is_held(found))
            report.violations.extend(_violations(catalog, node, reading))
        pending.extend(await tree.children(ledger, [node], deleted=True))
    report.ok = not report.violations
    return report


async def repair(engine: Engine, report: Report) -> int:
    """Set the counters of a report's violations to what the records say; answers how many were set.

    Each is a transaction that expects the numbers of the report, so it can run while others write.
    """
    repaired = 0
    for violation in report.violations:
        if violation["kind"] not in ("used", "reserved"):
            continue
        node = (await tree.find_all(engine.ledger, [violation["tenant_id"]]))[0]
        await engine.settle(node.shard, [_correction(node, violation)])
        repaired += 1
    return repaired


def _correction(node: Node, violation: Mapping[str, Any]) -> Task:
    item, was, should = violation["offering_item"], violation["recorded"], violation["expected"]

    def decide(view: View) -> None:
        draft = Draft(view, Cause("repair"))
        draft.expect_balance(node.tenant_id, item, Account(used=was[0], reserved=was[1]))
        take = Take((node.tenant_id,), item, should[0] - was[0], should[1] - was[1], fact=True)
        draft.step().take.append(take)
        draft.close()

    return Task(lambda _: (), decide)


async def _settled(ledger: Ledger, node: Node) -> _Reading | None:
    """The tenant at one moment, or None where others never stopped writing to its shard."""
    for _ in range(TRIES_MAX):
        before = await ledger.sequence(node.shard)
        reading = await _read(ledger, node)
        if before == await ledger.sequence(node.shard):
            return reading
    return None


async def _read(ledger: Ledger, node: Node) -> _Reading:
    shard, tenant = node.shard, node.tenant_id
    children = await tree.child_ids(ledger, node, deleted=True)
    present = await tree.child_ids(ledger, node)
    accounts = await ledger.accounts({shard: [tenant, *children]})
    keys = [records.items_key(name) for name in (tenant, *children)]
    stored = await ledger.read({shard: keys})
    items = {key.tenant: records.decode(key, record.payload) for key, record in stored.items() if record is not None}
    enabled_below: dict[str, int] = {}
    for child in present:
        for item in items.get(child, NO_ITEMS).enabled:
            enabled_below[item] = enabled_below.get(item, 0) + 1
    workloads = await _scan(ledger, node, "workload")
    return _Reading(
        accounts=accounts.get(tenant, {}),
        items=items.get(tenant, NO_ITEMS),
        workloads=workloads,
        reservations=await _scan(ledger, node, "reservation"),
        timers=frozenset(member for member, _ in await ledger.timers(shard, f"expire/{tenant}/")),
        below={child: accounts.get(child, {}) for child in children},
        enabled_below=enabled_below,
    )


async def _scan(ledger: Ledger, node: Node, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    cursor = 0
    while True:
        cursor, page = await ledger.scan(node.shard, kind, node.tenant_id, cursor, PAGE)
        for name, record in page.items():
            found[name] = records.decode(RecordKey(kind, node.tenant_id, name), record.payload)
        if not cursor:
            return found


def _violations(catalog: Catalog, node: Node, reading: _Reading) -> Iterable[dict[str, Any]]:
    yield from _wrong_counters(node, reading)
    yield from _wrong_reservations(node, reading)
    yield from _wrong_enablement(node, reading)
    for name, workload in reading.workloads.items():
        yield from _wrong_holdings(catalog, node, name, workload)


def _wrong_counters(node: Node, reading: _Reading) -> Iterable[dict[str, Any]]:
    """Conservation: what is used is what workloads hold, what is reserved and what is used below."""
    expected = _expected(reading)
    counted = {item for item in reading.accounts if not item.startswith(SILENT_PREFIX)}
    for item in sorted(expected.keys() | counted):
        account = reading.accounts.get(item, Account())
        recorded, should = (account.used, account.reserved), expected.get(item, (0, 0))
        if recorded != should:
            yield {
                "kind": "used" if recorded[0] != should[0] else "reserved",
                "tenant_id": node.tenant_id,
                "offering_item": item,
                "recorded": list(recorded),
                "expected": list(should),
                "message": f"{item} of {node.tenant_id}: {recorded} is recorded, {should} is used and reserved",
            }


def _expected(reading: _Reading) -> Numbers:
    sums: Numbers = {}
    for item, used, reserved in _uses(reading):
        known = sums.get(item, (0, 0))
        sums[item] = (known[0] + used, known[1] + reserved)
    return {item: numbers for item, numbers in sums.items() if numbers != (0, 0)}


def _uses(reading: _Reading) -> Iterable[tuple[str, int, int]]:
    """Everything that is used: the item, how much, and how much of it is reserved."""
    for workload in reading.workloads.values():
        yield from ((item, 1, 0) for item in workload.holding)
        yield from ((item, quantity, 0) for item, quantity in workload.counted.items())
    for reservation in reading.reservations.values():
        if _is_held(reservation):
            yield from ((item, quantity, quantity) for item, quantity in reservation.items.items())
    for accounts in reading.below.values():
        for item, account in accounts.items():
            if not item.startswith(SILENT_PREFIX):
                yield item, account.used, account.reserved


def _wrong_reservations(node: Node, reading: _Reading) -> Iterable[dict[str, Any]]:
    """Every reservation that is held has its timer, so that it ends."""
    for name, reservation in reading.reservations.items():
        if _is_held(reservation) and reservations.expiry(node.tenant_id, name) not in reading.timers:
            yield {
                "kind": "reservation",
                "tenant_id": node.tenant_id,
                "reservation_id": name,
                "message": f"reservation {name} of {node.tenant_id} would never expire",
            }


def _wrong_enablement(node: Node, reading: _Reading) -> Iterable[dict[str, Any]]:
    """How many tenants right below have an item on is counted rightly."""
    counted = {item[1:]: account.used for item, account in reading.accounts.items() if item.startswith(SILENT_PREFIX)}
    for item in sorted(counted.keys() | reading.enabled_below.keys()):
        if counted.get(item, 0) != reading.enabled_below.get(item, 0):
            yield {
                "kind": "enabled_below",
                "tenant_id": node.tenant_id,
                "offering_item": item,
                "recorded": [counted.get(item, 0)],
                "expected": [reading.enabled_below.get(item, 0)],
                "message": f"{item} is counted as enabled wrongly below {node.tenant_id}",
            }


def _wrong_holdings(catalog: Catalog, node: Node, name: str, workload: Workload) -> Iterable[dict[str, Any]]:
    """No workload holds items of two editions, nor two items where it is to hold one."""
    editions: dict[str, set[str | None]] = {}
    whole: dict[str, list[str]] = {}
    for item_name in workload.holding:
        item = catalog.find_item(item_name)
        if item is None or item.edition is None:
            continue
        editions.setdefault(item.application_id, set()).add(item.edition)
        if item.role in WHOLE_ROLES:
            whole.setdefault(item.application_id, []).append(item_name)
    if any(len(found) > 1 for found in (*editions.values(), *whole.values())):
        yield {
            "kind": "edition",
            "tenant_id": node.tenant_id,
            "workload_id": name,
            "message": f"workload {name} of {node.tenant_id} holds {', '.join(sorted(workload.holding))}",
        }


def _is_held(reservation: Reservation) -> bool:
    return reservation.state == reservations.HELD
