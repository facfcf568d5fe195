"""The ledger in plain dictionaries: the specification of commit.lua, and the double for tests.

It is read from top to bottom: ``ReferenceLedger`` is what users see, ``_Batch`` applies the transactions of one call,
``_State`` is what a shard holds. Nothing here awaits anything, so every call is atomic; a batch works on a copy of the
shard, which takes the place of the shard when the batch has come to its end.
"""

from __future__ import annotations

import bisect
import itertools
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import msgspec

from service.ledger import notices, queue
from service.ledger.errors import LedgerError
from service.ledger.outbox import Entry, Facts, Notice, UsageChanged
from service.ledger.snapshot import Snapshot
from service.ledger.transaction import (
    QUANTITY_MAX,
    SILENT_PREFIX,
    Account,
    Attempt,
    Denial,
    Emission,
    IndexKey,
    Limit,
    Outcome,
    OutcomeKind,
    Place,
    Record,
    RecordKey,
    Transaction,
    Wait,
    Waiter,
    Waiting,
)
from service.ledger.validity import left_present, problem_of_kind, problem_of_name, problem_of_path, refuse_invalid

IDEMPOTENCY_KEPT_MS = 24 * 60 * 60 * 1000
AccountKey = tuple[str, str]  # tenant and item
Named = TypeVar("Named")


@dataclass
class _State:
    """What one shard holds."""

    sequence: int = 0
    records: dict[RecordKey, Record] = field(default_factory=dict)
    indexes: dict[IndexKey, set[str]] = field(default_factory=dict)
    accounts: dict[AccountKey, Account] = field(default_factory=dict)
    waiting: dict[tuple[str, str], Waiting] = field(default_factory=dict)
    queues: dict[str, set[str]] = field(default_factory=dict)
    timers: dict[str, int] = field(default_factory=dict)
    outbox: list[Entry] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)
    idempotent: dict[str, tuple[int, Outcome]] = field(default_factory=dict)

    def copy(self) -> _State:
        return replace(
            self,
            records=dict(self.records),
            indexes={key: set(members) for key, members in self.indexes.items()},
            accounts=dict(self.accounts),
            waiting=dict(self.waiting),
            queues={key: set(members) for key, members in self.queues.items()},
            timers=dict(self.timers),
            outbox=list(self.outbox),
            positions=dict(self.positions),
            idempotent=dict(self.idempotent),
        )

    def next_number(self) -> int:
        self.sequence += 1
        return self.sequence


class _Overflow(Exception):  # noqa: N818 - an outcome on its way up, not an error
    """A sum would exceed QUANTITY_MAX."""


class _Batch:
    """The transactions of one call, applied in their order to ``state``."""

    def __init__(self, state: _State, transactions: Sequence[Transaction], now_ms: int, percent: int) -> None:
        self.state = state
        self.transactions = transactions
        self.now_ms = now_ms
        self.percent = percent
        self.declared = tenants_of(transactions)  # only their queues may be changed in this call
        self.outcomes: list[Outcome] = []
        self.stalled: set[str] = set()
        self.before: dict[AccountKey, Account] = {}  # touched accounts, as they were, in the order of their first touch
        self.causes: dict[AccountKey, str] = {}
        self.tags: dict[str, str] = {}
        self.roomier: set[AccountKey] = set()
        self.wakes: dict[Place, tuple[str, str]] = {}

    def run(self) -> list[Outcome]:
        for number, transaction in enumerate(self.transactions, start=1):
            self.outcomes.append(self.decide(number, transaction))
        self.announce_usage()
        self.write_wakes()
        return self.outcomes

    # --- one transaction

    def decide(self, number: int, transaction: Transaction) -> Outcome:
        if transaction.source in self.stalled:
            return Outcome(OutcomeKind.STALLED)
        first = self.first_outcome(transaction)
        if first is not None:
            return first
        if not self.is_as_expected(transaction):
            return self.stall(transaction, OutcomeKind.CONFLICT)
        refusals: list[tuple[Denial, ...]] = []
        for attempt in transaction.attempts:
            try:
                taken, denials = self.weigh(number, attempt)
            except _Overflow:
                return self.stall(transaction, OutcomeKind.OVERFLOW)
            if not denials:
                return self.settle(transaction, attempt, taken, tuple(refusals))
            refusals.append(denials)
        if transaction.provisional:
            return msgspec.structs.replace(self.stall(transaction, OutcomeKind.REFUSED), denials=tuple(refusals))
        return self.settle(transaction, None, {}, tuple(refusals))

    def first_outcome(self, transaction: Transaction) -> Outcome | None:
        """Of a transaction that was decided before: by position, or by key with what was answered then."""
        if transaction.source is not None:
            last = self.state.positions.get(transaction.source)
            if last is not None and transaction.position <= last:
                return Outcome(OutcomeKind.DUPLICATE)
        if transaction.idempotency_key is not None:
            expires_ms, first = self.state.idempotent.get(transaction.idempotency_key, (0, None))
            if first is not None and expires_ms > self.now_ms:
                return Outcome(OutcomeKind.DUPLICATE, first.attempt, first.denials)
        return None

    def is_as_expected(self, transaction: Transaction) -> bool:
        expected = itertools.chain(transaction.expect, *transaction.standing)
        return all(self.holds(key, version) for key, version in expected) and all(
            self.balance(balance.place) == (balance.used, balance.reserved) for balance in transaction.balances
        )

    def balance(self, place: Place) -> tuple[int, int]:
        account = self.account(place)
        return account.used, account.reserved

    def holds(self, key: RecordKey, version: int) -> bool:
        if version < 0:
            present = left_present(self.transactions[-version - 1].attempts[0], key)
            outcome = self.outcomes[-version - 1]
            if present is None or outcome.kind is not OutcomeKind.APPLIED or self.transactions[-version - 1].check_only:
                return False
            version = outcome.version if present else 0
        record = self.state.records.get(key)
        return version == (0 if record is None else record.version)

    def stall(self, transaction: Transaction, kind: OutcomeKind) -> Outcome:
        if transaction.source is not None:
            self.stalled.add(transaction.source)
        return Outcome(kind)

    # --- one attempt

    def weigh(self, number: int, attempt: Attempt) -> tuple[dict[AccountKey, Account], tuple[Denial, ...]]:
        """The accounts as the attempt would leave them, in the order of its takes and limits, and what refuses it."""
        limited = self.with_limits(attempt)
        after: dict[AccountKey, Account] = {}
        denials: list[Denial] = []
        overflows = False
        for key, change in net_changes(attempt).items():
            if change.used > QUANTITY_MAX:
                raise _Overflow
            account = limited.get(key, self.account(key))
            after[key] = changed = add(account, change, number, key)
            cap = account.limit
            if change.asked and cap is not None and changed.used > cap:
                denials.append(Denial(*key, cap, account.used, change.used))
            else:
                overflows = overflows or changed.used > QUANTITY_MAX
        after.update({key: account for key, account in limited.items() if key not in after})
        for place in dict.fromkeys(attempt.idle):
            left = after.get(place, self.account(place)).used
            if left > 0:
                denials.append(Denial(place.tenant, place.item, 0, min(left, QUANTITY_MAX), 0))
        if overflows and not denials:
            raise _Overflow
        return after, tuple(denials)

    def with_limits(self, attempt: Attempt) -> dict[AccountKey, Account]:
        """The accounts as its limits alone would leave them."""
        limited: dict[AccountKey, Account] = {}
        for limit in attempt.limits:
            if (limit.value or 0) + (limit.overage or 0) > QUANTITY_MAX:
                raise _Overflow
            key = (limit.tenant, limit.item)
            limited[key] = with_limit(self.account(key), limit)
        return limited

    def account(self, key: AccountKey) -> Account:
        return self.state.accounts.get(key, Account())

    # --- what is done once it is decided

    def settle(
        self,
        transaction: Transaction,
        attempt: Attempt | None,
        taken: dict[AccountKey, Account],
        refusals: tuple[tuple[Denial, ...], ...],
    ) -> Outcome:
        """Apply the attempt, if any, and remember that the transaction is decided."""
        kind = OutcomeKind.DENIED if refusals else OutcomeKind.APPLIED
        outcome = Outcome(kind, -1 if attempt is None else len(refusals), refusals)
        if transaction.check_only:
            return outcome
        if transaction.source is not None:
            self.state.positions[transaction.source] = transaction.position
        if transaction.idempotency_key is not None:
            kept = (self.now_ms + IDEMPOTENCY_KEPT_MS, outcome)
            self.state.idempotent[transaction.idempotency_key] = kept
        if attempt is None:
            return outcome
        self.tags.update(transaction.tags)
        version = self.write_records(attempt)
        self.write_names(attempt)
        same = self.write_waiting(attempt, refusals)
        for wake in attempt.wake:
            self.wakes[wake.place] = (wake.reason, transaction.cause)
        for emission in attempt.emit:
            self.announce(emission, same, refusals)
        self.change_accounts(attempt, taken, transaction.cause)
        return msgspec.structs.replace(outcome, version=version)

    def write_records(self, attempt: Attempt) -> int:
        version = self.state.next_number() if attempt.put else 0
        for key, payload in attempt.put:
            self.state.records[key] = Record(version, payload)
        for key in attempt.delete:
            self.state.records.pop(key, None)
        return version

    def write_names(self, attempt: Attempt) -> None:
        for change in attempt.index:
            (enter if change.present else drop)(self.state.indexes, change.key, change.member)
        for timer in attempt.timers:
            if timer.due_ms is None:
                self.state.timers.pop(timer.member, None)
            else:
                self.state.timers[timer.member] = timer.due_ms

    def write_waiting(self, attempt: Attempt, refusals: tuple[tuple[Denial, ...], ...]) -> bool:
        """Who waits no longer, and who waits from now on; whether the latter waited for the same reasons already."""
        for place, member in attempt.forget:
            drop(self.state.queues, place.tenant, member)
        for tenant, who in attempt.unwait:
            self.leave_queues(tenant, who, self.state.waiting.pop((tenant, who), None))
        if attempt.wait is None:
            return False
        return self.wait(attempt.wait, denials_of(attempt.wait.denials_of, refusals))

    def wait(self, wait: Wait, denials: tuple[Denial, ...]) -> bool:
        key = (wait.tenant, wait.who)
        old = self.state.waiting.get(key)
        places = tuple(dict.fromkeys((*wait.places, *queue.places_of(denials)))) if wait.indexed else ()
        same = (
            old is not None
            and first_line(old.static) == first_line(wait.static)
            and set(queue.places_of(old.denials)) == set(queue.places_of(denials))
        )
        if old is not None and same and old.static == wait.static and set(old.places) == set(places):
            return True
        self.leave_queues(*key, old)
        since_ms = self.now_ms if old is None else old.since_ms
        self.state.waiting[key] = Waiting(since_ms, wait.static, denials, places)
        for place in places:
            enter(self.state.queues, place.tenant, queue.member(place.item, since_ms, *key))
        return same

    def leave_queues(self, tenant: str, who: str, reasons: Waiting | None) -> None:
        """Drop the entries of somebody; those in queues that are not declared stay, and lead nowhere."""
        for place in () if reasons is None else reasons.places:
            if place.tenant in self.declared:
                member = queue.member(place.item, reasons.since_ms if reasons else 0, tenant, who)
                drop(self.state.queues, place.tenant, member)

    def announce(self, emission: Emission, same: bool, refusals: tuple[tuple[Denial, ...], ...]) -> None:
        if not (emission.unless_same and same):
            denials = denials_of(emission.denials_of, refusals)
            self.state.outbox.append(Facts(self.state.next_number(), emission.facts, denials))

    # --- accounts, and what follows from them

    def change_accounts(self, attempt: Attempt, taken: dict[AccountKey, Account], cause: str) -> None:
        for key, account in (self.with_limits(attempt) if attempt.probe else taken).items():
            self.change_account(key, account, cause)

    def change_account(self, key: AccountKey, account: Account, cause: str) -> None:
        old = self.account(key)
        self.before.setdefault(key, old)
        self.causes[key] = cause
        if has_more_room(old, account) and not is_silent(key):
            self.roomier.add(key)
        present = 0 if is_silent(key) else notices.conditions(account, self.percent)
        for name in notices.crossings(account.raised, present):
            account = msgspec.structs.replace(account, notices=account.notices + 1)
            self.state.outbox.append(self.notice(key, account, name, cause))
        account = msgspec.structs.replace(account, raised=present)
        if account == Account():
            self.state.accounts.pop(key, None)
        else:
            self.state.accounts[key] = account

    def notice(self, key: AccountKey, account: Account, name: str, cause: str) -> Notice:
        return Notice(
            revision=self.state.next_number(),
            time_ms=self.now_ms,
            tenant=key[0],
            item=key[1],
            kind=name,
            used=account.used,
            value=account.value,
            overage=account.overage,
            percent=self.percent,
            number=account.notices,
            cause=cause,
        )

    # --- at the end of the batch

    def announce_usage(self) -> None:
        for key, before in self.before.items():
            now = self.account(key)
            if not is_silent(key) and (now.used, now.reserved) != (before.used, before.reserved):
                self.state.outbox.append(self.usage(key, now))

    def usage(self, key: AccountKey, account: Account) -> UsageChanged:
        return UsageChanged(
            revision=self.state.next_number(),
            time_ms=self.now_ms,
            tenant=key[0],
            item=key[1],
            used=account.used,
            reserved=account.reserved,
            value=account.value,
            overage=account.overage,
            tag=self.tags.get(key[0], ""),
            cause=self.causes[key],
        )

    def write_wakes(self) -> None:
        """A job for every place where somebody waits and room appeared, or which the caller named."""
        for key in self.before:
            now = self.account(key)
            if key in self.roomier and (now.limit is None or now.used < now.limit):
                self.wakes.setdefault(Place(*key), ("quota", self.causes[key]))
        for place, (reason, cause) in self.wakes.items():
            entries = self.state.queues.get(place.tenant, ())
            if any(entry.startswith(place.item + "\x00") for entry in entries):
                job = queue.wake_id(place)
                payload = queue.wake_payload(place, reason, cause)
                self.state.records[RecordKey(queue.JOB, "", job)] = Record(self.state.next_number(), payload)
                self.state.timers[f"{queue.JOB}/{job}"] = self.now_ms


# --- small rules of the batch


@dataclass
class _Change:
    """The net difference of one account over an attempt; ``asked`` where a limit may refuse it."""

    used: int = 0
    reserved: int = 0
    asked_used: int = 0

    @property
    def asked(self) -> bool:
        return self.used > 0 and self.asked_used > 0


def net_changes(attempt: Attempt) -> dict[AccountKey, _Change]:
    """What the attempt takes of each account, in the order of takes and paths; without what cancels out."""
    changes: dict[AccountKey, _Change] = {}
    for take in attempt.take:
        for tenant in take.path:
            change = changes.setdefault((tenant, take.item), _Change())
            change.used += take.used
            change.reserved += take.reserved
            change.asked_used += 0 if take.fact else take.used
    return {key: change for key, change in changes.items() if change.used or change.reserved}


def add(account: Account, change: _Change, number: int, key: AccountKey) -> Account:
    """The account after the change; numbers that cannot be are a bug of the caller."""
    used, reserved = account.used + change.used, account.reserved + change.reserved
    if used < 0 or reserved < 0 or reserved > used:
        raise LedgerError(
            f"used {used} and reserved {reserved} cannot be for item {key[1]} of tenant {key[0]}, "
            f"where they were {account.used} and {account.reserved}",
            number,
        )
    return msgspec.structs.replace(account, used=used, reserved=reserved)


def with_limit(account: Account, limit: Limit) -> Account:
    """An account under another limit."""
    overage = None if limit.value is None else limit.overage
    return msgspec.structs.replace(account, value=limit.value, overage=overage)


def is_silent(key: AccountKey) -> bool:
    """Whether the account is only counted: nothing is announced of it, and nobody is woken for it."""
    return key[1].startswith(SILENT_PREFIX)


def has_more_room(old: Account, new: Account) -> bool:
    """Whether somebody whom the limit refused before might fit in now."""
    if old.limit is None:
        return new.limit is not None and new.used < old.used
    return new.limit is None or new.limit > old.limit or new.used < old.used


def first_line(text: str) -> str:
    """What of a caller's reasons tells them from others."""
    return text.partition("\n")[0]


def denials_of(attempts: Iterable[int], refusals: tuple[tuple[Denial, ...], ...]) -> tuple[Denial, ...]:
    return tuple(denial for attempt in attempts for denial in refusals[attempt])


def enter(sets: dict[Named, set[str]], key: Named, member: str) -> None:
    sets.setdefault(key, set()).add(member)


def drop(sets: dict[Named, set[str]], key: Named, member: str) -> None:
    """Drop a member, if it is one; an empty set is none."""
    if key in sets:
        sets[key].discard(member)
        if not sets[key]:
            del sets[key]


def refuse_invalid_names(transactions: Sequence[Transaction]) -> None:
    """Raise ``LedgerError`` where the encoder would, when it enters a name into its tables."""
    for number, transaction in enumerate(transactions, start=1):
        kinds = {key.kind for key, _ in itertools.chain(transaction.expect, *transaction.standing)}
        names = {transaction.cause, *tenants_of([transaction]), *(tag for _, tag in transaction.tags)}
        names |= {balance.place.item for balance in transaction.balances}
        paths: set[tuple[str, ...]] = set()
        for attempt in transaction.attempts:
            paths |= {take.path for take in attempt.take}
            kinds |= {key.kind for key, _ in attempt.put} | {key.kind for key in attempt.delete}
            names |= set(_names(attempt))
        problems = [*map(problem_of_kind, kinds), *map(problem_of_name, names), *map(problem_of_path, paths)]
        for problem in filter(None, problems):
            raise LedgerError(problem, number)


def _names(attempt: Attempt) -> Iterator[str]:
    yield from (take.item for take in attempt.take)
    yield from (limit.item for limit in attempt.limits)
    yield from (place.item for place in attempt.idle)
    yield from (who for _, who in attempt.unwait)
    for wake in attempt.wake:
        yield from (wake.place.item, wake.reason)
    if attempt.wait is not None:
        yield attempt.wait.who
        yield from (place.item for place in attempt.wait.places)


def tenants_of(transactions: Sequence[Transaction]) -> set[str]:
    """The tenants that a batch names, in whatever way."""
    tagged = {tenant for each in transactions for tenant, _ in each.tags}
    balanced = {balance.place.tenant for each in transactions for balance in each.balances}
    return (
        tagged
        | balanced
        | {tenant for each in transactions for attempt in each.attempts for tenant in _tenants(attempt)}
    )


def _tenants(attempt: Attempt) -> Iterator[str]:
    for take in attempt.take:
        yield from take.path
    yield from (limit.tenant for limit in attempt.limits)
    yield from (place.tenant for place in attempt.idle)
    yield from (tenant for tenant, _ in attempt.unwait)
    yield from (place.tenant for place, _ in attempt.forget)
    yield from (wake.place.tenant for wake in attempt.wake)
    if attempt.wait is not None:
        yield attempt.wait.tenant
        yield from (place.tenant for place in attempt.wait.places)


def monotonic_ms() -> int:
    """A clock for leases that nobody sets back."""
    return int(time.monotonic() * 1000)


class ReferenceLedger:
    """A ``Ledger`` in memory, for tests and as the specification; deterministic, and shared by nobody else.

    ``almost_reached_percent`` is where the first notice of a quota is raised. ``clock`` tells leases the time, in
    milliseconds; everything else goes by the ``now_ms`` of the caller. The state is open to look at: ``snapshot``.
    """

    def __init__(
        self,
        shards: int = 4,
        *,
        almost_reached_percent: int = 80,
        clock: Callable[[], int] = monotonic_ms,
    ) -> None:
        self._states = [_State() for _ in range(shards)]
        self._percent = almost_reached_percent
        self._clock = clock
        self._leases: dict[tuple[str, int], tuple[str, int]] = {}
        self._directory: dict[str, int] = {}
        self._names: dict[str, str] = {}
        self._root_children: set[str] = set()

    @property
    def shards(self) -> int:
        return len(self._states)

    async def commit(self, shard: int, transactions: Sequence[Transaction], now_ms: int) -> list[Outcome]:
        refuse_invalid(transactions)
        refuse_invalid_names(transactions)
        state = self._states[shard].copy()
        outcomes = _Batch(state, transactions, now_ms, self._percent).run()
        self._states[shard] = state
        return outcomes

    def snapshot(self, shard: int) -> Snapshot:
        """Everything the shard holds."""
        state = self._states[shard]
        return Snapshot(
            sequence=state.sequence,
            records=dict(state.records),
            indexes={key: frozenset(members) for key, members in state.indexes.items()},
            accounts=dict(state.accounts),
            waiting=dict(state.waiting),
            queues={tenant: tuple(map(queue.waiter, ordered(members))) for tenant, members in state.queues.items()},
            timers=dict(state.timers),
            outbox=tuple(state.outbox),
            positions=dict(state.positions),
            idempotent={key: outcome for key, (_, outcome) in state.idempotent.items()},
        )

    # --- reading

    async def read(self, keys: Mapping[int, Sequence[RecordKey]]) -> dict[RecordKey, Record | None]:
        return {key: self._states[shard].records.get(key) for shard, wanted in keys.items() for key in wanted}

    async def accounts(self, tenants: Mapping[int, Sequence[str]]) -> dict[str, dict[str, Account]]:
        found: dict[str, dict[str, Account]] = {tenant: {} for wanted in tenants.values() for tenant in wanted}
        for shard in tenants:
            for (tenant, item), account in self._states[shard].accounts.items():
                if tenant in tenants[shard]:
                    found[tenant][item] = account
        return found

    async def waiting(self, shard: int, tenant: str, who: Sequence[str] | None = None) -> dict[str, Waiting]:
        everybody = {name: why for (of, name), why in self._states[shard].waiting.items() if of == tenant}
        return everybody if who is None else {name: everybody[name] for name in who if name in everybody}

    async def waiters(self, shard: int, tenant: str, item: str, after: str, count: int) -> list[Waiter]:
        members = ordered(self._states[shard].queues.get(tenant, ()))
        behind = [each for each in members if each.startswith(item + "\x00") and each.encode() > after.encode()]
        return [queue.waiter(each) for each in behind[:count]]

    async def scan(self, shard: int, kind: str, tenant: str, cursor: int, count: int) -> tuple[int, dict[str, Record]]:
        records = {key.id: record for key, record in self._states[shard].records.items() if key[:2] == (kind, tenant)}
        following, names = page(records, cursor, count)
        return following, {name: records[name] for name in names}

    async def whole(
        self, kind: str, tenants: Mapping[int, Sequence[str]], most: int
    ) -> dict[str, dict[str, Record] | None]:
        found: dict[str, dict[str, Record]] = {tenant: {} for some in tenants.values() for tenant in some}
        for shard, some in tenants.items():
            for key, record in self._states[shard].records.items():
                if key.kind == kind and key.tenant in some:
                    found[key.tenant][key.id] = record
        return {tenant: entries if len(entries) <= most else None for tenant, entries in found.items()}

    async def count(self, shard: int, kind: str, tenant: str) -> int:
        return sum(key[:2] == (kind, tenant) for key in self._states[shard].records)

    async def members(self, shard: int, index: IndexKey) -> list[str]:
        return sorted(self._states[shard].indexes.get(index, ()))

    async def members_together(self, indexes: Mapping[int, Sequence[IndexKey]]) -> dict[IndexKey, list[str]]:
        return {index: await self.members(shard, index) for shard, some in indexes.items() for index in some}

    async def scan_members(self, shard: int, index: IndexKey, cursor: int, count: int) -> tuple[int, list[str]]:
        return page(self._states[shard].indexes.get(index, ()), cursor, count)

    async def index_sizes(self, keys: Mapping[int, Sequence[IndexKey]]) -> dict[IndexKey, int]:
        return {key: len(self._states[shard].indexes.get(key, ())) for shard, wanted in keys.items() for key in wanted}

    async def due(self, shards: Sequence[int], now_ms: int, count: int) -> dict[int, list[tuple[str, int]]]:
        answer = {shard: [each for each in self._in_order(shard) if each[1] <= now_ms][:count] for shard in shards}
        return {shard: timers for shard, timers in answer.items() if timers}

    async def timers(self, shard: int, prefix: str) -> list[tuple[str, int]]:
        return [each for each in self._in_order(shard) if each[0].startswith(prefix)]

    def _in_order(self, shard: int) -> list[tuple[str, int]]:
        timers = self._states[shard].timers.items()
        return sorted(timers, key=lambda timer: (timer[1], timer[0].encode()))

    async def sequence(self, shard: int) -> int:
        return self._states[shard].sequence

    async def positions(self) -> dict[str, int]:
        newest: dict[str, int] = {}
        for state in self._states:
            for source, position in state.positions.items():
                newest[source] = max(position, newest.get(source, 0))
        return newest

    # --- the directory

    async def locate(self, tenants: Sequence[str]) -> dict[str, int]:
        return {tenant: self._directory[tenant] for tenant in tenants if tenant in self._directory}

    async def place(self, tenants: Mapping[str, int], instead_of: int | None = None) -> dict[str, int]:
        return {tenant: claim(self._directory, tenant, shard, instead_of) for tenant, shard in tenants.items()}

    async def claim_name(self, name: str, tenant: str, instead_of: str | None = None) -> str:
        return claim(self._names, name, tenant, instead_of)

    async def root_children(self) -> list[str]:
        return sorted(self._root_children)

    async def add_root_child(self, tenant: str) -> None:
        self._root_children.add(tenant)

    # --- the outbox and the leases

    async def outbox(self, shards: Sequence[int], count: int) -> dict[int, list[Entry]]:
        return {shard: self._states[shard].outbox[:count] for shard in shards if self._states[shard].outbox}

    async def trim(self, published: Mapping[int, Sequence[Entry]], lease: str, holder: str) -> set[int]:
        trimmed = set()
        for shard, entries in published.items():
            outbox = self._states[shard].outbox
            if outbox and outbox[0].revision == entries[0].revision and self._holder(lease, shard) == holder:
                del outbox[: len(entries)]
                trimmed.add(shard)
        return trimmed

    async def outbox_depths(self) -> dict[int, int]:
        return {shard: len(state.outbox) for shard, state in enumerate(self._states) if state.outbox}

    async def lease(self, name: str, shards: Sequence[int], holder: str, ttl_ms: int) -> set[int]:
        held = {shard for shard in shards if self._holder(name, shard) in (None, holder)}
        self._leases.update({(name, shard): (holder, self._clock() + ttl_ms) for shard in held})
        return held

    async def release(self, name: str, shards: Sequence[int], holder: str) -> None:
        for shard in shards:
            if self._holder(name, shard) == holder:
                del self._leases[name, shard]

    def _holder(self, name: str, shard: int) -> str | None:
        holder, until_ms = self._leases.get((name, shard), (None, 0))
        return holder if until_ms > self._clock() else None


def ordered(members: Iterable[str]) -> list[str]:
    """In the order of their bytes, as Redis keeps them."""
    return sorted(members, key=str.encode)


def claim(names: dict[str, Named], name: str, wanted: Named, instead_of: Named | None) -> Named:
    """Enter ``wanted`` where nothing stands, or ``instead_of``; what stands afterwards."""
    if name not in names or (instead_of is not None and names[name] == instead_of):
        names[name] = wanted
    return names[name]


def page(names: Iterable[str], cursor: int, count: int) -> tuple[int, list[str]]:
    """Some of the names, and the next cursor.

    The cursor is a place in the order of check sums: what is added or removed in between moves no other name, so that a
    walk meets each name that is there from its beginning to its end.
    """
    by_sum = sorted((zlib.crc32(name.encode()), name) for name in names)
    start = bisect.bisect_left(by_sum, (cursor, ""))
    end = min(start + count, len(by_sum))
    while start < end < len(by_sum) and by_sum[end][0] == by_sum[end - 1][0]:
        end += 1
    following = by_sum[end][0] if end < len(by_sum) else 0
    return following, [name for _, name in by_sum[start:end]]
