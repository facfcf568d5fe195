"""Decisions per second in the ledger: by path length, batch and share of changes, waiting for the disk or not.

Good for: comparing batches, path lengths and versions of ``commit.lua`` and its encoder, and the ledger as a whole with
what else one might have done: a script call for every event, and the same decision in PostgreSQL.

Not good for: how many events per second the service handles. The transactions are made before the clock starts, and
nobody reads events, applies rules, renders or publishes: ask ``bench pipeline``. Nor for a ledger across a network: the
servers are on this machine and share its cores with the client.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from bench import postgres, report, servers
from service.ledger import keys
from service.ledger.client import Client
from service.ledger.redis_ledger import RedisLedger
from service.ledger.transaction import (
    Attempt,
    Emission,
    Expectation,
    Limit,
    Outcome,
    OutcomeKind,
    RecordKey,
    Take,
    Transaction,
)

SHARDS = 4
ITEM = "pw_base_workstations"
TENANTS = 100
CALLERS = 64
DECISIONS_MAX = 24_000  # of one figure
CALLS_MIN = 1000  # of one figure, as far as that allows
PG_SECONDS = 3
_PLENTY = 10**15
_RECORD = b"x" * 180  # about what the record of a protected workload has
_FACTS = json.dumps({"type": "apportion.assignment.changed.v1", "data": "x" * 420})  # as long as a real announcement

PATH_LENGTHS = (1, 2, 4)
BATCHES = (1, 10, 100, 500, 2000)
CHANGED_PERCENTS = (0, 50, 100)
FLUSHES = ("no", "always")
BATCHED, SINGLE, CONCURRENT = (
    f"batches to {SHARDS} shards",
    "one call per event",
    f"one call per event, {CALLERS} callers",
)


class Case(NamedTuple):
    """What is asked for: the units of a path of tenants, in batches of which so many percent change anything.

    Several callers with batches have a shard each, as in the service; with single decisions they share one.
    """

    path_length: int
    batch: int
    changed_percent: int
    callers: int = 1

    @property
    def decisions(self) -> int:
        """How many decisions make one figure."""
        return min(DECISIONS_MAX, max(2000, self.batch * CALLS_MIN)) // self.batch * self.batch


class Tree:
    """Tenants that all stand below one direct partner, and transactions of theirs, each of which happens once."""

    def __init__(self, path_length: int) -> None:
        first = path_length * 10_000  # no tenant is in two trees
        above = tuple(str(uuid.UUID(int=first + TENANTS + level)) for level in range(path_length - 1))
        self.paths = [(str(uuid.UUID(int=first + number)), *above) for number in range(TENANTS)]
        self._expect: list[tuple[Expectation, ...]] = []
        self._numbers = itertools.count(1)
        self._positions: dict[str, int] = {}

    async def install(self, ledger: RedisLedger, shard: int) -> None:
        """Write the tenants' records and limits."""
        names = sorted({name for path in self.paths for name in path})
        written = [RecordKey("tenant", name, part) for name in names for part in ("tenant", "items")]
        attempts = [
            Attempt(
                limits=[Limit(name, ITEM, _PLENTY, 0)],
                put=[(key, _RECORD) for key in written if key.tenant == name],
            )
            for name in names
        ]
        outcomes = await ledger.commit(shard, [Transaction([attempt]) for attempt in attempts], 0)
        versions = {name: outcome.version for name, outcome in zip(names, outcomes, strict=True)}
        self._expect = [
            tuple(
                Expectation(RecordKey("tenant", name, part), versions[name])
                for name in path
                for part in ("tenant", "items")
            )
            for path in self.paths
        ]

    def transactions(self, count: int, changed_percent: int, source: str) -> list[Transaction]:
        """Decisions about new workloads, of all tenants in turn; some find that there is nothing to do."""
        made = []
        for number in itertools.islice(self._numbers, count):
            place = number % len(self.paths)
            key = RecordKey("workload", self.paths[place][0], str(uuid.UUID(int=number)))
            position = self._positions[source] = self._positions.get(source, 0) + 1
            changes = number * changed_percent // 100 != (number - 1) * changed_percent // 100
            attempt = Attempt()
            if changes:
                attempt = Attempt(
                    take=[Take(self.paths[place], ITEM, 1)], put=[(key, _RECORD)], emit=[Emission(_FACTS)]
                )
            expect = (Expectation(key, 0), *self._expect[place])
            made.append(Transaction([attempt], expect, source=source, position=position, cause=str(number)))
        return made


class Bench:
    """A ledger on a Redis, and the trees that it decides for."""

    def __init__(self, redis: servers.BenchRedis) -> None:
        self.redis = redis
        self.ledger = RedisLedger(Client.connect(redis.url), SHARDS)
        self._trees: dict[tuple[int, int], Tree] = {}

    async def renew(self) -> None:
        """Begin with an empty ledger, whose numbers are as long as those of a running service."""
        self.redis.empty()
        self._trees.clear()
        await self.ledger.adopt_incarnation()

    async def measure(self, case: Case) -> dict[str, float]:
        """Decisions per second, and the microseconds of Redis' script and of this process that each took."""
        calls = []
        for caller in range(case.callers):
            shard = caller if case.batch > 1 else 0
            tree = await self._tree(shard, case.path_length)
            calls.append((shard, self._calls(tree, case, f"path-of-{case.path_length}/{caller}")))
        before = self.redis.scripts().seconds
        began, began_cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(self._commit(shard, some) for shard, some in calls))
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
        script_seconds = self.redis.scripts().seconds - before
        self.redis.client.delete(*map(keys.outbox, range(SHARDS)))
        count = case.decisions
        return {
            "decisions_per_second": count / seconds,
            "microseconds": seconds / count * 1e6,
            "script_us": script_seconds / count * 1e6,
            "python_us": cpu_seconds / count * 1e6,
        }

    async def _tree(self, shard: int, path_length: int) -> Tree:
        tree = self._trees.get((shard, path_length))
        if tree is None:
            tree = self._trees[shard, path_length] = Tree(path_length)
            await tree.install(self.ledger, shard)
        return tree

    @staticmethod
    def _calls(tree: Tree, case: Case, source: str) -> Iterator[Sequence[Transaction]]:
        made = tree.transactions(case.decisions // case.callers, case.changed_percent, source)
        return iter([made[first : first + case.batch] for first in range(0, len(made), case.batch)])

    async def _commit(self, shard: int, calls: Iterator[Sequence[Transaction]]) -> None:
        now_ms = time.time_ns() // 1_000_000
        for transactions in calls:
            _check(await self.ledger.commit(shard, transactions, now_ms))

    async def close(self) -> None:
        """Let go of Redis."""
        await self.ledger.close()


def _check(outcomes: Sequence[Outcome]) -> None:
    if any(outcome.kind is not OutcomeKind.APPLIED for outcome in outcomes):
        raise AssertionError(
            f"every decision of the benchmark is granted, or the figure is of something else: {outcomes[0]}"
        )


def cases(path_lengths: Sequence[int], batch_sizes: Sequence[int], percents: Sequence[int]) -> list[Case]:
    """Every combination; for each path length many callers with one decision each, and batches to several shards."""
    matrix = [Case(*each) for each in itertools.product(path_lengths, batch_sizes, percents)]
    single = [Case(length, 1, 100, CALLERS) for length in path_lengths]
    parallel = [Case(length, max(batch_sizes), percent, SHARDS) for length in path_lengths for percent in percents]
    return [*matrix, *single, *parallel]


async def run(*, quick: bool, rounds: int) -> report.Report:
    """The whole matrix, with both baselines in every round."""
    paths = (2,) if quick else PATH_LENGTHS
    sizes = (1, 100, 2000) if quick else BATCHES
    percents = (0, 100) if quick else CHANGED_PERCENTS
    made = report.Report("ledger", {"quick": quick, "rounds": rounds, "tenants": TENANTS, "callers": CALLERS})
    measured: dict[tuple[str, Case], list[dict[str, float]]] = {}
    postgres_rounds: dict[str, list[dict[str, float]]] = {}
    with servers.redis_server() as redis, postgres.server() as database:
        if database is None:
            made.notes.append(postgres.MISSING)
        else:
            made.machine["versions"]["postgresql"] = database.version
        bench = Bench(redis)
        for number, flush in itertools.product(range(rounds), FLUSHES):
            redis.flush_to_disk(flush)
            await bench.renew()
            report.progress.log(f"round {number + 1} of {rounds}, appendfsync {flush}")
            for case in cases(paths, sizes, percents):
                measured.setdefault((flush, case), []).append(await bench.measure(case))
            if database is not None:
                found = _postgres_round(database, flush, 1 if quick else PG_SECONDS)
                postgres_rounds.setdefault(flush, []).append(found)
        await bench.close()
    made.tables["decisions in the ledger"] = [_row(flush, case, some) for (flush, case), some in measured.items()]
    _compare(made, measured, postgres_rounds)
    return made


def _row(flush: str, case: Case, rounds: Sequence[dict[str, float]]) -> report.Row:
    figures = report.medians(rounds)
    return {
        "appendfsync": flush,
        "path_length": case.path_length,
        "batch": case.batch,
        "callers": case.callers,
        "changed_percent": case.changed_percent,
        **{name: round(value, 1) for name, value in figures.items()},
    }


def _postgres_round(database: postgres.Postgres, flush: str, seconds: int) -> dict[str, float]:
    """The same decision of a path of two, in one call and in statements, with one tree and with many."""
    found = {}
    for trees, (form, script), callers in itertools.product((1, CALLERS), postgres.FORMS.items(), (1, CALLERS)):
        shape = postgres.Shape(path_length=2, tenants=TENANTS, trees=trees)
        database.load(shape, synchronous=flush == "always")
        text = script(shape, _RECORD.decode(), _FACTS)
        place = "one direct partner" if trees == 1 else f"{trees} direct partners"
        name = f"PostgreSQL, {form}, {place}, {callers} {'caller' if callers == 1 else 'callers'}"
        found[name] = database.decisions_per_second(shape, text, callers=callers, seconds=seconds)
    return found


def _compare(
    made: report.Report,
    measured: Mapping[tuple[str, Case], Sequence[Mapping[str, float]]],
    postgres_rounds: Mapping[str, Sequence[Mapping[str, float]]],
) -> None:
    """The largest batch beside the baselines; each ratio is the median of those of the rounds."""
    batch = max(case.batch for _, case in measured)
    for flush in FLUSHES:
        rounds = [
            {
                BATCHED: measured[flush, Case(2, batch, 100, SHARDS)][number]["decisions_per_second"],
                "batches to one shard": measured[flush, Case(2, batch, 100)][number]["decisions_per_second"],
                SINGLE: measured[flush, Case(2, 1, 100)][number]["decisions_per_second"],
                CONCURRENT: measured[flush, Case(2, 1, 100, CALLERS)][number]["decisions_per_second"],
                **(postgres_rounds[flush][number] if postgres_rounds else {}),
            }
            for number in range(made.options["rounds"])
        ]
        ratios = {name: report.median_ratio(rounds, BATCHED, name) for name in rounds[0]}
        made.tables[f"the same decision on a path of two, appendfsync {flush}"] = [
            {"how": name, "decisions_per_second": round(rate), "batches_are_times_as_fast": round(ratios[name], 1)}
            for name, rate in report.medians(rounds).items()
        ]
        made.ratios |= {f"{BATCHED} / {name} (appendfsync {flush})": ratio for name, ratio in ratios.items()}
    _judge(made)


def _judge(made: report.Report) -> None:
    """The targets, with durable decisions: the ledger's normal state.

    PostgreSQL is taken at the best of its numbers of callers, with the tree that the ledger has, too: one direct
    partner whose row every decision locks. How it does with many trees is among the ratios.
    """
    for ratio in [name for name in made.ratios if name.startswith(f"{BATCHED} / {BATCHED}")]:
        del made.ratios[ratio]
    durable = {name: ratio for name, ratio in made.ratios.items() if "always" in name}
    single = next(ratio for name, ratio in durable.items() if f"/ {SINGLE} (" in name)
    made.targets["batches over one call per event"] = report.Target(single, at_least=10)
    for form in postgres.FORMS:
        against = [ratio for name, ratio in durable.items() if f"PostgreSQL, {form}, one direct partner" in name]
        if against:
            made.targets[f"batches over PostgreSQL, {form}"] = report.Target(min(against), at_least=20)
