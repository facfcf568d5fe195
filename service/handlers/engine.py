"""The one write path: a batch of arrivals in, decisions in the ledger out (docs/design.md 4).

For a batch: find the shards of its tenants, read what its decisions need in one round trip, let the handlers decide,
and commit each shard in one call. What conflicts is read again and decided again. Everything here may be repeated at
any point: positions in the ledger make that harmless.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain
from typing import Protocol, TypeVar

import msgspec

from service.catalog import Catalog
from service.handlers import jobs
from service.handlers.directory import Directory
from service.handlers.draft import Placements, Scarcity, View
from service.handlers.subjects import Event, Subject
from service.handlers.work import Arrival, Result, Work, path_keys
from service.ledger.base import Ledger
from service.ledger.errors import LedgerError
from service.ledger.transaction import Outcome, OutcomeKind, RecordKey, Transaction
from service.records import POPULATION_MAX, Cache, Loader, MissingError, tenant_key
from service.rules.tenants import ROOT

LOADS_MAX = 40  # rounds of reading for one batch; each goes one step further up a tree of bounded depth
STREAMS_CACHED = 4096  # names of partitions
PAUSE_SECONDS_MAX = 0.05  # between tries after repeated conflicts

_WRITING = (OutcomeKind.APPLIED, OutcomeKind.DENIED, OutcomeKind.DUPLICATE)  # they write, or have written before

Answer = TypeVar("Answer")


class Options(msgspec.Struct, frozen=True):
    """What the engine is told by the settings."""

    unknown_tenant_wait_seconds: float = 60.0
    topic_prefix: str = "apportion."
    switch_workloads_at_once_max: int = POPULATION_MAX


class Observer(Protocol):
    """Who counts what the engine does."""

    def decided(self, kind: str, event_type: str, count: int) -> None:
        """So many arrivals of a type were applied, denied, duplicate, rejected or delayed."""

    def conflicts(self, count: int) -> None:
        """So many decisions had to be made again."""

    def batch(self, events: int, transactions: int, seconds: float) -> None:
        """A batch was decided."""


class Silent:
    """An observer that counts nothing."""

    def decided(self, kind: str, event_type: str, count: int) -> None: ...

    def conflicts(self, count: int) -> None: ...

    def batch(self, events: int, transactions: int, seconds: float) -> None: ...


def system_clock() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


class Engine:
    """Decides batches of arrivals. ``clock`` gives Unix milliseconds."""

    def __init__(
        self,
        ledger: Ledger,
        catalog: Catalog,
        options: Options | None = None,
        observer: Observer | None = None,
        clock: Callable[[], int] = system_clock,
    ) -> None:
        self.ledger = ledger
        self.catalog = catalog
        self.options = options or Options()
        self.observer: Observer = observer or Silent()
        self.clock = clock
        self.loader = Loader(ledger, Cache(), self.options.switch_workloads_at_once_max)
        self.directory = Directory(ledger)
        self._placements = Placements()
        self._scarcity = Scarcity()

    async def handle(self, arrivals: Sequence[Arrival]) -> list[Result]:
        """Decide a batch; returns when every arrival is decided, in order within each of their streams.

        Raises ``LedgerUnavailable``: nothing is lost, call again with the same arrivals. The same is right after a
        crash anywhere in between, as every await leaves the ledger in a state from which the batch can be taken up:

        * before a commit nothing has happened but entries of the directory, which are written before what they lead to
          and found again;
        * a commit moves the stream's position in its shard in the same step as the decision, so what is repeated is a
          duplicate; of an event with many transactions, those that are missing are decided then;
        * an event whose shard may be another one the next time (its tenant is not known yet, or not where the directory
          says) is put into its backlog *before* anything behind it moves a position: no position ever hides it;
        * a backlog knows the offsets it has seen, and what comes out of it carries a key of its own.
        """
        return await self.handle_works([_work_of(arrival) for arrival in arrivals])

    async def handle_works(self, works: Sequence[Work]) -> list[Result]:
        """The same for arrivals whose place in a stream is known."""
        began = time.perf_counter()
        pending: Sequence[Work] = works
        transactions = 0
        tries = 0
        while pending:
            async with self.directory.names(pending):
                groups = await self.directory.groups(pending)
                transactions += await self._decide_works(groups, cautious=pending is not works)
            await self._mend(pending)
            tried = [work for group in groups.values() for work in group]
            undecided = [work for work in tried if work.result is None]
            tries = tries + 1 if len(undecided) == len(tried) else 0
            if undecided:
                await self._pause(len(undecided), tries)
            pending = [work for work in pending if work.result is None]
        await self.directory.nudge(works, self.clock())
        self._count(works, transactions, time.perf_counter() - began)
        return [work.result for work in works if work.result is not None]

    async def _decide_works(self, groups: Mapping[int, Sequence[Work]], *, cautious: bool) -> int:
        """Decide works by shard, once; answers how many transactions that took.

        Those that wait for their tenant go first, and the others only when they are kept: were a position moved before,
        a crash between the two would make the one that waits a duplicate, as soon as its tenant is there.
        """
        waiting = {shard: [Event(work) for work in works if work.waits] for shard, works in groups.items()}
        others = {shard: [Event(work) for work in works if not work.waits] for shard, works in groups.items()}
        done, count = await self._round({shard: events for shard, events in waiting.items() if events}, cautious)
        if all(all(decided) for decided in done.values()):
            _, further = await self._round({shard: events for shard, events in others.items() if events}, cautious)
            count += further
        return count

    async def _mend(self, works: Sequence[Work]) -> None:
        """Set the directory right where a crash has left it wrong; the work is tried again in the right shard."""
        for work in works:
            if work.misplaced_in is not None and work.parent_shard is not None:
                await self.directory.replace(work.tenant, work.misplaced_in, work.parent_shard)
                work.misplaced_in = None
            elif work.waits:
                self.directory.forget(work.tenant)

    async def run_due(self, shards: Sequence[int]) -> int:
        """One bounded step of everything that is due on these shards: jobs, wake-ups, expiry; answers how many.

        Raises ``LedgerUnavailable``. A crash anywhere loses nothing: what is due keeps its timer until the step that
        carries it out, or the one after, drops it; carried out twice, it changes nothing twice.
        """
        return await jobs.run_due(self, shards)

    async def settle(self, shard: int, subjects: Sequence[Subject]) -> None:
        """Decide all subjects on one shard, trying again what conflicts."""
        pending = subjects
        tries = 0
        while pending:
            done, _ = await self._round({shard: pending}, cautious=pending is not subjects)
            undecided = [subject for subject, decided in zip(pending, done[shard], strict=True) if not decided]
            tries = tries + 1 if len(undecided) == len(pending) else 0
            if undecided:
                await self._pause(len(undecided), tries)
            pending = undecided

    async def _pause(self, undecided: int, tries: int) -> None:
        """Somebody else writes the same records: let them finish. The more often, the longer."""
        self.observer.conflicts(undecided)
        await asyncio.sleep(random.uniform(0, min(PAUSE_SECONDS_MAX, 0.001 * 2**tries)))

    async def _round(
        self, groups: Mapping[int, Sequence[Subject]], cautious: bool
    ) -> tuple[dict[int, list[bool]], int]:
        """Decide subjects by shard, once; says of each whether it is decided, and how many transactions there were.

        ``cautious`` is every round but the first: its decisions bring all their attempts, so that a batch in which many
        quotas run out is decided in two rounds and not in as many.
        """
        now_ms = self.clock()
        cache, placements = self.loader.cache, self._placements
        scarcity = None if cautious else self._scarcity
        most = self.options.switch_workloads_at_once_max
        views = {shard: View(shard, self.catalog, now_ms, cache, placements, scarcity, most) for shard in groups}
        await self._prefetch(views, groups)
        spans: dict[int, list[slice]] = {}
        if not all(_are_there(views[shard], subjects) for shard, subjects in groups.items()):
            # Rare. What strays is dealt with before anything is committed: see ``handle``.
            spans = {shard: await self._decide_all(views[shard], subjects) for shard, subjects in groups.items()}
            if any(subject.strays for subjects in groups.values() for subject in subjects):
                return {shard: [False] * len(subjects) for shard, subjects in groups.items()}, 0
        runs = [self._run(views[shard], subjects, spans.get(shard)) for shard, subjects in groups.items()]
        done = dict(zip(groups, await together(runs), strict=True))
        return done, sum(len(view.transactions) for view in views.values())

    async def _run(self, view: View, subjects: Sequence[Subject], spans: list[slice] | None) -> list[bool]:
        """Decide, where that is not done yet, and commit."""
        if spans is None:
            spans = await self._decide_all(view, subjects)
        try:
            outcomes = await self._commit(view)
        except LedgerError as error:
            if error.transaction is None:
                raise  # the ledger refuses this service, not one decision
            at_fault = next(n for n, span in enumerate(spans) if error.transaction <= span.stop)
            subjects[at_fault].give_up(error)
            return [False] * len(subjects)
        return [subject.conclude(outcomes[span]) for subject, span in zip(subjects, spans, strict=True)]

    async def _decide_all(self, view: View, subjects: Sequence[Subject]) -> list[slice]:
        """Decide subjects one after the other; each one's part of the view's transactions."""
        spans = []
        for subject in subjects:
            begin = len(view.transactions)
            await self._decide(view, subject)
            spans.append(slice(begin, len(view.transactions)))
        return spans

    async def _prefetch(self, views: Mapping[int, View], groups: Mapping[int, Sequence[Subject]]) -> None:
        """Read what the decisions will ask for, all shards in one round trip; each round knows more and asks for more.

        The way up of every tenant is read first, once for all events of the tenant.
        """
        ways: dict[tuple[int, str], None] = {
            (shard, subject.tenant): None for shard, subjects in groups.items() for subject in subjects
        }
        asking: list[tuple[View, Callable[[View], Iterable[RecordKey]]]]
        asking = [(views[shard], partial(path_keys, tenant=tenant)) for shard, tenant in ways]
        await self._ask(asking)
        await self._ask([(views[shard], subject.needs) for shard, subjects in groups.items() for subject in subjects])

    async def _ask(self, asking: list[tuple[View, Callable[[View], Iterable[RecordKey]]]]) -> None:
        for _ in range(LOADS_MAX):
            wanted: dict[int, dict[RecordKey, None]] = {}
            still_asking = []
            for view, needs in asking:
                keys = view.missing(needs(view))
                if keys:
                    still_asking.append((view, needs))
                    wanted.setdefault(view.shard, {}).update(dict.fromkeys(keys))
            if not wanted:
                return
            found = await self.loader.load(wanted)
            for view in {id(view): view for view, _ in still_asking}.values():
                view.take_in({key: found[key] for key in wanted[view.shard]})
            asking = still_asking

    async def _decide(self, view: View, subject: Subject) -> None:
        before = len(view.transactions)
        for _ in range(LOADS_MAX):
            try:
                subject.decide(view)
            except MissingError as missing:
                view.undo(before)
                view.take_in(await self.loader.load({view.shard: [missing.key]}))
            else:
                return
        subject.give_up(AssertionError(f"{subject} asks for ever more records"))
        subject.decide(view)

    async def _commit(self, view: View) -> list[Outcome]:
        if not view.transactions:
            return []
        outcomes = await self.ledger.commit(view.shard, view.transactions, view.now_ms)
        # What was written is not in the cache any more, and neither is what turned out to be stale.
        self.loader.cache.drop(key for number, key in view.cached_writes if outcomes[number - 1].kind in _WRITING)
        for transaction, outcome in zip(view.transactions, outcomes, strict=True):
            if outcome.kind is not OutcomeKind.APPLIED:
                self._learn(transaction, outcome)
        return outcomes

    def _learn(self, transaction: Transaction, outcome: Outcome) -> None:
        """What an outcome says of records that have changed, of quotas that are used up, and of other ways that were
        gone."""
        if outcome.denials:
            self._scarcity.note((denial.tenant for some in outcome.denials for denial in some), self.clock())
        if outcome.kind is OutcomeKind.CONFLICT:
            expected = chain(transaction.expect, *transaction.standing)
            self.loader.cache.drop(key for key, _ in expected)
        elif outcome.kind in _WRITING:
            for attempt in transaction.attempts[1:]:
                self.loader.cache.drop(key for key, _ in attempt.put if Cache.takes(key))
                self.loader.cache.drop(key for key in attempt.delete if Cache.takes(key))

    def _count(self, works: Sequence[Work], transactions: int, seconds: float) -> None:
        counts: dict[tuple[str, str], int] = {}
        for work in works:
            key = (work.result.kind if work.result else "", work.event.type)
            counts[key] = counts.get(key, 0) + 1
        for (kind, event_type), count in counts.items():
            self.observer.decided(kind, event_type, count)
        self.observer.batch(len(works), transactions, seconds)


def _work_of(arrival: Arrival) -> Work:
    origin = arrival.origin
    if origin is None:
        return Work(arrival, None, 0)
    return Work(arrival, _stream(origin.topic, origin.partition), origin.offset)


@lru_cache(STREAMS_CACHED)
def _stream(topic: str, partition: int) -> str:
    """The source under which the ledger knows a partition."""
    return f"{topic}/{partition}"


def _are_there(view: View, subjects: Sequence[Subject]) -> bool:
    """Whether every tenant that the subjects name stands in this shard."""
    names = {name for subject in subjects for name in subject.tenants() if name != ROOT}
    return all((entry := view.peek(tenant_key(name))) is not None and entry.value is not None for name in names)


async def together(runs: Iterable[Awaitable[Answer]]) -> list[Answer]:
    """All answers; where something fails, only when the others have come to their end, so that nothing runs on."""
    answers = await asyncio.gather(*runs, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [answer for answer in answers if not isinstance(answer, BaseException)]
