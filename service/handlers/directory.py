"""Which shard a tenant lives in, and what to do with events of tenants that are not known yet.

All tenants below one direct partner share a shard. The directory is written before the tenant itself, so an entry
without a tenant may be left behind by a crash; it is harmless.
"""

from __future__ import annotations

import asyncio
import random
import uuid
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

from schemas.tenants import TenantUpserted
from service import records
from service.handlers import backlogs
from service.handlers.work import Work
from service.ledger.base import Ledger
from service.ledger.transaction import Attempt, Expectation, RecordKey, Timer, Transaction
from service.records import Backlog
from service.rules import tenants as tenant_rules

KNOWN_TENANTS_MAX = 1_000_000  # kept in the process; an entry changes only while there is no tenant behind it
AWAITED_TENANTS_MAX = 10_000  # kept in the process; who is not among them is told half a second later
NAMES = "names"  # the lease of whoever gives names to root's children
NAMES_TTL_MS = 10_000
NAMES_PAUSE_SECONDS = 0.02  # between two tries to get it


def shard_of(tenant: str, shards: int) -> int:
    """The shard of a direct partner or direct customer, and the place to wait for a tenant nobody knows."""
    return zlib.crc32(tenant.encode()) % shards


class Directory:
    """Finds shards in bulk; what is known is kept in the process."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: dict[str, int] = {}
        self._awaited: dict[str, Backlog] = {}  # tenants that events wait for, to be told when they are there

    async def locate(self, tenants: Iterable[str]) -> dict[str, int]:
        """The shards of those tenants that have one."""
        wanted = set(tenants)
        missing = [tenant for tenant in wanted if tenant not in self._known]
        found = await self._ledger.locate(missing) if missing else {}
        return found | {tenant: self._known[tenant] for tenant in wanted if tenant in self._known}

    @asynccontextmanager
    async def names(self, works: Sequence[Work]) -> AsyncIterator[None]:
        """Give names to root's children alone, among all instances: between the look at who has a name and the step
        that writes the tenant, nobody else may do the same. Nothing happens where no work concerns one of them.

        Should the lease run out before that step, or be lost, two tenants could get the same name; nothing else.
        """
        if not any(_is_below_root(work) for work in works):
            yield
            return
        holder = uuid.uuid4().hex
        while not await self._ledger.lease(NAMES, [0], holder, NAMES_TTL_MS):  # noqa: ASYNC110 - it is no event here
            await asyncio.sleep(random.uniform(0, NAMES_PAUSE_SECONDS))
        try:
            yield
        finally:
            await self._ledger.release(NAMES, [0], holder)

    async def groups(self, works: Sequence[Work]) -> dict[int, list[Work]]:
        """The works by shard, each shard's in the order of arrival. New tenants are entered on the way.

        The last ones may be left out, where they depend on what those before them make of a name.
        """
        works = works[: await self._claim_names(works)]
        located, awaited = await self._look_up(works)
        created: dict[str, int] = {}
        groups: dict[int, list[Work]] = {}
        for work in works:
            if not awaited and not isinstance(work.event.data, TenantUpserted) and work.tenant in located:
                groups.setdefault(located[work.tenant], []).append(work)  # nearly always
                continue
            shard = self._shard(work, located, awaited, created)
            if work.waits and not isinstance(work.event.data, TenantUpserted):
                awaited.setdefault(work.tenant, Backlog())  # what comes behind it in this batch waits behind it
            groups.setdefault(shard, []).append(work)
        moved = await self._enter(created)
        for work in [work for work in works if work.tenant in moved and not work.waits]:
            groups[created[work.tenant]].remove(work)
            groups.setdefault(moved[work.tenant], []).append(work)
        return groups

    async def _look_up(self, works: Sequence[Work]) -> tuple[dict[str, int], dict[str, Backlog]]:
        """Shards and backlogs of tenants that this process does not know yet."""
        tenants = {work.tenant for work in works}
        parents = {work.event.data.parent_id for work in works if isinstance(work.event.data, TenantUpserted)}
        if not parents and self._known.keys() >= tenants:
            return {tenant: self._known[tenant] for tenant in tenants}, {}
        new = [tenant for tenant in tenants if tenant not in self._known]
        located = await self.locate(tenants | parents - {tenant_rules.ROOT})
        keys: dict[int, list[RecordKey]] = {}
        for tenant in new:
            keys.setdefault(self.waiting_room(tenant), []).append(records.backlog_key(tenant, backlogs.UNKNOWN))
        stored = await self._ledger.read(keys) if keys else {}
        awaited = {
            key.tenant: records.decode(key, record.payload) for key, record in stored.items() if record is not None
        }
        self._awaited |= awaited
        while len(self._awaited) > AWAITED_TENANTS_MAX:
            self._awaited.pop(next(iter(self._awaited)))
        for tenant in new:  # of a parent it is not known whether somebody waits for it
            if tenant in located and tenant not in awaited:
                self._remember(tenant, located[tenant])
        return located, awaited

    def waiting_room(self, tenant: str) -> int:
        """The shard where events wait for a tenant that is not known."""
        return shard_of(tenant, self._ledger.shards)

    def _remember(self, tenant: str, shard: int) -> None:
        if len(self._known) >= KNOWN_TENANTS_MAX:
            self._known.pop(next(iter(self._known)))
        self._known[tenant] = shard

    def _shard(
        self, work: Work, located: Mapping[str, int], awaited: Mapping[str, Backlog], created: dict[str, int]
    ) -> int:
        if work.waits or work.tenant == tenant_rules.ROOT:  # root is in no shard; whatever it is, it is refused
            return self.waiting_room(work.tenant)
        if isinstance(work.event.data, TenantUpserted):
            return self._shard_of_upsert(work, work.event.data.parent_id, located, created)
        shard = located.get(work.tenant, created.get(work.tenant))
        may_wait = not work.queued and work.arrival.origin is not None
        if shard is not None and not (may_wait and work.tenant in awaited):
            return shard
        work.waits = may_wait  # not known, or known only since a moment: what waited before goes first
        return self.waiting_room(work.tenant)

    def _shard_of_upsert(self, work: Work, parent: str, located: Mapping[str, int], created: dict[str, int]) -> int:
        if parent == tenant_rules.ROOT:
            work.parent_shard = shard_of(work.tenant, self._ledger.shards)
        else:
            work.parent_shard = located.get(parent, created.get(parent))
        known = located.get(work.tenant, created.get(work.tenant))
        if known is not None:
            if work.tenant in self._known:
                created[work.tenant] = known  # entered again: a restart of Redis may have lost what this process knows
            return known
        if work.parent_shard is None:
            work.waits = not work.queued and work.arrival.origin is not None
            return self.waiting_room(work.tenant)
        created[work.tenant] = work.parent_shard
        return work.parent_shard

    async def _enter(self, created: Mapping[str, int]) -> dict[str, int]:
        """Enter new tenants; answers those that somebody else has entered elsewhere in the meantime."""
        if not created:
            return {}
        placed = await self._ledger.place(created)
        moved = {tenant: shard for tenant, shard in placed.items() if shard != created[tenant]}
        for tenant in moved:
            self.forget(tenant)
        return moved

    def forget(self, tenant: str) -> None:
        """A tenant is not where this process thinks; the ledger is asked the next time."""
        self._known.pop(tenant, None)

    async def replace(self, tenant: str, wrong: int, right: int) -> None:
        """Mend an entry without a tenant that a crash has left in another shard."""
        self.forget(tenant)
        await self._ledger.place({tenant: right}, instead_of=wrong)

    async def _claim_names(self, works: Sequence[Work]) -> int:
        """Names of root's children are unique over all shards, so they are claimed in a place of their own.

        What has a name already is only noted: whether the event is news at all, its handler knows. Answers how many of
        the works can go on now: one whose name an earlier one of them has, or gives up, has to wait for that.
        """
        before: set[str] = set()
        for number, work in enumerate(works):
            if _is_below_root(work):
                name = tenant_rules.comparable(work.event.data.name)  # type: ignore[attr-defined]  # it is an upsert
                holder = await self._ledger.claim_name(name, work.tenant)
                if holder != work.tenant and holder in before:
                    return number
                await self._ledger.add_root_child(work.tenant)
                work.name_holder = holder if holder != work.tenant and await self._has_name(holder, name) else None
                if holder not in (work.tenant, work.name_holder):
                    await self._ledger.claim_name(name, work.tenant, instead_of=holder)
            before.add(work.tenant)
        return len(works)

    async def _has_name(self, tenant: str, name: str) -> bool:
        shard = (await self.locate([tenant])).get(tenant)
        if shard is None:
            return False
        key = records.tenant_key(tenant)
        record = (await self._ledger.read({shard: [key]}))[key]
        found = records.decode(key, record.payload) if record else None
        return bool(
            found
            and not found.deleted
            and found.parent_id == tenant_rules.ROOT
            and tenant_rules.comparable(found.name) == name
        )

    async def nudge(self, works: Sequence[Work], now_ms: int) -> None:
        """What waited for a tenant that has just come to be is tried at once; a little later it would be anyway."""
        for work in works:
            if isinstance(work.event.data, TenantUpserted) and not work.waits:
                backlog = self._awaited.pop(work.tenant, None)
                if backlog is not None and backlog.busy:
                    await self._try_now(work.tenant, backlog.head, now_ms)

    async def _try_now(self, tenant: str, number: int, now_ms: int) -> None:
        job = backlogs.job_id(backlogs.UNKNOWN, tenant, number)
        shard, key = self.waiting_room(tenant), records.job_key(job)
        record = (await self._ledger.read({shard: [key]}))[key]
        if record is not None:
            # A conflict means that it has just been tried, which is as good.
            step = Attempt(timers=[Timer(f"job/{job}", now_ms)])
            await self._ledger.commit(shard, [Transaction([step], [Expectation(key, record.version)])], now_ms)


def _is_below_root(work: Work) -> bool:
    """Whether the work says that a tenant is a child of root."""
    data = work.event.data
    return isinstance(data, TenantUpserted) and data.parent_id == tenant_rules.ROOT and work.tenant != tenant_rules.ROOT
