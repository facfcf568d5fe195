"""Transactions as commit.lua reads them: the keys, one program of integers and names, and the payloads.

The header of commit.lua says what stands where. This is the hot path of the service: one pass over the transactions,
every name entered into a table once, everything else appended to one list of integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from service.ledger import keys, queue
from service.ledger.errors import LedgerError
from service.ledger.transaction import (
    Attempt,
    Emission,
    Expectation,
    IndexKey,
    Outcome,
    OutcomeKind,
    RecordKey,
    Take,
    Transaction,
    Wait,
)
from service.ledger.validity import left_present, problem_of_kind, problem_of_name, problem_of_path

KEYS_FIXED = 5  # meta, positions, timers, outbox, the hash of the jobs
NEVER = 2**53  # a version that no record has: an expectation that cannot hold
LEFT_ABSENT = 2**32  # -n: as the n-th transaction wrote it; -n - 2^32: gone, as the n-th transaction left it

WORK_OF_ACCOUNT = 16  # to read, write and announce one
WORK_OF_HASH = 6  # to read and write one more hash of records
BYTES_OF_WORK = 512  # that cost as much as one integer

CHECK_ONLY, PROVISIONAL = 1, 2  # the bits of a transaction's mode

# The parts of an attempt, as commit.lua numbers them.
END, PROBE, LIMITS, IDLE, TAKES, PUT, DELETE, INDEX, TIMERS, FORGET, UNWAIT, WAIT, WAKE, EMIT = range(14)

_pack = msgspec.msgpack.Encoder().encode


class Encoded(NamedTuple):
    """One call of commit.lua."""

    keys: list[str]
    arguments: list[bytes]


Group = tuple[list[str], list[int]]  # fields of one hash, and their numbers: what is read at once


class Call:
    """One call of commit.lua, transaction by transaction.

    It is one of perhaps several for ``transactions``, and comes after those that were answered by ``outcomes``.
    """

    def __init__(self, shard: int, transactions: Sequence[Transaction], outcomes: Sequence[Outcome]) -> None:
        self._shard = shard
        self._transactions = transactions
        self._outcomes = outcomes
        self.count = 0
        self._ops: list[int] = []
        self._payloads: list[bytes] = []
        self._payload_bytes = 0
        self._texts: dict[str, int] = {"": 1}
        self._tags: list[int] = []
        self._tag_sets: dict[int, int] = {}  # by identity, as those of `_standing`
        self._tenants: dict[str, int] = {}
        self._sources: dict[str | None, int] = {None: 0}
        self._idempotent: dict[str | None, int] = {None: 0}
        self._records: dict[RecordKey, int] = {}
        self._record_groups: dict[tuple[str, str], Group] = {}
        self._accounts: dict[tuple[str, str], int] = {}
        self._account_groups: dict[str, Group] = {}
        self._paths: dict[tuple[tuple[str, ...], str], tuple[int, ...]] = {}
        self._takes: dict[int, tuple[int, ...]] = {}  # by identity, as those of `_standing`
        self._standing: dict[int, int] = {}  # by the identity of the group, which its transactions keep alive
        self._standing_groups: list[list[int]] = []
        self._waiting: dict[tuple[str, str], int] = {}
        self._indexes: dict[IndexKey, int] = {}

    @property
    def work(self) -> int:
        """About how much there is to do: 1 for an integer of the program, which is about 0.25 µs of Redis."""
        hashes = WORK_OF_ACCOUNT * len(self._accounts) + WORK_OF_HASH * len(self._record_groups)
        return len(self._ops) + hashes + self._payload_bytes // BYTES_OF_WORK

    def add(self) -> None:
        """Append the next transaction; where it raises ``LedgerError`` the call is of no use any more."""
        index = len(self._outcomes) + self.count
        self.count += 1
        try:
            self._add(self._transactions[index])
        except ValueError as error:
            raise LedgerError(str(error), index + 1) from None

    def encode(self, now_ms: int, percent: int, stalled: Iterable[str]) -> Encoded:
        """The call: KEYS and ARGV."""
        shard = self._shard
        names = [
            keys.meta(shard),
            keys.positions(shard),
            keys.timers(shard),
            keys.outbox(shard),
            keys.records(shard, queue.JOB, ""),
        ]
        for tenant in self._tenants:
            names += (keys.accounts(shard, tenant), keys.waiters(shard, tenant))

        record_groups: list[object] = []
        for (kind, tenant), group in self._record_groups.items():
            names.append(keys.records(shard, kind, tenant))
            record_groups += (len(names), *group)
        waiting_keys: dict[str, int] = {}
        for tenant, _ in self._waiting:
            if tenant not in waiting_keys:
                names.append(keys.waiting(shard, tenant))
                waiting_keys[tenant] = len(names)
        first_index_key = len(names) + 1
        names += [keys.index(shard, index) for index in self._indexes]
        first_idempotency_key = len(names) + 1
        names += [keys.idempotent(shard, key) for key in self._idempotent if key is not None]
        program = (
            now_ms,
            percent,
            self.count,
            KEYS_FIXED + 1,
            first_index_key,
            first_idempotency_key,
            len(self._idempotent) - 1,
            self._ops,
            list(self._texts),
            self._tags,
            self._standing_groups,
            list(self._tenants),
            [source for source in self._sources if source is not None],
            [self._sources[source] for source in stalled if source in self._sources],
            record_groups,
            [part for tenant, group in self._account_groups.items() for part in (self._tenants[tenant], *group)],
            [waiting_keys[tenant] for tenant, _ in self._waiting],
            [who for _, who in self._waiting],
            [self._tenants[tenant] for tenant, _ in self._waiting],
        )
        return Encoded(names, [_pack(program), b"".join(self._payloads)])

    # --- names, each entered once

    def _text(self, text: str) -> int:
        number = self._texts.get(text)
        if number is None:
            number = self._texts[text] = len(self._texts) + 1
        return number

    def _name(self, name: str) -> int:
        number = self._texts.get(name)
        if number is None:
            _refuse(problem_of_name(name))
            number = self._texts[name] = len(self._texts) + 1
        return number

    def _tenant(self, tenant: str) -> int:
        number = self._tenants.get(tenant)
        if number is None:
            _refuse(problem_of_name(tenant))
            number = self._tenants[tenant] = len(self._tenants) + 1
        return number

    def _record(self, key: RecordKey) -> int:
        number = self._records.get(key)
        if number is None:
            number = self._records[key] = len(self._records) + 1
            kind, tenant, name = key
            group = self._record_groups.get((kind, tenant))
            if group is None:
                _refuse(problem_of_kind(kind))
                self._record_groups[kind, tenant] = ([name], [number])
            else:
                group[0].append(name)
                group[1].append(number)
        return number

    def _account(self, tenant: str, item: str) -> int:
        number = self._accounts.get((tenant, item))
        if number is None:
            _refuse(problem_of_name(item))
            number = self._accounts[tenant, item] = len(self._accounts) + 1
            self._tenant(tenant)
            _enter(self._account_groups, tenant, item, number)
        return number

    def _accounts_of(self, path: tuple[str, ...], item: str) -> tuple[int, ...]:
        _refuse(problem_of_path(path))
        numbers = self._paths[path, item] = tuple([self._account(tenant, item) for tenant in path])
        return numbers

    def _waiter(self, tenant: str, who: str) -> int:
        number = self._waiting.get((tenant, who))
        if number is None:
            _refuse(problem_of_name(who))
            number = self._waiting[tenant, who] = len(self._waiting) + 1
            self._tenant(tenant)
        return number

    def _tag_set(self, tags: Sequence[tuple[str, str]]) -> int:
        """Where the tags stand, one list for all transactions that bring the same ones."""
        place = self._tag_sets.get(id(tags))
        if place is None:
            place = self._tag_sets[id(tags)] = len(self._tags) + 1
            self._tags.append(len(tags))
            for tenant, tag in tags:
                self._tags += (self._tenant(tenant), self._name(tag))
        return place

    # --- the parts of a transaction, in the order of the header of commit.lua

    def _add(self, transaction: Transaction) -> None:
        ops = self._ops
        start = len(ops)
        source = self._sources.get(transaction.source)
        if source is None:
            source = self._sources[transaction.source] = len(self._sources)
        key = self._idempotent.get(transaction.idempotency_key)
        if key is None:
            key = self._idempotent[transaction.idempotency_key] = len(self._idempotent)
        expect = transaction.expect
        ops += (
            0,
            source,
            transaction.position,
            key,
            (CHECK_ONLY if transaction.check_only else 0) + (PROVISIONAL if transaction.provisional else 0),
            self._name(transaction.cause),
            self._tag_set(transaction.tags) if transaction.tags else 0,
            len(transaction.standing),
        )
        for group in transaction.standing:
            ops.append(self._standing.get(id(group)) or self._stand(group))
        ops.append(len(expect))
        self._add_expectations(ops, expect)
        balances = transaction.balances
        ops.append(len(balances))
        for (tenant, item), used, reserved in balances:
            ops += (self._account(tenant, item), used, reserved)
        ops.append(len(transaction.attempts))
        for attempt in transaction.attempts:
            self._add_attempt(attempt)
        ops[start] = len(ops) + 1

    def _add_expectations(self, ops: list[int], expect: Iterable[tuple[RecordKey, int]]) -> None:
        records = self._records
        for record_key, version in expect:
            ops.append(records.get(record_key) or self._record(record_key))
            ops.append(version if version >= 0 else self._earlier(record_key, -version))

    def _stand(self, group: tuple[Expectation, ...]) -> int:
        """The number of a group of expectations that is met for the first time."""
        entered: list[int] = []
        self._add_expectations(entered, group)
        self._standing_groups.append(entered)
        number = self._standing[id(group)] = len(self._standing_groups)
        return number

    def _earlier(self, key: RecordKey, number: int) -> int:
        """What stands for "as the ``number``-th transaction left it": of this call a number, else a version."""
        transaction = self._transactions[number - 1]
        present = None if transaction.check_only else left_present(transaction.attempts[0], key)
        if present is None:
            return NEVER
        if number > len(self._outcomes):
            own = number - len(self._outcomes)
            return -own if present else -own - LEFT_ABSENT
        outcome = self._outcomes[number - 1]
        if outcome.kind is not OutcomeKind.APPLIED:
            return NEVER
        return outcome.version if present else 0

    def _add_attempt(self, attempt: Attempt) -> None:
        ops = self._ops
        start = len(ops)
        ops.append(0)
        if attempt.probe or attempt.limits or attempt.idle:
            self._add_conditions(attempt)
        if attempt.take:
            self._add_takes(attempt.take)
        if attempt.put:
            ops += (PUT, len(attempt.put))
            for key, payload in attempt.put:
                ops.append(self._records.get(key) or self._record(key))
                self._add_payload(payload)
        if attempt.delete or attempt.index or attempt.timers:
            self._add_names(attempt)
        if attempt.unwait or attempt.wait is not None or attempt.wake or attempt.forget:
            self._add_waiting(attempt)
        if attempt.emit:
            self._add_emissions(attempt.emit)
        ops.append(END)
        ops[start] = len(ops) + 1

    def _add_conditions(self, attempt: Attempt) -> None:
        ops = self._ops
        if attempt.probe:
            ops.append(PROBE)
        if attempt.limits:
            ops += (LIMITS, len(attempt.limits))
            for limit in attempt.limits:
                overage = None if limit.value is None else limit.overage
                ops += (self._account(limit.tenant, limit.item), _or_none(limit.value), _or_none(overage))
        if attempt.idle:
            idle = dict.fromkeys(attempt.idle)
            ops += (IDLE, len(idle))
            ops += [self._account(tenant, item) for tenant, item in idle]

    def _add_takes(self, takes: Sequence[Take]) -> None:
        ops = self._ops
        if len(takes) > 1 and len({take.item for take in takes}) < len(takes):
            self._add_netted(takes)
            return
        ops.append(TAKES)
        at = len(ops)
        ops.append(0)
        known = self._takes
        for take in takes:
            entered = known.get(id(take))
            if entered is None:
                entered = known[id(take)] = self._enter_take(take)
            if entered:
                ops += entered
                ops[at] += 1

    def _enter_take(self, take: Take) -> tuple[int, ...]:
        """One take as a group of its own; empty where it takes nothing."""
        used, reserved = take.used, take.reserved
        # Taking nothing still declares the queues of the path, for whoever waits no longer.
        accounts = self._paths.get((take.path, take.item)) or self._accounts_of(take.path, take.item)
        if not (used or reserved):
            return ()
        return (1 if used > 0 and not take.fact else 0, used, reserved, len(accounts), *accounts)

    def _add_netted(self, takes: Sequence[Take]) -> None:
        """Takes that meet on some accounts: one group for each account, with what they come to together."""
        net: dict[int, tuple[int, int, int]] = {}
        for take in takes:
            asked = 0 if take.fact else take.used
            for account in self._paths.get((take.path, take.item)) or self._accounts_of(take.path, take.item):
                old_asked, used, reserved = net.get(account, (0, 0, 0))
                net[account] = (old_asked + asked, used + take.used, reserved + take.reserved)
        changed = [(account, change) for account, change in net.items() if change[1] or change[2]]
        self._ops += (TAKES, len(changed))
        for account, (asked, used, reserved) in changed:
            self._ops += (1 if used > 0 and asked > 0 else 0, used, reserved, 1, account)

    def _add_names(self, attempt: Attempt) -> None:
        ops = self._ops
        if attempt.delete:
            ops += (DELETE, len(attempt.delete))
            ops += [self._record(key) for key in attempt.delete]
        if attempt.index:
            ops += (INDEX, len(attempt.index))
            for change in attempt.index:
                key = self._indexes.setdefault(change.key, len(self._indexes) + 1)
                ops += (key, self._text(change.member), 1 if change.present else 0)
        if attempt.timers:
            ops += (TIMERS, len(attempt.timers))
            for timer in attempt.timers:
                ops += (self._text(timer.member), _or_none(timer.due_ms))

    def _add_waiting(self, attempt: Attempt) -> None:
        ops = self._ops
        if attempt.forget:
            ops += (FORGET, len(attempt.forget))
            for place, member in attempt.forget:
                ops += (self._tenant(place.tenant), self._text(member))
        if attempt.unwait:
            ops += (UNWAIT, len(attempt.unwait))
            ops += [self._waiter(tenant, who) for tenant, who in attempt.unwait]
        if attempt.wait is not None:
            self._add_wait(attempt.wait)
        if attempt.wake:
            ops += (WAKE, len(attempt.wake))
            for wake in attempt.wake:
                ops += (self._tenant(wake.place.tenant), self._name(wake.place.item), self._name(wake.reason))

    def _add_wait(self, wait: Wait) -> None:
        ops = self._ops
        ops += (WAIT, self._waiter(wait.tenant, wait.who), self._text(wait.static), 1 if wait.indexed else 0)
        ops.append(len(wait.places))
        for tenant, item in wait.places:
            ops += (self._tenant(tenant), self._name(item))
        ops.append(len(wait.denials_of))
        ops += [attempt + 1 for attempt in wait.denials_of]

    def _add_emissions(self, emissions: Sequence[Emission]) -> None:
        ops = self._ops
        ops += (EMIT, len(emissions))
        for emission in emissions:
            self._add_payload(emission.facts.encode())
            ops += (1 if emission.unless_same else 0, len(emission.denials_of))
            ops += [attempt + 1 for attempt in emission.denials_of]

    def _add_payload(self, payload: bytes) -> None:
        """Where its first and its last byte stand among all payloads."""
        self._payloads.append(payload)
        first = self._payload_bytes + 1
        self._payload_bytes += len(payload)
        self._ops += (first, self._payload_bytes)


def _enter(groups: dict[str, Group], where: str, field: str, number: int) -> None:
    group = groups.get(where)
    if group is None:
        groups[where] = ([field], [number])
    else:
        group[0].append(field)
        group[1].append(number)


def _refuse(problem: str | None) -> None:
    if problem is not None:
        raise ValueError(problem)


def _or_none(number: int | None) -> int:
    return -1 if number is None else number
