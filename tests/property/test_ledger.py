"""Random programs on the reference ledger and on real Redis: every answer, and everything that is kept, is the same.

A program is a list of batches, a batch a list of seeds, and each seed makes one transaction: so hypothesis finds the
fewest transactions that still disagree, and making them costs little.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from random import Random
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.ledger import redis_ledger
from service.ledger.client import Client
from service.ledger.errors import LedgerError
from service.ledger.outbox import Facts, Notice
from service.ledger.redis_ledger import RedisLedger
from service.ledger.reference import ReferenceLedger
from service.ledger.snapshot import Snapshot
from service.ledger.transaction import (
    QUANTITY_MAX,
    Account,
    Attempt,
    Balance,
    Emission,
    Expectation,
    IndexChange,
    IndexKey,
    Limit,
    Outcome,
    OutcomeKind,
    Place,
    RecordKey,
    Take,
    Timer,
    Transaction,
    Wait,
    Wake,
)

SHARD = 3
SHARDS = 4
NOW_MS = 1_700_000_000_000
PATHS = (("c1", "m1", "d"), ("c2", "m1", "d"), ("c3", "m2", "d"), ("m2", "d"))
TENANTS = ("c1", "c2", "c3", "m1", "m2", "d")
ITEMS = ("seats", "bytes:ü", ".silent")
WHO = ("w1", "w:2", "w3")
Element = TypeVar("Element")

seeds = st.integers(0, 2**32 - 1)
batches = st.lists(seeds, min_size=1, max_size=10)
programs = st.lists(batches, min_size=1, max_size=12)


class Maker:
    """One transaction from a seed, the ``number``-th of its batch, by a caller who has just read the ledger."""

    def __init__(
        self, seed: int, earlier: Sequence[Transaction], before: Snapshot, freed: Counter[tuple[str, str]]
    ) -> None:
        self.random = Random(seed)
        self.batch = earlier
        self.number = len(earlier) + 1
        self.before = before
        self.freed = freed  # what the batch releases already, so that little falls below nothing

    def transaction(self) -> Transaction:
        random = self.random
        make = random.choice((*[self.grant] * 4, self.release, self.release, self.quota, self.chaos))
        source = random.choice((None, "events/1", "events/2"))
        newest = self.before.positions.get(source or "", 0)
        return Transaction(
            attempts=make(),
            expect=self.few(self.expectation, 0.25),
            standing=self.standing(),
            balances=self.few(self.balance, 0.05),
            source=source,
            position=newest + self.number - (0 if random.random() < 0.95 else self.number),
            idempotency_key=random.choice((None, None, None, f"k:{random.getrandbits(4)}")),
            cause=random.choice(("", "e1", "e2")),
            tags=self.few(lambda: (random.choice(TENANTS), random.choice(("trial", "production"))), 0.5),
            check_only=random.random() < 0.1,
            provisional=random.random() < 0.2,
        )

    def standing(self) -> list[tuple[Expectation, ...]]:
        """Groups of expectations: often one that an earlier transaction of the batch has brought too."""
        known = [group for transaction in self.batch for group in transaction.standing]
        if known and self.random.random() < 0.6:
            return [self.random.choice(known)]
        return [tuple(self.few(self.expectation, 0.25))] if self.random.random() < 0.3 else []

    # --- what happens most

    def grant(self) -> list[Attempt]:
        path, who = self.random.choice(PATHS), self.random.choice(WHO)
        put = [(RecordKey("workload", path[0], who), b"held")]
        takes = [self.take(path, item, self.random.randint(1, 3)) for item in self.random.sample(ITEMS, 2)]
        first = Attempt(take=takes, put=put, unwait=[(path[0], who)], emit=[Emission("{}")])
        second = Attempt(take=takes[:1], put=put, emit=[Emission("{}", (0,))], wait=self.wait(path[0], who, 1))
        last = Attempt(
            wait=self.wait(path[0], who, 2),
            emit=[Emission("no", self.random.choice(((0,), (0, 1), ())), unless_same=self.random.random() < 0.8)],
        )
        return self.random.choice(([first, second, last], [first], [first, msgspec.structs.replace(second, take=())]))

    def release(self) -> list[Attempt]:
        path, who = self.random.choice(PATHS), self.random.choice(WHO)
        takes = [self.give_back(path, item) for item in ITEMS]
        unwait = [(path[0], who)] if self.random.random() < 0.3 else []
        return [Attempt(take=takes, delete=[RecordKey("workload", path[0], who)], unwait=unwait, emit=[Emission("{}")])]

    def quota(self) -> list[Attempt]:
        return [Attempt(limits=[self.limit() for _ in range(self.random.randint(1, 3))])]

    # --- and everything else at once

    def chaos(self) -> list[Attempt]:
        return [self.wild_attempt(number) for number in range(self.random.randint(1, 3))]

    def wild_attempt(self, number: int) -> Attempt:
        random = self.random
        return Attempt(
            take=self.few(self.wild_take, 0.7),
            limits=self.few(self.limit, 0.3),
            idle=self.few(lambda: Place(random.choice(TENANTS), random.choice(ITEMS)), 0.2),
            probe=random.random() < 0.2,
            put=self.few(lambda: (self.record_key(), random.choice((b"", b"\x00\xff 1", b"{}"))), 0.4),
            delete=self.few(self.record_key, 0.2),
            index=self.few(lambda: IndexChange(self.index_key(), random.choice("xyü"), random.random() < 0.7), 0.5),
            timers=self.few(lambda: Timer(random.choice("xyü"), random.choice((None, 0, random.getrandbits(45)))), 0.5),
            wait=self.wait(random.choice(("c1", "c2")), random.choice(WHO), number) if random.random() < 0.6 else None,
            unwait=self.few(lambda: (random.choice(("c1", "c2")), random.choice(WHO)), 0.2),
            forget=self.few(self.forgotten, 0.3),
            wake=self.few(lambda: Wake(self.place(), random.choice(("quota", "plan"))), 0.3),
            emit=self.few(lambda: Emission("ü", self.earlier(number), random.random() < 0.5), 0.5),
        )

    def wild_take(self) -> Take:
        random = self.random
        path, item = random.choice(PATHS), random.choice(ITEMS)
        kind = random.random()
        if kind < 0.03:
            return Take(path, item, random.choice((-1, QUANTITY_MAX, QUANTITY_MAX // 2)), random.choice((0, 0, -1, 5)))
        return self.give_back(path, item) if kind < 0.3 else self.take(path, item, random.randint(0, 4))

    # --- small parts

    def few(self, make: Callable[[], Element], chance: float) -> list[Element]:
        return [make() for _ in range(self.random.randint(1, 2))] if self.random.random() < chance else []

    def take(self, path: tuple[str, ...], item: str, used: int) -> Take:
        return Take(path, item, used, self.random.choice((0, 0, used)), fact=self.random.random() < 0.2)

    def give_back(self, path: tuple[str, ...], item: str) -> Take:
        """At most what every level has, and has as reserved, after everything else that this batch gives back."""
        accounts = [self.before.accounts.get((tenant, item)) for tenant in path]
        unused = [
            (each.used if each else 0) - self.freed[tenant, item] for each, tenant in zip(accounts, path, strict=True)
        ]
        reserved = min(each.reserved if each else 0 for each in accounts)
        quantity = self.random.randint(0, max(min(unused), 0))
        self.freed.update({(tenant, item): quantity for tenant in path})
        # What is reserved goes first, so that no more than what is used is ever reserved.
        return Take(path, item, -quantity, -min(quantity, reserved) if self.random.random() < 0.9 else 0)

    def limit(self) -> Limit:
        random = self.random
        value = random.choice((None, *range(9), QUANTITY_MAX) if random.random() < 0.3 else range(9))
        return Limit(random.choice(TENANTS), random.choice(ITEMS), value, random.choice((None, 0, 0, 0, 2, 1)))

    def record_key(self) -> RecordKey:
        kind, tenant = self.random.choice((("workload", "c1"), ("workload", "c2"), ("plan", "")))
        return RecordKey(kind, tenant, self.random.choice(WHO))

    def index_key(self) -> IndexKey:
        return IndexKey("children", self.random.choice(("c1", "m:1")), self.random.choice(("", "a:b", "a/b")))

    def place(self) -> Place:
        return Place(self.random.choice(TENANTS), self.random.choice((*ITEMS, "*")))

    def earlier(self, number: int) -> tuple[int, ...]:
        return tuple(each for each in range(number) if self.random.random() < 0.7)

    def wait(self, tenant: str, who: str, number: int) -> Wait:
        static = self.random.choice(("", "", "no\x01such", "no\x01such\nin detail", "no\x01such\notherwise"))
        indexed = self.random.random() < 0.9
        return Wait(tenant, who, static, tuple(self.few(self.place, 0.2)), self.earlier(number), indexed=indexed)

    def expectation(self) -> Expectation:
        if self.batch and self.random.random() < 0.6:
            return self.expectation_of_batch()
        key = self.record_key()
        record = self.before.records.get(key)
        return Expectation(key, (0 if record is None else record.version) + (self.random.random() < 0.05))

    def expectation_of_batch(self) -> Expectation:
        number = self.random.randint(1, len(self.batch))
        first = self.batch[number - 1].attempts[0]
        written = [key for key, _ in first.put] + list(first.delete)
        return Expectation(self.random.choice(written) if written else self.record_key(), -number)

    def balance(self) -> Balance:
        key = (self.random.choice(TENANTS), self.random.choice(ITEMS))
        account = self.before.accounts.get(key)
        off = self.random.choice((0, 0, 1))
        return Balance(Place(*key), account.used + off if account else off, account.reserved if account else 0)

    def forgotten(self) -> tuple[Place, str]:
        entries = [
            (Place(tenant, waiter.member.split("\0")[0]), waiter.member)
            for tenant, queue in self.before.queues.items()
            for waiter in queue
        ]
        return self.random.choice(entries) if entries else (Place("d", "seats"), "seats\x000\0d\0w")


def make_batch(seeds_of_batch: Sequence[int], before: Snapshot) -> list[Transaction]:
    freed: Counter[tuple[str, str]] = Counter()
    batch: list[Transaction] = []
    for seed in seeds_of_batch:
        batch.append(Maker(seed, batch, before, freed).transaction())
    return batch


async def ask(
    ledger: ReferenceLedger | RedisLedger, batch: Sequence[Transaction], now_ms: int, shard: int = SHARD
) -> list[Outcome] | tuple[str, int | None]:
    try:
        return await ledger.commit(shard, batch, now_ms)
    except LedgerError as error:
        return "refused", error.transaction  # sums beyond 2^53 are not printed alike


async def compare(redis: RedisLedger, client: Client, program: Sequence[Sequence[int]]) -> None:
    await client.of_each_master("FLUSHALL")
    twin = ReferenceLedger(SHARDS)
    for step, seeds_of_batch in enumerate(program):
        batch = make_batch(seeds_of_batch, twin.snapshot(SHARD))
        assert await ask(redis, batch, NOW_MS + step) == await ask(twin, batch, NOW_MS + step)
        kept, said = await redis.snapshot(SHARD), twin.snapshot(SHARD)
        for part in kept.__struct_fields__:
            assert getattr(kept, part) == getattr(said, part), part


@pytest.fixture(scope="session")
async def standalone(redis_url: str) -> AsyncIterator[Client]:
    client = Client.connect(redis_url)
    yield client
    await client.close()


@pytest.fixture(scope="session")
async def cluster(redis_cluster_url: str) -> AsyncIterator[Client]:
    client = Client.connect(redis_cluster_url, cluster=True)
    yield client
    await client.close()


@given(program=programs)
async def test_redis_does_what_the_reference_says(standalone: Client, program: list[list[int]]) -> None:
    await compare(RedisLedger(standalone, SHARDS), standalone, program)


@settings(max_examples=max(1, settings().max_examples // 5))
@given(program=programs)
async def test_redis_cluster_does_what_the_reference_says(cluster: Client, program: list[list[int]]) -> None:
    await compare(RedisLedger(cluster, SHARDS), cluster, program)


# --- what must not depend on how calls are cut, or on who else calls


@given(
    program=st.lists(batches, max_size=4),
    seeds_of_batch=st.lists(seeds, min_size=2, max_size=30),
    size=st.integers(1, 7),
)
async def test_how_a_batch_is_cut_changes_no_decision(
    standalone: Client, program: list[list[int]], seeds_of_batch: list[int], size: int
) -> None:
    """The same state in two shards; then the same batch, in one call and in several."""
    await standalone.of_each_master("FLUSHALL")
    ledger = RedisLedger(standalone, SHARDS)
    whole, cut = 0, 1
    for seeds_before in program:
        batch = make_batch(seeds_before, await ledger.snapshot(whole))
        for shard in (whole, cut):
            await ask(ledger, batch, NOW_MS, shard)
    batch = make_batch(seeds_of_batch, await ledger.snapshot(whole))
    answer = await ask(ledger, batch, NOW_MS + 1, whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redis_ledger, "TRANSACTIONS_PER_CALL_MAX", size)
        answer_cut = await ask(ledger, batch, NOW_MS + 1, cut)
    if isinstance(answer, list):
        assert decisions(answer_cut) == decisions(answer)
        assert lasting(await ledger.snapshot(cut)) == lasting(await ledger.snapshot(whole))
    else:
        assert answer_cut == answer


def decisions(outcomes: object) -> list[object]:
    assert isinstance(outcomes, list), outcomes
    return [msgspec.structs.replace(outcome, version=0) for outcome in outcomes]


def lasting(snapshot: Snapshot) -> dict[str, object]:
    """What a shard holds, but for the numbers given, and for what stands once per call."""
    dead = snapshot.dead_entries()
    return {
        "records": {key: record.payload for key, record in snapshot.records.items() if key.kind != "job"},
        "accounts": snapshot.accounts,
        "indexes": snapshot.indexes,
        "waiting": snapshot.waiting,
        "waiters": {
            (tenant, waiter)
            for tenant, queue in snapshot.queues.items()
            for waiter in queue
            if (Place(tenant, waiter.member.split("\0")[0]), waiter.member) not in dead
        },
        "timers": {member: due_ms for member, due_ms in snapshot.timers.items() if not member.startswith("job/")},
        "announcements": [
            msgspec.structs.replace(entry, revision=0) for entry in snapshot.outbox if isinstance(entry, Facts | Notice)
        ],
        "positions": snapshot.positions,
        "idempotent": snapshot.idempotent,
    }


@given(
    cap=st.integers(0, 40),
    requests=st.lists(st.tuples(st.sampled_from(PATHS), st.integers(-4, 6)), min_size=1, max_size=60),
    callers=st.integers(2, 5),
)
async def test_no_crowd_of_callers_takes_more_than_a_hard_limit(
    standalone: Client, cap: int, requests: list[tuple[tuple[str, ...], int]], callers: int
) -> None:
    """Every caller takes and gives back by itself; limits and sums hold at the end, and so did they in every answer."""
    await standalone.of_each_master("FLUSHALL")
    ledger = RedisLedger(standalone, SHARDS)
    await ledger.commit(SHARD, [Transaction([Attempt(limits=[Limit("d", "seats", cap, 0)])])], NOW_MS)

    async def call(mine: Sequence[tuple[tuple[str, ...], int]]) -> int:
        held: Counter[tuple[str, ...]] = Counter()
        for path, quantity in mine:
            wanted = max(quantity, -held[path])
            [outcome] = await ledger.commit(SHARD, [Transaction([Attempt(take=[Take(path, "seats", wanted)])])], NOW_MS)
            held[path] += wanted if outcome.kind is OutcomeKind.APPLIED else 0
            assert all(denial.used + denial.requested > cap for some in outcome.denials for denial in some)
        return held.total()

    granted = await asyncio.gather(*(call(requests[number::callers]) for number in range(callers)))
    accounts = await ledger.accounts({SHARD: TENANTS})
    used = {tenant: accounts[tenant].get("seats", Account()).used for tenant in TENANTS}
    assert used["d"] == sum(granted) <= cap
    assert used["m1"] == used["c1"] + used["c2"]
    assert used["d"] == used["m1"] + used["m2"]
