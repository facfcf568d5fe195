"""The ledger in Redis or Redis Cluster: encoding, cutting, asking, reading."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final

import msgspec

from service.ledger import durability, installation, keys, queue
from service.ledger.client import Client, Script, ScriptCall
from service.ledger.encode import Call
from service.ledger.errors import LedgerError
from service.ledger.outbox import Entry, parse, parse_denials
from service.ledger.snapshot import Snapshot
from service.ledger.transaction import (
    Account,
    IndexKey,
    Outcome,
    OutcomeKind,
    Record,
    RecordKey,
    Transaction,
    Waiter,
    Waiting,
)
from service.ledger.validity import refuse_invalid

# One call holds Redis for about 10 ms at most: see README.md for the measurement.
TRANSACTIONS_PER_CALL_MAX = 500
WORK_PER_CALL_MAX = 40_000  # see Call.work
READ_MAX = 1000  # records of one call
WHOLE_MAX = 100  # hashes of one call, each with a bounded number of records

_pack = msgspec.msgpack.Encoder().encode
_COMMIT = Script("commit")
_READ = Script("read")
_WHOLE = Script("whole")
_CLAIM = Script("claim")
_LEASE = Script("lease")
_RELEASE = Script("release")
_TRIM = Script("trim")

_REFUSED = re.compile(r"LEDGER\|(\d+)\|([^|]*)\|")
_DUPLICATE: Final = -2
_WITH_DETAILS = {-1: OutcomeKind.DENIED, _DUPLICATE: OutcomeKind.DUPLICATE, -6: OutcomeKind.REFUSED}
_WITHOUT_DETAILS = {
    _DUPLICATE: Outcome(OutcomeKind.DUPLICATE),
    -3: Outcome(OutcomeKind.CONFLICT),
    -4: Outcome(OutcomeKind.STALLED),
    -5: Outcome(OutcomeKind.OVERFLOW),
}


class RedisLedger:
    """A ``Ledger`` in Redis. ``almost_reached_percent`` is where the first notice of a quota is raised.

    Call ``install`` before anything else, and ``adopt_incarnation`` before reading of streams begins.
    """

    def __init__(self, client: Client, shards: int, *, almost_reached_percent: int = 80) -> None:
        self._client = client
        self._shards = shards
        self._percent = almost_reached_percent

    @property
    def shards(self) -> int:
        return self._shards

    async def close(self) -> None:
        """Let go of every connection."""
        await self._client.close()

    # --- the one way to write

    async def commit(self, shard: int, transactions: Sequence[Transaction], now_ms: int) -> list[Outcome]:
        refuse_invalid(transactions)
        batch = _Batch(transactions)
        while batch.is_unfinished:
            call = batch.next_call(shard)
            encoded = call.encode(now_ms, self._percent, batch.stalled)
            try:
                answer = await self._client.run(_COMMIT, encoded.keys, encoded.arguments)
            except LedgerError as error:
                raise batch.blamed(error) from error
            batch.take_in(call.count, answer)
        return batch.outcomes

    # --- reading

    async def read(self, keys_by_shard: Mapping[int, Sequence[RecordKey]]) -> dict[RecordKey, Record | None]:
        calls: list[ScriptCall] = []
        asked: list[list[RecordKey]] = []
        for shard, wanted in keys_by_shard.items():
            for first in range(0, len(wanted), READ_MAX):
                some = wanted[first : first + READ_MAX]
                groups: dict[tuple[str, str], list[RecordKey]] = {}
                for key in some:
                    groups.setdefault((key[0], key[1]), []).append(key)
                fields = _pack([[key[2] for key in group] for group in groups.values()])
                calls.append(([keys.records(shard, *where) for where in groups], [fields]))
                asked += groups.values()
        hashes = chain.from_iterable(await self._client.run_together(_READ, calls))
        return {
            key: None if value is None else _record(value)
            for group, values in zip(asked, hashes, strict=True)
            for key, value in zip(group, values, strict=True)
        }

    async def accounts(self, tenants: Mapping[int, Sequence[str]]) -> dict[str, dict[str, Account]]:
        wanted = [(shard, tenant) for shard, some in tenants.items() for tenant in some]
        replies = await self._client.together([("HGETALL", keys.accounts(*each)) for each in wanted])
        return {
            tenant: {item.decode(): _account(value) for item, value in reply.items()}
            for (_, tenant), reply in zip(wanted, replies, strict=True)
        }

    async def waiting(self, shard: int, tenant: str, who: Sequence[str] | None = None) -> dict[str, Waiting]:
        key = keys.waiting(shard, tenant)
        if who is None:
            everybody = await self._client.call("HGETALL", key)
            return {name.decode(): queue.waiting(value.decode()) for name, value in everybody.items()}
        values = await self._client.call("HMGET", key, *who) if who else []
        found = zip(who, values, strict=True)
        return {name: queue.waiting(value.decode()) for name, value in found if value is not None}

    async def waiters(self, shard: int, tenant: str, item: str, after: str, count: int) -> list[Waiter]:
        start, end = f"({after}" if after else f"[{item}\0", f"({item}\1"
        key = keys.waiters(shard, tenant)
        members = await self._client.call("ZRANGEBYLEX", key, start, end, "LIMIT", 0, count)
        return [queue.waiter(member.decode()) for member in members]

    async def scan(self, shard: int, kind: str, tenant: str, cursor: int, count: int) -> tuple[int, dict[str, Record]]:
        key = keys.records(shard, kind, tenant)
        following, some = await self._client.call("HSCAN", key, cursor, "COUNT", count)
        return int(following), {name.decode(): _record(value) for name, value in some.items()}

    async def whole(
        self, kind: str, tenants: Mapping[int, Sequence[str]], most: int
    ) -> dict[str, dict[str, Record] | None]:
        calls: list[ScriptCall] = []
        asked: list[str] = []
        for shard, some in tenants.items():
            for first in range(0, len(some), WHOLE_MAX):
                part = some[first : first + WHOLE_MAX]
                calls.append(([keys.records(shard, kind, tenant) for tenant in part], [most]))
                asked += part
        hashes = chain.from_iterable(await self._client.run_together(_WHOLE, calls))
        return {
            tenant: None
            if flat is None
            else {name.decode(): _record(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}
            for tenant, flat in zip(asked, hashes, strict=True)
        }

    async def count(self, shard: int, kind: str, tenant: str) -> int:
        return int(await self._client.call("HLEN", keys.records(shard, kind, tenant)))

    async def members(self, shard: int, index: IndexKey) -> list[str]:
        return sorted(member.decode() for member in await self._client.call("SMEMBERS", keys.index(shard, index)))

    async def members_together(self, indexes: Mapping[int, Sequence[IndexKey]]) -> dict[IndexKey, list[str]]:
        wanted = [(shard, index) for shard, some in indexes.items() for index in some]
        replies = await self._client.together([("SMEMBERS", keys.index(*each)) for each in wanted])
        found = zip(wanted, replies, strict=True)
        return {index: sorted(member.decode() for member in reply) for (_, index), reply in found}

    async def scan_members(self, shard: int, index: IndexKey, cursor: int, count: int) -> tuple[int, list[str]]:
        following, some = await self._client.call("SSCAN", keys.index(shard, index), cursor, "COUNT", count)
        return int(following), [member.decode() for member in some]

    async def index_sizes(self, keys_by_shard: Mapping[int, Sequence[IndexKey]]) -> dict[IndexKey, int]:
        wanted = [(shard, key) for shard, some in keys_by_shard.items() for key in some]
        sizes = await self._client.together([("SCARD", keys.index(*each)) for each in wanted])
        return {key: int(size) for (_, key), size in zip(wanted, sizes, strict=True)}

    async def due(self, shards: Sequence[int], now_ms: int, count: int) -> dict[int, list[tuple[str, int]]]:
        limits = ("-inf", now_ms, "WITHSCORES", "LIMIT", 0, count)
        replies = await self._client.together([("ZRANGEBYSCORE", keys.timers(shard), *limits) for shard in shards])
        return {shard: _scored(reply) for shard, reply in zip(shards, replies, strict=True) if reply}

    async def timers(self, shard: int, prefix: str) -> list[tuple[str, int]]:
        everything = _scored(await self._client.call("ZRANGE", keys.timers(shard), 0, -1, "WITHSCORES"))
        return [(member, due_ms) for member, due_ms in everything if member.startswith(prefix)]

    async def sequence(self, shard: int) -> int:
        return int(await self._client.call("HGET", keys.meta(shard), "sequence") or 0)

    async def positions(self) -> dict[str, int]:
        newest: dict[str, int] = {}
        for reply in await self._client.together([("HGETALL", keys.positions(shard)) for shard in range(self._shards)]):
            for source, position in reply.items():
                newest[source.decode()] = max(int(position), newest.get(source.decode(), 0))
        return newest

    # --- the directory

    async def locate(self, tenants: Sequence[str]) -> dict[str, int]:
        replies = await self._client.together([("HGET", keys.directory(tenant), tenant) for tenant in tenants])
        return {tenant: int(shard) for tenant, shard in zip(tenants, replies, strict=True) if shard is not None}

    async def place(self, tenants: Mapping[str, int], instead_of: int | None = None) -> dict[str, int]:
        old = "" if instead_of is None else instead_of
        calls: list[ScriptCall] = [
            ([keys.directory(tenant)], [tenant, shard, old]) for tenant, shard in tenants.items()
        ]
        replies = await self._client.run_together(_CLAIM, calls)
        return {tenant: int(shard) for tenant, shard in zip(tenants, replies, strict=True)}

    async def claim_name(self, name: str, tenant: str, instead_of: str | None = None) -> str:
        standing: bytes = await self._client.run(_CLAIM, [keys.ROOT_NAMES], [name, tenant, instead_of or ""])
        return standing.decode()

    async def root_children(self) -> list[str]:
        return sorted(tenant.decode() for tenant in await self._client.call("SMEMBERS", keys.ROOT_CHILDREN))

    async def add_root_child(self, tenant: str) -> None:
        await self._client.call("SADD", keys.ROOT_CHILDREN, tenant)

    # --- the outbox and the leases

    async def outbox(self, shards: Sequence[int], count: int) -> dict[int, list[Entry]]:
        replies = await self._client.together([("LRANGE", keys.outbox(shard), 0, count - 1) for shard in shards])
        return {
            shard: [parse(raw.decode()) for raw in reply] for shard, reply in zip(shards, replies, strict=True) if reply
        }

    async def trim(self, published: Mapping[int, Sequence[Entry]], lease: str, holder: str) -> set[int]:
        calls: list[ScriptCall] = [
            ([keys.outbox(shard), keys.lease(shard, lease)], [holder, entries[0].revision, len(entries)])
            for shard, entries in published.items()
        ]
        replies = await self._client.run_together(_TRIM, calls)
        return {shard for shard, done in zip(published, replies, strict=True) if done}

    async def outbox_depths(self) -> dict[int, int]:
        depths = await self._client.together([("LLEN", keys.outbox(shard)) for shard in range(self._shards)])
        return {shard: depth for shard, depth in enumerate(depths) if depth}

    async def lease(self, name: str, shards: Sequence[int], holder: str, ttl_ms: int) -> set[int]:
        calls: list[ScriptCall] = [([keys.lease(shard, name)], [holder, ttl_ms]) for shard in shards]
        replies = await self._client.run_together(_LEASE, calls)
        return {shard for shard, held in zip(shards, replies, strict=True) if held}

    async def release(self, name: str, shards: Sequence[int], holder: str) -> None:
        await self._client.run_together(_RELEASE, [([keys.lease(shard, name)], [holder]) for shard in shards])

    # --- what holds from one start to the next

    async def install(self) -> None:
        """Write down how many shards there are, once; ``LedgerError`` where the ledger has another number of them."""
        await installation.settle_shards(self._client, self._shards)

    async def remember_kafka_cluster(self, cluster_id: str) -> None:
        """Write down which Kafka the positions belong to, once; ``LedgerError`` where they belong to another one."""
        await installation.settle_kafka_cluster(self._client, cluster_id)

    async def settings_warnings(self) -> list[str]:
        """What in the settings of the servers puts the ledger at risk, in sentences."""
        return await durability.warnings(self._client)

    async def incarnations(self) -> dict[int, str]:
        """The run of the server that answers for each shard: another one may have lost its last moments."""
        return await durability.incarnations(self._client, self._shards)

    async def adopt_incarnation(self) -> set[int]:
        """Make the present runs known; where that is news, the sequence of the shard leaps to the clock.

        Answers the shards that had another one before: of them, reading has to start again from positions that are
        safely older.
        """
        return await durability.adopt(self._client, self._shards)

    async def snapshot(self, shard: int) -> Snapshot:
        """Everything the shard holds; it walks over all keys, and is not atomic: for tests and repairs."""
        return await _read_everything(self, self._client, shard)


class _Batch:
    """The transactions of one ``commit`` on their way through several calls."""

    def __init__(self, transactions: Sequence[Transaction]) -> None:
        self.outcomes: list[Outcome] = []
        self.stalled: set[str] = set()
        self._transactions = transactions

    @property
    def is_unfinished(self) -> bool:
        return len(self.outcomes) < len(self._transactions)

    def next_call(self, shard: int) -> Call:
        """As many of the following transactions as one call takes; at least one."""
        call = Call(shard, self._transactions, self.outcomes)
        most = min(TRANSACTIONS_PER_CALL_MAX, len(self._transactions) - len(self.outcomes))
        while call.count < most and call.work <= WORK_PER_CALL_MAX:
            call.add()
        return call

    def take_in(self, count: int, answer: tuple[list[int], list[bytes]]) -> None:
        """Keep the outcomes of a call, and which sources the next calls must not go on with."""
        fresh = outcomes_of(answer, count)
        following = self._transactions[len(self.outcomes) :]
        self.outcomes += fresh
        for transaction, outcome in zip(following, fresh, strict=False):
            if not outcome.decided and transaction.source is not None:
                self.stalled.add(transaction.source)

    def blamed(self, error: LedgerError) -> LedgerError:
        """The error of commit.lua, with the number that the transaction has in the whole batch."""
        found = _REFUSED.search(str(error))
        return error if found is None else LedgerError(found.group(2), len(self.outcomes) + int(found.group(1)))


def outcomes_of(answer: tuple[list[int], list[bytes]], count: int) -> list[Outcome]:
    """The answer of commit.lua, read."""
    codes, details = answer
    if len(codes) != count:
        raise LedgerError(f"{count} transactions were asked for, {len(codes)} answered")
    outcomes = [
        Outcome(OutcomeKind.APPLIED, 0, (), code) if code >= 0 else _WITHOUT_DETAILS.get(code, _WITHOUT_DETAILS[-5])
        for code in codes
    ]
    for detail in details:
        number, version, attempt, *denials = detail.decode().split("\0")
        kind = _WITH_DETAILS[codes[int(number) - 1]]
        refusals = tuple(map(parse_denials, denials))
        outcomes[int(number) - 1] = Outcome(kind, int(attempt), refusals, int(version))
    return outcomes


def _record(value: bytes) -> Record:
    version, _, payload = value.partition(b" ")
    return Record(int(version), payload)


def _account(value: bytes) -> Account:
    used, reserved, cap, overage, raised, notices = map(int, value.split())
    return Account(used, reserved, None if cap < 0 else cap, None if overage < 0 else overage, raised, notices)


def _scored(reply: list[bytes]) -> list[tuple[str, int]]:
    return [(member.decode(), int(float(score))) for member, score in zip(reply[::2], reply[1::2], strict=True)]


async def _read_everything(ledger: RedisLedger, client: Client, shard: int) -> Snapshot:
    names = [key async for key in client.keys(f"{{{shard}}}:*")]
    prefix = len(f"{{{shard}}}:")
    records: dict[RecordKey, Record] = {}
    indexes: dict[IndexKey, frozenset[str]] = {}
    accounts: dict[tuple[str, str], Account] = {}
    waiting: dict[tuple[str, str], Waiting] = {}
    queues: dict[str, tuple[Waiter, ...]] = {}
    idempotent: dict[str, Outcome] = {}
    for name in names:
        kind, _, rest = name[prefix:].partition(":")
        if kind == "account":
            found = await ledger.accounts({shard: [rest]})
            accounts.update({(rest, item): account for item, account in found[rest].items()})
        elif kind == "waiting":
            waiting.update({(rest, who): why for who, why in (await ledger.waiting(shard, rest)).items()})
        elif kind == "waiters":
            members = await client.call("ZRANGE", name, 0, -1)
            queues[rest] = tuple(queue.waiter(member.decode()) for member in members)
        elif kind == "idempotent":
            attempt, *denials = (await client.call("GET", name)).decode().split("\0")
            refusals = tuple(map(parse_denials, denials))
            decided = OutcomeKind.DENIED if refusals else OutcomeKind.APPLIED
            idempotent[rest] = Outcome(decided, int(attempt), refusals)
        elif "/" in kind:
            index = IndexKey(*f"{kind}:{rest}".split("/", 2)) if rest else IndexKey(*kind.split("/", 2))
            indexes[index] = frozenset(await ledger.members(shard, index))
        elif kind not in keys.RESERVED_KINDS:
            values: dict[bytes, Any] = await client.call("HGETALL", name)
            records.update({RecordKey(kind, rest, field.decode()): _record(value) for field, value in values.items()})
    outbox = await ledger.outbox([shard], 1_000_000)
    return Snapshot(
        sequence=await ledger.sequence(shard),
        records=records,
        indexes=indexes,
        accounts=accounts,
        waiting=waiting,
        queues=queues,
        timers=dict(await ledger.timers(shard, "")),
        outbox=tuple(outbox.get(shard, ())),
        positions={
            source.decode(): int(position)
            for source, position in (await client.call("HGETALL", keys.positions(shard))).items()
        },
        idempotent=idempotent,
    )
