"""Whether the ledger is what its records say: the first four invariants of docs/design.md 6, on a system at work.

What is compared must be of one moment. Tenants of one shard are read in groups, between two looks at the shard's
sequence, which rises with every change: where it has risen, the group is read again in halves. A tenant that never
holds still is compared over several readings: what is wrong stays wrong by the same amount, what only changes does not.

"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from service import records
from service.catalog import Catalog
from service.catalog.model import WHOLE_ROLES
from service.handlers import queries, reservations, tree
from service.handlers.tree import Node
from service.ledger import queue
from service.ledger.base import Ledger
from service.ledger.transaction import SILENT_PREFIX, Account, Place, Record, RecordKey, Waiting
from service.records import Items, Reservation, Workload

GROUP_SIZE_MAX = 64  # tenants that are read together
TRIES_MAX = 8  # readings of one tenant until one is of one moment
SIGHTINGS = 4  # readings in which a difference stays the same, so that it is one
PAUSE_SECONDS_MAX = 0.05  # between readings of a shard at work
SHOWN_MAX = 10_000  # violations in a report
QUEUE_PAGE = 1000

Numbers = tuple[int, int]  # used, and the part of it that is reserved
NONE: Numbers = (0, 0)


class Violation(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that must not be. ``recorded`` is what stands in the ledger, ``expected`` what its records say.

    Kinds: ``usage``, ``limit``, ``enabled_below``, ``applied``, ``children``, ``edition``, ``reservation``, ``timer``,
    ``waiting``.
    """

    kind: str
    tenant_id: str
    message: str
    offering_item: str | None = None
    workload_id: str | None = None
    reservation_id: str | None = None
    plan_id: str | None = None
    recorded: Any = None
    expected: Any = None


class Report(msgspec.Struct):
    """What was looked at and what is wrong. ``notes`` are sentences about what is no violation, but worth knowing."""

    ok: bool
    tenants: int
    workloads: int
    reservations: int
    violations: list[Violation]
    notes: list[str] = []

    def as_json(self) -> dict[str, Any]:
        """What `ledger verify --json` prints (docs/contracts.md 4)."""
        shown: dict[str, Any] = msgspec.to_builtins(self)
        del shown["notes"]
        return shown


class Reading(msgspec.Struct):
    """A tenant with all that its numbers have to agree with, as of one moment."""

    node: Node
    accounts: Mapping[str, Account]
    items: Items
    children_recorded: int
    children: tuple[str, ...]  # right below, without deleted ones
    accounts_below: dict[str, Mapping[str, Account]]  # with deleted ones: what they use counts above too
    items_below: dict[str, Items]
    workloads: dict[str, Workload]
    reservations: dict[str, Reservation]
    waiting: dict[str, Waiting]
    queued: dict[Place, frozenset[str]]  # who stands in the queues, on its way up, where somebody of this tenant waits
    versions: Mapping[RecordKey, int]  # of the records that were read, 0 where there is none


async def verify(ledger: Ledger, catalog: Catalog, progress: Callable[[int], None] = lambda _: None) -> Report:
    """Look at every tenant; ``progress`` is told how many have been.

    Raises ``LedgerUnavailable``. Several may do so at once, and while the service works.
    """
    survey = _Survey(ledger, catalog)
    async for portion in everything(ledger):
        await survey.look_at(portion)
        progress(survey.tenants)
    await survey.look_at_timers()
    return survey.report()


async def everything(ledger: Ledger) -> AsyncIterator[list[Node]]:
    """Every tenant but root, deleted ones too, parents before their children, in portions of bounded size."""
    async for portion in tree.walk(ledger, tree.ROOT_NODE, deleted=True):
        below = [node for node in portion if node != tree.ROOT_NODE]
        if below:
            yield below


class _Survey:
    """The findings so far."""

    def __init__(self, ledger: Ledger, catalog: Catalog) -> None:
        self._ledger = ledger
        self._catalog = catalog
        self.tenants = self.workloads = self.reservations = 0
        self.violations: list[Violation] = []
        self._over_limit: list[str] = []
        self._restless: list[str] = []
        self._held: dict[int, set[str]] = {}  # expiry timers that there must be, by shard

    async def look_at(self, nodes: Sequence[Node]) -> None:
        """Compare some tenants."""
        by_shard: dict[int, list[Node]] = {}
        for node in nodes:
            by_shard.setdefault(node.shard, []).append(node)
        groups = [
            some[i : i + GROUP_SIZE_MAX] for some in by_shard.values() for i in range(0, len(some), GROUP_SIZE_MAX)
        ]
        await tree.each(groups, self._look_at_group, at_once=4)

    async def _look_at_group(self, nodes: Sequence[Node]) -> None:
        readings = await read_at_one_moment(self._ledger, nodes)
        if readings is not None:
            for reading in readings:
                self._take_in(reading, list(compare(self._catalog, reading)))
        elif len(nodes) > 1:
            middle = len(nodes) // 2
            await self._look_at_group(nodes[:middle])
            await self._look_at_group(nodes[middle:])
        else:
            await self._look_at_restless(nodes[0])

    async def _look_at_restless(self, node: Node) -> None:
        reading, lasting = await compare_in_motion(self._ledger, self._catalog, node)
        if lasting is None:
            self._restless.append(node.tenant_id)
        self._take_in(reading, lasting or [])

    def _take_in(self, reading: Reading, violations: Sequence[Violation]) -> None:
        self.tenants += 1
        self.workloads += sum(one.type is not None for one in reading.workloads.values())
        held = {name for name, one in reading.reservations.items() if one.state == reservations.HELD}
        self.reservations += len(held)
        self._held.setdefault(reading.node.shard, set()).update(
            reservations.expiry(reading.node.tenant_id, name) for name in held
        )
        self.violations += violations
        self._over_limit += [
            f"{reading.node.tenant_id} uses {account.used} of {item} and may use {account.limit}"
            for item, account in reading.accounts.items()
            if account.limit is not None and account.used > account.limit
        ]

    async def look_at_timers(self) -> None:
        """Every reservation that is held has its timer, and every such timer its reservation.

        The two were read at different moments, so what does not match is looked at again.
        """
        for shard in range(self._ledger.shards):
            timers = {member for member, _ in await self._ledger.timers(shard, reservations.EXPIRY_PREFIX)}
            suspects = sorted(timers ^ self._held.get(shard, set()))
            self.violations += await check_timers(self._ledger, shard, suspects)

    def report(self) -> Report:
        notes = []
        if self._over_limit:
            notes.append(
                "More is used than may be used, and nothing new is granted there. That comes from a quota that was "
                "lowered, or from reported bytes, which are recorded whatever the quota says: "
                f"{_some(self._over_limit)}."
            )
        if self._restless:
            notes.append(f"Some tenants changed all the time and could not be compared: {_some(self._restless)}.")
        if len(self.violations) > SHOWN_MAX:
            notes.append(f"There are {len(self.violations)} violations; the first {SHOWN_MAX} are shown.")
        ok = not self.violations
        return Report(ok, self.tenants, self.workloads, self.reservations, self.violations[:SHOWN_MAX], notes)


def _some(texts: Sequence[str]) -> str:
    return "; ".join(texts[:5]) + (f"; and {len(texts) - 5} more" if len(texts) > 5 else "")


# --- reading


async def read_at_one_moment(ledger: Ledger, nodes: Sequence[Node]) -> list[Reading] | None:
    """Tenants of one shard as they were at one moment; None where somebody always wrote to the shard meanwhile."""
    for attempt in range(TRIES_MAX if len(nodes) == 1 else 2):
        shard = nodes[0].shard
        before = await ledger.sequence(shard)
        readings = await _read(ledger, nodes)
        if await ledger.sequence(shard) == before:
            return readings
        await _pause(attempt)
    return None


async def compare_in_motion(ledger: Ledger, catalog: Catalog, node: Node) -> tuple[Reading, list[Violation] | None]:
    """The violations that several readings show alike; None where the readings show something else every time."""
    (reading,) = await _read(ledger, [node])
    lasting = list(compare(catalog, reading))
    for attempt in range(SIGHTINGS * TRIES_MAX):
        if not lasting:
            return reading, []
        await _pause(attempt)
        (reading,) = await _read(ledger, [node])
        seen = {_difference(violation) for violation in compare(catalog, reading)}
        still = [violation for violation in lasting if _difference(violation) in seen]
        if len(still) == len(lasting) and attempt >= SIGHTINGS:
            return reading, lasting
        lasting = still
    return reading, None


def _difference(violation: Violation) -> tuple[Any, ...]:
    """What of a violation stays the same while the numbers move."""
    amount: Any = None
    if violation.kind == "usage":
        amount = tuple(a - b for a, b in zip(violation.recorded, violation.expected, strict=True))
    elif violation.kind == "applied":
        amount = violation.recorded - violation.expected
    return violation.kind, violation.offering_item, violation.workload_id, violation.plan_id, amount


async def _pause(attempt: int) -> None:
    """Let whoever writes finish."""
    await asyncio.sleep(random.uniform(0, min(PAUSE_SECONDS_MAX, 0.002 * 2**attempt)))


async def _read(ledger: Ledger, nodes: Sequence[Node]) -> list[Reading]:
    shard = nodes[0].shard
    below = await _below(ledger, shard, [node.tenant_id for node in nodes])
    tenants = sorted({name for live, deleted in below.values() for name in (*live, *deleted)} | below.keys())
    accounts = await ledger.accounts({shard: tenants})
    stored = await ledger.read({shard: [key for name in tenants for key in _keys(name)]})
    versions = {key: 0 if one is None else one.version for key, one in stored.items()}
    found = {key: records.decode(key, one.payload) for key, one in stored.items() if one is not None}
    readings = []
    for node in nodes:
        live, deleted = below[node.tenant_id]
        readings.append(
            Reading(
                node=node,
                accounts=accounts[node.tenant_id],
                items=found.get(records.items_key(node.tenant_id), records.NO_ITEMS),
                children_recorded=found.get(records.children_key(node.tenant_id), 0),
                children=live,
                accounts_below={name: accounts[name] for name in (*live, *deleted)},
                items_below={name: found.get(records.items_key(name), records.NO_ITEMS) for name in live},
                workloads={},
                reservations={},
                waiting={},
                queued={},
                versions=versions,
            )
        )
    await tree.each(readings, _fill(ledger))
    return readings


def _keys(tenant: str) -> tuple[RecordKey, RecordKey]:
    return records.items_key(tenant), records.children_key(tenant)


async def _below(
    ledger: Ledger, shard: int, tenants: Sequence[str]
) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Who stands right below each tenant, and who was deleted there."""
    indexes = [index(name) for name in tenants for index in (records.children_index, records.deleted_children_index)]
    sizes = await ledger.index_sizes({shard: indexes})
    filled = [index for index in indexes if sizes[index]]
    members = dict(await tree.each(filled, lambda index: ledger.members(shard, index)))
    return {
        name: (
            tuple(members.get(records.children_index(name), ())),
            tuple(members.get(records.deleted_children_index(name), ())),
        )
        for name in tenants
    }


def _fill(ledger: Ledger) -> Callable[[Reading], Any]:
    """Read what is without number: workloads, of customers and units only, and reservations, of whatever tenant."""

    async def fill(reading: Reading) -> None:
        node = reading.node
        reading.workloads = {name: one async for name, one in queries.scan_workloads(ledger, node)}
        reading.reservations = await _scan_reservations(ledger, node)
        waiting = await ledger.waiting(node.shard, node.tenant_id)
        reading.waiting = {who: why for who, why in waiting.items() if "/" not in who}
        if reading.waiting:
            path = {above.tenant_id for above in await tree.climb(ledger, node)}
            places = {place for why in reading.waiting.values() for place in why.places if place.tenant in path}
            reading.queued = {place: await _queue(ledger, node.shard, place) for place in sorted(places)}

    return fill


async def _scan_reservations(ledger: Ledger, node: Node) -> dict[str, Reservation]:
    found: dict[str, Reservation] = {}
    cursor = 0
    while True:
        cursor, page = await ledger.scan(node.shard, "reservation", node.tenant_id, cursor, queries.PAGE)
        for name, record in page.items():
            found[name] = records.decode(records.reservation_key(node.tenant_id, name), record.payload)
        if not cursor:
            return found


async def _queue(ledger: Ledger, shard: int, place: Place) -> frozenset[str]:
    """Everybody who stands in the queue at a place."""
    members: list[str] = []
    while True:
        page = await ledger.waiters(shard, place.tenant, place.item, members[-1] if members else "", QUEUE_PAGE)
        members += [waiter.member for waiter in page]
        if len(page) < QUEUE_PAGE:
            return frozenset(members)


# --- comparing


def compare(catalog: Catalog, reading: Reading) -> Iterator[Violation]:
    """Everything about a tenant that must not be."""
    yield from _usage(reading)
    yield from _limits(reading)
    yield from _enabled_below(reading)
    yield from _applied(reading)
    if reading.children_recorded != len(reading.children):
        yield Violation(
            "children",
            reading.node.tenant_id,
            f"{reading.children_recorded} tenants are recorded below it, and there are {len(reading.children)}",
            recorded=reading.children_recorded,
            expected=len(reading.children),
        )
    for name, workload in reading.workloads.items():
        yield from _editions(catalog, reading.node.tenant_id, name, workload)
    yield from _waiting(reading)


def expected_usage(reading: Reading) -> dict[str, Numbers]:
    """What is used of each item by all that counts: workloads, reservations, and the tenants below."""
    sums: dict[str, Numbers] = {}
    for item, used, reserved in _counted(reading):
        before = sums.get(item, NONE)
        sums[item] = (before[0] + used, before[1] + reserved)
    return sums


def _counted(reading: Reading) -> Iterator[tuple[str, int, int]]:
    for workload in reading.workloads.values():
        yield from ((item, 1, 0) for item in workload.holding)
        yield from ((item, quantity, 0) for item, quantity in workload.counted.items())
    for reservation in reading.reservations.values():
        if reservation.state == reservations.HELD:
            yield from ((item, quantity, quantity) for item, quantity in reservation.items.items())
    for silent, account in reading.accounts.items():
        name = records.set_aside(silent)
        if name is not None:
            yield name, account.used, account.used
    for accounts in reading.accounts_below.values():
        for item, account in accounts.items():
            if not item.startswith(SILENT_PREFIX):
                yield item, account.used, account.reserved


def enabled_below(reading: Reading) -> dict[str, int]:
    """On how many tenants right below each item is enabled."""
    counts: dict[str, int] = {}
    for items in reading.items_below.values():
        for item in items.enabled:
            counts[item] = counts.get(item, 0) + 1
    return counts


def _usage(reading: Reading) -> Iterator[Violation]:
    """Conservation: what is used is what workloads hold and occupy, what is reserved, and what is used below."""
    expected = expected_usage(reading)
    recorded = {
        item: (account.used, account.reserved)
        for item, account in reading.accounts.items()
        if not item.startswith(SILENT_PREFIX)
    }
    for item in _different(recorded, expected, NONE):
        before, after = recorded.get(item, NONE), expected.get(item, NONE)
        yield Violation(
            "usage",
            reading.node.tenant_id,
            f"{before[0]} used and {before[1]} reserved are recorded, and {after[0]} and {after[1]} are accounted for",
            item,
            recorded=list(before),
            expected=list(after),
        )


def _limits(reading: Reading) -> Iterator[Violation]:
    """What is enforced is the quota that was set."""
    expected = {
        item: (state.value, state.overage) for item, state in reading.items.states.items() if state.value is not None
    }
    recorded = {
        item: (account.value, account.overage)
        for item, account in reading.accounts.items()
        if account.value is not None
    }
    for item in _different(recorded, expected, (None, None)):
        before, after = recorded.get(item, (None, None)), expected.get(item, (None, None))
        text = f"value {before[0]} and overage {before[1]} are enforced, and {after[0]} and {after[1]} were set"
        tenant = reading.node.tenant_id
        yield Violation("limit", tenant, text, item, recorded=list(before), expected=list(after))


def _enabled_below(reading: Reading) -> Iterator[Violation]:
    expected = enabled_below(reading)
    recorded = {
        item.removeprefix(SILENT_PREFIX): account.used
        for item, account in reading.accounts.items()
        if item.startswith(SILENT_PREFIX) and "/" not in item.removeprefix(SILENT_PREFIX)
    }
    for item in _different(recorded, expected, 0):
        before, after = recorded.get(item, 0), expected.get(item, 0)
        text = f"it counts as enabled on {before} tenants right below, and is on {after}"
        yield Violation("enabled_below", reading.node.tenant_id, text, item, recorded=before, expected=after)


def _applied(reading: Reading) -> Iterator[Violation]:
    """Plans: to how many workloads each is applied decides whether somebody looks for them when it changes."""
    expected = Counter(
        plan for workload in reading.workloads.values() for plan, link in workload.links.items() if link.applied
    )
    recorded = {
        plan: account.used
        for item, account in reading.accounts.items()
        if (plan := records.counted_plan(item)) is not None
    }
    for plan in _different(recorded, expected, 0):
        before, after = recorded.get(plan, 0), expected.get(plan, 0)
        text = f"the plan counts as applied to {before} workloads, and is to {after}"
        yield Violation("applied", reading.node.tenant_id, text, plan_id=plan, recorded=before, expected=after)


def _different(recorded: Mapping[str, Any], expected: Mapping[str, Any], absent: Any) -> list[str]:
    names: Collection[str] = recorded.keys() | expected.keys()
    return sorted(name for name in names if recorded.get(name, absent) != expected.get(name, absent))


def _editions(catalog: Catalog, tenant: str, workload_id: str, workload: Workload) -> Iterator[Violation]:
    """No workload holds items of two editions or modes of an application, nor two of which it is to hold one."""
    editions: dict[str, set[str]] = {}
    whole: dict[str, int] = {}
    for name in workload.holding:
        item = catalog.find_item(name)
        if item is not None and item.edition is not None:
            editions.setdefault(item.application_id, set()).add(item.edition)
            whole[item.application_id] = whole.get(item.application_id, 0) + (item.role in WHOLE_ROLES)
    if any(len(found) > 1 for found in editions.values()) or any(count > 1 for count in whole.values()):
        text = f"it holds {', '.join(sorted(workload.holding))}, which nothing may hold together"
        yield Violation("edition", tenant, text, workload_id=workload_id)


def _waiting(reading: Reading) -> Iterator[Violation]:
    """Who waits is known to wait, and stands in the queues where it would be called."""
    tenant = reading.node.tenant_id
    recorded = {name for name, one in reading.workloads.items() if one.waiting}
    for name in sorted(recorded ^ reading.waiting.keys()):
        text = "it waits, and nobody knows why" if name in recorded else "it does not wait, and is called all the same"
        yield Violation("waiting", tenant, text, workload_id=name)
    for name in sorted(recorded & reading.waiting.keys()):
        why = reading.waiting[name]
        missing = [
            place
            for place in why.places
            if place in reading.queued
            and queue.member(place.item, why.since_ms, tenant, name) not in reading.queued[place]
        ]
        if missing:
            text = f"it waits for {missing[0].item} on {missing[0].tenant} and would not be called"
            yield Violation("waiting", tenant, text, workload_id=name)


async def check_timers(ledger: Ledger, shard: int, suspects: Sequence[str]) -> list[Violation]:
    """Those of the timers that, looked at several times, stand without their reservation or are missing for one."""
    seen: dict[str, Any] = dict.fromkeys(suspects)
    for attempt in range(SIGHTINGS):
        if not seen:
            return []
        timers = {member for member, _ in await ledger.timers(shard, reservations.EXPIRY_PREFIX)}
        found = await ledger.read({shard: [reservation_of(member) for member in seen]})
        now = {member: (found[reservation_of(member)], member in timers) for member in seen}
        seen = {
            member: state
            for member, state in now.items()
            if is_held(member, state[0]) != state[1] and (not attempt or seen[member] == state)
        }
        await _pause(attempt)
    return [_timer_violation(member, has_timer=has_timer) for member, (_, has_timer) in sorted(seen.items())]


def reservation_of(member: str) -> RecordKey:
    """The reservation that a timer belongs to."""
    _, tenant, name = member.split("/")
    return records.reservation_key(tenant, name)


def is_held(member: str, record: Record | None) -> bool:
    """Whether the reservation of a timer is there and has not ended."""
    return record is not None and records.decode(reservation_of(member), record.payload).state == reservations.HELD


def _timer_violation(member: str, *, has_timer: bool) -> Violation:
    _, tenant, name = reservation_of(member)
    kind, text = ("timer", "it has ended, and has a timer") if has_timer else ("reservation", "it would never expire")
    return Violation(kind, tenant, text, reservation_id=name)
