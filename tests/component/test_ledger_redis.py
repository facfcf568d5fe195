"""The ledger on real Redis and Redis Cluster: what only servers do, and what the reference cannot say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis as redis_library
from redis import exceptions
from redis.crc import key_slot

from service.ledger import keys
from service.ledger.base import Ledger
from service.ledger.client import Client, translated
from service.ledger.errors import LedgerError, LedgerUnavailable
from service.ledger.outbox import Facts
from service.ledger.redis_ledger import READ_MAX, TRANSACTIONS_PER_CALL_MAX, RedisLedger
from service.ledger.reference import ReferenceLedger
from service.ledger.transaction import (
    Account,
    Attempt,
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
)
from service.local.redis import LocalRedis

NOW_MS = 1_700_000_000_000
PATH = ("customer", "partner", "distributor")
SHARDS = 4


def taking(used: int, **options: object) -> Transaction:
    put = [(RecordKey("workload", "customer", "w1"), b"x")]
    attempt = Attempt(take=[Take(PATH, "seats", used)], put=put, emit=[Emission("{}")])
    return Transaction([attempt], **options)  # type: ignore[arg-type]  # options are named where they are used


@pytest.fixture
async def client(redis_fresh: str) -> AsyncIterator[Client]:
    client = Client.connect(redis_fresh)
    yield client
    await client.close()


@pytest.fixture
async def cluster_client(redis_cluster_fresh: str) -> AsyncIterator[Client]:
    client = Client.connect(redis_cluster_fresh, cluster=True)
    yield client
    await client.close()


@pytest.fixture
def ledger(client: Client) -> RedisLedger:
    return RedisLedger(client, SHARDS)


@pytest.fixture(params=["reference", "redis", "cluster"])
def any_ledger(request: pytest.FixtureRequest) -> Ledger:
    if request.param == "reference":
        return ReferenceLedger(SHARDS)
    return RedisLedger(request.getfixturevalue("client" if request.param == "redis" else "cluster_client"), SHARDS)


@pytest.fixture
def own_redis(tmp_path: Path) -> LocalRedis:
    return LocalRedis(tmp_path / "redis")


async def test_the_first_calls_to_a_cluster_may_come_all_at_once(redis_cluster_fresh: str) -> None:
    for _ in range(5):
        client = Client.connect(redis_cluster_fresh, cluster=True)
        ledger = RedisLedger(client, 64)
        assert await asyncio.gather(*(ledger.timers(shard, "") for shard in range(64))) == [[]] * 64
        await client.close()


# --- reading: the same answers from every ledger


@pytest.mark.parametrize("clustered", [False, True])
async def test_more_calls_at_once_than_connections_wait_for_their_turn(
    clustered: bool, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("redis_cluster_fresh" if clustered else "redis_fresh")
    shards = 100
    client = Client.connect(url, cluster=clustered, connections_max=2)
    ledger = RedisLedger(client, shards)
    outcomes = await asyncio.gather(*(ledger.commit(shard, [taking(1)], NOW_MS) for shard in range(shards)))
    assert {outcome.kind for (outcome,) in outcomes} == {OutcomeKind.APPLIED}
    await client.close()


async def test_records_of_many_shards_and_tenants_are_read_together(any_ledger: Ledger) -> None:
    keys = {
        shard: [RecordKey("workload", f"t:{n % 7}", f"w{n}") for n in range(shard, READ_MAX + 50, SHARDS)]
        for shard in range(SHARDS)
    }
    for shard, wanted in keys.items():
        put = [(key, f"{shard} {key.id}\0".encode()) for key in wanted[:-1]]
        await any_ledger.commit(shard, [Transaction([Attempt(put=put)])], NOW_MS)
    found = await any_ledger.read(keys)
    assert len(found) == sum(map(len, keys.values()))
    for shard, wanted in keys.items():
        assert found[wanted[-1]] is None
        assert [record.payload for key in wanted[:-1] if (record := found[key])] == [
            f"{shard} {key.id}\0".encode() for key in wanted[:-1]
        ]
    assert await any_ledger.read({}) == {}


async def test_accounts_of_a_tenant_without_any_are_empty(any_ledger: Ledger) -> None:
    await any_ledger.commit(1, [taking(2), Transaction([Attempt(limits=[Limit("partner", "bytes", 5, None)])])], NOW_MS)
    assert await any_ledger.accounts({1: ["partner", "nobody"], 2: ["customer"]}) == {
        "partner": {"seats": Account(used=2), "bytes": Account(value=5)},
        "nobody": {},
        "customer": {},
    }


async def test_a_queue_is_read_page_by_page(any_ledger: Ledger) -> None:
    def wait(who: str, item: str) -> Transaction:
        return Transaction([Attempt(wait=Wait("customer", who, "", (Place("partner", item), Place("customer", "*"))))])

    for step, who in enumerate(("w2", "w1", "w3")):
        await any_ledger.commit(0, [wait(who, "seats"), wait(f"other-{who}", "seats-more")], NOW_MS + step)
    pages, after = [], ""
    while page := await any_ledger.waiters(0, "partner", "seats", after, 2):
        pages.append([(waiter.who, waiter.since_ms) for waiter in page])
        after = page[-1].member
    assert pages == [[("w2", NOW_MS), ("w1", NOW_MS + 1)], [("w3", NOW_MS + 2)]]
    assert sorted(await any_ledger.waiting(0, "customer", ["w1", "none"])) == ["w1"]
    assert len(await any_ledger.waiting(0, "customer")) == 6
    assert await any_ledger.waiting(0, "customer", []) == {}


async def test_a_walk_meets_every_record_and_member(any_ledger: Ledger) -> None:
    names = {f"n{number}" for number in range(700)}
    index = IndexKey("workloads", "customer", "plan:1")
    attempt = Attempt(
        put=[(RecordKey("workload", "customer", name), b"") for name in names],
        index=[IndexChange(index, name, present=True) for name in names],
    )
    await any_ledger.commit(0, [Transaction([attempt])], NOW_MS)
    cursor, found = await any_ledger.scan(0, "workload", "customer", 0, 50)
    records = set(found)
    while cursor:
        cursor, found = await any_ledger.scan(0, "workload", "customer", cursor, 50)
        records |= set(found)
    cursor, some = await any_ledger.scan_members(0, index, 0, 50)
    members = set(some)
    while cursor:
        cursor, some = await any_ledger.scan_members(0, index, cursor, 50)
        members |= set(some)
    assert records == members == set(await any_ledger.members(0, index)) == names
    assert await any_ledger.count(0, "workload", "customer") == len(names)
    assert await any_ledger.index_sizes({0: [index]}) == {index: len(names)}


async def test_timers_come_due_in_their_order(any_ledger: Ledger) -> None:
    timers = [Timer("job/b", NOW_MS + 2), Timer("job/a", NOW_MS + 2), Timer("other", NOW_MS), Timer("late", 2**53 - 1)]
    await any_ledger.commit(2, [Transaction([Attempt(timers=timers)])], NOW_MS)
    assert await any_ledger.due(range(SHARDS), NOW_MS + 2, 2) == {2: [("other", NOW_MS), ("job/a", NOW_MS + 2)]}
    assert await any_ledger.due(range(SHARDS), NOW_MS - 1, 2) == {}
    assert await any_ledger.timers(2, "job/") == [("job/a", NOW_MS + 2), ("job/b", NOW_MS + 2)]
    assert await any_ledger.timers(2, "late") == [("late", 2**53 - 1)]


async def test_positions_are_the_newest_of_all_shards(any_ledger: Ledger) -> None:
    for shard, position in ((0, 5), (1, 2**53 - 1), (2, 7)):
        await any_ledger.commit(shard, [taking(1, source=f"events/{shard % 2}", position=position)], NOW_MS)
    assert await any_ledger.positions() == {"events/0": 7, "events/1": 2**53 - 1}
    assert await any_ledger.sequence(3) == 0
    assert await any_ledger.sequence(0) > 0


async def test_names_and_places_are_given_once(any_ledger: Ledger) -> None:
    assert await any_ledger.place({"a": 1, "b": 0}) == {"a": 1, "b": 0}
    assert await any_ledger.place({"a": 0, "c": 3}) == {"a": 1, "c": 3}
    assert await any_ledger.place({"a": 0}, instead_of=2) == {"a": 1}
    assert await any_ledger.place({"a": 0}, instead_of=1) == {"a": 0}
    assert await any_ledger.locate(["a", "b", "c", "d"]) == {"a": 0, "b": 0, "c": 3}
    assert await any_ledger.claim_name("Acme", "a") == "a"
    assert await any_ledger.claim_name("Acme", "b") == "a"
    assert await any_ledger.claim_name("Acme", "b", instead_of="a") == "b"
    for tenant in ("b", "a", "b"):
        await any_ledger.add_root_child(tenant)
    assert await any_ledger.root_children() == ["a", "b"]


async def test_the_outbox_is_trimmed_behind_the_fence_of_a_lease(any_ledger: Ledger) -> None:
    for shard in (0, 3):
        await any_ledger.commit(shard, [Transaction([Attempt(emit=[Emission("a"), Emission("ü")])])], NOW_MS)
    assert await any_ledger.lease("relay", range(SHARDS), "me", 60_000) == set(range(SHARDS))
    assert await any_ledger.lease("relay", [0, 1], "other", 60_000) == set()
    assert await any_ledger.lease("sweep", [0, 1], "other", 60_000) == {0, 1}
    oldest = await any_ledger.outbox([0, 1], 1)
    assert await any_ledger.trim(oldest, "relay", "other") == set()
    assert await any_ledger.trim(oldest, "relay", "me") == {0}
    assert await any_ledger.trim(oldest, "relay", "me") == set(), "asked again, as what was meant is gone already"
    assert await any_ledger.outbox_depths() == {0: 1, 3: 2}
    assert await any_ledger.outbox(range(SHARDS), 1) == {0: [Facts(2, "ü", ())], 3: [Facts(1, "a", ())]}
    await any_ledger.release("relay", [0, 1], "other")
    await any_ledger.release("relay", [1, 2], "me")
    assert await any_ledger.lease("relay", range(SHARDS), "other", 60_000) == {1, 2}


async def test_a_long_batch_is_cut_and_goes_on_building_on_itself(any_ledger: Ledger) -> None:
    key = RecordKey("workload", "customer", "w1")

    def step(number: int) -> Transaction:
        expect = [Expectation(key, 1 - number)]
        return taking(1, expect=expect, source="events", position=number)

    count = TRANSACTIONS_PER_CALL_MAX + 20
    outcomes = await any_ledger.commit(0, [step(number) for number in range(1, count + 1)], NOW_MS)
    assert {outcome.kind for outcome in outcomes} == {OutcomeKind.APPLIED}
    record = (await any_ledger.read({0: [key]}))[key]
    assert record is not None
    assert record.version == outcomes[-1].version
    assert (await any_ledger.accounts({0: ["partner"]}))["partner"]["seats"].used == count


async def test_a_source_that_stalls_in_one_call_stays_stalled_in_the_next(any_ledger: Ledger) -> None:
    gone = [Expectation(RecordKey("workload", "customer", "none"), 7)]
    batch = [taking(1, expect=gone, source="events", position=1)]
    batch += [taking(1, source="events", position=number) for number in range(2, TRANSACTIONS_PER_CALL_MAX + 3)]
    batch += [taking(1, source="others", position=1)]
    outcomes = await any_ledger.commit(0, batch, NOW_MS)
    assert [outcome.kind for outcome in outcomes] == [
        OutcomeKind.CONFLICT,
        *[OutcomeKind.STALLED] * (TRANSACTIONS_PER_CALL_MAX + 1),
        OutcomeKind.APPLIED,
    ]


async def test_one_transaction_may_be_larger_than_any_list_that_lua_unpacks(any_ledger: Ledger) -> None:
    count = 9_000
    names = [f"w{number}" for number in range(count)]
    index = IndexKey("workloads", "customer", "")
    attempt = Attempt(
        put=[(RecordKey("workload", "customer", name), b"x") for name in names],
        index=[IndexChange(index, name, present=True) for name in names],
        timers=[Timer(name, NOW_MS) for name in names],
        emit=[Emission(name) for name in names],
        take=[Take((name, *PATH), "seats", 1) for name in names],
    )
    [outcome] = await any_ledger.commit(0, [Transaction([attempt])], NOW_MS)
    assert outcome == Outcome(OutcomeKind.APPLIED, 0, (), 1)
    assert await any_ledger.count(0, "workload", "customer") == count
    assert await any_ledger.index_sizes({0: [index]}) == {index: count}
    assert len(await any_ledger.timers(0, "w")) == count
    assert await any_ledger.outbox_depths() == {0: count + count + len(PATH)}
    assert (await any_ledger.accounts({0: ["partner"]}))["partner"]["seats"].used == count
    delete = Attempt(
        delete=[RecordKey("workload", "customer", name) for name in names],
        index=[IndexChange(index, name, present=False) for name in names],
        timers=[Timer(name, None) for name in names],
    )
    await any_ledger.commit(0, [Transaction([delete])], NOW_MS)
    assert await any_ledger.count(0, "workload", "customer") == 0
    assert await any_ledger.timers(0, "") == []


async def test_ids_with_colons_never_meet(any_ledger: Ledger) -> None:
    left, right = IndexKey("plan", "a", "b:c"), IndexKey("plan", "a:b", "c")
    put = [(RecordKey("plan", "a", "x"), b"a"), (RecordKey("plan", "a:b", "x"), b"ab")]
    attempt = Attempt(put=put, index=[IndexChange(left, "l", present=True), IndexChange(right, "r", present=True)])
    await any_ledger.commit(0, [Transaction([attempt])], NOW_MS)
    assert (await any_ledger.members(0, left), await any_ledger.members(0, right)) == (["l"], ["r"])
    assert await any_ledger.count(0, "plan", "a") == 1


# --- a batch happens whole or not at all


async def test_a_batch_with_a_mistake_changes_nothing_and_names_it(ledger: RedisLedger) -> None:
    await ledger.commit(0, [taking(3)], NOW_MS)
    before = await ledger.snapshot(0)
    with pytest.raises(LedgerError, match=r"transaction 2: used -1 and reserved 0 .* tenant customer") as caught:
        await ledger.commit(0, [taking(1), taking(-5), taking(1)], NOW_MS)
    assert caught.value.transaction == 2
    assert await ledger.snapshot(0) == before


async def test_a_mistake_behind_the_cut_is_named_by_its_place_in_the_batch(ledger: RedisLedger) -> None:
    batch = [taking(0) for _ in range(TRANSACTIONS_PER_CALL_MAX + 3)]
    with pytest.raises(LedgerError) as caught:
        await ledger.commit(0, [*batch, taking(-1)], NOW_MS)
    assert caught.value.transaction == len(batch) + 1


async def test_a_full_redis_changes_nothing_and_says_that_it_is_full(client: Client, ledger: RedisLedger) -> None:
    await ledger.commit(0, [taking(3)], NOW_MS)
    before = await ledger.snapshot(0)
    await client.call("CONFIG SET", "maxmemory", 1)
    try:
        for batch in ([taking(1)], [taking(-1)], [Transaction([Attempt()], source="events", position=1)]):
            with pytest.raises(LedgerUnavailable) as caught:
                await ledger.commit(0, batch, NOW_MS)
            assert caught.value.reason == "full"
    finally:
        await client.call("CONFIG SET", "maxmemory", 0)
    assert await ledger.snapshot(0) == before
    assert (await ledger.commit(0, [taking(1)], NOW_MS))[0].kind is OutcomeKind.APPLIED


@pytest.fixture(params=["client", "cluster_client"])
def any_client(request: pytest.FixtureRequest) -> Client:
    client: Client = request.getfixturevalue(request.param)
    return client


async def test_a_redis_that_has_forgotten_its_scripts_learns_them_again(any_client: Client) -> None:
    ledger = RedisLedger(any_client, SHARDS)
    await ledger.commit(0, [taking(1)], NOW_MS)
    await any_client.of_each_master("SCRIPT FLUSH")
    assert (await ledger.commit(0, [taking(1)], NOW_MS))[0].kind is OutcomeKind.APPLIED
    assert await ledger.lease("relay", range(SHARDS), "me", 1000) == set(range(SHARDS))


async def test_a_shard_that_moves_to_another_master_is_found_there(
    cluster_client: Client, redis_cluster_fresh: str
) -> None:
    ledger = RedisLedger(cluster_client, SHARDS)
    await ledger.commit(1, [taking(1)], NOW_MS)
    with redis_library.RedisCluster.from_url(redis_cluster_fresh) as admin:
        slot = key_slot(b"{1}")
        source = admin.nodes_manager.get_node_from_slot(slot)
        target = next(node for node in admin.get_primaries() if node.name != source.name)
        move_slot(admin, slot, source, target)
        try:
            [outcome] = await ledger.commit(1, [taking(1)], NOW_MS)
            assert outcome.kind is OutcomeKind.APPLIED
            assert (await ledger.accounts({1: ["partner"]}))["partner"]["seats"].used == 2
            assert await ledger.lease("relay", range(SHARDS), "me", 1000) == set(range(SHARDS))
        finally:
            move_slot(admin, slot, target, source)


def move_slot(admin: redis_library.RedisCluster, slot: int, source: object, target: object) -> None:
    def ask(node: object, *words: object) -> object:
        return admin.execute_command(*words, target_nodes=node)  # type: ignore[no-untyped-call]  # it has no types

    source_id, target_id = (str(ask(node, "CLUSTER MYID").decode()) for node in (source, target))  # type: ignore[attr-defined]  # bytes
    ask(target, "CLUSTER SETSLOT", slot, "IMPORTING", source_id)
    ask(source, "CLUSTER SETSLOT", slot, "MIGRATING", target_id)
    while names := ask(source, "CLUSTER GETKEYSINSLOT", slot, 100):
        address = (target.host, target.port)  # type: ignore[attr-defined]  # a node of the library
        ask(source, "MIGRATE", *address, "", 0, 5000, "KEYS", *names)  # type: ignore[misc]  # a list of names
    for node in (target, source):
        ask(node, "CLUSTER SETSLOT", slot, "NODE", target_id)


# --- what the servers cannot do


async def test_a_ledger_that_is_not_there_is_unavailable(unused_tcp_port: int) -> None:
    client = Client.connect(f"redis://127.0.0.1:{unused_tcp_port}/0", timeout_seconds=1)
    ledger = RedisLedger(client, SHARDS)
    for call in (ledger.commit(0, [taking(1)], NOW_MS), ledger.positions(), ledger.root_children()):
        with pytest.raises(LedgerUnavailable) as caught:
            await call
        assert caught.value.reason == "connection"
    await client.close()


async def test_a_ledger_that_does_not_answer_in_time_is_unavailable(redis_fresh: str, client: Client) -> None:
    impatient = Client.connect(redis_fresh, timeout_seconds=0.2)
    await impatient.call("PING")
    await client.call("CLIENT PAUSE", 60_000, "WRITE")
    try:
        with pytest.raises(LedgerUnavailable) as caught:
            await RedisLedger(impatient, SHARDS).commit(0, [taking(1)], NOW_MS)
    finally:
        await client.call("CLIENT UNPAUSE")
        await impatient.close()
    assert caught.value.reason == "timeout"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (exceptions.ReadOnlyError("You can't write against a read only replica."), "read_only"),
        (exceptions.ResponseError("READONLY You can't write against a read only replica. script: abc"), "read_only"),
        (exceptions.BusyLoadingError("Redis is loading the dataset in memory"), "loading"),
        (exceptions.MasterDownError("Link with MASTER is down"), "master_down"),
        (exceptions.ClusterDownError("The cluster is down"), "cluster_down"),
        (exceptions.SlotNotCoveredError("Slot 1 is not covered"), "cluster_down"),
        (exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), "full"),
        (exceptions.ResponseError("Error running script: @user_script: 9: -OOM command not allowed"), "full"),
        (exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots"), "disk"),
        (exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."), "no_replicas"),
        (exceptions.ResponseError("BUSY Redis is busy running a script."), "busy"),
        (exceptions.AuthenticationError("invalid username-password pair"), "authentication"),
        (exceptions.TimeoutError("Timeout reading"), "timeout"),
        (ConnectionResetError("gone"), "connection"),
    ],
)
def test_what_keeps_a_server_from_answering_has_a_word(error: Exception, reason: str) -> None:
    found = translated(error)
    assert isinstance(found, LedgerUnavailable)
    assert found.reason == reason


def test_what_a_server_refuses_is_a_mistake() -> None:
    assert isinstance(translated(exceptions.ResponseError("WRONGTYPE Operation against a key")), LedgerError)
    assert isinstance(translated(exceptions.NoPermissionError("this user has no permissions")), LedgerError)


async def test_calls_that_are_given_up_leave_no_answer_behind_for_others(client: Client, ledger: RedisLedger) -> None:
    """A connection whose reply was not awaited must not hand it to the next caller."""
    for number in range(20):
        task = asyncio.create_task(ledger.commit(0, [taking(1)], NOW_MS))
        for _ in range(number % 5):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await client.call("ECHO", f"{number}") == f"{number}".encode()


# --- from one start to the next


async def test_the_number_of_shards_is_fixed_at_the_first_start(client: Client) -> None:
    await RedisLedger(client, 8).install()
    await RedisLedger(client, 8).install()
    with pytest.raises(LedgerError, match="installed with 8 shards and the settings say 4"):
        await RedisLedger(client, 4).install()


async def test_another_kafka_is_refused(ledger: RedisLedger) -> None:
    await ledger.remember_kafka_cluster("one")
    await ledger.remember_kafka_cluster("one")
    with pytest.raises(LedgerError, match="Kafka cluster one, and this is other"):
        await ledger.remember_kafka_cluster("other")


async def test_what_was_answered_survives_a_power_cut_and_no_number_is_given_twice(own_redis: LocalRedis) -> None:
    own_redis.start()
    try:
        client = Client.connect(own_redis.url)
        ledger = RedisLedger(client, SHARDS)
        assert await ledger.adopt_incarnation() == set()
        await ledger.commit(0, [taking(1, source="events", position=3)], NOW_MS)
        before, runs = await ledger.snapshot(0), await ledger.incarnations()
        await client.close()
        own_redis.kill()
        own_redis.start()
        client = Client.connect(own_redis.url)
        ledger = RedisLedger(client, SHARDS)
        assert await ledger.snapshot(0) == before
        assert set((await ledger.incarnations()).values()).isdisjoint(runs.values())
        assert await ledger.adopt_incarnation() == set(range(SHARDS))
        assert await ledger.adopt_incarnation() == set()
        assert await ledger.sequence(0) > before.sequence
        again, new = await ledger.commit(
            0, [taking(1, source="events", position=3), taking(1, source="events", position=4)], NOW_MS
        )
        assert again.kind is OutcomeKind.DUPLICATE
        assert new.version > before.sequence
        await client.close()
    finally:
        own_redis.kill()


async def test_a_number_is_not_given_twice_where_redis_loses_the_leap_too(client: Client, ledger: RedisLedger) -> None:
    """Redis is killed, adopted, and killed again before that is on disk: twice it comes back as it was."""
    given: set[int] = set()
    for run in ("none yet", "first", "second"):
        if run != "none yet":
            await client.call("HSET", keys.meta(0), "incarnation", run, "sequence", 0)
        await ledger.adopt_incarnation()
        (outcome,) = await ledger.commit(0, [taking(1)], NOW_MS)
        assert outcome.version not in given and outcome.version > max(given, default=0)
        given.add(outcome.version)


async def test_numbers_rise_even_where_the_clock_was_set_back(client: Client, ledger: RedisLedger) -> None:
    ahead = 2**52
    await client.call("HSET", keys.meta(0), "incarnation", "before", "sequence", ahead)
    assert await ledger.adopt_incarnation() == {0}
    assert await ledger.sequence(0) > ahead + 10**8


async def test_every_shard_of_a_cluster_knows_its_master(cluster_client: Client) -> None:
    ledger = RedisLedger(cluster_client, 64)
    runs = await ledger.incarnations()
    assert list(runs) == list(range(64))
    assert len(set(runs.values())) == 3
    assert await ledger.adopt_incarnation() == set()
    assert await ledger.adopt_incarnation() == set()


async def test_settings_that_put_the_ledger_at_risk_are_named(client: Client, ledger: RedisLedger) -> None:
    assert await ledger.settings_warnings() == []
    for name, value in (
        ("appendfsync", "everysec"),
        ("maxmemory-policy", "allkeys-lru"),
        ("hash-max-listpack-value", 64),
    ):
        old = await client.call("CONFIG GET", name)
        await client.call("CONFIG SET", name, value)
        try:
            [warning] = await ledger.settings_warnings()
        finally:
            await client.call("CONFIG SET", name, *old.values())
        assert f"{name} {value}" in warning


async def test_settings_that_are_not_shown_are_said_to_be_unknown(redis_fresh: str, client: Client) -> None:
    await client.call("ACL SETUSER", "tenant", "on", ">secret", "~*", "+@all", "-config")
    managed = Client.connect(redis_fresh.replace("redis://", "redis://tenant:secret@"))
    try:
        warnings = await RedisLedger(managed, SHARDS).settings_warnings()
    finally:
        await managed.close()
        await client.call("ACL DELUSER", "tenant")
    assert [warning.split(":")[0] for warning in warnings] == [
        f"Redis does not show its setting {name}" for name in ("appendonly", "appendfsync", "maxmemory-policy")
    ]
